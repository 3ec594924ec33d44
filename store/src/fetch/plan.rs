// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Needed chunks → ranges of packs to ask for.
//!
//! Invariant: a plan is a plain value; making one does no I/O.

use std::time::Duration;

use super::deltas::DeltaPlan;
use crate::backend::http::Link;
use crate::format::table::Location;
use crate::id::{ChunkId, PackId};

/// Bytes that may be fetched for nothing if that saves a request: least, and most.
const GAP_RANGE: (u64, u64) = (256 << 10, 1 << 20);
/// Longest request, in bytes.
const REQUEST_BYTES_MAX: u64 = 32 << 20;
/// Memory for requests under way, all together, in bytes.
const IN_FLIGHT_BYTES: u64 = 96 << 20;
/// No request is to take longer, if the line stays as it is.
const REQUEST_TIME: Duration = Duration::from_secs(600);
/// The same for what is kept only once all of it is there, and its least and most bytes.
const WHOLE_TIME: Duration = Duration::from_secs(10);
const WHOLE_RANGE: (u64, u64) = (1 << 20, 16 << 20);
/// Where an answer takes so long, more requests are kept under way.
const FAR: Duration = Duration::from_millis(100);
/// Requests under way together: near and far.
const AT_ONCE: (usize, usize) = (4, 8);
/// Once so many percent of a pack are needed, the rest of it between them is not worth a request.
const MOST_PERCENT: u64 = 75;

/// What a plan keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Two records with no more than this many bytes between them are asked for together.
    pub gap_bytes: u64,
    /// A range is no longer than this, unless one record is.
    pub request_bytes: u64,
}

impl FetchLimits {
    /// What suits a way that is so fast, for so many requests at a time: a gap is worth as many bytes as come in the time
    /// that a request takes.
    pub fn of_link(link: Link, requests_at_once: usize) -> FetchLimits {
        let Link { latency, bytes_per_second } = link;
        let at_once = requests_at_once.max(1) as u64;
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let at_once_f = at_once as f64;
        FetchLimits {
            gap_bytes: bytes_in(latency, bytes_per_second).clamp(GAP_RANGE.0, GAP_RANGE.1),
            request_bytes: bytes_in(REQUEST_TIME, bytes_per_second / at_once_f)
                .clamp(GAP_RANGE.1, REQUEST_BYTES_MAX.min(IN_FLIGHT_BYTES / at_once)),
        }
    }
}

/// Longest request for what is kept only once all of it is there, in bytes.
pub(super) fn whole_request_bytes(link: Link) -> u64 {
    bytes_in(WHOLE_TIME, link.bytes_per_second).clamp(WHOLE_RANGE.0, WHOLE_RANGE.1)
}

/// How many requests to keep under way.
pub(crate) fn requests_at_once(link: Link) -> usize {
    if link.latency < FAR { AT_ONCE.0 } else { AT_ONCE.1 }
}

/// Bytes that come in `time`.
fn bytes_in(time: Duration, bytes_per_second: f64) -> u64 {
    let bytes = (time.as_secs_f64() * bytes_per_second).clamp(0.0, REQUEST_BYTES_MAX as f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    let bytes = bytes as u64;
    bytes
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRange {
    /// Of which pack.
    pub pack: PackId,
    /// First byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
    /// The records in it that are needed, in file order.
    pub chunks: Vec<(ChunkId, Location)>,
}

/// What will be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchPlan {
    /// The requests, by pack and offset.
    pub ranges: Vec<PackRange>,
    /// Chunks that they bring.
    pub chunks: u64,
    /// Bytes of the records of these.
    pub needed_bytes: u64,
    /// Bytes that are asked for, those between the records too.
    pub bytes: u64,
}

/// All that will be asked for.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    /// First, of deltas.
    pub deltas: DeltaPlan,
    /// Then, for what they do not give, of packs.
    pub packs: FetchPlan,
}

impl Ahead {
    /// Bytes that are kept of it until they are needed.
    pub fn kept_bytes(&self) -> u64 {
        let heads = self.packs.chunks.saturating_mul(super::near::HEAD_LEN as u64);
        self.deltas.kept_bytes.saturating_add(self.packs.needed_bytes).saturating_add(heads)
    }
}

