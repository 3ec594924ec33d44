// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `format` object and `segments/current` (format-spec §10).

use super::cbor::{self, Document, FEATURE_BYTES_MAX, Key, Reader, Writer};
use super::{DecodeError, Reason};
use crate::id::{PackId, SegmentId, StoreId};
use crate::limits;

const FORMAT: Document = Document {
    object: "format",
    type_name: "evenkeel/format",
    bytes_max: limits::FORMAT_BYTES_MAX,
    features: Some("must-read"),
};
const SEGMENTS: Document = Document {
    object: "segments/current",
    type_name: "evenkeel/segments",
    bytes_max: limits::SEGMENTS_CURRENT_BYTES_MAX,
    features: None,
};
const HASH: &str = "blake3-256";
const ALGORITHM: &str = "fastcdc-2020";

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

    /// Appends the map that `format` and snapshots hold.
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.map(5).text("avg").uint(self.avg).text("max").uint(self.max).text("min").uint(self.min);
        w.text("algorithm").text(ALGORITHM).text("normalization").uint(self.normalization);
    }

    /// Reads that map and checks the sizes against each other.
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = r.offset();
        let mut keys = r.map("chunker")?;
        let size = |r: &mut Reader<'_>| r.small::<u32>("chunker", CHUNK_MIN_LEAST, limits::CHUNK_BYTES_MAX.into());
        r.required(&mut keys, Key::Text("avg"))?;
        let avg = size(r)?;
        r.required(&mut keys, Key::Text("max"))?;
        let max = size(r)?;
        r.required(&mut keys, Key::Text("min"))?;
        let min = size(r)?;
        r.required(&mut keys, Key::Text("algorithm"))?;
        expect_text(r, "algorithm", ALGORITHM)?;
        r.required(&mut keys, Key::Text("normalization"))?;
        let normalization = r.small("normalization", 0, 3)?;
        r.end(&keys, "chunker")?;
        if ![min, avg, max].iter().all(|size| size.is_power_of_two()) {
            return Err(r.error(start, "chunker", Reason::Rule("chunk sizes must be powers of two")));
        }
        if min >= avg || avg >= max {
            return Err(r.error(start, "chunker", Reason::Rule("chunk sizes must grow from min over avg to max")));
        }
        if avg < limits::CHUNK_AVG_RANGE.0 || avg > limits::CHUNK_AVG_RANGE.1 {
            return Err(r.error(start, "avg", Reason::Value { found: avg.into() }));
        }
        Ok(ChunkerParams { min, avg, max, normalization })
    }
}

/// Smallest minimum: a quarter of the smallest average.
const CHUNK_MIN_LEAST: u64 = (limits::CHUNK_AVG_RANGE.0 / 4) as u64;

/// Reads a text that has one allowed value in this version. Another one is a feature that came later.
fn expect_text(r: &mut Reader<'_>, field: &'static str, expected: &str) -> Result<(), DecodeError> {
    let start = r.offset();
    let found = r.text(field, FEATURE_BYTES_MAX)?;
    if found != expected {
        return Err(r.error(start, field, Reason::Feature(found.to_owned())));
    }
    Ok(())
}

/// Features of a store that this program does not know, but may still read it with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreFeatures {
    /// A program that does not know one of these must not write. Sorted.
    pub must_write: Vec<String>,
    /// Whoever does not know these ignores them. Sorted.
    pub ignorable: Vec<String>,
}

fn write_features(w: &mut Writer<'_>, names: &[String]) {
    w.array(names.len());
    for name in names {
        w.text(name);
    }
}

fn read_features(r: &mut Reader<'_>, field: &'static str) -> Result<Vec<String>, DecodeError> {
    let count = r.array_len(field, limits::FEATURES_MAX)?;
    let mut names: Vec<String> = Vec::with_capacity(count);
    for _ in 0..count {
        let start = r.offset();
        let name = r.text(field, FEATURE_BYTES_MAX)?;
        if name.is_empty() {
            return Err(r.error(start, field, Reason::Rule("empty feature name")));
        }
        if names.last().is_some_and(|last| last.as_str() >= name) {
            return Err(r.error(start, field, Reason::Canonical("names out of order")));
        }
        names.push(name.to_owned());
    }
    Ok(names)
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
    /// What later programs added. A program may write only when `must_write` is empty.
    pub features: StoreFeatures,
}

