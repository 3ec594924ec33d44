// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a new snapshot's chunks are, for readers who have no index (format-spec §30.6).

use std::collections::{BTreeMap, BTreeSet};

use super::known::KnownChunks;
use super::segments::Records;
use crate::backend::ObjectName;
use crate::error::{Error, Result};
use crate::format::manifest::{ChunkList, Entry, InodeKind, Node};
use crate::format::snapshot::Snapshot;
use crate::format::table::{self, Table, TableKind, TablePack};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::limits;
use crate::manifest::{Manifest, content_runs, data_ids, diff};
use crate::pack;
use crate::read::ChunkReader;
use crate::store::Store;

/// Longest locator that is believed, in bytes.
const LOCATOR_BYTES_MAX: u64 = 2 << 30;

/// The bytes of the snapshot's locator: full for a first snapshot and at the end of a chain, else what the parent lacks.
pub(super) fn encode(
    store: &Store,
    id: &SnapshotId,
    snapshot: &Snapshot,
    parent: Option<&(SnapshotId, Snapshot)>,
    known: &KnownChunks,
) -> Result<Vec<u8>> {
    let reader = store.reader()?;
    let base = match parent {
        Some((parent_id, _)) => steps_after(store, parent_id)?.map(|steps| (*parent_id, steps)),
        None => None,
    };
    let mut ids = BTreeSet::new();
    // In a store that was empty nothing can have been taken over from a files cache: everything has passed by.
    let has_seen_all = parent.is_none() && known.segments().is_empty();
    if has_seen_all {
        ids.extend(known.seen());
    }
    for area in &snapshot.areas {
        let before = match (parent, base) {
            (Some((_, parent)), Some(_)) => parent.area(&area.name),
            _ => None,
        };
        if before.is_some_and(|before| before.manifest == area.manifest) {
            continue;
        }
        ids.insert(area.manifest);
        if !has_seen_all {
            let before = before.map(|before| Manifest::open(&reader, before)).transpose()?;
            let after = Manifest::open(&reader, area)?;
            let mut changes = diff(before.as_ref(), Some(&after));
            for change in changes.by_ref() {
                if let Some(entry) = change?.after {
                    add_content(&reader, &entry, &mut ids)?;
                }
            }
            ids.extend(changes.opened_after());
        }
    }
    let kind = TableKind::Locator { snapshot: *id, base };
    let (packs, records) = locate(store, &reader, ids)?;
    table::encode(kind, &packs, records).map_err(|source| Error::Decode { object: "new locator".into(), source })
}

/// Chunks of one entry, an indirect list's own and the listed ones.
fn add_content(reader: &ChunkReader, entry: &Entry, ids: &mut BTreeSet<ChunkId>) -> Result<()> {
    let Node::Inode(inode) = &entry.node else { return Ok(()) };
    let InodeKind::File(content) = &inode.kind else { return Ok(()) };
    if let ChunkList::Indirect { runs, .. } = &content.chunks {
        ids.extend(data_ids(runs));
    }
    ids.extend(data_ids(&content_runs(reader, content)?));
    Ok(())
}

/// How many locators a chain through `parent` has to read after the new one; `None` when the new one must be full.
fn steps_after(store: &Store, parent: &SnapshotId) -> Result<Option<u32>> {
    let Some(bytes) = store.backend().read(&ObjectName::Locator(*parent), LOCATOR_BYTES_MAX)? else { return Ok(None) };
    let Ok(table) = Table::decode(bytes) else { return Ok(None) };
    let steps = match table.kind() {
        TableKind::Locator { snapshot, base } if snapshot == *parent => base.map_or(1, |(_, steps)| steps + 1),
        _ => return Ok(None),
    };
    Ok((steps <= limits::LOCATOR_STEPS_MAX).then_some(steps))
}

fn locate(store: &Store, reader: &ChunkReader, ids: BTreeSet<ChunkId>) -> Result<(Vec<TablePack>, Records)> {
    let mut packs: BTreeMap<PackId, TablePack> = BTreeMap::new();
    let mut records = Vec::with_capacity(ids.len());
    for id in ids {
        let at = reader.locate(&id).ok_or_else(|| Error::MissingObject { object: format!("chunk {id}") })?;
        records.push((id, at));
        if let std::collections::btree_map::Entry::Vacant(vacant) = packs.entry(at.pack) {
            let kind = pack::read_kind(store.backend(), &at.pack)?;
            let name = ObjectName::Pack(at.pack);
            let len = store.backend().len(&name)?;
            let len = len.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
            vacant.insert(TablePack { id: at.pack, len, kind });
        }
    }
    Ok((packs.into_values().collect(), records))
}
