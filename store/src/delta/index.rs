// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which deltas lead to a snapshot (format-spec §70.7).

use crate::backend::ObjectName;
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::{self, DeltaIndexEntry};
use crate::format::{DecodeError, Reason};
use crate::id::SnapshotId;
use crate::limits;
use crate::store::{Store, damaged};

/// The deltas to `target`; none where there is no index.
///
/// # Errors
/// [`Error::Decode`] for an index that is damaged or newer; otherwise as [`crate::backend::Backend::read`]. Who only wants
/// to be faster goes on without.
pub fn read_index(store: &Store, target: &SnapshotId) -> Result<Vec<DeltaIndexEntry>> {
    let name = ObjectName::DeltaIndex(*target);
    let decode = |bytes: &[u8]| match delta::decode_index(bytes) {
        Ok((found, entries)) if found == *target => Ok(entries),
        Ok(_) => Err(DecodeError {
            object: "delta index",
            offset: 16,
            field: "target",
            reason: Reason::Rule("what belongs to another snapshot"),
        }),
        Err(e) => Err(e),
    };
    // What is newer than this program is no lie of a server.
    let mut check = |bytes: &[u8]| match decode(bytes) {
        Err(e) if !e.is_unsupported() => Err(damaged(&name)(e)),
        _ => Ok(()),
    };
    let bytes = store.backend().read_checked(&name, limits::DELTA_INDEX_BYTES_MAX, &mut check)?;
    bytes.map_or(Ok(Vec::new()), |bytes| decode(&bytes).map_err(damaged(&name)))
}

/// Adds a delta to the index of `target`, where it takes the place of another one from the same base, whose file is then
/// removed. An index that is damaged is begun anew. Only the holder of the writer's lock may.
///
/// # Errors
/// [`Error::LimitExceeded`] for a full index; [`Error::Decode`] for one of a newer program; [`Error::Io`].
pub fn add_to_index(store: &Store, target: &SnapshotId, entry: DeltaIndexEntry) -> Result<()> {
    let listed = writable_index(store, target)?;
    require_room_in(&listed, entry.base)?;
    let (replaced, mut entries): (Vec<_>, Vec<_>) = listed.into_iter().partition(|other| other.base == entry.base);
    entries.push(entry);
    let writing = store.writing()?;
    writing.publish(&ObjectName::DeltaIndex(*target), &delta::encode_index(target, &entries))?;
    // A delta leads to one snapshot, so no other index names it.
    let gone = replaced.iter().filter(|other| other.delta != entry.delta);
    gone.map(|other| ObjectName::Delta(other.delta)).try_for_each(|name| writing.remove(&name))
}

/// Requires that the index of `target` can take a delta from `base`: to be asked before it is made.
///
/// # Errors
/// As [`add_to_index`].
pub(crate) fn require_room(store: &Store, target: &SnapshotId, base: Option<SnapshotId>) -> Result<()> {
    require_room_in(&writable_index(store, target)?, base)
}

fn require_room_in(entries: &[DeltaIndexEntry], base: Option<SnapshotId>) -> Result<()> {
    let found = entries.iter().filter(|other| other.base != base).count() as u64 + 1;
    let limit = u64::from(limits::DELTA_INDEX_ENTRIES_MAX);
    if found > limit {
        return Err(Error::LimitExceeded { what: "deltas to one snapshot", found, limit });
    }
    Ok(())
}

/// What an index lists that is about to be written. One of a newer program is left alone.
fn writable_index(store: &Store, target: &SnapshotId) -> Result<Vec<DeltaIndexEntry>> {
    match read_index(store, target) {
        Err(Error::Decode { object, source }) if source.is_unsupported() => Err(Error::Decode { object, source }),
        Err(e) if e.kind() == ErrorKind::Damaged => Ok(Vec::new()),
        read => read,
    }
}
