// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Base and output ↔ the payload of a delta's frame (format-spec §70.5, §70.10).
//!
//! Pure functions on slices. A payload is hostile: decoding allocates what the caller said the output has, and no more.

pub mod again;
pub mod deflate;
mod diff;
mod matches;
mod prefix;
mod varint;

pub use diff::{DIFF_CONTROL_BYTES_MAX, DIFF_WINDOW_LOG_MAX};

use crate::format::delta::{ENCODING_DEFLATE, ENCODING_DIFF, ENCODING_ZSTD, ENCODING_ZSTD_BASE};
use crate::format::{DecodeError, Reason};
use crate::limits;

/// How much time an encoder may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Effort {
    /// zstd at a low level, nothing else.
    Fast,
    /// What is promising, by a first fast attempt.
    #[default]
    Default,
    /// Everything, at the highest levels.
    Best,
}

/// What a frame became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// One of the `ENCODING_` constants of [`crate::format::delta`].
    pub encoding: u8,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// A first attempt that saves less than one part in so many of a frame shows that nothing will.
const HOPELESS_PART: usize = 50;
/// One that leaves less than one part in so many leaves nothing to gain.
const ENOUGH_PART: usize = 256;

/// The shortest payload that was found for `output`, given `base`. What is deflated in it is not looked into: that is
/// [`again`]'s.
///
/// # Errors
/// When zstd has no memory.
pub fn encode(base: &[u8], output: &[u8], effort: Effort) -> std::io::Result<Encoded> {
    let encoding = if base.is_empty() { ENCODING_ZSTD } else { ENCODING_ZSTD_BASE };
    let mut best = Encoded { encoding, payload: prefix::encode(base, output, prefix::LEVEL_FAST)? };
    let fast_len = best.payload.len();
    let is_hopeless = fast_len > output.len() - output.len() / HOPELESS_PART;
    let is_enough = effort == Effort::Default && fast_len < output.len() / ENOUGH_PART;
    if effort == Effort::Fast || is_hopeless || is_enough {
        return Ok(best);
    }
    if !base.is_empty()
        && let Some(payload) = diff::encode(base, output, effort)?
        && payload.len() < fast_len
    {
        best = Encoded { encoding: ENCODING_DIFF, payload };
    }
    // Where differences are ahead, slow zstd does not catch up, for twice their time (docs/design/delta-making.md).
    if effort == Effort::Best || best.encoding != ENCODING_DIFF {
        let level = if effort == Effort::Best { prefix::LEVEL_BEST } else { prefix::LEVEL_DEFAULT };
        let payload = prefix::encode(base, output, level)?;
        if payload.len() < best.payload.len() {
            best = Encoded { encoding, payload };
        }
    }
    Ok(best)
}

/// The output that `payload` makes of `base`, exactly `output_len` bytes; the caller still has to check its chunks.
///
/// # Errors
/// [`DecodeError`] for a payload that breaks a rule, for an encoding that is not known
/// ([`DecodeError::is_unsupported`]), and for a length above the limits.
pub fn decode(encoding: u8, base: &[u8], payload: &[u8], output_len: usize) -> Result<Vec<u8>, DecodeError> {
    for (field, found, limit) in [
        ("base", base.len(), limits::DELTA_BASE_BYTES_MAX),
        ("output", output_len, limits::DELTA_OUTPUT_BYTES_MAX),
        ("payload", payload.len(), limits::DELTA_PAYLOAD_BYTES_MAX),
    ] {
        if found as u64 > limit {
            return Err(error(field, Reason::Limit { found: found as u64, limit }));
        }
    }
    match encoding {
        ENCODING_DEFLATE => again::decode(base, payload, output_len),
        _ => decode_plain(encoding, base, payload, output_len),
    }
}

/// What has no payload of another encoding within it.
fn decode_plain(encoding: u8, base: &[u8], payload: &[u8], output_len: usize) -> Result<Vec<u8>, DecodeError> {
    match encoding {
        ENCODING_ZSTD => prefix::decode(&[], payload, output_len),
        ENCODING_ZSTD_BASE => prefix::decode(base, payload, output_len),
        ENCODING_DIFF => diff::decode(base, payload, output_len),
        other => Err(error("encoding", Reason::Feature(format!("delta encoding {other}")))),
    }
}

fn error(field: &'static str, reason: Reason) -> DecodeError {
    DecodeError { object: "delta payload", offset: 0, field, reason }
}

#[cfg(test)]
mod tests;
