// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Readers of option values that several commands take.

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

/// A percentage: `10%` or `0.5%`; the sign may be left out.
///
/// # Errors
/// A text for clap.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("it must be more than 0 and at most 100, such as 10%".into()),
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
    fn percentages_and_labels() {
        assert_eq!(parse_percent("10%"), Ok(10.0));
        assert_eq!(parse_percent("0.5"), Ok(0.5));
        for bad in ["0", "101%", "x", "NaN"] {
            parse_percent(bad).unwrap_err();
        }
        assert_eq!(parse_label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_label("=b").is_err() && parse_label("a").is_err());
    }
}
