// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A checkout that is killed, or whose calls fail, at every call that writes: the same command again gives what it would
//! have given undisturbed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use evenkeel_store::id::SnapshotId;
use evenkeel_tests::fixture::{assert_same, settle};
use evenkeel_tests::naive::{Item, Kind};
use evenkeel_tests::place::Place;
use evenkeel_tests::{Fixture, noise, read_tree};

/// Calls that change something on a disk, or say that it is there to stay.
const WRITING: [&str; 16] = [
    "openat",
    "pwrite64",
    "write",
    "mkdirat",
    "symlinkat",
    "linkat",
    "renameat",
    "renameat2",
    "unlinkat",
    "ftruncate",
    "fchmod",
    "fchown",
    "fsetxattr",
    "utimensat",
    "fsync",
    "syncfs",
];
/// No sweep is longer: a call that comes more often is followed up to here.
const POINTS_MAX: usize = 60;

/// One checkout that is disturbed again and again.
struct Case {
    fixture: Fixture,
    /// What the place was at before; `None` for a tree that was never checked out to.
    before: Option<SnapshotId>,
    target: SnapshotId,
    mode: &'static str,
    adopt: &'static str,
}

/// A tree without the times of its directories: which of them an interrupted adoption has changed is not remembered.
fn without_dir_times(mut tree: BTreeMap<Vec<u8>, Item>) -> BTreeMap<Vec<u8>, Item> {
    tree.values_mut().filter(|item| item.kind == Kind::Dir).for_each(|item| item.mtime = (0, 0));
    tree
}

impl Case {
    fn command(&self, program: &mut Command, place: &Place<'_>, mode: &str) -> std::process::ExitStatus {
        program
            .args([self.fixture.store.path(), &place.state, &place.root])
            .args([&self.target.to_hex(), mode, self.adopt])
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
    }

    /// A place as it is before the checkout.
    fn place(&self, number: usize) -> Place<'_> {
        let place = Place::new(&self.fixture, &format!("server-{number}"));
        if let Some(before) = &self.before {
            place.checkout_exactly(before);
        }
        local_changes(&place);
        settle();
        place
    }

    fn undisturbed(&self, place: &Place<'_>) {
        assert!(self.run(place, self.mode));
    }

    fn run(&self, place: &Place<'_>, mode: &str) -> bool {
        self.command(&mut Command::new(env!("CARGO_BIN_EXE_one-checkout")), place, mode).success()
    }

    /// Runs the checkout under strace with one call disturbed. Gives whether the call was reached, and whether the
    /// checkout says that it succeeded.
    fn disturbed(&self, place: &Place<'_>, mode: &str, call: &str, how: &str, when: usize) -> (bool, bool) {
        let log = self.fixture.dir().join("strace.log");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-qq", "-o"])
            .arg(&log)
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{how}:when={when}")])
            .arg(env!("CARGO_BIN_EXE_one-checkout"));
        let status = self.command(&mut strace, place, mode);
        let log = std::fs::read_to_string(log).unwrap();
        (log.contains("INJECTED") || log.contains("killed by SIGKILL"), status.success())
    }

    /// Disturbs every one of the calls, one a run. Gives the number of points.
    fn sweep(&self, how: &str, calls: &[&str]) -> usize {
        let place = self.place(0);
        self.undisturbed(&place);
        let read = |place: &Place<'_>| match self.adopt {
            "keep" => without_dir_times(read_tree(&place.root)),
            _ => read_tree(&place.root),
        };
        let expected = read(&place);
        let mut points = 0;
        for call in calls {
            for when in 1..=POINTS_MAX {
                let place = self.place(1);
                let before = read_tree(&place.root);
                let (reached, succeeded) = self.disturbed(&place, self.mode, call, how, when);
                if reached {
                    points += 1;
                    let point = format!("{call} number {when}, {how}");
                    assert_only_old_or_new(&point, &read_tree(&place.root), &before, &expected);
                    if self.mode == "tree" {
                        assert_old_or_new_as_a_whole(&point, read_tree(&place.root), &before, &expected);
                    }
                    // A checkout that only did not come to say so is done; again, it would not be an adoption.
                    let status = &place.status().areas[0];
                    let is_done = status.applied == Some(self.target) && status.interrupted.is_none();
                    let stays_kept = is_done && self.adopt == "keep";
                    if !succeeded && !stays_kept {
                        self.undisturbed(&place);
                    }
                    println!("{point}");
                    assert_same(&read(&place), &expected);
                    assert!(place.verify().areas[0].interrupted.is_none(), "{point}");
                    place.assert_records();
                    assert!(!place.private_names().iter().any(|name| name == "staging"), "{point}");
                }
                remove(&place.root);
                remove(&place.state);
                if !reached {
                    break;
                }
            }
        }
        points
    }
}

