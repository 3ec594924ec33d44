// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The direct switch: staged inodes take their live names, one atomic step a name.
//!
//! Order: additions, replacements, removals, directory metadata. Every step goes through held directories. It keeps no
//! journal: an interrupted switch is finished by the next checkout, which finds what already is as wanted.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use super::apply;
use super::chain::DirChain;
use super::plan::{Action, Change, CheckoutPlan, Wanted};
use super::stage::staged_name;
use crate::area::RuleSet;
use crate::error::{Error, Result};
use crate::format::manifest::{Inode, InodeFlags, InodeKind, Timestamp};
use crate::fsio::{Dir, FdAttrs, Replace, Stat};
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
    switch.additions(plan, progress)?;
    switch.replacements(plan, progress)?;
    switch.removals(plan, progress)?;
    switch.late_flags(plan)?;
    switch.directories(plan)?;
    Ok(switch.done)
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
    fn additions(&mut self, plan: &CheckoutPlan, progress: &Progress) -> Result<()> {
        let mut chain = DirChain::new(self.root);
        for (index, action) in plan.actions.iter().enumerate() {
            if !matches!(action.change, Change::Add { inside: false, .. }) {
                continue;
            }
            let staging = self.staging;
            self.step(&mut chain, action, |dir, name| staging.rename(&staged_name(index), dir, name, Replace::Never))?;
            progress.advance(1, 0);
        }
        Ok(())
    }

    fn replacements(&mut self, plan: &CheckoutPlan, progress: &Progress) -> Result<()> {
        let mut chain = DirChain::new(self.root);
        for (index, action) in plan.actions.iter().enumerate() {
            match &action.change {
                Change::Replace { was, keep_aside, .. } => {
                    self.replace(&mut chain, index, action, was, *keep_aside)?;
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
        index: usize,
        action: &Action,
        was: &Stat,
        keep_aside: bool,
    ) -> Result<()> {
        let staged = staged_name(index);
        if !self.is_as_planned(chain, &action.path, was)? {
            self.done.changed_meanwhile.push(action.path.clone());
            self.discard(&staged)?;
            return Ok(());
        }
        if keep_aside {
            let (dir, name) = chain.parent(action.path.as_bytes()).map_err(|e| self.failed("open", &action.path, e))?;
            let aside = link_aside(dir, name).map_err(|e| self.failed("keep aside", &action.path, e))?;
            let parent = action.path.parent().unwrap_or_default();
            self.done.kept_aside.extend(parent.join(&aside).ok());
        }
        let exchange = was.is_dir() || action.makes_directory();
        let how = if exchange { Replace::Exchange } else { Replace::Allowed };
        let staging = self.staging;
        self.step(chain, action, |dir, name| staging.rename(&staged, dir, name, how))?;
        // What was exchanged now lies in staging under the staged name.
        if exchange { self.discard(&staged) } else { Ok(()) }
    }

    fn change_file(&mut self, chain: &mut DirChain<'_>, action: &Action, inode: &Inode, was: &Stat) -> Result<()> {
        let found = self.found(chain, &action.path)?;
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

    /// Flags that forbid a rename come after it.
    fn late_flags(&mut self, plan: &CheckoutPlan) -> Result<()> {
        let mut chain = DirChain::new(self.root);
        for action in &plan.actions {
            let Some(Wanted::Inode(inode)) = action.wanted() else { continue };
            let settable = matches!(inode.kind, InodeKind::File(_) | InodeKind::Directory);
            if !apply::late_flags(inode.flags) || !settable || self.done.changed_meanwhile.contains(&action.path) {
                continue;
            }
            let failed = |e| self.failed("set flags of", &action.path, e);
            if inode.kind == InodeKind::Directory {
                let dir = chain.dir(action.path.as_bytes()).map_err(failed)?;
                FdAttrs(dir.as_fd()).set_flags(inode.flags).map_err(failed)?;
            } else {
                let (dir, name) = chain.parent(action.path.as_bytes()).map_err(failed)?;
                let fd = dir.open_file(name).map_err(failed)?;
                FdAttrs(fd.as_fd()).set_flags(inode.flags).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Metadata of directories that stay, the deepest first: a step below may need rights that they take away.
    fn directories(&mut self, plan: &CheckoutPlan) -> Result<()> {
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
            if let Change::Metadata { inode, .. } = &action.change
                && inode.kind == InodeKind::Directory
            {
                let work = todo.entry(&action.path).or_default();
                (work.inode, work.mtime) = (Some(&**inode), Some(inode.mtime));
            }
        }
        let mut chain = DirChain::new(self.root);
        for (path, work) in todo.into_iter().rev() {
            let dir = chain.dir(path.as_bytes()).map_err(|e| self.failed("open", path, e))?;
            let live = if work.inode.is_some() { Some(self.directory(path, dir)?) } else { None };
            work.set(dir, live.as_ref()).map_err(|e| self.failed("change", path, e))?;
        }
        Ok(())
    }

    fn directory(&self, path: &TreePath, dir: &Dir) -> Result<Inode> {
        let failed = |e| self.failed("read", path, e);
        let dir = std::sync::Arc::new(dir.try_clone().map_err(failed)?);
        let stat = dir.stat(b"").map_err(failed)?;
        let found = Found { path: path.clone(), stat, parent: None, dir: Some(dir), mount_point: false };
        inode::read_metadata(&found, self.rules.xattrs(), UnknownXattrs::Ignore)
    }

    /// A live path as a walk would find it; `None` when it is gone.
    fn found(&self, chain: &mut DirChain<'_>, path: &TreePath) -> Result<Option<Found>> {
        let failed = |e| self.failed("look at", path, e);
        let (dir, name) = chain.parent(path.as_bytes()).map_err(failed)?;
        let Some(stat) = dir.stat_opt(name).map_err(failed)? else { return Ok(None) };
        let parent = Some(std::sync::Arc::new(dir.try_clone().map_err(failed)?));
        Ok(Some(Found { path: path.clone(), stat, parent, dir: None, mount_point: false }))
    }

    /// Whether a live path still is what the plan saw. A directory's content is judged by what happens in it.
    fn is_as_planned(&self, chain: &mut DirChain<'_>, path: &TreePath, was: &Stat) -> Result<bool> {
        let (dir, name) = chain.parent(path.as_bytes()).map_err(|e| self.failed("look at", path, e))?;
        let now = dir.stat_opt(name).map_err(|e| self.failed("look at", path, e))?;
        Ok(now.is_some_and(|now| {
            let same_inode = (now.dev, now.ino, now.file_type) == (was.dev, was.ino, was.file_type);
            // A hard-linked inode's ctime moves when another name of it is replaced or linked.
            let same_time = was.is_dir() || was.nlink > 1 || now.ctime == was.ctime || now.nlink != was.nlink;
            same_inode && same_time && (was.is_dir() || (now.size, now.mtime) == (was.size, was.mtime))
        }))
    }

    fn step(
        &mut self,
        chain: &mut DirChain<'_>,
        action: &Action,
        op: impl Fn(&Dir, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        self.try_step(chain, action, op).map_err(|e| self.failed("switch", &action.path, e))
    }

    /// Does one step. Where rights or flags forbid it, they are lifted and put back at the end.
    fn try_step(
        &mut self,
        chain: &mut DirChain<'_>,
        action: &Action,
        op: impl Fn(&Dir, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (dir, name) = chain.parent(action.path.as_bytes())?;
        match op(dir, name) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let before = dir.stat(b"")?;
                let attrs = FdAttrs(dir.as_fd());
                let flags = attrs.flags()?;
                self.lifted.push((action.path.parent().unwrap_or_default(), before.mode, flags));
                attrs.set_flags(InodeFlags::default()).or_else(unsupported_is_fine)?;
                if before.mode & 0o300 != 0o300 {
                    attrs.set_mode(before.mode | 0o700)?;
                }
                if dir.stat_opt(name)?.is_some_and(|stat| stat.file_type == crate::fsio::FileType::File) {
                    let fd = dir.open_file(name)?;
                    FdAttrs(fd.as_fd()).set_flags(InodeFlags::default()).or_else(unsupported_is_fine)?;
                } else if dir.stat_opt(name)?.is_some_and(|stat| stat.is_dir()) {
                    let inner = dir.open_dir(name)?;
                    FdAttrs(inner.as_fd()).set_flags(InodeFlags::default()).or_else(unsupported_is_fine)?;
                }
                op(dir, name)
            }
            done => done,
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
    /// All its metadata.
    inode: Option<&'p Inode>,
    mtime: Option<Timestamp>,
}

impl DirWork<'_> {
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
            (Some(inode), _) if live.is_some_and(|live| live.flags != inode.flags) || self.before.is_some() => {
                attrs.set_flags(inode.flags).or_else(unsupported_is_fine)
            }
            (None, Some((_, flags))) => attrs.set_flags(flags).or_else(unsupported_is_fine),
            _ => Ok(()),
        }
    }
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
