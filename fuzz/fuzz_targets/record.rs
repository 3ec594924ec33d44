// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records, after three bytes that say the plain length: what decodes has that length. Memory stays bounded by it.
#![no_main]

use evenkeel_store::compress::decompress;
use evenkeel_store::format::pack::Encoding;
use evenkeel_store::id::ChunkId;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((len, stored)) = bytes.split_first_chunk::<3>() else { return };
    let plain_len = u32::from_le_bytes([len[0], len[1], len[2], 0]);
    let dict = &stored[..stored.len() / 2];
    let encodings = [(Encoding::Raw, None), (Encoding::Zstd, None), (Encoding::ZstdDict(ChunkId::of(dict)), Some(dict))];
    for (encoding, dict) in encodings {
        if let Ok(plain) = decompress(encoding, stored, plain_len, dict) {
            assert_eq!(plain.len(), plain_len as usize);
        }
    }
});
