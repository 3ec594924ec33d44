// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel demo`: the whole method on real files of this machine, in a temporary directory.
//!
//! What is printed is what runs: every step is a command line, given to `sh` or to this very program. Nothing outside the
//! temporary directory is changed.

mod script;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{CommandError, Kind, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::text::{self, bytes, columns, counted, number, seconds};
use crate::session::Session;
use script::{Role, Script};
use source::Changes;

const AFTER_HELP: &str = "\
Copies up to 200 MiB of this machine's /usr (or --area DIR) into a temporary directory as the master's tree, commits \
it, checks it out as a remote server would, changes it, follows incrementally and in full, finds and repairs drift, takes \
a checkout back, and carries out a saved plan. Needs no privileges and no network, and removes everything at the end.

Examples:
  evenkeel demo
  evenkeel demo --keep
  evenkeel demo --area /srv/app";

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Use a copy of this directory instead of parts of /usr.
    #[arg(long, value_name = "DIR")]
    area: Option<PathBuf>,
    /// Leave the temporary directory for a look around.
    #[arg(long)]
    keep: bool,
}

/// Shows the method.
///
/// # Errors
/// When a step does not end as it should; the temporary directory is then kept.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let out = &session.out;
    let dir = tempfile::Builder::new()
        .prefix("evenkeel-demo-")
        .tempdir()
        .map_err(|e| CommandError::caused_by(Kind::Failed, "cannot make a temporary directory", e))?;
    let mut script = Script::new(out, dir.path())?;
    // Ctrl-C ends the running command; the directory is removed here.
    interrupt::begin_work(&Arc::default());
    let result = tell(&mut script, args.area.as_deref());
    let failed = result.as_ref().is_err_and(|error| !matches!(error.kind, Kind::Interrupted | Kind::BrokenPipe));
    if args.keep || failed {
        let path = dir.keep();
        out.line(format_args!("\nEverything is in {} (remove it when you are done).", text::path(&path)))?;
    } else {
        out.flush()?;
        out.note("removing the temporary directory");
        let removed = dir.close();
        removed.map_err(|e| CommandError::caused_by(Kind::Failed, "cannot remove the temporary directory", e))?;
    }
    result.map(|()| Exit::Done)
}

/// The story, from the first copy to the summary.
fn tell(script: &mut Script<'_>, area: Option<&Path>) -> Result<()> {
    let changes = prepare(script, area)?;
    commit_twice(script)?;
    first_checkout(script)?;
    new_release(script, &changes)?;
    drift(script, &changes)?;
    go_back(script)?;
    script.say("Was every byte kept? The store is audited: each chunk is read and hashed.")?;
    script.evenkeel(Role::Master, "audit of the store", "check --read-data", 0)?;
    summary(script)
}

/// Copies the tree, writes the two configurations, and picks what the story will change.
fn prepare(script: &mut Script<'_>, area: Option<&Path>) -> Result<Changes> {
    script.heading("A master server and its tree")?;
    script.say("Real files of this machine stand for the software that all servers of a fleet share.")?;
    let master = script.dir().join("master");
    let parts = match area {
        Some(dir) => vec![source::directory(dir)?],
        None => source::parts_of_usr()?,
    };
    let names: Vec<String> = parts.iter().map(|part| script::quote(part)).collect();
    script.shell("copy", &format!("mkdir master && cp -a {} master/", names.join(" ")), true)?;
    let changes = source::choose_changes(&master)?;
    let found = source::measure(&master)?;
    let what = format!("{}, {}", counted(found.files, "file"), bytes(found.bytes));
    script.note_data(&what);
    script
        .say(&format!("The master's tree: {what}. Two configurations, one for each server, name it as area `os`:"))?;
    for role in [Role::Master, Role::Remote] {
        script.configure(role)?;
    }
    Ok(changes)
}

fn commit_twice(script: &mut Script<'_>) -> Result<()> {
    script.heading("Commit")?;
    script.say("A snapshot is immutable and named by a hash of everything in it.")?;
    script.evenkeel(Role::Master, "make a store", "init store", 0)?;
    script.evenkeel(Role::Master, "first commit", "commit -m 'first image'", 0)?;
    script.note_store()?;
    script.say("A commit without a change is a walk over the tree: no file is read.")?;
    script.evenkeel(Role::Master, "commit, nothing changed", "commit -m 'again'", 0)
}

