// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store in one file, to be read (format-spec §80).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Backend, Check, Listing, Loaded, Object, ObjectName};
use crate::error::{Error, Result};
use crate::format::DecodeError;
use crate::format::bundle::{BundleHead, BundleKind, HEADER_LEN, MAGIC, TRAILER_LEN};
use crate::fsio::OpenFile;
use crate::id::{DeltaId, PackId, SegmentId, SnapshotId};
use crate::progress::Progress;

/// Bytes that are hashed at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Objects as parts of one file.
#[derive(Debug)]
pub struct BundleBackend {
    file: Arc<OpenFile>,
    path: PathBuf,
    head: BundleHead,
    /// Where each object starts, and its length.
    places: BTreeMap<ObjectName, (u64, u64)>,
}

impl BundleBackend {
    /// Whether a file begins as a bundle does.
    pub fn is_one(path: &Path) -> bool {
        let mut begin = [0; MAGIC.len()];
        let read = OpenFile::open(path).and_then(|file| file.read_exact_at(&mut begin, 0));
        read.is_ok() && begin == *MAGIC
    }

    /// Opens a bundle and checks its head, and that the file is as long as it should be.
    ///
    /// # Errors
    /// [`Error::Decode`] for a file that is none, is damaged there, or was cut short; [`Error::Io`].
    pub fn open(path: &Path) -> Result<BundleBackend> {
        let file = OpenFile::open(path)?;
        let damaged = |source: DecodeError| Error::Decode { object: path.display().to_string(), source };
        let mut bytes = vec![0; HEADER_LEN.min(usize::try_from(file.len()).unwrap_or(HEADER_LEN))];
        file.read_exact_at(&mut bytes, 0)?;
        if let Some(header) = bytes.first_chunk::<HEADER_LEN>() {
            let head_len = BundleHead::len_of(header).map_err(damaged)?;
            // Not more than the file has is allocated.
            let there = usize::try_from(file.len()).unwrap_or(usize::MAX);
            bytes.resize(head_len.min(there), 0);
            file.read_exact_at(&mut bytes, 0)?;
        }
        let head = BundleHead::decode(&bytes, file.len()).map_err(damaged)?;
        let named = head.offsets().filter_map(|(entry, start)| {
            let name = name_of(BundleKind::from_code(entry.kind)?, entry.id);
            Some((name, (start, entry.len)))
        });
        let places = named.collect();
        Ok(BundleBackend { file: Arc::new(file), path: path.to_path_buf(), head, places })
    }

    /// What it says it is.
    pub fn head(&self) -> &BundleHead {
        &self.head
    }

    /// Hashes the whole file and compares with its trailer.
    ///
    /// # Errors
    /// [`Error::HashMismatch`]; [`Error::Interrupted`]; [`Error::Io`].
    pub fn verify(&self, progress: &Progress) -> Result<()> {
        let end = self.head.file_len() - TRAILER_LEN as u64;
        progress.start("verifying", 0, end);
        let (mut hasher, mut buffer, mut at) = (blake3::Hasher::new(), vec![0; BUFFER_BYTES], 0);
        while at < end {
            progress.check_cancelled()?;
            let len = usize::try_from(end - at).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            self.file.read_exact_at(&mut buffer[..len], at)?;
            hasher.update(&buffer[..len]);
            at += len as u64;
            progress.advance(0, len as u64);
        }
        let mut trailer = [0; TRAILER_LEN];
        self.file.read_exact_at(&mut trailer, end)?;
        let actual = *hasher.finalize().as_bytes();
        if actual == trailer {
            return Ok(());
        }
        Err(Error::HashMismatch { object: self.path.display().to_string(), actual: crate::id::encode_hex(&actual) })
    }

    fn part(&self, name: &ObjectName) -> Option<Part> {
        let (start, len) = *self.places.get(name)?;
        Some(Part { file: Arc::clone(&self.file), name: *name, start, len })
    }

    fn ids<T>(&self, of: impl Fn(&ObjectName) -> Option<T>) -> Vec<T> {
        self.places.keys().filter_map(of).collect()
    }
}

