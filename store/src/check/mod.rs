// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Is everything there, and is it what it says it is?
//!
//! A damaged object does not stop the rest: every finding is gathered, and each says which snapshots it hurts.
//!
//! Invariant: writes nothing.

mod deltas;
mod packs;
mod snapshots;

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::backend::ObjectName;
use crate::error::{Error, Result};
use crate::format::table::{Location, Table};
use crate::id::{ChunkId, PackId, SegmentId, SnapshotId};
use crate::pack;
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};
use crate::segment::{self, TableBytes};
use crate::store::Store;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read every pack whole, decode every record and hash every chunk; read every delta whole.
    pub read_data: bool,
    /// With `read_data`: only this percentage of the packs and deltas, chosen anew each time; 0 = all.
    pub sample_percent: u8,
    /// Threads that read packs; 0 = one per core.
    pub threads: usize,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something that is rebuilt when it is needed.
    Rebuildable,
    /// Stored data is lost or wrong.
    Damaged,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object's name in the store.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// How bad that is.
    pub severity: Severity,
    /// Snapshots that cannot be restored completely because of it.
    pub hurts: Vec<SnapshotId>,
}

/// What a check saw.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Everything that is not as it should be, by object.
    pub findings: Vec<Finding>,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Packs read whole.
    pub packs_read: u64,
    /// Chunks that the packs hold.
    pub chunks: u64,
    /// Deltas looked at.
    pub deltas: u64,
    /// Chunks that a bundle leaves out, as its bases have them.
    pub chunks_left_out: u64,
    /// Bytes read from packs and deltas.
    pub bytes_read: u64,
}

impl CheckReport {
    /// Whether stored data is lost or wrong.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Damaged)
    }
}

/// Findings by object, and the chunks that each makes unusable.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    /// Chunks that cannot be had, and the finding that is to blame.
    lost: HashMap<ChunkId, usize>,
    /// Packs of which nothing can be had, and the finding that says so.
    lost_packs: HashMap<PackId, usize>,
}

impl Findings {
    fn add(&mut self, object: String, problem: String, severity: Severity) -> usize {
        self.list.push(Finding { object, problem, severity, hurts: Vec::new() });
        self.list.len() - 1
    }

    /// Blames the packs that an index table names for its chunks that no readable pack holds.
    fn blame_packs(&mut self, table: &Table<impl AsRef<[u8]>>, held: &Held) {
        for (id, at) in table.iter() {
            if held.places.contains_key(&id) || self.lost.contains_key(&id) {
                continue;
            }
            let finding = match self.lost_packs.get(&at.pack) {
                Some(finding) => *finding,
                None => {
                    let object = ObjectName::Pack(at.pack).to_string();
                    let finding = self.add(object, "missing".into(), Severity::Damaged);
                    self.lost_packs.insert(at.pack, finding);
                    finding
                }
            };
            self.lost.insert(id, finding);
        }
    }

    fn hurt(&mut self, finding: usize, snapshot: SnapshotId) {
        let hurts = &mut self.list[finding].hurts;
        if hurts.last() != Some(&snapshot) && !hurts.contains(&snapshot) {
            hurts.push(snapshot);
        }
    }
}

/// What the packs hold, by their own account.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Where every readable chunk is.
    places: HashMap<ChunkId, Location>,
    /// Length of every readable pack.
    lens: BTreeMap<PackId, u64>,
    /// Whether chunks without a place can be read all the same: a segment may list what a damaged footer does not.
    tried: HashMap<ChunkId, bool>,
    /// Chunks that nothing here tells of, where the store is a bundle with bases that have them.
    left_out: Option<HashSet<ChunkId>>,
}

impl Held {
    /// Whether a chunk can be had.
    fn gives(&mut self, id: &ChunkId, reader: &ChunkReader, scratch: &mut ReadScratch) -> bool {
        let read = || reader.read(id, scratch).is_ok();
        self.places.contains_key(id) || *self.tried.entry(*id).or_insert_with(read)
    }

