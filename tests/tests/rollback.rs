// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Going back: after a rollback everything is as it was before the checkout, local changes included.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use evenkeel_store::Progress;
use evenkeel_store::checkout::{
    Adopt, AreaTarget, BackOptions, CheckoutOptions, ConflictPolicy, Mode, Record, SwitchMode, history, recover,
    rollback, undo,
};
use evenkeel_store::fsio::script::Script;
use evenkeel_store::id::SnapshotId;
use evenkeel_tests::fixture::{Fixture, assert_same};
use evenkeel_tests::operation::Operation;
use evenkeel_tests::place::Place;
use evenkeel_tests::{noise, read_tree};

/// Two releases with every kind of change between them.
fn releases(fixture: &Fixture) -> [SnapshotId; 2] {
    let tree = &fixture.tree;
    tree.file("same", "same").file("content", "one").file("mode", "m").mode("mode", 0o600).file("gone/deep/x", "x");
    tree.file("was-dir/x/y", "y").symlink("was-link", "same").file("was-file", "f").fifo("was-fifo");
    tree.file("l1", "linked").link("l1", "l2").link("l1", "l3").file("d/f", "f").mode("d", 0o700);
    tree.sparse("sparse", 1 << 20, &[(4096, b"x")]).xattr("mode", "user.k", b"v").dir("empty");
    let first = fixture.commit_new();
    tree.file("content", "two!").mode("mode", 0o644).xattr("mode", "user.k", b"other").remove("gone").mode("d", 0o755);
    tree.remove("was-dir").file("was-dir", "file").remove("was-link").file("was-link/a", "a");
    tree.remove("was-file").symlink("was-file", "same").remove("was-fifo").file("was-fifo", "f");
    tree.remove("l2").file("l2", "own").file("new/deep/n", noise(1, 70_000)).file("d/g", "g").remove("empty");
    let second = fixture.commit_new();
    [first, second]
}

#[test]
fn everything_is_as_it_was() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    // What was changed here before the checkout comes back, too.
    place.tree().file("content", "edited").file("stray/s", "stray").mode("same", 0o640).remove("d/f");
    place.tree().mtime("content", 1_600_000_000, 7).mtime("stray", 5, 5).mtime("", 6, 6);
    for mode in [Mode::Incremental, Mode::Full, Mode::Force] {
        let before = read_tree(&place.root);
        let drift = place.drift();
        place.checkout(&second, mode);
        let done = place.rollback().unwrap();
        assert_same(&read_tree(&place.root), &before);
        assert_eq!((done.before, done.after), (Some(second), Some(first)));
        assert_eq!((done.left_alone.len(), done.was_interrupted), (0, false));
        assert_eq!(place.drift(), drift, "what is known of it came back with it");
        assert_eq!(place.status().areas[0].applied, Some(first));
    }
    // And it goes on from there.
    place.checkout_exactly(&second);
    place.checkout_exactly(&first);
}

#[test]
fn twice_goes_back_two_checkouts() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.tree().file("mine", "was here first").file("content", "so was this").mtime("", 3, 3);
    let before = read_tree(&place.root);
    let adopt = place.try_checkout(&first, |options| options.adopt = Some(Adopt::Replace));
    adopt.unwrap();
    let at_first = read_tree(&place.root);
    place.checkout(&second, Mode::Full);
    assert_eq!(place.rollback().unwrap().after, Some(first));
    assert_same(&read_tree(&place.root), &at_first);
    let done = place.rollback().unwrap();
    assert_eq!((done.before, done.after), (Some(first), None));
    let mut now = read_tree(&place.root);
    // The root has got `.evenkeel`, and with it another time.
    now.insert(Vec::new(), before[&b""[..]].clone());
    assert_same(&now, &before);
    let refused = place.rollback().unwrap_err().to_string();
    assert!(refused.contains("no checkout that could be taken back"), "{refused}");
    let told = |record: &Record| (record.number, record.before, record.after, record.undoes, record.undone_by);
    assert_eq!(
        place.history().iter().map(told).collect::<Vec<_>>(),
        [
            (1, None, Some(first), None, Some(4)),
            (2, Some(first), Some(second), None, Some(3)),
            (3, Some(second), Some(first), Some(2), None),
            (4, Some(first), None, Some(1), None),
        ]
    );
    // It is a tree that nobody knows again.
    assert!(place.try_checkout(&first, |_| {}).unwrap().needs_adopt());
}

