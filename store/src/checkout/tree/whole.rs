// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the plan of what differs to a plan of everything: what stays as it is becomes a copy of itself.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use super::image::Image;
use crate::area::{XattrRules, XattrVerdict, is_mirrored_acl};
use crate::checkout::apply;
use crate::checkout::chain::DirChain;
use crate::checkout::plan::{Action, Change, CheckoutPlan, Outcome, Reason, Wanted, data_bytes};
use crate::checkout::report::ChangeKind;
use crate::checkout::stage::staged_name;
use crate::error::{Error, Result};
use crate::format::manifest::{Entry, Inode, InodeFlags, InodeKind, Node};
use crate::fsio::{self, Dir, FdAttrs, FileType, NameAttrs, Replace};
use crate::path::TreePath;

/// Names and values of extended attributes.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// A new tree, planned.
#[derive(Debug)]
pub(in crate::checkout) struct WholeTree {
    /// Makes the root and everything in it; its outcomes are those of a tree that is wholly new.
    pub(in crate::checkout) plan: CheckoutPlan,
    /// The live tree that it was planned over.
    pub(in crate::checkout) image: Image,
    /// Attributes that belong to this machine and go over from the live inodes.
    local: Vec<(TreePath, Attributes)>,
    /// Hard-link groups, by the first of their names in the reference.
    groups: HashMap<TreePath, Group>,
}

/// A hard-link group. The first of its names that is made holds the inode, whichever names the reference has before it.
#[derive(Debug)]
struct Group {
    inode: Inode,
    leader: Option<TreePath>,
}

/// What differs, for the journal.
pub(in crate::checkout) fn changes_of(plan: &CheckoutPlan) -> Vec<(TreePath, ChangeKind)> {
    plan.actions.iter().map(|action| (action.path.clone(), ChangeKind::of(&action.change))).collect()
}

impl WholeTree {
    /// Plans it. `plan` is what differs, `entries` the target manifest in this machine's ids; `shares` says that files can
    /// share their content here.
    ///
    /// # Errors
    /// [`Error::Refused`] when the live tree holds what the plan does not know; [`Error::Unstable`] when it changed since;
    /// [`Error::Io`], or an error of the manifest.
    pub(in crate::checkout) fn new(
        plan: &CheckoutPlan,
        entries: impl Iterator<Item = Result<Entry>>,
        image: Image,
        root: &Dir,
        xattrs: &XattrRules,
        shares: bool,
    ) -> Result<WholeTree> {
        let mut whole = WholeTree { plan: CheckoutPlan::default(), image, local: Vec::new(), groups: HashMap::new() };
        let mut actions = plan.actions.iter().peekable();
        let mut gone = HashSet::new();
        let mut chain = DirChain::new(root);
        for (entry, outcome) in entries.zip(&plan.outcomes) {
            let entry = entry?;
            while let Some(action) = actions.next_if(|action| action.path < entry.path) {
                gone.insert(whole.goes(action, root)?);
            }
            let action = actions.next_if(|action| action.path == entry.path);
            whole.entry(entry, *outcome, action, root, shares)?;
            let Some(Action { path, change: Change::Add { wanted: Wanted::Copy(inode), .. }, .. }) =
                whole.plan.actions.last()
            else {
                continue;
            };
            let found = local_attributes(&mut chain, path, inode, xattrs);
            let found = found.map_err(|e| Error::io("read attributes of", root.path_of(path.as_bytes()), e))?;
            whole.local.extend((!found.is_empty()).then(|| (path.clone(), found)));
        }
        for action in actions {
            gone.insert(whole.goes(action, root)?);
        }
        whole.knows_everything(&gone)?;
        Ok(whole)
    }

