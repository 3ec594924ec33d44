// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which part of the index a commit may believe.
//!
//! A commit deduplicates only against segments that this machine built or has checked against pack footers, and only
//! against packs that are there. A wrong record would make a snapshot that cannot be restored. What only a segment says,
//! of a pack whose footer cannot be read, stays in a segment of its own: for readers, not for new content.

use std::collections::{BTreeMap, HashSet};

use super::CommitOptions;
use super::trusted::Trusted;
use crate::backend::ObjectName;
use crate::error::{Error, ErrorKind, Result};
use crate::format::store::{CondemnedPack, SegmentRef, SegmentsCurrent};
use crate::format::table::{Location, Table};
use crate::id::{ChunkId, PackId, SegmentId};
use crate::pack;
use crate::segment::{self, Gathered, PackRecords, TableBytes};
use crate::store::Store;

/// A live segment.
#[derive(Debug)]
pub(crate) struct LiveSegment {
    /// Its line in `segments/current`.
    pub(crate) listed: SegmentRef,
    pub(crate) table: Table<TableBytes>,
    /// Whether pack footers bear out what it says. If not, none of its packs has a readable footer.
    pub(crate) is_confirmed: bool,
}

/// Chunks and where they are, in no particular order.
pub(crate) type Records = Vec<(ChunkId, Location)>;

/// The live segments, and what new content may rely on.
#[derive(Debug)]
pub(crate) struct LiveSegments {
    pub(crate) segments: Vec<LiveSegment>,
    /// Packs of the confirmed segments but the condemned ones. Each was there in full length.
    pub(crate) live_packs: HashSet<PackId>,
    pub(crate) notes: Vec<String>,
}

impl LiveSegments {
    /// Opens the live segments and checks those that this machine does not know yet. An index that is damaged, or that
    /// names a pack which is not there, is rebuilt and published; in a dry run it is rebuilt in memory.
    pub(crate) fn open(store: &Store, options: &CommitOptions) -> Result<LiveSegments> {
        let trusted = Trusted::load(store, &options.state_dir)?;
        let mut notes = Vec::new();
        let found = match store.segments_current()? {
            Some(current) => open_checked(store, &current, &trusted, &mut notes)?
                .map(|segments| Index { condemned: current.condemned, segments }),
            None => Err(index_note(&format!("{} is missing or damaged", ObjectName::SegmentsCurrent))),
        };
        let index = match found {
            Ok(index) => index,
            Err(why) => {
                notes = vec![why];
                rebuild(store, options, &mut notes)?
            }
        };
        let confirmed = || index.segments.iter().filter(|segment| segment.is_confirmed);
        if !options.dry_run {
            trusted.save(confirmed().map(|segment| segment.listed.id))?;
        }
        let condemned: HashSet<PackId> = index.condemned.iter().map(|condemned| condemned.pack).collect();
        let packs = confirmed().flat_map(|segment| segment.table.packs()).map(|pack| pack.id);
        let live_packs = packs.filter(|pack| !condemned.contains(pack)).collect();
        Ok(LiveSegments { segments: index.segments, live_packs, notes })
    }
}

/// `segments/current` with its segments opened.
struct Index {
    segments: Vec<LiveSegment>,
    condemned: Vec<CondemnedPack>,
}

fn index_note(why: &str) -> String {
    format!("index: {why}; rebuilt from pack footers")
}

/// All live segments, each hashed, and compared with pack footers unless trusted. `Err` says why the index has to be
/// rebuilt.
fn open_checked(
    store: &Store,
    current: &SegmentsCurrent,
    trusted: &Trusted,
    notes: &mut Vec<String>,
) -> Result<Result<Vec<LiveSegment>, String>> {
    let mut segments = Vec::with_capacity(current.segments.len());
    for listed in &current.segments {
        let name = ObjectName::Segment(listed.id);
        if store.backend().len(&name)? != Some(listed.len) {
            return Ok(Err(index_note(&format!("{name} is missing or truncated"))));
        }
        let table = match segment::open(store, &listed.id) {
            Ok(table) => table,
            Err(e) if e.kind() == ErrorKind::Damaged => return Ok(Err(index_note(&e.to_string()))),
            Err(e) => return Err(e),
        };
        let standing = if trusted.contains(&listed.id) { Standing::Confirmed } else { compare(store, &table)? };
        if let Some(pack) = lost_pack(store, &table, &standing)? {
            let name = ObjectName::Pack(pack);
            return Ok(Err(format!("{name} is missing or truncated; its content is stored again where it is met")));
        }
        let is_confirmed = match standing {
            Standing::Confirmed => true,
            Standing::Unconfirmed(packs) if packs.len() == table.packs().len() => {
                let note = |pack| {
                    let name = ObjectName::Pack(pack);
                    format!("{name} has no readable footer; its content is stored again where it is met")
                };
                notes.extend(packs.into_iter().map(note));
                false
            }
            // What is confirmed and what is not are taken apart.
            Standing::Unconfirmed(_) => {
                return Ok(Err(index_note(&format!("{name} names packs without a readable footer"))));
            }
            Standing::Contradicted => return Ok(Err(index_note(&format!("{name} disagrees with the packs")))),
        };
        segments.push(LiveSegment { listed: listed.clone(), table, is_confirmed });
    }
    Ok(Ok(segments))
}

