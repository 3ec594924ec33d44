// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entries of a manifest leaf (format-spec §40.5).

use std::collections::BTreeMap;

use super::node::read_path;
use super::{Acl, ChunkList, Entry, FileContent, Inode, InodeFlags, InodeKind, Node, Timestamp, chunk_list};
use crate::format::cbor::{Key, Keys, Reader, Writer, key_order};
use crate::format::fields::Fields;
use crate::format::{DecodeError, Reason};
use crate::id::ContentHash;
use crate::limits;
use crate::path::compare;

const OBJECT: &str = "manifest entry";
const SYMLINK_MODE: u16 = 0o777;
/// Attributes that stand for ACLs, which entries hold as lists.
const ACL_XATTRS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

mod kind {
    pub const DIRECTORY: u8 = 0;
    pub const FILE: u8 = 1;
    pub const SYMLINK: u8 = 2;
    pub const LINK: u8 = 3;
    pub const FIFO: u8 = 4;
    pub const CHAR_DEVICE: u8 = 5;
    pub const BLOCK_DEVICE: u8 = 6;
    pub const SOCKET: u8 = 7;
}

mod key {
    use super::Key;
    pub const PATH: Key = Key::Int(0, "path");
    pub const KIND: Key = Key::Int(1, "kind");
    pub const FIRST: Key = Key::Int(2, "first");
    pub const MODE: Key = Key::Int(3, "mode");
    pub const UID: Key = Key::Int(4, "uid");
    pub const GID: Key = Key::Int(5, "gid");
    pub const MTIME: Key = Key::Int(6, "mtime");
    pub const SIZE: Key = Key::Int(7, "size");
    pub const HASH: Key = Key::Int(8, "hash");
    pub const CHUNKS: Key = Key::Int(9, "chunks");
    pub const LIST_DEPTH: Key = Key::Int(10, "list-depth");
    pub const TARGET: Key = Key::Int(11, "target");
    pub const DEVICE: Key = Key::Int(12, "device");
    pub const LINKS: Key = Key::Int(13, "links");
    pub const XATTRS: Key = Key::Int(14, "xattrs");
    pub const ACL: Key = Key::Int(15, "acl");
    pub const DEFAULT_ACL: Key = Key::Int(16, "default-acl");
    pub const FLAGS: Key = Key::Int(17, "flags");
    pub const UNSTABLE: Key = Key::Int(18, "unstable");
}

impl Entry {
    /// Appends this entry's bytes, as they stand in a leaf.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        match &self.node {
            Node::Link { first } => {
                w.map(3).uint(0u8).bytes(self.path.as_bytes()).uint(1u8).uint(kind::LINK);
                w.uint(2u8).bytes(first.as_bytes());
            }
            Node::Inode(inode) => {
                w.map(inode.key_count()).uint(0u8).bytes(self.path.as_bytes());
                inode.write(&mut w);
            }
        }
    }

    /// Reads one entry from the front of `bytes`; also gives how many bytes it took.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode_prefix(bytes: &[u8]) -> Result<(Entry, usize), DecodeError> {
        let r = &mut Reader::new(OBJECT, bytes);
        let entry = Entry::read(r)?;
        Ok((entry, r.offset()))
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Entry, DecodeError> {
        let keys = &mut r.map("entry")?;
        r.required(keys, key::PATH)?;
        let path = read_path(r, "path")?;
        r.required(keys, key::KIND)?;
        let start = r.offset();
        let code = r.small("kind", 0, kind::SOCKET.into())?;
        let node = if code == kind::LINK {
            r.required(keys, key::FIRST)?;
            let first_at = r.offset();
            let first = read_path(r, "first")?;
            if first.is_root() || compare(first.as_bytes(), path.as_bytes()).is_ge() {
                return Err(r.error(first_at, "first", Reason::Rule("a link to a name that does not sort before it")));
            }
            Node::Link { first }
        } else {
            if path.is_root() && code != kind::DIRECTORY {
                return Err(r.error(start, "kind", Reason::Rule("the root is not a directory")));
            }
            Node::Inode(Inode::read(r, keys, code)?)
        };
        r.end(keys, "entry")?;
        Ok(Entry { path, node })
    }
}

/// The path of the entry at the front of `bytes`, without decoding the rest. For encoded entries that this program wrote itself.
///
/// # Errors
/// [`DecodeError`] when the bytes do not begin like an entry.
pub fn peek_path(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut r = Reader::new(OBJECT, bytes);
    let mut keys = r.map("entry")?;
    r.required(&mut keys, key::PATH)?;
    r.bytes("path", limits::PATH_BYTES_MAX)
}

