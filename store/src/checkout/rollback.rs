// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Going back: the steps of a transaction, turned around, are a transaction of their own.
//!
//! It needs neither store nor network. What had given way gets its names again, what had come gives way, and lies in the
//! undo of the going back until that is dropped, and so does what somebody has put in its place since. A name that nobody
//! had and somebody has taken is left alone and reported.

use std::path::PathBuf;

use super::chain::{DirChain, is_other_now};
use super::change_record::{AskedBy, Ended, NewRecord, RecordLimits, What};
use super::displaced::{self, Groups};
use super::journal::{DirTime, Journal, New, Op, Step, Was};
use super::options::AreaTarget;
use super::packages::PackageLocks;
use super::since::put_since;
use super::stage::staged_name;
use super::state::{AreaRoot, HeldArea};
use super::switch::aside_names;
use super::transaction::{self, Memory, record_path};
use super::tree;
use crate::error::{Error, Result};
use crate::fsio::{Dir, Stat};
use crate::id::SnapshotId;
use crate::in_use::{self, InUse, Inodes};
use crate::path::TreePath;
use crate::progress::Progress;

/// What was taken back in one area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaRollback {
    /// Its name.
    pub name: String,
    /// Its root.
    pub root: PathBuf,
    /// The number of the transaction that was taken back.
    pub undone: u64,
    /// It had been interrupted.
    pub was_interrupted: bool,
    /// The number of the transaction that took it back.
    pub number: u64,
    /// The snapshot that the area was at.
    pub before: Option<SnapshotId>,
    /// The snapshot that it is at again; `None` for a tree as it was before first contact.
    pub after: Option<SnapshotId>,
    /// Names that were changed.
    pub changes: u64,
    /// Paths where something else was by now than that transaction had left. What was there is kept with what the
    /// rollback displaced.
    pub changed_since: Vec<TreePath>,
    /// Paths that somebody has taken by now; left alone.
    pub left_alone: Vec<TreePath>,
    /// Processes that still use what it displaced.
    pub in_use: InUse,
}

/// An area's unfinished transaction, carried on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaRecovery {
    /// Its name.
    pub name: String,
    /// Its root.
    pub root: PathBuf,
    /// The transaction that was finished; `None` when none was under way.
    pub number: Option<u64>,
    /// The snapshot that it is at.
    pub at: Option<SnapshotId>,
    /// Paths that somebody changed meanwhile; left alone.
    pub left_alone: Vec<TreePath>,
    /// Processes that still use what it displaced.
    pub in_use: InUse,
}

/// How to go back, or on.
#[derive(Debug, Clone)]
pub struct BackOptions {
    /// This machine's state directory.
    pub state_dir: PathBuf,
    /// Who or what asks; it is recorded.
    pub asked_by: Option<AskedBy>,
    /// How many records are kept.
    pub records: RecordLimits,
}

impl BackOptions {
    /// The defaults.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        BackOptions { state_dir: state_dir.into(), asked_by: None, records: RecordLimits::default() }
    }
}

/// Finishes what was interrupted in an area.
///
/// # Errors
/// [`Error::Area`] where nothing was ever checked out; [`Error::Locked`]; [`Error::Io`].
pub fn recover(target: &AreaTarget, options: &BackOptions, progress: &Progress) -> Result<AreaRecovery> {
    let mut held = hold(target, &options.state_dir)?;
    let _packages = if held.is_switching() { lock_packages(&held, target, progress)? } else { PackageLocks::default() };
    let finished = transaction::recover(&mut held, options.asked_by.as_ref(), progress)?;
    let number = finished.as_ref().map(|recovered| recovered.journal.number);
    let switched = finished.map(|recovered| recovered.switched).unwrap_or_default();
    Ok(AreaRecovery {
        name: target.name.clone(),
        root: target.root.clone(),
        number,
        at: held.applied(),
        left_alone: switched.changed_meanwhile,
        in_use: switched.in_use,
    })
}

