// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What this machine has need not come over the line, and what came once does not come again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_store::backend::HttpBackend;
use evenkeel_store::backend::http::{HttpOptions, Patience};
use evenkeel_store::checkout::{CheckoutReport, Line, Mode};
use evenkeel_store::delta::{Effort, MakeOptions, make};
use evenkeel_store::fetch::FetchBytes;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{ErrorKind, Progress, Store};
use evenkeel_tests::fixture::assert_same;
use evenkeel_tests::web::{Asked, Manner, WebServer};
use evenkeel_tests::{Fixture, Place, noise, read_tree};

fn far(server: &WebServer, rate: Option<u64>) -> Store {
    let patience = Patience {
        rounds: 2,
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        ..Patience::default()
    };
    let options = HttpOptions { patience, bytes_per_second: rate, ..HttpOptions::default() };
    Store::open_at(Arc::new(HttpBackend::new(&[server.url()], options).unwrap())).unwrap()
}

fn far_place<'f>(fixture: &'f Fixture, name: &str, server: &WebServer) -> Place<'f> {
    let mut place = Place::new(fixture, name);
    place.store = far(server, None);
    place
}

fn done(report: &CheckoutReport) -> FetchBytes {
    report.fetch.unwrap().done.unwrap()
}

#[track_caller]
fn assert_is(place: &Place<'_>, fixture: &Fixture, id: &SnapshotId) {
    assert_same(&read_tree(&place.root), &fixture.read(id));
}

fn fetch(place: &Place<'_>, id: &SnapshotId) -> CheckoutReport {
    place.try_checkout(id, |options| options.fetch_only = true).unwrap()
}

/// A release with a file of several chunks, one with a list of its own, and small ones.
fn first_release(fixture: &Fixture) -> SnapshotId {
    let tree = &fixture.tree;
    tree.dir("a").dir("b").file("a/large", noise(1, 400_000)).file("a/huge", noise(2, 9 << 20));
    for at in 0..50u64 {
        tree.file(format!("b/{at}"), noise(100 + at, 2000));
    }
    fixture.commit_new()
}

/// Paths and bytes that were asked for more than once.
fn asked_twice(asked: &[Asked]) -> u64 {
    let mut ranges: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for asked in asked {
        if let Some(range) = asked.range {
            ranges.entry(&asked.path).or_default().push(range);
        }
    }
    let mut twice = 0;
    for ranges in ranges.values_mut() {
        ranges.sort_unstable();
        let mut end = 0;
        for (first, last) in ranges {
            twice += end.min(*last + 1).saturating_sub(*first);
            end = end.max(*last + 1);
        }
    }
    twice
}

/// Files that move, and chunks that a file shares with its old version, are where they were delivered.
#[test]
fn the_live_tree_is_the_nearest_mirror() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    let mut large = noise(1, 400_000);
    large[200_000] ^= 1;
    fixture.tree.remove("a").dir("c").file("c/moved", noise(2, 9 << 20)).file("c/large", &large);
    let second = fixture.commit_new();
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", &server);
    place.checkout(&first, Mode::Full);
    let before = server.asked().len();
    let report = place.checkout(&second, Mode::Full);
    assert_is(&place, &fixture, &second);
    let done = done(&report);
    assert!(done.live > (9 << 20) + 300_000, "{done:?}");
    assert!(done.packs < 150_000, "{done:?}\n{:?}", server.asked().split_off(before));
    assert_eq!(report.areas[0].warnings, [""; 0]);
    // What was foreseen came true, and both are in the record.
    let planned = report.fetch.unwrap().planned;
    assert_eq!((planned.live, planned.requests), (done.live, done.requests));
}

/// A file that somebody changed is no seed, and that is nothing to be warned of.
#[test]
fn a_file_that_changed_is_fetched() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    fixture.tree.remove("a/large").file("b/large", noise(1, 400_000));
    let second = fixture.commit_new();
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", &server);
    place.checkout(&first, Mode::Full);
    place.tree().file("a/large", noise(1, 400_000).iter().map(|byte| byte ^ 1).collect::<Vec<u8>>());
    let report = place.checkout(&second, Mode::Full);
    assert_is(&place, &fixture, &second);
    assert_eq!(done(&report).live, 0);
    assert!(done(&report).packs >= 400_000);
    assert_eq!(report.areas[0].warnings, [""; 0]);
}

