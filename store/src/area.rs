// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What belongs to an area: the gitignore matcher on our own walk.
//!
//! Invariant: no file inside an area is ever read as a rule. What the rules exclude is outside the area: no mode
//! replaces, removes or reports it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};
use crate::format::snapshot::AreaRules;
use crate::limits;
use crate::path::TreePath;

/// Directory in an area's root that holds staging, undo, lock and marker.
pub const PRIVATE_DIR: &[u8] = b".evenkeel";
/// What `fsck` puts into a file system's root.
const LOST_FOUND: &[u8] = b"lost+found";
/// Extended attributes that are recorded when the rules name none.
pub const DEFAULT_XATTRS: [&str; 2] = ["security.capability", "user.*"];
/// What XFS shows of ACLs a second time, for root.
const MIRRORED_ACLS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

/// Whether an attribute only shows an ACL a second time.
pub(crate) fn is_mirrored_acl(name: &[u8]) -> bool {
    MIRRORED_ACLS.contains(&name)
}

/// An area as it is committed: a name, where its tree is on this machine, and its rules.
#[derive(Debug, Clone)]
pub struct AreaSpec {
    /// 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
    pub name: String,
    /// Root directory.
    pub root: PathBuf,
    /// What belongs to it.
    pub rules: AreaRules,
    /// Whether files in it may have set-id bits or capabilities. A rule of this machine, of which the snapshot tells nothing.
    pub set_id: bool,
}

impl AreaSpec {
    /// An area in which files may give rights.
    pub fn new(name: impl Into<String>, root: impl Into<PathBuf>, rules: AreaRules) -> AreaSpec {
        AreaSpec { name: name.into(), root: root.into(), rules, set_id: true }
    }
}

/// Whether a path belongs to an area, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to the area.
    In,
    /// A directory that belongs to the area only if something in it does (there are include patterns).
    Passage,
    /// Excluded by a pattern, or always.
    Excluded,
    /// Host identity or a secret.
    Identity,
}

/// Compiled [`AreaRules`].
#[derive(Debug)]
pub struct RuleSet {
    include: Option<Gitignore>,
    exclude: Gitignore,
    identity: Gitignore,
    /// What only this machine excludes. A matcher of its own: a `!` in it must not bring back what the area excludes.
    local: Gitignore,
    protected: Vec<TreePath>,
    xattrs: XattrRules,
    devices: bool,
}

impl RuleSet {
    /// Compiles the patterns. `protected` are paths relative to the area's root that are always excluded.
    ///
    /// # Errors
    /// [`Error::Refused`] naming a pattern that is not valid.
    pub fn new(rules: &AreaRules, protected: Vec<TreePath>) -> Result<RuleSet> {
        Ok(RuleSet {
            include: if rules.include.is_empty() { None } else { Some(compile(&rules.include)?) },
            exclude: compile(&rules.exclude)?,
            identity: compile(&rules.identity)?,
            local: Gitignore::empty(),
            protected,
            xattrs: XattrRules::new(&rules.xattrs),
            devices: rules.devices,
        })
    }

    /// Excludes more, by patterns that only this machine has.
    ///
    /// # Errors
    /// As [`RuleSet::new`].
    pub fn excluding(mut self, patterns: &[String]) -> Result<RuleSet> {
        self.local = compile(patterns)?;
        Ok(self)
    }

    /// Which extended attributes belong to the area.
    pub fn xattrs(&self) -> &XattrRules {
        &self.xattrs
    }

    /// Whether device nodes belong to the area.
    pub fn devices(&self) -> bool {
        self.devices
    }

    /// Whether a path is the program's own, or the file system's: no pattern decides over it.
    pub fn is_own(&self, path: &TreePath) -> bool {
        let name = path.name();
        name == PRIVATE_DIR || (name == LOST_FOUND && path.depth() == 1) || self.protected.contains(path)
    }

    /// Judges a path all of whose ancestors are known not to be excluded, as on a walk from the root.
    pub fn verdict_on_walk(&self, path: &TreePath, is_dir: bool) -> Verdict {
        if path.is_root() {
            return Verdict::In;
        }
        if self.is_own(path) {
            return Verdict::Excluded;
        }
        let as_path = Path::new(OsStr::from_bytes(path.as_bytes()));
        if self.exclude.matched(as_path, is_dir).is_ignore() || self.local.matched(as_path, is_dir).is_ignore() {
            return Verdict::Excluded;
        }
        if self.identity.matched(as_path, is_dir).is_ignore() {
            return Verdict::Identity;
        }
        match &self.include {
            None => Verdict::In,
            Some(include) if include.matched_path_or_any_parents(as_path, is_dir).is_ignore() => Verdict::In,
            Some(_) if is_dir => Verdict::Passage,
            Some(_) => Verdict::Excluded,
        }
    }

