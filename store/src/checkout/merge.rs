// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Three sorted streams merged once: target manifest, last applied manifest, live tree → [`CheckoutPlan`].
//!
//! | live entry | incremental | full |
//! |---|---|---|
//! | as the reference | nothing | nothing |
//! | as last applied, reference changed | update | update |
//! | as last applied, dropped from the reference | leave, count | remove (release removal) |
//! | content changed locally, reference unchanged | keep, report | restore |
//! | changed locally, reference changed | policy | restore |
//! | metadata changed locally, reference unchanged | keep, report | restore |
//! | missing locally | restore | restore |
//! | present, never applied, now in the reference | policy | restore |
//! | not in the reference, never delivered (a stray) | leave | remove |
//! | type change over a directory that is not empty | keep, report | replace |
//!
//! A directory's mtime is never drift: any neighbour that adds a name changes it. It is set at the end for directories
//! in which something changed or whose own entry changed; in full mode for all. Names of one hard-link group that have
//! the right content but no longer share an inode are joined again in both modes.
//!
//! Invariant: pure. What a live inode holds beyond `statx` is asked of [`LiveTree`], and only where the fingerprint
//! does not prove it.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use super::compare::{Difference, differences, file_type, metadata_differences};
use super::options::{Adopt, ConflictPolicy, Mode};
use super::plan::{
    Action, Change, CheckoutPlan, DroppedEntry, Kept, KeptBecause, Outcome, Reason, Skipped, Wanted,
    may_change_in_place,
};
use crate::error::Result;
use crate::files_cache::Fingerprint;
use crate::format::manifest::{Entry, Inode, InodeKind, Node, Timestamp};
use crate::fsio::{FileType, Stat};
use crate::id::ContentHash;
use crate::path::TreePath;

/// A live tree: a sorted stream of what belongs to the area, and answers about single inodes.
pub trait LiveTree {
    /// One live path.
    type Item;

    /// The next path in order.
    ///
    /// # Errors
    /// When something cannot be looked at: a plan over an incomplete view would remove or restore wrongly.
    fn next(&mut self) -> Result<Option<Self::Item>>;

    /// Its path.
    fn path(item: &Self::Item) -> &TreePath;

    /// Its metadata.
    fn stat(item: &Self::Item) -> &Stat;

    /// Whether another file system is mounted there.
    fn is_mount_point(item: &Self::Item) -> bool;

    /// Whether it is a directory that belongs to the area only if something in it does.
    fn is_passage(item: &Self::Item) -> bool;

    /// Whether something that the stream left out is at `path`, which the stream has passed.
    ///
    /// # Errors
    /// What the system says.
    fn is_taken(&mut self, path: &TreePath) -> Result<bool>;

    /// The whole inode but a file's content.
    ///
    /// # Errors
    /// What the system says.
    fn metadata(&mut self, item: &Self::Item) -> Result<Inode>;

    /// Hash of a regular file's content.
    ///
    /// # Errors
    /// What the system says.
    fn content_hash(&mut self, item: &Self::Item) -> Result<ContentHash>;

    /// Whether a directory that the stream has passed holds something that does not belong to the area.
    fn holds_outside(&self, dir: &TreePath) -> bool;
}

/// A path as it was last applied here, in this machine's owner ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedEntry {
    /// The entry.
    pub entry: Entry,
    /// Whether it was already dropped from the reference at the last checkout.
    pub dropped: bool,
    /// Whether a live inode is the one that was delivered.
    pub print: Option<Fingerprint>,
}

/// The rules of one merge.
#[derive(Debug, Clone, Copy)]
pub struct MergeRules {
    /// Mode.
    pub mode: Mode,
    /// For paths that changed on both sides.
    pub conflict: ConflictPolicy,
    /// First contact with this tree: nothing is removed, and this decides what differs.
    pub adoption: Option<Adopt>,
    /// A switch was interrupted: fingerprints of paths that changed since are not trusted.
    pub interrupted: bool,
    /// The time now, for [`ConflictPolicy::Newer`].
    pub now: Timestamp,
}

