// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The switch: staged inodes take their live names, one atomic step each, and what had them goes to the same place.
//!
//! Order: additions, replacements, removals, directory metadata. Every step goes through held directories, and every
//! step can be taken again: inode numbers tell whether it was done. What is not as the plan saw it is left alone; where
//! that shows only after an exchange, the exchange is taken back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use super::apply;
use super::chain::{DirChain, is_other_now};
use super::displaced;
use super::journal::{DirTime, Meta, New, Op, Step, Was};
use super::lift::{self, Lifts};
use super::stage::staged_name;
use crate::error::{Error, Result};
use crate::format::manifest::{InodeFlags, Timestamp};
use crate::fsio::{Dir, FdAttrs, Replace, Stat};
use crate::path::TreePath;
use crate::progress::Progress;

/// What a local version that stays beside the reference's is called.
const ASIDE_SUFFIX: &[u8] = b".evenkeel-local";
/// How many numbered names are tried for it.
const ASIDE_NAMES_MAX: u32 = 1000;

/// What a switch found to be different from the plan.
#[derive(Debug, Default)]
pub(super) struct Switched {
    /// Paths that changed after the plan was made; left alone.
    pub(super) changed_meanwhile: Vec<TreePath>,
    /// Local versions that stay beside the reference's, by their new path.
    pub(super) kept_aside: Vec<TreePath>,
}

