// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manifests as trees of chunks: built while entries stream by, read in order, compared by skipping what is equal
//! (format-spec §40).

mod build;
mod content;
mod diff;
mod read;

pub use build::{BuiltManifest, ManifestBuilder, NodeSink};
pub use content::{ContentPart, ContentParts, RUNS_HELD_MAX, content_parts, content_runs};
pub use diff::{Change, Diff, diff};
pub(crate) use read::read_node;
pub use read::{Entries, Manifest};
