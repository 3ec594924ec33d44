// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Readers of option values that several commands take.

use evenkeel_store::checkout::Ceiling;

/// A number of bytes: digits, then nothing or one of B, KiB, MiB, GiB (K, M and G for short).
///
/// # Errors
/// A text for clap.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match &text[digits..] {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return Err("write it as 65536, 64KiB or 32MiB".into()),
    };
    let count: u64 = text[..digits].parse().map_err(|_| "write it as 65536, 64KiB or 32MiB")?;
    count.checked_mul(unit).ok_or_else(|| "it is too large".into())
}

/// Bytes a second: digits, then nothing or one of k, M, G (or K, KiB, MiB, GiB); no less than 1k.
///
/// # Errors
/// A text for clap.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 10;
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &text[..text.len() - unit.len()];
    let unit = match unit {
        "k" => "K",
        "m" => "M",
        "g" => "G",
        unit => unit,
    };
    match parse_bytes(&format!("{number}{unit}")) {
        Ok(rate) if rate >= LEAST => Ok(rate),
        Ok(_) => Err("less than 1k a second is no use".into()),
        Err(_) => Err("write it as 500k or 2M, in bytes a second".into()),
    }
}

/// A percentage from 1 to 100; the sign may be left out.
///
/// # Errors
/// A text for clap.
pub fn parse_percent(text: &str) -> Result<u8, String> {
    match text.strip_suffix('%').unwrap_or(text).parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err("it must be a whole number from 1% to 100%".into()),
    }
}

/// A ceiling: `50` paths, or `5%` of an area's entries.
///
/// # Errors
/// A text for clap.
pub fn parse_ceiling(text: &str) -> Result<Ceiling, String> {
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent @ 0..=100) => Ok(Ceiling::Percent(percent)),
            _ => Err("a percentage is a whole number from 0% to 100%".into()),
        },
        None => text.parse().map(Ceiling::Count).map_err(|_| "write it as 50 or 5%".into()),
    }
}

/// `KEY=VALUE` of a label.
///
/// # Errors
/// A text for clap.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("1G", Some(1 << 30)),
            ("", None),
            ("1kb", None),
        ] {
            assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        }
        assert!(parse_bytes("99999999999G").is_err());
    }

    #[test]
    fn rates() {
        for (text, expected) in [
            ("500k", Some(500 << 10)),
            ("2M", Some(2 << 20)),
            ("2048", Some(2048)),
            ("1", None),
            ("0", None),
            ("k", None),
        ] {
            assert_eq!(parse_rate(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn percentages_and_labels() {
        assert_eq!(parse_percent("10%"), Ok(10));
        assert_eq!(parse_percent("1"), Ok(1));
        for bad in ["0", "101%", "x", "0.5"] {
            parse_percent(bad).unwrap_err();
        }
        assert_eq!(parse_ceiling("0"), Ok(Ceiling::Count(0)));
        assert_eq!(parse_ceiling("100%"), Ok(Ceiling::Percent(100)));
        for bad in ["", "-1", "101%", "5 %"] {
            parse_ceiling(bad).unwrap_err();
        }
        assert_eq!(parse_label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_label("=b").is_err() && parse_label("a").is_err());
    }
}
