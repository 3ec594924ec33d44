// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `init` and `commit`, and what they refuse.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::harness::World;

#[test]
fn a_store_is_made_once() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["init", "st"]), @"
    exit 0
    --- stdout
    made store [id1] in st
    ");
    insta::assert_snapshot!(world.run(&["init", "st"]), @"
    exit 2
    --- stderr
    error: st already exists and is not empty
    hint: choose a new directory; a store is never made over something else
    ");
    insta::assert_snapshot!(world.run(&["init", "--chunk-avg", "3KiB", "other"]), @"
    exit 2
    --- stderr
    error: an average chunk of 3.00 KiB is not possible
    hint: --chunk-avg takes a power of two from 8.00 KiB to 4.00 MiB
    ");
    assert!(!world.exists("other"));
}

#[test]
fn first_second_and_unchanged() {
    let world = World::with_tree();
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=m", "-m", "first"]), @"
    exit 0
    --- stdout
    [id1]
    --- stderr
    note: committed os: 3 files, 1.97 KiB in [time]
    note: 5 new chunks, 2.40 KiB; stored in [size]
    ");
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=m"]), @"
    exit 0
    --- stdout
    [id1]
    --- stderr
    note: nothing changed in os: 3 files, 1.97 KiB in [time]
    ");
    assert_eq!(world.output(&["commit", "--area", "os=m", "--exit-nothing"]).status.code(), Some(4));
    world.write("m/etc/added", "added\n");
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=m", "--dry-run"]), @"
    exit 0
    --- stderr
    note: would commit os: 4 files, 1.98 KiB in [time]
    note: 3 new chunks, 520 B
    note: since [id1 short]: 1 added, 1 changed, 0 removed
    ");
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=m", "-m", "second", "--label", "ticket=7"]), @"
    exit 0
    --- stdout
    [id1]
    --- stderr
    note: committed os: 4 files, 1.98 KiB in [time]
    note: 3 new chunks, 520 B; stored in [size]
    note: since [id2 short]: 1 added, 1 changed, 0 removed
    ");
}

#[test]
fn quiet_prints_the_id_only() {
    let world = World::with_tree();
    let output = world.output(&["-q", "commit", "--area", "os=m"]);
    assert_eq!((output.stdout.len(), output.stderr.len()), (65, 0));
}

#[test]
fn as_json() {
    let world = World::with_tree();
    insta::assert_snapshot!(world.run(&["--json", "commit", "--area", "os=m", "-m", "first"]), @r#"
    exit 0
    --- stdout
    {"schema":"evenkeel/commit/1","id":"[id1]","parent":null,"is_new":true,"dry_run":false,"entries":7,"files":3,"bytes":2019,"new_chunks":5,"new_bytes":2458,"stored_bytes":0,"seconds":0,"areas":[{"name":"os","entries":7,"files":3,"bytes":2019,"added":7,"changed":0,"removed":0,"files_read":3,"bytes_read":2019,"excluded":0,"identity_left_out":[],"mount_points":[],"devices_left_out":[],"sockets_left_out":0,"sockets":[],"unstable":[],"unreadable":[]}],"dropped_areas":[],"warnings":[]}
    "#);
}

#[test]
fn host_identity_is_left_out_and_named() {
    let world = World::with_tree();
    world.write("m/etc/machine-id", "4711\n");
    world.write("m/etc/ssh/ssh_host_ed25519_key", "secret\n");
    world.write("m/etc/shadow", "root:*\n");
    insta::assert_snapshot!(world.run(&["commit", "--area", "root=m"]), @"
    exit 0
    --- stdout
    [id1]
    --- stderr
    note: committed root: 3 files, 1.97 KiB in [time]
    note: 5 new chunks, 2.44 KiB; stored in [size]
    note: left out of root (host identity, secrets): etc/machine-id, etc/shadow, etc/ssh/ssh_host_ed25519_key
    ");
    assert!(world.run(&["ls", "-R", "@latest"]).lines().all(|line| !line.contains("shadow")));
    // An area at etc: the same files by what follows.
    let report = world.run(&["commit", "--area", "etc=m/etc", "--parent", "none"]);
    assert!(report.contains("left out of etc (host identity, secrets): machine-id, shadow, ssh/ssh_host_"), "{report}");
    world.write("c.toml", "[identity]\ninclude-paths = [\"/etc/machine-id\"]\n");
    let report = world.run(&["--config", "c.toml", "commit", "--area", "root=m"]);
    assert!(report.contains("secrets): etc/shadow, etc/ssh/ssh_host_ed25519_key"), "{report}");
    assert!(!world.run(&["commit", "--area", "root=m", "--allow-identity"]).contains("left out"));
    assert!(world.run(&["ls", "-R", "@latest"]).contains("etc/shadow"));
}

#[test]
fn areas_that_cannot_be() {
    let world = World::with_tree();
    insta::assert_snapshot!(world.run(&["commit"]), @"
    exit 2
    --- stderr
    error: no area is named
    hint: name one with --area NAME=PATH, such as --area etc=/etc, or in the configuration
    ");
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=nowhere"]), @"
    exit 2
    --- stderr
    error: area `os` at [DIR]/nowhere: does not exist
    hint: an area is a directory that lies in no other: check --area and the configuration
    ");
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=m/etc/motd"]), @"
    exit 2
    --- stderr
    error: area `os` at [DIR]/m/etc/motd: is not a directory
    hint: an area is a directory that lies in no other: check --area and the configuration
    ");
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=m", "--area", "etc=m/etc"]), @"
    exit 2
    --- stderr
    error: area `etc` at [DIR]/m/etc: overlaps with area `os`; areas never nest
    hint: an area is a directory that lies in no other: check --area and the configuration
    ");
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=m", "--area", "os=m"]), @"
    exit 2
    --- stderr
    error: area `os` is named twice
    ");
    assert_eq!(world.run(&["log", "--json"]).matches("\"id\"").count(), 0);
}

#[test]
fn stores_that_are_none() {
    let world = World::with_tree();
    insta::assert_snapshot!(world.run(&["--store", "nowhere", "commit", "--area", "os=m"]), @"
    exit 10
    --- stderr
    error: nowhere is not an Evenkeel store
    hint: make one with `evenkeel init STORE`, or name another with --store or EVENKEEL_STORE
    ");
    insta::assert_snapshot!(world.run(&["--store", "m/etc/motd", "log"]), @"
    exit 10
    --- stderr
    error: m/etc/motd is not an Evenkeel store
    hint: make one with `evenkeel init STORE`, or name another with --store or EVENKEEL_STORE
    ");
    insta::assert_snapshot!(world.run(&["--store", "m", "log"]), @"
    exit 10
    --- stderr
    error: m is not an Evenkeel store
    hint: make one with `evenkeel init STORE`, or name another with --store or EVENKEEL_STORE
    ");
}

#[test]
fn stores_of_a_newer_program() {
    let world = World::with_tree();
    let format = std::fs::read(world.path("st/format")).unwrap();
    let replace = |from: &[u8], to: &[u8]| {
        let at = format.windows(from.len()).position(|window| window == from).unwrap();
        let bytes = [&format[..at], to, &format[at + from.len()..]].concat();
        std::fs::write(world.path("st/format"), bytes).unwrap();
    };
    replace(b"gversion\x01", b"gversion\x02");
    insta::assert_snapshot!(world.run(&["log"]), @"
    exit 1
    --- stderr
    error: format cannot be read by this version
    caused by: format: version at byte 141: version 2 is newer than 1, which this program understands
    hint: this store was written by a newer Evenkeel: use that version, or a newer one
    ");
    replace(b"imust-read\x80", b"imust-read\x81dnews");
    insta::assert_snapshot!(world.run(&["log"]), @"
    exit 1
    --- stderr
    error: format cannot be read by this version
    caused by: format: features at byte 164: feature `news` is not understood by this program
    hint: this store was written by a newer Evenkeel: use that version, or a newer one
    ");
}

/// Everything unreadable is named at once.
#[test]
fn unreadable_files() {
    let world = World::with_tree();
    world.write("m/etc/secret", "x");
    world.write("m/etc/other", "x");
    world.mode("m/etc/secret", 0o000);
    world.mode("m/etc/other", 0o000);
    let run = |args: &[&str]| world.run_unprivileged(args);
    insta::assert_snapshot!(run(&["commit", "--area", "os=m"]), @"
    exit 1
    --- stderr
    error: 2 files cannot be read: [DIR]/m/etc/other, [DIR]/m/etc/secret
    caused by: Permission denied (os error 13)
    hint: run as a user who may read them, exclude them, or leave them out with --skip-unreadable
    ");
    insta::assert_snapshot!(run(&["commit", "--area", "os=m", "--skip-unreadable"]), @"
    exit 3
    --- stdout
    [id1]
    --- stderr
    note: committed os: 3 files, 1.97 KiB in [time]
    note: 5 new chunks, 2.44 KiB; stored in [size]
    warning: area `os`: unreadable, left out: etc/other, etc/secret
    ");
}

#[test]
fn odd_names_are_kept_and_escaped() {
    let world = World::with_tree();
    let long = "x".repeat(255);
    for name in [&b"new\nline"[..], b"esc\x1b[31m", b"bad\xff", long.as_bytes()] {
        world.write(std::path::Path::new("m/odd").join(OsStr::from_bytes(name)), "odd\n");
    }
    world.commit("odd");
    let listed = world.run(&["ls", "@latest", "odd"]);
    assert_eq!(listed, format!("exit 0\n--- stdout\nbad\\xff\nesc\\x1b[31m\nnew\\nline\n{long}"));
    assert!(world.output(&["checkout", "@latest", "--area", "os=r"]).status.success());
    for name in world.files("m/odd") {
        assert!(world.exists(std::path::Path::new("r/odd").join(name.file_name().unwrap())), "{name:?}");
    }
}

#[test]
fn two_at_once() {
    let world = World::committed();
    let store = String::from_utf8(world.output(&["--json", "init", "other"]).stdout).unwrap();
    let id = store.split('"').skip_while(|part| *part != "store").nth(2).unwrap().to_owned();
    let dir = world.path("state/stores").join(id);
    std::fs::create_dir_all(&dir).unwrap();
    let _held = evenkeel_store::fsio::Lock::exclusive(&dir.join("writer.lock")).unwrap();
    let message = world.run(&["--store", "other", "commit", "--area", "os=m"]);
    insta::assert_snapshot!(message, @"
    exit 11
    --- stderr
    error: state/stores/[id1]/writer.lock is locked by another process
    hint: wait for the other command to end, then try again
    ");
}

/// The hint was to run as a user who may read them.
#[test]
fn a_path_over_the_limits_is_named_as_such() {
    let world = World::with_tree();
    let deep = "d/".repeat(512);
    let make = format!("cd m && mkdir -p {deep}/d");
    assert!(
        std::process::Command::new("sh").args(["-c", &make]).current_dir(world.path("")).status().unwrap().success()
    );
    let told = world.run(&["commit", "--area", "os=m"]).replace(&deep, "[DEEP]/");
    insta::assert_snapshot!(told, @"
    exit 1
    --- stderr
    error: 1 file cannot be read: [DIR]/m/[DEEP]/d
    caused by: path deeper than 512 components
    hint: exclude them, or leave them out with --skip-unreadable; docs/reference/limits.md lists the limits
    ");
}

/// A commit of some areas only said "0 added, 0 changed, 0 removed" while the other areas were gone from `@latest`.
#[test]
fn areas_that_are_left_behind_are_named() {
    let world = World::with_tree();
    world.write("web/index", "hello\n");
    world.settle("web");
    world.output(&["commit", "--area", "os=m", "--area", "web=web"]);
    let found = world.run(&["commit", "--area", "os=m"]);
    assert!(found.contains("0 added, 0 changed, 0 removed; without web, which [id"), "{found}");
    assert!(found.contains("warning: area `web` of the parent is not in this snapshot"), "{found}");
    world.output(&["commit", "--area", "os=m", "--area", "web=web"]);
    let document = String::from_utf8(world.output(&["--json", "commit", "--area", "web=web"]).stdout).unwrap();
    assert!(document.contains(r#""dropped_areas":["os"]"#), "{document}");
}
