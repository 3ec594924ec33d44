// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lists of deltas: what each of the servers tells, as far as that was of use.

use std::collections::HashMap;

use super::choose::{self, Chain};
use crate::backend::{ObjectName, Teller, Whom};
use crate::error::{Error, Result};
use crate::format::delta::{self, DeltaIndexEntry};
use crate::format::{DecodeError, Reason};
use crate::id::SnapshotId;
use crate::limits;
use crate::store::{Store, damaged};

/// Most lists that are asked for, of all snapshots and servers together.
const LISTS_MAX: usize = 24;

/// Lists that were read, and what of them turned out to be of no use.
#[derive(Debug, Default)]
pub(super) struct Lists {
    of: HashMap<SnapshotId, List>,
    asked: usize,
    refused: Vec<(SnapshotId, DeltaIndexEntry)>,
}

#[derive(Debug, Default)]
struct List {
    entries: Vec<(DeltaIndexEntry, Teller)>,
    /// Who has told, or has nothing to tell.
    tellers: Vec<Teller>,
    /// Whether somebody else is to be asked as well.
    is_open: bool,
}

impl Lists {
    /// The cheapest chain from one of `have` to `target`. What is wrong with a list goes into `notes`.
    ///
    /// # Errors
    /// What `go_on` says.
    pub(super) fn chain(
        &mut self,
        store: &Store,
        target: &SnapshotId,
        have: &[SnapshotId],
        notes: &mut Vec<String>,
        go_on: impl Fn() -> Result<()>,
    ) -> Result<Chain> {
        let mut stopped = None;
        let chain = choose::chain(target, have, |target| {
            if let Err(error) = stopped.is_none().then(&go_on).unwrap_or(Ok(())) {
                stopped = Some(error);
            }
            if stopped.is_some() {
                return Vec::new();
            }
            self.to(store, target).unwrap_or_else(|e| {
                notes.push(format!("no deltas: {e}"));
                Vec::new()
            })
        });
        stopped.map_or(Ok(chain), Err)
    }

    /// The deltas to `target` that may be of use.
    fn to(&mut self, store: &Store, target: &SnapshotId) -> Result<Vec<DeltaIndexEntry>> {
        let list = self.of.entry(*target).or_insert_with(|| List { is_open: true, ..List::default() });
        if list.is_open && self.asked < LISTS_MAX {
            (self.asked, list.is_open) = (self.asked + 1, false);
            if let Some((entries, teller)) = read(store, target, &list.tellers)? {
                list.tellers.push(teller);
                let is_new = |new: &DeltaIndexEntry| list.entries.iter().all(|(entry, _)| entry != new);
                let new: Vec<_> = entries.into_iter().filter(is_new).map(|entry| (entry, teller)).collect();
                list.entries.extend(new);
            }
        }
        let may_be = |entry: &DeltaIndexEntry| self.refused.iter().all(|(to, bad)| (to, bad) != (target, entry));
        Ok(list.entries.iter().map(|(entry, _)| *entry).filter(may_be).collect())
    }

    /// Leaves out an entry from now on, and asks the next server for that list. Gives who told the entry.
    pub(super) fn refuse(&mut self, target: &SnapshotId, entry: &DeltaIndexEntry) -> Option<Teller> {
        self.refused.push((*target, *entry));
        let list = self.of.get_mut(target)?;
        list.is_open = true;
        list.entries.iter().find(|(known, _)| known == entry).map(|(_, teller)| *teller)
    }
}

/// The list of deltas to `target` of somebody else than `but`, and who that is; `None` when there is none.
fn read(store: &Store, target: &SnapshotId, but: &[Teller]) -> Result<Option<(Vec<DeltaIndexEntry>, Teller)>> {
    let name = ObjectName::DeltaIndex(*target);
    let decode = |bytes: &[u8]| match delta::decode_index(bytes) {
        Ok((found, entries)) if found == *target => Ok(entries),
        Ok(_) => {
            let reason = Reason::Rule("what belongs to another snapshot");
            Err(DecodeError { object: "delta index", offset: 16, field: "target", reason })
        }
        Err(e) => Err(e),
    };
    // What is newer than this program is no lie of a server.
    let mut check = |bytes: &[u8]| match decode(bytes) {
        Err(e) if !e.is_unsupported() => Err(damaged(&name)(e)),
        _ => Ok(()),
    };
    let whom = Whom { but, ..Whom::default() };
    let told = store.backend().read_told(&name, limits::DELTA_INDEX_BYTES_MAX, whom, &mut check)?;
    let entries = |(bytes, teller): (Vec<u8>, Teller)| {
        let entries = decode(&bytes).map_err(damaged(&name))?;
        Ok::<_, Error>((entries, teller))
    };
    told.map(entries).transpose()
}
