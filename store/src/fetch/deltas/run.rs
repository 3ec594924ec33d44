// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries a choice of frames out: payloads come in ranges, one while the one before is decoded, and every chunk is
//! verified before it is kept.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use super::choose::FrameAt;
use super::{Kitchen, Step, short};
use crate::backend::ObjectName;
use crate::delta::codec::decode;
use crate::error::{Error, Result};
use crate::format::delta::{Delta, DeltaChunk, DeltaFrame};
use crate::format::pack::Encoding;
use crate::read::Verified;
use crate::store::Store;

/// Bytes that may be fetched for nothing if that saves a request.
const GAP_BYTES: u64 = 128 << 10;
/// After so many frames of no use, and more than those that were, the rest of a delta is left alone.
const USELESS_MAX: usize = 16;
/// Bytes of bases that are read for each byte that is wanted, beside some that are always read: many times what a delta
/// that was made to save bytes needs.
const BASE_TIMES: u64 = 256;
const BASE_BYTES: u64 = 256 << 20;

/// The table of a delta, and where its payloads start.
pub(super) type Table = Arc<(Delta, Vec<u64>)>;

/// Frames of one delta that are asked for together.
pub(super) struct PayloadRange {
    step: usize,
    frames: Vec<usize>,
    start: u64,
    pub(super) len: u64,
}

/// Requests for the payloads of `frames`, in their order, of no more than `request_bytes` unless one payload is longer.
pub(super) fn ranges(tables: &[Table], frames: &[FrameAt], request_bytes: u64) -> Vec<PayloadRange> {
    let mut ranges: Vec<PayloadRange> = Vec::new();
    for &(step, index) in frames {
        let offsets = &tables[step].1;
        let (start, end) = (offsets[index], offsets[index + 1]);
        let open = ranges.last_mut().filter(|open| {
            let gap = start.checked_sub(open.start + open.len);
            let fits = end.saturating_sub(open.start) <= request_bytes;
            open.step == step && fits && gap.is_some_and(|gap| gap <= GAP_BYTES)
        });
        match open {
            Some(open) => {
                open.frames.push(index);
                open.len = end - open.start;
            }
            None => ranges.push(PayloadRange { step, frames: vec![index], start, len: end - start }),
        }
    }
    ranges
}

pub(super) struct Work<'a> {
    steps: &'a [Step],
    tables: &'a [Table],
    kitchen: &'a Kitchen<'a>,
    pub(super) bad: HashSet<FrameAt>,
    pub(super) notes: Vec<String>,
    pub(super) bytes: u64,
    /// Bytes of bases that may still be read.
    base_bytes_left: u64,
    /// Of each delta, what became of its frames.
    yields: Vec<Yield>,
    stopped: &'a Stopped,
}

/// What became of the frames of a delta.
#[derive(Debug, Clone, Default)]
struct Yield {
    useful: usize,
    useless: usize,
    /// The first reason why one was of no use.
    why: Option<String>,
}

/// What is not asked for any more, also by the thread that asks.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    /// Of each delta.
    steps: Vec<AtomicBool>,
    all: AtomicBool,
}

impl Stopped {
    pub(super) fn of(steps: usize) -> Stopped {
        Stopped { steps: std::iter::repeat_with(AtomicBool::default).take(steps).collect(), ..Stopped::default() }
    }

    fn is(&self, step: usize) -> bool {
        self.all() || self.steps[step].load(Ordering::Relaxed)
    }

    /// Whether no delta is of use.
    pub(super) fn all(&self) -> bool {
        self.all.load(Ordering::Relaxed)
    }
}

