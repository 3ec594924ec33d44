// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deltas where they lie: copied with their snapshots, audited, replaced, and no more of them than there may be.

use evenkeel_store::backend::ObjectName;
use evenkeel_store::check::{CheckOptions, check};
use evenkeel_store::copy::{CopyOptions, copy, open_target};
use evenkeel_store::delta::{MakeOptions, make, read_index};
use evenkeel_store::format::delta::DeltaIndexEntry;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Error, Progress, Store};
use evenkeel_tests::Fixture;
use evenkeel_tests::web::WebServer;

use crate::delta::{add_delta, add_delta_with, open, publish_index, releases};

/// Deltas to copied snapshots stayed behind, and every remote of a mirror fetched chunks whole.
#[test]
fn deltas_are_copied_with_their_snapshots() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 3);
    let entries = [add_delta(&fixture, &ids[0], &ids[1]), add_delta(&fixture, &ids[1], &ids[2])];
    let server = WebServer::honest(fixture.store.path());
    let (path, state) = (fixture.dir().join("mirror"), fixture.dir().join("mirror-state"));
    let copy = |from: &Store| {
        let (to, _) = open_target(&path, from).unwrap();
        copy(from, &to, &[], &CopyOptions::new(&state), &Progress::default()).unwrap()
    };
    let report = copy(&open(&[&server]));
    assert_eq!((report.copied.len(), report.deltas, report.warnings), (3, 2, Vec::new()));
    let mirror = Store::open(&path).unwrap();
    for (target, entry) in ids[1..].iter().zip(&entries) {
        assert_eq!(read_index(&mirror, target).unwrap(), [*entry]);
        let bytes =
            |store: &Store| std::fs::read(store.path().join(ObjectName::Delta(entry.delta).to_string())).unwrap();
        assert!(bytes(&mirror) == bytes(&fixture.store));
    }
    assert_eq!(copy(&fixture.store).deltas, 0, "only what is missing");
    // What is new comes although the snapshots are there; it takes the place of what it replaces.
    let again = add_delta_with(&fixture, &ids[0], &ids[1], |_, plain| plain.iter().map(|byte| byte ^ 1).collect());
    assert_ne!(again, entries[0]);
    assert_eq!(copy(&fixture.store).deltas, 1);
    assert_eq!(read_index(&mirror, &ids[1]).unwrap(), [again]);
    for store in [&mirror, &fixture.store] {
        let old = store.path().join(ObjectName::Delta(entries[0].delta).to_string());
        assert!(!old.exists(), "{}: nothing names it any more", old.display());
    }
    assert_eq!(findings(&mirror), [""; 0]);
}

#[test]
fn a_damaged_delta_is_told_of_and_not_copied() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    let entry = add_delta(&fixture, &ids[0], &ids[1]);
    let path = fixture.store.path().join(ObjectName::Delta(entry.delta).to_string());
    let sound = std::fs::read(&path).unwrap();
    let index = fixture.store.path().join(ObjectName::DeltaIndex(ids[1]).to_string());
    let head = usize::try_from(entry.head_len).unwrap();
    for (number, at) in [40, head - 1, head, sound.len() - 1].into_iter().enumerate() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (target, state) = (fixture.dir().join(format!("copy-{number}")), fixture.dir().join("copy-state"));
        let (to, _) = open_target(&target, &fixture.store).unwrap();
        let report = copy(&fixture.store, &to, &[], &CopyOptions::new(&state), &Progress::default()).unwrap();
        assert_eq!((report.copied.len(), report.deltas), (2, 0), "byte {at}");
        assert!(
            matches!(&report.warnings[..], [told] if told.starts_with("a delta was not copied: deltas/")),
            "{report:?}"
        );
        assert_eq!(read_index(&to, &ids[1]).unwrap(), []);
        assert_eq!(findings(&to), [""; 0]);
    }
    // A longer one has the name of a shorter one.
    std::fs::write(&path, [&sound[..], b"x"].concat()).unwrap();
    assert_eq!(findings(&fixture.store).len(), 1);
    std::fs::write(&path, &sound).unwrap();
    std::fs::write(&index, b"damaged").unwrap();
    let found = findings(&fixture.store);
    assert!(matches!(&found[..], [told] if told.contains("/index: ")), "{found:?}");
}

/// What `check --read-data` finds, a line each; nothing about deltas is damage of the store, or hurts a snapshot.
#[track_caller]
fn findings(store: &Store) -> Vec<String> {
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = check(store, &options, &Progress::default()).unwrap();
    assert!(!report.is_damaged() && report.findings.iter().all(|finding| finding.hurts.is_empty()), "{report:?}");
    report.findings.iter().map(|finding| format!("{}: {}", finding.object, finding.problem)).collect()
}

#[test]
fn check_reads_deltas() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    let entry = add_delta(&fixture, &ids[0], &ids[1]);
    let name = ObjectName::Delta(entry.delta).to_string();
    let path = fixture.store.path().join(&name);
    let sound = std::fs::read(&path).unwrap();
    assert_eq!(findings(&fixture.store), [""; 0]);
    let quick = || check(&fixture.store, &CheckOptions::default(), &Progress::default()).unwrap();
    assert_eq!((quick().deltas, quick().findings), (1, Vec::new()));
    let head = usize::try_from(entry.head_len).unwrap();
    for at in [0, 100, head - 1, head, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let found = findings(&fixture.store);
        assert!(matches!(&found[..], [told] if told.starts_with(&format!("{name}: "))), "byte {at}: {found:?}");
        assert_eq!(
            quick().findings.len(),
            usize::from(at < head),
            "byte {at}: without --read-data payloads are not read"
        );
    }
    std::fs::write(&path, &sound[..sound.len() - 1]).unwrap();
    assert_eq!(quick().findings.len(), 1, "too short");
    std::fs::remove_file(&path).unwrap();
    assert!(quick().findings[0].problem.starts_with("missing"), "{:?}", quick().findings);
    std::fs::write(&path, &sound).unwrap();
    // A list that names it with another base.
    publish_index(&fixture, &ids[1], &[DeltaIndexEntry { base: Some(SnapshotId([7; 32])), ..entry }]);
    assert!(quick().findings[0].problem.contains("other snapshots"), "{:?}", quick().findings);
}

/// It was found out when the delta had been made, whose file stayed.
#[test]
fn a_full_index_is_found_before_the_work_is_done() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    let entry = add_delta(&fixture, &ids[0], &ids[1]);
    let others: Vec<DeltaIndexEntry> = (0..=255)
        .map(|at| DeltaIndexEntry { base: Some(SnapshotId([at, 1].repeat(16).try_into().unwrap())), ..entry })
        .collect();
    publish_index(&fixture, &ids[1], &others);
    let before = fixture.objects();
    let make = || {
        let lock = fixture.store.lock_writer(&fixture.state).unwrap();
        make(&fixture.store, ids[0], ids[1], MakeOptions::default(), &lock, &Progress::default())
    };
    let refused = make().unwrap_err();
    assert!(matches!(refused, Error::LimitExceeded { what: "deltas to one snapshot", .. }), "{refused}");
    assert!(fixture.objects() == before, "nothing stays");
    publish_index(&fixture, &ids[1], &[&others[1..], &[entry]].concat());
    make().unwrap();
    let files =
        fixture.objects().keys().filter(|name| name.starts_with("deltas/") && !name.ends_with("/index")).count();
    assert_eq!(files, 1, "the one that was replaced is gone");
}
