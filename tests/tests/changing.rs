// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trees that move while they are committed: refused or marked, never a silent mixture, never a snapshot that does not
//! decode.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel_store::commit::CommitReport;
use evenkeel_store::format::manifest::{InodeKind, Node};
use evenkeel_store::{Error, ErrorKind};
use evenkeel_tests::{Fixture, noise};

/// Runs `commit` while `disturb` is called again and again with a running number.
fn while_disturbed<T>(disturb: impl Fn(u64) + Sync, commit: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                disturb(number);
            }
        });
        let result = commit();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn scribble(path: &Path) -> impl Fn(u64) + Sync {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    move |number| file.write_all_at(&[u8::try_from(number % 251).unwrap(); 64], number * 4096 % (8 << 20)).unwrap()
}

#[test]
fn a_file_that_is_written_all_the_time_is_named() {
    // On a busy machine the writer may not get its turn during one of the reads; then there is nothing to refuse.
    let attempts = std::iter::repeat_with(|| {
        let fixture = Fixture::new();
        fixture.tree.file("busy", noise(1, 8 << 20)).file("calm", "1");
        let outcome = while_disturbed(scribble(&fixture.tree.path("busy")), || fixture.try_commit(|_| {}));
        (fixture, outcome)
    });
    let (fixture, outcome) = attempts.take(10).find(|(_, outcome)| outcome.is_err()).expect("refused at least once");
    let error = outcome.unwrap_err();
    let Error::Unstable { paths } = &error else { panic!("{error}") };
    assert_eq!(*paths, [fixture.tree.path("busy")]);
    assert!(error.is_retryable());
    assert_eq!(fixture.store.snapshots().unwrap(), []);

    // As soon as it is quiet, it works.
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
    assert!(!fixture.check().is_damaged());
}

#[test]
fn allowed_it_is_recorded_and_marked_and_read_again() {
    let fixture = Fixture::new();
    fixture.tree.file("busy", noise(1, 8 << 20)).file("calm", "1");
    let report = while_disturbed(scribble(&fixture.tree.path("busy")), || {
        fixture.try_commit(|options| options.allow_changing = true).unwrap()
    });
    assert_eq!(report.areas[0].unstable.len(), 1);
    let id = report.snapshot.unwrap();
    assert_eq!(fixture.store.snapshot(&id).unwrap().areas[0].unstable, 1);
    let marked = fixture.entries(&id).iter().any(|entry| match &entry.node {
        Node::Inode(inode) => matches!(&inode.kind, InodeKind::File(content) if content.unstable),
        Node::Link { .. } => false,
    });
    assert!(marked, "the entry says so");
    fixture.read(&id);
    fixture.assert_sound();
    let id = fixture.commit_new();
    assert_eq!(fixture.store.snapshot(&id).unwrap().areas[0].unstable, 0);
    fixture.assert_holds_tree(&id);
}

/// Whatever came of a commit in a moving tree, a snapshot that it made decodes and is complete.
fn assert_honest(fixture: &Fixture, outcome: Result<CommitReport, Error>) {
    match outcome {
        Ok(report) => drop(fixture.read(&report.snapshot.unwrap())),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Source, "{error}"),
    }
    let findings = fixture.check().findings;
    assert!(!findings.iter().any(|f| f.severity == evenkeel_store::check::Severity::Damaged), "{findings:?}");
}

#[test]
fn a_file_that_shrinks_and_grows() {
    let fixture = Fixture::new();
    fixture.tree.file("f", noise(1, 4 << 20));
    let file = std::fs::File::options().write(true).open(fixture.tree.path("f")).unwrap();
    let resize = |number| file.set_len(if number % 2 == 0 { 1 << 20 } else { 4 << 20 }).unwrap();
    for allow_changing in [false, true] {
        let outcome = while_disturbed(resize, || fixture.try_commit(|options| options.allow_changing = allow_changing));
        assert_honest(&fixture, outcome);
    }
    fixture.assert_holds_tree(&fixture.commit().snapshot.unwrap());
}

