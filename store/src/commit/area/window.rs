// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entries on their way to the manifest: places that are kept open, in order, until the workers have read the files.

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::TrySendError;

use super::Merge;
use crate::commit::file::FileError;
use crate::commit::pipeline::{Batch, FileDone};
use crate::error::{Error, Result};
use crate::files_cache::Fingerprint;
use crate::format::manifest::{Entry, InodeKind, Node};
use crate::fsio::Stat;
use crate::path::TreePath;

/// Entries that may wait for a file before them.
pub(super) const WINDOW: usize = 32_768;
/// Bounds of one batch of files: number, bytes, and directories that it keeps open.
pub(super) const BATCH_FILES: usize = 64;
pub(super) const BATCH_BYTES: u64 = 1 << 20;
pub(super) const BATCH_DIRS: usize = 8;

/// A place in the stream of entries.
#[derive(Debug)]
pub(super) enum Slot {
    /// Known.
    Ready(Box<Ready>),
    /// A worker reads the file; `basis` is what the parent has at its path.
    Waiting { path: TreePath, full_path: PathBuf, basis: Option<Vec<u8>>, group: Option<InodeId> },
    /// It turned out that there is nothing to record.
    Empty,
}

#[derive(Debug)]
pub(super) struct Ready {
    pub(super) path: TreePath,
    pub(super) encoded: Vec<u8>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) is_file: bool,
    pub(super) size: u64,
    pub(super) owner: (u32, u32),
    /// Its place in a hard-link group, if the inode has several names.
    pub(super) group: Option<Group>,
}

/// An entry's place in a hard-link group.
#[derive(Debug)]
pub(super) enum Group {
    /// The first member, and how many names its entry says there are.
    First(u32),
    /// A further name; which is the first.
    Further(TreePath),
}

/// Device and number of an inode.
pub(super) type InodeId = ((u32, u32), u64);

pub(super) fn inode_id(stat: &Stat) -> InodeId {
    (stat.dev, stat.ino)
}

impl Merge<'_, '_> {
    /// Hands the batch to the workers; while their queue is full, takes what they have done.
    pub(super) fn flush_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = Batch { xattrs: Arc::clone(&self.xattrs), jobs: std::mem::take(&mut self.batch) };
        (self.batch_bytes, self.batch_dirs) = (0, 0);
        loop {
            match self.jobs.try_send(batch) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => batch = back,
                // The workers are gone; the first of them says why.
                Err(TrySendError::Disconnected(_)) => return Err(Error::Interrupted),
            }
            self.wait_for_one()?;
        }
    }

    /// Takes at least one finished file, and all that are there.
    pub(super) fn wait_for_one(&mut self) -> Result<()> {
        if self.outstanding == 0 {
            return self.emit_ready();
        }
        let done = self.done.recv().map_err(|_| Error::Interrupted)?;
        self.take_done(done)?;
        self.emit_ready()
    }

    fn take_done(&mut self, done: FileDone) -> Result<()> {
        self.outstanding -= 1;
        let at = usize::try_from(done.ticket - self.first_ticket).expect("inside the window");
        let Slot::Waiting { path, full_path, basis, group } = std::mem::replace(&mut self.window[at], Slot::Empty)
        else {
            unreachable!("each ticket comes back once");
        };
        // Another inode under this name is not the one that further names refer to.
        let outcome = match (done.outcome, group) {
            (Ok(read), Some(walked)) if inode_id(&read.stat) != walked => Err(FileError::Unstable),
            (outcome, _) => outcome,
        };
        match outcome {
            Ok(read) => {
                self.report.files_read += 1;
                if let Node::Inode(inode) = &read.entry.node
                    && let InodeKind::File(content) = &inode.kind
                {
                    self.report.bytes_read += content.size;
                }
                if read.unstable {
                    self.report.unstable.push(path);
                }
                self.owners.add_acls(&read.entry);
                self.is_stale = true;
                self.count(basis.as_deref(), &read.encoded);
                let group = group_of(&read.entry, group.is_some());
                self.window[at] = Slot::Ready(Box::new(self.ready(read, group)));
            }
            Err(error) => self.leave_out(path, full_path, group.is_some(), error)?,
        }
        Ok(())
    }

    /// Moves the window's finished front to the manifest.
    pub(super) fn emit_ready(&mut self) -> Result<()> {
        while let Ok(done) = self.done.try_recv() {
            self.take_done(done)?;
        }
        while let Some(Slot::Ready(_) | Slot::Empty) = self.window.front() {
            self.first_ticket += 1;
            if let Some(Slot::Ready(ready)) = self.window.pop_front() {
                self.emit(&ready)?;
            }
        }
        Ok(())
    }
}

/// A first member as it is read says how many names the inode has anywhere; names outside the area do not count. If the
/// walk saw several, further ones may come even if the inode has lost them since.
pub(super) fn group_of(entry: &Entry, had_several_names: bool) -> Option<Group> {
    let links = recorded_links(entry);
    (had_several_names || links > 1).then_some(Group::First(links))
}

pub(super) fn recorded_links(entry: &Entry) -> u32 {
    match &entry.node {
        Node::Inode(inode) => inode.links,
        Node::Link { .. } => 1,
    }
}
