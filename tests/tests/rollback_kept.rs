// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What gave way in a checkout has no other copy: whatever becomes of its place, going back brings it back or keeps it, and
//! says where.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use evenkeel_store::Progress;
use evenkeel_store::checkout::{
    AreaRecovery, AreaRollback, AreaTarget, BackOptions, CheckoutOptions, ConflictPolicy, Mode, SetAside, SwitchMode,
    recover,
};
use evenkeel_store::fsio::script::Script;
use evenkeel_store::id::SnapshotId;
use evenkeel_tests::fixture::{Fixture, assert_same};
use evenkeel_tests::neighbour::holds;
use evenkeel_tests::operation::EIO;
use evenkeel_tests::place::Place;
use evenkeel_tests::read_tree;

/// What was changed here before the checkout, each by its path and its content. Each gives way in another kind of step.
const LOCAL: [(&str, &str); 5] = [
    ("p/a/edited", "precious: edited"),
    ("p/a/gone", "precious: removed by the release"),
    ("p/a/stray", "precious: a stray"),
    ("p/a/was-dir/x", "precious: in a directory that becomes a file"),
    ("p/a/was-file", "precious: a file that becomes a directory"),
];

type Happens = fn(&Place<'_>);

/// What somebody does to the directory of all of these before the rollback.
const FATES: [(&str, Happens); 6] = [
    ("moved", |place| {
        place.tree().rename("p/a", "p/elsewhere");
    }),
    ("moved outside", |place| std::fs::rename(place.root.join("p/a"), place.root.with_extension("outside")).unwrap()),
    ("removed", |place| {
        place.tree().remove("p/a");
    }),
    ("a file now", |place| {
        place.tree().remove("p/a").file("p/a", "theirs");
    }),
    ("a symlink now", |place| {
        place.tree().rename("p/a", "p/elsewhere").symlink("p/a", "elsewhere");
    }),
    ("another directory with other names", |place| {
        place
            .tree()
            .remove("p/a")
            .file("p/a/gone", "theirs")
            .file("p/a/stray", "theirs")
            .file("p/a/edited/x", "theirs");
    }),
];

fn releases(fixture: &Fixture) -> [SnapshotId; 2] {
    let tree = &fixture.tree;
    tree.file("p/a/edited", "one").file("p/a/gone", "one").file("p/a/was-dir/x", "one").file("p/a/was-file", "one");
    let first = fixture.commit_new();
    tree.file("p/a/edited", "two").remove("p/a/gone").remove("p/a/was-dir").file("p/a/was-dir", "two");
    tree.remove("p/a/was-file").file("p/a/was-file/x", "two").file("p/other", "two");
    let second = fixture.commit_new();
    [first, second]
}

/// A place at the first release with changes of its own.
fn changed<'f>(fixture: &'f Fixture, name: &str, first: &SnapshotId) -> Place<'f> {
    let place = Place::new(fixture, name);
    place.checkout(first, Mode::Full);
    for (path, content) in LOCAL {
        place.tree().file(path, content);
    }
    place
}

/// What had given way has its name again, or is where the report says.
#[track_caller]
fn assert_kept(what: &str, place: &Place<'_>, number: u64, set_aside: &[SetAside], marks: &[&str]) {
    let undo = place.root.join(".evenkeel/undo").join(number.to_string());
    for (path, content) in LOCAL.iter().filter(|(_, content)| marks.contains(content)) {
        let is_back = std::fs::read(place.root.join(path)).is_ok_and(|found| found == content.as_bytes());
        let is_told = set_aside.iter().any(|aside| {
            let Some(below) = path.strip_prefix(&aside.path.to_string()) else { return false };
            let kept = format!("{}{below}", aside.kept_as);
            std::fs::read(undo.join(kept)).is_ok_and(|found| found == content.as_bytes())
        });
        assert!(is_back || is_told, "{what}: {path} is lost: {set_aside:#?}");
    }
    for aside in set_aside {
        assert!(undo.join(&aside.kept_as).symlink_metadata().is_ok(), "{what}: {aside:?} is not there");
    }
}

/// Nothing that was left alone is said to lie in the undo.
#[track_caller]
fn assert_no_claim(what: &str, done: &AreaRollback) {
    let claimed = |path| done.changed_since.contains(path) || done.removed_since.contains(path);
    assert!(!done.left_alone.iter().any(claimed), "{what}: {done:#?}");
}

