// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers below 2³², seven bits a byte, in their shortest form (format-spec §70.10).

use super::error;
use crate::format::{DecodeError, Reason};

const MORE: u8 = 0x80;
const BITS: u32 = 7;

/// Appends `value`.
pub fn push(out: &mut Vec<u8>, value: u32) {
    let mut rest = value;
    while rest >= u32::from(MORE) {
        out.push(u8::try_from(rest & 0x7f).expect("seven bits") | MORE);
        rest >>= BITS;
    }
    out.push(u8::try_from(rest).expect("seven bits"));
}

/// Takes a number from the front of `bytes`.
///
/// # Errors
/// [`DecodeError`] when there is none, for a longer form than needed, and for 2³² and above.
pub fn take(bytes: &mut &[u8]) -> Result<u32, DecodeError> {
    let mut value = 0_u64;
    for shift in 0..5 {
        let (byte, rest) = bytes.split_first().ok_or_else(|| error("varint", Reason::Truncated))?;
        *bytes = rest;
        value |= u64::from(byte & !MORE) << (shift * BITS);
        if byte & MORE == 0 {
            if *byte == 0 && shift > 0 {
                return Err(error("varint", Reason::Rule("a longer form than the number needs")));
            }
            return u32::try_from(value).map_err(|_| error("varint", Reason::Rule("a number of more than 32 bits")));
        }
    }
    Err(error("varint", Reason::Rule("a number of more than 32 bits")))
}

/// A difference as a number: even for those from 0 up, odd for those below.
pub fn zigzag(value: i64) -> u32 {
    let folded = if value < 0 { -2 * value - 1 } else { 2 * value };
    u32::try_from(folded).expect("places of a base are below 2^26")
}

/// The difference that a number means.
pub fn unzigzag(value: u32) -> i64 {
    let half = i64::from(value / 2);
    if value.is_multiple_of(2) { half } else { -half - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_other_forms_are_refused() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
            let mut bytes = Vec::new();
            push(&mut bytes, value);
            let mut rest = &bytes[..];
            assert_eq!(take(&mut rest).unwrap(), value);
            assert!(rest.is_empty());
        }
        for bad in [&b""[..], &[0x80], &[0x80, 0], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0x80; 6]] {
            assert!(take(&mut &bad[..]).is_err(), "{bad:?}");
        }
        for value in [0, 1, -1, 77, -(1 << 26), 1 << 26] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
