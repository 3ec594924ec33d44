// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The direct switch: staged inodes take their live names, one atomic step a name.
//!
//! Order: additions, replacements, removals, directory metadata. Every step goes through held directories. A path that
//! is not as the plan saw it is left alone. It keeps no journal: an interrupted switch is finished by the next checkout,
//! which finds what already is as wanted.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;

use super::apply;
use super::chain::{DirChain, is_other_now};
use super::plan::{Action, Change, CheckoutPlan, Wanted};
use super::stage::staged_name;
use crate::area::RuleSet;
use crate::error::{Error, Result};
use crate::format::manifest::{Inode, InodeFlags, InodeKind, Timestamp};
use crate::fsio::{Dir, FdAttrs, FileType, Replace, Stat};
use crate::inode::{self, UnknownXattrs};
use crate::path::TreePath;
use crate::progress::Progress;
use crate::walk::Found;

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
    /// For people.
    pub(super) warnings: Vec<String>,
}

/// Carries out a staged plan.
///
/// # Errors
/// The first failure; the tree is then partly switched, which the area's marker says.
pub(super) fn switch(
    plan: &CheckoutPlan,
    staging: &Dir,
    root: &Dir,
    rules: &RuleSet,
    progress: &Progress,
) -> Result<Switched> {
    progress.start("switching", plan.actions.len() as u64, 0);
    let mut switch = Switch { staging, root, rules, lifted: Vec::new(), done: Switched::default() };
    let steps = switch.steps(plan, progress);
    // Also after a failure: what was lifted for a moment must not stay so.
    let end = switch.directories(plan, steps.is_err());
    steps.and(end).map(|()| switch.done)
}

struct Switch<'a> {
    staging: &'a Dir,
    root: &'a Dir,
    rules: &'a RuleSet,
    /// Directories that were made writable for a moment, and their mode and flags before.
    lifted: Vec<(TreePath, u16, InodeFlags)>,
    done: Switched,
}

