// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The damage matrix: every object × every kind of damage × everything one can do with the store.
//!
//! The outcome of each case is a row of text, so that the whole matrix can be read; what must hold in every case is
//! asserted on the way: no panic, no wrong bytes, damage in one object does not hide the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evenkeel_store::backend::ObjectName;
use evenkeel_store::check::{CheckOptions, Severity, check};
use evenkeel_store::commit::{ParentChoice, commit};
use evenkeel_store::format::pack::PackKind;
use evenkeel_store::id::{PackId, SnapshotId};
use evenkeel_store::pack::read_kind;
use evenkeel_store::{Error, Progress, Store};
use evenkeel_tests::fixture::files_below;
use evenkeel_tests::naive::read_everything;
use evenkeel_tests::{Fixture, Item, noise};

type Files = BTreeMap<String, Vec<u8>>;

/// A store of two snapshots, as bytes, with the tree that its files cache knows.
pub struct Subject {
    pub fixture: Fixture,
    pub store: Files,
    pub state: Files,
    pub ids: [SnapshotId; 2],
    pub content: [BTreeMap<Vec<u8>, Item>; 2],
}

impl Subject {
    pub fn new() -> Subject {
        let fixture = Fixture::small();
        let tree = &fixture.tree;
        tree.file("kept", noise(1, 100_000)).file("changed", noise(2, 60_000)).file("gone", noise(3, 50_000));
        tree.symlink("link", "kept").sparse("sparse", 1 << 20, &[(300_000, &noise(4, 20_000))]).dir("empty");
        let one_thread = |options: &mut evenkeel_store::commit::CommitOptions| options.threads = 1;
        evenkeel_tests::fixture::settle();
        let first = fixture.try_commit(one_thread).unwrap().snapshot.unwrap();
        tree.file("changed", noise(5, 60_000)).file("added", noise(6, 40_000)).remove("gone");
        evenkeel_tests::fixture::settle();
        let second = fixture.try_commit(one_thread).unwrap().snapshot.unwrap();
        drop(evenkeel_store::catalog::Catalog::open(&fixture.store, &fixture.state).unwrap());
        let content = [first, second].map(|id| read_everything(&fixture.store, &id).unwrap());
        let (store, state) = (fixture.objects(), files_below(&fixture.state));
        Subject { fixture, store, state, ids: [first, second], content }
    }

    /// Puts store and state back as they were.
    pub fn restore(&self) {
        for (root, files) in [(self.fixture.store.path(), &self.store), (&self.fixture.state, &self.state)] {
            for name in files_below(root).keys().filter(|name| !files.contains_key(*name)) {
                std::fs::remove_file(root.join(name)).unwrap();
            }
            for (name, bytes) in files {
                std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
                std::fs::write(root.join(name), bytes).unwrap();
            }
        }
    }

    pub fn path(&self, name: &ObjectName) -> PathBuf {
        self.fixture.store.path().join(name.to_string())
    }

    /// Packs of one kind: that of the first commit, that of the second.
    pub fn packs(&self, kind: PackKind) -> [ObjectName; 2] {
        let backend = self.fixture.store.backend();
        let packs = self.fixture.store.listing().unwrap().list_packs().unwrap();
        let mut found: Vec<PackId> = packs.into_iter().filter(|id| read_kind(backend, id).unwrap() == kind).collect();
        // The first commit's data is the larger; its manifest is in its locator.
        let locator = self.store[&ObjectName::Locator(self.ids[0]).to_string()].clone();
        let first = evenkeel_store::format::table::Table::decode(locator).unwrap();
        found.sort_by_key(|id| !first.packs().iter().any(|pack| pack.id == *id));
        [ObjectName::Pack(found[0]), ObjectName::Pack(found[1])]
    }

