// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything that changes a live tree, killed or with a failing call, at every call that writes: going on gives what it
//! would have given undisturbed, going back gives what was there before.
//!
//! A run takes a sample of the calls, another one each time; `EVENKEEL_SWEEP=all` takes every one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use evenkeel_store::id::SnapshotId;
use evenkeel_tests::fixture::{assert_same, settle};
use evenkeel_tests::naive::{Item, Kind};
use evenkeel_tests::place::Place;
use evenkeel_tests::strace::{Point, Tracer, some_of_each_call};
use evenkeel_tests::{Fixture, Tree, noise, read_tree};

const KILLED: &str = "signal=KILL";
const FAILS: &str = "error=EIO";
const IS_FULL: &str = "error=ENOSPC";

/// What is disturbed, and what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// A checkout; called again, it goes on.
    Checkout,
    /// A checkout; it is taken back.
    TakenBack,
    Rollback,
    /// Of two checkouts.
    Undo,
    /// Of a checkout that was cut off in its switch.
    Recover,
    /// A rollback of such a one.
    TurnAround,
}

/// One checkout from one state to another, for every act.
struct Case {
    fixture: Fixture,
    /// What the place was at before; `None` for a tree that was never checked out to.
    before: Option<SnapshotId>,
    target: SnapshotId,
    mode: &'static str,
    adopt: &'static str,
}

impl Drop for Case {
    fn drop(&mut self) {
        unlock(self.fixture.dir());
    }
}

/// A tree as it is compared.
type Seen = (BTreeMap<Vec<u8>, Item>, Vec<String>);

impl Case {
    fn command(&self, place: &Place<'_>, target: &SnapshotId, mode: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_one-checkout"));
        program
            .args([self.fixture.store.path(), &place.state, &place.root])
            .args([&target.to_hex(), mode, self.adopt])
            .stderr(std::process::Stdio::null());
        program
    }

    fn run(&self, place: &Place<'_>, mode: &str) -> bool {
        self.command(place, &self.target, mode).status().unwrap().success()
    }

