// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where objects live, and how they are named (format-spec §10.2).
//!
//! Invariant: a backend knows names and bytes, not what they mean. Nothing that a reader does needs a listing; listings
//! serve `check`, and rebuilding what is rebuildable.

mod bundle;
pub mod http;
mod local;
pub mod s3;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use bundle::BundleBackend;
pub use http::HttpBackend;
pub use local::LocalBackend;
pub use s3::S3Backend;

use self::http::{Link, Traffic};

use crate::error::{Error, Result};
use crate::format::bundle::BundleHead;
use crate::fsio::{Mapped, TempFile};
use crate::id::{DeltaId, PackId, SegmentId, SnapshotId};

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
    /// `deltas/<hash>`
    Delta(DeltaId),
    /// `deltas/<target>/index`
    DeltaIndex(SnapshotId),
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
            ObjectName::Delta(id) => write!(f, "deltas/{id}"),
            ObjectName::DeltaIndex(target) => write!(f, "deltas/{target}/index"),
        }
    }
}

/// Says whether bytes are what they should be. Where a store has several sources, bytes that are not come from the next.
pub type Check<'c> = &'c mut dyn FnMut(&[u8]) -> Result<()>;

/// For bytes that are proved elsewhere, or by nobody.
pub(crate) fn unchecked(_: &[u8]) -> Result<()> {
    Ok(())
}

/// Is shown what has come of a part, from its beginning, each time that there is more. It may be wrong, and may begin anew.
pub type Seen<'s> = &'s mut dyn FnMut(&[u8]);

/// Who told something that nothing proves: the number of one of the servers that a store has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Teller(usize);

/// Whom to ask for what nothing proves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whom<'a> {
    /// The store's own address before its mirrors, which may be behind.
    pub own_first: bool,
    /// None of these.
    pub but: &'a [Teller],
}

