// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a checkout restores: every field, whatever the surroundings do to new files.

use std::os::unix::fs::MetadataExt;

use evenkeel_store::checkout::Mode;
use evenkeel_store::format::manifest::{Ace, AceTag, Acl};
use evenkeel_store::fsio::{ACL_ACCESS, ACL_DEFAULT, encode_acl};
use evenkeel_tests::fixture::Fixture;
use evenkeel_tests::place::{Place, summary};
use evenkeel_tests::{noise, read_tree};

fn acl(uid: u32) -> Vec<u8> {
    let ace = |tag, perm| Ace { tag, perm };
    encode_acl(&Acl(vec![
        ace(AceTag::UserObj, 6),
        ace(AceTag::User(uid), 4),
        ace(AceTag::GroupObj, 4),
        ace(AceTag::Mask, 4),
        ace(AceTag::Other, 0),
    ]))
}

#[test]
fn every_kind_and_mode() {
    let fixture = Fixture::small();
    let tree = &fixture.tree;
    tree.file("plain", "x").mode("plain", 0o644);
    for (name, mode) in [("m0", 0), ("m444", 0o444), ("m4755", 0o4755), ("m2755", 0o2755), ("m1777", 0o1777)] {
        tree.file(name, name).mode(name, mode);
    }
    for (name, mode) in [("d555", 0o555), ("d1777", 0o1777), ("d2775", 0o2775)] {
        tree.file(format!("{name}/inner/f"), "f");
        tree.mode(name, mode);
    }
    tree.fifo("fifo").mode("fifo", 0o622).symlink("link", "no such target").mtime("link", 1, 2);
    tree.mtime("d555", 3, 4).mtime("plain", -5, 6).mtime("fifo", 7, 8).mode("", 0o750).mtime("", 9, 10);
    let first = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    // Content changes in a directory that nobody may write to, and its time stays as the reference has it.
    tree.mode("d555", 0o755).file("d555/inner/f", "new").file("d555/new", "n").mode("d555", 0o555).mtime("d555", 30, 4);
    let second = fixture.commit_new();
    let report = place.checkout(&second, Mode::Incremental);
    assert_eq!(summary(&report), ["replace d555/inner/f", "add d555/new"]);
    place.assert_is(&second);
    place.checkout_exactly(&first);
    place.checkout_exactly(&second);
}

#[test]
fn names_of_every_kind() {
    let fixture = Fixture::new();
    let long = "n".repeat(255);
    let names: [&[u8]; 8] =
        [b"new\nline", b"esc\x1b[2J", b"\xff\xfe", b"-rf", b" ", b"\\", "größe\u{202e}".as_bytes(), long.as_bytes()];
    for name in names {
        fixture.tree.file(name, "x");
        fixture.tree.file([b"dir-", &name[..name.len().min(200)], b"/f"].concat(), "y");
    }
    let id = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&id);
    for name in names {
        place.tree().file(name, "changed");
    }
    let report = place.checkout_exactly(&id);
    assert_eq!(report.areas[0].changes.len(), names.len());
}

#[test]
fn holes_stay_holes_and_long_files_are_whole() {
    let fixture = Fixture::small();
    let tree = &fixture.tree;
    tree.sparse("hole-only", 1 << 20, &[])
        .sparse("begin", 1 << 20, &[(0, &noise(1, 5000))])
        .sparse("end", (1 << 20) + 17, &[((1 << 20) - 4096, &noise(2, 4096 + 17))])
        .sparse("middle", 64 << 20, &[(4096, b"x"), (40 << 20, &noise(3, 300_000))])
        .file("long", noise(4, 20 << 20))
        .file("limit", noise(5, 8 << 20))
        .file("over", noise(6, (8 << 20) + 1));
    let id = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&id);
    let blocks = |name: &str| std::fs::metadata(place.root.join(name)).unwrap().blocks() * 512;
    assert!(blocks("hole-only") < 64 << 10 && blocks("middle") < 2 << 20);
}

#[test]
fn a_new_inode_replaces_and_never_writes_into_the_old() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "one");
    let first = fixture.commit_new();
    fixture.tree.file("f", "two");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    // Whoever has the old file open, or another name for it, keeps the old content.
    std::fs::hard_link(place.root.join("f"), fixture.dir().join("kept")).unwrap();
    place.checkout_exactly(&second);
    assert_eq!(std::fs::read(fixture.dir().join("kept")).unwrap(), b"one");
}

#[test]
fn metadata_of_an_inode_with_foreign_names_is_not_changed_in_place() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "same").mode("f", 0o600);
    let first = fixture.commit_new();
    fixture.tree.mode("f", 0o644);
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let kept = fixture.dir().join("kept");
    std::fs::hard_link(place.root.join("f"), &kept).unwrap();
    let report = place.checkout(&second, Mode::Incremental);
    assert_eq!(summary(&report), ["replace f"]);
    assert_eq!(std::fs::metadata(kept).unwrap().mode() & 0o777, 0o600);
    // With one name only, the inode stays.
    let inode = std::fs::metadata(place.root.join("f")).unwrap().ino();
    let report = place.checkout(&first, Mode::Full);
    assert_eq!(summary(&report), ["metadata f"]);
    assert_eq!(std::fs::metadata(place.root.join("f")).unwrap().ino(), inode);
    place.checkout_exactly(&first);
}

