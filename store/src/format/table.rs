// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Segments and locators: sorted fixed-width records behind a fan-out table (format-spec §30).

use std::collections::{BTreeSet, HashMap};

use super::fields::{Fields, VERSION};
use super::pack::{self, Encoding, PackKind};
use super::{DecodeError, Reason};
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::limits;

const SEGMENT_MAGIC: &[u8; 8] = b"EKSEGM\r\n";
const LOCATOR_MAGIC: &[u8; 8] = b"EKLOCA\r\n";
const SEGMENT: &str = "segment";
const LOCATOR: &str = "locator";
const HEADER_LEN: usize = 128;
const PACK_LEN: usize = 48;
const DICT_LEN: usize = 32;
const FANOUT_LEN: usize = 4;
const RECORD_LEN: usize = 56;
const TRAILER_LEN: usize = 32;
/// Bytes of the longest table that there can be.
pub(crate) const TABLE_BYTES_MAX: u64 = (HEADER_LEN + TRAILER_LEN + (FANOUT_LEN << FANOUT_BITS_MAX)) as u64
    + PACK_LEN as u64 * limits::TABLE_PACKS_MAX as u64
    + DICT_LEN as u64 * limits::TABLE_DICTS_MAX as u64
    + RECORD_LEN as u64 * limits::TABLE_RECORDS_MAX as u64;
const FANOUT_BITS_MAX: u8 = 16;
const FLAG_FULL: u8 = 1;

/// What a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Part of the store's index.
    Segment,
    /// Where the chunks are that `base` lacks; all of the snapshot's when there is no base.
    Locator {
        /// Whose chunks.
        snapshot: SnapshotId,
        /// Where to read on, and how many locators are still to read; `None` for a full locator.
        base: Option<(SnapshotId, u32)>,
    },
}

/// One pack that records of a table lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TablePack {
    /// Name.
    pub id: PackId,
    /// File length in bytes.
    pub len: u64,
    /// What it holds.
    pub kind: PackKind,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// Offset of the record.
    pub offset: u64,
    /// Length of the record.
    pub stored_len: u32,
    /// Length of the chunk.
    pub plain_len: u32,
    /// How the one becomes the other.
    pub encoding: Encoding,
}

impl TableKind {
    fn object(&self) -> &'static str {
        match self {
            TableKind::Segment => SEGMENT,
            TableKind::Locator { .. } => LOCATOR,
        }
    }

    /// Bytes 8 on of the header that depend on the kind: flags, snapshot, base, steps.
    fn header_fields(&self) -> (u8, [u8; 32], [u8; 32], u32) {
        match self {
            TableKind::Segment => (0, [0; 32], [0; 32], 0),
            TableKind::Locator { snapshot, base: None } => (FLAG_FULL, snapshot.0, [0; 32], 0),
            TableKind::Locator { snapshot, base: Some((base, steps)) } => (0, snapshot.0, base.0, *steps),
        }
    }
}

/// Where the parts of a table begin (format-spec §30.2).
#[derive(Debug, Clone, Copy)]
struct Layout {
    fanout_bits: u8,
    dict_count: u32,
    record_count: u32,
    dicts: usize,
    fanout: usize,
    records: usize,
    trailer: usize,
}

impl Layout {
    /// `None` when the sum does not fit; counts within their limits always fit 64 bits.
    fn new(fanout_bits: u8, pack_count: u32, dict_count: u32, record_count: u32) -> Option<Layout> {
        let size = |count: u32, len: usize| usize::try_from(count).ok()?.checked_mul(len);
        let dicts = HEADER_LEN.checked_add(size(pack_count, PACK_LEN)?)?;
        let fanout = dicts.checked_add(size(dict_count, DICT_LEN)?)?;
        let records = fanout.checked_add(((1 << fanout_bits) + 1) * FANOUT_LEN)?;
        let trailer = records.checked_add(size(record_count, RECORD_LEN)?)?;
        Some(Layout { fanout_bits, dict_count, record_count, dicts, fanout, records, trailer })
    }