#[test]
fn the_way_back_is_in_the_undo() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    fixture.tree.file("a/large", noise(3, 410_000)).remove("b");
    let second = fixture.commit_new();
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", &server);
    place.checkout(&first, Mode::Full);
    place.checkout(&second, Mode::Full);
    let report = place.checkout(&first, Mode::Full);
    assert_is(&place, &fixture, &first);
    let done = done(&report);
    assert!(done.undo >= 500_000 && done.packs == 0 && done.requests == 0, "{done:?}");
}

/// A directory that nobody has made ready, with everything in it that could hold a reader up.
#[test]
fn any_directory_is_a_seed() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    let seed = fixture.dir().join("image");
    std::fs::create_dir_all(seed.join("x/y")).unwrap();
    for (from, to) in [("a/huge", "x/other-name"), ("a/large", "x/y/large")] {
        std::fs::copy(fixture.tree.path(from), seed.join(to)).unwrap();
    }
    // As part of something else, which only a look into it tells.
    let both = [noise(9, 5000), noise(1, 400_000)].concat();
    std::fs::write(seed.join("x/y/large"), both).unwrap();
    std::os::unix::fs::symlink("/dev/zero", seed.join("x/zero")).unwrap();
    std::os::unix::fs::symlink("..", seed.join("x/loop")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(seed.join("x/pipe")).status().unwrap().success());
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", &server);
    let report = place
        .try_checkout(&first, |options| {
            options.mode = Some(Mode::Full);
            options.seeds = vec![seed.clone()];
        })
        .unwrap();
    assert_is(&place, &fixture, &first);
    let done = done(&report);
    assert!(done.seeds > (9 << 20) + 350_000, "{done:?}");
    // The small files, and what lies between them in a pack: less than another request would cost.
    assert!(done.packs < 1 << 20, "{done:?}");
    let missing = |options: &mut evenkeel_store::checkout::CheckoutOptions| {
        options.seeds = vec![PathBuf::from("/nowhere/at/all")];
    };
    let other = far_place(&fixture, "other", &server);
    assert_eq!(other.try_checkout(&first, missing).unwrap_err().kind(), ErrorKind::Io);
    assert!(!other.root.exists());
}

/// Another area of this machine has it.
#[test]
fn other_areas_are_seeds() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    let server = WebServer::honest(fixture.store.path());
    let one = far_place(&fixture, "one", &server);
    one.checkout(&first, Mode::Full);
    let mut two = far_place(&fixture, "two", &server);
    two.state = one.state.clone();
    let report = two.checkout(&first, Mode::Full);
    assert_is(&two, &fixture, &first);
    let done = done(&report);
    assert!(done.areas > 9 << 20 && done.packs == 0, "{done:?}");
}

#[test]
fn a_plan_tells_what_it_costs_and_fetches_nothing() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", &server);
    let planned = place
        .try_checkout(&first, |options| {
            options.mode = Some(Mode::Full);
            options.dry_run = true;
        })
        .unwrap();
    let fetch = planned.fetch.unwrap();
    assert!(fetch.done.is_none() && fetch.planned.packs > 9 << 20 && fetch.planned.requests > 0);
    assert!(fetch.disk_needed >= fetch.planned.packs + fetch.bytes_to_write);
    let sent = server.sent();
    assert!(sent < 1 << 20, "{sent} bytes to look at it");
    assert!(!place.root.exists() && !place.state.join("stores").exists());
    let report = place.checkout(&first, Mode::Full);
    assert_eq!(report.fetch.unwrap().planned, fetch.planned);
    assert_eq!(done(&report).packs, fetch.planned.packs);
    assert_eq!(done(&report).requests, fetch.planned.requests);
}

/// With deltas: what they bring is told apart from packs, and foreseen to the byte and the request.
#[test]
fn a_plan_counts_deltas_and_they_come_true() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    let (mut large, mut huge) = (noise(1, 400_000), noise(2, 9 << 20));
    large.iter_mut().step_by(3000).for_each(|byte| *byte ^= 1);
    huge.iter_mut().step_by(30_000).for_each(|byte| *byte ^= 1);
    fixture.tree.file("a/large", &large).file("a/huge", &huge).file("a/new", noise(7, 50_000));
    let second = fixture.commit_new();
    let options = MakeOptions { effort: Effort::Fast, threads: 1 };
    let lock = fixture.store.lock_writer(&fixture.state).unwrap();
    let made = make(&fixture.store, first, second, options, &lock, &Progress::default()).unwrap();
    drop(lock);
    let entry = made.entry.unwrap();
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", &server);
    place.checkout(&first, Mode::Full);
    let dry = place.try_checkout(&second, |options| options.dry_run = true).unwrap().fetch.unwrap();
    assert!(dry.planned.deltas > 0 && dry.planned.deltas < entry.file_len, "{dry:?} of {entry:?}");
    assert!(dry.planned.packs < 500_000, "{dry:?}");
    // What deltas give is kept as it is, not compressed.
    assert!(dry.disk_needed >= dry.bytes_to_write + (4 << 20), "{dry:?}");

    let report = place.checkout(&second, Mode::Full);
    assert_is(&place, &fixture, &second);
    let fetch = report.fetch.unwrap();
    assert_eq!(fetch.planned, dry.planned);
    let done = fetch.done.unwrap();
    assert_eq!((done.deltas, done.packs, done.requests), (dry.planned.deltas, dry.planned.packs, dry.planned.requests));
}

