// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one way to make a file durable: temporary name, write, sync, rename, sync the directory.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::local::{OpenFile, list_dir, remove_file, sync_dir};
use super::stat::Stat;
use super::sys;
use super::write::write_all_at;
use crate::error::{Error, Result};

/// Names of files that are being written begin with this.
const PREFIX: &str = "tmp-";

/// A file being written under a name that no reader looks at. Removed when dropped before it is published.
#[derive(Debug)]
pub struct TempFile {
    file: Option<std::fs::File>,
    path: PathBuf,
    len: u64,
}

impl TempFile {
    /// Creates a private file (0600) with a fresh random name in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(dir: &Path) -> Result<TempFile> {
        loop {
            let mut random = [0u8; 8];
            getrandom::fill(&mut random)
                .map_err(|e| Error::io("draw random bytes for", dir, std::io::Error::other(e)))?;
            let path = dir.join(format!("{PREFIX}{}", crate::id::encode_hex(&random)));
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match sys::openat(CWD, &path, flags, Mode::from_raw_mode(0o600)) {
                Ok(fd) => return Ok(TempFile { file: Some(fd.into()), path, len: 0 }),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(Error::io("create", path, e)),
            }
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_mut().expect("open until published");
        write_all(file, bytes).map_err(|e| Error::io("write", &self.path, e))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Overwrites bytes that were written before; the length does not change.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let file = self.file.as_mut().expect("open until published");
        write_all_at(file, bytes, offset).map_err(|e| Error::io("write", &self.path, e))
    }

    /// What was written, open for reading; it stays readable when this is dropped.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn reopen(&self) -> Result<OpenFile> {
        let file = self.file.as_ref().expect("open until published");
        let copy = sys::dup(file).map_err(|e| Error::io("open", &self.path, e))?;
        OpenFile::from_fd(copy, &self.path)
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The descriptor, for reading back what was written.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_ref().expect("open until published").as_fd()
    }

    /// Makes the content durable and gives the file its name, without waiting for the name to be durable: the caller
    /// syncs the directory ([`Batch`] does). An existing target is replaced.
    ///
    /// # Errors
    /// [`Error::Io`]; the target is then as it was.
    pub fn publish_unsynced_name(mut self, target: &Path) -> Result<()> {
        let file = self.file.take().expect("open until published");
        let found = Stat::of_fd(&file).map_err(|e| Error::io("stat", &self.path, e))?.size;
        if found != self.len {
            return Err(Error::io("write all of", &self.path, std::io::Error::from(std::io::ErrorKind::WriteZero)));
        }
        let fd: OwnedFd = file.into();
        sys::fsync(&fd).map_err(|e| Error::io("sync", &self.path, e))?;
        sys::renameat(CWD, &self.path, CWD, target).map_err(|e| Error::io("rename to", target, e))?;
        self.path = PathBuf::new();
        Ok(())
    }
}

/// A file of this program's own that only grows.
#[derive(Debug)]
pub struct AppendFile {
    fd: std::os::fd::OwnedFd,
    path: PathBuf,
}

impl AppendFile {
    /// Opens or creates it (0600).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<AppendFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = sys::openat(CWD, path, flags, Mode::from_raw_mode(0o600)).map_err(|e| Error::io("open", path, e))?;
        Ok(AppendFile { fd, path: path.to_path_buf() })
    }

    /// Appends bytes; they are durable when this returns.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append_durably(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(&self.fd, bytes).map_err(|e| Error::io("write", &self.path, e))?;
        sys::fdatasync(&self.fd).map_err(|e| Error::io("sync", &self.path, e))
    }
}

/// A private file of this program's own that is read and written at offsets. What it holds is checked whenever it is read,
/// so it is never synced.
#[derive(Debug)]
pub struct ScratchFile {
    fd: std::os::fd::OwnedFd,
    path: PathBuf,
}

