// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The objects of `format-spec/reject/`: each breaks one rule of a valid object.

mod binary;
mod deltas;
mod documents;
mod nodes;
mod records;

use super::describe::Doc;
use super::refuse::Case;

/// An object that every reader must refuse.
pub struct Reject {
    pub name: String,
    pub case: Case,
    /// As [`evenkeel_store::format::Reason::name`].
    pub reason: &'static str,
    pub bytes: Vec<u8>,
}

impl Reject {
    pub fn toml(&self) -> String {
        let mut doc = Doc::default();
        doc.text("object", &self.case.object).text("reason", self.reason);
        if let Some(size) = self.case.size {
            // Larger than what TOML calls an integer, when it is hostile.
            doc.text("size", &size.to_string());
        }
        if let Some(plain_len) = self.case.plain_len {
            doc.int("plain-len", plain_len).text("encoding", if self.case.raw { "raw" } else { "zstd" });
        }
        doc.0
    }
}

/// All of them.
pub fn rejects() -> Vec<Reject> {
    let mut set = Set::default();
    documents::add(&mut set);
    binary::add(&mut set);
    nodes::add(&mut set);
    records::add(&mut set);
    deltas::add(&mut set);
    set.0
}

/// Collects rejects of one kind of object after the other.
#[derive(Default)]
pub struct Set(Vec<Reject>);

impl Set {
    fn add(&mut self, object: &str, what: &str, reason: &'static str, bytes: Vec<u8>) {
        self.add_case(Case { object: object.to_owned(), ..Case::default() }, what, reason, bytes);
    }

    fn add_case(&mut self, case: Case, what: &str, reason: &'static str, bytes: Vec<u8>) {
        let name = format!("{}-{what}", case.object);
        assert!(self.0.iter().all(|other| other.name != name), "{name} twice");
        self.0.push(Reject { name, case, reason, bytes });
    }
}

/// `bytes` without their end.
fn cut(bytes: &[u8], len: usize) -> Vec<u8> {
    bytes[..bytes.len() - len].to_vec()
}

/// `bytes` and one more.
fn longer(bytes: &[u8]) -> Vec<u8> {
    [bytes, b"\0"].concat()
}

/// `bytes` with others at `at`.
fn patch(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// `bytes` with `old`, which occurs once, replaced.
fn swap(bytes: &[u8], old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) -> Vec<u8> {
    let (old, new) = (old.as_ref(), new.as_ref());
    let mut found = bytes.windows(old.len()).enumerate().filter(|(_, window)| *window == old).map(|(at, _)| at);
    let at = found.next().expect("the old bytes occur");
    assert_eq!(found.next(), None, "the old bytes occur once");
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}
