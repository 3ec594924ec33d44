// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process that fetches and is killed, at many points: the next one goes on where it was. What had come and was verified, by
//! the bytes that the server is asked for, does not come again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel_store::checkout::Mode;
use evenkeel_store::id::{ChunkId, SnapshotId};
use evenkeel_tests::fixture::assert_same;
use evenkeel_tests::web::{Asked, Manner, WebServer};
use evenkeel_tests::{Fixture, Place, noise, read_tree};

/// What a record is kept behind, in the file of what was fetched.
const HEAD_LEN: usize = 48;

/// Bytes of packs, by pack.
type Parts = BTreeMap<String, Vec<(u64, u64)>>;

struct Subject {
    fixture: Fixture,
    id: SnapshotId,
}

/// One server that fetches.
struct Remote {
    state: PathBuf,
    root: PathBuf,
}

impl Subject {
    fn new() -> Subject {
        let fixture = Fixture::small();
        for at in 0..300u64 {
            fixture.tree.file(format!("d{}/f{at}", at % 7), noise(at, 3000));
        }
        fixture.tree.file("long", noise(1000, 9 << 20));
        let id = fixture.commit_new();
        Subject { fixture, id }
    }

    fn remote(&self, name: &str) -> Remote {
        let dir = self.fixture.dir();
        Remote { state: dir.join(format!("{name}.state")), root: dir.join(name) }
    }

    fn fetch(&self, remote: &Remote, server: &WebServer) -> Child {
        let args = [server.url().into(), remote.state.clone().into_os_string(), remote.root.clone().into_os_string()];
        let mut command = Command::new(env!("CARGO_BIN_EXE_one-fetch"));
        command.args(args).arg(self.id.to_hex()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Where in packs the records are that `remote` has kept whole.
    fn kept(&self, remote: &Remote) -> Parts {
        let reader = self.fixture.store.reader().unwrap();
        let mut parts = Parts::new();
        let Some(bytes) = fetched_file(&remote.state) else { return parts };
        let mut rest = &bytes[..];
        while let Some((head, after)) = rest.split_at_checked(HEAD_LEN) {
            let id = ChunkId(head[..32].try_into().unwrap());
            let len = u32::from_le_bytes(head[32..36].try_into().unwrap()) as usize;
            if after.len() < len {
                break;
            }
            let at = reader.locate(&id).unwrap();
            let name = evenkeel_store::backend::ObjectName::Pack(at.pack).to_string();
            parts.entry(name).or_default().push((at.offset, at.offset + u64::from(at.stored_len)));
            rest = &after[len..];
        }
        parts
    }

    /// The killed one is run again: it asks for nothing that was kept, and then nothing is missing.
    #[track_caller]
    fn goes_on(&self, remote: &Remote, point: &str) -> u64 {
        let kept = self.kept(remote);
        let server = WebServer::honest(self.fixture.store.path());
        assert!(self.fetch(remote, &server).wait().unwrap().success(), "{point}");
        assert_eq!(overlap(&server.asked(), &kept), 0, "{point}: bytes that were kept came again");
        let again = WebServer::honest(self.fixture.store.path());
        assert!(self.fetch(remote, &again).wait().unwrap().success(), "{point}");
        assert!(again.asked().iter().all(|asked| asked.range.is_none()), "{point}: {:?}", again.asked());
        kept.values().flatten().map(|(start, end)| end - start).sum()
    }
}

fn fetched_file(state: &Path) -> Option<Vec<u8>> {
    let stores = std::fs::read_dir(state.join("stores")).ok()?;
    stores.flatten().find_map(|store| std::fs::read(store.path().join("fetched")).ok())
}

/// Bytes of `kept` that were asked for.
fn overlap(asked: &[Asked], kept: &Parts) -> u64 {
    let ranges = asked.iter().filter_map(|asked| Some((kept.get(&asked.path)?, asked.range?)));
    let common = |(parts, (first, last)): (&Vec<(u64, u64)>, (u64, u64))| {
        parts.iter().map(|(start, end)| (*end).min(last + 1).saturating_sub((*start).max(first))).sum::<u64>()
    };
    ranges.map(common).sum()
}

/// Killed while the server is in the middle of an answer, at each of the requests.
#[test]
fn killed_in_the_middle_of_each_answer() {
    let subject = Subject::new();
    let counted = WebServer::honest(subject.fixture.store.path());
    assert!(subject.fetch(&subject.remote("counted"), &counted).wait().unwrap().success());
    let (requests, all) = (counted.requests(), counted.sent());
    let mut most = 0;
    for stops_at in (2..requests).step_by((requests / 12).max(1)) {
        let has_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&has_stopped);
        let server = WebServer::start(subject.fixture.store.path(), move |_, nth| {
            if nth < stops_at {
                return Manner::Honest;
            }
            stopped.store(true, Ordering::Relaxed);
            Manner::Stall
        });
        let remote = subject.remote(&format!("stops-at-{stops_at}"));
        let mut child = subject.fetch(&remote, &server);
        let start = Instant::now();
        while !has_stopped.load(Ordering::Relaxed) {
            assert!(start.elapsed() < Duration::from_secs(30), "request {stops_at} never comes");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Others may still be under way.
        std::thread::sleep(Duration::from_millis(20));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        most = most.max(subject.goes_on(&remote, &format!("request {stops_at} of {requests}")));
        assert!(!remote.root.exists(), "a fetch changes nothing");
    }
    assert!(most > all / 2, "at the last points most had come: {most} of {all}");
}

/// Killed at any moment, also in the middle of keeping a record; again and again, until it is through.
#[test]
fn killed_at_any_moment_again_and_again() {
    let subject = Subject::new();
    let remote = subject.remote("server");
    let mut kept_before = 0;
    let mut kills = 0u32;
    loop {
        let server = WebServer::honest(subject.fixture.store.path());
        let kept = subject.kept(&remote);
        let bytes = kept.values().flatten().map(|(start, end)| end - start).sum::<u64>();
        assert!(bytes >= kept_before, "what was kept is kept on");
        kept_before = bytes;
        let mut child = subject.fetch(&remote, &server);
        std::thread::sleep(Duration::from_millis(8 + u64::from(kills % 10) * 4 + u64::from(kills / 10) * 20));
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        let status = child.wait().unwrap();
        assert_eq!(overlap(&server.asked(), &kept), 0, "kill {kills}: bytes that were kept came again");
        if ended.is_some() {
            assert!(status.success());
            break;
        }
        kills += 1;
        assert!(kills < 300, "it never ends");
    }
    assert!(kills > 0, "it was killed at least once");
    let server = WebServer::honest(subject.fixture.store.path());
    let mut place = Place::new(&subject.fixture, "server");
    place.store = evenkeel_store::Store::open_at(Arc::new(
        evenkeel_store::backend::HttpBackend::new(&[server.url()], Default::default()).unwrap(),
    ))
    .unwrap();
    place.checkout(&subject.id, Mode::Full);
    assert_same(&read_tree(&place.root), &subject.fixture.read(&subject.id));
    assert!(server.asked().iter().all(|asked| asked.range.is_none()), "everything was there");
}
