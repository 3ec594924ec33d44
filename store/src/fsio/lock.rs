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
    _fd: OwnedFd,
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
            Ok(()) => Ok(Lock { _fd: fd }),
            Err(Errno::WOULDBLOCK) => Err(Error::Locked { path: path.to_path_buf() }),
            Err(e) => Err(Error::io("lock", path, e)),
        }
    }
}