/// Makes the plan for one area.
///
/// `target` and `applied` are sorted by path and complete; owner ids are this machine's. `outside` says which entries
/// of the target a local rule excludes.
///
/// # Errors
/// The first error of any stream.
pub fn plan_area<L: LiveTree>(
    target: impl Iterator<Item = Result<Entry>>,
    applied: impl Iterator<Item = Result<AppliedEntry>>,
    live: L,
    rules: &MergeRules,
    outside: impl Fn(&TreePath, bool) -> bool,
) -> Result<CheckoutPlan> {
    let mut merge = Merge {
        rules: *rules,
        live,
        plan: CheckoutPlan::default(),
        frames: Vec::new(),
        groups: HashMap::new(),
        applied_groups: HashMap::new(),
        claims: HashMap::new(),
        doomed: Vec::new(),
    };
    merge.run(target, applied, outside)?;
    Ok(merge.finish())
}

/// The wanted inode of one path.
struct Target {
    path: TreePath,
    inode: Inode,
    /// First path of its hard-link group, when it has one.
    group: Option<TreePath>,
}

/// The inode last applied at one path.
struct Applied {
    inode: Inode,
    dropped: bool,
    print: Option<Fingerprint>,
    group: Option<TreePath>,
}

/// A live path with what is known of it.
struct Seen<I> {
    item: I,
    /// The fingerprint proves that it is as last applied.
    proven: bool,
    metadata: Option<Inode>,
    hash: Option<ContentHash>,
}

/// Where the inode of a hard-link group is.
#[derive(Clone)]
struct Leader {
    path: TreePath,
    live: Option<Stat>,
}

/// A hard-link group of the target.
struct Group {
    inode: Inode,
    leader: Option<Leader>,
}

/// What the parent means for the entries below it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// A live directory that stays.
    Live,
    /// A directory that is made as a whole.
    New,
    /// Nothing of the target can be delivered below.
    Blocked,
    /// A live directory in the way of something else (`action` replaces it) or no longer wanted (`action` removes it).
    Going { action: usize, outcome: Option<usize> },
}

/// A directory on the way to the current path.
struct Frame {
    path: TreePath,
    ground: Ground,
    /// Wanted mtime, when the target has this directory and it stays.
    mtime: Option<Timestamp>,
    /// Its mtime has to be set.
    touched: bool,
    /// Live names in it that belong to the area.
    live_names: u64,
    /// It or something below holds what may not be removed.
    holds_foreign: bool,
}

struct Merge<L: LiveTree> {
    rules: MergeRules,
    live: L,
    plan: CheckoutPlan,
    frames: Vec<Frame>,
    groups: HashMap<TreePath, Group>,
    applied_groups: HashMap<TreePath, Inode>,
    /// Live inodes with several names that the target already uses, and the first path of the group that does.
    claims: HashMap<((u32, u32), u64), TreePath>,
    /// Actions that turned out to be impossible.
    doomed: Vec<usize>,
}

impl<L: LiveTree> Merge<L> {
    fn run(
        &mut self,
        mut target: impl Iterator<Item = Result<Entry>>,
        mut applied: impl Iterator<Item = Result<AppliedEntry>>,
        outside: impl Fn(&TreePath, bool) -> bool,
    ) -> Result<()> {
        let mut next_target = target.next().transpose()?;
        let mut next_applied = applied.next().transpose()?;
        let mut next_live = self.live.next()?;
        loop {
            let paths = [
                next_target.as_ref().map(|entry| &entry.path),
                next_applied.as_ref().map(|record| &record.entry.path),
                next_live.as_ref().map(L::path),
            ];
            let Some(path) = paths.iter().flatten().min().map(|path| (*path).clone()) else { break };
            let here = |candidate: Option<&TreePath>| candidate.is_some_and(|p| p.cmp(&path) == Ordering::Equal);
            let (has_target, has_applied, has_live) = (here(paths[0]), here(paths[1]), here(paths[2]));
            self.leave_until(&path);
            let entry = if has_target { std::mem::replace(&mut next_target, target.next().transpose()?) } else { None };
            let record =
                if has_applied { std::mem::replace(&mut next_applied, applied.next().transpose()?) } else { None };
            // The live stream is advanced before the path is judged: `holds_outside` is asked on leaving only.
            let item = if has_live { next_live.take() } else { None };
            let wanted = entry.and_then(|entry| self.resolve_target(entry));
            let record = record.and_then(|record| self.resolve_applied(record));
            self.judge(&path, wanted, record, item, &outside)?;
            if has_live {
                next_live = self.live.next()?;
            }
        }
        while !self.frames.is_empty() {
            self.leave();
        }
        Ok(())
    }

