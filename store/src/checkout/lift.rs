// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Modes and flags that forbid a step, lifted for a moment and put back.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::chain::{DirChain, is_other_now};
use crate::error::{Error, Result};
use crate::format::cbor::{Reader, Writer};
use crate::format::manifest::{InodeFlags, Timestamp};
use crate::fsio::{self, AppendFile, Dir, FdAttrs, FileType, Stat};
use crate::path::TreePath;

const OWNER_CHANGES: u16 = 0o300;
const OWNER_ALL: u16 = 0o700;
/// Longest list that is read.
const BYTES_MAX: u64 = 1 << 28;
/// Where the lists are: of directories that stay where they are, and of inodes that move.
pub(super) const DIRS: &str = "lifted";
pub(super) const MOVING: &str = "lifted.moving";
/// The same of what is given its rights again before the transaction begins that brings it back.
const GIVING_BACK: &str = "lifted.back";

/// Where an inode is, or is to be: its path in the tree, and below the directory of what is staged and what gave way.
pub(super) type At<'a> = (&'a TreePath, &'a [u8]);

/// A directory that was made writable, or an inode whose flags were in the way, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lift {
    pub(super) path: TreePath,
    /// Below the directory of what is staged; empty for a directory that stays.
    place: Vec<u8>,
    pub(super) ino: u64,
    pub(super) mode: u16,
    pub(super) flags: InodeFlags,
}

impl Lift {
    /// Gives it back to what is at `path`, if that is the inode. Gives whether it was.
    fn put_back_at(&self, chain: &mut DirChain<'_>, path: &[u8]) -> io::Result<bool> {
        match chain.parent(path) {
            Err(e) if is_other_now(&e) => Ok(false),
            parent => parent.and_then(|(dir, name)| self.put_back(dir, name)),
        }
    }

    /// Gives it back to what `name` is, if that is the inode. Gives whether it was.
    fn put_back(&self, dir: &Dir, name: &[u8]) -> io::Result<bool> {
        let Some(found) = dir.stat_opt(name)?.filter(|found| found.ino == self.ino) else { return Ok(false) };
        let Some(fd) = open(dir, name, found.file_type)? else { return Ok(false) };
        if Stat::of_fd(&fd)?.ino != self.ino {
            return Ok(false);
        }
        Moving { fd, mode: self.mode, flags: self.flags, is_dir: found.is_dir() }.put_back()?;
        Ok(true)
    }
}

/// What a switch has lifted, remembered before it is.
#[derive(Debug, Default)]
pub(super) struct Lifts {
    dirs: Remembered,
    moving: Remembered,
}

/// A list, and the file that it is in: none where nothing is to outlast this process.
#[derive(Debug, Default)]
struct Remembered {
    list: Vec<Lift>,
    path: Option<PathBuf>,
    log: Option<AppendFile>,
}

impl Remembered {
    fn open(path: PathBuf) -> Result<Remembered> {
        let list = if fsio::exists(&path)? { decode(&fsio::read_capped(&path, BYTES_MAX)?) } else { Vec::new() };
        Ok(Remembered { list, path: Some(path), log: None })
    }

    /// What is known already stays as it is known: later it may be lifted.
    fn add(&mut self, lift: Lift) -> Result<()> {
        if self.list.iter().any(|known| known.path == lift.path && known.ino == lift.ino) {
            return Ok(());
        }
        if let Some(path) = &self.path {
            let log = match &mut self.log {
                Some(log) => log,
                none => none.insert(AppendFile::open(path)?),
            };
            log.append_durably(&encode(&lift))?;
        }
        self.list.push(lift);
        Ok(())
    }
}

