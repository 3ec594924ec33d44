// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deltas over HTTP: what they save, what they are used for in part, and what becomes of those that are wrong.
//!
//! The deltas here are made by hand, a frame for each changed file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_store::backend::http::{HttpOptions, Patience};
use evenkeel_store::backend::{HttpBackend, ObjectName};
use evenkeel_store::delta::{DeltaWriter, add_to_index, read_index};
use evenkeel_store::fetch::{Deltas, Seed, Source};
use evenkeel_store::format::delta::{Delta, DeltaChunk, DeltaIndexEntry, ENCODING_ZSTD, ENCODING_ZSTD_BASE};
use evenkeel_store::format::manifest::{ChunkRun, Entry, InodeKind, Node};
use evenkeel_store::id::{ChunkId, DeltaId, SnapshotId};
use evenkeel_store::manifest::content_runs;
use evenkeel_store::read::{ChunkReader, ReadScratch};
use evenkeel_store::{Error, Progress, Result, Store};
use evenkeel_tests::web::{Asked, Manner, WebServer};
use evenkeel_tests::{Fixture, noise};

/// Releases of three files, of which each differs from the one before in a few bytes of every chunk.
pub(crate) fn releases(fixture: &Fixture, count: u8) -> Vec<SnapshotId> {
    (0..count)
        .map(|release| {
            for file in 0..3u64 {
                let mut content = noise(file, 400_000);
                content.iter_mut().step_by(2000).for_each(|byte| *byte ^= release);
                fixture.tree.file(format!("f{file}"), content);
            }
            fixture.commit_new()
        })
        .collect()
}

/// The chunks of each file.
fn files(fixture: &Fixture, id: &SnapshotId) -> BTreeMap<String, Vec<DeltaChunk>> {
    let reader = fixture.store.reader().unwrap();
    let content = |entry: Entry| match entry.node {
        Node::Inode(inode) => match inode.kind {
            InodeKind::File(content) => Some((entry.path.to_string(), content_runs(&reader, &content).unwrap())),
            _ => None,
        },
        Node::Link { .. } => None,
    };
    let chunk = |run: &ChunkRun| match run {
        ChunkRun::Data { id, len } => DeltaChunk { id: *id, len: *len },
        ChunkRun::Hole { .. } => panic!("no file here has holes"),
    };
    let files = fixture.entries(id).into_iter().filter_map(content);
    files.map(|(path, runs)| (path, runs.iter().map(chunk).collect())).collect()
}

fn plain(fixture: &Fixture, chunks: &[DeltaChunk]) -> Vec<u8> {
    let (reader, mut scratch) = (fixture.store.reader().unwrap(), ReadScratch::default());
    chunks.iter().flat_map(|chunk| reader.read(&chunk.id, &mut scratch).unwrap().plain().to_vec()).collect()
}

fn compress(base: &[u8], output: &[u8]) -> Vec<u8> {
    let mut context = zstd::zstd_safe::CCtx::create();
    context.set_parameter(zstd::zstd_safe::CParameter::WindowLog(23)).unwrap();
    if !base.is_empty() {
        context.ref_prefix(base).unwrap();
    }
    let mut payload = Vec::with_capacity(output.len() + 1024);
    context.compress2(&mut payload, output).unwrap();
    payload
}

/// Adds a delta with a frame for each file; `change` may replace its outputs' plain bytes.
pub(crate) fn add_delta_with(
    fixture: &Fixture,
    base: &SnapshotId,
    target: &SnapshotId,
    change: impl Fn(usize, Vec<u8>) -> Vec<u8>,
) -> DeltaIndexEntry {
    let (old, new) = (files(fixture, base), files(fixture, target));
    let mut writer = DeltaWriter::create(&fixture.store, Some(*base), *target).unwrap();
    for (number, (path, outputs)) in new.into_iter().enumerate() {
        let payload = compress(&plain(fixture, &old[&path]), &change(number, plain(fixture, &outputs)));
        writer.push(outputs, old[&path].clone(), ENCODING_ZSTD_BASE, &payload).unwrap();
    }
    let entry = writer.finish().unwrap().unwrap();
    add_to_index(&fixture.store, target, entry).unwrap();
    entry
}