    /// Gives a link entry the inode of its group.
    fn resolve_target(&mut self, entry: Entry) -> Option<Target> {
        match entry.node {
            Node::Inode(inode) => {
                let group = (inode.links > 1).then(|| entry.path.clone());
                if let Some(first) = &group {
                    self.groups.insert(first.clone(), Group { inode: inode.clone(), leader: None });
                }
                Some(Target { path: entry.path, inode, group })
            }
            Node::Link { first } => {
                // A manifest whose links lead nowhere does not decode.
                let inode = self.groups.get(&first)?.inode.clone();
                Some(Target { path: entry.path, inode, group: Some(first) })
            }
        }
    }

    fn resolve_applied(&mut self, record: AppliedEntry) -> Option<Applied> {
        let AppliedEntry { entry, dropped, print } = record;
        match entry.node {
            Node::Inode(inode) => {
                let group = (inode.links > 1).then(|| entry.path.clone());
                if group.is_some() {
                    self.applied_groups.insert(entry.path, inode.clone());
                }
                Some(Applied { inode, dropped, print, group })
            }
            Node::Link { first } => {
                let inode = self.applied_groups.get(&first)?.clone();
                Some(Applied { inode, dropped, print, group: Some(first) })
            }
        }
    }

    fn judge(
        &mut self,
        path: &TreePath,
        wanted: Option<Target>,
        applied: Option<Applied>,
        item: Option<L::Item>,
        outside: &impl Fn(&TreePath, bool) -> bool,
    ) -> Result<()> {
        if let (true, Some(parent)) = (item.is_some(), self.frames.last_mut()) {
            parent.live_names += 1;
        }
        match (wanted, item) {
            (Some(target), item) if outside(path, target.inode.kind == InodeKind::Directory) => {
                debug_assert!(item.is_none(), "the walk has the same rules");
                self.plan.outcomes.push(Outcome::Skipped);
                self.enter(path, &target.inode, Ground::Blocked);
                Ok(())
            }
            (Some(target), None) => self.absent(target, applied),
            (Some(target), Some(item)) => self.present(target, applied, item),
            (None, Some(item)) => self.unwanted(path, applied, item),
            (None, None) => Ok(()),
        }
    }

    /// The target has it, the live tree does not.
    fn absent(&mut self, target: Target, applied: Option<Applied>) -> Result<()> {
        let ground = self.frames.last().map_or(Ground::New, |frame| frame.ground);
        if matches!(ground, Ground::Blocked | Ground::Going { .. }) {
            self.plan.counts.blocked += 1;
            self.plan.outcomes.push(Outcome::Skipped);
            self.enter(&target.path, &target.inode, Ground::Blocked);
            return Ok(());
        }
        if target.inode.kind == InodeKind::Socket {
            self.skip(target.path, "a socket is made by the program that listens on it");
            return Ok(());
        }
        let beside_excluded =
            ground == Ground::Live && target.path.parent().is_some_and(|p| self.live.holds_outside(&p));
        if beside_excluded && self.live.is_taken(&target.path)? {
            self.enter(&target.path, &target.inode, Ground::Blocked);
            self.keep(target.path, KeptBecause::ExcludedInTheWay);
            return Ok(());
        }
        let reason = match applied {
            Some(Applied { dropped: false, .. }) => Reason::Missing,
            _ => Reason::Added,
        };
        self.touch_parent();
        let inside = ground == Ground::New && !self.frames.is_empty();
        self.enter(&target.path, &target.inode, Ground::New);
        let wanted = self.wanted(&target);
        self.plan.outcomes.push(Outcome::Delivered);
        self.plan.actions.push(Action { path: target.path, change: Change::Add { wanted, inside }, reason });
        Ok(())
    }

