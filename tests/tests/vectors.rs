// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `format-spec/vectors` decode to the values beside them, `format-spec/reject` are refused for the reasons beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evenkeel_store::chunk::Chunker;
use evenkeel_store::format::delta::{self, Delta};
use evenkeel_store::format::manifest::{InodeKind, ManifestHead, ManifestNode, Node};
use evenkeel_store::format::pack::PackKind;
use evenkeel_store::format::snapshot::{Snapshot, decode_index, encode_index};
use evenkeel_store::format::store::{ChunkerParams, SegmentsCurrent, StoreFormat};
use evenkeel_store::format::table::{self, Table};
use toml::{Table as Toml, Value};

/// The same module that wrote the files: a change of meaning shows here, a change of bytes when they are generated anew.
#[path = "../../store/examples/vectors/describe.rs"]
mod describe;
#[path = "../../store/examples/vectors/refuse.rs"]
mod refuse;

fn spec(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../format-spec").join(folder)
}

/// Name → TOML and, unless there is none, bytes.
fn load(folder: &str) -> BTreeMap<String, (String, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(spec(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let bytes = std::fs::read(path.with_extension("bin")).ok();
            found.insert(name, (std::fs::read_to_string(&path).unwrap(), bytes));
        } else {
            assert!(path.with_extension("toml").exists(), "{} has no description", path.display());
        }
    }
    found
}

#[test]
fn vectors_decode_to_their_values() {
    let vectors = load("vectors");
    for (name, (toml, bytes)) in &vectors {
        let Some(bytes) = bytes else { continue };
        let values: Toml = toml.parse().unwrap();
        let object = values["object"].as_str().unwrap();
        assert_eq!(&describe::describe(object, bytes).unwrap(), toml, "{name}");
    }
    assert!(vectors.len() >= 20);
}

#[test]
fn documents_encode_to_the_same_bytes() {
    for (name, (toml, bytes)) in load("vectors") {
        let Some(bytes) = bytes else { continue };
        let values: Toml = toml.parse().unwrap();
        let again = match values["object"].as_str().unwrap() {
            "format" => StoreFormat::decode(&bytes).unwrap().encode(),
            "segments-current" => SegmentsCurrent::decode(&bytes).unwrap().encode(),
            "manifest-head" => ManifestHead::decode(&bytes).unwrap().encode(),
            "manifest-node" => ManifestNode::decode(&bytes).unwrap().encode(),
            "snapshot" => Snapshot::decode(&bytes).unwrap().encode().unwrap(),
            "snapshot-index" => encode_index(&decode_index(&bytes).unwrap()),
            "delta" => {
                let delta = Delta::decode_file(&bytes).unwrap();
                let payloads = bytes[usize::try_from(delta.head_len()).unwrap()..].to_vec();
                [delta.encode(), payloads].concat()
            }
            "delta-index" => {
                let (target, entries) = delta::decode_index(&bytes).unwrap();
                delta::encode_index(&target, &entries)
            }
            "segment" | "locator" => {
                let table = Table::decode(&bytes[..]).unwrap();
                table::encode(table.kind(), table.packs(), table.iter().collect()).unwrap()
            }
            _ => continue,
        };
        assert_eq!(again, bytes, "{name}");
    }
}

