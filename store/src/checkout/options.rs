// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a caller may ask of a checkout.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::change_record::{AskedBy, RecordLimits};
use super::conflict::{ConflictPolicy, ConflictRule};
use super::saved_plan::SavedPlan;
use crate::id::SnapshotId;

/// How far a checkout goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refreshes what the reference has and adds what is missing; removes nothing, keeps local changes and says so.
    Incremental,
    /// Makes the area equal to the reference: local changes are undone, what the reference lacks is removed.
    Full,
    /// As [`Mode::Full`], but trusts no fingerprint: every live byte is read and compared.
    Force,
}

impl Mode {
    /// Whether this mode also removes and restores.
    pub fn is_full(self) -> bool {
        self != Mode::Incremental
    }
}

/// What the first checkout onto a tree that is not empty does with what differs. Nothing is deleted either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adopt {
    /// The reference replaces it.
    Replace,
    /// It is kept and reported.
    Keep,
}

impl Adopt {
    const NAMES: [(Adopt, &'static str); 2] = [(Adopt::Replace, "replace"), (Adopt::Keep, "keep")];

    /// As it is written in an area's marker.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(adopt, _)| *adopt == self).map_or("", |(_, name)| name)
    }

    pub(super) fn of_name(name: &str) -> Option<Adopt> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(adopt, _)| *adopt)
    }
}

/// How many removals are allowed before nothing at all is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// This many.
    Count(u64),
    /// This share of the area's entries, in percent.
    Percent(u64),
    /// The greater of both.
    Greater {
        /// This many …
        count: u64,
        /// … or this share in percent.
        percent: u64,
    },
}

impl Ceiling {
    /// Default for strays.
    pub const STRAYS: Ceiling = Ceiling::Greater { count: 20, percent: 2 };
    /// Default for release removals: what was delivered and is no longer in the reference.
    pub const RELEASE: Ceiling = Ceiling::Greater { count: 100, percent: 25 };

    /// The number of removals allowed in an area of `entries` entries.
    pub fn limit(self, entries: u64) -> u64 {
        let share = |percent: u64| entries.saturating_mul(percent) / 100;
        match self {
            Ceiling::Count(count) => count,
            Ceiling::Percent(percent) => share(percent),
            Ceiling::Greater { count, percent } => count.max(share(percent)),
        }
    }
}

/// How what is staged takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwitchMode {
    /// File by file, with a journal; what gives way is kept.
    #[default]
    Files,
    /// A complete new tree is made beside the old one, and they change places in one step. Full and force only.
    Tree,
    /// File by file, with neither: what is cut off is a mixture, what gives way is gone. For measurements only.
    Direct,
}

/// How long what gave way is kept. What the last checkout displaced is always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndoLimits {
    /// At most so many checkouts can be taken back.
    pub records: usize,
    /// Nothing older is kept, in seconds.
    pub seconds: i64,
    /// No more than this is kept in all, in bytes.
    pub bytes: u64,
}

impl Default for UndoLimits {
    fn default() -> Self {
        const MONTH: i64 = 30 * 24 * 3600;
        UndoLimits { records: 3, seconds: MONTH, bytes: u64::MAX }
    }
}

/// One area and where it belongs on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaTarget {
    /// Name in the snapshot.
    pub name: String,
    /// Its root here. Made when it does not exist (its parent must).
    pub root: PathBuf,
    /// Further patterns of what does not belong to the area here; a local rule can only exclude more.
    pub exclude: Vec<String>,
    /// For paths that changed on both sides (incremental only).
    pub conflict: ConflictPolicy,
    /// Other policies for some of them; of several that fit, the last decides.
    pub conflict_rules: Vec<ConflictRule>,
    /// Takes owners by number, not by name.
    pub numeric_owners: bool,
    /// Whether files with set-id bits or capabilities may come here.
    pub set_id: bool,
    /// How long a package manager that is at work on files of this area is waited for, in seconds.
    pub wait_packages_s: u64,
}

