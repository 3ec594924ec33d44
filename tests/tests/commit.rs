// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a commit records, and what it need not read again.

use evenkeel_tests::Fixture;

#[test]
fn a_first_commit_holds_the_tree() {
    let fixture = Fixture::new();
    fixture.tree.sample();
    let id = fixture.commit_new();
    fixture.assert_holds_tree(&id);
    fixture.assert_sound();
}
