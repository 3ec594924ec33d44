// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which new chunks go into one frame, and which old ones are its base. Pure.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::bases::{name, stripped};
use super::inventory::{FileChunks, Inventory, MetaChunk};
use crate::format::delta::DeltaChunk;
use crate::id::ChunkId;

/// Longest output of a frame that is planned, in bytes; a single chunk may be longer. With the base it bounds the memory
/// of whoever makes the frame: about six times both.
const OUTPUT_BYTES: u64 = 8 << 20;
/// Longest base of a frame that is planned, in bytes.
const BASE_BYTES: u64 = 20 << 20;
/// Longest base of a frame of several files, in bytes.
const GROUP_BASE_BYTES: u64 = 12 << 20;
/// What of a base file is taken on both sides of where the output should be, in bytes, when chunks on both sides are known.
const NEAR_BYTES: u64 = 1 << 20;
/// The same when there are none.
const FAR_BYTES: u64 = 4 << 20;
/// A base file of at most this many bytes is taken whole.
const WHOLE_BYTES: u64 = 6 << 20;

/// A frame to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedFrame {
    /// New chunks, none of which is in another frame.
    pub outputs: Vec<DeltaChunk>,
    /// Chunks of the base snapshot.
    pub bases: Vec<DeltaChunk>,
}

impl PlannedFrame {
    /// Length of the output.
    pub fn output_len(&self) -> u64 {
        total(&self.outputs)
    }
}

/// All frames of a delta, manifests first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeltaPlan {
    /// In the order of the file.
    pub frames: Vec<PlannedFrame>,
}

/// Plans a delta. `base_of` gives, for each of `files`, which are those of `after` that have new chunks, the place in
/// `before.files` of what it resembles.
pub fn plan(before: &Inventory, after: &Inventory, files: &[usize], base_of: &[Option<usize>]) -> DeltaPlan {
    let old: HashSet<ChunkId> = before.chunks().collect();
    let mut fresh = Fresh { old: &old, planned: HashSet::new() };
    let mut frames = Frames::default();
    for item in metas(before, after, &mut fresh) {
        frames.add(item);
    }
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_cached_key(|at| {
        let path = &after.files[files[*at]].path;
        (area(path).to_vec(), kind(path), path.clone())
    });
    let mut group = None;
    for at in order {
        let file = &after.files[files[at]];
        let this = (area(&file.path).to_vec(), kind(&file.path));
        if group.as_ref() != Some(&this) {
            frames.close();
            group = Some(this);
        }
        for item in pieces(file, base_of[at].map(|base| &before.files[base]), &mut fresh) {
            frames.add(item);
        }
    }
    frames.close();
    DeltaPlan { frames: frames.done }
}

/// The places in `after.files` of files that have chunks which `before` has not.
pub fn changed_files(before: &Inventory, after: &Inventory) -> Vec<usize> {
    let old: HashSet<ChunkId> = before.chunks().collect();
    let is_changed = |file: &FileChunks| file.chunks.iter().any(|placed| !old.contains(&placed.chunk.id));
    (0..after.files.len()).filter(|at| is_changed(&after.files[*at])).collect()
}

/// Which chunks are new and not planned yet.
struct Fresh<'o> {
    old: &'o HashSet<ChunkId>,
    planned: HashSet<ChunkId>,
}

impl Fresh<'_> {
    fn take(&mut self, id: ChunkId) -> bool {
        !self.old.contains(&id) && self.planned.insert(id)
    }
}

/// Frames under way: small items share one while it has room.
#[derive(Default)]
struct Frames {
    done: Vec<PlannedFrame>,
    open: PlannedFrame,
    bases: HashSet<ChunkId>,
    output_len: u64,
    base_len: u64,
}

