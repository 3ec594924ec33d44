// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The valid objects of `format-spec/vectors/`.

use std::collections::BTreeMap;

use evenkeel_store::delta::codec::Effort;
use evenkeel_store::delta::codec::again::{Again, Inflate, Piece, Recipe, encode as encode_again};
use evenkeel_store::delta::codec::deflate::{AHEAD_BYTES, Part, WINDOW_BYTES, deflate};
use evenkeel_store::format::delta::{
    Delta, DeltaChunk, DeltaFrame, DeltaIndexEntry, ENCODING_DEFLATE, ENCODING_DIFF, ENCODING_ZSTD, ENCODING_ZSTD_BASE,
    encode_index as encode_delta_index, payload_hash,
};
use evenkeel_store::format::manifest::*;
use evenkeel_store::format::pack::{self, Encoding, PackEntry, PackKind};
use evenkeel_store::format::snapshot::{AreaRules, IndexRecord, Snapshot, SnapshotArea, encode_index};
use evenkeel_store::format::store::{
    ChunkerParams, CondemnedPack, SegmentRef, SegmentsCurrent, StoreFeatures, StoreFormat,
};
use evenkeel_store::format::table::{self, Location, TableKind, TablePack};
use evenkeel_store::id::{ChunkId, ContentHash, DeltaId, PackId, SegmentId, SnapshotId, StoreId};
use evenkeel_store::path::TreePath;

/// A named object.
pub struct Vector {
    pub name: &'static str,
    pub object: &'static str,
    pub bytes: Vec<u8>,
}

/// All of them.
pub fn vectors() -> Vec<Vector> {
    let vector = |name, object, bytes| Vector { name, object, bytes };
    vec![
        vector("format", "format", store_format().encode()),
        vector("format-features", "format", store_format_with_features().encode()),
        vector("segments-current", "segments-current", segments_current().encode()),
        vector("segments-current-empty", "segments-current", segments_current_empty().encode()),
        vector("pack-data", "pack", pack_data()),
        vector("pack-manifest", "pack", pack_manifest()),
        vector("segment", "segment", segment()),
        vector("segment-empty", "segment", table(TableKind::Segment, 0)),
        vector("segment-fanout", "segment", table(TableKind::Segment, 100)),
        vector("locator-full", "locator", table(TableKind::Locator { snapshot: snapshot_id("a"), base: None }, 3)),
        vector("locator-base", "locator", locator_base()),
        vector("manifest-head", "manifest-head", head().encode()),
        vector("manifest-leaf", "manifest-node", leaf(&entries())),
        vector("manifest-leaf-names", "manifest-node", leaf(&names())),
        vector("manifest-leaf-inside", "manifest-node", leaf(&inside())),
        vector("manifest-inner", "manifest-node", encode_inner(1, &children())),
        vector("snapshot-root", "snapshot", root_snapshot().encode().expect("valid")),
        vector("snapshot-child", "snapshot", child_snapshot().encode().expect("valid")),
        vector("snapshot-index", "snapshot-index", encode_index(&index())),
        vector("snapshot-index-empty", "snapshot-index", encode_index(&[])),
        vector("delta", "delta", delta_file(Some(snapshot_id("a")), &delta_frames())),
        vector("delta-from-nothing", "delta", delta_file(None, &delta_frames()[..1])),
        vector("delta-index", "delta-index", delta_index()),
        vector("delta-index-empty", "delta-index", encode_delta_index(&snapshot_id("b"), &[])),
    ]
}

