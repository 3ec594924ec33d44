// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a commit reads, what it makes of it, and what it leaves behind.

use evenkeel_store::area::AreaSpec;
use evenkeel_store::commit::{CommitOptions, ParentChoice, commit};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{ErrorKind, Progress, Store};
use evenkeel_tests::fixture::{AREA, files_below, settle};
use evenkeel_tests::{Fixture, Tree, noise};

#[test]
fn a_first_commit_holds_the_tree() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
    fixture.assert_sound();
}

#[test]
fn without_a_change_nothing_is_read_and_nothing_written() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    settle();
    let first = fixture.commit_new();
    let before = fixture.objects();
    let report = fixture.commit();
    assert!(!report.is_new);
    assert_eq!((report.snapshot, report.parent), (Some(first), Some(first)));
    let area = &report.areas[0];
    assert_eq!((area.files_read, area.bytes_read), (0, 0));
    assert_eq!((area.added, area.changed, area.removed), (0, 0, 0));
    assert_eq!((report.new_chunks, report.stored_bytes), (0, 0));
    assert!(fixture.objects() == before, "the store is as it was");
}

#[test]
fn one_changed_file_is_the_one_that_is_read() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    settle();
    fixture.commit_new();
    fixture.tree.file("usr/share/text", "short now");
    let report = fixture.commit();
    let area = &report.areas[0];
    assert_eq!((area.files_read, area.bytes_read), (1, 9));
    assert_eq!((area.added, area.changed, area.removed), (0, 1, 0));
    fixture.assert_holds_tree(&report.snapshot.unwrap());
}

#[test]
fn additions_and_removals_are_counted() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    settle();
    fixture.commit_new();
    fixture.tree.file("etc/new", "new").remove("usr/share");
    let report = fixture.commit();
    let area = &report.areas[0];
    // The two directories whose content changed have new times.
    assert_eq!((area.added, area.changed, area.removed), (1, 2, 2));
    assert_eq!(area.files_read, 1);
    fixture.assert_holds_tree(&report.snapshot.unwrap());
    fixture.assert_sound();
}

/// What `touch -r` hides from size and mtime, the ctime tells.
#[test]
fn an_edit_that_keeps_size_and_mtime_is_seen() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "one").mtime("f", 1_600_000_000, 5);
    settle();
    fixture.commit_new();
    fixture.tree.file("f", "two").mtime("f", 1_600_000_000, 5);
    let report = fixture.commit();
    assert_eq!(report.areas[0].files_read, 1);
    fixture.assert_holds_tree(&report.snapshot.unwrap());
}

/// A file that changed in the tick in which a commit began may change again in that tick without a trace, so the next
/// commit reads it again.
#[test]
fn a_file_changed_just_before_a_commit_is_not_trusted() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "one");
    let mut seen_racy = false;
    for round in 0..200 {
        fixture.tree.file("f", format!("{round:03}"));
        fixture.try_commit(|_| {}).unwrap();
        fixture.tree.file("f", format!("{:03}", round + 500));
        let report = fixture.try_commit(|_| {}).unwrap();
        fixture.assert_holds_tree(&report.snapshot.unwrap());
        let again = fixture.try_commit(|_| {}).unwrap();
        seen_racy |= again.areas[0].files_read == 1;
        fixture.assert_holds_tree(&again.snapshot.unwrap());
        if seen_racy && round > 5 {
            return;
        }
    }
    assert!(seen_racy, "the rule was never needed in 200 rounds");
}

#[test]
fn metadata_alone_makes_a_snapshot_and_stores_no_content() {
    let fixture = Fixture::new();
    fixture.tree.file("f", noise(1, 200_000));
    settle();
    fixture.commit_new();
    fixture.tree.mode("f", 0o600);
    let report = fixture.commit();
    assert!(report.is_new);
    assert!(report.new_plain_bytes < 10_000, "{} bytes", report.new_plain_bytes);
    fixture.assert_holds_tree(&report.snapshot.unwrap());
}

#[test]
fn a_renamed_file_costs_only_manifest_nodes() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    settle();
    fixture.commit_new();
    fixture.tree.rename("usr/lib", "usr/lib64");
    let report = fixture.commit();
    assert_eq!((report.areas[0].added, report.areas[0].removed), (3, 3));
    assert!(report.new_plain_bytes < 10_000, "{} bytes", report.new_plain_bytes);
    fixture.assert_holds_tree(&report.snapshot.unwrap());
}

