// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Getting many chunks from a place where every request takes time.
//!
//! ```text
//!  ids → located → plan (ranges) → requests, several at a time → verified → near → read
//! ```
//!
//! `plan` knows no network, `near` no packs; `run` drives both.

mod near;
mod plan;
mod run;

pub use near::Near;
pub use plan::{FetchLimits, FetchPlan, PackRange};
pub(crate) use run::run;
