// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every bound of the format and of the program, in one place (format-spec §00.6).
//!
//! A decoder compares a length against its limit *before* it allocates or multiplies.

/// Longest plain chunk, and so the largest buffer a record may ask for, in bytes.
pub const CHUNK_BYTES_MAX: u32 = 16 << 20;
/// Smallest and largest average chunk size a store may be made with, in bytes.
pub const CHUNK_AVG_RANGE: (u32, u32) = (8 << 10, 4 << 20);
/// Smallest and largest target size of a pack, in bytes.
pub const PACK_TARGET_RANGE: (u64, u64) = (1 << 20, 64 << 20);
/// Largest pack file, in bytes.
pub const PACK_BYTES_MAX: u64 = 128 << 20;
/// Most records in one pack.
pub const PACK_ENTRIES_MAX: u32 = 1 << 20;
/// Most dictionaries that one pack may name.
pub const PACK_DICTS_MAX: u32 = 255;
/// Most records in one segment or locator.
pub const TABLE_RECORDS_MAX: u32 = 1 << 24;
/// Most packs that one segment or locator may name.
pub const TABLE_PACKS_MAX: u32 = 1 << 16;
/// Most dictionaries that one segment or locator may name.
pub const TABLE_DICTS_MAX: u32 = (1 << 16) - 1;
/// Locators between two full ones.
pub const LOCATOR_STEPS_MAX: u32 = 15;
/// Longest locator that a reader without an index takes into memory, in bytes: some 4.7 million chunks.
pub const LOCATOR_BYTES_MAX: u64 = 256 << 20;
/// Longest sum of the locators that such a reader takes into memory, in bytes.
pub const LOCATORS_BYTES_MAX: u64 = 512 << 20;
/// Longest sum of everything that it takes into memory to know where chunks are, segments too, in bytes: some 38 million
/// chunks.
pub const INDEX_BYTES_MAX: u64 = 2 << 30;
/// Largest zstd window a record may need, as a power of two.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// Largest `format` document, in bytes.
pub const FORMAT_BYTES_MAX: u64 = 64 << 10;
/// Largest snapshot document, in bytes.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 20;
/// Largest `segments/current` document, in bytes.
pub const SEGMENTS_CURRENT_BYTES_MAX: u64 = 16 << 20;
/// Largest `snapshots/index`, in bytes.
pub const SNAPSHOT_INDEX_BYTES_MAX: u64 = 256 << 20;
/// Largest manifest node or manifest head, in bytes.
pub const NODE_BYTES_MAX: u32 = 4 << 20;

/// A leaf ends once its entries take this many encoded bytes.
pub const NODE_BYTES_TARGET: usize = 256 << 10;
/// Most entries in a leaf.
pub const LEAF_ENTRIES_MAX: usize = 1024;
/// Most children of an inner node.
pub const INNER_CHILDREN_MAX: usize = 512;
/// Zero bits of the path hash that end a leaf; each inner level asks for [`INNER_BITS`] more.
pub const LEAF_BITS: u32 = 7;
/// Zero bits that each inner level adds.
pub const INNER_BITS: u32 = 6;
/// Highest level of a manifest's root.
pub const MANIFEST_LEVEL_MAX: u8 = 15;

/// Longest path component, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest path inside an area, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Deepest path inside an area, in components.
pub const PATH_DEPTH_MAX: usize = 512;
/// Largest apparent size of a file, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 << 40;
/// Longest symlink target, in bytes.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Most extended attributes of one entry.
pub const XATTRS_MAX: usize = 1024;
/// Longest value of one extended attribute, in bytes.
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// Longest sum of names and values of one entry's extended attributes, in bytes.
pub const XATTR_TOTAL_BYTES_MAX: usize = 1 << 20;
/// Most entries of one access control list.
pub const ACL_ENTRIES_MAX: usize = 4096;
/// Chunk records that an entry holds itself; a longer list is chunked content.
pub const CHUNK_LIST_INLINE_MAX: usize = 1024;
/// Deepest indirection of a chunk list.
pub const CHUNK_LIST_DEPTH_MAX: u8 = 3;
/// Granularity of holes, in bytes.
pub const HOLE_ALIGN: u64 = 4096;
/// Most areas in one snapshot.
pub const AREAS_MAX: usize = 1024;
/// Longest area name, in bytes.
pub const AREA_NAME_BYTES_MAX: usize = 64;
/// Most features in one list of the `format` object.
pub const FEATURES_MAX: usize = 256;
/// Most names in one user or group table.
pub const OWNER_NAMES_MAX: usize = 1 << 16;

/// Largest delta file, in bytes.
pub const DELTA_BYTES_MAX: u64 = 64 << 30;
/// Most frames in one delta.
pub const DELTA_FRAMES_MAX: u32 = 1 << 16;
/// Most outputs, most bases and most references to bases in one delta.
pub const DELTA_CHUNKS_MAX: u32 = 1 << 19;
/// Longest header and table of a delta, in bytes: as many frames, outputs, bases and references as there may be.
pub const DELTA_HEAD_BYTES_MAX: u64 = 128 + 32 * DELTA_FRAMES_MAX as u64 + (36 + 36 + 4) * DELTA_CHUNKS_MAX as u64;
/// Longest sum of the bases of one frame, in bytes.
pub const DELTA_BASE_BYTES_MAX: u64 = 64 << 20;
/// Longest sum of the outputs of one frame, in bytes.
pub const DELTA_OUTPUT_BYTES_MAX: u64 = 32 << 20;
/// Longest sum of the plain bytes of one frame whose outputs are deflated, in bytes.
pub const DELTA_PLAIN_BYTES_MAX: u64 = 24 << 20;
/// Longest payload of one frame, in bytes: the longest output and what a frame that saves nothing adds to it.
pub const DELTA_PAYLOAD_BYTES_MAX: u64 = 33 << 20;
/// Largest zstd window that a frame of a delta may need, as a power of two: base and output.
pub const DELTA_WINDOW_LOG_MAX: u32 = 27;
/// Most deltas that lead to one snapshot.
pub const DELTA_INDEX_ENTRIES_MAX: u32 = 256;
/// Largest list of deltas, in bytes.
pub const DELTA_INDEX_BYTES_MAX: u64 = 48 + 80 * DELTA_INDEX_ENTRIES_MAX as u64 + 32;

/// Most bases of one bundle.
pub const BUNDLE_BASES_MAX: u32 = 64;
/// Most objects in one bundle.
pub const BUNDLE_ENTRIES_MAX: u32 = 1 << 18;
/// Largest object in a bundle, in bytes.
pub const BUNDLE_OBJECT_BYTES_MAX: u64 = 1 << 40;
