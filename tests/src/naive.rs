// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a live tree in the simplest way there is, and a snapshot in the most pedestrian one; both give the same type.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use evenkeel_store::Store;
use evenkeel_store::format::manifest::{ChunkRun, Entry, FileContent, InodeKind, Node};
use evenkeel_store::format::snapshot::Snapshot;
use evenkeel_store::fsio::{ACL_ACCESS, ACL_DEFAULT, encode_acl};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::manifest::{Manifest, content_runs};
use evenkeel_store::read::{ChunkReader, ReadScratch};
use rustix::fs::SeekFrom;

/// Granularity of holes.
const ALIGN: u64 = 4096;

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    /// ACLs among them, as the kernel encodes them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// First name of the hard-link group; `None` for a single name.
    pub group: Option<Vec<u8>>,
}

/// What kind of thing, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Dir,
    /// Size, hash, and data runs rounded outward.
    File(u64, [u8; 32], Vec<(u64, u64)>),
    Symlink(Vec<u8>),
    Fifo,
    Device(u32, u32),
    Other,
}

/// Everything below `root` by relative path; the root itself has the empty one. `.evenkeel` at the root is left out.
pub fn read_tree(root: &Path) -> BTreeMap<Vec<u8>, Item> {
    let mut found = BTreeMap::new();
    visit(root, Vec::new(), &mut found);
    let mut names: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    for (path, (_, inode)) in &found {
        names.entry(*inode).or_default().push(path.clone());
    }
    let first = |path: &[u8], inode| -> Option<Vec<u8>> {
        let mut names = names[inode].clone();
        names.sort_by_key(|name| by_components(name));
        let is_dir = matches!(found[path].0.kind, Kind::Dir);
        (names.len() > 1 && !is_dir).then(|| names[0].clone())
    };
    found
        .iter()
        .map(|(path, (item, inode))| (path.clone(), Item { group: first(path, inode), ..item.clone() }))
        .collect()
}

/// The order of manifests: by components.
fn by_components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect()
}

fn visit(path: &Path, relative: Vec<u8>, found: &mut BTreeMap<Vec<u8>, (Item, (u64, u64))>) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let kind = match meta.file_type() {
        kind if kind.is_dir() => Kind::Dir,
        kind if kind.is_symlink() => Kind::Symlink(std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
        kind if kind.is_file() => {
            let hash = *blake3::hash(&std::fs::read(path).unwrap()).as_bytes();
            Kind::File(meta.len(), hash, data_runs(path, meta.len()))
        }
        kind if std::os::unix::fs::FileTypeExt::is_fifo(&kind) => Kind::Fifo,
        kind if std::os::unix::fs::FileTypeExt::is_char_device(&kind) => {
            Kind::Device(rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
        }
        _ => Kind::Other,
    };
    let item = Item {
        mode: if matches!(kind, Kind::Symlink(_)) { 0o777 } else { meta.mode() & 0o7777 },
        kind,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: (meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap()),
        xattrs: xattrs(path),
        group: None,
    };
    let is_dir = matches!(item.kind, Kind::Dir);
    found.insert(relative.clone(), (item, (meta.dev(), meta.ino())));
    if !is_dir {
        return;
    }
    for child in std::fs::read_dir(path).unwrap() {
        let name = child.unwrap().file_name();
        if relative.is_empty() && name == ".evenkeel" {
            continue;
        }
        let mut below = relative.clone();
        if !below.is_empty() {
            below.push(b'/');
        }
        below.extend(name.as_bytes());
        visit(&path.join(&name), below, found);
    }
}

fn data_runs(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = std::fs::File::open(path).unwrap();
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(start)).unwrap();
        runs.push((start, end));
        at = end;
    }
    outward(&runs, size)
}

/// Data runs grown to the granularity of holes, and joined where they meet.
fn outward(runs: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
    if size < ALIGN {
        return if size == 0 { Vec::new() } else { vec![(0, size)] };
    }
    let mut grown: Vec<(u64, u64)> = Vec::new();
    for (start, end) in runs {
        let (start, end) = (start / ALIGN * ALIGN, end.next_multiple_of(ALIGN).min(size));
        match grown.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => grown.push((start, end)),
        }
    }
    grown
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for name in names[..len].split(|b| *b == 0).filter(|name| !name.is_empty() && *name != b"security.selinux") {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    found
}

