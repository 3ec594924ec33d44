// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Modes, refusals and memory of checkouts.

use evenkeel_store::checkout::{Adopt, Ceiling, ConflictPolicy, ConflictRule, Mode, SwitchMode};
use evenkeel_store::fsio::script::Script;
use evenkeel_store::{Error, ErrorKind};
use evenkeel_tests::fixture::{Fixture, settle};
use evenkeel_tests::operation::EIO;
use evenkeel_tests::place::{Place, summary};
use evenkeel_tests::{Tree, read_tree};

/// Two snapshots: `f` changes, `gone` goes, `new` comes.
fn two_releases(fixture: &Fixture) -> [evenkeel_store::id::SnapshotId; 2] {
    fixture.tree.file("f", "one").file("same", "same").file("gone/x", "x").dir("d");
    let first = fixture.commit_new();
    fixture.tree.file("f", "two!").remove("gone").file("new/y", "y");
    [first, fixture.commit_new()]
}

#[test]
fn an_empty_directory_becomes_a_snapshot() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let id = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    let report = place.try_checkout(&id, |_| {}).unwrap();
    assert_eq!(report.areas[0].mode, Mode::Full, "the default for an empty directory");
    place.checkout_exactly(&id);
    assert!(read_tree(&place.root).len() > 15);
}

#[test]
fn incremental_leaves_full_removes() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.tree().file("stray/s", "s");
    let report = place.try_checkout(&second, |_| {}).unwrap();
    assert_eq!(report.areas[0].mode, Mode::Incremental, "the default onto an ancestor");
    assert_eq!(summary(&report), ["replace f", "add new", "add new/y"]);
    let area = &report.areas[0];
    assert_eq!((area.strays, area.dropped_delivered, report.in_sync), (2, 2, true));
    assert_eq!(place.status().areas[0].dropped_delivered, 2);
    assert_eq!(place.drift(), ["stray: stray", "stray/s: stray"]);
    assert!(place.root.join("gone/x").exists());
    let report = place.checkout_exactly(&second);
    assert_eq!(summary(&report), ["remove gone", "remove gone/x", "remove stray", "remove stray/s"]);
    assert_eq!((report.areas[0].counts.removed, report.areas[0].counts.strays_removed), (2, 2));
    // And back, which is no ancestor and so must be said.
    let refused = place.try_checkout(&first, |_| {}).unwrap_err();
    assert!(matches!(&refused, Error::Refused { hint: Some(hint), .. } if hint.contains("--full")), "{refused}");
    place.checkout_exactly(&first);
}

#[test]
fn local_changes_are_kept_reported_and_restored() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.tree().file("same", "edited").mode("d", 0o700).remove("gone/x").file("f", "mine");
    settle();
    assert_eq!(place.drift(), ["d: metadata", "f: content", "gone/x: missing", "same: content"]);
    assert!(!place.status().in_sync());
    let report = place.checkout(&first, Mode::Incremental);
    assert_eq!(summary(&report), ["add gone/x", "keep d", "keep f", "keep same"]);
    assert!(!report.in_sync);
    // `f` changed on both sides, the others only here.
    let report = place.checkout(&second, Mode::Incremental);
    assert_eq!(summary(&report), ["replace f", "add new", "add new/y", "keep d", "keep same"]);
    assert_eq!(place.drift(), ["d: metadata", "same: content"]);
    let report = place.checkout(&second, Mode::Incremental);
    assert_eq!(summary(&report), ["keep d", "keep same"], "kept differences stay reported");
    let report = place.checkout_exactly(&second);
    assert_eq!(summary(&report), ["metadata d", "remove gone", "remove gone/x", "replace same"]);
}

#[test]
fn conflict_policies() {
    for (policy, expected, content) in [
        (ConflictPolicy::Replace, "replace f", "two!"),
        (ConflictPolicy::Keep, "keep f", "mine"),
        (ConflictPolicy::Newer, "keep f", "mine"),
        (ConflictPolicy::Both, "replace f", "two!"),
    ] {
        let fixture = Fixture::new();
        let [first, second] = two_releases(&fixture);
        let place = Place::new(&fixture, "server");
        place.checkout_exactly(&first);
        place.tree().file("f", "mine");
        let report = place.try_checkout(&second, |options| options.areas[0].conflict = policy).unwrap();
        assert!(summary(&report).contains(&expected.to_string()), "{policy:?}: {:?}", summary(&report));
        assert_eq!(std::fs::read_to_string(place.root.join("f")).unwrap(), content, "{policy:?}");
        let aside = std::fs::read_to_string(place.root.join("f.evenkeel-local")).ok();
        assert_eq!(aside.as_deref(), (policy == ConflictPolicy::Both).then_some("mine"));
    }
}

