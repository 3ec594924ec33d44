// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What becomes of one path: nothing, a change, or a reason why it stays different.

use super::super::compare::{Difference, differences};
use super::super::conflict::ConflictPolicy;
use super::super::options::Adopt;
use super::super::plan::{Action, Change, DroppedEntry, KeptBecause, Outcome, Reason, Skipped, may_change_in_place};
use super::ground::Ground;
use super::{Applied, LiveTree, Merge, Seen, Target};
use crate::error::Result;
use crate::format::manifest::{Inode, InodeKind};
use crate::fsio::{FileType, Stat};
use crate::path::TreePath;

impl<L: LiveTree> Merge<'_, L> {
    /// The target has it, the live tree does not.
    pub(super) fn absent(&mut self, target: Target, applied: Option<Applied>) -> Result<()> {
        let ground = self.frames.last().map_or(Ground::New, |frame| frame.ground);
        let unreachable = match ground {
            Ground::Live | Ground::New => None,
            Ground::Outside => Some((Outcome::Skipped, Ground::Outside)),
            Ground::Blocked | Ground::Going { .. } => Some((Outcome::Blocked, Ground::Blocked)),
        };
        if let Some((outcome, below)) = unreachable {
            self.plan.counts.blocked += u64::from(outcome == Outcome::Blocked);
            self.plan.outcomes.push(outcome);
            self.enter(&target.path, &target.inode, below);
            return Ok(());
        }
        if let Some(why) = self.never_made(&target.inode.kind) {
            self.skip(target.path, why);
            return Ok(());
        }
        let beside_excluded =
            ground == Ground::Live && target.path.parent().is_some_and(|p| self.live.holds_outside(&p));
        if beside_excluded && self.live.is_taken(&target.path)? {
            self.enter(&target.path, &target.inode, Ground::Blocked);
            self.keep(target.path, KeptBecause::ExcludedInTheWay);
            return Ok(());
        }
        let reason = match applied {
            Some(Applied { dropped: false, .. }) => Reason::Missing,
            _ => Reason::Added,
        };
        self.touch_parent();
        let inside = ground == Ground::New && !self.frames.is_empty();
        self.enter(&target.path, &target.inode, Ground::New);
        let wanted = self.wanted(&target);
        self.plan.outcomes.push(Outcome::Delivered);
        self.plan.actions.push(Action { path: target.path, change: Change::Add { wanted, inside }, reason });
        Ok(())
    }

    /// Target and live tree have it.
    pub(super) fn present(&mut self, target: Target, applied: Option<Applied>, item: L::Item) -> Result<()> {
        let stat = *L::stat(&item);
        if L::is_mount_point(&item) {
            self.mark_foreign();
            self.enter(&target.path, &target.inode, Ground::Blocked);
            self.keep(target.path, KeptBecause::MountPoint);
            return Ok(());
        }
        if let Some(why) = self.never_made(&target.inode.kind) {
            self.skip(target.path, why);
            return Ok(());
        }
        let mut seen = self.see(item, applied.as_ref(), Some(&target));
        let to_target = self.compare(&mut seen, &target.inode, applied.as_ref())?;
        if to_target.is_none() {
            return self.equal(target, applied, &mut seen);
        }
        let to_applied = match &applied {
            Some(applied) => Some(self.compare(&mut seen, &applied.inode, Some(applied))?),
            None => None,
        };
        match self.verdict(&target, applied.as_ref(), to_target, to_applied, &stat) {
            Ok((reason, keep_aside)) => self.deliver(target, &mut seen, reason, keep_aside),
            Err(because) => {
                let ground = if stat.is_dir() { Ground::Live } else { Ground::Blocked };
                if stat.is_dir() && target.inode.kind != InodeKind::Directory {
                    self.enter_live(&target.path, None, Ground::Live);
                } else {
                    self.enter(&target.path, &target.inode, ground);
                }
                self.keep(target.path, because);
                Ok(())
            }
        }
    }

    /// Content and metadata are as wanted; hard links may not be.
    pub(super) fn equal(&mut self, target: Target, applied: Option<Applied>, seen: &mut Seen<L::Item>) -> Result<()> {
        let stat = *L::stat(&seen.item);
        if let Some(reason) = self.claim(&target, applied.as_ref(), &stat) {
            return match reason {
                Ok(reason) => self.deliver(target, seen, reason, false),
                Err(because) => {
                    self.keep(target.path, because);
                    Ok(())
                }
            };
        }
        let counts = &mut self.plan.counts;
        counts.unchanged += 1;
        counts.adopted += u64::from(applied.is_none());
        counts.unproven += u64::from(!seen.proven);
        self.plan.outcomes.push(Outcome::Same(stat));
        if target.inode.kind == InodeKind::Directory {
            let entry_changed = applied.is_none_or(|applied| applied.inode.mtime != target.inode.mtime);
            let adopting_kept = self.rules.adoption == Some(Adopt::Keep);
            // An interrupted switch has put names into directories whose time it did not come to set.
            let wants_time = self.rules.interrupted || ((self.rules.mode.is_full() || entry_changed) && !adopting_kept);
            self.enter(&target.path, &target.inode, Ground::Live);
            if wants_time && stat.mtime != target.inode.mtime {
                self.touch_self();
            }
        }
        Ok(())
    }
    /// Who wins where live tree and target differ: `Ok` the reference (and whether the local file stays beside it).
    pub(super) fn verdict(
        &self,
        target: &Target,
        applied: Option<&Applied>,
        to_target: Difference,
        to_applied: Option<Difference>,
        live: &Stat,
    ) -> Result<(Reason, bool), KeptBecause> {
        let reference_changed =
            applied.is_none_or(|applied| applied.dropped || !differences(&applied.inode, &target.inode).is_none());
        let reason = match to_applied {
            Some(changed) if changed.is_none() => return Ok((Reason::Updated(to_target), false)),
            _ if self.rules.interrupted
                && self.rules.adoption.is_none()
                && was_lifted(live, &target.inode, to_target) =>
            {
                return Ok((Reason::Restored(to_target), false));
            }
            Some(_) if reference_changed => Reason::Conflict(to_target),
            Some(_) => Reason::Restored(to_target),
            None if self.rules.new_root && target.path.is_root() => Reason::Added,
            None => Reason::Unmanaged(to_target),
        };
        match self.rules.adoption {
            Some(Adopt::Keep) => return Err(KeptBecause::LocalChange(to_target)),
            Some(Adopt::Replace) => return Ok((reason, false)),
            None => {}
        }
        if self.rules.mode.is_full() {
            return Ok((reason, false));
        }
        if !reference_changed {
            return Err(KeptBecause::LocalChange(to_target));
        }
        let local_is_newer = live.mtime > target.inode.mtime && live.mtime <= self.rules.now;
        match (self.rules.conflict)(&target.path, live.is_dir()) {
            ConflictPolicy::Replace => Ok((reason, false)),
            ConflictPolicy::Newer if !local_is_newer => Ok((reason, false)),
            ConflictPolicy::Newer | ConflictPolicy::Keep => Err(KeptBecause::Policy(to_target)),
            ConflictPolicy::Both => Ok((reason, !live.is_dir())),
        }
    }
    /// Makes a present path as the target has it.
    pub(super) fn deliver(
        &mut self,
        target: Target,
        seen: &mut Seen<L::Item>,
        reason: Reason,
        keep_aside: bool,
    ) -> Result<()> {
        let was = *L::stat(&seen.item);
        let (is_dir, wants_dir) = (was.is_dir(), target.inode.kind == InodeKind::Directory);
        let outcome = self.plan.outcomes.len();
        self.plan.outcomes.push(Outcome::Delivered);
        if is_dir && wants_dir {
            self.enter(&target.path, &target.inode, Ground::Live);
            self.touch_self();
            let change = Change::Metadata { inode: Box::new(target.inode), was: Box::new(was) };
            self.plan.actions.push(Action { path: target.path, change, reason });
            return Ok(());
        }
        let only_metadata = !reason.difference().is_content() && !reason.difference().has(Difference::LINKS);
        if only_metadata && was.file_type == FileType::File && target.group.is_none() {
            let live = self.metadata(seen)?.clone();
            if may_change_in_place(&was, &target.inode, &live) {
                let change = Change::Metadata { inode: Box::new(target.inode), was: Box::new(was) };
                self.plan.actions.push(Action { path: target.path, change, reason });
                return Ok(());
            }
        }
        self.touch_parent();
        let action = self.plan.actions.len();
        if is_dir {
            self.enter_live(&target.path, None, Ground::Going { action, outcome: Some(outcome) });
        } else {
            self.enter(&target.path, &target.inode, Ground::New);
        }
        let wanted = self.wanted(&target);
        let change = Change::Replace { wanted, was: Box::new(was), keep_aside };
        self.plan.actions.push(Action { path: target.path, change, reason });
        Ok(())
    }

    /// Only the live tree has it.
    pub(super) fn unwanted(&mut self, path: &TreePath, applied: Option<Applied>, item: L::Item) -> Result<()> {
        let stat = *L::stat(&item);
        if L::is_mount_point(&item) {
            self.mark_foreign();
            if self.removes() {
                self.plan
                    .skipped
                    .push(Skipped { path: path.clone(), reason: "another file system is mounted there, which stays" });
            }
            return Ok(());
        }
        if L::is_passage(&item) && applied.is_none() {
            self.mark_foreign();
            self.enter_live(path, None, Ground::Live);
            return Ok(());
        }
        if self.removes() {
            self.touch_parent();
            let action = self.plan.actions.len();
            if stat.is_dir() {
                self.enter_live(path, None, Ground::Going { action, outcome: None });
            }
            let reason = if applied.is_some() { Reason::Dropped } else { Reason::Stray };
            let change = Change::Remove { was: Box::new(stat), inside: false };
            self.plan.actions.push(Action { path: path.clone(), change, reason });
            // What cannot be removed after all stays known as delivered.
            if let Some(applied) = applied.filter(|_| stat.is_dir()) {
                self.plan.dropped.push(DroppedEntry { path: path.clone(), inode: applied.inode, same: None });
            }
            return Ok(());
        }
        if stat.is_dir() {
            self.enter_live(path, None, Ground::Live);
        }
        let Some(applied) = applied else {
            self.plan.counts.strays_left += 1;
            return Ok(());
        };
        let mut seen = self.see(item, Some(&applied), None);
        let same = self.compare(&mut seen, &applied.inode, Some(&applied))?.is_none().then_some(stat);
        self.plan.counts.dropped_left += 1;
        let inode = Inode { links: 1, ..applied.inode };
        self.plan.dropped.push(DroppedEntry { path: path.clone(), inode, same });
        Ok(())
    }
}

/// Whether a directory looks as if an interrupted switch had lifted what forbade changes in it.
fn was_lifted(live: &Stat, wanted: &Inode, differs: Difference) -> bool {
    let only_rights =
        !differs.has(Difference::KIND) && differs.minus(Difference::MODE).minus(Difference::FLAGS).is_none();
    live.is_dir() && only_rights && (live.mode == wanted.mode || live.mode == wanted.mode | 0o700)
}
