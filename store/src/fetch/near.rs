// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records that were fetched, kept at hand: in memory as far as a bound allows, or in a file of the state directory, where
//! they outlast the process. Runs at the same time have a file each, and a later run goes on with one that was left. Either is a hint: who reads a record verifies it again.
//!
//! The file is this program's own and no part of the format: records one after the other, each behind a head of 48 bytes:
//! chunk id, stored length, plain length (little-endian), encoding (0 raw, 1 zstd), 7 bytes of 0.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::format::pack::Encoding;
use crate::fsio::{self, Lock, ScratchFile};
use crate::id::ChunkId;
use crate::limits;

/// Bytes of records kept in memory.
const MEMORY_BYTES: u64 = 48 << 20;
/// What a record is kept behind, in bytes.
pub(super) const HEAD_LEN: usize = 48;
/// Files in one directory, each of a run of its own: so many runs fetch from one store at the same time.
const FILES_MAX: usize = 8;

/// Records at hand, by chunk.
#[derive(Debug, Default)]
pub struct Near {
    memory: Mutex<Memory>,
    spool: RwLock<Option<Spool>>,
}

#[derive(Debug, Default)]
struct Memory {
    records: HashMap<ChunkId, (Place, Vec<u8>)>,
    bytes: u64,
}

/// How a record is to be decoded, and where it is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) encoding: Encoding,
    pub(crate) plain_len: u32,
    stored_len: u32,
    offset: u64,
}

impl Near {
    /// Keeps records in a file in `dir` from now on. Those that are there from an interrupted run count as fetched.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; [`crate::Error::Locked`] while too many others fetch from the same store.
    pub fn keep_in(&self, dir: &Path) -> Result<()> {
        let spool = Spool::open_any(dir)?;
        *self.spool.write().unwrap_or_else(PoisonError::into_inner) = Some(spool);
        Ok(())
    }

