// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Modes and flags that forbid a step, lifted for a moment and put back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::Result;
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

/// A directory that was made writable, or an inode that was to be moved, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lift {
    pub(super) path: TreePath,
    pub(super) ino: u64,
    pub(super) mode: u16,
    pub(super) flags: InodeFlags,
}

impl Lift {
    /// Gives it back to what `name` is, if that is the inode. Gives whether it was.
    pub(super) fn put_back(&self, dir: &Dir, name: &[u8]) -> io::Result<bool> {
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
    /// [`Error::Io`](crate::Error::Io).
    pub(super) fn open(dir: &Path) -> Result<Lifts> {
        Ok(Lifts { dirs: Remembered::open(dir.join(DIRS))?, moving: Remembered::open(dir.join(MOVING))? })
    }

    /// Makes the directory at `path` one that may be changed.
    pub(super) fn lift(&mut self, path: &TreePath, dir: &Dir) -> io::Result<()> {
        let attrs = FdAttrs(dir.as_fd());
        let (Stat { ino, mode, .. }, flags) = (dir.stat(b"")?, attrs.flags()?);
        self.dirs.add(Lift { path: path.clone(), ino, mode, flags }).map_err(io::Error::other)?;
        lift(attrs, mode, flags)
    }

    /// An inode is about to be moved away from `path` or there, and to have neither flags nor, as a directory, a mode that
    /// forbid it.
    pub(super) fn moves(&mut self, path: &TreePath, stat: &Stat, flags: InodeFlags) -> io::Result<()> {
        let Stat { ino, mode, .. } = *stat;
        self.moving.add(Lift { path: path.clone(), ino, mode, flags }).map_err(io::Error::other)
    }

    /// The directories, in the order in which they were lifted.
    pub(super) fn take_dirs(&mut self) -> Vec<Lift> {
        std::mem::take(&mut self.dirs.list)
    }

    /// Whether an inode moved, or was to.
    pub(super) fn have_moved(&self, ino: u64) -> bool {
        self.moving.list.iter().any(|lift| lift.ino == ino)
    }

    /// What moved, or was to.
    pub(super) fn moving(&self) -> &[Lift] {
        &self.moving.list
    }
}

fn lift(attrs: FdAttrs<'_>, mode: u16, flags: InodeFlags) -> io::Result<()> {
    if flags != InodeFlags::default() {
        attrs.set_flags(InodeFlags::default())?;
    }
    if mode & OWNER_CHANGES == OWNER_CHANGES { Ok(()) } else { attrs.set_mode(mode | OWNER_ALL) }
}

fn encode(lift: &Lift) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).array(4).bytes(lift.path.as_bytes()).uint(lift.ino).uint(lift.mode).uint(lift.flags.0);
    out
}

/// The list up to where it was cut off: what is not whole was not lifted yet.
fn decode(mut bytes: &[u8]) -> Vec<Lift> {
    let one = |bytes: &[u8]| {
        let r = &mut Reader::new("list of lifted directories", bytes);
        r.tuple("lifted", 4).ok()?;
        let path = TreePath::new(r.bytes("path", 1 << 16).ok()?).ok()?;
        let ino = r.uint("inode").ok()?;
        let (mode, flags) = (r.small("mode", 0, 0o7777).ok()?, r.small("flags", 0, u16::MAX.into()).ok()?);
        Some((Lift { path, ino, mode, flags: InodeFlags(flags) }, r.offset()))
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
    /// Lifts what forbids to move `name`, which is `path` in the tree, after that is in `memory`; `None` where nothing is
    /// there, or nothing that could be lifted, or something that `is_meant` does not know by its inode number: what a
    /// neighbour has put there is none of our business.
    pub(super) fn lift(
        memory: &mut Lifts,
        path: &TreePath,
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
            memory.moves(path, &opened, flags)?;
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
        let lift = |path: &str| Lift { path: TreePath::new(path).unwrap(), ino: 7, mode: 0o555, flags: InodeFlags(8) };
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
        assert_eq!(found, [Lift { path, ino, mode: 0o555, flags: InodeFlags::default() }]);
    }
}
