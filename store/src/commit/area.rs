// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One area: a walk merged with the files cache, in order, into a manifest and the next files cache.
//!
//! An entry whose inode is as the cache remembers it is copied as bytes. Files to read go to the workers; their places
//! in the stream are kept open until their entries come back.

mod emit;
mod take;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use self::emit::{Names, Owners};
use self::window::{InodeId, Slot};
use super::old::OldRecords;
use super::pipeline::{Batch, FileDone, FileJob, Packing, Shared};
use super::{AreaCommit, OpenArea, locator};
use crate::area::{RuleSet, XattrRules, protected_below};
use crate::error::{Error, Result};
use crate::files_cache::{CacheReader, CacheWriter};
use crate::format::manifest::Timestamp;
use crate::format::snapshot::SnapshotArea;
use crate::fsio::{self, FileType};
use crate::id::{ChunkId, SnapshotId};
use crate::manifest::{ManifestBuilder, NodeSink};
use crate::path::TreePath;
use crate::store::FILES_CACHES;
use crate::walk::Walk;

/// What became of one area.
#[derive(Debug)]
pub(super) struct AreaResult {
    pub(super) snapshot_area: SnapshotArea,
    pub(super) report: AreaCommit,
    pub(super) cache: Option<PendingCache>,
}

/// A files cache that waits for the snapshot's id.
#[derive(Debug)]
pub(super) struct PendingCache {
    writer: CacheWriter,
    path: PathBuf,
    manifest: ChunkId,
    /// Whether it says anything that the old one does not.
    pub(super) is_stale: bool,
}

impl PendingCache {
    pub(super) fn finish(self, snapshot: SnapshotId) -> Result<()> {
        self.writer.finish(&self.path, snapshot, self.manifest)
    }
}

/// Commits all areas one after the other.
pub(super) fn commit_areas(
    shared: &Shared<'_>,
    areas: &[OpenArea],
    jobs: &Sender<Batch>,
    done: &Receiver<FileDone>,
) -> Result<Vec<AreaResult>> {
    let mut troubles = Troubles::default();
    let mut results = Vec::with_capacity(areas.len());
    for area in areas {
        results.push(commit_area(shared, area, jobs, done, &mut troubles)?);
    }
    troubles.into_result(shared.options().skip_unreadable)?;
    Ok(results)
}

/// What went wrong with single files, gathered so that one commit names all of them.
#[derive(Debug, Default)]
struct Troubles {
    unstable: Vec<PathBuf>,
    unreadable: Vec<PathBuf>,
    first: Option<std::io::Error>,
    unruled: Vec<PathBuf>,
    xattrs: BTreeSet<String>,
    rights: Vec<PathBuf>,
}

impl Troubles {
    fn unreadable(&mut self, path: PathBuf, error: std::io::Error) {
        self.unreadable.push(path);
        self.first.get_or_insert(error);
    }

    fn unruled(&mut self, paths: Vec<PathBuf>, names: BTreeSet<String>) {
        self.unruled.extend(paths);
        self.xattrs.extend(names);
    }

    fn into_result(self, skip_unreadable: bool) -> Result<()> {
        match self.first {
            Some(source) if !skip_unreadable => Err(Error::Unreadable { paths: self.unreadable, source }),
            _ if !self.unruled.is_empty() => Err(Error::UnruledXattrs { paths: self.unruled, names: self.xattrs }),
            _ if !self.rights.is_empty() => Err(Error::ForbiddenRights { paths: self.rights }),
            _ if !self.unstable.is_empty() => Err(Error::Unstable { paths: self.unstable }),
            _ => Ok(()),
        }
    }
}