    /// Gives up what is kept in a file, which has served its purpose.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn drop_file(&self) -> Result<()> {
        let spool = self.spool.write().unwrap_or_else(PoisonError::into_inner).take();
        spool.map_or(Ok(()), |spool| fsio::remove_file(&spool.path))
    }

    /// Whether a record of a chunk is at hand.
    pub fn has(&self, id: &ChunkId) -> bool {
        let spool = self.spool.read().unwrap_or_else(PoisonError::into_inner);
        spool.as_ref().is_some_and(|spool| spool.find(id).is_some()) || self.memory().records.contains_key(id)
    }

    /// Stored length of a chunk that is at hand.
    pub(crate) fn stored_len(&self, id: &ChunkId) -> Option<u64> {
        let spool = self.spool.read().unwrap_or_else(PoisonError::into_inner);
        let place = spool.as_ref().and_then(|spool| spool.find(id));
        place.or_else(|| Some(self.memory().records.get(id)?.0)).map(|place| u64::from(place.stored_len))
    }

    /// Where the file is.
    pub(crate) fn dir(&self) -> Option<PathBuf> {
        let spool = self.spool.read().unwrap_or_else(PoisonError::into_inner);
        spool.as_ref().and_then(|spool| spool.path.parent().map(Path::to_path_buf))
    }

    /// Looks at what an earlier run has left in `dir`, and changes nothing there.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(crate) fn look_in(&self, dir: &Path) -> Result<()> {
        let mut there = None;
        for path in (0..FILES_MAX).map(|number| file_in(dir, number)) {
            if there.is_none() && fsio::exists(&path)? {
                there = Some(path);
            }
        }
        let Some(path) = there else { return Ok(()) };
        let file = ScratchFile::open(&path)?;
        let state = read_heads(&file)?;
        let spool = Spool { file, path, state: Mutex::new(state), lock: None };
        *self.spool.write().unwrap_or_else(PoisonError::into_inner) = Some(spool);
        Ok(())
    }

    /// Drops the records of the file that are neither in `wanted` nor were asked for in this run. Gives how many bytes that
    /// were.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(crate) fn forget_but(&self, wanted: &HashSet<ChunkId>) -> Result<u64> {
        let mut spool = self.spool.write().unwrap_or_else(PoisonError::into_inner);
        let Some(spool) = &mut *spool else { return Ok(0) };
        spool.forget_but(wanted)
    }

    /// Keeps the record of a chunk, if that is possible.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub(crate) fn insert(&self, id: ChunkId, encoding: Encoding, plain_len: u32, stored: &[u8]) -> Result<()> {
        let (Ok(stored_len), Encoding::Raw | Encoding::Zstd) = (u32::try_from(stored.len()), encoding) else {
            return Ok(());
        };
        let place = Place { encoding, plain_len, stored_len, offset: 0 };
        if let Some(spool) = &*self.spool.read().unwrap_or_else(PoisonError::into_inner)
            && spool.lock.is_some()
        {
            return spool.append(id, place, stored);
        }
        let mut memory = self.memory();
        if memory.bytes + u64::from(stored_len) > MEMORY_BYTES {
            *memory = Memory::default();
        }
        memory.bytes += u64::from(stored_len);
        memory.records.insert(id, (place, stored.to_vec()));
        Ok(())
    }

    /// Puts the record of a chunk into `stored`; `None` when it is not at hand, or cannot be read.
    pub(crate) fn read(&self, id: &ChunkId, stored: &mut Vec<u8>) -> Option<Place> {
        if let Some(spool) = &*self.spool.read().unwrap_or_else(PoisonError::into_inner)
            && let Some(place) = spool.use_of(id)
        {
            stored.resize(usize::try_from(place.stored_len).ok()?, 0);
            return spool.file.read_exact_at(stored, place.offset).ok().map(|()| place);
        }
        let memory = self.memory();
        let (place, bytes) = memory.records.get(id)?;
        stored.clear();
        stored.extend_from_slice(bytes);
        Some(*place)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records in a file.
#[derive(Debug)]
struct Spool {
    file: ScratchFile,
    path: PathBuf,
    state: Mutex<SpoolState>,
    /// `None` when it is only looked at.
    lock: Option<Lock>,
}

#[derive(Debug, Default)]
struct SpoolState {
    places: HashMap<ChunkId, Place>,
    /// Those that this run has fetched or read.
    used: HashSet<ChunkId>,
    end: u64,
}

/// The file with a number; the first has none in its name.
fn file_in(dir: &Path, number: usize) -> PathBuf {
    dir.join(if number == 0 { "fetched".into() } else { format!("fetched-{number}") })
}

impl Spool {
    /// One that nobody else uses, if possible one that a run has left.
    fn open_any(dir: &Path) -> Result<Spool> {
        fsio::create_dir_all(dir)?;
        let (mut left, mut new) = (Vec::new(), Vec::new());
        for number in 0..FILES_MAX {
            let is_there = fsio::exists(&file_in(dir, number))?;
            if is_there { &mut left } else { &mut new }.push(number);
        }
        let mut locked = None;
        for number in left.into_iter().chain(new) {
            match Spool::open(dir, number) {
                Err(error @ Error::Locked { .. }) => drop(locked.get_or_insert(error)),
                opened => return opened,
            }
        }
        Err(locked.expect("there is at least one number"))
    }

    fn open(dir: &Path, number: usize) -> Result<Spool> {
        let path = file_in(dir, number);
        let lock = Lock::exclusive(&path.with_extension("lock"))?;
        let file = ScratchFile::open(&path)?;
        let state = read_heads(&file)?;
        // The process may have died in the middle of a record.
        file.set_len(state.end)?;
        Ok(Spool { file, path, state: Mutex::new(state), lock: Some(lock) })
    }

    fn find(&self, id: &ChunkId) -> Option<Place> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).places.get(id).copied()
    }

    /// As [`Spool::find`], for what is needed.
    fn use_of(&self, id: &ChunkId) -> Option<Place> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = state.places.get(id).copied()?;
        state.used.insert(*id);
        Some(place)
    }

    fn append(&self, id: ChunkId, place: Place, stored: &[u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place { offset: state.end + HEAD_LEN as u64, ..place };
        let mut bytes = Vec::with_capacity(HEAD_LEN + stored.len());
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&place.stored_len.to_le_bytes());
        bytes.extend_from_slice(&place.plain_len.to_le_bytes());
        bytes.push(u8::from(place.encoding == Encoding::Zstd));
        bytes.resize(HEAD_LEN, 0);
        bytes.extend_from_slice(stored);
        self.file.write_all_at(&bytes, state.end)?;
        state.end += bytes.len() as u64;
        state.places.insert(id, place);
        state.used.insert(id);
        Ok(())
    }

    fn forget_but(&mut self, wanted: &HashSet<ChunkId>) -> Result<u64> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |id: &ChunkId| wanted.contains(id) || state.used.contains(id);
        let mut kept: Vec<(ChunkId, Place)> =
            state.places.iter().filter(|(id, _)| is_kept(id)).map(|(id, place)| (*id, *place)).collect();
        let size = |place: &Place| HEAD_LEN as u64 + u64::from(place.stored_len);
        let unused = state.end - kept.iter().map(|(_, place)| size(place)).sum::<u64>();
        if unused == 0 {
            return Ok(0);
        }
        // Each moves towards the front, over bytes that are of no use or have moved already. What is cut off in between is
        // found when it is read: a record that is not what it should be is fetched again.
        kept.sort_unstable_by_key(|(_, place)| place.offset);
        let (mut end, mut bytes) = (0, Vec::new());
        state.places.clear();
        for (id, place) in kept {
            bytes.resize(usize::try_from(size(&place)).unwrap_or_default(), 0);
            self.file.read_exact_at(&mut bytes, place.offset - HEAD_LEN as u64)?;
            self.file.write_all_at(&bytes, end)?;
            state.places.insert(id, Place { offset: end + HEAD_LEN as u64, ..place });
            end += bytes.len() as u64;
        }
        state.end = end;
        self.file.set_len(end)?;
        Ok(unused)
    }
}

