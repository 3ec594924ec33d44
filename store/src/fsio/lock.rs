// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Advisory locks that the kernel releases when the holder dies.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::sys;
use crate::error::{Error, Result};

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
                Err(Error::Locked { path: path.to_path_buf() })
            }
            Ok(()) => Ok(Lock { fd }),
            Err(Errno::WOULDBLOCK) => Err(Error::Locked { path: path.to_path_buf() }),
            Err(e) => Err(Error::io("lock", path, e)),
        }
    }
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
        assert!(matches!(Lock::exclusive(&path), Err(Error::Locked { .. })));
        drop(lock);
        Lock::exclusive(&path).unwrap();
        drop(inherited);
    }
}
