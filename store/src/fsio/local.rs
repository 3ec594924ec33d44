// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Path-based access to this program's own directories (stores, state), and what the system knows: time, owners, space.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::time::ClockId;

use super::dir::Dir;
use super::map::Mapped;
use super::stat::Stat;
use super::sys;
use crate::error::{Error, Result};
use crate::format::manifest::Timestamp;

/// An object of a store, open for positioned reads.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    path: PathBuf,
    /// Its name, if it is an object of a store.
    object: Option<String>,
    len: u64,
}

impl OpenFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<OpenFile> {
        let fd = sys::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
            .map_err(|e| Error::io("open", path, e))?;
        OpenFile::from_fd(fd, path)
    }

    /// Takes over an open file; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Io`]; `IsADirectory` for a directory.
    pub fn from_fd(fd: OwnedFd, path: &Path) -> Result<OpenFile> {
        let stat = Stat::of_fd(&fd).map_err(|e| Error::io("stat", path, e))?;
        if stat.is_dir() {
            return Err(Error::io("read", path, io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Ok(OpenFile { fd, path: path.to_path_buf(), object: None, len: stat.size })
    }

    /// Takes over an open object of a store: what is wrong with it is damage and bears its name.
    ///
    /// # Errors
    /// As [`OpenFile::from_fd`].
    pub fn of_object(fd: OwnedFd, path: &Path, object: String) -> Result<OpenFile> {
        Ok(OpenFile { object: Some(object), ..OpenFile::from_fd(fd, path)? })
    }

    /// Its length when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it had no bytes when it was opened.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`Error::Io`]; `UnexpectedEof` when the file ends first; [`Error::UnreadableObject`].
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&self.fd, buffer, offset).map_err(|e| match &self.object {
            Some(object) => Error::of_object("read", &self.path, object, e),
            None => Error::io("read", &self.path, e),
        })
    }

    /// BLAKE3 of the whole.
    ///
    /// # Errors
    /// As [`OpenFile::read_exact_at`].
    pub fn hash(&self) -> Result<[u8; 32]> {
        const BUFFER: usize = 1 << 20;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; usize::try_from(self.len).unwrap_or(BUFFER).min(BUFFER)];
        let mut at = 0;
        while at < self.len {
            let len = usize::try_from(self.len - at).unwrap_or(BUFFER).min(BUFFER);
            self.read_exact_at(&mut buffer[..len], at)?;
            hasher.update(&buffer[..len]);
            at += len as u64;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Refuses a file of more than `cap` bytes.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`], or [`Error::Decode`] if it is an object.
    pub fn require_len(&self, cap: u64) -> Result<()> {
        if self.len <= cap { Ok(()) } else { Err(self.too_long(cap)) }
    }

    fn too_long(&self, cap: u64) -> Error {
        match &self.object {
            Some(object) => Error::too_long(object, self.len, cap),
            None => Error::LimitExceeded { what: "size of a file", found: self.len, limit: cap },
        }
    }

    /// Maps it. Only for this program's own immutable files.
    ///
    /// # Errors
    /// As [`Mapped::from_fd`].
    pub fn into_map(self) -> Result<Mapped> {
        Mapped::from_fd(self.fd, &self.path)
    }

    /// Reads the whole of a file of at most `cap` bytes.
    ///
    /// # Errors
    /// As [`OpenFile::read_exact_at`]; [`Error::LimitExceeded`] for a longer one, [`Error::Decode`] if it is an object.
    pub fn read_all(&self, cap: u64) -> Result<Vec<u8>> {
        self.require_len(cap)?;
        let mut bytes = vec![0; usize::try_from(self.len).map_err(|_| self.too_long(cap))?];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Reads into `buffer` from `offset` of `fd`; gives the bytes read, 0 at the end.
///
/// # Errors
/// What the system says.
pub fn read_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(sys::pread(fd, buffer, offset)?)
}

/// Fills `buffer` from `offset` of `fd`.
///
/// # Errors
/// What the system says; `UnexpectedEof` when the file ends first.
pub fn read_exact_at(fd: impl AsFd, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match sys::pread(&fd, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Reads a whole file of at most `cap` bytes.
///
/// # Errors
/// [`Error::Io`], or [`Error::LimitExceeded`] for a longer one.
pub fn read_capped(path: &Path, cap: u64) -> Result<Vec<u8>> {
    OpenFile::open(path)?.read_all(cap)
}

/// A run of bytes that the file system stores, between holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataRun {
    /// Where it starts.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// Where a file of `size` bytes holds data, as `SEEK_DATA` and `SEEK_HOLE` tell; the whole file where they do not.
///
/// # Errors
/// What the system says.
pub fn data_runs(fd: impl AsFd, size: u64) -> io::Result<Vec<DataRun>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match sys::seek(&fd, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(vec![DataRun { start: 0, end: size }]),
            Err(e) => return Err(e.into()),
        };
        if start >= size {
            break;
        }
        let end = match sys::seek(&fd, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end.min(size),
            // It was data a moment before. Whoever reads it finds out what it is now.
            Ok(_) | Err(Errno::NXIO) => size,
            Err(e) => return Err(e.into()),
        };
        runs.push(DataRun { start, end });
        at = end;
    }
    Ok(runs)
}

/// `path` as an absolute path without symlinks.
///
/// # Errors
/// [`Error::Io`].
pub fn canonicalize(path: &Path) -> Result<PathBuf> {
    sys::before_others("realpath", sys::On::Path(path)).map_err(|e| Error::io("find", path, e))?;
    #[expect(clippy::disallowed_methods, reason = "the one place where a path is resolved before it is opened")]
    let found = std::fs::canonicalize(path);
    found.map_err(|e| Error::io("find", path, e))
}

/// Whether something exists at `path` (a symlink itself counts).
///
/// # Errors
/// [`Error::Io`] when that cannot be told.
pub fn exists(path: &Path) -> Result<bool> {
    match sys::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(e) => Err(Error::io("stat", path, e)),
    }
}

/// Length of a file, or `None` when there is none.
///
/// # Errors
/// [`Error::Io`].
pub fn file_len(path: &Path) -> Result<Option<u64>> {
    match sys::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(u64::try_from(stat.st_size).ok()),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(Error::io("stat", path, e)),
    }
}

/// Makes a private directory (0700) and its missing parents; gives whether it was made. Each new name is made durable.
///
/// # Errors
/// [`Error::Io`].
pub fn create_dir_all(path: &Path) -> Result<bool> {
    match sys::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            sync_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::NOENT) => {
            let parent = path.parent().ok_or_else(|| Error::io("create directory", path, Errno::NOENT))?;
            create_dir_all(parent)?;
            create_dir_all(path)
        }
        Err(e) => Err(Error::io("create directory", path, e)),
    }
}

/// Makes a private directory (0700) unless it is there; its name is durable after [`sync_dir`] of its parent.
///
/// # Errors
/// [`Error::Io`].
pub fn create_dir(path: &Path) -> Result<()> {
    match sys::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(Error::io("create directory", path, e)),
    }
}

/// Names in a directory, sorted.
///
/// # Errors
/// [`Error::Io`].
pub fn list_dir(path: &Path) -> Result<Vec<Vec<u8>>> {
    Dir::open(path)?.names().map_err(|e| Error::io("list", path, e))
}

/// Removes a file; it need not exist.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_file(path: &Path) -> Result<()> {
    match sys::unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::io("remove", path, e)),
    }
}

/// Gives a file of this program's own a further name. Gives whether it is there.
///
/// # Errors
/// [`Error::Io`].
pub fn link(from: &Path, to: &Path) -> Result<bool> {
    match sys::linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(Error::io("link to", to, e)),
    }
}

/// Removes a directory of this program's own and everything in it; it need not exist.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_tree(path: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    if !exists(path)? {
        return Ok(());
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::io("remove", path, Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Dir::open(parent)?.remove_all(name.as_bytes()).map_err(|e| Error::io("remove", path, e))?;
    Ok(())
}

/// Makes the names in a directory durable.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_dir(path: &Path) -> Result<()> {
    Dir::open(path)?.sync().map_err(|e| Error::io("sync", path, e))
}

/// Renames a file or directory of this program's own; an existing file is replaced. Durable after [`sync_dir`].
///
/// # Errors
/// [`Error::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    sys::renameat(CWD, from, CWD, to).map_err(|e| Error::io("rename to", to, e))
}

/// Makes a directory of this program's own durable: every file in it, itself, and its name.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_tree(path: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let failed = |e| Error::io("sync", path, e);
    let dir = Dir::open(path)?;
    for name in dir.names().map_err(failed)? {
        if dir.stat(&name).map_err(failed)?.is_dir() {
            sync_tree(&path.join(std::ffi::OsStr::from_bytes(&name)))?;
        } else {
            let file = dir.open_file(&name).map_err(failed)?;
            sys::fsync(&file).map_err(|e| Error::io("sync", dir.path_of(&name), e))?;
        }
    }
    dir.sync().map_err(failed)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes everything on the file system of `path` durable.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_filesystem(path: &Path) -> Result<()> {
    Dir::open(path)?.sync_filesystem().map_err(|e| Error::io("sync file system of", path, e))
}

/// Free space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged user may still write.
    pub bytes: u64,
    /// Inodes left; `u64::MAX` where they are not counted.
    pub inodes: u64,
}

