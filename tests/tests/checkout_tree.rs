// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tree switch: a complete new tree takes the place of the old one in one step, and is what the other switch makes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use evenkeel_store::checkout::{AreaTarget, BackOptions, CheckoutReport, Mode, SwitchMode, recover};
use evenkeel_store::fsio::script::Script;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::path::TreePath;
use evenkeel_store::{Progress, Result};
use evenkeel_tests::fixture::assert_same;
use evenkeel_tests::place::{Place, summary};
use evenkeel_tests::{Fixture, noise, read_tree};

/// Two releases with every kind of change between them.
fn releases(fixture: &Fixture) -> [SnapshotId; 2] {
    let tree = &fixture.tree;
    tree.file("same", "same").file("content", "one").file("mode", "m").mode("mode", 0o600).file("gone/deep/x", "x");
    tree.file("was-dir/x/y", "y").symlink("was-link", "same").file("was-file", "f").fifo("was-fifo").fifo("fifo");
    tree.file("l1", "linked")
        .link("l1", "l2")
        .link("l1", "l3")
        .file("d/f", "f")
        .mode("d", 0o700)
        .file("big", noise(7, 9 << 20));
    tree.sparse("sparse", 1 << 20, &[(4096, b"x")]).xattr("mode", "user.k", b"v").dir("empty").symlink("link", "same");
    tree.file("a/h1", "both").link("a/h1", "z").mode("same", 0o400).mtime("same", 5, 6).mode("d", 0o2750);
    let first = fixture.commit_new();
    tree.file("content", "two!").mode("mode", 0o644).xattr("mode", "user.k", b"other").remove("gone").mode("d", 0o755);
    tree.remove("was-dir").file("was-dir", "file").remove("was-link").file("was-link/a", "a");
    tree.remove("was-file").symlink("was-file", "same").remove("was-fifo").file("was-fifo", "f");
    tree.remove("l2").file("l2", "own").file("new/deep/n", noise(1, 70_000)).file("d/g", "g").remove("empty");
    let second = fixture.commit_new();
    [first, second]
}

fn switch_tree(place: &Place<'_>, id: &SnapshotId) -> Result<CheckoutReport> {
    place.try_checkout(id, |options| {
        options.mode = Some(Mode::Full);
        options.switch = SwitchMode::Tree;
    })
}

fn refusal(place: &Place<'_>, id: &SnapshotId) -> String {
    let before = read_tree(&place.root);
    let refused = switch_tree(place, id).unwrap_err().to_string();
    assert_same(&read_tree(&place.root), &before);
    assert_eq!(place.status().areas[0].interrupted, None, "{refused}");
    assert!(!place.private_names().iter().any(|name| name == "staging"), "{refused}");
    assert_nothing_beside(place);
    refused
}

/// No directory of a switch is left beside the root.
fn assert_nothing_beside(place: &Place<'_>) {
    let parent = place.root.parent().unwrap();
    let names = std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| name.starts_with(".evenkeel")).collect();
    assert_eq!(left, Vec::<String>::new());
}

/// As `checkout_exactly`, for what a tree switch has made.
fn assert_exact(place: &Place<'_>, id: &SnapshotId) {
    place.assert_is(id);
    for report in [place.status(), place.verify()] {
        assert!(report.in_sync() && report.areas[0].drift.is_empty(), "{:?}", report.areas[0].drift);
    }
    let again = switch_tree(place, id).unwrap();
    assert!(again.is_empty() && again.in_sync, "{:?}", again.areas[0].changes);
    assert_eq!(again.areas[0].counts.unproven, 0, "a second run only walks");
    assert_eq!(place.private_names(), ["lock", "marker", "undo"]);
    assert_nothing_beside(place);
}

