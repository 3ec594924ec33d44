// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything around the code that is more than one command: `cargo xtask test`, `crash`, `bench` and `stress`.
//!
//! Standard library only, so that it builds in seconds on a fresh machine. It calls the same tools as a person would
//! and prints each command before it runs.

mod args;
mod bench;
mod crash;
mod host;
mod image;
mod shell;
mod stress;
mod test;

use std::process::ExitCode;

/// What a task ends with: a sentence for the person who ran it.
type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test   [--only GROUP]… [--list]      run every group of tests, end with a table
         [--fuzz-seconds N]            seconds a fuzz target (15)
         [--long]                      every call, act and error that is usually sampled: hours
  crash  [--fs ext4|xfs|btrfs]         power cuts on a real file system
         [--states N] [--seed S]       how many, and which
         [--workload NAME]…            only these
         [--state K]                   one state again, of a recording in which it failed
         [--loss reordered|prefix]     what becomes of writes that were not flushed
  bench  [--corpus DIR]… [--pairs N]   our commands against other tools, one Markdown table
         [--only CASE]… [--against TOOL]… [--list]
         [--study chunk-size]          stored bytes by average chunk size
         [--study delta]               bytes, time and memory of a delta, by effort
         [--study wire]                bytes, requests and time of an update, against other tools
  stress [--files N] [--dir DIR]       one million small files: commit, no-change commit, memory
         [--fuzz-seconds N]            and every fuzz target for so long

CI=true makes a group that is left out a failure.";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    image::private_mounts();
    let done = match command.as_str() {
        "test" => test::run(&rest),
        "crash" => crash::run(&rest),
        "bench" => bench::run(&rest),
        "stress" => stress::run(&rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Err(format!("no such command: '{command}'\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
