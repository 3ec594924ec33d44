// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes `format-spec/vectors`, `format-spec/reject` and `fuzz/seeds` anew. Equal code gives equal files, so CI runs it and
//! then looks for differences.

mod chunker;
mod describe;
mod refuse;
mod reject;
mod valid;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use evenkeel_store::format::manifest::{ChunkRun, encode_chunk_list};
use refuse::Case;

/// Relative path → content.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut vectors, mut rejects, mut seeds) = (Files::new(), Files::new(), Files::new());
    for vector in valid::vectors() {
        let toml = describe::describe(vector.object, &vector.bytes).expect("a valid vector decodes");
        vectors.insert(format!("{}.toml", vector.name).into(), toml.into_bytes());
        let case = Case { object: vector.object.to_owned(), ..Case::default() };
        seed(&mut seeds, &case, vector.name, &vector.bytes);
        vectors.insert(format!("{}.bin", vector.name).into(), vector.bytes);
    }
    for (name, toml) in chunker::vectors() {
        vectors.insert(format!("{name}.toml").into(), toml.into_bytes());
    }
    more_seeds(&mut seeds);
    let mut wrong = Vec::new();
    for reject in reject::rejects() {
        let found = refuse::refuse(&reject.case, &reject.bytes).map_err(|error| error.reason.name());
        if found != Err(reject.reason) {
            wrong.push(format!("{}: {found:?} instead of {}", reject.name, reject.reason));
        }
        rejects.insert(format!("{}.toml", reject.name).into(), reject.toml().into_bytes());
        seed(&mut seeds, &reject.case, &reject.name, &reject.bytes);
        rejects.insert(format!("{}.bin", reject.name).into(), reject.bytes);
    }
    assert!(wrong.is_empty(), "not refused as they should be:\n{}", wrong.join("\n"));
    replace(&root.join("format-spec/vectors"), &vectors)?;
    replace(&root.join("format-spec/reject"), &rejects)?;
    // Other targets have seeds that are not made here.
    let of_target = |path: &PathBuf| path.components().next().map(|target| target.as_os_str().to_owned());
    let targets: BTreeSet<_> = seeds.keys().filter_map(of_target).collect();
    for target in targets {
        let own =
            seeds.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(&target).ok()?.into(), bytes.clone())));
        replace(&root.join("fuzz/seeds").join(&target), &own.collect())?;
    }
    Ok(())
}

/// Longest input that is worth mutating, in bytes.
const SEED_BYTES_MAX: usize = 8 << 10;

fn seed(seeds: &mut Files, case: &Case, name: &str, bytes: &[u8]) {
    let target = match case.object.as_str() {
        "segment" | "locator" => "table",
        "manifest" => "manifest-node",
        other => other,
    };
    // What the object does not say itself comes first, as the targets expect it.
    let mut input = match (case.size, case.plain_len) {
        (Some(size), _) => size.to_le_bytes().to_vec(),
        (_, Some(plain_len)) => plain_len.to_le_bytes()[..3].to_vec(),
        _ => Vec::new(),
    };
    input.extend(bytes);
    if input.len() <= SEED_BYTES_MAX {
        seeds.insert(Path::new(&target.replace('-', "_")).join(name), input);
    }
}

/// Inputs that no vector holds in the form in which a target takes it.
fn more_seeds(seeds: &mut Files) {
    for (number, entry) in valid::entries().iter().enumerate() {
        let mut bytes = Vec::new();
        entry.encode_into(&mut bytes);
        seeds.insert(format!("entry/{number}").into(), bytes);
    }
    for (number, runs) in valid::chunk_lists().iter().enumerate() {
        let size: u64 = runs.iter().map(ChunkRun::len).sum();
        let input = [&size.to_le_bytes()[..], &encode_chunk_list(runs)].concat();
        seeds.insert(format!("chunk_list/valid-{number}").into(), input);
    }
    let (plain, frame) = valid::record();
    let len = u32::try_from(plain.len()).expect("a short record");
    seeds.insert("record/valid".into(), [&len.to_le_bytes()[..3], &frame].concat());
}

/// Makes `dir` hold exactly these files.
#[expect(clippy::disallowed_methods, reason = "files of the source tree, not of a store")]
fn replace(dir: &Path, files: &Files) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for (path, bytes) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().expect("a path below dir"))?;
        std::fs::write(path, bytes)?;
    }
    Ok(())
}