impl Frames {
    fn add(&mut self, item: PlannedFrame) {
        let new_bases = item.bases.iter().filter(|base| !self.bases.contains(&base.id)).map(|base| u64::from(base.len));
        let (output_len, base_len) = (item.output_len(), new_bases.sum::<u64>());
        if self.output_len + output_len > OUTPUT_BYTES || self.base_len + base_len > GROUP_BASE_BYTES {
            self.close();
        }
        self.output_len += output_len;
        self.open.outputs.extend(item.outputs);
        for base in item.bases {
            if self.bases.insert(base.id) {
                self.base_len += u64::from(base.len);
                self.open.bases.push(base);
            }
        }
    }

    fn close(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        let open = std::mem::take(&mut self.open);
        if !open.outputs.is_empty() {
            done.push(open);
        }
        *self = Frames { done, ..Frames::default() };
    }
}

/// New chunks of manifests, each with the old ones that began where it begins and up to where the next one does.
fn metas(before: &Inventory, after: &Inventory, fresh: &mut Fresh<'_>) -> Vec<PlannedFrame> {
    let kept: HashSet<ChunkId> = after.metas.iter().map(|meta| meta.chunk.id).collect();
    let gone: Vec<&MetaChunk> = before.metas.iter().filter(|meta| !kept.contains(&meta.chunk.id)).collect();
    let mut items = Vec::new();
    for (at, meta) in after.metas.iter().enumerate() {
        if !fresh.take(meta.chunk.id) {
            continue;
        }
        let end = after.metas.get(at + 1).map(|next| &next.place);
        let first = gone.partition_point(|old| old.place <= meta.place).saturating_sub(1);
        let last = gone.partition_point(|old| end.is_none_or(|end| old.place < *end)).max(first);
        let mut bases = Vec::new();
        for old in &gone[first.min(gone.len())..last] {
            if total(&bases) + u64::from(old.chunk.len) <= NEAR_BYTES {
                bases.push(old.chunk);
            }
        }
        items.push(PlannedFrame { outputs: vec![meta.chunk], bases });
    }
    items
}

/// The new chunks of a file in pieces of at most [`OUTPUT_BYTES`], each with the part of the base file where it should be.
fn pieces(file: &FileChunks, base: Option<&FileChunks>, fresh: &mut Fresh<'_>) -> Vec<PlannedFrame> {
    let places: HashMap<ChunkId, u64> =
        base.iter().flat_map(|base| &base.chunks).map(|placed| (placed.chunk.id, placed.offset)).collect();
    let mut items: Vec<(PlannedFrame, Range<u64>)> = Vec::new();
    let (mut known, mut is_open) = (None, false);
    for placed in &file.chunks {
        if let Some(at) = places.get(&placed.chunk.id) {
            known = Some((placed.end(), at + u64::from(placed.chunk.len)));
            // Far from the last new chunk: what follows has another place in the base.
            is_open = is_open && items.last().is_some_and(|(_, span)| placed.end() - span.end <= NEAR_BYTES);
        }
        if !fresh.take(placed.chunk.id) {
            continue;
        }
        let len = u64::from(placed.chunk.len);
        let fits = items.last().is_some_and(|(item, _)| item.output_len() + len <= OUTPUT_BYTES);
        let window = base.map_or(0..0, |base| window(file, base, known, placed.offset..placed.end()));
        match items.last_mut() {
            Some((item, span)) if fits && is_open => {
                item.outputs.push(placed.chunk);
                span.end = placed.end();
            }
            _ => items
                .push((PlannedFrame { outputs: vec![placed.chunk], bases: Vec::new() }, placed.offset..placed.end())),
        }
        is_open = true;
        if let (Some(base), Some((item, _))) = (base, items.last_mut()) {
            add_window(item, base, &window);
        }
    }
    items.into_iter().map(|(item, _)| item).collect()
}

