// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Faults and neighbours on purpose: what a test does at a system call of this process.
//!
//! A [`Script`] is asked before every call that acts at or below a directory, from whichever thread; it may do something
//! there of its own, let the call pass, let it move fewer bytes, or fail it. Several may be in force at a time, each below a directory of its own,
//! so tests do not disturb each other. A script is not asked about calls that happen while it decides.

use std::cell::Cell;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::CWD;
use rustix::io::Errno;

use super::sys::On;

/// A call that is about to be made.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its number, from 1.
    pub number: u64,
    /// What it is called.
    pub name: &'static str,
    /// What it acts on, and for a rename or link also the other name.
    pub paths: Vec<PathBuf>,
}

/// What becomes of a call: it is made, or fails with the number of an error.
pub type Verdict = std::result::Result<(), i32>;

/// How many of the bytes that a call is to move it may move, or the number of an error.
type Decide = dyn Fn(&Call, usize) -> std::result::Result<usize, i32> + Send + Sync;

struct Entry {
    below: PathBuf,
    decide: Box<Decide>,
    calls: AtomicU64,
}

static SCRIPTS: RwLock<Vec<Arc<Entry>>> = RwLock::new(Vec::new());

thread_local! {
    static DECIDING: Cell<bool> = const { Cell::new(false) };
}

/// A script in force until it is dropped.
pub struct Script(Arc<Entry>);

impl Script {
    /// Asks `decide` before every call at or below `below`, which is an absolute path without symlinks.
    pub fn new(below: &Path, decide: impl Fn(&Call) -> Verdict + Send + Sync + 'static) -> Script {
        Self::with(below, Box::new(move |call, len| decide(call).map(|()| len)))
    }

    /// Lets each call at or below `below` that moves bytes move no more of them than `most` says, but at least one.
    pub fn short(below: &Path, most: impl Fn(&Call) -> usize + Send + Sync + 'static) -> Script {
        Self::with(below, Box::new(move |call, len| Ok(most(call).max(1).min(len))))
    }

    fn with(below: &Path, decide: Box<Decide>) -> Script {
        let entry = Arc::new(Entry { below: below.into(), decide, calls: AtomicU64::new(0) });
        SCRIPTS.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&entry));
        Script(entry)
    }

    /// The calls so far.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        SCRIPTS.write().unwrap_or_else(PoisonError::into_inner).retain(|entry| !Arc::ptr_eq(entry, &self.0));
    }
}

/// Asks the script that is in force where a call acts, which is to move `len` bytes. Gives how many it may move.
pub(super) fn before(name: &'static str, on: On<'_>, mut len: usize) -> rustix::io::Result<usize> {
    if DECIDING.get() {
        return Ok(len);
    }
    let scripts: Vec<Arc<Entry>> = SCRIPTS.read().unwrap_or_else(PoisonError::into_inner).clone();
    if scripts.is_empty() {
        return Ok(len);
    }
    let paths = paths(on);
    for script in scripts {
        if paths.iter().any(|path| path.starts_with(&script.below)) {
            let number = script.calls.fetch_add(1, Ordering::Relaxed) + 1;
            DECIDING.set(true);
            let verdict = (script.decide)(&Call { number, name, paths: paths.clone() }, len);
            DECIDING.set(false);
            len = verdict.map_err(Errno::from_raw_os_error)?;
        }
    }
    Ok(len)
}

fn paths(on: On<'_>) -> Vec<PathBuf> {
    match on {
        On::Fd(fd) => vec![of_fd(fd)],
        On::Name(dir, name) => vec![of_name(dir, name)],
        On::Names(names) => names.map(|(dir, name)| of_name(dir, name)).into(),
        On::Path(path) => vec![path.into()],
    }
}

fn of_name(dir: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    let name = Path::new(OsStr::from_bytes(name.to_bytes()));
    if let Ok(inside) = name.strip_prefix("/proc/self/fd") {
        // The magic link that stands for a descriptor, and perhaps a name in it.
        let mut parts = inside.components();
        let link = parts.next().map(|fd| Path::new("/proc/self/fd").join(fd)).unwrap_or_default();
        let target = read_link(&link);
        return if parts.as_path().as_os_str().is_empty() { target } else { target.join(parts.as_path()) };
    }
    if name.is_absolute() {
        return name.into();
    }
    let dir = if dir.as_raw_fd() == CWD.as_raw_fd() { read_link(Path::new("/proc/self/cwd")) } else { of_fd(dir) };
    if matches!(name.as_os_str().as_bytes(), b"" | b".") { dir } else { dir.join(name) }
}

fn of_fd(fd: BorrowedFd<'_>) -> PathBuf {
    read_link(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())))
}

/// Where a magic link leads; nowhere if that cannot be told.
fn read_link(link: &Path) -> PathBuf {
    let target = rustix::fs::readlinkat(CWD, link, Vec::new()).map(std::ffi::CString::into_bytes).unwrap_or_default();
    PathBuf::from(OsStr::from_bytes(&target))
}
