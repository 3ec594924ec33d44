// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a place can hold: found out by trying before anything is planned, so that everything else is exact and nothing
//! is lost silently.
//!
//! An entry that needs more is reduced to what can be held, the loss is counted, and the reduced entry is what is
//! compared, delivered and recorded.

mod memory;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::owners::{NOBODY_HERE, OwnerMap};
use crate::error::{Error, Result};
use crate::format::manifest::{Ace, AceTag, Acl, Entry, Inode, InodeFlags, InodeKind, ManifestHead, Node, Timestamp};
use crate::fsio::{self, ACL_ACCESS, Dir, FdAttrs, FileType, encode_acl};
use crate::path::TreePath;

/// Something of an entry that a place does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Another owner or group than this process has.
    Owner,
    /// Set-id bits, which would give another owner's rights.
    SetId,
    /// Permission bits.
    Mode,
    /// ACLs.
    Acl,
    /// `user.*` attributes.
    UserXattrs,
    /// Attributes of other namespaces: capabilities, labels.
    SystemXattrs,
    /// Inode flags.
    Flags,
    /// The finer part of a time, or a time that is too early or too late.
    TimePrecision,
    /// The whole entry: a device node.
    Device,
    /// The whole entry: a symlink.
    Symlink,
    /// The whole entry: a FIFO.
    Fifo,
}

impl Loss {
    /// For people and records.
    pub fn name(self) -> &'static str {
        match self {
            Loss::Owner => "owner",
            Loss::SetId => "set-id bits",
            Loss::Mode => "mode",
            Loss::Acl => "ACL",
            Loss::UserXattrs => "user attributes",
            Loss::SystemXattrs => "capabilities and other system attributes",
            Loss::Flags => "inode flags",
            Loss::TimePrecision => "exact time",
            Loss::Device => "device nodes",
            Loss::Symlink => "symlinks",
            Loss::Fifo => "FIFOs",
        }
    }
}

/// How much of one kind is not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHeld {
    /// What.
    pub what: Loss,
    /// In how many entries.
    pub entries: u64,
    /// The first of them.
    pub example: TreePath,
}

/// The reference as it can be here: this machine's owners, and nothing that cannot be held.
#[derive(Debug)]
pub(super) struct Here {
    owners: OwnerMap,
    pub(super) fidelity: Fidelity,
}

impl Here {
    /// For the entries of one manifest.
    pub(super) fn new(head: &ManifestHead, numeric_owners: bool, fidelity: Fidelity) -> Here {
        Here { owners: OwnerMap::new(head, numeric_owners), fidelity }
    }

    /// Fails with all names of owners that are not known on this machine, where owners can be held.
    pub(super) fn require_owners(&self) -> Result<()> {
        if self.fidelity.only_owner.is_some() { Ok(()) } else { self.owners.require_all() }
    }

    /// An entry as it can be here; what it loses is counted.
    pub(super) fn localize(&self, entry: Entry, losses: &mut Losses) -> Entry {
        let mut entry = self.owners.localize(entry);
        if let Node::Inode(inode) = &mut entry.node {
            self.fidelity.reduce(&entry.path, inode, losses);
        }
        entry
    }
}

/// Losses, counted while entries go by.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses(BTreeMap<Loss, (u64, TreePath)>);

impl Losses {
    fn count(&mut self, what: Loss, path: &TreePath) {
        let (count, example) = self.0.entry(what).or_insert_with(|| (0, path.clone()));
        *count += 1;
        // The root says least.
        if example.is_root() {
            example.clone_from(path);
        }
    }

    pub(super) fn report(&self) -> Vec<NotHeld> {
        let one = |(what, (entries, example)): (&Loss, &(u64, TreePath))| NotHeld {
            what: *what,
            entries: *entries,
            example: example.clone(),
        };
        self.0.iter().map(one).collect()
    }
}

