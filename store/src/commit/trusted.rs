// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Segments that this machine built or has checked, by name, in the state directory (format-spec §90.4, step 2).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fsio;
use crate::id::SegmentId;
use crate::store::Store;

/// Largest list of trusted segments that is believed, in bytes.
const TRUSTED_BYTES_MAX: u64 = 16 << 20;

/// The list as it is on disk.
#[derive(Debug)]
pub(super) struct Trusted {
    path: PathBuf,
    ids: BTreeSet<SegmentId>,
}

impl Trusted {
    pub(super) fn load(store: &Store, state_dir: &Path) -> Result<Trusted> {
        let path = store.state_in(state_dir).join("trusted-segments");
        let ids = match fsio::read_capped(&path, TRUSTED_BYTES_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect(),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            Err(e) => return Err(e),
        };
        Ok(Trusted { path, ids })
    }

    pub(super) fn contains(&self, id: &SegmentId) -> bool {
        self.ids.contains(id)
    }

    /// Replaces the list.
    pub(super) fn save(&self, ids: impl Iterator<Item = SegmentId>) -> Result<()> {
        let ids: BTreeSet<SegmentId> = ids.collect();
        if ids == self.ids {
            return Ok(());
        }
        let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
        fsio::publish_file(&self.path, text.as_bytes())
    }
}
