// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What differs between two inodes, field by field.
//!
//! Invariant: pure. Hard-link structure is not compared here; `links` counts for nothing.

use std::fmt;

use crate::format::manifest::{Inode, InodeKind};
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

    const NAMES: [(Difference, &'static str); 9] = [
        (Self::KIND, "type"),
        (Self::CONTENT, "content"),
        (Self::MODE, "mode"),
        (Self::OWNER, "owner"),
        (Self::MTIME, "mtime"),
        (Self::XATTRS, "xattrs"),
        (Self::ACL, "acl"),
        (Self::FLAGS, "flags"),
        (Self::LINKS, "hard links"),
    ];

    /// No difference.
    pub const fn none() -> Self {
        Difference(0)
    }

    /// Whether nothing differs.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether kind or content differ; otherwise it is only metadata.
    pub fn is_content(self) -> bool {
        self.has(Self::KIND) || self.has(Self::CONTENT)
    }

    /// Whether `field` differs.
    pub fn has(self, field: Difference) -> bool {
        self.0 & field.0 != 0
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
            found.set_if(a.size != b.size || a.hash != b.hash, Difference::CONTENT);
        }
        (a, b) => found.set_if(file_type(a) == file_type(b) && a != b, Difference::CONTENT),
    }
    found
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
