// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots and the hint that lists them (format-spec §50).

use std::collections::BTreeMap;

use super::cbor::{self, Document, Key, Keys, Reader, Writer, key_order};
use super::fields::{Fields, VERSION};
use super::manifest::Timestamp;
use super::store::ChunkerParams;
use super::{DecodeError, Reason};
use crate::id::{ChunkId, SnapshotId};
use crate::limits;

const SNAPSHOT: Document = Document {
    object: "snapshot",
    type_name: "evenkeel/snapshot",
    bytes_max: limits::SNAPSHOT_BYTES_MAX,
    features: Some("must-understand"),
};
/// Texts and lists have no limit of their own: [`limits::SNAPSHOT_BYTES_MAX`] bounds them.
const TEXT_MAX: usize = usize::MAX;

/// What belongs to an area, as it was when it was committed. Order matters: later patterns win.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AreaRules {
    /// Patterns of what belongs to the area; empty = everything.
    pub include: Vec<String>,
    /// Patterns of what does not.
    pub exclude: Vec<String>,
    /// Patterns of host identity and secrets, left out like `exclude`.
    pub identity: Vec<String>,
    /// Name patterns of the extended attributes that are recorded (`user.*`).
    pub xattrs: Vec<String>,
    /// Whether device nodes may be recorded.
    pub devices: bool,
}

/// One area of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotArea {
    /// 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
    pub name: String,
    /// Absolute path on the master; information only, never a target.
    pub root: Vec<u8>,
    /// Rules in force.
    pub rules: AreaRules,
    /// Chunk id of the manifest head.
    pub manifest: ChunkId,
    /// Its plain length.
    pub manifest_len: u32,
    /// Entries in the manifest, the root included.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Sum of their apparent sizes.
    pub bytes: u64,
    /// Files that changed while they were read (`--allow-changing`).
    pub unstable: u64,
}

/// What a commit was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot before it.
    pub parent: Option<SnapshotId>,
    /// Number of ancestors.
    pub depth: u64,
    /// When the commit began.
    pub time: Timestamp,
    /// `user@host`.
    pub author: String,
    /// The committer's words.
    pub message: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Sorted by name.
    pub areas: Vec<SnapshotArea>,
    /// How its chunks were cut.
    pub chunker: ChunkerParams,
}

impl Snapshot {
    /// The document's bytes; its id is their hash.
    ///
    /// # Errors
    /// [`DecodeError`] when a value is outside what the format allows (so that nothing is written that no reader accepts).
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::with_capacity(1024);
        let mut w = Writer::new(&mut out);
        w.map(if self.parent.is_some() { 11 } else { 10 });
        w.text("time");
        self.time.write(&mut w);
        w.text("type").text(SNAPSHOT.type_name).text("areas").array(self.areas.len());
        for area in &self.areas {
            area.write(&mut w);
        }
        w.text("depth").uint(self.depth).text("author").text(&self.author).text("labels").map(self.labels.len());
        let mut labels: Vec<_> = self.labels.iter().collect();
        labels.sort_by(|(a, _), (b, _)| key_order(a.as_bytes(), b.as_bytes()));
        for (key, value) in labels {
            w.text(key).text(value);
        }
        if let Some(parent) = &self.parent {
            w.text("parent").bytes(&parent.0);
        }
        w.text("chunker");
        self.chunker.write(&mut w);
        w.text("message").text(&self.message).text("version").uint(cbor::VERSION).text("must-understand").array(0);
        Self::decode(&out)?;
        Ok(out)
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let r = &mut SNAPSHOT.open(bytes)?;
        let keys = &mut r.map("snapshot")?;
        r.required(keys, Key::Text("time"))?;
        let time = Timestamp::read(r, "time")?;
        SNAPSHOT.read_type(r, keys)?;
        r.required(keys, Key::Text("areas"))?;
        let areas = read_areas(r)?;
        r.required(keys, Key::Text("depth"))?;
        let depth_at = r.offset();
        let depth = r.uint("depth")?;
        r.required(keys, Key::Text("author"))?;
        let author = r.text("author", TEXT_MAX)?.to_owned();
        r.required(keys, Key::Text("labels"))?;
        let labels = read_labels(r)?;
        let parent = match r.optional(keys, Key::Text("parent")) {
            true => Some(SnapshotId(r.array("parent")?)),
            false => None,
        };
        if parent.is_some() != (depth > 0) {
            return Err(r.error(depth_at, "depth", Reason::Rule("depth is 0 exactly when there is no parent")));
        }
        r.required(keys, Key::Text("chunker"))?;
        let chunker = ChunkerParams::read(r)?;
        r.required(keys, Key::Text("message"))?;
        let message = r.text("message", TEXT_MAX)?.to_owned();
        SNAPSHOT.read_version(r, keys)?;
        r.required(keys, Key::Text("must-understand"))?;
        r.array_len("must-understand", 0)?;
        r.end(keys, "snapshot")?;
        r.finish()?;
        Ok(Snapshot { parent, depth, time, author, message, labels, areas, chunker })
    }

    /// The area of this name.
    pub fn area(&self, name: &str) -> Option<&SnapshotArea> {
        self.areas.iter().find(|area| area.name == name)
    }
}

