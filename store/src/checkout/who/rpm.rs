// SPDX-License-Identifier: Apache-2.0 OR MIT
//! rpm's database is a binary of changing kinds, so rpm itself is asked, where it is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Owner;
use crate::format::manifest::Timestamp;
use crate::fsio;
use crate::path::escape;

/// Where it is; whatever else is called so is not asked.
pub(super) const PROGRAM: &str = "/usr/bin/rpm";
/// Paths that it is asked about at once.
const BATCH: usize = 200;
/// Paths that it is asked about in all: each costs it a lookup.
const PATHS_MAX: usize = 1000;

/// The owners of `paths` by the running system's rpm; unknown where it is not, or does not answer as it should.
pub(super) fn owners(program: &Path, paths: &[Vec<u8>]) -> Vec<Owner> {
    let mut found = Vec::with_capacity(paths.len());
    if fsio::exists(program).unwrap_or(false) {
        for batch in paths[..paths.len().min(PATHS_MAX)].chunks(BATCH) {
            found.extend(ask(program, batch).unwrap_or_else(|| vec![None; batch.len()]));
        }
    }
    found.resize(paths.len(), None);
    found
}

/// One line an answer: name, tab, time; or a sentence about a path that nobody owns.
fn ask(program: &Path, paths: &[Vec<u8>]) -> Option<Vec<Owner>> {
    let mut rpm = Command::new(program);
    rpm.env_clear().env("LC_ALL", "C").args(["-qf", "--qf", "%{NAME}.%{ARCH}\\t%{INSTALLTIME}\\n", "--"]);
    let output = rpm.args(paths.iter().map(|path| OsStr::from_bytes(path))).stdin(Stdio::null()).output().ok()?;
    // It tells of errors on stdout, one line each; a path of two packages has two, and then no line is anybody's for sure.
    let lines: Vec<&[u8]> = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let all = lines.iter().map(|line| owner(line)).collect::<Vec<_>>();
    (all.len() == paths.len()).then_some(all)
}

fn owner(line: &[u8]) -> Owner {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    let secs: Option<i64> = std::str::from_utf8(&line[at + 1..]).ok().and_then(|secs| secs.parse().ok());
    Some((escape(&line[..at]), secs.map(|secs| Timestamp { secs, nanos: 0 })))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fsio::{Dir, FdAttrs};

    fn program(dir: &Path, script: &str) -> std::path::PathBuf {
        let path = dir.join("rpm");
        fsio::publish_file(&path, format!("#!/bin/sh\n{script}").as_bytes()).unwrap();
        let file = Dir::open(dir).unwrap().open_file(b"rpm").unwrap();
        FdAttrs(file.as_fd()).set_mode(0o755).unwrap();
        path
    }

    #[test]
    fn answers_are_believed_only_as_they_should_be() {
        let temp = tempfile::tempdir().unwrap();
        let paths = [b"/etc/a".to_vec(), b"/etc/b".to_vec()];
        let none = temp.path().join("none");
        assert_eq!(owners(&none, &paths), [None, None]);
        let two =
            program(temp.path(), "printf 'a.noarch\\t1700000000\\nfile /etc/b is not owned by any package\\n'; exit 1");
        let a = Some(("a.noarch".to_owned(), Some(Timestamp { secs: 1_700_000_000, nanos: 0 })));
        assert_eq!(owners(&two, &paths), [a, None]);
        let three = program(temp.path(), "printf 'a\\t1\\nb\\t2\\nc\\t3\\n'");
        assert_eq!(owners(&three, &paths), [None, None]);
    }
}
