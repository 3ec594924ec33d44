// SPDX-License-Identifier: Apache-2.0 OR MIT
//! After the switch: what was delivered is looked at once more and remembered.
//!
//! The record holds for each path the entry as it was applied, in this machine's owner ids, and the fingerprint of the
//! inode that holds it. A path that was kept different has none: it is read again next time. What rules of this machine
//! excluded is remembered, too: when they change, it is what was never delivered.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::chain::{DirChain, is_other_by_now, is_other_now};
use super::compare::{file_type, metadata_differences};
use super::fidelity::{Here, Losses};
use super::merge::AppliedEntry;
use super::plan::{CheckoutPlan, DroppedEntry, Outcome};
use crate::area::{RuleSet, Verdict};
use crate::error::{Error, Result};
use crate::files_cache::{CacheReader, CacheWriter, Fingerprint, RecordState};
use crate::format::manifest::{Entry, Inode, InodeKind, Node, Timestamp};
use crate::fsio::{self, Dir, FileType, Stat};
use crate::inode::{self, UnknownXattrs};
use crate::path::TreePath;

/// What a record is written from.
pub(super) struct Recording<'a> {
    pub(super) plan: &'a CheckoutPlan,
    pub(super) here: &'a Here,
    pub(super) root: &'a Dir,
    pub(super) rules: &'a RuleSet,
    /// Rules that only this machine has.
    pub(super) local_rules: &'a RuleSet,
    /// Coarse time before the plan's walk began.
    pub(super) walk_start: Timestamp,
    /// `None` before the switch: nothing is known then of what it will deliver.
    pub(super) done: Option<&'a Done>,
}

/// A switch that has ended.
pub(super) struct Done {
    /// Coarse time before its first step.
    pub(super) start: Timestamp,
    /// Paths that changed between plan and switch.
    pub(super) changed_meanwhile: Vec<TreePath>,
}

impl Recording<'_> {
    /// Writes the record of everything that `entries`, the target manifest, delivers, as a nameless file in `state`.
    ///
    /// # Errors
    /// [`Error::Io`], or an error of the manifest.
    pub(super) fn write(&self, entries: impl Iterator<Item = Result<Entry>>, state: &Path) -> Result<CacheWriter> {
        let touched: BTreeSet<&TreePath> = self.plan.dir_times.iter().map(|(path, _)| path).collect();
        let meanwhile: BTreeSet<&TreePath> = self.done.iter().flat_map(|done| &done.changed_meanwhile).collect();
        let chain = DirChain::new(self.root);
        let mut look = self.done.map(|done| Look { chain, record: self, switch_start: done.start, start: settle() });
        let mut groups: HashMap<TreePath, Group> = HashMap::new();
        let mut losses = Losses::default();
        let mut out = Writer { cache: CacheWriter::create(state)?, bytes: Vec::new() };
        let mut dropped = self.plan.dropped.iter().peekable();
        for (entry, outcome) in entries.zip(&self.plan.outcomes) {
            let entry = self.here.localize(entry?, &mut losses);
            while let Some(entry) = dropped.next_if(|dropped| dropped.path < entry.path) {
                self.dropped(entry, &mut out)?;
            }
            if *outcome == Outcome::Skipped && self.is_outside(&entry) {
                out.push(RecordState::Outside, None, &by_itself(&entry, &groups))?;
            }
            let Some((entry, inode)) = in_its_group(entry, *outcome, &mut groups) else { continue };
            let mut look = |seen| match &mut look {
                None => Ok(None),
                Some(look) => look.at(&entry.path, &inode, seen),
            };
            let fingerprint = match outcome {
                Outcome::Skipped | Outcome::Kept | Outcome::Blocked => None,
                _ if meanwhile.contains(&entry.path) => None,
                Outcome::Delivered => look(None)?,
                // The switch changed what is in it, or gave names to its inode, or took some from it.
                Outcome::Same(stat)
                    if touched.contains(&entry.path) || (!stat.is_dir() && (stat.nlink > 1 || inode.links > 1)) =>
                {
                    look(Some(stat))?
                }
                Outcome::Same(stat) => Fingerprint::settled(stat, self.walk_start),
            };
            out.push(RecordState::Current, fingerprint.as_ref(), &entry)?;
        }
        for entry in dropped {
            self.dropped(entry, &mut out)?;
        }
        Ok(out.cache)
    }

    /// Whether a skipped entry is one that rules of this machine exclude.
    fn is_outside(&self, entry: &Entry) -> bool {
        let is_dir = matches!(&entry.node, Node::Inode(inode) if inode.kind == InodeKind::Directory);
        self.local_rules.verdict(&entry.path, is_dir) == Verdict::Excluded
    }

    fn dropped(&self, dropped: &DroppedEntry, out: &mut Writer) -> Result<()> {
        let fingerprint = dropped.same.as_ref().and_then(|stat| Fingerprint::settled(stat, self.walk_start));
        let entry = Entry { path: dropped.path.clone(), node: Node::Inode(dropped.inode.clone()) };
        out.push(RecordState::Dropped, fingerprint.as_ref(), &entry)
    }
}

