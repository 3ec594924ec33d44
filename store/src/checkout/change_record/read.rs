// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads records. Bytes from a disk are not trusted: a record is hashed as a whole before a line of it is given out.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::history::state_of;
use super::super::options::AreaTarget;
use super::super::transaction;
use super::lines::{ChangeLine, EndLine, HeaderLine, Line, Word};
use super::{end_name, record_name};
use crate::error::{Error, Result};
use crate::fsio::{self, OpenFile};
use crate::path::TreePath;

pub(super) const SCHEMA: &str = "evenkeel/record/1";
const SCHEMA_FAMILY: &str = "evenkeel/record/";
/// Longest line that is read, in bytes: a process with all its paths of hundreds of lines.
const LINE_BYTES_MAX: usize = 1 << 22;
/// Bytes that are read at once.
const BUFFER: usize = 1 << 16;

/// A record on this machine whose bytes were found to be whole.
#[derive(Debug)]
pub struct ChangeRecord {
    /// The first line.
    pub header: HeaderLine,
    /// What came of it; `None` while it is under way, or was interrupted and not finished yet.
    pub end: Option<EndLine>,
    parts: Vec<PathBuf>,
}

/// The record of transaction `number` of an area.
///
/// # Errors
/// [`Error::Refused`] when there is none; [`Error::DamagedRecord`]; [`Error::NewerRecord`]; [`Error::Io`].
pub fn change_record(target: &AreaTarget, state_dir: &Path, number: u64) -> Result<ChangeRecord> {
    let state = state_of(target, state_dir)?;
    let dir = transaction::dirs_of_record(&state, number)?.into_iter().find_map(|dir| {
        let exists = fsio::exists(&dir.join(record_name(number)));
        exists.map(|exists| exists.then_some(dir)).transpose()
    });
    let dir = dir.transpose()?.ok_or_else(|| Error::Refused {
        reason: format!("area `{}` has no record {number}", target.name),
        hint: Some("`evenkeel history` lists them".into()),
    })?;
    ChangeRecord::open(&dir, number)
}

impl ChangeRecord {
    fn open(dir: &Path, number: u64) -> Result<ChangeRecord> {
        let (first, second) = (dir.join(record_name(number)), dir.join(end_name(number)));
        let header = header_of(&first)?;
        if header.number != number {
            return Err(damaged(&first, format!("it is that of number {}", header.number)));
        }
        if !fsio::exists(&second)? {
            // Nobody has finished it, so nobody has hashed it; its lines are looked at one by one.
            return Ok(ChangeRecord { header, end: None, parts: vec![first] });
        }
        let (mut hash, mut count) = hash_of_lines(&first)?;
        let (mut end, mut last) = (None, None);
        for line in Parts::of(&[&second])? {
            if let Some(before) = last.replace(line?) {
                hash.update(&before);
                count += 1;
                end = Some(before);
            }
        }
        let parse = |line: Option<Vec<u8>>| line.and_then(|line| serde_json::from_slice(&line).ok());
        let (Some(Line::End(end)), Some(Line::Seal(seal))) = (parse(end), parse(last)) else {
            return Err(damaged(&second, "its last lines are missing".into()));
        };
        if seal.lines != count || seal.blake3 != hash.finalize().to_hex().as_str() {
            return Err(damaged(&first, "its hash is another".into()));
        }
        Ok(ChangeRecord { header, end: Some(*end), parts: vec![first, second] })
    }

    /// Every line in order, the header first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn lines(&self) -> Result<RecordLines> {
        let parts: Vec<&PathBuf> = self.parts.iter().collect();
        Ok(RecordLines(Parts::of(&parts)?))
    }
}

/// Lines of a record, each as it stands there and as a value.
#[derive(Debug)]
pub struct RecordLines(Parts);

impl Iterator for RecordLines {
    type Item = Result<(Vec<u8>, Line)>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = match self.0.next()? {
            Ok(bytes) => bytes,
            Err(e) => return Some(Err(e)),
        };
        let parsed = serde_json::from_slice(&bytes);
        Some(parsed.map(|line| (bytes, line)).map_err(|e| damaged(&self.0.path, format!("a line of it is none: {e}"))))
    }
}

/// How many paths the transaction whose record is in `dir` left different from its snapshot; `None` where its record does
/// not say, or cannot be read.
pub(in super::super) fn kept_of(dir: &Path, number: u64) -> Option<u64> {
    let record = ChangeRecord::open(dir, number).ok()?;
    record.end?.kept.filter(|_| record.header.undoes.is_none())
}

/// The header of the record in the file `path`.
///
/// # Errors
/// [`Error::DamagedRecord`]; [`Error::NewerRecord`]; [`Error::Io`].
pub(in super::super) fn header_of(path: &Path) -> Result<HeaderLine> {
    #[derive(Deserialize)]
    struct Any {
        schema: String,
    }
    let first = Parts::of(&[path])?.next().transpose()?.unwrap_or_default();
    let any: Any = serde_json::from_slice(&first).map_err(|_| damaged(path, "it does not begin as a record".into()))?;
    if any.schema != SCHEMA {
        return Err(match any.schema.strip_prefix(SCHEMA_FAMILY) {
            Some(version) if version.bytes().all(|byte| byte.is_ascii_digit()) => {
                Error::NewerRecord { path: path.into(), schema: any.schema }
            }
            _ => damaged(path, "it does not begin as a record".into()),
        });
    }
    match serde_json::from_slice(&first) {
        Ok(Line::Header(header)) => Ok(*header),
        _ => Err(damaged(path, "its first line is no header".into())),
    }
}

