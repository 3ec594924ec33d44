// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was deflated, made again out of what it holds (encoding 3, format-spec §70.13).
//!
//! A gzip file of which one byte of the content has changed has nothing in common with the file before. Its content has.

use std::borrow::Cow;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use super::deflate::{self, Part};
use super::{Effort, decode_plain, error, varint};
use crate::format::{DecodeError, Reason};
use crate::limits;

/// Kind of a piece that is copied.
const COPY: u32 = 0;
/// Flag of a piece: the stream ends with it. The bits below are those that lead.
const LAST: u32 = 8;
/// A part of the bases that is inflated, and takes at least so many bytes of a payload.
const INFLATE_LEN_MIN: usize = 3;
const PIECE_LEN_MIN: usize = 2;

/// A stream in the bases, whose plain bytes stand behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inflate {
    /// Place in the bases.
    pub start: usize,
    /// Bytes there.
    pub stored_len: usize,
    /// Bytes that they hold.
    pub plain_len: usize,
}

/// What is next of the output, and what of the plain bytes it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many plain bytes as they are.
    Copy(usize),
    /// A part of a stream.
    Deflate(Again),
}

/// A part of a stream: what [`Part`] needs, and which of its bytes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// As gzip has it.
    pub level: u8,
    /// Bits in its first byte that belong to what is before it.
    pub lead: u8,
    /// Plain bytes that precede it.
    pub window: usize,
    /// Plain bytes of it.
    pub len: usize,
    /// Plain bytes that follow it; `None` when the stream ends with it.
    pub ahead: Option<usize>,
    /// Length of the match that was not taken at the place before: 2 for none.
    pub before: usize,
    /// Bytes at its begin that are not wanted.
    pub skip: usize,
    /// Bytes that are.
    pub take: usize,
}

impl Again {
    fn plain_len(&self) -> usize {
        [self.window, self.len, self.ahead.unwrap_or(0)].into_iter().fold(0, usize::saturating_add)
    }
}

/// How an output is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// In the order of their places.
    pub inflate: Vec<Inflate>,
    /// In the order of the output.
    pub pieces: Vec<Piece>,
}

/// The payload for `plain`, of which `recipe` makes the output, given bases.
///
/// # Errors
/// When zstd has no memory.
pub fn encode(recipe: &Recipe, base: &[u8], plain: &[u8], effort: Effort) -> std::io::Result<Vec<u8>> {
    let number = |value: usize| u32::try_from(value).expect("bounded by the limits of a frame");
    let mut payload = Vec::new();
    let mut put = |value: usize| varint::push(&mut payload, number(value));
    put(recipe.inflate.len());
    let mut end = 0;
    for range in &recipe.inflate {
        [range.start - end, range.stored_len, range.plain_len].into_iter().for_each(&mut put);
        end = range.start + range.stored_len;
    }
    put(recipe.pieces.len());
    for piece in &recipe.pieces {
        match *piece {
            Piece::Copy(len) => [COPY as usize, len].into_iter().for_each(&mut put),
            Piece::Deflate(again) => {
                let last = if again.ahead.is_none() { LAST as usize } else { 0 };
                let head = [usize::from(again.level), usize::from(again.lead) + last, again.window, again.len];
                head.into_iter().chain(again.ahead).for_each(&mut put);
                [again.before, again.skip, again.take].into_iter().for_each(&mut put);
            }
        }
    }
    let base = expanded(base, &recipe.inflate).map_err(std::io::Error::other)?;
    let inner = super::encode(&base, plain, effort)?;
    put(plain.len());
    put(inner.encoding.into());
    payload.extend(inner.payload);
    Ok(payload)
}

/// Decodes a payload of exactly `output_len` bytes.
///
/// # Errors
/// [`DecodeError`] at the first rule that is broken.
pub fn decode(base: &[u8], payload: &[u8], output_len: usize) -> Result<Vec<u8>, DecodeError> {
    let mut rest = payload;
    let recipe = recipe(&mut rest)?;
    let plain_len = take(&mut rest)?;
    let encoding = u8::try_from(take(&mut rest)?).unwrap_or(u8::MAX);
    check(&recipe, plain_len, output_len)?;
    let plain = {
        let base = expanded(base, &recipe.inflate)?;
        decode_plain(encoding, &base, rest, plain_len)?
    };
    let mut output = Vec::new();
    output.try_reserve_exact(output_len).map_err(|_| rule("output", "no memory for a decoder"))?;
    let mut left = &plain[..];
    for piece in &recipe.pieces {
        match *piece {
            Piece::Copy(len) => output.extend_from_slice(split(&mut left, len)),
            Piece::Deflate(again) => {
                let data = split(&mut left, again.plain_len());
                let Again { level, lead, window, ahead, before, .. } = again;
                let made = deflate::deflate(Part { data, window, ahead, level, before, lead }, |_, _| true);
                let made = made.ok_or_else(|| rule("piece", "no block ends where the piece does"))?;
                let wanted = made.get(again.skip..).and_then(|made| made.get(..again.take));
                output.extend_from_slice(wanted.ok_or_else(|| rule("piece", "it is shorter than it says"))?);
            }
        }
    }
    Ok(output)
}