#[test]
fn undo_goes_back_to_before_a_number_as_long_as_it_is_kept() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let before = read_tree(&place.root);
    for id in [second, first, second] {
        place.checkout(&id, Mode::Full);
    }
    // The first of four is dropped, its record stays.
    let kept: Vec<bool> = place.history().iter().map(|record| record.kept).collect();
    assert_eq!(kept, [false, true, true, true]);
    let refused = place.undo(1).unwrap_err().to_string();
    assert!(
        refused.contains("number 1 of area `tree` cannot be taken back: what gave way in it was dropped"),
        "{refused}"
    );
    let done = place.undo(2).unwrap();
    assert_eq!(done.iter().map(|one| one.undone).collect::<Vec<_>>(), [4, 3, 2]);
    assert_same(&read_tree(&place.root), &before);
    assert_eq!(place.status().areas[0].applied, Some(first));
    for (number, why) in [(99, "there is none"), (3, "number 6 did that already"), (6, "it is the rollback of 3")] {
        let refused = place.undo(number).unwrap_err().to_string();
        assert!(refused.ends_with(why), "{refused}");
    }
    place.checkout_exactly(&second);
}

/// Somebody made room: a rollback took back what it could, and said that all was well.
#[test]
fn without_its_undo_a_checkout_is_not_taken_back_by_halves() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout(&second, Mode::Full);
    let before = read_tree(&place.root);
    std::fs::remove_dir_all(place.root.join(".evenkeel/undo/2")).unwrap();
    let refused = place.rollback().unwrap_err().to_string();
    assert!(refused.contains("what gave way in number 2 is not there any more"), "{refused}");
    assert_same(&read_tree(&place.root), &before);
    // A journal that is damaged ends no checkout.
    let areas = std::fs::read_dir(place.state.join("areas")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(areas.join("records/2/journal"), "damaged").unwrap();
    place.checkout_exactly(&first);
    place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &before);
    assert!(place.rollback().unwrap_err().to_string().contains("cannot be understood"));
}

#[test]
fn a_local_version_that_stayed_aside_has_its_name_again() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.tree().file("content", "mine").mtime("content", 9, 9);
    let before = read_tree(&place.root);
    place.try_checkout(&second, |options| options.areas[0].conflict = ConflictPolicy::Both).unwrap();
    assert!(place.root.join("content.evenkeel-local").exists());
    place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &before);
}

#[test]
fn what_changed_since_is_kept() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout(&second, Mode::Full);
    // Another file under the name, and a name that is somebody's now.
    place.tree().file("saved", "somebody's").rename("saved", "content").file("gone/mine", "mine").remove("was-file");
    let done = place.rollback().unwrap();
    assert_eq!(
        (text(&done.changed_since), text(&done.removed_since)),
        (vec!["content".into()], vec!["was-file".into()])
    );
    assert_eq!(text(&done.left_alone), ["gone"]);
    assert_eq!(std::fs::read(place.root.join("content")).unwrap(), b"one");
    assert_eq!(std::fs::read(place.root.join("gone/mine")).unwrap(), b"mine");
    assert_eq!(std::fs::read(place.root.join("was-dir/x/y")).unwrap(), b"y");
    let undo = read_tree(&place.root.join(".evenkeel/undo").join(done.number.to_string()));
    let kept = undo.keys().filter(|path| {
        let path =
            place.root.join(".evenkeel/undo").join(done.number.to_string()).join(std::str::from_utf8(path).unwrap());
        std::fs::read(path).is_ok_and(|content| content == b"somebody's")
    });
    assert_eq!(kept.count(), 1, "what was there is kept");
}

