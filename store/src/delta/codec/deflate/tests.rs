// SPDX-License-Identifier: Apache-2.0 OR MIT
use proptest::prelude::*;

use super::*;

/// Text-like bytes: words of a few, some repeated, some new.
fn words(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    };
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        let word = next() % 700;
        let word_len = word % 9 + 2;
        out.extend((0..word_len).map(|i| u8::try_from((word * 31 + i * 7) % 61 + 60).unwrap()));
        if next() % 50 == 0 {
            out.push(next().to_le_bytes()[0]);
        }
    }
    out.truncate(len);
    out
}

fn whole(data: &[u8], level: u8) -> (Vec<u8>, Vec<BlockStart>) {
    let mut starts = vec![BlockStart { at: 0, bit: 0, before: 2 }];
    let part = Part { data, window: 0, ahead: None, level, before: 2, lead: 0 };
    let stream = deflate(part, |start, _| {
        starts.push(start);
        true
    });
    (stream.unwrap(), starts)
}

fn inflated(stream: &[u8]) -> Vec<u8> {
    miniz_oxide::inflate::decompress_to_vec(stream).unwrap()
}

#[test]
fn streams_are_right_at_every_level_and_for_every_kind_of_block() {
    let noise: Vec<u8> = (0..9000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for data in [Vec::new(), b"a".to_vec(), b"abc".repeat(50), vec![0; 100_000], words(300_000, 7), noise] {
        for level in 4..=9 {
            assert_eq!(inflated(&whole(&data, level).0), data, "level {level}, {} bytes", data.len());
        }
    }
    for level in [0, 3, 10] {
        let part = Part { data: b"x", window: 0, ahead: None, level, before: 2, lead: 0 };
        assert_eq!(deflate(part, |_, _| true), None);
    }
}

/// The part from one block to another, made alone.
fn part<'d>(data: &'d [u8], level: u8, from: BlockStart, to: Option<BlockStart>) -> (Part<'d>, usize) {
    let begin = from.at.saturating_sub(WINDOW_BYTES);
    let end = to.map_or(data.len(), |to| (to.at + AHEAD_BYTES).min(data.len()));
    let lead = u8::try_from(from.bit % 8).unwrap();
    let ahead = to.map(|to| end - to.at);
    let part = Part { data: &data[begin..end], window: from.at - begin, ahead, level, before: from.before, lead };
    (part, usize::try_from(from.bit / 8).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_part_between_blocks_is_made_alone(
        len in 300_000..500_000_usize, seed: u64, level in 4..=9_u8, picks: (u16, u16),
    ) {
        let data = words(len, seed);
        let (stream, starts) = whole(&data, level);
        prop_assert!(starts.len() > 1);
        let from = usize::from(picks.0) % starts.len();
        let to = from + 1 + usize::from(picks.1) % (starts.len() - from);
        let (alone, byte) = part(&data, level, starts[from], starts.get(to).copied());
        let made = deflate(alone, |_, _| true).unwrap();
        let end = starts.get(to).map_or(stream.len(), |to| usize::try_from(to.bit / 8).unwrap());
        let skip = usize::from(alone.lead > 0);
        prop_assert!(made[skip..end - byte] == stream[byte + skip..end]);
        if let Some(end) = alone.ahead.filter(|_| to > from) {
            let short = Part { ahead: Some(end + 1), ..alone };
            prop_assert_eq!(deflate(short, |_, _| true), None, "no block ends there");
        }
    }

    #[test]
    fn whatever_is_asked_for_ends(
        len in 0..3000_usize, seed: u64, level: u8, window: u16, ahead: Option<u16>, before: u16, lead in 0..8_u8,
    ) {
        let data = words(len, seed);
        let (window, ahead) = (usize::from(window), ahead.map(usize::from));
        let _ = deflate(Part { data: &data, window, ahead, level, before: before.into(), lead }, |_, _| true);
    }
}
