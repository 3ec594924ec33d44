// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One timed run of one command.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::corpus;
use crate::Result;
use crate::shell::Cmd;

/// A command that is ready to be timed, with everything it needs prepared.
pub struct Timed {
    pub cmd: Cmd,
    /// A tree whose size afterwards is of interest: the store.
    pub stored: Option<PathBuf>,
}

impl Timed {
    pub fn new(cmd: Cmd) -> Timed {
        Timed { cmd, stored: None }
    }

    pub fn storing(cmd: Cmd, stored: PathBuf) -> Timed {
        Timed { cmd, stored: Some(stored) }
    }
}

/// What one run took.
#[derive(Clone)]
pub struct Sample {
    /// Wall clock, from start to the end of the sync.
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// The largest process of the command, not the sum.
    pub peak_kib: u64,
    pub stored_bytes: Option<u64>,
    pub command: String,
}

/// Runs `timed` and syncs the file system of `dir`; what was dirty before is written out first, untimed.
///
/// # Errors
/// The command, or the sync, failed.
pub fn measure(timed: &Timed, dir: &Path) -> Result<Sample> {
    let usage = dir.join("usage");
    let command = timed.cmd.to_string();
    let sync = Cmd::new("sync").arg("--file-system").arg(dir);
    sync.read()?;
    let start = Instant::now();
    wrapped(&timed.cmd, &usage).read()?;
    sync.read()?;
    let seconds = start.elapsed().as_secs_f64();

    let text = std::fs::read_to_string(&usage).map_err(|error| format!("cannot read {}: {error}", usage.display()))?;
    let field = |index: usize| text.split_whitespace().nth(index).and_then(|word| word.parse::<f64>().ok());
    let [Some(user), Some(system)] = [field(0), field(1)] else {
        return Err(format!("time wrote '{}' for {command}", text.trim()));
    };
    let peak_kib = text.split_whitespace().nth(2).and_then(|word| word.parse().ok()).unwrap_or_default();
    let stored_bytes = timed.stored.as_deref().map(|path| corpus::size_of(path).bytes);
    eprintln!("  {seconds:8.3} s  {:6.0} MB  {command}", mb_of_kib(peak_kib));
    Ok(Sample { seconds, cpu_seconds: user + system, peak_kib, stored_bytes, command })
}

/// The command below GNU time, which asks the kernel for the peak memory of what it waited for.
fn wrapped(cmd: &Cmd, usage: &Path) -> Cmd {
    cmd.clone().wrapped_in("/usr/bin/time", &["-q", "-f", "%U %S %M", "-o", &usage.to_string_lossy()])
}

/// Kibibytes as millions of bytes.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn mb_of_kib(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}
