// SPDX-License-Identifier: Apache-2.0 OR MIT
//! File systems that are mounted for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Unmounts it when the test ends, however it ends.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// A tmpfs at a directory that is made for it.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn tmpfs(dir: &Path, options: &str) -> Mounted {
        std::fs::create_dir(dir).expect("a directory to mount on");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(dir).status();
        assert!(done.expect("mount").success(), "cannot mount a tmpfs on {}", dir.display());
        Mounted(dir.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