/// What can be held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Fidelity {
    /// Any owner; `None`: only this user, and these groups.
    only_owner: Option<(u32, Vec<u32>)>,
    modes: bool,
    acls: bool,
    user_xattrs: bool,
    system_xattrs: bool,
    #[serde(with = "memory::flag_bits")]
    flags: InodeFlags,
    /// Nanoseconds that times are multiples of.
    time_step: u32,
    /// The first and the last second that a time may have.
    #[serde(default = "any_time")]
    time_range: (i64, i64),
    devices: bool,
    symlinks: bool,
    fifos: bool,
}

impl Fidelity {
    /// What this process may do anywhere; nothing is said of a file system.
    pub(super) fn of_this_process() -> Fidelity {
        let (uid, gid) = fsio::effective_owner();
        let is_root = uid == 0;
        let all_flags = (0..InodeFlags::NAMES.len()).fold(0, |all, bit| all | 1 << bit);
        let for_root =
            ["append", "immutable"].into_iter().filter_map(InodeFlags::from_name).fold(0, |all, f| all | f.0);
        Fidelity {
            only_owner: (!is_root).then(|| (uid, [vec![gid], fsio::groups()].concat())),
            modes: true,
            acls: true,
            user_xattrs: true,
            system_xattrs: is_root,
            flags: InodeFlags(if is_root { all_flags } else { all_flags & !for_root }),
            time_step: 1,
            time_range: any_time(),
            devices: is_root,
            symlinks: true,
            fifos: true,
        }
    }

    /// Tries everything in `scratch`, an empty private directory on the file system in question.
    ///
    /// # Errors
    /// When not even a file can be made there.
    pub(super) fn probe(scratch: &Dir) -> Result<Fidelity> {
        const NAME: &[u8] = b"probe";
        const DIR: &[u8] = b"probe-dir";
        let failed = |e| Error::io("try what can be held in", scratch.path(), e);
        let file = scratch.create_file(NAME).map_err(failed)?;
        scratch.make_dir(DIR).map_err(failed)?;
        let dir = scratch.open_dir(DIR).map_err(failed)?;
        let found = Fidelity::try_on(scratch, FdAttrs(file.as_fd()), FdAttrs(dir.as_fd()));
        drop((file, dir));
        scratch.remove_all(NAME).and_then(|_| scratch.remove_all(DIR)).map_err(failed)?;
        found.map_err(failed)
    }

    fn try_on(scratch: &Dir, file: FdAttrs<'_>, dir: FdAttrs<'_>) -> io::Result<Fidelity> {
        let process = Fidelity::of_this_process();
        let (uid, gid) = fsio::effective_owner();
        let any_owner = process.only_owner.is_none() && takes_owners(file)?;
        file.set_owner(uid, gid)?;
        let modes = takes_modes(file)?;
        let fine = Timestamp { secs: 1_234_567_890, nanos: 123_456_789 };
        file.set_mtime(fine)?;
        let kept = fsio::Stat::of_fd(file.0)?.mtime;
        let made = |name: &[u8], made: io::Result<()>| match held(made)? {
            true => scratch.unlink(name).map(|()| true),
            false => Ok(false),
        };
        let special = |name: &[u8], kind, device| made(name, scratch.make_special(name, kind, device));
        Ok(Fidelity {
            only_owner: (!any_owner).then(|| process.only_owner.clone().unwrap_or((uid, vec![gid]))),
            modes,
            acls: held(file.set_xattr(ACL_ACCESS, &encode_acl(&some_acl())))?,
            user_xattrs: takes_attribute(file, b"user.evenkeel-probe")?,
            system_xattrs: process.system_xattrs && takes_attribute(file, b"security.evenkeel-probe")?,
            flags: takes_flags(file, dir, process.flags)?,
            time_step: time_step(fine, kept),
            time_range: time_range(file)?,
            devices: process.devices && special(b"device", FileType::CharDevice, (1, 3))?,
            symlinks: made(b"link", scratch.make_symlink(b"x", b"link"))?,
            fifos: special(b"fifo", FileType::Fifo, (0, 0))?,
        })
    }

