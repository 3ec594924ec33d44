// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A commit that is killed, or whose calls fail, at every call that writes: what is in the store afterwards is sound,
//! old or new, and the next commit works.

use std::path::Path;
use std::process::Command;

use evenkeel_store::Store;
use evenkeel_tests::fixture::{assert_same, files_below, settle};
use evenkeel_tests::naive::read_snapshot;
use evenkeel_tests::{Fixture, noise, read_tree};

/// Calls that change something on a disk, or say that it is there to stay.
const WRITING: [&str; 11] = [
    "write",
    "pwrite64",
    "openat",
    "renameat",
    "renameat2",
    "fsync",
    "fdatasync",
    "mkdirat",
    "unlinkat",
    "ftruncate",
    "close",
];
/// No sweep is longer: a call that comes more often is followed up to here.
const POINTS_MAX: usize = 150;

/// One way to prepare the tree for the commit that is disturbed.
type Prepare = fn(&Fixture);

fn content_changes(fixture: &Fixture) {
    fixture.tree.file("new/large", noise(10, 3_000_000)).file("etc/empty", "not any more").remove("usr/share");
}

/// No content to read: the first calls of each kind are those of the thread that publishes.
fn only_metadata_changes(fixture: &Fixture) {
    fixture.tree.mode("etc/empty", 0o600);
}

/// Runs the commit under strace with one call disturbed. Gives whether the call was reached, and whether the commit
/// says that it succeeded.
fn disturbed(fixture: &Fixture, call: &str, how: &str, when: usize) -> (bool, bool) {
    let log = fixture.dir().join("strace.log");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{how}:when={when}")])
        .arg(env!("CARGO_BIN_EXE_one-commit"))
        .args([fixture.store.path(), &fixture.state, fixture.tree.root()])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    (log.contains("INJECTED") || log.contains("killed by SIGKILL"), status.success())
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

/// Disturbs every one of the calls, one a run. Gives the number of points.
fn sweep(how: &str, prepare: Prepare, calls: &[&str]) -> usize {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let old = fixture.commit_new();
    let old_tree = read_tree(fixture.tree.root());
    prepare(&fixture);
    settle();
    let new_tree = read_tree(fixture.tree.root());
    let (objects, state) = (fixture.objects(), files_below(&fixture.state));
    let mut points = 0;
    for call in calls {
        for when in 1..=POINTS_MAX {
            let (reached, succeeded) = disturbed(&fixture, call, how, when);
            if !reached {
                // The commit ran to its end.
                restore(fixture.store.path(), &objects);
                restore(&fixture.state, &state);
                break;
            }
            points += 1;
            let place = format!("{call} number {when}, {how}");
            let store = Store::open(fixture.store.path()).unwrap_or_else(|e| panic!("{place}: {e}"));
            let report = fixture.check();
            assert!(!report.is_damaged(), "{place}: {:#?}", report.findings);
            let snapshots = store.snapshots().unwrap();
            let latest = snapshots.last().unwrap().id;
            assert!(snapshots.len() <= 2 && snapshots[0].id == old, "{place}: {snapshots:?}");
            assert!(latest != old || !succeeded, "{place}: success, but no snapshot");
            let was_killed = how.starts_with("signal=KILL");
            assert!(latest == old || succeeded || was_killed, "{place}: a snapshot, but no success");
            let expected = if latest == old { &old_tree } else { &new_tree };
            assert_same(&read_snapshot(&store, &store.snapshot(&latest).unwrap(), "tree").unwrap(), expected);

            let next = fixture.try_commit(|_| {}).unwrap_or_else(|e| panic!("{place}: then {e}"));
            assert_eq!(next.is_new, latest == old, "{place}");
            assert_same(&fixture.read(&next.snapshot.unwrap()), &new_tree);
            let report = fixture.check();
            assert!(!report.is_damaged(), "{place}: {:#?}", report.findings);
            let names = fixture.objects().into_keys().chain(files_below(&fixture.state).into_keys());
            let left: Vec<String> = names.filter(|name| name.contains("tmp-")).collect();
            assert!(left.is_empty(), "{place}: {left:?}");
            restore(fixture.store.path(), &objects);
            restore(&fixture.state, &state);
        }
    }
    points
}

#[test]
#[ignore = "root: runs a commit under strace"]
fn root_killed_at_every_call_that_writes() {
    let points =
        sweep("signal=KILL", only_metadata_changes, &WRITING) + sweep("signal=KILL", content_changes, &WRITING);
    assert!(points > 100, "only {points} points were reached");
}

#[test]
#[ignore = "root: runs a commit under strace"]
fn root_every_call_that_writes_fails_with_eio() {
    let calls: Vec<&str> = WRITING.into_iter().filter(|call| *call != "close").collect();
    let points = sweep("error=EIO", only_metadata_changes, &calls) + sweep("error=EIO", content_changes, &calls);
    assert!(points > 50, "only {points} points were reached");
}

#[test]
#[ignore = "root: runs a commit under strace"]
fn root_every_call_that_needs_space_fails_with_enospc() {
    let calls = ["write", "pwrite64", "mkdirat", "renameat", "fsync", "ftruncate"];
    let points = sweep("error=ENOSPC", content_changes, &calls);
    assert!(points > 20, "only {points} points were reached");
}

/// Interrupted calls are made again: the commit succeeds.
#[test]
#[ignore = "root: runs a commit under strace"]
fn root_interrupted_calls_are_made_again() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    for (call, when) in [("pread64", 3), ("write", 2), ("pwrite64", 1), ("read", 8)] {
        fixture.tree.file("changes", format!("{call} {when}"));
        let (_, succeeded) = disturbed(&fixture, call, "error=EINTR", when);
        assert!(succeeded, "{call} number {when}");
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
