// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Nodes → entries in order, with every rule that spans nodes checked on the way (format-spec §40.4, §40.5).

use crate::error::{Error, Result};
use crate::format::manifest::{Child, Entry, ManifestHead, ManifestNode, Node, StructureCheck};
use crate::format::snapshot::SnapshotArea;
use crate::format::{DecodeError, Reason};
use crate::path::TreePath;
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};

/// One area's manifest in a store. Nodes are read as they are needed.
#[derive(Debug, Clone)]
pub struct Manifest<'r> {
    reader: &'r ChunkReader,
    head: ManifestHead,
}

impl<'r> Manifest<'r> {
    /// Reads an area's manifest head.
    ///
    /// # Errors
    /// As [`ChunkReader::read`]; [`Error::Decode`] for a head that breaks the format or does not fit the snapshot.
    pub fn open(reader: &'r ChunkReader, area: &SnapshotArea) -> Result<Manifest<'r>> {
        let mut scratch = ReadScratch::default();
        let bytes = reader.read(&area.manifest, &mut scratch)?;
        let fail = |source| Error::Decode { object: format!("manifest {}", area.manifest), source };
        if bytes.plain().len() as u64 != u64::from(area.manifest_len) {
            return Err(fail(rule("manifest head", "manifest-len", "another length than the snapshot says")));
        }
        let head = ManifestHead::decode(bytes.plain()).map_err(fail)?;
        if head.entries != area.entries {
            return Err(fail(rule("manifest head", "entries", "another number than the snapshot says")));
        }
        Ok(Manifest { reader, head })
    }

    /// The head.
    pub fn head(&self) -> &ManifestHead {
        &self.head
    }

    pub(super) fn reader(&self) -> &'r ChunkReader {
        self.reader
    }

    /// The root node, as a child of nothing.
    pub(crate) fn root(&self) -> Child {
        Child { first: TreePath::root(), id: self.head.root, len: self.head.root_len, entries: self.head.entries }
    }

    /// All entries in order. Memory: one node a level.
    pub fn entries(&self) -> Entries<'r> {
        Entries {
            reader: self.reader,
            scratch: ReadScratch::default(),
            pending: vec![Pending { level: self.head.level, children: vec![self.root()].into_iter() }],
            leaf: Vec::new().into_iter(),
            structure: StructureCheck::default(),
            seen: 0,
            expected: self.head.entries,
            failed: false,
        }
    }

    /// The entry at `path`, from the few nodes on the way to it. A further name of a hard-link group is given as it is.
    ///
    /// # Errors
    /// As [`ChunkReader::read`].
    pub fn get(&self, path: &TreePath) -> Result<Option<Entry>> {
        let mut scratch = ReadScratch::default();
        let (mut child, mut level) = (self.root(), self.head.level);
        loop {
            match read_node(self.reader, &mut scratch, &child, level)? {
                ManifestNode::Leaf(entries) => return Ok(entries.into_iter().find(|entry| entry.path == *path)),
                ManifestNode::Inner { children, .. } => {
                    let Some(at) = children.iter().rposition(|child| child.first <= *path) else { return Ok(None) };
                    child = children.into_iter().nth(at).expect("just found");
                    level -= 1;
                }
            }
        }
    }

    /// The inode at `path`, through a hard-link group's first member if need be.
    ///
    /// # Errors
    /// As [`Manifest::get`].
    pub fn get_inode(&self, path: &TreePath) -> Result<Option<Entry>> {
        match self.get(path)? {
            Some(Entry { node: Node::Link { first }, .. }) => {
                Ok(self.get(&first)?.map(|entry| Entry { path: path.clone(), ..entry }))
            }
            found => Ok(found),
        }
    }

    /// Entries at or below `path` in order; nodes before it are not read.
    pub fn entries_below(&self, path: &TreePath) -> impl Iterator<Item = Result<Entry>> + use<'r> {
        let mut entries = self.entries();
        entries.seek(path.clone());
        let path = path.clone();
        let below = path.clone();
        entries
            .skip_while(move |entry| entry.as_ref().is_ok_and(|entry| entry.path < path))
            .take_while(move |entry| entry.as_ref().map_or(true, |entry| entry.path.starts_with(&below)))
    }

    /// What lies directly in the directory `path`, in order.
    ///
    /// # Errors
    /// As [`Manifest::get`].
    pub fn children(&self, path: &TreePath) -> Result<Vec<Entry>> {
        let depth = path.depth() + 1;
        self.entries_below(path).filter(|entry| entry.as_ref().map_or(true, |e| e.path.depth() == depth)).collect()
    }
}

