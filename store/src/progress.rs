// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a long operation tells its caller while it runs. The library never prints.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of one running operation, shared between its threads and whoever shows them.
///
/// Every method is cheap enough to be called per chunk. A caller samples the counters from a thread of its own.
#[derive(Debug, Default)]
pub struct Progress {
    phase: std::sync::Mutex<&'static str>,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    items_done: AtomicU64,
    items_total: AtomicU64,
    bytes_stored: AtomicU64,
    cancelled: AtomicBool,
    watcher: Watcher,
    foreseen: OnceLock<Foreseen>,
}

/// What a fetch will cost, told before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreseen {
    /// Requests to servers.
    pub requests: u64,
    /// Bytes that come from there.
    pub bytes: u64,
    /// Bytes that are written for files.
    pub bytes_to_write: u64,
    /// Bytes that must be free.
    pub disk_needed: u64,
}

/// Whom to tell of each new phase.
#[derive(Default)]
struct Watcher(Option<Box<dyn Fn(&'static str) + Send + Sync>>);

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher" } else { "none" })
    }
}

/// One reading of a [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgressSample {
    /// What is being done now, for people: "reading", "writing files", …
    pub phase: &'static str,
    /// Plain bytes handled so far in this phase.
    pub bytes_done: u64,
    /// Plain bytes to handle in this phase, as far as known; 0 when unknown.
    pub bytes_total: u64,
    /// Entries handled so far in this phase.
    pub items_done: u64,
    /// Entries to handle in this phase; 0 when unknown.
    pub items_total: u64,
    /// Bytes written to the store so far.
    pub bytes_stored: u64,
}

impl Progress {
    /// Calls `watcher` with the name of each phase as it begins, in the thread that begins it.
    pub fn watched(watcher: impl Fn(&'static str) + Send + Sync + 'static) -> Progress {
        Progress { watcher: Watcher(Some(Box::new(watcher))), ..Progress::default() }
    }

    /// Starts a new phase with its totals (0 = unknown) and resets the counters of the last one.
    pub fn start(&self, phase: &'static str, items_total: u64, bytes_total: u64) {
        *self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = phase;
        self.items_done.store(0, Ordering::Relaxed);
        self.bytes_done.store(0, Ordering::Relaxed);
        self.items_total.store(items_total, Ordering::Relaxed);
        self.bytes_total.store(bytes_total, Ordering::Relaxed);
        if let Some(watcher) = &self.watcher.0 {
            watcher(phase);
        }
    }

    /// Counts entries and plain bytes as handled.
    pub fn advance(&self, items: u64, bytes: u64) {
        self.items_done.fetch_add(items, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Raises the totals of the current phase, when they become known on the way.
    pub fn expect(&self, items: u64, bytes: u64) {
        self.items_total.fetch_add(items, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes written to the store.
    pub fn stored(&self, bytes: u64) {
        self.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says what is about to be fetched. The first that is said counts.
    pub fn foresee(&self, foreseen: Foreseen) {
        let _ = self.foreseen.set(foreseen);
    }

    /// What is about to be fetched, once that is known.
    pub fn foreseen(&self) -> Option<Foreseen> {
        self.foreseen.get().copied()
    }

    /// Asks the operation to stop at the next safe point; it then fails with [`crate::Error::Interrupted`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`Progress::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Fails if the operation was asked to stop.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub fn check_cancelled(&self) -> Result<(), crate::Error> {
        if self.is_cancelled() { Err(crate::Error::Interrupted) } else { Ok(()) }
    }

    /// Reads all counters.
    pub fn sample(&self) -> ProgressSample {
        ProgressSample {
            phase: *self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            items_done: self.items_done.load(Ordering::Relaxed),
            items_total: self.items_total.load(Ordering::Relaxed),
            bytes_stored: self.bytes_stored.load(Ordering::Relaxed),
        }
    }
}
