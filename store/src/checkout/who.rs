// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who changed a path, as far as the file system and the package manager tell.
//!
//! A file system keeps an owner and two times, not a culprit: who owns a file now, when its content was written and when
//! its inode last changed. A package manager says which package the path belongs to and when that was unpacked.
//!
//! Invariant: never fails and never changes anything. What cannot be found out is unknown. Only paths that somebody asks
//! about are looked at, and of these no more than a bound.

mod dpkg;
mod rpm;

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::chain::DirChain;
use crate::format::manifest::Timestamp;
use crate::fsio::{self, Dir, Stat};
use crate::json::TimeField;
use crate::path::{TreePath, escape};

pub(super) use dpkg::names_of;

/// No more paths than this are looked at in one go; what is known of the others is what the caller knows.
pub const WHO_PATHS_MAX: usize = 10_000;
/// A file that changed within so many seconds of its package being unpacked was changed by the package manager: it
/// unpacks all files of a package, then notes that it has.
const UNPACKING_S: i64 = 300;

/// What is known of whoever changed a path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangedBy {
    /// The owner now, and so most likely whoever made it; `None` when nothing is there.
    pub uid: Option<u32>,
    /// The owner's name here, escaped.
    pub user: Option<String>,
    /// When its content was written, or was said to be.
    pub mtime: Option<TimeField>,
    /// When the inode changed last, which nobody but root with a wrong clock can forge.
    pub ctime: Option<TimeField>,
    /// The package that the path belongs to; `None` when that is not known, or there is none.
    pub package: Option<PackageOwner>,
}

/// A package that owns a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageOwner {
    /// Its name, with the architecture where the package manager says so, escaped.
    pub name: String,
    /// When it was last installed or upgraded.
    pub installed: Option<TimeField>,
    /// The path changed when that happened: most likely the package manager did it.
    pub at_that_time: bool,
}

/// Looks for whoever changed paths of one area.
#[derive(Debug, Default)]
pub struct Who {
    users: HashMap<u32, Option<String>>,
}

impl Who {
    /// What an inode tells; of packages nothing yet.
    pub(super) fn of_stat(&mut self, stat: &Stat) -> ChangedBy {
        let name = |uid: u32| fsio::owner_name(uid).ok().flatten().map(|name| escape(&name));
        ChangedBy {
            uid: Some(stat.uid),
            user: self.users.entry(stat.uid).or_insert_with(|| name(stat.uid)).clone(),
            mtime: Some(TimeField(stat.mtime)),
            ctime: Some(TimeField(stat.ctime)),
            package: None,
        }
    }

    /// What is at each of `paths` below `root`, which is the directory `root_path`. One for each path, in that order; all
    /// are unknown beyond [`WHO_PATHS_MAX`].
    pub(super) fn look(&mut self, root: &Dir, root_path: &Path, paths: &[&TreePath]) -> Vec<ChangedBy> {
        let mut chain = DirChain::new(root);
        let mut look = |path: &TreePath| {
            let found = chain.parent(path.as_bytes()).and_then(|(dir, name)| dir.stat_opt(name));
            found.ok().flatten().map(|stat| self.of_stat(&stat)).unwrap_or_default()
        };
        let mut found: Vec<ChangedBy> = paths.iter().take(WHO_PATHS_MAX).map(|path| look(path)).collect();
        found.resize(paths.len(), ChangedBy::default());
        add_packages(root_path, paths, &mut found);
        found
    }
}

/// Adds the packages that own `paths` to what is known of them.
pub(super) fn add_packages(root: &Path, paths: &[&TreePath], known: &mut [ChangedBy]) {
    let paths = &paths[..paths.len().min(WHO_PATHS_MAX)];
    for (owner, known) in owners(root, paths).into_iter().zip(known) {
        known.package = owner.map(|(name, installed)| {
            let is_near = |installed: &Timestamp| {
                known.ctime.is_some_and(|TimeField(ctime)| (ctime.secs - installed.secs).abs() <= UNPACKING_S)
            };
            PackageOwner {
                name,
                installed: installed.map(TimeField),
                at_that_time: installed.as_ref().is_some_and(is_near),
            }
        });
    }
}

/// A package's name, and when it was unpacked.
type Owner = Option<(String, Option<Timestamp>)>;

/// The owner of each path: of a whole system below the area's root by what is there, else by the running system's database.
fn owners(root: &Path, paths: &[&TreePath]) -> Vec<Owner> {
    let inside: Vec<Vec<u8>> = paths.iter().map(|path| [b"/", path.as_bytes()].concat()).collect();
    if let Some(owners) = dpkg::owners(root, &inside) {
        return owners;
    }
    use std::os::unix::ffi::OsStrExt;
    let prefix = root.as_os_str().as_bytes().strip_suffix(b"/").unwrap_or(root.as_os_str().as_bytes());
    let whole: Vec<Vec<u8>> = inside.iter().map(|path| [prefix, path].concat()).collect();
    let of_dpkg = if root == Path::new("/") { None } else { dpkg::owners(Path::new("/"), &whole) };
    of_dpkg.unwrap_or_else(|| rpm::owners(Path::new(rpm::PROGRAM), &whole))
}

/// Who changed `paths` of the area at `root`, in that order.
pub fn who_changed(root: &Path, paths: &[&TreePath]) -> Vec<ChangedBy> {
    let opened = Dir::open(root).and_then(|dir| {
        let path = dir.real_path().map_err(|e| crate::Error::io("look at", root, e))?;
        Ok((dir, path))
    });
    match opened {
        Ok((dir, path)) if !paths.is_empty() => Who::default().look(&dir, &path, paths),
        _ => vec![ChangedBy::default(); paths.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_beside_an_unpacking_is_the_package_managers() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        fsio::create_dir_all(&root.join("var/lib/dpkg/info")).unwrap();
        fsio::create_dir_all(&root.join("etc")).unwrap();
        fsio::publish_file(&root.join("etc/owned"), b"x").unwrap();
        fsio::publish_file(&root.join("etc/own"), b"x").unwrap();
        fsio::publish_file(&root.join("var/lib/dpkg/info/tool.list"), b"/.\n/etc\n/etc/owned\n/etc/gone\n").unwrap();
        let paths = ["etc/owned", "etc/own", "etc/gone", "no/such"].map(|path| TreePath::new(path).unwrap());
        let look = || who_changed(&root, &paths.iter().collect::<Vec<_>>());
        let found = look();
        let package = found[0].package.as_ref().unwrap();
        assert_eq!((package.name.as_str(), package.at_that_time), ("tool", true));
        assert_eq!(found[0].uid, Some(fsio::effective_owner().0));
        assert_eq!((found[1].package.as_ref(), found[1].uid), (None, found[0].uid));
        assert_eq!((found[2].package.as_ref().unwrap().name.as_str(), found[2].uid), ("tool", None));
        assert_eq!(found[3], ChangedBy::default());
        // Long after.
        let info = Dir::open(&root.join("var/lib/dpkg/info")).unwrap();
        info.set_mtime(b"tool.list", Timestamp { secs: 1_600_000_000, nanos: 0 }).unwrap();
        let package = look()[0].package.clone().unwrap();
        assert_eq!((package.at_that_time, package.installed.unwrap().0.secs), (false, 1_600_000_000));
    }
}
