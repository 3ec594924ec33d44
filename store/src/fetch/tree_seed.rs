// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A directory tree as a seed: which file has a chunk, and where in it.
//!
//! The index is small on purpose: 8 bytes of an id stand for it, as whoever reads hashes what comes. A file counts as long
//! as it is the inode that was looked at; its descriptor is found below the tree's root without following a symlink, and
//! only a regular file is ever opened.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::seed::{Seed, Source};
use crate::files_cache::Fingerprint;
use crate::fsio::{self, Dir, FileType, Stat};
use crate::id::ChunkId;
use crate::path::TreePath;

/// Memory of one index, in bytes. What does not fit is not known to it.
const INDEX_BYTES_MAX: u64 = 48 << 20;
/// What one file costs beside its path, and one chunk.
const FILE_COST: u64 = 96;
const CHUNK_COST: u64 = 24;

const UNSEEN: u8 = 0;
const AS_KNOWN: u8 = 1;
const OTHER: u8 = 2;

/// Collects what a tree holds.
#[derive(Debug, Default)]
pub(crate) struct TreeIndex {
    files: Vec<KnownFile>,
    chunks: Vec<KnownChunk>,
    bytes: u64,
}

#[derive(Debug)]
struct KnownFile {
    path: Box<[u8]>,
    /// The inode that it was; `None` when only the size is known.
    print: Option<Fingerprint>,
    size: u64,
    state: AtomicU8,
}

#[derive(Debug, Clone, Copy)]
struct KnownChunk {
    key: u64,
    offset: u64,
    file: u32,
    len: u32,
}

impl TreeIndex {
    /// Adds a file with the chunks it is made of, each with its offset and length. Gives whether there was room for it.
    pub(crate) fn push(
        &mut self,
        path: &TreePath,
        size: u64,
        print: Option<Fingerprint>,
        chunks: impl IntoIterator<Item = (ChunkId, u64, u32)>,
    ) -> bool {
        let cost = FILE_COST + path.as_bytes().len() as u64;
        let Ok(file) = u32::try_from(self.files.len()) else { return false };
        if self.is_full() {
            return false;
        }
        self.bytes += cost;
        self.files.push(KnownFile { path: path.as_bytes().into(), print, size, state: AtomicU8::new(UNSEEN) });
        for (id, offset, len) in chunks {
            if self.is_full() {
                return false;
            }
            self.chunks.push(KnownChunk { key: key_of(&id), offset, file, len });
            self.bytes += CHUNK_COST;
        }
        true
    }

    /// Whether nothing more can be added.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= INDEX_BYTES_MAX
    }

    /// Makes a seed of it, for the tree whose root is `dir`.
    pub(crate) fn into_seed(mut self, source: Source, dir: Dir) -> TreeSeed {
        self.chunks.sort_unstable_by_key(|chunk| (chunk.key, chunk.file, chunk.offset));
        TreeSeed { source, dir, index: self, open: Mutex::default(), bad: AtomicU64::new(0), example: Mutex::default() }
    }
}

fn key_of(id: &ChunkId) -> u64 {
    let (first, _) = id.as_bytes().split_first_chunk::<8>().expect("an id is 32 bytes long");
    u64::from_le_bytes(*first)
}

/// A tree whose files give chunks.
#[derive(Debug)]
pub(crate) struct TreeSeed {
    source: Source,
    dir: Dir,
    index: TreeIndex,
    /// The file that was read last.
    open: Mutex<Option<(u32, Arc<OwnedFd>)>>,
    /// Chunks that were not what they should be although the file had not changed, and one such file.
    bad: AtomicU64,
    example: Mutex<Option<u32>>,
}

impl Seed for TreeSeed {
    fn source(&self) -> Source {
        self.source
    }

    fn has(&self, id: &ChunkId) -> bool {
        self.places(id).any(|chunk| self.is_as_known(chunk.file))
    }

    fn len_of(&self, id: &ChunkId) -> Option<u32> {
        self.places(id).find(|chunk| self.is_as_known(chunk.file)).map(|chunk| chunk.len)
    }

    fn read(&self, id: &ChunkId, len: u32) -> Option<Vec<u8>> {
        let places = self.places(id).filter(|chunk| chunk.len == len && self.is_as_known(chunk.file));
        places.take(4).find_map(|chunk| self.read_at(id, chunk))
    }

    fn notes(&self) -> Vec<String> {
        let bad = self.bad.load(Ordering::Relaxed);
        let example = *self.example.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = example.and_then(|file| self.file(file)) else { return Vec::new() };
        let path = self.dir.path_of(&file.path);
        let (chunks, verb) = if bad == 1 { ("chunk", "is") } else { ("chunks", "are") };
        vec![format!(
            "{bad} {chunks} on this machine {verb} not what was delivered, though nothing seems to have changed: {}; \
             taken from elsewhere",
            path.display()
        )]
    }
}

impl TreeSeed {
    fn places(&self, id: &ChunkId) -> impl Iterator<Item = &KnownChunk> {
        let key = key_of(id);
        let start = self.index.chunks.partition_point(|chunk| chunk.key < key);
        self.index.chunks[start..].iter().take_while(move |chunk| chunk.key == key)
    }

    fn file(&self, file: u32) -> Option<&KnownFile> {
        self.index.files.get(usize::try_from(file).ok()?)
    }

