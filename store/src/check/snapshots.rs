// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Snapshots: documents, locators, manifests, and whether everything they refer to can be had.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::{CheckReport, Finding, Findings, Held, Severity, object_of, problem_of};
use crate::backend::ObjectName;
use crate::error::Result;
use crate::format::manifest::{ChunkRun, InodeKind, Node};
use crate::format::snapshot::{IndexRecord, Snapshot, SnapshotArea};
use crate::format::table::{TABLE_BYTES_MAX, Table, TableKind};
use crate::id::{ChunkId, SnapshotId};
use crate::limits;
use crate::manifest::{ContentPart, Manifest, content_parts};
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};
use crate::store::Store;

/// What a manifest was found to hold; areas of several snapshots often share one.
#[derive(Debug, Clone, Default)]
struct Judged {
    /// Findings that keep it from being restored.
    hurt_by: Vec<usize>,
}

/// The snapshots that a check looks at.
#[derive(Debug)]
pub(super) struct Listed {
    records: Vec<IndexRecord>,
    there: HashSet<SnapshotId>,
    /// `snapshots/index` before they were listed: none of what it lists can have been too new.
    index_before: Option<Vec<IndexRecord>>,
    /// Snapshots that there are locators for.
    located: Vec<SnapshotId>,
}

pub(super) fn list(store: &Store) -> Result<Listed> {
    // Where they cannot be had, the findings on each locator and on the index say so.
    let located = store.backend().listing().and_then(|listing| listing.list_locators().ok()).unwrap_or_default();
    let index_before = readable_index(store)?;
    let records = store.snapshots()?;
    let there = records.iter().map(|record| record.id).collect();
    Ok(Listed { records, there, index_before, located })
}

/// `snapshots/index`, if it can be read.
fn readable_index(store: &Store) -> Result<Option<Vec<IndexRecord>>> {
    store.snapshot_index().or_else(|e| if e.is_of_one_object() { Ok(None) } else { Err(e) })
}

impl Listed {
    /// The snapshots that are there.
    pub(super) fn ids(&self) -> impl Iterator<Item = SnapshotId> {
        self.records.iter().map(|record| record.id)
    }

    /// Snapshots that are not there although something tells of them, and what does.
    fn lost(&self) -> BTreeMap<SnapshotId, String> {
        let is_lost = |id: &SnapshotId| !self.there.contains(id);
        let mut lost = BTreeMap::new();
        match &self.index_before {
            // A snapshot was durable before the index listed it.
            Some(index) => {
                let problem = format!("missing, though {} lists it", ObjectName::SnapshotIndex);
                lost.extend(
                    index.iter().filter(|record| is_lost(&record.id)).map(|record| (record.id, problem.clone())),
                );
            }
            // Beside a sound index that does not list it, a locator is what an interrupted commit left.
            None => lost.extend(self.located.iter().filter(|id| is_lost(id)).map(|id| {
                let locator = ObjectName::Locator(*id);
                (
                    *id,
                    format!("missing, though {locator} is there; if a commit was interrupted, it may never have been"),
                )
            })),
        }
        lost
    }
}

pub(super) fn check_snapshots(
    store: &Store,
    listed: &Listed,
    held: &mut Held,
    progress: &Progress,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<()> {
    let Listed { records, there, .. } = listed;
    let reader = store.reader()?;
    check_snapshot_index(store, listed, findings)?;
    let mut lost = listed.lost();
    let mut judged: HashMap<ChunkId, Judged> = HashMap::new();
    progress.start("checking snapshots", records.len() as u64, 0);
    for record in records {
        progress.check_cancelled()?;
        report.snapshots += 1;
        let name = ObjectName::Snapshot(record.id);
        let snapshot = match store.snapshot(&record.id) {
            Ok(snapshot) => snapshot,
            Err(e) if !e.is_of_one_object() => return Err(e),
            Err(e) => {
                let finding = findings.add(name.to_string(), problem_of(&e), Severity::Damaged);
                findings.hurt(finding, record.id);
                continue;
            }
        };
        // Its locator outlasts its document. Without either it may never have been copied here (format-spec §50.5).
        let was_here = |parent: &SnapshotId| listed.index_before.is_none() || listed.located.contains(parent);
        if let Some(parent) = snapshot.parent.filter(|parent| !there.contains(parent) && was_here(parent)) {
            lost.entry(parent).or_insert_with(|| format!("missing, though {name} follows it"));
        }
        check_locator(store, &record.id, held, findings)?;
        check_areas(&reader, &record.id, &snapshot, held, findings, &mut judged)?;
        progress.advance(1, 0);
    }
    for (id, problem) in lost {
        let finding = findings.add(ObjectName::Snapshot(id).to_string(), problem, Severity::Damaged);
        findings.hurt(finding, id);
    }
    Ok(())
}

fn check_snapshot_index(store: &Store, listed: &Listed, findings: &mut Findings) -> Result<()> {
    let name = ObjectName::SnapshotIndex.to_string();
    let Some(index) = readable_index(store)? else {
        findings.add(name, "missing or damaged; the next commit rebuilds it".into(), Severity::Rebuildable);
        return Ok(());
    };
    let in_index: HashSet<SnapshotId> = index.iter().map(|record| record.id).collect();
    let lacking = listed.there.difference(&in_index).count();
    if lacking > 0 {
        let problem =
            format!("lacks {lacking} snapshots: a commit is running or was interrupted; the next one adds them");
        findings.add(name, problem, Severity::Rebuildable);
    }
    Ok(())
}

fn check_areas(
    reader: &ChunkReader,
    id: &SnapshotId,
    snapshot: &Snapshot,
    held: &mut Held,
    findings: &mut Findings,
    judged: &mut HashMap<ChunkId, Judged>,
) -> Result<()> {
    for area in &snapshot.areas {
        let found = match judged.entry(area.manifest) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(judge(reader, area, held, findings)?),
        };
        for finding in &found.hurt_by {
            findings.hurt(*finding, *id);
        }
    }
    Ok(())
}

