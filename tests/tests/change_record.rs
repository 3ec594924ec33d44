// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The record of a checkout says what was done, why, who asked, and what came of it; also of one that was interrupted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel_store::ErrorKind;
use evenkeel_store::checkout::{AskedBy, CheckoutOptions, Mode, RecordLimits};
use evenkeel_store::fsio::script::Script;
use evenkeel_tests::Place;
use evenkeel_tests::operation::{Operation, Paths, releases};
use serde_json::{Value, json};

/// The file `name` of record `number`.
fn part(place: &Place<'_>, number: u64, name: &str) -> PathBuf {
    let area = std::fs::read_dir(place.state.join("areas")).unwrap().next().unwrap().unwrap().path();
    area.join(format!("records/{number}/{name}.{number}"))
}

fn of<'l>(lines: &'l [Value], kind: &str, path: &str) -> &'l Value {
    let fits = |line: &&Value| line["line"] == kind && line["path"] == path;
    lines.iter().find(fits).unwrap_or_else(|| panic!("no {kind} of {path} in {lines:#?}"))
}

/// What came of it: the line before the seal.
fn last(lines: &[Value]) -> &Value {
    &lines[lines.len() - 2]
}

#[test]
fn every_change_says_why() {
    let (fixture, [first, second]) = releases();
    let place = Place::new(&fixture, "server");
    place.checkout(&first, Mode::Full);
    place.tree().file("d/same", "edited").file("d/stray", "stray").remove("l/a");
    let asked_by = AskedBy {
        uid: 7,
        user: Some("op".into()),
        sudo_user: Some("joe".into()),
        command: "evenkeel checkout".into(),
        version: "9".into(),
    };
    let change = |options: &mut CheckoutOptions| {
        (options.mode, options.asked_by) = (Some(Mode::Full), Some(asked_by));
    };
    place.try_checkout(&second, change).unwrap();
    let lines = place.record(2);
    let header = &lines[0];
    assert_eq!((&header["schema"], &header["what"]), (&json!("evenkeel/record/1"), &json!("checkout")));
    assert_eq!((&header["before"], &header["after"]), (&json!(first.to_hex()), &json!(second.to_hex())));
    assert_eq!((&header["asked_by"]["sudo_user"], &header["asked_by"]["uid"]), (&json!("joe"), &json!(7)));
    assert_eq!((&header["mode"], &header["area"]), (&json!("full"), &json!("tree")));
    let told = |kind: &str, path: &str| {
        let line = of(&lines, kind, path);
        (line["action"].as_str().unwrap().to_owned(), line["reason"].as_str().unwrap().to_owned())
    };
    let expect = |action: &str, reason: &str| (action.to_owned(), reason.to_owned());
    assert_eq!(told("change", "d/changed"), expect("replace", "updated"));
    assert_eq!(told("change", "d/same"), expect("replace", "changed locally"));
    assert_eq!(told("change", "d/stray"), expect("remove", "stray"));
    assert_eq!(told("change", "d/gone"), expect("remove", "dropped"));
    assert_eq!(told("change", "d/new"), expect("add", "added"));
    assert_eq!(told("change", "new/deep/f"), expect("add", "added"), "also what moves with its directory");
    assert_eq!(told("change", "gone/f"), expect("remove", "dropped"));
    // What had drifted says who.
    let uid = rustix::process::geteuid().as_raw();
    for path in ["d/same", "d/stray"] {
        assert_eq!(of(&lines, "change", path)["changed_by"]["uid"], uid, "{path}");
    }
    assert!(of(&lines, "change", "d/changed")["changed_by"].is_null());
    let kind = of(&lines, "change", "kind/dir");
    assert_eq!((&kind["was_type"], &kind["type"]), (&json!("directory"), &json!("file")));
    let mode = of(&lines, "change", "d/mode");
    assert_eq!((&mode["was_mode"], &mode["mode"]), (&json!("0644"), &json!("0640")));
    let suid = of(&lines, "change", "d/suid");
    assert_eq!((&suid["was_rights"], &suid["rights"]), (&json!(["set-user-id"]), &json!(["set-user-id"])));
    let end = last(&lines);
    assert_eq!((&end["outcome"], &end["in_sync"], &end["kept"]), (&json!("at"), &json!(true), &json!(0)));
    assert_eq!(end["written"][0]["from"], "store");
    assert!(end["written"][0]["bytes"].as_u64().unwrap() >= 4096 && end["recovered"].is_null());
    place.assert_records();
}

