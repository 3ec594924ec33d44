// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deterministic CBOR (RFC 8949 §4.2.1): the strict reader and the writer that every document uses (format-spec §00.5).
//!
//! The reader accepts exactly what the writer can write: shortest heads, definite lengths, map keys in the bytewise
//! order of their encodings, no tags, no floats, no simple values but `true` and `false`. General CBOR decoders are more
//! tolerant than that, so heads are read here; a test compares with `minicbor`.
//!
//! Invariant: returns borrowed slices and never allocates.

use super::{DecodeError, Reason};

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// Deepest nesting that [`Reader::skip`] walks through.
const DEPTH_MAX: u32 = 16;

/// Reads items one after the other; every error carries the offset of the item that is wrong.
#[derive(Debug, Clone)]
pub struct Reader<'b> {
    object: &'static str,
    bytes: &'b [u8],
    at: usize,
}

/// Progress through one map whose keys are known.
#[derive(Debug)]
pub struct Keys {
    remaining: u64,
    /// Where the encoding of the last key read lies; empty before the first.
    last: (usize, usize),
}

/// A key that a map may have, with the name that errors use.
#[derive(Debug, Clone, Copy)]
pub enum Key {
    /// A small integer, below 24.
    Int(u8, &'static str),
    /// A short text, below 24 bytes.
    Text(&'static str),
}

impl Key {
    fn field(self) -> &'static str {
        match self {
            Key::Int(_, field) | Key::Text(field) => field,
        }
    }

    /// Length of this key's encoding, when `bytes` begin with it.
    fn matches(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Key::Int(key, _) => (bytes.first() == Some(&key)).then_some(1),
            Key::Text(key) => {
                let (head, text) = bytes.split_first()?;
                let fits = usize::from(head ^ (TEXT << 5)) == key.len() && text.starts_with(key.as_bytes());
                fits.then_some(1 + key.len())
            }
        }
    }
}

impl<'b> Reader<'b> {
    /// A reader at the start of `bytes`; `object` names what they are in errors.
    pub fn new(object: &'static str, bytes: &'b [u8]) -> Self {
        Reader { object, bytes, at: 0 }
    }

    /// Offset of the next item.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The error for a value that began at `offset`.
    pub fn error(&self, offset: usize, field: &'static str, reason: Reason) -> DecodeError {
        DecodeError { object: self.object, offset: offset as u64, field, reason }
    }

    fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Major type and argument of the next item.
    fn head(&mut self, field: &'static str) -> Result<(u8, u64), DecodeError> {
        let start = self.at;
        let Some(&initial) = self.bytes.get(start) else {
            return Err(self.error(start, field, Reason::Truncated));
        };
        let (major, info) = (initial >> 5, initial & 31);
        if major == 7 && initial != FALSE && initial != TRUE {
            return Err(self.error(start, field, Reason::Canonical("float, null or other simple value")));
        }
        if major == TAG {
            return Err(self.error(start, field, Reason::Canonical("tag")));
        }
        let width = match info {
            0..=23 => 0,
            24..=27 => 1usize << (info - 24),
            28..=30 => return Err(self.error(start, field, Reason::Canonical("reserved head"))),
            _ => return Err(self.error(start, field, Reason::Canonical("indefinite length"))),
        };
        let Some(argument) = self.bytes.get(start + 1..start + 1 + width) else {
            return Err(self.error(start, field, Reason::Truncated));
        };
        self.at += 1 + width;
        if width == 0 {
            return Ok((major, u64::from(info)));
        }
        let value = argument.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        let least = match width {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            _ => 1 << 32,
        };
        if value < least {
            return Err(self.error(start, field, Reason::Canonical("number not in its shortest form")));
        }
        Ok((major, value))
    }

    fn expect(&mut self, major: u8, field: &'static str) -> Result<u64, DecodeError> {
        let start = self.at;
        match self.head(field)? {
            (found, value) if found == major => Ok(value),
            _ => Err(self.error(start, field, Reason::Rule("wrong type"))),
        }
    }

