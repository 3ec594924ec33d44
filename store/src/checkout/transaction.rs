// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One transaction on one area, from its first durable byte to its place among the records.
//!
//! ```text
//! STATE/areas/<area id>/   applied            what was delivered
//!                          tx/                journal · summary · record.<number> · end.<number> · applied.next ·
//!                                             applied.before · lifted
//!                          records/<number>/  the same files of what is finished
//!                          journal.damaged    a journal that could not be read any more
//! AREA/.evenkeel/          staging/           what is new, and what gave way
//!                          undo/<number>/     the staging directory of a finished transaction
//! ```
//!
//! The journal is written last and its name makes the transaction begin; from then on it is finished by whoever comes
//! next. Finishing may be interrupted anywhere, too: every step of it looks whether it is done.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::change_record::{
    AskedBy, Ended, NewRecord, RecordLimits, end_name, publish_end, publish_taken_back, record_name,
};
use super::history::{self, Record};
use super::journal::{Journal, TreeStep};
use super::lift::{self, Lifts};
use super::options::{Adopt, UndoLimits};
use super::state::{HeldArea, Marker};
use super::switch::{Care, Switch, Switched};
use super::tree;
use super::users;
use crate::error::{Error, Result};
use crate::files_cache::CacheWriter;
use crate::format::manifest::Timestamp;
use crate::fsio;
use crate::id::{ChunkId, SnapshotId};
use crate::progress::Progress;

const TX: &str = "tx";
const RECORDS: &str = "records";
pub(super) const JOURNAL: &str = "journal";
/// Where one goes that is damaged.
const DAMAGED: &str = "journal.damaged";
/// What [`history`](mod@super::history) tells of it.
pub(super) const SUMMARY: &str = "summary";
const NEXT: &str = "applied.next";
const BEFORE: &str = "applied.before";
/// Transactions that changed no name, of those that can be taken back.
const NOTES_MAX: usize = 1000;

/// What the area's memory is after a transaction.
pub(super) enum Memory<'a> {
    /// This.
    Record(Box<CacheWriter>, SnapshotId, ChunkId),
    /// What it was before the transaction of this record directory.
    Before(&'a Path),
}

impl Memory<'_> {
    /// Makes it the memory at `path`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn publish(self, path: &Path) -> Result<()> {
        match self {
            Memory::Record(record, snapshot, manifest) => record.finish(path, snapshot, manifest),
            Memory::Before(record) => {
                if fsio::link(&record.join(BEFORE), path)? {
                    return Ok(());
                }
                // Nothing was remembered then; no memory of another state may be left.
                fsio::publish_file(path, b"")
            }
        }
    }
}

fn turned_next(number: u64) -> String {
    format!("{NEXT}.{number}")
}

fn journal_path(state: &Path) -> PathBuf {
    state.join(TX).join(JOURNAL)
}

/// Where the finished transaction `number` is.
pub(super) fn record_path(state: &Path, number: u64) -> PathBuf {
    state.join(RECORDS).join(number.to_string())
}

/// What the transaction that was interrupted would have delivered.
pub(super) fn prepared_memory(state: &Path) -> PathBuf {
    state.join(TX).join(NEXT)
}

/// Removes what a process that ended while it wrote has left of an area that is held.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn sweep(state: &Path) -> Result<()> {
    for dir in [state, &state.join(TX)] {
        if fsio::exists(dir)? {
            fsio::sweep_temporaries(dir)?;
        }
    }
    Ok(())
}

/// The transaction that is under way or was interrupted.
///
/// # Errors
/// [`Error::Refused`] for a journal that cannot be understood; [`Error::Io`].
pub(super) fn open(state: &Path) -> Result<Option<Journal>> {
    Journal::load(&journal_path(state))
}

/// Whether the journal of the transaction that is under way is there, as far as it has to be.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn journal_state(state: &Path, marker: &Marker) -> Result<JournalState> {
    let journal = journal_path(state);
    Ok(match (fsio::exists(&journal)?, marker.transaction) {
        (true, _) if Journal::is_damaged(&journal)? => JournalState::Damaged,
        (false, Some(_)) => JournalState::Lost,
        _ => JournalState::Fine,
    })
}

