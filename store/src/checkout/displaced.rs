// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What gave way: it lies in the staging directory under the number of its step, complete but for its rights.
//!
//! A user may hold a displaced set-id program by another name or an open descriptor. It keeps neither set-id bits nor
//! capabilities; the journal has them, and going back gives them to it again, or to a copy where it has other names.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::chain::{DirChain, is_other_now};
use super::journal::Was;
use super::lift::{At, Lifts, Moving};
use crate::format::manifest::{InodeFlags, Timestamp};
use crate::fsio::{self, CAPABILITIES, Dir, FdAttrs, FileType, Replace, Stat};
use crate::path::TreePath;

const SET_ID: u16 = 0o6000;

/// Whether a directory that was just moved away holds nothing but what the plan moves with it. Whoever is still in it may
/// go on changing it: what changes while this looks was not planned.
pub(super) fn holds_only(dir: Dir, top: &TreePath, within: &[(TreePath, Was)]) -> io::Result<bool> {
    match looks_as_planned(dir, top, within) {
        Err(e) if is_other_now(&e) => Ok(false),
        found => found,
    }
}

fn looks_as_planned(dir: Dir, top: &TreePath, within: &[(TreePath, Was)]) -> io::Result<bool> {
    let planned: BTreeMap<&TreePath, &Was> = within.iter().map(|(path, was)| (path, was)).collect();
    let mut todo = vec![(top.clone(), dir)];
    while let Some((path, dir)) = todo.pop() {
        for name in dir.names()? {
            let Ok(path) = path.join(&name) else { return Ok(false) };
            let Some(now) = dir.stat_opt(&name)? else { continue };
            if !planned.get(&path).is_some_and(|was| was.is_still(&now)) {
                return Ok(false);
            }
            if now.is_dir() {
                todo.push((path, dir.open_dir(&name)?));
            }
        }
    }
    Ok(true)
}

/// Gives a directory that has moved its time again, if moving has changed it.
pub(super) fn put_time_back(
    lifts: &mut Lifts,
    at: At<'_>,
    (dir, name): (&Dir, &[u8]),
    ino: u64,
    mtime: Timestamp,
) -> io::Result<()> {
    let moved = dir.stat_opt(name)?.filter(|stat| stat.is_dir() && stat.ino == ino && stat.mtime != mtime);
    if moved.is_none() {
        return Ok(());
    }
    // Through a descriptor: the name may be another inode's by now.
    let Some(lifted) = Moving::lift(lifts, at, dir, name, |found| found == ino)? else { return Ok(()) };
    let set = lifted.set_mtime(mtime);
    lifted.put_back().and(set)
}

/// Capabilities of a live program that is to give way; nobody else has any.
pub(super) fn capabilities(chain: &mut DirChain<'_>, path: &TreePath, was: &Stat) -> io::Result<Option<Vec<u8>>> {
    const EXECUTABLE: u16 = 0o111;
    if was.file_type != FileType::File || was.mode & EXECUTABLE == 0 {
        return Ok(None);
    }
    let read = |chain: &mut DirChain<'_>| -> io::Result<Option<Vec<u8>>> {
        let (dir, name) = chain.parent(path.as_bytes())?;
        let file = dir.open_file(name)?;
        // Rights that are remembered are given back one day: only to whom they belong.
        if Stat::of_fd(&file)?.ino == was.ino { FdAttrs(file.as_fd()).xattr(CAPABILITIES) } else { Ok(None) }
    };
    match read(chain) {
        // Whoever is not root can neither read what is not theirs nor have made capabilities.
        Err(e) if is_other_now(&e) || fsio::is_unopenable(&e) || e.kind() == io::ErrorKind::PermissionDenied => {
            Ok(None)
        }
        found => found,
    }
}

/// Where something lies that gave way, below the directory of all that did: `path`, which is `top` or went with it.
pub(super) fn place(staged: &[u8], top: &TreePath, path: &TreePath) -> Vec<u8> {
    let below = &path.as_bytes()[top.as_bytes().len()..];
    // Only below the area's root does it begin without a separator.
    let separator: &[u8] = if below.is_empty() || below.starts_with(b"/") { b"" } else { b"/" };
    [staged, separator, below].concat()
}

