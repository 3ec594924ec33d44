// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pack files: header, footer and trailer (format-spec §20).

use std::collections::{BTreeSet, HashSet};

use super::fields::{Fields, VERSION};
use super::{DecodeError, Reason};
use crate::id::ChunkId;
use crate::limits;

const OBJECT: &str = "pack";
const MAGIC: &[u8; 8] = b"EKPACK\r\n";
const TRAILER_MAGIC: &[u8; 8] = b"EKPEND\r\n";

/// Length of the header.
pub const HEADER_LEN: usize = 16;
/// Length of one footer entry.
pub const ENTRY_LEN: usize = 44;
/// Length of the trailer.
pub const TRAILER_LEN: usize = 64;
/// Length of one id in the dictionary table.
pub const DICT_LEN: usize = 32;
/// Shortest possible pack: one record of one byte.
pub const LEN_MIN: u64 = (HEADER_LEN + 1 + ENTRY_LEN + TRAILER_LEN) as u64;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PackKind {
    /// File content.
    Data,
    /// Manifest heads, nodes and indirect chunk lists.
    Manifest,
}

/// How a record's bytes give the chunk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One zstd frame made with a dictionary: a chunk of this id.
    ZstdDict(ChunkId),
}

/// One record of a pack as its footer describes it; records lie back to back in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackEntry {
    /// Name of the plain bytes.
    pub id: ChunkId,
    /// Offset of the record in the file.
    pub offset: u64,
    /// Length of the record in the file.
    pub stored_len: u32,
    /// Length of the chunk.
    pub plain_len: u32,
    /// How the one becomes the other.
    pub encoding: Encoding,
}

/// The trailer's fields (format-spec §20.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the footer starts.
    pub footer_offset: u64,
    /// Records in the pack.
    pub entry_count: u32,
    /// Dictionaries in the footer.
    pub dict_count: u32,
    /// Length of the whole file.
    pub file_len: u64,
    /// Hash of footer and counts.
    pub footer_hash: [u8; 32],
}

impl PackKind {
    /// The value on disk.
    pub(super) fn code(self) -> u8 {
        match self {
            PackKind::Data => 1,
            PackKind::Manifest => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(PackKind::Data),
            2 => Some(PackKind::Manifest),
            _ => None,
        }
    }
}

impl Encoding {
    /// The value on disk.
    pub(super) fn code(self) -> u8 {
        match self {
            Encoding::Raw => 0,
            Encoding::Zstd => 1,
            Encoding::ZstdDict(_) => 2,
        }
    }

    /// The dictionary, if there is one.
    pub fn dict(self) -> Option<ChunkId> {
        match self {
            Encoding::ZstdDict(dict) => Some(dict),
            Encoding::Raw | Encoding::Zstd => None,
        }
    }

    /// Puts together what a footer entry or a table record says, if it is allowed.
    pub(super) fn from_code(code: u8, dict: u16, dict_count: u32, id: impl Fn(u16) -> ChunkId) -> Option<Self> {
        match (code, dict) {
            (0, 0) => Some(Encoding::Raw),
            (1, 0) => Some(Encoding::Zstd),
            (2, dict) if u32::from(dict) < dict_count => Some(Encoding::ZstdDict(id(dict))),
            _ => None,
        }
    }

    /// The rule between a record's lengths that these do not keep (format-spec §20.3).
    pub(super) fn broken_length_rule(self, stored_len: u32, plain_len: u32) -> Option<&'static str> {
        match self {
            Encoding::Raw if stored_len != plain_len => Some("a raw record has two different lengths"),
            Encoding::Zstd | Encoding::ZstdDict(_) if stored_len >= plain_len => {
                Some("a compressed record is not shorter than its chunk")
            }
            _ => None,
        }
    }
}

/// The header of a pack of this kind.
pub fn encode_header(kind: PackKind) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10] = kind.code();
    bytes
}

/// Reads the first [`HEADER_LEN`] bytes.
///
/// # Errors
/// [`DecodeError`] at the first bad field.
pub fn decode_header(bytes: &[u8]) -> Result<PackKind, DecodeError> {
    let f = Fields { object: OBJECT, base: 0, bytes };
    f.exactly(HEADER_LEN, "header")?;
    f.magic(0, MAGIC)?;
    f.version(8)?;
    let kind = PackKind::from_code(f.u8(10));
    f.zero(11, 1, "flags")?;
    f.zero(12, 4, "reserved")?;
    kind.ok_or_else(|| f.error(10, "kind", Reason::Value { found: f.u8(10).into() }))
}

