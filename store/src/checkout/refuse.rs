// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a checkout does not begin. Each function gives one refusal; nothing has changed when it does.

use std::io;
use std::path::{Path, PathBuf};

use super::fidelity::NotHeld;
use super::options::AreaTarget;
use super::plan::CheckoutPlan;
use super::state::live_areas;
use crate::area::{PRIVATE_DIR, RuleSet, Verdict};
use crate::error::{Error, Result};
use crate::format::manifest::{Entry, InodeKind, Node};
use crate::format::snapshot::SnapshotArea;
use crate::fsio::{self, Dir, FileType};
use crate::id::SnapshotId;
use crate::path::TreePath;

/// Paths that a refusal names before it only counts.
const NAMED: usize = 20;
/// What the area's private directory takes beside what is staged: directories of staging and undo, and a new marker while
/// the old one is there. Without it, a switch would be done and could not be recorded.
const OWN_INODES: u64 = 8;
const OWN_BYTES: u64 = 64 << 10;
/// Part of the free space and inodes that a checkout leaves to others, as a divisor.
const RESERVE: u64 = 100;

fn refused(reason: String, hint: &str) -> Error {
    Error::Refused { reason, hint: Some(hint.to_string()) }
}

pub(super) fn empty_reference(target: &AreaTarget) -> Error {
    let reason = format!("area `{}` of the snapshot is empty", target.name);
    refused(reason, "if that is meant, say --allow-empty")
}

pub(super) fn other_area(target: &AreaTarget, found: &str) -> Error {
    let reason = format!("{} is area `{found}`, not `{}`", target.root.display(), target.name);
    refused(reason, "check --area and the configuration")
}

pub(super) fn mode_must_be_said(
    target: &AreaTarget,
    base: &SnapshotId,
    snapshot: &SnapshotId,
    is_known: bool,
) -> Error {
    let (base, snapshot) = (base.short(12), snapshot.short(12));
    let reason = match is_known {
        true => format!("area `{}` is at {base}, which is not an ancestor of {snapshot}", target.name),
        false => format!("area `{}` is at {base}, and whether {snapshot} follows it is not known here", target.name),
    };
    refused(reason, "say --full to make it equal, or --incremental to keep local changes and what was dropped")
}

/// What an interrupted switch has brought, and what it has not come to, would pass for local changes. `journal` is what has
/// become of its journal, where this run has found that.
pub(super) fn mixture(target: &AreaTarget, journal: Option<String>) -> Error {
    let reason = format!(
        "area `{}` is a mixture: it is in the middle of a switch whose journal is lost, and what of it is a local change \
         is not known",
        target.name
    );
    let journal = journal.map_or_else(String::new, |journal| format!("; {journal}"));
    refused(reason, &format!("say --full or --force to make it equal to the snapshot{journal}"))
}

pub(super) fn lost_state(target: &AreaTarget, base: &SnapshotId) -> Error {
    let reason = format!(
        "what was delivered to area `{}` is no longer known here, and this store does not have {}, which it is at",
        target.name,
        base.short(12)
    );
    refused(reason, "use the store it was checked out from")
}

/// Why an area's private directory cannot be used: by what is in its place, or by `error`.
pub(super) fn private_place(root: &Dir, action: &'static str, error: io::Error) -> Error {
    let path = root.path_of(PRIVATE_DIR);
    let own = fsio::effective_owner().0;
    match root.stat_opt(PRIVATE_DIR) {
        Ok(Some(found)) if !found.is_dir() => {
            let reason = format!("{} is {}, and no directory", path.display(), found.file_type.words());
            refused(reason, "Evenkeel keeps its own things there: move away what is in its place")
        }
        Ok(Some(found)) if found.uid != own => {
            let reason = format!("{} belongs to user {}, and this is user {own}", path.display(), found.uid);
            refused(reason, "run as that user, who checked out here; if it is not Evenkeel's, move it away")
        }
        Ok(Some(found)) if found.mode & 0o077 != 0 => {
            let reason = format!("{} is open to others: its mode is {:04o}", path.display(), found.mode);
            refused(reason, "if you trust what is in it, `chmod 700` it")
        }
        _ => Error::io(action, path, error),
    }
}

/// Why the lock in a private directory cannot be opened.
pub(super) fn lock_place(private: &Dir, name: &[u8], error: io::Error) -> Error {
    let path = private.path_of(name);
    match private.stat_opt(name) {
        Ok(Some(found)) if found.file_type != FileType::File => {
            let reason = format!("{} is {}, and no regular file", path.display(), found.file_type.words());
            refused(reason, "only an empty file belongs there: move away what is in its place")
        }
        _ => Error::io("open", path, error),
    }
}