impl Inode {
    fn key_count(&self) -> usize {
        let of_kind = match &self.kind {
            InodeKind::File(file) => {
                let of_list = match file.chunks {
                    ChunkList::Whole => 0,
                    ChunkList::Inline(_) => 1,
                    ChunkList::Indirect { .. } => 2,
                };
                1 + usize::from(file.size > 0) + of_list + usize::from(file.unstable)
            }
            InodeKind::Symlink(_) | InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } => 1,
            InodeKind::Directory | InodeKind::Fifo | InodeKind::Socket => 0,
        };
        let present = [
            self.links > 1,
            !self.xattrs.is_empty(),
            self.acl.is_some(),
            self.default_acl.is_some(),
            self.flags != InodeFlags::default(),
        ];
        6 + of_kind + present.into_iter().filter(|present| *present).count()
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.uint(1u8).uint(self.kind.code());
        w.uint(3u8).uint(self.mode).uint(4u8).uint(self.uid).uint(5u8).uint(self.gid).uint(6u8);
        self.mtime.write(w);
        self.kind.write(w);
        if self.links > 1 {
            w.uint(13u8).uint(self.links);
        }
        if !self.xattrs.is_empty() {
            w.uint(14u8);
            write_xattrs(w, &self.xattrs);
        }
        if let Some(acl) = &self.acl {
            acl.write(w.uint(15u8));
        }
        if let Some(acl) = &self.default_acl {
            acl.write(w.uint(16u8));
        }
        if self.flags != InodeFlags::default() {
            self.flags.write(w.uint(17u8));
        }
        if matches!(&self.kind, InodeKind::File(file) if file.unstable) {
            w.uint(18u8).bool(true);
        }
    }

    fn read(r: &mut Reader<'_>, keys: &mut Keys, code: u8) -> Result<Self, DecodeError> {
        r.required(keys, key::MODE)?;
        let start = r.offset();
        let mode = r.small("mode", 0, 0o7777)?;
        if code == kind::SYMLINK && mode != SYMLINK_MODE {
            return Err(r.error(start, "mode", Reason::Rule("the mode of a symlink is not 0777")));
        }
        r.required(keys, key::UID)?;
        let uid = r.small("uid", 0, u32::MAX.into())?;
        r.required(keys, key::GID)?;
        let gid = r.small("gid", 0, u32::MAX.into())?;
        r.required(keys, key::MTIME)?;
        let mtime = Timestamp::read(r, "mtime")?;
        let mut kind = InodeKind::read(r, keys, code)?;
        let is_directory = code == kind::DIRECTORY;
        let links = match !is_directory && r.optional(keys, key::LINKS) {
            true => r.small("links", 2, u32::MAX.into())?,
            false => 1,
        };
        let xattrs = if r.optional(keys, key::XATTRS) { read_xattrs(r)? } else { BTreeMap::new() };
        let acl = match code != kind::SYMLINK && r.optional(keys, key::ACL) {
            true => Some(read_access_acl(r)?),
            false => None,
        };
        let default_acl = match is_directory && r.optional(keys, key::DEFAULT_ACL) {
            true => Some(Acl::read(r, "default-acl")?),
            false => None,
        };
        let flags = if r.optional(keys, key::FLAGS) { InodeFlags::read(r)? } else { InodeFlags::default() };
        if let InodeKind::File(file) = &mut kind {
            file.unstable = r.optional(keys, key::UNSTABLE);
            let start = r.offset();
            if file.unstable && !r.bool("unstable")? {
                return Err(r.error(start, "unstable", Reason::Canonical("`false` is left out")));
            }
        }
        Ok(Inode { kind, mode, uid, gid, mtime, links, xattrs, acl, default_acl, flags })
    }
}

fn read_access_acl(r: &mut Reader<'_>) -> Result<Acl, DecodeError> {
    let start = r.offset();
    let acl = Acl::read(r, "acl")?;
    if !acl.is_extended() {
        return Err(r.error(start, "acl", Reason::Canonical("an access list that says what the mode says")));
    }
    Ok(acl)
}

impl InodeKind {
    fn code(&self) -> u8 {
        match self {
            InodeKind::Directory => kind::DIRECTORY,
            InodeKind::File(_) => kind::FILE,
            InodeKind::Symlink(_) => kind::SYMLINK,
            InodeKind::Fifo => kind::FIFO,
            InodeKind::CharDevice { .. } => kind::CHAR_DEVICE,
            InodeKind::BlockDevice { .. } => kind::BLOCK_DEVICE,
            InodeKind::Socket => kind::SOCKET,
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        match self {
            InodeKind::File(file) => file.write(w),
            InodeKind::Symlink(target) => {
                w.uint(11u8).bytes(target);
            }
            InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
                w.uint(12u8).array(2).uint(*major).uint(*minor);
            }
            InodeKind::Directory | InodeKind::Fifo | InodeKind::Socket => {}
        }
    }

    fn read(r: &mut Reader<'_>, keys: &mut Keys, code: u8) -> Result<Self, DecodeError> {
        Ok(match code {
            kind::FILE => InodeKind::File(FileContent::read(r, keys)?),
            kind::SYMLINK => InodeKind::Symlink(read_target(r, keys)?),
            kind::FIFO => InodeKind::Fifo,
            kind::CHAR_DEVICE | kind::BLOCK_DEVICE => {
                r.required(keys, key::DEVICE)?;
                r.tuple("device", 2)?;
                let major = r.small("device", 0, u32::MAX.into())?;
                let minor = r.small("device", 0, u32::MAX.into())?;
                match code {
                    kind::CHAR_DEVICE => InodeKind::CharDevice { major, minor },
                    _ => InodeKind::BlockDevice { major, minor },
                }
            }
            kind::SOCKET => InodeKind::Socket,
            _ => InodeKind::Directory,
        })
    }
}

