// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `show-record`, `explain` and `status -v` tell of what was done here, and by whom.

use serde_json::Value;

use crate::harness::World;

/// A world in which `r` is at the second snapshot; one of its files had been edited, and is again.
fn checked_out() -> World {
    let world = World::with_history();
    assert!(world.output(&["checkout", "@latest~1", "--area", "os=r"]).status.success());
    world.write("r/etc/app.conf", "colour = mine\n");
    assert!(world.output(&["checkout", "@latest", "--full", "--area", "os=r"]).status.success());
    world.write("r/bin/tool", "edited\n");
    world
}

fn lines(text: &str, start: &str) -> Vec<String> {
    text.lines().map(str::trim_start).filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn a_record_is_read_in_a_minute() {
    let world = checked_out();
    let told = world.run(&["show-record", "2", "--area", "os=r"]);
    assert!(told.starts_with("exit 0\n--- stdout\nnumber 2: checkout of os at "), "{told}");
    assert!(lines(&told, "asked by")[0].ends_with("checkout @latest --full --area os=r --state state"), "{told}");
    assert_eq!(lines(&told, "snapshot"), ["snapshot [id1 short] → [id2 short], full"]);
    assert!(lines(&told, "outcome")[0].starts_with("outcome  at [id"), "{told}");
    assert!(
        lines(&told, "changes")[0].starts_with("changes  1 added, 1 updated, 1 removed; ") || told.contains("restored")
    );
    assert!(told.contains("had been changed here; what was there is in the undo: 1\n    etc/app.conf"), "{told}");
    assert!(told.contains("  etc/  3 changes\n"), "{told}");
    let sudo = world.command(&["checkout", "@latest", "--full", "--area", "os=r"]).env("SUDO_USER", "joe\n").output();
    assert!(sudo.unwrap().status.success());
    let told = world.run(&["show-record", "3", "--area", "os=r"]);
    assert!(lines(&told, "asked by")[0].contains(" through sudo by joe\\n, on "), "{told}");
}

/// However much was changed, a page is enough, and nothing is left out silently.
#[test]
fn a_long_record_is_bounded_and_can_be_had_whole() {
    let world = World::with_tree();
    for number in 0..300 {
        world.write(format!("m/d{}/f{number}", number % 30), "x");
    }
    world.commit("many");
    assert!(world.output(&["checkout", "@latest", "--area", "os=r"]).status.success());
    let told = world.run(&["show-record", "1", "--area", "os=r"]);
    assert!(told.lines().count() < 80, "{told}");
    assert!(told.lines().last().unwrap().trim_start().starts_with("… and "), "{told}");
    let all = world.run(&["show-record", "1", "--area", "os=r", "--all"]);
    for number in 0..300 {
        assert!(all.contains(&format!("/f{number}  added")), "f{number}");
    }
    let shown = told.lines().filter(|line| line.starts_with("    ")).count();
    let more: usize = told.lines().last().unwrap().split(' ').find_map(|word| word.parse().ok()).unwrap();
    let header = world.output(&["--json", "show-record", "1", "--area", "os=r"]).stdout;
    let header: Value = serde_json::from_slice(header.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(header["changes"], shown + more, "{told}");
}

#[test]
fn a_damaged_record_is_one_error() {
    let world = checked_out();
    let record = world.files("state").into_iter().find(|path| path.ends_with("records/2/record.2")).unwrap();
    world.flip(&record, 30);
    insta::assert_snapshot!(world.run(&["show-record", "2", "--area", "os=r"]), @"
    exit 12
    --- stderr
    error: state/areas/[id1]/records/2/record.2 is damaged: its hash is another
    hint: the other records, and what can be taken back, do not depend on it; look for the disk's errors
    ");
    let newer = std::fs::read_to_string(&record).unwrap().replacen("record/1", "record/7", 1);
    std::fs::write(&record, newer).unwrap();
    insta::assert_snapshot!(world.run(&["show-record", "2", "--area", "os=r"]), @"
    exit 1
    --- stderr
    error: state/areas/[id1]/records/2/record.2 cannot be read by this version: it is evenkeel/record/7
    hint: a newer Evenkeel wrote it: use that version, or a newer one
    ");
}

fn explain(world: &World, path: &str) -> Value {
    let output = world.output(&["--json", "explain", path, "--area", "os=r"]);
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn explain_knows_every_state() {
    let world = checked_out();
    world.write("r/etc/mine", "mine\n");
    world.write("r/var/lib/dpkg/info/base.list", "/etc/mine\n");
    std::fs::remove_file(world.path("r/etc/new.conf")).unwrap();
    let state = |path: &str| explain(&world, path)["now"]["state"].as_str().unwrap().to_owned();
    assert_eq!(state("os:etc/app.conf"), "same");
    assert_eq!(state("r/etc/app.conf"), "same");
    assert_eq!(state(world.path("r/etc/app.conf").to_str().unwrap()), "same");
    assert_eq!(state("os:bin/tool"), "differs");
    assert_eq!(state("os:etc/new.conf"), "missing");
    assert_eq!(state("os:etc/mine"), "stray");
    assert_eq!(state("os:etc/nothing"), "absent");
    assert_eq!(state("os:.evenkeel/marker"), "excluded");
    let tool = explain(&world, "os:bin/tool");
    assert_eq!((&tool["now"]["differs"][0], &tool["brought_by"]["message"]), (&"content".into(), &"first".into()));
    assert_eq!((&tool["last_record"]["number"], &tool["first_in"]["message"]), (&1.into(), &"first".into()));
    assert_ne!(tool["is"]["blake3"], tool["should_be"]["blake3"]);
    let conf = explain(&world, "os:etc/app.conf");
    assert_eq!((&conf["brought_by"]["message"], &conf["first_in"]["message"]), (&"second".into(), &"first".into()));
    assert_eq!(
        (&conf["last_record"]["number"], &conf["last_record"]["reason"]),
        (&2.into(), &"changed locally and in the reference".into())
    );
    let gone = explain(&world, "os:etc/motd");
    assert_eq!((&gone["now"]["state"], &gone["should_be"]), (&"absent".into(), &Value::Null));
    assert_eq!((&gone["brought_by"]["message"], &gone["first_in"]["message"]), (&"second".into(), &"first".into()));
    assert_eq!(explain(&world, "os:etc/mine")["changed_by"]["package"]["name"], "base");
    // A path that an incremental checkout has left.
    assert!(world.output(&["checkout", "@latest~1", "--full", "--area", "os=r"]).status.success());
    assert!(world.output(&["checkout", "@latest", "--incremental", "--area", "os=r"]).status.success());
    assert_eq!(state("os:etc/motd"), "dropped");
    insta::assert_snapshot!(world.run(&["explain", "/nowhere/x", "--area", "os=r"]), @"
    exit 2
    --- stderr
    error: `/nowhere/x` lies in no area
    hint: areas here: `os` at r
    ");
}

#[test]
fn explain_names_the_pattern_that_excludes() {
    let world = World::with_tree();
    world.write("m/etc/a.bak", "x");
    world.write("c.toml", "[area.os]\nroot = \"m\"\nexclude = [\"*.bak\", \"/etc/here\"]\n");
    assert!(world.output(&["--config", "c.toml", "commit"]).status.success());
    world.write("c.toml", "[area.os]\nroot = \"r\"\nexclude = [\"*.own\"]\n");
    assert!(world.output(&["--config", "c.toml", "checkout", "@latest"]).status.success());
    for (path, by, pattern, at) in [
        ("r/etc/x.bak", "the snapshot's rules", "*.bak", "etc/x.bak"),
        ("r/etc/x.own", "this machine's rules", "*.own", "etc/x.own"),
        ("os:etc/here/below/it", "the snapshot's rules", "/etc/here", "etc/here"),
    ] {
        let output = world.output(&["--config", "c.toml", "--json", "explain", path]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let now = &found["now"];
        assert_eq!((&now["state"], &now["excluded_by"]), (&"excluded".into(), &by.into()), "{path}");
        assert_eq!((&now["pattern"], &now["excluded_at"]["path"]), (&pattern.into(), &at.into()), "{path}");
    }
}

#[test]
fn explain_in_words() {
    let world = checked_out();
    let told = world.run(&["explain", "r/bin/tool", "--area", "os=r"]);
    assert!(told.starts_with("exit 0\n--- stdout\nos:bin/tool at r\n"), "{told}");
    assert_eq!(lines(&told, "now"), ["now        differs: content, mode, mtime"]);
    assert_eq!(lines(&told, "brought by"), ["brought by [id3 short], 2026-02-03 04:00:00, tester@master: first"]);
    assert!(
        lines(&told, "here")[0].contains("checkout 1, ") && lines(&told, "here")[0].ends_with(": add bin/tool, added")
    );
    assert!(lines(&told, "changed by")[0].contains("owner ") && told.contains("package unknown"), "{told}");
}

/// Who it was is told where it is asked for, and never makes a status fail.
#[test]
fn drift_says_who() {
    let world = checked_out();
    assert!(!world.run(&["status", "--area", "os=r"]).contains("owner "));
    for args in [&["status", "-v", "--area", "os=r"][..], &["verify", "--area", "os=r"]] {
        let told = world.run(args);
        assert!(told.starts_with("exit 5") && told.contains("bin/tool") && told.contains("owner "), "{told}");
    }
    std::fs::remove_file(world.path("r/bin/tool")).unwrap();
    // A database that is not as it should be.
    world.write("r/var/lib/dpkg/info", "no directory");
    let output = world.output(&["--json", "status", "--area", "os=r"]);
    assert_eq!(output.status.code(), Some(5));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let drift = found["areas"][0]["drift"].as_array().unwrap();
    let gone = drift.iter().find(|entry| entry["path"] == "bin/tool").unwrap();
    assert_eq!((&gone["what"], &gone["changed_by"]["uid"]), (&"missing".into(), &Value::Null));
}
