// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes the two parts of a record.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::super::compare::{Difference, file_type};
use super::super::fidelity::NotHeld;
use super::super::journal::{Journal, Op, Step, Was};
use super::super::options::{Adopt, Mode};
use super::super::plan::{Action, Change, CheckoutPlan, Reason, Wanted};
use super::super::report::{ChangeKind, SetAside};
use super::super::switch::Switched;
use super::super::who::{ChangedBy, WHO_PATHS_MAX, Who, add_packages};
use super::lines::{
    AskedBy, ChangeLine, ChangedLine, CountFields, EndLine, HeaderLine, InUseLine, KeptLine, Line, NotHeldLine,
    PathLine, Recovered, SealLine, SetAsideLine, SkippedLine, Source, WarningLine, Word,
};
use super::read::{SCHEMA, changes_of, hash_of_lines, header_of};
use super::{end_name, record_name};
use crate::error::{Error, Result};
use crate::fetch::FetchReport;
use crate::format::manifest::{Inode, InodeKind, Timestamp};
use crate::fsio::{self, CAPABILITIES, Dir, FileType, Stat, TempFile};
use crate::in_use::InUse;
use crate::json::{PathField, TimeField};
use crate::path::TreePath;

/// Paths of one process that are listed.
const IN_USE_PATHS_MAX: usize = 100;
/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 16;

/// What a record is written from before anything is changed.
pub(in super::super) struct NewRecord<'a> {
    pub(in super::super) area: &'a str,
    pub(in super::super) root: &'a Dir,
    pub(in super::super) root_path: &'a Path,
    pub(in super::super) asked_by: Option<&'a AskedBy>,
    /// When it was asked for.
    pub(in super::super) asked: Timestamp,
    pub(in super::super) what: What<'a>,
}

/// What is recorded.
pub(in super::super) enum What<'a> {
    /// A checkout.
    Checkout {
        plan: &'a CheckoutPlan,
        mode: Mode,
        adopt: Option<Adopt>,
        not_held: &'a [NotHeld],
        /// Of all areas of the checkout together.
        fetch: Option<&'a FetchReport>,
        /// What was wrong with what this machine had.
        warnings: &'a [String],
    },
    /// A rollback of a journal, where something else was by now than that had left, and what does not come back for it.
    Rollback { of: &'a Journal, changed_since: &'a [TreePath], set_aside: &'a [SetAside] },
}

/// What came of a switch.
pub(in super::super) struct Ended<'a> {
    pub(in super::super) switched: &'a Switched,
    /// It had been interrupted; who asked that it be finished.
    pub(in super::super) recovered: Option<Option<&'a AskedBy>>,
}

/// Appends lines to a file that is not published yet.
struct Lines {
    file: TempFile,
    buffer: Vec<u8>,
    hash: blake3::Hasher,
    count: u64,
}

impl Lines {
    fn create(dir: &Path) -> Result<Lines> {
        Ok(Lines { file: TempFile::create(dir)?, buffer: Vec::new(), hash: blake3::Hasher::new(), count: 0 })
    }

    fn push(&mut self, line: &impl Serialize) -> Result<()> {
        let start = self.buffer.len();
        serde_json::to_writer(&mut self.buffer, line).expect("numbers, words and lists of them");
        self.buffer.push(b'\n');
        self.hash.update(&self.buffer[start..]);
        self.count += 1;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Its name is durable once the directory is synced.
    fn publish(mut self, target: &Path) -> Result<()> {
        self.flush()?;
        self.file.publish_unsynced_name(target)
    }
}

impl NewRecord<'_> {
    /// What a checkout does with what was here first, when it is an adoption.
    pub(in super::super) fn adopting(&self) -> Option<Adopt> {
        match &self.what {
            What::Checkout { adopt, .. } => *adopt,
            What::Rollback { .. } => None,
        }
    }

