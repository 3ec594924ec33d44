// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Properties that hold for every codec: decode∘encode is the identity, damage is an error and never a panic.

mod bounds;

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::delta::{self, Delta, DeltaChunk, DeltaFrame, DeltaIndexEntry};
use super::manifest::*;
use super::pack::{self, Encoding, PackEntry, PackKind};
use super::snapshot::{self, AreaRules, IndexRecord, Snapshot, SnapshotArea};
use super::store::{ChunkerParams, CondemnedPack, SegmentRef, SegmentsCurrent, StoreFeatures, StoreFormat};
use super::table::{self, Location, Table, TableKind, TablePack};
use crate::id::{ChunkId, ContentHash, DeltaId, PackId, SegmentId, SnapshotId, StoreId};
use crate::limits;
use crate::path::TreePath;

fn chunk_id() -> impl Strategy<Value = ChunkId> {
    any::<[u8; 32]>().prop_filter("holes have the zero id", |id| *id != [0; 32]).prop_map(ChunkId)
}

fn chunker() -> impl Strategy<Value = ChunkerParams> {
    (13u32..=22, 0u8..=3)
        .prop_map(|(bits, normalization)| ChunkerParams { normalization, ..ChunkerParams::around(1 << bits) })
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::btree_set("[a-z-]{1,12}", 0..4).prop_map(|names| names.into_iter().collect())
}

fn store_format() -> impl Strategy<Value = StoreFormat> {
    let (least, most) = limits::PACK_TARGET_RANGE;
    (any::<[u8; 16]>(), chunker(), least..=most, names(), names()).prop_map(
        |(store, chunker, pack_size, must_write, ignorable)| StoreFormat {
            store: StoreId(store),
            chunker,
            pack_size,
            features: StoreFeatures { must_write, ignorable },
        },
    )
}

fn segments_current() -> impl Strategy<Value = SegmentsCurrent> {
    let segments = btree_map(any::<[u8; 32]>(), (any::<u64>(), 0..=limits::TABLE_RECORDS_MAX), 0..5);
    let condemned = btree_map(any::<[u8; 32]>(), any::<i64>(), 0..5);
    (any::<[u8; 16]>(), any::<u64>(), segments, condemned).prop_map(|(store, generation, segments, condemned)| {
        SegmentsCurrent {
            store: StoreId(store),
            generation,
            segments: segments
                .into_iter()
                .map(|(id, (len, records))| SegmentRef { id: SegmentId(id), len, records })
                .collect(),
            condemned: condemned.into_iter().map(|(id, since)| CondemnedPack { pack: PackId(id), since }).collect(),
        }
    })
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Timestamp { secs, nanos })
}

