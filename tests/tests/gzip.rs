// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What deltas make again is what the gzip of this machine makes.

use std::io::Write;
use std::process::{Command, Stdio};

use evenkeel_store::delta::codec::deflate::{Part, deflate};
use evenkeel_tests::noise;

fn gzip(plain: &[u8], level: u8) -> Vec<u8> {
    let mut command = Command::new("gzip");
    let mut child =
        command.args([&format!("-{level}"), "-n", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let child = child.as_mut().expect("gzip can be run");
    let mut input = child.stdin.take().unwrap();
    let plain = plain.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&plain));
    let mut file = Vec::new();
    std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut file).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    file[10..file.len() - 8].to_vec()
}

#[test]
fn streams_are_gzips_own() {
    let version = Command::new("gzip").arg("--version").output().expect("gzip can be run");
    assert!(version.stdout.starts_with(b"gzip "), "this test is about GNU gzip");
    let program = std::fs::read(env!("CARGO_BIN_EXE_one-manifest")).unwrap();
    let text: Vec<u8> =
        (0..60_000_u32).flat_map(|i| format!("{} of {i}\n", i.wrapping_mul(40_503) % 997).into_bytes()).collect();
    let mixed: Vec<u8> = text.chunks(700).zip(noise(3, 90_000).chunks(90)).flat_map(|(a, b)| [a, b].concat()).collect();
    let program = &program[..program.len().min(3 << 20)];
    let many: [&[u8]; 8] = [b"", b"x", b"xyxyxyxyx", &[0; 300_000], &text, &mixed, &noise(5, 200_000), program];
    for plain in many {
        for level in 4..=9 {
            let part = Part { data: plain, window: 0, ahead: None, level, before: 2, lead: 0 };
            let made = deflate(part, |_, _| true).unwrap();
            assert!(made == gzip(plain, level), "{} bytes at level {level}", plain.len());
        }
    }
}
