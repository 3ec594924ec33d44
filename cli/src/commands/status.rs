// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel status`: what is checked out here, and what changed since, by times and sizes.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use evenkeel_store::checkout::{
    self, AreaStatus, AreaTarget, ChangedBy, Difference, DriftEntry, DriftKind, StatusOptions, StatusReport,
};
use evenkeel_store::path::TreePath;
use evenkeel_store::{Error as StoreError, ErrorKind, Progress, Store, fsio};
use serde::Serialize;

use crate::aftermath::{JOURNAL_LOST, MIXED};
use crate::areas::{self, AreaArg, LocalArea};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::json::{Failure, PathField};
use crate::output::text::{self, bytes, counted, number};
use crate::output::who;
use crate::session::Session;

const AFTER_HELP: &str = "\
A file whose size, times and inode are as they were when it was delivered counts as unchanged; `verify` reads it. \
Exits 5 when something that was delivered differs, or an area of the configuration was never checked out. With -v and \
--json it tells who changed each path, as far as the file system and the package manager know. Strays (never \
delivered) are listed, but are no drift. An area that cannot be looked at is an error after the others were shown.

Examples:
  evenkeel status
  evenkeel status --area etc=/etc --json";

/// Differences that are listed without `-v`.
const SHOWN: usize = 50;
/// Strays that are.
const STRAYS_SHOWN: usize = 20;

/// Arguments of `status` and `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An area and where it is (repeatable) [default: the areas of the configuration, else those that were
    /// checked out here].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    pub areas: Vec<AreaArg>,
}

/// Looks at every area.
///
/// # Errors
/// As [`look`].
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    look(session, &args.areas, "evenkeel/status/1", checkout::status, false)
}

/// Looks at every area with `how` and prints the report, `with_who` changed what. An area that cannot be looked at does not hide the others: it is
/// an error after they were shown.
///
/// # Errors
/// When no area is named, there is no store, or the user interrupts.
pub fn look(session: &Session, areas: &[AreaArg], schema: &'static str, how: How, with_who: bool) -> Result<Exit> {
    let areas = areas::select_or_known(session, areas)?;
    let store = session.open_store()?;
    let found = look_at_each(session, &areas, &store, how)?;
    if session.out.json {
        let areas: Vec<AreaFields> =
            areas.iter().zip(&found).map(|(area, found)| AreaFields::of(area, found)).collect();
        session.out.document(schema, &Report { in_sync: areas.iter().all(|area| area.in_sync), areas })?;
    } else {
        for (area, found) in areas.iter().zip(&found) {
            match found {
                Found::Looked(status) => print(session, status, with_who || session.out.verbose > 0)?,
                Found::Never => print_never(session, area)?,
                Found::Failed(_) => {}
            }
        }
    }
    session.out.flush()?;
    let failed: Vec<&CommandError> = found.iter().filter_map(Found::error).collect();
    for error in &failed {
        session.out.error(error);
    }
    Ok(match failed.first() {
        Some(error) => error.kind.exit(),
        None if found.iter().any(Found::has_drifted) => Exit::Drift,
        None => Exit::Done,
    })
}

/// [`checkout::status`] or [`checkout::verify`].
pub type How = fn(&StatusOptions, &Store, &Progress) -> evenkeel_store::Result<StatusReport>;

/// What came of looking at an area.
enum Found {
    Looked(AreaStatus),
    /// It is configured, and nothing is checked out to it.
    Never,
    Failed(CommandError),
}

impl Found {
    fn new(area: &LocalArea, looked: evenkeel_store::Result<AreaStatus>) -> Found {
        match looked {
            Ok(status) if status.applied.is_some() || status.interrupted.is_some() => Found::Looked(status),
            Ok(_) => Found::never(area),
            // A refusal names the area.
            Err(error) if error.kind() == ErrorKind::Refused => Found::Failed(error.into()),
            Err(error) => {
                let is_elsewhere = matches!(error, StoreError::UnknownSnapshot { .. });
                let CommandError { kind, source, mut hints, .. } = error.into();
                if is_elsewhere {
                    hints = vec!["it was checked out from another store: name that one with --store".to_owned()];
                }
                let what = format!("cannot look at area `{}` at {}", area.name, text::path(&area.config.root));
                Found::Failed(CommandError { hints, ..CommandError::caused_by(kind, what, source) })
            }
        }
    }

    /// Nothing was ever checked out there: for an area that `--area` names, most likely a slip of the pen.
    fn never(area: &LocalArea) -> Found {
        if !area.asked_for {
            return Found::Never;
        }
        let root = text::path(&area.config.root);
        let error = CommandError::usage(format!("nothing is checked out to area `{}` at {root}", area.name));
        Found::Failed(error.hint("check name and path; without --area, what is configured or known here is looked at"))
    }

