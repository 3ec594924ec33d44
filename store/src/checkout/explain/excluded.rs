// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which rule says that a path does not belong to an area.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::area::{self, RuleSet, Verdict};
use crate::checkout::options::AreaTarget;
use crate::format::manifest::{Inode, InodeKind};
use crate::format::snapshot::AreaRules;
use crate::path::TreePath;

/// Whose rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExclusionKind {
    /// The snapshot's: the area leaves it out on every server.
    Snapshot,
    /// This machine's.
    Local,
    /// The list of host identity and secrets.
    Identity,
    /// Nothing includes it.
    NotIncluded,
    /// The program's own places.
    Protected,
}

impl ExclusionKind {
    /// For people and records.
    pub fn name(self) -> &'static str {
        match self {
            ExclusionKind::Snapshot => "the snapshot's rules",
            ExclusionKind::Local => "this machine's rules",
            ExclusionKind::Identity => "host identity and secrets",
            ExclusionKind::NotIncluded => "nothing includes it",
            ExclusionKind::Protected => "the program's own",
        }
    }
}

/// Why a path does not belong to an area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// Whose rule.
    pub kind: ExclusionKind,
    /// The pattern that decides; `None` where no single one does.
    pub pattern: Option<String>,
    /// The path that it fits: the path itself, or a directory above it.
    pub at: TreePath,
}

/// The rule that takes `path` out of the area; `None` when it belongs to it.
pub(super) fn find(
    target: &AreaTarget,
    rules: Option<&AreaRules>,
    all: &RuleSet,
    path: &TreePath,
    live: Option<&Inode>,
) -> Option<Exclusion> {
    let is_dir = live.is_some_and(|live| live.kind == InodeKind::Directory);
    let ends = path.as_bytes().iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let above = ends.filter_map(|end| TreePath::new(&path.as_bytes()[..end]).ok()).map(|dir| (dir, true));
    let (at, is_dir, verdict) =
        above.chain([(path.clone(), is_dir)]).find_map(|(at, is_dir)| match all.verdict_on_walk(&at, is_dir) {
            Verdict::In | Verdict::Passage => None,
            out => Some((at, is_dir, out)),
        })?;
    let empty = AreaRules::default();
    let rules = rules.unwrap_or(&empty);
    let lists = [
        (ExclusionKind::Snapshot, &rules.exclude),
        (ExclusionKind::Local, &target.exclude),
        (ExclusionKind::Identity, &rules.identity),
    ];
    let lists =
        lists.into_iter().filter(|(kind, _)| (*kind == ExclusionKind::Identity) == (verdict == Verdict::Identity));
    for (kind, patterns) in lists {
        if let Some(pattern) = deciding(patterns, &at, is_dir) {
            return Some(Exclusion { kind, pattern: Some(pattern), at });
        }
    }
    let kind = if all.is_own(&at) { ExclusionKind::Protected } else { ExclusionKind::NotIncluded };
    Some(Exclusion { kind, pattern: None, at })
}

/// The pattern of a list that excludes a path.
fn deciding(patterns: &[String], path: &TreePath, is_dir: bool) -> Option<String> {
    let compiled = area::compile(patterns).ok()?;
    match compiled.matched(Path::new(OsStr::from_bytes(path.as_bytes())), is_dir) {
        ignore::Match::Ignore(glob) => Some(glob.original().to_owned()),
        _ => None,
    }
}
