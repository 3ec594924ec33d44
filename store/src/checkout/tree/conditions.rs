// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether an area's tree can be exchanged as a whole. What cannot is refused with the reason before anything is staged.

use std::path::Path;

use super::image::{Image, inodes_of};
use crate::checkout::options::{AreaTarget, Mode};
use crate::checkout::plan::CheckoutPlan;
use crate::error::{Error, Result};
use crate::fsio::{self, Dir, Stat};
use crate::in_use::{self, InUse};

/// Processes that a refusal names.
const NAMED: usize = 10;
/// Write permission for others than the owner.
const OTHERS_WRITE: u16 = 0o022;

/// Checks what the plan and the place of the tree tell. `path` is where the root really is.
///
/// # Errors
/// [`Error::Refused`]; [`Error::Io`].
pub(in crate::checkout) fn check(
    target: &AreaTarget,
    root: &Dir,
    path: &Path,
    plan: &CheckoutPlan,
    mode: Mode,
) -> Result<()> {
    let refuse = |reason: &str, hint: &str| Err(refused(target, reason, hint));
    if !mode.is_full() {
        return refuse("only a full checkout makes a whole tree", "say --full, or leave out --switch tree");
    }
    let counts = &plan.counts;
    let stays = plan.kept.first().map(|kept| format!("{} stays as it is here", kept.path));
    let stays = stays.or_else(|| {
        let left = counts.strays_left + counts.dropped_left + counts.blocked;
        (left > 0).then(|| format!("{left} paths that the snapshot does not have stay here"))
    });
    if let Some(reason) = stays {
        return refuse(&reason, "switch file by file: leave out --switch tree");
    }
    let failed = |e| Error::io("look at", path, e);
    let stat = root.stat(b"").map_err(failed)?;
    parent_is_safe(target, path, &stat)?;
    no_mounts(target, path, &stat)
}

/// Checks that nobody else uses anything in the tree.
///
/// # Errors
/// [`Error::Refused`], naming who does.
pub(in crate::checkout) fn check_unused(target: &AreaTarget, image: &Image) -> Result<()> {
    let users = in_use::find(&inodes_of(image));
    if users.is_empty() { Ok(()) } else { Err(busy(target, &users)) }
}

fn refused(target: &AreaTarget, reason: &str, hint: &str) -> Error {
    let reason = format!("area `{}` cannot be switched as a whole tree: {reason}", target.name);
    Error::Refused { reason, hint: Some(hint.into()) }
}

/// The parent gets the new tree for a moment, and its entry of this name must not be somebody else's to change.
fn parent_is_safe(target: &AreaTarget, path: &Path, root: &Stat) -> Result<()> {
    let refuse = |reason: String, hint| Err(refused(target, &reason, hint));
    let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
        return refuse("it has no parent directory".into(), "leave out --switch tree");
    };
    let stat = Dir::open(parent)?.stat(b"").map_err(|e| Error::io("look at", parent, e))?;
    let shown = parent.display();
    if stat.dev != root.dev {
        let hint = "put the area into a directory of that file system, or leave out --switch tree";
        return refuse(format!("its parent {shown} is on another file system"), hint);
    }
    let own = fsio::effective_owner().0;
    if (stat.uid != 0 && stat.uid != own) || stat.mode & OTHERS_WRITE != 0 {
        let hint = "give it to root and take write permission from others, or leave out --switch tree";
        return refuse(format!("others than root may change its parent {shown}"), hint);
    }
    Ok(())
}

/// An exchange takes what is mounted in a tree away with it.
pub(super) fn no_mounts(target: &AreaTarget, path: &Path, root: &Stat) -> Result<()> {
    let hint = "unmount it, or leave out --switch tree";
    if root.is_mount_root {
        return Err(refused(target, "its root is a mount point", hint));
    }
    let mounts = fsio::mount_points().map_err(|e| Error::io("read mount points of", path, e))?;
    match mounts.iter().find(|mount| mount.starts_with(path)) {
        Some(mount) => Err(refused(target, &format!("something is mounted at {}", mount.display()), hint)),
        None => Ok(()),
    }
}

fn busy(target: &AreaTarget, users: &InUse) -> Error {
    let one = |using: &in_use::Using| {
        let unit = using.unit.as_deref().unwrap_or("-");
        format!("{} (pid {}, {unit}): {}", using.command, using.pid, using.paths[0])
    };
    let mut list: Vec<String> = users.processes.iter().take(NAMED).map(one).collect();
    if users.processes.len() > NAMED {
        list.push(format!("and {} more", users.processes.len() - NAMED));
    }
    let reason = format!("processes use it and would go on in the old tree: {}", list.join("; "));
    refused(target, &reason, "stop them, or say --allow-busy and start them anew afterwards")
}
