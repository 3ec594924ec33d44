// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rules about the source tree itself that no compiler checks: licence lines, links between documents, the direction
//! of dependencies inside `store`, and the number of packages we depend on.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::shell::{Cmd, workspace};

/// A dependency earns its place; raising this is a decision, not an accident.
const PACKAGES_MAX: usize = 400;

const SPDX: &str = "SPDX-License-Identifier: Apache-2.0 OR MIT";

/// Layers of `store/src`, lowest first: a module uses its own layer and those below. `lib.rs` sees all of them.
const LAYERS: &[&[&str]] = &[
    &["id", "limits", "path", "progress"],
    &["error", "format", "fsio"],
    &["chunk", "hash", "compress", "area", "walk", "inode", "backend", "files_cache"],
    &["pack", "segment", "locator", "store", "read", "fetch"],
    &["manifest", "catalog"],
    &["commit", "checkout", "check", "testing"],
    &["copy"],
];

/// Checks everything and names every violation.
///
/// # Errors
/// At least one rule is broken.
pub fn check() -> Result<String> {
    let top = workspace();
    let mut files = Vec::new();
    collect(&top, &mut files).map_err(|error| format!("cannot list {}: {error}", top.display()))?;
    let mut broken = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&top).expect("the walk began there").display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
        if needs_licence_line(file) && !text.lines().take(2).any(|line| line.contains(SPDX)) {
            broken.push(format!("{name}: no line '{SPDX}' at the top"));
        }
        if name.ends_with(".md") {
            broken.extend(dead_links(file, &text).map(|link| format!("{name}: no file behind the link {link}")));
        }
        if let Some(inside) = name.strip_prefix("store/src/") {
            broken.extend(upward_uses(inside, &text).map(|used| format!("{name}: uses crate::{used}, a layer above")));
            broken
                .extend(calls_beside_the_seam(inside, &text).map(|call| format!("{name}: calls {call}, not fsio/sys")));
        }
        if name == "Cargo.lock" {
            let packages = text.lines().filter(|line| *line == "[[package]]").count();
            if packages > PACKAGES_MAX {
                broken.push(format!("Cargo.lock: {packages} packages, at most {PACKAGES_MAX} are allowed"));
            }
        }
    }
    if program_has_faults()? {
        broken.push("cli/Cargo.toml: the program is built with the store's feature `faults`".to_owned());
    }
    if broken.is_empty() {
        return Ok(format!("{} files", files.len()));
    }
    broken.iter().for_each(|line| eprintln!("{line}"));
    Err(format!("{} violations, first: {}", broken.len(), broken[0]))
}

/// Text files of the tree, without build output and version control.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git", "corpus", "artifacts", "vectors", "reject", ".venv"].contains(&name.as_str()) {
                collect(&path, files)?;
            }
        } else if needs_licence_line(&path) || name.ends_with(".md") || name == "Cargo.lock" {
            files.push(path);
        }
    }
    Ok(())
}

fn needs_licence_line(file: &Path) -> bool {
    file.extension().is_some_and(|kind| kind == "rs" || kind == "py")
}

/// Relative links `[text](target)` of a document whose target does not exist.
fn dead_links<'a>(file: &'a Path, text: &'a str) -> impl Iterator<Item = &'a str> {
    let base = file.parent().unwrap_or(file);
    let outside_code = text.split("```").step_by(2);
    let targets = outside_code.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    targets.filter(move |target| {
        let path = target.split('#').next().unwrap_or_default();
        let local = !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:");
        local && !base.join(path).exists()
    })
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Modules of a higher layer that `file` (relative to `store/src`) uses.
fn upward_uses<'a>(file: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let own = file.split(['/', '.']).next().and_then(layer_of);
    // Tests may build on whatever they like.
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let used = code.flat_map(|line| line.split("crate::").skip(1)).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest.get(..end)
    });
    used.filter(move |module| matches!((own, layer_of(module)), (Some(own), Some(theirs)) if theirs > own))
}

/// System calls that a file of `store/src` makes, or names to make them, without going through the functions that tests can
/// make fail.
fn calls_beside_the_seam<'a>(file: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    /// No calls, though named as if they were.
    const NONE: [&str; 4] = ["rustix::fs::makedev", "rustix::io::Errno", "major", "minor"];
    let is_seam = ["fsio/sys.rs", "fsio/script.rs"].contains(&file);
    let code = text.split("#[cfg(test)]").next().filter(|_| !is_seam).unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let modules = ["rustix::fs::", "rustix::io::"];
    let calls = code.flat_map(move |line| {
        modules.into_iter().flat_map(move |module| {
            line.match_indices(module).filter_map(move |(at, _)| {
                let len = line[at + module.len()..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
                let is_call = line[at + module.len() + len..].starts_with('(');
                line.get(at..at + module.len() + len).filter(|_| is_call)
            })
        })
    });
    let code = text.split("#[cfg(test)]").next().filter(|_| !is_seam).unwrap_or_default();
    calls.chain(imported(code, modules)).filter(|call| !NONE.contains(call))
}

/// Functions that `use` brings in from some modules: all that begins with a small letter.
fn imported<'a>(code: &'a str, modules: [&'static str; 2]) -> impl Iterator<Item = &'a str> {
    let imports = modules.into_iter().flat_map(move |module| {
        code.split("use ").filter_map(move |after| after.strip_prefix(module)?.split(';').next())
    });
    let names = imports.flat_map(|list| list.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()) && *name != "as")
}

/// Whether the program that is shipped could be told to fail: the feature is for the tests' crate alone.
fn program_has_faults() -> Result<bool> {
    let args = ["tree", "--package", "evenkeel", "--edges", "features,no-dev", "--invert", "evenkeel-store"];
    Ok(Cmd::cargo().args(args).read()?.contains("\"faults\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_of_a_layer_above_is_found() {
        let text =
            "use crate::format::pack;\nuse crate::commit::commit;\n// crate::checkout\n#[cfg(test)]\nuse crate::check;";
        assert_eq!(upward_uses("format/pack.rs", text).collect::<Vec<_>>(), ["commit"]);
        assert_eq!(upward_uses("commit/mod.rs", text).count(), 0);
        assert_eq!(upward_uses("lib.rs", text).count(), 0);
    }

    #[test]
    fn a_call_beside_the_seam_is_found() {
        let text = "let x = rustix::fs::fsync(&fd)?;\nuse rustix::fs::{Mode, OFlags};\nrustix::fs::RawDir::new(fd, b);";
        assert_eq!(calls_beside_the_seam("fsio/dir.rs", text).collect::<Vec<_>>(), ["rustix::fs::fsync"]);
        assert_eq!(calls_beside_the_seam("fsio/sys.rs", text).count(), 0);
        let text = "use rustix::fs::{\n    AtFlags, openat,\n};\nuse rustix::io::{Errno, pread as read};\nfsync(&fd);";
        assert_eq!(calls_beside_the_seam("fsio/dir.rs", text).collect::<Vec<_>>(), ["openat", "pread", "read"]);
    }

    #[test]
    fn links_to_other_sites_and_in_code_are_not_files() {
        let text = "[a](https://x.y) [b](#part) [c](no-such.md) ```\n[d](none.md)\n``` [e](Cargo.toml#x)";
        let file = workspace().join("README.md");
        assert_eq!(dead_links(&file, text).collect::<Vec<_>>(), ["no-such.md"]);
    }
}