    /// Judges any path: an excluded ancestor excludes everything below it.
    pub fn verdict(&self, path: &TreePath, is_dir: bool) -> Verdict {
        for (at, byte) in path.as_bytes().iter().enumerate() {
            if *byte == b'/' {
                let ancestor = TreePath::new(&path.as_bytes()[..at]).expect("a prefix of a valid path");
                match self.verdict_on_walk(&ancestor, true) {
                    Verdict::In | Verdict::Passage => {}
                    out => return out,
                }
            }
        }
        self.verdict_on_walk(path, is_dir)
    }
}

/// Patterns as in `.gitignore`.
///
/// # Errors
/// [`Error::Refused`] naming one that is not valid.
pub(crate) fn compile(patterns: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    // A rule that cannot be evaluated must not silently mean something else.
    builder.allow_unclosed_class(false);
    let invalid = |pattern: &str, e: &ignore::Error| Error::Refused {
        reason: format!("pattern `{}` is not valid: {e}", crate::path::escape(pattern.as_bytes())),
        hint: Some("patterns are written as in .gitignore".into()),
    };
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|e| invalid(pattern, &e))?;
    }
    builder.build().map_err(|e| invalid(&patterns.join(" "), &e))
}

/// Which extended attributes belong to an area.
#[derive(Debug, Clone)]
pub struct XattrRules {
    patterns: Vec<String>,
}

/// What becomes of one extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrVerdict {
    /// Recorded and restored.
    Recorded,
    /// Belongs to the machine, not to the tree: neither recorded nor touched.
    Local,
    /// Nothing says that it may be recorded; leaving it out silently would be a lie.
    Refused,
}

impl XattrRules {
    /// Rules from name patterns in which a last `*` stands for anything (format-spec §50.3). A `!` before one says to leave
    /// alone what it fits; of several that fit, the last decides. [`DEFAULT_XATTRS`] come first when none says to record.
    pub fn new(patterns: &[String]) -> XattrRules {
        let records = patterns.iter().any(|pattern| !pattern.starts_with('!'));
        let defaults = if records { Vec::new() } else { DEFAULT_XATTRS.map(String::from).to_vec() };
        XattrRules { patterns: [defaults, patterns.to_vec()].concat() }
    }

    /// Judges one attribute name.
    pub fn verdict(&self, name: &[u8]) -> XattrVerdict {
        if is_mirrored_acl(name) {
            return XattrVerdict::Local;
        }
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix.as_bytes()),
            None => name == pattern.as_bytes(),
        };
        let judged = self.patterns.iter().rev().find_map(|pattern| match pattern.strip_prefix('!') {
            Some(pattern) => fits(pattern).then_some(XattrVerdict::Local),
            None => fits(pattern).then_some(XattrVerdict::Recorded),
        });
        judged.unwrap_or_else(|| {
            // Labels follow from the machine's own policy; ACLs are recorded structured.
            let is_local = name == b"security.selinux" || crate::fsio::xattr_namespace_of_acl(name);
            if is_local { XattrVerdict::Local } else { XattrVerdict::Refused }
        })
    }
}

/// Checks an area's name.
///
/// # Errors
/// [`Error::Refused`] with the rule.
pub fn check_name(name: &str) -> Result<()> {
    let first_fits = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest_fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if first_fits && rest_fits && name.len() <= limits::AREA_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Error::Refused {
        reason: format!("`{}` is not a valid area name", crate::path::escape(name.as_bytes())),
        hint: Some("use 1 to 64 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit".into()),
    })
}