    /// The fan-out bucket of an id: its first bits.
    fn bucket(&self, id: &[u8; 32]) -> usize {
        let first = usize::from(id[0]) << 8 | usize::from(id[1]);
        first >> (FANOUT_BITS_MAX - self.fanout_bits)
    }
}

/// Bits that leave about 32 records in a bucket.
fn fanout_bits(record_count: u32) -> u8 {
    (0..FANOUT_BITS_MAX).find(|&bits| 32u64 << bits >= u64::from(record_count)).unwrap_or(FANOUT_BITS_MAX)
}

/// Encodes a table. `records` need not be sorted; of equal ids the first is kept. Packs that no record names are kept out.
///
/// # Errors
/// [`DecodeError`] with [`super::Reason::Limit`] when there are too many records, packs or dictionaries; with
/// [`crate::format::Reason::Rule`] when a record's pack is not among `packs`.
pub fn encode(
    kind: TableKind,
    packs: &[TablePack],
    mut records: Vec<(ChunkId, Location)>,
) -> Result<Vec<u8>, DecodeError> {
    records.sort_by_key(|(id, _)| *id);
    records.dedup_by_key(|(id, _)| *id);
    let named: BTreeSet<PackId> = records.iter().map(|(_, location)| location.pack).collect();
    let mut packs: Vec<TablePack> = packs.iter().filter(|pack| named.contains(&pack.id)).copied().collect();
    packs.sort_by_key(|pack| pack.id);
    packs.dedup_by_key(|pack| pack.id);
    let dicts: BTreeSet<ChunkId> = records.iter().filter_map(|(_, location)| location.encoding.dict()).collect();

    let f = Fields { object: kind.object(), base: 0, bytes: &[] };
    f.limit(12, "pack_count", packs.len() as u64, limits::TABLE_PACKS_MAX.into())?;
    f.limit(16, "dict_count", dicts.len() as u64, limits::TABLE_DICTS_MAX.into())?;
    f.limit(20, "record_count", records.len() as u64, limits::TABLE_RECORDS_MAX.into())?;
    f.rule(12, "packs", packs.len() == named.len(), "a record lies in a pack that is not listed")?;
    let count = |len: usize| u32::try_from(len).expect("within the limits just checked");
    let bits = fanout_bits(count(records.len()));
    let layout = Layout::new(bits, count(packs.len()), count(dicts.len()), count(records.len()))
        .ok_or_else(|| f.error(24, "file_len", Reason::Limit { found: u64::MAX, limit: usize::MAX as u64 }))?;

    let mut out = Vec::with_capacity(layout.trailer + TRAILER_LEN);
    write_header(&mut out, &kind, &layout, count(packs.len()));
    for pack in &packs {
        out.extend(pack.id.0);
        out.extend(pack.len.to_le_bytes());
        out.extend([pack.kind.code(), 0, 0, 0, 0, 0, 0, 0]);
    }
    dicts.iter().for_each(|dict| out.extend(dict.0));
    write_fanout(&mut out, &layout, &records);
    write_records(&mut out, &packs, &dicts, &records);
    let hash = blake3::hash(&out);
    out.extend(hash.as_bytes());
    Ok(out)
}

fn write_header(out: &mut Vec<u8>, kind: &TableKind, layout: &Layout, pack_count: u32) {
    let (flags, snapshot, base, steps) = kind.header_fields();
    out.extend(if matches!(kind, TableKind::Segment) { SEGMENT_MAGIC } else { LOCATOR_MAGIC });
    out.extend(VERSION.to_le_bytes());
    out.extend([layout.fanout_bits, flags]);
    out.extend(pack_count.to_le_bytes());
    out.extend(layout.dict_count.to_le_bytes());
    out.extend(layout.record_count.to_le_bytes());
    out.extend(((layout.trailer + TRAILER_LEN) as u64).to_le_bytes());
    out.extend(snapshot);
    out.extend(base);
    out.extend(steps.to_le_bytes());
    out.extend([0; 28]);
}

