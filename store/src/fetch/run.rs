// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries a plan out: several requests at a time, and every record is verified before it is kept.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::near::Near;
use super::plan::{FetchPlan, PackRange};
use crate::backend::ObjectName;
use crate::compress::Decompressor;
use crate::error::{Error, ErrorKind, Result};
use crate::format::pack::Encoding;
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::store::Store;

/// Fetches what `plan` says into `near`. A chunk that no server gives as it should be is left out: who needs it will find
/// that out, and look elsewhere.
///
/// # Errors
/// [`Error::Fetch`] when the servers cannot be asked any further; [`Error::Interrupted`]; [`Error::Io`] for what is kept.
pub(crate) fn run(store: &Store, plan: &FetchPlan, near: &Near, at_once: usize, progress: &Progress) -> Result<()> {
    progress.start("fetching", plan.chunks, plan.bytes);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first_error = Mutex::new(None);
    let work = || {
        while let Some(range) = plan.ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = progress.check_cancelled().and_then(|()| fetch_range(store, range, near)) {
                failed.store(true, Ordering::Relaxed);
                first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
            progress.advance(range.chunks.len() as u64, range.len);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(plan.ranges.len()) {
            scope.spawn(work);
        }
    });
    first_error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn fetch_range(store: &Store, range: &PackRange, near: &Near) -> Result<()> {
    let name = ObjectName::Pack(range.pack);
    let Some(pack) = store.backend().open(&name)? else { return Ok(()) };
    let Ok(len) = usize::try_from(range.len) else { return Ok(()) };
    let mut verifier = Verifier::new(store)?;
    let mut all_sound = |bytes: &[u8]| match range.chunks.iter().find(|chunk| !verifier.is_sound(range, chunk, bytes)) {
        None => Ok(()),
        Some((id, _)) => Err(Error::HashMismatch {
            object: format!("{name} (chunk {})", id.short(16)),
            actual: "something else".into(),
        }),
    };
    let read = pack.read_part(range.start, len, &mut all_sound);
    let is_sound = read.is_ok();
    let read = match read {
        // Nobody has all of it sound: then that part of it which is.
        Err(Error::HashMismatch { .. }) => pack.read_part(range.start, len, &mut crate::backend::unchecked),
        read => read,
    };
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::Damaged => return Ok(()),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(e) => return Err(e),
    };
    for chunk in &range.chunks {
        let (id, at) = chunk;
        if let Some(stored) = record(range, chunk, &bytes)
            && (is_sound || verifier.is_sound(range, chunk, &bytes))
        {
            near.insert(*id, at.encoding, at.plain_len, stored)?;
        }
    }
    Ok(())
}

type Chunk = (ChunkId, crate::format::table::Location);

/// A chunk's record in the bytes of a range.
fn record<'b>(range: &PackRange, (_, at): &Chunk, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let start = usize::try_from(at.offset.checked_sub(range.start)?).ok()?;
    let len = usize::try_from(at.stored_len).ok()?;
    bytes.get(start..start.checked_add(len)?)
}

struct Verifier {
    decompressor: Decompressor,
    plain: Vec<u8>,
}

impl Verifier {
    fn new(store: &Store) -> Result<Verifier> {
        let decompressor = Decompressor::new().map_err(|e| Error::io("set up decoder for", store.path(), e))?;
        Ok(Verifier { decompressor, plain: Vec::new() })
    }

    /// Whether a record is the chunk that it should be. One that needs a dictionary is believed until it is read.
    fn is_sound(&mut self, range: &PackRange, chunk: &Chunk, bytes: &[u8]) -> bool {
        let (id, at) = chunk;
        let Some(stored) = record(range, chunk, bytes) else { return false };
        if let Encoding::ZstdDict(_) = at.encoding {
            return true;
        }
        let decoded = self.decompressor.decompress(at.encoding, stored, at.plain_len, None, &mut self.plain);
        decoded.is_ok() && ChunkId::of(&self.plain) == *id
    }
}
