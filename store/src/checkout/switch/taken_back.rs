// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a step brought out of the live tree and the plan did not mean: it gets its name back, and is never lost.
//!
//! Whoever changes a name while it is exchanged may be faster again when the exchange is taken back. The newest of what
//! they put there keeps the name; nothing of theirs is replaced or removed. What cannot have its name back, because
//! somebody has taken it or the directory is gone, is kept with what gave way under a name that no step has. Where a switch
//! goes back, that is true as well of what was to come back: it came from the undo, and there is no other of it.

use std::io;

use super::super::chain::DirChain;
use super::super::displaced;
use super::super::journal::{New, Op, Step};
use super::super::lift::Moving;
use super::super::report::SetAside;
use super::super::stage::staged_name;
use super::{Care, Switch, exchange};
use crate::error::{Error, Result};
use crate::fsio::{Dir, Replace, Stat};

/// How often the same name is fought for.
const TRIES_MAX: u32 = 16;
/// Ending of what is kept and belongs to no step.
const FOUND_SUFFIX: &str = ".found";
/// How many numbered names are tried for it.
const FOUND_NAMES_MAX: u32 = 1000;

impl Op {
    /// Whether an inode is one that this step moves.
    pub(super) fn knows(&self, ino: u64) -> bool {
        match self {
            Op::Add { new } => new.ino == ino,
            Op::Replace { new, was, .. } => new.ino == ino || was.ino == ino,
            Op::Remove { was } | Op::Metadata { was, .. } => was.ino == ino,
            Op::Tree(tree) => tree.new.ino == ino || tree.was.ino == ino,
        }
    }
}

impl Switch<'_> {
    /// Takes an exchange back that has brought out something else than planned.
    pub(super) fn take_back(&mut self, chain: &mut DirChain<'_>, step: &Step, new: &New) -> Result<()> {
        let (staging, staged) = (self.staging, staged_name(step.slot));
        let mut placed = new.ino;
        for _ in 0..TRIES_MAX {
            let Some(theirs) = self.staged(&staged)? else { return Ok(()) };
            if self.step(chain, step, |dir, name| exchange(staging, &staged, dir, name))? {
                let Some(out) = self.staged(&staged)? else { return Ok(()) };
                if out.ino == placed {
                    return self.came_out(step, new, &out);
                }
                // Somebody has replaced what this had put there meanwhile: theirs is newer, and has to go back in turn.
                placed = theirs.ino;
            } else if self.put_back(chain, step)? {
                return Ok(());
            }
        }
        self.set_aside(step)
    }

    /// What lies in staging after an exchange was taken back. Ours was live for an instant: somebody may have put
    /// something into it.
    fn came_out(&mut self, step: &Step, new: &New, out: &Stat) -> Result<()> {
        let is_untouched = out.ino == new.ino && !out.is_dir() && out.mtime == new.mtime;
        if is_untouched { Ok(()) } else { self.set_aside(step) }
    }

    /// Gives what lies in staging its name back, unless somebody has taken it or its directory is gone.
    pub(super) fn put_back(&mut self, chain: &mut DirChain<'_>, step: &Step) -> Result<bool> {
        let (staging, staged) = (self.staging, staged_name(step.slot));
        self.step(chain, step, |dir, name| staging.rename(&staged, dir, name, Replace::Never))
    }

    /// Reports a path as changed since the plan was made. What was staged for it from the store is of no use; what was to
    /// come back is kept, and so is what is somebody else's and could not be put back.
    pub(super) fn leave_alone(&mut self, step: &Step) -> Result<()> {
        self.done.changed_meanwhile.push(step.path.clone());
        let staged = staged_name(step.slot);
        let found = self.staged(&staged)?;
        if let (Op::Replace { was, .. } | Op::Remove { was }, Some(found)) = (&step.op, &found)
            && was.is(found)
        {
            // It gave way before an interruption, or could not be put back: a rollback gives it its name.
            return Ok(());
        }
        self.done.untaken.insert(step.slot);
        match (&step.op, found) {
            (_, None) => Ok(()),
            (Op::Add { new } | Op::Replace { new, .. }, Some(found)) if new.ino == found.ino => {
                if self.care != Care::Back {
                    return self.discard(&staged);
                }
                // It had been given its rights again.
                let stripped = displaced::strip_all(&mut self.lifts, self.staging, &staged, &step.path);
                stripped.map_err(|e| self.failed("keep", &step.path, e))?;
                self.set_aside(step)
            }
            _ => self.set_aside(step),
        }
    }

    /// Keeps what lies in staging under a name that no step has.
    fn set_aside(&mut self, step: &Step) -> Result<()> {
        let staged = staged_name(step.slot);
        let failed = |e| Error::io("keep", self.staging.path_of(&staged), e);
        let at = (&step.path, &staged[..]);
        let moving = Moving::lift(&mut self.lifts, at, self.staging, &staged, |_| true).map_err(failed)?;
        let named = name_aside(self.staging, &staged, step.slot);
        moving.map_or(Ok(()), Moving::put_back).map_err(failed)?;
        self.done.set_aside.push(SetAside::new(&step.path, &named.map_err(failed)?));
        Ok(())
    }

    /// What an earlier run of this switch has set aside is reported by the one that finishes it.
    pub(super) fn find_set_aside(&mut self) -> Result<()> {
        let failed = |e| Error::io("look at", self.staging.path(), e);
        for name in self.staging.names().map_err(failed)? {
            let Some(slot) = slot_of_found(&name) else { continue };
            if let Some(step) = self.steps.iter().find(|step| step.slot == slot) {
                self.done.set_aside.push(SetAside::new(&step.path, &name));
            }
        }
        Ok(())
    }
}

/// Gives what was staged under a number a name that no step has; gives that.
fn name_aside(staging: &Dir, staged: &[u8], slot: usize) -> io::Result<Vec<u8>> {
    for number in 0..FOUND_NAMES_MAX {
        let suffix = if number == 0 { String::new() } else { format!(".{number}") };
        let name = format!("{slot:x}{FOUND_SUFFIX}{suffix}").into_bytes();
        match staging.rename(staged, staging, &name, Replace::Never) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            named => return named.map(|()| name),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The number of the step that something with such a name belongs to.
fn slot_of_found(name: &[u8]) -> Option<usize> {
    let name = std::str::from_utf8(name).ok()?;
    let (slot, _) = name.split_once(FOUND_SUFFIX)?;
    usize::from_str_radix(slot, 16).ok()
}
