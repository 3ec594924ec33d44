// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a failure reaches the user: a kind that fixes the exit code, the chain of causes, and hints.
//!
//! The `From` impls here are the only place that turns a library error into a kind and its hints.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use evenkeel_store::error::TransferError;
use evenkeel_store::{Error as StoreError, ErrorKind};
use serde::Serialize;

use crate::aftermath::{AreaNow, State, Watched};
use crate::exit::Exit;

/// Result of a command or a step of it.
pub type Result<T, E = CommandError> = std::result::Result<T, E>;

/// Coarse class of a failure; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The world did not let us.
    Failed,
    /// The command line or the configuration makes no sense.
    Usage,
    /// No store there.
    NoStore,
    /// Held by another process.
    Locked,
    /// Stored data is damaged.
    Damaged,
    /// The store's server cannot be reached, or does not answer as one.
    Server,
    /// The server's certificate is not accepted.
    Untrusted,
    /// Stopped on request.
    Interrupted,
    /// Whoever read our output went away: not an error.
    BrokenPipe,
}

impl Kind {
    /// The exit code of this class.
    pub fn exit(self) -> Exit {
        match self {
            Kind::Failed => Exit::Failed,
            Kind::Usage => Exit::Usage,
            Kind::NoStore => Exit::NoStore,
            Kind::Locked => Exit::Locked,
            Kind::Damaged => Exit::Damaged,
            Kind::Server => Exit::Server,
            Kind::Untrusted => Exit::Untrusted,
            Kind::Interrupted => Exit::Interrupted,
            Kind::BrokenPipe => Exit::Done,
        }
    }
}

/// A failed command: what to print and how to exit.
#[derive(Debug)]
pub struct CommandError {
    /// Class of the failure.
    pub kind: Kind,
    /// What failed; its sources become `caused by` lines.
    pub source: Box<dyn StdError + Send + Sync>,
    /// What the reader can do about it.
    pub hints: Vec<String>,
    /// The areas that the command was to change, where it has changed any.
    pub areas: Vec<AreaNow>,
    /// What else it has done before it failed.
    pub done: Vec<String>,
}

/// How a hint begins that is true of a command which has changed nothing.
pub const NOTHING_CHANGED: &str = "nothing was changed; ";
/// How hints end that are true of such a command only.
const AGAIN: &str = " and run the command again";
const AND_NOTHING: &str = "; nothing was changed";

impl CommandError {
    /// A failure with a message of our own.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        CommandError { kind, source: message.into().into(), hints: Vec::new(), areas: Vec::new(), done: Vec::new() }
    }

    /// A command line or configuration that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Arguments that clap does not understand: its first line is the message, its tips and the usage are hints.
    pub fn from_arguments(error: &clap::Error) -> Self {
        use clap::error::ErrorKind;

        if matches!(error.kind(), ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
            return Self::usage("no command is given").hint("`evenkeel --help` lists the commands");
        }
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n").map(|paragraph| {
            let lines: Vec<&str> = paragraph.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            lines.join(" ")
        });
        let message = paragraphs.next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        let hints = paragraphs.filter(|hint| !hint.is_empty()).map(|hint| match hint.strip_prefix("tip: ") {
            Some(tip) => tip.to_owned(),
            None => hint,
        });
        CommandError { hints: hints.collect(), ..Self::usage(message) }
    }

    /// A failure with a message of our own, caused by `source`.
    pub fn caused_by(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source = Box::new(Because { message: message.into(), source: source.into() });
        CommandError { kind, source, hints: Vec::new(), areas: Vec::new(), done: Vec::new() }
    }

    /// Adds an action that the reader can take.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds what the command has left in its areas.
    #[must_use]
    pub fn after(mut self, watched: &[Watched]) -> Self {
        let source = self.source.downcast_ref::<StoreError>();
        // Whoever holds it may be in the middle of a switch.
        let is_others = |watched: &&Watched| match source {
            Some(StoreError::Locked { path, .. }) => plain(path).starts_with(plain(watched.root())),
            _ => false,
        };
        let is_switched = |watched: &Watched| match source {
            Some(StoreError::Unrecorded { area, .. }) => area == watched.name(),
            _ => false,
        };
        let own = watched.iter().filter(|area| !is_others(area));
        let areas: Vec<AreaNow> = own.map(|area| area.now(is_switched(area))).collect();
        if areas.iter().all(|area| area.state == State::Unchanged) {
            return self;
        }
        for hint in &mut self.hints {
            let still_true = hint.strip_prefix(NOTHING_CHANGED).unwrap_or(hint);
            let still_true = still_true.strip_suffix(AGAIN).unwrap_or(still_true);
            *hint = still_true.strip_suffix(AND_NOTHING).unwrap_or(still_true).to_owned();
        }
        for hint in areas.iter().filter_map(AreaNow::hint) {
            if self.hints.iter().all(|told| told != hint) {
                self.hints.push(hint.into());
            }
        }
        CommandError { areas, ..self }
    }

    /// The messages below the first one, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

/// A path as it is without `./` before it.
fn plain(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

/// A message with a cause.
#[derive(Debug)]
struct Because {
    message: String,
    source: Box<dyn StdError + Send + Sync>,
}

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Because {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind() {
            ErrorKind::Damaged => Kind::Damaged,
            ErrorKind::NotAStore => Kind::NoStore,
            ErrorKind::Locked => Kind::Locked,
            ErrorKind::Server => Kind::Server,
            ErrorKind::Untrusted => Kind::Untrusted,
            ErrorKind::Interrupted => Kind::Interrupted,
            ErrorKind::Unknown | ErrorKind::Refused => Kind::Usage,
            _ => Kind::Failed,
        };
        let hints = hints(&error);
        CommandError { kind, source: Box::new(error), hints, areas: Vec::new(), done: Vec::new() }
    }
}

