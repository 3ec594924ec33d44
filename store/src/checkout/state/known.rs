// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which areas the state directory remembers, and where each was last.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{TEXT_BYTES_MAX, read_marker};
use crate::checkout::options::AreaTarget;
use crate::error::{Error, Result};
use crate::fsio::{self, Dir};

/// Name of the file in an area's place in the state directory.
pub(super) const AREA: &str = "area";

/// State directory of the area that was last seen at `root`.
pub(super) fn known_area(state_dir: &Path, root: &Path) -> Result<Option<PathBuf>> {
    Ok(remembered(state_dir)?.into_iter().find(|known| known.root == root).map(|known| known.dir))
}

/// The areas that were checked out here, by name: what the state directory remembers.
///
/// # Errors
/// [`Error::Refused`] when what is remembered of one cannot be understood; [`Error::Io`].
pub fn known_areas(state_dir: &Path) -> Result<Vec<AreaTarget>> {
    let mut areas = Vec::new();
    for found in look_up(state_dir)? {
        areas.push(Remembered::target(found.map_err(|file| Error::Refused {
            reason: format!("{} cannot be understood", file.display()),
            hint: Some("name the area and its root with --area; the next checkout there writes it anew".into()),
        })?));
    }
    areas.sort_by(|a, b| (&a.name, &a.root).cmp(&(&b.name, &b.root)));
    Ok(areas)
}

/// Whether something was checked out to `root`: there is a marker.
pub fn is_area(root: &Path) -> bool {
    Dir::open(root).is_ok_and(|root| !matches!(read_marker(&root), Ok(None)))
}

/// Of these, the ones that still are there: their root has a marker.
pub(in crate::checkout) fn live_areas(state_dir: &Path) -> Result<Vec<AreaTarget>> {
    let mut areas: Vec<AreaTarget> = remembered(state_dir)?.into_iter().map(Remembered::target).collect();
    areas.retain(|area| Dir::open(&area.root).is_ok_and(|root| read_marker(&root).is_ok_and(|found| found.is_some())));
    Ok(areas)
}

/// An area as the state directory remembers it.
pub(super) struct Remembered {
    pub(super) dir: PathBuf,
    name: String,
    pub(super) root: PathBuf,
}

impl Remembered {
    fn target(self) -> AreaTarget {
        AreaTarget::new(self.name, self.root)
    }

    /// The name, a newline, the root's path.
    pub(super) fn encode(name: &str, root: &Path) -> Vec<u8> {
        [name.as_bytes(), b"\n", root.as_os_str().as_bytes()].concat()
    }

    fn decode(dir: PathBuf, bytes: &[u8]) -> Option<Remembered> {
        let at = bytes.iter().position(|&b| b == b'\n')?;
        let name = std::str::from_utf8(&bytes[..at]).ok()?.to_owned();
        Some(Remembered { dir, name, root: OsStr::from_bytes(&bytes[at + 1..]).into() })
    }
}

/// Of what cannot be understood nothing is known.
pub(super) fn remembered(state_dir: &Path) -> Result<Vec<Remembered>> {
    Ok(look_up(state_dir)?.into_iter().filter_map(std::result::Result::ok).collect())
}

/// Each area that is remembered, or the file that cannot be understood.
fn look_up(state_dir: &Path) -> Result<Vec<std::result::Result<Remembered, PathBuf>>> {
    let areas = state_dir.join("areas");
    if !fsio::exists(&areas)? {
        return Ok(Vec::new());
    }
    let mut known = Vec::new();
    for name in fsio::list_dir(&areas)? {
        let dir = areas.join(OsStr::from_bytes(&name));
        let file = dir.join(AREA);
        if fsio::exists(&file)? {
            known.push(Remembered::decode(dir, &fsio::read_capped(&file, TEXT_BYTES_MAX)?).ok_or(file));
        }
    }
    Ok(known)
}
