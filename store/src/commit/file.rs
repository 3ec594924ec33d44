// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One file → content: read, cut, hash, look up.
//!
//! Plain reads, never a map. The file is looked at before and after; what changed meanwhile is read again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::chunk::Chunker;
use crate::error::{Error, Result};
use crate::format::manifest::{ChunkList, ChunkRun, FileContent, Timestamp, encode_chunk_list};
use crate::fsio::{self, DataRun, Stat};
use crate::id::{ChunkId, ContentHash};
use crate::inode;
use crate::limits::{self, HOLE_ALIGN};
use crate::walk::Found;

/// Times that a file which changes under the reader is read.
const ATTEMPTS: u32 = 3;
/// Most bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Takes the chunks of files as they are cut.
pub(super) trait ChunkSink {
    /// Stores a chunk unless the store has it. `is_large_file` tells that more of the same file follows and that other
    /// threads may help.
    fn put(&mut self, id: ChunkId, plain: &[u8], is_large_file: bool) -> Result<()>;

    /// Stores a chunk that belongs to the manifest.
    fn put_list(&mut self, id: ChunkId, plain: &[u8]) -> Result<()>;

    /// Is told of `bytes` of a hole, of which there is nothing to store.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the file is not to be read on.
    fn pass(&mut self, bytes: u64) -> Result<()>;
}

/// Why a file's content could not be had.
#[derive(Debug)]
pub(super) enum FileError {
    /// The system said no.
    Unreadable(io::Error),
    /// It vanished between being found and being opened.
    Vanished,
    /// It changed each time it was read.
    Unstable,
    /// Everything else ends the commit.
    Fatal(Error),
}

impl From<Error> for FileError {
    fn from(error: Error) -> Self {
        FileError::Fatal(error)
    }
}

/// Reads files with buffers that are kept between them.
#[derive(Debug)]
pub(super) struct FileReader<'c> {
    chunker: &'c Chunker,
    buffer: Vec<u8>,
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct ReadFile {
    /// Metadata after the last read.
    pub(super) stat: Stat,
    pub(super) content: FileContent,
    pub(super) fd: std::os::fd::OwnedFd,
}

impl<'c> FileReader<'c> {
    pub(super) fn new(chunker: &'c Chunker) -> Self {
        FileReader { chunker, buffer: Vec::new() }
    }

    /// Opens and reads a file until two looks at it agree.
    pub(super) fn read(
        &mut self,
        found: &Found,
        allow_changing: bool,
        sink: &mut impl ChunkSink,
    ) -> Result<ReadFile, FileError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (fd, before) = match inode::open_file(found) {
                Ok(opened) => opened,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(FileError::Vanished),
                Err(e) => return Err(FileError::Unreadable(e)),
            };
            if before.size > limits::FILE_BYTES_MAX {
                let (found, limit) = (before.size, limits::FILE_BYTES_MAX);
                return Err(Error::LimitExceeded { what: "size of a file", found, limit }.into());
            }
            wait_for_tick(before.ctime);
            let mut content = self.read_content(fd.as_fd(), before.size, sink)?;
            let after = Stat::of_fd(&fd).map_err(FileError::Unreadable)?;
            if before.same_content_as(&after) && content.size == before.size {
                return Ok(ReadFile { stat: after, content, fd });
            }
            if attempt == ATTEMPTS {
                if !allow_changing {
                    return Err(FileError::Unstable);
                }
                content.unstable = true;
                return Ok(ReadFile { stat: after, content, fd });
            }
        }
    }

    /// Reads up to `size` bytes; the content says how many there were.
    fn read_content(
        &mut self,
        fd: BorrowedFd<'_>,
        size: u64,
        sink: &mut impl ChunkSink,
    ) -> Result<FileContent, FileError> {
        if size == 0 {
            let hash = ContentHash::of(b"");
            return Ok(FileContent { size: 0, hash, chunks: ChunkList::Whole, unstable: false });
        }
        let runs = if size < HOLE_ALIGN {
            vec![DataRun { start: 0, end: size }]
        } else {
            align_runs(fsio::data_runs(fd, size).map_err(FileError::Unreadable)?, size)
        };
        let mut cut = Cut::new(size);
        for run in runs {
            cut.hole_until(run.start, sink)?;
            if !self.read_run(fd, run, &mut cut, sink)? {
                break; // The file shrank; the look afterwards tells.
            }
        }
        if cut.at < size && !cut.shrank {
            cut.hole_until(size, sink)?;
        }
        self.finish(cut, sink)
    }

    /// Reads one data run and cuts it. Gives false when the file ended first.
    fn read_run(
        &mut self,
        fd: BorrowedFd<'_>,
        run: DataRun,
        cut: &mut Cut,
        sink: &mut impl ChunkSink,
    ) -> Result<bool, FileError> {
        let (mut at, mut used) = (run.start, 0);
        self.buffer.clear();
        loop {
            let left = usize::try_from(run.end - at).unwrap_or(usize::MAX);
            if left > 0 {
                self.buffer.drain(..used);
                used = 0;
                let have = self.buffer.len();
                let want = left.min(READ_BYTES.max(2 * self.chunker.max()) - have);
                self.buffer.resize(have + want, 0);
                let read = read_some(fd, &mut self.buffer[have..], at).map_err(FileError::Unreadable)?;
                self.buffer.truncate(have + read);
                at += read as u64;
                cut.shrank = read < want;
            }
            let is_end = at == run.end || cut.shrank;
            while used < self.buffer.len() && (is_end || self.buffer.len() - used >= self.chunker.max()) {
                let window = &self.buffer[used..];
                let chunk = &window[..self.chunker.next_cut(window)];
                cut.push(chunk, sink)?;
                used += chunk.len();
            }
            if is_end {
                return Ok(!cut.shrank);
            }
        }
    }

    /// Turns the runs into the form that an entry holds.
    fn finish(&mut self, cut: Cut, sink: &mut impl ChunkSink) -> Result<FileContent, FileError> {
        let size = cut.at;
        let hash = cut.hash();
        let chunks = match cut.runs.as_slice() {
            [] | [ChunkRun::Data { .. }] => ChunkList::Whole,
            runs if runs.len() <= limits::CHUNK_LIST_INLINE_MAX => ChunkList::Inline(cut.runs),
            _ => self.indirect(cut.runs, sink)?,
        };
        Ok(FileContent { size, hash, chunks, unstable: false })
    }

    /// Makes content of a list that is too long for an entry, as often as it takes.
    fn indirect(&mut self, mut runs: Vec<ChunkRun>, sink: &mut impl ChunkSink) -> Result<ChunkList, FileError> {
        let mut depth = 0;
        while runs.len() > limits::CHUNK_LIST_INLINE_MAX {
            depth += 1;
            if depth > limits::CHUNK_LIST_DEPTH_MAX {
                let (found, limit) = (u64::from(depth), u64::from(limits::CHUNK_LIST_DEPTH_MAX));
                return Err(Error::LimitExceeded { what: "depth of a chunk list", found, limit }.into());
            }
            let list = encode_chunk_list(&runs);
            runs = Vec::new();
            for chunk in self.chunker.chunks(&list) {
                let id = ChunkId::of(chunk);
                sink.put_list(id, chunk)?;
                runs.push(ChunkRun::Data { id, len: chunk_len(chunk) });
            }
        }
        Ok(ChunkList::Indirect { depth, runs })
    }
}