impl AreaTarget {
    /// An area with nothing special about it.
    pub fn new(name: impl Into<String>, root: impl Into<PathBuf>) -> Self {
        AreaTarget {
            name: name.into(),
            root: root.into(),
            exclude: Vec::new(),
            conflict: ConflictPolicy::default(),
            conflict_rules: Vec::new(),
            numeric_owners: false,
            set_id: true,
            wait_packages_s: super::packages::WAIT_PACKAGES_S,
        }
    }
}

/// What to check out, where, and within which bounds.
#[derive(Debug, Clone)]
pub struct CheckoutOptions {
    /// The reference.
    pub snapshot: SnapshotId,
    /// Areas to change; areas of the snapshot that are not listed stay untouched.
    pub areas: Vec<AreaTarget>,
    /// `None`: full into an empty or new directory, incremental onto an ancestor, otherwise refused.
    pub mode: Option<Mode>,
    /// Stops after the plan; changes nothing, not even the area's own `.evenkeel`.
    pub dry_run: bool,
    /// Fetches what the checkout would need and keeps it for that; changes nothing live.
    pub fetch_only: bool,
    /// Directories whose files may have content that is needed.
    pub seeds: Vec<PathBuf>,
    /// Gives the plan as a thing that can be saved.
    pub save_plan: bool,
    /// Goes on only if the plan is this one still.
    pub approved: Option<Arc<SavedPlan>>,
    /// Needed for the first checkout onto a tree that is not empty.
    pub adopt: Option<Adopt>,
    /// Ceiling of strays removed, in each area.
    pub max_delete: Ceiling,
    /// Ceiling of release removals, in each area.
    pub max_removals: Ceiling,
    /// How what is staged takes its place.
    pub switch: SwitchMode,
    /// Allows a tree switch although processes use the old tree.
    pub allow_busy: bool,
    /// How long what gives way is kept.
    pub undo: UndoLimits,
    /// How many records of what was done are kept.
    pub records: RecordLimits,
    /// Who or what asks; it is recorded.
    pub asked_by: Option<AskedBy>,
    /// Refuses a place that cannot hold all of the reference.
    pub exact: bool,
    /// Allows a reference with nothing but its root.
    pub allow_empty: bool,
    /// This machine's state directory.
    pub state_dir: PathBuf,
    /// Workers; 0 = one for each processor.
    pub threads: usize,
    /// Absolute paths that no checkout touches: the program, its state, its configuration, its store.
    pub protected: Vec<PathBuf>,
}

impl CheckoutOptions {
    /// The defaults for `snapshot`, with no areas yet.
    pub fn new(snapshot: SnapshotId, state_dir: PathBuf) -> Self {
        CheckoutOptions {
            snapshot,
            areas: Vec::new(),
            mode: None,
            dry_run: false,
            fetch_only: false,
            seeds: Vec::new(),
            save_plan: false,
            approved: None,
            adopt: None,
            max_delete: Ceiling::STRAYS,
            max_removals: Ceiling::RELEASE,
            switch: SwitchMode::Files,
            allow_busy: false,
            undo: UndoLimits::default(),
            records: RecordLimits::default(),
            asked_by: None,
            exact: false,
            allow_empty: false,
            state_dir,
            threads: 0,
            protected: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings() {
        for (ceiling, entries, limit) in [
            (Ceiling::STRAYS, 0, 20),
            (Ceiling::STRAYS, 1000, 20),
            (Ceiling::STRAYS, 1050, 21),
            (Ceiling::RELEASE, 400, 100),
            (Ceiling::RELEASE, 408, 102),
            (Ceiling::Count(0), u64::MAX, 0),
            (Ceiling::Percent(100), 7, 7),
        ] {
            assert_eq!(ceiling.limit(entries), limit, "{ceiling:?} of {entries}");
        }
    }
}