/// An entry that leans on no other.
fn by_itself(entry: &Entry, groups: &HashMap<TreePath, Group>) -> Entry {
    let node = match &entry.node {
        Node::Inode(inode) => Node::Inode(Inode { links: 1, ..inode.clone() }),
        Node::Link { first } => match groups.get(first) {
            Some(group) => Node::Inode(Inode { links: 1, ..group.inode.clone() }),
            None => entry.node.clone(),
        },
    };
    Entry { path: entry.path.clone(), node }
}

/// A hard-link group on its way into the record.
struct Group {
    inode: Inode,
    /// The first of its names that is recorded.
    first: Option<TreePath>,
}

/// The entry as it is recorded, with its inode; `None` for what is not. The first recorded name of a group holds the
/// inode, whichever names the reference has before it.
fn in_its_group(entry: Entry, outcome: Outcome, groups: &mut HashMap<TreePath, Group>) -> Option<(Entry, Inode)> {
    let Entry { path, node } = entry;
    let key = match node {
        Node::Inode(inode) if inode.links > 1 => {
            groups.insert(path.clone(), Group { inode, first: None });
            path.clone()
        }
        Node::Inode(_) if outcome == Outcome::Skipped => return None,
        Node::Inode(inode) => return Some((Entry { path, node: Node::Inode(inode.clone()) }, inode)),
        Node::Link { first } => first,
    };
    let group = groups.get_mut(&key)?;
    if outcome == Outcome::Skipped {
        return None;
    }
    let inode = group.inode.clone();
    let node = match &group.first {
        Some(first) => Node::Link { first: first.clone() },
        None => {
            group.first = Some(path.clone());
            Node::Inode(inode.clone())
        }
    };
    Some((Entry { path, node }, inode))
}

/// Looks at what was delivered.
struct Look<'a> {
    chain: DirChain<'a>,
    record: &'a Recording<'a>,
    /// Coarse time before the first step of the switch.
    switch_start: Timestamp,
    /// Coarse time after the last step of the switch.
    start: Timestamp,
}

