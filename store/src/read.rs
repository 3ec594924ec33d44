// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chunk id → verified bytes.
//!
//! Invariant: nobody gets plain bytes from a store except as [`Verified`], and the only way to make one is to hash them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::backend::{Object, ObjectName};
use crate::compress::Decompressor;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{self, Ahead, Deltas, FetchLimits, FetchPlan, Kitchen, Near, Seeds};
use crate::format::pack::Encoding;
use crate::format::store::SegmentsCurrent;
use crate::format::table::{Location, Table, TablePack};
use crate::format::{DecodeError, Reason};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::locator;
use crate::progress::Progress;
use crate::segment::{self, TableBytes};
use crate::store::Store;

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

/// A chunk with the record that it was decoded from.
#[derive(Debug)]
pub(crate) struct VerifiedRecord<'b> {
    pub(crate) chunk: Verified<'b>,
    /// The record; `None` for a chunk that came from elsewhere than a pack.
    pub(crate) stored: Option<(Encoding, &'b [u8])>,
}

/// Buffers and decoder of one reading thread.
#[derive(Debug, Default)]
pub struct ReadScratch {
    stored: Vec<u8>,
    plain: Vec<u8>,
    /// How `stored` became `plain`; `None` when `plain` came from elsewhere.
    encoding: Option<Encoding>,
    decompressor: Option<Decompressor>,
}

/// Finds and reads chunks. Shared by all threads; each brings its own [`ReadScratch`].
#[derive(Debug)]
pub struct ChunkReader {
    store: Store,
    tables: Vec<Table<TableBytes>>,
    /// Whether the tables are what a listing of all packs gave.
    is_gathered: bool,
    /// What is known beyond the tables, found out when they could not give a chunk.
    beyond: Mutex<Option<Arc<Vec<Table<TableBytes>>>>>,
    open: Mutex<HashMap<PackId, Arc<dyn Object>>>,
    /// What was fetched ahead.
    near: Near,
    /// What this machine has anyway.
    seeds: Seeds,
    /// What chunks can be made of instead of fetching them.
    deltas: OnceLock<Deltas>,
    notes: Vec<String>,
}

impl ChunkReader {
    /// Opens the live segments. When one is missing or damaged the whole index is rebuilt in memory from pack footers,
    /// and [`ChunkReader::notes`] says so.
    ///
    /// # Errors
    /// [`Error::Io`]. A damaged index or pack is not an error here: what cannot be found fails when it is read. Only where
    /// packs cannot be listed, a damaged index is one: [`Error::MissingObject`].
    pub fn open(store: &Store) -> Result<ChunkReader> {
        let mut notes = Vec::new();
        let (tables, is_gathered) = open_index(store, &mut notes)?;
        Ok(ChunkReader::with(store, tables, is_gathered, notes))
    }

