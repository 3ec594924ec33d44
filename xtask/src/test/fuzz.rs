// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fuzz targets, each for a number of seconds from its committed seeds. Needs a nightly toolchain and cargo-fuzz.

use super::Outcome;
use crate::shell::{Cmd, workspace};
use crate::{Result, host};

/// Errors are fine; a panic, a hang or memory over this is a bug.
const MEMORY_LIMIT_MB: u64 = 1024;

/// The group of `cargo xtask test`: left out where the tools are missing, unless CI may install them.
pub fn group(seconds: u64) -> Outcome {
    match tools() {
        Err(reason) => Outcome::LeftOut(reason),
        Ok(()) => run(seconds).map(|targets| format!("{targets} targets, {seconds} s each")).into(),
    }
}

/// Runs every target for `seconds`, and returns how many there are.
///
/// # Errors
/// The first target that fails; the input that broke it is in `fuzz/artifacts`.
pub fn run(seconds: u64) -> Result<usize> {
    tools()?;
    let list = Cmd::cargo_of("nightly").args(["fuzz", "list"]).read()?;
    let targets: Vec<&str> = list.split_whitespace().collect();
    if targets.is_empty() {
        return Err("there are no fuzz targets".to_owned());
    }
    // All of them before any runs: a target that does not compile is told in minutes.
    Cmd::cargo_of("nightly").args(["fuzz", "build"]).run()?;
    for target in &targets {
        // The first folder collects what is found, the second holds the committed seeds.
        let corpus = workspace().join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus).map_err(|error| format!("cannot make {}: {error}", corpus.display()))?;
        let seeds = workspace().join("fuzz/seeds").join(target);
        Cmd::cargo_of("nightly")
            .args(["fuzz", "run", target])
            .args([&corpus, &seeds].into_iter().filter(|dir| dir.is_dir()))
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MB}"))
            .args(["-timeout=10", "-print_final_stats=1", "-verbosity=0"])
            .run()
            .map_err(|error| format!("{target}: {error}"))?;
    }
    Ok(targets.len())
}

/// Checks for the tools, installing them in CI only: a toolchain and a long build are not to be sprung on a person.
fn tools() -> Result<()> {
    if !host::has_nightly() {
        if !host::in_ci() {
            return Err("no nightly toolchain (rustup toolchain install nightly)".to_owned());
        }
        Cmd::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]).run()?;
    }
    if Cmd::cargo().args(["fuzz", "--version"]).read().is_err() {
        if !host::in_ci() {
            return Err("no cargo-fuzz (cargo install cargo-fuzz --locked)".to_owned());
        }
        Cmd::cargo().args(["install", "cargo-fuzz", "--locked"]).run()?;
    }
    Ok(())
}