/// A rollback took the only copy of a file that gave way out of the undo, found its directory moved, and threw it away.
#[test]
fn nothing_is_lost_whose_directory_is_not_there_any_more() {
    let fixture = Fixture::new();
    let [first, second] = releases(&fixture);
    for (fate, happens) in FATES {
        for mode in [Mode::Full, Mode::Incremental] {
            let what = format!("{fate}, {mode:?}");
            let place = changed(&fixture, &format!("server-{}-{mode:?}", fate.replace(' ', "-")), &first);
            place.checkout(&second, mode);
            let marks = given_way(&place);
            assert!(marks.len() >= 2, "{what}: {marks:?}");
            happens(&place);
            let outside = read_tree(&place.root.join("p"));
            let done = place.rollback().unwrap();
            assert_kept(&what, &place, done.number, &done.set_aside, &marks);
            assert_no_claim(&what, &done);
            assert_eq!(done.after, Some(first), "{what}");
            for (path, item) in &outside {
                let theirs = path.starts_with(b"elsewhere/") || format!("{item:?}").contains("theirs");
                assert!(!theirs || read_tree(&place.root.join("p")).contains_key(path), "{what}: theirs is gone");
            }
            let record = place.record(done.number);
            let told = record.iter().filter(|line| line["line"] == "set-aside").count();
            assert_eq!(told, done.set_aside.len(), "{what}: the record tells as much");
            // And it goes on from there.
            place.checkout(&second, Mode::Full);
            place.assert_is(&second);
            assert!(marks.iter().all(|mark| holds(&place.root, mark)), "{what}");
        }
    }
}

/// Which of [`LOCAL`] have given way and are not back.
fn given_way(place: &Place<'_>) -> Vec<&'static str> {
    let private = place.root.join(".evenkeel");
    LOCAL.iter().map(|(_, content)| *content).filter(|content| holds(&private, content)).collect()
}

/// Runs something that is cut off at its live rename number `cut`.
fn cut_off(place: &Place<'_>, cut: u64, run: impl FnOnce() -> evenkeel_store::Result<()>) -> bool {
    let (steps, root) = (AtomicU64::new(0), place.root.clone());
    let script = Script::new(&place.root, move |call| {
        let is_live = call.paths.iter().any(|path| !path.starts_with(root.join(".evenkeel")));
        let is_step = call.name.starts_with("renameat2") && is_live;
        let number = if is_step { steps.fetch_add(1, Ordering::Relaxed) } else { 0 };
        if is_step && number >= cut { Err(EIO) } else { Ok(()) }
    });
    let done = run();
    drop(script);
    done.is_err() && place.status().areas[0].interrupted.is_some()
}

fn finish(place: &Place<'_>) -> AreaRecovery {
    let (area, options) = (AreaTarget::new("tree", &place.root), BackOptions::new(&place.state));
    recover(&area, &options, &Progress::default()).unwrap()
}

/// The same of an undo of a number, of what was cut off, and of a rollback that another command finishes.
#[test]
fn every_way_back_keeps_what_cannot_come_back() {
    let fixture = Fixture::in_memory();
    let [first, second] = releases(&fixture);
    let full = |options: &mut CheckoutOptions| (options.mode, options.threads) = (Some(Mode::Full), 1);
    let assert_all = |what: &str, place: &Place<'_>, number: u64, set_aside: &[SetAside], marks: Vec<&str>| {
        let undo = place.root.join(".evenkeel/undo").join(number.to_string());
        assert!(set_aside.iter().all(|aside| undo.join(&aside.kept_as).symlink_metadata().is_ok()), "{what}");
        for mark in marks {
            assert!(holds(&place.root, mark), "{what}: {mark} is lost: {set_aside:#?}");
        }
    };
    let mut cuts = 0;
    for (fate, happens) in FATES {
        let name = fate.replace(' ', "-");
        let place = changed(&fixture, &format!("undo-{name}"), &first);
        place.try_checkout(&second, full).unwrap();
        let marks = given_way(&place);
        happens(&place);
        let done = place.undo(2).unwrap();
        assert_kept(fate, &place, done[0].number, &done[0].set_aside, &marks);
        for cut in [1, 3, 4] {
            let what = format!("{fate}, a checkout cut off at {cut}");
            let place = changed(&fixture, &format!("cut-{name}-{cut}"), &first);
            if cut_off(&place, cut, || place.try_checkout(&second, full).map(drop)) {
                let marks = given_way(&place);
                happens(&place);
                let done = place.rollback().unwrap();
                assert_all(&what, &place, done.number, &done.set_aside, marks);
                cuts += 1;
            }
            let what = format!("{fate}, a rollback cut off at {cut}");
            let place = changed(&fixture, &format!("back-{name}-{cut}"), &first);
            place.try_checkout(&second, full).unwrap();
            if cut_off(&place, cut, || place.rollback().map(drop)) {
                let marks = given_way(&place);
                happens(&place);
                let done = finish(&place);
                assert_all(&what, &place, done.number.unwrap(), &done.set_aside, marks);
                cuts += 1;
            }
        }
    }
    assert!(cuts > 20, "only {cuts} were cut off");
}

