// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Differences to places of the base (encoding 2, format-spec §70.10).

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::matches::{self, Step};
use super::prefix::{check_frame, encode_alone};
use super::varint::{self, unzigzag, zigzag};
use super::{Effort, error};
use crate::format::{DecodeError, Reason};

/// Largest zstd window of a stream, as a power of two.
pub const DIFF_WINDOW_LOG_MAX: u32 = 23;
/// Longest plain control stream, in bytes.
pub const DIFF_CONTROL_BYTES_MAX: usize = 4 << 20;
/// Bytes of a stream decoded at a time.
const PIECE_BYTES: usize = 1 << 16;

/// The payload; `None` for a control stream of more than [`DIFF_CONTROL_BYTES_MAX`].
///
/// # Errors
/// When zstd has no memory.
pub fn encode(base: &[u8], output: &[u8], effort: Effort) -> std::io::Result<Option<Vec<u8>>> {
    let steps = matches::find(base, output);
    let control = control(&steps);
    if control.len() > DIFF_CONTROL_BYTES_MAX {
        return Ok(None);
    }
    let (mut diff, mut extra) = (Vec::new(), Vec::new());
    let mut at = 0;
    for step in &steps {
        let old = &base[step.at..step.at + step.diff];
        diff.extend(output[at..].iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
        at += step.diff;
        extra.extend_from_slice(&output[at..at + step.extra]);
        at += step.extra;
    }
    let level = if effort == Effort::Best { 22 } else { 19 };
    let mut payload = Vec::new();
    let mut streams = Vec::new();
    for plain in [&control, &diff, &extra] {
        let before = streams.len();
        if !plain.is_empty() {
            streams.extend(encode_alone(plain, level, DIFF_WINDOW_LOG_MAX)?);
        }
        for len in [plain.len(), streams.len() - before] {
            varint::push(&mut payload, u32::try_from(len).expect("outputs are below 2^32"));
        }
    }
    payload.extend(streams);
    Ok(Some(payload))
}

fn control(steps: &[Step]) -> Vec<u8> {
    let number = |value: usize| u32::try_from(value).expect("places are below 2^32");
    let place = |at: usize| i64::try_from(at).expect("places are below 2^32");
    let mut out = Vec::new();
    varint::push(&mut out, number(steps.len()));
    let mut expected = 0;
    for step in steps {
        varint::push(&mut out, zigzag(place(step.at) - place(expected)));
        expected = step.at + step.diff;
    }
    steps.iter().for_each(|step| varint::push(&mut out, number(step.diff)));
    steps.iter().for_each(|step| varint::push(&mut out, number(step.extra)));
    out
}

/// Decodes a payload of exactly `output_len` bytes.
///
/// # Errors
/// [`DecodeError`] at the first rule that is broken.
pub fn decode(base: &[u8], payload: &[u8], output_len: usize) -> Result<Vec<u8>, DecodeError> {
    let mut rest = payload;
    let mut lens = [(0, 0); 3];
    for (plain, stored) in &mut lens {
        (*plain, *stored) = (take_len(&mut rest)?, take_len(&mut rest)?);
    }
    let [control, diff, extra] = lens;
    if control.0 > DIFF_CONTROL_BYTES_MAX {
        let (found, limit) = (control.0 as u64, DIFF_CONTROL_BYTES_MAX as u64);
        return Err(error("control", Reason::Limit { found, limit }));
    }
    if diff.0.checked_add(extra.0) != Some(output_len) {
        return Err(error("diff", Reason::Rule("differences and extra bytes are not the output")));
    }
    let control = Stream::take(&mut rest, control)?.read_all()?;
    let mut diff = Stream::take(&mut rest, diff)?;
    let mut extra = Stream::take(&mut rest, extra)?;
    if !rest.is_empty() {
        return Err(error("payload", Reason::Trailing));
    }
    let mut output = Vec::new();
    output.try_reserve_exact(output_len).map_err(|_| error("output", Reason::Rule("no memory for a decoder")))?;
    let mut at = 0_usize;
    for (seek, diff_len, extra_len) in Control::new(&control)? {
        let moved = i64::try_from(at).ok().and_then(|at| at.checked_add(unzigzag(seek)));
        let begin = moved.and_then(|at| usize::try_from(at).ok());
        let old = begin.and_then(|begin| base.get(begin..begin.checked_add(diff_len)?));
        let (Some(begin), Some(old)) = (begin, old) else {
            return Err(error("seek", Reason::Rule("a place that is not in the base")));
        };
        let from = output.len();
        diff.read(diff_len, &mut output)?;
        output[from..].iter_mut().zip(old).for_each(|(new, old)| *new = new.wrapping_add(*old));
        at = begin + diff_len;
        extra.read(extra_len, &mut output)?;
    }
    if diff.left > 0 || extra.left > 0 {
        return Err(error("control", Reason::Rule("the steps do not use up the streams")));
    }
    Ok(output)
}

fn take_len(bytes: &mut &[u8]) -> Result<usize, DecodeError> {
    usize::try_from(varint::take(bytes)?).map_err(|_| error("varint", Reason::Truncated))
}

/// The steps: three columns read side by side.
struct Control<'c> {
    count: u32,
    seeks: &'c [u8],
    diffs: &'c [u8],
    extras: &'c [u8],
}

