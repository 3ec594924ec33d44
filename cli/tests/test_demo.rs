// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demo on a small tree: every step ends as it should, and nothing is left behind.

use crate::harness::World;

#[test]
fn the_whole_story() {
    let world = World::new();
    for dir in 0..6 {
        for file in 0..5 {
            world.write(format!("tree/lib/part{dir}/file{file}"), &format!("content of {dir} {file}\n").repeat(100));
        }
    }
    let output = world.command(&["demo", "--area", "tree"]).env("TMPDIR", world.path("")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("\nequal\n").count(), 2, "{text}");
    assert!(text.contains("no damage"), "{text}");
    assert!(text.contains("7. Summary"), "{text}");
    // Found by `status` and `verify`, put right, and there again after the rollback.
    assert_eq!(text.matches(", 1 difference;").count(), 3, "{text}");
    let left = evenkeel_store::fsio::list_dir(&world.path("")).unwrap();
    assert_eq!(left, [b"tree".to_vec()]);
}

#[test]
fn a_tree_that_is_too_small() {
    let world = World::with_tree();
    let output = world.command(&["demo", "--area", "m"]).env("TMPDIR", world.path("")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is too small a tree"));
}
