// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rules between the entries of a manifest (format-spec §40.5).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Entry, InodeKind, Node};
use crate::format::{DecodeError, Reason};
use crate::path::compare;

/// Checks the rules that span entries (format-spec §40.5): root first, strictly sorted, parents are directories seen before,
/// link members follow a first member that is no directory. Feed it every entry of a manifest in order.
#[derive(Debug, Default)]
pub struct StructureCheck {
    /// Path of the last entry; `None` before the first.
    last: Option<Vec<u8>>,
    /// Lengths of the prefixes of `last` that are directories: the last entry itself, if it is one, and its ancestors.
    dirs: Vec<usize>,
    /// Hard-link groups with names still to come: first name, how many.
    groups: BTreeMap<Vec<u8>, u32>,
    entries: u64,
}

/// Field and reason of a broken rule; the caller knows where.
type Broken = (&'static str, Reason);

impl StructureCheck {
    /// Takes the next entry.
    ///
    /// # Errors
    /// [`DecodeError`] with [`crate::format::Reason::Rule`] naming the rule; its offset is the number of entries before this one.
    pub fn push(&mut self, entry: &Entry) -> Result<(), DecodeError> {
        let step = if self.last.is_none() { self.begin(entry) } else { self.next_in_leaf(entry) };
        step.and_then(|()| self.count_links(entry)).map_err(|broken| self.error(broken))?;
        self.entries += 1;
        Ok(())
    }

    /// Checks that every hard-link group had as many names as its first member says, and that there was a root.
    ///
    /// # Errors
    /// [`DecodeError`] with [`crate::format::Reason::Rule`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.last.is_none() {
            return Err(self.error(("path", Reason::Rule("a manifest without a root"))));
        }
        if !self.groups.is_empty() {
            return Err(self.error(("links", Reason::Rule("a hard-link group has fewer names than it says"))));
        }
        Ok(())
    }

    fn error(&self, (field, reason): Broken) -> DecodeError {
        DecodeError { object: "manifest", offset: self.entries, field, reason }
    }

    fn begin(&mut self, entry: &Entry) -> Result<(), Broken> {
        if !entry.path.is_root() || !is_directory(entry) {
            return Err(("path", Reason::Rule("the first entry is not the root directory")));
        }
        self.begin_inside(entry)
    }

    /// Begins at any entry of a manifest, taking its ancestors for directories.
    pub(super) fn begin_inside(&mut self, entry: &Entry) -> Result<(), Broken> {
        if entry.path.is_root() && !is_directory(entry) {
            return Err(("kind", Reason::Rule("the root is not a directory")));
        }
        let path = entry.path.as_bytes();
        if !path.is_empty() {
            self.dirs.push(0);
        }
        self.dirs.extend(path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at));
        self.remember(entry);
        Ok(())
    }

    /// Order and parent of an entry that is not the first.
    pub(super) fn next_in_leaf(&mut self, entry: &Entry) -> Result<(), Broken> {
        let path = entry.path.as_bytes();
        let last = self.last.as_deref().unwrap_or_default();
        match compare(last, path) {
            Ordering::Less => {}
            Ordering::Equal => return Err(("path", Reason::Rule("a path occurs twice"))),
            Ordering::Greater => return Err(("path", Reason::Rule("paths out of order"))),
        }
        let is_ancestor =
            |len: usize| len == 0 || (path.len() > len && path[len] == b'/' && path[..len] == last[..len]);
        while self.dirs.last().is_some_and(|&len| !is_ancestor(len)) {
            self.dirs.pop();
        }
        let parent = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        if self.dirs.last() != Some(&parent) {
            return Err(("path", Reason::Rule("the parent is not a directory of this manifest")));
        }
        self.remember(entry);
        Ok(())
    }

    fn remember(&mut self, entry: &Entry) {
        let path = entry.path.as_bytes();
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(path);
        if is_directory(entry) {
            self.dirs.push(path.len());
        }
    }

    fn count_links(&mut self, entry: &Entry) -> Result<(), Broken> {
        match &entry.node {
            Node::Inode(inode) if inode.links > 1 => {
                self.groups.insert(entry.path.as_bytes().to_vec(), inode.links - 1);
            }
            Node::Inode(_) => {}
            Node::Link { first } => {
                let Some(names) = self.groups.get_mut(first.as_bytes()) else {
                    return Err(("first", Reason::Rule("no hard-link group with a name to come begins there")));
                };
                *names -= 1;
                if *names == 0 {
                    self.groups.remove(first.as_bytes());
                }
            }
        }
        Ok(())
    }
}

