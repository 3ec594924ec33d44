// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deltas: header and table of a delta file, and the list of those that lead to a snapshot (format-spec §70).
//!
//! Nothing here is trusted: what a frame gives is a chunk only once it has been hashed.

use std::collections::{HashMap, HashSet};

use super::fields::{Fields, VERSION};
use super::{DecodeError, Reason};
use crate::id::{ChunkId, DeltaId, SnapshotId};
use crate::limits;

const OBJECT: &str = "delta";
const MAGIC: &[u8; 8] = b"EKDELT\r\n";

/// Length of a delta's header.
pub const HEADER_LEN: usize = 128;
/// Length of one frame in the table.
pub const FRAME_LEN: usize = 32;
/// Length of one chunk in the table.
pub const CHUNK_LEN: usize = 36;
/// Length of one reference to a base.
pub const REF_LEN: usize = 4;
/// Where the header's hash stands.
const HASH_AT: usize = 96;

/// One zstd frame without a base.
pub const ENCODING_ZSTD: u8 = 0;
/// One zstd frame that the base precedes.
pub const ENCODING_ZSTD_BASE: u8 = 1;
/// Byte-wise differences to places of the base.
pub const ENCODING_DIFF: u8 = 2;
/// What was deflated is made again.
pub const ENCODING_DEFLATE: u8 = 3;

/// A chunk that a frame gives or needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeltaChunk {
    /// Its name.
    pub id: ChunkId,
    /// Its length.
    pub len: u32,
}

/// A run of new chunks, and what they are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaFrame {
    /// What the payload decodes to, one after the other.
    pub outputs: Vec<DeltaChunk>,
    /// What one must have for that; their bytes, one after the other, are the base.
    pub bases: Vec<DeltaChunk>,
    /// How: one of the `ENCODING_` constants, or a later program's.
    pub encoding: u8,
    /// Length of the payload.
    pub payload_len: u32,
    /// Begin of the payload's hash.
    pub payload_hash: [u8; 16],
}

/// Header and table of a delta file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The snapshot whose chunks are bases; `None` when frames have none or take them from anywhere.
    pub base: Option<SnapshotId>,
    /// The snapshot whose chunks are outputs.
    pub target: SnapshotId,
    /// In the order of their payloads.
    pub frames: Vec<DeltaFrame>,
}