#[test]
fn set_group_bit_and_user_attributes() {
    let fixture = Fixture::new();
    fixture.tree.file("d/f", "f").mode("d", 0o2775).xattr("d", "user.on-dir", b"1").xattr("d/f", "user.k", &[0, 255]);
    let first = fixture.commit_new();
    fixture.tree.xattr("d/f", "user.k", b"other").xattr("d/f", "user.l", b"");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    // The parent that the root is made in hands its group and bit down.
    fixture.tree.mode("..", 0o2755);
    for id in [first, second, first] {
        place.checkout_exactly(&id);
    }
    place.tree().xattr("d", "user.mine", b"1");
    assert_eq!(place.drift(), ["d: metadata"]);
    place.checkout_exactly(&first);
}

#[test]
#[ignore = "root: owners, ACLs, capabilities and devices"]
fn root_every_field_exactly() {
    let fixture = Fixture::new();
    let tree = &fixture.tree;
    tree.file("acl", "x").xattr("acl", "system.posix_acl_access", &acl(12345));
    tree.file("d/f", "x").xattr("d", "system.posix_acl_default", &acl(4321)).owner("d", 1234, 4321);
    tree.file("suid", "x").owner("suid", 1234, 4321).mode("suid", 0o6755);
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tree.file("ping", "x").owner("ping", 0, 4321).xattr("ping", "security.capability", &capability);
    tree.sparse("all", 1 << 20, &[(8192, b"x")]).link("all", "all-2").xattr("all", "user.k", b"v");
    tree.xattr("all", "system.posix_acl_access", &acl(7)).mtime("all", 1_600_000_000, 123_456_789);
    tree.symlink("link", "x").owner("link", 99, 98).fifo("fifo").owner("fifo", 5, 6);
    let first = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    // And as changes of what is there: all fields away, and back.
    for name in ["acl", "d/f", "suid", "ping", "all"] {
        tree.remove(name).file(name, "plain");
    }
    tree.remove("all-2").remove("d").file("d/f", "plain");
    let second = fixture.commit_new();
    for id in [second, first, second] {
        place.checkout_exactly(&id);
    }
}

#[test]
#[ignore = "root: owners and ACLs"]
fn root_surroundings_do_not_leak_in() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    let id = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    // A root that hands down a default ACL, a group and the set-group bit, and a umask that takes all away.
    place.tree().xattr("", "system.posix_acl_default", &acl(1234)).owner("", 0, 4321).mode("", 0o2777);
    // In a process of its own: all tests of this one have one umask.
    let done = std::process::Command::new("sh")
        .args(["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_one-checkout")])
        .args([fixture.store.path(), &place.state, &place.root])
        .args([&id.to_hex(), "full", "none"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    place.assert_is(&id);
    assert!(place.checkout_exactly(&id).is_empty(), "there was nothing left to do");
    let private = std::fs::metadata(place.root.join(".evenkeel")).unwrap();
    assert_eq!((private.mode() & 0o7777, private.uid(), private.gid()), (0o700, 0, 0));
    let names: Vec<Vec<u8>> =
        read_tree(&place.root.join(".evenkeel")).values().flat_map(|item| item.xattrs.keys().cloned()).collect();
    assert!(!names.iter().any(|name| name == ACL_ACCESS || name == ACL_DEFAULT), "{names:?}");
}

#[test]
#[ignore = "root: owners"]
fn root_owners_and_modes_that_changed_here() {
    let fixture = Fixture::new();
    fixture.tree.file("f", "f").file("d/g", "g").owner("f", 7, 8).owner("d", 9, 10);
    let id = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&id);
    place.tree().owner("f", 0, 0).owner("d", 1, 1).owner("", 2, 2);
    assert_eq!(place.drift(), [".: metadata", "d: metadata", "f: metadata"]);
    assert_eq!(summary(&place.checkout(&id, Mode::Incremental)), ["keep .", "keep d", "keep f"]);
    let report = place.checkout_exactly(&id);
    assert_eq!(summary(&report), ["metadata .", "metadata d", "metadata f"]);
}

#[test]
#[ignore = "root: inode flags"]
fn root_immutable_files_are_lifted_and_put_back() {
    let fixture = Fixture::new();
    fixture.tree.file("d/f", "one").file("g", "g");
    let first = fixture.commit_new();
    fixture.tree.file("d/f", "two").file("d/new", "new");
    let second = fixture.commit_new();
    let place = Place::new(&fixture, "server");
    place.checkout_exactly(&first);
    let set = |name: &str, on: bool| {
        let file = std::fs::File::open(place.root.join(name)).unwrap();
        let flags = if on { rustix::fs::IFlags::IMMUTABLE } else { rustix::fs::IFlags::empty() };
        let known = rustix::fs::ioctl_getflags(&file).unwrap();
        rustix::fs::ioctl_setflags(&file, (known - rustix::fs::IFlags::IMMUTABLE) | flags).unwrap();
    };
    set("d/f", true);
    set("d", true);
    // The directory's flag is a change made here and stays; the file is restored.
    let report = place.checkout(&second, Mode::Incremental);
    assert_eq!(std::fs::read(place.root.join("d/f")).unwrap(), b"two", "{:?}", summary(&report));
    assert_eq!(std::fs::read(place.root.join("d/new")).unwrap(), b"new");
    let kept: Vec<String> = summary(&report).into_iter().filter(|line| line.starts_with("keep")).collect();
    assert_eq!(kept, ["keep d"]);
    place.checkout_exactly(&second);
}
