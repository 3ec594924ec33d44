// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A neighbour acts at every single call of a checkout that touches the live tree, one call a run.
//!
//! Whatever they do, and whenever: nothing outside the tree changes, the operation comes to its end or has not begun,
//! what they put anywhere is still somewhere, and the next checkout gives exactly the reference's tree.
//! `EVENKEEL_RACES=all` takes every call and every act; without it a sample is taken that differs between operations.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use evenkeel_store::checkout::{Adopt, CheckoutOptions, Mode};
use evenkeel_store::fsio::script::{Call, Script};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Error, Result};
use evenkeel_tests::neighbour::{Act, Neighbour, differences, holds};
use evenkeel_tests::operation::{Operation, releases};
use evenkeel_tests::{Fixture, Place, Tree};

/// Runs of one test, unless every one is asked for.
const RUNS_MAX: usize = 80;
/// No operation of these tests takes longer, unless it waits for something that never comes.
const TIME_MAX: Duration = Duration::from_secs(60);

/// What stands in a canary's directory under the names that a tree's directories have.
const CANARY_NAMES: [(&str, bool); 12] = [
    ("changed", false),
    ("mode", false),
    ("gone", false),
    ("link", false),
    ("f", false),
    ("dir", true),
    ("file", false),
    ("suid", false),
    ("a", false),
    ("b", false),
    ("sub", true),
    ("deep", true),
];

struct Races {
    fixture: Fixture,
    releases: [SnapshotId; 2],
    operation: Operation,
    runs: usize,
}

impl Races {
    fn new(operation: Operation) -> Races {
        let (fixture, releases) = releases();
        Races { fixture, releases, operation, runs: 0 }
    }

    /// A place where the operation may begin.
    fn place(&self) -> Place<'_> {
        self.operation.place(&self.fixture, &format!("server-{}", self.runs), &self.releases)
    }

    /// Live paths that the operation's calls act on, in order.
    fn points(&mut self) -> Vec<(&'static str, PathBuf)> {
        self.runs += 1;
        let place = self.place();
        let (root, points) = (place.root.clone(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&points);
        let script = Script::new(&place.root.clone(), move |call| {
            seen.lock().unwrap().extend(live(call, &root).map(|path| (call.name, path)));
            Ok(())
        });
        self.operation.run(&self.fixture.store, &place.paths(), &self.releases[1]).unwrap();
        drop(script);
        std::mem::take(&mut points.lock().unwrap())
    }

    /// Races at every point with every act, or at a sample of them.
    fn race(&mut self, acts: &[Act], times: usize) {
        let points = self.points();
        let all = points.len() * acts.len();
        let take_all = std::env::var_os("EVENKEEL_RACES").is_some_and(|value| value == "all");
        let stride = if take_all { 1 } else { all.div_ceil(RUNS_MAX) };
        let mut reached = 0;
        for number in (0..all).step_by(stride) {
            let (at, act) = (number / acts.len(), acts[number % acts.len()]);
            let what = format!("{:?}, {act:?} at {} {}", self.operation, at + 1, points[at].0);
            reached += usize::from(self.one(&what, act, at, times));
        }
        assert!(reached > 0, "{:?} was never raced", self.operation);
        println!("{:?}: {} points, {reached} races", self.operation, points.len());
    }

    /// One race: the neighbour acts before the live call number `at`, and before the next ones at the same path until they
    /// have acted `times`.
    fn one(&mut self, what: &str, act: Act, at: usize, times: usize) -> bool {
        self.runs += 1;
        let place = self.place();
        let own = self.fixture.dir().join(format!("own-{}", self.runs));
        let neighbour = Neighbour::new(&place.root, &own);
        CANARY_NAMES.iter().for_each(|(name, is_dir)| neighbour.canary.with(name, *is_dir));
        let before = neighbour.canary.look(true);
        let goes_back = matches!(self.operation, Operation::Rollback | Operation::Undo | Operation::TurnAround);
        let kept = ["undo", "staging"].map(|name| place.root.join(".evenkeel").join(name));
        let only_copies = kept.iter().filter(|_| goes_back).flat_map(|dir| files(dir)).collect::<Vec<File>>();
        let raced = Arc::new(Raced::default());
        let script = raced.script(&place.root, neighbour.clone(), act, at, times);
        let paths = place.paths();
        let (store, operation, target) = (self.fixture.store.clone(), self.operation, self.releases[1]);
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || drop(tell.send(operation.run(&store, &paths, &target))));
        let done = told.recv_timeout(TIME_MAX).unwrap_or_else(|_| panic!("{what}: it hangs, or panicked"));
        thread.join().unwrap();
        drop(script);
        if let Some(path) = raced.path.lock().unwrap().as_ref() {
            let what = format!("{what} {}", path.strip_prefix(&place.root).unwrap().display());
            let changed = differences(&before, &neighbour.canary.look(true));
            assert!(changed.is_empty(), "{what}: outside of the tree: {changed:#?}");
            let begun = place.status().areas[0].interrupted.is_some();
            assert!(done.is_ok() || !begun, "{what}: it ended half-way: {}", words(&done));
            for mark in raced.marks.lock().unwrap().iter() {
                assert!(holds(&place.root, mark) || holds(&own, mark), "{what}: {mark} is lost");
            }
            let destroyed = raced.destroyed.lock().unwrap();
            assert_none_lost(&what, &only_copies, &destroyed, [&place.root, &own]);
            assert_no_rights_kept(&what, &own, &place.root);
            self.goes_on(&what, &place);
        }
        for path in [&place.root, &place.state, &own] {
            std::fs::remove_dir_all(path).unwrap();
        }
        raced.acted.load(Ordering::Relaxed)
    }

    /// The next checkout is as any other.
    fn goes_on(&self, what: &str, place: &Place<'_>) {
        let target = &self.releases[1];
        let unlimited = |options: &mut CheckoutOptions| {
            (options.mode, options.adopt) = (Some(Mode::Full), Some(Adopt::Replace));
        };
        let failed = |e: Error| panic!("{what}: the next one: {e}");
        // An adoption removes nothing, so it takes one more.
        place.try_checkout(target, unlimited).unwrap_or_else(failed);
        let next = place.try_checkout(target, unlimited).unwrap_or_else(failed);
        assert!(next.in_sync, "{what}: {:?}", next.areas[0].kept);
        place.assert_is(target);
        assert!(place.private_names().iter().all(|name| name != "staging"), "{what}");
    }
}

