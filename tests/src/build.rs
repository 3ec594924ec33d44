// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trees made by hand.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// A directory that tests fill. All paths are relative to it.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

/// Anything that names a path: text, or bytes for names that are no text.
pub trait AsName {
    fn as_name(&self) -> &OsStr;
}

impl AsName for str {
    fn as_name(&self) -> &OsStr {
        OsStr::new(self)
    }
}

impl AsName for [u8] {
    fn as_name(&self) -> &OsStr {
        OsStr::from_bytes(self)
    }
}

impl<T: AsName + ?Sized> AsName for &T {
    fn as_name(&self) -> &OsStr {
        (**self).as_name()
    }
}

impl AsName for String {
    fn as_name(&self) -> &OsStr {
        OsStr::new(self)
    }
}

impl AsName for Vec<u8> {
    fn as_name(&self) -> &OsStr {
        OsStr::from_bytes(self)
    }
}

impl Tree {
    /// Makes the directory if need be.
    pub fn new(root: impl Into<PathBuf>) -> Tree {
        let root = root.into();
        std::fs::create_dir_all(&root).unwrap();
        Tree { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, name: impl AsName) -> PathBuf {
        self.root.join(name.as_name())
    }

    /// A file with its directories. An old file is replaced in place.
    pub fn file(&self, name: impl AsName, content: impl AsRef<[u8]>) -> &Tree {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub fn dir(&self, name: impl AsName) -> &Tree {
        std::fs::create_dir_all(self.path(name)).unwrap();
        self
    }

    pub fn symlink(&self, name: impl AsName, target: impl AsName) -> &Tree {
        std::os::unix::fs::symlink(target.as_name(), self.path(name)).unwrap();
        self
    }

    /// One more name for a file.
    pub fn link(&self, old: impl AsName, new: impl AsName) -> &Tree {
        std::fs::hard_link(self.path(old), self.path(new)).unwrap();
        self
    }

    pub fn fifo(&self, name: impl AsName) -> &Tree {
        self.node(name, FileType::Fifo, 0)
    }

    /// A device node; needs root.
    pub fn device(&self, name: impl AsName, major: u32, minor: u32) -> &Tree {
        self.node(name, FileType::CharacterDevice, rustix::fs::makedev(major, minor))
    }

    fn node(&self, name: impl AsName, kind: FileType, device: u64) -> &Tree {
        rustix::fs::mknodat(CWD, self.path(name), kind, Mode::from_raw_mode(0o644), device).unwrap();
        self
    }

    /// A file of `size` bytes with data at the given offsets and holes elsewhere.
    pub fn sparse(&self, name: impl AsName, size: u64, data: &[(u64, &[u8])]) -> &Tree {
        let file = std::fs::File::create(self.path(name)).unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in data {
            file.write_all_at(bytes, *offset).unwrap();
        }
        self
    }

    pub fn mode(&self, name: impl AsName, mode: u32) -> &Tree {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Needs root.
    pub fn owner(&self, name: impl AsName, uid: u32, gid: u32) -> &Tree {
        std::os::unix::fs::lchown(self.path(name), Some(uid), Some(gid)).unwrap();
        self
    }

    /// Sets the modification time, of a symlink itself.
    pub fn mtime(&self, name: impl AsName, secs: i64, nanos: u32) -> &Tree {
        let time = Timespec { tv_sec: secs, tv_nsec: nanos.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, self.path(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self
    }

    pub fn xattr(&self, name: impl AsName, key: &str, value: &[u8]) -> &Tree {
        rustix::fs::lsetxattr(self.path(name), key, value, XattrFlags::empty()).unwrap();
        self
    }

    pub fn rename(&self, old: impl AsName, new: impl AsName) -> &Tree {
        std::fs::rename(self.path(old), self.path(new)).unwrap();
        self
    }

    /// Removes a file or a whole directory.
    pub fn remove(&self, name: impl AsName) -> &Tree {
        let path = self.path(name);
        if std::fs::symlink_metadata(&path).unwrap().is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        self
    }

    /// A little of everything that needs no privilege.
    pub fn sample(&self) -> &Tree {
        self.file("etc/hosts.allow", "sshd: 10.0.0.0/8\n")
            .file("etc/empty", "")
            .file("usr/bin/tool", crate::noise(1, 300_000))
            .file("usr/lib/liba.so.1", crate::noise(2, 70_000))
            .file("usr/share/text", b"all work and no play\n".repeat(4000))
            .dir("var/empty/deep")
            .symlink("usr/lib/liba.so", "liba.so.1")
            .symlink("etc/dangling", "../nowhere")
            .link("usr/bin/tool", "usr/bin/tool-2")
            .sparse("var/sparse", 1 << 20, &[(4096, b"begin"), (700_000, b"middle")])
            .mode("usr/bin/tool", 0o755)
            .mode("var/empty", 0o1777)
            .mtime("etc/empty", -1, 999_999_999)
            .mtime("usr/lib/liba.so", 1_000_000_000, 7)
            .mtime("usr/bin", 4_294_967_296, 1)
    }
}
