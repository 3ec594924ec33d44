// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Other processes of this machine, as `/proc` shows them.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::AtFlags;

use super::dir::Dir;
use super::stat::Stat;

/// Longest small file of a process that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// Longest list of mappings that is read, in bytes.
const MAPS_BYTES_MAX: u64 = 64 << 20;

/// Numbers of the processes that run now, without this one.
///
/// # Errors
/// What the system says; `NotFound` where there is no `/proc`.
pub fn process_ids() -> io::Result<Vec<u32>> {
    let own = rustix::process::getpid().as_raw_pid().unsigned_abs();
    let names = open("/proc")?.names()?;
    let ids = names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok());
    Ok(ids.filter(|pid| *pid != own).collect())
}

fn open(path: &str) -> io::Result<Dir> {
    Dir::open(Path::new(path)).map_err(|e| match e {
        crate::Error::Io { source, .. } => source,
        other => io::Error::other(other),
    })
}

/// One process. It may end at any time: every call may fail then.
#[derive(Debug)]
pub struct Process {
    dir: Dir,
}

/// A part of a file that a process has in its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Inode number of the file.
    pub ino: u64,
    /// Device number, which some file systems give otherwise than `stat` does.
    dev: (u32, u32),
    /// Its addresses, as the system writes them.
    range: String,
}

impl Process {
    /// The process of this number.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(pid: u32) -> io::Result<Process> {
        Ok(Process { dir: open(&format!("/proc/{pid}"))? })
    }

    fn read(&self, name: &[u8], cap: u64) -> io::Result<Vec<u8>> {
        let file = std::fs::File::from(self.dir.open_file(name)?);
        let mut bytes = Vec::new();
        file.take(cap).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What it calls itself, cut off after 15 bytes by the system.
    ///
    /// # Errors
    /// What the system says.
    pub fn command(&self) -> io::Result<Vec<u8>> {
        let mut name = self.read(b"comm", TEXT_BYTES_MAX)?;
        if name.last() == Some(&b'\n') {
            name.pop();
        }
        Ok(name)
    }

    /// The control groups that it is in, a line each.
    ///
    /// # Errors
    /// What the system says.
    pub fn control_groups(&self) -> io::Result<Vec<u8>> {
        self.read(b"cgroup", TEXT_BYTES_MAX)
    }

    /// What it has open, its working directory and its root included.
    ///
    /// # Errors
    /// What the system says; `PermissionDenied` where this process may not look.
    pub fn open_files(&self) -> io::Result<Vec<Stat>> {
        let descriptors = self.dir.open_dir(b"fd")?;
        // One that was closed meanwhile is none.
        let mut found: Vec<Stat> =
            descriptors.names()?.iter().filter_map(|name| through(&descriptors, name).ok()).collect();
        found.extend([&b"cwd"[..], b"root"].iter().filter_map(|name| through(&self.dir, name).ok()));
        Ok(found)
    }

    /// The parts of files that it has mapped, its program and libraries included.
    ///
    /// # Errors
    /// What the system says; `PermissionDenied` where this process may not look.
    pub fn mappings(&self) -> io::Result<Vec<Mapping>> {
        let maps = self.read(b"maps", MAPS_BYTES_MAX)?;
        Ok(maps.split(|b| *b == b'\n').filter_map(parse_mapping).collect())
    }

    /// The file's device and inode number as `stat` gives them; where this process may not look, as the list has them.
    pub fn file_of(&self, mapping: &Mapping) -> ((u32, u32), u64) {
        let name = format!("map_files/{}", mapping.range);
        through(&self.dir, name.as_bytes()).map_or((mapping.dev, mapping.ino), |stat| (stat.dev, stat.ino))
    }
}

/// What one of the system's own links leads to.
fn through(dir: &Dir, name: &[u8]) -> io::Result<Stat> {
    Stat::of_name_with(dir, name, AtFlags::empty())
}

/// `RANGE PERMISSIONS OFFSET MAJOR:MINOR INODE [PATH]`; `None` for memory that is no file's.
fn parse_mapping(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.split(|b| *b == b' ').map(|field| std::str::from_utf8(field).unwrap_or_default());
    let range = fields.next()?.to_owned();
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let dev = (number(major)?, number(minor)?);
    let ino = fields.next()?.parse().ok().filter(|ino| *ino != 0)?;
    Some(Mapping { ino, dev, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_files() {
        let line = b"7f1-7f2 r-xp 00001000 fe:0a 1234 /usr/lib/libc.so.6 (deleted)";
        let found = parse_mapping(line).unwrap();
        assert_eq!(found, Mapping { ino: 1234, dev: (0xfe, 10), range: "7f1-7f2".into() });
        for other in [&b"7f1-7f2 rw-p 00000000 00:00 0 [heap]"[..], b"", b"7f1-7f2 rw-p", b"x y z a b c"] {
            assert_eq!(parse_mapping(other), None);
        }
    }

    #[test]
    fn a_child_is_seen_with_what_it_has_open() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let file = std::fs::File::open(temp.path()).unwrap();
        let wanted = Stat::of_fd(&file).unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").stdin(file).spawn().unwrap();
        assert!(process_ids().unwrap().contains(&child.id()));
        let process = Process::open(child.id()).unwrap();
        assert!(process.open_files().unwrap().iter().any(|stat| (stat.dev, stat.ino) == (wanted.dev, wanted.ino)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(process.open_files().is_err(), "it is gone");
    }
}