/// The first `len` bytes that BLAKE3 gives, as an extendable-output function, for the text `seed`.
pub fn xof(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn hash(seed: &str) -> [u8; 32] {
    *blake3::hash(seed.as_bytes()).as_bytes()
}

fn chunk_id(seed: &str) -> ChunkId {
    ChunkId(hash(seed))
}

fn snapshot_id(seed: &str) -> SnapshotId {
    SnapshotId(hash(seed))
}

fn store_id() -> StoreId {
    StoreId(*b"0123456789abcdef")
}

pub fn store_format() -> StoreFormat {
    StoreFormat {
        store: store_id(),
        chunker: ChunkerParams::around(64 << 10),
        pack_size: 32 << 20,
        features: StoreFeatures::default(),
    }
}

fn store_format_with_features() -> StoreFormat {
    let features = StoreFeatures { must_write: vec!["mirror".into()], ignorable: vec!["a".into(), "hints".into()] };
    let chunker = ChunkerParams { min: 4 << 10, avg: 16 << 10, max: 32 << 10, normalization: 3 };
    StoreFormat { features, chunker, pack_size: 1 << 20, ..store_format() }
}

pub fn segments_current() -> SegmentsCurrent {
    let mut segments: Vec<SegmentRef> = ["one", "two", "three"]
        .map(|name| SegmentRef { id: SegmentId(hash(name)), len: 70_000 + name.len() as u64, records: 1000 })
        .to_vec();
    segments.sort_by_key(|segment| segment.id);
    let mut condemned = vec![
        CondemnedPack { pack: PackId(hash("old")), since: 1_700_000_000 },
        CondemnedPack { pack: PackId(hash("older")), since: -1 },
    ];
    condemned.sort_by_key(|condemned| condemned.pack);
    SegmentsCurrent { store: store_id(), generation: 17, segments, condemned }
}

fn segments_current_empty() -> SegmentsCurrent {
    SegmentsCurrent { store: store_id(), generation: 0, segments: Vec::new(), condemned: Vec::new() }
}

/// A pack around records that are given with their plain bytes.
pub fn pack_of(kind: PackKind, records: &[(Encoding, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut file = pack::encode_header(kind).to_vec();
    let mut entries = Vec::new();
    for (encoding, plain, stored) in records {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small");
        entries.push(PackEntry {
            id: ChunkId::of(plain),
            offset: file.len() as u64,
            stored_len: len(stored),
            plain_len: len(plain),
            encoding: *encoding,
        });
        file.extend(stored);
    }
    file.extend(pack::encode_footer(&entries));
    file
}

/// Text that compresses.
fn prose(topic: &str) -> Vec<u8> {
    (0..40).map(|line| format!("line {line} of the text about {topic}\n")).collect::<String>().into_bytes()
}

/// A chunk and its frame.
pub fn record() -> (Vec<u8>, Vec<u8>) {
    let plain = prose("records");
    let frame = zstd::bulk::compress(&plain, 3).expect("zstd compresses");
    (plain, frame)
}

/// Chunk lists with and without holes.
pub fn chunk_lists() -> Vec<Vec<ChunkRun>> {
    let mixed = vec![hole(8192), data("4", 5000), data("5", 3192), hole(4096), data("6", 7)];
    vec![vec![data("1", 1)], vec![hole(1)], vec![data("7", 4096), hole(1)], mixed]
}

/// A raw record, two zstd ones, and one that was made with the first zstd one as its dictionary.
pub fn pack_data() -> Vec<u8> {
    let noise = xof("raw record", 100);
    let (first, second) = (prose("packs"), prose("dictionaries"));
    let zstd = |plain: &[u8]| zstd::bulk::compress(plain, 3).expect("zstd compresses");
    let with_dict = zstd::bulk::Compressor::with_dictionary(3, &first)
        .and_then(|mut compressor| compressor.compress(&second))
        .expect("zstd compresses");
    pack_of(
        PackKind::Data,
        &[
            (Encoding::Raw, noise.clone(), noise),
            (Encoding::Zstd, first.clone(), zstd(&first)),
            (Encoding::ZstdDict(ChunkId::of(&first)), second.clone(), with_dict),
            (Encoding::Raw, b"x".to_vec(), b"x".to_vec()),
        ],
    )
}

fn pack_manifest() -> Vec<u8> {
    let nodes = [head().encode(), leaf(&entries())];
    let raw = nodes.map(|node| (Encoding::Raw, node.clone(), node));
    pack_of(PackKind::Manifest, &raw)
}

/// A table of this kind with `count` records in two packs.
pub fn table(kind: TableKind, count: u32) -> Vec<u8> {
    let packs =
        ["pack a", "pack b"].map(|name| TablePack { id: PackId(hash(name)), len: 1 << 20, kind: PackKind::Data });
    let records = (0..count).map(|index| {
        let encoding = if index % 2 == 0 { Encoding::Raw } else { Encoding::Zstd };
        let location = Location {
            pack: packs[index as usize % 2].id,
            offset: 16 + 1000 * u64::from(index),
            stored_len: 1000,
            plain_len: if index % 2 == 0 { 1000 } else { 3000 },
            encoding,
        };
        (chunk_id(&format!("record {index}")), location)
    });
    table::encode(kind, &packs, records.collect()).expect("within all limits")
}

/// Records of every encoding in packs of both kinds.
pub fn segment() -> Vec<u8> {
    let packs = [
        TablePack { id: PackId(hash("data")), len: 32 << 20, kind: PackKind::Data },
        TablePack { id: PackId(hash("manifest")), len: 4096, kind: PackKind::Manifest },
    ];
    let at = |pack: usize, offset, stored_len, plain_len, encoding| Location {
        pack: packs[pack].id,
        offset,
        stored_len,
        plain_len,
        encoding,
    };
    let records = vec![
        (chunk_id("raw"), at(0, 16, 100, 100, Encoding::Raw)),
        (chunk_id("zstd"), at(0, 116, 50, 1 << 20, Encoding::Zstd)),
        (chunk_id("dict"), at(0, 166, 7, 200, Encoding::ZstdDict(chunk_id("zstd")))),
        (chunk_id("dict 2"), at(0, 173, 9, 200, Encoding::ZstdDict(chunk_id("raw")))),
        (chunk_id("node"), at(1, 16, 4016, 4016, Encoding::Raw)),
    ];
    table::encode(TableKind::Segment, &packs, records).expect("within all limits")
}

pub fn locator_base() -> Vec<u8> {
    table(TableKind::Locator { snapshot: snapshot_id("b"), base: Some((snapshot_id("a"), 15)) }, 2)
}

pub fn head() -> ManifestHead {
    ManifestHead {
        root: chunk_id("root node"),
        root_len: 5000,
        level: 1,
        entries: 123_456,
        users: BTreeMap::from([(0, b"root".to_vec()), (1000, b"alice".to_vec()), (70_000, b"gr\xf6\xdfe".to_vec())]),
        groups: BTreeMap::from([(0, b"root".to_vec()), (24, b"cdrom".to_vec())]),
    }
}

/// A plain inode of this kind.
pub fn inode(kind: InodeKind) -> Inode {
    Inode {
        mode: if matches!(kind, InodeKind::Symlink(_)) { 0o777 } else { 0o644 },
        kind,
        uid: 0,
        gid: 0,
        mtime: Timestamp { secs: 1_700_000_000, nanos: 123_456_789 },
        links: 1,
        xattrs: BTreeMap::new(),
        acl: None,
        default_acl: None,
        flags: InodeFlags::default(),
    }
}

pub fn entry(path: impl AsRef<[u8]>, inode: Inode) -> Entry {
    Entry { path: TreePath::new(path.as_ref()).expect("a valid path"), node: Node::Inode(inode) }
}

pub fn link(path: &str, first: &str) -> Entry {
    let valid = |path: &str| TreePath::new(path).expect("a valid path");
    Entry { path: valid(path), node: Node::Link { first: valid(first) } }
}

pub fn directory() -> Inode {
    Inode { mode: 0o755, ..inode(InodeKind::Directory) }
}

/// A file of one chunk.
pub fn file(content: &[u8]) -> Inode {
    file_of(content.len() as u64, ContentHash::of(content), ChunkList::Whole)
}

pub fn file_of(size: u64, hash: ContentHash, chunks: ChunkList) -> Inode {
    inode(InodeKind::File(FileContent { size, hash, chunks, unstable: false }))
}

pub fn data(seed: &str, len: u32) -> ChunkRun {
    ChunkRun::Data { id: chunk_id(seed), len }
}

pub fn hole(len: u64) -> ChunkRun {
    ChunkRun::Hole { len }
}

/// A file made of these runs.
pub fn runs(runs: Vec<ChunkRun>) -> Inode {
    file_of(runs.iter().map(ChunkRun::len).sum(), ContentHash(hash("content")), ChunkList::Inline(runs))
}

pub fn ace(tag: AceTag, perm: u8) -> Ace {
    Ace { tag, perm }
}

/// An access list with a named user and group.
pub fn acl() -> Acl {
    Acl(vec![
        ace(AceTag::UserObj, 6),
        ace(AceTag::User(0), 7),
        ace(AceTag::User(70_000), 4),
        ace(AceTag::GroupObj, 4),
        ace(AceTag::Group(u32::MAX), 0),
        ace(AceTag::Mask, 7),
        ace(AceTag::Other, 0),
    ])
}

pub fn minimal_acl() -> Acl {
    Acl(vec![ace(AceTag::UserObj, 7), ace(AceTag::GroupObj, 5), ace(AceTag::Other, 1)])
}

/// Bytes of a leaf.
pub fn leaf(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.encode_into(&mut bytes));
    encode_leaf(entries.len(), &bytes)
}

/// Every kind with every optional key somewhere, as a whole manifest.
pub fn entries() -> Vec<Entry> {
    let mut entries = vec![
        entry("", Inode { mode: 0o1755, ..directory() }),
        entry("acl", Inode { acl: Some(acl()), mode: 0o670, ..file(b"acl") }),
        entry("default-acl", Inode { acl: Some(acl()), default_acl: Some(minimal_acl()), ..directory() }),
        entry("default-acl/inside", file(b"inside")),
        entry("device-block", inode(InodeKind::BlockDevice { major: 8, minor: u32::MAX })),
        entry("device-char", Inode { links: 2, ..inode(InodeKind::CharDevice { major: 1, minor: 3 }) }),
        link("device-char-again", "device-char"),
        entry("fifo", inode(InodeKind::Fifo)),
        entry("file-all-hole", runs(vec![hole(5_000_000_001)])),
        entry("file-chunks", runs(vec![data("1", 65_536), data("2", 16 << 20), data("3", 1)])),
        entry("file-empty", file(b"")),
        entry("file-holes", runs(vec![hole(8192), data("4", 5000), data("5", 3192), hole(4096), data("6", 7)])),
        entry("file-hole-last", runs(vec![data("7", 4096), hole(1)])),
        entry("file-indirect", file_of(100 << 30, ContentHash(hash("big")), indirect(1, 1025))),
        entry("file-indirect-deep", file_of(16 << 40, ContentHash(hash("bigger")), indirect(3, 100_000))),
        entry("file-one", file(b"one chunk")),
        entry("file-unstable", unstable(file(b"changing"))),
        entry("flags", Inode { flags: InodeFlags((1 << InodeFlags::NAMES.len()) - 1), ..file(b"flags") }),
        entry("flags-immutable", Inode { flags: InodeFlags::from_name("immutable").expect("a flag"), ..directory() }),
        entry("link-1", Inode { links: 3, ..file(b"linked") }),
        link("link-2", "link-1"),
        link("link-3", "link-1"),
        entry("mode", Inode { mode: 0o7777, uid: 1000, gid: 70_000, ..file(b"set-id") }),
        entry("mtime-far", Inode { mtime: Timestamp { secs: i64::MAX, nanos: 0 }, ..file(b"x") }),
        entry("mtime-negative", Inode { mtime: Timestamp { secs: -1, nanos: 999_999_999 }, ..file(b"y") }),
        entry("mtime-past", Inode { mtime: Timestamp { secs: i64::MIN, nanos: 1 }, ..file(b"z") }),
        entry("owner-max", Inode { uid: u32::MAX, gid: u32::MAX, ..file(b"owner") }),
        entry("socket", inode(InodeKind::Socket)),
        entry("symlink", inode(InodeKind::Symlink(b"../target\xff".to_vec()))),
        entry("symlink-long", inode(InodeKind::Symlink(vec![b'a'; 4095]))),
        entry("xattrs", Inode { xattrs: xattrs(), ..file(b"xattrs") }),
    ];
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

pub fn unstable(mut inode: Inode) -> Inode {
    if let InodeKind::File(file) = &mut inode.kind {
        file.unstable = true;
    }
    inode
}

/// A list of `records` records of the next depth, in two chunks.
pub fn indirect(depth: u8, records: u32) -> ChunkList {
    ChunkList::Indirect { depth, runs: vec![data("list 1", 16_384), data("list 2", records * 40 - 16_384)] }
}

fn xattrs() -> BTreeMap<Vec<u8>, Vec<u8>> {
    BTreeMap::from([
        (b"user.b".to_vec(), b"short names come first".to_vec()),
        (b"user.aaa".to_vec(), Vec::new()),
        (b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (b"user.\xff\n".to_vec(), vec![0; 300]),
    ])
}

/// Names that are hard to show or to sort, as a whole manifest.
fn names() -> Vec<Entry> {
    let long = "n".repeat(255);
    let deep = vec![long.as_str(); 16].join("/");
    let mut paths: Vec<Vec<u8>> = [
        &b"a"[..],
        b"a/b",
        b"a/b/c",
        b"a\x01",
        b"a!",
        b"a-b",
        b"new\nline",
        b"not utf-8 \xff\xfe",
        b"\x1b[2J",
        b" ",
        b"...",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    paths.push("größe \u{202e}".into());
    paths.extend((1..=16).map(|depth| deep.as_bytes()[..256 * depth - 1].to_vec()));
    let is_parent = |path: &[u8]| paths.iter().any(|other| other.starts_with(&[path, b"/"].concat()));
    let mut entries: Vec<Entry> = paths
        .iter()
        .map(|path| entry(path, if is_parent(path) { directory() } else { file(b"named") }))
        .chain([entry("", directory())])
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// A leaf from the middle of a manifest: its ancestors lie in earlier leaves.
fn inside() -> Vec<Entry> {
    vec![
        entry("usr/lib/x/y", file(b"1")),
        entry("usr/lib/z", directory()),
        entry("usr/lib/z/1", file(b"2")),
        link("usr/share", "bin"),
        entry("var", directory()),
    ]
}

pub fn children() -> Vec<Child> {
    let child = |first: &[u8], len, entries| Child {
        first: TreePath::new(first).expect("a valid path"),
        id: ChunkId::of(first),
        len,
        entries,
    };
    vec![child(b"", 1, 1), child(b"etc/\xff", 4 << 20, 1024), child(b"usr/lib", 70_000, 5_000_000_000)]
}

fn area(name: &str) -> SnapshotArea {
    SnapshotArea {
        name: name.into(),
        root: format!("/srv/{name}").into_bytes(),
        rules: AreaRules::default(),
        manifest: chunk_id(name),
        manifest_len: 300,
        entries: 3,
        files: 1,
        bytes: 1 << 40,
        unstable: 0,
    }
}

pub fn root_snapshot() -> Snapshot {
    Snapshot {
        parent: None,
        depth: 0,
        time: Timestamp { secs: 1_700_000_000, nanos: 5 },
        author: "root@master".into(),
        message: String::new(),
        labels: BTreeMap::new(),
        areas: vec![area("core")],
        chunker: ChunkerParams::around(64 << 10),
    }
}

pub fn child_snapshot() -> Snapshot {
    let rules = AreaRules {
        include: vec!["/bin".into(), "/lib".into()],
        exclude: vec!["*.log".into(), "!keep.log".into()],
        identity: vec!["/etc/machine-id".into()],
        xattrs: vec!["user.*".into(), "security.capability".into()],
        devices: true,
    };
    Snapshot {
        parent: Some(snapshot_id("parent")),
        depth: 41,
        message: "Größere Änderung\nzweite Zeile".into(),
        labels: BTreeMap::from([("z".into(), "1".into()), ("aa".into(), "".into()), ("ticket".into(), "OPS-7".into())]),
        areas: vec![SnapshotArea { rules, unstable: 1, ..area("0-apps") }, area("core"), area("core.d")],
        chunker: ChunkerParams { min: 2 << 10, avg: 8 << 10, max: 16 << 20, normalization: 0 },
        ..root_snapshot()
    }
}

pub fn index() -> Vec<IndexRecord> {
    let record = |id, parent, time, len| IndexRecord { id: snapshot_id(id), parent, time, len };
    vec![record("a", None, 1_700_000_000, 400), record("b", Some(snapshot_id("a")), -5, 1 << 20)]
}

/// A frame with its payload.
pub type Framed = (DeltaFrame, Vec<u8>);

fn framed(outputs: &[&[u8]], bases: &[&[u8]], encoding: u8, payload: Vec<u8>) -> Framed {
    let chunk = |plain: &&[u8]| DeltaChunk { id: ChunkId::of(plain), len: u32::try_from(plain.len()).expect("small") };
    let frame = DeltaFrame {
        outputs: outputs.iter().map(chunk).collect(),
        bases: bases.iter().map(chunk).collect(),
        encoding,
        payload_len: u32::try_from(payload.len()).expect("small"),
        payload_hash: payload_hash(&payload),
    };
    (frame, payload)
}

/// A frame of every encoding, and one of a later program. What the later ones need the first one gives, so that a delta of
/// the first alone is from nothing.
pub fn delta_frames() -> Vec<Framed> {
    let [one, two] = [xof("delta one", 3000), xof("delta two", 2000)];
    let old = [&one[..], &two[..]].concat();
    let alone = zstd::bulk::compress(&old, 3).expect("zstd compresses");
    // A formatted dictionary begins so; here it is content like any other.
    let mut marked = one.clone();
    marked[..4].copy_from_slice(&[0x37, 0xa4, 0x30, 0xec]);
    let mut moved = [&two[..], &marked[..]].concat();
    moved[100] ^= 1;
    let (first, last) = moved.split_at(1000);
    let mut new = old.clone();
    new.iter_mut().step_by(500).for_each(|byte| *byte = byte.wrapping_add(3));
    new.extend_from_slice(b"more");
    let (zipped_old, zipped, again) = deflated_again();
    let cut = zipped.len() / 3;
    vec![
        framed(&[&one, &two], &[], ENCODING_ZSTD, alone),
        framed(&[&marked], &[&one], ENCODING_ZSTD_BASE, after(&one, &marked)),
        framed(
            &[first, last],
            &[&marked, &two, &one],
            ENCODING_ZSTD_BASE,
            after(&[&marked[..], &old[3000..], &one].concat(), &moved),
        ),
        framed(&[&new], &[&one, &two], ENCODING_DIFF, differences(&old, &new)),
        framed(&[&zipped_old], &[], ENCODING_ZSTD, zstd::bulk::compress(&zipped_old, 3).expect("zstd compresses")),
        framed(&[&zipped[..cut], &zipped[cut..]], &[&zipped_old], ENCODING_DEFLATE, again),
        framed(&[b"a later program's"], &[&two], 200, b"whatever it means".to_vec()),
    ]
}

/// A stream behind four bytes; the middle of one that holds nearly the same; and the payload that makes this out of it.
fn deflated_again() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    // Few new bytes and short repetitions: blocks end early.
    let noise = xof("deflate", 12_000);
    let phrases: Vec<&[u8]> = noise[..600].chunks(12).collect();
    let step = |(at, new): (usize, &[u8])| [new, phrases[at * 7 % phrases.len()]].concat();
    let old: Vec<u8> = [noise[..600].to_vec(), noise[600..].chunks(3).enumerate().flat_map(step).collect()].concat();
    let mut new = old.clone();
    new.splice(20_000..20_003, *b"another word");
    let stream = |data: &[u8]| {
        let mut starts = Vec::new();
        let part = Part { data, window: 0, ahead: None, level: 6, before: 2, lead: 0 };
        let bytes = deflate(part, |start, _| {
            starts.push(start);
            true
        });
        (bytes.expect("a whole stream"), starts)
    };
    let (old_stream, _) = stream(&old);
    let (new_stream, starts) = stream(&new);
    let [from, to] = [starts[0], starts[1]];
    let byte = |bit: u64| usize::try_from(bit / 8).expect("a short stream");
    let (skip, take) = (5, byte(to.bit) - byte(from.bit) - 5);
    let wanted = new_stream[byte(from.bit) + skip..][..take].to_vec();
    let ahead = AHEAD_BYTES.min(new.len() - to.at);
    let again = Again {
        level: 6,
        lead: u8::try_from(from.bit % 8).expect("below 8"),
        window: from.at.min(WINDOW_BYTES),
        len: to.at - from.at,
        ahead: Some(ahead),
        before: from.before,
        skip,
        take,
    };
    let plain = [b"copied", &new[from.at - again.window..to.at + ahead]].concat();
    let base = [b"head", &old_stream[..]].concat();
    let inflate = vec![Inflate { start: 4, stored_len: old_stream.len(), plain_len: old.len() }];
    let recipe = Recipe { inflate, pieces: vec![Piece::Copy(6), Piece::Deflate(again)] };
    let payload = encode_again(&recipe, &base, &plain, Effort::Fast).expect("zstd compresses");
    (base, [b"copied", &wanted[..]].concat(), payload)
}

fn after(base: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut context = zstd::zstd_safe::CCtx::create();
    context.ref_prefix(base).expect("zstd takes it");
    let mut payload = Vec::with_capacity(plain.len() + 100);
    context.compress2(&mut payload, plain).expect("zstd compresses");
    payload
}

/// One step forward over all of `base`, in two pieces that go back to its begin between them, and what follows.
fn differences(base: &[u8], plain: &[u8]) -> Vec<u8> {
    let (same, extra) = plain.split_at(base.len());
    let diff: Vec<u8> = same.iter().zip(base).map(|(new, old)| new.wrapping_sub(*old)).collect();
    let varint = |mut value: usize| {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push(u8::try_from(value & 0x7f).expect("7 bits") | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).expect("7 bits"));
        bytes
    };
    let rest = base.len() - 1000;
    // To the place 10 and back by 10, then on.
    let columns = [[20, 19, 0], [0, 1000, rest], [0, 0, extra.len()]];
    let control = [varint(3), columns.iter().flatten().flat_map(|value| varint(*value)).collect()].concat();
    let (mut lengths, mut streams) = (Vec::new(), Vec::new());
    for stream in [&control[..], &diff, extra] {
        let stored = zstd::bulk::compress(stream, 3).expect("zstd compresses");
        lengths.extend([varint(stream.len()), varint(stored.len())].concat());
        streams.extend(stored);
    }
    [lengths, streams].concat()
}

pub fn delta_file(base: Option<SnapshotId>, frames: &[Framed]) -> Vec<u8> {
    let (frames, payloads): (Vec<_>, Vec<_>) = frames.iter().cloned().unzip();
    [Delta { base, target: snapshot_id("b"), frames }.encode(), payloads.concat()].concat()
}

pub fn delta_index() -> Vec<u8> {
    let entry =
        |base, delta, head_len, file_len| DeltaIndexEntry { base, delta: DeltaId(hash(delta)), head_len, file_len };
    let entries = [
        entry(None, "whole", 128 + 32 + 36, 70 << 20),
        entry(Some(snapshot_id("a")), "from a", 1 << 20, 64 << 30),
        entry(Some(snapshot_id("c")), "from c", 5000, 5001),
    ];
    encode_delta_index(&snapshot_id("b"), &entries)
}
