// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The server against clients that mean it no good, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "makes files in temporary directories of its own")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_serve::{Handle, Limits, LogFormat, Options, Secrets, Server};

struct Serving {
    dir: tempfile::TempDir,
    address: SocketAddr,
    metrics_address: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    fn start(limits: Limits) -> Serving {
        Serving::logging(limits, None)
    }

    fn logging(limits: Limits, log: Option<(Box<dyn Write + Send>, LogFormat)>) -> Serving {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("format"), "0123456789").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let root = dir.path().to_owned();
        let secrets = Secrets::default();
        let metrics = TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics_address = metrics.local_addr().unwrap();
        let options = Options { root, listen: vec![listener], metrics: Some(metrics), secrets, limits, log };
        let server = Server::new(options).unwrap();
        let handle = server.handle();
        let thread = Some(std::thread::spawn(move || server.run().unwrap()));
        Serving { dir, address, metrics_address, handle, thread }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// All that comes back for some bytes.
    fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes.as_ref()).unwrap();
        rest(&mut stream)
    }

    fn get(&self, target: &str, lines: &str) -> String {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n"))
    }
}

impl Serving {
    /// One of the numbers for Prometheus.
    fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.metrics_address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let text = rest(&mut stream);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("evenkeel_serve_{name} ")));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.handle.stop();
        self.thread.take().map(JoinHandle::join);
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn small() -> Limits {
    let short = Duration::from_millis(500);
    Limits { header: short, idle: short, write: short, goodbye: Duration::from_secs(5), ..Limits::default() }
}

