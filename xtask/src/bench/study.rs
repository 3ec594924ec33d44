// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a choice costs: the average chunk size in stored bytes, a delta's effort in time and memory.

use super::cases::Bench;
use super::corpus;
use super::measure::{Timed, mb_of_kib, measure};
use super::report::mb;
use crate::Result;

/// What `delta make --effort` takes.
const EFFORTS: [&str; 3] = ["fast", "default", "best"];
const AVERAGES_KIB: [u64; 4] = [16, 32, 64, 128];

/// One row an average. The bytes are exact and need no repetition; the seconds are one run each, an indication only.
///
/// # Errors
/// A command failed.
pub fn chunk_size(bench: &Bench) -> Result<String> {
    let labels: Vec<&str> = bench.releases.iter().map(|release| release.label.as_str()).collect();
    let columns: String =
        (1..=labels.len()).map(|count| format!(" {} MB | s |", labels[..count].join(" + "))).collect();
    let mut text = format!("| average KiB |{columns} peak MB |\n|---:|{}---:|\n", "---:|---:|".repeat(labels.len()));
    for average_kib in AVERAGES_KIB {
        eprintln!("\n==> average {average_kib} KiB");
        bench.warm();
        let dir = bench.image.path().join("study");
        bench.init(&dir, &["--chunk-avg", &(average_kib << 10).to_string()])?;
        let mut row = format!("| {average_kib} |");
        let mut peak_kib = 0;
        for release in &bench.releases {
            let sample = measure(&Timed::new(bench.commit(&dir, &release.root)), &dir)?;
            peak_kib = peak_kib.max(sample.peak_kib);
            let stored = corpus::size_of(&dir.join("store")).bytes;
            row.push_str(&format!(" {:.1} | {:.1} |", mb(stored), sample.seconds));
        }
        text.push_str(&format!("{row} {:.0} |\n", mb_of_kib(peak_kib)));
        std::fs::remove_dir_all(&dir).map_err(|error| format!("cannot remove {}: {error}", dir.display()))?;
        bench.image.trim();
    }
    Ok(text)
}

/// One row an effort: the delta from the first release to the second. One run each.
///
/// # Errors
/// A command failed; there is no second release.
pub fn delta(bench: &Bench) -> Result<String> {
    let [_, _, ..] = bench.releases[..] else {
        return Err("needs a second --corpus, a later release of the first".to_owned());
    };
    let dir = bench.image.path().join("study");
    bench.init(&dir, &[])?;
    for release in &bench.releases[..2] {
        bench.commit(&dir, &release.root).read()?;
    }
    let mut text = "| effort | MB | s | s of CPU | peak MB |\n|---|---:|---:|---:|---:|\n".to_owned();
    for effort in EFFORTS {
        eprintln!("\n==> effort {effort}");
        let sample = measure(&Timed::storing(bench.delta(&dir, effort), dir.join("store/deltas")), &dir)?;
        let (bytes, peak) = (sample.stored_bytes.unwrap_or_default(), mb_of_kib(sample.peak_kib));
        let row = format!(
            "| {effort} | {:.1} | {:.1} | {:.1} | {peak:.0} |\n",
            mb(bytes),
            sample.seconds,
            sample.cpu_seconds
        );
        text.push_str(&row);
        let deltas = dir.join("store/deltas");
        std::fs::remove_dir_all(&deltas).map_err(|error| format!("cannot remove {}: {error}", deltas.display()))?;
    }
    Ok(text)
}
