// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The last steps of a commit, each durable before the next: pack names → segment → locator → snapshot → index
//! (format-spec §90.4). A crash between two of them leaves garbage, never a dangling reference.

use super::known::KnownChunks;
use super::pipeline::Results;
use super::{CommitOptions, locator, segments};
use crate::backend::ObjectName;
use crate::error::{Error, Result};
use crate::format::snapshot::{IndexRecord, Snapshot, encode_index};
use crate::id::SnapshotId;
use crate::progress::Progress;
use crate::store::Store;

pub(super) struct Publication<'a> {
    pub(super) store: &'a Store,
    pub(super) options: &'a CommitOptions,
    pub(super) parent: Option<&'a (SnapshotId, Snapshot)>,
    pub(super) known: &'a KnownChunks,
}

impl Publication<'_> {
    /// Publishes everything; without `snapshot` (nothing changed) only what was stored on the way and the files caches.
    /// Gives the snapshot's id and the bytes added to the store.
    pub(super) fn run(
        &self,
        snapshot: Option<&Snapshot>,
        results: Results,
        progress: &Progress,
    ) -> Result<(Option<SnapshotId>, u64)> {
        progress.start("publishing", 0, 0);
        let backend = self.store.backend();
        let mut stored: u64 = results.packs.iter().map(|pack| pack.len).sum();
        backend.sync_names()?;
        if !results.records.is_empty() {
            let (packs, records) = (results.packs, results.records);
            stored +=
                segments::add_records(self.store, &self.options.state_dir, packs, records, self.known.segments())?;
        }
        let id = match snapshot {
            None => None,
            Some(snapshot) => {
                let bytes =
                    snapshot.encode().map_err(|source| Error::Decode { object: "the new snapshot".into(), source })?;
                let id = SnapshotId::of(&bytes);
                let locator = locator::encode(self.store, &id, snapshot, self.parent, self.known)?;
                backend.publish(&ObjectName::Locator(id), &locator)?;
                progress.check_cancelled()?;
                backend.publish(&ObjectName::Snapshot(id), &bytes)?;
                self.append_to_index(&id, snapshot, bytes.len() as u64)?;
                stored += (locator.len() + bytes.len()) as u64;
                Some(id)
            }
        };
        let current = id.or(self.parent.map(|(id, _)| *id));
        for area in results.areas {
            if let (Some(cache), Some(current)) = (area.cache, current)
                && (cache.is_stale || id.is_some())
            {
                cache.finish(current)?;
            }
        }
        Ok((id, stored))
    }

    /// Adds a line to the hint. A missing or damaged one is made anew from the snapshots that are there.
    fn append_to_index(&self, id: &SnapshotId, snapshot: &Snapshot, len: u64) -> Result<()> {
        let mut records = match self.store.snapshot_index()? {
            Some(records) => records,
            None => self.store.snapshots()?,
        };
        records.retain(|record| record.id != *id);
        records.push(IndexRecord { id: *id, parent: snapshot.parent, time: snapshot.time.secs, len });
        self.store.backend().publish(&ObjectName::SnapshotIndex, &encode_index(&records))
    }
}
