// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store: the handle through which everything else finds objects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::{Backend, Listing, LocalBackend, ObjectName, S3Backend, Teller, Whom, Writing};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Timestamp;
use crate::format::snapshot::{self, IndexRecord, Snapshot};
use crate::format::store::{ChunkerParams, SegmentsCurrent, StoreFeatures, StoreFormat};
use crate::format::{DecodeError, Reason};
use crate::fsio::{self, Lock};
use crate::id::{SnapshotId, StoreId};
use crate::limits;
use crate::read::ChunkReader;

/// Fewest hex digits that may stand for a snapshot.
pub const PREFIX_DIGITS_MIN: usize = 8;

/// Directory of files caches in the state of a store.
pub(crate) const FILES_CACHES: &str = "files";

/// What a new store is made with.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// How files are cut into chunks.
    pub chunker: ChunkerParams,
    /// A pack is closed once it has this many bytes.
    pub pack_size: u64,
}

impl InitOptions {
    /// The parameters of a store that is there.
    pub fn like(store: &Store) -> InitOptions {
        InitOptions { chunker: store.format().chunker, pack_size: store.format().pack_size }
    }
}

impl Default for InitOptions {
    fn default() -> Self {
        InitOptions { chunker: ChunkerParams::around(64 << 10), pack_size: 32 << 20 }
    }
}

/// The snapshots of a store, in order of commit.
#[derive(Debug, Clone, Default)]
pub struct SnapshotList {
    /// Those that are there, damaged ones among them.
    pub there: Vec<IndexRecord>,
    /// Those that are lost: `snapshots/index` names them or, where it is lost itself, a locator does.
    pub missing: Vec<SnapshotId>,
    /// The last to be committed, be it lost.
    newest: Option<SnapshotId>,
}

/// An open store.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    format: StoreFormat,
}

impl Store {
    /// Makes an empty store in a new or empty directory, or goes on where a writer died that was making one.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Locked`] while somebody else makes one, [`Error::LimitExceeded`] for sizes outside the format, [`Error::Io`].
    pub fn create(path: &Path, options: &InitOptions) -> Result<Store> {
        let format = new_format(path, options)?;
        let (backend, _lock) = LocalBackend::create(path)?;
        Store::write_empty(Arc::new(backend), format)
    }

    /// Makes an empty store in an empty bucket or below a prefix of one, or goes on where a writer died that was making
    /// one. Nothing keeps another machine from doing the same at the same time: one machine is a store's writer.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::LimitExceeded`] for sizes outside the format, [`Error::Send`].
    pub fn create_in_bucket(backend: S3Backend, options: &InitOptions) -> Result<Store> {
        let format = new_format(backend.path(), options)?;
        backend.require_empty()?;
        Store::write_empty(Arc::new(backend), format)
    }

    fn write_empty(backend: Arc<dyn Backend>, format: StoreFormat) -> Result<Store> {
        let store = Store { backend, format };
        let writing = store.writing()?;
        // The `format` object comes last: without it the place is not a store.
        let current = SegmentsCurrent { store: store.id(), generation: 0, segments: Vec::new(), condemned: Vec::new() };
        writing.publish(&ObjectName::SegmentsCurrent, &current.encode())?;
        writing.publish(&ObjectName::SnapshotIndex, &snapshot::encode_index(&[]))?;
        writing.publish(&ObjectName::Format, &store.format.encode())?;
        Ok(store)
    }

    /// Opens an existing store in a directory.
    ///
    /// # Errors
    /// As [`Store::open_at`].
    pub fn open(path: &Path) -> Result<Store> {
        Store::open_at(Arc::new(LocalBackend::new(path)))
    }

