// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fixed layouts: packs, segments, locators, `snapshots/index`.

use evenkeel_store::format::pack::{self, PackKind};
use evenkeel_store::format::snapshot::encode_index;
use evenkeel_store::format::table::TableKind;
use evenkeel_store::id::SnapshotId;

use super::super::valid;
use super::{Set, cut, longer, patch};

pub fn add(set: &mut Set) {
    pack(set);
    segment(set);
    locator(set);
    index(set);
}

const TRAILER: usize = pack::TRAILER_LEN;

/// `file` with bytes changed at `at` from the end, and a footer hash that fits.
fn in_footer(file: &[u8], before_end: usize, new: &[u8]) -> Vec<u8> {
    rehash_footer(patch(file, file.len() - before_end, new))
}

fn rehash_footer(mut file: Vec<u8>) -> Vec<u8> {
    let trailer = file.len() - TRAILER;
    let start = u64::from_le_bytes(file[trailer..trailer + 8].try_into().expect("eight bytes"));
    let start = usize::try_from(start).expect("inside the file");
    let hash = blake3::hash(&file[start..trailer + 24]);
    file[trailer + 24..trailer + 56].copy_from_slice(hash.as_bytes());
    file
}

fn pack(set: &mut Set) {
    let file = valid::pack_data();
    let mut set = |what: &str, reason, bytes| set.add("pack", what, reason, bytes);
    set("empty", "truncated", Vec::new());
    set("header-only", "truncated", cut(&file, file.len() - 16));
    set("124-bytes", "truncated", cut(&file, file.len() - 124));
    set("truncated", "magic", cut(&file, 1));
    set("trailing", "magic", longer(&file));
    set("magic", "magic", patch(&file, 0, b"e"));
    set("trailer-magic", "magic", patch(&file, file.len() - 1, b"\r"));
    set("version-2", "version", patch(&file, 8, &[2]));
    set("version-256", "version", patch(&file, 8, &[0, 1]));
    set("version-0", "value", patch(&file, 8, &[0]));
    set("kind-0", "value", patch(&file, 10, &[0]));
    set("kind-3", "value", patch(&file, 10, &[3]));
    set("flags", "value", patch(&file, 11, &[0x80]));
    set("reserved", "value", patch(&file, 15, &[1]));
    set("entry-count-0", "value", in_footer(&file, TRAILER - 8, &[0, 0, 0, 0]));
    set("entry-count-limit", "limit", patch(&file, file.len() - TRAILER + 8, &((1u32 << 20) + 1).to_le_bytes()));
    set("entry-count-max", "limit", patch(&file, file.len() - TRAILER + 8, &[0xff; 4]));
    set("entry-count-short", "rule", patch(&file, file.len() - TRAILER + 8, &[3]));
    set("dict-count-limit", "limit", patch(&file, file.len() - TRAILER + 12, &256u32.to_le_bytes()));
    set("file-len", "rule", patch(&file, file.len() - TRAILER + 16, &(file.len() as u64 + 1).to_le_bytes()));
    set("footer-offset-0", "rule", patch(&file, file.len() - TRAILER, &[0; 8]));
    set("footer-offset-2-63", "rule", patch(&file, file.len() - TRAILER + 7, &[0x80]));
    set("footer-offset-max", "rule", patch(&file, file.len() - TRAILER, &[0xff; 8]));
    set("footer-hash", "hash", patch(&file, file.len() - TRAILER + 24, &[0; 32]));
    set("footer-flipped", "hash", patch(&file, file.len() - TRAILER - 1, &[1]));
    // Entries stand before the trailer, 44 bytes each; the last one is raw with one byte, the one before has a dictionary.
    let last = TRAILER + 44;
    let with_dict = last + 44;
    let zstd = with_dict + 44;
    set("stored-len-0", "value", in_footer(&file, last - 32, &[0]));
    set("plain-len-0", "value", in_footer(&file, last - 36, &[0]));
    set("plain-len-limit", "limit", in_footer(&file, zstd - 36, &((16u32 << 20) + 1).to_le_bytes()));
    set("plain-len-2-31", "limit", in_footer(&file, zstd - 36, &(1u32 << 31).to_le_bytes()));
    set("plain-len-max", "limit", in_footer(&file, zstd - 36, &[0xff; 4]));
    set("encoding-3", "value", in_footer(&file, last - 40, &[3]));
    set("dict-without-use", "value", in_footer(&file, last - 41, &[1]));
    set("dict-outside", "value", in_footer(&file, with_dict - 41, &[1]));
    set("entry-reserved", "value", in_footer(&file, last - 43, &[1]));
    set("raw-lengths", "rule", in_footer(&file, last - 36, &[2]));
    set("zstd-not-shorter", "rule", in_footer(&file, zstd - 36, &1u32.to_le_bytes()));
    set("dict-unused", "rule", in_footer(&file, with_dict - 40, &[1, 0]));
    set("records-short", "rule", in_footer(&file, last - 32, &[2, 0, 0, 0, 2]));
    set("stored-len-max", "rule", in_footer(&file, zstd - 32, &[0xff; 8][..4]).tap_plain(zstd));
    let ids = file.len() - last;
    let first_id = file[file.len() - zstd - 44..][..32].to_vec();
    set("repeated", "rule", rehash_footer(patch(&file, ids, &first_id)));
    set("dicts-unsorted", "canonical", two_dicts(|a, b| a < b));
    set("dicts-repeated", "canonical", two_dicts(|_, _| true));
}