/// Footer and trailer for `entries`, whose offsets must be contiguous from [`HEADER_LEN`].
pub fn encode_footer(entries: &[PackEntry]) -> Vec<u8> {
    let dicts: Vec<ChunkId> =
        entries.iter().filter_map(|entry| entry.encoding.dict()).collect::<BTreeSet<_>>().into_iter().collect();
    let len = dicts.len() * DICT_LEN + entries.len() * ENTRY_LEN + TRAILER_LEN;
    let mut out = Vec::with_capacity(len);
    dicts.iter().for_each(|dict| out.extend(dict.0));
    for entry in entries {
        let dict = entry.encoding.dict().map_or(0, |dict| {
            let index = dicts.binary_search(&dict).expect("collected from the same entries");
            u8::try_from(index).expect("the writer keeps to PACK_DICTS_MAX")
        });
        out.extend(entry.id.0);
        out.extend(entry.stored_len.to_le_bytes());
        out.extend(entry.plain_len.to_le_bytes());
        out.extend([entry.encoding.code(), dict, 0, 0]);
    }
    let footer_offset = entries.last().map_or(HEADER_LEN as u64, |last| last.offset + u64::from(last.stored_len));
    let trailer = Trailer {
        footer_offset,
        entry_count: u32::try_from(entries.len()).expect("the writer keeps to PACK_ENTRIES_MAX"),
        dict_count: u32::try_from(dicts.len()).expect("the writer keeps to PACK_DICTS_MAX"),
        file_len: footer_offset + len as u64,
        footer_hash: [0; 32],
    };
    let hash = trailer.hash(&out);
    out.extend(trailer.counts());
    out.extend(hash);
    out.extend(TRAILER_MAGIC);
    out
}

impl Trailer {
    /// The trailer's first 24 bytes.
    fn counts(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.footer_offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.entry_count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.dict_count.to_le_bytes());
        bytes[16..].copy_from_slice(&self.file_len.to_le_bytes());
        bytes
    }

    fn hash(&self, footer: &[u8]) -> [u8; 32] {
        *blake3::Hasher::new().update(footer).update(&self.counts()).finalize().as_bytes()
    }

    /// Length of the footer, the trailer not included.
    pub fn footer_len(&self) -> u64 {
        u64::from(self.dict_count) * DICT_LEN as u64 + u64::from(self.entry_count) * ENTRY_LEN as u64
    }
}

/// Reads the last [`TRAILER_LEN`] bytes of a file of `file_len` bytes.
///
/// # Errors
/// [`DecodeError`] at the first bad field; counts have then been checked against the limits and the file's length.
pub fn decode_trailer(bytes: &[u8], file_len: u64) -> Result<Trailer, DecodeError> {
    let f = Fields { object: OBJECT, base: file_len.saturating_sub(TRAILER_LEN as u64), bytes };
    f.limit(0, "file", file_len, limits::PACK_BYTES_MAX)?;
    if file_len < LEN_MIN {
        return Err(f.error(0, "file", Reason::Truncated));
    }
    f.exactly(TRAILER_LEN, "trailer")?;
    f.magic(56, TRAILER_MAGIC)?;
    let trailer = Trailer {
        footer_offset: f.u64(0),
        entry_count: f.u32(8),
        dict_count: f.u32(12),
        file_len: f.u64(16),
        footer_hash: f.array(24),
    };
    f.range(8, "entry_count", trailer.entry_count.into(), 1, u64::MAX)?;
    f.limit(8, "entry_count", trailer.entry_count.into(), limits::PACK_ENTRIES_MAX.into())?;
    f.limit(12, "dict_count", trailer.dict_count.into(), limits::PACK_DICTS_MAX.into())?;
    f.rule(16, "file_len", trailer.file_len == file_len, "the file does not have the length that its trailer says")?;
    let tail = trailer.footer_len() + TRAILER_LEN as u64;
    let fits = trailer.footer_offset >= HEADER_LEN as u64 && trailer.footer_offset.checked_add(tail) == Some(file_len);
    f.rule(0, "footer_offset", fits, "the footer does not fill what lies before the trailer")?;
    Ok(trailer)
}