    /// Whether a bundle leaves a data chunk to its bases: neither a pack nor an index here tells of it.
    fn is_left_out(&mut self, id: &ChunkId, findings: &Findings) -> bool {
        let Some(left_out) = &mut self.left_out else { return false };
        if self.places.contains_key(id) || findings.lost.contains_key(id) {
            return false;
        }
        left_out.insert(*id);
        true
    }

    /// Takes in packs of a table that came after all packs were listed: a commit may be running.
    fn admit_new(&mut self, store: &Store, table: &Table<impl AsRef<[u8]>>, findings: &Findings) -> Result<()> {
        for pack in table.packs() {
            if self.lens.contains_key(&pack.id) || findings.lost_packs.contains_key(&pack.id) {
                continue;
            }
            match pack::read_footer(store.backend(), &pack.id) {
                Ok(footer) => {
                    self.lens.insert(footer.pack.id, footer.pack.len);
                    for (id, at) in footer.locations() {
                        self.places.entry(id).or_insert(at);
                    }
                }
                Err(e) if e.is_of_one_object() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Audits a store.
///
/// A commit may run meanwhile. What refers is listed before what it refers to: snapshots, then packs, then the index. So
/// everything that a listed snapshot needs was there before the packs were listed.
///
/// # Errors
/// When not even a list of snapshots can be had, or the process has run out of what it needs; [`Error::Interrupted`].
/// Damage is not an error but a finding, and so is what cannot be read.
pub fn check(store: &Store, options: &CheckOptions, progress: &Progress) -> Result<CheckReport> {
    let mut findings = Findings::default();
    let mut report = CheckReport::default();
    let listed = snapshots::list(store)?;
    let mut held = packs::check_packs(store, options, progress, &mut findings, &mut report)?;
    held.left_out = (!store.backend().bases().is_empty()).then(HashSet::new);
    check_index(store, &mut held, &mut findings)?;
    snapshots::check_snapshots(store, &listed, &mut held, progress, &mut findings, &mut report)?;
    report.chunks_left_out = held.left_out.map_or(0, |left_out| left_out.len() as u64);
    deltas::check_deltas(store, &listed, options, progress, &mut findings, &mut report)?;
    // The worst first, then by name.
    findings.list.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.object.cmp(&b.object)));
    report.findings = findings.list;
    Ok(report)
}

/// `segments/current` and every segment: whole, and as the packs say.
fn check_index(store: &Store, held: &mut Held, findings: &mut Findings) -> Result<()> {
    let name = ObjectName::SegmentsCurrent.to_string();
    let segments = match open_segments(store) {
        Ok(Some(segments)) => segments,
        Ok(None) => {
            findings.add(name, "missing or damaged; the next commit rebuilds it".into(), Severity::Rebuildable);
            return Ok(());
        }
        Err(e) if e.is_of_one_object() => {
            findings.add(name, problem_of(&e), Severity::Damaged);
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    // Their own findings name these already.
    let unreadable: HashSet<PackId> = findings.lost_packs.keys().copied().collect();
    let mut tables = Vec::with_capacity(segments.len());
    for (id, opened) in segments {
        let name = ObjectName::Segment(id).to_string();
        match opened {
            Ok(table) => {
                held.admit_new(store, &table, findings)?;
                findings.blame_packs(&table, held);
                if let Some(problem) = disagreement(store, &table, held, &unreadable)? {
                    findings.add(name, problem, Severity::Rebuildable);
                }
                tables.push(table);
            }
            Err(e) => {
                let problem = format!("{}; the next commit rebuilds the index", problem_of(&e));
                findings.add(name, problem, Severity::Rebuildable);
            }
        }
    }
    let unlisted = held.places.keys().filter(|id| tables.iter().all(|table| table.get(id).is_none())).count();
    if unlisted > 0 && findings.list.iter().all(|finding| !finding.object.starts_with("segments/")) {
        let problem =
            format!("does not list {unlisted} chunks that the packs hold: a commit is running or was interrupted");
        findings.add(name, problem, Severity::Rebuildable);
    }
    Ok(())
}

type Opened = (SegmentId, Result<Table<TableBytes>>);

/// All live segments, or what is wrong with each. A commit that merges segments removes those that it merged, so a list
/// that has changed meanwhile is read again.
fn open_segments(store: &Store) -> Result<Option<Vec<Opened>>> {
    let mut current = store.segments_current()?;
    loop {
        let Some(listed) = &current else { return Ok(None) };
        let opened: Vec<Opened> =
            listed.segments.iter().map(|segment| (segment.id, segment::open(store, &segment.id))).collect();
        let now = if opened.iter().any(|(_, opened)| opened.is_err()) { store.segments_current()? } else { None };
        if now.is_some() && now != current {
            current = now;
            continue;
        }
        return opened.into_iter().map(about_the_segment).collect::<Result<_>>().map(Some);
    }
}

/// What is about the process is no finding.
fn about_the_segment((id, opened): Opened) -> Result<Opened> {
    match opened {
        Err(e) if !e.is_of_one_object() => Err(e),
        opened => Ok((id, opened)),
    }
}

/// The first record of an index table that its pack does not confirm.
fn disagreement(
    store: &Store,
    table: &Table<TableBytes>,
    held: &Held,
    unreadable: &HashSet<PackId>,
) -> Result<Option<String>> {
    for pack in table.packs().iter().filter(|pack| !unreadable.contains(&pack.id)) {
        match held.lens.get(&pack.id) {
            None => return Ok(Some(format!("names pack {}, which is missing", pack.id.short(16)))),
            Some(len) if *len != pack.len => {
                return Ok(Some(format!("gives pack {} another length", pack.id.short(16))));
            }
            Some(_) => {}
        }
    }
    // A chunk may lie in several packs, of which `places` knows one. The others are asked themselves.
    let mut elsewhere: BTreeMap<PackId, Vec<(ChunkId, Location)>> = BTreeMap::new();
    let unconfirmed = |id: &ChunkId| Ok(Some(format!("lists chunk {}, which its pack does not hold", id.short(16))));
    for (id, at) in table.iter().filter(|(_, at)| !unreadable.contains(&at.pack)) {
        match held.places.get(&id) {
            Some(place) if *place == at => {}
            Some(place) if place.pack == at.pack => return unconfirmed(&id),
            _ => elsewhere.entry(at.pack).or_default().push((id, at)),
        }
    }
    for (pack, records) in elsewhere {
        let footer = match pack::read_footer(store.backend(), &pack) {
            Ok(footer) => footer,
            Err(e) if e.is_of_one_object() => continue,
            Err(e) => return Err(e),
        };
        let held: HashMap<ChunkId, Location> = footer.locations().collect();
        if let Some((id, _)) = records.iter().find(|(id, at)| held.get(id) != Some(at)) {
            return unconfirmed(id);
        }
    }
    Ok(None)
}

/// The object that an error names.
pub(super) fn object_of(error: &Error) -> Option<&str> {
    match error {
        Error::Decode { object, .. }
        | Error::HashMismatch { object, .. }
        | Error::NotAnObject { object, .. }
        | Error::UnreadableObject { object, .. }
        | Error::MissingObject { object } => Some(object),
        _ => None,
    }
}

/// What is wrong, without naming the object again.
pub(super) fn problem_of(error: &Error) -> String {
    match error {
        Error::Decode { source, .. } => source.to_string(),
        Error::HashMismatch { actual, .. } => format!("its content hashes to {actual}"),
        Error::UnreadableObject { source, .. } => format!("cannot be read: {source}"),
        Error::Io { action, source, .. } => format!("cannot {action} it: {source}"),
        Error::NotAnObject { found, .. } => format!("{found} is in its place"),
        Error::MissingObject { .. } | Error::UnknownSnapshot { .. } => "missing".into(),
        other => other.to_string(),
    }
}