/// The bytes of `base` that `span` of `file` should resemble, with what is near them. `known` are the ends, in file and
/// base, of the last chunk before that both have.
fn window(file: &FileChunks, base: &FileChunks, known: Option<(u64, u64)>, span: Range<u64>) -> Range<u64> {
    if base.size <= WHOLE_BYTES {
        return 0..base.size;
    }
    let (begin, near) = match known {
        Some((end, base_end)) => (base_end + (span.start - end), NEAR_BYTES),
        None => {
            let scaled = u128::from(span.start) * u128::from(base.size) / u128::from(file.size.max(1));
            (u64::try_from(scaled).unwrap_or(u64::MAX), FAR_BYTES)
        }
    };
    begin.saturating_sub(near)..begin.saturating_add(span.end - span.start + near)
}

/// Adds the chunks of `base` that touch `window` and that `item` does not have, as far as there is room.
fn add_window(item: &mut PlannedFrame, base: &FileChunks, window: &Range<u64>) {
    let first = base.chunks.partition_point(|placed| placed.end() <= window.start);
    let touching = base.chunks[first..].iter().take_while(|placed| placed.offset < window.end);
    let mut len = total(&item.bases);
    let mut have: HashSet<ChunkId> = item.bases.iter().map(|base| base.id).collect();
    for placed in touching {
        if len + u64::from(placed.chunk.len) <= BASE_BYTES && have.insert(placed.chunk.id) {
            len += u64::from(placed.chunk.len);
            item.bases.push(placed.chunk);
        }
    }
}

/// What tells files apart that compress well together: the ending of their names.
fn kind(path: &[u8]) -> Vec<u8> {
    let name = stripped(name(path));
    let mut parts = name.rsplit(|byte| *byte == b'.').filter(|part| *part != b"#");
    match (parts.next(), parts.next()) {
        (Some(last), Some(_)) => last.to_vec(),
        _ => Vec::new(),
    }
}

fn area(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'/').next().unwrap_or_default()
}