    /// Whether such an inode can be made at all, and otherwise what is lost.
    pub(super) fn missing_kind(&self, kind: &InodeKind) -> Option<Loss> {
        match kind {
            InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } if !self.devices => Some(Loss::Device),
            InodeKind::Symlink(_) if !self.symlinks => Some(Loss::Symlink),
            InodeKind::Fifo if !self.fifos => Some(Loss::Fifo),
            _ => None,
        }
    }

    /// Takes from an inode what cannot be held, and counts it.
    pub(super) fn reduce(&self, path: &TreePath, inode: &mut Inode, losses: &mut Losses) {
        const SET_ID: u16 = 0o6000;
        if let Some(lost) = self.missing_kind(&inode.kind) {
            losses.count(lost, path);
            return;
        }
        if let Some((uid, groups)) = &self.only_owner {
            let before = (inode.uid, inode.gid);
            inode.uid = *uid;
            if !groups.contains(&inode.gid) {
                inode.gid = groups[0];
            }
            if before != (inode.uid, inode.gid) {
                losses.count(Loss::Owner, path);
                // With another owner they would give other rights. On a directory they give none.
                if inode.mode & SET_ID != 0 && inode.kind != InodeKind::Directory {
                    inode.mode &= !SET_ID;
                    losses.count(Loss::SetId, path);
                }
            }
        }
        let lost = |acl: &Option<Acl>| acl.as_ref().is_some_and(|acl| !self.acls || names_nobody(acl));
        if lost(&inode.acl) | lost(&inode.default_acl) {
            // The group's bits of a mode with an ACL are the ACL's mask; without it they would be the group's rights.
            if let Some(acl) = inode.acl.take() {
                inode.mode = (inode.mode & !0o070) | (rights_of_group(&acl) << 3);
            }
            inode.default_acl = None;
            losses.count(Loss::Acl, path);
        }
        self.reduce_xattrs(path, inode, losses);
        let held = InodeFlags(inode.flags.0 & self.flags.0);
        if held != inode.flags {
            inode.flags = held;
            losses.count(Loss::Flags, path);
        }
        let held = self.time(inode.mtime);
        if held != inode.mtime {
            inode.mtime = held;
            losses.count(Loss::TimePrecision, path);
        }
        if !self.modes && !matches!(inode.kind, InodeKind::Symlink(_)) {
            losses.count(Loss::Mode, path);
        }
    }

    /// A time as it can be held, which is how the kernel rounds it.
    fn time(&self, time: Timestamp) -> Timestamp {
        let (first, last) = self.time_range;
        if (time.secs <= first && first > i64::MIN) || (time.secs >= last && last < i64::MAX) {
            return Timestamp { secs: time.secs.clamp(first, last), nanos: 0 };
        }
        Timestamp { nanos: time.nanos - time.nanos % self.time_step, ..time }
    }

    fn reduce_xattrs(&self, path: &TreePath, inode: &mut Inode, losses: &mut Losses) {
        let mut lost = |what, is_lost: &dyn Fn(&[u8]) -> bool| {
            let before = inode.xattrs.len();
            inode.xattrs.retain(|name, _| !is_lost(name));
            if inode.xattrs.len() < before {
                losses.count(what, path);
            }
        };
        if !self.user_xattrs {
            lost(Loss::UserXattrs, &|name| name.starts_with(b"user."));
        }
        if !self.system_xattrs {
            lost(Loss::SystemXattrs, &|name| !name.starts_with(b"user."));
        }
    }
}

/// Whether a try succeeded; a failure that does not say "never" is a failure.
fn held(tried: io::Result<()>) -> io::Result<bool> {
    let never = [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::NOTTY, Errno::NOSYS, Errno::INVAL];
    match tried {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error().is_some_and(|code| never.iter().any(|n| n.raw_os_error() == code)) => Ok(false),
        Err(e) => Err(e),
    }
}

fn takes_owners(file: FdAttrs<'_>) -> io::Result<bool> {
    const STRANGER: u32 = 54_321;
    let taken = held(file.set_owner(STRANGER, STRANGER))?;
    let found = fsio::Stat::of_fd(file.0)?;
    Ok(taken && (found.uid, found.gid) == (STRANGER, STRANGER))
}

