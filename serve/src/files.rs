// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Objects of a store's directory, opened for reading only, one component at a time from a held descriptor.
//!
//! Invariant: no symbolic link is followed below the store's directory (format-spec §10.3), and nothing but a regular file
//! is read.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::name::Lasting;

/// The directory of a store.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// An object that is there.
#[derive(Debug)]
pub struct Object {
    /// To read from at offsets.
    pub file: File,
    /// Its length in bytes when it was opened.
    pub size: u64,
    /// Its strong entity tag, quotes included.
    pub etag: String,
}

impl Root {
    /// Opens a directory that holds `format`.
    ///
    /// # Errors
    /// Why it cannot be opened; not found when it has no `format`.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Root(openat(CWD, path, flags, Mode::empty())?);
        match root.object("format", Lasting::AskAgain)? {
            Some(_) => Ok(root),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    /// Opens an object; `None` when there is none that may be read.
    ///
    /// # Errors
    /// Whatever else keeps it from being opened.
    pub fn object(&self, name: &str, lasting: Lasting) -> io::Result<Option<Object>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut held: Option<OwnedFd> = None;
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            // Without NONBLOCK the opening of a pipe would wait for a writer.
            let kind = if parts.peek().is_some() { OFlags::DIRECTORY } else { OFlags::NONBLOCK | OFlags::NOCTTY };
            match openat(held.as_ref().unwrap_or(&self.0), part, flags | kind, Mode::empty()) {
                Ok(next) => held = Some(next),
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
        let Some(file) = held.map(File::from) else { return Ok(None) };
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Ok(None);
        }
        let etag = match (lasting, name.split(['/', '.']).find(|part| part.len() == 64)) {
            (Lasting::Forever, Some(id)) => format!("\"{id}\""),
            // A new one is another file under the same name.
            _ => format!("\"{:x}-{:x}-{:x}-{:x}\"", facts.ino(), facts.mtime(), facts.mtime_nsec(), facts.len()),
        };
        Ok(Some(Object { size: facts.len(), file, etag }))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the directories are the test's own")]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_on_a_way_without_links_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(Root::open(dir.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(at("format"), "f").unwrap();
        std::fs::create_dir_all(at("real/deep")).unwrap();
        std::fs::write(at("real/deep/file"), "12345").unwrap();
        std::os::unix::fs::symlink("real", at("linked")).unwrap();
        std::os::unix::fs::symlink("file", at("real/deep/link")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let there = |name: &str| root.object(name, Lasting::AskAgain).unwrap().map(|object| object.size);
        assert_eq!(there("real/deep/file"), Some(5));
        for name in ["linked/deep/file", "real/deep/link", "real/deep", "pipe", "none", "format/x"] {
            assert_eq!(there(name), None, "{name}");
        }
    }
}