    /// Opens an existing store.
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Decode`] for a newer or damaged `format`; [`Error::Io`].
    pub fn open_at(backend: Arc<dyn Backend>) -> Result<Store> {
        let name = ObjectName::Format;
        let decode = |bytes: &[u8]| StoreFormat::decode(bytes).map_err(damaged(&name));
        let not_a_store = || Error::NotAStore { path: backend.path().to_path_buf() };
        let read = backend.read_checked(&name, limits::FORMAT_BYTES_MAX, &mut |bytes| decode(bytes).map(drop));
        let bytes = match read {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotADirectory => None,
            read => read?,
        };
        let format = decode(&bytes.ok_or_else(not_a_store)?)?;
        Ok(Store { backend, format })
    }

    /// Its identity.
    pub fn id(&self) -> StoreId {
        self.format.store
    }

    /// What it was made with.
    pub fn format(&self) -> &StoreFormat {
        &self.format
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.backend.path()
    }

    /// The directory that it is, if it is one of this machine.
    pub fn dir(&self) -> Option<&Path> {
        self.backend.dir()
    }

    /// Where its objects are.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Where its objects are written.
    ///
    /// # Errors
    /// [`Error::Refused`] for a place that is only read.
    pub fn writing(&self) -> Result<&dyn Writing> {
        self.backend.writing().ok_or_else(|| Error::Refused {
            reason: format!("{} can only be read", self.path().display()),
            hint: Some("name the store's directory, on the machine that writes it".into()),
        })
    }

    /// The names of its objects.
    ///
    /// # Errors
    /// [`Error::Refused`] for a place that cannot list them.
    pub fn listing(&self) -> Result<&dyn Listing> {
        self.backend
            .listing()
            .ok_or_else(|| Error::Refused { reason: format!("{} cannot be listed", self.path().display()), hint: None })
    }

    /// What `state_dir` remembers of this store.
    pub(crate) fn state_in(&self, state_dir: &Path) -> PathBuf {
        state_dir.join("stores").join(self.id().to_string())
    }

    /// Takes the writer's locks, one in `state_dir`, one on the store itself, and sweeps what a dead writer left.
    ///
    /// # Errors
    /// As [`Store::lock_dry_run`].
    pub fn lock_writer(&self, state_dir: &Path) -> Result<WriterLock> {
        let lock = self.lock_dry_run(state_dir)?;
        self.writing()?.sweep_temporaries()?;
        let dir = self.state_in(state_dir);
        fsio::create_dir_all(&dir.join(FILES_CACHES))?;
        for dir in [&dir, &dir.join(FILES_CACHES)] {
            fsio::sweep_temporaries(dir)?;
        }
        Ok(lock)
    }

    /// Takes the writer's locks and changes nothing in the store.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process writes; [`Error::Decode`] when the store has a feature that a writer must
    /// understand and this program does not.
    pub fn lock_dry_run(&self, state_dir: &Path) -> Result<WriterLock> {
        if let Some(feature) = self.format.features.must_write.first() {
            let reason = Reason::Feature(feature.clone());
            let source = DecodeError { object: "format", offset: 0, field: "must-write", reason };
            return Err(damaged(&ObjectName::Format)(source));
        }
        self.writing()?;
        let dir = self.state_in(state_dir);
        fsio::create_dir_all(&dir)?;
        let state = Lock::exclusive(&dir.join("writer.lock"))?;
        let of_store = |dir: &Path| {
            Lock::exclusive_existing(&dir.join("format")).map_err(|e| {
                if let Error::Locked { holder, .. } = e {
                    Error::Locked { path: self.path().into(), holder }
                } else {
                    e
                }
            })
        };
        let store = self.dir().map(of_store).transpose()?;
        Ok(WriterLock { _state: state, _store: store })
    }

    /// Reads a snapshot's document and checks that it hashes to `id`.
    ///
    /// # Errors
    /// [`Error::UnknownSnapshot`], [`Error::HashMismatch`], [`Error::Decode`], [`Error::Io`].
    pub fn snapshot(&self, id: &SnapshotId) -> Result<Snapshot> {
        let name = ObjectName::Snapshot(*id);
        let mut check = |bytes: &[u8]| match SnapshotId::of(bytes) {
            actual if actual == *id => Ok(()),
            actual => Err(Error::HashMismatch { object: name.to_string(), actual: actual.to_string() }),
        };
        let bytes = self.backend.read_checked(&name, limits::SNAPSHOT_BYTES_MAX, &mut check)?;
        let bytes = bytes.ok_or_else(|| Error::UnknownSnapshot { name: id.to_string() })?;
        Snapshot::decode(&bytes).map_err(damaged(&name))
    }

    /// All snapshots in order of commit. The index is a hint: what it lacks or gets wrong is found by looking.
    ///
    /// # Errors
    /// [`Error::Io`]. Damaged snapshots are listed too; reading them tells.
    pub fn snapshots(&self) -> Result<Vec<IndexRecord>> {
        Ok(self.list_snapshots()?.there)
    }

    /// All snapshots, and those that are lost. Where names cannot be listed, those that the index lists.
    ///
    /// # Errors
    /// As [`Store::snapshots`]; [`Error::MissingObject`] and [`Error::Decode`] for the index where it is all there is.
    pub fn list_snapshots(&self) -> Result<SnapshotList> {
        let Some(listing) = self.backend.listing() else { return self.listed_snapshots() };
        // A snapshot has its name before the index lists it, so one that is read now names nothing that is still to come.
        let index = self.snapshot_index().or_else(|e| if e.is_of_one_object() { Ok(None) } else { Err(e) })?;
        let locators = if index.is_none() { listing.list_locators()? } else { Vec::new() };
        let mut unlisted: BTreeSet<SnapshotId> = listing.list_snapshots()?.into_iter().collect();
        let located: Vec<SnapshotId> = locators.into_iter().filter(|id| !unlisted.contains(id)).collect();
        let index = index.unwrap_or_default();
        let last_listed = index.last().map(|record| record.id);
        let (listed, lost): (Vec<_>, Vec<_>) = index.into_iter().partition(|record| unlisted.remove(&record.id));
        let (damaged, newer) = self.in_order_of_commit(unlisted)?;
        // A lost snapshot that others follow is not the newest.
        let is_followed = |id: &SnapshotId| newer.iter().any(|record| record.parent == Some(*id));
        let newest = located.iter().copied().find(|id| !is_followed(id));
        let newest = newest.or(newer.last().map(|record| record.id)).or(last_listed);
        let newest = newest.or(damaged.last().map(|record| record.id));
        let missing = lost.into_iter().map(|record| record.id).chain(located).collect();
        Ok(SnapshotList { there: [damaged, listed, newer].concat(), missing, newest })
    }

    /// All snapshots by their times, none before its parent, whatever order the index has them in.
    ///
    /// # Errors
    /// As [`Store::snapshots`].
    pub(crate) fn snapshots_by_time(&self) -> Result<Vec<IndexRecord>> {
        let ids = self.snapshots()?.into_iter().map(|record| record.id).collect();
        let (damaged, sound) = self.in_order_of_commit(ids)?;
        Ok([damaged, sound].concat())
    }

    /// What the index lists, where nothing else can be asked.
    fn listed_snapshots(&self) -> Result<SnapshotList> {
        let name = ObjectName::SnapshotIndex;
        let decode = |bytes: &[u8]| snapshot::decode_index(bytes).map_err(damaged(&name));
        let mut check = |bytes: &[u8]| decode(bytes).map(drop);
        // A mirror may be behind, and what it has is sound all the same.
        let (cap, whom) = (limits::SNAPSHOT_INDEX_BYTES_MAX, Whom { own_first: true, ..Whom::default() });
        let told = self.backend.read_told(&name, cap, whom, &mut check)?;
        let (bytes, _) = told.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
        let there = decode(&bytes)?;
        let newest = there.last().map(|record| record.id);
        Ok(SnapshotList { there, missing: Vec::new(), newest })
    }

    /// The newest snapshot; `None` in a store without any.
    ///
    /// # Errors
    /// [`Error::MissingObject`] naming the newest when it is lost: the one before it is not the newest.
    pub fn latest(&self) -> Result<Option<SnapshotId>> {
        let list = self.list_snapshots()?;
        match list.newest {
            Some(id) if list.missing.contains(&id) => Err(lost(&id)),
            newest => Ok(newest),
        }
    }

    /// Records of snapshots that no index lists: damaged ones, and the others with parents before their children. Clocks
    /// jump and several commits fit into a second, so a snapshot counts as no older than its parent.
    fn in_order_of_commit(&self, ids: BTreeSet<SnapshotId>) -> Result<(Vec<IndexRecord>, Vec<IndexRecord>)> {
        let mut damaged = Vec::new();
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let len = self
                .backend
                .len(&ObjectName::Snapshot(id))
                .ok()
                .flatten()
                .unwrap_or(0)
                .clamp(1, limits::SNAPSHOT_BYTES_MAX);
            match self.snapshot(&id) {
                Ok(snapshot) => {
                    let record = IndexRecord { id, parent: snapshot.parent, time: snapshot.time.secs, len };
                    found.push((snapshot.depth, snapshot.time, record));
                }
                Err(e) if !e.is_of_one_object() => return Err(e),
                Err(_) => damaged.push(IndexRecord { id, parent: None, time: 0, len }),
            }
        }
        found.sort_by_key(|(depth, ..)| *depth);
        let mut times: BTreeMap<SnapshotId, Timestamp> = BTreeMap::new();
        for (_, time, record) in &found {
            let no_earlier = record.parent.and_then(|parent| times.get(&parent)).copied();
            times.insert(record.id, no_earlier.map_or(*time, |parent| parent.max(*time)));
        }
        found.sort_by_key(|(depth, _, record)| (times[&record.id], *depth));
        Ok((damaged, found.into_iter().map(|(.., record)| record).collect()))
    }

    /// `snapshots/index` as it is; `None` when it is missing or damaged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn snapshot_index(&self) -> Result<Option<Vec<IndexRecord>>> {
        let bytes = self.read_hint(&ObjectName::SnapshotIndex, limits::SNAPSHOT_INDEX_BYTES_MAX)?;
        Ok(bytes.and_then(|bytes| snapshot::decode_index(&bytes).ok()))
    }

    /// The snapshot that `name` means: a full id, a prefix of at least 8 digits, `@latest`, each with `~N` for N parents
    /// back.
    ///
    /// # Errors
    /// [`Error::UnknownSnapshot`], [`Error::AmbiguousSnapshot`]; [`Error::MissingObject`] for a snapshot that something in
    /// the store tells of and that is lost.
    pub fn resolve(&self, name: &str) -> Result<SnapshotId> {
        let unknown = || Error::UnknownSnapshot { name: name.to_string() };
        let (base, back) = match name.rsplit_once('~') {
            Some((base, "")) => (base, 1),
            Some((base, count)) => (base, count.parse::<u64>().map_err(|_| unknown())?),
            None => (name, 0),
        };
        let mut id = self.resolve_base(base, name)?;
        for _ in 0..back {
            id = self.snapshot(&id)?.parent.ok_or_else(unknown)?;
            if !self.has_snapshot(&id)? {
                // Its locator outlasts its document. Without either it may never have been copied here.
                let was_here =
                    self.backend.len(&ObjectName::Locator(id))?.is_some() || self.snapshot_index()?.is_none();
                return Err(if was_here { lost(&id) } else { unknown() });
            }
        }
        Ok(id)
    }

    /// Whether something has a snapshot's name, be it damaged.
    fn has_snapshot(&self, id: &SnapshotId) -> Result<bool> {
        let Some(listing) = self.backend.listing() else {
            // Asking whether it is there costs as much as reading it, which comes next and tells.
            return Ok(true);
        };
        Ok(self.backend.len(&ObjectName::Snapshot(*id))?.is_some() || listing.list_snapshots()?.contains(id))
    }

    /// Whether anything tells that there was a snapshot `id`: the index, its locator, or a child where there
    /// is no index. Beside a sound index a child does not: it may have been copied here without its parents.
    fn is_told_of(&self, id: &SnapshotId, list: &SnapshotList) -> Result<bool> {
        let is_parent = |child: &IndexRecord| self.snapshot(&child.id).is_ok_and(|child| child.parent == Some(*id));
        Ok(list.missing.contains(id)
            || self.backend.len(&ObjectName::Locator(*id))?.is_some()
            || self.snapshot_index()?.is_none() && list.there.iter().any(is_parent))
    }

    fn resolve_base(&self, base: &str, name: &str) -> Result<SnapshotId> {
        let unknown = || Error::UnknownSnapshot { name: name.to_string() };
        if base == "@latest" {
            return self.latest()?.ok_or_else(unknown);
        }
        if let Ok(id) = base.parse::<SnapshotId>() {
            if self.has_snapshot(&id)? {
                return Ok(id);
            }
            let is_lost = self.is_told_of(&id, &self.list_snapshots()?)?;
            return Err(if is_lost { lost(&id) } else { unknown() });
        }
        let is_prefix = base.len() >= PREFIX_DIGITS_MIN
            && base.len() < 64
            && base.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_prefix {
            return Err(unknown());
        }
        let list = self.list_snapshots()?;
        let named = list.there.iter().map(|record| record.id).chain(list.missing.iter().copied());
        let mut candidates: Vec<SnapshotId> = named.filter(|id| id.to_hex().starts_with(base)).collect();
        match candidates.as_slice() {
            [] => Err(unknown()),
            [id] if list.missing.contains(id) => Err(lost(id)),
            [_] => Ok(candidates.remove(0)),
            _ => Err(Error::AmbiguousSnapshot { prefix: base.to_string(), candidates }),
        }
    }

    /// Whether `ancestor` is `id` itself or one of its parents.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    pub fn is_ancestor(&self, ancestor: &SnapshotId, id: &SnapshotId) -> Result<bool> {
        let mut at = Some(*id);
        while let Some(id) = at {
            if id == *ancestor {
                return Ok(true);
            }
            at = self.snapshot(&id)?.parent;
        }
        Ok(false)
    }

    /// Opens the index for reading chunks.
    ///
    /// # Errors
    /// As [`ChunkReader::open`].
    pub fn reader(&self) -> Result<ChunkReader> {
        ChunkReader::open(self)
    }

    /// Opens what tells where the chunks of `snapshots` are: the index where it is at hand, else their locators, which are
    /// shorter.
    ///
    /// # Errors
    /// As [`ChunkReader::open`].
    pub fn reader_of(&self, snapshots: &[SnapshotId]) -> Result<ChunkReader> {
        ChunkReader::of_snapshots(self, snapshots)
    }

    /// Reads an object that one can do without; `None` also for what is no file, cannot be read from the medium, or has more
    /// than `cap` bytes.
    pub(crate) fn read_hint(&self, name: &ObjectName, cap: u64) -> Result<Option<Vec<u8>>> {
        match self.backend.read(name, cap) {
            Err(e) if e.kind() == ErrorKind::Damaged => Ok(None),
            read => read,
        }
    }

    /// `segments/current`; `None` when it is missing, damaged or another store's.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn segments_current(&self) -> Result<Option<SegmentsCurrent>> {
        let bytes = self.read_hint(&ObjectName::SegmentsCurrent, limits::SEGMENTS_CURRENT_BYTES_MAX)?;
        let current = bytes.and_then(|bytes| SegmentsCurrent::decode(&bytes).ok());
        Ok(current.filter(|current| current.store == self.id()))
    }

    /// `segments/current`, of whatever store, as somebody else than `but` tells it, and who that is; `None` when nobody does.
    ///
    /// # Errors
    /// As [`Backend::read_checked`], but for what is missing or damaged.
    pub(crate) fn segments_told(&self, but: &[Teller]) -> Result<Option<(SegmentsCurrent, Teller)>> {
        let name = ObjectName::SegmentsCurrent;
        let decode = |bytes: &[u8]| SegmentsCurrent::decode(bytes).map_err(damaged(&name));
        let whom = Whom { but, ..Whom::default() };
        let mut check = |bytes: &[u8]| decode(bytes).map(drop);
        match self.backend.read_told(&name, limits::SEGMENTS_CURRENT_BYTES_MAX, whom, &mut check) {
            Ok(told) => told.map(|(bytes, teller)| Ok((decode(&bytes)?, teller))).transpose(),
            Err(e) if e.is_of_one_object() => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Held while a store is written; released when dropped or when the process dies.
#[derive(Debug)]
pub struct WriterLock {
    _state: Lock,
    /// Of a store that is a directory. What is elsewhere cannot be locked.
    _store: Option<Lock>,
}

fn lost(id: &SnapshotId) -> Error {
    Error::MissingObject { object: ObjectName::Snapshot(*id).to_string() }
}

/// The `format` of a new store at `path`.
fn new_format(path: &Path, options: &InitOptions) -> Result<StoreFormat> {
    let (low, high) = limits::CHUNK_AVG_RANGE;
    let avg = options.chunker.avg;
    if !(low..=high).contains(&avg) || !avg.is_power_of_two() {
        let limit = u64::from(if avg < low { low } else { high });
        return Err(Error::LimitExceeded { what: "average chunk size", found: u64::from(avg), limit });
    }
    let (low, high) = limits::PACK_TARGET_RANGE;
    if !(low..=high).contains(&options.pack_size) {
        let limit = if options.pack_size < low { low } else { high };
        return Err(Error::LimitExceeded { what: "pack size", found: options.pack_size, limit });
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| Error::io("draw a random id for", path, std::io::Error::other(e)))?;
    Ok(StoreFormat {
        store: StoreId(id),
        chunker: options.chunker,
        pack_size: options.pack_size,
        features: StoreFeatures::default(),
    })
}

/// Names the object that did not decode.
pub(crate) fn damaged(name: &ObjectName) -> impl FnOnce(DecodeError) -> Error + use<> {
    let object = name.to_string();
    move |source| Error::Decode { object, source }
}
