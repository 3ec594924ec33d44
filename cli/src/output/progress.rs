// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a long operation goes, on stderr: bars on a terminal, plain lines elsewhere, JSON Lines on request.
//!
//! A thread samples the library's counters; the operation itself never waits for a terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use evenkeel_store::Progress;
use evenkeel_store::progress::{Foreseen, ProgressSample};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use super::{Output, json, text};
use crate::error::Result;
use crate::interrupt;

/// Nothing is shown for operations shorter than this.
const PATIENCE: Duration = Duration::from_millis(800);
/// Between two readings for a bar.
const BAR_STEP: Duration = Duration::from_millis(100);
/// Between two plain lines.
const LINE_STEP: Duration = Duration::from_secs(2);
/// Between two JSON lines.
const JSON_STEP: Duration = Duration::from_millis(500);

/// What `--progress` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressWhen {
    /// Bars on a terminal; elsewhere plain lines, or nothing with --json; nothing with -q.
    Auto,
    /// A plain line every two seconds.
    Plain,
    /// JSON Lines (schema evenkeel/progress/1).
    Json,
    /// Nothing.
    None,
}

impl ProgressWhen {
    /// What this means for the stderr that we have. Whoever asked for JSON gets no lines of text by themselves.
    pub fn mode(self, quiet: bool, json: bool) -> Mode {
        match self {
            ProgressWhen::Auto if quiet => Mode::None,
            ProgressWhen::Auto if io::stderr().is_terminal() => Mode::Bars,
            ProgressWhen::Auto if json => Mode::None,
            ProgressWhen::Auto | ProgressWhen::Plain => Mode::Plain,
            ProgressWhen::Json => Mode::Json,
            ProgressWhen::None => Mode::None,
        }
    }
}

/// How progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bars that are redrawn.
    Bars,
    /// Lines of text.
    Plain,
    /// Lines of JSON.
    Json,
    /// Not at all.
    None,
}

/// Runs `operation`, tells how it goes, and lets Ctrl-C cancel it.
pub fn run<T>(out: &Output, operation: impl FnOnce(&Progress) -> evenkeel_store::Result<T>) -> Result<T> {
    let progress = Arc::new(Progress::default());
    interrupt::begin_work(&progress);
    let result = std::thread::scope(|scope| {
        let (done, ended) = mpsc::channel::<()>();
        let counters = Arc::clone(&progress);
        let mode = out.progress;
        scope.spawn(move || watch(mode, &counters, &ended));
        let result = operation(&progress);
        drop(done);
        result
    });
    interrupt::end_work();
    Ok(result?)
}

/// Samples until the other end of `ended` is dropped.
fn watch(mode: Mode, progress: &Progress, ended: &mpsc::Receiver<()>) {
    let (mut teller, step): (Box<dyn Teller>, _) = match mode {
        Mode::None => return,
        Mode::Bars => (Box::new(Bar::default()), BAR_STEP),
        Mode::Plain => (Box::new(Lines::default()), LINE_STEP),
        Mode::Json => (Box::new(JsonLines), JSON_STEP),
    };
    let start = Instant::now();
    // A bar measures from the beginning, so that its rate is right once it shows.
    let mut wait = if mode == Mode::Bars { step } else { PATIENCE };
    let mut has_told = false;
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        // For what is over soon, the report does.
        if let Some(foreseen) = progress.foreseen().filter(|_| !has_told && start.elapsed() >= PATIENCE) {
            teller.foretell(&foretold(foreseen));
            has_told = true;
        }
        tell_of_phase(teller.as_mut(), &progress.sample(), start.elapsed());
        wait = step;
    }
    teller.finish(&progress.sample(), start.elapsed());
}

/// Before its first phase an operation has nothing to tell: it waits for a lock or reads the index.
fn tell_of_phase(teller: &mut dyn Teller, sample: &ProgressSample, elapsed: Duration) {
    if !sample.phase.is_empty() {
        teller.tell(sample, elapsed);
    }
}

/// One way to show a sample.
trait Teller {
    fn tell(&mut self, sample: &ProgressSample, elapsed: Duration);
    /// Says what it will cost, which stays to be read.
    fn foretell(&mut self, _text: &str) {}
    fn finish(&mut self, _sample: &ProgressSample, _elapsed: Duration) {}
}

