// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that a package manager owns, committed without its database: a server that gets them has packages that it does
//! not know of, and its next upgrade undoes the checkout.

use std::path::Path;

use super::OpenArea;
use crate::area::{RuleSet, Verdict};
use crate::error::Result;
use crate::fsio;
use crate::path::TreePath;

/// Where dpkg keeps what it knows, and in it a list of files for each package.
const DPKG: &str = "/var/lib/dpkg";
/// Longest file list that is read, in bytes.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// One line for each area that holds package-owned files while no area holds the package database.
pub(super) fn warnings(areas: &[OpenArea]) -> Result<Vec<String>> {
    let info = Path::new(DPKG).join("info");
    if !fsio::exists(&info)? || areas.iter().any(holds_database) {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    for area in areas {
        if let Some(package) = owner_of_something_below(&info, &area.root)? {
            warnings.push(format!(
                "area `{}` holds files of packages (of `{package}`, for one), but {DPKG} is in no area: \
                 a server's package manager will not know what it got",
                area.spec.name
            ));
        }
    }
    Ok(warnings)
}

fn holds_database(area: &OpenArea) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(inside) = Path::new(DPKG).strip_prefix(&area.root) else { return false };
    let Ok(rules) = RuleSet::new(&area.spec.rules, Vec::new()) else { return false };
    TreePath::new(inside.as_os_str().as_bytes()).is_ok_and(|path| rules.verdict(&path, true) == Verdict::In)
}

/// The first package whose file list names something below `root`.
fn owner_of_something_below(info: &Path, root: &Path) -> Result<Option<String>> {
    use std::os::unix::ffi::OsStrExt;
    let prefix = [root.as_os_str().as_bytes(), if root == Path::new("/") { b"" } else { b"/" }].concat();
    for name in fsio::list_dir(info)? {
        let Some(package) = name.strip_suffix(b".list") else { continue };
        let list = fsio::read_capped(&info.join(std::ffi::OsStr::from_bytes(&name)), LIST_BYTES_MAX)?;
        if list.split(|&b| b == b'\n').any(|line| line.starts_with(&prefix)) {
            return Ok(Some(crate::path::escape(package)));
        }
    }
    Ok(None)
}
