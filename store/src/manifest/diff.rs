// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two manifests → what differs. Subtrees with one id are skipped unread, so the cost follows the change, not the tree.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::read::{Manifest, read_node};
use crate::error::Result;
use crate::format::manifest::{Child, Entry, ManifestNode};
use crate::id::ChunkId;
use crate::path::TreePath;
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: TreePath,
    /// What it was; `None` when it was not there.
    pub before: Option<Entry>,
    /// What it is; `None` when it is gone.
    pub after: Option<Entry>,
}

#[derive(Debug)]
enum Item {
    Subtree { level: u8, child: Child },
    Entry(Box<Entry>),
}

impl Item {
    fn first(&self) -> &TreePath {
        match self {
            Item::Subtree { child, .. } => &child.first,
            Item::Entry(entry) => &entry.path,
        }
    }
}

/// One side: what is still to compare, next item last.
#[derive(Debug)]
struct Side<'r> {
    reader: Option<&'r ChunkReader>,
    scratch: ReadScratch,
    stack: Vec<Item>,
    /// Nodes that were read because the other side has no equal one.
    opened: Vec<ChunkId>,
}

impl<'r> Side<'r> {
    fn of(manifest: Option<&Manifest<'r>>, reader: Option<&'r ChunkReader>) -> Self {
        let stack = manifest
            .map(|manifest| Item::Subtree { level: manifest.head().level, child: manifest.root() })
            .into_iter()
            .collect();
        Side { reader, scratch: ReadScratch::default(), stack, opened: Vec::new() }
    }

    /// Replaces the next item, a subtree, by its parts.
    fn open_next(&mut self) -> Result<()> {
        let Some(Item::Subtree { level, child }) = self.stack.pop() else { return Ok(()) };
        let reader = self.reader.expect("a side with subtrees has a reader");
        self.opened.push(child.id);
        match read_node(reader, &mut self.scratch, &child, level)? {
            ManifestNode::Leaf(entries) => {
                self.stack.extend(entries.into_iter().rev().map(|entry| Item::Entry(Box::new(entry))));
            }
            ManifestNode::Inner { level, children } => {
                self.stack.extend(children.into_iter().rev().map(|child| Item::Subtree { level: level - 1, child }));
            }
        }
        Ok(())
    }

    fn pop_entry(&mut self) -> Option<Entry> {
        match self.stack.pop() {
            Some(Item::Entry(entry)) => Some(*entry),
            _ => None,
        }
    }
}

/// Iterator over [`Change`]s in path order. After an error it ends.
#[derive(Debug)]
pub struct Diff<'r> {
    before: Side<'r>,
    after: Side<'r>,
    failed: bool,
}

/// Compares two manifests; `None` counts as empty. Both must come from readers that live as long as the result.
pub fn diff<'r>(before: Option<&Manifest<'r>>, after: Option<&Manifest<'r>>) -> Diff<'r> {
    let reader_of = |manifest: Option<&Manifest<'r>>| manifest.map(Manifest::reader);
    Diff { before: Side::of(before, reader_of(before)), after: Side::of(after, reader_of(after)), failed: false }
}

impl Diff<'_> {
    /// Nodes of the later manifest that were read so far; at the end, all that the earlier one does not have (and
    /// perhaps a few more).
    pub fn opened_after(&self) -> &[ChunkId] {
        &self.after.opened
    }

    fn advance(&mut self) -> Result<Option<Change>> {
        loop {
            match (self.before.stack.last(), self.after.stack.last()) {
                (None, None) => return Ok(None),
                (Some(Item::Subtree { .. }), None) => self.before.open_next()?,
                (None, Some(Item::Subtree { .. })) => self.after.open_next()?,
                (Some(Item::Entry(_)), None) => return Ok(self.take_before()),
                (None, Some(Item::Entry(_))) => return Ok(self.take_after()),
                (Some(Item::Subtree { level: a, child: x }), Some(Item::Subtree { level: b, child: y })) => {
                    match (x.id == y.id, a.cmp(b)) {
                        (true, _) => {
                            self.before.stack.pop();
                            self.after.stack.pop();
                        }
                        (false, Ordering::Greater) => self.before.open_next()?,
                        (false, Ordering::Less) => self.after.open_next()?,
                        // The one that begins first is opened alone: the other may find its equal further on.
                        (false, Ordering::Equal) => match x.first.cmp(&y.first) {
                            Ordering::Less => self.before.open_next()?,
                            Ordering::Greater => self.after.open_next()?,
                            Ordering::Equal => {
                                self.before.open_next()?;
                                self.after.open_next()?;
                                self.fetch_ahead()?;
                            }
                        },
                    }
                }
                (Some(before), Some(after)) => {
                    let order = before.first().cmp(after.first());
                    match (before, after, order) {
                        (Item::Entry(_), _, Ordering::Less) => return Ok(self.take_before()),
                        (_, Item::Entry(_), Ordering::Greater) => return Ok(self.take_after()),
                        (Item::Subtree { .. }, _, _) => self.before.open_next()?,
                        (_, Item::Subtree { .. }, _) => self.after.open_next()?,
                        (Item::Entry(x), Item::Entry(y), Ordering::Equal) if x == y => {
                            self.before.stack.pop();
                            self.after.stack.pop();
                        }
                        (Item::Entry(_), Item::Entry(_), _) => {
                            let (before, after) = (self.before.pop_entry(), self.after.pop_entry());
                            let path = after.as_ref().map(|entry| entry.path.clone()).unwrap_or_default();
                            return Ok(Some(Change { path, before, after }));
                        }
                    }
                }
            }
        }
    }

    /// Fetches together the nodes that one side has and the other has not, which is most of what will be read.
    fn fetch_ahead(&self) -> Result<()> {
        let [before, after] = [&self.before, &self.after].map(|side| {
            let far = side.reader.filter(|reader| reader.is_far());
            let items = far.iter().flat_map(|_| &side.stack);
            let nodes = items.filter_map(|item| match item {
                Item::Subtree { child, .. } => Some(child.id),
                Item::Entry(_) => None,
            });
            nodes.collect::<BTreeSet<ChunkId>>()
        });
        for (side, ids) in [(&self.before, before.difference(&after)), (&self.after, after.difference(&before))] {
            if let Some(reader) = side.reader {
                reader.fetch_ahead(ids.copied(), &Progress::default())?;
            }
        }
        Ok(())
    }

    fn take_before(&mut self) -> Option<Change> {
        let entry = self.before.pop_entry()?;
        Some(Change { path: entry.path.clone(), before: Some(entry), after: None })
    }

    fn take_after(&mut self) -> Option<Change> {
        let entry = self.after.pop_entry()?;
        Some(Change { path: entry.path.clone(), before: None, after: Some(entry) })
    }
}

impl Iterator for Diff<'_> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}