#[test]
fn kept_differences_say_who_and_what_cannot_be_is_named() {
    let (fixture, [first, second]) = releases();
    let place = Place::new(&fixture, "server");
    place.checkout(&first, Mode::Full);
    place.tree().file("d/same", "edited").mtime("d/same", 1_600_000_000, 0).file("d/new", "taken");
    place.tree().file("var/lib/dpkg/info/tool.list", "/.\n/d\n/d/same\n");
    place.checkout(&second, Mode::Incremental);
    let lines = place.record(2);
    let kept = of(&lines, "kept", "d/same");
    assert_eq!((&kept["reason"], &kept["conflict"]), (&json!("changed locally"), &json!(false)));
    let who = &kept["changed_by"];
    assert_eq!((&who["mtime"], &who["package"]["name"]), (&json!("2020-09-13T12:26:40Z"), &json!("tool")));
    assert_eq!(who["package"]["at_that_time"], true, "its list was written just now");
    let end = last(&lines);
    let kept = lines.iter().filter(|line| line["line"] == "kept").count();
    assert_eq!((&end["kept"], &end["in_sync"]), (&json!(kept), &json!(false)));
    assert_eq!(end["outcome"], format!("at, {kept} kept difference{}", if kept == 1 { "" } else { "s" }));
}

/// The list of names was gone with the undo.
#[test]
fn it_stays_when_the_undo_is_dropped() {
    let (fixture, [first, second]) = releases();
    let place = Place::new(&fixture, "server");
    for round in 0..6 {
        place.checkout(&[first, second][round % 2], Mode::Full);
    }
    let kept: Vec<bool> = place.history().iter().map(|record| record.kept).collect();
    assert_eq!(kept, [false, false, false, true, true, true]);
    assert_eq!(of(&place.record(1), "change", "d/same")["reason"], "added");
    place.assert_records();
    // As many as the configuration says, and those of what can be taken back.
    let few = |records| {
        move |options: &mut CheckoutOptions| {
            (options.mode, options.records) = (Some(Mode::Full), RecordLimits { records, ..RecordLimits::default() });
        }
    };
    let numbers = || place.history().iter().map(|record| record.number).collect::<Vec<_>>();
    place.try_checkout(&first, few(5)).unwrap();
    assert_eq!(numbers(), [3, 4, 5, 6, 7]);
    place.try_checkout(&second, few(0)).unwrap();
    assert_eq!(numbers(), [6, 7, 8]);
    place.rollback().unwrap();
    place.assert_records();
}

#[test]
fn a_rollback_has_a_record_of_its_own() {
    let (fixture, [first, second]) = releases();
    let place = Place::new(&fixture, "server");
    place.checkout(&first, Mode::Full);
    place.checkout(&second, Mode::Full);
    place.tree().file("saved", "somebody's").rename("saved", "d/changed").file("gone", "taken");
    place.rollback().unwrap();
    let lines = place.record(3);
    assert_eq!(
        (&lines[0]["what"], &lines[0]["undoes"], &lines[0]["mode"]),
        (&json!("rollback"), &json!(2), &Value::Null)
    );
    assert_eq!(of(&lines, "change", "d/changed")["reason"], "taken back");
    assert_eq!(of(&lines, "change", "d/suid")["rights"], json!(["set-user-id"]), "it has them again");
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(of(&lines, "changed-since", "d/changed")["changed_by"]["uid"], uid);
    assert_eq!(of(&lines, "changed-meanwhile", "gone")["changed_by"]["uid"], uid);
    assert_eq!(last(&lines)["outcome"], "as before, 1 left alone");
}

#[test]
fn what_was_interrupted_still_says_why() {
    let (fixture, ids) = releases();
    let place = Operation::Recover.place(&fixture, "server", &ids);
    let interrupted = place.record(2);
    assert_eq!(of(&interrupted, "change", "d/same")["reason"], "changed locally");
    assert!(interrupted.iter().all(|line| line["line"] != "end"));
    let paths = Paths { root: place.root.clone(), state: place.state.clone() };
    Operation::Recover.run(&fixture.store, &paths, &ids[1]).unwrap();
    let finished = place.record(2);
    assert_eq!(finished[..interrupted.len()], interrupted);
    assert_eq!(last(&finished)["recovered"], json!({ "asked_by": null }));
    assert_eq!(last(&finished)["outcome"], "at");
}