trait TapPlain {
    fn tap_plain(self, before_end: usize) -> Self;
}

impl TapPlain for Vec<u8> {
    /// The largest plain length as well, so that only the sum of the records is wrong.
    fn tap_plain(self, before_end: usize) -> Self {
        let stored = in_footer(&self, before_end - 32, &((16u32 << 20) - 1).to_le_bytes());
        in_footer(&stored, before_end - 36, &(16u32 << 20).to_le_bytes())
    }
}

/// A pack with two dictionaries, the table of which is out of order or repeats one.
fn two_dicts(bad: impl Fn(&[u8], &[u8]) -> bool) -> Vec<u8> {
    use evenkeel_store::format::pack::Encoding;
    use evenkeel_store::id::ChunkId;
    let dict = |seed: &[u8]| Encoding::ZstdDict(ChunkId::of(seed));
    let records = [(dict(b"1"), vec![1; 20], vec![1; 10]), (dict(b"2"), vec![2; 20], vec![2; 10])];
    let file = valid::pack_of(PackKind::Data, &records);
    let (at, len) = (16 + 20, 32);
    let (first, second) = (file[at..at + len].to_vec(), file[at + len..at + 2 * len].to_vec());
    let swapped = [&second[..], &first].concat();
    let repeated = [&first[..], &first].concat();
    rehash_footer(patch(&file, at, if bad(&second, &first) { &repeated } else { &swapped }))
}

/// `bytes` changed at `at`, with a hash at the end that fits.
fn rehashed(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    rehash(patch(bytes, at, new))
}

fn rehash(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    let hash = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(hash.as_bytes());
    bytes
}

