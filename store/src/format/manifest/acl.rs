// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Access control lists and flags of an entry (format-spec §40.5).

use super::{Ace, AceTag, Acl, InodeFlags};
use crate::format::cbor::{Reader, Writer};
use crate::format::{DecodeError, Reason};
use crate::limits;

impl AceTag {
    fn code(self) -> u8 {
        match self {
            AceTag::UserObj => 1,
            AceTag::User(_) => 2,
            AceTag::GroupObj => 4,
            AceTag::Group(_) => 8,
            AceTag::Mask => 16,
            AceTag::Other => 32,
        }
    }

    fn id(self) -> Option<u32> {
        match self {
            AceTag::User(id) | AceTag::Group(id) => Some(id),
            AceTag::UserObj | AceTag::GroupObj | AceTag::Mask | AceTag::Other => None,
        }
    }
}

impl Acl {
    /// The rule that this list breaks, if it breaks one.
    pub fn broken_rule(&self) -> Option<&'static str> {
        let has = |tag: AceTag| self.0.iter().any(|ace| ace.tag == tag);
        let named = self.0.iter().any(|ace| ace.tag.id().is_some());
        if self.0.windows(2).any(|pair| pair[0].tag >= pair[1].tag) {
            return Some("access control list out of order");
        }
        if ![AceTag::UserObj, AceTag::GroupObj, AceTag::Other].into_iter().all(has) {
            return Some("access control list lacks owner, group or others");
        }
        if named && !has(AceTag::Mask) {
            return Some("access control list with named entries lacks a mask");
        }
        None
    }

    /// Whether it says more than permission bits can: it has a mask.
    pub fn is_extended(&self) -> bool {
        self.0.iter().any(|ace| ace.tag == AceTag::Mask)
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.array(self.0.len());
        for ace in &self.0 {
            w.array(2 + usize::from(ace.tag.id().is_some())).uint(ace.tag.code()).uint(ace.perm);
            if let Some(id) = ace.tag.id() {
                w.uint(id);
            }
        }
    }

    pub(super) fn read(r: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let start = r.offset();
        let count = r.array_len(field, limits::ACL_ENTRIES_MAX)?;
        let mut acl = Acl(Vec::with_capacity(count));
        for _ in 0..count {
            acl.0.push(read_ace(r, field)?);
        }
        match acl.broken_rule() {
            Some(rule) => Err(r.error(start, field, Reason::Rule(rule))),
            None => Ok(acl),
        }
    }
}

fn read_ace(r: &mut Reader<'_>, field: &'static str) -> Result<Ace, DecodeError> {
    let start = r.offset();
    let len = r.array_len(field, 3)?;
    let tag_at = r.offset();
    let code = r.uint(field)?;
    let perm = r.small(field, 0, 7)?;
    let id = if len == 3 { Some(r.small(field, 0, u32::MAX.into())?) } else { None };
    let tag = match (len, code, id) {
        (2, 1, None) => AceTag::UserObj,
        (3, 2, Some(id)) => AceTag::User(id),
        (2, 4, None) => AceTag::GroupObj,
        (3, 8, Some(id)) => AceTag::Group(id),
        (2, 16, None) => AceTag::Mask,
        (2, 32, None) => AceTag::Other,
        (_, 1 | 2 | 4 | 8 | 16 | 32, _) => {
            return Err(r.error(start, field, Reason::Rule("an id exactly for named users and groups")));
        }
        _ => return Err(r.error(tag_at, field, Reason::Value { found: code })),
    };
    Ok(Ace { tag, perm })
}

impl InodeFlags {
    pub(super) fn write(self, w: &mut Writer<'_>) {
        w.array(self.names().count());
        for name in self.names() {
            w.text(name);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = r.offset();
        let count = r.array_len("flags", Self::NAMES.len())?;
        if count == 0 {
            return Err(r.error(start, "flags", Reason::Canonical("empty list")));
        }
        let mut flags = InodeFlags::default();
        for _ in 0..count {
            let start = r.offset();
            let name = r.text("flags", limits::NAME_BYTES_MAX)?;
            let Some(flag) = Self::from_name(name) else {
                return Err(r.error(start, "flags", Reason::Feature(name.to_owned())));
            };
            // Bits stand in the order of their names.
            if flag.0 <= flags.0 {
                return Err(r.error(start, "flags", Reason::Canonical("names out of order")));
            }
            flags = flags.union(flag);
        }
        Ok(flags)
    }
}
