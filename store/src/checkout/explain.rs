// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why one path is as it is: what it should be, which snapshot brought that, what is there now, and who changed it here.
//!
//! Costs one lookup in the manifest of each ancestor whose area differs from the next one's, and the content of one file.

mod excluded;

use std::path::Path;

use super::chain::{DirChain, is_other_now};
use super::change_record::{ChangeLine, HeaderLine, last_change};
use super::compare::{Difference, differences};
use super::drift::StatusOptions;
use super::fidelity::{Fidelity, Here, Losses};
use super::options::AreaTarget;
use super::record::read_applied;
use super::refuse;
use super::state::{AreaRoot, Marker, applied_path, state_path};
use super::who::{ChangedBy, who_changed};
use crate::area::{self, RuleSet};
use crate::error::{Error, Result};
use crate::files_cache::CacheReader;
use crate::format::manifest::{ChunkList, Entry, FileContent, Inode, InodeKind, Node, Timestamp};
use crate::format::snapshot::SnapshotArea;
use crate::id::{ChunkId, SnapshotId};
use crate::inode::{self, UnknownXattrs};
use crate::manifest::Manifest;
use crate::path::TreePath;
use crate::progress::Progress;
use crate::read::ChunkReader;
use crate::store::Store;

pub use excluded::{Exclusion, ExclusionKind};

/// A snapshot, as far as a person needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotNote {
    /// Which.
    pub id: SnapshotId,
    /// When the commit began.
    pub time: Timestamp,
    /// The committer's words.
    pub message: String,
    /// `user@host`.
    pub author: String,
}

/// What is at a path now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Now {
    /// What should be there.
    Same,
    /// Something else than should be.
    Differs(Difference),
    /// Nothing, and something should be.
    Missing,
    /// Something that no snapshot delivered.
    Stray,
    /// Something that was delivered once, and that the applied snapshot does not have any more.
    Dropped,
    /// It does not belong to the area here.
    Excluded(Exclusion),
    /// The snapshot has it, and it cannot be here or is not delivered by rule.
    NeverDelivered,
    /// Nothing, and nothing should be.
    Absent,
}

/// What is known of one path.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The snapshot that the area is at; `None` before the first checkout has ended.
    pub applied: Option<SnapshotId>,
    /// The snapshot that an interrupted switch was making of it.
    pub interrupted: Option<SnapshotId>,
    /// What it should be, in this machine's owners; `None` when the applied snapshot does not have it.
    pub wanted: Option<Inode>,
    /// The newest snapshot in which it became what it should be, or in which it went.
    pub brought_by: Option<SnapshotNote>,
    /// The oldest snapshot that has it.
    pub first_in: Option<SnapshotNote>,
    /// The store does not have all ancestors, so that both may be older than they seem.
    pub history_is_cut: bool,
    /// What is there now, compared with that.
    pub now: Now,
    /// What is there now.
    pub live: Option<Inode>,
    /// Who changed it, as far as the file system tells.
    pub changed_by: ChangedBy,
    /// The newest record of a checkout or rollback that changed it here.
    pub last_record: Option<(HeaderLine, ChangeLine)>,
}

/// Explains `path` of the one area of `options`.
///
/// # Errors
/// [`Error::Refused`] where nothing was ever checked out, or another area is; damaged objects; [`Error::Io`].
pub fn explain(options: &StatusOptions, store: &Store, path: &TreePath, progress: &Progress) -> Result<Explanation> {
    let target = &options.areas[0];
    let root = AreaRoot::open(&target.name, &target.root, &options.state_dir)?;
    let marker = root.marker.as_ref().ok_or_else(|| Error::Refused {
        reason: format!("nothing was ever checked out to {}", target.root.display()),
        hint: Some("check --area and the configuration".into()),
    })?;
    if marker.name != target.name {
        return Err(refuse::other_area(target, &marker.name));
    }
    let state = state_path(&options.state_dir, marker.area);
    let (base, recorded) = recorded(options, marker, path)?;
    let reader = store.reader()?;
    let story = Story::of(store, &reader, &target.name, &base, path)?;
    let rules = rules(options, target, &root.path, story.area.as_ref())?;
    let wanted = match (&story.area, story.entry) {
        (Some(area), Some(entry)) => localized(&reader, area, target, &state, entry)?,
        _ => None,
    };
    let live = match &root.dir {
        Some(dir) => live(dir, path, &rules, wanted.as_ref(), progress)?,
        None => None,
    };
    let excluded = excluded::find(target, story.area.as_ref().map(|area| &area.rules), &rules, path, live.as_ref());
    let was_delivered = recorded.map(|dropped| !dropped);
    let now = match (&wanted, &live, excluded) {
        (_, _, Some(exclusion)) => Now::Excluded(exclusion),
        (Some(_), None, None) if was_delivered.is_none() => Now::NeverDelivered,
        (Some(_), None, None) => Now::Missing,
        (Some(wanted), Some(live), None) => match differences(live, wanted) {
            none if none.is_none() => Now::Same,
            other => Now::Differs(other),
        },
        (None, Some(_), None) if recorded == Some(true) => Now::Dropped,
        (None, Some(_), None) => Now::Stray,
        (None, None, None) => Now::Absent,
    };
    Ok(Explanation {
        applied: if marker.transaction.is_some() { marker.applied } else { Some(base) },
        interrupted: marker.transaction,
        wanted,
        brought_by: story.brought_by,
        first_in: story.first_in,
        history_is_cut: story.is_cut,
        now,
        live,
        changed_by: who_changed(&root.path, &[path]).pop().unwrap_or_default(),
        last_record: last_change(&state, path)?,
    })
}

