// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A plan as a thing: saved, read by people, approved by its hash, and carried out only if it still fits.
//!
//! JSON Lines (schema `evenkeel/plan/1`, `docs/reference/schemas/plan.json`): a header with what was asked, then for each
//! area a line about it, a line for each change and a line for each kept difference, and at the end the hash of all lines
//! before. The same areas in the same state give the same lines, so a plan fits if it is made again and every change is
//! the same: path, action, what comes, and what the plan saw there, by inode, size and times. What is only kept may have
//! become more or less meanwhile; nothing happens to it.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::options::{Adopt, CheckoutOptions, Mode};
use super::plan::{Action, Change, CheckoutPlan, Wanted};
use super::report::ChangeKind;
use crate::error::{Error, Result};
use crate::format::manifest::{Inode, InodeKind};
use crate::fsio::{self, FileType, Stat};
use crate::id::{SnapshotId, encode_hex};
use crate::json::{self, PathField};
use crate::path::escape;

const SCHEMA: &str = "evenkeel/plan/1";
/// Longest plan that is read, in bytes: some three million changes.
const BYTES_MAX: u64 = 1 << 30;

/// A saved plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedPlan {
    bytes: Vec<u8>,
    header: Header,
    hash: String,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    schema: String,
    snapshot: String,
    mode: Option<Mode>,
    adopt: Option<Adopt>,
    areas: Vec<AreaPlace>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AreaPlace {
    name: String,
    #[serde(flatten)]
    root: PathField,
}

#[derive(Serialize, Deserialize)]
struct End {
    end: bool,
    blake3: String,
}

/// One area's part of a plan, for [`SavedPlan::new`].
pub(super) struct PlannedArea<'a> {
    pub(super) name: &'a str,
    pub(super) mode: Mode,
    pub(super) before: Option<SnapshotId>,
    pub(super) plan: &'a CheckoutPlan,
}

#[derive(Serialize)]
struct AreaLine<'a> {
    area: &'a str,
    mode: Mode,
    before: Option<String>,
    changes: usize,
    kept: usize,
    bytes_to_write: u64,
}

#[derive(Serialize)]
struct ChangeLine<'a> {
    #[serde(flatten)]
    path: PathField,
    action: &'static str,
    reason: &'static str,
    differs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<Was>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comes: Option<Comes<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    kept_aside: bool,
}

#[derive(Serialize)]
struct KeptLine {
    #[serde(flatten)]
    path: PathField,
    kept: &'static str,
    differs: Vec<&'static str>,
}

/// What the plan saw at a path.
#[derive(Serialize)]
struct Was {
    r#type: &'static str,
    inode: u64,
    mode: String,
    uid: u32,
    gid: u32,
    /// Of a directory, only the above: it changes whenever somebody works in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<WasContent>,
}

#[derive(Serialize)]
struct WasContent {
    size: u64,
    mtime: String,
    ctime: String,
}

/// What comes to a path.
#[derive(Serialize)]
#[serde(untagged)]
enum Comes<'a> {
    Link {
        link_to: PathField,
    },
    Inode {
        r#type: &'static str,
        mode: String,
        uid: u32,
        gid: u32,
        mtime: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        blake3: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<PathField>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        xattrs: Vec<std::borrow::Cow<'a, str>>,
    },
}

impl SavedPlan {
    /// The plan that `options` lead to now.
    pub(super) fn new(options: &CheckoutOptions, areas: &[PlannedArea<'_>]) -> SavedPlan {
        let place = |area: &super::options::AreaTarget| {
            use std::os::unix::ffi::OsStrExt;
            let root = std::path::absolute(&area.root).unwrap_or_else(|_| area.root.clone());
            AreaPlace { name: area.name.clone(), root: PathField::new(root.as_os_str().as_bytes()) }
        };
        let header = Header {
            schema: SCHEMA.into(),
            snapshot: options.snapshot.to_hex(),
            mode: options.mode,
            adopt: options.adopt,
            areas: options.areas.iter().map(place).collect(),
        };
        let mut bytes = Vec::new();
        push(&mut bytes, &header);
        for area in areas {
            push_area(&mut bytes, area);
        }
        let hash = blake3::hash(&bytes).to_hex().to_string();
        push(&mut bytes, &End { end: true, blake3: hash.clone() });
        SavedPlan { bytes, header, hash }
    }

    /// Reads a saved plan.
    ///
    /// # Errors
    /// [`Error::Refused`] for what is none, was changed or cut off, or is of a newer version; [`Error::Io`].
    pub fn load(path: &Path) -> Result<SavedPlan> {
        Self::decode(fsio::read_capped(path, BYTES_MAX)?).map_err(|why| Error::Refused {
            reason: format!("{} {why}", path.display()),
            hint: Some("make a new one with --save-plan".into()),
        })
    }

    fn decode(bytes: Vec<u8>) -> std::result::Result<SavedPlan, &'static str> {
        #[derive(Deserialize)]
        struct Any {
            schema: String,
        }
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let any: Any = serde_json::from_slice(first).map_err(|_| "is no saved plan")?;
        if any.schema != SCHEMA {
            return Err(if any.schema.starts_with("evenkeel/plan/") {
                "was saved by a newer version"
            } else {
                "is no saved plan"
            });
        }
        let header: Header = serde_json::from_slice(first).map_err(|_| "is damaged")?;
        let last = bytes.strip_suffix(b"\n").and_then(|rest| rest.iter().rposition(|byte| *byte == b'\n'));
        let at = last.ok_or("is cut off")? + 1;
        let end: End = serde_json::from_slice(&bytes[at..]).map_err(|_| "is cut off")?;
        let hash = blake3::hash(&bytes[..at]).to_hex().to_string();
        if end.blake3 != hash {
            return Err("was changed after it was saved");
        }
        Ok(SavedPlan { bytes, header, hash })
    }

