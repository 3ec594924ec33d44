// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A transaction turned around: what it brought goes, and what gave way comes back.
//!
//! Of what is live by now, only what the transaction brought is taken away, and what has a name that something else must
//! come back to. What somebody has put into a directory that it brought stays, and so does the directory; the rest of it
//! goes piece by piece.

mod programs;

use std::collections::BTreeSet;

use super::delivered::{Delivered, Since};
use super::{TurnedAround, undos};
use crate::checkout::chain::{DirChain, is_other_now};
use crate::checkout::displaced::{self, Groups};
use crate::checkout::journal::{DirTime, Journal, Meta, New, Op, Step, Was};
use crate::checkout::lift::Lifts;
use crate::checkout::report::SetAside;
use crate::checkout::stage::staged_name;
use crate::checkout::state::HeldArea;
use crate::checkout::switch::{aside_names, copy_name};
use crate::checkout::transaction;
use crate::error::{Error, Result};
use crate::fsio::{Dir, Stat};
use crate::in_use::Inodes;
use crate::path::TreePath;
use crate::progress::Progress;

/// Paths that a refusal names.
const NAMED: usize = 5;

/// The transaction that takes `journal` back. Nothing live has changed when it returns.
///
/// # Errors
/// [`Error::Refused`] when what gave way in it is not there any more; [`Error::Io`].
pub(super) fn turned_around(
    held: &HeldArea,
    journal: &Journal,
    interrupted: bool,
    number: u64,
    progress: &Progress,
) -> Result<TurnedAround> {
    progress.start("going back", journal.steps.len() as u64, 0);
    let brings = |step: &Step| matches!(step.op, Op::Add { .. } | Op::Replace { .. });
    let displaced = if interrupted {
        // It may have come as far as to be kept.
        held.stage_undo(journal.number)?;
        if !held.has_staging()? && journal.steps.iter().any(brings) {
            return Err(gone(journal.number, &[]));
        }
        let staging = held.staging()?;
        // What it had lifted must not be taken for what it was.
        transaction::lifts(held)?.settle(&held.root, &staging)?;
        Some(staging)
    } else {
        held.open_undo(journal.number)?
    };
    let memory = if interrupted { transaction::prepared_memory(&held.state) } else { held.applied_path() };
    let is_newest = !interrupted && journal.number == held.finished();
    let next_slot = journal.steps.iter().map(|step| step.slot + 1).max().unwrap_or(0);
    let mut turn = Turn {
        root: &held.root,
        displaced,
        interrupted,
        delivered: Delivered::read(&memory, &journal.steps, is_newest)?,
        groups: Groups::new(Lifts::of_giving_back(&held.state)?),
        waiting: Vec::new(),
        joined: Vec::new(),
        chain: DirChain::new(&held.root),
        steps: Vec::new(),
        next_slot,
        changed_since: Vec::new(),
        removed_since: Vec::new(),
        left_alone: Vec::new(),
        not_kept: Vec::new(),
        set_aside: Vec::new(),
    };
    turn.require_kept(journal)?;
    turn.count_groups(&journal.steps)?;
    undos::count_names(&mut turn.groups, held, journal.number)?;
    for step in &journal.steps {
        turn.step(step)?;
        progress.advance(1, 0);
    }
    turn.join_waiting()?;
    let mut dirs: Vec<DirTime> = journal
        .dirs
        .iter()
        .map(|dir| DirTime { before: dir.after, after: dir.before, path: dir.path.clone() })
        .collect();
    turn.times_of_joined(&mut dirs)?;
    let inverse = Journal {
        number,
        base: journal.target,
        target: journal.base,
        undoes: Some(journal.number),
        steps: turn.steps,
        dirs,
    };
    let sorted = |mut paths: Vec<TreePath>| {
        paths.sort_unstable();
        paths
    };
    Ok(TurnedAround {
        journal: inverse,
        changed_since: sorted(turn.changed_since),
        removed_since: sorted(turn.removed_since),
        left_alone: sorted(turn.left_alone),
        not_kept: sorted(turn.not_kept),
        set_aside: turn.set_aside,
        going: Inodes::new(),
    })
}

fn gone(number: u64, paths: &[TreePath]) -> Error {
    let named: Vec<String> = paths.iter().take(NAMED).map(ToString::to_string).collect();
    let which = match paths.len() {
        0 => String::new(),
        len if len > NAMED => format!(": {} and {} more", named.join(", "), len - NAMED),
        _ => format!(": {}", named.join(", ")),
    };
    Error::Refused {
        reason: format!("what gave way in number {number} is not there any more{which}"),
        hint: Some("`evenkeel checkout SNAP --full` goes to any snapshot of the store".into()),
    }
}

