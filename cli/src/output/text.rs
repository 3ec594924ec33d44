// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers, times, modes and names as people read them. Pure functions.

use std::fmt::Display;
use std::path::Path;

use clap::builder::styling::{AnsiColor, Style};
use evenkeel_store::format::manifest::{InodeKind, Timestamp};
use evenkeel_store::path::escape;

/// Puts colour around text, or does not.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

macro_rules! styles {
    ($($(#[$doc:meta])* $name:ident = $style:expr;)*) => {
        impl Paint {
            $($(#[$doc])* pub fn $name(self, text: impl Display) -> String {
                self.style($style, text)
            })*
        }
    };
}

styles! {
    /// An object's id.
    id = AnsiColor::Yellow.on_default();
    /// A heading.
    bold = Style::new().bold();
    /// A chapter's heading.
    heading = AnsiColor::Cyan.on_default().bold();
    /// Less important text.
    dim = Style::new().dimmed();
    /// Something that came or is right.
    good = AnsiColor::Green.on_default();
    /// Something that changed.
    changed = AnsiColor::Yellow.on_default();
    /// Something that went or is wrong.
    bad = AnsiColor::Red.on_default();
    /// A directory's name.
    directory = AnsiColor::Blue.on_default().bold();
    /// A symbolic link's name.
    symlink = AnsiColor::Cyan.on_default();
    /// The label of an error.
    error = AnsiColor::Red.on_default().bold();
    /// The label of a cause.
    cause = Style::new().bold();
    /// The label of a warning.
    warning = AnsiColor::Yellow.on_default().bold();
    /// The label of a hint.
    hint = AnsiColor::Cyan.on_default().bold();
    /// The label of a note.
    note = AnsiColor::Green.on_default().bold();
}

impl Paint {
    /// Colours when `on`.
    pub fn new(on: bool) -> Self {
        Paint { on }
    }

    fn style(self, style: Style, text: impl Display) -> String {
        if self.on { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// Bytes in binary units with three significant digits: `999 B`, `1.46 MiB`, `2.30 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A number with thousands separated: `52,318`.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 file`, `52,318 files`, `2 entries`.
pub fn counted(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']))) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{} {stem}ies", number(count)),
        (_, None) if noun.ends_with('s') => format!("{} {noun}es", number(count)),
        (_, None) => format!("{} {noun}s", number(count)),
    }
}

/// A duration: `0.04 s`, `12.3 s`, `3 min 05 s`, `2 h 10 min`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 9.995 {
        return format!("{seconds:.2} s");
    }
    if seconds < 99.95 {
        return format!("{seconds:.1} s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is shown only")]
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    }
}

/// A point in local time to the second: `2026-11-22 16:00:48`.
pub fn time(time: Timestamp) -> String {
    zoned(time).map_or_else(|| format!("@{}", time.secs), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A point in local time to the minute, as `ls -l` with `--time-style=long-iso` shows it.
pub fn minute(time: Timestamp) -> String {
    zoned(time).map_or_else(|| format!("@{}", time.secs), |t| t.strftime("%Y-%m-%d %H:%M").to_string())
}

fn zoned(time: Timestamp) -> Option<jiff::Zoned> {
    let time = jiff::Timestamp::new(time.secs, i32::try_from(time.nanos).ok()?).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::system()))
}

/// A path of this machine, escaped for a terminal.
pub fn path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    escape(path.as_os_str().as_bytes())
}

/// Kind and permission bits as `ls -l` shows them: `drwxr-xr-x`.
pub fn mode(kind: &InodeKind, bits: u16) -> String {
    let mut text = String::with_capacity(10);
    text.push(kind_letter(kind));
    for (shift, special, on, off) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let set = bits >> shift;
        text.push(if set & 4 != 0 { 'r' } else { '-' });
        text.push(if set & 2 != 0 { 'w' } else { '-' });
        text.push(match (set & 1 != 0, bits & special != 0) {
            (true, true) => on,
            (false, true) => off,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn kind_letter(kind: &InodeKind) -> char {
    match kind {
        InodeKind::Directory => 'd',
        InodeKind::File(_) => '-',
        InodeKind::Symlink(_) => 'l',
        InodeKind::Fifo => 'p',
        InodeKind::CharDevice { .. } => 'c',
        InodeKind::BlockDevice { .. } => 'b',
        InodeKind::Socket => 's',
    }
}

/// Word for a kind of inode.
pub fn kind_name(kind: &InodeKind) -> &'static str {
    match kind {
        InodeKind::Directory => "directory",
        InodeKind::File(_) => "file",
        InodeKind::Symlink(_) => "symlink",
        InodeKind::Fifo => "fifo",
        InodeKind::CharDevice { .. } => "char-device",
        InodeKind::BlockDevice { .. } => "block-device",
        InodeKind::Socket => "socket",
    }
}

/// Rows of cells as aligned columns with `gap` between them; `right` says which columns align right. Cells must be plain
/// text.
pub fn columns(rows: &[Vec<String>], right: &[bool], gap: &str) -> Vec<String> {
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..right.len()).map(|at| width(at).unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(at, cell)| {
                    let width = widths.get(at).copied().unwrap_or(0);
                    if right.get(at) == Some(&true) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                })
                .collect();
            cells.join(gap).trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_536, "1.50 KiB"),
            (10_235, "10.0 KiB"),
            (1_023_487, "999 KiB"),
            (1_023_488, "0.98 MiB"),
            (2_469_606_195, "2.30 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected, "{count}");
        }
    }

    #[test]
    fn numbers_and_nouns() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_000), "1,000");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(counted(1, "entry"), "1 entry");
        assert_eq!(counted(0, "entry"), "0 entries");
        assert_eq!(counted(2, "file"), "2 files");
        assert_eq!(counted(2, "stray"), "2 strays");
    }

    #[test]
    fn durations() {
        for (value, expected) in
            [(0.0, "0.00 s"), (9.999, "10.0 s"), (99.96, "1 min 40 s"), (185.2, "3 min 05 s"), (7_800.0, "2 h 10 min")]
        {
            assert_eq!(seconds(value), expected);
        }
    }

    #[test]
    fn modes_look_like_ls() {
        for (bits, expected) in
            [(0o755, "drwxr-xr-x"), (0o1777, "drwxrwxrwt"), (0o2750, "drwxr-s---"), (0o7000, "d--S--S--T")]
        {
            assert_eq!(mode(&InodeKind::Directory, bits), expected);
        }
    }

    #[test]
    fn columns_align() {
        let rows = vec![vec!["a".into(), "10".into()], vec!["bcd".into(), "9".into()]];
        assert_eq!(columns(&rows, &[false, true], "  "), ["a    10", "bcd   9"]);
    }
}
