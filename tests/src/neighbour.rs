// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A neighbour: somebody who changes the tree that a checkout is working on, and a canary that nobody may touch.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};

/// What a neighbour does at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Removes what is there, whatever it is.
    Remove,
    /// Puts a file of theirs in its place.
    File,
    /// Puts a symlink to a file of the canary in its place.
    Symlink,
    /// Puts a directory with a file of theirs in its place.
    Directory,
    /// Puts a FIFO in its place.
    Fifo,
    /// Moves its directory away and puts a symlink to the canary's in its place.
    SwapParent,
    /// Removes its directory with all that is in it.
    RemoveParent,
    /// Puts a file of theirs into it if it is a directory, else beside it.
    Fill,
    /// Gives it another name, outside.
    Link,
    /// Puts a further name of a file of the canary in its place.
    LinkCanary,
    /// Writes into it.
    Write,
    /// Changes its mode.
    Mode,
}

impl Act {
    pub const ALL: [Act; 12] = [
        Act::Remove,
        Act::File,
        Act::Symlink,
        Act::Directory,
        Act::Fifo,
        Act::SwapParent,
        Act::RemoveParent,
        Act::Fill,
        Act::Link,
        Act::LinkCanary,
        Act::Write,
        Act::Mode,
    ];
}

/// Where a neighbour works: the tree, the canary, and a place of their own.
#[derive(Debug, Clone)]
pub struct Neighbour {
    root: PathBuf,
    own: PathBuf,
    pub canary: Canary,
}

impl Neighbour {
    /// `own` and what is below must be on the file system of the tree at `root`.
    pub fn new(root: &Path, own: &Path) -> Neighbour {
        std::fs::create_dir_all(own).unwrap();
        Neighbour { root: root.into(), own: own.into(), canary: Canary::new(&own.join("canary")) }
    }

    /// What they put anywhere begins with this; `number` tells it from the rest.
    pub fn mark(number: usize) -> String {
        format!("theirs {number}: ")
    }

    /// Does it at `path`. Gives whether something with [`Neighbour::mark`] is there now. What is not possible is left.
    pub fn act(&self, act: Act, path: &Path, number: usize) -> bool {
        let mark = Neighbour::mark(number);
        let away = self.own.join(format!("away-{number}"));
        let parent = path.parent().filter(|parent| *parent != self.root && parent.starts_with(&self.root));
        match act {
            Act::Remove => remove(path),
            Act::File => {
                // As editors do, in one step.
                let new = self.own.join(format!("new-{number}"));
                std::fs::write(&new, &mark).unwrap();
                if path.is_dir() && !path.is_symlink() {
                    let _ = std::fs::rename(path, &away);
                }
                let done = std::fs::rename(&new, path).is_ok();
                let _ = std::fs::remove_file(new);
                return done;
            }
            Act::Symlink => {
                remove(path);
                let _ = std::os::unix::fs::symlink(self.canary.file(), path);
            }
            Act::Directory => {
                remove(path);
                return std::fs::create_dir(path).and_then(|()| std::fs::write(path.join("inside"), mark)).is_ok();
            }
            Act::Fifo => {
                remove(path);
                let _ = rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0);
            }
            Act::SwapParent => {
                let Some(parent) = parent else { return false };
                if std::fs::rename(parent, &away).is_ok() {
                    std::os::unix::fs::symlink(&self.canary.dir, parent).unwrap();
                }
            }
            Act::RemoveParent => parent.map_or((), remove),
            Act::Fill => {
                let is_dir = path.is_dir() && !path.is_symlink();
                let new = if is_dir { path.join("theirs") } else { path.with_file_name("theirs") };
                return std::fs::write(new, mark).is_ok();
            }
            Act::Link => {
                let _ = std::fs::hard_link(path, &away);
            }
            Act::LinkCanary => {
                remove(path);
                let _ = std::fs::hard_link(self.canary.file(), path);
            }
            Act::Write => {
                let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
                return is_file && std::fs::write(path, mark).is_ok();
            }
            Act::Mode => {
                let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
                if !is_link {
                    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711));
                }
            }
        }
        false
    }
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
}

/// Files outside of every tree, with the names that trees of tests have.
#[derive(Debug, Clone)]
pub struct Canary {
    pub dir: PathBuf,
}

/// What `stat` and reading tell of one thing.
pub type Seen = (u64, u32, u32, u32, i64, i64, i64, i64, Vec<u8>);

impl Canary {
    /// A directory with one file; [`Canary::with`] adds more.
    pub fn new(dir: &Path) -> Canary {
        std::fs::create_dir_all(dir).unwrap();
        let canary = Canary { dir: dir.into() };
        std::fs::write(canary.file(), "canary").unwrap();
        std::fs::set_permissions(canary.file(), std::fs::Permissions::from_mode(0o640)).unwrap();
        canary
    }

    /// Has something of this name, too.
    pub fn with(&self, name: &str, is_dir: bool) {
        let path = self.dir.join(name);
        if is_dir {
            std::fs::create_dir_all(path.join("f")).unwrap();
        } else {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "canary").unwrap();
        }
    }

    /// One of its files.
    pub fn file(&self) -> PathBuf {
        self.dir.join("canary")
    }

    /// All of it. The number of names and the change time of [`Canary::file`] are left out where `named` says that a
    /// neighbour has given it another name.
    pub fn look(&self, named: bool) -> BTreeMap<PathBuf, Seen> {
        let (mut seen, mut todo) = (BTreeMap::new(), vec![self.dir.clone()]);
        while let Some(path) = todo.pop() {
            let stat = path.symlink_metadata().unwrap();
            let content = if stat.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let ctime = if named && path == self.file() { (0, 0) } else { (stat.ctime(), stat.ctime_nsec()) };
            let (uid, gid) = (stat.uid(), stat.gid());
            let times = (stat.mtime(), stat.mtime_nsec());
            if stat.is_dir() {
                todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            seen.insert(path, (stat.ino(), stat.mode(), uid, gid, times.0, times.1, ctime.0, ctime.1, content));
        }
        seen
    }
}

/// What differs between two looks at a canary.
pub fn differences(before: &BTreeMap<PathBuf, Seen>, after: &BTreeMap<PathBuf, Seen>) -> Vec<String> {
    let paths = before.keys().chain(after.keys().filter(|path| !before.contains_key(*path)));
    let differ = paths.filter(|path| before.get(*path) != after.get(*path));
    differ.map(|path| format!("{}: {:?} → {:?}", path.display(), before.get(path), after.get(path))).collect()
}

/// Whether a file below `dir` begins with `mark`.
pub fn holds(dir: &Path, mark: &str) -> bool {
    let Ok(names) = std::fs::read_dir(dir) else { return false };
    names.map(|entry| entry.unwrap().path()).any(|path| match path.symlink_metadata() {
        Ok(found) if found.is_dir() => holds(&path, mark),
        Ok(found) if found.is_file() => std::fs::read(&path).is_ok_and(|bytes| bytes.starts_with(mark.as_bytes())),
        _ => false,
    })
}
