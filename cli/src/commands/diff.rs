// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel diff`: what changed from one snapshot to another. Equal parts of the manifests are never read.

use std::collections::BTreeSet;
use std::ffi::OsString;

use evenkeel_store::format::manifest::{Entry, InodeKind, Node};
use evenkeel_store::format::snapshot::Snapshot;
use evenkeel_store::manifest::{Change, Diff, Manifest, diff};
use evenkeel_store::path::TreePath;
use evenkeel_store::read::ChunkReader;
use serde::Serialize;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::json::PathField;
use crate::output::text::{bytes, columns, counted, number};
use crate::output::{Output, entry};
use crate::session::Session;
use crate::snapshot_path::SnapshotPath;

const AFTER_HELP: &str = "\
Lines begin with A (added), D (deleted), M (modified; what changed follows) or T (another type).

Examples:
  evenkeel diff @latest~1 @latest
  evenkeel diff --stat 5e1c09ab @latest
  evenkeel diff @latest~1 @latest etc:ssh";

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The snapshot before.
    #[arg(value_name = "A")]
    before: String,
    /// The snapshot after.
    #[arg(value_name = "B")]
    after: String,
    /// Only what is at or below this path: AREA:PATH or PATH.
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Print totals instead of paths.
    #[arg(long)]
    stat: bool,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Added,
    Deleted,
    Modified,
    Type,
}

impl What {
    fn of(before: Option<&Entry>, after: Option<&Entry>) -> What {
        match (before, after) {
            (None, _) => What::Added,
            (_, None) => What::Deleted,
            (Some(before), Some(after)) => {
                let kind = |entry: &Entry| match &entry.node {
                    Node::Inode(inode) => Some(std::mem::discriminant::<InodeKind>(&inode.kind)),
                    Node::Link { .. } => None,
                };
                match (kind(before), kind(after)) {
                    (Some(a), Some(b)) if a != b => What::Type,
                    _ => What::Modified,
                }
            }
        }
    }

    fn letter(self) -> char {
        match self {
            What::Added => 'A',
            What::Deleted => 'D',
            What::Modified => 'M',
            What::Type => 'T',
        }
    }
}

/// One line of `--json`; the last line is a [`Stat`].
#[derive(Serialize)]
struct Line<'a> {
    area: &'a str,
    #[serde(flatten)]
    path: PathField,
    what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_after: Option<u64>,
    differs: Vec<String>,
}

/// Totals of one area.
#[derive(Debug, Default, Clone, Serialize)]
struct Stat {
    area: String,
    added: u64,
    modified: u64,
    deleted: u64,
    type_changed: u64,
    bytes_added: u64,
    bytes_deleted: u64,
}

#[derive(Serialize)]
struct Stats {
    before: String,
    after: String,
    areas: Vec<Stat>,
}

/// Compares the snapshots.
///
/// # Errors
/// When there is no such snapshot or path, or a manifest is damaged.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let store = session.open_store()?;
    let ids = [session.resolve(&store, &args.before)?, session.resolve(&store, &args.after)?];
    let snapshots = [store.snapshot(&ids[0])?, store.snapshot(&ids[1])?];
    let reader = session.open_reader_of(&store, &ids)?;
    let wanted = args.path.as_deref().map(SnapshotPath::parse);
    let names: BTreeSet<&str> = snapshots.iter().flat_map(|s| s.areas.iter()).map(|area| area.name.as_str()).collect();
    let mut stats = Vec::new();
    for name in names {
        let below = match &wanted {
            None => vec![TreePath::root()],
            Some(path) => path.places_in(&snapshots, name)?,
        };
        if below.is_empty() {
            continue;
        }
        let mut stat = Stat { area: name.to_owned(), ..Stat::default() };
        for change in changes(&snapshots, name, &reader)? {
            let change = change?;
            if below.iter().any(|top| change.path.starts_with(top)) {
                let what = What::of(change.before.as_ref(), change.after.as_ref());
                stat.count(what, &change);
                if !args.stat {
                    print(&session.out, name, what, &change)?;
                }
            }
        }
        stats.push(stat);
    }
    if session.out.json {
        let stats = Stats { before: ids[0].to_hex(), after: ids[1].to_hex(), areas: stats };
        session.out.document("evenkeel/diff-stat/1", &stats)?;
    } else if args.stat {
        print_stats(&session.out, &stats)?;
    }
    Ok(Exit::Done)
}

