// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything that is printed: data on stdout, everything else on stderr.
//!
//! [`text`] words things for people, [`json`] for programs, [`progress`] tells how a long operation goes.

pub mod entry;
pub mod in_use;
pub mod json;
pub mod progress;
pub mod text;
pub mod who;

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::aftermath::State;
use crate::args::Globals;
use crate::error::{CommandError, Result};
use crate::interrupt;
use text::Paint;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorWhen {
    /// Whether to colour what goes to `stream`.
    fn on(self, stream: &impl anstream::stream::RawStream) -> bool {
        match self {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never,
        }
    }
}

/// Where a command writes, and in which form.
pub struct Output {
    /// Whether the result is a JSON document instead of text.
    pub json: bool,
    /// How much to tell beyond the result.
    pub verbose: u8,
    /// Whether to say nothing but the result and what went wrong.
    pub quiet: bool,
    /// How progress is told.
    pub progress: progress::Mode,
    /// Colours of stdout.
    pub paint: Paint,
    /// Colours of stderr.
    pub paint_err: Paint,
    stdout: RefCell<BufWriter<Stdout>>,
}

impl Output {
    /// What the global options ask for.
    pub fn new(globals: &Globals) -> Self {
        Output {
            json: globals.json,
            verbose: globals.verbose,
            quiet: globals.quiet,
            progress: globals.progress.mode(globals.quiet, globals.json),
            paint: Paint::new(!globals.json && globals.color.on(&io::stdout())),
            paint_err: Paint::new(globals.color.on(&io::stderr())),
            stdout: RefCell::new(BufWriter::with_capacity(64 << 10, io::stdout())),
        }
    }

    /// Writes one line of the result.
    pub fn line(&self, line: impl Display) -> Result<()> {
        writeln!(self.stdout.borrow_mut(), "{line}")?;
        Ok(())
    }

    /// Writes bytes of the result as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let write = || self.stdout.borrow_mut().write_all(bytes);
        if self.json {
            interrupt::whole(write, || drop(self.stdout.borrow_mut().flush()))?
        } else {
            write()?
        }
        Ok(())
    }

    /// Writes the result as one JSON document on one line, naming its schema.
    pub fn document(&self, schema: &'static str, body: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(&json::Document { schema, body })?;
        line.push(b'\n');
        // The buffer is brought out by whole lines: each goes into it as one.
        let write = || self.stdout.borrow_mut().write_all(&line);
        interrupt::whole(write, || drop(self.stdout.borrow_mut().flush()))?;
        Ok(())
    }

    /// Brings out what is buffered.
    pub fn flush(&self) -> Result<()> {
        let flush = || self.stdout.borrow_mut().flush();
        if self.json {
            interrupt::whole(flush, || ())?
        } else {
            flush()?
        }
        Ok(())
    }

    /// Tells something on stderr that is not needed to use the result; silent with `-q`.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            self.tell("note", self.paint_err.note("note:"), text);
        }
    }

    /// Tells on stderr what the user can do about it; silent with `-q`.
    pub fn hint(&self, text: impl Display) {
        if !self.quiet {
            self.tell("hint", self.paint_err.hint("hint:"), text);
        }
    }

    /// Tells on stderr what the user should look at.
    pub fn warning(&self, text: impl Display) {
        self.tell("warning", self.paint_err.warning("warning:"), text);
    }

    /// Tells on stderr what failed while the rest went on.
    pub fn failure(&self, text: impl Display) {
        self.tell("error", self.paint_err.error("error:"), text);
    }

    /// One thing beside the result: a line of text, or a document.
    fn tell(&self, kind: &'static str, label: impl Display, text: impl Display) {
        if self.json {
            print_json("evenkeel/note/1", &json::Note { kind, message: text.to_string() });
        } else {
            self.err_line(label, text);
        }
    }

    /// Shows why the command failed; nothing when the reader of our output went away.
    pub fn error(&self, error: &CommandError) {
        if error.kind == crate::error::Kind::BrokenPipe {
            return;
        }
        if self.json {
            print_json_error(error);
            return;
        }
        self.failure(&error.source);
        for cause in error.causes() {
            self.err_line(self.paint_err.cause("caused by:"), cause);
        }
        // Of one that could only not be recorded, the error itself tells.
        for area in error.areas.iter().filter(|area| area.state != State::Unrecorded) {
            self.err_line(self.paint_err.note("note:"), area.told());
        }
        for done in &error.done {
            self.err_line(self.paint_err.note("note:"), done);
        }
        for hint in &error.hints {
            self.err_line(self.paint_err.hint("hint:"), hint);
        }
    }

    /// One line on stderr. A closed stderr is no reason to fail: there is nobody left to tell.
    fn err_line(&self, label: impl Display, text: impl Display) {
        let line = format!("{label} {text}");
        let _ = io::stderr().lock().write_all(format!("{}\n", line.trim_end()).as_bytes());
    }
}

/// Shows why the command failed, as a document on stderr. A closed stderr is no reason to fail.
pub fn print_json_error(error: &CommandError) {
    print_json("evenkeel/error/1", &json::Failure::of(error));
}

fn print_json(schema: &'static str, body: &impl Serialize) {
    let text = serde_json::to_string(&json::Document { schema, body }).expect("text and numbers serialise");
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}