    /// Opens what tells where the chunks of `snapshots` are: their locators where the index is far away, and the index where
    /// they cannot be used; else the index.
    ///
    /// # Errors
    /// As [`ChunkReader::open`].
    pub fn of_snapshots(store: &Store, snapshots: &[SnapshotId]) -> Result<ChunkReader> {
        if store.backend().link().is_none() {
            return ChunkReader::open(store);
        }
        let mut tables: Vec<Table<TableBytes>> = Vec::new();
        for id in snapshots {
            match locator::chain(store, id) {
                Ok(chain) => {
                    let is_new = |new: &Table<_>| tables.iter().all(|table| table.kind() != new.kind());
                    let new: Vec<_> = chain.into_iter().filter(is_new).collect();
                    tables.extend(new);
                }
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    let mut notes = vec![format!("index: {e}; going on with the segments")];
                    let (tables, is_gathered) = open_index(store, &mut notes)?;
                    return Ok(ChunkReader::with(store, tables, is_gathered, notes));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(ChunkReader::with(store, tables, false, Vec::new()))
    }

    fn with(store: &Store, tables: Vec<Table<TableBytes>>, is_gathered: bool, notes: Vec<String>) -> ChunkReader {
        let (beyond, open, near, seeds) = (Mutex::default(), Mutex::default(), Near::default(), Seeds::default());
        let deltas = OnceLock::new();
        ChunkReader { store: store.clone(), tables, is_gathered, beyond, open, near, seeds, deltas, notes }
    }

    /// What was wrong with the index, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Makes chunks of these deltas from now on, where that saves bytes. The first ones given are kept.
    pub fn use_deltas(&self, deltas: Deltas) {
        self.deltas.get_or_init(|| deltas);
    }

    /// The deltas in use.
    pub fn deltas(&self) -> Option<&Deltas> {
        self.deltas.get()
    }

    /// Where a chunk is, by the index.
    pub fn locate(&self, id: &ChunkId) -> Option<Location> {
        self.locations(id).next()
    }

    /// Everywhere that a chunk is, by the index.
    pub fn locations(&self, id: &ChunkId) -> impl Iterator<Item = Location> + '_ {
        let id = *id;
        self.tables.iter().filter_map(move |table| table.get(&id))
    }

    /// Number of chunk records in the index; a chunk in two segments counts twice.
    pub fn records(&self) -> u64 {
        self.tables.iter().map(|table| table.len() as u64).sum()
    }

    /// Reads a chunk, decodes it and checks its hash. When one copy cannot be read another one is looked for, at last in
    /// the footers of all packs (format-spec §10.5, §20.6).
    ///
    /// # Errors
    /// [`Error::MissingObject`] when no pack has it; [`Error::Decode`] or [`Error::HashMismatch`] naming the pack and
    /// the chunk when its record is damaged; [`Error::Io`].
    pub fn read<'b>(&self, id: &ChunkId, scratch: &'b mut ReadScratch) -> Result<Verified<'b>> {
        self.fetch(id, None, Dictionaries::Allowed, scratch)?;
        Ok(Verified { id: *id, plain: &scratch.plain })
    }

    /// As [`ChunkReader::read`], for a chunk that was located before.
    ///
    /// # Errors
    /// As [`ChunkReader::read`].
    pub fn read_at<'b>(&self, id: &ChunkId, at: &Location, scratch: &'b mut ReadScratch) -> Result<Verified<'b>> {
        self.fetch(id, Some(*at), Dictionaries::Allowed, scratch)?;
        Ok(Verified { id: *id, plain: &scratch.plain })
    }

    /// As [`ChunkReader::read`], with the record as it is stored, which other packs may take over.
    ///
    /// # Errors
    /// As [`ChunkReader::read`].
    pub(crate) fn read_record<'b>(&self, id: &ChunkId, scratch: &'b mut ReadScratch) -> Result<VerifiedRecord<'b>> {
        self.fetch(id, None, Dictionaries::Allowed, scratch)?;
        let stored = scratch.encoding.map(|encoding| (encoding, &scratch.stored[..]));
        Ok(VerifiedRecord { chunk: Verified { id: *id, plain: &scratch.plain }, stored })
    }

    /// The packs that the index names.
    pub(crate) fn packs(&self) -> impl Iterator<Item = &TablePack> + '_ {
        self.tables.iter().flat_map(Table::packs)
    }

    /// Fetches chunks together that will be read soon, where each alone would be a request of its own; elsewhere it does
    /// nothing. What cannot be had is left for [`ChunkReader::read`] to tell.
    ///
    /// # Errors
    /// [`Error::Fetch`], [`Error::Interrupted`], [`Error::Io`].
    pub fn fetch_ahead(&self, ids: impl IntoIterator<Item = ChunkId>, progress: &Progress) -> Result<()> {
        let Some(link) = self.store.backend().link() else { return Ok(()) };
        let Some(mut plan) = self.plan_ahead(ids) else { return Ok(()) };
        if let Some(deltas) = self.deltas.get() {
            self.with_kitchen(progress, |kitchen| deltas.bring(&costs(&plan), kitchen))?;
            plan = self.plan_ahead(chunks(&plan)).unwrap_or_default();
        }
        fetch::run(&self.store, &plan, &self.near, fetch::requests_at_once(link), progress)
    }

    /// What [`ChunkReader::fetch_ahead`] would ask for now, of deltas and of packs; nothing where it does nothing. Asks for lists
    /// and tables of deltas only.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn foresee_ahead(&self, ids: impl IntoIterator<Item = ChunkId>, progress: &Progress) -> Result<Ahead> {
        let Some(packs) = self.plan_ahead(ids) else { return Ok(Ahead::default()) };
        let Some(deltas) = self.deltas.get() else { return Ok(Ahead { packs, ..Ahead::default() }) };
        let deltas = self.with_kitchen(progress, |kitchen| deltas.foresee(&costs(&packs), kitchen))?;
        let rest = chunks(&packs).into_iter().filter(|id| !deltas.chunks.contains(id));
        Ok(Ahead { packs: self.plan_ahead(rest).unwrap_or_default(), deltas })
    }

    fn with_kitchen<T>(&self, progress: &Progress, work: impl FnOnce(&Kitchen<'_>) -> T) -> T {
        let take = |id: &ChunkId| {
            let mut scratch = ReadScratch::default();
            self.take_near(id, &mut scratch).ok().filter(|found| *found).map(|_| scratch.plain)
        };
        work(&Kitchen { store: &self.store, near: &self.near, seeds: &self.seeds, take: &take, progress })
    }

    /// What [`ChunkReader::fetch_ahead`] would ask for; `None` where it does nothing.
    pub fn plan_ahead(&self, ids: impl IntoIterator<Item = ChunkId>) -> Option<FetchPlan> {
        let link = self.store.backend().link()?;
        let lens: HashMap<PackId, u64> =
            self.tables.iter().flat_map(Table::packs).map(|pack| (pack.id, pack.len)).collect();
        let far = ids.into_iter().filter(|id| !self.near.has(id));
        let needed = far.filter_map(|id| Some((id, self.locate(&id)?)));
        let limits = FetchLimits::of_link(link, fetch::requests_at_once(link));
        Some(FetchPlan::new(needed, |pack| lens.get(pack).copied(), limits))
    }

    /// Whether what is fetched ahead is of use here.
    pub fn is_far(&self) -> bool {
        self.store.backend().link().is_some()
    }

    /// Whether content may have to come from elsewhere on this machine: the store is far, or leaves out what its bases have.
    pub fn wants_seeds(&self) -> bool {
        self.is_far() || !self.store.backend().bases().is_empty()
    }

    /// Where what is fetched ahead is kept.
    pub fn near(&self) -> &Near {
        &self.near
    }

    /// What is on this machine, and read before packs are.
    pub fn seeds(&self) -> &Seeds {
        &self.seeds
    }

    /// Puts a chunk that was fetched ahead into `scratch`. Gives whether it is there, and sound.
    fn take_near(&self, id: &ChunkId, scratch: &mut ReadScratch) -> Result<bool> {
        let ReadScratch { stored, plain, encoding, decompressor } = scratch;
        let Some(place) = self.near.read(id, stored) else { return Ok(false) };
        *encoding = Some(place.encoding);
        let decompressor = self.decompressor(decompressor)?;
        let decoded = decompressor.decompress(place.encoding, stored, place.plain_len, None, plain);
        Ok(decoded.is_ok() && ChunkId::of(plain) == *id)
    }

    fn decompressor<'d>(&self, slot: &'d mut Option<Decompressor>) -> Result<&'d mut Decompressor> {
        Ok(match slot {
            Some(decompressor) => decompressor,
            none => {
                let failed = |e| Error::io("set up decoder for", self.store.path(), e);
                none.insert(Decompressor::new().map_err(failed)?)
            }
        })
    }

    /// Tries one place after the other until `scratch` holds the chunk. The first failure is the one that is reported.
    fn fetch(
        &self,
        id: &ChunkId,
        first: Option<Location>,
        dicts: Dictionaries,
        scratch: &mut ReadScratch,
    ) -> Result<()> {
        if self.take_near(id, scratch)? {
            return Ok(());
        }
        let known = first.or_else(|| self.locate(id));
        // What is in a store at hand is nearer than any seed.
        if !self.seeds.is_empty()
            && (known.is_none() || self.is_far())
            && let Some(plain) = self.seeds.take(id, known.map(|at| at.plain_len))
        {
            scratch.plain = plain;
            scratch.encoding = None;
            return Ok(());
        }
        let mut failed = Failed::default();
        for at in first.into_iter().chain(self.locations(id)) {
            if failed.attempt(at, |at| self.fetch_at(id, at, dicts, scratch)) {
                return Ok(());
            }
        }
        let is_lost = failed.first.as_ref().is_none_or(|e| e.kind() == ErrorKind::Damaged);
        if is_lost && !self.is_gathered {
            for at in self.beyond()?.iter().filter_map(|table| table.get(id)) {
                if failed.attempt(at, |at| self.fetch_at(id, at, dicts, scratch)) {
                    return Ok(());
                }
            }
        }
        Err(failed.first.unwrap_or_else(|| Error::MissingObject { object: format!("chunk {id}") }))
    }

    /// What all packs hold or, where they cannot be listed, what the segments say by now (format-spec §90.5). Found out
    /// once.
    fn beyond(&self) -> Result<Arc<Vec<Table<TableBytes>>>> {
        let mut beyond = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tables) = &*beyond {
            return Ok(Arc::clone(tables));
        }
        let tables = match self.store.backend().listing() {
            Some(_) => segment::gather(&self.store)?.into_tables()?.0,
            None => open_index(&self.store, &mut Vec::new()).map_or_else(
                |e| if e.kind() == ErrorKind::Damaged { Ok(Vec::new()) } else { Err(e) },
                |(tables, _)| Ok(tables),
            )?,
        };
        Ok(Arc::clone(beyond.insert(Arc::new(tables))))
    }

    fn fetch_at(&self, id: &ChunkId, at: &Location, dicts: Dictionaries, scratch: &mut ReadScratch) -> Result<()> {
        let object = || format!("{} (chunk {})", ObjectName::Pack(at.pack), id.short(16));
        let dict = match (at.encoding, dicts) {
            (Encoding::Raw | Encoding::Zstd, _) => None,
            (Encoding::ZstdDict(dict), Dictionaries::Allowed) => {
                let mut own = ReadScratch::default();
                self.fetch(&dict, None, Dictionaries::Refused, &mut own)?;
                Some(own.plain)
            }
            (Encoding::ZstdDict(_), Dictionaries::Refused) => {
                let reason = Reason::Rule("a dictionary that needs a dictionary itself");
                let source = DecodeError { object: "record", offset: 0, field: "dict", reason };
                return Err(Error::Decode { object: object(), source });
            }
        };
        let pack = self.pack(&at.pack)?;
        let ReadScratch { stored, plain, encoding, decompressor } = scratch;
        *encoding = Some(at.encoding);
        let decompressor = self.decompressor(decompressor)?;
        // Checked where it is read: a server that gave wrong bytes is then known, and another one asked.
        let mut check = |stored: &[u8]| {
            decompressor
                .decompress(at.encoding, stored, at.plain_len, dict.as_deref(), plain)
                .map_err(|source| Error::Decode { object: object(), source })?;
            let actual = ChunkId::of(plain);
            if actual == *id {
                Ok(())
            } else {
                Err(Error::HashMismatch { object: object(), actual: actual.to_string() })
            }
        };
        stored.resize(usize::try_from(at.stored_len).expect("bounded by the format"), 0);
        pack.read_checked_at(stored, at.offset, &mut check).map_err(|e| match e {
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                Error::HashMismatch { object: object(), actual: "nothing: the pack ends too early".into() }
            }
            e => e,
        })?;
        if self.is_far() {
            // It may be needed again, in this run or, after an interruption, in the next.
            self.near.insert(*id, at.encoding, at.plain_len, stored)?;
        }
        Ok(())
    }

    fn pack(&self, id: &PackId) -> Result<Arc<dyn Object>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pack) = open.get(id) {
            return Ok(Arc::clone(pack));
        }
        let name = ObjectName::Pack(*id);
        let pack = self.store.backend().open(&name)?;
        let pack = pack.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
        if open.len() >= OPEN_PACKS_MAX {
            open.clear();
        }
        open.insert(*id, Arc::clone(&pack));
        Ok(pack)
    }
}

