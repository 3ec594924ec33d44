// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a snapshot's chunks are, for readers who have no index (format-spec §30.6).

use crate::backend::{Loaded, ObjectName, Teller, Whom};
use crate::error::{Error, ErrorKind, Result};
use crate::format::table::{Table, TableKind};
use crate::format::{DecodeError, Reason};
use crate::id::SnapshotId;
use crate::limits;
use crate::store::{Store, damaged};

/// A table of places, and who told them. Nothing but the chunks in these places proves them.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) table: Table<Loaded>,
    pub(crate) teller: Teller,
    /// The object that says so.
    pub(crate) name: ObjectName,
    /// Bytes that it takes.
    pub(crate) len: u64,
}

/// A chain of locators that is of no use.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Who told its first one; `None` when nobody did.
    pub(crate) teller: Option<Teller>,
    pub(crate) why: Error,
    /// Whether all of it is of that one.
    pub(crate) is_of_one: bool,
}

/// A snapshot's locator and those that it continues at, in the order in which they are searched: told by anybody but `but`,
/// and of no more than `bytes_max` bytes together. One that is missing, damaged or out of step makes the chain of no use:
/// somebody else is asked then, and at last segments.
///
/// # Errors
/// [`Error::Fetch`]; [`Error::Io`].
pub(crate) fn chain(
    store: &Store,
    id: &SnapshotId,
    but: &[Teller],
    bytes_max: u64,
) -> Result<std::result::Result<Vec<Told>, Broken>> {
    let mut chain: Vec<Told> = Vec::new();
    let (mut at, mut steps_left, mut bytes_left) = (*id, None, bytes_max);
    loop {
        let told = match read(store, &at, but, bytes_left) {
            Ok(told) => told,
            Err(why) if why.kind() == ErrorKind::Damaged => return Ok(Err(broken(&chain, why))),
            Err(e) => return Err(e),
        };
        bytes_left -= told.len;
        let kind = told.table.kind();
        chain.push(told);
        let TableKind::Locator { base, .. } = kind else { return Ok(Err(broken(&chain, out_of_step(&at)))) };
        let steps = base.map_or(0, |(_, steps)| steps);
        if steps_left.is_some_and(|left| steps + 1 != left) || steps > limits::LOCATOR_STEPS_MAX {
            return Ok(Err(broken(&chain, out_of_step(&at))));
        }
        let Some((base, steps)) = base else { return Ok(Ok(chain)) };
        (at, steps_left) = (base, Some(steps));
    }
}

fn broken(chain: &[Told], why: Error) -> Broken {
    let teller = chain.first().map(|told| told.teller);
    Broken { teller, why, is_of_one: chain.iter().all(|told| Some(told.teller) == teller) }
}

fn read(store: &Store, id: &SnapshotId, but: &[Teller], bytes_max: u64) -> Result<Told> {
    let name = ObjectName::Locator(*id);
    let mut check = |bytes: &[u8]| match Table::decode(bytes).map_err(damaged(&name))?.kind() {
        TableKind::Locator { snapshot, .. } if snapshot == *id => Ok(()),
        _ => Err(Error::HashMismatch { object: name.to_string(), actual: "what belongs to another snapshot".into() }),
    };
    let (cap, whom) = (limits::LOCATOR_BYTES_MAX.min(bytes_max), Whom { but, ..Whom::default() });
    let told = store.backend().read_told(&name, cap, whom, &mut check)?;
    let (bytes, teller) = told.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    let len = bytes.len() as u64;
    Ok(Told { table: Table::decode(Loaded::Read(bytes)).map_err(damaged(&name))?, teller, name, len })
}

fn out_of_step(id: &SnapshotId) -> Error {
    let reason = Reason::Rule("another number of steps than the locator before it says");
    damaged(&ObjectName::Locator(*id))(DecodeError { object: "locator", offset: 96, field: "steps", reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::table;
    use crate::store::InitOptions;

    /// Sixteen locators of which each is as long as one may be were four gigabytes.
    #[test]
    fn a_chain_has_a_bound_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("store"), &InitOptions::default()).unwrap();
        let (newer, older) = (SnapshotId([1; 32]), SnapshotId([2; 32]));
        let mut bytes = 0;
        for (snapshot, base) in [(newer, Some((older, 1))), (older, None)] {
            let table = table::encode(TableKind::Locator { snapshot, base }, &[], Vec::new()).unwrap();
            store.writing().unwrap().publish(&ObjectName::Locator(snapshot), &table).unwrap();
            bytes += table.len() as u64;
        }
        assert_eq!(chain(&store, &newer, &[], bytes).unwrap().unwrap().len(), 2);
        let broken = chain(&store, &newer, &[], bytes - 1).unwrap().unwrap_err();
        assert!(broken.is_of_one && broken.why.to_string().contains(&older.to_hex()), "{broken:?}");
    }
}