    /// What is damaged: a name for the table, the file, and another one to exchange it with.
    fn objects(&self) -> Vec<(&'static str, PathBuf, PathBuf)> {
        let [data_1, data_2] = self.packs(PackKind::Data);
        let [nodes_1, nodes_2] = self.packs(PackKind::Manifest);
        let segments = self.fixture.store.listing().unwrap().list_segments().unwrap();
        let segment = ObjectName::Segment(segments[0]);
        let [first, second] = self.ids;
        let state = |name: &str| self.fixture.state.join(self.state.keys().find(|key| key.contains(name)).unwrap());
        let pairs = [
            ("format", ObjectName::Format, ObjectName::Snapshot(first)),
            ("pack, data, 1st", data_1, data_2),
            ("pack, data, 2nd", data_2, nodes_2),
            ("pack, manifest, 1st", nodes_1, nodes_2),
            ("pack, manifest, 2nd", nodes_2, data_1),
            ("segment", segment, ObjectName::SegmentsCurrent),
            ("segments/current", ObjectName::SegmentsCurrent, ObjectName::SnapshotIndex),
            ("locator, 1st", ObjectName::Locator(first), ObjectName::Locator(second)),
            ("locator, 2nd", ObjectName::Locator(second), segment),
            ("snapshot, 1st", ObjectName::Snapshot(first), ObjectName::Snapshot(second)),
            ("snapshot, 2nd", ObjectName::Snapshot(second), ObjectName::Locator(second)),
            ("snapshots/index", ObjectName::SnapshotIndex, ObjectName::SegmentsCurrent),
        ];
        let mut all: Vec<_> =
            pairs.into_iter().map(|(what, name, other)| (what, self.path(&name), self.path(&other))).collect();
        all.push(("files cache", state("/files/"), state("trusted-segments")));
        all.push(("trusted segments", state("trusted-segments"), state("/files/")));
        all.push(("catalog", state("/catalog/db"), state("trusted-segments")));
        all
    }
}

const DAMAGES: [&str; 8] =
    ["deleted", "emptied", "halved", "last byte cut", "flip in front", "flip within", "flip at end", "swapped"];

pub fn spoil(damage: &str, path: &Path, other: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let new = match damage {
        "deleted" => return std::fs::remove_file(path).unwrap(),
        "emptied" => Vec::new(),
        "halved" => bytes[..bytes.len() / 2].to_vec(),
        "last byte cut" => bytes[..bytes.len() - 1].to_vec(),
        "flip in front" => flipped(9),
        "flip within" => flipped(bytes.len() / 2),
        "flip at end" => flipped(bytes.len() - 5),
        "swapped" => {
            std::fs::write(path, std::fs::read(other).unwrap()).unwrap();
            return std::fs::write(other, bytes).unwrap();
        }
        _ => unreachable!(),
    };
    std::fs::write(path, new).unwrap();
}

fn kind_of(error: &Error) -> String {
    format!("{:?}", error.kind()).to_lowercase()
}

impl Subject {
    /// Reads both snapshots. What can be read is what was committed; nothing else is an acceptable answer.
    pub fn reads(&self, store: &Store) -> [String; 2] {
        [0, 1].map(|at| match read_everything(store, &self.ids[at]) {
            Ok(found) => {
                assert!(found == self.content[at], "snapshot {at} was read with other content");
                "ok".to_string()
            }
            Err(error) => kind_of(&error),
        })
    }

    /// Checks. Whatever cannot be read must be among what a finding says is hurt.
    fn check(&self, store: &Store, damaged: &[&Path], reads: &[String; 2]) -> String {
        let options = CheckOptions { read_data: true, ..CheckOptions::default() };
        let report = match check(store, &options, &Progress::default()) {
            Ok(report) => report,
            Err(error) => return format!("stops: {}", kind_of(&error)),
        };
        let hurt = |at: usize| report.findings.iter().any(|finding| finding.hurts.contains(&self.ids[at]));
        let worst = match report.findings.iter().map(|finding| finding.severity).max() {
            None => return "-".into(),
            Some(Severity::Rebuildable) => "rebuildable",
            Some(Severity::Damaged) => "damaged",
        };
        let names: Vec<&str> =
            damaged.iter().filter_map(|path| path.strip_prefix(self.fixture.store.path()).ok()?.to_str()).collect();
        // A flipped bit in the list of segments may make it name another segment, which is then what is missing.
        let is_index = |name: &str| name.starts_with("segments/");
        let is_named = report.findings.iter().any(|finding| {
            names.iter().any(|name| *name == finding.object || is_index(name) && is_index(&finding.object))
        });
        assert!(is_named, "{names:?} is not named: {:#?}", report.findings);
        for at in [0, 1] {
            let rebuildable = report.findings.iter().any(|finding| finding.object.starts_with("segments/"));
            assert!(reads[at] == "ok" || hurt(at) || rebuildable, "snapshot {at} is hurt: {:#?}", report.findings);
            assert!(reads[at] != "ok" || !hurt(at), "snapshot {at} is whole: {:#?}", report.findings);
        }
        let hurts: String = [0, 1].into_iter().filter(|at| hurt(*at)).map(|at| format!(" {}", at + 1)).collect();
        if hurts.is_empty() { worst.to_string() } else { format!("{worst}, hurts{hurts}") }
    }