fn read_areas(r: &mut Reader<'_>) -> Result<Vec<SnapshotArea>, DecodeError> {
    let start = r.offset();
    let count = r.array_len("areas", limits::AREAS_MAX)?;
    if count == 0 {
        return Err(r.error(start, "areas", Reason::Rule("no area")));
    }
    let mut areas: Vec<SnapshotArea> = Vec::with_capacity(count);
    for _ in 0..count {
        let start = r.offset();
        let area = SnapshotArea::read(r)?;
        if areas.last().is_some_and(|last| last.name >= area.name) {
            return Err(r.error(start, "areas", Reason::Canonical("areas out of order")));
        }
        areas.push(area);
    }
    Ok(areas)
}

fn read_labels(r: &mut Reader<'_>) -> Result<BTreeMap<String, String>, DecodeError> {
    let count = r.map_len("labels", usize::MAX)?;
    let mut labels = BTreeMap::new();
    let mut last = (0, 0);
    for _ in 0..count {
        let start = r.offset();
        let key = r.text("labels", TEXT_MAX)?;
        r.ascending(&mut last, start, "labels")?;
        labels.insert(key.to_owned(), r.text("labels", TEXT_MAX)?.to_owned());
    }
    Ok(labels)
}

/// Whether `name` may name an area: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
pub fn is_area_name(name: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=limits::AREA_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| ordinary(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && name.bytes().next().is_some_and(ordinary)
}

impl SnapshotArea {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(9).text("name").text(&self.name).text("root").bytes(&self.root);
        w.text("bytes").uint(self.bytes).text("files").uint(self.files).text("rules");
        self.rules.write(w);
        w.text("entries").uint(self.entries).text("manifest").bytes(&self.manifest.0);
        w.text("unstable").uint(self.unstable).text("manifest-len").uint(self.manifest_len);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let keys = &mut r.map("area")?;
        r.required(keys, Key::Text("name"))?;
        let start = r.offset();
        let name = r.text("name", limits::AREA_NAME_BYTES_MAX)?.to_owned();
        if !is_area_name(&name) {
            return Err(r.error(start, "name", Reason::Rule("not an area name")));
        }
        r.required(keys, Key::Text("root"))?;
        let start = r.offset();
        let root = r.bytes("root", limits::PATH_BYTES_MAX)?.to_vec();
        if root.first() != Some(&b'/') || root.contains(&0) {
            return Err(r.error(start, "root", Reason::Rule("not an absolute path")));
        }
        r.required(keys, Key::Text("bytes"))?;
        let bytes = r.uint("bytes")?;
        r.required(keys, Key::Text("files"))?;
        let files = r.uint("files")?;
        r.required(keys, Key::Text("rules"))?;
        let rules = AreaRules::read(r)?;
        r.required(keys, Key::Text("entries"))?;
        let entries = r.uint_in("entries", 1, u64::MAX)?;
        r.required(keys, Key::Text("manifest"))?;
        let manifest = ChunkId(r.array("manifest")?);
        r.required(keys, Key::Text("unstable"))?;
        let unstable = r.uint("unstable")?;
        r.required(keys, Key::Text("manifest-len"))?;
        let manifest_len = r.small("manifest-len", 1, limits::NODE_BYTES_MAX.into())?;
        r.end(keys, "area")?;
        Ok(SnapshotArea { name, root, rules, manifest, manifest_len, entries, files, bytes, unstable })
    }
}

