// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The format's vectors are what `store` writes today: regenerate them in place and compare with what stood there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Outcome;
use crate::Result;
use crate::shell::{Cmd, workspace};

/// Folders that the generator writes.
const GENERATED: [&str; 2] = ["format-spec/vectors", "format-spec/reject"];

/// Runs the generator; any file added, removed or changed by it is a failure, and stays for `git diff` to show.
pub fn unchanged() -> Outcome {
    compare().into()
}

fn compare() -> Result<String> {
    let before = contents()?;
    Cmd::cargo().args(["run", "--quiet", "--package", "evenkeel-store", "--example", "vectors"]).run()?;
    let after = contents()?;
    let changed: Vec<String> = before
        .keys()
        .chain(after.keys().filter(|path| !before.contains_key(*path)))
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| path.display().to_string())
        .collect();
    if changed.is_empty() {
        return Ok(format!("{} files", after.len()));
    }
    changed.iter().for_each(|path| eprintln!("changed: {path}"));
    Err(format!("{} files changed, {} first", changed.len(), changed[0]))
}

fn contents() -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for folder in GENERATED {
        read_into(&workspace().join(folder), &mut found).map_err(|error| format!("cannot read {folder}: {error}"))?;
    }
    Ok(found)
}

fn read_into(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read_into(&path, found)?;
        } else {
            let bytes = std::fs::read(&path)?;
            found.insert(path, bytes);
        }
    }
    Ok(())
}
