// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A live tree becomes a snapshot.
//!
//! ```text
//!  walk → (files cache) → read → chunk → hash → look up → compress → pack → segment → manifest → locator → snapshot
//! ```
//!
//! [`pipeline`] drives the threads, [`mod@file`] reads one file, [`known`] answers "is this chunk new?", [`area`] merges a walk
//! with the files cache into a manifest, [`segments`] says what of the index may be believed, [`index`] adds to it,
//! [`publish`] writes in dependency order. Memory is bounded by the queues and by
//! the set of chunk ids, not by the size of files.

mod area;
mod file;
pub(crate) mod index;
pub(crate) mod known;
pub(crate) mod locator;
mod old;
mod other;
mod packages;
mod pipeline;
pub(crate) mod publish;
pub(crate) mod segments;
mod trusted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::area::{AreaSpec, check_name};
use crate::checkout::{self, Standing};
use crate::error::{Error, Result};
use crate::format::manifest::Timestamp;
use crate::format::snapshot::{Snapshot, SnapshotArea};
use crate::fsio;
use crate::id::SnapshotId;
use crate::path::TreePath;
use crate::progress::Progress;
pub use crate::segment::SegmentLimits;
use crate::store::Store;

/// Which snapshot a commit follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParentChoice {
    /// The newest one in the store, if there is one.
    #[default]
    Latest,
    /// This one.
    Id(SnapshotId),
    /// None: the first of a new line.
    None,
}

/// How to commit.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// What to commit. Names and roots are distinct, no root lies in another.
    pub areas: Vec<AreaSpec>,
    /// The committer's words.
    pub message: String,
    /// `user@host`.
    pub author: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// The snapshot before this one.
    pub parent: ParentChoice,
    /// zstd level.
    pub level: i32,
    /// Record files that change while they are read, marked as such, instead of failing.
    pub allow_changing: bool,
    /// Leave out what cannot be read, and report it, instead of failing.
    pub skip_unreadable: bool,
    /// Read and count, but store nothing.
    pub dry_run: bool,
    /// Count the tree beforehand so that progress has totals.
    pub estimate: bool,
    /// Local memory: locks, files cache.
    pub state_dir: PathBuf,
    /// Absolute paths that never belong to an area: the program, its configuration.
    pub protected: Vec<PathBuf>,
    /// Worker threads; 0 = one per core.
    pub threads: usize,
    /// When the commit counts as made; `None` = now.
    pub time: Option<Timestamp>,
    /// How much one segment of the index may list.
    pub segment_limits: SegmentLimits,
}

impl CommitOptions {
    /// Commits `areas` with everything else as usual.
    pub fn new(areas: Vec<AreaSpec>, state_dir: &Path) -> CommitOptions {
        CommitOptions {
            areas,
            message: String::new(),
            author: String::new(),
            labels: BTreeMap::new(),
            parent: ParentChoice::Latest,
            level: DEFAULT_LEVEL,
            allow_changing: false,
            skip_unreadable: false,
            dry_run: false,
            estimate: false,
            state_dir: state_dir.to_path_buf(),
            protected: Vec::new(),
            threads: 0,
            time: None,
            segment_limits: SegmentLimits::default(),
        }
    }
}

/// zstd level of a commit that names none.
pub const DEFAULT_LEVEL: i32 = 3;

/// What a commit did with one area.
#[derive(Debug, Clone, Default)]
pub struct AreaCommit {
    /// Its name.
    pub name: String,
    /// Entries of the new manifest, the root included.
    pub entries: u64,
    /// Regular files among them; further names of a hard-link group do not count.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Paths that the parent does not have.
    pub added: u64,
    /// Paths whose entry differs from the parent's.
    pub changed: u64,
    /// Paths of the parent that are gone.
    pub removed: u64,
    /// Files whose content was read.
    pub files_read: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// Paths that the rules exclude; what lies below an excluded directory is not counted.
    pub excluded: u64,
    /// Host identity and secrets that were left out.
    pub identity: Vec<TreePath>,
    /// Mount points, which need areas of their own.
    pub mount_points: Vec<TreePath>,
    /// Device nodes left out because the area's rules do not allow them.
    pub devices: Vec<TreePath>,
    /// Sockets left out: they belong to running processes.
    pub sockets: Vec<TreePath>,
    /// Files that changed while they were read (`allow_changing`).
    pub unstable: Vec<TreePath>,
    /// What could not be read (`skip_unreadable`).
    pub unreadable: Vec<TreePath>,
}

