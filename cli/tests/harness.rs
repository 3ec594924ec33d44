// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A world of its own for each test: home, state, time and author are fixed, and what differs from run to run is
//! replaced in the output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

/// Time of every file that a test writes: 2024-01-02 03:04:05 UTC.
const FILE_TIME: u64 = 1_704_164_645;

/// A temporary directory in which the program runs.
pub struct World {
    dir: tempfile::TempDir,
    commits: std::cell::Cell<u64>,
}

impl World {
    /// An empty world.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("evenkeel-cli-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        World { dir, commits: std::cell::Cell::new(0) }
    }

    /// A world with a store `st` and a tree `m` of a few files.
    pub fn with_tree() -> Self {
        let world = World::new();
        world.write("m/etc/motd", "hello\n");
        world.write("m/etc/app.conf", "colour = red\n");
        world.write("m/bin/tool", &"#!/bin/sh\necho tool\n".repeat(100));
        world.mode("m/bin/tool", 0o755);
        std::os::unix::fs::symlink("tool", world.path("m/bin/alias")).unwrap();
        world.settle("m");
        assert_eq!(world.output(&["init", "st"]).status.code(), Some(0));
        world
    }

    /// As [`World::with_tree`], with its first snapshot.
    pub fn committed() -> Self {
        let world = World::with_tree();
        world.commit("first");
        world
    }

    /// As [`World::committed`], with a second snapshot: one file changed, one added, one removed.
    pub fn with_history() -> Self {
        let world = World::committed();
        world.write("m/etc/app.conf", "colour = blue and green\n");
        world.write("m/etc/new.conf", "new\n");
        std::fs::remove_file(world.path("m/etc/motd")).unwrap();
        world.settle("m");
        world.commit("second");
        world
    }

    /// Commits `m` as area `os`.
    pub fn commit(&self, message: &str) {
        let output = self.output(&["commit", "--area", "os=m", "-m", message]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A path in the world.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Writes a file and the directories above it.
    pub fn write(&self, relative: impl AsRef<Path>, content: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Reads a file.
    pub fn read(&self, relative: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.path(relative)).unwrap()
    }

    /// Whether something is there.
    pub fn exists(&self, relative: impl AsRef<Path>) -> bool {
        self.path(relative).symlink_metadata().is_ok()
    }

    /// Sets permissions.
    pub fn mode(&self, relative: impl AsRef<Path>, mode: u32) {
        std::fs::set_permissions(self.path(relative), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Gives everything below a directory, and itself, fixed times and directories fixed permissions.
    pub fn settle(&self, relative: impl AsRef<Path>) {
        fn settle(path: &Path) {
            let meta = path.symlink_metadata().unwrap();
            if meta.is_symlink() {
                let status = Command::new("touch").args(["-h", "-d", "@1704164645"]).arg(path).status();
                assert!(status.unwrap().success());
                return;
            }
            if meta.is_dir() {
                for entry in std::fs::read_dir(path).unwrap() {
                    settle(&entry.unwrap().path());
                }
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(FILE_TIME);
            std::fs::File::open(path).unwrap().set_modified(time).unwrap();
        }
        settle(&self.path(relative));
    }

    /// Flips one byte of a file, counted from its end.
    pub fn flip(&self, path: &Path, from_end: usize) {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
        file.write_all(&bytes).unwrap();
    }

    /// All files below a directory, sorted.
    pub fn files(&self, relative: &str) -> Vec<PathBuf> {
        fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { collect(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        collect(&self.path(relative), &mut found);
        found.sort();
        found
    }

    /// The program, ready to run in this world. Each commit is one minute after the one before.
    pub fn command(&self, args: &[&str]) -> Command {
        let minute = self.commits.get();
        if args.contains(&"commit") {
            self.commits.set(minute + 1);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("home/config"))
            .env("XDG_STATE_HOME", self.path("home/state"))
            .env("TZ", "UTC")
            .env("EVENKEEL_STORE", "st")
            .env("EVENKEEL_AUTHOR", "tester@master")
            .env("EVENKEEL_TEST_CLOCK", format!("2026-02-03T04:{minute:02}:00Z"))
            .stdin(Stdio::null());
        if !args.contains(&"--state") {
            command.args(["--state", "state"]);
        }
        command
    }

    /// Runs the program.
    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the program and words what came of it: exit code, stdout, stderr, with what varies replaced.
    pub fn run(&self, args: &[&str]) -> String {
        let mut output = self.output(args);
        if !args.contains(&"--progress") {
            // On a busy machine a phase takes more than the second after which it is told of.
            let stderr = String::from_utf8_lossy(&output.stderr);
            let told = stderr.split_inclusive('\n').filter(|line| !line.starts_with("progress: "));
            output.stderr = told.collect::<String>().into_bytes();
        }
        self.tell(&output)
    }

    /// As [`World::run`], by a user who may not read everything. As root the whole world belongs to nobody from here on.
    pub fn run_unprivileged(&self, args: &[&str]) -> String {
        let mut command = self.command(args);
        if rustix::process::geteuid().is_root() {
            let chown = Command::new("chown").args(["-R", "65534:65534"]).arg(self.path("")).status();
            assert!(chown.unwrap().success());
            command.uid(65534).gid(65534);
        }
        self.tell(&command.output().unwrap())
    }

    /// Words what came of a run.
    pub fn tell(&self, output: &Output) -> String {
        let mut text = format!("exit {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                let _ = write!(text, "--- {name}\n{}", String::from_utf8_lossy(bytes));
            }
        }
        let dir = self.dir.path().to_str().unwrap();
        Normalised::of(&text.replace(dir, "[DIR]"))
    }
}

/// Replaces ids, sizes on disk and durations.
struct Normalised {
    ids: BTreeMap<String, usize>,
    text: String,
}

impl Normalised {
    fn of(text: &str) -> String {
        let mut normalised = Normalised { ids: BTreeMap::new(), text: String::new() };
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let (before, from) = rest.split_at(at);
            normalised.text.push_str(before);
            let len = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
            let (word, after) = from.split_at(len);
            normalised.word(word);
            rest = after;
        }
        normalised.text.push_str(rest);
        durations(&normalised.text)
    }

    /// Ids are numbered in order of appearance; a short one has the number of the full one it begins.
    fn word(&mut self, word: &str) {
        let is_hex = word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        // A short id may be all digits by chance; no other number here has so many.
        let is_number = word.len() == 16 && word.bytes().all(|b| b.is_ascii_digit());
        if !is_hex || !matches!(word.len(), 12 | 16 | 32 | 64) || is_number {
            self.text.push_str(word);
            return;
        }
        let key = word[..12].to_owned();
        let next = self.ids.len() + 1;
        let number = *self.ids.entry(key).or_insert(next);
        let _ = write!(self.text, "[id{number}{}]", if word.len() < 32 { " short" } else { "" });
    }
}

/// `0.04 s` and what follows `stored in`, `written` and `"seconds":` depend on the machine.
fn durations(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        if let Some(at) = line.find("stored in ") {
            line.truncate(at + "stored in ".len());
            line.push_str("[size]");
        }
        for end in [" written", " to write"] {
            if let Some(at) = line.find(end)
                && let Some(start) = line[..at].rfind("; ")
            {
                line.replace_range(start + 2..at, "[size]");
            }
        }
        while let Some(at) = line.match_indices(" s").map(|(at, _)| at).find(|at| is_duration(&line, *at)) {
            let start = line[..at].rfind(|c: char| !c.is_ascii_digit() && c != '.').map_or(0, |at| at + 1);
            line.replace_range(start..at + 2, "[time]");
        }
        for key in ["\"seconds\":", "\"stored_bytes\":", "\"bytes_written\":"] {
            if let Some(at) = line.find(key) {
                let start = at + key.len();
                let len = line[start..].find([',', '}']).unwrap();
                line.replace_range(start..start + len, "0");
            }
        }
        // Not every file system tells who holds a lock.
        if let Some((before, after)) = line.split_once(" (pid ")
            && let Some((_, after)) = after.split_once(')')
        {
            line = format!("{before}{after}");
        }
        let mut from = 0;
        while let Some(at) = line[from..].find(WHO).map(|at| from + at + WHO.len()) {
            let end = at + closing(&line[at..]);
            line.replace_range(at..end, "{}");
            from = at;
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// Who changed something is another on each machine, at another time.
const WHO: &str = "\"changed_by\":";

/// Length of the object that a text begins with; no string in it holds a brace.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    let end = text.bytes().position(|byte| {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        depth == 0
    });
    end.map_or(0, |end| end + 1)
}

fn is_duration(line: &str, at: usize) -> bool {
    let ends = line[at + 2..].chars().next().is_none_or(|c| !c.is_alphanumeric());
    let digits = line[..at].chars().rev().take_while(|c| c.is_ascii_digit() || *c == '.');
    ends && digits.filter(|c| *c == '.').count() == 1
}
