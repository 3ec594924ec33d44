// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every CBOR vector fits `format-spec/schema.cddl`.

use std::path::{Path, PathBuf};

fn spec(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../format-spec").join(name)
}

/// The schema with `rule` first, which is the one that a document must fit.
fn schema(rule: &str) -> String {
    let text = std::fs::read_to_string(spec("schema.cddl")).unwrap();
    format!("start = {rule}\n{text}")
}

#[test]
fn vectors_fit_the_schema() {
    let mut checked = 0;
    for entry in std::fs::read_dir(spec("vectors")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let rule = ["format", "segments-current", "manifest-head", "manifest-leaf", "manifest-inner", "snapshot"]
            .into_iter()
            .find(|prefix| name.starts_with(prefix) && !name.starts_with("snapshot-index"));
        let Some(rule) = rule.filter(|_| name.ends_with(".bin")) else { continue };
        let rule = if rule == "manifest-leaf" || rule == "manifest-inner" { "manifest-node" } else { rule };
        let bytes = std::fs::read(&path).unwrap();
        if let Err(error) = cddl::validate_cbor_from_slice(&schema(rule), &bytes, None) {
            panic!("{name} does not fit `{rule}`: {error}");
        }
        checked += 1;
    }
    assert!(checked >= 10, "{checked}");
}

#[test]
fn the_schema_refuses_what_does_not_fit() {
    for (name, rule) in [
        ("format-unknown-key", "format"),
        ("format-missing-key", "format"),
        ("manifest-node-kind-8", "manifest-node"),
        ("manifest-node-fifo-with-size", "manifest-node"),
        ("snapshot-entries-0", "snapshot"),
    ] {
        let bytes = std::fs::read(spec("reject").join(name).with_extension("bin")).unwrap();
        assert!(cddl::validate_cbor_from_slice(&schema(rule), &bytes, None).is_err(), "{name}");
    }
}
