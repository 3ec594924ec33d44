// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records → pack file, written once from front to back and hashed on the way.

use crate::backend::{ObjectName, Writing};
use crate::error::{Error, Result};
use crate::format::pack::{self, Encoding, PackEntry, PackKind};
use crate::format::table::{Location, TablePack};
use crate::fsio::TempFile;
use crate::id::{ChunkId, PackId};
use crate::limits;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// A pack being written. Nothing of it is visible before [`FinishedPack::publish`].
#[derive(Debug)]
pub struct PackWriter {
    kind: PackKind,
    file: TempFile,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    offset: u64,
    entries: Vec<PackEntry>,
}

impl PackWriter {
    /// Starts a pack.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(backend: &dyn Writing, kind: PackKind) -> Result<PackWriter> {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + (64 << 10));
        let header = pack::encode_header(kind);
        buffer.extend_from_slice(&header);
        Ok(PackWriter {
            kind,
            file: backend.create_temp()?,
            hasher: blake3::Hasher::new(),
            buffer,
            offset: header.len() as u64,
            entries: Vec::new(),
        })
    }

    /// Appends a record. The caller gives each id once.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn push(&mut self, id: ChunkId, plain_len: u32, encoding: Encoding, stored: &[u8]) -> Result<()> {
        let stored_len = u32::try_from(stored.len()).map_err(|_| Error::LimitExceeded {
            what: "length of a record",
            found: stored.len() as u64,
            limit: u64::from(limits::CHUNK_BYTES_MAX),
        })?;
        self.entries.push(PackEntry { id, offset: self.offset, stored_len, plain_len, encoding });
        self.offset += u64::from(stored_len);
        self.buffer.extend_from_slice(stored);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Bytes in the file so far, without the footer.
    pub fn len(&self) -> u64 {
        self.offset
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether nothing more fits a pack of `target` bytes.
    pub fn is_full(&self, target: u64) -> bool {
        self.offset >= target || self.entries.len() as u64 >= u64::from(limits::PACK_ENTRIES_MAX)
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes footer and trailer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<FinishedPack> {
        self.buffer.extend_from_slice(&pack::encode_footer(&self.entries));
        self.flush()?;
        let id = PackId(*self.hasher.finalize().as_bytes());
        let pack = TablePack { id, len: self.file.len(), kind: self.kind };
        Ok(FinishedPack { pack, file: self.file, entries: self.entries })
    }
}

/// A complete pack that has no name yet.
#[derive(Debug)]
pub struct FinishedPack {
    /// Name, length and kind.
    pub pack: TablePack,
    file: TempFile,
    entries: Vec<PackEntry>,
}

impl FinishedPack {
    /// Its records as an index holds them.
    pub fn locations(&self) -> impl Iterator<Item = (ChunkId, Location)> + '_ {
        self.entries.iter().map(|entry| (entry.id, super::reader::location(self.pack.id, entry)))
    }

    /// Makes the content durable and gives it its name; the name is durable after [`Writing::sync_names`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn publish(self, backend: &dyn Writing) -> Result<()> {
        backend.publish_temp(self.file, &ObjectName::Pack(self.pack.id))
    }
}
