// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots from one store to another: only what is missing, and whatever stops it, a further run finishes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_store::backend::HttpBackend;
use evenkeel_store::backend::http::HttpOptions;
use evenkeel_store::check::{CheckOptions, check};
use evenkeel_store::copy::{CopyOptions, CopyReport, copy, open_target};
use evenkeel_store::format::store::ChunkerParams;
use evenkeel_store::fsio::script::Script;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::store::InitOptions;
use evenkeel_store::{Error, ErrorKind, Progress, Result, Store};
use evenkeel_tests::fixture::{assert_same, files_below};
use evenkeel_tests::naive::read_snapshot;
use evenkeel_tests::operation::EIO;
use evenkeel_tests::web::WebServer;
use evenkeel_tests::{Fixture, noise};

/// Three releases: a big first one, a small change, and one that takes most of the first away.
fn releases(fixture: &Fixture) -> [SnapshotId; 3] {
    let tree = &fixture.tree;
    for at in 0..60u64 {
        tree.file(format!("d{}/f{at}", at % 7), noise(at, 3000));
    }
    tree.file("long", noise(1000, 2 << 20)).file("empty", "").sparse("sparse", 1 << 20, &[(4096, b"x")]);
    let first = fixture.commit_new();
    tree.file("d1/f8", noise(2000, 3000)).file("new", noise(2001, 200_000));
    let second = fixture.commit_new();
    tree.remove("long").file("last", noise(3000, 50_000));
    [first, second, fixture.commit_new()]
}

struct Target {
    path: PathBuf,
    state: PathBuf,
}

impl Target {
    fn new(fixture: &Fixture, name: &str) -> Target {
        Target { path: fixture.dir().join(name), state: fixture.dir().join(format!("{name}-state")) }
    }

    fn try_copy(&self, from: &Store, ids: &[SnapshotId]) -> Result<CopyReport> {
        let (to, _) = open_target(&self.path, from)?;
        let options = CopyOptions { threads: 1, ..CopyOptions::new(&self.state) };
        copy(from, &to, ids, &options, &Progress::default())
    }

    fn copy(&self, from: &Store, ids: &[SnapshotId]) -> CopyReport {
        self.try_copy(from, ids).unwrap()
    }

    fn store(&self) -> Store {
        Store::open(&self.path).unwrap()
    }

    /// A thorough check finds nothing, and the snapshots are those of the fixture.
    #[track_caller]
    fn assert_has(&self, fixture: &Fixture, ids: &[SnapshotId]) {
        let store = self.store();
        let options = CheckOptions { read_data: true, ..CheckOptions::default() };
        assert_eq!(check(&store, &options, &Progress::default()).unwrap().findings, []);
        let found: Vec<SnapshotId> = store.snapshots().unwrap().iter().map(|record| record.id).collect();
        assert_eq!(found, ids);
        for id in ids {
            let snapshot = store.snapshot(id).unwrap();
            assert_same(&read_snapshot(&store, &snapshot, "tree").unwrap(), &fixture.read(id));
        }
    }

    fn packs(&self) -> BTreeSet<String> {
        names(&files_below(&self.path), "packs/")
    }
}

fn names(objects: &BTreeMap<String, Vec<u8>>, below: &str) -> BTreeSet<String> {
    objects.keys().filter(|name| name.starts_with(below)).cloned().collect()
}

fn far(server: &WebServer) -> Store {
    Store::open_at(Arc::new(HttpBackend::new(&[server.url()], HttpOptions::default()).unwrap())).unwrap()
}

fn content_asked(server: &WebServer) -> u64 {
    let asked = server.asked();
    let ranges = asked.iter().filter(|asked| asked.path.starts_with("packs/")).filter_map(|asked| asked.range);
    ranges.map(|(first, last)| last - first + 1).sum()
}

#[test]
fn a_whole_store_comes_out_pack_by_pack() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let target = Target::new(&fixture, "copy");
    let report = target.copy(&fixture.store, &[]);
    assert_eq!(report.copied, ids);
    assert_eq!(report.absent_parents, []);
    target.assert_has(&fixture, &ids);
    assert_ne!(target.store().id(), fixture.store.id());
    assert_eq!(target.packs(), names(&fixture.objects(), "packs/"), "packs keep their names");

    let before = files_below(&target.path);
    let again = target.copy(&fixture.store, &[]);
    assert_eq!((again.copied.len(), again.there.len(), again.chunks, again.stored_bytes), (0, 3, 0, 0));
    assert_eq!(files_below(&target.path), before, "nothing is written again");
}

#[test]
fn a_chosen_snapshot_drags_nothing_along() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let target = Target::new(&fixture, "copy");
    let report = target.copy(&fixture.store, &ids[2..]);
    assert_eq!(report.copied, ids[2..]);
    assert_eq!(report.absent_parents, [ids[1]]);
    target.assert_has(&fixture, &ids[2..]);
    let size = |path: &Path| files_below(path).values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let (whole, copied) = (size(fixture.store.path()), size(&target.path));
    assert!(copied < whole - (2 << 20), "{copied} of {whole}: the long file is not needed");

    // What is older comes later, and is still older.
    target.copy(&fixture.store, &ids[..1]);
    assert_eq!(target.store().latest().unwrap(), Some(ids[2]));
    target.assert_has(&fixture, &[ids[0], ids[2]]);
    assert!(matches!(target.store().resolve("@latest~1"), Err(Error::UnknownSnapshot { .. })));
    target.copy(&fixture.store, &[]);
    target.assert_has(&fixture, &ids);
}