/// Paths of `protected` that lie below `root`, relative to it. Both are absolute.
pub fn protected_below(root: &Path, protected: &[PathBuf]) -> Vec<TreePath> {
    // A protected path may be named through a symlink, while the area's root has none.
    let real = protected.iter().filter_map(|path| crate::fsio::canonicalize(path).ok());
    let all: std::collections::BTreeSet<PathBuf> = protected.iter().cloned().chain(real).collect();
    all.iter()
        .filter_map(|path| path.strip_prefix(root).ok())
        .filter_map(|relative| TreePath::new(relative.as_os_str().as_bytes()).ok())
        .filter(|path| !path.is_root())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(include: &[&str], exclude: &[&str]) -> RuleSet {
        let strings = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect();
        let rules = AreaRules {
            include: strings(include),
            exclude: strings(exclude),
            identity: vec!["/etc/machine-id".into()],
            ..AreaRules::default()
        };
        RuleSet::new(&rules, vec![TreePath::new(*b"var/lib/evenkeel").unwrap()]).unwrap()
    }

    fn judge(rules: &RuleSet, path: &str, is_dir: bool) -> Verdict {
        rules.verdict(&TreePath::new(path).unwrap(), is_dir)
    }

    #[test]
    fn excludes_follow_gitignore() {
        let rules = rules(&[], &["*.tmp", "/cache/", "!keep.tmp"]);
        let cases = [
            ("", true, Verdict::In),
            ("a.txt", false, Verdict::In),
            ("a.tmp", false, Verdict::Excluded),
            ("d/a.tmp", false, Verdict::Excluded),
            ("d/keep.tmp", false, Verdict::In),
            ("cache", true, Verdict::Excluded),
            ("cache", false, Verdict::In),
            ("cache/keep.tmp", false, Verdict::Excluded),
            ("d/cache", true, Verdict::In),
            (".evenkeel", true, Verdict::Excluded),
            ("d/.evenkeel/x", false, Verdict::Excluded),
            ("lost+found", true, Verdict::Excluded),
            ("d/lost+found", true, Verdict::In),
            ("etc/machine-id", false, Verdict::Identity),
            ("var/lib/evenkeel/x", false, Verdict::Excluded),
        ];
        for (path, is_dir, expected) in cases {
            assert_eq!(judge(&rules, path, is_dir), expected, "{path}");
        }
    }

    #[test]
    fn includes_keep_the_way_to_them_open() {
        let rules = rules(&["/opt/app", "*.conf"], &["*.bak"]);
        let cases = [
            ("opt", true, Verdict::Passage),
            ("opt/app", true, Verdict::In),
            ("opt/app/bin/x", false, Verdict::In),
            ("opt/app/x.bak", false, Verdict::Excluded),
            ("opt/other", true, Verdict::Passage),
            ("opt/other/x", false, Verdict::Excluded),
            ("etc/a.conf", false, Verdict::In),
        ];
        for (path, is_dir, expected) in cases {
            assert_eq!(judge(&rules, path, is_dir), expected, "{path}");
        }
    }

    /// A local `!important.log` brought back what the area excludes, and a full checkout removed it as a stray.
    #[test]
    fn a_local_rule_only_excludes_more() {
        let rules = rules(&[], &["*.log"]).excluding(&["*.bak".into(), "!important.log".into()]).unwrap();
        assert_eq!(judge(&rules, "important.log", false), Verdict::Excluded);
        assert_eq!(judge(&rules, "a.bak", false), Verdict::Excluded);
        assert_eq!(judge(&rules, "a", false), Verdict::In);
    }

    /// The store was named through a symlink, so it was no protected path, and its files were strays of the area around it.
    #[test]
    fn a_protected_path_counts_by_where_it_really_is() {
        let temp = tempfile::tempdir().unwrap();
        let root = crate::fsio::canonicalize(temp.path()).unwrap();
        crate::fsio::create_dir_all(&root.join("store")).unwrap();
        crate::fsio::Dir::open(&root).unwrap().make_symlink(b"store", b"link").unwrap();
        let below = protected_below(&root, &[root.join("link")]);
        assert_eq!(below, [TreePath::new(*b"link").unwrap(), TreePath::new(*b"store").unwrap()]);
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let bad = AreaRules { exclude: vec!["a[".into()], ..AreaRules::default() };
        let error = RuleSet::new(&bad, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("`a[`"), "{error}");
    }

    #[test]
    fn attributes_are_recorded_left_alone_or_refused() {
        use XattrVerdict::{Local, Recorded, Refused};
        let cases: [(&[&str], &str, XattrVerdict); 14] = [
            (&[], "user.x", Recorded),
            (&[], "security.capability", Recorded),
            (&[], "security.selinux", Local),
            (&[], "security.ima", Refused),
            (&[], "trusted.SGI_ACL_FILE", Local),
            (&["trusted.*"], "trusted.SGI_ACL_DEFAULT", Local),
            (&["trusted.*"], "user.x", Refused),
            (&["security.selinux"], "security.selinux", Recorded),
            (&["!security.ima"], "security.ima", Local),
            (&["!security.ima"], "user.x", Recorded),
            (&["user.*", "!user.local.*"], "user.local.x", Local),
            (&["user.*", "!user.local.*"], "user.x", Recorded),
            (&["!user.*", "user.keep"], "user.keep", Recorded),
            (&["!*"], "trusted.overlay.opaque", Local),
        ];
        for (patterns, name, expected) in cases {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            assert_eq!(XattrRules::new(&patterns).verdict(name.as_bytes()), expected, "{name} by {patterns:?}");
        }
    }

    #[test]
    fn area_names() {
        for good in ["a", "etc", "opt-app_1.2", "0"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", ".a", "A", "a/b", "a b", &"a".repeat(65)] {
            check_name(bad).unwrap_err();
        }
    }
}
