// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shared fixtures: a store with a tree to commit, trees made by hand, and a naive reader to compare with.
//!
//! Nothing here goes through the library's own walk, chunker or reader of files, so that a mistake there shows.

pub mod build;
pub mod classes;
pub mod fixture;
pub mod garage;
pub mod mounted;
pub mod naive;
pub mod neighbour;
pub mod operation;
pub mod place;
pub mod portrait;
pub mod sample;
pub mod slow_line;
pub mod strace;
pub mod tls;
pub mod web;

pub use build::Tree;
pub use fixture::Fixture;
pub use naive::{Item, Kind, read_tree};
pub use place::Place;

use std::path::PathBuf;

/// A new directory on the file system that tests of owners, holes and mounts run on (`EVENKEEL_TEST_DIR`), else on the
/// usual one for temporary files.
pub fn temp_dir() -> tempfile::TempDir {
    match std::env::var_os("EVENKEEL_TEST_DIR") {
        Some(dir) => tempfile::tempdir_in(PathBuf::from(dir)).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

/// `len` bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Address space of this process, in bytes: what a limit on it starts from.
pub fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The directory that cargo puts built programs into.
pub fn program(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir.join(name)
}

/// Runs `work` without root's powers: directly if the tests are not run by root, else in a thread that gives them up.
/// `owned` and everything below belong to that user then.
pub fn without_privilege<T: Send>(owned: &std::path::Path, work: impl FnOnce() -> T + Send) -> T {
    if !rustix::process::geteuid().is_root() {
        return work();
    }
    give_away(owned, NOBODY);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            become_nobody();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Who has no rights.
pub const NOBODY: u32 = 65534;

/// Makes this thread, which must be root's, one of a user without any right. It cannot go back.
pub fn become_nobody() {
    let (uid, gid) = (rustix::process::Uid::from_raw(NOBODY), rustix::process::Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
}

fn give_away(path: &std::path::Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    if std::fs::symlink_metadata(path).unwrap().is_dir() {
        for child in std::fs::read_dir(path).unwrap() {
            give_away(&child.unwrap().path(), uid);
        }
    }
}