fn takes_modes(file: FdAttrs<'_>) -> io::Result<bool> {
    for mode in [0o741, 0o604] {
        if !held(file.set_mode(mode))? || fsio::Stat::of_fd(file.0)?.mode != mode {
            return Ok(false);
        }
    }
    Ok(true)
}

fn takes_attribute(file: FdAttrs<'_>, name: &[u8]) -> io::Result<bool> {
    Ok(held(file.set_xattr(name, b"1"))? && file.remove_xattr(name).map(|()| true)?)
}

/// Which of the flags a file or a directory takes.
fn takes_flags(file: FdAttrs<'_>, dir: FdAttrs<'_>, wanted: InodeFlags) -> io::Result<InodeFlags> {
    let mut taken = InodeFlags::default();
    let flags = (0..InodeFlags::NAMES.len()).map(|bit| InodeFlags(1 << bit));
    for flag in flags.filter(|flag| flag.0 & wanted.0 != 0) {
        for on in [file, dir] {
            if held(on.set_flags(flag))? {
                if on.flags()? == flag {
                    taken = taken.union(flag);
                }
                on.set_flags(InodeFlags::default())?;
            }
        }
    }
    Ok(taken)
}

/// Whether it gives rights to somebody whose name is not known here.
fn names_nobody(acl: &Acl) -> bool {
    acl.0.iter().any(|ace| matches!(ace.tag, AceTag::User(NOBODY_HERE) | AceTag::Group(NOBODY_HERE)))
}

fn rights_of_group(acl: &Acl) -> u16 {
    let of = |wanted: AceTag| acl.0.iter().find(|ace| ace.tag == wanted).map(|ace| u16::from(ace.perm));
    of(AceTag::GroupObj).unwrap_or(0) & of(AceTag::Mask).unwrap_or(0o7)
}

fn some_acl() -> Acl {
    let ace = |tag, perm| Ace { tag, perm };
    Acl(vec![
        ace(AceTag::UserObj, 6),
        ace(AceTag::User(1), 4),
        ace(AceTag::GroupObj, 4),
        ace(AceTag::Mask, 4),
        ace(AceTag::Other, 0),
    ])
}

fn any_time() -> (i64, i64) {
    (i64::MIN, i64::MAX)
}

/// The first and the last second that times have there: what is out of range is set to the nearest.
fn time_range(file: FdAttrs<'_>) -> io::Result<(i64, i64)> {
    const FAR: i64 = 1 << 60;
    let kept = |secs| -> io::Result<i64> {
        file.set_mtime(Timestamp { secs, nanos: 0 })?;
        Ok(fsio::Stat::of_fd(file.0)?.mtime.secs)
    };
    let (first, last) = (kept(-FAR)?, kept(FAR)?);
    let bound = |kept, asked, none| if kept == asked { none } else { kept };
    let range = (bound(first, -FAR, i64::MIN), bound(last, FAR, i64::MAX));
    // Whoever counts in a circle says nothing of its range.
    Ok(if range.0 < range.1 { range } else { any_time() })
}