pub(crate) fn add_delta(fixture: &Fixture, base: &SnapshotId, target: &SnapshotId) -> DeltaIndexEntry {
    add_delta_with(fixture, base, target, |_, plain| plain)
}

/// Some chunks of a store as if they were in a tree of this machine.
#[derive(Debug)]
struct Here {
    reader: ChunkReader,
    ids: HashSet<ChunkId>,
    /// Claims to have everything, and has nothing.
    is_hollow: bool,
}

impl Seed for Here {
    fn source(&self) -> Source {
        Source::Live
    }

    fn has(&self, id: &ChunkId) -> bool {
        self.ids.contains(id)
    }

    fn len_of(&self, id: &ChunkId) -> Option<u32> {
        self.reader.locate(id).filter(|_| self.has(id)).map(|at| at.plain_len)
    }

    fn read(&self, id: &ChunkId, len: u32) -> Option<Vec<u8>> {
        let mut scratch = ReadScratch::default();
        let found = self.has(id) && !self.is_hollow;
        let plain = found.then(|| self.reader.read(id, &mut scratch).unwrap().plain().to_vec())?;
        assert_eq!(plain.len(), usize::try_from(len).unwrap());
        Some(plain)
    }
}

pub(crate) fn open(servers: &[&WebServer]) -> Store {
    let patience = Patience {
        first_byte: Duration::from_secs(5),
        stall: Duration::from_secs(5),
        rounds: 2,
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        ..Patience::default()
    };
    let options = HttpOptions { patience, ..HttpOptions::default() };
    let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
    Store::open_at(Arc::new(HttpBackend::new(&urls, options).unwrap())).unwrap()
}

fn ids(fixture: &Fixture, id: &SnapshotId) -> HashSet<ChunkId> {
    files(fixture, id).into_values().flatten().map(|chunk| chunk.id).collect()
}

/// Somebody who has the files of one release, and wants another.
struct Remote<'f> {
    fixture: &'f Fixture,
    reader: ChunkReader,
    target: SnapshotId,
}

impl<'f> Remote<'f> {
    fn new(fixture: &'f Fixture, store: &Store, has: &SnapshotId, target: &SnapshotId) -> Remote<'f> {
        Remote::with(fixture, store, has, target, false)
    }

    fn with(fixture: &'f Fixture, store: &Store, has: &SnapshotId, target: &SnapshotId, is_hollow: bool) -> Remote<'f> {
        let reader = store.reader_of(&[*target]).unwrap();
        let here = Here { reader: fixture.store.reader().unwrap(), ids: ids(fixture, has), is_hollow };
        reader.seeds().add(Arc::new(here));
        reader.use_deltas(Deltas::new(*target, vec![*has]));
        Remote { fixture, reader, target: *target }
    }

    fn try_fetch(&self) -> Result<()> {
        self.reader.fetch_ahead(ids(self.fixture, &self.target), &Progress::default())
    }

    /// Fetches everything, and reads it from what is at hand or, at last, from packs.
    #[track_caller]
    fn fetch(&self) {
        self.try_fetch().unwrap();
        let mut scratch = ReadScratch::default();
        for id in ids(self.fixture, &self.target) {
            assert_eq!(ChunkId::of(self.reader.read(&id, &mut scratch).unwrap().plain()), id);
        }
    }

    fn notes(&self) -> Vec<String> {
        self.reader.deltas().unwrap().notes()
    }
}

fn of_packs(asked: &[Asked]) -> usize {
    asked.iter().filter(|asked| asked.path.starts_with("packs/")).count()
}

/// Which requests are answered badly.
type IsSpoilt = dyn Fn(&Asked) -> bool + Send + Sync;

#[test]
fn a_delta_saves_bytes_and_requests() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    let server = WebServer::honest(fixture.store.path());
    let without = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[1]);
    without.fetch();
    assert_eq!(without.notes(), [""; 0], "that there is none is no fault");
    let whole = server.sent();
    assert!(whole > 1_200_000);