/// The first name of a hard-link group is no part of the area here: nobody had staged the inode that the others share.
#[test]
fn the_first_name_of_a_group_may_be_excluded_here() {
    let fixture = Fixture::small();
    fixture.tree.file("h1", "one").link("h1", "h2").link("h1", "h3").file("f", "1").file("s1", "same").link("s1", "s2");
    let first = fixture.commit_new();
    fixture.tree.remove("h1").remove("h2").remove("h3").file("h1", "two").link("h1", "h2").link("h1", "h3");
    let second = fixture.commit_new();
    let mut place = Place::new(&fixture, "server");
    place.exclude = vec!["/h1".into(), "/s1".into()];
    let linked = |names: [&str; 2]| {
        let [a, b] = names.map(|name| std::fs::metadata(place.root.join(name)).unwrap());
        (a.ino() == b.ino(), a.nlink())
    };
    place.try_checkout(&first, |options| options.mode = Some(Mode::Full)).unwrap();
    let before = read_tree(&place.root);
    for (id, content) in [(&second, "two"), (&first, "one"), (&second, "two")] {
        let report = switch_tree(&place, id).unwrap();
        assert!(report.in_sync, "{:?}", report.areas[0].kept);
        for name in ["h2", "h3"] {
            assert_eq!(std::fs::read(place.root.join(name)).unwrap(), content.as_bytes());
        }
        assert_eq!((linked(["h2", "h3"]), linked(["s2", "s2"])), ((true, 2), (true, 1)));
        assert!(!place.root.join("h1").exists());
        assert!(place.verify().in_sync() && switch_tree(&place, id).unwrap().is_empty());
    }
    for _ in 0..3 {
        place.rollback().unwrap();
    }
    assert_same(&read_tree(&place.root), &before);
}

#[test]
fn makes_what_the_other_switch_makes_and_goes_back() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let (place, other) = (Place::new(&fixture, "server"), Place::new(&fixture, "other"));
    for place in [&place, &other] {
        place.checkout_exactly(&first);
        place.tree().file("stray/s", "stray").mode("same", 0o640).remove("d/f").mtime("stray", 5, 5).mtime("", 6, 6);
        place.tree().xattr("same", "user.k", b"here").file("content", "edited").mtime("content", 1_600_000_000, 7);
    }
    let (before, drift) = (read_tree(&place.root), place.drift());
    let old_root = std::fs::metadata(&place.root).unwrap().ino();
    let files = other.checkout(&second, Mode::Full);
    let report = switch_tree(&place, &second).unwrap();
    assert!(report.in_sync && report.areas[0].warnings.is_empty(), "{:?}", report.areas[0].warnings);
    assert_eq!(summary(&report), summary(&files), "it says what differs, not that all is new");
    assert_same(&read_tree(&place.root), &read_tree(&other.root));
    assert_ne!(std::fs::metadata(&place.root).unwrap().ino(), old_root);
    assert_exact(&place, &second);
    let record = &place.history()[1];
    assert_eq!((record.number, record.names), (2, report.areas[0].changes.len() as u64));

    let done = place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &before);
    assert_eq!(std::fs::metadata(&place.root).unwrap().ino(), old_root, "the old tree itself");
    assert_eq!((done.before, done.after, done.changes), (Some(second), Some(first), record.names));
    assert_eq!((done.changed_since.len(), done.left_alone.len()), (0, 0), "{:?}", done.changed_since);
    assert_eq!(place.drift(), drift, "what is known of it came back with it");
    assert_nothing_beside(&place);

    // Both kinds of switches, one on the other, and all the way back.
    place.checkout_exactly(&second);
    switch_tree(&place, &first).unwrap();
    assert_exact(&place, &first);
    let changed = place.undo(4).unwrap();
    assert_eq!(changed.iter().map(|one| one.undone).collect::<Vec<_>>(), [5, 4]);
    assert_same(&read_tree(&place.root), &before);
}

#[test]
fn first_checkouts_too() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    switch_tree(&place, &first).unwrap();
    assert_exact(&place, &first);
    switch_tree(&place, &second).unwrap();
    assert_exact(&place, &second);
    // Undo of what is too old goes with its whole tree.
    for id in [first, second, first] {
        switch_tree(&place, &id).unwrap();
    }
    assert_eq!(place.history().iter().map(|record| record.kept).collect::<Vec<_>>(), [false, false, true, true, true]);
    assert_eq!(std::fs::read_dir(place.root.join(".evenkeel/undo")).unwrap().count(), 3);
}