    /// Commits the unchanged tree. What comes of it holds the tree or is refused.
    pub fn commit(&self, store: &Store) -> String {
        let options = evenkeel_store::commit::CommitOptions { threads: 1, ..self.fixture.options() };
        let report = match commit(store, &options, &Progress::default()) {
            Ok(report) => report,
            Err(error) => return format!("refused: {}", kind_of(&error)),
        };
        let id = report.snapshot.unwrap();
        let what = if report.is_new { "a new snapshot" } else { "nothing new" };
        match read_everything(store, &id) {
            Ok(found) => {
                assert!(found == self.content[1], "the snapshot holds something else");
                what.to_string()
            }
            Err(error) => format!("{what}, but {}", kind_of(&error)),
        }
    }

    /// One row of the matrix.
    fn row(&self, damage: &str, path: &Path, other: &Path) -> String {
        self.restore();
        spoil(damage, path, other);
        let store = match Store::open(self.fixture.store.path()) {
            Ok(store) => store,
            Err(error) => return format!("does not open: {}", kind_of(&error)),
        };
        let before = self.reads(&store);
        let damaged = if damage == "swapped" { vec![path, other] } else { vec![path] };
        let check = self.check(&store, &damaged, &before);
        let commit = self.commit(&store);
        let after = self.reads(&store);
        let checked = match store.reader() {
            Ok(_) => self.check_again(&store),
            Err(error) => kind_of(&error),
        };
        format!(
            "{:<8} {:<8} | {check:<22} | {commit:<24} | {:<8} {:<8} | {checked}",
            before[0], before[1], after[0], after[1]
        )
    }

    fn check_again(&self, store: &Store) -> String {
        let options = CheckOptions { read_data: true, ..CheckOptions::default() };
        match check(store, &options, &Progress::default()) {
            Err(error) => format!("stops: {}", kind_of(&error)),
            Ok(report) => match report.findings.iter().map(|finding| finding.severity).max() {
                None => "sound".into(),
                Some(severity) => format!("{severity:?}").to_lowercase(),
            },
        }
    }
}

