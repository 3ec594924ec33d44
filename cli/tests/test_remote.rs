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
    let request = request.replace(" http://", " //");
    let (method, rest) = request.split_once(" /")?;
    let path = rest.split_once(' ')?.0;
    // As a proxy is asked.
    let path = path.strip_prefix("/store.example.org/").unwrap_or(path);
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

/// The server warned of it, the client did not.
#[test]
fn a_token_that_can_be_read_on_its_way() {
    let world = World::committed();
    let proxy = serve(world.path("st"));
    world.write("token", "0123456789abcdef0123456789abcdef\n");
    world.write("c.toml", &format!("[http]\nproxy = \"{proxy}\"\nno-proxy = \"127.0.0.1\"\ntoken-file = \"token\"\n"));
    let list = |store: &str| world.run(&["--config", "c.toml", "--store", store, "log", "--oneline"]);
    let told = list("http://store.example.org/");
    assert!(told.starts_with("exit 0\n") && told.contains("warning: without TLS, the token can be read"), "{told}");
    let own = list(&proxy);
    assert!(own.starts_with("exit 0\n") && !own.contains("warning"), "{own}");
}

/// A descriptor was held for every directory that waited, and what could not be opened was left out without a word.
#[test]
fn a_seed_of_many_directories_needs_few_descriptors() {
    let world = World::with_tree();
    for at in 0..120u32 {
        world.write(format!("m/wide/{at}/f"), &format!("{at} ").repeat(2000));
    }
    world.settle("m");
    world.commit("wide");
    assert!(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(world.path("m"))
            .arg(world.path("seed"))
            .status()
            .unwrap()
            .success()
    );
    let url = serve(world.path("st"));
    let args = ["--store", &url, "fetch", "@latest", "--area", "os=far", "--seed", "seed", "--json"];
    let mut limited = std::process::Command::new("sh");
    let command = world.command(&args);
    limited.args(["-c", "ulimit -n 80; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    limited.current_dir(world.path("")).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let done = &told["fetch"]["done"];
    assert_eq!((&done["packs"], &done["requests"]), (&0.into(), &0.into()), "{told}");
    if !rustix::process::geteuid().is_root() {
        world.mode("seed/wide/7", 0);
        let told = world.run(&["--store", &url, "checkout", "@latest", "--area", "os=other", "--seed", "seed"]);
        assert!(told.contains("seed/wide/7 could not be used as a seed: Permission denied"), "{told}");
        world.mode("seed/wide/7", 0o755);
    }
}

/// A name that is wrong was one only where content was needed from afar.
#[test]
fn a_seed_that_is_not_there() {
    let world = World::committed();
    let url = serve(world.path("st"));
    for store in ["st", &url] {
        for _ in 0..2 {
            let told = world.run(&["--store", store, "checkout", "@latest", "--area", "os=far", "--seed", "nowhere"]);
            assert!(told.contains("nowhere") && !told.starts_with("exit 0"), "{store}: {told}");
            assert!(world.output(&["--store", store, "checkout", "@latest", "--area", "os=far"]).status.success());
        }
    }
}

/// What came from where was in the record, and only `--json` showed it.
#[test]
fn a_record_shows_where_content_came_from() {
    let world = World::with_history();
    let url = serve(world.path("st"));
    assert!(world.output(&["--store", &url, "checkout", "@latest~1", "--area", "os=far"]).status.success());
    let told = world.run(&["show-record", "1", "--area", "os=far"]);
    assert!(told.contains("\n  foreseen 1 request, ") && told.contains("\n  fetched  1 request, "), "{told}");
}
