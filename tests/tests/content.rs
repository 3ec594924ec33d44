// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Content, names and kinds: whatever a file system can hold comes back.

use evenkeel_store::ErrorKind;
use evenkeel_store::commit::CommitReport;
use evenkeel_store::format::manifest::{ChunkList, InodeKind, Node};
use evenkeel_tests::fixture::settle;
use evenkeel_tests::{Fixture, noise, read_tree};

const K: u64 = 1024;

#[test]
fn sparse_files_keep_their_holes() {
    let fixture = Fixture::small();
    let block = noise(1, 4096);
    let large = noise(2, 100_000);
    let tree = &fixture.tree;
    tree.sparse("all-hole", 5 << 20, &[])
        .sparse("leading", 1 << 20, &[((1 << 20) - 4096, &block)])
        .sparse("trailing", 1 << 20, &[(0, &large)])
        .sparse("both", 3 << 20, &[(1 << 20, &large)])
        .sparse("unaligned", 300_001, &[(70_001, b"x"), (200_003, &large[..50_000])])
        .sparse("many", 4 << 20, &(0..60).map(|at| (at * 64 * K, block.as_slice())).collect::<Vec<_>>())
        .sparse("odd-end", 8193, &[(0, b"start")])
        .sparse("tiny", 4095, &[])
        .sparse("one-block", 4096, &[])
        .sparse("over-one-block", 4097, &[])
        .sparse("zeros-written", 4 * 4096, &[(4096, &[0; 4096])])
        .sparse("huge", 1 << 40, &[]);
    let huge = tree.path("huge");
    std::fs::remove_file(huge).unwrap(); // The naive reader would read a terabyte.
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
    fixture.assert_sound();
}

/// A terabyte of nothing is hashed as zeros; bounded here to what takes a moment.
#[test]
fn a_large_hole_costs_no_space() {
    let fixture = Fixture::new();
    fixture.tree.sparse("f", 1 << 30, &[(1 << 29, b"in the middle")]);
    let report = fixture.commit();
    assert!(report.stored_bytes < 20_000, "{} bytes", report.stored_bytes);
    let entries = fixture.entries(&report.snapshot.unwrap());
    let Node::Inode(inode) = &entries[1].node else { panic!("a file") };
    let InodeKind::File(content) = &inode.kind else { panic!("a file") };
    assert_eq!(content.size, 1 << 30);
}

#[test]
fn a_hole_that_is_filled_with_zeros_is_a_change() {
    let fixture = Fixture::new();
    fixture.tree.sparse("f", 64 * K, &[(0, b"x")]);
    let first = fixture.commit_new();
    fixture.tree.sparse("f", 64 * K, &[(0, b"x"), (8192, &[0; 8192])]);
    let second = fixture.commit_new();
    fixture.assert_holds_tree(&second);
    assert_ne!(fixture.read(&first)[b"f".as_slice()].kind, fixture.read(&second)[b"f".as_slice()].kind);
}

#[test]
fn sizes_around_every_bound() {
    let fixture = Fixture::small();
    let chunker = fixture.store.format().chunker;
    let bounds = [1, 4096, chunker.min, chunker.avg, chunker.max, 2 * chunker.max, 1 << 20, 2 << 20];
    for bound in bounds.map(|bound| usize::try_from(bound).unwrap()) {
        for size in [bound - 1, bound, bound + 1] {
            fixture.tree.file(format!("noise-{size}"), noise(size as u64, size));
            fixture.tree.file(format!("zeros-{size}"), vec![0; size]);
        }
    }
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
    fixture.assert_sound();
}

#[test]
fn a_list_over_1024_chunks_is_content_itself() {
    let fixture = Fixture::small();
    let mut content = noise(1, 14 << 20);
    fixture.tree.file("large", &content).file("other", "x");
    let first = fixture.commit_new();
    let entries = fixture.entries(&first);
    let list_of = |entries: &[evenkeel_store::format::manifest::Entry]| match &entries[1].node {
        Node::Inode(inode) => match &inode.kind {
            InodeKind::File(content) => content.chunks.clone(),
            _ => panic!("a file"),
        },
        Node::Link { .. } => panic!("a file"),
    };
    assert!(matches!(list_of(&entries), ChunkList::Indirect { depth: 1, .. }), "{:?}", entries[1].path);
    fixture.assert_holds_tree(&first);

    // Unchanged beside a change: taken over from the files cache, list and all.
    fixture.tree.file("other", "y");
    let second = fixture.commit_new();
    assert_eq!(list_of(&fixture.entries(&second)), list_of(&entries));
    content[7 << 20] ^= 1;
    fixture.tree.file("large", &content);
    let report = fixture.commit();
    assert!(report.new_plain_bytes < 300_000, "{} bytes", report.new_plain_bytes);
    fixture.assert_holds_tree(&report.snapshot.unwrap());
    fixture.assert_sound();
}

#[test]
fn names_are_bytes() {
    let fixture = Fixture::new();
    let long = [b'n'; 255];
    let names: [&[u8]; 12] = [
        b"new\nline",
        b"esc\x1b[31mred",
        b"\xff\xfe not utf-8",
        &long,
        b" leading and trailing ",
        b"-rf",
        b"quote\"back\\slash'",
        b"*?[a]!",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"...",
        b"\x01",
    ];
    for name in names {
        fixture.tree.file(name, name).dir([b"d-", &name[..name.len().min(250)]].concat());
    }
    fixture.tree.symlink("link", &b"to \xff and \n"[..]);
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
    assert_eq!(fixture.entries(&id).len(), 26);
    fixture.assert_sound();
}