fn first_checkout(script: &mut Script<'_>) -> Result<()> {
    script.heading("Check it out on a remote server")?;
    script.say("The directory is new, so this is a full checkout. Everything is verified before it gets its name.")?;
    script.evenkeel(Role::Remote, "first checkout", "checkout @latest", 0)?;
    script.say("Another program agrees: the two trees are equal.")?;
    script.shell("compare with diff", "diff -r --no-dereference --exclude=.evenkeel master remote && echo equal", false)
}

fn new_release(script: &mut Script<'_>, changes: &Changes) -> Result<()> {
    script.heading("A new release")?;
    script.say("On the master, software is patched, added and removed.")?;
    script.shell("change the master", &changes.release(), false)?;
    script.evenkeel(Role::Master, "second commit", "commit -m 'second image'", 0)?;
    script.note_store()?;
    script.evenkeel(Role::Master, "compare snapshots", "diff --stat @latest~1 @latest", 0)?;
    script.say("Incremental: new and changed files come, nothing is removed.")?;
    script.evenkeel(Role::Remote, "incremental checkout", "checkout @latest --incremental", 0)?;
    script
        .say("Someone leaves a stray file on the remote. A full checkout removes it, and what the release dropped.")?;
    script.shell("a stray file", &changes.stray(), false)?;
    script.evenkeel(Role::Remote, "full checkout", "checkout @latest --full -v", 0)?;
    script.shell("compare with diff", "diff -r --no-dereference --exclude=.evenkeel master remote && echo equal", false)
}

fn drift(script: &mut Script<'_>, changes: &Changes) -> Result<()> {
    script.heading("Drift")?;
    script.say("A local administrator edits a file without telling anyone, and even puts its time back.")?;
    script.shell("edit behind the back", &changes.drift(), false)?;
    script.evenkeel(Role::Remote, "status", "status", 5)?;
    script.say("`verify` trusts no timestamp and reads every byte.")?;
    script.evenkeel(Role::Remote, "verify", "verify", 5)?;
    script.say("Force brings everything back to the release.")?;
    script.evenkeel(Role::Remote, "forced checkout", "checkout @latest --force -v", 0)?;
    script.evenkeel(Role::Remote, "status", "status", 0)
}

fn go_back(script: &mut Script<'_>) -> Result<()> {
    script.heading("Undo")?;
    script.say("What a checkout replaced or removed is kept. The last one is taken back without store or network.")?;
    script.evenkeel(Role::Remote, "what was done here", "history", 0)?;
    script.evenkeel(Role::Remote, "rollback", "rollback", 0)?;
    script.say("The edit of the local administrator is here again, and is drift again.")?;
    script.evenkeel(Role::Remote, "status", "status", 5)?;
    script
        .say("Every snapshot stays in the store, so any of them can be checked out. First the plan, then just that.")?;
    script.evenkeel(Role::Remote, "plan", "checkout @latest~1 --full --save-plan plan", 0)?;
    script.evenkeel(Role::Remote, "back to the first image", "checkout --plan plan", 0)?;
    script.evenkeel(Role::Remote, "verify", "verify", 0)?;
    script.evenkeel(Role::Master, "history", "log", 0)
}

/// Prints what each step took.
fn summary(script: &mut Script<'_>) -> Result<()> {
    script.heading("Summary")?;
    let mut rows = vec![["step", "seconds", ""].map(str::to_owned).to_vec()];
    for step in script.steps().iter().filter(|step| step.told) {
        rows.push(vec![step.name.clone(), format!("{:.2}", step.seconds), step.data.clone()]);
    }
    let out = script.out();
    out.line("")?;
    for (at, line) in columns(&rows, &[false, true, false], "  ").into_iter().enumerate() {
        out.line(if at == 0 { out.paint.bold(line) } else { line })?;
    }
    let (steps, total) = (script.steps().len() as u64, script.steps().iter().map(|step| step.seconds).sum());
    out.line(format_args!("\n{} commands in {}.", number(steps), seconds(total)))?;
    out.line("Next: `evenkeel --help`, and the user guide in docs/guide.")
}