fn area() -> impl Strategy<Value = SnapshotArea> {
    let rules = (names(), names(), names(), names(), any::<bool>()).prop_map(
        |(include, exclude, identity, xattrs, devices)| AreaRules { include, exclude, identity, xattrs, devices },
    );
    let root = "/[a-zé/]{0,20}".prop_map(String::into_bytes);
    let counts = (1..u64::MAX, any::<u64>(), any::<u64>(), any::<u64>());
    (root, rules, chunk_id(), 1..=limits::NODE_BYTES_MAX, counts).prop_map(
        |(root, rules, manifest, manifest_len, (entries, files, bytes, unstable))| SnapshotArea {
            name: String::new(),
            root,
            rules,
            manifest,
            manifest_len,
            entries,
            files,
            bytes,
            unstable,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let areas = btree_map("[a-z0-9][a-z0-9._-]{0,63}", area(), 1..4)
        .prop_map(|areas| areas.into_iter().map(|(name, area)| SnapshotArea { name, ..area }).collect::<Vec<_>>());
    let parent = proptest::option::of((any::<[u8; 32]>(), 1..=u64::MAX));
    (
        parent,
        timestamp(),
        any::<String>(),
        any::<String>(),
        btree_map(any::<String>(), any::<String>(), 0..4),
        areas,
        chunker(),
    )
        .prop_map(|(parent, time, author, message, labels, areas, chunker)| Snapshot {
            parent: parent.map(|(id, _)| SnapshotId(id)),
            depth: parent.map_or(0, |(_, depth)| depth),
            time,
            author,
            message,
            labels,
            areas,
            chunker,
        })
}

fn acl(extended: bool) -> impl Strategy<Value = Acl> {
    let named = btree_map(any::<u32>(), 0u8..8, 0..3);
    (vec(0u8..8, 4), named.clone(), named, any::<bool>()).prop_map(move |(perms, users, groups, mask)| {
        let mut acl = vec![Ace { tag: AceTag::UserObj, perm: perms[0] }];
        acl.extend(users.iter().map(|(id, perm)| Ace { tag: AceTag::User(*id), perm: *perm }));
        acl.push(Ace { tag: AceTag::GroupObj, perm: perms[1] });
        acl.extend(groups.iter().map(|(id, perm)| Ace { tag: AceTag::Group(*id), perm: *perm }));
        if extended || mask || !users.is_empty() || !groups.is_empty() {
            acl.push(Ace { tag: AceTag::Mask, perm: perms[2] });
        }
        acl.push(Ace { tag: AceTag::Other, perm: perms[3] });
        Acl(acl)
    })
}

/// Data and holes in turn, so that no two holes touch.
fn runs() -> impl Strategy<Value = Vec<ChunkRun>> {
    vec((proptest::option::of(1u64..1000), chunk_id(), 1..=limits::CHUNK_BYTES_MAX / 4096), 1..8).prop_map(|parts| {
        let mut runs = Vec::new();
        for (hole, id, pages) in parts {
            runs.extend(hole.map(|pages| ChunkRun::Hole { len: pages * limits::HOLE_ALIGN }));
            runs.push(ChunkRun::Data { id, len: pages * 4096 });
        }
        runs
    })
}

fn file() -> impl Strategy<Value = FileContent> {
    let chunks = prop_oneof![
        Just(None),
        runs().prop_map(|runs| Some((None, runs))),
        (1..=limits::CHUNK_LIST_DEPTH_MAX, vec((chunk_id(), 1025u32..4096), 1..4)).prop_map(|(depth, chunks)| {
            let runs = chunks.into_iter().map(|(id, records)| ChunkRun::Data { id, len: records * 40 }).collect();
            Some((Some(depth), runs))
        }),
    ];
    (0..=u64::from(limits::CHUNK_BYTES_MAX), any::<[u8; 32]>(), chunks, any::<bool>()).prop_map(
        |(size, hash, chunks, unstable)| {
            let hash = ContentHash(hash);
            match chunks {
                Some((Some(depth), runs)) => {
                    FileContent { size: size + 1, hash, chunks: ChunkList::Indirect { depth, runs }, unstable }
                }
                Some((None, runs)) if runs.len() > 1 => {
                    let size = runs.iter().map(ChunkRun::len).sum();
                    FileContent { size, hash, chunks: ChunkList::Inline(runs), unstable }
                }
                _ if size == 0 => FileContent { size, hash: ContentHash::of(b""), chunks: ChunkList::Whole, unstable },
                _ => FileContent { size, hash, chunks: ChunkList::Whole, unstable },
            }
        },
    )
}

fn kind() -> impl Strategy<Value = InodeKind> {
    prop_oneof![
        Just(InodeKind::Directory),
        file().prop_map(InodeKind::File),
        vec(1u8.., 1..50).prop_map(InodeKind::Symlink),
        Just(InodeKind::Fifo),
        any::<(u32, u32)>().prop_map(|(major, minor)| InodeKind::CharDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| InodeKind::BlockDevice { major, minor }),
        Just(InodeKind::Socket),
    ]
}

fn inode() -> impl Strategy<Value = Inode> {
    let extended = (proptest::option::of(acl(true)), proptest::option::of(acl(false)));
    let xattrs = btree_map(vec(1u8.., 1..20), vec(any::<u8>(), 0..300), 0..4);
    (kind(), 0u16..=0o7777, any::<(u32, u32)>(), timestamp(), 1u32.., xattrs, extended, 0u16..1024).prop_map(
        |(kind, mode, (uid, gid), mtime, links, xattrs, (acl, default_acl), flags)| {
            let is_symlink = matches!(kind, InodeKind::Symlink(_));
            let is_directory = kind == InodeKind::Directory;
            Inode {
                kind,
                mode: if is_symlink { 0o777 } else { mode },
                uid,
                gid,
                mtime,
                links: if is_directory { 1 } else { links },
                xattrs,
                acl: acl.filter(|_| !is_symlink),
                default_acl: default_acl.filter(|_| is_directory),
                flags: InodeFlags(flags),
            }
        },
    )
}

fn path() -> impl Strategy<Value = TreePath> {
    vec(vec(any::<u8>(), 1..12), 1..5).prop_filter_map("a valid path", |names| TreePath::new(names.join(&b'/')).ok())
}

fn entry() -> impl Strategy<Value = Entry> {
    let link = (path(), path()).prop_filter_map("a link to something before it", |(a, b)| {
        (a < b).then_some(Entry { path: b, node: Node::Link { first: a } })
    });
    prop_oneof![9 => (path(), inode()).prop_map(|(path, inode)| Entry { path, node: Node::Inode(inode) }), 1 => link]
}

/// Entries of one directory, in order.
fn leaf() -> impl Strategy<Value = Vec<Entry>> {
    btree_map(path(), inode(), 1..8).prop_map(|inodes| {
        let flat = |path: &TreePath| TreePath::new(path.name()).expect("one component of a valid path");
        let inodes: BTreeMap<TreePath, Inode> = inodes.into_iter().map(|(path, inode)| (flat(&path), inode)).collect();
        inodes.into_iter().map(|(path, inode)| Entry { path, node: Node::Inode(inode) }).collect()
    })
}

fn children() -> impl Strategy<Value = Vec<Child>> {
    btree_map(path(), (chunk_id(), 1..=limits::NODE_BYTES_MAX, 1u64..1 << 40), 1..8).prop_map(|children| {
        children.into_iter().map(|(first, (id, len, entries))| Child { first, id, len, entries }).collect()
    })
}

fn head() -> impl Strategy<Value = ManifestHead> {
    let names = btree_map(any::<u32>(), "[a-z_][a-z0-9_-]{0,20}".prop_map(String::into_bytes), 0..5);
    (chunk_id(), 1..=limits::NODE_BYTES_MAX, 0..=limits::MANIFEST_LEVEL_MAX, 1..=u64::MAX, names.clone(), names)
        .prop_map(|(root, root_len, level, entries, users, groups)| ManifestHead {
            root,
            root_len,
            level,
            entries,
            users,
            groups,
        })
}

fn encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::Raw), Just(Encoding::Zstd), chunk_id().prop_map(Encoding::ZstdDict)]
}

