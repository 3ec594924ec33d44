// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory maps of this program's own immutable files. A live system file is never mapped: truncating it under the map
//! would kill the process.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::sys;
use crate::error::{Error, Result};

/// A read-only map of a segment or another immutable object of a store.
#[derive(Debug)]
pub struct Mapped(Option<memmap2::Mmap>);

impl Mapped {
    /// Maps the whole of an open file; `path` is for messages. An empty file, which cannot be mapped, is no bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn from_fd(fd: OwnedFd, path: &Path) -> Result<Mapped> {
        sys::before_others("mmap", sys::On::Fd(fd.as_fd())).map_err(|e| Error::io("map", path, e))?;
        let file = File::from(fd);
        if file.metadata().map_err(|e| Error::io("stat", path, e))?.len() == 0 {
            return Ok(Mapped(None));
        }
        // SAFETY: the file is an immutable object of a store or state directory that only this program's user writes,
        // published complete by rename and never truncated or rewritten afterwards.
        #[expect(unsafe_code, reason = "mapping a file is unsafe by nature; see SAFETY")]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
        Ok(Mapped(Some(map)))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
