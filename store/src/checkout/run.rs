// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Drives a checkout: all areas are planned and judged before any is staged, all are staged before any is switched.

mod apply;
mod fetch;
mod look;
mod seeds;
mod tree;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use self::look::{Planned, Resumed};
use super::conflict::Conflicts;
use super::fidelity::{Fidelity, Here, Losses, NotHeld};
use super::journal::Journal;
use super::live::LiveArea;
use super::merge::{AppliedEntry, MergeRules, plan_area};
use super::options::{Adopt, AreaTarget, CheckoutOptions, Mode, SwitchMode};
use super::packages::PackageLocks;
use super::plan::CheckoutPlan;
use super::record::read_applied;
use super::refuse;
use super::report::{AreaReport, CheckoutReport, SetAside};
use super::state::{AreaRoot, HeldArea, Marker, applied_path, state_path};
use super::switch::Switched;
use super::transaction::{self, JournalState};
use super::tree::WholeTree;
use crate::area::{self, RuleSet, Verdict};
use crate::error::{Error, Result};
use crate::files_cache::{CacheReader, CacheWriter};
use crate::format::manifest::{Entry, Timestamp};
use crate::format::snapshot::{Snapshot, SnapshotArea};
use crate::fsio::{self, Dir};
use crate::id::SnapshotId;
use crate::manifest::Manifest;
use crate::path::TreePath;
use crate::progress::Progress;
use crate::read::ChunkReader;
use crate::store::Store;
use crate::walk::Walk;

/// Makes the areas of `options` equal to their state in a snapshot.
///
/// Nothing live changes before every area has been planned, found to be within its bounds, and staged.
///
/// # Errors
/// [`Error::Refused`] and [`Error::Area`] for what may not be done as it was asked, with nothing changed;
/// [`Error::Locked`]; damaged or missing objects; [`Error::Io`].
pub fn checkout(store: &Store, options: &CheckoutOptions, progress: &Progress) -> Result<CheckoutReport> {
    checkout_telling(store, options, progress, &mut |_, _| {})
}

/// As [`checkout`], and calls `before` for each area, with its name and what of the reference its place cannot hold, once
/// that is known and before anything is fetched, staged or changed.
///
/// # Errors
/// As [`checkout`].
pub fn checkout_telling(
    store: &Store,
    options: &CheckoutOptions,
    progress: &Progress,
    before: &mut dyn FnMut(&str, &[NotHeld]),
) -> Result<CheckoutReport> {
    let (started, began) = (Instant::now(), fsio::now());
    let snapshot = store.snapshot(&options.snapshot)?;
    let reader = store.reader_of(&[options.snapshot])?;
    if reader.is_far() {
        let kept = store.state_in(&options.state_dir);
        if options.dry_run { reader.near().look_in(&kept)? } else { reader.near().keep_in(&kept)? }
    }
    for path in &options.seeds {
        // A wrong name is one whether or not anything would have come of it.
        Dir::open_following(path)?;
    }
    let own = store.dir().into_iter().chain([options.state_dir.as_path()]).map(Path::to_path_buf);
    let own = options.protected.iter().cloned().chain(own).collect();
    let options = &CheckoutOptions { protected: own, ..options.clone() };
    let run = Run { store, options, snapshot: &snapshot, reader: &reader, progress, began };
    let mut packages = PackageLocks::default();
    let mut planned = run.look(None, &mut packages)?;
    if !planned.only {
        planned.areas.iter().for_each(|area| before(&area.target.name, &area.losses.report()));
    }
    let absent = planned.needed.as_ref().map_or(&[][..], |needed| &needed.absent);
    let mut no_base = run.require_bases(&planned.areas, absent).err();
    let mut forgotten_bytes = 0;
    if options.fetch_only
        && !options.dry_run
        && let Some(needed) = &mut planned.needed
    {
        run.fetch(&planned.areas, run.staged_beside(&planned.areas)?, needed)?;
        forgotten_bytes = run.forget_unused(needed)?;
    }
    if !planned.only {
        if let Some(error) = no_base.take() {
            return Err(error);
        }
        (planned, packages) = run.fetch_unheld(planned, packages)?;
    }
    let Planned { areas, plan, mut needed, only: planned_only } = planned;
    let reports = if planned_only {
        let look = |area| {
            let refused = run.check_bounds(area).err();
            let would_refuse = refused.as_ref().or(no_base.as_ref()).map(with_causes);
            let would_keep_aside = area.plan.kept_aside().cloned().collect();
            AreaReport { would_refuse, would_keep_aside, ..run.report(area, &Switched::default()) }
        };
        areas.iter().map(look).collect()
    } else {
        let mut reports = run.apply(areas, needed.as_mut())?;
        // What is done is done, whatever becomes of what was kept for it.
        if let Err(error) = reader.near().drop_file()
            && let Some(area) = reports.first_mut()
        {
            area.warnings.push(format!("what was fetched could not be removed: {}", error));
        }
        reports
    };
    drop(packages);
    let in_sync = !planned_only && reports.iter().all(|area| area.kept.is_empty());
    let seconds = started.elapsed().as_secs_f64();
    let fetch = needed.map(|needed| needed.report);
    let snapshot = options.snapshot;
    Ok(CheckoutReport { snapshot, areas: reports, planned_only, fetch, forgotten_bytes, plan, in_sync, seconds })
}

