// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The marker: the small file in an area's root that says which area it is, and whether a switch is under way.

use std::path::Path;

use super::{MARKER, TEXT_BYTES_MAX};
use crate::area::PRIVATE_DIR;
use crate::checkout::options::Adopt;
use crate::checkout::refuse;
use crate::error::{Error, Result};
use crate::fsio::Dir;
use crate::id::{SnapshotId, StoreId, decode_hex, encode_hex};

const TITLE: &str = "evenkeel area 1";

/// Random identity of an area on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AreaId(pub [u8; 16]);

impl AreaId {
    fn random(path: &Path) -> Result<AreaId> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| Error::io("draw a random id for", path, std::io::Error::other(e)))?;
        Ok(AreaId(id))
    }
}

/// The marker in an area's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Which area this is.
    pub area: AreaId,
    /// Its name in snapshots.
    pub name: String,
    /// The store it was last checked out from.
    pub store: StoreId,
    /// The snapshot it is at; `None` until the first switch has ended.
    pub applied: Option<SnapshotId>,
    /// The snapshot that a switch was making of it; set only while one runs, or after one was interrupted.
    pub transaction: Option<SnapshotId>,
    /// What that switch does with what was here first, when it is an adoption.
    pub adopting: Option<Adopt>,
    /// The last transaction that was finished; 0 before the first.
    pub finished: u64,
}

impl Marker {
    /// The marker of an area that nothing was ever checked out to.
    pub(super) fn new(path: &Path, name: &str, store: StoreId) -> Result<Marker> {
        let area = AreaId::random(path)?;
        Ok(Marker { area, name: name.into(), store, applied: None, transaction: None, adopting: None, finished: 0 })
    }

    pub(super) fn encode(&self) -> String {
        let id = |id: &Option<SnapshotId>| id.map_or_else(|| "-".to_string(), |id| id.to_hex());
        format!(
            "{TITLE}\narea {}\nname {}\nstore {}\napplied {}\ntransaction {}\nadopting {}\nfinished {}\n",
            encode_hex(&self.area.0),
            self.name,
            self.store,
            id(&self.applied),
            id(&self.transaction),
            self.adopting.map_or("-", Adopt::name),
            self.finished,
        )
    }

    fn decode(text: &str) -> Option<Marker> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != TITLE {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_string);
        let id = |text: String| match text.as_str() {
            "-" => Some(None),
            hex => hex.parse().ok().map(Some),
        };
        let marker = Marker {
            area: AreaId(decode_hex(&field("area")?)?),
            name: field("name")?,
            store: StoreId(decode_hex(&field("store")?)?),
            applied: id(field("applied")?)?,
            transaction: id(field("transaction")?)?,
            adopting: match field("adopting")?.as_str() {
                "-" => None,
                name => Some(Adopt::of_name(name)?),
            },
            finished: field("finished")?.parse().ok()?,
        };
        lines.next().is_none().then_some(marker)
    }
}

/// The marker in an area's root; `None` where there is none.
pub(in crate::checkout) fn read_marker(root: &Dir) -> Result<Option<Marker>> {
    let failed = |e| refuse::private_place(root, "read", e);
    let private = match root.open_dir(PRIVATE_DIR) {
        Ok(private) => private,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let text = match private.read_small(MARKER, TEXT_BYTES_MAX) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => String::from_utf8(bytes).ok(),
        // Too long for a marker, or no file.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => None,
        Err(e) => return Err(failed(e)),
    };
    let marker = text.and_then(|text| Marker::decode(&text));
    marker.map(Some).ok_or_else(|| Error::Refused {
        reason: format!("{} cannot be understood", private.path_of(MARKER).display()),
        hint: Some(
            "if a newer version wrote it, use that one; if it is damaged, remove it, and the next run says how to begin anew"
                .into(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            area: AreaId([7; 16]),
            name: "etc".into(),
            store: StoreId([1; 16]),
            applied: Some(SnapshotId([2; 32])),
            transaction: None,
            adopting: None,
            finished: 7,
        }
    }

    #[test]
    fn marker_round_trip() {
        let (two, three) = (Some(SnapshotId([2; 32])), Some(SnapshotId([3; 32])));
        for (applied, transaction, adopting) in [
            (None, None, None),
            (two, None, None),
            (None, three, None),
            (None, three, Some(Adopt::Keep)),
            (None, three, Some(Adopt::Replace)),
        ] {
            let marker = Marker { applied, transaction, adopting, ..marker() };
            assert_eq!(Marker::decode(&marker.encode()), Some(marker));
        }
        let text = marker().encode();
        for bad in ["", "evenkeel area 2\n", &text[..text.len() - 1], &format!("{text}more\n")] {
            assert_eq!(Marker::decode(bad), None, "{bad:?}");
        }
    }
}
