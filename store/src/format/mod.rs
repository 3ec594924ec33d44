// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Byte layouts of stored objects: pure encoders and decoders.
//!
//! Invariant: nothing here does I/O, knows a clock, recurses without a bound, or allocates more than a limit of
//! [`crate::limits`] allows before the bytes that justify it have been seen. Specified in `format-spec/`.

pub mod bundle;
pub mod cbor;
pub mod delta;
mod fields;
pub mod manifest;
pub mod pack;
pub mod snapshot;
pub mod store;
pub mod table;
#[cfg(test)]
mod tests;

/// What is wrong with an object's bytes, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field} at byte {offset}: {reason}")]
pub struct DecodeError {
    /// Kind of object: "pack", "segment", "manifest node", …
    pub object: &'static str,
    /// Offset of the first bad byte.
    pub offset: u64,
    /// Field of the specification.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Class of a [`DecodeError`]; `format-spec/reject/` names them by [`Reason::name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The bytes end too early.
    #[error("the data ends too early")]
    Truncated,
    /// Bytes follow where none may.
    #[error("unexpected bytes follow")]
    Trailing,
    /// Not this kind of object.
    #[error("wrong magic bytes")]
    Magic,
    /// Written by a newer program.
    #[error("version {found} is newer than {supported}, which this program understands")]
    Version {
        /// In the object.
        found: u64,
        /// By this program.
        supported: u64,
    },
    /// A must-understand feature that this program does not know.
    #[error("feature `{0}` is not understood by this program")]
    Feature(String),
    /// A value outside its range.
    #[error("value {found} is not allowed")]
    Value {
        /// In the object.
        found: u64,
    },
    /// More than a limit allows.
    #[error("{found} is over the limit of {limit}")]
    Limit {
        /// In the object.
        found: u64,
        /// Of the format.
        limit: u64,
    },
    /// Not deterministic CBOR, or not the one encoding of this value.
    #[error("not in canonical form: {0}")]
    Canonical(&'static str),
    /// A rule between fields is broken.
    #[error("{0}")]
    Rule(&'static str),
    /// A checksum inside the object does not fit.
    #[error("checksum mismatch")]
    Hash,
}

impl Reason {
    /// Stable one-word name, as in `format-spec/reject/`.
    pub fn name(&self) -> &'static str {
        match self {
            Reason::Truncated => "truncated",
            Reason::Trailing => "trailing",
            Reason::Magic => "magic",
            Reason::Version { .. } => "version",
            Reason::Feature(_) => "feature",
            Reason::Value { .. } => "value",
            Reason::Limit { .. } => "limit",
            Reason::Canonical(_) => "canonical",
            Reason::Rule(_) => "rule",
            Reason::Hash => "hash",
        }
    }
}

impl DecodeError {
    /// Whether a newer program would understand the object.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.reason, Reason::Version { .. } | Reason::Feature(_))
    }
}
