// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which part of the index a commit may believe.
//!
//! A commit deduplicates only against segments that this machine built or has checked against pack footers, and only
//! against packs that are there. A wrong record would make a snapshot that cannot be restored.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::known::KnownChunks;
use crate::backend::ObjectName;
use crate::error::{Error, ErrorKind, Result};
use crate::format::store::{CondemnedPack, SegmentRef, SegmentsCurrent};
use crate::format::table::{self, Location, Table, TableKind, TablePack};
use crate::fsio::{self, Mapped};
use crate::id::{ChunkId, PackId, SegmentId};
use crate::pack;
use crate::store::{Store, damaged};

/// Largest list of trusted segments that is believed, in bytes.
const TRUSTED_BYTES_MAX: u64 = 16 << 20;

/// A segment that may be believed.
#[derive(Debug)]
pub(super) struct LiveSegment {
    /// Its line in `segments/current`.
    pub(super) listed: SegmentRef,
    pub(super) table: Table<Mapped>,
}

/// Chunks and where they are, in no particular order.
pub(super) type Records = Vec<(ChunkId, Location)>;

/// Segments that may be believed.
#[derive(Debug)]
pub(super) struct LiveSegments {
    pub(super) segments: Vec<LiveSegment>,
    /// Their packs but the condemned ones. Each was there in full length.
    pub(super) live_packs: HashSet<PackId>,
    pub(super) notes: Vec<String>,
}

impl LiveSegments {
    /// Opens the live segments and checks those that this machine does not know yet. An index that is damaged, or that
    /// names a pack which is not there, is rebuilt from pack footers and published.
    pub(super) fn open(store: &Store, state_dir: &Path) -> Result<LiveSegments> {
        let trusted = Trusted::load(store, state_dir)?;
        let mut notes = Vec::new();
        let found = match store.segments_current()? {
            Some(current) => open_checked(store, &current, &trusted)?.map(|segments| (current, segments)),
            None => Err(format!("{} is missing or damaged", ObjectName::SegmentsCurrent)),
        };
        let (current, segments) = match found {
            Ok((current, segments)) => match lost_packs(store, &segments)?.first() {
                None => (current, segments),
                Some(pack) => {
                    let name = ObjectName::Pack(*pack);
                    notes.push(format!("{name} is missing or truncated; its content is stored again where it is met"));
                    rebuild(store, &segments, &mut notes)?
                }
            },
            Err(why) => {
                let found = rebuild(store, &[], &mut notes)?;
                notes.push(format!("index: {why}; rebuilt from pack footers"));
                found
            }
        };
        trusted.save(current.segments.iter().map(|segment| segment.id))?;

        let condemned: HashSet<PackId> = current.condemned.iter().map(|condemned| condemned.pack).collect();
        let lost = lost_packs(store, &segments)?;
        let packs = segments.iter().flat_map(|segment| segment.table.packs()).map(|pack| pack.id);
        let live_packs = packs.filter(|pack| !condemned.contains(pack) && !lost.contains(pack)).collect();
        Ok(LiveSegments { segments, live_packs, notes })
    }
}

/// Segments that this machine built or has checked, by name, in the state directory.
#[derive(Debug)]
pub(super) struct Trusted {
    path: PathBuf,
    ids: BTreeSet<SegmentId>,
}

impl Trusted {
    pub(super) fn load(store: &Store, state_dir: &Path) -> Result<Trusted> {
        let path = state_dir.join("stores").join(store.id().to_string()).join("trusted-segments");
        let ids = match fsio::read_capped(&path, TRUSTED_BYTES_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect(),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            Err(e) => return Err(e),
        };
        Ok(Trusted { path, ids })
    }

    /// Replaces the list.
    pub(super) fn save(&self, ids: impl Iterator<Item = SegmentId>) -> Result<()> {
        let ids: BTreeSet<SegmentId> = ids.collect();
        if ids == self.ids {
            return Ok(());
        }
        let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
        fsio::publish_file(&self.path, text.as_bytes())
    }
}

