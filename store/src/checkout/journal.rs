// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The journal of a transaction: everything that a switch will do, durable before the first live name changes.
//!
//! ```text
//! magic "EKJRNL02" · CBOR · BLAKE3 of all before (32)
//! ```
//!
//! A journal needs no store to be carried out, continued or turned around: what is new lies complete in the staging
//! directory under the number of its step, what gives way goes to the same place under the same number, and inode
//! numbers tell which of the two has happened. It is local to one machine and one version; a journal of another version
//! is refused, not guessed at. One whose hash is another is damaged, and as good as lost.

mod tree;

use crate::error::{Error, Result};
use crate::format::cbor::{Reader, Writer};
use crate::format::manifest::{InodeFlags, Timestamp};
use crate::format::{DecodeError, Reason};
use crate::fsio::{self, FileType, Stat};
use crate::id::SnapshotId;
use crate::path::TreePath;

pub(super) use tree::TreeStep;

const MAGIC: &[u8; 8] = b"EKJRNL02";
const HASH_LEN: usize = 32;
const OBJECT: &str = "journal";
/// No journal has more steps or bytes than this.
const STEPS_MAX: usize = 1 << 28;
const BYTES_MAX: u64 = 1 << 36;
/// Longest attribute value, ACL or path in a journal.
const VALUE_MAX: usize = 1 << 20;

/// A whole transaction on one area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journal {
    /// Counts the transactions of an area; also the name of its record and of its undo.
    pub(super) number: u64,
    /// The snapshot before; `None` at first contact, and after going back to before it.
    pub(super) base: Option<SnapshotId>,
    /// The snapshot after; `None` when this goes back to before first contact.
    pub(super) target: Option<SnapshotId>,
    /// The transaction that this one takes back.
    pub(super) undoes: Option<u64>,
    pub(super) steps: Vec<Step>,
    pub(super) dirs: Vec<DirTime>,
}

/// What happens to one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) path: TreePath,
    /// Number that is the name in the staging directory.
    pub(super) slot: usize,
    pub(super) op: Op,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// The staged inode takes a name that nobody has.
    Add { new: New },
    /// The staged inode takes the name; what had it goes to the slot.
    Replace { new: New, was: Was, keep_aside: bool },
    /// What has the name goes to the slot.
    Remove { was: Was },
    /// The inode stays, its metadata changes.
    Metadata { was: Was, before: Meta, after: Meta },
    /// The whole tree is another; then it is the only step.
    Tree(Box<TreeStep>),
}

/// A staged inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct New {
    pub(super) ino: u64,
    /// When it was made, where the file system says so.
    pub(super) born: Option<Timestamp>,
    /// A directory's, which some file systems change when it moves.
    pub(super) mtime: Timestamp,
    /// Mode and flags that it gets once it has its name, because they forbid the step.
    pub(super) late: Option<(u16, InodeFlags)>,
}

impl New {
    /// Whether `now` is that inode, and not a later one with its number.
    pub(super) fn is(&self, now: &Stat) -> bool {
        (self.ino, self.born) == (now.ino, now.born)
    }
}

/// A live inode as the plan saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Was {
    pub(super) ino: u64,
    pub(super) file_type: FileType,
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) nlink: u32,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    /// It stays where it is by another name.
    pub(super) stays: bool,
    /// Its capabilities, which it loses when it gives way.
    pub(super) caps: Option<Vec<u8>>,
    /// What a directory holds that goes with it.
    pub(super) within: Vec<(TreePath, Was)>,
}

impl Was {
    pub(super) fn of(stat: &Stat) -> Was {
        Was {
            ino: stat.ino,
            file_type: stat.file_type,
            mode: stat.mode,
            size: stat.size,
            nlink: stat.nlink,
            mtime: stat.mtime,
            ctime: stat.ctime,
            stays: false,
            caps: None,
            within: Vec::new(),
        }
    }

    /// Whether `now` is that inode, unchanged. A directory's content is judged by what happens in it.
    pub(super) fn is_still(&self, now: &Stat) -> bool {
        // A hard-linked inode's ctime moves when another name of it is replaced or linked.
        let same_time = self.nlink > 1 || now.ctime == self.ctime || now.nlink != self.nlink;
        self.is(now) && (now.is_dir() || same_time)
    }

