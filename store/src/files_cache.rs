// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which inode held which entry: one sorted local file per area, merge-joined with a walk.
//!
//! `commit` uses it to read only files that changed; `checkout` as its memory of what it delivered. An entry's bytes are
//! kept as they stand in a manifest leaf, so an unchanged entry is never decoded and encoded again.
//!
//! Local and rebuildable: the file ends in a hash of itself, and a file that does not fit its hash is as good as none.
//! Its layout is described in `docs/design/files-cache.md` and may change with any release.

use std::path::Path;

use crate::error::{Error, Result};
use crate::format::manifest::{Entry, Timestamp, peek_path};
use crate::fsio::{self, OpenFile, Stat, TempFile};
use crate::id::{ChunkId, SnapshotId};
use crate::path::TreePath;

const MAGIC: &[u8; 8] = b"EKFILES1";
const HEADER_LEN: usize = 8 + 32 + 32 + 8;
const RECORD_HEAD_LEN: usize = 1 + 4;
const FINGERPRINT_LEN: usize = 4 + 4 + 8 + 8 + 12 + 12;
const HASH_LEN: usize = 32;
/// Longest encoded entry that is believed: more than any node may hold.
const ENTRY_LEN_MAX: u32 = crate::limits::NODE_BYTES_MAX;
const BUFFER_BYTES: usize = 1 << 20;

/// What tells that an inode's content and metadata are as they were: any write or change of metadata moves the ctime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Device.
    pub dev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// Size.
    pub size: u64,
    /// Content modification time.
    pub mtime: Timestamp,
    /// Inode change time.
    pub ctime: Timestamp,
}

impl Fingerprint {
    /// Of a `statx` result, whatever the time is.
    pub fn of(stat: &Stat) -> Fingerprint {
        Fingerprint { dev: stat.dev, ino: stat.ino, size: stat.size, mtime: stat.mtime, ctime: stat.ctime }
    }

    /// Of a `statx` result that proves something: `None` if the inode changed at or after `start` (by the kernel's coarse
    /// clock), because a further change in the same tick would not show.
    pub fn settled(stat: &Stat, start: Timestamp) -> Option<Fingerprint> {
        (stat.ctime < start).then(|| Fingerprint::of(stat))
    }
}

/// What a cache belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheHeader {
    /// The snapshot whose entries these are.
    pub snapshot: SnapshotId,
    /// Manifest head of the area in it.
    pub manifest: ChunkId,
    /// Number of records.
    pub records: u64,
}

/// Whether an entry belongs to the snapshot of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// It does.
    Current,
    /// It was delivered by an earlier snapshot, has since been dropped, and was left in place.
    Dropped,
    /// It belongs to the snapshot of the header and was not delivered: rules of this machine excluded it.
    Outside,
}

impl RecordState {
    const DROPPED: u8 = 2;
    const OUTSIDE: u8 = 4;

    fn flag(self) -> u8 {
        match self {
            RecordState::Current => 0,
            RecordState::Dropped => Self::DROPPED,
            RecordState::Outside => Self::OUTSIDE,
        }
    }

    fn of_flags(flags: u8) -> RecordState {
        match flags & (Self::DROPPED | Self::OUTSIDE) {
            0 => RecordState::Current,
            Self::DROPPED => RecordState::Dropped,
            _ => RecordState::Outside,
        }
    }
}

/// One path of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// Whether it belongs to the snapshot of the header.
    pub state: RecordState,
    /// The inode that held it; `None` when nothing proves that it still does.
    pub fingerprint: Option<Fingerprint>,
    /// The entry as a manifest leaf holds it.
    pub entry: Vec<u8>,
}

impl CacheRecord {
    /// The entry's path.
    ///
    /// # Errors
    /// [`Error::Decode`] for bytes that are no entry.
    pub fn path(&self) -> Result<TreePath> {
        let invalid = |_| Error::Refused { reason: "invalid path in a files cache".into(), hint: None };
        TreePath::new(self.path_bytes()?).map_err(invalid)
    }

    /// The entry's path as bytes, without a copy.
    ///
    /// # Errors
    /// [`Error::Decode`] for bytes that are no entry.
    pub fn path_bytes(&self) -> Result<&[u8]> {
        peek_path(&self.entry).map_err(damaged)
    }

    /// The decoded entry.
    ///
    /// # Errors
    /// [`Error::Decode`] for bytes that are no entry.
    pub fn decode(&self) -> Result<Entry> {
        decode_entry(&self.entry)
    }
}

/// An entry as a record holds it.
pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Entry> {
    Entry::decode_prefix(bytes).map(|(entry, _)| entry).map_err(damaged)
}

fn damaged(source: crate::format::DecodeError) -> Error {
    Error::Decode { object: "files cache".into(), source }
}

/// Writes a cache in the order of [`TreePath`].
#[derive(Debug)]
pub struct CacheWriter {
    file: TempFile,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    records: u64,
}

