// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What every byte of a commit or checkout passes: boundaries, hash, compression and back.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_benches::{random_bytes, text_bytes};
use evenkeel_store::chunk::Chunker;
use evenkeel_store::compress::{Compressor, Decompressor};
use evenkeel_store::format::store::ChunkerParams;
use evenkeel_store::id::ChunkId;

const RUN_BYTES: usize = 16 << 20;
const AVERAGE: u32 = 64 << 10;

fn chunk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(RUN_BYTES as u64));
    let bytes = random_bytes(RUN_BYTES);
    for average in [16 << 10, AVERAGE, 128 << 10] {
        let chunker = Chunker::new(ChunkerParams::around(average));
        group.bench_function(format!("average {} KiB", average >> 10), |b| {
            b.iter(|| chunker.chunks(black_box(&bytes)).count())
        });
    }
    group.finish();
}

fn hash(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    let bytes = random_bytes(RUN_BYTES);
    for len in [4 << 10, 64 << 10, RUN_BYTES] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{} KiB", len >> 10), |b| b.iter(|| ChunkId::of(black_box(&bytes[..len]))));
    }
    group.finish();
}

fn compress(criterion: &mut Criterion) {
    let bytes = text_bytes(RUN_BYTES);
    let chunker = Chunker::new(ChunkerParams::around(AVERAGE));
    let chunks: Vec<&[u8]> = chunker.chunks(&bytes).collect();

    let mut group = criterion.benchmark_group("compress");
    group.throughput(Throughput::Bytes(RUN_BYTES as u64));
    group.sample_size(20);
    for level in [1, 3, 9] {
        let mut compressor = Compressor::new(level).expect("a level that zstd has");
        group.bench_function(format!("zstd {level}, by chunk"), |b| {
            b.iter(|| chunks.iter().map(|plain| compressor.compress(black_box(plain)).1.len()).sum::<usize>());
        });
    }
    group.finish();

    let mut compressor = Compressor::new(3).expect("a level that zstd has");
    let records: Vec<_> = chunks
        .iter()
        .map(|plain| {
            let (encoding, stored) = compressor.compress(plain);
            (encoding, stored.to_vec(), u32::try_from(plain.len()).expect("bounded by the chunker"))
        })
        .collect();
    let mut decompressor = Decompressor::new().expect("memory for a decompressor");
    let mut group = criterion.benchmark_group("decompress");
    group.throughput(Throughput::Bytes(RUN_BYTES as u64));
    let mut plain = Vec::new();
    group.bench_function("zstd 3, by chunk", |b| {
        b.iter(|| {
            for (encoding, stored, len) in &records {
                decompressor.decompress(*encoding, black_box(stored), *len, None, &mut plain).expect("our own record");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, chunk, hash, compress);
criterion_main!(benches);
