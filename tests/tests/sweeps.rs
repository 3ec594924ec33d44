// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every single system call of an operation fails once, one call a run, in this process.
//!
//! Whatever fails, and whenever: the error says where, nothing panics, going on or going back leads to a right tree, the
//! store is sound, and nothing temporary is left. The same when from one call on nothing is done any more, and when calls
//! move fewer bytes than they could. `EVENKEEL_SWEEP=all` takes every call with every error; without it a sample is
//! taken, another one each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_store::Error;
use evenkeel_store::Result;
use evenkeel_store::checkout::{Adopt, CheckoutOptions, Mode};
use evenkeel_store::fsio::script::Script;
use evenkeel_store::id::SnapshotId;
use evenkeel_tests::fixture::{assert_same, settle};
use evenkeel_tests::operation::{EIO, Operation, releases};
use evenkeel_tests::sample::sample;
use evenkeel_tests::{Fixture, Item, Kind, Place, noise, read_tree};

const EINTR: i32 = 4;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// Without those by which a file system says what it cannot hold: they change what is done, and are reported.
const ERRORS: [i32; 4] = [EIO, ENOSPC, EMFILE, EDQUOT];
/// Runs of one test with a call that fails, and with one that is the last, unless all are asked for.
const FAILS_MAX: usize = 100;
const ENDS_MAX: usize = 40;

/// What happens to the calls of a run below a directory; they are counted from 1.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// One of them fails with this error.
    Fails { call: u64, error: i32 },
    /// As if the process had ended before this one: nothing is done from there on, nothing is tidied up.
    EndsAt { call: u64 },
    /// Those that move bytes move a few at a time.
    Short,
}

impl Fault {
    fn inject(self, dir: &Path) -> Script {
        match self {
            Fault::Fails { call: number, error } => Script::new(dir, move |call| {
                if call.number != number {
                    return Ok(());
                }
                println!("{} {:?}", call.name, call.paths);
                Err(error)
            }),
            Fault::EndsAt { call: number } => {
                Script::new(dir, move |call| if call.number < number { Ok(()) } else { Err(EIO) })
            }
            Fault::Short => Script::short(dir, |call| usize::try_from(call.number * 31 % 97).unwrap()),
        }
    }

    /// Whoever calls is told nothing of this.
    fn is_mended(self) -> bool {
        matches!(self, Fault::Fails { error: EINTR, .. } | Fault::Short)
    }
}

/// A sample of the faults that a run with so many calls can have.
fn faults(what: &str, calls: u64, errors: &[i32]) -> Vec<Fault> {
    let fails = (1..=calls).flat_map(|call| errors.iter().map(move |error| Fault::Fails { call, error: *error }));
    let ends = (1..=calls).map(|call| Fault::EndsAt { call });
    let mut faults = sample(&format!("{what}: failing calls"), fails.collect(), FAILS_MAX);
    if errors != [EINTR] {
        faults.extend(sample(&format!("{what}: ends"), ends.collect(), ENDS_MAX));
        faults.push(Fault::Short);
    }
    faults
}

/// The error says what was done to what, or which object cannot be read.
fn is_clean(error: &Error) -> bool {
    let words = error.to_string();
    let cause = std::error::Error::source(error).is_some();
    match error {
        Error::Io { path, .. } => !path.as_os_str().is_empty() && cause,
        _ => cause || words.contains('/'),
    }
}

struct Sweep {
    fixture: Fixture,
    releases: [SnapshotId; 2],
    operation: Operation,
}

impl Sweep {
    fn new(operation: Operation) -> Sweep {
        let (fixture, releases) = releases();
        Sweep { fixture, releases, operation }
    }

    fn run(&self, place: &Place<'_>) -> Result<()> {
        self.operation.run(&self.fixture.store, &place.paths(), &self.releases[1])
    }

    /// The tree as it is compared: which directory's time an adoption has changed before it failed is not remembered.
    fn read(&self, place: &Place<'_>) -> BTreeMap<Vec<u8>, Item> {
        let mut tree = read_tree(&place.root);
        if self.operation == Operation::Adoption {
            tree.values_mut().filter(|item| item.kind == Kind::Dir).for_each(|item| item.mtime = (0, 0));
        }
        tree
    }

    /// Lets each call fail with each of `errors`, and be the last one.
    fn sweep(&self, errors: &[i32]) {
        let place = self.place(0);
        let counted = Script::new(self.fixture.dir(), |_| Ok(()));
        self.run(&place).unwrap();
        let calls = counted.calls();
        drop(counted);
        let expected = self.read(&place);
        let mut failed = 0;
        for (at, fault) in faults(&format!("{:?}", self.operation), calls, errors).into_iter().enumerate() {
            failed += usize::from(self.disturb(at + 1, fault, expected.clone()));
            if at % 16 == 0 {
                self.fixture.assert_sound();
            }
        }
        println!("{:?}: {calls} calls, {failed} failures", self.operation);
        assert!(failed > 10 || errors == [EINTR], "only {failed} failed");
    }

