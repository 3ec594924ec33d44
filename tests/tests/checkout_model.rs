// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Generated trees and edits: checkout after commit is the identity, and the modes keep their promises.

use evenkeel_store::checkout::{Ceiling, Mode};
use evenkeel_tests::fixture::{Fixture, assert_same};
use evenkeel_tests::place::Place;
use evenkeel_tests::{Tree, noise, read_tree};
use proptest::prelude::*;

/// One change of a tree. Names are few, so that changes meet.
#[derive(Debug, Clone)]
enum Edit {
    File { name: usize, content: u8, mode: u32 },
    Dir { name: usize, mode: u32 },
    Symlink { name: usize, target: u8 },
    Fifo { name: usize },
    Link { from: usize, to: usize },
    Remove { name: usize },
    Time { name: usize, secs: i64, nanos: u32 },
    Attribute { name: usize, value: u8 },
}

const NAMES: [&str; 10] = ["a", "a/a", "a/b", "a/b/c", "a!", "b", "b/x", "b/x/y", "c", "d"];

fn edit() -> impl Strategy<Value = Edit> {
    let name = 0..NAMES.len();
    let mode = prop_oneof![Just(0o644u32), Just(0o755), Just(0o600), Just(0o4755), Just(0o1777)];
    let dir_mode = prop_oneof![Just(0o755u32), Just(0o700), Just(0o2775), Just(0o1777)];
    prop_oneof![
        4 => (name.clone(), any::<u8>(), mode).prop_map(|(name, content, mode)| Edit::File { name, content, mode }),
        3 => (name.clone(), dir_mode).prop_map(|(name, mode)| Edit::Dir { name, mode }),
        1 => (name.clone(), 0..3u8).prop_map(|(name, target)| Edit::Symlink { name, target }),
        1 => name.clone().prop_map(|name| Edit::Fifo { name }),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Edit::Link { from, to }),
        2 => name.clone().prop_map(|name| Edit::Remove { name }),
        1 => (name.clone(), -9..9_000_000_000i64, 0..1_000_000_000u32)
            .prop_map(|(name, secs, nanos)| Edit::Time { name, secs, nanos }),
        1 => (name, any::<u8>()).prop_map(|(name, value)| Edit::Attribute { name, value }),
    ]
}

fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
    proptest::collection::vec(edit(), 0..most)
}

/// Contents: nothing, one chunk, several chunks, with holes.
fn content(tree: &Tree, name: &str, content: u8) {
    match content % 5 {
        0 => _ = tree.file(name, ""),
        1 => _ = tree.file(name, [content]),
        2 => _ = tree.file(name, noise(content.into(), 40_000)),
        3 => _ = tree.sparse(name, 100_000, &[(8192 * u64::from(content % 7), &noise(content.into(), 3000))]),
        _ => _ = tree.file(name, noise(u64::from(content % 2), 500)),
    }
}

/// Does what can be done; an edit that does not fit the tree is left out.
fn apply(tree: &Tree, edits: &[Edit]) {
    let stat = |name: &str| std::fs::symlink_metadata(tree.path(name)).ok();
    let parent_fits = |name: &str| {
        name.rsplit_once('/').is_none_or(|(parent, _)| {
            let mut at = String::new();
            parent.split('/').all(|part| {
                at = if at.is_empty() { part.to_string() } else { format!("{at}/{part}") };
                stat(&at).is_some_and(|stat| stat.is_dir())
            })
        })
    };
    let clear = |name: &str| {
        if stat(name).is_some() {
            tree.remove(name);
        }
    };
    for edit in edits {
        let name = match edit {
            Edit::Link { to, .. } => NAMES[*to],
            Edit::File { name, .. }
            | Edit::Dir { name, .. }
            | Edit::Symlink { name, .. }
            | Edit::Fifo { name }
            | Edit::Remove { name }
            | Edit::Time { name, .. }
            | Edit::Attribute { name, .. } => NAMES[*name],
        };
        if !parent_fits(name) {
            continue;
        }
        let is_file = |name: &str| parent_fits(name) && stat(name).is_some_and(|stat| stat.is_file());
        let is_dir = |name: &str| stat(name).is_some_and(|stat| stat.is_dir());
        match edit {
            Edit::File { content: number, mode, .. } => {
                clear(name);
                content(tree, name, *number);
                tree.mode(name, *mode);
            }
            Edit::Dir { mode, .. } => {
                if !is_dir(name) {
                    clear(name);
                    tree.dir(name);
                }
                tree.mode(name, *mode);
            }
            Edit::Symlink { target, .. } => {
                clear(name);
                tree.symlink(name, format!("../{target}"));
            }
            Edit::Fifo { .. } => {
                clear(name);
                tree.fifo(name);
            }
            Edit::Link { from, .. } if !NAMES[*from].starts_with(name) && is_file(NAMES[*from]) => {
                clear(name);
                tree.link(NAMES[*from], name);
            }
            Edit::Remove { .. } => clear(name),
            Edit::Time { secs, nanos, .. } if stat(name).is_some() => _ = tree.mtime(name, *secs, *nanos),
            Edit::Attribute { value, .. } if is_file(name) || is_dir(name) => {
                tree.xattr(name, "user.evenkeel", &[*value]);
            }
            Edit::Link { .. } | Edit::Time { .. } | Edit::Attribute { .. } => {}
        }
    }
}

