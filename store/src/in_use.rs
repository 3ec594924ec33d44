// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes that still use files which have given way: they run the old program until they are started anew.
//!
//! Invariant: one pass over `/proc`, and only when something gave way. A process that ends meanwhile is none, one that
//! may not be looked into is counted.

use std::collections::{BTreeSet, HashMap};
use std::io;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::fsio::{self, Process};
use crate::json::PathField;
use crate::path::{TreePath, escape};

/// Inodes by device and number, and the path that each had.
pub type Inodes = HashMap<((u32, u32), u64), TreePath>;

/// Who uses files that gave way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InUse {
    /// Sorted by number.
    pub processes: Vec<Using>,
    /// Processes of others that this one, not being root, could not look into.
    pub not_looked_into: u64,
}

/// One process that maps or has open what gave way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Using {
    /// Its number.
    pub pid: u32,
    /// Its name, cut off after 15 bytes by the system, escaped for terminals.
    pub command: String,
    /// The systemd unit that it belongs to.
    pub unit: Option<String>,
    /// The paths that the files had, relative to the area's root, sorted.
    #[serde(serialize_with = "write_paths", deserialize_with = "read_paths")]
    pub paths: Vec<TreePath>,
}

impl InUse {
    /// Whether nobody is known to use anything.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }
}

fn write_paths<S: Serializer>(paths: &[TreePath], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| PathField::new(path.as_bytes())))
}

fn read_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TreePath>, D::Error> {
    let path = |field: PathField| TreePath::new(field.bytes()?).ok();
    let fields = Vec::<PathField>::deserialize(deserializer)?;
    let paths: Option<Vec<TreePath>> = fields.into_iter().map(path).collect();
    paths.ok_or_else(|| de::Error::custom("not a path below the root"))
}

/// Looks for processes that use one of `inodes`. Where the system does not tell of processes, nobody does.
pub fn find(inodes: &Inodes) -> InUse {
    let mut found = InUse::default();
    if inodes.is_empty() {
        return found;
    }
    let numbers: BTreeSet<u64> = inodes.keys().map(|(_, ino)| *ino).collect();
    for pid in fsio::process_ids().unwrap_or_default() {
        match used_by(pid, inodes, &numbers) {
            Ok(Some(using)) => found.processes.push(using),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => found.not_looked_into += 1,
            Ok(None) | Err(_) => {}
        }
    }
    found.processes.sort_unstable_by_key(|using| using.pid);
    found
}

fn used_by(pid: u32, inodes: &Inodes, numbers: &BTreeSet<u64>) -> io::Result<Option<Using>> {
    let process = Process::open(pid)?;
    let mut paths = BTreeSet::new();
    for stat in process.open_files()? {
        paths.extend(inodes.get(&(stat.dev, stat.ino)).cloned());
    }
    for mapping in process.mappings()? {
        if numbers.contains(&mapping.ino) {
            paths.extend(inodes.get(&process.file_of(&mapping)).cloned());
        }
    }
    if paths.is_empty() {
        return Ok(None);
    }
    let unit = process.control_groups().ok().and_then(|groups| unit_of(&groups));
    let command = escape(&process.command()?);
    Ok(Some(Using { pid, command, unit, paths: paths.into_iter().collect() }))
}

/// The innermost service or scope on the way to a process, of the one hierarchy or of systemd's own.
fn unit_of(groups: &[u8]) -> Option<String> {
    const UNITS: [&str; 2] = [".service", ".scope"];
    let groups = String::from_utf8_lossy(groups);
    let path_of = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (number, name, path) = (fields.next()?, fields.next()?, fields.next()?);
        ((number == "0" && name.is_empty()) || name == "name=systemd").then(|| path.to_owned())
    };
    let is_unit = |name: &&str| UNITS.iter().any(|suffix| name.ends_with(suffix));
    groups
        .lines()
        .filter_map(path_of)
        .find_map(|path| path.split('/').rev().find(is_unit).map(|unit| escape(unit.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsio::Stat;

    #[test]
    fn units() {
        for (groups, unit) in [
            ("0::/system.slice/ssh.service\n", Some("ssh.service")),
            ("0::/user.slice/user-0.slice/user@0.service/app.slice/a.service/inner\n", Some("a.service")),
            ("12:memory:/x.service\n1:name=systemd:/user.slice/session-4.scope\n", Some("session-4.scope")),
            ("0::/\n", None),
            ("0::/system.slice\n", None),
            ("", None),
        ] {
            assert_eq!(unit_of(groups.as_bytes()).as_deref(), unit, "{groups}");
        }
    }

    #[test]
    fn json_holds_every_byte_of_a_path() {
        let paths = vec![TreePath::new("usr/sbin/sshd").unwrap(), TreePath::new(b"a\xff").unwrap()];
        let using = Using { pid: 812, command: "sshd".into(), unit: None, paths };
        let in_use = InUse { processes: vec![using], not_looked_into: 3 };
        let text = serde_json::to_string(&in_use).unwrap();
        assert!(text.contains(r#"{"path":"usr/sbin/sshd"}"#), "{text}");
        assert_eq!(serde_json::from_str::<InUse>(&text).unwrap(), in_use);
    }

    #[test]
    fn users_of_a_mapped_and_of_an_open_file() {
        let temp = tempfile::tempdir().unwrap();
        let (program, open) = (temp.path().join("program"), temp.path().join("open"));
        std::fs::copy("/bin/sleep", &program).unwrap();
        std::fs::write(&open, "x").unwrap();
        let stat = |path: &std::path::Path| Stat::of_fd(std::fs::File::open(path).unwrap()).unwrap();
        let (one, two) = (stat(&program), stat(&open));
        let name = |text: &str| TreePath::new(text).unwrap();
        let inodes = Inodes::from([((one.dev, one.ino), name("program")), ((two.dev, two.ino), name("open"))]);
        assert_eq!(find(&inodes).processes, []);
        let stdin = std::fs::File::open(&open).unwrap();
        let mut child = std::process::Command::new(&program).arg("100").stdin(stdin).spawn().unwrap();
        std::fs::remove_file(&program).unwrap();
        let found = find(&inodes).processes;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].pid, found[0].command.as_str()), (child.id(), "program"));
        assert_eq!(found[0].paths, [name("open"), name("program")]);
        assert_eq!(find(&inodes).processes, []);
        assert_eq!(find(&Inodes::new()), InUse::default());
    }
}
