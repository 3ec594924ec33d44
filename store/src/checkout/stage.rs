// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything new is made, complete, in the area's private staging directory; nothing live changes.
//!
//! A directory that is wholly new becomes a tree in staging that the switch moves with one rename. An action's staged
//! form is named by its index in the plan, so plan and staging directory together say everything.
//!
//! One thread goes through the plan and makes directories; workers make files, in plan order, which is close to the
//! order of their chunks in packs. A directory gets its own metadata from whoever is last to need it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::apply::{self, Fresh};
use super::chain::{DirChain, is_other_now};
use super::plan::{Action, Change, CheckoutPlan, Wanted};
use crate::error::{Error, Result};
use crate::format::manifest::{ChunkRun, Inode, InodeKind};
use crate::fsio::{self, Dir, FileType, Stat};
use crate::manifest::content_runs;
use crate::path::TreePath;
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};

/// Files of one directory that are handed to a worker together.
const BATCH_FILES: usize = 64;
/// Bytes of content after which a batch is handed over.
const BATCH_BYTES: u64 = 1 << 20;
/// A longer file is written by several workers.
const SPLIT_BYTES: u64 = 8 << 20;
/// Bytes of a split file that one worker writes at a time.
const RANGE_BYTES: u64 = 4 << 20;
/// Batches that wait for a worker. Each holds a directory open.
const QUEUE_DEPTH: usize = 64;
/// Bytes written after which the disk is set to work, so that it does not idle until the sync at the end.
const FLUSH_BYTES: u64 = 256 << 20;

/// Name of an action's staged form.
pub(super) fn staged_name(index: usize) -> Vec<u8> {
    format!("{index:x}").into_bytes()
}

/// Makes everything that `plan` needs, in `staging`; `root` is the area's root, which hard links may come from. Nothing
/// is durable yet.
///
/// # Errors
/// The first failure; staging then holds garbage.
pub(super) fn stage(
    plan: &CheckoutPlan,
    staging: &Dir,
    root: &Dir,
    reader: &ChunkReader,
    threads: usize,
    progress: &Progress,
) -> Result<()> {
    progress.start("writing files", plan.counts.inodes_to_create, plan.bytes_to_copy());
    let (sender, receiver) = bounded(QUEUE_DEPTH);
    let shared = Shared {
        reader,
        root,
        progress,
        fresh: Fresh::of_this_process(),
        failed: AtomicBool::new(false),
        first_error: Mutex::new(None),
        written: AtomicU64::new(0),
    };
    let (wake_flusher, flushes) = bounded(1);
    std::thread::scope(|scope| {
        scope.spawn(|| shared.flush(staging, &flushes));
        for _ in 0..threads.max(1) {
            let (receiver, shared, wake_flusher) = (receiver.clone(), &shared, wake_flusher.clone());
            scope.spawn(move || shared.work(&receiver, &wake_flusher));
        }
        drop((receiver, wake_flusher));
        let top = staging.try_clone().map_err(|e| Error::io("open", staging.path(), e))?;
        let mut stager = Stager {
            shared: &shared,
            sender,
            staging: Arc::new(StagedDir { dir: top, inode: None, moves: false }),
            stack: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            places: HashMap::new(),
            links: Vec::new(),
            late_dirs: Vec::new(),
            late_files: Vec::new(),
            top: 0,
        };
        let result = stager.run(plan);
        let Stager { sender, links, late_dirs, late_files, places, .. } = stager;
        drop(sender);
        result.map(|()| (links, late_dirs, late_files, places))
    })
    .and_then(|rest| match shared.first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(rest),
    })
    .and_then(|(links, late_dirs, late_files, places)| {
        link_names(plan, staging, root, &links, &places)?;
        flag_late(staging, &late_files)?;
        finish_late(staging, &late_dirs, shared.fresh)
    })
}

/// A directory being staged; `inode` is set on it when nobody needs it any more. The staging directory itself has none.
struct StagedDir<'p> {
    dir: Dir,
    inode: Option<&'p Inode>,
    /// It is renamed by itself, not with a directory around it.
    moves: bool,
}

