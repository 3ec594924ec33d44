// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every operation that changes a live tree, for tests that disturb each of them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use evenkeel_store::checkout::{
    Adopt, AreaTarget, BackOptions, CheckoutOptions, Mode, checkout, recover, rollback, undo,
};
use evenkeel_store::fsio::script::Script;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Progress, Result, Store};

use crate::{Fixture, Place};

/// The number of the error that a failing disk gives.
pub const EIO: i32 = 5;

/// Something that changes a live tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Full,
    Incremental,
    Adoption,
    Rollback,
    Undo,
    /// Of a switch that was cut off after some steps.
    Recover,
    /// A rollback of such a switch.
    TurnAround,
}

impl Operation {
    /// Runs it, with one worker: the n-th call is the same one in every run.
    ///
    /// # Errors
    /// Its own.
    pub fn run(self, store: &Store, place: &Paths, target: &SnapshotId) -> Result<()> {
        let (area, progress) = (AreaTarget::new("tree", &place.root), Progress::default());
        match self {
            Operation::Rollback | Operation::TurnAround => {
                rollback(&area, &BackOptions::new(&place.state), &progress).map(drop)
            }
            Operation::Undo => undo(&area, &BackOptions::new(&place.state), 2, &mut Vec::new(), &progress),
            Operation::Recover => recover(&area, &BackOptions::new(&place.state), &progress).map(drop),
            Operation::Full | Operation::Incremental | Operation::Adoption => {
                let mode = if self == Operation::Incremental { Mode::Incremental } else { Mode::Full };
                let options = CheckoutOptions {
                    areas: vec![area],
                    mode: Some(mode),
                    adopt: (self == Operation::Adoption).then_some(Adopt::Replace),
                    threads: 1,
                    ..CheckoutOptions::new(*target, place.state.clone())
                };
                checkout(store, &options, &progress).map(drop)
            }
        }
    }

    /// A place where it may begin, with changes of the server's own.
    pub fn place<'f>(self, fixture: &'f Fixture, name: &str, [first, second]: &[SnapshotId; 2]) -> Place<'f> {
        const STEPS: usize = 6;
        let place = Place::new(fixture, name);
        let full = |options: &mut CheckoutOptions| options.mode = Some(Mode::Full);
        if self == Operation::Adoption {
            place.tree().file("d/changed", "was here").file("mine/f", "too").file("d/mode", "m");
            return place;
        }
        place.try_checkout(first, full).unwrap();
        place.tree().file("d/stray", "stray").file("d/same", "edited");
        match self {
            Operation::Rollback | Operation::Undo => drop(place.try_checkout(second, full).unwrap()),
            Operation::Recover | Operation::TurnAround => {
                let steps = AtomicUsize::new(0);
                let cut_off = Script::new(&place.root, move |call| {
                    let is_step = call.name.starts_with("renameat2");
                    if is_step && steps.fetch_add(1, Ordering::Relaxed) == STEPS { Err(EIO) } else { Ok(()) }
                });
                assert!(place.try_checkout(second, full).is_err());
                drop(cut_off);
                assert!(place.status().areas[0].interrupted.is_some());
            }
            Operation::Full | Operation::Incremental | Operation::Adoption => {}
        }
        place
    }
}

/// Where a place is, for another thread.
#[derive(Debug, Clone)]
pub struct Paths {
    pub root: PathBuf,
    pub state: PathBuf,
}

/// Two releases with every kind of step between them, and names that a canary has, too.
pub fn releases() -> (Fixture, [SnapshotId; 2]) {
    let fixture = Fixture::in_memory();
    let tree = &fixture.tree;
    tree.file("d/changed", "one").file("d/mode", "m").file("d/gone", "g").file("d/same", "same").symlink("d/link", "x");
    tree.file("gone/f", "f").file("kind/dir/f", "f").file("kind/file", "f").file("d/suid", "s").mode("d/suid", 0o4755);
    tree.file("l/a", "l").link("l/a", "l/b").file("read-only/f", "1").mode("read-only", 0o555).dir("d/sub");
    let first = fixture.commit_new();
    tree.file("d/changed", "two!").mode("d/mode", 0o640).remove("d/gone").remove("d/link").symlink("d/link", "y");
    tree.remove("gone").remove("kind").file("kind/dir", "a file").file("kind/file/f", "f").remove("d/suid");
    tree.file("d/suid", "other").mode("d/suid", 0o4755).file("d/new", "n").file("new/deep/f", "f").mode("d/sub", 0o700);
    tree.remove("l/b").link("l/a", "l/c").mode("read-only", 0o755).file("read-only/f", "2").mode("read-only", 0o555);
    let second = fixture.commit_new();
    (fixture, [first, second])
}
