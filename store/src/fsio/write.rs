// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writing through descriptors: file content in staging, small state files beside it.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::attrs::{ACL_ACCESS, ACL_DEFAULT, FdAttrs, proc_path};
use super::dir::{Dir, Replace};
use super::stat::{FileType, Stat};
use super::sys;
use crate::error::Error;
use crate::format::manifest::InodeFlags;

/// Writes all of `bytes` at `offset`.
///
/// # Errors
/// What the system says; `WriteZero` when it takes nothing.
pub fn write_all_at(fd: impl AsFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match sys::pwrite(&fd, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Sets a file's size; what lies beyond its data becomes a hole.
///
/// # Errors
/// What the system says.
pub fn set_len(fd: impl AsFd, len: u64) -> io::Result<()> {
    Ok(sys::ftruncate(fd, len)?)
}

/// Owner and group that new inodes of this process get.
pub fn effective_owner() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Further groups of this process; none where they cannot be read.
pub fn groups() -> Vec<u32> {
    let groups = rustix::process::getgroups().unwrap_or_default();
    groups.into_iter().map(rustix::process::Gid::as_raw).collect()
}

impl Dir {
    /// Makes `bytes` the durable content of `name` in this directory: temporary name, write, sync, rename, sync.
    ///
    /// # Errors
    /// What the system says; `name` is then as it was.
    pub fn publish(&self, name: &[u8], bytes: &[u8]) -> io::Result<()> {
        let temporary = [name, b".new"].concat();
        if self.stat_opt(&temporary)?.is_some() {
            self.unlink(&temporary)?;
        }
        let fd = self.create_file(&temporary)?;
        write_all_at(&fd, bytes, 0)?;
        sys::fsync(&fd)?;
        self.rename(&temporary, self, name, Replace::Allowed)?;
        self.sync()
    }

    /// Makes or opens a directory of this program's own: mode 0700, owned by this process, without the ACL, set-group bit
    /// and flags that it may have inherited: what is made in it would inherit them again. Also gives whether it was made.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_private_dir(&self, name: &[u8]) -> io::Result<(Dir, bool)> {
        let made = match self.make_dir(name) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(e),
        };
        match self.open_private_dir(name, made) {
            Ok(dir) => Ok((dir, made)),
            Err(e) => {
                if made {
                    let _ = self.remove_dir(name);
                }
                Err(e)
            }
        }
    }

    fn open_private_dir(&self, name: &[u8], made: bool) -> io::Result<Dir> {
        let dir = self.open_dir(name)?;
        let attrs = FdAttrs(dir.as_fd());
        if made {
            attrs.remove_xattr(ACL_DEFAULT)?;
            attrs.remove_xattr(ACL_ACCESS)?;
            let (uid, gid) = effective_owner();
            attrs.set_owner(uid, gid)?;
            attrs.set_mode(0o700)?;
        } else {
            let stat = dir.stat(b"")?;
            if stat.mode & 0o077 != 0 || stat.uid != effective_owner().0 {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not private to this user"));
            }
        }
        if attrs.flags()? != InodeFlags::default() {
            attrs.set_flags(InodeFlags::default())?;
        }
        Ok(dir)
    }

    /// Content of a regular file of at most `cap` bytes; `None` when there is none.
    ///
    /// # Errors
    /// What the system says; `InvalidData` for a longer file or another kind of inode.
    pub fn read_small(&self, name: &[u8], cap: u64) -> io::Result<Option<Vec<u8>>> {
        let fd = match self.open_file(name) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let stat = Stat::of_fd(&fd)?;
        let len = usize::try_from(stat.size).ok().filter(|_| stat.file_type == FileType::File && stat.size <= cap);
        let mut bytes = vec![0; len.ok_or(io::ErrorKind::InvalidData)?];
        super::local::read_exact_at(&fd, &mut bytes, 0)?;
        Ok(Some(bytes))
    }

    /// Opens a directory by a path that the user gave, following symlinks.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_following(path: &Path) -> Result<Dir, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = sys::openat(CWD, path, flags, Mode::empty()).map_err(|e| Error::io("open directory", path, e))?;
        Ok(Dir::from_parts(fd, path.to_path_buf()))
    }

    /// The absolute path that leads here now, without symlinks; for naming this directory, never for reaching it.
    ///
    /// # Errors
    /// What the system says.
    pub fn real_path(&self) -> io::Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let link = proc_path(self, b"");
        let target = sys::readlinkat(CWD, link.as_c_str())?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(target)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_directory_inherits_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        FdAttrs(dir.as_fd()).set_mode(0o2777).unwrap();
        let (private, made) = dir.make_private_dir(b"p").unwrap();
        assert!(made);
        assert_eq!(private.stat(b"").unwrap().mode, 0o700);
        assert!(!dir.make_private_dir(b"p").unwrap().1);
        FdAttrs(private.as_fd()).set_mode(0o755).unwrap();
        assert!(dir.make_private_dir(b"p").is_err(), "others may look in");
        private.publish(b"f", b"one").unwrap();
        private.publish(b"f", b"two").unwrap();
        assert_eq!(private.names().unwrap(), [b"f".to_vec()]);
        assert_eq!(private.stat(b"f").unwrap().size, 3);
    }
}
