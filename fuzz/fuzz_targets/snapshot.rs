// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots: what decodes encodes to the same bytes.
#![no_main]

use evenkeel_store::format::snapshot::Snapshot;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(snapshot) = Snapshot::decode(bytes) {
        assert_eq!(snapshot.encode().as_deref(), Ok(bytes));
    }
});
