// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Power cuts on real file systems: records every block write and flush of a workload, makes the disks that a power cut
//! could have left, mounts each and examines it. `docs/design/power-cuts.md` says what that proves.
//!
//! ```text
//!  mkfs ─► disk (FUSE, loop) ─► workload ─► recording ─► cut ─► image ─► mount ─► check
//! ```
//!
//! Needs root, FUSE and loop devices. Runs in a mount namespace of its own, so nothing stays mounted however it ends.

mod args;
mod cut;
mod disk;
mod image;
mod medium;
mod random;
mod recording;
mod run;
mod workload;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use args::Args;
use run::{Failure, Neighbours, Scratch, States};
use workload::Workload;

/// What can go wrong with the harness itself: a sentence for the person who ran it.
type Result<T> = std::result::Result<T, String>;

/// Failing states that are shown of a workload.
const SHOWN_MAX: usize = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((command, rest)) if command == "run" => run_all(rest),
        Some((command, rest)) if command == "examine" => examine(rest),
        _ => start(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Looks at the arguments and goes on as a process with mounts of its own.
fn start(words: &[String]) -> Result<()> {
    let args = Args::parse(words)?;
    if args.help {
        println!("{}", args::USAGE);
        return Ok(());
    }
    if args.list {
        workload::ALL.iter().for_each(|workload| println!("{}", workload.name()));
        return Ok(());
    }
    Err(format!("cannot start again: {}", unshared()?.arg("run").args(words).exec()))
}

/// This program, to be run with mounts of its own.
fn unshared() -> Result<Command> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(program);
    // What a check says is enough; where it stands is part of it.
    command.env("RUST_BACKTRACE", "0");
    Ok(command)
}

/// Where recordings are made and, when a state of them fails, kept: beside the program's build.
fn home() -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    Ok(program.parent().unwrap_or(Path::new("/")).join("crash"))
}

/// `examine DIR FS WORKLOAD LOSS NEIGHBOURS SEED FROM TO JOB JOBS`
fn examine(words: &[String]) -> Result<()> {
    let [dir, medium, workload, loss, neighbours, numbers @ ..] = words else { return Err(args::USAGE.to_owned()) };
    let numbers: Vec<u64> = numbers.iter().map(|text| args::number(text)).collect::<Result<_>>()?;
    let [seed, from, to, job, jobs] = numbers[..] else { return Err(args::USAGE.to_owned()) };
    let neighbours = args::neighbours(neighbours)?;
    let states = States { seed, loss: args::loss(loss)?, from, to, neighbours };
    let scratch = Scratch::new(Path::new(dir))?;
    run::examine(&scratch, args::medium(medium)?, args::workload(workload)?, states, (job, jobs))
}

fn run_all(words: &[String]) -> Result<()> {
    let args = Args::parse(words)?;
    let seed = args.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::from(now.subsec_nanos())
    });
    let scratch = home()?.join("scratch");
    std::fs::create_dir_all(&scratch).map_err(|error| format!("cannot make {}: {error}", scratch.display()))?;
    medium::run(Command::new("mount").args(["-t", "tmpfs", "evenkeel-crash"]).arg(&scratch))?;
    let chosen = args.chosen();
    let weights: u64 = chosen.iter().map(|workload| workload.weight()).sum();
    println!("file system {}, seed {seed}", args.medium.name());
    let mut wrong = Vec::new();
    for workload in chosen {
        let states = (args.states * workload.weight()).div_ceil(weights);
        let one = Campaign { args: &args, seed, dir: scratch.join(workload.name()), workload };
        if let Err(message) = one.run(states) {
            println!("{message}");
            wrong.push(workload.name());
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("not as it has to be: {}", wrong.join(", "))) }
}

/// One workload: recorded with and without neighbours, each recording examined in many states.
struct Campaign<'a> {
    args: &'a Args,
    seed: u64,
    dir: PathBuf,
    workload: &'static dyn Workload,
}

impl Campaign<'_> {
    fn run(&self, states: u64) -> Result<()> {
        let (from, to) = self.args.state.map_or((0, states), |state| (state, state + 1));
        let mut failures = Vec::new();
        for neighbours in Neighbours::ALL {
            let states = States { seed: self.seed, loss: self.args.loss, from, to, neighbours };
            if states.numbers().next().is_some() {
                failures.extend(self.examine(states)?);
            }
        }
        self.judge(&failures)
    }

    /// Where a recording is kept of which a state failed.
    fn kept(&self, neighbours: Neighbours) -> Result<PathBuf> {
        let (name, medium) = (self.workload.name(), self.args.medium.name());
        Ok(home()?.join(format!("{name}-{medium}-{}-{}", neighbours.name(), self.seed)))
    }

    fn examine(&self, states: States) -> Result<Vec<Failure>> {
        let (medium, neighbours) = (self.args.medium, states.neighbours);
        let (dir, kept) = (self.dir.join(neighbours.name()), self.kept(neighbours)?);
        let scratch = Scratch::new(&dir)?;
        let recorded = if self.args.state.is_some() && kept.is_dir() {
            run::copy(&kept, &dir)?;
            "kept recording".to_owned()
        } else {
            let recording = run::record(&scratch, medium, self.workload, neighbours)?;
            format!("{} requests", recording.requests.len())
        };
        let count = states.numbers().count() as u64;
        let processors = std::thread::available_parallelism().map_or(1, usize::from).min(medium.jobs_max());
        let jobs = self.args.jobs.unwrap_or(processors as u64).min(medium.jobs_max() as u64).min(count);
        let start = Instant::now();
        let failures = run::examine_all(&dir, medium, self.workload, states, jobs)?;
        println!(
            "{:24} {:5} {recorded:>15}  {count:5} states  {:4} failed  {:6.1} ms a state",
            self.workload.name(),
            neighbours.name(),
            failures.len(),
            start.elapsed().as_secs_f64() * 1000.0 / count as f64
        );
        if !failures.is_empty() && !self.workload.is_broken() && self.args.state.is_none() {
            run::copy(&dir, &kept)?;
        }
        Ok(failures)
    }

    fn judge(&self, failures: &[Failure]) -> Result<()> {
        if self.workload.is_broken() {
            return match failures.is_empty() {
                false => Ok(()),
                true => Err("this protocol is wrong, and nothing was found".to_owned()),
            };
        }
        let Some(first) = failures.first() else { return Ok(()) };
        for Failure { state, message } in failures.iter().take(SHOWN_MAX) {
            println!("state {state}: {message}");
        }
        Err(format!(
            "again: cargo xtask crash --fs {} --workload {} --seed {} --state {}",
            self.args.medium.name(),
            self.workload.name(),
            self.seed,
            first.state
        ))
    }
}
