// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One area: a walk merged with the files cache, in order, into a manifest and the next files cache.
//!
//! An entry whose inode is as the cache remembers it is copied as bytes. Files to read go to the workers; their places
//! in the stream are kept open until their entries come back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::file::FileError;
use super::locator;
use super::old::OldRecords;
use super::other;
use super::pipeline::{Batch, FileDone, FileJob, Packing, ReadEntry, Shared};
use super::{AreaCommit, OpenArea};
use crate::area::{RuleSet, XattrRules, protected_below};
use crate::error::{Error, Result};
use crate::files_cache::{CacheReader, CacheRecord, CacheWriter, Fingerprint, RecordState};
use crate::format::manifest::{AceTag, Entry, Inode, InodeKind, Node, Timestamp};
use crate::format::snapshot::SnapshotArea;
use crate::fsio::{self, FileType, Stat};
use crate::id::{ChunkId, SnapshotId};
use crate::manifest::{ManifestBuilder, NodeSink};
use crate::path::TreePath;
use crate::store::FILES_CACHES;
use crate::walk::{Found, Walk, WalkError};

/// Entries that may wait for a file before them.
pub(super) const WINDOW: usize = 32_768;
/// Bounds of one batch of files: number, bytes, and directories that it keeps open.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_DIRS: usize = 8;

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
}

impl Troubles {
    fn unreadable(&mut self, path: PathBuf, error: std::io::Error) {
        self.unreadable.push(path);
        self.first.get_or_insert(error);
    }

