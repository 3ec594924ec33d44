// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Metadata of what is no regular file. Symlinks and special files cannot be held open while they are read, so they are
//! looked at before and after, like a file's content.

use std::io::ErrorKind;

use super::file::FileError;
use crate::area::XattrRules;
use crate::error::Error;
use crate::format::manifest::Inode;
use crate::inode::{self, UnknownXattrs};
use crate::walk::Found;

/// Times that a name which changes under the reader is read.
const ATTEMPTS: u32 = 3;

/// Reads a directory, symlink or special file; `found.stat` is then what was read.
pub(super) fn read(found: &mut Found, xattrs: &XattrRules, unknown: UnknownXattrs) -> Result<Inode, FileError> {
    for _ in 0..ATTEMPTS {
        let read = inode::read_metadata(found, xattrs, unknown);
        let Some(parent) = found.parent.as_ref().filter(|_| found.dir.is_none()) else {
            return read.map_err(error_of);
        };
        let now = parent.stat_opt(found.path.name()).map_err(FileError::Unreadable)?;
        let Some(now) = now else { return Err(FileError::Vanished) };
        if now.same_content_as(&found.stat) {
            return read.map_err(error_of);
        }
        if now.file_type != found.stat.file_type || (now.dev, now.ino) != (found.stat.dev, found.stat.ino) {
            return Err(FileError::Unstable);
        }
        found.stat = now;
    }
    Err(FileError::Unstable)
}

fn error_of(error: Error) -> FileError {
    match error {
        Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => FileError::Vanished,
        Error::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => FileError::Unreadable(source),
        error => FileError::Fatal(error),
    }
}
