// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A commit that is killed, or whose calls fail, at every call that writes: what is in the store afterwards is sound,
//! old or new, and the next commit works.
//!
//! A run takes a sample of the calls, another one each time; `EVENKEEL_SWEEP=all` takes every one.

use std::path::Path;
use std::process::Command;

use evenkeel_store::Store;
use evenkeel_tests::fixture::{assert_same, files_below, settle};
use evenkeel_tests::naive::read_snapshot;
use evenkeel_tests::strace::{Disturbed, Point, Tracer, some_of_each_call};
use evenkeel_tests::{Fixture, noise, read_tree};

const KILLED: &str = "signal=KILL";

/// One way to prepare the tree for the commit that is disturbed.
type Prepare = fn(&Fixture);

fn content_changes(fixture: &Fixture) {
    fixture.tree.file("new/large", noise(10, 3_000_000)).file("etc/empty", "not any more").remove("usr/share");
}

/// No content to read: the first calls of each kind are those of the thread that publishes.
fn only_metadata_changes(fixture: &Fixture) {
    fixture.tree.mode("etc/empty", 0o600);
}

fn one_commit(fixture: &Fixture) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_one-commit"));
    program.args([fixture.store.path(), &fixture.state, fixture.tree.root()]);
    program
}

/// Runs the commit under strace with one call disturbed.
fn disturbed(fixture: &Fixture, call: &'static str, number: usize, how: &str) -> Disturbed {
    Tracer::new(fixture.dir()).disturb(&one_commit(fixture), Point { call, number }, how)
}

/// Puts a directory back as it was.
fn restore(root: &Path, files: &std::collections::BTreeMap<String, Vec<u8>>) {
    std::fs::remove_dir_all(root).unwrap();
    for (name, bytes) in files {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), bytes).unwrap();
    }
    for dir in ["tmp", "packs", "locators"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
}

/// Disturbs a commit at `many` of the calls that write, one a run.
fn sweep(how: &str, what: &str, prepare: Prepare, many: usize) {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let old = fixture.commit_new();
    let old_tree = read_tree(fixture.tree.root());
    prepare(&fixture);
    settle();
    let new_tree = read_tree(fixture.tree.root());
    let (objects, state) = (fixture.objects(), files_below(&fixture.state));
    let put_back = || {
        restore(fixture.store.path(), &objects);
        restore(&fixture.state, &state);
    };
    let tracer = Tracer::new(fixture.dir());
    let points = some_of_each_call(&format!("{what}, {how}"), &tracer.points(&one_commit(&fixture)), many);
    put_back();
    let reached = points.iter().filter(|point| {
        let done = tracer.disturb(&one_commit(&fixture), **point, how);
        println!("{what}, {how}: {} number {}: {done:?}", point.call, point.number);
        if done.reached {
            let store = Store::open(fixture.store.path()).unwrap();
            let report = fixture.check();
            assert!(!report.is_damaged(), "{:#?}", report.findings);
            let snapshots = store.snapshots().unwrap();
            let latest = snapshots.last().unwrap().id;
            assert!(snapshots.len() <= 2 && snapshots[0].id == old, "{snapshots:?}");
            assert!(latest != old || !done.succeeded, "success, but no snapshot");
            assert!(latest == old || done.succeeded || how == KILLED, "a snapshot, but no success");
            let expected = if latest == old { &old_tree } else { &new_tree };
            assert_same(&read_snapshot(&store, &store.snapshot(&latest).unwrap(), "tree").unwrap(), expected);

            let next = fixture.try_commit(|_| {}).unwrap_or_else(|e| panic!("then {e}"));
            assert_eq!(next.is_new, latest == old);
            assert_same(&fixture.read(&next.snapshot.unwrap()), &new_tree);
            let report = fixture.check();
            assert!(!report.is_damaged(), "{:#?}", report.findings);
            let names = fixture.objects().into_keys().chain(files_below(&fixture.state).into_keys());
            let left: Vec<String> = names.filter(|name| name.contains("tmp-")).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        put_back();
        done.reached
    });
    let (reached, all) = (reached.count(), points.len());
    println!("{what}, {how}: {reached} of {all} points were reached");
    // Which worker takes which work is chance, and a few calls come with it.
    assert!(reached * 10 >= all * 8, "{what}, {how}: only {reached} of {all} points were reached");
}

#[test]
#[ignore = "root: runs a commit under strace"]
fn root_killed_at_every_call_that_writes() {
    sweep(KILLED, "metadata", only_metadata_changes, 25);
    sweep(KILLED, "content", content_changes, 40);
}

#[test]
#[ignore = "root: runs a commit under strace"]
fn root_every_call_that_writes_fails_with_eio() {
    sweep("error=EIO", "metadata", only_metadata_changes, 20);
    sweep("error=EIO", "content", content_changes, 30);
}

#[test]
#[ignore = "root: runs a commit under strace"]
fn root_every_call_that_needs_space_fails_with_enospc() {
    sweep("error=ENOSPC", "content", content_changes, 25);
}

/// Interrupted calls are made again: the commit succeeds.
#[test]
#[ignore = "root: runs a commit under strace"]
fn root_interrupted_calls_are_made_again() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    for (call, when) in [("pread64", 3), ("write", 2), ("pwrite64", 1), ("read", 8)] {
        fixture.tree.file("changes", format!("{call} {when}"));
        assert!(disturbed(&fixture, call, when, "error=EINTR").succeeded, "{call} number {when}");
    }
}

