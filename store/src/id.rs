// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names of objects: BLAKE3-256 of their bytes (format-spec §00.4).

use std::fmt;
use std::str::FromStr;

/// A text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of 64 lower-case hex digits")]
pub struct ParseIdError;

macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The BLAKE3-256 hash of `bytes`, as this kind of id.
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// All 64 lower-case hex digits.
            pub fn to_hex(&self) -> String {
                encode_hex(&self.0)
            }

            /// The first `digits` hex digits, for people.
            pub fn short(&self, digits: usize) -> String {
                let mut hex = self.to_hex();
                hex.truncate(digits);
                hex
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short(12))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                decode_hex(text).map(Self).ok_or(ParseIdError)
            }
        }
    };
}

define_id!(
    /// Identifier of a chunk: the hash of its plain (uncompressed) bytes.
    ChunkId
);
define_id!(
    /// Identifier of a pack: the hash of the whole file.
    PackId
);
define_id!(
    /// Identifier of a segment: the hash of the whole file.
    SegmentId
);
define_id!(
    /// Identifier of a delta: the hash of the whole file.
    DeltaId
);
define_id!(
    /// Identifier of a snapshot: the hash of its document.
    SnapshotId
);
define_id!(
    /// Hash of a whole file's content, holes as zeros: what `b3sum` prints.
    ContentHash
);

impl ChunkId {
    /// Marks a hole in a packed chunk list (format-spec §40.6). No content hashes to it.
    pub const HOLE: ChunkId = ChunkId([0; 32]);
}

impl From<ContentHash> for ChunkId {
    /// A file of one chunk is named by the same hash as its chunk.
    fn from(hash: ContentHash) -> Self {
        ChunkId(hash.0)
    }
}

impl From<ChunkId> for ContentHash {
    fn from(id: ChunkId) -> Self {
        ContentHash(id.0)
    }
}

/// Random identity of a store, drawn at `init`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// Lower-case hex digits of `bytes`.
pub fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    hex
}

/// The bytes that `text` spells, if it is exactly `2 * N` lower-case hex digits.
pub fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_exact() {
        let id = ChunkId::of(b"abc");
        assert_eq!(id.to_hex().parse::<ChunkId>(), Ok(id));
        assert_eq!(id.to_hex().to_uppercase().parse::<ChunkId>(), Err(ParseIdError));
        assert_eq!(id.to_hex()[1..].parse::<ChunkId>(), Err(ParseIdError));
        assert_eq!(decode_hex::<1>("0g"), None);
        assert_eq!(decode_hex::<2>("00ff"), Some([0, 255]));
    }
}
