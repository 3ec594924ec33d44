// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where file systems are mounted, as this process sees it.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::dir::Dir;

/// Longest table of mounts that is read, in bytes.
const BYTES_MAX: u64 = 64 << 20;

/// Paths at which something is mounted.
///
/// # Errors
/// What the system says.
pub fn mount_points() -> io::Result<Vec<PathBuf>> {
    let own = format!("/proc/{}", rustix::process::getpid().as_raw_pid());
    let own = Dir::open(Path::new(&own)).map_err(io::Error::other)?;
    let mut table = Vec::new();
    std::fs::File::from(own.open_file(b"mountinfo")?).take(BYTES_MAX).read_to_end(&mut table)?;
    Ok(table.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNT-POINT …`, with octal escapes.
fn parse(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|b| *b == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match (first, tail.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                path.push(byte);
                rest = &tail[3..];
            }
            _ => {
                path.push(*first);
                rest = tail;
            }
        }
    }
    Some(OsString::from_vec(path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let line = b"36 35 98:0 / /mnt/with\\040space\\134 rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(parse(line), Some(PathBuf::from("/mnt/with space\\")));
        assert_eq!(parse(b""), None);
        assert!(mount_points().unwrap().contains(&PathBuf::from("/proc")));
    }
}
