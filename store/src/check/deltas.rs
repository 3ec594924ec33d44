// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deltas: lists and tables always, payloads on request. All of them can be made again, so none hurts a snapshot.

use super::packs::sample;
use super::snapshots::Listed;
use super::{CheckOptions, CheckReport, Findings, Severity, problem_of};
use crate::backend::ObjectName;
use crate::delta::{read_head, read_index, read_whole, require_len};
use crate::error::Result;
use crate::format::delta::{Delta, DeltaIndexEntry};
use crate::id::SnapshotId;
use crate::progress::Progress;
use crate::store::Store;

/// A delta whose table is sound.
struct Known {
    entry: DeltaIndexEntry,
    head: Delta,
}

/// Checks the deltas to all snapshots that are there.
pub(super) fn check_deltas(
    store: &Store,
    listed: &Listed,
    options: &CheckOptions,
    progress: &Progress,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<()> {
    progress.start("checking deltas", listed.ids().count() as u64, 0);
    let mut known = Vec::new();
    for target in listed.ids() {
        progress.check_cancelled()?;
        let name = ObjectName::DeltaIndex(target);
        if let Some(entries) = sound(findings, &name, read_index(store, &target))? {
            report.deltas += entries.len() as u64;
            for entry in entries {
                let head = head(store, &target, &entry);
                let head = sound(findings, &ObjectName::Delta(entry.delta), head)?;
                known.extend(head.map(|head| Known { entry, head }));
            }
        }
        progress.advance(1, 0);
    }
    if !options.read_data {
        return Ok(());
    }
    let chosen = sample(&known, |known| known.entry.delta.as_bytes(), options.sample_percent)?;
    let bytes = chosen.iter().map(|known| known.entry.file_len - known.entry.head_len).sum();
    progress.start("reading deltas", chosen.len() as u64, bytes);
    for Known { entry, head } in chosen {
        let read = read_whole(store, entry, head, progress, &mut |_| Ok(()));
        if sound(findings, &ObjectName::Delta(entry.delta), read)?.is_some() {
            report.bytes_read += entry.file_len;
        }
        progress.advance(1, 0);
    }
    Ok(())
}

fn head(store: &Store, target: &SnapshotId, entry: &DeltaIndexEntry) -> Result<Delta> {
    require_len(store, entry)?;
    read_head(store, target, entry)
}

/// What was read; `None`, and a finding, for what is damaged or lost.
fn sound<T>(findings: &mut Findings, name: &ObjectName, read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if e.is_of_one_object() => {
            let problem = format!("{}; chunks come from packs until the delta is made again", problem_of(&e));
            findings.add(name.to_string(), problem, Severity::Rebuildable);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
