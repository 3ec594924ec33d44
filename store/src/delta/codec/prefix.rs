// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One zstd frame that the base precedes (encodings 0 and 1).

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter};

use super::error;
use crate::format::{DecodeError, Reason};
use crate::limits;

/// Level of a first attempt.
pub const LEVEL_FAST: i32 = 3;
/// Level where time matters, but bytes more.
pub const LEVEL_DEFAULT: i32 = 17;
/// Level where only bytes matter.
pub const LEVEL_BEST: i32 = 19;

/// Levels from here on search trees, whose tables hold two numbers a place.
const DEEP_FROM: i32 = 16;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// `output` as one frame.
///
/// # Errors
/// When zstd has no memory.
pub fn encode(base: &[u8], output: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    // From 1 KiB, zstd's smallest, to what a reader accepts.
    let log = (base.len() + output.len()).next_power_of_two().ilog2().clamp(10, limits::DELTA_WINDOW_LOG_MAX);
    let mut parameters = vec![CParameter::CompressionLevel(level), CParameter::WindowLog(log)];
    if !base.is_empty() {
        parameters.push(CParameter::EnableLongDistanceMatching(true));
        parameters.push(CParameter::LdmMinMatch(32));
    }
    if !base.is_empty() {
        // The levels' own tables forget the begin of a base that is longer than they are.
        let (hash, chain) = if level < DEEP_FROM { (22, 22) } else { (23, 25) };
        parameters.push(CParameter::HashLog(log.clamp(10, hash)));
        parameters.push(CParameter::ChainLog((log + 1).clamp(10, chain)));
    }
    frame(&parameters, base, output)
}

/// `plain` as one frame with a window of at most 2^`window_log`.
///
/// # Errors
/// When zstd has no memory.
pub fn encode_alone(plain: &[u8], level: i32, window_log: u32) -> std::io::Result<Vec<u8>> {
    let log = plain.len().next_power_of_two().ilog2().clamp(10, window_log);
    frame(&[CParameter::CompressionLevel(level), CParameter::WindowLog(log)], &[], plain)
}

fn frame(parameters: &[CParameter], base: &[u8], plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let failed = |code| std::io::Error::other(zstd_safe::get_error_name(code));
    let mut context = CCtx::try_create().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
    for parameter in parameters {
        context.set_parameter(*parameter).map_err(failed)?;
    }
    if !base.is_empty() {
        context.ref_prefix(base).map_err(failed)?;
    }
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    context.compress2(&mut out, plain).map_err(failed)?;
    out.shrink_to_fit();
    Ok(out)
}

/// Decodes one frame that has exactly `output_len` bytes.
///
/// # Errors
/// [`DecodeError`] for anything else.
pub fn decode(base: &[u8], payload: &[u8], output_len: usize) -> Result<Vec<u8>, DecodeError> {
    check_frame(payload, output_len, limits::DELTA_WINDOW_LOG_MAX)?;
    let no_memory = || error("frame", Reason::Rule("no memory for a decoder"));
    let damaged = |_| error("frame", Reason::Rule("the zstd frame is damaged"));
    let mut context = DCtx::try_create().ok_or_else(no_memory)?;
    context.set_parameter(DParameter::WindowLogMax(limits::DELTA_WINDOW_LOG_MAX)).map_err(damaged)?;
    if !base.is_empty() {
        context.ref_prefix(base).map_err(damaged)?;
    }
    let mut output = Vec::new();
    output.try_reserve_exact(output_len).map_err(|_| no_memory())?;
    match context.decompress(&mut output, payload) {
        Ok(len) if len == output_len => Ok(output),
        Ok(_) => Err(error("frame", Reason::Rule("the frame holds another length than it says"))),
        Err(code) => Err(damaged(code)),
    }
}

/// Checks that `stored` is exactly one frame that says it has `plain_len` bytes, without checksum or dictionary id, and
/// with a window of at most 2^`window_log`.
///
/// # Errors
/// [`DecodeError`] for anything else.
pub fn check_frame(stored: &[u8], plain_len: usize, window_log: u32) -> Result<(), DecodeError> {
    let truncated = || error("frame", Reason::Truncated);
    let (magic, rest) = stored.split_at_checked(MAGIC.len()).ok_or_else(truncated)?;
    if magic != MAGIC {
        return Err(error("frame magic", Reason::Magic));
    }
    let (&descriptor, rest) = rest.split_first().ok_or_else(truncated)?;
    if descriptor & 0x1f != 0 {
        return Err(error("frame descriptor", Reason::Rule("checksum, dictionary id or reserved bits are set")));
    }
    // A frame in a single segment has a window of its length, which the caller has bounded.
    let window = match (descriptor & 0x20 != 0, rest.first()) {
        (true, _) => plain_len as u64,
        (false, Some(window)) => (8 + u64::from(window & 7)) << (7 + (window >> 3)),
        (false, None) => return Err(truncated()),
    };
    if window > 1 << window_log {
        return Err(error("frame window", Reason::Limit { found: window, limit: 1 << window_log }));
    }
    match zstd_safe::get_frame_content_size(stored) {
        Ok(Some(found)) if found == plain_len as u64 => {}
        Ok(Some(found)) => return Err(error("frame content size", Reason::Value { found })),
        Ok(None) => return Err(error("frame content size", Reason::Rule("the frame does not say its size"))),
        Err(_) => return Err(truncated()),
    }
    match zstd_safe::find_frame_compressed_size(stored) {
        Ok(len) if len == stored.len() => Ok(()),
        Ok(_) => Err(error("frame", Reason::Trailing)),
        Err(_) => Err(truncated()),
    }
}
