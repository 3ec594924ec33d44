// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of the program as a user runs it: arguments in; stdout, stderr and exit code out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "makes, changes and damages files in temporary directories of its own")]

mod harness;
mod test_aftermath;
mod test_bundle;
mod test_check;
mod test_checkout;
mod test_commit;
mod test_config;
mod test_copy;
mod test_delta;
mod test_demo;
mod test_docs;
mod test_help;
mod test_output;
mod test_read;
mod test_record;
mod test_remote;
mod test_serve;
mod test_status;

#[test]
fn no_file_was_forgotten() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let source = include_str!("runner.rs");
    for name in evenkeel_store::fsio::list_dir(&here).unwrap() {
        let name = String::from_utf8(name).unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "runner") {
            assert!(source.contains(&format!("mod {module};")), "{name}");
        }
    }
}
