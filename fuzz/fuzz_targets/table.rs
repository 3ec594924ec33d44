// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Segments and locators, the hash mended: lookups agree with the records, and those encode to an equal table.
#![no_main]

use evenkeel_store::format::table::{self, Table};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((content, _)) = bytes.split_last_chunk::<32>() else { return };
    let bytes = [content, blake3::hash(content).as_bytes()].concat();
    let Ok(table) = Table::decode(&bytes[..]) else { return };
    for (id, location) in table.iter() {
        assert_eq!(table.get(&id), Some(location));
    }
    // Packs and dictionaries that no record names are not written again, so the bytes may differ.
    let again = table::encode(table.kind(), table.packs(), table.iter().collect()).expect("within the limits");
    let again = Table::decode(&again[..]).expect("what is written is valid");
    assert!(again.iter().eq(table.iter()));
    assert_eq!(again.kind(), table.kind());
});
