// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which paths name an object of a store (format-spec §10.2). Everything else does not exist.
//!
//! Invariant: pure; a path that is taken has no component that is empty or begins with a dot, and no escape.

/// How long an answer may be kept by whoever got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// The name holds the hash of the bytes.
    Forever,
    /// The bytes may be others tomorrow.
    AskAgain,
}

/// The object that the path of a request means, without the slash at its beginning; `None` for what is no object.
pub fn object(target: &str) -> Option<(&str, Lasting)> {
    let name = target.strip_prefix('/')?;
    let mut parts = name.split('/');
    let first = parts.next()?;
    let rest: Vec<&str> = parts.take(3).collect();
    let lasting = match (first, rest.as_slice()) {
        ("format", []) | ("segments", ["current"]) | ("snapshots", ["index"]) => Lasting::AskAgain,
        ("packs", [folder, file]) => {
            let id = file.strip_suffix(".pack").filter(|id| is_id(id))?;
            id.starts_with(folder).then_some(()).filter(|()| folder.len() == 2)?;
            Lasting::Forever
        }
        ("segments", [file]) if file.strip_suffix(".seg").is_some_and(is_id) => Lasting::Forever,
        ("snapshots", [id]) if is_id(id) => Lasting::Forever,
        ("deltas", [id]) if is_id(id) => Lasting::Forever,
        ("locators", [id]) | ("deltas", [id, "index"]) if is_id(id) => Lasting::AskAgain,
        _ => return None,
    };
    Some((name, lasting))
}

/// 64 hexadecimal digits, small letters.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_specification_and_no_others() {
        let id = "ab".repeat(32);
        let lasting = |path: &str| object(path).map(|(_, lasting)| lasting);
        for path in ["/format", "/segments/current", "/snapshots/index"] {
            assert_eq!(lasting(path), Some(Lasting::AskAgain), "{path}");
        }
        assert_eq!(lasting(&format!("/locators/{id}")), Some(Lasting::AskAgain));
        assert_eq!(lasting(&format!("/deltas/{id}/index")), Some(Lasting::AskAgain));
        for path in ["/packs/ab/ID.pack", "/segments/ID.seg", "/snapshots/ID", "/deltas/ID"] {
            assert_eq!(lasting(&path.replace("ID", &id)), Some(Lasting::Forever), "{path}");
        }
        for path in [
            "",
            "/",
            "format",
            "//format",
            "/format/",
            "/./format",
            "/../format",
            "/%66ormat",
            "/format?x",
            "/format#",
            "/format\0",
            "/packs",
            "/packs/",
            "/packs/ab",
            "/packs/ab/",
            "/packs/ac/ID.pack",
            "/packs//ID.pack",
            "/packs/a/ID.pack",
            "/packs/ab/ID",
            "/packs/ab/ID.pack/",
            "/packs/ab/ID.pack/x",
            "/segments/ID",
            "/segments/tmp-1",
            "/snapshots/ID/",
            "/snapshots/IDa",
            "/tmp/x",
            "/lock",
            "/policy/ID",
            "/heads/ID",
            "/deltas/ID/index/x",
            "/deltas/ID/",
            "/locators/../format",
            "/http://x/format",
        ] {
            assert_eq!(lasting(&path.replace("ID", &id)), None, "{path}");
        }
        assert_eq!(lasting(&format!("/snapshots/{}", "AB".repeat(32))), None);
    }
}
