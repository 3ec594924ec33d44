// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Real file systems on image files: making and mounting them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::Result;
use crate::image::Image;

/// A file system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Ext4,
    Xfs,
    Btrfs,
}

impl Medium {
    pub const ALL: [Medium; 3] = [Medium::Ext4, Medium::Xfs, Medium::Btrfs];

    pub fn name(self) -> &'static str {
        match self {
            Medium::Ext4 => "ext4",
            Medium::Xfs => "xfs",
            Medium::Btrfs => "btrfs",
        }
    }

    /// About the smallest disk that its mkfs accepts and the workloads fit into.
    fn disk_bytes(self) -> u64 {
        match self {
            Medium::Ext4 => 48 << 20,
            Medium::Xfs => 320 << 20,
            Medium::Btrfs => 192 << 20,
        }
    }

    fn mkfs(self) -> Command {
        let (program, args): (&str, &[&str]) = match self {
            // Nothing is left for later: the kernel would initialise it while the workload runs.
            Medium::Ext4 => ("mkfs.ext4", &["-q", "-F", "-b", "4096", "-N", "4096", "-J", "size=4"]),
            Medium::Xfs => ("mkfs.xfs", &["-q", "-f", "-K"]),
            Medium::Btrfs => ("mkfs.btrfs", &["-q", "-f", "-K", "-m", "single"]),
        };
        let mut command = Command::new(program);
        command.args(args);
        if self == Medium::Ext4 {
            command.args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]);
        }
        command
    }

    /// Copies of one file system are mounted side by side, which XFS has to be told. btrfs cannot do it at all.
    fn mount_options(self) -> &'static str {
        if self == Medium::Xfs { "loop,nouuid" } else { "loop" }
    }

    /// How many processes may look at copies of one file system at once.
    pub fn jobs_max(self) -> usize {
        if self == Medium::Btrfs { 1 } else { usize::MAX }
    }

    /// A fresh file system; `file` is where it is made.
    ///
    /// # Errors
    /// mkfs is missing or fails.
    pub fn make(self, file: &Path) -> Result<Image> {
        let io = |error| format!("cannot make {}: {error}", file.display());
        Image::empty(self.disk_bytes()).save(file).map_err(io)?;
        run(self.mkfs().arg(file))?;
        let image = Image::load(file).map_err(io)?;
        std::fs::remove_file(file).map_err(io)?;
        Ok(image)
    }

    /// Mounts the image `file` at the directory `at`, with recovery as after a power cut.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn mount(self, file: &Path, at: &Path) -> Result<Mount> {
        let mut mount = Command::new("mount");
        // The option makes the kernel release the loop device with the mount, however that ends.
        run(mount.args(["-t", self.name(), "-o", self.mount_options()]).arg(file).arg(at))?;
        Ok(Mount { at: at.to_owned() })
    }
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    const TRIES: u32 = 2000;

    /// sled closes its files some moments after it was dropped.
    fn unmount(&self) -> rustix::io::Result<()> {
        for _ in 0..Self::TRIES {
            match rustix::mount::unmount(&self.at, UnmountFlags::empty()) {
                Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(1)),
                done => return done,
            }
        }
        Err(Errno::BUSY)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("warning: cannot unmount {}: {error}", self.at.display());
            let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
        }
    }
}

/// Runs a program that must succeed; its output is part of the error.
///
/// # Errors
/// It cannot be started, or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
