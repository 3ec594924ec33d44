// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entries: what decodes encodes to the bytes that it took; the shortcut to the path agrees.
#![no_main]

use evenkeel_store::format::manifest::{Entry, peek_path};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok((entry, len)) = Entry::decode_prefix(bytes) else {
        let _ = peek_path(bytes);
        return;
    };
    let mut again = Vec::new();
    entry.encode_into(&mut again);
    assert_eq!(again, bytes[..len]);
    assert_eq!(peek_path(bytes), Ok(entry.path.as_bytes()));
});