#[test]
fn equal_content_is_stored_once() {
    let fixture = Fixture::new();
    let content = noise(1, 1_000_000);
    fixture.tree.file("a", &content).file("b", &content);
    let report = fixture.commit();
    assert!(report.stored_bytes < 1_100_000, "{} bytes", report.stored_bytes);
    fixture.tree.file("c/d", &content).remove("a");
    let report = fixture.commit();
    assert!(report.stored_bytes < 10_000, "{} bytes", report.stored_bytes);
    fixture.assert_holds_tree(&report.snapshot.unwrap());
}

/// Bytes in front move every offset, but only the chunks around them change.
#[test]
fn an_insertion_stores_a_few_chunks() {
    let fixture = Fixture::small();
    let content = noise(1, 4_000_000);
    fixture.tree.file("f", &content);
    fixture.commit();
    fixture.tree.file("f", [b"in front".as_slice(), &content].concat());
    let report = fixture.commit();
    assert!(report.new_plain_bytes < 400_000, "{} bytes", report.new_plain_bytes);
    fixture.assert_holds_tree(&report.snapshot.unwrap());
}

#[test]
fn equal_trees_give_equal_manifests_whatever_the_threads() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    for number in 0..3000 {
        fixture
            .tree
            .file(format!("many/{}/{number}", number % 37), noise(number, usize::try_from(number % 900).unwrap()));
    }
    fixture.tree.file("large", noise(9, 6_000_000));
    let mut manifests = Vec::new();
    for threads in [1, 2, 5] {
        let options =
            evenkeel_store::store::InitOptions { chunker: fixture.store.format().chunker, pack_size: 1 << 20 };
        let store = Store::create(&fixture.dir().join(format!("store-{threads}")), &options).unwrap();
        let options = evenkeel_store::commit::CommitOptions { threads, ..fixture.options() };
        let report = commit(&store, &options, &Progress::default()).unwrap();
        manifests.push(store.snapshot(&report.snapshot.unwrap()).unwrap().areas[0].manifest);
    }
    assert_eq!(manifests[0], manifests[1]);
    assert_eq!(manifests[0], manifests[2]);
}

#[test]
fn a_snapshot_follows_the_parent_that_was_chosen() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "1");
    let first = fixture.commit_new();
    fixture.tree.file("f", "2");
    let second = fixture.commit_new();
    fixture.tree.file("f", "3");
    let choose = |parent| {
        let id = fixture.try_commit(|options| options.parent = parent).unwrap().snapshot.unwrap();
        let snapshot = fixture.store.snapshot(&id).unwrap();
        fixture.assert_holds_tree(&id);
        (snapshot.parent, snapshot.depth)
    };
    assert_eq!(choose(ParentChoice::Id(first)), (Some(first), 1));
    assert_eq!(choose(ParentChoice::Id(second)), (Some(second), 2));
    assert_eq!(choose(ParentChoice::None), (None, 0));
    let unknown = fixture.try_commit(|options| options.parent = ParentChoice::Id(SnapshotId::of(b"nothing")));
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::Unknown);
    fixture.assert_sound();
}

/// The files cache belongs to another snapshot than the parent: what it proves about inodes holds all the same.
#[test]
fn going_back_to_an_old_parent_compares_with_that_parent() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "1");
    let first = fixture.commit_new();
    fixture.tree.file("f", "2");
    fixture.commit_new();
    fixture.tree.file("f", "1");
    let again = fixture.try_commit(|options| options.parent = ParentChoice::Id(first)).unwrap();
    // The file's time differs, so it is a change.
    assert!(again.is_new);
    fixture.tree.mtime("f", 1_500_000_000, 0);
    let fixed = fixture.commit_new();
    fixture.tree.file("f", "1").mtime("f", 1_500_000_000, 0);
    let none = fixture.try_commit(|options| options.parent = ParentChoice::Id(fixed)).unwrap();
    assert!(!none.is_new);
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let before = fixture.objects();
    let dry = fixture.try_commit(|options| options.dry_run = true).unwrap();
    assert!(dry.is_new);
    assert_eq!(dry.snapshot, None);
    assert!(fixture.objects() == before, "the store is as it was");
    let wet = fixture.commit();
    assert_eq!((dry.new_chunks, dry.new_plain_bytes), (wet.new_chunks, wet.new_plain_bytes));
    assert_eq!(dry.areas[0].files_read, wet.areas[0].files_read);

    fixture.tree.file("etc/new", "new");
    let before = fixture.objects();
    assert!(fixture.try_commit(|options| options.dry_run = true).unwrap().is_new);
    assert!(fixture.objects() == before, "the store is as it was");
    let report = fixture.commit();
    assert!(report.is_new);
    fixture.assert_holds_tree(&report.snapshot.unwrap());
}