#[test]
fn a_store_that_cuts_files_otherwise_is_refused() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let path = fixture.dir().join("other");
    let options = InitOptions { chunker: ChunkerParams::around(64 << 10), ..InitOptions::default() };
    let other = Store::create(&path, &options).unwrap();
    let before = files_below(&path);
    let state = fixture.dir().join("other-state");
    let refused = copy(&fixture.store, &other, &ids, &CopyOptions::new(&state), &Progress::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert_eq!(files_below(&path), before);
}

#[test]
fn damage_at_the_source_reaches_no_target() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let pack =
        names(&fixture.objects(), "packs/").into_iter().max_by_key(|name| fixture.objects()[name].len()).unwrap();
    let path = fixture.store.path().join(&pack);
    let sound = std::fs::read(&path).unwrap();
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let target = Target::new(&fixture, "copy");
    let refused = target.try_copy(&fixture.store, &ids).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged, "{refused}");
    assert!(refused.to_string().contains(&pack), "{refused}");
    // Sound packs that came before it stay, for the next time; nothing names them.
    assert_eq!(target.store().snapshots().unwrap(), []);
    std::fs::write(&path, &sound).unwrap();
    target.copy(&fixture.store, &ids);
    target.assert_has(&fixture, &ids);
}

#[test]
fn a_lost_pack_of_the_target_is_copied_again() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let target = Target::new(&fixture, "copy");
    target.copy(&fixture.store, &[]);
    for pack in target.packs() {
        std::fs::remove_file(target.path.join(pack)).unwrap();
        target.copy(&fixture.store, &[]);
        target.assert_has(&fixture, &ids);
    }
}

#[test]
fn from_a_web_server_each_byte_once() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let server = WebServer::honest(fixture.store.path());
    let target = Target::new(&fixture, "copy");
    target.copy(&far(&server), &ids[..1]);
    target.assert_has(&fixture, &ids[..1]);
    let first = content_asked(&server);
    target.copy(&far(&server), &[]);
    target.assert_has(&fixture, &ids);
    let packs: usize =
        fixture.objects().iter().filter(|(name, _)| name.starts_with("packs/")).map(|(_, b)| b.len()).sum();
    let all = content_asked(&server);
    assert!(first < all && all <= packs as u64, "{first}, then {all} of {packs}");
    let before = content_asked(&server);
    target.copy(&far(&server), &[]);
    assert_eq!(content_asked(&server), before, "nothing is fetched again");
}

/// From some call on none succeeds any more, as for a process that was killed; or one fails and the rest goes on.
fn sweep(is_killed: bool) {
    const RUNS: u64 = 80;
    let fixture = Fixture::in_memory();
    let ids = releases(&fixture);
    let counted = Script::new(fixture.dir(), |_| Ok(()));
    Target::new(&fixture, "counted").copy(&fixture.store, &[]);
    let calls = counted.calls();
    drop(counted);
    let mut failures = 0;
    for number in (1..=calls).step_by(usize::try_from(calls.div_ceil(RUNS)).unwrap()) {
        let target = Target::new(&fixture, &format!("target-{number}"));
        let script = Script::new(fixture.dir(), move |call| {
            let fails = if is_killed { call.number >= number } else { call.number == number };
            if fails { Err(EIO) } else { Ok(()) }
        });
        failures += u64::from(target.try_copy(&fixture.store, &[]).is_err());
        drop(script);
        if let Ok(store) = Store::open(&target.path) {
            for record in store.snapshots().unwrap() {
                let snapshot = store.snapshot(&record.id).unwrap();
                assert_same(&read_snapshot(&store, &snapshot, "tree").unwrap(), &fixture.read(&record.id));
            }
        }
        let published = if target.path.join("packs").exists() { target.packs() } else { BTreeSet::new() };
        target.copy(&fixture.store, &[]);
        target.assert_has(&fixture, &ids);
        assert!(target.packs().is_superset(&published), "call {number} of {calls}");
        assert_eq!(
            target.packs().len(),
            names(&fixture.objects(), "packs/").len(),
            "call {number}: a pack copied twice"
        );
        assert_eq!(names(&files_below(&target.path), "tmp/"), BTreeSet::new());
        std::fs::remove_dir_all(&target.path).unwrap();
    }
    assert!(failures > RUNS / 4, "only {failures} of {calls} failed");
}

#[test]
fn killed_at_any_call() {
    sweep(true);
}

#[test]
fn any_single_call_fails() {
    sweep(false);
}

/// A second run takes what the first one had fetched when it died, from the packs and from what was not packed yet.
#[test]
fn killed_while_fetching_nothing_is_fetched_twice() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let server = WebServer::honest(fixture.store.path());
    let target = Target::new(&fixture, "counted");
    let store = far(&server);
    let counted = Script::new(fixture.dir(), |_| Ok(()));
    target.copy(&store, &ids[..1]);
    let calls = counted.calls();
    drop(counted);
    let whole = content_asked(&server);
    for number in (1..calls).step_by(usize::try_from(calls.div_ceil(12)).unwrap()) {
        let server = WebServer::honest(fixture.store.path());
        let target = Target::new(&fixture, &format!("target-{number}"));
        let store = far(&server);
        let script = Script::new(&target.path, move |call| if call.number >= number { Err(EIO) } else { Ok(()) });
        let _ = target.try_copy(&store, &ids[..1]);
        drop(script);
        target.copy(&far(&server), &ids[..1]);
        target.assert_has(&fixture, &ids[..1]);
        assert!(content_asked(&server) <= whole, "call {number}: {} instead of {whole}", content_asked(&server));
    }
}
