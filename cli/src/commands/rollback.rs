// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel rollback`: takes the last checkout back.

use std::collections::BTreeSet;

use evenkeel_store::checkout::{self, AreaRollback, SetAside};
use evenkeel_store::in_use::InUse;
use evenkeel_store::path::TreePath;
use serde::Serialize;

use crate::areas::{self, AreaArg};
use crate::error::{CommandError, Kind, Result};
use crate::exit::Exit;
use crate::output::in_use;
use crate::output::json::PathField;
use crate::output::text::{self, counted};
use crate::session::Session;

const AFTER_HELP: &str = "\
Needs neither store nor network: what a checkout replaces or removes stays in the area's .evenkeel/undo. Local changes \
that the checkout overwrote come back, too. What was changed since the checkout is named: edits of what it brought go to \
undo in their turn, and what somebody has put there stays. A checkout that was interrupted is taken back as far as it \
got, and a rollback that was interrupted is finished. Called again, it goes back one checkout more, as long as undo is \
kept (`evenkeel help config`).

Examples:
  evenkeel rollback
  evenkeel rollback --area etc=/etc";

/// Paths that are listed without `-v`.
const SHOWN: usize = 20;

/// Arguments of `rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An area and where it is (repeatable) [default: the areas of the configuration, else the only one that was
    /// checked out here].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    areas: Vec<AreaArg>,
}

/// Goes back in every area.
///
/// # Errors
/// When an area has nothing to take back, with nothing changed; or the system fails, and what was taken back is told.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let options = session.back_options()?;
    let areas = areas::select_or_only(session, &args.areas)?;
    let targets: Vec<_> = areas.iter().map(|area| area.target(&session.config)).collect();
    // Whatever can be known of one before any of them is changed.
    if targets.len() > 1 {
        targets.iter().try_for_each(|target| checkout::can_roll_back(target, &options))?;
    }
    let mut all = Vec::new();
    for target in targets {
        session.watch([&target]);
        match session.run_long(|progress| checkout::rollback(&target, &options, progress)) {
            Ok(done) => all.push(done),
            Err(error) => {
                // What was done is told before what was not.
                report(session, &all)?;
                return Err(if all.is_empty() { error } else { after_some(error, &all) });
            }
        }
    }
    report(session, &all)?;
    Ok(Exit::Done)
}

/// No refusal any more: some of it is done.
fn after_some(mut error: CommandError, done: &[AreaRollback]) -> CommandError {
    if error.kind == Kind::Usage {
        error.kind = Kind::Failed;
    }
    let names: Vec<String> = done.iter().map(|area| format!("`{}`", area.name)).collect();
    error.hint(format!("taken back already: {}; name the others with --area to go on", names.join(", ")))
}

/// Tells what was taken back.
///
/// # Errors
/// When stdout cannot be written.
pub fn report(session: &Session, all: &[AreaRollback]) -> Result<()> {
    if session.out.json {
        let areas = all.iter().map(AreaFields::new).collect();
        return session.out.document("evenkeel/rollback/1", &Report { areas });
    }
    all.iter().try_for_each(|area| print(session, area))
}

#[derive(Serialize)]
struct Report {
    areas: Vec<AreaFields>,
}

#[derive(Serialize)]
struct AreaFields {
    name: String,
    root: PathField,
    undone: u64,
    was_interrupted: bool,
    resumed: bool,
    number: u64,
    before: Option<String>,
    after: Option<String>,
    changes: u64,
    changed_since: Vec<PathField>,
    removed_since: Vec<PathField>,
    left_alone: Vec<PathField>,
    not_kept: Vec<PathField>,
    set_aside: Vec<SetAsideFields>,
    in_use: InUse,
}

impl AreaFields {
    fn new(area: &AreaRollback) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let paths = |paths: &[TreePath]| paths.iter().map(|path| PathField::new(path.as_bytes())).collect();
        AreaFields {
            name: area.name.clone(),
            root: PathField::new(area.root.as_os_str().as_bytes()),
            undone: area.undone,
            was_interrupted: area.was_interrupted,
            resumed: area.resumed,
            number: area.number,
            before: area.before.map(|id| id.to_hex()),
            after: area.after.map(|id| id.to_hex()),
            changes: area.changes,
            changed_since: paths(&area.changed_since),
            removed_since: paths(&area.removed_since),
            left_alone: paths(&area.left_alone),
            not_kept: paths(&area.not_kept),
            set_aside: area.set_aside.iter().map(SetAsideFields::new).collect(),
            in_use: area.in_use.clone(),
        }
    }
}

/// What is kept in the undo because it could not have its place.
#[derive(Serialize)]
pub struct SetAsideFields {
    #[serde(flatten)]
    path: PathField,
    kept_as: String,
}

impl SetAsideFields {
    /// Of one path.
    pub fn new(aside: &SetAside) -> Self {
        SetAsideFields { path: PathField::new(aside.path.as_bytes()), kept_as: aside.kept_as.clone() }
    }
}

/// Tells where what could not have its place is kept.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_set_aside(session: &Session, set_aside: &[SetAside], number: u64) -> Result<()> {
    let out = &session.out;
    for SetAside { path, kept_as } in set_aside {
        let why = format!("what could not come back to its place is .evenkeel/undo/{number}/{kept_as}");
        out.line(format_args!("  {}", out.paint.changed(format_args!("{path}  {why}"))))?;
    }
    Ok(())
}

fn print(session: &Session, area: &AreaRollback) -> Result<()> {
    let out = &session.out;
    let heading = format!("{} at {}", area.name, text::path(&area.root));
    let what = if area.was_interrupted { "interrupted checkout" } else { "checkout" };
    let changes = counted(area.changes, "name");
    let how = if area.resumed {
        format!("rollback {}, which was interrupted, finished: ", area.number)
    } else {
        String::new()
    };
    out.line(format_args!("{}  {how}{what} {} taken back, {changes}", out.paint.bold(heading), area.undone))?;
    let shown = if out.verbose > 0 { usize::MAX } else { SHOWN };
    let undo = format!("changed since the checkout; what was there is in .evenkeel/undo/{}", area.number);
    let lists = [
        (&area.changed_since, undo.as_str()),
        (&area.removed_since, "removed since the checkout"),
        (&area.left_alone, "not as the checkout left it; left alone"),
        (&area.not_kept, "does not come back: it is not kept any more"),
    ];
    for (paths, why) in lists {
        for path in paths.iter().take(shown) {
            out.line(format_args!("  {}", out.paint.changed(format_args!("{path}  {why}"))))?;
        }
        if paths.len() > shown {
            out.line(format_args!("  … and {} more (-v lists all)", paths.len() - shown))?;
        }
    }
    print_set_aside(session, &area.set_aside, area.number)?;
    in_use::print(out, &area.in_use)?;
    // What was different before is different again, so this is no claim to be in sync.
    let paths = area.left_alone.iter().chain(&area.not_kept).chain(area.set_aside.iter().map(|aside| &aside.path));
    let but = match paths.collect::<BTreeSet<_>>().len() as u64 {
        0 => String::new(),
        paths => out.paint.changed(format_args!(" but for {}", counted(paths, "path"))).to_string(),
    };
    match area.after {
        Some(id) => {
            let back = out.paint.good("back at");
            out.line(format_args!(
                "{back} {}, as it was before number {}{but}",
                out.paint.id(id.short(12)),
                area.undone
            ))
        }
        // What gave way is kept in it.
        None => out.line(format_args!("as it was before the first checkout{but}, with .evenkeel in it")),
    }
}
