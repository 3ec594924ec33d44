// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ctrl-C and SIGTERM: the first asks the running operation to stop at its next safe point, the second ends the program.

use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_store::Progress;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

/// What a signal should stop.
static CURRENT: Mutex<Option<Arc<Progress>>> = Mutex::new(None);

/// Takes over SIGINT, SIGTERM and SIGHUP. Where that is impossible they keep ending the program, which is safe too.
pub fn install() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
            match &*current {
                Some(progress) if !progress.is_cancelled() => progress.cancel(),
                _ => std::process::exit(i32::from(Exit::Interrupted.code())),
            }
        }
    });
}

/// From now on a signal cancels `progress`; with `None` it ends the program.
pub fn watch(progress: Option<Arc<Progress>>) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = progress;
}