    fn entry(
        &mut self,
        entry: Entry,
        outcome: Outcome,
        action: Option<&Action>,
        root: &Dir,
        shares: bool,
    ) -> Result<()> {
        let Entry { path, node } = entry;
        if let Node::Inode(inode) = &node
            && inode.links > 1
        {
            self.groups.insert(path.clone(), Group { inode: inode.clone(), leader: None });
        }
        if outcome == Outcome::Skipped {
            self.plan.outcomes.push(outcome);
            // Nothing that could be made; what is there all the same would be lost.
            return match self.image.get(&path) {
                Some(_) => Err(in_the_way(&path, "cannot be made in a new tree")),
                None => Ok(()),
            };
        }
        self.plan.outcomes.push(Outcome::Delivered);
        let seen = match (outcome, action.map(|action| &action.change)) {
            (Outcome::Same(stat), _) => Some(stat),
            (_, Some(Change::Metadata { was, .. } | Change::Replace { was, .. })) => Some(**was),
            _ => None,
        };
        // A root that is just made has no wish; its own time moves with `.evenkeel`.
        let is_still = path.is_root()
            || match (&seen, self.image.get(&path)) {
                (Some(seen), Some(now)) => now.same_content_as(seen),
                (None, None) => true,
                _ => false,
            };
        if !is_still {
            return Err(unstable(root, &path));
        }
        let stays = matches!(outcome, Outcome::Same(_))
            || matches!(action.map(|action| &action.change), Some(Change::Metadata { .. }));
        let wanted = self.wanted(&path, node, stays);
        let counts = &mut self.plan.counts;
        counts.inodes_to_create += u64::from(!matches!(wanted, Wanted::Link { .. }));
        if let Wanted::Inode(inode) | Wanted::Copy(inode) = &wanted
            && let InodeKind::File(content) = &inode.kind
            && !(shares && stays)
        {
            counts.bytes_to_write = counts.bytes_to_write.saturating_add(data_bytes(content));
        }
        let inside = !path.is_root();
        self.plan.actions.push(Action { path, change: Change::Add { wanted, inside }, reason: Reason::Added });
        Ok(())
    }

    /// A new inode, or a further name of the group's one.
    fn wanted(&mut self, path: &TreePath, node: Node, stays: bool) -> Wanted {
        let group = match &node {
            Node::Link { first } => self.groups.get_mut(first),
            Node::Inode(_) => self.groups.get_mut(path),
        };
        let inode = match (node, group) {
            (_, Some(Group { leader: Some(leader), .. })) => {
                return Wanted::Link { leader: leader.clone(), live: None };
            }
            (_, Some(group)) => {
                group.leader = Some(path.clone());
                group.inode.clone()
            }
            (Node::Inode(inode), None) => inode,
            // No manifest has it; staging says so.
            (Node::Link { first }, None) => return Wanted::Link { leader: first, live: None },
        };
        if stays { Wanted::Copy(Box::new(inode)) } else { Wanted::Inode(Box::new(inode)) }
    }

    /// The path of an action at which the target has nothing.
    fn goes(&self, action: &Action, root: &Dir) -> Result<TreePath> {
        if let Change::Remove { was, .. } = &action.change
            && !self.image.get(&action.path).is_some_and(|now| now.same_content_as(was))
        {
            return Err(unstable(root, &action.path));
        }
        Ok(action.path.clone())
    }

    /// What is live and neither stays, nor is replaced, nor goes by plan, is outside the area.
    fn knows_everything(&self, gone: &HashSet<TreePath>) -> Result<()> {
        let mut kept = self.plan.actions.iter().map(|action| &action.path).peekable();
        for (path, _) in self.image.iter() {
            while kept.next_if(|known| *known < path).is_some() {}
            let known = kept.peek().is_some_and(|known| *known == path) || gone.contains(path);
            if !known {
                return Err(in_the_way(path, "does not belong to the area, or came just now"));
            }
        }
        Ok(())
    }

