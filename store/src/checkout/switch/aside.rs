// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A local version that stays beside the reference's, by the policy `both`.

use std::cell::RefCell;
use std::io;

use super::super::chain::{DirChain, is_other_now};
use super::super::journal::{Step, Was};
use super::Switch;
use crate::error::Result;
use crate::fsio::Dir;

/// What a local version that stays beside the reference's is called.
const ASIDE_SUFFIX: &[u8] = b".evenkeel-local";
/// How many numbered names are tried for it.
const ASIDE_NAMES_MAX: u32 = 1000;

impl Switch<'_> {
    /// Gives the displaced local version its name beside the new one. Where the directory is gone, or has no room for
    /// that name, the version is in undo, and the path is reported.
    pub(super) fn keep_aside(&mut self, chain: &mut DirChain<'_>, step: &Step, staged: &[u8], was: &Was) -> Result<()> {
        let aside = RefCell::new(Vec::new());
        let staging = self.staging;
        let linked = self.try_step(chain, step, |dir, name| {
            let found = link_aside(staging, staged, dir, name, was.ino)?;
            aside.replace(found);
            Ok(())
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