struct Run<'a> {
    store: &'a Store,
    options: &'a CheckoutOptions,
    snapshot: &'a Snapshot,
    reader: &'a ChunkReader,
    progress: &'a Progress,
    /// When it was asked for.
    began: Timestamp,
}

/// One area on its way through a checkout.
struct AreaRun<'a> {
    target: &'a AreaTarget,
    reference: &'a SnapshotArea,
    manifest: Manifest<'a>,
    here: Here,
    /// What cannot be held here.
    losses: Losses,
    rules: RuleSet,
    /// Patterns that only this machine has.
    site_rules: RuleSet,
    /// The program's own paths in it.
    protected: Vec<TreePath>,
    /// Both.
    local_rules: RuleSet,
    has_local_rules: bool,
    place: Place,
    conflicts: Conflicts,
    /// Where the root really is.
    path: std::path::PathBuf,
    marker: Option<Marker>,
    /// The snapshot that the record of what was delivered belongs to.
    base: Option<SnapshotId>,
    mode: Mode,
    needs_adopt: bool,
    /// First contact with a tree that is not empty, and what becomes of what is there.
    adopting: Option<Adopt>,
    /// A switch was interrupted here, and its journal is lost.
    journal_lost: bool,
    walk_start: Timestamp,
    plan: CheckoutPlan,
    /// The whole new tree, for a tree switch.
    tree: Option<Box<WholeTree>>,
    ready: Option<Ready>,
    resumed: Resumed,
    /// Transactions that cannot be taken back any more.
    dropped_undo: Vec<u64>,
    /// The number of this one.
    number: Option<u64>,
}

/// A staged plan, ready to be begun.
struct Ready {
    journal: Journal,
    record: CacheWriter,
}

/// How an area's root is held.
enum Place {
    /// Looked at only.
    Seen(AreaRoot),
    Held(Box<HeldArea>),
}

impl AreaRun<'_> {
    fn root(&self) -> Option<&Dir> {
        match &self.place {
            Place::Seen(seen) => seen.dir.as_ref(),
            Place::Held(held) => Some(&held.root),
        }
    }
}