/// Runs a commit under strace and gives its syncs and renames: `fsync NAME` and `rename NAME`, by path in the store.
fn syncs_and_renames(fixture: &Fixture) -> Vec<String> {
    let log = fixture.dir().join("strace.log");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-e", "trace=fsync,renameat", "-o"])
        .arg(&log)
        .arg(env!("CARGO_BIN_EXE_one-commit"))
        .args([fixture.store.path(), &fixture.state, fixture.tree.root()])
        .status()
        .unwrap();
    assert!(status.success());
    let store = format!("{}/", std::fs::canonicalize(fixture.store.path()).unwrap().display());
    let name_in = |text: &str| text.split(&store).last().map(|name| name.split(['>', '"']).next().unwrap().to_string());
    let log = std::fs::read_to_string(log).unwrap();
    let calls = log.lines().filter(|line| line.contains(&store)).filter_map(|line| match line {
        line if line.contains("fsync(") => Some(format!("fsync {}", name_in(line)?)),
        line if line.contains("renameat(") => Some(format!("rename {}", name_in(line)?)),
        _ => None,
    });
    calls.collect()
}

/// A directory of packs that another process made may not be durable in `packs`, and names of packs that it gave may not
/// be durable in theirs. Whoever makes an index that relies on them syncs them first.
#[test]
#[ignore = "root: runs a commit under strace"]
fn root_an_index_relies_on_durable_names_only() {
    let fixture = Fixture::small();
    fixture.tree.file("f", noise(1, 3_000_000));
    fixture.commit();
    let fans = || -> Vec<String> {
        let dirs = std::fs::read_dir(fixture.store.path().join("packs")).unwrap();
        dirs.map(|dir| format!("packs/{}", dir.unwrap().file_name().to_str().unwrap())).collect()
    };
    let old = fans();
    let position = |calls: &[String], call: &str| calls.iter().position(|found| found == call);

    fixture.tree.file("g", noise(2, 1_500_000));
    settle();
    let calls = syncs_and_renames(&fixture);
    let current = position(&calls, "rename segments/current").unwrap();
    let named: std::collections::BTreeSet<&str> = calls
        .iter()
        .filter_map(|call| call.strip_prefix("rename packs/").map(|name| name.split('/').next().unwrap()))
        .collect();
    assert!(named.len() > 1, "{calls:#?}");
    for dir in named.iter().map(|fan| format!("fsync packs/{fan}")).chain(["fsync packs".into()]) {
        assert!(position(&calls, &dir).is_some_and(|at| at < current), "{dir}: {calls:#?}");
        assert_eq!(calls.iter().filter(|call| **call == dir).count(), 1, "{dir}: {calls:#?}");
    }
    for fan in old.iter().filter(|fan| !named.contains(&fan[6..])) {
        assert_eq!(position(&calls, &format!("fsync {fan}")), None, "no more than needed: {calls:#?}");
    }

    std::fs::remove_file(fixture.store.path().join("segments/current")).unwrap();
    let calls = syncs_and_renames(&fixture);
    let current = position(&calls, "rename segments/current").unwrap();
    for dir in fans().into_iter().chain(["packs".into()]) {
        let synced = position(&calls, &format!("fsync {dir}"));
        assert!(synced.is_some_and(|at| at < current), "{dir}: {calls:#?}");
    }
}

