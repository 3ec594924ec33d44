// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Drives a checkout: all areas are planned and judged before any is staged, all are staged before any is switched.

mod apply;
mod fetch;
mod seeds;
mod tree;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use super::conflict::Conflicts;
use super::fidelity::{Fidelity, Here, Losses};
use super::journal::Journal;
use super::live::LiveArea;
use super::merge::{AppliedEntry, MergeRules, plan_area};
use super::options::{Adopt, AreaTarget, CheckoutOptions, Mode, SwitchMode};
use super::packages::PackageLocks;
use super::plan::CheckoutPlan;
use super::record::read_applied;
use super::refuse;
use super::report::{AreaReport, CheckoutReport, SetAside};
use super::saved_plan::{PlannedArea, SavedPlan};
use super::state::{AreaRoot, HeldArea, Marker, applied_path, state_path};
use super::switch::Switched;
use super::transaction::{self};
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
    let started = Instant::now();
    let snapshot = store.snapshot(&options.snapshot)?;
    let reader = store.reader_of(&[options.snapshot])?;
    if reader.is_far() {
        let kept = store.state_in(&options.state_dir);
        if options.dry_run { reader.near().look_in(&kept)? } else { reader.near().keep_in(&kept)? }
    }
    let looks_only = options.dry_run || options.fetch_only;
    let own = store.dir().into_iter().chain([options.state_dir.as_path()]).map(Path::to_path_buf);
    let own = options.protected.iter().cloned().chain(own).collect();
    let options = &CheckoutOptions { protected: own, ..options.clone() };
    let run = Run { store, options, snapshot: &snapshot, reader: &reader, progress };
    let mut areas = options.areas.iter().map(|target| run.prepare(target)).collect::<Result<Vec<_>>>()?;
    refuse::overlapping(areas.iter().map(|area| (area.target, area.path.as_path())))?;
    refuse::overlapping_known(areas.iter().map(|area| (area.target, area.path.as_path())), &options.state_dir)?;
    // Held to the end.
    let mut packages = PackageLocks::default();
    if !looks_only {
        areas = areas.into_iter().map(|area| run.hold(area, &mut packages)).collect::<Result<_>>()?;
    }
    for area in &mut areas {
        run.choose_mode(area)?;
    }
    run.use_deltas(&areas);
    for area in &mut areas {
        run.plan(area)?;
        if !looks_only && !area.needs_adopt {
            run.lock_packages(area, &mut packages)?;
        }
    }
    let saved = || {
        let planned = areas.iter().map(|area| PlannedArea {
            name: &area.target.name,
            mode: area.mode,
            before: area.base,
            plan: &area.plan,
        });
        SavedPlan::new(options, &planned.collect::<Vec<_>>())
    };
    let plan = (options.save_plan || options.approved.is_some()).then(saved);
    if let Some((approved, plan)) = options.approved.as_ref().zip(plan.as_ref()) {
        approved.require_fit(plan)?;
    }
    let planned_only = looks_only || areas.iter().any(|area| area.needs_adopt);
    if !planned_only {
        areas.iter().try_for_each(|area| run.check_bounds(area))?;
    }
    let mut needed = run.foresee(&areas)?;
    if let Some(needed) = &needed
        && !planned_only
    {
        progress.foresee(needed.report.foreseen());
    }
    let mut forgotten_bytes = 0;
    if options.fetch_only
        && !options.dry_run
        && let Some(needed) = &mut needed
    {
        run.fetch(&areas, needed)?;
        forgotten_bytes = run.forget_unused(needed)?;
    }
    let reports = if planned_only {
        let look = |area| {
            let would_refuse = run.check_bounds(area).err().map(|error| error.to_string());
            AreaReport { would_refuse, ..run.report(area, &Switched::default()) }
        };
        areas.iter().map(look).collect()
    } else {
        let reports = run.apply(areas, needed.as_mut())?;
        reader.near().drop_file()?;
        reports
    };
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
    walk_start: Timestamp,
    plan: CheckoutPlan,
    /// The whole new tree, for a tree switch.
    tree: Option<Box<WholeTree>>,
    ready: Option<Ready>,
    /// An interrupted transaction that was finished first.
    recovered: Option<u64>,
    /// What could not have its place in that, and its number.
    set_aside_before: Vec<(u64, SetAside)>,
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
            walk_start: Timestamp::default(),
            plan: CheckoutPlan::default(),
            tree: None,
            ready: None,
            recovered: None,
            set_aside_before: Vec::new(),
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
                area.recovered = Some(number);
                area.set_aside_before = recovered.switched.set_aside.into_iter().map(|aside| (number, aside)).collect();
                // Asked for again, an adoption still is one: what it kept stays.
                let again = recovered.journal.target == Some(self.options.snapshot);
                area.adopting = recovered.adopting.filter(|_| again);
            }
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
            None if base == options.snapshot || self.descends_from(&base)? => Mode::Incremental,
            None if options.fetch_only => Mode::Full,
            None => return Err(refuse::mode_must_be_said(area.target, &base, &options.snapshot)),
        };
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

    fn descends_from(&self, base: &SnapshotId) -> Result<bool> {
        match self.store.is_ancestor(base, &self.options.snapshot) {
            Err(Error::UnknownSnapshot { .. }) => Ok(false),
            found => found,
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
            None => Ok(()),
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
        report.needs_adopt = area.needs_adopt;
        report.recovered = area.recovered;
        report.number = area.number;
        report.dropped_undo = area.dropped_undo.clone();
        report.kept_aside = done.kept_aside.clone();
        report.in_use = done.in_use.clone();
        report.not_held = area.losses.report();
        report.warnings.extend(self.reader.notes().iter().cloned());
        report.warnings.extend(self.store.backend().notes());
        report.warnings.extend(self.seed_notes());
        report.warnings.extend(self.reader.deltas().iter().flat_map(|deltas| deltas.notes()));
        report.warnings.extend(done.set_aside.iter().map(|SetAside { path, kept_as }| {
            format!("what somebody put at {path} during the switch could not stay there; it is {kept_as} in the undo")
        }));
        for (number, SetAside { path, kept_as }) in &area.set_aside_before {
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
        if let Place::Held(held) = &area.place
            && let Some(number) = held.rescued()
        {
            report.warnings.push(format!(
                "the journal of an interrupted switch was lost; what had given way in it is in {}/{number}",
                held.undo_path().display()
            ));
        }
        report
    }
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
