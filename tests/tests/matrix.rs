// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every class of metadata, created, updated, removed and left alone, on every file system, by every switch; compared by
//! the usual tools. What a file system cannot hold is written down here, and must be in the fidelity report and nowhere
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use evenkeel_store::checkout::{Ceiling, CheckoutReport, Mode, SwitchMode};
use evenkeel_store::id::SnapshotId;
use evenkeel_tests::classes::{BTRFS_CLASSES, CLASSES, Class, remove};
use evenkeel_tests::fixture::settle;
use evenkeel_tests::mounted::{Format, Mounted};
use evenkeel_tests::place::summary;
use evenkeel_tests::portrait::{Portrait, portrait};
use evenkeel_tests::{Fixture, Place, Tree};

/// How what is staged takes its place.
const SWITCHES: [(&str, SwitchMode); 2] = [("files", SwitchMode::Files), ("tree", SwitchMode::Tree)];

/// A file system to deliver to, and what it is known not to hold.
struct Target {
    name: &'static str,
    format: Option<Format>,
    /// Flags that it drops, by the letters of `lsattr`.
    no_flags: &'static str,
    /// The first and the last second that it holds.
    seconds: (i64, i64),
    /// Whether it has nanoseconds.
    nanos: bool,
}

const TARGETS: [Target; 5] = [
    Target {
        name: "ext4",
        format: Some(Format::Ext4),
        no_flags: "C",
        seconds: (-(1 << 31), 15_032_385_535),
        nanos: true,
    },
    Target {
        name: "xfs",
        format: Some(Format::Xfs),
        no_flags: "cCDT",
        seconds: (-(1 << 31), 16_299_260_424),
        nanos: true,
    },
    Target { name: "btrfs", format: Some(Format::Btrfs), no_flags: "PT", seconds: (i64::MIN, i64::MAX), nanos: true },
    Target { name: "tmpfs", format: None, no_flags: "cCDPST", seconds: (i64::MIN, i64::MAX), nanos: true },
    Target {
        name: "old ext4",
        format: Some(Format::Ext4Old),
        no_flags: "C",
        seconds: (-(1 << 31), (1 << 31) - 1),
        nanos: false,
    },
];

impl Target {
    fn mount(&self, dir: &Path) -> Mounted {
        match self.format {
            Some(format) => Mounted::image(dir, format),
            None => Mounted::tmpfs(dir, "size=200m,mode=755"),
        }
    }

    /// What the master's tree is expected to be here, and what is expected to be reported as lost: how many inodes lose
    /// something of a kind.
    fn expected(&self, master: &Portrait) -> (Portrait, BTreeMap<&'static str, u64>) {
        let (mut here, mut lost) = (Portrait::new(), BTreeMap::new());
        for (path, said) in master {
            let mut said = said.clone();
            if said["stat"].starts_with("socket") {
                continue;
            }
            let counts = u64::from(said.get("group").is_none_or(|first| first == path));
            if let Some(flags) = said.get("flags").cloned() {
                let held: String = flags.chars().filter(|flag| !self.no_flags.contains(*flag)).collect();
                if held != flags {
                    *lost.entry("inode flags").or_default() += counts;
                }
                if held.is_empty() {
                    said.remove("flags")
                } else {
                    said.insert("flags", held)
                };
            }
            // Setting flags must leave alone what the file system keeps among them for itself.
            let has_layout = matches!(self.format, Some(Format::Ext4 | Format::Ext4Old)) && !is_special(&said["stat"]);
            if has_layout {
                said.insert("layout", "extents".into())
            } else {
                said.remove("layout")
            };
            let time = said["time"].clone();
            let held = self.time(&time);
            if held != time {
                *lost.entry("exact time").or_default() += counts;
            }
            said.insert("time", held);
            here.insert(path.clone(), said);
        }
        (here, lost)
    }

    /// A time as `stat` prints it, as it is held here.
    fn time(&self, text: &str) -> String {
        let (whole, nanos) = text.split_once('.').unwrap();
        let (mut secs, mut nanos): (i64, u32) = (whole.parse().unwrap(), nanos.parse().unwrap());
        // -0.5 is half a second before 1970: second -1, and the rest counts forward.
        if whole.starts_with('-') && nanos > 0 {
            (secs, nanos) = (secs - 1, 1_000_000_000 - nanos);
        }
        if secs <= self.seconds.0 || secs >= self.seconds.1 {
            (secs, nanos) = (secs.clamp(self.seconds.0, self.seconds.1), 0);
        }
        if !self.nanos {
            nanos = 0;
        }
        match (secs < 0, nanos) {
            (true, 1..) if secs == -1 => format!("-0.{:09}", 1_000_000_000 - nanos),
            (true, 1..) => format!("{}.{:09}", secs + 1, 1_000_000_000 - nanos),
            _ => format!("{secs}.{nanos:09}"),
        }
    }
}

