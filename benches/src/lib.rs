// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Input for the micro benchmarks: the same bytes on every run and machine.
//!
//! `cargo bench -p evenkeel-benches` runs them; figures are bytes (or look-ups) per second of one thread. Whole commands
//! against other tools are `cargo xtask bench`.

use evenkeel_store::format::manifest::{ChunkList, Entry, FileContent, Inode, InodeFlags, InodeKind, Node, Timestamp};
use evenkeel_store::format::pack::{Encoding, PackKind};
use evenkeel_store::format::table::{Location, TablePack};
use evenkeel_store::id::{ChunkId, ContentHash, PackId};
use evenkeel_store::path::TreePath;

/// Marsaglia's xorshift: a seeded generator that will never change below us.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator for `seed`, which may be anything.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// `len` bytes that do not compress.
pub fn random_bytes(len: usize) -> Vec<u8> {
    let mut random = Random::new(0x5EED);
    std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(len).collect()
}

/// `len` bytes that compress about as well as a server's files do (2 to 4 times with zstd 3): words from a vocabulary,
/// the frequent ones far more often.
pub fn text_bytes(len: usize) -> Vec<u8> {
    let mut random = Random::new(0x7E47);
    let mut word = || {
        // The smaller of two draws favours the low end.
        let draw = (random.next_u64() % 5_000).min(random.next_u64() % 5_000);
        let separator = if draw.is_multiple_of(8) { '\n' } else { ' ' };
        format!("{:x}{separator}", draw.wrapping_mul(2_654_435_761)).into_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 32);
    while bytes.len() < len {
        bytes.extend(word());
    }
    bytes.truncate(len);
    bytes
}

/// `count` chunk ids and places in a few hundred packs, as a segment has them, unsorted.
pub fn records(count: u32) -> (Vec<TablePack>, Vec<(ChunkId, Location)>) {
    let packs: Vec<TablePack> = (0..count.div_ceil(2000))
        .map(|index| TablePack { id: PackId::of(&index.to_le_bytes()), len: 32 << 20, kind: PackKind::Data })
        .collect();
    let record = |index: u32| {
        let id = ChunkId::of(&u64::from(index).to_le_bytes());
        let pack = packs[usize::try_from(index / 2000).expect("u32 fits")].id;
        let offset = 16 + u64::from(index % 2000) * 16_000;
        (id, Location { pack, offset, stored_len: 15_000, plain_len: 65_536, encoding: Encoding::Zstd })
    };
    let records = (0..count).map(record).collect();
    (packs, records)
}

/// `count` entries of a tree in manifest order: a root, then directories of a hundred files each.
pub fn entries(count: usize) -> Vec<Entry> {
    let entry = |path: String, kind: InodeKind| {
        let inode = Inode {
            mode: if kind == InodeKind::Directory { 0o755 } else { 0o644 },
            kind,
            uid: 0,
            gid: 0,
            mtime: Timestamp { secs: 1_750_000_000, nanos: 123_456_789 },
            links: 1,
            xattrs: Default::default(),
            acl: None,
            default_acl: None,
            flags: InodeFlags::default(),
        };
        Entry { path: TreePath::new(path).expect("a plain name"), node: Node::Inode(inode) }
    };
    let file = |seed: &str| {
        InodeKind::File(FileContent {
            size: 20_000,
            hash: ContentHash::of(seed.as_bytes()),
            chunks: ChunkList::Whole,
            unstable: false,
        })
    };
    let tree = (0..).flat_map(|dir: u32| {
        let dir = format!("usr-share-doc-{dir:06}");
        let files = (0..100).map({
            let dir = dir.clone();
            move |index| format!("{dir}/file-{index:03}.txt")
        });
        std::iter::once((dir, false)).chain(files.map(|path| (path, true)))
    });
    std::iter::once(entry(String::new(), InodeKind::Directory))
        .chain(tree.map(|(path, is_file)| {
            let kind = if is_file { file(&path) } else { InodeKind::Directory };
            entry(path, kind)
        }))
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use evenkeel_store::compress::Compressor;

    use super::*;

    #[test]
    fn input_never_changes() {
        assert_eq!(ChunkId::of(&random_bytes(1 << 16)).short(16), "7b697c62d4d5940e");
        assert_eq!(ChunkId::of(&text_bytes(1 << 16)).short(16), "4abfd18719fe9f28");
    }

    #[test]
    fn text_compresses_like_a_server() {
        let plain = text_bytes(64 << 10);
        let mut compressor = Compressor::new(3).unwrap();
        let stored = compressor.compress(&plain).1.len();
        assert!((plain.len() / 4..plain.len() / 2).contains(&stored), "{stored} of {} bytes", plain.len());
    }

    #[test]
    fn entries_are_in_order() {
        let entries = entries(500);
        assert_eq!(entries.len(), 500);
        assert!(entries.is_sorted_by(|a, b| a.path < b.path));
    }
}
