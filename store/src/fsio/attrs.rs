// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Metadata beyond `statx`: extended attributes, POSIX ACLs, inode flags, times.
//!
//! Through an open descriptor ([`FdAttrs`]) for files and directories; through a held directory and one name
//! ([`NameAttrs`]) for what cannot be opened without side effects.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{IFlags, Mode, Timespec, Timestamps};
use rustix::io::Errno;

use super::dir::Dir;
use super::sys;
use crate::format::manifest::{Ace, AceTag, Acl, InodeFlags, Timestamp};
use crate::limits;

/// Name of the attribute that holds the access ACL.
pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the attribute that holds the default ACL.
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Name of the attribute that holds a program's capabilities.
pub const CAPABILITIES: &[u8] = b"security.capability";

/// Whether `name` is one of the two ACL attributes, which are recorded structured and not as attributes.
pub fn xattr_namespace_of_acl(name: &[u8]) -> bool {
    name == ACL_ACCESS || name == ACL_DEFAULT
}

/// Metadata of an open file or directory.
#[derive(Debug, Clone, Copy)]
pub struct FdAttrs<'fd>(pub BorrowedFd<'fd>);

/// Metadata of one name in a held directory, never followed.
#[derive(Debug, Clone, Copy)]
pub struct NameAttrs<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// One component.
    pub name: &'a [u8],
}

impl FdAttrs<'_> {
    /// Names of all extended attributes; empty where the file system has none.
    ///
    /// # Errors
    /// What the system says, except "not supported".
    pub fn xattr_names(&self) -> io::Result<Vec<Vec<u8>>> {
        grow(|buffer| sys::flistxattr(self.0, buffer)).map(split_names)
    }

    /// Value of one extended attribute; `None` when it is not set.
    ///
    /// # Errors
    /// What the system says, except "no data" and "not supported".
    pub fn xattr(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        absent_as_none(grow(|buffer| sys::fgetxattr(self.0, name, buffer)))
    }

    /// Sets one extended attribute.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(sys::fsetxattr(self.0, name, value)?)
    }

    /// Removes one extended attribute; it need not be set.
    ///
    /// # Errors
    /// What the system says, except "no data" and "not supported".
    pub fn remove_xattr(&self, name: &[u8]) -> io::Result<()> {
        match sys::fremovexattr(self.0, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Inode flags that the format knows; none where the file system has none.
    ///
    /// # Errors
    /// What the system says, except "not supported".
    pub fn flags(&self) -> io::Result<InodeFlags> {
        match sys::getflags(self.0) {
            Ok(found) => Ok(flags_from_system(found)),
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(InodeFlags::default()),
            Err(e) => Err(e.into()),
        }
    }

    /// Sets the inode flags that the format knows and leaves the others as they are.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_flags(&self, wanted: InodeFlags) -> io::Result<()> {
        let found = sys::getflags(self.0)?;
        let known = FLAG_TABLE.iter().fold(IFlags::empty(), |all, (flag, _)| all | *flag);
        // Not `found & !known`: a complement has no bits that have no name, and ext4 takes a missing extents flag as the
        // wish to have the file in another layout.
        let mut next = found.difference(known);
        for (flag, name) in FLAG_TABLE {
            if wanted.names().any(|wanted| wanted == *name) {
                next |= *flag;
            }
        }
        if next == found { Ok(()) } else { Ok(sys::setflags(self.0, next)?) }
    }

    /// Sets owner and group. Clears set-id bits and capabilities, as the kernel does.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        Ok(sys::fchown(self.0, uid, gid)?)
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_mode(&self, mode: u16) -> io::Result<()> {
        Ok(sys::fchmod(self.0, Mode::from_raw_mode(u32::from(mode)))?)
    }

    /// Sets the mtime, and the atime to the same.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_mtime(&self, mtime: Timestamp) -> io::Result<()> {
        Ok(sys::futimens(self.0, &timestamps(mtime))?)
    }
}

impl NameAttrs<'_> {
    fn path(&self) -> CString {
        proc_path(self.dir, self.name)
    }

    /// As [`FdAttrs::xattr_names`].
    ///
    /// # Errors
    /// What the system says, except "not supported".
    pub fn xattr_names(&self) -> io::Result<Vec<Vec<u8>>> {
        let path = self.path();
        grow(|buffer| sys::llistxattr(&path, buffer)).map(split_names)
    }

    /// As [`FdAttrs::xattr`].
    ///
    /// # Errors
    /// What the system says, except "no data" and "not supported".
    pub fn xattr(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let path = self.path();
        absent_as_none(grow(|buffer| sys::lgetxattr(&path, name, buffer)))
    }

    /// As [`FdAttrs::set_xattr`].
    ///
    /// # Errors
    /// What the system says.
    pub fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(sys::lsetxattr(&self.path(), name, value)?)
    }
}

/// `/proc/self/fd/N/name`: the magic link resolves to the held directory itself, whatever its path is by now, and the
/// last component is not followed by the `l…xattr` calls.
pub(super) fn proc_path(fd: impl AsFd, name: &[u8]) -> CString {
    let mut path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    CString::new(path).expect("a checked component holds no NUL")
}