/// Each file has its own policy, in one checkout.
#[test]
fn conflict_policies_by_path() {
    let fixture = Fixture::new();
    let names = ["keep.d/f", "newer.d/f", "both.d/f", "f"];
    for name in names {
        fixture.tree.file(name, "one");
    }
    let first = fixture.commit_new();
    for name in names {
        fixture.tree.file(name, "two!");
    }
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    for name in names {
        place.tree().file(name, "mine");
    }
    let rule = |pattern: &str, policy| ConflictRule { patterns: vec![pattern.into()], policy };
    let report = place
        .try_checkout(&second, |options| {
            options.areas[0].conflict_rules = vec![
                rule("*.d/", ConflictPolicy::Keep),
                rule("/newer.d/", ConflictPolicy::Newer),
                rule("/both.d/", ConflictPolicy::Both),
            ];
        })
        .unwrap();
    assert_eq!(summary(&report), ["replace both.d/f", "replace f", "keep keep.d/f", "keep newer.d/f"]);
    let content = |name: &str| std::fs::read_to_string(place.root.join(name)).unwrap();
    assert_eq!(["both.d/f", "both.d/f.evenkeel-local", "f", "keep.d/f"].map(content), ["two!", "mine", "two!", "mine"]);
}

#[test]
fn force_finds_what_left_no_trace() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "content");
    let id = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&id);
    // The record says that the inode as it is now is what was delivered; only reading tells.
    place.tree().file("f", "c0ntent");
    let stat = read_tree(&place.root)[&b"f"[..]].clone();
    assert_eq!(place.verify().areas[0].drift.len(), 1);
    let report = place.checkout(&id, Mode::Force);
    assert_eq!(summary(&report), ["replace f"]);
    assert_ne!(read_tree(&place.root)[&b"f"[..]], stat);
    assert_eq!(report.areas[0].counts.unproven, 1, "the root was compared too");
}

#[test]
fn a_dry_run_changes_nothing() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    let report = place.try_checkout(&first, |options| options.dry_run = true).unwrap();
    assert_eq!((report.planned_only, report.in_sync, report.areas[0].changes.len()), (true, false, 6));
    assert!(!place.root.exists() && !place.state.exists());
    place.checkout_exactly(&first);
    let before = read_tree(&place.root);
    let report =
        place.try_checkout(&second, |options| (options.dry_run, options.mode) = (true, Some(Mode::Full))).unwrap();
    assert_eq!(summary(&report), ["replace f", "remove gone", "remove gone/x", "add new", "add new/y"]);
    assert_eq!(read_tree(&place.root), before);
}

#[test]
fn adoption_must_be_said() {
    let fixture = Fixture::new();
    let [first, _] = two_releases(&fixture);
    for (adopt, kept, content) in [(Adopt::Replace, vec![], "one"), (Adopt::Keep, vec!["keep f"], "mine")] {
        let place = Place::new(&fixture, &format!("server-{adopt:?}"));
        place.tree().file("f", "mine").file("stray", "s");
        std::fs::copy(fixture.tree.path("same"), place.root.join("same")).unwrap();
        let mtime = std::fs::metadata(fixture.tree.path("same")).unwrap();
        use std::os::unix::fs::MetadataExt;
        place.tree().mtime("same", mtime.mtime(), u32::try_from(mtime.mtime_nsec()).unwrap());
        let report = place.try_checkout(&first, |_| {}).unwrap();
        assert!(report.needs_adopt() && report.planned_only);
        assert!(report.areas[0].counts.adopted >= 1, "equal files are found");
        assert_eq!(std::fs::read_to_string(place.root.join("f")).unwrap(), "mine");
        let report = place.try_checkout(&first, |options| options.adopt = Some(adopt)).unwrap();
        assert!(!report.planned_only);
        assert_eq!(summary(&report).iter().filter(|line| line.starts_with("keep f")).collect::<Vec<_>>(), kept);
        assert_eq!(std::fs::read_to_string(place.root.join("f")).unwrap(), content);
        assert!(place.root.join("stray").exists(), "nothing is deleted");
        place.checkout_exactly(&first);
        assert!(!place.root.join("stray").exists());
    }
}

