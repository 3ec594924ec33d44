// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel history`: lists what was done to the areas of this machine.

use evenkeel_store::checkout::{self, AreaTarget, JournalState, Record};
use serde::Serialize;

use crate::aftermath::JOURNAL_LOST;
use crate::areas::{self, AreaArg, LocalArea};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::json::{self, PathField};
use crate::output::text::{self, counted};
use crate::session::Session;

const AFTER_HELP: &str = "\
Every checkout and rollback that changed a name has a number. `rollback` takes the last one back, `undo NUMBER` all down \
to that one, as long as what they displaced is kept.

Examples:
  evenkeel history
  evenkeel history --area etc=/etc --json";

/// Arguments of `history`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An area and where it is (repeatable) [default: the areas of the configuration, else those that were
    /// checked out here].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    areas: Vec<AreaArg>,
}

/// Lists the records of every area, the newest first.
///
/// # Errors
/// When an area is not known here.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let state = session.state_dir()?;
    let mut areas = Vec::new();
    for area in areas::select_or_known(session, &args.areas)? {
        let target = area.target(&session.config);
        let records = checkout::history(&target, &state)?;
        warn_of_journal(session, &target)?;
        if !session.out.json {
            print(session, &area, &records)?;
        }
        areas.push(AreaFields::new(&area, &records));
    }
    if session.out.json {
        session.out.document("evenkeel/history/1", &Report { areas })?;
    }
    Ok(Exit::Done)
}

/// Says so when there is a transaction of which the history cannot tell.
pub(super) fn warn_of_journal(session: &Session, target: &AreaTarget) -> Result<()> {
    let what = match checkout::journal_state(target, &session.state_dir()?)? {
        JournalState::Fine => return Ok(()),
        JournalState::Damaged => "damaged",
        JournalState::Lost => "lost",
    };
    let is_mixed = checkout::standing(&target.root)?.is_some_and(|standing| standing.switching.is_some());
    let then = if is_mixed { format!(", and the area is a mixture: {JOURNAL_LOST}") } else { String::new() };
    session.out.warning(format_args!("area `{}`: the journal of the last transaction is {what}{then}", target.name));
    Ok(())
}

#[derive(Serialize)]
struct Report {
    areas: Vec<AreaFields>,
}

#[derive(Serialize)]
struct AreaFields {
    name: String,
    root: PathField,
    records: Vec<RecordFields>,
}

/// One record, also for `show-record`.
#[derive(Serialize)]
pub struct RecordFields {
    number: u64,
    time: String,
    before: Option<String>,
    after: Option<String>,
    undoes: Option<u64>,
    undone_by: Option<u64>,
    names: u64,
    kept: bool,
    interrupted: bool,
}

impl AreaFields {
    fn new(area: &LocalArea, records: &[Record]) -> Self {
        use std::os::unix::ffi::OsStrExt;
        AreaFields {
            name: area.name.clone(),
            root: PathField::new(area.config.root.as_os_str().as_bytes()),
            records: records.iter().rev().map(RecordFields::new).collect(),
        }
    }
}

impl RecordFields {
    /// The fields of a record.
    pub fn new(record: &Record) -> Self {
        RecordFields {
            number: record.number,
            time: json::time(record.time),
            before: record.before.map(|id| id.to_hex()),
            after: record.after.map(|id| id.to_hex()),
            undoes: record.undoes,
            undone_by: record.undone_by,
            names: record.names,
            kept: record.kept,
            interrupted: record.interrupted,
        }
    }
}

fn print(session: &Session, area: &LocalArea, records: &[Record]) -> Result<()> {
    let out = &session.out;
    let heading = format!("{} at {}", area.name, text::path(&area.config.root));
    out.line(out.paint.bold(heading))?;
    for record in records.iter().rev() {
        out.line(format_args!("  {}", line(record)))?;
    }
    Ok(())
}

/// `3  2026-11-22 20:14:02  4b1f… → 9c07…, 12 names; taken back by 4`.
pub fn line(record: &Record) -> String {
    let id = |id: &Option<evenkeel_store::id::SnapshotId>| id.map_or_else(|| "nothing".to_owned(), |id| id.short(12));
    let what = match record.undoes {
        Some(undone) => format!("took {undone} back: "),
        None => String::new(),
    };
    let mut line = format!(
        "{:>4}  {}  {what}{} → {}, {}",
        record.number,
        text::time(record.time),
        id(&record.before),
        id(&record.after),
        counted(record.names, "name")
    );
    if record.interrupted {
        line.push_str("; interrupted");
    } else if let Some(by) = record.undone_by {
        line.push_str(&format!("; taken back by {by}"));
    } else if !record.kept {
        line.push_str("; undo dropped");
    }
    line
}
