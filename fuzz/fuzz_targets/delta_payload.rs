// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Payloads of a delta's frame, after a byte for the encoding, two for the output's length and one for the base's share of
//! what follows: what decodes has the length that was asked for.
#![no_main]

use evenkeel_store::delta::codec::decode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(([encoding, low, high, share], rest)) = bytes.split_first_chunk::<4>() else { return };
    let output_len = usize::from(u16::from_le_bytes([*low, *high]));
    let (base, payload) = rest.split_at(rest.len() * usize::from(*share) / 256);
    if let Ok(output) = decode(*encoding, base, payload, output_len) {
        assert_eq!(output.len(), output_len);
    }
});
