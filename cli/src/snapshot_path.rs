// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths inside a snapshot's areas, as a user writes them: `AREA:PATH`, `PATH`, `/PATH/ON/THE/MASTER`, and patterns.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use evenkeel_store::format::manifest::Entry;
use evenkeel_store::format::snapshot::{Snapshot, SnapshotArea};
use evenkeel_store::manifest::Manifest;
use evenkeel_store::path::{TreePath, escape};
use evenkeel_store::read::ChunkReader;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{CommandError, Kind, Result};

/// A path inside one area of a snapshot, as the user wrote it.
#[derive(Debug, Clone)]
pub struct SnapshotPath {
    area: Option<String>,
    path: Vec<u8>,
}

impl SnapshotPath {
    /// Reads `AREA:PATH` or `PATH`. A text before the first colon that cannot be an area's name belongs to the path.
    pub fn parse(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        if let Some(at) = bytes.iter().position(|&b| b == b':')
            && let Ok(name) = std::str::from_utf8(&bytes[..at])
            && evenkeel_store::area::check_name(name).is_ok()
        {
            return SnapshotPath { area: Some(name.to_owned()), path: bytes[at + 1..].to_vec() };
        }
        SnapshotPath { area: None, path: bytes.to_vec() }
    }

    /// The areas of `snapshot` in which this path may lie, with the path in each.
    ///
    /// An absolute path is looked up below each area's root on the master first, then from the area's own root.
    fn candidates<'s>(&self, snapshot: &'s Snapshot) -> Result<Vec<(&'s SnapshotArea, TreePath)>> {
        let mut found = Vec::new();
        for area in &snapshot.areas {
            if self.area.as_ref().is_some_and(|name| *name != area.name) {
                continue;
            }
            if self.path.starts_with(b"/")
                && let Some(below) = below(&area.root, &self.path)
            {
                found.push((area, tree_path(below)?));
            }
            let inside = tree_path(&self.path)?;
            if !found.iter().any(|(other, path)| other.name == area.name && *path == inside) {
                found.push((area, inside));
            }
        }
        Ok(found)
    }

    /// Where this path may lie in the area `name` of either snapshot.
    ///
    /// # Errors
    /// A usage error when it is no path in an area.
    pub fn places_in(&self, snapshots: &[Snapshot], name: &str) -> Result<Vec<TreePath>> {
        let mut places = Vec::new();
        for snapshot in snapshots {
            let candidates = self.candidates(snapshot)?;
            places.extend(candidates.into_iter().filter(|(area, _)| area.name == name).map(|(_, path)| path));
        }
        places.dedup();
        Ok(places)
    }

    /// The one entry of `snapshot` that this path names.
    ///
    /// # Errors
    /// A usage error when no area or more than one area has it.
    pub fn find<'r>(&self, snapshot: &Snapshot, short_id: &str, reader: &'r ChunkReader) -> Result<FoundEntry<'r>> {
        let shown = escape(&self.path);
        let mut hits: Vec<FoundEntry<'r>> = Vec::new();
        for (area, path) in self.candidates(snapshot)? {
            if hits.iter().any(|hit| hit.area == area.name) {
                continue;
            }
            let manifest = Manifest::open(reader, area)?;
            if let Some(entry) = manifest.get(&path)? {
                hits.push(FoundEntry { area: area.name.clone(), manifest, entry });
            }
        }
        if hits.len() > 1 {
            let areas: Vec<String> = hits.iter().map(|hit| format!("{}:{}", hit.area, hit.entry.path)).collect();
            return Err(CommandError::usage(format!("`{shown}` is in {} areas of snapshot {short_id}", hits.len()))
                .hint(format!("say which: {}", areas.join(", "))));
        }
        hits.pop().ok_or_else(|| {
            if let Some(area) = &self.area
                && snapshot.area(area).is_none()
            {
                return CommandError::usage(format!("snapshot {short_id} has no area `{area}`"))
                    .hint(format!("`evenkeel show {short_id}` lists its areas"));
            }
            CommandError::usage(format!("no `{shown}` in snapshot {short_id}"))
                .hint(format!("`evenkeel ls {short_id}` lists what is there"))
        })
    }
}

