// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One file and one `run` a command. A command reads its arguments, calls the library, and words what came of it.

pub mod bundle;
pub mod cat;
pub mod check;
pub mod checkout;
pub mod commit;
pub mod completions;
pub mod copy;
pub mod delta;
pub mod demo;
pub mod diff;
pub mod explain;
pub mod fetch;
pub mod find;
pub mod help;
pub mod history;
pub mod init;
pub mod log;
pub mod ls;
pub mod man;
pub mod recover;
pub mod rollback;
pub mod serve;
pub mod show;
pub mod show_record;
pub mod status;
pub mod undo;
pub mod values;
pub mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{self, Output};
use crate::session::Session;

/// Runs the program: arguments in, exit code out.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return not_understood(&error).into(),
    };
    interrupt::install();
    evenkeel_store::fsio::raise_open_files();
    let out = Output::new(&args.globals);
    run(args, out).into()
}

/// Tells what is wrong with the arguments, or the help that was asked for.
fn not_understood(error: &clap::Error) -> Exit {
    if error.use_stderr() && asks_for_json(std::env::args_os()) {
        let error = CommandError::from_arguments(error);
        output::print_json_error(&error);
        return error.kind.exit();
    }
    // Help and version are written to stdout; whoever reads it may have gone away.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

/// Whether `--json` is among arguments that could not be understood as a whole.
fn asks_for_json(args: impl Iterator<Item = OsString>) -> bool {
    args.take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

fn run(args: Args, out: Output) -> Exit {
    let mut session = Session::new(args.globals, out);
    let result = match &args.command {
        // These must work whatever the configuration says.
        Command::Help(args) => help::run(&session.out, args),
        Command::Completions(args) => completions::run(&session.out, args),
        Command::Man(args) => man::run(&session.out, args),
        command => session.load_config().and_then(|()| dispatch(&session, command)),
    };
    // The report of a checkout says it, and its record; where it fails there is neither.
    if result.is_err() || !matches!(args.command, Command::Checkout(_) | Command::Fetch(_)) {
        session.tell_of_store();
    }
    match result.and_then(|exit| session.out.flush().map(|()| exit)) {
        Ok(exit) => exit,
        Err(error) => {
            // What was printed before the failure is still true.
            let _ = session.out.flush();
            let error = session.with_aftermath(error);
            session.out.error(&error);
            error.kind.exit()
        }
    }
}

fn dispatch(session: &Session, command: &Command) -> Result<Exit> {
    match command {
        Command::Init(args) => init::run(session, args),
        Command::Commit(args) => commit::run(session, args),
        Command::Log(args) => log::run(session, args),
        Command::Show(args) => show::run(session, args),
        Command::Ls(args) => ls::run(session, args),
        Command::Cat(args) => cat::run(session, args),
        Command::Diff(args) => diff::run(session, args),
        Command::Find(args) => find::run(session, args),
        Command::Fetch(args) => fetch::run(session, args),
        Command::Checkout(args) => checkout::run(session, args),
        Command::Status(args) => status::run(session, args),
        Command::Verify(args) => verify::run(session, args),
        Command::Explain(args) => explain::run(session, args),
        Command::Rollback(args) => rollback::run(session, args),
        Command::Recover(args) => recover::run(session, args),
        Command::History(args) => history::run(session, args),
        Command::ShowRecord(args) => show_record::run(session, args),
        Command::Undo(args) => undo::run(session, args),
        Command::Check(args) => check::run(session, args),
        Command::Copy(args) => copy::run(session, args),
        Command::Bundle(args) => bundle::run(session, args),
        Command::Serve(args) => serve::run(session, args),
        Command::Delta(args) => delta::run(session, args),
        Command::Demo(args) => demo::run(session, args),
        Command::Help(args) => help::run(&session.out, args),
        Command::Completions(args) => completions::run(&session.out, args),
        Command::Man(args) => man::run(&session.out, args),
    }
}
