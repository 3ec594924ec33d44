// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decodes an object and lists every value of it as TOML. The tests compare with what stands in `format-spec/vectors/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use evenkeel_store::compress::decompress;
use evenkeel_store::delta::codec::decode;
use evenkeel_store::format::DecodeError;
use evenkeel_store::format::delta::{self, Delta, DeltaChunk, ENCODING_DEFLATE};
use evenkeel_store::format::manifest::*;
use evenkeel_store::format::pack::{self, Encoding, PackEntry, PackKind};
use evenkeel_store::format::snapshot::{Snapshot, decode_index};
use evenkeel_store::format::store::{ChunkerParams, SegmentsCurrent, StoreFormat};
use evenkeel_store::format::table::{Table, TableKind};
use evenkeel_store::id::{ChunkId, encode_hex};

/// The TOML of a valid object of this kind.
pub fn describe(object: &str, bytes: &[u8]) -> Result<String, DecodeError> {
    let mut doc = Doc::default();
    doc.text("object", object).int("len", bytes.len()).text("blake3", &blake3::hash(bytes).to_hex());
    match object {
        "format" => store_format(&mut doc, &StoreFormat::decode(bytes)?),
        "segments-current" => segments_current(&mut doc, &SegmentsCurrent::decode(bytes)?),
        "pack" => pack_file(&mut doc, bytes)?,
        "segment" | "locator" => table(&mut doc, &Table::decode(bytes)?),
        "manifest-head" => head(&mut doc, &ManifestHead::decode(bytes)?),
        "manifest-node" => node(&mut doc, &ManifestNode::decode(bytes)?),
        "snapshot" => snapshot(&mut doc, &Snapshot::decode(bytes)?),
        "snapshot-index" => index(&mut doc, bytes)?,
        "delta" => delta_file(&mut doc, bytes)?,
        "delta-index" => delta_index(&mut doc, bytes)?,
        _ => panic!("no kind of object is called {object}"),
    }
    Ok(doc.0)
}

/// TOML, line by line.
#[derive(Default)]
pub struct Doc(pub String);

impl Doc {
    fn line(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Self {
        writeln!(self.0, "{key} = {value}").expect("a String takes everything");
        self
    }

    pub fn section(&mut self, name: &str) -> &mut Self {
        writeln!(self.0, "\n[[{name}]]").expect("a String takes everything");
        self
    }

    pub fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.line(key, quote(text))
    }

    pub fn int(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Self {
        self.line(key, value)
    }

    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.line(key, value)
    }

    pub fn hex(&mut self, key: &str, bytes: &[u8]) -> &mut Self {
        self.text(key, &encode_hex(bytes))
    }

    /// As text where it is text, else in hex under `<key>-hex`.
    fn bytes(&mut self, key: &str, bytes: &[u8]) -> &mut Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text(key, text),
            Err(_) => self.hex(&format!("{key}-hex"), bytes),
        }
    }

    pub fn list<T: std::fmt::Display>(&mut self, key: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
        self.line(key, format_args!("[{}]", items.join(", ").replace(", \n", ",\n")))
    }

    fn texts<'t>(&mut self, key: &str, items: impl IntoIterator<Item = &'t str>) -> &mut Self {
        self.list(key, items.into_iter().map(quote))
    }
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => write!(quoted, "\\u{:04x}", u32::from(c)).expect("a String takes everything"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn chunker(doc: &mut Doc, params: &ChunkerParams) {
    doc.int("min", params.min).int("avg", params.avg).int("max", params.max);
    doc.int("normalization", params.normalization);
}

fn store_format(doc: &mut Doc, format: &StoreFormat) {
    doc.hex("store", &format.store.0).int("pack-size", format.pack_size);
    doc.texts("must-write", format.features.must_write.iter().map(String::as_str));
    doc.texts("ignorable", format.features.ignorable.iter().map(String::as_str));
    doc.0.push_str("\n[chunker]\n");
    chunker(doc, &format.chunker);
}

fn segments_current(doc: &mut Doc, current: &SegmentsCurrent) {
    doc.hex("store", &current.store.0).int("generation", current.generation);
    for segment in &current.segments {
        doc.section("segments").hex("id", &segment.id.0).int("len", segment.len).int("records", segment.records);
    }
    for condemned in &current.condemned {
        doc.section("condemned").hex("pack", &condemned.pack.0).int("since", condemned.since);
    }
}

fn encoding(doc: &mut Doc, encoding: Encoding) {
    match encoding {
        Encoding::Raw => doc.text("encoding", "raw"),
        Encoding::Zstd => doc.text("encoding", "zstd"),
        Encoding::ZstdDict(dict) => doc.text("encoding", "zstd-dictionary").hex("dictionary", &dict.0),
    };
}

fn pack_kind(kind: PackKind) -> &'static str {
    match kind {
        PackKind::Data => "data",
        PackKind::Manifest => "manifest",
    }
}