    fn error(&self) -> Option<&CommandError> {
        match self {
            Found::Failed(error) => Some(error),
            Found::Looked(_) | Found::Never => None,
        }
    }

    /// Whether it is not what a snapshot says.
    fn has_drifted(&self) -> bool {
        match self {
            Found::Looked(status) => !status.in_sync(),
            Found::Never | Found::Failed(_) => true,
        }
    }
}

fn look_at_each(session: &Session, areas: &[LocalArea], store: &Store, how: How) -> Result<Vec<Found>> {
    let (state_dir, protected) = (session.state_dir()?, session.protected()?);
    let options = |area: &LocalArea| StatusOptions {
        areas: vec![area.target(&session.config)],
        state_dir: state_dir.clone(),
        protected: protected.clone(),
    };
    // Where not all of them are known, none passes for one that never was there.
    let known = checkout::known_areas(&state_dir).ok();
    session.run_long(|progress| {
        let look = |area: &LocalArea| match how(&options(area), store, progress) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) if known.as_deref().is_some_and(|known| is_nowhere(area, &error, known)) => {
                Ok(Found::never(area))
            }
            Err(error) => Ok(Found::new(area, Err(error))),
            Ok(mut report) => Ok(Found::new(area, Ok(report.areas.pop().expect("one area in, one out")))),
        };
        areas.iter().map(look).collect()
    })
}

