// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What to answer: the conditions and the range of a request, and what the object is → status and bytes.
//!
//! Invariant: pure; what is planned to be sent lies within the object.

/// The header lines of a request that decide what is sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// `Range`.
    pub range: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
}

/// What of an object to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// 200: all of it.
    Whole,
    /// 206: at least one byte of it.
    Part {
        /// The first byte.
        start: u64,
        /// How many.
        len: u64,
    },
    /// 304: who asks has it.
    NotModified,
    /// 412: it is not the one that was asked for.
    PreconditionFailed,
    /// 416: it has no such bytes.
    NotSatisfiable,
}

/// Plans the answer about an object of `size` bytes with the entity tag `etag`, quotes included. A range counts for `GET`
/// only; one that is not understood, or several, count as none (RFC 9110 §14.2).
pub fn plan(is_get: bool, conditions: &Conditions<'_>, size: u64, etag: &str) -> Plan {
    if conditions.if_match.is_some_and(|tags| !lists(tags, etag, false)) {
        return Plan::PreconditionFailed;
    }
    if conditions.if_none_match.is_some_and(|tags| lists(tags, etag, true)) {
        return Plan::NotModified;
    }
    // Never a date: none is ever sent.
    let is_same = conditions.if_range.is_none_or(|tag| tag.trim() == etag);
    match conditions.range.filter(|_| is_get && is_same).and_then(Range::parse) {
        None => Plan::Whole,
        Some(range) => range.of(size),
    }
}

/// Whether a list of entity tags has `etag`. Ours hold no comma.
fn lists(tags: &str, etag: &str, weak_too: bool) -> bool {
    tags.split(',').map(str::trim).any(|tag| {
        let tag = if weak_too { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == etag
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// From a byte, through a byte or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (unit, range) = text.trim().split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        match range.trim().split_once('-')? {
            ("", count) => Some(Range::Last(number(count)?)),
            (first, "") => Some(Range::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Range::From(first, Some(last)))
            }
        }
    }

    fn of(self, size: u64) -> Plan {
        match self {
            Range::From(first, _) if first >= size => Plan::NotSatisfiable,
            Range::From(first, last) => {
                let left = size - first;
                let len = last.map_or(left, |last| (last - first).saturating_add(1).min(left));
                Plan::Part { start: first, len }
            }
            Range::Last(0) => Plan::NotSatisfiable,
            Range::Last(_) if size == 0 => Plan::Whole,
            Range::Last(count) => Plan::Part { start: size.saturating_sub(count), len: count.min(size) },
        }
    }
}

/// Digits only; more than fit are as good as the largest number, for no object is that long.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: &str = "\"a\"";

    fn ranged(range: &str, size: u64) -> Plan {
        plan(true, &Conditions { range: Some(range), ..Conditions::default() }, size, TAG)
    }

    proptest! {
        #[test]
        fn a_part_is_exactly_what_was_asked_for(first in 0u64..300, more in 0u64..300, size in 0u64..300) {
            let last = first + more;
            let want: Vec<u64> = (0..size).filter(|at| (first..=last).contains(at)).collect();
            match ranged(&format!("bytes={first}-{last}"), size) {
                Plan::Part { start, len } => prop_assert_eq!((start..start + len).collect::<Vec<_>>(), want),
                other => prop_assert!(want.is_empty() && other == Plan::NotSatisfiable),
            }
        }

        #[test]
        fn the_last_bytes_are_the_last(count in 0u64..300, size in 1u64..300) {
            let whole: Vec<u64> = (0..size).rev().take(usize::try_from(count).unwrap()).collect();
            match ranged(&format!("bytes=-{count}"), size) {
                Plan::Part { start, len } => prop_assert_eq!((start..start + len).rev().collect::<Vec<_>>(), whole),
                other => prop_assert!(count == 0 && other == Plan::NotSatisfiable),
            }
        }

        #[test]
        fn no_header_leads_out_of_the_object(range in "(bytes)?=?[-0-9, ]{0,24}|\\PC{0,20}", size in any::<u64>()) {
            if let Plan::Part { start, len } = ranged(&range, size) {
                prop_assert!(len > 0 && start.checked_add(len).is_some_and(|end| end <= size));
            }
        }
    }

    #[test]
    fn what_is_no_single_range_counts_as_none() {
        for range in ["bytes=5-4", "bytes=0-1,3-4", "bytes=+1-2", "bytes=-", "bytes", "items=0-1", "bytes=a-b", ""] {
            assert_eq!(ranged(range, 10), Plan::Whole, "{range}");
        }
        assert_eq!(ranged("bytes=0-99999999999999999999999", 10), Plan::Part { start: 0, len: 10 });
        assert_eq!(ranged("bytes=99999999999999999999999-", 10), Plan::NotSatisfiable);
        assert_eq!(ranged("bytes=-1", 0), Plan::Whole);
    }

    #[test]
    fn conditions_come_before_ranges() {
        let part = Conditions { range: Some("bytes=1-2"), ..Conditions::default() };
        let of = |conditions: Conditions<'_>| plan(true, &conditions, 10, TAG);
        assert_eq!(of(Conditions { if_range: Some(TAG), ..part }), Plan::Part { start: 1, len: 2 });
        assert_eq!(of(Conditions { if_range: Some("W/\"a\""), ..part }), Plan::Whole);
        assert_eq!(of(Conditions { if_range: Some("Mon, 23 Nov 2026 07:00:00 GMT"), ..part }), Plan::Whole);
        assert_eq!(of(Conditions { if_none_match: Some("\"b\", W/\"a\""), ..part }), Plan::NotModified);
        assert_eq!(of(Conditions { if_match: Some("W/\"a\""), ..part }), Plan::PreconditionFailed);
        assert_eq!(of(Conditions { if_match: Some("*"), ..part }), Plan::Part { start: 1, len: 2 });
        assert_eq!(plan(false, &part, 10, TAG), Plan::Whole);
    }
}
