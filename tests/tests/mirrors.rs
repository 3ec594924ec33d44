// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mirrors that are not what they should be: lies that are well formed, copies that are damaged, behind or gone. Whose fault it
//! is, the report says; nobody else is blamed, and the update comes from the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_store::backend::http::{HttpOptions, Patience};
use evenkeel_store::backend::{HttpBackend, ObjectName};
use evenkeel_store::checkout::{CheckoutReport, Mode};
use evenkeel_store::copy::{CopyOptions, copy, open_target};
use evenkeel_store::format::pack;
use evenkeel_store::format::store::{SegmentRef, SegmentsCurrent};
use evenkeel_store::format::table::{self, Location, Table, TableKind};
use evenkeel_store::id::{ChunkId, PackId, SegmentId, SnapshotId};
use evenkeel_store::{ErrorKind, Progress, Store};
use evenkeel_tests::fixture::{assert_same, files_below};
use evenkeel_tests::web::{Asked, Manner, WebServer};
use evenkeel_tests::{Fixture, Place, noise, read_tree};

fn open(servers: &[&WebServer]) -> Store {
    let patience = Patience {
        first_byte: Duration::from_secs(5),
        stall: Duration::from_secs(5),
        rounds: 3,
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        ..Patience::default()
    };
    let addresses: Vec<String> = servers.iter().map(|server| server.url()).collect();
    let backend = HttpBackend::new(&addresses, HttpOptions { patience, ..HttpOptions::default() }).unwrap();
    Store::open_at(Arc::new(backend)).unwrap()
}

/// A release of several packs.
struct Subject {
    fixture: Fixture,
    id: SnapshotId,
}

impl Subject {
    fn new() -> Subject {
        let fixture = Fixture::small();
        for at in 0..200u64 {
            fixture.tree.file(format!("d{}/f{at}", at % 7), noise(at, 3000));
        }
        fixture.tree.file("long", noise(1000, 3 << 20));
        let id = fixture.commit_new();
        Subject { fixture, id }
    }

    fn honest(&self) -> WebServer {
        WebServer::honest(self.fixture.store.path())
    }

    /// The store's files somewhere else, to be changed there.
    fn copied(&self) -> tempfile::TempDir {
        let dir = evenkeel_tests::temp_dir();
        for (name, bytes) in self.fixture.objects() {
            write(&dir.path().join(name), &bytes);
        }
        dir
    }

    /// Checks out from the servers, which must give the right tree.
    #[track_caller]
    fn checkout(&self, name: &str, servers: &[&WebServer]) -> CheckoutReport {
        let mut place = Place::new(&self.fixture, name);
        place.store = open(servers);
        let report = place.checkout(&self.id, Mode::Full);
        assert_same(&read_tree(&place.root), &self.fixture.read(&self.id));
        report
    }

    /// Checks out from a mirror and the store itself: the mirror alone is named.
    #[track_caller]
    fn names_the_mirror(&self, name: &str, mirror: &WebServer, own: &WebServer) {
        let report = self.checkout(name, &[mirror, own]);
        let warnings = warnings(&report);
        assert!(warnings.len() == 1 && warnings[0].starts_with(&mirror.url()), "{name}: {warnings:?}");
    }
}

