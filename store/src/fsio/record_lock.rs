// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Locks of other programs' files, of the kind that `fcntl` gives.
//!
//! Taken for the open file, not for the process: other descriptors of the same file that this process closes take
//! nothing away, and who asks for the other kind (`F_SETLK`) finds it locked all the same.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{Mode, OFlags};

use super::dir::Dir;
use super::stat::{FileType, Stat};
use super::sys;

/// A held lock; released when dropped or when the process dies.
#[derive(Debug)]
pub struct RecordLock {
    _fd: OwnedFd,
}

/// What became of an attempt to lock a file.
#[derive(Debug)]
pub enum TriedLock {
    /// It is held.
    Held(RecordLock),
    /// Another process holds it; its number where the system tells.
    Busy(Option<u32>),
    /// There is no such file, or this process may not write to it.
    None,
}

impl RecordLock {
    /// Tries to lock the whole of `name` in `dir` for writing. The file is never created.
    ///
    /// # Errors
    /// What the system says, where it is neither locked nor missing.
    pub fn try_take(dir: &Dir, name: &Path) -> io::Result<TriedLock> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match sys::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS | rustix::io::Errno::ROFS) => {
                return Ok(TriedLock::None);
            }
            Err(e) => return Err(e.into()),
        };
        if Stat::of_fd(&fd)?.file_type != FileType::File {
            return Ok(TriedLock::None);
        }
        match fcntl(fd.as_fd(), FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => Ok(TriedLock::Held(RecordLock { _fd: fd })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(TriedLock::Busy(holder(&fd))),
            Err(e) => Err(e.into()),
        }
    }
}

fn whole_file() -> libc::flock {
    let (kind, whence) = (libc::F_WRLCK, libc::SEEK_SET);
    libc::flock {
        l_type: kind.try_into().expect("a small constant"),
        l_whence: whence.try_into().expect("a small constant"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn holder(fd: &OwnedFd) -> Option<u32> {
    let mut lock = whole_file();
    fcntl(fd.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    u32::try_from(lock.l_pid).ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_once_and_never_created() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, name) = (Dir::open(temp.path()).unwrap(), Path::new("lock"));
        assert!(matches!(RecordLock::try_take(&dir, name).unwrap(), TriedLock::None));
        assert!(dir.names().unwrap().is_empty());
        std::fs::write(temp.path().join("lock"), "").unwrap();
        let held = RecordLock::try_take(&dir, name).unwrap();
        assert!(matches!(held, TriedLock::Held(_)));
        // Another descriptor of this process that is closed takes nothing away.
        drop(std::fs::File::open(temp.path().join("lock")).unwrap());
        assert!(matches!(RecordLock::try_take(&dir, name).unwrap(), TriedLock::Busy(None)));
        drop(held);
        assert!(matches!(RecordLock::try_take(&dir, name).unwrap(), TriedLock::Held(_)));
    }
}
