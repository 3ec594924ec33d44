// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries a choice of frames out: payloads come in ranges, one while the one before is decoded, and every chunk is
//! verified before it is kept.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
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

/// Longest request, in bytes, unless one payload is longer.
const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// Bytes that may be fetched for nothing if that saves a request.
const GAP_BYTES: u64 = 128 << 10;

/// The table of a delta, and where its payloads start.
pub(super) type Table = Arc<(Delta, Vec<u64>)>;

/// Frames of one delta that are asked for together.
pub(super) struct PayloadRange {
    step: usize,
    frames: Vec<usize>,
    start: u64,
    pub(super) len: u64,
}

/// Requests for the payloads of `frames`, in their order.
pub(super) fn ranges(tables: &[Table], frames: &[FrameAt]) -> Vec<PayloadRange> {
    let mut ranges: Vec<PayloadRange> = Vec::new();
    for &(step, index) in frames {
        let offsets = &tables[step].1;
        let (start, end) = (offsets[index], offsets[index + 1]);
        let open = ranges.last_mut().filter(|open| {
            let gap = start.checked_sub(open.start + open.len);
            let fits = end.saturating_sub(open.start) <= REQUEST_BYTES_MAX;
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
    /// Why frames of a delta were of no use: how many, and the first reason.
    failed: HashMap<usize, (usize, String)>,
}

impl<'a> Work<'a> {
    pub(super) fn new(steps: &'a [Step], tables: &'a [Table], kitchen: &'a Kitchen<'a>) -> Work<'a> {
        let (bad, failed) = (HashSet::new(), HashMap::new());
        Work { steps, tables, kitchen, bad, notes: Vec::new(), bytes: 0, failed }
    }

    /// Fetches and uses `frames`, which are in order.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Io`] for what is kept.
    pub(super) fn run(&mut self, frames: &[FrameAt]) -> Result<()> {
        let ranges = ranges(self.tables, frames);
        let bytes = ranges.iter().map(|range| range.len).sum();
        let chunks = frames.iter().map(|at| self.frame(*at).outputs.len() as u64).sum();
        let (steps, tables, kitchen) = (self.steps, self.tables, self.kitchen);
        kitchen.progress.start("fetching", chunks, bytes);
        let ranges = &ranges;
        // No room in between: at most one range waits while another is decoded.
        let (send, receive) = sync_channel(0);
        let done = std::thread::scope(|scope| {
            scope.spawn(move || {
                for range in ranges {
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
        for (step, (count, why)) in std::mem::take(&mut self.failed) {
            let delta = short(&self.steps[step].entry.delta);
            self.notes.push(format!(
                "delta {delta}: {count} of its frames were of no use, their chunks come from packs: {why}"
            ));
        }
        done
    }

    fn frame(&self, (step, index): FrameAt) -> &'a DeltaFrame {
        &self.tables[step].0.frames[index]
    }

    /// Makes the chunks of a range's frames.
    fn use_range(&mut self, range: &PayloadRange, fetched: Result<Vec<u8>>) -> Result<()> {
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(e) => {
                for index in &range.frames {
                    self.give_up((range.step, *index), &e.to_string());
                }
                return Ok(());
            }
        };
        self.bytes += bytes.len() as u64;
        for index in &range.frames {
            self.kitchen.progress.check_cancelled()?;
            let at = (range.step, *index);
            let frame = self.frame(at);
            let place = place(&self.tables[range.step].1, *index, range.start);
            let payload = bytes.get(place).filter(|payload| frame.is_payload(payload));
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
    fn make(&self, frame: &DeltaFrame, payload: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let mut base = Vec::new();
        for chunk in &frame.bases {
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
        Ok(())
    }

    fn give_up(&mut self, at: FrameAt, why: &str) {
        if self.bad.insert(at) {
            self.failed.entry(at.0).or_insert_with(|| (0, why.to_owned())).0 += 1;
        }
    }
}

/// Where a frame's payload is in the bytes from `start` on.
fn place(offsets: &[u64], index: usize, start: u64) -> Range<usize> {
    let at = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
    at(offsets[index])..at(offsets[index + 1])
}

/// The bytes of a range: from a server that has every payload in it as the table says, if there is one.
fn fetch(store: &Store, step: &Step, delta: &Delta, range: &PayloadRange) -> Result<Vec<u8>> {
    let name = ObjectName::Delta(step.entry.delta);
    let missing = || Error::MissingObject { object: name.to_string() };
    let object = store.backend().open(&name)?.ok_or_else(missing)?;
    let len = usize::try_from(range.len).map_err(|_| missing())?;
    let offsets = delta.payload_offsets(step.entry.head_len);
    let mut all_sound = |bytes: &[u8]| {
        let is_sound = |index: &usize| {
            let payload = bytes.get(place(&offsets, *index, range.start));
            payload.is_some_and(|payload| delta.frames[*index].is_payload(payload))
        };
        if range.frames.iter().all(is_sound) {
            return Ok(());
        }
        Err(Error::HashMismatch { object: name.to_string(), actual: "something else".into() })
    };
    match object.read_part(range.start, len, &mut all_sound) {
        // Nobody has all of it sound: then that part of it which is.
        Err(Error::HashMismatch { .. }) => object.read_part(range.start, len, &mut crate::backend::unchecked),
        read => read,
    }
}
