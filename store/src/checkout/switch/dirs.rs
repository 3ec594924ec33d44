// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The end of a switch: metadata of directories that stay, and what was lifted for a moment is put back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use super::super::apply;
use super::super::chain::{DirChain, is_other_now};
use super::super::journal::{Meta, Op, Was};
use super::super::lift::Lift;
use super::Switch;
use crate::error::Result;
use crate::format::manifest::{InodeFlags, Timestamp};
use crate::fsio::{Dir, FdAttrs, FileType, Stat};
use crate::path::TreePath;

impl Switch<'_> {
    /// Metadata of directories that stay, the deepest first: a step below may need rights that they take away. After a
    /// failure as much of it as is possible.
    pub(super) fn directories(&mut self, after_failure: bool) -> Result<()> {
        let lifted = self.lifts.take_dirs();
        let mut todo: BTreeMap<&TreePath, DirWork<'_>> = BTreeMap::new();
        for lift in &lifted {
            todo.entry(&lift.path).or_default().lifted.push(lift);
        }
        for dir in self.dirs {
            todo.entry(&dir.path).or_default().mtime = Some(dir.after);
        }
        for step in self.steps {
            if let Op::Metadata { was, before, after } = &step.op
                && was.file_type == FileType::Directory
            {
                let work = todo.entry(&step.path).or_default();
                (work.mtime, work.change) = (Some(after.mtime), Some((was, before, after)));
            }
        }
        let mut chain = DirChain::new(self.root);
        for (path, work) in todo.into_iter().rev() {
            match self.directory(&mut chain, path, &work) {
                Err(_) if after_failure => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn directory(&mut self, chain: &mut DirChain<'_>, path: &TreePath, work: &DirWork<'_>) -> Result<()> {
        let dir = match chain.dir(path.as_bytes()) {
            Ok(dir) => dir,
            Err(e) if is_other_now(&e) => {
                // What was only lifted was lifted to be removed or replaced.
                self.done.changed_meanwhile.extend((!work.only_lifted()).then(|| path.clone()));
                return Ok(());
            }
            Err(e) => return Err(self.failed("open", path, e)),
        };
        let now = dir.stat(b"").map_err(|e| self.failed("look at", path, e))?;
        if work.change.is_some_and(|(was, ..)| !was.is(&now)) {
            self.done.changed_meanwhile.push(path.clone());
            return Ok(());
        }
        work.set(dir, &now).map_err(|e| self.failed("change", path, e))
    }
}

/// What is to be set on one directory at the end.
#[derive(Default)]
struct DirWork<'p> {
    /// What was lifted at this path, the first time first.
    lifted: Vec<&'p Lift>,
    /// All its metadata: of which inode, from what, to what.
    change: Option<(&'p Was, &'p Meta, &'p Meta)>,
    mtime: Option<Timestamp>,
}

impl DirWork<'_> {
    /// Whether it only puts back what was lifted.
    fn only_lifted(&self) -> bool {
        self.change.is_none() && self.mtime.is_none()
    }

    fn set(&self, dir: &Dir, now: &Stat) -> io::Result<()> {
        let attrs = FdAttrs(dir.as_fd());
        // Another directory that has the name by now was not lifted.
        let lifted = self.lifted.iter().find(|lift| lift.ino == now.ino);
        let flags = match (self.change, lifted) {
            (Some((_, _, after)), _) => after.flags,
            (None, Some(lift)) => lift.flags,
            (None, None) => attrs.flags()?,
        };
        if apply::late_flags(attrs.flags()?) {
            attrs.set_flags(InodeFlags::default())?;
        }
        if let Some(lift) = lifted {
            attrs.set_mode(lift.mode)?;
        }
        if let Some((_, before, after)) = self.change {
            apply::change_in_place(dir, before, after)?;
        }
        if let Some(mtime) = self.mtime {
            attrs.set_mtime(mtime)?;
        }
        // Flags may forbid all of the above, so they come last.
        if attrs.flags()? == flags { Ok(()) } else { attrs.set_flags(flags) }
    }
}
