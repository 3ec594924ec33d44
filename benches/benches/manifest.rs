// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manifest leaves: what a commit writes and every reader decodes, entry by entry.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_benches::entries;
use evenkeel_store::format::manifest::{ManifestNode, StructureCheck, encode_leaf};

const ENTRIES: usize = 1000;

fn leaf(criterion: &mut Criterion) {
    let entries = entries(ENTRIES);
    let encode = || {
        let mut body = Vec::new();
        entries.iter().for_each(|entry| entry.encode_into(&mut body));
        encode_leaf(ENTRIES, &body)
    };
    let bytes = encode();

    let mut group = criterion.benchmark_group("manifest leaf of 1,000 entries");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |b| b.iter(encode));
    group.bench_function("decode", |b| b.iter(|| ManifestNode::decode(black_box(&bytes)).expect("our own bytes")));
    group.bench_function("check structure", |b| {
        b.iter(|| {
            let mut check = StructureCheck::default();
            entries.iter().try_for_each(|entry| check.push(black_box(entry))).expect("our own order");
        });
    });
    group.finish();
}

criterion_group!(benches, leaf);
criterion_main!(benches);
