// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The threads of a commit.
//!
//! The calling thread walks, merges and builds manifests. Workers read files; small ones they take to the pack
//! themselves. Chunks of large files go through a bounded queue that idle workers serve first, and that their own
//! reader serves when it is full, so one large file keeps every core busy and no queue can block for ever. A last
//! thread makes finished packs durable.
//!
//! Bounds: jobs and chunk jobs by queue length, entries in flight by the window of [`super::area`], packs being synced by two.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};

use super::area::{self, AreaResult};
use super::file::{ChunkSink, FileError, FileReader};
use super::known::KnownChunks;
use super::segments::Records;
use super::{CommitOptions, OpenArea};
use crate::area::XattrRules;
use crate::chunk::Chunker;
use crate::compress::Compressor;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{Entry, Node};
use crate::format::pack::{Encoding, PackKind};
use crate::format::snapshot::Snapshot;
use crate::format::table::TablePack;
use crate::fsio::Stat;
use crate::id::{ChunkId, PackId};
use crate::inode::{self, UnknownXattrs};
use crate::manifest::Manifest;
use crate::pack::{FinishedPack, PackWriter};
use crate::progress::Progress;
use crate::read::ChunkReader;
use crate::store::Store;
use crate::walk::Found;

/// Batches of files waiting for a worker.
const JOBS_MAX: usize = 16;
/// Chunks of large files waiting for a helper.
const CHUNK_JOBS_MAX: usize = 32;
/// Longest wait of a worker that has nothing to do.
const IDLE: Duration = Duration::from_millis(2);

/// What the pipeline made of all areas.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) areas: Vec<AreaResult>,
    pub(super) new_chunks: u64,
    pub(super) new_plain_bytes: u64,
    /// New packs, published but not yet named durably.
    pub(super) packs: Vec<TablePack>,
    pub(super) records: Records,
}

/// A regular file to read.
#[derive(Debug)]
pub(super) struct FileJob {
    /// Position in the area's stream of entries.
    pub(super) ticket: u64,
    pub(super) found: Found,
}

/// Files of one area that a worker reads one after the other.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) xattrs: Arc<XattrRules>,
    pub(super) jobs: Vec<FileJob>,
}

/// A file's entry, or why there is none.
#[derive(Debug)]
pub(super) struct FileDone {
    pub(super) ticket: u64,
    pub(super) outcome: Result<ReadEntry, FileError>,
}

/// An entry that was read from the live tree.
#[derive(Debug)]
pub(super) struct ReadEntry {
    pub(super) entry: Entry,
    pub(super) encoded: Vec<u8>,
    pub(super) stat: Stat,
    pub(super) unstable: bool,
}

impl ReadEntry {
    pub(super) fn new(entry: Entry, stat: Stat, unstable: bool) -> ReadEntry {
        let mut encoded = Vec::with_capacity(192);
        entry.encode_into(&mut encoded);
        ReadEntry { entry, encoded, stat, unstable }
    }
}

/// Packs of one kind: one being filled, finished ones on their way to the disk.
struct Packer<'s> {
    store: &'s Store,
    kind: PackKind,
    current: Mutex<Option<PackWriter>>,
    finished: Sender<FinishedPack>,
}

impl Packer<'_> {
    fn push(&self, id: ChunkId, plain_len: usize, encoding: Encoding, stored: &[u8]) -> Result<()> {
        let plain_len = u32::try_from(plain_len).expect("a chunk is no longer than the format allows");
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A pack that could not be written to is dropped: nobody may go on with it and publish what it has become.
        let mut writer = match current.take() {
            Some(writer) => writer,
            None => PackWriter::create(self.store.writing()?, self.kind)?,
        };
        writer.push(id, plain_len, encoding, stored)?;
        if writer.is_full(self.store.format().pack_size) {
            return self.finish(writer);
        }
        *current = Some(writer);
        Ok(())
    }

    /// The queue is bounded: when the disk is slower than the rest, this waits, and with it everyone who packs.
    fn finish(&self, writer: PackWriter) -> Result<()> {
        // A closed queue means that the syncing thread failed; its error is reported when it is joined.
        self.finished.send(writer.finish()?).map_err(|_| Error::Interrupted)
    }

    fn close(self) -> Result<()> {
        match self.current.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(writer) if !writer.is_empty() => {
                let finished = writer.finish()?;
                self.finished.send(finished).map_err(|_| Error::Interrupted)
            }
            _ => Ok(()),
        }
    }
}

