// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Local answers about a store's snapshots: the one wrapper of sled.
//!
//! Everything in a catalog can be had from the store, only slower. Delete it and everything still works. It is never the
//! only copy of anything, and no statement that something is durable rests on it.
//!
//! What sled 0.34.7 needs (measured, see `docs/design/catalog.md`): its `flush` does not sync on Linux, so this module
//! syncs the files itself; a database that died while it was made can never be opened, so one is made under a temporary
//! name and renamed; whatever cannot be opened is moved aside and rebuilt.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::{IndexRecord, Snapshot};
use crate::fsio;
use crate::id::{SnapshotId, StoreId};
use crate::store::Store;

/// Layout of what is in the database; another number means: rebuild.
const VERSION: &[u8] = b"evenkeel-catalog-1";
const KEY_VERSION: &[u8] = b"version";
const KEY_STORE: &[u8] = b"store";
const TREE_SNAPSHOTS: &str = "snapshots";
const TREE_LABELS: &str = "labels";
/// sled's page cache. Values are small; more than this is never needed.
const CACHE_BYTES: u64 = 4 << 20;
/// How often, and after what pause, a locked database is tried again.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// An open catalog of one store.
#[derive(Debug)]
pub struct Catalog {
    db: sled::Db,
    snapshots: sled::Tree,
    labels: sled::Tree,
    path: PathBuf,
    notes: Vec<String>,
}

impl Catalog {
    /// Opens the catalog of `store` in `state_dir`, makes it if there is none, and brings it up to date. One that cannot
    /// be opened is moved aside and rebuilt; [`Catalog::notes`] says so.
    ///
    /// # Errors
    /// [`Error::Catalog`] when it cannot be made anew either; [`Error::Locked`] when another process has it open;
    /// [`Error::Io`].
    pub fn open(store: &Store, state_dir: &Path) -> Result<Catalog> {
        let dir = state_dir.join("stores").join(store.id().to_string());
        fsio::create_dir_all(&dir)?;
        let path = dir.join("catalog");
        let mut notes = Vec::new();
        let mut catalog = match Self::open_existing(store.id(), &path) {
            Ok(Some(catalog)) => catalog,
            Ok(None) => Self::make(store.id(), &dir, &path)?,
            Err(e) if e.kind() == ErrorKind::Locked => return Err(e),
            Err(e) => {
                let aside = dir.join("catalog.unusable");
                fsio::remove_tree(&aside)?;
                fsio::rename(&path, &aside)?;
                notes.push(format!("{e}; moved aside to {} and rebuilt", aside.display()));
                Self::make(store.id(), &dir, &path)?
            }
        };
        catalog.notes = notes;
        catalog.update(store)?;
        Ok(catalog)
    }

