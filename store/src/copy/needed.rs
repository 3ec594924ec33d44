// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which chunks a snapshot needs.

use std::collections::BTreeMap;

use super::publish::Target;
use crate::error::Result;
use crate::format::manifest::{ChunkRun, Entry, InodeKind, Node};
use crate::format::pack::PackKind;
use crate::format::snapshot::{Snapshot, SnapshotArea};
use crate::id::ChunkId;
use crate::manifest::{ContentPart, Manifest, content_parts, diff};
use crate::read::ChunkReader;

/// Chunks to be moved, and the kind of pack that they belong into.
pub(super) type Needed = BTreeMap<ChunkId, PackKind>;

/// Everything that `snapshot` needs and the target has in no pack that it can rely on. Where the parent is whole in the
/// target, what is the same there is not looked at.
pub(super) fn lacking(target: &Target<'_>, from: &ChunkReader, snapshot: &Snapshot) -> Result<Needed> {
    let base = target.base_of(snapshot)?;
    let base_reader = base.as_ref().map(|_| target.store().reader()).transpose()?;
    let mut lacking = Needed::new();
    for area in &snapshot.areas {
        let before = base.as_ref().and_then(|(_, base, _)| base.area(&area.name));
        if before.is_some_and(|before| before.manifest == area.manifest) {
            continue;
        }
        let before = match (before, &base_reader) {
            (Some(before), Some(reader)) => Some(Manifest::open(reader, before)?),
            _ => None,
        };
        add_area(from, area, before.as_ref(), &mut lacking)?;
    }
    lacking.retain(|id, _| !target.is_stored(id));
    Ok(lacking)
}

/// Everything that `snapshot` needs.
pub(super) fn all(from: &ChunkReader, snapshot: &Snapshot) -> Result<Needed> {
    let mut needed = Needed::new();
    snapshot.areas.iter().try_for_each(|area| add_area(from, area, None, &mut needed))?;
    Ok(needed)
}

fn add_area(from: &ChunkReader, area: &SnapshotArea, before: Option<&Manifest<'_>>, needed: &mut Needed) -> Result<()> {
    let after = Manifest::open(from, area)?;
    needed.insert(area.manifest, PackKind::Manifest);
    let mut changes = diff(before, Some(&after));
    for change in changes.by_ref() {
        if let Some(entry) = change?.after {
            add_content(from, &entry, needed)?;
        }
    }
    needed.extend(changes.opened_after().iter().map(|id| (*id, PackKind::Manifest)));
    Ok(())
}

/// Chunks of one entry: those of its list, however deep that is, and those of its content.
fn add_content(from: &ChunkReader, entry: &Entry, needed: &mut Needed) -> Result<()> {
    let Node::Inode(inode) = &entry.node else { return Ok(()) };
    let InodeKind::File(content) = &inode.kind else { return Ok(()) };
    for part in content_parts(from, content)? {
        match part? {
            ContentPart::List(id) => drop(needed.insert(id, PackKind::Manifest)),
            ContentPart::Run(ChunkRun::Data { id, .. }) => drop(needed.entry(id).or_insert(PackKind::Data)),
            ContentPart::Run(ChunkRun::Hole { .. }) => {}
        }
    }
    Ok(())
}