#[derive(Debug)]
struct Pending {
    level: u8,
    children: std::vec::IntoIter<Child>,
}

/// Iterator over a manifest's entries. After an error it ends.
#[derive(Debug)]
pub struct Entries<'r> {
    reader: &'r ChunkReader,
    scratch: ReadScratch,
    pending: Vec<Pending>,
    leaf: std::vec::IntoIter<Entry>,
    structure: StructureCheck,
    seen: u64,
    expected: u64,
    failed: bool,
}

impl Entries<'_> {
    /// Skips whole nodes that end before `path`. Rules that span entries are then not checked.
    fn seek(&mut self, path: TreePath) {
        let skip = |pending: &mut Pending| {
            let before = pending.children.as_slice().iter().rposition(|child| child.first <= path).unwrap_or(0);
            if let Some(last_skipped) = before.checked_sub(1) {
                pending.children.nth(last_skipped);
            }
        };
        self.expected = u64::MAX;
        while let Some(top) = self.pending.last_mut() {
            skip(top);
            if top.level == 0 {
                break;
            }
            let (level, Some(child)) = (top.level, top.children.next()) else { break };
            match read_node(self.reader, &mut self.scratch, &child, level) {
                Ok(ManifestNode::Inner { level, children }) => {
                    self.pending.push(Pending { level: level - 1, children: children.into_iter() });
                }
                // Read again, and reported, by `next`.
                Ok(ManifestNode::Leaf(_)) | Err(_) => {
                    self.pending.push(Pending { level, children: vec![child].into_iter() });
                    break;
                }
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                self.seen += 1;
                if self.expected != u64::MAX {
                    self.structure.push(&entry).map_err(damaged)?;
                }
                return Ok(Some(entry));
            }
            let Some(top) = self.pending.last_mut() else {
                if self.expected != u64::MAX && self.seen != self.expected {
                    return Err(damaged(rule("manifest", "entries", "another number than the head says")));
                }
                if self.expected != u64::MAX {
                    self.structure.finish().map_err(damaged)?;
                }
                return Ok(None);
            };
            let level = top.level;
            let Some(child) = top.children.next() else {
                self.pending.pop();
                continue;
            };
            match read_node(self.reader, &mut self.scratch, &child, level)? {
                ManifestNode::Leaf(entries) => self.leaf = entries.into_iter(),
                ManifestNode::Inner { level, children } => {
                    self.reader.fetch_ahead(children.iter().map(|child| child.id), &Progress::default())?;
                    self.pending.push(Pending { level: level - 1, children: children.into_iter() });
                }
            }
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Reads a node and checks that it is what its parent says.
pub(crate) fn read_node(
    reader: &ChunkReader,
    scratch: &mut ReadScratch,
    child: &Child,
    level: u8,
) -> Result<ManifestNode> {
    let bytes = reader.read(&child.id, scratch)?;
    let fail = |source| Error::Decode { object: format!("manifest node {}", child.id), source };
    if bytes.plain().len() as u64 != u64::from(child.len) {
        return Err(fail(rule("manifest node", "length", "another length than the parent says")));
    }
    let node = ManifestNode::decode(bytes.plain()).map_err(fail)?;
    let (found_level, first, entries) = match &node {
        ManifestNode::Leaf(entries) => (0, entries.first().map(|entry| &entry.path), entries.len() as u64),
        ManifestNode::Inner { level, children } => {
            let entries = children.iter().map(|child| child.entries).fold(0, u64::saturating_add);
            (*level, children.first().map(|child| &child.first), entries)
        }
    };
    if found_level != level {
        return Err(fail(rule("manifest node", "level", "another level than the parent says")));
    }
    if first != Some(&child.first) {
        return Err(fail(rule("manifest node", "first path", "another first path than the parent says")));
    }
    if entries != child.entries {
        return Err(fail(rule("manifest node", "entries", "another number than the parent says")));
    }
    Ok(node)
}

pub(super) fn rule(object: &'static str, field: &'static str, rule: &'static str) -> DecodeError {
    DecodeError { object, offset: 0, field, reason: Reason::Rule(rule) }
}

pub(super) fn damaged(source: DecodeError) -> Error {
    Error::Decode { object: "manifest".into(), source }
}