/// The name of an object of a known kind.
fn name_of(kind: BundleKind, id: [u8; 32]) -> ObjectName {
    match kind {
        BundleKind::Format => ObjectName::Format,
        BundleKind::SnapshotIndex => ObjectName::SnapshotIndex,
        BundleKind::Snapshot => ObjectName::Snapshot(SnapshotId(id)),
        BundleKind::SegmentsCurrent => ObjectName::SegmentsCurrent,
        BundleKind::Segment => ObjectName::Segment(SegmentId(id)),
        BundleKind::Locator => ObjectName::Locator(SnapshotId(id)),
        BundleKind::DeltaIndex => ObjectName::DeltaIndex(SnapshotId(id)),
        BundleKind::Delta => ObjectName::Delta(DeltaId(id)),
        BundleKind::Pack => ObjectName::Pack(PackId(id)),
    }
}

/// One object of a bundle.
#[derive(Debug)]
struct Part {
    file: Arc<OpenFile>,
    name: ObjectName,
    start: u64,
    len: u64,
}

impl Part {
    fn all(&self, cap: u64) -> Result<Vec<u8>> {
        let len = usize::try_from(self.len).ok().filter(|_| self.len <= cap);
        let len = len.ok_or_else(|| Error::too_long(&self.name.to_string(), self.len, cap))?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, self.start)?;
        Ok(bytes)
    }
}

impl Object for Part {
    fn size(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_checked_at(&self, buffer: &mut [u8], offset: u64, check: Check<'_>) -> Result<()> {
        // What lies behind the object is another one's.
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(Error::io("read", self.file.path(), source));
        }
        self.file.read_exact_at(buffer, self.start + offset)?;
        check(buffer)
    }
}

impl Backend for BundleBackend {
    fn path(&self) -> &Path {
        &self.path
    }

    fn dir(&self) -> Option<&Path> {
        None
    }

    fn read_checked(&self, name: &ObjectName, cap: u64, check: Check<'_>) -> Result<Option<Vec<u8>>> {
        let Some(part) = self.part(name) else { return Ok(None) };
        let bytes = part.all(cap)?;
        check(&bytes)?;
        Ok(Some(bytes))
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Arc<dyn Object>>> {
        Ok(self.part(name).map(|part| Arc::new(part) as Arc<dyn Object>))
    }

    fn load(&self, name: &ObjectName, hash: &[u8; 32], cap: u64) -> Result<Option<Loaded>> {
        let Some(part) = self.part(name) else { return Ok(None) };
        let bytes = part.all(cap)?;
        let actual = *blake3::hash(&bytes).as_bytes();
        if actual != *hash {
            return Err(Error::HashMismatch { object: name.to_string(), actual: crate::id::encode_hex(&actual) });
        }
        Ok(Some(Loaded::Read(bytes)))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<u64>> {
        Ok(self.places.get(name).map(|(_, len)| *len))
    }

    fn listing(&self) -> Option<&dyn Listing> {
        Some(self)
    }

    fn bundle(&self) -> Option<&BundleHead> {
        Some(&self.head)
    }
}

impl Listing for BundleBackend {
    fn list_packs(&self) -> Result<Vec<PackId>> {
        Ok(self.list_packs_past(&mut Vec::new()))
    }

    fn list_packs_past(&self, _troubles: &mut Vec<Error>) -> Vec<PackId> {
        self.ids(|name| if let ObjectName::Pack(id) = name { Some(*id) } else { None })
    }

    fn list_segments(&self) -> Result<Vec<SegmentId>> {
        Ok(self.ids(|name| if let ObjectName::Segment(id) = name { Some(*id) } else { None }))
    }

    fn list_snapshots(&self) -> Result<Vec<SnapshotId>> {
        Ok(self.ids(|name| if let ObjectName::Snapshot(id) = name { Some(*id) } else { None }))
    }

    fn list_locators(&self) -> Result<Vec<SnapshotId>> {
        Ok(self.ids(|name| if let ObjectName::Locator(id) = name { Some(*id) } else { None }))
    }
}
