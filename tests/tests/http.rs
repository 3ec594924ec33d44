// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One object asked of servers that misbehave: what is asked, what is believed, when it is given up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_store::backend::http::{HttpOptions, Patience, Secret, Timing};
use evenkeel_store::backend::{Backend, HttpBackend, ObjectName};
use evenkeel_store::error::TransferError;
use evenkeel_store::id::{PackId, SnapshotId};
use evenkeel_store::{Error, ErrorKind, Result};
use evenkeel_tests::noise;
use evenkeel_tests::web::{Manner, WebServer};

/// A clock that only sleeping moves, and no chance.
#[derive(Debug, Default)]
struct Frozen {
    now_ms: AtomicU64,
    slept: Mutex<Vec<Duration>>,
}

impl Timing for Frozen {
    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        self.now_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        self.slept.lock().unwrap().push(time);
    }

    fn random(&self) -> u64 {
        0
    }
}

/// A directory with one pack-like object of 1 MB and a small `format`.
struct Subject {
    dir: tempfile::TempDir,
    pack: ObjectName,
    bytes: Vec<u8>,
    timing: Arc<Frozen>,
}

impl Subject {
    fn new() -> Subject {
        let dir = evenkeel_tests::temp_dir();
        let bytes = noise(1, 1 << 20);
        let pack = ObjectName::Pack(PackId::of(&bytes));
        let path = dir.path().join(pack.to_string());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(dir.path().join("format"), b"small").unwrap();
        Subject { dir, pack, bytes, timing: Arc::default() }
    }

    fn server(&self, manner: Manner) -> WebServer {
        WebServer::start(self.dir.path(), move |_, _| manner.clone())
    }

    fn backend(&self, servers: &[&WebServer]) -> HttpBackend {
        let patience = Patience {
            first_byte: Duration::from_millis(500),
            stall: Duration::from_millis(500),
            request: Duration::from_secs(20),
            rounds: 3,
            ..Patience::default()
        };
        self.backend_with(servers, patience, Arc::clone(&self.timing) as Arc<dyn Timing>)
    }

    fn backend_with(&self, servers: &[&WebServer], patience: Patience, timing: Arc<dyn Timing>) -> HttpBackend {
        let addresses: Vec<String> = servers.iter().map(|server| server.url()).collect();
        HttpBackend::new(&addresses, HttpOptions { patience, timing, ..HttpOptions::default() }).unwrap()
    }

    /// Reads a part of the pack and compares it with what it is.
    fn read(&self, backend: &HttpBackend, start: usize, len: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        let expected = &self.bytes[start..start + len];
        let mut check = |bytes: &[u8]| {
            if bytes == expected {
                return Ok(());
            }
            Err(Error::HashMismatch { object: "the part".into(), actual: "something else".into() })
        };
        backend.open(&self.pack)?.unwrap().read_checked_at(&mut buffer, start as u64, &mut check)?;
        Ok(buffer)
    }

    #[track_caller]
    fn assert_reads(&self, backend: &HttpBackend, start: usize, len: usize) {
        assert_eq!(self.read(backend, start, len).unwrap(), self.bytes[start..start + len]);
    }

