// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs that give rights and have several names: which of these are known here, so that nobody else has one.

use super::Turn;
use crate::checkout::journal::{DirTime, New, Op, Step, Was};
use crate::checkout::rollback::undos::names;
use crate::checkout::stage::staged_name;
use crate::error::{Error, Result};

impl Turn<'_> {
    /// Counts the names of programs with several that the steps have displaced.
    pub(super) fn count_groups(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            let (Op::Replace { was, .. } | Op::Remove { was }) = &step.op else { continue };
            if self.interrupted {
                self.gave_way(step)?;
                self.count_waiting(step, was)?;
            }
            let Some(dir) = &self.displaced else { continue };
            let counted = self.groups.count(dir, &staged_name(step.slot), &step.path, was);
            counted.map_err(|e| Error::io("look at", dir.path(), e))?;
        }
        Ok(())
    }

    /// Counts the names of a step that were to give way and have not.
    fn count_waiting(&mut self, step: &Step, was: &Was) -> Result<()> {
        for (path, was) in names(step, was).filter(|(_, was)| was.gives_rights() && was.nlink > 1) {
            if let Some(live) = self.live(path)?.filter(|live| live.ino == was.ino) {
                self.groups.count_known(was.ino);
                self.waiting.push((path.clone(), live));
            }
        }
        Ok(())
    }

    /// Where a copy has come back in the place of a program, the names that it has kept become names of the copy.
    pub(super) fn join_waiting(&mut self) -> Result<()> {
        let Some(dir) = &self.displaced else { return Ok(()) };
        for (path, live) in std::mem::take(&mut self.waiting) {
            let (slot, failed) = (self.next_slot, |e| Error::io("link a copy for", dir.path_of(path.as_bytes()), e));
            let copy = self.groups.link_to_copy(dir, &path, &staged_name(slot), live.ino).map_err(failed)?;
            let Some(copy) = copy else { continue };
            let new = New { ino: copy.ino, born: copy.born, mtime: copy.mtime, late: None };
            let op = Op::Replace { new, was: Was::of(&live), keep_aside: false };
            self.joined.push(path.clone());
            self.steps.push(Step { path, slot, op });
            self.next_slot += 1;
        }
        Ok(())
    }

    /// Adds the directories of such names, which keep their times.
    pub(super) fn times_of_joined(&mut self, dirs: &mut Vec<DirTime>) -> Result<()> {
        for path in std::mem::take(&mut self.joined) {
            let path = path.parent().unwrap_or_default();
            if dirs.iter().any(|known| known.path == path) {
                continue;
            }
            let failed = |e| Error::io("look at", self.root.path_of(path.as_bytes()), e);
            let mtime = self.chain.dir(path.as_bytes()).and_then(|dir| dir.stat(b"")).map_err(failed)?.mtime;
            dirs.push(DirTime { path, before: mtime, after: mtime });
            // Each before the one it is in.
            dirs.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        }
        Ok(())
    }
}