/// What `find` looks for: a path or a pattern, perhaps in one area only.
#[derive(Debug, Clone)]
pub struct PathPattern {
    wanted: SnapshotPath,
}

/// A [`PathPattern`] compiled for one area.
pub struct PathMatcher(Vec<Gitignore>);

impl PathPattern {
    /// Reads `AREA:PATTERN` or `PATTERN`.
    ///
    /// # Errors
    /// A usage error when it is not valid UTF-8 or empty.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let wanted = SnapshotPath::parse(text);
        if wanted.path.is_empty() || std::str::from_utf8(&wanted.path).is_err() {
            return Err(CommandError::usage(format!("`{}` is not a path or pattern", escape(text.as_bytes())))
                .hint("a `?` in a pattern stands for any one byte of a name"));
        }
        Ok(PathPattern { wanted })
    }

    /// The pattern for the area `name` that was at `root` on the master; `None` when it is about another area.
    ///
    /// A pattern that begins with `/` is tried below the master's root and from the area's own.
    ///
    /// # Errors
    /// A usage error naming a pattern that is not valid.
    pub fn in_area(&self, name: &str, root: &[u8]) -> Result<Option<PathMatcher>> {
        if self.wanted.area.as_ref().is_some_and(|area| area != name) {
            return Ok(None);
        }
        let whole = &self.wanted.path[..];
        let mut forms = vec![whole];
        if whole.starts_with(b"/") {
            forms.extend(below(root, whole).filter(|rest| !rest.is_empty() && *rest != whole));
        }
        let compiled: Result<Vec<Gitignore>> = forms.into_iter().map(|form| self.compile(form)).collect();
        Ok(Some(PathMatcher(compiled?)))
    }

    fn compile(&self, form: &[u8]) -> Result<Gitignore> {
        let invalid = |e: ignore::Error| {
            let shown = escape(&self.wanted.path);
            CommandError::caused_by(Kind::Usage, format!("pattern `{shown}` is not valid"), e)
                .hint("patterns are written as in .gitignore")
        };
        // After `AREA:` the path begins at the area's root, whether it says so or not.
        let mut pattern = String::from_utf8_lossy(form).into_owned();
        if self.wanted.area.is_some() && pattern.contains('/') && !pattern.starts_with('/') {
            pattern.insert(0, '/');
        }
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        builder.add_line(None, &pattern).map_err(invalid)?;
        builder.build().map_err(invalid)
    }
}

impl PathMatcher {
    /// Whether the pattern fits this path itself, not only a directory above it.
    pub fn matches(&self, path: &TreePath, is_dir: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        self.0.iter().any(|form| form.matched(path, is_dir).is_ignore())
    }
}

/// An entry with the manifest that it came from.
pub struct FoundEntry<'r> {
    /// Name of its area.
    pub area: String,
    /// Manifest of its area.
    pub manifest: Manifest<'r>,
    /// The entry.
    pub entry: Entry,
}

/// What of `path` lies below `root`; both absolute.
fn below<'p>(root: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = path.strip_prefix(root)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

/// A user's path as one inside an area: slashes at both ends, doubled slashes and `.` mean nothing.
pub fn tree_path(bytes: &[u8]) -> Result<TreePath> {
    let parts: Vec<&[u8]> = bytes.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    TreePath::new(parts.join(&b'/'))
        .map_err(|e| CommandError::caused_by(Kind::Usage, format!("`{}` is not a path in an area", escape(bytes)), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_areas() {
        let parsed = |text: &str| {
            let path = SnapshotPath::parse(OsStr::new(text));
            (path.area, String::from_utf8(path.path).unwrap())
        };
        assert_eq!(parsed("etc:ssh/x"), (Some("etc".into()), "ssh/x".into()));
        assert_eq!(parsed("/a:b"), (None, "/a:b".into()));
        assert_eq!(tree_path(b"//a/./b/").unwrap().as_bytes(), b"a/b");
        assert!(tree_path(b"a/../b").is_err());
        assert_eq!(below(b"/etc", b"/etc/x"), Some(&b"/x"[..]));
        assert_eq!(below(b"/", b"/etc/x"), Some(&b"/etc/x"[..]));
        assert_eq!(below(b"/etc", b"/etcetera"), None);
    }
}
