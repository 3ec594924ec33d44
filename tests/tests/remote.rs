// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A whole store read over HTTP: everything that reads, what it costs, and what becomes of it when servers misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_store::backend::http::{HttpOptions, Patience};
use evenkeel_store::backend::{Backend, HttpBackend, ObjectName};
use evenkeel_store::check::{CheckOptions, check};
use evenkeel_store::checkout::{CheckoutReport, Mode};
use evenkeel_store::commit::commit;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::manifest::{Manifest, diff};
use evenkeel_store::{Error, ErrorKind, Progress, Result, Store};
use evenkeel_tests::fixture::assert_same;
use evenkeel_tests::naive::read_snapshot;
use evenkeel_tests::web::{Asked, Manner, WebServer};
use evenkeel_tests::{Fixture, Place, noise, read_tree};

/// Little patience, and no pauses to speak of.
fn options() -> HttpOptions {
    let patience = Patience {
        first_byte: Duration::from_secs(5),
        stall: Duration::from_secs(5),
        rounds: 3,
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        ..Patience::default()
    };
    HttpOptions { patience, ..HttpOptions::default() }
}

fn try_open(addresses: &[String]) -> Result<Store> {
    Store::open_at(Arc::new(HttpBackend::new(addresses, options())?))
}

fn open(server: &WebServer) -> Store {
    try_open(&[server.url()]).unwrap()
}

/// Two releases of which the second changes little: many files, one long enough for an indirect chunk list.
fn releases(fixture: &Fixture) -> [SnapshotId; 2] {
    let tree = &fixture.tree;
    for at in 0..400u64 {
        tree.file(format!("d{}/f{at}", at % 7), noise(at, 3000));
    }
    tree.file("long", noise(1000, 9 << 20)).file("empty", "").sparse("sparse", 1 << 20, &[(4096, b"x")]);
    let first = fixture.commit_new();
    tree.file("d1/f8", noise(2000, 3000)).file("new", noise(2001, 200_000)).remove("d2");
    [first, fixture.commit_new()]
}

/// Bytes of content that a server was asked for, by path.
fn content_asked(asked: &[Asked]) -> u64 {
    asked.iter().filter_map(|asked| asked.range).map(|(first, last)| last - first + 1).sum()
}

#[track_caller]
fn assert_is(place: &Place<'_>, fixture: &Fixture, id: &SnapshotId) {
    assert_same(&read_tree(&place.root), &fixture.read(id));
}

fn far_place<'f>(fixture: &'f Fixture, name: &str, store: Store) -> Place<'f> {
    let mut place = Place::new(fixture, name);
    place.store = store;
    place
}

/// Nothing live is there, at most the root itself.
fn is_untouched(place: &Place<'_>) -> bool {
    !place.root.exists() || read_tree(&place.root).len() <= 1
}

fn warnings(report: &CheckoutReport) -> Vec<String> {
    report.areas.iter().flat_map(|area| area.warnings.clone()).collect()
}

#[test]
fn everything_that_reads_reads_over_http() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let server = WebServer::honest(fixture.store.path());
    let store = open(&server);
    assert_eq!(store.snapshots().unwrap(), fixture.store.snapshots().unwrap());
    assert_eq!(store.resolve("@latest").unwrap(), ids[1]);
    assert_eq!(store.resolve("@latest~1").unwrap(), ids[0]);
    assert_eq!(store.resolve(&ids[0].short(8)).unwrap(), ids[0]);
    assert!(store.is_ancestor(&ids[0], &ids[1]).unwrap());
    assert!(matches!(store.snapshot(&SnapshotId([7; 32])), Err(Error::UnknownSnapshot { .. })));
    for id in &ids {
        let snapshot = store.snapshot(id).unwrap();
        assert_same(&read_snapshot(&store, &snapshot, "tree").unwrap(), &fixture.read(id));
    }
    let reader = store.reader_of(&ids).unwrap();
    assert_eq!(reader.notes(), [""; 0]);
    let [first, second] = ids.map(|id| store.snapshot(&id).unwrap());
    let [first, second] = [&first, &second].map(|snapshot| Manifest::open(&reader, &snapshot.areas[0]).unwrap());
    let near = fixture.store.reader().unwrap();
    let count = |a: &Manifest<'_>, b: &Manifest<'_>| diff(Some(a), Some(b)).map(Result::unwrap).count();
    let [a, b] = ids.map(|id| Manifest::open(&near, &fixture.store.snapshot(&id).unwrap().areas[0]).unwrap());
    assert_eq!(count(&first, &second), count(&a, &b));

    // What a third party would serve, and nothing that is not there.
    let names: BTreeSet<String> = fixture.objects().into_keys().collect();
    let asked = server.asked();
    let unknown = ObjectName::Snapshot(SnapshotId([7; 32])).to_string();
    assert!(asked.iter().all(|asked| asked.method == "GET" || asked.method == "HEAD"));
    assert!(asked.iter().all(|asked| names.contains(&asked.path) || asked.path == unknown));
}