    /// Target and live tree have it.
    fn present(&mut self, target: Target, applied: Option<Applied>, item: L::Item) -> Result<()> {
        let stat = *L::stat(&item);
        if L::is_mount_point(&item) {
            self.mark_foreign();
            self.enter(&target.path, &target.inode, Ground::Blocked);
            self.keep(target.path, KeptBecause::MountPoint);
            return Ok(());
        }
        if target.inode.kind == InodeKind::Socket {
            self.skip(target.path, "a socket is made by the program that listens on it");
            return Ok(());
        }
        let mut seen = self.see(item, applied.as_ref(), Some(&target));
        let to_target = self.compare(&mut seen, &target.inode, applied.as_ref())?;
        if to_target.is_none() {
            return self.equal(target, applied, &mut seen);
        }
        let to_applied = match &applied {
            Some(applied) => Some(self.compare(&mut seen, &applied.inode, Some(applied))?),
            None => None,
        };
        match self.verdict(&target, applied.as_ref(), to_target, to_applied, &stat) {
            Ok((reason, keep_aside)) => self.deliver(target, &mut seen, reason, keep_aside),
            Err(because) => {
                let ground = if stat.is_dir() { Ground::Live } else { Ground::Blocked };
                if stat.is_dir() && target.inode.kind != InodeKind::Directory {
                    self.enter_live(&target.path, None, Ground::Live);
                } else {
                    self.enter(&target.path, &target.inode, ground);
                }
                self.keep(target.path, because);
                Ok(())
            }
        }
    }

    /// Content and metadata are as wanted; hard links may not be.
    fn equal(&mut self, target: Target, applied: Option<Applied>, seen: &mut Seen<L::Item>) -> Result<()> {
        let stat = *L::stat(&seen.item);
        if let Some(reason) = self.claim(&target, applied.as_ref(), &stat) {
            return match reason {
                Ok(reason) => self.deliver(target, seen, reason, false),
                Err(because) => {
                    self.keep(target.path, because);
                    Ok(())
                }
            };
        }
        let counts = &mut self.plan.counts;
        counts.unchanged += 1;
        counts.adopted += u64::from(applied.is_none());
        counts.unproven += u64::from(!seen.proven);
        self.plan.outcomes.push(Outcome::Same(stat));
        if target.inode.kind == InodeKind::Directory {
            let entry_changed = applied.is_none_or(|applied| applied.inode.mtime != target.inode.mtime);
            let adopting_kept = self.rules.adoption == Some(Adopt::Keep);
            // An interrupted switch has put names into directories whose time it did not come to set.
            let wants_time = self.rules.interrupted || ((self.rules.mode.is_full() || entry_changed) && !adopting_kept);
            self.enter(&target.path, &target.inode, Ground::Live);
            if wants_time && stat.mtime != target.inode.mtime {
                self.touch_self();
            }
        }
        Ok(())
    }

    /// Registers the use of a live inode as it is. Gives what is to be done instead when names that belong together
    /// do not share it, or names that do not belong together do.
    fn claim(
        &mut self,
        target: &Target,
        applied: Option<&Applied>,
        stat: &Stat,
    ) -> Option<Result<Reason, KeptBecause>> {
        if stat.is_dir() {
            return None;
        }
        let owner = target.group.as_ref().unwrap_or(&target.path);
        if stat.nlink > 1 {
            let claimed = self.claims.entry((stat.dev, stat.ino)).or_insert_with(|| owner.clone());
            if claimed != owner {
                // Two inodes of the reference are one inode here.
                let reference_changed = applied.is_some_and(|applied| applied.group != target.group);
                return Some(if self.rules.mode.is_full() {
                    Ok(Reason::Restored(Difference::LINKS))
                } else if reference_changed {
                    Ok(Reason::Updated(Difference::LINKS))
                } else {
                    Err(KeptBecause::LocalChange(Difference::LINKS))
                });
            }
        }
        let group = self.groups.get_mut(target.group.as_ref()?)?;
        match &group.leader {
            None => {
                group.leader = Some(Leader { path: target.path.clone(), live: Some(*stat) });
                None
            }
            Some(Leader { live: Some(leader), .. }) if (leader.dev, leader.ino) == (stat.dev, stat.ino) => None,
            Some(_) => Some(Ok(Reason::Relinked)),
        }
    }

