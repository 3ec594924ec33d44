// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packs, the footer hash mended: what decodes encodes to the same header, footer and trailer.
#![no_main]

use evenkeel_store::format::pack::{self, HEADER_LEN, TRAILER_LEN};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut file = bytes.to_vec();
    mend(&mut file);
    let Ok((kind, entries)) = pack::decode(&file) else { return };
    assert_eq!(pack::encode_header(kind), file[..HEADER_LEN]);
    assert!(file.ends_with(&pack::encode_footer(&entries)));
});

/// Lets the footer's hash fit, when there is a footer.
fn mend(file: &mut [u8]) {
    let Some(trailer) = file.len().checked_sub(TRAILER_LEN) else { return };
    let offset = u64::from_le_bytes(file[trailer..trailer + 8].try_into().expect("eight bytes"));
    let Some(footer) = usize::try_from(offset).ok().filter(|offset| *offset <= trailer) else { return };
    let hash = blake3::hash(&file[footer..trailer + 24]);
    file[trailer + 24..trailer + 56].copy_from_slice(hash.as_bytes());
}
