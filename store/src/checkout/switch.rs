// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The switch: staged inodes take their live names, one atomic step each, and what had them goes to the same place.
//!
//! Order: additions, replacements, removals, directory metadata. Every step goes through held directories, and every
//! step can be taken again: inode numbers tell whether it was done. What is not as the plan saw it is left alone; where
//! that shows only after an exchange, the exchange is taken back.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

mod aside;
mod dirs;
mod taken_back;

use super::apply;
use super::chain::{DirChain, is_other_now};
use super::displaced;
use super::journal::{DirTime, Meta, New, Op, Step, Was};
use super::lift::{self, Lifts};
use super::report::SetAside;
use super::stage::staged_name;
use crate::error::{Error, Result};
use crate::format::manifest::InodeFlags;
use crate::fsio::{self, Dir, Replace, Stat};
use crate::in_use::InUse;
use crate::path::TreePath;
use crate::progress::Progress;

pub(in crate::checkout) use aside::{aside_names, copy_name};

/// What a switch found to be different from the plan.
#[derive(Debug, Default)]
pub(super) struct Switched {
    /// Paths that changed after the plan was made; left alone.
    pub(super) changed_meanwhile: Vec<TreePath>,
    /// Local versions that stay beside the reference's, by their new path.
    pub(super) kept_aside: Vec<TreePath>,
    /// Who still uses what was displaced.
    pub(super) in_use: InUse,
    /// What somebody put at a path in the instant in which it changed, and what was to come back there, where neither could
    /// have its name.
    pub(super) set_aside: Vec<SetAside>,
    /// Slots of the steps that were not taken and displaced nothing.
    pub(super) untaken: BTreeSet<usize>,
}

/// How a switch works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// What gives way is kept.
    Undo,
    /// The same, and so is what was to come back and cannot: there is no other of it.
    Back,
    /// What gives way is gone. For measurements only: it cannot be taken back.
    None,
}

/// The steps of a switch and where they happen.
pub(super) struct Switch<'a> {
    pub(super) steps: &'a [Step],
    pub(super) dirs: &'a [DirTime],
    pub(super) staging: &'a Dir,
    pub(super) root: &'a Dir,
    pub(super) care: Care,
    /// An earlier run of it was interrupted.
    pub(super) resumed: bool,
    /// Directories that were made writable for a moment.
    pub(super) lifts: Lifts,
    pub(super) done: Switched,
}

