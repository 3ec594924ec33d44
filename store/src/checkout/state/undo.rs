// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What gave way in finished transactions: `.evenkeel/undo/<number>/`.

use std::path::PathBuf;

use super::{HeldArea, STAGING, UNDO};
use crate::checkout::lift::{self, Lifts};
use crate::error::{Error, Result};
use crate::format::manifest::Timestamp;
use crate::fsio::{Dir, Replace};

impl HeldArea {
    fn undo(&self) -> Result<Dir> {
        let made = self.private.make_private_dir(UNDO);
        Ok(made.map_err(|e| Error::io("prepare", self.private.path_of(UNDO), e))?.0)
    }

    /// Where all of it is.
    pub(in crate::checkout) fn undo_path(&self) -> PathBuf {
        self.private.path_of(UNDO)
    }

    /// Makes the staging directory of a switch the undo of transaction `number`. Gives whether there was anything in it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in crate::checkout) fn keep_as_undo(&self, number: u64) -> Result<bool> {
        let failed = |e| Error::io("keep", self.private.path_of(STAGING), e);
        let staging = match self.private.open_dir(STAGING) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            staging => staging.map_err(failed)?,
        };
        if staging.names().map_err(failed)?.is_empty() {
            return self.private.remove_dir(STAGING).map(|()| false).map_err(failed);
        }
        let undo = self.undo()?;
        let name = number.to_string();
        // What a switch without a journal left there under this number is older.
        if undo.stat_opt(name.as_bytes()).map_err(failed)?.is_some() {
            undo.remove_all(name.as_bytes()).map_err(failed)?;
        }
        self.private.rename(STAGING, &undo, name.as_bytes(), Replace::Never).map_err(failed)?;
        undo.sync().and_then(|()| self.private.sync()).map(|()| true).map_err(failed)
    }

    /// Makes the undo of transaction `number` the staging directory; it may be that already, or never have been.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in crate::checkout) fn stage_undo(&self, number: u64) -> Result<()> {
        let (undo, name) = (self.undo()?, number.to_string());
        match undo.rename(name.as_bytes(), &self.private, STAGING, Replace::Never) {
            Err(e) if !matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::AlreadyExists) => {
                Err(Error::io("prepare", undo.path_of(name.as_bytes()), e))
            }
            _ => Ok(()),
        }
    }

    /// Numbers of the transactions whose displaced files are kept, ascending, and when each ended.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in crate::checkout) fn undos(&self) -> Result<Vec<(u64, Timestamp)>> {
        let failed = |e| Error::io("list", self.private.path_of(UNDO), e);
        let undo = match self.private.open_dir(UNDO) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            undo => undo.map_err(failed)?,
        };
        let mut found = Vec::new();
        for name in undo.names().map_err(failed)? {
            if let Some(number) = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok()) {
                found.push((number, undo.stat(&name).map_err(failed)?.ctime));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The greatest number of an undo; 0 when there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in crate::checkout) fn last_undo(&self) -> Result<u64> {
        Ok(self.undos()?.last().map_or(0, |(number, _)| *number))
    }

    /// Removes what gave way in transaction `number`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in crate::checkout) fn drop_undo(&self, number: u64) -> Result<()> {
        let (undo, name) = (self.undo()?, number.to_string());
        match undo.remove_all(name.as_bytes()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", undo.path_of(name.as_bytes()), e))
            }
            _ => Ok(()),
        }
    }

    /// Gives what gave way its flags again, where who was giving it its rights was cut off. It is in an undo, or staged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn settle_given_back(&self) -> Result<()> {
        let lifts = Lifts::of_giving_back(&self.state)?;
        if lifts.is_empty() {
            return Ok(());
        }
        for (number, _) in self.undos()? {
            if let Some(dir) = self.open_undo(number)? {
                lifts.settle(&self.root, &dir)?;
            }
        }
        if self.has_staging()? {
            lifts.settle(&self.root, &self.staging()?)?;
        }
        self.root.sync_filesystem().map_err(|e| Error::io("sync file system of", self.root.path(), e))?;
        lift::forget_giving_back(&self.state)
    }

    /// Opens the undo of transaction `number`; `None` when nothing gave way in it, or it was dropped.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in crate::checkout) fn open_undo(&self, number: u64) -> Result<Option<Dir>> {
        let (undo, name) = (self.undo()?, number.to_string());
        match undo.open_dir(name.as_bytes()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some).map_err(|e| Error::io("open", undo.path_of(name.as_bytes()), e)),
        }
    }
}
