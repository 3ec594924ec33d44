// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manifest nodes, and manifests whose nodes are valid but do not fit together.

use std::collections::BTreeMap;

use evenkeel_store::format::manifest::*;
use evenkeel_store::id::ContentHash;

use super::super::valid::{self, *};
use super::{Set, cut, longer, swap};

pub fn add(set: &mut Set) {
    containers(set);
    paths(set);
    encoding_of_entries(set);
    inodes(set);
    files(set);
    attributes(set);
    inner(set);
    manifests(set);
}

const NODE: &str = "manifest-node";

/// A leaf with one entry at `a`.
fn one(inode: Inode) -> Vec<u8> {
    leaf(&[entry("a", inode)])
}

fn containers(set: &mut Set) {
    let bytes = one(file(b"x"));
    let mut set = |what: &str, reason, bytes| set.add(NODE, what, reason, bytes);
    set("empty", "truncated", Vec::new());
    set("truncated", "truncated", cut(&bytes, 1));
    set("trailing", "trailing", longer(&bytes));
    set("not-an-array", "rule", b"\xa0".to_vec());
    set("three-items", "value", [b"\x83", &bytes[1..]].concat());
    set("level-16", "value", encode_inner(16, &children()));
    set("level-255", "value", encode_inner(255, &children()));
    set("no-entries", "rule", leaf(&[]));
    let many: Vec<Entry> = (0..1025).map(|number| entry(format!("{number:04}"), inode(InodeKind::Fifo))).collect();
    set("entries-1025", "limit", leaf(&many));
    set("entries-claimed", "limit", [&[0x82, 0x00, 0x9b][..], &[0xff; 8]].concat());
    set("entries-claimed-few", "truncated", [&[0x82, 0x00, 0x99, 0x04, 0x00][..], &bytes[3..]].concat());
    set("nested-deeply", "rule", [vec![0x82, 0x00, 0x81], vec![0x81; 5000]].concat());
}

/// Names in acceptance list order: `..`, `.`, empty, separators, NUL, too long; then order and parents.
fn paths(set: &mut Set) {
    let named = leaf(&[entry("ab/cd", file(b"x"))]);
    let mut set = |what: &str, reason, bytes| set.add(NODE, what, reason, bytes);
    let replaced = |path: &[u8]| {
        let head = [0x40 + u8::try_from(path.len()).expect("short")];
        swap(&named, b"\x45ab/cd", [&head, path].concat())
    };
    for (what, path) in [
        ("dot-dot", &b"ab/.."[..]),
        ("dot-dot-first", b"../cd"),
        ("dot-dot-alone", b".."),
        ("dot", b"ab/."),
        ("dot-first", b"./cd"),
        ("leading-separator", b"/ab"),
        ("trailing-separator", b"ab/"),
        ("doubled-separator", b"a//b"),
        ("separator-alone", b"/"),
        ("nul", b"a\0b"),
    ] {
        set(&format!("path-{what}"), "rule", replaced(path));
    }
    let long = [&[0x59, 0x01, 0x00][..], &[b'a'; 256]].concat();
    set("path-component-256", "rule", swap(&named, b"\x45ab/cd", long));
    let longer = [&[0x59, 0x10, 0x01][..], &b"abcdefg/".repeat(512), b"a"].concat();
    set("path-4097", "limit", swap(&named, b"\x45ab/cd", longer));
    let deep = [&[0x59, 0x04, 0x01][..], &b"a/".repeat(512), b"a"].concat();
    set("path-513-components", "rule", swap(&named, b"\x45ab/cd", deep));
    set("path-claimed", "limit", swap(&named, b"\x45ab/cd", [&[0x5b][..], &[0xff; 8]].concat()));
    set("path-text", "rule", swap(&named, b"\x45ab/cd", b"\x65ab/cd"));

    let (a, b) = (entry("a", directory()), entry("b", file(b"x")));
    set("unsorted", "rule", leaf(&[b.clone(), a.clone()]));
    set("repeated", "rule", leaf(&[b.clone(), b.clone()]));
    set("repeated-as-directory", "rule", leaf(&[b.clone(), entry("b", directory())]));
    set("order-by-bytes", "rule", leaf(&[a, entry("a-b", file(b"x")), entry("a/b", file(b"x"))]));
    set("file-with-children", "rule", leaf(&[b, entry("b/c", file(b"x"))]));
    let symlink = entry("b", inode(InodeKind::Symlink(b"/etc".to_vec())));
    set("symlink-with-children", "rule", leaf(&[symlink, entry("b/c", file(b"x"))]));
    set("link-with-children", "rule", leaf(&[link("b", "a"), entry("b/c", file(b"x"))]));
    set("no-parent", "rule", leaf(&[entry("a", directory()), entry("b/c", file(b"x"))]));
    set("no-grandparent", "rule", leaf(&[entry("a", directory()), entry("a/b/c", file(b"x"))]));
    set("root-is-a-file", "rule", leaf(&[entry("", file(b"x"))]));
    set("root-is-a-link", "rule", leaf(&[link("", "a")]));
    set("link-to-later", "rule", leaf(&[link("a", "b")]));
    set("link-to-itself", "rule", leaf(&[link("a", "a")]));
    set("link-to-root", "rule", leaf(&[link("a", "")]));
}

