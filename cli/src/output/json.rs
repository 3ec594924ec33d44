// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Documents for programs. Every document names its schema (`docs/reference/schemas/`); fields are only ever added.
//!
//! Sizes are bytes, times RFC 3339 in UTC, ids full.

pub use evenkeel_store::json::{PathField, time};
use serde::Serialize;

use crate::aftermath::AreaFields;
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

/// Something beside the result, on stderr.
#[derive(Serialize)]
pub struct Note {
    /// `note`, `hint`, `warning`, or `error` of what failed while the rest went on.
    pub kind: &'static str,
    /// In words.
    pub message: String,
}

/// A failed command, on stderr; or a failed part of one, in its document.
#[derive(Debug, Serialize)]
pub struct Failure {
    kind: Kind,
    exit_code: u8,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    areas: Vec<AreaFields>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    done: Vec<String>,
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
            areas: error.areas.iter().map(AreaFields::new).collect(),
            done: error.done.clone(),
        }
    }
}
