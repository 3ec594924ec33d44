// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A bound on how fast bytes come, for all connections together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::options::Timing;

/// What was left unused for so long may be used at once.
const BURST: Duration = Duration::from_millis(250);

/// Bytes are paid for in time.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: u64,
    /// When everything that was read is paid for.
    paid: Mutex<Duration>,
}

impl Rate {
    /// At least one byte a second.
    pub(super) fn new(bytes_per_second: u64) -> Rate {
        Rate { bytes_per_second: bytes_per_second.max(1), paid: Mutex::default() }
    }

    /// Most bytes to read at once, so that nobody waits long for others.
    pub(super) fn read_bytes(&self, most: usize) -> usize {
        usize::try_from(self.bytes_per_second / 16).unwrap_or(most).clamp(most.min(512), most)
    }

    /// Waits until `bytes` that came are paid for, and gives for how long.
    pub(super) fn pay(&self, bytes: usize, timing: &dyn Timing) -> Duration {
        let now = timing.now();
        let wait = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let nanos = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000)
                / u128::from(self.bytes_per_second);
            let price = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            *paid = (*paid).max(now.saturating_sub(BURST)).saturating_add(price);
            paid.saturating_sub(now)
        };
        if !wait.is_zero() {
            timing.sleep(wait);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Clock(Mutex<Duration>);

    impl Timing for Clock {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }

        fn random(&self) -> u64 {
            0
        }
    }

    #[test]
    fn bytes_come_no_faster_than_they_may() {
        let (rate, clock) = (Rate::new(1000), Clock::default());
        for _ in 0..100 {
            rate.pay(100, &clock);
        }
        assert_eq!(clock.now(), Duration::from_secs(10));
        // Idle time is not saved up, but for a moment.
        clock.sleep(Duration::from_secs(100));
        rate.pay(250, &clock);
        assert_eq!(clock.now(), Duration::from_secs(110));
        rate.pay(1000, &clock);
        assert_eq!(clock.now(), Duration::from_secs(111));
        assert_eq!((rate.read_bytes(64 << 10), Rate::new(1 << 30).read_bytes(64 << 10)), (512, 64 << 10));
    }
}
