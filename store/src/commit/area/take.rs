// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the walk found, one path after the other: copied from the files cache, read here, or handed to a worker.

use std::path::PathBuf;
use std::sync::Arc;

use super::Merge;
use super::window::{
    BATCH_BYTES, BATCH_DIRS, BATCH_FILES, Group, Ready, Slot, WINDOW, group_of, inode_id, recorded_links,
};
use crate::commit::file::FileError;
use crate::commit::other;
use crate::commit::pipeline::{FileJob, ReadEntry};
use crate::error::{Error, Result};
use crate::files_cache::{CacheRecord, Fingerprint, RecordState};
use crate::format::manifest::{Entry, Inode, InodeKind, Node};
use crate::fsio::{FileType, Stat};
use crate::inode::UnknownXattrs;
use crate::path::TreePath;
use crate::walk::{Found, WalkError};

impl Merge<'_, '_> {
    pub(super) fn take(&mut self, found: Result<Found, WalkError>) -> Result<()> {
        match found {
            Ok(found) => self.take_found(found)?,
            Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                self.report.unreadable.push(e.path);
                self.troubles.unreadable(e.full_path, e.source);
            }
        }
        while self.window.len() >= WINDOW {
            self.flush_batch()?;
            self.wait_for_one()?;
        }
        self.emit_ready()
    }

    fn take_found(&mut self, found: Found) -> Result<()> {
        let old = match &mut self.old {
            Some(old) => old.at(&found.path)?,
            None => None,
        };
        let basis = match &mut self.basis {
            Some(basis) => basis.at(&found.path)?.map(|record| record.entry),
            None => old.as_ref().map(|old| old.entry.clone()),
        };
        if found.mount_point {
            self.report.mount_points.push(found.path);
            return Ok(());
        }
        match found.stat.file_type {
            FileType::Socket => {
                self.report.sockets.push(found.path);
                return Ok(());
            }
            FileType::CharDevice | FileType::BlockDevice if !self.allow_devices => {
                self.report.devices.push(found.path);
                return Ok(());
            }
            _ => {}
        }
        let is_group = !found.stat.is_dir() && found.stat.nlink > 1;
        if is_group {
            if let Some(first) = self.groups.get(&inode_id(&found.stat)).cloned() {
                return self.take_link(&found, first, basis.as_deref());
            }
            self.groups.insert(inode_id(&found.stat), found.path.clone());
        }
        match old {
            Some(old) if is_unchanged(&old, &found.stat, is_group)? => {
                if self.basis.is_some() {
                    self.count(basis.as_deref(), &old.entry);
                }
                self.take_unchanged(found, old, is_group)
            }
            _ if found.stat.file_type == FileType::File => self.take_file(found, basis, is_group),
            _ => self.take_other(found, basis.as_deref(), is_group),
        }
    }

    fn take_unchanged(&mut self, found: Found, old: CacheRecord, is_group: bool) -> Result<()> {
        let group = if is_group { Some(Group::First(recorded_links(&old.decode()?))) } else { None };
        if may_name_others(&old.entry) {
            self.owners.add_acls(&old.decode()?);
        }
        self.shared.progress.advance(1, 0);
        self.window.push_back(Slot::Ready(Box::new(Ready {
            encoded: old.entry,
            fingerprint: old.fingerprint,
            is_file: found.stat.file_type == FileType::File,
            size: found.stat.size,
            owner: (found.stat.uid, found.stat.gid),
            group,
            path: found.path,
        })));
        Ok(())
    }

    fn take_link(&mut self, found: &Found, first: TreePath, basis: Option<&[u8]>) -> Result<()> {
        let entry = Entry { path: found.path.clone(), node: Node::Link { first: first.clone() } };
        let read = ReadEntry::new(entry, found.stat, false);
        self.is_stale = true;
        self.count(basis, &read.encoded);
        self.shared.progress.advance(1, 0);
        self.window.push_back(Slot::Ready(Box::new(self.ready(read, Some(Group::Further(first))))));
        Ok(())
    }

    fn take_other(&mut self, mut found: Found, basis: Option<&[u8]>, is_group: bool) -> Result<()> {
        let read = match other::read(&mut found, &self.xattrs, UnknownXattrs::Refuse) {
            // What is in a directory needs it in the manifest, until all is seen and the commit fails.
            Err(FileError::Fatal(Error::UnruledXattrs { paths, names })) => {
                self.troubles.unruled(paths, names);
                other::read(&mut found, &self.xattrs, UnknownXattrs::Ignore)
            }
            read => read,
        };
        let inode = match read {
            Ok(inode) => inode,
            Err(error) => {
                let full_path = found.full_path();
                return self.leave_out(found.path, full_path, is_group, error);
            }
        };
        let entry = Entry { path: found.path, node: Node::Inode(inode) };
        let read = ReadEntry::new(entry, found.stat, false);
        self.owners.add_acls(&read.entry);
        self.is_stale = true;
        self.count(basis, &read.encoded);
        self.shared.progress.advance(1, 0);
        let group = group_of(&read.entry, is_group);
        self.window.push_back(Slot::Ready(Box::new(self.ready(read, group))));
        Ok(())
    }

    fn take_file(&mut self, found: Found, basis: Option<Vec<u8>>, is_group: bool) -> Result<()> {
        let ticket = self.first_ticket + self.window.len() as u64;
        self.window.push_back(Slot::Waiting {
            path: found.path.clone(),
            full_path: found.full_path(),
            basis,
            group: is_group.then(|| inode_id(&found.stat)),
        });
        let same_dir = |last: &FileJob| match (&last.found.parent, &found.parent) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if !self.batch.last().is_some_and(same_dir) {
            self.batch_dirs += 1;
        }
        self.batch_bytes += found.stat.size;
        if !self.counted_first {
            self.shared.progress.expect(0, found.stat.size);
        }
        self.batch.push(FileJob { ticket, found });
        self.outstanding += 1;
        let is_full =
            self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES || self.batch_dirs >= BATCH_DIRS;
        if is_full { self.flush_batch() } else { Ok(()) }
    }

    /// Notes why there is no entry for a path.
    pub(super) fn leave_out(
        &mut self,
        path: TreePath,
        full_path: PathBuf,
        is_group: bool,
        error: FileError,
    ) -> Result<()> {
        match error {
            // A single name that vanished is as if it had been removed before the walk.
            FileError::Vanished if !is_group => {}
            FileError::Vanished | FileError::Unstable => {
                self.lost.insert(path);
                self.troubles.unstable.push(full_path);
            }
            FileError::Unreadable(e) => {
                self.lost.insert(path.clone());
                self.report.unreadable.push(path);
                self.troubles.unreadable(full_path, e);
            }
            FileError::Fatal(Error::UnruledXattrs { paths, names }) => {
                self.lost.insert(path);
                self.troubles.unruled(paths, names);
            }
            FileError::Fatal(e) => return Err(e),
        }
        Ok(())
    }

    /// Counts an entry by what the parent has at its path.
    pub(super) fn count(&mut self, basis: Option<&[u8]>, new: &[u8]) {
        match basis {
            None => self.report.added += 1,
            Some(basis) if basis != new => self.report.changed += 1,
            Some(_) => {}
        }
    }

    pub(super) fn ready(&self, read: ReadEntry, group: Option<Group>) -> Ready {
        // What was read counts, not what the file has grown to since.
        let (is_file, size) = match &read.entry.node {
            Node::Inode(Inode { kind: InodeKind::File(content), .. }) => (true, content.size),
            _ => (read.stat.file_type == FileType::File, 0),
        };
        Ready {
            path: read.entry.path,
            encoded: read.encoded,
            fingerprint: if read.unstable { None } else { Fingerprint::settled(&read.stat, self.start) },
            is_file,
            size,
            owner: (read.stat.uid, read.stat.gid),
            group,
        }
    }
}

/// Whether the cache proves that the inode's entry is still right.
fn is_unchanged(old: &CacheRecord, stat: &Stat, is_group: bool) -> Result<bool> {
    if old.state != RecordState::Current || old.fingerprint != Some(Fingerprint::of(stat)) {
        return Ok(false);
    }
    // A first member may have been a further name when it was recorded.
    Ok(!is_group || matches!(old.decode()?.node, Node::Inode(_)))
}

/// Whether an encoded entry has an ACL, which may name users and groups; without decoding it.
fn may_name_others(encoded: &[u8]) -> bool {
    const ACL_KEYS: std::ops::RangeInclusive<u64> = 15..=16;
    let mut decoder = minicbor::Decoder::new(encoded);
    let Ok(Some(pairs)) = decoder.map() else { return true };
    for _ in 0..pairs {
        match decoder.u64() {
            Ok(key) if ACL_KEYS.contains(&key) => return true,
            Ok(_) if decoder.skip().is_ok() => {}
            _ => return true,
        }
    }
    false
}