struct Turn<'a> {
    root: &'a Dir,
    /// Where what gave way is; `None` when nothing did.
    displaced: Option<Dir>,
    interrupted: bool,
    delivered: Delivered,
    groups: Groups,
    /// Names that get a copy in the place of the program that they had.
    joined: Vec<TreePath>,
    /// Live names, not come to yet when the switch was interrupted, of programs that gave way by another name.
    waiting: Vec<(TreePath, Stat)>,
    chain: DirChain<'a>,
    steps: Vec<Step>,
    /// The first number that no step has.
    next_slot: usize,
    changed_since: Vec<TreePath>,
    removed_since: Vec<TreePath>,
    left_alone: Vec<TreePath>,
    not_kept: Vec<TreePath>,
    set_aside: Vec<SetAside>,
}

/// A live directory, looked through.
#[derive(Default)]
struct Inside {
    /// What a checkout brought, in order.
    delivered: Vec<(TreePath, Stat)>,
    /// Of that, what was changed since.
    changed: Vec<TreePath>,
    /// What somebody else put there, without what is below it.
    foreign: Vec<TreePath>,
}

impl Turn<'_> {
    /// Refuses to begin what could not bring back everything: whatever gave way in a finished transaction is kept.
    fn require_kept(&mut self, journal: &Journal) -> Result<()> {
        let mut missing = Vec::new();
        let mut chain = self.displaced.as_ref().map(DirChain::new);
        for step in &journal.steps {
            let (Op::Replace { was, .. } | Op::Remove { was }) = &step.op else { continue };
            let staged = staged_name(step.slot);
            let mut is_there = |place: &[u8]| -> Result<bool> {
                let Some(chain) = &mut chain else { return Ok(false) };
                match chain.parent(place).and_then(|(dir, name)| dir.stat_opt(name)) {
                    Err(e) if is_other_now(&e) => Ok(false),
                    found => found.map(|found| found.is_some()).map_err(|e| Error::io("look at", self.root.path(), e)),
                }
            };
            if is_there(&staged)? {
                for (path, _) in &was.within {
                    let place = [&staged, &path.as_bytes()[step.path.as_bytes().len()..]].concat();
                    if !is_there(&place)? {
                        self.not_kept.push(path.clone());
                    }
                }
            } else {
                missing.push(step.path.clone());
            }
        }
        // What was interrupted may not have come so far.
        if self.interrupted || missing.is_empty() { Ok(()) } else { Err(gone(journal.number, &missing)) }
    }

    /// Turns one step around, if it was taken and what it left is still there.
    fn step(&mut self, step: &Step) -> Result<()> {
        let live = self.live(&step.path)?;
        match &step.op {
            Op::Add { new } => self.take_away(step, new, live),
            Op::Replace { new, was, keep_aside } => self.put_in_its_place(step, new, was, *keep_aside, live),
            Op::Remove { was } if self.gave_way(step)? => {
                let new = self.give_back(step, was)?;
                self.push(step, Op::Add { new });
                Ok(())
            }
            Op::Metadata { was, before, after } => {
                self.metadata_back(step, was, before, after, live);
                Ok(())
            }
            // Turned around elsewhere, or not taken.
            Op::Tree(_) | Op::Remove { .. } => Ok(()),
        }
    }

    fn push(&mut self, step: &Step, op: Op) {
        self.steps.push(Step { path: step.path.clone(), slot: step.slot, op });
    }

    /// What was added goes, if it is still there.
    fn take_away(&mut self, step: &Step, new: &New, live: Option<Stat>) -> Result<()> {
        let Some(live) = live else { return Ok(()) };
        if !new.is(&live) {
            // In an interrupted switch it may not have come here.
            self.left_alone.extend((!self.interrupted).then(|| step.path.clone()));
            return Ok(());
        }
        self.note_change(&step.path, &live);
        if !live.is_dir() {
            let was = self.going(&step.path, &live, &[])?;
            self.push(step, Op::Remove { was });
            return Ok(());
        }
        let inside = self.look_into(&step.path, &live)?;
        self.changed_since.extend(inside.changed);
        if inside.foreign.is_empty() {
            let was = self.going(&step.path, &live, &inside.delivered)?;
            self.push(step, Op::Remove { was });
            return Ok(());
        }
        self.take_pieces(&step.path, &inside.delivered, &inside.foreign)?;
        self.left_alone.extend(inside.foreign);
        Ok(())
    }

    /// Takes away what a checkout brought to `top`, and leaves the directories that hold something else.
    fn take_pieces(&mut self, top: &TreePath, delivered: &[(TreePath, Stat)], foreign: &[TreePath]) -> Result<()> {
        let mut stay = BTreeSet::from([top.clone()]);
        for path in foreign {
            let mut above = path.parent();
            while let Some(dir) = above.filter(|dir| !stay.contains(dir)) {
                above = dir.parent();
                stay.insert(dir);
            }
        }
        let mut rest = delivered;
        while let Some(((path, stat), below)) = rest.split_first() {
            rest = below;
            if stay.contains(path) {
                continue;
            }
            let (inside, after) = below.split_at(below.partition_point(|(other, _)| other.starts_with(path)));
            rest = after;
            let op = Op::Remove { was: self.going(path, stat, inside)? };
            self.steps.push(Step { path: path.clone(), slot: self.next_slot, op });
            self.next_slot += 1;
        }
        Ok(())
    }

    /// What gave way gets its name again, and what has it now gives way.
    fn put_in_its_place(
        &mut self,
        step: &Step,
        new: &New,
        was: &Was,
        keep_aside: bool,
        live: Option<Stat>,
    ) -> Result<()> {
        if !self.gave_way(step)? {
            return Ok(());
        }
        let is_ours = live.is_some_and(|live| new.is(&live));
        let going = match &live {
            Some(live) if live.is_dir() => {
                let inside = if is_ours { self.look_into(&step.path, live)? } else { Inside::all_foreign(&step.path) };
                if !inside.foreign.is_empty() {
                    self.left_alone.extend(inside.foreign);
                    self.set_aside.push(SetAside::new(&step.path, &staged_name(step.slot)));
                    return Ok(());
                }
                self.changed_since.extend(inside.changed);
                Some(self.going(&step.path, live, &inside.delivered)?)
            }
            Some(live) => Some(self.going(&step.path, live, &[])?),
            None => None,
        };
        match &live {
            Some(live) if is_ours => self.note_change(&step.path, live),
            Some(_) => self.changed_since.push(step.path.clone()),
            None => self.removed_since.push(step.path.clone()),
        }
        let old = self.give_back(step, was)?;
        if keep_aside {
            self.forget_aside(step, was)?;
        }
        self.push(
            step,
            match going {
                Some(was) => Op::Replace { new: old, was, keep_aside: false },
                None => Op::Add { new: old },
            },
        );
        Ok(())
    }

    /// A file that only got other metadata keeps the content that somebody has given it since, and its time.
    fn metadata_back(&mut self, step: &Step, was: &Was, before: &Meta, after: &Meta, live: Option<Stat>) {
        let Some(live) = live.filter(|live| (live.ino, live.file_type) == (was.ino, was.file_type)) else {
            self.left_alone.push(step.path.clone());
            return;
        };
        let (mut back, mut now) = (before.clone(), after.clone());
        let is_edited = !live.is_dir() && (live.size != was.size || ![before.mtime, after.mtime].contains(&live.mtime));
        if is_edited {
            (back.mtime, now.mtime) = (live.mtime, live.mtime);
            self.left_alone.push(step.path.clone());
        }
        self.push(step, Op::Metadata { was: Was::of(&live), before: now, after: back });
    }

    /// What is live and gives way, with everything in it.
    fn going(&mut self, path: &TreePath, live: &Stat, inside: &[(TreePath, Stat)]) -> Result<Was> {
        let within = inside.iter().map(|(path, stat)| Ok((path.clone(), self.was(path, stat)?)));
        let within = within.collect::<Result<_>>()?;
        Ok(Was { within, ..self.was(path, live)? })
    }

    fn was(&mut self, path: &TreePath, stat: &Stat) -> Result<Was> {
        if stat.nlink > 1 && self.stays(stat)? {
            return Ok(Was { stays: true, ..Was::of(stat) });
        }
        let failed = |e| Error::io("read", self.root.path_of(path.as_bytes()), e);
        let caps = displaced::capabilities(&mut self.chain, path, stat).map_err(failed)?;
        Ok(Was { caps, ..Was::of(stat) })
    }

    /// Whether an inode keeps a name that a checkout has given it: then it keeps its rights, too.
    fn stays(&mut self, stat: &Stat) -> Result<bool> {
        for other in self.delivered.other_names(stat.ino).to_vec() {
            if self.live(&other)?.is_some_and(|live| live.ino == stat.ino && live.born == stat.born) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn note_change(&mut self, path: &TreePath, live: &Stat) {
        if self.delivered.since(path, live) == Since::Changed {
            self.changed_since.push(path.clone());
        }
    }

    fn live(&mut self, path: &TreePath) -> Result<Option<Stat>> {
        match self.chain.parent(path.as_bytes()) {
            Err(e) if is_other_now(&e) => Ok(None),
            parent => parent
                .and_then(|(dir, name)| dir.stat_opt(name))
                .map_err(|e| Error::io("look at", self.root.path_of(path.as_bytes()), e)),
        }
    }

    /// Whether what had the name before a step lies there; in an interrupted switch the new inode may still be waiting.
    fn gave_way(&self, step: &Step) -> Result<bool> {
        let Some(dir) = &self.displaced else { return Ok(false) };
        let (staged, failed) = (staged_name(step.slot), |e| Error::io("look at", dir.path(), e));
        displaced::settle_exchange(dir, &staged).map_err(failed)?;
        let Some(found) = dir.stat_opt(&staged).map_err(failed)? else { return Ok(false) };
        if let Op::Replace { new, was, .. } = &step.op
            && new.is(&found)
        {
            displaced::forget_exchange(dir, &staged, was.ino).map_err(failed)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// What gave way in a step, with its rights.
    fn give_back(&mut self, step: &Step, was: &Was) -> Result<New> {
        let dir = self.displaced.as_ref().expect("something lies there");
        let (staged, failed) = (staged_name(step.slot), |e| Error::io("look at", dir.path(), e));
        self.groups.give_back(dir, &staged, &step.path, was).map_err(failed)?;
        let stat = dir.stat(&staged).map_err(failed)?;
        Ok(New { ino: stat.ino, born: stat.born, mtime: was.mtime, late: None })
    }

    /// Looks through a live directory that a checkout brought. What changes while this looks is not found here, and so is
    /// left alone by the switch. What is mounted in it is somebody else's.
    fn look_into(&mut self, path: &TreePath, live: &Stat) -> Result<Inside> {
        let failed = |e| Error::io("look into", self.root.path_of(path.as_bytes()), e);
        let mut inside = Inside::default();
        let top = match self.chain.dir(path.as_bytes()).and_then(Dir::try_clone) {
            Err(e) if is_other_now(&e) => return Ok(inside),
            top => top.map_err(failed)?,
        };
        let mut todo = vec![(path.clone(), top)];
        while let Some((path, dir)) = todo.pop() {
            for name in dir.names().map_err(failed)? {
                let Some(stat) = dir.stat_opt(&name).map_err(failed)? else { continue };
                let path = path.join(&name).map_err(|e| failed(std::io::Error::other(e)))?;
                let is_mounted = stat.is_mount_root || stat.dev != live.dev;
                match self.delivered.since(&path, &stat) {
                    _ if is_mounted => inside.foreign.push(path),
                    Since::Other => inside.foreign.push(path),
                    since => {
                        inside.changed.extend((since == Since::Changed).then(|| path.clone()));
                        if stat.is_dir() {
                            match dir.open_dir(&name) {
                                Err(e) if is_other_now(&e) => {}
                                inner => todo.push((path.clone(), inner.map_err(failed)?)),
                            }
                        }
                        inside.delivered.push((path, stat));
                    }
                }
            }
        }
        inside.delivered.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(inside)
    }

    /// The local version that stayed beside the new one has its own name again; the other one goes.
    fn forget_aside(&mut self, step: &Step, was: &Was) -> Result<()> {
        let failed = |e| Error::io("look at", self.root.path_of(step.path.as_bytes()), e);
        let copy = match &self.displaced {
            Some(dir) => dir.stat_opt(&copy_name(&staged_name(step.slot))).map_err(failed)?,
            None => None,
        };
        // What could not be copied got a further name instead.
        let ino = copy.map_or(was.ino, |copy| copy.ino);
        let mut found = None;
        let (dir, name) = match self.chain.parent(step.path.as_bytes()) {
            Err(e) if is_other_now(&e) => return Ok(()),
            parent => parent.map_err(failed)?,
        };
        for aside in aside_names(name) {
            match dir.stat_opt(&aside).map_err(failed)? {
                Some(stat) if stat.ino == ino => {
                    found = Some((aside, stat));
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
        let Some((aside, stat)) = found else { return Ok(()) };
        let path = step.path.parent().unwrap_or_default().join(&aside).expect("a name beside a valid path");
        if (stat.size, stat.mtime) != (was.size, was.mtime) {
            self.changed_since.push(path.clone());
        }
        let op = Op::Remove { was: Was::of(&stat) };
        self.steps.push(Step { path, slot: self.next_slot, op });
        self.next_slot += 1;
        Ok(())
    }
}

impl Inside {
    fn all_foreign(path: &TreePath) -> Inside {
        Inside { foreign: vec![path.clone()], ..Inside::default() }
    }
}