impl DeltaFrame {
    /// Length of what the payload decodes to.
    pub fn output_len(&self) -> u64 {
        self.outputs.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    /// Length of the base.
    pub fn base_len(&self) -> u64 {
        self.bases.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    /// Whether these bytes are the payload, as far as the table knows.
    pub fn is_payload(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == u64::from(self.payload_len) && payload_hash(bytes) == self.payload_hash
    }
}

/// What a table holds of a payload's hash.
pub fn payload_hash(payload: &[u8]) -> [u8; 16] {
    *blake3::hash(payload).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

impl Delta {
    /// Length of header and table.
    pub fn head_len(&self) -> u64 {
        let outputs: usize = self.frames.iter().map(|frame| frame.outputs.len()).sum();
        let refs: usize = self.frames.iter().map(|frame| frame.bases.len()).sum();
        let bases = self.frames.iter().flat_map(|frame| &frame.bases).collect::<HashSet<_>>().len();
        let len = HEADER_LEN + self.frames.len() * FRAME_LEN + (outputs + bases) * CHUNK_LEN + refs * REF_LEN;
        len as u64
    }

    /// Where each frame's payload starts, given the length of header and table; and at last where the file ends.
    pub fn payload_offsets(&self, head_len: u64) -> Vec<u64> {
        let mut at = head_len;
        let mut offsets = vec![at];
        offsets.extend(self.frames.iter().map(|frame| {
            at += u64::from(frame.payload_len);
            at
        }));
        offsets
    }

    /// Header and table, which the payloads follow.
    ///
    /// The writer keeps to the limits of format-spec §70.6, gives each output once, and gives a base that occurs again
    /// with the same length; what does not is refused by [`Delta::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let count = |len: usize| u32::try_from(len).expect("the writer keeps to the limits").to_le_bytes();
        let (mut bases, mut index_of) = (Vec::new(), HashMap::new());
        let (mut frames, mut outputs, mut refs) = (Vec::new(), Vec::new(), Vec::new());
        for frame in &self.frames {
            frames.extend(frame.payload_len.to_le_bytes());
            frames.extend(count(frame.outputs.len()));
            frames.extend(count(frame.bases.len()));
            frames.extend([frame.encoding, 0, 0, 0]);
            frames.extend(frame.payload_hash);
            frame.outputs.iter().for_each(|chunk| push_chunk(&mut outputs, chunk));
            for base in &frame.bases {
                let next = index_of.len();
                let index = *index_of.entry(*base).or_insert_with(|| {
                    push_chunk(&mut bases, base);
                    next
                });
                refs.extend(count(index));
            }
        }
        let head_len = HEADER_LEN + frames.len() + outputs.len() + bases.len() + refs.len();
        let payloads: u64 = self.frames.iter().map(|frame| u64::from(frame.payload_len)).sum();
        let mut out = Vec::with_capacity(head_len);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        out.extend(count(self.frames.len()));
        out.extend(count(outputs.len() / CHUNK_LEN));
        out.extend(count(bases.len() / CHUNK_LEN));
        out.extend(count(refs.len() / REF_LEN));
        out.extend([0; 4]);
        out.extend(self.target.0);
        out.extend(self.base.map_or([0; 32], |base| base.0));
        debug_assert_eq!(out.len(), HASH_AT, "the fields before the hash");
        out.extend([0; 32]);
        [frames, outputs, bases, refs].iter().for_each(|part| out.extend(part));
        let hash = head_hash(&out, head_len as u64 + payloads);
        out[HASH_AT..HEADER_LEN].copy_from_slice(&hash);
        out
    }

    /// Reads header and table, given the length of the whole file.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(head: &[u8], file_len: u64) -> Result<Delta, DecodeError> {
        let f = Fields { object: OBJECT, base: 0, bytes: head };
        let counts = Counts::decode(&f, file_len)?;
        f.exactly(counts.head_len(), "table")?;
        if head_hash(head, file_len) != f.array::<32>(HASH_AT) {
            return Err(f.error(HASH_AT, "hash", Reason::Hash));
        }
        let target = SnapshotId(f.array(32));
        f.rule(32, "target", target.0 != [0; 32], "a snapshot id of zeros")?;
        let base = Some(SnapshotId(f.array(64))).filter(|base| base.0 != [0; 32]);
        f.rule(64, "base", base != Some(target), "a delta from a snapshot to itself")?;
        let mut parts = Parts::new(&f, &counts)?;
        let mut frames = Vec::with_capacity(counts.frames);
        for index in 0..counts.frames {
            frames.push(parts.frame(HEADER_LEN + index * FRAME_LEN)?);
        }
        parts.finish()?;
        let payloads: u64 = frames.iter().map(|frame: &DeltaFrame| u64::from(frame.payload_len)).sum();
        f.rule(12, "frames", head.len() as u64 + payloads == file_len, "the payloads do not fill the file")?;
        Ok(Delta { base, target, frames })
    }

    /// Reads header and table of a whole file; the payloads are only compared with their hashes.
    ///
    /// # Errors
    /// As [`Delta::decode`].
    pub fn decode_file(file: &[u8]) -> Result<Delta, DecodeError> {
        let f = Fields { object: OBJECT, base: 0, bytes: file };
        let file_len = file.len() as u64;
        let head_len = Counts::decode(&f, file_len)?.head_len();
        let head = file.get(..head_len).ok_or_else(|| f.error(file.len(), "table", Reason::Truncated))?;
        let delta = Delta::decode(head, file_len)?;
        let mut at = head_len;
        for frame in &delta.frames {
            let end = at + usize::try_from(frame.payload_len).expect("inside the file");
            if payload_hash(&file[at..end]) != frame.payload_hash {
                return Err(f.error(at, "payload", Reason::Hash));
            }
            at = end;
        }
        Ok(delta)
    }
}

fn push_chunk(out: &mut Vec<u8>, chunk: &DeltaChunk) {
    out.extend(chunk.id.0);
    out.extend(chunk.len.to_le_bytes());
}

/// Hash of header and table but for the hash itself, and of the file's length.
fn head_hash(head: &[u8], file_len: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..HASH_AT]).update(&head[HEADER_LEN..]).update(&file_len.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// The header's counts, within their limits.
struct Counts {
    frames: usize,
    outputs: usize,
    bases: usize,
    refs: usize,
}

impl Counts {
    fn decode(f: &Fields<'_>, file_len: u64) -> Result<Counts, DecodeError> {
        f.limit(0, "file", file_len, limits::DELTA_BYTES_MAX)?;
        if f.bytes.len() < HEADER_LEN {
            return Err(f.error(f.bytes.len(), "header", Reason::Truncated));
        }
        f.magic(0, MAGIC)?;
        f.version(8)?;
        f.zero(10, 2, "flags")?;
        f.zero(28, 4, "reserved")?;
        let count = |at, field, least: u64, limit: u32| {
            f.range(at, field, f.u32(at).into(), least, u64::MAX)?;
            f.limit(at, field, f.u32(at).into(), limit.into())?;
            usize::try_from(f.u32(at)).map_err(|_| f.error(at, field, Reason::Truncated))
        };
        Ok(Counts {
            frames: count(12, "frames", 1, limits::DELTA_FRAMES_MAX)?,
            outputs: count(16, "outputs", 1, limits::DELTA_CHUNKS_MAX)?,
            bases: count(20, "bases", 0, limits::DELTA_CHUNKS_MAX)?,
            refs: count(24, "references", 0, limits::DELTA_CHUNKS_MAX)?,
        })
    }

    fn head_len(&self) -> usize {
        HEADER_LEN + self.frames * FRAME_LEN + (self.outputs + self.bases) * CHUNK_LEN + self.refs * REF_LEN
    }
}

/// The table's parts, and how far they have been used up.
struct Parts<'f, 'b> {
    f: &'f Fields<'b>,
    bases: Vec<DeltaChunk>,
    outputs_at: usize,
    outputs_end: usize,
    refs_at: usize,
    refs_end: usize,
    /// Bases referred to so far.
    bases_seen: usize,
    outputs_seen: HashSet<ChunkId>,
}

impl<'f, 'b> Parts<'f, 'b> {
    fn new(f: &'f Fields<'b>, counts: &Counts) -> Result<Self, DecodeError> {
        let outputs_at = HEADER_LEN + counts.frames * FRAME_LEN;
        let outputs_end = outputs_at + counts.outputs * CHUNK_LEN;
        let refs_at = outputs_end + counts.bases * CHUNK_LEN;
        let (mut bases, mut seen) = (Vec::with_capacity(counts.bases), HashSet::with_capacity(counts.bases));
        for index in 0..counts.bases {
            let at = outputs_end + index * CHUNK_LEN;
            let base = chunk(f, at)?;
            f.rule(at, "bases", seen.insert(base.id), "a base is listed twice")?;
            bases.push(base);
        }
        Ok(Parts {
            f,
            bases,
            outputs_at,
            outputs_end,
            refs_at,
            refs_end: refs_at + counts.refs * REF_LEN,
            bases_seen: 0,
            outputs_seen: HashSet::with_capacity(counts.outputs),
        })
    }

    fn frame(&mut self, at: usize) -> Result<DeltaFrame, DecodeError> {
        let f = self.f;
        let payload_len = f.u32(at);
        f.range(at, "payload_len", payload_len.into(), 1, u64::MAX)?;
        f.limit(at, "payload_len", payload_len.into(), limits::DELTA_PAYLOAD_BYTES_MAX)?;
        f.range(at + 4, "output_count", f.u32(at + 4).into(), 1, u64::MAX)?;
        f.zero(at + 13, 3, "reserved")?;
        let outputs = self.outputs(at + 4)?;
        let bases = self.bases(at + 8)?;
        let frame = DeltaFrame { outputs, bases, encoding: f.u8(at + 12), payload_len, payload_hash: f.array(at + 16) };
        f.limit(at + 4, "output_count", frame.output_len(), limits::DELTA_OUTPUT_BYTES_MAX)?;
        f.limit(at + 8, "base_count", frame.base_len(), limits::DELTA_BASE_BYTES_MAX)?;
        let has_base = !frame.bases.is_empty();
        match frame.encoding {
            ENCODING_ZSTD => f.rule(at + 8, "base_count", !has_base, "a base that the encoding does not use")?,
            ENCODING_ZSTD_BASE | ENCODING_DIFF => {
                f.rule(at + 8, "base_count", has_base, "the encoding needs a base")?;
            }
            _ => {}
        }
        Ok(frame)
    }

    fn outputs(&mut self, count_at: usize) -> Result<Vec<DeltaChunk>, DecodeError> {
        let f = self.f;
        let end = usize::try_from(f.u32(count_at)).ok().and_then(|count| count.checked_mul(CHUNK_LEN));
        let end = end.and_then(|len| self.outputs_at.checked_add(len)).filter(|end| *end <= self.outputs_end);
        let end = end.ok_or_else(|| f.error(count_at, "output_count", Reason::Rule("more outputs than there are")))?;
        let mut outputs = Vec::with_capacity((end - self.outputs_at) / CHUNK_LEN);
        for at in (self.outputs_at..end).step_by(CHUNK_LEN) {
            let output = chunk(f, at)?;
            f.rule(at, "outputs", self.outputs_seen.insert(output.id), "an output is listed twice")?;
            outputs.push(output);
        }
        self.outputs_at = end;
        Ok(outputs)
    }

    fn bases(&mut self, count_at: usize) -> Result<Vec<DeltaChunk>, DecodeError> {
        let f = self.f;
        let end = usize::try_from(f.u32(count_at)).ok().and_then(|count| count.checked_mul(REF_LEN));
        let end = end.and_then(|len| self.refs_at.checked_add(len)).filter(|end| *end <= self.refs_end);
        let end = end.ok_or_else(|| f.error(count_at, "base_count", Reason::Rule("more bases than there are")))?;
        let mut bases = Vec::with_capacity((end - self.refs_at) / REF_LEN);
        for at in (self.refs_at..end).step_by(REF_LEN) {
            let index = usize::try_from(f.u32(at)).unwrap_or(usize::MAX);
            f.rule(at, "references", index <= self.bases_seen, "bases are not in the order of their first use")?;
            let base = self.bases.get(index);
            bases.push(*base.ok_or_else(|| f.error(at, "references", Reason::Rule("no base has this number")))?);
            self.bases_seen = self.bases_seen.max(index + 1);
        }
        self.refs_at = end;
        Ok(bases)
    }

    fn finish(&self) -> Result<(), DecodeError> {
        let f = self.f;
        f.rule(16, "outputs", self.outputs_at == self.outputs_end, "an output belongs to no frame")?;
        f.rule(24, "references", self.refs_at == self.refs_end, "a reference belongs to no frame")?;
        f.rule(20, "bases", self.bases_seen == self.bases.len(), "a base is listed but not used")
    }
}

fn chunk(f: &Fields<'_>, at: usize) -> Result<DeltaChunk, DecodeError> {
    let chunk = DeltaChunk { id: ChunkId(f.array(at)), len: f.u32(at + 32) };
    f.rule(at, "id", chunk.id != ChunkId::HOLE, "a chunk id of zeros")?;
    f.range(at + 32, "len", chunk.len.into(), 1, u64::MAX)?;
    f.limit(at + 32, "len", chunk.len.into(), limits::CHUNK_BYTES_MAX.into())?;
    Ok(chunk)
}

/// A delta in the list of those that lead to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeltaIndexEntry {
    /// Where it starts; `None` for one that needs nothing.
    pub base: Option<SnapshotId>,
    /// The file.
    pub delta: DeltaId,
    /// Length of header and table.
    pub head_len: u64,
    /// Length of the file.
    pub file_len: u64,
}