/// What is to be said of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalState {
    /// It is there, or need not be.
    Fine,
    /// It is damaged.
    Damaged,
    /// A switch is under way, and it is not there.
    Lost,
}

/// Moves a damaged journal aside, for whoever wants to look into it: it is as good as lost. Gives where it is then.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn lose_damaged(state: &Path, marker: &Marker) -> Result<Option<PathBuf>> {
    let (journal, aside) = (journal_path(state), state.join(DAMAGED));
    if !Journal::is_damaged(&journal)? {
        return Ok(None);
    }
    fsio::rename(&journal, &aside)?;
    fsio::sync_dir(state)?;
    fsio::sync_dir(&state.join(TX))?;
    // It had ended, and only its place among the records is missing.
    let has_ended = marker.transaction.is_none() && fsio::exists(&state.join(TX).join(end_name(marker.finished)))?;
    if has_ended && !fsio::exists(&record_path(state, marker.finished))? {
        archive(state, marker.finished)?;
    }
    Ok(Some(aside))
}

/// What is recorded of the transaction that is not among the records yet: it is under way, was interrupted, or has ended.
/// `None` when there is none, or it was never begun.
///
/// # Errors
/// As [`open`].
pub(super) fn latest_record(state: &Path, marker: &Marker) -> Result<Option<Record>> {
    if journal_state(state, marker)? == JournalState::Damaged {
        return Ok(None);
    }
    let Some(journal) = open(state)? else { return Ok(None) };
    let interrupted = marker.transaction.is_some();
    if !interrupted && marker.finished < journal.number {
        return Ok(None);
    }
    let record = history::read(&state.join(TX).join(SUMMARY), journal.number)?;
    Ok(record.map(|record| Record { kept: true, interrupted, ..record }))
}

/// Numbers of the finished transactions, ascending.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn numbers(state: &Path) -> Result<Vec<u64>> {
    let records = state.join(RECORDS);
    if !fsio::exists(&records)? {
        return Ok(Vec::new());
    }
    let names = fsio::list_dir(&records)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number of the next transaction.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn next_number(held: &HeldArea) -> Result<u64> {
    let last = numbers(&held.state)?.last().copied().unwrap_or(0);
    Ok(last.max(held.finished()).max(held.last_undo()?) + 1)
}

/// The journal of a finished transaction, while it is kept.
///
/// # Errors
/// As [`open`].
pub(super) fn finished(state: &Path, number: u64) -> Result<Option<Journal>> {
    Journal::load(&record_path(state, number).join(JOURNAL))
}

/// Makes a transaction durable. Nothing live has changed when it returns, and everything will.
///
/// # Errors
/// [`Error::Io`]; nothing was begun then.
pub(super) fn begin(held: &mut HeldArea, journal: &Journal, memory: Memory<'_>, record: &NewRecord<'_>) -> Result<()> {
    prepare(held, journal, Some(memory), record)?;
    let to_or_from = journal.target.or(journal.base).expect("a transaction leads from or to a snapshot");
    held.begin(to_or_from, record.adopting(), record.root_path)
}

/// Notes a transaction that changes no name: it only leads to another snapshot, in one step, and is never under way.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn note(held: &mut HeldArea, journal: &Journal, memory: Memory<'_>, record: &NewRecord<'_>) -> Result<()> {
    held.note(record.root_path)?;
    prepare(held, journal, None, record)?;
    let state = held.state.clone();
    publish_end(&state.join(TX), journal, &held.root, &Ended { switched: &Switched::default(), recovered: None })?;
    memory.publish(&held.applied_path())?;
    held.end(journal.target, journal.number)?;
    archive(&state, journal.number)
}

fn prepare(held: &HeldArea, journal: &Journal, memory: Option<Memory<'_>>, record: &NewRecord<'_>) -> Result<()> {
    let tx = held.state.join(TX);
    fsio::remove_tree(&tx)?;
    fsio::create_dir_all(&tx)?;
    memory.map_or(Ok(()), |memory| memory.publish(&tx.join(NEXT)))?;
    fsio::link(&held.applied_path(), &tx.join(BEFORE))?;
    record.write(&tx, journal)?;
    summarize(&tx, journal)?;
    fsio::publish_file(&journal_path(&held.state), &journal.encode())?;
    fsio::sync_dir(&held.state)
}

