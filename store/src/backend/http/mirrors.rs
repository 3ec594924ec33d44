// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The servers that have a store, which of them to ask next, and when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::client::Cost;
use super::options::{Patience, Timing};

/// A server rests so many times as long as its last failure took, up to a bound.
const REST_TIMES: u32 = 10;
const REST_MAX: Duration = Duration::from_secs(600);

/// One server.
#[derive(Debug)]
pub(super) struct Mirror {
    /// With a slash at its end.
    pub(super) address: String,
    state: Mutex<State>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last success.
    failures: u32,
    /// It is asked after the others until then.
    rests_until: Duration,
    /// What it gave that was wrong, the first time.
    lie: Option<String>,
    link: Option<Link>,
}

/// How fast a server answers, from the requests so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// From a request to the first byte of its answer.
    pub latency: Duration,
    /// Bytes of content a second, while they come.
    pub bytes_per_second: f64,
}

/// What servers were asked and gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests made, those that failed too.
    pub requests: u64,
    /// Bytes of content received, those that were of no use too.
    pub bytes: u64,
}

impl Mirror {
    pub(super) fn new(address: String) -> Mirror {
        Mirror { address, state: Mutex::default(), requests: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It answered as it should.
    pub(super) fn succeeded(&self, cost: &Cost) {
        let mut state = self.state();
        (state.failures, state.rests_until) = (0, Duration::ZERO);
        state.link = Some(mixed(state.link, cost));
    }

    /// It did not answer, for now, and finding that out took some time for nothing: a server that is silent rests longer
    /// than one that refuses at once.
    pub(super) fn failed(&self, wasted: Duration, patience: &Patience, timing: &dyn Timing) {
        let mut state = self.state();
        let rest = pause(patience, state.failures, timing.random()).max((wasted * REST_TIMES).min(REST_MAX));
        state.rests_until = timing.now() + rest;
        state.failures = state.failures.saturating_add(1);
    }

    /// Whether it is asked after the others now.
    pub(super) fn rests(&self, now: Duration) -> bool {
        self.state().rests_until > now
    }

    /// Failures since it last answered as it should.
    pub(super) fn failures(&self) -> u32 {
        self.state().failures
    }

    /// It gave bytes that are not what they should be.
    pub(super) fn lied(&self, about: String) {
        self.state().lie.get_or_insert(about);
    }

    /// What it first gave that was wrong.
    pub(super) fn lie(&self) -> Option<String> {
        self.state().lie.clone()
    }

    pub(super) fn link(&self) -> Option<Link> {
        self.state().link
    }

    pub(super) fn count(&self, cost: &Cost) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(cost.bytes, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic { requests: self.requests.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// Which servers to ask, best first: in the order in which they were named, but after the others those that rest, and at
/// last those that lied.
pub(super) fn order(mirrors: &[Mirror], now: Duration) -> Vec<usize> {
    let mut order: Vec<usize> = (0..mirrors.len()).collect();
    order.sort_by_key(|at| {
        let state = mirrors[*at].state();
        (state.lie.is_some(), state.rests_until > now)
    });
    order
}

/// How long to wait after the failure that `failures` others came before: twice as long each time, and a random part of
/// it, so that a thousand servers that failed together do not come back together.
pub(super) fn pause(patience: &Patience, failures: u32, random: u64) -> Duration {
    let whole = patience.pause.saturating_mul(1 << failures.min(16)).min(patience.pause_max);
    let thousandths = u32::try_from(random % 1000).expect("less than a thousand");
    whole / 2 + (whole / 2).saturating_mul(thousandths) / 1000
}

/// An average in which older requests count less and less.
fn mixed(link: Option<Link>, cost: &Cost) -> Link {
    /// Fewer bytes tell nothing about the rate.
    const BYTES_MIN: u64 = 64 << 10;
    const NEW_PART: f64 = 0.25;
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    let rate = cost.bytes as f64 / cost.body.as_secs_f64().max(1e-6);
    let Some(link) = link else { return Link { latency: cost.first_byte, bytes_per_second: rate } };
    let mix = |old: f64, new: f64| old + (new - old) * NEW_PART;
    let latency = mix(link.latency.as_secs_f64(), cost.first_byte.as_secs_f64());
    let is_telling = cost.bytes >= BYTES_MIN;
    let rate = if is_telling { mix(link.bytes_per_second, rate) } else { link.bytes_per_second };
    Link { latency: Duration::from_secs_f64(latency), bytes_per_second: rate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_up_to_its_limit() {
        let patience = Patience::default();
        assert_eq!(pause(&patience, 0, 0), Duration::from_millis(250));
        assert_eq!(pause(&patience, 0, 1000), Duration::from_millis(250));
        assert_eq!(pause(&patience, 3, 500), Duration::from_secs(3));
        for failures in [6, 7, 100, u32::MAX] {
            let longest = pause(&patience, failures, 999);
            assert!(longest <= patience.pause_max && longest > patience.pause_max / 2, "{failures}");
        }
    }
}
