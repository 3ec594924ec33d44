// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chunk id → verified bytes.
//!
//! Invariant: nobody gets plain bytes from a store except as [`Verified`], and the only way to make one is to hash them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::ObjectName;
use crate::compress::Decompressor;
use crate::error::{Error, Result};
use crate::format::pack::Encoding;
use crate::format::store::SegmentsCurrent;
use crate::format::table::{Location, Table, TableKind};
use crate::fsio::{Mapped, OpenFile};
use crate::id::{ChunkId, PackId, SegmentId};
use crate::limits;
use crate::pack;
use crate::store::{Store, damaged};

/// Open packs kept at hand.
const OPEN_PACKS_MAX: usize = 256;

/// Bytes whose hash has been checked against their [`ChunkId`].
///
/// The only constructor is [`Verified::check`], so a function that asks for `Verified` cannot be handed bytes straight
/// from a disk or a network.
#[derive(Debug, Clone, Copy)]
pub struct Verified<'b> {
    id: ChunkId,
    plain: &'b [u8],
}

impl<'b> Verified<'b> {
    /// Hashes `plain`; `None` when it is not the chunk `id`.
    pub fn check(id: ChunkId, plain: &'b [u8]) -> Option<Verified<'b>> {
        (ChunkId::of(plain) == id).then_some(Verified { id, plain })
    }

    /// The chunk's name.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// The chunk's bytes.
    pub fn plain(&self) -> &'b [u8] {
        self.plain
    }
}

/// Buffers and decoder of one reading thread.
#[derive(Debug, Default)]
pub struct ReadScratch {
    stored: Vec<u8>,
    plain: Vec<u8>,
    decompressor: Option<Decompressor>,
}

/// Bytes of an index table: mapped from a segment, or rebuilt in memory.
#[derive(Debug)]
enum TableBytes {
    Mapped(Mapped),
    Rebuilt(Vec<u8>),
}

impl AsRef<[u8]> for TableBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            TableBytes::Mapped(map) => map.as_ref(),
            TableBytes::Rebuilt(bytes) => bytes,
        }
    }
}

/// Finds and reads chunks. Shared by all threads; each brings its own [`ReadScratch`].
#[derive(Debug)]
pub struct ChunkReader {
    store: Store,
    tables: Vec<Table<TableBytes>>,
    open: Mutex<HashMap<PackId, Arc<OpenFile>>>,
    notes: Vec<String>,
}

impl ChunkReader {
    /// Opens the live segments. When one is missing or damaged the whole index is rebuilt in memory from pack footers,
    /// and [`ChunkReader::notes`] says so.
    ///
    /// # Errors
    /// [`Error::Io`]. A damaged index or pack is not an error here: what cannot be found fails when it is read.
    pub fn open(store: &Store) -> Result<ChunkReader> {
        let mut notes = Vec::new();
        let mut current = store.segments_current()?;
        let tables = loop {
            match open_segments(store, current.as_ref())? {
                Ok(tables) => break tables,
                Err(why) => {
                    // A commit that ran meanwhile merges segments and removes what it merged (format-spec §90.5).
                    let now = store.segments_current()?;
                    if now.is_some() && now != current {
                        current = now;
                        continue;
                    }
                    notes.push(format!("index: {why}; rebuilt in memory from pack footers"));
                    break vec![rebuild(store, &mut notes)?];
                }
            }
        };
        Ok(ChunkReader { store: store.clone(), tables, open: Mutex::default(), notes })
    }

    /// What was wrong with the index, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where a chunk is.
    pub fn locate(&self, id: &ChunkId) -> Option<Location> {
        self.tables.iter().find_map(|table| table.get(id))
    }

    /// Number of chunk records in the index; a chunk in two segments counts twice.
    pub fn records(&self) -> u64 {
        self.tables.iter().map(|table| table.len() as u64).sum()
    }