impl CacheWriter {
    /// Starts a cache in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(dir: &Path) -> Result<CacheWriter> {
        let mut file = TempFile::create(dir)?;
        // The header is known, and written, last.
        file.write(&[0; HEADER_LEN])?;
        let buffer = Vec::with_capacity(BUFFER_BYTES + 4096);
        Ok(CacheWriter { file, hasher: blake3::Hasher::new(), buffer, records: 0 })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn push(&mut self, state: RecordState, fingerprint: Option<&Fingerprint>, entry: &[u8]) -> Result<()> {
        let len = u32::try_from(entry.len()).ok().filter(|len| *len <= ENTRY_LEN_MAX);
        let len = len.ok_or(Error::LimitExceeded {
            what: "length of an entry",
            found: entry.len() as u64,
            limit: u64::from(ENTRY_LEN_MAX),
        })?;
        let flags = u8::from(fingerprint.is_some()) | state.flag();
        self.buffer.push(flags);
        self.buffer.extend_from_slice(&len.to_le_bytes());
        if let Some(fingerprint) = fingerprint {
            encode_fingerprint(fingerprint, &mut self.buffer);
        }
        self.buffer.extend_from_slice(entry);
        self.records += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Ends writing and reads back what was written, in order. The file is gone afterwards.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn into_records(mut self) -> Result<CacheReader> {
        self.flush()?;
        let header = CacheHeader { snapshot: SnapshotId([0; 32]), manifest: ChunkId([0; 32]), records: self.records };
        let file = self.file.reopen()?;
        let end = file.len();
        Ok(CacheReader { file, header, at: HEADER_LEN as u64, end, buffer: Vec::new(), used: 0 })
    }

    /// Completes the cache and makes it durable as `target`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self, target: &Path, snapshot: SnapshotId, manifest: ChunkId) -> Result<()> {
        self.flush()?;
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(snapshot.as_bytes());
        header.extend_from_slice(manifest.as_bytes());
        header.extend_from_slice(&self.records.to_le_bytes());
        // The hash covers records, then header: the header's place is the front, its bytes are known at the end.
        self.hasher.update(&header);
        let hash = *self.hasher.finalize().as_bytes();
        self.file.write(&hash)?;
        self.file.write_at(&header, 0)?;
        let mut batch = fsio::Batch::default();
        batch.publish(self.file, target)?;
        batch.finish()
    }
}

/// Streams a cache whose hash was checked when it was opened.
#[derive(Debug)]
pub struct CacheReader {
    file: OpenFile,
    header: CacheHeader,
    /// Next byte to read into the buffer, and where the records end.
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl CacheReader {
    /// Opens a cache and checks its hash. `None` when there is none or it is damaged.
    ///
    /// # Errors
    /// [`Error::Io`] when it is there and cannot be read.
    pub fn open(path: &Path) -> Result<Option<CacheReader>> {
        if !fsio::exists(path)? {
            return Ok(None);
        }
        let file = OpenFile::open(path)?;
        let Some(end) = file.len().checked_sub(HASH_LEN as u64).filter(|end| *end >= HEADER_LEN as u64) else {
            return Ok(None);
        };
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0)?;
        if hash_of(&file, &header, end)? != expected_hash(&file, end)? || header[..8] != *MAGIC {
            return Ok(None);
        }
        let field = |at: usize| -> [u8; 32] { header[at..at + 32].try_into().expect("inside the header") };
        let header = CacheHeader {
            snapshot: SnapshotId(field(8)),
            manifest: ChunkId(field(40)),
            records: u64::from_le_bytes(header[72..80].try_into().expect("inside the header")),
        };
        Ok(Some(CacheReader { file, header, at: HEADER_LEN as u64, end, buffer: Vec::new(), used: 0 }))
    }

    /// What it belongs to.
    pub fn header(&self) -> &CacheHeader {
        &self.header
    }

    /// Makes at least `len` unread bytes available.
    fn fill(&mut self, len: usize) -> Result<()> {
        if self.buffer.len() - self.used >= len {
            return Ok(());
        }
        self.buffer.drain(..self.used);
        self.used = 0;
        let have = self.buffer.len();
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = left.min(BUFFER_BYTES.max(len - have));
        self.buffer.resize(have + want, 0);
        self.file.read_exact_at(&mut self.buffer[have..], self.at)?;
        self.at += want as u64;
        if self.buffer.len() < len {
            return Err(Error::Refused { reason: "a files cache ends too early".into(), hint: None });
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&[u8]> {
        self.fill(len)?;
        let bytes = &self.buffer[self.used..self.used + len];
        self.used += len;
        Ok(bytes)
    }

    fn read_record(&mut self) -> Result<Option<CacheRecord>> {
        if self.used == self.buffer.len() && self.at == self.end {
            return Ok(None);
        }
        let head = self.take(RECORD_HEAD_LEN)?;
        let flags = head[0];
        let len = u32::from_le_bytes(head[1..5].try_into().expect("four bytes"));
        let fingerprint = if flags & 1 != 0 { Some(decode_fingerprint(self.take(FINGERPRINT_LEN)?)) } else { None };
        let state = RecordState::of_flags(flags);
        let entry = self.take(usize::try_from(len.min(ENTRY_LEN_MAX)).expect("bounded"))?.to_vec();
        Ok(Some(CacheRecord { state, fingerprint, entry }))
    }
}

impl Iterator for CacheReader {
    type Item = Result<CacheRecord>;

    fn next(&mut self) -> Option<Result<CacheRecord>> {
        self.read_record().transpose()
    }
}

fn hash_of(file: &OpenFile, header: &[u8], end: u64) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = HEADER_LEN as u64;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        file.read_exact_at(&mut buffer[..len], at)?;
        hasher.update(&buffer[..len]);
        at += len as u64;
    }
    hasher.update(header);
    Ok(*hasher.finalize().as_bytes())
}

