// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `format` object: what decodes encodes to the same bytes.
#![no_main]

use evenkeel_store::format::store::StoreFormat;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = StoreFormat::decode(bytes) {
        assert_eq!(value.encode(), bytes);
    }
});
