// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was done to an area on this machine: one record a transaction, which stays when its undo is dropped.

use std::path::Path;

use super::journal::Journal;
use super::options::AreaTarget;
use super::state::{AreaRoot, Marker};
use super::transaction::{self, JournalState, record_path};
use crate::error::{Error, Result};
use crate::format::manifest::Timestamp;
use crate::fsio;
use crate::id::SnapshotId;

const TITLE: &str = "evenkeel record 1";
/// Longest summary that is read, in bytes.
const BYTES_MAX: u64 = 4096;

/// One checkout or rollback of one area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts the transactions of an area, from 1.
    pub number: u64,
    /// When it began to change names.
    pub time: Timestamp,
    /// The snapshot before; `None` before first contact.
    pub before: Option<SnapshotId>,
    /// The snapshot after.
    pub after: Option<SnapshotId>,
    /// The transaction that it took back.
    pub undoes: Option<u64>,
    /// Names that it changed; a directory that moved as a whole is one.
    pub names: u64,
    /// The rollback that took it back.
    pub undone_by: Option<u64>,
    /// What it displaced is still kept.
    pub kept: bool,
    /// It was cut off, and is not finished yet.
    pub interrupted: bool,
}

impl Record {
    pub(super) fn of(journal: &Journal, time: Timestamp) -> Record {
        Record {
            number: journal.number,
            time,
            before: journal.base,
            after: journal.target,
            undoes: journal.undoes,
            names: journal.names() as u64,
            undone_by: None,
            kept: true,
            interrupted: false,
        }
    }

    pub(super) fn encode(&self) -> String {
        let id = |id: &Option<SnapshotId>| id.map_or_else(|| "-".to_string(), |id| id.to_hex());
        format!(
            "{TITLE}\ntime {} {}\nbefore {}\nafter {}\nundoes {}\nnames {}\n",
            self.time.secs,
            self.time.nanos,
            id(&self.before),
            id(&self.after),
            self.undoes.unwrap_or(0),
            self.names
        )
    }

    fn decode(number: u64, text: &str) -> Option<Record> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != TITLE {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_string);
        let id = |text: String| match text.as_str() {
            "-" => Some(None),
            hex => hex.parse().ok().map(Some),
        };
        let time = field("time")?;
        let (secs, nanos) = time.split_once(' ')?;
        Some(Record {
            number,
            time: Timestamp { secs: secs.parse().ok()?, nanos: nanos.parse().ok()? },
            before: id(field("before")?)?,
            after: id(field("after")?)?,
            undoes: field("undoes")?.parse().ok().filter(|undone| *undone > 0),
            names: field("names")?.parse().ok()?,
            undone_by: None,
            kept: false,
            interrupted: false,
        })
    }
}

/// The records of an area, the oldest first; one that was interrupted is the last.
///
/// # Errors
/// [`Error::Refused`] where nothing was ever checked out; [`Error::Io`].
pub fn history(target: &AreaTarget, state_dir: &Path) -> Result<Vec<Record>> {
    let marker = marker_of(target, state_dir)?;
    all(&super::state::state_path(state_dir, marker.area), &marker)
}

/// Whether the journal of the transaction that is under way there can be read. Of one that cannot, [`history`] tells
/// nothing, and it can be neither finished nor taken back.
///
/// # Errors
/// As [`history`].
pub fn journal_state(target: &AreaTarget, state_dir: &Path) -> Result<JournalState> {
    let marker = marker_of(target, state_dir)?;
    transaction::journal_state(&super::state::state_path(state_dir, marker.area), &marker)
}

/// The records of an area, by its place in the state directory.
///
/// # Errors
/// As [`history`].
pub(super) fn all(state: &Path, marker: &Marker) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for number in transaction::numbers(state)? {
        let record = of(state, number)?;
        if let Some(undone) = record.as_ref().and_then(|record| record.undoes) {
            // It was interrupted, or it would have a place of its own.
            let summary = record_path(state, number).join(transaction::taken_back_summary(undone));
            records.extend(read(&summary, undone)?);
        }
        records.extend(record);
    }
    records.extend(transaction::latest_record(state, marker)?);
    let undone: Vec<(u64, u64)> = records.iter().filter_map(|record| Some((record.undoes?, record.number))).collect();
    for record in &mut records {
        record.undone_by = undone.iter().find(|(undone, _)| *undone == record.number).map(|(_, by)| *by);
    }
    Ok(records)
}

/// What is recorded of the transaction `number`, but not which one took it back; `None` when it never finished.
///
/// # Errors
/// As [`history`].
pub(super) fn of(state: &Path, number: u64) -> Result<Option<Record>> {
    let dir = record_path(state, number);
    let Some(record) = read(&dir.join(transaction::SUMMARY), number)? else { return Ok(None) };
    let kept = fsio::exists(&dir.join(transaction::JOURNAL))?;
    Ok(Some(Record { kept, ..record }))
}

/// The summary of the transaction `number` at a path.
///
/// # Errors
/// As [`history`].
pub(super) fn read(summary: &Path, number: u64) -> Result<Option<Record>> {
    if !fsio::exists(summary)? {
        return Ok(None);
    }
    let text = String::from_utf8(fsio::read_capped(summary, BYTES_MAX)?).ok();
    let record = text.and_then(|text| Record::decode(number, &text)).ok_or_else(|| Error::Refused {
        reason: format!("{} cannot be understood", summary.display()),
        hint: Some("it was damaged, or written by a newer version".into()),
    })?;
    Ok(Some(record))
}

/// An area's place in the state directory.
pub(super) fn state_of(target: &AreaTarget, state_dir: &Path) -> Result<std::path::PathBuf> {
    Ok(super::state::state_path(state_dir, marker_of(target, state_dir)?.area))
}

fn marker_of(target: &AreaTarget, state_dir: &Path) -> Result<Marker> {
    let root = AreaRoot::open(&target.name, &target.root, state_dir)?;
    let marker = root.marker.ok_or_else(|| Error::Refused {
        reason: format!("nothing was ever checked out to {}", target.root.display()),
        hint: Some("check --area and the configuration".into()),
    })?;
    if marker.name == target.name { Ok(marker) } else { Err(super::refuse::other_area(target, &marker.name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_round_trip() {
        let record = Record {
            number: 4,
            time: Timestamp { secs: 1_700_000_000, nanos: 5 },
            before: None,
            after: Some(SnapshotId([3; 32])),
            undoes: Some(3),
            names: 12,
            undone_by: None,
            kept: false,
            interrupted: false,
        };
        let text = record.encode();
        assert_eq!(Record::decode(4, &text), Some(record));
        for bad in ["", "evenkeel record 2\n", &text[..text.len() - 1], &text.replace("names", "nomes")] {
            assert_eq!(Record::decode(4, bad), None, "{bad:?}");
        }
    }
}
