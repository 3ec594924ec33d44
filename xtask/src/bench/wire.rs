// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an update costs on a line: bytes and requests as a line before the server counts them, against other ways to bring
//! a tree from one release to the next; and how far and thin lines slow it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::cases::Bench;
use super::line::{Line, Speed};
use super::measure::{Timed, mb_of_kib, measure};
use super::report::mb;
use crate::shell::{Cmd, quoted};
use crate::{Result, host};

/// nginx below a directory, with a log that has a line for each request.
struct Server {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    /// Serves `root`; its own files go to `dir`.
    fn start(root: &Path, dir: &Path) -> Result<Server> {
        let failed = |error: std::io::Error| format!("cannot start nginx in {}: {error}", dir.display());
        std::fs::create_dir_all(dir).map_err(failed)?;
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(failed)?.port();
        let log = dir.join("requests");
        let text = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/errors; events {{}}\n\
             http {{ access_log {0}/requests; client_body_temp_path {0}/a; proxy_temp_path {0}/b;\n\
             fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; scgi_temp_path {0}/e; keepalive_requests 100000;\n\
             server {{ listen 127.0.0.1:{port}; root {1}; }} }}\n",
            dir.display(),
            root.display(),
        );
        let config = dir.join("nginx.conf");
        std::fs::write(&config, text).map_err(failed)?;
        let process = std::process::Command::new("nginx").arg("-c").arg(&config).spawn().map_err(failed)?;
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(format!("nginx does not answer; see {}", dir.join("errors").display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Server { process, port, log })
    }

    fn line(&self, speed: Speed) -> Result<Line> {
        Line::to(self.port, speed).map_err(|error| format!("cannot make a line: {error}"))
    }

