// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The record of one checkout or rollback of one area: JSON Lines (schema `evenkeel/record/1`,
//! `docs/reference/schemas/record.json`).
//!
//! ```text
//! record.<number>   header · change … · kept … · skipped … · not-held … · changed-since … · set-aside …    durable before the first rename
//! end.<number>      changed-meanwhile … · kept-aside … · set-aside … · in-use … · end · seal               durable before it counts as finished
//! ```
//!
//! Both lie beside the journal, and stay when that is dropped. The first says what will be done and why; an interrupted
//! checkout has it, too. The second says what came of it, is written in one step by whoever finishes, and ends with the
//! hash of all lines before it.
//!
//! Invariant: lines are written and read one by one; no part of a record is held in memory as a whole.

mod lines;
mod read;
mod write;

pub use lines::{
    AskedBy, ChangeLine, ChangedLine, CountFields, EndLine, HeaderLine, InUseLine, KeptLine, Line, NotHeldLine,
    PathLine, Recovered, SealLine, SetAsideLine, SkippedLine, Source,
};
pub use read::{ChangeRecord, RecordLines, change_record};
pub(super) use read::{kept_of, last_change};
pub(super) use write::{Ended, NewRecord, What, publish_end, publish_taken_back};

/// How many records of finished checkouts are kept. One whose checkout can be taken back always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// At most so many.
    pub records: usize,
    /// No more than this in all, in bytes.
    pub bytes: u64,
}

impl Default for RecordLimits {
    fn default() -> Self {
        RecordLimits { records: 1000, bytes: 1 << 30 }
    }
}

/// Name of the first part of record `number`.
pub(super) fn record_name(number: u64) -> String {
    format!("record.{number}")
}

/// Name of its second part.
pub(super) fn end_name(number: u64) -> String {
    format!("end.{number}")
}