/// All live segments, each hashed, and compared with pack footers unless trusted. `Err` says what is wrong.
fn open_checked(
    store: &Store,
    current: &SegmentsCurrent,
    trusted: &Trusted,
) -> Result<Result<Vec<LiveSegment>, String>> {
    let mut segments = Vec::with_capacity(current.segments.len());
    for segment in &current.segments {
        let name = ObjectName::Segment(segment.id);
        if store.backend().len(&name)? != Some(segment.len) {
            return Ok(Err(format!("{name} is missing or truncated")));
        }
        let map = store.backend().map(&name)?.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
        if SegmentId::of(map.as_ref()) != segment.id {
            return Ok(Err(format!("{name} is damaged")));
        }
        let table = match Table::decode(map) {
            Ok(table) if table.kind() == TableKind::Segment => table,
            Ok(_) => return Ok(Err(format!("{name} is not a segment"))),
            Err(e) if e.is_unsupported() => return Err(damaged(&name)(e)),
            Err(e) => return Ok(Err(format!("{name}: {e}"))),
        };
        if !trusted.ids.contains(&segment.id) && !agrees_with_footers(store, &table)? {
            return Ok(Err(format!("{name} disagrees with the packs")));
        }
        segments.push(LiveSegment { listed: segment.clone(), table });
    }
    Ok(Ok(segments))
}

/// Packs of the index that are not there, or not whole.
fn lost_packs(store: &Store, segments: &[LiveSegment]) -> Result<BTreeSet<PackId>> {
    let mut lost = BTreeSet::new();
    for pack in segments.iter().flat_map(|segment| segment.table.packs()) {
        if store.backend().len(&ObjectName::Pack(pack.id))? != Some(pack.len) {
            lost.insert(pack.id);
        }
    }
    Ok(lost)
}

