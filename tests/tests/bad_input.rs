// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Places that are no store, stores that are too new, names that mean nothing: refused by name, and nothing is left
//! behind.

use evenkeel_store::format::store::ChunkerParams;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::store::InitOptions;
use evenkeel_store::{Error, ErrorKind, Store};
use evenkeel_tests::fixture::files_below;
use evenkeel_tests::{Fixture, Tree};

#[test]
fn places_that_are_no_store() {
    let dir = evenkeel_tests::temp_dir();
    let tree = Tree::new(dir.path().join("tree"));
    tree.dir("empty").file("file", "x").file("other/format.txt", "x").file("half/snapshots/index", "x");
    for name in ["missing", "empty", "file", "file/below", "other", "half"] {
        let error = Store::open(&tree.path(name)).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::NotAStore, "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
    // A directory in the place of the object.
    tree.dir("odd/format");
    Store::open(&tree.path("odd")).expect_err("a directory is no format");
}

#[test]
fn a_store_is_made_in_a_new_or_empty_place_only() {
    let dir = evenkeel_tests::temp_dir();
    let tree = Tree::new(dir.path());
    tree.dir("empty").file("full/x", "1").file("file", "1");
    let create = |name: &str| Store::create(&tree.path(name), &InitOptions::default());
    create("empty").unwrap();
    create("new/below").unwrap();
    for name in ["full", "file", "empty"] {
        let before = files_below(dir.path());
        create(name).expect_err(name);
        assert!(files_below(dir.path()) == before, "{name}: nothing was changed");
    }
    assert_eq!(create("full").unwrap_err().kind(), ErrorKind::Refused);
}

/// An `init` that was interrupted made the place look full, so that the next one refused it for ever.
#[test]
fn an_interrupted_init_is_completed() {
    let dir = evenkeel_tests::temp_dir();
    let tree = Tree::new(dir.path());
    let create = |name: &str| Store::create(&tree.path(name), &InitOptions::default());
    create("whole").unwrap();
    let whole = files_below(&tree.path("whole"));
    let stages: [&[&str]; 5] = [
        &["packs/"],
        &["packs/", "segments/", "locators/", "snapshots/", "tmp/"],
        &["packs/", "segments/tmp-0011223344556677", "locators/", "snapshots/", "tmp/"],
        &["packs/", "segments/current", "locators/", "snapshots/index", "tmp/"],
        &["packs/", "segments/current", "locators/", "snapshots/index", "tmp/", "tmp-0011223344556677"],
    ];
    for (number, stage) in stages.into_iter().enumerate() {
        let name = format!("stage-{number}");
        for path in stage {
            let path = format!("{name}/{path}");
            let _ = if path.ends_with('/') { tree.dir(path.trim_end_matches('/')) } else { tree.file(path, "x") };
        }
        let store = create(&name).unwrap();
        assert_eq!(store.snapshots().unwrap(), []);
        assert!(store.segments_current().unwrap().is_some());
        let names = files_below(&tree.path(&name)).into_keys().collect::<Vec<_>>();
        assert_eq!(names, whole.keys().cloned().collect::<Vec<_>>(), "{stage:?}");
        assert_eq!(Store::open(&tree.path(&name)).unwrap().id(), store.id());
    }
    // What may be all that is left of a store is not.
    let id = "0".repeat(64);
    for left in
        [format!("packs/00/{id}.pack"), format!("segments/{id}.seg"), format!("snapshots/{id}"), "README".into()]
    {
        tree.dir("lost/packs").dir("lost/segments").file(format!("lost/{left}"), "x");
        let before = files_below(dir.path());
        assert_eq!(create("lost").unwrap_err().kind(), ErrorKind::Refused, "{left}");
        assert!(files_below(dir.path()) == before, "{left}: nothing was changed");
        tree.remove("lost");
    }
    tree.file("odd/packs", "a file");
    assert_eq!(create("odd").unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn sizes_outside_the_format() {
    let dir = evenkeel_tests::temp_dir();
    let good = InitOptions::default();
    let chunker = |avg| InitOptions { chunker: ChunkerParams { avg, ..good.chunker }, ..good.clone() };
    let pack = |pack_size| InitOptions { pack_size, ..good.clone() };
    let cases = [
        chunker(0),
        chunker(4 << 10),
        chunker(8 << 20),
        chunker((64 << 10) + 1),
        chunker(u32::MAX),
        pack(0),
        pack((1 << 20) - 1),
        pack((64 << 20) + 1),
        pack(u64::MAX),
    ];
    for options in cases {
        let error = Store::create(&dir.path().join("store"), &options).expect_err(&format!("{options:?}"));
        assert_eq!(error.kind(), ErrorKind::Limit, "{options:?}: {error}");
        assert!(!dir.path().join("store").exists(), "{options:?}: nothing was made");
    }
}

#[test]
fn a_newer_store_is_refused_as_such() {
    let fixture = Fixture::new();
    let path = fixture.store.path().join("format");
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"version\x01").expect("a version");
    let mut newer = bytes;
    newer[at + 7] = 2;
    std::fs::write(&path, newer).unwrap();
    let error = Store::open(fixture.store.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn an_ambiguous_prefix_lists_what_it_could_mean() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "1");
    let id = fixture.commit_new();
    let mut twin = id;
    twin.0[31] ^= 1;
    let path = |id: &SnapshotId| fixture.store.path().join("snapshots").join(id.to_hex());
    std::fs::copy(path(&id), path(&twin)).unwrap();
    let error = fixture.store.resolve(&id.to_hex()[..8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    let Error::AmbiguousSnapshot { candidates, .. } = &error else { panic!("{error}") };
    assert_eq!(candidates.len(), 2);
    assert_eq!(fixture.store.resolve(&id.to_hex()).unwrap(), id, "a full id is never ambiguous");
    assert_eq!(fixture.store.resolve("@latest").unwrap(), id, "the twin is damaged");
    // Files that are no snapshots are not listed.
    std::fs::write(fixture.store.path().join("snapshots/README"), "x").unwrap();
    std::fs::write(fixture.store.path().join("snapshots").join("A".repeat(64)), "x").unwrap();
    assert_eq!(fixture.store.snapshots().unwrap().len(), 2);
}