    /// Who wins where live tree and target differ: `Ok` the reference (and whether the local file stays beside it).
    fn verdict(
        &self,
        target: &Target,
        applied: Option<&Applied>,
        to_target: Difference,
        to_applied: Option<Difference>,
        live: &Stat,
    ) -> Result<(Reason, bool), KeptBecause> {
        let reason = match to_applied {
            Some(changed) if changed.is_none() => return Ok((Reason::Updated(to_target), false)),
            _ if self.rules.interrupted
                && self.rules.adoption.is_none()
                && was_lifted(live, &target.inode, to_target) =>
            {
                return Ok((Reason::Restored(to_target), false));
            }
            Some(_) => Reason::Restored(to_target),
            None => Reason::Unmanaged(to_target),
        };
        match self.rules.adoption {
            Some(Adopt::Keep) => return Err(KeptBecause::LocalChange(to_target)),
            Some(Adopt::Replace) => return Ok((reason, false)),
            None => {}
        }
        if self.rules.mode.is_full() {
            return Ok((reason, false));
        }
        let reference_changed =
            applied.is_none_or(|applied| applied.dropped || !differences(&applied.inode, &target.inode).is_none());
        if !reference_changed {
            return Err(KeptBecause::LocalChange(to_target));
        }
        let local_is_newer = live.mtime > target.inode.mtime && live.mtime <= self.rules.now;
        match self.rules.conflict {
            ConflictPolicy::Replace => Ok((reason, false)),
            ConflictPolicy::Newer if !local_is_newer => Ok((reason, false)),
            ConflictPolicy::Newer | ConflictPolicy::Keep => Err(KeptBecause::Policy(to_target)),
            ConflictPolicy::Both => Ok((reason, !live.is_dir())),
        }
    }

    /// Makes a present path as the target has it.
    fn deliver(&mut self, target: Target, seen: &mut Seen<L::Item>, reason: Reason, keep_aside: bool) -> Result<()> {
        let was = *L::stat(&seen.item);
        let (is_dir, wants_dir) = (was.is_dir(), target.inode.kind == InodeKind::Directory);
        let outcome = self.plan.outcomes.len();
        self.plan.outcomes.push(Outcome::Delivered);
        if is_dir && wants_dir {
            self.enter(&target.path, &target.inode, Ground::Live);
            self.touch_self();
            let change = Change::Metadata { inode: Box::new(target.inode), was: Box::new(was) };
            self.plan.actions.push(Action { path: target.path, change, reason });
            return Ok(());
        }
        let only_metadata = !reason.difference().is_content() && !reason.difference().has(Difference::LINKS);
        if only_metadata && was.file_type == FileType::File && target.group.is_none() {
            let live = self.metadata(seen)?.clone();
            if may_change_in_place(&was, &target.inode, &live) {
                let change = Change::Metadata { inode: Box::new(target.inode), was: Box::new(was) };
                self.plan.actions.push(Action { path: target.path, change, reason });
                return Ok(());
            }
        }
        self.touch_parent();
        let action = self.plan.actions.len();
        if is_dir {
            self.enter_live(&target.path, None, Ground::Going { action, outcome: Some(outcome) });
        } else {
            self.enter(&target.path, &target.inode, Ground::New);
        }
        let wanted = self.wanted(&target);
        let change = Change::Replace { wanted, was: Box::new(was), keep_aside };
        self.plan.actions.push(Action { path: target.path, change, reason });
        Ok(())
    }

    /// Only the live tree has it.
    fn unwanted(&mut self, path: &TreePath, applied: Option<Applied>, item: L::Item) -> Result<()> {
        let stat = *L::stat(&item);
        if L::is_mount_point(&item) {
            self.mark_foreign();
            return Ok(());
        }
        if L::is_passage(&item) && applied.is_none() {
            self.mark_foreign();
            self.enter_live(path, None, Ground::Live);
            return Ok(());
        }
        if self.removes() {
            self.touch_parent();
            let action = self.plan.actions.len();
            if stat.is_dir() {
                self.enter_live(path, None, Ground::Going { action, outcome: None });
            }
            let reason = if applied.is_some() { Reason::Dropped } else { Reason::Stray };
            let change = Change::Remove { was: Box::new(stat), inside: false };
            self.plan.actions.push(Action { path: path.clone(), change, reason });
            // What cannot be removed after all stays known as delivered.
            if let Some(applied) = applied.filter(|_| stat.is_dir()) {
                self.plan.dropped.push(DroppedEntry { path: path.clone(), inode: applied.inode, same: None });
            }
            return Ok(());
        }
        if stat.is_dir() {
            self.enter_live(path, None, Ground::Live);
        }
        let Some(applied) = applied else {
            self.plan.counts.strays_left += 1;
            return Ok(());
        };
        let mut seen = self.see(item, Some(&applied), None);
        let same = self.compare(&mut seen, &applied.inode, Some(&applied))?.is_none().then_some(stat);
        self.plan.counts.dropped_left += 1;
        let inode = Inode { links: 1, ..applied.inode };
        self.plan.dropped.push(DroppedEntry { path: path.clone(), inode, same });
        Ok(())
    }