/// Lengths and encoding of a record that keep the rules.
fn record() -> impl Strategy<Value = (u32, u32, Encoding)> {
    (1u32..1000, 1u32..1000, encoding()).prop_map(|(stored_len, more, encoding)| match encoding {
        Encoding::Raw => (stored_len, stored_len, encoding),
        _ => (stored_len, stored_len + more, encoding),
    })
}

fn pack_entries() -> impl Strategy<Value = Vec<PackEntry>> {
    vec((chunk_id(), record()), 1..20).prop_map(|records| {
        let mut offset = pack::HEADER_LEN as u64;
        let mut next = |(id, (stored_len, plain_len, encoding))| {
            let entry = PackEntry { id, offset, stored_len, plain_len, encoding };
            offset += u64::from(stored_len);
            entry
        };
        records.into_iter().map(&mut next).collect()
    })
}

type TableParts = (TableKind, Vec<TablePack>, BTreeMap<ChunkId, Location>);

fn table_parts() -> impl Strategy<Value = TableParts> {
    let kind = prop_oneof![
        Just(TableKind::Segment),
        any::<[u8; 32]>().prop_map(|id| TableKind::Locator { snapshot: SnapshotId(id), base: None }),
        (any::<[u8; 32]>(), chunk_id(), 1..=limits::LOCATOR_STEPS_MAX).prop_map(|(id, base, steps)| {
            TableKind::Locator { snapshot: SnapshotId(id), base: Some((SnapshotId(base.0), steps)) }
        }),
    ];
    let pack_kind = prop_oneof![Just(PackKind::Data), Just(PackKind::Manifest)];
    let packs = btree_map(any::<[u8; 32]>(), (10_000u64..limits::PACK_BYTES_MAX, pack_kind), 1..4).prop_map(|packs| {
        packs.into_iter().map(|(id, (len, kind))| TablePack { id: PackId(id), len, kind }).collect::<Vec<_>>()
    });
    let records = btree_map(chunk_id(), (record(), 16u64..5000, any::<prop::sample::Index>()), 0..200);
    (kind, packs, records).prop_map(|(kind, packs, records)| {
        let locate =
            |((stored_len, plain_len, encoding), offset, pack): ((u32, u32, Encoding), u64, prop::sample::Index)| {
                Location { pack: packs[pack.index(packs.len())].id, offset, stored_len, plain_len, encoding }
            };
        let records = records.into_iter().map(|(id, parts)| (id, locate(parts))).collect();
        (kind, packs, records)
    })
}