/// `to fetch: 3 requests, 1.20 MiB; 4.00 MiB to write, 5.20 MiB of free space needed`.
fn foretold(foreseen: Foreseen) -> String {
    let Foreseen { requests, bytes, bytes_to_write, disk_needed } = foreseen;
    format!(
        "to fetch: {}, {}; {} to write, {} of free space needed",
        text::counted(requests, "request"),
        text::bytes(bytes),
        text::bytes(bytes_to_write),
        text::bytes(disk_needed)
    )
}

/// What a phase counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Items,
    Unknown,
}

impl Unit {
    fn of(sample: &ProgressSample) -> Unit {
        match (sample.bytes_total, sample.items_total) {
            (1.., _) => Unit::Bytes,
            (0, 1..) => Unit::Items,
            (0, 0) => Unit::Unknown,
        }
    }
}

/// A bar that is redrawn and vanishes at the end.
#[derive(Default)]
struct Bar {
    bar: Option<(ProgressBar, &'static str, Unit)>,
}

impl Bar {
    /// The bar for this phase; a new one when the phase or what it counts changed.
    fn current(&mut self, sample: &ProgressSample) -> ProgressBar {
        let unit = Unit::of(sample);
        if let Some((bar, phase, last_unit)) = &self.bar
            && *phase == sample.phase
            && *last_unit == unit
        {
            return bar.clone();
        }
        if let Some((bar, ..)) = &self.bar {
            bar.finish_and_clear();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style(unit));
        bar.set_prefix(sample.phase);
        self.bar = Some((bar.clone(), sample.phase, unit));
        bar
    }
}

impl Teller for Bar {
    fn tell(&mut self, sample: &ProgressSample, elapsed: Duration) {
        let bar = self.current(sample);
        if elapsed >= PATIENCE && bar.is_hidden() {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        match Unit::of(sample) {
            Unit::Bytes => {
                bar.set_length(sample.bytes_total);
                bar.set_position(sample.bytes_done.min(sample.bytes_total));
            }
            Unit::Items => {
                bar.set_length(sample.items_total);
                bar.set_position(sample.items_done.min(sample.items_total));
            }
            Unit::Unknown => bar.set_position(sample.bytes_done),
        }
        bar.set_message(text::counted(sample.items_done, "item"));
        bar.tick();
    }

    fn foretell(&mut self, text: &str) {
        let say = || drop(writeln!(io::stderr().lock(), "{text}"));
        match &self.bar {
            Some((bar, ..)) => bar.suspend(say),
            None => say(),
        }
    }

    fn finish(&mut self, _sample: &ProgressSample, _elapsed: Duration) {
        if let Some((bar, ..)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// How a bar looks: less than 80 columns, so that neither it nor an echoed `^C` wraps.
fn template(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "{prefix:.bold} {bar:24.green/dim} {percent:>3}%  {done}/{total}  {rate:.dim}  {eta} left",
        Unit::Items => "{prefix:.bold} {bar:24.green/dim} {percent:>3}%  {human_pos}/{human_len} items  {eta} left",
        Unit::Unknown => "{prefix:.bold} {spinner:.green}  {done}  {rate:.dim}  {elapsed}  {msg:.dim}",
    }
}

fn style(unit: Unit) -> ProgressStyle {
    let style = ProgressStyle::with_template(template(unit)).unwrap_or_else(|_| ProgressStyle::default_bar());
    style
        .progress_chars("━╸─")
        .with_key("done", |state: &ProgressState, to: &mut dyn fmt::Write| {
            let _ = write!(to, "{}", text::bytes(state.pos()));
        })
        .with_key("total", |state: &ProgressState, to: &mut dyn fmt::Write| {
            let _ = write!(to, "{}", text::bytes(state.len().unwrap_or(0)));
        })
        .with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is shown only")]
            let rate = state.per_sec() as u64;
            let _ = write!(to, "{}/s", text::bytes(rate));
        })
}

/// A line of text every few seconds.
#[derive(Default)]
struct Lines {
    last: Option<(&'static str, u64, Duration)>,
}

impl Teller for Lines {
    fn tell(&mut self, sample: &ProgressSample, elapsed: Duration) {
        let rate = match self.last {
            Some((phase, bytes, at)) if phase == sample.phase => {
                rate(sample.bytes_done.saturating_sub(bytes), elapsed.saturating_sub(at))
            }
            _ => None,
        };
        self.last = Some((sample.phase, sample.bytes_done, elapsed));
        let _ = writeln!(io::stderr().lock(), "{}", line(sample, rate));
    }