/// Reads a whole manifest and looks up every chunk that it refers to.
fn judge(reader: &ChunkReader, area: &SnapshotArea, held: &mut Held, findings: &mut Findings) -> Result<Judged> {
    let mut judged = Judged::default();
    let mut scratch = ReadScratch::default();
    let mut blame = |finding: usize| {
        if !judged.hurt_by.contains(&finding) {
            judged.hurt_by.push(finding);
        }
    };
    let outcome = Manifest::open(reader, area).and_then(|manifest| {
        for entry in manifest.entries() {
            let Node::Inode(inode) = entry?.node else { continue };
            let InodeKind::File(content) = inode.kind else { continue };
            for part in content_parts(reader, &content)? {
                let part = part?;
                let (ContentPart::List(id) | ContentPart::Run(ChunkRun::Data { id, .. })) = part else { continue };
                if matches!(part, ContentPart::Run(_)) && held.is_left_out(&id, findings) {
                    continue;
                }
                if !held.gives(&id, reader, &mut scratch) {
                    blame(blame_for(findings, &id));
                }
            }
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(judged),
        Err(e) if !e.is_of_one_object() => Err(e),
        Err(e) => {
            let object = object_of(&e).map_or_else(|| format!("manifest {}", area.manifest), str::to_string);
            let rest = format!("the rest of area `{}` was not looked at", area.name);
            judged.hurt_by.push(match findings.list.iter().position(|finding| is_about(finding, &object)) {
                Some(known) => {
                    let problem = &mut findings.list[known].problem;
                    if !problem.ends_with(&rest) {
                        *problem = format!("{problem}; {rest}");
                    }
                    known
                }
                None => findings.add(object, format!("{}; {rest}", problem_of(&e)), Severity::Damaged),
            });
            Ok(judged)
        }
    }
}

/// Whether a finding is on `object`, or on the pack that `object` is a chunk of.
fn is_about(finding: &Finding, object: &str) -> bool {
    object.strip_prefix(&finding.object).is_some_and(|rest| rest.is_empty() || rest.starts_with(" (chunk"))
}

/// The finding that explains why a chunk cannot be had; a new one if nothing does yet.
fn blame_for(findings: &mut Findings, id: &ChunkId) -> usize {
    if let Some(finding) = findings.lost.get(id) {
        return *finding;
    }
    let finding = findings.add(format!("chunk {id}"), "no readable pack holds it".into(), Severity::Damaged);
    findings.lost.insert(*id, finding);
    finding
}

fn check_locator(store: &Store, id: &SnapshotId, held: &mut Held, findings: &mut Findings) -> Result<()> {
    let name = ObjectName::Locator(*id);
    if store.backend().bundle().is_some() && store.backend().len(&name)?.is_none() {
        // A bundle is read by its index.
        return Ok(());
    }
    let is_local = store.backend().listing().is_some();
    let cap = if is_local { TABLE_BYTES_MAX } else { limits::LOCATOR_BYTES_MAX };
    let read = store.read_hint(&name, cap);
    let problem = match read.or_else(|e| if e.is_of_one_object() { Ok(None) } else { Err(e) })? {
        None => "missing, or no file that can be a locator".to_string(),
        Some(bytes) => match Table::decode(bytes) {
            Err(e) => e.to_string(),
            Ok(table) => match table.kind() {
                TableKind::Locator { snapshot, .. } if snapshot == *id => {
                    held.admit_new(store, &table, findings)?;
                    findings.blame_packs(&table, held);
                    return Ok(());
                }
                _ => "belongs to another snapshot".to_string(),
            },
        },
    };
    findings.add(name.to_string(), problem, Severity::Rebuildable);
    Ok(())
}
