// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel verify`: compares what is checked out here with its snapshot, byte for byte.

use evenkeel_store::checkout;

use super::status;
use crate::areas::{self, AreaArg};
use crate::error::Result;
use crate::exit::Exit;
use crate::session::Session;

const AFTER_HELP: &str = "\
Reads every byte and trusts no timestamp; tells who changed each path, as far as the file system and the package manager \
know. Exits 5 when something that was delivered differs, or an area of the \
configuration was never checked out. An area that cannot be looked at is an error after the others were shown.

Examples:
  evenkeel verify
  evenkeel verify --area etc=/etc --json";

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An area and where it is (repeatable) [default: the areas of the configuration, else those that were
    /// checked out here].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    areas: Vec<AreaArg>,
}

/// Reads every area.
///
/// # Errors
/// As [`status::run`].
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    status::look(session, &args.areas, "evenkeel/verify/1", checkout::verify, true)
}
