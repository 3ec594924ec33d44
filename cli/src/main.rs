// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Evenkeel's command line: arguments, configuration, output and exit codes around `evenkeel-store`.
#![allow(rustdoc::broken_intra_doc_links, reason = "help texts name defaults in brackets")]

mod aftermath;
mod areas;
mod args;
mod bucket;
mod commands;
mod config;
mod error;
mod exit;
mod identity;
mod interrupt;
mod output;
mod remote;
mod session;
mod snapshot_path;
mod topics;

fn main() -> std::process::ExitCode {
    commands::main()
}