fn encoding_of_entries(set: &mut Set) {
    let bytes = one(inode(InodeKind::Fifo));
    let linked = leaf(&[link("b", "a")]);
    let mut set = |what: &str, reason, bytes| set.add(NODE, what, reason, bytes);
    set("kind-8", "value", swap(&bytes, b"\x41a\x01\x04", b"\x41a\x01\x08"));
    set("kind-negative", "rule", swap(&bytes, b"\x41a\x01\x04", b"\x41a\x01\x20"));
    let more = swap(&bytes, b"\xa6\x00\x41a", b"\xa7\x00\x41a");
    set("key-19", "rule", [&more[..], &[0x13, 0x01]].concat());
    set("key-text", "rule", [&more[..], b"\x61x\x01"].concat());
    set("key-repeated", "canonical", [&more[..], &[0x06, 0x82, 0x00, 0x00]].concat());
    set("key-unsorted", "canonical", [&more[..], &[0x02, 0x41, b'a']].concat());
    set("keys-swapped", "rule", swap(&bytes, b"\x04\x00\x05\x00", b"\x05\x00\x04\x00"));
    set(
        "key-missing",
        "rule",
        swap(&swap(&bytes, b"\x04\x00\x05\x00", b"\x05\x00"), b"\xa6\x00\x41a", b"\xa5\x00\x41a"),
    );
    set("key-not-shortest", "canonical", swap(&bytes, b"\x01\x04\x03", b"\x18\x01\x04\x03"));
    set("value-not-shortest", "canonical", swap(&bytes, b"\x04\x00\x05\x00", b"\x04\x18\x00\x05\x00"));
    set("map-indefinite", "canonical", swap(&bytes, b"\xa6\x00\x41a", b"\xbf\x00\x41a"));
    set("path-indefinite", "canonical", swap(&bytes, b"\x00\x41a", b"\x00\x5f\x41a\xff"));
    set("link-with-mode", "rule", [&swap(&linked, b"\xa3\x00\x41b", b"\xa4\x00\x41b")[..], &[0x03, 0x00]].concat());
    set("link-without-first", "rule", swap(&swap(&linked, b"\xa3\x00", b"\xa2\x00"), b"\x02\x41a", b""));
    set("pairs-claimed", "truncated", swap(&bytes, b"\xa6\x00\x41a", [&[0xbb][..], &[0xff; 8], b"\x00\x41a"].concat()));
    set("uid-2-32", "value", swap(&bytes, b"\x04\x00\x05\x00", b"\x04\x1b\0\0\0\x01\0\0\0\0\x05\x00"));
    set("gid-max", "value", swap(&bytes, b"\x04\x00\x05\x00", [&b"\x04\x00\x05\x1b"[..], &[0xff; 8]].concat()));
}