    /// Writes the first part of the record of `journal` into `dir`. Its content is durable, its name is once the directory
    /// is synced.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn write(&self, dir: &Path, journal: &Journal) -> Result<()> {
        let mut lines = Lines::create(dir)?;
        lines.push(&Line::Header(Box::new(self.header(journal))))?;
        match &self.what {
            What::Checkout { plan, not_held, fetch, warnings, .. } => {
                if let Some(fetch) = fetch {
                    lines.push(&Line::Fetch(Box::new(**fetch)))?;
                }
                for warning in *warnings {
                    lines.push(&Line::Warning(WarningLine { warning: warning.clone() }))?;
                }
                self.changes(plan, journal, &mut lines)?;
                self.kept(plan, &mut lines)?;
                for skipped in &plan.skipped {
                    let path = PathField::new(skipped.path.as_bytes());
                    lines.push(&Line::Skipped(SkippedLine { path, reason: skipped.reason.into() }))?;
                }
                for lost in *not_held {
                    let example = PathField::new(lost.example.as_bytes());
                    let lost = NotHeldLine { what: lost.what.name().into(), entries: lost.entries, example };
                    lines.push(&Line::NotHeld(lost))?;
                }
            }
            What::Rollback { of, changed_since, set_aside } => {
                taken_back(of, journal, &mut lines)?;
                for line in changed_lines(self.root, self.root_path, changed_since) {
                    lines.push(&Line::ChangedSince(Box::new(line)))?;
                }
                set_aside_lines(set_aside, &mut lines)?;
            }
        }
        lines.publish(&dir.join(record_name(journal.number)))
    }

    fn header(&self, journal: &Journal) -> HeaderLine {
        use std::os::unix::ffi::OsStrExt;
        let hex = |id: Option<crate::id::SnapshotId>| id.map(|id| id.to_hex());
        let (what, mode, adopt, counts, changes, kept, bytes_to_write) = match &self.what {
            What::Checkout { plan, mode, adopt, .. } => {
                let (counts, changes, kept) = (&plan.counts, plan.actions.len(), plan.kept.len());
                let fields = Some(CountFields::new(counts));
                ("checkout", Some(*mode), *adopt, fields, changes as u64, kept as u64, counts.bytes_to_write)
            }
            What::Rollback { .. } => ("rollback", None, None, None, journal.names() as u64, 0, 0),
        };
        HeaderLine {
            schema: SCHEMA.into(),
            number: journal.number,
            what: what.into(),
            area: self.area.into(),
            root: PathField::new(self.root_path.as_os_str().as_bytes()),
            mode,
            switch: if journal.tree().is_some() { "tree" } else { "files" }.into(),
            adopt,
            before: hex(journal.base),
            after: hex(journal.target),
            asked: Some(TimeField(self.asked)),
            began: TimeField(fsio::now()),
            undoes: journal.undoes,
            asked_by: self.asked_by.cloned(),
            host: fsio::hostname(),
            version: env!("CARGO_PKG_VERSION").into(),
            counts,
            changes,
            kept,
            bytes_to_write,
        }
    }

    fn changes(&self, plan: &CheckoutPlan, journal: &Journal, lines: &mut Lines) -> Result<()> {
        let mut drifted = self.drifted(plan).into_iter().peekable();
        let capable = capable(journal);
        for (index, action) in plan.actions.iter().enumerate() {
            let changed_by = drifted.next_if(|(at, _)| *at == index).map(|(_, who)| who);
            let line = change_line(action, capable.contains(&action.path));
            lines.push(&Line::Change(Box::new(ChangeLine { changed_by, ..line })))?;
        }
        Ok(())
    }

    /// Who had changed what is not as it was delivered, by number of the action.
    fn drifted(&self, plan: &CheckoutPlan) -> Vec<(usize, ChangedBy)> {
        let mut who = Who::default();
        let mut found = Vec::new();
        for (index, action) in plan.actions.iter().enumerate() {
            let is_drift = action.reason.undoes_a_change() || action.reason == Reason::Stray;
            if let Some(stat) = was_stat(&action.change).filter(|_| is_drift) {
                found.push((index, who.of_stat(stat)));
            }
            if found.len() == WHO_PATHS_MAX {
                break;
            }
        }
        let paths: Vec<&TreePath> = found.iter().map(|(index, _)| &plan.actions[*index].path).collect();
        let mut known: Vec<ChangedBy> = found.iter().map(|(_, who)| who.clone()).collect();
        if !paths.is_empty() {
            add_packages(self.root_path, &paths, &mut known);
        }
        found.into_iter().map(|(index, _)| index).zip(known).collect()
    }

    fn kept(&self, plan: &CheckoutPlan, lines: &mut Lines) -> Result<()> {
        let paths: Vec<&TreePath> = plan.kept.iter().map(|kept| &kept.path).collect();
        for (kept, changed_by) in plan.kept.iter().zip(look(self.root, self.root_path, &paths)) {
            let line = KeptLine {
                path: PathField::new(kept.path.as_bytes()),
                reason: kept.because.name().into(),
                conflict: kept.because.is_conflict(),
                differs: words(kept.because.difference()),
                changed_by,
            };
            lines.push(&Line::Kept(Box::new(line)))?;
        }
        Ok(())
    }
}

