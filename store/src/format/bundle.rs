// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bundles: header and table of a store in one file (format-spec §80).

use super::fields::{Fields, VERSION};
use super::{DecodeError, Reason};
use crate::id::SnapshotId;
use crate::limits;

const OBJECT: &str = "bundle";
/// How a bundle begins.
pub const MAGIC: &[u8; 8] = b"EKBUND\r\n";

/// Length of a bundle's header.
pub const HEADER_LEN: usize = 128;
/// Length of one base in the table.
const BASE_LEN: usize = 32;
/// Length of one entry in the table.
const ENTRY_LEN: usize = 48;
/// Where the header's hash stands.
const HASH_AT: usize = 96;
/// Length of the hash at the end.
pub const TRAILER_LEN: usize = 32;

/// What an entry is, by its code. A later program's are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BundleKind {
    /// `format`
    Format,
    /// `snapshots/index`
    SnapshotIndex,
    /// `snapshots/<id>`
    Snapshot,
    /// `segments/current`
    SegmentsCurrent,
    /// `segments/<id>.seg`
    Segment,
    /// `locators/<id>`
    Locator,
    /// `deltas/<target>/index`
    DeltaIndex,
    /// `deltas/<id>`
    Delta,
    /// `packs/…/<id>.pack`
    Pack,
}

impl BundleKind {
    const ALL: [BundleKind; 9] = [
        BundleKind::Format,
        BundleKind::SnapshotIndex,
        BundleKind::Snapshot,
        BundleKind::SegmentsCurrent,
        BundleKind::Segment,
        BundleKind::Locator,
        BundleKind::DeltaIndex,
        BundleKind::Delta,
        BundleKind::Pack,
    ];

    /// Its code in an entry.
    pub fn code(self) -> u8 {
        match self {
            BundleKind::Format => 1,
            BundleKind::SnapshotIndex => 2,
            BundleKind::Snapshot => 3,
            BundleKind::SegmentsCurrent => 4,
            BundleKind::Segment => 5,
            BundleKind::Locator => 6,
            BundleKind::DeltaIndex => 7,
            BundleKind::Delta => 8,
            BundleKind::Pack => 9,
        }
    }

    /// The kind with this code; `None` for a later program's.
    pub fn from_code(code: u8) -> Option<BundleKind> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether there is one object of the kind, whose name has no hash.
    fn is_single(self) -> bool {
        matches!(self, BundleKind::Format | BundleKind::SnapshotIndex | BundleKind::SegmentsCurrent)
    }
}

/// One object of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleEntry {
    /// Code of its kind: one of [`BundleKind`], or a later program's.
    pub kind: u8,
    /// The hash in its name; zeros where the name has none.
    pub id: [u8; 32],
    /// Its length.
    pub len: u64,
}

/// Header and table of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleHead {
    /// The snapshot that it carries.
    pub target: SnapshotId,
    /// Snapshots of which one must be at hand, ascending; none: everything is in the bundle.
    pub bases: Vec<SnapshotId>,
    /// In the order of the objects.
    pub entries: Vec<BundleEntry>,
}

/// Counts of a header, which say how long the head is.
#[derive(Debug, Clone, Copy)]
struct Counts {
    bases: usize,
    entries: usize,
}

impl Counts {
    fn head_len(self) -> usize {
        HEADER_LEN + self.bases * BASE_LEN + self.entries * ENTRY_LEN
    }
}

impl BundleHead {
    /// Length of header and table.
    pub fn head_len(&self) -> u64 {
        Counts { bases: self.bases.len(), entries: self.entries.len() }.head_len() as u64
    }

    /// Length of the whole file.
    pub fn file_len(&self) -> u64 {
        self.head_len() + self.entries.iter().map(|entry| entry.len).sum::<u64>() + TRAILER_LEN as u64
    }

    /// Where each object starts.
    pub fn offsets(&self) -> impl Iterator<Item = (&BundleEntry, u64)> {
        let mut at = self.head_len();
        self.entries.iter().map(move |entry| {
            let start = at;
            at += entry.len;
            (entry, start)
        })
    }