impl Look<'_> {
    /// The fingerprint of `path`, if what is there still is as `inode`. `seen` is what the plan saw and left as it is.
    fn at(&mut self, path: &TreePath, inode: &Inode, seen: Option<&Stat>) -> Result<Option<Fingerprint>> {
        let failed = |e| Error::io("look at", self.record.root.path_of(path.as_bytes()), e);
        let found = match self.chain.parent(path.as_bytes()) {
            Err(e) if is_other_now(&e) => None,
            parent => parent.and_then(|(dir, name)| dir.stat_opt(name)).map_err(failed)?,
        };
        let Some(stat) = found.filter(|stat| looks_as(stat, inode)) else { return Ok(None) };
        let untouched = match seen {
            Some(seen) => (seen.dev, seen.ino, seen.ctime) == (stat.dev, stat.ino, stat.ctime),
            None => stat.ctime < self.switch_start,
        };
        let same_inode = seen.is_none_or(|seen| (seen.dev, seen.ino) == (stat.dev, stat.ino));
        if !same_inode || !(untouched || self.holds(path, inode)?) {
            return Ok(None);
        }
        Ok(Fingerprint::settled(&stat, self.start))
    }

    /// Whether everything but the content is as in `inode`: `statx` tells nothing of attributes, ACLs and flags, which
    /// somebody may have changed while the switch gave the inode another change time.
    fn holds(&mut self, path: &TreePath, inode: &Inode) -> Result<bool> {
        let failed = |e| Error::io("look at", self.record.root.path_of(path.as_bytes()), e);
        let found = match self.chain.find(path) {
            Err(e) if is_other_now(&e) => None,
            found => found.map_err(failed)?,
        };
        let Some(found) = found else { return Ok(false) };
        if file_type(&inode.kind) != found.stat.file_type {
            return Ok(false);
        }
        let live = match inode::read_metadata(&found, self.record.rules.xattrs(), UnknownXattrs::Ignore) {
            Err(e) if is_other_by_now(&e) => return Ok(false),
            live => live?,
        };
        let same_kind = matches!(inode.kind, InodeKind::File(_)) || live.kind == inode.kind;
        Ok(same_kind && metadata_differences(&live, inode).is_none())
    }
}

/// Whether everything that `statx` tells is as wanted.
fn looks_as(stat: &Stat, inode: &Inode) -> bool {
    let is_link = stat.file_type == FileType::Symlink;
    file_type(&inode.kind) == stat.file_type
        && (is_link || stat.mode == inode.mode)
        && (stat.uid, stat.gid) == (inode.uid, inode.gid)
        && (stat.is_dir() || stat.mtime == inode.mtime)
        && match &inode.kind {
            InodeKind::File(content) => stat.size == content.size,
            _ => true,
        }
}

struct Writer {
    cache: CacheWriter,
    bytes: Vec<u8>,
}

impl Writer {
    fn push(&mut self, state: RecordState, fingerprint: Option<&Fingerprint>, entry: &Entry) -> Result<()> {
        self.bytes.clear();
        entry.encode_into(&mut self.bytes);
        self.cache.push(state, fingerprint, &self.bytes)
    }
}

/// Waits until the kernel's coarse clock is past now, so that nothing that was done before carries the time that is
/// returned. Inodes may be stamped with finer time than the coarse clock tells, so it is compared with the fine one.
fn settle() -> Timestamp {
    const TICK_MS: u64 = 1;
    let before = fsio::now();
    loop {
        let now = fsio::now_coarse();
        // A clock that was set back must not make this wait for ever; what was delivered is then read once more.
        if now > before || fsio::now() < before {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(TICK_MS));
    }
}

/// What was delivered to an area, as a stream for the merge.
pub(super) fn read_applied(cache: CacheReader) -> impl Iterator<Item = Result<AppliedEntry>> {
    read_all(cache).filter_map(|read| match read {
        Ok((_, false)) => None,
        Ok((applied, true)) => Some(Ok(applied)),
        Err(e) => Some(Err(e)),
    })
}

/// The whole record of an area, and of each entry whether it was delivered or rules of this machine excluded it.
pub(super) fn read_all(cache: CacheReader) -> impl Iterator<Item = Result<(AppliedEntry, bool)>> {
    cache.map(|record| {
        let record = record?;
        let applied = AppliedEntry {
            entry: record.decode()?,
            dropped: record.state == RecordState::Dropped,
            print: record.fingerprint,
        };
        Ok((applied, record.state != RecordState::Outside))
    })
}