impl Case {
    /// Disturbs the checkout at every call, and takes it back instead of going on: the tree is as it was before.
    fn sweep_and_roll_back(&self, how: &str, calls: &[&str]) -> usize {
        let (points, number) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        self.at_each_point(calls, |call, when| {
            number.set(number.get() + 1);
            let place = self.place(number.get());
            let before = read_tree(&place.root);
            let (reached, _) = self.disturbed(&place, self.mode, call, how, when);
            if reached {
                points.set(points.get() + 1);
                println!("{call} number {when}, {how}");
                // Not begun, cut off, or finished without saying so.
                let interrupted = place.status().areas[0].interrupted.is_some();
                if interrupted || place.status().areas[0].applied != self.before {
                    assert!(self.run(&place, "rollback"));
                }
                assert_same(&read_tree(&place.root), &before);
                assert!(place.status().areas[0].interrupted.is_none());
                place.assert_records();
                self.undisturbed(&place);
            }
            remove(&place.root);
            remove(&place.state);
            reached
        });
        points.get()
    }

    /// Disturbs a rollback at every call; going on with it, or calling it again, gives the tree of before.
    fn sweep_rollback(&self, how: &str, calls: &[&str]) -> usize {
        let (points, number) = (std::cell::Cell::new(0), std::cell::Cell::new(1000));
        self.at_each_point(calls, |call, when| {
            number.set(number.get() + 1);
            let place = self.place(number.get());
            let before = read_tree(&place.root);
            self.undisturbed(&place);
            let (reached, _) = self.disturbed(&place, "rollback", call, how, when);
            if reached {
                points.set(points.get() + 1);
                println!("rollback: {call} number {when}, {how}");
                assert!(self.run(&place, "recover"));
                if place.status().areas[0].applied != self.before {
                    assert!(self.run(&place, "rollback"), "it was not begun");
                }
                assert_same(&read_tree(&place.root), &before);
                place.assert_records();
                assert!(!place.private_names().iter().any(|name| name == "staging"));
            }
            remove(&place.root);
            remove(&place.state);
            reached
        });
        points.get()
    }

    fn at_each_point(&self, calls: &[&str], one: impl Fn(&str, usize) -> bool) {
        for call in calls {
            for when in 1..=POINTS_MAX {
                if !one(call, when) {
                    break;
                }
            }
        }
    }
}

/// What users, and whoever administers the server, did.
fn local_changes(place: &Place<'_>) {
    place.tree().file("local/stray", "stray").file("etc/config", "edited here").mode("etc/config", 0o640);
    place.tree().file("usr/both", "changed on both sides");
    for path in ["local/stray", "etc/config", "usr/both", "local", "etc", "usr", ""] {
        place.tree().mtime(path, 1_700_000_000, 0);
    }
}

/// Every path is as it was or as it shall be, and no path is missing that is in both.
#[track_caller]
fn assert_only_old_or_new(
    point: &str,
    now: &BTreeMap<Vec<u8>, Item>,
    before: &BTreeMap<Vec<u8>, Item>,
    after: &BTreeMap<Vec<u8>, Item>,
) {
    for (path, item) in before {
        if let Some(wanted) = after.get(path) {
            let name = String::from_utf8_lossy(path);
            let found = now.get(path).unwrap_or_else(|| panic!("{point}: {name} is missing"));
            assert!(found.kind == item.kind || found.kind == wanted.kind, "{point}: {name} is {found:?}");
        }
    }
}

/// The root's own time apart, which `.evenkeel` moves while it goes over.
#[track_caller]
fn assert_old_or_new_as_a_whole(
    point: &str,
    mut now: BTreeMap<Vec<u8>, Item>,
    before: &BTreeMap<Vec<u8>, Item>,
    after: &BTreeMap<Vec<u8>, Item>,
) {
    let mut is = |tree: &BTreeMap<Vec<u8>, Item>| {
        now.entry(Vec::new()).and_modify(|root| root.mtime = tree[&b""[..]].mtime);
        now == *tree
    };
    assert!(is(before) || is(after), "{point}: a mixture of both trees");
}

fn remove(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{}: {e}", path.display()),
        _ => {}
    }
}

