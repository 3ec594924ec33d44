// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a caller says about an object store.

use std::fmt;
use std::path::PathBuf;

use crate::backend::http::HttpOptions;

/// How a bucket is reached.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Addresses of the service, `http://HOST[:PORT]` or `https://…`. The first that answers is used.
    pub endpoints: Vec<String>,
    /// The region that the service calls itself.
    pub region: String,
    /// The key to sign with; without one, what everybody may do.
    pub key: Option<S3Key>,
    /// Whether the bucket's name stands before the host's, and not in the path.
    pub is_virtual_host: bool,
    /// Where packs are put together before they are sent: a directory of this machine.
    pub spool: PathBuf,
    /// How it is talked to.
    pub http: HttpOptions,
}

/// An access key.
#[derive(Clone)]
pub struct S3Key {
    /// Its public part.
    pub id: String,
    /// What nobody else may know.
    pub secret: String,
}

impl fmt::Debug for S3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Key").field("id", &self.id).finish_non_exhaustive()
    }
}
