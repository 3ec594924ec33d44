// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store in a bucket of a real object store, of which a node goes away in the midst of everything.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evenkeel_store::backend::s3::S3Options;
use evenkeel_store::backend::{Backend, ObjectName, S3Backend, Writing};
use evenkeel_store::check::{CheckOptions, check};
use evenkeel_store::checkout::Mode;
use evenkeel_store::commit::commit;
use evenkeel_store::format::store::ChunkerParams;
use evenkeel_store::id::SnapshotId;
use evenkeel_store::store::InitOptions;
use evenkeel_store::{Error, ErrorKind, Progress, Store};
use evenkeel_tests::fixture::assert_same;
use evenkeel_tests::garage::Cluster;
use evenkeel_tests::{Fixture, Place, noise, read_tree};

fn small() -> InitOptions {
    InitOptions { chunker: ChunkerParams::around(8 << 10), pack_size: 1 << 20 }
}

/// A fixture whose store is in the bucket, below `prefix`.
fn in_bucket(cluster: &Cluster, prefix: &str) -> (Fixture, S3Backend) {
    let mut fixture = Fixture::small();
    let backend = cluster.backend(prefix, fixture.dir().join("spool"));
    fixture.store = Store::create_in_bucket(backend.clone(), &small()).unwrap();
    (fixture, backend)
}

fn change(fixture: &Fixture, seed: u64) {
    for at in 0..40 {
        fixture.tree.file(format!("d{}/f{at}", at % 5), noise(seed + at, 300_000));
    }
    fixture.tree.file("small", format!("{seed}"));
}

fn assert_sound(store: &Store, fixture: &Fixture) {
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = check(store, &options, &Progress::default()).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    assert!(std::fs::read_dir(fixture.dir().join("spool")).unwrap().next().is_none(), "nothing is left to be sent");
}

/// Kills a node once some more requests were made, while `work` goes on.
fn while_a_node_dies<T>(
    cluster: &Cluster,
    node: usize,
    backend: &S3Backend,
    after: u64,
    work: impl FnOnce() -> T,
) -> T {
    let (start, died, over) = (backend.traffic().requests, AtomicBool::new(false), AtomicBool::new(false));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while backend.traffic().requests < start + after && !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            died.store(!over.load(Ordering::Relaxed), Ordering::Relaxed);
            cluster.kill(node);
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    });
    assert!(died.load(Ordering::Relaxed), "it was over before {after} requests were made");
    done
}

/// FAULTS §6: a master commits into a bucket, servers read it, and any one node may fail at any time.
#[test]
#[ignore = "garage: a cluster of three nodes; cargo xtask test --only garage"]
fn garage_a_node_dies_in_a_commit_and_another_in_a_checkout() {
    let cluster = Cluster::start();
    let (fixture, backend) = in_bucket(&cluster, "a/b");
    change(&fixture, 1000);
    let first = fixture.commit_new();
    assert_sound(&fixture.store, &fixture);

    change(&fixture, 2000);
    // The one that is asked first, and then the one that is asked instead.
    let second = while_a_node_dies(&cluster, 0, &backend, 5, || fixture.commit_new());
    assert_sound(&fixture.store, &fixture);
    cluster.revive(0);
    cluster.settle();
    let opened = |name: &str| {
        let backend = cluster.backend("a/b", fixture.dir().join(name));
        (Store::open_at(Arc::new(backend.clone())).unwrap(), backend)
    };
    let (store, backend) = opened("other-spool");
    let mut place = Place::new(&fixture, "server");
    place.store = store;
    while_a_node_dies(&cluster, 1, &backend, 5, || place.checkout(&first, Mode::Full));
    assert_eq!(place.status().areas[0].applied, Some(first));
    place.checkout(&second, Mode::Full);
    place.assert_is(&second);
    assert_same(&read_tree(&place.root), &read_tree(fixture.tree.root()));
    cluster.revive(1);
    cluster.settle();
    assert_sound(&fixture.store, &fixture);
    // Everything is on every other node, too.
    cluster.kill(2);
    let (store, _) = opened("third-spool");
    assert_sound(&store, &fixture);
    assert_eq!(store.latest().unwrap(), Some(second));
}