impl FetchPlan {
    /// Plans requests for `needed`, of which each is asked for once. `pack_len` gives the length of a pack.
    ///
    /// The ranges of one pack do not overlap, as the records of a sound pack do not.
    pub fn new(
        needed: impl IntoIterator<Item = (ChunkId, Location)>,
        pack_len: impl Fn(&PackId) -> Option<u64>,
        limits: FetchLimits,
    ) -> FetchPlan {
        let mut needed: Vec<(ChunkId, Location)> = needed.into_iter().collect();
        needed.sort_unstable_by_key(|(id, at)| (*id, at.pack, at.offset));
        needed.dedup_by_key(|(id, _)| *id);
        needed.sort_unstable_by_key(|(id, at)| (at.pack, at.offset, *id));
        let mut plan = FetchPlan::default();
        for of_pack in needed.chunk_by(|(_, a), (_, b)| a.pack == b.pack) {
            let pack = of_pack[0].1.pack;
            let wanted = of_pack.iter().map(|(_, at)| u64::from(at.stored_len)).fold(0, u64::saturating_add);
            let is_most =
                pack_len(&pack).is_some_and(|len| wanted.saturating_mul(100) >= len.saturating_mul(MOST_PERCENT));
            let gap = if is_most { u64::MAX } else { limits.gap_bytes };
            plan.add_pack(pack, of_pack, gap, limits.request_bytes);
        }
        plan
    }

    fn add_pack(&mut self, pack: PackId, needed: &[(ChunkId, Location)], gap: u64, request_bytes: u64) {
        let mut open: Option<PackRange> = None;
        for (id, at) in needed {
            let end = at.offset.saturating_add(u64::from(at.stored_len));
            let fits = open.as_ref().is_some_and(|range| {
                let open_end = range.start + range.len;
                at.offset.saturating_sub(open_end) <= gap && end.max(open_end) - range.start <= request_bytes
            });
            if !fits {
                self.ranges.extend(open.take());
            }
            let range = open.get_or_insert(PackRange { pack, start: at.offset, len: 0, chunks: Vec::new() });
            range.len = range.len.max(end - range.start);
            range.chunks.push((*id, *at));
            self.needed_bytes += u64::from(at.stored_len);
            self.chunks += 1;
        }
        self.ranges.extend(open);
        self.bytes = self.ranges.iter().map(|range| range.len).sum();
    }