/// What times are multiples of where `fine` was set and `kept` is there.
fn time_step(fine: Timestamp, kept: Timestamp) -> u32 {
    const SECOND: u32 = 1_000_000_000;
    if kept == fine {
        return 1;
    }
    let mut steps = (1..9).map(|power| 10_u32.pow(power));
    let is_step = |step: &u32| kept.secs == fine.secs && fine.nanos - fine.nanos % step == kept.nanos;
    steps.find(is_step).unwrap_or(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode() -> Inode {
        Inode {
            kind: InodeKind::Fifo,
            mode: 0o6755,
            uid: 1,
            gid: 2,
            mtime: Timestamp { secs: 5, nanos: 123_456_789 },
            links: 1,
            xattrs: [(b"user.a".to_vec(), vec![1]), (b"security.capability".to_vec(), vec![2])].into(),
            acl: Some(some_acl()),
            default_acl: None,
            flags: InodeFlags(0b11),
        }
    }

    fn everything() -> Fidelity {
        Fidelity {
            only_owner: None,
            modes: true,
            acls: true,
            user_xattrs: true,
            system_xattrs: true,
            flags: InodeFlags(u16::MAX),
            time_step: 1,
            time_range: any_time(),
            devices: true,
            symlinks: true,
            fifos: true,
        }
    }

    fn reduced(fidelity: &Fidelity) -> (Inode, Vec<Loss>) {
        let (mut inode, mut losses) = (inode(), Losses::default());
        fidelity.reduce(&TreePath::root(), &mut inode, &mut losses);
        (inode, losses.report().into_iter().map(|lost| lost.what).collect())
    }

    #[test]
    fn what_can_be_held_stays() {
        assert_eq!(reduced(&everything()), (inode(), vec![]));
    }

    #[test]
    fn each_loss_is_counted_and_nothing_else_changes() {
        let (found, lost) = reduced(&Fidelity { only_owner: Some((9, vec![8, 2])), ..everything() });
        assert_eq!((found, lost), (Inode { uid: 9, mode: 0o755, ..inode() }, vec![Loss::Owner, Loss::SetId]));
        let (found, lost) = reduced(&Fidelity { only_owner: Some((1, vec![2])), ..everything() });
        assert_eq!((found, lost), (inode(), vec![]), "its own set-id bits give nobody else's rights");
        let (found, lost) = reduced(&Fidelity { acls: false, ..everything() });
        let expected = Inode { acl: None, mode: 0o6745, ..inode() };
        assert_eq!((found, lost), (expected, vec![Loss::Acl]), "the group keeps its own rights, not the mask's");
        let (found, lost) = reduced(&Fidelity { flags: InodeFlags(0b01), ..everything() });
        assert_eq!((found, lost), (Inode { flags: InodeFlags(0b01), ..inode() }, vec![Loss::Flags]));
        let (found, lost) = reduced(&Fidelity { system_xattrs: false, ..everything() });
        assert_eq!((found.xattrs.len(), lost), (1, vec![Loss::SystemXattrs]));
        let (found, lost) = reduced(&Fidelity { time_step: 1000, ..everything() });
        assert_eq!((found.mtime.nanos, lost), (123_456_000, vec![Loss::TimePrecision]));
        assert_eq!(reduced(&Fidelity { fifos: false, ..everything() }).1, [Loss::Fifo]);
    }

    #[test]
    fn times_out_of_range_are_the_nearest() {
        let here = Fidelity { time_range: (-10, 10), time_step: 1000, ..everything() };
        let of = |secs, nanos| (here.time(Timestamp { secs, nanos }).secs, here.time(Timestamp { secs, nanos }).nanos);
        let found = [of(-11, 5), of(-10, 5), of(-9, 5001), of(9, 999_999_999), of(10, 1), of(i64::MAX, 0)];
        assert_eq!(found, [(-10, 0), (-10, 0), (-9, 5000), (9, 999_999_000), (10, 0), (10, 0)]);
        let time = Timestamp { secs: i64::MIN, nanos: 1 };
        assert_eq!(everything().time(time), time);
    }

    #[test]
    fn steps_of_time() {
        let fine = Timestamp { secs: 1, nanos: 123_456_789 };
        for (nanos, step) in [(123_456_789, 1), (123_456_700, 100), (123_456_000, 1000), (123_000_000, 1_000_000)] {
            assert_eq!(time_step(fine, Timestamp { secs: 1, nanos }), step);
        }
        assert_eq!(time_step(fine, Timestamp { secs: 0, nanos: 0 }), 1_000_000_000);
    }

    #[test]
    fn probing_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let found = Fidelity::probe(&dir).unwrap();
        assert!(found.modes && found.symlinks && found.fifos);
        assert_eq!(dir.names().unwrap(), Vec::<Vec<u8>>::new());
    }
}