/// A place that holds a store's objects, as far as a reader needs it: everything is asked for by its name.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Where it is, for messages: a directory, or an address as if it were a path.
    fn path(&self) -> &Path;

    /// The directory that it is, if it is one.
    fn dir(&self) -> Option<&Path>;

    /// Reads a whole object of at most `cap` bytes; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Backend::read_checked`].
    fn read(&self, name: &ObjectName, cap: u64) -> Result<Option<Vec<u8>>> {
        self.read_checked(name, cap, &mut unchecked)
    }

    /// Reads a whole object of at most `cap` bytes that `check` says yes to; `None` when it is not there.
    ///
    /// # Errors
    /// What `check` says of the last copy there is; [`Error::Decode`] for more than `cap` bytes; otherwise as
    /// [`Backend::open`].
    fn read_checked(&self, name: &ObjectName, cap: u64, check: Check<'_>) -> Result<Option<Vec<u8>>>;

    /// As [`Backend::read_checked`], for what `check` cannot prove: asks only some, and says who told it.
    ///
    /// # Errors
    /// As [`Backend::read_checked`].
    fn read_told(
        &self,
        name: &ObjectName,
        cap: u64,
        whom: Whom<'_>,
        check: Check<'_>,
    ) -> Result<Option<(Vec<u8>, Teller)>> {
        if !whom.but.is_empty() {
            return Ok(None);
        }
        Ok(self.read_checked(name, cap, check)?.map(|bytes| (bytes, Teller::default())))
    }

    /// Hears that something which `teller` told is not so. It is named, and asked after all others from now on.
    fn mistrust(&self, _teller: Teller, _why: String) {}

    /// Who that is, for people.
    fn name_of(&self, _teller: Teller) -> String {
        self.path().display().to_string()
    }

    /// Opens an object for positioned reads; `None` when it is not there. Where opening would be a request of its own,
    /// that shows only when it is read.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NotAnObject`] for a symlink and whatever else is no regular file;
    /// [`Error::UnreadableObject`] when the medium fails.
    fn open(&self, name: &ObjectName) -> Result<Option<Arc<dyn Object>>>;

    /// The whole of an immutable object of at most `cap` bytes that hashes to `hash`: mapped where it is a file, else in
    /// memory. `None` when it is not there.
    ///
    /// # Errors
    /// [`Error::HashMismatch`]; otherwise as [`Backend::read_checked`].
    fn load(&self, name: &ObjectName, hash: &[u8; 32], cap: u64) -> Result<Option<Loaded>>;

    /// Length of an object; `None` when it is not there or no regular file.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn len(&self, name: &ObjectName) -> Result<Option<u64>>;

    /// Its listings, where it can give any.
    fn listing(&self) -> Option<&dyn Listing> {
        None
    }

    /// Its writing side, where it has one.
    fn writing(&self) -> Option<&dyn Writing> {
        None
    }

    /// How fast it answers, where asking for it takes time worth saving; `None` for what is at hand.
    fn link(&self) -> Option<Link> {
        None
    }

    /// What it says it is, where it is a bundle: a store that is only read, and may leave out what its bases have.
    fn bundle(&self) -> Option<&BundleHead> {
        None
    }

    /// Snapshots of which one must be at hand elsewhere, for what is left out here; none where everything is here.
    fn bases(&self) -> &[SnapshotId] {
        self.bundle().map_or(&[], |head| &head.bases)
    }

    /// What was asked of servers so far, and came from them.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    /// What turned out to be wrong with the place itself so far, a line each: a mirror that gave wrong bytes.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An object that is open for positioned reads. Shared by threads.
pub trait Object: Send + Sync + fmt::Debug {
    /// Its length.
    ///
    /// # Errors
    /// As [`Backend::len`]; [`Error::MissingObject`].
    fn size(&self) -> Result<u64>;

    /// Fills `buffer` from `offset`, with bytes that `check` says yes to.
    ///
    /// # Errors
    /// What `check` says of the last copy there is; [`Error::Io`], of `UnexpectedEof` when the object ends first;
    /// [`Error::MissingObject`]; [`Error::UnreadableObject`].
    fn read_checked_at(&self, buffer: &mut [u8], offset: u64, check: Check<'_>) -> Result<()>;

    /// `len` bytes from `offset` that `check` says yes to.
    ///
    /// # Errors
    /// As [`Object::read_checked_at`].
    fn read_part(&self, offset: u64, len: usize, check: Check<'_>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_checked_at(&mut bytes, offset, check)?;
        Ok(bytes)
    }

    /// As [`Object::read_part`]. Where the bytes take time, they are shown to `seen` as they come.
    ///
    /// # Errors
    /// As [`Object::read_checked_at`].
    fn read_part_seen(&self, offset: u64, len: usize, _seen: Seen<'_>, check: Check<'_>) -> Result<Vec<u8>> {
        self.read_part(offset, len, check)
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// As [`Object::read_checked_at`].
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read_checked_at(buffer, offset, &mut unchecked)
    }
}

/// The bytes of a whole immutable object.
#[derive(Debug)]
pub enum Loaded {
    /// In the page cache, where it is a file of this machine.
    Mapped(Mapped),
    /// In memory of this process.
    Read(Vec<u8>),
}

impl AsRef<[u8]> for Loaded {
    fn as_ref(&self) -> &[u8] {
        match self {
            Loaded::Mapped(map) => map.as_ref(),
            Loaded::Read(bytes) => bytes,
        }
    }
}

/// What only a place that is written to has. One process at a time uses it: who holds the [`crate::store::WriterLock`].
pub trait Writing: Backend {
    /// Publishes an object, durable when this returns. A mutable name is replaced in one step.
    ///
    /// # Errors
    /// [`Error::Io`]; the object is then as it was.
    fn publish(&self, name: &ObjectName, bytes: &[u8]) -> Result<()>;

    /// Starts an object whose name is known only when it is complete.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn create_temp(&self) -> Result<TempFile>;

    /// Publishes a finished temporary under its name. Durable only after [`Writing::sync_names`].
    ///
    /// # Errors
    /// [`Error::Io`].
    fn publish_temp(&self, file: TempFile, name: &ObjectName) -> Result<()>;

    /// Makes every name durable that [`Writing::publish_temp`] gave so far.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn sync_names(&self) -> Result<()>;

    /// Makes the names of all packs durable, whoever gave them.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn sync_packs(&self) -> Result<()>;

    /// Removes an object; it need not be there.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn remove(&self, name: &ObjectName) -> Result<()>;

    /// Removes what a writer that died left behind. Only the holder of the writer's lock may call it.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn sweep_temporaries(&self) -> Result<u64>;
}

/// What only a place has that can list names. It serves `check`, and rebuilding what is rebuildable.
pub trait Listing {
    /// All packs, sorted by id.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list_packs(&self) -> Result<Vec<PackId>>;

    /// All packs that can be listed, sorted by id; a directory that cannot be is added to `troubles`.
    fn list_packs_past(&self, troubles: &mut Vec<Error>) -> Vec<PackId>;

    /// All segments, sorted by id.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list_segments(&self) -> Result<Vec<SegmentId>>;

    /// All snapshots, sorted by id.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list_snapshots(&self) -> Result<Vec<SnapshotId>>;

    /// The snapshots that locators are for, sorted by id.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list_locators(&self) -> Result<Vec<SnapshotId>>;
}