    /// One run with a fault, and what must be possible then. Gives whether it failed.
    fn disturb(&self, number: usize, fault: Fault, mut expected: BTreeMap<Vec<u8>, Item>) -> bool {
        let place = self.place(number);
        let what = format!("{:?}, {fault:?}", self.operation);
        let before = self.read(&place);
        let script = fault.inject(self.fixture.dir());
        let done = self.run(&place);
        drop(script);
        if let Err(e) = &done {
            assert!(is_clean(e), "{what}: {e}: {e:?}");
            assert!(!fault.is_mended(), "{what}: {e}: {:?}", std::error::Error::source(e));
            self.go_on(&what, &place);
        }
        // The stray and the edited file of each place have times of their own.
        self.take_times(&mut expected, &place);
        println!("{what}");
        assert_same(&self.read(&place), &expected);
        if matches!(self.operation, Operation::Full | Operation::Incremental) {
            // However it came to its end, all of it can be taken back.
            place.rollback().unwrap();
            assert_same(&self.read(&place), &before);
        }
        self.nothing_is_left(&what, &place);
        for path in [&place.root, &place.state] {
            std::fs::remove_dir_all(path).unwrap();
        }
        done.is_err()
    }

    fn place(&self, number: usize) -> Place<'_> {
        self.operation.place(&self.fixture, &format!("server-{number}"), &self.releases)
    }

    fn take_times(&self, expected: &mut BTreeMap<Vec<u8>, Item>, place: &Place<'_>) {
        let found = self.read(place);
        for path in [&b""[..], b"d", b"d/stray", b"d/same", b"mine", b"mine/f"] {
            if let (Some(item), Some(found)) = (expected.get_mut(path), found.get(path)) {
                item.mtime = found.mtime;
            }
        }
    }

    /// Whoever is told of a failure goes on, or calls the same again.
    fn go_on(&self, what: &str, place: &Place<'_>) {
        let target = &self.releases[1];
        let status = &place.status().areas[0];
        let (is_begun, is_done) = (status.interrupted.is_some(), status.applied == Some(*target));
        let again = match self.operation {
            Operation::Full | Operation::Incremental => self.run(place),
            Operation::Adoption if is_done => Ok(()),
            Operation::Adoption => self.run(place),
            // What was begun goes on by itself; what was not is asked for again.
            Operation::Rollback | Operation::Undo | Operation::TurnAround => {
                if is_begun {
                    Operation::Recover.run(&self.fixture.store, &place.paths(), target).unwrap();
                }
                let is_back = place.status().areas[0].interrupted.is_none()
                    && place.status().areas[0].applied == Some(self.releases[0]);
                if is_back { Ok(()) } else { Operation::Rollback.run(&self.fixture.store, &place.paths(), target) }
            }
            Operation::Recover => self.run(place),
        };
        again.unwrap_or_else(|e| panic!("{what}: again: {e}: {:?}", std::error::Error::source(&e)));
    }

    /// No temporary name is left once the next run has begun.
    fn nothing_is_left(&self, what: &str, place: &Place<'_>) {
        let full = |options: &mut CheckoutOptions| {
            (options.mode, options.adopt) = (Some(Mode::Incremental), Some(Adopt::Keep));
        };
        place.try_checkout(&self.releases[1], full).unwrap_or_else(|e| panic!("{what}: the next one: {e}"));
        let is_temporary = |name: &str| name.starts_with("tmp-") || name.ends_with(".new") || name == "staging";
        let left: Vec<String> = names_below(&place.state)
            .into_iter()
            .chain(names_below(&place.root.join(".evenkeel")))
            .chain(names_below(self.fixture.store.path()))
            .filter(|name| is_temporary(name))
            .collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
}

fn names_below(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        names.push(entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().unwrap().is_dir() && entry.file_name() != "undo" {
            names.extend(names_below(&entry.path()));
        }
    }
    names
}

#[test]
fn a_full_checkout() {
    Sweep::new(Operation::Full).sweep(&ERRORS);
}

#[test]
fn an_incremental_checkout() {
    Sweep::new(Operation::Incremental).sweep(&ERRORS);
}

/// An error at the first look at the tree passed for an empty tree, where there is nothing to adopt: everything that had been
/// there went to undo.
#[test]
fn a_tree_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let sweep = Sweep::new(Operation::Adoption);
    // Fails the look at the root with this number. Gives how many there were.
    let run = |number: u64| {
        let place = sweep.place(usize::try_from(number).unwrap());
        let (root, looks) = (place.root.clone(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&looks);
        let script = Script::new(&place.root, move |call| {
            let is_it = call.paths.contains(&root) && counted.fetch_add(1, Ordering::Relaxed) + 1 == number;
            if is_it { Err(EIO) } else { Ok(()) }
        });
        let done = sweep.run(&place);
        drop(script);
        assert_eq!(std::fs::read(place.root.join("mine/f")).unwrap(), b"too", "look {number}: {done:?}");
        looks.load(Ordering::Relaxed)
    };
    let looks = run(0);
    assert!(looks > 10, "only {looks} looks");
    for number in 1..=looks {
        run(number);
    }
}

#[test]
fn an_adoption() {
    Sweep::new(Operation::Adoption).sweep(&ERRORS);
}

