// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Segments as files: opened and checked, gathered anew from what packs and old segments say, divided where one would
//! break a limit.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::backend::{Loaded, ObjectName};
use crate::error::{Error, ErrorKind, Result};
use crate::format::table::{self, Location, Table, TableKind, TablePack};
use crate::id::{ChunkId, PackId, SegmentId};
use crate::limits;
use crate::pack;
use crate::store::{Store, damaged};

/// Bytes of an index table: mapped from a segment, fetched, or built in memory.
pub(crate) type TableBytes = Loaded;

/// How much one segment may list. More than that goes into further segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Records, at most [`limits::TABLE_RECORDS_MAX`] and at least 1.
    pub records_max: u32,
    /// Packs, at most [`limits::TABLE_PACKS_MAX`] and at least 1.
    pub packs_max: u32,
}

impl Default for SegmentLimits {
    fn default() -> Self {
        SegmentLimits { records_max: limits::TABLE_RECORDS_MAX, packs_max: limits::TABLE_PACKS_MAX }
    }
}

impl SegmentLimits {
    /// Whether one segment may hold this much.
    pub(crate) fn allow(&self, records: usize, packs: usize) -> bool {
        records as u64 <= u64::from(self.records_max) && packs as u64 <= u64::from(self.packs_max)
    }
}

/// Records and the packs that they lie in, in no particular order.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackRecords {
    pub(crate) packs: Vec<TablePack>,
    pub(crate) records: Vec<(ChunkId, Location)>,
}

impl PackRecords {
    /// Divides into what one segment each may hold. Of several records of one chunk the first is kept.
    pub(crate) fn split(mut self, limits: SegmentLimits) -> Vec<PackRecords> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let dicts_max = limits::TABLE_DICTS_MAX as usize;
        let has_dicts = self.records.iter().any(|(_, at)| at.encoding.dict().is_some());
        if limits.allow(self.records.len(), self.packs.len()) && !has_dicts {
            return vec![self];
        }
        self.records.sort_by_key(|(id, _)| *id);
        self.records.dedup_by_key(|(id, _)| *id);
        self.records.sort_unstable_by_key(|(id, at)| (at.pack, *id));
        let packs: BTreeMap<PackId, TablePack> = self.packs.into_iter().map(|pack| (pack.id, pack)).collect();
        let mut parts: Vec<PackRecords> = Vec::new();
        let mut part = PackRecords::default();
        let mut dicts = BTreeSet::new();
        for (id, at) in self.records {
            let is_new_pack = part.packs.last().is_none_or(|pack| pack.id != at.pack);
            let new_dict = at.encoding.dict().filter(|dict| !dicts.contains(dict));
            let fits = limits.allow(part.records.len() + 1, part.packs.len() + usize::from(is_new_pack))
                && dicts.len() + usize::from(new_dict.is_some()) <= dicts_max;
            if !fits {
                parts.push(std::mem::take(&mut part));
                dicts.clear();
            }
            if part.packs.last().is_none_or(|pack| pack.id != at.pack) {
                part.packs.extend(packs.get(&at.pack));
            }
            dicts.extend(at.encoding.dict());
            part.records.push((id, at));
        }
        parts.push(part);
        parts
    }

    /// The bytes of one segment.
    pub(crate) fn encode(self) -> Result<Vec<u8>> {
        let object = || "new segment".to_string();
        table::encode(TableKind::Segment, &self.packs, self.records)
            .map_err(|source| Error::Decode { object: object(), source })
    }

    /// As tables that stay in memory. A chunk that has several records is in several tables.
    pub(crate) fn into_tables(mut self) -> Result<Vec<Table<TableBytes>>> {
        let build = |part: PackRecords| {
            Table::decode(Loaded::Read(part.encode()?))
                .map_err(|source| Error::Decode { object: "index rebuilt in memory".into(), source })
        };
        let mut tables = Vec::new();
        while !self.records.is_empty() {
            let more = self.take_repeated();
            tables.extend(self.split(SegmentLimits::default()).into_iter().map(build).collect::<Result<Vec<_>>>()?);
            self = more;
        }
        Ok(tables)
    }

    /// Leaves the first record of each chunk and gives the others.
    fn take_repeated(&mut self) -> PackRecords {
        self.records.sort_by_key(|(id, _)| *id);
        let mut last = None;
        let repeated = self.records.extract_if(.., |(id, _)| last.replace(*id) == Some(*id)).collect();
        PackRecords { packs: self.packs.clone(), records: repeated }
    }
}

