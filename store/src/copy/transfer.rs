// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records from the packs of one store into packs of another. Each is decoded and hashed on the way, and moved as it is
//! stored.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::CopyOptions;
use super::needed::Needed;
use crate::commit::{DEFAULT_LEVEL, publish::sync_packs};
use crate::compress::Compressor;
use crate::error::{Error, Result};
use crate::format::pack::{ENTRY_LEN, Encoding, HEADER_LEN, PackKind, TRAILER_LEN};
use crate::format::table::TablePack;
use crate::id::{ChunkId, PackId};
use crate::pack::PackWriter;
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};
use crate::segment::PackRecords;
use crate::store::Store;

/// Bytes that are fetched from afar before what came is packed: twice as much is on the disk for a while.
const BATCH_BYTES: u64 = 256 << 20;

pub(super) struct Transfer<'a> {
    pub(super) from: &'a ChunkReader,
    pub(super) to: &'a Store,
    pub(super) options: &'a CopyOptions,
    /// Where fetched records are kept.
    pub(super) spool: &'a Path,
    pub(super) progress: &'a Progress,
}

/// Needed chunks of one pack, in its order.
#[derive(Debug)]
struct Group {
    kind: PackKind,
    /// Whether this is all that the pack holds: it then comes out as it is.
    is_whole: bool,
    chunks: Vec<ChunkId>,
    stored_bytes: u64,
}

