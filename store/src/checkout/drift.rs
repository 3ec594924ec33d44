// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is different in a live tree from what was last applied to it.
//!
//! [`status`] trusts fingerprints and judges by size and mtime where it can; [`verify`] reads every byte.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::PathBuf;

use super::compare::{Difference, differences, file_type, metadata_differences};
use super::fidelity::{Fidelity, Here, Losses};
use super::live::LiveArea;
use super::merge::{AppliedEntry, LiveTree};
use super::options::AreaTarget;
use super::record::read_all;
use super::refuse;
use super::state::{AreaRoot, Marker, applied_path, state_path};
use super::transaction::{self, JournalState};
use crate::area::{self, RuleSet, Verdict};
use crate::error::{Error, Result};
use crate::files_cache::{CacheReader, Fingerprint};
use crate::format::manifest::{Entry, Inode, InodeKind, Node};
use crate::format::snapshot::AreaRules;
use crate::id::SnapshotId;
use crate::manifest::Manifest;
use crate::path::TreePath;
use crate::progress::Progress;
use crate::store::Store;
use crate::walk::Found;

/// What to look at.
#[derive(Debug, Clone)]
pub struct StatusOptions {
    /// Areas on this machine.
    pub areas: Vec<AreaTarget>,
    /// This machine's state directory.
    pub state_dir: PathBuf,
    /// Absolute paths that belong to no area.
    pub protected: Vec<PathBuf>,
}

/// How a path differs from what was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftKind {
    /// Other content, and perhaps other metadata.
    Content(Difference),
    /// Other metadata only.
    Metadata(Difference),
    /// Not there.
    Missing,
    /// Not there, and never delivered: rules of this machine excluded it at the last checkout, and do so no longer.
    Undelivered,
    /// Another kind of inode.
    Type,
    /// Never delivered.
    Stray,
}

impl DriftKind {
    /// For people and records.
    pub fn name(self) -> &'static str {
        match self {
            DriftKind::Content(_) => "content",
            DriftKind::Metadata(_) => "metadata",
            DriftKind::Missing => "missing",
            DriftKind::Undelivered => "undelivered",
            DriftKind::Type => "type",
            DriftKind::Stray => "stray",
        }
    }
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriftEntry {
    /// Relative to the area's root.
    pub path: TreePath,
    /// How.
    pub what: DriftKind,
}

/// One area's part of a [`StatusReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaStatus {
    /// Its name.
    pub name: String,
    /// Its root.
    pub root: PathBuf,
    /// The snapshot it is at; `None` when nothing is checked out here.
    pub applied: Option<SnapshotId>,
    /// An interrupted switch: the tree is a mixture of `applied` and this.
    pub interrupted: Option<SnapshotId>,
    /// The journal of that switch is lost or damaged: it can be neither finished nor taken back.
    pub journal_lost: bool,
    /// Every difference, sorted. Strays are listed, and are no difference from the reference in incremental mode.
    pub drift: Vec<DriftEntry>,
    /// Paths delivered once, dropped from the reference since, and still there.
    pub dropped_delivered: u64,
    /// Entries of the reference and delivered ones looked at.
    pub entries: u64,
    /// Bytes of file content read.
    pub bytes_read: u64,
    /// For people.
    pub warnings: Vec<String>,
}

impl AreaStatus {
    /// Whether everything that was delivered still is as it was.
    pub fn in_sync(&self) -> bool {
        self.applied.is_some()
            && self.interrupted.is_none()
            && self.drift.iter().all(|entry| entry.what == DriftKind::Stray)
    }
}

/// What is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusReport {
    /// One for each area asked for, in that order.
    pub areas: Vec<AreaStatus>,
}

impl StatusReport {
    /// Whether every area is in sync.
    pub fn in_sync(&self) -> bool {
        self.areas.iter().all(AreaStatus::in_sync)
    }
}