impl<'c> Control<'c> {
    /// Finds the columns. What is found once need not be checked again.
    fn new(plain: &'c [u8]) -> Result<Self, DecodeError> {
        let mut rest = plain;
        let count = varint::take(&mut rest)?;
        if count == 0 {
            return Err(error("count", Reason::Rule("no steps")));
        }
        let mut column = || {
            let begin = rest;
            (0..count).try_for_each(|_| varint::take(&mut rest).map(drop)).map(|()| begin)
        };
        let (seeks, diffs, extras) = (column()?, column()?, column()?);
        if rest.is_empty() {
            Ok(Control { count, seeks, diffs, extras })
        } else {
            Err(error("control", Reason::Trailing))
        }
    }
}

impl Iterator for Control<'_> {
    type Item = (u32, usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let seek = varint::take(&mut self.seeks).ok()?;
        Some((seek, take_len(&mut self.diffs).ok()?, take_len(&mut self.extras).ok()?))
    }
}

/// A stream that is decoded as it is needed.
struct Stream<'p> {
    context: DCtx<'static>,
    input: InBuffer<'p>,
    /// Plain bytes that nobody has read yet.
    left: usize,
}

impl<'p> Stream<'p> {
    fn take(rest: &mut &'p [u8], (plain, stored): (usize, usize)) -> Result<Self, DecodeError> {
        let (frame, after) = rest.split_at_checked(stored).ok_or_else(|| error("stream", Reason::Truncated))?;
        *rest = after;
        if plain > 0 {
            check_frame(frame, plain, DIFF_WINDOW_LOG_MAX)?;
        } else if stored > 0 {
            return Err(error("stream", Reason::Rule("bytes of an empty stream")));
        }
        let no_memory = || error("stream", Reason::Rule("no memory for a decoder"));
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(DParameter::WindowLogMax(DIFF_WINDOW_LOG_MAX)).map_err(|_| no_memory())?;
        Ok(Stream { context, input: InBuffer::around(frame), left: plain })
    }

    /// Appends the next `len` bytes.
    fn read(&mut self, len: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.left = self.left.checked_sub(len).ok_or_else(|| error("stream", Reason::Rule("steps beyond its end")))?;
        let mut wanted = len;
        while wanted > 0 {
            let begin = out.len();
            out.resize(begin + wanted.min(PIECE_BYTES), 0);
            let mut piece = OutBuffer::around(&mut out[begin..]);
            let decoded = self.context.decompress_stream(&mut piece, &mut self.input);
            let got = piece.pos();
            out.truncate(begin + got);
            if decoded.is_err() || got == 0 {
                return Err(error("stream", Reason::Rule("the zstd frame is damaged")));
            }
            wanted -= got;
        }
        Ok(())
    }

    fn read_all(mut self) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::with_capacity(self.left);
        self.read(self.left, &mut out)?;
        Ok(out)
    }
}
