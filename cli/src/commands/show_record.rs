// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel show-record`: tells what a checkout or rollback did, why, and who asked for it.

use evenkeel_store::checkout::{self, ChangeLine, ChangeRecord, EndLine, HeaderLine, JournalState, Line, Record};
use evenkeel_store::fetch::FetchReport;
use evenkeel_store::format::manifest::Timestamp;
use evenkeel_store::json::TimeField;

use self::by_directory::ByDirectory;
use self::first::First;
use super::checkout::words;
use crate::aftermath::{JOURNAL_LOST, MIXED};
use crate::areas::{self, AreaArg};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::text::{self, bytes, counted};
use crate::session::Session;

mod by_directory;
mod first;

const AFTER_HELP: &str = "\
First what it was: when, who asked, from which snapshot to which, and what came of it. Then what deserves a look first: \
differences that were kept, set-id programs and capabilities, systemd units, other kinds of files, what changed \
meanwhile, what cannot be held here. Then the changes by directory.

With --json the record as it was written, one document for each line (docs/reference/schemas/record.json). A record \
stays when the undo is dropped; how many are kept says `[records]` in the configuration. A damaged one gives exit code 12.

Examples:
  evenkeel show-record 12
  evenkeel show-record 12 --area etc=/etc --all";

/// Arguments of `show-record`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The number, as `history` lists it.
    #[arg(value_name = "NUMBER")]
    number: u64,
    /// The area and where it is [default: the one of the configuration, else the one that was checked out here].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    area: Option<AreaArg>,
    /// List every line.
    #[arg(long)]
    all: bool,
}

/// Shows one record.
///
/// # Errors
/// When there is no such record or it is damaged, or there are several areas and none is named.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let state = session.state_dir()?;
    let area = areas::select_one(session, args.area.clone())?;
    let target = area.target(&session.config);
    let record = checkout::change_record(&target, &state, args.number)?;
    if session.out.json {
        for line in record.lines()? {
            session.out.bytes(&line?.0)?;
        }
        return Ok(Exit::Done);
    }
    let history = checkout::history(&target, &state)?;
    super::history::warn_of_journal(session, &target)?;
    let known = history.iter().find(|known| known.number == args.number);
    let journal_lost = checkout::journal_state(&target, &state)? != JournalState::Fine;
    print_head(session, &record, known, journal_lost)?;
    let (mut first, mut changes) = (First::default(), ByDirectory::default());
    let mut fetch = None;
    for line in record.lines()? {
        let (_, line) = line?;
        first.add(&line);
        if let Line::Fetch(told) = &line {
            fetch = Some(**told);
        }
        if let Line::Change(change) = &line
            && !args.all
        {
            changes.add(change);
        }
    }
    if let Some(fetch) = &fetch {
        print_fetch(session, fetch)?;
    }
    first.print(session, args.all)?;
    if record.header.changes == 0 {
        return Ok(Exit::Done);
    }
    let heading = if was_carried_out(record.end.as_ref()) { "changes" } else { "planned changes" };
    session.out.line(session.out.paint.bold(heading))?;
    if !args.all {
        changes.print(session)?;
        return Ok(Exit::Done);
    }
    for line in record.lines()? {
        if let (_, Line::Change(change)) = line? {
            session.out.line(format_args!("  {:<8}  {}  {}", change.action, change.path.escaped(), why(&change)))?;
        }
    }
    Ok(Exit::Done)
}

/// What a person wants to know before anything else.
fn print_head(session: &Session, record: &ChangeRecord, known: Option<&Record>, journal_lost: bool) -> Result<()> {
    let (out, header) = (&session.out, &record.header);
    let title = format!("number {}: {} of {} at {}", header.number, header.what, header.area, header.root.escaped());
    out.line(out.paint.bold(title))?;
    let field = |name: &str, value: &str| print_field(session, name, value);
    field("when", &when(header, record.end.as_ref()))?;
    field("asked by", &asked_by(header))?;
    field("snapshot", &snapshots(header))?;
    field("outcome", &outcome(session, header, record.end.as_ref(), journal_lost))?;
    field("changes", &changes(header, record.end.as_ref()))?;
    if let Some(undo) = known.and_then(undo) {
        field("undo", &undo)?;
    }
    Ok(())
}

fn print_field(session: &Session, name: &str, value: &str) -> Result<()> {
    session.out.line(format_args!("  {name:<8} {value}"))
}

/// Where the content came from, and what had been foreseen.
fn print_fetch(session: &Session, fetch: &FetchReport) -> Result<()> {
    print_field(session, "foreseen", &words::sources(&fetch.planned))?;
    match &fetch.done {
        Some(done) => print_field(session, "fetched", &words::sources(done)),
        None => Ok(()),
    }
}

