// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel checkout`: makes directories of this machine match a snapshot.

pub(super) mod fields;
pub(super) mod words;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use evenkeel_store::checkout::{
    self, Adopt, AreaReport, AreaTarget, Ceiling, CheckoutOptions, Mode, NotHeld, SavedPlan, SwitchMode,
};
use evenkeel_store::format::snapshot::Snapshot;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Error, Store, fsio};

use super::values::{parse_ceiling, parse_rate};
use crate::areas::{self, AreaArg, LocalArea};
use crate::config;
use crate::error::{CommandError, Kind, NOTHING_CHANGED, Result};
use crate::exit::Exit;
use crate::output::text::{self, counted};
use crate::session::Session;

const AFTER_HELP: &str = "\
Without a mode: full into an empty or new directory, incremental onto an ancestor of SNAP. Otherwise it must be said.

  incremental   refreshes and adds; removes nothing, keeps local changes, names them
  full          undoes local changes and removes what SNAP lacks, up to the ceilings
  force         as full, but trusts no timestamp: reads and compares every byte

Ends with `at SNAP`, or `at SNAP, N kept differences`; only the first is in sync.

Examples:
  evenkeel checkout @latest --area etc=/srv/copy-of-etc
  evenkeel checkout @latest --full --dry-run -v       the whole plan
  evenkeel checkout @latest~1 --full                  back to the snapshot before
  evenkeel checkout @latest --adopt=keep              first time onto a tree that is not empty
  evenkeel checkout @latest --full --save-plan FILE   to be approved by its hash
  evenkeel checkout --plan FILE --plan-hash HASH      that plan, if it still fits";

/// Arguments of `checkout`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
#[command(group = clap::ArgGroup::new("mode").args(["incremental", "full", "force"]))]
pub struct Args {
    /// The snapshot.
    #[arg(value_name = "SNAP", required_unless_present_any = ["plan", "plan_hash"])]
    snapshot: Option<String>,
    /// An area and where it belongs here (repeatable) [default: the areas of the configuration].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    areas: Vec<AreaArg>,
    /// Refresh and add; remove nothing, keep local changes.
    #[arg(long)]
    incremental: bool,
    /// Make it equal: undo local changes, remove what the snapshot lacks.
    #[arg(long)]
    full: bool,
    /// As --full, reading and comparing every byte.
    #[arg(long)]
    force: bool,
    /// Print the plan and change nothing; -v lists every path.
    #[arg(long)]
    dry_run: bool,
    /// Change nothing; save the plan as a file, and print its hash.
    #[arg(long, value_name = "FILE")]
    save_plan: Option<PathBuf>,
    /// Carry out a saved plan, if it still fits: areas, mode and adoption are those that it was made with.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["save_plan", "areas", "mode", "adopt"])]
    plan: Option<PathBuf>,
    /// Refuse any plan but the one with this hash.
    #[arg(long, value_name = "HASH", requires = "plan")]
    plan_hash: Option<String>,
    /// First checkout onto a tree that is not empty: `replace` or `keep` files that differ; strays stay.
    #[arg(long, value_name = "HOW", require_equals = true, hide_possible_values = true)]
    adopt: Option<AdoptArg>,
    /// Most strays (never delivered) that may be removed from an area; P% of its entries in SNAP
    /// [default: 20 or 2%, the greater].
    #[arg(long, value_name = "N|P%", value_parser = parse_ceiling)]
    max_delete: Option<Ceiling>,
    /// Most delivered paths that may be removed from an area; P% of its entries in SNAP
    /// [default: 100 or 25%, the greater].
    #[arg(long, value_name = "N|P%", value_parser = parse_ceiling)]
    max_removals: Option<Ceiling>,
    /// `files` one after the other, or the whole `tree` in one step (full and force only) [default: files].
    #[arg(long, value_name = "HOW", value_enum, default_value_t = SwitchArg::Files, hide_default_value = true,
        hide_possible_values = true)]
    switch: SwitchArg,
    /// Switch the whole tree although processes use it.
    #[arg(long)]
    allow_busy: bool,
    /// Refuse a place that cannot hold all of the snapshot: owners, ACLs, attributes, flags, times.
    #[arg(long)]
    exact: bool,
    /// Allow a snapshot whose area is empty.
    #[arg(long)]
    allow_empty: bool,
    /// Restore owners by number even where the master had a name.
    #[arg(long)]
    numeric_owners: bool,
    /// Seconds to wait for dpkg or rpm when they are at work on files of the area
    /// [default: the configuration's wait-packages, else 60].
    #[arg(long, value_name = "S")]
    wait_packages: Option<u32>,
    #[command(flatten)]
    far: FarArgs,
    /// Exit 4 when there was nothing to do.
    #[arg(long)]
    exit_nothing: bool,
}

