// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel show`: one snapshot with its areas, totals and rules.

use evenkeel_store::format::snapshot::{Snapshot, SnapshotArea};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::path::escape;
use serde::Serialize;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::json::{self, PathField};
use crate::output::text::{self, bytes, columns, counted, number};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  evenkeel show @latest
  evenkeel show 5e1c09ab -v         also the rules of each area";

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The snapshot.
    #[arg(value_name = "SNAP", default_value = "@latest")]
    snapshot: String,
}

#[derive(Serialize)]
struct Report {
    id: String,
    parent: Option<String>,
    depth: u64,
    time: String,
    author: String,
    message: String,
    labels: std::collections::BTreeMap<String, String>,
    chunk_avg: u32,
    areas: Vec<AreaReport>,
}

#[derive(Serialize)]
struct AreaReport {
    name: String,
    master_root: PathField,
    manifest: String,
    entries: u64,
    files: u64,
    bytes: u64,
    unstable: u64,
    rules: Rules,
}

#[derive(Serialize)]
struct Rules {
    include: Vec<String>,
    exclude: Vec<String>,
    identity: Vec<String>,
    xattrs: Vec<String>,
    devices: bool,
}

/// Shows the snapshot.
///
/// # Errors
/// When there is no such snapshot or it is damaged.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let store = session.open_store()?;
    let id = session.resolve(&store, &args.snapshot)?;
    let snapshot = store.snapshot(&id)?;
    if session.out.json {
        session.out.document("evenkeel/show/1", &report(&id, &snapshot))?;
    } else {
        print(session, &id, &snapshot)?;
    }
    Ok(Exit::Done)
}

fn report(id: &SnapshotId, snapshot: &Snapshot) -> Report {
    let area = |area: &SnapshotArea| AreaReport {
        name: area.name.clone(),
        master_root: PathField::new(&area.root),
        manifest: area.manifest.to_hex(),
        entries: area.entries,
        files: area.files,
        bytes: area.bytes,
        unstable: area.unstable,
        rules: Rules {
            include: area.rules.include.clone(),
            exclude: area.rules.exclude.clone(),
            identity: area.rules.identity.clone(),
            xattrs: area.rules.xattrs.clone(),
            devices: area.rules.devices,
        },
    };
    Report {
        id: id.to_hex(),
        parent: snapshot.parent.map(|id| id.to_hex()),
        depth: snapshot.depth,
        time: json::time(snapshot.time),
        author: snapshot.author.clone(),
        message: snapshot.message.clone(),
        labels: snapshot.labels.clone(),
        chunk_avg: snapshot.chunker.avg,
        areas: snapshot.areas.iter().map(area).collect(),
    }
}

fn print(session: &Session, id: &SnapshotId, snapshot: &Snapshot) -> Result<()> {
    let out = &session.out;
    out.line(format_args!("snapshot  {}", out.paint.id(id)))?;
    match snapshot.parent {
        Some(parent) => out.line(format_args!("parent    {parent}"))?,
        None => out.line("parent    none")?,
    }
    out.line(format_args!("time      {}", text::time(snapshot.time)))?;
    out.line(format_args!("author    {}", escape(snapshot.author.as_bytes())))?;
    for (key, value) in &snapshot.labels {
        out.line(format_args!("label     {}={}", escape(key.as_bytes()), escape(value.as_bytes())))?;
    }
    if !snapshot.message.is_empty() {
        out.line("")?;
        for line in snapshot.message.lines() {
            out.line(format_args!("    {}", escape(line.as_bytes())))?;
        }
    }
    out.line("")?;
    let heads = ["area", "entries", "files", "size", "root on the master"].map(str::to_owned).to_vec();
    let mut rows = vec![heads];
    rows.extend(snapshot.areas.iter().map(|area| {
        vec![area.name.clone(), number(area.entries), number(area.files), bytes(area.bytes), escape(&area.root)]
    }));
    for (at, line) in columns(&rows, &[false, true, true, true, false], "  ").into_iter().enumerate() {
        out.line(if at == 0 { out.paint.bold(line) } else { line })?;
    }
    for area in &snapshot.areas {
        if area.unstable > 0 {
            out.warning(format_args!(
                "area `{}` holds {} that changed while being read",
                area.name,
                counted(area.unstable, "file")
            ));
        }
        if out.verbose > 0 {
            print_rules(session, area)?;
        }
    }
    Ok(())
}

fn print_rules(session: &Session, area: &SnapshotArea) -> Result<()> {
    let rules = &area.rules;
    session.out.line(format_args!("\nrules of {}", area.name))?;
    for (name, patterns) in [
        ("include", &rules.include),
        ("exclude", &rules.exclude),
        ("identity", &rules.identity),
        ("xattrs", &rules.xattrs),
    ] {
        for pattern in patterns {
            session.out.line(format_args!("  {name:<8}  {}", escape(pattern.as_bytes())))?;
        }
    }
    session.out.line(format_args!("  devices   {}", if rules.devices { "yes" } else { "no" }))
}