/// Whether it has no flags, by what `stat` says of it.
fn is_special(stat: &str) -> bool {
    !stat.starts_with("regular") && !stat.starts_with("directory")
}

/// Two releases of a tree with every class in it, and what the tools said of the master's tree at the time.
struct Releases {
    fixture: Fixture,
    _disk: Mounted,
    snapshots: [SnapshotId; 2],
    portraits: [Portrait; 2],
}

impl Releases {
    /// On a master with this file system.
    fn on(format: Format, classes: &[Class]) -> Releases {
        let fixture = Fixture::small();
        let disk = Mounted::image(&fixture.dir().join("master"), format);
        let tree = Tree::new(disk.path().join("tree"));
        for class in classes {
            tree.dir(class.name);
            for object in ["update", "remove", "unchanged"] {
                (class.make)(&tree, &format!("{}/{object}", class.name), 0);
            }
        }
        let commit = || {
            settle();
            let report = fixture.try_commit(|options| {
                options.areas[0].root = tree.root().to_path_buf();
                options.areas[0].rules.devices = true;
                // The algorithm that goes with the flag `c` is the machine's business.
                let rules = ["user.*", "trusted.*", "security.*", "!btrfs.compression"];
                options.areas[0].rules.xattrs = rules.map(String::from).to_vec();
            });
            report.unwrap().snapshot.unwrap()
        };
        let (first, before) = (commit(), portrait(tree.root()));
        for class in classes {
            let path = |object: &str| format!("{}/{object}", class.name);
            // An object may have a second name beside the first.
            for object in ["update", "remove", "update-too", "remove-too"] {
                if tree.path(path(object)).symlink_metadata().is_ok() {
                    remove(&tree, &path(object));
                }
            }
            (class.make)(&tree, &path("update"), 1);
            (class.make)(&tree, &path("create"), 0);
        }
        let (second, after) = (commit(), portrait(tree.root()));
        Releases { fixture, _disk: disk, snapshots: [first, second], portraits: [before, after] }
    }
}

/// What was found to be wrong: class, object, place, what.
#[derive(Default)]
struct Findings(BTreeSet<(String, String, String, String)>);

impl Findings {
    /// Compares two portraits, path by path.
    fn compare(&mut self, place: &str, step: &str, found: &Portrait, expected: &Portrait) {
        for path in found.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
            let (found, expected) = (found.get(path), expected.get(path));
            if found != expected {
                let nothing = BTreeMap::new();
                let (found, expected) = (found.unwrap_or(&nothing), expected.unwrap_or(&nothing));
                let tools = found.keys().chain(expected.keys()).filter(|tool| found.get(*tool) != expected.get(*tool));
                for tool in tools.collect::<BTreeSet<_>>() {
                    let (found, expected) = (found.get(tool), expected.get(tool));
                    self.say(place, path, format!("{step}: {path}: {tool}: {found:?} instead of {expected:?}"));
                }
            }
        }
    }

    fn say(&mut self, place: &str, path: &str, what: String) {
        let mut parts = path.split('/');
        let class = parts.next().unwrap_or_default().to_owned();
        let object = parts.next().unwrap_or("itself").trim_end_matches("-too").to_owned();
        self.0.insert((class, object, place.to_owned(), what));
    }

    /// A row a class, a column a place: `c`, `u`, `r` and `=` for what was created, updated, removed and left alone, in
    /// capitals and `#` where it went wrong.
    fn table(&self, classes: &[Class], places: &[String]) -> String {
        let mut table = format!("{:16}", "");
        places.iter().for_each(|place| table += &format!(" {place:16}"));
        for class in classes {
            table += &format!("\n{:16}", class.name);
            for place in places {
                let cell = |object: &str, good: char, bad: char| {
                    let wrong =
                        |(c, o, p, _): &(String, String, String, String)| c == class.name && o == object && p == place;
                    if self.0.iter().any(wrong) { bad } else { good }
                };
                let cells = [
                    cell("create", 'c', 'C'),
                    cell("update", 'u', 'U'),
                    cell("remove", 'r', 'R'),
                    cell("unchanged", '=', '#'),
                ];
                table += &format!(" {:16}", cells.iter().collect::<String>());
            }
        }
        table
    }
}

