// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks one tree out: `one-checkout STORE STATE ROOT SNAPSHOT MODE ADOPT`. The process that fault tests kill and lie
//! to; a single worker, so that the n-th call is the same one in every run.

use std::path::Path;

use evenkeel_store::checkout::{Adopt, AreaTarget, CheckoutOptions, Mode, checkout};
use evenkeel_store::{Progress, Store};

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, store, state, root, snapshot, mode, adopt] = args.as_slice() else {
        panic!("usage: one-checkout STORE STATE ROOT SNAPSHOT MODE ADOPT")
    };
    let mode = if mode == "full" { Mode::Full } else { Mode::Incremental };
    let adopt = if adopt == "keep" { Some(Adopt::Keep) } else { None };
    let done = Store::open(Path::new(store)).and_then(|store| {
        let areas = vec![AreaTarget::new("tree", root)];
        let options = CheckoutOptions {
            areas,
            adopt,
            mode: Some(mode),
            threads: 1,
            ..CheckoutOptions::new(store.resolve(snapshot)?, state.into())
        };
        checkout(&store, &options, &Progress::default())
    });
    match done {
        Ok(_) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            std::process::ExitCode::FAILURE
        }
    }
}
