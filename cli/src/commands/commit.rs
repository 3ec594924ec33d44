// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel commit`: records the areas of this machine as a snapshot.

use evenkeel_store::Store;
use evenkeel_store::commit::{AreaCommit, CommitOptions, CommitReport, DEFAULT_LEVEL, ParentChoice, commit};
use evenkeel_store::format::manifest::Timestamp;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::path::TreePath;
use serde::Serialize;

use super::values::parse_label;
use crate::areas::{self, AreaArg};
use crate::config;
use crate::error::{CommandError, Kind, Result};
use crate::exit::Exit;
use crate::output::json::PathField;
use crate::output::text::{bytes, counted, number, seconds};
use crate::session::Session;

const AFTER_HELP: &str = "\
Prints the id of the snapshot. When nothing changed since the parent, no snapshot is made, and it is the parent's.

Examples:
  evenkeel commit --area etc=/etc --area usr=/usr -m 'OpenSSL 3.0.15'
  evenkeel commit --dry-run -v                  what would be stored, and what is left out
  evenkeel commit --parent 5e1c09ab --label ticket=4711";

/// Left-out paths that are named without `-v`.
const IDENTITY_SHOWN: usize = 6;

/// Arguments of `commit`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An area and where it is (repeatable) [default: the areas of the configuration].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    areas: Vec<AreaArg>,
    /// What this snapshot is.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// The snapshot that this one follows, or `none` [default: @latest].
    #[arg(long, value_name = "SNAP")]
    parent: Option<String>,
    /// zstd level, 1 to 19.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// A free label (repeatable).
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Who made it [default: from the configuration, else user@host].
    #[arg(long, value_name = "TEXT", env = "EVENKEEL_AUTHOR", hide_env_values = true)]
    author: Option<String>,
    /// Record files that change while they are read, marked as such, instead of failing.
    #[arg(long)]
    allow_changing: bool,
    /// Record host identity and secrets, too (`evenkeel help areas` lists them).
    #[arg(long)]
    allow_identity: bool,
    /// Leave out what cannot be read and exit 3, instead of failing.
    #[arg(long)]
    skip_unreadable: bool,
    /// Read and count, but store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Exit 4 when nothing changed.
    #[arg(long)]
    exit_nothing: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    id: Option<String>,
    parent: Option<String>,
    is_new: bool,
    dry_run: bool,
    entries: u64,
    files: u64,
    bytes: u64,
    new_chunks: u64,
    new_bytes: u64,
    stored_bytes: u64,
    seconds: f64,
    areas: Vec<AreaReport<'a>>,
    dropped_areas: &'a [String],
    warnings: &'a [String],
}

#[derive(Serialize)]
struct AreaReport<'a> {
    name: &'a str,
    entries: u64,
    files: u64,
    bytes: u64,
    added: u64,
    changed: u64,
    removed: u64,
    files_read: u64,
    bytes_read: u64,
    excluded: u64,
    identity_left_out: Vec<PathField>,
    mount_points: Vec<PathField>,
    devices_left_out: Vec<PathField>,
    sockets_left_out: u64,
    sockets: Vec<PathField>,
    unstable: Vec<PathField>,
    unreadable: Vec<PathField>,
}

/// Commits.
///
/// # Errors
/// When an area cannot be committed as it is, the store is locked, or the system fails; the store is then as it was.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let areas = areas::select(&session.config, &args.areas)?;
    let store = session.open_store()?;
    let specs = areas.iter().map(|area| area.spec(&session.config, args.allow_identity)).collect();
    let options = CommitOptions {
        message: args.message.clone(),
        author: author(session, args),
        labels: args.labels.iter().cloned().collect(),
        parent: parent(session, &store, args.parent.as_deref())?,
        level: args.level,
        allow_changing: args.allow_changing,
        skip_unreadable: args.skip_unreadable,
        dry_run: args.dry_run,
        estimate: true,
        protected: session.protected()?,
        time: config::test_clock()
            .map(|t| Timestamp { secs: t.as_second(), nanos: u32::try_from(t.subsec_nanosecond()).unwrap_or(0) }),
        ..CommitOptions::new(specs, &session.state_dir()?)
    };
    let report = session
        .run_long(|progress| commit(&store, &options, progress))
        .map_err(|error| if args.parent.is_none() { with_way_around(&store, error) } else { error })?;
    if let Some(id) = report.snapshot.filter(|_| report.is_new && !args.dry_run) {
        session.done(format!("snapshot {} was committed", id.short(12)));
    }
    if session.out.json {
        session.out.document("evenkeel/commit/1", &Report::new(&report, args.dry_run))?;
    } else {
        print(session, &report, args.dry_run)?;
    }
    Ok(exit(&report, args))
}

fn author(session: &Session, args: &Args) -> String {
    args.author.clone().or_else(|| session.config.author.clone()).unwrap_or_else(config::default_author)
}

fn parent(session: &Session, store: &Store, name: Option<&str>) -> Result<ParentChoice> {
    Ok(match name {
        None => ParentChoice::Latest,
        Some("none") => ParentChoice::None,
        Some(name) => ParentChoice::Id(session.resolve(store, name)?),
    })
}