/// Takes the last transaction of an area back, or what there is of an interrupted one.
///
/// # Errors
/// [`Error::Refused`] when there is none, or what gave way in it is not kept any more; [`Error::Locked`];
/// [`Error::Io`].
pub fn rollback(target: &AreaTarget, options: &BackOptions, progress: &Progress) -> Result<AreaRollback> {
    let mut held = hold(target, &options.state_dir)?;
    let _packages = lock_packages(&held, target, progress)?;
    let interrupted = if held.is_switching() { transaction::open(&held.state)? } else { None };
    if interrupted.is_none() {
        transaction::recover(&mut held, options.asked_by.as_ref(), progress)?;
    }
    let was_interrupted = interrupted.is_some();
    let journal = match interrupted {
        Some(journal) => journal,
        None => last(&held)?.ok_or_else(|| Error::Refused {
            reason: format!("area `{}` has no checkout that could be taken back", target.name),
            hint: Some("`evenkeel checkout SNAP --full` goes to any snapshot of the store".into()),
        })?,
    };
    let number = transaction::next_number(&held)?.max(journal.number + 1);
    let (inverse, changed_since, going) = if journal.tree().is_some() {
        let turned = tree::turned_around(&mut held, target, &journal, was_interrupted, number, progress)?;
        (turned.journal, turned.changed_since, turned.going)
    } else {
        let (inverse, mut changed_since) = turned_around(&held, &journal, was_interrupted, number, progress)?;
        let delivered = if was_interrupted { transaction::prepared_memory(&held.state) } else { held.applied_path() };
        changed_since.extend(put_since(&inverse, &delivered)?);
        changed_since.sort_unstable();
        (inverse, changed_since, Inodes::new())
    };
    let path = held.root.real_path().map_err(|e| Error::io("look at", held.root.path(), e))?;
    let root = held.root.try_clone().map_err(|e| Error::io("look at", held.root.path(), e))?;
    let new_record = NewRecord {
        area: &target.name,
        root: &root,
        root_path: &path,
        asked_by: options.asked_by.as_ref(),
        what: What::Rollback { of: &journal, changed_since: &changed_since },
    };
    if was_interrupted {
        transaction::turn_around(&mut held, journal.number, &inverse, &new_record)?;
    } else {
        let record = record_path(&held.state, journal.number);
        transaction::begin(&mut held, &inverse, Memory::Before(&record), &new_record)?;
    }
    let mut switched = transaction::switch(&mut held, &inverse, was_interrupted, progress)?;
    if inverse.tree().is_some() {
        switched.in_use = in_use::find(&going);
    }
    held.sync_switched(inverse.target)?;
    transaction::finish(&mut held, &inverse, None, &Ended { switched: &switched, recovered: None })?;
    transaction::drop_records(&held, options.records)?;
    let names = inverse.tree().map_or(inverse.steps.len(), |tree| tree.changes.len());
    Ok(AreaRollback {
        name: target.name.clone(),
        root: target.root.clone(),
        undone: journal.number,
        was_interrupted,
        number,
        before: inverse.base,
        after: inverse.target,
        changes: (names - switched.changed_meanwhile.len().min(names)) as u64,
        changed_since,
        left_alone: switched.changed_meanwhile,
        in_use: switched.in_use,
    })
}

/// Takes transactions back, one after the other, until `number` is; gives what was done, the newest first.
///
/// # Errors
/// [`Error::Refused`] when `number` is no transaction that can be taken back, with nothing changed; otherwise as
/// [`rollback`], with the later ones taken back.
pub fn undo(target: &AreaTarget, options: &BackOptions, number: u64, progress: &Progress) -> Result<Vec<AreaRollback>> {
    let mut reachable = {
        let held = hold(target, &options.state_dir)?;
        if held.is_switching() { Vec::new() } else { stack(&held, usize::MAX)? }
    };
    if reachable.iter().all(|journal| journal.number != number) {
        return Err(Error::Refused {
            reason: format!("number {number} of area `{}` cannot be taken back", target.name),
            hint: Some(
                "`evenkeel history` tells which can; one that was interrupted is for `evenkeel rollback`".into(),
            ),
        });
    }
    reachable.retain(|journal| journal.number >= number);
    reachable.iter().map(|_| rollback(target, options, progress)).collect()
}

/// No package manager may be at work meanwhile; its lock is held until the value is dropped.
fn lock_packages(held: &HeldArea, target: &AreaTarget, progress: &Progress) -> Result<PackageLocks> {
    let path = held.root.real_path().map_err(|e| Error::io("look at", held.root.path(), e))?;
    let mut locks = PackageLocks::default();
    locks.take(target, &path, progress)?;
    Ok(locks)
}

