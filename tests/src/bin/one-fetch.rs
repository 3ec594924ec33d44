// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fetches what a checkout will need, and no more: `one-fetch URL STATE ROOT SNAPSHOT`. The process that tests of fetching kill.

use std::sync::Arc;

use evenkeel_store::backend::HttpBackend;
use evenkeel_store::backend::http::HttpOptions;
use evenkeel_store::checkout::{AreaTarget, CheckoutOptions, Mode, checkout};
use evenkeel_store::{Progress, Result, Store};

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, url, state, root, snapshot] = args.as_slice() else { panic!("usage: one-fetch URL STATE ROOT SNAPSHOT") };
    match fetch(url, state, root, snapshot) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

fn fetch(url: &str, state: &str, root: &str, snapshot: &str) -> Result<()> {
    let store = Store::open_at(Arc::new(HttpBackend::new(&[url.to_owned()], HttpOptions::default())?))?;
    let options = CheckoutOptions {
        areas: vec![AreaTarget::new("tree", root)],
        mode: Some(Mode::Full),
        fetch_only: true,
        ..CheckoutOptions::new(store.resolve(snapshot)?, state.into())
    };
    checkout(&store, &options, &Progress::default()).map(drop)
}