fn summarize(tx: &Path, journal: &Journal) -> Result<()> {
    let summary = Record::of(journal, fsio::now()).encode();
    fsio::publish_file(&tx.join(SUMMARY), summary.as_bytes())
}

/// Carries a journal out, or on.
///
/// # Errors
/// The first failure; the next command goes on from there.
pub(super) fn switch(held: &mut HeldArea, journal: &Journal, resumed: bool, progress: &Progress) -> Result<Switched> {
    if let Some(step) = journal.tree() {
        return switch_tree(held, journal, step, resumed, progress);
    }
    if resumed {
        // It may have come as far as to be kept.
        held.stage_undo(journal.number)?;
    }
    if let Some(number) = journal.undoes {
        held.stage_undo(number)?;
    }
    let staging = held.staging()?;
    let switch = Switch {
        steps: &journal.steps,
        dirs: &journal.dirs,
        staging: &staging,
        root: &held.root,
        care: if journal.undoes.is_some() { Care::Back } else { Care::Undo },
        resumed,
        lifts: lifts(held)?,
        done: Switched::default(),
    };
    let mut switched = switch.run(progress)?;
    progress.start("looking who uses what was replaced", 0, 0);
    let users = users::of_displaced(journal, &switched.changed_meanwhile, &held.root);
    switched.in_use = users.map_err(|e| Error::io("look at", held.root.path(), e))?;
    Ok(switched)
}

/// What the transaction that is under way has lifted for a moment.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn lifts(held: &HeldArea) -> Result<Lifts> {
    Lifts::open(&held.state.join(TX))
}

/// Who uses the old tree is for the caller to find out, who knows what was in it.
fn switch_tree(
    held: &mut HeldArea,
    journal: &Journal,
    step: &TreeStep,
    resumed: bool,
    progress: &Progress,
) -> Result<Switched> {
    let root = held.root.stat(b"").map_err(|e| Error::io("look at", held.root.path(), e))?;
    if let Some(number) = journal.undoes.filter(|_| root.ino == step.was.ino) {
        held.stage_undo(number)?;
    }
    let switched = tree::switch(held, journal, step, !resumed, progress);
    if switched.is_err() && !held.is_switching() {
        fsio::remove_tree(&held.state.join(TX))?;
    }
    switched.map(|()| Switched::default())
}

/// Ends a transaction whose switch is durable. `memory` is a better one than what was prepared.
///
/// # Errors
/// [`Error::Unrecorded`]; the next command goes on from there.
pub(super) fn finish(
    held: &mut HeldArea,
    journal: &Journal,
    memory: Option<Memory<'_>>,
    ended: &Ended<'_>,
) -> Result<()> {
    let done = record_as_finished(held, journal, memory, ended);
    done.map_err(|e| held.unrecorded(journal.target, e))
}

fn record_as_finished(
    held: &mut HeldArea,
    journal: &Journal,
    memory: Option<Memory<'_>>,
    ended: &Ended<'_>,
) -> Result<()> {
    let (state, applied) = (held.state.clone(), held.applied_path());
    let tx = state.join(TX);
    publish_end(&tx, journal, &held.root, ended)?;
    let untaken = &ended.switched.untaken;
    if !untaken.is_empty() {
        // Whoever takes it back later expects all of it to have happened.
        let taken = journal.steps.iter().filter(|step| !untaken.contains(&step.slot)).cloned().collect();
        let journal = Journal { steps: taken, ..journal.clone() };
        if let Some(record) = history::read(&tx.join(SUMMARY), journal.number)? {
            let record = Record { names: journal.names() as u64, ..record };
            fsio::publish_file(&tx.join(SUMMARY), record.encode().as_bytes())?;
        }
        fsio::publish_file(&journal_path(&state), &journal.encode())?;
    }
    match memory {
        Some(memory) => memory.publish(&applied)?,
        None => {
            // A transaction that was turned around has a memory of its own.
            let (turned, next) = (tx.join(turned_next(journal.number)), tx.join(NEXT));
            if fsio::exists(&turned)? {
                fsio::remove_file(&next)?;
                fsio::rename(&turned, &next)?;
            }
            if fsio::exists(&next)? {
                fsio::rename(&next, &applied)?;
                fsio::sync_dir(&state)?;
            }
        }
    }
    // Gone back to before first contact.
    if journal.target.is_none() {
        fsio::remove_file(&applied)?;
    }
    held.keep_as_undo(journal.number)?;
    held.end(journal.target, journal.number)?;
    archive(&state, journal.number)
}

