// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is left after damage is found, and what a tree still has is stored again.

use std::path::{Path, PathBuf};

use evenkeel_store::backend::ObjectName;
use evenkeel_store::commit::commit;
use evenkeel_store::format::pack::PackKind;
use evenkeel_store::{Progress, Store};
use evenkeel_tests::naive::read_everything;
use evenkeel_tests::noise;

use crate::damage::{Subject, spoil};

/// What the matrix advises: without the damaged pack, everything that the tree still holds is stored again.
#[test]
fn removing_a_damaged_pack_lets_the_next_commit_store_its_content_again() {
    let subject = Subject::new();
    for kind in [PackKind::Data, PackKind::Manifest] {
        for pack in subject.packs(kind) {
            let (path, store) = (subject.path(&pack), &subject.fixture.store);
            subject.restore();
            spoil("flip within", &path, &path);
            assert!(subject.fixture.check().is_damaged());
            let bad = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert_eq!(subject.commit(store), "nothing new");
            let report = subject.fixture.check();
            assert!(!report.findings.iter().any(|finding| finding.hurts.contains(&subject.ids[1])), "{report:#?}");
            let without = subject.reads(store);
            if !path.exists() {
                // Back in its place it hurts nothing: what is whole in it is found, the rest has a copy.
                std::fs::write(&path, bad).unwrap();
                let with = subject.reads(store);
                assert_eq!(with[1], "ok", "{pack}");
                assert!(with[0] == "ok" || without[0] != "ok", "{pack}: {with:?}, {without:?}");
                assert_eq!(subject.commit(store), "nothing new");
                assert_eq!(subject.reads(store)[1], "ok", "{pack}");
            }
        }
    }
}

/// A footer is damaged, and this machine has no reason to trust the segments: it never saw the store, or the list of
/// segments is lost as well. An index made from footers alone lost every chunk of that pack, though they are all there.
#[test]
fn a_damaged_footer_loses_no_chunk_whatever_else_is_lost() {
    let subject = Subject::new();
    let (fixture, store) = (&subject.fixture, &subject.fixture.store);
    let packs = [PackKind::Data, PackKind::Manifest].into_iter().flat_map(|kind| subject.packs(kind));
    for (pack, list_is_lost) in packs.flat_map(|pack| [(pack, false), (pack, true)]) {
        let place = format!("{pack}, list lost: {list_is_lost}");
        subject.restore();
        let path = subject.path(&pack);
        spoil("flip at end", &path, &path);
        std::fs::remove_dir_all(&fixture.state).unwrap();
        if list_is_lost {
            std::fs::remove_file(subject.path(&ObjectName::SegmentsCurrent)).unwrap();
        }
        assert_eq!(subject.reads(store), ["ok", "ok"], "{place}");
        assert_eq!(subject.commit(store), "nothing new", "{place}");
        assert_eq!(subject.reads(store), ["ok", "ok"], "{place}: after a commit");
        let before = fixture.objects();
        assert_eq!(subject.commit(store), "nothing new", "{place}");
        assert!(fixture.objects() == before, "{place}: the index is made once");
        // Nothing new relied on what only a segment says: the content is in another pack, or this one was made anew.
        if std::fs::read(&path).unwrap() != subject.store[&relative(&subject, &path)] {
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(subject.reads(store)[1], "ok", "{place}: without the pack");
        assert_eq!(subject.commit(store), "nothing new", "{place}");
        assert_eq!(subject.reads(store)[1], "ok", "{place}: without the pack, after a commit");
    }
}

/// The pack that came back with its content holds the chunks that were stored again meanwhile, though no segment says so.
#[test]
fn a_chunk_is_found_in_the_pack_that_no_segment_names() {
    let subject = Subject::new();
    let store = &subject.fixture.store;
    let pack = subject.packs(PackKind::Data)[1];
    let good = std::fs::read(subject.path(&pack)).unwrap();
    let twin = |store: &Store| -> PathBuf {
        let packs =
            store.listing().unwrap().list_packs().unwrap().into_iter().map(|id| subject.path(&ObjectName::Pack(id)));
        packs.into_iter().find(|path| !subject.store.contains_key(&relative(&subject, path))).unwrap()
    };
    let cases = [false, true].into_iter().flat_map(|old| {
        ["deleted", "flip within"].into_iter().flat_map(move |damage| [(old, damage, false), (old, damage, true)])
    });
    for (old_is_damaged, damage, list_is_lost) in cases {
        subject.restore();
        std::fs::remove_file(subject.path(&pack)).unwrap();
        let other = evenkeel_store::commit::CommitOptions { threads: 1, level: 12, ..subject.fixture.options() };
        // More content, so that the chunks lie in another pack than before.
        subject.fixture.tree.file("more", noise(7, 30_000));
        let id = commit(store, &other, &Progress::default()).unwrap().snapshot.unwrap();
        subject.fixture.tree.remove("more");
        std::fs::write(subject.path(&pack), &good).unwrap();
        let damaged = if old_is_damaged { subject.path(&pack) } else { twin(store) };
        spoil(damage, &damaged, &damaged);
        if list_is_lost {
            std::fs::remove_file(subject.path(&ObjectName::SegmentsCurrent)).unwrap();
        }
        let place = format!("old: {old_is_damaged}, {damage}, list lost: {list_is_lost}");
        assert_eq!(subject.reads(store)[1], "ok", "{place}");
        if damage == "deleted" && !old_is_damaged {
            let error = read_everything(store, &id).unwrap_err();
            assert_eq!(error.kind(), evenkeel_store::ErrorKind::Damaged, "what was in no other pack is lost: {error}");
        }
    }
}

fn relative(subject: &Subject, path: &Path) -> String {
    path.strip_prefix(subject.fixture.store.path()).unwrap().to_str().unwrap().to_owned()
}