/// For each object and outcome: what reading the 1st and the 2nd snapshot gives | what a check finds | what a commit of
/// the unchanged tree does | what reading gives then | what a check finds then | after which damages.
///
/// A commit reads no packs that are there in full length, so a flipped bit in one goes unnoticed until something reads it;
/// remove the damaged pack, and the next commit stores its content again.
const MATRIX: &str = "\
format              | does not open: notastore | deleted
format              | does not open: damaged | emptied, halved, last byte cut, flip within, flip at end, swapped
format              | does not open: unsupported | flip in front
pack, data, 1st     | damaged  damaged  | damaged, hurts 1 2     | nothing new              | damaged  ok       | damaged | deleted, emptied
pack, data, 1st     | damaged  damaged  | damaged, hurts 1 2     | nothing new              | ok       ok       | damaged | halved
pack, data, 1st     | ok       ok       | damaged                | nothing new              | ok       ok       | damaged | last byte cut, flip in front, flip at end, swapped
pack, data, 1st     | damaged  damaged  | damaged, hurts 1 2     | nothing new, but damaged | damaged  damaged  | damaged | flip within
pack, data, 2nd     | ok       damaged  | damaged, hurts 2       | nothing new              | ok       ok       | sound | deleted, emptied, halved
pack, data, 2nd     | ok       ok       | damaged                | nothing new              | ok       ok       | sound | last byte cut
pack, data, 2nd     | ok       ok       | damaged                | nothing new              | ok       ok       | damaged | flip in front, flip at end, swapped
pack, data, 2nd     | ok       damaged  | damaged, hurts 2       | nothing new, but damaged | ok       damaged  | damaged | flip within
pack, manifest, 1st | damaged  ok       | damaged, hurts 1       | nothing new              | damaged  ok       | damaged | deleted, emptied, halved, flip within
pack, manifest, 1st | ok       ok       | damaged                | nothing new              | ok       ok       | damaged | last byte cut, flip in front, flip at end, swapped
pack, manifest, 2nd | ok       damaged  | damaged, hurts 2       | nothing new              | ok       ok       | sound | deleted, emptied, halved
pack, manifest, 2nd | ok       ok       | damaged                | nothing new              | ok       ok       | sound | last byte cut
pack, manifest, 2nd | ok       ok       | damaged                | nothing new              | ok       ok       | damaged | flip in front, flip at end, swapped
pack, manifest, 2nd | ok       damaged  | damaged, hurts 2       | nothing new, but damaged | ok       damaged  | damaged | flip within
segment             | ok       ok       | rebuildable            | nothing new              | ok       ok       | sound | any
segments/current    | ok       ok       | rebuildable            | nothing new              | ok       ok       | sound | any
locator, 1st        | ok       ok       | rebuildable            | nothing new              | ok       ok       | rebuildable | any
locator, 2nd        | ok       ok       | rebuildable            | nothing new              | ok       ok       | sound | any
snapshot, 1st       | unknown  ok       | damaged, hurts 1       | nothing new              | unknown  ok       | damaged | deleted
snapshot, 1st       | damaged  ok       | damaged, hurts 1       | nothing new              | damaged  ok       | damaged | emptied, halved, last byte cut, flip in front, flip within, flip at end
snapshot, 1st       | damaged  damaged  | damaged, hurts 1 2     | refused: damaged         | damaged  damaged  | damaged | swapped
snapshot, 2nd       | ok       unknown  | damaged, hurts 2       | refused: damaged         | ok       unknown  | damaged | deleted
snapshot, 2nd       | ok       damaged  | damaged, hurts 2       | refused: damaged         | ok       damaged  | damaged | emptied, halved, last byte cut, flip in front, flip within, flip at end, swapped
snapshots/index     | ok       ok       | rebuildable            | nothing new              | ok       ok       | sound | any
files cache         | ok       ok       | -                      | nothing new              | ok       ok       | sound | any
trusted segments    | ok       ok       | -                      | nothing new              | ok       ok       | sound | any
catalog             | ok       ok       | -                      | nothing new              | ok       ok       | sound | any
";

#[test]
fn matrix() {
    let subject = Subject::new();
    let mut table = String::new();
    for (what, path, other) in subject.objects() {
        let mut outcomes: Vec<(String, Vec<&str>)> = Vec::new();
        for damage in DAMAGES {
            let row = subject.row(damage, &path, &other);
            match outcomes.iter_mut().find(|(known, _)| *known == row) {
                Some((_, damages)) => damages.push(damage),
                None => outcomes.push((row, vec![damage])),
            }
        }
        for (row, damages) in outcomes {
            let damages = if damages.len() == DAMAGES.len() { "any".to_string() } else { damages.join(", ") };
            table.push_str(&format!("{what:<19} | {row} | {damages}\n"));
        }
    }
    assert!(table == MATRIX, "another outcome:\n{table}");
}

