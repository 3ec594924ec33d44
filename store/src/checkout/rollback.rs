// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Going back: the steps of a transaction, turned around, are a transaction of their own.
//!
//! It needs neither store nor network. What had given way gets its names again, what had come gives way, and lies in the
//! undo of the going back until that is dropped, and so does what somebody has put in its place since. A name that nobody
//! had and somebody has taken is left alone and reported, and so is what somebody has put into a new directory.

pub(super) mod delivered;
mod turn;
pub(super) mod undos;

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::change_record::{self, AskedBy, Ended, NewRecord, RecordLimits, What};
use super::history;
use super::journal::Journal;
use super::lift;
use super::options::AreaTarget;
use super::packages::PackageLocks;
use super::refuse;
use super::report::SetAside;
use super::state::{AreaRoot, HeldArea};
use super::transaction::{self, Memory, Recovered, record_path};
use super::tree;
use crate::error::{Error, Result};
use crate::format::manifest::Timestamp;
use crate::fsio;
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
    /// This rollback itself had been interrupted, and was finished; what had changed since is in its record.
    pub resumed: bool,
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
    /// Paths where nothing was any more of what that transaction had brought. What had been there before came back.
    pub removed_since: Vec<TreePath>,
    /// What is somebody else's by now; left alone.
    pub left_alone: Vec<TreePath>,
    /// What gave way in that transaction and is not kept any more: it did not come back.
    pub not_kept: Vec<TreePath>,
    /// What is kept in the undo of the rollback because it could not come back to its place.
    pub set_aside: Vec<SetAside>,
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
    /// Paths that the checkout that was finished leaves different from it; `None` of a rollback, which does not look, and
    /// where nothing was finished.
    pub kept: Option<u64>,
    /// Paths that somebody changed meanwhile; left alone.
    pub left_alone: Vec<TreePath>,
    /// What is kept in the undo of that transaction because it could not have its place.
    pub set_aside: Vec<SetAside>,
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
/// [`Error::Area`] where nothing was ever checked out; [`Error::Refused`] when the journal of what was interrupted is
/// lost; [`Error::Locked`]; [`Error::Io`].
pub fn recover(target: &AreaTarget, options: &BackOptions, progress: &Progress) -> Result<AreaRecovery> {
    let mut held = hold(target, &options.state_dir)?;
    let _packages = if held.is_switching() { lock_packages(&held, target, progress)? } else { PackageLocks::default() };
    let finished = transaction::recover(&mut held, options.asked_by.as_ref(), progress)?;
    let number = finished.as_ref().map(|recovered| recovered.journal.number);
    let kept = match number {
        Some(number) => change_record::kept_of(&record_path(&held.state, number), number),
        None => None,
    };
    let switched = finished.map(|recovered| recovered.switched).unwrap_or_default();
    Ok(AreaRecovery {
        name: target.name.clone(),
        root: target.root.clone(),
        number,
        at: held.applied(),
        kept,
        left_alone: switched.changed_meanwhile,
        set_aside: switched.set_aside,
        in_use: switched.in_use,
    })
}

/// Takes the last transaction of an area back, or what there is of an interrupted one. A rollback that was interrupted is
/// finished.
///
/// # Errors
/// [`Error::Refused`] when there is none, or what gave way in it is not kept any more; [`Error::Locked`];
/// [`Error::Io`].
pub fn rollback(target: &AreaTarget, options: &BackOptions, progress: &Progress) -> Result<AreaRollback> {
    let mut held = hold(target, &options.state_dir)?;
    let _packages = lock_packages(&held, target, progress)?;
    roll_back_held(&mut held, target, options, progress)
}

