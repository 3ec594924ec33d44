// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a checkout had delivered where it is taken back, to tell what is as it left it from what somebody changed since.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::checkout::compare::file_type;
use crate::checkout::journal::{Op, Step};
use crate::error::Result;
use crate::files_cache::{CacheReader, Fingerprint, RecordState};
use crate::format::manifest::{Inode, InodeKind, Node, Timestamp};
use crate::fsio::{FileType, Stat};
use crate::path::TreePath;

/// What became of something that was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::checkout) enum Since {
    /// Nothing.
    AsLeft,
    /// It is the same file or directory, changed.
    Changed,
    /// Something else has its name, or nothing was delivered there.
    Other,
}

/// The memory of a checkout at the names that it changed and below them; of a switched tree, all of it.
#[derive(Debug, Default)]
pub(in crate::checkout) struct Delivered {
    known: HashMap<TreePath, Known>,
    /// Names of inodes with several, by inode number, where the transaction has changed nothing.
    linked: HashMap<u64, Vec<TreePath>>,
    /// Nothing but users and programs has touched it since: then the change time tells of every change.
    is_newest: bool,
}

#[derive(Debug)]
struct Known {
    print: Option<Fingerprint>,
    look: Option<Look>,
}

/// What `statx` tells of an entry.
#[derive(Debug, Clone, Copy)]
struct Look {
    file_type: FileType,
    mode: u16,
    owner: (u32, u32),
    mtime: Timestamp,
    size: Option<u64>,
}

impl Look {
    fn of(inode: &Inode) -> Look {
        let size = match &inode.kind {
            InodeKind::File(content) => Some(content.size),
            _ => None,
        };
        let owner = (inode.uid, inode.gid);
        Look { file_type: file_type(&inode.kind), mode: inode.mode, owner, mtime: inode.mtime, size }
    }

    /// A directory's time moves with every name in it.
    fn fits(&self, now: &Stat) -> bool {
        let same_mode = self.file_type == FileType::Symlink || self.mode == now.mode;
        let same_content = now.is_dir() || (self.mtime == now.mtime && self.size.is_none_or(|size| size == now.size));
        same_mode && self.owner == (now.uid, now.gid) && same_content
    }
}

impl Delivered {
    /// Reads of the memory at `applied` what concerns `steps`. A memory that is lost or damaged knows nothing.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub(in crate::checkout) fn read(applied: &Path, steps: &[Step], is_newest: bool) -> Result<Delivered> {
        let names: BTreeSet<&[u8]> = steps.iter().map(|step| step.path.as_bytes()).collect();
        let is_whole = steps.iter().any(|step| matches!(step.op, Op::Tree(_)));
        let is_below = |path: &[u8]| {
            let ancestors = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
            is_whole || names.contains(path) || ancestors.into_iter().any(|ancestor| names.contains(ancestor))
        };
        let mut known: HashMap<TreePath, Known> = HashMap::new();
        let mut linked: HashMap<u64, Vec<TreePath>> = HashMap::new();
        for record in CacheReader::open(applied)?.into_iter().flatten() {
            let record = record?;
            if record.state == RecordState::Outside {
                continue;
            }
            let is_below = is_below(record.path_bytes()?);
            let entry = record.decode()?;
            if !is_below {
                let has_others = matches!(&entry.node, Node::Link { .. } | Node::Inode(Inode { links: 2.., .. }));
                if let Some(print) = record.fingerprint.filter(|_| has_others) {
                    linked.entry(print.ino).or_default().push(entry.path);
                }
                continue;
            }
            let look = match &entry.node {
                Node::Inode(inode) => Some(Look::of(inode)),
                Node::Link { first } => known.get(first).and_then(|known| known.look),
            };
            known.insert(entry.path, Known { print: record.fingerprint, look });
        }
        Ok(Delivered { known, linked, is_newest })
    }

    /// Every path that is remembered, in no order.
    pub(in crate::checkout) fn paths(&self) -> impl Iterator<Item = &TreePath> {
        self.known.keys()
    }

    /// Other names of an inode, outside of what the transaction has changed.
    pub(super) fn other_names(&self, ino: u64) -> &[TreePath] {
        self.linked.get(&ino).map_or(&[], Vec::as_slice)
    }

    /// What became of what was delivered at `path`, by what is there now. The device is not asked for: it may have another
    /// number after each start.
    pub(in crate::checkout) fn since(&self, path: &TreePath, now: &Stat) -> Since {
        let Some(Known { print, look }) = self.known.get(path) else { return Since::Other };
        let is_other =
            print.is_some_and(|print| print.ino != now.ino) || look.is_some_and(|look| look.file_type != now.file_type);
        if is_other {
            return Since::Other;
        }
        let same_print = |print: Fingerprint| {
            now.is_dir()
                || (print.size, print.mtime) == (now.size, now.mtime) && (!self.is_newest || print.ctime == now.ctime)
        };
        // What the memory could not vouch for is judged by what was to be there.
        let as_left = print.is_none_or(same_print) && look.is_none_or(|look| look.fits(now));
        if as_left { Since::AsLeft } else { Since::Changed }
    }
}