/// Puts the turned around journal of an interrupted transaction in its place. What was displaced so far stays where it is.
///
/// # Errors
/// [`Error::Io`]; the transaction is still the old one then.
pub(super) fn turn_around(
    held: &mut HeldArea,
    interrupted: u64,
    inverse: &Journal,
    record: &NewRecord<'_>,
) -> Result<()> {
    let tx = held.state.join(TX);
    // If this comes no further, whoever finishes the old one says so instead.
    publish_taken_back(&tx, interrupted, inverse.number)?;
    record.write(&tx, inverse)?;
    let next = tx.join(turned_next(inverse.number));
    fsio::remove_file(&next)?;
    Memory::Before(&tx).publish(&next)?;
    keep_summary(&tx, interrupted, inverse)?;
    summarize(&tx, inverse)?;
    fsio::publish_file(&journal_path(&held.state), &inverse.encode())
}

/// What an interrupted transaction did that is taken back now stays beside the summary of who takes it back.
fn keep_summary(tx: &Path, interrupted: u64, inverse: &Journal) -> Result<()> {
    let kept = tx.join(taken_back_summary(interrupted));
    if fsio::exists(&kept)? {
        // From here on the other one may be the new one's already.
        return Ok(());
    }
    let Some(record) = history::read(&tx.join(SUMMARY), interrupted)? else { return Ok(()) };
    let done = Record { names: inverse.names() as u64, ..record };
    fsio::publish_file(&kept, done.encode().as_bytes())
}

/// The name of such a summary.
pub(super) fn taken_back_summary(number: u64) -> String {
    format!("{SUMMARY}.{number}")
}

/// An interrupted transaction that was finished.
pub(super) struct Recovered {
    pub(super) journal: Journal,
    pub(super) switched: Switched,
    /// What it did with what was there first, when it was an adoption.
    pub(super) adopting: Option<Adopt>,
}

/// Goes on with what was interrupted, until it is finished. Gives what it was.
///
/// # Errors
/// The first failure.
pub(super) fn recover(
    held: &mut HeldArea,
    asked_by: Option<&AskedBy>,
    progress: &Progress,
) -> Result<Option<Recovered>> {
    let Some(journal) = open(&held.state)? else { return Ok(None) };
    if !held.is_switching() {
        if held.finished() >= journal.number {
            archive(&held.state, journal.number)?;
        } else {
            // Nothing was begun: the marker says so last.
            fsio::remove_tree(&held.state.join(TX))?;
            held.clear_staging()?;
        }
        return Ok(None);
    }
    let adopting = held.adopting();
    let switched = switch(held, &journal, true, progress)?;
    held.sync_switched(journal.target)?;
    finish(held, &journal, None, &Ended { switched: &switched, recovered: Some(asked_by) })?;
    Ok(Some(Recovered { journal, switched, adopting }))
}

