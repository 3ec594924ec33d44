// SPDX-License-Identifier: Apache-2.0 OR MIT
//! gzip files that can be made again: what they hold, where their blocks begin, and which pieces give a range of them.
//! Pure.

use std::ops::Range;

use super::codec::again::{Again, Piece, inflate};
use super::codec::deflate::{AHEAD_BYTES, BlockStart, Part, WINDOW_BYTES, deflate};

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Header without the parts that flags announce.
const HEADER_LEN: usize = 10;
/// Checksum and length behind the stream.
const TRAILER_LEN: usize = 8;
const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
/// Levels, the most likely first: what the program does when it is told nothing, and what packages are made with.
const LEVELS: [u8; 6] = [6, 9, 5, 7, 8, 4];
/// The header says that it is the highest level.
const XFL_BEST: u8 = 2;

/// Whether a file may be one, by its first bytes.
pub fn is_gzip(first: &[u8]) -> bool {
    first.starts_with(&MAGIC)
}

/// How a gzip file was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gzip {
    /// Where its stream is.
    pub stream: Range<usize>,
    /// Bytes that the stream holds.
    pub plain_len: usize,
    /// As gzip has it.
    pub level: u8,
    /// Where blocks begin, by place in the plain bytes and bit of the stream; the first at 0.
    starts: Vec<BlockStart>,
}

/// Where a file's stream is, and how many bytes it holds: one member, and nothing behind it.
pub fn layout(file: &[u8]) -> Option<(Range<usize>, usize)> {
    let flags = *file.get(3).filter(|_| is_gzip(file))?;
    let mut at = HEADER_LEN;
    if flags & FLAG_EXTRA != 0 {
        let len = file.get(at..at + 2)?;
        at += 2 + usize::from(u16::from_le_bytes([len[0], len[1]]));
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            at += file.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        at += 2;
    }
    let end = file.len().checked_sub(TRAILER_LEN).filter(|end| *end > at)?;
    let len = file[end + 4..].first_chunk()?;
    Some((at..end, usize::try_from(u32::from_le_bytes(*len)).ok()?))
}

/// What a file holds, if that are at most `plain_max` bytes.
pub fn plain(file: &[u8], plain_max: usize) -> Option<Vec<u8>> {
    let (stream, len) = layout(file).filter(|(_, len)| *len <= plain_max)?;
    let mut plain = vec![0; len];
    (inflate(&file[stream.clone()], &mut plain)? == stream.len()).then_some(plain)
}

/// How a file that holds `plain` is made again; `None` where gzip would make another one.
pub fn analyse(file: &[u8], plain: &[u8]) -> Option<Gzip> {
    let (stream, plain_len) = layout(file)?;
    let bytes = &file[stream.clone()];
    let is_best = file.get(8) == Some(&XFL_BEST);
    let levels = LEVELS.into_iter().filter(|level| !is_best || *level == 9);
    levels.into_iter().find_map(|level| {
        let mut starts = vec![BlockStart { at: 0, bit: 0, before: 2 }];
        let mut seen = 0;
        let part = Part { data: plain, window: 0, ahead: None, level, before: 2, lead: 0 };
        let made = deflate(part, |start, made| {
            let from = std::mem::replace(&mut seen, made.len());
            starts.push(start);
            bytes.get(from..seen) == made.get(from..)
        });
        (made? == bytes).then(|| Gzip { stream: stream.clone(), plain_len, level, starts })
    })
}

/// What a range of a file needs: plain bytes by range, or bytes of the file itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(Range<usize>),
    Plain(Range<usize>),
}

impl Gzip {
    /// The plain bytes of the blocks that `range` of the file, of `file_len` bytes, touches.
    pub fn plain_range(&self, range: &Range<usize>) -> Range<usize> {
        let (from, to) = self.blocks(range);
        from.at..to.map_or(self.plain_len, |to| to.at)
    }

    /// The pieces that are `range` of the file, and what they are made of.
    pub fn pieces(&self, range: Range<usize>) -> (Vec<Piece>, Vec<Source>) {
        let (mut pieces, mut sources) = (Vec::new(), Vec::new());
        let copy = |pieces: &mut Vec<Piece>, sources: &mut Vec<Source>, range: Range<usize>| {
            if !range.is_empty() {
                pieces.push(Piece::Copy(range.len()));
                sources.push(Source::File(range));
            }
        };
        copy(&mut pieces, &mut sources, range.start..range.end.min(self.stream.start));
        let wanted = range.start.max(self.stream.start)..range.end.min(self.stream.end);
        if !wanted.is_empty() {
            let (from, to) = self.blocks(&wanted);
            let end = to.map_or(self.plain_len, |to| to.at);
            let begin = from.at.saturating_sub(WINDOW_BYTES);
            let behind = to.map(|_| (end + AHEAD_BYTES).min(self.plain_len));
            let first_byte = self.stream.start + usize::try_from(from.bit / 8).expect("a place in a file in memory");
            pieces.push(Piece::Deflate(Again {
                level: self.level,
                lead: u8::try_from(from.bit % 8).expect("below 8"),
                window: from.at - begin,
                len: end - from.at,
                ahead: behind.map(|behind| behind - end),
                before: from.before,
                skip: wanted.start - first_byte,
                take: wanted.len(),
            }));
            sources.push(Source::Plain(begin..behind.unwrap_or(end)));
        }
        copy(&mut pieces, &mut sources, range.start.max(self.stream.end)..range.end);
        (pieces, sources)
    }

