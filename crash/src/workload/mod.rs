// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What runs on the recorded disk, and what has to hold on what a power cut leaves of it.

mod checkout;
mod commit;
mod toy;

use std::path::Path;

use crate::random::Random;

/// Where a workload runs. The paths are the same when it is recorded and when a crash state is examined.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The recorded file system.
    pub inside: &'a Path,
    /// A directory that no power cut touches.
    pub outside: &'a Path,
}

/// Tells the recorder where steps begin and where their success is reported.
pub trait Marks {
    /// The next step begins.
    fn begin(&self);
    /// The step that began last reported success: from now on it has to survive.
    fn acknowledge(&self);
}

/// What is known of a crash state.
#[derive(Debug)]
pub struct Crash {
    /// Steps that had been acknowledged.
    pub acknowledged: usize,
    /// Whether a further step had begun to write.
    pub in_progress: bool,
    /// For choices that differ from state to state.
    pub random: Random,
}

/// One workload. Everything that a [`Checker`] needs to know is in [`Place::outside`], or on the disk before
/// the recording, so that a recording can be examined by another process and kept for later.
pub trait Workload: Sync {
    fn name(&self) -> &'static str;

    /// Whether this is a protocol that is known to be wrong: the harness must find it broken.
    fn is_broken(&self) -> bool {
        false
    }

    /// Share of the states of a run.
    fn weight(&self) -> u64;

    /// Fills both places; what is on the disk afterwards counts as durable.
    fn prepare(&self, place: Place<'_>);

    /// The recorded part.
    fn run(&self, place: Place<'_>, marks: &dyn Marks);

    /// Reads, once for many states, what the checks compare with; the disk is as it was before the recording.
    fn checker(&self, place: Place<'_>) -> Box<dyn Checker>;
}

/// Knows what has to hold.
pub trait Checker {
    /// Examines a mounted crash state, and goes on working with it as its owner would.
    ///
    /// # Panics
    /// Something does not hold.
    fn check(&self, place: Place<'_>, crash: Crash);
}

/// Every workload, those of the self-test among them.
pub const ALL: &[&dyn Workload] = &[
    &commit::Commits,
    &checkout::FIRST,
    &checkout::UPDATE,
    &checkout::BACK_AND_FORTH,
    &checkout::TREES,
    &checkout::TAKEN_BACK,
    &checkout::TREES_TAKEN_BACK,
    &toy::SOUND,
    &toy::NO_FILE_SYNC,
    &toy::NO_DIR_SYNC,
];
