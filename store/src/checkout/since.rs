// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What somebody has put, or changed, in directories that a rollback takes away as a whole.

use std::collections::BTreeMap;
use std::path::Path;

use super::journal::{Journal, Op, Was};
use crate::error::Result;
use crate::files_cache::{CacheReader, CacheRecord};
use crate::fsio::FileType;
use crate::path::TreePath;

/// Of what lies in directories that give way in `inverse`, what is not as the memory at `applied` says it was delivered.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io), or a damaged memory.
pub(super) fn put_since(inverse: &Journal, applied: &Path) -> Result<Vec<TreePath>> {
    let going = inverse.steps.iter().filter_map(|step| match &step.op {
        Op::Remove { was } | Op::Replace { was, .. } => Some(was),
        Op::Add { .. } | Op::Metadata { .. } | Op::Tree(_) => None,
    });
    let mut unknown: BTreeMap<&TreePath, &Was> =
        going.flat_map(|was| &was.within).map(|(path, was)| (path, was)).collect();
    let delivered = if unknown.is_empty() { None } else { CacheReader::open(applied)? };
    for record in delivered.into_iter().flatten() {
        let record = record?;
        let path = record.path()?;
        if unknown.get(&path).is_some_and(|was| is_as_delivered(was, &record)) {
            unknown.remove(&path);
        }
    }
    Ok(unknown.into_keys().cloned().collect())
}

/// By what is remembered of the inode. What happened in a directory is told by what is in it.
fn is_as_delivered(was: &Was, record: &CacheRecord) -> bool {
    was.file_type == FileType::Directory
        || record.fingerprint.is_none_or(|print| (print.ino, print.size, print.mtime) == (was.ino, was.size, was.mtime))
}
