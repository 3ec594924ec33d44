// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All areas looked at, held, planned and judged: once or, where content has to come from far away in between, twice.

use super::fetch::Needed;
use super::{AreaRun, Run};
use crate::checkout::options::Adopt;
use crate::checkout::packages::PackageLocks;
use crate::checkout::refuse;
use crate::checkout::report::SetAside;
use crate::checkout::saved_plan::{PlannedArea, SavedPlan};
use crate::error::Result;

/// All areas, planned and judged.
pub(super) struct Planned<'a> {
    pub(super) areas: Vec<AreaRun<'a>>,
    pub(super) plan: Option<SavedPlan>,
    pub(super) needed: Option<Needed>,
    /// Nothing is going to be changed.
    pub(super) only: bool,
}

/// What was known of the areas before they were looked at again.
pub(super) struct Earlier {
    areas: Vec<Resumed>,
    needed: Needed,
}

/// What taking an area has brought to an end, or to light.
#[derive(Debug, Clone, Default)]
pub(super) struct Resumed {
    /// An interrupted transaction that was finished first.
    pub(super) recovered: Option<u64>,
    /// Asked for again, an adoption still is one: what it kept stays.
    pub(super) adopting: Option<Adopt>,
    /// What could not have its place in that, and its number.
    pub(super) set_aside: Vec<(u64, SetAside)>,
    /// What became of a journal that was lost or damaged.
    pub(super) lost_journal: Option<String>,
}

impl Resumed {
    fn or(self, earlier: &Resumed) -> Resumed {
        Resumed {
            recovered: self.recovered.or(earlier.recovered),
            adopting: self.adopting.or(earlier.adopting),
            set_aside: [&self.set_aside[..], &earlier.set_aside].concat(),
            lost_journal: self.lost_journal.or_else(|| earlier.lost_journal.clone()),
        }
    }
}

impl<'a> Run<'a> {
    fn looks_only(&self) -> bool {
        self.options.dry_run || self.options.fetch_only
    }

    /// Plans and judges all areas; holds them from here on, unless they are only looked at. The package managers' locks are
    /// left until it is known that nothing needs to be fetched first.
    pub(super) fn look(&self, earlier: Option<Earlier>, packages: &mut PackageLocks) -> Result<Planned<'a>> {
        let options = self.options;
        let mut areas = options.areas.iter().map(|target| self.prepare(target)).collect::<Result<Vec<_>>>()?;
        refuse::overlapping(areas.iter().map(|area| (area.target, area.path.as_path())))?;
        refuse::overlapping_known(areas.iter().map(|area| (area.target, area.path.as_path())), &options.state_dir)?;
        if !self.looks_only() {
            areas = areas.into_iter().map(|area| self.hold(area, packages)).collect::<Result<_>>()?;
        }
        for (area, earlier) in areas.iter_mut().zip(earlier.iter().flat_map(|earlier| &earlier.areas)) {
            area.resumed = std::mem::take(&mut area.resumed).or(earlier);
        }
        for area in &mut areas {
            area.adopting = area.resumed.adopting;
            self.choose_mode(area)?;
        }
        self.use_deltas(&areas);
        let is_last = earlier.is_some() || !self.reader.is_far();
        for area in &mut areas {
            self.plan(area)?;
            if is_last && !self.looks_only() && !area.needs_adopt {
                self.lock_packages(area, packages)?;
            }
        }
        let plan = self.saved_plan(&areas)?;
        let only = self.looks_only() || areas.iter().any(|area| area.needs_adopt);
        if !only {
            areas.iter().try_for_each(|area| self.check_bounds(area))?;
        }
        let needed = self.foresee(&areas, earlier.map(|earlier| earlier.needed))?;
        Ok(Planned { areas, plan, needed, only })
    }

    /// The plan as a thing that can be saved, where that is asked for; it must be the approved one.
    fn saved_plan(&self, areas: &[AreaRun<'a>]) -> Result<Option<SavedPlan>> {
        let options = self.options;
        if !options.save_plan && options.approved.is_none() {
            return Ok(None);
        }
        let planned = areas.iter().map(|area| PlannedArea {
            name: &area.target.name,
            mode: area.mode,
            before: area.base,
            plan: &area.plan,
        });
        let plan = SavedPlan::new(options, &planned.collect::<Vec<_>>());
        if let Some(approved) = &options.approved {
            approved.require_fit(&plan)?;
        }
        Ok(Some(plan))
    }

    /// Lets go of all areas while content is on its way, so that neither their users nor package managers wait for servers;
    /// then takes them, and plans anew. What the new plan adds is left to be fetched.
    pub(super) fn fetch_unheld(
        &self,
        planned: Planned<'a>,
        mut packages: PackageLocks,
    ) -> Result<(Planned<'a>, PackageLocks)> {
        let Some(mut needed) = planned.needed else { return Ok((planned, packages)) };
        self.progress.foresee(needed.report.foreseen());
        if needed.report.planned.over_the_line() == 0 {
            let mut waited = false;
            for area in planned.areas.iter().filter(|area| !area.plan.is_empty()) {
                waited |= packages.take(area.target, &area.path, self.progress)?;
            }
            if !waited {
                return Ok((Planned { needed: Some(needed), ..planned }, packages));
            }
        } else {
            packages = PackageLocks::default();
        }
        let beside = self.staged_beside(&planned.areas)?;
        let areas = planned.areas.iter().map(|area| area.resumed.clone()).collect();
        drop(planned.areas);
        self.fetch(&[], beside, &mut needed)?;
        let planned = self.look(Some(Earlier { areas, needed }), &mut packages)?;
        Ok((planned, packages))
    }
}