    /// Header and table, which the objects follow. The writer keeps to format-spec §80; what does not is refused by
    /// [`BundleHead::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let count = |len: usize| u32::try_from(len).expect("the writer keeps to the limits").to_le_bytes();
        let mut out = Vec::with_capacity(HEADER_LEN + self.bases.len() * BASE_LEN + self.entries.len() * ENTRY_LEN);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 2]);
        out.extend(count(self.bases.len()));
        out.extend(count(self.entries.len()));
        out.extend([0; 12]);
        out.extend(self.target.0);
        out.extend(self.file_len().to_le_bytes());
        out.extend([0; 24 + 32]);
        self.bases.iter().for_each(|base| out.extend(base.0));
        for entry in &self.entries {
            out.push(entry.kind);
            out.extend([0; 7]);
            out.extend(entry.id);
            out.extend(entry.len.to_le_bytes());
        }
        let hash = head_hash(&out);
        out[HASH_AT..HEADER_LEN].copy_from_slice(&hash);
        out
    }

    /// Length of header and table, from the header alone.
    ///
    /// # Errors
    /// [`DecodeError`] for a header that breaks the format.
    pub fn len_of(header: &[u8; HEADER_LEN]) -> Result<usize, DecodeError> {
        check_header(&Fields { object: OBJECT, base: 0, bytes: header }).map(Counts::head_len)
    }

    /// Reads header and table of a file of `file_len` bytes.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8], file_len: u64) -> Result<BundleHead, DecodeError> {
        let f = Fields { object: OBJECT, base: 0, bytes };
        if bytes.len() < HEADER_LEN {
            return Err(f.error(bytes.len(), "header", Reason::Truncated));
        }
        let counts = check_header(&f)?;
        f.exactly(counts.head_len(), "head")?;
        if head_hash(bytes) != f.array::<32>(HASH_AT) {
            return Err(f.error(HASH_AT, "hash", Reason::Hash));
        }
        let target = SnapshotId(f.array(32));
        let bases = read_bases(&f, counts, target)?;
        let entries = read_entries(&f, counts)?;
        let head = BundleHead { target, bases, entries };
        head.check(&f, file_len)?;
        Ok(head)
    }

    /// The rules that span the table.
    fn check(&self, f: &Fields<'_>, file_len: u64) -> Result<(), DecodeError> {
        let has = |kind: BundleKind, id: [u8; 32]| {
            self.entries.iter().any(|entry| entry.kind == kind.code() && entry.id == id)
        };
        let is_complete = has(BundleKind::Format, [0; 32])
            && has(BundleKind::SnapshotIndex, [0; 32])
            && has(BundleKind::Snapshot, self.target.0);
        f.rule(16, "entries", is_complete, "no format, no list of snapshots, or not the target's document")?;
        f.rule(64, "file_len", f.u64(64) == self.file_len(), "another length than the table gives")?;
        if file_len < self.file_len() {
            return Err(DecodeError { object: OBJECT, offset: file_len, field: "file", reason: Reason::Truncated });
        }
        if file_len > self.file_len() {
            let offset = self.file_len();
            return Err(DecodeError { object: OBJECT, offset, field: "file", reason: Reason::Trailing });
        }
        Ok(())
    }
}

fn head_hash(head: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..HASH_AT]).update(&head[HEADER_LEN..]);
    *hasher.finalize().as_bytes()
}

fn check_header(f: &Fields<'_>) -> Result<Counts, DecodeError> {
    f.magic(0, MAGIC)?;
    f.version(8)?;
    f.zero(10, 2, "flags")?;
    f.limit(12, "base_count", f.u32(12).into(), limits::BUNDLE_BASES_MAX.into())?;
    f.limit(16, "entry_count", f.u32(16).into(), limits::BUNDLE_ENTRIES_MAX.into())?;
    f.range(16, "entry_count", f.u32(16).into(), 3, u64::MAX)?;
    f.zero(20, 12, "reserved")?;
    f.rule(32, "target", f.array::<32>(32) != [0; 32], "no target")?;
    f.zero(72, 24, "reserved")?;
    Ok(Counts { bases: f.u32(12) as usize, entries: f.u32(16) as usize })
}

