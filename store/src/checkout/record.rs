// SPDX-License-Identifier: Apache-2.0 OR MIT
//! After the switch: what was delivered is looked at once more and remembered.
//!
//! The record holds for each path the entry as it was applied, in this machine's owner ids, and the fingerprint of the
//! inode that holds it. A path that was kept different has none: it is read again next time.

use std::collections::BTreeSet;
use std::path::Path;

use super::chain::DirChain;
use super::merge::AppliedEntry;
use super::owners::OwnerMap;
use super::plan::{CheckoutPlan, DroppedEntry, Outcome};
use crate::error::{Error, Result};
use crate::files_cache::{CacheReader, CacheWriter, Fingerprint, RecordState};
use crate::format::manifest::{Entry, Node, Timestamp};
use crate::fsio::{self, Dir};
use crate::path::TreePath;

/// What a record is written from.
pub(super) struct Recording<'a> {
    pub(super) plan: &'a CheckoutPlan,
    pub(super) owners: &'a OwnerMap,
    pub(super) root: &'a Dir,
    /// Coarse time before the plan's walk began.
    pub(super) walk_start: Timestamp,
    /// Paths that changed between plan and switch.
    pub(super) changed_meanwhile: &'a [TreePath],
}

impl Recording<'_> {
    /// Writes the record of everything that `entries`, the target manifest, delivers, as a nameless file in `state`.
    ///
    /// # Errors
    /// [`Error::Io`], or an error of the manifest.
    pub(super) fn write(&self, entries: impl Iterator<Item = Result<Entry>>, state: &Path) -> Result<CacheWriter> {
        let touched: BTreeSet<&TreePath> = self.plan.dir_times.iter().map(|(path, _)| path).collect();
        let meanwhile: BTreeSet<&TreePath> = self.changed_meanwhile.iter().collect();
        let look_start = settle();
        let mut chain = DirChain::new(self.root);
        let mut look = |path: &TreePath| -> Result<Option<Fingerprint>> {
            let failed = |e| Error::io("look at", self.root.path_of(path.as_bytes()), e);
            let stat = if path.is_root() {
                Some(self.root.stat(b"").map_err(failed)?)
            } else {
                let (dir, name) = chain.parent(path.as_bytes()).map_err(failed)?;
                dir.stat_opt(name).map_err(failed)?
            };
            Ok(stat.and_then(|stat| Fingerprint::settled(&stat, look_start)))
        };
        let mut out = Writer { cache: CacheWriter::create(state)?, bytes: Vec::new() };
        let mut dropped = self.plan.dropped.iter().peekable();
        for (entry, outcome) in entries.zip(&self.plan.outcomes) {
            let entry = self.owners.localize(entry?);
            while let Some(entry) = dropped.next_if(|dropped| dropped.path < entry.path) {
                self.dropped(entry, &mut out)?;
            }
            let fingerprint = match outcome {
                Outcome::Skipped => continue,
                _ if meanwhile.contains(&entry.path) => None,
                Outcome::Kept => None,
                Outcome::Delivered => look(&entry.path)?,
                Outcome::Same(_) if touched.contains(&entry.path) => look(&entry.path)?,
                Outcome::Same(stat) => Fingerprint::settled(stat, self.walk_start),
            };
            out.push(RecordState::Current, fingerprint.as_ref(), &entry)?;
        }
        for entry in dropped {
            self.dropped(entry, &mut out)?;
        }
        Ok(out.cache)
    }

    fn dropped(&self, dropped: &DroppedEntry, out: &mut Writer) -> Result<()> {
        let fingerprint = dropped.same.as_ref().and_then(|stat| Fingerprint::settled(stat, self.walk_start));
        let entry = Entry { path: dropped.path.clone(), node: Node::Inode(dropped.inode.clone()) };
        out.push(RecordState::Dropped, fingerprint.as_ref(), &entry)
    }
}

struct Writer {
    cache: CacheWriter,
    bytes: Vec<u8>,
}

impl Writer {
    fn push(&mut self, state: RecordState, fingerprint: Option<&Fingerprint>, entry: &Entry) -> Result<()> {
        self.bytes.clear();
        entry.encode_into(&mut self.bytes);
        self.cache.push(state, fingerprint, &self.bytes)
    }
}

/// Waits until the kernel's clock has moved on, so that nothing that was done before carries the time that is returned.
fn settle() -> Timestamp {
    const TICK_MS: u64 = 1;
    let before = fsio::now_coarse();
    loop {
        let now = fsio::now_coarse();
        if now > before {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(TICK_MS));
    }
}

/// The record of an area as a stream for the merge.
pub(super) fn read_applied(cache: CacheReader) -> impl Iterator<Item = Result<AppliedEntry>> {
    cache.map(|record| {
        let record = record?;
        Ok(AppliedEntry {
            entry: record.decode()?,
            dropped: record.state == RecordState::Dropped,
            print: record.fingerprint,
        })
    })
}
