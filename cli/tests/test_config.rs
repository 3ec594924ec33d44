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
    error: c.toml:5: unknown field `exlude`, expected one of `root`, `include`, `exclude`, `xattrs`, `devices`, `on-conflict`, `numeric-owners`
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
