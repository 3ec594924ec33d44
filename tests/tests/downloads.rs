// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What becomes of an area, and of what is kept for it, while content is on its way; and what the record says of where it came
//! from.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use evenkeel_store::backend::HttpBackend;
use evenkeel_store::backend::http::HttpOptions;
use evenkeel_store::checkout::{AreaTarget, CheckoutOptions, Mode, checkout};
use evenkeel_store::fsio::{Dir, RecordLock, TriedLock};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Progress, Store};
use evenkeel_tests::fixture::{AREA, assert_same, files_below};
use evenkeel_tests::web::{Asked, Manner, WebServer};
use evenkeel_tests::{Fixture, Place, noise, read_tree};

fn open(servers: &[&WebServer]) -> Store {
    let addresses: Vec<String> = servers.iter().map(|server| server.url()).collect();
    Store::open_at(Arc::new(HttpBackend::new(&addresses, HttpOptions::default()).unwrap())).unwrap()
}

/// A system with dpkg, in three releases.
fn releases(fixture: &Fixture) -> [SnapshotId; 3] {
    fixture.tree.file("var/lib/dpkg/lock-frontend", "").file("var/lib/dpkg/lock", "");
    [1, 2, 3].map(|release| {
        fixture.tree.file("program", noise(release, 300_000)).file(format!("only-{release}"), noise(9 + release, 5000));
        if release > 1 {
            fixture.tree.remove(format!("only-{}", release - 1));
        }
        fixture.commit_new()
    })
}

fn is_pack(asked: &Asked) -> bool {
    asked.path.starts_with("packs/")
}

/// Serves a store, and does something before it first answers for a pack.
fn interrupted_by(store: &Path, act: impl Fn() + Send + Sync + 'static) -> WebServer {
    let is_done = AtomicBool::new(false);
    WebServer::start(store, move |asked, _| {
        if is_pack(asked) && !is_done.swap(true, Ordering::Relaxed) {
            act();
        }
        Manner::Honest
    })
}

/// A checkout used to hold the area and dpkg's lock for as long as its content was on its way. What somebody else does to the area
/// meanwhile is seen before anything is switched.
#[test]
fn nobody_waits_for_a_download() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    for switch_meanwhile in [false, true] {
        let mut place = Place::new(&fixture, &format!("place-{switch_meanwhile}"));
        place.checkout(&ids[0], Mode::Full);
        let (store, paths, third) = (fixture.store.clone(), place.paths(), ids[2]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&seen);
        let server = interrupted_by(fixture.store.path(), move || {
            let dpkg = Dir::open(&paths.root.join("var/lib/dpkg")).unwrap();
            let tried = RecordLock::try_take(&dpkg, Path::new("lock-frontend")).unwrap();
            heard.lock().unwrap().push(format!("dpkg {}", matches!(tried, TriedLock::Held(_))));
            drop(tried);
            if switch_meanwhile {
                let mut options = CheckoutOptions::new(third, paths.state.clone());
                options.areas = vec![AreaTarget::new(AREA, &paths.root)];
                options.mode = Some(Mode::Full);
                let done = checkout(&store, &options, &Progress::default());
                heard.lock().unwrap().push(format!("checkout {}", done.is_ok()));
            }
        });
        place.store = open(&[&server]);
        let report = place.checkout(&ids[1], Mode::Full);
        place.assert_is(&ids[1]);
        let expected = ["dpkg true", "checkout true"];
        assert_eq!(*seen.lock().unwrap(), expected[..1 + usize::from(switch_meanwhile)]);
        assert_eq!(report.areas[0].before, Some(ids[if switch_meanwhile { 2 } else { 0 }]));
        assert_eq!(place.history().len(), 2 + usize::from(switch_meanwhile));
        let done = report.fetch.unwrap().done.unwrap();
        assert!(done.packs > 300_000 && done.prefetched == 0, "{done:?}");
        place.assert_records();
    }
}

/// A first checkout leaves nothing behind that was made to hold a new area, when its content does not come.
#[test]
fn a_download_that_fails_leaves_no_area() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let server = WebServer::start(fixture.store.path(), |asked, _| match is_pack(asked) {
        true if asked.range.is_some_and(|(first, last)| last - first > 50_000) => Manner::Status(403, ""),
        _ => Manner::Honest,
    });
    let mut place = Place::new(&fixture, "place");
    place.store = open(&[&server]);
    place.try_checkout(&ids[0], |_| {}).unwrap_err();
    assert!(!place.root.exists());
    place.store = fixture.store.clone();
    place.checkout_exactly(&ids[0]);
}

/// The record used to be silent about servers.
#[test]
fn the_record_names_a_mirror_that_lied() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let liar =
        WebServer::start(fixture.store.path(), |asked, _| if is_pack(asked) { Manner::Lie } else { Manner::Honest });
    let own = WebServer::honest(fixture.store.path());
    let mut place = Place::new(&fixture, "place");
    place.store = open(&[&liar, &own]);
    place.checkout(&ids[0], Mode::Full);
    let warnings: Vec<String> =
        place.record(1).iter().filter(|line| line["line"] == "warning").map(ToString::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(&liar.url()), "{warnings:?}");
}

fn fetched_file(state: &Path) -> PathBuf {
    let store = std::fs::read_dir(state.join("stores")).unwrap().next().unwrap().unwrap();
    store.path().join("fetched")
}

/// What was kept for a checkout that is through is of no use any more: that it cannot be removed is no failure.
#[test]
fn a_file_that_stays_behind_is_a_warning() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let mut place = Place::new(&fixture, "place");
    let state = place.state.clone();
    let server = interrupted_by(fixture.store.path(), move || {
        let file = fetched_file(&state);
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
    });
    place.store = open(&[&server]);
    let report = place.checkout(&ids[0], Mode::Full);
    place.assert_is(&ids[0]);
    let warnings = &report.areas[0].warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("fetched"), "{warnings:?}");
}

/// Two areas of one store used to exclude each other for as long as the content of one was on its way.
#[test]
fn two_areas_are_checked_out_at_the_same_time() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let (mut place, other) = (Place::new(&fixture, "place"), fixture.dir().join("other"));
    let second = WebServer::honest(fixture.store.path());
    let (store, state, first, root) = (open(&[&second]), place.state.clone(), ids[0], other.clone());
    let server = interrupted_by(fixture.store.path(), move || {
        let mut options = CheckoutOptions::new(first, state.clone());
        options.areas = vec![AreaTarget::new(AREA, &root)];
        checkout(&store, &options, &Progress::default()).unwrap();
    });
    place.store = open(&[&server]);
    place.checkout(&ids[0], Mode::Full);
    place.assert_is(&ids[0]);
    assert_same(&read_tree(&other), &fixture.read(&ids[0]));
    let names = files_below(&place.state).into_keys().filter(|name| name.contains("/fetched"));
    let left: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
    assert_eq!(left, [""; 0]);
}