    /// The whole document.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What stands for it: BLAKE3 of all lines but the last, in hex digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The snapshot that it leads to; `None` if that is no snapshot's id.
    pub fn snapshot(&self) -> Option<SnapshotId> {
        self.header.snapshot.parse().ok()
    }

    /// The mode that was asked for.
    pub fn mode(&self) -> Option<Mode> {
        self.header.mode
    }

    /// What was said about a first checkout onto a tree that is not empty.
    pub fn adopt(&self) -> Option<Adopt> {
        self.header.adopt
    }

    /// Names and roots of its areas.
    pub fn areas(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;
        let path = |root: &PathField| PathBuf::from(OsString::from_vec(root.bytes().unwrap_or_default()));
        self.header.areas.iter().map(move |area| (area.name.as_str(), path(&area.root)))
    }

    /// The lines that say what happens: all but the header, the end, and what is kept. A root at first contact is left
    /// out: it may be made only when the plan is carried out.
    fn changes(&self) -> impl Iterator<Item = &[u8]> {
        let mut at_first_contact = false;
        let lines = self.bytes.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
        lines.filter(move |bytes| {
            let line = Line::of(bytes);
            if line.area.is_some() {
                at_first_contact = line.before.is_none();
            }
            line.is_change() && !(at_first_contact && line.is_root())
        })
    }

    /// Whether `now`, the plan made again, does the same.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the first path that is different.
    pub(super) fn require_fit(&self, now: &SavedPlan) -> Result<()> {
        let refused = |reason: String| Error::Refused {
            reason: format!("the plan does not fit any more: {reason}"),
            hint: Some("nothing was changed; look at a new one: --dry-run or --save-plan".into()),
        };
        if (&self.header.snapshot, &self.header.areas) != (&now.header.snapshot, &now.header.areas) {
            return Err(refused("it is for another snapshot or other areas".into()));
        }
        match self.first_difference(now) {
            None => Ok(()),
            Some(what) => Err(refused(what)),
        }
    }

    fn first_difference(&self, now: &SavedPlan) -> Option<String> {
        let (mut then, mut now) = (self.changes().peekable(), now.changes().peekable());
        let mut area = String::new();
        loop {
            let (old, new) = match (then.peek(), now.peek()) {
                (None, None) => return None,
                (old, new) => (old.map(|line| Line::of(line)), new.map(|line| Line::of(line))),
            };
            let named = |line: &Line| format!("{area}:{}", line.shown());
            match order(old.as_ref(), new.as_ref()) {
                Ordering::Less => return old.map(|line| format!("{} needs no change now", named(&line))),
                Ordering::Greater => return new.map(|line| format!("{} would be changed as well", named(&line))),
                Ordering::Equal => {}
            }
            if let Some(name) = old.as_ref().and_then(|line| line.area.clone()) {
                area = name;
                if let Some(what) = old.as_ref().zip(new.as_ref()).and_then(|(old, new)| old.other_state(new)) {
                    return Some(format!("area `{area}` {what}"));
                }
            } else if then.peek() != now.peek() {
                return old.map(|line| format!("{} changed since", named(&line)));
            }
            then.next();
            now.next();
        }
    }
}

/// What is read of a line to compare it. A line that cannot be read is an empty one, which fits none.
#[derive(Default, Deserialize)]
struct Line {
    area: Option<String>,
    mode: Option<String>,
    before: Option<String>,
    #[serde(flatten)]
    path: Option<PathField>,
    action: Option<String>,
}

