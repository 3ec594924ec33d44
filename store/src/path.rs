// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths inside an area: the one place that decides which byte strings may become a path (format-spec §40.2).

use std::cmp::Ordering;
use std::fmt;

use crate::limits;

/// Why a byte string is not a path inside an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Leading, trailing or doubled separator.
    #[error("empty path component")]
    EmptyComponent,
    /// `.` or `..`.
    #[error("path component `.` or `..`")]
    DotComponent,
    /// A NUL byte.
    #[error("NUL byte in a path")]
    Nul,
    /// A component over [`limits::NAME_BYTES_MAX`].
    #[error("path component longer than {} bytes", limits::NAME_BYTES_MAX)]
    NameTooLong,
    /// A path over [`limits::PATH_BYTES_MAX`].
    #[error("path longer than {} bytes", limits::PATH_BYTES_MAX)]
    PathTooLong,
    /// More than [`limits::PATH_DEPTH_MAX`] components.
    #[error("path deeper than {} components", limits::PATH_DEPTH_MAX)]
    TooDeep,
}

/// Path of an entry relative to its area's root: components joined by `/`; the root is the empty path.
///
/// Ordered by components, each compared bytewise, so a directory sorts directly before everything in it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The area's root.
    pub const fn root() -> Self {
        TreePath(Vec::new())
    }

    /// Checks `bytes` against every rule of format-spec §40.2.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        check(&bytes)?;
        Ok(TreePath(bytes))
    }

    /// This path with one more component.
    ///
    /// # Errors
    /// As [`TreePath::new`]; also when `name` holds a separator.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        check_name(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        if bytes.len() > limits::PATH_BYTES_MAX {
            return Err(PathError::PathTooLong);
        }
        let path = TreePath(bytes);
        if path.depth() > limits::PATH_DEPTH_MAX {
            return Err(PathError::TooDeep);
        }
        Ok(path)
    }

    /// The bytes, separators included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the area's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of components; 0 for the root.
    pub fn depth(&self) -> usize {
        if self.0.is_empty() { 0 } else { 1 + self.0.iter().filter(|&&b| b == b'/').count() }
    }

    /// Everything but the last component; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        self.split_last().map(|(parent, _)| TreePath(parent.to_vec()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.split_last().map_or(&[], |(_, name)| name)
    }

    /// Parent and last component as borrowed bytes; `None` for the root.
    pub fn split_last(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[], &self.0),
        })
    }

    /// The components in order; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &TreePath) -> bool {
        ancestor.is_root()
            || (self.0.starts_with(&ancestor.0)
                && (self.0.len() == ancestor.0.len() || self.0[ancestor.0.len()] == b'/'))
    }
}

/// Compares two paths by components without building any.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    // A separator sorts before every byte of a name, so a directory's content follows it at once.
    let rank = |bytes: &[u8]| match bytes.get(common) {
        None => 0u16,
        Some(b'/') => 1,
        Some(&byte) => u16::from(byte) + 2,
    };
    rank(a).cmp(&rank(b))
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    /// For people: escaped as [`escape`] does; the root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(".") } else { f.write_str(&escape(&self.0)) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escape(&self.0))
    }
}

/// Checks one path component.
///
/// # Errors
/// The first rule that is broken; a separator counts as an empty component.
pub fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        [] => return Err(PathError::EmptyComponent),
        b"." | b".." => return Err(PathError::DotComponent),
        _ => {}
    }
    if name.len() > limits::NAME_BYTES_MAX {
        return Err(PathError::NameTooLong);
    }
    if name.contains(&0) {
        return Err(PathError::Nul);
    }
    if name.contains(&b'/') {
        return Err(PathError::EmptyComponent);
    }
    Ok(())
}

/// Checks a whole path; the empty one is the root and valid.
///
/// # Errors
/// The first rule that is broken.
pub fn check(bytes: &[u8]) -> Result<(), PathError> {
    if bytes.is_empty() {
        return Ok(());
    }
    if bytes.len() > limits::PATH_BYTES_MAX {
        return Err(PathError::PathTooLong);
    }
    let mut depth = 0;
    for name in bytes.split(|&b| b == b'/') {
        check_name(name)?;
        depth += 1;
    }
    if depth > limits::PATH_DEPTH_MAX {
        return Err(PathError::TooDeep);
    }
    Ok(())
}

/// `bytes` as one line of text that cannot move a terminal's cursor: control characters, invalid UTF-8,
/// backslashes and the characters that reorder or hide text become `\n`, `\\`, `\x1b` or `\u{202e}`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\\' => text.push_str("\\\\"),
                c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if c.is_control() || hides_text(c) => text.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
                c => text.push(c),
            }
        }
        for byte in part.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Characters that reorder or hide what follows them: bidirectional controls, zero-width, line and paragraph separators.
fn hides_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules() {
        use PathError::*;
        let long = vec![b'a'; 256];
        let cases: &[(&[u8], Result<(), PathError>)] = &[
            (b"", Ok(())),
            (b"a", Ok(())),
            (b"a/b c/\xff\n", Ok(())),
            (b"...", Ok(())),
            (&long[..255], Ok(())),
            (&long, Err(NameTooLong)),
            (b"/a", Err(EmptyComponent)),
            (b"a/", Err(EmptyComponent)),
            (b"a//b", Err(EmptyComponent)),
            (b".", Err(DotComponent)),
            (b"a/../b", Err(DotComponent)),
            (b"a\0b", Err(Nul)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(check(bytes), *expected, "{}", escape(bytes));
        }
        assert_eq!(check(&b"a/".repeat(511)[..1021]), Ok(()));
        assert_eq!(check(&[&b"a/".repeat(512)[..], b"a"].concat()), Err(TooDeep));
        let long_path = [b"abcdefg/".repeat(512), b"x".to_vec()].concat();
        assert_eq!(check(&long_path), Err(PathTooLong));
    }

    #[test]
    fn a_directory_is_followed_by_its_content() {
        let mut paths: Vec<TreePath> =
            [&b"a-b"[..], b"a/b", b"a", b"", b"a!", b"a/b/c", b"a\x01"].map(|p| TreePath::new(p).unwrap()).to_vec();
        paths.sort();
        let sorted: Vec<&[u8]> = paths.iter().map(TreePath::as_bytes).collect();
        assert_eq!(sorted, [&b""[..], b"a", b"a/b", b"a/b/c", b"a\x01", b"a!", b"a-b"]);
    }

    #[test]
    fn terminal_escapes_are_shown() {
        assert_eq!(escape(b"a\x1b[2Jb\n\\\xff"), "a\\x1b[2Jb\\n\\\\\\xff");
        assert_eq!(escape("x\u{202e}y".as_bytes()), "x\\u{202e}y");
        assert_eq!(escape("größe".as_bytes()), "größe");
    }

    proptest! {
        #[test]
        fn order_is_by_components(a in "[a-c/]{0,8}", b in "[a-c/]{0,8}") {
            let (a, b) = (a.trim_matches('/'), b.trim_matches('/'));
            prop_assume!(check(a.as_bytes()).is_ok() && check(b.as_bytes()).is_ok());
            let components = |p: &str| TreePath::new(p).unwrap().components().map(<[u8]>::to_vec).collect::<Vec<_>>();
            prop_assert_eq!(compare(a.as_bytes(), b.as_bytes()), components(a).cmp(&components(b)));
        }
    }
}