/// A set-id program that gave way is one no more, whoever holds it; going back makes it one again.
#[test]
#[ignore = "root: set-id programs of others, capabilities"]
fn root_rights_are_taken_and_given_back() {
    let fixture = Fixture::small();
    let tree = &fixture.tree;
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for dir in ["", "going/", "held/"] {
        tree.file(format!("{dir}suid"), "s").owner(format!("{dir}suid"), 1, 2).mode(format!("{dir}suid"), 0o6755);
        tree.file(format!("{dir}ping"), "p").mode(format!("{dir}ping"), 0o755);
        tree.xattr(format!("{dir}ping"), "security.capability", &capability);
    }
    let first = fixture.commit_new();
    tree.remove("suid").file("suid", "new").remove("ping").file("ping", "new").remove("going");
    tree.remove("held/suid").file("held/suid", "new").remove("held/ping").file("held/ping", "new");
    tree.file("later/ping", "p").mode("later/ping", 0o755).xattr("later/ping", "security.capability", &capability);
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let before = read_tree(&place.root);
    let kept = fixture.dir().join("kept");
    std::fs::create_dir(&kept).unwrap();
    for name in ["suid", "ping"] {
        std::fs::hard_link(place.root.join("held").join(name), kept.join(name)).unwrap();
    }
    place.checkout(&second, Mode::Full);
    let rights = |path: &std::path::Path| {
        let capabilities = read_tree(path.parent().unwrap())[path.file_name().unwrap().as_encoded_bytes()].xattrs.len();
        (std::fs::metadata(path).unwrap().mode() & 0o7777, capabilities)
    };
    assert_eq!((rights(&kept.join("suid")), rights(&kept.join("ping"))), ((0o755, 0), (0o755, 0)));
    let displaced_have_none = || {
        let mut displaced = vec![place.root.join(".evenkeel/undo")];
        while let Some(path) = displaced.pop() {
            if path.is_dir() {
                displaced.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                assert_eq!((rights(&path).0 & 0o6000, rights(&path).1), (0, 0), "{}", path.display());
            }
        }
    };
    displaced_have_none();
    place.rollback().unwrap();
    displaced_have_none();
    assert_same(&read_tree(&place.root), &before);
    assert_eq!((rights(&kept.join("suid")), rights(&kept.join("ping"))), ((0o755, 0), (0o755, 0)), "nobody's any more");
}

fn text(paths: &[evenkeel_store::path::TreePath]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

/// It went away with the directory that the checkout had brought.
#[test]
fn what_somebody_put_into_a_new_directory_stays() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "f");
    let first = fixture.commit_new();
    fixture.tree.file("new/deep/x", "x").file("new/deep/er/x", "x").file("new/y", "y").file("new/z/z", "z");
    fixture.tree.remove("f").file("f/z", "z");
    let second = fixture.commit_new();
    let mut place = Place::new(&fixture, "server");
    place.exclude = vec!["cache/".into()];
    place.checkout_exactly(&first);
    let untouched = read_tree(&place.root);
    place.checkout_exactly(&second);
    let done = place.rollback().unwrap();
    assert_eq!((done.changed_since.len(), done.left_alone.len()), (0, 0));
    assert_same(&read_tree(&place.root), &untouched);

    place.checkout_exactly(&second);
    place.tree().file("new/deep/theirs/a", "t").file("new/cache/db", "rows").file("new/y", "edited");
    place.tree().remove("new/z/z").symlink("new/z/z", "theirs");
    let done = place.rollback().unwrap();
    assert_eq!(text(&done.left_alone), ["new/cache", "new/deep/theirs", "new/z/z"]);
    assert_eq!(text(&done.changed_since), ["new/y"]);
    let here = read_tree(&place.root);
    let added: Vec<String> = here
        .keys()
        .filter(|path| !untouched.contains_key(*path))
        .map(|path| String::from_utf8(path.clone()).unwrap())
        .collect();
    let stayed =
        ["new", "new/cache", "new/cache/db", "new/deep", "new/deep/theirs", "new/deep/theirs/a", "new/z", "new/z/z"];
    assert_eq!(added, stayed);
    assert_eq!(std::fs::read(place.root.join("new/cache/db")).unwrap(), b"rows");
    let undo = place.root.join(".evenkeel/undo").join(done.number.to_string());
    assert!(contents(&undo).contains(&b"edited".to_vec()), "what was changed is kept");
    // The next checkout finds everything as it expects it, and brings none of it into danger.
    place.checkout(&second, Mode::Incremental);
    assert!(place.verify().in_sync());
    place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &here);
}

/// Every regular file's content below a directory.
fn contents(dir: &std::path::Path) -> Vec<Vec<u8>> {
    let inside = |entry: std::fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => contents(&entry.path()),
        kind if kind.is_file() => vec![std::fs::read(entry.path()).unwrap()],
        _ => Vec::new(),
    };
    std::fs::read_dir(dir).unwrap().flat_map(|entry| inside(entry.unwrap())).collect()
}