/// All records of a file, up to the first that is not whole.
fn read_heads(file: &ScratchFile) -> Result<SpoolState> {
    let len = file.size()?;
    let mut state = SpoolState::default();
    while let Some((id, place)) = read_head(file, state.end, len) {
        state.places.insert(id, place);
        state.end = place.offset + u64::from(place.stored_len);
    }
    Ok(state)
}

/// The record whose head is at `offset`, if all of it is there.
fn read_head(file: &ScratchFile, offset: u64, len: u64) -> Option<(ChunkId, Place)> {
    let mut head = [0; HEAD_LEN];
    file.read_exact_at(&mut head, offset).ok()?;
    let (id, rest) = head.split_first_chunk::<32>()?;
    let (stored_len, rest) = rest.split_first_chunk::<4>()?;
    let (plain_len, rest) = rest.split_first_chunk::<4>()?;
    let encoding = match rest {
        [0, 0, 0, 0, 0, 0, 0, 0] => Encoding::Raw,
        [1, 0, 0, 0, 0, 0, 0, 0] => Encoding::Zstd,
        _ => return None,
    };
    let (stored_len, plain_len) = (u32::from_le_bytes(*stored_len), u32::from_le_bytes(*plain_len));
    let range = 1..=limits::CHUNK_BYTES_MAX;
    let offset = offset + HEAD_LEN as u64;
    let is_sound = range.contains(&stored_len) && range.contains(&plain_len) && offset + u64::from(stored_len) <= len;
    is_sound.then_some((ChunkId(*id), Place { encoding, plain_len, stored_len, offset }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_outlasts_the_process_up_to_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let ids = [1u8, 2, 3].map(|at| ChunkId::of(&[at]));
        let near = Near::default();
        near.keep_in(dir.path()).unwrap();
        let others: Vec<Near> = (1..FILES_MAX).map(|_| Near::default()).collect();
        others.iter().for_each(|other| other.keep_in(dir.path()).unwrap());
        assert!(matches!(Near::default().keep_in(dir.path()), Err(Error::Locked { .. })));
        others[0].insert(ids[0], Encoding::Raw, 5, b"other").unwrap();
        assert!(!near.has(&ids[0]), "each has a file of its own");
        others.iter().for_each(|other| other.drop_file().unwrap());
        for (at, id) in ids.iter().enumerate() {
            near.insert(*id, Encoding::Zstd, 100, &vec![7; 10 + at]).unwrap();
        }
        drop(near);
        let path = file_in(dir.path(), 0);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let near = Near::default();
            near.keep_in(dir.path()).unwrap();
            let complete = ids.iter().filter(|id| near.has(id)).count();
            assert_eq!(complete, [58, 117, 177].iter().filter(|end| len >= **end).count(), "{len}");
            near.insert(ids[0], Encoding::Raw, 5, b"again").unwrap();
            let mut stored = Vec::new();
            assert_eq!(near.read(&ids[0], &mut stored).unwrap().encoding, Encoding::Raw);
            assert_eq!(stored, b"again");
            if complete == 3 {
                assert_eq!(near.read(&ids[2], &mut stored).unwrap().plain_len, 100);
                assert_eq!(stored, [7; 12]);
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let near = Near::default();
        let record = vec![0; 1 << 20];
        for at in 0..100u8 {
            near.insert(ChunkId::of(&[at]), Encoding::Raw, 1 << 20, &record).unwrap();
            assert!(near.memory().bytes <= MEMORY_BYTES);
            assert!(near.has(&ChunkId::of(&[at])));
        }
    }
}