/// A dry run over a damaged index published a new one, and swept temporaries.
#[test]
fn a_dry_run_repairs_nothing() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    fixture.commit_new();
    let temporary = "tmp-0123456789abcdef";
    for dir in ["tmp", "segments", ""] {
        std::fs::write(fixture.store.path().join(dir).join(temporary), "left over").unwrap();
    }
    fixture.tree.file("new", noise(1, 100_000));
    // One of data: the first snapshot's manifest could not be stored again from the tree as it is now.
    let is_data = |name: &str, bytes: &[u8]| name.starts_with("packs/") && bytes[10] == 1;
    let pack = fixture.objects().into_iter().find(|(name, bytes)| is_data(name, bytes)).unwrap().0;
    let current = fixture.store.path().join("segments/current");
    for damage in ["none", "the list is lost", "a pack is lost", "a new state directory"] {
        match damage {
            "the list is lost" => std::fs::remove_file(&current).unwrap(),
            "a pack is lost" => std::fs::remove_file(fixture.store.path().join(&pack)).unwrap(),
            "a new state directory" => {
                std::fs::remove_dir_all(&fixture.state).unwrap();
                std::fs::create_dir(&fixture.state).unwrap();
            }
            _ => {}
        }
        let (store, state) = (fixture.objects(), files_below(&fixture.state));
        let dry = fixture.try_commit(|options| options.dry_run = true).unwrap();
        assert!(dry.is_new, "{damage}");
        assert!(fixture.objects() == store, "{damage}: the store is as it was");
        let mut after = files_below(&fixture.state);
        after.retain(|name, _| state.contains_key(name) || !name.ends_with("/writer.lock"));
        assert!(after == state, "{damage}: the state is as it was: {:?}", after.keys());
    }
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
    fixture.assert_sound();
}

/// A snapshot that is published is there, whatever fails afterwards: to report a failed commit would be wrong.
#[test]
fn what_fails_after_the_snapshot_is_a_warning() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    fixture.commit_new();
    fixture.tree.file("etc/new", "new");
    settle();
    let caches = fixture.state.join("stores").join(fixture.store.id().to_string()).join("files");
    let index = fixture.store.path().join("snapshots/index");
    let (broken_caches, broken_index) = (caches.clone(), index.clone());
    let progress = Progress::watched(move |phase| {
        if phase == "publishing" {
            std::fs::remove_dir_all(&broken_caches).unwrap();
            std::fs::remove_file(&broken_index).unwrap();
            std::fs::create_dir(&broken_index).unwrap();
        }
    });
    let report = commit(&fixture.store, &fixture.options(), &progress).unwrap();
    let id = report.snapshot.unwrap();
    assert!(report.is_new);
    let warned = |what: &str| report.warnings.iter().any(|warning| warning.contains(what));
    assert!(warned("the list of snapshots was not renewed"), "{:?}", report.warnings);
    assert!(warned("the next commit reads area `tree` again"), "{:?}", report.warnings);
    fixture.assert_holds_tree(&id);
    assert_eq!(fixture.store.resolve("@latest").unwrap(), id, "the index is only a hint");
    std::fs::remove_dir(&index).unwrap();
    assert!(!fixture.commit().is_new);
    fixture.assert_sound();
}

#[test]
fn two_areas_are_one_snapshot() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    let other = Tree::new(fixture.dir().join("other"));
    other.file("x", "y");
    let second = AreaSpec { name: "a-second".into(), root: other.root().into(), ..fixture.area() };
    let id = fixture.try_commit(|options| options.areas.push(second)).unwrap().snapshot.unwrap();
    let snapshot = fixture.store.snapshot(&id).unwrap();
    let names: Vec<&str> = snapshot.areas.iter().map(|area| area.name.as_str()).collect();
    assert_eq!(names, ["a-second", AREA]);
    for (name, tree) in [("a-second", &other), (AREA, &fixture.tree)] {
        let found = evenkeel_tests::naive::read_snapshot(&fixture.store, &snapshot, name).unwrap();
        evenkeel_tests::fixture::assert_same(&found, &evenkeel_tests::read_tree(tree.root()));
    }
    fixture.assert_sound();
}