/// Whether every record of the segment stands in its pack's footer. A missing pack is the caller's to notice.
fn agrees_with_footers(store: &Store, table: &Table<Mapped>) -> Result<bool> {
    let mut by_pack: BTreeMap<PackId, Vec<(ChunkId, Location)>> = BTreeMap::new();
    for (id, at) in table.iter() {
        by_pack.entry(at.pack).or_default().push((id, at));
    }
    for (pack, mut records) in by_pack {
        let footer = match pack::read_footer(store.backend(), &pack) {
            Ok(footer) => footer,
            Err(Error::MissingObject { .. }) => continue,
            Err(e) if e.kind() == ErrorKind::Damaged => return Ok(false),
            Err(e) => return Err(e),
        };
        let mut expected: Vec<(ChunkId, Location)> = footer.locations().collect();
        expected.sort_unstable_by_key(|(id, _)| *id);
        records.sort_unstable_by_key(|(id, _)| *id);
        let agrees = records.iter().all(|(id, at)| {
            expected.binary_search_by_key(id, |(id, _)| *id).is_ok_and(|index| expected[index].1 == *at)
        });
        if !agrees {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A new segment from all readable pack footers, published as the only live one. Of a pack that is there without a
/// readable footer, what the `old` segments say is kept: some of it may still be read.
fn rebuild(store: &Store, old: &[LiveSegment], notes: &mut Vec<String>) -> Result<(SegmentsCurrent, Vec<LiveSegment>)> {
    let backend = store.backend();
    let mut packs = Vec::new();
    let mut records = Vec::new();
    let mut unreadable = BTreeSet::new();
    for id in backend.list_packs()? {
        match pack::read_footer(backend, &id) {
            Ok(footer) => {
                packs.push(footer.pack);
                records.extend(footer.locations());
            }
            Err(e) if e.kind() == ErrorKind::Damaged => {
                notes.push(format!("index: {e}: left out"));
                unreadable.insert(id);
            }
            Err(e) => return Err(e),
        }
    }
    for segment in old {
        packs.extend(segment.table.packs().iter().filter(|pack| unreadable.contains(&pack.id)));
        records.extend(segment.table.iter().filter(|(_, at)| unreadable.contains(&at.pack)));
    }
    let current = store.segments_current()?;
    let generation = current.as_ref().map_or(1, |current| current.generation + 1);
    let condemned = current.map(|current| current.condemned).unwrap_or_default();
    let segments = if records.is_empty() { Vec::new() } else { vec![write_segment(store, &packs, records)?] };
    let current = publish_current(store, generation, segments, condemned)?;
    for id in backend.list_segments()? {
        if !current.segments.iter().any(|segment| segment.id == id) {
            backend.remove(&ObjectName::Segment(id))?;
        }
    }
    let segments = current.segments.iter().map(|segment| map_segment(store, segment)).collect::<Result<_>>()?;
    Ok((current, segments))
}

fn map_segment(store: &Store, listed: &SegmentRef) -> Result<LiveSegment> {
    let name = ObjectName::Segment(listed.id);
    let map = store.backend().map(&name)?.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    Ok(LiveSegment { listed: listed.clone(), table: Table::decode(map).map_err(damaged(&name))? })
}

/// Publishes one segment.
pub(super) fn write_segment(
    store: &Store,
    packs: &[TablePack],
    records: Vec<(ChunkId, Location)>,
) -> Result<SegmentRef> {
    let bytes = table::encode(TableKind::Segment, packs, records)
        .map_err(|source| Error::Decode { object: "new segment".into(), source })?;
    let id = SegmentId::of(&bytes);
    let decoded = Table::decode(&bytes[..]).map_err(|source| Error::Decode { object: "new segment".into(), source })?;
    let records = u32::try_from(decoded.len()).expect("bounded by the format");
    store.backend().publish(&ObjectName::Segment(id), &bytes)?;
    Ok(SegmentRef { id, len: bytes.len() as u64, records })
}

/// Publishes which segments are live.
pub(super) fn publish_current(
    store: &Store,
    generation: u64,
    mut segments: Vec<SegmentRef>,
    condemned: Vec<CondemnedPack>,
) -> Result<SegmentsCurrent> {
    segments.sort_by_key(|segment| segment.id);
    let current = SegmentsCurrent { store: store.id(), generation, segments, condemned };
    store.backend().publish(&ObjectName::SegmentsCurrent, &current.encode())?;
    Ok(current)
}

/// Adds a commit's new records to the index: a new segment, merged with smaller ones so that their number stays
/// logarithmic. Gives the bytes written.
pub(super) fn add_records(
    store: &Store,
    state_dir: &Path,
    mut packs: Vec<TablePack>,
    mut records: Records,
    known: &KnownChunks,
) -> Result<u64> {
    /// A segment is merged when what is merged so far is at least this part of it.
    const MERGE_RATIO: usize = 4;
    let current = store.segments_current()?;
    let (generation, mut segments, condemned) = match current {
        Some(current) => (current.generation, current.segments, current.condemned),
        None => (0, Vec::new(), Vec::new()),
    };
    let mut by_size: Vec<&LiveSegment> = known.segments().iter().collect();
    by_size.sort_by_key(|segment| segment.table.len());
    let mut merged = BTreeSet::new();
    for segment in by_size {
        // What was stored again must not be looked for where it was lost: of equal ids the new record wins.
        let names_lost = segment.table.packs().iter().any(|pack| !known.live_packs().contains(&pack.id));
        if segment.table.len() > records.len() * MERGE_RATIO && !names_lost {
            continue;
        }
        packs.extend_from_slice(segment.table.packs());
        records.extend(segment.table.iter());
        merged.insert(segment.listed.id);
    }
    packs.sort_unstable();
    packs.dedup();
    let new = write_segment(store, &packs, records)?;
    let bytes = new.len;
    segments.retain(|segment| !merged.contains(&segment.id) && segment.id != new.id);
    segments.push(new);
    let current = publish_current(store, generation + 1, segments, condemned)?;
    Trusted::load(store, state_dir)?.save(current.segments.iter().map(|segment| segment.id))?;
    // Nothing names these any more; a reader that opened the old list holds its maps.
    for id in merged {
        if !current.segments.iter().any(|segment| segment.id == id) {
            store.backend().remove(&ObjectName::Segment(id))?;
        }
    }
    Ok(bytes)
}
