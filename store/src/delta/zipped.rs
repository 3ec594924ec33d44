// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames of gzip files: made again out of what they hold, which resembles what older ones held, or files that are not
//! compressed at all, as in an initial ramdisk.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::codec::again::{self, Inflate, Piece, Recipe};
use super::codec::{Effort, Encoded};
use super::gzip::{self, Gzip, Member, Source};
use super::inventory::{FileChunks, Inventory};
use super::plan::PlannedFrame;
use crate::error::{Error, Result};
use crate::format::delta::{DeltaChunk, ENCODING_DEFLATE};
use crate::id::ChunkId;
use crate::limits;
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};

/// Longest gzip file that is looked into, and the most that one may hold, in bytes.
const FILE_BYTES_MAX: u64 = 128 << 20;
const PLAIN_BYTES_MAX: usize = 320 << 20;
/// Smallest file that is worth it, in bytes.
const FILE_BYTES_MIN: u64 = 256;
/// Files that hold at most so many bytes share frames.
const SMALL_PLAIN_BYTES: usize = 2 << 20;
/// Plain bytes of a frame that is planned, what precedes and follows them not counted.
const FRAME_PLAIN_BYTES: usize = 16 << 20;
/// Bases of a frame that is planned, what they hold counted, in bytes: with half of it twice in memory.
const FRAME_BASE_BYTES: usize = 28 << 20;

/// A new gzip file that can be made again.
#[derive(Debug)]
pub struct Zipped {
    /// Place in the target's files.
    pub at: usize,
    /// Place in the base's files of what it resembles.
    base: Option<usize>,
    gzip: Gzip,
}

impl Zipped {
    /// Place in the base's files of what it resembles.
    pub fn base(&self) -> Option<usize> {
        self.base
    }
}

/// Those of `changed` that can be made again. `bases` has what each resembles.
///
/// # Errors
/// [`Error::Interrupted`]. What cannot be read is told where its bytes are needed.
pub fn find(
    reader: &ChunkReader,
    after: &Inventory,
    changed: &[usize],
    bases: &[Option<usize>],
    progress: &Progress,
) -> Result<Vec<Zipped>> {
    let mut scratch = ReadScratch::default();
    let mut found = Vec::new();
    for (at, base) in changed.iter().zip(bases) {
        progress.check_cancelled()?;
        let file = &after.files[*at];
        if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&file.size) || !is_whole(file) {
            continue;
        }
        let first = reader.read(&file.chunks[0].chunk.id, &mut scratch);
        if !first.is_ok_and(|first| gzip::is_gzip(first.plain())) {
            continue;
        }
        let Ok(bytes) = read(reader, &file.chunks, &mut scratch) else { continue };
        let plain = gzip::plain(&bytes, PLAIN_BYTES_MAX);
        if let Some(gzip) = plain.and_then(|plain| gzip::analyse(&bytes, &plain)) {
            found.push(Zipped { at: *at, base: *base, gzip });
        }
    }
    Ok(found)
}

/// Whether a file has no holes.
fn is_whole(file: &FileChunks) -> bool {
    file.chunks.iter().map(|placed| u64::from(placed.chunk.len)).sum::<u64>() == file.size
}

fn read<'c>(
    reader: &ChunkReader,
    chunks: impl IntoIterator<Item = &'c super::inventory::PlacedChunk>,
    scratch: &mut ReadScratch,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for placed in chunks {
        out.extend_from_slice(reader.read(&placed.chunk.id, scratch)?.plain());
    }
    Ok(out)
}

/// A frame to be made, and how.
#[derive(Debug)]
pub struct Job {
    /// Outputs and bases.
    pub frame: PlannedFrame,
    recipe: Recipe,
    plain: Vec<u8>,
}

/// Makes jobs: small files in one call, long ones in one call each.
pub struct Jobs<'j> {
    /// Where chunks are read.
    pub reader: &'j ChunkReader,
    /// The base snapshot's files.
    pub before: &'j Inventory,
    /// The target's.
    pub after: &'j Inventory,
    /// Chunks that a reader has, or that frames before these give.
    pub known: &'j HashSet<ChunkId>,
    /// Chunks that frames give already.
    pub given: &'j HashSet<ChunkId>,
}

