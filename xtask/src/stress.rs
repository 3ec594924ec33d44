// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask stress`: what takes too long for every run of the tests. One million small files, the tests named
//! `slow_…`, long fuzzing.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::bench::{Sample, Timed, measure, release_binary};
use crate::image::Image;
use crate::shell::{Cmd, quoted, target_dir};
use crate::{Result, host, test};

/// What any command may use on a million files. Memory is known to grow with the number of chunks (SHORTCOMINGS).
const PEAK_MAX_MB: u64 = 500;
/// A checkout's plan holds every action.
const CHECKOUT_PEAK_MAX_MB: u64 = 600;
const FILES_PER_DIR: u64 = 500;
/// Sizes are spread evenly below this.
const FILE_BYTES_MAX: u64 = 4096;

/// Runs the campaign and prints a table.
///
/// # Errors
/// A command failed, or used more memory than promised.
pub fn run(words: &[String]) -> Result<()> {
    let args = Args::parse(words, &["--files", "--dir", "--fuzz-seconds"], &[])?;
    let files = args.number("--files", 1_000_000)?;
    host::need(&[("time", "time"), ("find", "findutils")])?;
    let binary = release_binary()?;
    let over = match args.all("--dir").last() {
        Some(dir) => many_files(&binary, Path::new(dir), files)?,
        None => {
            let scratch = target_dir().join("stress");
            std::fs::create_dir_all(&scratch).map_err(|error| format!("cannot make {}: {error}", scratch.display()))?;
            // Two trees of the files at one block each, and the store.
            let bytes = files * 4096 * 4 + (4 << 30);
            let image = Image::ext4(&scratch, "stress", bytes, files * 3 + 100_000)?;
            many_files(&binary, image.path(), files)?
        }
    };
    Cmd::cargo().args(["test", "--release", "--workspace", "--", "--ignored", "slow_"]).run()?;
    let seconds = args.number("--fuzz-seconds", 0)?;
    if seconds > 0 {
        println!("fuzz: {} targets, {seconds} s each", test::fuzz(seconds)?);
    }
    if over.is_empty() { Ok(()) } else { Err(over.join("; ")) }
}

/// What a step may use, in MB.
fn peak_max_mb(step: &str) -> u64 {
    if step.starts_with("checkout") { CHECKOUT_PEAK_MAX_MB } else { PEAK_MAX_MB }
}

/// Commit, no-change commit, checkout and no-change checkout of generated files; says which used more memory than
/// they may.
fn many_files(binary: &Path, base: &Path, files: u64) -> Result<Vec<String>> {
    let dir = base.join("evenkeel-stress");
    let [tree, copy, store] = ["tree", "copy", "store"].map(|name| dir.join(name));
    std::fs::create_dir(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    eprintln!("generating {files} files");
    generate(&tree, files).map_err(|error| format!("cannot generate files in {}: {error}", tree.display()))?;
    Cmd::new(binary).arg("init").arg(&store).read()?;

    let evenkeel = |state: &str, args: &[&str], root: &PathBuf| {
        let state = dir.join(state);
        let cmd = Cmd::new(binary).arg("--store").arg(&store).arg("--state").arg(state).args([
            "--progress",
            "none",
            "--quiet",
        ]);
        cmd.args(args).arg("--area").arg(format!("stress={}", root.display()))
    };
    let find = format!(r"find {} -printf '%i %m %U %G %s %T@ %C@ %P\n' > /dev/null", quoted(&tree.to_string_lossy()));
    let steps: [(&str, Cmd); 5] = [
        ("commit", evenkeel("master", &["commit"], &tree)),
        ("commit, no change", evenkeel("master", &["commit"], &tree)),
        ("find -printf", Cmd::new("sh").args(["-c", &find])),
        ("checkout", evenkeel("server", &["checkout", "@latest"], &copy)),
        ("checkout, no change", evenkeel("server", &["checkout", "@latest"], &copy)),
    ];
    let mut rows = Vec::new();
    for (name, cmd) in steps {
        rows.push((name, measure(&Timed::new(cmd), &dir)?));
    }
    println!("{}", table(files, &rows));
    std::fs::remove_dir_all(&dir).map_err(|error| format!("cannot remove {}: {error}", dir.display()))?;
    let over = rows.iter().filter_map(|(name, sample)| {
        let (peak_mb, max_mb) = (sample.peak_kib * 1024 / 1_000_000, peak_max_mb(name));
        (peak_mb > max_mb).then(|| format!("{name} used {peak_mb} MB, more than {max_mb}"))
    });
    Ok(over.collect())
}

fn table(files: u64, rows: &[(&str, Sample)]) -> String {
    let mut text = format!(
        "- commit {} · {} · {} · {files} files of 0 to {FILE_BYTES_MAX} bytes, sync included\n\n\
         | step | seconds | CPU s | peak MB |\n|---|---:|---:|---:|\n",
        host::commit(),
        host::machine(),
        host::kernel(),
    );
    for (name, sample) in rows {
        let peak_mb = sample.peak_kib * 1024 / 1_000_000;
        text.push_str(&format!("| {name} | {:.1} | {:.1} | {peak_mb} |\n", sample.seconds, sample.cpu_seconds));
    }
    text
}

/// Writes `files` files, [`FILES_PER_DIR`] a directory, the same on every run.
fn generate(root: &Path, files: u64) -> std::io::Result<()> {
    let mut random = XorShift(0x9E37_79B9_7F4A_7C15);
    let mut dir = root.to_owned();
    for index in 0..files {
        if index % FILES_PER_DIR == 0 {
            let number = index / FILES_PER_DIR;
            dir = root.join(format!("{:02x}", number / 64)).join(format!("{:02x}", number % 64));
            std::fs::create_dir_all(&dir)?;
        }
        let len = random.next() % FILE_BYTES_MAX;
        let mut file = std::fs::File::create(dir.join(format!("file-{index}")))?;
        let words: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
        let len = usize::try_from(len).expect("a few kilobytes");
        file.write_all(&words[..len])?;
    }
    Ok(())
}

/// Marsaglia's generator: incompressible content without a dependency.
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
