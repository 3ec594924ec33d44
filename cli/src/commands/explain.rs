// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel explain`: tells of one path why it is as it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use evenkeel_store::checkout::{
    self, ChangeLine, ChangedBy, ExclusionKind, Explanation, HeaderLine, Now, SnapshotNote, StatusOptions,
};
use evenkeel_store::format::manifest::{Inode, InodeKind};
use evenkeel_store::fsio;
use evenkeel_store::path::{TreePath, escape};
use serde::Serialize;

use crate::areas::{self, AreaArg, LocalArea};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::identity;
use crate::output::json::{self, PathField};
use crate::output::text::{self, bytes};
use crate::output::who;
use crate::session::Session;
use crate::snapshot_path::tree_path;

const AFTER_HELP: &str = "\
Which snapshot brought it and when it first appeared, what it should be and what it is now, which checkout changed it here \
last, and who changed it as far as the file system and the package manager tell. The file is read. Exit code 0, whatever \
is found; `status` and `verify` are for scripts that want to know.

Examples:
  evenkeel explain /etc/ssh/sshd_config
  evenkeel explain etc:ssh/sshd_config --json";

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// A path of this machine, or AREA:PATH from an area's root.
    #[arg(value_name = "PATH")]
    path: OsString,
    /// An area and where it is (repeatable) [default: the areas of the configuration, else those that were
    /// checked out here].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    areas: Vec<AreaArg>,
}

/// Explains one path.
///
/// # Errors
/// When the path lies in no area, nothing was ever checked out there, or the system fails.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let areas = areas::select_or_known(session, &args.areas)?;
    let (area, path) = find(&areas, &args.path)?;
    let options = StatusOptions {
        areas: vec![area.target(&session.config)],
        state_dir: session.state_dir()?,
        protected: session.protected()?,
    };
    let store = session.open_store()?;
    let found = session.run_long(|progress| checkout::explain(&options, &store, &path, progress))?;
    let root = std::path::absolute(&area.config.root).unwrap_or_else(|_| area.config.root.clone());
    let identity = identity::of_this_machine(&root, &session.config.identity.include_paths);
    let now = NowFields::new(&found.now, &identity);
    if session.out.json {
        session.out.document("evenkeel/explain/1", &Report::new(area, &path, &found, now))?;
    } else {
        print(session, area, &path, &found, &now)?;
    }
    Ok(Exit::Done)
}

/// The area that a path lies in, and where in it.
fn find<'a>(areas: &'a [LocalArea], given: &OsStr) -> Result<(&'a LocalArea, TreePath)> {
    if let Some(at) = given.as_bytes().iter().position(|&b| b == b':')
        && let Some(area) = areas.iter().find(|area| area.name.as_bytes() == &given.as_bytes()[..at])
    {
        return Ok((area, tree_path(&given.as_bytes()[at + 1..])?));
    }
    let whole = std::path::absolute(given).unwrap_or_else(|_| given.into());
    // The path itself may be a symlink; what leads to it is followed, as by the system.
    let real = match (whole.parent().and_then(|parent| fsio::canonicalize(parent).ok()), whole.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => whole.clone(),
    };
    for area in areas {
        let root = fsio::canonicalize(&area.config.root).unwrap_or_else(|_| area.config.root.clone());
        let inside = |path: &Path| path.strip_prefix(&root).ok().map(|inside| inside.as_os_str().as_bytes().to_vec());
        if let Some(inside) = inside(&real).or_else(|| inside(&whole)) {
            return Ok((area, tree_path(&inside)?));
        }
    }
    let names: Vec<String> =
        areas.iter().map(|area| format!("`{}` at {}", area.name, text::path(&area.config.root))).collect();
    Err(CommandError::usage(format!("`{}` lies in no area", escape(given.as_bytes())))
        .hint(format!("areas here: {}", names.join(", "))))
}

