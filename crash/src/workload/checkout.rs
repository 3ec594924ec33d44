// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checkouts, area and state directory both on the recorded disk, the store elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evenkeel_store::checkout::{
    AreaTarget, BackOptions, CheckoutOptions, Mode, StatusOptions, SwitchMode, checkout, recover, rollback, status,
    verify,
};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Progress, Store};
use evenkeel_tests::fixture::{AREA, assert_same, settle};
use evenkeel_tests::naive::{Kind, read_snapshot};
use evenkeel_tests::{Item, Tree, noise, read_tree};

use super::commit::{commit_tree, create_store};
use super::{Checker, Crash, Marks, Place, Workload};

type Content = BTreeMap<Vec<u8>, Item>;

const SET_ID: u32 = 0o6000;
const RELEASES: usize = 3;

/// Into a place where nothing is.
pub const FIRST: Checkouts =
    Checkouts { name: "checkout-first", before: None, steps: &[Step::To(1)], weight: 4, switch: SwitchMode::Files };
/// From release 1 with local changes.
pub const UPDATE: Checkouts =
    Checkouts { name: "checkout-update", before: Some(1), steps: &[Step::To(2)], weight: 5, switch: SwitchMode::Files };
/// Several in a row, so that what one left is what the next finds.
pub const BACK_AND_FORTH: Checkouts = Checkouts {
    name: "checkout-back-and-forth",
    before: Some(1),
    steps: &[Step::To(2), Step::To(1), Step::To(3)],
    weight: 4,
    switch: SwitchMode::Files,
};
/// The same, each time the whole tree in one step.
pub const TREES: Checkouts = Checkouts { name: "checkout-trees", switch: SwitchMode::Tree, ..BACK_AND_FORTH };

/// Checkouts that are taken back by name, the first with local changes under it, the last two one after the other.
pub const TAKEN_BACK: Checkouts = Checkouts {
    name: "checkout-taken-back",
    before: Some(1),
    steps: &[Step::To(2), Step::Back, Step::To(3), Step::To(1), Step::Back, Step::Back],
    weight: 4,
    switch: SwitchMode::Files,
};
/// The same with the whole tree in one step.
pub const TREES_TAKEN_BACK: Checkouts =
    Checkouts { name: "checkout-trees-taken-back", switch: SwitchMode::Tree, ..TAKEN_BACK };

/// What is done to an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A full checkout of this release.
    To(usize),
    /// A rollback of the last checkout that was not taken back.
    Back,
}

/// What an area holds between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// The release that was applied; `None` where nothing was.
    release: Option<usize>,
    /// With the local changes that were there before the first step.
    is_local: bool,
}

/// Full checkouts, one after the other, and rollbacks; each is a step.
#[derive(Debug)]
pub struct Checkouts {
    name: &'static str,
    /// The release that the place is at before, with local changes.
    before: Option<usize>,
    steps: &'static [Step],
    weight: u64,
    switch: SwitchMode,
}