fn inodes(set: &mut Set) {
    let fifo = || inode(InodeKind::Fifo);
    let mut set = |what: &str, reason, bytes| set.add(NODE, what, reason, bytes);
    set("mode-10000", "value", one(Inode { mode: 0o10000, ..fifo() }));
    set("mode-max", "value", one(Inode { mode: u16::MAX, ..fifo() }));
    let nanos = Timestamp { secs: 0, nanos: 1_000_000_000 };
    set("mtime-nanoseconds", "value", one(Inode { mtime: nanos, ..fifo() }));
    let early = one(Inode { mtime: Timestamp { secs: i64::MIN, nanos: 0 }, ..fifo() });
    set("mtime-below-64-bits", "value", swap(&early, b"\x3b\x7f\xff", b"\x3b\x80\xff"));
    let late = one(Inode { mtime: Timestamp { secs: i64::MAX, nanos: 0 }, ..fifo() });
    set("mtime-above-64-bits", "value", swap(&late, b"\x1b\x7f\xff", b"\x1b\x80\xff"));
    let symlink = |target: &[u8]| inode(InodeKind::Symlink(target.to_vec()));
    set("symlink-mode", "rule", one(Inode { mode: 0o755, ..symlink(b"t") }));
    set("symlink-target-empty", "rule", one(symlink(b"")));
    set("symlink-target-nul", "rule", one(symlink(b"a\0b")));
    set("symlink-target-4096", "limit", one(symlink(&[b'a'; 4096])));
    set("symlink-acl", "rule", one(Inode { acl: Some(acl()), ..symlink(b"t") }));
    set("links-1", "value", swap(&one(Inode { links: 2, ..fifo() }), b"\x0d\x02", b"\x0d\x01"));
    set("links-of-directory", "rule", one(Inode { links: 2, ..directory() }));
    set("fifo-with-size", "rule", swap(&one(fifo()), b"\xa6\x00", b"\xa7\x00").into_iter().chain([7, 0]).collect());
    set("fifo-unstable", "rule", swap(&one(fifo()), b"\xa6\x00", b"\xa7\x00").into_iter().chain([18, 0xf5]).collect());
    let device = one(inode(InodeKind::BlockDevice { major: 1, minor: 2 }));
    set("device-missing", "rule", swap(&swap(&device, b"\x0c\x82\x01\x02", b""), b"\xa7\x00", b"\xa6\x00"));
    set("device-of-three", "value", swap(&device, b"\x0c\x82\x01\x02", b"\x0c\x83\x01\x02\x03"));
    set("device-major", "value", swap(&device, b"\x0c\x82\x01\x02", b"\x0c\x82\x1b\0\0\0\x01\0\0\0\0\x02"));
}

fn files(set: &mut Set) {
    let mut set = |what: &str, reason, bytes| set.add(NODE, what, reason, bytes);
    let hash = ContentHash::of(b"content");
    let inline = |runs| one(file_of(1, hash, ChunkList::Inline(runs)));
    let sized = |size, runs| one(file_of(size, hash, ChunkList::Inline(runs)));
    let indirect = |depth, runs| one(file_of(1 << 40, hash, ChunkList::Indirect { depth, runs }));
    let whole = one(file(b"x"));
    set("size-limit", "limit", sized((16 << 40) + 1, vec![hole((16 << 40) + 1)]));
    set("size-max", "limit", sized(u64::MAX, vec![hole(u64::MAX)]));
    set("size-missing", "rule", swap(&one(file(b"")), b"\x07\x00", b"").fix_count(6));
    set("empty-with-hash", "rule", swap(&whole, b"\x07\x01\x08", b"\x07\x00\x08"));
    let hash_key = [&b"\x08\x58\x20"[..], &ContentHash::of(b"x").0].concat();
    set("hash-missing", "rule", swap(&whole, &hash_key, b"").fix_count(7));
    set("hash-short", "value", swap(&whole, &hash_key, [&b"\x08\x58\x1f"[..], &[1; 31]].concat()));
    set("one-chunk-too-long", "rule", one(file_of((16 << 20) + 1, hash, ChunkList::Whole)));
    set("chunks-empty", "rule", inline(vec![]));
    set(
        "chunks-broken",
        "truncated",
        swap(&sized(2, vec![data("1", 1), data("2", 1)]), b"\x09\x58\x50", b"\x09\x58\x4f").drop_last(),
    );
    set("chunks-one-data", "canonical", inline(vec![data("1", 1)]));
    set("chunks-sum-less", "rule", sized(4097, vec![hole(4096)]));
    set("chunks-sum-more", "rule", sized(4095, vec![hole(4096)]));
    set("chunks-sum-overflows", "rule", sized(4096, vec![data("1", 4096), hole(u64::MAX)]));
    set("chunks-data-0", "value", sized(1, vec![data("1", 0), data("2", 1)]));
    set("chunks-data-limit", "limit", sized(1 << 30, vec![data("1", (16 << 20) + 1)]));
    set("chunks-holes-adjacent", "rule", sized(8192, vec![hole(4096), hole(4096)]));
    set("chunks-hole-start", "rule", sized(4096, vec![data("1", 1), hole(4095)]));
    set("chunks-hole-end", "rule", sized(4096, vec![hole(4095), data("1", 1)]));
    set("chunks-1025", "limit", sized(1025, (0..1025).map(|_| data("1", 1)).collect()));
    let list = vec![data("1", 41_000)];
    set("list-depth-0", "value", indirect(0, list.clone()));
    set("list-depth-4", "value", indirect(4, list));
    set("list-needless", "rule", indirect(1, vec![data("1", 40_960)]));
    set("list-broken", "rule", indirect(1, vec![data("1", 41_001)]));
    set("list-with-hole", "rule", indirect(1, vec![hole(40_960), data("1", 40)]));
    let depth_alone = [&swap(&whole, b"\xa8\x00\x41a", b"\xa9\x00\x41a")[..], &[0x0a, 0x01]].concat();
    set("list-depth-alone", "rule", depth_alone);
    set("unstable-false", "canonical", swap(&one(unstable(file(b"x"))), b"\x12\xf5", b"\x12\xf4"));
    set(
        "file-with-target",
        "rule",
        [&swap(&whole, b"\xa8\x00\x41a", b"\xa9\x00\x41a")[..], &[0x0b, 0x41, b't']].concat(),
    );
}

