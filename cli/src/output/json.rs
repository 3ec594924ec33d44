// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Documents for programs. Every document names its schema (`docs/reference/schemas/`); fields are only ever added.
//!
//! Sizes are bytes, times RFC 3339 in UTC, ids full. A path that is valid UTF-8 stands in `path` as it is. One that is
//! not has its wrong bytes replaced by U+FFFD there, and its exact bytes as hex digits in `path_bytes`.

use evenkeel_store::format::manifest::Timestamp;
use evenkeel_store::id::encode_hex;
use serde::Serialize;

use crate::error::{CommandError, Kind};

/// A document: the schema's name, then the fields of the body.
#[derive(Serialize)]
pub struct Document<'a, T: Serialize> {
    /// `evenkeel/<command>/<version>`.
    pub schema: &'static str,
    /// The rest.
    #[serde(flatten)]
    pub body: &'a T,
}

/// A path, by name or by name and bytes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PathField {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

impl PathField {
    /// The fields for these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let path = String::from_utf8_lossy(bytes);
        let path_bytes = std::str::from_utf8(bytes).is_err().then(|| encode_hex(bytes));
        PathField { path: path.into_owned(), path_bytes }
    }
}

/// A point in time as RFC 3339 in UTC; Unix seconds where the calendar ends.
pub fn time(time: Timestamp) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    jiff::Timestamp::new(time.secs, nanos).map_or_else(|_| format!("@{}", time.secs), |t| t.to_string())
}

/// A failed command, on stderr; or a failed part of one, in its document.
#[derive(Debug, Serialize)]
pub struct Failure {
    kind: Kind,
    exit_code: u8,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Failure {
    /// The fields for this error.
    pub fn of(error: &CommandError) -> Self {
        Failure {
            kind: error.kind,
            exit_code: error.kind.exit().code(),
            message: error.source.to_string(),
            causes: error.causes(),
            hints: error.hints.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact_one_way_or_the_other() {
        let text = |bytes: &[u8]| serde_json::to_string(&PathField::new(bytes)).unwrap();
        assert_eq!(text("a\nö".as_bytes()), "{\"path\":\"a\\nö\"}");
        assert_eq!(text(b"a\xff"), "{\"path\":\"a\u{fffd}\",\"path_bytes\":\"61ff\"}");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(Timestamp { secs: 1_700_000_000, nanos: 5 }), "2023-11-14T22:13:20.000000005Z");
        assert_eq!(time(Timestamp { secs: i64::MAX, nanos: 0 }), "@9223372036854775807");
    }
}