#[test]
fn files_that_come_and_go() {
    let fixture = Fixture::new();
    for number in 0..400 {
        fixture.tree.file(format!("d{}/{number}", number % 7), noise(number, 5000));
    }
    let flicker = |number: u64| {
        let name = format!("d{}/{}", number % 400 % 7, number % 400);
        fixture.tree.remove(name.as_str());
        fixture.tree.file(name.as_str(), noise(number, 6000));
    };
    for _ in 0..5 {
        assert_honest(&fixture, while_disturbed(flicker, || fixture.try_commit(|_| {})));
    }
    fixture.assert_holds_tree(&fixture.commit().snapshot.unwrap());
}

/// A directory turns into a file or a symlink to one outside, and back.
#[test]
fn directories_that_turn_into_something_else() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.dir().join("outside")).unwrap();
    std::fs::write(fixture.dir().join("outside/secret"), "not in the area").unwrap();
    for number in 0..200 {
        fixture.tree.file(format!("d{number:03}/f"), "x");
    }
    let turn = |number: u64| {
        let name = format!("d{:03}", number % 200);
        fixture.tree.remove(name.as_str());
        match number % 3 {
            0 => fixture.tree.symlink(name.as_str(), "../outside"),
            1 => fixture.tree.file(name.as_str(), "a file now"),
            _ => fixture.tree.file(format!("{name}/f"), "x"),
        };
    };
    for _ in 0..10 {
        let outcome = while_disturbed(turn, || fixture.try_commit(|_| {}));
        if let Ok(report) = &outcome {
            let paths = fixture.paths(&report.snapshot.unwrap());
            assert!(!paths.iter().any(|path| path.ends_with("secret")), "a symlink was followed");
        }
        assert_honest(&fixture, outcome);
    }
    fixture.assert_holds_tree(&fixture.commit().snapshot.unwrap());
}

/// The first name of a hard-link group was replaced by another file between the walk and the read. The further name
/// was then recorded as a link to the new file: a manifest that does not decode (a link to an entry with one name), or
/// the new file's content under the old file's name.
#[test]
fn a_first_member_replaced_after_the_walk_is_not_the_groups_content() {
    let fixture = Fixture::new();
    let pairs = 300;
    let make = |number: u64| {
        fixture.tree.file(format!("b/{number:03}"), noise(number, 20_000));
        fixture.tree.link(format!("b/{number:03}"), format!("a-{number:03}"));
    };
    (0..pairs).for_each(make);
    let replace = |number: u64| {
        fixture.tree.file("../new", "quite another file").rename("../new", format!("a-{:03}", number % pairs));
    };
    for _ in 0..10 {
        for number in 0..pairs {
            fixture.tree.remove(format!("a-{number:03}"));
            fixture.tree.link(format!("b/{number:03}"), format!("a-{number:03}"));
        }
        let outcome = while_disturbed(replace, || fixture.try_commit(|_| {}));
        if let Ok(report) = &outcome {
            let found = fixture.read(&report.snapshot.unwrap());
            let expected = evenkeel_tests::read_tree(&fixture.tree.path("b"));
            for number in 0..pairs {
                let name = format!("{number:03}");
                let (a, b) = (&found[format!("b/{name}").as_bytes()], &expected[name.as_bytes()]);
                assert!(a.kind == b.kind, "b/{name} was not touched, but is recorded with other content");
            }
        }
        assert_honest(&fixture, outcome);
    }
}

/// Names are added to and taken from groups while the commit runs: link counts must still add up.
#[test]
fn groups_that_gain_and_lose_names() {
    let fixture = Fixture::new();
    for number in 0..300u64 {
        fixture.tree.file(format!("f{number:03}"), noise(number, 9000));
    }
    let toggle = |number: u64| {
        let (old, new) = (format!("f{:03}", number % 300), format!("g{:03}", number % 300));
        if fixture.tree.path(new.as_str()).exists() {
            fixture.tree.remove(new.as_str());
        } else {
            fixture.tree.link(old.as_str(), new.as_str());
        }
    };
    for _ in 0..10 {
        assert_honest(&fixture, while_disturbed(toggle, || fixture.try_commit(|_| {})));
    }
    fixture.assert_holds_tree(&fixture.commit().snapshot.unwrap());
}
