// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `statx` says of an inode, in this program's own words.

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;

use super::sys;
use crate::format::manifest::Timestamp;

/// Kind of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Socket.
    Socket,
}

impl FileType {
    /// One word, for programs.
    pub fn name(self) -> &'static str {
        match self {
            FileType::File => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            FileType::Fifo => "fifo",
            FileType::CharDevice => "char-device",
            FileType::BlockDevice => "block-device",
            FileType::Socket => "socket",
        }
    }

    /// What it is, for a sentence.
    pub fn words(self) -> &'static str {
        match self {
            FileType::File => "a regular file",
            FileType::Directory => "a directory",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a named pipe",
            FileType::CharDevice | FileType::BlockDevice => "a device",
            FileType::Socket => "a socket",
        }
    }
}

/// One inode's metadata at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Kind.
    pub file_type: FileType,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Apparent size in bytes.
    pub size: u64,
    /// Bytes the file system allocated.
    pub allocated: u64,
    /// Content modification time.
    pub mtime: Timestamp,
    /// Inode change time.
    pub ctime: Timestamp,
    /// When the inode was made, where the file system says so: it tells an inode from a later one with its number.
    pub born: Option<Timestamp>,
    /// Inode number.
    pub ino: u64,
    /// Number of names.
    pub nlink: u32,
    /// File system's device number.
    pub dev: (u32, u32),
    /// Device number of a device node.
    pub rdev: (u32, u32),
    /// Whether this is the root of a mount (also of a bind mount on the same device). Of one that lets nobody look at it
    /// only this and the device number are known.
    pub is_mount_root: bool,
}

/// What is asked for; more where the kernel knows it anyway.
const LOOKED_AT: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

impl Stat {
    pub(super) fn of_name(dir: impl AsFd, name: &[u8]) -> std::io::Result<Stat> {
        Stat::of_name_with(dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn of_name_with(dir: impl AsFd, name: &[u8], flags: AtFlags) -> std::io::Result<Stat> {
        let flags = flags | AtFlags::NO_AUTOMOUNT;
        match sys::statx(&dir, name, flags, LOOKED_AT) {
            Ok(found) => Ok(Stat::from_statx(&found)),
            Err(e @ Errno::NOENT) => Err(e.into()),
            Err(e) => Stat::of_closed_mount(dir, name, flags).ok_or_else(|| e.into()),
        }
    }

    /// What a user has mounted with FUSE does not even let root look at it, nor anybody when its server is gone. The kernel
    /// answers all the same who asks for nothing but what it knows itself.
    fn of_closed_mount(dir: impl AsFd, name: &[u8], flags: AtFlags) -> Option<Stat> {
        let found = sys::statx(dir, name, flags | AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).ok()?;
        let stat = Stat { file_type: FileType::Directory, ..Stat::from_statx(&found) };
        stat.is_mount_root.then_some(stat)
    }

    /// Of an open descriptor.
    ///
    /// # Errors
    /// What `statx` says.
    pub fn of_fd(fd: impl AsFd) -> std::io::Result<Stat> {
        let found = sys::statx(fd, c"", AtFlags::EMPTY_PATH, LOOKED_AT)?;
        Ok(Stat::from_statx(&found))
    }

    fn from_statx(found: &Statx) -> Stat {
        use rustix::fs::FileType as Raw;
        let mode = u32::from(found.stx_mode);
        let file_type = match Raw::from_raw_mode(mode) {
            Raw::Directory => FileType::Directory,
            Raw::Symlink => FileType::Symlink,
            Raw::Fifo => FileType::Fifo,
            Raw::CharacterDevice => FileType::CharDevice,
            Raw::BlockDevice => FileType::BlockDevice,
            Raw::Socket => FileType::Socket,
            _ => FileType::File,
        };
        let time = |t: rustix::fs::StatxTimestamp| Timestamp { secs: t.tv_sec, nanos: t.tv_nsec };
        let has_born = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        Stat {
            file_type,
            mode: found.stx_mode & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            size: found.stx_size,
            allocated: found.stx_blocks.saturating_mul(512),
            mtime: time(found.stx_mtime),
            ctime: time(found.stx_ctime),
            born: has_born.then(|| time(found.stx_btime)),
            ino: found.stx_ino,
            nlink: found.stx_nlink,
            dev: (found.stx_dev_major, found.stx_dev_minor),
            rdev: (found.stx_rdev_major, found.stx_rdev_minor),
            is_mount_root: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// Whether nothing that a writer would touch differs: the same inode, size and times.
    pub fn same_content_as(&self, other: &Stat) -> bool {
        self.ino == other.ino
            && self.dev == other.dev
            && self.size == other.size
            && self.mtime == other.mtime
            && self.ctime == other.ctime
    }
}