impl Jobs<'_> {
    /// Files that share frames, a group a job; what is missing of the others is a job for [`Jobs::long`].
    pub fn groups<'z>(&self, zipped: &'z [Zipped]) -> (Vec<Vec<&'z Zipped>>, Vec<&'z Zipped>) {
        let mut planned = HashSet::new();
        let (mut groups, mut long): (Vec<Vec<&Zipped>>, Vec<&Zipped>) = (Vec::new(), Vec::new());
        let (mut plain, mut base) = (0, 0);
        for one in zipped {
            let chunks = &self.after.files[one.at].chunks;
            let is_new = chunks.iter().all(|placed| self.is_wanted(&placed.chunk.id));
            if !is_new || one.gzip.plain_len > SMALL_PLAIN_BYTES || chunks.len() > 64 {
                long.push(one);
                continue;
            }
            // A file that is there twice is given once.
            if !chunks.iter().all(|placed| planned.insert(placed.chunk.id)) {
                continue;
            }
            let own_plain = one.gzip.plain_len + usize::try_from(self.after.files[one.at].size).unwrap_or(0);
            let own_base = self.base_of(one).map_or(0, |file| 6 * usize::try_from(file.size).unwrap_or(0));
            if groups.is_empty() || plain + own_plain > FRAME_PLAIN_BYTES || base + own_base > FRAME_BASE_BYTES {
                groups.push(Vec::new());
                (plain, base) = (0, 0);
            }
            (plain, base) = (plain + own_plain, base + own_base);
            groups.last_mut().expect("one was pushed").push(one);
        }
        (groups, long)
    }

    fn is_wanted(&self, id: &ChunkId) -> bool {
        !self.known.contains(id) && !self.given.contains(id)
    }

    /// What a small file resembles, if that is small, too.
    fn base_of(&self, one: &Zipped) -> Option<&FileChunks> {
        let file = &self.before.files[one.base?];
        (file.size <= SMALL_PLAIN_BYTES as u64 && is_whole(file)).then_some(file)
    }

    /// A frame of whole small files.
    ///
    /// # Errors
    /// As [`ChunkReader::read`].
    pub fn group(&self, files: &[&Zipped], scratch: &mut ReadScratch) -> Result<Job> {
        let mut job = Job { frame: PlannedFrame::default(), recipe: Recipe::default(), plain: Vec::new() };
        let (mut base_len, mut all_len, mut bases) = (0_usize, 0_usize, HashSet::new());
        for one in files {
            let file = &self.after.files[one.at];
            let bytes = read(self.reader, &file.chunks, scratch)?;
            let plain = gzip::plain(&bytes, PLAIN_BYTES_MAX).ok_or_else(changed_meanwhile)?;
            let (pieces, sources) = one.gzip.pieces(0..bytes.len());
            job.recipe.pieces.extend(pieces);
            take(&mut job.plain, &sources, &bytes, &plain);
            job.frame.outputs.extend(file.chunks.iter().map(|placed| placed.chunk));
            let Some((at, old)) = one.base.zip(self.base_of(one)).filter(|(at, _)| !bases.contains(at)) else {
                continue;
            };
            let bytes = read(self.reader, &old.chunks, scratch)?;
            let held = gzip::plain(&bytes, PLAIN_BYTES_MAX);
            let more = bytes.len() * 2 + held.as_ref().map_or(0, Vec::len);
            if all_len + more > FRAME_BASE_BYTES {
                continue;
            }
            bases.insert(at);
            if let (Some(held), Some((stream, _))) = (held, gzip::layout(&bytes)) {
                let (start, stored_len) = (base_len + stream.start, stream.len());
                job.recipe.inflate.push(Inflate { start, stored_len, plain_len: held.len() });
            }
            job.frame.bases.extend(old.chunks.iter().map(|placed| placed.chunk));
            (base_len, all_len) = (base_len + bytes.len(), all_len + more);
        }
        Ok(job)
    }

    /// A long file, read once for all of its frames; `None` where nothing it resembles is known.
    ///
    /// # Errors
    /// As [`ChunkReader::read`].
    pub fn long<'j>(&'j self, one: &'j Zipped, scratch: &mut ReadScratch) -> Result<Option<Long<'j>>> {
        let file = &self.after.files[one.at];
        let bytes = read(self.reader, &file.chunks, scratch)?;
        let plain = gzip::plain(&bytes, PLAIN_BYTES_MAX).ok_or_else(changed_meanwhile)?;
        let members = gzip::members(&plain);
        if members.is_empty() {
            return Ok(None);
        }
        let by_path: HashMap<&[u8], &FileChunks> = self.after.files.iter().map(|file| (&file.path[..], file)).collect();
        let area = file.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        let same = |member: &Member| {
            let at = |below: &[u8]| by_path.get(&[area, b"/", below, &member.name].concat()[..]).copied();
            at(b"").or_else(|| at(b"usr/"))
        };
        let of = members.iter().map(|member| (member.content.clone(), same(member))).collect();
        Ok(Some(Long { jobs: self, one, bytes, plain, members: of }))
    }
}