#[test]
fn ceilings_stop_everything() {
    let fixture = Fixture::new();
    let [first, _] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.tree().file("same", "edited");
    for number in 0..21 {
        place.tree().file(format!("stray{number:02}"), "s");
    }
    let before = read_tree(&place.root);
    let refused = place.try_checkout(&first, |options| options.mode = Some(Mode::Full)).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("21 paths") && text.contains("stray00") && text.contains("1 more"), "{text}");
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert_eq!(read_tree(&place.root), before, "nothing at all was done");
    let tight = place.try_checkout(&first, |options| {
        (options.mode, options.max_delete) = (Some(Mode::Full), Ceiling::Count(20));
    });
    assert!(tight.is_err());
    let report = place.try_checkout(&first, |options| {
        (options.mode, options.max_delete) = (Some(Mode::Full), Ceiling::Count(21));
    });
    assert_eq!(report.unwrap().areas[0].counts.strays_removed, 21);
    place.assert_is(&first);
}

#[test]
fn release_removals_have_a_ceiling_of_their_own() {
    let fixture = Fixture::new();
    for number in 0..120 {
        fixture.tree.file(format!("f{number:03}"), "x");
    }
    let first = fixture.commit_new();
    for number in 0..110 {
        fixture.tree.remove(format!("f{number:03}"));
    }
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let refused = place.try_checkout(&second, |options| options.mode = Some(Mode::Full)).unwrap_err().to_string();
    assert!(refused.contains("110 paths that the reference no longer has"), "{refused}");
    let report = place.try_checkout(&second, |options| {
        (options.mode, options.max_removals) = (Some(Mode::Full), Ceiling::Percent(10_000));
    });
    assert_eq!(report.unwrap().areas[0].counts.removed, 110);
    place.assert_is(&second);
}

#[test]
fn an_empty_reference_must_be_meant() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "x");
    let first = fixture.commit_new();
    fixture.tree.remove("f");
    let empty = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let refused = place.try_checkout(&empty, |options| options.mode = Some(Mode::Full)).unwrap_err();
    assert!(refused.to_string().contains("is empty"), "{refused}");
    place.try_checkout(&empty, |options| (options.mode, options.allow_empty) = (Some(Mode::Full), true)).unwrap();
    place.assert_is(&empty);
}

#[test]
fn excluded_paths_are_never_touched() {
    let fixture = Fixture::new();
    fixture.tree.file("d/f", "one").file("d/log", "master").file("e/f", "one");
    let first = fixture.commit_new();
    fixture.tree.remove("d").file("d", "now a file").remove("e");
    let second = fixture.commit_new();
    let mut place = Place::new(&fixture, "server");
    place.exclude = vec!["log".into(), "/cache/".into()];
    place.checkout(&first, Mode::Full);
    assert!(!place.root.join("d/log").exists(), "an excluded entry is not delivered");
    place.tree().file("d/log", "mine").file("cache/x", "x").file("e/log", "mine").mode("d/log", 0o640);
    assert_eq!(place.drift(), [""; 0]);
    let before = read_tree(&place.root);
    let report = place.checkout(&second, Mode::Full);
    assert_eq!(summary(&report), ["remove d/f", "remove e/f", "keep d"]);
    let after = read_tree(&place.root);
    for path in [&b"d/log"[..], b"cache", b"cache/x", b"e/log"] {
        assert_eq!(after[path], before[path], "{}", path.escape_ascii());
    }
    let again = place.checkout(&second, Mode::Full);
    assert_eq!(summary(&again), ["keep d"]);
}

