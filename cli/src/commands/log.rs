// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel log`: the snapshots of a store, newest first.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_store::backend::ObjectName;
use evenkeel_store::catalog::Catalog;
use evenkeel_store::format::snapshot::{IndexRecord, Snapshot};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::path::escape;
use evenkeel_store::{Error as StoreError, ErrorKind, Store};
use serde::Serialize;

use super::values::parse_label;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::json;
use crate::output::text::{self, bytes, counted};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  evenkeel log
  evenkeel log -n 1 --json
  evenkeel log @latest~3            the history of one snapshot
  evenkeel log --label ticket=4711";

/// Snapshots from which on the catalog is faster than reading each document from the store.
const CATALOG_FROM: usize = 64;

/// Digits of an id for people.
const ID_DIGITS: usize = 12;

/// Arguments of `log`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Begin here and follow parents, instead of listing all snapshots of the store.
    #[arg(value_name = "SNAP")]
    from: Option<String>,
    /// List at most this many.
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// One line a snapshot.
    #[arg(long)]
    oneline: bool,
    /// Only snapshots that carry this label; may be repeated.
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label, conflicts_with = "from")]
    labels: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Report {
    snapshots: Vec<SnapshotSummary>,
    damaged: Vec<DamagedSnapshot>,
}

/// A snapshot as `log` and `show` describe it.
#[derive(Serialize)]
pub struct SnapshotSummary {
    id: SnapshotIdText,
    parent: Option<String>,
    depth: u64,
    time: String,
    author: String,
    message: String,
    labels: BTreeMap<String, String>,
    areas: Vec<AreaSummary>,
}

type SnapshotIdText = String;

#[derive(Serialize)]
struct AreaSummary {
    name: String,
    entries: u64,
    files: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct DamagedSnapshot {
    id: String,
    problem: String,
}

impl SnapshotSummary {
    /// The fields of this snapshot.
    pub fn new(id: &SnapshotId, snapshot: &Snapshot) -> Self {
        let areas = snapshot.areas.iter().map(|area| AreaSummary {
            name: area.name.clone(),
            entries: area.entries,
            files: area.files,
            bytes: area.bytes,
        });
        SnapshotSummary {
            id: id.to_hex(),
            parent: snapshot.parent.map(|id| id.to_hex()),
            depth: snapshot.depth,
            time: json::time(snapshot.time),
            author: snapshot.author.clone(),
            message: snapshot.message.clone(),
            labels: snapshot.labels.clone(),
            areas: areas.collect(),
        }
    }
}

/// Lists the snapshots. A lost or damaged one is named, and the rest listed.
///
/// # Errors
/// When the store cannot be read.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let store = session.open_store()?;
    let limit = args.limit.unwrap_or(usize::MAX);
    let mut report = Report { snapshots: Vec::new(), damaged: Vec::new() };
    let mut visit = |id: SnapshotId, found: evenkeel_store::Result<Snapshot>| -> Result<()> {
        match found {
            Ok(snapshot) if session.out.json => report.snapshots.push(SnapshotSummary::new(&id, &snapshot)),
            Ok(snapshot) if args.oneline => session.out.line(one_line(session, &id, &snapshot))?,
            Ok(snapshot) => print(session, &id, &snapshot)?,
            Err(e) if matches!(e.kind(), ErrorKind::Server | ErrorKind::Untrusted) => return Err(e.into()),
            Err(e) => {
                session.out.failure(format_args!("{e}"));
                report.damaged.push(DamagedSnapshot { id: id.to_hex(), problem: e.to_string() });
            }
        }
        Ok(())
    };
    match &args.from {
        Some(name) => {
            let first = session.resolve(&store, name)?;
            follow_parents(session, &store, first, limit, &mut visit)?;
        }
        None => {
            let list = store.list_snapshots()?;
            for id in &list.missing {
                visit(*id, Err(missing(id)))?;
            }
            let records = list.there;
            let long = records.len() >= CATALOG_FROM || !args.labels.is_empty();
            let catalog = if long { session.open_catalog(&store)? } else { None };
            let labelled = labelled(&store, catalog.as_ref(), &records, &args.labels)?;
            let wanted = |id: &SnapshotId| labelled.as_ref().is_none_or(|ids| ids.contains(id));
            for record in records.iter().rev().filter(|record| wanted(&record.id)).take(limit) {
                let remembered = match &catalog {
                    Some(catalog) => catalog.snapshot(&record.id)?,
                    None => None,
                };
                visit(record.id, remembered.map_or_else(|| store.snapshot(&record.id), Ok))?;
            }
        }
    }
    let exit = if report.damaged.is_empty() { Exit::Done } else { Exit::Damaged };
    if session.out.json {
        session.out.document("evenkeel/log/1", &report)?;
    } else if args.from.is_none() && exit == Exit::Done && store.snapshots()?.is_empty() {
        session.out.note("the store is empty: `evenkeel commit` makes a snapshot");
    }
    Ok(exit)
}