/// A whole pack file around a footer; the records' bytes do not matter here.
fn pack_file(entries: &[PackEntry]) -> Vec<u8> {
    let mut file = pack::encode_header(PackKind::Data).to_vec();
    let records = entries.iter().map(|entry| entry.stored_len as usize).sum::<usize>();
    file.resize(file.len() + records, 0);
    file.extend(pack::encode_footer(entries));
    file
}

proptest! {
    #[test]
    fn store_documents_round_trip(format in store_format(), current in segments_current()) {
        prop_assert_eq!(StoreFormat::decode(&format.encode()), Ok(format));
        prop_assert_eq!(SegmentsCurrent::decode(&current.encode()), Ok(current));
    }

    #[test]
    fn snapshots_round_trip(value in snapshot()) {
        prop_assert_eq!(Snapshot::decode(&value.encode().unwrap()), Ok(value));
    }

    #[test]
    fn index_round_trips(records in vec((chunk_id(), chunk_id(), any::<bool>(), any::<i64>(), 1..=limits::SNAPSHOT_BYTES_MAX), 0..5)) {
        let records: Vec<IndexRecord> = records
            .into_iter()
            .map(|(id, parent, has_parent, time, len)| {
                let parent = has_parent.then_some(SnapshotId(parent.0));
                IndexRecord { id: SnapshotId(id.0), parent, time, len }
            })
            .collect();
        prop_assert_eq!(snapshot::decode_index(&snapshot::encode_index(&records)), Ok(records));
    }

    #[test]
    fn entries_round_trip(value in entry(), rest in vec(any::<u8>(), 0..4)) {
        let mut bytes = Vec::new();
        value.encode_into(&mut bytes);
        let len = bytes.len();
        bytes.extend(rest);
        prop_assert_eq!(peek_path(&bytes), Ok(value.path.as_bytes()));
        prop_assert_eq!(Entry::decode_prefix(&bytes), Ok((value, len)));
    }

    #[test]
    fn nodes_round_trip(entries in leaf(), children in children(), level in 1..=limits::MANIFEST_LEVEL_MAX) {
        for node in [ManifestNode::Leaf(entries), ManifestNode::Inner { level, children: children.clone() }] {
            prop_assert_eq!(ManifestNode::decode(&node.encode()), Ok(node));
        }
        let head_len = encode_inner(level, &[]).len();
        let sum: usize = children.iter().map(Child::encoded_len).sum();
        prop_assert_eq!(encode_inner(level, &children).len(), head_len + sum);
    }

    #[test]
    fn heads_round_trip(head in head()) {
        prop_assert_eq!(ManifestHead::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn chunk_lists_round_trip(runs in runs()) {
        let size = runs.iter().map(ChunkRun::len).sum();
        prop_assert_eq!(decode_chunk_list(&encode_chunk_list(&runs), size), Ok(runs));
    }

    #[test]
    fn packs_round_trip(entries in pack_entries()) {
        prop_assert_eq!(pack::decode(&pack_file(&entries)), Ok((PackKind::Data, entries)));
    }

    #[test]
    fn tables_round_trip((kind, packs, records) in table_parts(), stranger in chunk_id()) {
        let shuffled: Vec<_> = records.iter().rev().map(|(id, location)| (*id, *location)).collect();
        let bytes = table::encode(kind, &packs, shuffled).unwrap();
        let table = Table::decode(&bytes[..]).unwrap();
        prop_assert_eq!(table.kind(), kind);
        prop_assert_eq!(table.iter().collect::<BTreeMap<_, _>>(), records.clone());
        for (id, location) in &records {
            prop_assert_eq!(table.get(id), Some(*location));
        }
        prop_assert_eq!(table.get(&stranger), records.get(&stranger).copied());
    }
}

fn delta() -> impl Strategy<Value = Delta> {
    let frame = (1usize..4, vec(0u8..6, 0..4), 0u8..4, vec(any::<u8>(), 1..20));
    (proptest::option::of(any::<u8>()), vec(frame, 1..6)).prop_map(|(base, frames)| {
        let mut next = 0u32;
        let frames = frames.into_iter().map(|(outputs, bases, encoding, payload)| {
            let outputs = (0..outputs).map(|_| {
                next += 1;
                DeltaChunk { id: ChunkId::of(&next.to_le_bytes()), len: next }
            });
            let bases = bases.iter().map(|base| DeltaChunk { id: ChunkId::of(&[*base]), len: 1 + u32::from(*base) });
            let (outputs, mut bases) = (outputs.collect(), bases.collect::<Vec<_>>());
            if encoding == delta::ENCODING_ZSTD {
                bases.clear();
            }
            let encoding = if bases.is_empty() && encoding < 3 { delta::ENCODING_ZSTD } else { encoding };
            let payload_len = u32::try_from(payload.len()).unwrap();
            DeltaFrame { outputs, bases, encoding, payload_len, payload_hash: delta::payload_hash(&payload) }
        });
        let frames = frames.collect();
        Delta { base: base.map(|base| SnapshotId([base.max(1); 32])), target: SnapshotId([0xaa; 32]), frames }
    })
}

fn payload_bytes(delta: &Delta) -> u64 {
    delta.frames.iter().map(|frame| u64::from(frame.payload_len)).sum()
}

proptest! {
    #[test]
    fn deltas_round_trip(value in delta().prop_filter("not to itself", |delta| delta.base != Some(delta.target))) {
        let head = value.encode();
        prop_assert_eq!(head.len() as u64, value.head_len());
        let file_len = head.len() as u64 + payload_bytes(&value);
        prop_assert_eq!(value.payload_offsets(value.head_len()).pop(), Some(file_len));
        prop_assert_eq!(Delta::decode(&head, file_len), Ok(value));
        prop_assert!(Delta::decode(&head, file_len + 1).is_err());
        prop_assert!(Delta::decode(&head[..head.len() - 1], file_len).is_err());
    }

    #[test]
    fn any_flipped_bit_of_a_delta_is_found(value in delta(), bit: prop::sample::Index) {
        let mut head = value.encode();
        let file_len = head.len() as u64 + payload_bytes(&value);
        let bit = bit.index(head.len() * 8);
        head[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Delta::decode(&head, file_len).is_err());
    }

    /// Past the hash, every rule is on its own: whatever still decodes is what encodes to it.
    #[test]
    fn a_rehashed_delta_is_an_error_or_another(value in delta(), edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut head = value.encode();
        let file_len = head.len() as u64 + payload_bytes(&value);
        for (at, byte) in &edits {
            let at = at.index(head.len());
            head[at] = *byte;
        }
        let hash = *blake3::Hasher::new().update(&head[..96]).update(&head[128..]).update(&file_len.to_le_bytes()).finalize().as_bytes();
        head[96..128].copy_from_slice(&hash);
        if let Ok(again) = Delta::decode(&head, file_len) {
            prop_assert_eq!(again.encode(), head);
        }
    }

    #[test]
    fn delta_indices_round_trip(entries in vec((any::<Option<[u8; 32]>>(), any::<[u8; 32]>(), 128u64..1 << 20, 1u64..1 << 30), 0..6)) {
        let target = SnapshotId([1; 32]);
        let mut entries: Vec<DeltaIndexEntry> = entries
            .into_iter()
            .map(|(base, delta, head_len, payloads)| {
                let base = base.filter(|base| *base != [0; 32] && *base != target.0).map(SnapshotId);
                DeltaIndexEntry { base, delta: DeltaId(delta), head_len, file_len: head_len + payloads }
            })
            .collect();
        let bytes = delta::encode_index(&target, &entries);
        entries.sort_unstable();
        entries.dedup_by_key(|entry| (entry.base, entry.delta));
        prop_assert_eq!(delta::decode_index(&bytes), Ok((target, entries)));
    }
}

/// One valid object of each kind, with what decodes it and encodes it again.
struct Codec {
    name: &'static str,
    bytes: Vec<u8>,
    again: fn(&[u8]) -> Option<Vec<u8>>,
}

fn leaf_bytes(entries: &[Entry]) -> Vec<u8> {
    ManifestNode::Leaf(entries.to_vec()).encode()
}

fn codecs(entries: &[Entry], snapshot: &Snapshot, format: &StoreFormat, current: &SegmentsCurrent) -> Vec<Codec> {
    let codec = |name, bytes, again| Codec { name, bytes, again };
    vec![
        codec("node", leaf_bytes(entries), |bytes| Some(ManifestNode::decode(bytes).ok()?.encode())),
        codec("snapshot", snapshot.encode().unwrap(), |bytes| Snapshot::decode(bytes).ok()?.encode().ok()),
        codec("format", format.encode(), |bytes| Some(StoreFormat::decode(bytes).ok()?.encode())),
        codec("segments", current.encode(), |bytes| Some(SegmentsCurrent::decode(bytes).ok()?.encode())),
    ]
}

proptest! {
    #[test]
    fn damage_is_an_error_or_another_valid_document(
        entries in leaf(),
        snapshot in snapshot(),
        format in store_format(),
        current in segments_current(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        for codec in codecs(&entries, &snapshot, &format, &current) {
            let cut = &codec.bytes[..end.index(codec.bytes.len())];
            prop_assert_eq!((codec.again)(cut), None, "{} cut to {} bytes", codec.name, cut.len());
            let mut edited = codec.bytes.clone();
            for (at, byte) in &edits {
                let at = at.index(edited.len());
                edited[at] = *byte;
            }
            if let Some(again) = (codec.again)(&edited) {
                prop_assert_eq!(again, edited, "{}", codec.name);
            }
        }
    }

    #[test]
    fn any_flipped_bit_of_a_hashed_layout_is_found((kind, packs, records) in table_parts(), bit: prop::sample::Index) {
        let mut bytes = table::encode(kind, &packs, records.into_iter().collect()).unwrap();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Table::decode(&bytes[..]).is_err());
    }

    #[test]
    fn garbage_is_an_error(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(StoreFormat::decode(&bytes).is_err());
        prop_assert!(SegmentsCurrent::decode(&bytes).is_err());
        prop_assert!(Snapshot::decode(&bytes).is_err());
        prop_assert!(ManifestHead::decode(&bytes).is_err());
        prop_assert!(pack::decode(&bytes).is_err());
        prop_assert!(Table::decode(&bytes[..]).is_err());
        prop_assert!(snapshot::decode_index(&bytes).is_err());
        prop_assert!(Delta::decode(&bytes, bytes.len() as u64).is_err());
        prop_assert!(delta::decode_index(&bytes).is_err());
        // These have no magic: nearly all garbage is an error, and none may panic.
        let _ = ManifestNode::decode(&bytes);
        let _ = Entry::decode_prefix(&bytes);
        let _ = peek_path(&bytes);
        let _ = decode_chunk_list(&bytes, 1 << 30);
    }

    #[test]
    fn boundaries_are_the_zero_bits_of_the_hash(path in vec(any::<u8>(), 0..40)) {
        let hash = blake3::hash(&path);
        let bits = hash.as_bytes()[..8].iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
        prop_assert_eq!(boundary_zeros(&path) as usize, bits.take_while(|bit| *bit == 0).count());
    }
}
