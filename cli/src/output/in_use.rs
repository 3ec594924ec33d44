// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes that still use what gave way, for people.

use evenkeel_store::in_use::{InUse, Using};

use super::Output;
use super::text::{counted, number};
use crate::error::Result;

/// Processes that are listed without `-v`.
const SHOWN: usize = 10;
/// Paths of one process that are listed without `-v`.
const PATHS_SHOWN: usize = 3;

/// Lists who has to be started anew.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(out: &Output, in_use: &InUse) -> Result<()> {
    let verbose = out.verbose > 0;
    let found = in_use.processes.len();
    // Where nobody is known to use anything, this would be said after nearly every checkout of who is not root.
    if in_use.not_looked_into > 0 && (found > 0 || out.verbose > 1) {
        let processes = counted(in_use.not_looked_into, "process");
        out.note(format_args!("{processes} of others could not be looked into, and may use replaced files, too"));
    }
    if found == 0 {
        return Ok(());
    }
    let use_or_uses = if found == 1 { "uses" } else { "use" };
    let heading = format!("{} still {use_or_uses} replaced files:", counted(found as u64, "process"));
    out.line(format_args!("  {}", out.paint.changed(heading)))?;
    let shown = if verbose { found } else { SHOWN };
    for using in in_use.processes.iter().take(shown) {
        out.line(format_args!("    {}", one(using, verbose)))?;
    }
    if found > shown {
        out.line(format_args!("    … and {} more (-v lists all)", number((found - shown) as u64)))?;
    }
    Ok(())
}

/// `sshd (pid 812, ssh.service): usr/sbin/sshd, usr/lib/libc.so.6`.
fn one(using: &Using, verbose: bool) -> String {
    let shown = if verbose { usize::MAX } else { PATHS_SHOWN };
    let mut paths: Vec<String> = using.paths.iter().take(shown).map(ToString::to_string).collect();
    if using.paths.len() > shown {
        paths.push("…".into());
    }
    let unit = using.unit.as_deref().unwrap_or("-");
    format!("{} (pid {}, {unit}): {}", using.command, using.pid, paths.join(", "))
}
