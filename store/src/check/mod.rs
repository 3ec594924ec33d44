// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Is everything there, and is it what it says it is?
//!
//! A damaged object does not stop the rest: every finding is gathered, and each says which snapshots it hurts.
//!
//! Invariant: writes nothing.

mod packs;
mod snapshots;

use std::collections::{BTreeMap, HashMap};

use crate::backend::ObjectName;
use crate::error::{Error, ErrorKind, Result};
use crate::format::table::{Location, Table, TableKind};
use crate::fsio::Mapped;
use crate::id::{ChunkId, PackId, SegmentId, SnapshotId};
use crate::pack;
use crate::progress::Progress;
use crate::store::Store;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read every pack whole, decode every record and hash every chunk.
    pub read_data: bool,
    /// With `read_data`: only this percentage of the packs, chosen anew each time; 0 = all.
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
    /// Bytes read from packs.
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
    fn blame_packs<B: AsRef<[u8]>>(&mut self, table: &Table<B>, places: &Places) {
        for (id, at) in table.iter() {
            if places.contains_key(&id) || self.lost.contains_key(&id) {
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

/// Where every chunk is, by the packs' own account.
pub(super) type Places = HashMap<ChunkId, Location>;

/// Audits a store.
///
/// # Errors
/// [`Error::Io`] when the store cannot be read at all; [`Error::Interrupted`]. Damage is not an error but a finding.
pub fn check(store: &Store, options: &CheckOptions, progress: &Progress) -> Result<CheckReport> {
    let mut findings = Findings::default();
    let mut report = CheckReport::default();
    let (places, lens) = packs::check_packs(store, options, progress, &mut findings, &mut report)?;
    check_index(store, &places, &lens, &mut findings)?;
    snapshots::check_snapshots(store, &places, progress, &mut findings, &mut report)?;
    // The worst first, then by name.
    findings.list.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.object.cmp(&b.object)));
    report.findings = findings.list;
    Ok(report)
}

/// `segments/current` and every segment: whole, and as the packs say.
fn check_index(store: &Store, places: &Places, lens: &BTreeMap<PackId, u64>, findings: &mut Findings) -> Result<()> {
    let Some(current) = store.segments_current()? else {
        let object = ObjectName::SegmentsCurrent.to_string();
        findings.add(object, "missing or damaged; the next commit rebuilds it".into(), Severity::Rebuildable);
        return Ok(());
    };
    let mut indexed = 0u64;
    for segment in &current.segments {
        let name = ObjectName::Segment(segment.id);
        match read_segment(store, &segment.id) {
            Ok(table) => {
                indexed += table.len() as u64;
                findings.blame_packs(&table, places);
                if let Some(problem) = disagreement(store, &table, places, lens)? {
                    findings.add(name.to_string(), problem, Severity::Rebuildable);
                }
            }
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                let problem = format!("{}; the next commit rebuilds the index", problem_of(&e));
                findings.add(name.to_string(), problem, Severity::Rebuildable);
            }
        }
    }
    if indexed < places.len() as u64 && findings.list.iter().all(|finding| !finding.object.starts_with("segments/")) {
        let missing = places.len() as u64 - indexed;
        let problem = format!("lists {missing} chunks fewer than the packs hold (left by an interrupted commit)");
        findings.add(ObjectName::SegmentsCurrent.to_string(), problem, Severity::Rebuildable);
    }
    Ok(())
}

fn read_segment(store: &Store, id: &SegmentId) -> Result<Table<Mapped>> {
    let name = ObjectName::Segment(*id);
    let len = store.backend().len(&name)?;
    if len == Some(0) {
        return Err(Error::HashMismatch { object: name.to_string(), actual: SegmentId::of(b"").to_string() });
    }
    let map = store.backend().map(&name)?.ok_or_else(|| Error::MissingObject { object: name.to_string() })?;
    let actual = SegmentId::of(map.as_ref());
    if actual != *id {
        return Err(Error::HashMismatch { object: name.to_string(), actual: actual.to_string() });
    }
    let table = Table::decode(map).map_err(|source| Error::Decode { object: name.to_string(), source })?;
    if table.kind() != TableKind::Segment {
        return Err(Error::HashMismatch { object: name.to_string(), actual: "a locator".into() });
    }
    Ok(table)
}

/// The first record of an index table that its pack does not confirm.
fn disagreement(
    store: &Store,
    table: &Table<Mapped>,
    places: &Places,
    lens: &BTreeMap<PackId, u64>,
) -> Result<Option<String>> {
    for pack in table.packs() {
        match lens.get(&pack.id) {
            None => return Ok(Some(format!("names pack {}, which is missing or unreadable", pack.id.short(16)))),
            Some(len) if *len != pack.len => {
                return Ok(Some(format!("gives pack {} another length", pack.id.short(16))));
            }
            Some(_) => {}
        }
    }
    // A chunk may lie in several packs, of which `places` knows one. The others are asked themselves.
    let mut elsewhere: BTreeMap<PackId, Vec<(ChunkId, Location)>> = BTreeMap::new();
    let unconfirmed = |id: &ChunkId| Ok(Some(format!("lists chunk {}, which its pack does not hold", id.short(16))));
    for (id, at) in table.iter() {
        match places.get(&id) {
            Some(place) if *place == at => {}
            Some(place) if place.pack == at.pack => return unconfirmed(&id),
            _ => elsewhere.entry(at.pack).or_default().push((id, at)),
        }
    }
    for (pack, records) in elsewhere {
        let held: HashMap<ChunkId, Location> = pack::read_footer(store.backend(), &pack)?.locations().collect();
        if let Some((id, _)) = records.iter().find(|(id, at)| held.get(id) != Some(at)) {
            return unconfirmed(id);
        }
    }
    Ok(None)
}

/// What is wrong, without naming the object again.
pub(super) fn problem_of(error: &Error) -> String {
    match error {
        Error::Decode { source, .. } => source.to_string(),
        Error::HashMismatch { actual, .. } => format!("its content hashes to {actual}"),
        Error::MissingObject { .. } | Error::UnknownSnapshot { .. } => "missing".into(),
        other => other.to_string(),
    }
}
