// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The lines of a record, as they are written and read.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::super::options::{Adopt, Mode};
use super::super::plan::Counts;
use super::super::who::ChangedBy;
use crate::fetch::FetchReport;
use crate::in_use::Using;
use crate::json::{PathField, TimeField};

/// Words that are fixed where they are written, and any where they are read.
pub(super) type Word = Cow<'static, str>;

/// Who or what asked for something. The library finds out nothing of it by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AskedBy {
    /// User that the program ran as.
    pub uid: u32,
    /// That user's name, escaped.
    pub user: Option<String>,
    /// Who called `sudo` for it, escaped.
    pub sudo_user: Option<String>,
    /// The command as it was typed, escaped.
    pub command: String,
    /// Version of the program.
    pub version: String,
}

/// One line. A kind that is not known was added later, and says nothing that the others need.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// The first.
    Header(Box<HeaderLine>),
    /// What was fetched, and what had been foreseen, for all areas of the checkout together.
    Fetch(Box<FetchReport>),
    /// Something was wrong, and the checkout did without it.
    Warning(WarningLine),
    /// A path that is changed.
    Change(Box<ChangeLine>),
    /// A path that stays different from the reference.
    Kept(Box<KeptLine>),
    /// An entry of the reference that is not delivered, by rule.
    Skipped(SkippedLine),
    /// Something that the place cannot hold.
    NotHeld(NotHeldLine),
    /// A rollback found something else than its checkout had left; that is kept with what the rollback displaced.
    ChangedSince(Box<ChangedLine>),
    /// Changed between plan and switch, and left alone.
    ChangedMeanwhile(Box<ChangedLine>),
    /// A local version that stays beside the reference's, by its new path.
    KeptAside(PathLine),
    /// Something that somebody put there during the switch, and that could not stay.
    SetAside(SetAsideLine),
    /// A process that still uses what gave way.
    InUse(InUseLine),
    /// What came of it; the last but one.
    End(Box<EndLine>),
    /// The last.
    Seal(SealLine),
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// Something that was wrong, and that the checkout did without.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WarningLine {
    /// What.
    pub warning: String,
}

/// What is known before anything is changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeaderLine {
    /// `evenkeel/record/1`.
    pub schema: String,
    /// Counts the checkouts and rollbacks of an area, from 1.
    pub number: u64,
    /// `checkout` or `rollback`.
    pub what: Word,
    /// The area's name.
    pub area: String,
    /// Its root here.
    pub root: PathField,
    /// How it is checked out; `None` of a rollback.
    pub mode: Option<Mode>,
    /// `files`, one after the other, or the `tree` as a whole.
    pub switch: Word,
    /// First contact with a tree that is not empty, and what becomes of what is there.
    pub adopt: Option<Adopt>,
    /// Full id of the snapshot before; `None` at first contact.
    pub before: Option<String>,
    /// Full id of the snapshot after; `None` of a rollback to before first contact.
    pub after: Option<String>,
    /// When it was asked for; `None` of an older record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<TimeField>,
    /// When it began to change names.
    pub began: TimeField,
    /// The number that a rollback takes back.
    pub undoes: Option<u64>,
    /// Who or what asked for it, when that was said.
    pub asked_by: Option<AskedBy>,
    /// This machine.
    pub host: String,
    /// Version of the library that wrote this.
    pub version: Word,
    /// Numbers of the plan; `None` of a rollback.
    pub counts: Option<CountFields>,
    /// `change` lines.
    pub changes: u64,
    /// `kept` lines.
    pub kept: u64,
    /// Bytes of data that are staged, in whole blocks.
    pub bytes_to_write: u64,
}

/// Numbers of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in plan::Counts")]
pub struct CountFields {
    pub added: u64,
    pub updated: u64,
    pub restored: u64,
    pub removed: u64,
    pub strays_removed: u64,
    pub strays_left: u64,
    pub dropped_left: u64,
    pub unchanged: u64,
    pub adopted: u64,
}

impl CountFields {
    /// Takes one change that was not made out of the numbers.
    pub(super) fn uncount(&mut self, reason: &str) {
        let count = match reason {
            "added" => &mut self.added,
            "updated" => &mut self.updated,
            "dropped" => &mut self.removed,
            "stray" => &mut self.strays_removed,
            _ => &mut self.restored,
        };
        *count = count.saturating_sub(1);
    }

