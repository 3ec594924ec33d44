// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Changes by directory, in a bounded number of lines and bounded memory.

use std::collections::BTreeMap;

use evenkeel_store::checkout::ChangeLine;
use evenkeel_store::path::{TreePath, escape};

use super::why;
use crate::error::Result;
use crate::output::text::{counted, number};
use crate::session::Session;

/// Directories that are listed, and held in memory.
const DIRECTORIES: usize = 20;
/// Changes of one directory that are listed.
const EACH: usize = 6;
/// Changes that are listed in all.
const LINES: usize = 40;

/// Changes as they go by.
#[derive(Default)]
pub(super) struct ByDirectory {
    directories: BTreeMap<TreePath, Directory>,
    total: u64,
}

#[derive(Default)]
struct Directory {
    changes: u64,
    shown: Vec<String>,
}

impl ByDirectory {
    pub(super) fn add(&mut self, change: &ChangeLine) {
        self.total += 1;
        let path = change.path.bytes().and_then(|bytes| TreePath::new(bytes).ok()).unwrap_or_default();
        let parent = path.parent().unwrap_or_default();
        if self.directories.len() >= DIRECTORIES && !self.directories.contains_key(&parent) {
            return;
        }
        let directory = self.directories.entry(parent).or_default();
        directory.changes += 1;
        if directory.shown.len() < EACH {
            let name = if path.is_root() { ".".to_owned() } else { escape(path.name()) };
            directory.shown.push(format!("{:<8}  {name}  {}", change.action, why(change)));
        }
    }

    pub(super) fn print(&self, session: &Session) -> Result<()> {
        let (out, mut listed) = (&session.out, 0);
        for (path, directory) in &self.directories {
            if listed >= LINES {
                break;
            }
            let name = if path.is_root() { ".".to_owned() } else { path.to_string() };
            let count = out.paint.dim(counted(directory.changes, "change"));
            out.line(format_args!("  {}  {count}", out.paint.directory(format_args!("{name}/"))))?;
            for line in directory.shown.iter().take(LINES - listed) {
                out.line(format_args!("    {line}"))?;
                listed += 1;
            }
        }
        match self.total.saturating_sub(listed as u64) {
            0 => Ok(()),
            more => out.line(format_args!("  … and {} more (--all lists them)", number(more))),
        }
    }
}
