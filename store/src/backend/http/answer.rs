// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Status and headers of an answer → what its body is, or why it is of no use.
//!
//! Invariant: does no I/O.

use std::time::Duration;

use crate::error::TransferError;

/// A whole object up to this length is accepted in the place of a part of it, in bytes.
const WHOLE_FOR_PART_BYTES: u64 = 4 << 20;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Asked {
    /// All of an object that has at most so many bytes.
    Whole { cap: u64 },
    /// So many bytes from an offset, at least one.
    Part { start: u64, len: u64 },
}

impl Asked {
    /// The value of the header `Range`.
    pub(super) fn range(&self) -> Option<String> {
        match self {
            Asked::Whole { .. } => None,
            Asked::Part { start, len } => Some(format!("bytes={start}-{}", last(*start, *len))),
        }
    }
}

fn last(start: u64, len: u64) -> u64 {
    start.saturating_add(len).saturating_sub(1)
}

/// What counts of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) content_range: Option<&'a str>,
    pub(super) content_length: Option<u64>,
    pub(super) content_encoding: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    pub(super) location: Option<&'a str>,
    pub(super) retry_after: Option<&'a str>,
}

/// What to do with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// There is no such object.
    Missing,
    /// All of it is wanted, up to its end; it is an error that there are more than `cap` bytes.
    All { cap: u64, expected: Option<u64> },
    /// Of it, `len` bytes after the first `skip`; it need not be read on.
    Slice { skip: u64, len: u64 },
}

impl Answer<'_> {
    /// What the body is.
    ///
    /// # Errors
    /// Whatever keeps it from being what was asked for.
    pub(super) fn judge(&self, asked: &Asked) -> Result<Body, TransferError> {
        match self.status {
            200 | 206 => {}
            404 | 410 => return Ok(Body::Missing),
            416 => return Err(TransferError::EndsEarly),
            300..=399 => return Err(TransferError::Redirect(self.location.unwrap_or("nowhere").to_string())),
            status => {
                let retry_after = self.retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                return Err(TransferError::Status { status, retry_after });
            }
        }
        if let Some(encoding) = self.content_encoding.filter(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
            return Err(TransferError::Encoded(encoding.to_string()));
        }
        match (asked, self.status) {
            (Asked::Whole { cap }, 200) => match self.content_length {
                Some(found) if found > *cap => Err(TransferError::TooLong { limit: *cap }),
                expected => Ok(Body::All { cap: *cap, expected }),
            },
            (Asked::Whole { .. }, status) => Err(TransferError::Status { status, retry_after: None }),
            (Asked::Part { start, len }, 206) => self.part(*start, *len),
            (Asked::Part { start, len }, _) => self.whole_for_part(*start, *len),
        }
    }

    fn part(&self, start: u64, len: u64) -> Result<Body, TransferError> {
        let last = last(start, len);
        let other = || TransferError::OtherRange {
            asked: format!("{start}-{last}"),
            found: self.content_range.unwrap_or("nothing").to_string(),
        };
        let found = self.content_range.and_then(ContentRange::parse).ok_or_else(other)?;
        if found.first == start && found.last < last && found.total == Some(found.last + 1) {
            return Err(TransferError::EndsEarly);
        }
        let fits = found.first == start && found.last == last && found.total.is_none_or(|total| total > last);
        if !fits || self.content_length.is_some_and(|found| found != len) {
            return Err(other());
        }
        Ok(Body::All { cap: len, expected: Some(len) })
    }

    /// A server may send the whole. It is cut where that is cheap, and never appended to what was there.
    fn whole_for_part(&self, start: u64, len: u64) -> Result<Body, TransferError> {
        if self.is_web_page() {
            return Err(TransferError::WebPage);
        }
        let end = start.saturating_add(len);
        match self.content_length {
            Some(whole) if whole < end => Err(TransferError::EndsEarly),
            _ if end <= WHOLE_FOR_PART_BYTES || start <= len => Ok(Body::Slice { skip: start, len }),
            _ => Err(TransferError::NoRanges),
        }
    }

    /// Whether it says that it is meant for people.
    pub(super) fn is_web_page(&self) -> bool {
        self.content_type.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
    }
}

