// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a checkout did, or would do, for people and records.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::fidelity::NotHeld;
use super::options::Mode;
use super::plan::{Action, Change, CheckoutPlan, Counts, Kept, KeptBecause, Reason, Skipped, Wanted};
use super::saved_plan::SavedPlan;
use crate::fetch::FetchReport;
use crate::id::SnapshotId;
use crate::in_use::InUse;
use crate::path::TreePath;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Nothing was there.
    Add,
    /// Something else was there.
    Replace,
    /// Became a further name of another path's inode.
    Link,
    /// Owner, mode, attributes or times.
    Metadata,
    /// Is gone.
    Remove,
}

impl ChangeKind {
    /// What a change of a plan is.
    pub(super) fn of(change: &Change) -> ChangeKind {
        match change {
            Change::Add { wanted: Wanted::Link { .. }, .. } | Change::Replace { wanted: Wanted::Link { .. }, .. } => {
                ChangeKind::Link
            }
            Change::Add { .. } => ChangeKind::Add,
            Change::Replace { .. } => ChangeKind::Replace,
            Change::Metadata { .. } => ChangeKind::Metadata,
            Change::Remove { .. } => ChangeKind::Remove,
        }
    }

    /// For people and records.
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Add => "add",
            ChangeKind::Replace => "replace",
            ChangeKind::Link => "link",
            ChangeKind::Metadata => "metadata",
            ChangeKind::Remove => "remove",
        }
    }
}

/// What could neither stay nor come back where it belongs, because its name is somebody else's or its directory is gone. It
/// is kept with what gave way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it belongs, relative to the area's root.
    pub path: TreePath,
    /// Its name in the undo of the transaction.
    pub kept_as: String,
}

impl SetAside {
    pub(super) fn new(path: &TreePath, kept_as: &[u8]) -> SetAside {
        SetAside { path: path.clone(), kept_as: String::from_utf8_lossy(kept_as).into_owned() }
    }
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// Relative to the area's root.
    pub path: TreePath,
    /// What.
    pub action: ChangeKind,
    /// Why.
    pub reason: Reason,
}

impl PathChange {
    fn of(action: &Action) -> PathChange {
        PathChange { path: action.path.clone(), action: ChangeKind::of(&action.change), reason: action.reason }
    }
}

/// One area's part of a [`CheckoutReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaReport {
    /// Name in the snapshot.
    pub name: String,
    /// Its root here.
    pub root: PathBuf,
    /// The snapshot it was at; `None` at first contact.
    pub before: Option<SnapshotId>,
    /// The snapshot that an interrupted switch was making of it.
    pub interrupted: Option<SnapshotId>,
    /// The journal of that switch is lost or damaged, so it cannot be finished: what it left is found by comparison.
    pub journal_lost: bool,
    /// The transaction that had been interrupted and was finished first.
    pub recovered: Option<u64>,
    /// The number of this transaction; `None` when nothing was switched.
    pub number: Option<u64>,
    /// Earlier ones that cannot be taken back any more: what gave way in them was dropped.
    pub dropped_undo: Vec<u64>,
    /// How it was, or would be, checked out.
    pub mode: Mode,
    /// First contact with a tree that is not empty, and nothing said what to do with it: nothing was done, and this
    /// report is what an adoption would do.
    pub needs_adopt: bool,
    /// Numbers.
    pub counts: Counts,
    /// Every changed path, sorted.
    pub changes: Vec<PathChange>,
    /// Every path that stays different from the reference, sorted.
    pub kept: Vec<Kept>,
    /// Entries that are not delivered by rule.
    pub skipped: Vec<Skipped>,
    /// What of the reference this place cannot hold, and so is neither delivered nor compared.
    pub not_held: Vec<NotHeld>,
    /// Local versions that were kept beside the reference's, by their new path.
    pub kept_aside: Vec<TreePath>,
    /// Of a plan that was only looked at, paths whose local version would stay beside the reference's.
    pub would_keep_aside: Vec<TreePath>,
    /// Processes that still use what was replaced or removed.
    pub in_use: InUse,
    /// Strays left alone.
    pub strays: u64,
    /// Paths delivered once, since dropped from the reference, and left alone.
    pub dropped_delivered: u64,
    /// Paths among `kept` where the reference wanted something else.
    pub conflicts: u64,
    /// Bytes of file data written, in whole blocks.
    pub bytes_written: u64,
    /// Why a plan that was only looked at would not be carried out.
    pub would_refuse: Option<String>,
    /// For people.
    pub warnings: Vec<String>,
}

impl AreaReport {
    /// The report of `plan`, as if everything in it came true.
    pub(super) fn of_plan(name: &str, root: PathBuf, mode: Mode, plan: &CheckoutPlan) -> AreaReport {
        let changes = plan.actions.iter().map(PathChange::of);
        AreaReport {
            name: name.to_string(),
            root,
            before: None,
            interrupted: None,
            journal_lost: false,
            recovered: None,
            number: None,
            dropped_undo: Vec::new(),
            mode,
            needs_adopt: false,
            counts: plan.counts,
            changes: changes.collect(),
            kept: plan.kept.clone(),
            skipped: plan.skipped.clone(),
            not_held: Vec::new(),
            kept_aside: Vec::new(),
            would_keep_aside: Vec::new(),
            in_use: InUse::default(),
            strays: plan.counts.strays_left,
            dropped_delivered: plan.counts.dropped_left,
            conflicts: plan.kept.iter().filter(|kept| kept.because.is_conflict()).count() as u64,
            bytes_written: plan.counts.bytes_to_write,
            would_refuse: None,
            warnings: Vec::new(),
        }
    }

    /// Takes back what it says of `plan` at these paths: they changed meanwhile, and stay as they are.
    pub(super) fn leave_alone(&mut self, plan: &CheckoutPlan, paths: &[TreePath]) {
        let left: BTreeSet<&TreePath> = paths.iter().collect();
        if left.is_empty() {
            return;
        }
        self.changes = plan.done_but_for(&left).map(PathChange::of).collect();
        self.counts = plan.counts.with_changes(plan.done_but_for(&left));
        self.conflicts += left.len() as u64;
        let because = KeptBecause::ChangedMeanwhile;
        self.kept.extend(left.into_iter().map(|path| Kept { path: path.clone(), because }));
        self.kept.sort_by(|a, b| a.path.cmp(&b.path));
    }
}

/// What a checkout did.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckoutReport {
    /// The reference.
    pub snapshot: SnapshotId,
    /// One for each area asked for, in that order.
    pub areas: Vec<AreaReport>,
    /// Something was, or would have been, changed, but was only planned: a dry run, or an adoption that must be said.
    pub planned_only: bool,
    /// What was fetched, and what had been foreseen; `None` where the store is at hand.
    pub fetch: Option<FetchReport>,
    /// Bytes fetched by earlier runs that nobody needs any more, and that are gone now.
    pub forgotten_bytes: u64,
    /// The plan, when it was asked for.
    pub plan: Option<SavedPlan>,
    /// Every area now is as the reference, with no kept differences.
    pub in_sync: bool,
    /// Wall time.
    pub seconds: f64,
}

impl CheckoutReport {
    /// Whether an area needs `adopt` to be said before anything is done.
    pub fn needs_adopt(&self) -> bool {
        self.areas.iter().any(|area| area.needs_adopt)
    }

    /// Whether no area was changed.
    pub fn is_empty(&self) -> bool {
        self.areas.iter().all(|area| area.changes.is_empty())
    }
}
