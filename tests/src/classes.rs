// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One object for each class of metadata, in two versions that differ in nothing else. Needs root.

use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};

use crate::build::Tree;
use crate::noise;

/// What an object is about, and how version 0 or 1 of it is made at a path.
pub struct Class {
    pub name: &'static str,
    pub make: fn(&Tree, &str, u32),
}

/// Every class, as far as an ext4 can hold it.
pub const CLASSES: [Class; 26] = [
    Class { name: "content", make: content },
    Class { name: "holes", make: holes },
    Class { name: "hard-links", make: hard_links },
    Class { name: "owner", make: |tree, at, v| _ = file(tree, at).owner(at, 1001 + v, 2001 + v) },
    Class { name: "mode", make: |tree, at, v| _ = file(tree, at).mode(at, 0o640 >> v) },
    Class { name: "set-id", make: set_id },
    Class { name: "times", make: times },
    Class { name: "symlink", make: |tree, at, v| _ = tree.symlink(at, format!("no/such/{v}")) },
    Class { name: "symlink-meta", make: symlink_meta },
    Class { name: "user-xattr", make: |tree, at, v| xattrs(tree, at, v, "user") },
    Class { name: "trusted-xattr", make: |tree, at, v| xattrs(tree, at, v, "trusted") },
    Class { name: "security-xattr", make: |tree, at, v| xattrs(tree, at, v, "security") },
    Class { name: "acl", make: acl },
    Class { name: "default-acl", make: default_acl },
    Class { name: "capabilities", make: capabilities },
    Class { name: "file-flags", make: file_flags },
    Class { name: "dir-flags", make: dir_flags },
    Class { name: "locked-dir", make: locked_dir },
    Class { name: "setgid-dir", make: setgid_dir },
    Class { name: "dir-times", make: dir_times },
    Class { name: "dir-mode", make: |tree, at, v| _ = tree.dir(at).mode(at, 0o1700 + 0o77 * v).owner(at, v, 7) },
    Class { name: "fifo", make: |tree, at, v| _ = tree.fifo(at).mode(at, 0o600 + v).owner(at, v, 8).mtime(at, 5, v) },
    Class { name: "char-device", make: |tree, at, v| device(tree, at, v, FileType::CharacterDevice) },
    Class { name: "block-device", make: |tree, at, v| device(tree, at, v, FileType::BlockDevice) },
    Class { name: "socket", make: |tree, at, _| drop(UnixListener::bind(tree.path(at)).unwrap()) },
    Class { name: "everything", make: everything },
];

/// What only a btrfs holds: flags of its own, and times that no other reaches.
pub const BTRFS_CLASSES: [Class; 3] = [
    Class { name: "btrfs-flags", make: btrfs_flags },
    Class { name: "btrfs-nocow", make: btrfs_nocow },
    Class { name: "far-times", make: far_times },
];

/// Removes an object, whatever protects it.
pub fn remove(tree: &Tree, at: &str) {
    // It says so for each link and device, which have no flags.
    let _ = Command::new("chattr").args(["-R", "-f", "-i", "-a"]).arg(tree.path(at)).output();
    tree.remove(at);
}

fn file<'t>(tree: &'t Tree, at: &str) -> &'t Tree {
    tree.file(at, "the same content").mode(at, 0o644).mtime(at, 1_500_000_000, 1)
}

