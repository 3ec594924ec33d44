// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two snapshots → a delta: inventory, base search, plan, frames by several threads, and the file.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Condvar, Mutex, PoisonError};

use super::bases::{self, Sketch};
use super::codec::{self, Effort};
use super::inventory::{FileChunks, Inventory};
use super::plan::{self, DeltaPlan, PlannedFrame};
use super::zipped::{self, Job, Jobs, Zipped};
use super::{DeltaWriter, add_to_index, require_room};
use crate::error::{Error, Result};
use crate::format::delta::{CHUNK_LEN, DeltaChunk, DeltaIndexEntry, FRAME_LEN, REF_LEN};
use crate::id::{ChunkId, SnapshotId};
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};
use crate::store::{Store, WriterLock};

/// Frames that may be done before one that is not: they wait in memory.
const AHEAD: usize = 24;
/// Threads by default: each needs up to 250 MB.
const THREADS: usize = 2;
/// Bytes of a file that its sketch is made of.
const SKETCH_BYTES: u64 = 4 << 20;

/// How to make a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MakeOptions {
    /// How much time to take.
    pub effort: Effort,
    /// Worker threads; 0 = two. The result does not depend on it.
    pub threads: usize,
}

/// What a delta became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MakeReport {
    /// How the index lists it; `None` when no frame was worth it.
    pub entry: Option<DeltaIndexEntry>,
    /// Frames in it.
    pub frames: u64,
    /// Frames that were not smaller than what is in packs, and left out.
    pub frames_left_out: u64,
    /// New chunks of the target that it gives.
    pub chunks: u64,
    /// Their plain bytes.
    pub plain_bytes: u64,
    /// What they take in packs.
    pub pack_bytes: u64,
    /// New chunks that stay in packs only.
    pub chunks_left_out: u64,
    /// What those take in packs.
    pub left_out_bytes: u64,
    /// Frames and payload bytes by encoding.
    pub by_encoding: BTreeMap<u8, (u64, u64)>,
}

/// Makes the delta from `base` to `target`, publishes it, and lists it in the target's index. Equal input and options give
/// equal bytes.
///
/// # Errors
/// [`Error::Refused`] for a store that is only read; [`Error::LimitExceeded`] where the target has as many deltas as there
/// may be; [`Error::Interrupted`]; as [`ChunkReader::read`]; as [`DeltaWriter::finish`].
pub fn make(
    store: &Store,
    base: SnapshotId,
    target: SnapshotId,
    options: MakeOptions,
    _lock: &WriterLock,
    progress: &Progress,
) -> Result<MakeReport> {
    require_room(store, &target, Some(base))?;
    let reader = store.reader()?;
    progress.start("comparing", 0, 0);
    let before = Inventory::read(&reader, &store.snapshot(&base)?, progress)?;
    let after = Inventory::read(&reader, &store.snapshot(&target)?, progress)?;
    let Planned { plan, zipped } = plan_of(&reader, &before, &after, progress)?;
    let bytes = plan.frames.iter().map(PlannedFrame::output_len).sum();
    progress.start("making the delta", plan.frames.len() as u64, bytes);
    let threads = if options.threads == 0 { THREADS } else { options.threads };
    let mut maker = Maker {
        reader: &reader,
        effort: options.effort,
        threads,
        progress,
        writer: DeltaWriter::create(store, Some(base), target)?,
        given: HashSet::new(),
        report: MakeReport::default(),
    };
    maker.frames(&plan)?;
    maker.zipped(&before, &after, &zipped)?;
    let Maker { writer, mut report, .. } = maker;
    report.entry = writer.finish()?;
    if let Some(entry) = report.entry {
        add_to_index(store, &target, entry)?;
    }
    Ok(report)
}

/// What is going to be made.
struct Planned {
    plan: DeltaPlan,
    /// Files that are not in the plan, for they are made in another way.
    zipped: Vec<Zipped>,
}

/// Finds bases, and plans.
fn plan_of(reader: &ChunkReader, before: &Inventory, after: &Inventory, progress: &Progress) -> Result<Planned> {
    let changed = plan::changed_files(before, after);
    let files: Vec<&FileChunks> = changed.iter().map(|at| &after.files[*at]).collect();
    let there: HashSet<&[u8]> = after.files.iter().map(|file| &file.path[..]).collect();
    let mut scratch = ReadScratch::default();
    let is_gone = |file: &FileChunks| !there.contains(&file.path[..]);
    let bases = bases::find(&before.files, &files, is_gone, |file| sketch(reader, file, &mut scratch, progress));
    progress.check_cancelled()?;
    let zipped = zipped::find(reader, after, &changed, &bases, progress)?;
    let apart: HashSet<usize> = zipped.iter().map(|one| one.at).collect();
    let (changed, bases): (Vec<_>, Vec<_>) =
        changed.into_iter().zip(bases).filter(|(at, _)| !apart.contains(at)).unzip();
    Ok(Planned { plan: plan::plan(before, after, &changed, &bases), zipped })
}