#[derive(Serialize)]
struct Report {
    area: String,
    root: PathField,
    #[serde(flatten)]
    path: PathField,
    applied: Option<String>,
    interrupted: Option<String>,
    should_be: Option<InodeFields>,
    brought_by: Option<SnapshotFields>,
    first_in: Option<SnapshotFields>,
    history_is_cut: bool,
    now: NowFields,
    is: Option<InodeFields>,
    changed_by: ChangedBy,
    last_record: Option<RecordFields>,
}

#[derive(Serialize)]
struct SnapshotFields {
    id: String,
    time: String,
    author: String,
    message: String,
}

#[derive(Serialize)]
struct InodeFields {
    r#type: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    mtime: String,
    size: Option<u64>,
    /// What `b3sum` prints of a file.
    blake3: Option<String>,
    target: Option<PathField>,
}

#[derive(Serialize)]
struct NowFields {
    state: &'static str,
    differs: Vec<&'static str>,
    excluded_by: Option<&'static str>,
    pattern: Option<String>,
    excluded_at: Option<PathField>,
}

#[derive(Serialize)]
struct RecordFields {
    number: u64,
    what: String,
    began: String,
    action: String,
    reason: String,
}

impl Report {
    fn new(area: &LocalArea, path: &TreePath, found: &Explanation, now: NowFields) -> Self {
        let note = |note: &SnapshotNote| SnapshotFields {
            id: note.id.to_hex(),
            time: json::time(note.time),
            author: note.author.clone(),
            message: note.message.clone(),
        };
        Report {
            area: area.name.clone(),
            root: PathField::new(area.config.root.as_os_str().as_bytes()),
            path: PathField::new(path.as_bytes()),
            applied: found.applied.map(|id| id.to_hex()),
            interrupted: found.interrupted.map(|id| id.to_hex()),
            should_be: found.wanted.as_ref().map(InodeFields::new),
            brought_by: found.brought_by.as_ref().map(note),
            first_in: found.first_in.as_ref().map(note),
            history_is_cut: found.history_is_cut,
            now,
            is: found.live.as_ref().map(InodeFields::new),
            changed_by: found.changed_by.clone(),
            last_record: found.last_record.as_ref().map(|(header, change)| RecordFields {
                number: header.number,
                what: header.what.to_string(),
                began: json::time(header.began.0),
                action: change.action.to_string(),
                reason: change.reason.to_string(),
            }),
        }
    }
}

impl InodeFields {
    fn new(inode: &Inode) -> Self {
        let (size, blake3, target) = match &inode.kind {
            InodeKind::File(content) => (Some(content.size), Some(content.hash.to_hex()), None),
            InodeKind::Symlink(target) => (None, None, Some(PathField::new(target))),
            _ => (None, None, None),
        };
        InodeFields {
            r#type: text::kind_name(&inode.kind),
            mode: format!("{:04o}", inode.mode),
            uid: inode.uid,
            gid: inode.gid,
            mtime: json::time(inode.mtime),
            size,
            blake3,
            target,
        }
    }
}

impl NowFields {
    fn new(now: &Now, identity: &[String]) -> Self {
        let state = match now {
            Now::Same => "same",
            Now::Differs(_) => "differs",
            Now::Missing => "missing",
            Now::Stray => "stray",
            Now::Dropped => "dropped",
            Now::Excluded(_) => "excluded",
            Now::NeverDelivered => "never-delivered",
            Now::Absent => "absent",
        };
        let mut fields = NowFields { state, differs: Vec::new(), excluded_by: None, pattern: None, excluded_at: None };
        match now {
            Now::Differs(difference) => fields.differs = difference.names().collect(),
            Now::Excluded(exclusion) => {
                let is_identity = exclusion.pattern.as_ref().is_some_and(|pattern| identity.contains(pattern));
                let kind = if is_identity { ExclusionKind::Identity } else { exclusion.kind };
                fields.excluded_by = Some(kind.name());
                fields.pattern.clone_from(&exclusion.pattern);
                fields.excluded_at = Some(PathField::new(exclusion.at.as_bytes()));
            }
            _ => {}
        }
        fields
    }