/// A long gzip file of an archive.
pub struct Long<'j> {
    jobs: &'j Jobs<'j>,
    one: &'j Zipped,
    bytes: Vec<u8>,
    plain: Vec<u8>,
    /// Files of the archive, and the same ones outside.
    members: Vec<(Range<usize>, Option<&'j FileChunks>)>,
}

impl Long<'_> {
    /// Frames as ranges of the file, each of new chunks without another one between them.
    pub fn frames(&self) -> Vec<(Vec<DeltaChunk>, Range<usize>)> {
        let mut frames: Vec<(Vec<DeltaChunk>, Range<usize>)> = Vec::new();
        let mut planned = HashSet::new();
        for placed in &self.jobs.after.files[self.one.at].chunks {
            if !self.jobs.is_wanted(&placed.chunk.id) || !planned.insert(placed.chunk.id) {
                continue;
            }
            let place = |at: u64| usize::try_from(at).expect("a place in a file in memory");
            let (start, end) = (place(placed.offset), place(placed.end()));
            match frames.last_mut() {
                Some((chunks, range)) if range.end == start && self.fits(range.start..end) => {
                    chunks.push(placed.chunk);
                    range.end = end;
                }
                _ => frames.push((vec![placed.chunk], start..end)),
            }
        }
        frames
    }

    fn fits(&self, range: Range<usize>) -> bool {
        self.one.gzip.plain_range(&range).len() + range.len() / 8 <= FRAME_PLAIN_BYTES
    }

    /// A frame, as [`Long::frames`] gave it.
    pub fn job(&self, (outputs, range): &(Vec<DeltaChunk>, Range<usize>)) -> Job {
        let (pieces, sources) = self.one.gzip.pieces(range.clone());
        let mut plain = Vec::new();
        take(&mut plain, &sources, &self.bytes, &self.plain);
        let recipe = Recipe { inflate: Vec::new(), pieces };
        Job { frame: PlannedFrame { outputs: outputs.clone(), bases: self.bases(&sources) }, recipe, plain }
    }

    /// Chunks of the files that plain bytes are from.
    fn bases(&self, sources: &[Source]) -> Vec<DeltaChunk> {
        let (mut bases, mut seen, mut len) = (Vec::new(), HashSet::new(), 0);
        for source in sources {
            let Source::Plain(range) = source else { continue };
            let first = self.members.partition_point(|(content, _)| content.end <= range.start);
            let touched = self.members[first..].iter().take_while(|(content, _)| content.start < range.end);
            for (content, file) in touched.filter_map(|(content, file)| Some((content, (*file)?))) {
                let place = |at: usize| at.saturating_sub(content.start) as u64;
                let wanted = place(range.start)..place(range.end);
                let chunks = file.chunks.iter().filter(|at| at.offset < wanted.end && at.end() > wanted.start);
                for chunk in chunks.map(|placed| placed.chunk) {
                    let is_known = self.jobs.known.contains(&chunk.id) || self.jobs.given.contains(&chunk.id);
                    let more = usize::try_from(chunk.len).unwrap_or(usize::MAX);
                    if is_known && len + more <= 2 * FRAME_PLAIN_BYTES && seen.insert(chunk.id) {
                        len += more;
                        bases.push(chunk);
                    }
                }
            }
        }
        bases
    }
}

/// Appends what pieces are made of.
fn take(out: &mut Vec<u8>, sources: &[Source], bytes: &[u8], plain: &[u8]) {
    for source in sources {
        match source {
            Source::File(range) => out.extend_from_slice(&bytes[range.clone()]),
            Source::Plain(range) => out.extend_from_slice(&plain[range.clone()]),
        }
    }
}

/// A gzip file was one a moment ago: chunks do not change.
fn changed_meanwhile() -> Error {
    Error::io("read again", "a gzip file", std::io::Error::other("it is no gzip file any more"))
}

/// The payload of a job; `None` when it does not give `output`, or more is needed than a reader may take.
///
/// # Errors
/// When zstd has no memory.
pub fn encode(job: &Job, base: &[u8], output: &[u8], effort: Effort) -> std::io::Result<Option<Encoded>> {
    let is_small = job.plain.len() as u64 <= limits::DELTA_PLAIN_BYTES_MAX;
    if !is_small || !job.recipe.pieces.iter().any(|piece| matches!(piece, Piece::Deflate(_))) {
        return Ok(None);
    }
    let payload = again::encode(&job.recipe, base, &job.plain, effort)?;
    let is_right = again::decode(base, &payload, output.len()).is_ok_and(|made| made == output);
    Ok(is_right.then_some(Encoded { encoding: ENCODING_DEFLATE, payload }))
}
