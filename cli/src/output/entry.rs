// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One entry of a manifest, for people and for programs.

use std::collections::BTreeMap;

use evenkeel_store::format::manifest::{Entry, Inode, InodeKind, ManifestHead, Node};
use evenkeel_store::id::encode_hex;
use evenkeel_store::path::{TreePath, escape};
use serde::Serialize;

use super::json::{self, PathField};
use super::text::{self, Paint, kind_name, mode};

/// An entry's inode, and the name that a hard-link group goes by when this is a further name.
pub struct Resolved<'e> {
    /// Where it is.
    pub path: &'e TreePath,
    /// What is there.
    pub inode: &'e Inode,
    /// First name of the hard-link group.
    pub first: Option<&'e TreePath>,
}

/// An entry as `ls`, `diff` and `find` describe it.
#[derive(Serialize)]
pub struct EntryFields {
    #[serde(flatten)]
    path: PathField,
    kind: &'static str,
    /// Four octal digits.
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    mtime: String,
    links: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blake3: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<PathField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<PathField>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    acl: bool,
}

impl EntryFields {
    /// The fields of an entry; owners' names come from its manifest's head.
    pub fn new(entry: &Resolved<'_>, head: &ManifestHead) -> Self {
        let inode = entry.inode;
        let name = |table: &BTreeMap<u32, Vec<u8>>, id| table.get(&id).map(|n| String::from_utf8_lossy(n).into_owned());
        EntryFields {
            path: PathField::new(entry.path.as_bytes()),
            kind: kind_name(&inode.kind),
            mode: format!("{:04o}", inode.mode),
            uid: inode.uid,
            gid: inode.gid,
            user: name(&head.users, inode.uid),
            group: name(&head.groups, inode.gid),
            mtime: json::time(inode.mtime),
            links: inode.links,
            size: size(inode),
            blake3: match &inode.kind {
                InodeKind::File(content) => Some(content.hash.to_hex()),
                _ => None,
            },
            target: match &inode.kind {
                InodeKind::Symlink(target) => Some(PathField::new(target)),
                _ => None,
            },
            device: device(&inode.kind).map(|(major, minor)| format!("{major}:{minor}")),
            first_name: entry.first.map(|path| PathField::new(path.as_bytes())),
            xattrs: inode
                .xattrs
                .iter()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), encode_hex(value)))
                .collect(),
            flags: inode.flags.names().collect(),
            acl: inode.acl.is_some() || inode.default_acl.is_some(),
        }
    }
}

/// The cells of one line of `ls -l`: mode, links, owner, group, size, time. The name follows.
pub fn long_cells(entry: &Resolved<'_>, head: &ManifestHead) -> Vec<String> {
    let inode = entry.inode;
    let name = |table: &BTreeMap<u32, Vec<u8>>, id: u32| table.get(&id).map_or_else(|| id.to_string(), |n| escape(n));
    let size = match device(&inode.kind) {
        Some((major, minor)) => format!("{major}, {minor}"),
        None => length(inode).to_string(),
    };
    let plus = if inode.acl.is_some() || inode.default_acl.is_some() { "+" } else { "" };
    vec![
        format!("{}{plus}", mode(&inode.kind, inode.mode)),
        inode.links.to_string(),
        name(&head.users, inode.uid),
        name(&head.groups, inode.gid),
        size,
        text::minute(inode.mtime),
    ]
}

/// Which of [`long_cells`] align right.
pub const LONG_RIGHT: [bool; 6] = [false, true, false, false, true, false];

/// The name as `ls` colours it.
pub fn name(inode: &Inode, shown: &[u8], paint: Paint) -> String {
    let shown = if shown.is_empty() { ".".to_owned() } else { escape(shown) };
    match &inode.kind {
        InodeKind::Directory => paint.directory(shown),
        InodeKind::Symlink(_) => paint.symlink(shown),
        InodeKind::File(_) if inode.mode & 0o111 != 0 => paint.good(shown),
        InodeKind::File(_) => shown,
        _ => paint.changed(shown),
    }
}

/// ` -> target` for a symlink.
pub fn arrow(inode: &Inode) -> String {
    match &inode.kind {
        InodeKind::Symlink(target) => format!(" -> {}", escape(target)),
        _ => String::new(),
    }
}

/// Apparent size of a file, or nothing for what has none.
pub fn size(inode: &Inode) -> Option<u64> {
    match &inode.kind {
        InodeKind::File(content) => Some(content.size),
        _ => None,
    }
}

/// What `ls -l` shows as size: a symlink has its target's length.
fn length(inode: &Inode) -> u64 {
    match &inode.kind {
        InodeKind::Symlink(target) => target.len() as u64,
        _ => size(inode).unwrap_or(0),
    }
}

fn device(kind: &InodeKind) -> Option<(u32, u32)> {
    match kind {
        InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => Some((*major, *minor)),
        _ => None,
    }
}

/// What differs between two entries of one path, as words: `content`, `mode`, `owner`, … Empty when nothing does.
pub fn differences(before: &Entry, after: &Entry) -> Vec<String> {
    let (before, after) = match (&before.node, &after.node) {
        (Node::Inode(before), Node::Inode(after)) => (before, after),
        (Node::Link { first: before }, Node::Link { first: after }) if before == after => return Vec::new(),
        _ => return vec!["hard link".into()],
    };
    let mut found = Vec::new();
    match (&before.kind, &after.kind) {
        (InodeKind::File(a), InodeKind::File(b)) if a.hash != b.hash || a.size != b.size => {
            found.push("content".into())
        }
        (InodeKind::File(a), InodeKind::File(b)) if a.chunks != b.chunks => found.push("holes".into()),
        (InodeKind::Symlink(a), InodeKind::Symlink(b)) if a != b => {
            found.push(format!("target {} → {}", escape(a), escape(b)));
        }
        (a, b) if device(a) != device(b) => found.push("device".into()),
        _ => {}
    }
    if before.mode != after.mode {
        found.push(format!("mode {:04o} → {:04o}", before.mode, after.mode));
    }
    if (before.uid, before.gid) != (after.uid, after.gid) {
        found.push(format!("owner {}:{} → {}:{}", before.uid, before.gid, after.uid, after.gid));
    }
    if before.xattrs != after.xattrs {
        found.push("xattrs".into());
    }
    if before.acl != after.acl || before.default_acl != after.default_acl {
        found.push("ACL".into());
    }
    if before.flags != after.flags {
        found.push("flags".into());
    }
    if before.links != after.links {
        found.push(format!("links {} → {}", before.links, after.links));
    }
    if before.mtime != after.mtime {
        found.push("time".into());
    }
    found
}
