// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Both sides of limits: what is as large as allowed decodes, one more does not.

use std::collections::BTreeMap;

use super::super::manifest::*;
use super::super::snapshot::{AreaRules, Snapshot, SnapshotArea};
use super::super::store::{ChunkerParams, StoreFeatures, StoreFormat};
use super::super::table::{self, Location, TableKind, TablePack};
use super::super::{DecodeError, Reason, pack};
use crate::id::{ChunkId, ContentHash, PackId, StoreId};
use crate::limits;
use crate::path::TreePath;

fn fifo() -> Inode {
    Inode {
        kind: InodeKind::Fifo,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        links: 1,
        xattrs: BTreeMap::new(),
        acl: None,
        default_acl: None,
        flags: InodeFlags::default(),
    }
}

fn leaf(inodes: impl IntoIterator<Item = (String, Inode)>) -> Result<ManifestNode, DecodeError> {
    let entries = inodes
        .into_iter()
        .map(|(path, inode)| Entry { path: TreePath::new(path).unwrap(), node: Node::Inode(inode) })
        .collect();
    ManifestNode::decode(&ManifestNode::Leaf(entries).encode())
}

/// Decodes an entry with this inode.
fn decode(inode: Inode) -> Result<Entry, DecodeError> {
    let mut bytes = Vec::new();
    Entry { path: TreePath::new(*b"a").unwrap(), node: Node::Inode(inode) }.encode_into(&mut bytes);
    Entry::decode_prefix(&bytes).map(|(entry, _)| entry)
}

/// Says that `make(limit)` decodes and `make(limit + 1)` is refused for being over it, or for its value.
fn bounded<T: std::fmt::Debug>(what: &str, limit: usize, make: impl Fn(usize) -> Result<T, DecodeError>) {
    if let Err(error) = make(limit) {
        panic!("{what} of {limit}: {error}");
    }
    let error = make(limit + 1).expect_err(what);
    assert!(matches!(error.reason, Reason::Limit { .. } | Reason::Value { .. }), "{what}: {error}");
}

#[test]
fn entries() {
    bounded("symlink target", limits::SYMLINK_BYTES_MAX, |len| {
        decode(Inode { kind: InodeKind::Symlink(vec![b'a'; len]), mode: 0o777, ..fifo() })
    });
    bounded("mode", 0o7777, |mode| decode(Inode { mode: u16::try_from(mode).unwrap(), ..fifo() }));
    bounded("nanoseconds", 999_999_999, |nanos| {
        decode(Inode { mtime: Timestamp { secs: 0, nanos: u32::try_from(nanos).unwrap() }, ..fifo() })
    });
    let runs = |count: usize, len| (0..count).map(|_| ChunkRun::Data { id: ChunkId([1; 32]), len }).collect();
    let file = |size, chunks| {
        let hash = ContentHash([1; 32]);
        decode(Inode { kind: InodeKind::File(FileContent { size, hash, chunks, unstable: false }), ..fifo() })
    };
    bounded("inline runs", limits::CHUNK_LIST_INLINE_MAX, |count| {
        file(count as u64, ChunkList::Inline(runs(count, 1)))
    });
    bounded("chunk", limits::CHUNK_BYTES_MAX as usize, |len| {
        file(2 * len as u64, ChunkList::Inline(runs(2, u32::try_from(len).unwrap())))
    });
    bounded("size", usize::try_from(limits::FILE_BYTES_MAX).unwrap(), |size| {
        file(size as u64, ChunkList::Inline(vec![ChunkRun::Hole { len: size as u64 }]))
    });
    bounded("list depth", limits::CHUNK_LIST_DEPTH_MAX.into(), |depth| {
        file(1 << 30, ChunkList::Indirect { depth: u8::try_from(depth).unwrap(), runs: runs(1, 41_000) })
    });
    assert!(file(limits::CHUNK_BYTES_MAX.into(), ChunkList::Whole).is_ok());
    assert!(file(u64::from(limits::CHUNK_BYTES_MAX) + 1, ChunkList::Whole).is_err());
}

