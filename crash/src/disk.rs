// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disk that records: a FUSE file system with one file. A loop device on the file turns each block write into a write
//! and each flush into an fsync; its queue has no FUA, so the kernel makes those flushes as well.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, WriteFlags,
};

use crate::image::Image;
use crate::recording::{Event, Mark, Recording, Request};

const NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
/// Neither names nor sizes ever change.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// What the disk holds now, and what happened since the recording began.
#[derive(Debug)]
struct Disk {
    now: Image,
    recording: Option<Recording>,
}

/// The disk's side that its user talks to.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Mutex<Disk>>);

impl Handle {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was recorded; what the disk holds now counts as durable.
    pub fn start(&self) {
        let mut disk = self.disk();
        disk.recording = Some(Recording { base: disk.now.clone(), ..Recording::default() });
    }

    /// Notes an event after the requests seen so far.
    pub fn mark(&self, event: Event) {
        if let Some(recording) = &mut self.disk().recording {
            let requests = recording.requests.len();
            recording.marks.push(Mark { requests, event });
        }
    }

    /// Ends the recording.
    pub fn stop(&self) -> Recording {
        self.disk().recording.take().unwrap_or_default()
    }
}

/// A mounted disk; unmounted when dropped.
pub struct Mounted {
    session: Option<BackgroundSession>,
    file: PathBuf,
    pub handle: Handle,
}

impl Mounted {
    /// Serves `image` as a file in the directory `at`.
    ///
    /// # Errors
    /// There is no FUSE here, or no right to use it.
    pub fn serve(image: Image, at: &Path) -> io::Result<Mounted> {
        let handle = Handle(Arc::new(Mutex::new(Disk { now: image, recording: None })));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("evenkeel-crash".to_owned())];
        let session = fuser::spawn_mount(handle.clone(), at, &config)?;
        Ok(Mounted { session: Some(session), file: at.join(NAME), handle })
    }

    /// The file that is the disk.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("warning: cannot unmount {}: {error}", self.file.display());
        }
    }
}

impl Filesystem for Handle {
    fn lookup(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&FOR_EVER, &attributes(FILE, self.disk().now.len()), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &fuser::Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &attributes(ino, self.disk().now.len()));
    }

    fn open(&self, _: &fuser::Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: what the file system sends is seen at once and as it was sent.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let disk = self.disk();
        let len = u64::from(size).min(disk.now.len().saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(len).expect("at most 4 GiB")];
        disk.now.read(offset, &mut bytes);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = self.disk();
        disk.now.write(offset, data);
        if let Some(recording) = &mut disk.recording {
            recording.requests.push(Request::Write(offset, data.to_vec()));
        }
        reply.written(u32::try_from(data.len()).expect("the kernel sends at most 16 MiB"));
    }

    fn fsync(&self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(recording) = &mut self.disk().recording {
            recording.requests.push(Request::Flush);
        }
        reply.ok();
    }
}

fn attributes(ino: INodeNo, len: u64) -> FileAttr {
    let is_file = ino == FILE;
    FileAttr {
        ino,
        size: if is_file { len } else { 0 },
        blocks: if is_file { len / 512 } else { 0 },
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_file { FileType::RegularFile } else { FileType::Directory },
        perm: if is_file { 0o600 } else { 0o700 },
        nlink: if is_file { 1 } else { 2 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