/// A snapshot's area as the same type, every chunk read and every hash compared.
///
/// # Errors
/// The first thing that cannot be read.
pub fn read_snapshot(
    store: &Store,
    snapshot: &Snapshot,
    area: &str,
) -> evenkeel_store::Result<BTreeMap<Vec<u8>, Item>> {
    let reader = store.reader()?;
    let area = snapshot.area(area).expect("the test names an area that there is");
    let mut found: BTreeMap<Vec<u8>, Item> = BTreeMap::new();
    for entry in Manifest::open(&reader, area)?.entries() {
        let entry = entry?;
        let path = entry.path.as_bytes().to_vec();
        let item = match &entry.node {
            Node::Link { first } => Item {
                group: Some(first.as_bytes().to_vec()),
                ..found.get(first.as_bytes()).expect("a first name comes first").clone()
            },
            Node::Inode(_) => item_of(&reader, &entry)?,
        };
        found.insert(path, item);
    }
    Ok(found)
}

fn item_of(reader: &ChunkReader, entry: &Entry) -> evenkeel_store::Result<Item> {
    let Node::Inode(inode) = &entry.node else { unreachable!("the caller looked") };
    let kind = match &inode.kind {
        InodeKind::Directory => Kind::Dir,
        InodeKind::File(content) => {
            let (bytes, runs) = read_content(reader, content)?;
            let hash = *blake3::hash(&bytes).as_bytes();
            assert_eq!(hash, *content.hash.as_bytes(), "the whole-file hash of {}", entry.path);
            assert_eq!(bytes.len() as u64, content.size, "the size of {}", entry.path);
            Kind::File(content.size, hash, runs)
        }
        InodeKind::Symlink(target) => Kind::Symlink(target.clone()),
        InodeKind::Fifo => Kind::Fifo,
        InodeKind::CharDevice { major, minor } => Kind::Device(*major, *minor),
        InodeKind::BlockDevice { .. } | InodeKind::Socket => Kind::Other,
    };
    let mut xattrs = inode.xattrs.clone();
    xattrs.extend(inode.acl.as_ref().map(|acl| (ACL_ACCESS.to_vec(), encode_acl(acl))));
    xattrs.extend(inode.default_acl.as_ref().map(|acl| (ACL_DEFAULT.to_vec(), encode_acl(acl))));
    Ok(Item {
        kind,
        mode: inode.mode.into(),
        uid: inode.uid,
        gid: inode.gid,
        mtime: (inode.mtime.secs, inode.mtime.nanos),
        xattrs,
        group: (inode.links > 1).then(|| entry.path.as_bytes().to_vec()),
    })
}

/// Where a file has data: start and end of each run, in bytes.
pub type DataRuns = Vec<(u64, u64)>;

/// A file's bytes, holes as zeros, and its data runs.
///
/// # Errors
/// The first chunk that cannot be read.
pub fn read_content(reader: &ChunkReader, content: &FileContent) -> evenkeel_store::Result<(Vec<u8>, DataRuns)> {
    let mut scratch = ReadScratch::default();
    let mut bytes: Vec<u8> = Vec::new();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for run in content_runs(reader, content)? {
        let start = bytes.len() as u64;
        match run {
            ChunkRun::Hole { len } => bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 0),
            ChunkRun::Data { id, len } => {
                let chunk = reader.read(&id, &mut scratch)?;
                assert_eq!(chunk.plain().len() as u64, u64::from(len));
                bytes.extend_from_slice(chunk.plain());
                let end = bytes.len() as u64;
                match runs.last_mut() {
                    Some(last) if last.1 == start => last.1 = end,
                    _ => runs.push((start, end)),
                }
            }
        }
    }
    Ok((bytes, runs))
}

/// Reads every area of a snapshot whole; for damage tests that only ask whether it can be had.
///
/// # Errors
/// The first thing that cannot be read.
pub fn read_everything(store: &Store, id: &SnapshotId) -> evenkeel_store::Result<BTreeMap<Vec<u8>, Item>> {
    let snapshot = store.snapshot(id)?;
    let mut all = BTreeMap::new();
    for area in &snapshot.areas {
        for (path, item) in read_snapshot(store, &snapshot, &area.name)? {
            all.insert([area.name.as_bytes(), b":", &path].concat(), item);
        }
    }
    Ok(all)
}