/// Compares each area with what was last applied, reading only what its fingerprint does not prove. A regular file of
/// another size or mtime counts as changed content without being read.
///
/// `store` is needed only where the local memory is lost, and for the rules of areas.
///
/// # Errors
/// [`Error::Refused`] for a known area without its marker, or where another area is; [`Error::Io`].
pub fn status(options: &StatusOptions, store: &Store, progress: &Progress) -> Result<StatusReport> {
    look(options, store, progress, false)
}

/// As [`status`], but reads every byte and trusts no fingerprint.
///
/// # Errors
/// As [`status`].
pub fn verify(options: &StatusOptions, store: &Store, progress: &Progress) -> Result<StatusReport> {
    look(options, store, progress, true)
}

fn look(options: &StatusOptions, store: &Store, progress: &Progress, read_all: bool) -> Result<StatusReport> {
    let areas = options.areas.iter().map(|target| look_at_area(options, target, store, progress, read_all));
    Ok(StatusReport { areas: areas.collect::<Result<_>>()? })
}

fn look_at_area(
    options: &StatusOptions,
    target: &AreaTarget,
    store: &Store,
    progress: &Progress,
    read_all: bool,
) -> Result<AreaStatus> {
    let root = AreaRoot::open(&target.name, &target.root, &options.state_dir)?;
    let mut status = AreaStatus {
        name: target.name.clone(),
        root: target.root.clone(),
        applied: None,
        interrupted: None,
        journal_lost: false,
        drift: Vec::new(),
        dropped_delivered: 0,
        entries: 0,
        bytes_read: 0,
        warnings: Vec::new(),
    };
    // Nothing was checked out, or the first checkout was taken back or never finished.
    let at = root.marker.as_ref().and_then(|marker| Some((marker, marker.applied.or(marker.transaction)?)));
    let Some((marker, base)) = at else { return Ok(status) };
    if marker.name != target.name {
        return Err(refuse::other_area(target, &marker.name));
    }
    let (base, applied) = applied_of(options, target, store, marker, base)?;
    status.applied = if marker.transaction.is_some() { marker.applied } else { Some(base) };
    status.interrupted = marker.transaction;
    if marker.transaction.is_some() {
        let journal = transaction::journal_state(&state_path(&options.state_dir, marker.area), marker)?;
        status.journal_lost = journal != JournalState::Fine;
    }
    let rules = rules_of(store, &base, &target.name, &mut status.warnings)?;
    let protected = area::protected_below(&root.path, &options.protected);
    let only_local = AreaRules { exclude: target.exclude.clone(), ..AreaRules::default() };
    let has_local_rules = !target.exclude.is_empty() || !protected.is_empty();
    let local_rules = has_local_rules.then(|| RuleSet::new(&only_local, protected.clone())).transpose()?;
    let rules = RuleSet::new(&rules, protected)?.excluding(&target.exclude)?;
    progress.start(if read_all { "verifying" } else { "comparing" }, 0, 0);
    let live = LiveArea::new(root.dir.as_ref(), &rules, progress)?;
    Look { live, status, local_rules, outside: None, read_all, groups: HashMap::new() }.run(applied)
}

/// Entries, and of each whether it was delivered.
type Applied = Box<dyn Iterator<Item = Result<(AppliedEntry, bool)>>>;

/// What was last applied, and what was excluded then, from memory; or from the store, where it is `base`.
fn applied_of(
    options: &StatusOptions,
    target: &AreaTarget,
    store: &Store,
    marker: &Marker,
    base: SnapshotId,
) -> Result<(SnapshotId, Applied)> {
    if let Some(cache) = CacheReader::open(&applied_path(&options.state_dir, marker.area))? {
        return Ok((cache.header().snapshot, Box::new(read_all(cache))));
    }
    let snapshot = store.snapshot(&base)?;
    let Some(reference) = snapshot.area(&target.name) else { return Ok((base, Box::new(std::iter::empty()))) };
    let reader = store.reader()?;
    let manifest = Manifest::open(&reader, reference)?;
    let here = Here::new(
        manifest.head(),
        target.numeric_owners,
        Fidelity::remembered(&state_path(&options.state_dir, marker.area)),
    );
    let mut losses = Losses::default();
    let entries: Vec<Result<(AppliedEntry, bool)>> = manifest
        .entries()
        .map(|entry| {
            let entry = here.localize(entry?, &mut losses);
            Ok((AppliedEntry { entry, dropped: false, print: None }, true))
        })
        .collect();
    Ok((base, Box::new(entries.into_iter())))
}

