// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a pack holds, by its own account.

use crate::backend::{Backend, Object, ObjectName};
use crate::error::{Error, Result};
use crate::format::pack::{self, HEADER_LEN, PackEntry, TRAILER_LEN};
use crate::format::table::{Location, TablePack};
use crate::format::{DecodeError, Reason};
use crate::id::{ChunkId, PackId};
use crate::limits;
use crate::store::damaged;

/// A pack's checked footer.
#[derive(Debug, Clone)]
pub struct Footer {
    /// Name, length and kind.
    pub pack: TablePack,
    /// Its records, in file order.
    pub entries: Vec<PackEntry>,
}

impl Footer {
    /// The records as an index holds them.
    pub fn locations(&self) -> impl Iterator<Item = (ChunkId, Location)> + '_ {
        self.entries.iter().map(|entry| (entry.id, location(self.pack.id, entry)))
    }
}

/// A record's place.
pub(super) fn location(pack: PackId, entry: &PackEntry) -> Location {
    Location {
        pack,
        offset: entry.offset,
        stored_len: entry.stored_len,
        plain_len: entry.plain_len,
        encoding: entry.encoding,
    }
}

/// Reads and checks header, trailer and footer. The records themselves are not read.
///
/// # Errors
/// [`Error::MissingObject`], [`Error::Decode`] for a pack that breaks the format, [`Error::Io`].
pub fn read_footer(backend: &dyn Backend, id: &PackId) -> Result<Footer> {
    let name = ObjectName::Pack(*id);
    let file = backend.open(&name)?.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    let len = file.size()?;
    let shortest = (HEADER_LEN + TRAILER_LEN) as u64;
    if len < shortest || len > limits::PACK_BYTES_MAX {
        let reason = if len < shortest {
            Reason::Truncated
        } else {
            Reason::Limit { found: len, limit: limits::PACK_BYTES_MAX }
        };
        return Err(damaged(&name)(DecodeError { object: "pack", offset: len, field: "file", reason }));
    }
    let mut trailer = [0; TRAILER_LEN];
    file.read_exact_at(&mut trailer, len - TRAILER_LEN as u64)?;
    let trailer = pack::decode_trailer(&trailer, len).map_err(damaged(&name))?;
    let footer_len = len - TRAILER_LEN as u64 - trailer.footer_offset;
    let mut footer = vec![0; usize::try_from(footer_len).expect("bounded by the pack's length")];
    file.read_exact_at(&mut footer, trailer.footer_offset)?;
    let entries = pack::decode_footer(&footer, &trailer).map_err(damaged(&name))?;
    let kind = header_kind(&*file, &name)?;
    Ok(Footer { pack: TablePack { id: *id, len, kind }, entries })
}

/// Reads a pack's kind from its header.
///
/// # Errors
/// As [`read_footer`].
pub fn read_kind(backend: &dyn Backend, id: &PackId) -> Result<pack::PackKind> {
    let name = ObjectName::Pack(*id);
    let file = backend.open(&name)?.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    header_kind(&*file, &name)
}

fn header_kind(file: &dyn Object, name: &ObjectName) -> Result<pack::PackKind> {
    let mut header = [0; HEADER_LEN];
    file.read_exact_at(&mut header, 0)?;
    pack::decode_header(&header).map_err(damaged(name))
}
