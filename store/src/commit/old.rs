// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was known of an area before: records in path order, to be met by a walk.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::error::{ErrorKind, Result};
use crate::files_cache::{CacheReader, CacheRecord, RecordState};
use crate::manifest::Manifest;
use crate::path::{self, TreePath};

type Records<'r> = Box<dyn Iterator<Item = Result<CacheRecord>> + 'r>;

/// Old records, consumed by paths in ascending order.
pub(super) struct OldRecords<'r> {
    records: Peekable<Records<'r>>,
    passed: u64,
}

impl<'r> OldRecords<'r> {
    /// None at all.
    pub(super) fn none() -> OldRecords<'r> {
        OldRecords { records: (Box::new(std::iter::empty()) as Records<'r>).peekable(), passed: 0 }
    }

    /// Those of a files cache.
    pub(super) fn of_cache(cache: CacheReader) -> OldRecords<'r> {
        OldRecords { records: (Box::new(cache) as Records<'r>).peekable(), passed: 0 }
    }

    /// Those of a manifest; they prove nothing about inodes. A damaged one ends early: they are only counted.
    pub(super) fn of_manifest(manifest: &Manifest<'r>) -> OldRecords<'r> {
        let records = manifest.entries().map_while(|entry| {
            let record = entry.map(|entry| {
                let mut encoded = Vec::new();
                entry.encode_into(&mut encoded);
                CacheRecord { state: RecordState::Current, fingerprint: None, entry: encoded }
            });
            Some(record).filter(|record| !record.as_ref().is_err_and(|e| e.kind() == ErrorKind::Damaged))
        });
        OldRecords { records: (Box::new(records) as Records<'r>).peekable(), passed: 0 }
    }

    /// The record of `path`, which sorts after the last one asked for.
    ///
    /// # Errors
    /// Those of the source.
    pub(super) fn at(&mut self, path: &TreePath) -> Result<Option<CacheRecord>> {
        loop {
            let order = match self.records.peek() {
                None => return Ok(None),
                Some(Ok(record)) => path::compare(record.path_bytes()?, path.as_bytes()),
                Some(Err(_)) => Ordering::Less,
            };
            match order {
                Ordering::Greater => return Ok(None),
                Ordering::Equal => return self.records.next().transpose(),
                Ordering::Less => {
                    self.records.next().transpose()?;
                    self.passed += 1;
                }
            }
        }
    }

    /// Goes to the end. Gives how many records no path asked for.
    ///
    /// # Errors
    /// Those of the source.
    pub(super) fn unmet(mut self) -> Result<u64> {
        self.records.try_fold(self.passed, |unmet, record| record.map(|_| unmet + 1))
    }
}