/// The area's rules in the applied snapshot.
fn rules_of(store: &Store, base: &SnapshotId, name: &str, warnings: &mut Vec<String>) -> Result<AreaRules> {
    match store.snapshot(base) {
        Ok(snapshot) => Ok(snapshot.area(name).map(|area| area.rules.clone()).unwrap_or_default()),
        Err(Error::UnknownSnapshot { .. }) => {
            warnings.push(format!("the store does not have {}; its rules are not known", base.short(12)));
            Ok(AreaRules::default())
        }
        Err(e) => Err(e),
    }
}

struct Look<'a> {
    live: LiveArea<'a>,
    status: AreaStatus,
    /// Rules that only this machine has, as they are now.
    local_rules: Option<RuleSet>,
    /// What they excluded last, and with it everything in it.
    outside: Option<TreePath>,
    read_all: bool,
    /// Hard-link groups: the inode that was applied and, once seen, the live one.
    groups: HashMap<TreePath, (Inode, Option<u64>)>,
}

impl Look<'_> {
    fn run(mut self, mut applied: Applied) -> Result<AreaStatus> {
        let mut next_applied = self.next_inside(&mut applied)?;
        let mut next_live = self.live.next()?;
        // Below something that is not what was applied, nothing is missing by itself.
        let mut gone: Option<TreePath> = None;
        loop {
            let order = match (&next_applied, &next_live) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((record, _)), Some(found)) => record.entry.path.cmp(&found.path),
            };
            let record = if order.is_le() {
                let after = self.next_inside(&mut applied)?;
                std::mem::replace(&mut next_applied, after)
            } else {
                None
            };
            let found = if order.is_ge() { next_live.take() } else { None };
            if found.is_some() {
                next_live = self.live.next()?;
            }
            match (record, found) {
                (Some((record, _)), Some(found)) => {
                    let path = record.entry.path.clone();
                    if self.both(record, &found)? {
                        gone = Some(path);
                    }
                }
                (Some((record, is_delivered)), None) => {
                    let below_gone = gone.as_ref().is_some_and(|gone| record.entry.path.starts_with(gone));
                    let inode = self.resolve(&record);
                    if record.dropped {
                        continue;
                    }
                    self.status.entries += 1;
                    if below_gone {
                        continue;
                    }
                    if inode.is_none_or(|inode| inode.kind == InodeKind::Directory) {
                        gone = Some(record.entry.path.clone());
                    }
                    let what = if is_delivered { DriftKind::Missing } else { DriftKind::Undelivered };
                    self.differs(record.entry.path, what);
                }
                (None, Some(found)) if found.mount_point => {
                    let warning =
                        format!("another file system is mounted at {}, and no checkout looks into it", found.path);
                    self.status.warnings.push(warning);
                    self.differs(found.path, DriftKind::Stray);
                }
                (None, Some(found)) if found.passage => {}
                (None, Some(found)) => self.differs(found.path, DriftKind::Stray),
                (None, None) => {}
            }
        }
        let beyond = self.live.beyond().iter();
        self.status.warnings.extend(
            beyond.map(|path| format!("something in {path} lies deeper than any path may; it was not looked at")),
        );
        Ok(self.status)
    }

    /// The next entry that rules of this machine do not exclude: what they do is outside the area, and never reported.
    fn next_inside(&mut self, applied: &mut Applied) -> Result<Option<(AppliedEntry, bool)>> {
        for next in applied {
            let (record, is_delivered) = next?;
            if !self.is_outside(&record.entry) {
                return Ok(Some((record, is_delivered)));
            }
            // It may be the first name of a group that has others inside.
            self.resolve(&record);
        }
        Ok(None)
    }

    fn is_outside(&mut self, entry: &Entry) -> bool {
        let Some(rules) = &self.local_rules else { return false };
        if self.outside.as_ref().is_some_and(|outside| entry.path.starts_with(outside)) {
            return true;
        }
        let is_dir = matches!(&entry.node, Node::Inode(inode) if inode.kind == InodeKind::Directory);
        let is_outside = rules.verdict_on_walk(&entry.path, is_dir) == Verdict::Excluded;
        if is_outside {
            self.outside = Some(entry.path.clone());
        }
        is_outside
    }

    fn differs(&mut self, path: TreePath, what: DriftKind) {
        self.status.drift.push(DriftEntry { path, what });
    }

    /// The inode that a record stands for.
    fn resolve(&mut self, record: &AppliedEntry) -> Option<Inode> {
        match &record.entry.node {
            Node::Inode(inode) => {
                if inode.links > 1 {
                    self.groups.insert(record.entry.path.clone(), (inode.clone(), None));
                }
                Some(inode.clone())
            }
            Node::Link { first } => self.groups.get(first).map(|(inode, _)| inode.clone()),
        }
    }

    /// Compares what was delivered with what is there. Gives whether a directory was delivered and none is there.
    fn both(&mut self, record: AppliedEntry, found: &Found) -> Result<bool> {
        let inode = self.resolve(&record);
        if record.dropped {
            self.status.dropped_delivered += 1;
            return Ok(false);
        }
        self.status.entries += 1;
        let Some(inode) = inode else { return Ok(false) };
        let path = record.entry.path.clone();
        let mut difference = self.compare(&record, &inode, found)?;
        difference.set_if(self.is_split(&record, found), Difference::LINKS);
        if difference.is_none() {
            return Ok(false);
        }
        let what = if difference.has(Difference::KIND) {
            DriftKind::Type
        } else if difference.has(Difference::CONTENT) {
            DriftKind::Content(difference)
        } else {
            DriftKind::Metadata(difference)
        };
        self.differs(path, what);
        Ok(what == DriftKind::Type && inode.kind == InodeKind::Directory)
    }

    fn compare(&mut self, record: &AppliedEntry, inode: &Inode, found: &Found) -> Result<Difference> {
        let print = record.print.as_ref();
        let proven = print.is_some_and(|print| *print == Fingerprint::of(&found.stat));
        if found.mount_point || found.stat.file_type != file_type(&inode.kind) {
            return Ok(Difference::KIND);
        }
        if proven && !self.read_all {
            return Ok(Difference::none());
        }
        let live = self.live.metadata(found)?;
        let InodeKind::File(content) = &inode.kind else { return Ok(differences(&live, inode)) };
        let mut difference = metadata_differences(&live, inode);
        let same_size = content.size == found.stat.size;
        // Whoever changed the time has most likely written; `verify` tells for certain.
        let believed_changed = !self.read_all && print.is_some() && difference.has(Difference::MTIME);
        if !same_size || believed_changed {
            difference.set_if(true, Difference::CONTENT);
            return Ok(difference);
        }
        let hash = self.live.content_hash(found)?;
        self.status.bytes_read += content.size;
        difference.set_if(hash != content.hash, Difference::CONTENT);
        Ok(difference)
    }

    /// Whether a name that should share its group's inode has another.
    fn is_split(&mut self, record: &AppliedEntry, found: &Found) -> bool {
        let first = match &record.entry.node {
            Node::Inode(_) => &record.entry.path,
            Node::Link { first } => first,
        };
        match self.groups.get_mut(first) {
            None => false,
            Some((_, live @ None)) => {
                *live = Some(found.stat.ino);
                false
            }
            Some((_, Some(ino))) => *ino != found.stat.ino,
        }
    }
}
