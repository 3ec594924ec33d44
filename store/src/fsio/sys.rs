// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every system call that reads or changes names, metadata or content, one function each.
//!
//! A call that a signal has interrupted is made again. With the feature `faults`, which no shipped program has, a test
//! may make each of them fail, or do something of its own before it (see the module `script`); without it a function
//! here is nothing but its call.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dev, FileType, FlockOperation, Gid, IFlags, Mode, OFlags, RenameFlags, ResolveFlags, SeekFrom, Stat,
    StatVfs, Statx, StatxFlags, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// What a call acts on.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "faults"), expect(dead_code, reason = "only a test looks at it"))]
pub(super) enum On<'a> {
    Fd(BorrowedFd<'a>),
    Name(BorrowedFd<'a>, &'a CStr),
    Names([(BorrowedFd<'a>, &'a CStr); 2]),
    Path(&'a Path),
}

/// Makes a call, and again as long as signals interrupt it.
fn call<T>(name: &'static str, on: On<'_>, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    transfer(name, on, 0, |_| work())
}

/// The same for a call that moves up to `len` bytes: it is made with as many as it may move at once.
fn transfer<T>(name: &'static str, on: On<'_>, len: usize, mut work: impl FnMut(usize) -> Result<T>) -> Result<T> {
    loop {
        match before(name, on, len).and_then(&mut work) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// To be called before a call that is made elsewhere, as by a library.
pub(super) fn before_others(name: &'static str, on: On<'_>) -> Result<()> {
    call(name, on, || Ok(()))
}

#[cfg(not(feature = "faults"))]
#[inline(always)]
fn before(_name: &'static str, _on: On<'_>, len: usize) -> Result<usize> {
    Ok(len)
}

#[cfg(feature = "faults")]
use super::script::before;

pub(super) fn openat(dir: impl AsFd, path: impl Arg, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    path.into_with_c_str(|path| {
        call("openat", On::Name(dir.as_fd(), path), || rustix::fs::openat(&dir, path, flags, mode))
    })
}

pub(super) fn openat2(
    dir: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    path.into_with_c_str(|path| {
        call("openat2", On::Name(dir.as_fd(), path), || rustix::fs::openat2(&dir, path, flags, mode, resolve))
    })
}

/// A second descriptor of the same open file.
pub(super) fn dup(fd: impl AsFd) -> Result<OwnedFd> {
    call("fcntl", On::Fd(fd.as_fd()), || rustix::io::fcntl_dupfd_cloexec(&fd, 0))
}

pub(super) fn statx(dir: impl AsFd, path: impl Arg, flags: AtFlags, mask: StatxFlags) -> Result<Statx> {
    path.into_with_c_str(|path| {
        call("statx", On::Name(dir.as_fd(), path), || rustix::fs::statx(&dir, path, flags, mask))
    })
}

pub(super) fn statat(dir: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<Stat> {
    path.into_with_c_str(|path| call("statat", On::Name(dir.as_fd(), path), || rustix::fs::statat(&dir, path, flags)))
}

pub(super) fn fstat(fd: impl AsFd) -> Result<Stat> {
    call("fstat", On::Fd(fd.as_fd()), || rustix::fs::fstat(&fd))
}

pub(super) fn fstatvfs(fd: impl AsFd) -> Result<StatVfs> {
    call("fstatvfs", On::Fd(fd.as_fd()), || rustix::fs::fstatvfs(&fd))
}

pub(super) fn readlinkat(dir: impl AsFd, path: impl Arg) -> Result<Vec<u8>> {
    path.into_with_c_str(|path| {
        let read = || rustix::fs::readlinkat(&dir, path, Vec::new());
        call("readlinkat", On::Name(dir.as_fd(), path), read).map(std::ffi::CString::into_bytes)
    })
}

pub(super) fn mkdirat(dir: impl AsFd, path: impl Arg, mode: Mode) -> Result<()> {
    path.into_with_c_str(|path| call("mkdirat", On::Name(dir.as_fd(), path), || rustix::fs::mkdirat(&dir, path, mode)))
}

pub(super) fn symlinkat(target: &[u8], dir: impl AsFd, path: impl Arg) -> Result<()> {
    path.into_with_c_str(|path| {
        call("symlinkat", On::Name(dir.as_fd(), path), || rustix::fs::symlinkat(target, &dir, path))
    })
}

pub(super) fn mknodat(dir: impl AsFd, path: impl Arg, kind: FileType, mode: Mode, device: Dev) -> Result<()> {
    path.into_with_c_str(|path| {
        call("mknodat", On::Name(dir.as_fd(), path), || rustix::fs::mknodat(&dir, path, kind, mode, device))
    })
}

pub(super) fn linkat(from: impl AsFd, path: impl Arg, to: impl AsFd, to_path: impl Arg, flags: AtFlags) -> Result<()> {
    names(from, path, to, to_path, "linkat", |from, path, to, to_path| {
        rustix::fs::linkat(from, path, to, to_path, flags)
    })
}

pub(super) fn renameat(from: impl AsFd, path: impl Arg, to: impl AsFd, to_path: impl Arg) -> Result<()> {
    names(from, path, to, to_path, "renameat", |from, path, to, to_path| rustix::fs::renameat(from, path, to, to_path))
}

pub(super) fn renameat_with(
    from: impl AsFd,
    path: impl Arg,
    to: impl AsFd,
    to_path: impl Arg,
    flags: RenameFlags,
) -> Result<()> {
    let name = if flags.contains(RenameFlags::EXCHANGE) { "renameat2 exchange" } else { "renameat2" };
    names(from, path, to, to_path, name, |from, path, to, to_path| {
        rustix::fs::renameat_with(from, path, to, to_path, flags)
    })
}

fn names(
    from: impl AsFd,
    path: impl Arg,
    to: impl AsFd,
    to_path: impl Arg,
    name: &'static str,
    work: impl Fn(BorrowedFd<'_>, &CStr, BorrowedFd<'_>, &CStr) -> Result<()>,
) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    path.into_with_c_str(|path| {
        to_path.into_with_c_str(|to_path| {
            call(name, On::Names([(from, path), (to, to_path)]), || work(from, path, to, to_path))
        })
    })
}

pub(super) fn unlinkat(dir: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<()> {
    path.into_with_c_str(|path| {
        call("unlinkat", On::Name(dir.as_fd(), path), || rustix::fs::unlinkat(&dir, path, flags))
    })
}

pub(super) fn chmodat(dir: impl AsFd, path: impl Arg, mode: Mode, flags: AtFlags) -> Result<()> {
    path.into_with_c_str(|path| {
        call("chmodat", On::Name(dir.as_fd(), path), || rustix::fs::chmodat(&dir, path, mode, flags))
    })
}

pub(super) fn chownat(dir: impl AsFd, path: impl Arg, uid: u32, gid: u32, flags: AtFlags) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    path.into_with_c_str(|path| {
        call("chownat", On::Name(dir.as_fd(), path), || rustix::fs::chownat(&dir, path, uid, gid, flags))
    })
}

pub(super) fn utimensat(dir: impl AsFd, path: impl Arg, times: &Timestamps, flags: AtFlags) -> Result<()> {
    path.into_with_c_str(|path| {
        call("utimensat", On::Name(dir.as_fd(), path), || rustix::fs::utimensat(&dir, path, times, flags))
    })
}

pub(super) fn fsync(fd: impl AsFd) -> Result<()> {
    call("fsync", On::Fd(fd.as_fd()), || rustix::fs::fsync(&fd))
}

pub(super) fn fdatasync(fd: impl AsFd) -> Result<()> {
    call("fdatasync", On::Fd(fd.as_fd()), || rustix::fs::fdatasync(&fd))
}

pub(super) fn syncfs(fd: impl AsFd) -> Result<()> {
    call("syncfs", On::Fd(fd.as_fd()), || rustix::fs::syncfs(&fd))
}

pub(super) fn fchmod(fd: impl AsFd, mode: Mode) -> Result<()> {
    call("fchmod", On::Fd(fd.as_fd()), || rustix::fs::fchmod(&fd, mode))
}

pub(super) fn fchown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    call("fchown", On::Fd(fd.as_fd()), || rustix::fs::fchown(&fd, uid, gid))
}

pub(super) fn futimens(fd: impl AsFd, times: &Timestamps) -> Result<()> {
    call("futimens", On::Fd(fd.as_fd()), || rustix::fs::futimens(&fd, times))
}

pub(super) fn flistxattr(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    call("flistxattr", On::Fd(fd.as_fd()), || rustix::fs::flistxattr(&fd, &mut *buffer))
}

pub(super) fn fgetxattr(fd: impl AsFd, name: &[u8], buffer: &mut [u8]) -> Result<usize> {
    call("fgetxattr", On::Fd(fd.as_fd()), || rustix::fs::fgetxattr(&fd, name, &mut *buffer))
}

pub(super) fn fsetxattr(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<()> {
    call("fsetxattr", On::Fd(fd.as_fd()), || rustix::fs::fsetxattr(&fd, name, value, XattrFlags::empty()))
}

pub(super) fn fremovexattr(fd: impl AsFd, name: &[u8]) -> Result<()> {
    call("fremovexattr", On::Fd(fd.as_fd()), || rustix::fs::fremovexattr(&fd, name))
}

pub(super) fn llistxattr(path: &CStr, buffer: &mut [u8]) -> Result<usize> {
    call("llistxattr", On::Name(rustix::fs::CWD, path), || rustix::fs::llistxattr(path, &mut *buffer))
}

pub(super) fn lgetxattr(path: &CStr, name: &[u8], buffer: &mut [u8]) -> Result<usize> {
    call("lgetxattr", On::Name(rustix::fs::CWD, path), || rustix::fs::lgetxattr(path, name, &mut *buffer))
}

pub(super) fn lsetxattr(path: &CStr, name: &[u8], value: &[u8]) -> Result<()> {
    let flags = XattrFlags::empty();
    call("lsetxattr", On::Name(rustix::fs::CWD, path), || rustix::fs::lsetxattr(path, name, value, flags))
}

pub(super) fn getflags(fd: impl AsFd) -> Result<IFlags> {
    call("getflags", On::Fd(fd.as_fd()), || rustix::fs::ioctl_getflags(&fd))
}

pub(super) fn setflags(fd: impl AsFd, flags: IFlags) -> Result<()> {
    call("setflags", On::Fd(fd.as_fd()), || rustix::fs::ioctl_setflags(&fd, flags))
}

pub(super) fn seek(fd: impl AsFd, to: SeekFrom) -> Result<u64> {
    call("lseek", On::Fd(fd.as_fd()), || rustix::fs::seek(&fd, to))
}

pub(super) fn ftruncate(fd: impl AsFd, len: u64) -> Result<()> {
    call("ftruncate", On::Fd(fd.as_fd()), || rustix::fs::ftruncate(&fd, len))
}

pub(super) fn pread(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    transfer("pread", On::Fd(fd.as_fd()), buffer.len(), |len| rustix::io::pread(&fd, &mut buffer[..len], offset))
}

pub(super) fn pwrite(fd: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize> {
    transfer("pwrite", On::Fd(fd.as_fd()), bytes.len(), |len| rustix::io::pwrite(&fd, &bytes[..len], offset))
}

pub(super) fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    transfer("write", On::Fd(fd.as_fd()), bytes.len(), |len| rustix::io::write(&fd, &bytes[..len]))
}

pub(super) fn ficlone(to: impl AsFd, from: impl AsFd) -> Result<()> {
    call("ficlone", On::Fd(to.as_fd()), || rustix::fs::ioctl_ficlone(&to, &from))
}

/// Copies at the same offset in both files.
pub(super) fn copy_file_range(from: impl AsFd, to: impl AsFd, offset: u64, len: usize) -> Result<usize> {
    transfer("copy_file_range", On::Fd(to.as_fd()), len, |len| {
        let (mut read_at, mut write_at) = (offset, offset);
        rustix::fs::copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), len)
    })
}

pub(super) fn flock(fd: impl AsFd, operation: FlockOperation) -> Result<()> {
    call("flock", On::Fd(fd.as_fd()), || rustix::fs::flock(&fd, operation))
}
