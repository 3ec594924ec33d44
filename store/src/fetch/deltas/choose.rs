// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lists of deltas → the chain that costs least; tables of a chain → the frames that are worth their bytes.
//!
//! Invariant: chooses only, and does no I/O of its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::format::delta::{Delta, DeltaFrame, DeltaIndexEntry, ENCODING_DEFLATE};
use crate::id::{ChunkId, SnapshotId};

/// What another delta costs besides its bytes, in bytes: requests for its table and its frames.
const DELTA_COST: u64 = 64 << 10;
/// Most lists that are asked for: how far back a chain may reach.
const LISTS_MAX: usize = 8;

/// Deltas with the snapshots that they lead to, in the order of their use.
pub(super) type Chain = Vec<(DeltaIndexEntry, SnapshotId)>;

/// The cheapest chain from one of `have`, or from nothing, to `target`: the delta to the target comes last. Empty when
/// there is none. `list` gives the deltas to a snapshot.
pub(super) fn chain(
    target: &SnapshotId,
    have: &[SnapshotId],
    mut list: impl FnMut(&SnapshotId) -> Vec<DeltaIndexEntry>,
) -> Chain {
    // Backwards from the target, nearest first; a key is where a chain starts, `None` for nothing.
    let mut open: BTreeMap<(u64, Option<SnapshotId>), Chain> = BTreeMap::new();
    open.insert((0, Some(*target)), Vec::new());
    let mut done = HashSet::new();
    while let Some(((cost, start), chain)) = open.pop_first() {
        let Some(at) = start.filter(|at| !have.contains(at)) else { return chain };
        if !done.insert(at) || done.len() > LISTS_MAX {
            continue;
        }
        for entry in list(&at) {
            let cost = cost.saturating_add(entry.file_len).saturating_add(DELTA_COST);
            let longer = [&[(entry, at)], &chain[..]].concat();
            open.entry((cost, entry.base)).or_insert(longer);
        }
    }
    Vec::new()
}

/// A frame by its delta's place in the chain and its own in the delta.
pub(super) type FrameAt = (usize, usize);

/// The frames of `chain` to fetch, in the order in which they can be used. `wanted` gives what each chunk would cost
/// elsewhere; `at_hand` says which chunks need no frame; `bad` frames are left alone.
///
/// A frame is taken where its payload is shorter than what it saves, one that is only needed by others where all of them
/// together still save.
pub(super) fn frames(
    chain: &[&Delta],
    wanted: &HashMap<ChunkId, u64>,
    at_hand: impl Fn(&ChunkId) -> bool,
    bad: &HashSet<FrameAt>,
) -> Vec<FrameAt> {
    let alone = Selection::new(chain, wanted, &at_hand, bad, false);
    let joint = Selection::new(chain, wanted, &at_hand, bad, true);
    if joint.saved() > alone.saved() { joint.frames } else { alone.frames }
}

#[derive(Debug, Default)]
struct Selection {
    frames: Vec<FrameAt>,
    spent: u64,
    worth: u64,
}

impl Selection {
    /// With `is_joint`, frames may use what others give.
    fn new(
        chain: &[&Delta],
        wanted: &HashMap<ChunkId, u64>,
        at_hand: &impl Fn(&ChunkId) -> bool,
        bad: &HashSet<FrameAt>,
        is_joint: bool,
    ) -> Selection {
        let all = chain.iter().enumerate().flat_map(|(number, delta)| {
            delta.frames.iter().enumerate().map(move |(index, frame)| ((number, index), frame))
        });
        // Forwards: which frames can be used, and which of them is the first to give a chunk.
        let mut giver: HashMap<ChunkId, FrameAt> = HashMap::new();
        let mut usable: Vec<(FrameAt, &DeltaFrame)> = Vec::new();
        for (at, frame) in all {
            let has = |id: &ChunkId| at_hand(id) || (is_joint && giver.contains_key(id));
            if frame.encoding <= ENCODING_DEFLATE && !bad.contains(&at) && frame.bases.iter().all(|base| has(&base.id))
            {
                for output in &frame.outputs {
                    giver.entry(output.id).or_insert(at);
                }
                usable.push((at, frame));
            }
        }
        // Backwards: which of these are worth it, or needed by one that is.
        let mut selection = Selection::default();
        let mut demanded: HashSet<ChunkId> = HashSet::new();
        for (at, frame) in usable.into_iter().rev() {
            let given = || frame.outputs.iter().map(|output| output.id).filter(|id| giver.get(id) == Some(&at));
            let worth = given().filter_map(|id| wanted.get(&id)).fold(0u64, |sum, cost| sum.saturating_add(*cost));
            let payload = u64::from(frame.payload_len);
            if payload < worth || given().any(|id| demanded.contains(&id)) {
                demanded.extend(frame.bases.iter().map(|base| base.id).filter(|id| !at_hand(id)));
                selection.frames.push(at);
                selection.spent += payload;
                selection.worth = selection.worth.saturating_add(worth);
            }
        }
        selection.frames.reverse();
        selection
    }