/// What all threads share.
pub(super) struct Shared<'a> {
    store: &'a Store,
    options: &'a CommitOptions,
    known: &'a KnownChunks,
    parent: Option<(&'a Snapshot, &'a ChunkReader)>,
    chunker: Chunker,
    data: Packer<'a>,
    manifests: Packer<'a>,
    chunk_jobs: (Sender<ChunkJob>, Receiver<ChunkJob>),
    /// Workers in the middle of a file.
    busy: AtomicUsize,
    stop: AtomicBool,
    pub(super) progress: &'a Progress,
}

impl<'a> Shared<'a> {
    /// The parent's manifest of an area, with its id. Without one that can be read, everything counts as added; that the
    /// parent is damaged must not keep anyone from committing what is whole.
    pub(super) fn parent(&self, area: &str) -> Result<Option<(ChunkId, Manifest<'a>)>> {
        let Some((snapshot, reader)) = self.parent else { return Ok(None) };
        let Some(area) = snapshot.area(area) else { return Ok(None) };
        match Manifest::open(reader, area) {
            Ok(manifest) => Ok(Some((area.manifest, manifest))),
            Err(e) if e.kind() == ErrorKind::Damaged => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn options(&self) -> &CommitOptions {
        self.options
    }

    pub(super) fn store(&self) -> &Store {
        self.store
    }

    /// Packs that the index vouches for.
    pub(super) fn live_packs(&self) -> &HashSet<PackId> {
        self.known.live_packs()
    }

    pub(super) fn check_cancelled(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { self.progress.check_cancelled() }
    }
}

struct ChunkJob {
    id: ChunkId,
    plain: Vec<u8>,
}

/// One thread's way to the packs.
pub(super) struct Packing<'a> {
    shared: &'a Shared<'a>,
    compressor: Compressor,
}

impl<'a> Packing<'a> {
    pub(super) fn new(shared: &'a Shared<'a>) -> Result<Packing<'a>> {
        let compressor = Compressor::new(shared.options.level)
            .map_err(|e| Error::io("set up compressor for", shared.store.path(), e))?;
        Ok(Packing { shared, compressor })
    }

    fn store(&mut self, packer: &Packer<'_>, id: ChunkId, plain: &[u8]) -> Result<()> {
        if self.shared.options.dry_run {
            return Ok(());
        }
        let (encoding, stored) = self.compressor.compress(plain);
        self.shared.progress.stored(stored.len() as u64);
        packer.push(id, plain.len(), encoding, stored)
    }

    /// Serves one waiting chunk, if there is one.
    fn help(&mut self) -> Result<bool> {
        match self.shared.chunk_jobs.1.try_recv() {
            Ok(job) => self.store(&self.shared.data, job.id, &job.plain).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Stores a manifest node or head.
    pub(super) fn put_node(&mut self, bytes: &[u8]) -> Result<ChunkId> {
        let id = ChunkId::of(bytes);
        self.put_list(id, bytes)?;
        Ok(id)
    }
}

impl ChunkSink for Packing<'_> {
    fn put(&mut self, id: ChunkId, plain: &[u8], is_large_file: bool) -> Result<()> {
        self.pass(plain.len() as u64)?;
        if !self.shared.known.claim(&id, plain.len()) {
            return Ok(());
        }
        if is_large_file && !self.shared.options.dry_run {
            let job = ChunkJob { id, plain: plain.to_vec() };
            return match self.shared.chunk_jobs.0.try_send(job) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                    self.store(&self.shared.data, job.id, &job.plain)
                }
            };
        }
        self.store(&self.shared.data, id, plain)
    }

    fn put_list(&mut self, id: ChunkId, plain: &[u8]) -> Result<()> {
        if self.shared.known.claim(&id, plain.len()) { self.store(&self.shared.manifests, id, plain) } else { Ok(()) }
    }

    fn pass(&mut self, bytes: u64) -> Result<()> {
        self.shared.progress.advance(0, bytes);
        self.shared.check_cancelled()
    }
}

