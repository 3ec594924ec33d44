// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel find`: which snapshots hold a path, and when it changed.
//!
//! Snapshots are compared one after the other in order of commit; only what differs between two is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use evenkeel_store::ErrorKind;
use evenkeel_store::backend::ObjectName;
use evenkeel_store::format::manifest::{Entry, Node, Timestamp};
use evenkeel_store::format::snapshot::Snapshot;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::manifest::{Change, Manifest, diff};
use evenkeel_store::path::TreePath;
use evenkeel_store::read::ChunkReader;
use serde::Serialize;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::entry;
use crate::output::json::{self, PathField};
use crate::output::text::{self, bytes, counted};
use crate::session::Session;
use crate::snapshot_path::PathPattern;

const EXAMPLES: &str = "\
Examples:
  evenkeel find sshd_config          any path with this name
  evenkeel find 'etc:ssh/*.conf'
  evenkeel find --all /etc/motd      also if it is gone by now";

/// Arguments of `find`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A name, a path, or a pattern in .gitignore syntax; AREA: before it looks in that area only.
    #[arg(value_name = "PATH|GLOB")]
    pattern: OsString,
    /// Also paths that the newest snapshot does not have.
    #[arg(long)]
    all: bool,
}

/// What happened to a path in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Added,
    Changed,
    Removed,
}

#[derive(Debug)]
struct Event {
    snapshot: usize,
    what: What,
    size: Option<u64>,
    differs: Vec<String>,
}

/// One line of `--json`: a path with everything that happened to it.
#[derive(Serialize)]
struct Line<'a> {
    area: &'a str,
    #[serde(flatten)]
    path: PathField,
    snapshots: u64,
    snapshots_searched: u64,
    events: Vec<EventFields<'a>>,
}

#[derive(Serialize)]
struct EventFields<'a> {
    snapshot: String,
    time: String,
    what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    differs: &'a [String],
}

/// What was found: events by area and path, in order of commit.
#[derive(Default)]
struct History {
    snapshots: Vec<(SnapshotId, Timestamp)>,
    events: BTreeMap<(String, TreePath), Vec<Event>>,
}

/// Searches all snapshots.
///
/// # Errors
/// When the pattern is not valid or the store cannot be read. A damaged snapshot is named and passed over.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let pattern = PathPattern::parse(&args.pattern)?;
    let store = session.open_store()?;
    let reader = session.open_reader(&store)?;
    let mut history = History::default();
    let mut last: Option<Snapshot> = None;
    let mut exit = Exit::Done;
    let list = store.list_snapshots()?;
    for id in &list.missing {
        session.out.failure(format_args!("{} is missing from the store", ObjectName::Snapshot(*id)));
        exit = Exit::Damaged;
    }
    for record in list.there {
        let snapshot = match store.snapshot(&record.id) {
            Ok(snapshot) => snapshot,
            Err(e) if matches!(e.kind(), ErrorKind::Server | ErrorKind::Untrusted) => return Err(e.into()),
            Err(e) => {
                session.out.failure(e);
                exit = Exit::Damaged;
                continue;
            }
        };
        history.snapshots.push((record.id, snapshot.time));
        history.add(last.as_ref(), &snapshot, &pattern, &reader)?;
        last = Some(snapshot);
    }
    if !args.all {
        history.events.retain(|_, events| events.last().is_some_and(|event| event.what != What::Removed));
    }
    history.print(session)?;
    if history.events.is_empty() {
        let hint = if args.all { "" } else { "; --all looks for paths that are gone, too" };
        session
            .out
            .note(format_args!("nothing found in {}{hint}", counted(history.snapshots.len() as u64, "snapshot")));
    }
    Ok(exit)
}