    /// Reads an unsigned integer.
    ///
    /// # Errors
    /// [`DecodeError`] when the next item is something else.
    pub fn uint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.expect(UINT, field)
    }

    /// Reads an unsigned integer from `least` to `most`.
    ///
    /// # Errors
    /// [`Reason::Value`] outside that range.
    pub fn uint_in(&mut self, field: &'static str, least: u64, most: u64) -> Result<u64, DecodeError> {
        let start = self.at;
        let found = self.uint(field)?;
        if found < least || found > most {
            return Err(self.error(start, field, Reason::Value { found }));
        }
        Ok(found)
    }

    /// Reads an unsigned integer from `least` to `most` into a narrower type that can hold `most`.
    ///
    /// # Errors
    /// [`Reason::Value`] outside that range.
    pub fn small<T: TryFrom<u64>>(&mut self, field: &'static str, least: u64, most: u64) -> Result<T, DecodeError> {
        let start = self.at;
        let found = self.uint_in(field, least, most)?;
        T::try_from(found).map_err(|_| self.error(start, field, Reason::Value { found }))
    }

    /// Reads a signed integer.
    ///
    /// # Errors
    /// [`Reason::Value`] when it does not fit 64 bits.
    pub fn int(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let start = self.at;
        let (major, value) = self.head(field)?;
        let narrow = i64::try_from(value);
        match (major, narrow) {
            (UINT, Ok(value)) => Ok(value),
            (NEGATIVE, Ok(value)) => Ok(-1 - value),
            (UINT | NEGATIVE, Err(_)) => Err(self.error(start, field, Reason::Value { found: value })),
            _ => Err(self.error(start, field, Reason::Rule("wrong type"))),
        }
    }

    fn string(&mut self, major: u8, field: &'static str, most: usize) -> Result<&'b [u8], DecodeError> {
        let start = self.at;
        let len = self.expect(major, field)?;
        if len > most as u64 {
            return Err(self.error(start, field, Reason::Limit { found: len, limit: most as u64 }));
        }
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let Some(slice) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(self.error(start, field, Reason::Truncated));
        };
        self.at += slice.len();
        Ok(slice)
    }

    /// Reads a byte string of at most `most` bytes.
    ///
    /// # Errors
    /// [`Reason::Limit`] when it is longer.
    pub fn bytes(&mut self, field: &'static str, most: usize) -> Result<&'b [u8], DecodeError> {
        self.string(BYTES, field, most)
    }

    /// Reads a byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// [`Reason::Value`] with the length found when it has another.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let start = self.at;
        let slice = self.bytes(field, usize::MAX)?;
        slice.try_into().map_err(|_| self.error(start, field, Reason::Value { found: slice.len() as u64 }))
    }

    /// Reads a text of at most `most` bytes.
    ///
    /// # Errors
    /// [`Reason::Limit`] when it is longer, [`Reason::Canonical`] when it is not UTF-8.
    pub fn text(&mut self, field: &'static str, most: usize) -> Result<&'b str, DecodeError> {
        let start = self.at;
        let slice = self.string(TEXT, field, most)?;
        std::str::from_utf8(slice).map_err(|_| self.error(start, field, Reason::Canonical("text is not UTF-8")))
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// [`DecodeError`] when the next item is something else.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        let start = self.at;
        match self.head(field)? {
            (7, value) => Ok(value == u64::from(TRUE & 31)),
            _ => Err(self.error(start, field, Reason::Rule("wrong type"))),
        }
    }

    /// Reads the head of an array of at most `most` items, which the remaining bytes can hold.
    ///
    /// # Errors
    /// [`Reason::Limit`] when it has more.
    pub fn array_len(&mut self, field: &'static str, most: usize) -> Result<usize, DecodeError> {
        self.collection(ARRAY, field, most, 1)
    }

    /// Reads the head of a map of at most `most` pairs, which the remaining bytes can hold.
    ///
    /// # Errors
    /// [`Reason::Limit`] when it has more.
    pub fn map_len(&mut self, field: &'static str, most: usize) -> Result<usize, DecodeError> {
        self.collection(MAP, field, most, 2)
    }

    fn collection(
        &mut self,
        major: u8,
        field: &'static str,
        most: usize,
        least_bytes: usize,
    ) -> Result<usize, DecodeError> {
        let start = self.at;
        let found = self.expect(major, field)?;
        if found > most as u64 {
            return Err(self.error(start, field, Reason::Limit { found, limit: most as u64 }));
        }
        match usize::try_from(found) {
            Ok(count) if count <= self.rest() / least_bytes => Ok(count),
            _ => Err(self.error(start, field, Reason::Truncated)),
        }
    }

    /// Reads the head of an array of exactly `count` items.
    ///
    /// # Errors
    /// [`Reason::Value`] with the count found when it has another.
    pub fn tuple(&mut self, field: &'static str, count: u64) -> Result<(), DecodeError> {
        let start = self.at;
        let found = self.expect(ARRAY, field)?;
        if found != count {
            return Err(self.error(start, field, Reason::Value { found }));
        }
        Ok(())
    }

    /// Reads the head of a map whose keys are known. Ask for them in their encoded order, then [`Reader::end`].
    ///
    /// # Errors
    /// [`DecodeError`] when the next item is something else.
    pub fn map(&mut self, field: &'static str) -> Result<Keys, DecodeError> {
        let remaining = self.expect(MAP, field)?;
        Ok(Keys { remaining, last: (0, 0) })
    }

    /// Takes `key` if it is the map's next one; its value follows.
    pub fn optional(&mut self, keys: &mut Keys, key: Key) -> bool {
        if keys.remaining == 0 {
            return false;
        }
        let Some(len) = key.matches(&self.bytes[self.at..]) else {
            return false;
        };
        keys.remaining -= 1;
        keys.last = (self.at, self.at + len);
        self.at += len;
        true
    }

    /// Takes `key`, which must be the map's next one.
    ///
    /// # Errors
    /// [`DecodeError`] saying whether it is missing or what stands in its place is unknown or out of order.
    pub fn required(&mut self, keys: &mut Keys, key: Key) -> Result<(), DecodeError> {
        if self.optional(keys, key) {
            return Ok(());
        }
        if keys.remaining > 0 && self.unexpected_key(keys, key.field())?.1 {
            return Err(self.error(self.at, key.field(), Reason::Canonical("map keys out of order")));
        }
        Err(self.error(self.at, key.field(), Reason::Rule("missing key, or an unknown key in its place")))
    }

    /// Checks that the map has no further key.
    ///
    /// # Errors
    /// [`DecodeError`] naming the reason why the next key is not allowed.
    pub fn end(&mut self, keys: &Keys, field: &'static str) -> Result<(), DecodeError> {
        if keys.remaining == 0 {
            return Ok(());
        }
        let (start, repeated) = self.unexpected_key(keys, field)?;
        let reason =
            if repeated { Reason::Canonical("map keys out of order") } else { Reason::Rule("key not allowed here") };
        Err(self.error(start, field, reason))
    }

    /// Where the next key begins, and whether it does not sort after the last one.
    fn unexpected_key(&self, keys: &Keys, field: &'static str) -> Result<(usize, bool), DecodeError> {
        let mut ahead = self.clone();
        ahead.skip(field)?;
        let (start, end) = keys.last;
        Ok((self.at, start != end && self.bytes[self.at..ahead.at] <= self.bytes[start..end]))
    }

    /// Checks that the key that began at `key_at` and ends here sorts after the one that `last` spans, and makes it the
    /// last. For maps whose keys are data; begin with `(0, 0)`.
    ///
    /// # Errors
    /// [`Reason::Canonical`].
    pub fn ascending(&self, last: &mut (usize, usize), key_at: usize, field: &'static str) -> Result<(), DecodeError> {
        let (start, end) = *last;
        if start != end && self.bytes[key_at..self.at] <= self.bytes[start..end] {
            return Err(self.error(key_at, field, Reason::Canonical("map keys out of order")));
        }
        *last = (key_at, self.at);
        Ok(())
    }

    /// Passes over one item with everything in it.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not canonical, cut off or nested too deeply.
    pub fn skip(&mut self, field: &'static str) -> Result<(), DecodeError> {
        // Items still to read at each depth; no recursion, so hostile nesting costs nothing.
        let mut pending = [0u64; DEPTH_MAX as usize];
        let mut depth = 0;
        pending[0] = 1;
        loop {
            while pending[depth] == 0 {
                if depth == 0 {
                    return Ok(());
                }
                depth -= 1;
            }
            pending[depth] -= 1;
            let start = self.at;
            let (major, value) = self.head(field)?;
            let inside = match major {
                BYTES | TEXT => {
                    if value > self.rest() as u64 {
                        return Err(self.error(start, field, Reason::Truncated));
                    }
                    self.at += usize::try_from(value).expect("no more than the bytes that remain");
                    continue;
                }
                ARRAY => value,
                MAP => value.saturating_mul(2),
                _ => continue,
            };
            if inside > self.rest() as u64 {
                return Err(self.error(start, field, Reason::Truncated));
            }
            depth += 1;
            if depth == pending.len() {
                let limit = u64::from(DEPTH_MAX);
                return Err(self.error(start, field, Reason::Limit { found: limit + 1, limit }));
            }
            pending[depth] = inside;
        }
    }

    /// Checks that nothing follows.
    ///
    /// # Errors
    /// [`Reason::Trailing`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.rest() > 0 {
            return Err(self.error(self.at, "end", Reason::Trailing));
        }
        Ok(())
    }
}

