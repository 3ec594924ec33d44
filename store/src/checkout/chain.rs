// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The open directories on the way to a path, kept while sorted paths go by.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::Error;
use crate::fsio::{self, Dir};
use crate::path::TreePath;
use crate::walk::Found;

/// Opens each directory of a sorted list of paths once, component by component from a held one.
#[derive(Debug)]
pub(super) struct DirChain<'d> {
    base: &'d Dir,
    /// Directories below the base: length of the path up to and including it, and its descriptor.
    open: Vec<(usize, Dir)>,
    /// Path of the innermost one.
    path: Vec<u8>,
}

impl<'d> DirChain<'d> {
    /// A chain of only `base`.
    pub(super) fn new(base: &'d Dir) -> Self {
        DirChain { base, open: Vec::new(), path: Vec::new() }
    }

    /// The directory at `path`, relative to the base. Symlinks and mount points are refused.
    ///
    /// # Errors
    /// What the system says of the first component that is no directory.
    pub(super) fn dir(&mut self, path: &[u8]) -> io::Result<&Dir> {
        while let Some((len, _)) = self.open.last() {
            let is_prefix = path.starts_with(&self.path[..*len]) && matches!(path.get(*len), None | Some(b'/'));
            if is_prefix {
                break;
            }
            self.open.pop();
        }
        let mut at = self.open.last().map_or(0, |(len, _)| *len);
        self.path.truncate(at);
        while at < path.len() {
            let start = if at == 0 { 0 } else { at + 1 };
            let end = path[start..].iter().position(|b| *b == b'/').map_or(path.len(), |len| start + len);
            let parent = self.open.last().map_or(self.base, |(_, dir)| dir);
            let dir = parent.open_dir(&path[start..end])?;
            self.path.extend_from_slice(&path[at..end]);
            self.open.push((end, dir));
            at = end;
        }
        Ok(self.open.last().map_or(self.base, |(_, dir)| dir))
    }

    /// The directory that holds `path`, and its name there.
    ///
    /// # Errors
    /// As [`DirChain::dir`].
    pub(super) fn parent<'p>(&mut self, path: &'p [u8]) -> io::Result<(&Dir, &'p [u8])> {
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&[][..], path),
        };
        Ok((self.dir(parent)?, name))
    }

    /// What is at `path`, as a walk would find it; `None` when nothing is.
    ///
    /// # Errors
    /// As [`DirChain::dir`].
    pub(super) fn find(&mut self, path: &TreePath) -> io::Result<Option<Found>> {
        if path.is_root() {
            let dir = Arc::new(self.base.try_clone()?);
            let stat = dir.stat(b"")?;
            return Ok(Some(Found::beside_a_walk(path, stat, None, Some(dir))));
        }
        let (dir, name) = self.parent(path.as_bytes())?;
        let Some(stat) = dir.stat_opt(name)? else { return Ok(None) };
        let parent = Some(Arc::new(dir.try_clone()?));
        let dir = if stat.is_dir() { Some(Arc::new(dir.open_dir(name)?)) } else { None };
        Ok(Some(Found::beside_a_walk(path, stat, parent, dir)))
    }
}

/// Whether an error says that something of the plan is not there any more, or something else, as a mount point, is in its
/// place.
pub(super) fn is_other_now(e: &io::Error) -> bool {
    let other = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV, Errno::BUSY].map(Errno::raw_os_error);
    e.raw_os_error().is_some_and(|code| other.contains(&code))
}

/// The same of an error of this library, for what was found by name and is read by name after that.
pub(super) fn is_other_by_now(e: &Error) -> bool {
    match e {
        Error::Io { source, .. } => {
            let kind_is_other = matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory);
            is_other_now(source) || fsio::is_unopenable(source) || kind_is_other
        }
        // Attributes or a target that no entry has.
        Error::Unsupported { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_sorted_and_unsorted_paths() {
        let temp = tempfile::tempdir().unwrap();
        let base = Dir::open(temp.path()).unwrap();
        for path in [&b"a"[..], b"a/b", b"a/bc", b"a/b/c", b"d"] {
            DirChain::new(&base).parent(path).map(|(dir, name)| dir.make_dir(name).unwrap()).unwrap();
        }
        base.make_symlink(b"a", b"link").unwrap();
        let mut chain = DirChain::new(&base);
        for path in [&b""[..], b"a/b/c", b"a/bc", b"a/b", b"d", b"a", b"", b"a/b/c"] {
            let wanted = base.stat(if path.is_empty() { b"." } else { path }).unwrap().ino;
            assert_eq!(chain.dir(path).unwrap().stat(b"").unwrap().ino, wanted, "{path:?}");
        }
        assert!(chain.dir(b"a/none").is_err());
        assert!(chain.dir(b"link/b").is_err(), "a symlink is not a directory");
        assert!(chain.dir(b"a/b").is_ok(), "an error leaves the chain usable");
    }
}
