// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an error says of the areas that its command has changed.

use std::fs::OpenOptions;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::World;
use crate::test_output::fits;

const AREA: &[&str] = &["--area", "os=r"];

/// Nothing but the error itself: a line of progress comes or does not come by how busy the machine is.
fn with(command: &[&str]) -> Vec<String> {
    [command, AREA, &["--progress", "none"]].concat().iter().map(ToString::to_string).collect()
}

fn checked_out() -> World {
    let world = World::with_history();
    assert!(world.run(&[&["checkout", "@latest~1"], AREA].concat()).starts_with("exit 0"));
    world
}

/// Runs a command under strace; its call number `when` fails for want of space.
fn failing(world: &World, call: &str, when: usize, command: &[&str]) -> Output {
    let args = with(command);
    let program = world.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-o", "strace.log", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:error=ENOSPC:when={when}")])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(world.path(""))
        .env_clear()
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = strace.output().expect("strace, which this test needs");
    assert!(world.read("strace.log").contains("INJECTED"), "{call} number {when} was not reached");
    output
}

/// Runs a command whose standard output is a full disk.
fn unheard(world: &World, command: &[&str]) -> Output {
    let args = with(command);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    world.command(&args.iter().map(String::as_str).collect::<Vec<_>>()).stdout(full).output().unwrap()
}

fn error(output: &Output) -> Value {
    let error = serde_json::from_slice(&output.stderr).unwrap();
    fits("error", &error);
    error
}