trait Fix {
    fn fix_count(self, keys: u8) -> Self;
    fn drop_last(self) -> Self;
}

impl Fix for Vec<u8> {
    /// Lets the map of the only entry have `keys` keys.
    fn fix_count(mut self, keys: u8) -> Self {
        self[3] = 0xa0 + keys;
        self
    }

    fn drop_last(mut self) -> Self {
        self.pop();
        self
    }
}

fn attributes(set: &mut Set) {
    let mut set = |what: &str, reason, bytes| set.add(NODE, what, reason, bytes);
    let with_xattrs = |xattrs: &[(&[u8], Vec<u8>)]| {
        let xattrs: BTreeMap<_, _> = xattrs.iter().map(|(name, value)| (name.to_vec(), value.clone())).collect();
        one(Inode { xattrs, ..file(b"x") })
    };
    let two = with_xattrs(&[(b"user.a", vec![]), (b"user.b", vec![])]);
    set("xattrs-empty", "canonical", swap(&two, b"\x0e\xa2\x46user.a\x40\x46user.b\x40", b"\x0e\xa0"));
    set("xattrs-unsorted", "canonical", swap(&two, b"\x46user.a\x40\x46user.b\x40", b"\x46user.b\x40\x46user.a\x40"));
    set("xattrs-repeated", "canonical", swap(&two, b"\x46user.b", b"\x46user.a"));
    set("xattrs-long-first", "canonical", swap(&two, b"\x46user.a", b"\x47user.aa"));
    set("xattr-name-empty", "rule", with_xattrs(&[(b"", vec![])]));
    set("xattr-name-nul", "rule", with_xattrs(&[(b"user.\0", vec![])]));
    set("xattr-name-256", "limit", with_xattrs(&[(&[b'a'; 256], vec![])]));
    set("xattr-name-access-acl", "rule", with_xattrs(&[(b"system.posix_acl_access", vec![])]));
    set("xattr-name-default-acl", "rule", with_xattrs(&[(b"system.posix_acl_default", vec![])]));
    set("xattr-value-65537", "limit", with_xattrs(&[(b"user.a", vec![0; 65_537])]));
    let names: Vec<String> = (0..1025).map(|number| format!("user.{number:04}")).collect();
    let many: Vec<(&[u8], Vec<u8>)> = names.iter().map(|name| (name.as_bytes(), vec![])).collect();
    set("xattrs-1025", "limit", with_xattrs(&many));

    let with_acl = |acl: Vec<Ace>| one(Inode { acl: Some(Acl(acl)), ..file(b"x") });
    let full = acl().0;
    let without = |tag: AceTag| with_acl(full.iter().filter(|ace| ace.tag != tag).copied().collect());
    set("acl-empty", "rule", with_acl(vec![]));
    set("acl-minimal", "canonical", with_acl(minimal_acl().0));
    set("acl-without-owner", "rule", without(AceTag::UserObj));
    set("acl-without-group", "rule", without(AceTag::GroupObj));
    set("acl-without-other", "rule", without(AceTag::Other));
    set("acl-without-mask", "rule", without(AceTag::Mask));
    set("acl-unsorted", "rule", with_acl(full.iter().rev().copied().collect()));
    set("acl-repeated", "rule", with_acl([&full[..1], &full].concat()));
    let ids_unsorted = [0, 2, 1, 3, 4, 5, 6].map(|index| full[index]).to_vec();
    set("acl-ids-unsorted", "rule", with_acl(ids_unsorted));
    let mut perm = full.clone();
    perm[0].perm = 8;
    set("acl-perm-8", "value", with_acl(perm));
    let bytes = with_acl(full.clone());
    set("acl-tag-3", "value", swap(&bytes, b"\x82\x10\x07", b"\x82\x03\x07"));
    set("acl-owner-with-id", "rule", swap(&bytes, b"\x82\x01\x06", b"\x83\x01\x06\x00"));
    set("acl-user-without-id", "rule", swap(&bytes, b"\x83\x02\x07\x00", b"\x82\x02\x07"));
    set("acl-of-one", "rule", swap(&bytes, b"\x82\x01\x06", b"\x81\x01"));
    set("acl-of-four", "limit", swap(&bytes, b"\x82\x01\x06", b"\x84\x01\x06\x00\x00"));
    set("acl-id-2-32", "value", swap(&bytes, b"\x83\x02\x07\x00", b"\x83\x02\x07\x1b\0\0\0\x01\0\0\0\0"));
    let users = (0..4097).map(|id| ace(AceTag::User(id), 7)).collect::<Vec<_>>();
    set("acl-4101", "limit", with_acl([&full[..1], &users, &full[3..]].concat()));
    set("default-acl-of-file", "rule", one(Inode { default_acl: Some(minimal_acl()), ..file(b"x") }));

    let flagged = one(Inode { flags: InodeFlags::from_name("append").expect("a flag"), ..file(b"x") });
    let flags = |list: &[u8]| swap(&flagged, b"\x11\x81fappend", [b"\x11", list].concat());
    set("flags-empty", "canonical", flags(b"\x80"));
    set("flags-unknown", "feature", flags(b"\x81fverity"));
    set("flags-unsorted", "canonical", flags(b"\x82dsyncfappend"));
    set("flags-repeated", "canonical", flags(b"\x82fappendfappend"));
    set(
        "file-with-device",
        "rule",
        swap(&one(file(b"x")), b"\xa8\x00\x41a", b"\xa9\x00\x41a").into_iter().chain(*b"\x0c\x82\x01\x01").collect(),
    );
}

