// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Taking a tree switch back: the two trees change places once more.

use super::conditions::no_mounts;
use super::exchange::{is_root, put_back_unused, settle};
use super::image::{Image, inodes_of, rights_of};
use crate::checkout::displaced::Groups;
use crate::checkout::journal::{Journal, New, Op, Step, TreeStep};
use crate::checkout::lift::Lifts;
use crate::checkout::options::AreaTarget;
use crate::checkout::report::ChangeKind;
use crate::checkout::rollback::delivered::{Delivered, Since};
use crate::checkout::rollback::{TurnedAround, undos};
use crate::checkout::stage::staged_name;
use crate::checkout::state::HeldArea;
use crate::error::{Error, Result};
use crate::fsio::{Dir, Stat};
use crate::in_use::Inodes;
use crate::path::TreePath;
use crate::progress::Progress;

/// The transaction that takes the tree switch `journal` back. What was interrupted is brought to one of its two ends first.
///
/// # Errors
/// [`Error::Refused`] when the old tree is not there any more, or something is mounted in the present one; [`Error::Io`].
pub(in crate::checkout) fn turned_around(
    held: &mut HeldArea,
    target: &AreaTarget,
    journal: &Journal,
    interrupted: bool,
    number: u64,
    progress: &Progress,
) -> Result<TurnedAround> {
    let step = journal.tree().expect("the caller has seen that it is one");
    let inverse = |steps| Journal {
        number,
        base: journal.target,
        target: journal.base,
        undoes: Some(journal.number),
        steps,
        dirs: Vec::new(),
    };
    if interrupted && is_root(held, step.was.ino)? {
        put_back_unused(held, journal.undoes)?;
        return Ok(of_whole_trees(inverse(Vec::new()), Vec::new(), Inodes::new()));
    }
    let displaced = if interrupted {
        settle_interrupted(held, journal, step)?;
        Some(held.staging()?)
    } else {
        held.open_undo(journal.number)?
    };
    let (displaced, old) = old_tree(displaced, step)?.ok_or_else(|| Error::Refused {
        reason: format!("the tree that gave way in number {} is not there any more", journal.number),
        hint: Some("`evenkeel checkout SNAP --full` goes to any snapshot of the store".into()),
    })?;
    let stat = held.root.stat(b"").map_err(|e| Error::io("look at", held.root.path(), e))?;
    let path = held.root.real_path().map_err(|e| Error::io("look at", held.root.path(), e))?;
    no_mounts(target, &path, &stat)?;
    let image = Image::of(&held.root, progress)?;
    let was = rights_of(&image, &held.root)?;
    let (mut groups, top, staged) =
        (Groups::new(Lifts::of_giving_back(&held.state)?), TreePath::root(), staged_name(0));
    let failed = |e| Error::io("give rights back in", displaced.path_of(&staged), e);
    groups.count(&displaced, &staged, &top, &step.was).map_err(failed)?;
    undos::count_names(&mut groups, held, journal.number)?;
    groups.give_back(&displaced, &staged, &top, &step.was).map_err(failed)?;
    let new = New { ino: step.was.ino, born: old.born, mtime: step.was.mtime, late: None };
    let changes = step.changes.iter().map(|(path, kind)| (path.clone(), turned(*kind))).collect();
    let (changed_since, removed_since) = if interrupted {
        (Vec::new(), Vec::new())
    } else {
        let is_newest = journal.number == held.finished();
        changed_since(&image, &Delivered::read(&held.applied_path(), &journal.steps, is_newest)?)
    };
    let back = TreeStep { new, was, private: step.private, bytes: image.bytes(), changes };
    let steps = vec![Step { path: TreePath::root(), slot: 0, op: Op::Tree(Box::new(back)) }];
    let back = of_whole_trees(inverse(steps), changed_since, inodes_of(&image));
    Ok(TurnedAround { removed_since, ..back })
}

/// All that somebody has put there goes with the tree, and what gave way comes back as it is.
fn of_whole_trees(journal: Journal, changed_since: Vec<TreePath>, going: Inodes) -> TurnedAround {
    TurnedAround {
        journal,
        changed_since,
        removed_since: Vec::new(),
        left_alone: Vec::new(),
        not_kept: Vec::new(),
        set_aside: Vec::new(),
        going,
    }
}

/// The exchange was made: the old tree comes to staging, however far it has come.
fn settle_interrupted(held: &mut HeldArea, journal: &Journal, step: &TreeStep) -> Result<()> {
    if held.private.stat(b"").is_ok_and(|private| private.ino == step.private) {
        // It may have come as far as to be kept.
        held.stage_undo(journal.number)?;
    }
    settle(held, step)
}

/// The old tree, and the directory that it is in.
fn old_tree(displaced: Option<Dir>, step: &TreeStep) -> Result<Option<(Dir, Stat)>> {
    let Some(dir) = displaced else { return Ok(None) };
    let found = dir.stat_opt(&staged_name(0)).map_err(|e| Error::io("look at", dir.path(), e))?;
    Ok(found.filter(|stat| stat.ino == step.was.ino).map(|stat| (dir, stat)))
}

fn turned(kind: ChangeKind) -> ChangeKind {
    match kind {
        ChangeKind::Add => ChangeKind::Remove,
        ChangeKind::Remove => ChangeKind::Add,
        same => same,
    }
}

/// What is not as it was delivered, which goes to the undo of the rollback with everything else; and what is not there.
fn changed_since(image: &Image, delivered: &Delivered) -> (Vec<TreePath>, Vec<TreePath>) {
    let is_other = |(path, stat): &&(TreePath, Stat)| delivered.since(path, stat) != Since::AsLeft;
    let changed = image.iter().filter(is_other).map(|(path, _)| path.clone()).collect();
    let mut removed: Vec<TreePath> = delivered.paths().filter(|path| image.get(path).is_none()).cloned().collect();
    removed.sort_unstable();
    (changed, removed)
}
