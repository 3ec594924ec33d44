// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots from one store to another.
//!
//! ```text
//!  snapshot → needed chunks → lacking in the target → read, verified → packs → segment → locator → snapshot → index
//! ```
//!
//! [`needed`] walks manifests, [`transfer`] moves records, [`publish`] makes them known, and [`deltas`] follow. One snapshot after the other,
//! parents first: a snapshot's document appears once everything that it needs is durable. Records are moved as they are
//! stored. A pack of which everything is needed comes out byte for byte, under its own name; of others only the needed
//! records go into new packs.

pub mod bundle;
mod deltas;
mod needed;
mod publish;
mod transfer;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::commit::CommitOptions;
use crate::error::{Error, Result};
use crate::fetch::Near;
use crate::id::SnapshotId;
use crate::progress::Progress;
use crate::store::{InitOptions, Store};

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Local memory: the target's lock, what is fetched from afar.
    pub state_dir: PathBuf,
    /// Threads that read and write packs; 0 = one per core.
    pub threads: usize,
}

impl CopyOptions {
    /// Copies with everything else as usual.
    pub fn new(state_dir: &Path) -> CopyOptions {
        CopyOptions { state_dir: state_dir.to_path_buf(), threads: 0 }
    }
}

/// What a copy did.
#[derive(Debug, Clone, Default)]
pub struct CopyReport {
    /// Snapshots that the target did not have, parents first.
    pub copied: Vec<SnapshotId>,
    /// Snapshots asked for that it had.
    pub there: Vec<SnapshotId>,
    /// Parents of copied snapshots that the target does not have.
    pub absent_parents: Vec<SnapshotId>,
    /// Chunks that were moved.
    pub chunks: u64,
    /// Deltas that the target did not have.
    pub deltas: u64,
    /// Packs that an interrupted copy or commit had left, and that are used now.
    pub packs_adopted: u64,
    /// Bytes added to the target, everything included.
    pub stored_bytes: u64,
    /// Wall time.
    pub seconds: f64,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

/// Opens the store in `path`, or makes one there with the parameters of `like` where there is none. The flag says whether
/// it was made.
///
/// # Errors
/// As [`Store::open`] and [`Store::create`].
pub fn open_target(path: &Path, like: &Store) -> Result<(Store, bool)> {
    match Store::open(path) {
        Ok(store) => Ok((store, false)),
        Err(Error::NotAStore { .. }) => Ok((Store::create(path, &InitOptions::like(like))?, true)),
        Err(e) => Err(e),
    }
}

/// Copies `snapshots`, or all there are when none is named, with everything that they need and the deltas that lead to them,
/// as far as `to` lacks it.
///
/// # Errors
/// [`Error::Refused`] when the stores cut files differently, or when `to` can only be read; [`Error::Locked`]; kind
/// [`crate::ErrorKind::Damaged`] for what no copy in `from` gives soundly; [`Error::Fetch`]; [`Error::Interrupted`];
/// [`Error::Io`]. After an error every snapshot of `to` is complete, and a further run goes on where this one ended.
pub fn copy(
    from: &Store,
    to: &Store,
    snapshots: &[SnapshotId],
    options: &CopyOptions,
    progress: &Progress,
) -> Result<CopyReport> {
    let started = Instant::now();
    require_same_format(from, to)?;
    let _lock = to.lock_writer(&options.state_dir)?;
    let mut report = CopyReport::default();
    let index_options = CommitOptions::new(Vec::new(), &options.state_dir);
    let mut target = publish::Target::open(to, &index_options, &mut report)?;
    let spool = to.state_in(&options.state_dir).join("copy");
    let ids = in_order(from, snapshots)?;
    require_base(from, &target, &ids)?;
    for id in ids {
        progress.check_cancelled()?;
        let document = from.snapshot(&id)?;
        if target.has(&id)? {
            report.there.push(id);
            deltas::copy(from, &target, &id, progress, &mut report)?;
            continue;
        }
        let reader = from.reader_of(&[id])?;
        report.warnings.extend(reader.notes().iter().cloned());
        if reader.is_far() {
            // One process at a time holds the target's lock, and what is read again is verified again.
            reader.near().keep_in(&spool)?;
        }
        let transfer = transfer::Transfer { from: &reader, to, options, spool: &spool, progress };
        let lacking = needed::lacking(&target, &reader, &document)?;
        let moved = transfer.run(lacking)?;
        report.chunks += moved.records.len() as u64;
        target.publish(id, &document, moved, progress, &mut report)?;
        give_up(reader.near(), &mut report);
        report.copied.push(id);
        deltas::copy(from, &target, &id, progress, &mut report)?;
    }
    target.finish(&mut report)?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// What is kept of a snapshot that is there now serves nobody.
fn give_up(near: &Near, report: &mut CopyReport) {
    if let Err(e) = near.drop_file() {
        report.warnings.push(format!("what was fetched is kept on: {e}"));
    }
}

/// Files that are cut differently share no chunks, and a commit into the target would find none of them.
fn require_same_format(from: &Store, to: &Store) -> Result<()> {
    if from.format().chunker == to.format().chunker {
        return Ok(());
    }
    let (theirs, ours) = (from.format().chunker.avg, to.format().chunker.avg);
    Err(Error::Refused {
        reason: format!(
            "{} cuts files otherwise than {}: into chunks of {ours} bytes on average there, of {theirs} here",
            to.path().display(),
            from.path().display()
        ),
        hint: Some("copy to a new directory: a store is made there with the same parameters".into()),
    })
}

/// What a bundle leaves out must be in the target.
fn require_base(from: &Store, target: &publish::Target<'_>, ids: &[SnapshotId]) -> Result<()> {
    let bases = from.backend().bases();
    let mut is_through = bases.is_empty();
    for id in bases {
        is_through = is_through || target.has(id)?;
    }
    let mut is_there = true;
    for id in ids {
        is_there = is_there && target.has(id)?;
    }
    if is_through || is_there {
        return Ok(());
    }
    let names: Vec<String> = bases.iter().map(|id| id.short(12)).collect();
    Err(Error::Refused {
        reason: format!(
            "{} needs the snapshot {}, which {} does not have",
            from.path().display(),
            names.join(" or "),
            target.store().path().display()
        ),
        hint: Some("nothing was changed; copy that snapshot there first, or make a bundle without --base".into()),
    })
}

/// The snapshots to copy, each once, in order of commit.
fn in_order(from: &Store, snapshots: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
    let there: Vec<SnapshotId> = from.snapshots()?.into_iter().map(|record| record.id).collect();
    if snapshots.is_empty() {
        return Ok(there);
    }
    let wanted: HashSet<SnapshotId> = snapshots.iter().copied().collect();
    let known: HashSet<SnapshotId> = there.iter().copied().collect();
    let unlisted = snapshots.iter().filter(|id| !known.contains(id));
    let mut ordered: Vec<SnapshotId> = there.iter().filter(|id| wanted.contains(id)).copied().collect();
    for id in unlisted {
        if !ordered.contains(id) {
            ordered.push(*id);
        }
    }
    Ok(ordered)
}
