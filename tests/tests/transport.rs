// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Items 14 to 22 and 30 of the acceptance list, each for a whole checkout over HTTP: what it comes to, what it costs, and
//! what is left behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_store::backend::http::{HttpOptions, Patience};
use evenkeel_store::backend::{HttpBackend, ObjectName};
use evenkeel_store::checkout::{CheckoutReport, Mode};
use evenkeel_store::format::pack::Encoding;
use evenkeel_store::id::{ChunkId, SnapshotId};
use evenkeel_store::{ErrorKind, Result, Store, limits};
use evenkeel_tests::fixture::{assert_same, files_below};
use evenkeel_tests::web::{Asked, Manner, WebServer};
use evenkeel_tests::{Fixture, Place, noise, read_tree};

/// Times that a server is asked the same thing.
const ROUNDS: u32 = 3;

fn patience() -> Patience {
    Patience {
        first_byte: Duration::from_secs(5),
        stall: Duration::from_secs(5),
        rounds: ROUNDS,
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        ..Patience::default()
    }
}

fn try_open(servers: &[&WebServer], patience: Patience) -> Result<(HttpBackend, Store)> {
    let addresses: Vec<String> = servers.iter().map(|server| server.url()).collect();
    let backend = HttpBackend::new(&addresses, HttpOptions { patience, ..HttpOptions::default() })?;
    Ok((backend.clone(), Store::open_at(Arc::new(backend))?))
}

fn is_pack(asked: &Asked) -> bool {
    asked.path.starts_with("packs/")
}

