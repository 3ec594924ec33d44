// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Getting many chunks from a place where every request takes time.
//!
//! ```text
//!  ids → (made of deltas and seeds) → near
//!      → located → plan (ranges) → requests, several at a time → verified → near → read
//! ```
//!
//! `plan` knows no network, `near` no packs; `run` drives both. `seed` is what need not be fetched: `tree_seed` a tree whose
//! chunks are known, `scan` finds out those of any directory.

mod deltas;
mod forecast;
mod near;
mod plan;
mod run;
mod scan;
mod seed;
mod tree_seed;

pub(crate) use deltas::Kitchen;
pub use deltas::{DeltaPlan, Deltas};
pub use forecast::{FetchBytes, FetchReport};
pub use near::Near;
pub(crate) use plan::requests_at_once;
pub use plan::{Ahead, FetchLimits, FetchPlan, PackRange};
pub(crate) use run::run;
pub(crate) use scan::{Scan, Worth};
pub use seed::{Seed, Seeds, Source};
pub(crate) use tree_seed::TreeIndex;