fn write_fanout(out: &mut Vec<u8>, layout: &Layout, records: &[(ChunkId, Location)]) {
    let mut before = 0u32;
    let mut rest = records.iter().peekable();
    for bucket in 0..=1usize << layout.fanout_bits {
        while rest.next_if(|(id, _)| layout.bucket(&id.0) < bucket).is_some() {
            before += 1;
        }
        out.extend(before.to_le_bytes());
    }
}

fn write_records(out: &mut Vec<u8>, packs: &[TablePack], dicts: &BTreeSet<ChunkId>, records: &[(ChunkId, Location)]) {
    let pack_index: HashMap<PackId, u32> = packs.iter().map(|pack| pack.id).zip(0..).collect();
    let dict_index: HashMap<ChunkId, u16> = dicts.iter().copied().zip(0..).collect();
    for (id, location) in records {
        out.extend(id.0);
        out.extend(location.offset.to_le_bytes());
        out.extend(location.stored_len.to_le_bytes());
        out.extend(location.plain_len.to_le_bytes());
        out.extend(pack_index[&location.pack].to_le_bytes());
        out.extend(location.encoding.dict().map_or(0, |dict| dict_index[&dict]).to_le_bytes());
        out.extend([location.encoding.code(), 0]);
    }
}

/// A checked table over borrowed or mapped bytes; looks up without decoding everything.
#[derive(Debug, Clone)]
pub struct Table<B> {
    bytes: B,
    kind: TableKind,
    packs: Vec<TablePack>,
    layout: Layout,
}

impl<B: AsRef<[u8]>> Table<B> {
    /// Checks everything that format-spec §30 asks of a reader: hash, header, tables, order and range of all records.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: B) -> Result<Self, DecodeError> {
        let (kind, packs, layout) = check(bytes.as_ref())?;
        Ok(Table { bytes, kind, packs, layout })
    }

    /// All of its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Segment or locator.
    pub fn kind(&self) -> TableKind {
        self.kind
    }

    /// Sorted by id.
    pub fn packs(&self) -> &[TablePack] {
        &self.packs
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.layout.record_count as usize
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where `id` is, if this table knows: fan-out, then binary search.
    pub fn get(&self, id: &ChunkId) -> Option<Location> {
        let f = self.fields();
        let entry = self.layout.fanout + self.layout.bucket(&id.0) * FANOUT_LEN;
        let (mut low, mut high) = (f.u32(entry) as usize, f.u32(entry + FANOUT_LEN) as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.layout.records + middle * RECORD_LEN;
            match f.bytes[at..at + 32].cmp(&id.0) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.location(&f, at)),
            }
        }
        None
    }

    /// The `index`-th record in id order.
    ///
    /// # Panics
    /// When `index` is not below [`Table::len`].
    pub fn record(&self, index: usize) -> (ChunkId, Location) {
        assert!(index < self.len(), "record {index} of {}", self.len());
        let f = self.fields();
        let at = self.layout.records + index * RECORD_LEN;
        (ChunkId(f.array(at)), self.location(&f, at))
    }

    /// All records in id order.
    pub fn iter(&self) -> impl Iterator<Item = (ChunkId, Location)> + '_ {
        (0..self.len()).map(|index| self.record(index))
    }

    fn fields(&self) -> Fields<'_> {
        Fields { object: self.kind.object(), base: 0, bytes: self.bytes.as_ref() }
    }

    fn location(&self, f: &Fields<'_>, at: usize) -> Location {
        let encoding = read_encoding(f, &self.layout, at).expect("checked by decode");
        Location {
            pack: self.packs[f.u32(at + 48) as usize].id,
            offset: f.u64(at + 32),
            stored_len: f.u32(at + 40),
            plain_len: f.u32(at + 44),
            encoding,
        }
    }
}

fn read_encoding(f: &Fields<'_>, layout: &Layout, at: usize) -> Option<Encoding> {
    let dict = |index: u16| ChunkId(f.array(layout.dicts + usize::from(index) * DICT_LEN));
    Encoding::from_code(f.u8(at + 54), f.u16(at + 52), layout.dict_count, dict)
}

