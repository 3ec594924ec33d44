// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The trees that are measured: given directories, or a part of this machine's own `/usr`.

use std::fs::Metadata;
use std::iter::Sum;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::shell::Cmd;

/// A part of `/usr` this large is taken when no corpus is given.
const SMALL_BYTES: u64 = 300 << 20;

/// Directories of `/usr` that most machines have, in the order in which they are taken.
const SMALL_PARTS: [&str; 8] = [
    "usr/sbin",
    "usr/include",
    "usr/share/perl",
    "usr/lib/python3",
    "usr/bin",
    "usr/share/doc",
    "usr/share",
    "usr/lib",
];

/// What a tree holds, counted once by its own walk.
#[derive(Clone, Copy, Default)]
pub struct Size {
    pub entries: u64,
    /// Sum of the apparent sizes of regular files; further names of an inode count again.
    pub bytes: u64,
}

impl Sum for Size {
    fn sum<I: Iterator<Item = Size>>(sizes: I) -> Size {
        sizes.fold(Size::default(), |a, b| Size { entries: a.entries + b.entries, bytes: a.bytes + b.bytes })
    }
}

/// Directories that together are one release of a tree.
pub struct Source {
    /// What the tree is called in reports; a path of this machine is of no use to a reader.
    label: String,
    /// Copied with their paths below the root, unless one of them is the whole tree.
    parts: Vec<PathBuf>,
    whole: bool,
    pub size: Size,
}

/// A release inside the image.
pub struct Release {
    pub label: String,
    pub root: PathBuf,
    pub size: Size,
}

/// Counts a tree without following links or entering other file systems.
pub fn size_of(root: &Path) -> Size {
    let mut size = Size::default();
    visit(root, &mut |_, meta| {
        size.entries += 1;
        if meta.is_file() {
            size.bytes += meta.len();
        }
    });
    size
}

/// Calls `see` for every entry below and including `root`; unreadable ones are passed over.
pub fn visit(root: &Path, see: &mut dyn FnMut(&Path, &Metadata)) {
    let Ok(meta) = root.symlink_metadata() else { return };
    see(root, &meta);
    if !meta.is_dir() {
        return;
    }
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        if entry.metadata().is_ok_and(|below| below.dev() == meta.dev()) {
            visit(&entry.path(), see);
        }
    }
}

/// The corpora given, or a part of `/usr`.
///
/// # Errors
/// One that is no directory.
pub fn sources(given: &[&str]) -> Result<Vec<Source>> {
    if given.is_empty() {
        return Ok(vec![part_of_usr()]);
    }
    let source = |dir: &&str| {
        let path = PathBuf::from(dir);
        if !path.is_dir() {
            return Err(format!("--corpus {dir}: no such directory"));
        }
        let label = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Source { label, size: size_of(&path), parts: vec![path], whole: true })
    };
    given.iter().map(source).collect()
}

fn part_of_usr() -> Source {
    let mut source =
        Source { label: "part of /usr".to_owned(), parts: Vec::new(), whole: false, size: Size::default() };
    for part in SMALL_PARTS.map(|part| Path::new("/").join(part)) {
        let known = source.parts.iter().any(|taken| taken.starts_with(&part));
        // A directory that holds an earlier one, or is far too large, would make it another kind of corpus.
        let size = if known { Size::default() } else { size_of(&part) };
        if size.bytes == 0 || size.bytes > SMALL_BYTES * 3 {
            continue;
        }
        source.parts.push(part);
        source.size = [source.size, size].into_iter().sum();
        if source.size.bytes >= SMALL_BYTES {
            break;
        }
    }
    source
}

/// Copies every source below `dir`, so that both sides read from the file system they write to.
///
/// # Errors
/// `cp` failed.
pub fn copy_into(sources: &[Source], dir: &Path) -> Result<Vec<Release>> {
    let copy = |(index, source): (usize, &Source)| {
        let root = dir.join(format!("v{}", index + 1));
        for part in &source.parts {
            let below = if source.whole { Path::new("") } else { part.strip_prefix("/").unwrap_or(part) };
            let target = root.join(below);
            std::fs::create_dir_all(&target).map_err(|error| format!("cannot make {}: {error}", target.display()))?;
            Cmd::new("cp").arg("-a").arg(part.join(".")).arg(target).run()?;
        }
        Ok(Release { label: source.label.clone(), size: size_of(&root), root })
    };
    sources.iter().enumerate().map(copy).collect()
}
