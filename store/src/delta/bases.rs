// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which file of an earlier snapshot a new one most resembles: by its path, by its path without versions, by chunks that
//! both have, by its name without versions, by a sketch of its content.

use std::collections::{HashMap, HashSet};

use super::inventory::FileChunks;
use crate::id::ChunkId;

/// Files of one name that are compared; more are too common a name to tell anything.
const SAME_NAME_MAX: usize = 64;
/// Smallest file that is worth a sketch, in bytes.
const SKETCH_FILE_BYTES: u64 = 2048;
/// Features kept of a file.
const FEATURES: usize = 24;
/// Features that two files must share.
const SHARED_MIN: u32 = 3;
/// Bytes that one feature depends on, as the hash below forgets older ones.
const WINDOW: usize = 64;
/// One window in so many is a candidate.
const SAMPLE_MASK: u64 = (1 << 6) - 1;

/// For each of `after` the place in `before` of what it most resembles. `sketch` gives the features of a file's content, and
/// nothing for one that cannot be read; it is asked only for files without another hint.
pub fn find(
    before: &[FileChunks],
    after: &[&FileChunks],
    is_gone: impl Fn(&FileChunks) -> bool,
    mut sketch: impl FnMut(&FileChunks) -> Vec<u64>,
) -> Vec<Option<usize>> {
    let names = Names::new(before, is_gone);
    let mut found: Vec<_> = after.iter().map(|file| names.base_of(before, file)).collect();
    let is_lone = |at: &usize| found[*at].is_none() && after[*at].size >= SKETCH_FILE_BYTES;
    let lone: Vec<usize> = (0..after.len()).filter(is_lone).collect();
    if lone.is_empty() {
        return found;
    }
    let taken: HashSet<usize> = found.iter().flatten().copied().collect();
    let free = |at: &usize| !taken.contains(at) && names.gone[*at] && before[*at].size >= SKETCH_FILE_BYTES;
    let mut with_feature: HashMap<u64, Vec<usize>> = HashMap::new();
    for at in (0..before.len()).filter(free) {
        sketch(&before[at]).into_iter().for_each(|feature| with_feature.entry(feature).or_default().push(at));
    }
    if with_feature.is_empty() {
        return found;
    }
    for at in lone {
        let mut shared: HashMap<usize, u32> = HashMap::new();
        let features = sketch(after[at]);
        let holders = features.iter().filter_map(|feature| with_feature.get(feature)).flatten();
        holders.for_each(|holder| *shared.entry(*holder).or_default() += 1);
        let best = shared.into_iter().max_by_key(|(holder, count)| (*count, std::cmp::Reverse(*holder)));
        found[at] = best.filter(|(_, count)| *count >= SHARED_MIN).map(|(holder, _)| holder);
    }
    found
}

/// What can be looked up without reading content.
struct Names<'f> {
    by_path: HashMap<&'f [u8], usize>,
    by_stripped_path: HashMap<Vec<u8>, Vec<usize>>,
    by_stripped_name: HashMap<Vec<u8>, Vec<usize>>,
    by_chunk: HashMap<ChunkId, usize>,
    gone: Vec<bool>,
}

impl<'f> Names<'f> {
    fn new(before: &'f [FileChunks], is_gone: impl Fn(&FileChunks) -> bool) -> Self {
        let gone = before.iter().map(is_gone).collect();
        let (mut by_path, mut by_chunk) = (HashMap::new(), HashMap::new());
        let (mut by_stripped_path, mut by_stripped_name) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (at, file) in before.iter().enumerate() {
            by_path.insert(&file.path[..], at);
            by_stripped_path.entry(stripped(&file.path)).or_default().push(at);
            by_stripped_name.entry(stripped(name(&file.path))).or_default().push(at);
            for placed in &file.chunks {
                by_chunk.entry(placed.chunk.id).or_insert(at);
            }
        }
        Names { by_path, by_stripped_path, by_stripped_name, by_chunk, gone }
    }

    fn base_of(&self, before: &[FileChunks], file: &FileChunks) -> Option<usize> {
        let nearest = |places: &Vec<usize>| {
            if places.len() > SAME_NAME_MAX {
                return None;
            }
            let key = |at: &usize| {
                let other = &before[*at];
                let alike = same_end(&other.path, &file.path);
                (self.gone[*at], alike, std::cmp::Reverse(other.size.abs_diff(file.size)), std::cmp::Reverse(*at))
            };
            places.iter().copied().max_by_key(key)
        };
        let by_chunk = || file.chunks.iter().find_map(|placed| self.by_chunk.get(&placed.chunk.id)).copied();
        self.by_path
            .get(&file.path[..])
            .copied()
            .or_else(|| self.by_stripped_path.get(&stripped(&file.path)).and_then(nearest))
            .or_else(by_chunk)
            .or_else(|| self.by_stripped_name.get(&stripped(name(&file.path))).and_then(nearest))
    }
}

/// The last component of a path.
pub fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// A path with each number, and each run of numbers with dots and the like between them, as one `#`.
pub fn stripped(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        if !path[at].is_ascii_digit() {
            out.push(path[at]);
            at += 1;
            continue;
        }
        let in_version = |byte: &u8| byte.is_ascii_digit() || b".-_+~:".contains(byte);
        let run = path[at..].iter().take_while(|byte| in_version(byte)).count();
        let trailing = path[at..at + run].iter().rev().take_while(|byte| !byte.is_ascii_digit()).count();
        out.push(b'#');
        at += run - trailing;
    }
    out
}

