// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A staged plan becomes the steps of a journal. What was staged is looked at once more: the last look before anything
//! live changes.

use std::collections::HashSet;

use super::apply;
use super::chain::{DirChain, is_other_by_now, is_other_now};
use super::compare::file_type;
use super::displaced;
use super::journal::{DirTime, Meta, New, Op, Step, Was};
use super::plan::{Action, Change, CheckoutPlan, Outcome, Wanted};
use super::stage::staged_name;
use crate::area::RuleSet;
use crate::error::{Error, Result};
use crate::format::manifest::{Inode, InodeKind};
use crate::fsio::{ACL_ACCESS, ACL_DEFAULT, Dir, Stat, encode_acl};
use crate::inode::{self, UnknownXattrs};

impl Meta {
    /// The metadata of an inode.
    pub(super) fn of(inode: &Inode) -> Meta {
        let acl = |name: &[u8], acl: &Option<_>| acl.as_ref().map(|acl| (name.to_vec(), encode_acl(acl)));
        let acls = [acl(ACL_ACCESS, &inode.acl), acl(ACL_DEFAULT, &inode.default_acl)];
        let attributes = inode.xattrs.iter().map(|(name, value)| (name.clone(), value.clone()));
        Meta {
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            flags: inode.flags,
            xattrs: attributes.chain(acls.into_iter().flatten()).collect(),
        }
    }
}

/// Makes the steps of a staged plan, and the directory times that they change.
///
/// # Errors
/// [`Error::Refused`] when something staged is not as it should be; [`Error::Io`].
pub(super) fn of_plan(
    plan: &CheckoutPlan,
    staging: &Dir,
    root: &Dir,
    rules: &RuleSet,
) -> Result<(Vec<Step>, Vec<DirTime>)> {
    let same = plan.outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Same(stat) => Some(*stat),
        _ => None,
    });
    let dropped = plan.dropped.iter().filter_map(|dropped| dropped.same);
    let stay = same.chain(dropped).filter(|stat| stat.nlink > 1 && !stat.is_dir()).map(|stat| stat.ino).collect();
    let mut maker = Maker { plan, staging, root, rules, stay, chain: DirChain::new(root) };
    let mut steps = Vec::new();
    for (index, action) in plan.actions.iter().enumerate() {
        if let Some(op) = maker.op(index, action)? {
            steps.push(Step { path: action.path.clone(), slot: index, op });
        }
    }
    let dirs = maker.dirs()?;
    Ok((steps, dirs))
}

struct Maker<'a> {
    plan: &'a CheckoutPlan,
    staging: &'a Dir,
    root: &'a Dir,
    rules: &'a RuleSet,
    /// Inodes with several names that stay by one of them.
    stay: HashSet<u64>,
    chain: DirChain<'a>,
}

impl Maker<'_> {
    fn op(&mut self, index: usize, action: &Action) -> Result<Option<Op>> {
        Ok(Some(match &action.change {
            Change::Add { inside: true, .. } | Change::Remove { inside: true, .. } => return Ok(None),
            Change::Add { wanted, .. } => Op::Add { new: self.staged(index, action, wanted)? },
            Change::Replace { wanted, was, keep_aside } => Op::Replace {
                new: self.staged(index, action, wanted)?,
                was: self.going(index, action, was)?,
                keep_aside: *keep_aside,
            },
            Change::Remove { was, .. } => Op::Remove { was: self.going(index, action, was)? },
            Change::Metadata { inode, was } => {
                let after = Meta::of(inode);
                match self.live_meta(action, was)? {
                    Some(before) => Op::Metadata { was: Was::of(was), before, after },
                    // Somebody was faster. No inode has this number: the switch leaves it alone and reports it.
                    None => Op::Metadata { was: Was { ino: 0, ..Was::of(was) }, before: after.clone(), after },
                }
            }
        }))
    }

    /// Looks at a staged inode.
    fn staged(&self, index: usize, action: &Action, wanted: &Wanted) -> Result<New> {
        let name = staged_name(index);
        let stat = self.staging.stat(&name).map_err(|e| Error::io("look at", self.staging.path_of(&name), e))?;
        let (Wanted::Inode(inode) | Wanted::Copy(inode)) = wanted else {
            return Ok(New { ino: stat.ino, born: stat.born, mtime: stat.mtime, late: None });
        };
        if !is_as_wanted(&stat, inode) {
            return Err(Error::Refused {
                reason: format!("{} was written and is not there as it was written", action.path),
                hint: Some("the file system may be damaged; nothing was changed".into()),
            });
        }
        let is_late = apply::late_mode(inode)
            || (apply::late_flags(inode.flags) && matches!(inode.kind, InodeKind::File(_) | InodeKind::Directory));
        let late = is_late.then_some((inode.mode, inode.flags));
        Ok(New { ino: stat.ino, born: stat.born, mtime: inode.mtime, late })
    }

    /// What gives way, and what goes with it.
    fn going(&mut self, index: usize, action: &Action, was: &Stat) -> Result<Was> {
        let mut going = self.was(action, was)?;
        if was.is_dir() {
            let below = self.plan.actions[index + 1..].iter().take_while(|below| below.path.starts_with(&action.path));
            for below in below {
                if let Change::Remove { was, inside: true } = &below.change {
                    going.within.push((below.path.clone(), self.was(below, was)?));
                }
            }
        }
        Ok(going)
    }

    fn was(&mut self, action: &Action, was: &Stat) -> Result<Was> {
        let stays = self.stay.contains(&was.ino);
        let failed = |e| Error::io("read", self.root.path_of(action.path.as_bytes()), e);
        let caps =
            if stays { None } else { displaced::capabilities(&mut self.chain, &action.path, was).map_err(failed)? };
        Ok(Was { stays, caps, ..Was::of(was) })
    }

    /// Metadata of what is live; `None` when it is not what the plan saw.
    fn live_meta(&mut self, action: &Action, was: &Stat) -> Result<Option<Meta>> {
        let found = match self.chain.find(&action.path) {
            Err(e) if is_other_now(&e) => None,
            found => found.map_err(|e| Error::io("read", self.root.path_of(action.path.as_bytes()), e))?,
        };
        let Some(found) = found.filter(|found| found.stat.ino == was.ino) else { return Ok(None) };
        match inode::read_metadata(&found, self.rules.xattrs(), UnknownXattrs::Ignore) {
            Err(e) if is_other_by_now(&e) => Ok(None),
            meta => Ok(Some(Meta::of(&meta?))),
        }
    }

    /// Times that change, with what they are now.
    fn dirs(&mut self) -> Result<Vec<DirTime>> {
        let mut dirs = Vec::with_capacity(self.plan.dir_times.len());
        for (path, after) in &self.plan.dir_times {
            let failed = |e| Error::io("look at", self.root.path_of(path.as_bytes()), e);
            match self.chain.dir(path.as_bytes()) {
                Err(e) if is_other_now(&e) => {}
                dir => {
                    let before = dir.and_then(|dir| dir.stat(b"")).map_err(failed)?.mtime;
                    dirs.push(DirTime { path: path.clone(), before, after: *after });
                }
            }
        }
        Ok(dirs)
    }
}

fn is_as_wanted(stat: &Stat, inode: &Inode) -> bool {
    let same_kind = stat.file_type == file_type(&inode.kind);
    let same_owner = (stat.uid, stat.gid) == (inode.uid, inode.gid);
    let same_content = match &inode.kind {
        InodeKind::File(content) => stat.size == content.size && stat.mtime == inode.mtime,
        _ => true,
    };
    same_kind && same_owner && same_content
}