/// A directory that holds somebody's files is not moved away for the file that was there before.
#[test]
fn a_directory_that_somebody_uses_keeps_its_name() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "f").file("g", "g");
    let first = fixture.commit_new();
    fixture.tree.remove("f").file("f/z", "z").remove("g").file("g/z", "z");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout_exactly(&second);
    place.tree().file("f/theirs/a", "a").file("g/z", "edited");
    let done = place.rollback().unwrap();
    assert_eq!((text(&done.left_alone), text(&done.changed_since)), (vec!["f/theirs".into()], vec!["g/z".into()]));
    assert_eq!(std::fs::read(place.root.join("f/theirs/a")).unwrap(), b"a");
    assert_eq!(std::fs::read(place.root.join("f/z")).unwrap(), b"z");
    assert_eq!(std::fs::read(place.root.join("g")).unwrap(), b"g");
    let undo = place.root.join(".evenkeel/undo").join(done.number.to_string());
    assert!(contents(&undo).contains(&b"f".to_vec()), "what could not come back is kept");
}

/// An edit in place, another mode, an inode number that is used again: all of it went to undo unsaid.
#[test]
fn every_change_since_is_named() {
    let fixture = Fixture::new();
    let tree = &fixture.tree;
    tree.file("edited", "one").file("mode", "one").file("same", "one").file("meta", "m").mode("meta", 0o600);
    let first = fixture.commit_new();
    for name in ["edited", "mode", "same"] {
        tree.file(name, "two!");
    }
    tree.file("new", "n").file("new-mode", "n").file("new-other", "n").file("new-dir", "n").file("new-same", "n");
    tree.mode("meta", 0o644).mtime("meta", 1_500_000_000, 0);
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout_exactly(&second);
    for name in ["edited", "new", "meta"] {
        let mut file = std::fs::OpenOptions::new().append(true).open(place.root.join(name)).unwrap();
        std::io::Write::write_all(&mut file, b"+").unwrap();
    }
    place.tree().mode("mode", 0o600).mode("new-mode", 0o600);
    // On many file systems these have the numbers of what was there.
    place.tree().remove("new-other").file("new-other", "n").remove("new-dir").file("new-dir/theirs", "t");
    let edited = std::fs::metadata(place.root.join("meta")).unwrap();
    let done = place.rollback().unwrap();
    assert_eq!(text(&done.changed_since), ["edited", "mode", "new", "new-mode"]);
    assert_eq!(text(&done.left_alone), ["meta", "new-dir", "new-other"]);
    let meta = std::fs::metadata(place.root.join("meta")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.modified().unwrap()), (0o600, edited.modified().unwrap()));
    assert!(place.root.join("new-dir/theirs").exists() && place.root.join("new-other").exists());
    assert!(!place.root.join("new-same").exists() && !place.root.join("new").exists());
    // What is told is in the record, too.
    let lines = place.record(done.number);
    let changes = lines.iter().filter(|line| line["line"] == "change").count();
    assert_eq!(changes as u64, done.changes);
    assert_eq!(lines.iter().filter(|line| line["line"] == "changed-meanwhile").count(), 3);
}

/// What an earlier rollback has touched is not changed by somebody.
#[test]
fn a_second_rollback_names_nothing_of_the_first() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    fixture.tree.file("content", "three").mode("was-file", 0o777).file("new/deep/m", "m").mode("mode", 0o604);
    let third = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    for id in [first, second, third] {
        place.checkout_exactly(&id);
    }
    for _ in 0..3 {
        let done = place.rollback().unwrap();
        assert_eq!((text(&done.changed_since), text(&done.left_alone)), (Vec::<String>::new(), Vec::<String>::new()));
    }
}

