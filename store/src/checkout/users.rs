// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who still uses what a switch has displaced: the journal has the inode numbers.

use std::collections::BTreeSet;
use std::io;

use super::journal::{Journal, Op, Was};
use crate::fsio::Dir;
use crate::in_use::{self, InUse, Inodes};
use crate::path::TreePath;

/// Processes that use what the steps of `journal` displaced. Steps at `left_alone` displaced nothing.
///
/// # Errors
/// What the system says of `root`.
pub(super) fn of_displaced(journal: &Journal, left_alone: &[TreePath], root: &Dir) -> io::Result<InUse> {
    let device = root.stat(b"")?.dev;
    Ok(in_use::find(&displaced(journal, &left_alone.iter().collect(), device)))
}

fn displaced(journal: &Journal, left_alone: &BTreeSet<&TreePath>, device: (u32, u32)) -> Inodes {
    let mut inodes = Inodes::new();
    let mut gone = |path: &TreePath, was: &Was| {
        // One that stays by another name is as it was.
        if !was.stays {
            inodes.entry((device, was.ino)).or_insert_with(|| path.clone());
        }
    };
    for step in journal.steps.iter().filter(|step| !left_alone.contains(&step.path)) {
        let (Op::Replace { was, .. } | Op::Remove { was }) = &step.op else { continue };
        gone(&step.path, was);
        was.within.iter().for_each(|(path, was)| gone(path, was));
    }
    inodes
}
