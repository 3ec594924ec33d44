// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pack files: header, footer and trailer (format-spec §20).

use super::DecodeError;
use crate::id::ChunkId;

/// Length of the header.
pub const HEADER_LEN: usize = 16;
/// Length of one footer entry.
pub const ENTRY_LEN: usize = 44;
/// Length of the trailer.
pub const TRAILER_LEN: usize = 64;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PackKind {
    /// File content.
    Data,
    /// Manifest heads, nodes and indirect chunk lists.
    Manifest,
}

/// How a record's bytes give the chunk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One zstd frame made with a dictionary: a chunk of this id.
    ZstdDict(ChunkId),
}

/// One record of a pack as its footer describes it; records lie back to back in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackEntry {
    /// Name of the plain bytes.
    pub id: ChunkId,
    /// Offset of the record in the file.
    pub offset: u64,
    /// Length of the record in the file.
    pub stored_len: u32,
    /// Length of the chunk.
    pub plain_len: u32,
    /// How the one becomes the other.
    pub encoding: Encoding,
}

/// The trailer's fields (format-spec §20.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the footer starts.
    pub footer_offset: u64,
    /// Records in the pack.
    pub entry_count: u32,
    /// Dictionaries in the footer.
    pub dict_count: u32,
    /// Length of the whole file.
    pub file_len: u64,
    /// Hash of footer and counts.
    pub footer_hash: [u8; 32],
}

/// The header of a pack of this kind.
pub fn encode_header(kind: PackKind) -> [u8; HEADER_LEN] {
    let _ = kind;
    unimplemented!()
}

/// Reads the first [`HEADER_LEN`] bytes.
///
/// # Errors
/// [`DecodeError`] at the first bad field.
pub fn decode_header(bytes: &[u8]) -> Result<PackKind, DecodeError> {
    let _ = bytes;
    unimplemented!()
}

/// Footer and trailer for `entries`, whose offsets must be contiguous from [`HEADER_LEN`].
pub fn encode_footer(entries: &[PackEntry]) -> Vec<u8> {
    let _ = entries;
    unimplemented!()
}

/// Reads the last [`TRAILER_LEN`] bytes of a file of `file_len` bytes.
///
/// # Errors
/// [`DecodeError`] at the first bad field; counts have then been checked against the limits and the file's length.
pub fn decode_trailer(bytes: &[u8], file_len: u64) -> Result<Trailer, DecodeError> {
    let _ = (bytes, file_len);
    unimplemented!()
}

/// Reads the footer: `bytes` is exactly what lies between `trailer.footer_offset` and the trailer.
///
/// # Errors
/// [`DecodeError`] at the first bad field, or when the hash in the trailer does not fit.
pub fn decode_footer(bytes: &[u8], trailer: &Trailer) -> Result<Vec<PackEntry>, DecodeError> {
    let _ = (bytes, trailer);
    unimplemented!()
}