    let entry = add_delta(&fixture, &ids[0], &ids[1]);
    fixture.assert_sound();
    assert_eq!(read_index(&fixture.store, &ids[1]).unwrap(), [entry]);
    let server = WebServer::honest(fixture.store.path());
    let with = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[1]);
    with.fetch();
    assert_eq!(with.notes(), [""; 0]);
    assert!(server.sent() < whole / 8, "{} of {whole} bytes", server.sent());
    assert_eq!(of_packs(&server.asked()), 0, "{:?}", server.asked());
    let of_delta = server.asked().iter().filter(|asked| asked.path.starts_with("deltas/")).count();
    assert_eq!(of_delta, 3, "the list, the table, all payloads");
    assert_eq!(with.reader.deltas().unwrap().bytes(), entry.file_len);
}

#[test]
fn deltas_are_chained_where_that_is_cheaper() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 3);
    let steps = [add_delta(&fixture, &ids[0], &ids[1]), add_delta(&fixture, &ids[1], &ids[2])];
    let server = WebServer::honest(fixture.store.path());
    let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[2]);
    remote.fetch();
    assert_eq!((remote.notes(), of_packs(&server.asked())), (Vec::new(), 0));
    assert_eq!(remote.reader.deltas().unwrap().bytes(), steps[0].file_len + steps[1].file_len);
    // One in a single step costs less.
    let direct = add_delta(&fixture, &ids[0], &ids[2]);
    let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[2]);
    remote.fetch();
    assert_eq!(remote.reader.deltas().unwrap().bytes(), direct.file_len);
}

#[test]
fn a_delta_is_used_in_part() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    let entry = add_delta(&fixture, &ids[0], &ids[1]);
    let server = WebServer::honest(fixture.store.path());
    let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[1]);
    // One file is changed here: what its frame needs is not to be had.
    let lacking = files(&fixture, &ids[0])["f2"].clone();
    let store = open(&[&server]);
    let partial = Remote { reader: store.reader_of(&[ids[1]]).unwrap(), ..remote };
    let mut has = self::ids(&fixture, &ids[0]);
    has.retain(|id| lacking.iter().all(|chunk| chunk.id != *id));
    let here = Here { reader: fixture.store.reader().unwrap(), ids: has, is_hollow: false };
    partial.reader.seeds().add(Arc::new(here));
    partial.reader.use_deltas(Deltas::new(ids[1], vec![ids[0]]));
    partial.fetch();
    assert_eq!(partial.notes(), [""; 0]);
    assert!(partial.reader.deltas().unwrap().bytes() < entry.file_len);
    assert!(of_packs(&server.asked()) > 0);
    assert!(server.sent() < 700_000, "{}: a third comes from packs", server.sent());
}

/// FAULTS 14, 19: killed in mid-fetch. What was made of a frame is not fetched again.
#[test]
fn what_a_delta_gave_before_an_interruption_is_not_fetched_again() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 3);
    let steps = [add_delta(&fixture, &ids[0], &ids[1]), add_delta(&fixture, &ids[1], &ids[2])];
    let counted = WebServer::honest(fixture.store.path());
    Remote::new(&fixture, &open(&[&counted]), &ids[0], &ids[2]).fetch();
    let payloads = |asked: &[Asked]| -> BTreeSet<(String, u64, u64)> {
        let is_payload = |path: &str, first| {
            steps.iter().any(|step| path == ObjectName::Delta(step.delta).to_string() && first >= step.head_len)
        };
        let ranges = asked.iter().filter_map(|asked| Some((asked.path.clone(), asked.range?)));
        ranges.filter(|(path, range)| is_payload(path, range.0)).map(|(path, (a, b))| (path, a, b)).collect()
    };
    let all = payloads(&counted.asked());
    assert_eq!(all.len(), 2, "a request for each delta: {all:?}");
    for lasts in 0..counted.requests() {
        let server = WebServer::start(fixture.store.path(), move |asked, nth| {
            let is_content = asked.path.starts_with("deltas/") || asked.path.starts_with("packs/");
            if is_content && nth >= lasts { Manner::Status(500, "") } else { Manner::Honest }
        });
        let near = evenkeel_tests::temp_dir();
        let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[2]);
        remote.reader.near().keep_in(near.path()).unwrap();
        let failed = remote.try_fetch();
        assert!(failed.is_err(), "{lasts}");
        drop(remote);
        let before = payloads(
            &server
                .asked()
                .into_iter()
                .enumerate()
                .filter(|(nth, _)| *nth < lasts)
                .map(|(_, asked)| asked)
                .collect::<Vec<_>>(),
        );
        let again = WebServer::honest(fixture.store.path());
        let remote = Remote::new(&fixture, &open(&[&again]), &ids[0], &ids[2]);
        remote.reader.near().keep_in(near.path()).unwrap();
        remote.fetch();
        let after = payloads(&again.asked());
        assert!(before.is_disjoint(&after), "{lasts}: {before:?} and again {after:?}");
        assert_eq!(of_packs(&again.asked()), 0);
    }
}

