// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The report of a checkout as a document.

use std::os::unix::ffi::OsStrExt;

use evenkeel_store::checkout::{AreaReport, CheckoutReport, Counts};
use evenkeel_store::fetch::FetchReport;
use evenkeel_store::in_use::InUse;
use serde::Serialize;

use super::mode_name;
use crate::output::json::PathField;

#[derive(Serialize)]
pub(super) struct Report {
    id: String,
    dry_run: bool,
    planned_only: bool,
    in_sync: bool,
    plan_hash: Option<String>,
    seconds: f64,
    fetch: Option<FetchReport>,
    areas: Vec<AreaFields>,
}

#[derive(Serialize)]
struct AreaFields {
    name: String,
    root: PathField,
    before: Option<String>,
    interrupted: Option<String>,
    journal_lost: bool,
    recovered: Option<u64>,
    number: Option<u64>,
    dropped_undo: Vec<u64>,
    mode: &'static str,
    needs_adopt: bool,
    counts: CountFields,
    bytes_written: u64,
    conflicts: u64,
    changes: Vec<ChangeFields>,
    kept: Vec<KeptFields>,
    kept_aside: Vec<PathField>,
    would_keep_aside: Vec<PathField>,
    in_use: InUse,
    not_held: Vec<NotHeldFields>,
    skipped: Vec<SkippedFields>,
    would_refuse: Option<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct CountFields {
    added: u64,
    updated: u64,
    restored: u64,
    removed: u64,
    strays_removed: u64,
    strays_left: u64,
    dropped_left: u64,
    unchanged: u64,
    adopted: u64,
}

#[derive(Serialize)]
struct ChangeFields {
    #[serde(flatten)]
    path: PathField,
    action: &'static str,
    reason: &'static str,
    differs: Vec<&'static str>,
}

#[derive(Serialize)]
struct KeptFields {
    #[serde(flatten)]
    path: PathField,
    reason: &'static str,
    conflict: bool,
    differs: Vec<&'static str>,
}

#[derive(Serialize)]
struct SkippedFields {
    #[serde(flatten)]
    path: PathField,
    reason: &'static str,
}

impl Report {
    pub(super) fn new(report: &CheckoutReport, dry_run: bool) -> Self {
        Report {
            id: report.snapshot.to_hex(),
            dry_run,
            planned_only: report.planned_only,
            in_sync: report.in_sync,
            plan_hash: report.plan.as_ref().map(|plan| plan.hash().to_owned()),
            seconds: report.seconds,
            fetch: report.fetch,
            areas: report.areas.iter().map(AreaFields::new).collect(),
        }
    }
}

impl AreaFields {
    fn new(area: &AreaReport) -> Self {
        let path = |path: &evenkeel_store::path::TreePath| PathField::new(path.as_bytes());
        AreaFields {
            name: area.name.clone(),
            root: PathField::new(area.root.as_os_str().as_bytes()),
            before: area.before.map(|id| id.to_hex()),
            interrupted: area.interrupted.map(|id| id.to_hex()),
            journal_lost: area.journal_lost,
            recovered: area.recovered,
            number: area.number,
            dropped_undo: area.dropped_undo.clone(),
            mode: mode_name(area.mode),
            needs_adopt: area.needs_adopt,
            counts: CountFields::new(&area.counts),
            bytes_written: area.bytes_written,
            conflicts: area.conflicts,
            changes: area
                .changes
                .iter()
                .map(|change| ChangeFields {
                    path: path(&change.path),
                    action: change.action.name(),
                    reason: change.reason.name(),
                    differs: change.reason.difference().names().collect(),
                })
                .collect(),
            kept: area
                .kept
                .iter()
                .map(|kept| KeptFields {
                    path: path(&kept.path),
                    reason: kept.because.name(),
                    conflict: kept.because.is_conflict(),
                    differs: kept.because.difference().names().collect(),
                })
                .collect(),
            kept_aside: area.kept_aside.iter().map(path).collect(),
            would_keep_aside: area.would_keep_aside.iter().map(path).collect(),
            in_use: area.in_use.clone(),
            not_held: area
                .not_held
                .iter()
                .map(|lost| NotHeldFields {
                    what: lost.what.name(),
                    entries: lost.entries,
                    example: path(&lost.example),
                })
                .collect(),
            skipped: area
                .skipped
                .iter()
                .map(|skipped| SkippedFields { path: path(&skipped.path), reason: skipped.reason })
                .collect(),
            would_refuse: area.would_refuse.clone(),
            warnings: area.warnings.clone(),
        }
    }
}

#[derive(Serialize)]
struct NotHeldFields {
    what: &'static str,
    entries: u64,
    example: PathField,
}

impl CountFields {
    fn new(counts: &Counts) -> Self {
        CountFields {
            added: counts.added,
            updated: counts.updated,
            restored: counts.restored,
            removed: counts.removed,
            strays_removed: counts.strays_removed,
            strays_left: counts.strays_left,
            dropped_left: counts.dropped_left,
            unchanged: counts.unchanged,
            adopted: counts.adopted,
        }
    }
}
