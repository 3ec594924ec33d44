// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries a tree switch out. Every step looks whether it is done, so it may be cut off anywhere and carried on.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use crate::area::PRIVATE_DIR;
use crate::checkout::displaced;
use crate::checkout::journal::{Journal, TreeStep};
use crate::checkout::stage::staged_name;
use crate::checkout::state::HeldArea;
use crate::checkout::transaction;
use crate::error::{Error, Result};
use crate::fsio::{Dir, FdAttrs, Lock, Replace};
use crate::id::encode_hex;
use crate::path::TreePath;
use crate::progress::Progress;

/// What the tree is called in the directory that carries it.
const TREE: &[u8] = b"tree";
const CARRIER_PREFIX: &str = ".evenkeel-";

/// Exchanges the trees, or goes on with it.
///
/// # Errors
/// [`Error::Refused`] when the root is neither of the two; [`Error::Io`]. The next command goes on from there.
pub(in crate::checkout) fn switch(
    held: &mut HeldArea,
    journal: &Journal,
    step: &TreeStep,
    may_abandon: bool,
    progress: &Progress,
) -> Result<()> {
    progress.start("exchanging the tree", 0, 0);
    let place = Place::of(held)?;
    if !is_root(held, step.was.ino)? {
        return place.settle(held, step);
    }
    let exchanged = place.lay_ready(held, step).and_then(|lock| place.exchange().map(|carrier| (carrier, lock)));
    let (carrier, _lock) = match exchanged {
        // Where the one step cannot be taken, the next command could not take it either.
        Err(error) if may_abandon && place.root_ino()? == step.was.ino => {
            place.abandon(held, journal)?;
            return Err(error);
        }
        exchanged => exchanged?,
    };
    [&place.parent, &carrier].iter().try_for_each(|dir| dir.sync()).map_err(place.failed("sync the directory of"))?;
    place.settle(held, step)
}

/// Whether the area's root is the inode of this number.
pub(super) fn is_root(held: &HeldArea, ino: u64) -> Result<bool> {
    let stat = held.root.stat(b"").map_err(|e| Error::io("look at", held.root.path(), e))?;
    Ok(stat.ino == ino)
}

/// Brings the tree that was not exchanged back to where it came from: nowhere, or the undo of a transaction.
pub(super) fn put_back_unused(held: &HeldArea, undoes: Option<u64>) -> Result<()> {
    Place::of(held)?.put_back_unused(held, undoes)
}

/// Completes a switch whose exchange was made.
pub(super) fn settle(held: &mut HeldArea, step: &TreeStep) -> Result<()> {
    Place::of(held)?.settle(held, step)
}

/// Where the area's root is, and the directory beside it that carries the other tree.
struct Place {
    parent: Dir,
    name: Vec<u8>,
    carrier: Vec<u8>,
}

impl Place {
    fn of(held: &HeldArea) -> Result<Place> {
        let failed = |e| Error::io("look at", held.root.path(), e);
        let path = held.root.real_path().map_err(failed)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let (parent, name) = (Dir::open(parent)?, name.as_bytes().to_vec());
        let (found, root) = (parent.stat(&name).map_err(failed)?, held.root.stat(b"").map_err(failed)?);
        if (found.dev, found.ino) != (root.dev, root.ino) {
            return Err(failed(io::Error::other("it was moved meanwhile")));
        }
        let carrier = format!("{CARRIER_PREFIX}{}", encode_hex(&held.area().0)).into_bytes();
        Ok(Place { parent, name, carrier })
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> Error + use<> {
        let path = self.parent.path_of(&self.name);
        move |e| Error::io(action, &path, e)
    }

    fn open_carrier(&self) -> io::Result<Option<Dir>> {
        match self.parent.open_dir(&self.carrier) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            carrier => carrier.map(Some),
        }
    }

    /// Puts the new tree beside the root, with an `.evenkeel` for the instants in which the real one is not in it. Gives
    /// the lock of that one.
    fn lay_ready(&self, held: &HeldArea, step: &TreeStep) -> Result<Lock> {
        let failed = self.failed("prepare the exchange of");
        let (carrier, _) = self.parent.make_private_dir(&self.carrier).map_err(&failed)?;
        if carrier.stat_opt(TREE).map_err(&failed)?.is_none() {
            held.staging()?.rename(&staged_name(0), &carrier, TREE, Replace::Never).map_err(&failed)?;
        }
        let tree = carrier.open_dir(TREE).map_err(&failed)?;
        if tree.stat(b"").map_err(&failed)?.ino != step.new.ino {
            let reason = format!("{} is not the tree that was staged", tree.path().display());
            return Err(Error::Refused { reason, hint: Some("look what it is, and move it away".into()) });
        }
        let (private, _) = tree.make_private_dir(PRIVATE_DIR).map_err(&failed)?;
        let lock = held.copy_marker(&private)?;
        [&tree, &carrier, &self.parent].iter().try_for_each(|dir| dir.sync()).map_err(&failed)?;
        Ok(lock)
    }