/// Runs a whole commit up to, and without, publishing: afterwards every new chunk lies in a durable pack.
pub(super) fn run(
    store: &Store,
    areas: &[OpenArea],
    options: &CommitOptions,
    known: &KnownChunks,
    parent: Option<(&Snapshot, &ChunkReader)>,
    progress: &Progress,
) -> Result<Results> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (finished_tx, finished_rx) = bounded(2);
    let packer = |kind, finished| Packer { store, kind, current: Mutex::new(None), finished };
    let shared = Shared {
        store,
        options,
        known,
        parent,
        chunker: Chunker::new(store.format().chunker),
        data: packer(PackKind::Data, finished_tx.clone()),
        manifests: packer(PackKind::Manifest, finished_tx),
        chunk_jobs: bounded(CHUNK_JOBS_MAX),
        busy: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        progress,
    };
    std::thread::scope(|scope| {
        let syncer = scope.spawn(move || sync_packs(store, &finished_rx));
        let (jobs_tx, jobs_rx) = bounded::<Batch>(JOBS_MAX);
        let (done_tx, done_rx) = unbounded();
        let outcome = std::thread::scope(|inner| {
            let shared = &shared;
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    let (jobs, done) = (jobs_rx.clone(), done_tx.clone());
                    inner.spawn(move || worker(shared, &jobs, &done))
                })
                .collect();
            drop((jobs_rx, done_tx));
            let walked = area::commit_areas(shared, areas, &jobs_tx, &done_rx);
            if walked.is_err() {
                shared.stop.store(true, Ordering::Relaxed);
            }
            drop(jobs_tx);
            let worked = workers.into_iter().map(join).collect::<Result<Vec<()>>>();
            first_cause(walked, worked)
        });
        let Shared { data, manifests, .. } = shared;
        let closed = outcome.and_then(|(areas, _)| {
            data.close()?;
            manifests.close().map(|()| areas)
        });
        let (areas, (packs, records)) = first_cause(closed, join(syncer))?;
        let (new_chunks, new_plain_bytes) = known.claimed();
        Ok(Results { areas, new_chunks, new_plain_bytes, packs, records })
    })
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result,
        // A panic is our bug; it goes on in the calling thread.
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Both results, or the error that is the cause: a thread that was told to stop, or lost its partner, says "interrupted".
fn first_cause<A, B>(a: Result<A>, b: Result<B>) -> Result<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(Error::Interrupted), Err(b)) => Err(b),
        (Err(a), _) => Err(a),
        (_, Err(b)) => Err(b),
    }
}

/// Makes packs durable one by one while the next ones are filled.
fn sync_packs(store: &Store, finished: &Receiver<FinishedPack>) -> Result<(Vec<TablePack>, Records)> {
    let mut packs = Vec::new();
    let mut records = Vec::new();
    for pack in finished {
        packs.push(pack.pack);
        records.extend(pack.locations());
        pack.publish(store.writing()?)?;
    }
    Ok((packs, records))
}

/// Reads files until there are no more, and helps with chunks of large ones until nobody makes any.
fn worker(shared: &Shared<'_>, jobs: &Receiver<Batch>, done: &Sender<FileDone>) -> Result<()> {
    let result = work(shared, jobs, done);
    if result.is_err() {
        shared.stop.store(true, Ordering::Relaxed);
    }
    result
}

fn work(shared: &Shared<'_>, jobs: &Receiver<Batch>, done: &Sender<FileDone>) -> Result<()> {
    let mut packing = Packing::new(shared)?;
    let mut reader = FileReader::new(&shared.chunker);
    let mut is_open = true;
    loop {
        shared.check_cancelled()?;
        if packing.help()? {
            continue;
        }
        if !is_open {
            if shared.busy.load(Ordering::Acquire) == 0 && shared.chunk_jobs.1.is_empty() {
                return Ok(());
            }
            std::thread::sleep(IDLE);
            continue;
        }
        match jobs.recv_timeout(IDLE) {
            Ok(batch) => {
                shared.busy.fetch_add(1, Ordering::AcqRel);
                let result = read_batch(shared, &mut reader, &mut packing, batch, done);
                shared.busy.fetch_sub(1, Ordering::AcqRel);
                result?;
            }
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => is_open = false,
        }
    }
}

fn read_batch(
    shared: &Shared<'_>,
    reader: &mut FileReader<'_>,
    packing: &mut Packing<'_>,
    batch: Batch,
    done: &Sender<FileDone>,
) -> Result<()> {
    for job in batch.jobs {
        shared.check_cancelled()?;
        let outcome = read_file(shared, reader, packing, &job.found, &batch.xattrs);
        shared.progress.advance(1, 0);
        // Nobody listens any more only when the commit has failed already.
        done.send(FileDone { ticket: job.ticket, outcome }).map_err(|_| Error::Interrupted)?;
    }
    Ok(())
}

fn read_file(
    shared: &Shared<'_>,
    reader: &mut FileReader<'_>,
    packing: &mut Packing<'_>,
    found: &Found,
    xattrs: &XattrRules,
) -> Result<ReadEntry, FileError> {
    use std::os::fd::AsFd;
    let read = reader.read(found, shared.options.allow_changing, packing)?;
    let extras = inode::read_extras(found, Some(read.fd.as_fd()), xattrs, UnknownXattrs::Refuse)?;
    let unstable = read.content.unstable;
    let inode = inode::inode(found, &read.stat, extras, Some(read.content))?;
    let entry = Entry { path: found.path.clone(), node: Node::Inode(inode) };
    Ok(ReadEntry::new(entry, read.stat, unstable))
}
