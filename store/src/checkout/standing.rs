// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How an area stands: what its marker alone says, without store, state directory or lock.

use std::io;
use std::path::Path;

use super::state::read_marker;
use crate::error::{Error, Result};
use crate::fsio::Dir;
use crate::id::SnapshotId;

/// What an area's marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The snapshot it is at; `None` until the first switch has ended, and when that was taken back.
    pub applied: Option<SnapshotId>,
    /// A switch to or from this snapshot has begun and has not ended: the tree is a mixture of this and `applied`.
    pub switching: Option<SnapshotId>,
    /// The last transaction that was finished; 0 before the first.
    pub finished: u64,
}

/// How the area at `root` stands; `None` where nothing was ever checked out.
///
/// # Errors
/// [`Error::Refused`] for a marker that cannot be understood; [`Error::Io`].
pub fn standing(root: &Path) -> Result<Option<Standing>> {
    let root = match Dir::open(root) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        root => root?,
    };
    let marker = read_marker(&root)?;
    Ok(marker.map(|marker| Standing {
        applied: marker.applied,
        switching: marker.transaction,
        finished: marker.finished,
    }))
}
