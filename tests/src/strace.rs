// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program run under `strace`: which calls it makes, and what happens when one of them is its last, or fails.
//!
//! `strace` counts the calls of each thread for itself, so the program must be one that does its work with one worker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sample::sample;

/// Calls that change something on a disk, or say that it is there to stay.
pub const WRITING: [&str; 31] = [
    "chmod",
    "close",
    "copy_file_range",
    "fallocate",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchownat",
    "fdatasync",
    "fremovexattr",
    "fsetxattr",
    "fsync",
    "ftruncate",
    "ioctl",
    "linkat",
    "lremovexattr",
    "lsetxattr",
    "mkdir",
    "mkdirat",
    "mknodat",
    "openat",
    "openat2",
    "pwrite64",
    "renameat",
    "renameat2",
    "symlinkat",
    "syncfs",
    "unlinkat",
    "utimensat",
    "write",
];

/// Calls that leave every disk as it is.
const HARMLESS: [&str; 66] = [
    "access",
    "arch_prctl",
    "brk",
    "clock_nanosleep",
    "clone",
    "clone3",
    "connect",
    "dup",
    "execve",
    "exit",
    "exit_group",
    "faccessat2",
    "fadvise64",
    "fcntl",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getrandom",
    "gettid",
    "getuid",
    "lgetxattr",
    "llistxattr",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "newfstatat",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "socket",
    "stat",
    "statfs",
    "statx",
    "sysinfo",
    "tgkill",
    "umask",
    "uname",
];

/// A call by its name, and which one it is of those of its name and thread, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub call: &'static str,
    pub number: usize,
}

/// What came of a run.
#[derive(Debug, Clone, Copy)]
pub struct Disturbed {
    /// The call was made.
    pub reached: bool,
    /// The program says that it succeeded.
    pub succeeded: bool,
}

/// Runs programs under `strace`, one at a time.
#[derive(Debug)]
pub struct Tracer {
    log: PathBuf,
}

impl Tracer {
    /// Keeps its log in `dir`.
    pub fn new(dir: &Path) -> Tracer {
        Tracer { log: dir.join("strace.log") }
    }

    /// Runs a program undisturbed, which must succeed. Gives the calls that write.
    ///
    /// # Panics
    /// When the program makes a call of which nobody has said whether it writes.
    pub fn points(&self, program: &Command) -> Vec<Point> {
        let done = self.run(&["-f", "-qq", "-s", "0"], program);
        assert!(done, "{program:?} fails without being disturbed");
        points_of(&std::fs::read_to_string(&self.log).unwrap())
    }

    /// Runs a program with something happening at one call: `signal=KILL`, `error=EIO`.
    pub fn disturb(&self, program: &Command, point: Point, how: &str) -> Disturbed {
        let Point { call, number } = point;
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{how}:when={number}"));
        let succeeded = self.run(&["-f", "-qq", "-e", &trace, "-e", &inject], program);
        let log = std::fs::read_to_string(&self.log).unwrap();
        Disturbed { reached: log.contains("INJECTED") || log.contains("killed by SIGKILL"), succeeded }
    }

    fn run(&self, options: &[&str], program: &Command) -> bool {
        let mut strace = Command::new("strace");
        strace.args(options).arg("-o").arg(&self.log).arg(program.get_program()).args(program.get_args());
        let status = strace.stderr(Stdio::null()).status();
        status.expect("strace, which this test needs, can be run").success()
    }
}

/// The calls of a log that write, each once for all threads.
fn points_of(log: &str) -> Vec<Point> {
    let (mut counts, mut points) = (BTreeMap::new(), BTreeSet::new());
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') || name.is_empty() {
            // The second half of a call, a signal, an end.
            continue;
        }
        let Some(call) = WRITING.into_iter().find(|known| *known == name) else {
            assert!(HARMLESS.contains(&name), "{name} is in neither list of calls: {line}");
            continue;
        };
        let number = counts.entry((thread, call)).and_modify(|count| *count += 1).or_insert(1);
        if writes(call, arguments) {
            points.insert(Point { call, number: *number });
        }
    }
    points.into_iter().collect()
}

/// Whether a call that can write does: of those that open, say something to a terminal, or ask a file system.
fn writes(call: &str, arguments: &str) -> bool {
    match call {
        "openat" | "openat2" => ["O_CREAT", "O_TRUNC"].iter().any(|flag| arguments.contains(flag)),
        "write" => !["1, ", "2, "].iter().any(|terminal| arguments.starts_with(terminal)),
        "ioctl" => ["FS_IOC_SETFLAGS", "FICLONE"].iter().any(|request| arguments.contains(request)),
        _ => true,
    }
}

/// `many` of the points, or a few more: as many of one call as of another, as far as there are so many.
pub fn some_of_each_call(what: &str, points: &[Point], many: usize) -> Vec<Point> {
    let mut calls: BTreeMap<&str, Vec<Point>> = BTreeMap::new();
    points.iter().for_each(|point| calls.entry(point.call).or_default().push(*point));
    let mut calls: Vec<(&str, Vec<Point>)> = calls.into_iter().collect();
    calls.sort_by_key(|(_, points)| points.len());
    let (mut left, count) = (many, calls.len());
    let of_call = |(at, (call, points)): (usize, (&str, Vec<Point>))| {
        let chosen = sample(&format!("{what}: {call}"), points, left.div_ceil(count - at).max(1));
        left = left.saturating_sub(chosen.len());
        chosen
    };
    calls.into_iter().enumerate().flat_map(of_call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_thread_and_told_apart() {
        let log = "\
            7  openat(AT_FDCWD, \"\", O_RDONLY|O_CLOEXEC) = 3\n\
            7  openat(AT_FDCWD, \"\", O_RDWR|O_CREAT, 0600) = 3\n\
            8  write(3, \"\"..., 10 <unfinished ...>\n\
            7  fsync(3) = 0\n\
            8  <... write resumed>) = 10\n\
            8  fsync(3) = 0\n\
            8  fsync(3) = 0\n\
            7  write(2, \"\"..., 4) = 4\n\
            7  +++ exited with 0 +++\n";
        let expected = [("fsync", 1), ("fsync", 2), ("openat", 2), ("write", 1)];
        assert_eq!(points_of(log), expected.map(|(call, number)| Point { call, number }));
    }

    #[test]
    fn rare_calls_are_taken_and_frequent_ones_share_the_rest() {
        let of = |call, count| (1..=count).map(move |number| Point { call, number });
        let all: Vec<Point> = of("close", 100).chain(of("fsync", 2)).chain(of("write", 30)).collect();
        let chosen = some_of_each_call("a test", &all, 20);
        let count = |call| chosen.iter().filter(|point| point.call == call).count();
        let expected = if crate::sample::takes_all() { (100, 2, 30) } else { (9, 2, 9) };
        assert_eq!((count("close"), count("fsync"), count("write")), expected);
    }

    #[test]
    #[should_panic(expected = "is in neither list")]
    fn a_call_that_nobody_knows_is_named() {
        points_of("7  pwritev2(3, [], 0, 0, 0) = 0\n");
    }
}