impl Transfer<'_> {
    /// Moves everything. The packs are durable afterwards and no segment names them yet.
    pub(super) fn run(&self, lacking: Needed) -> Result<PackRecords> {
        let mut groups = self.groups(lacking);
        let mut moved = PackRecords::default();
        let batch_bytes = if self.from.is_far() { BATCH_BYTES } else { u64::MAX };
        while !groups.is_empty() {
            let ends = groups.iter().scan(0u64, |end, group| {
                *end = end.saturating_add(group.stored_bytes);
                Some(*end)
            });
            let count = ends.take_while(|end| *end <= batch_bytes).count().max(1);
            let batch: Vec<Group> = groups.drain(..count).collect();
            self.from.fetch_ahead(batch.iter().flat_map(|group| group.chunks.iter().copied()), self.progress)?;
            let done = self.pack(&batch)?;
            sync_packs(self.to, &done.packs)?;
            moved.packs.extend(done.packs);
            moved.records.extend(done.records);
            if self.from.is_far() && !groups.is_empty() {
                self.from.near().drop_file()?;
                self.from.near().keep_in(self.spool)?;
            }
        }
        Ok(moved)
    }

    /// The chunks by the pack that they are in.
    fn groups(&self, lacking: Needed) -> Vec<Group> {
        let packs: HashMap<PackId, TablePack> = self.from.packs().into_iter().map(|pack| (pack.id, pack)).collect();
        let mut by_pack = BTreeMap::new();
        let mut unlocated = Vec::new();
        for (id, kind) in lacking {
            match self.from.locate(&id) {
                Some(at) => by_pack.entry(at.pack).or_insert_with(Vec::new).push((at.offset, id, kind, at.stored_len)),
                // No index tells of it. Reading it looks further, and says what is wrong.
                None => unlocated.push(Group { kind, is_whole: false, chunks: vec![id], stored_bytes: 0 }),
            }
        }
        let of_pack = |(id, mut chunks): (PackId, Vec<(u64, ChunkId, PackKind, u32)>)| {
            chunks.sort_unstable();
            let stored_bytes = chunks.iter().map(|(.., stored_len)| u64::from(*stored_len)).sum::<u64>();
            let around = (HEADER_LEN + TRAILER_LEN + chunks.len() * ENTRY_LEN) as u64;
            let pack = packs.get(&id);
            Group {
                kind: pack.map_or(chunks[0].2, |pack| pack.kind),
                is_whole: pack.is_some_and(|pack| pack.len == stored_bytes + around),
                chunks: chunks.into_iter().map(|(_, id, ..)| id).collect(),
                stored_bytes,
            }
        };
        by_pack.into_iter().map(of_pack).chain(unlocated).collect()
    }

    /// Writes the groups into packs, by several threads.
    fn pack(&self, groups: &[Group]) -> Result<PackRecords> {
        let chunks = groups.iter().map(|group| group.chunks.len() as u64).sum();
        self.progress.start("copying", chunks, groups.iter().map(|group| group.stored_bytes).sum());
        let (next, done, first_error) = (AtomicUsize::new(0), Mutex::default(), Mutex::new(None));
        let work = || {
            let outcome = Worker::new(self, &done).and_then(|mut worker| {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    worker.group(group)?;
                }
                worker.finish()
            });
            if let Err(error) = outcome {
                next.store(groups.len(), Ordering::Relaxed);
                first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads().min(groups.len()) {
                scope.spawn(work);
            }
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn threads(&self) -> usize {
        match self.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// One thread, with a pack of its own of either kind.
struct Worker<'a> {
    transfer: &'a Transfer<'a>,
    done: &'a Mutex<PackRecords>,
    scratch: ReadScratch,
    compressor: Compressor,
    data: Option<PackWriter>,
    manifests: Option<PackWriter>,
}

impl<'a> Worker<'a> {
    fn new(transfer: &'a Transfer<'a>, done: &'a Mutex<PackRecords>) -> Result<Worker<'a>> {
        let failed = |e| Error::io("set up compressor for", transfer.to.path(), e);
        let compressor = Compressor::new(DEFAULT_LEVEL).map_err(failed)?;
        Ok(Worker { transfer, done, scratch: ReadScratch::default(), compressor, data: None, manifests: None })
    }

    fn group(&mut self, group: &Group) -> Result<()> {
        let open = match group.kind {
            PackKind::Data => &mut self.data,
            PackKind::Manifest => &mut self.manifests,
        };
        let mut writer = if group.is_whole { None } else { open.take() };
        let pack_size = self.transfer.to.format().pack_size;
        for id in &group.chunks {
            self.transfer.progress.check_cancelled()?;
            let mut at = match writer.take() {
                Some(writer) => writer,
                None => PackWriter::create(self.transfer.to.writing()?, group.kind)?,
            };
            push(self.transfer, &mut self.scratch, &mut self.compressor, id, &mut at)?;
            match at.is_full(pack_size) && !group.is_whole {
                true => publish(self.transfer, self.done, at)?,
                false => writer = Some(at),
            }
        }
        match (writer, group.is_whole, group.kind) {
            (Some(writer), true, _) => publish(self.transfer, self.done, writer)?,
            (rest, _, PackKind::Data) => self.data = rest.or(self.data.take()),
            (rest, _, PackKind::Manifest) => self.manifests = rest.or(self.manifests.take()),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        for writer in [self.data.take(), self.manifests.take()].into_iter().flatten() {
            publish(self.transfer, self.done, writer)?;
        }
        Ok(())
    }
}

/// Appends a chunk to a pack: its record as it is stored, or a new one where that needs a dictionary.
fn push(
    transfer: &Transfer<'_>,
    scratch: &mut ReadScratch,
    compressor: &mut Compressor,
    id: &ChunkId,
    writer: &mut PackWriter,
) -> Result<()> {
    let record = transfer.from.read_record(id, scratch)?;
    let plain = record.chunk.plain();
    let plain_len = u32::try_from(plain.len()).expect("a chunk is no longer than the format allows");
    let (encoding, stored) = match record.stored {
        Some((encoding @ (Encoding::Raw | Encoding::Zstd), stored)) => (encoding, stored),
        Some((Encoding::ZstdDict(_), _)) | None => compressor.compress(plain),
    };
    writer.push(*id, plain_len, encoding, stored)?;
    transfer.progress.advance(1, stored.len() as u64);
    transfer.progress.stored(stored.len() as u64);
    Ok(())
}

fn publish(transfer: &Transfer<'_>, done: &Mutex<PackRecords>, writer: PackWriter) -> Result<()> {
    let finished = writer.finish()?;
    let (pack, records) = (finished.pack, finished.locations().collect::<Vec<_>>());
    finished.publish(transfer.to.writing()?)?;
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    done.packs.push(pack);
    done.records.extend(records);
    Ok(())
}