/// A file that several workers write. The last one completes it.
struct SplitFile<'p> {
    fd: OwnedFd,
    dir: Arc<StagedDir<'p>>,
    name: Vec<u8>,
    inode: &'p Inode,
}

/// Something to make that is no directory.
struct Leaf<'p> {
    name: Vec<u8>,
    inode: &'p Inode,
    /// The live file whose content it gets.
    live: Option<&'p TreePath>,
}

enum Job<'p> {
    Files { dir: Arc<StagedDir<'p>>, files: Vec<Leaf<'p>> },
    Range { file: Arc<SplitFile<'p>>, offset: u64, runs: Vec<ChunkRun> },
}

/// What all workers use.
struct Shared<'a> {
    reader: &'a ChunkReader,
    /// The area's root.
    root: &'a Dir,
    progress: &'a Progress,
    fresh: Fresh,
    failed: AtomicBool,
    first_error: Mutex<Option<Error>>,
    /// Bytes of content written.
    written: AtomicU64,
}

impl Shared<'_> {
    fn fail(&self, error: Error) {
        self.failed.store(true, Ordering::Relaxed);
        self.first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Syncs the file system each time it is woken, until the workers are done.
    fn flush(&self, staging: &Dir, flushes: &Receiver<()>) {
        for () in flushes {
            if let Err(e) = staging.sync_filesystem() {
                self.fail(Error::io("sync file system of", staging.path(), e));
            }
        }
    }

    fn work(&self, jobs: &Receiver<Job<'_>>, wake_flusher: &Sender<()>) {
        let mut scratch = ReadScratch::default();
        let mut next_flush = FLUSH_BYTES;
        for job in jobs {
            let written = self.written.load(Ordering::Relaxed);
            if written >= next_flush {
                // A full queue means that a flush is to come anyway.
                let _ = wake_flusher.try_send(());
                next_flush = written + FLUSH_BYTES;
            }
            // After a failure the queue is drained without work, so that nobody waits for ever.
            if self.failed.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = self.do_job(job, &mut scratch) {
                self.fail(error);
            }
        }
    }

    fn do_job(&self, job: Job<'_>, scratch: &mut ReadScratch) -> Result<()> {
        self.progress.check_cancelled()?;
        match job {
            Job::Files { dir, files } => {
                for leaf in files {
                    self.make_leaf(&dir, &leaf, scratch)?;
                }
                self.release(dir)
            }
            Job::Range { file, offset, runs } => {
                self.write_runs(&file.fd, offset, &runs, scratch)?;
                let Some(SplitFile { fd, dir, name, inode }) = Arc::into_inner(file) else { return Ok(()) };
                let moves = dir.inode.is_none();
                apply::finish_new(&fd, inode, self.fresh, moves).map_err(|e| failed(&dir.dir, &name, e))?;
                self.progress.advance(1, 0);
                self.release(dir)
            }
        }
    }

    /// Makes one thing that is no directory.
    fn make_leaf(&self, parent: &StagedDir<'_>, leaf: &Leaf<'_>, scratch: &mut ReadScratch) -> Result<()> {
        let (dir, moves) = (&parent.dir, parent.inode.is_none());
        let Leaf { name, inode, live } = leaf;
        let InodeKind::File(content) = &inode.kind else {
            apply::make_special(dir, name, inode, self.fresh).map_err(|e| failed(dir, name, e))?;
            self.progress.advance(1, 0);
            return Ok(());
        };
        let fd = dir.create_file(name).map_err(|e| failed(dir, name, e))?;
        if content.size > 0 {
            apply::begin_new(&fd, inode).map_err(|e| failed(dir, name, e))?;
        }
        if let Some(live) = live {
            self.copy_live(live, &fd, content.size)?;
        } else if content.size > 0 {
            let runs = content_runs(self.reader, content)?;
            if runs.iter().any(|run| matches!(run, ChunkRun::Hole { .. })) {
                fsio::set_len(&fd, content.size).map_err(|e| failed(dir, name, e))?;
            }
            self.write_runs(&fd, 0, &runs, scratch)?;
        }
        apply::finish_new(&fd, inode, self.fresh, moves).map_err(|e| failed(dir, name, e))?;
        self.progress.advance(1, 0);
        Ok(())
    }

    /// Gives a staged file the content of a live one, which is compared once more when everything is staged.
    fn copy_live(&self, path: &TreePath, fd: &OwnedFd, size: u64) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let below = std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let live = match self.root.open_below(below) {
            Err(e) if is_other_now(&e) => return Err(unstable(self.root, path)),
            live => live.map_err(|e| Error::io("open", self.root.path_of(path.as_bytes()), e))?,
        };
        let stat = Stat::of_fd(&live).map_err(|e| Error::io("look at", self.root.path_of(path.as_bytes()), e))?;
        if (stat.file_type, stat.size) != (FileType::File, size) {
            return Err(unstable(self.root, path));
        }
        let copied = fsio::clone_or_copy(&live, fd, size)
            .map_err(|e| Error::io("copy", self.root.path_of(path.as_bytes()), e))?;
        self.written.fetch_add(copied, Ordering::Relaxed);
        self.progress.advance(0, copied);
        Ok(())
    }

    /// Writes runs one after the other from `offset`; holes are left out.
    fn write_runs(&self, fd: &OwnedFd, mut offset: u64, runs: &[ChunkRun], scratch: &mut ReadScratch) -> Result<()> {
        for run in runs {
            match run {
                ChunkRun::Hole { len } => offset += len,
                ChunkRun::Data { id, len } => {
                    let chunk = self.reader.read(id, scratch)?;
                    let plain = chunk.plain();
                    if plain.len() as u64 != u64::from(*len) {
                        return Err(Error::HashMismatch {
                            object: format!("chunk {id}"),
                            actual: format!("{} bytes where {len} are listed", plain.len()),
                        });
                    }
                    fsio::write_all_at(fd, plain, offset).map_err(|e| Error::Io {
                        action: "write",
                        path: "a staged file".into(),
                        source: e,
                    })?;
                    offset += u64::from(*len);
                    self.written.fetch_add(u64::from(*len), Ordering::Relaxed);
                    self.progress.advance(0, u64::from(*len));
                }
            }
        }
        Ok(())
    }

    /// Gives up one use of a directory; the last one sets its metadata.
    fn release(&self, dir: Arc<StagedDir<'_>>) -> Result<()> {
        let Some(StagedDir { dir, inode: Some(inode), moves }) = Arc::into_inner(dir) else { return Ok(()) };
        apply::finish_new(&dir, inode, self.fresh, moves).map_err(|e| failed(&dir, b"", e))?;
        self.progress.advance(1, 0);
        Ok(())
    }
}