/// A delta under way.
struct Maker<'m> {
    reader: &'m ChunkReader,
    effort: Effort,
    threads: usize,
    progress: &'m Progress,
    writer: DeltaWriter<'m>,
    /// Chunks that its frames give.
    given: HashSet<ChunkId>,
    report: MakeReport,
}

impl Maker<'_> {
    fn frames(&mut self, plan: &DeltaPlan) -> Result<()> {
        let (reader, effort, progress) = (self.reader, self.effort, self.progress);
        in_order(
            plan.frames.len(),
            self.threads,
            |at, scratch| {
                progress.check_cancelled()?;
                let frame = &plan.frames[at];
                let made = encode(reader, frame, effort, scratch)?;
                progress.advance(1, frame.output_len());
                Ok(made)
            },
            |at, made| self.push(&plan.frames[at], made),
        )
    }

    /// Frames of gzip files, behind all others: these give what they are made of.
    fn zipped(&mut self, before: &Inventory, after: &Inventory, zipped: &[Zipped]) -> Result<()> {
        let known: HashSet<ChunkId> = before.chunks().collect();
        let given = self.given.clone();
        let (reader, effort, progress) = (self.reader, self.effort, self.progress);
        let jobs = Jobs { reader, before, after, known: &known, given: &given };
        let (groups, long) = jobs.groups(zipped);
        let make = |job: Job, scratch: &mut ReadScratch| {
            progress.check_cancelled()?;
            let made = encode_zipped(reader, &job, effort, scratch)?;
            Ok((job.frame, made))
        };
        let group = |at: usize, scratch: &mut ReadScratch| make(jobs.group(&groups[at], scratch)?, scratch);
        in_order(groups.len(), self.threads, group, |_, (frame, made)| self.push(&frame, made))?;
        let mut scratch = ReadScratch::default();
        let mut plain = Vec::new();
        for one in long {
            progress.check_cancelled()?;
            let Some(long) = jobs.long(one, &mut scratch)? else {
                plain.push(one);
                continue;
            };
            let frames = long.frames();
            let frame = |at: usize, scratch: &mut ReadScratch| make(long.job(&frames[at]), scratch);
            in_order(frames.len(), self.threads, frame, |_, (frame, made)| self.push(&frame, made))?;
        }
        // What can be made again, but not out of what is known: as any other file.
        let at: Vec<usize> = plain.iter().map(|one| one.at).collect();
        let bases: Vec<Option<usize>> = plain.iter().map(|one| one.base()).collect();
        let mut rest = plan::plan(before, after, &at, &bases);
        for frame in &mut rest.frames {
            frame.outputs.retain(|output| !self.given.contains(&output.id));
        }
        rest.frames.retain(|frame| !frame.outputs.is_empty());
        self.frames(&rest)
    }

    /// Writes a frame, if it saves anything.
    fn push(&mut self, frame: &PlannedFrame, made: Made) -> Result<()> {
        let Made { encoded, pack_bytes } = made;
        let (writer, report) = (&mut self.writer, &mut self.report);
        let count = frame.outputs.len() as u64;
        let table = FRAME_LEN + CHUNK_LEN * frame.outputs.len() + (CHUNK_LEN + REF_LEN) * frame.bases.len();
        let is_worth_it = ((encoded.payload.len() + table) as u64) < pack_bytes;
        if !is_worth_it || !writer.has_room(frame.outputs.len(), frame.bases.len()) {
            report.frames_left_out += 1;
            report.chunks_left_out += count;
            report.left_out_bytes += pack_bytes;
            return Ok(());
        }
        writer.push(frame.outputs.clone(), frame.bases.clone(), encoded.encoding, &encoded.payload)?;
        self.given.extend(frame.outputs.iter().map(|output| output.id));
        report.frames += 1;
        report.chunks += count;
        report.plain_bytes += frame.output_len();
        report.pack_bytes += pack_bytes;
        let (frames, bytes) = report.by_encoding.entry(encoded.encoding).or_default();
        *frames += 1;
        *bytes += encoded.payload.len() as u64;
        Ok(())
    }
}

/// Features of the begin of a file; none of one that cannot be read, for that will be told where its bytes are needed.
fn sketch(reader: &ChunkReader, file: &FileChunks, scratch: &mut ReadScratch, progress: &Progress) -> Vec<u64> {
    let mut sketch = Sketch::default();
    for placed in file.chunks.iter().take_while(|placed| placed.offset < SKETCH_BYTES) {
        if progress.is_cancelled() {
            return Vec::new();
        }
        match reader.read(&placed.chunk.id, scratch) {
            Ok(bytes) => sketch.update(bytes.plain()),
            Err(_) => return Vec::new(),
        }
    }
    sketch.finish()
}