fn tool(program: &str, args: &[&str], tree: &Tree, at: &str) {
    let done = Command::new(program).args(args).arg(tree.path(at)).output();
    let done = done.unwrap_or_else(|e| panic!("cannot run {program}, which this test needs: {e}"));
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn content(tree: &Tree, at: &str, version: u32) {
    tree.file(format!("{at}/small"), format!("version {version}"))
        .file(format!("{at}/large"), [noise(1, 300_000), noise(u64::from(version), 70_000)].concat())
        .file(format!("{at}/empty"), &noise(0, 10)[..10 * version as usize]);
}

fn holes(tree: &Tree, at: &str, version: u32) {
    let begin = u64::from(version) << 16;
    tree.dir(at).sparse(format!("{at}/only"), (1 << 20) + begin, &[]);
    tree.sparse(format!("{at}/middle"), 1 << 20, &[(begin + 65536, &[7; 65536]), (10 << 16, &[8; 65536])]);
    tree.sparse(format!("{at}/end"), (1 << 20) + 17, &[(0, &[9; 65536]), (1 << 20, &[1; 17])]);
}

fn hard_links(tree: &Tree, at: &str, version: u32) {
    tree.file(format!("{at}/a"), format!("shared {version}")).link(format!("{at}/a"), format!("{at}/b"));
    tree.file(format!("{at}/sub/alone"), "alone")
        .file(format!("{at}/x"), "same")
        .link(format!("{at}/x"), format!("{at}/y"));
    tree.mtime(format!("{at}/x"), 1_000_000 + i64::from(version), 0);
    // One group gets a name, another loses one.
    match version {
        0 => tree.link(format!("{at}/x"), format!("{at}/z")),
        _ => tree.link(format!("{at}/a"), format!("{at}/sub/c")),
    };
}

fn set_id(tree: &Tree, at: &str, version: u32) {
    for (name, mode) in [("user", 0o4755), ("group", 0o2755), ("both", 0o6711)] {
        let at = format!("{at}/{name}");
        file(tree, &at).owner(&at, 1001, 2001 + version).mode(&at, mode - version);
    }
}

fn times(tree: &Tree, at: &str, version: u32) {
    let edges = [-(1 << 31), -1, 0, 1 << 31, (1 << 32) - 1, 1 << 32, 15_032_385_534];
    for (number, secs) in edges.into_iter().enumerate() {
        let at = format!("{at}/{number}");
        file(tree, &at).mtime(&at, secs + i64::from(version), 999_999_999 - version);
    }
    tree.mtime(at, -(1 << 31) + 1, 1);
}

fn far_times(tree: &Tree, at: &str, version: u32) {
    for (number, secs) in [-9_999_999_999, 99_999_999_999, 20_000_000_000].into_iter().enumerate() {
        let at = format!("{at}/{number}");
        file(tree, &at).mtime(&at, secs + i64::from(version), 5);
    }
    tree.mtime(at, 88_888_888_888, 8);
}

fn symlink_meta(tree: &Tree, at: &str, version: u32) {
    tree.symlink(at, "the/same").owner(at, 1001 + version, 9).mtime(at, -7, 123_456_789 + version);
}

fn xattrs(tree: &Tree, at: &str, version: u32, namespace: &str) {
    let (file_at, key) = (format!("{at}/file"), format!("{namespace}.evenkeel-test"));
    file(tree, &file_at).xattr(&file_at, &key, &[0, 255, u8::try_from(version).unwrap()]);
    tree.xattr(&file_at, &format!("{key}-{version}"), b"").xattr(at, &key, &noise(version.into(), 1000));
    if namespace != "user" {
        let link = format!("{at}/link");
        tree.symlink(&link, "target").xattr(&link, &key, version.to_string().as_bytes());
        let fifo = format!("{at}/fifo");
        tree.fifo(&fifo).xattr(&fifo, &key, version.to_string().as_bytes());
    }
}

fn acl(tree: &Tree, at: &str, version: u32) {
    let (text, dir) = (format!("u:{}:rw,g:4321:r,m:rw", 1234 + version), format!("{at}/dir"));
    tree.dir(at);
    file(tree, &format!("{at}/file"));
    tree.dir(&dir).fifo(format!("{at}/fifo"));
    for name in ["file", "dir", "fifo"] {
        tool("setfacl", &["-m", &text], tree, &format!("{at}/{name}"));
    }
}

fn default_acl(tree: &Tree, at: &str, version: u32) {
    tree.file(format!("{at}/before"), "x").dir(format!("{at}/dir-before"));
    tool("setfacl", &["-d", "-m", &format!("u:{}:rwx,o::-", 1234 + version)], tree, at);
    // These inherit it, those do not.
    tree.file(format!("{at}/after"), "x").file(format!("{at}/dir-after/f"), "x");
}

fn capabilities(tree: &Tree, at: &str, version: u32) {
    file(tree, at).mode(at, 0o755).owner(at, 0, 77);
    tool("setcap", &[["cap_net_raw+ep", "cap_net_admin,cap_chown+i"][version as usize]], tree, at);
}

fn file_flags(tree: &Tree, at: &str, version: u32) {
    for flag in ["i", "a", "d", "A", "S", "c", "Ad", "ia"] {
        let at = format!("{at}/{flag}");
        file(tree, &at);
        if version == 0 || flag != "c" {
            tool("chattr", &[&format!("+{flag}")], tree, &at);
        }
        if version == 1 && flag == "Ad" {
            tool("chattr", &["-d"], tree, &at);
        }
    }
}

fn btrfs_flags(tree: &Tree, at: &str, version: u32) {
    for flag in ["c", "C"] {
        let (empty, dir) = (format!("{at}/empty-{flag}"), format!("{at}/dir-{flag}"));
        tree.file(&empty, "").dir(&dir);
        for name in [&empty, &dir] {
            tool("chattr", &[&format!("+{flag}")], tree, name);
        }
        // Inherited where it is made.
        tree.file(format!("{dir}/inner"), noise(version.into(), 10_000));
    }
}

/// Only an empty file takes the flag; one that has it keeps it with content.
fn btrfs_nocow(tree: &Tree, at: &str, version: u32) {
    for (name, flag) in [("gets-it", version == 1), ("loses-it", version == 0), ("keeps-it", true)] {
        let at = format!("{at}/{name}");
        tree.file(&at, "");
        if flag {
            tool("chattr", &["+C"], tree, &at);
        }
        file(tree, &at);
    }
    let large = format!("{at}/large");
    tree.file(&large, "");
    tool("chattr", &["+C"], tree, &large);
    tree.file(&large, noise(version.into(), (8 << 20) + 1));
}

fn dir_flags(tree: &Tree, at: &str, version: u32) {
    for flag in ["d", "A", "S", "D", "T", "P"] {
        let (dir, inner) = (format!("{at}/{flag}"), format!("{at}/{flag}/inner"));
        tree.dir(&dir);
        if version == 0 || flag != "A" {
            tool("chattr", &[&format!("+{flag}")], tree, &dir);
        }
        tree.file(&inner, "inherits some of it");
        tool("chattr", &["-A"], tree, &inner);
    }
}

fn locked_dir(tree: &Tree, at: &str, version: u32) {
    for flag in ["i", "a"] {
        let dir = format!("{at}/{flag}");
        tree.file(format!("{dir}/same"), "x").file(format!("{dir}/changes"), version.to_string());
        tree.file(format!("{dir}/only-{version}"), "x");
        tool("chattr", &[&format!("+{flag}")], tree, &dir);
    }
}

fn setgid_dir(tree: &Tree, at: &str, version: u32) {
    tree.dir(at).owner(at, 0, 2001 + version).mode(at, 0o2775);
    tree.file(format!("{at}/inherits"), "x").dir(format!("{at}/dir"));
    let other = format!("{at}/does-not");
    tree.file(&other, "x").owner(&other, 0, 0);
}

fn dir_times(tree: &Tree, at: &str, version: u32) {
    tree.file(format!("{at}/a/b/f"), version.to_string()).dir(format!("{at}/a/empty"));
    for (number, dir) in ["a/b", "a/empty", "a", ""].into_iter().enumerate() {
        tree.mtime(format!("{at}/{dir}"), -1_000_000 + i64::try_from(number).unwrap(), 1 + version);
    }
}

fn device(tree: &Tree, at: &str, version: u32, kind: FileType) {
    let number = rustix::fs::makedev(7 + 300 * version, 70_000 * version + 1);
    rustix::fs::mknodat(CWD, tree.path(at), kind, Mode::from_raw_mode(0o640), number).unwrap();
    tree.owner(at, 0, 6).mtime(at, 1_000, 9);
}

fn everything(tree: &Tree, at: &str, version: u32) {
    let other = format!("{at}-too");
    tree.sparse(at, 1 << 20, &[(65536, &[u8::try_from(version).unwrap() + 1; 65536])]).link(at, &other);
    tree.owner(at, 1001, 2001 + version).mode(at, 0o4751).xattr(at, "user.k", &noise(version.into(), 100));
    tool("setfacl", &["-m", &format!("u:{}:rx", 55 + version)], tree, at);
    tool("setcap", &["cap_net_bind_service+ep"], tree, at);
    tree.mtime(at, 1_600_000_000, 123_456_789 + version);
    tool("chattr", &["+dAi"], tree, at);
}