/// Releases with every kind of change between them.
fn make_release(tree: &Tree, number: usize) {
    match number {
        1 => {
            tree.file("etc/config", "v1")
                .file("etc/shadow", noise(7, 5_000))
                .file("usr/both", "v1")
                .file("usr/bin/tool", noise(1, 120_000))
                .file("usr/bin/su", noise(8, 30_000))
                .file("gone/deep/f", noise(2, 9_000))
                .dir("var")
                .sparse("var/sparse", 1 << 20, &[(4096, b"begin"), (700_000, b"middle")]);
            tree.file("kind/was-dir/x", "x").file("kind/was-dir/deep/y", noise(3, 5_000));
            tree.symlink("kind/was-link", "x").file("kind/was-file", "x").fifo("kind/was-fifo");
            tree.link("usr/bin/tool", "usr/l").file("usr/alone", noise(4, 20_000));
            tree.file("read-only/f", "1").mode("read-only", 0o555).xattr("etc/config", "user.k", b"v");
            tree.mode("etc/shadow", 0o600).mode("usr/bin/su", 0o4755);
            (0..40).for_each(|n| {
                tree.file(format!("many/{n:02}"), noise(n, 2_000));
            });
        }
        2 => {
            tree.file("usr/both", "v2").file("usr/bin/tool", noise(11, 90_000)).remove("gone").remove("kind");
            tree.file("kind/was-dir", noise(12, 12_000)).file("kind/was-link/x", "x").symlink("kind/was-file", "x");
            tree.file("kind/was-fifo", "a file").symlink("usr/link", "bin/tool");
            tree.mode("read-only", 0o755).file("read-only/f", "2").file("read-only/g", "g").mode("read-only", 0o555);
            tree.file("new/a", noise(13, 30_000)).link("new/a", "new/b").mode("etc/config", 0o600);
            tree.owner("usr/bin/tool", 3, 4).remove("usr/l").link("usr/alone", "usr/l");
            tree.file("usr/bin/su", noise(14, 31_000)).owner("usr/bin/su", 5, 6).mode("usr/bin/su", 0o2755);
            tree.sparse("var/sparse", 2 << 20, &[(8192, b"elsewhere")]).xattr("etc/config", "user.k", b"other");
            (0..40).step_by(3).for_each(|n| {
                tree.file(format!("many/{n:02}"), noise(100 + n, 2_100));
            });
        }
        _ => {
            tree.remove("new").remove("kind").file("etc/config", "v3").mode("etc/shadow", 0o640);
            tree.owner("usr/bin/su", 0, 0).mode("usr/bin/su", 0o4755).file("usr/both", noise(15, 8_000));
        }
    }
}

/// What users, and whoever administers the server, did.
fn local_changes(tree: &Tree) {
    tree.file("local/stray", "stray").file("etc/config", "edited here").mode("etc/shadow", 0o644);
    tree.file("usr/both", "changed on both sides").remove("many/01").file("many/03", noise(50, 2_000));
}

fn state_of(place: Place<'_>) -> PathBuf {
    place.inside.join("state")
}

fn status_options(place: Place<'_>) -> StatusOptions {
    StatusOptions { areas: vec![area_of(place)], state_dir: state_of(place), protected: Vec::new() }
}

fn area_of(place: Place<'_>) -> AreaTarget {
    AreaTarget { numeric_owners: true, ..AreaTarget::new(AREA, place.inside.join("tree")) }
}

/// The store of the releases, and their names.
struct Releases {
    store: Store,
    ids: Vec<SnapshotId>,
}

impl Releases {
    fn make(place: Place<'_>) -> Releases {
        let store = create_store(&place.outside.join("store")).unwrap();
        let tree = Tree::new(place.outside.join("source"));
        let commit = |number| {
            make_release(&tree, number);
            let report = commit_tree(&store, &place.outside.join("state"), tree.root()).unwrap();
            let id = report.snapshot.expect("something changed");
            std::fs::write(place.outside.join(format!("{number}.id")), id.to_hex()).unwrap();
            id
        };
        let ids = (1..=RELEASES).map(commit).collect();
        Releases { store, ids }
    }

    fn open(place: Place<'_>) -> Releases {
        let store = Store::open(&place.outside.join("store")).unwrap();
        let id = |number| std::fs::read_to_string(place.outside.join(format!("{number}.id"))).unwrap().parse().unwrap();
        Releases { store, ids: (1..=RELEASES).map(id).collect() }
    }

    fn check_out(&self, place: Place<'_>, number: usize, switch: SwitchMode) -> evenkeel_store::Result<()> {
        settle();
        let options = CheckoutOptions {
            areas: vec![area_of(place)],
            mode: Some(Mode::Full),
            threads: 1,
            switch,
            ..CheckoutOptions::new(self.ids[number - 1], state_of(place))
        };
        let report = checkout(&self.store, &options, &Progress::default())?;
        assert!(report.in_sync && !report.planned_only, "release {number}: {report:#?}");
        Ok(())
    }

    fn step(&self, place: Place<'_>, step: Step, switch: SwitchMode) -> evenkeel_store::Result<()> {
        match step {
            Step::To(number) => self.check_out(place, number, switch),
            Step::Back => take_back(place),
        }
    }