impl Lifts {
    /// Continues the lists in files in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn open(dir: &Path) -> Result<Lifts> {
        Ok(Lifts { dirs: Remembered::open(dir.join(DIRS))?, moving: Remembered::open(dir.join(MOVING))? })
    }

    /// Continues the list of what is given its rights again, in an area's place in the state directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn of_giving_back(state: &Path) -> Result<Lifts> {
        Ok(Lifts { dirs: Remembered::default(), moving: Remembered::open(state.join(GIVING_BACK))? })
    }

    /// Makes the directory at `path` one that may be changed.
    pub(super) fn lift(&mut self, path: &TreePath, dir: &Dir) -> io::Result<()> {
        let attrs = FdAttrs(dir.as_fd());
        let (Stat { ino, mode, .. }, flags) = (dir.stat(b"")?, attrs.flags()?);
        let place = Vec::new();
        self.dirs.add(Lift { path: path.clone(), place, ino, mode, flags }).map_err(io::Error::other)?;
        lift(attrs, mode, flags)
    }

    /// An inode is about to be moved or changed, and to have neither flags nor, as a directory, a mode that forbid it.
    pub(super) fn moves(&mut self, (path, place): At<'_>, stat: &Stat, flags: InodeFlags) -> io::Result<()> {
        let Stat { ino, mode, .. } = *stat;
        self.moving.add(Lift { path: path.clone(), place: place.to_vec(), ino, mode, flags }).map_err(io::Error::other)
    }

    /// Does something to an open file that its flags forbid. It has them again when this returns, whatever came of it.
    pub(super) fn without_flags(
        &mut self,
        at: At<'_>,
        file: &OwnedFd,
        change: impl FnOnce(FdAttrs<'_>, &Stat) -> io::Result<()>,
    ) -> io::Result<()> {
        let attrs = FdAttrs(file.as_fd());
        let (stat, flags) = (Stat::of_fd(file)?, attrs.flags()?);
        if flags == InodeFlags::default() {
            return change(attrs, &stat);
        }
        self.moves(at, &stat, flags)?;
        attrs.set_flags(InodeFlags::default())?;
        let done = change(attrs, &stat);
        attrs.set_flags(flags).and(done)
    }

    /// Gives inodes that were to move or change what was lifted for that moment: who lifted it was cut off, or failed. They
    /// are at their path in `root` or below `staging`.
    ///
    /// # Errors
    /// The first failure.
    pub(super) fn settle(&self, root: &Dir, staging: &Dir) -> Result<()> {
        if self.moving.list.is_empty() {
            return Ok(());
        }
        let failed = |e| Error::io("look at", staging.path(), e);
        let mut staged = HashMap::new();
        for name in staging.names().map_err(failed)? {
            if let Some(stat) = staging.stat_opt(&name).map_err(failed)? {
                staged.insert(stat.ino, name);
            }
        }
        let (mut live, mut kept) = (DirChain::new(root), DirChain::new(staging));
        for lift in &self.moving.list {
            let mut settle = || {
                let is_settled =
                    lift.put_back_at(&mut live, lift.path.as_bytes())? || lift.put_back_at(&mut kept, &lift.place)?;
                match staged.get(&lift.ino) {
                    Some(name) if !is_settled => lift.put_back(staging, name).map(drop),
                    _ => Ok(()),
                }
            };
            settle().map_err(|e| Error::io("change", root.path_of(lift.path.as_bytes()), e))?;
        }
        Ok(())
    }

    /// The directories, in the order in which they were lifted.
    pub(super) fn take_dirs(&mut self) -> Vec<Lift> {
        std::mem::take(&mut self.dirs.list)
    }

    /// Whether an inode moved, or was to.
    pub(super) fn have_moved(&self, ino: u64) -> bool {
        self.moving.list.iter().any(|lift| lift.ino == ino)
    }

    /// Whether nothing moved, or was to.
    pub(super) fn is_empty(&self) -> bool {
        self.moving.list.is_empty()
    }
}

/// Everything that was given its rights again has its flags as well, durably.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn forget_giving_back(state: &Path) -> Result<()> {
    fsio::remove_file(&state.join(GIVING_BACK))
}

fn lift(attrs: FdAttrs<'_>, mode: u16, flags: InodeFlags) -> io::Result<()> {
    if flags != InodeFlags::default() {
        attrs.set_flags(InodeFlags::default())?;
    }
    if mode & OWNER_CHANGES == OWNER_CHANGES { Ok(()) } else { attrs.set_mode(mode | OWNER_ALL) }
}

fn encode(lift: &Lift) -> Vec<u8> {
    let mut out = Vec::new();
    let w = &mut Writer::new(&mut out);
    w.array(5).bytes(lift.path.as_bytes()).bytes(&lift.place).uint(lift.ino).uint(lift.mode).uint(lift.flags.0);
    out
}

/// The list up to where it was cut off: what is not whole was not lifted yet.
fn decode(mut bytes: &[u8]) -> Vec<Lift> {
    let one = |bytes: &[u8]| {
        let r = &mut Reader::new("list of lifted directories", bytes);
        r.tuple("lifted", 5).ok()?;
        let path = TreePath::new(r.bytes("path", 1 << 16).ok()?).ok()?;
        let place = r.bytes("place", 1 << 16).ok()?.to_vec();
        let ino = r.uint("inode").ok()?;
        let (mode, flags) = (r.small("mode", 0, 0o7777).ok()?, r.small("flags", 0, u16::MAX.into()).ok()?);
        Some((Lift { path, place, ino, mode, flags: InodeFlags(flags) }, r.offset()))
    };
    let mut list = Vec::new();
    while let Some((lift, used)) = one(bytes) {
        list.push(lift);
        bytes = &bytes[used..];
    }
    list
}

