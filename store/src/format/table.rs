// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Segments and locators: sorted fixed-width records behind a fan-out table (format-spec §30).

use super::DecodeError;
use super::pack::{Encoding, PackKind};
use crate::id::{ChunkId, PackId, SnapshotId};

/// What a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Part of the store's index.
    Segment,
    /// Where the chunks are that `base` lacks; all of the snapshot's when there is no base.
    Locator {
        /// Whose chunks.
        snapshot: SnapshotId,
        /// Where to read on, and how many locators are still to read; `None` for a full locator.
        base: Option<(SnapshotId, u32)>,
    },
}

/// One pack that records of a table lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TablePack {
    /// Name.
    pub id: PackId,
    /// File length in bytes.
    pub len: u64,
    /// What it holds.
    pub kind: PackKind,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// Offset of the record.
    pub offset: u64,
    /// Length of the record.
    pub stored_len: u32,
    /// Length of the chunk.
    pub plain_len: u32,
    /// How the one becomes the other.
    pub encoding: Encoding,
}

/// Encodes a table. `records` need not be sorted; of equal ids the first is kept. Packs that no record names are kept out.
///
/// # Errors
/// [`DecodeError`] with [`super::Reason::Limit`] when there are too many records, packs or dictionaries; with
/// [`super::Reason::Rule`] when a record's pack is not among `packs`.
pub fn encode(kind: TableKind, packs: &[TablePack], records: Vec<(ChunkId, Location)>) -> Result<Vec<u8>, DecodeError> {
    let _ = (kind, packs, records);
    unimplemented!()
}

/// A checked table over borrowed or mapped bytes; looks up without decoding everything.
#[derive(Debug, Clone)]
pub struct Table<B> {
    bytes: B,
    kind: TableKind,
    packs: Vec<TablePack>,
}

impl<B: AsRef<[u8]>> Table<B> {
    /// Checks everything that format-spec §30 asks of a reader: hash, header, tables, order and range of all records.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: B) -> Result<Self, DecodeError> {
        let _ = &bytes;
        unimplemented!()
    }

    /// Segment or locator.
    pub fn kind(&self) -> TableKind {
        self.kind
    }

    /// Sorted by id.
    pub fn packs(&self) -> &[TablePack] {
        &self.packs
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where `id` is, if this table knows: fan-out, then binary search.
    pub fn get(&self, id: &ChunkId) -> Option<Location> {
        let _ = (id, &self.bytes);
        unimplemented!()
    }

    /// The `index`-th record in id order.
    pub fn record(&self, index: usize) -> (ChunkId, Location) {
        let _ = index;
        unimplemented!()
    }

    /// All records in id order.
    pub fn iter(&self) -> impl Iterator<Item = (ChunkId, Location)> + '_ {
        (0..self.len()).map(|index| self.record(index))
    }
}
