// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `status` and `verify` say of areas that are not as they were left, or not there at all.

use serde_json::Value;

use crate::harness::World;

/// A world with areas `os` at `r` and `web` at `w`, both checked out and configured in `c.toml`.
fn two_areas() -> World {
    let world = World::with_tree();
    world.write("site/index.html", "welcome\n");
    world.settle("site");
    let commit = ["commit", "--area", "os=m", "--area", "web=site"];
    assert!(world.output(&commit).status.success());
    world.write("c.toml", "[area.os]\nroot = \"r\"\n\n[area.web]\nroot = \"w\"\n");
    assert!(world.output(&["--config", "c.toml", "checkout", "@latest"]).status.success());
    world
}

fn status(world: &World, args: &[&str]) -> String {
    world.run(&[&["--config", "c.toml", "status"], args].concat())
}

/// A slip in `--area` was answered with exit code 0, as if all were well.
#[test]
fn an_area_that_is_named_must_have_been_checked_out() {
    let world = World::committed();
    insta::assert_snapshot!(world.run(&["status", "--area", "os=m"]), @"
    exit 2
    --- stderr
    error: nothing is checked out to area `os` at m
    hint: check name and path; without --area, what is configured or known here is looked at
    ");
    for root in ["os=nowhere", "os=no/where", "os=m/etc"] {
        for command in ["status", "verify"] {
            let told = world.run(&[command, "--area", root]);
            assert!(told.starts_with("exit 2\n--- stderr\nerror: nothing is checked out to area `os`"), "{told}");
        }
    }
}

#[test]
fn an_area_that_is_only_configured_is_not_in_sync() {
    let world = two_areas();
    world.write("c.toml", "[area.new]\nroot = \"new\"\n\n[area.os]\nroot = \"r\"\n");
    insta::assert_snapshot!(status(&world, &[]), @"
    exit 5
    --- stdout
    new at [DIR]/new
      nothing is checked out here
    os at [DIR]/r
      at [id1 short]; 7 entries
    ");
    insta::assert_snapshot!(status(&world, &["--json"]), @r#"
    exit 5
    --- stdout
    {"schema":"evenkeel/status/1","in_sync":false,"areas":[{"name":"new","root":{"path":"[DIR]/new"},"applied":null,"interrupted":null,"journal_lost":false,"in_sync":false,"error":null,"entries":0,"bytes_read":0,"dropped_delivered":0,"drift":[],"warnings":[]},{"name":"os","root":{"path":"[DIR]/r"},"applied":"[id1]","interrupted":null,"journal_lost":false,"in_sync":true,"error":null,"entries":7,"bytes_read":0,"dropped_delivered":0,"drift":[],"warnings":[]}]}
    "#);
    world.write("c.toml", "[area.new]\nroot = \"no/where\"\n");
    assert!(status(&world, &[]).starts_with("exit 5"));
}

/// One bad area hid all others.
#[test]
fn a_bad_area_does_not_hide_the_others() {
    let world = two_areas();
    std::fs::rename(world.path("r"), world.path("moved")).unwrap();
    world.write("r/etc/motd", "not the area\n");
    world.write("w/index.html", "changed here\n");
    insta::assert_snapshot!(status(&world, &[]), @"
    exit 2
    --- stdout
    web at [DIR]/w
      at [id1 short], 1 difference; 2 entries
      content   index.html  mtime
    --- stderr
    error: area `os` at [DIR]/r is known here, but its marker .evenkeel/marker is missing: is its disk mounted?
    hint: mount it, or name where it was moved to; if it is gone on purpose, remove state/areas/[id2] and it is forgotten
    ");
    let output = world.output(&["--config", "c.toml", "verify", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["in_sync"], false);
    let (os, web) = (&document["areas"][0], &document["areas"][1]);
    assert_eq!((&os["error"]["kind"], &os["applied"]), (&Value::from("usage"), &Value::Null));
    assert_eq!((&web["error"], web["drift"].as_array().unwrap().len()), (&Value::Null, 1));
}

/// The marker of the directory says which area it is.
#[test]
fn a_wrong_name_is_refused_as_by_checkout() {
    let world = two_areas();
    let told = |command: &[&str]| world.run(&[command, &["-q", "--area", "web=r"]].concat());
    let refused = told(&["checkout", "@latest"]);
    insta::assert_snapshot!(refused, @"
    exit 2
    --- stderr
    error: r is area `os`, not `web`
    hint: check --area and the configuration
    ");
    for command in ["status", "verify"] {
        assert_eq!(told(&[command]), refused);
    }
}

/// They were shown as `metadata`, and the guide said that incremental mode would keep them apart.
#[test]
fn split_hard_links_are_named_and_joined_again() {
    let world = World::with_tree();
    std::fs::hard_link(world.path("m/etc/motd"), world.path("m/etc/motd2")).unwrap();
    world.settle("m");
    world.commit("linked");
    assert!(world.output(&["checkout", "@latest", "--area", "os=r"]).status.success());
    let split = "cp -p r/etc/motd2 r/etc/x && mv r/etc/x r/etc/motd2";
    let mut shell = std::process::Command::new("sh");
    assert!(shell.args(["-c", split]).current_dir(world.path("")).status().unwrap().success());
    insta::assert_snapshot!(world.run(&["status", "--area", "os=r"]), @"
    exit 5
    --- stdout
    os at r
      at [id1 short], 1 difference; 8 entries; 12 B read
      links     etc/motd2  hard links: no longer one file with its other names
    ");
    insta::assert_snapshot!(world.run(&["checkout", "@latest", "--area", "os=r", "--incremental", "-v"]), @"
    exit 0
    --- stdout
    os at r  incremental, from [id1 short]
      1 restored; 7 unchanged
      link      etc/motd2  hard link restored: hard links
    at [id1 short] ([time])
    ");
    assert!(world.run(&["status", "--area", "os=r"]).starts_with("exit 0"));
}

/// What was applied is known here or in the store of the area; another store cannot tell, and says so of that area alone.
#[test]
fn an_area_of_another_store_does_not_hide_the_others() {
    let world = two_areas();
    let other = |args: &[&str]| world.run(&[&["--store", "other"], args].concat());
    other(&["init", "other"]);
    world.write("n/x", "x");
    other(&["commit", "--area", "new=n"]);
    other(&["checkout", "@latest", "--area", "new=s"]);
    for area in std::fs::read_dir(world.path("state/areas")).unwrap() {
        std::fs::remove_file(area.unwrap().path().join("applied")).unwrap();
    }
    insta::assert_snapshot!(world.run(&["status"]), @"
    exit 2
    --- stdout
    os at [DIR]/r
      at [id1 short]; 7 entries; 1.97 KiB read
    web at [DIR]/w
      at [id1 short]; 2 entries; 8 B read
    --- stderr
    error: cannot look at area `new` at [DIR]/s
    caused by: no snapshot `[id2]`
    hint: it was checked out from another store: name that one with --store
    ");
}

/// Sixty strays filled the list, and of the one file that was edited there was a number only.
#[test]
fn strays_do_not_hide_what_differs() {
    let world = World::with_history();
    assert!(world.run(&["checkout", "@latest", "--area", "os=r"]).starts_with("exit 0"));
    for number in 0..60 {
        world.write(format!("r/a/s{number:02}"), "stray\n");
    }
    world.write("r/etc/app.conf", "colour = mine\n");
    let first_then = |told: &str, edit: &str, stray: &str, more: &str| {
        let at = |part: &str| told.find(part).unwrap_or_else(|| panic!("no `{part}`: {told}"));
        assert!(at(edit) < at(stray) && at(stray) < at(more), "{told}");
    };
    let told = world.run(&["status", "--area", "os=r"]);
    first_then(&told, "content   etc/app.conf", "stray     a/s00", "… and 41 more strays (-v lists all)");
    assert!(told.starts_with("exit 5") && told.contains("1 difference"), "{told}");
    let told = world.run(&["checkout", "@latest", "--full", "--max-delete", "100", "--area", "os=r"]);
    first_then(&told, "replace   etc/app.conf", "remove    a/s00", "… and 41 more strays removed (-v lists all)");
}
