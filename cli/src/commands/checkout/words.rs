// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The report of a checkout for people.

use std::path::Path;

use evenkeel_store::checkout::{AreaReport, ChangeKind, CheckoutReport, Kept, NotHeld, PathChange, Reason};

use evenkeel_store::fetch::{FetchBytes, FetchReport};

use super::mode_name;
use crate::error::Result;
use crate::output::in_use;
use crate::output::text::{self, bytes, counted, number, seconds};
use crate::session::Session;

/// Paths that are listed without `-v`.
const SHOWN: usize = 20;

pub(super) fn print(session: &Session, report: &CheckoutReport, saved: Option<&Path>) -> Result<()> {
    let out = &session.out;
    for area in &report.areas {
        print_area(session, area, report.planned_only)?;
    }
    if let Some(fetch) = &report.fetch {
        print_fetch(session, fetch)?;
    }
    let kept: u64 = report.areas.iter().map(|area| area.kept.len() as u64).sum();
    let id = out.paint.id(report.snapshot.short(12));
    let took = out.paint.dim(format_args!("({})", seconds(report.seconds)));
    if report.planned_only {
        let else_ = if report.areas.iter().any(|area| area.recovered.is_some()) { " else" } else { "" };
        let kept =
            if kept > 0 { format!(", which leaves {}", counted(kept, "kept difference")) } else { String::new() };
        out.line(format_args!("nothing{else_} was changed; this is the plan for {id}{kept}"))?;
        return match saved.zip(report.plan.as_ref()).filter(|_| !report.needs_adopt()) {
            Some((file, plan)) => out.line(format_args!("saved as {}, hash {}", text::path(file), plan.hash())),
            None => Ok(()),
        };
    }
    if report.in_sync {
        out.line(format_args!("{} {id} {took}", out.paint.good("at")))
    } else {
        let kept = out.paint.changed(counted(kept, "kept difference"));
        out.line(format_args!("{} {id}, {kept} {took}", out.paint.changed("at")))
    }
}

/// What is, or was, fetched.
pub(in super::super) fn print_fetch(session: &Session, fetch: &FetchReport) -> Result<()> {
    let out = &session.out;
    let FetchReport { planned, done, bytes_to_write, disk_needed } = fetch;
    out.line(format_args!("to fetch: {}", sources(planned)))?;
    match done {
        Some(done) => out.line(format_args!("fetched:  {}", sources(done))),
        None => out.line(format_args!(
            "          {} to write, {} of free space needed",
            bytes(*bytes_to_write),
            bytes(*disk_needed)
        )),
    }
}

