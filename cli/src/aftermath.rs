// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a command that failed has left: how its areas stand now, against how they stood before.
//!
//! An area's marker is the truth about it, so it is read again, whatever the error was.

use std::path::{Path, PathBuf};

use evenkeel_store::checkout::{self, AreaTarget, JournalState, Standing};
use evenkeel_store::id::SnapshotId;
use serde::Serialize;

use crate::output::json::PathField;
use crate::output::text;

/// The way on, and the way back, from the middle of a switch.
pub const MIXED: &str = "`evenkeel recover` goes on, `evenkeel rollback` goes back (and finishes a rollback)";
/// The way out when neither is possible.
pub const JOURNAL_LOST: &str = "`evenkeel checkout SNAP --full` makes it equal to a snapshot";

/// An area that a command is about to change, and how it stood before.
#[derive(Debug, Clone)]
pub struct Watched {
    target: AreaTarget,
    state_dir: Option<PathBuf>,
    before: Option<Standing>,
}

impl Watched {
    /// Looks at an area. A marker that cannot be read is for the command itself to complain of.
    pub fn new(target: &AreaTarget, state_dir: Option<&Path>) -> Self {
        let before = checkout::standing(&target.root).ok().flatten();
        Watched { target: target.clone(), state_dir: state_dir.map(Path::to_path_buf), before }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.target.root
    }

    /// How it stands now. `is_switched` says that a switch which its marker calls unfinished is complete but for that.
    pub fn now(&self, is_switched: bool) -> AreaNow {
        let Ok(now) = checkout::standing(&self.target.root) else {
            // One that could not be read before either is what the error is about.
            let state = if self.before.is_some() { State::Unknown } else { State::Unchanged };
            return self.as_it_is(state, None);
        };
        let finished = |standing: Option<Standing>| standing.map_or(0, |standing| standing.finished);
        let state = match (self.before, now) {
            (_, Some(Standing { switching: Some(_), .. })) if is_switched => State::Unrecorded,
            (_, Some(Standing { switching: Some(_), .. })) => State::Mixed,
            (Some(Standing { switching: Some(_), .. }), now) if finished(now) > finished(self.before) => {
                State::Recovered
            }
            // A marker appears with the first switch, and only what it says of switches counts.
            (None, Some(Standing { applied: None, switching: None, finished: 0 })) => State::Unchanged,
            (before, now) if before == now => State::Unchanged,
            _ => State::Changed,
        };
        self.as_it_is(state, now)
    }

    fn has_lost_journal(&self) -> bool {
        let found = self.state_dir.as_ref().and_then(|dir| checkout::journal_state(&self.target, dir).ok());
        matches!(found, Some(JournalState::Damaged | JournalState::Lost))
    }

    fn as_it_is(&self, state: State, now: Option<Standing>) -> AreaNow {
        let (name, root) = (self.target.name.clone(), self.target.root.clone());
        AreaNow { name, root, state, journal_lost: self.has_lost_journal(), before: self.before, now }
    }
}

/// What a command did to an area before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing.
    Unchanged,
    /// What it was to do.
    Changed,
    /// What had been interrupted before was finished; perhaps more.
    Recovered,
    /// A part of a switch.
    Mixed,
    /// All of a switch, which is not recorded.
    Unrecorded,
    /// Its marker cannot be read.
    Unknown,
}

/// An area after a failure.
#[derive(Debug, Clone)]
pub struct AreaNow {
    name: String,
    root: PathBuf,
    /// What became of it.
    pub state: State,
    journal_lost: bool,
    before: Option<Standing>,
    now: Option<Standing>,
}

impl AreaNow {
    /// In words.
    pub fn told(&self) -> String {
        let area = format!("area `{}` at {}", self.name, text::path(&self.root));
        let at = match self.applied() {
            Some(id) => format!("at {}", id.short(12)),
            None => "as it was before its first checkout".to_owned(),
        };
        match self.state {
            State::Unchanged => format!("{area} was not changed"),
            State::Changed => format!("{area} was changed: it is {at} now"),
            State::Recovered => format!("what had been interrupted in {area} was finished first: it is {at} now"),
            State::Mixed => format!("{area} is mixed: {} has begun and has not ended", self.switch()),
            State::Unrecorded => format!("{area} is switched as a whole; that is not recorded yet"),
            State::Unknown => format!("{area}: how it stands cannot be read"),
        }
    }

    /// The way on, and the way back.
    pub fn hint(&self) -> Option<&'static str> {
        match self.state {
            State::Mixed if self.journal_lost => Some(JOURNAL_LOST),
            State::Mixed => Some(MIXED),
            State::Unrecorded => Some("`evenkeel recover` records it, `evenkeel rollback` goes back"),
            _ => None,
        }
    }

    /// Both directions have the same ends, and the tree before the first checkout has no id.
    fn switch(&self) -> String {
        let ends = [self.applied(), self.now.and_then(|now| now.switching)];
        match ends.map(|id| id.map_or("the tree before its first checkout".into(), |id| id.short(12))) {
            [from, to] if from == to => format!("a switch at {from}"),
            [from, to] => format!("a switch between {from} and {to}"),
        }
    }

    fn applied(&self) -> Option<SnapshotId> {
        self.now.and_then(|now| now.applied)
    }
}

/// An area after a failure, in the document of the error.
#[derive(Debug, Serialize)]
pub struct AreaFields {
    name: String,
    root: PathField,
    state: State,
    before: Option<String>,
    at: Option<String>,
    interrupted: Option<String>,
}

impl AreaFields {
    /// The fields for this area.
    pub fn new(area: &AreaNow) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let hex = |id: SnapshotId| id.to_hex();
        AreaFields {
            name: area.name.clone(),
            root: PathField::new(area.root.as_os_str().as_bytes()),
            state: area.state,
            before: area.before.and_then(|before| before.applied).map(hex),
            at: area.applied().map(hex),
            interrupted: area.now.and_then(|now| now.switching).map(hex),
        }
    }
}
