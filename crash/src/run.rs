// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Recording a workload, and examining crash states of the recording, in processes with mounts of their own.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::cut::{Cut, Flushed, Loss};
use crate::disk::{Handle, Mounted};
use crate::medium::{Medium, run};
use crate::random::Random;
use crate::recording::{Event, Recording};
use crate::workload::{Crash, Marks, Place, Workload};
use crate::{Result, unshared};

/// A directory with everything that a recording consists of.
#[derive(Debug, Clone)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directories that are missing.
    ///
    /// # Errors
    /// One cannot be made.
    pub fn new(dir: &Path) -> Result<Scratch> {
        let scratch = Scratch(dir.to_owned());
        for dir in [scratch.inside(), scratch.outside(), scratch.fuse()] {
            std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        Ok(scratch)
    }

    /// Where the file system under test is mounted.
    fn inside(&self) -> PathBuf {
        self.0.join("fs")
    }

    fn outside(&self) -> PathBuf {
        self.0.join("outside")
    }

    fn fuse(&self) -> PathBuf {
        self.0.join("fuse")
    }

    fn recording(&self) -> PathBuf {
        self.0.join("recording")
    }
}

impl Marks for Handle {
    fn begin(&self) {
        self.mark(Event::Begun);
    }

    fn acknowledge(&self) {
        self.mark(Event::Acknowledged);
    }
}

/// Whether other programs use the file system as well. Their syncs put things on the disk that the workload did not ask
/// for yet, in an order of their own; without them much happens to be written together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    Quiet,
    Busy,
}

impl Neighbours {
    pub const ALL: [Neighbours; 2] = [Neighbours::Quiet, Neighbours::Busy];

    pub fn name(self) -> &'static str {
        match self {
            Neighbours::Quiet => "quiet",
            Neighbours::Busy => "busy",
        }
    }

    /// States take turns, so that a state's number says which recording it is of.
    pub fn of_state(state: u64) -> Neighbours {
        if state.is_multiple_of(2) { Neighbours::Quiet } else { Neighbours::Busy }
    }
}

/// A program beside the workload that syncs a file of its own again and again, until it is dropped.
struct Neighbour(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Neighbour {
    const PAUSE: Duration = Duration::from_micros(500);

    fn start(inside: &Path) -> Neighbour {
        let (file, stop) = (inside.join("neighbour"), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let work = move || {
            let file = std::fs::File::create(file).unwrap();
            for number in 0u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                file.write_all_at(&number.to_le_bytes(), 0).and_then(|()| file.sync_all()).unwrap();
                std::thread::sleep(Self::PAUSE);
            }
        };
        Neighbour(stop, Some(std::thread::spawn(work)))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.1.take()
            && thread.join().is_err()
        {
            eprintln!("warning: the neighbour came to an early end");
        }
    }
}

/// Runs a workload on a fresh file system on the recording disk.
///
/// # Errors
/// Something could not be made or mounted.
///
/// # Panics
/// The workload itself fails.
pub fn record(scratch: &Scratch, medium: Medium, workload: &dyn Workload, neighbours: Neighbours) -> Result<Recording> {
    let (inside, outside) = (scratch.inside(), scratch.outside());
    let place = Place { inside: &inside, outside: &outside };
    let image = medium.make(&scratch.0.join("new.img"))?;
    let disk =
        Mounted::serve(image, &scratch.fuse()).map_err(|error| format!("cannot mount a FUSE file system: {error}"))?;
    let mount = medium.mount(disk.file(), &inside)?;
    workload.prepare(place);
    sync(&inside)?;
    disk.handle.start();
    let neighbour = (neighbours == Neighbours::Busy).then(|| Neighbour::start(&inside));
    workload.run(place, &disk.handle);
    drop(neighbour);
    // What nobody waited for goes out as well: the last promises are tested against it in part and in full.
    sync(&inside)?;
    let recording = disk.handle.stop();
    drop(mount);
    recording.save(&scratch.recording()).map_err(|error| format!("cannot save the recording: {error}"))?;
    Ok(recording)
}

fn sync(root: &Path) -> Result<()> {
    let dir = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
    dir.and_then(rustix::fs::syncfs).map_err(|error| format!("cannot sync {}: {error}", root.display()))
}

/// Which states of a run to examine.
#[derive(Debug, Clone, Copy)]
pub struct States {
    pub seed: u64,
    pub loss: Loss,
    /// The first, and the one behind the last.
    pub from: u64,
    pub to: u64,
    /// Of these only those with such neighbours.
    pub neighbours: Neighbours,
}

impl States {
    pub fn numbers(self) -> impl Iterator<Item = u64> {
        (self.from..self.to).filter(move |state| Neighbours::of_state(*state) == self.neighbours)
    }
}

/// A state in which something does not hold.
#[derive(Debug)]
pub struct Failure {
    pub state: u64,
    pub message: String,
}

/// Examines every `jobs`-th of the states, beginning with number `job` of them, and prints `ok STATE` or
/// `failed STATE MESSAGE` for each. For a process with mounts of its own.
///
/// # Errors
/// The harness itself cannot go on.
pub fn examine(
    scratch: &Scratch,
    medium: Medium,
    workload: &dyn Workload,
    states: States,
    (job, jobs): (u64, u64),
) -> Result<()> {
    let recording = Recording::load(&scratch.recording()).map_err(|error| format!("cannot read: {error}"))?;
    let file = scratch.0.join(format!("state-{job}.img"));
    let (inside, outside) = (scratch.inside(), scratch.outside());
    let place = Place { inside: &inside, outside: &outside };
    let checker = {
        let _mount = mounted(&recording.base, &file, medium, &inside)?;
        workload.checker(place)
    };
    let mut cuts: Vec<Cut> = states
        .numbers()
        .filter(|state| state / 2 % jobs == job)
        .map(|state| Cut::of_state(&recording, states.seed, state))
        .collect();
    cuts.sort_by_key(|cut| cut.flushed);
    let mut flushed = Flushed::new(&recording);
    quiet_panics();
    for cut in cuts {
        let mut disk = flushed.up_to(cut.flushed);
        cut.apply(&recording, states.loss, &mut disk);
        let crash = Crash {
            acknowledged: recording.acknowledged(cut.requests),
            in_progress: recording.begun(cut.requests) > recording.acknowledged(cut.requests),
            random: Random::of_state(!states.seed, cut.state),
        };
        let context = format!("cut at {} of {}, {crash:?}", cut.requests, recording.requests.len());
        let mount = mounted(&disk, &file, medium, &inside)?;
        let done = catch_unwind(AssertUnwindSafe(|| checker.check(place, crash)));
        drop(mount);
        match done {
            Ok(()) => println!("ok {}", cut.state),
            Err(_) => {
                let message = LAST_PANIC.with_borrow_mut(std::mem::take);
                println!("failed {} {:?}", cut.state, format!("{message} ({context})"));
            }
        }
    }
    let _ = std::fs::remove_file(file);
    Ok(())
}

fn mounted(disk: &crate::image::Image, file: &Path, medium: Medium, at: &Path) -> Result<crate::medium::Mount> {
    // A new file each time: the loop device of the last state may take a moment to let go of the old one.
    let _ = std::fs::remove_file(file);
    disk.save(file).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    medium.mount(file, at)
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a panic says for the report instead of printing it.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        LAST_PANIC.with_borrow_mut(|message| *message = panic.to_string());
    }));
}

