// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entries in order → manifest and files cache, and what is known only when the whole area has come by: numbers of
//! names in hard-link groups, names of owners.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::window::{Group, Ready};
use super::{AreaResult, Merge, PendingCache};
use crate::commit::old::OldRecords;
use crate::commit::pipeline::Packing;
use crate::error::{Error, Result};
use crate::files_cache::{self, CacheWriter, RecordState};
use crate::format::manifest::{AceTag, Entry, Node};
use crate::format::snapshot::SnapshotArea;
use crate::fsio;
use crate::manifest::ManifestBuilder;

/// Names of one hard-link group.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) recorded: u32,
    pub(super) found: u32,
}

/// Ids whose names the manifest head has to hold.
#[derive(Debug, Default)]
pub(super) struct Owners {
    pub(super) users: BTreeSet<u32>,
    pub(super) groups: BTreeSet<u32>,
}

impl Owners {
    pub(super) fn add_acls(&mut self, entry: &Entry) {
        let Node::Inode(inode) = &entry.node else { return };
        for ace in inode.acl.iter().chain(&inode.default_acl).flat_map(|acl| &acl.0) {
            match ace.tag {
                AceTag::User(id) => drop(self.users.insert(id)),
                AceTag::Group(id) => drop(self.groups.insert(id)),
                AceTag::UserObj | AceTag::GroupObj | AceTag::Mask | AceTag::Other => {}
            }
        }
    }
}

impl Merge<'_, '_> {
    pub(super) fn emit(&mut self, ready: &Ready) -> Result<()> {
        let mut is_further_name = false;
        match &ready.group {
            Some(Group::Further(first)) if self.lost.contains(first) => return Ok(()),
            Some(Group::Further(first)) => {
                is_further_name = true;
                self.names.entry(first.clone()).and_modify(|names| names.found += 1);
            }
            Some(Group::First(recorded)) => {
                self.names.insert(ready.path.clone(), Names { recorded: *recorded, found: 1 });
            }
            None => {}
        }
        if !self.area.spec.set_id && ready.is_file && !is_further_name {
            let entry = files_cache::decode_entry(&ready.encoded)?;
            if matches!(entry.node, Node::Inode(inode) if inode.gives_rights()) {
                self.troubles.rights.push(self.area.dir.path_of(ready.path.as_bytes()));
            }
        }
        self.owners.users.insert(ready.owner.0);
        self.owners.groups.insert(ready.owner.1);
        self.report.entries += 1;
        if ready.is_file && !is_further_name {
            self.report.files += 1;
            self.report.bytes += ready.size;
        }
        self.cache.push(RecordState::Current, ready.fingerprint.as_ref(), &ready.encoded)?;
        self.builder.push(&ready.path, &ready.encoded)
    }

    /// Builds the manifest again with the right number of names for groups of which some lie outside the area. Their
    /// number is known only when the whole area has come by.
    fn correct_links(&mut self) -> Result<()> {
        let dir = self.cache_dir.clone();
        let wrong = std::mem::replace(&mut self.cache, CacheWriter::create(&dir)?);
        self.builder = ManifestBuilder::new(Packing::new(self.shared)?);
        for record in wrong.into_records()? {
            let mut record = record?;
            let path = record.path()?;
            if let Some(names) = self.names.get(&path) {
                let mut entry = record.decode()?;
                if let Node::Inode(inode) = &mut entry.node {
                    inode.links = names.found;
                }
                record.entry.clear();
                entry.encode_into(&mut record.entry);
            }
            self.cache.push(record.state, record.fingerprint.as_ref(), &record.entry)?;
            self.builder.push(&path, &record.entry)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self, cache_path: PathBuf) -> Result<AreaResult> {
        self.flush_batch()?;
        while !self.window.is_empty() {
            self.wait_for_one()?;
        }
        let forgotten = self.old.take().map_or(Ok(0), OldRecords::unmet)?;
        self.report.removed = match self.basis.take() {
            Some(basis) => basis.unmet()?,
            None => forgotten,
        };
        let users = names_of(&self.owners.users, fsio::owner_name, "/etc/passwd")?;
        let groups = names_of(&self.owners.groups, fsio::group_name, "/etc/group")?;
        self.names.retain(|_, names| names.recorded != names.found);
        if !self.names.is_empty() {
            self.correct_links()?;
        }
        let built = self.builder.finish(users, groups)?;
        use std::os::unix::ffi::OsStrExt;
        let snapshot_area = SnapshotArea {
            name: self.area.spec.name.clone(),
            root: self.area.root.as_os_str().as_bytes().to_vec(),
            rules: self.area.spec.rules.clone(),
            manifest: built.id,
            manifest_len: built.len,
            entries: built.entries,
            files: self.report.files,
            bytes: self.report.bytes,
            unstable: self.report.unstable.len() as u64,
        };
        let is_stale = self.is_stale || forgotten > 0;
        let cache = PendingCache { writer: self.cache, path: cache_path, manifest: built.id, is_stale };
        Ok(AreaResult { snapshot_area, report: self.report, cache: Some(cache) })
    }
}

type NameOf = fn(u32) -> std::io::Result<Option<Vec<u8>>>;

/// Names of ids, where there are any. A database that cannot be asked is not one without names.
fn names_of(ids: &BTreeSet<u32>, name: NameOf, database: &str) -> Result<BTreeMap<u32, Vec<u8>>> {
    let mut names = BTreeMap::new();
    for id in ids {
        let name = name(*id).map_err(|e| Error::io("look up an id in", database, e))?;
        names.extend(name.map(|name| (*id, name)));
    }
    Ok(names)
}
