// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tells where chunks are. Locators and segments are hints: nothing proves them but the chunks in the places that they
//! name. Where a store has several servers each of them may tell something else, so who told it is remembered. The next one
//! is asked when a chunk is not where it should be; one that was wrong is named once another one was right.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::backend::{ObjectName, Teller};
use crate::error::{Error, ErrorKind, Result};
use crate::format::store::SegmentsCurrent;
use crate::format::table::{Location, Table, TablePack};
use crate::id::{ChunkId, SnapshotId};
use crate::limits;
use crate::locator::{self, Broken, Told};
use crate::segment::{self, TableBytes};
use crate::store::Store;

/// Times that a list of segments is read again because it has changed in between.
const CHANGES_MAX: usize = 8;

/// One answer to where chunks are.
#[derive(Debug, Default)]
pub(super) struct Index {
    told: Vec<Told>,
    /// The list that it was made from, where it was made from segments.
    current: Option<SegmentsCurrent>,
    /// Whether it is what a listing of all packs gave, so that nobody knows more.
    is_gathered: bool,
}

impl Index {
    /// Everywhere that a chunk is, and who says so.
    pub(super) fn find(&self, id: &ChunkId) -> impl Iterator<Item = (Location, &Told)> {
        let id = *id;
        self.told.iter().filter_map(move |told| Some((told.table.get(&id)?, told)))
    }

    /// The packs that it names.
    pub(super) fn packs(&self) -> impl Iterator<Item = &TablePack> {
        self.told.iter().flat_map(|told| told.table.packs())
    }

    /// Number of its records.
    pub(super) fn records(&self) -> u64 {
        self.told.iter().map(|told| told.table.len() as u64).sum()
    }

    fn bytes(&self) -> u64 {
        self.told.iter().map(|told| told.len).sum()
    }

    fn is_like(&self, other: &Index) -> bool {
        let places = |index: &Index| index.told.iter().map(|told| blake3::hash(told.table.bytes())).collect::<Vec<_>>();
        match (&self.current, &other.current) {
            (Some(own), Some(theirs)) => own == theirs,
            (None, None) => self.told.len() == other.told.len() && places(self) == places(other),
            _ => false,
        }
    }
}

/// All answers so far, best first, and whom to ask next.
#[derive(Debug)]
pub(super) struct Indexes {
    store: Store,
    snapshots: Vec<SnapshotId>,
    known: RwLock<Vec<Arc<Index>>>,
    next: Mutex<Next>,
}

/// What has been asked of whom.
#[derive(Debug, Default)]
struct Next {
    /// Who has told of locators; `None` when nobody else can.
    locators: Option<Vec<Teller>>,
    /// The same of segments.
    segments: Option<Vec<Teller>>,
}

impl Indexes {
    /// The live segments, or what pack footers give where these cannot be used.
    pub(super) fn open(store: &Store, notes: &mut Vec<String>) -> Result<Indexes> {
        let first = if store.backend().link().is_some() && store.backend().listing().is_none() {
            None
        } else {
            Some(open_here(store, notes)?)
        };
        Indexes::begin(store, &[], first)
    }

    /// The locators of `snapshots`, and the segments where they cannot be used.
    pub(super) fn of_snapshots(store: &Store, snapshots: &[SnapshotId], notes: &mut Vec<String>) -> Result<Indexes> {
        let indexes = Indexes {
            store: store.clone(),
            snapshots: snapshots.to_vec(),
            known: RwLock::default(),
            next: Mutex::new(Next { locators: Some(Vec::new()), segments: Some(Vec::new()) }),
        };
        let mut why = None;
        let first = indexes.ask_locators(&mut indexes.next(), &mut why)?;
        match first {
            Some(first) => indexes.add(first),
            None => {
                notes.extend(why.map(|why| format!("index: {why}; going on with the segments")));
                if store.backend().listing().is_some() {
                    let first = open_here(store, notes)?;
                    return Indexes::begin(store, snapshots, Some(first));
                }
                indexes.require_segments()?;
            }
        }
        Ok(indexes)
    }

