// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one test binary.

mod acceptance;
mod attacks;
mod bad_input;
mod bucket;
mod bundle;
mod catalog;
mod cddl;
mod change_record;
mod changing;
mod checkout;
mod checkout_exact;
mod checkout_faults;
mod checkout_in_use;
mod checkout_live;
mod checkout_model;
mod checkout_tree;
mod commit;
mod content;
mod copy;
mod damage;
mod delta;
mod delta_store;
mod downloads;
mod faults;
mod fetch_killed;
mod gzip;
mod http;
mod index;
mod line;
mod lost_journal;
mod matrix;
mod mirrors;
mod model;
mod plans;
mod races;
mod remote;
mod repair;
mod rollback;
mod rollback_kept;
mod rules;
mod running;
mod seeds;
mod shipped;
mod sweeps;
mod transport;
mod vectors;

/// Files of this folder that no `mod` above names would silently not be tested.
#[test]
fn no_file_was_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let runner = std::fs::read_to_string(folder.join("runner.rs")).unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(name == "runner" || runner.contains(&format!("\nmod {name};")), "{name}.rs is in no `mod`");
    }
}