fn is_directory(entry: &Entry) -> bool {
    matches!(&entry.node, Node::Inode(inode) if inode.kind == InodeKind::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::{Inode, InodeFlags, Timestamp};
    use crate::path::TreePath;

    fn entry(path: &str, kind: InodeKind, links: u32) -> Entry {
        let inode = Inode {
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            links,
            xattrs: BTreeMap::new(),
            acl: None,
            default_acl: None,
            flags: InodeFlags::default(),
        };
        Entry { path: TreePath::new(path).unwrap(), node: Node::Inode(inode) }
    }

    /// `path/` is a directory, `path*3` has three names, `path>first` is a further name, anything else a fifo.
    fn parse(text: &str) -> Entry {
        if let Some((path, first)) = text.split_once('>') {
            let valid = |text| TreePath::new(text).unwrap();
            return Entry { path: valid(path), node: Node::Link { first: valid(first) } };
        }
        if let Some((path, links)) = text.split_once('*') {
            return entry(path, InodeKind::Fifo, links.parse().unwrap());
        }
        match text.strip_suffix('/') {
            Some(path) => entry(path, InodeKind::Directory, 1),
            None => entry(text, InodeKind::Fifo, 1),
        }
    }

    /// The rule that these entries break, in order.
    fn broken(entries: &str) -> Option<(u64, &'static str)> {
        let mut check = StructureCheck::default();
        let result = entries.split_whitespace().try_for_each(|entry| check.push(&parse(entry)));
        match result.and_then(|()| check.finish()).err()? {
            DecodeError { offset, reason: Reason::Rule(rule), .. } => Some((offset, rule)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn rules_between_entries() {
        for (entries, expected) in [
            ("/", None),
            ("/ a a! b", None),
            ("/ a/ a/b/ a/b/c a/d a! b/ b/c", None),
            ("/ a/ a/b/ c/ c/d", None),
            ("", Some((0, "a manifest without a root"))),
            ("a", Some((0, "the first entry is not the root directory"))),
            ("a/ a/b", Some((0, "the first entry is not the root directory"))),
            ("/ /", Some((1, "a path occurs twice"))),
            ("/ b a", Some((2, "paths out of order"))),
            ("/ a a", Some((2, "a path occurs twice"))),
            ("/ a a/", Some((2, "a path occurs twice"))),
            ("/ a! a/", Some((2, "paths out of order"))),
            ("/ a a/b", Some((2, "the parent is not a directory of this manifest"))),
            ("/ a/b", Some((1, "the parent is not a directory of this manifest"))),
            ("/ a/ a/b/c", Some((2, "the parent is not a directory of this manifest"))),
            ("/ a/ a/b a/b/c", Some((3, "the parent is not a directory of this manifest"))),
            ("/ a/ aa aa/b", Some((3, "the parent is not a directory of this manifest"))),
            ("/ a/ b a/c", Some((3, "paths out of order"))),
            ("/ a*2 b>a", None),
            ("/ a*3 b/ b/c>a d>a", None),
            ("/ a*2 b*2 c>b d>a", None),
            ("/ a*2", Some((2, "a hard-link group has fewer names than it says"))),
            ("/ a*3 b>a", Some((3, "a hard-link group has fewer names than it says"))),
            ("/ a b>a", Some((2, "no hard-link group with a name to come begins there"))),
            ("/ a/ b>a", Some((2, "no hard-link group with a name to come begins there"))),
            ("/ b>a", Some((1, "no hard-link group with a name to come begins there"))),
            ("/ a*2 b>a c>a", Some((3, "no hard-link group with a name to come begins there"))),
            ("/ a*2 b>a c>b", Some((3, "no hard-link group with a name to come begins there"))),
            ("/ a*2 b>a b/c", Some((3, "the parent is not a directory of this manifest"))),
        ] {
            assert_eq!(broken(entries), expected, "{entries}");
        }
    }

    #[test]
    fn deep_paths_cost_no_stack() {
        let mut check = StructureCheck::default();
        let mut path = TreePath::root();
        for _ in 0..=crate::limits::PATH_DEPTH_MAX {
            check.push(&Entry { path: path.clone(), ..entry("", InodeKind::Directory, 1) }).unwrap();
            path = path.join(b"d").unwrap_or_default();
        }
        assert_eq!(check.dirs.len(), crate::limits::PATH_DEPTH_MAX + 1);
    }
}