impl History {
    /// Adds what the snapshot changed since the one before.
    fn add(
        &mut self,
        last: Option<&Snapshot>,
        snapshot: &Snapshot,
        pattern: &PathPattern,
        reader: &ChunkReader,
    ) -> Result<()> {
        let both = [last, Some(snapshot)];
        let names: BTreeSet<&str> =
            both.iter().flatten().flat_map(|s| s.areas.iter()).map(|area| area.name.as_str()).collect();
        for name in names {
            let open = |snapshot: Option<&Snapshot>| {
                snapshot.and_then(|s| s.area(name)).map(|area| Manifest::open(reader, area)).transpose()
            };
            let root = both.iter().flatten().find_map(|s| s.area(name)).map_or(&[][..], |area| &area.root);
            let Some(matcher) = pattern.in_area(name, root)? else { continue };
            let (before, after) = (open(last)?, open(Some(snapshot))?);
            for change in diff(before.as_ref(), after.as_ref()) {
                let change = change?;
                if matcher.matches(&change.path, is_dir(&change)) {
                    self.push(name, change);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, area: &str, change: Change) {
        let snapshot = self.snapshots.len() - 1;
        let (what, differs) = match (&change.before, &change.after) {
            (Some(before), Some(after)) => (What::Changed, entry::differences(before, after)),
            (_, Some(_)) => (What::Added, Vec::new()),
            (_, None) => (What::Removed, Vec::new()),
        };
        let size = match change.after.map(|entry| entry.node) {
            Some(Node::Inode(inode)) => entry::size(&inode),
            _ => None,
        };
        let key = (area.to_owned(), change.path);
        self.events.entry(key).or_default().push(Event { snapshot, what, size, differs });
    }

    /// In how many snapshots a path with these events is.
    fn held_by(&self, events: &[Event]) -> u64 {
        let ends = events.iter().skip(1).map(|event| event.snapshot).chain([self.snapshots.len()]);
        let held = events.iter().zip(ends).filter(|(event, _)| event.what != What::Removed);
        held.map(|(event, end)| (end - event.snapshot) as u64).sum()
    }

    fn print(&self, session: &Session) -> Result<()> {
        let out = &session.out;
        for ((area, path), events) in &self.events {
            let held = self.held_by(events);
            let searched = self.snapshots.len() as u64;
            if out.json {
                let path = PathField::new(path.as_bytes());
                let events = events.iter().map(|event| self.fields(event)).collect();
                out.document(
                    "evenkeel/find/1",
                    &Line { area, path, snapshots: held, snapshots_searched: searched, events },
                )?;
                continue;
            }
            out.line(format_args!(
                "{}  {}",
                out.paint.bold(format_args!("{area}:{path}")),
                out.paint.dim(format_args!("in {held} of {}", counted(searched, "snapshot")))
            ))?;
            for event in events.iter().rev() {
                let (id, time) = self.snapshots[event.snapshot];
                let what = match event.what {
                    What::Added => out.paint.good("added  "),
                    What::Changed => out.paint.changed("changed"),
                    What::Removed => out.paint.bad("removed"),
                };
                let mut notes: Vec<String> = event.size.map(bytes).into_iter().collect();
                notes.extend(event.differs.iter().cloned());
                let line =
                    format!("  {}  {}  {what}  {}", out.paint.id(id.short(12)), text::minute(time), notes.join(", "));
                out.line(line.trim_end())?;
            }
        }
        Ok(())
    }

    fn fields<'a>(&self, event: &'a Event) -> EventFields<'a> {
        let (id, time) = self.snapshots[event.snapshot];
        EventFields {
            snapshot: id.to_hex(),
            time: json::time(time),
            what: event.what,
            size: event.size,
            differs: &event.differs,
        }
    }
}

fn is_dir(change: &Change) -> bool {
    let directory = |entry: &Entry| matches!(&entry.node, Node::Inode(inode) if inode.kind == evenkeel_store::format::manifest::InodeKind::Directory);
    change.after.as_ref().or(change.before.as_ref()).is_some_and(directory)
}