/// What was cut so far of one file.
#[derive(Debug)]
struct Cut {
    at: u64,
    is_large: bool,
    shrank: bool,
    runs: Vec<ChunkRun>,
    /// Of the whole content; started with the second run, because one chunk's id is the hash of a whole file.
    hasher: Option<blake3::Hasher>,
    first: Option<ChunkId>,
}

impl Cut {
    /// Files of more than this let other threads help with their chunks.
    const LARGE: u64 = 2 << 20;

    fn new(size: u64) -> Cut {
        Cut { at: 0, is_large: size > Self::LARGE, shrank: false, runs: Vec::new(), hasher: None, first: None }
    }

    fn push(&mut self, chunk: &[u8], sink: &mut impl ChunkSink) -> Result<(), FileError> {
        let whole_so_far = self.runs.is_empty();
        let id = ChunkId::of(chunk);
        sink.put(id, chunk, self.is_large)?;
        if whole_so_far {
            self.first = Some(id);
        }
        self.hasher.get_or_insert_with(blake3::Hasher::new).update(chunk);
        self.runs.push(ChunkRun::Data { id, len: chunk_len(chunk) });
        self.at += chunk.len() as u64;
        Ok(())
    }

    /// Hashes the zeros that a hole stands for: a file's hash is that of all its bytes (format-spec §00.4), and where in a
    /// file they are goes into it, so there is nothing to remember from one hole for the next.
    fn hole_until(&mut self, end: u64, sink: &mut impl ChunkSink) -> Result<(), FileError> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let len = end - self.at;
        if len == 0 {
            return Ok(());
        }
        let hasher = self.hasher.get_or_insert_with(blake3::Hasher::new);
        let mut left = len;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(ZEROS.len()).min(ZEROS.len());
            hasher.update(&ZEROS[..part]);
            left -= part as u64;
            sink.pass(part as u64)?;
        }
        self.runs.push(ChunkRun::Hole { len });
        self.at = end;
        Ok(())
    }

    fn hash(&self) -> ContentHash {
        match (self.runs.as_slice(), self.first, &self.hasher) {
            ([ChunkRun::Data { .. }], Some(first), _) => first.into(),
            (_, _, Some(hasher)) => ContentHash(*hasher.finalize().as_bytes()),
            _ => ContentHash::of(b""),
        }
    }
}

fn chunk_len(chunk: &[u8]) -> u32 {
    u32::try_from(chunk.len()).expect("a chunk is no longer than the format allows")
}