/// Why an area's root cannot be looked at.
pub(super) fn no_place(target: &AreaTarget, error: Error) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Error::Area {
            area: target.name.clone(),
            path: target.root.clone(),
            reason: "the directory that it would be made in does not exist".into(),
        },
        error => error,
    }
}

/// Areas may not be the same or nested.
pub(super) fn overlapping<'a>(areas: impl Iterator<Item = (&'a AreaTarget, &'a Path)>) -> Result<()> {
    let areas: Vec<_> = areas.collect();
    for (index, (inner, path)) in areas.iter().enumerate() {
        for (other, (outer, outer_path)) in areas.iter().enumerate() {
            if index != other && path.starts_with(outer_path) {
                let reason = format!("it lies in area `{}` at {}", outer.name, outer_path.display());
                return Err(Error::Area { area: inner.name.clone(), path: path.to_path_buf(), reason });
            }
        }
    }
    Ok(())
}

/// Nor may they lie around or in an area that another call made here: its files would be strays of this one.
pub(super) fn overlapping_known<'a>(
    areas: impl Iterator<Item = (&'a AreaTarget, &'a Path)>,
    state: &Path,
) -> Result<()> {
    let known = live_areas(state)?;
    for (target, path) in areas {
        let nested = |root: &Path| root != path && (root.starts_with(path) || path.starts_with(root));
        if let Some(other) = known.iter().find(|other| nested(&other.root)) {
            let where_it_is = other.root.display();
            let reason = if other.root.starts_with(path) {
                format!("area `{}` lies in it at {where_it_is}", other.name)
            } else {
                format!("it lies in area `{}` at {where_it_is}", other.name)
            };
            return Err(Error::Area { area: target.name.clone(), path: path.to_path_buf(), reason });
        }
    }
    Ok(())
}

/// The program's own places are nobody's area: a checkout would replace the store that it reads.
pub(super) fn own_place(target: &AreaTarget, path: &Path, protected: &[PathBuf]) -> Result<()> {
    for own in protected {
        let real = fsio::canonicalize(own).unwrap_or_else(|_| own.clone());
        if path.starts_with(&real) {
            let reason = format!("it lies in {}, which is this program's own", own.display());
            return Err(Error::Area { area: target.name.clone(), path: path.to_path_buf(), reason });
        }
    }
    Ok(())
}

/// What no manifest may bring.
pub(super) fn forbidden(entry: &Entry, target: &AreaTarget, reference: &SnapshotArea) -> Result<()> {
    let refuse = |what: &str| {
        let reason = format!("area `{}` of the snapshot holds {what}: {}", target.name, entry.path);
        Err(refused(reason, "commit the area again with rules that fit"))
    };
    if entry.path.components().any(|name| name == PRIVATE_DIR) {
        return refuse("a path that is reserved for this program");
    }
    match &entry.node {
        Node::Inode(inode) => match inode.kind {
            InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } if !reference.rules.devices => {
                refuse("a device node, which its rules do not allow")
            }
            _ => Ok(()),
        },
        Node::Link { .. } => Ok(()),
    }
}

/// Whether an entry gives rights here, where nothing may; what is excluded here does not come.
pub(super) fn gives_rights(entry: &Entry, local_rules: &RuleSet) -> bool {
    let Node::Inode(inode) = &entry.node else { return false };
    inode.gives_rights() && local_rules.verdict(&entry.path, false) != Verdict::Excluded
}

/// Whether the snapshot has something at one of the program's own paths, and this machine does not exclude it.
pub(super) fn brings_own(entry: &Entry, protected: &[TreePath], site_rules: &RuleSet) -> bool {
    let is_dir = matches!(&entry.node, Node::Inode(inode) if inode.kind == InodeKind::Directory);
    protected.contains(&entry.path) && site_rules.verdict(&entry.path, is_dir) != Verdict::Excluded
}

/// A place that cannot hold everything, where everything was asked for.
pub(super) fn not_held(target: &AreaTarget, losses: &[NotHeld]) -> Result<()> {
    if losses.is_empty() {
        return Ok(());
    }
    let one = |lost: &NotHeld| {
        let example = if lost.example.is_root() { "its root".into() } else { lost.example.to_string() };
        let entries = if lost.entries == 1 { "entry" } else { "entries" };
        format!("{} of {} {entries} ({example})", lost.what.name(), lost.entries)
    };
    let all: Vec<String> = losses.iter().map(one).collect();
    let reason = format!("area `{}`: {} cannot hold {}", target.name, target.root.display(), all.join(", "));
    Err(refused(reason, "run as root, use a file system that holds them, or leave out --exact"))
}