/// How content comes that is far away.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FarArgs {
    /// A directory whose files may have content that need not be fetched then (repeatable).
    #[arg(long = "seed", value_name = "DIR")]
    pub(super) seeds: Vec<PathBuf>,
    /// Most bytes a second from web servers, as 500k or 2M [default: the configuration's limit-rate, else no bound].
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(super) limit_rate: Option<u64>,
}

/// What `--adopt` takes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum AdoptArg {
    /// The snapshot's files replace them.
    Replace,
    /// They stay, and are reported.
    Keep,
}

/// What `--switch` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SwitchArg {
    /// File by file, with journal and undo.
    Files,
    /// The whole tree in one step.
    Tree,
    /// File by file, with neither. For measurements only.
    #[value(hide = true)]
    Direct,
}

/// Checks out.
///
/// # Errors
/// When the snapshot or an area is not there, a ceiling trips, a mode or an adoption must be said, or the system fails.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let approved = args.plan.as_deref().map(|file| approved(args, file)).transpose()?;
    let areas = match &approved {
        Some(plan) => areas::select(&session.config, &areas_of(plan))?,
        None => areas::select(&session.config, &args.areas)?,
    };
    session.limit_rate(args.far.limit_rate);
    let store = session.open_store()?;
    let id = target(session, args, &store, approved.as_ref())?;
    let snapshot = store.snapshot(&id)?;
    let areas = present(session, areas, &id, &snapshot)?;
    if let Some(file) = &args.save_plan {
        check_place(file, &areas)?;
    }
    let mut options = options(session, args, id, &areas)?;
    if let Some(plan) = approved {
        (options.mode, options.adopt) = (plan.mode(), plan.adopt());
        options.approved = Some(Arc::new(plan));
    }
    if !options.dry_run {
        session.watch(&options.areas);
    }
    // What is lost here is said before anything changes, and once.
    let mut before = |area: &str, losses: &[NotHeld]| words::warn_of_losses(session, area, losses);
    let report = session.run_long(|progress| checkout::checkout_telling(&store, &options, progress, &mut before))?;
    if let Some((file, plan)) = args.save_plan.as_deref().zip(report.plan.as_ref()).filter(|_| !report.needs_adopt()) {
        let failed =
            |e| CommandError::caused_by(Kind::Failed, format!("cannot save the plan as {}", text::path(file)), e);
        fsio::publish_file(file, plan.bytes()).map_err(failed)?;
        session.done(format!("the plan was saved as {}, hash {}", text::path(file), plan.hash()));
    }
    if session.out.json {
        session.out.document("evenkeel/checkout/1", &fields::Report::new(&report, options.dry_run))?;
    } else {
        words::print(session, &report, args.save_plan.as_deref())?;
    }
    for area in &report.areas {
        note_strays_of_adoption(session, area);
    }
    if let Some(area) = report.areas.iter().find(|area| area.needs_adopt) {
        let root = text::path(&area.root);
        return Err(CommandError::usage(format!(
            "area `{}` at {root} has files that were never checked out",
            area.name
        ))
        .hint(format!(
            "{NOTHING_CHANGED}--adopt=replace lets the snapshot win, --adopt=keep the files that are there"
        )));
    }
    Ok(if args.exit_nothing && report.is_empty() { Exit::Nothing } else { Exit::Done })
}

/// Refuses to save a plan in the place of anything but a plan, or into an area, of whose next plan it would be part.
fn check_place(file: &Path, areas: &[LocalArea]) -> Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().as_bytes();
    let parent = fsio::Dir::open_following(parent)?;
    let refused = |why: String| CommandError::usage(format!("cannot save the plan as {}: {why}", text::path(file)));
    let found = parent.stat_opt(name).map_err(|e| Error::io("look at", file, e))?;
    let is_plan = |found: fsio::Stat| found.file_type == fsio::FileType::File && SavedPlan::load(file).is_ok();
    if name.is_empty() || found.is_some_and(|found| !is_plan(found)) {
        return Err(refused("something else is there".into()).hint("name a new file, or an older plan"));
    }
    let place = parent.real_path().map_err(|e| Error::io("look at", file, e))?;
    let is_around = |area: &&LocalArea| fsio::canonicalize(&area.config.root).is_ok_and(|root| place.starts_with(root));
    match areas.iter().find(is_around) {
        Some(area) => {
            Err(refused(format!("it would be part of area `{}`", area.name)).hint("name a place outside of it"))
        }
        None => Ok(()),
    }
}

/// The saved plan to carry out.
fn approved(args: &Args, file: &Path) -> Result<SavedPlan> {
    let plan = SavedPlan::load(file)?;
    match &args.plan_hash {
        Some(hash) if !hash.eq_ignore_ascii_case(plan.hash()) => {
            let message = format!("the plan {} is {}, not {hash}", text::path(file), plan.hash());
            Err(CommandError::usage(message)
                .hint(format!("{NOTHING_CHANGED}ask whoever approved it which plan they saw")))
        }
        _ => Ok(plan),
    }
}