impl<'a> Work<'a> {
    /// `worth` is what everything that is wanted costs elsewhere, in bytes.
    pub(super) fn new(
        (steps, tables): (&'a [Step], &'a [Table]),
        kitchen: &'a Kitchen<'a>,
        stopped: &'a Stopped,
        worth: u64,
    ) -> Work<'a> {
        let base_bytes_left = worth.saturating_mul(BASE_TIMES).saturating_add(BASE_BYTES);
        let (bad, notes, yields) = (HashSet::new(), Vec::new(), vec![Yield::default(); steps.len()]);
        Work { steps, tables, kitchen, bad, notes, bytes: 0, base_bytes_left, yields, stopped }
    }

    /// Fetches and uses `frames`, which are in order.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Io`] for what is kept.
    pub(super) fn run(&mut self, frames: &[FrameAt], request_bytes: u64) -> Result<()> {
        let ranges = ranges(self.tables, frames, request_bytes);
        let bytes = ranges.iter().map(|range| range.len).sum();
        let chunks = frames.iter().map(|at| self.frame(*at).outputs.len() as u64).sum();
        let (steps, tables, kitchen, stopped) = (self.steps, self.tables, self.kitchen, self.stopped);
        kitchen.progress.start("fetching", chunks, bytes);
        let ranges = &ranges;
        // No room in between: at most one range waits while another is decoded.
        let (send, receive) = sync_channel(0);
        let done = std::thread::scope(|scope| {
            scope.spawn(move || {
                for range in ranges.iter().filter(|range| !stopped.is(range.step)) {
                    let fetched = kitchen.progress.check_cancelled();
                    let fetched =
                        fetched.and_then(|()| fetch(kitchen.store, &steps[range.step], &tables[range.step].0, range));
                    let is_last = matches!(fetched, Err(Error::Interrupted));
                    if send.send((range, fetched)).is_err() || is_last {
                        break;
                    }
                }
            });
            for (range, fetched) in receive {
                self.use_range(range, fetched)?;
            }
            Ok(())
        });
        for (step, found) in self.yields.iter().enumerate() {
            let Yield { useless, why: Some(why), .. } = found else { continue };
            let delta = short(&self.steps[step].entry.delta);
            let rest = if self.stopped.is(step) { ", and the rest was left alone" } else { "" };
            self.notes.push(format!(
                "delta {delta}: {useless} of its frames were of no use{rest}; their chunks come from packs: {why}"
            ));
        }
        done
    }

    fn frame(&self, (step, index): FrameAt) -> &'a DeltaFrame {
        &self.tables[step].0.frames[index]
    }

    /// Makes the chunks of a range's frames.
    fn use_range(&mut self, range: &PayloadRange, fetched: Result<Payloads>) -> Result<()> {
        let payloads = match fetched {
            Ok(payloads) => payloads,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(e) => {
                for index in &range.frames {
                    self.give_up((range.step, *index), &e.to_string());
                }
                // It took all the patience there is, and the next one would take as much.
                self.stopped.all.fetch_or(e.is_retryable(), Ordering::Relaxed);
                self.stop(range.step);
                return Ok(());
            }
        };
        self.bytes += range.len;
        for index in &range.frames {
            self.kitchen.progress.check_cancelled()?;
            let at = (range.step, *index);
            if self.stopped.is(range.step) {
                break;
            }
            let frame = self.frame(at);
            let payload = payloads.get(frame, &self.tables[range.step].1, *index, range.start);
            let made =
                payload.ok_or_else(|| "a payload is damaged".to_owned()).and_then(|payload| self.make(frame, payload));
            match made {
                Ok(output) => self.keep(at, frame, &output)?,
                Err(why) => self.give_up(at, &why),
            }
            self.kitchen.progress.advance(frame.outputs.len() as u64, frame.payload_len.into());
        }
        Ok(())
    }

    /// The output of a frame, not yet verified; or what was in the way.
    fn make(&mut self, frame: &DeltaFrame, payload: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let mut base = Vec::new();
        for chunk in &frame.bases {
            let left = self.base_bytes_left.checked_sub(chunk.len.into());
            self.base_bytes_left = left.ok_or("its bases are longer than what they are for is worth")?;
            let bytes = self.base(chunk).ok_or_else(|| format!("its base {} cannot be read", chunk.id.short(16)))?;
            base.extend_from_slice(&bytes);
        }
        let len = usize::try_from(frame.output_len()).expect("bounded by the format");
        decode(frame.encoding, &base, payload, len).map_err(|e| e.to_string())
    }

    /// A base, verified by where it comes from.
    fn base(&self, chunk: &DeltaChunk) -> Option<Vec<u8>> {
        let fits = |bytes: &Vec<u8>| bytes.len() as u64 == u64::from(chunk.len);
        let near = (self.kitchen.take)(&chunk.id).filter(fits);
        near.or_else(|| self.kitchen.seeds.read(&chunk.id, chunk.len).map(|(_, bytes)| bytes).filter(fits))
    }

    /// Keeps those outputs that are what they should be.
    fn keep(&mut self, at: FrameAt, frame: &DeltaFrame, output: &[u8]) -> Result<()> {
        let mut rest = output;
        for chunk in &frame.outputs {
            let len = usize::try_from(chunk.len).expect("bounded by the format");
            let (bytes, after) = rest.split_at(len);
            rest = after;
            match Verified::check(chunk.id, bytes) {
                Some(sound) if !self.kitchen.near.has(&chunk.id) => {
                    self.kitchen.near.insert(chunk.id, Encoding::Raw, chunk.len, sound.plain())?;
                }
                Some(_) => {}
                None => self.give_up(at, &format!("what it gives is not chunk {}", chunk.id.short(16))),
            }
        }
        if !self.bad.contains(&at) {
            self.yields[at.0].useful += 1;
        }
        Ok(())
    }

    fn give_up(&mut self, at: FrameAt, why: &str) {
        if !self.bad.insert(at) {
            return;
        }
        let found = &mut self.yields[at.0];
        found.useless += 1;
        found.why.get_or_insert_with(|| why.to_owned());
        if found.useless >= USELESS_MAX && found.useless > found.useful {
            self.stop(at.0);
        }
    }

    /// Leaves the rest of a delta alone.
    fn stop(&mut self, step: usize) {
        self.stopped.steps[step].store(true, Ordering::Relaxed);
        self.bad.extend((0..self.tables[step].0.frames.len()).map(|index| (step, index)));
    }
}

