// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entries in order → nodes. Where a node ends depends on paths and sizes only, so equal entries give equal trees and a
//! change touches the nodes on its way to the root only (format-spec §40.4).

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::format::manifest::{self, Child, ManifestHead};
use crate::id::ChunkId;
use crate::limits;
use crate::path::TreePath;

/// Takes every node of a manifest, children before parents. Gives the chunk's id.
pub trait NodeSink {
    /// Stores one node or manifest head.
    ///
    /// # Errors
    /// Whatever storing it meets.
    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId>;
}

impl<F: FnMut(Vec<u8>) -> Result<ChunkId>> NodeSink for F {
    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId> {
        self(bytes)
    }
}

/// A finished manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltManifest {
    /// Chunk id of the head.
    pub id: ChunkId,
    /// Plain length of the head.
    pub len: u32,
    /// Entries, the root included.
    pub entries: u64,
}

#[derive(Debug, Default)]
struct Leaf {
    first: Option<TreePath>,
    count: usize,
    bytes: Vec<u8>,
}

/// Children of the node that is being filled on one inner level.
#[derive(Debug, Default)]
struct Level {
    children: Vec<Child>,
    bytes: usize,
    nodes: u64,
}

/// Builds a manifest from entries in the order of [`TreePath`].
#[derive(Debug)]
pub struct ManifestBuilder<S> {
    sink: S,
    leaf: Leaf,
    leaves: u64,
    levels: Vec<Level>,
    entries: u64,
}

impl<S: NodeSink> ManifestBuilder<S> {
    /// Starts an empty manifest.
    pub fn new(sink: S) -> Self {
        ManifestBuilder { sink, leaf: Leaf::default(), leaves: 0, levels: Vec::new(), entries: 0 }
    }

    /// Appends an entry by its encoded bytes; `path` sorts after the last one.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn push(&mut self, path: &TreePath, encoded: &[u8]) -> Result<()> {
        let is_full = self.leaf.count >= limits::LEAF_ENTRIES_MAX
            || self.leaf.bytes.len() >= limits::NODE_BYTES_TARGET
            || manifest::boundary_zeros(path.as_bytes()) >= limits::LEAF_BITS;
        if self.leaf.count > 0 && is_full {
            self.flush_leaf()?;
        }
        if self.leaf.count == 0 {
            self.leaf.first = Some(path.clone());
        }
        self.leaf.bytes.extend_from_slice(encoded);
        self.leaf.count += 1;
        self.entries += 1;
        Ok(())
    }

    fn flush_leaf(&mut self) -> Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        let node = manifest::encode_leaf(leaf.count, &leaf.bytes);
        let first = leaf.first.expect("a leaf that is flushed has entries");
        let child = Child { first, len: node_len(&node)?, entries: leaf.count as u64, id: self.sink.put(node)? };
        self.leaves += 1;
        self.push_child(0, child)
    }

    /// Adds a child to the inner level `index + 1`.
    fn push_child(&mut self, index: usize, child: Child) -> Result<()> {
        if self.levels.len() == index {
            self.levels.push(Level::default());
        }
        let level_number = level_number(index)?;
        let level = &self.levels[index];
        let bits = limits::LEAF_BITS + limits::INNER_BITS * u32::from(level_number);
        let is_full = level.children.len() >= limits::INNER_CHILDREN_MAX
            || level.bytes >= limits::NODE_BYTES_TARGET
            || manifest::boundary_zeros(child.first.as_bytes()) >= bits;
        if !level.children.is_empty() && is_full {
            self.flush_level(index)?;
        }
        let level = &mut self.levels[index];
        level.bytes += child.encoded_len();
        level.children.push(child);
        Ok(())
    }

    fn flush_level(&mut self, index: usize) -> Result<()> {
        let child = self.finish_node(index)?;
        self.push_child(index + 1, child)
    }

    /// Writes the node being filled on an inner level.
    fn finish_node(&mut self, index: usize) -> Result<Child> {
        let level_number = level_number(index)?;
        let level = &mut self.levels[index];
        level.nodes += 1;
        level.bytes = 0;
        let children = std::mem::take(&mut level.children);
        let node = manifest::encode_inner(level_number, &children);
        let entries = children.iter().map(|child| child.entries).sum();
        let first = children.into_iter().next().expect("a node that is flushed has children").first;
        Ok(Child { first, len: node_len(&node)?, entries, id: self.sink.put(node)? })
    }

    /// Writes what is left, the root and the head.
    ///
    /// # Errors
    /// Those of the sink; [`Error::Refused`] when there was no entry; [`Error::LimitExceeded`] for more names than a head
    /// may hold.
    pub fn finish(mut self, users: BTreeMap<u32, Vec<u8>>, groups: BTreeMap<u32, Vec<u8>>) -> Result<BuiltManifest> {
        if self.entries == 0 {
            return Err(Error::Refused { reason: "a manifest needs at least its root".into(), hint: None });
        }
        for (what, names) in
            [("number of named users in an area", &users), ("number of named groups in an area", &groups)]
        {
            let (found, limit) = (names.len() as u64, limits::OWNER_NAMES_MAX as u64);
            if found > limit {
                return Err(Error::LimitExceeded { what, found, limit });
            }
        }
        self.flush_leaf()?;
        let (root, level) = self.finish_levels()?;
        let entries = self.entries;
        let head = ManifestHead { root: root.id, root_len: root.len, level, entries, users, groups }.encode();
        let len = node_len(&head)?;
        Ok(BuiltManifest { id: self.sink.put(head)?, len, entries })
    }

    fn finish_levels(&mut self) -> Result<(Child, u8)> {
        if self.leaves == 1 {
            let root = self.levels[0].children.pop().expect("the only leaf waits here");
            return Ok((root, 0));
        }
        let mut index = 0;
        loop {
            let child = self.finish_node(index)?;
            if self.levels[index].nodes == 1 {
                return Ok((child, level_number(index)?));
            }
            self.push_child(index + 1, child)?;
            index += 1;
        }
    }
}

