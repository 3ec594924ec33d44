// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The lock of the package manager, held while files are switched that it may have delivered.
//!
//! A package manager that works on a tree in the middle of a switch would find half of each. The lock is its own, taken as
//! it takes it: `fcntl` write locks, dpkg's front end first. Its file is never created: where there is none, there is no
//! package manager.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::options::AreaTarget;
use super::who::names_of;
use crate::error::{Error, Result};
use crate::fsio::{self, Dir, RecordLock, TriedLock};
use crate::progress::Progress;

/// How long the lock of a package manager is waited for, in seconds, unless something else is asked for.
pub const WAIT_PACKAGES_S: u64 = 60;
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// Where packages put nothing, or nothing but directories.
const WITHOUT_PACKAGES: [&str; 8] = ["home", "media", "mnt", "root", "run", "srv", "tmp", "var/tmp"];

/// A package manager's database.
struct Database {
    name: &'static str,
    /// Phase of an operation that waits for it.
    waiting: &'static str,
    /// Below the root of a system.
    dir: &'static str,
    /// In the order in which they are taken.
    locks: &'static [&'static str],
    /// Directory of lists of the paths that packages own, if there is one.
    lists: Option<&'static str>,
}

const DATABASES: [Database; 3] = [
    Database {
        name: "dpkg",
        waiting: "waiting for dpkg",
        dir: "var/lib/dpkg",
        locks: &["lock-frontend", "lock"],
        lists: Some("info"),
    },
    rpm("usr/lib/sysimage/rpm"),
    rpm("var/lib/rpm"),
];

const fn rpm(dir: &'static str) -> Database {
    Database { name: "rpm", waiting: "waiting for rpm", dir, locks: &[".rpm.lock"], lists: None }
}

/// Locks of package managers, held until this is dropped.
#[derive(Debug, Default)]
pub(super) struct PackageLocks {
    /// The directory of each database, with its locks.
    held: Vec<(PathBuf, Vec<RecordLock>)>,
}

impl PackageLocks {
    /// Takes the locks of every package manager that may have files in the area at `root`. Gives whether it had to wait
    /// for one: what was looked at before may have changed.
    ///
    /// # Errors
    /// [`Error::PackagesLocked`] when another process still holds one after the time of `target`; [`Error::Io`].
    pub(super) fn take(&mut self, target: &AreaTarget, root: &Path, progress: &Progress) -> Result<bool> {
        let mut waited = false;
        let systems = [root, Path::new("/")];
        let both = if root == systems[1] { &systems[1..] } else { &systems[..] };
        for system in both {
            for database in &DATABASES {
                let Some(dir) = database.below(system)? else { continue };
                let is_concerned = *system == root || database.has_files_in(&dir, root)?;
                if is_concerned && self.held.iter().all(|(held, _)| held != dir.path()) {
                    let deadline = Instant::now() + Duration::from_secs(target.wait_packages_s);
                    let locks = database.lock(&dir, deadline, target, &mut waited, progress)?;
                    self.held.push((dir.path().to_path_buf(), locks));
                }
            }
        }
        Ok(waited)
    }
}

impl Database {
    /// Its directory in the system at `root`; `None` where there is none, or a symlink leads out of it.
    fn below(&self, root: &Path) -> Result<Option<Dir>> {
        let path = match fsio::canonicalize(&root.join(self.dir)) {
            Err(Error::Io { source, .. }) if is_absent(&source) => return Ok(None),
            path => path?,
        };
        if !path.starts_with(root) {
            return Ok(None);
        }
        match Dir::open(&path) {
            Err(Error::Io { source, .. }) if is_absent(&source) => Ok(None),
            dir => dir.map(Some),
        }
    }

