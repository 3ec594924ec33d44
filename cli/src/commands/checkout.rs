// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel checkout`.

use crate::error::{CommandError, Kind, Result};
use crate::exit::Exit;
use crate::session::Session;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs.
pub fn run(_session: &Session, _args: &Args) -> Result<Exit> {
    Err(CommandError::new(Kind::Failed, "not there yet"))
}
