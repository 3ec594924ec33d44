// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The part of a checkout that a tree switch does in another way.

use super::apply::threads;
use super::{AreaRun, Place, Ready, Run};
use crate::checkout::fidelity::Losses;
use crate::checkout::journal::{Journal, New, Op, Step, TreeStep};
use crate::checkout::plan::Wanted;
use crate::checkout::refuse;
use crate::checkout::report::SetAside;
use crate::checkout::stage::{stage, staged_name};
use crate::checkout::state::HeldArea;
use crate::checkout::switch::Switched;
use crate::checkout::transaction;
use crate::checkout::tree::{self, Image, WholeTree};
use crate::error::{Error, Result};
use crate::format::manifest::Timestamp;
use crate::fsio;
use crate::in_use;
use crate::path::TreePath;
use crate::progress::Progress;

impl<'a> Run<'a> {
    /// Whether the tree may be exchanged as a whole.
    pub(super) fn check_tree(&self, area: &AreaRun<'_>) -> Result<()> {
        let Some(root) = area.root().filter(|_| !area.plan.is_empty()) else { return Ok(()) };
        tree::check(area.target, root, &area.path, &area.plan, area.mode)?;
        if self.options.allow_busy {
            return Ok(());
        }
        tree::check_unused(area.target, &Image::of(root, self.progress)?)
    }

    /// Makes the whole new tree, durable, and what will be remembered of it.
    pub(super) fn stage_tree(&self, area: &mut AreaRun<'a>) -> Result<()> {
        let Place::Held(held) = &area.place else { return Ok(()) };
        let staging = held.staging()?;
        tree::can_exchange(&staging)?;
        let failed = |e| Error::io("try to share content in", staging.path(), e);
        let shares = fsio::can_share_content(&staging).map_err(failed)?;
        let image = Image::of(&held.root, self.progress)?;
        let mut losses = Losses::default();
        let entries = area.manifest.entries().map(|entry| Ok(area.here.localize(entry?, &mut losses)));
        let whole = WholeTree::new(&area.plan, entries, image, &held.root, area.rules.xattrs(), shares)?;
        whole.root_can_move(&held.root)?;
        refuse::space(area.target, &whole.plan, &held.root)?;
        let threads = threads(self.options.threads);
        stage(&whole.plan, &staging, &held.root, self.reader, threads, self.progress)?;
        whole.bring_local_attributes(&staging)?;
        let changed = whole.image.changed_in(&Image::of(&held.root, self.progress)?);
        if !changed.is_empty() {
            return Err(Error::Unstable {
                paths: changed.iter().map(|path| held.root.path_of(path.as_bytes())).collect(),
            });
        }
        self.progress.start("syncing", 0, 0);
        let step = self.tree_step(area, held, &whole)?;
        let journal = Journal {
            number: transaction::next_number(held)?,
            base: held.applied(),
            target: Some(self.options.snapshot),
            undoes: None,
            steps: vec![Step { path: TreePath::root(), slot: 0, op: Op::Tree(Box::new(step)) }],
            dirs: Vec::new(),
        };
        held.make_state()?;
        area.here.fidelity.remember(&held.state)?;
        area.tree = Some(Box::new(whole));
        let record = self.sync_and_record(area, held, None)?;
        area.ready = Some(Ready { journal, record });
        Ok(())
    }

    fn tree_step(&self, area: &AreaRun<'_>, held: &HeldArea, whole: &WholeTree) -> Result<TreeStep> {
        let staging = held.staging()?;
        let failed = |e| Error::io("look at", staging.path(), e);
        let stat = staging.stat(&staged_name(0)).map_err(failed)?;
        let mtime = match whole.plan.actions.first().and_then(|root| root.wanted()) {
            Some(Wanted::Inode(inode) | Wanted::Copy(inode)) => inode.mtime,
            _ => Timestamp::default(),
        };
        Ok(TreeStep {
            new: New { ino: stat.ino, born: stat.born, mtime, late: None },
            was: tree::rights_of(&whole.image, &held.root)?,
            private: held.private.stat(b"").map_err(failed)?.ino,
            bytes: whole.image.bytes(),
            changes: tree::changes_of(&area.plan),
        })
    }
}

/// Looks back at the old tree: who still uses it, and what somebody changed in it in the last moment. That is kept with it.
pub(super) fn look_back(
    held: &HeldArea,
    whole: &WholeTree,
    journal: &Journal,
    switched: &mut Switched,
    progress: &Progress,
) -> Result<()> {
    switched.in_use = in_use::find(&tree::inodes_of(&whole.image));
    let (staging, name) = (held.staging()?, staged_name(0));
    let old = staging.open_dir(&name).map_err(|e| Error::io("look at", staging.path_of(&name), e))?;
    let later = match Image::of(&old, progress) {
        // Somebody still works in it.
        Err(Error::Unstable { .. }) => Image::of(&old, progress)?,
        image => image?,
    };
    let stripped =
        |path: &TreePath| journal.tree().is_some_and(|step| step.was.within.iter().any(|(at, _)| at == path));
    let changed = whole.image.changed_in(&later).into_iter().filter(|path| !stripped(path));
    switched.set_aside.extend(changed.map(|path| {
        let kept_as = format!("0/{path}");
        SetAside { path, kept_as }
    }));
    Ok(())
}
