// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A commit's new records become a segment, merged with smaller ones so that their number stays logarithmic.

use std::collections::BTreeSet;

use super::CommitOptions;
use super::known::KnownChunks;
use super::segments::{LiveSegment, build, publish_current};
use super::trusted::Trusted;
use crate::backend::ObjectName;
use crate::error::Result;
use crate::id::SegmentId;
use crate::segment::PackRecords;
use crate::store::Store;

/// A segment is merged when what is merged so far is at least this part of it.
const MERGE_RATIO: usize = 4;

/// Adds a commit's new records to the index. Gives the bytes written.
pub(crate) fn add_records(
    store: &Store,
    options: &CommitOptions,
    mut new: PackRecords,
    known: &KnownChunks,
) -> Result<u64> {
    let current = store.segments_current()?;
    let (generation, mut segments, condemned) = match current {
        Some(current) => (current.generation, current.segments, current.condemned),
        None => (0, Vec::new(), Vec::new()),
    };
    let merged = merge_small(options, &mut new, known);
    segments.retain(|segment| !merged.contains(&segment.id));
    let mut trusted: BTreeSet<SegmentId> = known.segments().iter().filter_map(confirmed_id).collect();
    let mut written = 0;
    for part in new.split(options.segment_limits) {
        let (listed, bytes) = build(part)?;
        store.writing()?.publish(&ObjectName::Segment(listed.id), &bytes)?;
        written += listed.len;
        trusted.insert(listed.id);
        segments.push(listed);
    }
    let current = publish_current(store, generation + 1, segments, condemned)?;
    let is_live = |id: &SegmentId| current.segments.iter().any(|segment| segment.id == *id);
    Trusted::load(store, &options.state_dir)?.save(trusted.into_iter().filter(is_live))?;
    // Nothing names these any more; a reader that opened the old list holds its maps.
    for id in merged.iter().filter(|id| !is_live(id)) {
        store.writing()?.remove(&ObjectName::Segment(*id))?;
    }
    Ok(written)
}

fn confirmed_id(segment: &LiveSegment) -> Option<SegmentId> {
    segment.is_confirmed.then_some(segment.listed.id)
}

/// Takes what small segments list into `new`, the smallest first, as long as one segment may hold it all. Gives which.
fn merge_small(options: &CommitOptions, new: &mut PackRecords, known: &KnownChunks) -> BTreeSet<SegmentId> {
    let mut by_size: Vec<&LiveSegment> = known.segments().iter().filter(|segment| segment.is_confirmed).collect();
    by_size.sort_by_key(|segment| segment.table.len());
    let mut merged = BTreeSet::new();
    for segment in by_size {
        let (records, packs) = (new.records.len() + segment.table.len(), new.packs.len() + segment.table.packs().len());
        let is_small = segment.table.len() <= new.records.len() * MERGE_RATIO;
        if !is_small || !options.segment_limits.allow(records, packs) {
            continue;
        }
        new.packs.extend_from_slice(segment.table.packs());
        new.records.extend(segment.table.iter());
        merged.insert(segment.listed.id);
    }
    new.packs.sort_unstable();
    new.packs.dedup();
    merged
}