    /// A place as it is before the checkout.
    fn place(&self, name: &str) -> Place<'_> {
        let place = Place::new(&self.fixture, name);
        if let Some(before) = &self.before {
            place.checkout_exactly(before);
        }
        local_changes(&place);
        settle();
        place
    }

    /// Brings a place to where the act may begin. `cut` is where a checkout is cut off.
    fn begin(&self, act: Act, place: &Place<'_>, cut: usize) {
        match act {
            Act::Checkout | Act::TakenBack => {}
            Act::Rollback => assert!(self.run(place, self.mode)),
            Act::Undo => {
                assert!(self.run(place, self.mode));
                let back = self.before.expect("two checkouts are undone");
                assert!(self.command(place, &back, "full").status().unwrap().success());
            }
            Act::Recover | Act::TurnAround => {
                let point = Point { call: "renameat2", number: cut };
                let program = self.command(place, &self.target, self.mode);
                assert!(self.tracer().disturb(&program, point, KILLED).reached);
            }
        }
        settle();
    }

    fn program(&self, act: Act, place: &Place<'_>) -> Command {
        let mode = match act {
            Act::Checkout | Act::TakenBack => self.mode.to_owned(),
            Act::Rollback | Act::TurnAround => "rollback".to_owned(),
            Act::Undo => format!("undo:{}", self.first_of_two(place)),
            Act::Recover => "recover".to_owned(),
        };
        self.command(place, &self.target, &mode)
    }

    /// The number of the checkout to the target.
    fn first_of_two(&self, place: &Place<'_>) -> u64 {
        let history = place.history();
        history.iter().find(|record| record.after == Some(self.target) && record.undoes.is_none()).unwrap().number
    }

    fn tracer(&self) -> Tracer {
        Tracer::new(self.fixture.dir())
    }

    fn look(&self, place: &Place<'_>) -> Seen {
        let mut tree = read_tree(&place.root);
        if self.adopt == "keep" {
            // Which of them an interrupted adoption has changed is not remembered.
            tree.values_mut().filter(|item| item.kind == Kind::Dir).for_each(|item| item.mtime = (0, 0));
        }
        let flags = tree.iter().filter_map(|(path, item)| flags(&place.root, path, item)).collect();
        (tree, flags)
    }

    /// The middle one of the renames at which a checkout, killed, is one that was cut off.
    fn middle(&self, act: Act) -> usize {
        if !matches!(act, Act::Recover | Act::TurnAround) {
            return 0;
        }
        let place = self.place("to-be-cut");
        let points = self.tracer().points(&self.command(&place, &self.target, self.mode));
        remove(&place);
        let renames = points.iter().filter(|point| point.call == "renameat2").map(|point| point.number);
        let is_cut_off = |number: &usize| {
            let place = self.place("to-be-cut");
            self.begin(act, &place, *number);
            let is = place.status().areas[0].interrupted.is_some();
            remove(&place);
            is
        };
        let cuts: Vec<usize> = renames.filter(is_cut_off).collect();
        *cuts.get(cuts.len() / 2).expect("a rename of the switch")
    }

    /// Disturbs an act at `many` of the calls, one a run.
    fn sweep(&self, act: Act, how: &str, many: usize) {
        let what = format!("{act:?} {} {how}", self.mode);
        let cut = self.middle(act);
        let place = self.place("undisturbed");
        let before = self.look(&place);
        self.begin(act, &place, cut);
        let points = self.tracer().points(&self.program(act, &place));
        if act == Act::TakenBack {
            assert!(self.run(&place, "rollback"));
        }
        let expected = self.look(&place);
        let differences = differences(&place);
        if !matches!(act, Act::Checkout | Act::Recover) {
            assert_same(&expected.0, &before.0);
        }
        remove(&place);
        let points = some_of_each_call(&what, &points, many);
        let reached = points.iter().filter(|point| {
            let place = self.place("disturbed");
            self.begin(act, &place, cut);
            let begin = self.look(&place);
            let done = self.tracer().disturb(&self.program(act, &place), **point, how);
            println!("{what}: {} number {}: {done:?}", point.call, point.number);
            if done.reached {
                self.only_old_or_new(act, &self.look(&place), &begin, &expected);
                self.end(act, &place, done.succeeded);
                let found = self.look(&place);
                assert_same(&found.0, &expected.0);
                assert_eq!(found.1, expected.1);
                assert_eq!(self::differences(&place), differences);
                place.assert_records();
                if act == Act::TakenBack {
                    assert!(self.run(&place, self.mode));
                }
                assert!(!place.private_names().iter().any(|name| name == "staging"));
            }
            remove(&place);
            done.reached
        });
        let (reached, all) = (reached.count(), points.len());
        println!("{what}: {reached} of {all} points were reached");
        // A few come or do not come by chance.
        assert!(reached * 10 >= all * 9, "{what}: only {reached} of {all} points were reached");
    }

    /// What whoever is on call does.
    fn end(&self, act: Act, place: &Place<'_>, succeeded: bool) {
        let (interrupted, applied) = {
            let status = &place.status().areas[0];
            (status.interrupted.is_some(), status.applied)
        };
        let back = || {
            let status = &place.status().areas[0];
            status.interrupted.is_none() && status.applied == self.before
        };
        match act {
            Act::Checkout => {
                // A checkout that only did not come to say so is done; again, it would not be an adoption.
                let is_done = applied == Some(self.target) && !interrupted;
                let stays_kept = is_done && self.adopt == "keep";
                assert!(succeeded || stays_kept || self.run(place, self.mode));
            }
            // Not begun, cut off, or finished without saying so.
            Act::TakenBack => assert!(back() || self.run(place, "rollback")),
            Act::Recover => assert!(self.run(place, "recover")),
            Act::Rollback | Act::TurnAround => {
                assert!(self.run(place, "recover"));
                assert!(back() || self.run(place, "rollback"), "it was not begun");
            }
            Act::Undo => {
                assert!(self.run(place, "recover"));
                let number = self.first_of_two(place);
                let is_undone = place.history().iter().any(|record| record.undoes == Some(number));
                assert!(is_undone || self.run(place, &format!("undo:{number}")), "it was not finished");
            }
        }
    }

    /// Every path is as it was or as it shall be, and none is missing that is in both; a tree is exchanged as a whole.
    #[track_caller]
    fn only_old_or_new(&self, act: Act, (now, _): &Seen, (begin, _): &Seen, (expected, _): &Seen) {
        // In between undo comes by another tree, and what is taken back was a checkout first.
        if matches!(act, Act::Undo | Act::TakenBack) {
            return;
        }
        for (path, item) in begin {
            if let Some(wanted) = expected.get(path) {
                let name = String::from_utf8_lossy(path);
                let found = now.get(path).unwrap_or_else(|| panic!("{name} is missing"));
                assert!(found.kind == item.kind || found.kind == wanted.kind, "{name} is {found:?}");
            }
        }
        if self.mode == "tree" {
            // The root's own time apart, which `.evenkeel` moves while it goes over.
            let is = |tree: &BTreeMap<Vec<u8>, Item>| {
                let mut now = now.clone();
                now.entry(Vec::new()).and_modify(|root| root.mtime = tree[&b""[..]].mtime);
                now == *tree
            };
            assert!(is(begin) || is(expected), "a mixture of both trees");
        }
    }
}