    fn begin(store: &Store, snapshots: &[SnapshotId], first: Option<Index>) -> Result<Indexes> {
        let (store, snapshots) = (store.clone(), snapshots.to_vec());
        let next = Mutex::new(Next { locators: None, segments: Some(Vec::new()) });
        let indexes = Indexes { store, snapshots, known: RwLock::default(), next };
        match first {
            Some(first) => indexes.add(first),
            None => indexes.require_segments()?,
        }
        Ok(indexes)
    }

    fn require_segments(&self) -> Result<()> {
        let mut why = None;
        let first = self.ask_segments(&mut self.next(), &mut why)?;
        let why = why.unwrap_or_else(|| format!("{} is missing or damaged", ObjectName::SegmentsCurrent));
        let missing = || Error::MissingObject { object: format!("the index ({why}), or a sound copy of it,") };
        self.add(first.ok_or_else(missing)?);
        Ok(())
    }

    /// The one to go by.
    pub(super) fn best(&self) -> Arc<Index> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.first().expect("one is there from the beginning"))
    }

    /// One that is none of `tried`: known already, or asked for now. `None` when nobody knows any further.
    ///
    /// # Errors
    /// As whoever is asked; that what they tell is damaged is no error.
    pub(super) fn other(&self, tried: &[Arc<Index>]) -> Result<Option<Arc<Index>>> {
        let is_new = |index: &&Arc<Index>| tried.iter().all(|old| !Arc::ptr_eq(old, index));
        let mut next = self.next();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(index) = known.iter().find(is_new) {
            return Ok(Some(Arc::clone(index)));
        }
        if known.iter().any(|index| index.is_gathered) {
            return Ok(None);
        }
        while let Some(index) = self.ask(&mut next)? {
            if known.iter().all(|old| !old.is_like(&index)) {
                let index = Arc::new(index);
                self.known.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&index));
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Goes by `index` from now on.
    pub(super) fn prefer(&self, index: &Arc<Index>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.sort_by_key(|other| !Arc::ptr_eq(other, index));
    }

    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, index: Index) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(index));
    }

    fn ask(&self, next: &mut Next) -> Result<Option<Index>> {
        if let Some(index) = self.ask_locators(next, &mut None)? {
            return Ok(Some(index));
        }
        if self.store.backend().listing().is_some() {
            if next.segments.take().is_none() {
                return Ok(None);
            }
            let tables = segment::gather(&self.store)?.into_tables()?.0;
            return Ok(Some(Index { is_gathered: true, ..index_of(tables, Teller::default(), None) }));
        }
        self.ask_segments(next, &mut None)
    }

    /// The locators of whoever has not told of them yet. Why somebody's are of no use goes into `why`, the first time.
    fn ask_locators(&self, next: &mut Next, why: &mut Option<Error>) -> Result<Option<Index>> {
        let mut wrong = Vec::new();
        while let Some(but) = next.locators.take() {
            match self.chains(&but)? {
                Ok(index) => {
                    let head = index.told.first().map(|told| told.teller);
                    next.locators = head.map(|head| [&but[..], &[head]].concat());
                    for (teller, why) in wrong {
                        self.store.backend().mistrust(teller, why);
                    }
                    return Ok(Some(index));
                }
                Err(broken) => {
                    next.locators = broken.teller.map(|head| [&but[..], &[head]].concat());
                    if broken.is_of_one {
                        wrong.extend(broken.teller.map(|teller| (teller, broken.why.to_string())));
                    }
                    why.get_or_insert(broken.why);
                }
            }
        }
        Ok(None)
    }

    /// The chains of all snapshots.
    fn chains(&self, but: &[Teller]) -> Result<Result<Index, Broken>> {
        let mut index = Index::default();
        for id in &self.snapshots {
            let left = limits::LOCATORS_BYTES_MAX.min(self.bytes_left()).saturating_sub(index.bytes());
            let chain = match locator::chain(&self.store, id, but, left)? {
                Ok(chain) => chain,
                Err(broken) => return Ok(Err(broken)),
            };
            let is_new = |new: &Told| index.told.iter().all(|told| told.table.kind() != new.table.kind());
            let new: Vec<_> = chain.into_iter().filter(is_new).collect();
            index.told.extend(new);
        }
        Ok(Ok(index))
    }

    fn bytes_left(&self) -> u64 {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        limits::INDEX_BYTES_MAX.saturating_sub(known.iter().map(|index| index.bytes()).sum())
    }

    /// The segments of whoever has not told of them yet.
    fn ask_segments(&self, next: &mut Next, why: &mut Option<String>) -> Result<Option<Index>> {
        let mut wrong = Vec::new();
        while let Some(but) = next.segments.take() {
            let mut told = self.store.segments_told(&but)?;
            for _ in 0..CHANGES_MAX {
                let Some((current, teller)) = &told else { break };
                let opened = match current.store == self.store.id() {
                    true => open_segments(&self.store, current, self.bytes_left())?,
                    false => Err(format!("{} is another store's", ObjectName::SegmentsCurrent)),
                };
                match opened {
                    Ok(tables) => {
                        next.segments = Some([&but[..], &[*teller]].concat());
                        for (teller, why) in wrong {
                            self.store.backend().mistrust(teller, why);
                        }
                        return Ok(Some(index_of(tables, *teller, Some(current.clone()))));
                    }
                    Err(broken) => {
                        // A commit that ran meanwhile merges segments and removes what it merged (format-spec §90.5).
                        let now = self.store.segments_told(&but)?;
                        if now.as_ref().is_some_and(|now| now != &(current.clone(), *teller)) {
                            told = now;
                            continue;
                        }
                        next.segments = Some([&but[..], &[*teller]].concat());
                        wrong.push((*teller, format!("{} is of no use: {broken}", ObjectName::SegmentsCurrent)));
                        why.get_or_insert(broken);
                        break;
                    }
                }
            }
        }
        Ok(None)
    }
}

