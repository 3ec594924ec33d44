// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who changed a path, for people.

use evenkeel_store::checkout::ChangedBy;

use super::text::time;

/// `owner alice (uid 1000), written 2026-11-22 16:00:48, changed 2026-11-22 16:00:48, package nginx`.
pub fn told(who: &ChangedBy) -> String {
    let mut parts = Vec::new();
    if let Some(uid) = who.uid {
        parts.push(match &who.user {
            Some(user) => format!("owner {user} (uid {uid})"),
            None => format!("owner uid {uid}"),
        });
    }
    match (who.mtime, who.ctime) {
        (Some(mtime), Some(ctime)) if time(mtime.0) == time(ctime.0) => {
            parts.push(format!("written {}", time(mtime.0)));
        }
        (mtime, ctime) => {
            parts.extend(mtime.map(|mtime| format!("written {}", time(mtime.0))));
            parts.extend(ctime.map(|ctime| format!("changed {}", time(ctime.0))));
        }
    }
    parts.push(match &who.package {
        None => "package unknown".to_owned(),
        Some(package) if package.at_that_time => {
            format!("package {}, installed or upgraded at that time", package.name)
        }
        Some(package) => format!("package {}", package.name),
    });
    parts.join(", ")
}
