// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a server did not give what it was asked for.

use std::time::Duration;

use crate::path::escape;

/// Longest text of a server that is shown, in bytes.
const SHOWN_BYTES: usize = 200;

/// What went wrong with one request. Nothing of it says anything about stored data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// No connection came about, or it broke before an answer.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// The server's certificate, or the way it speaks TLS, is not accepted.
    #[error("no trusted connection: {}", shown(.0))]
    Tls(String),
    /// Something took longer than it may.
    #[error("no {what} within {} s", limit.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The body comes, but slower than it may.
    #[error("only {bytes} bytes came in {} s", span.as_secs_f32())]
    TooSlow {
        /// How many came.
        bytes: u64,
        /// In which time.
        span: Duration,
    },
    /// The body ended before its end.
    #[error("the body broke off after {received} of {expected} bytes")]
    Truncated {
        /// Bytes that came.
        received: u64,
        /// Bytes that were due.
        expected: u64,
    },
    /// The body is longer than what was asked for can be.
    #[error("it sends more than the {limit} bytes that there can be")]
    TooLong {
        /// How many there can be.
        limit: u64,
    },
    /// A status that is no answer to the question.
    #[error("it answered with status {status}")]
    Status {
        /// Which.
        status: u16,
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// An object store's own reason not to do what was asked for.
    #[error("it answered with status {status}: {}", shown(code))]
    Service {
        /// The status.
        status: u16,
        /// What it calls the reason.
        code: String,
    },
    /// Another part of the object than was asked for.
    #[error("it sent another range than {asked}: {}", shown(found))]
    OtherRange {
        /// First and last byte.
        asked: String,
        /// What `Content-Range` says.
        found: String,
    },
    /// The object ends before the part that was asked for does.
    #[error("its copy ends too early")]
    EndsEarly,
    /// It does not know how to send a part, and the whole is too long to be sent for it.
    #[error("it sends whole files where a part is asked for")]
    NoRanges,
    /// The body is compressed or otherwise encoded, though nobody asked for that.
    #[error("it sent the body encoded as {}", shown(.0))]
    Encoded(String),
    /// The object is said to be elsewhere.
    #[error("it redirects to {}, which is not followed", shown(.0))]
    Redirect(String),
    /// A page for people came in the place of an object.
    #[error("it sent a web page: a login page or a proxy may be in the way")]
    WebPage,
    /// What came is no HTTP/1.1, or the request could not be made.
    #[error("it does not speak HTTP as it should: {}", shown(.0))]
    Protocol(String),
}

impl TransferError {
    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            TransferError::Connect(_)
            | TransferError::Timeout { .. }
            | TransferError::TooSlow { .. }
            | TransferError::Truncated { .. } => true,
            TransferError::Status { status, .. } | TransferError::Service { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502..=504)
            }
            _ => false,
        }
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            TransferError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A server's words, fit for a terminal.
fn shown(text: &str) -> String {
    let bytes = text.as_bytes();
    escape(bytes.get(..SHOWN_BYTES).unwrap_or(bytes))
}