    fn read(&self, number: usize) -> Content {
        let snapshot = self.store.snapshot(&self.ids[number - 1]).unwrap();
        read_snapshot(&self.store, &snapshot, AREA).unwrap()
    }
}

fn take_back(place: Place<'_>) -> evenkeel_store::Result<()> {
    settle();
    let undone = rollback(&area_of(place), &BackOptions::new(state_of(place)), &Progress::default())?;
    assert!(undone.left_alone.is_empty(), "{undone:?}");
    Ok(())
}

impl Checkouts {
    /// What the area holds before each step and after the last.
    fn held(&self) -> Vec<Held> {
        let mut held = vec![Held { release: self.before, is_local: true }];
        let mut stack = Vec::new();
        for step in self.steps {
            let now = held[held.len() - 1];
            held.push(match step {
                Step::To(number) => {
                    stack.push(now);
                    Held { release: Some(*number), is_local: false }
                }
                Step::Back => stack.pop().expect("something was checked out"),
            });
        }
        held
    }
}

impl Workload for Checkouts {
    fn name(&self) -> &'static str {
        self.name
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn prepare(&self, place: Place<'_>) {
        let releases = Releases::make(place);
        if let Some(number) = self.before {
            releases.check_out(place, number, SwitchMode::Files).unwrap();
            local_changes(&Tree::new(area_of(place).root));
        }
    }

    fn run(&self, place: Place<'_>, marks: &dyn Marks) {
        let releases = Releases::open(place);
        for step in self.steps {
            marks.begin();
            releases.step(place, *step, self.switch).unwrap();
            marks.acknowledge();
        }
    }

    fn checker(&self, place: Place<'_>) -> Box<dyn Checker> {
        let releases = Releases::open(place);
        let before = self.before.map(|_| read_tree(&area_of(place).root)).unwrap_or_default();
        let held = self.held();
        let tree = |held: &Held| match held.release {
            Some(number) if !held.is_local => releases.read(number),
            _ => before.clone(),
        };
        let trees = held.iter().map(tree).collect();
        Box::new(Steps { releases, steps: self.steps, switch: self.switch, held, trees })
    }
}

/// What the tree is before each step and after the last.
struct Steps {
    releases: Releases,
    steps: &'static [Step],
    switch: SwitchMode,
    held: Vec<Held>,
    trees: Vec<Content>,
}

/// What the owner does with a tree that a power cut left half-way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    /// The same command again.
    Again,
    /// A checkout of the release before.
    Back,
    /// Has the switch finished, then the same command.
    Finish,
    /// Has the switch taken back, then the same command.
    RollBack,
}

impl Recovery {
    const ALL: [Recovery; 4] = [Recovery::Again, Recovery::Back, Recovery::Finish, Recovery::RollBack];
}

impl Checker for Steps {
    fn check(&self, place: Place<'_>, mut crash: Crash) {
        let done = crash.acknowledged;
        let root = area_of(place).root;
        if root.try_exists().unwrap() {
            let found = read_tree(&root);
            if crash.in_progress {
                assert_old_or_new(&found, &self.trees[done], &self.trees[done + 1]);
            } else if done > 0 {
                // Acknowledged: nothing has to be run again.
                assert_same(&found, &self.trees[done]);
                if !self.held[done].is_local {
                    self.assert_verified(place);
                }
            }
        } else {
            assert!(done == 0 && self.held[0].release.is_none(), "the area is gone");
        }
        let number = self.recover(place, &mut crash);
        assert_same(&read_tree(&root), &self.releases.read(number));
        self.assert_verified(place);
        assert_no_remains(&root);
    }
}

impl Steps {
    /// Returns the release that the tree has to equal now.
    fn recover(&self, place: Place<'_>, crash: &mut Crash) -> usize {
        let done = crash.acknowledged.min(self.steps.len() - 1);
        let mut number = self.held[done + 1].release.expect("a step leads to a release");
        if let Some(before) = self.held[crash.acknowledged].release {
            match Recovery::ALL[crash.random.below(Recovery::ALL.len())] {
                Recovery::Back => number = before,
                Recovery::Finish if crash.in_progress => drop(self.finish(place, done)),
                Recovery::RollBack if crash.in_progress => self.roll_back(place, done),
                _ => {}
            }
        }
        let done = self.releases.check_out(place, number, self.switch);
        done.unwrap_or_else(|error| panic!("release {number}: {}", chain(&error)));
        number
    }