fn level_number(index: usize) -> Result<u8> {
    let level = index as u64 + 1;
    u8::try_from(level).ok().filter(|level| *level <= limits::MANIFEST_LEVEL_MAX).ok_or(Error::LimitExceeded {
        what: "height of a manifest",
        found: level,
        limit: u64::from(limits::MANIFEST_LEVEL_MAX),
    })
}

fn node_len(node: &[u8]) -> Result<u32> {
    u32::try_from(node.len()).ok().filter(|len| *len <= limits::NODE_BYTES_MAX).ok_or(Error::LimitExceeded {
        what: "length of a manifest node or head",
        found: node.len() as u64,
        limit: u64::from(limits::NODE_BYTES_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head with more names than a reader accepts was written all the same, and its snapshot could not be read.
    #[test]
    fn a_head_holds_no_more_names_than_a_reader_accepts() {
        let finish = |users: u32, groups: u32, name: &[u8]| {
            let mut nodes = Vec::new();
            let mut builder = ManifestBuilder::new(|node: Vec<u8>| {
                nodes.push(node.clone());
                Ok(ChunkId::of(&node))
            });
            // An entry is not looked into here.
            builder.push(&TreePath::root(), &[0xA0])?;
            let names = |count: u32| (0..count).map(|id| (id, name.to_vec())).collect();
            builder.finish(names(users), names(groups))?;
            Ok::<_, Error>(ManifestHead::decode(&nodes.pop().unwrap()).unwrap())
        };
        let most = u32::try_from(limits::OWNER_NAMES_MAX).unwrap();
        assert_eq!(finish(most, most, b"name").unwrap().users.len(), limits::OWNER_NAMES_MAX);
        for (users, groups) in [(most + 1, 0), (0, most + 1)] {
            let refused = finish(users, groups, b"n").unwrap_err();
            assert!(refused.to_string().contains("is 65537 but at most 65536"), "{refused}");
        }
        assert!(matches!(finish(most, 0, &[b'n'; 200]).unwrap_err(), Error::LimitExceeded { .. }), "over 4 MiB");
    }
}