/// Part of what gave way was removed by hand; the rollback left it out and said that all was well.
#[test]
fn what_is_not_kept_any_more_is_told() {
    let fixture = Fixture::new();
    fixture.tree.file("a", "1").file("gone/x", "x").file("gone/y", "y");
    let first = fixture.commit_new();
    fixture.tree.file("a", "two").remove("gone");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout_exactly(&second);
    let undo = place.root.join(".evenkeel/undo/2");
    let file =
        std::fs::read_dir(&undo).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_file()).unwrap();
    let dir = std::fs::read_dir(&undo).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    std::fs::rename(&file, place.root.join("kept")).unwrap();
    let refused = place.rollback().unwrap_err().to_string();
    assert!(refused.contains("what gave way in number 2 is not there any more: a"), "{refused}");
    assert_eq!(place.status().areas[0].applied, Some(second));
    assert_eq!(std::fs::read(place.root.join("a")).unwrap(), b"two");
    std::fs::rename(place.root.join("kept"), &file).unwrap();
    std::fs::remove_file(dir.join("y")).unwrap();
    let done = place.rollback().unwrap();
    assert_eq!(text(&done.not_kept), ["gone/y"]);
    assert!(place.root.join("gone/x").exists() && !place.root.join("gone/y").exists());
}

/// Somebody is always faster: nothing gave way, and the checkout could not be taken back, nor any older one.
#[test]
fn a_checkout_that_left_everything_alone_can_be_taken_back() {
    let fixture = Fixture::in_memory();
    fixture.tree.file("edited", "one").file("removed", "r").file("d/x", "x");
    let first = fixture.commit_new();
    fixture.tree.file("edited", "two!").remove("removed").remove("d");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let root = place.root.clone();
    let was_edited = std::sync::atomic::AtomicBool::new(false);
    let script = Script::new(&place.root, move |call| {
        // The plan is made, and nothing is switched yet.
        let is_moment = call.name == "mkdirat" && call.paths.iter().any(|path| path.ends_with("staging"));
        if is_moment && !was_edited.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return Ok(());
        }
        if call.name.starts_with("renameat2") {
            let _ = std::fs::write(root.join("edited"), "somebody's");
            let _ = std::fs::remove_file(root.join("removed"));
            let _ = std::fs::write(root.join("d/theirs"), "t");
        }
        Ok(())
    });
    let report = place.checkout(&second, Mode::Full);
    drop(script);
    assert!(!report.in_sync);
    assert_eq!(place.history().last().unwrap().names, 0);
    let done = place.rollback().unwrap();
    assert_eq!(done.after, Some(first));
    assert_eq!(std::fs::read(place.root.join("edited")).unwrap(), b"somebody's");
    assert!(place.root.join("d/theirs").exists() && place.root.join("d/x").exists());
    assert_eq!(place.rollback().unwrap().after, None);
}

/// Rollbacks used up what is kept for checkouts.
#[test]
fn rollbacks_take_no_checkout_its_undo() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "0");
    let first = fixture.commit_new();
    fixture.tree.file("f", "second");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout_exactly(&second);
    for _ in 0..5 {
        place.checkout_exactly(&first);
        assert_eq!(place.rollback().unwrap().after, Some(second));
    }
    let report = place.checkout_exactly(&first);
    assert_eq!(place.rollback().unwrap().after, Some(second), "{:?}", report.areas[0].dropped_undo);
    assert_eq!(place.rollback().unwrap().after, Some(first));
    assert_eq!(place.rollback().unwrap().after, None);
    let kept = std::fs::read_dir(place.root.join(".evenkeel/undo")).unwrap().count();
    assert!(kept <= 8, "{kept} undos are kept");
}

/// Called again after a failure, a rollback turned around and went forward, or went back one checkout more.
#[test]
fn a_rollback_that_failed_is_finished_by_the_next() {
    let (fixture, [first, second]) = evenkeel_tests::operation::releases();
    let place = Place::new(&fixture, "server");
    let full = |options: &mut CheckoutOptions| options.mode = Some(Mode::Full);
    place.try_checkout(&first, full).unwrap();
    let before = read_tree(&place.root);
    place.try_checkout(&second, full).unwrap();
    let (steps, root) = (std::sync::atomic::AtomicUsize::new(0), place.root.clone());
    let script = Script::new(&place.root, move |call| {
        let is_live = call.paths.iter().any(|path| !path.starts_with(root.join(".evenkeel")));
        let is_step = call.name.starts_with("renameat2") && is_live;
        let number = if is_step { steps.fetch_add(1, std::sync::atomic::Ordering::Relaxed) } else { 0 };
        if number == 3 { Err(evenkeel_tests::operation::EIO) } else { Ok(()) }
    });
    place.rollback().unwrap_err();
    drop(script);
    assert!(place.status().areas[0].interrupted.is_some());
    let told = place.history().into_iter().next_back().unwrap();
    assert_eq!((told.number, told.undoes, told.interrupted), (3, Some(2), true));
    let done = place.rollback().unwrap();
    assert_eq!((done.undone, done.resumed, done.was_interrupted, done.after), (2, true, false, Some(first)));
    assert_same(&read_tree(&place.root), &before);
}

