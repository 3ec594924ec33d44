// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The deltas to a snapshot that is copied. They are hints: one that is damaged is told of and left behind.

use super::CopyReport;
use super::publish::Target;
use crate::backend::ObjectName;
use crate::delta::{add_to_index, read_head, read_index, read_whole, require_room};
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::DeltaIndexEntry;
use crate::id::SnapshotId;
use crate::progress::Progress;
use crate::store::Store;

/// Copies the deltas to `id`, a snapshot that the target has, as far as it lacks them. One from the same base gives way.
pub(super) fn copy(
    from: &Store,
    target: &Target<'_>,
    id: &SnapshotId,
    progress: &Progress,
    report: &mut CopyReport,
) -> Result<()> {
    let Some(listed) = or_warn(report, read_index(from, id))? else { return Ok(()) };
    if listed.is_empty() {
        return Ok(());
    }
    let there = match read_index(target.store(), id) {
        // It is begun anew.
        Err(e) if e.is_of_one_object() => Vec::new(),
        there => there?,
    };
    for entry in listed {
        let len = target.store().backend().len(&ObjectName::Delta(entry.delta))?;
        if there.contains(&entry) && len == Some(entry.file_len) {
            continue;
        }
        progress.check_cancelled()?;
        let copied = require_room(target.store(), id, entry.base);
        if or_warn(report, copied.and_then(|()| copy_one(from, target, id, &entry, progress)))?.is_some() {
            add_to_index(target.store(), id, entry)?;
            report.deltas += 1;
            report.stored_bytes += entry.file_len;
        }
    }
    Ok(())
}

/// Copies one delta; durable under its name when this returns.
fn copy_one(
    from: &Store,
    target: &Target<'_>,
    id: &SnapshotId,
    entry: &DeltaIndexEntry,
    progress: &Progress,
) -> Result<()> {
    let head = read_head(from, id, entry)?;
    // Who cannot use a frame takes its chunks from packs (format-spec §70.9).
    if let Some(absent) = head.frames.iter().flat_map(|frame| &frame.outputs).find(|out| !target.is_stored(&out.id)) {
        return Err(Error::MissingObject { object: format!("chunk {}, which a delta gives,", absent.id) });
    }
    progress.start("copying a delta", 0, entry.file_len - entry.head_len);
    let writing = target.store().writing()?;
    let mut file = writing.create_temp()?;
    read_whole(from, entry, &head, progress, &mut |bytes| file.write(bytes))?;
    writing.publish_temp(file, &ObjectName::Delta(entry.delta))?;
    writing.sync_names()
}

/// What is wrong with a delta or a list of them is worth a line.
fn or_warn<T>(report: &mut CopyReport, read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Unsupported | ErrorKind::Limit) => {
            report.warnings.push(format!("a delta was not copied: {e}"));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