pub(super) fn timestamps(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// Calls `read` with growing buffers until the value fits. "Not supported" gives nothing.
fn grow(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if buffer.len() < limits::XATTR_TOTAL_BYTES_MAX => {
                let len = buffer.len() * 8;
                buffer.resize(len.min(limits::XATTR_TOTAL_BYTES_MAX), 0);
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn absent_as_none(found: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.raw_os_error() == Some(Errno::NODATA.raw_os_error()) => Ok(None),
        Err(e) => Err(e),
    }
}

fn split_names(list: Vec<u8>) -> Vec<Vec<u8>> {
    list.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

const FLAG_TABLE: &[(IFlags, &str)] = &[
    (IFlags::APPEND, "append"),
    (IFlags::COMPRESSED, "compress"),
    (IFlags::DIRSYNC, "dirsync"),
    (IFlags::IMMUTABLE, "immutable"),
    (IFlags::NOATIME, "noatime"),
    (IFlags::NOCOW, "nocow"),
    (IFlags::NODUMP, "nodump"),
    (IFlags::PROJECT_INHERIT, "projinherit"),
    (IFlags::SYNC, "sync"),
    (IFlags::TOPDIR, "topdir"),
];

fn flags_from_system(found: IFlags) -> InodeFlags {
    FLAG_TABLE
        .iter()
        .filter(|(flag, _)| found.contains(*flag))
        .filter_map(|(_, name)| InodeFlags::from_name(name))
        .fold(InodeFlags::default(), InodeFlags::union)
}

const ACL_VERSION: u32 = 2;
const ACL_UNDEFINED_ID: u32 = u32::MAX;

/// Reads the kernel's form of an ACL (`struct posix_acl_xattr_header` and entries, little-endian).
///
/// Gives `None` for a list that breaks the rules: complete, unique, sorted, with a mask where one is needed.
pub fn decode_acl(bytes: &[u8]) -> Option<Acl> {
    let (header, rest) = bytes.split_at_checked(4)?;
    if u32::from_le_bytes(header.try_into().ok()?) != ACL_VERSION
        || rest.len() % 8 != 0
        || rest.len() / 8 > limits::ACL_ENTRIES_MAX
    {
        return None;
    }
    let mut entries = Vec::with_capacity(rest.len() / 8);
    for raw in rest.chunks_exact(8) {
        let tag = u16::from_le_bytes([raw[0], raw[1]]);
        let perm = u16::from_le_bytes([raw[2], raw[3]]);
        let id = u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]);
        let tag = match tag {
            1 => AceTag::UserObj,
            2 => AceTag::User(id),
            4 => AceTag::GroupObj,
            8 => AceTag::Group(id),
            16 => AceTag::Mask,
            32 => AceTag::Other,
            _ => return None,
        };
        entries.push(Ace { tag, perm: u8::try_from(perm).ok().filter(|perm| *perm <= 7)? });
    }
    entries.sort_unstable();
    let has = |wanted: AceTag| entries.iter().any(|ace| ace.tag == wanted);
    let named = entries.iter().any(|ace| matches!(ace.tag, AceTag::User(_) | AceTag::Group(_)));
    let complete = has(AceTag::UserObj) && has(AceTag::GroupObj) && has(AceTag::Other);
    let unique = entries.windows(2).all(|pair| pair[0].tag != pair[1].tag);
    (complete && unique && (has(AceTag::Mask) || !named)).then_some(Acl(entries))
}

/// The kernel's form of an ACL.
pub fn encode_acl(acl: &Acl) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + 8 * acl.0.len());
    bytes.extend_from_slice(&ACL_VERSION.to_le_bytes());
    for ace in &acl.0 {
        let (tag, id): (u16, u32) = match ace.tag {
            AceTag::UserObj => (1, ACL_UNDEFINED_ID),
            AceTag::User(id) => (2, id),
            AceTag::GroupObj => (4, ACL_UNDEFINED_ID),
            AceTag::Group(id) => (8, id),
            AceTag::Mask => (16, ACL_UNDEFINED_ID),
            AceTag::Other => (32, ACL_UNDEFINED_ID),
        };
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&u16::from(ace.perm).to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acl_round_trip_and_rules() {
        let ace = |tag, perm| Ace { tag, perm };
        let minimal = vec![ace(AceTag::UserObj, 6), ace(AceTag::GroupObj, 4), ace(AceTag::Other, 0)];
        let mut named = minimal.clone();
        named.push(ace(AceTag::User(1000), 7));
        let mut complete = named.clone();
        complete.push(ace(AceTag::Mask, 7));
        complete.sort();
        assert_eq!(decode_acl(&encode_acl(&Acl(minimal.clone()))), Some(Acl(minimal)));
        assert_eq!(decode_acl(&encode_acl(&Acl(named))), None, "a named user without a mask");
        assert_eq!(decode_acl(&encode_acl(&Acl(complete.clone()))), Some(Acl(complete.clone())));
        let bytes = encode_acl(&Acl(complete));
        assert_eq!(decode_acl(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode_acl(&[]), None);
        assert_eq!(decode_acl(&[1, 0, 0, 0]), None);
    }
}