impl Switch<'_> {
    /// Carries out every step that is not done yet.
    ///
    /// # Errors
    /// The first failure; what is done stays done, and the journal says so.
    pub(super) fn run(mut self, progress: &Progress) -> Result<Switched> {
        progress.start("switching", self.steps.len() as u64, 0);
        if self.resumed {
            self.lifts.settle(self.root, self.staging)?;
            self.find_set_aside()?;
        }
        let steps = self.all_steps(progress);
        if steps.is_err() {
            let _ = self.lifts.settle(self.root, self.staging);
        }
        // Also after a failure: what was lifted for a moment must not stay so.
        let end = self.directories(steps.is_err());
        steps.and(end).map(|()| self.done)
    }

    fn all_steps(&mut self, progress: &Progress) -> Result<()> {
        let steps = self.steps;
        let mut chain = DirChain::new(self.root);
        for step in steps {
            if let Op::Add { new } = &step.op {
                self.add(&mut chain, step, new)?;
                progress.advance(1, 0);
            }
        }
        let mut chain = DirChain::new(self.root);
        for step in steps {
            match &step.op {
                Op::Replace { new, was, keep_aside } => self.replace(&mut chain, step, new, was, *keep_aside)?,
                Op::Metadata { was, before, after } => self.change_file(&mut chain, step, was, before, after)?,
                Op::Add { .. } | Op::Remove { .. } | Op::Tree(_) => continue,
            }
            progress.advance(1, 0);
        }
        let mut chain = DirChain::new(self.root);
        for step in steps.iter().rev() {
            if let Op::Remove { was } = &step.op {
                self.remove(&mut chain, step, was)?;
                progress.advance(1, 0);
            }
        }
        self.late()
    }

    fn add(&mut self, chain: &mut DirChain<'_>, step: &Step, new: &New) -> Result<()> {
        if !self.is_reachable(chain, &step.path)? {
            return self.leave_alone(step);
        }
        let (staging, staged) = (self.staging, staged_name(step.slot));
        match self.try_step(chain, step, |dir, name| staging.rename(&staged, dir, name, Replace::Never)) {
            Ok(()) => self.put_time_back(chain, step, new),
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                let is_done = self.live(chain, &step.path)?.is_some_and(|live| live.ino == new.ino);
                if is_done { self.put_time_back(chain, step, new) } else { self.leave_alone(step) }
            }
            Err(e) => Err(self.failed("switch", &step.path, e)),
        }
    }

    fn replace(&mut self, chain: &mut DirChain<'_>, step: &Step, new: &New, was: &Was, keep_aside: bool) -> Result<()> {
        let (staging, staged) = (self.staging, staged_name(step.slot));
        let live = self.live(chain, &step.path)?;
        if live.is_some_and(|live| live.ino == new.ino) {
            displaced::settle_exchange(staging, &staged).map_err(|e| self.failed("keep", &step.path, e))?;
        } else {
            let Some(live) = live.filter(|live| self.is_still(was, live)) else { return self.leave_alone(step) };
            let is_dir = live.is_dir() || self.staged(&staged)?.is_some_and(|staged| staged.is_dir());
            if self.care == Care::None && !is_dir && !keep_aside {
                let done = self.step(chain, step, |dir, name| staging.rename(&staged, dir, name, Replace::Allowed))?;
                return if done { Ok(()) } else { self.leave_alone(step) };
            }
            if !self.step(chain, step, |dir, name| exchange(staging, &staged, dir, name))? {
                return self.leave_alone(step);
            }
            if !self.is_planned(&staged, was, &step.path)? {
                self.take_back(chain, step, new)?;
                return self.leave_alone(step);
            }
        }
        self.put_time_back(chain, step, new)?;
        if keep_aside {
            self.keep_aside(chain, step, &staged, was)?;
        }
        self.gave_way(step, was, &staged)
    }

    /// Some file systems (XFS) count it as a change of a directory when it moves.
    fn put_time_back(&mut self, chain: &mut DirChain<'_>, step: &Step, new: &New) -> Result<()> {
        let done = match chain.parent(step.path.as_bytes()) {
            Err(e) if is_other_now(&e) => Ok(()),
            parent => parent.and_then(|(dir, name)| {
                let at = (&step.path, &staged_name(step.slot)[..]);
                displaced::put_time_back(&mut self.lifts, at, (dir, name), new.ino, new.mtime)
            }),
        };
        done.map_err(|e| self.failed("change", &step.path, e))
    }

    fn remove(&mut self, chain: &mut DirChain<'_>, step: &Step, was: &Was) -> Result<()> {
        let (staging, staged) = (self.staging, staged_name(step.slot));
        // Who is gone already need not be removed.
        let Some(live) = self.live(chain, &step.path)? else { return self.is_gone(step, was, &staged) };
        if !self.is_still(was, &live) {
            // After an interruption the name may have gone, and be somebody else's by now.
            return if self.staged(&staged)?.is_some() { Ok(()) } else { self.leave_alone(step) };
        }
        if self.care == Care::None && !live.is_dir() {
            let done = self.step(chain, step, |dir, name| dir.unlink(name))?;
            return if done { Ok(()) } else { self.leave_alone(step) };
        }
        let moved = self.step(chain, step, |dir, name| dir.rename(name, staging, &staged, Replace::Never))?;
        if moved && !self.is_planned(&staged, was, &step.path)? {
            self.put_back(chain, step)?;
            return self.leave_alone(step);
        }
        // Whoever was faster may have removed it, or have put something else there: that shows now.
        if !moved && self.live(chain, &step.path)?.is_some() {
            return self.leave_alone(step);
        }
        self.is_gone(step, was, &staged)
    }

    /// The name is free: what had it gave way, or somebody else has removed it.
    fn is_gone(&mut self, step: &Step, was: &Was, staged: &[u8]) -> Result<()> {
        if self.staged(staged)?.is_none() {
            self.done.untaken.insert(step.slot);
        }
        self.gave_way(step, was, staged)
    }

    /// What gave way lies in staging now, or is already away from there.
    fn gave_way(&mut self, step: &Step, was: &Was, staged: &[u8]) -> Result<()> {
        let (lifts, at) = (&mut self.lifts, (&step.path, staged));
        match self.care {
            Care::Undo | Care::Back => displaced::put_time_back(lifts, at, (self.staging, staged), was.ino, was.mtime)
                .and_then(|()| displaced::strip(lifts, self.staging, staged, &step.path, was))
                .map_err(|e| self.failed("keep", &step.path, e)),
            Care::None => self.discard(staged),
        }
    }

    fn change_file(
        &mut self,
        chain: &mut DirChain<'_>,
        step: &Step,
        was: &Was,
        before: &Meta,
        after: &Meta,
    ) -> Result<()> {
        use crate::fsio::FileType;
        if was.file_type == FileType::Directory {
            return Ok(());
        }
        let Some(live) = self.live(chain, &step.path)? else { return self.leave_alone(step) };
        let half_done = Was { mtime: after.mtime, ..was.clone() };
        let resumed = self.resumed;
        let is_planned = |now: &Stat| {
            let is_it = if resumed { was.is(now) || half_done.is(now) } else { was.is_still(now) };
            is_it && now.nlink == 1
        };
        if !is_planned(&live) {
            return self.leave_alone(step);
        }
        let failed = |e| self.failed("change", &step.path, e);
        let file = match chain.parent(step.path.as_bytes()).and_then(|(dir, name)| dir.open_file(name)) {
            Err(e) if is_other_now(&e) || fsio::is_unopenable(&e) => return self.leave_alone(step),
            file => file.map_err(failed)?,
        };
        // Only what is open is what it was seen to be.
        let opened = Stat::of_fd(&file).map_err(failed)?;
        if !is_planned(&opened) {
            return self.leave_alone(step);
        }
        apply::change_in_place(&file, before, after).map_err(failed)
    }

    /// Whether `now` is what the plan has seen. What an interrupted run has lifted, and was given back, counts as a change
    /// of it, but is none.
    fn is_still(&self, was: &Was, now: &Stat) -> bool {
        was.is_still(now) || (self.resumed && was.is(now) && self.lifts.have_moved(now.ino))
    }

    /// Whether what lies in staging now is what the plan meant, with nothing in it that the plan did not see.
    fn is_planned(&self, staged: &[u8], was: &Was, path: &TreePath) -> Result<bool> {
        let found = self.staged(staged)?;
        if !found.is_some_and(|found| was.is(&found)) {
            return Ok(false);
        }
        let failed = |e| self.failed("look into", path, e);
        if found.is_some_and(|found| found.is_dir()) {
            let dir = self.staging.open_dir(staged).map_err(failed)?;
            return displaced::holds_only(dir, path, &was.within).map_err(failed);
        }
        Ok(true)
    }

    /// What forbids a rename comes after it, the innermost first: it may forbid to pass.
    fn late(&mut self) -> Result<()> {
        let mut chain = DirChain::new(self.root);
        for step in self.steps.iter().rev() {
            let (Op::Add { new } | Op::Replace { new, .. }) = &step.op else { continue };
            let Some((mode, flags)) = new.late else { continue };
            let Some(live) = self.live(&mut chain, &step.path)?.filter(|live| live.ino == new.ino) else { continue };
            match finish_late(&mut chain, &step.path, new.ino, live.is_dir(), mode, flags) {
                Err(e) if is_other_now(&e) || fsio::is_unopenable(&e) => {}
                done => done.map_err(|e| self.failed("complete", &step.path, e))?,
            }
        }
        Ok(())
    }

    fn live(&self, chain: &mut DirChain<'_>, path: &TreePath) -> Result<Option<Stat>> {
        match chain.parent(path.as_bytes()) {
            Err(e) if is_other_now(&e) => Ok(None),
            parent => parent.and_then(|(dir, name)| dir.stat_opt(name)).map_err(|e| self.failed("look at", path, e)),
        }
    }

    fn staged(&self, staged: &[u8]) -> Result<Option<Stat>> {
        self.staging.stat_opt(staged).map_err(|e| Error::io("look at", self.staging.path_of(staged), e))
    }

    /// Whether the directory that holds `path` is still there.
    fn is_reachable(&self, chain: &mut DirChain<'_>, path: &TreePath) -> Result<bool> {
        match chain.parent(path.as_bytes()) {
            Ok(_) => Ok(true),
            Err(e) if is_other_now(&e) => Ok(false),
            Err(e) => Err(self.failed("open the directory of", path, e)),
        }
    }

    /// Does one step; `false` when a name or directory that it needs is not there any more, or is something else.
    fn step(
        &mut self,
        chain: &mut DirChain<'_>,
        step: &Step,
        op: impl Fn(&Dir, &[u8]) -> io::Result<()>,
    ) -> Result<bool> {
        match self.try_step(chain, step, op) {
            Ok(()) => Ok(true),
            Err(e) if is_other_now(&e) || is_other_kind(&e) => Ok(false),
            Err(e) => Err(self.failed("switch", &step.path, e)),
        }
    }

    /// Does one step. Where rights or flags forbid it, they are lifted: those of the inodes that move are put back at
    /// once, the directory's at the end.
    fn try_step(
        &mut self,
        chain: &mut DirChain<'_>,
        step: &Step,
        op: impl Fn(&Dir, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (dir, name) = chain.parent(step.path.as_bytes())?;
        match op(dir, name) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            done => return done,
        }
        self.lifts.lift(&step.path.parent().unwrap_or_default(), dir)?;
        let staged = staged_name(step.slot);
        let at = (&step.path, &staged[..]);
        let moving = [
            lift::Moving::lift(&mut self.lifts, at, dir, name, |ino| step.op.knows(ino))?,
            lift::Moving::lift(&mut self.lifts, at, self.staging, &staged, |_| true)?,
        ];
        let done = op(dir, name);
        for inode in moving.into_iter().flatten() {
            inode.put_back()?;
        }
        done
    }

    /// Removes what lies in staging under `name`.
    fn discard(&self, name: &[u8]) -> Result<()> {
        match self.staging.remove_all(name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", self.staging.path_of(name), e)),
            _ => Ok(()),
        }
    }

    fn failed(&self, action: &'static str, path: &TreePath, e: io::Error) -> Error {
        Error::io(action, self.root.path_of(path.as_bytes()), e)
    }
}

/// Lets two names change their inodes in one step; where the file system cannot, the old inode gets a second name in
/// staging first. No live name is missing at any time.
fn exchange(staging: &Dir, staged: &[u8], dir: &Dir, name: &[u8]) -> io::Result<()> {
    match staging.rename(staged, dir, name, Replace::Exchange) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => displaced::exchange_by_link(staging, staged, dir, name),
        done => done,
    }
}

/// Completes what `path` names, if it is the inode `ino`.
fn finish_late(
    chain: &mut DirChain<'_>,
    path: &TreePath,
    ino: u64,
    is_dir: bool,
    mode: u16,
    flags: InodeFlags,
) -> io::Result<()> {
    let fd = if is_dir {
        chain.dir(path.as_bytes())?.as_fd().try_clone_to_owned()?
    } else {
        let (dir, name) = chain.parent(path.as_bytes())?;
        dir.open_file(name)?
    };
    if Stat::of_fd(&fd)?.ino == ino { apply::finish_late(&fd, mode, flags) } else { Ok(()) }
}

/// Whether an error says that a name is taken, or that there is a directory where none may be, or the other way round.
fn is_other_kind(e: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory};
    matches!(e.kind(), AlreadyExists | DirectoryNotEmpty | IsADirectory)
}
