// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manifest heads: what decodes encodes to the same bytes.
#![no_main]

use evenkeel_store::format::manifest::ManifestHead;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = ManifestHead::decode(bytes) {
        assert_eq!(value.encode(), bytes);
    }
});