#[test]
fn a_second_writer_is_told_that_the_store_is_locked() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    let held = fixture.store.lock_writer(&fixture.state).unwrap();
    assert_eq!(fixture.try_commit(|_| {}).unwrap_err().kind(), ErrorKind::Locked);
    // Another state directory does not get around the lock on the store.
    let elsewhere = fixture.dir().join("state-2");
    let refused = fixture.try_commit(|options| options.state_dir = elsewhere).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
    assert!(refused.is_retryable());
    drop(held);
    fixture.commit_new();
}

#[test]
fn two_commits_at_once_give_one_snapshot_or_two_and_no_damage() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.try_commit(|_| {}))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(results.iter().any(Result::is_ok));
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::Locked);
    }
    let report = fixture.commit();
    fixture.assert_holds_tree(&report.snapshot.unwrap());
    fixture.assert_sound();
}

#[test]
fn a_cancelled_commit_leaves_nothing_to_trip_over() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let first = fixture.commit_new();
    for number in 0..30 {
        fixture.tree.file(format!("new/{number}"), noise(100 + number, 300_000));
    }
    // Stops at the start, and at several places on the way.
    for bytes in [0, 1, 1_000_000, 4_000_000, 8_000_000] {
        let (options, progress) = (fixture.options(), Progress::default());
        let outcome = std::thread::scope(|scope| {
            let worker = scope.spawn(|| commit(&fixture.store, &options, &progress));
            while progress.sample().bytes_done < bytes && !worker.is_finished() {
                std::thread::yield_now();
            }
            progress.cancel();
            worker.join().unwrap()
        });
        match outcome {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
            // It was done before it could be stopped.
            Ok(report) => assert_ne!(report.snapshot, Some(first)),
        }
        assert!(!fixture.check().is_damaged());
        assert!(!fixture.objects().keys().any(|name| name.contains("tmp-")), "a temporary was left");
    }
    let report = fixture.commit();
    fixture.assert_holds_tree(&report.snapshot.unwrap());
    assert!(!fixture.check().is_damaged());
}

/// A writer that was killed could not remove its temporaries; they would stay for ever, in the store and in the state
/// directory, where a million files' cache is some hundred megabytes.
#[test]
fn temporaries_of_a_dead_writer_are_swept() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    fixture.commit_new();
    let state = fixture.state.join("stores").join(fixture.store.id().to_string());
    let store = fixture.store.path();
    let dirs =
        [store.join("tmp"), store.join("segments"), store.join("snapshots"), store.join("locators"), store.into()];
    for dir in dirs.iter().chain([&state.join("files"), &state]) {
        std::fs::write(dir.join("tmp-0123456789abcdef"), "left over").unwrap();
    }
    fixture.commit();
    let mut left: Vec<String> = fixture.objects().into_keys().collect();
    left.extend(evenkeel_tests::fixture::files_below(&fixture.state).into_keys());
    left.retain(|name| name.contains("tmp-"));
    assert_eq!(left, [""; 0]);
}

/// A hole of 15 TiB: its zeros are hashed for an hour, during which no signal was heard and no progress told.
#[test]
fn a_commit_can_be_stopped_inside_a_hole() {
    let fixture = std::sync::Arc::new(Fixture::small());
    fixture.tree.file("huge", noise(1, 5000));
    let huge = std::fs::File::options().write(true).open(fixture.tree.path("huge")).unwrap();
    // Some file systems end before that.
    let size = [15_u64 << 40, 1 << 40].into_iter().find(|size| huge.set_len(*size).is_ok()).unwrap();
    let progress = std::sync::Arc::new(Progress::default());
    let (own, watched) = (fixture.clone(), progress.clone());
    let (done, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let options = CommitOptions { estimate: true, ..own.options() };
        done.send(commit(&own.store, &options, &watched).map(|_| ()))
    });
    let patience = std::time::Duration::from_secs(30);
    let started = std::time::Instant::now();
    while progress.sample().bytes_done < 64 << 20 {
        assert!(started.elapsed() < patience, "nothing is told of a hole: {:?}", progress.sample());
        std::thread::yield_now();
    }
    assert_eq!(progress.sample().bytes_total, size);
    progress.cancel();
    let outcome = outcome.recv_timeout(patience).expect("it stops");
    assert!(matches!(outcome, Err(evenkeel_store::Error::Interrupted)), "{outcome:?}");
}