    #[track_caller]
    fn why(&self, manner: Manner) -> TransferError {
        let server = self.server(manner);
        match self.read(&self.backend(&[&server]), 1000, 5000) {
            Err(Error::Fetch { source, from, object }) => {
                assert_eq!((from, object), (server.url(), self.pack.to_string()));
                source
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_part_is_one_request_for_one_range() {
    let subject = Subject::new();
    let server = subject.server(Manner::Honest);
    let backend = subject.backend(&[&server]);
    subject.assert_reads(&backend, 1000, 5000);
    subject.assert_reads(&backend, (1 << 20) - 1, 1);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].range, Some((1000, 5999)));
    assert!(asked[0].headers.contains(&"accept-encoding: identity".to_string()));
    assert_eq!(asked[1].range, Some(((1 << 20) - 1, (1 << 20) - 1)));
    assert_eq!(backend.len(&subject.pack).unwrap(), Some(1 << 20));
    assert_eq!(server.asked()[2].method, "HEAD");
    assert_eq!(backend.traffic().bytes, 5001);
    assert!(backend.writing().is_none() && backend.listing().is_none());
}

#[test]
fn what_is_missing_is_missing_and_asked_once() {
    let subject = Subject::new();
    let server = subject.server(Manner::Honest);
    let backend = subject.backend(&[&server]);
    assert_eq!(backend.read(&ObjectName::SnapshotIndex, 100).unwrap(), None);
    assert_eq!(backend.len(&ObjectName::SnapshotIndex).unwrap(), None);
    assert_eq!(server.requests(), 2);
    assert!(server.asked()[0].headers.contains(&"cache-control: no-cache".to_string()), "it is mutable");
}

#[test]
fn a_whole_object_is_bounded_by_its_cap() {
    let subject = Subject::new();
    let server = subject.server(Manner::Honest);
    let backend = subject.backend(&[&server]);
    assert_eq!(backend.read(&ObjectName::Format, 5).unwrap().unwrap(), b"small");
    assert_eq!(backend.read(&ObjectName::Format, 4).unwrap_err().kind(), ErrorKind::Damaged);
    let endless = subject.server(Manner::Endless);
    let backend = subject.backend(&[&endless]);
    assert_eq!(backend.read(&ObjectName::Format, 1 << 16).unwrap_err().kind(), ErrorKind::Damaged);
    assert!(backend.traffic().bytes <= 1 << 16, "{:?}", backend.traffic());
    assert_eq!(endless.requests(), 1);
}

/// FAULTS 15: a body of the whole object must not be taken for the part.
#[test]
fn a_whole_object_in_place_of_a_part_is_cut() {
    let subject = Subject::new();
    let server = subject.server(Manner::Whole);
    let backend = subject.backend(&[&server]);
    subject.assert_reads(&backend, 1000, 5000);
    subject.assert_reads(&backend, 0, 1 << 20);
    assert_eq!(server.requests(), 2);
}

#[test]
fn what_is_no_answer_is_refused_at_once() {
    let subject = Subject::new();
    assert!(matches!(subject.why(Manner::OtherRange), TransferError::OtherRange { .. }));
    assert!(matches!(subject.why(Manner::Gzip), TransferError::Encoded(coding) if coding == "gzip"));
    assert!(matches!(subject.why(Manner::Page), TransferError::WebPage));
    assert!(matches!(subject.why(Manner::Status(403, "")), TransferError::Status { status: 403, .. }));
    for to in ["http://127.0.0.1:1/x", "https://example.invalid/", "file:///etc/passwd", "/again"] {
        assert!(matches!(subject.why(Manner::Redirect(to.into())), TransferError::Redirect(found) if found == to));
    }
    assert_eq!(subject.timing.now(), Duration::ZERO, "nothing of this gets better by waiting");
}

/// FAULTS 21: only where the configuration allows it is another server asked, and never in circles.
#[test]
fn a_redirect_is_followed_to_a_host_that_is_named() {
    let subject = Subject::new();
    let far = subject.server(Manner::Honest);
    let to = far.url();
    let near = WebServer::start(subject.dir.path(), move |asked, _| Manner::Redirect(format!("{to}{}", asked.path)));
    let host = far.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let backend = |hosts: &[&str]| {
        let timing = Arc::clone(&subject.timing) as Arc<dyn Timing>;
        let redirects = hosts.iter().map(ToString::to_string).collect();
        let token = Some(Secret(b"a-token-of-some-length".to_vec()));
        HttpBackend::new(&[near.url()], HttpOptions { redirects, timing, token, ..HttpOptions::default() }).unwrap()
    };
    subject.assert_reads(&backend(&[&host]), 100, 5000);
    assert!(far.asked().iter().all(|asked| asked.headers.iter().all(|line| !line.starts_with("authorization"))));
    assert!(subject.read(&backend(&["127.0.0.1"]), 100, 5000).is_err(), "another port is another server");
    let circle = WebServer::start(subject.dir.path(), |asked, _| Manner::Redirect(format!("/{}", asked.path)));
    let around = HttpBackend::new(&[circle.url()], HttpOptions { redirects: vec![host], ..HttpOptions::default() });
    assert!(subject.read(&around.unwrap(), 100, 5000).is_err());
    assert_eq!(circle.requests(), 4, "three times it was followed");
}

/// FAULTS 16: a server that is busy is asked again a bounded number of times, however long it wants to be left alone.
#[test]
fn a_busy_server_is_asked_again_after_pauses() {
    let subject = Subject::new();
    let why = subject.why(Manner::Status(503, "Retry-After: 99999\r\n"));
    assert!(matches!(why, TransferError::Status { status: 503, .. }), "{why}");
    let pause_max = Patience::default().pause_max;
    assert_eq!(*subject.timing.slept.lock().unwrap(), [pause_max, pause_max]);
    subject.timing.slept.lock().unwrap().clear();
    assert!(matches!(subject.why(Manner::Reset), TransferError::Connect(_)));
    let slept = subject.timing.slept.lock().unwrap().clone();
    assert_eq!(slept, [Duration::from_millis(250), Duration::from_millis(500)]);
}

#[test]
fn a_deadline_ends_it_before_the_rounds_do() {
    let subject = Subject::new();
    let server = subject.server(Manner::Status(503, ""));
    let patience = Patience { rounds: 1000, deadline: Duration::from_secs(60), ..Patience::default() };
    let backend = subject.backend_with(&[&server], patience, Arc::clone(&subject.timing) as Arc<dyn Timing>);
    assert_eq!(subject.read(&backend, 0, 10).unwrap_err().kind(), ErrorKind::Server);
    assert!(subject.timing.now() < Duration::from_secs(60));
    assert!(server.requests() < 20, "{}", server.requests());
}

/// FAULTS 14: what came before the connection broke is not fetched again.
#[test]
fn a_body_that_breaks_off_is_continued() {
    let subject = Subject::new();
    let piece = subject.bytes.len() / 16;
    for whole_pieces in 0..16 {
        let server = WebServer::start(subject.dir.path(), move |_, nth| match nth {
            0 => Manner::Truncate(piece * whole_pieces + 7),
            _ => Manner::Honest,
        });
        let backend = subject.backend(&[&server]);
        subject.assert_reads(&backend, 0, subject.bytes.len());
        let asked = server.asked();
        assert_eq!(asked.len(), 2, "{whole_pieces}");
        assert_eq!(backend.traffic().bytes, subject.bytes.len() as u64, "{whole_pieces}");
        assert_eq!(asked[1].range, Some(((piece * whole_pieces + 7) as u64, (1 << 20) - 1)));
    }
}

/// The real clock, with little patience.
fn hasty(subject: &Subject, servers: &[&WebServer]) -> HttpBackend {
    let patience = Patience {
        first_byte: Duration::from_millis(300),
        stall: Duration::from_millis(300),
        rate_span: Duration::from_millis(200),
        rate_bytes: 1000,
        rounds: 1,
        ..Patience::default()
    };
    subject.backend_with(servers, patience, HttpOptions::default().timing)
}

/// FAULTS 17: each byte comes in time, and all of them would take years.
#[test]
fn a_slow_server_is_left_for_the_next() {
    let subject = Subject::new();
    for manner in [Manner::Drip(Duration::from_millis(20)), Manner::Stall, Manner::Late(Duration::from_secs(2))] {
        let (slow, good) = (subject.server(manner.clone()), subject.server(Manner::Honest));
        let backend = hasty(&subject, &[&slow, &good]);
        let start = Instant::now();
        subject.assert_reads(&backend, 10, 100_000);
        assert!(start.elapsed() < Duration::from_secs(2), "{manner:?}");
        assert_eq!((slow.requests(), good.requests()), (1, 1), "{manner:?}");
        assert_eq!(backend.notes(), [""; 0], "slow is not wrong");
        // It rests: the next part is asked of the other one at once.
        subject.assert_reads(&backend, 0, 10);
        assert_eq!((slow.requests(), good.requests()), (1, 2), "{manner:?}");
    }
    let slow = subject.server(Manner::Drip(Duration::from_millis(20)));
    let error = subject.read(&hasty(&subject, &[&slow]), 10, 100_000).unwrap_err();
    assert!(matches!(error, Error::Fetch { source: TransferError::TooSlow { .. }, .. }), "{error:?}");
}

/// FAULTS 22: the first server lies; the second is believed and the first is named.
#[test]
fn a_server_that_lies_is_named_and_avoided() {
    let subject = Subject::new();
    let (liar, good) = (subject.server(Manner::Lie), subject.server(Manner::Honest));
    let backend = subject.backend(&[&liar, &good]);
    subject.assert_reads(&backend, 1000, 5000);
    subject.assert_reads(&backend, 2000, 5000);
    assert_eq!((liar.requests(), good.requests()), (1, 2));
    let notes = backend.notes();
    assert!(notes.len() == 1 && notes[0].starts_with(&liar.url()), "{notes:?}");
    // With nobody else left, it is damage that is reported.
    let alone = subject.backend(&[&liar]);
    assert_eq!(subject.read(&alone, 0, 10).unwrap_err().kind(), ErrorKind::Damaged);
}

/// What no server has cannot be waited for: the store's own address says so, and a mirror does not answer. A list of deltas is
/// often not there.
#[test]
fn a_dead_mirror_does_not_hold_up_what_is_missing() {
    let subject = Subject::new();
    let (index, list) = (ObjectName::SnapshotIndex, ObjectName::DeltaIndex(SnapshotId([7; 32])));
    let pack = ObjectName::Pack(PackId([7; 32]));
    for dead in [Manner::Reset, Manner::Status(503, "Retry-After: 99999\r\n")] {
        let (mirror, own) = (subject.server(dead.clone()), subject.server(Manner::Honest));
        let backend = subject.backend(&[&mirror, &own]);
        for (name, times) in [(index, 1), (list, 1), (pack, 2)] {
            let before = mirror.requests();
            assert_eq!(backend.read(&name, 100).unwrap(), None, "{name}");
            assert!(mirror.requests() <= before + times, "{name}: {} requests", mirror.requests() - before);
        }
        assert_eq!(backend.len(&index).unwrap(), None);
        assert!(subject.timing.slept.lock().unwrap().len() <= 1, "{:?}", subject.timing.slept);
        subject.timing.slept.lock().unwrap().clear();
        // The other way round only the list is clear: a mirror may be behind.
        let backend = subject.backend(&[&own, &mirror]);
        assert_eq!(backend.read(&list, 100).unwrap(), None);
        assert_eq!(*subject.timing.slept.lock().unwrap(), []);
        assert_eq!(backend.read(&index, 100).unwrap_err().kind(), ErrorKind::Server);
        subject.timing.slept.lock().unwrap().clear();
    }
}

/// A server that is silent costs its time once, and not for each object.
#[test]
fn a_silent_server_rests_longer_than_it_was_silent() {
    let subject = Subject::new();
    let timing = Arc::clone(&subject.timing);
    let slow = WebServer::start(subject.dir.path(), move |_, _| {
        timing.sleep(Duration::from_secs(30));
        Manner::Reset
    });
    let good = subject.server(Manner::Honest);
    let backend = subject.backend(&[&slow, &good]);
    for _ in 0..20 {
        subject.assert_reads(&backend, 0, 10);
        subject.timing.sleep(Duration::from_secs(10));
    }
    assert_eq!(slow.requests(), 1);
}

/// A place that somebody told may be wrong: who has something else there is not blamed for it.
#[test]
fn nobody_is_blamed_for_a_part_that_nobody_has() {
    let subject = Subject::new();
    let (one, other) = (subject.server(Manner::Honest), subject.server(Manner::Honest));
    let backend = subject.backend(&[&one, &other]);
    let never = |_: &[u8]| Err(Error::HashMismatch { object: "the part".into(), actual: "something else".into() });
    let object = backend.open(&subject.pack).unwrap().unwrap();
    assert_eq!(object.read_part(10, 10, &mut { never }).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(backend.notes(), [""; 0]);
}

/// A piece of each of two servers, of which one is wrong: both are asked for the whole before one is blamed.
#[test]
fn nobody_is_blamed_for_pieces_of_two_servers() {
    let subject = Subject::new();
    let pack = subject.dir.path().join(subject.pack.to_string());
    let other = evenkeel_tests::temp_dir();
    std::fs::create_dir_all(other.path().join(subject.pack.dir())).unwrap();
    let mut wrong = std::fs::read(&pack).unwrap();
    wrong[100] ^= 1;
    std::fs::write(other.path().join(subject.pack.to_string()), &wrong).unwrap();
    // The wrong piece comes first, and breaks off.
    let broken = WebServer::start(other.path(), |_, nth| if nth == 0 { Manner::Truncate(500) } else { Manner::Honest });
    let good = subject.server(Manner::Honest);
    let backend = subject.backend(&[&broken, &good]);
    subject.assert_reads(&backend, 0, 1000);
    assert_eq!(backend.notes(), [""; 0]);
    assert_eq!((broken.requests(), good.requests()), (1, 2));
}

#[test]
fn an_object_that_is_too_short_is_damage() {
    let subject = Subject::new();
    let server = subject.server(Manner::Honest);
    let backend = subject.backend(&[&server]);
    let mut buffer = vec![0; 100];
    let object = backend.open(&subject.pack).unwrap().unwrap();
    for offset in [(1 << 20) - 50, 1 << 20, 1 << 40] {
        match object.read_exact_at(&mut buffer, offset) {
            Err(Error::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::UnexpectedEof),
            other => panic!("{offset}: {other:?}"),
        }
    }
}

#[test]
fn an_address_that_is_none_is_refused() {
    let refused = |address: &str| {
        let error = HttpBackend::new(&[address.to_string()], HttpOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{address}");
        error.to_string()
    };
    for address in ["", "x", "ftp://h/", "http:///x", "http://h/?a", "http://h/#b", "file:///x"] {
        refused(address);
    }
    assert!(!refused("http://user:secret@h/").contains("secret"));
}
