// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries a plan out: several requests at a time. Every record is verified and kept as soon as it has come, so that an end in
//! the middle of a range costs no more than one record.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::near::Near;
use super::plan::{FetchPlan, PackRange};
use crate::backend::ObjectName;
use crate::compress::Decompressor;
use crate::error::{Error, ErrorKind, Result};
use crate::format::pack::Encoding;
use crate::format::table::Location;
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::store::Store;

/// Fetches what `plan` says into `near`. Chunks that no server gives as they should be are left out and given back: they
/// may be elsewhere.
///
/// # Errors
/// [`Error::Fetch`] when the servers cannot be asked any further; [`Error::Interrupted`]; [`Error::Io`] for what is kept.
pub(crate) fn run(
    store: &Store,
    plan: &FetchPlan,
    near: &Near,
    at_once: usize,
    progress: &Progress,
) -> Result<Vec<ChunkId>> {
    progress.start("fetching", plan.chunks, plan.bytes);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (first_error, left_out) = (Mutex::new(None), Mutex::new(Vec::new()));
    let work = || {
        while let Some(range) = plan.ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            match progress.check_cancelled().and_then(|()| fetch_range(store, range, near, progress)) {
                Ok(left) => left_out.lock().unwrap_or_else(PoisonError::into_inner).extend(left),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(plan.ranges.len()) {
            scope.spawn(work);
        }
    });
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(left_out.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Fetches a range, and gives the chunks that nobody has sound in it.
fn fetch_range(store: &Store, range: &PackRange, near: &Near, progress: &Progress) -> Result<Vec<ChunkId>> {
    let all = || range.chunks.iter().map(|(id, _)| *id).collect();
    let Some(pack) = store.backend().open(&ObjectName::Pack(range.pack))? else { return Ok(all()) };
    let Ok(len) = usize::try_from(range.len) else { return Ok(all()) };
    let harvest = RefCell::new(Harvest::new(store, range, near, progress)?);
    let mut seen = |bytes: &[u8]| harvest.borrow_mut().see(bytes);
    let mut check = |bytes: &[u8]| harvest.borrow_mut().finish(bytes);
    let read = pack.read_part_seen(range.start, len, &mut seen, &mut check);
    let harvest = harvest.into_inner();
    match read {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::Damaged => {}
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Err(e) => return Err(e),
    }
    progress.advance(0, range.len.saturating_sub(harvest.shown));
    Ok(harvest.left().map(|(id, _)| *id).collect())
}

type Chunk = (ChunkId, Location);

/// Takes the records of a range out of bytes as they come, from whatever server.
struct Harvest<'a> {
    range: &'a PackRange,
    near: &'a Near,
    progress: &'a Progress,
    decompressor: Decompressor,
    plain: Vec<u8>,
    /// Which records are kept.
    is_kept: Vec<bool>,
    /// The first record that was not looked at in these bytes.
    next: usize,
    /// Bytes that were there the last time.
    len: usize,
    /// Most bytes that there were: that much progress was shown.
    shown: u64,
    /// What kept it from keeping.
    failed: Option<Error>,
}

impl<'a> Harvest<'a> {
    fn new(store: &Store, range: &'a PackRange, near: &'a Near, progress: &'a Progress) -> Result<Harvest<'a>> {
        let decompressor = Decompressor::new().map_err(|e| Error::io("set up decoder for", store.path(), e))?;
        let is_kept = vec![false; range.chunks.len()];
        let (plain, failed) = (Vec::new(), None);
        Ok(Harvest { range, near, progress, decompressor, plain, is_kept, next: 0, len: 0, shown: 0, failed })
    }

    /// Keeps what is new in `bytes`, which is how the range begins.
    fn see(&mut self, bytes: &[u8]) {
        if bytes.len() < self.len {
            // It begins anew.
            self.next = 0;
        }
        self.len = bytes.len();
        self.progress.advance(0, (bytes.len() as u64).saturating_sub(self.shown));
        self.shown = self.shown.max(bytes.len() as u64);
        while self.next < self.range.chunks.len() && record(self.range, &self.range.chunks[self.next], bytes).is_some()
        {
            self.take(self.next, bytes);
            self.next += 1;
        }
    }

    /// Keeps what was not kept yet. An error when something is missing after that.
    fn finish(&mut self, bytes: &[u8]) -> Result<()> {
        (0..self.is_kept.len()).for_each(|index| self.take(index, bytes));
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.left().next() {
            None => Ok(()),
            Some((id, at)) => Err(Error::HashMismatch {
                object: format!("{} (chunk {})", ObjectName::Pack(at.pack), id.short(16)),
                actual: "something else".into(),
            }),
        }
    }

    fn left(&self) -> impl Iterator<Item = &'a Chunk> {
        self.range.chunks.iter().zip(&self.is_kept).filter(|(_, is_kept)| !**is_kept).map(|(chunk, _)| chunk)
    }

    fn take(&mut self, index: usize, bytes: &[u8]) {
        let chunk = &self.range.chunks[index];
        let Some(stored) = record(self.range, chunk, bytes).filter(|_| !self.is_kept[index]) else { return };
        if !self.is_sound(chunk, stored) {
            return;
        }
        let (id, at) = chunk;
        match self.near.insert(*id, at.encoding, at.plain_len, stored) {
            Ok(()) => {
                self.is_kept[index] = true;
                self.progress.advance(1, 0);
            }
            Err(error) => drop(self.failed.get_or_insert(error)),
        }
    }

    /// Whether a record is the chunk that it should be. One that needs a dictionary is believed until it is read.
    fn is_sound(&mut self, (id, at): &Chunk, stored: &[u8]) -> bool {
        if let Encoding::ZstdDict(_) = at.encoding {
            return true;
        }
        let decoded = self.decompressor.decompress(at.encoding, stored, at.plain_len, None, &mut self.plain);
        decoded.is_ok() && ChunkId::of(&self.plain) == *id
    }
}

/// A chunk's record in the bytes of a range.
fn record<'b>(range: &PackRange, (_, at): &Chunk, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let start = usize::try_from(at.offset.checked_sub(range.start)?).ok()?;
    let len = usize::try_from(at.stored_len).ok()?;
    bytes.get(start..start.checked_add(len)?)
}
