// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store in a local directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Backend, ObjectName};
use crate::error::{Error, Result};
use crate::fsio::{self, Batch, Mapped, OpenFile, TempFile};
use crate::id::{PackId, SegmentId, SnapshotId};

/// Directory of unpublished files.
const TMP: &str = "tmp";

/// Objects as files below one directory.
#[derive(Debug)]
pub struct LocalBackend {
    root: PathBuf,
    /// Directories with names that are not durable yet.
    unsynced: Mutex<Batch>,
}

impl LocalBackend {
    /// Uses an existing directory.
    pub fn new(root: &Path) -> LocalBackend {
        LocalBackend { root: root.to_path_buf(), unsynced: Mutex::new(Batch::default()) }
    }

    /// Makes the directories of an empty store. The root may exist if it is empty.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] or [`Error::Io`].
    pub fn create(root: &Path) -> Result<LocalBackend> {
        if !fsio::create_dir_all(root)? && !fsio::list_dir(root)?.is_empty() {
            return Err(Error::NotEmpty { path: root.to_path_buf() });
        }
        for dir in ["packs", "segments", "locators", "snapshots", TMP] {
            fsio::create_dir_all(&root.join(dir))?;
        }
        Ok(LocalBackend::new(root))
    }

    fn path_of(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// Removes what a writer that died left behind. Only the holder of the writer lock may call it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep_temporaries(&self) -> Result<u64> {
        let tmp = self.root.join(TMP);
        fsio::create_dir_all(&tmp)?;
        let mut swept = 0;
        let mut dirs = vec![tmp];
        // A small object's temporary lies in the directory of its target.
        dirs.extend(["", "segments", "locators", "snapshots"].map(|dir| self.root.join(dir)));
        for dir in dirs {
            swept += fsio::sweep_temporaries(&dir)?;
        }
        Ok(swept)
    }

    fn list_ids<T: std::str::FromStr + Ord>(&self, dir: &str, suffix: &str) -> Result<Vec<T>> {
        let mut ids: Vec<T> = fsio::list_dir(&self.root.join(dir))?
            .iter()
            .filter_map(|name| std::str::from_utf8(name).ok()?.strip_suffix(suffix)?.parse().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

/// `None` for an object that is not there.
fn if_there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Backend for LocalBackend {
    fn path(&self) -> &Path {
        &self.root
    }

    fn read(&self, name: &ObjectName, cap: u64) -> Result<Option<Vec<u8>>> {
        if_there(fsio::read_capped(&self.path_of(name), cap))
    }

    fn open(&self, name: &ObjectName) -> Result<Option<OpenFile>> {
        if_there(OpenFile::open(&self.path_of(name)))
    }

    fn map(&self, name: &ObjectName) -> Result<Option<Mapped>> {
        if_there(Mapped::open(&self.path_of(name)))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<u64>> {
        fsio::file_len(&self.path_of(name))
    }

    fn publish(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        fsio::publish_file(&self.path_of(name), bytes)
    }

    fn create_temp(&self) -> Result<TempFile> {
        TempFile::create(&self.root.join(TMP))
    }

    fn publish_temp(&self, file: TempFile, name: &ObjectName) -> Result<()> {
        let target = self.path_of(name);
        let dir = target.parent().expect("every object lies in the store's directory");
        let mut batch = Batch::default();
        fsio::create_dir_all(dir)?;
        batch.publish(file, &target)?;
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).merge(batch);
        Ok(())
    }

    fn sync_names(&self) -> Result<()> {
        let batch = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        batch.finish()
    }

    fn list_packs(&self) -> Result<Vec<PackId>> {
        let mut packs = BTreeSet::new();
        for fan in fsio::list_dir(&self.root.join("packs"))? {
            let Ok(fan) = std::str::from_utf8(&fan) else { continue };
            if crate::id::decode_hex::<1>(fan).is_some() {
                packs.extend(self.list_ids::<PackId>(&format!("packs/{fan}"), ".pack")?);
            }
        }
        Ok(packs.into_iter().collect())
    }

    fn list_segments(&self) -> Result<Vec<SegmentId>> {
        self.list_ids("segments", ".seg")
    }

    fn list_snapshots(&self) -> Result<Vec<SnapshotId>> {
        self.list_ids("snapshots", "")
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        fsio::remove_file(&self.path_of(name))
    }
}
