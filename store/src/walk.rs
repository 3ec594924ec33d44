// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A live tree as a sorted stream of what belongs to an area.
//!
//! Directories come before their content, names in byte order, so the stream merges with manifests. Every step goes
//! from a held directory by one name; nothing is resolved by path, no symlink followed, no mount point entered.
//!
//! Budget: one `statx` an entry; for a directory also one `openat2`, and `getdents64` as often as it needs.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::area::{RuleSet, Verdict};
use crate::fsio::{self, Dir, Stat};
use crate::path::TreePath;

/// How often one name is looked at again because it is something else than a moment before.
const CHANGES_MAX: u32 = 8;

/// One thing found in a live tree.
#[derive(Debug, Clone)]
pub struct Found {
    /// Relative to the area's root.
    pub path: TreePath,
    /// Its metadata.
    pub stat: Stat,
    /// The directory it is in; `None` for the root.
    pub parent: Option<Arc<Dir>>,
    /// Itself, opened, when it is a directory that was entered.
    pub dir: Option<Arc<Dir>>,
    /// Another file system is mounted here: nothing of it belongs to the area.
    pub mount_point: bool,
    /// A directory that belongs to the area only if something in it does.
    pub passage: bool,
}

impl Found {
    /// What was looked at by its path, and is known to belong to the area and to be no mount point.
    pub fn beside_a_walk(path: &TreePath, stat: Stat, parent: Option<Arc<Dir>>, dir: Option<Arc<Dir>>) -> Found {
        Found { path: path.clone(), stat, parent, dir, mount_point: false, passage: false }
    }

    /// Full path, for messages.
    pub fn full_path(&self) -> PathBuf {
        match (&self.parent, &self.dir) {
            (Some(parent), _) => parent.path_of(self.path.name()),
            (None, Some(dir)) => dir.path().to_path_buf(),
            (None, None) => PathBuf::new(),
        }
    }
}

/// Something that could not be looked at. The walk goes on behind it.
#[derive(Debug)]
pub struct WalkError {
    /// Relative to the area's root.
    pub path: TreePath,
    /// Full path, for messages.
    pub full_path: PathBuf,
    /// The system's word.
    pub source: io::Error,
}

/// What a walk left out, by rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Excluded paths; what lies below an excluded directory is not counted.
    pub excluded: u64,
    /// Host identity and secrets.
    pub identity: Vec<TreePath>,
    /// Directories that directly hold something that was left out.
    pub holders: BTreeSet<TreePath>,
    /// Directories in which something has a path that is longer or deeper than any may be. Only of a live area.
    pub beyond: BTreeSet<TreePath>,
}

impl LeftOut {
    fn held_by_parent_of(&mut self, path: &TreePath) {
        self.holders.extend(path.parent());
    }
}

#[derive(Debug)]
struct Frame {
    dir: Arc<Dir>,
    path: TreePath,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// Iterator over a live tree. Items are in the order of [`TreePath`].
#[derive(Debug)]
pub struct Walk<'rules> {
    rules: &'rules RuleSet,
    device: (u32, u32),
    root: Option<Arc<Dir>>,
    stack: Vec<Frame>,
    /// Directories that belong to the area only if something in them does, while that is not known.
    passages: Vec<Found>,
    /// Such directories are items in any case, and what no path leads to is no error.
    is_live_area: bool,
    ready: VecDeque<Result<Found, WalkError>>,
    left_out: LeftOut,
}

