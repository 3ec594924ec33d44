// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decodes every file of a folder of rejects, each with hardly any memory to take: `one-reject FOLDER KIBIBYTES`. A
//! process of its own, because such a limit is one on the whole process.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[path = "../../../store/examples/vectors/refuse.rs"]
mod refuse;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, allowed] = args.as_slice() else { panic!("usage: one-reject FOLDER KIBIBYTES") };
    let allowed = allowed.parse::<u64>().unwrap() << 10;
    let mut slowest = (Duration::ZERO, String::new());
    let mut decoded = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let took = decode(&path, allowed);
            decoded += 1;
            slowest = slowest.max((took, path.display().to_string()));
        }
    }
    println!("{decoded} decoded, {} took {} us", slowest.1, slowest.0.as_micros());
}

/// Decodes one, which must fail for the reason beside it, and not for want of memory.
fn decode(path: &Path, allowed: u64) -> Duration {
    let values: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let text = |key: &str| values.get(key).and_then(toml::Value::as_str);
    let case = refuse::Case {
        object: text("object").unwrap().to_owned(),
        size: text("size").map(|size| size.parse().unwrap()),
        plain_len: values.get("plain-len").map(|len| u32::try_from(len.as_integer().unwrap()).unwrap()),
        raw: text("encoding") == Some("raw"),
    };
    let bytes = std::fs::read(path.with_extension("bin")).unwrap();
    let before = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(evenkeel_tests::address_space() + allowed), ..before }).unwrap();
    let start = Instant::now();
    let refused = refuse::refuse(&case, &bytes);
    let took = start.elapsed();
    setrlimit(Resource::As, before).unwrap();
    let error = refused.expect_err("a reject is refused");
    assert_eq!(error.reason.name(), text("reason").unwrap(), "{}: {error}", path.display());
    took
}