/// FAULTS 14 to 22, for whatever is asked of deltas: the chunks come from packs, and somebody is told.
#[test]
fn a_server_that_spoils_deltas_costs_bytes_only() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    let entry = add_delta(&fixture, &ids[0], &ids[1]);
    let manners = [
        Manner::Status(500, ""),
        Manner::Status(404, ""),
        Manner::Status(403, ""),
        Manner::Status(416, ""),
        Manner::Truncate(40),
        Manner::OtherRange,
        Manner::Gzip,
        Manner::Page,
        Manner::Reset,
        Manner::Redirect("http://127.0.0.1:1/".into()),
        Manner::Endless,
        Manner::Lie,
    ];
    let delta = ObjectName::Delta(entry.delta).to_string();
    let is_list = |asked: &Asked| asked.path.ends_with("/index") && asked.path.starts_with("deltas/");
    let is_table = move |asked: &Asked| asked.path == delta && asked.range.is_some_and(|range| range.0 == 0);
    let is_payload = |asked: &Asked| asked.path.starts_with("deltas/") && asked.range.is_some_and(|range| range.0 > 0);
    for manner in manners {
        let spoilt: [Arc<IsSpoilt>; 3] = [Arc::new(is_list), Arc::new(is_table.clone()), Arc::new(is_payload)];
        for (what, is_spoilt) in spoilt.into_iter().enumerate() {
            if what == 0 && matches!(manner, Manner::OtherRange) {
                // A list is asked for as a whole.
                continue;
            }
            let bad =
                {
                    let manner = manner.clone();
                    WebServer::start(fixture.store.path(), move |asked, _| {
                        if is_spoilt(asked) { manner.clone() } else { Manner::Honest }
                    })
                };
            let remote = Remote::new(&fixture, &open(&[&bad]), &ids[0], &ids[1]);
            remote.fetch();
            // A part that breaks off goes on where it ended, and so comes whole in the end.
            if what == 0 || !matches!(manner, Manner::Truncate(_)) {
                assert!(of_packs(&bad.asked()) > 0, "{manner:?} {what}");
                let is_plain_absence = what == 0 && matches!(manner, Manner::Status(404, _));
                assert_eq!(remote.notes().is_empty(), is_plain_absence, "{manner:?} {what}: {:?}", remote.notes());
            }

            // Another server makes up for it.
            let good = WebServer::honest(fixture.store.path());
            let remote = Remote::new(&fixture, &open(&[&bad, &good]), &ids[0], &ids[1]);
            remote.fetch();
            assert_eq!(
                remote.reader.deltas().unwrap().bytes(),
                entry.file_len,
                "{manner:?} {what}: {:?}",
                remote.notes()
            );
        }
    }
}

/// A delta that is gone, or that nobody has sound, leaves the others that lead there.
#[test]
fn another_chain_is_taken_where_a_delta_is_gone() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 3);
    let steps = [add_delta(&fixture, &ids[0], &ids[1]), add_delta(&fixture, &ids[1], &ids[2])];
    let direct = ObjectName::Delta(add_delta(&fixture, &ids[0], &ids[2]).delta).to_string();
    for manner in [Manner::Status(404, ""), Manner::Status(403, ""), Manner::Lie] {
        let gone = direct.clone();
        let server = {
            let manner = manner.clone();
            WebServer::start(
                fixture.store.path(),
                move |asked, _| {
                    if asked.path == gone { manner.clone() } else { Manner::Honest }
                },
            )
        };
        let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[2]);
        remote.fetch();
        let notes = remote.notes();
        assert!(notes.len() == 1 && notes[0].contains(&server.url()), "{manner:?}: {notes:?}");
        assert_eq!(remote.reader.deltas().unwrap().bytes(), steps[0].file_len + steps[1].file_len, "{manner:?}");
        assert_eq!(of_packs(&server.asked()), 0, "{manner:?}");
        let of_lists = server.asked().iter().filter(|asked| asked.path.ends_with("/index")).count();
        assert!(of_lists <= 4, "{manner:?}: {:?}", server.asked());
    }
}