impl Switch<'_> {
    fn steps(&mut self, plan: &CheckoutPlan, progress: &Progress) -> Result<()> {
        self.additions(plan, progress)?;
        self.replacements(plan, progress)?;
        self.removals(plan, progress)?;
        self.late(plan)
    }

    fn additions(&mut self, plan: &CheckoutPlan, progress: &Progress) -> Result<()> {
        let mut chain = DirChain::new(self.root);
        for (index, action) in plan.actions.iter().enumerate() {
            if !matches!(action.change, Change::Add { inside: false, .. }) {
                continue;
            }
            progress.advance(1, 0);
            if !self.is_reachable(&mut chain, &action.path)? {
                self.leave_alone(plan, index)?;
                continue;
            }
            let staging = self.staging;
            let added = self.try_step(&mut chain, action, |dir, name| {
                staging.rename(&staged_name(index), dir, name, Replace::Never)
            });
            match added {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.leave_alone(plan, index)?,
                added => added.map_err(|e| self.failed("switch", &action.path, e))?,
            }
        }
        Ok(())
    }

    fn replacements(&mut self, plan: &CheckoutPlan, progress: &Progress) -> Result<()> {
        let mut chain = DirChain::new(self.root);
        for (index, action) in plan.actions.iter().enumerate() {
            match &action.change {
                Change::Replace { was, keep_aside, .. } => {
                    self.replace(&mut chain, plan, index, was, *keep_aside)?;
                }
                Change::Metadata { inode, was } if inode.kind != InodeKind::Directory => {
                    self.change_file(&mut chain, action, inode, was)?;
                }
                _ => continue,
            }
            progress.advance(1, 0);
        }
        Ok(())
    }

    fn replace(
        &mut self,
        chain: &mut DirChain<'_>,
        plan: &CheckoutPlan,
        index: usize,
        was: &Stat,
        keep_aside: bool,
    ) -> Result<()> {
        let (action, staged, staging) = (&plan.actions[index], staged_name(index), self.staging);
        if !self.is_as_planned(chain, &action.path, was)? {
            return self.leave_alone(plan, index);
        }
        if keep_aside {
            let aside = RefCell::new(Vec::new());
            let linked =
                self.try_step(chain, action, |dir, name| link_aside(dir, name).map(|name| drop(aside.replace(name))));
            linked.map_err(|e| self.failed("keep aside", &action.path, e))?;
            let parent = action.path.parent().unwrap_or_default();
            self.done.kept_aside.extend(parent.join(&aside.into_inner()).ok());
        }
        let exchange = was.is_dir() || action.makes_directory();
        let how = if exchange { Replace::Exchange } else { Replace::Allowed };
        self.step(chain, action, |dir, name| staging.rename(&staged, dir, name, how))?;
        if was.is_dir() && !self.holds_only_planned(plan, index)? {
            self.step(chain, action, |dir, name| staging.rename(&staged, dir, name, how))?;
            return self.leave_alone(plan, index);
        }
        // What was exchanged now lies in staging under the staged name.
        if exchange { self.discard(&staged) } else { Ok(()) }
    }

    /// Reports an action's path as changed since the plan was made; what was staged for it is of no use.
    fn leave_alone(&mut self, plan: &CheckoutPlan, index: usize) -> Result<()> {
        self.done.changed_meanwhile.push(plan.actions[index].path.clone());
        self.discard(&staged_name(index))
    }

    /// Whether a directory that was just moved away holds nothing but what the plan removes with it.
    fn holds_only_planned(&self, plan: &CheckoutPlan, index: usize) -> Result<bool> {
        let top = &plan.actions[index].path;
        let removed = |action: &&Action| matches!(action.change, Change::Remove { inside: true, .. });
        let planned: BTreeMap<&TreePath, &Stat> = plan.actions[index + 1..]
            .iter()
            .take_while(|action| action.path.starts_with(top))
            .filter(removed)
            .filter_map(|action| match &action.change {
                Change::Remove { was, .. } => Some((&action.path, &**was)),
                _ => None,
            })
            .collect();
        let failed = |e| self.failed("look into", top, e);
        let mut todo = vec![(top.clone(), self.staging.open_dir(&staged_name(index)).map_err(failed)?)];
        while let Some((path, dir)) = todo.pop() {
            for name in dir.names().map_err(failed)? {
                let Ok(path) = path.join(&name) else { return Ok(false) };
                let Some(now) = dir.stat_opt(&name).map_err(failed)? else { continue };
                if !planned.get(&path).is_some_and(|was| same_as_planned(&now, was)) {
                    return Ok(false);
                }
                if now.is_dir() {
                    todo.push((path, dir.open_dir(&name).map_err(failed)?));
                }
            }
        }
        Ok(true)
    }

    fn change_file(&mut self, chain: &mut DirChain<'_>, action: &Action, inode: &Inode, was: &Stat) -> Result<()> {
        let found = match chain.find(&action.path) {
            Err(e) if is_other_now(&e) => None,
            found => found.map_err(|e| self.failed("look at", &action.path, e))?,
        };
        let unchanged = found.as_ref().is_some_and(|found| found.stat.same_content_as(was) && found.stat.nlink == 1);
        let Some(found) = found.filter(|_| unchanged) else {
            self.done.changed_meanwhile.push(action.path.clone());
            return Ok(());
        };
        let live = inode::read_metadata(&found, self.rules.xattrs(), UnknownXattrs::Ignore)?;
        let failed = |e| self.failed("change", &action.path, e);
        let (fd, stat) = inode::open_file(&found).map_err(failed)?;
        if !stat.same_content_as(was) {
            self.done.changed_meanwhile.push(action.path.clone());
            return Ok(());
        }
        apply::change_in_place(&fd, inode, &live).map_err(failed)
    }

    fn removals(&mut self, plan: &CheckoutPlan, progress: &Progress) -> Result<()> {
        let mut chain = DirChain::new(self.root);
        for action in plan.actions.iter().rev() {
            let Change::Remove { was, inside: false } = &action.change else { continue };
            progress.advance(1, 0);
            if !self.is_as_planned(&mut chain, &action.path, was)? {
                self.done.changed_meanwhile.push(action.path.clone());
                continue;
            }
            let removed =
                self.try_step(
                    &mut chain,
                    action,
                    |dir, name| {
                        if was.is_dir() { dir.remove_dir(name) } else { dir.unlink(name) }
                    },
                );
            match removed {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    let path = self.root.path_of(action.path.as_bytes());
                    let text = format!("{} is not empty any more; left in place", path.display());
                    self.done.warnings.push(text);
                    self.done.changed_meanwhile.push(action.path.clone());
                }
                removed => removed.map_err(|e| self.failed("remove", &action.path, e))?,
            }
        }
        Ok(())
    }

    /// What forbids a rename comes after it.
    fn late(&mut self, plan: &CheckoutPlan) -> Result<()> {
        let left_alone: BTreeSet<&TreePath> = self.done.changed_meanwhile.iter().collect();
        let is_left_alone = |path: &TreePath| left_alone.contains(path);
        let mut chain = DirChain::new(self.root);
        // The innermost first: what is set may forbid to pass.
        for action in plan.actions.iter().rev() {
            let Some(Wanted::Inode(inode)) = action.wanted() else { continue };
            let is_late = match inode.kind {
                InodeKind::File(_) => apply::late_flags(inode.flags),
                InodeKind::Directory => apply::late_flags(inode.flags) || apply::late_mode(inode),
                _ => false,
            };
            if !is_late || is_left_alone(&action.path) || !self.is_reachable(&mut chain, &action.path)? {
                continue;
            }
            let failed = |e| self.failed("complete", &action.path, e);
            if inode.kind == InodeKind::Directory {
                let dir = chain.dir(action.path.as_bytes()).map_err(failed)?;
                apply::finish_late(dir, inode).map_err(failed)?;
            } else {
                let (dir, name) = chain.parent(action.path.as_bytes()).map_err(failed)?;
                let fd = dir.open_file(name).map_err(failed)?;
                apply::finish_late(&fd, inode).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Metadata of directories that stay, the deepest first: a step below may need rights that they take away. After a
    /// failure as much of it as is possible.
    fn directories(&mut self, plan: &CheckoutPlan, after_failure: bool) -> Result<()> {
        let mut todo: BTreeMap<&TreePath, DirWork<'_>> = BTreeMap::new();
        let lifted = std::mem::take(&mut self.lifted);
        // In reverse: what a directory had before it was first lifted counts.
        for (path, mode, flags) in lifted.iter().rev() {
            todo.entry(path).or_default().before = Some((*mode, *flags));
        }
        for (path, mtime) in &plan.dir_times {
            todo.entry(path).or_default().mtime = Some(*mtime);
        }
        for action in &plan.actions {
            if let Change::Metadata { inode, was } = &action.change
                && inode.kind == InodeKind::Directory
            {
                let work = todo.entry(&action.path).or_default();
                (work.inode, work.mtime, work.was) = (Some(&**inode), Some(inode.mtime), Some(&**was));
            }
        }
        let mut chain = DirChain::new(self.root);
        for (path, work) in todo.into_iter().rev() {
            match self.directory_work(&mut chain, path, &work) {
                Err(_) if after_failure => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn directory_work(&mut self, chain: &mut DirChain<'_>, path: &TreePath, work: &DirWork<'_>) -> Result<()> {
        let dir = match chain.dir(path.as_bytes()) {
            Ok(dir) => dir,
            Err(e) if is_other_now(&e) => {
                // What was only lifted was lifted to be removed or replaced.
                self.done.changed_meanwhile.extend((!work.is_only_before()).then(|| path.clone()));
                return Ok(());
            }
            Err(e) => return Err(self.failed("open", path, e)),
        };
        let now = dir.stat(b"").map_err(|e| self.failed("look at", path, e))?;
        if work.was.is_some_and(|was| !same_as_planned(&now, was)) {
            self.done.changed_meanwhile.push(path.clone());
            return Ok(());
        }
        let live = if work.inode.is_some() { Some(self.directory(path, dir)?) } else { None };
        work.set(dir, live.as_ref()).map_err(|e| self.failed("change", path, e))
    }

    fn directory(&self, path: &TreePath, dir: &Dir) -> Result<Inode> {
        let failed = |e| self.failed("read", path, e);
        let dir = std::sync::Arc::new(dir.try_clone().map_err(failed)?);
        let stat = dir.stat(b"").map_err(failed)?;
        let found = Found::beside_a_walk(path, stat, None, Some(dir));
        inode::read_metadata(&found, self.rules.xattrs(), UnknownXattrs::Ignore)
    }

    /// Whether the directory that holds `path` is still there.
    fn is_reachable(&self, chain: &mut DirChain<'_>, path: &TreePath) -> Result<bool> {
        match chain.parent(path.as_bytes()) {
            Ok(_) => Ok(true),
            Err(e) if is_other_now(&e) => Ok(false),
            Err(e) => Err(self.failed("open the directory of", path, e)),
        }
    }

    /// Whether a live path still is what the plan saw.
    fn is_as_planned(&self, chain: &mut DirChain<'_>, path: &TreePath, was: &Stat) -> Result<bool> {
        if !self.is_reachable(chain, path)? {
            return Ok(false);
        }
        let (dir, name) = chain.parent(path.as_bytes()).map_err(|e| self.failed("look at", path, e))?;
        let now = dir.stat_opt(name).map_err(|e| self.failed("look at", path, e))?;
        Ok(now.is_some_and(|now| same_as_planned(&now, was)))
    }

    fn step(
        &mut self,
        chain: &mut DirChain<'_>,
        action: &Action,
        op: impl Fn(&Dir, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        self.try_step(chain, action, op).map_err(|e| self.failed("switch", &action.path, e))
    }

    /// Does one step. Where rights or flags forbid it, they are lifted: a file's are put back at once, a directory's at
    /// the end.
    fn try_step(
        &mut self,
        chain: &mut DirChain<'_>,
        action: &Action,
        op: impl Fn(&Dir, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (dir, name) = chain.parent(action.path.as_bytes())?;
        match op(dir, name) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            done => return done,
        }
        let parent = action.path.parent().unwrap_or_default();
        self.lifted.push((parent, dir.stat(b"")?.mode, FdAttrs(dir.as_fd()).flags()?));
        lift(dir)?;
        match dir.stat_opt(name)?.map(|stat| stat.file_type) {
            Some(FileType::File) => {
                let file = dir.open_file(name)?;
                let attrs = FdAttrs(file.as_fd());
                let flags = attrs.flags()?;
                attrs.set_flags(InodeFlags::default()).or_else(unsupported_is_fine)?;
                let done = op(dir, name);
                // The step failed, or the inode has another name.
                if flags != InodeFlags::default() && Stat::of_fd(&file)?.nlink > 0 {
                    attrs.set_flags(flags)?;
                }
                done
            }
            Some(FileType::Directory) => {
                let inner = dir.open_dir(name)?;
                self.lifted.push((action.path.clone(), inner.stat(b"")?.mode, FdAttrs(inner.as_fd()).flags()?));
                lift(&inner)?;
                op(dir, name)
            }
            _ => op(dir, name),
        }
    }

    /// Removes what lies in staging under `name`.
    fn discard(&self, name: &[u8]) -> Result<()> {
        self.staging.remove_all(name).map_err(|e| Error::io("remove", self.staging.path_of(name), e))?;
        Ok(())
    }

    fn failed(&self, action: &'static str, path: &TreePath, e: io::Error) -> Error {
        Error::io(action, self.root.path_of(path.as_bytes()), e)
    }
}

/// What is to be set on one directory at the end.
#[derive(Default)]
struct DirWork<'p> {
    /// Mode and flags before it was made writable for a moment.
    before: Option<(u16, InodeFlags)>,
    /// All its metadata, and what the plan saw.
    inode: Option<&'p Inode>,
    was: Option<&'p Stat>,
    mtime: Option<Timestamp>,
}

impl DirWork<'_> {
    /// Whether it only puts back what was lifted.
    fn is_only_before(&self) -> bool {
        self.inode.is_none() && self.mtime.is_none()
    }

    fn set(&self, dir: &Dir, live: Option<&Inode>) -> io::Result<()> {
        let attrs = FdAttrs(dir.as_fd());
        if let Some((mode, _)) = self.before {
            attrs.set_mode(mode)?;
        }
        if let Some((inode, live)) = self.inode.zip(live) {
            apply::change_in_place(dir, inode, live)?;
        }
        if let Some(mtime) = self.mtime {
            match attrs.set_mtime(mtime) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    let flags = attrs.flags()?;
                    attrs.set_flags(InodeFlags::default())?;
                    attrs.set_mtime(mtime)?;
                    attrs.set_flags(flags)?;
                }
                done => done?,
            }
        }
        // Flags may forbid all of the above, so they come last.
        match (self.inode, self.before) {
            (Some(inode), _) if live.is_some_and(|live| apply::lifts(live, inode)) || self.before.is_some() => {
                attrs.set_flags(inode.flags).or_else(unsupported_is_fine)
            }
            (None, Some((_, flags))) => attrs.set_flags(flags).or_else(unsupported_is_fine),
            _ => Ok(()),
        }
    }
}

/// Whether a live path still is what the plan saw. A directory's content is judged by what happens in it.
fn same_as_planned(now: &Stat, was: &Stat) -> bool {
    let same_inode = (now.dev, now.ino, now.file_type) == (was.dev, was.ino, was.file_type);
    // A hard-linked inode's ctime moves when another name of it is replaced or linked.
    let same_time = was.is_dir() || was.nlink > 1 || now.ctime == was.ctime || now.nlink != was.nlink;
    same_inode && same_time && (was.is_dir() || (now.size, now.mtime) == (was.size, was.mtime))
}

/// Makes a directory one that may be changed.
fn lift(dir: &Dir) -> io::Result<()> {
    const OWNER_CHANGES: u16 = 0o300;
    const OWNER_ALL: u16 = 0o700;
    let attrs = FdAttrs(dir.as_fd());
    attrs.set_flags(InodeFlags::default()).or_else(unsupported_is_fine)?;
    let mode = dir.stat(b"")?.mode;
    if mode & OWNER_CHANGES == OWNER_CHANGES { Ok(()) } else { attrs.set_mode(mode | OWNER_ALL) }
}

fn unsupported_is_fine(e: io::Error) -> io::Result<()> {
    use rustix::io::Errno;
    let code = e.raw_os_error();
    let unsupported = [Errno::NOTTY, Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS].map(Errno::raw_os_error);
    if code.is_some_and(|code| unsupported.contains(&code)) { Ok(()) } else { Err(e) }
}

/// Gives a local version a second name beside it; gives that name.
fn link_aside(dir: &Dir, name: &[u8]) -> io::Result<Vec<u8>> {
    for number in 0..ASIDE_NAMES_MAX {
        let mut suffix = ASIDE_SUFFIX.to_vec();
        if number > 0 {
            suffix.extend_from_slice(format!(".{number}").as_bytes());
        }
        let room = crate::limits::NAME_BYTES_MAX - suffix.len();
        let aside = [&name[..name.len().min(room)], &suffix].concat();
        match dir.link(name, dir, &aside) {
            Ok(()) => return Ok(aside),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
