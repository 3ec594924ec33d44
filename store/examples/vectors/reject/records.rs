// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records of packs, and packed chunk lists.

use evenkeel_store::format::manifest::encode_chunk_list;

use super::super::refuse::Case;
use super::super::valid::{data, hole};
use super::{Set, cut, longer, patch};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

pub fn add(set: &mut Set) {
    record(set);
    chunk_list(set);
}

/// A frame of one block that repeats a zero byte `len` times; the header claims `claim` bytes of content in eight bytes.
fn zeros(claim: u64, len: u32) -> Vec<u8> {
    let block = len << 3 | 1 << 1 | 1;
    [&MAGIC[..], &[0xe0], &claim.to_le_bytes(), &block.to_le_bytes()[..3], &[0]].concat()
}

fn record(set: &mut Set) {
    let frame = zeros(1000, 1000);
    let mut set = |what: &str, reason, plain_len, raw, bytes| {
        let case = Case { object: "record".into(), plain_len: Some(plain_len), raw, ..Case::default() };
        set.add_case(case, what, reason, bytes);
    };
    set("raw-short", "rule", 10, true, vec![0; 9]);
    set("raw-long", "rule", 10, true, vec![0; 11]);
    set("plain-len-0", "limit", 0, false, frame.clone());
    set("plain-len-limit", "limit", (16 << 20) + 1, false, zeros((16 << 20) + 1, 1000));
    set("empty", "truncated", 1000, false, Vec::new());
    set("truncated", "truncated", 1000, false, cut(&frame, 1));
    set("header-only", "truncated", 1000, false, frame[..13].to_vec());
    set("trailing", "trailing", 1000, false, longer(&frame));
    set("two-frames", "trailing", 2000, false, [zeros(2000, 1000), zeros(1000, 1000)].concat());
    set("not-a-frame", "magic", 1000, false, patch(&frame, 0, b"x"));
    set("skippable-first", "magic", 1000, false, [&b"\x50\x2a\x4d\x18\x00\x00\x00\x00"[..], &frame].concat());
    set("skippable-last", "trailing", 1000, false, [&frame[..], b"\x50\x2a\x4d\x18\x00\x00\x00\x00"].concat());
    set("legacy-frame", "magic", 1000, false, patch(&frame, 0, &[0x27]));
    set("content-size-less", "value", 1000, false, zeros(999, 1000));
    set("content-size-more", "value", 1000, false, zeros(1001, 1000));
    set("content-size-2-60", "value", 1000, false, zeros(1 << 60, 1000));
    set("content-size-absent", "rule", 1000, false, [&MAGIC[..], &[0x00, 0x58], &frame[13..]].concat());
    set("bomb-in-blocks", "rule", 1000, false, bomb());
    set("block-less-than-claimed", "rule", 1000, false, zeros(1000, 999));
    set("block-more-than-claimed", "rule", 1000, false, zeros(1000, 1001));
    set("checksum", "rule", 1000, false, [&patch(&frame, 4, &[0xe4])[..], &[0; 4]].concat());
    set("dictionary-id", "rule", 1000, false, patch(&frame, 4, &[0xe1]));
    set("reserved-bit", "rule", 1000, false, patch(&frame, 4, &[0xe8]));
    set("block-of-reserved-type", "truncated", 1000, false, patch(&frame, 13, &[7]));
    let window = |descriptor: u8| [&MAGIC[..], &[0xc0, descriptor], &frame[5..]].concat();
    set("window-2-31", "limit", 1000, false, window(21 << 3));
    set("window-2-41", "limit", 1000, false, window(31 << 3 | 7));
    set("window-over-2-24", "limit", 1000, false, window(14 << 3 | 1));
}

/// Four gibibytes of zeros in blocks, in a frame that claims to hold a thousand.
fn bomb() -> Vec<u8> {
    let block = (128u32 << 10) << 3 | 1 << 1;
    let mut bytes = zeros(1000, 0);
    bytes.truncate(13);
    for _ in 0..32_767 {
        bytes.extend(&block.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes.extend(&(block | 1).to_le_bytes()[..3]);
    bytes.push(0);
    bytes
}

fn chunk_list(set: &mut Set) {
    let mut set = |what: &str, reason, size, bytes| {
        let case = Case { object: "chunk-list".into(), size: Some(size), ..Case::default() };
        set.add_case(case, what, reason, bytes);
    };
    let list = encode_chunk_list(&[data("1", 4096), hole(8192), data("2", 1)]);
    let size = 4096 + 8192 + 1;
    set("truncated", "truncated", size, cut(&list, 1));
    set("trailing", "truncated", size, longer(&list));
    set("sum-less", "rule", size + 1, list.clone());
    set("sum-more", "rule", size - 1, list.clone());
    set("len-0", "value", size, patch(&list, 32, &[0; 8]));
    set("len-2-32", "limit", 1 << 33, patch(&list, 32, &(1u64 << 32).to_le_bytes()));
    set("chunk-limit", "limit", 1 << 33, patch(&list, 32, &((16u64 << 20) + 1).to_le_bytes()));
    set("sum-overflows", "rule", u64::MAX, patch(&list, 40 + 32, &[0xff; 8]));
    set("holes-adjacent", "rule", 12_289, encode_chunk_list(&[hole(4096), hole(4096), data("1", 4097)]));
    set("hole-start", "rule", 8192, encode_chunk_list(&[data("1", 1), hole(4095), data("2", 4096)]));
    set("hole-end", "rule", 8192, encode_chunk_list(&[hole(4095), data("2", 4097)]));
}
