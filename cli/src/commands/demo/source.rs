// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which real files the demo uses, and which of them it changes. Reads only.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use evenkeel_store::fsio::{self, Dir, FileType};

use super::script::quote;
use crate::error::{CommandError, Result};
use crate::output::text;

/// What is copied at most.
const BYTES_MAX: u64 = 200 << 20;
/// Files that are copied at most.
const FILES_MAX: u64 = 30_000;
/// Deepest directory that is looked into.
const DEPTH_MAX: usize = 40;
/// Parts of a system that everybody may read, the most telling first.
const PARTS: &[&str] = &[
    "/usr/lib/python3",
    "/usr/lib/systemd",
    "/usr/share/perl",
    "/usr/share/zoneinfo",
    "/usr/share/bash-completion",
    "/usr/share/doc",
    "/usr/lib/git-core",
    "/usr/sbin",
    "/usr/bin",
    "/usr/share/man",
    "/usr/include",
    "/usr/share/locale",
];

/// Files and bytes of a tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    /// Regular files.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
}

/// Measures a tree. Directories that may not be read count as empty.
pub fn measure(root: &Path) -> Result<Size> {
    measure_up_to(root, Size { files: u64::MAX, bytes: u64::MAX })
}

/// As [`measure`], but stops counting once the tree is over `most`.
fn measure_up_to(root: &Path, most: Size) -> Result<Size> {
    let mut size = Size::default();
    let root = Dir::open(root)?;
    visit(&root, DEPTH_MAX, &mut |_, _, stat| {
        if stat.file_type == FileType::File {
            size.files += 1;
            size.bytes = size.bytes.saturating_add(stat.size);
        }
        size.files <= most.files && size.bytes <= most.bytes
    });
    Ok(size)
}

/// Calls `see` with everything below `dir`, sorted, until it says stop.
fn visit(dir: &Dir, depth: usize, see: &mut dyn FnMut(&Dir, &[u8], &fsio::Stat) -> bool) -> bool {
    for name in dir.names().unwrap_or_default() {
        let Ok(stat) = dir.stat(&name) else { continue };
        if !see(dir, &name, &stat) {
            return false;
        }
        let enters = stat.is_dir() && !stat.is_mount_root && depth > 0 && name != b".evenkeel";
        if enters
            && let Ok(below) = dir.open_dir(&name)
            && !visit(&below, depth - 1, see)
        {
            return false;
        }
    }
    true
}

/// A directory that the user names.
pub fn directory(dir: &Path) -> Result<PathBuf> {
    Dir::open(dir)?;
    std::path::absolute(dir).map_err(|e| CommandError::from(evenkeel_store::Error::io("find", dir, e)))
}

/// Directories of this machine that together are a telling tree of at most [`BYTES_MAX`].
pub fn parts_of_usr() -> Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    let mut room = Size { files: FILES_MAX, bytes: BYTES_MAX };
    for part in PARTS {
        let Ok(size) = measure_up_to(Path::new(part), room) else { continue };
        if size.files > 0 && size.files <= room.files && size.bytes <= room.bytes {
            room = Size { files: room.files - size.files, bytes: room.bytes - size.bytes };
            parts.push(PathBuf::from(part));
        }
    }
    if parts.is_empty() {
        return Err(
            CommandError::usage("no suitable files were found in /usr").hint("name a directory with --area DIR")
        );
    }
    Ok(parts)
}

/// What the story changes: paths relative to the tree.
#[derive(Debug)]
pub struct Changes {
    /// Is patched by the release.
    patched: PathBuf,
    /// Is edited on the remote.
    edited: PathBuf,
    /// A directory that is removed by the release.
    dropped: PathBuf,
    /// A directory that is copied by the release.
    copied: PathBuf,
}

/// Picks files and directories of the tree to play with.
///
/// # Errors
/// When the tree is too small.
pub fn choose_changes(tree: &Path) -> Result<Changes> {
    let mut files = Vec::new();
    let mut dirs: Vec<PathBuf> = Vec::new();
    let root = Dir::open(tree)?;
    visit(&root, DEPTH_MAX, &mut |dir, name, stat| {
        let path = dir.path_of(name);
        if let Ok(path) = path.strip_prefix(tree) {
            match stat.file_type {
                FileType::File if (1 << 10..1 << 20).contains(&stat.size) => files.push(path.to_path_buf()),
                FileType::Directory if is_small_leaf(dir, name) => dirs.push(path.to_path_buf()),
                _ => {}
            }
        }
        files.len() < 20_000
    });
    let too_small = || {
        CommandError::usage(format!("{} is too small a tree to show anything", text::path(tree)))
            .hint("name a directory with some dozens of files of more than 1 KiB in several directories")
    };
    let dropped = dirs.iter().find(|path| path.components().count() > 1).ok_or_else(too_small)?;
    let copied = dirs.iter().rev().find(|path| disjoint(path, dropped)).ok_or_else(too_small)?;
    let mut rest = files.into_iter().filter(|path| disjoint(path, dropped) && disjoint(path, copied));
    let (patched, edited) = rest.next().zip(rest.next()).ok_or_else(too_small)?;
    Ok(Changes { patched, edited, dropped: dropped.clone(), copied: copied.clone() })
}

/// Whether a directory holds 2 to 40 entries and no directory.
fn is_small_leaf(parent: &Dir, name: &[u8]) -> bool {
    let Ok(dir) = parent.open_dir(name) else { return false };
    let names = dir.names().unwrap_or_default();
    (2..=40).contains(&names.len()) && names.iter().all(|name| dir.stat(name).is_ok_and(|stat| !stat.is_dir()))
}

fn disjoint(a: &Path, b: &Path) -> bool {
    !a.starts_with(b) && !b.starts_with(a)
}

impl Changes {
    /// The release, as shell.
    pub fn release(&self) -> String {
        let new = sibling(&self.copied, ".new");
        format!(
            "echo '# security fix' >> {}\ncp -a {} {}\nrm -r {}",
            inside("master", &self.patched),
            inside("master", &self.copied),
            inside("master", &new),
            inside("master", &self.dropped),
        )
    }

    /// The stray file, as shell.
    pub fn stray(&self) -> String {
        let stray = self.patched.with_file_name("forgotten.tmp");
        format!("echo 'just testing' > {}", inside("remote", &stray))
    }

    /// The silent edit, as shell: same size, same time.
    pub fn drift(&self) -> String {
        let file = inside("remote", &self.edited);
        format!(
            "touch -r {file} time\nprintf 'BACKDOOR' | dd of={file} bs=8 seek=4 conv=notrunc status=none\n\
             touch -r time {file}"
        )
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(suffix.as_bytes());
    PathBuf::from(OsStr::from_bytes(&name))
}

fn inside(tree: &str, path: &Path) -> String {
    quote(&Path::new(tree).join(path))
}
