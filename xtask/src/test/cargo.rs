// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The groups that are one cargo command each.

use std::collections::BTreeSet;

use super::Outcome;
use crate::host;
use crate::image::Image;
use crate::shell::{Cmd, target_dir};

/// Where tests that need a real file system of their own find it.
const TEST_DIR: &str = "EVENKEEL_TEST_DIR";

/// What a group may take: far more than it does on a slow machine, build included.
const MINUTES: u32 = 40;
/// What it may take where nothing is left out.
const MINUTES_LONG: u32 = 24 * 60;

/// How long each kind of operation is attacked, in seconds.
const RACE_SECONDS: &str = "EVENKEEL_RACE_SECONDS";

/// Says how much of what is usually sampled or cut short is run. What the caller has said already stays.
fn to_an_extent(mut cmd: Cmd, long: bool) -> Cmd {
    let (seconds, all) = if long { ("10", Some("all")) } else { ("2", None) };
    let wanted = [(RACE_SECONDS, Some(seconds)), ("EVENKEEL_RACES", all), ("EVENKEEL_SWEEP", all)];
    for (name, value) in wanted {
        if let (Some(value), None) = (value, std::env::var_os(name)) {
            cmd = cmd.env(name, value);
        }
    }
    cmd.at_most(if long { MINUTES_LONG } else { MINUTES })
}

/// `cargo test --workspace`, one row per test binary. One build and one set of features for all of them.
pub fn workspace(long: bool) -> Vec<(String, Outcome)> {
    let mut binaries = Binaries::default();
    let cmd = to_an_extent(Cmd::cargo().args(["test", "--workspace", "--no-fail-fast"]), long);
    let result = cmd.tee(|line| binaries.see(line)).map_err(|message| binaries.with_running(message));
    let mut rows: Vec<(String, Outcome)> = binaries.done.iter().map(Binary::row).collect();
    if let Err(message) = result
        && (!binaries.running.is_empty() || !binaries.done.iter().any(|binary| binary.failed > 0))
    {
        rows.push((String::new(), Outcome::Failed(message)));
    }
    rows
}

/// The object store that a store in a bucket is tested against, as the package registry names it.
const GARAGE: (&str, &str) = ("garage", "2.5.0");

/// The tests that need an object store: a cluster of Garage, which is built once on a machine, whatever the checkout.
pub fn garage() -> Outcome {
    let (name, version) = GARAGE;
    let root = host::cache_dir().map_or_else(|| target_dir().join("xtask"), |cache| cache.join("evenkeel-xtask"));
    let root = root.join(format!("{name}-{version}"));
    let program = host::find(name).unwrap_or_else(|| root.join("bin").join(name));
    if !program.is_file() {
        let install = Cmd::cargo().args(["install", name, "--locked", "--version", version]).arg("--root").arg(&root);
        // What the tests need and no more, hardly optimised: it is built on every new machine.
        let install = install.args(["--no-default-features", "--features", "bundled-libs,sqlite"]);
        let install = install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        // Its build directory would be ours, with other features of the same packages.
        let build = root.join("build");
        if let Err(reason) = install.env("CARGO_TARGET_DIR", &build).at_most(MINUTES).run() {
            return Outcome::LeftOut(format!("needs {name} {version}: {reason}"));
        }
        let _ = std::fs::remove_dir_all(build);
    }
    let cmd = Cmd::cargo()
        .args(["test", "--package", "evenkeel-tests", "--test", "runner", "--no-fail-fast"])
        .args(["--", "--ignored", "garage_"])
        .env("GARAGE", &program)
        .at_most(MINUTES);
    of_ignored(cmd)
}

/// Every test that a plain `cargo test` ignores, on an ext4 made for them, but for those of other groups; `slow_…` ones
/// belong to `cargo xtask stress`.
pub fn root(long: bool) -> Outcome {
    let image = match Image::ext4(&target_dir().join("xtask"), "root-tests", 4 << 30, 200_000) {
        Ok(image) => image,
        Err(reason) => return Outcome::LeftOut(reason),
    };
    if let Err(reason) = host::need(&[
        ("getfacl", "acl"),
        ("getfattr", "attr"),
        ("setcap", "libcap2-bin"),
        ("rsync", "rsync"),
        ("nginx", "nginx-light"),
        ("rpmbuild", "rpm"),
        ("caddy", "caddy"),
    ]) {
        return Outcome::LeftOut(reason);
    }
    let cmd = Cmd::cargo()
        .args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"])
        .args(["--", "--ignored", "--skip", "slow_", "--skip", "garage_"])
        .env(TEST_DIR, image.path());
    of_ignored(to_an_extent(cmd, long))
}