/// Two releases with every kind of change between them, and trees to change.
fn releases() -> (Fixture, [SnapshotId; 2]) {
    let fixture = Fixture::small();
    let tree = &fixture.tree;
    tree.file("etc/config", "v1")
        .file("usr/both", "v1")
        .file("usr/bin/tool", noise(1, 40_000))
        .file("gone/deep/f", "f");
    tree.file("kind/was-dir/x", "x")
        .symlink("kind/was-link", "x")
        .file("kind/was-file", "x")
        .link("usr/bin/tool", "usr/l");
    tree.file("read-only/f", "1").mode("read-only", 0o555).xattr("etc/config", "user.k", b"v");
    let first = fixture.commit_new();
    tree.file("usr/both", "v2").file("usr/bin/tool", noise(2, 50_000)).remove("gone").remove("kind");
    tree.file("kind/was-dir", "now a file").file("kind/was-link/x", "x").symlink("kind/was-file", "x");
    tree.mode("read-only", 0o755).file("read-only/f", "2").file("read-only/g", "g").mode("read-only", 0o555);
    tree.file("new/a", "a").link("new/a", "new/b").mode("etc/config", 0o600).owner("usr/bin/tool", 3, 4);
    let second = fixture.commit_new();
    (fixture, [first, second])
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_killed_at_every_call_that_writes_and_run_again() {
    let (fixture, [first, second]) = releases();
    let mut case = Case { fixture, before: Some(first), target: second, mode: "full", adopt: "-" };
    let full = case.sweep("signal=KILL", &WRITING);
    assert!(full > 100, "only {full} points were reached");
    case.mode = "incremental";
    let incremental = case.sweep("signal=KILL", &["renameat", "renameat2", "unlinkat", "fchmod", "utimensat"]);
    assert!(incremental > 20, "only {incremental} points were reached");
}

/// A first adoption that kept what was there forgot, once it was interrupted, that it was one: run again, it replaced
/// everything that it was told to keep.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_an_interrupted_adoption_still_is_one() {
    let (fixture, [_, second]) = releases();
    let case = Case { fixture, before: None, target: second, mode: "full", adopt: "keep" };
    let points = case.sweep("signal=KILL", &["renameat", "renameat2", "fchmod", "utimensat", "syncfs"]);
    assert!(points > 20, "only {points} points were reached");
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_every_call_that_writes_fails_once() {
    let (fixture, [first, second]) = releases();
    let case = Case { fixture, before: Some(first), target: second, mode: "full", adopt: "-" };
    let calls: Vec<&str> = WRITING.into_iter().filter(|call| *call != "write").collect();
    let points = case.sweep("error=EIO", &calls) + case.sweep("error=ENOSPC", &["pwrite64", "mkdirat", "renameat2"]);
    assert!(points > 100, "only {points} points were reached");
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_killed_anywhere_and_taken_back() {
    let (fixture, [first, second]) = releases();
    let case = Case { fixture, before: Some(first), target: second, mode: "full", adopt: "-" };
    let calls = ["renameat", "renameat2", "linkat", "unlinkat", "fchmod", "utimensat", "fsync", "syncfs", "pwrite64"];
    let points = case.sweep_and_roll_back("signal=KILL", &calls);
    assert!(points > 60, "only {points} points were reached");
    let points = case.sweep_rollback("signal=KILL", &calls);
    assert!(points > 40, "only {points} points were reached");
    let points = case.sweep_rollback("error=EIO", &["renameat", "renameat2", "utimensat", "syncfs"]);
    assert!(points > 20, "only {points} points were reached");
}

/// Calls of a tree switch that change a name or make it durable, and those that fill the new tree.
const OF_A_TREE: [&str; 8] =
    ["renameat", "renameat2", "mkdirat", "unlinkat", "fsync", "syncfs", "utimensat", "copy_file_range"];

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_a_tree_switch_is_killed_or_fails_anywhere() {
    let (fixture, [first, second]) = releases();
    let case = Case { fixture, before: Some(first), target: second, mode: "tree", adopt: "-" };
    let killed = case.sweep("signal=KILL", &OF_A_TREE);
    assert!(killed > 60, "only {killed} points were reached");
    let failed =
        case.sweep("error=EIO", &OF_A_TREE) + case.sweep("error=ENOSPC", &["renameat2", "mkdirat", "pwrite64"]);
    assert!(failed > 60, "only {failed} points were reached");
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_a_tree_switch_is_killed_anywhere_and_taken_back() {
    let (fixture, [first, second]) = releases();
    let case = Case { fixture, before: Some(first), target: second, mode: "tree", adopt: "-" };
    let calls = ["renameat", "renameat2", "mkdirat", "unlinkat", "utimensat", "fsync", "syncfs"];
    let points = case.sweep_and_roll_back("signal=KILL", &calls);
    assert!(points > 40, "only {points} points were reached");
    let points = case.sweep_rollback("signal=KILL", &calls);
    assert!(points > 30, "only {points} points were reached");
    let points = case.sweep_rollback("error=EIO", &["renameat", "renameat2", "mkdirat", "utimensat", "syncfs"]);
    assert!(points > 15, "only {points} points were reached");
}
