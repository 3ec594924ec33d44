// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a checkout will do to one area, as a plain value: it can be printed, tested, refused.
//!
//! Invariant: knows no files. [`super::merge`] makes a plan, [`super::stage`] and [`super::switch`] carry it out.

use std::collections::BTreeSet;

use super::apply;
use super::compare::Difference;
use crate::format::manifest::{ChunkList, ChunkRun, FileContent, Inode, InodeKind, Timestamp};
use crate::fsio::{FileType, Stat};
use crate::limits;
use crate::path::TreePath;

/// Why a path is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// New in the reference.
    Added,
    /// As last applied; the reference changed.
    Updated(Difference),
    /// Delivered before, missing here.
    Missing,
    /// Changed here; the reference wins.
    Restored(Difference),
    /// Changed here and in the reference, which wins.
    Conflict(Difference),
    /// Was here before it was ever delivered; the reference wins.
    Unmanaged(Difference),
    /// Names that share an inode in the reference do not share it here.
    Relinked,
    /// Was delivered, is no longer in the reference.
    Dropped,
    /// Not in the reference, never delivered.
    Stray,
}

impl Reason {
    /// One word or two, for people and records.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Added => "added",
            Reason::Updated(_) => "updated",
            Reason::Missing => "was missing",
            Reason::Restored(_) => "changed locally",
            Reason::Conflict(_) => "changed locally and in the reference",
            Reason::Unmanaged(_) => "never delivered",
            Reason::Relinked => "hard link restored",
            Reason::Dropped => "dropped",
            Reason::Stray => "stray",
        }
    }

    /// Whether what gives way is a change that somebody made to what is there, or their own file.
    pub fn undoes_a_change(self) -> bool {
        matches!(self, Reason::Restored(_) | Reason::Conflict(_) | Reason::Unmanaged(_))
    }

    /// The fields that differed.
    pub fn difference(self) -> Difference {
        match self {
            Reason::Updated(fields)
            | Reason::Restored(fields)
            | Reason::Conflict(fields)
            | Reason::Unmanaged(fields) => fields,
            Reason::Relinked => Difference::LINKS,
            Reason::Added | Reason::Missing | Reason::Dropped | Reason::Stray => Difference::none(),
        }
    }
}

/// What is put at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A new inode.
    Inode(Box<Inode>),
    /// A new inode; if it is a file, with the content of the live one at its path. Only for a tree switch.
    Copy(Box<Inode>),
    /// A further name of the inode at `leader`.
    Link {
        /// Path of the group's member that holds the inode.
        leader: TreePath,
        /// The live inode, when the leader stays as it is; `None` when it is new in this plan.
        live: Option<(u64, Timestamp)>,
    },
}

/// What happens to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing is there yet.
    Add {
        /// What comes.
        wanted: Wanted,
        /// Part of a directory that is added or replaced as a whole, and moved with it.
        inside: bool,
    },
    /// Something is there and gives way in one step.
    Replace {
        /// What comes.
        wanted: Wanted,
        /// What the plan saw there.
        was: Box<Stat>,
        /// The local version stays beside it under another name.
        keep_aside: bool,
    },
    /// The inode stays; owner, mode, attributes or times change.
    Metadata {
        /// How it shall be.
        inode: Box<Inode>,
        /// What the plan saw there.
        was: Box<Stat>,
    },
    /// The name goes.
    Remove {
        /// What the plan saw there.
        was: Box<Stat>,
        /// Goes together with the directory that is replaced above it.
        inside: bool,
    },
}

/// One change of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Relative to the area's root.
    pub path: TreePath,
    /// What happens.
    pub change: Change,
    /// Why.
    pub reason: Reason,
}

impl Action {
    /// What is put there, if anything.
    pub fn wanted(&self) -> Option<&Wanted> {
        match &self.change {
            Change::Add { wanted, .. } | Change::Replace { wanted, .. } => Some(wanted),
            Change::Metadata { .. } | Change::Remove { .. } => None,
        }
    }

    /// Whether it happens with that of a directory above it, which comes or goes as a whole.
    pub(super) fn is_inside(&self) -> bool {
        matches!(self.change, Change::Add { inside: true, .. } | Change::Remove { inside: true, .. })
    }

