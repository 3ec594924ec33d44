// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A directory of which nothing is known, made a seed of: its files are cut as a commit would cut them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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

impl Scan<'_> {
    /// Scans everything below `root`. What cannot be read is left out: a seed need not have anything. Other file systems
    /// are not gone into.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn tree(&self, root: &Dir, index: &mut TreeIndex) -> Result<()> {
        let Ok(device) = root.stat(b"").map(|stat| stat.dev) else { return Ok(()) };
        let Ok(top) = root.try_clone() else { return Ok(()) };
        let mut todo = vec![(Vec::new(), top, 0)];
        while let Some((path, dir, depth)) = todo.pop() {
            self.progress.check_cancelled()?;
            for name in dir.names().unwrap_or_default() {
                if index.is_full() {
                    return Ok(());
                }
                let Ok(stat) = dir.stat(&name) else { continue };
                let path = [&path[..], if path.is_empty() { b"" } else { b"/" }, &name].concat();
                if stat.is_dir() {
                    if let (true, true, Ok(dir)) = (depth < DEPTH_MAX, stat.dev == device, dir.open_dir(&name)) {
                        todo.push((path, dir, depth + 1));
                    }
                } else if self.is_worth(&stat)
                    && let Ok(path) = TreePath::new(path)
                {
                    self.file(root, &path, None, index)?;
                }
            }
        }
        Ok(())
    }

    fn is_worth(&self, stat: &Stat) -> bool {
        let may_share = matches!(self.worth, Worth::Any) && stat.size > self.chunker.min() as u64;
        stat.file_type == FileType::File && stat.size > 0 && (may_share || self.sizes.contains(&stat.size))
    }

    /// Cuts one file, if it still is the inode that `print` says.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn file(
        &self,
        root: &Dir,
        path: &TreePath,
        print: Option<Fingerprint>,
        index: &mut TreeIndex,
    ) -> Result<()> {
        let below = Path::new(OsStr::from_bytes(path.as_bytes()));
        // Looked at before it is opened: to open a device may do something.
        let is_file = |stat: &Stat| stat.file_type == FileType::File;
        if !root.stat_below(below).is_ok_and(|stat| is_file(&stat)) {
            return Ok(());
        }
        let Ok(fd) = root.open_below(below) else { return Ok(()) };
        let Ok(stat) = Stat::of_fd(&fd) else { return Ok(()) };
        let now = Fingerprint::of(&stat);
        if !is_file(&stat) || print.is_some_and(|print| print != now) {
            return Ok(());
        }
        let Ok(runs) = fsio::data_runs(&fd, stat.size) else { return Ok(()) };
        let mut chunks = Vec::new();
        let mut window = Vec::new();
        for run in runs {
            let mut at = run.start;
            while at < run.end {
                self.progress.check_cancelled()?;
                let len = usize::try_from(run.end - at).unwrap_or(usize::MAX).min(self.chunker.max());
                window.resize(len, 0);
                if fsio::read_exact_at(&fd, &mut window, at).is_err() {
                    return Ok(());
                }
                let cut = self.chunker.next_cut(&window);
                let Ok(short) = u32::try_from(cut) else { return Ok(()) };
                chunks.push((ChunkId::of(&window[..cut]), at, short));
                at += u64::from(short);
            }
        }
        index.push(path, stat.size, Some(now), chunks);
        Ok(())
    }
}