/// An application saves a file in the instant in which it comes back.
#[test]
fn nothing_is_lost_that_somebody_saves_meanwhile() {
    let fixture = Fixture::new();
    let [first, second] = releases(&fixture);
    let place = changed(&fixture, "server", &first);
    place.checkout(&second, Mode::Full);
    let marks = given_way(&place);
    let (root, was_saved) = (place.root.clone(), AtomicBool::new(false));
    let script = Script::new(&place.root, move |call| {
        let path = root.join("p/a/edited");
        if call.name.starts_with("renameat2") && call.paths.contains(&path) && !was_saved.swap(true, Ordering::Relaxed)
        {
            std::fs::write(root.join("p/a/.new"), "saved").unwrap();
            std::fs::rename(root.join("p/a/.new"), path).unwrap();
        }
        Ok(())
    });
    let done = place.rollback().unwrap();
    drop(script);
    assert_eq!(std::fs::read(place.root.join("p/a/edited")).unwrap(), b"saved");
    assert_kept("saved", &place, done.number, &done.set_aside, &marks);
    assert_no_claim("saved", &done);
}

/// What is kept although it was to come back gives nobody rights: a user may hold it open.
#[test]
fn a_program_that_cannot_come_back_has_no_rights() {
    let fixture = Fixture::new();
    let tree = &fixture.tree;
    tree.file("p/a/tool", "one").mode("p/a/tool", 0o4755).file("p/a/dir/tool", "one").mode("p/a/dir/tool", 0o4755);
    let first = fixture.commit_new();
    tree.remove("p/a/tool").file("p/a/tool", "two").remove("p/a/dir").file("p/a/dir", "two");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    place.checkout_exactly(&second);
    place.tree().remove("p/a");
    let done = place.rollback().unwrap();
    let undo = place.root.join(".evenkeel/undo").join(done.number.to_string());
    for path in ["p/a/tool", "p/a/dir"] {
        let aside = done.set_aside.iter().find(|aside| aside.path.to_string() == path).unwrap();
        let kept = undo.join(&aside.kept_as);
        let kept = if kept.is_dir() { kept.join("tool") } else { kept };
        let (content, mode) = (std::fs::read(&kept).unwrap(), kept.metadata().unwrap().permissions().mode());
        assert_eq!((&content[..], mode & 0o7777), (&b"one"[..], 0o755), "{path}");
    }
}

/// The local version that stayed beside the release's was the very inode that gave way: whoever edited it in place edited
/// what a rollback brings back.
#[test]
fn a_version_that_stays_aside_is_another_file() {
    let fixture = Fixture::new();
    let [first, second] = releases(&fixture);
    let place = changed(&fixture, "server", &first);
    place.tree().mode("p/a/edited", 0o4750);
    let before = read_tree(&place.root);
    let both = |options: &mut CheckoutOptions| options.areas[0].conflict = ConflictPolicy::Both;
    place.try_checkout(&second, both).unwrap();
    let aside = place.root.join("p/a/edited.evenkeel-local");
    let mode = aside.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((std::fs::read(&aside).unwrap(), mode), (LOCAL[0].1.into(), 0o750), "it gives nobody rights");
    std::fs::write(&aside, "edited in place").unwrap();
    let done = place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &before);
    let told: Vec<String> = done.changed_since.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["p/a/edited.evenkeel-local"]);
    assert!(holds(&place.root.join(".evenkeel/undo").join(done.number.to_string()), "edited in place"));
    // Untouched, it goes unsaid; saved as another file, it is somebody's.
    place.try_checkout(&second, both).unwrap();
    assert_eq!(place.rollback().unwrap().changed_since, []);
    assert_same(&read_tree(&place.root), &before);
    place.try_checkout(&second, both).unwrap();
    std::fs::write(place.root.join("saved"), "saved").unwrap();
    std::fs::rename(place.root.join("saved"), &aside).unwrap();
    place.rollback().unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), b"saved");
}