/// The displaced programs of a step that give rights: where they are in the tree and below staging, and what they were.
fn rights<'w>(staged: &[u8], path: &'w TreePath, was: &'w Was) -> Vec<(&'w TreePath, Vec<u8>, &'w Was)> {
    let all = std::iter::once((path, was)).chain(was.within.iter().map(|(path, was)| (path, was)));
    all.filter(|(_, was)| was.gives_rights()).map(|(at, was)| (at, place(staged, path, at), was)).collect()
}

/// Takes set-id bits and capabilities from what gave way. May be called again.
pub(super) fn strip(lifts: &mut Lifts, staging: &Dir, staged: &[u8], path: &TreePath, was: &Was) -> io::Result<()> {
    let mut chain = DirChain::new(staging);
    for (path, place, was) in rights(staged, path, was) {
        let Some(file) = open(&mut chain, &place, was)? else { continue };
        take_rights(lifts, (path, &place), &file)?;
    }
    Ok(())
}

/// Takes them from everything that lies there and has no other name: from what was to come back and cannot. What cannot be
/// opened gives this process no rights to take.
pub(super) fn strip_all(lifts: &mut Lifts, staging: &Dir, staged: &[u8], path: &TreePath) -> io::Result<()> {
    let mut chain = DirChain::new(staging);
    let mut todo = vec![(path.clone(), staged.to_vec())];
    while let Some((path, place)) = todo.pop() {
        match strip_one(lifts, &mut chain, (&path, &place)) {
            Err(e) if is_other_now(&e) || fsio::is_unopenable(&e) || e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => return Err(e),
            Ok(names) => todo.extend(
                names
                    .into_iter()
                    .filter_map(|name| Some((path.join(&name).ok()?, [&place, &b"/"[..], &name].concat()))),
            ),
        }
    }
    Ok(())
}

/// Gives the names in it where it is a directory.
fn strip_one(lifts: &mut Lifts, chain: &mut DirChain<'_>, at: At<'_>) -> io::Result<Vec<Vec<u8>>> {
    let (dir, name) = chain.parent(at.1)?;
    let stat = dir.stat(name)?;
    if stat.is_dir() {
        return chain.dir(at.1)?.names();
    }
    if stat.file_type == FileType::File && stat.nlink == 1 {
        let file = dir.open_file(name)?;
        if stat.mode & SET_ID != 0 || FdAttrs(file.as_fd()).xattr(CAPABILITIES)?.is_some() {
            take_rights(lifts, at, &file)?;
        }
    }
    Ok(Vec::new())
}

fn take_rights(lifts: &mut Lifts, at: At<'_>, file: &OwnedFd) -> io::Result<()> {
    lifts.without_flags(at, file, |attrs, stat| {
        attrs.remove_xattr(CAPABILITIES)?;
        if stat.mode & SET_ID == 0 { Ok(()) } else { attrs.set_mode(stat.mode & !SET_ID) }
    })
}

/// Displaced programs that give rights and have several names.
#[derive(Debug)]
pub(super) struct Groups {
    /// How many of an inode's names are known; where that is all of them, nobody else has one.
    here: HashMap<u64, u32>,
    /// Where the copy of an inode is, for its other names here.
    copies: HashMap<u64, Vec<u8>>,
    /// What is lifted meanwhile.
    lifts: Lifts,
}

impl Groups {
    /// None yet. What must be lifted for a moment is remembered in `lifts`.
    pub(super) fn new(lifts: Lifts) -> Groups {
        Groups { here: HashMap::new(), copies: HashMap::new(), lifts }
    }

