// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `serve`, and the program itself as its client: with certificates of an authority of the test's own, tokens and signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::harness::World;

const TOKEN: &str = "a-token-of-the-test";

/// A running `serve`; killed when dropped.
struct Serving {
    child: Child,
    address: String,
    metrics: String,
}

impl Serving {
    fn start(world: &World, args: &[&str]) -> Serving {
        let common = ["serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--access-log", "log"];
        let mut command = world.command(&[&common, args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut next = |prefix: &str| {
            let line = lines.next().unwrap_or_else(|| panic!("serve says nothing of {prefix}"));
            line.strip_prefix(prefix).unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        let (address, metrics) = (next("serving "), next("metrics "));
        Serving { child, address, metrics }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes an authority, and a certificate of it for 127.0.0.1 and for a client.
fn certificates(world: &World) {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 \
                  -subj /CN=authority -addext basicConstraints=critical,CA:TRUE\n\
                  for who in server client; do\n\
                  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $who.key -out $who.csr -subj /CN=$who\n\
                  printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > $who.ext\n\
                  openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile $who.ext -out $who.pem\n\
                  done";
    let made = Command::new("sh").args(["-ec", script]).current_dir(world.path("")).output().unwrap();
    assert!(made.status.success(), "{}", world.tell(&made));
}

#[test]
fn a_checkout_over_http() {
    let world = World::with_history();
    let serving = Serving::start(&world, &[]);
    let done = world.output(&["--store", &serving.address, "checkout", "@latest", "--area", "os=r"]);
    assert!(done.status.success(), "{}", world.tell(&done));
    assert_eq!(world.read("r/etc/app.conf"), world.read("m/etc/app.conf"));
    let log = world.read("log");
    assert!(log.contains(" GET /format 200 "), "{log}");
    let status = |line: &str| line.split(' ').nth(4).unwrap().to_owned();
    let bad = log.lines().find(|line| !status(line).starts_with('2') && !line.contains(" /deltas/"));
    assert_eq!(bad, None);

    let host = serving.metrics.trim_start_matches("http://").trim_end_matches("/metrics");
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("# TYPE evenkeel_serve_requests_total counter\n"));
}

#[test]
fn token_and_certificates_are_asked_for_and_read_again() {
    let world = World::with_history();
    certificates(&world);
    world.write("tokens", &format!("# fleet\n{TOKEN}\n"));
    world.write("token", &format!("{TOKEN}\n"));
    let args =
        ["--tls-cert", "server.pem", "--tls-key", "server.key", "--client-ca", "ca.pem", "--token-file", "tokens"];
    let mut serving = Serving::start(&world, &args);
    assert!(serving.address.starts_with("https://"));
    let log_of = |http: &str| {
        world.write("e.toml", &format!("[http]\nca-file = \"ca.pem\"\n{http}"));
        world.output(&["--config", "e.toml", "--store", &serving.address, "log", "--oneline"])
    };
    let certificate = "client-cert = \"client.pem\"\nclient-key = \"client.key\"\n";
    let both = format!("{certificate}token-file = \"token\"\n");
    let done = log_of(&both);
    assert!(done.status.success(), "{}", world.tell(&done));
    for (code, given) in [(17, "token-file = \"token\"\n"), (16, certificate)] {
        let failed = log_of(given);
        assert_eq!(failed.status.code(), Some(code), "{}", world.tell(&failed));
        assert!(!world.tell(&failed).contains(TOKEN));
    }

    world.write("tokens", "another-token-of-the-test\n");
    serving.signal("HUP");
    let start = std::time::Instant::now();
    while log_of(&both).status.success() {
        assert!(start.elapsed().as_secs() < 20, "the old token is still good");
    }
    assert!(!world.read("log").contains(TOKEN));
    serving.signal("TERM");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_no_store_is_not_served() {
    let world = World::with_tree();
    let failed = world.output(&["--store", "m", "serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(failed.status.code(), Some(10), "{}", world.tell(&failed));
    world.write("tokens", "\n");
    let failed = world.output(&["serve", "--listen", "127.0.0.1:0", "--token-file", "tokens"]);
    assert_eq!(failed.status.code(), Some(2), "{}", world.tell(&failed));
}
