// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel status`: what is checked out here, and what changed since, by times and sizes.

use std::os::unix::ffi::OsStrExt;

use evenkeel_store::checkout::{self, AreaStatus, Difference, DriftEntry, DriftKind, StatusOptions, StatusReport};
use evenkeel_store::{Progress, Store};
use serde::Serialize;

use crate::areas::{self, AreaArg};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::json::PathField;
use crate::output::text::{self, bytes, counted, number};
use crate::session::Session;

const AFTER_HELP: &str = "\
A file whose size, times and inode are as they were when it was delivered counts as unchanged; `verify` reads it. \
Exits 5 when something that was delivered differs. Strays (never delivered) are listed, but are no drift.

Examples:
  evenkeel status
  evenkeel status --area etc=/etc --json";

/// Paths that are listed without `-v`.
const SHOWN: usize = 50;

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
/// When an area's marker is missing, or the system fails.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    look(session, &args.areas, "evenkeel/status/1", checkout::status)
}

/// Looks at every area with `how` and prints the report.
///
/// # Errors
/// As [`run`].
pub fn look(
    session: &Session,
    areas: &[AreaArg],
    schema: &'static str,
    how: fn(&StatusOptions, &Store, &Progress) -> evenkeel_store::Result<StatusReport>,
) -> Result<Exit> {
    let areas = areas::select_or_known(session, areas)?;
    let store = session.open_store()?;
    let options = StatusOptions {
        areas: areas.iter().map(|area| area.target(&session.config)).collect(),
        state_dir: session.state_dir()?,
        protected: session.protected()?,
    };
    let report = session.run_long(|progress| how(&options, &store, progress))?;
    if session.out.json {
        let body = Report { in_sync: report.in_sync(), areas: report.areas.iter().map(AreaFields::new).collect() };
        session.out.document(schema, &body)?;
    } else {
        for area in &report.areas {
            print(session, area)?;
        }
    }
    // Drift is about what was delivered; where nothing was, there is none.
    let drifted = report.areas.iter().any(|area| area.applied.is_some() && !area.in_sync());
    Ok(if drifted { Exit::Drift } else { Exit::Done })
}

#[derive(Serialize)]
struct Report {
    in_sync: bool,
    areas: Vec<AreaFields>,
}

#[derive(Serialize)]
struct AreaFields {
    name: String,
    root: PathField,
    applied: Option<String>,
    interrupted: Option<String>,
    in_sync: bool,
    entries: u64,
    bytes_read: u64,
    dropped_delivered: u64,
    drift: Vec<DriftFields>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct DriftFields {
    #[serde(flatten)]
    path: PathField,
    what: &'static str,
    differs: Vec<&'static str>,
}

impl AreaFields {
    fn new(area: &AreaStatus) -> Self {
        let drift = |entry: &DriftEntry| DriftFields {
            path: PathField::new(entry.path.as_bytes()),
            what: entry.what.name(),
            differs: match entry.what {
                DriftKind::Content(fields) | DriftKind::Metadata(fields) => fields.names().collect(),
                DriftKind::Missing | DriftKind::Type | DriftKind::Stray => Vec::new(),
            },
        };
        AreaFields {
            name: area.name.clone(),
            root: PathField::new(area.root.as_os_str().as_bytes()),
            applied: area.applied.map(|id| id.to_hex()),
            interrupted: area.interrupted.map(|id| id.to_hex()),
            in_sync: area.in_sync(),
            entries: area.entries,
            bytes_read: area.bytes_read,
            dropped_delivered: area.dropped_delivered,
            drift: area.drift.iter().map(drift).collect(),
            warnings: area.warnings.clone(),
        }
    }
}

fn print(session: &Session, area: &AreaStatus) -> Result<()> {
    let out = &session.out;
    out.line(out.paint.bold(format_args!("{} at {}", area.name, text::path(&area.root))))?;
    let strays = area.drift.iter().filter(|entry| entry.what == DriftKind::Stray).count() as u64;
    let drift = area.drift.len() as u64 - strays;
    let state = match (area.applied, area.interrupted) {
        (None, None) => out.paint.dim("nothing was checked out here"),
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
            "{} between {} and {}: check out either",
            out.paint.bad("interrupted"),
            applied.map_or_else(|| "nothing".to_owned(), |id| id.short(12)),
            target.short(12)
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
    print_drift(session, &area.drift)?;
    for warning in &area.warnings {
        out.warning(warning);
    }
    Ok(())
}

fn print_drift(session: &Session, drift: &[DriftEntry]) -> Result<()> {
    let out = &session.out;
    let shown = if out.verbose > 0 { drift.len() } else { SHOWN };
    for entry in drift.iter().take(shown) {
        let line = format!("{:<8}  {}", entry.what.name(), entry.path);
        let line = match entry.what {
            DriftKind::Content(_) | DriftKind::Metadata(_) | DriftKind::Type => out.paint.changed(line),
            DriftKind::Missing => out.paint.bad(line),
            DriftKind::Stray => out.paint.dim(line),
        };
        // That the content differs is said already.
        let fields = match entry.what {
            DriftKind::Content(fields) | DriftKind::Metadata(fields) => fields.minus(Difference::CONTENT),
            DriftKind::Missing | DriftKind::Type | DriftKind::Stray => Difference::none(),
        };
        let fields = if fields.is_none() { String::new() } else { format!("  {}", out.paint.dim(fields)) };
        out.line(format_args!("  {line}{fields}"))?;
    }
    if drift.len() > shown {
        out.line(format_args!("  … and {} more (-v lists all)", number((drift.len() - shown) as u64)))?;
    }
    Ok(())
}
