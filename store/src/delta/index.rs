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

/// Adds a delta to the index of `target`, where it takes the place of another one from the same base. An index that is
/// damaged is begun anew. Only the holder of the writer's lock may.
///
/// # Errors
/// [`Error::LimitExceeded`] for a full index; [`Error::Decode`] for one of a newer program; [`Error::Io`].
pub fn add_to_index(store: &Store, target: &SnapshotId, entry: DeltaIndexEntry) -> Result<()> {
    let mut entries = match read_index(store, target) {
        Err(Error::Decode { object, source }) if source.is_unsupported() => {
            return Err(Error::Decode { object, source });
        }
        Err(e) if e.kind() == ErrorKind::Damaged => Vec::new(),
        read => read?,
    };
    entries.retain(|other| other.base != entry.base);
    entries.push(entry);
    let (found, limit) = (entries.len() as u64, u64::from(limits::DELTA_INDEX_ENTRIES_MAX));
    if found > limit {
        return Err(Error::LimitExceeded { what: "deltas to one snapshot", found, limit });
    }
    store.writing()?.publish(&ObjectName::DeltaIndex(*target), &delta::encode_index(target, &entries))
}