/// A commit of a tree that may be as it was.
fn commit(fixture: &Fixture) -> evenkeel_store::id::SnapshotId {
    // One file tells snapshots apart, so that none is empty.
    fixture.tree.file("always", format!("{:?}", std::time::Instant::now()));
    fixture.commit_new()
}

fn full(
    place: &Place<'_>,
    id: &evenkeel_store::id::SnapshotId,
    mode: Mode,
) -> evenkeel_store::checkout::CheckoutReport {
    place
        .try_checkout(id, |options| {
            (options.mode, options.max_delete, options.max_removals) =
                (Some(mode), Ceiling::Count(1000), Ceiling::Count(1000));
        })
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn checkout_after_commit_is_the_identity(made in edits(40)) {
        let fixture = Fixture::small();
        apply(&fixture.tree, &made);
        let id = commit(&fixture);
        let place = Place::new(&fixture, "server");
        place.checkout_exactly(&id);
        assert_same(&read_tree(&place.root), &read_tree(fixture.tree.root()));
    }

    #[test]
    fn full_and_force_reach_any_reference_from_anywhere(
        steps in proptest::collection::vec((edits(12), edits(8), any::<bool>()), 1..4)
    ) {
        let fixture = Fixture::small();
        let place = Place::new(&fixture, "server");
        for (master, local, force) in steps {
            apply(&fixture.tree, &master);
            let id = commit(&fixture);
            full(&place, &id, if force { Mode::Force } else { Mode::Full });
            place.assert_is(&id);
            prop_assert!(place.status().in_sync() && place.status().areas[0].drift.is_empty());
            apply(&place.tree(), &local);
            full(&place, &id, Mode::Full);
            place.assert_is(&id);
        }
    }

    #[test]
    fn incremental_removes_nothing_and_hides_nothing(
        steps in proptest::collection::vec((edits(12), edits(8)), 1..4)
    ) {
        let fixture = Fixture::small();
        let place = Place::new(&fixture, "server");
        for (master, local) in steps {
            apply(&fixture.tree, &master);
            let id = commit(&fixture);
            let before = if place.root.exists() { read_tree(&place.root) } else { Default::default() };
            let report = full(&place, &id, Mode::Incremental);
            let (after, wanted) = (read_tree(&place.root), fixture.read(&id));
            for path in before.keys() {
                prop_assert!(after.contains_key(path), "{} went", path.escape_ascii());
            }
            let kept: Vec<&[u8]> = report.areas[0].kept.iter().map(|kept| kept.path.as_bytes()).collect();
            for (path, item) in &wanted {
                let reported = kept.iter().any(|kept| kept == path || path.starts_with(&[kept, &b"/"[..]].concat()));
                let same = after.get(path).is_some_and(|found| {
                    // Groups are named by names that may be strays, and a directory's time may be a stray's doing.
                    let time = if found.kind == evenkeel_tests::Kind::Dir { item.mtime } else { found.mtime };
                    let found = evenkeel_tests::Item { group: item.group.clone(), mtime: time, ..found.clone() };
                    found == *item
                });
                prop_assert!(same || reported, "{} differs silently", path.escape_ascii());
            }
            prop_assert_eq!(report.in_sync, kept.is_empty());
            let again = full(&place, &id, Mode::Incremental);
            prop_assert!(again.is_empty(), "a second run: {:?}", again.areas[0].changes);
            apply(&place.tree(), &local);
        }
    }
}