impl StoreFormat {
    /// The document's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let mut w = Writer::new(&mut out);
        w.map(9).text("hash").text(HASH).text("type").text(FORMAT.type_name);
        w.text("store").bytes(&self.store.0).text("chunker");
        self.chunker.write(&mut w);
        w.text("version").uint(cbor::VERSION).text("ignorable");
        write_features(&mut w, &self.features.ignorable);
        w.text("must-read").array(0).text("pack-size").uint(self.pack_size).text("must-write");
        write_features(&mut w, &self.features.must_write);
        out
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let r = &mut FORMAT.open(bytes)?;
        let keys = &mut r.map("format")?;
        r.required(keys, Key::Text("hash"))?;
        expect_text(r, "hash", HASH)?;
        FORMAT.read_type(r, keys)?;
        r.required(keys, Key::Text("store"))?;
        let store = StoreId(r.array("store")?);
        r.required(keys, Key::Text("chunker"))?;
        let chunker = ChunkerParams::read(r)?;
        FORMAT.read_version(r, keys)?;
        r.required(keys, Key::Text("ignorable"))?;
        let ignorable = read_features(r, "ignorable")?;
        r.required(keys, Key::Text("must-read"))?;
        r.array_len("must-read", 0)?;
        r.required(keys, Key::Text("pack-size"))?;
        let pack_size = r.uint_in("pack-size", limits::PACK_TARGET_RANGE.0, limits::PACK_TARGET_RANGE.1)?;
        r.required(keys, Key::Text("must-write"))?;
        let must_write = read_features(r, "must-write")?;
        r.end(keys, "format")?;
        r.finish()?;
        Ok(StoreFormat { store, chunker, pack_size, features: StoreFeatures { must_write, ignorable } })
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
        let mut out = Vec::with_capacity(128 + 64 * (self.segments.len() + self.condemned.len()));
        let mut w = Writer::new(&mut out);
        w.map(6).text("type").text(SEGMENTS.type_name).text("store").bytes(&self.store.0);
        w.text("version").uint(cbor::VERSION).text("segments").array(self.segments.len());
        for segment in &self.segments {
            w.map(3).text("id").bytes(&segment.id.0).text("len").uint(segment.len);
            w.text("records").uint(segment.records);
        }
        w.text("condemned").array(self.condemned.len());
        for condemned in &self.condemned {
            w.map(2).text("pack").bytes(&condemned.pack.0).text("since").int(condemned.since);
        }
        w.text("generation").uint(self.generation);
        out
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let r = &mut SEGMENTS.open(bytes)?;
        let keys = &mut r.map("segments/current")?;
        SEGMENTS.read_type(r, keys)?;
        r.required(keys, Key::Text("store"))?;
        let store = StoreId(r.array("store")?);
        SEGMENTS.read_version(r, keys)?;
        r.required(keys, Key::Text("segments"))?;
        let segments = read_sorted(r, "segments", SegmentRef::read, |segment| segment.id.0)?;
        r.required(keys, Key::Text("condemned"))?;
        let condemned = read_sorted(r, "condemned", CondemnedPack::read, |condemned| condemned.pack.0)?;
        r.required(keys, Key::Text("generation"))?;
        let generation = r.uint("generation")?;
        r.end(keys, "segments/current")?;
        r.finish()?;
        Ok(SegmentsCurrent { store, generation, segments, condemned })
    }
}

impl SegmentRef {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let keys = &mut r.map("segment")?;
        r.required(keys, Key::Text("id"))?;
        let id = SegmentId(r.array("id")?);
        r.required(keys, Key::Text("len"))?;
        let len = r.uint("len")?;
        r.required(keys, Key::Text("records"))?;
        let records = r.small("records", 0, limits::TABLE_RECORDS_MAX.into())?;
        r.end(keys, "segment")?;
        Ok(SegmentRef { id, len, records })
    }
}

impl CondemnedPack {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let keys = &mut r.map("condemned")?;
        r.required(keys, Key::Text("pack"))?;
        let pack = PackId(r.array("pack")?);
        r.required(keys, Key::Text("since"))?;
        let since = r.int("since")?;
        r.end(keys, "condemned")?;
        Ok(CondemnedPack { pack, since })
    }
}

/// Reads an array that is strictly sorted by the id of its items.
fn read_sorted<'b, T>(
    r: &mut Reader<'b>,
    field: &'static str,
    read: impl Fn(&mut Reader<'b>) -> Result<T, DecodeError>,
    id: impl Fn(&T) -> [u8; 32],
) -> Result<Vec<T>, DecodeError> {
    // An item takes more than 40 encoded bytes, so the document's limit bounds this.
    let count = r.array_len(field, usize::MAX)?;
    let mut items: Vec<T> = Vec::new();
    for _ in 0..count {
        let start = r.offset();
        let item = read(r)?;
        if items.last().is_some_and(|last| id(last) >= id(&item)) {
            return Err(r.error(start, field, Reason::Canonical("ids out of order")));
        }
        items.push(item);
    }
    Ok(items)
}
