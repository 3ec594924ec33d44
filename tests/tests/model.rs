// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random series of edits and commits, compared with what a naive reader saw at each commit.

use std::collections::BTreeMap;

use evenkeel_store::id::SnapshotId;
use evenkeel_store::manifest::{Manifest, diff};
use evenkeel_tests::fixture::assert_same;
use evenkeel_tests::{Fixture, Item, noise, read_tree};
use proptest::prelude::*;

/// One step. Paths are drawn from a small set, so that steps meet.
#[derive(Debug, Clone)]
enum Step {
    Write(u8, u64, usize),
    Append(u8, usize),
    Sparse(u8, u64),
    Remove(u8),
    Symlink(u8, u8),
    Link(u8, u8),
    Rename(u8, u8),
    Mode(u8, u32),
    Mtime(u8, i64),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..24u8;
    let len = prop_oneof![Just(0), 1..5_000usize, 8_000..40_000usize, Just(200_000usize)];
    prop_oneof![
        4 => (name.clone(), 0..5u64, len.clone()).prop_map(|(a, seed, len)| Step::Write(a, seed, len)),
        1 => (name.clone(), len).prop_map(|(a, len)| Step::Append(a, len)),
        1 => (name.clone(), 0..200_000u64).prop_map(|(a, at)| Step::Sparse(a, at)),
        2 => name.clone().prop_map(Step::Remove),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Step::Symlink(a, b)),
        2 => (name.clone(), name.clone()).prop_map(|(a, b)| Step::Link(a, b)),
        2 => (name.clone(), name.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (name.clone(), prop_oneof![Just(0o600), Just(0o755), Just(0o4711)]).prop_map(|(a, m)| Step::Mode(a, m)),
        1 => (name, -3..3i64).prop_map(|(a, secs)| Step::Mtime(a, secs)),
        2 => Just(Step::Commit),
    ]
}

/// Four directories of names that sort in trying ways, two levels deep.
fn path(name: u8) -> String {
    const NAMES: [&str; 6] = ["a", "a!", "a-b", "ab", "\u{e9}", "z"];
    let (dir, leaf) = (name / 6, NAMES[usize::from(name % 6)]);
    match dir {
        0 => leaf.to_string(),
        1 => format!("d/{leaf}"),
        2 => format!("d!/{leaf}"),
        _ => format!("d/e/{leaf}"),
    }
}

/// Does a step as far as the tree allows it.
fn apply(fixture: &Fixture, step: &Step) {
    let tree = &fixture.tree;
    let kind = |name: u8| std::fs::symlink_metadata(tree.path(path(name))).map(|meta| meta.file_type());
    let is_file = |name: u8| kind(name).is_ok_and(|kind| kind.is_file());
    match *step {
        Step::Write(a, seed, len) if is_file(a) || kind(a).is_err() => {
            tree.file(path(a), noise(seed, len));
        }
        Step::Append(a, len) if is_file(a) => {
            let mut file = std::fs::File::options().append(true).open(tree.path(path(a))).unwrap();
            std::io::Write::write_all(&mut file, &noise(7, len)).unwrap();
        }
        Step::Sparse(a, at) if is_file(a) => {
            tree.sparse(path(a), 300_000, &[(at, b"data")]);
        }
        Step::Remove(a) if kind(a).is_ok() => {
            tree.remove(path(a));
        }
        Step::Symlink(a, b) if kind(a).is_err() => {
            tree.symlink(path(a), path(b));
        }
        Step::Link(a, b) if is_file(a) && kind(b).is_err() => {
            tree.link(path(a), path(b));
        }
        Step::Rename(a, b) if a != b && kind(a).is_ok() => {
            tree.rename(path(a), path(b));
        }
        Step::Mode(a, mode) if is_file(a) => {
            tree.mode(path(a), mode);
        }
        Step::Mtime(a, secs) if kind(a).is_ok() => {
            tree.mtime(path(a), secs, 5);
        }
        _ => {}
    }
}

type Model = BTreeMap<Vec<u8>, Item>;

/// What differs between two trees, by path.
fn naive_diff(before: &Model, after: &Model) -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = before.keys().chain(after.keys()).cloned().collect();
    paths.sort_by_key(|path| path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>());
    paths.dedup();
    // A further name of a group is an entry that says only which is the first: what the inode has is the first's.
    let entry = |model: &Model, path: &Vec<u8>| -> Option<(Option<Item>, Option<Vec<u8>>, usize)> {
        let item = model.get(path)?;
        let further = item.group.clone().filter(|first| first != path);
        let names = match &item.group {
            Some(first) if first == path => model.values().filter(|other| other.group == item.group).count(),
            _ => 0,
        };
        Some((further.is_none().then(|| Item { group: None, ..item.clone() }), further, names))
    };
    paths.into_iter().filter(|path| entry(before, path) != entry(after, path)).collect()
}

fn diff_of(fixture: &Fixture, before: &SnapshotId, after: &SnapshotId) -> Vec<Vec<u8>> {
    let reader = fixture.store.reader().unwrap();
    let area = |id| fixture.store.snapshot(id).unwrap().areas[0].clone();
    let [before, after] = [before, after].map(|id| Manifest::open(&reader, &area(id)).unwrap());
    diff(Some(&before), Some(&after)).map(|change| change.unwrap().path.as_bytes().to_vec()).collect()
}

fn run(fixture: &Fixture, steps: &[Step]) {
    let mut history: Vec<(SnapshotId, Model)> = Vec::new();
    for step in steps.iter().chain([&Step::Commit]) {
        let Step::Commit = step else {
            apply(fixture, step);
            continue;
        };
        let model = read_tree(fixture.tree.root());
        let report = fixture.try_commit(|_| {}).unwrap();
        let changed = history.last().is_none_or(|(_, last)| *last != model);
        assert_eq!(report.is_new, changed, "a snapshot exactly when something changed");
        if changed {
            history.push((report.snapshot.unwrap(), model));
        }
    }
    for (id, model) in &history {
        assert_same(&fixture.read(id), model);
    }
    for pair in history.windows(2).chain(history.windows(history.len().min(5))) {
        let ((a, before), (b, after)) = (&pair[0], pair.last().unwrap());
        let expected = naive_diff(before, after);
        assert_eq!(diff_of(fixture, a, b), expected);
        assert_eq!(diff_of(fixture, b, a), expected, "and backwards");
    }
    fixture.assert_sound();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_reads_back_as_it_was(steps in proptest::collection::vec(step(), 1..60)) {
        let fixture = Fixture::small();
        fixture.tree.dir("d/e").dir("d!");
        run(&fixture, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same among so many entries that the manifest has several levels.
    #[test]
    fn also_in_a_large_tree(steps in proptest::collection::vec(step(), 1..40)) {
        let fixture = Fixture::small();
        fixture.tree.dir("d/e").dir("d!");
        for number in 0..1500 {
            fixture.tree.file(format!("d/m{:02}/{number}", number % 40), "");
        }
        run(&fixture, &steps);
    }
}
