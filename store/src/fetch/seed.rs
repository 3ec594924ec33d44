// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is already on this machine, and need not be fetched.
//!
//! Invariant: a seed gives bytes that hash to the chunk, or none. One that is not what it should be costs a look, and a
//! line in the report; the chunk comes from the next source.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::id::ChunkId;

/// Where content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// What the last checkout delivered here.
    Live,
    /// What gave way in earlier checkouts.
    Undo,
    /// Other areas of this machine.
    Areas,
    /// A directory that somebody named.
    Seed,
}

impl Source {
    /// All of them, nearest first.
    pub const ALL: [Source; 4] = [Source::Live, Source::Undo, Source::Areas, Source::Seed];

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Source::Live => "live tree",
            Source::Undo => "undo",
            Source::Areas => "other areas",
            Source::Seed => "seeds",
        }
    }

    fn index(self) -> usize {
        match self {
            Source::Live => 0,
            Source::Undo => 1,
            Source::Areas => 2,
            Source::Seed => 3,
        }
    }
}

/// Content at hand that is known by chunks.
pub trait Seed: std::fmt::Debug + Send + Sync {
    /// What kind of place it is.
    fn source(&self) -> Source;

    /// Whether it seems to have a chunk. Reads no content.
    fn has(&self, id: &ChunkId) -> bool;

    /// How long a chunk seems to be, where it seems to have it.
    fn len_of(&self, id: &ChunkId) -> Option<u32>;

    /// A chunk of `len` bytes, verified by its hash; `None` when it is not there, or is something else by now.
    fn read(&self, id: &ChunkId, len: u32) -> Option<Vec<u8>>;

    /// What was wrong with it, a line each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// All seeds of a run, nearest first.
#[derive(Debug, Default)]
pub struct Seeds {
    seeds: RwLock<Vec<Arc<dyn Seed>>>,
    given: [AtomicU64; Source::ALL.len()],
    notes: Mutex<Vec<String>>,
}

impl Seeds {
    /// Adds a seed behind all others of its kind and nearer kinds.
    pub fn add(&self, seed: Arc<dyn Seed>) {
        let mut seeds = self.seeds.write().unwrap_or_else(PoisonError::into_inner);
        let at = seeds.partition_point(|known| known.source() <= seed.source());
        seeds.insert(at, seed);
    }

    /// Takes all of them away. What was wrong with them stays noted.
    pub(crate) fn clear(&self) {
        let old = std::mem::take(&mut *self.seeds.write().unwrap_or_else(PoisonError::into_inner));
        old.iter().flat_map(|seed| seed.notes()).for_each(|note| self.note(note));
    }

    /// Notes that something could not be used as a seed.
    pub fn note(&self, note: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.seeds.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The nearest that seems to have a chunk.
    pub fn find(&self, id: &ChunkId) -> Option<Source> {
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner);
        seeds.iter().find(|seed| seed.has(id)).map(|seed| seed.source())
    }

    /// Whether one seems to have a chunk.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.find(id).is_some()
    }

    /// A chunk of `len` bytes, verified, from the nearest that has it.
    pub fn read(&self, id: &ChunkId, len: u32) -> Option<(Source, Vec<u8>)> {
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner);
        seeds.iter().find_map(|seed| Some((seed.source(), seed.read(id, len)?)))
    }

    /// As [`Seeds::read`], for content that is needed: it is counted. Without `len` each is asked for what it has.
    pub(crate) fn take(&self, id: &ChunkId, len: Option<u32>) -> Option<Vec<u8>> {
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner);
        let read = |seed: &Arc<dyn Seed>| seed.read(id, len.or_else(|| seed.len_of(id))?);
        let (source, plain) = seeds.iter().find_map(|seed| Some((seed.source(), read(seed)?)))?;
        self.given[source.index()].fetch_add(plain.len() as u64, Ordering::Relaxed);
        Some(plain)
    }

    /// Bytes that a kind of seed has given.
    pub fn given(&self, source: Source) -> u64 {
        self.given[source.index()].load(Ordering::Relaxed)
    }

    /// What was wrong with seeds, a line each.
    pub fn notes(&self) -> Vec<String> {
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        notes.extend(seeds.iter().flat_map(|seed| seed.notes()));
        notes
    }
}