/// `3 requests, 1.20 MiB; here already: 4.00 MiB (live tree)`.
pub(in super::super) fn sources(fetch: &FetchBytes) -> String {
    let here: Vec<String> = [
        (fetch.live, "live tree"),
        (fetch.undo, "undo"),
        (fetch.areas, "other areas"),
        (fetch.seeds, "seeds"),
        (fetch.prefetched, "fetched before"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", bytes(count)))
    .collect();
    let deltas = if fetch.deltas > 0 { format!(", {} of it deltas", bytes(fetch.deltas)) } else { String::new() };
    let line = format!("{}, {}{deltas}", counted(fetch.requests, "request"), bytes(fetch.over_the_line()));
    if here.is_empty() { line } else { format!("{line}; here already: {}", here.join(", ")) }
}

fn print_area(session: &Session, area: &AreaReport, planned: bool) -> Result<()> {
    let out = &session.out;
    let from = match area.before {
        Some(id) => format!("from {}", id.short(12)),
        None => "first checkout".to_owned(),
    };
    let heading = format!("{} at {}", area.name, text::path(&area.root));
    out.line(format_args!("{}  {}, {from}", out.paint.bold(heading), mode_name(area.mode)))?;
    if let Some(number) = area.recovered {
        out.line(format_args!("  finished number {number}, which had been interrupted"))?;
    }
    if let Some(id) = area.interrupted.filter(|_| planned) {
        let id = id.short(12);
        let then = if area.journal_lost { "its journal is lost" } else { "would be finished first" };
        out.line(format_args!("  a switch to or from {id} was interrupted, and {then}"))?;
    }
    out.line(format_args!("  {}", summary(area, planned)))?;
    if let [first, rest @ ..] = &area.dropped_undo[..] {
        let last = rest.last().map_or_else(String::new, |last| format!(" to {last}"));
        out.line(format_args!("  undo of number {first}{last} dropped"))?;
    }
    let shown = if out.verbose > 0 { usize::MAX } else { SHOWN };
    if out.verbose > 0 {
        area.changes.iter().try_for_each(|change| print_change(session, change))?;
    } else {
        print_lost_edits(session, area)?;
    }
    for kept in area.kept.iter().take(shown) {
        out.line(format_args!("  {}", out.paint.changed(kept_line(kept))))?;
    }
    if area.kept.len() > shown {
        out.line(format_args!("  … and {} more kept (-v lists all)", number((area.kept.len() - shown) as u64)))?;
    }
    for path in &area.kept_aside {
        out.line(format_args!("  local version kept as {path}"))?;
    }
    for path in &area.would_keep_aside {
        out.line(format_args!("  local version of {path} would be kept beside it"))?;
    }
    in_use::print(out, &area.in_use)?;
    // Otherwise it was said before anything was changed.
    if planned {
        warn_of_losses(session, &area.name, &area.not_held);
    }
    for skipped in area.skipped.iter().take(shown) {
        out.warning(format_args!("{}:{} is not delivered: {}", area.name, skipped.path, skipped.reason));
    }
    if area.skipped.len() > shown {
        out.warning(format_args!("… and {} more are not delivered (-v lists all)", area.skipped.len() - shown));
    }
    if let Some(why) = &area.would_refuse {
        out.warning(format_args!("this would be refused: {why}"));
    }
    for warning in &area.warnings {
        out.warning(warning);
    }
    Ok(())
}

/// Says what of an area this place cannot hold.
pub(super) fn warn_of_losses(session: &Session, name: &str, losses: &[NotHeld]) {
    for lost in losses {
        let (entries, what, example) = (counted(lost.entries, "entry"), lost.what.name(), &lost.example);
        session.out.warning(format_args!("area `{name}`: {what} of {entries} cannot be held here ({example})"));
    }
}

/// `12 added, 3 updated, 1 removed; 5,201 unchanged; 1.20 MiB written`.
fn summary(area: &AreaReport, planned: bool) -> String {
    let counts = &area.counts;
    let changes: Vec<String> = [
        (counts.added, "added"),
        (counts.updated, "updated"),
        (counts.restored, "restored"),
        (counts.removed, "removed"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", number(count)))
    .chain((counts.strays_removed > 0).then(|| format!("{} removed", counted(counts.strays_removed, "stray"))))
    .collect();
    let mut parts = vec![if changes.is_empty() { "nothing to change".to_owned() } else { changes.join(", ") }];
    for (count, what) in [
        (counts.unchanged, "unchanged"),
        (counts.adopted, "adopted as they are"),
        (counts.strays_left, if counts.strays_left == 1 { "stray left" } else { "strays left" }),
        (counts.dropped_left, "delivered, since dropped, left"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", number(count)));
        }
    }
    if area.bytes_written > 0 {
        parts.push(format!("{} {}", bytes(area.bytes_written), if planned { "to write" } else { "written" }));
    }
    parts.join("; ")
}

/// What somebody had changed or put here, and gives way: changes first, which strays must not hide.
fn print_lost_edits(session: &Session, area: &AreaReport) -> Result<()> {
    let is_edit = |change: &&PathChange| change.reason.undoes_a_change();
    let is_stray = |change: &&PathChange| change.reason == Reason::Stray;
    print_first(session, area.changes.iter().filter(is_edit), "local changes undone")?;
    print_first(session, area.changes.iter().filter(is_stray), "strays removed")
}

fn print_first<'c>(session: &Session, changes: impl Iterator<Item = &'c PathChange> + Clone, what: &str) -> Result<()> {
    changes.clone().take(SHOWN).try_for_each(|change| print_change(session, change))?;
    match changes.count().saturating_sub(SHOWN) as u64 {
        0 => Ok(()),
        more => session.out.line(format_args!("  … and {} more {what} (-v lists all)", number(more))),
    }
}

fn print_change(session: &Session, change: &PathChange) -> Result<()> {
    let out = &session.out;
    let differs = change.reason.difference();
    let why = if differs.is_none() {
        change.reason.name().to_owned()
    } else {
        format!("{}: {differs}", change.reason.name())
    };
    let line = format!("{:<8}  {}", change.action.name(), change.path);
    let line = match change.action {
        ChangeKind::Add | ChangeKind::Link => out.paint.good(line),
        ChangeKind::Replace | ChangeKind::Metadata => out.paint.changed(line),
        ChangeKind::Remove => out.paint.bad(line),
    };
    out.line(format_args!("  {line}  {}", out.paint.dim(why)))
}

fn kept_line(kept: &Kept) -> String {
    let differs = kept.because.difference();
    format!("kept      {}  {}: {differs}", kept.path, kept.because.name())
}
