// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Metadata onto inodes that were just made in a private directory, or that are changed in place.
//!
//! The order is fixed by the kernel: a change of owner clears set-id bits and capabilities, and a write clears
//! capabilities, so it is content → owner → mode → ACL → attributes → times → flags.

use std::io;
use std::os::fd::AsFd;

use super::compare::file_type;
use super::journal::Meta;
use crate::format::manifest::{Inode, InodeFlags, InodeKind};
use crate::fsio::{self, ACL_ACCESS, ACL_DEFAULT, Dir, FdAttrs, NameAttrs, Stat};

/// What a new inode of this process has before anything is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh {
    owner: (u32, u32),
}

impl Fresh {
    pub(super) fn of_this_process() -> Fresh {
        Fresh { owner: fsio::effective_owner() }
    }
}

/// Permission to write, which a directory's owner needs to move it.
const OWNER_WRITES: u16 = 0o200;

/// Flags that forbid renaming an inode; set once it has its final name.
pub(super) fn late_flags(flags: InodeFlags) -> bool {
    flags.names().any(|name| name == "append" || name == "immutable")
}

/// A mode that forbids whoever is not root to move the directory; set once it has its final name.
pub(super) fn late_mode(inode: &Inode) -> bool {
    inode.kind == InodeKind::Directory && inode.mode & OWNER_WRITES == 0 && fsio::effective_owner().0 != 0
}

/// Gives an inode what it could not have before it had its final name.
pub(super) fn finish_late(fd: impl AsFd, mode: u16, flags: InodeFlags) -> io::Result<()> {
    let attrs = FdAttrs(fd.as_fd());
    let stat = Stat::of_fd(fd.as_fd())?;
    if stat.mode != mode {
        attrs.set_mode(mode)?;
    }
    if attrs.flags()? == flags { Ok(()) } else { attrs.set_flags(flags) }
}

/// Gives a new and empty file what it can only have before its content: on btrfs, not to be copied on write.
pub(super) fn begin_new(fd: impl AsFd, inode: &Inode) -> io::Result<()> {
    if has_nocow(inode.flags) { FdAttrs(fd.as_fd()).set_flags(nocow()) } else { Ok(()) }
}

/// Whether a file's flags ask for what only an empty file takes.
pub(super) fn has_nocow(flags: InodeFlags) -> bool {
    flags.0 & nocow().0 != 0
}

fn nocow() -> InodeFlags {
    InodeFlags::from_name("nocow").expect("a flag of the format")
}

/// Completes a new regular file or directory, open as `fd`, whose content is there. `moves` says that it is still to be
/// renamed by itself.
pub(super) fn finish_new(fd: impl AsFd, inode: &Inode, fresh: Fresh, moves: bool) -> io::Result<()> {
    let attrs = FdAttrs(fd.as_fd());
    if (inode.uid, inode.gid) != fresh.owner {
        attrs.set_owner(inode.uid, inode.gid)?;
    }
    let room = if moves && late_mode(inode) { OWNER_WRITES } else { 0 };
    attrs.set_mode(inode.mode | room)?;
    set_attributes(attrs, inode)?;
    attrs.set_mtime(inode.mtime)?;
    // With such flags it could neither be renamed nor get another name.
    let waits = late_flags(inode.flags) && (moves || inode.links > 1);
    if inode.flags == InodeFlags::default() || waits { Ok(()) } else { attrs.set_flags(inode.flags) }
}

fn set_attributes(attrs: FdAttrs<'_>, inode: &Inode) -> io::Result<()> {
    if let Some(acl) = &inode.acl {
        attrs.set_xattr(ACL_ACCESS, &fsio::encode_acl(acl))?;
    }
    if let Some(acl) = &inode.default_acl {
        attrs.set_xattr(ACL_DEFAULT, &fsio::encode_acl(acl))?;
    }
    inode.xattrs.iter().try_for_each(|(name, value)| attrs.set_xattr(name, value))
}

/// Makes everything that is neither a regular file nor a directory, complete.
pub(super) fn make_special(dir: &Dir, name: &[u8], inode: &Inode, fresh: Fresh) -> io::Result<()> {
    match &inode.kind {
        InodeKind::Symlink(target) => dir.make_symlink(target, name)?,
        InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
            dir.make_special(name, file_type(&inode.kind), (*major, *minor))?;
        }
        InodeKind::Fifo => dir.make_special(name, file_type(&inode.kind), (0, 0))?,
        InodeKind::Socket | InodeKind::Directory | InodeKind::File(_) => {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
    }
    if (inode.uid, inode.gid) != fresh.owner {
        dir.set_owner(name, inode.uid, inode.gid)?;
    }
    let attrs = NameAttrs { dir, name };
    if !matches!(inode.kind, InodeKind::Symlink(_)) {
        dir.set_mode_of_special(name, inode.mode)?;
        if let Some(acl) = &inode.acl {
            attrs.set_xattr(ACL_ACCESS, &fsio::encode_acl(acl))?;
        }
    }
    inode.xattrs.iter().try_for_each(|(name, value)| attrs.set_xattr(name, value))?;
    dir.set_mtime(name, inode.mtime)
}

/// Gives a live file or directory other metadata. May be called again after it was interrupted. A directory's mtime and
/// flags are left to the end of the switch.
pub(super) fn change_in_place(fd: impl AsFd, before: &Meta, after: &Meta) -> io::Result<()> {
    let attrs = FdAttrs(fd.as_fd());
    let (live, live_flags) = (Stat::of_fd(fd.as_fd())?, attrs.flags()?);
    // Some flags forbid everything below, also when they are to stay.
    if live_flags != InodeFlags::default() && (late_flags(live_flags) || live_flags != after.flags) {
        attrs.set_flags(InodeFlags::default())?;
    }
    if (live.uid, live.gid) != (after.uid, after.gid) {
        attrs.set_owner(after.uid, after.gid)?;
    }
    let stays = |name: &[u8]| after.xattrs.iter().any(|(kept, _)| kept == name);
    for (name, _) in before.xattrs.iter().filter(|(name, _)| !stays(name)) {
        attrs.remove_xattr(name)?;
    }
    // Removing an ACL or changing the owner may have changed the mode; setting an ACL below sets the group's bits.
    if Stat::of_fd(fd.as_fd())?.mode != after.mode {
        attrs.set_mode(after.mode)?;
    }
    after.xattrs.iter().try_for_each(|(name, value)| attrs.set_xattr(name, value))?;
    if live.is_dir() {
        return Ok(());
    }
    attrs.set_mtime(after.mtime)?;
    if after.flags == InodeFlags::default() { Ok(()) } else { attrs.set_flags(after.flags) }
}
