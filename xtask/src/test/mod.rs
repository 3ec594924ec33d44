// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask test`: every group of tests, and a table of what ran, passed and was left out with the reason.

mod cargo;
mod fuzz;
mod reader;
mod table;
mod tree;
mod vectors;

use std::time::Instant;

pub use fuzz::run as fuzz;
use table::Row;

use crate::args::Args;
use crate::{Result, host};

/// What became of a group.
pub enum Outcome {
    /// With what there is to say, such as a number of tests.
    Passed(String),
    Failed(String),
    /// Not run, and why; a failure in CI.
    LeftOut(String),
}

impl From<Result<String>> for Outcome {
    fn from(result: Result<String>) -> Outcome {
        match result {
            Ok(note) => Outcome::Passed(note),
            Err(message) => Outcome::Failed(message),
        }
    }
}

struct Options {
    fuzz_seconds: u64,
    /// Every case of what is usually sampled, and attacks of ten seconds each.
    long: bool,
}

struct Group {
    name: &'static str,
    about: &'static str,
    /// Most groups are one row of the table; `cargo test` is one per test binary.
    run: fn(&Options) -> Vec<(String, Outcome)>,
}

const GROUPS: &[Group] = &[
    Group {
        name: "tree",
        about: "licence lines, links, layers, size of Cargo.lock",
        run: |_| one(tree::check().into()),
    },
    Group {
        name: "cargo",
        about: "unit, property, workflow and command tests: cargo test --workspace",
        run: |options| cargo::workspace(options.long),
    },
    Group { name: "vectors", about: "format vectors regenerated and unchanged", run: |_| one(vectors::unchanged()) },
    Group {
        name: "reader",
        about: "the independent reader on vectors, rejects and a fresh store",
        run: |_| reader::run(),
    },
    Group {
        name: "root",
        about: "tests that need root, on a loop ext4 with ACLs and capabilities",
        run: |options| one(cargo::root(options.long)),
    },
    Group {
        name: "garage",
        about: "a store in a bucket: three nodes of Garage, of which any one dies",
        run: |_| one(cargo::garage()),
    },
    Group {
        name: "crash",
        about: "power cuts on a recorded ext4, after proof that missing syncs are found",
        run: |_| one(crate::crash::group()),
    },
    Group { name: "docs", about: "rustdoc without a warning", run: |_| one(cargo::docs()) },
    Group { name: "demo", about: "the README's demo", run: |_| one(cargo::demo()) },
    Group {
        name: "fuzz",
        about: "every fuzz target for some seconds",
        run: |options| one(fuzz::group(options.fuzz_seconds)),
    },
];

fn one(outcome: Outcome) -> Vec<(String, Outcome)> {
    vec![(String::new(), outcome)]
}

/// Runs the groups asked for and prints the table.
///
/// # Errors
/// A group failed, or was left out in CI.
pub fn run(words: &[String]) -> Result<()> {
    let args = Args::parse(words, &["--only", "--fuzz-seconds"], &["--list", "--long"])?;
    if args.flag("--list") {
        GROUPS.iter().for_each(|group| println!("{:8} {}", group.name, group.about));
        return Ok(());
    }
    let only = args.all("--only");
    if let Some(unknown) = only.iter().find(|name| GROUPS.iter().all(|group| group.name != **name)) {
        return Err(format!("no group '{unknown}'; cargo xtask test --list names them"));
    }
    let options = Options { fuzz_seconds: args.number("--fuzz-seconds", 15)?, long: args.flag("--long") };

    let mut rows = Vec::new();
    for group in GROUPS.iter().filter(|group| only.is_empty() || only.contains(&group.name)) {
        eprintln!("\n==> {}: {}", group.name, group.about);
        let start = Instant::now();
        let outcomes = (group.run)(&options);
        let seconds = start.elapsed().as_secs_f64();
        rows.extend(outcomes.into_iter().enumerate().map(|(index, (part, outcome))| {
            let name = if part.is_empty() { group.name.to_owned() } else { format!("{} {part}", group.name) };
            // The time is the whole group's: building is most of it and belongs to no single part.
            Row::new(name, outcome, (index == 0).then_some(seconds))
        }));
    }
    println!("\n{}", table::render(&rows));
    let summary = table::Summary::of(&rows, host::in_ci());
    println!("{summary}");
    if summary.failed == 0 { Ok(()) } else { Err(format!("{} of {} groups failed", summary.failed, rows.len())) }
}