fn roll_back_held(
    held: &mut HeldArea,
    target: &AreaTarget,
    options: &BackOptions,
    progress: &Progress,
) -> Result<AreaRollback> {
    let asked = fsio::now();
    let interrupted = if held.is_switching() { transaction::open(&held.state)? } else { None };
    if interrupted.as_ref().is_none_or(|journal| journal.undoes.is_some()) {
        let recovered = transaction::recover(held, options.asked_by.as_ref(), progress)?;
        if let Some(recovered) = recovered {
            return finished(target, held, recovered);
        }
    }
    let was_interrupted = interrupted.is_some();
    let journal = match interrupted {
        Some(journal) => journal,
        None => last(held)?.ok_or_else(|| nothing_to_take_back(target))?,
    };
    let number = transaction::next_number(held)?.max(journal.number + 1);
    let turned = if journal.tree().is_some() {
        tree::turned_around(held, target, &journal, was_interrupted, number, progress)?
    } else {
        turn::turned_around(held, &journal, was_interrupted, number, progress)?
    };
    begin(held, target, options, asked, (&journal, was_interrupted), &turned)?;
    let TurnedAround { journal: inverse, left_alone, not_kept, set_aside, going, .. } = turned;
    let mut switched = transaction::switch(held, &inverse, was_interrupted, progress)?;
    if inverse.tree().is_some() {
        switched.in_use = in_use::find(&going);
    }
    let left: BTreeSet<TreePath> = switched.changed_meanwhile.iter().cloned().collect();
    let done = |paths: Vec<TreePath>| paths.into_iter().filter(|path| !is_at_or_below(&left, path)).collect();
    let (changed_since, removed_since) = (done(turned.changed_since), done(turned.removed_since));
    held.sync_switched(inverse.target)?;
    let names = inverse.names().saturating_sub(switched.changed_meanwhile.len());
    switched.changed_meanwhile.extend(left_alone);
    switched.changed_meanwhile.sort_unstable();
    transaction::finish(held, &inverse, None, &Ended { switched: &switched, recovered: None })?;
    transaction::drop_records(held, options.records)?;
    Ok(AreaRollback {
        name: target.name.clone(),
        root: target.root.clone(),
        undone: journal.number,
        was_interrupted,
        resumed: false,
        number,
        before: inverse.base,
        after: inverse.target,
        changes: names as u64,
        changed_since,
        removed_since,
        left_alone: switched.changed_meanwhile,
        not_kept,
        set_aside: set_aside.into_iter().chain(switched.set_aside).collect(),
        in_use: switched.in_use,
    })
}

/// Whether a path, or a directory above it, is one of these.
fn is_at_or_below(paths: &BTreeSet<TreePath>, path: &TreePath) -> bool {
    !paths.is_empty() && (paths.contains(path) || path.parent().is_some_and(|parent| is_at_or_below(paths, &parent)))
}

/// A transaction turned around, and what it does not bring back as it was.
pub(super) struct TurnedAround {
    pub(super) journal: Journal,
    /// Where something else was by now than had been left; it gives way.
    pub(super) changed_since: Vec<TreePath>,
    /// Where nothing was any more of what had been left.
    pub(super) removed_since: Vec<TreePath>,
    /// What is somebody else's by now, and stays.
    pub(super) left_alone: Vec<TreePath>,
    /// What gave way and is not kept any more.
    pub(super) not_kept: Vec<TreePath>,
    /// What gave way and does not come back, because its name is somebody else's.
    pub(super) set_aside: Vec<SetAside>,
    /// What gives way when whole trees change places.
    pub(super) going: Inodes,
}

/// Makes the going back durable: in the place of what was interrupted, or as a transaction of its own.
fn begin(
    held: &mut HeldArea,
    target: &AreaTarget,
    options: &BackOptions,
    asked: Timestamp,
    (journal, was_interrupted): (&Journal, bool),
    turned: &TurnedAround,
) -> Result<()> {
    let TurnedAround { journal: inverse, changed_since, removed_since, set_aside, .. } = turned;
    // What comes back has its rights again. Whoever finishes this after a power cut does not look whether it still has: a
    // file system may have lost that and kept the journal (btrfs does).
    held.root.sync_filesystem().map_err(|e| Error::io("sync file system of", held.root.path(), e))?;
    lift::forget_giving_back(&held.state)?;
    let changed_since: Vec<TreePath> = changed_since.iter().chain(removed_since).cloned().collect();
    let path = held.root.real_path().map_err(|e| Error::io("look at", held.root.path(), e))?;
    let root = held.root.try_clone().map_err(|e| Error::io("look at", held.root.path(), e))?;
    let new_record = NewRecord {
        area: &target.name,
        root: &root,
        root_path: &path,
        asked_by: options.asked_by.as_ref(),
        asked,
        what: What::Rollback { of: journal, changed_since: &changed_since, set_aside },
    };
    if was_interrupted {
        return transaction::turn_around(held, journal.number, inverse, &new_record);
    }
    let record = record_path(&held.state, journal.number);
    transaction::begin(held, inverse, Memory::Before(&record), &new_record)
}