    fn saved(&self) -> u64 {
        self.worth.saturating_sub(self.spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::delta::DeltaChunk;
    use crate::id::DeltaId;

    fn snapshot(at: u8) -> SnapshotId {
        SnapshotId([at; 32])
    }

    /// Deltas as (from, to, length); 0 is nothing.
    fn chosen(deltas: &[(u8, u8, u64)], have: &[u8], target: u8) -> Vec<(u8, u8)> {
        let have: Vec<_> = have.iter().map(|at| snapshot(*at)).collect();
        let list = |to: &SnapshotId| {
            let to_it = deltas.iter().filter(|delta| snapshot(delta.1) == *to);
            let entry = |(from, to, file_len): &(u8, u8, u64)| DeltaIndexEntry {
                base: Some(snapshot(*from)).filter(|_| *from > 0),
                delta: DeltaId([*to; 32]),
                head_len: 200,
                file_len: *file_len,
            };
            to_it.map(entry).collect()
        };
        let chain = chain(&snapshot(target), &have, list);
        chain.iter().map(|(entry, to)| (entry.base.map_or(0, |base| base.0[0]), to.0[0])).collect()
    }

    #[test]
    fn the_cheapest_chain_is_taken() {
        let mib = 1 << 20;
        let deltas = [(1, 3, 10 * mib), (1, 2, 4 * mib), (2, 3, 5 * mib), (0, 3, 50 * mib)];
        assert_eq!(chosen(&deltas, &[1], 3), [(1, 2), (2, 3)], "in two steps");
        assert_eq!(chosen(&[deltas[0], (1, 2, 6 * mib), deltas[2]], &[1], 3), [(1, 3)], "in one");
        assert_eq!(chosen(&deltas, &[1, 2], 3), [(2, 3)], "the nearest of what is here");
        assert_eq!(chosen(&deltas, &[], 3), [(0, 3)], "from nothing");
        assert_eq!(chosen(&deltas, &[7], 2), []);
        assert_eq!(chosen(&deltas, &[3], 3), [], "nothing to do");
        // Circles and endless chains of a list that lies.
        assert_eq!(chosen(&[(2, 3, 1), (3, 2, 1)], &[1], 3), []);
        let endless: Vec<_> = (1..200).map(|at| (at, at + 1, u64::MAX)).collect();
        assert_eq!(chosen(&endless, &[1], 200), []);
    }

    fn id(name: &str) -> ChunkId {
        ChunkId::of(name.as_bytes())
    }

    fn chunks(names: &str) -> Vec<DeltaChunk> {
        names.split_whitespace().map(|name| DeltaChunk { id: id(name), len: 1 }).collect()
    }

    fn frame(outputs: &str, bases: &str, payload_len: u32) -> DeltaFrame {
        let (outputs, bases) = (chunks(outputs), chunks(bases));
        DeltaFrame { outputs, bases, encoding: 1, payload_len, payload_hash: [0; 16] }
    }

    fn selected(deltas: &[Vec<DeltaFrame>], wanted: &[(&str, u64)], here: &str) -> Vec<FrameAt> {
        let deltas: Vec<_> =
            deltas.iter().map(|frames| Delta { base: None, target: snapshot(9), frames: frames.clone() }).collect();
        let wanted = wanted.iter().map(|(name, cost)| (id(name), *cost)).collect();
        let here: HashSet<ChunkId> = chunks(here).iter().map(|chunk| chunk.id).collect();
        frames(&deltas.iter().collect::<Vec<_>>(), &wanted, |id| here.contains(id), &HashSet::new())
    }

    #[test]
    fn frames_are_taken_where_they_save() {
        let one = [vec![frame("x y", "a", 10), frame("z", "b", 10)]];
        assert_eq!(selected(&one, &[("x", 6), ("y", 6), ("z", 11)], "a b"), [(0, 0), (0, 1)]);
        assert_eq!(selected(&one, &[("x", 6), ("y", 6), ("z", 11)], "a"), [(0, 0)], "only what has its base");
        assert_eq!(selected(&one, &[("x", 6), ("z", 10)], "a b"), [], "no dearer than without");
    }

    #[test]
    fn a_chain_is_taken_where_all_of_it_saves() {
        let two = [vec![frame("m", "a", 10), frame("n", "a", 10)], vec![frame("x", "m", 5), frame("y", "a", 5)]];
        assert_eq!(selected(&two, &[("x", 20), ("y", 6)], "a"), [(0, 0), (1, 0), (1, 1)]);
        assert_eq!(selected(&two, &[("x", 12), ("y", 6)], "a"), [(1, 1)], "15 bytes for 12 are no saving");
        assert_eq!(selected(&two, &[("x", 12), ("y", 6)], "a m"), [(1, 0), (1, 1)], "what is here need not be made");
        let unknown = [vec![DeltaFrame { encoding: 4, ..frame("x", "a", 1) }]];
        assert_eq!(selected(&unknown, &[("x", 20)], "a"), []);
        let backwards = [vec![frame("x", "m", 1), frame("m", "a", 1)]];
        assert_eq!(selected(&backwards, &[("x", 20)], "a"), [], "frames are used in their order");
    }
}
