// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chunk id → verified bytes.
//!
//! Invariant: nobody gets plain bytes from a store except as [`Verified`], and the only way to make one is to hash them.

mod index;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::backend::{Object, ObjectName, Teller};
use crate::compress::Decompressor;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{self, Ahead, Deltas, FetchLimits, FetchPlan, Kitchen, Near, Seeds};
use crate::format::pack::Encoding;
use crate::format::table::{Location, TablePack};
use crate::format::{DecodeError, Reason};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::locator::Told;
use crate::progress::Progress;
use crate::store::Store;

use self::index::Indexes;

/// Open packs kept at hand.
const OPEN_PACKS_MAX: usize = 256;
/// Chunks of which each is looked for by itself before many are taken to be lost.
const TRIED_ELSEWHERE: usize = 4;
/// Times that what was left out is planned anew by another index.
const INDEXES_MAX: usize = 8;

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
    indexes: Indexes,
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
        let indexes = Indexes::open(store, &mut notes)?;
        Ok(ChunkReader::with(store, indexes, notes))
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
        let mut notes = Vec::new();
        let indexes = Indexes::of_snapshots(store, snapshots, &mut notes)?;
        Ok(ChunkReader::with(store, indexes, notes))
    }

    fn with(store: &Store, indexes: Indexes, notes: Vec<String>) -> ChunkReader {
        let (open, near, seeds) = (Mutex::default(), Near::default(), Seeds::default());
        let deltas = OnceLock::new();
        ChunkReader { store: store.clone(), indexes, open, near, seeds, deltas, notes }
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
        self.indexes.best().find(id).next().map(|(at, _)| at)
    }

    /// Everywhere that a chunk is, by the index.
    pub fn locations(&self, id: &ChunkId) -> impl Iterator<Item = Location> + use<> {
        let places: Vec<Location> = self.indexes.best().find(id).map(|(at, _)| at).collect();
        places.into_iter()
    }

    /// Number of chunk records in the index; a chunk in two segments counts twice.
    pub fn records(&self) -> u64 {
        self.indexes.best().records()
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
    pub(crate) fn packs(&self) -> Vec<TablePack> {
        self.indexes.best().packs().copied().collect()
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
        for _ in 0..INDEXES_MAX {
            let left_out = fetch::run(&self.store, &plan, &self.near, fetch::requests_at_once(link), progress)?;
            if !self.are_elsewhere(&left_out)? {
                break;
            }
            plan = self.plan_ahead(left_out).unwrap_or_default();
        }
        Ok(())
    }

    /// Whether chunks that were not where they should be are to be looked for by another index from now on. A few of them
    /// are tried for that, and each index is gone by once.
    fn are_elsewhere(&self, left_out: &[ChunkId]) -> Result<bool> {
        let (before, mut scratch) = (self.indexes.best(), ReadScratch::default());
        for id in left_out.iter().step_by((left_out.len() / TRIED_ELSEWHERE).max(1)) {
            match self.read(id, &mut scratch) {
                Ok(_) if Arc::ptr_eq(&before, &self.indexes.best()) => {}
                Ok(_) => return Ok(true),
                Err(e) if e.kind() == ErrorKind::Damaged => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
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
        let index = self.indexes.best();
        let lens: HashMap<PackId, u64> = index.packs().map(|pack| (pack.id, pack.len)).collect();
        let far = ids.into_iter().filter(|id| !self.near.has(id));
        let needed = far.filter_map(|id| Some((id, index.find(&id).next()?.0)));
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
        let (mut failed, mut tried) = (Failed::default(), vec![self.indexes.best()]);
        let mut attempt = |at: Location, told: Option<&Told>, failed: &mut Failed| {
            failed.attempt(at, told, |at| self.fetch_at(id, at, dicts, scratch))
        };
        if first.is_some_and(|at| attempt(at, None, &mut failed))
            || tried[0].find(id).any(|(at, told)| attempt(at, Some(told), &mut failed))
        {
            return Ok(());
        }
        while failed.first.as_ref().is_none_or(|e| e.kind() == ErrorKind::Damaged) {
            let index = match self.indexes.other(&tried) {
                Ok(Some(index)) => index,
                Err(e) if e.kind() != ErrorKind::Damaged => return Err(e),
                Ok(None) | Err(_) => break,
            };
            if let Some((_, told)) = index.find(id).find(|(at, told)| attempt(*at, Some(*told), &mut failed)) {
                if self.is_far() {
                    failed.blame(&self.store, told.teller);
                    self.indexes.prefer(&index);
                }
                return Ok(());
            }
            tried.push(index);
        }
        Err(failed.first.unwrap_or_else(|| Error::MissingObject { object: format!("chunk {id}") }))
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
    /// Who said that it is in such a place, and what shows that it is not.
    tellers: Vec<(Teller, String)>,
}

impl Failed {
    /// Whether `fetch` succeeds at a place that was not tried yet.
    fn attempt(&mut self, at: Location, told: Option<&Told>, fetch: impl FnOnce(&Location) -> Result<()>) -> bool {
        if self.places.contains(&at) {
            return false;
        }
        let Err(error) = fetch(&at) else { return true };
        self.places.push(at);
        if let Some(told) = told.filter(|_| error.kind() == ErrorKind::Damaged) {
            self.tellers.push((told.teller, format!("{} leads to what is not there: {error}", told.name)));
        }
        self.first.get_or_insert(error);
        false
    }

    /// Tells the store's place that it was led astray, as somebody else, `right`, knew where the chunk is.
    fn blame(self, store: &Store, right: Teller) {
        for (teller, why) in self.tellers.into_iter().filter(|(teller, _)| *teller != right) {
            store.backend().mistrust(teller, why);
        }
    }
}