/// How a switch works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// What gives way is kept.
    Undo,
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
        let steps = self.all_steps(progress);
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
                Op::Add { .. } | Op::Remove { .. } => continue,
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
        let is_done = live.is_some_and(|live| live.ino == new.ino);
        if !is_done {
            if !live.is_some_and(|live| was.is_still(&live)) {
                return self.leave_alone(step);
            }
            let is_dir = live.is_some_and(|live| live.is_dir()) || self.staged(&staged)?.is_some_and(|s| s.is_dir());
            if self.care == Care::None && !is_dir && !keep_aside {
                return self.step(chain, step, |dir, name| staging.rename(&staged, dir, name, Replace::Allowed));
            }
            self.step(chain, step, |dir, name| exchange(staging, &staged, dir, name))?;
            if !self.is_planned(&staged, was, &step.path)? {
                self.step(chain, step, |dir, name| exchange(staging, &staged, dir, name))?;
                return self.leave_alone(step);
            }
        }
        if is_done {
            displaced::settle_exchange(staging, &staged).map_err(|e| self.failed("keep", &step.path, e))?;
        }
        self.put_time_back(chain, step, new)?;
        if keep_aside {
            self.keep_aside(chain, step, &staged, was)?;
        }
        self.gave_way(step, was, &staged)
    }

    /// Some file systems (XFS) count it as a change of a directory when it moves.
    fn put_time_back(&self, chain: &mut DirChain<'_>, step: &Step, new: &New) -> Result<()> {
        let done = match chain.parent(step.path.as_bytes()) {
            Err(e) if is_other_now(&e) => Ok(()),
            parent => parent.and_then(|(dir, name)| displaced::put_time_back(dir, name, new.ino, new.mtime)),
        };
        done.map_err(|e| self.failed("change", &step.path, e))
    }

    fn remove(&mut self, chain: &mut DirChain<'_>, step: &Step, was: &Was) -> Result<()> {
        let (staging, staged) = (self.staging, staged_name(step.slot));
        // Who is gone already need not be removed.
        let Some(live) = self.live(chain, &step.path)? else { return self.gave_way(step, was, &staged) };
        if !was.is_still(&live) {
            // After an interruption the name may have gone, and be somebody else's by now.
            return if self.staged(&staged)?.is_some() { Ok(()) } else { self.leave_alone(step) };
        }
        if self.care == Care::None && !live.is_dir() {
            return self.step(chain, step, |dir, name| dir.unlink(name));
        }
        self.step(chain, step, |dir, name| dir.rename(name, staging, &staged, Replace::Never))?;
        if !self.is_planned(&staged, was, &step.path)? {
            self.step(chain, step, |dir, name| staging.rename(&staged, dir, name, Replace::Never))?;
            return self.leave_alone(step);
        }
        self.gave_way(step, was, &staged)
    }

    /// What gave way lies in staging now, or is already away from there.
    fn gave_way(&mut self, step: &Step, was: &Was, staged: &[u8]) -> Result<()> {
        match self.care {
            Care::Undo => displaced::put_time_back(self.staging, staged, was.ino, was.mtime)
                .and_then(|()| displaced::strip(self.staging, staged, &step.path, was))
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
        let is_planned = if self.resumed { was.is(&live) || half_done.is(&live) } else { was.is_still(&live) };
        if !is_planned || live.nlink != 1 {
            return self.leave_alone(step);
        }
        let (dir, name) = chain.parent(step.path.as_bytes()).map_err(|e| self.failed("open", &step.path, e))?;
        let failed = |e| self.failed("change", &step.path, e);
        let file = dir.open_file(name).map_err(failed)?;
        if Stat::of_fd(&file).map_err(failed)?.ino != was.ino {
            return self.leave_alone(step);
        }
        apply::change_in_place(&file, before, after).map_err(failed)
    }

    /// Gives the displaced local version its name beside the new one.
    fn keep_aside(&mut self, chain: &mut DirChain<'_>, step: &Step, staged: &[u8], was: &Was) -> Result<()> {
        let aside = RefCell::new(Vec::new());
        let staging = self.staging;
        let linked = self.try_step(chain, step, |dir, name| {
            let found = link_aside(staging, staged, dir, name, was.ino)?;
            aside.replace(found);
            Ok(())
        });
        linked.map_err(|e| self.failed("keep aside", &step.path, e))?;
        let parent = step.path.parent().unwrap_or_default();
        self.done.kept_aside.extend(parent.join(&aside.into_inner()).ok());
        Ok(())
    }

    /// Reports a path as changed since the plan was made; what was staged for it is of no use.
    fn leave_alone(&mut self, step: &Step) -> Result<()> {
        self.done.changed_meanwhile.push(step.path.clone());
        let staged = staged_name(step.slot);
        let ours = match &step.op {
            Op::Add { new } | Op::Replace { new, .. } => Some(new.ino),
            Op::Remove { .. } | Op::Metadata { .. } => None,
        };
        let lies_there = self.staged(&staged)?.map(|stat| stat.ino);
        if ours.is_some() && ours == lies_there { self.discard(&staged) } else { Ok(()) }
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
            let failed = |e| self.failed("complete", &step.path, e);
            if live.is_dir() {
                let dir = chain.dir(step.path.as_bytes()).map_err(failed)?;
                apply::finish_late(dir, mode, flags).map_err(failed)?;
            } else {
                let (dir, name) = chain.parent(step.path.as_bytes()).map_err(failed)?;
                apply::finish_late(dir.open_file(name).map_err(failed)?, mode, flags).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Metadata of directories that stay, the deepest first: a step below may need rights that they take away. After a
    /// failure as much of it as is possible.
    fn directories(&mut self, after_failure: bool) -> Result<()> {
        let lifted = self.lifts.take();
        let mut todo: BTreeMap<&TreePath, DirWork<'_>> = BTreeMap::new();
        // In reverse: what a directory had before it was first lifted counts.
        for lift in lifted.iter().rev() {
            todo.entry(&lift.path).or_default().lifted = Some((lift.mode, lift.flags));
        }
        for dir in self.dirs {
            todo.entry(&dir.path).or_default().mtime = Some(dir.after);
        }
        for step in self.steps {
            if let Op::Metadata { was, before, after } = &step.op
                && was.file_type == crate::fsio::FileType::Directory
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
        work.set(dir).map_err(|e| self.failed("change", path, e))
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

    fn step(
        &mut self,
        chain: &mut DirChain<'_>,
        step: &Step,
        op: impl Fn(&Dir, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        self.try_step(chain, step, op).map_err(|e| self.failed("switch", &step.path, e))
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
        let moving = [lift::Moving::lift(dir, name)?, lift::Moving::lift(self.staging, &staged_name(step.slot))?];
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

/// What is to be set on one directory at the end.
#[derive(Default)]
struct DirWork<'p> {
    /// Mode and flags before it was made writable for a moment.
    lifted: Option<(u16, InodeFlags)>,
    /// All its metadata: of which inode, from what, to what.
    change: Option<(&'p Was, &'p Meta, &'p Meta)>,
    mtime: Option<Timestamp>,
}

impl DirWork<'_> {
    /// Whether it only puts back what was lifted.
    fn only_lifted(&self) -> bool {
        self.change.is_none() && self.mtime.is_none()
    }

    fn set(&self, dir: &Dir) -> io::Result<()> {
        let attrs = FdAttrs(dir.as_fd());
        let flags = match (self.change, self.lifted) {
            (Some((_, _, after)), _) => after.flags,
            (None, Some((_, flags))) => flags,
            (None, None) => attrs.flags()?,
        };
        if apply::late_flags(attrs.flags()?) {
            attrs.set_flags(InodeFlags::default())?;
        }
        if let Some((mode, _)) = self.lifted {
            attrs.set_mode(mode)?;
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

/// Lets two names change their inodes in one step; where the file system cannot, the old inode gets a second name in
/// staging first. No live name is missing at any time.
fn exchange(staging: &Dir, staged: &[u8], dir: &Dir, name: &[u8]) -> io::Result<()> {
    match staging.rename(staged, dir, name, Replace::Exchange) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => displaced::exchange_by_link(staging, staged, dir, name),
        done => done,
    }
}

/// Names that are tried for a local version of `name` that stays beside it.
pub(super) fn aside_names(name: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
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