    /// Number of requests.
    pub fn requests(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::format::pack::Encoding;

    /// Records of packs, back to back from offset 16 as the format has them; whether each is needed.
    fn packs() -> impl Strategy<Value = Vec<Vec<(u32, bool)>>> {
        prop::collection::vec(prop::collection::vec((1u32..200_000, any::<bool>()), 1..60), 1..5)
    }

    fn pack_id(at: usize) -> PackId {
        PackId::of(&[u8::try_from(at).unwrap()])
    }

    /// The needed records and the lengths of the packs.
    fn lay_out(packs: &[Vec<(u32, bool)>]) -> (Vec<(ChunkId, Location)>, Vec<u64>) {
        let (mut needed, mut lens) = (Vec::new(), Vec::new());
        for (number, records) in packs.iter().enumerate() {
            let mut offset = 16;
            for (stored_len, is_needed) in records {
                let id = ChunkId::of(format!("{number} {offset}").as_bytes());
                let (pack, encoding) = (pack_id(number), Encoding::Raw);
                let at = Location { pack, offset, stored_len: *stored_len, plain_len: *stored_len, encoding };
                if *is_needed {
                    needed.push((id, at));
                }
                offset += u64::from(*stored_len);
            }
            lens.push(offset + 108);
        }
        (needed, lens)
    }

    proptest! {
        #[test]
        fn a_plan_covers_what_is_needed_exactly(packs in packs(), gap in 0u64..300_000, request in 1u64..2_000_000) {
            let (needed, lens) = lay_out(&packs);
            let limits = FetchLimits { gap_bytes: gap, request_bytes: request };
            let len_of = |pack: &PackId| (0..lens.len()).find(|at| pack_id(*at) == *pack).map(|at| lens[at]);
            let plan = FetchPlan::new(needed.iter().rev().chain(&needed).copied(), len_of, limits);

            let planned: Vec<_> = plan.ranges.iter().flat_map(|range| &range.chunks).copied().collect();
            prop_assert_eq!(planned.len(), needed.len());
            let ids = |chunks: &[(ChunkId, Location)]| chunks.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>();
            prop_assert_eq!(ids(&planned), ids(&needed));
            prop_assert_eq!(plan.chunks, needed.len() as u64);
            prop_assert_eq!(plan.needed_bytes, needed.iter().map(|(_, at)| u64::from(at.stored_len)).sum::<u64>());
            prop_assert_eq!(plan.bytes, plan.ranges.iter().map(|range| range.len).sum::<u64>());
            for range in &plan.ranges {
                let (first, last) = (range.chunks[0].1, range.chunks[range.chunks.len() - 1].1);
                prop_assert!(range.chunks.iter().all(|(_, at)| at.pack == range.pack));
                prop_assert_eq!(range.start, first.offset, "no byte before the first record");
                let end = last.offset + u64::from(last.stored_len);
                prop_assert_eq!(range.start + range.len, end, "nor after the last");
                prop_assert!(range.len <= request || range.chunks.len() == 1);
            }
            for pair in plan.ranges.windows(2).filter(|pair| pair[0].pack == pair[1].pack) {
                prop_assert!(pair[0].start + pair[0].len <= pair[1].start, "in order, without overlap");
            }
        }

        #[test]
        fn a_gap_is_closed_exactly_where_it_is_worth_it(packs in packs(), gap in 0u64..300_000) {
            let (needed, _) = lay_out(&packs);
            let limits = FetchLimits { gap_bytes: gap, request_bytes: u64::MAX };
            let plan = FetchPlan::new(needed, |_| None, limits);
            for range in &plan.ranges {
                for pair in range.chunks.windows(2) {
                    let (a, b) = (pair[0].1, pair[1].1);
                    prop_assert!(b.offset - (a.offset + u64::from(a.stored_len)) <= gap);
                }
            }
            for pair in plan.ranges.windows(2).filter(|pair| pair[0].pack == pair[1].pack) {
                prop_assert!(pair[1].start - (pair[0].start + pair[0].len) > gap);
            }
        }
    }

    #[test]
    fn most_of_a_pack_is_one_request() {
        let packs = [(0..100).map(|at| (10_000, at % 5 > 0)).collect::<Vec<_>>()];
        let (needed, lens) = lay_out(&packs);
        let none = FetchLimits { gap_bytes: 0, request_bytes: 32 << 20 };
        assert_eq!(FetchPlan::new(needed.clone(), |_| Some(lens[0]), none).requests(), 1);
        assert_eq!(FetchPlan::new(needed[1..4].to_vec(), |_| Some(lens[0]), none).requests(), 1);
        assert_eq!(FetchPlan::new(needed, |_| None, none).requests(), 20);
    }

    /// Offsets and lengths of a table that lies are checked before; a plan must get along with any all the same.
    #[test]
    fn places_that_cannot_be_do_no_harm() {
        let at = |offset, stored_len| Location {
            pack: pack_id(0),
            offset,
            stored_len,
            plain_len: 1,
            encoding: Encoding::Raw,
        };
        let ids = [0u8, 1, 2, 3].map(|at| ChunkId::of(&[at]));
        let needed = [(ids[0], at(u64::MAX, u32::MAX)), (ids[1], at(0, 9)), (ids[2], at(3, 2)), (ids[3], at(0, 0))];
        let plan = FetchPlan::new(needed, |_| Some(0), FetchLimits { gap_bytes: u64::MAX, request_bytes: 1 << 20 });
        assert_eq!(plan.chunks, 4);
        assert_eq!(plan.ranges.iter().map(|range| (range.start, range.len)).next(), Some((0, 9)));
    }

    #[test]
    fn limits_follow_the_link() {
        let link = |ms, rate| Link { latency: Duration::from_millis(ms), bytes_per_second: rate };
        assert_eq!(FetchLimits::of_link(link(1, 1e6), 4).gap_bytes, 256 << 10);
        assert_eq!(FetchLimits::of_link(link(50, 1e7), 4).gap_bytes, 500_000);
        assert_eq!(FetchLimits::of_link(link(300, 1e9), 4).gap_bytes, 1 << 20);
        assert_eq!(FetchLimits::of_link(link(300, f64::INFINITY), 0).gap_bytes, 1 << 20);
        assert_eq!(
            FetchLimits::of_link(link(0, f64::NAN), 1),
            FetchLimits { gap_bytes: 256 << 10, request_bytes: 1 << 20 }
        );
        assert_eq!(FetchLimits::of_link(link(1, 1e9), 1).request_bytes, 32 << 20);
        assert_eq!(FetchLimits::of_link(link(1, 1e9), 8).request_bytes, 12 << 20);
        assert_eq!(FetchLimits::of_link(link(1, 20e3), 4).request_bytes, 3_000_000, "ten minutes of the line");
        let whole = [20e3, 600e3, 1e9].map(|rate| whole_request_bytes(link(1, rate)));
        assert_eq!(whole, [1 << 20, 6_000_000, 16 << 20], "ten seconds of it");
    }
}
