// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The access log. One thread writes it, so that whoever reads it slowly, or not at all, holds up nobody else.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::record::{Line, LogFormat, Metrics};

/// Lines that may wait to be written; what comes beyond them is counted and lost.
const LINES_MAX: usize = 512;

/// Where lines go.
pub(crate) struct Log {
    format: LogFormat,
    /// `None` once the server ends.
    lines: Mutex<Option<SyncSender<String>>>,
    /// Ends when all is written; nothing is ever sent.
    written: Mutex<Receiver<()>>,
    metrics: Arc<Metrics>,
}

impl Log {
    /// Starts to write.
    pub(crate) fn start(mut out: Box<dyn Write + Send>, format: LogFormat, metrics: &Arc<Metrics>) -> Log {
        let (send, lines) = sync_channel::<String>(LINES_MAX);
        let (done, written) = sync_channel(0);
        let counted = Arc::clone(metrics);
        let write = move || {
            let _done = done;
            for line in lines {
                let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                counted.unlogged.fetch_add(u64::from(written.is_err()), Ordering::Relaxed);
            }
        };
        // Without a thread every line counts as one that could not be written.
        let _ = std::thread::Builder::new().name("access log".into()).spawn(write);
        Log { format, lines: Mutex::new(Some(send)), written: Mutex::new(written), metrics: Arc::clone(metrics) }
    }

    /// Hands a line over; waits for nobody.
    pub(crate) fn line(&self, line: &Line<'_>) {
        let line = line.render(self.format);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = lines.as_ref().is_none_or(|lines| lines.try_send(line).is_err());
        self.metrics.unlogged.fetch_add(u64::from(is_lost), Ordering::Relaxed);
    }

    /// Takes no more lines, and waits until those that there are have been written, but no longer than to `end`.
    pub(crate) fn finish(&self, end: Instant) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}