/// Free space of the file system that `dir` is on.
///
/// # Errors
/// What the system says.
pub fn space(dir: &Dir) -> io::Result<Space> {
    let found = sys::fstatvfs(dir)?;
    let inodes = if found.f_files == 0 { u64::MAX } else { found.f_favail };
    Ok(Space { bytes: found.f_bavail.saturating_mul(found.f_frsize), inodes })
}

/// The time now.
pub fn now() -> Timestamp {
    clock(ClockId::Realtime)
}

/// The time now as the kernel stamps inodes: never later than [`now`], behind by at most one tick.
pub fn now_coarse() -> Timestamp {
    clock(ClockId::RealtimeCoarse)
}

fn clock(id: ClockId) -> Timestamp {
    let time = rustix::time::clock_gettime(id);
    Timestamp { secs: time.tv_sec, nanos: u32::try_from(time.tv_nsec).unwrap_or(0) }
}

/// Lets this process open as many files as the system allows it. Where that fails it goes on with what it has.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// This machine's host name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Name of a user id in this system's user database.
///
/// # Errors
/// When the database cannot be asked; an id without a name is no error.
pub fn owner_name(uid: u32) -> io::Result<Option<Vec<u8>>> {
    let user = ask(|| nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)))?;
    Ok(user.map(|user| user.name.into_bytes()))
}

/// Name of a group id in this system's group database.
///
/// # Errors
/// As [`owner_name`].
pub fn group_name(gid: u32) -> io::Result<Option<Vec<u8>>> {
    let group = ask(|| nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(gid)))?;
    Ok(group.map(|group| group.name.into_bytes()))
}

/// Asks a database of users or groups, again when a signal came. getpwuid(3) lists four errors as ways to say "not
/// found", beside saying nothing.
fn ask<T>(database: impl Fn() -> nix::Result<Option<T>>) -> io::Result<Option<T>> {
    use nix::errno::Errno;
    loop {
        match database() {
            Err(Errno::EINTR) => {}
            Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => return Ok(None),
            answer => return answer.map_err(io::Error::from),
        }
    }
}

/// User id of a name in this system's user database.
pub fn uid_of_name(name: &[u8]) -> Option<u32> {
    let user = nix::unistd::User::from_name(std::str::from_utf8(name).ok()?).ok()??;
    Some(user.uid.as_raw())
}

/// Group id of a name in this system's group database.
pub fn gid_of_name(name: &[u8]) -> Option<u32> {
    let group = nix::unistd::Group::from_name(std::str::from_utf8(name).ok()?).ok()??;
    Some(group.gid.as_raw())
}
