// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The last steps of a commit, each durable before the next: pack names → segment → locator → snapshot → index
//! (format-spec §90.4). A crash between two of them leaves garbage, never a dangling reference.

use std::collections::HashSet;

use super::area::AreaResult;
use super::known::KnownChunks;
use super::pipeline::Results;
use super::{CommitOptions, index, locator};
use crate::backend::ObjectName;
use crate::error::{Error, Result};
use crate::format::snapshot::{Snapshot, encode_index};
use crate::format::table::TablePack;
use crate::id::{PackId, SnapshotId};
use crate::limits;
use crate::progress::Progress;
use crate::segment::PackRecords;
use crate::store::Store;

pub(super) struct Publication<'a> {
    pub(super) store: &'a Store,
    pub(super) options: &'a CommitOptions,
    pub(super) parent: Option<&'a (SnapshotId, Snapshot)>,
    pub(super) known: &'a KnownChunks,
}

/// What was published.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The new snapshot.
    pub(super) snapshot: Option<SnapshotId>,
    /// Bytes added to the store.
    pub(super) stored_bytes: u64,
    /// What went wrong without making the snapshot any less good, a line each.
    pub(super) warnings: Vec<String>,
}

impl Publication<'_> {
    /// Publishes everything; without `snapshot` (nothing changed) only what was stored on the way and the files caches.
    ///
    /// The snapshot's document is the commit. What fails before it fails the commit; what comes after it only makes later
    /// commands faster, and its failure is a warning.
    pub(super) fn run(&self, snapshot: Option<&Snapshot>, results: Results, progress: &Progress) -> Result<Published> {
        progress.start("publishing", 0, 0);
        let mut done = Published::default();
        done.stored_bytes += results.packs.iter().map(|pack| pack.len).sum::<u64>();
        sync_packs(self.store, &results.packs)?;
        let new_packs = results.packs.iter().map(|pack| pack.id);
        let usable: HashSet<PackId> = self.known.live_packs().iter().copied().chain(new_packs).collect();
        if !results.records.is_empty() {
            let new = PackRecords { packs: results.packs, records: results.records };
            done.stored_bytes += index::add_records(self.store, self.options, new, self.known)?;
        }
        match snapshot {
            Some(snapshot) => self.publish_snapshot(snapshot, &usable, progress, &mut done)?,
            None => {
                let mended = self.mend_locator(&usable, &mut done);
                warn(&mut done.warnings, "the locator was not renewed", mended);
            }
        }
        warn(&mut done.warnings, "the list of snapshots was not renewed", self.update_index());
        self.keep_caches(results.areas, &mut done);
        Ok(done)
    }

    fn publish_snapshot(
        &self,
        snapshot: &Snapshot,
        usable: &HashSet<PackId>,
        progress: &Progress,
        done: &mut Published,
    ) -> Result<()> {
        let backend = self.store.writing()?;
        let bytes = snapshot.encode().map_err(|source| Error::Decode { object: "the new snapshot".into(), source })?;
        let id = SnapshotId::of(&bytes);
        match locator::encode(self.store, &id, snapshot, self.base()?, self.known, usable)? {
            Some(locator) => {
                backend.publish(&ObjectName::Locator(id), &locator)?;
                done.stored_bytes += locator.len() as u64;
            }
            None => done.warnings.push("the snapshot has more chunks than a locator can list; it has none".into()),
        }
        progress.check_cancelled()?;
        publish_document(self.store, id, &bytes)?;
        done.stored_bytes += bytes.len() as u64;
        done.snapshot = Some(id);
        Ok(())
    }

    /// Keeps the files caches for the snapshot that the trees are now known to equal.
    fn keep_caches(&self, areas: Vec<AreaResult>, done: &mut Published) {
        let Some(current) = done.snapshot.or(self.parent.map(|(id, _)| *id)) else { return };
        for area in areas {
            if let Some(cache) = area.cache
                && (cache.is_stale || done.snapshot.is_some())
            {
                let what = format!("the next commit reads area `{}` again", area.report.name);
                warn(&mut done.warnings, &what, cache.finish(current));
            }
        }
    }

    /// The parent, if a locator may continue at it.
    fn base(&self) -> Result<Option<locator::Base<'_>>> {
        let Some((id, snapshot)) = self.parent else { return Ok(None) };
        let steps = locator::chain(self.store, id, self.known.live_packs())?;
        Ok(steps.filter(|steps| *steps <= limits::LOCATOR_STEPS_MAX).map(|steps| locator::Base { id, snapshot, steps }))
    }

    /// Replaces the parent's locator when its chain is broken, now that everything it needs is known to be there.
    fn mend_locator(&self, usable: &HashSet<PackId>, done: &mut Published) -> Result<()> {
        let Some((id, snapshot)) = self.parent else { return Ok(()) };
        if locator::chain(self.store, id, self.known.live_packs())?.is_some() {
            return Ok(());
        }
        if let Some(bytes) = locator::encode(self.store, id, snapshot, None, self.known, usable)? {
            self.store.writing()?.publish(&ObjectName::Locator(*id), &bytes)?;
            done.stored_bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes the hint list what is there, the new snapshot last.
    fn update_index(&self) -> Result<()> {
        let records = self.store.snapshots()?;
        if self.store.snapshot_index()?.is_some_and(|listed| listed == records) {
            return Ok(());
        }
        self.store.writing()?.publish(&ObjectName::SnapshotIndex, &encode_index(&records))
    }
}

/// Makes the names of new packs durable. Where that fails they are removed: a sync that succeeds later would prove
/// nothing about them (format-spec §90.4).
pub(crate) fn sync_packs(store: &Store, packs: &[TablePack]) -> Result<()> {
    let backend = store.writing()?;
    backend.sync_names().inspect_err(|_| {
        for pack in packs {
            // One that stays is garbage; the first error is what counts.
            let _ = backend.remove(&ObjectName::Pack(pack.id));
        }
    })
}

/// Publishes a snapshot's document, whose locator and content are there.
pub(crate) fn publish_document(store: &Store, id: SnapshotId, bytes: &[u8]) -> Result<()> {
    let (backend, name) = (store.writing()?, ObjectName::Snapshot(id));
    let was_there = backend.len(&name)?.is_some();
    backend.publish(&name, bytes).inspect_err(|_| {
        if !was_there {
            // It may have its name, though not durably. A command that says that it failed leaves none.
            let _ = backend.remove(&name);
        }
    })
}

/// Notes a failure that changes nothing about what was committed.
fn warn(warnings: &mut Vec<String>, consequence: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        warnings.push(format!("{consequence}: {error}{cause}"));
    }
}