/// Snapshots that carry all of `labels`; `None` when none is asked for.
fn labelled(
    store: &Store,
    catalog: Option<&Catalog>,
    records: &[IndexRecord],
    labels: &[(String, String)],
) -> Result<Option<BTreeSet<SnapshotId>>> {
    let mut all: Option<BTreeSet<SnapshotId>> = None;
    for (name, value) in labels {
        let found: BTreeSet<SnapshotId> = match catalog {
            Some(catalog) => catalog.with_label(name, value)?.into_iter().collect(),
            None => {
                let carries = |id: &SnapshotId| store.snapshot(id).is_ok_and(|s| s.labels.get(name) == Some(value));
                records.iter().map(|record| record.id).filter(carries).collect()
            }
        };
        all = Some(all.map_or(found.clone(), |all| all.intersection(&found).copied().collect()));
    }
    Ok(all)
}

/// Visits a snapshot and its parents. The chain ends at a damaged one: only it knows its parent.
fn follow_parents(
    session: &Session,
    store: &Store,
    first: SnapshotId,
    limit: usize,
    visit: &mut impl FnMut(SnapshotId, evenkeel_store::Result<Snapshot>) -> Result<()>,
) -> Result<()> {
    let mut next = Some(first);
    for _ in 0..limit {
        let Some(id) = next else { break };
        let found = match store.snapshot(&id) {
            // Its locator outlasts its document. Without either it was never copied here: the history ends.
            Err(StoreError::UnknownSnapshot { .. }) if store.backend().len(&ObjectName::Locator(id))?.is_none() => {
                session.out.note(format_args!("the parent {} is not in this store", id.short(ID_DIGITS)));
                break;
            }
            Err(StoreError::UnknownSnapshot { .. }) => Err(missing(&id)),
            found => found,
        };
        next = found.as_ref().ok().and_then(|snapshot| snapshot.parent);
        visit(id, found)?;
    }
    Ok(())
}

fn missing(id: &SnapshotId) -> StoreError {
    StoreError::MissingObject { object: ObjectName::Snapshot(*id).to_string() }
}

fn one_line(session: &Session, id: &SnapshotId, snapshot: &Snapshot) -> String {
    let paint = session.out.paint;
    let subject = snapshot.message.lines().next().unwrap_or_default();
    format!("{}  {}  {}", paint.id(id.short(ID_DIGITS)), text::minute(snapshot.time), escape(subject.as_bytes()))
}

fn print(session: &Session, id: &SnapshotId, snapshot: &Snapshot) -> Result<()> {
    let out = &session.out;
    let areas: Vec<String> = snapshot
        .areas
        .iter()
        .map(|area| format!("{}: {}, {}", area.name, counted(area.files, "file"), bytes(area.bytes)))
        .collect();
    out.line(format_args!(
        "{}  {}  {}  {}",
        out.paint.id(id.short(ID_DIGITS)),
        text::time(snapshot.time),
        escape(snapshot.author.as_bytes()),
        out.paint.dim(areas.join("; ")),
    ))?;
    for line in snapshot.message.lines() {
        out.line(format_args!("    {}", escape(line.as_bytes())))?;
    }
    for (key, value) in &snapshot.labels {
        out.line(out.paint.dim(format_args!("    {}={}", escape(key.as_bytes()), escape(value.as_bytes()))))?;
    }
    Ok(())
}