/// What `verify` finds, by path.
fn differences(place: &Place<'_>) -> Vec<String> {
    let areas = place.verify().areas;
    assert_eq!(areas[0].interrupted, None);
    areas[0].drift.iter().map(|drift| format!("{}: {}", drift.path, drift.what.name())).collect()
}

/// `path: flags` of what has inode flags, of those that mean the same everywhere.
fn flags(root: &Path, path: &[u8], item: &Item) -> Option<String> {
    use rustix::fs::IFlags;
    use std::os::unix::ffi::OsStrExt;
    if !matches!(item.kind, Kind::Dir | Kind::File(..)) {
        return None;
    }
    let file = std::fs::File::open(root.join(std::ffi::OsStr::from_bytes(path))).unwrap();
    let portable = IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NODUMP | IFlags::NOATIME | IFlags::SYNC;
    let flags = rustix::fs::ioctl_getflags(&file).unwrap() & portable;
    (!flags.is_empty()).then(|| format!("{}: {flags:?}", String::from_utf8_lossy(path)))
}

/// What users, and whoever administers the server, did.
fn local_changes(place: &Place<'_>) {
    place.tree().file("local/stray", "stray").file("etc/config", "edited here").mode("etc/config", 0o640);
    place.tree().file("usr/both", "changed on both sides");
    for path in ["local/stray", "etc/config", "usr/both", "local", "etc", "usr", ""] {
        place.tree().mtime(path, 1_700_000_000, 0);
    }
}

/// Takes away what protects files from being removed.
fn unlock(dir: &Path) {
    // It complains of each symlink and device, which have no flags.
    let _ = Command::new("chattr").args(["-R", "-f", "-i", "-a"]).arg(dir).output();
}

fn remove(place: &Place<'_>) {
    unlock(&place.root);
    for path in [&place.root, &place.state] {
        match std::fs::remove_dir_all(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{}: {e}", path.display()),
            _ => {}
        }
    }
}

fn tool(tree: &Tree, program: &str, args: &[&str], at: &str) {
    let status = Command::new(program).args(args).arg(tree.path(at)).status();
    assert!(status.unwrap_or_else(|e| panic!("cannot run {program}: {e}")).success(), "{program} {args:?} {at}");
}

/// Two releases with every kind of change between them, of every kind of thing.
fn releases() -> (Fixture, [SnapshotId; 2]) {
    let fixture = Fixture::small();
    let tree = &fixture.tree;
    let commit = || {
        settle();
        fixture.try_commit(|options| options.areas[0].rules.devices = true).unwrap().snapshot.unwrap()
    };
    tree.file("etc/config", "v1")
        .file("usr/both", "v1")
        .file("usr/bin/tool", noise(1, 40_000))
        .file("gone/deep/f", "f");
    tree.file("kind/was-dir/x", "x")
        .symlink("kind/was-link", "x")
        .file("kind/was-file", "x")
        .link("usr/bin/tool", "usr/l");
    tree.file("read-only/f", "1").mode("read-only", 0o555).xattr("etc/config", "user.k", b"v");
    tree.dir("run").fifo("run/pipe").fifo("run/gone").dir("dev").device("dev/null", 1, 3).device("dev/other", 1, 3);
    tree.file("attr/loses", "same").xattr("attr/loses", "user.k", b"v").file("attr/gets", "same").dir("acl");
    tree.file("suid", "one").mode("suid", 0o4755).file("ping", "one").file("flags/locked", "one");
    tree.file("flags/gets", "same").file("flags/nodump", "one").dir("var").sparse(
        "var/sparse",
        1 << 18,
        &[(4096, b"a")],
    );
    tool(tree, "setfacl", &["-d", "-m", "u:1234:rwx"], "acl");
    tool(tree, "setcap", &["cap_net_raw+ep"], "ping");
    tool(tree, "chattr", &["+d"], "flags/nodump");
    // Programs that may not be changed, and are to lose and get their rights all the same.
    for path in ["flags/su", "gone/deep/su", "flags/group/su"] {
        tree.file(path, "one").mode(path, 0o6755);
    }
    tree.link("flags/group/su", "flags/group/su-2");
    let locked = ["flags/locked", "flags/su", "gone/deep/su", "flags/group/su"];
    locked.iter().for_each(|path| tool(tree, "chattr", &["+i"], path));
    let first = commit();
    locked.iter().for_each(|path| tool(tree, "chattr", &["-i"], path));
    tree.remove("flags/su").file("flags/su", "two").mode("flags/su", 0o6755).remove("flags/group/su-2");
    tree.remove("flags/group/su").file("flags/group/su", "two");
    tree.file("usr/both", "v2").file("usr/bin/tool", noise(2, 50_000)).remove("gone").remove("kind");
    tree.file("kind/was-dir", "now a file").file("kind/was-link/x", "x").symlink("kind/was-file", "x");
    tree.mode("read-only", 0o755).file("read-only/f", "2").file("read-only/g", "g").mode("read-only", 0o555);
    tree.file("new/a", "a").link("new/a", "new/b").mode("etc/config", 0o600).owner("usr/bin/tool", 3, 4);
    tree.mode("run/pipe", 0o600).remove("run/gone").fifo("run/new").remove("dev/other").device("dev/other", 1, 5);
    tree.owner("dev/null", 0, 6).remove("attr/loses").file("attr/loses", "same").xattr("attr/gets", "user.k", b"v");
    tree.remove("suid").file("suid", "two").mode("suid", 0o4755).remove("ping").file("ping", "two");
    tree.file("flags/locked", "two").file("flags/nodump", "two").sparse("var/sparse", 1 << 18, &[(70_000, b"b")]);
    tool(tree, "setfacl", &["-d", "-m", "u:1234:r"], "acl");
    tool(tree, "setcap", &["cap_net_raw+ep"], "ping");
    tool(tree, "chattr", &["+d"], "flags/gets");
    ["flags/locked", "flags/su"].iter().for_each(|path| tool(tree, "chattr", &["+i"], path));
    let second = commit();
    (fixture, [first, second])
}