/// What the shared `describe` cannot prove: a few values read from the TOML by another path.
#[test]
fn key_fields_are_as_written() {
    let vectors = load("vectors");
    let vector = |name: &str| {
        let (toml, bytes) = &vectors[name];
        (toml.parse::<Toml>().unwrap(), bytes.clone().unwrap())
    };
    let int = |value: &Value| value.as_integer().unwrap().unsigned_abs();

    let (values, bytes) = vector("format");
    let format = StoreFormat::decode(&bytes).unwrap();
    assert_eq!(format.store.to_string(), values["store"].as_str().unwrap());
    assert_eq!(u64::from(format.chunker.avg), int(&values["chunker"]["avg"]));
    assert_eq!(format.pack_size, int(&values["pack-size"]));

    let (values, bytes) = vector("segment");
    let table = Table::decode(&bytes[..]).unwrap();
    for record in values["records"].as_array().unwrap() {
        let location = table.get(&record["id"].as_str().unwrap().parse().unwrap()).unwrap();
        assert_eq!(location.offset, int(&record["offset"]));
        assert_eq!(location.pack.to_hex(), record["pack"].as_str().unwrap());
    }
    assert_eq!(table.packs().iter().filter(|pack| pack.kind == PackKind::Manifest).count(), 1);

    let (values, bytes) = vector("manifest-leaf");
    let ManifestNode::Leaf(entries) = ManifestNode::decode(&bytes).unwrap() else { panic!("a leaf") };
    let described = values["entries"].as_array().unwrap();
    assert_eq!(entries.len(), described.len());
    for (entry, values) in entries.iter().zip(described) {
        let text = |key: &str| values.get(key).and_then(Value::as_str);
        assert_eq!(entry.path.as_bytes(), text("path").unwrap().as_bytes());
        let Node::Inode(inode) = &entry.node else {
            assert_eq!(text("kind"), Some("link"));
            continue;
        };
        assert_eq!(u16::from_str_radix(text("mode").unwrap(), 8).unwrap(), inode.mode);
        assert_eq!(u64::from(inode.uid), int(&values["uid"]));
        assert_eq!(inode.mtime.secs, values["mtime"][0].as_integer().unwrap());
        if let InodeKind::File(file) = &inode.kind {
            assert_eq!(file.size, int(&values["size"]));
            assert_eq!(file.hash.to_hex(), text("hash").unwrap());
        }
    }
}

#[test]
fn chunks_are_cut_where_the_vectors_say() {
    let mut inputs = 0;
    for (name, (toml, bytes)) in load("vectors") {
        let values: Toml = toml.parse().unwrap();
        if values["object"].as_str() != Some("chunker") {
            assert!(bytes.is_some(), "{name} has no bytes");
            continue;
        }
        let int = |value: &Value| u32::try_from(value.as_integer().unwrap()).unwrap();
        let (min, avg, max) = (int(&values["min"]), int(&values["avg"]), int(&values["max"]));
        let normalization = u8::try_from(int(&values["normalization"])).unwrap();
        let chunker = Chunker::new(ChunkerParams { min, avg, max, normalization });
        for case in values["inputs"].as_array().unwrap() {
            let mut input = vec![0; int(&case["len"]) as usize];
            if let Some(seed) = case.get("seed") {
                blake3::Hasher::new().update(seed.as_str().unwrap().as_bytes()).finalize_xof().fill(&mut input);
            }
            assert_eq!(blake3::hash(&input).to_hex().as_str(), case["blake3"].as_str().unwrap(), "{name}: the input");
            let expected: Vec<usize> =
                case["lengths"].as_array().unwrap().iter().map(|len| int(len) as usize).collect();
            let found: Vec<usize> = chunker.chunks(&input).map(<[u8]>::len).collect();
            assert_eq!(found, expected, "{name}, {} bytes", input.len());
            inputs += 1;
        }
    }
    assert!(inputs >= 50, "{inputs}");
}

#[test]
fn rejects_are_refused_for_their_reasons() {
    let rejects = load("reject");
    for (name, (toml, bytes)) in &rejects {
        let values: Toml = toml.parse().unwrap();
        let text = |key: &str| values.get(key).and_then(Value::as_str);
        let case = refuse::Case {
            object: text("object").unwrap().to_owned(),
            size: text("size").map(|size| size.parse().unwrap()),
            plain_len: values.get("plain-len").map(|len| u32::try_from(len.as_integer().unwrap()).unwrap()),
            raw: text("encoding") == Some("raw"),
        };
        let error = refuse::refuse(&case, bytes.as_deref().unwrap()).expect_err(name);
        assert_eq!(error.reason.name(), text("reason").unwrap(), "{name}: {error}");
    }
    assert!(rejects.len() >= 400, "{}", rejects.len());
}

/// Every object that carries a version is refused as newer, not as damaged, when its version is.
#[test]
fn newer_objects_are_called_newer() {
    for (name, (toml, bytes)) in load("reject") {
        let values: Toml = toml.parse().unwrap();
        if !name.ends_with("-version-2") && !name.contains("newer") {
            continue;
        }
        let case = refuse::Case { object: values["object"].as_str().unwrap().to_owned(), ..refuse::Case::default() };
        let error = refuse::refuse(&case, &bytes.unwrap()).expect_err(&name);
        assert!(error.is_unsupported(), "{name}: {error}");
        assert!(error.to_string().contains("version 2 is newer than 1"), "{name}: {error}");
    }
}
