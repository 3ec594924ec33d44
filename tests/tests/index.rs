// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Segments, locators and `snapshots/index` over many commits, lost, damaged and rebuilt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_store::Progress;
use evenkeel_store::backend::ObjectName;
use evenkeel_store::check::{CheckOptions, check};
use evenkeel_store::commit::SegmentLimits;
use evenkeel_store::format::manifest::ChunkRun;
use evenkeel_store::format::manifest::{ChunkList, InodeKind, ManifestHead, ManifestNode, Node, Timestamp};
use evenkeel_store::format::table::{Location, Table, TableKind};
use evenkeel_store::id::{ChunkId, SnapshotId};
use evenkeel_store::manifest::content_runs;
use evenkeel_store::pack::read_footer;
use evenkeel_store::read::{ChunkReader, ReadScratch};
use evenkeel_tests::fixture::settle;
use evenkeel_tests::{Fixture, noise};

/// A series of commits, each with a change; returns their ids.
fn series(fixture: &Fixture, commits: u64) -> Vec<SnapshotId> {
    (0..commits)
        .map(|number| {
            let name = format!("d{}/f{number}", number % 5);
            fixture.tree.file(name, noise(number, 30_000)).file("same-name", noise(1000 + number, 50_000));
            if number % 4 == 3 {
                fixture.tree.remove(format!("d{}/f{}", (number - 1) % 5, number - 1));
            }
            fixture.commit_new()
        })
        .collect()
}

/// Every chunk that a snapshot needs, found by reading nodes one by one.
fn chunks_of(fixture: &Fixture, id: &SnapshotId) -> BTreeSet<ChunkId> {
    let reader = fixture.store.reader().unwrap();
    let mut found = BTreeSet::new();
    for area in &fixture.store.snapshot(id).unwrap().areas {
        found.insert(area.manifest);
        let mut scratch = ReadScratch::default();
        let head = ManifestHead::decode(reader.read(&area.manifest, &mut scratch).unwrap().plain()).unwrap();
        visit(&reader, head.root, &mut found);
    }
    found
}

fn visit(reader: &ChunkReader, node: ChunkId, found: &mut BTreeSet<ChunkId>) {
    found.insert(node);
    let mut scratch = ReadScratch::default();
    match ManifestNode::decode(reader.read(&node, &mut scratch).unwrap().plain()).unwrap() {
        ManifestNode::Inner { children, .. } => children.iter().for_each(|child| visit(reader, child.id, found)),
        ManifestNode::Leaf(entries) => {
            for entry in entries {
                let Node::Inode(inode) = entry.node else { continue };
                let InodeKind::File(content) = inode.kind else { continue };
                let listed = match &content.chunks {
                    ChunkList::Indirect { runs, .. } => runs.clone(),
                    _ => Vec::new(),
                };
                for run in listed.into_iter().chain(content_runs(reader, &content).unwrap()) {
                    if let ChunkRun::Data { id, .. } = run {
                        found.insert(id);
                    }
                }
            }
        }
    }
}

/// What a snapshot's locator chain says, and how many locators it took.
fn follow(fixture: &Fixture, id: &SnapshotId) -> (BTreeMap<ChunkId, Location>, u32) {
    let mut places = BTreeMap::new();
    let mut next = Some(*id);
    let mut steps = 0;
    while let Some(id) = next {
        let bytes = fixture.store.backend().read(&ObjectName::Locator(id), 1 << 30).unwrap().expect("a locator");
        let table = Table::decode(bytes).unwrap();
        let TableKind::Locator { snapshot, base } = table.kind() else { panic!("a locator") };
        assert_eq!(snapshot, id);
        places.extend(table.iter());
        steps += 1;
        next = base.map(|(base, left)| {
            assert!(left + steps <= 16, "a chain through {left} more after {steps}");
            base
        });
    }
    (places, steps)
}