fn failed(dir: &Dir, name: &[u8], source: std::io::Error) -> Error {
    Error::io("write", dir.path_of(name), source)
}

/// A directory on the way to the current action.
struct Level<'p> {
    path: &'p TreePath,
    dir: Arc<StagedDir<'p>>,
    /// A hard link is still to come into it: its metadata waits.
    waits: bool,
}

struct Stager<'s, 'p> {
    shared: &'s Shared<'s>,
    sender: Sender<Job<'p>>,
    staging: Arc<StagedDir<'p>>,
    stack: Vec<Level<'p>>,
    /// Files of the innermost directory that no worker has yet.
    batch: Vec<Leaf<'p>>,
    batch_bytes: u64,
    /// Where hard-link leaders are: their path below staging.
    places: HashMap<&'p TreePath, Vec<u8>>,
    /// Actions that give an inode a further name, and that name's path below staging.
    links: Vec<(usize, Vec<u8>)>,
    /// Directories whose metadata waits for links, by path below staging.
    late_dirs: Vec<(Vec<u8>, &'p Inode)>,
    /// Files whose flags wait for links.
    late_files: Vec<(Vec<u8>, &'p Inode)>,
    /// Action whose tree or file is being staged.
    top: usize,
}

impl<'p> Stager<'_, 'p> {
    fn run(&mut self, plan: &'p CheckoutPlan) -> Result<()> {
        // Directories that get links later must not be completed, and so closed to their mtime, before.
        for (index, action) in plan.actions.iter().enumerate() {
            if self.shared.failed.load(Ordering::Relaxed) {
                break;
            }
            let Some(wanted) = action.wanted() else { continue };
            self.climb_to(action)?;
            if !matches!(action.change, Change::Add { inside: true, .. }) {
                self.flush()?;
                self.top = index;
            }
            match wanted {
                Wanted::Link { .. } => {
                    self.links.push((index, self.place(plan, action)));
                    if let Some(level) = self.stack.last_mut() {
                        level.waits = true;
                    }
                }
                Wanted::Inode(inode) | Wanted::Copy(inode) => self.inode(plan, action, inode)?,
            }
        }
        while !self.stack.is_empty() {
            self.leave()?;
        }
        self.flush()
    }

    /// Leaves staged directories until the action's parent is the innermost.
    fn climb_to(&mut self, action: &Action) -> Result<()> {
        let inside = matches!(action.change, Change::Add { inside: true, .. });
        while let Some(level) = self.stack.last() {
            if inside && action.path.starts_with(level.path) {
                break;
            }
            self.leave()?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.flush()?;
        let Some(level) = self.stack.pop() else { return Ok(()) };
        if level.waits {
            if let Some(inode) = level.dir.inode {
                let place = below_top(self.top_path(&level), level.path, self.top);
                self.late_dirs.push((place, inode));
            }
            return Ok(());
        }
        self.shared.release(level.dir)
    }

    fn top_path<'a>(&'a self, level: &'a Level<'p>) -> &'a TreePath {
        self.stack.first().map_or(level.path, |first| first.path)
    }