#[test]
fn nothing_is_written_over_http() {
    let fixture = Fixture::small();
    fixture.tree.file("f", "f");
    fixture.commit_new();
    let before = fixture.objects();
    let server = WebServer::honest(fixture.store.path());
    let store = open(&server);
    fixture.tree.file("g", "g");
    let error = commit(&store, &fixture.options(), &Progress::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(fixture.objects(), before);
    assert!(server.asked().iter().all(|asked| asked.method == "GET"));
}

/// The next release costs what is new in it, in few requests; and a request is for many chunks.
#[test]
fn a_checkout_fetches_what_it_lacks_in_few_requests() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let server = WebServer::honest(fixture.store.path());
    let place = far_place(&fixture, "server", open(&server));
    let report = place.checkout(&ids[0], Mode::Full);
    assert_eq!(warnings(&report), [""; 0]);
    assert_is(&place, &fixture, &ids[0]);
    let packs: u64 =
        fixture.objects().iter().filter(|(name, _)| name.starts_with("packs/")).map(|(_, b)| b.len() as u64).sum();
    let (requests, bytes) = (server.requests(), server.sent());
    assert!(bytes < packs + (1 << 20), "{bytes} bytes of {packs}");
    assert!(requests <= 40, "{requests} requests:\n{:?}", server.asked());
    let before = server.asked().len();
    place.checkout(&ids[1], Mode::Full);
    assert_is(&place, &fixture, &ids[1]);
    let asked = server.asked().split_off(before);
    assert!(asked.len() <= 20, "{} requests: {asked:?}", asked.len());
    assert!(server.sent() - bytes < 700_000, "{} bytes for 203,000 new ones", server.sent() - bytes);
    // Nothing new: format, document, locators and the manifest.
    let before = server.asked().len();
    assert!(place.checkout(&ids[1], Mode::Full).is_empty());
    assert!(server.requests() - before <= 10);
    assert_eq!(fetched_file(&place), None, "it has served its purpose");
}

fn fetched_file(place: &Place<'_>) -> Option<u64> {
    let path = place.state.join("stores").join(place.store.id().to_string()).join("fetched");
    path.metadata().ok().map(|found| found.len())
}

/// The server goes away in the middle: what came before does not come again.
#[test]
fn what_was_fetched_before_an_interruption_is_not_fetched_again() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    // Small ranges, so that there are some before the server goes.
    let counted = WebServer::honest(fixture.store.path());
    far_place(&fixture, "counted", open(&counted)).checkout(&ids[1], Mode::Full);
    let all = content_asked(&counted.asked());
    let total = counted.requests();
    for lasts in [total / 2, total - 2] {
        let server =
            WebServer::start(
                fixture.store.path(),
                move |_, nth| {
                    if nth < lasts { Manner::Honest } else { Manner::Status(500, "") }
                },
            );
        let name = format!("lasts-{lasts}");
        let place = far_place(&fixture, &name, open(&server));
        let error = place.try_checkout(&ids[1], |options| options.mode = Some(Mode::Full)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
        assert!(is_untouched(&place));
        let kept = fetched_file(&place).unwrap();
        let again = WebServer::honest(fixture.store.path());
        let place = far_place(&fixture, &name, open(&again));
        place.checkout(&ids[1], Mode::Full);
        assert_is(&place, &fixture, &ids[1]);
        let rest = content_asked(&again.asked());
        // Each record kept has a head of 48 bytes; what lies between records is fetched for nothing.
        assert!(rest + kept <= all + all / 10, "{lasts}: {kept} kept, {rest} of {all} fetched again");
        assert!(lasts < total * 3 / 4 || kept > all / 10, "{lasts}: only {kept} of {all} were kept");
    }
}

