// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A live inode's metadata and content, as an entry records them.
//!
//! Reads never block on a FIFO or touch a device: only what `statx` calls a regular file is opened, and checked again
//! after it was opened.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::area::{XattrRules, XattrVerdict};
use crate::error::{Error, Result};
use crate::format::manifest::{Acl, ChunkList, FileContent, Inode, InodeFlags, InodeKind};
use crate::fsio::{self, ACL_ACCESS, ACL_DEFAULT, FdAttrs, FileType, NameAttrs, Stat};
use crate::id::ContentHash;
use crate::limits;
use crate::path::escape;
use crate::progress::Progress;
use crate::walk::Found;

/// What to do about an extended attribute that the area's rules do not mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownXattrs {
    /// Fail and name it: a commit must not leave something out silently.
    Refuse,
    /// Leave it alone: it is the server's own.
    Ignore,
}

/// Metadata that `statx` does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// Extended attributes that belong to the area.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Access ACL, when it says more than the mode.
    pub acl: Option<Acl>,
    /// Default ACL of a directory.
    pub default_acl: Option<Acl>,
    /// Inode flags.
    pub flags: InodeFlags,
}

/// Opens a regular file that a walk found, and makes sure that it still is one.
///
/// # Errors
/// What the system says; `InvalidInput` when it is no regular file any more.
pub fn open_file(found: &Found) -> io::Result<(OwnedFd, Stat)> {
    let parent = found.parent.as_ref().ok_or(io::ErrorKind::IsADirectory)?;
    let fd = parent.open_file(found.path.name())?;
    let stat = Stat::of_fd(&fd)?;
    if stat.file_type != FileType::File {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file any more"));
    }
    Ok((fd, stat))
}

/// Reads what `statx` does not tell. `fd` is the open file or directory; other kinds are reached by name.
///
/// # Errors
/// [`Error::Io`]; [`Error::UnruledXattrs`] with all attributes that are refused; [`Error::Unsupported`] for one that breaks a
/// limit of the format.
pub fn read_extras(
    found: &Found,
    fd: Option<BorrowedFd<'_>>,
    rules: &XattrRules,
    unknown: UnknownXattrs,
) -> Result<Extras> {
    let failed = |e: io::Error| Error::io("read attributes of", found.full_path(), e);
    let mut extras = Extras::default();
    let by_name = |dir| NameAttrs { dir, name: found.path.name() };
    let names = match (fd, &found.parent) {
        (Some(fd), _) => {
            extras.flags = FdAttrs(fd).flags().map_err(failed)?;
            FdAttrs(fd).xattr_names().map_err(failed)?
        }
        (None, Some(parent)) => by_name(parent).xattr_names().map_err(failed)?,
        (None, None) => return Ok(extras),
    };
    let read = |name: &[u8]| match (fd, &found.parent) {
        (Some(fd), _) => FdAttrs(fd).xattr(name),
        (None, Some(parent)) => by_name(parent).xattr(name),
        (None, None) => Ok(None),
    };
    let unsupported = |reason: String| Error::Unsupported { path: found.full_path(), reason };
    let mut total = 0;
    let mut unruled = BTreeSet::new();
    for name in names {
        let is_acl = fsio::xattr_namespace_of_acl(&name);
        match rules.verdict(&name) {
            _ if is_acl => {}
            XattrVerdict::Recorded => {}
            XattrVerdict::Local => continue,
            XattrVerdict::Refused if unknown == UnknownXattrs::Ignore => continue,
            XattrVerdict::Refused => {
                unruled.insert(escape(&name));
                continue;
            }
        }
        let Some(value) = read(&name).map_err(failed)? else { continue };
        if is_acl {
            let acl = fsio::decode_acl(&value)
                .ok_or_else(|| unsupported(format!("attribute `{}` is not a valid ACL", escape(&name))))?;
            match name.as_slice() {
                ACL_ACCESS if acl.0.len() > 3 => extras.acl = Some(acl),
                ACL_DEFAULT if !acl.0.is_empty() => extras.default_acl = Some(acl),
                _ => {}
            }
            continue;
        }
        total += name.len() + value.len();
        let too_much = value.len() > limits::XATTR_VALUE_BYTES_MAX
            || total > limits::XATTR_TOTAL_BYTES_MAX
            || extras.xattrs.len() == limits::XATTRS_MAX;
        if too_much {
            return Err(unsupported(format!("extended attribute `{}` is over a limit of the format", escape(&name))));
        }
        extras.xattrs.insert(name, value);
    }
    if !unruled.is_empty() {
        return Err(Error::UnruledXattrs { paths: vec![found.full_path()], names: unruled });
    }
    Ok(extras)
}