#[test]
fn what_changed_since_lies_in_the_undo_of_the_rollback() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let before = read_tree(&place.root);
    switch_tree(&place, &second).unwrap();
    place.tree().file("content", "mine now").file("mine", "my own").remove("was-dir");
    let done = place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &before);
    let text = |paths: &[TreePath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (text(&done.changed_since), text(&done.removed_since)),
        (vec!["content".into(), "mine".into()], vec!["was-dir".into()])
    );
    let undo = place.root.join(".evenkeel/undo").join(done.number.to_string()).join("0");
    assert_eq!(std::fs::read(undo.join("content")).unwrap(), b"mine now");
    assert_eq!(std::fs::read(undo.join("mine")).unwrap(), b"my own");
    assert!(!undo.join(".evenkeel").exists());
    // Somebody made room: there is no way back, and nothing was tried.
    switch_tree(&place, &second).unwrap();
    std::fs::remove_dir_all(place.root.join(".evenkeel/undo/4/0")).unwrap();
    let refused = place.rollback().unwrap_err().to_string();
    assert!(refused.contains("the tree that gave way in number 4 is not there any more"), "{refused}");
    assert_exact(&place, &second);
}

/// After a recovery the memory cannot vouch for what was made just before; such files were edited, and nobody was told.
#[test]
fn what_changed_since_a_recovery_is_named_too() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let before = read_tree(&place.root);
    let (exchanged, root) = (AtomicBool::new(false), place.root.clone());
    let script = Script::new(fixture.dir(), move |call| {
        let is_exchange = call.name.starts_with("renameat2") && call.paths.contains(&root);
        if exchanged.fetch_or(is_exchange, Ordering::Relaxed) { Err(evenkeel_tests::operation::EIO) } else { Ok(()) }
    });
    switch_tree(&place, &second).unwrap_err();
    drop(script);
    let area = AreaTarget::new("tree", &place.root);
    recover(&area, &BackOptions::new(&place.state), &Progress::default()).unwrap();
    place.tree().file("content", "mine").file("new/deep/n", noise(2, 70_000)).remove("d/g").mode("same", 0o444);
    let done = place.rollback().unwrap();
    assert_same(&read_tree(&place.root), &before);
    let changed: Vec<String> = done.changed_since.iter().map(ToString::to_string).collect();
    assert_eq!(changed, ["content", "new/deep/n", "same"]);
    assert_eq!(done.removed_since.iter().map(ToString::to_string).collect::<Vec<_>>(), ["d/g"]);
}

#[test]
fn refuses_what_would_be_lost_or_is_not_safe() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let mut place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let incremental = place.try_checkout(&second, |options| {
        options.mode = Some(Mode::Incremental);
        options.switch = SwitchMode::Tree;
    });
    let refused = incremental.unwrap_err().to_string();
    assert!(refused.contains("only a full checkout"), "{refused}");
    // Excluded here: outside the area, and not in the new tree.
    place.exclude = vec!["/d/local".into()];
    place.tree().file("d/local", "mine");
    let refused = refusal(&place, &second);
    assert!(refused.contains("d/local does not belong to the area"), "{refused}");
    place.tree().remove("d/local");
    // The ceilings hold as ever.
    let refused = place.try_checkout(&second, |options| {
        options.mode = Some(Mode::Full);
        options.switch = SwitchMode::Tree;
        options.max_removals = evenkeel_store::checkout::Ceiling::Count(0);
    });
    assert!(refused.unwrap_err().to_string().contains("would be removed"));
    // Whoever may write to the parent could put another tree there.
    let parent = place.root.parent().unwrap();
    let mode = |mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o1777);
    let refused = refusal(&place, &second);
    assert!(refused.contains("others than root may change its parent"), "{refused}");
    mode(0o755);
    switch_tree(&place, &second).unwrap();
    assert_exact(&place, &second);
}

#[test]
fn whoever_uses_the_tree_is_named() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let mut child = Command::new("sleep").arg("100").current_dir(place.root.join("d")).spawn().unwrap();
    let refused = refusal(&place, &second);
    assert!(refused.contains(&format!("sleep (pid {}, ", child.id())), "{refused}");
    let report = place.try_checkout(&second, |options| {
        options.mode = Some(Mode::Full);
        options.switch = SwitchMode::Tree;
        options.allow_busy = true;
    });
    let in_use = &report.unwrap().areas[0].in_use.processes;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((in_use.len(), in_use[0].paths[0].to_string().as_str()), (1, "d"));
    assert_exact(&place, &second);
}

