// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A directory of which nothing is known, made a seed of: its files are cut as a commit would cut them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::tree_seed::TreeIndex;
use crate::chunk::Chunker;
use crate::error::Result;
use crate::files_cache::Fingerprint;
use crate::fsio::{self, Dir, FileType, Stat};
use crate::id::ChunkId;
use crate::path::TreePath;
use crate::progress::Progress;

/// Directories inside each other that are gone into.
const DEPTH_MAX: usize = 256;

/// What of a directory is worth being read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Worth {
    /// Files that are as long as one that is wanted.
    SameSize,
    /// Files that can hold more than one chunk, too.
    Any,
}

/// Cuts the files below a directory and collects what they hold.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) chunker: &'a Chunker,
    /// Sizes of the files that are wanted.
    pub(crate) sizes: &'a HashSet<u64>,
    pub(crate) worth: Worth,
    pub(crate) progress: &'a Progress,
}

/// What could not be read of a directory.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    count: u64,
    example: Option<(PathBuf, io::Error)>,
}

impl Unread {
    /// Who removes something meanwhile keeps nothing back.
    fn add(&mut self, root: &Dir, path: &[u8], error: io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.count += 1;
            self.example.get_or_insert_with(|| (root.path_of(path), error));
        }
    }

    /// For the report.
    pub(crate) fn note(&self) -> Option<String> {
        let (path, error) = self.example.as_ref()?;
        let path = path.display();
        Some(match self.count {
            1 => format!("{path} could not be used as a seed: {error}"),
            count => format!("{count} files and directories could not be used as seeds, {path} among them: {error}"),
        })
    }
}

impl Scan<'_> {
    /// Scans everything below `root`. What cannot be read is left out, and told of: a seed need not have anything. Other file
    /// systems are not gone into. One directory is open at a time, however many there are.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn tree(&self, root: &Dir, index: &mut TreeIndex) -> Result<Unread> {
        let mut unread = Unread::default();
        let mut device = None;
        let mut todo = vec![(Vec::new(), 0)];
        while let Some((path, depth)) = todo.pop() {
            self.progress.check_cancelled()?;
            let listed = open(root, &path).and_then(|dir| {
                let own = dir.stat(b"")?.dev;
                Ok((if own == *device.get_or_insert(own) { dir.names()? } else { Vec::new() }, dir))
            });
            let (names, dir) = match listed {
                Ok(listed) => listed,
                Err(e) => {
                    unread.add(root, &path, e);
                    continue;
                }
            };
            for name in names {
                if index.is_full() {
                    return Ok(unread);
                }
                let path = [&path[..], if path.is_empty() { b"" } else { b"/" }, &name].concat();
                let stat = match dir.stat(&name) {
                    Ok(stat) => stat,
                    Err(e) => {
                        unread.add(root, &path, e);
                        continue;
                    }
                };
                if stat.is_dir() {
                    if depth < DEPTH_MAX {
                        todo.push((path, depth + 1));
                    }
                } else if self.is_worth(&stat)
                    && let Ok(path) = TreePath::new(path)
                    && let Some(e) = self.file(root, &path, None, index)?
                {
                    unread.add(root, path.as_bytes(), e);
                }
            }
        }
        Ok(unread)
    }

    fn is_worth(&self, stat: &Stat) -> bool {
        let may_share = matches!(self.worth, Worth::Any) && stat.size > self.chunker.min() as u64;
        stat.file_type == FileType::File && stat.size > 0 && (may_share || self.sizes.contains(&stat.size))
    }

    /// Cuts one file, if it still is the inode that `print` says. Gives why it could not be read.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn file(
        &self,
        root: &Dir,
        path: &TreePath,
        print: Option<Fingerprint>,
        index: &mut TreeIndex,
    ) -> Result<Option<io::Error>> {
        let below = Path::new(OsStr::from_bytes(path.as_bytes()));
        // Looked at before it is opened: to open a device may do something.
        let is_file = |stat: &Stat| stat.file_type == FileType::File;
        let opened = root.stat_below(below).and_then(|stat| match is_file(&stat) {
            true => root.open_below(below).and_then(|fd| Ok(Some((Stat::of_fd(&fd)?, fd)))),
            false => Ok(None),
        });
        let (stat, fd) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(None),
            Err(e) => return Ok(Some(e)),
        };
        let now = Fingerprint::of(&stat);
        if !is_file(&stat) || print.is_some_and(|print| print != now) {
            return Ok(None);
        }
        match self.cut(&fd, stat.size)? {
            Ok(chunks) => {
                index.push(path, stat.size, Some(now), chunks);
                Ok(None)
            }
            // It has become shorter meanwhile.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Ok(Some(e)),
        }
    }

    /// The chunks of an open file, with offset and length.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    fn cut(&self, fd: &OwnedFd, size: u64) -> Result<io::Result<Vec<(ChunkId, u64, u32)>>> {
        let runs = match fsio::data_runs(fd, size) {
            Ok(runs) => runs,
            Err(e) => return Ok(Err(e)),
        };
        let mut chunks = Vec::new();
        let mut window = Vec::new();
        for run in runs {
            let mut at = run.start;
            while at < run.end {
                self.progress.check_cancelled()?;
                let len = usize::try_from(run.end - at).unwrap_or(usize::MAX).min(self.chunker.max());
                window.resize(len, 0);
                if let Err(e) = fsio::read_exact_at(fd, &mut window, at) {
                    return Ok(Err(e));
                }
                let cut = self.chunker.next_cut(&window);
                let short = u32::try_from(cut).expect("no longer than the longest chunk");
                chunks.push((ChunkId::of(&window[..cut]), at, short));
                at += u64::from(short);
            }
        }
        Ok(Ok(chunks))
    }
}

/// The directory at `path` below `root`, looked up without following a symlink.
fn open(root: &Dir, path: &[u8]) -> io::Result<Dir> {
    if path.is_empty() { root.try_clone() } else { root.open_dir_below(Path::new(OsStr::from_bytes(path))) }
}