fn check(bytes: &[u8]) -> Result<(TableKind, Vec<TablePack>, Layout), DecodeError> {
    let object = if bytes.starts_with(LOCATOR_MAGIC) { LOCATOR } else { SEGMENT };
    let f = Fields { object, base: 0, bytes };
    if bytes.len() < HEADER_LEN + TRAILER_LEN {
        return Err(f.error(bytes.len(), "header", Reason::Truncated));
    }
    let kind = check_kind(&f)?;
    let layout = check_layout(&f)?;
    if *blake3::hash(&bytes[..layout.trailer]).as_bytes() != f.array::<32>(layout.trailer) {
        return Err(f.error(layout.trailer, "hash", Reason::Hash));
    }
    let packs = check_packs(&f)?;
    check_dicts(&f, &layout)?;
    check_fanout(&f, &layout)?;
    check_records(&f, &layout, &packs)?;
    Ok((kind, packs, layout))
}

/// The header's fields that say what the table is.
fn check_kind(f: &Fields<'_>) -> Result<TableKind, DecodeError> {
    let is_locator = f.object == LOCATOR;
    f.magic(0, if is_locator { LOCATOR_MAGIC } else { SEGMENT_MAGIC })?;
    f.version(8)?;
    let flags = f.u8(11);
    f.range(11, "flags", flags.into(), 0, if is_locator { FLAG_FULL.into() } else { 0 })?;
    f.zero(100, 28, "reserved")?;
    if !is_locator {
        f.zero(32, 32, "snapshot")?;
        f.zero(64, 32, "base")?;
        f.zero(96, 4, "steps")?;
        return Ok(TableKind::Segment);
    }
    let (snapshot, base, steps) = (SnapshotId(f.array(32)), SnapshotId(f.array(64)), f.u32(96));
    f.limit(96, "steps", steps.into(), limits::LOCATOR_STEPS_MAX.into())?;
    let full = flags == FLAG_FULL;
    f.rule(64, "base", full == (base.0 == [0; 32]), "a locator has a base exactly when it is not full")?;
    f.rule(96, "steps", full == (steps == 0), "steps are 0 exactly when a locator is full")?;
    Ok(TableKind::Locator { snapshot, base: (!full).then_some((base, steps)) })
}

/// The header's counts, against their limits and the length of the file.
fn check_layout(f: &Fields<'_>) -> Result<Layout, DecodeError> {
    let (bits, pack_count, dict_count, record_count) = (f.u8(10), f.u32(12), f.u32(16), f.u32(20));
    f.range(10, "fanout_bits", bits.into(), 0, FANOUT_BITS_MAX.into())?;
    f.limit(12, "pack_count", pack_count.into(), limits::TABLE_PACKS_MAX.into())?;
    f.limit(16, "dict_count", dict_count.into(), limits::TABLE_DICTS_MAX.into())?;
    f.limit(20, "record_count", record_count.into(), limits::TABLE_RECORDS_MAX.into())?;
    let layout = Layout::new(bits, pack_count, dict_count, record_count)
        .ok_or_else(|| f.error(12, "counts", Reason::Limit { found: u64::MAX, limit: usize::MAX as u64 }))?;
    f.exactly(layout.trailer + TRAILER_LEN, "file")?;
    f.rule(
        24,
        "file_len",
        f.u64(24) == f.bytes.len() as u64,
        "the file does not have the length that its header says",
    )?;
    Ok(layout)
}

fn check_packs(f: &Fields<'_>) -> Result<Vec<TablePack>, DecodeError> {
    let count = f.u32(12) as usize;
    let mut packs: Vec<TablePack> = Vec::with_capacity(count);
    for at in (0..count).map(|index| HEADER_LEN + index * PACK_LEN) {
        let (id, len, code) = (PackId(f.array(at)), f.u64(at + 32), f.u8(at + 40));
        if packs.last().is_some_and(|last| last.id >= id) {
            return Err(f.error(at, "packs", Reason::Canonical("ids out of order")));
        }
        f.range(at + 32, "pack file_len", len, pack::LEN_MIN, u64::MAX)?;
        f.limit(at + 32, "pack file_len", len, limits::PACK_BYTES_MAX)?;
        let kind = PackKind::from_code(code)
            .ok_or_else(|| f.error(at + 40, "pack kind", Reason::Value { found: code.into() }))?;
        f.zero(at + 41, 7, "pack reserved")?;
        packs.push(TablePack { id, len, kind });
    }
    Ok(packs)
}

