// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The last steps of a commit, each durable before the next: pack names → segment → locator → snapshot → index
//! (format-spec §90.4). A crash between two of them leaves garbage, never a dangling reference.

use super::known::KnownChunks;
use super::pipeline::Results;
use super::{CommitOptions, locator, segments};
use crate::backend::ObjectName;
use crate::error::{Error, Result};
use crate::format::snapshot::{Snapshot, encode_index};
use crate::id::SnapshotId;
use crate::limits;
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
            stored += segments::add_records(self.store, &self.options.state_dir, packs, records, self.known)?;
        }
        let id = match snapshot {
            None => {
                if let Some((id, parent)) = self.parent {
                    stored += self.mend_locator(id, parent)?;
                }
                None
            }
            Some(snapshot) => {
                let bytes =
                    snapshot.encode().map_err(|source| Error::Decode { object: "the new snapshot".into(), source })?;
                let id = SnapshotId::of(&bytes);
                let locator = locator::encode(self.store, &id, snapshot, self.base()?, self.known)?;
                backend.publish(&ObjectName::Locator(id), &locator)?;
                progress.check_cancelled()?;
                backend.publish(&ObjectName::Snapshot(id), &bytes)?;
                stored += (locator.len() + bytes.len()) as u64;
                Some(id)
            }
        };
        self.update_index()?;
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

    /// The parent, if a locator may continue at it.
    fn base(&self) -> Result<Option<locator::Base<'_>>> {
        let Some((id, snapshot)) = self.parent else { return Ok(None) };
        let steps = locator::chain(self.store, id, self.known.live_packs())?;
        Ok(steps.filter(|steps| *steps <= limits::LOCATOR_STEPS_MAX).map(|steps| locator::Base { id, snapshot, steps }))
    }

    /// Replaces the parent's locator when its chain is broken, now that everything it needs is known to be there. Gives
    /// the bytes written.
    fn mend_locator(&self, id: &SnapshotId, snapshot: &Snapshot) -> Result<u64> {
        if locator::chain(self.store, id, self.known.live_packs())?.is_some() {
            return Ok(0);
        }
        let bytes = locator::encode(self.store, id, snapshot, None, self.known)?;
        self.store.backend().publish(&ObjectName::Locator(*id), &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Makes the hint list what is there, the new snapshot last.
    fn update_index(&self) -> Result<()> {
        let records = self.store.snapshots()?;
        if self.store.snapshot_index()?.is_some_and(|listed| listed == records) {
            return Ok(());
        }
        self.store.backend().publish(&ObjectName::SnapshotIndex, &encode_index(&records))
    }
}
