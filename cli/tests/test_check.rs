// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Damage: what is hurt is named, the rest goes on.

use crate::harness::World;

/// The pack with file data: kind 1 in its header.
fn data_pack(world: &World) -> std::path::PathBuf {
    let packs = world.files("st/packs");
    packs.into_iter().find(|path| std::fs::read(path).unwrap()[10] == 1).unwrap()
}

#[test]
fn nothing_is_wrong() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["check", "--read-data"]), @"
    exit 0
    --- stdout
    no damage  2 snapshots, 4 packs, 9 chunks, 1.49 KiB read in [time]
    ");
    insta::assert_snapshot!(world.run(&["check", "--json"]), @r#"
    exit 0
    --- stdout
    {"schema":"evenkeel/check/1","damaged":false,"findings":[],"snapshots":2,"packs":4,"packs_read":0,"chunks":9,"chunks_left_out":0,"deltas":0,"bytes_read":0,"seconds":0}
    "#);
    insta::assert_snapshot!(world.run(&["check", "--sample", "5%"]), @"
    exit 2
    --- stderr
    error: the following required arguments were not provided:
      --read-data

    Usage: evenkeel check --read-data --sample <P%> --state <DIR> --store <STORE>

    For more information, try '--help'.
    ");
}

#[test]
fn a_flipped_byte_of_data() {
    let world = World::committed();
    let pack = data_pack(&world);
    let len = usize::try_from(pack.metadata().unwrap().len()).unwrap();
    world.flip(&pack, len - 20);
    let found = world.run(&["check", "--read-data"]);
    assert!(found.starts_with("exit 12\n") && found.contains("hurts 1 snapshot: "), "{found}");
    assert!(found.contains("hint: copy a damaged pack back from a backup."), "{found}");
    let name = pack.strip_prefix(world.path("st")).unwrap().to_str().unwrap().to_owned();
    let raw = String::from_utf8(world.output(&["check", "--read-data"]).stdout).unwrap();
    assert!(raw.contains(&name), "{raw}");
    // The first file of the pack is hurt; the others can still be had.
    let results: Vec<Option<i32>> = ["bin/tool", "etc/motd", "etc/app.conf"]
        .into_iter()
        .map(|path| world.output(&["cat", "@latest", path]).status.code())
        .collect();
    assert_eq!(results.iter().filter(|code| **code == Some(12)).count(), 1, "{results:?}");
    assert_eq!(results.iter().filter(|code| **code == Some(0)).count(), 2, "{results:?}");
    let refused = world.run(&["checkout", "@latest", "--area", "os=r"]);
    assert!(refused.starts_with("exit 12\n") && refused.contains("hint: `evenkeel check --read-data`"), "{refused}");
}

#[test]
fn a_damaged_snapshot_does_not_hide_the_others() {
    let world = World::with_history();
    let first = String::from_utf8(world.output(&["log", "--json", "-n", "9"]).stdout).unwrap();
    let id = first.rsplit("\"id\":\"").next().unwrap()[..64].to_owned();
    world.flip(&world.path("st/snapshots").join(&id), 3);
    let listed = world.run(&["log"]);
    assert!(listed.starts_with("exit 12\n") && listed.contains("    second\n"), "{listed}");
    assert!(listed.contains("error: snapshots/[id") && listed.contains("is damaged"), "{listed}");
    let shown = world.run(&["show", &id]);
    assert!(shown.starts_with("exit 12\n--- stderr\nerror: snapshots/"), "{shown}");
}

#[test]
fn a_lost_pack() {
    let world = World::committed();
    std::fs::remove_file(data_pack(&world)).unwrap();
    let found = world.run(&["check"]);
    assert!(found.starts_with("exit 12\n") && found.contains("hurts 1 snapshot: "), "{found}");
    assert!(found.contains("hint: copy a missing pack back from a backup, or commit"), "{found}");
    assert_eq!(world.output(&["cat", "@latest", "etc/motd"]).status.code(), Some(12));
    // What the hint says is true.
    world.run(&["commit", "--area", "os=m"]);
    assert_eq!(world.output(&["check", "--read-data"]).status.code(), Some(0));
}

/// The newest snapshot cannot be followed; the error did not say what could.
#[test]
fn a_damaged_newest_snapshot_has_a_way_around() {
    let world = World::with_history();
    let newest = String::from_utf8(world.output(&["log", "--json", "-n", "1"]).stdout).unwrap();
    let id = newest.split("\"id\":\"").nth(1).unwrap()[..64].to_owned();
    world.flip(&world.path("st/snapshots").join(&id), 3);
    let found = world.run(&["check"]);
    assert!(found.contains("hint: copy a damaged snapshot back from a backup."), "{found}");
    world.write("m/etc/added", "added\n");
    let refused = String::from_utf8(world.output(&["commit", "--area", "os=m"]).stderr).unwrap();
    assert!(refused.contains("hint: the newest snapshot is lost or damaged"), "{refused}");
    let older = refused.split("--parent ").nth(1).unwrap()[..12].to_owned();
    assert_eq!(world.output(&["commit", "--area", "os=m", "--parent", &older]).status.code(), Some(0));
}

/// Without the newest snapshot every command went on with the one before it, and said nothing.
#[test]
fn a_lost_newest_snapshot_is_told_by_every_command() {
    let world = World::with_history();
    let newest = String::from_utf8(world.output(&["log", "--json", "-n", "1"]).stdout).unwrap();
    let id = newest.split("\"id\":\"").nth(1).unwrap()[..64].to_owned();
    std::fs::remove_file(world.path("st/snapshots").join(&id)).unwrap();
    let missing = format!("error: snapshots/{id} is missing from the store");
    let commands: [&[&str]; 7] = [
        &["log"],
        &["show"],
        &["show", &id],
        &["ls", "@latest"],
        &["find", "*.conf"],
        &["checkout", "@latest", "--area", "os=r"],
        &["commit", "--area", "os=m"],
    ];
    for args in commands {
        let output = world.output(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(12), "{args:?}: {stderr}");
        assert!(stderr.contains(&missing), "{args:?}: {stderr}");
    }
    assert!(world.run(&["log"]).contains("    first\n"));
    let refused = world.run(&["show"]);
    assert!(refused.contains("hint: copy it back from a backup, or name an older one outright"), "{refused}");
    let refused = String::from_utf8(world.output(&["commit", "--area", "os=m"]).stderr).unwrap();
    let older = refused.split("--parent ").nth(1).unwrap()[..12].to_owned();
    assert_eq!(world.output(&["show", &older]).status.code(), Some(0));
    assert_eq!(world.output(&["commit", "--area", "os=m", "--parent", &older]).status.code(), Some(0));
    assert_eq!(world.output(&["show"]).status.code(), Some(0));
}