    fn foretell(&mut self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "progress: {text}");
    }
}

/// Bytes a second.
fn rate(bytes: u64, time: Duration) -> Option<u64> {
    let millis = u64::try_from(time.as_millis()).ok()?;
    bytes.saturating_mul(1000).checked_div(millis).filter(|rate| *rate > 0)
}

/// `progress: reading: 1.20 GiB of 2.30 GiB (52%), 12,345 items, 210 MiB/s, 5.4 s left`.
fn line(sample: &ProgressSample, rate: Option<u64>) -> String {
    let mut parts = Vec::new();
    let hundred = sample.bytes_done.min(sample.bytes_total).saturating_mul(100);
    if let Some(percent) = hundred.checked_div(sample.bytes_total) {
        parts.push(format!("{} of {} ({percent}%)", text::bytes(sample.bytes_done), text::bytes(sample.bytes_total)));
    } else if sample.bytes_done > 0 {
        parts.push(text::bytes(sample.bytes_done));
    }
    if sample.items_total > 0 {
        parts.push(format!("{} of {}", text::number(sample.items_done), text::counted(sample.items_total, "item")));
    } else {
        parts.push(text::counted(sample.items_done, "item"));
    }
    if let Some(rate) = rate {
        parts.push(format!("{}/s", text::bytes(rate)));
        let left = sample.bytes_total.saturating_sub(sample.bytes_done);
        if left > 0 {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            parts.push(format!("{} left", text::seconds(left as f64 / rate as f64)));
        }
    }
    format!("progress: {}: {}", sample.phase, parts.join(", "))
}

/// One JSON document a reading.
struct JsonLines;

#[derive(Serialize)]
struct JsonSample {
    phase: &'static str,
    seconds: f64,
    items_done: u64,
    items_total: u64,
    bytes_done: u64,
    bytes_total: u64,
    bytes_stored: u64,
    finished: bool,
}

impl JsonLines {
    fn write(sample: &ProgressSample, elapsed: Duration, finished: bool) {
        let body = JsonSample {
            phase: sample.phase,
            seconds: elapsed.as_secs_f64(),
            items_done: sample.items_done,
            items_total: sample.items_total,
            bytes_done: sample.bytes_done,
            bytes_total: sample.bytes_total,
            bytes_stored: sample.bytes_stored,
            finished,
        };
        if let Ok(text) = serde_json::to_string(&json::Document { schema: "evenkeel/progress/1", body: &body }) {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }
}

impl Teller for JsonLines {
    fn tell(&mut self, sample: &ProgressSample, elapsed: Duration) {
        Self::write(sample, elapsed, false);
    }

    fn finish(&mut self, sample: &ProgressSample, elapsed: Duration) {
        Self::write(sample, elapsed, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_will_cost_is_said_first() {
        let foreseen = Foreseen { requests: 3, bytes: 5 << 20, bytes_to_write: 4 << 20, disk_needed: 9 << 20 };
        let expected = "to fetch: 3 requests, 5.00 MiB; 4.00 MiB to write, 9.00 MiB of free space needed";
        assert_eq!(foretold(foreseen), expected);
    }

    #[test]
    fn a_line_says_what_is_known() {
        let unknown = ProgressSample { phase: "walking", items_done: 12_345, ..Default::default() };
        assert_eq!(line(&unknown, None), "progress: walking: 12,345 items");
        let known = ProgressSample {
            phase: "reading",
            items_done: 10,
            items_total: 20,
            bytes_done: 1 << 20,
            bytes_total: 4 << 20,
            bytes_stored: 0,
        };
        assert_eq!(
            line(&known, Some(1 << 20)),
            "progress: reading: 1.00 MiB of 4.00 MiB (25%), 10 of 20 items, 1.00 MiB/s, 3.00 s left"
        );
    }

    /// `progress: : 0 items` came first.
    #[test]
    fn nothing_is_told_before_the_first_phase() {
        struct Told(Vec<&'static str>);
        impl Teller for Told {
            fn tell(&mut self, sample: &ProgressSample, _elapsed: Duration) {
                self.0.push(sample.phase);
            }
        }
        let mut told = Told(Vec::new());
        for phase in ["", "walking"] {
            tell_of_phase(&mut told, &ProgressSample { phase, ..Default::default() }, Duration::ZERO);
        }
        assert_eq!(told.0, ["walking"]);
    }

    #[test]
    fn every_style_is_valid() {
        for unit in [Unit::Bytes, Unit::Items, Unit::Unknown] {
            assert!(ProgressStyle::with_template(template(unit)).is_ok(), "{unit:?}");
        }
        assert_eq!(rate(10, Duration::ZERO), None);
    }
}