#[test]
fn ranges_and_conditions_on_the_wire() {
    let serving = Serving::start(Limits::default());
    let whole = serving.get("/format", "");
    assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with("\r\n\r\n0123456789"), "{whole}");
    assert!(
        whole.contains("\r\nContent-Length: 10\r\n") && whole.contains("\r\nCache-Control: no-cache\r\n"),
        "{whole}"
    );
    let (_, tag) = whole.split_once("ETag: ").unwrap();
    let tag = tag.split("\r\n").next().unwrap();
    let part = serving.get("/format", &format!("Range: bytes=2-4\r\nIf-Range: {tag}\r\n"));
    assert!(part.starts_with("HTTP/1.1 206 ") && part.contains("Content-Range: bytes 2-4/10\r\n"), "{part}");
    assert!(part.contains("Content-Length: 3\r\n") && part.ends_with("\r\n\r\n234"), "{part}");
    assert!(serving.get("/format", "Range: bytes=2-4\r\nIf-Range: \"x\"\r\n").starts_with("HTTP/1.1 200 "));
    let past = serving.get("/format", "Range: bytes=10-\r\n");
    assert!(past.starts_with("HTTP/1.1 416 ") && past.contains("Content-Range: bytes */10\r\n"), "{past}");
    assert!(serving.get("/format", &format!("If-None-Match: {tag}\r\n")).ends_with("\r\n\r\n"));
    let head = serving.ask("HEAD /format HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(head.contains("Content-Length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn nothing_but_objects_is_there() {
    let serving = Serving::start(Limits::default());
    let id = "ab".repeat(32);
    std::fs::create_dir_all(serving.dir.path().join("snapshots")).unwrap();
    std::os::unix::fs::symlink("../secret", serving.dir.path().join(format!("snapshots/{id}"))).unwrap();
    let linked = format!("/snapshots/{id}");
    for target in [
        "/",
        "/secret",
        "/../secret",
        "/snapshots/../secret",
        "/%2e%2e/secret",
        "/format/",
        "//format",
        "/format?x",
        &linked,
    ] {
        let answer = serving.get(target, "");
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("Content-Length: "), "{target}: {answer}");
    }
    for request in [
        "GET /form\0at HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /format HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET /format HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "nonsense\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        assert!(serving.ask(request).starts_with("HTTP/1.1 400 "), "{request:?}");
    }
    assert!(serving.ask("PUT /format HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 405 "));
    let long = format!("GET /format HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    assert!(serving.ask(long).starts_with("HTTP/1.1 431 "));
    let many = format!("GET /format HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100));
    assert!(serving.ask(many).starts_with("HTTP/1.1 431 "));
}

#[test]
fn requests_one_behind_the_other_are_answered_in_order() {
    let serving = Serving::start(Limits::default());
    let one = |range: &str| format!("GET /format HTTP/1.1\r\nHost: a\r\nRange: bytes={range}\r\n");
    let text = serving.ask(format!("{}\r\n{}\r\n{}Connection: close\r\n\r\n", one("0-0"), one("1-1"), one("2-2")));
    let bodies: Vec<&str> = text.split("\r\n\r\n").skip(1).map(|part| &part[..1]).collect();
    assert_eq!(bodies, ["0", "1", "2"], "{text}");
}

#[test]
fn who_is_slow_is_cut_off() {
    let serving = Serving::start(small());
    let start = Instant::now();
    let mut slow = serving.connect();
    // A byte every 100 ms never lets a single read wait long; all of them together do.
    let mut answer = String::new();
    for byte in b"GET /format HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle() {
        if slow.write_all(&[*byte]).is_err() || start.elapsed() > Duration::from_secs(2) {
            answer = rest(&mut slow);
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let mut silent = serving.connect();
    assert_eq!(rest(&mut silent), "");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn who_takes_nothing_is_cut_off() {
    let serving = Serving::start(small());
    std::fs::File::create(serving.dir.path().join("format")).unwrap().set_len(1 << 30).unwrap();
    let mut stream = serving.connect();
    stream.write_all(b"GET /format HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let mut taken = 0u64;
    let mut piece = vec![0; 1 << 20];
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        taken += len as u64;
    }
    assert!(taken < 1 << 29, "{taken}");
}

/// Who is being answered keeps the place, from one address too.
#[test]
fn too_many_connections_are_turned_away_and_places_become_free() {
    let serving = Serving::start(Limits { per_address: 3, ..Limits::default() });
    let object = serving.dir.path().join("format");
    std::fs::File::options().write(true).open(&object).unwrap().set_len(1 << 30).unwrap();
    let mut held: Vec<TcpStream> = (0..3).map(|_| serving.connect()).collect();
    for stream in &mut held {
        stream.write_all(b"GET /format HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    let mut more = serving.connect();
    assert!(rest(&mut more).starts_with("HTTP/1.1 503 "));
    std::fs::File::options().write(true).open(&object).unwrap().set_len(10).unwrap();
    drop(held);
    let start = Instant::now();
    while !serving.get("/format", "").starts_with("HTTP/1.1 200 ") {
        assert!(start.elapsed() < Duration::from_secs(10), "no place becomes free");
    }
}

/// Machines behind one address were refused while connections of it were idle.
#[test]
fn who_waits_longest_gives_way_to_others_of_the_same_address() {
    let serving = Serving::start(Limits { per_address: 3, ..Limits::default() });
    let mut held: Vec<TcpStream> = (0..3).map(|_| serving.connect()).collect();
    for stream in &mut held {
        stream.write_all(b"GET /format HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"0123456789") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    }
    assert!(serving.get("/format", "").starts_with("HTTP/1.1 200 "));
    let is_gone = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.read(&mut [0]), Ok(0))
    };
    assert_eq!(held.iter().filter(|stream| is_gone(stream)).count(), 1, "one, and one only, gives way");
    assert_eq!(serving.metric("evicted_connections_total"), 1);
    assert_eq!(serving.metric("refused_connections_total"), 0);
}

/// A log that takes nothing, until it is told to.
struct Stalled(std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<Vec<u8>>);

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        self.1.send(bytes.to_vec()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whoever reads the log through a pipe and stops held up every request.
#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    const REQUESTS: u64 = 600;
    let (go_on, stalled) = std::sync::mpsc::channel();
    let (send, lines) = std::sync::mpsc::channel();
    let serving = Serving::logging(Limits::default(), Some((Box::new(Stalled(stalled, send)), LogFormat::Text)));
    let one = "GET /format HTTP/1.1\r\nHost: a\r\n";
    let all = format!("{one}\r\n").repeat(usize::try_from(REQUESTS).unwrap() - 1);
    let answers = serving.ask(format!("{all}{one}Connection: close\r\n\r\n"));
    assert_eq!(answers.matches("HTTP/1.1 200 ").count() as u64, REQUESTS);
    let unlogged = serving.metric("unlogged_total");
    assert!(unlogged > 0 && unlogged < REQUESTS, "{unlogged}");
    drop(go_on);
    drop(serving);
    assert_eq!(lines.iter().count() as u64, REQUESTS - unlogged, "what had room is written at the end");
}

/// 64 KiB had to be taken within the time for a piece, which is faster than the lowest rate.
#[test]
fn who_is_slow_and_above_the_lowest_rate_is_served() {
    let write = Duration::from_secs(2);
    let serving = Serving::start(Limits { write, ..Limits::default() });
    std::fs::File::create(serving.dir.path().join("format")).unwrap().set_len(1 << 30).unwrap();
    let mut stream = serving.connect();
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 16 << 10).unwrap();
    stream.write_all(b"GET /format HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let start = Instant::now();
    while start.elapsed() < 4 * write {
        stream.read_exact(&mut [0; 2 << 10]).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    // More than can have been under way.
    let mut left = 32 << 20;
    let mut piece = vec![0; 1 << 20];
    while left > 0 {
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "cut off with {left} bytes to go");
        left -= len.min(left);
    }
}

/// All places are taken by clients that say nothing, or half of something: who asks is served all the same.
#[test]
fn who_waits_longest_gives_way() {
    let serving = Serving::start(Limits { connections: 4, ..Limits::default() });
    let mut held: Vec<TcpStream> = (0..4).map(|_| serving.connect()).collect();
    held[1].write_all(b"GET /format HTTP/1.1\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(serving.get("/format", "").starts_with("HTTP/1.1 200 "));
    assert_eq!(rest(&mut held[0]), "", "the first has waited longest");
    // The one that had begun to ask still may.
    held[1].write_all(b"Host: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(rest(&mut held[1]).starts_with("HTTP/1.1 200 "));
}

/// Who is being answered keeps the place: then there is none.
#[test]
fn who_is_being_answered_does_not_give_way() {
    let serving = Serving::start(Limits { connections: 2, ..Limits::default() });
    std::fs::File::create(serving.dir.path().join("format")).unwrap().set_len(1 << 30).unwrap();
    let mut busy: Vec<TcpStream> = (0..2).map(|_| serving.connect()).collect();
    for stream in &mut busy {
        stream.write_all(b"GET /format HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    assert!(rest(&mut serving.connect()).starts_with("HTTP/1.1 503 "));
    busy[0].read_exact(&mut [0; 1 << 16]).unwrap();
}

#[test]
fn nothing_is_changed_by_any_method() {
    let serving = Serving::start(Limits::default());
    let ask = |method: &str| serving.ask(format!("{method} /format HTTP/1.1\r\nHost: a\r\n\r\n"));
    for method in ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "MKCOL", "COPY", "MOVE", "PROPFIND", "get"] {
        let answer = ask(method);
        assert!(
            answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nAllow: GET, HEAD\r\n"),
            "{method}: {answer}"
        );
    }
    // With a body, which is not read as the next request.
    let body = "GET /format HTTP/1.1\r\nHost: a\r\n\r\n";
    for method in ["PUT", "POST", "PATCH"] {
        let answer = serving
            .ask(format!("{method} /format HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.matches("HTTP/1.1 ").count() == 1, "{method}: {answer}");
    }
    assert_eq!(std::fs::read(serving.dir.path().join("format")).unwrap(), b"0123456789");
}

#[test]
fn a_stop_ends_idle_connections_at_once() {
    let serving = Serving::start(Limits::default());
    let mut idle = serving.connect();
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    serving.handle.stop();
    assert_eq!(rest(&mut idle), "");
    drop(serving);
    assert!(start.elapsed() < Duration::from_secs(5));
}
