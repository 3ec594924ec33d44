// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store, a state directory and a tree, all in one temporary directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use evenkeel_store::area::AreaSpec;
use evenkeel_store::check::{CheckOptions, CheckReport, check};
use evenkeel_store::commit::{CommitOptions, CommitReport, commit};
use evenkeel_store::format::manifest::{Entry, Timestamp};
use evenkeel_store::format::snapshot::AreaRules;
use evenkeel_store::format::store::ChunkerParams;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::manifest::Manifest;
use evenkeel_store::store::InitOptions;
use evenkeel_store::{Progress, Result, Store};

use crate::build::Tree;
use crate::naive::{self, Item, read_tree};

/// Name of the fixture's one area.
pub const AREA: &str = "tree";

/// What a test of commits starts from.
#[derive(Debug)]
pub struct Fixture {
    dir: tempfile::TempDir,
    pub store: Store,
    pub tree: Tree,
    pub state: PathBuf,
    /// Seconds of the next commit: it grows by one a commit, whatever the real time is.
    clock: AtomicI64,
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// An empty store as `init` makes it by default, and an empty tree.
    pub fn new() -> Fixture {
        Self::with(&InitOptions::default())
    }

    /// With the smallest chunks and packs that there are: many objects from little data.
    pub fn small() -> Fixture {
        Self::with(&InitOptions { chunker: ChunkerParams::around(8 << 10), pack_size: 1 << 20 })
    }

    /// As [`Fixture::small`], on a file system in memory where there is one and no other is asked for: for thousands of
    /// runs, which would wait for a disk most of the time.
    pub fn in_memory() -> Fixture {
        let dir = match std::env::var_os("EVENKEEL_TEST_DIR") {
            Some(_) => crate::temp_dir(),
            None => tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| crate::temp_dir()),
        };
        Self::inside(dir, &InitOptions { chunker: ChunkerParams::around(8 << 10), pack_size: 1 << 20 })
    }

    pub fn with(options: &InitOptions) -> Fixture {
        Self::inside(crate::temp_dir(), options)
    }

    fn inside(dir: tempfile::TempDir, options: &InitOptions) -> Fixture {
        let store = Store::create(&dir.path().join("store"), options).unwrap();
        let tree = Tree::new(dir.path().join("tree"));
        let state = dir.path().join("state");
        Fixture { dir, store, tree, state, clock: AtomicI64::new(1_700_000_000) }
    }

    /// The directory that everything is in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The fixture's area with no rules.
    pub fn area(&self) -> AreaSpec {
        AreaSpec::new(AREA, self.tree.root(), AreaRules::default())
    }

    /// Options of a commit of the one area, at the next second of the fixture's clock.
    pub fn options(&self) -> CommitOptions {
        let secs = self.clock.fetch_add(1, Ordering::Relaxed);
        CommitOptions {
            time: Some(Timestamp { secs, nanos: 0 }),
            threads: 2,
            ..CommitOptions::new(vec![self.area()], &self.state)
        }
    }

    /// Commits with changed options.
    ///
    /// # Errors
    /// Those of the commit.
    pub fn try_commit(&self, change: impl FnOnce(&mut CommitOptions)) -> Result<CommitReport> {
        let mut options = self.options();
        change(&mut options);
        commit(&self.store, &options, &Progress::default())
    }

    /// Commits, which must succeed. What the tree holds is settled: the next commit need not read it again.
    pub fn commit(&self) -> CommitReport {
        settle();
        self.try_commit(|_| {}).unwrap()
    }

    /// Commits what must be a new snapshot.
    pub fn commit_new(&self) -> SnapshotId {
        let report = self.commit();
        assert!(report.is_new, "something changed");
        report.snapshot.unwrap()
    }

    /// Entries of the one area.
    pub fn entries(&self, id: &SnapshotId) -> Vec<Entry> {
        let reader = self.store.reader().unwrap();
        let snapshot = self.store.snapshot(id).unwrap();
        let manifest = Manifest::open(&reader, &snapshot.areas[0]).unwrap();
        manifest.entries().map(Result::unwrap).collect()
    }

    /// Paths of the one area, escaped.
    pub fn paths(&self, id: &SnapshotId) -> Vec<String> {
        self.entries(id).iter().map(|entry| entry.path.to_string()).collect()
    }

    /// The one area as the naive reader would see it.
    pub fn read(&self, id: &SnapshotId) -> BTreeMap<Vec<u8>, Item> {
        let snapshot = self.store.snapshot(id).unwrap();
        naive::read_snapshot(&self.store, &snapshot, &snapshot.areas[0].name).unwrap()
    }

    /// The snapshot holds exactly what the tree holds now.
    pub fn assert_holds_tree(&self, id: &SnapshotId) {
        assert_same(&self.read(id), &read_tree(self.tree.root()));
    }

    /// A thorough check.
    pub fn check(&self) -> CheckReport {
        let options = CheckOptions { read_data: true, ..CheckOptions::default() };
        check(&self.store, &options, &Progress::default()).unwrap()
    }

    /// A thorough check finds nothing at all.
    pub fn assert_sound(&self) {
        assert_eq!(self.check().findings, []);
    }

    /// All files below the store with their bytes.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        files_below(self.store.path())
    }
}

/// All files below a directory with their bytes, by relative path.
pub fn files_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for child in std::fs::read_dir(&dir).unwrap() {
            let path = child.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Compares two trees and names what differs, instead of printing both.
#[track_caller]
pub fn assert_same(found: &BTreeMap<Vec<u8>, Item>, expected: &BTreeMap<Vec<u8>, Item>) {
    let mut differences = Vec::new();
    for path in found.keys().chain(expected.keys().filter(|path| !found.contains_key(*path))) {
        let (a, b) = (found.get(path), expected.get(path));
        if a != b {
            differences.push(format!("{}:\n  found    {a:?}\n  expected {b:?}", path.escape_ascii()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Waits until the coarse clock has passed this moment: what was written before can then be told from what comes after.
/// A tick alone is not enough, because inodes may be stamped with the fine clock, and a late tick lags behind it.
pub fn settle() {
    let now = |clock| {
        let time = rustix::time::clock_gettime(clock);
        (time.tv_sec, time.tv_nsec)
    };
    let mut written = now(rustix::time::ClockId::Realtime);
    while now(rustix::time::ClockId::RealtimeCoarse) <= written {
        std::thread::yield_now();
        // Somebody may have set the clock back.
        written = written.min(now(rustix::time::ClockId::Realtime));
    }
}
