// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line as types. What a command takes stands beside its `run` in `commands/`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::output::ColorWhen;
use crate::output::progress::ProgressWhen;

/// After the list of commands.
const AFTER_HELP: &str = "\
Getting started:
  evenkeel demo        the whole method on real files, in a temporary directory
  evenkeel init /srv/store
  evenkeel --store /srv/store commit --area etc=/etc -m 'first snapshot'
  evenkeel --store /srv/store checkout @latest --area etc=/srv/copy-of-etc

Topics of `evenkeel help TOPIC`:
  exit-codes   what the program's exit code means
  snapshots    how to name a snapshot, and a path in one
  areas        what an area is, and what is left out of it
  config       every key of evenkeel.toml";

/// Keep every server of a fleet identical to a tested master; prove it; undo it.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    infer_subcommands = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = AFTER_HELP
)]
pub struct Args {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The store: a directory, http(s)://… or s3://….
    #[arg(long, global = true, value_name = "STORE", env = "EVENKEEL_STORE", hide_env_values = true)]
    pub store: Option<PathBuf>,
    /// Configuration [default: /etc/evenkeel/evenkeel.toml, then $XDG_CONFIG_HOME/evenkeel/evenkeel.toml].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State directory [default: /var/lib/evenkeel as root, else $XDG_STATE_HOME/evenkeel].
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Print the result as JSON (schemas in docs/reference/schemas).
    #[arg(long, global = true)]
    pub json: bool,
    /// How to tell how a long operation goes, on stderr.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    #[arg(help = "Progress on stderr: auto, plain, json or none")]
    pub progress: ProgressWhen,
    /// When to colour.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    #[arg(help = "Colours: auto, always or never; NO_COLOR is honoured")]
    pub color: ColorWhen,
    /// Say nothing but the result and what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a store.
    Init(commands::init::Args),
    /// Record the areas of this machine as a snapshot.
    Commit(commands::commit::Args),
    /// List snapshots, newest first.
    Log(commands::log::Args),
    /// Show what a snapshot holds.
    Show(commands::show::Args),
    /// List a directory of a snapshot.
    Ls(commands::ls::Args),
    /// Print a file of a snapshot.
    Cat(commands::cat::Args),
    /// Compare two snapshots.
    Diff(commands::diff::Args),
    /// Find the snapshots that hold a path.
    Find(commands::find::Args),
    /// Fetch what a checkout will need, and change nothing.
    Fetch(commands::fetch::Args),
    /// Make directories of this machine match a snapshot.
    Checkout(commands::checkout::Args),
    /// Tell what is checked out here and what changed since, by times and sizes.
    Status(commands::status::Args),
    /// Compare what is checked out here with its snapshot, byte for byte.
    Verify(commands::verify::Args),
    /// Tell of one path why it is as it is, and who changed it.
    Explain(commands::explain::Args),
    /// Take the last checkout back.
    Rollback(commands::rollback::Args),
    /// Finish a checkout or rollback that was interrupted.
    Recover(commands::recover::Args),
    /// List what was done to the areas of this machine.
    History(commands::history::Args),
    /// Tell what a checkout or rollback did, why, and who asked for it.
    ShowRecord(commands::show_record::Args),
    /// Take checkouts back, down to a number of `history`.
    Undo(commands::undo::Args),
    /// Look for damage in the store.
    Check(commands::check::Args),
    /// Copy snapshots to another store.
    Copy(commands::copy::Args),
    /// Put a snapshot into one file, for where no line leads.
    Bundle(commands::bundle::Args),
    /// Serve a store's directory over HTTP(S), for reading only.
    Serve(commands::serve::Args),
    /// Make and list deltas, with which remotes fetch fewer bytes.
    Delta(commands::delta::Args),
    /// Show the whole method on real files, in a temporary directory.
    Demo(commands::demo::Args),
    /// Explain a command or a topic.
    Help(commands::help::Args),
    /// Print a completion script for a shell.
    Completions(commands::completions::Args),
    /// Print the manual page, or write all pages into a directory.
    Man(commands::man::Args),
}

/// The clap command, for help, completions and manual pages.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }
}