/// Runs tests of which there must be some.
fn of_ignored(cmd: Cmd) -> Outcome {
    let mut binaries = Binaries::default();
    let result = cmd.tee(|line| binaries.see(line)).map_err(|message| binaries.with_running(message));
    let ran: u64 = binaries.done.iter().map(|binary| binary.passed).sum();
    match result {
        Ok(()) if ran == 0 => Outcome::Failed("no test is marked for it".to_owned()),
        result => result.map(|()| format!("{ran} tests")).into(),
    }
}

/// `cargo doc` of our own crates; a broken link or a missing page is a failure.
pub fn docs() -> Outcome {
    let doc = Cmd::cargo()
        .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    doc.run().map(|()| String::new()).into()
}

/// `evenkeel demo`: the whole main job on real files in a temporary directory.
pub fn demo() -> Outcome {
    let build = Cmd::cargo().args(["build", "--package", "evenkeel"]);
    let demo = Cmd::new(target_dir().join("debug/evenkeel")).arg("demo");
    build.run().and_then(|()| demo.run()).map(|()| String::new()).into()
}

/// One test binary, as its own output tells.
struct Binary {
    name: String,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Binary {
    fn row(&self) -> (String, Outcome) {
        let Binary { name, passed, failed, ignored } = self;
        let ignored = if *ignored > 0 { format!(", {ignored} for other groups") } else { String::new() };
        let outcome = match failed {
            0 => Outcome::Passed(format!("{passed} tests{ignored}")),
            _ => Outcome::Failed(format!("{failed} of {} tests failed", passed + failed)),
        };
        (name.clone(), outcome)
    }
}

/// Reads the output of `cargo test` line by line.
#[derive(Default)]
struct Binaries {
    current: String,
    done: Vec<Binary>,
    /// Tests that cargo named because they take long.
    running: BTreeSet<String>,
}

impl Binaries {
    /// A failure, with the tests that had not ended.
    fn with_running(&self, message: String) -> String {
        match self.running.len() {
            0 => message,
            _ => format!("{message}; still running: {}", self.running.iter().cloned().collect::<Vec<_>>().join(", ")),
        }
    }

    fn see(&mut self, line: &str) {
        let line = line.trim_start();
        if let Some(rest) = line.strip_prefix("test ") {
            let name = rest.split_whitespace().next().unwrap_or_default();
            if rest.contains(" has been running for over ") {
                self.running.insert(name.to_owned());
            } else if rest.contains(" ... ") {
                self.running.remove(name);
            }
        }
        if let Some(rest) = line.strip_prefix("Running ") {
            // "unittests src/lib.rs (target/debug/deps/evenkeel_store-0123456789abcdef)"
            let file = rest.rsplit_once('/').map_or(rest, |(_, file)| file);
            self.current = file.rsplit_once('-').map_or(file, |(name, _)| name).to_owned();
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            self.current = format!("{name} examples");
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |what: &str| -> u64 {
                let field = counts.split([';', '.']).find(|field| field.trim_end().ends_with(what));
                field.and_then(|field| field.split_whitespace().next()?.parse().ok()).unwrap_or_default()
            };
            let (passed, failed, ignored) = (count(" passed"), count(" failed"), count(" ignored"));
            if passed + failed + ignored > 0 {
                self.done.push(Binary { name: std::mem::take(&mut self.current), passed, failed, ignored });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_what_cargo_prints() {
        let mut binaries = Binaries::default();
        for line in [
            "     Running unittests src/lib.rs (target/debug/deps/evenkeel_store-0123456789abcdef)",
            "test path::tests::slow has been running for over 60 seconds",
            "test path::tests::endless has been running for over 60 seconds",
            "test path::tests::slow ... ok",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "     Running unittests src/main.rs (target/debug/deps/xtask-0123)",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "   Doc-tests evenkeel_store",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            binaries.see(line);
        }
        assert_eq!(binaries.with_running("killed".into()), "killed; still running: path::tests::endless");
        let read: Vec<_> = binaries.done.iter().map(|b| (b.name.as_str(), b.passed, b.failed, b.ignored)).collect();
        assert_eq!(read, [("evenkeel_store", 12, 0, 3), ("evenkeel_store examples", 1, 2, 0)]);
    }
}