    /// The tree is as before the step where the switch had not begun, else as after it. Gives whether it is.
    fn finish(&self, place: Place<'_>, done: usize) -> bool {
        let finished = recover(&area_of(place), &BackOptions::new(state_of(place)), &Progress::default());
        let finished = finished.unwrap_or_else(|error| panic!("recover: {}", chain(&error)));
        assert!(finished.left_alone.is_empty(), "{finished:?}");
        let is_after = finished.at == self.id_after(done);
        assert_same(&read_tree(&area_of(place).root), &self.trees[done + usize::from(is_after)]);
        is_after
    }

    /// The tree is as before the step that is taken back, with the local changes that it had. A rollback that was cut off is
    /// finished, and begun where it had not: what it takes back is the same.
    fn roll_back(&self, place: Place<'_>, done: usize) {
        let take_back = || take_back(place).unwrap_or_else(|error| panic!("rollback: {}", chain(&error)));
        if self.steps[done] == Step::Back {
            if !self.finish(place, done) {
                take_back();
            }
            return assert_same(&read_tree(&area_of(place).root), &self.trees[done + 1]);
        }
        let report = status(&status_options(place), &self.releases.store, &Progress::default()).unwrap();
        let area = &report.areas[0];
        // Where nothing of the step is there, the one before it would be taken back.
        if area.interrupted.is_some() || area.applied == self.id_after(done) {
            take_back();
        }
        assert_same(&read_tree(&area_of(place).root), &self.trees[done]);
    }

    fn id_after(&self, done: usize) -> Option<SnapshotId> {
        self.held[done + 1].release.map(|number| self.releases.ids[number - 1])
    }

    fn assert_verified(&self, place: Place<'_>) {
        let report = verify(&status_options(place), &self.releases.store, &Progress::default()).unwrap();
        assert!(report.in_sync() && report.areas[0].drift.is_empty(), "verify: {report:#?}");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Nothing lies in `.evenkeel` but what belongs there, and a marker that was being written: the next one that is written
/// takes its place.
fn assert_no_remains(root: &Path) {
    let known = ["lock", "marker", "marker.new", "undo"];
    for entry in std::fs::read_dir(root.join(".evenkeel")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(known.iter().any(|known| name == *known), "left behind: {}", name.display());
    }
}

/// Every path is as it was or as it shall be; a path that is in both is there; nothing else is.
fn assert_old_or_new(found: &Content, old: &Content, new: &Content) {
    let mut wrong = Vec::new();
    for path in found.keys().chain(old.keys().filter(|path| !found.contains_key(*path))) {
        let [item, before, after] = [found, old, new].map(|tree| tree.get(path));
        let fine = match (item, before, after) {
            (None, Some(_), Some(_)) => false,
            (None, ..) => true,
            (Some(item), ..) => [before, after].into_iter().flatten().any(|wanted| is_like(item, wanted)),
        };
        if !fine {
            wrong.push(format!("{}: {item:?}, was {before:?}, shall be {after:?}", path.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "neither old nor new:\n{}", wrong.join("\n"));
}

/// Content is all of the one or all of the other. Owner and mode may be on the way, but never with a set-id bit.
fn is_like(item: &Item, wanted: &Item) -> bool {
    let same_content = match (&item.kind, &wanted.kind) {
        // Where the holes are is part of the plan's comparison, and of the tree after recovery.
        (Kind::File(len, hash, _), Kind::File(wanted_len, wanted_hash, _)) => len == wanted_len && hash == wanted_hash,
        (kind, wanted) => kind == wanted,
    };
    let owner = |item: &Item| (item.mode, item.uid, item.gid);
    same_content && (item.mode & SET_ID == 0 || owner(item) == owner(wanted))
}