    fn place(&self, plan: &CheckoutPlan, action: &Action) -> Vec<u8> {
        below_top(&plan.actions[self.top].path, &action.path, self.top)
    }

    /// Name of the current action in the directory it is staged in.
    fn name(&self, action: &Action) -> Vec<u8> {
        if self.stack.is_empty() { staged_name(self.top) } else { action.path.name().to_vec() }
    }

    fn inode(&mut self, plan: &CheckoutPlan, action: &'p Action, inode: &'p Inode) -> Result<()> {
        let name = self.name(action);
        if inode.links > 1 {
            let place = self.place(plan, action);
            if apply::late_flags(inode.flags) && !self.stack.is_empty() {
                self.late_files.push((place.clone(), inode));
            }
            self.places.insert(&action.path, place);
        }
        let live = matches!(action.wanted(), Some(Wanted::Copy(_))).then_some(&action.path);
        let parent = self.stack.last().map_or(&self.staging, |level| &level.dir);
        match &inode.kind {
            InodeKind::Directory => {
                let failed = |e| failed(&parent.dir, &name, e);
                parent.dir.make_dir(&name).map_err(failed)?;
                let dir = parent.dir.open_dir(&name).map_err(failed)?;
                self.flush()?;
                let dir = Arc::new(StagedDir { dir, inode: Some(inode), moves: self.stack.is_empty() });
                self.stack.push(Level { path: &action.path, dir, waits: false });
                Ok(())
            }
            InodeKind::File(content) if content.size > SPLIT_BYTES && live.is_none() => self.split(name, inode),
            kind => {
                self.batch_bytes += if let InodeKind::File(content) = kind { content.size } else { 0 };
                self.batch.push(Leaf { name, inode, live });
                if self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
            }
        }
    }

    /// Hands the waiting files of the innermost directory to a worker.
    fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let dir = Arc::clone(self.stack.last().map_or(&self.staging, |level| &level.dir));
        self.batch_bytes = 0;
        let files = std::mem::take(&mut self.batch);
        self.send(Job::Files { dir, files })
    }

    /// Hands a long file to several workers.
    fn split(&mut self, name: Vec<u8>, inode: &'p Inode) -> Result<()> {
        let InodeKind::File(content) = &inode.kind else { return Ok(()) };
        let dir = Arc::clone(self.stack.last().map_or(&self.staging, |level| &level.dir));
        let fd = dir.dir.create_file(&name).map_err(|e| failed(&dir.dir, &name, e))?;
        apply::begin_new(&fd, inode).map_err(|e| failed(&dir.dir, &name, e))?;
        fsio::set_len(&fd, content.size).map_err(|e| failed(&dir.dir, &name, e))?;
        let runs = content_runs(self.shared.reader, content)?;
        let file = Arc::new(SplitFile { fd, dir, name, inode });
        let (mut start, mut at, mut waiting, mut data) = (0, 0, Vec::new(), 0);
        for run in runs {
            let len = match run {
                ChunkRun::Data { len, .. } => u64::from(len),
                ChunkRun::Hole { len } => len,
            };
            data += if matches!(run, ChunkRun::Data { .. }) { len } else { 0 };
            at += len;
            waiting.push(run);
            if data >= RANGE_BYTES {
                let runs = std::mem::take(&mut waiting);
                self.send(Job::Range { file: Arc::clone(&file), offset: start, runs })?;
                (start, data) = (at, 0);
            }
        }
        // Also when nothing is left: whoever is last completes the file.
        self.send(Job::Range { file, offset: start, runs: waiting })
    }

    fn send(&self, job: Job<'p>) -> Result<()> {
        // Workers run until this side hangs up.
        self.sender.send(job).map_err(|_| Error::Interrupted)
    }
}

