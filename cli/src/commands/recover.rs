// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel recover`: finishes a checkout or rollback that was interrupted.

use evenkeel_store::checkout::{self, AreaRecovery};
use evenkeel_store::in_use::InUse;
use serde::Serialize;

use super::rollback::{SetAsideFields, print_set_aside};
use crate::areas::{self, AreaArg};
use crate::error::{Kind, Result};
use crate::exit::Exit;
use crate::output::in_use;
use crate::output::json::PathField;
use crate::output::text::{self, counted};
use crate::session::Session;

const AFTER_HELP: &str = "\
Everything that a checkout brings is staged, and what it will do is written down, before it changes the first name. So \
it can be finished after a crash or a power cut, without store and network. Every `checkout` does that first; `rollback` \
takes it back instead. Where nothing was interrupted, nothing is done.

Examples:
  evenkeel recover
  evenkeel recover --area etc=/etc --json";

/// Arguments of `recover`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An area and where it is (repeatable) [default: all that were checked out here].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    areas: Vec<AreaArg>,
}

/// Finishes what was interrupted in every area. One in which that fails does not hold up the others: it is an error after
/// they were told.
///
/// # Errors
/// When an area is not known here, its journal cannot be understood, or the system fails.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let options = session.back_options()?;
    let (mut areas, mut failed) = (Vec::new(), Vec::new());
    let wanted = areas::select_all_known(session, &args.areas)?;
    for area in &wanted {
        let target = area.target(&session.config);
        session.watch([&target]);
        match session.run_long(|progress| checkout::recover(&target, &options, progress)) {
            Ok(done) if session.out.json => areas.push(AreaFields::new(&done)),
            Ok(done) => print(session, &done)?,
            Err(error) if wanted.len() == 1 || error.kind == Kind::Interrupted => return Err(error),
            Err(error) => failed.push(error),
        }
    }
    if session.out.json {
        session.out.document("evenkeel/recover/1", &Report { areas })?;
    } else if wanted.is_empty() {
        session.out.line("nothing was ever checked out here")?;
    }
    session.out.flush()?;
    let first = failed.first().map(|error| error.kind.exit());
    for error in failed {
        session.out.error(&session.with_aftermath(error));
    }
    Ok(first.unwrap_or(Exit::Done))
}

#[derive(Serialize)]
struct Report {
    areas: Vec<AreaFields>,
}

#[derive(Serialize)]
struct AreaFields {
    name: String,
    root: PathField,
    finished: Option<u64>,
    at: Option<String>,
    kept: Option<u64>,
    left_alone: Vec<PathField>,
    set_aside: Vec<SetAsideFields>,
    in_use: InUse,
}

impl AreaFields {
    fn new(area: &AreaRecovery) -> Self {
        use std::os::unix::ffi::OsStrExt;
        AreaFields {
            name: area.name.clone(),
            root: PathField::new(area.root.as_os_str().as_bytes()),
            finished: area.number,
            at: area.at.map(|id| id.to_hex()),
            kept: area.kept,
            left_alone: area.left_alone.iter().map(|path| PathField::new(path.as_bytes())).collect(),
            set_aside: area.set_aside.iter().map(SetAsideFields::new).collect(),
            in_use: area.in_use.clone(),
        }
    }
}

fn print(session: &Session, area: &AreaRecovery) -> Result<()> {
    let out = &session.out;
    let heading = format!("{} at {}", area.name, text::path(&area.root));
    let what = match area.number {
        Some(number) => format!("finished number {number}"),
        None => "nothing was interrupted".to_owned(),
    };
    out.line(format_args!("{}  {what}", out.paint.bold(heading)))?;
    for path in &area.left_alone {
        out.line(format_args!("  {}", out.paint.changed(format_args!("{path}  changed meanwhile; left alone"))))?;
    }
    print_set_aside(session, &area.set_aside, area.number.unwrap_or(0))?;
    in_use::print(out, &area.in_use)?;
    match (area.at, area.kept) {
        (Some(id), Some(kept @ 1..)) => {
            let (id, kept) = (out.paint.id(id.short(12)), out.paint.changed(counted(kept, "kept difference")));
            out.line(format_args!("{} {id}, {kept}", out.paint.changed("at")))
        }
        (Some(id), _) => out.line(format_args!("{} {}", out.paint.good("at"), out.paint.id(id.short(12)))),
        (None, _) => out.line(format_args!("as it was before the first checkout")),
    }
}
