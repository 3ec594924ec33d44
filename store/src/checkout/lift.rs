// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Modes and flags that forbid a step, lifted for a moment and put back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::Result;
use crate::format::cbor::{Reader, Writer};
use crate::format::manifest::{InodeFlags, Timestamp};
use crate::fsio::{self, AppendFile, Dir, FdAttrs, FileType, Stat};
use crate::path::TreePath;

const OWNER_CHANGES: u16 = 0o300;
const OWNER_ALL: u16 = 0o700;
/// Longest list that is read.
const BYTES_MAX: u64 = 1 << 28;

/// A directory that was made writable, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lift {
    pub(super) path: TreePath,
    pub(super) ino: u64,
    pub(super) mode: u16,
    pub(super) flags: InodeFlags,
}

/// What a switch has lifted, remembered before it is.
#[derive(Debug, Default)]
pub(super) struct Lifts {
    list: Vec<Lift>,
    log: Option<AppendFile>,
}

impl Lifts {
    /// Continues the list in the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub(super) fn open(path: &std::path::Path) -> Result<Lifts> {
        let list = if fsio::exists(path)? { decode(&fsio::read_capped(path, BYTES_MAX)?) } else { Vec::new() };
        Ok(Lifts { list, log: Some(AppendFile::open(path)?) })
    }

    /// Makes the directory at `path` one that may be changed.
    pub(super) fn lift(&mut self, path: &TreePath, dir: &Dir) -> io::Result<()> {
        let attrs = FdAttrs(dir.as_fd());
        let (Stat { ino, mode, .. }, flags) = (dir.stat(b"")?, attrs.flags()?);
        if self.list.iter().all(|lift| lift.path != *path || lift.ino != ino) {
            let lift = Lift { path: path.clone(), ino, mode, flags };
            if let Some(log) = &mut self.log {
                log.append_durably(&encode(&lift)).map_err(io::Error::other)?;
            }
            self.list.push(lift);
        }
        lift(attrs, mode, flags)
    }

    /// All of them, in the order in which they were lifted.
    pub(super) fn take(&mut self) -> Vec<Lift> {
        std::mem::take(&mut self.list)
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
}

impl Moving {
    /// Lifts what forbids to move `name`; `None` where nothing is there, or nothing that could be lifted, or something
    /// that `is_meant` does not know by its inode number: what a neighbour has put there is none of our business.
    pub(super) fn lift(dir: &Dir, name: &[u8], is_meant: impl Fn(u64) -> bool) -> io::Result<Option<Moving>> {
        let Some(stat) = dir.stat_opt(name)? else { return Ok(None) };
        // What may not even be read has no flags that this process could change.
        let fd: OwnedFd = match stat.file_type {
            FileType::File => match dir.open_file(name) {
                Ok(fd) => fd,
                Err(_) => return Ok(None),
            },
            FileType::Directory => match dir.open_dir(name) {
                Ok(dir) => dir.as_fd().try_clone_to_owned()?,
                Err(_) => return Ok(None),
            },
            _ => return Ok(None),
        };
        let opened = Stat::of_fd(&fd)?;
        if opened.file_type != stat.file_type || !is_meant(opened.ino) {
            return Ok(None);
        }
        let attrs = FdAttrs(fd.as_fd());
        let (mode, flags) = (opened.mode, attrs.flags()?);
        match opened.file_type {
            FileType::Directory => lift(attrs, mode, flags)?,
            _ if flags != InodeFlags::default() => attrs.set_flags(InodeFlags::default())?,
            _ => {}
        }
        Ok(Some(Moving { fd, mode, flags }))
    }

    /// Sets its time.
    pub(super) fn set_mtime(&self, mtime: Timestamp) -> io::Result<()> {
        FdAttrs(self.fd.as_fd()).set_mtime(mtime)
    }

    /// Gives it back what was lifted, wherever it is now.
    pub(super) fn put_back(self) -> io::Result<()> {
        let attrs = FdAttrs(self.fd.as_fd());
        if Stat::of_fd(&self.fd)?.mode != self.mode {
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
        let (log, path) = (temp.path().join("lifted"), TreePath::new("d").unwrap());
        let dir = Dir::open(temp.path()).unwrap().make_or_open_dir(b"d").unwrap();
        FdAttrs(dir.as_fd()).set_mode(0o555).unwrap();
        let mut lifts = Lifts::open(&log).unwrap();
        for _ in 0..2 {
            lifts.lift(&path, &dir).unwrap();
            assert_eq!(dir.stat(b"").unwrap().mode, 0o755);
        }
        drop(lifts);
        let found = Lifts::open(&log).unwrap().take();
        let ino = dir.stat(b"").unwrap().ino;
        assert_eq!(found, [Lift { path, ino, mode: 0o555, flags: InodeFlags::default() }]);
    }
}