fn total(chunks: &[DeltaChunk]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delta::inventory::PlacedChunk;

    fn chunk(name: u32, len: u32) -> DeltaChunk {
        DeltaChunk { id: ChunkId::of(&name.to_le_bytes()), len }
    }

    fn file(path: &str, chunks: &[DeltaChunk]) -> FileChunks {
        let mut offset = 0;
        let placed = chunks.iter().map(|chunk| {
            let placed = PlacedChunk { offset, chunk: *chunk };
            offset = placed.end();
            placed
        });
        let chunks = placed.collect();
        FileChunks { path: path.into(), size: offset, chunks }
    }

    fn inventory(files: Vec<FileChunks>) -> Inventory {
        Inventory { metas: Vec::new(), files }
    }

    #[test]
    fn small_neighbours_share_a_frame_and_other_kinds_do_not() {
        let small = |name| [chunk(name, 5000)];
        let before = inventory(vec![
            file("root/etc/a.conf", &small(1)),
            file("root/etc/b.so.1", &small(2)),
            file("root/etc/c.conf", &small(3)),
        ]);
        let after = inventory(vec![
            file("root/etc/a.conf", &small(11)),
            file("root/etc/b.so.2", &small(12)),
            file("root/etc/c.conf", &small(13)),
            file("root/etc/d.conf", &small(13)),
        ]);
        let files = changed_files(&before, &after);
        assert_eq!(files, [0, 1, 2, 3]);
        let plan = plan(&before, &after, &files, &[Some(0), Some(1), Some(2), None]);
        let frame = |outputs: &[u32], bases: &[u32]| PlannedFrame {
            outputs: outputs.iter().map(|name| chunk(*name, 5000)).collect(),
            bases: bases.iter().map(|name| chunk(*name, 5000)).collect(),
        };
        assert_eq!(plan.frames, [frame(&[11, 13], &[1, 3]), frame(&[12], &[2])], "the same chunk is given once");
    }

    #[test]
    fn the_base_of_a_changed_part_is_what_stood_there() {
        let old: Vec<DeltaChunk> = (0..400).map(|name| chunk(name, 100_000)).collect();
        let mut new = old.clone();
        new.splice(200..201, [chunk(1000, 90_000), chunk(1001, 90_000)]);
        new[390] = chunk(1002, 100_000);
        let before = inventory(vec![file("root/big", &old)]);
        let after = inventory(vec![file("root/big", &new)]);
        let plan = plan(&before, &after, &[0], &[Some(0)]);
        assert_eq!(plan.frames.len(), 1, "two small items share a frame");
        let bases: HashSet<ChunkId> = plan.frames[0].bases.iter().map(|base| base.id).collect();
        assert!(bases.contains(&old[200].id) && bases.contains(&old[389].id));
        assert!(!bases.contains(&old[100].id) && !bases.contains(&old[300].id), "{} bases", bases.len());
    }

    #[test]
    fn nodes_are_first_and_based_on_those_of_the_same_place() {
        let meta = |place: &str, name| MetaChunk { place: place.into(), chunk: chunk(name, 1000) };
        let before =
            Inventory { metas: vec![meta("a", 1), meta("c", 2), meta("m", 3), meta("x", 4)], files: Vec::new() };
        let after = Inventory {
            metas: vec![meta("a", 1), meta("c", 12), meta("f", 13), meta("x", 4)],
            files: vec![file("root/new", &[chunk(20, 7)])],
        };
        let plan = plan(&before, &after, &[0], &[None]);
        assert_eq!(plan.frames[0].outputs[..2], [chunk(12, 1000), chunk(13, 1000)]);
        assert_eq!(plan.frames[0].bases, [chunk(2, 1000), chunk(3, 1000)]);
    }

    /// The kind of a file and the names of its chunks.
    type SpecFile = (u8, Vec<(u32, u32)>);

    proptest! {
        #[test]
        fn every_new_chunk_is_given_once_within_the_limits(
            old in proptest::collection::vec((0..3_u8, proptest::collection::vec((0..40_u32, 1..3_u32), 1..12)), 1..12),
            new in proptest::collection::vec((0..3_u8, proptest::collection::vec((20..80_u32, 1..3_u32), 1..12)), 1..12),
            bases in proptest::collection::vec(proptest::option::of(0..12_usize), 12),
        ) {
            // A chunk's length follows from its name, as in a store.
            let files = |spec: &[SpecFile]| {
                let of = |(at, (kind, chunks)): (usize, &SpecFile)| {
                    let chunks: Vec<_> = chunks.iter().map(|(name, _)| chunk(*name, 1 + name % 7 * 700_000)).collect();
                    file(&format!("root/{at}.{}", ["so", "py", "ko"][usize::from(*kind)]), &chunks)
                };
                inventory(spec.iter().enumerate().map(of).collect())
            };
            let (before, after) = (files(&old), files(&new));
            let changed = changed_files(&before, &after);
            let base_of: Vec<_> = changed.iter().map(|at| bases[*at].filter(|base| *base < before.files.len())).collect();
            let plan = plan(&before, &after, &changed, &base_of);
            let known: HashSet<ChunkId> = before.chunks().collect();
            let given: Vec<ChunkId> = plan.frames.iter().flat_map(|frame| &frame.outputs).map(|chunk| chunk.id).collect();
            let unique: HashSet<ChunkId> = given.iter().copied().collect();
            prop_assert_eq!(given.len(), unique.len());
            let wanted: HashSet<ChunkId> = after.chunks().filter(|id| !known.contains(id)).collect();
            prop_assert_eq!(unique, wanted);
            for frame in &plan.frames {
                prop_assert!(frame.output_len() <= OUTPUT_BYTES);
                prop_assert!(total(&frame.bases) <= BASE_BYTES);
                prop_assert!(frame.bases.iter().all(|base| known.contains(&base.id)));
                let distinct: HashSet<ChunkId> = frame.bases.iter().map(|base| base.id).collect();
                prop_assert_eq!(distinct.len(), frame.bases.len());
            }
        }
    }
}
