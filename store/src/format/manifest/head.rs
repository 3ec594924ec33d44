// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The manifest head (format-spec §40.3).

use std::collections::BTreeMap;

use super::{ManifestHead, Timestamp};
use crate::format::cbor::{self, Document, Key, Reader, Writer};
use crate::format::{DecodeError, Reason};
use crate::id::ChunkId;
use crate::limits;

const HEAD: Document = Document {
    object: "manifest head",
    type_name: "evenkeel/manifest",
    bytes_max: limits::NODE_BYTES_MAX as u64,
    features: None,
};

impl Timestamp {
    pub(in crate::format) fn write(&self, w: &mut Writer<'_>) {
        w.array(2).int(self.secs).uint(self.nanos);
    }

    pub(in crate::format) fn read(r: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        r.tuple(field, 2)?;
        Ok(Timestamp { secs: r.int(field)?, nanos: r.small(field, 0, 999_999_999)? })
    }
}

impl ManifestHead {
    /// The document's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + 32 * (self.users.len() + self.groups.len()));
        let mut w = Writer::new(&mut out);
        w.map(8).text("root").bytes(&self.root.0).text("type").text(HEAD.type_name);
        w.text("level").uint(self.level).text("users");
        write_names(&mut w, &self.users);
        w.text("groups");
        write_names(&mut w, &self.groups);
        w.text("entries").uint(self.entries).text("version").uint(cbor::VERSION);
        w.text("root-len").uint(self.root_len);
        out
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`DecodeError`] at the first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let r = &mut HEAD.open(bytes)?;
        let keys = &mut r.map("head")?;
        r.required(keys, Key::Text("root"))?;
        let root = ChunkId(r.array("root")?);
        HEAD.read_type(r, keys)?;
        r.required(keys, Key::Text("level"))?;
        let level = r.small("level", 0, limits::MANIFEST_LEVEL_MAX.into())?;
        r.required(keys, Key::Text("users"))?;
        let users = read_names(r, "users")?;
        r.required(keys, Key::Text("groups"))?;
        let groups = read_names(r, "groups")?;
        r.required(keys, Key::Text("entries"))?;
        let entries = r.uint_in("entries", 1, u64::MAX)?;
        HEAD.read_version(r, keys)?;
        r.required(keys, Key::Text("root-len"))?;
        let root_len = r.small("root-len", 1, limits::NODE_BYTES_MAX.into())?;
        r.end(keys, "head")?;
        r.finish()?;
        Ok(ManifestHead { root, root_len, level, entries, users, groups })
    }
}

fn write_names(w: &mut Writer<'_>, names: &BTreeMap<u32, Vec<u8>>) {
    w.map(names.len());
    for (id, name) in names {
        w.uint(*id).bytes(name);
    }
}

fn read_names(r: &mut Reader<'_>, field: &'static str) -> Result<BTreeMap<u32, Vec<u8>>, DecodeError> {
    let count = r.map_len(field, limits::OWNER_NAMES_MAX)?;
    let mut names = BTreeMap::new();
    let mut last = (0, 0);
    for _ in 0..count {
        let start = r.offset();
        let id = r.small(field, 0, u32::MAX.into())?;
        r.ascending(&mut last, start, field)?;
        let start = r.offset();
        let name = r.bytes(field, limits::NAME_BYTES_MAX)?;
        if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b':' | b'\n')) {
            return Err(r.error(start, field, Reason::Rule("not a name of a user or group")));
        }
        names.insert(id, name.to_vec());
    }
    Ok(names)
}