const INDEX: &str = "delta index";
const INDEX_MAGIC: &[u8; 8] = b"EKDIDX\r\n";
const INDEX_HEADER_LEN: usize = 48;
const INDEX_ENTRY_LEN: usize = 80;
const INDEX_TRAILER_LEN: usize = 32;

/// `deltas/<target>/index` for entries of any order; of equal ones one is kept.
pub fn encode_index(target: &SnapshotId, entries: &[DeltaIndexEntry]) -> Vec<u8> {
    let mut sorted = entries.to_vec();
    let key = |entry: &DeltaIndexEntry| (entry.base, entry.delta);
    sorted.sort_unstable();
    sorted.dedup_by_key(|entry| key(entry));
    let mut out = Vec::with_capacity(INDEX_HEADER_LEN + sorted.len() * INDEX_ENTRY_LEN + INDEX_TRAILER_LEN);
    out.extend(INDEX_MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 2]);
    out.extend(u32::try_from(sorted.len()).expect("the writer keeps to DELTA_INDEX_ENTRIES_MAX").to_le_bytes());
    out.extend(target.0);
    for entry in &sorted {
        out.extend(entry.base.map_or([0; 32], |base| base.0));
        out.extend(entry.delta.0);
        out.extend(entry.head_len.to_le_bytes());
        out.extend(entry.file_len.to_le_bytes());
    }
    let hash = blake3::hash(&out);
    out.extend(hash.as_bytes());
    out
}

