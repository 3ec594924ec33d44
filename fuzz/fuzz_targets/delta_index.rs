// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lists of deltas, the hash mended: what decodes encodes to the same bytes.
#![no_main]

use evenkeel_store::format::delta::{decode_index, encode_index};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((content, _)) = bytes.split_last_chunk::<32>() else { return };
    let bytes = [content, blake3::hash(content).as_bytes()].concat();
    if let Ok((target, entries)) = decode_index(&bytes) {
        assert_eq!(encode_index(&target, &entries), bytes);
    }
});