    /// What was wrong with it, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn open_existing(store: StoreId, path: &Path) -> Result<Option<Catalog>> {
        if !fsio::exists(path)? {
            return Ok(None);
        }
        let catalog = Self::open_db(path)?;
        let fits = catalog.get(KEY_VERSION)?.as_deref() == Some(VERSION)
            && catalog.get(KEY_STORE)?.as_deref() == Some(&store.0[..]);
        if fits {
            return Ok(Some(catalog));
        }
        Err(Error::Catalog { path: path.to_path_buf(), reason: "made by another version or for another store".into() })
    }

    /// Makes a catalog beside its place and moves it there when it is complete.
    fn make(store: StoreId, dir: &Path, path: &Path) -> Result<Catalog> {
        let new = dir.join("catalog.new");
        fsio::remove_tree(&new)?;
        let catalog = Self::open_db(&new)?;
        catalog.put(&catalog.db, KEY_VERSION, VERSION)?;
        catalog.put(&catalog.db, KEY_STORE, &store.0)?;
        catalog.sync()?;
        drop(catalog);
        fsio::rename(&new, path)?;
        fsio::sync_dir(dir)?;
        Self::open_db(path)
    }

    /// Opens the database. A lock may outlive its holder for a moment: sled closes its files in the background.
    fn open_db(path: &Path) -> Result<Catalog> {
        let mut patience = LOCK_ATTEMPTS;
        loop {
            match Self::try_open_db(path) {
                Err(Error::Locked { .. }) if patience > 0 => {
                    patience -= 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    fn try_open_db(path: &Path) -> Result<Catalog> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let open = || -> sled::Result<Catalog> {
            let db = config.open()?;
            Ok(Catalog {
                snapshots: db.open_tree(TREE_SNAPSHOTS)?,
                labels: db.open_tree(TREE_LABELS)?,
                db,
                path: path.to_path_buf(),
                notes: Vec::new(),
            })
        };
        // sled panics on some kinds of damage.
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(catalog)) => Ok(catalog),
            Ok(Err(sled::Error::Io(e)))
                if e.kind() == std::io::ErrorKind::WouldBlock || e.to_string().contains("lock") =>
            {
                Err(Error::Locked { path: path.to_path_buf(), holder: None })
            }
            Ok(Err(e)) => Err(Error::Catalog { path: path.to_path_buf(), reason: e.to_string() }),
            Err(_) => Err(Error::Catalog { path: path.to_path_buf(), reason: "damaged".into() }),
        }
    }

    fn failed(&self, e: &sled::Error) -> Error {
        Error::Catalog { path: self.path.clone(), reason: e.to_string() }
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>> {
        self.db.get(key).map_err(|e| self.failed(&e))
    }

    fn put(&self, tree: &sled::Tree, key: &[u8], value: &[u8]) -> Result<()> {
        tree.insert(key, value).map(drop).map_err(|e| self.failed(&e))
    }

    /// Makes everything durable: sled's flush, then every file, the directory and its parent.
    fn sync(&self) -> Result<()> {
        self.db.flush().map_err(|e| self.failed(&e))?;
        fsio::sync_tree(&self.path)
    }

    /// Takes in snapshots that are new in the store and forgets those that are gone.
    fn update(&mut self, store: &Store) -> Result<()> {
        let there: BTreeMap<SnapshotId, IndexRecord> =
            store.snapshots()?.into_iter().map(|record| (record.id, record)).collect();
        let mut changed = false;
        let mut known = Vec::new();
        for item in self.snapshots.iter().keys() {
            let key = item.map_err(|e| self.failed(&e))?;
            match <[u8; 32]>::try_from(&key[..]).map(SnapshotId) {
                Ok(id) if there.contains_key(&id) => known.push(id),
                _ => {
                    self.forget(&key)?;
                    changed = true;
                }
            }
        }
        for id in there.keys() {
            if known.binary_search(id).is_ok() {
                continue;
            }
            // A damaged snapshot stays out; reading it tells what is wrong.
            if let Ok(snapshot) = store.snapshot(id) {
                self.insert(id, &snapshot)?;
                changed = true;
            }
        }
        if changed { self.sync() } else { Ok(()) }
    }

    fn forget(&self, key: &[u8]) -> Result<()> {
        let removed = self.snapshots.remove(key).map_err(|e| self.failed(&e))?;
        if let Some(snapshot) = removed.and_then(|bytes| Snapshot::decode(&bytes).ok()) {
            for (name, value) in &snapshot.labels {
                self.labels.remove(label_key(name, value, key)).map_err(|e| self.failed(&e))?;
            }
        }
        Ok(())
    }

    fn insert(&self, id: &SnapshotId, snapshot: &Snapshot) -> Result<()> {
        let bytes = snapshot
            .encode()
            .map_err(|source| Error::Decode { object: format!("snapshot {}", id.short(16)), source })?;
        self.put(&self.snapshots, id.as_bytes(), &bytes)?;
        for (name, value) in &snapshot.labels {
            self.put(&self.labels, &label_key(name, value, id.as_bytes()), b"")?;
        }
        Ok(())
    }

    /// A snapshot's document, without asking the store.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>> {
        let bytes = self.snapshots.get(id.as_bytes()).map_err(|e| self.failed(&e))?;
        Ok(bytes.filter(|bytes| SnapshotId::of(bytes) == *id).and_then(|bytes| Snapshot::decode(&bytes).ok()))
    }

    /// Snapshots whose id begins with these hex digits.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn with_prefix(&self, prefix: &str) -> Result<Vec<SnapshotId>> {
        let bytes: Vec<u8> = (0..prefix.len() / 2)
            .map_while(|at| crate::id::decode_hex::<1>(prefix.get(2 * at..2 * at + 2)?))
            .map(|[byte]| byte)
            .collect();
        let mut found = Vec::new();
        for item in self.snapshots.scan_prefix(&bytes).keys() {
            let key = item.map_err(|e| self.failed(&e))?;
            if let Ok(id) = <[u8; 32]>::try_from(&key[..]).map(SnapshotId)
                && id.to_hex().starts_with(prefix)
            {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Snapshots that carry a label.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn with_label(&self, name: &str, value: &str) -> Result<Vec<SnapshotId>> {
        let prefix = label_key(name, value, b"");
        let mut found = Vec::new();
        for item in self.labels.scan_prefix(&prefix).keys() {
            let key = item.map_err(|e| self.failed(&e))?;
            if let Ok(id) = <[u8; 32]>::try_from(&key[prefix.len()..]) {
                found.push(SnapshotId(id));
            }
        }
        Ok(found)
    }
}

/// `name=value`, NUL, snapshot id.
fn label_key(name: &str, value: &str, id: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"=", value.as_bytes(), b"\0", id].concat()
}