    fn into_result(self, skip_unreadable: bool) -> Result<()> {
        match self.first {
            Some(source) if !skip_unreadable => Err(Error::Unreadable { paths: self.unreadable, source }),
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
fn usable_cache(shared: &Shared<'_>, area: &OpenArea, path: &std::path::Path) -> Result<Option<CacheReader>> {
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

/// A place in the stream of entries.
#[derive(Debug)]
enum Slot {
    /// Known.
    Ready(Box<Ready>),
    /// A worker reads the file; `basis` is what the parent has at its path.
    Waiting { path: TreePath, full_path: PathBuf, basis: Option<Vec<u8>>, group: Option<InodeId> },
    /// It turned out that there is nothing to record.
    Empty,
}

#[derive(Debug)]
struct Ready {
    path: TreePath,
    encoded: Vec<u8>,
    fingerprint: Option<Fingerprint>,
    is_file: bool,
    size: u64,
    owner: (u32, u32),
    /// Its place in a hard-link group, if the inode has several names.
    group: Option<Group>,
}

/// An entry's place in a hard-link group.
#[derive(Debug)]
enum Group {
    /// The first member, and how many names its entry says there are.
    First(u32),
    /// A further name; which is the first.
    Further(TreePath),
}

/// Device and number of an inode.
type InodeId = ((u32, u32), u64);

fn inode_id(stat: &Stat) -> InodeId {
    (stat.dev, stat.ino)
}

/// Names of one hard-link group.
#[derive(Debug)]
struct Names {
    recorded: u32,
    found: u32,
}

/// Ids whose names the manifest head has to hold.
#[derive(Debug, Default)]
struct Owners {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

impl Owners {
    fn add_acls(&mut self, entry: &Entry) {
        let Node::Inode(inode) = &entry.node else { return };
        for ace in inode.acl.iter().chain(&inode.default_acl).flat_map(|acl| &acl.0) {
            match ace.tag {
                AceTag::User(id) => drop(self.users.insert(id)),
                AceTag::Group(id) => drop(self.groups.insert(id)),
                AceTag::UserObj | AceTag::GroupObj | AceTag::Mask | AceTag::Other => {}
            }
        }
    }
}

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

impl Merge<'_, '_> {
    fn take(&mut self, found: Result<Found, WalkError>) -> Result<()> {
        match found {
            Ok(found) => self.take_found(found)?,
            Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                self.report.unreadable.push(e.path);
                self.troubles.unreadable(e.full_path, e.source);
            }
        }
        while self.window.len() >= WINDOW {
            self.flush_batch()?;
            self.wait_for_one()?;
        }
        self.emit_ready()
    }

    fn take_found(&mut self, found: Found) -> Result<()> {
        let old = match &mut self.old {
            Some(old) => old.at(&found.path)?,
            None => None,
        };
        let basis = match &mut self.basis {
            Some(basis) => basis.at(&found.path)?.map(|record| record.entry),
            None => old.as_ref().map(|old| old.entry.clone()),
        };
        if found.mount_point {
            self.report.mount_points.push(found.path);
            return Ok(());
        }
        match found.stat.file_type {
            FileType::Socket => {
                self.report.sockets += 1;
                return Ok(());
            }
            FileType::CharDevice | FileType::BlockDevice if !self.allow_devices => {
                self.report.devices.push(found.path);
                return Ok(());
            }
            _ => {}
        }
        let is_group = !found.stat.is_dir() && found.stat.nlink > 1;
        if is_group {
            if let Some(first) = self.groups.get(&inode_id(&found.stat)).cloned() {
                return self.take_link(&found, first, basis.as_deref());
            }
            self.groups.insert(inode_id(&found.stat), found.path.clone());
        }
        match old {
            Some(old) if is_unchanged(&old, &found.stat, is_group)? => {
                if self.basis.is_some() {
                    self.count(basis.as_deref(), &old.entry);
                }
                self.take_unchanged(found, old, is_group)
            }
            _ if found.stat.file_type == FileType::File => self.take_file(found, basis, is_group),
            _ => self.take_other(found, basis.as_deref(), is_group),
        }
    }

    fn take_unchanged(&mut self, found: Found, old: CacheRecord, is_group: bool) -> Result<()> {
        let group = if is_group { Some(Group::First(recorded_links(&old.decode()?))) } else { None };
        if may_name_others(&old.entry) {
            self.owners.add_acls(&old.decode()?);
        }
        self.shared.progress.advance(1, 0);
        self.window.push_back(Slot::Ready(Box::new(Ready {
            encoded: old.entry,
            fingerprint: old.fingerprint,
            is_file: found.stat.file_type == FileType::File,
            size: found.stat.size,
            owner: (found.stat.uid, found.stat.gid),
            group,
            path: found.path,
        })));
        Ok(())
    }

    fn take_link(&mut self, found: &Found, first: TreePath, basis: Option<&[u8]>) -> Result<()> {
        let entry = Entry { path: found.path.clone(), node: Node::Link { first: first.clone() } };
        let read = ReadEntry::new(entry, found.stat, false);
        self.is_stale = true;
        self.count(basis, &read.encoded);
        self.shared.progress.advance(1, 0);
        self.window.push_back(Slot::Ready(Box::new(self.ready(read, Some(Group::Further(first))))));
        Ok(())
    }

    fn take_other(&mut self, mut found: Found, basis: Option<&[u8]>, is_group: bool) -> Result<()> {
        let inode = match other::read(&mut found, &self.xattrs) {
            Ok(inode) => inode,
            Err(error) => {
                let full_path = found.full_path();
                return self.leave_out(found.path, full_path, is_group, error);
            }
        };
        let entry = Entry { path: found.path, node: Node::Inode(inode) };
        let read = ReadEntry::new(entry, found.stat, false);
        self.owners.add_acls(&read.entry);
        self.is_stale = true;
        self.count(basis, &read.encoded);
        self.shared.progress.advance(1, 0);
        let group = group_of(&read.entry, is_group);
        self.window.push_back(Slot::Ready(Box::new(self.ready(read, group))));
        Ok(())
    }

    /// Notes why there is no entry for a path.
    fn leave_out(&mut self, path: TreePath, full_path: PathBuf, is_group: bool, error: FileError) -> Result<()> {
        match error {
            // A single name that vanished is as if it had been removed before the walk.
            FileError::Vanished if !is_group => {}
            FileError::Vanished | FileError::Unstable => {
                self.lost.insert(path);
                self.troubles.unstable.push(full_path);
            }
            FileError::Unreadable(e) => {
                self.lost.insert(path.clone());
                self.report.unreadable.push(path);
                self.troubles.unreadable(full_path, e);
            }
            FileError::Fatal(e) => return Err(e),
        }
        Ok(())
    }

    fn take_file(&mut self, found: Found, basis: Option<Vec<u8>>, is_group: bool) -> Result<()> {
        let ticket = self.first_ticket + self.window.len() as u64;
        self.window.push_back(Slot::Waiting {
            path: found.path.clone(),
            full_path: found.full_path(),
            basis,
            group: is_group.then(|| inode_id(&found.stat)),
        });
        let same_dir = |last: &FileJob| match (&last.found.parent, &found.parent) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if !self.batch.last().is_some_and(same_dir) {
            self.batch_dirs += 1;
        }
        self.batch_bytes += found.stat.size;
        if !self.counted_first {
            self.shared.progress.expect(0, found.stat.size);
        }
        self.batch.push(FileJob { ticket, found });
        self.outstanding += 1;
        let is_full =
            self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES || self.batch_dirs >= BATCH_DIRS;
        if is_full { self.flush_batch() } else { Ok(()) }
    }

    /// Hands the batch to the workers; while their queue is full, takes what they have done.
    fn flush_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = Batch { xattrs: Arc::clone(&self.xattrs), jobs: std::mem::take(&mut self.batch) };
        (self.batch_bytes, self.batch_dirs) = (0, 0);
        loop {
            match self.jobs.try_send(batch) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => batch = back,
                // The workers are gone; the first of them says why.
                Err(TrySendError::Disconnected(_)) => return Err(Error::Interrupted),
            }
            self.wait_for_one()?;
        }
    }

    /// Takes at least one finished file, and all that are there.
    fn wait_for_one(&mut self) -> Result<()> {
        if self.outstanding == 0 {
            return self.emit_ready();
        }
        let done = self.done.recv().map_err(|_| Error::Interrupted)?;
        self.take_done(done)?;
        self.emit_ready()
    }

    fn take_done(&mut self, done: FileDone) -> Result<()> {
        self.outstanding -= 1;
        let at = usize::try_from(done.ticket - self.first_ticket).expect("inside the window");
        let Slot::Waiting { path, full_path, basis, group } = std::mem::replace(&mut self.window[at], Slot::Empty)
        else {
            unreachable!("each ticket comes back once");
        };
        // Another inode under this name is not the one that further names refer to.
        let outcome = match (done.outcome, group) {
            (Ok(read), Some(walked)) if inode_id(&read.stat) != walked => Err(FileError::Unstable),
            (outcome, _) => outcome,
        };
        match outcome {
            Ok(read) => {
                self.report.files_read += 1;
                if let Node::Inode(inode) = &read.entry.node
                    && let InodeKind::File(content) = &inode.kind
                {
                    self.report.bytes_read += content.size;
                }
                if read.unstable {
                    self.report.unstable.push(path);
                }
                self.owners.add_acls(&read.entry);
                self.is_stale = true;
                self.count(basis.as_deref(), &read.encoded);
                let group = group_of(&read.entry, group.is_some());
                self.window[at] = Slot::Ready(Box::new(self.ready(read, group)));
            }
            Err(error) => self.leave_out(path, full_path, group.is_some(), error)?,
        }
        Ok(())
    }

    /// Counts an entry by what the parent has at its path.
    fn count(&mut self, basis: Option<&[u8]>, new: &[u8]) {
        match basis {
            None => self.report.added += 1,
            Some(basis) if basis != new => self.report.changed += 1,
            Some(_) => {}
        }
    }

    fn ready(&self, read: ReadEntry, group: Option<Group>) -> Ready {
        // What was read counts, not what the file has grown to since.
        let (is_file, size) = match &read.entry.node {
            Node::Inode(Inode { kind: InodeKind::File(content), .. }) => (true, content.size),
            _ => (read.stat.file_type == FileType::File, 0),
        };
        Ready {
            path: read.entry.path,
            encoded: read.encoded,
            fingerprint: if read.unstable { None } else { Fingerprint::settled(&read.stat, self.start) },
            is_file,
            size,
            owner: (read.stat.uid, read.stat.gid),
            group,
        }
    }

    /// Moves the window's finished front to the manifest.
    fn emit_ready(&mut self) -> Result<()> {
        while let Ok(done) = self.done.try_recv() {
            self.take_done(done)?;
        }
        while let Some(Slot::Ready(_) | Slot::Empty) = self.window.front() {
            self.first_ticket += 1;
            if let Some(Slot::Ready(ready)) = self.window.pop_front() {
                self.emit(&ready)?;
            }
        }
        Ok(())
    }

    fn emit(&mut self, ready: &Ready) -> Result<()> {
        let mut is_further_name = false;
        match &ready.group {
            Some(Group::Further(first)) if self.lost.contains(first) => return Ok(()),
            Some(Group::Further(first)) => {
                is_further_name = true;
                self.names.entry(first.clone()).and_modify(|names| names.found += 1);
            }
            Some(Group::First(recorded)) => {
                self.names.insert(ready.path.clone(), Names { recorded: *recorded, found: 1 });
            }
            None => {}
        }
        self.owners.users.insert(ready.owner.0);
        self.owners.groups.insert(ready.owner.1);
        self.report.entries += 1;
        if ready.is_file && !is_further_name {
            self.report.files += 1;
            self.report.bytes += ready.size;
        }
        self.cache.push(RecordState::Current, ready.fingerprint.as_ref(), &ready.encoded)?;
        self.builder.push(&ready.path, &ready.encoded)
    }

    /// Builds the manifest again with the right number of names for groups of which some lie outside the area. Their
    /// number is known only when the whole area has come by.
    fn correct_links(&mut self) -> Result<()> {
        let dir = self.cache_dir.clone();
        let wrong = std::mem::replace(&mut self.cache, CacheWriter::create(&dir)?);
        self.builder = ManifestBuilder::new(Packing::new(self.shared)?);
        for record in wrong.into_records()? {
            let mut record = record?;
            let path = record.path()?;
            if let Some(names) = self.names.get(&path) {
                let mut entry = record.decode()?;
                if let Node::Inode(inode) = &mut entry.node {
                    inode.links = names.found;
                }
                record.entry.clear();
                entry.encode_into(&mut record.entry);
            }
            self.cache.push(record.state, record.fingerprint.as_ref(), &record.entry)?;
            self.builder.push(&path, &record.entry)?;
        }
        Ok(())
    }

    fn finish(mut self, cache_path: PathBuf) -> Result<AreaResult> {
        self.flush_batch()?;
        while !self.window.is_empty() {
            self.wait_for_one()?;
        }
        let forgotten = self.old.take().map_or(Ok(0), OldRecords::unmet)?;
        self.report.removed = match self.basis.take() {
            Some(basis) => basis.unmet()?,
            None => forgotten,
        };
        let users = names_of(&self.owners.users, fsio::owner_name, "/etc/passwd")?;
        let groups = names_of(&self.owners.groups, fsio::group_name, "/etc/group")?;
        self.names.retain(|_, names| names.recorded != names.found);
        if !self.names.is_empty() {
            self.correct_links()?;
        }
        let built = self.builder.finish(users, groups)?;
        use std::os::unix::ffi::OsStrExt;
        let snapshot_area = SnapshotArea {
            name: self.area.spec.name.clone(),
            root: self.area.root.as_os_str().as_bytes().to_vec(),
            rules: self.area.spec.rules.clone(),
            manifest: built.id,
            manifest_len: built.len,
            entries: built.entries,
            files: self.report.files,
            bytes: self.report.bytes,
            unstable: self.report.unstable.len() as u64,
        };
        let is_stale = self.is_stale || forgotten > 0;
        let cache = PendingCache { writer: self.cache, path: cache_path, manifest: built.id, is_stale };
        Ok(AreaResult { snapshot_area, report: self.report, cache: Some(cache) })
    }
}

type NameOf = fn(u32) -> std::io::Result<Option<Vec<u8>>>;

/// Names of ids, where there are any. A database that cannot be asked is not one without names.
fn names_of(ids: &BTreeSet<u32>, name: NameOf, database: &str) -> Result<BTreeMap<u32, Vec<u8>>> {
    let mut names = BTreeMap::new();
    for id in ids {
        let name = name(*id).map_err(|e| Error::io("look up an id in", database, e))?;
        names.extend(name.map(|name| (*id, name)));
    }
    Ok(names)
}

/// A first member as it is read says how many names the inode has anywhere; names outside the area do not count. If the
/// walk saw several, further ones may come even if the inode has lost them since.
fn group_of(entry: &Entry, had_several_names: bool) -> Option<Group> {
    let links = recorded_links(entry);
    (had_several_names || links > 1).then_some(Group::First(links))
}

fn recorded_links(entry: &Entry) -> u32 {
    match &entry.node {
        Node::Inode(inode) => inode.links,
        Node::Link { .. } => 1,
    }
}

/// Whether the cache proves that the inode's entry is still right.
fn is_unchanged(old: &CacheRecord, stat: &Stat, is_group: bool) -> Result<bool> {
    if old.state != RecordState::Current || old.fingerprint != Some(Fingerprint::of(stat)) {
        return Ok(false);
    }
    // A first member may have been a further name when it was recorded.
    Ok(!is_group || matches!(old.decode()?.node, Node::Inode(_)))
}

/// Whether an encoded entry has an ACL, which may name users and groups; without decoding it.
fn may_name_others(encoded: &[u8]) -> bool {
    const ACL_KEYS: std::ops::RangeInclusive<u64> = 15..=16;
    let mut decoder = minicbor::Decoder::new(encoded);
    let Ok(Some(pairs)) = decoder.map() else { return true };
    for _ in 0..pairs {
        match decoder.u64() {
            Ok(key) if ACL_KEYS.contains(&key) => return true,
            Ok(_) if decoder.skip().is_ok() => {}
            _ => return true,
        }
    }
    false
}
