// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manifests: head, nodes and entries (format-spec §40).
//!
//! The types are here, their codecs in the submodules.

mod acl;
mod chunk_list;
mod entry;
mod head;
mod node;
mod structure;

use std::collections::BTreeMap;

pub use chunk_list::{RunDecoder, decode_chunk_list, encode_chunk_list};
pub use entry::peek_path;
pub use node::{boundary_zeros, encode_inner, encode_leaf};
pub use structure::StructureCheck;

use crate::id::{ChunkId, ContentHash};
use crate::path::TreePath;

/// A point in time: seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// One run of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkRun {
    /// A chunk and its plain length.
    Data {
        /// Name.
        id: ChunkId,
        /// Plain bytes, 1 to [`crate::limits::CHUNK_BYTES_MAX`].
        len: u32,
    },
    /// Zeros that the master's file system did not store.
    Hole {
        /// Bytes.
        len: u64,
    },
}

/// How a file's content is made of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkList {
    /// No bytes, or one chunk that is named by the whole file's hash.
    Whole,
    /// At most [`crate::limits::CHUNK_LIST_INLINE_MAX`] runs.
    Inline(Vec<ChunkRun>),
    /// The packed list is itself content, `depth` times over; `runs` lists its chunks (no holes).
    Indirect {
        /// 1 to [`crate::limits::CHUNK_LIST_DEPTH_MAX`].
        depth: u8,
        /// Chunks of the packed list of the next depth.
        runs: Vec<ChunkRun>,
    },
}

/// A regular file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Apparent size.
    pub size: u64,
    /// Hash of the whole content, holes as zeros. For the empty file the hash of nothing.
    pub hash: ContentHash,
    /// Where the bytes are.
    pub chunks: ChunkList,
    /// The file changed while it was read.
    pub unstable: bool,
}

/// What kind of thing an inode is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(FileContent),
    /// A symbolic link and its target's bytes.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A socket.
    Socket,
}

/// One entry of a POSIX access control list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ace {
    /// Whom it concerns.
    pub tag: AceTag,
    /// 0 to 7: read 4, write 2, execute 1.
    pub perm: u8,
}

/// Whom an [`Ace`] concerns; ordered as the kernel orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AceTag {
    /// The owner (tag 1).
    UserObj,
    /// A user (tag 2).
    User(u32),
    /// The owning group (tag 4).
    GroupObj,
    /// A group (tag 8).
    Group(u32),
    /// The most that named users and groups get (tag 16).
    Mask,
    /// Everybody else (tag 32).
    Other,
}

/// A valid access control list: sorted, complete, with a mask when there are named entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl(pub Vec<Ace>);

/// Inode flags by portable name, as a set of bits (format-spec §40.5). The bits are this program's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InodeFlags(pub u16);

impl InodeFlags {
    /// Names in bit order, which is also their sorted order on disk.
    pub const NAMES: [&'static str; 10] =
        ["append", "compress", "dirsync", "immutable", "noatime", "nocow", "nodump", "projinherit", "sync", "topdir"];

    /// The set flags' names, sorted.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name)
    }

    /// The flag of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|n| *n == name).map(|bit| InodeFlags(1 << bit))
    }

    /// Both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        InodeFlags(self.0 | other.0)
    }
}

/// Everything that checkout restores of one inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Kind and what only that kind has.
    pub kind: InodeKind,
    /// Permission bits, 0 to 0o7777. 0o777 for a symlink.
    pub mode: u16,
    /// Owner on the master.
    pub uid: u32,
    /// Group on the master.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Names of this inode in the area: 1, or more on the first member of a hard-link group.
    pub links: u32,
    /// Extended attributes, POSIX ACLs not among them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Access ACL, when it says more than the mode.
    pub acl: Option<Acl>,
    /// Default ACL of a directory.
    pub default_acl: Option<Acl>,
    /// Inode flags.
    pub flags: InodeFlags,
}

impl Inode {
    /// Whether it is a file that gives who runs it rights of others: by set-id bits or capabilities.
    pub fn gives_rights(&self) -> bool {
        const SET_ID: u16 = 0o6000;
        let is_file = matches!(self.kind, InodeKind::File(_));
        is_file && (self.mode & SET_ID != 0 || self.xattrs.contains_key(&b"security.capability"[..]))
    }
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// An inode, at its first or only name.
    Inode(Inode),
    /// A further name of the inode whose first name is `first`.
    Link {
        /// Sorts before this entry.
        first: TreePath,
    },
}

/// One path of an area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the area's root.
    pub path: TreePath,
    /// What is there.
    pub node: Node,
}

/// The manifest head (format-spec §40.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Chunk id of the root node.
    pub root: ChunkId,
    /// Its plain length.
    pub root_len: u32,
    /// Its level; 0 = a leaf.
    pub level: u8,
    /// Entries of the whole manifest.
    pub entries: u64,
    /// Names of user ids that occur, where the master had one.
    pub users: BTreeMap<u32, Vec<u8>>,
    /// Names of group ids that occur, where the master had one.
    pub groups: BTreeMap<u32, Vec<u8>>,
}

/// A child of an inner node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Path of its first entry.
    pub first: TreePath,
    /// Chunk id.
    pub id: ChunkId,
    /// Plain length of the node.
    pub len: u32,
    /// Entries below it.
    pub entries: u64,
}

/// A decoded manifest node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestNode {
    /// Level 0.
    Leaf(Vec<Entry>),
    /// Level 1 to [`crate::limits::MANIFEST_LEVEL_MAX`].
    Inner {
        /// Its level.
        level: u8,
        /// Sorted by first path.
        children: Vec<Child>,
    },
}
