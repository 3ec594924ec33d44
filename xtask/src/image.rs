// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A freshly made file system in a loop-mounted image, unmounted and deleted when dropped.
//!
//! Creating files soon after a large delete is many times slower on an ext4 without a journal, as container hosts often
//! have, and such a disk may lack ACLs or capabilities altogether; an image of our own makes runs comparable.

use std::path::{Path, PathBuf};

use crate::shell::Cmd;
use crate::{Result, host};

/// Set in the environment of the process that has mounts of its own.
const PRIVATE: &str = "XTASK_PRIVATE_MOUNTS";

/// Starts this program again in a mount namespace of its own where that is allowed, so that no mount is left behind
/// however the program ends. Returns when it is there already, or cannot be.
pub fn private_mounts() {
    let unshare = |program: &str| Cmd::new("unshare").args(["--mount", "--propagation", "private", program]);
    if std::env::var_os(PRIVATE).is_some() || !host::is_root() || unshare("true").read().is_err() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let again = unshare(&program.to_string_lossy()).args(std::env::args().skip(1)).env(PRIVATE, "1");
        // Does not return but with an error; then things go on as they are.
        eprintln!("warning: {}", again.replace_this_process());
    }
}

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
        // The mount keeps the file alive; without a name it cannot outlive the mount.
        std::fs::remove_file(&image.file)
            .map_err(|error| format!("cannot remove {}: {error}", image.file.display()))?;
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
