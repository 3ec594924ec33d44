// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is known of an area on this machine: the marker in its `.evenkeel`, and its memory in the state directory.
//!
//! ```text
//! AREA/.evenkeel/          0700   lock · marker · staging/ · undo/
//! STATE/areas/<area id>/   0700   area (its name and where it is) · applied (what was delivered, a files cache) ·
//!                                 what [`transaction`](super::transaction) has there
//! ```
//!
//! The marker is the truth about which area this is and whether a switch is under way; `applied` can be rebuilt from the
//! store. A known area whose marker is missing is an unmounted disk, not a new area.

mod known;
mod marker;
mod undo;

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::options::Adopt;
use super::refuse;
use super::transaction;
use crate::area::PRIVATE_DIR;
use crate::error::{Error, Result};
use crate::format::manifest::Timestamp;
use crate::fsio::{self, Dir, FdAttrs, Lock};
use crate::id::{SnapshotId, StoreId, encode_hex};

pub(super) use known::live_areas;
use known::{AREA, Remembered, known_area, remembered};
pub use known::{is_area, known_areas};
pub(super) use marker::read_marker;
pub use marker::{AreaId, Marker};

const LOCK: &[u8] = b"lock";
const MARKER: &[u8] = b"marker";
const STAGING: &[u8] = b"staging";
const UNDO: &[u8] = b"undo";
const APPLIED: &str = "applied";
/// Longest marker or area file that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 8192;

/// An area's root on this machine, looked at but not changed.
#[derive(Debug)]
pub(super) struct AreaRoot {
    /// `None` when the directory does not exist.
    pub(super) dir: Option<Dir>,
    /// Where it is, without symlinks.
    pub(super) path: PathBuf,
    pub(super) marker: Option<Marker>,
}

impl AreaRoot {
    /// Looks at an area's root.
    ///
    /// # Errors
    /// [`Error::Area`] for a root that is no directory; [`Error::Refused`] for a known area without its marker;
    /// [`Error::Io`].
    pub(super) fn open(name: &str, root: &Path, state_dir: &Path) -> Result<AreaRoot> {
        let refuse = |reason: &str| Error::Area { area: name.into(), path: root.into(), reason: reason.into() };
        let (dir, path) = match Dir::open(root) {
            Ok(dir) => {
                let path = dir.real_path().map_err(|e| Error::io("open", root, e))?;
                (Some(dir), path)
            }
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                (None, real_path_of_new(root)?)
            }
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(refuse("it is not a directory (a symlink is not followed)"));
            }
            Err(e) => return Err(e),
        };
        let marker = match &dir {
            Some(dir) => read_marker(dir)?,
            None => None,
        };
        let known = if marker.is_none() { known_area(state_dir, &path)? } else { None };
        if let Some(known) = known {
            return Err(Error::Refused {
                reason: format!(
                    "area `{name}` at {} is known here, but its marker .evenkeel/marker is missing: is its disk mounted?",
                    root.display()
                ),
                hint: Some(format!(
                    "mount it, or name where it was moved to; if it is gone on purpose, remove {} and it is forgotten",
                    known.display()
                )),
            });
        }
        if let (Some(dir), Some(marker)) = (&dir, &marker) {
            refuse_copy(name, dir, &path, marker, state_dir)?;
        }
        Ok(AreaRoot { dir, path, marker })
    }
}

/// Two directories with one marker would share one memory: each would count the other's files as what was delivered.
fn refuse_copy(name: &str, dir: &Dir, path: &Path, marker: &Marker, state_dir: &Path) -> Result<()> {
    let own = state_path(state_dir, marker.area);
    let Some(known) = remembered(state_dir)?.into_iter().find(|known| known.dir == own) else { return Ok(()) };
    let Ok(other) = Dir::open(&known.root) else { return Ok(()) };
    let same_inode = |other: &Dir| -> std::io::Result<bool> {
        let (a, b) = (dir.stat(b"")?, other.stat(b"")?);
        Ok((a.dev, a.ino) == (b.dev, b.ino))
    };
    let is_other = !same_inode(&other).map_err(|e| Error::io("look at", &known.root, e))?;
    if is_other && read_marker(&other).is_ok_and(|found| found.is_some_and(|found| found.area == marker.area)) {
        return Err(Error::Refused {
            reason: format!("{} is a copy of area `{name}` at {}", path.display(), known.root.display()),
            hint: Some("remove .evenkeel from the copy, and it is a directory like any other".into()),
        });
    }
    Ok(())
}

fn real_path_of_new(root: &Path) -> Result<PathBuf> {
    let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = root.file_name().ok_or_else(|| Error::io("open", root, std::io::ErrorKind::NotFound))?;
    let parent_dir = Dir::open_following(parent)?;
    Ok(parent_dir.real_path().map_err(|e| Error::io("open", parent, e))?.join(name))
}

