// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything that is in a tree at one moment, whatever the area's rules say.

use std::cmp::Ordering;
use std::io;
use std::os::fd::AsFd;

use crate::area::PRIVATE_DIR;
use crate::checkout::chain::DirChain;
use crate::checkout::journal::Was;
use crate::error::{Error, Result};
use crate::fsio::{CAPABILITIES, Dir, FdAttrs, FileType, Stat};
use crate::in_use::Inodes;
use crate::path::TreePath;
use crate::progress::Progress;

/// Paths and what `statx` says of them, sorted; the root first, `.evenkeel` in it left out.
#[derive(Debug)]
pub(in crate::checkout) struct Image {
    entries: Vec<(TreePath, Stat)>,
}

impl Image {
    /// Looks at everything below `root`.
    ///
    /// # Errors
    /// The first failure; [`Error::Unstable`] when something goes away meanwhile.
    pub(in crate::checkout) fn of(root: &Dir, progress: &Progress) -> Result<Image> {
        progress.start("looking at the whole tree", 0, 0);
        let failed = |e| Error::io("look at", root.path(), e);
        let mut entries = vec![(TreePath::root(), root.stat(b"").map_err(failed)?)];
        let mut stack = vec![(TreePath::root(), root.try_clone().map_err(failed)?, root.names().map_err(failed)?)];
        stack[0].2.retain(|name| name != PRIVATE_DIR);
        // Popped from the end.
        stack[0].2.reverse();
        while let Some((path, dir, names)) = stack.last_mut() {
            let Some(name) = names.pop() else {
                stack.pop();
                continue;
            };
            progress.check_cancelled()?;
            progress.advance(1, 0);
            let failed = |e: io::Error| match e.kind() {
                io::ErrorKind::NotFound => Error::Unstable { paths: vec![dir.path_of(&name)] },
                _ => Error::io("look at", dir.path_of(&name), e),
            };
            let path = path.join(&name).map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
            let stat = dir.stat(&name).map_err(failed)?;
            entries.push((path.clone(), stat));
            if stat.is_dir() {
                let dir = dir.open_dir(&name).map_err(failed)?;
                let mut names = dir.names().map_err(failed)?;
                names.reverse();
                stack.push((path, dir, names));
            }
        }
        Ok(Image { entries })
    }

    pub(in crate::checkout) fn iter(&self) -> impl Iterator<Item = &(TreePath, Stat)> {
        self.entries.iter()
    }

    pub(super) fn get(&self, path: &TreePath) -> Option<&Stat> {
        let at = self.entries.binary_search_by(|(known, _)| known.cmp(path)).ok()?;
        Some(&self.entries[at].1)
    }

    /// Bytes of its files.
    pub(in crate::checkout) fn bytes(&self) -> u64 {
        let files = self.entries.iter().filter(|(_, stat)| stat.file_type == FileType::File);
        files.fold(0, |sum, (_, stat)| sum.saturating_add(stat.size))
    }

    /// Paths below the root that are other in `later`, or only in one of them.
    pub(in crate::checkout) fn changed_in(&self, later: &Image) -> Vec<TreePath> {
        let (mut before, mut after) = (self.entries[1..].iter().peekable(), later.entries[1..].iter().peekable());
        let mut changed = Vec::new();
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return changed,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let (old, new) = (before.next_if(|_| order.is_le()), after.next_if(|_| order.is_ge()));
            let same = matches!((old, new), (Some((_, a)), Some((_, b))) if a.same_content_as(b));
            changed.extend((!same).then(|| old.or(new)).flatten().map(|(path, _)| path.clone()));
        }
    }
}

/// Everything in it by inode.
pub(in crate::checkout) fn inodes_of(image: &Image) -> Inodes {
    let mut inodes = Inodes::new();
    for (path, stat) in image.iter() {
        inodes.entry((stat.dev, stat.ino)).or_insert_with(|| path.clone());
    }
    inodes
}

/// The root of a tree, with everything in it that gives rights.
///
/// # Errors
/// [`Error::Io`].
pub(in crate::checkout) fn rights_of(image: &Image, root: &Dir) -> Result<Was> {
    const EXECUTABLE: u16 = 0o111;
    let mut chain = DirChain::new(root);
    let mut capabilities = |path: &TreePath| -> io::Result<Option<Vec<u8>>> {
        let (dir, name) = chain.parent(path.as_bytes())?;
        FdAttrs(dir.open_file(name)?.as_fd()).xattr(CAPABILITIES)
    };
    let mut all = Was::of(&image.entries[0].1);
    for (path, stat) in image.entries.iter().filter(|(_, stat)| stat.file_type == FileType::File) {
        let caps = if stat.mode & EXECUTABLE == 0 {
            None
        } else {
            match capabilities(path) {
                // Whoever is not root can neither read what is not theirs nor have made capabilities.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
                caps => caps.map_err(|e| Error::io("read", root.path_of(path.as_bytes()), e))?,
            }
        };
        let was = Was { caps, ..Was::of(stat) };
        if was.gives_rights() {
            all.within.push((path.clone(), was));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("d/e")).unwrap();
        std::fs::create_dir_all(at(".evenkeel/staging")).unwrap();
        for name in ["a", "d/e/f", "d.x", "z"] {
            std::fs::write(at(name), name).unwrap();
        }
        let root = Dir::open(temp.path()).unwrap();
        let look = || Image::of(&root, &Progress::default()).unwrap();
        let before = look();
        let paths: Vec<String> = before.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths[1..], ["a", "d", "d/e", "d/e/f", "d.x", "z"]);
        assert!(before.get(&TreePath::new("d/e/f").unwrap()).is_some() && before.bytes() == 10);
        assert_eq!(before.changed_in(&look()), []);
        std::fs::write(at("d/e/f"), "other").unwrap();
        std::fs::write(at("b"), "").unwrap();
        std::fs::remove_file(at("z")).unwrap();
        let changed: Vec<String> = before.changed_in(&look()).iter().map(ToString::to_string).collect();
        assert_eq!(changed, ["b", "d/e/f", "z"]);
    }
}