/// A link could lead a program with more rights than whoever made it to any file (format-spec §10.3).
#[test]
fn links_in_a_store_are_damage_and_never_followed() {
    let subject = Subject::new();
    let (fixture, store) = (&subject.fixture, &subject.fixture.store);
    let elsewhere = fixture.dir().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let [first, second] = subject.ids;
    let names = [
        subject.packs(PackKind::Data)[0],
        subject.packs(PackKind::Manifest)[1],
        ObjectName::Snapshot(first),
        ObjectName::Segment(store.listing().unwrap().list_segments().unwrap()[0]),
        ObjectName::SegmentsCurrent,
        ObjectName::SnapshotIndex,
        ObjectName::Locator(second),
    ];
    for name in names {
        subject.restore();
        let (path, target) = (subject.path(&name), elsewhere.join("object"));
        std::fs::rename(&path, &target).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let findings = fixture.check().findings;
        assert!(findings.iter().any(|finding| finding.object == name.to_string()), "{name}: {findings:#?}");
        match name {
            ObjectName::Pack(_) => {
                assert!(subject.reads(store).contains(&"damaged".to_string()), "{name}");
                assert!(findings.iter().any(|finding| finding.problem.contains("a symbolic link")), "{findings:#?}");
            }
            ObjectName::Snapshot(_) => assert_eq!(subject.reads(store), ["damaged", "ok"]),
            _ => assert_eq!(subject.reads(store), ["ok", "ok"], "{name}"),
        }
        assert_eq!(subject.commit(store), "nothing new", "{name}");
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&target).unwrap();
    }
    subject.restore();
    let format = subject.path(&ObjectName::Format);
    std::fs::rename(&format, elsewhere.join("format")).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("format"), &format).unwrap();
    assert_eq!(
        Store::open(store.path()).unwrap_err().to_string(),
        "format is damaged: a symbolic link is in its place"
    );
    std::fs::remove_file(&format).unwrap();

    subject.restore();
    let fan = subject.path(&subject.packs(PackKind::Data)[0]).parent().unwrap().to_path_buf();
    std::fs::rename(&fan, elsewhere.join("fan")).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("fan"), &fan).unwrap();
    assert!(subject.reads(store).contains(&"damaged".to_string()));
    let is_told = |problem: &str| {
        let findings = fixture.check().findings;
        let of_fan = findings.iter().find(|finding| fan.ends_with(&finding.object)).expect("the directory is named");
        // A manifest may happen to lie in the same directory; then more is said.
        assert!(of_fan.problem.starts_with(problem) && of_fan.severity == Severity::Damaged, "{of_fan:#?}");
        assert!(findings.iter().any(|finding| !finding.hurts.is_empty()), "{findings:#?}");
    };
    is_told("a symbolic link is in its place");
    std::fs::remove_file(&fan).unwrap();
    std::fs::write(&fan, "a file").unwrap();
    assert!(subject.reads(store).contains(&"damaged".to_string()));
    is_told("something that is no directory is in its place");
    // The way to the store may be a link.
    let link = fixture.dir().join("link");
    std::os::unix::fs::symlink(store.path(), &link).unwrap();
    assert_eq!(Store::open(&link).unwrap().id(), store.id());
}

/// Another machine's files cache, or one of another area, knows nothing of a loss that this commit made good for its own
/// area only. Its entries must not be taken over.
#[test]
fn a_files_cache_that_did_not_see_the_loss_is_not_trusted() {
    let fixture = Fixture::small();
    let other = evenkeel_tests::Tree::new(fixture.dir().join("other"));
    fixture.tree.file("a", noise(1, 100_000));
    other.file("b", noise(2, 100_000));
    let area = evenkeel_store::area::AreaSpec { name: "other".into(), root: other.root().into(), ..fixture.area() };
    evenkeel_tests::fixture::settle();
    fixture.try_commit(|options| options.areas.push(area.clone())).unwrap();
    for pack in fixture.store.listing().unwrap().list_packs().unwrap() {
        std::fs::remove_file(fixture.store.path().join(ObjectName::Pack(pack).to_string())).unwrap();
    }
    let first = fixture.commit_new();
    fixture.assert_holds_tree(&first);
    let second = fixture.try_commit(|options| options.areas = vec![area]).unwrap();
    let found = read_everything(&fixture.store, &second.snapshot.unwrap()).unwrap();
    assert_eq!(found.len(), 2);
}