/// What every pack's footer says.
fn places(fixture: &Fixture) -> BTreeMap<ChunkId, Vec<Location>> {
    let backend = fixture.store.backend();
    let mut places: BTreeMap<ChunkId, Vec<Location>> = BTreeMap::new();
    for pack in fixture.store.listing().unwrap().list_packs().unwrap() {
        for (id, at) in read_footer(backend, &pack).unwrap().locations() {
            places.entry(id).or_default().push(at);
        }
    }
    places
}

fn assert_locators_resolve(fixture: &Fixture, ids: &[SnapshotId]) -> Vec<u32> {
    let places = places(fixture);
    let mut lengths = Vec::new();
    for id in ids {
        let (located, steps) = follow(fixture, id);
        for chunk in chunks_of(fixture, id) {
            let at = located.get(&chunk).unwrap_or_else(|| panic!("chunk {chunk} of {id} is in no locator"));
            assert!(places[&chunk].contains(at), "chunk {chunk} is elsewhere");
        }
        lengths.push(steps);
    }
    lengths
}

#[test]
fn every_locator_chain_resolves_its_snapshot() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let ids = series(&fixture, 36);
    let lengths = assert_locators_resolve(&fixture, &ids);
    let expected: Vec<u32> = (0..36).map(|at| at % 16 + 1).collect();
    assert_eq!(lengths, expected, "every 16th is full");
}

#[test]
fn a_lost_or_damaged_locator_makes_the_next_one_full() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let mut ids = series(&fixture, 3);
    let path = |id: &SnapshotId| fixture.store.path().join(ObjectName::Locator(*id).to_string());
    std::fs::remove_file(path(&ids[2])).unwrap();
    fixture.tree.file("next", "1");
    let next = fixture.commit_new();
    assert_eq!(follow(&fixture, &next).1, 1);
    std::fs::write(path(&next), b"nonsense").unwrap();
    fixture.tree.file("next", "2");
    let last = fixture.commit_new();
    assert_eq!(follow(&fixture, &last).1, 1);
    ids.truncate(2);
    ids.push(last);
    assert_locators_resolve(&fixture, &ids);
}

/// A link in the middle of a chain is gone: the parent's own locator is sound and says how many follow, so a chain that
/// continued at it could not be followed to its end.
#[test]
fn a_chain_with_a_lost_link_is_not_continued() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let ids = series(&fixture, 4);
    std::fs::remove_file(fixture.store.path().join(ObjectName::Locator(ids[1]).to_string())).unwrap();
    fixture.tree.file("next", "1");
    let next = fixture.commit_new();
    assert_locators_resolve(&fixture, &[next]);
}

#[test]
fn segments_merge_and_keep_every_lookup_right() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    let mut most = 0;
    for round in 0..40 {
        fixture.tree.file(format!("n{round}"), noise(round, 20_000));
        fixture.commit_new();
        let current = fixture.store.segments_current().unwrap().unwrap();
        most = most.max(current.segments.len());
        assert_eq!(
            fixture.store.listing().unwrap().list_segments().unwrap().len(),
            current.segments.len(),
            "no old ones are left"
        );
    }
    assert!(most <= 6, "{most} segments after 40 commits");
    let reader = fixture.store.reader().unwrap();
    for (id, at) in places(&fixture) {
        assert!(at.contains(&reader.locate(&id).expect("listed")), "chunk {id}");
    }
    assert!(reader.notes().is_empty());
    fixture.assert_sound();
}

