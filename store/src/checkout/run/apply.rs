// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What follows the plans: every area is staged, then each is switched and recorded.

use super::fetch::Needed;
use super::{AreaRun, Place, Ready, Run, tree};
use crate::checkout::change_record::{Ended, NewRecord, What};
use crate::checkout::journal::Journal;
use crate::checkout::lift::Lifts;
use crate::checkout::options::SwitchMode;
use crate::checkout::record::{Done, Recording};
use crate::checkout::report::AreaReport;
use crate::checkout::stage::stage;
use crate::checkout::state::HeldArea;
use crate::checkout::steps;
use crate::checkout::switch::{Care, Switch, Switched};
use crate::checkout::transaction::{self, Memory};
use crate::error::{Error, Result};
use crate::fetch::FetchReport;
use crate::files_cache::CacheWriter;
use crate::format::manifest::Timestamp;
use crate::fsio;

impl<'a> Run<'a> {
    pub(super) fn apply(
        &self,
        mut areas: Vec<AreaRun<'a>>,
        mut needed: Option<&mut Needed>,
    ) -> Result<Vec<AreaReport>> {
        let fetched =
            needed.as_deref_mut().map_or(Ok(()), |needed| self.fetch(&areas, self.staged_beside(&areas)?, needed));
        let fetch = needed.map(|needed| needed.report);
        let staged = fetched.and_then(|()| areas.iter_mut().try_for_each(|area| self.stage(area)));
        if let Err(error) = staged {
            // Nothing live has changed; what was staged is of no use.
            for area in &areas {
                if let Place::Held(held) = &area.place {
                    let _ = held.clear_staging();
                }
            }
            return Err(error);
        }
        areas.iter_mut().map(|area| self.switch(area, fetch.as_ref())).collect()
    }

    /// Makes everything new, durable, and what will be remembered of it.
    fn stage(&self, area: &mut AreaRun<'a>) -> Result<()> {
        let Place::Held(held) = &area.place else { return Ok(()) };
        if area.plan.is_empty() {
            return Ok(());
        }
        if self.options.switch == SwitchMode::Tree {
            return self.stage_tree(area);
        }
        let staging = held.staging()?;
        stage(&area.plan, &staging, &held.root, self.reader, threads(self.options.threads), self.progress)?;
        if self.options.switch == SwitchMode::Direct {
            return held.root.sync_filesystem().map_err(|e| Error::io("sync file system of", held.root.path(), e));
        }
        self.progress.start("syncing", 0, 0);
        let (steps, dirs) = steps::of_plan(&area.plan, &staging, &held.root, &area.rules)?;
        let journal = Journal {
            number: transaction::next_number(held)?,
            base: held.applied(),
            target: Some(self.options.snapshot),
            undoes: None,
            steps,
            dirs,
        };
        held.make_state()?;
        area.here.fidelity.remember(&held.state)?;
        let record = self.sync_and_record(area, held, None)?;
        area.ready = Some(Ready { journal, record });
        Ok(())
    }

    /// Makes everything in the area's file system durable, and meanwhile what is remembered of it.
    pub(super) fn sync_and_record(
        &self,
        area: &AreaRun<'_>,
        held: &HeldArea,
        done: Option<&Done>,
    ) -> Result<CacheWriter> {
        let recording = Recording {
            plan: area.tree.as_ref().map_or(&area.plan, |whole| &whole.plan),
            here: &area.here,
            root: &held.root,
            rules: &area.rules,
            local_rules: &area.local_rules,
            walk_start: area.walk_start,
            done,
        };
        let (synced, record) = std::thread::scope(|scope| {
            let syncing = scope.spawn(|| held.root.sync_filesystem());
            let record = recording.write(area.manifest.entries(), &held.state);
            (syncing.join().expect("a system call does not panic"), record)
        });
        synced.map_err(|e| Error::io("sync file system of", held.root.path(), e))?;
        record
    }