/// The newest snapshot is lost and the index with it: the one before is the latest, not a damaged one of long ago.
#[test]
fn a_damaged_snapshot_is_never_the_latest_without_an_index() {
    let subject = Subject::new();
    let store = &subject.fixture.store;
    std::fs::remove_file(subject.path(&ObjectName::SnapshotIndex)).unwrap();
    std::fs::write(subject.path(&ObjectName::Snapshot(subject.ids[0])), "").unwrap();
    assert_eq!(store.resolve("@latest").unwrap(), subject.ids[1]);
    subject.fixture.tree.file("more", "1");
    let next = subject.fixture.commit_new();
    subject.fixture.assert_holds_tree(&next);
    let listed: Vec<SnapshotId> = store.snapshot_index().unwrap().unwrap().iter().map(|record| record.id).collect();
    assert_eq!(listed, [subject.ids[0], subject.ids[1], next]);
}

/// The newest snapshot was removed: `@latest` and a commit took the one before it for the newest, without a word.
#[test]
fn a_lost_newest_snapshot_is_not_rolled_back_silently() {
    let subject = Subject::new();
    let (fixture, store, [first, second]) = (&subject.fixture, &subject.fixture.store, subject.ids);
    let object = ObjectName::Snapshot(second).to_string();
    let is_named = |error: &Error| matches!(error, Error::MissingObject { object: missing } if *missing == object);
    for with_index in [true, false] {
        subject.restore();
        std::fs::remove_file(subject.path(&ObjectName::Snapshot(second))).unwrap();
        if !with_index {
            std::fs::remove_file(subject.path(&ObjectName::SnapshotIndex)).unwrap();
        }
        for name in ["@latest", "@latest~", &second.to_hex(), &second.to_hex()[..12]] {
            let error = store.resolve(name).unwrap_err();
            assert!(is_named(&error), "{name}: {error}");
        }
        assert_eq!(store.resolve(&first.to_hex()).unwrap(), first);
        let list = store.list_snapshots().unwrap();
        assert_eq!(list.there.iter().map(|record| record.id).collect::<Vec<_>>(), [first]);
        assert_eq!(list.missing, [second]);
        let findings = fixture.check().findings;
        let finding = findings.iter().find(|finding| finding.object == object).expect("it is named");
        assert_eq!((finding.severity, &finding.hurts[..]), (Severity::Damaged, &[second][..]));

        let before = files_below(store.path());
        let error = fixture.try_commit(|_| {}).unwrap_err();
        assert!(is_named(&error), "{error}");
        assert!(files_below(store.path()) == before, "the index still tells of it");
        let id = fixture.try_commit(|options| options.parent = ParentChoice::Id(first)).unwrap().snapshot.unwrap();
        assert_eq!(store.resolve("@latest").unwrap(), id);
        fixture.assert_holds_tree(&id);
    }
}

/// A snapshot in the middle is lost, and the index: its child tells of it.
#[test]
fn a_lost_parent_is_named() {
    let subject = Subject::new();
    let (store, [first, second]) = (&subject.fixture.store, subject.ids);
    for name in [ObjectName::Snapshot(first), ObjectName::SnapshotIndex, ObjectName::Locator(first)] {
        std::fs::remove_file(subject.path(&name)).unwrap();
    }
    assert_eq!(store.resolve("@latest").unwrap(), second);
    for name in [first.to_hex(), "@latest~1".into()] {
        let error = store.resolve(&name).unwrap_err();
        assert!(matches!(error, Error::MissingObject { .. }), "{name}: {error}");
    }
    let object = ObjectName::Snapshot(first).to_string();
    let findings = subject.fixture.check().findings;
    assert!(findings.iter().any(|finding| finding.object == object && finding.hurts == [first]), "{findings:#?}");
}

/// Runs `work` in a thread of its own, which must end: a FIFO in place of an object kept its reader waiting for ever.
fn in_time<T: Send + 'static>(what: String, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    result.recv_timeout(std::time::Duration::from_secs(60)).unwrap_or_else(|_| panic!("{what}: did not end"))
}

