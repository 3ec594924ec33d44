// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decodes any object of `format-spec/reject`, for the error that it must give.

use evenkeel_store::compress::decompress;
use evenkeel_store::format::DecodeError;
use evenkeel_store::format::delta::{self, Delta};
use evenkeel_store::format::manifest::{ManifestHead, ManifestNode, StructureCheck, decode_chunk_list};
use evenkeel_store::format::pack::{self, Encoding};
use evenkeel_store::format::snapshot::{Snapshot, decode_index};
use evenkeel_store::format::store::{SegmentsCurrent, StoreFormat};
use evenkeel_store::format::table::Table;

/// What to decode, with what the object does not say itself.
#[derive(Debug, Clone, Default)]
pub struct Case {
    pub object: String,
    /// Of a chunk list: the file's size.
    pub size: Option<u64>,
    /// Of a record: the chunk's length.
    pub plain_len: Option<u32>,
    /// Of a record: whether it is stored raw.
    pub raw: bool,
}

/// Decodes `bytes`, which should fail.
pub fn refuse(case: &Case, bytes: &[u8]) -> Result<(), DecodeError> {
    match case.object.as_str() {
        "format" => StoreFormat::decode(bytes).map(drop),
        "segments-current" => SegmentsCurrent::decode(bytes).map(drop),
        "pack" => pack::decode(bytes).map(drop),
        "segment" | "locator" => Table::decode(bytes).map(drop),
        "manifest-head" => ManifestHead::decode(bytes).map(drop),
        "manifest-node" => ManifestNode::decode(bytes).map(drop),
        "manifest" => whole_manifest(bytes),
        "snapshot" => Snapshot::decode(bytes).map(drop),
        "snapshot-index" => decode_index(bytes).map(drop),
        "delta" => Delta::decode_file(bytes).map(drop),
        "delta-index" => delta::decode_index(bytes).map(drop),
        "chunk-list" => decode_chunk_list(bytes, case.size.expect("a chunk list has a size")).map(drop),
        "record" => record(case, bytes),
        other => panic!("no kind of object is called {other}"),
    }
}

/// A leaf that is to be a whole manifest.
fn whole_manifest(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut structure = StructureCheck::default();
    if let ManifestNode::Leaf(entries) = ManifestNode::decode(bytes)? {
        entries.iter().try_for_each(|entry| structure.push(entry))?;
    }
    structure.finish()
}

fn record(case: &Case, bytes: &[u8]) -> Result<(), DecodeError> {
    let plain_len = case.plain_len.expect("a record has a plain length");
    let encoding = if case.raw { Encoding::Raw } else { Encoding::Zstd };
    decompress(encoding, bytes, plain_len, None).map(drop)
}