    /// The file content that has to be written.
    pub fn content(&self) -> Option<&FileContent> {
        match self.wanted() {
            Some(Wanted::Inode(inode)) => match &inode.kind {
                InodeKind::File(content) => Some(content),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a directory is put there.
    pub fn makes_directory(&self) -> bool {
        matches!(self.wanted(), Some(Wanted::Inode(inode) | Wanted::Copy(inode)) if inode.kind == InodeKind::Directory)
    }
}

/// Why a local version stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptBecause {
    /// Changed here, the reference did not change.
    LocalChange(Difference),
    /// Changed here and in the reference; the policy keeps the local version.
    Policy(Difference),
    /// The reference has something else where a directory is that is not empty.
    DirectoryInTheWay,
    /// The reference has something else where a directory is that holds what does not belong to the area.
    HoldsExcluded,
    /// Something that does not belong to the area has the name.
    ExcludedInTheWay,
    /// Another file system is mounted there.
    MountPoint,
    /// Changed between plan and switch.
    ChangedMeanwhile,
}

impl KeptBecause {
    /// The fields that differ.
    pub fn difference(self) -> Difference {
        match self {
            KeptBecause::LocalChange(fields) | KeptBecause::Policy(fields) => fields,
            KeptBecause::DirectoryInTheWay
            | KeptBecause::HoldsExcluded
            | KeptBecause::ExcludedInTheWay
            | KeptBecause::MountPoint => Difference::KIND,
            KeptBecause::ChangedMeanwhile => Difference::CONTENT,
        }
    }

    /// For people and records.
    pub fn name(self) -> &'static str {
        match self {
            KeptBecause::LocalChange(_) => "changed locally",
            KeptBecause::Policy(_) => "changed locally and in the reference",
            KeptBecause::DirectoryInTheWay => "a directory that is not empty is in the way",
            KeptBecause::HoldsExcluded => "a directory that holds excluded paths is in the way",
            KeptBecause::ExcludedInTheWay => "something excluded is in the way",
            KeptBecause::MountPoint => "a file system is mounted there",
            KeptBecause::ChangedMeanwhile => "changed during the checkout",
        }
    }

    /// Whether the reference wanted something else there.
    pub fn is_conflict(self) -> bool {
        !matches!(self, KeptBecause::LocalChange(_))
    }
}

/// A path that stays different from the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Relative to the area's root.
    pub path: TreePath,
    /// Why.
    pub because: KeptBecause,
}

/// An entry of the reference that is not delivered, by rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Relative to the area's root.
    pub path: TreePath,
    /// Why.
    pub reason: &'static str,
}

/// What becomes of one entry of the target manifest; what the record is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The live inode already is as wanted.
    Same(Stat),
    /// An action delivers it.
    Delivered,
    /// The local version stays.
    Kept,
    /// Below something that is kept, where it cannot be.
    Blocked,
    /// Not delivered by rule, or outside the area here.
    Skipped,
}

/// Numbers of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Names added.
    pub added: u64,
    /// Names whose reference changed.
    pub updated: u64,
    /// Names brought back to the reference: missing, changed here, or never delivered.
    pub restored: u64,
    /// Release removals: delivered once, no longer in the reference.
    pub removed: u64,
    /// Strays removed.
    pub strays_removed: u64,
    /// Strays left alone.
    pub strays_left: u64,
    /// Delivered once, no longer in the reference, left alone.
    pub dropped_left: u64,
    /// Entries that already are as wanted.
    pub unchanged: u64,
    /// Of these, entries that were here before they were ever delivered.
    pub adopted: u64,
    /// Entries that are as wanted, but had to be read to know it.
    pub unproven: u64,
    /// Entries of the reference below something that is kept, and so not delivered.
    pub blocked: u64,
    /// Bytes of data that staging writes, in whole file system blocks.
    pub bytes_to_write: u64,
    /// Inodes that staging makes.
    pub inodes_to_create: u64,
}

impl Counts {
    /// The number in which a change for this reason counts.
    fn of_reason(&mut self, reason: &Reason) -> &mut u64 {
        match reason {
            Reason::Added => &mut self.added,
            Reason::Updated(_) => &mut self.updated,
            Reason::Missing | Reason::Restored(_) | Reason::Conflict(_) | Reason::Unmanaged(_) | Reason::Relinked => {
                &mut self.restored
            }
            Reason::Dropped => &mut self.removed,
            Reason::Stray => &mut self.strays_removed,
        }
    }

    /// The same without the changes, and those that were made.
    pub(super) fn with_changes<'a>(self, made: impl Iterator<Item = &'a Action>) -> Counts {
        let mut counts = Counts { added: 0, updated: 0, restored: 0, removed: 0, strays_removed: 0, ..self };
        made.for_each(|action| *counts.of_reason(&action.reason) += 1);
        counts
    }
}

/// Everything a checkout will do to one area.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckoutPlan {
    /// Sorted by path.
    pub actions: Vec<Action>,
    /// Sorted by path.
    pub kept: Vec<Kept>,
    /// In the order of the target manifest, one for each of its entries.
    pub outcomes: Vec<Outcome>,
    /// Directories whose mtime is set at the end, because something in them changes or because it is not as wanted.
    /// Each directory stands before the one it is in.
    pub dir_times: Vec<(TreePath, Timestamp)>,
    /// Delivered once, no longer in the reference, left alone: what the record keeps of them. Sorted by path.
    pub dropped: Vec<DroppedEntry>,
    /// Entries that are not delivered by rule.
    pub skipped: Vec<Skipped>,
    /// Numbers.
    pub counts: Counts,
}

