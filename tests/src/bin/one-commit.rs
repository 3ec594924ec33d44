// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commits one tree: `one-commit STORE STATE TREE`. The process that fault tests kill and lie to; a single worker, so
//! that the n-th call is the same one in every run.

use std::path::Path;

use evenkeel_store::area::AreaSpec;
use evenkeel_store::commit::{CommitOptions, commit};
use evenkeel_store::format::snapshot::AreaRules;
use evenkeel_store::{Progress, Store};

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, store, state, tree] = args.as_slice() else { panic!("usage: one-commit STORE STATE TREE") };
    let area = AreaSpec::new("tree", tree, AreaRules::default());
    let options = CommitOptions { threads: 1, ..CommitOptions::new(vec![area], Path::new(state)) };
    let done = Store::open(Path::new(store)).and_then(|store| commit(&store, &options, &Progress::default()));
    match done {
        Ok(_) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            std::process::ExitCode::FAILURE
        }
    }
}
