// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deltas and lists of them.

use super::super::valid;
use super::{Set, cut, longer, patch};

pub fn add(set: &mut Set) {
    file(set);
    index(set);
}

/// Where the head of the vector ends, by its counts.
fn head_len(file: &[u8]) -> usize {
    let count = |at: usize| {
        let bytes = file[at..at + 4].try_into().expect("four bytes");
        usize::try_from(u32::from_le_bytes(bytes)).expect("a small count")
    };
    128 + 32 * count(12) + 36 * (count(16) + count(20)) + 4 * count(24)
}

/// `file` with other bytes at `at`, and a hash that fits.
fn rehashed(file: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = patch(file, at, new);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..96]).update(&bytes[128..head_len(file)]).update(&(file.len() as u64).to_le_bytes());
    let hash = hasher.finalize();
    bytes[96..128].copy_from_slice(hash.as_bytes());
    bytes
}

fn file(set: &mut Set) {
    let frames = valid::delta_frames();
    let file = valid::delta_file(Some(evenkeel_store::id::SnapshotId([1; 32])), &frames);
    let frame_at = |index: usize| 128 + 32 * index;
    let outputs_at = frame_at(frames.len());
    let outputs: usize = frames.iter().map(|(frame, _)| frame.outputs.len()).sum();
    let bases_at = outputs_at + 36 * outputs;
    let refs_at = head_len(&file) - 4 * frames.iter().map(|(frame, _)| frame.bases.len()).sum::<usize>();
    let mut set = |what: &str, reason, bytes| set.add("delta", what, reason, bytes);
    set("empty", "truncated", Vec::new());
    set("header-only", "truncated", file[..128].to_vec());
    set("truncated", "hash", cut(&file, 1));
    set("trailing", "hash", longer(&file));
    set("magic", "magic", patch(&file, 0, b"e"));
    set("version-2", "version", rehashed(&file, 8, &[2]));
    set("version-0", "value", rehashed(&file, 8, &[0]));
    set("flags", "value", rehashed(&file, 10, &[1]));
    set("reserved", "value", rehashed(&file, 31, &[1]));
    set("frame-count-0", "value", patch(&file, 12, &[0; 4]));
    set("frame-count-limit", "limit", patch(&file, 12, &((1u32 << 16) + 1).to_le_bytes()));
    set("output-count-0", "value", patch(&file, 16, &[0; 4]));
    set("output-count-limit", "limit", patch(&file, 16, &((1u32 << 19) + 1).to_le_bytes()));
    set("output-count-max", "truncated", patch(&file, 16, &(1u32 << 19).to_le_bytes()));
    set("base-count-limit", "limit", patch(&file, 20, &[0xff; 4]));
    set("ref-count-limit", "limit", patch(&file, 24, &[0xff; 4]));
    set("target-zeros", "rule", rehashed(&file, 32, &[0; 32]));
    set("to-itself", "rule", rehashed(&file, 32, &[1; 32]));
    set("hash", "hash", patch(&file, 96, &[file[96] ^ 1]));
    set("payload-len-0", "value", rehashed(&file, frame_at(0), &[0; 4]));
    set("payload-len-limit", "limit", rehashed(&file, frame_at(0), &((33u32 << 20) + 1).to_le_bytes()));
    set("payload-len-more", "rule", rehashed(&file, frame_at(0) + 2, &[1]));
    set("frame-without-outputs", "value", rehashed(&file, frame_at(0) + 4, &[0]));
    set("frame-outputs-more", "rule", rehashed(&file, frame_at(0) + 4, &[200]));
    set("frame-outputs-less", "rule", rehashed(&file, frame_at(0) + 4, &[1]));
    set("frame-bases-max", "rule", rehashed(&file, frame_at(1) + 8, &[0xff; 4]));
    set("frame-bases-less", "rule", rehashed(&file, frame_at(2) + 8, &[1]));
    set("frame-reserved", "value", rehashed(&file, frame_at(0) + 13, &[1]));
    set("encoding-0-with-base", "rule", rehashed(&file, frame_at(1) + 12, &[0]));
    set("encoding-1-without-base", "rule", rehashed(&file, frame_at(0) + 12, &[1]));
    set("encoding-2-without-base", "rule", rehashed(&file, frame_at(0) + 12, &[2]));
    set("payload", "hash", patch(&file, head_len(&file) + 10, &[!file[head_len(&file) + 10]]));
    set("output-zeros", "rule", rehashed(&file, outputs_at, &[0; 32]));
    set("output-len-0", "value", rehashed(&file, outputs_at + 32, &[0; 4]));
    set("output-len-limit", "limit", rehashed(&file, outputs_at + 32, &((16u32 << 20) + 1).to_le_bytes()));
    set("output-repeated", "rule", rehashed(&file, outputs_at + 36, &file[outputs_at..outputs_at + 32]));
    set("base-zeros", "rule", rehashed(&file, bases_at, &[0; 32]));
    set("base-len-0", "value", rehashed(&file, bases_at + 32, &[0; 4]));
    set("base-repeated", "rule", rehashed(&file, bases_at + 36, &file[bases_at..bases_at + 32]));
    set("reference-first", "rule", rehashed(&file, refs_at, &[1]));
    set("reference-max", "rule", rehashed(&file, refs_at, &[0xff; 4]));
    set("base-unused", "rule", rehashed(&file, refs_at + 4, &[0]));
    let mut large = frames[1].clone();
    large.0.bases = vec![evenkeel_store::format::delta::DeltaChunk { len: 16 << 20, ..large.0.bases[0] }; 5];
    set("bases-of-80-mib", "limit", valid::delta_file(None, &[large]));
    let mut large = frames[0].clone();
    large.0.outputs = (0..3u8)
        .map(|at| evenkeel_store::format::delta::DeltaChunk {
            id: evenkeel_store::id::ChunkId([at + 1; 32]),
            len: 16 << 20,
        })
        .collect();
    set("outputs-of-48-mib", "limit", valid::delta_file(None, &[large]));
}

