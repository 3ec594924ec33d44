// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench`: our commands against other tools, on real trees.
//!
//! Every figure is the median of alternating pairs: ours, theirs, theirs, ours, … each into a new destination on a
//! journaled ext4 of its own, page cache warm, the sync of that file system included on both sides.

mod cases;
mod corpus;
mod line;
mod measure;
mod report;
mod study;
mod wire;

use std::fs::File;
use std::path::PathBuf;

use cases::{Bench, Case, Pairs};
pub use measure::{Sample, Timed, measure};

use crate::args::Args;
use crate::image::Image;
use crate::shell::{Cmd, target_dir};
use crate::{Result, host};

/// Room in the image, in multiples of the corpora.
const IMAGE_FACTOR: u64 = 6;
/// Added to it for journal and inode tables.
const IMAGE_EXTRA_BYTES: u64 = 2 << 30;

/// Runs the cases asked for and prints one Markdown table.
///
/// # Errors
/// We are not root, a corpus is missing, or one of the commands failed.
pub fn run(words: &[String]) -> Result<()> {
    let args = Args::parse(words, &["--corpus", "--pairs", "--only", "--against", "--study"], &["--list"])?;
    if args.flag("--list") {
        cases::ALL.iter().for_each(|case| println!("{:20} {}", case.name, case.about));
        return Ok(());
    }
    let only = args.all("--only");
    if let Some(unknown) = only.iter().find(|name| cases::ALL.iter().all(|case| case.name != **name)) {
        return Err(format!("no case '{unknown}'; cargo xtask bench --list names them"));
    }
    let study: Option<fn(&cases::Bench) -> Result<String>> = match args.all("--study").last() {
        None => None,
        Some(&"chunk-size") => Some(study::chunk_size),
        Some(&"delta") => Some(study::delta),
        Some(&"wire") => Some(wire::wire),
        Some(other) => return Err(format!("no study '{other}'; there are: chunk-size, delta, wire")),
    };
    let bench = prepare(&args.all("--corpus"))?;
    let header = report::header(&bench.releases);
    if let Some(study) = study {
        let table = study(&bench)?;
        println!("{header}\n{table}");
        return Ok(());
    }

    let pairs = args.number("--pairs", 5)?.max(1);
    let mut results = Vec::new();
    let against = args.all("--against");
    let mut cases = cases::ALL.iter().filter(|case| only.is_empty() || only.contains(&case.name));
    // What was measured before a failure is shown all the same: it took its time.
    let done = cases.try_for_each(|case| contests_of(case, &bench, &against, pairs, &mut results));
    let raw = target_dir().join("bench/samples.jsonl");
    let file = File::options().create(true).append(true).open(&raw);
    let written = file.and_then(|file| report::write_samples(file, &results));
    written.map_err(|error| format!("cannot write {}: {error}", raw.display()))?;
    println!("{header}\n{}", report::table(&results));
    eprintln!("samples: {}", raw.display());
    done
}

/// Runs a case against each opponent asked for, or says why it is left out.
fn contests_of<'c>(
    case: &'c Case,
    bench: &Bench,
    against: &[&str],
    pairs: u64,
    results: &mut Vec<(&'c str, Pairs)>,
) -> Result<()> {
    let contests = match (case.contests)(bench) {
        Ok(contests) => contests,
        Err(reason) => {
            eprintln!("\n==> {} left out: {reason}", case.name);
            return Ok(());
        }
    };
    let wanted = |tool: &str| against.is_empty() || against.iter().any(|name| tool.starts_with(name));
    for contest in contests.into_iter().filter(|contest| wanted(contest.theirs.label)) {
        eprintln!("\n==> {} against {}", case.name, contest.theirs.label);
        bench.warm();
        results.push((case.name, contest.run(bench, pairs)?));
    }
    Ok(())
}

/// Builds the release binary, makes the image and copies the corpora into it.
fn prepare(corpora: &[&str]) -> Result<Bench> {
    host::need(&[("tar", "tar"), ("zstd", "zstd"), ("rsync", "rsync"), ("time", "time"), ("find", "findutils")])?;
    let binary = release_binary()?;
    let scratch = target_dir().join("bench");
    std::fs::create_dir_all(&scratch).map_err(|error| format!("cannot make {}: {error}", scratch.display()))?;
    let sources = corpus::sources(corpora)?;
    let total: corpus::Size = sources.iter().map(|source| source.size).sum();
    let bytes = total.bytes * IMAGE_FACTOR + IMAGE_EXTRA_BYTES;
    let image = Image::ext4(&scratch, "bench", bytes, total.entries * IMAGE_FACTOR + 100_000)?;
    let releases = corpus::copy_into(&sources, &image.path().join("corpus"))?;
    Ok(Bench { binary, image, releases })
}

/// Builds the binary as users run it.
///
/// # Errors
/// It does not build.
pub fn release_binary() -> Result<PathBuf> {
    Cmd::cargo().args(["build", "--release", "--package", "evenkeel"]).run()?;
    Ok(target_dir().join("release/evenkeel"))
}
