// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deltas, the hash of the head mended: what decodes encodes to the same head, and no payload makes a decoder panic or give
//! another length than it was asked for.
#![no_main]

use evenkeel_store::delta::codec::decode;
use evenkeel_store::format::delta::Delta;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(head_len) = head_len(bytes) else { return };
    let mut file = bytes.to_vec();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..96]).update(&file[128..head_len]).update(&(file.len() as u64).to_le_bytes());
    let hash = hasher.finalize();
    file[96..128].copy_from_slice(hash.as_bytes());
    let Ok(delta) = Delta::decode(&file[..head_len], file.len() as u64) else { return };
    assert_eq!(delta.encode(), &file[..head_len]);
    let mut at = head_len;
    for frame in &delta.frames {
        let end = at + frame.payload_len as usize;
        // Any base will do, as long as memory for fuzzing lasts.
        let base = vec![7; frame.base_len().min(1 << 16) as usize];
        if frame.output_len() <= 1 << 20
            && let Ok(output) = decode(frame.encoding, &base, &file[at..end], frame.output_len() as usize)
        {
            assert_eq!(output.len() as u64, frame.output_len());
        }
        at = end;
    }
});

/// By the counts, if so many bytes are there.
fn head_len(bytes: &[u8]) -> Option<usize> {
    let count = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let chunks = count(16)?.checked_add(count(20)?)?.checked_mul(36)?;
    let len = 128usize.checked_add(count(12)?.checked_mul(32)?)?.checked_add(chunks)?;
    len.checked_add(count(24)?.checked_mul(4)?).filter(|len| *len <= bytes.len())
}