/// `.evenkeel/marker` says that a switch was under way, and the state directory knows of none.
#[test]
fn a_lost_journal_is_told_and_nothing_displaced_is_lost() {
    let (fixture, [first, second]) = evenkeel_tests::operation::releases();
    let place = Operation::Recover.place(&fixture, "server", &[first, second]);
    let areas = place.state.join("areas");
    for entry in std::fs::read_dir(&areas).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path().join("tx")).unwrap();
    }
    let of = |done: evenkeel_store::Result<()>| done.unwrap_err().to_string();
    for operation in [Operation::Recover, Operation::Rollback] {
        let refused = of(operation.run(&fixture.store, &place.paths(), &second));
        assert!(refused.contains("in the middle of a switch whose journal is lost"), "{refused}");
    }
    let kept = contents(&place.root.join(".evenkeel/undo"));
    assert!(kept.contains(&b"one".to_vec()), "what gave way is kept");
    let report = place.checkout(&second, Mode::Full);
    place.assert_is(&second);
    assert!(report.areas[0].warnings.is_empty(), "it was said by the first that found it");
    // It goes with the others in time.
    for id in [first, second, first, second, first] {
        place.checkout(&id, Mode::Full);
    }
    assert!(!contents(&place.root.join(".evenkeel/undo")).contains(&b"stray".to_vec()));
}

/// A directory that is another area was taken back under the wrong name.
#[test]
fn only_the_area_of_that_name_is_taken_back() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout_exactly(&second);
    let wrong = AreaTarget::new("other", &place.root);
    let (options, progress) = (BackOptions::new(&place.state), Progress::default());
    let refusals = [
        rollback(&wrong, &options, &progress).unwrap_err().to_string(),
        recover(&wrong, &options, &progress).unwrap_err().to_string(),
        undo(&wrong, &options, 2, &mut Vec::new(), &progress).unwrap_err().to_string(),
        history(&wrong, &place.state).unwrap_err().to_string(),
    ];
    for refused in refusals {
        assert!(refused.contains("is area `tree`, not `other`"), "{refused}");
    }
    place.assert_is(&second);
}

/// It failed at the second of two, and said nothing of the first.
#[test]
fn an_undo_that_comes_half_way_tells_how_far() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    for id in [first, second, first] {
        place.checkout_exactly(&id);
    }
    std::fs::remove_dir_all(place.root.join(".evenkeel/undo/2")).unwrap();
    let (area, options, mut done) = (AreaTarget::new("tree", &place.root), BackOptions::new(&place.state), Vec::new());
    undo(&area, &options, 2, &mut done, &Progress::default()).unwrap_err();
    assert_eq!(done.iter().map(|one| one.undone).collect::<Vec<_>>(), [3]);
    place.assert_is(&second);
}

/// A second name of a set-id program came with a release; taking it back took the rights from the first.
#[test]
fn a_program_keeps_its_rights_when_one_of_its_names_goes() {
    let fixture = Fixture::small();
    fixture.tree.file("d/tool", "t").mode("d/tool", 0o4755);
    let first = fixture.commit_new();
    fixture.tree.dir("c/f").link("d/tool", "c/f/tool").link("d/tool", "tool");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let before = read_tree(&place.root);
    place.checkout_exactly(&second);
    place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &before);
    assert!(place.verify().in_sync());
}

/// A release dropped one of two names of a set-id program and changed the other. The dropped name stays after an
/// incremental checkout; it lost its rights.
#[test]
fn a_program_that_stays_after_it_was_dropped_keeps_its_rights() {
    let fixture = Fixture::small();
    fixture.tree.file("d/tool", "t").mode("d/tool", 0o4755).link("d/tool", "tool");
    let first = fixture.commit_new();
    fixture.tree.remove("d/tool").remove("tool").file("tool", "new");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let before = read_tree(&place.root);
    place.checkout(&second, Mode::Incremental);
    let mode = |path: &str| std::fs::metadata(place.root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("d/tool"), 0o4755);
    place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &before);
}