#[test]
#[ignore = "garage: a cluster of three nodes; cargo xtask test --only garage"]
fn garage_without_most_of_its_nodes_nothing_is_lost_and_nothing_is_claimed() {
    let cluster = Cluster::start();
    let (fixture, _) = in_bucket(&cluster, "p");
    change(&fixture, 1);
    let first = fixture.commit_new();
    change(&fixture, 2);
    let impatient = cluster.backend_with("p", fixture.dir().join("spool"), |options| options.http.patience.rounds = 1);
    let impatient = Store::open_at(Arc::new(impatient)).unwrap();
    cluster.kill(1);
    cluster.kill(2);
    let failed = commit(&impatient, &fixture.options(), &Progress::default()).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Server, "{failed:?}");
    cluster.revive(1);
    cluster.revive(2);
    cluster.settle();
    assert_eq!(fixture.store.latest().unwrap(), Some(first), "what failed is not there");
    let second = fixture.commit_new();
    assert_sound(&fixture.store, &fixture);
    fixture.assert_holds_tree(&second);
    assert_ne!(first, second);
}

#[test]
#[ignore = "garage: a cluster of three nodes; cargo xtask test --only garage"]
fn garage_names_are_listed_whole_and_what_is_no_store_of_ours_is_refused() {
    let cluster = Cluster::start();
    let spool = evenkeel_tests::temp_dir();
    let backend = cluster.backend("many", spool.path().join("spool"));
    // More than one page of a listing.
    let ids: Vec<SnapshotId> = (0..1203u32).map(|at| SnapshotId::of(&at.to_le_bytes())).collect();
    std::thread::scope(|scope| {
        for ids in ids.chunks(151) {
            let backend = backend.clone();
            scope.spawn(move || ids.iter().for_each(|id| backend.publish(&ObjectName::Snapshot(*id), b"x").unwrap()));
        }
    });
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(backend.listing().unwrap().list_snapshots().unwrap(), sorted);
    let refused = Store::create_in_bucket(backend.clone(), &small()).unwrap_err();
    assert!(matches!(refused, Error::NotEmpty { .. }), "{refused:?}");
    // What has the same beginning is another store's.
    let neighbour = cluster.backend("man", spool.path().join("spool"));
    assert!(neighbour.listing().unwrap().list_snapshots().unwrap().is_empty());
    Store::create_in_bucket(neighbour.clone(), &small()).unwrap();
    let name = ObjectName::Snapshot(ids[0]);
    backend.remove(&name).unwrap();
    backend.remove(&name).unwrap();
    assert_eq!((backend.read(&name, 10).unwrap(), backend.len(&name).unwrap()), (None, None));
}

/// Passes everything on, and changes a letter of what is sent where it finds it.
fn altering_proxy(to: &str) -> String {
    const FOUND: &[u8] = b"on the way";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let to = to.strip_prefix("http://").unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(&to).unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            let (mut from_client, mut to_server) = (client, server);
            std::thread::spawn(move || {
                let mut buffer = [0; 64 << 10];
                while let Ok(len @ 1..) = from_client.read(&mut buffer) {
                    let found = buffer[..len].windows(FOUND.len()).position(|window| window == FOUND);
                    if let Some(at) = found {
                        buffer[at] = b'O';
                    }
                    if to_server.write_all(&buffer[..len]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// The service compares what it received with the checksum; it does not believe the length alone.
#[test]
#[ignore = "garage: a cluster of three nodes; cargo xtask test --only garage"]
fn garage_refuses_what_is_not_what_was_sent_and_whoever_has_no_key() {
    let cluster = Cluster::start();
    let spool = evenkeel_tests::temp_dir();
    let at = |change: &dyn Fn(&mut S3Options)| cluster.backend_with("p", spool.path().join("spool"), change);
    let store = Store::create_in_bucket(at(&|_| {}), &small()).unwrap();
    let proxied = at(&|options| options.endpoints = vec![altering_proxy(&cluster.endpoints()[0])]);
    let name = ObjectName::Snapshot(SnapshotId::of(b"x"));
    proxied.publish(&name, b"arrives whole").unwrap();
    let refused = proxied.publish(&name, b"altered on the way").unwrap_err();
    assert!(format!("{refused:?}").contains("status: 400"), "{refused:?}");
    assert_eq!(store.backend().read(&name, 100).unwrap().unwrap(), b"arrives whole");

    let refused = Store::open_at(Arc::new(at(&|options| options.key = None))).unwrap_err();
    assert!(format!("{refused:?}").contains("403"), "{refused:?}");
    let wrong = |options: &mut S3Options| options.key.as_mut().unwrap().secret = "0".repeat(64);
    let refused = at(&wrong).publish(&name, b"mine").unwrap_err();
    assert!(format!("{refused:?}").contains("AccessDenied"), "{refused:?}");
    assert!(!format!("{:?}", at(&|_| {})).contains(&cluster.secret()), "a secret is shown");
}