fn look(root: &Dir, root_path: &Path, paths: &[&TreePath]) -> Vec<ChangedBy> {
    if paths.is_empty() { Vec::new() } else { Who::default().look(root, root_path, paths) }
}

fn changed_lines(root: &Dir, root_path: &Path, paths: &[TreePath]) -> Vec<ChangedLine> {
    let references: Vec<&TreePath> = paths.iter().collect();
    let line = |(path, changed_by): (&TreePath, _)| ChangedLine { path: PathField::new(path.as_bytes()), changed_by };
    paths.iter().zip(look(root, root_path, &references)).map(line).collect()
}

fn set_aside_lines(set_aside: &[SetAside], lines: &mut Lines) -> Result<()> {
    for SetAside { path, kept_as } in set_aside {
        let path = PathField::new(path.as_bytes());
        lines.push(&Line::SetAside(SetAsideLine { path, kept_as: kept_as.clone() }))?;
    }
    Ok(())
}

fn words(difference: Difference) -> Vec<Word> {
    difference.names().map(Word::from).collect()
}

fn was_of(step: &Step) -> Option<&Was> {
    match &step.op {
        Op::Add { .. } => None,
        Op::Replace { was, .. } | Op::Remove { was } | Op::Metadata { was, .. } => Some(was),
        Op::Tree(tree) => Some(&tree.was),
    }
}

/// What gives way, and what goes with it.
fn giving_way(journal: &Journal) -> impl Iterator<Item = (&TreePath, &Was)> {
    let all = journal.steps.iter().filter_map(|step| Some((&step.path, was_of(step)?)));
    all.flat_map(|(path, was)| [(path, was)].into_iter().chain(was.within.iter().map(|(path, was)| (path, was))))
}

/// Paths of programs that have capabilities and give way.
fn capable(journal: &Journal) -> HashSet<&TreePath> {
    giving_way(journal).filter(|(_, was)| was.caps.is_some()).map(|(path, _)| path).collect()
}

fn was_stat(change: &Change) -> Option<&Stat> {
    match change {
        Change::Add { .. } => None,
        Change::Replace { was, .. } | Change::Metadata { was, .. } | Change::Remove { was, .. } => Some(was),
    }
}

/// The line of one change of a plan; `capable` says that what was there had capabilities.
fn change_line(action: &Action, capable: bool) -> ChangeLine {
    let mut line = ChangeLine {
        path: PathField::new(action.path.as_bytes()),
        action: ChangeKind::of(&action.change).name().into(),
        reason: action.reason.name().into(),
        differs: words(action.reason.difference()),
        ..ChangeLine::default()
    };
    let was = was_stat(&action.change);
    let comes: Option<&Inode> = match (&action.change, action.wanted()) {
        (_, Some(Wanted::Inode(inode) | Wanted::Copy(inode))) => Some(inode),
        (Change::Metadata { inode, .. }, _) => Some(inode),
        _ => None,
    };
    if let Some(was) = was {
        line.was_rights = rights(was.file_type, was.mode, capable);
    }
    match (comes, was) {
        (Some(comes), was) => {
            let kind = file_type(&comes.kind);
            line.r#type = Some(kind.name().into());
            line.mode = Some(octal(comes.mode));
            line.owner = Some(owner(comes.uid, comes.gid));
            line.rights = rights(kind, comes.mode, comes.xattrs.contains_key(CAPABILITIES));
            if let (InodeKind::File(content), true) = (&comes.kind, action.wanted().is_some()) {
                line.bytes = Some(content.size);
            }
            if let Some(was) = was {
                line.was_type = (was.file_type != kind).then(|| was.file_type.name().into());
                line.was_mode = Some(octal(was.mode)).filter(|mode| line.mode.as_ref() != Some(mode));
                line.was_owner = Some(owner(was.uid, was.gid)).filter(|owner| line.owner.as_ref() != Some(owner));
            }
        }
        (None, Some(was)) => line.r#type = Some(was.file_type.name().into()),
        (None, None) => {}
    }
    line
}