/// A frame's payload, and what the outputs take in packs.
struct Made {
    encoded: codec::Encoded,
    pack_bytes: u64,
}

fn encode(reader: &ChunkReader, frame: &PlannedFrame, effort: Effort, scratch: &mut ReadScratch) -> Result<Made> {
    let base = concatenated(reader, &frame.bases, scratch)?;
    let output = concatenated(reader, &frame.outputs, scratch)?;
    let encoded = codec::encode(&base, &output, effort).map_err(failed)?;
    Ok(Made { encoded, pack_bytes: pack_bytes(reader, frame) })
}

fn encode_zipped(reader: &ChunkReader, job: &Job, effort: Effort, scratch: &mut ReadScratch) -> Result<Made> {
    let base = concatenated(reader, &job.frame.bases, scratch)?;
    let output = concatenated(reader, &job.frame.outputs, scratch)?;
    let encoded = match zipped::encode(job, &base, &output, effort).map_err(failed)? {
        Some(encoded) => encoded,
        None => codec::encode(&base, &output, effort).map_err(failed)?,
    };
    Ok(Made { encoded, pack_bytes: pack_bytes(reader, &job.frame) })
}

fn failed(e: std::io::Error) -> Error {
    Error::io("encode a frame for", "deltas", e)
}

/// What the outputs of a frame take in packs.
fn pack_bytes(reader: &ChunkReader, frame: &PlannedFrame) -> u64 {
    let stored = |chunk: &DeltaChunk| reader.locate(&chunk.id).map_or(0, |at| u64::from(at.stored_len));
    frame.outputs.iter().map(stored).sum()
}

fn concatenated(reader: &ChunkReader, chunks: &[DeltaChunk], scratch: &mut ReadScratch) -> Result<Vec<u8>> {
    let len: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    let mut out = Vec::with_capacity(usize::try_from(len).expect("bounded by the plan"));
    for chunk in chunks {
        out.extend_from_slice(reader.read(&chunk.id, scratch)?.plain());
    }
    Ok(out)
}

/// What the threads of [`in_order`] share.
struct Shared<T> {
    next: usize,
    pushed: usize,
    done: BTreeMap<usize, Result<T>>,
    failed: bool,
}

/// Wakes the others when its thread panics, so that nobody waits for what will not come.
struct Alarm<'s, T>(&'s Mutex<Shared<T>>, &'s Condvar);

impl<T> Drop for Alarm<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
            self.1.notify_all();
        }
    }
}

/// Calls `work` for 0..`count` in several threads and `push` with each result in order, in this one. Ends at the first
/// failure.
fn in_order<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize, &mut ReadScratch) -> Result<T> + Sync,
    mut push: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let shared = Mutex::new(Shared { next: 0, pushed: 0, done: BTreeMap::new(), failed: false });
    let changed = Condvar::new();
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let worker = || {
        let mut scratch = ReadScratch::default();
        let _alarm = Alarm(&shared, &changed);
        loop {
            let mut state = lock();
            while !state.failed && state.next < count && state.next >= state.pushed + AHEAD {
                state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.failed || state.next >= count {
                return;
            }
            let at = state.next;
            state.next += 1;
            drop(state);
            let result = work(at, &mut scratch);
            lock().done.insert(at, result);
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        (0..threads.max(1)).for_each(|_| drop(scope.spawn(worker)));
        let result = (0..count).try_for_each(|at| {
            let mut state = lock();
            let result = loop {
                match state.done.remove(&at) {
                    Some(result) => break result,
                    None if state.failed => break Err(Error::Interrupted),
                    None => state = changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            state.pushed = at + 1;
            drop(state);
            changed.notify_all();
            push(at, result?)
        });
        lock().failed = result.is_err();
        changed.notify_all();
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_a_failure_ends_all() {
        let mut seen = Vec::new();
        let slow_first = |at: usize, _: &mut ReadScratch| {
            if at.is_multiple_of(10) {
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
            Ok(at * 2)
        };
        in_order(100, 3, slow_first, |at, value| {
            seen.push((at, value));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, (0..100).map(|at| (at, at * 2)).collect::<Vec<_>>());
        let fails = |at: usize, _: &mut ReadScratch| if at == 40 { Err(Error::Interrupted) } else { Ok(at) };
        let mut pushed = 0;
        let failed = in_order(1000, 3, fails, |_, _| {
            pushed += 1;
            Ok(())
        });
        assert!(matches!(failed, Err(Error::Interrupted)));
        assert_eq!(pushed, 40);
        let panics = || in_order(9, 2, |at, _| if at == 3 { panic!("a bug") } else { Ok(at) }, |_, _| Ok(()));
        assert!(std::panic::catch_unwind(panics).is_err(), "nobody waits for ever");
        assert!(in_order(9, 2, |at, _| Ok(at), |_, _| Err(Error::Interrupted)).is_err(), "who pushes fails");
    }
}