impl ScratchFile {
    /// Opens or creates it (0600).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<ScratchFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = sys::openat(CWD, path, flags, Mode::from_raw_mode(0o600)).map_err(|e| Error::io("open", path, e))?;
        Ok(ScratchFile { fd, path: path.to_path_buf() })
    }

    /// Its length now.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn size(&self) -> Result<u64> {
        let stat = super::Stat::of_fd(&self.fd).map_err(|e| Error::io("stat", &self.path, e))?;
        Ok(stat.size)
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`Error::Io`]; `UnexpectedEof` when the file ends first.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        super::read_exact_at(&self.fd, buffer, offset).map_err(|e| Error::io("read", &self.path, e))
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        super::write_all_at(&self.fd, bytes, offset).map_err(|e| Error::io("write", &self.path, e))
    }

    /// Cuts it off at `len`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_len(&self, len: u64) -> Result<()> {
        super::set_len(&self.fd, len).map_err(|e| Error::io("shorten", &self.path, e))
    }
}

/// Writes all of `bytes` where the file's position is.
fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match sys::write(&fd, bytes)? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Makes a file durable.
///
/// # Errors
/// What `fsync` says.
pub fn sync_file(file: &impl std::os::fd::AsFd) -> std::io::Result<()> {
    Ok(sys::fsync(file)?)
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // A leftover is garbage that the next writer sweeps; there is nobody to tell here.
            let _ = sys::unlinkat(CWD, &self.path, AtFlags::empty());
        }
    }
}

/// Whether a name is a [`TempFile`]'s.
pub fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes())
}

/// Removes what a writer that died left in `dir` under a [`TempFile`]'s name, and gives how many. Nobody else may be
/// writing there.
///
/// # Errors
/// [`Error::Io`].
pub fn sweep_temporaries(dir: &Path) -> Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let mut swept = 0;
    for name in list_dir(dir)? {
        if is_temporary(&name) {
            remove_file(&dir.join(std::ffi::OsStr::from_bytes(&name)))?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Writes `bytes` as the durable content of `target`: a temporary file in the same directory, write, check the length,
/// sync, rename, sync the directory. After success the content survives a power cut; after failure the target is as before.
///
/// # Errors
/// [`Error::Io`].
pub fn publish_file(target: &Path, bytes: &[u8]) -> Result<()> {
    let dir = parent(target);
    let mut file = TempFile::create(dir)?;
    file.write(bytes)?;
    file.publish_unsynced_name(target)?;
    sync_dir(dir)
}

/// Many files that share their directory syncs. Nothing may name them before [`Batch::finish`] has returned.
#[derive(Debug, Default)]
pub struct Batch {
    dirs: BTreeSet<PathBuf>,
}

impl Batch {
    /// Publishes `file` as `target`; durable only after [`Batch::finish`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn publish(&mut self, file: TempFile, target: &Path) -> Result<()> {
        let dir = parent(target);
        file.publish_unsynced_name(target)?;
        self.dirs.insert(dir.to_path_buf());
        Ok(())
    }

    /// Remembers that names in `dir` changed.
    pub fn touched(&mut self, dir: &Path) {
        self.dirs.insert(dir.to_path_buf());
    }

    /// Takes over what `other` still has to sync.
    pub fn merge(&mut self, other: Batch) {
        self.dirs.extend(other.dirs);
    }

    /// Makes all names durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        self.dirs.iter().try_for_each(|dir| sync_dir(dir))
    }
}

fn parent(target: &Path) -> &Path {
    target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_replaces_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("object");
        publish_file(&target, b"one").unwrap();
        publish_file(&target, b"two").unwrap();
        let names = super::super::list_dir(dir.path()).unwrap();
        assert_eq!(names, [b"object".to_vec()]);
        assert_eq!(super::super::read_capped(&target, 3).unwrap(), b"two");
        drop(TempFile::create(dir.path()).unwrap());
        assert_eq!(super::super::list_dir(dir.path()).unwrap().len(), 1);
        super::super::remove_file(&target).unwrap();
    }
}
