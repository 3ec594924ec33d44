// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bits in the order of RFC 1951: the lowest of a byte first.

/// Bytes under way.
#[derive(Debug)]
pub(super) struct BitWriter {
    out: Vec<u8>,
    held: u64,
    bits: u32,
}

impl BitWriter {
    /// Begins with `lead` bits that are 0: what they really are belongs to what is written before.
    pub(super) fn new(lead: u8) -> Self {
        BitWriter { out: Vec::new(), held: 0, bits: lead.into() }
    }

    /// Appends the low `bits` of `value`, at most 16, whose others are 0.
    pub(super) fn put(&mut self, value: u32, bits: u8) {
        self.held |= u64::from(value) << self.bits;
        self.bits += u32::from(bits);
        while self.bits >= 8 {
            self.out.push(self.held.to_le_bytes()[0]);
            self.held >>= 8;
            self.bits -= 8;
        }
    }

    /// Fills the byte under way with bits that are 0.
    pub(super) fn align(&mut self) {
        if self.bits > 0 {
            self.put(0, u8::try_from(8 - self.bits).expect("at most seven bits wait"));
        }
    }

    /// Appends what follows the type of a stored block: at most 2^16 - 1 bytes.
    pub(super) fn stored(&mut self, plain: &[u8]) {
        self.align();
        let len = u16::try_from(plain.len()).expect("a stored block is short");
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(&(!len).to_le_bytes());
        self.out.extend_from_slice(plain);
    }

    /// Bits so far, the leading ones counted.
    pub(super) fn len_bits(&self) -> u64 {
        8 * self.out.len() as u64 + u64::from(self.bits)
    }

    /// The bytes that are complete.
    pub(super) fn whole(&self) -> &[u8] {
        &self.out
    }

    /// All bytes, the last one filled.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.align();
        self.out
    }
}
