// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A freshly made file system in a loop-mounted image, unmounted and deleted when dropped.
//!
//! Creating files soon after a large delete is many times slower on an ext4 without a journal, as container hosts often
//! have, and such a disk may lack ACLs or capabilities altogether; an image of our own makes runs comparable.

use std::path::{Path, PathBuf};

use crate::shell::Cmd;
use crate::{Result, host};

/// A mounted image. The file is sparse: it takes what is written.
pub struct Image {
    file: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Image {
    /// Makes and mounts an ext4 of `bytes` with its journal and room for `files` files, in `dir`.
    ///
    /// # Errors
    /// We are not root, or a tool is missing or fails (a container without loop devices); nothing is left behind.
    pub fn ext4(dir: &Path, name: &str, bytes: u64, files: u64) -> Result<Image> {
        if !host::is_root() {
            return Err("needs root, to mount a loop image".to_owned());
        }
        host::need(&[("mkfs.ext4", "e2fsprogs"), ("losetup", "mount")])?;
        // A process id in the name: two runs at once never share an image.
        let base = dir.join(format!("{name}-{}", std::process::id()));
        let mut image = Image { file: base.with_extension("img"), mount: base.with_extension("mnt"), mounted: false };
        let io = |error| format!("cannot make {}: {error}", image.file.display());
        std::fs::create_dir_all(&image.mount).map_err(io)?;
        std::fs::File::create(&image.file).and_then(|file| file.set_len(bytes)).map_err(io)?;
        // Lazy initialisation would write in the background of the first measurements.
        let eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        let inodes = files.to_string();
        Cmd::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N", &inodes, "-E", eager]).arg(&image.file).run()?;
        Cmd::new("mount").args(["-o", "loop,noatime"]).arg(&image.file).arg(&image.mount).run()?;
        image.mounted = true;
        Ok(image)
    }

    /// The root directory of the mounted file system.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Gives the blocks of deleted files back to the host.
    pub fn trim(&self) {
        // Not every host can; the image then only grows more.
        let _ = Cmd::new("fstrim").arg(&self.mount).read();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted && Cmd::new("umount").arg(&self.mount).read().is_err() {
            // Lazily, so that a process with a file open inside cannot keep the image for ever.
            let lazy = Cmd::new("umount").arg("--lazy").arg(&self.mount).read();
            if let Err(error) = lazy {
                eprintln!("warning: {} stays mounted: {error}", self.mount.display());
                return;
            }
        }
        let _ = std::fs::remove_dir(&self.mount);
        let _ = std::fs::remove_file(&self.file);
    }
}
