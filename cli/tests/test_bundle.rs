// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `bundle`: what it says, that it is used as a store, and what is refused.

use crate::harness::World;
use crate::test_remote::serve;

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

/// A server without a store of its own follows a master over HTTP, and then the line is gone.
#[test]
fn with_a_base_onto_a_server_that_is_there() {
    let world = World::with_history();
    let url = serve(world.path("st"));
    let at_base = |root: &str| {
        let area = format!("os={root}");
        assert!(world.output(&["--store", &url, "checkout", "@latest~1", "--area", &area]).status.success());
    };
    at_base("far");
    let make = ["bundle", "create", "@latest", "--base", "@latest~1", "-o", "new.bundle"];
    says(&world, &make, &["exit 0\n"]);
    std::fs::rename(world.path("st"), world.path("gone")).unwrap();
    let apply = |root: &str| {
        world.run(&["--store", "new.bundle", "checkout", "@latest", "--full", "--area", &format!("os={root}")])
    };
    let told = apply("far");
    assert!(told.starts_with("exit 0\n"), "{told}");
    assert_eq!(world.read("far/etc/app.conf"), "colour = blue and green\n");
    assert!(!world.exists("far/etc/motd"));
    says(&world, &["--store", "new.bundle", "verify", "--area", "os=far"], &["exit 0\n"]);

    // Somebody changed what the bundle leaves out, and wants it back.
    world.write("far/bin/tool", "changed\n");
    let back = ["--store", "new.bundle", "checkout", "@latest", "--area", "os=far", "--full"];
    let refused = world.run(&back);
    assert!(refused.starts_with("exit 2\n") && refused.contains("new.bundle needs the snapshot "), "{refused}");
    assert!(refused.contains("for [DIR]/far/bin/tool") && refused.contains("--seed"), "{refused}");
    assert_eq!(world.read("far/bin/tool"), "changed\n");
    let planned = world.run(&[&back[..], &["--dry-run"]].concat());
    assert!(planned.contains("new.bundle needs the snapshot "), "{planned}");
    std::fs::create_dir(world.path("seed")).unwrap();
    std::fs::copy(world.path("m/bin/tool"), world.path("seed/any")).unwrap();
    says(&world, &[&back[..], &["--seed", "seed"]].concat(), &["exit 0\n", "KiB seeds"]);
    assert_eq!(world.read("far/bin/tool"), world.read("m/bin/tool"));

    // A place that has nothing is refused before anything is changed there.
    let elsewhere = ["--state", "elsewhere", "--store", "new.bundle", "checkout", "@latest", "--area", "os=empty"];
    let refused = world.run(&elsewhere);
    assert!(refused.starts_with("exit 2\n") && refused.contains("new.bundle needs the snapshot "), "{refused}");
    assert!(!world.exists("empty/etc"));

    // What the base has is absent by design; what the bundle should have is not.
    says(
        &world,
        &["--store", "new.bundle", "check", "--read-data"],
        &["exit 0\n", "no damage", "left to the snapshots"],
    );
}

#[test]
fn more_bases_than_a_bundle_may_have() {
    let world = World::with_tree();
    for at in 0..66 {
        world.write("m/etc/motd", &format!("{at}\n"));
        world.commit("next");
    }
    let bases: Vec<String> = (1..=65).map(|back| format!("--base=@latest~{back}")).collect();
    let make = |count: usize| {
        let bases = bases.iter().take(count).map(String::as_str);
        let args: Vec<&str> = ["bundle", "create", "@latest", "-o", "many.bundle"].into_iter().chain(bases).collect();
        world.run(&args)
    };
    let refused = make(65);
    assert!(refused.contains("bases of a bundle is 65 but at most 64"), "{refused}");
    assert!(!refused.starts_with("exit 0\n") && !world.exists("many.bundle"), "{refused}");
    let made = make(64);
    assert!(made.starts_with("exit 0\n"), "{made}");
    assert!(world.output(&["bundle", "verify", "many.bundle"]).status.success());
}

#[test]
fn only_a_bundle_gives_way_to_a_bundle() {
    let world = World::committed();
    let make = ["bundle", "create", "@latest", "-o", "notes.txt"];
    world.write("notes.txt", "mine\n");
    says(&world, &make, &["exit 2\n", "notes.txt is there, and no bundle", "--force"]);
    assert_eq!(world.read("notes.txt"), "mine\n");
    says(&world, &[&make[..], &["--force"]].concat(), &["exit 0\n"]);
    says(&world, &make, &["exit 0\n"]);
    std::os::unix::fs::symlink("notes.txt", world.path("link")).unwrap();
    for place in ["link", "m", "/dev/null"] {
        let refused = world.run(&["bundle", "create", "@latest", "-o", place, "--force"]);
        assert!(refused.starts_with("exit 2\n"), "{place}: {refused}");
    }
}

/// A bundle has one snapshot, and so does not know what is between it and a base that is not its parent.
#[test]
fn with_a_base_that_is_further_back() {
    let world = World::with_history();
    assert!(world.output(&["checkout", "@latest~1", "--area", "os=far"]).status.success());
    world.write("m/etc/new.conf", "newer\n");
    world.settle("m");
    world.commit("third");
    let make = ["bundle", "create", "@latest", "--base", "@latest~2", "-o", "new.bundle"];
    says(&world, &make, &["exit 0\n"]);
    let apply = ["--store", "new.bundle", "checkout", "@latest", "--area", "os=far"];
    says(&world, &apply, &["exit 2\n", "whether ", " follows it is not known here", "hint: say --full"]);
    says(&world, &[&apply[..], &["--full"]].concat(), &["exit 0\n"]);
    says(&world, &["--store", "new.bundle", "verify", "--area", "os=far"], &["exit 0\n"]);
}
