// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can go wrong, as values: the fields say what, [`Error::kind`] says which class.

mod transfer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::format::{DecodeError, Reason};
use crate::id::SnapshotId;
use crate::path::escape;

pub use transfer::TransferError;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that the library reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {}", display(path))]
    Io {
        /// What was tried: "open", "rename", …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// An object's bytes break the format, or need a newer program.
    #[error("{object} {}", if source.is_unsupported() { "cannot be read by this version" } else { "is damaged" })]
    Decode {
        /// Store name of the object, such as `packs/ab/….pack`.
        object: String,
        /// Where and how.
        source: DecodeError,
    },
    /// An object's bytes do not hash to its name.
    #[error("{object} is damaged: its content hashes to {actual}")]
    HashMismatch {
        /// Store name of the object.
        object: String,
        /// Hash of what was read.
        actual: String,
    },
    /// An object that others refer to is not there.
    #[error("{object} is missing from the store")]
    MissingObject {
        /// Store name of the object, or `chunk <id>`.
        object: String,
    },
    /// The medium does not give an object back.
    #[error("{object} cannot be read")]
    UnreadableObject {
        /// Store name of the object.
        object: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// Something else than a regular file has an object's name. What a link leads to is never looked at.
    #[error("{object} is damaged: {found} is in its place")]
    NotAnObject {
        /// Store name of the object, or of a directory on the way to it.
        object: String,
        /// What is there.
        found: &'static str,
    },
    /// No `format` object.
    #[error("{} is not an Evenkeel store", display(path))]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// `init` on something that is there.
    #[error("{} already exists and is not empty", display(path))]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// No snapshot with this id, prefix or name.
    #[error("no snapshot `{name}`")]
    UnknownSnapshot {
        /// What was asked for.
        name: String,
    },
    /// A prefix that fits more than one snapshot.
    #[error("snapshot prefix `{prefix}` is ambiguous: {} snapshots begin with it", candidates.len())]
    AmbiguousSnapshot {
        /// What was asked for.
        prefix: String,
        /// All that fit.
        candidates: Vec<SnapshotId>,
    },
    /// The snapshot has no such path.
    #[error("no `{path}` in area `{area}` of snapshot {snapshot}")]
    UnknownPath {
        /// Area's name.
        area: String,
        /// Escaped path.
        path: String,
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The snapshot has no such area.
    #[error("snapshot {} has no area `{area}`", snapshot.short(12))]
    UnknownArea {
        /// Area's name.
        area: String,
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// An area cannot be what was asked.
    #[error("area `{area}` at {}: {reason}", display(path))]
    Area {
        /// Area's name.
        area: String,
        /// Its root.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Another process holds the lock.
    #[error("{} is locked by another process{}", display(path), by(*holder))]
    Locked {
        /// What is locked.
        path: PathBuf,
        /// That process, where the system tells.
        holder: Option<u32>,
    },
    /// A package manager is at work.
    #[error("{program} is at work{}: it still holds {} after {waited_s} s", by(*holder), display(path))]
    PackagesLocked {
        /// Which.
        program: &'static str,
        /// Its lock.
        path: PathBuf,
        /// The process that holds it, where the system tells.
        holder: Option<u32>,
        /// How long it was waited for, in seconds.
        waited_s: u64,
    },
    /// Source files that changed while they were read.
    #[error("{} changed while being read: {}", count(paths, "file"), list(paths))]
    Unstable {
        /// Full paths.
        paths: Vec<PathBuf>,
    },
    /// Source entries that could not be read.
    #[error("{} cannot be read: {}", count(paths, "file"), list(paths))]
    Unreadable {
        /// Full paths.
        paths: Vec<PathBuf>,
        /// The first failure.
        source: std::io::Error,
    },
    /// Source entries with extended attributes of which no rule says what to do.
    #[error(
        "the area's rules neither record nor leave alone the extended attributes {} of {}: {}",
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        count(paths, "path"),
        list(paths)
    )]
    UnruledXattrs {
        /// Full paths.
        paths: Vec<PathBuf>,
        /// Escaped names of all their attributes of that kind.
        names: BTreeSet<String>,
    },
    /// Files with set-id bits or capabilities in an area that may have none.
    #[error("the area's rules forbid the set-id bits or capabilities of {}: {}", count(paths, "file"), list(paths))]
    ForbiddenRights {
        /// Full paths, at the source or, of a checkout, where they would be.
        paths: Vec<PathBuf>,
    },
    /// A snapshot that has the program's own files of this machine: its configuration, its state, its store or itself.
    #[error("the snapshot would replace what is this program's own here: {}", list(paths))]
    OwnPaths {
        /// Full paths.
        paths: Vec<PathBuf>,
    },
    /// Something in the source that the format or the area's rules do not allow.
    #[error("{}: {reason}", display(path))]
    Unsupported {
        /// Full path.
        path: PathBuf,
        /// What is not allowed.
        reason: String,
    },
    /// More than a limit allows.
    #[error("{what} is {found} but at most {limit} is allowed")]
    LimitExceeded {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
    /// The request makes no sense as it is; `reason` says why.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// A change record whose bytes are not what was written.
    #[error("{} is damaged: {reason}", display(path))]
    DamagedRecord {
        /// Its file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// A change record of a newer version.
    #[error("{} cannot be read by this version: it is {schema}", display(path))]
    NewerRecord {
        /// Its file.
        path: PathBuf,
        /// What it says it is.
        schema: String,
    },
    /// Every name was switched, and then something failed: that it is done could not be made durable, or recorded.
    #[error("area `{area}` at {} {}, but that could not be recorded", display(path), switched_to(*target))]
    Unrecorded {
        /// Area's name.
        area: String,
        /// Its root.
        path: PathBuf,
        /// The snapshot that it is at; `None` for a tree as it was before the first checkout.
        target: Option<SnapshotId>,
        /// What failed.
        source: Box<Error>,
    },
    /// A server did not give an object, and no other one did.
    #[error("cannot fetch {object} from {}", escape(from.as_bytes()))]
    Fetch {
        /// Store name of the object.
        object: String,
        /// The server's address.
        from: String,
        /// What came instead.
        source: TransferError,
    },
    /// A server did not take an object, or did not do with it what was asked for.
    #[error("cannot {action} {object} at {}", escape(at.as_bytes()))]
    Send {
        /// What was to be done: `write`, `list`, `remove`.
        action: &'static str,
        /// Store name of the object or objects.
        object: String,
        /// The server's address.
        at: String,
        /// What came instead.
        source: TransferError,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The catalog cannot be used; the caller rebuilds it.
    #[error("catalog at {} cannot be used: {reason}", display(path))]
    Catalog {
        /// Its directory.
        path: PathBuf,
        /// What sled said.
        reason: String,
    },
}

/// Coarse class of an [`Error`], stable across releases; exit codes depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system failed.
    Io,
    /// Stored data is damaged or missing.
    Damaged,
    /// A newer version or an unknown feature.
    Unsupported,
    /// The place is not a store.
    NotAStore,
    /// A name that does not exist or is not unique.
    Unknown,
    /// Held by another process.
    Locked,
    /// A source tree that cannot be committed as it is.
    Source,
    /// Over a limit.
    Limit,
    /// Refused for a reason the user can act on.
    Refused,
    /// A server cannot be reached, or does not answer as a store's should.
    Server,
    /// The server's certificate, or the way it speaks TLS, is not accepted.
    Untrusted,
    /// Stopped on request.
    Interrupted,
}

impl Error {
    /// Wraps a failed system call.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Error::Io { action, path: path.into(), source: source.into() }
    }

    /// An object of `found` bytes where at most `limit` are allowed.
    pub(crate) fn too_long(object: &str, found: u64, limit: u64) -> Self {
        let reason = Reason::Limit { found, limit };
        let source = DecodeError { object: "object", offset: limit, field: "length", reason };
        Error::Decode { object: object.to_string(), source }
    }

    /// Which class of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } | Error::Catalog { .. } => ErrorKind::Io,
            Error::Decode { source, .. } if source.is_unsupported() => ErrorKind::Unsupported,
            Error::Decode { .. }
            | Error::HashMismatch { .. }
            | Error::MissingObject { .. }
            | Error::UnreadableObject { .. }
            | Error::NotAnObject { .. }
            | Error::DamagedRecord { .. } => ErrorKind::Damaged,
            Error::NewerRecord { .. } => ErrorKind::Unsupported,
            Error::NotAStore { .. } => ErrorKind::NotAStore,
            Error::UnknownSnapshot { .. }
            | Error::AmbiguousSnapshot { .. }
            | Error::UnknownPath { .. }
            | Error::UnknownArea { .. } => ErrorKind::Unknown,
            Error::Locked { .. } | Error::PackagesLocked { .. } => ErrorKind::Locked,
            Error::Unstable { .. }
            | Error::Unreadable { .. }
            | Error::UnruledXattrs { .. }
            | Error::ForbiddenRights { .. }
            | Error::Unsupported { .. } => ErrorKind::Source,
            Error::LimitExceeded { .. } => ErrorKind::Limit,
            Error::Area { .. } | Error::OwnPaths { .. } | Error::Refused { .. } | Error::NotEmpty { .. } => {
                ErrorKind::Refused
            }
            Error::Unrecorded { source, .. } => source.kind(),
            Error::Fetch { source: TransferError::Tls(_), .. } => ErrorKind::Untrusted,
            Error::Fetch { .. } | Error::Send { .. } => ErrorKind::Server,
            Error::Interrupted => ErrorKind::Interrupted,
        }
    }

    /// As what happened after all of a switch was done.
    pub(crate) fn unrecorded(self, area: &str, path: &Path, target: Option<SnapshotId>) -> Self {
        match self {
            Error::Unrecorded { .. } => self,
            source => Error::Unrecorded { area: area.into(), path: path.into(), target, source: Box::new(source) },
        }
    }

    /// What a failed call for an object means: damage where the medium or the file system says so.
    pub(crate) fn of_object(action: &'static str, path: &Path, object: &str, source: std::io::Error) -> Self {
        use rustix::io::Errno;
        const DAMAGE: [Errno; 5] = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA, Errno::REMOTEIO];
        if DAMAGE.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error())) {
            return Error::UnreadableObject { object: object.to_string(), source };
        }
        Error::Io { action, path: path.to_path_buf(), source }
    }

    /// Whether this says something about the one object that was asked for, rather than about the process: then the next
    /// object is worth asking for.
    pub(crate) fn is_of_one_object(&self) -> bool {
        use rustix::io::Errno;
        const PROCESS: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
        match self {
            Error::Io { source, .. } => {
                !PROCESS.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
            }
            // The next object would be asked of the same servers.
            Error::Fetch { .. } | Error::Send { .. } | Error::Interrupted => false,
            _ => true,
        }
    }

    /// Whether trying again later may help without anyone changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Fetch { source, .. } | Error::Send { source, .. } => source.is_transient(),
            Error::Locked { .. } | Error::PackagesLocked { .. } | Error::Unstable { .. } => true,
            Error::Io { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::TimedOut)
            }
            _ => false,
        }
    }
}

fn display(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    escape(path.as_os_str().as_bytes())
}

fn switched_to(target: Option<SnapshotId>) -> String {
    match target {
        Some(id) => format!("is switched to {}", id.short(12)),
        None => "is as it was before the first checkout".into(),
    }
}

fn by(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn count(paths: &[PathBuf], noun: &str) -> String {
    if paths.len() == 1 { format!("1 {noun}") } else { format!("{} {noun}s", paths.len()) }
}

/// All names up to twenty, then how many more.
fn list(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 20;
    let mut text = paths.iter().take(SHOWN).map(|p| display(p)).collect::<Vec<_>>().join(", ");
    if paths.len() > SHOWN {
        text.push_str(&format!(" and {} more", paths.len() - SHOWN));
    }
    text
}