/// The second of two names was removed after the first had given way: when both came back, they were two files.
#[test]
fn names_of_a_program_that_went_one_after_the_other_come_back_together() {
    let fixture = Fixture::small();
    fixture.tree.file("d/tool", "t").mode("d/tool", 0o4755).link("d/tool", "tool");
    let first = fixture.commit_new();
    fixture.tree.remove("d/tool").remove("tool").file("tool", "new");
    let second = fixture.commit_new();
    for tree in [false, true] {
        let place = Place::new(&fixture, if tree { "by-tree" } else { "by-file" });
        place.checkout_exactly(&first);
        let before = read_tree(&place.root);
        place.checkout(&second, Mode::Incremental);
        let full = |options: &mut CheckoutOptions| {
            options.mode = Some(Mode::Full);
            options.switch = if tree { SwitchMode::Tree } else { SwitchMode::Files };
        };
        place.try_checkout(&second, full).unwrap();
        place.rollback().unwrap();
        place.rollback().unwrap();
        assert_same(&read_tree(&place.root), &before);
    }
}

/// A switch was interrupted when one of three names of a set-id program had given way: that name came back as another
/// file, and the two others had lost their rights.
#[test]
fn an_interrupted_switch_gives_every_name_of_a_program_its_rights_back() {
    for outside in [false, true] {
        for reached in 1..4 {
            let fixture = Fixture::small();
            fixture.tree.file("a", "t").mode("a", 0o4755).link("a", "b").dir("d").link("a", "d/c");
            let first = fixture.commit_new();
            fixture.tree.file("a", "new").remove("d").file("d", "no directory");
            let second = fixture.commit_new();
            let place = Place::new(&fixture, "server");
            place.checkout_exactly(&first);
            let before = read_tree(&place.root);
            if outside {
                std::fs::hard_link(place.root.join("a"), fixture.dir().join("elsewhere")).unwrap();
            }
            let (steps, root) = (std::sync::atomic::AtomicUsize::new(0), place.root.clone());
            let script = Script::new(&place.root, move |call| {
                let is_live = call.paths.iter().any(|path| !path.starts_with(root.join(".evenkeel")));
                let is_step = call.name.starts_with("renameat2") && is_live;
                let number = if is_step { steps.fetch_add(1, std::sync::atomic::Ordering::Relaxed) } else { 0 };
                if number == reached { Err(evenkeel_tests::operation::EIO) } else { Ok(()) }
            });
            let failed = place.try_checkout(&second, |options| options.mode = Some(Mode::Full));
            drop(script);
            let is_cut_off = place.status().areas[0].interrupted.is_some();
            assert_eq!(is_cut_off, failed.is_err(), "at {reached}");
            place.rollback().unwrap();
            assert_same(&read_tree(&place.root), &before);
            if outside {
                let mode = std::fs::metadata(fixture.dir().join("elsewhere")).unwrap().permissions().mode();
                assert_eq!(mode & 0o7777, 0o755, "somebody else's name has the rights of what gave way");
            }
        }
    }
}

/// A checkout that changes no name was cut off: it said that a switch was under way, of which nobody had a journal.
#[test]
fn what_changes_no_name_leaves_nothing_half_done() {
    let fixture = Fixture::in_memory();
    fixture.tree.file("f", "f");
    let first = fixture.commit_new();
    fixture.tree.file("elsewhere/x", "x");
    let second = fixture.commit_new();
    let mut place = Place::new(&fixture, "server");
    place.exclude = vec!["/elsewhere".into()];
    place.checkout_exactly(&first);
    let full = |options: &mut CheckoutOptions| (options.mode, options.threads) = (Some(Mode::Full), 1);
    let mut number = 0;
    loop {
        number += 1;
        let reached = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&reached);
        let script = Script::new(fixture.dir(), move |call| {
            seen.fetch_or(call.number == number, std::sync::atomic::Ordering::Relaxed);
            if call.number >= number { Err(evenkeel_tests::operation::EIO) } else { Ok(()) }
        });
        let _ = place.try_checkout(if number % 2 == 0 { &first } else { &second }, full);
        drop(script);
        assert!(place.status().areas[0].interrupted.is_none(), "call {number}");
        if !reached.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
    }
    place.rollback().unwrap();
}