fn read_bases(f: &Fields<'_>, counts: Counts, target: SnapshotId) -> Result<Vec<SnapshotId>, DecodeError> {
    let mut bases: Vec<SnapshotId> = Vec::with_capacity(counts.bases);
    for at in (HEADER_LEN..).step_by(BASE_LEN).take(counts.bases) {
        let base = SnapshotId(f.array(at));
        f.rule(at, "base", base.0 != [0; 32] && base != target, "a base that is none")?;
        if bases.last().is_some_and(|last| *last >= base) {
            return Err(f.error(at, "base", Reason::Canonical("ids out of order")));
        }
        bases.push(base);
    }
    Ok(bases)
}

fn read_entries(f: &Fields<'_>, counts: Counts) -> Result<Vec<BundleEntry>, DecodeError> {
    let start = HEADER_LEN + counts.bases * BASE_LEN;
    let mut entries: Vec<BundleEntry> = Vec::with_capacity(counts.entries);
    for at in (start..).step_by(ENTRY_LEN).take(counts.entries) {
        let entry = BundleEntry { kind: f.u8(at), id: f.array(at + 8), len: f.u64(at + 40) };
        f.range(at, "kind", entry.kind.into(), 1, u64::MAX)?;
        f.zero(at + 1, 7, "reserved")?;
        f.range(at + 40, "len", entry.len, 1, u64::MAX)?;
        f.limit(at + 40, "len", entry.len, limits::BUNDLE_OBJECT_BYTES_MAX)?;
        if let Some(kind) = BundleKind::from_code(entry.kind) {
            let fits = kind.is_single() == (entry.id == [0; 32]);
            f.rule(at + 8, "id", fits, "an id where the name has none, or none where it has one")?;
        }
        if entries.last().is_some_and(|last| (last.kind, last.id) >= (entry.kind, entry.id)) {
            return Err(f.error(at, "entry", Reason::Canonical("entries out of order")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> impl Strategy<Value = BundleHead> {
        let others = prop::collection::btree_map((3u8..=12, any::<[u8; 32]>()), 1u64..1 << 40, 0..20);
        let bases = prop::collection::btree_set(any::<[u8; 32]>(), 0..5);
        (any::<[u8; 32]>(), bases, others).prop_map(|(target, bases, others)| {
            let nameless = |kind: &u8| *kind == BundleKind::SegmentsCurrent.code();
            let mut entries: std::collections::BTreeMap<(u8, [u8; 32]), u64> =
                others.into_iter().filter(|((kind, _), _)| !nameless(kind)).collect();
            entries.insert((BundleKind::Format.code(), [0; 32]), 7);
            entries.insert((BundleKind::SnapshotIndex.code(), [0; 32]), 8);
            entries.insert((BundleKind::Snapshot.code(), target), 9);
            BundleHead {
                target: SnapshotId(target),
                bases: bases.into_iter().map(SnapshotId).collect(),
                entries: entries.into_iter().map(|((kind, id), len)| BundleEntry { kind, id, len }).collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(head in head()) {
            let bytes = head.encode();
            prop_assert_eq!(bytes.len() as u64, head.head_len());
            let header = bytes.first_chunk().unwrap();
            prop_assert_eq!(BundleHead::len_of(header).unwrap(), bytes.len());
            let decoded = BundleHead::decode(&bytes, head.file_len()).unwrap();
            prop_assert_eq!(&decoded, &head);
            prop_assert_eq!(decoded.encode(), bytes);
        }

        #[test]
        fn damage_is_found(head in head(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = head.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(BundleHead::decode(&bytes, head.file_len()).is_err());
        }

        #[test]
        fn a_cut_or_longer_file_is_found(head in head(), at in any::<prop::sample::Index>()) {
            let bytes = head.encode();
            prop_assert!(BundleHead::decode(&bytes[..at.index(bytes.len())], head.file_len()).is_err());
            prop_assert!(BundleHead::decode(&bytes, head.file_len() - 1).is_err());
            prop_assert!(BundleHead::decode(&bytes, head.file_len() + 1).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = BundleHead::decode(&bytes, bytes.len() as u64);
        }
    }
}