/// Reads `deltas/<target>/index`: the target that it says it is of, and the entries by base.
///
/// # Errors
/// [`DecodeError`] at the first rule that is broken.
pub fn decode_index(bytes: &[u8]) -> Result<(SnapshotId, Vec<DeltaIndexEntry>), DecodeError> {
    let f = Fields { object: INDEX, base: 0, bytes };
    f.limit(0, "file", bytes.len() as u64, limits::DELTA_INDEX_BYTES_MAX)?;
    if bytes.len() < INDEX_HEADER_LEN + INDEX_TRAILER_LEN {
        return Err(f.error(bytes.len(), "file", Reason::Truncated));
    }
    f.magic(0, INDEX_MAGIC)?;
    f.version(8)?;
    f.zero(10, 2, "reserved")?;
    f.limit(12, "count", f.u32(12).into(), limits::DELTA_INDEX_ENTRIES_MAX.into())?;
    let end = INDEX_HEADER_LEN + f.u32(12) as usize * INDEX_ENTRY_LEN;
    f.exactly(end + INDEX_TRAILER_LEN, "entries")?;
    if *blake3::hash(&bytes[..end]).as_bytes() != f.array::<32>(end) {
        return Err(f.error(end, "hash", Reason::Hash));
    }
    let target = SnapshotId(f.array(16));
    f.rule(16, "target", target.0 != [0; 32], "a snapshot id of zeros")?;
    let mut entries: Vec<DeltaIndexEntry> = Vec::with_capacity(f.u32(12) as usize);
    for at in (INDEX_HEADER_LEN..end).step_by(INDEX_ENTRY_LEN) {
        let entry = DeltaIndexEntry {
            base: Some(SnapshotId(f.array(at))).filter(|base| base.0 != [0; 32]),
            delta: DeltaId(f.array(at + 32)),
            head_len: f.u64(at + 64),
            file_len: f.u64(at + 72),
        };
        f.limit(at + 72, "file_len", entry.file_len, limits::DELTA_BYTES_MAX)?;
        f.range(at + 64, "head_len", entry.head_len, HEADER_LEN as u64, limits::DELTA_HEAD_BYTES_MAX)?;
        f.rule(at + 72, "file_len", entry.file_len > entry.head_len, "a delta without payloads")?;
        f.rule(at, "base", entry.base != Some(target), "a delta from a snapshot to itself")?;
        if entries.last().is_some_and(|last| (last.base, last.delta) >= (entry.base, entry.delta)) {
            return Err(f.error(at, "base", Reason::Canonical("entries out of order")));
        }
        entries.push(entry);
    }
    Ok((target, entries))
}
