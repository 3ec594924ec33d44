// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packed chunk lists (format-spec §40.6).

use super::{ChunkList, ChunkRun};
use crate::format::fields::Fields;
use crate::format::{DecodeError, Reason};
use crate::id::ChunkId;
use crate::limits;

/// Length of one packed run.
const RUN_LEN: usize = 40;

impl ChunkRun {
    /// Bytes of the file that it covers.
    pub fn len(&self) -> u64 {
        match self {
            ChunkRun::Data { len, .. } => u64::from(*len),
            ChunkRun::Hole { len } => *len,
        }
    }

    /// Never: a run covers at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Packs a list of runs: 40 bytes each (format-spec §40.6).
pub fn encode_chunk_list(runs: &[ChunkRun]) -> Vec<u8> {
    let mut out = Vec::with_capacity(runs.len() * RUN_LEN);
    encode_into(runs, &mut out);
    out
}

pub(super) fn encode_into(runs: &[ChunkRun], out: &mut Vec<u8>) {
    for run in runs {
        let id = match run {
            ChunkRun::Data { id, .. } => id,
            ChunkRun::Hole { .. } => &ChunkId::HOLE,
        };
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&run.len().to_le_bytes());
    }
}

/// Unpacks a list and checks that its lengths add up to `size` and that holes keep their rules.
///
/// # Errors
/// [`DecodeError`] at the first rule that is broken.
pub fn decode_chunk_list(bytes: &[u8], size: u64) -> Result<Vec<ChunkRun>, DecodeError> {
    let f = Fields { object: "chunk list", base: 0, bytes };
    let (runs, sum) = decode_runs(&f, size)?;
    f.rule(bytes.len(), "len", sum == size, "the runs do not add up to the size")?;
    Ok(runs)
}

/// Unpacks runs that cover at most `size` bytes; gives their sum.
fn decode_runs(f: &Fields<'_>, size: u64) -> Result<(Vec<ChunkRun>, u64), DecodeError> {
    let (records, rest) = f.bytes.as_chunks::<RUN_LEN>();
    if !rest.is_empty() {
        return Err(f.error(f.bytes.len(), "runs", Reason::Truncated));
    }
    let mut decoder = RunDecoder::new(f.object, size);
    let offsets = (f.base..).step_by(RUN_LEN);
    let runs =
        records.iter().zip(offsets).map(|(record, offset)| decoder.decode(record, offset)).collect::<Result<_, _>>()?;
    Ok((runs, decoder.sum()))
}

/// Unpacks a list one run after the other, with every rule that spans runs, in no more memory than one run.
#[derive(Debug, Clone)]
pub struct RunDecoder {
    object: &'static str,
    size: u64,
    sum: u64,
    after_hole: bool,
}

impl RunDecoder {
    /// Bytes of one packed run.
    pub const RUN_LEN: usize = RUN_LEN;

    /// Of a list that covers at most `size` bytes. A hole may end anywhere only at `size`.
    pub fn new(object: &'static str, size: u64) -> RunDecoder {
        RunDecoder { object, size, sum: 0, after_hole: false }
    }

    /// Bytes that the runs so far cover.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Unpacks the next run, which lies at `offset` of the list.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(&mut self, record: &[u8; RUN_LEN], offset: u64) -> Result<ChunkRun, DecodeError> {
        let f = Fields { object: self.object, base: offset, bytes: record };
        let (id, len) = (ChunkId(f.array(0)), f.u64(32));
        f.range(32, "len", len, 1, u64::MAX)?;
        let end = self.sum.checked_add(len).filter(|&end| end <= self.size);
        let Some(end) = end else {
            return Err(f.error(32, "len", Reason::Rule("the runs do not add up to the size")));
        };
        let is_hole = id == ChunkId::HOLE;
        let run = if is_hole {
            let begins = self.sum.is_multiple_of(limits::HOLE_ALIGN);
            let ends = end == self.size || end.is_multiple_of(limits::HOLE_ALIGN);
            f.rule(0, "hole", !self.after_hole, "two holes follow each other")?;
            f.rule(0, "hole", begins, "a hole does not begin at a multiple of 4096")?;
            f.rule(0, "hole", ends, "a hole does not end at a multiple of 4096")?;
            ChunkRun::Hole { len }
        } else {
            f.limit(32, "len", len, limits::CHUNK_BYTES_MAX.into())?;
            ChunkRun::Data { id, len: u32::try_from(len).expect("within CHUNK_BYTES_MAX") }
        };
        self.after_hole = is_hole;
        self.sum = end;
        Ok(run)
    }
}

/// Reads keys 9 and 10 of an entry whose file has `size` bytes.
pub(super) fn decode_entry_list(f: &Fields<'_>, size: u64, depth: Option<u8>) -> Result<ChunkList, DecodeError> {
    let most = limits::CHUNK_LIST_INLINE_MAX;
    f.limit(0, "chunks", (f.bytes.len() / RUN_LEN) as u64, most as u64)?;
    let total = if depth.is_some() { u64::MAX } else { size };
    let (runs, sum) = decode_runs(f, total)?;
    f.rule(0, "chunks", !runs.is_empty(), "an empty chunk list")?;
    let Some(depth) = depth else {
        f.rule(f.bytes.len(), "len", sum == size, "the runs do not add up to the size")?;
        let whole = matches!(runs[..], [ChunkRun::Data { .. }]);
        return if whole {
            Err(f.error(0, "chunks", Reason::Canonical("a list for a file of one chunk")))
        } else {
            Ok(ChunkList::Inline(runs))
        };
    };
    let only_data = runs.iter().all(|run| matches!(run, ChunkRun::Data { .. }));
    f.rule(0, "chunks", only_data, "a hole in an indirect list")?;
    f.rule(0, "chunks", sum.is_multiple_of(RUN_LEN as u64), "an indirect list of broken records")?;
    let needed = sum / RUN_LEN as u64 > most as u64;
    f.rule(0, "list-depth", needed, "an indirect list that would fit the entry")?;
    Ok(ChunkList::Indirect { depth, runs })
}