/// Drops what gave way too long ago, or is too much; never what the last transaction displaced. Rollbacks are counted for
/// themselves, so that they take no checkout its place. Gives the numbers of those whose displaced files are gone now.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn drop_old(held: &HeldArea, limits: UndoLimits, now: Timestamp) -> Result<Vec<u64>> {
    let ended: HashMap<u64, Timestamp> = held.undos()?.into_iter().collect();
    let all: BTreeSet<u64> = numbers(&held.state)?.into_iter().chain(ended.keys().copied()).collect();
    let (mut dropped, mut undone) = (Vec::new(), HashMap::new());
    let (mut checkouts, mut others, mut bytes) = (Line::default(), Line::default(), 0_u64);
    for number in all.into_iter().rev() {
        // One that cannot be understood is left for whoever looks into it: it must not fail what has been done.
        let Ok(journal) = finished(&held.state, number) else { continue };
        if let Some(by) = undone.remove(&number) {
            // What it displaced has come back; it lives as long as what took it back.
            if dropped.contains(&by) {
                forget(held, number)?;
            }
            continue;
        }
        let line = match &journal {
            Some(Journal { undoes: None, .. }) => &mut checkouts,
            Some(Journal { undoes: Some(of), .. }) => {
                undone.insert(*of, number);
                &mut others
            }
            // The journal of what was displaced is lost.
            None if ended.contains_key(&number) => &mut others,
            None => continue,
        };
        let is_note = journal.as_ref().is_some_and(|journal| journal.steps.is_empty());
        bytes = bytes.saturating_add(journal.as_ref().map_or(0, Journal::displaced_bytes));
        let is_last = number >= held.finished();
        let is_young = ended.get(&number).is_none_or(|ended| now.secs - ended.secs <= limits.seconds);
        line.has_ended |= !(line.kept < limits.records && is_young && bytes <= limits.bytes);
        if is_note {
            // It displaced nothing, and takes no other its place.
            line.notes += 1;
            line.has_ended |= line.notes > NOTES_MAX;
        }
        if is_last || !line.has_ended {
            line.kept += usize::from(!is_note);
            continue;
        }
        forget(held, number)?;
        dropped.push(number);
    }
    dropped.reverse();
    Ok(dropped)
}

/// Transactions of one kind, from the newest on.
#[derive(Default)]
struct Line {
    kept: usize,
    /// Those that changed no name.
    notes: usize,
    /// Nothing older is kept.
    has_ended: bool,
}

/// Removes what makes a transaction one that can be taken back.
fn forget(held: &HeldArea, number: u64) -> Result<()> {
    let record = record_path(&held.state, number);
    // The journal goes first: without it nobody tries to go back.
    fsio::remove_file(&record.join(JOURNAL))?;
    fsio::remove_file(&record.join(BEFORE))?;
    held.drop_undo(number)
}

/// Drops the oldest records, as far as they are too many or too much. What can be taken back keeps its record, and so does
/// the last transaction.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn drop_records(held: &HeldArea, limits: RecordLimits) -> Result<()> {
    let (mut kept, mut bytes) = (0, 0_u64);
    for number in numbers(&held.state)?.into_iter().rev() {
        let record = record_path(&held.state, number);
        for part in [record_name(number), end_name(number)] {
            bytes = bytes.saturating_add(fsio::file_len(&record.join(part))?.unwrap_or(0));
        }
        let is_needed = number >= held.finished() || fsio::exists(&record.join(JOURNAL))?;
        if is_needed || (kept < limits.records && bytes <= limits.bytes) {
            kept += 1;
            continue;
        }
        fsio::remove_tree(&record)?;
    }
    Ok(())
}

/// Where the record of `number` may be: its own directory; that of the rollback which took it back when it was interrupted;
/// the transaction that is under way.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn dirs_of_record(state: &Path, number: u64) -> Result<Vec<PathBuf>> {
    let later = numbers(state)?.into_iter().filter(|later| *later >= number);
    Ok(later.map(|later| record_path(state, later)).chain([state.join(TX)]).collect())
}

/// Puts a finished transaction among the records.
fn archive(state: &Path, number: u64) -> Result<()> {
    let records = state.join(RECORDS);
    fsio::create_dir_all(&records)?;
    let tx = state.join(TX);
    for name in [NEXT, lift::DIRS, lift::MOVING, &turned_next(number)] {
        fsio::remove_file(&tx.join(name))?;
    }
    fsio::rename(&tx, &record_path(state, number))?;
    fsio::sync_dir(&records)?;
    fsio::sync_dir(state)
}
