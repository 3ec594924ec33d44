// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exit codes: part of the interface, so they only ever grow. `evenkeel help exit-codes` prints this table.

use std::process::ExitCode;

use serde::Serialize;

/// How the program ended. Codes that are not listed mean failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line or the configuration makes no sense.
    Usage = 2,
    /// Finished, but some entries failed.
    Partial = 3,
    /// Nothing to do, and `--exit-nothing` was given.
    Nothing = 4,
    /// Drift found, by `status` or `verify`.
    Drift = 5,
    /// Store not found, or not a store.
    NoStore = 10,
    /// Locked by another process.
    Locked = 11,
    /// Damaged data found.
    Damaged = 12,
    /// The store's server cannot be reached, or does not answer as one.
    Server = 16,
    /// The server's certificate is not accepted.
    Untrusted = 17,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Every documented code with its meaning, in order; some are used only by parts that come later.
pub const TABLE: &[(u8, &str)] = &[
    (0, "done; also when there was nothing to do"),
    (1, "failed; nothing was changed, or the error says what was"),
    (2, "usage: the command line or the configuration makes no sense"),
    (3, "finished, but some entries failed; each was named"),
    (4, "nothing to do (only with --exit-nothing)"),
    (5, "drift found, or a configured area was never checked out (status and verify only)"),
    (10, "store not found, or the directory is not a store"),
    (11, "locked by another process; try again later"),
    (12, "damaged data found; what and whom it hurts was named"),
    (13, "not trusted: signature, threshold or rollback"),
    (14, "stale: freshness expired"),
    (15, "outside the maintenance window"),
    (16, "the store's server cannot be reached, or does not answer as one; nothing was changed"),
    (17, "the server's certificate is not accepted; nothing was changed"),
    (130, "interrupted (Ctrl-C, SIGTERM)"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented() {
        let used = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::Nothing,
            Exit::Drift,
            Exit::NoStore,
            Exit::Locked,
            Exit::Damaged,
            Exit::Server,
            Exit::Untrusted,
            Exit::Interrupted,
        ];
        for exit in used {
            assert!(TABLE.iter().any(|(code, _)| *code == exit.code()), "{exit:?}");
        }
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
