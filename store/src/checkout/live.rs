// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The live tree of an area, as the merge wants to see it.

use std::collections::BTreeSet;

use super::chain::DirChain;
use super::merge::LiveTree;
use crate::area::RuleSet;
use crate::error::{Error, Result};
use crate::format::manifest::Inode;
use crate::fsio::{Dir, Stat};
use crate::id::ContentHash;
use crate::inode::{self, UnknownXattrs};
use crate::path::TreePath;
use crate::progress::Progress;
use crate::walk::{Found, Walk};

/// A walk over an area's root; empty when there is no root yet.
pub(super) struct LiveArea<'a> {
    walk: Option<Walk<'a>>,
    chain: Option<DirChain<'a>>,
    rules: &'a RuleSet,
    progress: &'a Progress,
    none: BTreeSet<TreePath>,
}

impl<'a> LiveArea<'a> {
    /// Starts a walk at `root`.
    pub(super) fn new(root: Option<&'a Dir>, rules: &'a RuleSet, progress: &'a Progress) -> Result<Self> {
        let walk = match root {
            None => None,
            Some(root) => {
                let failed = |e| Error::io("list", root.path(), e);
                Some(Walk::of_live_area(root.try_clone().map_err(failed)?, rules).map_err(failed)?)
            }
        };
        Ok(LiveArea { walk, chain: root.map(DirChain::new), rules, progress, none: BTreeSet::new() })
    }
}

impl LiveTree for LiveArea<'_> {
    type Item = Found;

    fn next(&mut self) -> Result<Option<Found>> {
        let Some(next) = self.walk.as_mut().and_then(Iterator::next) else { return Ok(None) };
        self.progress.check_cancelled()?;
        self.progress.advance(1, 0);
        next.map(Some).map_err(|e| Error::io("look at", e.full_path, e.source))
    }

    fn path(item: &Found) -> &TreePath {
        &item.path
    }

    fn stat(item: &Found) -> &Stat {
        &item.stat
    }

    fn is_mount_point(item: &Found) -> bool {
        item.mount_point
    }

    fn is_passage(item: &Found) -> bool {
        item.passage
    }

    fn is_taken(&mut self, path: &TreePath) -> Result<bool> {
        let Some(chain) = &mut self.chain else { return Ok(false) };
        let failed = |e| Error::io("look at", path.to_string(), e);
        let (dir, name) = chain.parent(path.as_bytes()).map_err(failed)?;
        Ok(dir.stat_opt(name).map_err(failed)?.is_some())
    }

    fn metadata(&mut self, item: &Found) -> Result<Inode> {
        inode::read_metadata(item, self.rules.xattrs(), UnknownXattrs::Ignore)
    }

    fn content_hash(&mut self, item: &Found) -> Result<ContentHash> {
        let failed = |e| Error::io("read", item.full_path(), e);
        let (fd, stat) = inode::open_file(item).map_err(failed)?;
        let hash = inode::hash_content(&fd, stat.size, self.progress);
        self.progress.check_cancelled()?;
        hash.map_err(failed)
    }

    fn holds_outside(&self, dir: &TreePath) -> bool {
        self.walk.as_ref().map_or(&self.none, |walk| &walk.left_out().holders).contains(dir)
    }

    fn beyond(&self) -> &BTreeSet<TreePath> {
        self.walk.as_ref().map_or(&self.none, |walk| &walk.left_out().beyond)
    }
}