/// Servers that do not answer for one payload are not asked for the others, each of which would take as long.
#[test]
fn dead_payloads_are_asked_for_once() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 3);
    let steps = [add_delta(&fixture, &ids[0], &ids[1]), add_delta(&fixture, &ids[1], &ids[2])];
    let is_payload = |asked: &Asked| asked.path.starts_with("deltas/") && asked.range.is_some_and(|range| range.0 > 0);
    let server = WebServer::start(fixture.store.path(), move |asked, _| {
        if is_payload(asked) { Manner::Status(503, "") } else { Manner::Honest }
    });
    let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[2]);
    remote.fetch();
    let asked: Vec<_> = server.asked().into_iter().filter(is_payload).collect();
    let first = ObjectName::Delta(steps[0].delta).to_string();
    // One range may be under way while the one before is found to be of no use.
    let later = asked.iter().filter(|asked| asked.path != first).count();
    assert!(asked.len() <= 4 && later <= 2, "{asked:?}");
    remote.reader.near().keep_in(evenkeel_tests::temp_dir().path()).unwrap();
    remote.fetch();
    assert_eq!(server.asked().into_iter().filter(is_payload).count(), asked.len(), "nor later");
}

/// A delta of which one frame after the other is of no use is left alone after some of them.
#[test]
fn a_delta_of_useless_frames_is_left_alone() {
    let fixture = Fixture::small();
    let mut ids = Vec::new();
    for release in 0..2u8 {
        for file in 0..40u64 {
            fixture.tree.file(format!("f{file:02}"), [vec![release], noise(file, 9000)].concat());
        }
        ids.push(fixture.commit_new());
    }
    add_delta_with(&fixture, &ids[0], &ids[1], |_, mut plain| {
        plain.iter_mut().step_by(500).for_each(|byte| *byte ^= 1);
        plain
    });
    let server = WebServer::honest(fixture.store.path());
    let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[1]);
    remote.fetch();
    let notes = remote.notes();
    assert!(
        notes.len() == 1 && notes[0].contains("16 of its frames were of no use, and the rest was left"),
        "{notes:?}"
    );
}

/// The whole store is hostile: everything fits together but for what the frames give.
#[test]
fn a_delta_that_lies_is_found_out_chunk_by_chunk() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    add_delta_with(&fixture, &ids[0], &ids[1], |number, mut plain| {
        if number == 1 {
            plain[200_000] ^= 1;
        }
        plain
    });
    let server = WebServer::honest(fixture.store.path());
    let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[1]);
    remote.fetch();
    assert!(remote.notes().len() == 1 && remote.notes()[0].contains("is not chunk"), "{:?}", remote.notes());
    assert!(server.sent() < 200_000, "{}: but one chunk comes from the delta", server.sent());
}

#[test]
fn a_seed_that_has_less_than_it_says_costs_bytes_only() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    add_delta(&fixture, &ids[0], &ids[1]);
    let server = WebServer::honest(fixture.store.path());
    let remote = Remote::with(&fixture, &open(&[&server]), &ids[0], &ids[1], true);
    remote.fetch();
    assert!(remote.notes().len() == 1 && remote.notes()[0].contains("cannot be read"), "{:?}", remote.notes());
    let asked = server.requests();
    remote.fetch();
    assert_eq!(server.requests(), asked, "a frame that was of no use is not fetched again");
}

pub(crate) fn publish_index(fixture: &Fixture, target: &SnapshotId, entries: &[DeltaIndexEntry]) {
    let bytes = evenkeel_store::format::delta::encode_index(target, entries);
    fixture.store.writing().unwrap().publish(&ObjectName::DeltaIndex(*target), &bytes).unwrap();
}