impl<'a> Run<'a> {
    /// Looks at an area; changes nothing.
    fn prepare(&self, target: &'a AreaTarget) -> Result<AreaRun<'a>> {
        let options = self.options;
        let unknown = || Error::UnknownArea { area: target.name.clone(), snapshot: options.snapshot };
        let reference = self.snapshot.area(&target.name).ok_or_else(unknown)?;
        if reference.entries <= 1 && !options.allow_empty {
            return Err(refuse::empty_reference(target));
        }
        let manifest = Manifest::open(self.reader, reference)?;
        let seen = AreaRoot::open(&target.name, &target.root, &options.state_dir)
            .map_err(|error| refuse::no_place(target, error))?;
        let path = seen.path.clone();
        refuse::own_place(target, &path, &options.protected)?;
        let protected = area::protected_below(&path, &options.protected);
        let rules = RuleSet::new(&reference.rules, protected.clone())?.excluding(&target.exclude)?;
        let only_local = crate::format::snapshot::AreaRules { exclude: target.exclude.clone(), ..Default::default() };
        let has_local_rules = !target.exclude.is_empty() || !protected.is_empty();
        let site_rules = RuleSet::new(&only_local, Vec::new())?;
        let local_rules = RuleSet::new(&only_local, protected.clone())?;
        let marker = seen.marker.clone();
        let fidelity = match &marker {
            Some(marker) => Fidelity::remembered(&state_path(&options.state_dir, marker.area)),
            None => Fidelity::of_this_process(),
        };
        let here = Here::new(manifest.head(), target.numeric_owners, fidelity);
        here.require_owners()?;
        if let Some(found) = marker.as_ref().map(|marker| &marker.name).filter(|name| **name != target.name) {
            return Err(refuse::other_area(target, found));
        }
        Ok(AreaRun {
            target,
            reference,
            manifest,
            here,
            losses: Losses::default(),
            rules,
            site_rules,
            protected,
            local_rules,
            has_local_rules,
            conflicts: Conflicts::new(target)?,
            place: Place::Seen(seen),
            path,
            marker,
            base: None,
            mode: Mode::Full,
            needs_adopt: false,
            adopting: None,
            journal_lost: false,
            walk_start: Timestamp::default(),
            plan: CheckoutPlan::default(),
            tree: None,
            ready: None,
            resumed: Resumed::default(),
            dropped_undo: Vec::new(),
            number: None,
        })
    }

    /// Takes an area for changing.
    fn hold(&self, mut area: AreaRun<'a>, packages: &mut PackageLocks) -> Result<AreaRun<'a>> {
        if let Place::Seen(seen) = area.place {
            let target = area.target;
            let mut held = HeldArea::take(seen, &target.root, &target.name, self.store.id(), &self.options.state_dir)?;
            if held.is_switching() {
                packages.take(target, &area.path, self.progress)?;
            }
            if let Some(recovered) = transaction::recover(&mut held, self.options.asked_by.as_ref(), self.progress)? {
                let number = recovered.journal.number;
                area.resumed.recovered = Some(number);
                let set_aside = recovered.switched.set_aside.into_iter();
                area.resumed.set_aside = set_aside.map(|aside| (number, aside)).collect();
                let again = recovered.journal.target == Some(self.options.snapshot);
                area.resumed.adopting = recovered.adopting.filter(|_| again);
            }
            area.resumed.lost_journal = lost_journal(&held);
            area.marker = held.known().cloned();
            area.here.fidelity = Fidelity::probe(&held.staging()?)?;
            held.clear_staging()?;
            area.here.require_owners()?;
            area.place = Place::Held(Box::new(held));
        }
        Ok(area)
    }

    fn choose_mode(&self, area: &mut AreaRun<'_>) -> Result<()> {
        let options = self.options;
        area.base = match &area.marker {
            None => None,
            Some(marker) => Some(self.base_of(marker)?),
        };
        area.journal_lost = match &area.marker {
            Some(marker) if marker.transaction.is_some() => {
                let state = state_path(&options.state_dir, marker.area);
                transaction::journal_state(&state, marker)? != JournalState::Fine
            }
            _ => false,
        };
        let Some(base) = area.base else {
            let occupied = is_occupied(area.root(), &area.rules)?;
            area.adopting = occupied.then(|| options.adopt.unwrap_or(Adopt::Replace));
            area.needs_adopt = occupied && options.adopt.is_none();
            area.mode = options.mode.unwrap_or(if occupied { Mode::Incremental } else { Mode::Full });
            return Ok(());
        };
        // What was here first still is, where the first switch did not come to its end.
        let begun = area.marker.as_ref().filter(|marker| marker.applied.is_none()).and_then(|marker| marker.adopting);
        area.adopting = begun.or(area.adopting).map(|begun| options.adopt.unwrap_or(begun));
        area.mode = match options.mode {
            Some(mode) => mode,
            None => match self.descends_from(&base)? {
                Some(true) => Mode::Incremental,
                _ if options.fetch_only => Mode::Full,
                known => {
                    let is_known = known.is_some();
                    return Err(refuse::mode_must_be_said(area.target, &base, &options.snapshot, is_known));
                }
            },
        };
        // What is there of a first checkout was brought by it, or is what an adoption decides over.
        let was_other = area.marker.as_ref().is_some_and(|marker| marker.applied.is_some());
        if area.journal_lost && was_other && !area.mode.is_full() {
            let journal = match &area.place {
                Place::Held(held) => lost_journal(held),
                Place::Seen(_) => None,
            };
            return Err(refuse::mixture(area.target, journal));
        }
        Ok(())
    }

    /// The snapshot that the area's memory is of.
    fn base_of(&self, marker: &Marker) -> Result<SnapshotId> {
        if let Some(cache) = CacheReader::open(&applied_path(&self.options.state_dir, marker.area))? {
            return Ok(cache.header().snapshot);
        }
        // The memory is lost, or the first switch was interrupted: what it was making is what may be there.
        Ok(marker.applied.or(marker.transaction).unwrap_or(self.options.snapshot))
    }

    /// Whether the reference follows `base`; `None` where the store does not have what is between them.
    fn descends_from(&self, base: &SnapshotId) -> Result<Option<bool>> {
        match self.store.is_ancestor(base, &self.options.snapshot) {
            Err(Error::UnknownSnapshot { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    fn plan(&self, area: &mut AreaRun<'a>) -> Result<()> {
        self.progress.start("comparing", area.reference.entries, 0);
        area.walk_start = fsio::now_coarse();
        let rules = MergeRules {
            mode: area.mode,
            conflict: &|path, is_dir| area.conflicts.policy(path, is_dir),
            adoption: area.adopting,
            interrupted: area.marker.as_ref().is_some_and(|marker| marker.transaction.is_some()),
            missing_kind: &|kind| area.here.fidelity.missing_kind(kind),
            new_root: matches!(&area.place, Place::Held(held) if held.made_root()),
            now: fsio::now(),
        };
        let entries = area.manifest.entries();
        let (mut losses, mut rights, mut own) = (Losses::default(), Vec::new(), Vec::new());
        let full_path = |entry: &Entry| area.path.join(OsStr::from_bytes(entry.path.as_bytes()));
        let target = entries.map(|entry| {
            let entry = entry?;
            if refuse::brings_own(&entry, &area.protected, &area.site_rules) {
                own.push(full_path(&entry));
            }
            if !area.target.set_id && refuse::gives_rights(&entry, &area.local_rules) {
                rights.push(full_path(&entry));
            }
            let entry = area.here.localize(entry, &mut losses);
            refuse::forbidden(&entry, area.target, area.reference)?;
            Ok(entry)
        });
        let live = LiveArea::new(area.root(), &area.rules, self.progress)?;
        let outside = |path: &TreePath, is_dir: bool| {
            area.has_local_rules && matches!(area.local_rules.verdict_on_walk(path, is_dir), Verdict::Excluded)
        };
        let applied = self.applied(area)?;
        let mut plan = plan_area(target, applied, live, &rules, outside)?;
        if !own.is_empty() {
            return Err(Error::OwnPaths { paths: own });
        }
        if !rights.is_empty() {
            return Err(Error::ForbiddenRights { paths: rights });
        }
        if let Place::Held(held) = &area.place
            && held.made_private
            && !plan.dir_times.iter().any(|(path, _)| path.is_root())
        {
            plan.dir_times.extend(root_time(&area.manifest, &area.here)?);
        }
        (area.plan, area.losses) = (plan, losses);
        Ok(())
    }

    /// What was delivered before: the record, or what the store says of the snapshot that the marker names.
    fn applied(&self, area: &AreaRun<'a>) -> Result<Box<dyn Iterator<Item = Result<AppliedEntry>> + 'a>> {
        let Some((marker, base)) = area.marker.as_ref().zip(area.base) else {
            return Ok(Box::new(std::iter::empty()));
        };
        if let Some(cache) = CacheReader::open(&applied_path(&self.options.state_dir, marker.area))? {
            return Ok(Box::new(read_applied(cache)));
        }
        let lost = |e| match e {
            Error::UnknownSnapshot { .. } => refuse::lost_state(area.target, &base),
            e => e,
        };
        let snapshot = self.store.snapshot(&base).map_err(lost)?;
        let Some(reference) = snapshot.area(&area.target.name) else { return Ok(Box::new(std::iter::empty())) };
        let manifest = Manifest::open(self.reader, reference)?;
        let here = Here::new(manifest.head(), area.target.numeric_owners, area.here.fidelity.clone());
        let (entries, mut losses) = (manifest.entries(), Losses::default());
        Ok(Box::new(entries.map(move |entry| {
            Ok(AppliedEntry { entry: here.localize(entry?, &mut losses), dropped: false, print: None })
        })))
    }

    /// Everything that a finished plan may be refused for.
    fn check_bounds(&self, area: &AreaRun<'_>) -> Result<()> {
        let entries = area.reference.entries;
        if self.options.exact {
            refuse::not_held(area.target, &area.losses.report())?;
        }
        refuse::ceiling(area.target, &area.plan, true, self.options.max_delete.limit(entries))?;
        refuse::ceiling(area.target, &area.plan, false, self.options.max_removals.limit(entries))?;
        if self.options.switch == SwitchMode::Tree {
            return self.check_tree(area);
        }
        match area.root() {
            Some(root) => refuse::space(area.target, &area.plan, root),
            // It would be made in the file system of its parent.
            None => {
                let parent = area.path.parent().unwrap_or(&area.path);
                refuse::space(area.target, &area.plan, &Dir::open(parent)?)
            }
        }
    }

    /// No package manager may be at work while files change that it may have delivered.
    fn lock_packages(&self, area: &mut AreaRun<'a>, packages: &mut PackageLocks) -> Result<()> {
        let waited = !area.plan.is_empty() && packages.take(area.target, &area.path, self.progress)?;
        if waited { self.plan(area) } else { Ok(()) }
    }

    fn report(&self, area: &AreaRun<'_>, done: &Switched) -> AreaReport {
        let mut report = AreaReport::of_plan(&area.target.name, area.target.root.clone(), area.mode, &area.plan);
        report.before = area.base;
        report.interrupted = area.marker.as_ref().and_then(|marker| marker.transaction);
        report.journal_lost = area.journal_lost;
        report.needs_adopt = area.needs_adopt;
        report.recovered = area.resumed.recovered;
        report.number = area.number;
        report.dropped_undo = area.dropped_undo.clone();
        report.kept_aside = done.kept_aside.clone();
        report.in_use = done.in_use.clone();
        report.not_held = area.losses.report();
        report.warnings.extend(self.source_notes());
        report.warnings.extend(done.set_aside.iter().map(|SetAside { path, kept_as }| {
            format!("what somebody put at {path} during the switch could not stay there; it is {kept_as} in the undo")
        }));
        for (number, SetAside { path, kept_as }) in &area.resumed.set_aside {
            let undo = area.path.join(".evenkeel/undo").join(number.to_string());
            report.warnings.push(format!(
                "number {number} was finished first; what could not have its place at {path} is {}",
                undo.join(kept_as).display()
            ));
        }
        report.leave_alone(&area.plan, &done.changed_meanwhile);
        if self.options.switch == SwitchMode::Direct {
            let warning =
                "switched without journal and undo: this cannot be taken back, and had it been cut off, not finished";
            report.warnings.push(warning.into());
        }
        report.warnings.extend(area.resumed.lost_journal.clone());
        report
    }
}

/// What became of a journal that this run found lost or damaged.
fn lost_journal(held: &HeldArea) -> Option<String> {
    let undo = held
        .rescued()
        .map(|number| format!("; what had given way in that switch is in {}/{number}", held.undo_path().display()));
    let undo = undo.unwrap_or_default();
    match held.damaged_journal() {
        Some(aside) => {
            Some(format!("the journal of the last switch was damaged, and is {} now{undo}", aside.display()))
        }
        None if undo.is_empty() => None,
        None => Some(format!("the journal of an interrupted switch was lost{undo}")),
    }
}

/// An error in one line.
fn with_causes(error: &Error) -> String {
    let mut told = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        told.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    told
}

/// Whether an area's root holds anything that belongs to the area.
fn is_occupied(root: Option<&Dir>, rules: &RuleSet) -> Result<bool> {
    let Some(root) = root else { return Ok(false) };
    let failed = |e| Error::io("list", root.path(), e);
    let walk = Walk::new(root.try_clone().map_err(failed)?, rules).map_err(failed)?;
    let mut found = 0;
    for item in walk.take(2) {
        // What cannot be looked at must not pass for an empty tree: everything in it would go.
        item.map_err(|e| Error::io("look at", e.full_path, e.source))?;
        found += 1;
    }
    Ok(found > 1)
}

fn root_time(manifest: &Manifest<'_>, here: &Here) -> Result<Option<(TreePath, Timestamp)>> {
    use crate::format::manifest::Node;
    let root = manifest.get(&TreePath::root())?.map(|root| here.localize(root, &mut Losses::default()));
    Ok(root.and_then(|entry| match entry.node {
        Node::Inode(inode) => Some((entry.path, inode.mtime)),
        Node::Link { .. } => None,
    }))
}