#[test]
fn deep_trees_up_to_the_limit() {
    let fixture = Fixture::new();
    let deep = vec!["d"; 512].join("/");
    fixture.tree.dir(deep.as_str());
    let id = fixture.commit_new();
    assert_eq!(fixture.entries(&id).len(), 513);
    fixture.tree.file(format!("{deep}/e"), "one too deep");
    let error = fixture.try_commit(|_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.to_string().contains("d/d/d"), "{error}");
    fixture.tree.remove(format!("{deep}/e"));
    fixture.commit();
}

#[test]
fn an_empty_tree_is_its_root() {
    let fixture = Fixture::new();
    fixture.tree.mode("", 0o711).mtime("", 5, 5);
    let id = fixture.commit_new();
    assert_eq!(fixture.paths(&id), ["."]);
    fixture.assert_holds_tree(&id);
    fixture.tree.mode("", 0o700);
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
}

#[test]
fn times_at_the_edges() {
    let fixture = Fixture::new();
    let edges = [(0, 0), (-1, 999_999_999), (-2_147_483_648, 0), (4_294_967_296, 1), (15_032_385_535, 999_999_999)];
    for (at, (secs, nanos)) in edges.into_iter().enumerate() {
        fixture.tree.file(format!("f{at}"), "x").mtime(format!("f{at}"), secs, nanos);
    }
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
}

#[test]
fn fifos_are_recorded_and_sockets_named() {
    let fixture = Fixture::new();
    fixture.tree.fifo("fifo").dir("run");
    let _listener = std::os::unix::net::UnixListener::bind(fixture.tree.path("run/socket")).unwrap();
    let report = fixture.commit();
    let names = |report: &CommitReport| report.areas[0].sockets.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&report), ["run/socket"]);
    assert!(report.warnings.iter().any(|warning| warning.ends_with(": run/socket")), "{:?}", report.warnings);
    assert_eq!(fixture.paths(&report.snapshot.unwrap()), [".", "fifo", "run"]);
    assert_eq!(names(&fixture.commit()), ["run/socket"], "named again when nothing changed");
}

mod links {
    use super::*;

    #[test]
    fn a_group_is_named_by_its_first_member() {
        let fixture = Fixture::new();
        fixture.tree.file("m", "shared").dir("a").link("m", "a/z").link("m", "n");
        fixture.tree.symlink("s", "target").link("s", "s2").fifo("p").link("p", "p2").file("alone", "x");
        let id = fixture.commit_new();
        fixture.assert_holds_tree(&id);
        assert_eq!(fixture.read(&id)[b"n".as_slice()].group, Some(b"a/z".to_vec()));
        let report = fixture.commit();
        assert_eq!(report.areas[0].files_read, 0);
        assert!(!report.is_new);
        fixture.assert_sound();
    }

    /// A link count that included names outside the area made a manifest that does not decode.
    #[test]
    fn names_outside_the_area_do_not_count() {
        let fixture = Fixture::new();
        fixture.tree.file("one", "1").file("two-a", "2").link("two-a", "two-b").file("excluded/e", "3");
        std::fs::hard_link(fixture.tree.path("one"), fixture.dir().join("outside-1")).unwrap();
        std::fs::hard_link(fixture.tree.path("two-a"), fixture.dir().join("outside-2")).unwrap();
        fixture.tree.link("excluded/e", "e");
        let commit = || {
            settle();
            fixture.try_commit(|options| options.areas[0].rules.exclude = vec!["excluded".into()]).unwrap()
        };
        let report = commit();
        let found = fixture.read(&report.snapshot.unwrap());
        let mut expected = read_tree(fixture.tree.root());
        expected.retain(|path, _| !path.starts_with(b"excluded"));
        expected.get_mut(b"e".as_slice()).unwrap().group = None;
        evenkeel_tests::fixture::assert_same(&found, &expected);
        let report = commit();
        assert!(!report.is_new, "counting again gives the same");
        assert_eq!(report.areas[0].files_read, 0);
    }

    /// Every commit of a series has the right groups, whatever the files cache remembers of the last one.
    #[test]
    fn groups_change_between_commits() {
        let fixture = Fixture::new();
        let tree = &fixture.tree;
        tree.file("b", "shared").link("b", "c").file("other", "o");
        let steps: [Box<dyn Fn() + '_>; 11] = [
            Box::new(|| {
                tree.link("b", "d");
            }),
            Box::new(|| {
                tree.link("b", "a");
            }), // A new first member.
            Box::new(|| {
                tree.remove("a");
            }), // The first member goes.
            Box::new(|| {
                tree.remove("c").remove("d");
            }), // One name is left.
            Box::new(|| {
                tree.link("b", "z");
            }),
            Box::new(|| {
                tree.rename("b", "y");
            }), // Further name becomes first.
            Box::new(|| {
                tree.remove("y").file("y", "of its own");
            }), // Breaks up.
            Box::new(|| {
                tree.remove("z").link("other", "z");
            }), // Joins another group.
            Box::new(|| {
                tree.link("y", "0").link("other", "1");
            }),
            Box::new(|| std::fs::hard_link(tree.path("y"), fixture.dir().join("outside")).unwrap()),
            Box::new(|| {
                tree.remove("0");
            }),
        ];
        fixture.assert_holds_tree(&fixture.commit_new());
        for (number, step) in steps.iter().enumerate() {
            step();
            let id = fixture.commit().snapshot.unwrap();
            let (found, expected) = (fixture.read(&id), read_tree(tree.root()));
            assert!(found == expected, "after step {number}: {found:#?}\ninstead of {expected:#?}");
        }
        fixture.assert_sound();
    }
}