fn areas_of(plan: &SavedPlan) -> Vec<AreaArg> {
    plan.areas().map(|(name, root)| AreaArg::new(name, root)).collect()
}

/// The snapshot that is meant: the one named, which a saved plan may only confirm.
fn target(session: &Session, args: &Args, store: &Store, plan: Option<&SavedPlan>) -> Result<SnapshotId> {
    let named = args.snapshot.as_ref().map(|name| session.resolve(store, name)).transpose()?;
    let planned = plan.and_then(SavedPlan::snapshot);
    match (named, planned) {
        (Some(named), Some(planned)) if named != planned => {
            let message = format!("the plan leads to {}, not to {}", planned.short(12), named.short(12));
            Err(CommandError::usage(message))
        }
        (named, planned) => named.or(planned).ok_or_else(|| CommandError::usage("no snapshot is named")),
    }
}

/// Whoever asked for a full checkout expects an equal tree, which a first adoption does not make.
fn note_strays_of_adoption(session: &Session, area: &AreaReport) {
    if area.before.is_none() && area.mode != Mode::Incremental && area.counts.strays_left > 0 {
        let strays = counted(area.counts.strays_left, "stray");
        session.out.note(format_args!(
            "area `{}`: {strays} left: a first adoption removes nothing; the next --full does",
            area.name
        ));
    }
}

/// The areas that the snapshot has. One that is only configured may be missing; what is left out is said.
pub(super) fn present(
    session: &Session,
    areas: Vec<LocalArea>,
    id: &SnapshotId,
    snapshot: &Snapshot,
) -> Result<Vec<LocalArea>> {
    let unmapped: Vec<String> = snapshot
        .areas
        .iter()
        .map(|area| area.name.as_str())
        .filter(|name| areas.iter().all(|a| a.name != *name))
        .map(str::to_owned)
        .collect();
    let mut present = Vec::new();
    for local in areas {
        if snapshot.area(&local.name).is_some() {
            present.push(local);
        } else if local.asked_for {
            return Err(evenkeel_store::Error::UnknownArea { area: local.name, snapshot: *id }.into());
        } else {
            session.out.note(format_args!("snapshot {} has no area `{}`: skipped", id.short(12), local.name));
        }
    }
    if present.is_empty() {
        return Err(CommandError::usage(format!("snapshot {} has none of the configured areas", id.short(12)))
            .hint(format!("`evenkeel show {}` lists its areas", id.short(12))));
    }
    for name in unmapped {
        session.out.note(format_args!("area `{name}` of the snapshot is mapped to no path here: skipped"));
    }
    Ok(present)
}

fn options(session: &Session, args: &Args, id: SnapshotId, areas: &[LocalArea]) -> Result<CheckoutOptions> {
    let mut options = CheckoutOptions::new(id, session.state_dir()?);
    let target = |area: &LocalArea| {
        let target = area.target(&session.config);
        AreaTarget {
            numeric_owners: target.numeric_owners || args.numeric_owners,
            wait_packages_s: args.wait_packages.map_or(target.wait_packages_s, u64::from),
            ..target
        }
    };
    options.areas = areas.iter().map(target).collect();
    options.mode = match (args.incremental, args.full, args.force) {
        (true, ..) => Some(Mode::Incremental),
        (_, true, _) => Some(Mode::Full),
        (.., true) => Some(Mode::Force),
        _ => None,
    };
    options.save_plan = args.save_plan.is_some();
    options.dry_run = args.dry_run || options.save_plan;
    options.adopt = args.adopt.map(|how| match how {
        AdoptArg::Replace => Adopt::Replace,
        AdoptArg::Keep => Adopt::Keep,
    });
    if let Some(limit) = args.max_delete {
        options.max_delete = limit;
    }
    if let Some(limit) = args.max_removals {
        options.max_removals = limit;
    }
    options.seeds = args.far.seeds.clone();
    options.exact = args.exact;
    options.undo = session.config.undo.limits();
    options.records = session.config.records.limits();
    options.asked_by = Some(config::asked_by());
    options.switch = match args.switch {
        SwitchArg::Files => SwitchMode::Files,
        SwitchArg::Tree => SwitchMode::Tree,
        SwitchArg::Direct => SwitchMode::Direct,
    };
    options.allow_busy = args.allow_busy;
    options.allow_empty = args.allow_empty;
    options.protected = session.protected()?;
    Ok(options)
}

/// As it is written on the command line.
pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Incremental => "incremental",
        Mode::Full => "full",
        Mode::Force => "force",
    }
}