fn read_target(r: &mut Reader<'_>, keys: &mut Keys) -> Result<Vec<u8>, DecodeError> {
    r.required(keys, key::TARGET)?;
    let start = r.offset();
    let target = r.bytes("target", limits::SYMLINK_BYTES_MAX)?;
    if target.is_empty() || target.contains(&0) {
        return Err(r.error(start, "target", Reason::Rule("a symlink's target is empty or holds a NUL byte")));
    }
    Ok(target.to_vec())
}

impl FileContent {
    fn write(&self, w: &mut Writer<'_>) {
        w.uint(7u8).uint(self.size);
        if self.size > 0 {
            w.uint(8u8).bytes(&self.hash.0);
        }
        match &self.chunks {
            ChunkList::Whole => {}
            ChunkList::Inline(runs) => {
                w.uint(9u8).bytes(&chunk_list::encode_chunk_list(runs));
            }
            ChunkList::Indirect { depth, runs } => {
                w.uint(9u8).bytes(&chunk_list::encode_chunk_list(runs)).uint(10u8).uint(*depth);
            }
        }
    }

    fn read(r: &mut Reader<'_>, keys: &mut Keys) -> Result<Self, DecodeError> {
        r.required(keys, key::SIZE)?;
        let size_at = r.offset();
        let size = r.uint("size")?;
        if size > limits::FILE_BYTES_MAX {
            let reason = Reason::Limit { found: size, limit: limits::FILE_BYTES_MAX };
            return Err(r.error(size_at, "size", reason));
        }
        if size == 0 {
            return Ok(FileContent { size, hash: ContentHash::of(&[]), chunks: ChunkList::Whole, unstable: false });
        }
        r.required(keys, key::HASH)?;
        let hash = ContentHash(r.array("hash")?);
        let chunks = match r.optional(keys, key::CHUNKS) {
            true => read_chunks(r, keys, size)?,
            false if size <= limits::CHUNK_BYTES_MAX.into() => ChunkList::Whole,
            false => {
                return Err(r.error(size_at, "size", Reason::Rule("a file of one chunk that is too long for one")));
            }
        };
        Ok(FileContent { size, hash, chunks, unstable: false })
    }
}

fn read_chunks(r: &mut Reader<'_>, keys: &mut Keys, size: u64) -> Result<ChunkList, DecodeError> {
    let start = r.offset();
    let bytes = r.bytes("chunks", limits::NODE_BYTES_MAX as usize)?;
    let base = r.offset() - bytes.len();
    let depth = match r.optional(keys, key::LIST_DEPTH) {
        true => Some(r.small("list-depth", 1, limits::CHUNK_LIST_DEPTH_MAX.into())?),
        false => None,
    };
    let f = Fields { object: OBJECT, base: base as u64, bytes };
    chunk_list::decode_entry_list(&f, size, depth).map_err(|error| {
        let offset = usize::try_from(error.offset).unwrap_or(start);
        r.error(offset, error.field, error.reason)
    })
}

fn write_xattrs(w: &mut Writer<'_>, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) {
    w.map(xattrs.len());
    // The common case needs no sorting.
    if xattrs.len() == 1 {
        for (name, value) in xattrs {
            w.bytes(name).bytes(value);
        }
        return;
    }
    let mut sorted: Vec<_> = xattrs.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| key_order(a, b));
    for (name, value) in sorted {
        w.bytes(name).bytes(value);
    }
}

fn read_xattrs(r: &mut Reader<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, DecodeError> {
    let start = r.offset();
    let count = r.map_len("xattrs", limits::XATTRS_MAX)?;
    if count == 0 {
        return Err(r.error(start, "xattrs", Reason::Canonical("empty map")));
    }
    let mut xattrs = BTreeMap::new();
    let (mut last, mut total) = ((0, 0), 0usize);
    for _ in 0..count {
        let start = r.offset();
        let name = r.bytes("xattrs", limits::NAME_BYTES_MAX)?;
        r.ascending(&mut last, start, "xattrs")?;
        if name.is_empty() || name.contains(&0) || ACL_XATTRS.contains(&name) {
            return Err(r.error(start, "xattrs", Reason::Rule("not a name of an extended attribute")));
        }
        let value = r.bytes("xattrs", limits::XATTR_VALUE_BYTES_MAX)?;
        total += name.len() + value.len();
        if total > limits::XATTR_TOTAL_BYTES_MAX {
            let (found, limit) = (total as u64, limits::XATTR_TOTAL_BYTES_MAX as u64);
            return Err(r.error(start, "xattrs", Reason::Limit { found, limit }));
        }
        xattrs.insert(name.to_vec(), value.to_vec());
    }
    Ok(xattrs)
}
