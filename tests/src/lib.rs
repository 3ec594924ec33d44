// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shared fixtures: a store with a tree to commit, trees made by hand, and a naive reader to compare with.
//!
//! Nothing here goes through the library's own walk, chunker or reader of files, so that a mistake there shows.

pub mod build;
pub mod fixture;
pub mod naive;
pub mod place;

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

/// The directory that cargo puts built programs into.
pub fn program(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir.join(name)
}
