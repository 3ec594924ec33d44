// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots and the hint that lists them (format-spec §50).

use std::collections::BTreeMap;

use super::DecodeError;
use super::manifest::Timestamp;
use super::store::ChunkerParams;
use crate::id::{ChunkId, SnapshotId};

/// What belongs to an area, as it was when it was committed. Order matters: later patterns win.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AreaRules {
    /// Patterns of what belongs to the area; empty = everything.
    pub include: Vec<String>,
    /// Patterns of what does not.
    pub exclude: Vec<String>,
    /// Patterns of host identity and secrets, left out like `exclude`.
    pub identity: Vec<String>,
    /// Name patterns of the extended attributes that are recorded (`user.*`).
    pub xattrs: Vec<String>,
    /// Whether device nodes may be recorded.
    pub devices: bool,
}

/// One area of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotArea {
    /// 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
    pub name: String,
    /// Absolute path on the master; information only, never a target.
    pub root: Vec<u8>,
    /// Rules in force.
    pub rules: AreaRules,
    /// Chunk id of the manifest head.
    pub manifest: ChunkId,
    /// Its plain length.
    pub manifest_len: u32,
    /// Entries in the manifest, the root included.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Sum of their apparent sizes.
    pub bytes: u64,
    /// Files that changed while they were read (`--allow-changing`).
    pub unstable: u64,
}

/// What a commit was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot before it.
    pub parent: Option<SnapshotId>,
    /// Number of ancestors.
    pub depth: u64,
    /// When the commit began.
    pub time: Timestamp,
    /// `user@host`.
    pub author: String,
    /// The committer's words.
    pub message: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Sorted by name.
    pub areas: Vec<SnapshotArea>,
    /// How its chunks were cut.
    pub chunker: ChunkerParams,
}

impl Snapshot {
    /// The document's bytes; its id is their hash.
    ///
    /// # Errors
    /// [`DecodeError`] when a value is outside what the format allows (so that nothing is written that no reader accepts).
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        unimplemented!()
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        unimplemented!()
    }

    /// The area of this name.
    pub fn area(&self, name: &str) -> Option<&SnapshotArea> {
        self.areas.iter().find(|area| area.name == name)
    }
}

/// One line of `snapshots/index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its parent.
    pub parent: Option<SnapshotId>,
    /// When it was made, Unix seconds.
    pub time: i64,
    /// Length of its document.
    pub len: u64,
}

/// `snapshots/index` for `records` in order of commit.
pub fn encode_index(records: &[IndexRecord]) -> Vec<u8> {
    let _ = records;
    unimplemented!()
}

/// Reads `snapshots/index`.
///
/// # Errors
/// [`DecodeError`] at the first rule that is broken.
pub fn decode_index(bytes: &[u8]) -> Result<Vec<IndexRecord>, DecodeError> {
    let _ = bytes;
    unimplemented!()
}
