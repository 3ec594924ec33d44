// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What belongs to an area, and areas that cannot be committed.

use std::path::PathBuf;

use evenkeel_store::area::AreaSpec;
use evenkeel_store::checkout::{Adopt, Mode};
use evenkeel_store::format::manifest::{Entry, Node};
use evenkeel_store::format::snapshot::AreaRules;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::{Error, ErrorKind};
use evenkeel_tests::fixture::assert_same;
use evenkeel_tests::{Fixture, Place, Tree, noise, read_tree, without_privilege};

fn strings(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

#[test]
fn patterns_decide_and_travel_in_the_snapshot() {
    let fixture = Fixture::new();
    for name in ["etc/a.conf", "etc/machine-id", "etc/b.tmp", "opt/app/x", "opt/app/y.tmp", "srv/z", "opt/b/c"] {
        fixture.tree.file(name, "x");
    }
    let rules = AreaRules {
        include: strings(&["/opt/app", "*.conf", "/etc/machine-id"]),
        exclude: strings(&["*.tmp"]),
        identity: strings(&["/etc/machine-id"]),
        ..AreaRules::default()
    };
    let report = fixture.try_commit(|options| options.areas[0].rules = rules.clone()).unwrap();
    let id = report.snapshot.unwrap();
    assert_eq!(fixture.paths(&id), [".", "etc", "etc/a.conf", "opt", "opt/app", "opt/app/x"]);
    assert_eq!(fixture.store.snapshot(&id).unwrap().areas[0].rules, rules);
    let identity: Vec<String> = report.areas[0].identity.iter().map(ToString::to_string).collect();
    assert_eq!(identity, ["etc/machine-id"]);

    // Other rules on the same tree: a new snapshot, although no file changed.
    let wider = AreaRules { exclude: Vec::new(), ..rules };
    let report = fixture.try_commit(|options| options.areas[0].rules = wider).unwrap();
    assert!(report.is_new);
    let paths = fixture.paths(&report.snapshot.unwrap());
    assert!(paths.contains(&"opt/app/y.tmp".to_string()), "{paths:?}");
    fixture.assert_sound();
}

/// A file in the tree that looks like rules is a file.
#[test]
fn nothing_inside_the_area_is_read_as_a_rule() {
    let fixture = Fixture::new();
    fixture.tree.file(".gitignore", "*\n").file(".ignore", "*\n").file("a", "1").file(".git/info/exclude", "*\n");
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
}

#[test]
fn what_is_never_part_of_an_area() {
    let fixture = Fixture::new();
    let tree = &fixture.tree;
    tree.file(".evenkeel/marker", "m")
        .file("d/.evenkeel/x", "m")
        .file("lost+found/#1", "l")
        .file("d/lost+found/2", "2");
    tree.file("usr/bin/evenkeel", "program").file("etc/evenkeel.toml", "c").file("a", "1");
    let protected = vec![tree.path("usr/bin/evenkeel"), tree.path("etc/evenkeel.toml"), PathBuf::from("/elsewhere")];
    let report = fixture.try_commit(|options| options.protected = protected).unwrap();
    let expected = [".", "a", "d", "d/lost+found", "d/lost+found/2", "etc", "usr", "usr/bin"];
    assert_eq!(fixture.paths(&report.snapshot.unwrap()), expected);
}

/// The store and the state directory lie inside the tree: neither ends up in its own snapshot.
#[test]
fn a_store_inside_the_area_is_left_out() {
    let fixture = Fixture::new();
    fixture.tree.file("a", "1");
    let around = AreaSpec::new("around", fixture.dir(), AreaRules::default());
    let report = fixture.try_commit(|options| options.areas = vec![around.clone()]).unwrap();
    assert_eq!(fixture.paths(&report.snapshot.unwrap()), [".", "tree", "tree/a"]);
    let report = fixture.try_commit(|options| options.areas = vec![around]).unwrap();
    assert!(!report.is_new, "the store's growth is no change");
}

#[test]
fn areas_that_cannot_be_committed() {
    let fixture = Fixture::new();
    fixture.tree.file("file", "x").dir("inner").symlink("to-inner", "inner");
    let area = |name: &str, root: PathBuf| AreaSpec::new(name, root, AreaRules::default());
    let path = |name: &str| fixture.tree.path(name);
    let root = fixture.tree.root().to_path_buf();
    let store = fixture.store.path().to_path_buf();
    let cases: [(&str, Vec<AreaSpec>, &str); 12] = [
        ("missing", vec![area("a", path("none"))], "does not exist"),
        ("a file", vec![area("a", path("file"))], "not a directory"),
        ("below a file", vec![area("a", path("file/x"))], "not a directory"),
        ("nested", vec![area("a", root.clone()), area("b", path("inner"))], "overlaps with area `b`"),
        ("nested by a symlink", vec![area("a", path("inner")), area("b", path("to-inner"))], "overlaps"),
        ("the same twice", vec![area("a", root.clone()), area("b", root.clone())], "overlaps"),
        ("one name twice", vec![area("a", path("inner")), area("a", fixture.dir().into())], "named twice"),
        ("a bad name", vec![area("A b", root.clone())], "not a valid area name"),
        ("no area", vec![], "no area"),
        ("the store", vec![area("a", store.clone())], "store"),
        ("inside the store", vec![area("a", store.join("packs"))], "store"),
        ("the state directory", vec![area("a", fixture.state.clone())], "state"),
    ];
    std::fs::create_dir_all(&fixture.state).unwrap();
    let before = fixture.objects();
    for (what, areas, expected) in cases {
        let error = fixture.try_commit(|options| options.areas = areas).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {error}");
        assert!(error.to_string().contains(expected), "{what}: {error}");
        assert!(fixture.objects() == before, "{what}: the store is as it was");
    }
}

#[test]
fn a_bad_pattern_is_refused_by_name() {
    let fixture = Fixture::new();
    let error = fixture.try_commit(|options| options.areas[0].rules.exclude = strings(&["ok", "a["])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("`a[`"), "{error}");
}

/// Names all files that cannot be read, not just the first; with `skip_unreadable` the rest is recorded.
#[test]
fn unreadable_files_are_all_named() {
    let fixture = Fixture::new();
    let tree = &fixture.tree;
    tree.file("ok", "1").file("no-1", "2").file("d/no-2", "3").dir("closed").file("closed/in", "4");
    tree.file("group-a", "5").link("group-a", "group-b");
    tree.mode("no-1", 0).mode("d/no-2", 0o200).mode("group-a", 0).mode("closed", 0o311);
    without_privilege(fixture.dir(), || {
        let error = fixture.try_commit(|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        let Error::Unreadable { paths, .. } = &error else { panic!("{error}") };
        let mut names: Vec<&str> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["closed", "group-a", "no-1", "no-2"]);

        let report = fixture.try_commit(|options| options.skip_unreadable = true).unwrap();
        let id = report.snapshot.unwrap();
        assert_eq!(report.areas[0].unreadable.len(), 4);
        let paths = fixture.paths(&id);
        assert!(paths.contains(&"ok".into()) && !paths.contains(&"no-1".into()), "{paths:?}");
        assert!(!paths.contains(&"group-b".into()), "a further name without its first: {paths:?}");
        fixture.assert_sound();
    });
    tree.mode("no-1", 0o600).mode("d/no-2", 0o600).mode("group-a", 0o600).mode("closed", 0o755);
    without_privilege(fixture.dir(), || {
        let id = fixture.try_commit(|_| {}).unwrap().snapshot.unwrap();
        fixture.assert_holds_tree(&id);
    });
}

#[test]
fn an_area_that_cannot_be_opened_says_so() {
    let fixture = Fixture::new();
    fixture.tree.dir("closed").mode("closed", 0);
    let closed = AreaSpec { root: fixture.tree.path("closed"), ..fixture.area() };
    let error =
        without_privilege(fixture.dir(), || fixture.try_commit(|options| options.areas = vec![closed])).unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
}

/// One file was named a run, without a way out, and nothing could be left alone.
#[test]
fn attributes_without_a_rule_are_all_named_and_can_be_left_alone() {
    let fixture = Fixture::new();
    for name in ["a", "d/b", "d/c"] {
        fixture.tree.file(name, "x");
    }
    let set = |path: &str, name: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(fixture.tree.path(path), name, b"v", flags).unwrap();
    };
    for (path, name) in [("a", "user.one"), ("d", "user.two"), ("d/c", "user.one"), ("d/c", "user.keep")] {
        set(path, name);
    }
    let commit = |patterns: &[&str]| fixture.try_commit(|options| options.areas[0].rules.xattrs = strings(patterns));
    let error = commit(&["user.keep"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    let Error::UnruledXattrs { paths, names } = &error else { panic!("{error}") };
    let mut paths: Vec<_> = paths.iter().map(|path| path.strip_prefix(fixture.tree.root()).unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["a", "d", "d/c"].map(std::path::Path::new));
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["user.one", "user.two"]);

    let id = commit(&["user.keep", "!user.one", "!user.t*"]).unwrap().snapshot.unwrap();
    let recorded: Vec<String> = fixture.entries(&id).iter().flat_map(xattr_names).collect();
    assert_eq!(recorded, ["user.keep"]);
}

/// `status` knew its own memory only: what rules of this machine had kept out was not missed once they let it in, and what
/// had been delivered before they excluded it was called missing.
#[test]
fn rules_of_this_machine_that_change_are_seen() {
    let fixture = Fixture::new();
    fixture.tree.file("a", "1").file("b", "1").file("sub/x", "1").file("sub/y", "1");
    let first = fixture.commit_new();
    fixture.tree.file("b", "2");
    let second = fixture.commit_new();
    let mut place = Place::new(&fixture, "server");
    let seen = |place: &Place<'_>, in_sync: bool, entries: u64, drift: &[&str]| {
        for report in [place.status(), place.verify()] {
            let area = &report.areas[0];
            let found: Vec<String> =
                area.drift.iter().map(|entry| format!("{} {}", entry.what.name(), entry.path)).collect();
            assert_eq!((report.in_sync(), area.entries, found.as_slice()), (in_sync, entries, &strings(drift)[..]));
        }
    };
    place.exclude = strings(&["/a", "/sub"]);
    place.checkout(&first, Mode::Full);
    seen(&place, true, 2, &[]);
    place.exclude.clear();
    seen(&place, false, 6, &["undelivered a", "undelivered sub"]);
    // What is there all the same is judged by what it is.
    place.tree().file("a", "own").file("sub/x", "1");
    let drift: Vec<&str> = place.status().areas[0].drift.iter().map(|entry| entry.what.name()).collect();
    assert_eq!(drift[0], "content");
    assert!(!drift.contains(&"stray"), "{drift:?}");
    place.checkout_exactly(&first);

    place.exclude = strings(&["/a", "/sub"]);
    seen(&place, true, 2, &[]);
    // It is there, delivered by an earlier checkout: nothing is missing when the rules let it in again.
    place.checkout(&second, Mode::Full);
    place.exclude.clear();
    seen(&place, true, 6, &[]);
    std::fs::remove_file(place.root.join("sub/y")).unwrap();
    seen(&place, false, 6, &["undelivered sub/y"]);
    place.rollback().unwrap();
    seen(&place, false, 6, &["missing sub/y"]);
}

