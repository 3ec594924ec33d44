// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deltas read from a store: their tables, and all of them by who copies or audits (format-spec §70.8).

use std::ops::Range;

use crate::backend::ObjectName;
use crate::error::{Error, Result};
use crate::format::delta::{Delta, DeltaIndexEntry};
use crate::format::{DecodeError, Reason};
use crate::id::{DeltaId, SnapshotId};
use crate::progress::Progress;
use crate::store::{Store, damaged};

/// Payload bytes that are read at once, unless one payload is longer.
const READ_BYTES: u64 = 16 << 20;

/// Reads the table of a delta, which is what the index of `target` says.
///
/// # Errors
/// [`Error::Decode`] for a table that is damaged, newer, or another delta's; [`Error::MissingObject`]; as
/// [`crate::backend::Object::read_checked_at`].
pub(crate) fn read_head(store: &Store, target: &SnapshotId, entry: &DeltaIndexEntry) -> Result<Delta> {
    let name = ObjectName::Delta(entry.delta);
    let decode = |bytes: &[u8]| {
        let delta = Delta::decode(bytes, entry.file_len)?;
        if (delta.base, delta.target) == (entry.base, *target) {
            return Ok(delta);
        }
        let reason = Reason::Rule("between other snapshots than the index says");
        Err(DecodeError { object: "delta", offset: 32, field: "target", reason })
    };
    // What is newer than this program is no lie of a server.
    let mut check = |bytes: &[u8]| match decode(bytes) {
        Err(e) if !e.is_unsupported() => Err(damaged(&name)(e)),
        _ => Ok(()),
    };
    let missing = || Error::MissingObject { object: name.to_string() };
    let len = usize::try_from(entry.head_len).map_err(|_| missing())?;
    let object = store.backend().open(&name)?.ok_or_else(missing)?;
    let bytes = object.read_part(0, len, &mut check)?;
    decode(&bytes).map_err(damaged(&name))
}

/// Requires the file to be as long as the index says.
///
/// # Errors
/// [`Error::Decode`] for another length; otherwise as [`crate::backend::Object::size`].
pub(crate) fn require_len(store: &Store, entry: &DeltaIndexEntry) -> Result<()> {
    let name = ObjectName::Delta(entry.delta);
    let object = store.backend().open(&name)?.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    let found = object.size()?;
    let reason = match found.cmp(&entry.file_len) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => Reason::Truncated,
        std::cmp::Ordering::Greater => Reason::Trailing,
    };
    let offset = found.min(entry.file_len);
    Err(damaged(&name)(DecodeError { object: "delta", offset, field: "file", reason }))
}

/// Reads the rest of a delta whose table `head` is: each payload must be what the table says, and the file what its name
/// says. `sink` gets the bytes of the whole file in order, of which nothing may be believed before this returns.
///
/// # Errors
/// [`Error::HashMismatch`]; as [`require_len`]; what `sink` fails with; [`Error::Interrupted`].
pub(crate) fn read_whole(
    store: &Store,
    entry: &DeltaIndexEntry,
    head: &Delta,
    progress: &Progress,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    require_len(store, entry)?;
    let name = ObjectName::Delta(entry.delta);
    let object = store.backend().open(&name)?.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    let mismatch = |actual: String| Error::HashMismatch { object: name.to_string(), actual };
    let bytes = head.encode();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes);
    sink(&bytes)?;
    let offsets = head.payload_offsets(entry.head_len);
    let mut first = 0;
    while first < head.frames.len() {
        progress.check_cancelled()?;
        let end = end_of_part(&offsets, first);
        let start = offsets[first];
        let place = |frame: usize| -> Range<usize> {
            let at = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
            at(offsets[frame])..at(offsets[frame + 1])
        };
        let mut all_sound = |bytes: &[u8]| {
            let is_sound = |frame: usize| bytes.get(place(frame)).is_some_and(|b| head.frames[frame].is_payload(b));
            match (first..end).find(|frame| !is_sound(*frame)) {
                None => Ok(()),
                Some(frame) => Err(mismatch(format!("something else in payload {frame}"))),
            }
        };
        let len = usize::try_from(offsets[end] - start).unwrap_or(usize::MAX);
        let bytes = object.read_part(start, len, &mut all_sound)?;
        hasher.update(&bytes);
        sink(&bytes)?;
        progress.advance(0, bytes.len() as u64);
        first = end;
    }
    let actual = DeltaId(*hasher.finalize().as_bytes());
    if actual == entry.delta { Ok(()) } else { Err(mismatch(actual.to_string())) }
}

/// The frame behind those that are read together with `first`.
fn end_of_part(offsets: &[u64], first: usize) -> usize {
    let fits = |end: &usize| offsets[*end] - offsets[first] <= READ_BYTES;
    (first + 2..offsets.len()).take_while(fits).last().unwrap_or(first + 1)
}