/// `bytes FIRST-LAST/TOTAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    /// `None` for `*`.
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<ContentRange> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = if total == "*" { None } else { Some(number(total)?) };
        let found = ContentRange { first: number(first)?, last: number(last)?, total };
        let is_sound = found.first <= found.last && found.total.is_none_or(|total| total > found.last);
        is_sound.then_some(found)
    }
}

/// Digits only: `str::parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Asked = Asked::Part { start: 100, len: 50 };

    fn part(content_range: &str) -> String {
        let answer = Answer { status: 206, content_range: Some(content_range), ..Answer::default() };
        match answer.judge(&PART) {
            Ok(body) => format!("{body:?}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn only_the_range_that_was_asked_for_will_do() {
        let all = format!("{:?}", Body::All { cap: 50, expected: Some(50) });
        assert_eq!(part("bytes 100-149/1000"), all);
        assert_eq!(part("bytes 100-149/150"), all);
        assert_eq!(part("bytes 100-149/*"), all);
        for other in [
            "bytes 0-49/1000",
            "bytes 100-148/1000",
            "bytes 100-150/1000",
            "bytes 99-149/1000",
            "bytes 100-149/149",
            "bytes 100-149/",
            "bytes +100-149/1000",
            "bytes 100-149/18446744073709551616",
            "bytes 149-100/1000",
            "bytes=100-149/1000",
            "items 100-149/1000",
            "",
        ] {
            assert_eq!(part(other), format!("it sent another range than 100-149: {other}"), "{other}");
        }
        assert_eq!(part("bytes 100-119/120"), "its copy ends too early");
        let no_header = Answer { status: 206, ..Answer::default() };
        assert!(matches!(no_header.judge(&PART), Err(TransferError::OtherRange { .. })));
        let other_length = Answer { content_range: Some("bytes 100-149/1000"), content_length: Some(51), ..no_header };
        assert!(matches!(other_length.judge(&PART), Err(TransferError::OtherRange { .. })));
    }

    #[test]
    fn a_whole_object_is_cut_where_that_is_cheap() {
        let whole = |len| Answer { status: 200, content_length: Some(len), ..Answer::default() };
        assert_eq!(whole(1000).judge(&PART).unwrap(), Body::Slice { skip: 100, len: 50 });
        assert!(matches!(whole(149).judge(&PART), Err(TransferError::EndsEarly)));
        let far = Asked::Part { start: WHOLE_FOR_PART_BYTES, len: 1 };
        assert!(matches!(whole(1 << 30).judge(&far), Err(TransferError::NoRanges)));
        let most = Asked::Part { start: 8 << 20, len: 9 << 20 };
        assert!(matches!(whole(32 << 20).judge(&most), Ok(Body::Slice { .. })));
        let page = Answer { content_type: Some("Text/HTML; charset=utf-8"), ..whole(1000) };
        assert!(matches!(page.judge(&PART), Err(TransferError::WebPage)));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let whole = Asked::Whole { cap: 100 };
        let with = |status| Answer { status, ..Answer::default() };
        assert_eq!(with(404).judge(&whole).unwrap(), Body::Missing);
        assert!(matches!(with(416).judge(&PART), Err(TransferError::EndsEarly)));
        assert!(matches!(with(206).judge(&whole), Err(TransferError::Status { status: 206, .. })));
        assert!(matches!(with(204).judge(&whole), Err(TransferError::Status { status: 204, .. })));
        let busy = Answer { retry_after: Some(" 99999"), ..with(503) };
        assert_eq!(busy.judge(&whole).unwrap_err().retry_after(), Some(Duration::from_secs(99_999)));
        let encoded = Answer { content_encoding: Some("gzip"), ..with(200) };
        assert!(matches!(encoded.judge(&whole), Err(TransferError::Encoded(_))));
        let plain = Answer { content_encoding: Some("identity"), content_length: Some(100), ..with(200) };
        assert_eq!(plain.judge(&whole).unwrap(), Body::All { cap: 100, expected: Some(100) });
        let long = Answer { content_length: Some(101), ..with(200) };
        assert!(matches!(long.judge(&whole), Err(TransferError::TooLong { limit: 100 })));
        let elsewhere = Answer { location: Some("http://x/\u{1b}[2J"), ..with(302) };
        assert_eq!(
            elsewhere.judge(&whole).unwrap_err().to_string(),
            "it redirects to http://x/\\x1b[2J, which is not followed"
        );
    }
}
