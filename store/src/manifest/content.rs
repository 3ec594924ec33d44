// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An entry's chunk list → the chunks that a file is made of (format-spec §40.6).
//!
//! A long list is content itself, up to three times over. It is read as a stream: one piece a level is held, however
//! long a list a hostile entry claims to have.

use super::read::{damaged, rule};
use crate::error::{Error, Result};
use crate::format::manifest::{ChunkList, ChunkRun, FileContent, RunDecoder};
use crate::id::ChunkId;
use crate::limits;
use crate::read::{ChunkReader, ReadScratch};

/// Most runs of one file that [`content_runs`] gives at once. [`content_parts`] has no such bound.
pub const RUNS_HELD_MAX: u64 = 1 << 25;
/// Runs that are given whatever the size of the file.
const RUNS_ALWAYS: u64 = 1 << 20;
/// Bytes of a file that a run stands for on average, at the least: no chunker of the format makes shorter chunks but at
/// the end of a data run.
const RUN_BYTES_MIN: u64 = 512;

/// Something that a file's content needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentPart {
    /// A piece of the list, which comes before the runs that it holds.
    List(ChunkId),
    /// The next run of the content.
    Run(ChunkRun),
}

/// The runs of a file's content in order; an indirect list is read from the store.
///
/// # Errors
/// As [`ContentParts::next`]; [`Error::LimitExceeded`] for more runs than memory is spent on: [`RUNS_HELD_MAX`], and fewer
/// for a small file, as a hostile list of single bytes may be far longer than what it takes in a store.
pub fn content_runs(reader: &ChunkReader, content: &FileContent) -> Result<Vec<ChunkRun>> {
    let limit = (content.size / RUN_BYTES_MIN).clamp(RUNS_ALWAYS, RUNS_HELD_MAX);
    let mut runs = Vec::new();
    for part in content_parts(reader, content)? {
        if let ContentPart::Run(run) = part? {
            if runs.len() as u64 == limit {
                return Err(Error::LimitExceeded { what: "number of chunks of a file", found: limit + 1, limit });
            }
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Everything that a file's content needs, as a stream.
///
/// # Errors
/// [`Error::LimitExceeded`] for a file of one chunk that is too long to be one.
pub fn content_parts<'r>(reader: &'r ChunkReader, content: &FileContent) -> Result<ContentParts<'r>> {
    let source = match &content.chunks {
        ChunkList::Whole if content.size == 0 => Source::Given(Vec::new().into_iter()),
        ChunkList::Whole => {
            let limit = u64::from(limits::CHUNK_BYTES_MAX);
            let too_long = |_| Error::LimitExceeded { what: "length of a chunk", found: content.size, limit };
            let len = u32::try_from(content.size).map_err(too_long)?;
            Source::Given(vec![ChunkRun::Data { id: content.hash.into(), len }].into_iter())
        }
        ChunkList::Inline(runs) => Source::Given(runs.clone().into_iter()),
        ChunkList::Indirect { depth, runs } => {
            let mut source = Source::Given(runs.clone().into_iter());
            for level in (0..*depth).rev() {
                source = Source::List(Box::new(List::new(reader, source, (level == 0).then_some(content.size))));
            }
            source
        }
    };
    Ok(ContentParts { source, failed: false })
}

/// Iterator over what a file's content needs. After an error it ends.
#[derive(Debug)]
pub struct ContentParts<'r> {
    source: Source<'r>,
    failed: bool,
}

impl Iterator for ContentParts<'_> {
    type Item = Result<ContentPart>;

    /// # Errors
    /// As [`ChunkReader::read`]; [`Error::Decode`] for a list that breaks the format.
    fn next(&mut self) -> Option<Result<ContentPart>> {
        if self.failed {
            return None;
        }
        let next = self.source.next();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Where runs come from.
#[derive(Debug)]
enum Source<'r> {
    /// The entry.
    Given(std::vec::IntoIter<ChunkRun>),
    /// A list in the store.
    List(Box<List<'r>>),
}

impl Source<'_> {
    fn next(&mut self) -> Result<Option<ContentPart>> {
        match self {
            Source::Given(runs) => Ok(runs.next().map(ContentPart::Run)),
            Source::List(list) => list.next(),
        }
    }
}

/// A packed list that is content, read piece by piece.
#[derive(Debug)]
struct List<'r> {
    reader: &'r ChunkReader,
    scratch: ReadScratch,
    pieces: Source<'r>,
    decoder: RunDecoder,
    /// What the runs must add up to; `None` for the list of a list.
    size: Option<u64>,
    /// What was read of the list and not unpacked yet. A run may begin in one piece and end in the next.
    bytes: Vec<u8>,
    used: usize,
    /// Bytes of the list before `bytes`.
    offset: u64,
}