impl AreaRules {
    fn write(&self, w: &mut Writer<'_>) {
        let list = |w: &mut Writer<'_>, key: &str, patterns: &[String]| {
            w.text(key).array(patterns.len());
            for pattern in patterns {
                w.text(pattern);
            }
        };
        w.map(5);
        list(w, "xattrs", &self.xattrs);
        w.text("devices").bool(self.devices);
        list(w, "exclude", &self.exclude);
        list(w, "include", &self.include);
        list(w, "identity", &self.identity);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let keys = &mut r.map("rules")?;
        let xattrs = read_patterns(r, keys, "xattrs")?;
        r.required(keys, Key::Text("devices"))?;
        let devices = r.bool("devices")?;
        let exclude = read_patterns(r, keys, "exclude")?;
        let include = read_patterns(r, keys, "include")?;
        let identity = read_patterns(r, keys, "identity")?;
        r.end(keys, "rules")?;
        Ok(AreaRules { include, exclude, identity, xattrs, devices })
    }
}

fn read_patterns(r: &mut Reader<'_>, keys: &mut Keys, key: &'static str) -> Result<Vec<String>, DecodeError> {
    r.required(keys, Key::Text(key))?;
    let count = r.array_len(key, usize::MAX)?;
    (0..count).map(|_| r.text(key, TEXT_MAX).map(str::to_owned)).collect()
}

/// One line of `snapshots/index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its parent.
    pub parent: Option<SnapshotId>,
    /// When it was made, Unix seconds.
    pub time: i64,
    /// Length of its document.
    pub len: u64,
}

const INDEX: &str = "snapshots/index";
const INDEX_MAGIC: &[u8; 8] = b"EKSNAP\r\n";
const INDEX_HEADER_LEN: usize = 16;
const INDEX_RECORD_LEN: usize = 80;
const INDEX_TRAILER_LEN: usize = 32;

/// `snapshots/index` for `records` in order of commit.
pub fn encode_index(records: &[IndexRecord]) -> Vec<u8> {
    let mut out = Vec::with_capacity(INDEX_HEADER_LEN + records.len() * INDEX_RECORD_LEN + INDEX_TRAILER_LEN);
    out.extend(INDEX_MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 2]);
    out.extend(u32::try_from(records.len()).expect("bounded by SNAPSHOT_INDEX_BYTES_MAX").to_le_bytes());
    for record in records {
        out.extend(record.id.0);
        out.extend(record.parent.map_or([0; 32], |parent| parent.0));
        out.extend(record.time.to_le_bytes());
        out.extend(record.len.to_le_bytes());
    }
    let hash = blake3::hash(&out);
    out.extend(hash.as_bytes());
    out
}

/// Reads `snapshots/index`.
///
/// # Errors
/// [`DecodeError`] at the first rule that is broken.
pub fn decode_index(bytes: &[u8]) -> Result<Vec<IndexRecord>, DecodeError> {
    let f = Fields { object: INDEX, base: 0, bytes };
    f.limit(0, "file", bytes.len() as u64, limits::SNAPSHOT_INDEX_BYTES_MAX)?;
    if bytes.len() < INDEX_HEADER_LEN + INDEX_TRAILER_LEN {
        return Err(f.error(bytes.len(), "file", Reason::Truncated));
    }
    f.magic(0, INDEX_MAGIC)?;
    f.version(8)?;
    f.zero(10, 2, "reserved")?;
    let count = u64::from(f.u32(12));
    let records_max = limits::SNAPSHOT_INDEX_BYTES_MAX / INDEX_RECORD_LEN as u64;
    f.limit(12, "count", count, records_max)?;
    let end = INDEX_HEADER_LEN + f.u32(12) as usize * INDEX_RECORD_LEN;
    f.exactly(end + INDEX_TRAILER_LEN, "records")?;
    if *blake3::hash(&bytes[..end]).as_bytes() != f.array::<32>(end) {
        return Err(f.error(end, "hash", Reason::Hash));
    }
    let record = |at: usize| {
        f.rule(at, "id", f.array::<32>(at) != [0; 32], "a snapshot id of zeros")?;
        f.range(at + 72, "len", f.u64(at + 72), 1, limits::SNAPSHOT_BYTES_MAX)?;
        let parent = Some(SnapshotId(f.array(at + 32))).filter(|parent| parent.0 != [0; 32]);
        let time = i64::from_le_bytes(f.array(at + 64));
        Ok(IndexRecord { id: SnapshotId(f.array(at)), parent, time, len: f.u64(at + 72) })
    };
    (INDEX_HEADER_LEN..end).step_by(INDEX_RECORD_LEN).map(record).collect()
}
