// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Advisory locks that the kernel releases when the holder dies.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::dir::Dir;
use super::sys;
use crate::error::{Error, Result};

/// Longest table of locks that is read, in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// A held `flock`; released when dropped or when the process dies.
#[derive(Debug)]
pub struct Lock {
    fd: OwnedFd,
}

impl Drop for Lock {
    /// To close it would not do: a process that another thread is just starting may have it open until it begins.
    fn drop(&mut self) {
        let _ = sys::flock(&self.fd, FlockOperation::Unlock);
    }
}

impl Lock {
    /// Locks the file at `path`, creating it (0600) if needed; the file itself says nothing and may stay for ever.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process holds it.
    pub fn exclusive(path: &Path) -> Result<Lock> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            sys::openat(CWD, path, flags, Mode::from_raw_mode(0o600)).map_err(|e| Error::io("open lock", path, e))?;
        Self::take(fd, path)
    }

    /// Locks an existing directory or file without writing to it; a symlink is refused.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process holds it.
    pub fn exclusive_existing(path: &Path) -> Result<Lock> {
        let fd = sys::openat(CWD, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::io("open lock", path, e))?;
        Self::take(fd, path)
    }

    /// Locks what `fd` has open; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process holds it.
    pub fn take(fd: OwnedFd, path: &Path) -> Result<Lock> {
        match sys::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            // Whoever held it took the file away meanwhile: this one is locked for nobody.
            Ok(()) if sys::fstat(&fd).is_ok_and(|stat| stat.st_nlink == 0) => {
                Err(Error::Locked { path: path.to_path_buf(), holder: None })
            }
            Ok(()) => Ok(Lock { fd }),
            Err(Errno::WOULDBLOCK) => Err(Error::Locked { path: path.to_path_buf(), holder: holder(&fd) }),
            Err(e) => Err(Error::io("lock", path, e)),
        }
    }
}

/// The process that has the lock, where the system tells: not of another PID namespace, nor on btrfs, whose locks are
/// listed under another device than its files have.
fn holder(fd: &OwnedFd) -> Option<u32> {
    let stat = sys::fstat(fd).ok()?;
    let (major, minor) = (nix::libc::major(stat.st_dev), nix::libc::minor(stat.st_dev));
    let inode = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let mut locks = String::new();
    let proc = Dir::open(Path::new("/proc")).ok()?;
    std::fs::File::from(proc.open_file(b"locks").ok()?).take(BYTES_MAX).read_to_string(&mut locks).ok()?;
    locks.lines().find_map(|line| holder_in(line, &inode))
}

/// Of a line as `1: FLOCK  ADVISORY  WRITE 4711 fe:00:10084776 0 EOF`.
fn holder_in(line: &str, inode: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    (words.next()? == "FLOCK").then_some(())?;
    let pid = words.nth(2)?.parse().ok()?;
    (words.next()? == inode && pid > 0).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_keeps_no_lock() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let lock = Lock::exclusive(&path).unwrap();
        let inherited = lock.fd.try_clone().unwrap();
        let Err(Error::Locked { holder, .. }) = Lock::exclusive(&path) else { panic!("it is locked") };
        assert!(holder.is_none_or(|pid| pid == std::process::id()), "{holder:?}");
        drop(lock);
        Lock::exclusive(&path).unwrap();
        drop(inherited);
    }

    #[test]
    fn who_holds_a_lock() {
        let of = |line| holder_in(line, "fe:00:4711");
        assert_eq!(of("1: FLOCK  ADVISORY  WRITE 812 fe:00:4711 0 EOF"), Some(812));
        for other in [
            "1: POSIX  ADVISORY  WRITE 812 fe:00:4711 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 812 fe:00:47 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 0 fe:00:4711 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 812 fe:00:4711 0 EOF",
            "1: FLOCK",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