/// An area held for changing: locked, with its private directory. Dropped before anything was begun, it takes away what
/// was made to hold it.
#[derive(Debug)]
pub(super) struct HeldArea {
    pub(super) root: Dir,
    pub(super) private: Dir,
    /// `.evenkeel` did not exist, so the root's mtime has changed.
    pub(super) made_private: bool,
    /// In the state directory; made when a switch begins.
    pub(super) state: PathBuf,
    marker: Marker,
    /// What to take away if nothing comes of it.
    unused: Option<Unused>,
    rescued: Option<u64>,
    /// Where a journal is now that was found damaged.
    damaged: Option<PathBuf>,
    _lock: Lock,
}

/// What was made only to hold an area.
#[derive(Debug)]
struct Unused {
    /// The root's mtime before `.evenkeel` came into it.
    mtime: Timestamp,
    /// Parent and name of the root, when it was made too.
    root: Option<NewDir>,
}

/// A directory that was made for an area. Dropped while nothing is in it, it goes again.
#[derive(Debug)]
struct NewDir {
    parent: Dir,
    name: Vec<u8>,
}

impl Drop for NewDir {
    fn drop(&mut self) {
        let _ = self.parent.remove_dir(&self.name);
    }
}

impl HeldArea {
    /// Takes an area: makes its root and `.evenkeel` where they are missing, and locks it.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process holds it; [`Error::Io`].
    pub(super) fn take(root: AreaRoot, given: &Path, name: &str, store: StoreId, state_dir: &Path) -> Result<HeldArea> {
        let AreaRoot { dir, path, .. } = root;
        let (dir, made_root) = match dir {
            Some(dir) => (dir, None),
            None => {
                let (dir, made) = make_root(given)?;
                (dir, Some(made))
            }
        };
        let failed = |e| refuse::private_place(&dir, "prepare", e);
        let mtime = dir.stat(b"").map_err(failed)?.mtime;
        let (private, made_private) = dir.make_private_dir(PRIVATE_DIR).map_err(failed)?;
        let locked = || {
            let file = private.open_or_create(LOCK).map_err(|e| refuse::lock_place(&private, LOCK, e))?;
            let lock = Lock::take(file, &private.path_of(LOCK))?;
            if made_private {
                dir.sync().map_err(failed)?;
            }
            // What was read before the lock was held may be old.
            let marker = read_marker(&dir)?.map_or_else(|| Marker::new(&path, name, store), Ok)?;
            Ok((lock, marker))
        };
        let (lock, marker) = locked().inspect_err(|e: &Error| {
            if made_private && !matches!(e, Error::Locked { .. }) {
                let _ = private.unlink(LOCK);
                let _ = dir.remove_dir(PRIVATE_DIR);
            }
        })?;
        let state = state_path(state_dir, marker.area);
        let unused = made_private.then_some(Unused { mtime, root: made_root });
        let (rescued, damaged) = (None, None);
        let mut held =
            HeldArea { root: dir, private, made_private, state, marker, unused, rescued, damaged, _lock: lock };
        if !is_at(&held.root, given)? {
            // Another process has exchanged the tree since it was opened here.
            return Err(Error::Locked { path: held.private.path_of(LOCK), holder: None });
        }
        transaction::sweep(&held.state)?;
        held.damaged = transaction::lose_damaged(&held.state, &held.marker)?;
        held.settle_given_back()?;
        if transaction::open(&held.state)?.is_none() {
            held.leave_no_staging()?;
        }
        Ok(held)
    }

    /// No transaction is under way. What lies in staging is of no use, unless one was and its journal is lost: then it
    /// may be what gave way.
    fn leave_no_staging(&mut self) -> Result<()> {
        // What a write of the marker that was cut off has left.
        let _ = self.private.unlink(&[MARKER, b".new"].concat());
        if !self.is_switching() {
            return self.clear_staging();
        }
        // What was kept that way before stays: nobody knows what is in it.
        let number = self.marker.finished.max(self.last_undo()?) + 1;
        self.rescued = self.keep_as_undo(number)?.then_some(number);
        Ok(())
    }

    /// The number of the undo that holds what a switch had displaced whose journal is lost, if this run has put it there.
    pub(super) fn rescued(&self) -> Option<u64> {
        self.rescued
    }

    /// Where the journal of the transaction that was under way is now, if this run has found it damaged.
    pub(super) fn damaged_journal(&self) -> Option<&Path> {
        self.damaged.as_deref()
    }

    /// Whether a switch is under way, or was interrupted.
    pub(super) fn is_switching(&self) -> bool {
        self.marker.transaction.is_some()
    }

    /// What the switch that is under way does with what was here first, when it is an adoption.
    pub(super) fn adopting(&self) -> Option<Adopt> {
        self.marker.adopting
    }

