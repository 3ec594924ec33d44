// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The head of a request: bytes → what counts of it, or the status that refuses it.
//!
//! Invariant: pure; what two programs could understand in two ways is refused (bodies, repeated lines that decide).

use crate::plan::Conditions;

/// Most header lines of a request, whatever the options say.
pub const HEADERS_MAX: usize = 128;

/// What counts of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// As it came.
    pub method: String,
    /// As it came.
    pub target: String,
    /// Whether the connection may serve another one.
    pub keep_alive: bool,
    /// The token of `Authorization: Bearer`.
    pub token: Option<String>,
    /// `User-Agent`, for the access log.
    pub agent: Option<String>,
    range: Option<String>,
    if_range: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

impl Request {
    /// The lines that decide what is sent.
    pub fn conditions(&self) -> Conditions<'_> {
        Conditions {
            range: self.range.as_deref(),
            if_range: self.if_range.as_deref(),
            if_match: self.if_match.as_deref(),
            if_none_match: self.if_none_match.as_deref(),
        }
    }

    /// Whether the method is one that is answered. After any other one the connection ends.
    pub fn only_reads(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }

    /// Reads a head; `None` while it is not all there.
    ///
    /// # Errors
    /// The status that refuses it. The connection cannot go on after that.
    pub fn parse(head: &[u8], headers_max: usize) -> Result<Option<(Request, usize)>, u16> {
        let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let room = room.get_mut(..headers_max.min(HEADERS_MAX)).unwrap_or_default();
        let mut parsed = httparse::Request::new(room);
        let used = match parsed.parse(head) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(431),
            Err(httparse::Error::Version) => return Err(505),
            Err(_) => return Err(400),
        };
        let is_1_1 = parsed.version == Some(1);
        let mut request = Request {
            method: parsed.method.unwrap_or_default().to_owned(),
            target: parsed.path.unwrap_or_default().to_owned(),
            keep_alive: is_1_1,
            ..Request::default()
        };
        let mut hosts = 0;
        for header in parsed.headers.iter() {
            let value = std::str::from_utf8(header.value).map_err(|_| 400u16)?.trim();
            hosts += usize::from(header.name.eq_ignore_ascii_case("host"));
            request.line(&header.name.to_ascii_lowercase(), value)?;
        }
        if hosts > 1 || (is_1_1 && hosts == 0) {
            return Err(400);
        }
        Ok(Some((request, used)))
    }

    fn line(&mut self, name: &str, value: &str) -> Result<(), u16> {
        let place = match name {
            // A body would be taken for the next request by one of two programs in a row. Whoever wants to change something
            // is told by the status, and no further request is read.
            "transfer-encoding" | "expect" | "upgrade" if self.only_reads() => return Err(400),
            "content-length" if value != "0" && self.only_reads() => return Err(400),
            "connection" => {
                let says = |word: &str| value.split(',').any(|option| option.trim().eq_ignore_ascii_case(word));
                self.keep_alive = (self.keep_alive || says("keep-alive")) && !says("close");
                return Ok(());
            }
            "authorization" => {
                let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                return once(&mut self.token, token.map_or("", |(_, token)| token.trim()));
            }
            "range" => &mut self.range,
            "if-range" => &mut self.if_range,
            "if-match" => &mut self.if_match,
            "if-none-match" => &mut self.if_none_match,
            "user-agent" => {
                self.agent = Some(value.to_owned());
                return Ok(());
            }
            _ => return Ok(()),
        };
        once(place, value)
    }
}

fn once(place: &mut Option<String>, value: &str) -> Result<(), u16> {
    if place.replace(value.to_owned()).is_some() { Err(400) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(lines: &str) -> Result<Option<(Request, usize)>, u16> {
        Request::parse(format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes(), 8)
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let (request, _) = parse("GET /format HTTP/1.1\nHost: a\nAuthorization: bearer x").unwrap().unwrap();
        let (put, _) = parse("PUT /format HTTP/1.1\nHost: a\nContent-Length: 5").unwrap().unwrap();
        assert!(request.only_reads() && !put.only_reads());
        assert!(request.keep_alive && request.token.as_deref() == Some("x"));
        for lines in [
            "GET /format HTTP/1.1",
            "GET /format HTTP/1.1\nHost: a\nHost: b",
            "HEAD /format HTTP/1.1\nHost: a\nContent-Length: 5",
            "GET /format HTTP/1.1\nHost: a\nContent-Length: 0, 5",
            "GET /format HTTP/1.1\nHost: a\nTransfer-Encoding: chunked",
            "GET /format HTTP/1.1\nHost: a\nRange: bytes=0-1\nRange: bytes=0-2",
            "GET /format HTTP/1.1\nHost: a\nRange : bytes=0-1",
            "GET /form\u{0}at HTTP/1.1\nHost: a",
        ] {
            assert_eq!(parse(lines), Err(400), "{lines}");
        }
        assert_eq!(parse(&format!("GET / HTTP/1.1\nHost: a{}", "\nA: b".repeat(8))), Err(431));
        assert!(!parse("GET /format HTTP/1.0").unwrap().unwrap().0.keep_alive);
        assert!(!parse("GET /format HTTP/1.1\nHost: a\nConnection: close").unwrap().unwrap().0.keep_alive);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((_, used))) = Request::parse(&bytes, 8) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