/// A kind of document: what its first keys must say.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// For errors.
    pub object: &'static str,
    /// Value of its `type` key.
    pub type_name: &'static str,
    /// Longest document, in bytes.
    pub bytes_max: u64,
    /// Key of the list of features that a reader must know, if this kind has one.
    pub features: Option<&'static str>,
}

/// The version of every document that this program reads and writes.
pub const VERSION: u64 = 1;

impl Document {
    /// A reader over `bytes`, once type, version and features have been found to be this program's. Looked at first and
    /// apart, so that a newer document is reported as newer and not as one with unknown keys.
    ///
    /// # Errors
    /// [`Reason::Limit`], [`Reason::Magic`], [`Reason::Version`] or [`Reason::Feature`]; any other when the document
    /// breaks before that is known.
    pub fn open<'b>(&self, bytes: &'b [u8]) -> Result<Reader<'b>, DecodeError> {
        let mut r = Reader::new(self.object, bytes);
        let found = bytes.len() as u64;
        if found > self.bytes_max {
            return Err(r.error(0, "length", Reason::Limit { found, limit: self.bytes_max }));
        }
        if !bytes.is_empty() && bytes[0] >> 5 != MAP {
            return Err(r.error(0, "type", Reason::Magic));
        }
        let pairs = r.map_len("document", usize::MAX)?;
        let (mut version, mut last) = (None, (0, 0));
        for _ in 0..pairs {
            let key_at = r.at;
            r.skip("key")?;
            r.ascending(&mut last, key_at, "key")?;
            r.at = key_at;
            let is = |r: &mut Reader, key| Key::Text(key).matches(&r.bytes[r.at..]);
            if let Some(len) = is(&mut r, "type") {
                r.at += len;
                let start = r.at;
                if r.text("type", usize::MAX)? != self.type_name {
                    return Err(r.error(start, "type", Reason::Magic));
                }
            } else if let Some(len) = is(&mut r, "version") {
                r.at += len;
                version = Some(read_version(&mut r)?);
            } else if let Some(len) = self.features.filter(|_| version.is_some()).and_then(|key| is(&mut r, key)) {
                r.at += len;
                refuse_features(&mut r)?;
            } else {
                r.skip("document")?;
                r.skip("document")?;
            }
        }
        r.at = 0;
        Ok(r)
    }

    /// Reads the `type` key, whose value [`Document::open`] has seen.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not the next key.
    pub fn read_type(&self, r: &mut Reader<'_>, keys: &mut Keys) -> Result<(), DecodeError> {
        r.required(keys, Key::Text("type"))?;
        r.text("type", self.type_name.len()).map(drop)
    }

    /// Reads the `version` key.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not the next key.
    pub fn read_version(&self, r: &mut Reader<'_>, keys: &mut Keys) -> Result<(), DecodeError> {
        r.required(keys, Key::Text("version"))?;
        read_version(r).map(drop)
    }
}

