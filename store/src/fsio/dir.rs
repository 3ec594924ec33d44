// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A held directory: every operation names one component of it and follows no symlink.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::stat::{FileType, Stat};
use super::sys;
use crate::error::{Error, Result};
use crate::format::manifest::{InodeFlags, Timestamp};

/// What a rename may do to an existing target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// The target must not exist.
    Never,
    /// The target is replaced in one step.
    Allowed,
    /// Both must exist; they change places in one step.
    Exchange,
}

/// An open directory.
///
/// `path` is kept for messages only; it is never resolved again.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens a directory by path: the one place where a path is resolved. A symlink as last component is refused.
    ///
    /// # Errors
    /// [`Error::Io`]; `NotADirectory` when it is something else.
    pub fn open(path: &Path) -> Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A slash or a dot after its name would have a symlink followed after all.
        let named = path.components().as_path();
        let fd = sys::openat(CWD, named, flags, Mode::empty())
            .map_err(|e| Error::io("open directory", path, io::Error::from(e)))?;
        Ok(Dir { fd, path: path.to_path_buf() })
    }

    pub(super) fn from_parts(fd: OwnedFd, path: PathBuf) -> Dir {
        Dir { fd, path }
    }

    /// Where this directory was found; for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Full path of `name` in this directory; for messages.
    pub fn path_of(&self, name: &[u8]) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(OsStr::from_bytes(name)) }
    }

    /// Opens a directory in this one. Symlinks and mount points are refused (`ELOOP`/`ENOTDIR`, `EXDEV`).
    ///
    /// # Errors
    /// What the system says.
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.open_beneath(name, flags, Mode::empty())?;
        Ok(Dir { fd, path: self.path_of(name) })
    }

    /// Opens a regular file for reading. Never blocks on a FIFO or device: the caller checks the type of what it got.
    ///
    /// # Errors
    /// What the system says; `ELOOP` for a symlink.
    pub fn open_file(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        self.open_beneath(name, flags, Mode::empty())
    }

    /// Creates a regular file with mode 0600 that did not exist, open for reading and writing.
    ///
    /// # Errors
    /// What the system says; `EEXIST` when the name is taken.
    pub fn create_file(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(sys::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?)
    }

    /// Opens or creates a private file (mode 0600) for locking or for small local state.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_or_create(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(sys::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?)
    }

    fn open_beneath(&self, name: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        match sys::openat2(&self.fd, name, flags, mode, resolve) {
            // Kernels before 5.6 and some sandboxes: one component with NOFOLLOW is as tight, except for mounts,
            // which callers see by the device number of what they opened.
            Err(Errno::NOSYS | Errno::PERM) => Ok(sys::openat(&self.fd, name, flags, mode)?),
            Err(Errno::AGAIN) => Ok(sys::openat2(&self.fd, name, flags, mode, resolve)?),
            found => Ok(found?),
        }
    }

    /// Metadata of `name`, itself and not what a symlink points at. The empty name is this directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        if name.is_empty() { Stat::of_fd(&self.fd) } else { Stat::of_name(&self.fd, name) }
    }

    /// As [`Dir::stat`], but `None` when there is nothing of this name.
    ///
    /// # Errors
    /// What the system says, except `ENOENT`.
    pub fn stat_opt(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match self.stat(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Names in this directory, sorted bytewise, without `.` and `..`; none in one that was removed meanwhile.
    ///
    /// # Errors
    /// What the system says.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = loop {
            match self.read_names() {
                Err(Errno::INTR) => {}
                Err(Errno::NOENT) => break Vec::new(),
                names => break names?,
            }
        };
        // What is renamed while the directory is read may come twice.
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn read_names(&self) -> rustix::io::Result<Vec<Vec<u8>>> {
        // A fresh descriptor: the position of ours must not matter.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = sys::openat(&self.fd, c".", flags, Mode::empty())?;
        let mut names = Listing::default();
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut iter = rustix::fs::RawDir::new(fd, buffer.spare_capacity_mut());
        sys::before_others("getdents64", sys::On::Fd(self.fd.as_fd()))?;
        while let Some(entry) = iter.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !names.add(name) {
                break;
            }
        }
        Ok(names.names)
    }

    /// Target of a symlink.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(sys::readlinkat(&self.fd, name)?)
    }

    /// Makes a directory with mode 0700.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(sys::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700))?)
    }

    /// Makes a directory (0700) unless it is there, and opens it.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_or_open_dir(&self, name: &[u8]) -> io::Result<Dir> {
        match self.make_dir(name) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        self.open_dir(name)
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(sys::symlinkat(target, &self.fd, name)?)
    }

    /// Makes a FIFO, socket or device node with mode 0600.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_special(&self, name: &[u8], file_type: FileType, device: (u32, u32)) -> io::Result<()> {
        use rustix::fs::FileType as Raw;
        let raw = match file_type {
            FileType::Fifo => Raw::Fifo,
            FileType::CharDevice => Raw::CharacterDevice,
            FileType::BlockDevice => Raw::BlockDevice,
            FileType::Socket => Raw::Socket,
            FileType::File | FileType::Directory | FileType::Symlink => {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
        };
        let device = rustix::fs::makedev(device.0, device.1);
        Ok(sys::mknodat(&self.fd, name, raw, Mode::from_raw_mode(0o600), device)?)
    }

    /// Gives the inode `name` a further name in `to`.
    ///
    /// # Errors
    /// What the system says.
    pub fn link(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        Ok(sys::linkat(&self.fd, name, &to.fd, to_name, AtFlags::empty())?)
    }

    /// Renames `name` to `to_name` in `to`.
    ///
    /// # Errors
    /// What the system says; `EEXIST` with [`Replace::Never`] when the target exists.
    pub fn rename(&self, name: &[u8], to: &Dir, to_name: &[u8], replace: Replace) -> io::Result<()> {
        let flags = match replace {
            Replace::Never => RenameFlags::NOREPLACE,
            Replace::Allowed => return Ok(sys::renameat(&self.fd, name, &to.fd, to_name)?),
            Replace::Exchange => RenameFlags::EXCHANGE,
        };
        Ok(sys::renameat_with(&self.fd, name, &to.fd, to_name, flags)?)
    }

    /// Removes a name that is not a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn unlink(&self, name: &[u8]) -> io::Result<()> {
        Ok(sys::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(sys::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes `name` and everything in it, never through a symlink and never across a mount point. Inode flags and modes
    /// that forbid it are lifted, so it must be this program's own. Gives the number of names removed.
    ///
    /// # Errors
    /// The first failure; what was removed stays removed.
    pub fn remove_all(&self, name: &[u8]) -> io::Result<u64> {
        match self.unlink(name) {
            Ok(()) => return Ok(1),
            Err(e) if is_errno(&e, Errno::ISDIR) || e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => return Err(e),
        }
        if !self.stat(name)?.is_dir() {
            self.unlink_own(name)?;
            return Ok(1);
        }
        // Depth-first with an explicit stack: (open directory, its names still to remove, its name in the parent).
        let top = self.open_own_dir(name)?;
        let names = top.names()?;
        let mut stack = vec![(top, names, name.to_vec())];
        let mut removed = 0;
        while let Some((dir, names, _)) = stack.last_mut() {
            let Some(child) = names.pop() else {
                let (dir, _, own_name) = stack.pop().expect("the loop saw it");
                drop(dir);
                let parent = stack.last().map_or(self, |(parent, _, _)| parent);
                parent.remove_dir(&own_name)?;
                removed += 1;
                continue;
            };
            if dir.stat(&child)?.is_dir() {
                let opened = dir.open_own_dir(&child)?;
                let inner = opened.names()?;
                stack.push((opened, inner, child));
            } else {
                dir.unlink_own(&child)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes a name of this program's own, whatever flags its inode has.
    fn unlink_own(&self, name: &[u8]) -> io::Result<()> {
        match self.unlink(name) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && self.stat(name)?.file_type == FileType::File => {
                super::attrs::FdAttrs(self.open_file(name)?.as_fd()).set_flags(InodeFlags::default())?;
                self.unlink(name)
            }
            done => done,
        }
    }

    /// Opens a directory of this program's own to remove what is in it, whatever its mode and flags are.
    fn open_own_dir(&self, name: &[u8]) -> io::Result<Dir> {
        const OWNER_ALL: u16 = 0o700;
        let mode = self.stat(name)?.mode;
        if mode & OWNER_ALL != OWNER_ALL && !rustix::process::geteuid().is_root() {
            // A directory that may not be read cannot be opened to change that. The name is in a private directory.
            let mode = Mode::from_raw_mode(u32::from(mode | OWNER_ALL));
            sys::chmodat(&self.fd, name, mode, AtFlags::empty())?;
        }
        let dir = self.open_dir(name)?;
        let attrs = super::attrs::FdAttrs(dir.as_fd());
        if attrs.flags()? != InodeFlags::default() {
            attrs.set_flags(InodeFlags::default())?;
        }
        Ok(dir)
    }

    /// Sets owner and group of `name` itself, never of what a symlink points at. Clears set-id bits and capabilities,
    /// as the kernel does: set the mode afterwards.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_owner(&self, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        Ok(sys::chownat(&self.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the mtime of `name` itself (atime to the same), never of what a symlink points at.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_mtime(&self, name: &[u8], mtime: Timestamp) -> io::Result<()> {
        Ok(sys::utimensat(&self.fd, name, &super::attrs::timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the permission bits of a FIFO, socket or device node that this program has just made in a private directory.
    ///
    /// # Errors
    /// What the system says; `EOPNOTSUPP` for a symlink.
    pub fn set_mode_of_special(&self, name: &[u8], mode: u16) -> io::Result<()> {
        // O_PATH never opens the device; its magic link reaches exactly this inode.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = sys::openat(&self.fd, name, flags, Mode::empty())?;
        if Stat::of_fd(&fd)?.file_type == FileType::Symlink {
            return Err(io::Error::from(Errno::OPNOTSUPP));
        }
        let link = super::attrs::proc_path(&fd, b"");
        Ok(sys::chmodat(CWD, link.as_c_str(), Mode::from_raw_mode(u32::from(mode)), AtFlags::empty())?)
    }

    /// Makes this directory's names durable.
    ///
    /// # Errors
    /// What `fsync` says; the transaction is then void (a second `fsync` would lie).
    pub fn sync(&self) -> io::Result<()> {
        Ok(sys::fsync(&self.fd)?)
    }

    /// Makes everything on this file system durable.
    ///
    /// # Errors
    /// What `syncfs` says; the transaction is then void.
    pub fn sync_filesystem(&self) -> io::Result<()> {
        Ok(sys::syncfs(&self.fd)?)
    }

    /// A second descriptor of the same directory.
    ///
    /// # Errors
    /// What `dup` says.
    pub fn try_clone(&self) -> io::Result<Dir> {
        Ok(Dir { fd: sys::dup(&self.fd)?, path: self.path.clone() })
    }
}

/// Names of a directory while it is read.
#[derive(Debug)]
struct Listing {
    names: Vec<Vec<u8>>,
    /// With so many of them it is asked how many there are.
    ask_at: usize,
}

impl Default for Listing {
    fn default() -> Listing {
        Listing { names: Vec::new(), ask_at: 1 << 14 }
    }
}

impl Listing {
    /// Adds one. Gives `false` when most of the latest ones were there before: a tmpfs of Linux 6.6 to 6.10 puts what is
    /// renamed behind all others, and has no end for whom somebody keeps renaming. All that stays where it is has come
    /// by then.
    fn add(&mut self, name: &[u8]) -> bool {
        self.names.push(name.to_vec());
        if self.names.len() < self.ask_at {
            return true;
        }
        self.names.sort_unstable();
        self.names.dedup();
        let goes_on = self.names.len() > self.ask_at / 2;
        self.ask_at = (self.names.len() * 2).max(self.ask_at);
        goes_on
    }
}

fn is_errno(e: &io::Error, errno: Errno) -> bool {
    e.raw_os_error() == Some(errno.raw_os_error())
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_without_an_end_ends() {
        let name = |n: u32| format!("{n:07}").into_bytes();
        let mut honest = Listing::default();
        assert!((0..200_000).all(|n| honest.add(&name(n))));
        let mut endless = Listing::default();
        assert!((0..100_000).all(|n| endless.add(&name(n))), "all of the directory");
        let more = (0..u32::MAX).take_while(|n| endless.add(&name(n % 2))).count();
        assert!(more < 300_000, "{more} more");
        assert!(endless.names.len() >= 100_000);
        let mut renamed = Listing::default();
        assert!((0..20_000).all(|n| renamed.add(&name(n % 15_000))), "some come twice");
    }
}
