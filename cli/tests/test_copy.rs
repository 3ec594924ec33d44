// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `copy`: what it says, and what it refuses.

use crate::harness::World;

#[test]
fn all_snapshots_and_then_nothing() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["copy", "--to", "usb"]), @"
    exit 0
    --- stdout
    copied [id 1]
    copied [id 2]
    2 snapshots to the new store in usb: 9 chunks, [size] written in [time]
    ");
    insta::assert_snapshot!(world.run(&["copy", "--to", "usb"]), @"
    exit 0
    --- stdout
    0 snapshots to the store in usb, 2 there before: 0 chunks, 0 B written in [time]
    ");
    let there = world.run(&["log"]);
    assert_eq!(world.run(&["log", "--store", "usb"]), there);
    assert!(world.output(&["check", "--read-data", "--store", "usb"]).status.success());
}

#[test]
fn the_newest_without_its_parent() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["copy", "--to", "usb", "@latest"]), @"
    exit 0
    --- stdout
    ");
    insta::assert_snapshot!(world.run(&["log", "--oneline", "@latest", "--store", "usb"]), @"
    exit 0
    --- stdout
    ");
    insta::assert_snapshot!(world.run(&["show", "@latest~1", "--store", "usb"]), @"
    exit 2
    --- stderr
    ");
    insta::assert_snapshot!(world.run(&["check", "--read-data", "--store", "usb"]), @"
    exit 0
    --- stdout
    ");
}

#[test]
fn what_is_refused() {
    let world = World::committed();
    assert!(world.output(&["init", "--chunk-avg", "8KiB", "fine"]).status.success());
    insta::assert_snapshot!(world.run(&["copy", "--to", "fine"]), @"
    exit 2
    --- stderr
    ");
    insta::assert_snapshot!(world.run(&["copy", "--to", "http://127.0.0.1:1/x"]), @"
    exit 2
    --- stderr
    ");
    insta::assert_snapshot!(world.run(&["copy", "--to", "m"]), @"
    exit 2
    --- stderr
    ");
}
