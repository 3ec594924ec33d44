// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `log`, `show`, `ls`, `cat`, `diff` and `find`.

use crate::harness::World;

#[test]
fn log() {
    let world = World::with_tree();
    insta::assert_snapshot!(world.run(&["log"]), @"
    exit 0
    --- stderr
    note: the store is empty: `evenkeel commit` makes a snapshot
    ");
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["log"]), @"
    exit 0
    --- stdout
    [id1 short]  2026-02-03 04:01:00  tester@master  os: 3 files, 1.98 KiB
        second
    [id2 short]  2026-02-03 04:00:00  tester@master  os: 3 files, 1.97 KiB
        first
    ");
    insta::assert_snapshot!(world.run(&["log", "--oneline", "-n", "1"]), @"
    exit 0
    --- stdout
    [id1 short]  2026-02-03 04:01  second
    ");
    insta::assert_snapshot!(world.run(&["log", "@latest~1", "--json"]), @r#"
    exit 0
    --- stdout
    {"schema":"evenkeel/log/1","snapshots":[{"id":"[id1]","parent":null,"depth":0,"time":"2026-02-03T04:00:00Z","author":"tester@master","message":"first","labels":{},"areas":[{"name":"os","entries":7,"files":3,"bytes":2019}]}],"damaged":[]}
    "#);
}

#[test]
fn show() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["show", "@latest~"]), @"
    exit 0
    --- stdout
    snapshot  [id1]
    parent    none
    time      2026-02-03 04:00:00
    author    tester@master

        first

    area  entries  files      size  root on the master
    os          7      3  1.97 KiB  [DIR]/m
    ");
}