fn index_of(tables: Vec<Table<TableBytes>>, teller: Teller, current: Option<SegmentsCurrent>) -> Index {
    let told = tables.into_iter().map(|table| {
        let len = table.bytes().len() as u64;
        Told { table, teller, name: ObjectName::SegmentsCurrent, len }
    });
    Index { told: told.collect(), current, is_gathered: false }
}

/// The live segments of a store whose packs can be listed, or what pack footers give where these cannot be used.
fn open_here(store: &Store, notes: &mut Vec<String>) -> Result<Index> {
    let mut current = readable_current(store)?;
    loop {
        let opened = match &current {
            Some(current) => open_segments(store, current, u64::MAX)?,
            None => Err(format!("{} is missing or damaged", ObjectName::SegmentsCurrent)),
        };
        match opened {
            Ok(tables) => return Ok(index_of(tables, Teller::default(), current)),
            Err(why) => {
                // As in `ask_segments`.
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
                return Ok(Index { is_gathered: true, ..index_of(tables, Teller::default(), None) });
            }
        }
    }
}

/// `segments/current`, if it can be read.
fn readable_current(store: &Store) -> Result<Option<SegmentsCurrent>> {
    store.segments_current().or_else(|e| if e.is_of_one_object() { Ok(None) } else { Err(e) })
}

/// The live segments, or why they cannot be used. What is in memory is bounded, what is mapped is not.
fn open_segments(
    store: &Store,
    current: &SegmentsCurrent,
    bytes_max: u64,
) -> Result<Result<Vec<Table<TableBytes>>, String>> {
    let mut tables = Vec::with_capacity(current.segments.len());
    let mut left = bytes_max;
    for listed in &current.segments {
        match segment::open_within(store, &listed.id, left) {
            Ok(table) => {
                left = left.saturating_sub(table.bytes().len() as u64);
                tables.push(table);
            }
            Err(e) if e.kind() != ErrorKind::Unsupported && e.is_of_one_object() => return Ok(Err(e.to_string())),
            Err(e) => return Err(e),
        }
    }
    Ok(Ok(tables))
}
