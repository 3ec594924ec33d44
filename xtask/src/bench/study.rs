// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the average chunk size costs: stored bytes of the releases one after the other in one store.

use super::cases::Bench;
use super::corpus;
use super::measure::{Timed, mb_of_kib, measure};
use super::report::mb;
use crate::Result;

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
