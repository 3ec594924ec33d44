// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The catalog is local and rebuildable: lost, damaged, half made or of another store, it gives the same answers.

use std::path::{Path, PathBuf};

use evenkeel_store::ErrorKind;
use evenkeel_store::catalog::Catalog;
use evenkeel_store::id::SnapshotId;
use evenkeel_tests::fixture::files_below;
use evenkeel_tests::{Fixture, noise};

/// A store of a few labelled snapshots.
fn labelled() -> (Fixture, Vec<SnapshotId>) {
    let fixture = Fixture::new();
    let ids = (0..6u64)
        .map(|number| {
            fixture.tree.file("f", noise(number, 100));
            let label = ("ticket".to_string(), (number % 3).to_string());
            fixture.try_commit(|options| options.labels = [label].into()).unwrap().snapshot.unwrap()
        })
        .collect();
    (fixture, ids)
}

fn assert_answers(fixture: &Fixture, catalog: &Catalog, ids: &[SnapshotId]) {
    for id in ids {
        assert_eq!(catalog.snapshot(id).unwrap().unwrap(), fixture.store.snapshot(id).unwrap());
        assert_eq!(catalog.with_prefix(&id.to_hex()[..9]).unwrap(), [*id]);
    }
    let mut expected = vec![ids[1], ids[4]];
    expected.sort_unstable();
    assert_eq!(catalog.with_label("ticket", "1").unwrap(), expected);
    assert_eq!(catalog.with_label("ticket", "").unwrap(), []);
    assert_eq!(catalog.with_label("ticke", "t=1").unwrap(), []);
    assert_eq!(catalog.snapshot(&SnapshotId::of(b"none")).unwrap(), None);
}

fn place(fixture: &Fixture) -> PathBuf {
    fixture.state.join("stores").join(fixture.store.id().to_string()).join("catalog")
}

#[test]
fn it_answers_and_keeps_up() {
    let (fixture, mut ids) = labelled();
    let catalog = Catalog::open(&fixture.store, &fixture.state).unwrap();
    assert!(catalog.notes().is_empty());
    assert_answers(&fixture, &catalog, &ids);
    drop(catalog);
    fixture.tree.file("g", "1");
    ids.push(fixture.commit_new());
    let catalog = Catalog::open(&fixture.store, &fixture.state).unwrap();
    assert_answers(&fixture, &catalog, &ids);
    drop(catalog);
    // A snapshot that is gone is forgotten, with its labels.
    std::fs::remove_file(fixture.store.path().join("snapshots").join(ids[2].to_hex())).unwrap();
    let catalog = Catalog::open(&fixture.store, &fixture.state).unwrap();
    assert_eq!(catalog.with_label("ticket", "2").unwrap(), [ids[5]]);
    assert_eq!(catalog.snapshot(&ids[2]).unwrap(), None);
}

#[test]
fn deleted_it_is_made_anew() {
    let (fixture, ids) = labelled();
    drop(Catalog::open(&fixture.store, &fixture.state).unwrap());
    std::fs::remove_dir_all(place(&fixture)).unwrap();
    assert_answers(&fixture, &Catalog::open(&fixture.store, &fixture.state).unwrap(), &ids);
}

/// Every way to spoil the database, file by file.
#[test]
fn damaged_it_is_moved_aside_and_made_anew() {
    let (fixture, ids) = labelled();
    drop(Catalog::open(&fixture.store, &fixture.state).unwrap());
    let place = place(&fixture);
    let good = files_below(&place);
    assert!(!good.is_empty());
    type Spoil = fn(&Path, &[u8]);
    let spoils: [(&str, Spoil); 6] = [
        ("deleted", |path, _| std::fs::remove_file(path).unwrap()),
        ("emptied", |path, _| std::fs::write(path, b"").unwrap()),
        ("halved", |path, old| std::fs::write(path, &old[..old.len() / 2]).unwrap()),
        ("random", |path, old| std::fs::write(path, noise(1, old.len())).unwrap()),
        ("zeros", |path, old| std::fs::write(path, vec![0; old.len()]).unwrap()),
        ("flipped", |path, old| {
            let mut bytes = old.to_vec();
            bytes[old.len() / 3] ^= 0x40;
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (name, bytes) in good.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        for (what, spoil) in spoils {
            spoil(&place.join(name), bytes);
            let catalog =
                Catalog::open(&fixture.store, &fixture.state).unwrap_or_else(|e| panic!("{name} {what}: {e}"));
            assert_answers(&fixture, &catalog, &ids);
            drop(catalog);
            std::fs::remove_dir_all(&place).unwrap();
            for (name, bytes) in &good {
                std::fs::create_dir_all(place.join(name).parent().unwrap()).unwrap();
                std::fs::write(place.join(name), bytes).unwrap();
            }
        }
    }
}

#[test]
fn half_made_or_of_another_store_it_is_made_anew() {
    let (fixture, ids) = labelled();
    let (other, _) = labelled();
    drop(Catalog::open(&other.store, &other.state).unwrap());
    let place = place(&fixture);
    std::fs::create_dir_all(&place).unwrap();
    assert_answers(&fixture, &Catalog::open(&fixture.store, &fixture.state).unwrap(), &ids);

    // Killed while it was made: the temporary one is there, the real one is not.
    std::fs::rename(&place, place.with_file_name("catalog.new")).unwrap();
    std::fs::write(place.with_file_name("catalog.new").join("junk"), "j").unwrap();
    assert_answers(&fixture, &Catalog::open(&fixture.store, &fixture.state).unwrap(), &ids);

    std::fs::remove_dir_all(&place).unwrap();
    for (name, bytes) in files_below(&self::place(&other)) {
        std::fs::create_dir_all(place.join(&name).parent().unwrap()).unwrap();
        std::fs::write(place.join(&name), bytes).unwrap();
    }
    let catalog = Catalog::open(&fixture.store, &fixture.state).unwrap();
    assert_answers(&fixture, &catalog, &ids);
    assert_eq!(catalog.notes().len(), 1, "{:?}", catalog.notes());

    // A file where the directory should be.
    drop(catalog);
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "not a directory").unwrap();
    assert_answers(&fixture, &Catalog::open(&fixture.store, &fixture.state).unwrap(), &ids);
}

#[test]
fn open_elsewhere_it_is_locked() {
    let (fixture, _) = labelled();
    let _held = Catalog::open(&fixture.store, &fixture.state).unwrap();
    let error = Catalog::open(&fixture.store, &fixture.state).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
}