/// A regular file: its inode number, time and content.
type File = (u64, (i64, i64), Vec<u8>);

/// Every regular file at or below a path.
fn files(path: &Path) -> Vec<File> {
    let Ok(stat) = path.symlink_metadata() else { return Vec::new() };
    match stat.file_type() {
        kind if kind.is_dir() => {
            std::fs::read_dir(path).into_iter().flatten().flat_map(|entry| files(&entry.unwrap().path())).collect()
        }
        kind if kind.is_file() => {
            vec![(stat.ino(), (stat.mtime(), stat.mtime_nsec()), std::fs::read(path).unwrap_or_default())]
        }
        _ => Vec::new(),
    }
}

/// What lay in the undo before it was to be brought back is somewhere: it, or a copy of it. What the neighbour has removed
/// or overwritten themselves apart.
#[track_caller]
fn assert_none_lost(what: &str, before: &[File], destroyed: &[u64], places: [&Path; 2]) {
    let after: Vec<File> = places.iter().flat_map(|place| files(place)).collect();
    for (ino, time, content) in before.iter().filter(|(ino, ..)| !destroyed.contains(ino)) {
        let is_it = |file: &File| file.0 == *ino && file.2 == *content;
        let is_copy = |file: &File| (&file.1, &file.2) == (time, content);
        let shown = String::from_utf8_lossy(content);
        assert!(after.iter().any(|file| is_it(file) || is_copy(file)), "{what}: {shown} of the undo is lost");
    }
}

/// A set-id program that a neighbour has given a name of their own has its rights only as long as it is the live one.
#[track_caller]
fn assert_no_rights_kept(what: &str, own: &Path, root: &Path) {
    let live = root.join("d/suid").symlink_metadata().map(|stat| stat.ino()).ok();
    for entry in std::fs::read_dir(own).unwrap().map(std::result::Result::unwrap) {
        let stat = entry.metadata().unwrap();
        let gives_rights = stat.is_file() && stat.mode() & 0o6000 != 0;
        assert!(!gives_rights || Some(stat.ino()) == live, "{what}: a set-id program was kept");
    }
}

/// Words of an error and its cause.
fn words(done: &Result<()>) -> String {
    match done {
        Ok(()) => "it succeeded".into(),
        Err(e) => format!("{e}: {:?}", std::error::Error::source(e).map(ToString::to_string)),
    }
}

/// The live path that a call acts on.
fn live(call: &Call, root: &Path) -> Option<PathBuf> {
    let private = root.join(".evenkeel");
    let is_live = |path: &&PathBuf| path.starts_with(root) && *path != root && !path.starts_with(&private);
    call.paths.iter().find(is_live).cloned()
}

/// What has become of one race.
#[derive(Default)]
struct Raced {
    acted: AtomicBool,
    /// Where.
    path: Mutex<Option<PathBuf>>,
    /// What they have put somewhere.
    marks: Mutex<Vec<String>>,
    /// Inodes that were in their way, or that they wrote to.
    destroyed: Mutex<Vec<u64>>,
}

