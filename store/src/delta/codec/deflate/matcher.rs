// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Earlier places of the same bytes, as GNU gzip looks for them (format-spec §70.14.2).

/// Shortest and longest match, in bytes.
pub(super) const MATCH_MIN: usize = 3;
pub(super) const MATCH_MAX: usize = 258;
/// Places that are remembered.
const WINDOW: usize = 1 << 15;
/// How far back a match may be.
const DISTANCE_MAX: usize = WINDOW - MATCH_MAX - MATCH_MIN - 1;
/// A match of three bytes from farther away is none.
const TOO_FAR: usize = 4096;
const HASH_MASK: usize = (1 << 15) - 1;

/// How hard to look, by level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    /// A match as long as this makes the search for a better one four times shorter.
    good: usize,
    /// After a match as long as this none is looked for at the next place.
    lazy: usize,
    /// A match as long as this ends a search.
    nice: usize,
    /// Places that are looked at.
    chain: usize,
}

/// Of levels 4 to 9.
const TUNINGS: [Tuning; 6] = [
    Tuning { good: 4, lazy: 4, nice: 16, chain: 16 },
    Tuning { good: 8, lazy: 16, nice: 32, chain: 32 },
    Tuning { good: 8, lazy: 16, nice: 128, chain: 128 },
    Tuning { good: 8, lazy: 32, nice: 128, chain: 256 },
    Tuning { good: 32, lazy: 128, nice: 258, chain: 1024 },
    Tuning { good: 32, lazy: 258, nice: 258, chain: 4096 },
];

impl Tuning {
    /// Of a level; `None` where there is none.
    pub(super) fn of_level(level: u8) -> Option<Tuning> {
        TUNINGS.get(usize::from(level.checked_sub(4)?)).copied()
    }
}

/// Places by the hash of their first three bytes, newest first. Place 0 is none.
#[derive(Debug)]
pub(super) struct Matcher<'d> {
    data: &'d [u8],
    tuning: Tuning,
    newest: Vec<u32>,
    older: Vec<u32>,
    /// Where the last match that was found is.
    found: usize,
}

impl<'d> Matcher<'d> {
    pub(super) fn new(data: &'d [u8], tuning: Tuning) -> Self {
        Matcher { data, tuning, newest: vec![0; WINDOW], older: vec![0; WINDOW], found: 0 }
    }

    /// The byte at a place; what is behind the end is 0.
    fn byte(&self, at: usize) -> u8 {
        self.data.get(at).copied().unwrap_or(0)
    }

    /// Remembers a place. Gives the last one before it with the same hash.
    pub(super) fn insert(&mut self, at: usize) -> usize {
        let [a, b, c] = [0, 1, 2].map(|next| usize::from(self.byte(at + next)));
        let hash = (a << 10 ^ b << 5 ^ c) & HASH_MASK;
        let before = self.newest[hash];
        self.older[at % WINDOW] = before;
        self.newest[hash] = u32::try_from(at).expect("data is shorter than 2^32");
        before as usize
    }

    /// The length of the match at a place that was just inserted: 2 for none. `candidate` is what inserting gave,
    /// `before` the length of the match at the place before.
    pub(super) fn find(&mut self, at: usize, candidate: usize, before: usize) -> usize {
        if candidate == 0 || before >= self.tuning.lazy || at - candidate > DISTANCE_MAX {
            return MATCH_MIN - 1;
        }
        let len = self.longest(at, candidate, before).min(self.data.len() - at);
        if len == MATCH_MIN && at - self.found > TOO_FAR { len - 1 } else { len }
    }

    /// Where the last match is.
    pub(super) fn found(&self) -> usize {
        self.found
    }

    fn longest(&mut self, at: usize, mut candidate: usize, before: usize) -> usize {
        let Tuning { good, nice, chain, .. } = self.tuning;
        let mut left = if before >= good { chain / 4 } else { chain };
        let mut best = before;
        let limit = at.saturating_sub(DISTANCE_MAX);
        loop {
            let could_be_longer = self.byte(candidate + best) == self.byte(at + best)
                && self.byte(candidate + best - 1) == self.byte(at + best - 1);
            if could_be_longer {
                let len = self.equal(candidate, at);
                if len > best {
                    self.found = candidate;
                    best = len;
                    if len >= nice {
                        break;
                    }
                }
            }
            candidate = self.older[candidate % WINDOW] as usize;
            left -= 1;
            if candidate <= limit || left == 0 {
                break;
            }
        }
        best
    }

    /// Equal bytes at two places, at most [`MATCH_MAX`].
    fn equal(&self, earlier: usize, later: usize) -> usize {
        const WIDE: usize = 8;
        let (Some(a), Some(b)) = (self.data.get(earlier..earlier + MATCH_MAX), self.data.get(later..later + MATCH_MAX))
        else {
            return (0..MATCH_MAX).take_while(|i| self.byte(earlier + i) == self.byte(later + i)).count();
        };
        let wide = a.chunks_exact(WIDE).zip(b.chunks_exact(WIDE)).take_while(|(a, b)| a == b).count() * WIDE;
        wide + a[wide..].iter().zip(&b[wide..]).take_while(|(a, b)| a == b).count()
    }
}