#[test]
fn attributes() {
    let with = |xattrs: BTreeMap<Vec<u8>, Vec<u8>>| decode(Inode { xattrs, ..fifo() });
    let one = |name: usize, value: usize| with(BTreeMap::from([(vec![b'a'; name], vec![0; value])]));
    bounded("xattr name", limits::NAME_BYTES_MAX, |len| one(len, 0));
    bounded("xattr value", limits::XATTR_VALUE_BYTES_MAX, |len| one(1, len));
    let names = |count: usize| (0..count).map(|number| format!("{number:04}").into_bytes());
    bounded("xattrs", limits::XATTRS_MAX, |count| with(names(count).map(|name| (name, Vec::new())).collect()));
    bounded("sum of xattrs", limits::XATTR_TOTAL_BYTES_MAX, |total| {
        let each = limits::XATTR_VALUE_BYTES_MAX - 4;
        let mut xattrs: BTreeMap<_, _> = names(15).map(|name| (name, vec![0; each])).collect();
        xattrs.insert(b"last".to_vec(), vec![0; total - 15 * (each + 4) - 4]);
        with(xattrs)
    });
    bounded("ACL", limits::ACL_ENTRIES_MAX, |count| {
        let ace = |tag| Ace { tag, perm: 0 };
        let users = (0..u32::try_from(count).unwrap() - 4).map(|id| ace(AceTag::User(id)));
        let rest = [AceTag::GroupObj, AceTag::Mask, AceTag::Other].map(ace);
        decode(Inode {
            acl: Some(Acl([ace(AceTag::UserObj)].into_iter().chain(users).chain(rest).collect())),
            ..fifo()
        })
    });
}

#[test]
fn nodes() {
    bounded("entries of a leaf", limits::LEAF_ENTRIES_MAX, |count| {
        leaf((0..count).map(|number| (format!("{number:04}"), fifo())))
    });
    let child = |number: usize| Child {
        first: TreePath::new(format!("{number:04}")).unwrap(),
        id: ChunkId([1; 32]),
        len: limits::NODE_BYTES_MAX,
        entries: 1,
    };
    let children = |count: usize| (0..count).map(child).collect::<Vec<_>>();
    bounded("children", limits::INNER_CHILDREN_MAX, |count| ManifestNode::decode(&encode_inner(1, &children(count))));
    bounded("level", limits::MANIFEST_LEVEL_MAX.into(), |level| {
        ManifestNode::decode(&encode_inner(u8::try_from(level).unwrap(), &children(1)))
    });
    let head = |users: usize| ManifestHead {
        root: ChunkId([1; 32]),
        root_len: limits::NODE_BYTES_MAX,
        level: limits::MANIFEST_LEVEL_MAX,
        entries: u64::MAX,
        users: (0..u32::try_from(users).unwrap()).map(|id| (id, b"u".to_vec())).collect(),
        groups: BTreeMap::from([(u32::MAX, vec![b'g'; limits::NAME_BYTES_MAX])]),
    };
    bounded("owner names", limits::OWNER_NAMES_MAX, |count| ManifestHead::decode(&head(count).encode()));
    let too_long = vec![0x82; limits::NODE_BYTES_MAX as usize + 1];
    assert_eq!(ManifestNode::decode(&too_long).unwrap_err().reason.name(), "limit");
    assert_eq!(ManifestHead::decode(&too_long).unwrap_err().reason.name(), "limit");
}

