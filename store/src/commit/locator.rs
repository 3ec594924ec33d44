// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a new snapshot's chunks are, for readers who have no index (format-spec §30.6).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::known::KnownChunks;
use super::segments::Records;
use crate::backend::ObjectName;
use crate::error::{Error, Result};
use crate::format::Reason;
use crate::format::manifest::{ChunkRun, Entry, InodeKind, Node};
use crate::format::snapshot::Snapshot;
use crate::format::table::{self, Table, TableKind, TablePack};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::limits;
use crate::manifest::{ContentPart, Manifest, content_parts, diff};
use crate::pack;
use crate::read::ChunkReader;
use crate::store::Store;

/// Longest locator that is believed, in bytes.
const LOCATOR_BYTES_MAX: u64 = 2 << 30;

/// Where a locator may go on: an earlier snapshot whose own chain is sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) id: &'a SnapshotId,
    pub(crate) snapshot: &'a Snapshot,
    /// Locators from it to a full one, its own included.
    pub(crate) steps: u32,
}

/// The bytes of the snapshot's locator: what `base` lacks, or all. `usable` are packs that new content relies on. `None`
/// when it would list more than a locator may.
pub(crate) fn encode(
    store: &Store,
    id: &SnapshotId,
    snapshot: &Snapshot,
    base: Option<Base<'_>>,
    known: &KnownChunks,
    usable: &HashSet<PackId>,
) -> Result<Option<Vec<u8>>> {
    let reader = store.reader()?;
    let mut ids = BTreeSet::new();
    // In a store that was empty nothing can have been taken over from a files cache: everything has passed by.
    let has_seen_all = base.is_none() && known.segments().is_empty();
    if has_seen_all {
        ids.extend(known.seen());
    }
    for area in &snapshot.areas {
        let before = base.and_then(|base| base.snapshot.area(&area.name));
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
    let kind = TableKind::Locator { snapshot: *id, base: base.map(|base| (*base.id, base.steps)) };
    let (packs, records) = locate(store, &reader, ids, usable)?;
    match table::encode(kind, &packs, records) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if matches!(e.reason, Reason::Limit { .. }) => Ok(None),
        Err(source) => Err(Error::Decode { object: "new locator".into(), source }),
    }
}

/// Chunks of one entry: those of its list, however deep that is, and those of its content.
fn add_content(reader: &ChunkReader, entry: &Entry, ids: &mut BTreeSet<ChunkId>) -> Result<()> {
    let Node::Inode(inode) = &entry.node else { return Ok(()) };
    let InodeKind::File(content) = &inode.kind else { return Ok(()) };
    for part in content_parts(reader, content)? {
        match part? {
            ContentPart::List(id) | ContentPart::Run(ChunkRun::Data { id, .. }) => drop(ids.insert(id)),
            ContentPart::Run(ChunkRun::Hole { .. }) => {}
        }
    }
    Ok(())
}

/// Locators from `id` to a full one; `None` when one of them is missing or damaged, or names a pack that the index does
/// not vouch for. Otherwise every chunk of the snapshot is in a pack that is there.
pub(crate) fn chain(store: &Store, id: &SnapshotId, live_packs: &HashSet<PackId>) -> Result<Option<u32>> {
    let mut at = *id;
    for steps in 1..=limits::LOCATOR_STEPS_MAX + 1 {
        let Some(bytes) = store.read_hint(&ObjectName::Locator(at), LOCATOR_BYTES_MAX)? else { return Ok(None) };
        let Ok(table) = Table::decode(bytes) else { return Ok(None) };
        if !table.packs().iter().all(|pack| live_packs.contains(&pack.id)) {
            return Ok(None);
        }
        match table.kind() {
            TableKind::Locator { snapshot, base } if snapshot == at => match base {
                None => return Ok(Some(steps)),
                Some((base, _)) => at = base,
            },
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Where the chunks are: in a usable pack if there is a choice.
fn locate(
    store: &Store,
    reader: &ChunkReader,
    ids: BTreeSet<ChunkId>,
    usable: &HashSet<PackId>,
) -> Result<(Vec<TablePack>, Records)> {
    let mut packs: BTreeMap<PackId, TablePack> = BTreeMap::new();
    let mut records = Vec::with_capacity(ids.len());
    for id in ids {
        let best = reader.locations(&id).find(|at| usable.contains(&at.pack)).or_else(|| reader.locate(&id));
        let at = best.ok_or_else(|| Error::MissingObject { object: format!("chunk {id}") })?;
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
