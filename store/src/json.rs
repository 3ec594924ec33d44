// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How paths and times stand in JSON, the same in every document and record.
//!
//! A path that is valid UTF-8 stands in `path` as it is. One that is not has its wrong bytes replaced by U+FFFD there, and
//! its exact bytes as hex digits in `path_bytes`. Times are RFC 3339 in UTC.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::format::manifest::Timestamp;
use crate::id::encode_hex;

/// A path, by name or by name and bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathField {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

impl PathField {
    /// The fields for these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let path = String::from_utf8_lossy(bytes);
        let path_bytes = std::str::from_utf8(bytes).is_err().then(|| encode_hex(bytes));
        PathField { path: path.into_owned(), path_bytes }
    }

    /// For a terminal: escaped.
    pub fn escaped(&self) -> String {
        self.bytes().map_or_else(|| crate::path::escape(self.path.as_bytes()), |bytes| crate::path::escape(&bytes))
    }

    /// The exact bytes; `None` when `path_bytes` is no hex.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match &self.path_bytes {
            None => Some(self.path.clone().into_bytes()),
            Some(hex) => decode_hex(hex),
        }
    }
}

/// A point in time as RFC 3339 in UTC; Unix seconds where the calendar ends.
pub fn time(time: Timestamp) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    jiff::Timestamp::new(time.secs, nanos).map_or_else(|_| format!("@{}", time.secs), |t| t.to_string())
}

/// What [`time`] writes, read back.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if let Some(secs) = text.strip_prefix('@') {
        return Some(Timestamp { secs: secs.parse().ok()?, nanos: 0 });
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    // Before 1970 both parts are negative there, and the finer one counts forwards here.
    let (secs, nanos) = (time.as_second(), time.subsec_nanosecond());
    let (secs, nanos) = if nanos < 0 { (secs - 1, nanos + 1_000_000_000) } else { (secs, nanos) };
    Some(Timestamp { secs, nanos: u32::try_from(nanos).ok()? })
}

/// A point in time as [`time`] writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeField(pub Timestamp);

impl Serialize for TimeField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time(self.0))
    }
}

impl<'de> Deserialize<'de> for TimeField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_time(&text).map(TimeField).ok_or_else(|| de::Error::custom("not a time"))
    }
}

fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        hex.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| Some(pair[0] << 4 | pair.get(1)?));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact_one_way_or_the_other() {
        for (bytes, text) in [
            ("a\nö".as_bytes(), "{\"path\":\"a\\nö\"}"),
            (b"a\xff", "{\"path\":\"a\u{fffd}\",\"path_bytes\":\"61ff\"}"),
        ] {
            let field = PathField::new(bytes);
            assert_eq!(serde_json::to_string(&field).unwrap(), text);
            assert_eq!(serde_json::from_str::<PathField>(text).unwrap().bytes().unwrap(), bytes);
        }
        for bad in ["6", "6g"] {
            assert_eq!(decode_hex(bad), None);
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(Timestamp { secs: 1_700_000_000, nanos: 5 }), "2023-11-14T22:13:20.000000005Z");
        assert_eq!(time(Timestamp { secs: i64::MAX, nanos: 0 }), "@9223372036854775807");
        for (secs, nanos) in [(0, 0), (1_700_000_000, 5), (-1, 1), (-7, 999_999_999), (i64::MAX, 0)] {
            assert_eq!(parse_time(&time(Timestamp { secs, nanos })), Some(Timestamp { secs, nanos }), "{secs} {nanos}");
        }
        assert_eq!(parse_time("yesterday"), None);
    }
}
