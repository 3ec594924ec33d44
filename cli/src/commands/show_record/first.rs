// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What of a record deserves a look before the rest.

use evenkeel_store::checkout::{ChangeLine, Line};

use crate::error::Result;
use crate::output::text::number;
use crate::output::who;
use crate::session::Session;

/// Lines of one group that are listed without `--all`, and held in memory with it.
const EACH: usize = 8;
const EACH_OF_ALL: usize = 10_000;
/// Where systemd looks for units: any area may begin anywhere above.
const UNITS: &str = "systemd/system/";

/// Groups in the order of urgency.
const GROUPS: [(Group, &str); 12] = [
    (Group::Meanwhile, "changed during the checkout, left alone"),
    (Group::Kept, "kept as it was here"),
    (Group::Drift, "had been changed here; what was there is in the undo"),
    (Group::Rights, "set-id bits and capabilities"),
    (Group::Units, "systemd units"),
    (Group::Type, "another kind of file now"),
    (Group::Since, "changed since the checkout; what was there is kept in the undo"),
    (Group::NotHeld, "cannot be held here"),
    (Group::Aside, "local version kept beside the new one"),
    (Group::SetAside, "could not stay or come back there; now in the undo"),
    (Group::InUse, "still used by"),
    (Group::Warning, "done without"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Meanwhile,
    Kept,
    Drift,
    Rights,
    Units,
    Type,
    Since,
    NotHeld,
    Aside,
    SetAside,
    InUse,
    Warning,
}

/// Noteworthy lines, as they go by.
#[derive(Default)]
pub(super) struct First {
    groups: [Lines; GROUPS.len()],
}

#[derive(Default)]
struct Lines {
    total: u64,
    shown: Vec<String>,
}

impl First {
    fn push(&mut self, group: Group, line: impl FnOnce() -> String) {
        let Some(at) = GROUPS.iter().position(|(known, _)| *known == group) else { return };
        let lines = &mut self.groups[at];
        lines.total += 1;
        if lines.shown.len() < EACH_OF_ALL {
            lines.shown.push(line());
        }
    }

    pub(super) fn add(&mut self, line: &Line) {
        match line {
            Line::Change(change) => self.change(change),
            Line::Kept(kept) => self.push(Group::Kept, || {
                let differs =
                    if kept.differs.is_empty() { String::new() } else { format!(": {}", kept.differs.join(", ")) };
                format!("{}  {}{differs}; {}", kept.path.escaped(), kept.reason, who::told(&kept.changed_by))
            }),
            Line::ChangedMeanwhile(changed) => self
                .push(Group::Meanwhile, || format!("{}  {}", changed.path.escaped(), who::told(&changed.changed_by))),
            Line::ChangedSince(changed) => {
                self.push(Group::Since, || format!("{}  {}", changed.path.escaped(), who::told(&changed.changed_by)))
            }
            Line::KeptAside(aside) => self.push(Group::Aside, || aside.path.escaped()),
            Line::SetAside(aside) => {
                self.push(Group::SetAside, || format!("{}  as {}", aside.path.escaped(), aside.kept_as))
            }
            Line::NotHeld(lost) => self.push(Group::NotHeld, || {
                format!("{} of {} entries, such as {}", lost.what, number(lost.entries), lost.example.escaped())
            }),
            Line::InUse(used) => self.push(Group::InUse, || {
                let (using, unit) = (&used.using, used.using.unit.as_deref().unwrap_or("-"));
                let more = if using.paths.len() > 1 || used.more_paths > 0 { ", …" } else { "" };
                let path = using.paths.first().map_or_else(String::new, ToString::to_string);
                format!("{} (pid {}, {unit}): {path}{more}", using.command, using.pid)
            }),
            Line::Warning(warning) => self.push(Group::Warning, || warning.warning.clone()),
            Line::Header(_) | Line::Fetch(_) | Line::Skipped(_) | Line::End(_) | Line::Seal(_) | Line::Unknown => {}
        }
    }

    fn change(&mut self, change: &ChangeLine) {
        let path = change.path.escaped();
        // Rights that went with the old file and came with the new one are no news.
        if change.rights != change.was_rights {
            let rights = |rights: &[_]| if rights.is_empty() { "none".to_owned() } else { rights.join(", ") };
            self.push(Group::Rights, || format!("{path}  {} → {}", rights(&change.was_rights), rights(&change.rights)));
        }
        if let Some(changed_by) = &change.changed_by {
            self.push(Group::Drift, || format!("{path}  {}; {}", change.reason, who::told(changed_by)));
        }
        if path.contains(UNITS) {
            self.push(Group::Units, || format!("{path}  {}: {}", change.action, change.reason));
        }
        if let Some(was) = &change.was_type {
            self.push(Group::Type, || format!("{path}  {was} → {}", change.r#type.as_deref().unwrap_or("?")));
        }
    }

    pub(super) fn print(&self, session: &Session, all: bool) -> Result<()> {
        let out = &session.out;
        if self.groups.iter().all(|lines| lines.total == 0) {
            return Ok(());
        }
        out.line(out.paint.bold("look at first"))?;
        for ((_, title), lines) in GROUPS.iter().zip(&self.groups).filter(|(_, lines)| lines.total > 0) {
            out.line(format_args!("  {}", out.paint.changed(format_args!("{title}: {}", number(lines.total)))))?;
            let most = if all { EACH_OF_ALL } else { EACH };
            for line in lines.shown.iter().take(most) {
                out.line(format_args!("    {line}"))?;
            }
            let rest = lines.total.saturating_sub(most.min(lines.shown.len()) as u64);
            if rest > 0 {
                out.line(format_args!("    … and {} more (--all lists them)", number(rest)))?;
            }
        }
        Ok(())
    }
}