/// The lines of a rollback: one for each step. What comes back has its rights again, which its checkout had taken.
fn taken_back(of: &Journal, journal: &Journal, lines: &mut Lines) -> Result<()> {
    let displaced: HashMap<&TreePath, &Was> = giving_way(of).filter(|(_, was)| was.gives_rights()).collect();
    if let Some(tree) = journal.tree() {
        for (path, action) in &tree.changes {
            let mut line = back_line(path);
            line.action = action.name().into();
            line.rights = displaced.get(path).map(|was| rights_of(was)).unwrap_or_default();
            lines.push(&Line::Change(Box::new(line)))?;
        }
        return Ok(());
    }
    for step in &journal.steps {
        let mut line = back_line(&step.path);
        let comes = || displaced.get(&step.path).map(|was| rights_of(was));
        match &step.op {
            Op::Add { .. } => (line.action, line.rights) = ("add".into(), comes().unwrap_or_default()),
            Op::Replace { was, .. } => {
                (line.action, line.rights) = ("replace".into(), comes().unwrap_or_default());
                line.was_rights = rights_of(was);
            }
            Op::Remove { was } => {
                (line.action, line.r#type) = ("remove".into(), Some(was.file_type.name().into()));
                line.was_rights = rights_of(was);
            }
            Op::Metadata { was, before, after } => {
                (line.action, line.r#type) = ("metadata".into(), Some(was.file_type.name().into()));
                (line.mode, line.owner) = (Some(octal(after.mode)), Some(owner(after.uid, after.gid)));
                line.was_mode = Some(octal(before.mode)).filter(|mode| line.mode.as_ref() != Some(mode));
                line.was_owner = Some(owner(before.uid, before.gid)).filter(|owner| line.owner.as_ref() != Some(owner));
            }
            // It is the only one, and told above.
            Op::Tree(_) => continue,
        }
        lines.push(&Line::Change(Box::new(line)))?;
    }
    Ok(())
}

fn back_line(path: &TreePath) -> ChangeLine {
    ChangeLine { path: PathField::new(path.as_bytes()), reason: "taken back".into(), ..ChangeLine::default() }
}

fn rights_of(was: &Was) -> Vec<Word> {
    rights(was.file_type, was.mode, was.caps.is_some())
}

fn octal(mode: u16) -> String {
    format!("{mode:04o}")
}

fn owner(uid: u32, gid: u32) -> String {
    format!("{uid}:{gid}")
}

/// What a file gives whoever runs it.
fn rights(kind: FileType, mode: u16, capable: bool) -> Vec<Word> {
    const RIGHTS: [(u16, &str); 2] = [(0o4000, "set-user-id"), (0o2000, "set-group-id")];
    if kind != FileType::File {
        return Vec::new();
    }
    let set_id = RIGHTS.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, name)| Word::from(*name));
    set_id.chain(capable.then(|| Word::from("capabilities"))).collect()
}

/// Writes the second part of the record of `journal` into `dir`, durably. Called again, it replaces what it wrote.
///
/// # Errors
/// [`Error::Io`].
pub(in super::super) fn publish_end(dir: &Path, journal: &Journal, root: &Dir, ended: &Ended<'_>) -> Result<()> {
    let record = dir.join(record_name(journal.number));
    // What was interrupted is finished whatever became of its record, which says so to whoever reads it.
    let header = header_of(&record).ok();
    let mut lines = continued(dir, &record)?;
    let Switched { changed_meanwhile, kept_aside, set_aside, in_use, .. } = ended.switched;
    let root_path = root.real_path().unwrap_or_else(|_| root.path().to_path_buf());
    for line in changed_lines(root, &root_path, changed_meanwhile) {
        lines.push(&Line::ChangedMeanwhile(Box::new(line)))?;
    }
    for path in kept_aside {
        lines.push(&Line::KeptAside(PathLine { path: PathField::new(path.as_bytes()) }))?;
    }
    set_aside_lines(set_aside, &mut lines)?;
    push_in_use(in_use, &mut lines)?;
    let meanwhile = changed_meanwhile.len() as u64;
    let is_rollback = journal.undoes.is_some();
    let kept = header.as_ref().map(|header| header.kept + meanwhile);
    let made =
        header.as_ref().filter(|_| meanwhile > 0).map(|header| made(header, &record, journal, changed_meanwhile));
    let written = header.iter().filter(|header| header.bytes_to_write > 0);
    let end = EndLine {
        outcome: outcome(is_rollback, kept),
        in_sync: kept.filter(|_| !is_rollback).map(|kept| kept == 0),
        kept,
        changed_meanwhile: meanwhile,
        changes: made.map(|(changes, _)| changes),
        counts: made.and_then(|(_, counts)| counts),
        kept_aside: kept_aside.len() as u64,
        written: written.map(|header| Source { from: "store".into(), bytes: header.bytes_to_write }).collect(),
        ended: TimeField(fsio::now()),
        recovered: ended.recovered.map(|asked_by| Recovered { asked_by: asked_by.cloned() }),
        taken_back_by: None,
    };
    finish(lines, end, dir, journal.number)
}