fn pack_file(doc: &mut Doc, file: &[u8]) -> Result<(), DecodeError> {
    let (kind, entries) = pack::decode(file)?;
    doc.text("kind", pack_kind(kind));
    let mut plain = BTreeMap::new();
    for entry in entries {
        let bytes = open_record(file, &entry, &plain)?;
        assert_eq!(ChunkId::of(&bytes), entry.id, "a record of a valid pack holds the chunk that it names");
        plain.insert(entry.id, bytes);
        doc.section("entries").hex("id", &entry.id.0).int("offset", entry.offset);
        doc.int("stored-len", entry.stored_len).int("plain-len", entry.plain_len);
        encoding(doc, entry.encoding);
    }
    Ok(())
}

/// The plain bytes of a record; a dictionary lies earlier in the same pack.
fn open_record(file: &[u8], entry: &PackEntry, plain: &BTreeMap<ChunkId, Vec<u8>>) -> Result<Vec<u8>, DecodeError> {
    let start = usize::try_from(entry.offset).expect("a small file");
    let end = start + usize::try_from(entry.stored_len).expect("a small file");
    let dict = entry.encoding.dict().map(|dict| plain[&dict].as_slice());
    decompress(entry.encoding, &file[start..end], entry.plain_len, dict)
}

fn table(doc: &mut Doc, table: &Table<&[u8]>) {
    if let TableKind::Locator { snapshot, base } = table.kind() {
        doc.hex("snapshot", &snapshot.0).bool("full", base.is_none());
        if let Some((base, steps)) = base {
            doc.hex("base", &base.0).int("steps", steps);
        }
    }
    for pack in table.packs() {
        doc.section("packs").hex("id", &pack.id.0).int("file-len", pack.len).text("kind", pack_kind(pack.kind));
    }
    for (id, location) in table.iter() {
        doc.section("records").hex("id", &id.0).hex("pack", &location.pack.0).int("offset", location.offset);
        doc.int("stored-len", location.stored_len).int("plain-len", location.plain_len);
        encoding(doc, location.encoding);
    }
}

fn head(doc: &mut Doc, head: &ManifestHead) {
    doc.hex("root", &head.root.0).int("root-len", head.root_len).int("level", head.level).int("entries", head.entries);
    for (section, names) in [("users", &head.users), ("groups", &head.groups)] {
        for (id, name) in names {
            doc.section(section).int("id", id).bytes("name", name);
        }
    }
}

fn node(doc: &mut Doc, node: &ManifestNode) {
    match node {
        ManifestNode::Leaf(entries) => {
            doc.int("level", 0);
            entries.iter().for_each(|entry| self::entry(doc, entry));
        }
        ManifestNode::Inner { level, children } => {
            doc.int("level", level);
            for child in children {
                doc.section("children").bytes("first", child.first.as_bytes()).hex("id", &child.id.0);
                doc.int("plain-len", child.len).int("entries", child.entries);
            }
        }
    }
}

fn entry(doc: &mut Doc, entry: &Entry) {
    doc.section("entries").bytes("path", entry.path.as_bytes());
    let inode = match &entry.node {
        Node::Link { first } => {
            doc.text("kind", "link").bytes("first", first.as_bytes());
            return;
        }
        Node::Inode(inode) => inode,
    };
    doc.text("kind", kind_name(&inode.kind)).text("mode", &format!("{:04o}", inode.mode));
    doc.int("uid", inode.uid).int("gid", inode.gid).list("mtime", [inode.mtime.secs, inode.mtime.nanos.into()]);
    match &inode.kind {
        InodeKind::File(file) => content(doc, file),
        InodeKind::Symlink(target) => {
            doc.bytes("target", target);
        }
        InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
            doc.list("device", [major, minor]);
        }
        InodeKind::Directory | InodeKind::Fifo | InodeKind::Socket => {}
    }
    if inode.links > 1 {
        doc.int("links", inode.links);
    }
    doc.texts("flags", inode.flags.names());
    acl(doc, "acl", inode.acl.as_ref());
    acl(doc, "default-acl", inode.default_acl.as_ref());
    for (name, value) in &inode.xattrs {
        doc.section("entries.xattrs").bytes("name", name).hex("value", value);
    }
}

fn kind_name(kind: &InodeKind) -> &'static str {
    match kind {
        InodeKind::Directory => "directory",
        InodeKind::File(_) => "file",
        InodeKind::Symlink(_) => "symlink",
        InodeKind::Fifo => "fifo",
        InodeKind::CharDevice { .. } => "character device",
        InodeKind::BlockDevice { .. } => "block device",
        InodeKind::Socket => "socket",
    }
}

fn content(doc: &mut Doc, file: &FileContent) {
    doc.int("size", file.size).hex("hash", &file.hash.0).bool("unstable", file.unstable);
    let runs = match &file.chunks {
        ChunkList::Whole => return,
        ChunkList::Inline(runs) => runs,
        ChunkList::Indirect { depth, runs } => {
            doc.int("list-depth", depth);
            runs
        }
    };
    let runs = runs.iter().map(|run| match run {
        ChunkRun::Data { id, len } => format!("\n    {{ id = \"{id}\", len = {len} }}"),
        ChunkRun::Hole { len } => format!("\n    {{ hole = true, len = {len} }}"),
    });
    doc.list("chunks", runs);
}