/// What a commit did.
#[derive(Debug, Clone)]
pub struct CommitReport {
    /// The new snapshot, or the parent when nothing changed; `None` for a dry run that would store something.
    pub snapshot: Option<SnapshotId>,
    /// Whether a snapshot was made (or, in a dry run, would be).
    pub is_new: bool,
    /// The snapshot before it.
    pub parent: Option<SnapshotId>,
    /// In order of name.
    pub areas: Vec<AreaCommit>,
    /// Areas of the parent that are not among these: the snapshot does not have them.
    pub dropped_areas: Vec<String>,
    /// Chunks that the store did not have.
    pub new_chunks: u64,
    /// Their plain bytes.
    pub new_plain_bytes: u64,
    /// Bytes that the commit added to the store, everything included.
    pub stored_bytes: u64,
    /// Wall time.
    pub seconds: f64,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

impl CommitReport {
    /// Entries of all areas.
    pub fn entries(&self) -> u64 {
        self.areas.iter().map(|area| area.entries).sum()
    }

    /// Regular files of all areas.
    pub fn files(&self) -> u64 {
        self.areas.iter().map(|area| area.files).sum()
    }

    /// Bytes of all areas.
    pub fn bytes(&self) -> u64 {
        self.areas.iter().map(|area| area.bytes).sum()
    }
}

/// Commits the areas as one snapshot.
///
/// When no area differs from the parent, no snapshot is made and the report says so.
///
/// # Errors
/// [`Error::Area`] for an area that cannot be committed; [`Error::Refused`] for one in the middle of a switch, and for one
/// that a checkout changes meanwhile; [`Error::Unreadable`] and [`Error::Unstable`] naming every file;
/// [`Error::Unsupported`]; [`Error::Locked`]; [`Error::Interrupted`]; [`Error::Io`]; kind [`crate::ErrorKind::Damaged`]
/// when the parent is lost or damaged. After an error the store is as it was, but for unreferenced packs.
pub fn commit(store: &Store, options: &CommitOptions, progress: &Progress) -> Result<CommitReport> {
    let started = Instant::now();
    let areas = checked_areas(store, options)?;
    let standings = whole(&areas)?;
    let _lock = match options.dry_run {
        true => store.lock_dry_run(&options.state_dir)?,
        false => store.lock_writer(&options.state_dir)?,
    };
    let parent_id = match options.parent {
        ParentChoice::Latest => store.latest()?,
        ParentChoice::Id(id) => Some(id),
        ParentChoice::None => None,
    };
    let parent = parent_id.map(|id| store.snapshot(&id).map(|snapshot| (id, snapshot))).transpose()?;
    let time = options.time.unwrap_or_else(fsio::now);

    let mut segments = segments::LiveSegments::open(store, options)?;
    let mut warnings = std::mem::take(&mut segments.notes);
    let known = known::KnownChunks::new(segments.segments, segments.live_packs);
    let reader = parent.as_ref().map(|_| store.reader()).transpose()?;
    let parent_areas = match (&parent, &reader) {
        (Some((_, parent)), Some(reader)) => Some((parent, reader)),
        _ => None,
    };
    let results = pipeline::run(store, &areas, options, &known, parent_areas, progress)?;
    if let Some((area, _)) = areas.iter().zip(whole(&areas)?.iter().zip(&standings)).find(|(_, (now, was))| now != was)
    {
        let (name, root) = (&area.spec.name, area.root.display());
        return Err(Error::Refused {
            reason: format!("area `{name}` at {root} was changed by a checkout or rollback while it was committed"),
            hint: Some("commit it again".into()),
        });
    }

    let snapshot = Snapshot {
        parent: parent_id,
        depth: parent.as_ref().map_or(0, |(_, parent)| parent.depth + 1),
        time,
        author: options.author.clone(),
        message: options.message.clone(),
        labels: options.labels.clone(),
        areas: results.areas.iter().map(|area| area.snapshot_area.clone()).collect(),
        chunker: store.format().chunker,
    };
    let is_new = parent.as_ref().is_none_or(|(_, parent)| !same_areas(&parent.areas, &snapshot.areas));
    let mut report = CommitReport {
        snapshot: if is_new { None } else { parent_id },
        is_new,
        parent: parent_id,
        areas: results.areas.iter().map(|area| area.report.clone()).collect(),
        dropped_areas: dropped_areas(parent.as_ref().map(|(_, parent)| parent), &snapshot),
        new_chunks: results.new_chunks,
        new_plain_bytes: results.new_plain_bytes,
        stored_bytes: 0,
        seconds: 0.0,
        warnings: Vec::new(),
    };
    warnings.extend(report.areas.iter().flat_map(area_warnings));
    warnings.extend(report.dropped_areas.iter().map(|name| {
        format!(
            "area `{name}` of the parent is not in this snapshot, for it was not committed; commit all areas together"
        )
    }));
    if is_new {
        warnings.extend(packages::warnings(&areas)?);
    }
    if !options.dry_run {
        let publication = publish::Publication { store, options, parent: parent.as_ref(), known: &known };
        let published = publication.run(is_new.then_some(&snapshot), results, progress)?;
        report.snapshot = published.snapshot.or(report.snapshot);
        report.stored_bytes = published.stored_bytes;
        warnings.extend(published.warnings);
    }
    report.warnings = warnings;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Whether nothing that a checkout would see differs.
fn same_areas(before: &[SnapshotArea], after: &[SnapshotArea]) -> bool {
    before.len() == after.len()
        && before
            .iter()
            .zip(after)
            .all(|(a, b)| a.name == b.name && a.manifest == b.manifest && a.rules == b.rules && a.root == b.root)
}

fn dropped_areas(parent: Option<&Snapshot>, snapshot: &Snapshot) -> Vec<String> {
    let before = parent.iter().flat_map(|parent| &parent.areas);
    before.filter(|area| snapshot.area(&area.name).is_none()).map(|area| area.name.clone()).collect()
}

fn area_warnings(area: &AreaCommit) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut list = |what: &str, paths: &[TreePath]| {
        if !paths.is_empty() {
            let shown: Vec<String> = paths.iter().take(5).map(TreePath::to_string).collect();
            let more = if paths.len() > shown.len() {
                format!(" and {} more", paths.len() - shown.len())
            } else {
                String::new()
            };
            warnings.push(format!("area `{}`: {what}: {}{more}", area.name, shown.join(", ")));
        }
    };
    list("mount points left out (each needs an area of its own)", &area.mount_points);
    list("device nodes left out (the area's rules do not allow them)", &area.devices);
    list("unreadable, left out", &area.unreadable);
    list("changed while being read", &area.unstable);
    list("sockets left out (each is made by the program that listens on it)", &area.sockets);
    warnings
}

/// An area whose root was found and opened.
#[derive(Debug)]
struct OpenArea {
    spec: AreaSpec,
    /// Absolute, without symlinks.
    root: PathBuf,
    dir: fsio::Dir,
}

/// Opens every area's root and refuses what cannot be committed together.
fn checked_areas(store: &Store, options: &CommitOptions) -> Result<Vec<OpenArea>> {
    if options.areas.is_empty() {
        return Err(Error::Refused {
            reason: "there is no area to commit".into(),
            hint: Some("name one with --area NAME=PATH or in the configuration".into()),
        });
    }
    let mut areas = Vec::with_capacity(options.areas.len());
    for spec in &options.areas {
        check_name(&spec.name)?;
        let fail = |reason: String| Error::Area { area: spec.name.clone(), path: spec.root.clone(), reason };
        let root = fsio::canonicalize(&spec.root).map_err(|e| fail(io_reason(&e)))?;
        let dir = fsio::Dir::open(&root).map_err(|e| fail(io_reason(&e)))?;
        for (own, what) in [(store.path(), "the store"), (&options.state_dir, "the state directory")] {
            if fsio::canonicalize(own).is_ok_and(|own| root.starts_with(own)) {
                return Err(fail(format!("lies in {what}")));
            }
        }
        areas.push(OpenArea { spec: spec.clone(), root, dir });
    }
    areas.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    for (at, area) in areas.iter().enumerate() {
        for other in &areas[at + 1..] {
            let clash = if area.spec.name == other.spec.name {
                Some("is named twice".to_string())
            } else if area.root.starts_with(&other.root) || other.root.starts_with(&area.root) {
                Some(format!("overlaps with area `{}`; areas never nest", other.spec.name))
            } else {
                None
            };
            if let Some(reason) = clash {
                return Err(Error::Area { area: area.spec.name.clone(), path: area.root.clone(), reason });
            }
        }
    }
    Ok(areas)
}

/// How each area stands that something is checked out to. One in the middle of a switch is a mixture of two snapshots, which
/// nobody wants to have as a third.
fn whole(areas: &[OpenArea]) -> Result<Vec<Option<Standing>>> {
    let of = |area: &OpenArea| {
        // A marker that cannot be understood says nothing of a switch.
        let standing = checkout::standing(&area.root).ok().flatten();
        if standing.is_none_or(|standing| standing.switching.is_none()) {
            return Ok(standing);
        }
        let (name, root) = (&area.spec.name, area.root.display());
        Err(Error::Refused {
            reason: format!("area `{name}` at {root} is in the middle of a switch: it is a mixture of two snapshots"),
            hint: Some(
                "`evenkeel recover` goes on, `evenkeel rollback` goes back; if a checkout is at work there, wait for it"
                    .into(),
            ),
        })
    };
    areas.iter().map(of).collect()
}

fn io_reason(error: &Error) -> String {
    match error {
        Error::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => "does not exist".into(),
            std::io::ErrorKind::NotADirectory => "is not a directory".into(),
            std::io::ErrorKind::PermissionDenied => "cannot be read: permission denied".into(),
            _ => source.to_string(),
        },
        other => other.to_string(),
    }
}