/// Inode numbers of what no release changes.
fn inodes(root: &Path, portrait: &Portrait) -> BTreeMap<String, u64> {
    let unchanged = portrait.keys().filter(|path| path.contains("/unchanged"));
    unchanged.map(|path| (path.clone(), root.join(path).symlink_metadata().unwrap().ino())).collect()
}

/// Delivers both releases to one place, takes one back, and delivers it in the other mode.
fn deliver(releases: &Releases, target: &Target, name: &str, switch: SwitchMode, findings: &mut Findings) {
    let mut place = Place::new(&releases.fixture, "unused");
    let mount = releases.fixture.dir().join(name.replace(' ', "-"));
    let disk = target.mount(&mount);
    place.root = disk.path().join("live");
    place.state = releases.fixture.dir().join(format!("{name}.state"));
    let checkout = |id: &SnapshotId, mode| {
        let report = place.try_checkout(id, |options| {
            (options.mode, options.switch) = (Some(mode), switch);
            (options.max_delete, options.max_removals) = (Ceiling::Percent(100), Ceiling::Percent(100));
        });
        report.unwrap_or_else(|e| panic!("{name}: {e}: {:?}", std::error::Error::source(&e)))
    };
    let [first, second] = &releases.snapshots;
    let [(before, lost_before), (after, lost_after)] =
        [0, 1].map(|release| target.expected(&releases.portraits[release]));
    let mut check = |step: &str, found: &Portrait, expected: &Portrait| findings.compare(name, step, found, expected);

    let report = checkout(first, Mode::Full);
    check("new", &portrait(&place.root), &before);
    assert_eq!(losses(&report), lost_before, "{name}");
    let kept = inodes(&place.root, &before);
    let report = checkout(second, Mode::Full);
    check("full", &portrait(&place.root), &after);
    assert_eq!(losses(&report), lost_after, "{name}");
    if switch == SwitchMode::Files {
        assert_eq!(inodes(&place.root, &after), kept, "{name}: what did not change keeps its inode");
    }
    let idle = checkout(second, Mode::Full);
    assert!(idle.is_empty() && idle.in_sync, "{name}: {:?}", summary(&idle));
    assert_eq!(losses(&idle), lost_after, "{name}: nothing to do, but no less is lost");
    for report in [place.status(), place.verify()] {
        assert!(report.in_sync() && report.areas[0].drift.is_empty(), "{name}: {:?}", report.areas[0].drift);
    }
    place.rollback().unwrap_or_else(|e| panic!("{name}: {e}: {:?}", std::error::Error::source(&e)));
    check("rollback", &portrait(&place.root), &before);
    if switch == SwitchMode::Files {
        checkout(second, Mode::Incremental);
        // What the release dropped stays as it was.
        let dropped = before.iter().filter(|(path, _)| !after.contains_key(*path));
        let mut both: Portrait = dropped.chain(&after).map(|(path, said)| (path.clone(), said.clone())).collect();
        // A group that the release changed has left it behind.
        for said in both.iter_mut().filter(|(path, _)| !after.contains_key(*path)).map(|(_, said)| said) {
            if said.get("group").is_some_and(|first| after.contains_key(first)) {
                said.remove("group");
            }
        }
        check("incremental", &portrait(&place.root), &both);
    }
    checkout(first, Mode::Full);
    check("back", &portrait(&place.root), &before);
}

fn losses(report: &CheckoutReport) -> BTreeMap<&'static str, u64> {
    report.areas[0].not_held.iter().map(|lost| (lost.what.name(), lost.entries)).collect()
}

