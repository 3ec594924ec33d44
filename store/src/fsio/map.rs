// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory maps of this program's own immutable files. A live system file is never mapped: truncating it under the map
//! would kill the process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{Error, Result};

/// A read-only map of a segment or another immutable object of a store.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps the whole file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Mapped> {
        let fd: OwnedFd = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::io("open", path, e))?;
        let file = File::from(fd);
        // SAFETY: the file is an immutable object of a store or state directory that only this program's user writes,
        // published complete by rename and never truncated or rewritten afterwards.
        #[expect(unsafe_code, reason = "mapping a file is unsafe by nature; see SAFETY")]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
        Ok(Mapped(map))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