/// Lists that say what is not so: other lengths, another delta, claims of any size, circles.
#[test]
fn a_list_that_lies_costs_a_bounded_number_of_bytes() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 3);
    let entry = add_delta(&fixture, &ids[0], &ids[2]);
    let other = add_delta(&fixture, &ids[1], &ids[2]);
    let lies = [
        vec![DeltaIndexEntry { file_len: entry.file_len + 1, ..entry }],
        vec![DeltaIndexEntry { head_len: entry.head_len + 1, ..entry }],
        vec![DeltaIndexEntry { head_len: entry.head_len - 1, ..entry }],
        vec![DeltaIndexEntry { delta: other.delta, ..entry }],
        vec![DeltaIndexEntry { delta: DeltaId([7; 32]), ..entry }],
        vec![DeltaIndexEntry { file_len: 64 << 30, ..entry }],
        vec![DeltaIndexEntry { head_len: 30 << 20, file_len: 64 << 30, ..entry }],
        (1..=255).map(|at| DeltaIndexEntry { base: Some(SnapshotId([at; 32])), ..entry }).collect(),
    ];
    for lie in lies {
        publish_index(&fixture, &ids[2], &lie);
        let server = WebServer::honest(fixture.store.path());
        let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[2]);
        remote.fetch();
        assert!(server.sent() < 1_400_000, "{lie:?}: {}", server.sent());
        assert!(server.requests() < 40, "{lie:?}: {:?}", server.asked());
    }
    publish_index(&fixture, &ids[2], &[DeltaIndexEntry { base: Some(ids[1]), ..other }]);
    publish_index(&fixture, &ids[1], &[DeltaIndexEntry { base: Some(ids[2]), ..other }]);
    let server = WebServer::honest(fixture.store.path());
    Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[2]).fetch();
    assert!(server.requests() < 40);
}

#[test]
fn a_frame_without_bases_needs_nothing() {
    let fixture = Fixture::small();
    fixture.tree.file("f", vec![b'a'; 1000]);
    let first = fixture.commit_new();
    // Alone each chunk is incompressible, together they are not.
    fixture.tree.file("f", noise(1, 40_000).repeat(10));
    let second = fixture.commit_new();
    let outputs: Vec<DeltaChunk> = {
        let mut seen = HashSet::new();
        files(&fixture, &second).remove("f").unwrap().into_iter().filter(|chunk| seen.insert(chunk.id)).collect()
    };
    let payload = compress(&[], &plain(&fixture, &outputs));
    let mut writer = DeltaWriter::create(&fixture.store, None, second).unwrap();
    writer.push(outputs.clone(), outputs.clone(), ENCODING_ZSTD, &payload).unwrap();
    assert!(writer.push(outputs, Vec::new(), ENCODING_ZSTD, &payload).is_err(), "each output once");
    let entry = writer.finish().unwrap().unwrap();
    add_to_index(&fixture.store, &second, entry).unwrap();
    let bytes = std::fs::read(fixture.store.path().join(ObjectName::Delta(entry.delta).to_string())).unwrap();
    assert_eq!(DeltaId::of(&bytes), entry.delta);
    let delta = Delta::decode_file(&bytes).unwrap();
    assert!(delta.base.is_none() && delta.frames[0].bases.is_empty());
    let server = WebServer::honest(fixture.store.path());
    let remote = Remote::new(&fixture, &open(&[&server]), &first, &second);
    remote.fetch();
    assert_eq!(remote.notes(), [""; 0]);
}

#[test]
fn an_interrupt_ends_it() {
    let fixture = Fixture::small();
    let ids = releases(&fixture, 2);
    add_delta(&fixture, &ids[0], &ids[1]);
    let server = WebServer::honest(fixture.store.path());
    let remote = Remote::new(&fixture, &open(&[&server]), &ids[0], &ids[1]);
    let progress = Progress::default();
    progress.cancel();
    let ended = remote.reader.fetch_ahead(self::ids(&fixture, &ids[1]), &progress);
    assert!(matches!(ended, Err(Error::Interrupted)), "{ended:?}");
    remote.fetch();
    assert_eq!(of_packs(&server.asked()), 0, "and it goes on with deltas");
}