    /// Switches one area and records it.
    fn switch(&self, area: &mut AreaRun<'_>, fetch: Option<&FetchReport>) -> Result<AreaReport> {
        let target = self.options.snapshot;
        let known = area.marker.as_ref().is_some_and(|m| m.applied == Some(target) && m.transaction.is_none());
        if known && area.plan.is_empty() && area.plan.counts.unproven == 0 && area.base == Some(target) {
            return Ok(self.report(area, &Switched::default()));
        }
        let ready = match area.ready.take() {
            None if area.plan.is_empty() => self.ready_to_note(area)?,
            ready => ready,
        };
        let Place::Held(held) = &mut area.place else { return Ok(self.report(area, &Switched::default())) };
        held.rename(&area.target.name, self.store.id());
        let start = fsio::now_coarse();
        let (switched, journal) = match ready {
            Some(Ready { journal, record }) => {
                let memory = Memory::Record(Box::new(record), target, area.reference.manifest);
                let root = held.root.try_clone().map_err(|e| Error::io("look at", held.root.path(), e))?;
                let (plan, mode, adopt, not_held) = (&area.plan, area.mode, area.adopting, &area.losses.report());
                let warnings = &self.source_notes();
                let new_record = NewRecord {
                    area: &area.target.name,
                    root: &root,
                    root_path: &area.path,
                    asked_by: self.options.asked_by.as_ref(),
                    asked: self.began,
                    what: What::Checkout { plan, mode, adopt, not_held, fetch, warnings },
                };
                if area.plan.is_empty() {
                    transaction::note(held, &journal, memory, &new_record)?;
                    area.number = Some(journal.number);
                    return self.drop_old(area).map(|()| self.report(area, &Switched::default()));
                }
                transaction::begin(held, &journal, memory, &new_record)?;
                area.number = Some(journal.number);
                let mut switched = transaction::switch(held, &journal, false, self.progress)?;
                if let Some(whole) = &area.tree {
                    let seen = tree::look_back(held, whole, &journal, &mut switched, self.progress);
                    seen.map_err(|e| held.unrecorded(Some(target), e))?;
                }
                (switched, Some(journal))
            }
            None if area.plan.is_empty() => {
                held.note(&area.path)?;
                (Switched::default(), None)
            }
            None => {
                held.begin(target, area.adopting, &area.path)?;
                (self.switch_directly(area)?, None)
            }
        };
        self.record(area, journal.as_ref(), &switched, start).map_err(|e| {
            let Place::Held(held) = &area.place else { return e };
            held.unrecorded(Some(target), e)
        })?;
        if journal.is_some() {
            self.drop_old(area)?;
        }
        Ok(self.report(area, &switched))
    }

    /// What is to be noted of a checkout that changes no name and leads from one snapshot to another: who takes the last
    /// checkout back means this one.
    fn ready_to_note(&self, area: &AreaRun<'_>) -> Result<Option<Ready>> {
        let Place::Held(held) = &area.place else { return Ok(None) };
        let target = self.options.snapshot;
        let base = held.applied().filter(|base| *base != target);
        if base.is_none() {
            return Ok(None);
        }
        let done = Done { start: fsio::now_coarse(), changed_meanwhile: Vec::new() };
        let record = self.sync_and_record(area, held, Some(&done))?;
        let (number, steps, dirs) = (transaction::next_number(held)?, Vec::new(), Vec::new());
        let journal = Journal { number, base, target: Some(target), undoes: None, steps, dirs };
        Ok(Some(Ready { journal, record }))
    }

    /// Drops what is kept of older transactions and is too much.
    fn drop_old(&self, area: &mut AreaRun<'_>) -> Result<()> {
        let Place::Held(held) = &area.place else { return Ok(()) };
        area.dropped_undo = transaction::drop_old(held, self.options.undo, fsio::now())?;
        transaction::drop_records(held, self.options.records)
    }

    /// Makes a switch durable, and ends it.
    fn record(
        &self,
        area: &mut AreaRun<'_>,
        journal: Option<&Journal>,
        switched: &Switched,
        start: Timestamp,
    ) -> Result<()> {
        let target = self.options.snapshot;
        let done = Done { start, changed_meanwhile: switched.changed_meanwhile.clone() };
        self.progress.start("recording", area.reference.entries, 0);
        let Place::Held(held) = &area.place else { return Ok(()) };
        let record = self.sync_and_record(area, held, Some(&done))?;
        let memory = Memory::Record(Box::new(record), target, area.reference.manifest);
        let Place::Held(held) = &mut area.place else { return Ok(()) };
        match journal {
            Some(journal) => transaction::finish(held, journal, Some(memory), &Ended { switched, recovered: None }),
            None => {
                memory.publish(&held.applied_path())?;
                held.end(Some(target), 0)?;
                held.clear_staging()
            }
        }
    }

    /// A switch that keeps neither a journal nor what gives way.
    fn switch_directly(&self, area: &AreaRun<'_>) -> Result<Switched> {
        let Place::Held(held) = &area.place else { return Ok(Switched::default()) };
        if area.plan.is_empty() {
            return Ok(Switched::default());
        }
        let staging = held.staging()?;
        let (steps, dirs) = steps::of_plan(&area.plan, &staging, &held.root, &area.rules)?;
        let (lifts, done) = (Lifts::default(), Switched::default());
        let (steps, dirs, root) = (&steps[..], &dirs[..], &held.root);
        Switch { steps, dirs, staging: &staging, root, care: Care::None, resumed: false, lifts, done }
            .run(self.progress)
    }
}

pub(super) fn threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