impl<'rules> Walk<'rules> {
    /// Starts at `root`, which is the first item.
    ///
    /// # Errors
    /// When the root cannot be looked at.
    pub fn new(root: Dir, rules: &'rules RuleSet) -> io::Result<Walk<'rules>> {
        let device = root.stat(b"")?.dev;
        Ok(Walk {
            rules,
            device,
            root: Some(Arc::new(root)),
            stack: Vec::new(),
            passages: Vec::new(),
            is_live_area: false,
            ready: VecDeque::new(),
            left_out: LeftOut::default(),
        })
    }

    /// As [`Walk::new`], for a tree that others fill. A directory on the way to what may belong to the area is an item also
    /// when nothing in it does: it is there, whoever wants to put something at its name must know. What lies deeper than
    /// any path may be is left out: nobody could be served any more where one user has made a directory in a directory,
    /// and so on.
    ///
    /// # Errors
    /// When the root cannot be looked at.
    pub fn of_live_area(root: Dir, rules: &'rules RuleSet) -> io::Result<Walk<'rules>> {
        Ok(Walk { is_live_area: true, ..Walk::new(root, rules)? })
    }

    /// What was left out so far.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Enters a directory: its names are next. `Err` holds why it cannot be listed.
    fn enter(&mut self, dir: &Arc<Dir>, path: &TreePath) -> io::Result<()> {
        let names = dir.names()?.into_iter();
        self.stack.push(Frame { dir: Arc::clone(dir), path: path.clone(), names });
        Ok(())
    }

    fn emit(&mut self, found: Found) {
        for passage in self.passages.drain(..) {
            if found.path.starts_with(&passage.path) {
                self.ready.push_back(Ok(passage));
            } else {
                self.left_out.held_by_parent_of(&passage.path);
            }
        }
        self.ready.push_back(Ok(found));
    }

    /// Looks at one name of the innermost directory; `again` times more if it becomes something else meanwhile.
    fn step(&mut self, parent: &Arc<Dir>, parent_path: &TreePath, name: &[u8], again: u32) -> Result<(), WalkError> {
        let failed = |path: TreePath| {
            let full_path = parent.path_of(name);
            move |source| WalkError { path, full_path, source }
        };
        let path = match parent_path.join(name) {
            Ok(path) => path,
            Err(_) if self.is_live_area => {
                self.left_out.beyond.insert(parent_path.clone());
                self.left_out.holders.insert(parent_path.clone());
                return Ok(());
            }
            Err(e) => return Err(failed(parent_path.clone())(io::Error::new(io::ErrorKind::InvalidInput, e))),
        };
        let Some(stat) = parent.stat_opt(name).map_err(failed(path.clone()))? else {
            return Ok(()); // Gone since the directory was listed.
        };
        let verdict = self.rules.verdict_on_walk(&path, stat.is_dir());
        match verdict {
            Verdict::In | Verdict::Passage => {}
            Verdict::Excluded => {
                self.left_out.excluded += 1;
                self.left_out.held_by_parent_of(&path);
                return Ok(());
            }
            Verdict::Identity => {
                self.left_out.held_by_parent_of(&path);
                self.left_out.identity.push(path);
                return Ok(());
            }
        }
        let mut found = Found {
            path,
            stat,
            parent: Some(Arc::clone(parent)),
            dir: None,
            mount_point: stat.is_mount_root || stat.dev != self.device,
            passage: verdict == Verdict::Passage,
        };
        if found.mount_point || !stat.is_dir() {
            self.emit(found);
            return Ok(());
        }
        let dir = match parent.open_dir(name) {
            // Gone since it was looked at, or something else, which is looked at in its turn.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if again > 0 && is_no_directory(&e) => return self.step(parent, parent_path, name, again - 1),
            dir => Arc::new(dir.map_err(failed(found.path.clone()))?),
        };
        let opened = dir.stat(b"").map_err(failed(found.path.clone()))?;
        if opened.dev != self.device {
            found.mount_point = true;
            self.emit(found);
            return Ok(());
        }
        let path = found.path.clone();
        found.stat = opened;
        found.dir = Some(Arc::clone(&dir));
        if found.passage && !self.is_live_area {
            let left_out = &mut self.left_out;
            self.passages.retain(|passage| {
                let on_the_way = path.starts_with(&passage.path);
                if !on_the_way {
                    left_out.held_by_parent_of(&passage.path);
                }
                on_the_way
            });
            self.passages.push(found);
        } else {
            self.emit(found);
        }
        self.enter(&dir, &path).map_err(failed(path.clone()))
    }
}

/// Whether a directory that was seen is something else now: a symlink, a file, a mount point.
fn is_no_directory(e: &io::Error) -> bool {
    fsio::is_symlink_refused(e) || matches!(e.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::CrossesDevices)
}

impl Iterator for Walk<'_> {
    type Item = Result<Found, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(root) = self.root.take() {
            let start = |root: &Arc<Dir>| -> io::Result<Found> {
                Ok(Found {
                    path: TreePath::root(),
                    stat: root.stat(b"")?,
                    parent: None,
                    dir: Some(Arc::clone(root)),
                    mount_point: false,
                    passage: false,
                })
            };
            let found = start(&root).and_then(|found| self.enter(&root, &TreePath::root()).map(|()| found));
            let full_path = root.path().to_path_buf();
            return Some(found.map_err(|source| WalkError { path: TreePath::root(), full_path, source }));
        }
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let Some(frame) = self.stack.last_mut() else {
                for passage in self.passages.drain(..) {
                    self.left_out.held_by_parent_of(&passage.path);
                }
                return None;
            };
            let Some(name) = frame.names.next() else {
                self.stack.pop();
                continue;
            };
            let (dir, path) = (Arc::clone(&frame.dir), frame.path.clone());
            if let Err(error) = self.step(&dir, &path, &name, CHANGES_MAX) {
                self.ready.push_back(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::AreaRules;

    fn paths(root: &std::path::Path, rules: &AreaRules) -> (Vec<String>, LeftOut) {
        let rules = RuleSet::new(rules, Vec::new()).unwrap();
        let mut walk = Walk::new(Dir::open(root).unwrap(), &rules).unwrap();
        let paths = walk.by_ref().map(|found| found.unwrap().path.to_string()).collect();
        (paths, walk.left_out().clone())
    }

    fn tree(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        for name in names {
            let mut at = dir.try_clone().unwrap();
            let (parents, last) = name.rsplit_once('/').unwrap_or(("", name));
            for part in parents.split('/').filter(|part| !part.is_empty()) {
                at = at.make_or_open_dir(part.as_bytes()).unwrap();
            }
            at.create_file(last.as_bytes()).unwrap();
        }
        root
    }

    #[test]
    fn order_is_that_of_manifests() {
        let root = tree(&["a-b", "a/b/c", "a/b0", "b", ".evenkeel/x", "a!"]);
        let (found, left_out) = paths(root.path(), &AreaRules::default());
        assert_eq!(found, [".", "a", "a/b", "a/b/c", "a/b0", "a!", "a-b", "b"]);
        assert_eq!(left_out.excluded, 1);
    }

    #[test]
    fn a_passage_appears_only_with_something_in_it() {
        let root = tree(&["opt/app/x", "opt/other/y", "srv/z"]);
        let rules = AreaRules { include: vec!["/opt/app".into()], ..AreaRules::default() };
        assert_eq!(paths(root.path(), &rules).0, [".", "opt", "opt/app", "opt/app/x"]);
        let rules = RuleSet::new(&rules, Vec::new()).unwrap();
        let walk = Walk::of_live_area(Dir::open(root.path()).unwrap(), &rules).unwrap();
        let all = walk.map(|found| found.unwrap()).map(|found| (found.path.to_string(), found.passage));
        let expected = [(".", false), ("opt", true), ("opt/app", false), ("opt/app/x", false), ("opt/other", true)];
        assert!(all.eq(expected.into_iter().chain([("srv", true)]).map(|(path, passage)| (path.to_string(), passage))));
    }

    #[test]
    fn a_symlink_is_not_followed() {
        let root = tree(&["real/x"]);
        Dir::open(root.path()).unwrap().make_symlink(b"real", b"link").unwrap();
        assert_eq!(paths(root.path(), &AreaRules::default()).0, [".", "link", "real", "real/x"]);
    }
}
