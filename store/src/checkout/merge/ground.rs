// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directories on the way to the current path: what they mean for what is below, and what becomes of them once
//! everything below is known.

use std::collections::BTreeSet;

use super::super::plan::{Change, CheckoutPlan, Kept, KeptBecause, Outcome, Skipped};
use super::{LiveTree, Merge};
use crate::format::manifest::{Inode, InodeKind, Timestamp};
use crate::path::TreePath;

/// What the parent means for the entries below it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// A live directory that stays.
    Live,
    /// A directory that is made as a whole.
    New,
    /// Something else is there: nothing of the target can be delivered below.
    Blocked,
    /// Does not belong to the area here, and nothing below does.
    Outside,
    /// A live directory in the way of something else (`action` replaces it) or no longer wanted (`action` removes it).
    Going { action: usize, outcome: Option<usize> },
}

/// A directory on the way to the current path.
pub(super) struct Frame {
    pub(super) path: TreePath,
    pub(super) ground: Ground,
    /// Wanted mtime, when the target has this directory and it stays.
    pub(super) mtime: Option<Timestamp>,
    /// Its mtime has to be set.
    pub(super) touched: bool,
    /// Live names in it that belong to the area.
    pub(super) live_names: u64,
    /// It or something below holds what may not be removed.
    pub(super) holds_foreign: bool,
}
impl<L: LiveTree> Merge<'_, L> {
    /// Opens a frame when the target has a directory here.
    pub(super) fn enter(&mut self, path: &TreePath, inode: &Inode, ground: Ground) {
        if inode.kind == InodeKind::Directory {
            self.enter_live(path, (ground == Ground::Live).then_some(inode.mtime), ground);
        }
    }

    pub(super) fn enter_live(&mut self, path: &TreePath, mtime: Option<Timestamp>, ground: Ground) {
        let frame = Frame { path: path.clone(), ground, mtime, touched: false, live_names: 0, holds_foreign: false };
        self.frames.push(frame);
    }

    pub(super) fn touch_parent(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.touched = true;
        }
    }

    /// For a directory whose frame was just opened.
    pub(super) fn touch_self(&mut self) {
        self.touch_parent();
    }

    pub(super) fn mark_foreign(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.holds_foreign = true;
        }
    }

    /// Leaves every directory that `path` is not in.
    pub(super) fn leave_until(&mut self, path: &TreePath) {
        while self.frames.last().is_some_and(|frame| !path.starts_with(&frame.path)) {
            self.leave();
        }
    }

    /// Leaves the innermost directory; everything in it is known now.
    pub(super) fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        let foreign = frame.holds_foreign || self.live.holds_outside(&frame.path);
        if let (true, Some(mtime)) = (frame.touched, frame.mtime) {
            self.plan.dir_times.push((frame.path.clone(), mtime));
        }
        let mut stays = matches!(frame.ground, Ground::Live | Ground::Blocked | Ground::Outside);
        if let Ground::Going { action, outcome } = frame.ground {
            let occupied = frame.live_names > 0 && !self.removes();
            stays = foreign || occupied;
            match outcome {
                _ if !stays => self.remove_with(action),
                // Something else was wanted here.
                Some(outcome) => {
                    self.doomed.push(action);
                    let because = if foreign { KeptBecause::HoldsExcluded } else { KeptBecause::DirectoryInTheWay };
                    self.plan.outcomes[outcome] = Outcome::Kept;
                    self.plan.kept.push(Kept { path: frame.path.clone(), because });
                }
                None => self.doomed.push(action),
            }
        }
        if foreign && stays {
            self.mark_foreign();
        }
    }

    /// A directory goes: what is below goes with it.
    pub(super) fn remove_with(&mut self, action: usize) {
        for below in &mut self.plan.actions[action + 1..] {
            if let Change::Remove { inside, .. } = &mut below.change {
                *inside = true;
            }
        }
    }
    pub(super) fn finish(mut self) -> CheckoutPlan {
        let removes = self.removes();
        let mut doomed = std::mem::take(&mut self.doomed);
        doomed.sort_unstable();
        for index in &doomed {
            self.follow_new_leader(*index);
        }
        let mut plan = self.plan;
        let reason = "something in it lies deeper than any path may, and stays";
        plan.skipped.extend(self.live.beyond().iter().map(|path| Skipped { path: path.clone(), reason }));
        let stays: BTreeSet<TreePath> = doomed.iter().map(|index| plan.actions[*index].path.clone()).collect();
        let mut index = 0;
        plan.actions.retain(|_| {
            index += 1;
            doomed.binary_search(&(index - 1)).is_err()
        });
        if removes {
            plan.dropped.retain(|dropped| stays.contains(&dropped.path));
            plan.counts.dropped_left = plan.dropped.len() as u64;
        }
        plan.kept.sort_by(|a, b| a.path.cmp(&b.path));
        plan.count_actions();
        plan
    }
}
