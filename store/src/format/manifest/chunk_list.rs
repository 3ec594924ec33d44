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

/// Unpacks runs that cover at most `size` bytes; gives their sum. A hole may end anywhere only at `size`.
fn decode_runs(f: &Fields<'_>, size: u64) -> Result<(Vec<ChunkRun>, u64), DecodeError> {
    if !f.bytes.len().is_multiple_of(RUN_LEN) {
        return Err(f.error(f.bytes.len(), "runs", Reason::Truncated));
    }
    let mut runs = Vec::with_capacity(f.bytes.len() / RUN_LEN);
    let mut sum = 0u64;
    let mut after_hole = false;
    for at in (0..f.bytes.len()).step_by(RUN_LEN) {
        let (id, len) = (ChunkId(f.array(at)), f.u64(at + 32));
        f.range(at + 32, "len", len, 1, u64::MAX)?;
        let end = sum.checked_add(len).filter(|&end| end <= size);
        let Some(end) = end else {
            return Err(f.error(at + 32, "len", Reason::Rule("the runs do not add up to the size")));
        };
        let is_hole = id == ChunkId::HOLE;
        if is_hole {
            f.rule(at, "hole", !after_hole, "two holes follow each other")?;
            f.rule(at, "hole", sum.is_multiple_of(limits::HOLE_ALIGN), "a hole does not begin at a multiple of 4096")?;
            let aligned = end == size || end.is_multiple_of(limits::HOLE_ALIGN);
            f.rule(at, "hole", aligned, "a hole does not end at a multiple of 4096")?;
            runs.push(ChunkRun::Hole { len });
        } else {
            f.limit(at + 32, "len", len, limits::CHUNK_BYTES_MAX.into())?;
            let len = u32::try_from(len).expect("within CHUNK_BYTES_MAX");
            runs.push(ChunkRun::Data { id, len });
        }
        after_hole = is_hole;
        sum = end;
    }
    Ok((runs, sum))
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
