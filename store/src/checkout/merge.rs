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

mod decide;
mod ground;
mod links;

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use super::compare::{Difference, differences, file_type, metadata_differences};
use super::conflict::ConflictPolicy;
use super::fidelity::Loss;
use super::options::{Adopt, Mode};
use super::plan::{CheckoutPlan, Kept, KeptBecause, Outcome, Skipped};
use crate::error::Result;
use crate::files_cache::Fingerprint;
use crate::format::manifest::{Entry, Inode, InodeKind, Node, Timestamp};
use crate::fsio::Stat;
use crate::id::ContentHash;
use crate::path::TreePath;
use ground::{Frame, Ground};
use links::Group;

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

    /// Directories in which the stream left something out because it lies deeper than any path may be.
    fn beyond(&self) -> &BTreeSet<TreePath>;
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
#[derive(Clone, Copy)]
pub struct MergeRules<'a> {
    /// Mode.
    pub mode: Mode,
    /// For paths that changed on both sides.
    pub conflict: &'a dyn Fn(&TreePath, bool) -> ConflictPolicy,
    /// First contact with this tree: nothing is removed, and this decides what differs.
    pub adoption: Option<Adopt>,
    /// A switch was interrupted: fingerprints of paths that changed since are not trusted.
    pub interrupted: bool,
    /// Which kinds of inodes cannot be made here.
    pub missing_kind: &'a dyn Fn(&InodeKind) -> Option<Loss>,
    /// The root was just made: what it is like is nobody's wish.
    pub new_root: bool,
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
    rules: &MergeRules<'_>,
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
struct Merge<'r, L: LiveTree> {
    rules: MergeRules<'r>,
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

impl<L: LiveTree> Merge<'_, L> {
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
                self.enter(path, &target.inode, Ground::Outside);
                Ok(())
            }
            (Some(target), None) => self.absent(target, applied),
            (Some(target), Some(item)) => self.present(target, applied, item),
            (None, Some(item)) => self.unwanted(path, applied, item),
            (None, None) => Ok(()),
        }
    }

    /// Whether what the target lacks goes.
    fn removes(&self) -> bool {
        self.rules.mode.is_full() && self.rules.adoption.is_none()
    }
    fn keep(&mut self, path: TreePath, because: KeptBecause) {
        self.plan.outcomes.push(Outcome::Kept);
        self.plan.kept.push(Kept { path, because });
    }

    /// Why an inode of this kind is never made here.
    fn never_made(&self, kind: &InodeKind) -> Option<&'static str> {
        if *kind == InodeKind::Socket {
            return Some("a socket is made by the program that listens on it");
        }
        (self.rules.missing_kind)(kind).map(|_| "it cannot be made here")
    }

    fn skip(&mut self, path: TreePath, reason: &'static str) {
        self.plan.outcomes.push(Outcome::Skipped);
        self.plan.skipped.push(Skipped { path, reason });
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
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
