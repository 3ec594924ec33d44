// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel undo`: takes checkouts back, down to a number.

use evenkeel_store::checkout;

use super::rollback;
use crate::areas::{self, AreaArg};
use crate::error::Result;
use crate::exit::Exit;
use crate::session::Session;

const AFTER_HELP: &str = "\
Takes the newest checkout back, then the one before it, until NUMBER is taken back, too: the area is as it was before \
NUMBER. Needs neither store nor network. Each step is one that `rollback` would take, and is as safe.

Examples:
  evenkeel history
  evenkeel undo 12 --area etc=/etc";

/// Arguments of `undo`.
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

/// Goes back to before a number.
///
/// # Errors
/// When that cannot be taken back, there are several areas and none is named, or the system fails.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let options = session.back_options()?;
    let target = areas::select_one(session, args.area.clone())?.target(&session.config);
    session.watch([&target]);
    let mut done = Vec::new();
    let undone = session.run_long(|progress| checkout::undo(&target, &options, args.number, &mut done, progress));
    // What was done is told before what was not.
    if undone.is_ok() || !done.is_empty() {
        rollback::report(session, &done)?;
    }
    undone.map(|()| Exit::Done)
}