impl Line {
    fn of(bytes: &[u8]) -> Line {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// In what the area of this line was not as it is now.
    fn other_state(&self, now: &Line) -> Option<String> {
        let at = |before: &Option<String>| match before {
            Some(id) => format!("at {}", id.get(..12).unwrap_or(id)),
            None => "never checked out".into(),
        };
        let mode = |line: &Line| line.mode.clone().unwrap_or_default();
        if self.area != now.area {
            return Some("is not in it now".into());
        }
        if self.before != now.before {
            return Some(format!("is {} now, and was {}", at(&now.before), at(&self.before)));
        }
        (self.mode != now.mode).then(|| format!("would be checked out in mode {} now, not {}", mode(now), mode(self)))
    }

    fn is_change(&self) -> bool {
        self.area.is_some() || self.action.is_some()
    }

    fn is_root(&self) -> bool {
        self.area.is_none() && self.key().is_empty()
    }

    fn key(&self) -> Vec<u8> {
        self.path.as_ref().and_then(PathField::bytes).unwrap_or_default()
    }

    fn shown(&self) -> String {
        match self.key() {
            root if root.is_empty() => ".".into(),
            path => escape(&path),
        }
    }
}

/// Which of two lines comes first: an area's begins the next area, and so comes after every path.
fn order(old: Option<&Line>, new: Option<&Line>) -> Ordering {
    let rank = |line: Option<&Line>| match line {
        None => (2, crate::path::TreePath::root()),
        Some(line) if line.area.is_some() => (1, crate::path::TreePath::root()),
        Some(line) => (0, crate::path::TreePath::new(line.key()).unwrap_or_default()),
    };
    rank(old).cmp(&rank(new))
}

fn push(bytes: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, line).expect("memory takes everything, and every key is text");
    bytes.push(b'\n');
}

fn push_area(bytes: &mut Vec<u8>, area: &PlannedArea<'_>) {
    let line = AreaLine {
        area: area.name,
        mode: area.mode,
        before: area.before.map(|id| id.to_hex()),
        changes: area.plan.actions.len(),
        kept: area.plan.kept.len(),
        bytes_to_write: area.plan.counts.bytes_to_write,
    };
    push(bytes, &line);
    for action in &area.plan.actions {
        push(bytes, &change_line(action));
    }
    for kept in &area.plan.kept {
        let path = PathField::new(kept.path.as_bytes());
        push(
            bytes,
            &KeptLine { path, kept: kept.because.name(), differs: kept.because.difference().names().collect() },
        );
    }
}

fn change_line(action: &Action) -> ChangeLine<'_> {
    let (was, comes, kept_aside) = match &action.change {
        Change::Add { wanted, .. } => (None, Some(comes(wanted)), false),
        Change::Replace { wanted, was, keep_aside } => (Some(seen(was)), Some(comes(wanted)), *keep_aside),
        Change::Metadata { inode, was } => (Some(seen(was)), Some(inode_comes(inode)), false),
        Change::Remove { was, .. } => (Some(seen(was)), None, false),
    };
    ChangeLine {
        path: PathField::new(action.path.as_bytes()),
        action: ChangeKind::of(&action.change).name(),
        reason: action.reason.name(),
        differs: action.reason.difference().names().collect(),
        was,
        comes,
        kept_aside,
    }
}

fn mode(mode: u16) -> String {
    format!("{mode:04o}")
}

fn seen(stat: &Stat) -> Was {
    let content = WasContent { size: stat.size, mtime: json::time(stat.mtime), ctime: json::time(stat.ctime) };
    Was {
        r#type: stat.file_type.name(),
        inode: stat.ino,
        mode: mode(stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        content: (stat.file_type != FileType::Directory).then_some(content),
    }
}

fn comes(wanted: &Wanted) -> Comes<'_> {
    match wanted {
        Wanted::Inode(inode) | Wanted::Copy(inode) => inode_comes(inode),
        Wanted::Link { leader, .. } => Comes::Link { link_to: PathField::new(leader.as_bytes()) },
    }
}

fn inode_comes(inode: &Inode) -> Comes<'_> {
    let (size, blake3, target) = match &inode.kind {
        InodeKind::File(content) => (Some(content.size), Some(encode_hex(&content.hash.0)), None),
        InodeKind::Symlink(target) => (None, None, Some(PathField::new(target))),
        _ => (None, None, None),
    };
    Comes::Inode {
        r#type: super::compare::file_type(&inode.kind).name(),
        mode: mode(inode.mode),
        uid: inode.uid,
        gid: inode.gid,
        mtime: json::time(inode.mtime),
        size,
        blake3,
        target,
        xattrs: inode.xattrs.keys().map(|name| String::from_utf8_lossy(name)).collect(),
    }
}
