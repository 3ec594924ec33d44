// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chunk ↔ record (format-spec §20.5).
//!
//! Invariant: does no I/O. A decoder's memory is bounded by the length that the record claims, which is bounded by
//! [`crate::limits::CHUNK_BYTES_MAX`], before any byte is decompressed.

use zstd::zstd_safe;

use crate::format::pack::Encoding;
use crate::format::{DecodeError, Reason};
use crate::limits;

/// Makes records; one per thread.
pub struct Compressor {
    inner: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor of this zstd level.
    ///
    /// # Errors
    /// When zstd refuses the level or has no memory.
    pub fn new(level: i32) -> std::io::Result<Compressor> {
        let mut inner = zstd::bulk::Compressor::new(level)?;
        inner.set_parameter(zstd_safe::CParameter::WindowLog(limits::ZSTD_WINDOW_LOG_MAX.min(22)))?;
        inner.set_parameter(zstd_safe::CParameter::ChecksumFlag(false))?;
        inner.set_parameter(zstd_safe::CParameter::ContentSizeFlag(true))?;
        Ok(Compressor { inner, buffer: Vec::new() })
    }

    /// The shorter of `plain` itself and its zstd frame, with the encoding that says which.
    pub fn compress<'a>(&'a mut self, plain: &'a [u8]) -> (Encoding, &'a [u8]) {
        self.buffer.clear();
        // A frame that does not fit in less than the plain length is not worth keeping.
        self.buffer.reserve(plain.len());
        match self.inner.compress_to_buffer(plain, &mut self.buffer) {
            Ok(len) if len < plain.len() => (Encoding::Zstd, &self.buffer[..len]),
            _ => (Encoding::Raw, plain),
        }
    }
}

/// Opens records; one per thread.
pub struct Decompressor {
    inner: zstd::bulk::Decompressor<'static>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decompressor {
    /// A decompressor that accepts windows up to the format's limit.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn new() -> std::io::Result<Decompressor> {
        let mut inner = zstd::bulk::Decompressor::new()?;
        inner.set_parameter(zstd_safe::DParameter::WindowLogMax(limits::ZSTD_WINDOW_LOG_MAX))?;
        Ok(Decompressor { inner })
    }

    /// Decodes a record into `plain`, which then holds exactly `plain_len` bytes. `dict` is the dictionary's plain bytes,
    /// given exactly when `encoding` names one. The caller still has to check the hash.
    ///
    /// # Errors
    /// [`DecodeError`] when the record breaks a rule of format-spec §20.5.
    pub fn decompress(
        &mut self,
        encoding: Encoding,
        stored: &[u8],
        plain_len: u32,
        dict: Option<&[u8]>,
        plain: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        if plain_len == 0 || plain_len > limits::CHUNK_BYTES_MAX {
            let reason = Reason::Limit { found: u64::from(plain_len), limit: u64::from(limits::CHUNK_BYTES_MAX) };
            return Err(error("plain_len", reason));
        }
        let len = usize::try_from(plain_len).expect("checked against the limit");
        plain.clear();
        if encoding == Encoding::Raw {
            if stored.len() != len {
                return Err(error("stored_len", Reason::Rule("a raw record is as long as its chunk")));
            }
            plain.extend_from_slice(stored);
            return Ok(());
        }
        check_frame(stored, plain_len)?;
        plain.reserve(len);
        let decoded = match dict {
            None => self.inner.decompress_to_buffer(stored, plain),
            Some(dict) => zstd::bulk::Decompressor::with_dictionary(dict)
                .and_then(|mut with_dict| with_dict.decompress_to_buffer(stored, plain)),
        };
        match decoded {
            Ok(decoded) if decoded == len => Ok(()),
            Ok(_) => Err(error("frame", Reason::Rule("the frame holds another length than it says"))),
            Err(_) => Err(error("frame", Reason::Rule("the zstd frame is damaged"))),
        }
    }
}

/// Decodes one record without keeping anything between calls; for vectors and tools.
///
/// # Errors
/// As [`Decompressor::decompress`].
pub fn decompress(
    encoding: Encoding,
    stored: &[u8],
    plain_len: u32,
    dict: Option<&[u8]>,
) -> Result<Vec<u8>, DecodeError> {
    let mut plain = Vec::new();
    Decompressor::new()
        .map_err(|_| error("frame", Reason::Rule("no memory for a decoder")))?
        .decompress(encoding, stored, plain_len, dict, &mut plain)?;
    Ok(plain)
}

