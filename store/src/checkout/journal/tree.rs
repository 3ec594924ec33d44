// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one step of a tree switch.

use super::{New, STEPS_MAX, Was, read_path};
use crate::checkout::report::ChangeKind;
use crate::format::DecodeError;
use crate::format::cbor::{Reader, Writer};
use crate::path::TreePath;

/// The area's root and a complete new tree change places. It is staged in slot 0 and has the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::checkout) struct TreeStep {
    /// The new root.
    pub(in crate::checkout) new: New,
    /// The old root; with it, of everything in it, what gives rights.
    pub(in crate::checkout) was: Was,
    /// Inode number of the area's `.evenkeel`, which goes over to the new tree.
    pub(in crate::checkout) private: u64,
    /// Bytes of the files in the old tree.
    pub(in crate::checkout) bytes: u64,
    /// What differs between the two, for people.
    pub(in crate::checkout) changes: Vec<(TreePath, ChangeKind)>,
}

const KINDS: [ChangeKind; 5] =
    [ChangeKind::Add, ChangeKind::Replace, ChangeKind::Link, ChangeKind::Metadata, ChangeKind::Remove];

impl TreeStep {
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.array(5);
        self.new.write(w);
        self.was.write(w);
        w.uint(self.private).uint(self.bytes).array(self.changes.len());
        for (path, kind) in &self.changes {
            let kind = KINDS.iter().position(|known| known == kind).unwrap_or_default() as u64;
            w.array(2).bytes(path.as_bytes()).uint(kind);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<TreeStep, DecodeError> {
        r.tuple("tree", 5)?;
        let (new, was) = (New::read(r)?, Was::read(r)?);
        let (private, bytes) = (r.uint("private")?, r.uint("bytes")?);
        let mut changes = Vec::new();
        for _ in 0..r.array_len("changes", STEPS_MAX)? {
            r.tuple("change", 2)?;
            changes.push((read_path(r)?, KINDS[r.small::<usize>("kind", 0, KINDS.len() as u64 - 1)?]));
        }
        Ok(TreeStep { new, was, private, bytes, changes })
    }
}
