// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Samples to one Markdown table and to JSON Lines. Pure, but for the header, which asks the machine.

use std::io::Write;

use super::cases::Pairs;
use super::corpus::Release;
use super::measure::{Sample, mb_of_kib};
use crate::host;

/// Tools whose versions the header names when they are installed.
const TOOLS: [&str; 9] = ["tar", "zstd", "find", "cp", "rsync", "restic", "casync", "ostree", "rustc"];

/// Commit, machine, kernel, file system, versions and corpora: without them no figure means anything.
pub fn header(releases: &[Release]) -> String {
    let versions: Vec<String> = TOOLS.iter().filter_map(|tool| host::version(tool)).collect();
    let corpora: Vec<String> = releases.iter().map(describe).collect();
    format!(
        "- commit {} · {} · {}\n\
         - journaled ext4 in a loop image, page cache warm, new destinations each run, sync of the file system included\n\
         - corpus: {}\n\
         - {}\n",
        host::commit(),
        host::machine(),
        host::kernel(),
        corpora.join("; "),
        versions.join(" · "),
    )
}

fn describe(release: &Release) -> String {
    format!("{} ({} entries, {:.0} MB)", release.label, release.size.entries, mb(release.size.bytes))
}

/// One row a contest: medians of both sides, and median and range of the ratios of the pairs.
pub fn table(results: &[(&str, Pairs)]) -> String {
    let mut text = "| case | against | evenkeel s | other s | ratio | spread | evenkeel peak MB | other peak MB | \
                    evenkeel stored MB | other stored MB | pairs |\n|---|---|---:|---:|---:|---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for (case, pairs) in results {
        let ours = || pairs.samples.iter().map(|(ours, _)| ours);
        let theirs = || pairs.samples.iter().map(|(_, theirs)| theirs);
        let ratios = sorted(pairs.samples.iter().map(|(ours, theirs)| ours.seconds / theirs.seconds));
        let stored = |side: &mut dyn Iterator<Item = &Sample>| {
            let bytes: Vec<f64> = sorted(side.filter_map(|sample| sample.stored_bytes).map(mb));
            if bytes.is_empty() { String::new() } else { format!("{:.1}", median(&bytes)) }
        };
        let seconds = |side: &mut dyn Iterator<Item = &Sample>| median(&sorted(side.map(|sample| sample.seconds)));
        let peak =
            |side: &mut dyn Iterator<Item = &Sample>| median(&sorted(side.map(|sample| mb_of_kib(sample.peak_kib))));
        text.push_str(&format!(
            "| {case} | {} | {:.2} | {:.2} | {:.2} | {:.2}–{:.2} | {:.0} | {:.0} | {} | {} | {} |\n",
            pairs.theirs,
            seconds(&mut ours()),
            seconds(&mut theirs()),
            median(&ratios),
            ratios.first().copied().unwrap_or_default(),
            ratios.last().copied().unwrap_or_default(),
            peak(&mut ours()),
            peak(&mut theirs()),
            stored(&mut ours()),
            stored(&mut theirs()),
            pairs.samples.len(),
        ));
    }
    text
}

/// Appends every sample as one JSON object a line.
///
/// # Errors
/// The file cannot be written.
pub fn write_samples(mut out: impl Write, results: &[(&str, Pairs)]) -> std::io::Result<()> {
    let commit = host::commit();
    for (case, pairs) in results {
        for (index, (ours, theirs)) in pairs.samples.iter().enumerate() {
            for (side, sample) in [("evenkeel", ours), (pairs.theirs, theirs)] {
                let stored = sample.stored_bytes.map_or("null".to_owned(), |bytes| bytes.to_string());
                writeln!(
                    out,
                    "{{\"commit\":{},\"case\":{},\"side\":{},\"pair\":{index},\"seconds\":{:.6},\"cpu_seconds\":{:.2},\
                     \"peak_kib\":{},\"stored_bytes\":{stored},\"command\":{}}}",
                    json(&commit),
                    json(case),
                    json(side),
                    sample.seconds,
                    sample.cpu_seconds,
                    sample.peak_kib,
                    json(&sample.command),
                )?;
            }
        }
    }
    Ok(())
}

fn json(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Millions of bytes.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of sorted values; the mean of the two middle ones when there is no middle.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64) -> Sample {
        Sample { seconds, cpu_seconds: 0.5, peak_kib: 1000, stored_bytes: Some(2_000_000), command: "a \"b\"".into() }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians() {
        let samples = [(1.0, 1.0), (2.0, 4.0), (9.0, 3.0)].map(|(a, b)| (sample(a), sample(b))).to_vec();
        let table = table(&[("commit", Pairs { theirs: "tar", samples })]);
        assert!(
            table.ends_with("| commit | tar | 2.00 | 3.00 | 1.00 | 0.50–3.00 | 1 | 1 | 2.0 | 2.0 | 3 |\n"),
            "{table}"
        );
    }

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[1.0, 2.0, 10.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 10.0]), 3.0);
        assert_eq!(json("a\"\\\n"), "\"a\\\"\\\\\\u000a\"");
    }
}