/// Wherever it is cut off, there is one local version beside the release's, and going back leaves none.
#[test]
fn a_version_that_stays_aside_is_made_once() {
    let fixture = Fixture::in_memory();
    fixture.tree.file("d/f", "one");
    let first = fixture.commit_new();
    fixture.tree.file("d/f", "two");
    let second = fixture.commit_new();
    let both = |options: &mut CheckoutOptions| {
        (options.areas[0].conflict, options.threads) = (ConflictPolicy::Both, 1);
    };
    let mut number = 0;
    loop {
        // The first of them are those that make it.
        number += if number < 20 { 1 } else { 15 };
        for goes_on in [true, false] {
            let what = format!("call {number}, goes on: {goes_on}");
            let place = Place::new(&fixture, &format!("server-{number}-{goes_on}"));
            place.checkout(&first, Mode::Full);
            place.tree().file("d/f", "mine");
            let before = read_tree(&place.root);
            let reached = std::sync::Arc::new(AtomicBool::new(false));
            let seen = std::sync::Arc::clone(&reached);
            // From the exchange on.
            let (live, calls) = (place.root.join("d/f"), AtomicU64::new(0));
            let script = Script::new(fixture.dir(), move |call| {
                let is_it = calls.load(Ordering::Relaxed) > 0
                    || (call.name.starts_with("renameat2") && call.paths.contains(&live));
                let count = calls.fetch_add(u64::from(is_it), Ordering::Relaxed) + u64::from(is_it);
                seen.fetch_or(count == number, Ordering::Relaxed);
                if count >= number { Err(EIO) } else { Ok(()) }
            });
            let done = place.try_checkout(&second, both);
            drop(script);
            let is_begun = done.is_ok() || place.status().areas[0].interrupted.is_some();
            let is_done = place.status().areas[0].applied == Some(second);
            if goes_on {
                place.try_checkout(&second, both).unwrap();
                assert_eq!(std::fs::read(place.root.join("d/f")).unwrap(), b"two", "{what}");
                assert_eq!(std::fs::read(place.root.join("d/f.evenkeel-local")).unwrap(), b"mine", "{what}");
                assert_eq!(std::fs::read_dir(place.root.join("d")).unwrap().count(), 2, "{what}");
            } else if is_begun || is_done {
                place.rollback().unwrap();
                assert_same(&read_tree(&place.root), &before);
            }
            if goes_on && !reached.load(Ordering::Relaxed) {
                assert!(number > 20, "only {number} calls");
                return;
            }
        }
    }
}

/// Of a checkout that changed no name nothing was recorded: a rollback took back the one before it, and all files went.
#[test]
fn a_checkout_that_changes_no_name_is_taken_back_by_itself() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "f").file("elsewhere/x", "one");
    let first = fixture.commit_new();
    fixture.tree.file("elsewhere/x", "two");
    let second = fixture.commit_new();
    let mut place = Place::new(&fixture, "server");
    place.exclude = vec!["/elsewhere".into()];
    let go = |id: &SnapshotId| place.checkout(id, Mode::Full);
    go(&first);
    let before = read_tree(&place.root);
    for (id, number) in [(&second, Some(2)), (&second, None), (&first, Some(3))] {
        let report = go(id);
        assert_eq!((report.is_empty(), report.areas[0].number), (true, number));
        assert_eq!(place.status().areas[0].applied, Some(*id));
    }
    let told: Vec<_> = place.history().iter().map(|record| (record.before, record.after, record.names)).collect();
    assert_eq!(told[1..], [(Some(first), Some(second), 0), (Some(second), Some(first), 0)]);
    place.assert_records();
    for (undone, after) in [(3, second), (2, first)] {
        let done = place.rollback().unwrap();
        assert_eq!((done.undone, done.after, done.changes), (undone, Some(after), 0));
        assert_same(&read_tree(&place.root), &before);
        assert_eq!(place.status().areas[0].applied, Some(after));
        assert_eq!(place.drift(), Vec::<String>::new());
    }
    assert_eq!(place.rollback().unwrap().after, None);
    assert!(!place.root.join("f").exists());
    // They take no other checkout its place in what is kept.
    go(&first);
    for _ in 0..5 {
        go(&second);
        go(&first);
    }
    let kept = place.history().iter().rev().take(11).all(|record| record.kept);
    assert!(kept, "{:#?}", place.history());
}