fn xattr_names(entry: &Entry) -> Vec<String> {
    let Node::Inode(inode) = &entry.node else { return Vec::new() };
    inode.xattrs.keys().map(|name| String::from_utf8(name.clone()).unwrap()).collect()
}

/// FAULTS item 34: files with set-id bits where the rules of a machine forbid them are all named, and nothing is done.
#[test]
fn files_that_give_rights_need_a_rule() {
    let fixture = Fixture::new();
    for (name, mode) in [("bin/su", 0o4755), ("bin/write", 0o2755), ("bin/plain", 0o755)] {
        fixture.tree.file(name, name).mode(name, mode);
    }
    fixture.tree.link("bin/su", "bin/sudo").mode("bin", 0o2755);
    let id = fixture.commit_new();
    forbid_rights(&fixture, &id, &["bin/su", "bin/write"]);
}

/// `id` and the tree that it is of hold these files with rights, and no others.
#[track_caller]
fn forbid_rights(fixture: &Fixture, id: &SnapshotId, expected: &[&str]) {
    let named = |root: &std::path::Path, error: Error| {
        let Error::ForbiddenRights { paths } = &error else { panic!("{error}") };
        assert_eq!(*paths, expected.iter().map(|name| root.join(name)).collect::<Vec<_>>());
        assert!(error.to_string().contains(expected[0]), "{error}");
    };
    // What the files cache knows is not read again, and asked about all the same; so is what it does not know.
    for xattrs in [strings(&[]), strings(&["user.*", "security.capability", "!user.none"])] {
        let commit = fixture.try_commit(|options| {
            options.areas[0].set_id = false;
            options.areas[0].rules.xattrs.clone_from(&xattrs);
        });
        named(fixture.tree.root(), commit.unwrap_err());
        assert_eq!(fixture.store.latest().unwrap().as_ref(), Some(id));
    }

    let place = Place::new(fixture, "server");
    place.tree().file("here", "before");
    let before = read_tree(&place.root);
    let checkout = |dry_run: bool, exclude: &[&str]| {
        place.try_checkout(id, |options| {
            (options.dry_run, options.adopt) = (dry_run, Some(Adopt::Keep));
            (options.areas[0].set_id, options.areas[0].exclude) = (false, strings(exclude));
        })
    };
    for dry_run in [true, false] {
        named(&place.root, checkout(dry_run, &[]).unwrap_err());
        assert_same(&read_tree(&place.root), &before);
        assert!(!place.root.join(".evenkeel/undo").exists());
    }
    let excluded: Vec<String> = expected.iter().map(|name| format!("/{name}*")).collect();
    checkout(false, &excluded.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    place.try_checkout(id, |options| options.mode = Some(Mode::Full)).unwrap();
}

mod root {
    use super::*;
    use evenkeel_store::ErrorKind;

    #[test]
    #[ignore = "root: makes device nodes"]
    fn root_device_nodes_need_a_rule() {
        let fixture = Fixture::new();
        fixture.tree.device("null", 1, 3).file("a", "1");
        let report = fixture.commit();
        assert_eq!(report.areas[0].devices.len(), 1);
        assert!(report.warnings.iter().any(|warning| warning.contains("null")), "{:?}", report.warnings);
        assert_eq!(fixture.paths(&report.snapshot.unwrap()), [".", "a"]);
        let report = fixture.try_commit(|options| options.areas[0].rules.devices = true).unwrap();
        fixture.assert_holds_tree(&report.snapshot.unwrap());
    }

    /// By capabilities as well, also where the files cache knows the file already.
    #[test]
    #[ignore = "root: sets capabilities"]
    fn root_capabilities_give_rights() {
        // `cap_net_raw=ep` as the kernel has it.
        let caps = [1_u32 | 2 << 24, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
        let fixture = Fixture::new();
        fixture.tree.file("ping", "1").xattr("ping", "security.capability", &caps);
        let id = fixture.commit_new();
        forbid_rights(&fixture, &id, &["ping"]);
    }

    #[test]
    #[ignore = "root: mounts a file system"]
    fn root_a_mount_point_is_reported_and_not_entered() {
        let fixture = Fixture::new();
        fixture.tree.dir("mnt").file("a", "1").dir("bound");
        let mount = |args: &[&str]| assert!(std::process::Command::new("mount").args(args).status().unwrap().success());
        let umount = |path: &std::path::Path| drop(std::process::Command::new("umount").arg(path).status());
        let (mnt, bound) = (fixture.tree.path("mnt"), fixture.tree.path("bound"));
        mount(&["-t", "tmpfs", "none", mnt.to_str().unwrap()]);
        std::fs::write(mnt.join("inside"), "x").unwrap();
        std::fs::create_dir(fixture.dir().join("elsewhere")).unwrap();
        std::fs::write(fixture.dir().join("elsewhere/f"), "x").unwrap();
        // On the same device: only the mount's own mark tells.
        mount(&["--bind", fixture.dir().join("elsewhere").to_str().unwrap(), bound.to_str().unwrap()]);
        let report = fixture.try_commit(|_| {});
        umount(&mnt);
        umount(&bound);
        let report = report.unwrap();
        let points: Vec<String> = report.areas[0].mount_points.iter().map(ToString::to_string).collect();
        assert_eq!(points, ["bound", "mnt"]);
        assert_eq!(fixture.paths(&report.snapshot.unwrap()), [".", "a"]);
    }

    #[test]
    #[ignore = "root: owners, ACLs, capabilities and attributes of every kind"]
    fn root_metadata_of_every_kind() {
        let fixture = Fixture::new();
        let tree = &fixture.tree;
        tree.file("owned", "1")
            .owner("owned", 12_345, 54_321)
            .dir("d")
            .owner("d", 1, 2)
            .symlink("s", "x")
            .owner("s", 3, 4);
        tree.file("attrs", "2").xattr("attrs", "user.one", b"\0binary\xff").xattr("attrs", "user.empty", b"");
        tree.file("caps", "3").xattr("caps", "security.capability", CAP_NET_BIND);
        tree.file("suid", "4").mode("suid", 0o6755);
        tree.file("acl", "5").xattr("acl", "system.posix_acl_access", &acl_for_user(1000));
        tree.dir("acl-dir").xattr("acl-dir", "system.posix_acl_default", &acl_for_user(2000));
        let id = fixture.commit_new();
        fixture.assert_holds_tree(&id);
        let report = fixture.commit();
        assert!(!report.is_new);
        tree.xattr("attrs", "user.one", b"changed");
        fixture.assert_holds_tree(&fixture.commit_new());
        fixture.assert_sound();
    }

    #[test]
    #[ignore = "root: sets trusted attributes"]
    fn root_an_attribute_that_no_rule_mentions_is_refused_by_name() {
        let fixture = Fixture::new();
        fixture.tree.file("f", "1").xattr("f", "trusted.overlay.opaque", b"y").file("g", noise(1, 10));
        let error = fixture.try_commit(|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        let text = error.to_string();
        assert!(text.contains("trusted.overlay.opaque") && text.contains("/f"), "{text}");
        fixture.assert_sound();
        let rules = strings(&["trusted.overlay.*"]);
        let report = fixture.try_commit(|options| options.areas[0].rules.xattrs = rules).unwrap();
        fixture.assert_holds_tree(&report.snapshot.unwrap());
    }

    /// A directory that an attribute is refused for is named as well.
    #[test]
    #[ignore = "root: sets trusted attributes"]
    fn root_a_directory_with_such_an_attribute() {
        let fixture = Fixture::new();
        let inner = Tree::new(fixture.tree.path("inner"));
        fixture.tree.xattr("inner", "trusted.x", b"y");
        let error = fixture.try_commit(|_| {}).unwrap_err();
        assert!(error.to_string().contains(inner.root().to_str().unwrap()), "{error}");
    }

    /// `cap_net_bind_service=ep` as the kernel stores it, revision 2.
    const CAP_NET_BIND: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    /// user::rw-, user:UID:r--, group::r--, mask::r--, other::---
    fn acl_for_user(uid: u32) -> Vec<u8> {
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in
            [(1u16, 6u16, u32::MAX), (2, 4, uid), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
        {
            acl.extend(tag.to_le_bytes());
            acl.extend(perm.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        acl
    }
}