/// Puts together the inode of an entry. `content` is given for regular files; symlink targets are read here.
///
/// # Errors
/// [`Error::Io`]; [`Error::Unsupported`] for a symlink target over the format's limit.
pub fn inode(found: &Found, stat: &Stat, extras: Extras, content: Option<FileContent>) -> Result<Inode> {
    let kind = match stat.file_type {
        FileType::Directory => InodeKind::Directory,
        FileType::File => InodeKind::File(content.unwrap_or_else(|| unread(stat.size))),
        FileType::Symlink => InodeKind::Symlink(read_target(found)?),
        FileType::Fifo => InodeKind::Fifo,
        FileType::CharDevice => InodeKind::CharDevice { major: stat.rdev.0, minor: stat.rdev.1 },
        FileType::BlockDevice => InodeKind::BlockDevice { major: stat.rdev.0, minor: stat.rdev.1 },
        FileType::Socket => InodeKind::Socket,
    };
    Ok(Inode {
        mode: if stat.file_type == FileType::Symlink { 0o777 } else { stat.mode },
        kind,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        links: if stat.is_dir() { 1 } else { stat.nlink },
        xattrs: extras.xattrs,
        acl: extras.acl,
        default_acl: extras.default_acl,
        flags: extras.flags,
    })
}

/// Content of which only the size is known: its hash is that of nothing, which equals no file of this size.
fn unread(size: u64) -> FileContent {
    FileContent { size, hash: ContentHash::of(b""), chunks: ChunkList::Whole, unstable: false }
}

fn read_target(found: &Found) -> Result<Vec<u8>> {
    let parent = found.parent.as_ref().expect("the root is a directory");
    let target = parent.read_link(found.path.name()).map_err(|e| Error::io("read symlink", found.full_path(), e))?;
    if target.is_empty() || target.len() > limits::SYMLINK_BYTES_MAX {
        return Err(Error::Unsupported { path: found.full_path(), reason: "symlink target too long".into() });
    }
    Ok(target)
}

/// Everything but a regular file's content (which gets a size and no hash), for comparison with an entry.
///
/// # Errors
/// As [`read_extras`] and [`inode`].
pub fn read_metadata(found: &Found, rules: &XattrRules, unknown: UnknownXattrs) -> Result<Inode> {
    let failed = |e: io::Error| Error::io("open", found.full_path(), e);
    let (extras, stat) = match (found.stat.file_type, &found.dir) {
        (FileType::Directory, Some(dir)) => (read_extras(found, Some(dir.as_fd()), rules, unknown)?, found.stat),
        (FileType::File, _) => {
            let (fd, stat) = open_file(found).map_err(failed)?;
            (read_extras(found, Some(fd.as_fd()), rules, unknown)?, stat)
        }
        _ => (read_extras(found, None, rules, unknown)?, found.stat),
    };
    inode(found, &stat, extras, None)
}

/// Hash of a file's first `size` bytes, holes as zeros, with plain reads. `progress` hears of each piece, and may end it.
///
/// # Errors
/// What the system says; `UnexpectedEof` when the file shrank meanwhile; `Interrupted` when it was cancelled.
pub fn hash_content(fd: impl AsFd, size: u64, progress: &Progress) -> io::Result<ContentHash> {
    const BUFFER: usize = 256 << 10;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(BUFFER).min(BUFFER)];
    let mut at = 0;
    while at < size {
        if progress.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = usize::try_from(size - at).unwrap_or(BUFFER).min(BUFFER);
        fsio::read_exact_at(&fd, &mut buffer[..len], at)?;
        hasher.update(&buffer[..len]);
        progress.advance(0, len as u64);
        at += len as u64;
    }
    Ok(ContentHash(*hasher.finalize().as_bytes()))
}