fn acl(doc: &mut Doc, key: &str, acl: Option<&Acl>) {
    let Some(acl) = acl else { return };
    doc.texts(key, acl.0.iter().map(ace).collect::<Vec<_>>().iter().map(String::as_str));
}

fn ace(ace: &Ace) -> String {
    match ace.tag {
        AceTag::UserObj => format!("owner {}", ace.perm),
        AceTag::User(id) => format!("user {id} {}", ace.perm),
        AceTag::GroupObj => format!("owning-group {}", ace.perm),
        AceTag::Group(id) => format!("group {id} {}", ace.perm),
        AceTag::Mask => format!("mask {}", ace.perm),
        AceTag::Other => format!("other {}", ace.perm),
    }
}

fn snapshot(doc: &mut Doc, snapshot: &Snapshot) {
    if let Some(parent) = &snapshot.parent {
        doc.hex("parent", &parent.0);
    }
    doc.int("depth", snapshot.depth).list("time", [snapshot.time.secs, snapshot.time.nanos.into()]);
    doc.text("author", &snapshot.author).text("message", &snapshot.message);
    doc.0.push_str("\n[chunker]\n");
    chunker(doc, &snapshot.chunker);
    doc.0.push_str("\n[labels]\n");
    for (key, value) in &snapshot.labels {
        doc.text(&quote(key), value);
    }
    for area in &snapshot.areas {
        doc.section("areas").text("name", &area.name).bytes("root", &area.root);
        doc.hex("manifest", &area.manifest.0).int("manifest-len", area.manifest_len);
        doc.int("entries", area.entries).int("files", area.files).int("bytes", area.bytes);
        doc.int("unstable", area.unstable);
        let rules = &area.rules;
        let lists = [("include", &rules.include), ("exclude", &rules.exclude), ("identity", &rules.identity)];
        for (key, patterns) in lists.into_iter().chain([("xattrs", &rules.xattrs)]) {
            doc.texts(key, patterns.iter().map(String::as_str));
        }
        doc.bool("devices", rules.devices);
    }
}

fn index(doc: &mut Doc, bytes: &[u8]) -> Result<(), DecodeError> {
    for record in decode_index(bytes)? {
        doc.section("records").hex("id", &record.id.0);
        if let Some(parent) = record.parent {
            doc.hex("parent", &parent.0);
        }
        doc.int("time", record.time).int("document-len", record.len);
    }
    Ok(())
}

/// The bases of a vector are outputs of frames before.
fn delta_file(doc: &mut Doc, file: &[u8]) -> Result<(), DecodeError> {
    let delta = Delta::decode_file(file)?;
    doc.hex("target", &delta.target.0);
    if let Some(base) = &delta.base {
        doc.hex("base", &base.0);
    }
    let mut plain: BTreeMap<ChunkId, Vec<u8>> = BTreeMap::new();
    let offsets = delta.payload_offsets(delta.head_len());
    for (frame, offset) in delta.frames.iter().zip(offsets) {
        doc.section("frames").int("encoding", frame.encoding).int("payload-offset", offset);
        doc.int("payload-len", frame.payload_len);
        let chunk = |chunk: &DeltaChunk| quote(&format!("{} {}", chunk.id, chunk.len));
        doc.list("outputs", frame.outputs.iter().map(chunk)).list("bases", frame.bases.iter().map(chunk));
        if frame.encoding > ENCODING_DEFLATE {
            continue;
        }
        let base: Vec<u8> = frame.bases.iter().flat_map(|base| plain[&base.id].clone()).collect();
        let start = usize::try_from(offset).expect("a small file");
        let end = start + usize::try_from(frame.payload_len).expect("a small file");
        let len = usize::try_from(frame.output_len()).expect("a small frame");
        let output = decode(frame.encoding, &base, &file[start..end], len)?;
        let mut rest = output.as_slice();
        for chunk in &frame.outputs {
            let (bytes, after) = rest.split_at(usize::try_from(chunk.len).expect("a small chunk"));
            assert_eq!(ChunkId::of(bytes), chunk.id, "a frame of a valid delta gives the chunks that it names");
            plain.insert(chunk.id, bytes.to_vec());
            rest = after;
        }
    }
    Ok(())
}

fn delta_index(doc: &mut Doc, bytes: &[u8]) -> Result<(), DecodeError> {
    let (target, entries) = delta::decode_index(bytes)?;
    doc.hex("target", &target.0);
    for entry in entries {
        doc.section("entries").hex("delta", &entry.delta.0);
        if let Some(base) = &entry.base {
            doc.hex("base", &base.0);
        }
        doc.int("head-len", entry.head_len).int("file-len", entry.file_len);
    }
    Ok(())
}