    /// Reads a chunk, decodes it and checks its hash.
    ///
    /// # Errors
    /// [`Error::MissingObject`] when no pack has it; [`Error::Decode`] or [`Error::HashMismatch`] naming the pack and
    /// the chunk when its record is damaged; [`Error::Io`].
    pub fn read<'b>(&self, id: &ChunkId, scratch: &'b mut ReadScratch) -> Result<Verified<'b>> {
        let at = self.locate(id).ok_or_else(|| missing(id))?;
        self.read_at(id, &at, scratch)
    }

    /// As [`ChunkReader::read`], for a chunk that was located before.
    ///
    /// # Errors
    /// As [`ChunkReader::read`].
    pub fn read_at<'b>(&self, id: &ChunkId, at: &Location, scratch: &'b mut ReadScratch) -> Result<Verified<'b>> {
        let dict = match at.encoding {
            Encoding::ZstdDict(dict_id) => Some(self.read_dictionary(&dict_id)?),
            Encoding::Raw | Encoding::Zstd => None,
        };
        let pack = self.pack(&at.pack)?;
        let ReadScratch { stored, plain, decompressor } = scratch;
        stored.resize(usize::try_from(at.stored_len).expect("bounded by the format"), 0);
        let object = || format!("{} (chunk {})", ObjectName::Pack(at.pack), id.short(16));
        pack.read_exact_at(stored, at.offset).map_err(|e| match e {
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                Error::HashMismatch { object: object(), actual: "nothing: the pack ends too early".into() }
            }
            e => e,
        })?;
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|e| Error::io("set up decoder for", pack.path(), e))?),
        };
        decompressor
            .decompress(at.encoding, stored, at.plain_len, dict.as_deref(), plain)
            .map_err(|source| Error::Decode { object: object(), source })?;
        Verified::check(*id, plain)
            .ok_or_else(|| Error::HashMismatch { object: object(), actual: ChunkId::of(plain).to_string() })
    }

    /// A dictionary is a chunk that is stored without one, so this goes one level deep.
    fn read_dictionary(&self, id: &ChunkId) -> Result<Vec<u8>> {
        let at = self.locate(id).ok_or_else(|| missing(id))?;
        if let Encoding::ZstdDict(_) = at.encoding {
            return Err(Error::Refused { reason: format!("dictionary {id} needs a dictionary itself"), hint: None });
        }
        Ok(self.read_at(id, &at, &mut ReadScratch::default())?.plain().to_vec())
    }

    fn pack(&self, id: &PackId) -> Result<Arc<OpenFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pack) = open.get(id) {
            return Ok(Arc::clone(pack));
        }
        let name = ObjectName::Pack(*id);
        let pack = self.store.backend().open(&name)?;
        let pack = Arc::new(pack.ok_or_else(|| Error::MissingObject { object: name.to_string() })?);
        if open.len() >= OPEN_PACKS_MAX {
            open.clear();
        }
        open.insert(*id, Arc::clone(&pack));
        Ok(pack)
    }
}

fn missing(id: &ChunkId) -> Error {
    Error::MissingObject { object: format!("chunk {id}") }
}

/// The live segments, or why they cannot be used.
fn open_segments(store: &Store, current: Option<&SegmentsCurrent>) -> Result<Result<Vec<Table<TableBytes>>, String>> {
    let Some(current) = current else {
        return Ok(Err(format!("{} is missing or damaged", ObjectName::SegmentsCurrent)));
    };
    let mut tables = Vec::with_capacity(current.segments.len());
    for segment in &current.segments {
        match open_segment(store, &segment.id) {
            Ok(table) => tables.push(table),
            Err(e) if matches!(e.kind(), crate::ErrorKind::Damaged) => return Ok(Err(e.to_string())),
            Err(e) => return Err(e),
        }
    }
    Ok(Ok(tables))
}

fn open_segment(store: &Store, id: &SegmentId) -> Result<Table<TableBytes>> {
    let name = ObjectName::Segment(*id);
    let map = store.backend().map(&name);
    let map = match map {
        Ok(map) => map.ok_or_else(|| Error::MissingObject { object: name.to_string() })?,
        // An empty file cannot be mapped.
        Err(_) if store.backend().len(&name)? == Some(0) => {
            return Err(Error::HashMismatch { object: name.to_string(), actual: SegmentId::of(b"").to_string() });
        }
        Err(e) => return Err(e),
    };
    let actual = SegmentId::of(map.as_ref());
    if actual != *id {
        return Err(Error::HashMismatch { object: name.to_string(), actual: actual.to_string() });
    }
    let table = Table::decode(TableBytes::Mapped(map)).map_err(damaged(&name))?;
    if table.kind() != TableKind::Segment {
        return Err(Error::HashMismatch { object: name.to_string(), actual: "a locator".into() });
    }
    Ok(table)
}

/// One table of everything that readable pack footers list. Unreadable packs become notes.
fn rebuild(store: &Store, notes: &mut Vec<String>) -> Result<Table<TableBytes>> {
    let mut packs = Vec::new();
    let mut records = Vec::new();
    for id in store.backend().list_packs()? {
        match pack::read_footer(store.backend(), &id) {
            Ok(footer) => {
                packs.push(footer.pack);
                records.extend(footer.locations());
            }
            Err(e) if e.kind() == crate::ErrorKind::Damaged => notes.push(format!("index: {e}: left out")),
            Err(e) => return Err(e),
        }
        let found = records.len() as u64;
        let limit = u64::from(limits::TABLE_RECORDS_MAX);
        if found > limit {
            return Err(Error::LimitExceeded { what: "number of chunks in the store", found, limit });
        }
    }
    let in_memory = |source| Error::Decode { object: "index rebuilt in memory".into(), source };
    let bytes = crate::format::table::encode(TableKind::Segment, &packs, records).map_err(in_memory)?;
    Table::decode(TableBytes::Rebuilt(bytes)).map_err(in_memory)
}