/// It was exit 1 without a word of the tree, which was at the new snapshot.
#[test]
fn who_cannot_say_that_it_is_done_says_so_in_the_error() {
    let world = checked_out();
    insta::assert_snapshot!(world.tell(&unheard(&world, &["checkout", "@latest"])), @"
    exit 1
    --- stderr
    error: cannot write to standard output
    caused by: No space left on device (os error 28)
    note: area `os` at r was changed: it is at [id1 short] now
    ");
    insta::assert_snapshot!(world.tell(&unheard(&world, &["--json", "rollback"])), @r#"
    exit 1
    --- stderr
    {"schema":"evenkeel/error/1","kind":"failed","exit_code":1,"message":"cannot write to standard output","causes":["No space left on device (os error 28)"],"hints":[],"areas":[{"name":"os","root":{"path":"r"},"state":"changed","before":"[id1]","at":"[id2]","interrupted":null}]}
    "#);
    error(&unheard(&world, &["--json", "rollback"]));
    insta::assert_snapshot!(world.tell(&unheard(&world, &["checkout", "@latest", "--dry-run"])), @"
    exit 1
    --- stderr
    error: cannot write to standard output
    caused by: No space left on device (os error 28)
    ");
}

#[test]
fn so_does_whoever_has_committed() {
    let world = World::with_history();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    world.write("m/etc/motd", "third\n");
    let unheard = |args: &[&str]| world.command(args).stdout(full()).output().unwrap();
    insta::assert_snapshot!(world.tell(&unheard(&["-q", "commit", "--area", "os=m"])), @"
    exit 1
    --- stderr
    error: cannot write to standard output
    caused by: No space left on device (os error 28)
    note: snapshot [id1 short] was committed
    ");
    let error = error(&unheard(&["--json", "init", "other"]));
    assert!(error["done"][0].as_str().unwrap().ends_with("was made in other"), "{error}");
}

/// None of such errors named `mixed` or `recover`.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_an_error_in_mid_switch_says_how_to_go_on() {
    let world = checked_out();
    let failed = failing(&world, "renameat2", 2, &["checkout", "@latest"]);
    insta::assert_snapshot!(world.tell(&failed), @"
    exit 1
    --- stderr
    error: cannot switch r/etc/app.conf
    caused by: No space left on device (os error 28)
    note: area `os` at r is mixed: a switch between [id1 short] and [id2 short] has begun and has not ended
    hint: free some space (and inodes) there
    hint: `evenkeel recover` goes on, `evenkeel rollback` goes back (and finishes a rollback)
    ");
    let failed = error(&failing(&world, "renameat2", 1, &["--json", "rollback"]));
    assert_eq!(failed["areas"][0]["state"], "mixed", "{failed}");
}

/// It said no more than that a marker or a record could not be written, and to run the command again.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_an_error_after_the_switch_says_that_it_is_done() {
    let world = checked_out();
    let failed = failing(&world, "renameat", 9, &["checkout", "@latest"]);
    insta::assert_snapshot!(world.tell(&failed), @"
    exit 1
    --- stderr
    error: area `os` at r is switched to [id1 short], but that could not be recorded
    caused by: cannot write r/.evenkeel/marker
    caused by: No space left on device (os error 28)
    hint: free some space (and inodes) there
    hint: `evenkeel recover` records it, `evenkeel rollback` goes back
    ");
    assert_eq!(world.read("r/etc/new.conf"), "new\n");
    assert!(world.run(&["recover"]).starts_with("exit 0"));
    let failed = failing(&world, "renameat", 9, &["rollback"]);
    insta::assert_snapshot!(world.tell(&failed), @"
    exit 1
    --- stderr
    error: area `os` at r is switched to [id1 short], but that could not be recorded
    caused by: cannot rename to state/areas/[id2]/records/3
    caused by: No space left on device (os error 28)
    note: area `os` at r was changed: it is at [id1 short] now
    hint: free some space (and inodes) there
    ");
}

/// It was "nothing was done", although what had been interrupted was finished.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_a_refused_checkout_says_that_it_has_finished_another() {
    let world = checked_out();
    failing(&world, "renameat2", 2, &["checkout", "@latest"]);
    let checkout = |args: &[&str]| world.run(&[&["checkout"], args].concat());
    insta::assert_snapshot!(checkout(&["@latest", "--area", "os=r", "--dry-run"]), @"
    exit 0
    --- stdout
    os at r  incremental, from [id1 short]
      a switch to or from [id2 short] was interrupted, and would be finished first
      1 updated; 6 unchanged; 1 adopted as they are; 1 delivered, since dropped, left; [size] to write
    nothing was changed; this is the plan for [id2 short]
    ");
    insta::assert_snapshot!(checkout(&["@latest~1", "--area", "os=r"]), @"
    exit 2
    --- stderr
    error: area `os` is at [id1 short], which is not an ancestor of [id2 short]
    note: what had been interrupted in area `os` at r was finished first: it is at [id1 short] now
    hint: say --full to make it equal, or --incremental to keep local changes and what was dropped
    ");
    failing(&world, "renameat2", 4, &["rollback"]);
    assert!(world.run(&["status"]).contains("mixed"));
    world.write("r/stray", "mine\n");
    let refused = checkout(&["@latest", "--full", "--max-delete", "0", "--area", "os=r", "--json"]);
    insta::assert_snapshot!(refused, @r#"
    exit 2
    --- stderr
    {"schema":"evenkeel/error/1","kind":"usage","exit_code":2,"message":"area `os`: 1 path that was never delivered would be removed, but at most 0 may be: stray","causes":[],"hints":["look at them all with --dry-run -v; exclude what belongs here, or allow more with --max-delete"],"areas":[{"name":"os","root":{"path":"r"},"state":"recovered","before":"[id1]","at":"[id2]","interrupted":null}]}
    "#);
}

/// "nothing was done", it said of an adoption, below the number that it had finished.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_so_does_one_that_must_be_told_how_to_adopt() {
    let world = World::with_history();
    world.write("n/x", "x");
    assert!(world.run(&["commit", "--area", "os=m", "--area", "web=n", "-m", "both"]).starts_with("exit 0"));
    assert!(world.run(&[&["checkout", "@latest~2"], AREA].concat()).starts_with("exit 0"));
    failing(&world, "renameat2", 2, &["checkout", "@latest~1"]);
    world.write("w/x", "mine");
    let told = world.run(&["checkout", "@latest", "--area", "os=r", "--area", "web=w"]);
    assert!(told.starts_with("exit 2") && told.contains("nothing else was changed; this is the plan"), "{told}");
    for part in ["area `os` at r was finished first: it is at ", "area `web` at w was not changed", "hint: --adopt="] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// A unit that runs it at boot, on a server to which nothing came yet, failed; and a disk that is away kept it from all others.
#[test]
fn recover_is_for_whatever_is_here() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["recover"]), @"
    exit 0
    --- stdout
    nothing was ever checked out here
    ");
    assert!(world.run(&["checkout", "@latest", "--area", "os=away"]).starts_with("exit 0"));
    assert!(world.run(&["checkout", "@latest", "--area", "os=r"]).starts_with("exit 0"));
    std::fs::rename(world.path("away/.evenkeel/marker"), world.path("marker")).unwrap();
    insta::assert_snapshot!(world.run(&["recover"]), @"
    exit 2
    --- stdout
    os at [DIR]/r  nothing was interrupted
    at [id1 short]
    --- stderr
    error: area `os` at [DIR]/away is known here, but its marker .evenkeel/marker is missing: is its disk mounted?
    hint: mount it, or name where it was moved to; if it is gone on purpose, remove state/areas/[id2] and it is forgotten
    ");
    insta::assert_snapshot!(world.run(&["--json", "recover"]), @r#"
    exit 2
    --- stdout
    {"schema":"evenkeel/recover/1","areas":[{"name":"os","root":{"path":"[DIR]/r"},"finished":null,"at":"[id1]","kept":null,"left_alone":[],"set_aside":[],"in_use":{"processes":[],"not_looked_into":0}}]}
    --- stderr
    {"schema":"evenkeel/error/1","kind":"usage","exit_code":2,"message":"area `os` at [DIR]/away is known here, but its marker .evenkeel/marker is missing: is its disk mounted?","causes":[],"hints":["mount it, or name where it was moved to; if it is gone on purpose, remove state/areas/[id2] and it is forgotten"]}
    "#);
}

#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_recover_finishes_what_it_can() {
    let world = checked_out();
    assert!(world.run(&["checkout", "@latest", "--area", "os=away"]).starts_with("exit 0"));
    std::fs::rename(world.path("away/.evenkeel/marker"), world.path("marker")).unwrap();
    failing(&world, "renameat2", 2, &["checkout", "@latest"]);
    let told = world.run(&["recover"]);
    assert!(told.contains("finished number 2") && told.starts_with("exit 2"), "{told}");
    assert_eq!(world.read("r/etc/new.conf"), "new\n");
}

#[test]
fn a_place_that_cannot_be_made_is_named() {
    let world = World::with_history();
    insta::assert_snapshot!(world.run(&["checkout", "@latest", "--area", "os=no/such"]), @"
    exit 2
    --- stderr
    error: area `os` at no/such: the directory that it would be made in does not exist
    hint: an area is a directory that lies in no other: check --area and the configuration
    ");
}

/// It was checked out without them, and nothing said so.
#[test]
fn what_would_replace_the_programs_own_files_is_refused() {
    let world = World::with_history();
    world.write("m/etc/evenkeel.toml", "another's\n");
    assert!(world.run(&["-q", "commit", "--area", "os=m"]).starts_with("exit 0"));
    std::fs::create_dir_all(world.path("r/etc")).unwrap();
    world.write("r/etc/evenkeel.toml", "");
    let command = ["--config", "r/etc/evenkeel.toml", "checkout", "@latest", "--area", "os=r", "--adopt=replace"];
    insta::assert_snapshot!(world.run(&command), @"
    exit 2
    --- stderr
    error: the snapshot would replace what is this program's own here: [DIR]/r/etc/evenkeel.toml
    hint: name them in the area's `exclude` in this machine's configuration, or commit the area without them
    ");
    world.write("r/etc/evenkeel.toml", "[area.os]\nroot = \"r\"\nexclude = [\"/etc/evenkeel.toml\"]\n");
    assert!(world.run(&command).starts_with("exit 0"));
    assert!(world.read("r/etc/evenkeel.toml").contains("[area.os]"));
}

/// One flipped bit in a journal, and every command failed, with the hint that `recover` goes on.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_a_damaged_journal_is_no_dead_end() {
    let world = checked_out();
    world.write("r/etc/app.conf", "colour = mine\n");
    failing(&world, "renameat2", 2, &["checkout", "@latest", "--full"]);
    let journal = world.files("state/areas").into_iter().find(|path| path.ends_with("tx/journal")).unwrap();
    world.flip(&journal, 50);
    insta::assert_snapshot!(world.run(&["status"]), @"
    exit 5
    --- stdout
    os at [DIR]/r
      mixed [id1 short]→[id2 short], and the journal is lost: `evenkeel checkout SNAP --full` makes it equal to a snapshot; 7 entries; 1 stray
      compared with [id1 short]; what the switch has done so far differs, too:
      content   etc/app.conf  mtime
      stray     etc/new.conf
    ");
    let warned = |what: &str| {
        let told = world.run(&["history"]);
        let warning =
            format!("warning: area `os`: the journal of the last transaction is {what}, and the area is a mixture");
        assert!(told.starts_with("exit 0") && told.contains("nothing →") && told.contains(&warning), "{told}");
    };
    warned("damaged");
    assert!(world.run(&["show-record", "1"]).starts_with("exit 0"));
    insta::assert_snapshot!(world.run(&["checkout", "@latest", "--incremental", "--area", "os=r"]), @"
    exit 2
    --- stderr
    error: area `os` is a mixture: it is in the middle of a switch whose journal is lost, and what of it is a local change is not known
    note: area `os` at r is mixed: a switch between [id1 short] and [id2 short] has begun and has not ended
    hint: say --full or --force to make it equal to the snapshot; the journal of the last switch was damaged, and is state/areas/[id3]/journal.damaged now; what had given way in that switch is in r/.evenkeel/undo/2
    hint: `evenkeel checkout SNAP --full` makes it equal to a snapshot
    ");
    for command in ["recover", "rollback"] {
        let told = world.run(&[command]);
        assert!(told.starts_with("exit 2") && told.contains("neither finished nor taken back"), "{told}");
        assert!(!told.contains("goes on"), "{told}");
    }
    warned("lost");
    insta::assert_snapshot!(world.run(&["checkout", "@latest", "--full", "--area", "os=r"]), @"
    exit 0
    --- stdout
    os at r  full, from [id1 short]
      1 restored, 1 removed; 6 unchanged; 1 adopted as they are; [size] written
      replace   etc/app.conf  changed locally and in the reference: content, mtime
    at [id2 short] ([time])
    ");
    assert!(world.run(&["status"]).starts_with("exit 0"));
    // What had given way is kept.
    let undo = world.files("r/.evenkeel/undo");
    assert!(undo.iter().any(|path| std::fs::read(path).unwrap() == b"colour = mine\n"), "{undo:?}");
}

/// A checkout that was cut off kept a local change, and `recover` called the area `at` its snapshot.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_recover_tells_of_kept_differences() {
    let world = checked_out();
    world.write("r/bin/tool", "mine\n");
    failing(&world, "renameat2", 2, &["checkout", "@latest"]);
    insta::assert_snapshot!(world.run(&["recover"]), @"
    exit 0
    --- stdout
    os at [DIR]/r  finished number 2
    at [id1 short], 1 kept difference
    ");
    assert!(world.run(&["--json", "recover"]).contains(r#""kept":null"#), "nothing was finished");
}

/// An area in the middle of a switch was committed without a word, as if somebody wanted that mixture.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_a_mixture_is_not_committed() {
    let world = checked_out();
    failing(&world, "renameat2", 2, &["checkout", "@latest"]);
    for dry_run in [&[][..], &["--dry-run"]] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(world.run(&[&["commit"], AREA, dry_run].concat()), @"
            exit 2
            --- stderr
            error: area `os` at [DIR]/r is in the middle of a switch: it is a mixture of two snapshots
            hint: `evenkeel recover` goes on, `evenkeel rollback` goes back; if a checkout is at work there, wait for it
            ");
        }
    }
    assert!(world.run(&["recover"]).starts_with("exit 0"));
    assert!(world.run(&[&["commit"], AREA].concat()).starts_with("exit 0"));
}

/// The record of a checkout that was cut off listed what it was to do as if it were done.
#[test]
#[ignore = "root: runs checkouts under strace"]
fn root_the_record_of_what_was_interrupted_is_a_plan() {
    let world = checked_out();
    failing(&world, "renameat2", 2, &["checkout", "@latest"]);
    let told = world.run(&["show-record", "2"]);
    assert!(told.contains("planned; how many of them were made is not recorded"), "{told}");
    assert!(told.contains("\nplanned changes\n"), "{told}");
    assert!(world.run(&["rollback"]).starts_with("exit 0"));
    assert!(world.run(&["show-record", "2"]).contains("\nplanned changes\n"));
}
