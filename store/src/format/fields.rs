// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reading little-endian fields at named offsets of a fixed binary layout.

use super::{DecodeError, Reason};

/// The version of every binary layout that this program reads and writes.
pub(super) const VERSION: u16 = 1;

/// Bytes of an object, or of a part of it that begins at `base`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'b> {
    pub object: &'static str,
    pub base: u64,
    pub bytes: &'b [u8],
}

impl<'b> Fields<'b> {
    /// The error for a field at `at`.
    pub fn error(&self, at: usize, field: &'static str, reason: Reason) -> DecodeError {
        DecodeError { object: self.object, offset: self.base + at as u64, field, reason }
    }

    /// Checks that there are exactly `len` bytes.
    pub fn exactly(&self, len: usize, field: &'static str) -> Result<(), DecodeError> {
        match self.bytes.len() {
            found if found < len => Err(self.error(found, field, Reason::Truncated)),
            found if found > len => Err(self.error(len, field, Reason::Trailing)),
            _ => Ok(()),
        }
    }

    /// The `N` bytes at `at`, which the caller has checked to be there.
    pub fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("a slice of N bytes")
    }

    /// The byte at `at`.
    pub fn u8(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// The two bytes at `at`.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    /// The four bytes at `at`.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    /// The eight bytes at `at`.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// Checks the eight bytes of a magic at `at`.
    pub fn magic(&self, at: usize, magic: &[u8; 8]) -> Result<(), DecodeError> {
        if self.array::<8>(at) != *magic {
            return Err(self.error(at, "magic", Reason::Magic));
        }
        Ok(())
    }

    /// Checks the version at `at`.
    pub fn version(&self, at: usize) -> Result<(), DecodeError> {
        let found = self.u16(at);
        match found {
            VERSION => Ok(()),
            0 => Err(self.error(at, "version", Reason::Value { found: 0 })),
            _ => {
                let (found, supported) = (u64::from(found), u64::from(VERSION));
                Err(self.error(at, "version", Reason::Version { found, supported }))
            }
        }
    }

    /// Checks that `len` reserved bytes at `at` are zero.
    pub fn zero(&self, at: usize, len: usize, field: &'static str) -> Result<(), DecodeError> {
        match self.bytes[at..at + len].iter().position(|&byte| byte != 0) {
            Some(index) => {
                let found = u64::from(self.bytes[at + index]);
                Err(self.error(at + index, field, Reason::Value { found }))
            }
            None => Ok(()),
        }
    }

    /// Checks that a value read at `at` lies in its range.
    pub fn range(&self, at: usize, field: &'static str, found: u64, least: u64, most: u64) -> Result<(), DecodeError> {
        if found < least || found > most {
            return Err(self.error(at, field, Reason::Value { found }));
        }
        Ok(())
    }

    /// Checks that a count or length read at `at` is within its limit.
    pub fn limit(&self, at: usize, field: &'static str, found: u64, limit: u64) -> Result<(), DecodeError> {
        if found > limit {
            return Err(self.error(at, field, Reason::Limit { found, limit }));
        }
        Ok(())
    }

    /// Checks a rule about the field at `at`.
    pub fn rule(&self, at: usize, field: &'static str, holds: bool, rule: &'static str) -> Result<(), DecodeError> {
        if holds { Ok(()) } else { Err(self.error(at, field, Reason::Rule(rule))) }
    }
}
