// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the demo's commands, prints each before it runs, and keeps the time.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use evenkeel_store::fsio;

use super::source;
use crate::error::{CommandError, Kind, Result};
use crate::output::Output;
use crate::output::text::{self, bytes};

/// Which server a command runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Commits.
    Master,
    /// Checks out.
    Remote,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Remote => "remote",
        }
    }
}

/// A command that ran.
#[derive(Debug)]
pub struct Step {
    /// For the summary.
    pub name: String,
    /// Whether the summary tells of it: this program's commands and the first copy.
    pub told: bool,
    /// Wall time.
    pub seconds: f64,
    /// What the summary says about its bytes.
    pub data: String,
}

/// The demo as it runs.
pub struct Script<'o> {
    out: &'o Output,
    dir: PathBuf,
    program: PathBuf,
    steps: Vec<Step>,
    headings: usize,
    stored: u64,
}

impl<'o> Script<'o> {
    /// A script that runs in `dir`.
    ///
    /// # Errors
    /// When this program does not know where it is.
    pub fn new(out: &'o Output, dir: &Path) -> Result<Self> {
        let program = std::env::current_exe()
            .map_err(|e| CommandError::caused_by(Kind::Failed, "cannot find this program's own file", e))?;
        Ok(Script { out, dir: dir.to_path_buf(), program, steps: Vec::new(), headings: 0, stored: 0 })
    }

    /// Where everything happens.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it is told.
    pub fn out(&self) -> &'o Output {
        self.out
    }

    /// What ran so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Begins a chapter.
    pub fn heading(&mut self, text: &str) -> Result<()> {
        self.headings += 1;
        let gap = if self.headings > 1 { "\n" } else { "" };
        self.out.line(format_args!("{gap}{}", self.out.paint.heading(format_args!("{}. {text}", self.headings))))
    }

    /// Tells what comes next.
    pub fn say(&self, text: &str) -> Result<()> {
        self.out.line(format_args!("\n{text}"))
    }

    /// Says in the summary what the last step was about.
    pub fn note_data(&mut self, data: &str) {
        if let Some(step) = self.steps.last_mut() {
            data.clone_into(&mut step.data);
        }
        self.tell_of_last();
    }

    fn tell_of_last(&mut self) {
        if let Some(step) = self.steps.last_mut() {
            step.told = true;
        }
    }

    /// Says in the summary by how much the last step made the store grow.
    pub fn note_store(&mut self) -> Result<()> {
        let now = source::measure(&self.dir.join("store"))?.bytes;
        let grown = now.saturating_sub(self.stored);
        self.stored = now;
        self.note_data(&format!("store grew by {} to {}", bytes(grown), bytes(now)));
        Ok(())
    }

    /// Writes and shows the configuration of a server.
    pub fn configure(&self, role: Role) -> Result<()> {
        let name = role.name();
        let config = format!("store = \"store\"\nstate = \"{name}-state\"\n\n[area.os]\nroot = \"{name}\"\n");
        fsio::publish_file(&self.dir.join(format!("{name}.toml")), config.as_bytes())?;
        self.prompt(&format!("cat {name}.toml"))?;
        self.out.bytes(config.as_bytes())
    }

    /// Runs this program on a server; it must exit with `expected`.
    pub fn evenkeel(&mut self, role: Role, name: &str, arguments: &str, expected: i32) -> Result<()> {
        let line = format!("evenkeel --config {}.toml {arguments}", role.name());
        // The shell splits the line that is printed, so the two cannot differ.
        let script = format!("evenkeel() {{ \"$EVENKEEL_DEMO_PROGRAM\" \"$@\"; }}\n{line}");
        self.run(name, &line, &script, &[expected])?;
        self.tell_of_last();
        Ok(())
    }

    /// Runs a line of shell. `tolerant`: a command that could not copy everything is good enough.
    pub fn shell(&mut self, name: &str, line: &str, tolerant: bool) -> Result<()> {
        self.run(name, line, line, if tolerant { &[0, 1] } else { &[0] })
    }

    fn prompt(&self, line: &str) -> Result<()> {
        for (at, part) in line.lines().enumerate() {
            let sign = if at == 0 { "$" } else { ">" };
            let gap = if at == 0 { "\n" } else { "" };
            self.out.line(format_args!("{gap}{} {}", self.out.paint.good(sign), self.out.paint.bold(part)))?;
        }
        self.out.flush()
    }

    fn run(&mut self, name: &str, line: &str, script: &str, expected: &[i32]) -> Result<()> {
        self.prompt(line)?;
        let started = Instant::now();
        let status = Command::new("sh")
            .arg("-c")
            .arg(script)
            .current_dir(&self.dir)
            .env("EVENKEEL_DEMO_PROGRAM", &self.program)
            .env_remove("EVENKEEL_STORE")
            .stdin(Stdio::null())
            .status()
            .map_err(|e| CommandError::caused_by(Kind::Failed, "cannot run sh", e))?;
        let seconds = started.elapsed().as_secs_f64();
        self.steps.push(Step { name: name.to_owned(), told: false, seconds, data: String::new() });
        match status.code() {
            Some(code) if expected.contains(&code) => Ok(()),
            Some(130) | None => Err(CommandError::new(Kind::Interrupted, "interrupted")),
            Some(code) => {
                let message = format!("the demo's step `{name}` exited with {code}, not {}", expected[0]);
                Err(CommandError::new(Kind::Failed, message)
                    .hint("everything it made is kept; please report this with the output above"))
            }
        }
    }
}

/// A path as one word of shell.
pub fn quote(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(byte);
    match std::str::from_utf8(path.as_os_str().as_bytes()) {
        Ok(text) if text.as_bytes().iter().all(plain) && !text.starts_with('-') => text.to_owned(),
        Ok(text) => format!("'{}'", text.replace('\'', "'\\''")),
        Err(_) => text::path(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_shell() {
        for (path, expected) in [("/usr/bin", "/usr/bin"), ("a b", "'a b'"), ("it's", "'it'\\''s'")] {
            assert_eq!(quote(Path::new(path)), expected);
        }
    }
}