#[test]
fn type_changes_both_ways() {
    let shapes: [fn(&Tree); 5] = [
        |tree| _ = tree.file("p", "file"),
        |tree| _ = tree.dir("p"),
        |tree| _ = tree.file("p/x/y", "deep").file("p/z", "z"),
        |tree| _ = tree.symlink("p", "elsewhere"),
        |tree| _ = tree.fifo("p"),
    ];
    let fixture = Fixture::new();
    let mut ids = Vec::new();
    for shape in shapes {
        fixture.tree.file("other", format!("{}", ids.len()));
        shape(&fixture.tree);
        ids.push(fixture.commit_new());
        fixture.tree.remove("p");
    }
    for (from, first) in ids.iter().enumerate() {
        for (to, second) in ids.iter().enumerate() {
            let place = Place::new(&fixture, &format!("server-{from}-{to}"));
            place.checkout_exactly(first);
            let report = place.checkout(second, Mode::Incremental);
            // Only a directory that is not empty stands in the way.
            let kept = from == 2 && !(1..=2).contains(&to);
            assert_eq!(report.areas[0].kept.len(), usize::from(kept), "{from} → {to}: {:?}", summary(&report));
            assert_eq!(report.areas[0].conflicts, u64::from(kept));
            place.checkout_exactly(second);
        }
    }
}

#[test]
fn a_symlink_at_the_place_of_a_directory_is_not_followed() {
    let fixture = Fixture::new();
    fixture.tree.file("d/f", "one").file("d/g", "one");
    let first = fixture.commit_new();
    fixture.tree.file("d/f", "two!");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let outside = Tree::new(fixture.dir().join("outside"));
    outside.file("f", "secret").file("h", "secret");
    let before = read_tree(outside.root());
    place.tree().remove("d").symlink("d", outside.root().to_str().unwrap());
    let report = place.checkout(&second, Mode::Incremental);
    assert_eq!(summary(&report), ["keep d"]);
    assert_eq!(report.areas[0].counts.blocked, 2);
    assert_eq!(place.drift(), ["d: type"]);
    place.checkout_exactly(&second);
    assert_eq!(read_tree(outside.root()), before);
}

#[test]
fn hard_links_follow_the_reference() {
    let fixture = Fixture::new();
    fixture.tree.file("a", "shared").link("a", "b").file("sub/x", "x").link("a", "sub/c").file("z", "z");
    let joined = fixture.commit_new();
    fixture.tree.remove("b").file("b", "shared").link("z", "sub/z");
    let apart = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    for id in [joined, apart, joined] {
        place.checkout_exactly(&id);
    }
    // Split here: joined again in both modes.
    for mode in [Mode::Incremental, Mode::Full] {
        let copy = place.root.join("copy");
        std::fs::copy(place.root.join("b"), &copy).unwrap();
        use std::os::unix::fs::MetadataExt;
        let time = std::fs::metadata(place.root.join("b")).unwrap();
        place.tree().mtime("copy", time.mtime(), u32::try_from(time.mtime_nsec()).unwrap()).rename("copy", "b");
        assert_eq!(place.drift(), ["b: metadata"]);
        let report = place.checkout(&joined, mode);
        assert_eq!(summary(&report), ["link b"]);
        place.assert_is(&joined);
    }
    // New content for a whole group comes once.
    fixture.tree.remove("b").file("a", "new content").link("a", "b");
    let changed = fixture.commit_new();
    place.checkout(&changed, Mode::Incremental);
    assert_eq!(place.checkout(&changed, Mode::Incremental).areas[0].changes, []);
    place.checkout_exactly(&changed);
}

#[test]
fn lost_state_is_rebuilt_and_a_lost_marker_is_refused() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.tree().file("same", "edited");
    std::fs::remove_dir_all(&place.state).unwrap();
    let report = place.try_checkout(&second, |_| {}).unwrap();
    assert_eq!(report.areas[0].before, Some(first), "the marker and the store know");
    assert_eq!(summary(&report), ["replace f", "add new", "add new/y", "keep same"]);
    assert_eq!(report.areas[0].dropped_delivered, 2);
    std::fs::remove_dir_all(place.root.join(".evenkeel")).unwrap();
    let refused = place.try_checkout(&second, |_| {}).unwrap_err();
    assert!(matches!(&refused, Error::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("marker"), "{refused}");
}

#[test]
fn a_damaged_memory_is_rebuilt() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let areas = place.state.join("areas");
    let area = std::fs::read_dir(areas).unwrap().next().unwrap().unwrap().path();
    std::fs::write(area.join("applied"), b"damaged").unwrap();
    let report = place.try_checkout(&second, |_| {}).unwrap();
    assert_eq!(summary(&report), ["replace f", "add new", "add new/y"]);
    place.checkout_exactly(&second);
}