/// What changes after everything was staged is noticed: the switch does not begin.
#[test]
fn a_tree_that_is_at_work_is_not_exchanged() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let file = place.root.join("same");
    let writing = Progress::watched(move |phase| {
        if phase == "writing files" {
            std::fs::write(&file, "written meanwhile").unwrap();
        }
    });
    let mut options = evenkeel_store::checkout::CheckoutOptions::new(second, place.state.clone());
    options.areas = vec![AreaTarget::new("tree", &place.root)];
    (options.mode, options.switch) = (Some(Mode::Full), SwitchMode::Tree);
    let refused = evenkeel_store::checkout::checkout(place.store(), &options, &writing).unwrap_err();
    assert!(matches!(&refused, evenkeel_store::Error::Unstable { .. }), "{refused}");
    assert_eq!(std::fs::read(place.root.join("same")).unwrap(), b"written meanwhile");
    assert!(!place.private_names().iter().any(|name| name == "staging"));
    assert_nothing_beside(&place);
    switch_tree(&place, &second).unwrap();
    assert_exact(&place, &second);
}

/// Ends the readers also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A reader that opens the tree and two files in it sees one release, and never none.
#[test]
fn a_reader_sees_one_release_at_a_time() {
    let fixture = Fixture::small();
    fixture.tree.file("a/one", "1").file("z/two", "1");
    let first = fixture.commit_new();
    fixture.tree.file("a/one", "2").file("z/two", "2");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let root = std::fs::File::open(&place.root).expect("the root is never missing");
                let read = |name: &str| {
                    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
                    let file = rustix::fs::openat(&root, name, flags, rustix::fs::Mode::empty()).unwrap();
                    std::io::read_to_string(std::fs::File::from(file)).unwrap()
                };
                assert_eq!(read("a/one"), read("z/two"));
                assert!(std::fs::metadata(place.root.join("z/two")).is_ok());
                assert!(place.root.join(".evenkeel/marker").exists(), "nor is its marker");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ending = Stop(&stop);
        for _ in 0..20 {
            for id in [second, first] {
                place
                    .try_checkout(&id, |options| {
                        options.mode = Some(Mode::Full);
                        (options.switch, options.allow_busy) = (SwitchMode::Tree, true);
                    })
                    .unwrap();
            }
        }
        drop(ending);
        reader.join().unwrap();
    });
    assert!(reads.load(Ordering::Relaxed) > 100);
}