#[test]
fn documents() {
    let area = |name: String| SnapshotArea {
        name,
        root: b"/".to_vec(),
        rules: AreaRules::default(),
        manifest: ChunkId([1; 32]),
        manifest_len: limits::NODE_BYTES_MAX,
        entries: u64::MAX,
        files: u64::MAX,
        bytes: u64::MAX,
        unstable: u64::MAX,
    };
    let snapshot = |areas, message: usize| Snapshot {
        parent: None,
        depth: 0,
        time: Timestamp { secs: i64::MIN, nanos: 999_999_999 },
        author: String::new(),
        message: "m".repeat(message),
        labels: BTreeMap::new(),
        areas,
        chunker: ChunkerParams::around(limits::CHUNK_AVG_RANGE.1),
    };
    bounded("area name", limits::AREA_NAME_BYTES_MAX, |len| snapshot(vec![area("a".repeat(len))], 0).encode());
    bounded("areas", limits::AREAS_MAX, |count| {
        snapshot((0..count).map(|number| area(format!("{number:04}"))).collect(), 0).encode()
    });
    let empty = snapshot(vec![area("a".into())], 1 << 16).encode().unwrap().len() - (1 << 16);
    bounded("snapshot", usize::try_from(limits::SNAPSHOT_BYTES_MAX).unwrap(), |len| {
        snapshot(vec![area("a".into())], len - empty).encode()
    });
    let format = |avg: u32, pack_size: usize, ignorable: usize| {
        let ignorable = (0..ignorable).map(|number| format!("{number:0255}")).collect();
        let features = StoreFeatures { must_write: Vec::new(), ignorable };
        let (store, chunker) = (StoreId([0; 16]), ChunkerParams::around(avg));
        StoreFormat::decode(&StoreFormat { store, chunker, pack_size: pack_size as u64, features }.encode())
    };
    let (low, high) = limits::PACK_TARGET_RANGE;
    let (low, high) = (usize::try_from(low).unwrap(), usize::try_from(high).unwrap());
    bounded("pack size", high, |size| format(1 << 16, size, 0));
    assert!(format(1 << 16, low, 0).is_ok() && format(1 << 16, low - 1, 0).is_err());
    assert!(
        format(limits::CHUNK_AVG_RANGE.0, low, 0).is_ok() && format(limits::CHUNK_AVG_RANGE.0 / 2, low, 0).is_err()
    );
    assert!(
        format(limits::CHUNK_AVG_RANGE.1, low, 0).is_ok() && format(limits::CHUNK_AVG_RANGE.1 * 2, low, 0).is_err()
    );
    // As many features as allowed with names as long as allowed are just over the document's own limit.
    assert_eq!(format(1 << 16, low, 200).unwrap().features.ignorable.len(), 200);
    assert_eq!(format(1 << 16, low, limits::FEATURES_MAX + 1).unwrap_err().reason.name(), "limit");
}

#[test]
fn records_at_the_ends_of_a_pack() {
    let pack = TablePack { id: PackId([1; 32]), len: limits::PACK_BYTES_MAX, kind: pack::PackKind::Data };
    let table = |offset: u64, len: u32| {
        let encoding = pack::Encoding::Raw;
        let location = Location { pack: pack.id, offset, stored_len: len, plain_len: len, encoding };
        let bytes = table::encode(TableKind::Segment, &[pack], vec![(ChunkId([7; 32]), location)]).unwrap();
        table::Table::decode(bytes).map(|table| table.get(&ChunkId([7; 32])))
    };
    let end = limits::PACK_BYTES_MAX - pack::TRAILER_LEN as u64;
    let most = limits::CHUNK_BYTES_MAX;
    for (offset, len, allowed) in [
        (15, 1, false),
        (16, 1, true),
        (end - 1, 1, true),
        (end - 1, 2, false),
        (end - u64::from(most), most, true),
        (end, 1, false),
        (u64::MAX, 1, false),
        (16, most + 1, false),
        (16, 0, false),
    ] {
        assert_eq!(table(offset, len).is_ok(), allowed, "{len} bytes at {offset}");
    }
}

#[test]
fn a_table_wants_packs_that_it_knows() {
    let encoding = pack::Encoding::Raw;
    let location = Location { pack: PackId([2; 32]), offset: 16, stored_len: 1, plain_len: 1, encoding };
    let error = table::encode(TableKind::Segment, &[], vec![(ChunkId([7; 32]), location)]).unwrap_err();
    assert_eq!(error.reason.name(), "rule");
}
