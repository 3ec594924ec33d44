// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A place to check out to: a tree with a state directory of its own.

use std::path::PathBuf;

use evenkeel_store::checkout::{
    AreaRollback, AreaTarget, BackOptions, CheckoutOptions, CheckoutReport, Mode, Record, StatusOptions, StatusReport,
    change_record, checkout, history, rollback, status, undo, verify,
};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Progress, Result, Store};

use crate::build::Tree;
use crate::fixture::{AREA, Fixture, assert_same, settle};
use crate::naive::read_tree;
use crate::operation::Paths;

/// A server in a test.
#[derive(Debug)]
pub struct Place<'f> {
    fixture: &'f Fixture,
    /// Where it is checked out from; the fixture's store unless a test says otherwise.
    pub store: Store,
    pub root: PathBuf,
    pub state: PathBuf,
    /// Patterns that only this place has.
    pub exclude: Vec<String>,
}

impl<'f> Place<'f> {
    /// A place that does not exist yet.
    pub fn new(fixture: &'f Fixture, name: &str) -> Place<'f> {
        let (root, state) = (fixture.dir().join(name), fixture.dir().join(format!("{name}.state")));
        Place { fixture, store: fixture.store.clone(), root, state, exclude: Vec::new() }
    }

    /// Its tree, to change by hand.
    pub fn tree(&self) -> Tree {
        Tree::new(&self.root)
    }

    /// The store that it is checked out from.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where it is, for another thread.
    pub fn paths(&self) -> Paths {
        Paths { root: self.root.clone(), state: self.state.clone() }
    }

    fn area(&self) -> AreaTarget {
        AreaTarget { exclude: self.exclude.clone(), ..AreaTarget::new(AREA, &self.root) }
    }

    /// Checks out with changed options.
    ///
    /// # Errors
    /// Those of the checkout.
    pub fn try_checkout(&self, id: &SnapshotId, change: impl FnOnce(&mut CheckoutOptions)) -> Result<CheckoutReport> {
        settle();
        let mut options = CheckoutOptions::new(*id, self.state.clone());
        options.areas = vec![self.area()];
        options.threads = 2;
        change(&mut options);
        let report = checkout(&self.store, &options, &Progress::default());
        settle();
        report
    }

    /// Checks out in a mode, which must succeed.
    pub fn checkout(&self, id: &SnapshotId, mode: Mode) -> CheckoutReport {
        self.try_checkout(id, |options| options.mode = Some(mode)).unwrap()
    }

    /// Checks out in full; then it must equal the snapshot, nothing may be left in staging, a second run finds nothing
    /// to do, and the state says so.
    #[track_caller]
    pub fn checkout_exactly(&self, id: &SnapshotId) -> CheckoutReport {
        let report = self.checkout(id, Mode::Full);
        self.assert_is(id);
        assert!(report.in_sync);
        let own = ["lock", "marker", "undo"];
        assert!(self.private_names().iter().all(|name| own.contains(&name.as_str())), "{:?}", self.private_names());
        let again = self.checkout(id, Mode::Full);
        assert!(again.is_empty() && again.in_sync, "{:?}", again.areas[0].changes);
        assert_eq!(again.areas[0].counts.unproven, 0, "a second run only walks");
        for report in [self.status(), self.verify()] {
            assert!(report.in_sync() && report.areas[0].drift.is_empty(), "{:?}", report.areas[0].drift);
        }
        report
    }

    /// Takes the last checkout back.
    ///
    /// # Errors
    /// Those of the rollback.
    pub fn rollback(&self) -> Result<AreaRollback> {
        settle();
        let done = rollback(&self.area(), &BackOptions::new(&self.state), &Progress::default());
        settle();
        done
    }

    /// Takes checkouts back down to `number`.
    ///
    /// # Errors
    /// Those of the rollbacks.
    pub fn undo(&self, number: u64) -> Result<Vec<AreaRollback>> {
        settle();
        let mut done = Vec::new();
        let undone = undo(&self.area(), &BackOptions::new(&self.state), number, &mut done, &Progress::default());
        settle();
        undone.map(|()| done)
    }

    /// What was done here.
    pub fn history(&self) -> Vec<Record> {
        history(&self.area(), &self.state).unwrap()
    }

    /// The lines of the record of `number`, which is whole, as JSON.
    #[track_caller]
    pub fn record(&self, number: u64) -> Vec<serde_json::Value> {
        self.try_record(number).unwrap()
    }

    /// The lines of the record of `number`.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn try_record(&self, number: u64) -> Result<Vec<serde_json::Value>> {
        let lines = change_record(&self.area(), &self.state, number)?.lines()?;
        lines.map(|line| Ok(serde_json::from_slice(&line?.0).unwrap())).collect()
    }

    /// Every transaction that was finished, and what it took back, has a whole record with an end.
    #[track_caller]
    pub fn assert_records(&self) {
        if !self.state.exists() {
            return;
        }
        for known in self.history() {
            for number in [Some(known.number), known.undoes].into_iter().flatten() {
                let lines = self.record(number);
                let (header, end) = (&lines[0], &lines[lines.len() - 2]);
                assert_eq!((&header["line"], &end["line"]), (&"header".into(), &"end".into()), "record {number}");
                let changes = lines.iter().filter(|line| line["line"] == "change").count();
                assert_eq!(header["changes"], changes, "record {number}");
            }
        }
    }

    /// The live tree is exactly what the snapshot holds.
    #[track_caller]
    pub fn assert_is(&self, id: &SnapshotId) {
        assert_same(&read_tree(&self.root), &self.fixture.read(id));
    }

    pub fn status(&self) -> StatusReport {
        status(&self.status_options(), &self.store, &Progress::default()).unwrap()
    }

    pub fn verify(&self) -> StatusReport {
        verify(&self.status_options(), &self.store, &Progress::default()).unwrap()
    }

    fn status_options(&self) -> StatusOptions {
        StatusOptions { areas: vec![self.area()], state_dir: self.state.clone(), protected: Vec::new() }
    }

    /// What lies in `.evenkeel`.
    pub fn private_names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.root.join(".evenkeel"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// `path: what` of everything that `status` finds.
    pub fn drift(&self) -> Vec<String> {
        let areas = self.status().areas;
        areas[0].drift.iter().map(|drift| format!("{}: {}", drift.path, drift.what.name())).collect()
    }
}

/// `action path` for each change, then `keep path`.
pub fn summary(report: &CheckoutReport) -> Vec<String> {
    let area = &report.areas[0];
    let changes = area.changes.iter().map(|change| format!("{} {}", change.action.name(), change.path));
    changes.chain(area.kept.iter().map(|kept| format!("keep {}", kept.path))).collect()
}