    /// Whether what the target lacks goes.
    fn removes(&self) -> bool {
        self.rules.mode.is_full() && self.rules.adoption.is_none()
    }

    fn see(&self, item: L::Item, applied: Option<&Applied>, target: Option<&Target>) -> Seen<L::Item> {
        let stat = L::stat(&item);
        let unchanged = |applied: &Applied| target.is_some_and(|t| differences(&applied.inode, &t.inode).is_none());
        let proven = applied.is_some_and(|applied| {
            self.rules.mode != Mode::Force
                && (!self.rules.interrupted || unchanged(applied))
                && applied.print.is_some_and(|print| print == Fingerprint::of(stat))
        });
        Seen { item, proven, metadata: None, hash: None }
    }

    fn metadata<'s>(&mut self, seen: &'s mut Seen<L::Item>) -> Result<&'s Inode> {
        if seen.metadata.is_none() {
            seen.metadata = Some(self.live.metadata(&seen.item)?);
        }
        Ok(seen.metadata.as_ref().expect("just read"))
    }

    /// Compares a live inode with a wanted one; reads as little of it as possible.
    fn compare(&mut self, seen: &mut Seen<L::Item>, wanted: &Inode, applied: Option<&Applied>) -> Result<Difference> {
        if let Some(applied) = applied.filter(|_| seen.proven) {
            return Ok(differences(&applied.inode, wanted));
        }
        let stat = *L::stat(&seen.item);
        let mut found = Difference::none();
        if stat.file_type != file_type(&wanted.kind) {
            found.set_if(true, Difference::KIND);
            return Ok(found);
        }
        let live = self.metadata(seen)?;
        found = metadata_differences(live, wanted);
        match &wanted.kind {
            InodeKind::File(content) if content.size != stat.size => found.set_if(true, Difference::CONTENT),
            InodeKind::File(content) => {
                let hash = match seen.hash {
                    Some(hash) => hash,
                    None => self.live.content_hash(&seen.item)?,
                };
                seen.hash = Some(hash);
                found.set_if(hash != content.hash, Difference::CONTENT);
            }
            other => found.set_if(live.kind != *other, Difference::CONTENT),
        }
        Ok(found)
    }

    /// A new inode, or a further name of the group's one.
    fn wanted(&mut self, target: &Target) -> Wanted {
        let Some(group) = target.group.as_ref().and_then(|first| self.groups.get_mut(first)) else {
            return Wanted::Inode(Box::new(target.inode.clone()));
        };
        match &group.leader {
            Some(leader) => {
                Wanted::Link { leader: leader.path.clone(), live: leader.live.map(|stat| (stat.ino, stat.mtime)) }
            }
            None => {
                group.leader = Some(Leader { path: target.path.clone(), live: None });
                Wanted::Inode(Box::new(target.inode.clone()))
            }
        }
    }

    fn keep(&mut self, path: TreePath, because: KeptBecause) {
        self.plan.outcomes.push(Outcome::Kept);
        self.plan.kept.push(Kept { path, because });
    }

    fn skip(&mut self, path: TreePath, reason: &'static str) {
        self.plan.outcomes.push(Outcome::Skipped);
        self.plan.skipped.push(Skipped { path, reason });
    }

    /// Opens a frame when the target has a directory here.
    fn enter(&mut self, path: &TreePath, inode: &Inode, ground: Ground) {
        if inode.kind == InodeKind::Directory {
            self.enter_live(path, (ground == Ground::Live).then_some(inode.mtime), ground);
        }
    }

    fn enter_live(&mut self, path: &TreePath, mtime: Option<Timestamp>, ground: Ground) {
        let frame = Frame { path: path.clone(), ground, mtime, touched: false, live_names: 0, holds_foreign: false };
        self.frames.push(frame);
    }

    fn touch_parent(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.touched = true;
        }
    }

    /// For a directory whose frame was just opened.
    fn touch_self(&mut self) {
        self.touch_parent();
    }

    fn mark_foreign(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.holds_foreign = true;
        }
    }

    /// Leaves every directory that `path` is not in.
    fn leave_until(&mut self, path: &TreePath) {
        while self.frames.last().is_some_and(|frame| !path.starts_with(&frame.path)) {
            self.leave();
        }
    }

    /// Leaves the innermost directory; everything in it is known now.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        let foreign = frame.holds_foreign || self.live.holds_outside(&frame.path);
        if let (true, Some(mtime)) = (frame.touched, frame.mtime) {
            self.plan.dir_times.push((frame.path.clone(), mtime));
        }
        let mut stays = frame.ground == Ground::Live || frame.ground == Ground::Blocked;
        if let Ground::Going { action, outcome } = frame.ground {
            let occupied = frame.live_names > 0 && !self.removes();
            stays = foreign || occupied;
            match outcome {
                _ if !stays => self.remove_with(action),
                // Something else was wanted here.
                Some(outcome) => {
                    self.doomed.push(action);
                    let because = if foreign { KeptBecause::HoldsExcluded } else { KeptBecause::DirectoryInTheWay };
                    self.plan.outcomes[outcome] = Outcome::Kept;
                    self.plan.kept.push(Kept { path: frame.path.clone(), because });
                }
                None => self.doomed.push(action),
            }
        }
        if foreign && stays {
            self.mark_foreign();
        }
    }

    /// A directory goes: what is below a replaced one goes with it.
    fn remove_with(&mut self, action: usize) {
        let replaced = matches!(self.plan.actions[action].change, Change::Replace { .. });
        for below in &mut self.plan.actions[action + 1..] {
            if let Change::Remove { inside, .. } = &mut below.change {
                *inside = replaced;
            }
        }
    }

    fn finish(mut self) -> CheckoutPlan {
        let removes = self.removes();
        let mut doomed = std::mem::take(&mut self.doomed);
        doomed.sort_unstable();
        for index in &doomed {
            self.follow_new_leader(*index);
        }
        let mut plan = self.plan;
        let stays: BTreeSet<TreePath> = doomed.iter().map(|index| plan.actions[*index].path.clone()).collect();
        let mut index = 0;
        plan.actions.retain(|_| {
            index += 1;
            doomed.binary_search(&(index - 1)).is_err()
        });
        if removes {
            plan.dropped.retain(|dropped| stays.contains(&dropped.path));
            plan.counts.dropped_left = plan.dropped.len() as u64;
        }
        plan.kept.sort_by(|a, b| a.path.cmp(&b.path));
        plan.count_actions();
        plan
    }

    /// The action at `index` does not happen: if it was to make a hard-link group's inode, the next name makes it.
    fn follow_new_leader(&mut self, index: usize) {
        let (before, after) = self.plan.actions.split_at_mut(index + 1);
        let (path, Some(Wanted::Inode(inode))) = (&before[index].path, before[index].wanted()) else { return };
        let mut heir: Option<TreePath> = None;
        for action in after {
            let (Change::Add { wanted, .. } | Change::Replace { wanted, .. }) = &mut action.change else { continue };
            match wanted {
                Wanted::Link { leader, live: None } if leader == path => match &heir {
                    Some(heir) => *leader = heir.clone(),
                    None => {
                        heir = Some(action.path.clone());
                        *wanted = Wanted::Inode(inode.clone());
                    }
                },
                _ => {}
            }
        }
    }
}

/// Whether a directory looks as if an interrupted switch had lifted what forbade changes in it.
fn was_lifted(live: &Stat, wanted: &Inode, differs: Difference) -> bool {
    let only_rights =
        !differs.has(Difference::KIND) && differs.minus(Difference::MODE).minus(Difference::FLAGS).is_none();
    live.is_dir() && only_rights && (live.mode == wanted.mode || live.mode == wanted.mode | 0o700)
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