fn hold(target: &AreaTarget, state_dir: &std::path::Path) -> Result<HeldArea> {
    let root = AreaRoot::open(&target.name, &target.root, state_dir)?;
    let Some(marker) = &root.marker else {
        return Err(Error::Refused {
            reason: format!("nothing was ever checked out to {}", target.root.display()),
            hint: Some("check --area and the configuration".into()),
        });
    };
    let (name, store) = (marker.name.clone(), marker.store);
    HeldArea::take(root, &target.root, &name, store, state_dir)
}

/// The last transaction that was not taken back.
fn last(held: &HeldArea) -> Result<Option<Journal>> {
    Ok(stack(held, 1)?.into_iter().next())
}

/// The transactions that can be taken back, in that order: the newest first, up to where undo was dropped, and no more than
/// `most`.
fn stack(held: &HeldArea, most: usize) -> Result<Vec<Journal>> {
    let (mut stack, mut below) = (Vec::new(), u64::MAX);
    for number in transaction::numbers(&held.state)?.into_iter().rev() {
        if number >= below {
            continue;
        }
        if stack.len() == most {
            break;
        }
        match transaction::finished(&held.state, number)? {
            Some(Journal { undoes: Some(undone), .. }) => below = undone,
            Some(journal) => stack.push(journal),
            None => break,
        }
    }
    Ok(stack)
}

/// The transaction that takes `journal` back, and where something else was by now than it had left.
fn turned_around(
    held: &HeldArea,
    journal: &Journal,
    interrupted: bool,
    number: u64,
    progress: &Progress,
) -> Result<(Journal, Vec<TreePath>)> {
    progress.start("going back", journal.steps.len() as u64, 0);
    let displaced = if interrupted {
        // It may have come as far as to be kept.
        held.stage_undo(journal.number)?;
        Some(held.staging()?)
    } else {
        held.open_undo(journal.number)?
    };
    let gives_way = |step: &Step| matches!(step.op, Op::Replace { .. } | Op::Remove { .. });
    if displaced.is_none() && journal.steps.iter().any(gives_way) {
        return Err(Error::Refused {
            reason: format!("what gave way in number {} is not there any more", journal.number),
            hint: Some("`evenkeel checkout SNAP --full` goes to any snapshot of the store".into()),
        });
    }
    let next_slot = journal.steps.iter().map(|step| step.slot + 1).max().unwrap_or(0);
    let chain = DirChain::new(&held.root);
    let (steps, changed_since) = (Vec::new(), Vec::new());
    let groups = Groups::default();
    let mut turn = Turn { root: &held.root, displaced, groups, chain, steps, next_slot, changed_since };
    turn.count_groups(&journal.steps)?;
    for step in &journal.steps {
        turn.step(step)?;
        progress.advance(1, 0);
    }
    let dirs = journal.dirs.iter().map(|dir| DirTime { before: dir.after, after: dir.before, path: dir.path.clone() });
    let inverse = Journal {
        number,
        base: journal.target,
        target: journal.base,
        undoes: Some(journal.number),
        steps: turn.steps,
        dirs: dirs.collect(),
    };
    Ok((inverse, turn.changed_since))
}

struct Turn<'a> {
    root: &'a Dir,
    /// Where what gave way is; `None` when nothing did.
    displaced: Option<Dir>,
    groups: Groups,
    chain: DirChain<'a>,
    steps: Vec<Step>,
    /// The first number that no step has.
    next_slot: usize,
    changed_since: Vec<TreePath>,
}

