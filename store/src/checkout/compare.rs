// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What differs between two inodes, field by field.
//!
//! Invariant: pure. Hard-link structure is not compared here; `links` counts for nothing.

use std::fmt;

use crate::format::manifest::{ChunkList, ChunkRun, FileContent, Inode, InodeKind};
use crate::fsio::FileType;

/// Which fields of an inode differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Difference(u16);

impl Difference {
    /// Another kind of inode.
    pub const KIND: Difference = Difference(1);
    /// A file's bytes, a symlink's target, a device's number.
    pub const CONTENT: Difference = Difference(1 << 1);
    /// Permission bits.
    pub const MODE: Difference = Difference(1 << 2);
    /// Owner or group.
    pub const OWNER: Difference = Difference(1 << 3);
    /// Modification time, except a directory's.
    pub const MTIME: Difference = Difference(1 << 4);
    /// Extended attributes.
    pub const XATTRS: Difference = Difference(1 << 5);
    /// Access or default ACL.
    pub const ACL: Difference = Difference(1 << 6);
    /// Inode flags.
    pub const FLAGS: Difference = Difference(1 << 7);
    /// Names that should share an inode do not, or the other way round.
    pub const LINKS: Difference = Difference(1 << 8);

    /// Where a file of equal bytes has holes.
    pub const HOLES: Difference = Difference(1 << 9);

    const NAMES: [(Difference, &'static str); 10] = [
        (Self::KIND, "type"),
        (Self::CONTENT, "content"),
        (Self::MODE, "mode"),
        (Self::OWNER, "owner"),
        (Self::MTIME, "mtime"),
        (Self::XATTRS, "xattrs"),
        (Self::ACL, "acl"),
        (Self::FLAGS, "flags"),
        (Self::LINKS, "hard links"),
        (Self::HOLES, "holes"),
    ];

    /// No difference.
    pub const fn none() -> Self {
        Difference(0)
    }

    /// Whether nothing differs.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether kind or content differ; otherwise it is only metadata. Holes cannot be moved in place either.
    pub fn is_content(self) -> bool {
        self.has(Self::KIND) || self.has(Self::CONTENT) || self.has(Self::HOLES)
    }

    /// Whether `field` differs.
    pub fn has(self, field: Difference) -> bool {
        self.0 & field.0 != 0
    }

    /// Without `field`.
    #[must_use]
    pub fn minus(self, field: Difference) -> Difference {
        Difference(self.0 & !field.0)
    }

    /// Adds `field` when `differs`.
    pub fn set_if(&mut self, differs: bool, field: Difference) {
        if differs {
            self.0 |= field.0;
        }
    }

    /// Names of the differing fields.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(field, _)| self.has(*field)).map(|(_, name)| *name)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// The file type that `kind` has on disk.
pub fn file_type(kind: &InodeKind) -> FileType {
    match kind {
        InodeKind::Directory => FileType::Directory,
        InodeKind::File(_) => FileType::File,
        InodeKind::Symlink(_) => FileType::Symlink,
        InodeKind::Fifo => FileType::Fifo,
        InodeKind::CharDevice { .. } => FileType::CharDevice,
        InodeKind::BlockDevice { .. } => FileType::BlockDevice,
        InodeKind::Socket => FileType::Socket,
    }
}

/// Compares two complete inodes. A directory's mtime is not compared: any neighbour that adds a name changes it.
pub fn differences(a: &Inode, b: &Inode) -> Difference {
    let mut found = metadata_differences(a, b);
    match (&a.kind, &b.kind) {
        (InodeKind::File(a), InodeKind::File(b)) => {
            let same_bytes = a.size == b.size && a.hash == b.hash;
            found.set_if(!same_bytes, Difference::CONTENT);
            found.set_if(same_bytes && !same_holes(a, b), Difference::HOLES);
        }
        (a, b) => found.set_if(file_type(a) == file_type(b) && a != b, Difference::CONTENT),
    }
    found
}

/// Whether two files of equal bytes have their holes in the same places. Lists that are content themselves are compared
/// as they are: cut by one chunker, equal holes give equal lists.
fn same_holes(a: &FileContent, b: &FileContent) -> bool {
    let holes = |content: &FileContent| -> Option<Vec<(u64, u64)>> {
        let mut at = 0;
        let mut holes = Vec::new();
        match &content.chunks {
            ChunkList::Whole => {}
            ChunkList::Indirect { .. } => return None,
            ChunkList::Inline(runs) => {
                for run in runs {
                    let len = match run {
                        ChunkRun::Data { len, .. } => u64::from(*len),
                        ChunkRun::Hole { len } => {
                            holes.push((at, *len));
                            *len
                        }
                    };
                    at += len;
                }
            }
        }
        Some(holes)
    };
    a.chunks == b.chunks || holes(a).is_some_and(|found| Some(found) == holes(b))
}

/// Compares everything but content.
pub fn metadata_differences(a: &Inode, b: &Inode) -> Difference {
    let mut found = Difference::none();
    let kind = file_type(&a.kind);
    found.set_if(kind != file_type(&b.kind), Difference::KIND);
    // The permission bits of a symlink mean nothing and cannot be set.
    found.set_if(kind != FileType::Symlink && a.mode != b.mode, Difference::MODE);
    found.set_if((a.uid, a.gid) != (b.uid, b.gid), Difference::OWNER);
    found.set_if(kind != FileType::Directory && a.mtime != b.mtime, Difference::MTIME);
    found.set_if(a.xattrs != b.xattrs, Difference::XATTRS);
    found.set_if(a.acl != b.acl || a.default_acl != b.default_acl, Difference::ACL);
    found.set_if(a.flags != b.flags, Difference::FLAGS);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ChunkId, ContentHash};

    /// Two releases of one image had a file of zeros: with a hole in the first, stored in the second. A full checkout
    /// found the bytes equal and left the hole.
    #[test]
    fn equal_bytes_with_other_holes_differ() {
        let content = |runs| FileContent {
            size: 8192,
            hash: ContentHash::of(&[0; 8192]),
            chunks: ChunkList::Inline(runs),
            unstable: false,
        };
        let data = |len| ChunkRun::Data { id: ChunkId::of(b"x"), len };
        let hole = |len| ChunkRun::Hole { len };
        let first = content(vec![data(4096), hole(4096)]);
        assert!(same_holes(&first, &content(vec![data(2048), data(2048), hole(4096)])));
        assert!(!same_holes(&first, &content(vec![hole(4096), data(4096)])));
        assert!(!same_holes(&first, &content(vec![data(4096), data(4096)])));
        let whole = FileContent { chunks: ChunkList::Whole, ..content(Vec::new()) };
        assert!(same_holes(&whole, &content(vec![data(4096), data(4096)])));
        assert!(!same_holes(&whole, &first));
    }
}