/// Adds what to do when it is the newest snapshot that keeps a commit from following it.
fn with_way_around(store: &Store, error: CommandError) -> CommandError {
    let Ok(list) = store.list_snapshots() else { return error };
    let is_whole = |id: &SnapshotId| store.snapshot(id).is_ok();
    let newest_is_whole = store.latest().is_ok_and(|newest| newest.is_none_or(|id| is_whole(&id)));
    if error.kind != Kind::Damaged || newest_is_whole {
        return error;
    }
    error.hint(match list.there.iter().rev().map(|record| record.id).find(is_whole) {
        Some(older) => format!(
            "the newest snapshot is lost or damaged: follow an older one with `--parent {}`, or none with `--parent none`",
            older.short(12)
        ),
        None => "no snapshot is whole: follow none with `--parent none`".into(),
    })
}

fn exit(report: &CommitReport, args: &Args) -> Exit {
    if report.areas.iter().any(|area| !area.unreadable.is_empty()) {
        Exit::Partial
    } else if args.exit_nothing && !report.is_new {
        Exit::Nothing
    } else {
        Exit::Done
    }
}

impl<'a> Report<'a> {
    fn new(report: &'a CommitReport, dry_run: bool) -> Self {
        Report {
            id: report.snapshot.map(|id| id.to_hex()),
            parent: report.parent.map(|id| id.to_hex()),
            is_new: report.is_new,
            dry_run,
            entries: report.entries(),
            files: report.files(),
            bytes: report.bytes(),
            new_chunks: report.new_chunks,
            new_bytes: report.new_plain_bytes,
            stored_bytes: report.stored_bytes,
            seconds: report.seconds,
            areas: report.areas.iter().map(AreaReport::new).collect(),
            dropped_areas: &report.dropped_areas,
            warnings: &report.warnings,
        }
    }
}

impl<'a> AreaReport<'a> {
    fn new(area: &'a AreaCommit) -> Self {
        let paths = |paths: &[TreePath]| paths.iter().map(|path| PathField::new(path.as_bytes())).collect();
        AreaReport {
            name: &area.name,
            entries: area.entries,
            files: area.files,
            bytes: area.bytes,
            added: area.added,
            changed: area.changed,
            removed: area.removed,
            files_read: area.files_read,
            bytes_read: area.bytes_read,
            excluded: area.excluded,
            identity_left_out: paths(&area.identity),
            mount_points: paths(&area.mount_points),
            devices_left_out: paths(&area.devices),
            sockets_left_out: area.sockets.len() as u64,
            sockets: paths(&area.sockets),
            unstable: paths(&area.unstable),
            unreadable: paths(&area.unreadable),
        }
    }
}

/// The id on stdout, so that a script can take it; the summary on stderr.
fn print(session: &Session, report: &CommitReport, dry_run: bool) -> Result<()> {
    let out = &session.out;
    if let Some(id) = report.snapshot {
        out.line(out.paint.id(id))?;
        out.flush()?;
    }
    let names: Vec<&str> = report.areas.iter().map(|area| area.name.as_str()).collect();
    let did = match (report.is_new, dry_run) {
        (true, true) => "would commit",
        (true, false) => "committed",
        (false, _) => "nothing changed in",
    };
    out.note(format_args!(
        "{did} {}: {}, {} in {}",
        names.join(", "),
        counted(report.files(), "file"),
        bytes(report.bytes()),
        seconds(report.seconds)
    ));
    if report.is_new {
        let mut stored = format!("{}, {}", counted(report.new_chunks, "new chunk"), bytes(report.new_plain_bytes));
        if !dry_run {
            stored.push_str(&format!("; stored in {}", bytes(report.stored_bytes)));
        }
        out.note(stored);
        if let Some(parent) = report.parent {
            let sum = |count: fn(&AreaCommit) -> u64| number(report.areas.iter().map(count).sum());
            let dropped = match report.dropped_areas.as_slice() {
                [] => String::new(),
                names => format!("; without {}, which {} has", names.join(", "), parent.short(12)),
            };
            out.note(format_args!(
                "since {}: {} added, {} changed, {} removed{dropped}",
                parent.short(12),
                sum(|area| area.added),
                sum(|area| area.changed),
                sum(|area| area.removed)
            ));
        }
    }
    for area in report.areas.iter().filter(|area| !area.identity.is_empty()) {
        let shown = if out.verbose > 0 { area.identity.len() } else { IDENTITY_SHOWN };
        let mut paths: Vec<String> = area.identity.iter().take(shown).map(ToString::to_string).collect();
        if area.identity.len() > shown {
            paths.push(format!("and {} more (-v lists all)", area.identity.len() - shown));
        }
        out.note(format_args!("left out of {} (host identity, secrets): {}", area.name, paths.join(", ")));
    }
    for warning in &report.warnings {
        out.warning(warning);
    }
    // The warning names some.
    for area in report.areas.iter().filter(|area| out.verbose > 0 && !area.sockets.is_empty()) {
        let paths: Vec<String> = area.sockets.iter().map(ToString::to_string).collect();
        out.note(format_args!("sockets left out of {}: {}", area.name, paths.join(", ")));
    }
    Ok(())
}
