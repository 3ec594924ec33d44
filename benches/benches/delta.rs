// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frames of a delta: made at each effort, and decoded. The input is a program of which addresses moved.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_benches::{random_bytes, text_bytes};
use evenkeel_store::delta::Effort;
use evenkeel_store::delta::codec::{decode, encode};

const RUN_BYTES: usize = 4 << 20;

/// A base, and what became of it: one byte in 40 is another, and a part is new.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let base: Vec<u8> = text_bytes(RUN_BYTES / 2).into_iter().chain(random_bytes(RUN_BYTES / 2)).collect();
    let moved = base.iter().enumerate().map(|(at, byte)| if at % 40 == 7 { byte.wrapping_add(3) } else { *byte });
    let mut output: Vec<u8> = moved.collect();
    output.splice(1 << 20..1 << 20, text_bytes(64 << 10).into_iter().rev());
    (base, output)
}

fn frames(criterion: &mut Criterion) {
    let (base, output) = pair();
    let mut group = criterion.benchmark_group("delta frame");
    group.throughput(Throughput::Bytes(output.len() as u64));
    group.sample_size(10);
    for (name, effort) in [("fast", Effort::Fast), ("default", Effort::Default), ("best", Effort::Best)] {
        group.bench_function(format!("encode, {name}"), |b| {
            b.iter(|| encode(black_box(&base), black_box(&output), effort).expect("zstd has memory").payload.len());
        });
        let made = encode(&base, &output, effort).expect("zstd has memory");
        group.bench_function(format!("decode what {name} made, encoding {}", made.encoding), |b| {
            b.iter(|| decode(made.encoding, black_box(&base), &made.payload, output.len()).expect("just made").len());
        });
    }
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