/// Checks the frame header: one frame that says its content's size, no checksum, no dictionary id, a bounded window.
fn check_frame(stored: &[u8], plain_len: u32) -> Result<(), DecodeError> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let Some((magic, rest)) = stored.split_at_checked(4) else { return Err(error("frame", Reason::Truncated)) };
    if magic != MAGIC {
        return Err(error("frame magic", Reason::Magic));
    }
    let Some((&descriptor, rest)) = rest.split_first() else { return Err(error("frame", Reason::Truncated)) };
    let single_segment = descriptor & 0x20 != 0;
    if descriptor & 0x1f != 0 {
        return Err(error("frame descriptor", Reason::Rule("checksum, dictionary id or reserved bits are set")));
    }
    if !single_segment {
        let window = rest.first().copied().ok_or_else(|| error("frame", Reason::Truncated))?;
        let log = 10 + u32::from(window >> 3);
        let exceeds = log > limits::ZSTD_WINDOW_LOG_MAX || (log == limits::ZSTD_WINDOW_LOG_MAX && window & 7 != 0);
        if exceeds {
            let (found, limit) = (u64::from(log), u64::from(limits::ZSTD_WINDOW_LOG_MAX));
            return Err(error("frame window", Reason::Limit { found, limit }));
        }
    }
    match zstd_safe::get_frame_content_size(stored) {
        Ok(Some(found)) if found == u64::from(plain_len) => {}
        Ok(Some(found)) => return Err(error("frame content size", Reason::Value { found })),
        Ok(None) => return Err(error("frame content size", Reason::Rule("the frame does not say its size"))),
        Err(_) => return Err(error("frame", Reason::Truncated)),
    }
    match zstd_safe::find_frame_compressed_size(stored) {
        Ok(len) if len == stored.len() => Ok(()),
        Ok(_) => Err(error("frame", Reason::Trailing)),
        Err(_) => Err(error("frame", Reason::Truncated)),
    }
}

fn error(field: &'static str, reason: Reason) -> DecodeError {
    DecodeError { object: "record", offset: 0, field, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn incompressible_bytes_stay_raw() {
        let mut compressor = Compressor::new(3).unwrap();
        assert_eq!(compressor.compress(b"x").0, Encoding::Raw);
        let zeros = vec![0; 100_000];
        let (encoding, stored) = compressor.compress(&zeros);
        assert_eq!(encoding, Encoding::Zstd);
        assert!(stored.len() < 100);
    }

    #[test]
    fn bombs_and_lies_are_refused() {
        let frame = zstd::bulk::compress(&vec![0; 100_000], 3).unwrap();
        let refuse = |stored: &[u8], plain_len| decompress(Encoding::Zstd, stored, plain_len, None).unwrap_err().reason;
        assert_eq!(refuse(&frame, 99_999), Reason::Value { found: 100_000 });
        assert_eq!(refuse(&[&frame[..], b"x"].concat(), 100_000), Reason::Trailing);
        assert_eq!(refuse(&[&frame[..], &frame[..]].concat(), 100_000), Reason::Trailing);
        assert_eq!(refuse(&frame[..frame.len() - 1], 100_000), Reason::Truncated);
        assert_eq!(refuse(b"\x50\x2a\x4d\x18\0\0\0\0", 1), Reason::Magic, "skippable frame");
        assert!(matches!(refuse(&frame, 0), Reason::Limit { .. }));
        assert!(matches!(refuse(&frame, limits::CHUNK_BYTES_MAX + 1), Reason::Limit { .. }));
        let window_2_31 = [&[0x28, 0xb5, 0x2f, 0xfd, 0x80, 0xa8][..], &100_000u32.to_le_bytes(), &[1, 0, 0]].concat();
        assert!(matches!(refuse(&window_2_31, 100_000), Reason::Limit { .. }));
    }

    proptest! {
        #[test]
        fn round_trip(plain in proptest::collection::vec(0u8..4, 1..5000), level in 1i32..5) {
            let mut compressor = Compressor::new(level).unwrap();
            let (encoding, stored) = compressor.compress(&plain);
            let len = u32::try_from(plain.len()).unwrap();
            prop_assert_eq!(decompress(encoding, stored, len, None).unwrap(), plain.clone());
        }

        #[test]
        fn garbage_never_panics(stored: Vec<u8>, plain_len in 0u32..100_000) {
            let framed = [&[0x28, 0xb5, 0x2f, 0xfd][..], &stored].concat();
            let _ = decompress(Encoding::Zstd, &framed, plain_len, None);
        }
    }
}