#[test]
fn names_of_snapshots() {
    let world = World::with_history();
    let id = String::from_utf8(world.output(&["commit", "-q", "--area", "os=m"]).stdout).unwrap();
    for name in [id.trim(), &id[..8], "@latest", "@latest~0"] {
        assert!(world.run(&["show", name]).contains("    second"), "{name}");
    }
    insta::assert_snapshot!(world.run(&["show", "deadbeef"]), @"
    exit 2
    --- stderr
    error: no snapshot `deadbeef`
    hint: `evenkeel log` lists the snapshots; a prefix needs at least 8 hex digits
    ");
    insta::assert_snapshot!(world.run(&["show", &id[..7]]).replace(&id[..7], "[7 digits]"), @"
    exit 2
    --- stderr
    error: no snapshot `[7 digits]`
    hint: `evenkeel log` lists the snapshots; a prefix needs at least 8 hex digits
    ");
    insta::assert_snapshot!(world.run(&["show", "@latest~2"]), @"
    exit 2
    --- stderr
    error: no snapshot `@latest~2`
    hint: `evenkeel log` lists the snapshots; a prefix needs at least 8 hex digits
    ");
    insta::assert_snapshot!(World::with_tree().run(&["show"]), @"
    exit 2
    --- stderr
    error: no snapshot `@latest`
    hint: the store is empty: `evenkeel commit` makes a snapshot
    ");
}

#[test]
fn ls() {
    let world = World::committed();
    insta::assert_snapshot!(world.run(&["ls", "@latest"]), @"
    exit 0
    --- stdout
    bin
    etc
    ");
    insta::assert_snapshot!(world.run(&["ls", "-R", "@latest"]), @"
    exit 0
    --- stdout
    bin
    bin/alias
    bin/tool
    etc
    etc/app.conf
    etc/motd
    ");
    insta::assert_snapshot!(world.run(&["ls", "@latest", "os:nope"]), @"
    exit 2
    --- stderr
    error: no `nope` in snapshot [id1 short]
    hint: `evenkeel ls [id1 short]` lists what is there
    ");
    insta::assert_snapshot!(world.run(&["ls", "@latest", "web:nope"]), @"
    exit 2
    --- stderr
    error: snapshot [id1 short] has no area `web`
    hint: `evenkeel show [id1 short]` lists its areas
    ");
}

/// `ls -l` looks like `ls -l`, but for the size and link count of directories.
#[test]
fn ls_long_looks_like_ls_long() {
    let world = World::committed();
    let ours = String::from_utf8(world.output(&["ls", "-l", "@latest", "bin"]).stdout).unwrap();
    let theirs = std::process::Command::new("ls")
        .args(["-lA", "--time-style=long-iso"])
        .env_clear()
        .envs([("TZ", "UTC"), ("LC_ALL", "C"), ("PATH", "/usr/bin:/bin")])
        .arg(world.path("m/bin"))
        .output()
        .unwrap();
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    assert_eq!(ours, theirs.split_once('\n').unwrap().1);
}

#[test]
fn cat() {
    let world = World::committed();
    let master = world.path("m/etc/motd");
    insta::assert_snapshot!(world.run(&["cat", "@latest", master.to_str().unwrap()]), @"
    exit 0
    --- stdout
    hello
    ");
    insta::assert_snapshot!(world.run(&["cat", "@latest", "etc"]), @"
    exit 2
    --- stderr
    error: `os:etc` is a directory
    hint: only regular files have content
    ");
    insta::assert_snapshot!(world.run(&["cat", "@latest", "os:bin/alias"]), @"
    exit 2
    --- stderr
    error: `os:bin/alias` is a symlink to tool
    hint: name its target
    ");
    insta::assert_snapshot!(world.run(&["cat", "@latest", "../etc/motd"]), @"
    exit 2
    --- stderr
    error: `../etc/motd` is not a path in an area
    caused by: path component `.` or `..`
    ");
    assert_eq!(world.output(&["cat", "@latest", "bin/tool"]).stdout, world.read("m/bin/tool").into_bytes());
}

#[test]
fn a_path_in_two_areas_must_say_which() {
    let world = World::with_tree();
    world.write("n/etc/motd", "other\n");
    assert!(world.output(&["commit", "--area", "os=m", "--area", "web=n"]).status.success());
    insta::assert_snapshot!(world.run(&["cat", "@latest", "etc/motd"]), @"
    exit 2
    --- stderr
    error: `etc/motd` is in 2 areas of snapshot [id1 short]
    hint: say which: os:etc/motd, web:etc/motd
    ");
    assert_eq!(world.output(&["cat", "@latest", "web:etc/motd"]).stdout, b"other\n");
    insta::assert_snapshot!(world.run(&["ls", "@latest"]), @"
    exit 0
    --- stdout
    os:
    bin
    etc

    web:
    etc
    ");
}

#[test]
fn diff() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["diff", "@latest~1", "@latest"]), @"
    exit 0
    --- stdout
    M  os:etc/app.conf  13 B → 24 B
    D  os:etc/motd  6 B
    A  os:etc/new.conf  4 B
    ");
    insta::assert_snapshot!(world.run(&["diff", "--stat", "@latest~1", "@latest"]), @"
    exit 0
    --- stdout
    area  added  modified  deleted  type  bytes
    os        1         1        1     0  +15 B -6 B
    3 changed paths
    ");
    insta::assert_snapshot!(world.run(&["diff", "--json", "@latest", "@latest~1", "etc/motd"]), @r#"
    exit 0
    --- stdout
    {"schema":"evenkeel/diff/1","area":"os","path":"etc/motd","what":"added","size_after":6,"differs":[]}
    {"schema":"evenkeel/diff-stat/1","before":"[id1]","after":"[id2]","areas":[{"area":"os","added":1,"modified":0,"deleted":0,"type_changed":0,"bytes_added":6,"bytes_deleted":0}]}
    "#);
}

#[test]
fn find() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["find", "*.conf"]), @"
    exit 0
    --- stdout
    os:etc/app.conf  in 2 of 2 snapshots
      [id1 short]  2026-02-03 04:01  changed  24 B, content
      [id2 short]  2026-02-03 04:00  added    13 B
    os:etc/new.conf  in 1 of 2 snapshots
      [id1 short]  2026-02-03 04:01  added    4 B
    ");
    insta::assert_snapshot!(world.run(&["find", "motd"]), @"
    exit 0
    --- stderr
    note: nothing found in 2 snapshots; --all looks for paths that are gone, too
    ");
    insta::assert_snapshot!(world.run(&["find", "--all", "os:etc/motd"]), @"
    exit 0
    --- stdout
    os:etc/motd  in 1 of 2 snapshots
      [id1 short]  2026-02-03 04:01  removed
      [id2 short]  2026-02-03 04:00  added    6 B
    ");
    insta::assert_snapshot!(world.run(&["find", "a["]), @"
    exit 2
    --- stderr
    error: pattern `a[` is not valid
    caused by: error parsing glob 'a[': unclosed character class; missing ']'
    hint: patterns are written as in .gitignore
    ");
}