/// Examines states in `jobs` processes.
///
/// # Errors
/// One of them did not come to its end.
pub fn examine_all(
    dir: &Path,
    medium: Medium,
    workload: &dyn Workload,
    states: States,
    jobs: u64,
) -> Result<Vec<Failure>> {
    let children: Vec<Child> = (0..jobs)
        .map(|job| {
            let mut command = unshared()?;
            let numbers = [states.seed, states.from, states.to, job, jobs].map(|number| number.to_string());
            let loss = if states.loss == Loss::Prefix { "prefix" } else { "reordered" };
            command
                .arg("examine")
                .arg(dir)
                .args([medium.name(), workload.name(), loss, states.neighbours.name()])
                .args(numbers);
            command.stdout(Stdio::piped()).spawn().map_err(|error| format!("cannot start a process: {error}"))
        })
        .collect::<Result<_>>()?;
    let mut failures = Vec::new();
    let mut seen = 0;
    // The pipe holds far more than the lines of one run of the slower ones.
    for mut child in children {
        let output = child.stdout.take().expect("it was asked for");
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| format!("cannot read: {error}"))?;
            seen += 1;
            if let Some(failure) = line.strip_prefix("failed ").and_then(|rest| rest.split_once(' ')) {
                let (state, message) = failure;
                let state = state.parse().map_err(|_| format!("not understood: {line}"))?;
                failures.push(Failure { state, message: unquoted(message) });
            }
        }
        let status = child.wait().map_err(|error| format!("cannot wait: {error}"))?;
        if !status.success() {
            return Err(format!("{}: a process that examines states ended with {status}", workload.name()));
        }
    }
    let wanted = states.numbers().count();
    if seen != wanted {
        return Err(format!("{}: {seen} of {wanted} states were examined", workload.name()));
    }
    failures.sort_by_key(|failure| failure.state);
    Ok(failures)
}

/// A message as it was before it was put on one line.
fn unquoted(message: &str) -> String {
    message.trim_matches('"').replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\")
}

/// Keeps a recording for later, or takes one that was kept.
///
/// # Errors
/// It cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).map_err(|error| format!("cannot make {}: {error}", to.display()))?;
    let parts = ["outside", "recording"].map(|part| from.join(part));
    run(Command::new("cp").arg("-a").args(parts).arg(to))
}