/// A release of some packs, with whatever a checkout has to ask for.
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
        fixture.tree.file("long", noise(1000, 2 << 20)).file("text", "all work and no play ".repeat(3000));
        let id = fixture.commit_new();
        Subject { fixture, id }
    }

    fn server(&self, choice: impl Fn(&Asked, usize) -> Manner + Send + Sync + 'static) -> WebServer {
        WebServer::start(self.fixture.store.path(), choice)
    }

    fn always(&self, manner: Manner) -> WebServer {
        self.server(move |_, _| manner.clone())
    }

    fn honest(&self) -> WebServer {
        WebServer::honest(self.fixture.store.path())
    }

    fn place(&self, name: &str) -> Place<'_> {
        Place::new(&self.fixture, name)
    }

    fn try_full(&self, place: &mut Place<'_>, servers: &[&WebServer], patience: Patience) -> Result<CheckoutReport> {
        place.store = try_open(servers, patience)?.1;
        place.try_checkout(&self.id, |options| options.mode = Some(Mode::Full))
    }

    /// Checks out from servers that between them have what is needed, and compares.
    #[track_caller]
    fn full(&self, name: &str, servers: &[&WebServer]) -> CheckoutReport {
        let mut place = self.place(name);
        let report = self.try_full(&mut place, servers, patience()).unwrap();
        assert_same(&read_tree(&place.root), &self.fixture.read(&self.id));
        report
    }

    /// The checkout fails in that way, and nothing live is there.
    #[track_caller]
    fn refused(&self, name: &str, servers: &[&WebServer], kind: ErrorKind) -> Place<'_> {
        let mut place = self.place(name);
        let error = self.try_full(&mut place, servers, patience()).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(!place.root.exists() || read_tree(&place.root).len() <= 1, "{name}");
        place
    }

    fn pack_bytes(&self) -> u64 {
        let packs = self.fixture.objects().into_iter().filter(|(name, _)| name.starts_with("packs/"));
        packs.map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

/// 14. The body of every part breaks off once, at each sixteenth of it.
#[test]
fn f14_bodies_that_break_off_cost_less_than_twice_their_bytes() {
    let subject = Subject::new();
    for sixteenth in 0..16u64 {
        let seen = Mutex::new(BTreeMap::new());
        let server = subject.server(move |asked, _| {
            let Some((first, last)) = asked.range else { return Manner::Honest };
            let mut seen = seen.lock().unwrap();
            // Of what is asked for again the end is the same.
            match seen.insert((asked.path.clone(), last), first) {
                Some(_) => Manner::Honest,
                None => Manner::Truncate(usize::try_from((last - first + 1) * sixteenth / 16).unwrap()),
            }
        });
        subject.full(&format!("at-{sixteenth}"), &[&server]);
        let (sent, packs) = (server.sent(), subject.pack_bytes());
        assert!(sent < packs * 3 / 2, "{sixteenth}: {sent} bytes of {packs}");
        assert!(server.asked().iter().filter(|asked| is_pack(asked)).count() > 4, "it did break off");
    }
}

/// 15. Whole packs come for parts of them, and for the rest of a part that broke off.
#[test]
fn f15_whole_objects_in_place_of_parts_are_never_appended() {
    let subject = Subject::new();
    subject.full("always", &[&subject.always(Manner::Whole)]);
    let broke_off = AtomicBool::new(false);
    let server = subject.server(move |asked, _| match asked.range {
        Some(_) if !broke_off.swap(true, Ordering::Relaxed) => Manner::Truncate(1000),
        _ => Manner::Whole,
    });
    subject.full("after-a-piece", &[&server]);
    let again: Vec<_> = server.asked().into_iter().filter(is_pack).collect();
    assert!(again.iter().any(|asked| asked.range.is_some_and(|(first, _)| first >= 1000)), "{again:?}");
}

/// 16. Statuses that are no answer: asked a bounded number of times, then the next mirror; alone, an error within the deadline.
#[test]
fn f16_statuses_cost_a_bounded_number_of_requests() {
    let subject = Subject::new();
    let statuses = [
        (416, "", false),
        (404, "", false),
        (403, "", false),
        (500, "", true),
        (503, "Retry-After: 99999\r\n", true),
        (429, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", true),
    ];
    for (status, more, is_transient) in statuses {
        let bad = || {
            subject.server(move |asked, _| if is_pack(asked) { Manner::Status(status, more) } else { Manner::Honest })
        };
        let (first, good) = (bad(), subject.honest());
        subject.full(&format!("{status}-first"), &[&first, &good]);
        let asked = first.asked().into_iter().filter(is_pack).count();
        let packs = good.asked().into_iter().filter(is_pack).count();
        assert!(asked > 0 && asked <= packs + 1, "{status}: {asked} requests for {packs} parts");

        let alone = bad();
        let start = Instant::now();
        let mut place = subject.place(&format!("{status}-alone"));
        let error = subject.try_full(&mut place, &[&alone], patience()).unwrap_err();
        let expected = if matches!(status, 404 | 416) { ErrorKind::Damaged } else { ErrorKind::Server };
        assert_eq!(error.kind(), expected, "{status}: {error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{status}");
        let mut of_part = BTreeMap::new();
        for asked in alone.asked().into_iter().filter(is_pack) {
            *of_part.entry((asked.path, asked.range)).or_insert(0) += 1;
        }
        let most = *of_part.values().max().unwrap();
        // A range that nobody has sound is asked for once more, for the part of it that is.
        let bound = if is_transient { ROUNDS } else { 2 };
        assert!(most <= bound, "{status}: {of_part:?}");
    }
}

/// 17. A byte a second: the rate rule gives it up, and another mirror is asked. Alone it is an error.
#[test]
fn f17_a_byte_a_second_is_given_up_by_its_rate() {
    let subject = Subject::new();
    let hasty = Patience { rate_span: Duration::from_millis(300), rate_bytes: 1000, rounds: 1, ..patience() };
    let drip = || {
        subject.server(|asked, _| if is_pack(asked) { Manner::Drip(Duration::from_secs(1)) } else { Manner::Honest })
    };
    let (slow, good) = (drip(), subject.honest());
    let start = Instant::now();
    let mut place = subject.place("server");
    subject.try_full(&mut place, &[&slow, &good], hasty).unwrap();
    assert_same(&read_tree(&place.root), &subject.fixture.read(&subject.id));
    // One byte of a part takes longer than the span, so a few spans are a few seconds.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(slow.asked().iter().any(is_pack));
    let error = subject.try_full(&mut subject.place("alone"), &[&drip()], hasty).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(format!("{error:?}").contains("TooSlow"), "{error:?}");
}

/// 18. Each kind of object comes without an end: no more is read than it may have, and nothing of it is kept.
#[test]
fn f18_endless_objects_are_read_up_to_their_cap() {
    let subject = Subject::new();
    let kinds = [
        ("format", limits::FORMAT_BYTES_MAX),
        ("snapshots/", limits::SNAPSHOT_BYTES_MAX),
        ("locators/", limits::LOCATOR_BYTES_MAX),
        ("packs/", subject.pack_bytes() + (64 << 10)),
    ];
    for (kind, cap) in kinds {
        for manner in [Manner::Endless, Manner::EndlessPart] {
            let endless = subject.server(move |asked, _| match asked.path.starts_with(kind) {
                true => manner.clone(),
                false => Manner::Honest,
            });
            let (mut place, name) = (subject.place(&kind.replace('/', "")), kind);
            let opened = try_open(&[&endless], Patience { rounds: 1, ..patience() });
            let Ok((backend, store)) = opened else {
                assert_eq!(kind, "format");
                continue;
            };
            place.store = store;
            let done = place.try_checkout(&subject.id, |options| options.mode = Some(Mode::Full));
            // A locator is a hint, and a slice of an endless body may be right by chance.
            assert!(done.is_err() || kind == "locators/", "{name}");
            let read = backend.traffic().bytes;
            assert!(read <= 3 * cap + 3 * subject.pack_bytes(), "{name}: {read} bytes for {cap}");
            let kept: usize =
                if place.state.exists() { files_below(&place.state).values().map(Vec::len).sum() } else { 0 };
            assert!((kept as u64) < subject.pack_bytes() + (1 << 20), "{name}: {kept} bytes on the disk");
            let good = subject.honest();
            subject.full(&format!("{}-second", kind.replace('/', "")), &[&endless, &good]);
            std::fs::remove_dir_all(subject.place(&format!("{}-second", kind.replace('/', ""))).root).unwrap();
            std::fs::remove_dir_all(subject.place(&format!("{}-second", kind.replace('/', ""))).state).unwrap();
        }
    }
}

/// 19. Bodies that are said to be compressed: refused, and none is kept as a chunk.
#[test]
fn f19_encoded_bodies_are_never_stored() {
    let subject = Subject::new();
    let gzip = || subject.server(|asked, _| if is_pack(asked) { Manner::Gzip } else { Manner::Honest });
    let place = subject.refused("alone", &[&gzip()], ErrorKind::Server);
    let kept: usize = if place.state.exists() {
        files_below(&place.state).iter().filter(|(name, _)| name.ends_with("/fetched")).map(|(_, b)| b.len()).sum()
    } else {
        0
    };
    assert_eq!(kept, 0);
    subject.full("second", &[&gzip(), &subject.honest()]);
    assert!(gzip().asked().iter().all(|asked| asked.headers.contains(&"accept-encoding: identity".to_string())));
}

/// 20. A portal answers everything with its page: the network's fault, and what was there stays as it was.
#[test]
fn f20_a_portal_changes_neither_tree_nor_state() {
    let subject = Subject::new();
    let mut place = subject.place("server");
    subject.try_full(&mut place, &[&subject.honest()], patience()).unwrap();
    subject.fixture.tree.file("long", noise(2000, 2 << 20));
    let next = subject.fixture.commit_new();
    let (tree, state) = (read_tree(&place.root), files_below(&place.state));
    let portal = subject.always(Manner::Page);
    let error = try_open(&[&portal], patience()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server, "{error}");
    // It takes over once the store is open, and once the manifest is there.
    for honest in [1, 3, 5] {
        let portal = subject.server(move |_, nth| if nth < honest { Manner::Honest } else { Manner::Page });
        place.store = try_open(&[&portal], patience()).unwrap().1;
        let error = place.try_checkout(&next, |options| options.mode = Some(Mode::Full)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{honest}: {error}");
        assert!(error.to_string().contains(&portal.url()), "{error}");
        assert_same(&read_tree(&place.root), &tree);
        let is_kept = |name: &String| !name.starts_with("stores/");
        let now: BTreeMap<_, _> = files_below(&place.state).into_iter().filter(|(name, _)| is_kept(name)).collect();
        let before: BTreeMap<_, _> = state.clone().into_iter().filter(|(name, _)| is_kept(name)).collect();
        assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{honest}");
        assert!(now == before, "{honest}: the state has changed");
    }
}

/// 21. Redirects lead nowhere: not to another host, not in a circle, not to another scheme.
#[test]
fn f21_redirects_are_not_followed() {
    let subject = Subject::new();
    let elsewhere = subject.honest();
    let own = Arc::new(Mutex::new(String::new()));
    for to in [elsewhere.url(), "http://127.0.0.1:1/".into(), "file:///etc/passwd".into(), "own".into()] {
        let own_url = Arc::clone(&own);
        let server = subject.server(move |asked, _| {
            let own = own_url.lock().unwrap().clone();
            Manner::Redirect(format!("{}{}", if to == "own" { &own } else { &to }, asked.path))
        });
        *own.lock().unwrap() = server.url();
        let error = try_open(&[&server], patience()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
        assert_eq!(server.requests(), 1, "a circle is not walked, and asking again is of no use");
    }
    assert_eq!(elsewhere.requests(), 0);
}

/// 22. The first mirror lies about everything: the update comes from the second, and the report names the first. (Lies that are
///     well formed are in `mirrors`.)
#[test]
fn f22_a_malicious_mirror_is_named_and_the_next_one_believed() {
    let subject = Subject::new();
    for about in ["", "format", "snapshots/", "locators/", "packs/"] {
        let liar = subject.server(move |asked, _| match asked.path.starts_with(about) {
            true => Manner::Lie,
            false => Manner::Honest,
        });
        let good = subject.honest();
        let report = subject.full(&format!("about-{}", about.replace('/', "")), &[&liar, &good]);
        let warnings: Vec<String> = report.areas.iter().flat_map(|area| area.warnings.clone()).collect();
        assert!(warnings.len() == 1 && warnings[0].starts_with(&liar.url()), "{about}: {warnings:?}");
        // Of what the good one does not have, everybody is asked.
        let is_lie = |asked: &&Asked| asked.path.starts_with(about) && !asked.path.starts_with("deltas/");
        let lied = liar.asked().iter().filter(is_lie).count();
        assert!(lied <= 1 + usize::from(about == "packs/") * 7, "{about}: {lied} requests after the first lie");
    }
}

/// A frame of `len` bytes that would be as many zeros as fit.
fn bomb(len: usize) -> Vec<u8> {
    // Magic, no content size, a window of 8 MiB; then blocks of one byte, 128 KiB times each.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x68];
    while bytes.len() + 4 <= len {
        bytes.extend([0x02, 0x00, 0x10, 0x00]);
    }
    bytes.resize(len, 0);
    bytes
}

/// 30. Bombs in the place of records: refused without being unpacked, and the next mirror has the right ones.
#[test]
fn f30_bombs_in_the_place_of_records_are_refused() {
    let fixture = Fixture::new();
    // No longer than a chunk is at least, and compressed by half.
    let len = fixture.store.format().chunker.min;
    let texts: Vec<String> = (0..4).map(|at| hex(&noise(at, usize::try_from(len / 2).unwrap()))).collect();
    for (at, text) in texts.iter().enumerate() {
        fixture.tree.file(format!("text-{at}"), text);
    }
    let id = fixture.commit_new();
    let other = evenkeel_tests::temp_dir();
    for (name, bytes) in fixture.objects() {
        let path = other.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let reader = fixture.store.reader_of(&[id]).unwrap();
    for text in &texts {
        let at = reader.locate(&ChunkId::of(text.as_bytes())).unwrap();
        assert_eq!(at.encoding, Encoding::Zstd);
        let path = other.path().join(ObjectName::Pack(at.pack).to_string());
        let mut pack = std::fs::read(&path).unwrap();
        let (start, len) = (usize::try_from(at.offset).unwrap(), usize::try_from(at.stored_len).unwrap());
        pack[start..start + len].copy_from_slice(&bomb(len));
        std::fs::write(&path, pack).unwrap();
    }
    let subject = Subject { fixture, id };
    let (bad, good) = (WebServer::honest(other.path()), subject.honest());
    let start = Instant::now();
    subject.refused("alone", &[&bad], ErrorKind::Damaged);
    let report = subject.full("second", &[&bad, &good]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let warnings: Vec<String> = report.areas.iter().flat_map(|area| area.warnings.clone()).collect();
    assert!(warnings.iter().any(|warning| warning.starts_with(&bad.url())), "{warnings:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