/// FAULTS 22, for a whole checkout: the first mirror lies about every part of every pack.
#[test]
fn a_mirror_that_lies_costs_a_retry() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let lies = |asked: &Asked, _| if asked.range.is_some() { Manner::Lie } else { Manner::Honest };
    let (liar, good) = (WebServer::start(fixture.store.path(), lies), WebServer::honest(fixture.store.path()));
    let store = try_open(&[liar.url(), good.url()]).unwrap();
    let place = far_place(&fixture, "server", store);
    let report = place.checkout(&ids[0], Mode::Full);
    assert_is(&place, &fixture, &ids[0]);
    let warnings = warnings(&report);
    assert!(warnings.len() == 1 && warnings[0].starts_with(&liar.url()), "{warnings:?}");
    assert_eq!(liar.asked().iter().filter(|asked| asked.range.is_some()).count(), 1, "once was enough");
}

/// Every object that a checkout asks for misbehaves in every way, each time once; a second mirror is honest.
#[test]
fn a_checkout_survives_every_fault_of_one_mirror() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let manners = [
        Manner::Status(500, ""),
        Manner::Status(404, ""),
        Manner::Status(403, ""),
        Manner::Status(416, ""),
        Manner::Status(503, "Retry-After: 99999\r\n"),
        Manner::Truncate(100),
        Manner::Whole,
        Manner::OtherRange,
        Manner::Gzip,
        Manner::Page,
        Manner::Reset,
        Manner::Redirect("http://127.0.0.1:1/".into()),
        Manner::Endless,
        Manner::Lie,
    ];
    for (at, manner) in manners.into_iter().enumerate() {
        let bad = {
            let manner = manner.clone();
            WebServer::start(fixture.store.path(), move |_, _| manner.clone())
        };
        let good = WebServer::honest(fixture.store.path());
        let store = try_open(&[bad.url(), good.url()]).unwrap();
        let place = far_place(&fixture, &format!("place-{at}"), store);
        place.checkout(&ids[1], Mode::Full);
        assert_is(&place, &fixture, &ids[1]);
        assert!(bad.requests() > 0, "{manner:?}");
        assert!(good.sent() < 30 << 20, "{manner:?}: {}", good.sent());
    }
}

/// FAULTS 20: a portal that answers everything with its own page.
#[test]
fn a_captive_portal_is_a_matter_of_the_network() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let portal = WebServer::start(fixture.store.path(), |_, _| Manner::Page);
    assert_eq!(try_open(&[portal.url()]).unwrap_err().kind(), ErrorKind::Server);
    // It takes over in the middle.
    for honest in 1..8 {
        let server = WebServer::start(
            fixture.store.path(),
            move |_, nth| if nth < honest { Manner::Honest } else { Manner::Page },
        );
        let place = far_place(&fixture, &format!("place-{honest}"), open(&server));
        let error = place.try_checkout(&ids[0], |options| options.mode = Some(Mode::Full)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{honest}: {error}");
        assert!(is_untouched(&place));
    }
}

