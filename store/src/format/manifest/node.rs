// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Nodes of the manifest tree (format-spec §40.4).

use super::structure::StructureCheck;
use super::{Child, Entry, ManifestNode};
use crate::format::cbor::{Key, Reader, Writer, uint_len};
use crate::format::{DecodeError, Reason};
use crate::id::ChunkId;
use crate::limits;
use crate::path::TreePath;

const OBJECT: &str = "manifest node";

impl ManifestNode {
    /// Reads a node and checks everything that can be checked within it: order, parents that lie in the same node, limits.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let r = &mut Reader::new(OBJECT, bytes);
        let (found, limit) = (bytes.len() as u64, u64::from(limits::NODE_BYTES_MAX));
        if found > limit {
            return Err(r.error(0, "length", Reason::Limit { found, limit }));
        }
        r.tuple("node", 2)?;
        let level = r.small("level", 0, limits::MANIFEST_LEVEL_MAX.into())?;
        let node = match level {
            0 => ManifestNode::Leaf(read_entries(r)?),
            _ => ManifestNode::Inner { level, children: read_children(r)? },
        };
        r.finish()?;
        Ok(node)
    }

    /// The node's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ManifestNode::Leaf(entries) => {
                let mut out = Vec::new();
                entries.iter().for_each(|entry| entry.encode_into(&mut out));
                encode_leaf(entries.len(), &out)
            }
            ManifestNode::Inner { level, children } => encode_inner(*level, children),
        }
    }
}

fn read_entries(r: &mut Reader<'_>) -> Result<Vec<Entry>, DecodeError> {
    let start = r.offset();
    let count = r.array_len("entries", limits::LEAF_ENTRIES_MAX)?;
    if count == 0 {
        return Err(r.error(start, "entries", Reason::Rule("an empty node")));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let mut structure = StructureCheck::default();
    for index in 0..count {
        let start = r.offset();
        let entry = Entry::read(r)?;
        let step = if index == 0 { structure.begin_inside(&entry) } else { structure.next_in_leaf(&entry) };
        step.map_err(|(field, reason)| r.error(start, field, reason))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn read_children(r: &mut Reader<'_>) -> Result<Vec<Child>, DecodeError> {
    let start = r.offset();
    let count = r.array_len("children", limits::INNER_CHILDREN_MAX)?;
    if count == 0 {
        return Err(r.error(start, "children", Reason::Rule("an empty node")));
    }
    let mut children: Vec<Child> = Vec::with_capacity(count);
    let mut total = 0u64;
    for _ in 0..count {
        let start = r.offset();
        let child = Child::read(r)?;
        if children.last().is_some_and(|last| last.first >= child.first) {
            return Err(r.error(start, "first", Reason::Rule("paths out of order")));
        }
        total = total
            .checked_add(child.entries)
            .ok_or_else(|| r.error(start, "entries", Reason::Value { found: child.entries }))?;
        children.push(child);
    }
    Ok(children)
}

impl Child {
    /// Length of this child's encoding inside an inner node, in bytes.
    pub fn encoded_len(&self) -> usize {
        // Map head, four keys, then path, id, length and count with their heads.
        let path = self.first.as_bytes().len();
        1 + 4 + uint_len(path as u64) + path + 2 + 32 + uint_len(u64::from(self.len)) + uint_len(self.entries)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let keys = &mut r.map("child")?;
        r.required(keys, Key::Int(0, "first"))?;
        let first = read_path(r, "first")?;
        r.required(keys, Key::Int(1, "id"))?;
        let id = ChunkId(r.array("id")?);
        r.required(keys, Key::Int(2, "plain_len"))?;
        let len = r.small("plain_len", 1, limits::NODE_BYTES_MAX.into())?;
        r.required(keys, Key::Int(3, "entries"))?;
        let entries = r.uint_in("entries", 1, u64::MAX)?;
        r.end(keys, "child")?;
        Ok(Child { first, id, len, entries })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.map(4).uint(0u8).bytes(self.first.as_bytes()).uint(1u8).bytes(&self.id.0);
        w.uint(2u8).uint(self.len).uint(3u8).uint(self.entries);
    }
}

/// Reads a path and checks its rules.
pub(super) fn read_path(r: &mut Reader<'_>, field: &'static str) -> Result<TreePath, DecodeError> {
    let start = r.offset();
    let bytes = r.bytes(field, limits::PATH_BYTES_MAX)?;
    TreePath::new(bytes).map_err(|error| r.error(start, field, Reason::Rule(path_rule(error))))
}

fn path_rule(error: crate::path::PathError) -> &'static str {
    use crate::path::PathError;
    match error {
        PathError::EmptyComponent => "a path with an empty component",
        PathError::DotComponent => "a path with the component `.` or `..`",
        PathError::Nul => "a path with a NUL byte",
        PathError::NameTooLong => "a path with too long a component",
        PathError::PathTooLong => "a path that is too long",
        PathError::TooDeep => "a path that is too deep",
    }
}

/// Bytes of a leaf of `count` entries whose encodings are `entries`, one after the other.
pub fn encode_leaf(count: usize, entries: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + entries.len());
    Writer::new(&mut out).array(2).uint(0u8).array(count);
    out.extend_from_slice(entries);
    out
}

/// Bytes of an inner node.
pub fn encode_inner(level: u8, children: &[Child]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + 96 * children.len());
    let mut w = Writer::new(&mut out);
    w.array(2).uint(level).array(children.len());
    for child in children {
        child.write(&mut w);
    }
    out
}

/// Zero bits that end the hash of `path` (format-spec §40.4).
pub fn boundary_zeros(path: &[u8]) -> u32 {
    let hash = blake3::hash(path);
    let first: [u8; 8] = hash.as_bytes()[..8].try_into().expect("a hash of 32 bytes");
    u64::from_le_bytes(first).trailing_zeros()
}
