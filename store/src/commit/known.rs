// SPDX-License-Identifier: Apache-2.0 OR MIT
//! "Does the store have this chunk, or will it when this commit is done?"

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::segments::LiveSegment;
use crate::id::{ChunkId, PackId};

/// Chunk ids are hashes already: their first bytes serve. The ids come from our own hashing, so nobody can aim them.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length_prefix: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

type IdSet = HashSet<ChunkId, BuildHasherDefault<IdHasher>>;

const SHARDS: usize = 64;

/// The live segments and what this commit has met so far. Shared by all threads.
pub(crate) struct KnownChunks {
    segments: Vec<LiveSegment>,
    /// Packs that something new may refer to: all of the index but condemned ones.
    live_packs: HashSet<PackId>,
    seen: Vec<Mutex<IdSet>>,
    new_chunks: AtomicU64,
    new_bytes: AtomicU64,
}

impl KnownChunks {
    pub(crate) fn new(segments: Vec<LiveSegment>, live_packs: HashSet<PackId>) -> KnownChunks {
        KnownChunks {
            segments,
            live_packs,
            seen: (0..SHARDS).map(|_| Mutex::default()).collect(),
            new_chunks: AtomicU64::new(0),
            new_bytes: AtomicU64::new(0),
        }
    }

    /// Whether the caller has to store this chunk: true once for each chunk that the store lacks.
    pub(crate) fn claim(&self, id: &ChunkId, len: usize) -> bool {
        let shard = usize::from(id.as_bytes()[31]) % SHARDS;
        if !self.seen[shard].lock().unwrap_or_else(PoisonError::into_inner).insert(*id) {
            return false;
        }
        if self.is_stored(id) {
            return false;
        }
        self.new_chunks.fetch_add(1, Ordering::Relaxed);
        self.new_bytes.fetch_add(len as u64, Ordering::Relaxed);
        true
    }

    /// Whether a pack that new content may rely on has this chunk.
    pub(crate) fn is_stored(&self, id: &ChunkId) -> bool {
        let places = self.segments.iter().filter_map(|segment| segment.table.get(id));
        places.into_iter().any(|at| self.live_packs.contains(&at.pack))
    }

    /// Chunks claimed, and their plain bytes.
    pub(crate) fn claimed(&self) -> (u64, u64) {
        (self.new_chunks.load(Ordering::Relaxed), self.new_bytes.load(Ordering::Relaxed))
    }

    /// Every chunk that this commit has met, new or not.
    pub(crate) fn seen(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.seen.iter().flat_map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.iter().copied().collect::<Vec<_>>()
        })
    }

    pub(crate) fn live_packs(&self) -> &HashSet<PackId> {
        &self.live_packs
    }

    pub(crate) fn segments(&self) -> &[LiveSegment] {
        &self.segments
    }
}
