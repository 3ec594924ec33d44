// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel ls`: a directory of a snapshot.

use std::ffi::OsString;

use evenkeel_store::format::manifest::{Entry, Inode, InodeKind, Node};
use evenkeel_store::format::snapshot::Snapshot;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::manifest::Manifest;
use evenkeel_store::path::TreePath;
use evenkeel_store::read::ChunkReader;
use serde::Serialize;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::entry::{self, EntryFields, LONG_RIGHT, Resolved};
use crate::output::text::columns;
use crate::session::Session;
use crate::snapshot_path::SnapshotPath;

const EXAMPLES: &str = "\
Examples:
  evenkeel ls @latest
  evenkeel ls -l @latest etc:ssh
  evenkeel ls -R @latest~1 /etc/apt";

/// Entries whose columns are aligned together by `-R`.
const BATCH: usize = 1000;

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The snapshot.
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// AREA:PATH, a path that one area has, or a path as it was on the master; without it every area's root.
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Show mode, links, owner, group, size and time, as `ls -l` does.
    #[arg(short, long)]
    long: bool,
    /// Go down into directories, one path a line.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show a directory itself, not what it holds.
    #[arg(short, long, conflicts_with = "recursive")]
    directory: bool,
}

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    area: &'a str,
    #[serde(flatten)]
    entry: EntryFields,
}

/// Lists the entries.
///
/// # Errors
/// When there is no such snapshot or path, or the manifest is damaged.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let store = session.open_store()?;
    let id = session.resolve(&store, &args.snapshot)?;
    let snapshot = store.snapshot(&id)?;
    let reader = session.open_reader_of(&store, &[id])?;
    let listings = listings(args, &id, &snapshot, &reader)?;
    for (at, listing) in listings.iter().enumerate() {
        if listings.len() > 1 && !session.out.json {
            let gap = if at > 0 { "\n" } else { "" };
            session.out.line(format_args!("{gap}{}", session.out.paint.bold(format_args!("{}:", listing.area))))?;
        }
        listing.print(session, args)?;
    }
    Ok(Exit::Done)
}

/// What is to be listed: an entry of an area.
struct Listing<'r> {
    area: String,
    manifest: Manifest<'r>,
    top: Entry,
}

fn listings<'r>(
    args: &Args,
    id: &SnapshotId,
    snapshot: &Snapshot,
    reader: &'r ChunkReader,
) -> Result<Vec<Listing<'r>>> {
    if let Some(path) = &args.path {
        let found = SnapshotPath::parse(path).find(snapshot, &id.short(12), reader)?;
        return Ok(vec![Listing { area: found.area, manifest: found.manifest, top: found.entry }]);
    }
    let mut listings = Vec::new();
    for area in &snapshot.areas {
        let manifest = Manifest::open(reader, area)?;
        if let Some(top) = manifest.get(&TreePath::root())? {
            listings.push(Listing { area: area.name.clone(), manifest, top });
        }
    }
    Ok(listings)
}

impl Listing<'_> {
    fn print(&self, session: &Session, args: &Args) -> Result<()> {
        let is_dir = matches!(&self.top.node, Node::Inode(inode) if inode.kind == InodeKind::Directory);
        if !is_dir || args.directory {
            return self.print_entries(session, args, std::slice::from_ref(&self.top), 0);
        }
        let depth = self.top.path.depth();
        if !args.recursive {
            return self.print_entries(session, args, &self.manifest.children(&self.top.path)?, depth);
        }
        let mut batch = Vec::with_capacity(BATCH);
        for entry in self.manifest.entries_below(&self.top.path) {
            let entry = entry?;
            if entry.path != self.top.path {
                batch.push(entry);
            }
            if batch.len() == BATCH {
                self.print_entries(session, args, &batch, depth)?;
                batch.clear();
            }
        }
        self.print_entries(session, args, &batch, depth)
    }

    /// Prints entries with the path below the first `depth` components.
    fn print_entries(&self, session: &Session, args: &Args, entries: &[Entry], depth: usize) -> Result<()> {
        let out = &session.out;
        let mut cells = Vec::new();
        let mut names = Vec::new();
        for entry in entries {
            let (inode, first) = self.inode(entry)?;
            let resolved = Resolved { path: &entry.path, inode: &inode, first };
            if out.json {
                let entry = EntryFields::new(&resolved, self.manifest.head());
                out.document("evenkeel/ls/1", &Line { area: &self.area, entry })?;
                continue;
            }
            let below: Vec<&[u8]> = entry.path.components().skip(depth).collect();
            let mut shown = entry::name(&inode, &below.join(&b'/'), out.paint);
            if args.long {
                shown.push_str(&entry::arrow(&inode));
                cells.push(entry::long_cells(&resolved, self.manifest.head()));
            }
            names.push(shown);
        }
        if args.long {
            for (line, name) in columns(&cells, &LONG_RIGHT, " ").into_iter().zip(&names) {
                out.line(format_args!("{line} {name}"))?;
            }
        } else {
            for name in &names {
                out.line(name)?;
            }
        }
        Ok(())
    }

    /// The inode of an entry, through a hard-link group's first name if need be.
    fn inode<'e>(&self, entry: &'e Entry) -> Result<(Inode, Option<&'e TreePath>)> {
        match &entry.node {
            Node::Inode(inode) => Ok((inode.clone(), None)),
            Node::Link { first } => match self.manifest.get(first)? {
                Some(Entry { node: Node::Inode(inode), .. }) => Ok((inode, Some(first))),
                _ => Err(crate::error::CommandError::new(
                    crate::error::Kind::Damaged,
                    format!("manifest of area `{}`: `{}` is a link to nothing", self.area, entry.path),
                )),
            },
        }
    }
}