/// The snapshot of the area's memory, and whether that says of `path` that it was dropped; `None` when it has none of it.
fn recorded(options: &StatusOptions, marker: &Marker, path: &TreePath) -> Result<(SnapshotId, Option<bool>)> {
    let Some(cache) = CacheReader::open(&applied_path(&options.state_dir, marker.area))? else {
        let base = marker.applied.or(marker.transaction).ok_or_else(|| Error::Refused {
            reason: format!(
                "nothing is checked out to area `{}`: its first checkout was taken back, or never finished",
                marker.name
            ),
            hint: Some("check it out again".into()),
        })?;
        return Ok((base, Some(false)));
    };
    let base = cache.header().snapshot;
    for applied in read_applied(cache) {
        let applied = applied?;
        if applied.entry.path >= *path {
            return Ok((base, (applied.entry.path == *path).then_some(applied.dropped)));
        }
    }
    Ok((base, None))
}

/// How a path came to be what it is, over the ancestors of a snapshot.
struct Story {
    /// The area in the snapshot that is applied.
    area: Option<SnapshotArea>,
    entry: Option<Entry>,
    brought_by: Option<SnapshotNote>,
    first_in: Option<SnapshotNote>,
    is_cut: bool,
}

impl Story {
    fn of(store: &Store, reader: &ChunkReader, area: &str, base: &SnapshotId, path: &TreePath) -> Result<Story> {
        let mut story = Story { area: None, entry: None, brought_by: None, first_in: None, is_cut: false };
        let (mut next, mut last): (_, Option<(ChunkId, Option<Entry>)>) = (Some(*base), None);
        // The snapshot before which something else was there; it is known when that is seen.
        let mut candidate: Option<SnapshotNote> = None;
        while let Some(id) = next {
            let snapshot = match store.snapshot(&id) {
                Err(Error::UnknownSnapshot { .. } | Error::MissingObject { .. }) => {
                    story.is_cut = true;
                    break;
                }
                snapshot => snapshot?,
            };
            let here = snapshot.area(area);
            let entry = match (here, &last) {
                // An equal manifest has an equal entry.
                (Some(here), Some((manifest, entry))) if here.manifest == *manifest => entry.clone(),
                (Some(here), _) => Manifest::open(reader, here)?.get_inode(path)?,
                (None, _) => None,
            };
            let note = SnapshotNote {
                id,
                time: snapshot.time,
                message: snapshot.message.clone(),
                author: snapshot.author.clone(),
            };
            if candidate.is_none() {
                (story.area, story.entry) = (here.cloned(), entry.clone());
            } else if story.brought_by.is_none() && !is_same(entry.as_ref(), story.entry.as_ref()) {
                story.brought_by = candidate.take();
            }
            if entry.is_some() {
                story.first_in = Some(note.clone());
            }
            candidate = Some(note);
            last = here.map(|here| (here.manifest, entry));
            next = snapshot.parent;
        }
        if story.brought_by.is_none() && story.entry.is_some() {
            story.brought_by = candidate;
        }
        Ok(story)
    }
}

fn is_same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    match (a.map(|entry| &entry.node), b.map(|entry| &entry.node)) {
        (None, None) => true,
        (Some(Node::Inode(a)), Some(Node::Inode(b))) => differences(a, b).is_none(),
        (a, b) => a == b,
    }
}

fn rules(options: &StatusOptions, target: &AreaTarget, root: &Path, area: Option<&SnapshotArea>) -> Result<RuleSet> {
    let rules = area.map(|area| area.rules.clone()).unwrap_or_default();
    RuleSet::new(&rules, area::protected_below(root, &options.protected))?.excluding(&target.exclude)
}

fn localized(
    reader: &ChunkReader,
    area: &SnapshotArea,
    target: &AreaTarget,
    state: &Path,
    entry: Entry,
) -> Result<Option<Inode>> {
    let manifest = Manifest::open(reader, area)?;
    let here = Here::new(manifest.head(), target.numeric_owners, Fidelity::remembered(state));
    Ok(match here.localize(entry, &mut Losses::default()).node {
        Node::Inode(inode) => Some(inode),
        Node::Link { .. } => None,
    })
}

/// What is at `path`. A file is read: whoever asks for an explanation wants to know.
fn live(
    root: &crate::fsio::Dir,
    path: &TreePath,
    rules: &RuleSet,
    wanted: Option<&Inode>,
    progress: &Progress,
) -> Result<Option<Inode>> {
    let failed = |e| Error::io("look at", root.path_of(path.as_bytes()), e);
    let found = match DirChain::new(root).find(path) {
        Err(e) if is_other_now(&e) => None,
        found => found.map_err(failed)?,
    };
    let Some(found) = found else { return Ok(None) };
    let mut inode = inode::read_metadata(&found, rules.xattrs(), UnknownXattrs::Ignore)?;
    if let InodeKind::File(content) = &mut inode.kind {
        let (fd, stat) = inode::open_file(&found).map_err(failed)?;
        let hash = inode::hash_content(&fd, stat.size, progress).map_err(failed)?;
        // Where its holes are is not compared here.
        let chunks = match wanted.map(|wanted| &wanted.kind) {
            Some(InodeKind::File(wanted)) => wanted.chunks.clone(),
            _ => ChunkList::Whole,
        };
        *content = FileContent { size: stat.size, hash, chunks, unstable: false };
    }
    Ok(Some(inode))
}
