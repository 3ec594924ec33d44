// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `init` and some commits, store and state directory both on the recorded disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel_store::area::AreaSpec;
use evenkeel_store::catalog::Catalog;
use evenkeel_store::check::{CheckOptions, check};
use evenkeel_store::commit::{CommitOptions, CommitReport, commit};
use evenkeel_store::format::snapshot::AreaRules;
use evenkeel_store::format::store::ChunkerParams;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::store::InitOptions;
use evenkeel_store::{Error, Progress, Store};
use evenkeel_tests::fixture::{AREA, assert_same, settle};
use evenkeel_tests::naive::{read_everything, read_snapshot};
use evenkeel_tests::{Item, Tree, noise, read_tree};

use super::{Checker, Crash, Marks, Place, Workload};
use crate::medium::run;

const RELEASES: usize = 6;

/// Step 0 is `init`, step `n` the commit of release `n`.
#[derive(Debug)]
pub struct Commits;

/// A store with the smallest chunks and packs: many objects from little data.
pub fn create_store(path: &Path) -> evenkeel_store::Result<Store> {
    Store::create(path, &InitOptions { chunker: ChunkerParams::around(8 << 10), pack_size: 1 << 20 })
}

/// Commits a tree with one worker: the order of writing is the same in every run.
pub fn commit_tree(store: &Store, state: &Path, tree: &Path) -> evenkeel_store::Result<CommitReport> {
    settle();
    let area = AreaSpec::new(AREA, tree, AreaRules::default());
    let options = CommitOptions { threads: 1, ..CommitOptions::new(vec![area], state) };
    commit(store, &options, &Progress::default())
}

/// Each release is some new content, some changed, some only metadata, some gone.
fn make_release(tree: &Tree, number: usize) {
    let seed = 100 * number as u64;
    if number == 1 {
        tree.sample();
        return;
    }
    tree.file(format!("releases/{number}/data"), noise(seed, 40_000 * number))
        .file("usr/bin/tool", [noise(1, 150_000), noise(seed, 90_000)].concat())
        .file("etc/hosts.allow", format!("release {number}\n"))
        .mode("usr/share/text", 0o600 + u32::try_from(number).unwrap());
    if number > 3 {
        tree.remove(format!("releases/{}", number - 2));
    }
}

fn store_of(place: Place<'_>) -> PathBuf {
    place.inside.join("store")
}

fn state_of(place: Place<'_>) -> PathBuf {
    place.inside.join("state")
}

fn release_of(place: Place<'_>, number: usize) -> PathBuf {
    place.outside.join(format!("release-{number}"))
}

fn tree_of(place: Place<'_>) -> Tree {
    Tree::new(place.outside.join("tree"))
}

impl Workload for Commits {
    fn name(&self) -> &'static str {
        "commit"
    }

    fn weight(&self) -> u64 {
        8
    }

    fn prepare(&self, _: Place<'_>) {}

    fn run(&self, place: Place<'_>, marks: &dyn Marks) {
        let tree = tree_of(place);
        marks.begin();
        let store = create_store(&store_of(place)).unwrap();
        marks.acknowledge();
        for number in 1..=RELEASES {
            make_release(&tree, number);
            run(Command::new("cp").arg("-a").arg(tree.root()).arg(release_of(place, number))).unwrap();
            marks.begin();
            let report = commit_tree(&store, &state_of(place), tree.root()).unwrap();
            marks.acknowledge();
            // As a command that asks about snapshots would: the catalog is written, and torn like everything else.
            drop(Catalog::open(&store, &state_of(place)).unwrap());
            let id = report.snapshot.expect("something changed").to_hex();
            std::fs::write(release_of(place, number).with_extension("id"), id).unwrap();
        }
    }

    fn checker(&self, place: Place<'_>) -> Box<dyn Checker> {
        let release = |number| {
            let dir = release_of(place, number);
            let id = std::fs::read_to_string(dir.with_extension("id")).unwrap();
            (id.parse().unwrap(), read_tree(&dir))
        };
        Box::new(Releases((1..=RELEASES).map(release).collect()))
    }
}

/// What was committed, release by release.
struct Releases(Vec<(SnapshotId, BTreeMap<Vec<u8>, Item>)>);

impl Checker for Releases {
    fn check(&self, place: Place<'_>, crash: Crash) {
        let store = match Store::open(&store_of(place)) {
            Err(Error::NotAStore { .. }) if crash.acknowledged == 0 => create_store(&store_of(place)).unwrap(),
            store => store.unwrap(),
        };
        let acknowledged = &self.0[..crash.acknowledged.saturating_sub(1)];
        self.assert_holds(&store, acknowledged);
        assert_catalog_answers(&store, &state_of(place));

        let tree = tree_of(place);
        let report = commit_tree(&store, &state_of(place), tree.root()).unwrap();
        let expected = read_tree(tree.root());
        let id = report.snapshot.expect("it is no dry run");
        self.assert_holds(&store, acknowledged);
        assert_catalog_answers(&store, &state_of(place));
        assert_same(&read_snapshot(&store, &store.snapshot(&id).unwrap(), AREA).unwrap(), &expected);
        let left: Vec<PathBuf> = [store_of(place), state_of(place)].iter().flat_map(|dir| temporaries(dir)).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Releases {
    /// The store is sound, has every acknowledged release, and nothing that it lists is less than a release.
    fn assert_holds(&self, store: &Store, acknowledged: &[(SnapshotId, BTreeMap<Vec<u8>, Item>)]) {
        let options = CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() };
        let report = check(store, &options, &Progress::default()).unwrap();
        assert!(!report.is_damaged(), "check: {:#?}", report.findings);
        let list = store.list_snapshots().unwrap();
        assert!(list.missing.is_empty(), "missing: {:?}", list.missing);
        for (id, tree) in acknowledged {
            assert!(list.there.iter().any(|record| record.id == *id), "{id} was acknowledged and is not listed");
            assert_same(&read_snapshot(store, &store.snapshot(id).unwrap(), AREA).unwrap(), tree);
        }
        for record in &list.there[acknowledged.len()..] {
            read_everything(store, &record.id).unwrap();
        }
    }
}

/// The catalog opens, be it anew, and knows what the store knows.
fn assert_catalog_answers(store: &Store, state: &Path) {
    let catalog = Catalog::open(store, state).unwrap();
    for record in store.list_snapshots().unwrap().there {
        assert_eq!(catalog.snapshot(&record.id).unwrap(), Some(store.snapshot(&record.id).unwrap()));
    }
}

/// Unfinished files below a directory.
fn temporaries(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(temporaries(&entry.path()));
        } else if entry.file_name().to_string_lossy().contains("tmp-") {
            found.push(entry.path());
        }
    }
    found
}
