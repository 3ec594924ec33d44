// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Running other programs, with the command printed first and a failure that names it.

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, host};

/// The top directory of the workspace.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the workspace").to_owned()
}

/// Where builds go: `CARGO_TARGET_DIR`, else `target/` in the workspace.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// One external command, run in the top directory of the workspace.
#[derive(Clone)]
pub struct Cmd {
    program: String,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    unset: Vec<String>,
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        let program = program.as_ref().to_string_lossy().into_owned();
        Cmd { program, args: Vec::new(), envs: Vec::new(), unset: Vec::new() }
    }

    /// The cargo that runs this program.
    pub fn cargo() -> Cmd {
        Cmd::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// The cargo of another toolchain. The variables by which rustup pins the current one are dropped.
    pub fn cargo_of(toolchain: &str) -> Cmd {
        let mut cmd = Cmd::new("cargo").arg(format!("+{toolchain}"));
        cmd.unset = ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"].map(str::to_owned).to_vec();
        cmd
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.args.push(arg.as_ref().to_string_lossy().into_owned());
        self
    }

    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(self, args: I) -> Cmd {
        args.into_iter().fold(self, Cmd::arg)
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cmd {
        self.envs.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// Puts `wrapper` and its arguments before the command.
    pub fn wrapped_in(mut self, wrapper: &str, args: &[&str]) -> Cmd {
        let program = std::mem::replace(&mut self.program, wrapper.to_owned());
        let own = std::mem::take(&mut self.args);
        self.args = args.iter().map(|arg| (*arg).to_owned()).chain([program]).chain(own).collect();
        self
    }

    /// Stops it after so many minutes, with all that it started: what hangs must not hang us. Nor may it outlive us, who may
    /// be killed; `timeout` hands on the signal that it gets then.
    pub fn at_most(self, minutes: u32) -> Cmd {
        let limited = self.wrapped_in("timeout", &["--kill-after=10s", &format!("{minutes}m")]);
        match host::find("setpriv") {
            Some(_) => limited.wrapped_in("setpriv", &["--pdeathsig", "TERM", "--"]),
            None => limited,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(workspace()).stdin(Stdio::null());
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
    }

    fn failed(&self, how: impl fmt::Display) -> String {
        format!("'{self}' failed: {how}")
    }

    /// Prints the command, runs it with its output going to ours.
    ///
    /// # Errors
    /// It could not be started, or did not exit with 0.
    pub fn run(&self) -> Result<()> {
        eprintln!("$ {self}");
        let status = self.command().status().map_err(|error| self.failed(error))?;
        if status.success() { Ok(()) } else { Err(self.failed(status)) }
    }

    /// Runs in the place of this program, in the directory that this one was started in; returns only an error.
    pub fn replace_this_process(&self) -> String {
        let mut command = self.command();
        if let Ok(dir) = std::env::current_dir() {
            command.current_dir(dir);
        }
        self.failed(command.exec())
    }

    /// Runs silently and returns what it wrote to standard output.
    ///
    /// # Errors
    /// As [`Cmd::run`], with the last line of its standard error.
    pub fn read(&self) -> Result<String> {
        let output = self.command().output().map_err(|error| self.failed(error))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            return Err(self.failed(format_args!("{}: {last}", output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Prints the command and every line of its output, both streams, giving each line to `see` as well.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub fn tee(&self, mut see: impl FnMut(&str)) -> Result<()> {
        eprintln!("$ {self}");
        let (reader, writer) = std::io::pipe().map_err(|error| self.failed(error))?;
        let second = writer.try_clone().map_err(|error| self.failed(error))?;
        let mut command = self.command();
        command.stdout(writer).stderr(second);
        let mut child = command.spawn().map_err(|error| self.failed(error))?;
        // The command holds the write ends; the loop below ends only when nobody does.
        drop(command);
        let mut lines = BufReader::new(reader);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).map_err(|error| self.failed(error))? > 0 {
            let text = String::from_utf8_lossy(&line);
            eprint!("{text}");
            see(text.trim_end());
            line.clear();
        }
        let status = child.wait().map_err(|error| self.failed(error))?;
        if status.success() { Ok(()) } else { Err(self.failed(status)) }
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.envs {
            write!(f, "{name}={} ", quoted(value))?;
        }
        f.write_str(&quoted(&self.program))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

/// `text` as one word of a shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted("a/b.c=1"), "a/b.c=1");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn both_streams_reach_the_observer() {
        let mut seen = Vec::new();
        let sh = Cmd::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]);
        assert!(sh.tee(|line| seen.push(line.to_owned())).is_err());
        assert_eq!(seen, ["out", "err"]);
        assert_eq!(Cmd::new("true").wrapped_in("env", &["A=b"]).to_string(), "env A=b true");
    }

    /// A test that hung went on for hours after the run that it was of had been killed. A thread that ends is as good as a
    /// process here.
    #[test]
    fn what_was_started_does_not_outlive_who_started_it() {
        if host::find("setpriv").is_none() {
            return;
        }
        let starter = std::thread::spawn(|| {
            let mut command = Cmd::new("sh").args(["-c", "echo begins; exec sleep 100"]).at_most(1).command();
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            output.read_line(&mut String::new()).unwrap();
            (child, output)
        });
        let begin = std::time::Instant::now();
        let (mut child, mut output) = starter.join().unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(output.read_line(&mut String::new()).unwrap(), 0, "nobody has it open any more");
        assert!(begin.elapsed().as_secs() < 50);
    }
}
