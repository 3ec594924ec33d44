// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel help`: a command's page or a topic.

use crate::args;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::topics;

const EXAMPLES: &str = "\
Examples:
  evenkeel help commit
  evenkeel help exit-codes";

/// Arguments of `help`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A command, or one of: exit-codes, snapshots, areas, config.
    #[arg(value_name = "COMMAND|TOPIC")]
    subject: Option<String>,
}

/// Prints the page.
///
/// # Errors
/// A usage error when there is no such command or topic.
pub fn run(out: &Output, args: &Args) -> Result<Exit> {
    let mut command = args::command();
    command.build();
    let page = match &args.subject {
        None => command.render_long_help().to_string(),
        Some(subject) => match (topics::text(subject), command.find_subcommand_mut(subject)) {
            (Some(text), _) => text,
            (None, Some(command)) => command.render_long_help().to_string(),
            (None, None) => {
                return Err(CommandError::usage(format!("there is no command or topic `{}`", subject.escape_debug()))
                    .hint("`evenkeel help` lists both"));
            }
        },
    };
    out.bytes(page.as_bytes())?;
    Ok(Exit::Done)
}