#[test]
fn segments_are_asked_where_locators_fail() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let (lost, truncated) = (ObjectName::Locator(ids[0]).to_string(), ObjectName::Locator(ids[1]).to_string());
    for manner in [Manner::Status(404, ""), Manner::Lie] {
        for which in [&lost, &truncated] {
            let (which, manner) = (which.clone(), manner.clone());
            let server = WebServer::start(fixture.store.path(), move |asked, _| {
                if asked.path == which { manner.clone() } else { Manner::Honest }
            });
            let store = open(&server);
            let reader = store.reader_of(&ids).unwrap();
            assert_eq!(reader.notes().len(), 1, "{:?}", reader.notes());
            let place = far_place(&fixture, &format!("place-{}", server.url().len() + server.requests()), store);
            place.checkout(&ids[1], Mode::Full);
            assert_is(&place, &fixture, &ids[1]);
            std::fs::remove_dir_all(&place.root).unwrap();
            std::fs::remove_dir_all(&place.state).unwrap();
        }
    }
    // With the index gone as well there is nothing left to ask.
    let server = WebServer::start(fixture.store.path(), |asked, _| {
        let is_hint = asked.path.starts_with("locators/") || asked.path.starts_with("segments/");
        if is_hint { Manner::Status(404, "") } else { Manner::Honest }
    });
    assert_eq!(open(&server).reader_of(&ids).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_check_over_http_finds_damage() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let server = WebServer::honest(fixture.store.path());
    let thorough = CheckOptions { read_data: true, ..CheckOptions::default() };
    let sound = check(&open(&server), &thorough, &Progress::default()).unwrap();
    assert_eq!(sound.findings, []);
    assert_eq!(sound.packs, fixture.check().packs);
    // One bit of the longest pack's middle.
    let packs = fixture.objects().into_iter().filter(|(name, _)| name.starts_with("packs/"));
    let (name, mut bytes) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(fixture.store.path().join(&name), &bytes).unwrap();
    let store = open(&server);
    let found = check(&store, &thorough, &Progress::default()).unwrap();
    assert!(found.findings.iter().any(|finding| finding.object == name && !finding.hurts.is_empty()), "{found:?}");
    let place = far_place(&fixture, "server", store);
    let error = place.try_checkout(&ids[0], |options| options.mode = Some(Mode::Full)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

/// A web server of Debian, with a configuration of its own.
struct Nginx {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Nginx {
    fn serve(root: &Path) -> Nginx {
        let dir = evenkeel_tests::temp_dir();
        // Somebody else may take the port in between; then nginx does not start, and the test says so.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (own, root) = (dir.path().display(), root.display());
        let config = format!(
            "daemon off; master_process off; pid {own}/pid; error_log {own}/error.log;\n\
             events {{}}\n\
             http {{\n access_log {own}/access.log; gzip on; gzip_types *; gzip_min_length 1; max_ranges 1;\n\
             client_body_temp_path {own}/a; proxy_temp_path {own}/b; fastcgi_temp_path {own}/c;\n\
             uwsgi_temp_path {own}/d; scgi_temp_path {own}/e;\n\
             server {{ listen 127.0.0.1:{port}; location /store/ {{ alias {root}/; }} }}\n}}\n"
        );
        let path = dir.path().join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let child = Command::new(program.expect("nginx is installed (package: nginx-light)"))
            .args(["-e", "stderr", "-c"])
            .arg(&path)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let nginx = Nginx { child, port, _dir: dir };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "nginx does not answer");
            std::thread::yield_now();
        }
        nginx
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/store", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "root: nginx is installed for it"]
fn root_a_store_behind_nginx() {
    let fixture = Fixture::small();
    let ids = releases(&fixture);
    let nginx = Nginx::serve(fixture.store.path());
    let backend = HttpBackend::new(&[nginx.url()], options()).unwrap();
    let store = Store::open_at(Arc::new(backend.clone())).unwrap();
    let place = far_place(&fixture, "server", store.clone());
    for id in &ids {
        place.checkout(id, Mode::Full);
        assert_is(&place, &fixture, id);
    }
    assert!(backend.traffic().requests <= 60, "{:?}", backend.traffic());
    assert_eq!(backend.notes(), [""; 0]);
    assert_eq!(backend.read(&ObjectName::Locator(SnapshotId([7; 32])), 10).unwrap(), None);
    assert_eq!(backend.len(&ObjectName::Format).unwrap(), Some(fixture.objects()["format"].len() as u64));
    let thorough = CheckOptions { read_data: true, ..CheckOptions::default() };
    assert_eq!(check(&store, &thorough, &Progress::default()).unwrap().findings, []);
    let by_path: BTreeMap<_, _> =
        place.store.snapshots().unwrap().into_iter().map(|record| (record.id, record.time)).collect();
    assert_eq!(by_path.len(), 2);
}