/// Reads the footer: `bytes` is exactly what lies between `trailer.footer_offset` and the trailer.
///
/// # Errors
/// [`DecodeError`] at the first bad field, or when the hash in the trailer does not fit.
pub fn decode_footer(bytes: &[u8], trailer: &Trailer) -> Result<Vec<PackEntry>, DecodeError> {
    let f = Fields { object: OBJECT, base: trailer.footer_offset, bytes };
    let len = usize::try_from(trailer.footer_len()).map_err(|_| f.error(0, "footer", Reason::Truncated))?;
    f.exactly(len, "footer")?;
    if trailer.hash(bytes) != trailer.footer_hash {
        return Err(f.error(len + 24, "footer_hash", Reason::Hash));
    }
    let dicts = decode_dicts(&f, trailer)?;
    let mut used = vec![false; dicts.len()];
    let mut ids = HashSet::with_capacity(trailer.entry_count as usize);
    let mut entries = Vec::with_capacity(trailer.entry_count as usize);
    let mut offset = HEADER_LEN as u64;
    for at in (dicts.len() * DICT_LEN..len).step_by(ENTRY_LEN) {
        let entry = decode_entry(&f, at, offset, &dicts)?;
        offset += u64::from(entry.stored_len);
        f.rule(at, "id", ids.insert(entry.id), "a chunk is in the pack twice")?;
        if entry.encoding.dict().is_some() {
            used[usize::from(f.u8(at + 41))] = true;
        }
        entries.push(entry);
    }
    f.rule(0, "dictionaries", used.iter().all(|&used| used), "a dictionary is listed but not used")?;
    f.rule(0, "entries", offset == trailer.footer_offset, "the records do not fill the space before the footer")?;
    Ok(entries)
}

/// Reads header, trailer and footer of a whole file; the records themselves are not looked at.
///
/// # Errors
/// [`DecodeError`] at the first rule that is broken.
pub fn decode(file: &[u8]) -> Result<(PackKind, Vec<PackEntry>), DecodeError> {
    let kind = decode_header(&file[..file.len().min(HEADER_LEN)])?;
    let end = file.len().saturating_sub(TRAILER_LEN);
    let trailer = decode_trailer(&file[end..], file.len() as u64)?;
    let start = usize::try_from(trailer.footer_offset).expect("decode_trailer has checked that it lies in the file");
    Ok((kind, decode_footer(&file[start..end], &trailer)?))
}

fn decode_dicts(f: &Fields<'_>, trailer: &Trailer) -> Result<Vec<ChunkId>, DecodeError> {
    let mut dicts: Vec<ChunkId> = Vec::with_capacity(trailer.dict_count as usize);
    for index in 0..trailer.dict_count as usize {
        let id = ChunkId(f.array(index * DICT_LEN));
        if dicts.last().is_some_and(|last| *last >= id) {
            return Err(f.error(index * DICT_LEN, "dictionaries", Reason::Canonical("ids out of order")));
        }
        dicts.push(id);
    }
    Ok(dicts)
}

fn decode_entry(f: &Fields<'_>, at: usize, offset: u64, dicts: &[ChunkId]) -> Result<PackEntry, DecodeError> {
    let (id, stored_len, plain_len) = (ChunkId(f.array(at)), f.u32(at + 32), f.u32(at + 36));
    f.range(at + 32, "stored_len", stored_len.into(), 1, u64::MAX)?;
    f.range(at + 36, "plain_len", plain_len.into(), 1, u64::MAX)?;
    f.limit(at + 36, "plain_len", plain_len.into(), limits::CHUNK_BYTES_MAX.into())?;
    f.zero(at + 42, 2, "reserved")?;
    let (code, dict) = (f.u8(at + 40), f.u8(at + 41));
    f.range(at + 40, "encoding", code.into(), 0, 2)?;
    let dict_count = u32::try_from(dicts.len()).expect("limited by PACK_DICTS_MAX");
    let encoding = Encoding::from_code(code, dict.into(), dict_count, |dict| dicts[usize::from(dict)])
        .ok_or_else(|| f.error(at + 41, "dict", Reason::Value { found: dict.into() }))?;
    if let Some(rule) = encoding.broken_length_rule(stored_len, plain_len) {
        return Err(f.error(at + 32, "stored_len", Reason::Rule(rule)));
    }
    Ok(PackEntry { id, offset, stored_len, plain_len, encoding })
}
