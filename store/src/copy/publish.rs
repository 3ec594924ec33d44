// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The target of a copy: what it has, and how more of it becomes known. Pack names → segment → locator → snapshot → index,
//! each durable before the next (format-spec §90.4).

use std::collections::HashSet;

use super::CopyReport;
use crate::backend::ObjectName;
use crate::commit::CommitOptions;
use crate::commit::known::KnownChunks;
use crate::commit::publish::publish_document;
use crate::commit::segments::LiveSegments;
use crate::commit::{index, locator};
use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::{Snapshot, encode_index};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::limits;
use crate::pack::{self, Footer};
use crate::progress::Progress;
use crate::segment::PackRecords;
use crate::store::Store;

/// A store that is written, and what of its index may be believed.
pub(super) struct Target<'a> {
    store: &'a Store,
    options: &'a CommitOptions,
    known: KnownChunks,
}

impl<'a> Target<'a> {
    /// Opens the index, and takes in packs that were published before a writer died.
    pub(super) fn open(store: &'a Store, options: &'a CommitOptions, report: &mut CopyReport) -> Result<Target<'a>> {
        let known = open_index(store, options, report)?;
        let mut target = Target { store, options, known };
        target.adopt(report)?;
        Ok(target)
    }

    pub(super) fn store(&self) -> &'a Store {
        self.store
    }

    pub(super) fn is_stored(&self, id: &ChunkId) -> bool {
        self.known.is_stored(id)
    }

    /// Whether a snapshot is there with all of its content, as far as the index says.
    pub(super) fn has(&self, id: &SnapshotId) -> Result<bool> {
        let is_there = match self.store.snapshot(id) {
            Ok(_) => true,
            Err(Error::UnknownSnapshot { .. }) => false,
            // One that is damaged is replaced.
            Err(e) if e.kind() == ErrorKind::Damaged => false,
            Err(e) => return Err(e),
        };
        Ok(is_there && locator::chain(self.store, id, self.known.live_packs())?.is_some())
    }

    /// The parent, where it is whole here, and the number of locators from it to a full one.
    pub(super) fn base_of(&self, snapshot: &Snapshot) -> Result<Option<(SnapshotId, Snapshot, u32)>> {
        let Some(parent) = snapshot.parent else { return Ok(None) };
        let Some(steps) = locator::chain(self.store, &parent, self.known.live_packs())? else { return Ok(None) };
        match self.store.snapshot(&parent) {
            Ok(document) => Ok(Some((parent, document, steps))),
            Err(Error::UnknownSnapshot { .. }) => Ok(None),
            Err(e) if e.kind() == ErrorKind::Damaged => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Packs that no segment names: an interrupted copy or commit published them. Whoever wrote them had verified every
    /// record; that they are still what they were is verified here, so that none of it is fetched again.
    fn adopt(&mut self, report: &mut CopyReport) -> Result<()> {
        let backend = self.store.writing()?;
        let Some(listing) = self.store.backend().listing() else { return Ok(()) };
        let named: HashSet<PackId> =
            self.known.segments().iter().flat_map(|segment| segment.table.packs()).map(|pack| pack.id).collect();
        let mut adopted = PackRecords::default();
        for id in listing.list_packs()?.into_iter().filter(|id| !named.contains(id)) {
            match self.sound_footer(&id) {
                Ok(footer) if footer.locations().any(|(id, _)| !self.is_stored(&id)) => {
                    adopted.packs.push(footer.pack);
                    adopted.records.extend(footer.locations());
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    report.warnings.push(format!("{e}; nothing of it is used"));
                }
                Err(e) => return Err(e),
            }
        }
        if adopted.packs.is_empty() {
            return Ok(());
        }
        // Who died may have left names that are not durable; from now on they are relied on.
        backend.sync_packs()?;
        report.packs_adopted += adopted.packs.len() as u64;
        self.add(adopted, report)
    }

    fn sound_footer(&self, id: &PackId) -> Result<Footer> {
        let (backend, name) = (self.store.backend(), ObjectName::Pack(*id));
        let footer = pack::read_footer(backend, id)?;
        let whole = backend.load(&name, id.as_bytes(), limits::PACK_BYTES_MAX)?;
        whole.map(|_| footer).ok_or_else(|| Error::MissingObject { object: name.to_string() })
    }

    /// Adds records to the index, of packs with durable names.
    pub(super) fn add(&mut self, records: PackRecords, report: &mut CopyReport) -> Result<()> {
        if records.records.is_empty() {
            return Ok(());
        }
        report.stored_bytes += index::add_records(self.store, self.options, records, &self.known)?;
        self.known = open_index(self.store, self.options, report)?;
        Ok(())
    }

    /// Makes a snapshot of what is there. That all of it is, is found out by its locator, which lists it.
    pub(super) fn publish(
        &mut self,
        id: SnapshotId,
        snapshot: &Snapshot,
        moved: PackRecords,
        progress: &Progress,
        report: &mut CopyReport,
    ) -> Result<()> {
        progress.start("publishing", 0, 0);
        report.stored_bytes += moved.packs.iter().map(|pack| pack.len).sum::<u64>();
        self.add(moved, report)?;
        let base = self.base_of(snapshot)?;
        if base.is_none() {
            report.absent_parents.extend(snapshot.parent.filter(|_| !self.has_document(snapshot)));
        }
        let base = base.as_ref().filter(|(.., steps)| *steps <= limits::LOCATOR_STEPS_MAX);
        let base = base.map(|(id, snapshot, steps)| locator::Base { id, snapshot, steps: *steps });
        match locator::encode(self.store, &id, snapshot, base, &self.known, self.known.live_packs())? {
            Some(bytes) => {
                self.store.writing()?.publish(&ObjectName::Locator(id), &bytes)?;
                report.stored_bytes += bytes.len() as u64;
            }
            None => {
                report.warnings.push(format!("{} has more chunks than a locator can list; it has none", id.short(12)));
            }
        }
        progress.check_cancelled()?;
        let bytes = snapshot.encode().map_err(|source| Error::Decode { object: "the snapshot".into(), source })?;
        if SnapshotId::of(&bytes) != id {
            let object = ObjectName::Snapshot(id).to_string();
            return Err(Error::HashMismatch { object, actual: SnapshotId::of(&bytes).to_string() });
        }
        publish_document(self.store, id, &bytes)?;
        report.stored_bytes += bytes.len() as u64;
        Ok(())
    }

    fn has_document(&self, child: &Snapshot) -> bool {
        child.parent.is_some_and(|parent| self.store.snapshot(&parent).is_ok())
    }

    /// Makes the list of snapshots say what is there. Copied ones may be older than those that were there before.
    pub(super) fn finish(&self, report: &mut CopyReport) -> Result<()> {
        let records = self.store.snapshots_by_time()?;
        if self.store.snapshot_index()?.is_some_and(|listed| listed == records) {
            return Ok(());
        }
        let bytes = encode_index(&records);
        self.store.writing()?.publish(&ObjectName::SnapshotIndex, &bytes)?;
        report.stored_bytes += bytes.len() as u64;
        Ok(())
    }
}

fn open_index(store: &Store, options: &CommitOptions, report: &mut CopyReport) -> Result<KnownChunks> {
    let live = LiveSegments::open(store, options)?;
    for note in live.notes {
        if !report.warnings.contains(&note) {
            report.warnings.push(note);
        }
    }
    Ok(KnownChunks::new(live.segments, live.live_packs))
}
