// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `bundle`: what it says, that it is used as a store, and what is refused.

use crate::harness::World;

#[track_caller]
fn says(world: &World, args: &[&str], parts: &[&str]) {
    let said = world.run(args);
    for part in parts {
        assert!(said.contains(part), "{args:?}: no `{part}` in\n{said}");
    }
}

#[test]
fn made_and_used() {
    let world = World::with_history();
    says(&world, &["bundle", "create", "@latest", "-o", "one.bundle"], &["exit 0\n", "made one.bundle: "]);
    says(&world, &["bundle", "verify", "one.bundle"], &["exit 0\n", "whole: one.bundle: "]);
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
    let make = ["bundle", "create", "@latest", "--base", "@latest~1", "-o", "new.bundle"];
    says(&world, &make, &["exit 0\n", "made new.bundle: ", "  needs "]);
    let apply = ["copy", "--store", "new.bundle", "--to", "site"];
    says(&world, &apply, &["exit 2\n", "new.bundle needs the snapshot ", "hint: nothing was changed; "]);
    assert!(world.output(&["copy", "@latest~1", "--to", "site"]).status.success());
    says(&world, &apply, &["exit 0\n", "1 snapshot to the store in site"]);
    assert!(world.output(&["check", "--read-data", "--store", "site"]).status.success());
}

#[test]
fn cut_short() {
    let world = World::committed();
    assert!(world.output(&["bundle", "create", "@latest", "-o", "one.bundle"]).status.success());
    let bytes = std::fs::read(world.path("one.bundle")).unwrap();
    std::fs::write(world.path("one.bundle"), &bytes[..bytes.len() - 100]).unwrap();
    says(
        &world,
        &["bundle", "verify", "one.bundle"],
        &["exit 12\n", "one.bundle is damaged", "the data ends too early"],
    );
    says(&world, &["bundle", "create", "@latest", "-o", "-", "--json"], &["exit 2\n"]);
}
