// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Places of a base that an output resembles, by suffix sorting, as bsdiff has them.

/// One step of an output: bytes that resemble the base, then bytes that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Where in the base the resembling bytes are.
    pub at: usize,
    /// How many resemble it.
    pub diff: usize,
    /// How many follow that do not.
    pub extra: usize,
}

/// Bytes that are compared while the sorted suffixes are searched; a match that is longer is followed to its end after.
const SEARCH_BYTES: usize = 128;
/// So many equal bytes where one is already need no search.
const SURE_BYTES: usize = 16;
/// A match must give so many more equal bytes than staying does.
const GAIN_BYTES: usize = 8;
/// Shortest match that is worth looking at.
const MATCH_BYTES: usize = 10;

/// A base and its sorted suffixes. Memory: five times the base.
struct Suffixes<'b> {
    base: &'b [u8],
    sorted: Vec<i32>,
    /// Where the suffixes of each first two bytes begin; those of one byte belong to no bucket.
    begins: Vec<u32>,
}

impl<'b> Suffixes<'b> {
    fn new(base: &'b [u8]) -> Self {
        let mut sorted = vec![0; base.len()];
        divsufsort::sort_in_place(base, &mut sorted);
        let mut counts = vec![0_u32; (1 << 16) + 1];
        base.windows(2).for_each(|pair| counts[bucket(pair) + 1] += 1);
        // The suffix of the last byte alone sorts before all longer ones that begin with this byte.
        let alone = base.last().map_or(usize::MAX, |last| usize::from(*last) << 8);
        let mut sum = 0;
        for (key, count) in counts.iter_mut().enumerate() {
            sum += *count;
            *count = sum + u32::from(key >= alone);
        }
        Suffixes { base, sorted, begins: counts }
    }

    fn at(&self, index: usize) -> usize {
        usize::try_from(self.sorted[index]).expect("places are not negative")
    }

    /// The place whose bytes are longest equal to `wanted`, and how many are; of equal ones, the one that sorts later.
    fn longest(&self, wanted: &[u8]) -> (usize, usize) {
        if wanted.len() < 2 {
            return (0, 0);
        }
        let key = bucket(wanted);
        let index = |begin: u32| usize::try_from(begin).expect("a base has fewer than 2^32 bytes");
        let (first, end) = (index(self.begins[key]), index(self.begins[key + 1]).min(self.sorted.len()));
        let searched = &wanted[..wanted.len().min(SEARCH_BYTES)];
        let (mut low, mut high) = (first, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let suffix = &self.base[self.at(middle)..];
            if suffix[..suffix.len().min(searched.len())] < *searched {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let candidates = low.saturating_sub(1).max(first)..(low + 1).min(end);
        let of = |index| (equal_len(&self.base[self.at(index)..], wanted), self.at(index));
        candidates.map(of).max_by_key(|(len, _)| *len).map_or((0, 0), |(len, at)| (at, len))
    }
}

fn bucket(pair: &[u8]) -> usize {
    usize::from(pair[0]) << 8 | usize::from(pair[1])
}

fn equal_len(a: &[u8], b: &[u8]) -> usize {
    const WIDE: usize = 32;
    let wide = a.chunks_exact(WIDE).zip(b.chunks_exact(WIDE)).take_while(|(a, b)| a == b).count() * WIDE;
    wide + a[wide..].iter().zip(&b[wide..]).take_while(|(a, b)| a == b).count()
}

/// Cuts `output` into steps, given a base that is not empty.
pub fn find(base: &[u8], output: &[u8]) -> Vec<Step> {
    let suffixes = Suffixes::new(base);
    let mut steps = Vec::new();
    // The current step begins here, in output and base.
    let (mut begin, mut begin_at) = (0, 0);
    let (mut scan, mut misses) = (0, 0_usize);
    while scan < output.len() {
        let here = base.get(begin_at + (scan - begin)..).unwrap_or_default();
        let sure = equal_len(here, &output[scan..]);
        if sure >= SURE_BYTES {
            scan += sure;
            misses = 0;
            continue;
        }
        let (at, len) = suffixes.longest(&output[scan..]);
        let stay = here.iter().zip(&output[scan..scan + len]).filter(|(a, b)| a == b).count();
        if len < MATCH_BYTES || len <= stay + GAIN_BYTES {
            misses += 1;
            // What begins in between is found by going back from where it is met.
            scan += if len >= 2 * SURE_BYTES { len - SURE_BYTES } else { 1 + (misses / 256).min(7) };
            continue;
        }
        misses = 0;
        let (forward, back) = reach(base, output, (begin, begin_at), (scan, at));
        steps.push(Step { at: begin_at, diff: forward, extra: scan - back - begin - forward });
        (begin, begin_at) = (scan - back, at - back);
        scan += len;
    }
    let (forward, _) = reach(base, output, (begin, begin_at), (output.len(), 0));
    steps.push(Step { at: begin_at, diff: forward, extra: output.len() - begin - forward });
    steps
}

/// How far the step from `begin` resembles the base onwards, and the next one, whose match is at `next`, backwards; each an
/// output's and a base's place. What both reach goes where more is equal.
fn reach(base: &[u8], output: &[u8], begin: (usize, usize), next: (usize, usize)) -> (usize, usize) {
    let gap = next.0 - begin.0;
    let onwards = base[begin.1..].iter().zip(&output[begin.0..next.0]);
    let mut forward = best_len(onwards.map(|(a, b)| a == b));
    let is_last = next.0 == output.len();
    let backwards = base[..next.1].iter().rev().zip(output[begin.0..next.0].iter().rev());
    let mut back = if is_last { 0 } else { best_len(backwards.map(|(a, b)| a == b)) };
    if let Some(both) = (forward + back).checked_sub(gap).filter(|both| *both > 0) {
        let (from, back_from) = (forward - both, next.1 - back);
        let (mut score, mut best, mut cut) = (0_i64, 0, 0);
        for i in 0..both {
            let byte = output[begin.0 + from + i];
            score += i64::from(base[begin.1 + from + i] == byte) - i64::from(base[back_from + i] == byte);
            if score > best {
                (best, cut) = (score, i + 1);
            }
        }
        forward = from + cut;
        back -= cut;
    }
    (forward, back)
}

/// The length at which equal bytes are most ahead of others.
fn best_len(equal: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut len) = (0_i64, 0, 0);
    for (index, is_equal) in equal.enumerate() {
        score += if is_equal { 1 } else { -1 };
        if score > best {
            (best, len) = (score, index + 1);
        }
    }
    len
}
