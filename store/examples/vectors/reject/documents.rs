// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CBOR documents: `format`, `segments/current`, snapshots, manifest heads.

use std::collections::BTreeMap;

use evenkeel_store::format::cbor::Writer;
use evenkeel_store::format::manifest::ManifestHead;
use evenkeel_store::format::snapshot::Snapshot;

use super::super::valid;
use super::{Set, cut, longer, swap};

pub fn add(set: &mut Set) {
    format(set);
    canonical(set);
    segments_current(set);
    head(set);
    snapshot(set);
}

/// What every document can have wrong in the same way.
fn common(set: &mut Set, object: &str, type_name: &str, bytes: &[u8]) {
    let mut set = |what, reason, bytes| set.add(object, what, reason, bytes);
    set("empty", "truncated", Vec::new());
    set("truncated", "truncated", cut(bytes, 1));
    set("trailing", "trailing", longer(bytes));
    let other_type = format!("{}X", &type_name[..type_name.len() - 1]);
    set("other-type", "magic", swap(bytes, type_name, other_type));
    set("not-a-map", "magic", b"\x80".to_vec());
    set("version-2", "version", swap(bytes, b"gversion\x01", b"gversion\x02"));
    set("version-huge", "version", swap(bytes, b"gversion\x01", [&b"gversion\x1b"[..], &[0xff; 8]].concat()));
    set("version-0", "value", swap(bytes, b"gversion\x01", b"gversion\x00"));
    let pairs = bytes[0] & 31;
    let unknown = [&[0xa1 + pairs][..], &bytes[1..], b"\x78\x1azz-a-key-that-nobody-knows\x01"].concat();
    set("unknown-key", "rule", unknown);
    set("missing-key", "rule", swap(bytes, b"gversion\x01", b"").tap(|bytes| bytes[0] -= 1));
    // A newer document may have keys that this version does not know; it is still newer, not damaged.
    let newer = swap(bytes, b"gversion\x01", b"gversion\x02\x68new-keys\xf5").tap(|bytes| bytes[0] += 1);
    set("newer-with-new-keys", "version", newer);
}