fn chunks(plan: &FetchPlan) -> Vec<ChunkId> {
    plan.ranges.iter().flat_map(|range| &range.chunks).map(|(id, _)| *id).collect()
}

/// What each chunk costs where it is fetched from its pack.
fn costs(plan: &FetchPlan) -> HashMap<ChunkId, u64> {
    let chunks = plan.ranges.iter().flat_map(|range| &range.chunks);
    chunks.map(|(id, at)| (*id, u64::from(at.stored_len))).collect()
}

/// Whether a record may need a dictionary. A dictionary is a chunk that is stored without one (format-spec §20.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dictionaries {
    Allowed,
    Refused,
}

/// Places that did not have what they should, and the first reason.
#[derive(Debug, Default)]
struct Failed {
    places: Vec<Location>,
    first: Option<Error>,
}

impl Failed {
    /// Whether `fetch` succeeds at a place that was not tried yet.
    fn attempt(&mut self, at: Location, fetch: impl FnOnce(&Location) -> Result<()>) -> bool {
        if self.places.contains(&at) {
            return false;
        }
        let Err(error) = fetch(&at) else { return true };
        self.places.push(at);
        self.first.get_or_insert(error);
        false
    }
}

/// The live segments, or what pack footers give where these cannot be used; and whether it is the latter.
fn open_index(store: &Store, notes: &mut Vec<String>) -> Result<(Vec<Table<TableBytes>>, bool)> {
    let mut current = readable_current(store)?;
    loop {
        match open_segments(store, current.as_ref())? {
            Ok(tables) => return Ok((tables, false)),
            Err(why) => {
                // A commit that ran meanwhile merges segments and removes what it merged (format-spec §90.5).
                let now = readable_current(store)?;
                if now.is_some() && now != current {
                    current = now;
                    continue;
                }
                if store.backend().listing().is_none() {
                    return Err(Error::MissingObject { object: format!("the index ({why}), or a sound copy of it,") });
                }
                let (tables, found) = segment::gather(store)?.into_tables()?;
                notes.push(format!("index: {why}; rebuilt in memory from pack footers"));
                notes.extend(found);
                return Ok((tables, true));
            }
        }
    }
}

/// `segments/current`, if it can be read.
fn readable_current(store: &Store) -> Result<Option<SegmentsCurrent>> {
    store.segments_current().or_else(|e| if e.is_of_one_object() { Ok(None) } else { Err(e) })
}

/// The live segments, or why they cannot be used.
fn open_segments(store: &Store, current: Option<&SegmentsCurrent>) -> Result<Result<Vec<Table<TableBytes>>, String>> {
    let Some(current) = current else {
        return Ok(Err(format!("{} is missing or damaged", ObjectName::SegmentsCurrent)));
    };
    let mut tables = Vec::with_capacity(current.segments.len());
    for listed in &current.segments {
        match segment::open(store, &listed.id) {
            Ok(table) => tables.push(table),
            Err(e) if e.kind() != ErrorKind::Unsupported && e.is_of_one_object() => return Ok(Err(e.to_string())),
            Err(e) => return Err(e),
        }
    }
    Ok(Ok(tables))
}