/// A rollback that was interrupted, and has come to its end now.
fn finished(target: &AreaTarget, held: &HeldArea, recovered: Recovered) -> Result<AreaRollback> {
    let Recovered { journal, switched, .. } = recovered;
    let undone = journal.undoes.unwrap_or(journal.number);
    Ok(AreaRollback {
        name: target.name.clone(),
        root: target.root.clone(),
        undone,
        was_interrupted: history::of(&held.state, undone)?.is_none(),
        resumed: true,
        number: journal.number,
        before: journal.base,
        after: journal.target,
        changes: journal.names().saturating_sub(switched.changed_meanwhile.len()) as u64,
        changed_since: Vec::new(),
        removed_since: Vec::new(),
        left_alone: switched.changed_meanwhile,
        not_kept: Vec::new(),
        set_aside: switched.set_aside,
        in_use: switched.in_use,
    })
}

/// Whether there is something to take back in an area, and it is this area; changes nothing.
///
/// # Errors
/// As [`rollback`].
pub fn can_roll_back(target: &AreaTarget, options: &BackOptions) -> Result<()> {
    let held = hold(target, &options.state_dir)?;
    let is_there = held.is_switching() || last(&held)?.is_some();
    if is_there { Ok(()) } else { Err(nothing_to_take_back(target)) }
}

fn nothing_to_take_back(target: &AreaTarget) -> Error {
    Error::Refused {
        reason: format!("area `{}` has no checkout that could be taken back", target.name),
        hint: Some("`evenkeel checkout SNAP --full` goes to any snapshot of the store".into()),
    }
}

/// Takes transactions back, one after the other, until `number` is. What was done is added to `done`, the newest first,
/// also when a later one fails.
///
/// # Errors
/// [`Error::Refused`] when `number` is no transaction that can be taken back, with nothing changed; otherwise as
/// [`rollback`], with the later ones taken back.
pub fn undo(
    target: &AreaTarget,
    options: &BackOptions,
    number: u64,
    done: &mut Vec<AreaRollback>,
    progress: &Progress,
) -> Result<()> {
    let mut held = hold(target, &options.state_dir)?;
    let mut reachable = if held.is_switching() { Vec::new() } else { stack(&held, usize::MAX)? };
    if reachable.iter().all(|journal| journal.number != number) {
        let why = why_not(&held, number)?;
        return Err(Error::Refused {
            reason: format!("number {number} of area `{}` cannot be taken back: {why}", target.name),
            hint: Some("`evenkeel history` tells which can".into()),
        });
    }
    reachable.retain(|journal| journal.number >= number);
    let _packages = lock_packages(&held, target, progress)?;
    for _ in &reachable {
        done.push(roll_back_held(&mut held, target, options, progress)?);
    }
    Ok(())
}

/// Why a number is none that can be taken back.
fn why_not(held: &HeldArea, number: u64) -> Result<String> {
    if held.is_switching() {
        return Ok("a switch was interrupted; `evenkeel recover` or `evenkeel rollback` comes first".into());
    }
    let records = history::all(&held.state, held.marker())?;
    let Some(record) = records.iter().find(|record| record.number == number) else {
        return Ok("there is none".into());
    };
    Ok(match (record.undone_by, record.undoes) {
        (Some(by), _) => format!("number {by} did that already"),
        (None, Some(undone)) => format!("it is the rollback of {undone}"),
        (None, None) if !record.kept => "what gave way in it was dropped".into(),
        (None, None) => "what gave way in a later one was dropped".into(),
    })
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
    if marker.name != target.name {
        return Err(refuse::other_area(target, &marker.name));
    }
    let store = marker.store;
    let held = HeldArea::take(root, &target.root, &target.name, store, state_dir)?;
    if held.is_switching() && transaction::open(&held.state)?.is_none() {
        let lost = match held.damaged_journal() {
            Some(aside) => format!("damaged (it is {} now)", aside.display()),
            None => "lost".to_owned(),
        };
        return Err(Error::Refused {
            reason: format!(
                "area `{}` is in the middle of a switch whose journal is {lost}: it can be neither finished nor taken back",
                target.name
            ),
            hint: Some(format!(
                "`evenkeel checkout SNAP --full` makes it equal to a snapshot; what had given way is in {}",
                held.undo_path().display()
            )),
        });
    }
    Ok(held)
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
            // What a rollback displaced may be dropped before what a checkout did.
            None => match history::of(&held.state, number)?.and_then(|record| record.undoes) {
                Some(undone) => below = undone,
                None => break,
            },
        }
    }
    Ok(stack)
}