/// Data runs whose holes are aligned: a hole starts and ends at multiples of [`HOLE_ALIGN`], or ends with the file.
/// Parts of holes that do not fit become data.
fn align_runs(runs: Vec<DataRun>, size: u64) -> Vec<DataRun> {
    let mut aligned: Vec<DataRun> = Vec::with_capacity(runs.len());
    for run in runs {
        let start = run.start / HOLE_ALIGN * HOLE_ALIGN;
        let end = run.end.next_multiple_of(HOLE_ALIGN).min(size);
        match aligned.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => aligned.push(DataRun { start, end }),
        }
    }
    aligned
}

/// Waits until the clock that stamps inodes has moved on from `ctime`. A change while the file is read would otherwise
/// not show. A time far in the future comes from a clock that was set back; waiting for it would take too long.
fn wait_for_tick(ctime: Timestamp) {
    const TICK_NANOS_MAX: i128 = 20_000_000;
    let nanos = |time: Timestamp| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    while (0..TICK_NANOS_MAX).contains(&(nanos(ctime) - nanos(fsio::now_coarse()))) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Fills `buffer` from `offset` or up to the file's end; gives the bytes read.
fn read_some(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match fsio::read_at(fd, &mut buffer[read..], offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::backend::ObjectName;
    use crate::format::pack::{Encoding, PackKind};
    use crate::format::store::ChunkerParams;
    use crate::manifest::{ContentPart, content_parts, content_runs};
    use crate::pack::PackWriter;
    use crate::store::{InitOptions, Store};

    #[test]
    fn holes_are_rounded_inward() {
        let run = |start, end| DataRun { start, end };
        let cases = [
            (vec![], 10_000, vec![]),
            (vec![run(0, 10_000)], 10_000, vec![run(0, 10_000)]),
            (vec![run(5000, 6000)], 20_000, vec![run(4096, 8192)]),
            (vec![run(5000, 6000), run(9000, 9001)], 20_000, vec![run(4096, 12_288)]),
            (vec![run(0, 4096), run(16_384, 17_000)], 17_000, vec![run(0, 4096), run(16_384, 17_000)]),
        ];
        for (runs, size, expected) in cases {
            assert_eq!(align_runs(runs.clone(), size), expected, "{runs:?}");
        }
    }

    /// Keeps what it is given.
    struct Kept(PackWriter, BTreeSet<ChunkId>);

    impl ChunkSink for Kept {
        fn put(&mut self, _: ChunkId, _: &[u8], _: bool) -> Result<()> {
            unreachable!("lists only")
        }

        fn put_list(&mut self, id: ChunkId, plain: &[u8]) -> Result<()> {
            if self.1.insert(id) { self.0.push(id, chunk_len(plain), Encoding::Raw, plain) } else { Ok(()) }
        }

        fn pass(&mut self, _: u64) -> Result<()> {
            unreachable!("lists only")
        }
    }

    /// A file of a few gigabytes in small chunks: its list has a list, which is read back through both.
    #[test]
    fn a_list_that_is_too_long_has_a_list_itself() {
        let dir = tempfile::tempdir().unwrap();
        let params = ChunkerParams::around(8 << 10);
        let store = Store::create(dir.path(), &InitOptions { chunker: params, pack_size: 64 << 20 }).unwrap();
        let runs: Vec<ChunkRun> = (0..300_000u32)
            .map(|number| match number % 100 {
                99 => ChunkRun::Hole { len: 4096 },
                _ => ChunkRun::Data { id: ChunkId::of(&number.to_le_bytes()), len: 4096 },
            })
            .collect();
        let chunker = Chunker::new(params);
        let mut sink = Kept(PackWriter::create(store.writing().unwrap(), PackKind::Manifest).unwrap(), BTreeSet::new());
        let Ok(chunks) = FileReader::new(&chunker).indirect(runs.clone(), &mut sink) else { panic!("no limit is met") };
        assert!(matches!(chunks, ChunkList::Indirect { depth: 2, .. }), "{chunks:?}");
        sink.0.finish().unwrap().publish(store.writing().unwrap()).unwrap();
        store.writing().unwrap().sync_names().unwrap();
        store.writing().unwrap().remove(&ObjectName::SegmentsCurrent).unwrap();

        let size = 300_000 * 4096;
        let content = FileContent { size, hash: ContentHash::of(b""), chunks, unstable: false };
        let reader = store.reader().unwrap();
        assert_eq!(content_runs(&reader, &content).unwrap(), runs);
        // A locator lists all of them; those of the inner list were left out.
        let parts = content_parts(&reader, &content).unwrap().map(Result::unwrap);
        let pieces: BTreeSet<ChunkId> = parts
            .filter_map(|part| match part {
                ContentPart::List(id) => Some(id),
                ContentPart::Run(_) => None,
            })
            .collect();
        assert_eq!(pieces, sink.1);
        let other_size = FileContent { size: size + 1, ..content };
        assert!(content_runs(&reader, &other_size).is_err(), "the sum has to be the file's size");
    }
}