/// Opens a segment and checks it whole: hash, layout, order.
///
/// # Errors
/// Of kind [`ErrorKind::Damaged`] when it is not there or not what its name says; [`ErrorKind::Unsupported`] when it is
/// newer than this program; [`Error::Io`].
pub(crate) fn open(store: &Store, id: &SegmentId) -> Result<Table<TableBytes>> {
    open_within(store, id, u64::MAX)
}

/// As [`open`], for one of no more than `bytes_max` bytes.
///
/// # Errors
/// As [`open`]; a longer one counts as damaged.
pub(crate) fn open_within(store: &Store, id: &SegmentId, bytes_max: u64) -> Result<Table<TableBytes>> {
    let name = ObjectName::Segment(*id);
    let bytes = store.backend().load(&name, id.as_bytes(), table::TABLE_BYTES_MAX.min(bytes_max))?;
    let bytes = bytes.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    let table = Table::decode(bytes).map_err(damaged(&name))?;
    if table.kind() != TableKind::Segment {
        return Err(Error::HashMismatch { object: name.to_string(), actual: "a locator".into() });
    }
    Ok(table)
}

/// Everything that is known of where chunks are, without `segments/current`.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// What pack footers say.
    pub(crate) confirmed: PackRecords,
    /// What sound segments say of packs that are there without a readable footer, as far as no other pack has the chunk.
    /// Readers may try it, as each chunk is proved by its hash; nothing new may rely on it (format-spec §90.4).
    pub(crate) unconfirmed: PackRecords,
    /// A line for each pack whose footer cannot be read.
    pub(crate) notes: Vec<String>,
}

impl Gathered {
    /// Both parts as tables in memory, and what is to be said about them.
    pub(crate) fn into_tables(self) -> Result<(Vec<Table<TableBytes>>, Vec<String>)> {
        let mut tables = self.confirmed.into_tables()?;
        tables.extend(self.unconfirmed.into_tables()?);
        Ok((tables, self.notes))
    }
}

/// Reads the footers of all packs, and for packs without a readable one every segment that is sound, live or not.
///
/// # Errors
/// [`Error::Refused`] where packs cannot be listed; [`Error::Io`]; kind [`ErrorKind::Unsupported`] for an object of a newer version.
pub(crate) fn gather(store: &Store) -> Result<Gathered> {
    let mut found = Gathered::default();
    let mut unreadable = BTreeSet::new();
    for id in store.listing()?.list_packs()? {
        match pack::read_footer(store.backend(), &id) {
            Ok(footer) => {
                found.confirmed.packs.push(footer.pack);
                found.confirmed.records.extend(footer.locations());
            }
            Err(e) if e.kind() != ErrorKind::Unsupported && e.is_of_one_object() => {
                found.notes.push(format!("index: {e}: only what segments say of it can be found"));
                unreadable.insert(id);
            }
            Err(e) => return Err(e),
        }
    }
    if !unreadable.is_empty() {
        let known: HashSet<ChunkId> = found.confirmed.records.iter().map(|(id, _)| *id).collect();
        found.unconfirmed = told_by_segments(store, &unreadable)?;
        found.unconfirmed.records.retain(|(id, _)| !known.contains(id));
    }
    Ok(found)
}

/// What all sound segments say of `packs`. Where they give a pack different lengths, the one that it has counts.
fn told_by_segments(store: &Store, packs: &BTreeSet<PackId>) -> Result<PackRecords> {
    let mut tables = Vec::new();
    for id in store.listing()?.list_segments()? {
        match open(store, &id) {
            Ok(table) => tables.push(table),
            Err(e) if e.kind() == ErrorKind::Damaged => {}
            Err(e) => return Err(e),
        }
    }
    let mut told: BTreeMap<PackId, TablePack> = BTreeMap::new();
    for pack in tables.iter().flat_map(Table::packs).filter(|pack| packs.contains(&pack.id)) {
        if store.backend().len(&ObjectName::Pack(pack.id))? == Some(pack.len) {
            told.insert(pack.id, *pack);
        } else {
            told.entry(pack.id).or_insert(*pack);
        }
    }
    let mut records = Vec::new();
    for table in &tables {
        let agreed: HashSet<PackId> =
            table.packs().iter().filter(|pack| told.get(&pack.id) == Some(pack)).map(|pack| pack.id).collect();
        records.extend(table.iter().filter(|(_, at)| agreed.contains(&at.pack)));
    }
    Ok(PackRecords { packs: told.into_values().collect(), records })
}