    /// Whether the root may be renamed although it is what it shall be.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub(in crate::checkout) fn root_can_move(&self, live: &Dir) -> Result<()> {
        let flags = FdAttrs(live.as_fd()).flags().map_err(|e| Error::io("look at", live.path(), e))?;
        let wanted = self.plan.actions.first().and_then(Action::wanted);
        let late = match wanted {
            Some(Wanted::Inode(inode) | Wanted::Copy(inode)) => {
                apply::late_flags(inode.flags) || apply::late_mode(inode)
            }
            _ => false,
        };
        if late || apply::late_flags(flags) {
            return Err(refused("its root may not be renamed, by its mode or flags".into()));
        }
        Ok(())
    }

    /// Gives the staged tree the attributes that belong to this machine.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in crate::checkout) fn bring_local_attributes(&self, staging: &Dir) -> Result<()> {
        let failed = |e| Error::io("set attributes in", staging.path(), e);
        let tree = staging.open_dir(&staged_name(0)).map_err(failed)?;
        let mut chain = DirChain::new(&tree);
        for (path, attributes) in &self.local {
            let set = |chain: &mut DirChain<'_>| {
                let found = chain.find(path)?.ok_or(std::io::ErrorKind::NotFound)?;
                let set = |attrs: FdAttrs<'_>| {
                    let flags = attrs.flags()?;
                    if flags != InodeFlags::default() {
                        attrs.set_flags(InodeFlags::default())?;
                    }
                    attributes.iter().try_for_each(|(name, value)| attrs.set_xattr(name, value))?;
                    if flags == InodeFlags::default() { Ok(()) } else { attrs.set_flags(flags) }
                };
                match (&found.dir, &found.parent) {
                    (Some(dir), _) => set(FdAttrs(dir.as_fd())),
                    (None, Some(dir)) if found.stat.file_type == FileType::File => {
                        set(FdAttrs(dir.open_file(path.name())?.as_fd()))
                    }
                    (None, Some(dir)) => {
                        let attrs = NameAttrs { dir, name: path.name() };
                        attributes.iter().try_for_each(|(name, value)| attrs.set_xattr(name, value))
                    }
                    (None, None) => Ok(()),
                }
            };
            set(&mut chain).map_err(failed)?;
        }
        Ok(())
    }
}

/// Whether two directories of `scratch`, a private one, can change places.
///
/// # Errors
/// [`Error::Refused`] when not; [`Error::Io`].
pub(in crate::checkout) fn can_exchange(scratch: &Dir) -> Result<()> {
    const NAMES: [&[u8]; 2] = [b"exchange-one", b"exchange-two"];
    let failed = |e| Error::io("try to exchange directories in", scratch.path(), e);
    NAMES.iter().try_for_each(|name| scratch.make_dir(name)).map_err(failed)?;
    let exchanged = scratch.rename(NAMES[0], scratch, NAMES[1], Replace::Exchange);
    NAMES.iter().try_for_each(|name| scratch.remove_dir(name)).map_err(failed)?;
    match exchanged {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput || e.kind() == std::io::ErrorKind::Unsupported => {
            Err(refused("its file system cannot exchange two directories".into()))
        }
        exchanged => exchanged.map_err(failed),
    }
}

/// Attributes of a live inode that the snapshot does not record, ACLs apart.
fn local_attributes(
    chain: &mut DirChain<'_>,
    path: &TreePath,
    inode: &Inode,
    rules: &XattrRules,
) -> std::io::Result<Attributes> {
    let Some(found) = chain.find(path)? else { return Ok(Vec::new()) };
    let is_local = |name: &[u8]| {
        let of_acl = fsio::xattr_namespace_of_acl(name) || is_mirrored_acl(name);
        // On btrfs setting this sets a flag, which the snapshot does record.
        let of_flag = name == b"btrfs.compression" && !inode.flags.names().any(|flag| flag == "compress");
        !of_acl && !of_flag && !inode.xattrs.contains_key(name) && rules.verdict(name) != XattrVerdict::Recorded
    };
    let mut all = Vec::new();
    if let Some(dir) = &found.dir {
        let attrs = FdAttrs(dir.as_fd());
        for name in attrs.xattr_names()?.into_iter().filter(|name| is_local(name)) {
            all.extend(attrs.xattr(&name)?.map(|value| (name, value)));
        }
    } else if let Some(dir) = &found.parent {
        let attrs = NameAttrs { dir, name: path.name() };
        for name in attrs.xattr_names()?.into_iter().filter(|name| is_local(name)) {
            all.extend(attrs.xattr(&name)?.map(|value| (name, value)));
        }
    }
    Ok(all)
}

fn refused(reason: String) -> Error {
    let reason = format!("the area cannot be switched as a whole tree: {reason}");
    Error::Refused { reason, hint: Some("switch file by file: leave out --switch tree".into()) }
}

fn in_the_way(path: &TreePath, what: &str) -> Error {
    refused(format!("{path} {what}"))
}

fn unstable(root: &Dir, path: &TreePath) -> Error {
    Error::Unstable { paths: vec![root.path_of(path.as_bytes())] }
}
