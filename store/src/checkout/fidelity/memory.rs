// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was found out about a place is remembered, for whoever only looks: a dry run changes nothing, not even to try.
//!
//! ```text
//! STATE/areas/<area id>/holds   one JSON object
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Fidelity;
use crate::error::Result;
use crate::fsio;

const NAME: &str = "holds";
/// Longest memory that is read, in bytes: a user may be in 65,536 groups.
const BYTES_MAX: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Memory {
    /// Who tried.
    uid: u32,
    found: Fidelity,
}

impl Fidelity {
    /// Remembers it in an area's state directory.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub(in super::super) fn remember(&self, state: &Path) -> Result<()> {
        let memory = Memory { uid: fsio::effective_owner().0, found: self.clone() };
        let text = serde_json::to_vec(&memory).expect("numbers and words");
        let path = state.join(NAME);
        if fsio::read_capped(&path, BYTES_MAX).is_ok_and(|known| known == text) {
            return Ok(());
        }
        fsio::publish_file(&path, &text)
    }

    /// What is remembered; without a memory that fits, what this process may do anywhere.
    pub(in super::super) fn remembered(state: &Path) -> Fidelity {
        let text = fsio::read_capped(&state.join(NAME), BYTES_MAX).ok();
        let memory = text.and_then(|text| serde_json::from_slice::<Memory>(&text).ok());
        let fits = memory.filter(|memory| memory.uid == fsio::effective_owner().0 && memory.found.time_step > 0);
        fits.map_or_else(Fidelity::of_this_process, |memory| memory.found)
    }
}

/// Inode flags as one number.
pub(super) mod flag_bits {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::format::manifest::InodeFlags;

    pub(in super::super) fn serialize<S: Serializer>(flags: &InodeFlags, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(flags.0)
    }

    pub(in super::super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<InodeFlags, D::Error> {
        u16::deserialize(from).map(InodeFlags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_for_whoever_tried() {
        let dir = tempfile::tempdir().unwrap();
        let here = Fidelity::of_this_process();
        let poor = Fidelity { acls: !here.acls, time_step: 1000, ..here.clone() };
        assert_eq!(format!("{:?}", Fidelity::remembered(dir.path())), format!("{here:?}"));
        poor.remember(dir.path()).unwrap();
        assert_eq!(format!("{:?}", Fidelity::remembered(dir.path())), format!("{poor:?}"));
        let path = dir.path().join(NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        for bad in ["", "{}", &text.replace("\"uid\":", "\"uid\":1"), &text.replace("1000", "0")] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(format!("{:?}", Fidelity::remembered(dir.path())), format!("{here:?}"), "{bad}");
        }
    }
}