fn commit_area(
    shared: &Shared<'_>,
    area: &OpenArea,
    jobs: &Sender<Batch>,
    done: &Receiver<FileDone>,
    troubles: &mut Troubles,
) -> Result<AreaResult> {
    let options = shared.options();
    let mut protected = options.protected.clone();
    for own in [shared.store().path(), &options.state_dir] {
        protected.extend(fsio::canonicalize(own).ok());
    }
    let rules = RuleSet::new(&area.spec.rules, protected_below(&area.root, &protected))?;
    let state = shared.store().state_in(&options.state_dir);
    let cache_path = state.join(FILES_CACHES).join(cache_name(area));
    let old = usable_cache(shared, area, &cache_path)?;
    let parent = shared.parent(&area.spec.name)?;
    // The report compares with the parent, which usually is what the cache remembers.
    let basis = match (&old, &parent) {
        (Some(old), Some((id, _))) if old.header().manifest == *id => None,
        (_, Some((_, manifest))) => Some(OldRecords::of_manifest(manifest)),
        (_, None) => Some(OldRecords::none()),
    };
    let counts_first = options.estimate && old.is_none();
    if counts_first {
        estimate(shared, area, &rules)?;
    } else {
        shared.progress.start("reading", old.as_ref().map_or(0, |cache| cache.header().records), 0);
    }
    let old = old.map(OldRecords::of_cache);

    // A dry run's goes away again, and its directory need not be there.
    let cache_dir = if options.dry_run { state } else { state.join(FILES_CACHES) };
    let packing = Packing::new(shared)?;
    let mut merge = Merge {
        shared,
        area,
        xattrs: Arc::new(rules.xattrs().clone()),
        allow_devices: rules.devices(),
        start: fsio::now_coarse(),
        old,
        basis,
        jobs,
        done,
        counted_first: counts_first,
        batch: Vec::new(),
        batch_bytes: 0,
        batch_dirs: 0,
        window: VecDeque::new(),
        first_ticket: 0,
        outstanding: 0,
        groups: HashMap::new(),
        names: BTreeMap::new(),
        lost: HashSet::new(),
        builder: ManifestBuilder::new(packing),
        cache: CacheWriter::create(&cache_dir)?,
        cache_dir,
        is_stale: false,
        owners: Owners::default(),
        report: AreaCommit { name: area.spec.name.clone(), ..AreaCommit::default() },
        troubles,
    };
    let dir = area.dir.try_clone().map_err(|e| Error::io("open", &area.root, e))?;
    let mut walk = Walk::new(dir, &rules).map_err(|e| Error::io("read", &area.root, e))?;
    for found in walk.by_ref() {
        shared.check_cancelled()?;
        merge.take(found)?;
    }
    merge.report.excluded = walk.left_out().excluded;
    merge.report.identity = walk.left_out().identity.clone();
    merge.finish(cache_path)
}

/// Counts what a first commit will read, so that its progress has totals. A walk is short beside reading everything,
/// which it also prepares.
fn estimate(shared: &Shared<'_>, area: &OpenArea, rules: &RuleSet) -> Result<()> {
    let failed = |e| Error::io("read", &area.root, e);
    shared.progress.start("counting", 0, 0);
    let (mut entries, mut bytes) = (0, 0);
    for found in Walk::new(area.dir.try_clone().map_err(failed)?, rules).map_err(failed)?.flatten() {
        shared.check_cancelled()?;
        entries += 1;
        bytes += if found.stat.file_type == FileType::File { found.stat.size } else { 0 };
        shared.progress.advance(1, 0);
    }
    shared.progress.start("reading", entries, bytes);
    Ok(())
}

fn cache_name(area: &OpenArea) -> String {
    use std::os::unix::ffi::OsStrExt;
    let root = ChunkId::of(area.root.as_os_str().as_bytes());
    format!("{}-{}", area.spec.name, root.short(16))
}

/// The files cache, if its snapshot is in the store with all its chunks and recorded the same attributes.
fn usable_cache(shared: &Shared<'_>, area: &OpenArea, path: &Path) -> Result<Option<CacheReader>> {
    let Some(cache) = CacheReader::open(path)? else { return Ok(None) };
    let Ok(snapshot) = shared.store().snapshot(&cache.header().snapshot) else { return Ok(None) };
    let recorded = snapshot.area(&area.spec.name);
    let fits = recorded.is_some_and(|recorded| {
        recorded.manifest == cache.header().manifest && recorded.rules.xattrs == area.spec.rules.xattrs
    });
    let is_whole = fits && locator::chain(shared.store(), &cache.header().snapshot, shared.live_packs())?.is_some();
    Ok(is_whole.then_some(cache))
}

impl NodeSink for Packing<'_> {
    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId> {
        self.put_node(&bytes)
    }
}

/// A walk and what was known before, on their way into a manifest.
struct Merge<'m, 's> {
    shared: &'m Shared<'s>,
    area: &'m OpenArea,
    xattrs: Arc<XattrRules>,
    allow_devices: bool,
    start: Timestamp,
    old: Option<OldRecords<'m>>,
    /// What the report compares with, when that is not the cache.
    basis: Option<OldRecords<'m>>,
    jobs: &'m Sender<Batch>,
    done: &'m Receiver<FileDone>,
    /// Whether the progress has totals already.
    counted_first: bool,
    batch: Vec<FileJob>,
    batch_bytes: u64,
    batch_dirs: usize,
    window: VecDeque<Slot>,
    /// Ticket of the window's front.
    first_ticket: u64,
    outstanding: usize,
    /// First name of each inode with several names.
    groups: HashMap<InodeId, TreePath>,
    /// How many names of each group came by, by its first.
    names: BTreeMap<TreePath, Names>,
    /// First members that could not be recorded after all.
    lost: HashSet<TreePath>,
    builder: ManifestBuilder<Packing<'m>>,
    cache: CacheWriter,
    cache_dir: PathBuf,
    is_stale: bool,
    owners: Owners,
    report: AreaCommit,
    troubles: &'m mut Troubles,
}
