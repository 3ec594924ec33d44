// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `segments/current`: what decodes encodes to the same bytes.
#![no_main]

use evenkeel_store::format::store::SegmentsCurrent;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = SegmentsCurrent::decode(bytes) {
        assert_eq!(value.encode(), bytes);
    }
});