/// An inode that is about to be renamed although its flags or mode forbid that.
pub(super) struct Moving {
    fd: OwnedFd,
    mode: u16,
    flags: InodeFlags,
    is_dir: bool,
}

/// Opens what has flags, if this process may read it: else it could not change them.
fn open(dir: &Dir, name: &[u8], file_type: FileType) -> io::Result<Option<OwnedFd>> {
    Ok(match file_type {
        FileType::File => dir.open_file(name).ok(),
        FileType::Directory => match dir.open_dir(name) {
            Ok(dir) => Some(dir.as_fd().try_clone_to_owned()?),
            Err(_) => None,
        },
        _ => None,
    })
}

impl Moving {
    /// Lifts what forbids to move `name`, which is `at` that place, after that is in `memory`; `None` where nothing is
    /// there, or nothing that could be lifted, or something that `is_meant` does not know by its inode number: what a
    /// neighbour has put there is none of our business.
    pub(super) fn lift(
        memory: &mut Lifts,
        at: At<'_>,
        dir: &Dir,
        name: &[u8],
        is_meant: impl Fn(u64) -> bool,
    ) -> io::Result<Option<Moving>> {
        let Some(stat) = dir.stat_opt(name)? else { return Ok(None) };
        let Some(fd) = open(dir, name, stat.file_type)? else { return Ok(None) };
        let opened = Stat::of_fd(&fd)?;
        if opened.file_type != stat.file_type || !is_meant(opened.ino) {
            return Ok(None);
        }
        let attrs = FdAttrs(fd.as_fd());
        let (mode, flags, is_dir) = (opened.mode, attrs.flags()?, opened.is_dir());
        let is_locked = is_dir && mode & OWNER_CHANGES != OWNER_CHANGES;
        if is_locked || flags != InodeFlags::default() {
            memory.moves(at, &opened, flags)?;
        }
        match opened.file_type {
            FileType::Directory => lift(attrs, mode, flags)?,
            _ if flags != InodeFlags::default() => attrs.set_flags(InodeFlags::default())?,
            _ => {}
        }
        Ok(Some(Moving { fd, mode, flags, is_dir }))
    }

    /// Sets its time.
    pub(super) fn set_mtime(&self, mtime: Timestamp) -> io::Result<()> {
        FdAttrs(self.fd.as_fd()).set_mtime(mtime)
    }

    /// Gives it back what was lifted, wherever it is now.
    pub(super) fn put_back(self) -> io::Result<()> {
        let attrs = FdAttrs(self.fd.as_fd());
        // Of a file only flags were lifted; its mode may have been changed on purpose.
        if self.is_dir && Stat::of_fd(&self.fd)?.mode != self.mode {
            if attrs.flags()? != InodeFlags::default() {
                attrs.set_flags(InodeFlags::default())?;
            }
            attrs.set_mode(self.mode)?;
        }
        if attrs.flags()? == self.flags { Ok(()) } else { attrs.set_flags(self.flags) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_was_cut_off_is_read_up_to_there() {
        let lift = |path: &str| {
            let (path, place) = (TreePath::new(path).unwrap(), path.as_bytes().to_vec());
            Lift { path, place, ino: 7, mode: 0o555, flags: InodeFlags(8) }
        };
        let all = [lift("a"), lift("a/b"), lift("")];
        let bytes = all.iter().flat_map(encode).collect::<Vec<u8>>();
        assert_eq!(decode(&bytes), all);
        for len in 0..bytes.len() {
            let found = decode(&bytes[..len]);
            assert!(found.len() < 3 && all.starts_with(&found), "{len} bytes");
        }
    }

    #[test]
    fn lifted_once_and_remembered() {
        let temp = tempfile::tempdir().unwrap();
        let path = TreePath::new("d").unwrap();
        let dir = Dir::open(temp.path()).unwrap().make_or_open_dir(b"d").unwrap();
        FdAttrs(dir.as_fd()).set_mode(0o555).unwrap();
        let mut lifts = Lifts::open(temp.path()).unwrap();
        for _ in 0..2 {
            lifts.lift(&path, &dir).unwrap();
            assert_eq!(dir.stat(b"").unwrap().mode, 0o755);
        }
        drop(lifts);
        let found = Lifts::open(temp.path()).unwrap().take_dirs();
        let ino = dir.stat(b"").unwrap().ino;
        let (place, flags) = (Vec::new(), InodeFlags::default());
        assert_eq!(found, [Lift { path, place, ino, mode: 0o555, flags }]);
    }
}