    /// Whether a file still is what it was, as far as a look without opening it tells. Looked at once.
    fn is_as_known(&self, file: u32) -> bool {
        let Some(file) = self.file(file) else { return false };
        match file.state.load(Ordering::Relaxed) {
            UNSEEN => {
                let is_it = self.dir.stat_below(path_of(file)).is_ok_and(|stat| is_same(file, &stat));
                file.state.store(if is_it { AS_KNOWN } else { OTHER }, Ordering::Relaxed);
                is_it
            }
            state => state == AS_KNOWN,
        }
    }

    fn read_at(&self, id: &ChunkId, chunk: &KnownChunk) -> Option<Vec<u8>> {
        let file = self.file(chunk.file)?;
        let found = self.open(chunk.file, file).and_then(|fd| {
            let mut plain = vec![0; usize::try_from(chunk.len).ok()?];
            let read = fsio::read_exact_at(&*fd, &mut plain, chunk.offset);
            // Only what has not changed meanwhile can be blamed.
            let is_same = Stat::of_fd(&*fd).is_ok_and(|stat| is_same(file, &stat));
            is_same.then_some((read, plain))
        });
        let Some((read, plain)) = found else {
            file.state.store(OTHER, Ordering::Relaxed);
            return None;
        };
        if read.is_ok() && ChunkId::of(&plain) == *id {
            return Some(plain);
        }
        file.state.store(OTHER, Ordering::Relaxed);
        if file.print.is_some() {
            self.bad.fetch_add(1, Ordering::Relaxed);
            self.example.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(chunk.file);
        }
        None
    }

    fn open(&self, number: u32, file: &KnownFile) -> Option<Arc<OwnedFd>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, fd)) = &*open
            && *at == number
        {
            return Some(Arc::clone(fd));
        }
        let fd = Arc::new(self.dir.open_below(path_of(file)).ok()?);
        let is_it = Stat::of_fd(&*fd).is_ok_and(|stat| is_same(file, &stat));
        is_it.then(|| Arc::clone(&open.insert((number, fd)).1))
    }
}

fn path_of(file: &KnownFile) -> &Path {
    Path::new(OsStr::from_bytes(&file.path))
}

fn is_same(file: &KnownFile, stat: &Stat) -> bool {
    stat.file_type == FileType::File
        && stat.size == file.size
        && file.print.is_none_or(|print| print == Fingerprint::of(stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed_of(dir: &Path, files: &[(&str, &[u8])]) -> TreeSeed {
        let root = Dir::open(dir).unwrap();
        let mut index = TreeIndex::default();
        for (name, content) in files {
            let stat = root.stat_below(Path::new(name)).unwrap();
            let path = TreePath::new(name.as_bytes()).unwrap();
            let len = u32::try_from(content.len()).unwrap();
            let chunks = [(ChunkId::of(content), 0, len)];
            assert!(index.push(&path, stat.size, Some(Fingerprint::of(&stat)), chunks));
        }
        index.into_seed(Source::Live, root)
    }

    #[test]
    fn gives_what_is_as_it_was_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["same", "changed", "bad", "gone", "link", "pipe"] {
            std::fs::write(temp.path().join(name), name).unwrap();
        }
        let contents: Vec<(&str, &[u8])> =
            ["same", "changed", "gone", "link", "pipe"].map(|name| (name, name.as_bytes())).to_vec();
        let seed = seed_of(temp.path(), &[&contents[..], &[("bad", b"BAD")]].concat());
        std::fs::write(temp.path().join("changed"), "CHANGED").unwrap();
        std::fs::remove_file(temp.path().join("gone")).unwrap();
        for name in ["link", "pipe"] {
            std::fs::remove_file(temp.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("same", temp.path().join("link")).unwrap();
        let pipe = Dir::open(temp.path()).unwrap();
        pipe.make_special(b"pipe", FileType::Fifo, (0, 0)).unwrap();

        let read = |content: &[u8]| seed.read(&ChunkId::of(content), u32::try_from(content.len()).unwrap());
        assert_eq!(read(b"same").unwrap(), b"same");
        for content in [&b"changed"[..], b"gone", b"link", b"pipe", b"unknown"] {
            assert!(!seed.has(&ChunkId::of(content)) && read(content).is_none());
        }
        assert_eq!(seed.notes(), [""; 0], "a change is nothing wrong");
        assert!(seed.has(&ChunkId::of(b"BAD")), "nothing is read to tell");
        assert!(read(b"BAD").is_none() && !seed.has(&ChunkId::of(b"BAD")));
        assert!(seed.notes()[0].contains("1 chunk") && seed.notes()[0].contains("bad"), "{:?}", seed.notes());
    }

    #[test]
    fn memory_is_bounded() {
        let mut index = TreeIndex::default();
        let chunks = (0..INDEX_BYTES_MAX / CHUNK_COST + 5).map(|at| (ChunkId::of(&at.to_le_bytes()), at, 1));
        assert!(!index.push(&TreePath::new(b"f").unwrap(), u64::MAX, None, chunks));
        assert!(!index.push(&TreePath::new(b"g").unwrap(), 1, None, []));
        assert!(index.bytes <= INDEX_BYTES_MAX + CHUNK_COST + FILE_COST + 1);
    }
}