#[test]
fn an_interrupted_switch_is_seen_and_finished() {
    let fixture = Fixture::new();
    let [first, second] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    // As if the process had died in the middle: the marker speaks of a transaction, one path is switched.
    let marker = place.root.join(".evenkeel/marker");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replace("transaction -", &format!("transaction {second}"))).unwrap();
    place.tree().file("new/y", "y").file(".evenkeel/staging/0", "garbage");
    std::fs::copy(fixture.tree.path("f"), place.root.join("f.tmp")).unwrap();
    place.tree().rename("f.tmp", "f");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(place.root.join(".evenkeel/staging"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let status = place.status();
    assert_eq!((status.areas[0].applied, status.areas[0].interrupted), (Some(first), Some(second)));
    assert!(!status.in_sync());
    place.checkout_exactly(&second);
    assert_eq!(place.status().areas[0].interrupted, None);
}

#[test]
fn one_checkout_an_area() {
    let fixture = Fixture::new();
    let [first, _] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let lock = std::fs::File::open(place.root.join(".evenkeel/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let refused = place.try_checkout(&first, |_| {}).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
}

#[test]
fn refusals_name_what_is_wrong() {
    let fixture = Fixture::new();
    let [first, _] = two_releases(&fixture);
    let place = Place::new(&fixture, "server");
    let unknown = place.try_checkout(&first, |options| options.areas[0].name = "other".into()).unwrap_err();
    assert!(matches!(unknown, Error::UnknownArea { .. }), "{unknown}");
    std::fs::write(fixture.dir().join("file"), "x").unwrap();
    let not_dir = Place::new(&fixture, "file").try_checkout(&first, |_| {}).unwrap_err();
    assert!(not_dir.to_string().contains("not a directory"), "{not_dir}");
    let no_parent = Place::new(&fixture, "no/such/parent").try_checkout(&first, |_| {}).unwrap_err();
    assert!(no_parent.to_string().contains("does not exist"), "{no_parent}");
    let nested = place.try_checkout(&first, |options| {
        let mut inner = options.areas[0].clone();
        inner.root = inner.root.join("d");
        options.areas.push(inner);
    });
    assert!(nested.is_err());
    let pattern = place.try_checkout(&first, |options| options.areas[0].exclude = vec!["a[".into()]).unwrap_err();
    assert!(pattern.to_string().contains("`a[`"), "{pattern}");
    place.checkout_exactly(&first);
}

#[test]
fn damage_in_the_store_is_found_before_anything_changes() {
    let fixture = Fixture::small();
    let [first, _] = two_releases(&fixture);
    fixture.tree.file("big", evenkeel_tests::noise(5, 100_000));
    let damaged = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let before = read_tree(&place.root);
    // The last byte of data before the footer of the biggest pack.
    let packs = fixture.objects();
    let (name, _) =
        packs.iter().filter(|(name, _)| name.ends_with(".pack")).max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let path = fixture.store.path().join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = place.try_checkout(&damaged, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(read_tree(&place.root), before);
    assert_eq!(place.private_names(), ["lock", "marker"]);
    assert!(place.status().in_sync());
}

/// A root that was made for a checkout that failed before it had changed anything stayed there, empty.
#[test]
fn a_first_checkout_that_does_not_begin_leaves_nothing() {
    let fixture = Fixture::in_memory();
    fixture.tree.file("d/f", "f");
    let id = fixture.commit_new();
    for switch in [SwitchMode::Files, SwitchMode::Tree] {
        let mut begun = 0;
        for failing in (1..40).chain((40..).step_by(5)) {
            let parent = fixture.dir().join(format!("{switch:?}-{failing}"));
            std::fs::create_dir(&parent).unwrap();
            let place = Place::new(&fixture, &format!("{switch:?}-{failing}/server"));
            let script = Script::new(&parent, move |call| if call.number == failing { Err(EIO) } else { Ok(()) });
            let done = place.try_checkout(&id, |options| (options.switch, options.threads) = (switch, 1));
            if script.calls() < failing || begun == 3 {
                break;
            }
            drop(script);
            if done.is_err() && place.root.exists() {
                let areas = std::fs::read_dir(place.state.join("areas")).into_iter().flatten();
                let has_journal = areas.flatten().any(|area| area.path().join("tx/journal").exists());
                assert!(has_journal, "{switch:?} {failing}: nothing was begun, and {done:?} left a root");
                begun += 1;
            }
        }
        assert!(begun > 0, "{switch:?}");
    }
}
