// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Small file systems of a test's own; need root.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a loop device is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Ext4,
    /// As it was made before 2008: times in whole seconds that end in 2038.
    Ext4Old,
    Xfs,
    Btrfs,
}

impl Format {
    /// The command and what it needs, without the image's name.
    fn command(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Format::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096", "-I", "256"]),
            Format::Ext4Old => ("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096", "-I", "128"]),
            Format::Xfs => ("mkfs.xfs", &["-q", "-f", "-m", "bigtime=1"]),
            Format::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        }
    }

    /// The smallest image that the tools make, roughly, in bytes.
    fn bytes(self) -> u64 {
        match self {
            Format::Ext4 | Format::Ext4Old => 256 << 20,
            Format::Xfs => 320 << 20,
            Format::Btrfs => 320 << 20,
        }
    }
}

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
        run("mount", &["-t", "tmpfs", "-o", options, "none"], dir);
        Mounted(dir.to_path_buf())
    }

    /// A real file system on a sparse image, at a directory that is made for it. The image has no name any more: it
    /// goes with the mount.
    ///
    /// # Panics
    /// When that cannot be done; a tool that is missing is named.
    pub fn image(dir: &Path, format: Format) -> Mounted {
        std::fs::create_dir(dir).expect("a directory to mount on");
        let image = dir.with_extension("img");
        std::fs::File::create(&image).and_then(|file| file.set_len(format.bytes())).expect("an image");
        let (program, options) = format.command();
        run(program, options, &image);
        let done = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir).status();
        std::fs::remove_file(&image).expect("the image is ours");
        assert!(done.expect("mount").success(), "cannot mount a {format:?} on a loop device");
        Mounted(dir.to_path_buf())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A FUSE file system of a user's, mounted as `fusermount3` does it for them, that answers to nobody.
#[derive(Debug)]
pub struct Fuse {
    server: Option<Child>,
    _mounted: Mounted,
}

impl Fuse {
    /// Mounts one of `user`'s at `dir`, which exists.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn of_user(dir: &Path, user: u32) -> Fuse {
        let options = format!("fd=3,rootmode=40000,user_id={user},group_id={user}");
        let script = "exec 3<>/dev/fuse && mount -i -t fuse evenkeel-test \"$1\" -o \"$2\" && echo mounted && exec cat";
        let mut sh = Command::new("sh");
        sh.args(["-c", script, "sh"]).arg(dir).arg(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = sh.spawn().expect("a shell");
        let mut said = [0; 8];
        let told = server.stdout.as_mut().expect("it is piped").read_exact(&mut said);
        told.unwrap_or_else(|e| panic!("cannot mount with FUSE at {}: {e}", dir.display()));
        Fuse { server: Some(server), _mounted: Mounted(dir.to_path_buf()) }
    }

    /// Ends its server; what it served stays mounted.
    pub fn abandon(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.stdin.take());
            let _ = server.wait();
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // Before it is unmounted, which would ask it.
        self.abandon();
    }
}

fn run(program: &str, options: &[&str], last: &Path) {
    let done = Command::new(program).args(options).arg(last).output();
    let done = done.unwrap_or_else(|e| panic!("cannot run {program}, which this test needs: {e}"));
    assert!(done.status.success(), "{program} {}: {}", last.display(), String::from_utf8_lossy(&done.stderr));
}
