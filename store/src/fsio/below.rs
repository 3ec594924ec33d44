// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths of several components below a held directory, none of which may be a symlink.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::dir::Dir;
use super::stat::Stat;
use super::sys;

/// Whether `error` says that there is a symlink where none may be.
pub fn is_symlink_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Whether `error` says that what is there cannot be opened at all, as a socket.
pub fn is_unopenable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NXIO.raw_os_error())
}

impl Dir {
    /// Opens what lies at `path` below this directory for reading. Never blocks on a FIFO or device: the caller checks
    /// the type of what it got.
    ///
    /// # Errors
    /// What the system says; `ELOOP` when a component is a symlink.
    pub fn open_below(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve_below(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Opens the directory at `path` below this one.
    ///
    /// # Errors
    /// As [`Dir::open_below`]; `ENOTDIR` when it is something else.
    pub fn open_dir_below(&self, path: &Path) -> io::Result<Dir> {
        let fd = self.open_below(path)?;
        if !Stat::of_fd(&fd)?.is_dir() {
            return Err(Errno::NOTDIR.into());
        }
        Ok(Dir::from_parts(fd, self.path().join(path)))
    }

    /// Metadata of what lies at `path` below this directory, itself and not what a symlink points at.
    ///
    /// # Errors
    /// As [`Dir::open_below`], for the components before the last.
    pub fn stat_below(&self, path: &Path) -> io::Result<Stat> {
        Stat::of_fd(self.resolve_below(path, OFlags::PATH)?)
    }

    fn resolve_below(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match sys::openat2(self, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) => self.walk_below(path, flags),
            found => Ok(found?),
        }
    }

    /// As the kernel would, one component at a time: for kernels before 5.6 and some sandboxes.
    fn walk_below(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let on_the_way = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut components: Vec<&OsStr> = path.iter().collect();
        let last = components.pop().ok_or(Errno::NOENT)?;
        let mut at: Option<OwnedFd> = None;
        for component in components {
            let from = at.as_ref().map_or(self.as_fd(), AsFd::as_fd);
            at = Some(sys::openat(from, component, on_the_way, Mode::empty())?);
        }
        let from = at.as_ref().map_or(self.as_fd(), AsFd::as_fd);
        Ok(sys::openat(from, last, flags, Mode::empty())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_component_may_be_a_symlink() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::fs::write(temp.path().join("a/b/f"), "content").unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("link")).unwrap();
        std::os::unix::fs::symlink("f", temp.path().join("a/b/g")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let walk = |dir: &Dir, path: &Path| dir.walk_below(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC);
        type Open = fn(&Dir, &Path) -> io::Result<OwnedFd>;
        for open in [Dir::open_below as Open, walk as Open] {
            assert_eq!(Stat::of_fd(open(&dir, Path::new("a/b/f")).unwrap()).unwrap().size, 7);
            for path in ["link/b/f", "a/b/g", "link"] {
                let error = open(&dir, Path::new(path)).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()), "{path}");
            }
            assert_eq!(open(&dir, Path::new("a/x/f")).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(dir.stat_below(Path::new("a/b/g")).unwrap().file_type, super::super::FileType::Symlink);
        assert_eq!(dir.open_dir_below(Path::new("a/b")).unwrap().names().unwrap().len(), 2);
        assert!(dir.open_dir_below(Path::new("a/b/f")).is_err());
    }
}
