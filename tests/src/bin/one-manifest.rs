// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes a manifest of many entries and reads all of it, node by node, with little memory to take: `one-manifest ENTRIES
//! KIBIBYTES`. A process of its own, because such a limit is one on the whole process.

use std::collections::BTreeMap;

use evenkeel_store::format::manifest::{
    Entry, Inode, InodeFlags, InodeKind, ManifestNode, Node, StructureCheck, Timestamp,
};
use evenkeel_store::id::ChunkId;
use evenkeel_store::manifest::ManifestBuilder;
use evenkeel_store::path::TreePath;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files in each directory.
const WIDTH: u64 = 1000;

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|arg| arg.parse().unwrap()).collect();
    let [entries, allowed] = args.as_slice() else { panic!("usage: one-manifest ENTRIES KIBIBYTES") };
    let limit = Rlimit { current: Some(evenkeel_tests::address_space() + (allowed << 10)), ..getrlimit(Resource::As) };
    setrlimit(Resource::As, limit).unwrap();
    let (mut structure, mut read, mut nodes) = (StructureCheck::default(), 0_u64, 0_u64);
    let sink = |node: Vec<u8>| {
        let id = ChunkId::of(&node);
        // The head comes last, and is no node.
        if let Ok(ManifestNode::Leaf(entries)) = ManifestNode::decode(&node) {
            read += entries.len() as u64;
            entries.iter().for_each(|entry| structure.push(entry).unwrap());
        }
        nodes += 1;
        Ok(id)
    };
    let mut builder = ManifestBuilder::new(sink);
    let mut encoded = Vec::new();
    for number in 0..*entries {
        let entry = entry(number);
        encoded.clear();
        entry.encode_into(&mut encoded);
        builder.push(&entry.path, &encoded).unwrap();
    }
    let built = builder.finish(BTreeMap::new(), BTreeMap::new()).unwrap();
    structure.finish().unwrap();
    assert_eq!((built.entries, read), (*entries, *entries));
    println!("{read} entries in {nodes} nodes");
}

/// The root, then directories with files in them, in order.
fn entry(number: u64) -> Entry {
    let (path, kind) = match number.checked_sub(1) {
        None => (String::new(), InodeKind::Directory),
        Some(below) if below % WIDTH == 0 => (format!("directory-{:08}", below / WIDTH), InodeKind::Directory),
        Some(below) => (format!("directory-{:08}/fifo-{:08}", below / WIDTH, below % WIDTH), InodeKind::Fifo),
    };
    let path = if path.is_empty() { TreePath::root() } else { TreePath::new(path).unwrap() };
    let inode = Inode {
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp { secs: 1_700_000_000, nanos: 5 },
        links: 1,
        xattrs: BTreeMap::new(),
        acl: None,
        default_acl: None,
        flags: InodeFlags::default(),
    };
    Entry { path, node: Node::Inode(inode) }
}