/// Of what the first part of a record announces, the numbers of what was done: not what somebody was faster at, nor what is
/// inside of that.
fn made(header: &HeaderLine, record: &Path, journal: &Journal, left: &[TreePath]) -> (u64, Option<CountFields>) {
    let left: HashSet<&[u8]> = left.iter().map(TreePath::as_bytes).collect();
    let steps: HashSet<&[u8]> = journal.steps.iter().map(|step| step.path.as_bytes()).collect();
    let (mut changes, mut counts) = (header.changes, header.counts);
    let mut whole_is_left = false;
    for (path, reason) in changes_of(record) {
        if steps.contains(&path[..]) {
            whole_is_left = left.contains(&path[..]);
        }
        if whole_is_left {
            changes = changes.saturating_sub(1);
            counts.iter_mut().for_each(|counts| counts.uncount(&reason));
        }
    }
    (changes, counts)
}

/// Writes the second part of the record of `journal`, which was interrupted and which `by` takes back.
///
/// # Errors
/// [`Error::Io`].
pub(in super::super) fn publish_taken_back(dir: &Path, number: u64, by: u64) -> Result<()> {
    let lines = continued(dir, &dir.join(record_name(number)))?;
    let end = EndLine {
        outcome: "taken back".into(),
        in_sync: None,
        kept: None,
        changed_meanwhile: 0,
        changes: None,
        counts: None,
        kept_aside: 0,
        written: Vec::new(),
        ended: TimeField(fsio::now()),
        recovered: None,
        taken_back_by: Some(by),
    };
    finish(lines, end, dir, number)
}

/// A second part that goes on after the first.
fn continued(dir: &Path, record: &Path) -> Result<Lines> {
    let mut lines = Lines::create(dir)?;
    if fsio::exists(record)? {
        match hash_of_lines(record) {
            // Whoever reads it finds that out again.
            Err(Error::DamagedRecord { .. }) => {}
            hashed => (lines.hash, lines.count) = hashed?,
        }
    }
    Ok(lines)
}

fn finish(mut lines: Lines, end: EndLine, dir: &Path, number: u64) -> Result<()> {
    lines.push(&Line::End(Box::new(end)))?;
    let (count, hash) = (lines.count, lines.hash.finalize());
    lines.push(&Line::Seal(SealLine { lines: count, blake3: hash.to_hex().to_string() }))?;
    lines.publish(&dir.join(end_name(number)))?;
    fsio::sync_dir(dir)
}

fn outcome(is_rollback: bool, kept: Option<u64>) -> String {
    match (is_rollback, kept) {
        (false, Some(0)) => "at".into(),
        (false, Some(1)) => "at, 1 kept difference".into(),
        (false, Some(kept)) => format!("at, {kept} kept differences"),
        (false, None) => "at, kept differences not known".into(),
        (true, None | Some(0)) => "as before".into(),
        (true, Some(kept)) => format!("as before, {kept} left alone"),
    }
}

fn push_in_use(in_use: &InUse, lines: &mut Lines) -> Result<()> {
    for using in &in_use.processes {
        let mut using = using.clone();
        let more_paths = using.paths.len().saturating_sub(IN_USE_PATHS_MAX) as u64;
        using.paths.truncate(IN_USE_PATHS_MAX);
        lines.push(&Line::InUse(InUseLine { using, more_paths }))?;
    }
    Ok(())
}