impl Raced {
    fn script(self: &Arc<Self>, root: &Path, neighbour: Neighbour, act: Act, at: usize, times: usize) -> Script {
        let (raced, inside) = (Arc::clone(self), root.to_path_buf());
        let (calls, acts) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Script::new(root, move |call| {
            let Some(path) = live(call, &inside) else { return Ok(()) };
            let is_it = calls.fetch_add(1, Ordering::Relaxed) == at;
            let mut victim = raced.path.lock().unwrap();
            let again = victim.as_ref().is_some_and(|victim| *victim == path);
            if is_it || (again && acts.load(Ordering::Relaxed) < times) {
                let number = acts.fetch_add(1, Ordering::Relaxed);
                let in_their_way = match (act, path.parent()) {
                    (Act::RemoveParent, Some(parent)) if parent != inside => files(parent),
                    (Act::RemoveParent | Act::SwapParent | Act::Fill | Act::Link | Act::Mode, _) => Vec::new(),
                    _ => files(&path),
                };
                raced.destroyed.lock().unwrap().extend(in_their_way.iter().map(|(ino, ..)| ino));
                // What they replace or overwrite themselves need not be kept.
                if neighbour.act(act, &path, number) {
                    *raced.marks.lock().unwrap() = vec![Neighbour::mark(number)];
                }
                raced.acted.store(true, Ordering::Relaxed);
                *victim = Some(path);
            }
            Ok(())
        })
    }
}

#[test]
fn a_full_checkout() {
    Races::new(Operation::Full).race(&Act::ALL, 1);
}

#[test]
fn an_incremental_checkout() {
    Races::new(Operation::Incremental).race(&Act::ALL, 1);
}

#[test]
fn an_adoption() {
    Races::new(Operation::Adoption).race(&Act::ALL, 1);
}

#[test]
fn a_rollback() {
    Races::new(Operation::Rollback).race(&Act::ALL, 1);
}

#[test]
fn an_undo() {
    Races::new(Operation::Undo).race(&Act::ALL, 1);
}

#[test]
fn a_recovery() {
    Races::new(Operation::Recover).race(&Act::ALL, 1);
}

#[test]
fn a_rollback_of_what_was_cut_off() {
    Races::new(Operation::TurnAround).race(&Act::ALL, 1);
}

/// A commit under the same neighbour: it ends, and nothing that is outside the tree is in the snapshot.
#[test]
fn a_commit_reads_nothing_outside() {
    let fixture = Fixture::in_memory();
    let canary = format!("{:?}", blake3::hash(b"canary").as_bytes());
    let acts = [Act::Remove, Act::File, Act::Symlink, Act::Directory, Act::Fifo, Act::SwapParent, Act::RemoveParent];
    let commit = |number: usize, act: Act, at: usize| {
        let tree = Tree::new(fixture.dir().join(format!("tree-{number}")));
        tree.file("d/changed", "c").file("d/deep/f", "f").symlink("d/link", "x").file("d/mode", "m").fifo("pipe");
        let neighbour = Neighbour::new(tree.root(), &fixture.dir().join(format!("own-{number}")));
        CANARY_NAMES.iter().for_each(|(name, is_dir)| neighbour.canary.with(name, *is_dir));
        let before = neighbour.canary.look(true);
        let raced = Arc::new(Raced::default());
        let script = raced.script(tree.root(), neighbour.clone(), act, at, 1);
        let done = fixture.try_commit(|options| {
            (options.areas[0].root, options.threads) = (tree.root().into(), 1);
            options.areas[0].rules.devices = true;
        });
        let calls = script.calls();
        drop(script);
        assert!(differences(&before, &neighbour.canary.look(true)).is_empty(), "{act:?} at {at}");
        if let Some(id) = done.ok().and_then(|report| report.snapshot) {
            for (path, item) in fixture.read(&id) {
                let what = format!("{act:?} at {at}: {} {item:?}", path.escape_ascii());
                assert!(!what.contains(&canary) && !path.ends_with(b"/canary"), "{what}");
            }
        }
        (calls, raced.acted.load(Ordering::Relaxed))
    };
    let (calls, _) = commit(0, Act::Mode, usize::MAX);
    let all = (0..usize::try_from(calls).unwrap()).flat_map(|at| acts.map(|act| (at, act)));
    let raced = all.enumerate().filter(|(number, (at, act))| commit(number + 1, *act, *at).1).count();
    assert!(raced > 50, "only {raced} races");
    fixture.assert_sound();
}

/// Who keeps a set-id program by another name, whenever they take it, keeps no rights.
#[test]
fn a_program_that_somebody_keeps() {
    for operation in [Operation::Full, Operation::Rollback, Operation::Recover, Operation::TurnAround] {
        Races::new(operation).race(&[Act::Link], 1);
    }
}

/// Whoever is faster is faster again when an exchange is taken back.
#[test]
fn a_neighbour_who_is_faster_again_and_again() {
    let acts = [Act::File, Act::Remove, Act::Directory, Act::Write, Act::RemoveParent];
    for times in [2, 3, 40] {
        Races::new(Operation::Full).race(&acts, times);
    }
}
