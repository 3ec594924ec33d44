// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where objects live, and how they are named (format-spec §10.2).
//!
//! Invariant: a backend knows names and bytes, not what they mean. Nothing that a reader does needs a listing; listings
//! serve `check`, and rebuilding what is rebuildable.

mod local;

use std::fmt;
use std::path::Path;

pub use local::LocalBackend;

use crate::error::{Error, Result};
use crate::fsio::{Mapped, OpenFile, TempFile};
use crate::id::{PackId, SegmentId, SnapshotId};

/// Name of a stored object; displays as its path inside the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectName {
    /// `format`
    Format,
    /// `packs/ab/<hash>.pack`
    Pack(PackId),
    /// `segments/<hash>.seg`
    Segment(SegmentId),
    /// `segments/current`
    SegmentsCurrent,
    /// `locators/<snapshot>`
    Locator(SnapshotId),
    /// `snapshots/<hash>`
    Snapshot(SnapshotId),
    /// `snapshots/index`
    SnapshotIndex,
}

impl ObjectName {
    /// Directory that it lies in, as a path inside the store; empty for the store's own.
    pub fn dir(&self) -> String {
        let name = self.to_string();
        name.rsplit_once('/').map_or(String::new(), |(dir, _)| dir.to_string())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectName::Format => f.write_str("format"),
            ObjectName::Pack(id) => {
                let hex = id.to_hex();
                write!(f, "packs/{}/{hex}.pack", &hex[..2])
            }
            ObjectName::Segment(id) => write!(f, "segments/{id}.seg"),
            ObjectName::SegmentsCurrent => f.write_str("segments/current"),
            ObjectName::Locator(id) => write!(f, "locators/{id}"),
            ObjectName::Snapshot(id) => write!(f, "snapshots/{id}"),
            ObjectName::SnapshotIndex => f.write_str("snapshots/index"),
        }
    }
}

/// A place that holds a store's objects.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// Reads a whole object of at most `cap` bytes; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Backend::open`] and [`OpenFile::read_all`].
    fn read(&self, name: &ObjectName, cap: u64) -> Result<Option<Vec<u8>>>;

    /// Opens an object for positioned reads; `None` when it is not there.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; [`crate::Error::NotAnObject`] for a symlink and whatever else is no regular file;
    /// [`crate::Error::UnreadableObject`] when the medium fails.
    fn open(&self, name: &ObjectName) -> Result<Option<OpenFile>>;

    /// Maps an immutable object; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Backend::open`].
    fn map(&self, name: &ObjectName) -> Result<Option<Mapped>>;

    /// Length of an object; `None` when it is not there or no regular file.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn len(&self, name: &ObjectName) -> Result<Option<u64>>;

    /// Publishes an object, durable when this returns. A mutable name is replaced in one step.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; the object is then as it was.
    fn publish(&self, name: &ObjectName, bytes: &[u8]) -> Result<()>;

    /// Starts an object whose name is known only when it is complete.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn create_temp(&self) -> Result<TempFile>;

    /// Publishes a finished temporary under its name. Durable only after [`Backend::sync_names`].
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn publish_temp(&self, file: TempFile, name: &ObjectName) -> Result<()>;

    /// Makes every name durable that [`Backend::publish_temp`] gave so far.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn sync_names(&self) -> Result<()>;

    /// Makes the names of all packs durable, whoever gave them.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn sync_packs(&self) -> Result<()>;

    /// All packs, sorted by id.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn list_packs(&self) -> Result<Vec<PackId>>;

    /// All packs that can be listed, sorted by id; a directory that cannot be is added to `troubles`.
    fn list_packs_past(&self, troubles: &mut Vec<Error>) -> Vec<PackId>;

    /// All segments, sorted by id.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn list_segments(&self) -> Result<Vec<SegmentId>>;

    /// All snapshots, sorted by id.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn list_snapshots(&self) -> Result<Vec<SnapshotId>>;

    /// The snapshots that locators are for, sorted by id.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn list_locators(&self) -> Result<Vec<SnapshotId>>;

    /// Removes an object; it need not be there.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn remove(&self, name: &ObjectName) -> Result<()>;
}
