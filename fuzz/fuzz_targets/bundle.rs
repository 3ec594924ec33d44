// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Head of a bundle, its hash mended: what decodes encodes to the same bytes.
#![no_main]

use evenkeel_store::format::bundle::{BundleHead, HEADER_LEN};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= HEADER_LEN {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..96]).update(&bytes[HEADER_LEN..]);
        bytes[96..HEADER_LEN].copy_from_slice(hasher.finalize().as_bytes());
    }
    let claimed = bytes.get(64..72).map_or(0, |len| u64::from_le_bytes(len.try_into().expect("eight bytes")));
    if let Ok(head) = BundleHead::decode(&bytes, claimed) {
        assert_eq!(head.encode(), bytes);
    }
});