/// What is remembered of a path that was delivered and is no longer in the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedEntry {
    /// Relative to the area's root.
    pub path: TreePath,
    /// As last delivered.
    pub inode: Inode,
    /// The live inode, when it still is as last delivered.
    pub same: Option<Stat>,
}

impl CheckoutPlan {
    /// Paths whose local version stays beside the reference's.
    pub(super) fn kept_aside(&self) -> impl Iterator<Item = &TreePath> {
        let is_aside = |action: &&Action| matches!(action.change, Change::Replace { keep_aside: true, .. });
        self.actions.iter().filter(is_aside).map(|action| &action.path)
    }

    /// Bytes and number of the local versions that stay beside the reference's, as copies.
    pub(super) fn kept_aside_size(&self) -> (u64, u64) {
        let asides = self.actions.iter().filter_map(|action| match &action.change {
            Change::Replace { was, keep_aside: true, .. } => Some(was.allocated),
            _ => None,
        });
        asides.fold((0, 0), |(bytes, count), allocated| (bytes.saturating_add(allocated), count + 1))
    }

    /// Bytes that staging writes. Their blocks, which the counts tell, are more.
    pub(super) fn bytes_to_copy(&self) -> u64 {
        let of = |action: &Action| match action.wanted() {
            Some(Wanted::Inode(inode) | Wanted::Copy(inode)) => match &inode.kind {
                InodeKind::File(content) => written_bytes(content),
                _ => 0,
            },
            _ => 0,
        };
        // What the file system can share is not copied, nor counted.
        self.actions.iter().map(of).fold(0, u64::saturating_add).min(self.counts.bytes_to_write)
    }

    /// Whether carrying it out would change nothing in the area.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.dir_times.is_empty()
    }

    /// Paths that would be removed, for one reason.
    pub fn removals(&self, stray: bool) -> impl Iterator<Item = &TreePath> {
        self.actions
            .iter()
            .filter(move |action| {
                matches!(action.change, Change::Remove { .. }) && (action.reason == Reason::Stray) == stray
            })
            .map(|action| &action.path)
    }

    /// The actions that are carried out when what has these paths is left alone, in order. What is inside of something
    /// that comes or goes as a whole shares its fate.
    pub(super) fn done_but_for<'p>(&'p self, left: &BTreeSet<&TreePath>) -> impl Iterator<Item = &'p Action> {
        let mut whole_is_left = false;
        self.actions.iter().filter(move |action| {
            if !action.is_inside() {
                whole_is_left = left.contains(&action.path);
            }
            !whole_is_left
        })
    }

    /// Counts every action; called once, when the list is complete.
    pub(super) fn count_actions(&mut self) {
        let counts = &mut self.counts;
        for action in &self.actions {
            *counts.of_reason(&action.reason) += 1;
            if let Some(Wanted::Inode(_) | Wanted::Copy(_)) = action.wanted() {
                counts.inodes_to_create += 1;
            }
            if let Some(content) = action.content() {
                counts.bytes_to_write = counts.bytes_to_write.saturating_add(data_bytes(content));
            }
        }
    }
}

/// Bytes that a file's data takes, in whole blocks; an indirect list counts as if it had no holes.
pub(super) fn data_bytes(content: &FileContent) -> u64 {
    written_bytes(content).next_multiple_of(limits::HOLE_ALIGN)
}

/// Bytes that are written of a file; an indirect list counts as if it had no holes.
pub(super) fn written_bytes(content: &FileContent) -> u64 {
    match &content.chunks {
        ChunkList::Whole | ChunkList::Indirect { .. } => content.size,
        ChunkList::Inline(runs) => runs
            .iter()
            .map(|run| match run {
                ChunkRun::Data { len, .. } => u64::from(*len),
                ChunkRun::Hole { .. } => 0,
            })
            .sum(),
    }
}

/// Whether only the metadata of a live file may be changed in place: it has one name, and neither version has rights
/// that must never appear half-set (set-id bits, capabilities), nor one a flag that only an empty file takes.
pub(super) fn may_change_in_place(was: &Stat, inode: &Inode, live: &Inode) -> bool {
    const SET_ID: u16 = 0o6000;
    let special =
        |mode: u16, inode: &Inode| mode & SET_ID != 0 || inode.xattrs.keys().any(|name| name.starts_with(b"security."));
    was.file_type == FileType::File
        && was.nlink == 1
        && inode.links == 1
        && !special(was.mode, live)
        && !special(inode.mode, inode)
        && apply::has_nocow(live.flags) == apply::has_nocow(inode.flags)
}
