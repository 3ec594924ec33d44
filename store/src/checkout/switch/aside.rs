// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A local version that stays beside the reference's, by the policy `both`.
//!
//! It is an inode of its own: whoever edits it in place must not edit what gave way, which a rollback brings back. Its
//! second name in staging, and so in the undo, tells which one it is.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;

use super::super::chain::{DirChain, is_other_now};
use super::super::displaced;
use super::super::journal::{Step, Was};
use super::Switch;
use crate::error::Result;
use crate::format::manifest::InodeFlags;
use crate::fsio::{self, Dir, FdAttrs, FileType, Stat};

/// What a local version that stays beside the reference's is called.
const ASIDE_SUFFIX: &[u8] = b".evenkeel-local";
/// What its inode is called in staging, after the name of what gave way.
const COPY_SUFFIX: &[u8] = b".aside";
/// How many numbered names are tried for it.
const ASIDE_NAMES_MAX: u32 = 1000;

impl Switch<'_> {
    /// Gives the displaced local version its name beside the new one. Where the directory is gone, or has no room for
    /// that name, the version is in undo, and the path is reported.
    pub(super) fn keep_aside(&mut self, chain: &mut DirChain<'_>, step: &Step, staged: &[u8], was: &Was) -> Result<()> {
        let aside = RefCell::new(Vec::new());
        let staging = self.staging;
        let copy = copy(staging, staged, was).map_err(|e| self.failed("keep aside", &step.path, e))?;
        let (from, ino) = copy.map_or((staged.to_vec(), was.ino), |ino| (copy_name(staged), ino));
        let linked = self.try_step(chain, step, |dir, name| {
            let found = link_aside(staging, &from, dir, name, ino)?;
            aside.replace(found);
            if ino == was.ino { Ok(()) } else { bring_flags(staging, staged, &from) }
        });
        match linked {
            Err(e) if is_other_now(&e) || e.kind() == io::ErrorKind::AlreadyExists => {
                self.done.changed_meanwhile.push(step.path.clone());
                return Ok(());
            }
            linked => linked.map_err(|e| self.failed("keep aside", &step.path, e))?,
        }
        let parent = step.path.parent().unwrap_or_default();
        self.done.kept_aside.extend(parent.join(&aside.into_inner()).ok());
        Ok(())
    }
}

/// The name in staging of the copy of what gave way as `staged`.
pub(in crate::checkout) fn copy_name(staged: &[u8]) -> Vec<u8> {
    [staged, COPY_SUFFIX].concat()
}

/// Copies a file that gave way, complete but for its rights and flags, and gives the inode number of the copy. `None` for
/// what is no file, or cannot be copied by this process: then the inode itself gets the further name.
fn copy(staging: &Dir, staged: &[u8], was: &Was) -> io::Result<Option<u64>> {
    if was.file_type != FileType::File {
        return Ok(None);
    }
    let name = copy_name(staged);
    match staging.stat_opt(&name)? {
        // It was complete when it got its live name.
        Some(found) if found.nlink > 1 => return Ok(Some(found.ino)),
        Some(_) => drop(staging.remove_all(&name)?),
        None => {}
    }
    let file = match staging.open_file(staged) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied || is_other_now(&e) => return Ok(None),
        file => file?,
    };
    let new = staging.create_file(&name)?;
    match displaced::copy_without_rights(&file, &new) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return staging.unlink(&name).map(|()| None),
        copied => copied?,
    }
    fsio::sync_file(&new)?;
    Ok(Some(Stat::of_fd(&new)?.ino))
}

/// The copy gets its flags last: they may forbid to give it a name.
fn bring_flags(staging: &Dir, staged: &[u8], copy: &[u8]) -> io::Result<()> {
    let flags = FdAttrs(staging.open_file(staged)?.as_fd()).flags()?;
    if flags == InodeFlags::default() {
        return Ok(());
    }
    FdAttrs(staging.open_file(copy)?.as_fd()).set_flags(flags)
}

/// Names that are tried for a local version of `name` that stays beside it.
pub(in crate::checkout) fn aside_names(name: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..ASIDE_NAMES_MAX).map(move |number| {
        let mut suffix = ASIDE_SUFFIX.to_vec();
        if number > 0 {
            suffix.extend_from_slice(format!(".{number}").as_bytes());
        }
        let room = crate::limits::NAME_BYTES_MAX - suffix.len();
        [&name[..name.len().min(room)], &suffix].concat()
    })
}

/// Gives a displaced inode a second name beside the one it had; gives that name. It may have it already.
fn link_aside(staging: &Dir, staged: &[u8], dir: &Dir, name: &[u8], ino: u64) -> io::Result<Vec<u8>> {
    for aside in aside_names(name) {
        match staging.link(staged, dir, &aside) {
            Ok(()) => return Ok(aside),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if dir.stat_opt(&aside)?.is_some_and(|stat| stat.ino == ino) {
                    return Ok(aside);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
