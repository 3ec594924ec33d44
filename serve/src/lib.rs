// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A read-only web server for the directory of a store: the objects of the format specification, and nothing else.
//!
//! A thread a connection, with deadlines on everything. It opens nothing for writing, follows no symbolic link, prints
//! nothing; the access log goes to a writer that it is given.

mod access;
mod connection;
mod files;
pub mod log;
pub mod name;
mod pace;
pub mod plan;
mod record;
pub mod request;
mod server;

use std::io;
use std::path::PathBuf;

pub use access::{Secrets, TlsBytes};
pub use record::LogFormat;
pub use server::{Handle, Limits, Options, Server};

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It has no `format`.
    #[error("{} is no store", path.display())]
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be opened.
    #[error("cannot open {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system does not let it listen.
    #[error("cannot wait for connections")]
    Listen {
        /// Why.
        source: io::Error,
    },
    /// A certificate, a key or a file of tokens makes no sense. Never holds any of it.
    #[error("cannot use the {what}: {reason}")]
    Secret {
        /// What it should have been.
        what: &'static str,
        /// Why it is none.
        reason: String,
    },
}
