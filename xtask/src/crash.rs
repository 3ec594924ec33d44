// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask crash`: power cuts on real file systems, by the program in `crash/`.

use std::path::Path;

use crate::args::Args;
use crate::shell::{Cmd, target_dir};
use crate::test::Outcome;
use crate::{Result, host};

/// States of a run of the tests, over all workloads.
const STATES: u64 = 2_000;
/// States of the protocols that are known to be right or wrong.
const SELF_TEST_STATES: u64 = 180;

/// Why it cannot run here.
fn ready(fs: &str) -> Result<()> {
    if !host::is_root() {
        return Err("needs root, to mount file systems".to_owned());
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("needs /dev/fuse".to_owned());
    }
    let mkfs = match fs {
        "xfs" => ("mkfs.xfs", "xfsprogs"),
        "btrfs" => ("mkfs.btrfs", "btrfs-progs"),
        _ => ("mkfs.ext4", "e2fsprogs"),
    };
    host::need(&[mkfs, ("losetup", "mount"), ("unshare", "util-linux")])
}

fn program() -> Result<Cmd> {
    Cmd::cargo().args(["build", "--package", "evenkeel-crash"]).run()?;
    Ok(Cmd::new(target_dir().join("debug/evenkeel-crash")))
}

/// The group of tests: first that the harness finds what is wrong, then everything on ext4, with a new seed each time.
pub fn group() -> Outcome {
    if let Err(reason) = ready("ext4") {
        return Outcome::LeftOut(reason);
    }
    let run = || {
        let program = program()?;
        program.clone().args(["--self-test", "--states", &SELF_TEST_STATES.to_string()]).run()?;
        program.args(["--states", &STATES.to_string()]).run()?;
        Ok(format!("{STATES} states"))
    };
    run().into()
}

/// The command, for long runs and single states: its options are those of the program.
///
/// # Errors
/// It cannot run here, or found something.
pub fn run(words: &[String]) -> Result<()> {
    let valued = ["--fs", "--states", "--seed", "--workload", "--state", "--loss", "--jobs"];
    let args = Args::parse(words, &valued, &[])?;
    ready(args.all("--fs").last().unwrap_or(&"ext4"))?;
    let given = valued.iter().flat_map(|name| args.all(name).into_iter().flat_map(move |value| [*name, value]));
    program()?.args(given).run()
}