/// What segments and locators can have wrong in the same way.
fn table(set: &mut impl FnMut(&str, &'static str, Vec<u8>), bytes: &[u8]) {
    set("empty", "truncated", Vec::new());
    set("header-only", "truncated", bytes[..128].to_vec());
    set("truncated", "truncated", cut(bytes, 1));
    set("trailing", "trailing", longer(bytes));
    set("magic", "magic", patch(bytes, 7, b"\r"));
    set("version-2", "version", rehashed(bytes, 8, &[2]));
    set("version-0", "value", rehashed(bytes, 8, &[0]));
    set("flags", "value", rehashed(bytes, 11, &[2]));
    set("fanout-bits-17", "value", rehashed(bytes, 10, &[17]));
    set("pack-count-limit", "limit", rehashed(bytes, 12, &((1u32 << 16) + 1).to_le_bytes()));
    set("dict-count-limit", "limit", rehashed(bytes, 16, &(1u32 << 16).to_le_bytes()));
    set("record-count-limit", "limit", rehashed(bytes, 20, &((1u32 << 24) + 1).to_le_bytes()));
    set("record-count-max", "limit", rehashed(bytes, 20, &[0xff; 4]));
    set("file-len", "rule", rehashed(bytes, 24, &[0xff; 8]));
    set("reserved", "value", rehashed(bytes, 127, &[1]));
    set("hash", "hash", patch(bytes, bytes.len() - 1, &[bytes[bytes.len() - 1] ^ 1]));
    set("flipped", "hash", patch(bytes, bytes.len() - 40, &[bytes[bytes.len() - 40] ^ 1]));
}

fn segment(set: &mut Set) {
    let bytes = valid::segment();
    let mut set = |what: &str, reason, bytes| set.add("segment", what, reason, bytes);
    table(&mut set, &bytes);
    let (packs, dicts, fanout) = (128, 128 + 2 * 48, 128 + 2 * 48 + 2 * 32);
    let records = fanout + 2 * 4;
    let record = |encoding: u8, dict: u8| {
        (records..).step_by(56).find(|at| bytes[at + 54] == encoding && bytes[at + 52] == dict).expect("there is one")
    };
    let swapped = |at: usize, len: usize| {
        let both = [&bytes[at + len..at + 2 * len], &bytes[at..at + len]].concat();
        rehashed(&bytes, at, &both)
    };
    set("flag-full", "value", rehashed(&bytes, 11, &[1]));
    set("snapshot", "value", rehashed(&bytes, 32, &[1]));
    set("base", "value", rehashed(&bytes, 95, &[1]));
    set("steps", "value", rehashed(&bytes, 96, &[1]));
    set("packs-unsorted", "canonical", swapped(packs, 48));
    set("pack-len-124", "value", rehashed(&bytes, packs + 32, &124u64.to_le_bytes()));
    set("pack-len-limit", "limit", rehashed(&bytes, packs + 32, &((128u64 << 20) + 1).to_le_bytes()));
    set("pack-len-2-63", "limit", rehashed(&bytes, packs + 32, &(1u64 << 63).to_le_bytes()));
    set("pack-kind", "value", rehashed(&bytes, packs + 40, &[3]));
    set("pack-reserved", "value", rehashed(&bytes, packs + 47, &[1]));
    set("dicts-unsorted", "canonical", swapped(dicts, 32));
    set("dicts-repeated", "canonical", rehashed(&bytes, dicts, &bytes[dicts + 32..dicts + 64]));
    set("fanout-first", "rule", rehashed(&bytes, fanout, &[1]));
    set("fanout-last", "rule", rehashed(&bytes, fanout + 4, &[4]));
    set("records-unsorted", "canonical", swapped(records, 56));
    set("records-repeated", "canonical", rehashed(&bytes, records, &bytes[records + 56..records + 112]));
    set("offset-15", "rule", rehashed(&bytes, records + 32, &15u64.to_le_bytes()));
    set("offset-in-footer", "rule", rehashed(&bytes, records + 32, &(32u64 << 20).to_le_bytes()));
    set("offset-max", "rule", rehashed(&bytes, records + 32, &[0xff; 8]));
    set("stored-len-0", "value", rehashed(&bytes, records + 40, &[0; 4]));
    set("plain-len-0", "value", rehashed(&bytes, records + 44, &[0; 4]));
    set("plain-len-limit", "limit", rehashed(&bytes, records + 44, &[0, 0, 0, 2]));
    set("pack-outside", "value", rehashed(&bytes, records + 48, &[2]));
    set("pack-max", "value", rehashed(&bytes, records + 48, &[0xff; 4]));
    set("dict-outside", "value", rehashed(&bytes, record(2, 1) + 52, &[2]));
    set("dict-without-use", "value", rehashed(&bytes, record(1, 0) + 52, &[1]));
    set("encoding-3", "value", rehashed(&bytes, records + 54, &[3]));
    set("record-reserved", "value", rehashed(&bytes, records + 55, &[1]));
    set("raw-lengths", "rule", rehashed(&bytes, record(0, 0) + 40, &[99]));
    set("zstd-not-shorter", "rule", rehashed(&bytes, record(1, 0) + 44, &50u32.to_le_bytes()));
    let many = valid::table(TableKind::Segment, 100);
    let middle = 128 + 2 * 48 + 2 * 4;
    set("fanout-decreases", "rule", rehashed(&many, middle, &[101]));
    let moved = many[middle] - 1;
    set("outside-bucket", "rule", rehashed(&many, middle, &[moved]));
}

fn locator(set: &mut Set) {
    let bytes = valid::locator_base();
    let full = valid::table(TableKind::Locator { snapshot: SnapshotId([7; 32]), base: None }, 1);
    let mut set = |what: &str, reason, bytes| set.add("locator", what, reason, bytes);
    table(&mut set, &bytes);
    set("steps-16", "limit", rehashed(&bytes, 96, &[16]));
    set("steps-max", "limit", rehashed(&bytes, 96, &[0xff; 4]));
    set("steps-0", "rule", rehashed(&bytes, 96, &[0]));
    set("base-zeros", "rule", rehashed(&bytes, 64, &[0; 32]));
    set("full-with-base", "rule", rehashed(&full, 64, &[1]));
    set("full-with-steps", "rule", rehashed(&full, 96, &[1]));
}

fn index(set: &mut Set) {
    let bytes = encode_index(&valid::index());
    let mut set = |what: &str, reason, bytes| set.add("snapshot-index", what, reason, bytes);
    set("empty", "truncated", Vec::new());
    set("truncated", "truncated", cut(&bytes, 1));
    set("trailing", "trailing", longer(&bytes));
    set("magic", "magic", patch(&bytes, 0, b"e"));
    set("version-2", "version", rehashed(&bytes, 8, &[2]));
    set("version-0", "value", rehashed(&bytes, 8, &[0]));
    set("reserved", "value", rehashed(&bytes, 11, &[1]));
    set("count-short", "trailing", rehashed(&bytes, 12, &[1]));
    set("count-long", "truncated", rehashed(&bytes, 12, &[3]));
    set("count-max", "limit", rehashed(&bytes, 12, &[0xff; 4]));
    set("hash", "hash", patch(&bytes, 16, &[bytes[16] ^ 1]));
    set("id-zeros", "rule", rehashed(&bytes, 16, &[0; 32]));
    set("len-0", "value", rehashed(&bytes, 16 + 72, &[0; 8]));
    set("len-max", "value", rehashed(&bytes, 16 + 72, &[0xff; 8]));
}
