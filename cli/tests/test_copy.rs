// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `copy`: what it says, and what it refuses.

use crate::harness::World;

#[track_caller]
fn says(world: &World, args: &[&str], parts: &[&str]) {
    let said = world.run(args);
    for part in parts {
        assert!(said.contains(part), "{args:?}: no `{part}` in\n{said}");
    }
}

#[test]
fn all_snapshots_and_then_nothing() {
    let world = World::with_history();
    says(&world, &["copy", "--to", "usb"], &["exit 0\n", "2 snapshots to the new store in usb: 9 chunks, "]);
    let again = "0 snapshots to the store in usb, 2 there before: 0 chunks, 0 B written in ";
    says(&world, &["copy", "--to", "usb"], &["exit 0\n", again]);
    let there = world.run(&["log"]);
    assert_eq!(world.run(&["log", "--store", "usb"]), there);
    assert!(world.output(&["check", "--read-data", "--store", "usb"]).status.success());
}

#[test]
fn the_newest_without_its_parent() {
    let world = World::with_history();
    let ends = "was not copied: the history ends there";
    says(&world, &["copy", "--to", "usb", "@latest"], &["exit 0\n", "1 snapshot to the new store", ends]);
    let log = ["log", "--oneline", "@latest", "--store", "usb"];
    says(&world, &log, &["exit 0\n", "second", "note: the parent ", " is not in this store"]);
    says(&world, &["show", "@latest~1", "--store", "usb"], &["exit 2\n", "no snapshot `@latest~1`"]);
    says(&world, &["check", "--read-data", "--store", "usb"], &["exit 0\n", "no damage"]);
}

#[test]
fn what_is_refused() {
    let world = World::committed();
    assert!(world.output(&["init", "--chunk-avg", "8KiB", "fine"]).status.success());
    says(
        &world,
        &["copy", "--to", "fine"],
        &["exit 2\n", "cuts files otherwise than", "hint: copy to a new directory"],
    );
    says(&world, &["copy", "--to", "http://127.0.0.1:1/x"], &["exit 2\n", "can only be read"]);
    says(&world, &["copy", "--to", "m"], &["exit 2\n", "already exists and is not empty"]);
}