    /// The last transaction that was finished.
    pub(super) fn finished(&self) -> u64 {
        self.marker.finished
    }

    /// What its marker says.
    pub(super) fn marker(&self) -> &Marker {
        &self.marker
    }

    /// The snapshot it is at.
    pub(super) fn applied(&self) -> Option<SnapshotId> {
        self.marker.applied
    }

    /// Which area it is.
    pub(super) fn area(&self) -> AreaId {
        self.marker.area
    }

    /// Puts the marker into another private directory, durably, and locks that one, too.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn copy_marker(&self, private: &Dir) -> Result<Lock> {
        let failed = |e| Error::io("prepare", private.path(), e);
        let lock = Lock::take(private.open_or_create(LOCK).map_err(failed)?, &private.path_of(LOCK))?;
        private.publish(MARKER, self.marker.encode().as_bytes()).map_err(failed)?;
        Ok(lock)
    }

    /// Goes on with another root and its private directory, which is locked already if `has_lock`.
    ///
    /// # Errors
    /// [`Error::Locked`]; [`Error::Io`].
    pub(super) fn take_over(&mut self, root: Dir, private: Dir, has_lock: bool) -> Result<()> {
        if !has_lock {
            let file = private.open_or_create(LOCK).map_err(|e| Error::io("lock", private.path(), e))?;
            self._lock = Lock::take(file, &private.path_of(LOCK))?;
        }
        (self.root, self.private) = (root, private);
        Ok(())
    }

    /// Makes its place in the state directory. At first contact the marker says first which one that is: else what a run
    /// that is cut off leaves there would be nobody's for ever.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn make_state(&self) -> Result<()> {
        if !fsio::exists(&self.state)? {
            self.write_marker()?;
        }
        fsio::create_dir_all(&self.state).map(drop)
    }

    /// Where its memory of what was delivered is.
    pub(super) fn applied_path(&self) -> PathBuf {
        self.state.join(APPLIED)
    }

    /// The marker as it was found; `None` at first contact.
    pub(super) fn known(&self) -> Option<&Marker> {
        (self.marker.applied.is_some() || self.marker.transaction.is_some()).then_some(&self.marker)
    }

    /// Whether its root was made to hold it.
    pub(super) fn made_root(&self) -> bool {
        self.unused.as_ref().is_some_and(|unused| unused.root.is_some())
    }

    /// Says durably that a switch to `target` begins, what it does with what was here first, and where this area is.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing live has changed then.
    pub(super) fn begin(&mut self, target: SnapshotId, adopting: Option<Adopt>, path: &Path) -> Result<()> {
        (self.marker.transaction, self.marker.adopting) = (Some(target), adopting);
        self.note(path)
    }

    /// Notes durably that this is an area, and where it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn note(&mut self, path: &Path) -> Result<()> {
        self.make_state()?;
        self.unused = None;
        self.write_marker()?;
        fsio::publish_file(&self.state.join(AREA), &Remembered::encode(&self.marker.name, path))
    }

    /// Says durably that the area is at `target`, or as it was before first contact.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn end(&mut self, target: Option<SnapshotId>, number: u64) -> Result<()> {
        let marker = &mut self.marker;
        (marker.applied, marker.transaction, marker.adopting) = (target, None, None);
        marker.finished = number.max(marker.finished);
        self.write_marker()?;
        // Gone back to before first contact: it is a directory like any other again.
        if target.is_none() { fsio::remove_file(&self.state.join(AREA)) } else { Ok(()) }
    }

    /// Makes a switch to `target` durable.
    ///
    /// # Errors
    /// [`Error::Unrecorded`].
    pub(super) fn sync_switched(&self, target: Option<SnapshotId>) -> Result<()> {
        let synced = self.root.sync_filesystem().map_err(|e| Error::io("sync file system of", self.root.path(), e));
        synced.map_err(|e| self.unrecorded(target, e))
    }

    /// What failed after everything was switched to `target`.
    pub(super) fn unrecorded(&self, target: Option<SnapshotId>, error: Error) -> Error {
        error.unrecorded(&self.marker.name, self.root.path(), target)
    }

    /// Notes what the area is called and where it comes from; durable with the next change of the marker.
    pub(super) fn rename(&mut self, name: &str, store: StoreId) {
        (self.marker.name, self.marker.store) = (name.into(), store);
    }

    fn write_marker(&self) -> Result<()> {
        let bytes = self.marker.encode().into_bytes();
        self.private.publish(MARKER, &bytes).map_err(|e| Error::io("write", self.private.path_of(MARKER), e))
    }

    /// An empty staging directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn staging(&self) -> Result<Dir> {
        let made = self.private.make_private_dir(STAGING);
        Ok(made.map_err(|e| Error::io("prepare", self.private.path_of(STAGING), e))?.0)
    }

    /// Whether there is a staging directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn has_staging(&self) -> Result<bool> {
        let found = self.private.stat_opt(STAGING);
        Ok(found.map_err(|e| Error::io("look at", self.private.path_of(STAGING), e))?.is_some())
    }

    /// Removes the staging directory and what a dead or failed run left in it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn clear_staging(&self) -> Result<()> {
        match self.private.remove_all(STAGING) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io("clear", self.private.path_of(STAGING), e)),
        }
    }
}