trait Tap: Sized {
    fn tap(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl Tap for Vec<u8> {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn cbor(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Writer::new(&mut bytes));
    bytes
}

fn format(set: &mut Set) {
    let bytes = valid::store_format().encode();
    common(set, "format", "evenkeel/format", &bytes);
    let mut set = |what: &str, reason, bytes| set.add("format", what, reason, bytes);
    set("must-read-feature", "feature", swap(&bytes, b"imust-read\x80", b"imust-read\x81\x68deltas-2"));
    set("hash-unknown", "feature", swap(&bytes, b"jblake3-256", b"jsha256-256"));
    set("chunker-unknown", "feature", swap(&bytes, b"fastcdc-2020", b"fastcdc-2016"));
    set("pack-size-small", "value", swap(&bytes, b"\x1a\x02\x00\x00\x00", b"\x1a\x00\x0f\xff\xff"));
    set("pack-size-large", "value", swap(&bytes, b"\x1a\x02\x00\x00\x00", b"\x1a\x04\x00\x00\x01"));
    set("normalization-4", "value", swap(&bytes, b"mnormalization\x01", b"mnormalization\x04"));
    set("store-id-short", "value", swap(&bytes, b"P0123456789abcdef", b"O0123456789abcde"));
    set("store-id-text", "rule", swap(&bytes, b"P0123456789abcdef", b"p0123456789abcdef"));
    set("min-not-a-power", "rule", swap(&bytes, b"cmin\x19\x40\x00", b"cmin\x19\x40\x01"));
    set("min-not-below-avg", "rule", swap(&bytes, b"cmin\x19\x40\x00", b"cmin\x1a\x00\x01\x00\x00"));
    set("min-1024", "value", swap(&bytes, b"cmin\x19\x40\x00", b"cmin\x19\x04\x00"));
    set("max-32-mib", "value", swap(&bytes, b"cmax\x1a\x00\x04\x00\x00", b"cmax\x1a\x02\x00\x00\x00"));
    let names = |names: &[&str]| {
        cbor(|w| {
            w.text("must-write").array(names.len());
            for name in names {
                w.text(name);
            }
        })
    };
    let must_write = names(&[]);
    set("features-unsorted", "canonical", swap(&bytes, &must_write, names(&["b", "a"])));
    set("features-repeated", "canonical", swap(&bytes, &must_write, names(&["a", "a"])));
    set("feature-empty", "rule", swap(&bytes, &must_write, names(&[""])));
    set("feature-long", "limit", swap(&bytes, &must_write, names(&[&"a".repeat(256)])));
    let many: Vec<String> = (0..257).map(|number| format!("{number:03}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    set("features-many", "limit", swap(&bytes, &must_write, names(&many)));
    set("features-claimed", "truncated", swap(&bytes, &must_write, [&b"jmust-write\x9b"[..], &[0xff; 8]].concat()));
    set("too-long", "limit", [&bytes[..], &vec![0; 64 << 10]].concat());
}

/// Each rule of deterministic CBOR, shown on `format`.
fn canonical(set: &mut Set) {
    let bytes = valid::store_format().encode();
    let mut set = |what: &str, bytes| set.add("format", what, "canonical", bytes);
    set("int-not-shortest-8", swap(&bytes, b"normalization\x01", b"normalization\x18\x01"));
    set("int-not-shortest-16", swap(&bytes, b"normalization\x01", b"normalization\x19\x00\x01"));
    set("int-not-shortest-32", swap(&bytes, b"normalization\x01", b"normalization\x1a\x00\x00\x00\x01"));
    set("int-not-shortest-64", swap(&bytes, b"pack-size\x1a", b"pack-size\x1b\0\0\0\0"));
    set("length-not-shortest", swap(&bytes, b"dhashj", b"\x78\x04hashj"));
    set("map-not-shortest", [b"\xb8\x09", &bytes[1..]].concat());
    set("array-indefinite", swap(&bytes, b"ignorable\x80", b"ignorable\x9f\xff"));
    set("text-indefinite", swap(&bytes, b"jblake3-256", b"\x7fjblake3-256\xff"));
    set("head-reserved", swap(&bytes, b"normalization\x01", b"normalization\x1c"));
    set("tag", swap(&bytes, b"normalization\x01", b"normalization\xc0\x01"));
    set("float", swap(&bytes, b"normalization\x01", b"normalization\xf9\x3c\x00"));
    set("null", swap(&bytes, b"ignorable\x80", b"ignorable\xf6"));
    set("text-not-utf-8", swap(&bytes, b"jblake3-256", b"jblake3-\xff56"));
    let pair = &b"dhashjblake3-256"[..];
    let type_pair = &b"dtypeoevenkeel/format"[..];
    set("keys-swapped", swap(&bytes, [pair, type_pair].concat(), [type_pair, pair].concat()));
    set("key-repeated", swap(&bytes, pair, [pair, pair].concat()).tap(|bytes| bytes[0] += 1));
}

fn segments_current(set: &mut Set) {
    let valid = valid::segments_current();
    let bytes = valid.encode();
    common(set, "segments-current", "evenkeel/segments", &bytes);
    let mut set = |what: &str, reason, bytes| set.add("segments-current", what, reason, bytes);
    let mut unsorted = valid.clone();
    unsorted.segments.swap(0, 1);
    set("unsorted", "canonical", unsorted.encode());
    let mut repeated = valid.clone();
    repeated.segments[1] = repeated.segments[0].clone();
    set("repeated", "canonical", repeated.encode());
    let mut condemned = valid.clone();
    condemned.condemned.swap(0, 1);
    set("condemned-unsorted", "canonical", condemned.encode());
    let mut records = valid.clone();
    records.segments[0].records = (1 << 24) + 1;
    set("records", "value", records.encode());
    let negative = swap(&bytes, b"esince\x20", b"esince\x3b\x80\x00\x00\x00\x00\x00\x00\x00");
    set("since-below-64-bits", "value", negative);
    let count = [&b"hsegments\x9b"[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    set("count-2-32", "truncated", swap(&bytes, b"hsegments\x83", count));
}

fn head(set: &mut Set) {
    let valid = valid::head();
    let bytes = valid.encode();
    common(set, "manifest-head", "evenkeel/manifest", &bytes);
    let mut set = |what: &str, reason, bytes| set.add("manifest-head", what, reason, bytes);
    let change = |change: fn(&mut ManifestHead)| {
        let mut head = valid.clone();
        change(&mut head);
        head.encode()
    };
    set("level-16", "value", change(|head| head.level = 16));
    set("no-entries", "value", change(|head| head.entries = 0));
    set("root-len-0", "value", change(|head| head.root_len = 0));
    set("root-len-large", "value", change(|head| head.root_len = (4 << 20) + 1));
    set("name-empty", "rule", change(|head| drop(head.users.insert(1, Vec::new()))));
    set("name-colon", "rule", change(|head| drop(head.users.insert(1, b"a:b".to_vec()))));
    set("name-newline", "rule", change(|head| drop(head.groups.insert(1, b"a\nb".to_vec()))));
    set("name-nul", "rule", change(|head| drop(head.groups.insert(1, b"\0".to_vec()))));
    set("name-long", "limit", change(|head| drop(head.users.insert(1, vec![b'a'; 256]))));
    let many = |head: &mut ManifestHead| {
        head.users = (0..=65_536).map(|id| (id, b"u".to_vec())).collect();
    };
    set("names-many", "limit", change(many));
    set("id-2-32", "value", swap(&bytes, b"\x18\x18Ecdrom", b"\x1b\0\0\0\x01\0\0\0\0Ecdrom"));
    set("ids-unsorted", "canonical", swap(&bytes, b"\x19\x03\xe8Ealice", b"\x1a\x01\x00\x00\x00Ealice"));
}

fn snapshot(set: &mut Set) {
    let root = valid::root_snapshot().encode().expect("valid");
    let child = valid::child_snapshot().encode().expect("valid");
    common(set, "snapshot", "evenkeel/snapshot", &root);
    let mut set = |what: &str, reason, bytes| set.add("snapshot", what, reason, bytes);
    let none = &b"omust-understand\x80"[..];
    set("feature", "feature", swap(&root, none, b"omust-understand\x81\x6asignatures"));
    let before_keys = swap(&root, none, b"omust-understand\x81\x67newkeys\x70zzzzzzzzzzzzzzzz\x01");
    set("feature-with-new-keys", "feature", before_keys.tap(|bytes| bytes[0] += 1));
    set("depth-without-parent", "rule", swap(&root, b"edepth\x00", b"edepth\x01"));
    set("parent-without-depth", "rule", swap(&child, b"edepth\x18\x29", b"edepth\x00"));
    set("nanoseconds", "value", swap(&root, b"\x1a\x65\x53\xf1\x00\x05", b"\x1a\x65\x53\xf1\x00\x1a\x3b\x9a\xca\x00"));
    set("time-of-three", "value", swap(&root, b"\x82\x1a\x65\x53\xf1\x00\x05", b"\x83\x1a\x65\x53\xf1\x00\x05\x00"));
    set("areas-none", "rule", no_areas());
    set("areas-unsorted", "canonical", swap(&child, b"dnamefcore.d", b"dnamefaore.d"));
    set("areas-repeated", "canonical", swap(&child, b"dnamefcore.d", b"dnamedcore"));
    for (what, name) in
        [("capital", "Core"), ("dot", ".ore"), ("slash", "co/e"), ("dot-dot", "../e"), ("space", "co e")]
    {
        set(&format!("area-name-{what}"), "rule", swap(&root, b"dnamedcore", format!("dnamed{name}")));
    }
    set("area-name-empty", "rule", swap(&root, b"dnamedcore", b"dname\x60"));
    set("area-name-long", "limit", swap(&root, b"dnamedcore", format!("dname\x78\x41{}", "a".repeat(65))));
    set("area-root-relative", "rule", swap(&root, b"/srv/core", b"srv//core"));
    set("area-root-nul", "rule", swap(&root, b"/srv/core", b"/srv/cor\0"));
    set("area-root-empty", "rule", swap(&root, b"\x49/srv/core", b"\x40"));
    set("manifest-len-0", "value", swap(&root, b"manifest-len\x19\x01\x2c", b"manifest-len\x00"));
    set("manifest-len-large", "value", swap(&root, b"manifest-len\x19\x01\x2c", b"manifest-len\x1a\x00\x40\x00\x01"));
    set("entries-0", "value", swap(&root, b"gentries\x03", b"gentries\x00"));
    set("devices-int", "rule", swap(&root, b"gdevices\xf4", b"gdevices\x00"));
    set("labels-unsorted", "canonical", swap(&child, b"az\x611baa\x60", b"baa\x60az\x611"));
    set("labels-repeated", "canonical", swap(&child, b"az\x611baa\x60", b"az\x611az\x60"));
    set("labels-claimed", "truncated", swap(&root, b"flabels\xa0", b"flabels\xba\xff\xff\xff\xff"));
    set("author-claimed", "truncated", swap(&root, b"fauthork", b"fauthor\x7b\x7f\xff\xff\xff\xff\xff\xff\xff"));
    set("nested-deeply", "limit", nested());
    set(
        "id-short",
        "value",
        swap(&child, b"fparent\x58\x20", b"fparent\x58\x1f").tap(|bytes| {
            let at = bytes.windows(9).position(|window| window == b"fparent\x58\x1f").expect("just written") + 9;
            bytes.remove(at);
        }),
    );
}

/// A snapshot whose list of areas is empty.
fn no_areas() -> Vec<u8> {
    let snapshot = Snapshot { labels: BTreeMap::new(), ..valid::root_snapshot() };
    let bytes = snapshot.encode().expect("valid");
    let start = bytes.windows(6).position(|window| window == b"eareas").expect("a snapshot has areas") + 6;
    let end = bytes.windows(6).position(|window| window == b"edepth").expect("depth comes after the areas");
    [&bytes[..start], &[0x80], &bytes[end..]].concat()
}

/// A list in a list, five thousand times, where the areas should be.
fn nested() -> Vec<u8> {
    let bytes = no_areas();
    let nest = [vec![0x81; 5000], vec![0x80]].concat();
    swap(&bytes, b"eareas\x80", [&b"eareas"[..], &nest].concat())
}