/// A merge, or a new index, that would have more records or packs than one segment may list made every commit fail.
#[test]
fn segments_keep_to_their_limits() {
    let limits = SegmentLimits { records_max: 60, packs_max: 7 };
    let fixture = Fixture::small();
    fixture.tree.sample();
    let commit = || {
        settle();
        fixture.try_commit(|options| options.segment_limits = limits).unwrap().snapshot.unwrap()
    };
    let assert_limits = |what: &str| {
        let current = fixture.store.segments_current().unwrap().unwrap();
        for segment in &current.segments {
            let name = ObjectName::Segment(segment.id);
            let table = Table::decode(fixture.store.backend().read(&name, 1 << 30).unwrap().unwrap()).unwrap();
            assert!(table.len() <= 60 && table.packs().len() <= 7, "{what}: {} {}", table.len(), table.packs().len());
        }
        let reader = fixture.store.reader().unwrap();
        for (id, at) in places(&fixture) {
            assert!(at.contains(&reader.locate(&id).expect("listed")), "{what}: chunk {id}");
        }
        assert_eq!(fixture.store.listing().unwrap().list_segments().unwrap().len(), current.segments.len(), "{what}");
        current.segments.len()
    };
    for round in 0..25 {
        fixture.tree.file(format!("n{round}"), noise(round, 60_000));
        commit();
        assert_limits(&format!("round {round}"));
    }
    assert!(places(&fixture).len() > 200);
    let merged = assert_limits("merged");
    assert!(merged < 25, "{merged} segments after 25 commits: none were merged");
    std::fs::remove_file(fixture.store.path().join("segments/current")).unwrap();
    fixture.tree.file("last", "1");
    let last = commit();
    assert!(assert_limits("rebuilt") > 5);
    fixture.assert_holds_tree(&last);
    fixture.assert_sound();
}

/// What a running commit publishes between two looks of a check was called missing, damaged, or a lost snapshot.
#[test]
fn a_check_while_commits_run_finds_no_damage() {
    let fixture = Arc::new(Fixture::small());
    fixture.tree.sample();
    fixture.commit_new();
    for merge in [false, true] {
        for phase in ["checking packs", "reading packs", "checking snapshots"] {
            let own = Arc::clone(&fixture);
            let progress = Progress::watched(move |now| {
                if now == phase {
                    let number = own.store.snapshots().unwrap().len() as u64;
                    // A large commit merges every segment there is.
                    let len = if merge { 3_000_000 } else { 20_000 };
                    own.tree.file("changes", noise(number, len));
                    own.commit_new();
                }
            });
            let options = CheckOptions { read_data: true, ..CheckOptions::default() };
            let report = check(&fixture.store, &options, &progress).unwrap();
            assert_eq!(report.findings, [], "{phase}");
        }
    }
    fixture.assert_sound();
}

/// The same at moments that nobody chose.
#[test]
fn checks_beside_a_series_of_commits_find_no_damage() {
    let fixture = Fixture::small();
    fixture.tree.sample();
    fixture.commit_new();
    std::thread::scope(|scope| {
        let commits = scope.spawn(|| series(&fixture, 25));
        while !commits.is_finished() {
            let report = check(&fixture.store, &CheckOptions::default(), &Progress::default()).unwrap();
            assert!(!report.is_damaged(), "{:#?}", report.findings);
        }
    });
    fixture.assert_sound();
}

/// `snapshots()` in order of commit, with the index and without it.
fn assert_order_survives(fixture: &Fixture, ids: &[SnapshotId]) {
    let order = || fixture.store.snapshots().unwrap().into_iter().map(|record| record.id).collect::<Vec<_>>();
    assert_eq!(order(), ids);
    let index = fixture.store.path().join("snapshots/index");
    let good = std::fs::read(&index).unwrap();
    for bad in [None, Some(Vec::new()), Some(good[..good.len() - 1].to_vec()), Some(vec![0xAB; 300])] {
        match bad {
            None => std::fs::remove_file(&index).unwrap(),
            Some(bytes) => std::fs::write(&index, bytes).unwrap(),
        }
        assert_eq!(order(), ids, "without a sound index");
        assert_eq!(fixture.store.resolve("@latest").unwrap(), *ids.last().unwrap());
    }
    fixture.tree.file("after", noise(ids.len() as u64, 10));
    let next = fixture.commit_new();
    let rebuilt = fixture.store.snapshot_index().unwrap().expect("the commit made a new one");
    assert_eq!(rebuilt.iter().map(|record| record.id).collect::<Vec<_>>(), [ids, &[next]].concat());
}