fn when(header: &HeaderLine, end: Option<&EndLine>) -> String {
    let asked = header.asked.unwrap_or(header.began);
    let began = text::time(asked.0);
    match end {
        // The time in between is not its own.
        Some(EndLine { recovered: Some(_), ended, .. }) => format!("{began}, ended {}", text::time(ended.0)),
        Some(EndLine { taken_back_by: Some(_), .. }) | None => began,
        Some(end) => format!("{began}, took {}", text::seconds(between(asked, end.ended))),
    }
}

fn between(from: TimeField, to: TimeField) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a duration that is shown with two digits")]
    let seconds = |time: Timestamp| time.secs as f64 + f64::from(time.nanos) / 1e9;
    (seconds(to.0) - seconds(from.0)).max(0.0)
}

fn asked_by(header: &HeaderLine) -> String {
    let Some(asked) = &header.asked_by else { return format!("not said, on {}", header.host) };
    let user = asked.user.clone().unwrap_or_else(|| "?".to_owned());
    let through = asked.sudo_user.as_ref().map_or_else(String::new, |user| format!(" through sudo by {user}"));
    format!("{user} (uid {}){through}, on {}: {}", asked.uid, header.host, asked.command)
}

fn short(id: &Option<String>) -> &str {
    id.as_ref().map_or("nothing", |id| id.get(..12).unwrap_or(id))
}

fn snapshots(header: &HeaderLine) -> String {
    let how = match (header.undoes, header.mode) {
        (Some(undone), _) => format!("takes {undone} back"),
        (None, Some(mode)) => super::checkout::mode_name(mode).to_owned(),
        (None, None) => String::new(),
    };
    format!("{} → {}, {how}", short(&header.before), short(&header.after))
}

fn outcome(session: &Session, header: &HeaderLine, end: Option<&EndLine>, journal_lost: bool) -> String {
    let paint = session.out.paint;
    let Some(end) = end else {
        return paint.bad(if journal_lost {
            format!("interrupted, and the journal is lost: {JOURNAL_LOST}")
        } else {
            format!("interrupted: {MIXED}")
        });
    };
    let at_it = format!("at {}", short(&header.after));
    let words = end.outcome.strip_prefix("at").map_or_else(|| end.outcome.to_string(), |rest| format!("{at_it}{rest}"));
    let mut told = match (end.kept, end.taken_back_by) {
        (_, Some(by)) => paint.changed(format_args!("interrupted, and taken back by number {by}")),
        (Some(0), None) => paint.good(words),
        _ => paint.changed(words),
    };
    if let Some(recovered) = &end.recovered {
        let asked = recovered.asked_by.as_ref().map_or_else(String::new, |asked| format!(" by `{}`", asked.command));
        told.push_str(&format!("; it was interrupted, and finished{asked}"));
    }
    if header.adopt.is_some() {
        told.push_str("; first contact");
    }
    told
}

/// Whether it came to its end: else what it lists is what it was to do.
fn was_carried_out(end: Option<&EndLine>) -> bool {
    end.is_some_and(|end| end.taken_back_by.is_none())
}

/// `12 added, 3 updated; 1.46 MiB written from the store`.
fn changes(header: &HeaderLine, end: Option<&EndLine>) -> String {
    let mut parts = Vec::new();
    if let Some(counts) = end.and_then(|end| end.counts).or(header.counts) {
        let all = [
            (counts.added, "added"),
            (counts.updated, "updated"),
            (counts.restored, "restored"),
            (counts.removed, "removed"),
            (counts.strays_removed, "strays removed"),
        ];
        let some = all.iter().filter(|(count, _)| *count > 0);
        parts.extend(some.map(|(count, what)| format!("{} {what}", text::number(*count))));
    }
    if parts.is_empty() {
        parts.push(counted(end.and_then(|end| end.changes).unwrap_or(header.changes), "name"));
    }
    let mut told = parts.join(", ");
    if !was_carried_out(end) {
        return format!("{told} planned; how many of them were made is not recorded");
    }
    for source in end.iter().flat_map(|end| &end.written) {
        told.push_str(&format!("; {} written from the {}", bytes(source.bytes), source.from));
    }
    told
}

fn undo(record: &Record) -> Option<String> {
    match (record.undone_by, record.kept) {
        (Some(by), _) => Some(format!("taken back by {by}")),
        (None, false) => Some("dropped".to_owned()),
        (None, true) => None,
    }
}

/// `updated: content, mtime`.
pub(super) fn why(change: &ChangeLine) -> String {
    let mut told = change.reason.to_string();
    if !change.differs.is_empty() {
        told.push_str(&format!(": {}", change.differs.join(", ")));
    }
    if let Some(size) = change.bytes {
        told.push_str(&format!(", {}", bytes(size)));
    }
    told
}
