// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deltas: chunks of one snapshot made out of chunks of another (format-spec §70, docs/design/deltas.md).
//!
//! Invariant: nothing that a delta says is believed. A chunk that it gave is one only once its hash has been compared.

mod bases;
pub mod codec;
mod file;
mod gzip;
mod index;
mod inventory;
mod make;
mod plan;
mod whole;
mod zipped;

pub use codec::Effort;
pub use file::DeltaWriter;
pub(crate) use index::require_room;
pub use index::{add_to_index, read_index};
pub use make::{MakeOptions, MakeReport, make};
pub(crate) use whole::{read_head, read_whole, require_len};
