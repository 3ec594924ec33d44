// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The index: making a segment, opening it, and finding chunks in it.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_benches::{Random, records};
use evenkeel_store::format::table::{Table, TableKind, encode};
use evenkeel_store::id::ChunkId;

const RECORDS: u32 = 1_000_000;

fn segment(criterion: &mut Criterion) {
    let (packs, records) = records(RECORDS);
    let bytes = encode(TableKind::Segment, &packs, records.clone()).expect("within every limit");

    let mut group = criterion.benchmark_group("segment");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |b| {
        let encode = |records| encode(TableKind::Segment, &packs, records).expect("within every limit");
        b.iter_batched(|| records.clone(), encode, BatchSize::LargeInput);
    });
    group.bench_function("open and check", |b| {
        b.iter(|| Table::decode(black_box(bytes.as_slice())).expect("our own bytes"))
    });
    group.finish();

    let table = Table::decode(bytes.as_slice()).expect("our own bytes");
    let mut random = Random::new(7);
    let mut pick = || records[usize::try_from(random.next_u64() % u64::from(RECORDS)).expect("small")].0;
    let present: Vec<ChunkId> = std::iter::repeat_with(&mut pick).take(10_000).collect();
    let absent: Vec<ChunkId> = present.iter().map(|id| ChunkId::of(id.as_bytes())).collect();
    let mut group = criterion.benchmark_group("segment look-up, 1 M records");
    group.throughput(Throughput::Elements(present.len() as u64));
    for (name, ids) in [("present", &present), ("absent", &absent)] {
        group.bench_function(name, |b| b.iter(|| ids.iter().filter(|id| table.get(black_box(id)).is_some()).count()));
    }
    group.finish();
}

criterion_group!(benches, segment);
criterion_main!(benches);
