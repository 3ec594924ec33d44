// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A snapshot as one file (format-spec §80): what it needs and no base has is put together as a store, and then written
//! down object by object.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::publish::Target;
use super::transfer::Transfer;
use super::{CopyOptions, CopyReport, needed};
use crate::backend::ObjectName;
use crate::commit::CommitOptions;
use crate::commit::publish::publish_document;
use crate::error::{Error, Result};
use crate::format::bundle::{BundleEntry, BundleHead, BundleKind};
use crate::format::pack::PackKind;
use crate::format::snapshot::{IndexRecord, encode_index};
use crate::fsio::{self, Batch, Lock, TempFile};
use crate::id::SnapshotId;
use crate::limits;
use crate::progress::Progress;
use crate::store::{InitOptions, Store};

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A bundle whose objects are ready to be written down. What it takes on the disk is removed when this is dropped.
#[derive(Debug)]
pub struct Assembled {
    head: BundleHead,
    names: Vec<ObjectName>,
    store: Store,
    dir: PathBuf,
    /// Data chunks that were left out, as a base has them.
    pub left_out: u64,
    _lock: Lock,
}

/// Puts a bundle together for `snapshot`, without the data chunks that all of `bases` have in common with it.
///
/// # Errors
/// As [`super::copy`]; [`Error::LimitExceeded`] for what nobody could read; [`Error::Locked`] while another bundle of the store is
/// made with this state directory.
pub fn assemble(
    from: &Store,
    snapshot: &SnapshotId,
    bases: &[SnapshotId],
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Assembled> {
    let document = from.snapshot(snapshot)?;
    let mut bases: Vec<SnapshotId> = bases.iter().filter(|base| *base != snapshot).copied().collect();
    bases.sort_unstable();
    bases.dedup();
    let within = |what, found: usize, limit: u32| match found as u64 {
        found if found > u64::from(limit) => Err(Error::LimitExceeded { what, found, limit: limit.into() }),
        _ => Ok(()),
    };
    within("bases of a bundle", bases.len(), limits::BUNDLE_BASES_MAX)?;
    let state_dir = from.state_in(&options.state_dir);
    fsio::create_dir_all(&state_dir)?;
    let lock = Lock::exclusive(&state_dir.join("bundle.lock"))?;
    let dir = state_dir.join("bundle");
    fsio::remove_tree(&dir)?;
    fsio::create_dir_all(&dir)?;
    let (store, state) = (Store::create(&dir.join("store"), &InitOptions::like(from))?, dir.join("state"));
    fsio::create_dir_all(&store.state_in(&state))?;
    let named: Vec<SnapshotId> = bases.iter().chain([snapshot]).copied().collect();
    let reader = from.reader_of(&named)?;
    progress.start("looking for what is new", 0, 0);
    let mut wanted = needed::all(&reader, &document)?;
    let count = wanted.len();
    // Who has any one of the bases must find everything, so only what all of them have is left out.
    let mut common: Option<needed::Needed> = None;
    for base in &bases {
        let has = needed::all(&reader, &from.snapshot(base)?)?;
        common = Some(match common {
            Some(common) => common.into_iter().filter(|(id, _)| has.contains_key(id)).collect(),
            None => has,
        });
    }
    let common = common.unwrap_or_default();
    wanted.retain(|id, kind| *kind == PackKind::Manifest || !common.contains_key(id));
    let left_out = (count - wanted.len()) as u64;
    let spool = dir.join("fetched");
    let mut report = CopyReport::default();
    let index_options = CommitOptions::new(Vec::new(), &state);
    let mut target = Target::open(&store, &index_options, &mut report)?;
    if reader.is_far() {
        reader.near().keep_in(&spool)?;
    }
    let moved = Transfer { from: &reader, to: &store, options, spool: &spool, progress }.run(wanted)?;
    target.add(moved, &mut report)?;
    let bytes = document.encode().map_err(|source| Error::Decode { object: "the snapshot".into(), source })?;
    publish_document(&store, *snapshot, &bytes)?;
    let record =
        IndexRecord { id: *snapshot, parent: document.parent, time: document.time.secs, len: bytes.len() as u64 };
    store.writing()?.publish(&ObjectName::SnapshotIndex, &encode_index(&[record]))?;
    let (names, entries) = objects(&store, snapshot)?;
    within("objects of a bundle", entries.len(), limits::BUNDLE_ENTRIES_MAX)?;
    let head = BundleHead { target: *snapshot, bases, entries };
    Ok(Assembled { head, names, store, dir, left_out, _lock: lock })
}

/// The objects of the bundle, in its order.
fn objects(store: &Store, snapshot: &SnapshotId) -> Result<(Vec<ObjectName>, Vec<BundleEntry>)> {
    let listing = store.listing()?;
    let single = [BundleKind::Format, BundleKind::SnapshotIndex, BundleKind::SegmentsCurrent];
    let single = single.into_iter().zip([ObjectName::Format, ObjectName::SnapshotIndex, ObjectName::SegmentsCurrent]);
    let mut all: Vec<(BundleKind, [u8; 32], ObjectName)> = single.map(|(kind, name)| (kind, [0; 32], name)).collect();
    all.push((BundleKind::Snapshot, snapshot.0, ObjectName::Snapshot(*snapshot)));
    all.extend(listing.list_segments()?.into_iter().map(|id| (BundleKind::Segment, id.0, ObjectName::Segment(id))));
    all.extend(listing.list_packs()?.into_iter().map(|id| (BundleKind::Pack, id.0, ObjectName::Pack(id))));
    all.sort_by_key(|(kind, id, _)| (kind.code(), *id));
    let entry = |(kind, id, name): &(BundleKind, [u8; 32], ObjectName)| {
        let len = store.backend().len(name)?.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
        Ok(BundleEntry { kind: kind.code(), id: *id, len })
    };
    let entries = all.iter().map(entry).collect::<Result<_>>()?;
    Ok((all.into_iter().map(|(.., name)| name).collect(), entries))
}

impl Assembled {
    /// What the bundle says it is.
    pub fn head(&self) -> &BundleHead {
        &self.head
    }

    /// Writes the bundle down as a file, which has its name once it is durable.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Interrupted`].
    pub fn write_file(&self, path: &Path, progress: &Progress) -> Result<()> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = TempFile::create(parent)?;
        self.write_parts(progress, &mut |bytes| file.write(bytes))?;
        let mut batch = Batch::default();
        batch.publish(file, path)?;
        batch.finish()
    }

    /// Writes the bundle to a pipe.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Interrupted`].
    pub fn write_to(&self, out: &mut dyn Write, progress: &Progress) -> Result<()> {
        let failed = |e| Error::io("write", "the bundle's output", e);
        self.write_parts(progress, &mut |bytes| out.write_all(bytes).map_err(failed))?;
        out.flush().map_err(failed)
    }

    fn write_parts(&self, progress: &Progress, write: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        progress.start("writing", self.names.len() as u64, self.head.file_len());
        let mut hasher = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            hasher.update(bytes);
            progress.advance(0, bytes.len() as u64);
            write(bytes)
        };
        put(&self.head.encode())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        for (name, entry) in self.names.iter().zip(&self.head.entries) {
            let object = self.store.backend().open(name)?;
            let object = object.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
            let mut at = 0;
            while at < entry.len {
                progress.check_cancelled()?;
                let len = usize::try_from(entry.len - at).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
                object.read_exact_at(&mut buffer[..len], at)?;
                put(&buffer[..len])?;
                at += len as u64;
            }
        }
        write(hasher.finalize().as_bytes())
    }
}

impl Drop for Assembled {
    fn drop(&mut self) {
        // What stays is removed by the next bundle.
        let _ = fsio::remove_tree(&self.dir);
    }
}