    fn told(&self) -> String {
        match self.state {
            "same" => "as it should be".to_owned(),
            "differs" => format!("differs: {}", self.differs.join(", ")),
            "missing" => "missing".to_owned(),
            "stray" => "a stray: no snapshot delivered it".to_owned(),
            "dropped" => "delivered once, since dropped from the snapshots, left alone".to_owned(),
            "never-delivered" => "in the snapshot, and never delivered here".to_owned(),
            "absent" => "nothing is there, and nothing should be".to_owned(),
            _ => {
                let by = self.excluded_by.unwrap_or_default();
                let pattern =
                    self.pattern.as_ref().map_or_else(String::new, |pattern| format!(", pattern `{pattern}`"));
                let at = self.excluded_at.as_ref().map_or_else(String::new, PathField::escaped);
                format!("outside the area: {at} is excluded ({by}{pattern})")
            }
        }
    }
}

fn print(session: &Session, area: &LocalArea, path: &TreePath, found: &Explanation, now: &NowFields) -> Result<()> {
    let out = &session.out;
    let shown = if path.is_root() { ".".to_owned() } else { path.to_string() };
    out.line(out.paint.bold(format_args!("{}:{shown} at {}", area.name, text::path(&area.config.root))))?;
    let field = |name: &str, value: &str| out.line(format_args!("  {name:<10} {value}"));
    if let Some(target) = found.interrupted {
        field(
            "area",
            &out.paint.bad(format_args!("mixed, {} is being made of it: `evenkeel recover`", target.short(12))),
        )?;
    }
    let is_right = matches!(found.now, Now::Same | Now::Absent | Now::Excluded(_));
    let told = now.told();
    field("now", &if is_right { out.paint.good(told) } else { out.paint.changed(told) })?;
    if let Some(wanted) = &found.wanted {
        field("should be", &inode(wanted))?;
    }
    if let Some(live) = found.live.as_ref().filter(|_| !matches!(found.now, Now::Same)) {
        field("is", &inode(live))?;
    }
    if let Some(note) = &found.brought_by {
        field(if found.wanted.is_some() { "brought by" } else { "dropped by" }, &snapshot(note))?;
    }
    if let Some(note) = found.first_in.as_ref().filter(|first| found.brought_by.as_ref() != Some(first)) {
        field("first in", &snapshot(note))?;
    }
    if found.history_is_cut {
        field("history", "the store does not have all ancestors: it may be older")?;
    }
    match &found.last_record {
        Some((header, change)) => field("here", &record(header, change))?,
        None => field("here", "no record tells of a checkout that changed it")?,
    }
    if found.live.is_none() {
        return Ok(());
    }
    field("changed by", &who::told(&found.changed_by))
}

/// `file 0644 0:0, 1.46 MiB, 2026-11-22 16:00:48, 5e1c09ab…`.
fn inode(inode: &Inode) -> String {
    let mut told = format!("{} {:04o} {}:{}", text::kind_name(&inode.kind), inode.mode, inode.uid, inode.gid);
    match &inode.kind {
        InodeKind::File(content) => {
            let hash = content.hash.to_hex();
            told.push_str(&format!(", {}, {}, {}", bytes(content.size), text::time(inode.mtime), &hash[..12]));
        }
        InodeKind::Symlink(target) => told.push_str(&format!(" → {}", escape(target))),
        _ => {}
    }
    told
}

fn snapshot(note: &SnapshotNote) -> String {
    let message = note.message.lines().next().filter(|line| !line.is_empty());
    let message = message.map_or_else(String::new, |line| format!(": {}", escape(line.as_bytes())));
    format!("{}, {}, {}{message}", note.id.short(12), text::time(note.time), escape(note.author.as_bytes()))
}

fn record(header: &HeaderLine, change: &ChangeLine) -> String {
    let path = change.path.escaped();
    let path = if path.is_empty() { ".".to_owned() } else { path };
    format!(
        "{} {}, {}: {} {path}, {}",
        header.what,
        header.number,
        text::time(header.began.0),
        change.action,
        change.reason
    )
}