impl Turn<'_> {
    fn count_groups(&mut self, steps: &[Step]) -> Result<()> {
        let Some(dir) = &self.displaced else { return Ok(()) };
        for step in steps {
            if let Op::Replace { was, .. } | Op::Remove { was } = &step.op {
                let counted = self.groups.count(dir, &staged_name(step.slot), &step.path, was);
                counted.map_err(|e| Error::io("look at", dir.path(), e))?;
            }
        }
        Ok(())
    }

    /// Turns one step around, if it was taken and what it left is still there.
    fn step(&mut self, step: &Step) -> Result<()> {
        let live = self.live(&step.path)?;
        let op = match &step.op {
            Op::Add { new } => match live.filter(|live| live.ino == new.ino) {
                Some(live) => Op::Remove { was: self.going(&step.path, &live)? },
                None => return Ok(()),
            },
            Op::Replace { new, was, keep_aside } => {
                let Some(old) = self.come_back(step, was)? else { return Ok(()) };
                if *keep_aside {
                    self.forget_aside(step, was)?;
                }
                if live.is_none_or(|live| live.ino != new.ino) {
                    self.changed_since.push(step.path.clone());
                }
                match live {
                    Some(live) => Op::Replace { new: old, was: self.going(&step.path, &live)?, keep_aside: false },
                    None => Op::Add { new: old },
                }
            }
            Op::Remove { was } => match self.come_back(step, was)? {
                Some(old) => Op::Add { new: old },
                None => return Ok(()),
            },
            // Turned around elsewhere.
            Op::Tree(_) => return Ok(()),
            Op::Metadata { was, before, after } => match live.filter(|live| live.ino == was.ino) {
                Some(live) => Op::Metadata { was: Was::of(&live), before: after.clone(), after: before.clone() },
                None => return Ok(()),
            },
        };
        self.steps.push(Step { path: step.path.clone(), slot: step.slot, op });
        Ok(())
    }

    fn live(&mut self, path: &TreePath) -> Result<Option<Stat>> {
        match self.chain.parent(path.as_bytes()) {
            Err(e) if is_other_now(&e) => Ok(None),
            parent => parent
                .and_then(|(dir, name)| dir.stat_opt(name))
                .map_err(|e| Error::io("look at", self.root.path_of(path.as_bytes()), e)),
        }
    }

    /// What gave way in a step, with its rights; `None` when it did not, or is not kept.
    fn come_back(&mut self, step: &Step, was: &Was) -> Result<Option<New>> {
        let Some(dir) = &self.displaced else { return Ok(None) };
        let (staged, failed) = (staged_name(step.slot), |e| Error::io("look at", dir.path(), e));
        displaced::settle_exchange(dir, &staged).map_err(failed)?;
        let Some(found) = dir.stat_opt(&staged).map_err(failed)? else { return Ok(None) };
        // In an interrupted switch the new inode may still be waiting there.
        let waits = matches!(&step.op, Op::Replace { new, .. } if new.ino == found.ino);
        if waits {
            displaced::forget_exchange(dir, &staged, was.ino).map_err(failed)?;
            return Ok(None);
        }
        self.groups.give_back(dir, &staged, &step.path, was).map_err(failed)?;
        let ino = dir.stat(&staged).map_err(failed)?.ino;
        Ok(Some(New { ino, mtime: was.mtime, late: None }))
    }

    /// What is live now and gives way, with all that a directory holds. What changes while this looks is not found here,
    /// and so is left alone by the switch.
    fn going(&mut self, path: &TreePath, live: &Stat) -> Result<Was> {
        let mut going = Was::of(live);
        if !live.is_dir() {
            return Ok(going);
        }
        let failed = |e| Error::io("look into", self.root.path_of(path.as_bytes()), e);
        let top = match self.chain.dir(path.as_bytes()).and_then(Dir::try_clone) {
            Err(e) if is_other_now(&e) => return Ok(going),
            top => top.map_err(failed)?,
        };
        let mut todo = vec![(path.clone(), top)];
        while let Some((path, dir)) = todo.pop() {
            for name in dir.names().map_err(failed)? {
                let Some(stat) = dir.stat_opt(&name).map_err(failed)? else { continue };
                let path = path.join(&name).map_err(|e| failed(std::io::Error::other(e)))?;
                if stat.is_dir() {
                    match dir.open_dir(&name) {
                        Err(e) if is_other_now(&e) => {}
                        inner => todo.push((path.clone(), inner.map_err(failed)?)),
                    }
                }
                going.within.push((path, Was::of(&stat)));
            }
        }
        Ok(going)
    }

    /// The local version that stayed beside the new one has its own name again; the other one goes.
    fn forget_aside(&mut self, step: &Step, was: &Was) -> Result<()> {
        let failed = |e| Error::io("look at", self.root.path_of(step.path.as_bytes()), e);
        let mut found = None;
        let (dir, name) = match self.chain.parent(step.path.as_bytes()) {
            Err(e) if is_other_now(&e) => return Ok(()),
            parent => parent.map_err(failed)?,
        };
        for aside in aside_names(name) {
            match dir.stat_opt(&aside).map_err(failed)? {
                Some(stat) if stat.ino == was.ino => {
                    found = Some((aside, stat));
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
        let Some((aside, stat)) = found else { return Ok(()) };
        let path = step.path.parent().unwrap_or_default().join(&aside).expect("a name beside a valid path");
        let op = Op::Remove { was: Was::of(&stat) };
        self.steps.push(Step { path, slot: self.next_slot, op });
        self.next_slot += 1;
        Ok(())
    }
}