/// Components at the end of two paths that are equal but for versions.
fn same_end(a: &[u8], b: &[u8]) -> usize {
    let components = |path: &[u8]| stripped(path).rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    components(a).into_iter().zip(components(b)).take_while(|(a, b)| a == b).count()
}

/// Features of a content: the smallest hashes of a sample of its windows. What is inserted or moved changes few of them.
#[derive(Debug, Default)]
pub struct Sketch {
    hash: u64,
    seen: usize,
    features: std::collections::BTreeSet<u64>,
}

impl Sketch {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // Each byte is shifted out after 64 more.
            self.hash = (self.hash << 1).wrapping_add(mixed(u64::from(*byte) + 1));
            self.seen += 1;
            if self.seen >= WINDOW && (self.hash >> 48) & SAMPLE_MASK == 0 {
                let feature = mixed(self.hash);
                if self.features.len() < FEATURES || self.features.last().is_some_and(|last| feature < *last) {
                    self.features.insert(feature);
                    if self.features.len() > FEATURES {
                        self.features.pop_last();
                    }
                }
            }
        }
    }

    /// What was found.
    pub fn finish(self) -> Vec<u64> {
        self.features.into_iter().collect()
    }
}

/// Spreads a number over all bits (the last steps of splitmix64).
fn mixed(value: u64) -> u64 {
    let a = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ (c >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::inventory::PlacedChunk;
    use crate::format::delta::DeltaChunk;

    fn file(path: &str, content: &[u8]) -> FileChunks {
        let len = u32::try_from(content.len()).unwrap();
        let chunk = DeltaChunk { id: ChunkId::of(content), len };
        FileChunks { path: path.into(), size: len.into(), chunks: vec![PlacedChunk { offset: 0, chunk }] }
    }

    fn paths<'f>(before: &'f [FileChunks], after: &[FileChunks]) -> Vec<Option<&'f str>> {
        let is_gone = |file: &FileChunks| after.iter().all(|other| other.path != file.path);
        let after: Vec<_> = after.iter().collect();
        let found = find(before, &after, is_gone, |_| Vec::new());
        found.into_iter().map(|at| at.map(|at| std::str::from_utf8(&before[at].path).unwrap())).collect()
    }

    #[test]
    fn versions_are_stripped() {
        for (path, expected) in [
            ("root/boot/vmlinuz-6.1.0-30-amd64", "root/boot/vmlinuz-#-amd#"),
            ("root/usr/lib/libfoo.so.1.2.3", "root/usr/lib/libfoo.so.#"),
            ("root/plain", "root/plain"),
            ("v1.2-rc/x", "v#-rc/x"),
        ] {
            assert_eq!(String::from_utf8(stripped(path.as_bytes())).unwrap(), expected);
        }
    }

    #[test]
    fn a_base_is_found_by_path_then_version_then_chunk_then_name() {
        let before = [
            file("root/boot/initrd.img-6.1.0-30-amd64", b"a"),
            file("root/boot/vmlinuz-6.1.0-30-amd64", b"b"),
            file("root/etc/hosts", b"c"),
            file("root/lib/modules/6.1.0-30-amd64/kernel/a/x.ko", b"d"),
            file("root/lib/modules/6.1.0-30-amd64/kernel/b/x.ko", b"e"),
            file("root/opt/old/tool-1.0", b"f"),
            file("root/srv/data", b"g"),
        ];
        let after = [
            file("root/boot/vmlinuz-6.1.0-31-amd64", b"B"),
            file("root/etc/hosts", b"C"),
            file("root/lib/modules/6.1.0-31-amd64/kernel/b/x.ko", b"E"),
            file("root/opt/new/tool-2.1", b"F"),
            file("root/srv/moved", b"g"),
            file("root/nothing/like-it", b"h"),
        ];
        assert_eq!(
            paths(&before, &after),
            [
                Some("root/boot/vmlinuz-6.1.0-30-amd64"),
                Some("root/etc/hosts"),
                Some("root/lib/modules/6.1.0-30-amd64/kernel/b/x.ko"),
                Some("root/opt/old/tool-1.0"),
                Some("root/srv/data"),
                None,
            ]
        );
    }

    #[test]
    fn a_renamed_file_is_found_by_its_content() {
        let text = |seed: u64| (0..20_000_u64).map(|i| mixed(seed << 32 | i).to_le_bytes()[0]).collect::<Vec<_>>();
        let contents: Vec<Vec<u8>> = (0..8).map(text).collect();
        let before: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(i, bytes)| file(&format!("root/old/{}", "abcdefgh".as_bytes()[i]), bytes))
            .collect();
        let mut new = contents[5].clone();
        new.splice(300..320, *b"something else");
        new.drain(9000..9100);
        let after = file("root/entirely-different", &new);
        let stranger = file("root/stranger", &text(99));
        let read = |file: &FileChunks| {
            let all = contents.iter().chain([&new]).find(|bytes| ChunkId::of(bytes) == file.chunks[0].chunk.id);
            let mut sketch = Sketch::default();
            sketch.update(all.map_or(&text(99)[..], |bytes| bytes));
            sketch.finish()
        };
        assert_eq!(find(&before, &[&after, &stranger], |_| true, read), [Some(5), None]);
    }
}