    /// The first block that a range of the file needs, and the one behind its last; `None` when that is the last of all.
    fn blocks(&self, range: &Range<usize>) -> (BlockStart, Option<BlockStart>) {
        let bit = |at: usize| 8 * (at.clamp(self.stream.start, self.stream.end) - self.stream.start) as u64;
        let first = self.starts.partition_point(|start| start.bit <= bit(range.start)).saturating_sub(1);
        let next = self.starts.partition_point(|start| start.bit < bit(range.end)).max(first + 1);
        (self.starts[first], self.starts.get(next).copied())
    }
}

/// A file in a cpio archive: its name and where its content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: Vec<u8>,
    pub content: Range<usize>,
}

/// The files of a cpio archive as initramfs has them ("newc"); none where `plain` is something else.
pub fn members(plain: &[u8]) -> Vec<Member> {
    const HEADER: usize = 110;
    const NEWC: &[u8] = b"07070";
    let hex = |at: usize| {
        let digits = plain.get(at..at + 8).and_then(|digits| std::str::from_utf8(digits).ok())?;
        usize::try_from(u32::from_str_radix(digits, 16).ok()?).ok()
    };
    let mut members = Vec::new();
    let mut at = 0;
    while plain.get(at..at + NEWC.len()) == Some(NEWC) {
        let (Some(size), Some(name_len)) = (hex(at + 54), hex(at + 94)) else { break };
        let name_end = at + HEADER + name_len;
        let begin = name_end.next_multiple_of(4);
        let (Some(name), Some(_)) = (plain.get(at + HEADER..name_end), plain.get(begin..begin + size)) else { break };
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let name = name.strip_prefix(b"./").unwrap_or(name);
        if size > 0 {
            members.push(Member { name: name.to_vec(), content: begin..begin + size });
        }
        at = (begin + size).next_multiple_of(4);
        // Archives may follow each other, filled with zeros.
        while plain.get(at..at + 4) == Some(&[0; 4]) {
            at += 4;
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::codec::Effort;
    use crate::delta::codec::again::{Recipe, decode, encode};

    /// A gzip file as the program makes it, but for its checksum, which nobody here looks at.
    fn file(plain: &[u8], level: u8, name: &str) -> Vec<u8> {
        let part = Part { data: plain, window: 0, ahead: None, level, before: 2, lead: 0 };
        let stream = deflate(part, |_, _| true).unwrap();
        let mut file = [&MAGIC[..], &[if name.is_empty() { 0 } else { FLAG_NAME }, 1, 2, 3, 4]].concat();
        file.extend([if level == 9 { XFL_BEST } else { 0 }, 3]);
        if !name.is_empty() {
            file.extend(name.bytes().chain([0]));
        }
        file.extend(stream);
        file.extend([9; 4]);
        file.extend(u32::try_from(plain.len()).unwrap().to_le_bytes());
        file
    }

    fn text(len: u32) -> Vec<u8> {
        (0..len).flat_map(|i| format!("{} and {}, ", i.wrapping_mul(2_654_435_761) % 977, i / 3).into_bytes()).collect()
    }

    #[test]
    fn any_range_of_a_file_is_made_again() {
        for (level, name) in [(6, "initrd"), (9, ""), (4, "x")] {
            let held = text(40_000);
            let file = file(&held, level, name);
            assert_eq!(plain(&file, held.len()).unwrap(), held);
            assert_eq!(plain(&file, held.len() - 1), None);
            let gzip = analyse(&file, &held).unwrap();
            assert_eq!(gzip.level, level);
            assert!(gzip.starts.len() > 2);
            let len = file.len();
            for range in [0..len, 0..5, 7..len / 3, len / 3..len / 2, len / 2..len, len - 20..len, len - 3..len] {
                let (pieces, sources) = gzip.pieces(range.clone());
                let bytes = |source: &Source| match source {
                    Source::File(range) => file[range.clone()].to_vec(),
                    Source::Plain(range) => held[range.clone()].to_vec(),
                };
                let plain: Vec<u8> = sources.iter().flat_map(bytes).collect();
                let recipe = Recipe { inflate: Vec::new(), pieces };
                let payload = encode(&recipe, &held[100..], &plain, Effort::Fast).unwrap();
                assert!(decode(&held[100..], &payload, range.len()).unwrap() == file[range.clone()], "{range:?}");
            }
        }
    }

    #[test]
    fn what_gzip_would_make_otherwise_is_none() {
        let held = text(9000);
        let mut other = file(&held, 6, "");
        let at = other.len() / 2;
        other[at] ^= 1;
        assert!(plain(&other, 1 << 20).is_none_or(|plain| analyse(&other, &plain).is_none()));
        for bad in [&b""[..], &MAGIC, &[0x1f, 0x8b, 8, 31], &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 255, 255]] {
            assert_eq!(layout(bad), None);
        }
    }

    #[test]
    fn files_of_an_archive_are_found() {
        let mut archive = Vec::new();
        let mut add = |name: &str, content: &str| {
            let fields = [0, 0, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
            archive.extend(b"070701");
            fields.iter().for_each(|field| archive.extend(format!("{field:08X}").bytes()));
            for part in [format!("{name}\0"), content.to_owned()] {
                archive.extend(part.bytes());
                while !archive.len().is_multiple_of(4) {
                    archive.push(0);
                }
            }
        };
        add(".", "");
        add("./etc/fstab", "none");
        add("TRAILER!!!", "");
        add("usr/lib/x.ko", "module");
        let found = members(&archive);
        let names: Vec<_> = found.iter().map(|member| String::from_utf8(member.name.clone()).unwrap()).collect();
        assert_eq!(names, ["etc/fstab", "usr/lib/x.ko"]);
        assert_eq!(&archive[found[1].content.clone()], b"module");
        assert_eq!(members(&archive[..archive.len() - 9]).len(), 1);
        assert_eq!(members(b"07070"), []);
    }
}
