// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames → a delta file. Its table comes before the payloads, so these wait in a temporary until all are there.

use std::collections::HashSet;

use crate::backend::ObjectName;
use crate::error::{Error, Result};
use crate::format::delta::{Delta, DeltaChunk, DeltaFrame, DeltaIndexEntry, ENCODING_ZSTD, payload_hash};
use crate::fsio::TempFile;
use crate::id::{ChunkId, DeltaId, SnapshotId};
use crate::limits;
use crate::store::Store;

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// A delta being written. Nothing of it is visible before [`DeltaWriter::finish`].
#[derive(Debug)]
pub struct DeltaWriter<'s> {
    store: &'s Store,
    delta: Delta,
    outputs: HashSet<ChunkId>,
    bases: HashSet<ChunkId>,
    references: usize,
    payloads: TempFile,
}

impl<'s> DeltaWriter<'s> {
    /// Starts a delta from `base`, or from nothing, to `target`. Only the holder of the writer's lock may.
    ///
    /// # Errors
    /// [`Error::Refused`] for a store that is only read; [`Error::Io`].
    pub fn create(store: &'s Store, base: Option<SnapshotId>, target: SnapshotId) -> Result<DeltaWriter<'s>> {
        let payloads = store.writing()?.create_temp()?;
        let delta = Delta { base, target, frames: Vec::new() };
        Ok(DeltaWriter { store, delta, outputs: HashSet::new(), bases: HashSet::new(), references: 0, payloads })
    }

    /// Whether a frame of so many outputs and bases still fits. The counts of format-spec §70.2 are meant.
    pub fn has_room(&self, outputs: usize, bases: usize) -> bool {
        let most = usize::try_from(limits::DELTA_CHUNKS_MAX).unwrap_or(usize::MAX);
        let frames = usize::try_from(limits::DELTA_FRAMES_MAX).unwrap_or(usize::MAX);
        let fits = |found: usize, more: usize| found.checked_add(more).is_some_and(|sum| sum <= most);
        self.delta.frames.len() < frames && fits(self.outputs.len(), outputs) && fits(self.references, bases)
    }

    /// Appends a frame. Bases that the encoding does not use are left out.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for more than format-spec §70.6 allows, and for an output that another frame has;
    /// [`Error::Io`].
    pub fn push(
        &mut self,
        outputs: Vec<DeltaChunk>,
        bases: Vec<DeltaChunk>,
        encoding: u8,
        payload: &[u8],
    ) -> Result<()> {
        let bases = if encoding == ENCODING_ZSTD { Vec::new() } else { bases };
        let payload_len = within("payload of a delta", payload.len() as u64, limits::DELTA_PAYLOAD_BYTES_MAX)?;
        let payload_len = u32::try_from(payload_len).expect("within a limit of 33 MiB");
        if !self.has_room(outputs.len(), bases.len()) {
            let found = self.outputs.len().max(self.references) as u64;
            return Err(exceeded("chunks of a delta", found, limits::DELTA_CHUNKS_MAX.into()));
        }
        let frame = DeltaFrame { outputs, bases, encoding, payload_len, payload_hash: payload_hash(payload) };
        within("outputs of a frame", frame.output_len(), limits::DELTA_OUTPUT_BYTES_MAX)?;
        within("bases of a frame", frame.base_len(), limits::DELTA_BASE_BYTES_MAX)?;
        for output in &frame.outputs {
            if !self.outputs.insert(output.id) {
                return Err(exceeded("frames with one output", 2, 1));
            }
        }
        self.bases.extend(frame.bases.iter().map(|base| base.id));
        self.references += frame.bases.len();
        self.payloads.write(payload)?;
        self.delta.frames.push(frame);
        Ok(())
    }

    /// Bytes of all payloads so far.
    pub fn payload_len(&self) -> u64 {
        self.payloads.len()
    }

    /// Publishes the delta; durable when this returns. `None` when it has no frames. [`super::add_to_index`] tells of it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Decode`] when what was given makes no valid delta.
    pub fn finish(self) -> Result<Option<DeltaIndexEntry>> {
        if self.delta.frames.is_empty() {
            return Ok(None);
        }
        let writing = self.store.writing()?;
        let head = self.delta.encode();
        let head_len = head.len() as u64;
        let file_len = head_len + self.payloads.len();
        Delta::decode(&head, file_len).map_err(|source| Error::Decode { object: "new delta".into(), source })?;
        let mut file = writing.create_temp()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&head);
        file.write(&head)?;
        let payloads = self.payloads.reopen()?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < self.payloads.len() {
            let left = usize::try_from(self.payloads.len() - at).unwrap_or(COPY_BYTES);
            let part = &mut buffer[..left.min(COPY_BYTES)];
            payloads.read_exact_at(part, at)?;
            hasher.update(part);
            file.write(part)?;
            at += part.len() as u64;
        }
        let delta = DeltaId(*hasher.finalize().as_bytes());
        writing.publish_temp(file, &ObjectName::Delta(delta))?;
        writing.sync_names()?;
        Ok(Some(DeltaIndexEntry { base: self.delta.base, delta, head_len, file_len }))
    }
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<u64> {
    if found > limit { Err(exceeded(what, found, limit)) } else { Ok(found) }
}

fn exceeded(what: &'static str, found: u64, limit: u64) -> Error {
    Error::LimitExceeded { what, found, limit }
}