    /// Whether packages of the running system own the directory `root`, and so may own what is in it.
    fn has_files_in(&self, dir: &Dir, root: &Path) -> Result<bool> {
        use std::os::unix::ffi::OsStrExt;
        let Some(lists) = self.lists else {
            let inside = root.strip_prefix("/").unwrap_or(root);
            return Ok(!WITHOUT_PACKAGES.iter().any(|place| inside.starts_with(place)));
        };
        let failed = |e| Error::io("read the package lists in", dir.path_of(lists.as_bytes()), e);
        let lists = match dir.open_dir(lists.as_bytes()) {
            Err(e) if is_absent(&e) => return Ok(false),
            lists => lists.map_err(failed)?,
        };
        let wanted = names_of(root.as_os_str().as_bytes());
        for name in lists.names().map_err(failed)?.iter().filter(|name| name.ends_with(b".list")) {
            let mut content = Vec::new();
            let file = std::fs::File::from(lists.open_file(name).map_err(failed)?);
            file.take(LIST_BYTES_MAX).read_to_end(&mut content).map_err(failed)?;
            if content.split(|b| *b == b'\n').any(|line| wanted.iter().any(|name| name == line)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn lock(
        &self,
        dir: &Dir,
        deadline: Instant,
        target: &AreaTarget,
        waited: &mut bool,
        progress: &Progress,
    ) -> Result<Vec<RecordLock>> {
        let mut locks = Vec::new();
        for name in self.locks {
            loop {
                let tried = RecordLock::try_take(dir, Path::new(name));
                let holder = match tried.map_err(|e| Error::io("lock", dir.path_of(name.as_bytes()), e))? {
                    TriedLock::None => break,
                    TriedLock::Held(lock) => {
                        locks.push(lock);
                        break;
                    }
                    TriedLock::Busy(holder) => holder,
                };
                if Instant::now() >= deadline {
                    let (program, path) = (self.name, dir.path_of(name.as_bytes()));
                    return Err(Error::PackagesLocked { program, path, holder, waited_s: target.wait_packages_s });
                }
                if !std::mem::replace(waited, true) {
                    progress.start(self.waiting, 0, 0);
                }
                progress.check_cancelled()?;
                std::thread::sleep(PAUSE);
            }
        }
        Ok(locks)
    }
}

/// Longest list of one package's files that is read, in bytes.
const LIST_BYTES_MAX: u64 = 64 << 20;

fn is_absent(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    // Who may not even look there does not change what a package manager delivered.
    matches!(e.kind(), NotFound | NotADirectory | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(root: &Path, wait_packages_s: u64) -> AreaTarget {
        AreaTarget { wait_packages_s, ..AreaTarget::new("a", root) }
    }

    #[test]
    fn the_locks_of_a_system_in_the_area() {
        let temp = tempfile::tempdir().unwrap();
        let root = fsio::canonicalize(temp.path()).unwrap();
        let progress = Progress::default();
        let mut first = PackageLocks::default();
        assert!(!first.take(&target(&root, 0), &root, &progress).unwrap());
        assert!(first.held.is_empty() && fsio::list_dir(&root).unwrap().is_empty(), "nothing is created");
        std::fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
        for name in ["lock-frontend", "lock"] {
            std::fs::write(root.join("var/lib/dpkg").join(name), "").unwrap();
        }
        assert!(!first.take(&target(&root, 0), &root, &progress).unwrap());
        assert_eq!(first.held[0].1.len(), 2);
        assert!(!first.take(&target(&root, 0), &root, &progress).unwrap(), "what is held already is not waited for");
        let refused = PackageLocks::default().take(&target(&root, 0), &root, &progress).unwrap_err();
        assert!(matches!(&refused, Error::PackagesLocked { program: "dpkg", .. }), "{refused}");
        let releasing = std::thread::spawn(move || {
            std::thread::sleep(2 * PAUSE);
            drop(first);
        });
        assert!(PackageLocks::default().take(&target(&root, 100), &root, &progress).unwrap(), "it waited");
        releasing.join().unwrap();
    }

    #[test]
    fn packages_of_the_running_system() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("info")).unwrap();
        std::fs::write(temp.path().join("info/base.list"), "/.\n/etc\n/etc/issue\n/lib/modprobe.d\n/sbin\n/tmp\n")
            .unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        // With merged directories an area is where it really is, and dpkg lists the name before the merge.
        for (root, owned) in [
            ("/etc", true),
            ("/tmp", true),
            ("/usr/lib/modprobe.d", true),
            ("/usr/sbin", true),
            ("/tmp/x", false),
            ("/et", false),
            ("/usr/etc", false),
            ("/srv/app", false),
        ] {
            assert_eq!(DATABASES[0].has_files_in(&dir, Path::new(root)).unwrap(), owned, "{root}");
        }
        for (root, owned) in [("/usr", true), ("/opt/app", true), ("/srv/app", false), ("/var/tmp/x", false)] {
            assert_eq!(rpm("").has_files_in(&dir, Path::new(root)).unwrap(), owned, "{root}");
        }
    }
}
