// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A tree that is in use, loader and C library included, while it changes a thousand times: no name is ever missing, no
//! program ever fails to start, and no reader sees two files in a combination that the order of a switch rules out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_store::checkout::Mode;
use evenkeel_tests::{Fixture, Place, Tree, noise};

const SWITCHES: u64 = 1000;
/// Between two looks of a watcher: what is watched needs the processor, too.
const PAUSE: Duration = Duration::from_micros(200);
/// Where the tree has the loader, whatever this machine calls it.
const LOADER: &str = "lib64/loader.so";

/// Copies a program with everything that it loads.
fn copy_program(tree: &Tree) {
    let program = ["/bin/true", "/usr/bin/true"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    let needs = Command::new("ldd").arg(program).output().expect("ldd, which this test needs");
    let needs = String::from_utf8(needs.stdout).unwrap();
    let paths = needs.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    for path in paths {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        let place = if name.starts_with("ld") { LOADER.to_owned() } else { format!("lib/{name}") };
        tree.file(place.as_str(), std::fs::read(path).unwrap()).mode(place.as_str(), 0o755);
    }
    tree.file("bin/true", std::fs::read(program).unwrap()).mode("bin/true", 0o755);
}

/// The content that is one of two, and of two readers' files which is which.
fn watched(version: u64) -> Vec<u8> {
    [noise(version, 60_000 + usize::try_from(version).unwrap() * 5000), version.to_string().into_bytes()].concat()
}

/// The tree as version 0 or 1: every file differs, and each version has a file that the other lacks.
fn make(tree: &Tree, version: u64) {
    for name in ["bin/true", LOADER] {
        pad(&tree.path(name), version);
    }
    for library in std::fs::read_dir(tree.path("lib")).unwrap() {
        pad(&library.unwrap().path(), version);
    }
    tree.file("lib/libwatched.so", watched(version)).file("pair/a", watched(version)).file("pair/b", watched(version));
    tree.file("current", format!("only/{version}"));
    let _ = std::fs::remove_dir_all(tree.path("only"));
    tree.file(format!("only/{version}"), watched(version));
}

/// Bytes after the end of a program do not matter to it.
fn pad(path: &Path, version: u64) {
    const PADDING: u64 = 64;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let is_padded = version == 0 && len % 2 == 1;
    file.set_len(if version == 1 { len + PADDING + 1 - len % 2 } else { len - u64::from(is_padded) * PADDING })
        .unwrap();
}

/// Starts the program over and over, in processes that never have a file of the tree open for writing.
fn start_running(root: &Path, dir: &Path, number: u32) -> (Child, PathBuf) {
    let log = dir.join(format!("runs-{number}"));
    let script = format!(
        "n=0; while [ ! -e stop ]; do \"$0/{LOADER}\" --library-path \"$0/lib\" \"$0/bin/true\" || echo failed; \
         n=$((n+1)); sleep 0.01; done; echo $n runs"
    );
    let out = std::fs::File::create(&log).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(root).current_dir(dir).stdin(Stdio::null());
    let child = command.stderr(out.try_clone().unwrap()).stdout(out).spawn().unwrap();
    (child, log)
}

/// What readers compare with: switches that have begun, and that have ended. Number `n` makes version `n % 2`.
struct Clock {
    begun: AtomicU64,
    ended: AtomicU64,
    stop: AtomicBool,
}

impl Clock {
    fn goes_on(&self) -> bool {
        std::thread::sleep(PAUSE);
        !self.stop.load(Ordering::Relaxed)
    }

    /// Looks while at most one switch is under way: gives the version that this switch makes, and what was seen.
    fn look<T>(&self, look: impl FnOnce() -> T) -> Option<(u64, T)> {
        let ended = self.ended.load(Ordering::SeqCst);
        let seen = look();
        let begun = self.begun.load(Ordering::SeqCst);
        (begun - ended <= 1).then_some((begun % 2, seen))
    }
}

fn read(root: &Path, name: &str) -> Vec<u8> {
    std::fs::read(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The version that a file has, which is wholly one of them.
fn version(root: &Path, name: &str, versions: &[Vec<u8>; 2]) -> u64 {
    let found = read(root, name);
    versions.iter().position(|version| *version == found).unwrap_or_else(|| panic!("{name} is torn")) as u64
}

/// Every name is always there, and every file is one version. Gives the number of looks.
fn watch_names(root: &Path, versions: &[Vec<u8>; 2], clock: &Clock) -> u64 {
    let names: Vec<String> = ["bin", "lib", "lib64", "pair"]
        .into_iter()
        .flat_map(|dir| std::fs::read_dir(root.join(dir)).unwrap().map(move |entry| (dir, entry.unwrap().file_name())))
        .map(|(dir, name)| format!("{dir}/{}", name.to_str().unwrap()))
        .collect();
    let mut looks = 0;
    while clock.goes_on() {
        for name in &names {
            std::fs::File::open(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        version(root, "lib/libwatched.so", versions);
        looks += 1;
    }
    looks
}

/// Of two files that are replaced, the first by name is replaced first: whoever reads them the other way round and finds
/// the new second one finds the new first one. Gives how often that was put to the test.
fn watch_pair(root: &Path, versions: &[Vec<u8>; 2], clock: &Clock) -> u64 {
    let mut tests = 0;
    while clock.goes_on() {
        let looked = clock.look(|| (version(root, "pair/b", versions), version(root, "pair/a", versions)));
        if let Some((new, (second, first))) = looked
            && second == new
        {
            assert_eq!(first, new, "`pair/b` is new and `pair/a` is old");
            tests += 1;
        }
    }
    tests
}

/// Additions come before replacements and removals after them: what a file names is there, before as well as after that
/// file is replaced. Gives how often that was put to the test.
fn watch_named(root: &Path, clock: &Clock) -> u64 {
    let mut tests = 0;
    while clock.goes_on() {
        let looked = clock.look(|| {
            let named = String::from_utf8(read(root, "current")).unwrap();
            let opened = std::fs::File::open(root.join(&named)).map_err(|e| e.kind());
            (named, opened.is_ok(), opened.err(), String::from_utf8(read(root, "current")).unwrap())
        });
        let Some((new, (named, is_there, error, after))) = looked else { continue };
        if named == format!("only/{new}") {
            assert!(is_there, "{named} is named before it is there: {error:?}");
        } else if !is_there {
            assert_eq!(error, Some(ErrorKind::NotFound));
            assert_ne!(after, named, "{named} has gone and is named still");
        }
        tests += 1;
    }
    tests
}

#[test]
fn a_tree_with_its_own_libc_runs_through_a_thousand_switches() {
    let fixture = Fixture::new();
    copy_program(&fixture.tree);
    let snapshots = [0, 1].map(|version| {
        make(&fixture.tree, version);
        fixture.commit_new()
    });
    let mut place = Place::new(&fixture, "server");
    // In memory where that can be: a thousand switches that wait for a disk take minutes, and this is about names.
    let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    (place.root, place.state) = (memory.path().join("server"), memory.path().join("state"));
    place.checkout_exactly(&snapshots[0]);
    let versions = [watched(0), watched(1)];
    let clock = Clock { begun: AtomicU64::new(0), ended: AtomicU64::new(0), stop: AtomicBool::new(false) };
    let running: Vec<(Child, PathBuf)> =
        (0..1).map(|number| start_running(&place.root, fixture.dir(), number)).collect();
    let (looks, pairs, named) = std::thread::scope(|scope| {
        let (root, versions, clock) = (place.root.as_path(), &versions, &clock);
        let watchers = [
            scope.spawn(move || watch_names(root, versions, clock)),
            scope.spawn(move || watch_pair(root, versions, clock)),
            scope.spawn(move || watch_named(root, clock)),
        ];
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 1..=SWITCHES {
                clock.begun.store(number, Ordering::SeqCst);
                let report = place.checkout(&snapshots[usize::try_from(number % 2).unwrap()], Mode::Full);
                assert!(report.in_sync && report.areas[0].changes.len() >= 7, "{:?}", report.areas[0].counts);
                clock.ended.store(number, Ordering::SeqCst);
                if watchers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                    break;
                }
            }
        }));
        clock.stop.store(true, Ordering::Relaxed);
        std::fs::write(fixture.dir().join("stop"), "").unwrap();
        let found = watchers.map(|watcher| watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (found[0], found[1], found[2])
    });
    let mut runs = 0;
    for (mut child, log) in running {
        assert!(child.wait().unwrap().success());
        let said = std::fs::read_to_string(log).unwrap();
        let number = said.strip_suffix(" runs\n").and_then(|number| number.parse::<u64>().ok());
        runs += number.unwrap_or_else(|| panic!("a program did not start: {said}"));
    }
    println!("{runs} runs, {looks} looks at every name, {pairs} at pairs, {named} at what is named");
    assert!(runs > 500 && looks > 500 && pairs > 100 && named > 100, "it was not put to the test");
    place.checkout_exactly(&snapshots[0]);
}
