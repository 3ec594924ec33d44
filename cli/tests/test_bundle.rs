// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `bundle`: what it says, that it is used as a store, and what is refused.

use crate::harness::World;

#[test]
fn made_and_used() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["bundle", "create", "@latest", "-o", "one.bundle"]), @"
    exit 0
    --- stdout
    ");
    insta::assert_snapshot!(world.run(&["bundle", "verify", "one.bundle"]), @"
    exit 0
    --- stdout
    ");
    let there = world.run(&["ls", "-R", "@latest"]);
    assert_eq!(world.run(&["ls", "-R", "@latest", "--store", "one.bundle"]), there);
    assert!(world.output(&["checkout", "@latest", "--area", "os=far", "--store", "one.bundle"]).status.success());
    assert_eq!(world.read("far/etc/app.conf"), "colour = blue and green\n");
    let piped = world.output(&["bundle", "create", "@latest", "-o", "-"]).stdout;
    std::fs::write(world.path("piped.bundle"), piped).unwrap();
    assert!(world.output(&["bundle", "verify", "piped.bundle"]).status.success());
}

#[test]
fn a_base_that_is_not_there() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["bundle", "create", "@latest", "--base", "@latest~1", "-o", "new.bundle"]), @"
    exit 0
    --- stdout
    ");
    insta::assert_snapshot!(world.run(&["copy", "--store", "new.bundle", "--to", "site"]), @"
    exit 2
    --- stderr
    ");
    assert!(world.output(&["copy", "@latest~1", "--to", "site"]).status.success());
    assert!(world.output(&["copy", "--store", "new.bundle", "--to", "site"]).status.success());
    assert!(world.output(&["check", "--read-data", "--store", "site"]).status.success());
}

#[test]
fn cut_short() {
    let world = World::committed();
    assert!(world.output(&["bundle", "create", "@latest", "-o", "one.bundle"]).status.success());
    let bytes = std::fs::read(world.path("one.bundle")).unwrap();
    std::fs::write(world.path("one.bundle"), &bytes[..bytes.len() - 100]).unwrap();
    insta::assert_snapshot!(world.run(&["bundle", "verify", "one.bundle"]), @"
    exit 12
    --- stderr
    ");
    insta::assert_snapshot!(world.run(&["bundle", "create", "@latest", "-o", "-", "--json"]), @"
    exit 2
    --- stderr
    ");
}
