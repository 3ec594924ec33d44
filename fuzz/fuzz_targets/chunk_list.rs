// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packed chunk lists, after eight bytes that say the size: what decodes encodes to the same bytes.
#![no_main]

use evenkeel_store::format::manifest::{decode_chunk_list, encode_chunk_list};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((size, list)) = bytes.split_first_chunk::<8>() else { return };
    if let Ok(runs) = decode_chunk_list(list, u64::from_le_bytes(*size)) {
        assert_eq!(encode_chunk_list(&runs), list);
    }
});