    /// The one step.
    fn exchange(&self) -> Result<Dir> {
        let failed = self.failed("exchange");
        let carrier = self.parent.open_dir(&self.carrier).map_err(&failed)?;
        carrier.rename(TREE, &self.parent, &self.name, Replace::Exchange).map_err(&failed)?;
        Ok(carrier)
    }

    fn root_ino(&self) -> Result<u64> {
        Ok(self.parent.stat(&self.name).map_err(self.failed("look at"))?.ino)
    }

    /// Ends a transaction whose exchange was not made: everything is as it was before it began.
    fn abandon(&self, held: &mut HeldArea, journal: &Journal) -> Result<()> {
        self.put_back_unused(held, journal.undoes)?;
        held.end(journal.base, 0)
    }

    fn put_back_unused(&self, held: &HeldArea, undoes: Option<u64>) -> Result<()> {
        self.bring_back(held)?;
        match undoes {
            Some(number) => held.keep_as_undo(number).map(drop),
            None => held.clear_staging(),
        }
    }

    /// What comes after the exchange.
    fn settle(&self, held: &mut HeldArea, step: &TreeStep) -> Result<()> {
        self.take_over(held, step)?;
        self.put_away(held, step)?;
        let failed = self.failed("complete");
        // Both have had another name in them for a moment.
        FdAttrs(held.root.as_fd()).set_mtime(step.new.mtime).map_err(&failed)?;
        let (old, top, staging) = (staged_name(0), TreePath::root(), held.staging()?);
        let mut lifts = transaction::lifts(held)?;
        lifts.settle(&held.root, &staging)?;
        let place = (&staging, &old[..]);
        displaced::put_time_back(&mut lifts, (&top, &old), place, step.was.ino, step.was.mtime).map_err(&failed)?;
        if staging.stat_opt(&old).map_err(&failed)?.is_some_and(|stat| stat.ino == step.was.ino) {
            displaced::strip(&mut lifts, &staging, &old, &top, &step.was).map_err(&failed)?;
        }
        Ok(())
    }

    /// `.evenkeel`, with marker, undo and lock, goes over to the new tree.
    fn take_over(&self, held: &mut HeldArea, step: &TreeStep) -> Result<()> {
        let failed = self.failed("take over");
        let root = self.parent.open_dir(&self.name).map_err(&failed)?;
        if root.stat(b"").map_err(&failed)?.ino != step.new.ino {
            return Err(Error::Refused {
                reason: format!("{} is neither the old nor the new tree of a switch", root.path().display()),
                hint: Some("somebody has put another directory there; put back the one that was there".into()),
            });
        }
        let is_own = |dir: &Dir| dir.stat(b"").map(|stat| stat.ino == step.private).map_err(&failed);
        let mut private = root.open_dir(PRIVATE_DIR).map_err(&failed)?;
        if !is_own(&private)? {
            let carrier =
                self.open_carrier().map_err(&failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            let old = carrier.open_dir(TREE).map_err(&failed)?;
            old.rename(PRIVATE_DIR, &root, PRIVATE_DIR, Replace::Exchange).map_err(&failed)?;
            [&root, &old].iter().try_for_each(|dir| dir.sync()).map_err(&failed)?;
            private = root.open_dir(PRIVATE_DIR).map_err(&failed)?;
        }
        if !is_own(&private)? {
            return Err(failed(io::Error::other("its .evenkeel is another one")));
        }
        let has_lock = is_own(&held.private)?;
        held.take_over(root, private, has_lock)
    }

    /// The old tree goes where what gave way goes.
    fn put_away(&self, held: &HeldArea, step: &TreeStep) -> Result<()> {
        let failed = self.failed("put away the old tree of");
        let Some(carrier) = self.open_carrier().map_err(&failed)? else { return Ok(()) };
        if let Some(old) = carrier.stat_opt(TREE).map_err(&failed)? {
            if old.ino != step.was.ino {
                return Err(failed(io::Error::other("another tree is in its place")));
            }
            remove_private(&carrier).map_err(&failed)?;
            let staging = held.staging()?;
            carrier.rename(TREE, &staging, &staged_name(0), Replace::Never).map_err(&failed)?;
            staging.sync().map_err(&failed)?;
        }
        self.parent.remove_dir(&self.carrier).and_then(|()| self.parent.sync()).map_err(&failed)
    }

    /// The new tree goes back into staging.
    fn bring_back(&self, held: &HeldArea) -> Result<()> {
        let failed = self.failed("take back the new tree of");
        let Some(carrier) = self.open_carrier().map_err(&failed)? else { return Ok(()) };
        if carrier.stat_opt(TREE).map_err(&failed)?.is_some() {
            remove_private(&carrier).map_err(&failed)?;
            carrier.rename(TREE, &held.staging()?, &staged_name(0), Replace::Never).map_err(&failed)?;
        }
        self.parent.remove_dir(&self.carrier).and_then(|()| self.parent.sync()).map_err(&failed)
    }
}

/// Removes the `.evenkeel` of the tree that is carried, which was there for the exchange only.
fn remove_private(carrier: &Dir) -> io::Result<()> {
    match carrier.open_dir(TREE)?.remove_all(PRIVATE_DIR) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