    pub(super) fn new(counts: &Counts) -> Self {
        CountFields {
            added: counts.added,
            updated: counts.updated,
            restored: counts.restored,
            removed: counts.removed,
            strays_removed: counts.strays_removed,
            strays_left: counts.strays_left,
            dropped_left: counts.dropped_left,
            unchanged: counts.unchanged,
            adopted: counts.adopted,
        }
    }
}

/// A path that is changed. Fields that say what was are there only where something else comes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChangeLine {
    /// Relative to the area's root.
    #[serde(flatten)]
    pub path: PathField,
    /// `add`, `replace`, `link`, `metadata` or `remove`.
    pub action: Word,
    /// Why.
    pub reason: Word,
    /// Fields that differed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Word>,
    /// Kind of inode that comes or stays; of a removal, that goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<Word>,
    /// Kind of inode that was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_type: Option<Word>,
    /// Permission bits, octal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Permission bits that were, octal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_mode: Option<String>,
    /// `uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `uid:gid` that were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_owner: Option<String>,
    /// Size of the file that comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What the file gives whoever runs it: `set-user-id`, `set-group-id`, `capabilities`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rights: Vec<Word>,
    /// The same of the file that was there; they were taken from it when it gave way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub was_rights: Vec<Word>,
    /// Who had changed it here, where it was not as it was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<ChangedBy>,
}

/// A path that stays different.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptLine {
    /// Relative to the area's root.
    #[serde(flatten)]
    pub path: PathField,
    /// Why.
    pub reason: Word,
    /// The reference wanted something else there.
    pub conflict: bool,
    /// Fields that differ.
    pub differs: Vec<Word>,
    /// Who had changed it, as far as known.
    pub changed_by: ChangedBy,
}

/// A path that is not delivered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SkippedLine {
    /// Relative to the area's root.
    #[serde(flatten)]
    pub path: PathField,
    /// Why.
    pub reason: Word,
}

/// Something that the place cannot hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotHeldLine {
    /// What.
    pub what: Word,
    /// In how many entries.
    pub entries: u64,
    /// The first of them.
    pub example: PathField,
}

/// A path that somebody changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangedLine {
    /// Relative to the area's root.
    #[serde(flatten)]
    pub path: PathField,
    /// Who, as far as known.
    pub changed_by: ChangedBy,
}

/// A path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PathLine {
    /// Relative to the area's root.
    #[serde(flatten)]
    pub path: PathField,
}

/// Something that could not stay where somebody put it, or could not come back to its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetAsideLine {
    /// Where it belongs, relative to the area's root.
    #[serde(flatten)]
    pub path: PathField,
    /// Its name in the undo of this transaction.
    pub kept_as: String,
}

/// A process that still uses what gave way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InUseLine {
    /// Which, and what.
    #[serde(flatten)]
    pub using: Using,
    /// Further paths that are not listed.
    pub more_paths: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndLine {
    /// `at`, or `at, N kept differences`; of a rollback `as before`, or `as before, N left alone`; `taken back` of one that
    /// was interrupted and not finished.
    pub outcome: String,
    /// Whether everything is as the reference; `None` of a rollback, which does not look.
    pub in_sync: Option<bool>,
    /// Paths that are not as the reference; `None` where that could not be told.
    pub kept: Option<u64>,
    /// Of these, paths that changed between plan and switch.
    pub changed_meanwhile: u64,
    /// Names that were changed, where it is not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    /// Numbers of what was done, where it is not all of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<CountFields>,
    /// Local versions that stay beside the reference's.
    pub kept_aside: u64,
    /// Bytes of data that were written, in whole blocks, and where they came from.
    pub written: Vec<Source>,
    /// When it ended.
    pub ended: TimeField,
    /// It had been interrupted, and was finished later.
    pub recovered: Option<Recovered>,
    /// It had been interrupted, and this number took back what there was of it.
    pub taken_back_by: Option<u64>,
}

/// Tells that the record is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealLine {
    /// Lines before this one.
    pub lines: u64,
    /// BLAKE3 of all lines before this one, with their newlines.
    pub blake3: String,
}

/// Where data came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `store`.
    pub from: Word,
    /// Bytes written, in whole blocks.
    pub bytes: u64,
}

/// How an interrupted checkout was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Who or what asked for that, when it was said.
    pub asked_by: Option<AskedBy>,
}