fn check_dicts(f: &Fields<'_>, layout: &Layout) -> Result<(), DecodeError> {
    let ids = f.bytes[layout.dicts..layout.fanout].as_chunks::<DICT_LEN>().0;
    match ids.windows(2).position(|pair| pair[0] >= pair[1]) {
        Some(index) => {
            let at = layout.dicts + (index + 1) * DICT_LEN;
            Err(f.error(at, "dictionaries", Reason::Canonical("ids out of order")))
        }
        None => Ok(()),
    }
}

fn check_fanout(f: &Fields<'_>, layout: &Layout) -> Result<(), DecodeError> {
    let at = |bucket: usize| layout.fanout + bucket * FANOUT_LEN;
    let buckets = 1usize << layout.fanout_bits;
    f.rule(at(0), "fanout", f.u32(at(0)) == 0, "the fan-out does not begin at 0")?;
    for bucket in 0..buckets {
        let grows = f.u32(at(bucket)) <= f.u32(at(bucket + 1));
        f.rule(at(bucket + 1), "fanout", grows, "the fan-out decreases")?;
    }
    let complete = f.u32(at(buckets)) == layout.record_count;
    f.rule(at(buckets), "fanout", complete, "the fan-out does not end at the number of records")
}

fn check_records(f: &Fields<'_>, layout: &Layout, packs: &[TablePack]) -> Result<(), DecodeError> {
    let mut bucket_end = layout.fanout;
    let mut last: Option<[u8; 32]> = None;
    for (index, at) in (0..layout.record_count).zip((layout.records..).step_by(RECORD_LEN)) {
        let id: [u8; 32] = f.array(at);
        if last.is_some_and(|last| last >= id) {
            return Err(f.error(at, "id", Reason::Canonical("ids out of order")));
        }
        last = Some(id);
        // Buckets are contiguous and ids ascend, so the bucket that holds `index` only moves on.
        while f.u32(bucket_end) <= index {
            bucket_end += FANOUT_LEN;
        }
        let bucket = layout.fanout + (layout.bucket(&id) + 1) * FANOUT_LEN;
        f.rule(at, "id", bucket == bucket_end, "an id lies outside its fan-out bucket")?;
        check_record(f, layout, packs, at)?;
    }
    Ok(())
}

fn check_record(f: &Fields<'_>, layout: &Layout, packs: &[TablePack], at: usize) -> Result<(), DecodeError> {
    let (offset, stored_len, plain_len, pack) = (f.u64(at + 32), f.u32(at + 40), f.u32(at + 44), f.u32(at + 48));
    f.range(at + 40, "stored_len", stored_len.into(), 1, u64::MAX)?;
    f.range(at + 44, "plain_len", plain_len.into(), 1, u64::MAX)?;
    f.limit(at + 44, "plain_len", plain_len.into(), limits::CHUNK_BYTES_MAX.into())?;
    let Some(pack) = packs.get(pack as usize) else {
        return Err(f.error(at + 48, "pack", Reason::Value { found: pack.into() }));
    };
    f.range(at + 54, "encoding", f.u8(at + 54).into(), 0, 2)?;
    f.zero(at + 55, 1, "reserved")?;
    let Some(encoding) = read_encoding(f, layout, at) else {
        return Err(f.error(at + 52, "dict", Reason::Value { found: f.u16(at + 52).into() }));
    };
    if let Some(rule) = encoding.broken_length_rule(stored_len, plain_len) {
        return Err(f.error(at + 40, "stored_len", Reason::Rule(rule)));
    }
    let records_end = pack.len - pack::TRAILER_LEN as u64;
    let inside = offset >= pack::HEADER_LEN as u64
        && offset.checked_add(stored_len.into()).is_some_and(|end| end <= records_end);
    f.rule(at + 32, "offset", inside, "a record lies outside its pack")
}
