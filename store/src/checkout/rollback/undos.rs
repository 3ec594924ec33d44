// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What gave way in other transactions than the one that is taken back. Nobody can use it there: a name of a program in an
//! undo is no reason to withhold its rights.

use crate::checkout::chain::{DirChain, is_other_now};
use crate::checkout::displaced::{Groups, place};
use crate::checkout::journal::{Op, Step, Was};
use crate::checkout::stage::staged_name;
use crate::checkout::state::HeldArea;
use crate::checkout::transaction;
use crate::error::{Error, Result};
use crate::path::TreePath;

/// What gives way in a step, with all that goes with it.
pub(super) fn names<'s>(step: &'s Step, was: &'s Was) -> impl Iterator<Item = (&'s TreePath, &'s Was)> {
    std::iter::once((&step.path, was)).chain(was.within.iter().map(|(path, was)| (path, was)))
}

/// Counts the names that programs of `groups` have in the undo of other transactions than `number`.
///
/// # Errors
/// [`Error::Io`]; a journal that does not decode.
pub(in crate::checkout) fn count_names(groups: &mut Groups, held: &HeldArea, number: u64) -> Result<()> {
    if groups.is_empty() {
        return Ok(());
    }
    for other in transaction::numbers(&held.state)?.into_iter().filter(|other| *other != number) {
        let (Some(journal), Some(dir)) = (transaction::finished(&held.state, other)?, held.open_undo(other)?) else {
            continue;
        };
        let mut chain = DirChain::new(&dir);
        for step in &journal.steps {
            let was = match &step.op {
                Op::Replace { was, .. } | Op::Remove { was } => was,
                Op::Tree(tree) => &tree.was,
                Op::Add { .. } | Op::Metadata { .. } => continue,
            };
            for (path, was) in names(step, was) {
                if !groups.has(was.ino) {
                    continue;
                }
                let place = place(&staged_name(step.slot), &step.path, path);
                match chain.parent(&place).and_then(|(dir, name)| dir.stat_opt(name)) {
                    Ok(Some(found)) if found.ino == was.ino => groups.count_known(was.ino),
                    Err(e) if !is_other_now(&e) => return Err(Error::io("look at", dir.path_of(&place), e)),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}