    /// Counts the names that gave way in one step. To be called for every step before the first [`Groups::give_back`].
    pub(super) fn count(&mut self, staging: &Dir, staged: &[u8], path: &TreePath, was: &Was) -> io::Result<()> {
        let mut chain = DirChain::new(staging);
        for (_, place, was) in rights(staged, path, was).into_iter().filter(|(.., was)| was.nlink > 1) {
            if open(&mut chain, &place, was)?.is_some() {
                *self.here.entry(was.ino).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Whether no such program was counted.
    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty()
    }

    /// Whether names of an inode were counted.
    pub(super) fn has(&self, ino: u64) -> bool {
        self.here.contains_key(&ino)
    }

    /// Counts a name that is known and nobody else's: a live one that was to give way, one in an undo. Before the first
    /// [`Groups::give_back`], too.
    pub(super) fn count_known(&mut self, ino: u64) {
        *self.here.entry(ino).or_default() += 1;
    }

    /// Gives the copy of an inode, if it has one, a further name in staging.
    pub(super) fn link_to_copy(
        &mut self,
        staging: &Dir,
        path: &TreePath,
        name: &[u8],
        ino: u64,
    ) -> io::Result<Option<Stat>> {
        let Some(place) = self.copies.get(&ino) else { return Ok(None) };
        let mut chain = DirChain::new(staging);
        let (copies, copy) = chain.parent(place)?;
        if staging.stat_opt(name)?.is_some() {
            staging.unlink(name)?;
        }
        let lifted = Moving::lift(&mut self.lifts, (path, place), copies, copy, |_| true)?;
        let done = copies.link(copy, staging, name);
        lifted.map_or(Ok(()), Moving::put_back).and(done)?;
        staging.stat(name).map(Some)
    }

    /// Gives what gave way in one step its rights again. An inode that somebody may have by another name stays without; a
    /// copy takes its place. Whatever else is there by now gets none: whoever was in a directory when it gave way may
    /// still change it. May be called again.
    pub(super) fn give_back(&mut self, staging: &Dir, staged: &[u8], path: &TreePath, was: &Was) -> io::Result<()> {
        let mut chain = DirChain::new(staging);
        for (path, place, was) in rights(staged, path, was) {
            let Some(file) = open(&mut chain, &place, was)? else { continue };
            let at = (path, &place[..]);
            // First of all: a name that a copy has taken was one of those counted.
            if let Some(known) = self.copies.get(&was.ino) {
                link_copy(&mut self.lifts, staging, known, at, was.ino)?;
            } else if Stat::of_fd(&file)?.nlink <= self.here.get(&was.ino).copied().unwrap_or(1) {
                set_rights(&mut self.lifts, at, &file, was)?;
            } else {
                copy(&mut self.lifts, &mut chain, at, &file, was)?;
                self.copies.insert(was.ino, place);
            }
        }
        Ok(())
    }
}

fn set_rights(lifts: &mut Lifts, at: At<'_>, file: &OwnedFd, was: &Was) -> io::Result<()> {
    lifts.without_flags(at, file, |attrs, _| {
        attrs.set_mode(was.mode)?;
        was.caps.iter().try_for_each(|caps| attrs.set_xattr(CAPABILITIES, caps))
    })
}

/// A displaced file, if it is there. Told by its inode number once it is open.
fn open(chain: &mut DirChain<'_>, place: &[u8], was: &Was) -> io::Result<Option<OwnedFd>> {
    let opened = chain.parent(place).and_then(|(dir, name)| match dir.stat(name)?.file_type {
        FileType::File => dir.open_file(name).map(Some),
        _ => Ok(None),
    });
    let file = match opened {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(None),
        Err(e) if is_other_now(&e) || fsio::is_unopenable(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let now = Stat::of_fd(&file)?;
    let is_it = now.ino == was.ino && now.file_type == was.file_type && now.size == was.size;
    Ok(is_it.then_some(file))
}

/// Puts a copy, complete with its rights, in the place of a displaced file.
fn copy(lifts: &mut Lifts, chain: &mut DirChain<'_>, at: At<'_>, file: &OwnedFd, was: &Was) -> io::Result<()> {
    let (dir, name) = chain.parent(at.1)?;
    let mtime = dir.stat(b"")?.mtime;
    let temporary = free_temporary(dir, name)?;
    let new = dir.create_file(&temporary)?;
    copy_without_rights(file, &new)?;
    set_rights(lifts, at, &new, was)?;
    fsio::sync_file(&new)?;
    let (stat, to) = (Stat::of_fd(file)?, FdAttrs(new.as_fd()));
    let flags = FdAttrs(file.as_fd()).flags()?;
    if flags == InodeFlags::default() {
        return replace_displaced(lifts, at, (dir, name, mtime), &temporary, stat.ino);
    }
    // It gets them last: they may forbid to rename it.
    lifts.moves(at, &Stat::of_fd(&new)?, flags)?;
    replace_displaced(lifts, at, (dir, name, mtime), &temporary, stat.ino)?;
    to.set_flags(flags)
}

/// Gives a new file the content and the metadata of another, but neither set-id bits nor capabilities nor flags.
pub(super) fn copy_without_rights(file: &OwnedFd, new: &OwnedFd) -> io::Result<()> {
    let (stat, from, to) = (Stat::of_fd(file)?, FdAttrs(file.as_fd()), FdAttrs(new.as_fd()));
    match fsio::clone_or_copy(file, new, stat.size) {
        // Somebody who has it open has just made it shorter.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => fsio::set_len(new, Stat::of_fd(file)?.size)?,
        copied => drop(copied?),
    }
    if Stat::of_fd(new).map(|new| (new.uid, new.gid))? != (stat.uid, stat.gid) {
        to.set_owner(stat.uid, stat.gid)?;
    }
    to.set_mode(stat.mode & !SET_ID)?;
    for name in from.xattr_names()?.into_iter().filter(|name| name != CAPABILITIES) {
        if let Some(value) = from.xattr(&name)? {
            to.set_xattr(&name, &value)?;
        }
    }
    to.set_mtime(stat.mtime)
}

/// Gives the copy of an inode the place of another displaced name of that inode.
fn link_copy(lifts: &mut Lifts, staging: &Dir, copy: &[u8], at: At<'_>, ino: u64) -> io::Result<()> {
    let (mut from, mut to) = (DirChain::new(staging), DirChain::new(staging));
    let ((copies, copy_name), (dir, name)) = (from.parent(copy)?, to.parent(at.1)?);
    let mtime = dir.stat(b"")?.mtime;
    let temporary = free_temporary(dir, name)?;
    let lifted = Moving::lift(lifts, (at.0, copy), copies, copy_name, |_| true)?;
    let linked = copies.link(copy_name, dir, &temporary);
    let done = linked.and_then(|()| replace_displaced(lifts, at, (dir, name, mtime), &temporary, ino));
    lifted.map_or(Ok(()), Moving::put_back).and(done)
}

/// The name of what is to take the place of `name`, with nothing there.
fn free_temporary(dir: &Dir, name: &[u8]) -> io::Result<Vec<u8>> {
    const COPY: &[u8] = b".copy";
    let temporary = [name, COPY].concat();
    if dir.stat_opt(&temporary)?.is_some() {
        // It may have its flags already.
        dir.remove_all(&temporary)?;
    }
    Ok(temporary)
}

/// Renames over a displaced inode, also where its flags forbid that. Whoever has it by another name keeps it with its flags,
/// and the directory keeps its time.
fn replace_displaced(
    lifts: &mut Lifts,
    at: At<'_>,
    (dir, name, mtime): (&Dir, &[u8], Timestamp),
    temporary: &[u8],
    ino: u64,
) -> io::Result<()> {
    let lifted = Moving::lift(lifts, at, dir, name, |found| found == ino)?;
    let done = dir.rename(temporary, dir, name, Replace::Allowed);
    lifted.map_or(Ok(()), Moving::put_back).and(done)?;
    FdAttrs(dir.as_fd()).set_mtime(mtime)
}

fn old_name(staged: &[u8]) -> Vec<u8> {
    [staged, b".old"].concat()
}

/// An exchange on a file system that has none: the old inode gets a second name in staging, then the new one takes the
/// live name. Not for directories. Whoever replaces the name in between loses what they put there: without an exchange
/// nothing can prevent that.
pub(super) fn exchange_by_link(staging: &Dir, staged: &[u8], dir: &Dir, name: &[u8]) -> io::Result<()> {
    let old = old_name(staged);
    match dir.link(name, staging, &old) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    let (kept, live) = (staging.stat(&old)?, dir.stat(name)?);
    if (kept.ino, kept.dev) != (live.ino, live.dev) {
        // Of an exchange that was cut off, or somebody was faster.
        return Err(Errno::NOENT.into());
    }
    staging.rename(staged, dir, name, Replace::Allowed)?;
    settle_exchange(staging, staged)
}

/// Completes such an exchange, if it came so far that the new inode has the live name.
pub(super) fn settle_exchange(staging: &Dir, staged: &[u8]) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, NotFound};
    match staging.rename(&old_name(staged), staging, staged, Replace::Never) {
        Err(e) if !matches!(e.kind(), NotFound | AlreadyExists) => Err(e),
        _ => Ok(()),
    }
}

/// Takes back the second name of an inode, `live`, that was not replaced after all.
pub(super) fn forget_exchange(staging: &Dir, staged: &[u8], live: u64) -> io::Result<()> {
    let old = old_name(staged);
    match staging.stat_opt(&old)? {
        Some(found) if found.ino == live => staging.unlink(&old),
        _ => Ok(()),
    }
}
