// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Versioned, deduplicated snapshots of directory trees, and exact checkouts of them.
//!
//! ```text
//!  write side   walk → chunk → hash → compress → pack → segment → manifest → locator → snapshot
//!  read side    snapshot → manifest → plan → read → verify → stage → switch → record
//!  upkeep       check
//! ```
//!
//! Invariant: this crate never prints, never exits and never reads the environment.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests prepare and inspect plain files of their own"))]
#![allow(rustdoc::private_intra_doc_links, reason = "our documentation is built with private items")]

pub mod area;
pub mod backend;
pub mod catalog;
pub mod check;
pub mod checkout;
pub mod chunk;
pub mod commit;
pub mod compress;
pub mod copy;
pub mod delta;
pub mod error;
pub mod fetch;
pub mod files_cache;
pub mod format;
pub mod fsio;
pub mod id;
pub mod in_use;
pub mod inode;
pub mod json;
pub mod limits;
mod locator;
pub mod manifest;
pub mod pack;
pub mod path;
pub mod progress;
pub mod read;
mod segment;
pub mod store;
pub mod walk;

pub use error::{Error, ErrorKind, Result};
pub use progress::Progress;
pub use store::Store;
