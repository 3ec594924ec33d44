// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plain bytes → the DEFLATE stream that GNU gzip makes of them, bit for bit (format-spec §70.14).
//!
//! Not written for good compression but to do again what has been done: every choice is the one that the program makes
//! that made most of the gzip files of a Linux system.

mod bits;
mod matcher;
mod trees;

use bits::BitWriter;
use matcher::{MATCH_MIN, Matcher, Tuning};
use trees::{Block, DISTANCE_EXTRA, Symbol};

/// Bytes before a part of a stream that what follows may refer to.
pub const WINDOW_BYTES: usize = 1 << 15;
/// Bytes behind a part of a stream that have a say in where its last block ends.
pub const AHEAD_BYTES: usize = 262;
/// A block ends with so many symbols, or with so many matches.
const SYMBOLS_MAX: usize = 0x7fff;
const MATCHES_MAX: usize = 0x8000;
/// It is looked at whether a block should end whenever it has a multiple of so many symbols.
const LOOK_SYMBOLS: usize = 0x1000;

/// Where a block begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockStart {
    /// Place in the data.
    pub at: usize,
    /// Bits of the stream before it.
    pub bit: u64,
    /// Length of the match at the place before, which was not taken: 2 for none.
    pub before: usize,
}

/// A part of a stream, from one block's begin to another's or to the end.
#[derive(Debug, Clone, Copy)]
pub struct Part<'d> {
    /// What precedes the part, the part, and what follows it.
    pub data: &'d [u8],
    /// Of it, what precedes the part.
    pub window: usize,
    /// Of it, what follows the part; `None` when the stream ends with it.
    pub ahead: Option<usize>,
    /// 4..=9, as gzip has them.
    pub level: u8,
    /// Length of the match that was not taken at the place before the part's first: 2 for none.
    pub before: usize,
    /// Bits in the first byte that belong to what is before the part.
    pub lead: u8,
}

/// The bytes of a part: the leading bits are 0, and what is missing in its last byte, too. `None` for a level that does not
/// exist, and where no block ends where the part does. `on_block` hears of each block's end, which is the next one's begin,
/// and of the bytes that are complete by then; with `false` it ends the work.
pub fn deflate(part: Part<'_>, mut on_block: impl FnMut(BlockStart, &[u8]) -> bool) -> Option<Vec<u8>> {
    let tuning = Tuning::of_level(part.level)?;
    let end = part.data.len().checked_sub(part.ahead.unwrap_or(0))?;
    if part.window > end || part.before < MATCH_MIN - 1 {
        return None;
    }
    let mut matcher = Matcher::new(part.data, tuning);
    for at in 0..part.window {
        matcher.insert(at);
    }
    let mut work = Work { data: part.data, out: BitWriter::new(part.lead), block: Block::new(), begin: part.window };
    let mut is_first = true;
    let (mut at, mut len, mut is_waiting) = (part.window, part.before, false);
    while at < part.data.len() {
        let candidate = matcher.insert(at);
        let (before, before_found) = (len, matcher.found());
        len = matcher.find(at, candidate, before);
        if is_first && before >= MATCH_MIN && len <= before {
            // What precedes the part would have ended otherwise.
            return None;
        }
        // Whether a block ends now, and where the next one begins.
        let mut next = None;
        if !is_first && before >= MATCH_MIN && len <= before {
            let is_full = work.push(matched(before, at - 1 - before_found), at);
            for inserted in at + 1..at + before - 1 {
                matcher.insert(inserted);
            }
            at += before - 1;
            (len, is_waiting) = (MATCH_MIN - 1, false);
            next = is_full.then_some((at, MATCH_MIN - 1));
        } else {
            if is_waiting {
                let is_full = work.push(Symbol::Literal(part.data[at - 1]), at);
                next = is_full.then_some((at, before));
            }
            is_waiting = true;
            at += 1;
        }
        is_first = false;
        if let Some((begin, before)) = next {
            work.end_block(begin, false);
            let start = BlockStart { at: begin, bit: work.out.len_bits(), before };
            if !on_block(start, work.out.whole()) {
                return None;
            }
            if part.ahead.is_some() && begin >= end {
                return (begin == end).then(|| work.out.finish());
            }
        }
    }
    if part.ahead.is_some() {
        return None;
    }
    if is_waiting {
        work.push(Symbol::Literal(part.data[at - 1]), at);
    }
    work.end_block(at, true);
    Some(work.out.finish())
}

fn matched(len: usize, distance: usize) -> Symbol {
    let number = |value: usize| u16::try_from(value).expect("lengths are at most 258, distances at most 32,506");
    Symbol::Match(number(len), number(distance))
}

/// The block under way.
struct Work<'d> {
    data: &'d [u8],
    out: BitWriter,
    block: Block,
    begin: usize,
}

impl Work<'_> {
    /// Adds a symbol; `at` is the place that is being looked at. Gives whether the block is full.
    fn push(&mut self, symbol: Symbol, at: usize) -> bool {
        self.block.push(symbol);
        let (symbols, matches) = (self.block.symbols.len(), self.block.matches);
        if symbols.is_multiple_of(LOOK_SYMBOLS) {
            let of_code = |(count, extra): (&u32, u8)| u64::from(*count) * (5 + u64::from(extra));
            let distances: u64 = self.block.distances.iter().zip(DISTANCE_EXTRA).map(of_code).sum();
            let estimate = (8 * symbols as u64 + distances) / 8;
            if matches < symbols / 2 && estimate < (at - self.begin) as u64 / 2 {
                return true;
            }
        }
        symbols == SYMBOLS_MAX || matches == MATCHES_MAX
    }

    fn end_block(&mut self, next: usize, is_last: bool) {
        let block = std::mem::replace(&mut self.block, Block::new());
        block.write(&self.data[self.begin..next], is_last, &mut self.out);
        self.begin = next;
    }
}

#[cfg(test)]
mod tests;
