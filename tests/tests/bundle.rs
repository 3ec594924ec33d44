// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store in one file: used as a store, and refused when it is not what it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_store::backend::BundleBackend;
use evenkeel_store::check::{CheckOptions, check};
use evenkeel_store::copy::bundle::assemble;
use evenkeel_store::copy::{CopyOptions, copy, open_target};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{ErrorKind, Progress, Result, Store};
use evenkeel_tests::fixture::assert_same;
use evenkeel_tests::naive::read_snapshot;
use evenkeel_tests::{Fixture, Place, noise, read_tree};

fn releases(fixture: &Fixture) -> [SnapshotId; 2] {
    let tree = &fixture.tree;
    for at in 0..60u64 {
        tree.file(format!("d{}/f{at}", at % 7), noise(at, 3000));
    }
    tree.file("long", noise(1000, 1 << 20)).file("empty", "").sparse("sparse", 1 << 20, &[(4096, b"x")]);
    let first = fixture.commit_new();
    tree.file("d1/f8", noise(2000, 3000)).file("new", noise(2001, 200_000)).rename("d2/f2", "d2/moved");
    [first, fixture.commit_new()]
}

fn bundle(fixture: &Fixture, id: &SnapshotId, bases: &[SnapshotId]) -> PathBuf {
    let path = fixture.dir().join(format!("{}-{}.bundle", id.short(8), bases.len()));
    let options = CopyOptions::new(&fixture.state);
    let assembled = assemble(&fixture.store, id, bases, &options, &Progress::default()).unwrap();
    assembled.write_file(&path, &Progress::default()).unwrap();
    let mut piped = Vec::new();
    assembled.write_to(&mut piped, &Progress::default()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), piped);
    path
}

fn open(path: &Path) -> Result<Store> {
    Store::open_at(Arc::new(BundleBackend::open(path)?))
}

fn copy_into(from: &Store, path: &Path, state: &Path) -> Result<Store> {
    let (to, _) = open_target(path, from)?;
    copy(from, &to, &[], &CopyOptions::new(state), &Progress::default())?;
    Ok(to)
}

#[test]
fn a_bundle_is_a_store() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let path = bundle(&fixture, &ids[1], &[]);
    BundleBackend::open(&path).unwrap().verify(&Progress::default()).unwrap();
    let store = open(&path).unwrap();
    assert_eq!(store.latest().unwrap(), Some(ids[1]));
    let snapshot = store.snapshot(&ids[1]).unwrap();
    assert_same(&read_snapshot(&store, &snapshot, "tree").unwrap(), &fixture.read(&ids[1]));
    let report = check(&store, &CheckOptions { read_data: true, ..CheckOptions::default() }, &Progress::default());
    assert!(!report.unwrap().is_damaged());
    let mut place = Place::new(&fixture, "server");
    place.store = store.clone();
    place.try_checkout(&ids[1], |_| {}).unwrap();
    assert_same(&read_tree(&place.root), &fixture.read(&ids[1]));
    assert_eq!(store.writing().map(drop).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn with_a_base_it_is_small_and_needs_it() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let (whole, small) = (bundle(&fixture, &ids[1], &[]), bundle(&fixture, &ids[1], &ids[..1]));
    let len = |path: &Path| path.metadata().unwrap().len();
    assert!(len(&small) < len(&whole) / 3, "{} of {}", len(&small), len(&whole));
    let (site, state) = (fixture.dir().join("site"), fixture.dir().join("site-state"));
    let refused = copy_into(&open(&small).unwrap(), &site, &state).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains(&ids[0].short(12)), "{refused}");
    copy_into(&open(&bundle(&fixture, &ids[0], &[])).unwrap(), &site, &state).unwrap();
    let site = copy_into(&open(&small).unwrap(), &site, &state).unwrap();
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    assert_eq!(check(&site, &options, &Progress::default()).unwrap().findings, []);
    for id in &ids {
        let snapshot = site.snapshot(id).unwrap();
        assert_same(&read_snapshot(&site, &snapshot, "tree").unwrap(), &fixture.read(id));
    }
}

#[test]
fn damage_and_cuts_are_found() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let path = bundle(&fixture, &ids[1], &[]);
    let sound = std::fs::read(&path).unwrap();
    let (site, state) = (fixture.dir().join("site"), fixture.dir().join("site-state"));
    for at in (0..sound.len()).step_by(sound.len() / 60) {
        std::fs::write(&path, &sound[..at]).unwrap();
        assert_eq!(BundleBackend::open(&path).unwrap_err().kind(), ErrorKind::Damaged, "cut at {at}");
        let mut damaged = sound.clone();
        damaged[at] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        let verified = BundleBackend::open(&path).and_then(|bundle| bundle.verify(&Progress::default()));
        assert!(verified.is_err(), "byte {at}");
        // Either nothing comes out of it, or what comes out is right.
        if let Ok(copied) = open(&path).and_then(|store| copy_into(&store, &site, &state)) {
            let snapshot = copied.snapshot(&ids[1]).unwrap();
            assert_same(&read_snapshot(&copied, &snapshot, "tree").unwrap(), &fixture.read(&ids[1]));
        }
        if site.exists() {
            std::fs::remove_dir_all(&site).unwrap();
        }
    }
}
