// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel show-record`: tells every name that a checkout or rollback changed.

use evenkeel_store::checkout::{self, ChangeKind, RecordedChange};
use serde::Serialize;

use super::history::{self, RecordFields};
use crate::areas::{self, AreaArg};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::json::PathField;
use crate::session::Session;

const AFTER_HELP: &str = "\
The list of names is kept as long as the checkout can be taken back. A directory that moved as a whole is one name.

Examples:
  evenkeel show-record 12
  evenkeel show-record 12 --area etc=/etc --json";

/// Arguments of `show-record`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The number, as `history` lists it.
    #[arg(value_name = "NUMBER")]
    number: u64,
    /// The area and where it is [default: the one of the configuration, else the one that was checked out here].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    area: Option<AreaArg>,
}

/// Shows one record.
///
/// # Errors
/// When there is no such record, or there are several areas and none is named.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let state = session.state_dir()?;
    let area = areas::select_one(session, args.area.clone())?;
    let target = area.target(&session.config);
    let changes = checkout::recorded_changes(&target, &state, args.number)?;
    let records = checkout::history(&target, &state)?;
    let record = records.iter().find(|record| record.number == args.number).ok_or_else(|| {
        CommandError::usage(format!("area `{}` has no record {}", area.name, args.number))
            .hint("`evenkeel history` lists them")
    })?;
    if session.out.json {
        let changes = changes.as_ref().map(|changes| changes.iter().map(ChangeFields::new).collect());
        session.out.document("evenkeel/show-record/1", &Report { record: RecordFields::new(record), changes })?;
        return Ok(Exit::Done);
    }
    session.out.line(history::line(record).trim_start())?;
    match &changes {
        None => session.out.line("  the list of names was dropped with the undo")?,
        Some(changes) => {
            for change in changes {
                session.out.line(format_args!("  {:<8}  {}", change.action.name(), change.path))?;
            }
        }
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Report {
    record: RecordFields,
    /// `null` when the list was dropped.
    changes: Option<Vec<ChangeFields>>,
}

#[derive(Serialize)]
struct ChangeFields {
    #[serde(flatten)]
    path: PathField,
    action: &'static str,
}

impl ChangeFields {
    fn new(change: &RecordedChange) -> Self {
        let action: ChangeKind = change.action;
        ChangeFields { path: PathField::new(change.path.as_bytes()), action: action.name() }
    }
}