fn matrix(master: Format, classes: &[Class]) {
    let releases = Releases::on(master, classes);
    let mut findings = Findings::default();
    let mut places = Vec::new();
    for (switch_name, switch) in SWITCHES {
        for target in &TARGETS {
            let name = format!("{} {switch_name}", target.name);
            deliver(&releases, target, &name, switch, &mut findings);
            places.push(name);
        }
    }
    println!("\nfrom {master:?}:\n{}\n", findings.table(classes, &places));
    let wrong: Vec<String> = findings.0.iter().map(|(_, _, place, what)| format!("{place}, {what}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[ignore = "root: loop devices with ext4, xfs and btrfs, owners, flags and devices"]
fn root_every_class_on_every_file_system() {
    matrix(Format::Ext4, &CLASSES);
}

/// A btrfs holds flags and times that others do not.
#[test]
#[ignore = "root: loop devices with ext4, xfs and btrfs"]
fn root_what_only_a_btrfs_holds() {
    matrix(Format::Btrfs, &BTRFS_CLASSES);
}

/// What else is in the way of exact metadata: a umask, and what a directory hands down to whatever is made in it.
#[test]
#[ignore = "root: loop devices, owners, ACLs and flags"]
fn root_surroundings_change_nothing() {
    let releases = Releases::on(Format::Ext4, &CLASSES);
    let target = TARGETS.iter().find(|target| target.name == "ext4").unwrap();
    let disk = target.mount(&releases.fixture.dir().join("surrounded"));
    let parent = Tree::new(disk.path().join("parent"));
    parent.owner("", 0, 4321).mode("", 0o2777);
    run("setfacl", &["-d", "-m", "u:1234:rwx,g:99:rwx,o::rwx"], parent.root());
    run("chattr", &["+ASdD"], parent.root());
    for umask in ["000", "077"] {
        let (root, state) = (parent.path(format!("live-{umask}")), releases.fixture.dir().join(format!("u{umask}")));
        for (snapshot, master) in releases.snapshots.iter().zip(&releases.portraits) {
            let script = format!("umask {umask}; exec \"$@\"");
            let done = std::process::Command::new("sh")
                .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_one-checkout")])
                .args([releases.fixture.store.path(), &state, &root])
                .args([&snapshot.to_hex(), "incremental", "none"])
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let mut findings = Findings::default();
            // What the second release dropped is still there.
            let found = portrait(&root).into_iter().filter(|(path, _)| master.contains_key(path)).collect();
            findings.compare("umask", umask, &found, &target.expected(master).0);
            let wrong: Vec<&String> = findings.0.iter().map(|(_, _, _, what)| what).collect();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

/// A group that this server has split is joined; a name outside the area keeps the inode that it has, as it is.
#[test]
#[ignore = "root: loop devices with ext4, xfs and btrfs"]
fn root_hard_links_are_joined_and_names_outside_left_alone() {
    let fixture = Fixture::small();
    let tree = &fixture.tree;
    for name in ["plain", "suid"] {
        tree.file(format!("{name}/a"), "first").link(format!("{name}/a"), format!("{name}/b"));
        tree.owner(format!("{name}/a"), 1001, 2001).mtime(format!("{name}/a"), 1_000_000_000, 7);
    }
    tree.mode("suid/a", 0o4755);
    let (first, before) = (fixture.commit_new(), portrait(tree.root()));
    for name in ["plain", "suid"] {
        tree.remove(format!("{name}/a").as_str()).remove(format!("{name}/b").as_str());
        tree.file(format!("{name}/a"), "second").link(format!("{name}/a"), format!("{name}/b"));
    }
    let (second, after) = (fixture.commit_new(), portrait(tree.root()));
    for target in &TARGETS {
        let disk = target.mount(&fixture.dir().join(target.name.replace(' ', "-")));
        let mut place = Place::new(&fixture, target.name);
        place.root = disk.path().join("live");
        let assert_is = |step: &str, expected: &Portrait| {
            let mut findings = Findings::default();
            findings.compare(target.name, step, &portrait(&place.root), &target.expected(expected).0);
            assert!(findings.0.is_empty(), "{:#?}", findings.0);
        };
        for mode in [Mode::Incremental, Mode::Full] {
            place.checkout(&first, Mode::Full);
            assert_is("first", &before);
            // Split here, with everything else as it was.
            run("sh", &["-c", "cp -p $0/plain/b $0/plain/b.new && mv $0/plain/b.new $0/plain/b"], &place.root);
            place.checkout(&first, mode);
            assert_is("joined", &before);
            let outside = Tree::new(disk.path().join(format!("outside-{mode:?}")));
            for name in ["plain", "suid"] {
                std::fs::hard_link(place.root.join(name).join("a"), outside.path(name)).unwrap();
            }
            let of_outside = || portrait(outside.root());
            let outside_before = of_outside();
            place.checkout(&second, mode);
            assert_is("second", &after);
            let outside_after = of_outside();
            assert_eq!(outside_after["plain"], outside_before["plain"], "{}", target.name);
            assert_eq!(std::fs::read(outside.path("suid")).unwrap(), b"first");
            assert!(outside_after["suid"]["stat"].contains(" 755 "), "a displaced program gives no rights any more");
            // Going back: both names of each group are one inode again, which is not that of the name outside.
            place.rollback().unwrap();
            assert_is("rollback", &before);
            assert_eq!(of_outside(), outside_after);
        }
    }
}

fn run(program: &str, args: &[&str], last: &Path) {
    let done = std::process::Command::new(program).args(args).arg(last).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}