/// Programs with flags, which must go for a moment when rights are given back.
#[test]
#[ignore = "root: inode flags"]
fn root_flags_come_back_wherever_a_rollback_is_cut_off() {
    let fixture = Fixture::small();
    let _unlocks = Unlocks(fixture.dir().to_path_buf());
    let tree = &fixture.tree;
    let lock = |path: &str| chattr(&["+i"], &tree.path(path));
    let unlock = |path: &str| chattr(&["-i"], &tree.path(path));
    for path in ["su", "gone/su", "linked/su", "held/su"] {
        tree.file(path, "one").mode(path, 0o6755);
    }
    tree.link("linked/su", "linked/su-2");
    let locked = ["su", "gone/su", "linked/su"];
    locked.iter().for_each(|path| lock(path));
    let first = fixture.commit_new();
    locked.iter().for_each(|path| unlock(path));
    tree.remove("gone").remove("linked/su-2");
    for path in ["su", "linked/su", "held/su"] {
        tree.remove(path).file(path, "two").mode(path, 0o6755);
    }
    lock("su");
    let second = fixture.commit_new();
    for switch in [SwitchMode::Files, SwitchMode::Tree] {
        let mut number = 0;
        loop {
            number += 1;
            let place = Place::new(&fixture, &format!("server-{switch:?}-{number}"));
            let change = |options: &mut CheckoutOptions| {
                (options.mode, options.switch, options.threads) = (Some(Mode::Full), switch, 1);
            };
            place.checkout(&first, Mode::Full);
            let own = place.root.with_extension("own");
            std::fs::hard_link(place.root.join("held/su"), &own).unwrap();
            chattr(&["+i"], &place.root.join("held/su"));
            let look = || {
                let mut tree = read_tree(&place.root);
                // A copy takes the place of what somebody has by a name of their own; cut off there, this shows.
                tree.get_mut(&b"held"[..]).unwrap().mtime = (0, 0);
                (tree, flags(&place.root))
            };
            let before = look();
            place.try_checkout(&second, change).unwrap();
            let reached = std::sync::Arc::new(AtomicBool::new(false));
            let seen = std::sync::Arc::clone(&reached);
            // As if it were killed: nothing succeeds any more.
            let calls = AtomicU64::new(0);
            let script = Script::new(fixture.dir(), move |call| {
                let is_it = u64::from(call.name == "setflags");
                if calls.fetch_add(is_it, Ordering::Relaxed) + is_it >= number {
                    seen.store(true, Ordering::Relaxed);
                    return Err(EIO);
                }
                Ok(())
            });
            let _ = place.rollback();
            drop(script);
            let back =
                || place.status().areas[0].applied == Some(first) && place.status().areas[0].interrupted.is_none();
            if !back() {
                let again = place.rollback();
                assert!(again.is_ok(), "{switch:?}, call {number}: {:#?}", again.unwrap_err());
            }
            let now = look();
            assert_same(&now.0, &before.0);
            assert_eq!(now.1, before.1, "{switch:?}, call {number}");
            assert_eq!(own.metadata().unwrap().mode() & 0o6000, 0, "somebody else's name has no rights");
            let end = !reached.load(Ordering::Relaxed);
            chattr(&["-R", "-i"], &place.root);
            chattr(&["-i"], &own);
            for path in [&place.root, &place.state] {
                std::fs::remove_dir_all(path).unwrap();
            }
            std::fs::remove_file(own).unwrap();
            if end {
                assert!(number > 3, "only {number} calls");
                break;
            }
        }
    }
}

/// Takes away what protects files from being removed.
struct Unlocks(std::path::PathBuf);

impl Drop for Unlocks {
    fn drop(&mut self) {
        let _ = std::process::Command::new("chattr").args(["-R", "-f", "-i"]).arg(&self.0).output();
    }
}

fn chattr(arguments: &[&str], path: &Path) {
    // It complains of each symlink, which has no flags.
    let done = std::process::Command::new("chattr").arg("-f").args(arguments).arg(path).output();
    assert!(done.is_ok(), "chattr can be run");
}

/// Paths of files that may not be changed.
fn flags(root: &Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(dir) = todo.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.ends_with(".evenkeel") || path.is_symlink() {
                continue;
            }
            let file = std::fs::File::open(&path).unwrap();
            let is_locked = rustix::fs::ioctl_getflags(&file).unwrap().contains(rustix::fs::IFlags::IMMUTABLE);
            if path.is_dir() {
                todo.push(path.clone());
            }
            found.extend(is_locked.then_some(path));
        }
    }
    found.sort_unstable();
    found
}