    /// Whether `now` is that inode with that content; its change time may have moved with its name.
    pub(super) fn is(&self, now: &Stat) -> bool {
        (now.ino, now.file_type) == (self.ino, self.file_type)
            && (now.is_dir() || (now.size, now.mtime) == (self.size, self.mtime))
    }

    /// Whether it gives rights that nobody may keep through another name or descriptor once it gave way.
    pub(super) fn gives_rights(&self) -> bool {
        const SET_ID: u16 = 0o6000;
        !self.stays && self.file_type == FileType::File && (self.mode & SET_ID != 0 || self.caps.is_some())
    }
}

/// Metadata of a file or directory that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    pub(super) flags: InodeFlags,
    /// As the kernel has them, ACLs included.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A directory whose time changes with its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DirTime {
    pub(super) path: TreePath,
    pub(super) before: Timestamp,
    pub(super) after: Timestamp,
}

impl Journal {
    /// Its bytes, the hash at the end included.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let w = &mut Writer::new(&mut out);
        w.array(6).uint(self.number);
        snapshot(w, self.base);
        snapshot(w, self.target);
        w.uint(self.undoes.unwrap_or(0));
        w.array(self.steps.len());
        for step in &self.steps {
            step.write(w);
        }
        w.array(self.dirs.len());
        for dir in &self.dirs {
            w.array(3).bytes(dir.path.as_bytes());
            time(w, dir.before);
            time(w, dir.after);
        }
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// The one step of a tree switch.
    pub(super) fn tree(&self) -> Option<&TreeStep> {
        match self.steps.first().map(|step| &step.op) {
            Some(Op::Tree(tree)) => Some(tree),
            _ => None,
        }
    }

    /// How many names it changes.
    pub(super) fn names(&self) -> usize {
        self.tree().map_or(self.steps.len(), |tree| tree.changes.len())
    }

    /// Bytes of the files that give way.
    pub(super) fn displaced_bytes(&self) -> u64 {
        let of = |was: &Was| -> u64 {
            let within = was.within.iter().map(|(_, was)| was.size);
            if was.file_type == FileType::Directory { within.sum() } else { was.size }
        };
        let gone = self.steps.iter().map(|step| match &step.op {
            Op::Replace { was, .. } | Op::Remove { was } => of(was),
            Op::Tree(tree) => tree.bytes,
            Op::Add { .. } | Op::Metadata { .. } => 0,
        });
        gone.fold(0, u64::saturating_add)
    }

    /// Reads a journal's bytes.
    ///
    /// # Errors
    /// [`Error::Refused`] for bytes that no complete journal of this version has.
    pub(super) fn decode(bytes: &[u8], path: &std::path::Path) -> Result<Journal> {
        let refuse = |why: String| Error::Refused {
            reason: format!("{} cannot be understood: {why}", path.display()),
            hint: Some("it was damaged, or written by another version; nothing was changed".into()),
        };
        let body = bytes.len().checked_sub(HASH_LEN).filter(|at| *at >= MAGIC.len());
        let (body, hash) = bytes.split_at(body.ok_or_else(|| refuse("it is too short".into()))?);
        if &body[..MAGIC.len()] != MAGIC {
            return Err(refuse("it is no journal of this version".into()));
        }
        if blake3::hash(body).as_bytes()[..] != *hash {
            return Err(refuse("its hash is another".into()));
        }
        Journal::read(&body[MAGIC.len()..]).map_err(|e| refuse(e.to_string()))
    }

    fn read(bytes: &[u8]) -> Result<Journal, DecodeError> {
        let r = &mut Reader::new(OBJECT, bytes);
        r.tuple("journal", 6)?;
        let number = r.uint("number")?;
        let (base, target) = (read_snapshot(r)?, read_snapshot(r)?);
        let undoes = Some(r.uint("undoes")?).filter(|number| *number > 0);
        let start = r.offset();
        let steps = (0..r.array_len("steps", STEPS_MAX)?).map(|_| Step::read(r)).collect::<Result<Vec<_>, _>>()?;
        if steps.len() > 1 && steps.iter().any(|step| matches!(step.op, Op::Tree(_))) {
            return Err(r.error(start, "steps", Reason::Rule("a tree switch is the only step")));
        }
        let dirs = (0..r.array_len("directories", STEPS_MAX)?).map(|_| DirTime::read(r)).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Journal { number, base, target, undoes, steps, dirs })
    }

    /// Whether there is something at `path` whose hash is not its own.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn is_damaged(path: &std::path::Path) -> Result<bool> {
        Ok(fsio::exists(path)? && !is_whole(&fsio::read_capped(path, BYTES_MAX)?))
    }

    /// Reads the journal at `path`; `None` when there is none.
    ///
    /// # Errors
    /// As [`Journal::decode`], and [`Error::Io`].
    pub(super) fn load(path: &std::path::Path) -> Result<Option<Journal>> {
        if !fsio::exists(path)? {
            return Ok(None);
        }
        Journal::decode(&fsio::read_capped(path, BYTES_MAX)?, path).map(Some)
    }
}