fn expected_hash(file: &OpenFile, end: u64) -> Result<[u8; 32]> {
    let mut hash = [0; HASH_LEN];
    file.read_exact_at(&mut hash, end)?;
    Ok(hash)
}

fn encode_fingerprint(fingerprint: &Fingerprint, out: &mut Vec<u8>) {
    out.extend_from_slice(&fingerprint.dev.0.to_le_bytes());
    out.extend_from_slice(&fingerprint.dev.1.to_le_bytes());
    out.extend_from_slice(&fingerprint.ino.to_le_bytes());
    out.extend_from_slice(&fingerprint.size.to_le_bytes());
    for time in [fingerprint.mtime, fingerprint.ctime] {
        out.extend_from_slice(&time.secs.to_le_bytes());
        out.extend_from_slice(&time.nanos.to_le_bytes());
    }
}

fn decode_fingerprint(bytes: &[u8]) -> Fingerprint {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("inside the fingerprint"));
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("inside the fingerprint"));
    let time_at = |at: usize| Timestamp {
        secs: i64::from_le_bytes(bytes[at..at + 8].try_into().expect("inside the fingerprint")),
        nanos: u32_at(at + 8),
    };
    Fingerprint {
        dev: (u32_at(0), u32_at(4)),
        ino: u64_at(8),
        size: u64_at(16),
        mtime: time_at(24),
        ctime: time_at(36),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(ino: u64) -> Fingerprint {
        let time = Timestamp { secs: -5, nanos: 999_999_999 };
        Fingerprint { dev: (8, 1), ino, size: 1 << 40, mtime: time, ctime: time }
    }

    fn write(path: &Path) -> Vec<CacheRecord> {
        let records: Vec<CacheRecord> = (0..5000u64)
            .map(|i| CacheRecord {
                state: match i % 7 {
                    0 => RecordState::Dropped,
                    1 => RecordState::Outside,
                    _ => RecordState::Current,
                },
                fingerprint: (i % 3 != 0).then(|| fingerprint(i)),
                entry: vec![u8::try_from(i % 251).unwrap(); usize::try_from(i % 700).unwrap()],
            })
            .collect();
        let mut writer = CacheWriter::create(path.parent().unwrap()).unwrap();
        for record in &records {
            writer.push(record.state, record.fingerprint.as_ref(), &record.entry).unwrap();
        }
        writer.finish(path, SnapshotId::of(b"s"), ChunkId::of(b"m")).unwrap();
        records
    }

    #[test]
    fn round_trip_across_buffers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let records = write(&path);
        let reader = CacheReader::open(&path).unwrap().unwrap();
        assert_eq!(reader.header().records, 5000);
        assert_eq!(reader.header().snapshot, SnapshotId::of(b"s"));
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), records);
        assert_eq!(fsio::list_dir(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_cache_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        assert!(CacheReader::open(&path).unwrap().is_none(), "missing");
        write(&path);
        let good = fsio::read_capped(&path, 1 << 30).unwrap();
        for at in [0, 9, 50, 75, 100, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fsio::publish_file(&path, &bad).unwrap();
            assert!(CacheReader::open(&path).unwrap().is_none(), "flip at {at}");
        }
        for len in [0, 1, 80, 112, good.len() - 1] {
            fsio::publish_file(&path, &good[..len]).unwrap();
            assert!(CacheReader::open(&path).unwrap().is_none(), "cut to {len}");
        }
    }

    #[test]
    fn a_change_in_the_same_tick_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = fsio::Dir::open(dir.path()).unwrap();
        root.create_file(b"f").unwrap();
        let stat = root.stat(b"f").unwrap();
        assert_eq!(Fingerprint::settled(&stat, stat.ctime), None);
        let later = Timestamp { secs: stat.ctime.secs + 1, nanos: 0 };
        assert_eq!(Fingerprint::settled(&stat, later), Some(Fingerprint::of(&stat)));
    }
}
