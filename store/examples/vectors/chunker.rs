// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chunker vectors: for seeded input its hash, then where it is cut (format-spec §60).

use evenkeel_store::chunk::Chunker;
use evenkeel_store::format::store::ChunkerParams;

use super::describe::Doc;
use super::valid::xof;

const KIB: u32 = 1 << 10;
/// Names the bytes of all inputs (format-spec §60.5).
const SEED: &str = "evenkeel";

/// Name and TOML of each parameter set.
pub fn vectors() -> Vec<(String, String)> {
    let sets = [
        ("chunker-8k", ChunkerParams::around(8 * KIB)),
        ("chunker-64k", ChunkerParams::around(64 * KIB)),
        ("chunker-128k", ChunkerParams::around(128 * KIB)),
        ("chunker-8k-level-0", ChunkerParams { normalization: 0, ..ChunkerParams::around(8 * KIB) }),
        ("chunker-8k-level-3", ChunkerParams { normalization: 3, ..ChunkerParams::around(8 * KIB) }),
        ("chunker-narrow", ChunkerParams { min: 16 * KIB, avg: 32 * KIB, max: 64 * KIB, normalization: 2 }),
    ];
    sets.into_iter().map(|(name, params)| (name.to_owned(), vector(params))).collect()
}

fn vector(params: ChunkerParams) -> String {
    let mut doc = Doc::default();
    doc.text("object", "chunker").int("min", params.min).int("avg", params.avg).int("max", params.max);
    doc.int("normalization", params.normalization);
    let mib = 1 << 20;
    let [min, avg, max] = [params.min, params.avg, params.max].map(|size| usize::try_from(size).expect("32 bits fit"));
    for len in [0, 1, min - 1, min, min + 1, avg, max, max + 1, 300_000, 300_001, mib, mib + 3] {
        case(&mut doc, params, Some(SEED), xof(SEED, len));
    }
    case(&mut doc, params, None, vec![0; mib]);
    doc.0
}

/// One input: the seed text of its bytes, or none for zeros.
fn case(doc: &mut Doc, params: ChunkerParams, seed: Option<&str>, input: Vec<u8>) {
    doc.section("inputs");
    match seed {
        Some(seed) => doc.text("seed", seed),
        None => doc.bool("zeros", true),
    };
    doc.int("len", input.len()).text("blake3", &blake3::hash(&input).to_hex());
    let chunker = Chunker::new(params);
    doc.list("lengths", chunker.chunks(&input).map(<[u8]>::len));
}
