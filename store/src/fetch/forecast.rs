// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a fetch will cost, before it begins, and what it did cost.

use serde::{Deserialize, Serialize};

use super::plan::Ahead;
use super::seed::Source;
use crate::progress::Foreseen;

/// Bytes of content by where they come from. What this machine has counts as plain bytes, what was stored as stored ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchBytes {
    /// Requests for content.
    pub requests: u64,
    /// From the areas themselves, as they were delivered.
    pub live: u64,
    /// From what gave way in earlier checkouts.
    pub undo: u64,
    /// From other areas of this machine.
    pub areas: u64,
    /// From directories that were named.
    pub seeds: u64,
    /// Fetched earlier, and kept.
    pub prefetched: u64,
    /// Payloads of deltas, with what lies between them.
    pub deltas: u64,
    /// Records of packs, with what lies between the records.
    pub packs: u64,
}

impl FetchBytes {
    /// Counts bytes of a seed.
    pub(crate) fn count(&mut self, source: Source, bytes: u64) {
        let slot = match source {
            Source::Live => &mut self.live,
            Source::Undo => &mut self.undo,
            Source::Areas => &mut self.areas,
            Source::Seed => &mut self.seeds,
        };
        *slot += bytes;
    }

    /// Counts what a plan asks for.
    pub(crate) fn count_plan(&mut self, plan: &Ahead) {
        self.requests += plan.packs.requests() as u64 + plan.deltas.requests;
        self.packs += plan.packs.bytes;
        self.deltas += plan.deltas.bytes;
    }

    /// Bytes that come over the line.
    pub fn over_the_line(&self) -> u64 {
        self.deltas + self.packs
    }
}

/// A fetch as it was foreseen and as it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReport {
    /// What was foreseen before anything was fetched.
    pub planned: FetchBytes,
    /// What came of it; `None` when it was only planned.
    pub done: Option<FetchBytes>,
    /// Bytes that are written for files, in whole blocks.
    pub bytes_to_write: u64,
    /// Bytes that must be free: for what is written, and for what is kept until then.
    pub disk_needed: u64,
}

impl FetchReport {
    /// What was foreseen, in short.
    pub fn foreseen(&self) -> Foreseen {
        Foreseen {
            requests: self.planned.requests,
            bytes: self.planned.over_the_line(),
            bytes_to_write: self.bytes_to_write,
            disk_needed: self.disk_needed,
        }
    }
}