/// What the footers of its packs say of a segment.
enum Standing {
    /// Every record stands in a footer, or its pack is not there.
    Confirmed,
    /// Of these packs the footer cannot be read.
    Unconfirmed(Vec<PackId>),
    /// A footer lacks a record.
    Contradicted,
}

fn compare(store: &Store, table: &Table<TableBytes>) -> Result<Standing> {
    let mut by_pack: BTreeMap<PackId, Records> = BTreeMap::new();
    for (id, at) in table.iter() {
        by_pack.entry(at.pack).or_default().push((id, at));
    }
    let mut unreadable = Vec::new();
    for (pack, records) in by_pack {
        let footer = match pack::read_footer(store.backend(), &pack) {
            Ok(footer) => footer,
            Err(Error::MissingObject { .. }) => continue,
            Err(e) if e.kind() == ErrorKind::Damaged => {
                unreadable.push(pack);
                continue;
            }
            Err(e) => return Err(e),
        };
        let mut expected: Records = footer.locations().collect();
        expected.sort_unstable_by_key(|(id, _)| *id);
        let agrees = records.iter().all(|(id, at)| {
            expected.binary_search_by_key(id, |(id, _)| *id).is_ok_and(|index| expected[index].1 == *at)
        });
        if !agrees {
            return Ok(Standing::Contradicted);
        }
    }
    Ok(if unreadable.is_empty() { Standing::Confirmed } else { Standing::Unconfirmed(unreadable) })
}

/// The first pack that is not there, or not whole. One without a readable footer may be cut short: a part of it may still
/// be read.
fn lost_pack(store: &Store, table: &Table<TableBytes>, standing: &Standing) -> Result<Option<PackId>> {
    for pack in table.packs() {
        let len = store.backend().len(&ObjectName::Pack(pack.id))?;
        let may_be_short = matches!(standing, Standing::Unconfirmed(packs) if packs.contains(&pack.id));
        if len.is_none() || len != Some(pack.len) && !may_be_short {
            return Ok(Some(pack.id));
        }
    }
    Ok(None)
}

/// A new index from all readable pack footers, published as the only live one. Of a pack that is there without a readable
/// footer, what sound segments say is kept apart.
fn rebuild(store: &Store, options: &CommitOptions, notes: &mut Vec<String>) -> Result<Index> {
    let backend = store.writing()?;
    let Gathered { confirmed, unconfirmed, notes: found } = segment::gather(store)?;
    notes.extend(found);
    if !options.dry_run {
        // A writer that died may have left packs whose names are not durable; from now on they are relied on.
        backend.sync_packs()?;
    }
    let mut segments = Vec::new();
    for (records, is_confirmed) in [(confirmed, true), (unconfirmed, false)] {
        for part in records.split(options.segment_limits) {
            let (listed, bytes) = build(part)?;
            let table = if options.dry_run {
                decode(TableBytes::Read(bytes))?
            } else {
                backend.publish(&ObjectName::Segment(listed.id), &bytes)?;
                drop(bytes);
                segment::open(store, &listed.id)?
            };
            segments.push(LiveSegment { listed, table, is_confirmed });
        }
    }
    let current = store.segments_current()?;
    let generation = current.as_ref().map_or(1, |current| current.generation + 1);
    let condemned = current.map(|current| current.condemned).unwrap_or_default();
    if !options.dry_run {
        let listed = segments.iter().map(|segment| segment.listed.clone()).collect();
        let current = publish_current(store, generation, listed, condemned.clone())?;
        for id in store.listing()?.list_segments()? {
            if !current.segments.iter().any(|segment| segment.id == id) {
                backend.remove(&ObjectName::Segment(id))?;
            }
        }
    }
    Ok(Index { segments, condemned })
}

fn decode<B: AsRef<[u8]>>(bytes: B) -> Result<Table<B>> {
    Table::decode(bytes).map_err(|source| Error::Decode { object: "new segment".into(), source })
}

/// The line and the bytes of one segment, which decode.
pub(crate) fn build(part: PackRecords) -> Result<(SegmentRef, Vec<u8>)> {
    let bytes = part.encode()?;
    let records = u32::try_from(decode(&bytes[..])?.len()).expect("bounded by the format");
    Ok((SegmentRef { id: SegmentId::of(&bytes), len: bytes.len() as u64, records }, bytes))
}

/// Publishes which segments are live.
pub(crate) fn publish_current(
    store: &Store,
    generation: u64,
    mut segments: Vec<SegmentRef>,
    condemned: Vec<CondemnedPack>,
) -> Result<SegmentsCurrent> {
    segments.sort_by_key(|segment| segment.id);
    segments.dedup_by_key(|segment| segment.id);
    let current = SegmentsCurrent { store: store.id(), generation, segments, condemned };
    store.writing()?.publish(&ObjectName::SegmentsCurrent, &current.encode())?;
    Ok(current)
}