/// Between the releases, by a checkout of that mode.
fn update(mode: &'static str) -> Case {
    let (fixture, [first, second]) = releases();
    Case { fixture, before: Some(first), target: second, mode, adopt: "-" }
}

fn sweep(case: &Case, sweeps: &[(Act, &str, usize)]) {
    sweeps.iter().for_each(|(act, how, many)| case.sweep(*act, how, *many));
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_killed_at_every_call_that_writes_and_run_again() {
    sweep(&update("full"), &[(Act::Checkout, KILLED, 36), (Act::Recover, KILLED, 18)]);
    sweep(&update("incremental"), &[(Act::Checkout, KILLED, 15), (Act::Recover, KILLED, 6)]);
}

/// A first adoption that kept what was there forgot, once it was interrupted, that it was one: run again, it replaced
/// everything that it was told to keep.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_an_interrupted_adoption_still_is_one() {
    let (fixture, [_, second]) = releases();
    let case = Case { fixture, before: None, target: second, mode: "full", adopt: "keep" };
    sweep(&case, &[(Act::Checkout, KILLED, 18), (Act::Checkout, FAILS, 12)]);
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_every_call_that_writes_fails_once() {
    sweep(&update("full"), &[(Act::Checkout, FAILS, 36), (Act::Checkout, IS_FULL, 12), (Act::Recover, FAILS, 12)]);
    sweep(&update("incremental"), &[(Act::Checkout, FAILS, 12)]);
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_killed_anywhere_and_taken_back() {
    let case = update("full");
    sweep(&case, &[(Act::TakenBack, KILLED, 24), (Act::Rollback, KILLED, 24), (Act::TurnAround, KILLED, 15)]);
    sweep(&case, &[(Act::TakenBack, FAILS, 12), (Act::Rollback, FAILS, 18), (Act::TurnAround, FAILS, 9)]);
    sweep(&update("incremental"), &[(Act::TakenBack, KILLED, 9), (Act::Rollback, KILLED, 9)]);
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_an_undo_is_killed_or_fails_anywhere() {
    sweep(&update("full"), &[(Act::Undo, KILLED, 24), (Act::Undo, FAILS, 18)]);
    sweep(&update("tree"), &[(Act::Undo, KILLED, 9)]);
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_a_tree_switch_is_killed_or_fails_anywhere() {
    let case = update("tree");
    sweep(&case, &[(Act::Checkout, KILLED, 24), (Act::Checkout, FAILS, 18), (Act::Checkout, IS_FULL, 9)]);
    sweep(&case, &[(Act::Recover, KILLED, 9), (Act::Recover, FAILS, 6)]);
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_a_tree_switch_is_killed_anywhere_and_taken_back() {
    let case = update("tree");
    sweep(&case, &[(Act::TakenBack, KILLED, 15), (Act::Rollback, KILLED, 15), (Act::TurnAround, KILLED, 6)]);
    sweep(&case, &[(Act::TakenBack, FAILS, 9), (Act::Rollback, FAILS, 9)]);
}
