// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks one tree out, or back: `one-checkout STORE STATE ROOT SNAPSHOT MODE ADOPT`. MODE is `full`, `incremental`, `tree`,
//! `rollback`, `recover`, or `undo:NUMBER`. The process that fault tests kill and lie to; a single worker, so that the n-th
//! call is the same one in every run.

use std::path::Path;

use evenkeel_store::checkout::{
    Adopt, AreaTarget, BackOptions, CheckoutOptions, Mode, SwitchMode, checkout, recover, rollback, undo,
};
use evenkeel_store::{Progress, Store};

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, store, state, root, snapshot, mode, adopt] = args.as_slice() else {
        panic!("usage: one-checkout STORE STATE ROOT SNAPSHOT MODE ADOPT")
    };
    let area = AreaTarget::new("tree", root);
    let (back, progress) = (BackOptions::new(state), Progress::default());
    let mode = match mode.split_once(':').unwrap_or((mode, "")) {
        ("rollback", _) => return ended(rollback(&area, &back, &progress)),
        ("recover", _) => return ended(recover(&area, &back, &progress)),
        ("undo", number) => {
            let number = number.parse().expect("undo:NUMBER");
            return ended(undo(&area, &back, number, &mut Vec::new(), &progress));
        }
        (mode, _) => mode,
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
        checkout(&store, &options, &progress)
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