/// Path below staging of `path`, which is at or below the top of the tree that action `top` makes.
fn below_top(top_path: &TreePath, path: &TreePath, top: usize) -> Vec<u8> {
    let rest = path.as_bytes().get(top_path.as_bytes().len()..).unwrap_or_default();
    // Only below the area's root does it begin without a separator.
    let separator: &[u8] = if rest.is_empty() || rest.starts_with(b"/") { b"" } else { b"/" };
    [&staged_name(top), separator, rest].concat()
}

/// Gives inodes their further names, once all files are there.
fn link_names(
    plan: &CheckoutPlan,
    staging: &Dir,
    root: &Dir,
    links: &[(usize, Vec<u8>)],
    places: &HashMap<&TreePath, Vec<u8>>,
) -> Result<()> {
    let (mut from_live, mut from_staged, mut to) =
        (DirChain::new(root), DirChain::new(staging), DirChain::new(staging));
    for (index, place) in links {
        let action = &plan.actions[*index];
        let Some(Wanted::Link { leader, live }) = action.wanted() else { continue };
        let full = root.path_of(action.path.as_bytes());
        let failed = |e| Error::io("link", full.clone(), e);
        let (to_dir, to_name) = to.parent(place).map_err(failed)?;
        let (from_dir, from_name) = match live {
            Some(_) => from_live.parent(leader.as_bytes()).map_err(|_| unstable(root, leader))?,
            None => {
                let place = places.get(leader).ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
                from_staged.parent(place).map_err(failed)?
            }
        };
        match from_dir.link(from_name, to_dir, to_name) {
            Err(e) if live.is_some() && is_other_now(&e) => return Err(unstable(root, leader)),
            linked => linked.map_err(failed)?,
        }
        if let Some((ino, mtime)) = live {
            let found = to_dir.stat(to_name).map_err(failed)?;
            if (found.ino, found.mtime) != (*ino, *mtime) {
                return Err(unstable(root, leader));
            }
        }
    }
    Ok(())
}

fn unstable(root: &Dir, path: &TreePath) -> Error {
    Error::Unstable { paths: vec![root.path_of(path.as_bytes())] }
}

/// Sets flags that forbid to give an inode a further name.
fn flag_late(staging: &Dir, late_files: &[(Vec<u8>, &Inode)]) -> Result<()> {
    let mut chain = DirChain::new(staging);
    for (place, inode) in late_files {
        let failed = |e| failed(staging, place, e);
        let (dir, name) = chain.parent(place).map_err(failed)?;
        let file = dir.open_file(name).map_err(failed)?;
        apply::finish_late(&file, inode.mode, inode.flags).map_err(failed)?;
    }
    Ok(())
}

/// Completes directories that waited for links.
fn finish_late(staging: &Dir, late_dirs: &[(Vec<u8>, &Inode)], fresh: Fresh) -> Result<()> {
    for (place, inode) in late_dirs {
        let mut chain = DirChain::new(staging);
        let dir = chain.dir(place).map_err(|e| failed(staging, place, e))?;
        apply::finish_new(dir, inode, fresh, !place.contains(&b'/')).map_err(|e| failed(staging, place, e))?;
    }
    Ok(())
}