fn read_version(r: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let start = r.at;
    let found = r.uint("version")?;
    match found {
        VERSION => Ok(found),
        0 => Err(r.error(start, "version", Reason::Value { found })),
        _ => Err(r.error(start, "version", Reason::Version { found, supported: VERSION })),
    }
}

/// Version 1 knows no features, so any name is one too many.
fn refuse_features(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    let count = r.array_len("features", usize::MAX)?;
    if count == 0 {
        return Ok(());
    }
    let start = r.at;
    let name = r.text("features", FEATURE_BYTES_MAX)?.to_owned();
    Err(r.error(start, "features", Reason::Feature(name)))
}

/// Longest name of a feature, in bytes.
pub const FEATURE_BYTES_MAX: usize = 255;

/// Appends items in their one encoding. The caller writes map keys in order.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    /// Appends to `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Writer { out }
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        // The bytes of `value` from the most significant down.
        let byte = |shift: u32| u8::try_from(value >> shift & 0xff).expect("masked to eight bits");
        match value {
            0..24 => self.out.push(major | byte(0)),
            24..0x100 => self.out.extend([major | 24, byte(0)]),
            0x100..0x1_0000 => self.out.extend([major | 25, byte(8), byte(0)]),
            0x1_0000..0x1_0000_0000 => self.out.extend([major | 26, byte(24), byte(16), byte(8), byte(0)]),
            _ => {
                self.out.push(major | 27);
                self.out.extend((0..8).rev().map(|index| byte(8 * index)));
            }
        }
        self
    }

    /// An unsigned integer.
    pub fn uint(&mut self, value: impl Into<u64>) -> &mut Self {
        self.head(UINT, value.into())
    }

    /// A signed integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        match u64::try_from(value) {
            Ok(value) => self.head(UINT, value),
            Err(_) => self.head(NEGATIVE, value.unsigned_abs() - 1),
        }
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(BYTES, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
        self
    }

    /// A text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.head(TEXT, text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { TRUE } else { FALSE });
        self
    }

    /// Head of an array; its items follow.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(ARRAY, count as u64)
    }

    /// Head of a map; its keys and values follow, in the order of the keys' encodings.
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.head(MAP, count as u64)
    }
}