fn warnings(report: &CheckoutReport) -> Vec<String> {
    report.areas.iter().flat_map(|area| area.warnings.clone()).collect()
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// What a mirror says of where a chunk is.
type Lie = fn(&ChunkId, Location) -> Location;

/// The table with other places, in packs that it names.
fn forged(table: &Table<Vec<u8>>, lie: Lie) -> Vec<u8> {
    let records: Vec<(ChunkId, Location)> = table.iter().map(|(id, at)| (id, lie(&id, at))).collect();
    let mut packs = table.packs().to_vec();
    for pack in table.packs() {
        let end = |at: &Location| at.offset + u64::from(at.stored_len) + 4096;
        let others = records.iter().map(|(_, at)| at).filter(|at| packs.iter().all(|pack| pack.id != at.pack));
        let mut lens: BTreeMap<PackId, u64> = BTreeMap::new();
        for at in others {
            let len = lens.entry(at.pack).or_default();
            *len = end(at).max(*len);
        }
        packs.extend(lens.into_iter().map(|(id, len)| table::TablePack { id, len, ..*pack }));
    }
    packs.sort_by_key(|pack| pack.id);
    table::encode(table.kind(), &packs, records).unwrap()
}

/// Replaces what a mirror tells of places, in locators and in segments.
fn lie_about_places(mirror: &Path, lie: Lie) {
    for (name, bytes) in files_below(mirror) {
        if name.starts_with("locators/") {
            write(&mirror.join(name), &forged(&Table::decode(bytes).unwrap(), lie));
        }
    }
    let path = mirror.join("segments/current");
    let current = SegmentsCurrent::decode(&std::fs::read(&path).unwrap()).unwrap();
    let mut segments: Vec<SegmentRef> = Vec::new();
    for listed in &current.segments {
        let bytes = std::fs::read(mirror.join(ObjectName::Segment(listed.id).to_string())).unwrap();
        let bytes = forged(&Table::decode(bytes).unwrap(), lie);
        let id = SegmentId(*blake3::hash(&bytes).as_bytes());
        write(&mirror.join(ObjectName::Segment(id).to_string()), &bytes);
        segments.push(SegmentRef { id, len: bytes.len() as u64, ..*listed });
    }
    segments.sort_by_key(|segment| segment.id);
    write(&path, &SegmentsCurrent { segments, ..current }.encode());
}

/// Packs that the locators of a mirror name.
fn packs_told(mirror: &Path) -> usize {
    let locators = files_below(mirror).into_iter().filter(|(name, _)| name.starts_with("locators/"));
    locators.map(|(_, bytes)| Table::decode(bytes).unwrap().packs().len()).sum()
}

/// Places in packs that nobody has.
fn nowhere(id: &ChunkId, at: Location) -> Location {
    Location { pack: PackId::of(&id.0[..1]), ..at }
}

/// Of some chunks only, so that the manifest may well be found.
fn in_part(id: &ChunkId, at: Location) -> Location {
    if at.stored_len < 5000 || id.0[0].is_multiple_of(2) { at } else { nowhere(id, at) }
}

/// In the right pack, but not there.
fn aside(_: &ChunkId, at: Location) -> Location {
    Location { offset: (at.offset - 1).max(pack::HEADER_LEN as u64), ..at }
}

/// FAULTS 22: everything decodes, and leads to where the chunks are not. The store itself must not be blamed for what it gives at
/// such places.
#[test]
fn a_mirror_that_lies_about_places_is_named() {
    let subject = Subject::new();
    let counted = subject.honest();
    subject.checkout("counted", &[&counted]);
    let lies: [(&str, Lie); 3] = [("nowhere", nowhere), ("in-part", in_part), ("aside", aside)];
    for (name, lie) in lies {
        let mirror = subject.copied();
        lie_about_places(mirror.path(), lie);
        let told = packs_told(mirror.path());
        let (liar, own) = (WebServer::honest(mirror.path()), subject.honest());
        subject.names_the_mirror(name, &liar, &own);
        // What is asked for at wrong places comes on top, a range at a time: of each pack that is told of, and again, as
        // somebody might be about to get it.
        let most = 4 * counted.requests() + 20 + 3 * told;
        assert!(own.requests() <= most, "{name}: {} requests for {}", own.requests(), counted.requests());
    }
}

/// The same without locators: segments alone lead astray.
#[test]
fn a_mirror_that_lies_about_segments_is_named() {
    let subject = Subject::new();
    std::fs::remove_dir_all(subject.fixture.store.path().join("locators")).unwrap();
    std::fs::create_dir(subject.fixture.store.path().join("locators")).unwrap();
    let mirror = subject.copied();
    lie_about_places(mirror.path(), nowhere);
    let (liar, own) = (WebServer::honest(mirror.path()), subject.honest());
    let warnings = warnings(&subject.checkout("server", &[&liar, &own]));
    assert!(warnings.iter().any(|warning| warning.starts_with(&liar.url())), "{warnings:?}");
    assert!(warnings.iter().all(|warning| !warning.starts_with(&own.url())), "{warnings:?}");
    // A list of segments that nobody has.
    for (name, _) in files_below(mirror.path()).iter().filter(|(name, _)| name.ends_with(".seg")) {
        std::fs::remove_file(mirror.path().join(name)).unwrap();
    }
    let liar = WebServer::honest(mirror.path());
    let warnings = self::warnings(&subject.checkout("again", &[&liar, &own]));
    assert!(warnings.iter().any(|warning| warning.starts_with(&liar.url())), "{warnings:?}");
}

/// With nobody else to ask, it is damage, and bounded.
#[test]
fn a_store_that_lies_about_places_is_damaged() {
    let subject = Subject::new();
    let copied = subject.copied();
    lie_about_places(copied.path(), nowhere);
    let server = WebServer::honest(copied.path());
    let mut place = Place::new(&subject.fixture, "server");
    place.store = open(&[&server]);
    let error = place.try_checkout(&subject.id, |options| options.mode = Some(Mode::Full)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(server.requests() < 40, "{}", server.requests());
}

/// A mirror that `copy` made has packs of its own. What is wrong with them the store itself cannot make up for under their names,
/// but under its own.
#[test]
fn a_damaged_copy_is_named_and_the_store_itself_asked() {
    let subject = Subject::new();
    let path = subject.fixture.dir().join("mirror");
    let (to, _) = open_target(&path, &subject.fixture.store).unwrap();
    let options = CopyOptions::new(&subject.fixture.dir().join("mirror-state"));
    copy(&subject.fixture.store, &to, &[subject.id], &options, &Progress::default()).unwrap();
    drop(to);
    let (mirror, own) = (WebServer::honest(&path), subject.honest());
    let report = subject.checkout("sound", &[&mirror, &own]);
    assert_eq!(warnings(&report), [""; 0]);
    let asked = own.asked().into_iter().filter(|asked| asked.path.starts_with("packs/")).count();
    assert_eq!(asked, 0, "everything comes from the mirror");
    for (name, mut bytes) in files_below(&path) {
        if name.starts_with("packs/") {
            bytes.iter_mut().skip(100).step_by(2000).for_each(|byte| *byte ^= 1);
            write(&path.join(name), &bytes);
        }
    }
    subject.names_the_mirror("damaged", &WebServer::honest(&path), &own);
    // Gone in the middle: nobody lied, and all of it comes from the store itself.
    let gone = WebServer::start(&path, |asked, _| match asked.path.starts_with("packs/") {
        true => Manner::Reset,
        false => Manner::Honest,
    });
    assert_eq!(warnings(&subject.checkout("gone", &[&gone, &own])), [""; 0]);
}

/// A mirror that is behind has a sound list of snapshots all the same: the newest is what the store itself says.
#[test]
fn the_newest_snapshot_is_not_that_of_a_mirror_behind() {
    let subject = Subject::new();
    let behind = subject.copied();
    subject.fixture.tree.file("new", noise(1, 5000));
    let newest = subject.fixture.commit_new();
    let (mirror, own) = (WebServer::honest(behind.path()), subject.honest());
    let store = open(&[&mirror, &own]);
    assert_eq!(store.resolve("@latest").unwrap(), newest);
    assert_eq!(store.backend().notes(), [""; 0]);
    let own = WebServer::start(subject.fixture.store.path(), |_, _| Manner::Reset);
    let store = open(&[&mirror, &own]);
    assert_eq!(store.resolve("@latest").unwrap(), subject.id);
    let notes = store.backend().notes();
    assert!(notes.len() == 1 && notes[0].contains("may be behind") && notes[0].contains(&mirror.url()), "{notes:?}");
}

/// All chunks of the release, by its locator.
fn chunks(subject: &Subject) -> Vec<ChunkId> {
    let path = subject.fixture.store.path().join(ObjectName::Locator(subject.id).to_string());
    let table = Table::decode(std::fs::read(path).unwrap()).unwrap();
    assert!(matches!(table.kind(), TableKind::Locator { base: None, .. }));
    table.iter().map(|(id, _)| id).collect()
}

/// FAULTS 14: whatever had come of a range when the line broke is kept, record by record, and shown as it comes.
#[test]
fn what_came_of_a_range_before_its_end_is_kept() {
    let subject = Subject::new();
    let is_pack = |asked: &Asked| asked.path.starts_with("packs/");
    let cut = WebServer::start(subject.fixture.store.path(), move |asked, _| match asked.range {
        Some((first, last)) if is_pack(asked) && last - first > 300_000 => Manner::Truncate(300_000),
        _ => Manner::Honest,
    });
    let near = evenkeel_tests::temp_dir();
    let reader = open(&[&cut]).reader_of(&[subject.id]).unwrap();
    reader.near().keep_in(near.path()).unwrap();
    let progress = Progress::default();
    // Each range breaks off again and again, until there is no patience left.
    let failed = reader.fetch_ahead(chunks(&subject), &progress);
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Server);
    assert!(progress.sample().bytes_done >= 900_000, "{:?}", progress.sample());
    drop(reader);
    let whole = subject.honest();
    let reader = open(&[&whole]).reader_of(&[subject.id]).unwrap();
    reader.near().keep_in(near.path()).unwrap();
    reader.fetch_ahead(chunks(&subject), &Progress::default()).unwrap();
    let packs: u64 = chunks(&subject).iter().map(|id| u64::from(reader.locate(id).unwrap().stored_len)).sum();
    assert!(whole.sent() + 800_000 < packs, "{} of {packs} bytes came again", whole.sent());
}
