// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Content of one file into another, without going through this process; shared where the file system can.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::dir::Dir;
use super::local::data_runs;
use super::sys;
use super::write::{set_len, write_all_at};

/// Bytes that are copied at a time.
const PIECE: u64 = 16 << 20;

/// Gives the empty file `to` the first `size` bytes of `from`, with its holes. Gives the number of bytes that were copied:
/// none where both share them now.
///
/// # Errors
/// What the system says; `UnexpectedEof` when `from` is shorter.
pub fn clone_or_copy(from: impl AsFd, to: impl AsFd, size: u64) -> io::Result<u64> {
    if size == 0 || sys::ficlone(&to, &from).is_ok() {
        return Ok(0);
    }
    set_len(&to, size)?;
    let mut copied = 0;
    for run in data_runs(&from, size)? {
        copy_run(&from, &to, run.start, run.end)?;
        copied += run.end - run.start;
    }
    Ok(copied)
}

fn copy_run(from: impl AsFd, to: impl AsFd, start: u64, end: u64) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let len = usize::try_from((end - at).min(PIECE)).expect("at most a piece");
        match sys::copy_file_range(&from, &to, at, len) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => at += copied as u64,
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return copy_by_hand(from, to, at, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// For file systems and kernels that cannot.
fn copy_by_hand(from: impl AsFd, to: impl AsFd, start: u64, end: u64) -> io::Result<()> {
    const BUFFER: usize = 256 << 10;
    let mut buffer = vec![0; BUFFER];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        super::local::read_exact_at(&from, &mut buffer[..len], at)?;
        write_all_at(&to, &buffer[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// Whether files in `scratch`, a private directory, can share their content.
///
/// # Errors
/// What the system says when files cannot even be made there.
pub fn can_share_content(scratch: &Dir) -> io::Result<bool> {
    const NAMES: [&[u8]; 2] = [b"share-from", b"share-to"];
    let from = scratch.create_file(NAMES[0])?;
    let to = scratch.create_file(NAMES[1])?;
    write_all_at(&from, &[1; 4096], 0)?;
    let shared = sys::ficlone(&to, &from).is_ok();
    NAMES.iter().try_for_each(|name| scratch.unlink(name))?;
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn holes_stay_holes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let from = std::fs::File::from(dir.create_file(b"from").unwrap());
        from.set_len(10 << 20).unwrap();
        from.write_all_at(b"begin", 4096).unwrap();
        from.write_all_at(&[7; 100_000], 5 << 20).unwrap();
        for (name, by_hand) in [("to", false), ("by-hand", true)] {
            let to = std::fs::File::from(dir.create_file(name.as_bytes()).unwrap());
            if by_hand {
                set_len(&to, 10 << 20).unwrap();
                for run in data_runs(&from, 10 << 20).unwrap() {
                    copy_by_hand(&from, &to, run.start, run.end).unwrap();
                }
            } else {
                clone_or_copy(&from, &to, 10 << 20).unwrap();
            }
            let read = |name: &str| std::fs::read(temp.path().join(name)).unwrap();
            assert!(read(name) == read("from"));
            assert_eq!(data_runs(&to, 10 << 20).unwrap(), data_runs(&from, 10 << 20).unwrap());
            assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
        }
        assert!(clone_or_copy(&from, dir.create_file(b"short").unwrap(), 0).is_ok());
        can_share_content(&dir).unwrap();
        assert!(!temp.path().join("share-from").exists());
    }
}
