// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store in a local directory (format-spec §10.3).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Backend, Check, Listing, Loaded, Object, ObjectName, Writing};
use crate::error::{Error, Result};
use crate::fsio::{self, Batch, Dir, FileType, Lock, OpenFile, Stat, TempFile};
use crate::id::{DeltaId, PackId, SegmentId, SnapshotId};

const PACKS: &str = "packs";
const SEGMENTS: &str = "segments";
const LOCATORS: &str = "locators";
const SNAPSHOTS: &str = "snapshots";
const DELTAS: &str = "deltas";
/// Directory of unpublished files.
const TMP: &str = "tmp";

/// Objects as files below one directory. The way to the directory may lead over symlinks, the way on from it may not.
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

    /// Makes the directories of an empty store. The root may exist if it is empty, or holds only what a writer leaves
    /// that died while it made a store. The lock keeps others from doing the same until the store is complete.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Locked`] or [`Error::Io`].
    pub fn create(root: &Path) -> Result<(LocalBackend, Lock)> {
        let is_new = fsio::create_dir_all(root)?;
        let lock = Lock::exclusive_existing(root)?;
        if !is_half_made(root)? {
            return Err(Error::NotEmpty { path: root.to_path_buf() });
        }
        if !is_new {
            // Whoever made it may have died before its name was durable. If it is somebody else's, it is theirs to know.
            let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fsio::sync_dir(parent).or_else(|e| if is_denied(&e) { Ok(()) } else { Err(e) })?;
        }
        for dir in [PACKS, SEGMENTS, LOCATORS, SNAPSHOTS, TMP] {
            fsio::create_dir_all(&root.join(dir))?;
        }
        let backend = LocalBackend::new(root);
        backend.sweep_temporaries()?;
        fsio::sync_dir(root)?;
        Ok((backend, lock))
    }

    /// The store's directory. It is not held: what lies at the path counts, also after somebody replaced it.
    fn store_dir(&self) -> Result<Dir> {
        Dir::open_following(&self.root)
    }

    fn path_of(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// Where an object is to be written, once it is sure that no symlink leads there.
    fn target_of(&self, name: &ObjectName) -> Result<PathBuf> {
        let relative = PathBuf::from(name.to_string());
        if let Some(dir) = relative.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            self.open_dir(dir)?;
        }
        Ok(self.root.join(relative))
    }

    fn open_dir(&self, relative: &Path) -> Result<Dir> {
        let name = || relative.display().to_string();
        self.store_dir()?.open_dir_below(relative).map_err(|e| self.failed("open directory", name(), e))
    }

    /// Opens an object, which is a regular file.
    fn open_object(&self, name: &ObjectName) -> Result<Option<OwnedFd>> {
        let object = name.to_string();
        if_there(self.store_dir().and_then(|dir| {
            let fd = dir.open_below(Path::new(&object)).map_err(|e| self.failed("open", object.clone(), e))?;
            let found = Stat::of_fd(&fd).map_err(|e| Error::io("stat", self.path_of(name), e))?.file_type;
            if found == FileType::File { Ok(fd) } else { Err(Error::NotAnObject { object, found: found.words() }) }
        }))
    }

    fn open_file(&self, name: &ObjectName) -> Result<Option<OpenFile>> {
        self.open_object(name)?.map(|fd| OpenFile::of_object(fd, &self.path_of(name), name.to_string())).transpose()
    }

    /// What `error` means for something below the store's directory.
    fn failed(&self, action: &'static str, object: String, error: io::Error) -> Error {
        match error.kind() {
            _ if fsio::is_symlink_refused(&error) => Error::NotAnObject { object, found: FileType::Symlink.words() },
            _ if fsio::is_unopenable(&error) => Error::NotAnObject { object, found: "a socket or device" },
            io::ErrorKind::NotADirectory => Error::NotAnObject { object, found: "something that is no directory" },
            _ => Error::of_object(action, &self.root.join(&object), &object, error),
        }
    }

    fn list_ids<T: std::str::FromStr + Ord>(&self, dir: &str, suffix: &str) -> Result<Vec<T>> {
        let mut ids: Vec<T> = self
            .list(dir)?
            .iter()
            .filter_map(|name| std::str::from_utf8(name).ok()?.strip_suffix(suffix)?.parse().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn list(&self, dir: &str) -> Result<Vec<Vec<u8>>> {
        self.open_dir(Path::new(dir))?.names().map_err(|e| self.failed("list", dir.to_string(), e))
    }

    /// Directories of lists of deltas.
    fn delta_dirs(&self) -> Result<Vec<PathBuf>> {
        let deltas = self.root.join(DELTAS);
        let Some(targets) = if_there(fsio::list_dir(&deltas))? else { return Ok(Vec::new()) };
        let ids = targets.into_iter().filter_map(|name| String::from_utf8(name).ok()?.parse::<DeltaId>().ok());
        let mut dirs = Vec::new();
        for id in ids {
            // A delta file has a name like theirs.
            if self.len(&ObjectName::Delta(id))?.is_none() {
                dirs.push(deltas.join(id.to_string()));
            }
        }
        Ok(dirs)
    }

    /// Directories of packs, by their names below the store's.
    fn pack_dirs(&self) -> Result<Vec<String>> {
        let is_fan = |name: &String| crate::id::decode_hex::<1>(name).is_some();
        let names = self.list(PACKS)?.into_iter().filter_map(|name| String::from_utf8(name).ok());
        Ok(names.filter(is_fan).map(|fan| format!("{PACKS}/{fan}")).collect())
    }
}

/// Whether a directory is empty, or holds nothing but what is there before a store has its `format`.
fn is_half_made(root: &Path) -> Result<bool> {
    for name in fsio::list_dir(root)? {
        let own = match name.as_slice() {
            b"packs" | b"locators" | b"tmp" => "",
            b"segments" => "current",
            b"snapshots" => "index",
            name if fsio::is_temporary(name) => continue,
            _ => return Ok(false),
        };
        let name = std::str::from_utf8(&name).expect("one of the names above");
        let children = match fsio::list_dir(&root.join(name)) {
            Ok(children) => children,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => return Ok(false),
            Err(e) => return Err(e),
        };
        if !children.iter().all(|child| fsio::is_temporary(child) || child == own.as_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}

/// `None` for an object that is not there.
fn if_there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Backend for LocalBackend {
    fn path(&self) -> &Path {
        &self.root
    }

    fn dir(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn read_checked(&self, name: &ObjectName, cap: u64, check: Check<'_>) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let bytes = file.read_all(cap)?;
        check(&bytes)?;
        Ok(Some(bytes))
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Arc<dyn Object>>> {
        Ok(self.open_file(name)?.map(|file| Arc::new(file) as Arc<dyn Object>))
    }

    /// The bytes that are hashed are read, not mapped: what a map cannot get from the medium ends the process.
    fn load(&self, name: &ObjectName, hash: &[u8; 32], cap: u64) -> Result<Option<Loaded>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        file.require_len(cap)?;
        let actual = file.hash()?;
        if actual != *hash {
            return Err(Error::HashMismatch { object: name.to_string(), actual: crate::id::encode_hex(&actual) });
        }
        Ok(Some(Loaded::Mapped(file.into_map()?)))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<u64>> {
        let object = name.to_string();
        let stat = |dir: Dir| dir.stat_below(Path::new(&object)).map_err(|e| self.failed("stat", object.clone(), e));
        match if_there(self.store_dir().and_then(stat)) {
            Ok(found) => Ok(found.filter(|stat| stat.file_type == FileType::File).map(|stat| stat.size)),
            // What a symlink leads to is no object.
            Err(Error::NotAnObject { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn listing(&self) -> Option<&dyn Listing> {
        Some(self)
    }

    fn writing(&self) -> Option<&dyn Writing> {
        Some(self)
    }
}

impl Object for OpenFile {
    fn size(&self) -> Result<u64> {
        Ok(OpenFile::len(self))
    }

    fn read_checked_at(&self, buffer: &mut [u8], offset: u64, check: Check<'_>) -> Result<()> {
        OpenFile::read_exact_at(self, buffer, offset)?;
        check(buffer)
    }
}

impl Writing for LocalBackend {
    fn publish(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        if let ObjectName::DeltaIndex(_) = name {
            // No store has this directory from the start.
            fsio::create_dir_all(&self.root.join(name.dir()))?;
        }
        fsio::publish_file(&self.target_of(name)?, bytes)
    }

    fn create_temp(&self) -> Result<TempFile> {
        self.open_dir(Path::new(TMP))?;
        TempFile::create(&self.root.join(TMP))
    }

    fn publish_temp(&self, file: TempFile, name: &ObjectName) -> Result<()> {
        let dir = self.root.join(name.dir());
        let mut batch = Batch::default();
        fsio::create_dir(&dir)?;
        let target = self.target_of(name)?;
        // Made just now or by a writer that died: its own name may not be durable either.
        batch.touched(dir.parent().expect("an object's directory lies in the store's"));
        batch.publish(file, &target)?;
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).merge(batch);
        Ok(())
    }

    fn sync_names(&self) -> Result<()> {
        let batch = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        batch.finish()
    }

    fn sync_packs(&self) -> Result<()> {
        for dir in self.pack_dirs()?.iter().map(String::as_str).chain([PACKS]) {
            fsio::sync_dir(&self.root.join(dir))?;
        }
        Ok(())
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        fsio::remove_file(&self.path_of(name))
    }

    fn sweep_temporaries(&self) -> Result<u64> {
        let tmp = self.root.join(TMP);
        fsio::create_dir_all(&tmp)?;
        let mut swept = 0;
        let mut dirs = vec![tmp];
        // A small object's temporary lies in the directory of its target.
        dirs.extend(["", SEGMENTS, LOCATORS, SNAPSHOTS].map(|dir| self.root.join(dir)));
        dirs.extend(self.delta_dirs()?);
        for dir in dirs {
            swept += fsio::sweep_temporaries(&dir)?;
        }
        Ok(swept)
    }
}

impl Listing for LocalBackend {
    fn list_packs(&self) -> Result<Vec<PackId>> {
        let mut troubles = Vec::new();
        let packs = self.list_packs_past(&mut troubles);
        troubles.into_iter().next().map_or(Ok(packs), Err)
    }

    fn list_packs_past(&self, troubles: &mut Vec<Error>) -> Vec<PackId> {
        let mut packs = BTreeSet::new();
        let dirs = self.pack_dirs().unwrap_or_else(|trouble| {
            troubles.push(trouble);
            Vec::new()
        });
        for dir in dirs {
            match self.list_ids::<PackId>(&dir, ".pack") {
                Ok(found) => packs.extend(found),
                Err(trouble) => troubles.push(trouble),
            }
        }
        packs.into_iter().collect()
    }

    fn list_segments(&self) -> Result<Vec<SegmentId>> {
        self.list_ids(SEGMENTS, ".seg")
    }

    fn list_snapshots(&self) -> Result<Vec<SnapshotId>> {
        self.list_ids(SNAPSHOTS, "")
    }

    fn list_locators(&self) -> Result<Vec<SnapshotId>> {
        self.list_ids(LOCATORS, "")
    }
}
