// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands of README and guide, run as a reader copies them.

use std::fmt::Write as _;
use std::process::Command;

use crate::harness::World;

/// The README's last command failed: it named a snapshot that its own commands had not made.
#[test]
fn the_readme_can_be_copied() {
    let text = include_str!("../../README.md");
    let (_, first_use) = text.split_once("## First use").unwrap();
    run(&first_use[..first_use.find("## What exists").unwrap()]);
}

#[test]
fn the_guide_can_be_copied_chapter_after_chapter() {
    run(&[
        include_str!("../../docs/guide/20-first-tree.md"),
        include_str!("../../docs/guide/40-checkout.md"),
        include_str!("../../docs/guide/50-drift.md"),
        include_str!("../../docs/guide/60-history.md"),
        include_str!("../../docs/guide/70-offline.md"),
    ]
    .concat());
}

#[test]
fn the_unit_for_recovery_at_boot_runs() {
    let unit = include_str!("../../docs/operations/evenkeel-recover.service");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/evenkeel ")).unwrap();
    let told = World::new().run(&command.split(' ').collect::<Vec<_>>());
    assert!(told.starts_with("exit 0"), "{told}");
}

/// Runs the shell blocks of a text. Each line must end with 0, or as its comment says: `exit code N`.
fn run(text: &str) {
    let world = World::new();
    let dir = world.path("");
    let dir = dir.to_str().unwrap();
    let mut script = String::from("evenkeel() { command evenkeel --state \"$HOME/state\" \"$@\"; }\n");
    for block in text.split("```sh\n").skip(1) {
        let (commands, _) = block.split_once("```").unwrap();
        for line in commands.lines().filter(|line| !line.is_empty() && !line.starts_with("cargo ")) {
            let code = line.split_once("exit code ").map_or("0", |(_, code)| code);
            let line = line.replace("/srv/", &format!("{dir}srv/")).replace("/tmp/", dir);
            let _ = writeln!(script, "{line}\ncode=$?; [ $code = {code} ] || {{ echo \"exit $code\"; exit 1; }}");
        }
    }
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_evenkeel")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-ec", "mkdir -p \"$HOME\"; cd; set +e -x; eval \"$1\"", "sh", &script]);
    let output = shell.env_clear().env("PATH", path).env("HOME", world.path("home")).output().unwrap();
    assert!(output.status.success(), "{}", world.tell(&output));
}