/// A tripped ceiling: too many strays, or too many release removals.
pub(super) fn ceiling(target: &AreaTarget, plan: &CheckoutPlan, strays: bool, limit: u64) -> Result<()> {
    let found = plan.removals(strays).count() as u64;
    if found <= limit {
        return Ok(());
    }
    let (paths, were) = if found == 1 { ("path", "was") } else { ("paths", "were") };
    let what =
        if strays { format!("that {were} never delivered") } else { "that the reference no longer has".to_string() };
    let listed = list(plan.removals(strays), found);
    let reason = format!(
        "area `{}`: {found} {paths} {what} would be removed, but at most {limit} may be: {listed}",
        target.name
    );
    let hint = if strays {
        "look at them all with --dry-run -v; exclude what belongs here, or allow more with --max-delete"
    } else {
        "look at them all with --dry-run -v; if the release is meant to remove them, allow more with --max-removals"
    };
    Err(refused(reason, hint))
}

fn list<'p>(paths: impl Iterator<Item = &'p TreePath>, count: u64) -> String {
    let mut text = paths.take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = count.saturating_sub(NAMED as u64);
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Space and inodes for staging, which holds everything new beside everything old. Too little of either is the failure
/// that it would become half-way.
pub(super) fn space(target: &AreaTarget, plan: &CheckoutPlan, root: &Dir) -> Result<()> {
    let free = fsio::space(root).map_err(|e| Error::io("look at free space of", root.path(), e))?;
    let with_reserve = |needed: u64| needed.saturating_add(needed / RESERVE);
    let (aside_bytes, asides) = plan.kept_aside_size();
    let mut bytes = with_reserve(plan.counts.bytes_to_write.saturating_add(aside_bytes));
    let mut inodes = with_reserve(plan.counts.inodes_to_create.saturating_add(asides));
    if !plan.actions.is_empty() {
        bytes = bytes.saturating_add(OWN_BYTES);
        inodes = inodes.saturating_add(OWN_INODES);
    }
    let refuse = |needed: u64, what: &str, free: u64| {
        let reason = format!("area `{}` needs {needed} {what} for staging, {free} are free", target.name);
        Err(Error::io("stage a checkout in", root.path(), io::Error::new(io::ErrorKind::StorageFull, reason)))
    };
    if bytes > free.bytes {
        return refuse(bytes, "bytes", free.bytes);
    }
    if inodes > free.inodes {
        return refuse(inodes, "inodes", free.inodes);
    }
    Ok(())
}

/// There must be room for what is fetched.
///
/// # Errors
/// [`Error::Io`] with [`io::ErrorKind::StorageFull`].
pub(super) fn fetch_space(dir: &std::path::Path, needed: u64) -> Result<()> {
    let free = Dir::open(dir)
        .and_then(|dir| fsio::space(&dir).map_err(|e| Error::io("look at free space of", dir.path(), e)))?;
    let needed = needed.saturating_add(needed / RESERVE).saturating_add(OWN_BYTES);
    if needed <= free.bytes && free.inodes > 0 {
        return Ok(());
    }
    let (needed, what, free) =
        if needed > free.bytes { (needed, "bytes", free.bytes) } else { (1, "inode", free.inodes) };
    let reason = format!("what is fetched needs {needed} {what}, {free} are free");
    Err(Error::io("keep what is fetched in", dir, io::Error::new(io::ErrorKind::StorageFull, reason)))
}

/// What a bundle leaves out, as its bases have it, must be here.
pub(super) fn no_base(bundle: &Path, bases: &[SnapshotId], absent: usize, example: Option<&Path>) -> Error {
    let names: Vec<String> = bases.iter().map(|id| id.short(12)).collect();
    let (chunks, are) = if absent == 1 { ("chunk", "is") } else { ("chunks", "are") };
    let example = example.map_or(String::new(), |path| format!(", for {}", path.display()));
    let reason = format!(
        "{} needs the snapshot {}: {absent} {chunks} that it has {are} neither in the bundle nor on this machine{example}",
        bundle.display(),
        names.join(" or "),
    );
    let hint =
        "check out that snapshot here first, name a directory that has it with --seed, or make a bundle without --base";
    refused(reason, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was a refusal, and so had the exit code of a wrong command line.
    #[test]
    fn too_little_space_is_what_running_out_of_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let target = AreaTarget::new("a", temp.path());
        let mut plan = CheckoutPlan::default();
        space(&target, &plan, &root).unwrap();
        plan.counts.bytes_to_write = u64::MAX;
        let error = space(&target, &plan, &root).unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{error}");
    }
}