/// `index` with other bytes at `at`, and a hash that fits.
fn rehashed_index(index: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = patch(index, at, new);
    let end = bytes.len() - 32;
    let hash = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(hash.as_bytes());
    bytes
}

fn index(set: &mut Set) {
    let index = valid::delta_index();
    let target = index[16..48].to_vec();
    let entry = |number: usize| 48 + 80 * number;
    let mut set = |what: &str, reason, bytes| set.add("delta-index", what, reason, bytes);
    set("empty", "truncated", Vec::new());
    set("truncated", "truncated", cut(&index, 1));
    set("trailing", "trailing", longer(&index));
    set("magic", "magic", patch(&index, 0, b"e"));
    set("version-2", "version", rehashed_index(&index, 8, &[2]));
    set("version-0", "value", rehashed_index(&index, 8, &[0]));
    set("reserved", "value", rehashed_index(&index, 10, &[1]));
    set("count-short", "trailing", rehashed_index(&index, 12, &[2]));
    set("count-long", "truncated", rehashed_index(&index, 12, &[4]));
    set("count-max", "limit", rehashed_index(&index, 12, &[0xff; 4]));
    set("hash", "hash", patch(&index, 16, &[index[16] ^ 1]));
    set("target-zeros", "rule", rehashed_index(&index, 16, &[0; 32]));
    set("to-itself", "rule", rehashed_index(&index, entry(1), &target));
    set("unsorted", "canonical", rehashed_index(&index, entry(0), &[0xff; 32]));
    set("repeated", "canonical", rehashed_index(&index, entry(1), &index[entry(0)..entry(0) + 64]));
    set("head-len-127", "value", rehashed_index(&index, entry(0) + 64, &127u64.to_le_bytes()));
    set("head-len-max", "value", rehashed_index(&index, entry(0) + 64, &[0xff; 8]));
    set("file-len-head-len", "rule", rehashed_index(&index, entry(2) + 72, &5000u64.to_le_bytes()));
    set("file-len-limit", "limit", rehashed_index(&index, entry(1) + 72, &((64u64 << 30) + 1).to_le_bytes()));
}