/// A commit without a change is a walk: it opens directories, not files. One that changed is opened, and no other.
#[test]
#[ignore = "root: runs a commit under strace"]
fn root_a_commit_without_a_change_opens_no_file() {
    let fixture = Fixture::small();
    for number in 0..500 {
        fixture.tree.file(format!("d{}/regular-{number}", number % 9), noise(number, 3000));
    }
    fixture.commit();
    let opened = || {
        let log = fixture.dir().join("strace.log");
        let status = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=open,openat,openat2", "-o"])
            .arg(&log)
            .arg(env!("CARGO_BIN_EXE_one-commit"))
            .args([fixture.store.path(), &fixture.state, fixture.tree.root()])
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::read_to_string(log).unwrap().lines().filter(|line| line.contains("regular-")).count()
    };
    assert_eq!(opened(), 0);
    fixture.tree.file("d1/regular-1", "changed");
    settle();
    assert_eq!(opened(), 1);
}

/// A disk that is full before the pack is written, and again when little is missing.
#[test]
#[ignore = "root: mounts a small file system"]
fn root_a_full_disk_is_refused_cleanly() {
    let fixture = Fixture::small();
    let disk = fixture.dir().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let run = |program: &str, args: &[&str]| assert!(Command::new(program).args(args).status().unwrap().success());
    let disk_name = disk.to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=4m,nr_inodes=100", "none", disk_name]);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let store = Store::create(&disk.join("store"), &evenkeel_store::store::InitOptions::default()).unwrap();
        let options = || evenkeel_store::commit::CommitOptions { threads: 1, ..fixture.options() };
        let commit = || evenkeel_store::commit::commit(&store, &options(), &evenkeel_store::Progress::default());
        fixture.tree.file("small", noise(1, 100_000));
        let first = commit().unwrap().snapshot.unwrap();
        fixture.tree.file("large", noise(2, 8 << 20));
        let error = commit().unwrap_err();
        assert_eq!(error.kind(), evenkeel_store::ErrorKind::Io, "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No space"), "{error}: {source}");
        assert_eq!(store.resolve("@latest").unwrap(), first);
        assert!(
            std::fs::read_dir(disk.join("store/tmp")).unwrap().next().is_none(),
            "nothing is left that takes space"
        );
        // Only what lies next to the store is full: less of it fits.
        fixture.tree.remove("large").file("less", noise(3, 1 << 20));
        let next = commit().unwrap().snapshot.unwrap();
        let report = evenkeel_store::check::check(
            &store,
            &evenkeel_store::check::CheckOptions::default(),
            &evenkeel_store::Progress::default(),
        );
        assert!(!report.unwrap().is_damaged());
        assert_same(
            &read_snapshot(&store, &store.snapshot(&next).unwrap(), "tree").unwrap(),
            &read_tree(fixture.tree.root()),
        );
    }));
    run("umount", &[disk_name]);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
