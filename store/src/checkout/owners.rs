// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The master's owner ids → this machine's, by name.
//!
//! An id that had a name on the master becomes the id of that name here; one without a name stays a number. A name that
//! is not known here is an error before anything changes, never id 0.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Result};
use crate::format::manifest::{AceTag, Acl, Entry, Inode, ManifestHead, Node};
use crate::fsio;
use crate::path::escape;

/// Stands for a name that is not known here, where that may not stop the operation: no inode has it.
pub(super) const NOBODY_HERE: u32 = u32::MAX;

/// Translation of the ids of one manifest.
#[derive(Debug, Default)]
pub(super) struct OwnerMap {
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
    missing_users: Vec<String>,
    missing_groups: Vec<String>,
}

impl OwnerMap {
    /// Looks up every name of the manifest's tables, or none with `numeric`.
    pub(super) fn new(head: &ManifestHead, numeric: bool) -> OwnerMap {
        let mut map = OwnerMap::default();
        if numeric {
            return map;
        }
        map.users = translate(&head.users, fsio::uid_of_name, &mut map.missing_users);
        map.groups = translate(&head.groups, fsio::gid_of_name, &mut map.missing_groups);
        map
    }

    /// Fails with all names that are not known here.
    pub(super) fn require_all(&self) -> Result<()> {
        let list = |noun: &str, names: &[String]| match names.len() {
            0 => None,
            1 => Some(format!("{noun} {} is", names[0])),
            _ => Some(format!("{noun}s {} are", names.join(", "))),
        };
        let parts = [list("user", &self.missing_users), list("group", &self.missing_groups)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            return Ok(());
        }
        Err(Error::Refused {
            reason: format!("{} not known on this machine", parts.join(" and ")),
            hint: Some("create them first, or take owners by number".into()),
        })
    }

    /// Puts this machine's ids into an entry.
    pub(super) fn localize(&self, mut entry: Entry) -> Entry {
        if self.users.is_empty() && self.groups.is_empty() {
            return entry;
        }
        if let Node::Inode(inode) = &mut entry.node {
            self.localize_inode(inode);
        }
        entry
    }

    fn localize_inode(&self, inode: &mut Inode) {
        inode.uid = *self.users.get(&inode.uid).unwrap_or(&inode.uid);
        inode.gid = *self.groups.get(&inode.gid).unwrap_or(&inode.gid);
        for acl in [&mut inode.acl, &mut inode.default_acl].into_iter().flatten() {
            self.localize_acl(acl);
        }
    }

    fn localize_acl(&self, acl: &mut Acl) {
        for ace in &mut acl.0 {
            match &mut ace.tag {
                AceTag::User(id) => *id = *self.users.get(id).unwrap_or(id),
                AceTag::Group(id) => *id = *self.groups.get(id).unwrap_or(id),
                AceTag::UserObj | AceTag::GroupObj | AceTag::Mask | AceTag::Other => {}
            }
        }
        acl.0.sort_unstable();
    }
}

/// Only ids that differ here are kept.
fn translate(
    names: &BTreeMap<u32, Vec<u8>>,
    lookup: fn(&[u8]) -> Option<u32>,
    missing: &mut Vec<String>,
) -> HashMap<u32, u32> {
    let mut map = HashMap::new();
    for (id, name) in names {
        let here = lookup(name).unwrap_or_else(|| {
            missing.push(format!("`{}`", escape(name)));
            NOBODY_HERE
        });
        if here != *id {
            map.insert(*id, here);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;

    fn head(users: &[(u32, &str)]) -> ManifestHead {
        ManifestHead {
            root: ChunkId([1; 32]),
            root_len: 1,
            level: 0,
            entries: 1,
            users: users.iter().map(|(id, name)| (*id, name.as_bytes().to_vec())).collect(),
            groups: BTreeMap::new(),
        }
    }

    #[test]
    fn names_decide_and_unknown_ones_are_listed_together() {
        let map = OwnerMap::new(&head(&[(7777, "root"), (5, "no-such-user-a"), (6, "no-such-user-b")]), false);
        assert_eq!(map.users.get(&7777), Some(&0));
        assert_eq!(map.users.get(&5), Some(&NOBODY_HERE));
        let text = map.require_all().unwrap_err().to_string();
        assert_eq!(text, "users `no-such-user-a`, `no-such-user-b` are not known on this machine");
        OwnerMap::new(&head(&[(5, "no-such-user-a")]), true).require_all().unwrap();
    }
}
