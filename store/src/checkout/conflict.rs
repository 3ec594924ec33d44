// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who wins in an incremental checkout where a path changed on both sides, by path.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::Gitignore;

use super::options::AreaTarget;
use crate::area;
use crate::error::Result;
use crate::path::TreePath;

/// Who wins in an incremental checkout when a path changed locally and in the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConflictPolicy {
    /// The reference.
    #[default]
    Replace,
    /// The newer mtime; a tie or a live mtime in the future goes to the reference.
    Newer,
    /// The local version, which is reported.
    Keep,
    /// The reference takes the name; the local file stays beside it as `NAME.evenkeel-local`.
    Both,
}

/// A policy for some paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictRule {
    /// As in `.gitignore`; what lies below a directory that one of them fits counts as well.
    pub patterns: Vec<String>,
    /// What holds there.
    pub policy: ConflictPolicy,
}

/// The policies of an area, ready to be asked. Of several rules that fit, the last decides.
#[derive(Debug)]
pub(super) struct Conflicts {
    default: ConflictPolicy,
    rules: Vec<(Gitignore, ConflictPolicy)>,
}

impl Conflicts {
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) naming a pattern that is not valid.
    pub(super) fn new(target: &AreaTarget) -> Result<Conflicts> {
        let compiled = target.conflict_rules.iter().map(|rule| Ok((area::compile(&rule.patterns)?, rule.policy)));
        Ok(Conflicts { default: target.conflict, rules: compiled.collect::<Result<_>>()? })
    }

    pub(super) fn policy(&self, path: &TreePath, is_dir: bool) -> ConflictPolicy {
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        let fits = |rule: &&(Gitignore, ConflictPolicy)| rule.0.matched_path_or_any_parents(path, is_dir).is_ignore();
        self.rules.iter().rev().find(fits).map_or(self.default, |(_, policy)| *policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rule = |patterns: &[&str], policy| ConflictRule {
            patterns: patterns.iter().map(ToString::to_string).collect(),
            policy,
        };
        let target = AreaTarget {
            conflict: ConflictPolicy::Newer,
            conflict_rules: vec![
                rule(&["/nginx/", "*.local"], ConflictPolicy::Keep),
                rule(&["/nginx/mime.types"], ConflictPolicy::Both),
            ],
            ..AreaTarget::new("etc", "/etc")
        };
        let conflicts = Conflicts::new(&target).unwrap();
        for (path, expected) in [
            ("hosts", ConflictPolicy::Newer),
            ("a/b.local", ConflictPolicy::Keep),
            ("nginx/sites/default", ConflictPolicy::Keep),
            ("nginx/mime.types", ConflictPolicy::Both),
            ("nginx", ConflictPolicy::Newer),
        ] {
            assert_eq!(conflicts.policy(&TreePath::new(path).unwrap(), false), expected, "{path}");
        }
        let bad = AreaTarget { conflict_rules: vec![rule(&["a["], ConflictPolicy::Keep)], ..target };
        assert!(Conflicts::new(&bad).unwrap_err().to_string().contains("`a[`"));
    }
}