/// Hash and number of all lines of a file.
pub(super) fn hash_of_lines(path: &Path) -> Result<(blake3::Hasher, u64)> {
    let (mut hash, mut count) = (blake3::Hasher::new(), 0);
    for line in Parts::of(&[path])? {
        let line = line?;
        hash.update(&line);
        count += 1;
    }
    Ok((hash, count))
}

/// The newest transaction of the area in `state` that changed `path`, or a directory above it as a whole, with its line. A
/// record that cannot be read is passed over.
///
/// # Errors
/// [`Error::Io`] for a state directory that cannot be read.
pub(in super::super) fn last_change(state: &Path, path: &TreePath) -> Result<Option<(HeaderLine, ChangeLine)>> {
    for number in transaction::numbers(state)?.into_iter().rev() {
        let record = transaction::record_path(state, number).join(record_name(number));
        if let (Ok(header), Some(line)) = (header_of(&record), change_of(&record, path)) {
            return Ok(Some((header, line)));
        }
    }
    Ok(None)
}

fn change_of(record: &Path, path: &TreePath) -> Option<ChangeLine> {
    let mut found = None;
    for line in Parts::of(&[record]).ok()? {
        let line = line.ok()?;
        if !line.starts_with(b"{\"line\":\"change\"") {
            continue;
        }
        let Ok(Line::Change(change)) = serde_json::from_slice(&line) else { continue };
        let Some(changed) = change.path.bytes().and_then(|bytes| TreePath::new(bytes).ok()) else { continue };
        if changed == *path {
            return Some(*change);
        }
        // A directory of which only the metadata changed moved nothing that is in it.
        if change.action != "metadata" && !changed.is_root() && path.starts_with(&changed) {
            found = Some(*change);
        }
    }
    found
}

/// Path and reason of every change that the record in this file names, as far as it can be read.
pub(super) fn changes_of(record: &Path) -> impl Iterator<Item = (Vec<u8>, Word)> {
    let lines = Parts::of(&[record]).into_iter().flatten().map_while(Result::ok);
    lines.filter_map(|line| match serde_json::from_slice(&line) {
        Ok(Line::Change(change)) => Some((change.path.bytes()?, change.reason)),
        _ => None,
    })
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::DamagedRecord { path: path.into(), reason }
}

/// The lines of files, one after the other, each with its newline. Nothing follows an error.
#[derive(Debug)]
struct Parts {
    files: std::vec::IntoIter<OpenFile>,
    file: Option<OpenFile>,
    /// Of the file that is being read, for messages.
    path: PathBuf,
    at: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Parts {
    fn of(paths: &[impl AsRef<Path>]) -> Result<Parts> {
        let files: Vec<OpenFile> = paths.iter().map(|path| OpenFile::open(path.as_ref())).collect::<Result<_>>()?;
        let files = files.into_iter();
        Ok(Parts { files, file: None, path: PathBuf::new(), at: 0, buffer: Vec::new(), used: 0 })
    }

    fn read_line(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(len) = self.buffer[self.used..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer[self.used..=self.used + len].to_vec();
                self.used += len + 1;
                return Ok(Some(line));
            }
            if self.buffer.len() - self.used > LINE_BYTES_MAX {
                return Err(damaged(&self.path, "a line of it has no end".into()));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads more; `false` at the end of the last file.
    fn fill(&mut self) -> Result<bool> {
        loop {
            if let Some(file) = &self.file
                && self.at < file.len()
            {
                self.buffer.drain(..self.used);
                self.used = 0;
                let len = usize::try_from(file.len() - self.at).unwrap_or(BUFFER).min(BUFFER);
                let start = self.buffer.len();
                self.buffer.resize(start + len, 0);
                file.read_exact_at(&mut self.buffer[start..], self.at)?;
                self.at += len as u64;
                return Ok(true);
            }
            if self.used < self.buffer.len() {
                return Err(damaged(&self.path, "it is cut off".into()));
            }
            let Some(next) = self.files.next() else { return Ok(false) };
            (self.path, self.at) = (next.path().to_path_buf(), 0);
            self.file = Some(next);
        }
    }
}

impl Iterator for Parts {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.read_line();
        if line.is_err() {
            (self.files, self.file) = (Vec::new().into_iter(), None);
            (self.buffer, self.used) = (Vec::new(), 0);
        }
        line.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_over_buffers_and_files() {
        let temp = tempfile::tempdir().unwrap();
        let (a, b, empty) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("empty"));
        let long = vec![b'x'; 3 * BUFFER];
        fsio::publish_file(&a, &[b"one\n\n", &long[..], b"\n"].concat()).unwrap();
        fsio::publish_file(&empty, b"").unwrap();
        fsio::publish_file(&b, b"last\n").unwrap();
        let lines: Vec<Vec<u8>> = Parts::of(&[&a, &empty, &b]).unwrap().map(Result::unwrap).collect();
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [4, 1, 3 * BUFFER + 1, 5]);
        fsio::publish_file(&b, b"las").unwrap();
        let cut = Parts::of(&[&a, &b]).unwrap().last().unwrap().unwrap_err().to_string();
        assert!(cut.contains("is cut off"), "{cut}");
        assert_eq!(Parts::of(&[&a, &b, &a]).unwrap().filter(Result::is_err).count(), 1, "it ends there");
    }
}