/// Whether not even the directory is there in which the area's root would be, and it never was an area.
fn is_nowhere(area: &LocalArea, error: &StoreError, known: &[AreaTarget]) -> bool {
    let root = std::path::absolute(&area.config.root).unwrap_or_else(|_| area.config.root.clone());
    matches!(error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
        && fsio::exists(&root).is_ok_and(|exists| !exists)
        && known.iter().all(|known| known.root != root)
}

#[derive(Serialize)]
struct Report {
    in_sync: bool,
    areas: Vec<AreaFields>,
}

#[derive(Serialize, Default)]
struct AreaFields {
    name: String,
    root: PathField,
    applied: Option<String>,
    interrupted: Option<String>,
    journal_lost: bool,
    in_sync: bool,
    error: Option<Failure>,
    entries: u64,
    bytes_read: u64,
    dropped_delivered: u64,
    drift: Vec<DriftFields>,
    warnings: Vec<String>,
}

/// Who changed each of some paths of an area.
fn who_changed(area: &AreaStatus, entries: &[DriftEntry]) -> Vec<ChangedBy> {
    let paths: Vec<&TreePath> = entries.iter().map(|entry| &entry.path).collect();
    checkout::who_changed(&area.root, &paths)
}

#[derive(Serialize)]
struct DriftFields {
    #[serde(flatten)]
    path: PathField,
    what: &'static str,
    differs: Vec<&'static str>,
    changed_by: ChangedBy,
}

impl AreaFields {
    fn of(area: &LocalArea, found: &Found) -> Self {
        match found {
            Found::Looked(status) => AreaFields::new(status),
            Found::Never | Found::Failed(_) => AreaFields {
                name: area.name.clone(),
                root: PathField::new(area.config.root.as_os_str().as_bytes()),
                error: found.error().map(Failure::of),
                ..AreaFields::default()
            },
        }
    }

    fn new(area: &AreaStatus) -> Self {
        let drift = |(entry, changed_by): (&DriftEntry, ChangedBy)| DriftFields {
            path: PathField::new(entry.path.as_bytes()),
            what: entry.what.name(),
            differs: match entry.what {
                DriftKind::Content(fields) | DriftKind::Metadata(fields) => fields.names().collect(),
                DriftKind::Missing | DriftKind::Undelivered | DriftKind::Type | DriftKind::Stray => Vec::new(),
            },
            changed_by,
        };
        AreaFields {
            name: area.name.clone(),
            root: PathField::new(area.root.as_os_str().as_bytes()),
            applied: area.applied.map(|id| id.to_hex()),
            interrupted: area.interrupted.map(|id| id.to_hex()),
            journal_lost: area.journal_lost,
            in_sync: area.in_sync(),
            error: None,
            entries: area.entries,
            bytes_read: area.bytes_read,
            dropped_delivered: area.dropped_delivered,
            drift: area.drift.iter().zip(who_changed(area, &area.drift)).map(drift).collect(),
            warnings: area.warnings.clone(),
        }
    }
}

fn print_heading(session: &Session, name: &str, root: &Path) -> Result<()> {
    session.out.line(session.out.paint.bold(format_args!("{name} at {}", text::path(root))))
}

fn print_never(session: &Session, area: &LocalArea) -> Result<()> {
    print_heading(session, &area.name, &area.config.root)?;
    session.out.line(format_args!("  {}", session.out.paint.changed("nothing is checked out here")))
}

fn print(session: &Session, area: &AreaStatus, with_who: bool) -> Result<()> {
    let out = &session.out;
    print_heading(session, &area.name, &area.root)?;
    let strays = area.drift.iter().filter(|entry| entry.what == DriftKind::Stray).count() as u64;
    let drift = area.drift.len() as u64 - strays;
    let state = match (area.applied, area.interrupted) {
        (None, None) => out.paint.dim("nothing is checked out here"),
        (Some(applied), None) if drift == 0 => {
            format!("{} {}", out.paint.good("at"), out.paint.id(applied.short(12)))
        }
        (Some(applied), None) => format!(
            "{} {}, {}",
            out.paint.changed("at"),
            out.paint.id(applied.short(12)),
            out.paint.changed(counted(drift, "difference"))
        ),
        (applied, Some(target)) => format!(
            "{} {}→{}, {}",
            out.paint.bad("mixed"),
            applied.map_or_else(|| "nothing".to_owned(), |id| id.short(12)),
            target.short(12),
            if area.journal_lost {
                format!("and the journal is lost: {JOURNAL_LOST}")
            } else {
                format!("recovering: {MIXED}")
            }
        ),
    };
    let mut parts = vec![state];
    if area.applied.is_some() {
        parts.push(counted(area.entries, "entry"));
    }
    if area.bytes_read > 0 {
        parts.push(format!("{} read", bytes(area.bytes_read)));
    }
    if strays > 0 {
        parts.push(counted(strays, "stray"));
    }
    if area.dropped_delivered > 0 {
        parts.push(format!("{} delivered, since dropped", number(area.dropped_delivered)));
    }
    out.line(format_args!("  {}", parts.join("; ")))?;
    if let Some(applied) = area.applied.filter(|_| area.interrupted.is_some() && drift > 0) {
        out.line(format_args!("  compared with {}; what the switch has done so far differs, too:", applied.short(12)))?;
    }
    print_drift(session, area, with_who)?;
    for warning in &area.warnings {
        out.warning(format_args!("area `{}`: {warning}", area.name));
    }
    Ok(())
}

/// Differences first: what nobody delivered must not hide them.
fn print_drift(session: &Session, area: &AreaStatus, with_who: bool) -> Result<()> {
    let (strays, drift): (Vec<_>, Vec<_>) =
        area.drift.iter().cloned().partition(|entry| entry.what == DriftKind::Stray);
    print_entries(session, area, &drift, SHOWN, "", with_who)?;
    print_entries(session, area, &strays, STRAYS_SHOWN, " strays", with_who)
}

fn print_entries(
    session: &Session,
    area: &AreaStatus,
    entries: &[DriftEntry],
    limit: usize,
    kind: &str,
    with_who: bool,
) -> Result<()> {
    let out = &session.out;
    let shown = if out.verbose > 0 { entries.len() } else { limit.min(entries.len()) };
    let who = if with_who { who_changed(area, &entries[..shown]) } else { Vec::new() };
    let mut who = who.iter();
    for entry in entries.iter().take(shown) {
        let (label, detail) = wording(entry.what);
        let line = format!("{label:<8}  {}", entry.path);
        let line = match entry.what {
            DriftKind::Content(_) | DriftKind::Metadata(_) | DriftKind::Type => out.paint.changed(line),
            DriftKind::Missing | DriftKind::Undelivered => out.paint.bad(line),
            DriftKind::Stray => out.paint.dim(line),
        };
        let detail = if detail.is_empty() { detail } else { format!("  {}", out.paint.dim(detail)) };
        out.line(format_args!("  {line}{detail}"))?;
        if let Some(changed_by) = who.next() {
            out.line(format_args!("            {}", out.paint.dim(who::told(changed_by))))?;
        }
    }
    if entries.len() > shown {
        out.line(format_args!("  … and {} more{kind} (-v lists all)", number((entries.len() - shown) as u64)))?;
    }
    Ok(())
}

/// A word for the difference, and what more there is to say of it.
fn wording(what: DriftKind) -> (&'static str, String) {
    match what {
        DriftKind::Metadata(fields) if fields == Difference::LINKS => {
            ("links", "hard links: no longer one file with its other names".to_owned())
        }
        // That the content differs is said already.
        DriftKind::Content(fields) | DriftKind::Metadata(fields) => {
            (what.name(), fields.minus(Difference::CONTENT).to_string())
        }
        DriftKind::Undelivered => ("missing", "never delivered: excluded here at the last checkout".to_owned()),
        DriftKind::Missing | DriftKind::Type | DriftKind::Stray => (what.name(), String::new()),
    }
}