/// Payloads of a range.
struct Payloads {
    /// All of it, as the last server gave it.
    range: Vec<u8>,
    /// Those that another one gave before, where no server had all of them sound.
    others: HashMap<usize, Vec<u8>>,
}

impl Payloads {
    fn get<'p>(&'p self, frame: &DeltaFrame, offsets: &[u64], index: usize, start: u64) -> Option<&'p [u8]> {
        let other = self.others.get(&index).map(Vec::as_slice);
        other.or_else(|| self.range.get(place(offsets, index, start)).filter(|payload| frame.is_payload(payload)))
    }
}

/// Where a frame's payload is in the bytes from `start` on.
fn place(offsets: &[u64], index: usize, start: u64) -> Range<usize> {
    let at = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
    at(offsets[index])..at(offsets[index + 1])
}

/// The payloads of a range: from a server that has every one in it as the table says, or else from whoever has it.
fn fetch(store: &Store, step: &Step, delta: &Delta, range: &PayloadRange) -> Result<Payloads> {
    let name = ObjectName::Delta(step.entry.delta);
    let missing = || Error::MissingObject { object: name.to_string() };
    let object = store.backend().open(&name)?.ok_or_else(missing)?;
    let len = usize::try_from(range.len).map_err(|_| missing())?;
    let offsets = delta.payload_offsets(step.entry.head_len);
    let mut others = HashMap::new();
    let mut all_sound = |bytes: &[u8]| {
        let sound = |index: &usize| {
            let payload = bytes.get(place(&offsets, *index, range.start));
            payload.filter(|payload| delta.frames[*index].is_payload(payload))
        };
        let is_there = |index: &usize, others: &HashMap<_, _>| others.contains_key(index) || sound(index).is_some();
        if range.frames.iter().all(|index| is_there(index, &others)) {
            return Ok(());
        }
        for index in &range.frames {
            if let Some(payload) = sound(index) {
                others.entry(*index).or_insert_with(|| payload.to_vec());
            }
        }
        Err(Error::HashMismatch { object: name.to_string(), actual: "something else".into() })
    };
    let read = object.read_part(range.start, len, &mut all_sound);
    let range = match read {
        // Nobody has all of it sound: then that part of it which is.
        Err(Error::HashMismatch { .. }) => Vec::new(),
        read => read?,
    };
    Ok(Payloads { range, others })
}