impl Drop for HeldArea {
    /// Nothing was begun: the tree is left as it was found. What cannot be taken away does no harm.
    fn drop(&mut self) {
        let Some(Unused { mtime, root }) = self.unused.take() else { return };
        // As new as the private directory was.
        let _ = fsio::remove_tree(&self.state);
        let taken_away = self.clear_staging().is_ok_and(|()| {
            for marker in [MARKER.to_vec(), [MARKER, b".new"].concat()] {
                let _ = self.private.unlink(&marker);
            }
            self.private.unlink(LOCK).and_then(|()| self.root.remove_dir(PRIVATE_DIR)).is_ok()
        });
        if root.is_none() || !taken_away {
            let _ = FdAttrs(self.root.as_fd()).set_mtime(mtime);
        }
    }
}

/// Whether the directory at `path` still is `dir`.
fn is_at(dir: &Dir, path: &Path) -> Result<bool> {
    let failed = |e| Error::io("look at", path, e);
    let (held, there) = (dir.stat(b"").map_err(failed)?, Dir::open(path)?.stat(b"").map_err(failed)?);
    Ok((held.dev, held.ino) == (there.dev, there.ino))
}

/// An area's place in the state directory.
pub(super) fn state_path(state_dir: &Path, area: AreaId) -> PathBuf {
    state_dir.join("areas").join(encode_hex(&area.0))
}

/// Where an area's memory of what was delivered is.
pub(super) fn applied_path(state_dir: &Path, area: AreaId) -> PathBuf {
    state_path(state_dir, area).join(APPLIED)
}

/// Makes an area's root.
fn make_root(given: &Path) -> Result<(Dir, NewDir)> {
    let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = given.file_name().ok_or_else(|| Error::io("create", given, std::io::ErrorKind::NotFound))?.as_bytes();
    let parent = Dir::open_following(parent)?;
    let failed = |e| Error::io("create directory", given, e);
    parent.make_dir(name).map_err(failed)?;
    let made = NewDir { parent, name: name.to_vec() };
    made.parent.sync().map_err(failed)?;
    let root = made.parent.open_dir(name).map_err(failed)?;
    Ok((root, made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_area_without_marker_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (root, state) = (temp.path().join("root"), temp.path().join("state"));
        fsio::create_dir_all(&state).unwrap();
        let looked = AreaRoot::open("a", &root, &state).unwrap();
        assert!(looked.dir.is_none());
        let path = looked.path.clone();
        let mut held = HeldArea::take(looked, &root, "a", StoreId([1; 16]), &state).unwrap();
        held.begin(SnapshotId([2; 32]), None, &path).unwrap();
        let again = AreaRoot::open("a", &root, &state).unwrap();
        assert_eq!(again.marker.as_ref().unwrap().transaction, Some(SnapshotId([2; 32])));
        let locked = HeldArea::take(again, &root, "a", StoreId([1; 16]), &state).unwrap_err();
        assert!(matches!(locked, Error::Locked { .. }), "{locked}");
        drop(held);
        assert!(root.join(".evenkeel/marker").exists(), "what was begun stays");
        fsio::remove_tree(&root.join(".evenkeel")).unwrap();
        let refused = AreaRoot::open("a", &root, &state).unwrap_err().to_string();
        assert!(refused.contains("marker"), "{refused}");
    }

    /// A refused checkout left `.evenkeel`, and a root that was not there before.
    #[test]
    fn what_was_never_begun_leaves_no_trace() {
        let temp = tempfile::tempdir().unwrap();
        let (new, old, state) = (temp.path().join("new"), temp.path().join("old"), temp.path().join("state"));
        fsio::create_dir_all(&old).unwrap();
        let before = Dir::open(&old).unwrap().stat(b"").unwrap();
        for root in [&new, &old] {
            let looked = AreaRoot::open("a", root, &state).unwrap();
            let held = HeldArea::take(looked, root, "a", StoreId([1; 16]), &state).unwrap();
            held.staging().unwrap();
            assert!(root.join(".evenkeel").exists());
            drop(held);
        }
        assert!(!new.exists() && !state.exists() && fsio::list_dir(&old).unwrap().is_empty());
        assert_eq!(Dir::open(&old).unwrap().stat(b"").unwrap().mtime, before.mtime);
    }
}
