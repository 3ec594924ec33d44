// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ctrl-C and SIGTERM: the first asks the running operation to stop at its next safe point, the second ends the program.
//!
//! What is done is told: a signal that comes once the work is done, or while a document is being written, waits until that
//! is out. The second does not. A service hears them itself, SIGHUP as often as it comes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_store::Progress;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

static STATE: Mutex<State> = Mutex::new(State { doing: Doing::Anything, asked: false });

/// What a signal meets.
struct State {
    doing: Doing,
    /// A signal has come.
    asked: bool,
}

enum Doing {
    /// Nothing that could not be cut off.
    Anything,
    /// An operation that can be stopped.
    Work(Arc<Progress>),
    /// Output that is to be whole.
    Telling,
    /// Serving others, until it is told to stop.
    Service(Box<dyn Fn(Signal) + Send>),
}

/// What a signal says to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT or SIGTERM.
    Stop,
    /// SIGHUP.
    Reload,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes over SIGINT, SIGTERM and SIGHUP. Where that is impossible they keep ending the program, which is safe too.
pub fn install() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let mut state = state();
            if let (Doing::Service(attend), SIGHUP) = (&state.doing, signal) {
                attend(Signal::Reload);
                continue;
            }
            let again = std::mem::replace(&mut state.asked, true);
            match &state.doing {
                Doing::Work(progress) if !again => progress.cancel(),
                Doing::Telling if !again => {}
                Doing::Service(attend) if !again => attend(Signal::Stop),
                _ => end(),
            }
        }
    });
}

fn end() -> ! {
    std::process::exit(i32::from(Exit::Interrupted.code()))
}

/// From now on the first signal cancels `progress`; one that came before does so at once.
pub fn begin_work(progress: &Arc<Progress>) {
    let mut state = state();
    if state.asked {
        progress.cancel();
    }
    state.doing = Doing::Work(Arc::clone(progress));
}

/// From now on signals are for a service; one that came before stops it at once.
pub fn begin_service(attend: Box<dyn Fn(Signal) + Send>) {
    let mut state = state();
    if state.asked {
        attend(Signal::Stop);
    }
    state.doing = Doing::Service(attend);
}

/// From now on the first signal waits for the end of the program: what was done is being told.
pub fn end_work() {
    state().doing = Doing::Telling;
}

/// Writes something that is to be whole. A signal that has come meanwhile ends the program after it, once `bring_out` has
/// brought it out, unless there is work to tell of.
pub fn whole<T>(write: impl FnOnce() -> T, bring_out: impl FnOnce()) -> T {
    let is_first = {
        let mut state = state();
        let is_first = matches!(state.doing, Doing::Anything);
        if is_first {
            state.doing = Doing::Telling;
        }
        is_first
    };
    let written = write();
    if is_first {
        let asked = {
            let mut state = state();
            if !state.asked {
                state.doing = Doing::Anything;
            }
            state.asked
        };
        if asked {
            bring_out();
            end();
        }
    }
    written
}