#[test]
fn a_rollback() {
    Sweep::new(Operation::Rollback).sweep(&ERRORS);
}

#[test]
fn an_undo() {
    Sweep::new(Operation::Undo).sweep(&ERRORS);
}

#[test]
fn a_recovery() {
    Sweep::new(Operation::Recover).sweep(&ERRORS);
}

#[test]
fn a_rollback_of_what_was_cut_off() {
    Sweep::new(Operation::TurnAround).sweep(&ERRORS);
}

/// On a file system that cannot exchange two names a file that gives way gets a second name first. That can be cut off,
/// gone on with and taken back like anything else.
#[test]
fn without_an_exchange() {
    const EINVAL: i32 = 22;
    let fixture = Fixture::in_memory();
    let tree = &fixture.tree;
    tree.file("d/changed", "one").symlink("d/link", "x").file("d/suid", "s").mode("d/suid", 0o4755).file("gone", "g");
    let first = fixture.commit_new();
    tree.file("d/changed", "two!").remove("d/link").symlink("d/link", "y").file("d/suid", "other").remove("gone");
    tree.mode("d/suid", 0o4755).file("d/new", "n");
    let second = fixture.commit_new();
    let no_exchange = |number: u64| {
        Script::new(fixture.dir(), move |call| match call.name {
            "renameat2 exchange" => Err(EINVAL),
            _ if call.number == number => Err(EIO),
            _ => Ok(()),
        })
    };
    let full = |options: &mut CheckoutOptions| (options.mode, options.threads) = (Some(Mode::Full), 1);
    // Before the first step everything is as it is elsewhere.
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let begun = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&begun);
    let script = Script::new(fixture.dir(), move |call| {
        let is_first = call.name.starts_with("renameat2") && seen.load(Ordering::Relaxed) == 0;
        seen.fetch_add(if is_first { call.number } else { 0 }, Ordering::Relaxed);
        Ok(())
    });
    place.try_checkout(&second, full).unwrap();
    drop(script);
    let (mut number, mut reached) = (begun.load(Ordering::Relaxed) - 1, true);
    let begin = number;
    while reached {
        number += 1;
        let place = Place::new(&fixture, &format!("server-{number}"));
        place.try_checkout(&first, full).unwrap();
        let before = read_tree(&place.root);
        let cut_off = no_exchange(number);
        let done = place.try_checkout(&second, full);
        reached = cut_off.calls() >= number;
        drop(cut_off);
        println!("call {number}: {:?}", done.err().map(|e| e.to_string()));
        let _no_exchange = no_exchange(u64::MAX);
        if number % 2 == 0 && place.status().areas[0].interrupted.is_some() {
            place.rollback().unwrap();
            assert_same(&read_tree(&place.root), &before);
        }
        place.try_checkout(&second, full).unwrap();
        place.assert_is(&second);
        place.rollback().unwrap();
        assert_same(&read_tree(&place.root), &before);
        std::fs::remove_dir_all(&place.root).unwrap();
        std::fs::remove_dir_all(&place.state).unwrap();
    }
    assert!(number > begin + 50, "only {} calls", number - begin);
}

/// A signal is no failure.
#[test]
fn interrupted_calls_are_made_again() {
    for operation in [Operation::Full, Operation::Rollback, Operation::Recover] {
        Sweep::new(operation).sweep(&[EINTR]);
    }
}

/// Commits something new, disturbed; the next commit works. Gives the calls made and whether it failed.
fn commit(fixture: &Fixture, at: usize, fault: Option<Fault>) -> (u64, bool) {
    let what = format!("commit, {fault:?}");
    fixture.tree.file("new/large", noise(at as u64 % 97, 60_000)).file("etc/empty", format!("{at}"));
    settle();
    let script = fault.map_or_else(|| Script::new(fixture.dir(), |_| Ok(())), |fault| fault.inject(fixture.dir()));
    let done = fixture.try_commit(|options| options.threads = 1);
    let calls = script.calls();
    drop(script);
    if let Err(e) = &done {
        assert!(fault.is_some_and(|fault| !fault.is_mended()), "{what}: {e}");
        assert!(is_clean(e), "{what}: {e}: {e:?}");
    }
    let next = fixture.try_commit(|_| {}).unwrap_or_else(|e| panic!("{what}: the next one: {e}"));
    println!("{what}");
    fixture.assert_holds_tree(&next.snapshot.unwrap());
    let names = names_below(fixture.store.path()).into_iter().chain(names_below(&fixture.state));
    let left: Vec<String> = names.filter(|name| name.starts_with("tmp-")).collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    (calls, done.is_err())
}

#[test]
fn a_commit() {
    let fixture = Fixture::in_memory();
    fixture.tree.sample();
    fixture.commit_new();
    let (calls, _) = commit(&fixture, 0, None);
    let mut all = faults("commit", calls, &ERRORS);
    all.extend(faults("commit, interrupted", calls, &[EINTR]));
    let failed = all.into_iter().enumerate().filter(|(at, fault)| commit(&fixture, at + 1, Some(*fault)).1).count();
    assert!(failed > 10, "only {failed} failed");
    fixture.assert_sound();
}