/// Whether the hash at the end is that of what is before it, as in a journal of any version.
fn is_whole(bytes: &[u8]) -> bool {
    let body = bytes.len().checked_sub(HASH_LEN).filter(|at| *at >= MAGIC.len());
    body.is_some_and(|at| blake3::hash(&bytes[..at]).as_bytes()[..] == bytes[at..])
}

mod op {
    pub(super) const ADD: u64 = 0;
    pub(super) const REPLACE: u64 = 1;
    pub(super) const REPLACE_ASIDE: u64 = 2;
    pub(super) const REMOVE: u64 = 3;
    pub(super) const METADATA: u64 = 4;
    pub(super) const TREE: u64 = 5;
}

impl Step {
    fn write(&self, w: &mut Writer<'_>) {
        w.array(4).bytes(self.path.as_bytes()).uint(self.slot as u64);
        match &self.op {
            Op::Add { new } => {
                w.uint(op::ADD).array(1);
                new.write(w);
            }
            Op::Replace { new, was, keep_aside } => {
                w.uint(if *keep_aside { op::REPLACE_ASIDE } else { op::REPLACE }).array(2);
                new.write(w);
                was.write(w);
            }
            Op::Remove { was } => {
                w.uint(op::REMOVE).array(1);
                was.write(w);
            }
            Op::Metadata { was, before, after } => {
                w.uint(op::METADATA).array(3);
                was.write(w);
                before.write(w);
                after.write(w);
            }
            Op::Tree(tree) => {
                w.uint(op::TREE);
                tree.write(w);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Step, DecodeError> {
        r.tuple("step", 4)?;
        let path = read_path(r)?;
        let slot = r.small("slot", 0, u64::MAX)?;
        let op = match r.uint_in("operation", op::ADD, op::TREE)? {
            op::ADD => {
                r.tuple("add", 1)?;
                Op::Add { new: New::read(r)? }
            }
            op::REMOVE => {
                r.tuple("remove", 1)?;
                Op::Remove { was: Was::read(r)? }
            }
            op::METADATA => {
                r.tuple("metadata", 3)?;
                Op::Metadata { was: Was::read(r)?, before: Meta::read(r)?, after: Meta::read(r)? }
            }
            op::TREE => Op::Tree(Box::new(TreeStep::read(r)?)),
            replace => {
                r.tuple("replace", 2)?;
                Op::Replace { new: New::read(r)?, was: Was::read(r)?, keep_aside: replace == op::REPLACE_ASIDE }
            }
        };
        Ok(Step { path, slot, op })
    }
}

impl New {
    fn write(&self, w: &mut Writer<'_>) {
        w.array(if self.late.is_some() { 5 } else { 3 }).uint(self.ino);
        w.array(usize::from(self.born.is_some()));
        if let Some(born) = self.born {
            time(w, born);
        }
        time(w, self.mtime);
        if let Some((mode, flags)) = self.late {
            w.uint(mode).uint(flags.0);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<New, DecodeError> {
        let fields = r.array_len("new", 5)?;
        let ino = r.uint("inode")?;
        let born = match r.array_len("born", 1)? {
            0 => None,
            _ => Some(read_time(r)?),
        };
        let mtime = read_time(r)?;
        let late = match fields {
            3 => None,
            _ => Some((r.small("mode", 0, 0o7777)?, InodeFlags(r.small("flags", 0, u16::MAX.into())?))),
        };
        Ok(New { ino, born, mtime, late })
    }
}

const TYPES: [FileType; 7] = [
    FileType::File,
    FileType::Directory,
    FileType::Symlink,
    FileType::Fifo,
    FileType::CharDevice,
    FileType::BlockDevice,
    FileType::Socket,
];

impl Was {
    fn write(&self, w: &mut Writer<'_>) {
        let kind = TYPES.iter().position(|kind| *kind == self.file_type).unwrap_or_default() as u64;
        w.array(10).uint(self.ino).uint(kind).uint(self.mode).uint(self.size).uint(self.nlink);
        time(w, self.mtime);
        time(w, self.ctime);
        w.bool(self.stays).bytes(self.caps.as_deref().unwrap_or_default()).array(self.within.len());
        for (path, was) in &self.within {
            w.array(2).bytes(path.as_bytes());
            was.write(w);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Was, DecodeError> {
        r.tuple("was", 10)?;
        let ino = r.uint("inode")?;
        let file_type = TYPES[r.small::<usize>("type", 0, TYPES.len() as u64 - 1)?];
        let (mode, size) = (r.small("mode", 0, 0o7777)?, r.uint("size")?);
        let nlink = r.small("links", 0, u32::MAX.into())?;
        let (mtime, ctime) = (read_time(r)?, read_time(r)?);
        let stays = r.bool("stays")?;
        let caps = Some(r.bytes("capabilities", VALUE_MAX)?.to_vec()).filter(|caps| !caps.is_empty());
        let mut within = Vec::new();
        for _ in 0..r.array_len("within", STEPS_MAX)? {
            r.tuple("within", 2)?;
            let path = read_path(r)?;
            let start = r.offset();
            let was = Was::read(r)?;
            if !was.within.is_empty() {
                return Err(r.error(start, "within", Reason::Rule("lists do not nest")));
            }
            within.push((path, was));
        }
        Ok(Was { ino, file_type, mode, size, nlink, mtime, ctime, stays, caps, within })
    }
}

impl Meta {
    fn write(&self, w: &mut Writer<'_>) {
        w.array(6).uint(self.mode).uint(self.uid).uint(self.gid);
        time(w, self.mtime);
        w.uint(self.flags.0).array(self.xattrs.len());
        for (name, value) in &self.xattrs {
            w.array(2).bytes(name).bytes(value);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Meta, DecodeError> {
        r.tuple("metadata", 6)?;
        let mode = r.small("mode", 0, 0o7777)?;
        let (uid, gid) = (r.small("user", 0, u32::MAX.into())?, r.small("group", 0, u32::MAX.into())?);
        let mtime = read_time(r)?;
        let flags = InodeFlags(r.small("flags", 0, u16::MAX.into())?);
        let mut xattrs = Vec::new();
        for _ in 0..r.array_len("attributes", VALUE_MAX)? {
            r.tuple("attribute", 2)?;
            xattrs.push((r.bytes("name", VALUE_MAX)?.to_vec(), r.bytes("value", VALUE_MAX)?.to_vec()));
        }
        Ok(Meta { mode, uid, gid, mtime, flags, xattrs })
    }
}

impl DirTime {
    fn read(r: &mut Reader<'_>) -> Result<DirTime, DecodeError> {
        r.tuple("directory", 3)?;
        Ok(DirTime { path: read_path(r)?, before: read_time(r)?, after: read_time(r)? })
    }
}

fn snapshot(w: &mut Writer<'_>, id: Option<SnapshotId>) {
    w.bytes(id.as_ref().map_or(&[][..], |id| id.as_bytes()));
}

fn read_snapshot(r: &mut Reader<'_>) -> Result<Option<SnapshotId>, DecodeError> {
    let start = r.offset();
    match r.bytes("snapshot", HASH_LEN)? {
        [] => Ok(None),
        bytes => match bytes.try_into() {
            Ok(bytes) => Ok(Some(SnapshotId(bytes))),
            Err(_) => Err(r.error(start, "snapshot", Reason::Rule("an id has 32 bytes"))),
        },
    }
}

fn time(w: &mut Writer<'_>, time: Timestamp) {
    w.array(2).int(time.secs).uint(time.nanos);
}

fn read_time(r: &mut Reader<'_>) -> Result<Timestamp, DecodeError> {
    r.tuple("time", 2)?;
    Ok(Timestamp { secs: r.int("seconds")?, nanos: r.small("nanoseconds", 0, 999_999_999)? })
}

fn read_path(r: &mut Reader<'_>) -> Result<TreePath, DecodeError> {
    let start = r.offset();
    let bytes = r.bytes("path", VALUE_MAX)?;
    TreePath::new(bytes).map_err(|_| r.error(start, "path", Reason::Rule("not a path below the root")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::report::ChangeKind;

    fn was(ino: u64) -> Was {
        Was {
            ino,
            file_type: FileType::File,
            mode: 0o4755,
            size: 7,
            nlink: 2,
            mtime: Timestamp { secs: -5, nanos: 999_999_999 },
            ctime: Timestamp { secs: 9, nanos: 0 },
            stays: true,
            caps: Some(vec![1, 2]),
            within: Vec::new(),
        }
    }

    fn journal() -> Journal {
        let path = |text: &str| TreePath::new(text).unwrap();
        let meta = Meta {
            mode: 0o640,
            uid: 1,
            gid: u32::MAX,
            mtime: Timestamp { secs: 1, nanos: 2 },
            flags: InodeFlags(3),
            xattrs: vec![(b"user.a".to_vec(), vec![0, 255])],
        };
        let dir = Was { file_type: FileType::Directory, within: vec![(path("d/x"), was(8))], ..was(7) };
        let born = |late: &Option<_>| late.as_ref().map(|_| Timestamp { secs: -7, nanos: 1 });
        let new = |late| New { ino: u64::MAX, born: born(&late), mtime: Timestamp { secs: 7, nanos: 8 }, late };
        let ops = [
            Op::Add { new: new(None) },
            Op::Replace { new: new(Some((0o555, InodeFlags(1)))), was: was(1), keep_aside: true },
            Op::Replace { new: new(None), was: dir.clone(), keep_aside: false },
            Op::Remove { was: dir },
            Op::Metadata { was: was(2), before: meta.clone(), after: Meta { mode: 0, ..meta } },
        ];
        let steps = ops.into_iter().zip(0..).map(|(op, slot)| Step { path: path(&format!("p{slot}")), slot, op });
        let (before, after) = (Timestamp { secs: 1, nanos: 1 }, Timestamp { secs: 2, nanos: 2 });
        Journal {
            number: 12,
            base: None,
            target: Some(SnapshotId([3; 32])),
            undoes: Some(11),
            steps: steps.collect(),
            dirs: vec![DirTime { path: TreePath::root(), before, after }],
        }
    }

    fn of_a_tree() -> Journal {
        let change = |path: &str, kind| (TreePath::new(path).unwrap(), kind);
        let tree = TreeStep {
            new: New { ino: 7, born: None, mtime: Timestamp { secs: 1, nanos: 2 }, late: None },
            was: Was { file_type: FileType::Directory, within: vec![(TreePath::new("su").unwrap(), was(9))], ..was(8) },
            private: 10,
            bytes: u64::MAX,
            changes: vec![change("a", ChangeKind::Add), change("b", ChangeKind::Remove)],
        };
        let step = Step { path: TreePath::root(), slot: 0, op: Op::Tree(Box::new(tree)) };
        Journal { steps: vec![step], ..journal() }
    }

    #[test]
    fn round_trip() {
        let path = std::path::Path::new("journal");
        assert_eq!(Journal::decode(&journal().encode(), path).unwrap(), journal());
        assert_eq!(Journal::decode(&of_a_tree().encode(), path).unwrap(), of_a_tree());
        assert!(journal().tree().is_none() && of_a_tree().tree().is_some());
        let both = Journal { steps: [journal().steps, of_a_tree().steps].concat(), ..journal() };
        assert!(Journal::decode(&both.encode(), path).is_err());
    }

    #[test]
    fn no_broken_journal_is_believed() {
        let path = std::path::Path::new("the journal");
        for journal in [journal(), of_a_tree()] {
            no_broken_one_is_believed(&journal.encode(), path);
        }
    }

    fn no_broken_one_is_believed(bytes: &[u8], path: &std::path::Path) {
        for len in 0..bytes.len() {
            assert!(Journal::decode(&bytes[..len], path).is_err() && !is_whole(&bytes[..len]), "{len} bytes");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x10;
            let refused = Journal::decode(&bad, path).unwrap_err();
            assert!(refused.to_string().contains("the journal cannot be understood"), "{refused}");
            assert!(!is_whole(&bad), "byte {at}");
        }
        assert!(is_whole(bytes));
    }
}
