// SPDX-License-Identifier: Apache-2.0 OR MIT
use proptest::prelude::*;

use super::*;

/// Bytes that do not compress, the same for a seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// An output made of a base: pieces moved, changed here and there, and new bytes between them.
fn changed(base: &[u8], edits: &[(u16, u16, u8)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (at, len, kind)) in edits.iter().enumerate() {
        let from = usize::from(*at) % base.len().max(1);
        let piece = &base[from..base.len().min(from + usize::from(*len) % 4096)];
        match kind % 3 {
            0 => out.extend_from_slice(piece),
            1 => {
                out.extend(piece.iter().enumerate().map(|(i, b)| if i % 23 == 7 { b.wrapping_add(*kind) } else { *b }))
            }
            _ => out.extend(noise(usize::from(*len) % 300, index as u64)),
        }
    }
    out
}

fn every_encoding(base: &[u8], output: &[u8]) -> Vec<Encoded> {
    let mut all = vec![
        Encoded { encoding: ENCODING_ZSTD, payload: prefix::encode(&[], output, 3).unwrap() },
        encode(base, output, Effort::Fast).unwrap(),
        encode(base, output, Effort::Default).unwrap(),
    ];
    if !base.is_empty() {
        let payload = diff::encode(base, output, Effort::Default).unwrap().unwrap();
        all.push(Encoded { encoding: ENCODING_DIFF, payload });
        all.push(Encoded { encoding: ENCODING_ZSTD_BASE, payload: prefix::encode(base, output, 17).unwrap() });
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_encoded_comes_back(
        base in prop_oneof![
            (0..20_000_usize, any::<u64>()).prop_map(|(len, seed)| noise(len, seed)),
            (0..3000_usize, 0..2_u8).prop_map(|(len, byte)| vec![byte; len]),
            proptest::collection::vec(0..3_u8, 0..600),
        ],
        edits in proptest::collection::vec(any::<(u16, u16, u8)>(), 1..12),
    ) {
        let output = changed(&base, &edits);
        for encoded in every_encoding(&base, &output) {
            let decoded = decode(encoded.encoding, &base, &encoded.payload, output.len()).unwrap();
            prop_assert!(decoded == output, "encoding {}", encoded.encoding);
            prop_assert!(decode(encoded.encoding, &base, &encoded.payload, output.len() + 1).is_err());
        }
    }

    #[test]
    fn hostile_payloads_are_refused_or_decode_but_never_panic(
        edits in proptest::collection::vec(any::<(u16, u16, u8)>(), 1..8),
        flips in proptest::collection::vec(any::<(u32, u8)>(), 1..4),
        cut in any::<u32>(),
        junk in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let base = noise(5000, 9);
        let output = changed(&base, &edits);
        for encoded in every_encoding(&base, &output) {
            let mut bad = encoded.payload.clone();
            for (at, byte) in &flips {
                let at = *at as usize % bad.len();
                bad[at] ^= byte;
            }
            let damaged = decode(encoded.encoding, &base, &bad, output.len());
            prop_assert!(damaged.is_err() || damaged.unwrap().len() == output.len());
            let short = &encoded.payload[..cut as usize % encoded.payload.len()];
            prop_assert!(decode(encoded.encoding, &base, short, output.len()).is_err());
            let _ = decode(encoded.encoding, &base[..100], &encoded.payload, output.len());
        }
        for encoding in 0..=4 {
            let _ = decode(encoding, &base, &junk, output.len());
        }
    }
}

#[test]
fn a_program_whose_addresses_moved_is_encoded_as_differences() {
    let mut base = b"\x7fELF".to_vec();
    base.extend(noise(200_000, 5));
    let moved = |(i, b): (usize, &u8)| if i % 11 == 10 { b.wrapping_add(3) } else { *b };
    let output: Vec<u8> = base.iter().enumerate().map(moved).collect();
    let encoded = encode(&base, &output, Effort::Default).unwrap();
    assert_eq!(encoded.encoding, ENCODING_DIFF);
    assert!(encoded.payload.len() < 3000, "{} bytes", encoded.payload.len());
    let fast = encode(&base, &output, Effort::Fast).unwrap();
    assert!(encoded.payload.len() * 20 < fast.payload.len(), "{} bytes", fast.payload.len());
    assert_eq!(decode(ENCODING_DIFF, &base, &encoded.payload, output.len()).unwrap(), output);
}

#[test]
fn long_runs_take_no_time() {
    let base = vec![0; 3 << 20];
    let mut output = vec![0; 4 << 20];
    output.iter_mut().step_by(999).for_each(|byte| *byte = 1);
    let payload = diff::encode(&base, &output, Effort::Default).unwrap().unwrap();
    assert!(payload.len() < 60_000, "{} bytes", payload.len());
    assert_eq!(decode(ENCODING_DIFF, &base, &payload, output.len()).unwrap(), output);
}

#[test]
fn the_layout_is_the_specifications() {
    let diff = |control: &[u8], differences: &[u8], extra: &[u8]| {
        let (mut payload, mut streams) = (Vec::new(), Vec::new());
        for plain in [control, differences, extra] {
            let stored = if plain.is_empty() { Vec::new() } else { prefix::encode_alone(plain, 3, 23).unwrap() };
            payload.extend([u8::try_from(plain.len()).unwrap(), u8::try_from(stored.len()).unwrap()]);
            streams.extend(stored);
        }
        payload.extend(streams);
        payload
    };
    let base = b"0123456789";
    // Two steps: from place 2 three bytes and one more, then back by four to place 1, two bytes.
    let control = [2, 4, 7, 3, 2, 1, 0];
    let made = decode(ENCODING_DIFF, base, &diff(&control, &[0, 1, 0, 0, 0], b"x"), 6);
    assert_eq!(made.unwrap(), b"244x12");
    for (what, payload) in [
        ("before the base", diff(&[2, 4, 11, 3, 2, 1, 0], &[0; 5], b"x")),
        ("behind the base", diff(&[2, 4, 10, 3, 2, 1, 0], &[0; 5], b"x")),
        ("a difference too few", diff(&[2, 4, 7, 3, 1, 1, 0], &[0; 5], b"x")),
        ("a difference too many", diff(&[2, 4, 7, 3, 3, 1, 0], &[0; 5], b"x")),
        ("no steps", diff(&[0], &[0; 5], b"x")),
        ("a number too many", diff(&[2, 4, 7, 3, 2, 1, 0, 0], &[0; 5], b"x")),
        ("no control", diff(&[], &[0; 5], b"x")),
        ("trailing", [diff(&control, &[0; 5], b"x"), vec![0]].concat()),
    ] {
        assert!(decode(ENCODING_DIFF, base, &payload, 6).is_err(), "{what}");
    }
    let unknown = decode(77, base, b"", 1).unwrap_err();
    assert!(unknown.is_unsupported());
}

/// A deflated file out of another that holds nearly the same: payload, base, output.
fn deflated(held: &[u8], changed: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let stream = |data: &[u8]| {
        let part = deflate::Part { data, window: 0, ahead: None, level: 9, before: 2, lead: 0 };
        deflate::deflate(part, |_, _| true).unwrap()
    };
    let (base, output) = (stream(held), [&b"head"[..], &stream(changed)].concat());
    let whole = again::Again {
        level: 9,
        lead: 0,
        window: 0,
        len: changed.len(),
        ahead: None,
        before: 2,
        skip: 0,
        take: output.len() - 4,
    };
    let recipe = again::Recipe {
        inflate: vec![again::Inflate { start: 0, stored_len: base.len(), plain_len: held.len() }],
        pieces: vec![again::Piece::Copy(4), again::Piece::Deflate(whole)],
    };
    let plain = [b"head", changed].concat();
    (again::encode(&recipe, &base, &plain, Effort::Fast).unwrap(), base, output)
}

#[test]
fn what_was_deflated_is_made_again() {
    let held: Vec<u8> =
        (0..9000_u32).flat_map(|i| format!("{} ", i.wrapping_mul(77_777) % 4001).into_bytes()).collect();
    let mut changed = held.clone();
    changed.splice(700..710, *b"what is new");
    let (payload, base, output) = deflated(&held, &changed);
    assert!(payload.len() < output.len() / 50, "{} of {} bytes", payload.len(), output.len());
    assert!(decode(ENCODING_DEFLATE, &base, &payload, output.len()).unwrap() == output);
    assert!(decode(ENCODING_DEFLATE, &base, &payload, output.len() - 1).is_err());
    assert!(decode(ENCODING_DEFLATE, &base[..base.len() - 1], &payload, output.len()).is_err());
    for cut in (0..payload.len()).step_by(3) {
        assert!(decode(ENCODING_DEFLATE, &base, &payload[..cut], output.len()).is_err(), "{cut}");
    }
    for at in 0..40.min(payload.len()) {
        for bit in [1, 64, 128] {
            let mut bad = payload.clone();
            bad[at] ^= bit;
            let made = decode(ENCODING_DEFLATE, &base, &bad, output.len());
            assert!(made.is_err() || made.unwrap().len() == output.len(), "{at} {bit}");
        }
    }
}

#[test]
fn a_payload_that_would_deflate_is_bounded_before_it_is_decoded() {
    let numbers = |numbers: &[u32]| {
        let mut payload = Vec::new();
        numbers.iter().for_each(|number| varint::push(&mut payload, *number));
        payload
    };
    let plain_max = u32::try_from(limits::DELTA_PLAIN_BYTES_MAX).unwrap();
    for (what, payload) in [
        ("many ranges", numbers(&[u32::MAX])),
        ("many pieces", numbers(&[0, u32::MAX])),
        ("a kind", numbers(&[0, 1, 3, 8, 0, 1, 2, 0, 1, 1, 0])),
        ("flags", numbers(&[0, 1, 6, 16, 0, 1, 2, 0, 1, 1, 0])),
        ("plain bytes", numbers(&[0, 1, 0, plain_max + 1, plain_max + 1, 0])),
        ("a stream beyond the bases", numbers(&[1, 0, 99, 5, 1, 0, 1, 1, 0])),
        ("a stream that holds more than fits", numbers(&[1, 0, 4, u32::MAX, 1, 0, 1, 1, 0])),
        ("sums", numbers(&[0, 2, 0, u32::MAX, 0, u32::MAX, 5, 0])),
    ] {
        assert!(decode(ENCODING_DEFLATE, b"base", &payload, 1).is_err(), "{what}");
    }
    let unknown = decode(ENCODING_DEFLATE, b"", &numbers(&[0, 1, 0, 1, 1, 9]), 1).unwrap_err();
    assert!(unknown.is_unsupported());
}