#[test]
fn the_snapshot_index_is_only_a_hint() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    let ids = series(&fixture, 8);
    assert_order_survives(&fixture, &ids);
    fixture.assert_sound();
}

/// Many commits in one second: without the index they were sorted by id, so that `@latest` was any of them.
#[test]
fn commits_of_one_second_keep_their_order() {
    let fixture = Fixture::new();
    let ids: Vec<SnapshotId> = (0..12u64)
        .map(|number| {
            fixture.tree.file("f", noise(number, 100));
            let time = Timestamp { secs: 1_700_000_000, nanos: 0 };
            fixture.try_commit(|options| options.time = Some(time)).unwrap().snapshot.unwrap()
        })
        .collect();
    assert_order_survives(&fixture, &ids);
}

/// The clock jumps back by a day: the newer snapshot has the earlier time, and is still the latest.
#[test]
fn a_clock_that_jumps_does_not_change_the_order() {
    let fixture = Fixture::new();
    let ids: Vec<SnapshotId> = [1_700_000_000, 1_699_913_600, 0, 1_699_913_601, 4_294_967_296, 1_700_000_001]
        .into_iter()
        .zip(0..)
        .map(|(secs, number)| {
            fixture.tree.file("f", noise(number, 100));
            let time = Timestamp { secs, nanos: 0 };
            fixture.try_commit(|options| options.time = Some(time)).unwrap().snapshot.unwrap()
        })
        .collect();
    assert_order_survives(&fixture, &ids);
}

/// A writer that died after it published a snapshot and before it listed it.
#[test]
fn a_snapshot_that_the_index_lacks_is_found_and_listed_by_the_next_commit() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    let ids = series(&fixture, 3);
    let index = fixture.store.path().join("snapshots/index");
    let old = std::fs::read(&index).unwrap();
    fixture.tree.file("more", "1");
    let unlisted = fixture.commit_new();
    std::fs::write(&index, old).unwrap();
    assert_eq!(fixture.store.resolve("@latest").unwrap(), unlisted);
    fixture.tree.file("more", "2");
    let next = fixture.commit_new();
    let listed: Vec<SnapshotId> = fixture.store.snapshot_index().unwrap().unwrap().iter().map(|r| r.id).collect();
    assert_eq!(listed, [ids.as_slice(), &[unlisted, next]].concat());
    assert_eq!(fixture.store.snapshot(&next).unwrap().parent, Some(unlisted));
}

#[test]
fn names_of_snapshots() {
    let fixture = Fixture::new();
    let ids = {
        fixture.tree.sample();
        series(&fixture, 3)
    };
    let resolve = |name: &str| fixture.store.resolve(name);
    assert_eq!(resolve("@latest").unwrap(), ids[2]);
    assert_eq!(resolve("@latest~1").unwrap(), ids[1]);
    assert_eq!(resolve("@latest~").unwrap(), ids[1]);
    assert_eq!(resolve("@latest~2").unwrap(), ids[0]);
    assert_eq!(resolve(&ids[1].to_hex()).unwrap(), ids[1]);
    assert_eq!(resolve(&ids[1].to_hex()[..8]).unwrap(), ids[1]);
    assert_eq!(resolve(&format!("{}~1", &ids[1].to_hex()[..10])).unwrap(), ids[0]);
    let seven = &ids[1].to_hex()[..7];
    for unknown in
        ["@latest~3", "@latest~x", "@newest", "", "~1", seven, "0123456789abcdef", "@latest~99999999999999999999"]
    {
        let error = resolve(unknown).unwrap_err();
        assert_eq!(error.kind(), evenkeel_store::ErrorKind::Unknown, "{unknown}: {error}");
    }
}
