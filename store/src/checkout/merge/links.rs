// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hard-link groups: which name holds the inode that the others share.

use super::super::compare::Difference;
use super::super::plan::{Change, KeptBecause, Reason, Wanted};
use super::{Applied, LiveTree, Merge, Target};
use crate::format::manifest::Inode;
use crate::fsio::Stat;
use crate::path::TreePath;

/// Where the inode of a hard-link group is.
#[derive(Clone)]
pub(super) struct Leader {
    pub(super) path: TreePath,
    pub(super) live: Option<Stat>,
}

/// A hard-link group of the target.
pub(super) struct Group {
    pub(super) inode: Inode,
    pub(super) leader: Option<Leader>,
}
impl<L: LiveTree> Merge<'_, L> {
    /// Registers the use of a live inode as it is. Gives what is to be done instead when names that belong together
    /// do not share it, or names that do not belong together do.
    pub(super) fn claim(
        &mut self,
        target: &Target,
        applied: Option<&Applied>,
        stat: &Stat,
    ) -> Option<Result<Reason, KeptBecause>> {
        if stat.is_dir() {
            return None;
        }
        let owner = target.group.as_ref().unwrap_or(&target.path);
        if stat.nlink > 1 {
            let claimed = self.claims.entry((stat.dev, stat.ino)).or_insert_with(|| owner.clone());
            if claimed != owner {
                // Two inodes of the reference are one inode here.
                let reference_changed = applied.is_some_and(|applied| applied.group != target.group);
                return Some(if self.rules.mode.is_full() {
                    Ok(Reason::Restored(Difference::LINKS))
                } else if reference_changed {
                    Ok(Reason::Updated(Difference::LINKS))
                } else {
                    Err(KeptBecause::LocalChange(Difference::LINKS))
                });
            }
        }
        let group = self.groups.get_mut(target.group.as_ref()?)?;
        match &group.leader {
            None => {
                group.leader = Some(Leader { path: target.path.clone(), live: Some(*stat) });
                None
            }
            Some(Leader { live: Some(leader), .. }) if (leader.dev, leader.ino) == (stat.dev, stat.ino) => None,
            Some(_) => Some(Ok(Reason::Relinked)),
        }
    }
    /// A new inode, or a further name of the group's one.
    pub(super) fn wanted(&mut self, target: &Target) -> Wanted {
        let Some(group) = target.group.as_ref().and_then(|first| self.groups.get_mut(first)) else {
            return Wanted::Inode(Box::new(target.inode.clone()));
        };
        match &group.leader {
            Some(leader) => {
                Wanted::Link { leader: leader.path.clone(), live: leader.live.map(|stat| (stat.ino, stat.mtime)) }
            }
            None => {
                group.leader = Some(Leader { path: target.path.clone(), live: None });
                Wanted::Inode(Box::new(target.inode.clone()))
            }
        }
    }
    /// The action at `index` does not happen: if it was to make a hard-link group's inode, the next name makes it.
    pub(super) fn follow_new_leader(&mut self, index: usize) {
        let (before, after) = self.plan.actions.split_at_mut(index + 1);
        let (path, Some(Wanted::Inode(inode))) = (&before[index].path, before[index].wanted()) else { return };
        let mut heir: Option<TreePath> = None;
        for action in after {
            let (Change::Add { wanted, .. } | Change::Replace { wanted, .. }) = &mut action.change else { continue };
            match wanted {
                Wanted::Link { leader, live: None } if leader == path => match &heir {
                    Some(heir) => *leader = heir.clone(),
                    None => {
                        heir = Some(action.path.clone());
                        *wanted = Wanted::Inode(inode.clone());
                    }
                },
                _ => {}
            }
        }
    }
}