#[test]
fn what_is_fetched_beforehand_is_there_when_it_is_needed() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    fixture.tree.file("a/large", noise(5, 300_000));
    let second = fixture.commit_new();
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", &server);
    let report = fetch(&place, &first);
    assert!(report.planned_only && done(&report).packs > 9 << 20);
    assert!(!place.root.exists(), "nothing is changed");
    let again = fetch(&place, &first);
    assert_eq!((done(&again).packs, done(&again).requests), (0, 0));
    assert!(done(&again).prefetched > 9 << 20);
    // Another release: what only the first needs goes, and is said.
    let other = fetch(&place, &second);
    assert!(done(&other).packs < 600_000, "{:?}", done(&other));
    assert!(other.forgotten_bytes >= 400_000, "{}", other.forgotten_bytes);
    let before = server.asked().len();
    let report = place.checkout(&second, Mode::Full);
    assert_is(&place, &fixture, &second);
    assert_eq!((done(&report).packs, done(&report).requests), (0, 0));
    let asked = server.asked().split_off(before);
    assert!(asked.iter().all(|asked| asked.range.is_none()), "{asked:?}");
    let kept = place.state.join("stores").join(place.store.id().to_string()).join("fetched");
    assert!(!kept.exists(), "it has served its purpose");
}

/// One in eight, without a rhythm that a client could fall into.
fn is_answered(nth: usize) -> bool {
    (nth as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 == 0
}

/// The server goes away again and again; each time what had come stays.
#[test]
fn a_fetch_goes_on_where_it_was_and_no_byte_comes_twice() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    let server = WebServer::start(fixture.store.path(), |asked, nth| {
        if asked.range.is_some() && !is_answered(nth) { Manner::Status(500, "") } else { Manner::Honest }
    });
    let place = far_place(&fixture, "server", &server);
    let mut tries = 0;
    while let Err(error) = place.try_checkout(&first, |options| options.fetch_only = true) {
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
        tries += 1;
        assert!(tries < 200, "it never ends");
    }
    let good: Vec<Asked> =
        server.asked().into_iter().enumerate().filter(|(nth, _)| is_answered(*nth)).map(|(_, asked)| asked).collect();
    assert_eq!(asked_twice(&good), 0);
    let honest = WebServer::honest(fixture.store.path());
    let mut place = place;
    place.store = far(&honest, None);
    place.checkout(&first, Mode::Full);
    assert_is(&place, &fixture, &first);
    assert!(honest.asked().iter().all(|asked| asked.range.is_none()));
}

#[test]
fn a_rate_is_kept_to_by_all_connections_together() {
    let fixture = Fixture::small();
    fixture.tree.file("f", noise(1, 600_000));
    let id = fixture.commit_new();
    let server = WebServer::honest(fixture.store.path());
    let mut place = Place::new(&fixture, "server");
    place.store = far(&server, Some(400_000));
    let start = Instant::now();
    let report = fetch(&place, &id);
    let least = Duration::from_secs_f64(600_000.0 / 400_000.0 - 0.3);
    assert!(start.elapsed() >= least, "{:?}", start.elapsed());
    assert!(done(&report).packs >= 600_000);
}

#[test]
fn the_record_has_what_was_foreseen_and_what_came_of_it() {
    let fixture = Fixture::small();
    let first = first_release(&fixture);
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", &server);
    let report = place.checkout(&first, Mode::Full);
    let records = records(&place.state);
    let fetched: Vec<_> = records
        .iter()
        .filter_map(|line| match serde_json::from_str(line).unwrap() {
            Line::Fetch(fetch) => Some(*fetch),
            _ => None,
        })
        .collect();
    assert_eq!(fetched, [report.fetch.unwrap()]);
}

/// All lines of all records below a state directory.
fn records(state: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![state.to_path_buf()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            lines.extend(text.lines().filter(|line| line.starts_with("{\"line\":")).map(str::to_owned));
        }
    }
    lines
}
