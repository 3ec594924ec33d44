// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pack files: written as a stream, read by footer (format-spec §20).

mod reader;
mod writer;

pub use reader::{Footer, read_footer, read_kind};
pub use writer::{FinishedPack, PackWriter};
