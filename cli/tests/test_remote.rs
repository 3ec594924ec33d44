// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store on a web server: every command that reads, and how it fails.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use crate::harness::World;

/// Serves the files below `root` for as long as the tests run. What it is asked for with another method than GET or HEAD it
/// does not answer.
pub(crate) fn serve(root: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            std::thread::spawn(move || while answer(&root, &stream).is_some() {});
        }
    });
    address
}

fn answer(root: &Path, mut stream: &TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next()?;
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let (method, rest) = request.split_once(" /")?;
    let path = rest.split_once(' ')?.0;
    let Ok(bytes) = std::fs::read(root.join(path)) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
    };
    let range =
        headers.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let (status, body) = match &range {
        Some(range) => {
            let (first, last) = range.split_once('-')?;
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            let place = format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}", bytes.len());
            (place, &bytes[first..=last])
        }
        None => ("200 OK".to_owned(), &bytes[..]),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
    match method {
        "GET" => stream.write_all(body).ok(),
        "HEAD" => Some(()),
        _ => None,
    }
}

/// The same as from the directory, for every command that reads.
#[test]
fn every_reading_command() {
    let world = World::with_history();
    let url = serve(world.path("st"));
    for args in [
        &["log"] as &[&str],
        &["log", "--oneline"],
        &["show", "@latest~1"],
        &["ls", "-R", "@latest"],
        &["ls", "@latest", "os:etc", "--json"],
        &["cat", "@latest", "os:etc/app.conf"],
        &["cat", "@latest~1", "os:bin/tool"],
        &["diff", "@latest~1", "@latest"],
        &["find", "*.conf"],
        &["find", "--all", "motd"],
        &["check", "--read-data", "--quiet"],
        &["log", "00000000"],
    ] {
        let there = world.run(args);
        let far = world.run(&[args, &["--store", &url]].concat());
        assert_eq!(far, there, "{args:?}");
    }
    for args in [
        &["checkout", "@latest", "--area", "os=far"] as &[&str],
        &["verify", "--area", "os=far"],
        &["explain", "--area", "os=far", "far/etc/app.conf"],
    ] {
        let output = world.output(&[args, &["--store", &url]].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(world.read("far/etc/app.conf"), "colour = blue and green\n");
}

#[test]
fn what_is_not_there_is_said_as_it_is() {
    let world = World::committed();
    insta::assert_snapshot!(world.run(&["log", "--store", "http://127.0.0.1:1/x"]).replace("http://127.0.0.1:1", "URL"), @"
    exit 16
    --- stderr
    error: cannot fetch format from URL/x/
    caused by: no connection
    caused by: Connection refused (os error 111)
    hint: nothing was changed; try again when the server can be reached
    ");
    let url = serve(world.path("st"));
    insta::assert_snapshot!(world.run(&["log", "--store", &format!("{url}/nowhere")]).replace(&url, "URL"), @"
    exit 10
    --- stderr
    error: URL/nowhere/ is not an Evenkeel store
    hint: make one with `evenkeel init STORE`, or name another with --store or EVENKEEL_STORE
    ");
    insta::assert_snapshot!(world.run(&["commit", "--area", "os=m", "--store", &url]).replace(&url, "URL"), @"
    exit 2
    --- stderr
    error: URL/ can only be read
    hint: name the store's directory, on the machine that writes it
    ");
    insta::assert_snapshot!(world.run(&["log", "--store", "http://me:secret@host/"]), @"
    exit 2
    --- stderr
    error: an address of a store holds no user and no password
    ");
}

/// The mirror has the store of another day, and of its packs something else.
#[test]
fn a_mirror_is_asked_first_and_named_when_it_lies() {
    let world = World::committed();
    let url = serve(world.path("st"));
    let copied = std::process::Command::new("cp").arg("-r").arg(world.path("st")).arg(world.path("mirror")).status();
    assert!(copied.unwrap().success());
    for fan in std::fs::read_dir(world.path("mirror/packs")).unwrap() {
        for pack in std::fs::read_dir(fan.unwrap().path()).unwrap() {
            let path = pack.unwrap().path();
            std::fs::write(&path, vec![0; std::fs::metadata(&path).unwrap().len().try_into().unwrap()]).unwrap();
        }
    }
    let mirror = serve(world.path("mirror"));
    world.write("c.toml", &format!("store = \"{url}\"\n[http]\nmirrors = [\"{mirror}\"]\n"));
    let mut command = world.command(&["--config", "c.toml", "cat", "@latest", "os:etc/motd"]);
    let output = command.env_remove("EVENKEEL_STORE").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with(&format!("warning: {mirror}/ gave wrong bytes and was avoided from then on: packs/")),
        "{said}"
    );
}

/// A run that fails has no report: what is wrong with servers is said all the same.
#[test]
fn a_mirror_that_lies_is_named_when_all_fails() {
    let world = World::committed();
    let url = serve(world.path("st"));
    let copied = std::process::Command::new("cp").arg("-r").arg(world.path("st")).arg(world.path("mirror")).status();
    assert!(copied.unwrap().success());
    for path in world.files("mirror/snapshots") {
        if !path.ends_with("index") {
            std::fs::write(&path, "something else").unwrap();
        }
    }
    for dir in ["st/packs", "mirror/packs"] {
        std::fs::remove_dir_all(world.path(dir)).unwrap();
    }
    let mirror = serve(world.path("mirror"));
    world.write("c.toml", &format!("store = \"{url}\"\n[http]\nmirrors = [\"{mirror}\"]\n"));
    for command in ["checkout", "fetch"] {
        let mut command = world.command(&["--config", "c.toml", command, "@latest", "--area", "os=r"]);
        let output = command.env_remove("EVENKEEL_STORE").output().unwrap();
        assert_eq!(output.status.code(), Some(12));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with(&format!("warning: {mirror}/ gave wrong bytes and was avoided")), "{said}");
    }
}

/// What it will cost is said before it has been paid; it was said at the end.
#[test]
fn a_fetch_says_what_it_will_cost_before_it_begins() {
    let world = World::with_history();
    let next = |n: &u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let noise: Vec<u8> = std::iter::successors(Some(1), next).take(400_000).map(|n| n.to_le_bytes()[7]).collect();
    std::fs::write(world.path("m/noise"), noise).unwrap();
    assert!(world.run(&["-q", "commit", "--area", "os=m"]).starts_with("exit 0"));
    let url = serve(world.path("st"));
    let slowly =
        ["--store", &url, "--progress", "plain", "checkout", "@latest", "--area", "os=r", "--limit-rate", "200k"];
    let output = world.output(&slowly);
    let told = String::from_utf8(output.stderr).unwrap();
    let foretold = told.find("progress: to fetch: ").unwrap_or_else(|| panic!("{told}"));
    let fetching = told.find("progress: fetching").unwrap_or_else(|| panic!("{told}"));
    assert!(foretold < fetching && told.contains(" of free space needed"), "{told}");
}