/// All changes of one area; an area that one side lacks is wholly added or deleted.
fn changes<'r>(snapshots: &[Snapshot; 2], area: &str, reader: &'r ChunkReader) -> Result<Diff<'r>> {
    let open = |snapshot: &Snapshot| snapshot.area(area).map(|area| Manifest::open(reader, area)).transpose();
    let (before, after) = (open(&snapshots[0])?, open(&snapshots[1])?);
    Ok(diff(before.as_ref(), after.as_ref()))
}

impl Stat {
    fn count(&mut self, what: What, change: &Change) {
        *match what {
            What::Added => &mut self.added,
            What::Deleted => &mut self.deleted,
            What::Modified => &mut self.modified,
            What::Type => &mut self.type_changed,
        } += 1;
        let (before, after) = (size(change.before.as_ref()), size(change.after.as_ref()));
        self.bytes_added += after.unwrap_or(0).saturating_sub(before.unwrap_or(0));
        self.bytes_deleted += before.unwrap_or(0).saturating_sub(after.unwrap_or(0));
    }
}

fn size(entry: Option<&Entry>) -> Option<u64> {
    match &entry?.node {
        Node::Inode(inode) => entry::size(inode),
        Node::Link { .. } => None,
    }
}

fn print(out: &Output, area: &str, what: What, change: &Change) -> Result<()> {
    let (size_before, size_after) = (size(change.before.as_ref()), size(change.after.as_ref()));
    let differs = match (&change.before, &change.after) {
        (Some(before), Some(after)) => entry::differences(before, after),
        _ => Vec::new(),
    };
    if out.json {
        let path = PathField::new(change.path.as_bytes());
        return out.document("evenkeel/diff/1", &Line { area, path, what, size_before, size_after, differs });
    }
    let line = format!("{}  {area}:{}", what.letter(), change.path);
    let line = match what {
        What::Added => out.paint.good(line),
        What::Deleted => out.paint.bad(line),
        What::Modified | What::Type => out.paint.changed(line),
    };
    let mut notes: Vec<String> = match (size_before, size_after) {
        (None, Some(size)) | (Some(size), None) => vec![bytes(size)],
        (Some(before), Some(after)) if before != after => vec![format!("{} → {}", bytes(before), bytes(after))],
        _ => Vec::new(),
    };
    // Nearly every change of content changes the time too.
    let content = differs.iter().any(|word| word == "content");
    notes.extend(differs.into_iter().filter(|word| !(content && matches!(word.as_str(), "content" | "time"))));
    let notes = if notes.is_empty() { String::new() } else { format!("  {}", out.paint.dim(notes.join(", "))) };
    out.line(format_args!("{line}{notes}"))
}

fn print_stats(out: &Output, stats: &[Stat]) -> Result<()> {
    let mut rows = vec![["area", "added", "modified", "deleted", "type", "bytes"].map(str::to_owned).to_vec()];
    let mut total = 0;
    for stat in stats {
        total += stat.added + stat.modified + stat.deleted + stat.type_changed;
        rows.push(vec![
            stat.area.clone(),
            number(stat.added),
            number(stat.modified),
            number(stat.deleted),
            number(stat.type_changed),
            format!("+{} -{}", bytes(stat.bytes_added), bytes(stat.bytes_deleted)),
        ]);
    }
    for (at, line) in columns(&rows, &[false, true, true, true, true, false], "  ").into_iter().enumerate() {
        out.line(if at == 0 { out.paint.bold(line) } else { line })?;
    }
    out.line(counted(total, "changed path"))
}