fn split<'p>(rest: &mut &'p [u8], len: usize) -> &'p [u8] {
    let (first, after) = rest.split_at(len);
    *rest = after;
    first
}

/// What is told before the inner payload.
fn recipe(rest: &mut &[u8]) -> Result<Recipe, DecodeError> {
    let mut recipe = Recipe::default();
    let mut end = 0_usize;
    for _ in 0..count(rest, INFLATE_LEN_MIN)? {
        let (gap, stored_len, plain_len) = (take(rest)?, take(rest)?, take(rest)?);
        let start = end.saturating_add(gap);
        end = start.saturating_add(stored_len);
        recipe.inflate.push(Inflate { start, stored_len, plain_len });
    }
    for _ in 0..count(rest, PIECE_LEN_MIN)? {
        recipe.pieces.push(piece(rest)?);
    }
    Ok(recipe)
}

fn piece(rest: &mut &[u8]) -> Result<Piece, DecodeError> {
    let kind = varint::take(rest)?;
    if kind == COPY {
        return Ok(Piece::Copy(take(rest)?));
    }
    let level = u8::try_from(kind).ok().filter(|level| (4..=9).contains(level));
    let level = level.ok_or_else(|| error("piece", Reason::Value { found: kind.into() }))?;
    let flags = varint::take(rest)?;
    let lead = u8::try_from(flags & (LAST - 1)).expect("three bits");
    if flags >= 2 * LAST {
        return Err(error("flags", Reason::Value { found: flags.into() }));
    }
    let (window, len) = (take(rest)?, take(rest)?);
    let ahead = if flags & LAST == 0 { Some(take(rest)?) } else { None };
    let (before, skip, wanted) = (take(rest)?, take(rest)?, take(rest)?);
    Ok(Piece::Deflate(Again { level, lead, window, len, ahead, before, skip, take: wanted }))
}

/// A number of things, each of which takes at least `len_min` bytes of what follows.
fn count(rest: &mut &[u8], len_min: usize) -> Result<usize, DecodeError> {
    let count = take(rest)?;
    if count > rest.len() / len_min { Err(error("count", Reason::Truncated)) } else { Ok(count) }
}

fn take(rest: &mut &[u8]) -> Result<usize, DecodeError> {
    usize::try_from(varint::take(rest)?).map_err(|_| error("varint", Reason::Truncated))
}

/// Lengths against each other and the limits, before anything is decoded.
fn check(recipe: &Recipe, plain_len: usize, output_len: usize) -> Result<(), DecodeError> {
    let (found, limit) = (plain_len as u64, limits::DELTA_PLAIN_BYTES_MAX);
    if found > limit {
        return Err(error("plain_len", Reason::Limit { found, limit }));
    }
    let (mut plain, mut output) = (0_usize, 0_usize);
    for piece in &recipe.pieces {
        let (uses, gives) = match piece {
            Piece::Copy(len) => (*len, *len),
            Piece::Deflate(again) => (again.plain_len(), again.take),
        };
        (plain, output) = (plain.saturating_add(uses), output.saturating_add(gives));
    }
    if (plain, output) == (plain_len, output_len) {
        Ok(())
    } else {
        Err(rule("pieces", "they do not use the plain bytes up, or are not the output"))
    }
}

/// The bases, and behind them what streams in them hold.
fn expanded<'b>(base: &'b [u8], ranges: &[Inflate]) -> Result<Cow<'b, [u8]>, DecodeError> {
    if ranges.is_empty() {
        return Ok(Cow::Borrowed(base));
    }
    let all = ranges.iter().fold(base.len(), |sum, range| sum.saturating_add(range.plain_len));
    // The bases are in memory twice.
    let (found, limit) = ((base.len().saturating_add(all)) as u64, limits::DELTA_BASE_BYTES_MAX);
    if found > limit {
        return Err(error("inflate", Reason::Limit { found, limit }));
    }
    let mut out = Vec::new();
    out.try_reserve_exact(all).map_err(|_| rule("inflate", "no memory for a decoder"))?;
    out.extend_from_slice(base);
    for range in ranges {
        let stored = base.get(range.start..range.start.saturating_add(range.stored_len));
        let stored = stored.ok_or_else(|| rule("inflate", "a stream beyond the bases"))?;
        let begin = out.len();
        out.resize(begin + range.plain_len, 0);
        if inflate(stored, &mut out[begin..]) != Some(stored.len()) {
            return Err(rule("inflate", "no stream of these lengths"));
        }
    }
    Ok(Cow::Owned(out))
}

/// Inflates a stream that has exactly as many plain bytes as `out`. Gives how many of `stored` it takes.
pub fn inflate(stored: &[u8], out: &mut [u8]) -> Option<usize> {
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, consumed, written) = decompress(&mut DecompressorOxide::new(), stored, out, 0, flags);
    (status == TINFLStatus::Done && written == out.len()).then_some(consumed)
}

fn rule(field: &'static str, what: &'static str) -> DecodeError {
    error(field, Reason::Rule(what))
}