fn inner(set: &mut Set) {
    let valid = valid::children();
    let mut set = |what: &str, reason, bytes| set.add(NODE, what, reason, bytes);
    set("inner-no-children", "rule", encode_inner(1, &[]));
    let mut unsorted = valid.clone();
    unsorted.swap(0, 1);
    set("inner-unsorted", "rule", encode_inner(1, &unsorted));
    set("inner-repeated", "rule", encode_inner(1, &[valid[0].clone(), valid[0].clone()]));
    let with = |change: fn(&mut Child)| {
        let mut children = valid::children();
        change(&mut children[1]);
        encode_inner(2, &children)
    };
    set("inner-len-0", "value", with(|child| child.len = 0));
    set("inner-len-large", "value", with(|child| child.len = (4 << 20) + 1));
    set("inner-entries-0", "value", with(|child| child.entries = 0));
    set("inner-entries-overflow", "value", with(|child| child.entries = u64::MAX));
    let many: Vec<Child> = (0..513)
        .map(|number| Child { first: entry(format!("{number:03}"), directory()).path, ..valid[1].clone() })
        .collect();
    set("inner-children-513", "limit", encode_inner(1, &many));
    set("inner-entry-inside", "rule", [&[0x82, 0x01, 0x81][..], &one(file(b"x"))[3..]].concat());
    set("leaf-child-inside", "rule", [&[0x82, 0x00, 0x81][..], &encode_inner(1, &valid[1..2])[3..]].concat());
    let dots = swap(&encode_inner(1, &valid), b"etc/\xff", b"etc/.");
    set("inner-first-dot", "rule", dots);
}

/// Leaves that are valid, but not as a whole manifest.
fn manifests(set: &mut Set) {
    let mut set = |what: &str, reason, entries: &[Entry]| set.add("manifest", what, reason, leaf(entries));
    let root = || entry("", directory());
    set("without-root", "rule", &[entry("a", file(b"x"))]);
    set("starts-below", "rule", &[entry("a/b", file(b"x"))]);
    set("link-without-group", "rule", &[root(), entry("a", file(b"x")), link("b", "a")]);
    set("link-to-directory", "rule", &[root(), entry("a", directory()), link("b", "a")]);
    set("link-to-nothing", "rule", &[root(), entry("b", file(b"x")), link("c", "a")]);
    let first = || entry("a", Inode { links: 2, ..file(b"x") });
    set("link-to-link", "rule", &[root(), first(), link("b", "a"), link("c", "b")]);
    set("links-too-few", "rule", &[root(), first()]);
    set("links-too-many", "rule", &[root(), first(), link("b", "a"), link("c", "a")]);
}
