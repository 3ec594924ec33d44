// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration file: where it is found, what it says, how mistakes are named.

use crate::harness::World;

#[test]
fn areas_and_store_come_from_it() {
    let world = World::with_tree();
    world.write(
        "home/config/evenkeel/evenkeel.toml",
        "store = \"../../../st\"\nauthor = \"config@host\"\n[area.os]\nroot = \"../../../m\"\nexclude = [\"*.conf\"]\n",
    );
    let mut command = world.command(&["commit", "-m", "configured"]);
    assert!(command.env_remove("EVENKEEL_STORE").env_remove("EVENKEEL_AUTHOR").output().unwrap().status.success());
    assert!(world.run(&["log"]).contains("config@host"));
    insta::assert_snapshot!(world.run(&["ls", "-R", "@latest"]), @"
    exit 0
    --- stdout
    bin
    bin/alias
    bin/tool
    etc
    etc/motd
    ");
}

#[test]
fn mistakes_name_file_and_line() {
    let world = World::with_tree();
    world.write("c.toml", "store = \"st\"\n\n[area.os]\nroot = \"m\"\nexlude = [\"x\"]\n");
    insta::assert_snapshot!(world.run(&["--config", "c.toml", "log"]), @"
    exit 2
    --- stderr
    error: c.toml:5: unknown field `exlude`, expected one of `root`, `include`, `exclude`, `xattrs`, `devices`, `set-id`, `on-conflict`, `conflict`, `numeric-owners`
    hint: `evenkeel help config` shows every key
    ");
    world.write("c.toml", "store = \n");
    insta::assert_snapshot!(world.run(&["--config", "c.toml", "log"]), @"
    exit 2
    --- stderr
    error: c.toml:1: string values must be quoted, expected literal string
    hint: `evenkeel help config` shows every key
    ");
    insta::assert_snapshot!(world.run(&["--config", "nowhere.toml", "log"]), @"
    exit 2
    --- stderr
    error: cannot use the configuration nowhere.toml
    caused by: cannot open nowhere.toml
    caused by: No such file or directory (os error 2)
    hint: `evenkeel help config` shows where a configuration is looked for, and every key
    ");
    assert!(world.output(&["--config", "nowhere.toml", "help"]).status.success());
}

/// They were found only by a checkout, if at all.
#[test]
fn areas_that_cannot_be_are_named_at_once() {
    let world = World::with_tree();
    world.write("c.toml", "[area.WEB]\nroot = \"m\"\n");
    insta::assert_snapshot!(world.run(&["--config", "c.toml", "log"]), @"
    exit 2
    --- stderr
    error: c.toml:1: `WEB` is not a valid area name: 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit
    hint: `evenkeel help config` shows every key
    ");
    world.write("c.toml", "[area.os]\nroot = \"m\"\n\n[area.etc]\nroot = \"m/etc\"\n");
    insta::assert_snapshot!(world.run(&["--config", "c.toml", "status"]), @"
    exit 2
    --- stderr
    error: c.toml:5: areas `os` and `etc` are nested: an area lies in no other
    hint: `evenkeel help config` shows every key
    ");
    std::os::unix::fs::symlink("m", world.path("alias")).unwrap();
    world.write("c.toml", "[area.a]\nroot = \"alias/etc\"\n\n[area.b]\nroot = \"m/etc\"\n");
    assert!(world.run(&["--config", "c.toml", "log"]).contains("c.toml:5: areas `a` and `b` are nested"));
}

/// With the home of another user, every command failed: `cannot stat /root/.config/…`.
#[test]
fn a_configuration_that_may_not_be_looked_at_is_absent() {
    let world = World::committed();
    world.write("home/config/evenkeel/evenkeel.toml", "nonsense");
    world.mode("home/config", 0);
    let told = world.run_unprivileged(&["log"]);
    world.mode("home/config", 0o755);
    assert!(told.starts_with("exit 0") && told.contains("first"), "{told}");
}

#[test]
fn bad_patterns_are_named() {
    let world = World::with_tree();
    world.write("c.toml", "[area.os]\nroot = \"m\"\nexclude = [\"a[\"]\n");
    insta::assert_snapshot!(world.run(&["--config", "c.toml", "commit"]), @"
    exit 2
    --- stderr
    error: pattern `a[` is not valid: error parsing glob 'a[': unclosed character class; missing ']'
    hint: patterns are written as in .gitignore
    ");
}

#[test]
fn no_store_is_named() {
    let world = World::new();
    let output = world.command(&["log"]).env_remove("EVENKEEL_STORE").output().unwrap();
    insta::assert_snapshot!(world.tell(&output), @"
    exit 2
    --- stderr
    error: no store is named
    hint: name one with --store PATH, EVENKEEL_STORE, or `store = …` in the configuration
    ");
}
