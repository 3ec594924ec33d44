// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manifest nodes: what decodes encodes to the same bytes, and the check of a whole manifest takes it without panic.
#![no_main]

use evenkeel_store::format::manifest::{ManifestNode, StructureCheck};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(node) = ManifestNode::decode(bytes) else { return };
    assert_eq!(node.encode(), bytes);
    if let ManifestNode::Leaf(entries) = node {
        let mut structure = StructureCheck::default();
        let _ = entries.iter().try_for_each(|entry| structure.push(entry)).and_then(|()| structure.finish());
    }
});