/// The order in which string keys stand in a map: shorter first, then bytewise.
pub fn key_order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Bytes that an unsigned integer takes, and so does the head of a string of that length.
pub const fn uint_len(value: u64) -> usize {
    match value {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl for<'w, 'o> FnOnce(&'w mut Writer<'o>) -> &'w mut Writer<'o>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut Writer::new(&mut bytes));
        bytes
    }

    #[test]
    fn heads_change_their_width_where_they_must() {
        for (value, len) in [
            (0, 1),
            (23, 1),
            (24, 2),
            (0xff, 2),
            (0x100, 3),
            (0xffff, 3),
            (0x1_0000, 5),
            (0xffff_ffff, 5),
            (0x1_0000_0000, 9),
            (u64::MAX, 9),
        ] {
            let bytes = written(|w| w.uint(value).bool(true));
            assert_eq!(bytes.len(), len + 1, "{value}");
            assert_eq!(uint_len(value), len, "{value}");
            let mut r = Reader::new("test", &bytes);
            assert_eq!(r.uint("value"), Ok(value));
            assert_eq!(r.bool("value"), Ok(true));
            assert_eq!(r.finish(), Ok(()));
        }
    }

    #[test]
    fn every_other_form_is_refused() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "truncated"),
            (b"\x18", "truncated"),
            (b"\x19\x01", "truncated"),
            (b"\x1b\0\0\0\x01\0\0\0", "truncated"),
            (b"\x18\x17", "canonical"),
            (b"\x19\x00\xff", "canonical"),
            (b"\x1a\x00\x00\xff\xff", "canonical"),
            (b"\x1b\0\0\0\0\xff\xff\xff\xff", "canonical"),
            (b"\x1c", "canonical"),
            (b"\x1f", "canonical"),
            (b"\xc0\x00", "canonical"),
            (b"\xf6", "canonical"),
            (b"\xf7", "canonical"),
            (b"\xf8\x14", "canonical"),
            (b"\xf9\x00\x00", "canonical"),
            (b"\xff", "canonical"),
            (b"\x20", "rule"),
            (b"\x40", "rule"),
            (b"\x60", "rule"),
            (b"\x80", "rule"),
            (b"\xa0", "rule"),
            (b"\xf5", "rule"),
        ];
        for (bytes, reason) in cases {
            let error = Reader::new("test", bytes).uint("value").expect_err("not a canonical integer");
            assert_eq!((error.reason.name(), error.offset), (*reason, 0), "{bytes:02x?}");
        }
    }

    #[test]
    fn signed_integers_end_at_64_bits() {
        for value in [0, -1, 23, -24, -25, i64::MAX, i64::MIN] {
            let bytes = written(|w| w.int(value));
            assert_eq!(Reader::new("test", &bytes).int("value"), Ok(value));
        }
        for bytes in [b"\x1b\x80\0\0\0\0\0\0\0", b"\x3b\x80\0\0\0\0\0\0\0"] {
            let error = Reader::new("test", bytes).int("value").expect_err("outside 64 bits");
            assert_eq!(error.reason, Reason::Value { found: 1 << 63 });
        }
    }

    #[test]
    fn lengths_are_compared_before_anything_else() {
        let bytes = written(|w| w.bytes(b"12345"));
        assert_eq!(Reader::new("test", &bytes).bytes("value", 5), Ok(&b"12345"[..]));
        let limited =
            |bytes: &[u8], most| Reader::new("test", bytes).bytes("value", most).expect_err("too long").reason;
        assert_eq!(limited(&bytes, 4), Reason::Limit { found: 5, limit: 4 });
        assert_eq!(limited(b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", 4).name(), "limit");
        assert_eq!(limited(b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", usize::MAX), Reason::Truncated);
        let counted =
            |bytes: &[u8], most| Reader::new("test", bytes).array_len("value", most).expect_err("wrong").reason;
        assert_eq!(counted(b"\x82\0\0", 1), Reason::Limit { found: 2, limit: 1 });
        assert_eq!(counted(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", usize::MAX), Reason::Truncated);
        assert_eq!(
            Reader::new("test", b"\xa1\0").map_len("value", 9).expect_err("half a pair").reason,
            Reason::Truncated
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert_eq!(Reader::new("test", &nested(15)).skip("value"), Ok(()));
        let error = Reader::new("test", &nested(16)).skip("value").expect_err("one too deep");
        assert_eq!(error.reason, Reason::Limit { found: 17, limit: 16 });
        assert_eq!(Reader::new("test", &nested(100_000)).skip("value").expect_err("far too deep").offset, 15);
    }

    /// `minicbor` knows nothing of our writer: what it reads is what was meant.
    fn same_to_others(a: u64, b: i64, text: &str, bytes: &[u8]) -> Result<(), minicbor::decode::Error> {
        let written = written(|w| w.array(5).uint(a).int(b).text(text).bytes(bytes).bool(false));
        let mut other = minicbor::Decoder::new(&written);
        assert_eq!(other.array()?, Some(5));
        assert_eq!((other.u64()?, other.i64()?), (a, b));
        assert_eq!((other.str()?, other.bytes()?, other.bool()?), (text, bytes, false));
        assert_eq!(other.position(), written.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn other_decoders_agree(a: u64, b: i64, text: String, bytes: Vec<u8>) {
            prop_assert!(same_to_others(a, b, &text, &bytes).is_ok());
        }

        #[test]
        fn skipping_takes_what_other_decoders_take(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut r = Reader::new("test", &bytes);
            if r.skip("value").is_ok() {
                let mut other = minicbor::Decoder::new(&bytes);
                // Text that is not UTF-8 is skipped here and looked at when it is read.
                if other.skip().is_ok() {
                    prop_assert_eq!(other.position(), r.offset());
                }
            }
        }
    }
}
