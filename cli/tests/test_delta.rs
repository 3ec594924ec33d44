// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `delta make` and `delta list`.

use serde_json::Value;

use crate::harness::World;
use crate::test_output::fits;

/// Lines that differ, so that they compress badly: `salt` changes one in a hundred of them.
fn lines(count: u64, salt: u64) -> String {
    let line = |at: u64| {
        let seed = if at % 100 == 50 { at ^ (salt << 20) } else { at };
        format!("{:016x}\n", seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    };
    (0..count).map(line).collect()
}

/// Two snapshots, in the second of which a program has another version in its name and a few other bytes.
fn with_releases() -> World {
    let world = World::with_tree();
    world.write("m/boot/image-6.1.0-30", &lines(20_000, 1));
    world.settle("m");
    world.commit("first");
    std::fs::remove_file(world.path("m/boot/image-6.1.0-30")).unwrap();
    world.write("m/boot/image-6.1.0-31", &lines(20_000, 2));
    world.settle("m");
    world.commit("second");
    world
}

fn document(world: &World, args: &[&str]) -> Value {
    let output = world.output(&[&["--json"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_delta_is_made_listed_and_a_fraction_of_the_chunks() {
    let world = with_releases();
    let none = world.run(&["delta", "list"]);
    assert!(none.starts_with("exit 0\n") && none.contains("`evenkeel delta make` makes one"), "{none}");
    fits("delta-list", &document(&world, &["delta", "list"]));
    for effort in ["fast", "default", "best"] {
        let made = document(&world, &["delta", "make", "@latest~", "@latest", "--effort", effort]);
        fits("delta-make", &made);
        let (file, packs) = (made["delta"]["file_bytes"].as_u64().unwrap(), made["pack_bytes"].as_u64().unwrap());
        assert!(file * 5 < packs, "{effort}: {made}");
        assert!(made["left_out_bytes"].as_u64().unwrap() < 2000, "{effort}: {made}");
        // The same again, and it takes the place of the one before.
        let again = document(&world, &["delta", "make", "@latest~", "@latest", "--effort", effort]);
        assert_eq!(again["delta"], made["delta"], "{effort}");
        let list = document(&world, &["delta", "list"]);
        fits("delta-list", &list);
        assert_eq!(list["deltas"], serde_json::json!([made["delta"]]), "{effort}");
    }
    let listed = world.run(&["delta", "list"]);
    assert!(listed.starts_with("exit 0\n") && listed.contains("  from "), "{listed}");
}

#[test]
fn what_cannot_be_made_is_refused() {
    let world = with_releases();
    let unknown = world.run(&["delta", "make", "deadbeef", "@latest"]);
    assert!(unknown.starts_with("exit 2\n") && unknown.contains("error: "), "{unknown}");
    let same = world.run(&["delta", "make", "@latest", "@latest"]);
    assert!(same.starts_with("exit 2\n") && same.contains("from a snapshot to itself"), "{same}");
    fits("delta-list", &document(&world, &["delta", "list"]));
}