    fn requests(&self) -> usize {
        std::fs::read_to_string(&self.log).map_or(0, |text| text.lines().count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One row.
struct Row {
    what: String,
    bytes: u64,
    requests: Option<usize>,
    seconds: f64,
    peak_mb: f64,
    note: String,
}

impl Row {
    fn render(&self) -> String {
        let requests = self.requests.map(|count| count.to_string()).unwrap_or_default();
        let Row { what, bytes, seconds, peak_mb, note, .. } = self;
        format!("| {what} | {:.1} | {requests} | {seconds:.1} | {peak_mb:.0} | {note} |\n", mb(*bytes))
    }
}

/// The table. Peers that are not installed are left out.
///
/// # Errors
/// A command failed; there is no second release.
pub fn wire(bench: &Bench) -> Result<String> {
    let [first, second, ..] = &bench.releases[..] else {
        return Err("needs a second --corpus, a later release of the first".to_owned());
    };
    host::need(&[("nginx", "nginx-light"), ("curl", "curl")])?;
    let (first, second) = (first.root.as_path(), second.root.as_path());
    let mut text =
        "| way | MB on the wire | requests | s | peak MB | note |\n|---|---:|---:|---:|---:|---|\n".to_owned();
    let mut add = |row: Row| {
        eprint!("{}", row.render());
        text.push_str(&row.render());
    };
    let store = Ours::new(bench, first, second)?;
    add(store.update("evenkeel, chunks alone", Speed::default(), "")?);
    for effort in ["fast", "default"] {
        let note = store.make(effort)?;
        add(store.update(&format!("evenkeel, delta of effort {effort}"), Speed::default(), &note)?);
    }
    for milliseconds in [50, 300] {
        let round_trip = Duration::from_millis(milliseconds);
        let speed = Speed { round_trip, bytes_per_second: 2_500_000 };
        let ours = store.update(&format!("the same, {milliseconds} ms, 20 Mbit/s"), speed, "")?;
        let alone = store.one_file(ours.bytes, speed)?;
        add(Row { note: format!("{:.2} × one file of that length ({alone:.1} s)", ours.seconds / alone), ..ours });
    }
    drop(store);
    for peer in [rsync, casync, ostree, patches] {
        if let Some(row) = peer(bench, first, second)? {
            add(row);
        }
        bench.image.trim();
    }
    Ok(text)
}

/// A store with both releases behind nginx.
struct Ours<'b> {
    bench: &'b Bench,
    dir: PathBuf,
    server: Server,
}

impl Ours<'_> {
    fn new<'b>(bench: &'b Bench, first: &Path, second: &Path) -> Result<Ours<'b>> {
        let dir = bench.image.path().join("wire");
        bench.init(&dir, &[])?;
        for root in [first, second] {
            bench.commit(&dir, root).read()?;
        }
        let server = Server::start(&dir.join("store"), &dir.join("nginx"))?;
        Ok(Ours { bench, dir, server })
    }

    fn make(&self, effort: &str) -> Result<String> {
        let deltas = self.dir.join("store/deltas");
        if deltas.is_dir() {
            std::fs::remove_dir_all(&deltas).map_err(|error| format!("cannot remove {}: {error}", deltas.display()))?;
        }
        let sample = measure(&Timed::new(self.bench.delta(&self.dir, effort)), &self.dir)?;
        let (seconds, cpu) = (sample.seconds, sample.cpu_seconds);
        Ok(format!("made in {seconds:.0} s ({cpu:.0} s of CPU), {:.0} MB", mb_of_kib(sample.peak_kib)))
    }

    /// A server that is at the first release becomes the second one, over a line.
    fn update(&self, what: &str, speed: Speed, note: &str) -> Result<Row> {
        let run = self.dir.join("run");
        let line = self.server.line(speed)?;
        let checkout = |store: &str, snapshot: &str| {
            let options = ["--progress", "none", "--quiet", "--store"];
            let cmd = Cmd::new(&self.bench.binary).args(options).arg(store).arg("--state").arg(run.join("state"));
            cmd.args(["checkout", snapshot, "--full", "--max-delete", "100%", "--area"])
                .arg(format!("root={}", run.join("tree").display()))
        };
        std::fs::create_dir_all(run.join("tree")).map_err(|error| format!("cannot make {}: {error}", run.display()))?;
        // From the directory, so that nothing of it counts.
        checkout(&self.dir.join("store").to_string_lossy(), "@latest~").read()?;
        let (bytes, requests) = (line.bytes(), self.server.requests());
        let sample = measure(&Timed::new(checkout(&line.url(), "@latest")), &self.dir)?;
        let row = Row {
            what: what.to_owned(),
            bytes: line.bytes() - bytes,
            requests: Some(self.server.requests() - requests),
            seconds: sample.seconds,
            peak_mb: mb_of_kib(sample.peak_kib),
            note: note.to_owned(),
        };
        std::fs::remove_dir_all(&run).map_err(|error| format!("cannot remove {}: {error}", run.display()))?;
        self.bench.image.trim();
        Ok(row)
    }

    /// Seconds for so many bytes as one file.
    fn one_file(&self, bytes: u64, speed: Speed) -> Result<f64> {
        let file = self.dir.join("store/one-file");
        let made = File::create(&file).and_then(|file| file.set_len(bytes));
        made.map_err(|error| format!("cannot make {}: {error}", file.display()))?;
        let line = self.server.line(speed)?;
        let start = Instant::now();
        Cmd::new("curl").args(["-sf", "-o", "/dev/null"]).arg(format!("{}/one-file", line.url())).read()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// A tree at the first release, in an empty directory.
fn tree_at(bench: &Bench, first: &Path) -> Result<PathBuf> {
    let tree = bench.image.path().join("peer/tree");
    if tree.exists() {
        std::fs::remove_dir_all(&tree).map_err(|error| format!("cannot remove {}: {error}", tree.display()))?;
    }
    std::fs::create_dir_all(tree.parent().expect("below the image")).map_err(|error| error.to_string())?;
    Cmd::new("cp").arg("-a").arg(first).arg(&tree).read()?;
    Ok(tree)
}

fn rsync(bench: &Bench, first: &Path, second: &Path) -> Result<Option<Row>> {
    let tree = tree_at(bench, first)?;
    let start = Instant::now();
    let options = ["-aHAX", "--delete", "--no-whole-file", "-z", "--zc=zstd", "--zl=3", "--stats"];
    let told = Cmd::new("rsync").args(options).arg(second.join("")).arg(tree.join("")).read()?;
    let number = |line: &str| {
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap_or_default()
    };
    let bytes = told.lines().filter(|line| line.starts_with("Total bytes")).map(number).sum();
    let (seconds, note) = (start.elapsed().as_secs_f64(), "both directions, as it tells".to_owned());
    Ok(Some(Row { what: "rsync -z, zstd 3".to_owned(), bytes, requests: None, seconds, peak_mb: 0.0, note }))
}

fn casync(bench: &Bench, first: &Path, second: &Path) -> Result<Option<Row>> {
    if host::find("casync").is_none() {
        return Ok(None);
    }
    let tree = tree_at(bench, first)?;
    let dir = bench.image.path().join("peer");
    let store = format!("--store={}", dir.join("served/s.castr").display());
    std::fs::create_dir_all(dir.join("served")).map_err(|error| error.to_string())?;
    Cmd::new("casync").args(["make", &store]).arg(dir.join("served/2.caidx")).arg(second).read()?;
    let server = Server::start(&dir.join("served"), &dir.join("nginx"))?;
    let line = server.line(Speed::default())?;
    let seed = format!("--seed={}", tree.display());
    let far = format!("--store={}/s.castr", line.url());
    let extract = Cmd::new("casync").args(["extract", &far, &seed]).arg(format!("{}/2.caidx", line.url()));
    let sample = measure(&Timed::new(extract.arg(dir.join("out"))), &dir)?;
    let row = Row {
        what: "casync extract, the old tree as seed".to_owned(),
        bytes: line.bytes(),
        requests: Some(server.requests()),
        seconds: sample.seconds,
        peak_mb: mb_of_kib(sample.peak_kib),
        note: "into a new directory".to_owned(),
    };
    drop((line, server));
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    Ok(Some(row))
}

fn ostree(bench: &Bench, first: &Path, second: &Path) -> Result<Option<Row>> {
    if host::find("ostree").is_none() {
        return Ok(None);
    }
    let dir = bench.image.path().join("peer");
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let in_repo = |name: &str, words: &[&str]| {
        let (command, rest) = words.split_first().expect("a command");
        Cmd::new("ostree").arg(command).arg(format!("--repo={}", dir.join(name).display())).args(rest)
    };
    in_repo("served", &["init", "--mode=archive"]).read()?;
    let commit = |root: &Path| {
        in_repo("served", &["commit", "--branch=b", "-s", "b"]).arg(format!("--tree=dir={}", root.display())).read()
    };
    let old = commit(first)?;
    in_repo("here", &["init", "--mode=bare"]).read()?;
    in_repo("here", &["pull-local", &dir.join("served").to_string_lossy(), "b"]).read()?;
    let new = commit(second)?;
    let start = Instant::now();
    let (old, new) = (old.trim(), new.trim());
    in_repo("served", &["static-delta", "generate", "--min-fallback-size=0", "--from", old, "--to", new]).read()?;
    let made = start.elapsed().as_secs_f64();
    in_repo("served", &["summary", "-u"]).read()?;
    let server = Server::start(&dir.join("served"), &dir.join("nginx"))?;
    let line = server.line(Speed::default())?;
    in_repo("here", &["remote", "add", "--no-gpg-verify", "far", &line.url(), "b"]).read()?;
    let sample = measure(&Timed::new(in_repo("here", &["pull", "--require-static-deltas", "far", "b"])), &dir)?;
    let row = Row {
        what: "ostree pull, static delta".to_owned(),
        bytes: line.bytes(),
        requests: Some(server.requests()),
        seconds: sample.seconds,
        peak_mb: mb_of_kib(sample.peak_kib),
        note: format!("made in {made:.0} s; no checkout"),
    };
    drop((line, server));
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    Ok(Some(row))
}

/// The yardstick: each new file by itself, with the old one of the same path, or of the same path but for versions, before
/// it.
fn patches(bench: &Bench, first: &Path, second: &Path) -> Result<Option<Row>> {
    let dir = bench.image.path().join("peer");
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let script = format!(
        r#"set -e; cd {first}; find . -type f | sort > {dir}/old; cd {second}
        strip() {{ sed -E 's/[0-9][0-9._+~:-]*/#/g'; }}
        paste -d'\t' <(strip < {dir}/old) {dir}/old | sort -u -k1,1 -t$'\t' > {dir}/stripped
        find . -type f | while IFS= read -r f; do cmp -s "$f" {first}/"$f" || echo "$f"; done > {dir}/new
        export first={first}; one() {{ b="$first/$1"
          [ -f "$b" ] || b="$first/$(awk -F'\t' -v k="$(printf %s "$1" | sed -E 's/[0-9][0-9._+~:-]*/#/g')" '$1 == k {{ print $2; exit }}' {dir}/stripped)"
          if [ -f "$b" ]; then zstd -19 --long=27 -q -c --patch-from="$b" "$1" | wc -c; else zstd -19 --long=27 -q -c "$1" | wc -c; fi; }}
        export -f one; tr '\n' '\0' < {dir}/new | xargs -0 -n 1 -P 2 bash -c 'one "$0"' | awk '{{ s += $1 }} END {{ print s }}'"#,
        first = quoted(&first.to_string_lossy()),
        second = quoted(&second.to_string_lossy()),
        dir = quoted(&dir.to_string_lossy()),
    );
    let start = Instant::now();
    let told = Cmd::new("bash").args(["-c", &script]).read()?;
    let bytes = told.trim().parse().map_err(|_| format!("the patches told '{}'", told.trim()))?;
    let note = "payloads only, no names or metadata".to_owned();
    let what = "zstd -19 --patch-from, file by file".to_owned();
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    Ok(Some(Row { what, bytes, requests: None, seconds: start.elapsed().as_secs_f64(), peak_mb: 0.0, note }))
}