/// What `lsattr`, `getfattr` and `filefrag` say, with everything that only root can give.
#[test]
#[ignore = "root: owners, capabilities, inode flags"]
fn root_every_attribute_as_with_the_other_switch() {
    let fixture = Fixture::small();
    let [first, second] = {
        let tree = &fixture.tree;
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        releases(&fixture);
        tree.file("suid", "s").owner("suid", 1, 2).mode("suid", 0o6755).link("suid", "suid-2");
        tree.file("ping", "p")
            .mode("ping", 0o755)
            .xattr("ping", "security.capability", &capability)
            .owner("link", 7, 8);
        tree.file("fixed/f", "immutable").sparse("holes", 4 << 20, &[(1 << 20, b"data"), (3 << 20, &[1; 9000])]);
        tree.file("acl/f", "x").file("renewed", "1").owner("acl/f", 3, 4);
        let acl = Command::new("setfacl").args(["-R", "-m", "u:5:r,d:u:6:rw"]).arg(tree.path("acl")).status();
        assert!(acl.unwrap().success());
        let flags = |flags: &str, name: &str| {
            assert!(Command::new("chattr").arg(flags).arg(tree.path(name)).status().unwrap().success());
        };
        flags("+d", "same");
        flags("+i", "fixed/f");
        let first = fixture.commit_new();
        flags("-i", "fixed/f");
        tree.file("renewed", "2").mode("ping", 0o750).xattr("ping", "security.capability", &capability);
        flags("+i", "fixed/f");
        let second = fixture.commit_new();
        flags("-i", "fixed/f");
        [first, second]
    };
    let (place, other) = (Place::new(&fixture, "server"), Place::new(&fixture, "other"));
    for place in [&place, &other] {
        place.checkout_exactly(&first);
        place.tree().xattr("same", "trusted.local", b"this machine's own").xattr("d", "trusted.local", b"too");
    }
    let look = |root: &Path| {
        let run = |program: &str, args: &[&str]| {
            let out = Command::new(program).args(args).current_dir(root).output().unwrap();
            assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8_lossy(&out.stdout)
                .lines()
                .filter(|l| !l.contains(".evenkeel"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        [
            run("lsattr", &["-R", "."]),
            run("sh", &["-c", "find . -name .evenkeel -prune -o -print0 | xargs -0 getfattr -h -d -m - -e hex"]),
            run("find", &[".", "-name", ".evenkeel", "-prune", "-o", "-printf", "%p %y %m %U %G %n %s %b %l %T@\n"]),
        ]
    };
    // Both ways: with the master's own view of times of directories, by the other switch.
    let before = look(&place.root);
    other.checkout(&second, Mode::Full);
    let id = place.rollback();
    assert!(id.is_ok(), "a first checkout is taken back");
    place.checkout_exactly(&first);
    place.tree().xattr("same", "trusted.local", b"this machine's own").xattr("d", "trusted.local", b"too");
    assert_eq!(look(&place.root), before);
    switch_tree(&place, &second).unwrap();
    let (found, expected) = (look(&place.root), look(&other.root));
    for (found, expected) in found.iter().zip(&expected) {
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(found), sorted(expected));
    }
    let compared = Command::new("rsync")
        .args(["-aHAXni", "--delete", "--exclude=/.evenkeel"])
        .arg(place.root.join(""))
        .arg(other.root.join(""))
        .output();
    if let Ok(compared) = compared {
        assert_eq!(String::from_utf8_lossy(&compared.stdout), "");
    }
    // Nobody keeps the rights of the old tree; going back gives them to it again.
    let old = place.root.join(".evenkeel/undo").join(place.history().last().unwrap().number.to_string()).join("0");
    assert_eq!(std::fs::metadata(old.join("suid")).unwrap().mode() & 0o7777, 0o755);
    place.rollback().unwrap();
    assert_eq!(look(&place.root), before);
    assert!(std::fs::metadata(place.root.join("suid")).unwrap().nlink() == 2);
    for root in [&place.root, &other.root] {
        let _ = Command::new("chattr").args(["-R", "-f", "-i"]).arg(root).output();
    }
}

#[test]
#[ignore = "root: mounts"]
fn root_nothing_mounted_is_carried_away() {
    let fixture = Fixture::small();
    let [first, second] = releases(&fixture);
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let mount =
        |args: &[&str], at: &Path| assert!(Command::new("mount").args(args).arg(at).status().unwrap().success());
    let umount = |at: &Path| assert!(Command::new("umount").arg(at).status().unwrap().success());
    let inside = place.root.join("d");
    mount(&["-t", "tmpfs", "none"], &inside);
    let refused = switch_tree(&place, &second).unwrap_err().to_string();
    umount(&inside);
    assert!(refused.contains("d stays as it is here") || refused.contains("mounted at"), "{refused}");
    switch_tree(&place, &second).unwrap();
    mount(&["-t", "tmpfs", "none"], &inside);
    let refused = place.rollback().unwrap_err().to_string();
    umount(&inside);
    assert!(refused.contains("something is mounted at"), "{refused}");
    // The root itself, bound to itself.
    let root = place.root.to_str().unwrap();
    mount(&["--bind", root], &place.root);
    let refused = switch_tree(&place, &first).unwrap_err().to_string();
    umount(&place.root);
    assert!(refused.contains("mount"), "{refused}");
    place.rollback().unwrap();
    place.assert_is(&first);
    let area = AreaTarget::new("tree", &place.root);
    assert_eq!(recover(&area, &BackOptions::new(&place.state), &Progress::default()).unwrap().number, None);
}
