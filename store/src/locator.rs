// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a snapshot's chunks are, for readers who have no index (format-spec §30.6).

use crate::backend::{Loaded, ObjectName};
use crate::error::{Error, Result};
use crate::format::table::{Table, TableKind};
use crate::format::{DecodeError, Reason};
use crate::id::SnapshotId;
use crate::limits;
use crate::store::{Store, damaged};

/// A snapshot's locator and those that it continues at, in the order in which they are searched.
///
/// # Errors
/// [`Error::MissingObject`] or [`Error::Decode`] for one that is missing, damaged or out of step: the chain is then of no
/// use, and segments are asked instead. [`Error::Io`].
pub(crate) fn chain(store: &Store, id: &SnapshotId) -> Result<Vec<Table<Loaded>>> {
    let mut chain = Vec::new();
    let (mut at, mut steps_left) = (*id, None);
    loop {
        let table = read(store, &at)?;
        let TableKind::Locator { base, .. } = table.kind() else { return Err(out_of_step(&at)) };
        chain.push(table);
        let steps = base.map_or(0, |(_, steps)| steps);
        if steps_left.is_some_and(|left| steps + 1 != left) || steps > limits::LOCATOR_STEPS_MAX {
            return Err(out_of_step(&at));
        }
        let Some((base, steps)) = base else { return Ok(chain) };
        (at, steps_left) = (base, Some(steps));
    }
}

fn read(store: &Store, id: &SnapshotId) -> Result<Table<Loaded>> {
    let name = ObjectName::Locator(*id);
    let mut check = |bytes: &[u8]| match Table::decode(bytes).map_err(damaged(&name))?.kind() {
        TableKind::Locator { snapshot, .. } if snapshot == *id => Ok(()),
        _ => Err(Error::HashMismatch { object: name.to_string(), actual: "what belongs to another snapshot".into() }),
    };
    let bytes = store.backend().read_checked(&name, limits::LOCATOR_BYTES_MAX, &mut check)?;
    let bytes = bytes.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    Table::decode(Loaded::Read(bytes)).map_err(damaged(&name))
}

fn out_of_step(id: &SnapshotId) -> Error {
    let reason = Reason::Rule("another number of steps than the locator before it says");
    damaged(&ObjectName::Locator(*id))(DecodeError { object: "locator", offset: 96, field: "steps", reason })
}