/// Standard output could not be written.
impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Kind::BrokenPipe, "broken pipe");
        }
        Self::caused_by(Kind::Failed, "cannot write to standard output", error)
    }
}

/// A document of ours could not be written: in practice standard output, as the values always serialise.
impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

/// What the reader can do about a library error.
fn hints(error: &StoreError) -> Vec<String> {
    let hint = match error {
        StoreError::Unrecorded { source, .. } => return hints(source),
        StoreError::NotAStore { .. } => {
            "make one with `evenkeel init STORE`, or name another with --store or EVENKEEL_STORE".into()
        }
        StoreError::NotEmpty { .. } => "choose a new directory; a store is never made over something else".into(),
        StoreError::UnknownSnapshot { .. } => {
            "`evenkeel log` lists the snapshots; a prefix needs at least 8 hex digits".into()
        }
        StoreError::AmbiguousSnapshot { candidates, .. } => {
            let ids: Vec<String> = candidates.iter().take(10).map(|id| id.short(16)).collect();
            format!("give more digits; it could be {}", ids.join(", "))
        }
        StoreError::UnknownPath { area, .. } => format!("`evenkeel ls SNAP {area}:` lists what is there"),
        StoreError::UnknownArea { snapshot, .. } => {
            format!("`evenkeel show {}` lists its areas", snapshot.short(12))
        }
        StoreError::PackagesLocked { .. } => {
            format!(
                "{NOTHING_CHANGED}try again when it is done, or wait longer (`wait-packages` in the configuration)"
            )
        }
        StoreError::Locked { .. } => "wait for the other command to end, then try again".into(),
        StoreError::Unstable { .. } => {
            "stop what writes to them, or record them as they are with --allow-changing".into()
        }
        // The walk names paths over the limits of the format so.
        StoreError::Unreadable { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
            "exclude them, or leave them out with --skip-unreadable; docs/reference/limits.md lists the limits".into()
        }
        StoreError::Unreadable { .. } => {
            "run as a user who may read them, exclude them, or leave them out with --skip-unreadable".into()
        }
        StoreError::UnruledXattrs { .. } => {
            "in the area's `xattrs`, name those to record, and those to leave alone with a `!` before them; or exclude the \
             paths"
                .into()
        }
        StoreError::ForbiddenRights { .. } => {
            "exclude the files, or say `set-id = true` for the area in this machine's configuration".into()
        }
        StoreError::OwnPaths { .. } => {
            "name them in the area's `exclude` in this machine's configuration, or commit the area without them".into()
        }
        StoreError::Area { .. } => {
            "an area is a directory that lies in no other: check --area and the configuration".into()
        }
        StoreError::Fetch { source: TransferError::Tls(_), .. } => {
            "name the authority that signed the server's certificate with `ca-file` in the configuration".into()
        }
        StoreError::Fetch { source: TransferError::Redirect(_), .. } => {
            "name the store where it is, or the hosts that may be followed to with `redirects` under [http]".into()
        }
        StoreError::Fetch { source: TransferError::Status { status: 401 | 403, .. }, .. } => {
            "the server lets in only whom it knows: name a file with the token as `token-file`, or a certificate as \
             `client-cert` and `client-key`, in `[http]` of the configuration; a token is given to the store's own address \
             only, not to mirrors"
                .into()
        }
        StoreError::Fetch { source: TransferError::Service { status: 403, .. }, .. }
        | StoreError::Send { source: TransferError::Service { status: 403, .. }, .. } => {
            "the key must be allowed to read, write and list the bucket; clocks that differ are refused, too".into()
        }
        StoreError::Send { .. } => {
            "nothing that readers see is half done: run the command again when the service can be reached".into()
        }
        StoreError::Fetch { .. } => "nothing was changed; try again when the server can be reached".into(),
        StoreError::Refused { hint: Some(hint), .. } => hint.clone(),
        StoreError::NewerRecord { .. } => "a newer Evenkeel wrote it: use that version, or a newer one".into(),
        StoreError::DamagedRecord { .. } => {
            "the other records, and what can be taken back, do not depend on it; look for the disk's errors".into()
        }
        StoreError::Decode { .. } if error.kind() == ErrorKind::Unsupported => {
            "this store was written by a newer Evenkeel: use that version, or a newer one".into()
        }
        StoreError::Decode { .. }
        | StoreError::HashMismatch { .. }
        | StoreError::MissingObject { .. }
        | StoreError::UnreadableObject { .. }
        | StoreError::NotAnObject { .. } => {
            "`evenkeel check --read-data` lists all damage and the snapshots it hurts".into()
        }
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            format!("free some space (and inodes) there{AGAIN}")
        }
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "run as a user who may do that".into()
        }
        _ => return Vec::new(),
    };
    vec![hint]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_no_failure() {
        let error = CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.kind.exit(), Exit::Done);
    }

    #[test]
    fn the_chain_is_told_once() {
        let inner = StoreError::io("open", "/x\n", io::Error::from_raw_os_error(2));
        let error = CommandError::from(inner);
        assert_eq!(error.source.to_string(), "cannot open /x\\n");
        assert_eq!(error.causes(), ["No such file or directory (os error 2)"]);
        let outer = CommandError::caused_by(Kind::Failed, "outer", error.source);
        assert_eq!(outer.causes().len(), 2);
    }
}