impl<'r> List<'r> {
    fn new(reader: &'r ChunkReader, pieces: Source<'r>, size: Option<u64>) -> List<'r> {
        let decoder = RunDecoder::new("chunk list", size.unwrap_or(u64::MAX));
        let (scratch, bytes) = (ReadScratch::default(), Vec::new());
        List { reader, scratch, pieces, decoder, size, bytes, used: 0, offset: 0 }
    }

    fn next(&mut self) -> Result<Option<ContentPart>> {
        if let Some(record) = self.bytes[self.used..].first_chunk::<{ RunDecoder::RUN_LEN }>() {
            let run = self.decoder.decode(record, self.offset + self.used as u64).map_err(damaged)?;
            if self.size.is_none() && matches!(run, ChunkRun::Hole { .. }) {
                return Err(damaged(rule("chunk list", "hole", "a list has no holes")));
            }
            self.used += RunDecoder::RUN_LEN;
            return Ok(Some(ContentPart::Run(run)));
        }
        match self.pieces.next()? {
            Some(ContentPart::Run(ChunkRun::Data { id, len })) => {
                self.read_piece(&id, len)?;
                Ok(Some(ContentPart::List(id)))
            }
            Some(ContentPart::Run(ChunkRun::Hole { .. })) => {
                Err(damaged(rule("chunk list", "hole", "a list has no holes")))
            }
            Some(piece @ ContentPart::List(_)) => Ok(Some(piece)),
            None => self.finish().map(|()| None),
        }
    }

    fn read_piece(&mut self, id: &ChunkId, len: u32) -> Result<()> {
        let chunk = self.reader.read(id, &mut self.scratch)?;
        if chunk.plain().len() as u64 != u64::from(len) {
            return Err(damaged(rule("chunk list", "length", "a chunk has another length than the list says")));
        }
        self.bytes.drain(..self.used);
        self.offset += self.used as u64;
        self.used = 0;
        self.bytes.extend_from_slice(chunk.plain());
        Ok(())
    }

    /// Checks what only the whole list tells.
    fn finish(&self) -> Result<()> {
        let sum = self.decoder.sum();
        let (holds, what) = match self.size {
            _ if self.used != self.bytes.len() => (false, "a list of broken records"),
            Some(size) => (sum == size, "the runs do not add up to the size"),
            None => {
                let fits_entry = (limits::CHUNK_LIST_INLINE_MAX * RunDecoder::RUN_LEN) as u64;
                (sum > fits_entry, "an indirect list that would fit the entry")
            }
        };
        if holds { Ok(()) } else { Err(damaged(rule("chunk list", "len", what))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::encode_chunk_list;
    use crate::format::pack::{Encoding, PackKind};
    use crate::id::ContentHash;
    use crate::pack::PackWriter;
    use crate::store::{InitOptions, Store};

    /// One piece of a list, stored once, named over and over: a small store that claims gigabytes of runs.
    #[test]
    fn a_list_that_repeats_itself_is_streamed_and_not_held() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &InitOptions::default()).unwrap();
        let byte = ChunkId::of(b"x");
        let piece = encode_chunk_list(&vec![ChunkRun::Data { id: byte, len: 1 }; 400_000]);
        let id = ChunkId::of(&piece);
        let mut pack = PackWriter::create(store.writing().unwrap(), PackKind::Manifest).unwrap();
        pack.push(id, u32::try_from(piece.len()).unwrap(), Encoding::Raw, &piece).unwrap();
        pack.finish().unwrap().publish(store.writing().unwrap()).unwrap();

        let reader = store.reader().unwrap();
        let len = u32::try_from(piece.len()).unwrap();
        let repeated = |times: usize, size| FileContent {
            size,
            hash: ContentHash::of(b""),
            chunks: ChunkList::Indirect { depth: 1, runs: vec![ChunkRun::Data { id, len }; times] },
            unstable: false,
        };
        let held = content_runs(&reader, &repeated(2, 800_000)).unwrap();
        assert_eq!(held.len(), 800_000);
        let hostile = repeated(1024, 1024 * 400_000);
        let refused = content_runs(&reader, &hostile).unwrap_err();
        assert!(matches!(refused, Error::LimitExceeded { limit: RUNS_ALWAYS, .. }), "{refused}");
        let mut parts = content_parts(&reader, &hostile).unwrap();
        assert_eq!(parts.next().unwrap().unwrap(), ContentPart::List(id));
        assert_eq!(parts.nth(400_000).unwrap().unwrap(), ContentPart::List(id));
        assert!(content_runs(&reader, &repeated(2, 799_999)).is_err(), "too long");
        assert!(content_runs(&reader, &repeated(2, 800_001)).is_err(), "too short");
    }
}