#[test]
fn what_was_interrupted_and_taken_back_still_says_why() {
    let (fixture, ids) = releases();
    let place = Operation::TurnAround.place(&fixture, "server", &ids);
    place.rollback().unwrap();
    let lines = place.record(2);
    assert_eq!(of(&lines, "change", "d/same")["reason"], "changed locally");
    assert_eq!((&last(&lines)["outcome"], &last(&lines)["taken_back_by"]), (&json!("taken back"), &json!(3)));
    assert_eq!(place.record(3)[0]["undoes"], 2);
    let told: Vec<_> = place.history().iter().map(|record| (record.number, record.undoes, record.undone_by)).collect();
    assert_eq!(told, [(1, None, None), (2, None, Some(3)), (3, Some(2), None)]);
    place.assert_records();
}

/// Whatever became of its record, an interrupted checkout is finished.
#[test]
fn a_damaged_record_stops_nothing() {
    let (fixture, ids) = releases();
    let place = Operation::Recover.place(&fixture, "server", &ids);
    let area = std::fs::read_dir(place.state.join("areas")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(area.join("tx/record.2"), "{\"line\"").unwrap();
    let paths = Paths { root: place.root.clone(), state: place.state.clone() };
    Operation::Recover.run(&fixture.store, &paths, &ids[1]).unwrap();
    place.assert_is(&ids[1]);
    let error = place.try_record(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

#[test]
fn no_damaged_record_is_believed() {
    let (fixture, [first, second]) = releases();
    let place = Place::new(&fixture, "server");
    place.checkout(&first, Mode::Full);
    place.checkout(&second, Mode::Full);
    for name in ["record", "end"] {
        let path = part(&place, 2, name);
        let bytes = std::fs::read(&path).unwrap();
        // Each of the first bytes, then some.
        for at in (0..bytes.len()).filter(|at| *at < 60 || at % 37 == 0) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            for bad in [&bad[..], &bytes[..at]] {
                std::fs::write(&path, bad).unwrap();
                let error = place.try_record(2).map(|lines| lines.len()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged, "{name} {at}: {error}");
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    let path = part(&place, 2, "record");
    let newer = std::fs::read_to_string(&path).unwrap().replacen("record/1", "record/2", 1);
    std::fs::write(&path, newer).unwrap();
    let error = place.try_record(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().ends_with("cannot be read by this version: it is evenkeel/record/2"), "{error}");
    // And nothing depends on it.
    place.rollback().unwrap();
    place.checkout_exactly(&second);
}

/// Names that were left alone because somebody was faster counted as changed, with what was in them.
#[test]
fn what_changed_meanwhile_is_not_counted() {
    let (fixture, [first, second]) = releases();
    let place = Place::new(&fixture, "server");
    place.checkout(&first, Mode::Full);
    let (root, acted) = (place.root.clone(), AtomicBool::new(false));
    let script = Script::new(&place.root, move |call| {
        let switches = |path: &PathBuf| path.starts_with(&root) && !path.starts_with(root.join(".evenkeel"));
        if call.name.starts_with("rename") && call.paths.iter().any(switches) && !acted.swap(true, Ordering::Relaxed) {
            for file in ["d/changed", "gone/theirs", "new"] {
                std::fs::write(root.join(file), "theirs, and faster").unwrap();
            }
        }
        Ok(())
    });
    let report = place.checkout(&second, Mode::Full);
    drop(script);
    let area = &report.areas[0];
    let left: Vec<String> = area.kept.iter().map(|kept| kept.path.to_string()).collect();
    for path in ["d/changed", "gone", "new"] {
        assert!(left.iter().any(|left| left == path), "{left:?}");
    }
    for path in ["d/changed", "gone", "gone/f", "new", "new/deep", "new/deep/f"] {
        assert!(area.changes.iter().all(|change| change.path.to_string() != path), "{path}");
    }
    let counts = &area.counts;
    let counted = counts.added + counts.updated + counts.restored + counts.removed + counts.strays_removed;
    assert_eq!(counted, area.changes.len() as u64);
    let lines = place.record(2);
    let end = last(&lines);
    assert_eq!((&end["changes"], &end["counts"]["added"]), (&json!(area.changes.len()), &json!(counts.added)));
    assert_eq!(
        (&end["counts"]["updated"], &end["counts"]["removed"]),
        (&json!(counts.updated), &json!(counts.removed))
    );
    place.assert_records();
}