/// What stands where an object was. A check stopped at the first of these, named no file, and kept no other finding.
#[test]
fn what_cannot_be_read_is_a_finding_and_no_end() {
    let subject = std::sync::Arc::new(Subject::new());
    let store_objects: Vec<_> = subject.objects().into_iter().take(12).collect();
    for obstacle in ["fifo", "directory", "socket", "terabyte"] {
        for (what, path, _) in &store_objects {
            let case = format!("{obstacle} for {what}");
            subject.restore();
            std::fs::remove_file(path).unwrap();
            match obstacle {
                "fifo" => rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).unwrap(),
                "directory" => std::fs::create_dir(path).unwrap(),
                "socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
                _ => std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
            }
            let name = path.strip_prefix(subject.fixture.store.path()).unwrap().to_str().unwrap().to_owned();
            let (own, told) = (subject.clone(), case.clone());
            in_time(case, move || {
                let store = match Store::open(own.fixture.store.path()) {
                    Ok(store) => store,
                    Err(error) => {
                        return assert!(error.to_string().starts_with("format is damaged"), "{told}: {error}");
                    }
                };
                let is_hint = ["segments/", "locators/", "snapshots/index"].iter().any(|hint| name.starts_with(hint));
                let reads = own.reads(&store);
                assert_eq!(is_hint, reads == ["ok", "ok"], "{told}: {reads:?}");
                let report = check(&store, &CheckOptions::default(), &Progress::default()).unwrap();
                let finding = report.findings.iter().find(|finding| finding.object == name);
                let finding = finding.unwrap_or_else(|| panic!("{told}: {:#?}", report.findings));
                let severity = if is_hint { Severity::Rebuildable } else { Severity::Damaged };
                assert_eq!((finding.severity, report.snapshots), (severity, 2), "{told}: {finding:?}");
                assert!(is_hint || !finding.hurts.is_empty(), "{told}: {:#?}", report.findings);
                drop(evenkeel_store::catalog::Catalog::open(&store, &own.fixture.state).unwrap());
                let (mut options, progress) = (own.fixture.options(), Progress::default());
                options.threads = 1;
                match commit(&store, &options, &progress) {
                    Ok(report) => drop(read_everything(&store, &report.snapshot.unwrap()).unwrap()),
                    // A file cannot be renamed over a directory.
                    Err(error) => assert!(error.to_string().contains(&name), "{told}: {error}"),
                }
            });
            let found = std::fs::symlink_metadata(path);
            if found.as_ref().is_ok_and(|found| found.is_dir()) {
                std::fs::remove_dir(path).unwrap();
            } else if found.is_ok() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

/// One file may not be read: the rest is looked at all the same.
#[test]
fn a_file_without_permission_does_not_end_a_check() {
    let subject = Subject::new();
    for name in [subject.packs(PackKind::Data)[1], ObjectName::Snapshot(subject.ids[1]), ObjectName::SegmentsCurrent] {
        subject.restore();
        let path = subject.path(&name);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        let report = evenkeel_tests::without_privilege(subject.fixture.dir(), || subject.fixture.check());
        let finding = report.findings.iter().find(|finding| finding.object == name.to_string()).unwrap();
        assert!(finding.problem.contains("Permission denied"), "{finding:?}");
        assert_eq!((finding.severity, report.snapshots), (Severity::Damaged, 2));
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
}

/// Reading fails as a disk with a bad sector makes it fail.
#[test]
#[ignore = "root: runs a check under strace"]
fn root_a_bad_sector_is_a_finding() {
    let subject = Subject::new();
    let segment = subject.fixture.store.listing().unwrap().list_segments().unwrap()[0];
    let names = [
        subject.packs(PackKind::Data)[0],
        subject.packs(PackKind::Manifest)[1],
        ObjectName::Snapshot(subject.ids[1]),
        ObjectName::Segment(segment),
        ObjectName::SegmentsCurrent,
        ObjectName::Locator(subject.ids[0]),
        ObjectName::SnapshotIndex,
    ];
    for name in names {
        let output = std::process::Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=pread64:error=EIO", "-P"])
            .arg(subject.path(&name))
            .arg(env!("CARGO_BIN_EXE_one-check"))
            .arg(subject.fixture.store.path())
            .output()
            .unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(found.contains(&name.to_string()) && found.contains("2 snapshots"), "{name}: {found}");
    }
}
