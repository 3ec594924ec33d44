// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes a live tree equal to a snapshot: `plan → stage → prove → switch → record`.
//!
//! - [`fidelity`] finds out what the place can hold.
//! - [`merge`] compares target manifest, last applied manifest and live tree; [`plan`] is the result, a plain value.
//! - [`stage`] makes everything new in the area's private directory; [`switch`] gives it its names, one atomic step each.
//! - [`record`] remembers what was delivered; [`state`] is where the memory is, with marker and lock.
//! - [`change_record`](mod@change_record) tells what was done, why, and who asked; [`who`] tells who changed something here.
//! - [`explain`](mod@explain) tells of one path why it is as it is.
//! - [`run`] drives all of it; [`drift`] compares a live tree with what was last applied.
//!
//! Invariants: a live file is never written into; nothing live changes before everything new is staged and durable;
//! everything live is reached through held directories; nothing stays different without being reported.

mod apply;
mod chain;
mod change_record;
mod compare;
mod conflict;
mod displaced;
mod drift;
mod explain;
mod fidelity;
mod history;
mod journal;
mod lift;
mod live;
mod merge;
mod options;
mod owners;
mod packages;
mod plan;
mod record;
mod refuse;
mod report;
mod rollback;
mod run;
mod saved_plan;
mod stage;
mod standing;
mod state;
mod steps;
mod switch;
mod transaction;
mod tree;
mod users;
mod who;

pub use change_record::{
    AskedBy, ChangeLine, ChangeRecord, ChangedLine, CountFields, EndLine, HeaderLine, InUseLine, KeptLine, Line,
    NotHeldLine, PathLine, RecordLimits, RecordLines, Recovered, SealLine, SetAsideLine, SkippedLine, Source,
    change_record,
};
pub use compare::Difference;
pub use conflict::{ConflictPolicy, ConflictRule};
pub use drift::{AreaStatus, DriftEntry, DriftKind, StatusOptions, StatusReport, status, verify};
pub use explain::{Exclusion, ExclusionKind, Explanation, Now, SnapshotNote, explain};
pub use fidelity::{Loss, NotHeld};
pub use history::{Record, history, journal_state};
pub use merge::{AppliedEntry, LiveTree, MergeRules, plan_area};
pub use options::{Adopt, AreaTarget, Ceiling, CheckoutOptions, Mode, SwitchMode, UndoLimits};
pub use packages::WAIT_PACKAGES_S;
pub use plan::{
    Action, Change, CheckoutPlan, Counts, DroppedEntry, Kept, KeptBecause, Outcome, Reason, Skipped, Wanted,
};
pub use report::{AreaReport, ChangeKind, CheckoutReport, PathChange, SetAside};
pub use rollback::{AreaRecovery, AreaRollback, BackOptions, can_roll_back, recover, rollback, undo};
pub use run::{checkout, checkout_telling};
pub use saved_plan::SavedPlan;
pub use standing::{Standing, standing};
pub use state::{is_area, known_areas};
pub use transaction::JournalState;
pub use who::{ChangedBy, PackageOwner, WHO_PATHS_MAX, who_changed};
