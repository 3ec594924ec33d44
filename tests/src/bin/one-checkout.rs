// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks one tree out, or back: `one-checkout STORE STATE ROOT SNAPSHOT MODE ADOPT`. The process that fault tests kill and lie
//! to; a single worker, so that the n-th call is the same one in every run.

use std::path::Path;

use evenkeel_store::checkout::{
    Adopt, AreaTarget, BackOptions, CheckoutOptions, Mode, SwitchMode, checkout, recover, rollback,
};
use evenkeel_store::{Progress, Store};

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, store, state, root, snapshot, mode, adopt] = args.as_slice() else {
        panic!("usage: one-checkout STORE STATE ROOT SNAPSHOT MODE ADOPT")
    };
    let area = AreaTarget::new("tree", root);
    let mode = match mode.as_str() {
        "rollback" => return ended(rollback(&area, &BackOptions::new(state), &Progress::default())),
        "recover" => return ended(recover(&area, &BackOptions::new(state), &Progress::default())),
        mode => mode,
    };
    let switch = if mode == "tree" { SwitchMode::Tree } else { SwitchMode::Files };
    let mode = if mode == "incremental" { Mode::Incremental } else { Mode::Full };
    let adopt = if adopt == "keep" { Some(Adopt::Keep) } else { None };
    let done = Store::open(Path::new(store)).and_then(|store| {
        let options = CheckoutOptions {
            areas: vec![area],
            adopt,
            mode: Some(mode),
            switch,
            threads: 1,
            ..CheckoutOptions::new(store.resolve(snapshot)?, state.into())
        };
        checkout(&store, &options, &Progress::default())
    });
    ended(done)
}

fn ended<T>(done: evenkeel_store::Result<T>) -> std::process::ExitCode {
    match done {
        Ok(_) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            std::process::ExitCode::FAILURE
        }
    }
}
