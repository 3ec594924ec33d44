// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `format` object and `segments/current` (format-spec §10).

use super::DecodeError;
use crate::id::{PackId, SegmentId, StoreId};

/// How a store cuts files into chunks. All sizes are powers of two, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkerParams {
    /// A data run no longer than this is one chunk.
    pub min: u32,
    /// Aimed at.
    pub avg: u32,
    /// Longest chunk.
    pub max: u32,
    /// FastCDC normalisation level, 0 to 3.
    pub normalization: u8,
}

impl ChunkerParams {
    /// The usual spread around an average: a quarter to four times.
    pub const fn around(avg: u32) -> Self {
        ChunkerParams { min: avg / 4, avg, max: avg * 4, normalization: 1 }
    }
}

/// The `format` object: what a program must know before it reads anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFormat {
    /// Random identity.
    pub store: StoreId,
    /// Chunker of everything in this store.
    pub chunker: ChunkerParams,
    /// A pack is closed once it has this many bytes.
    pub pack_size: u64,
}

impl StoreFormat {
    /// The document's bytes.
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        unimplemented!()
    }
}

/// One live segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRef {
    /// Name.
    pub id: SegmentId,
    /// File length in bytes.
    pub len: u64,
    /// Number of records.
    pub records: u32,
}

/// A pack that prune will delete; commits never deduplicate against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CondemnedPack {
    /// Name.
    pub pack: PackId,
    /// Unix seconds.
    pub since: i64,
}

/// `segments/current`: which segments are live, which packs are condemned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentsCurrent {
    /// Must equal the store's.
    pub store: StoreId,
    /// Grows by one with each change.
    pub generation: u64,
    /// Sorted by id.
    pub segments: Vec<SegmentRef>,
    /// Sorted by pack.
    pub condemned: Vec<CondemnedPack>,
}

impl SegmentsCurrent {
    /// The document's bytes; sorts nothing, the lists must be sorted.
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        unimplemented!()
    }
}
