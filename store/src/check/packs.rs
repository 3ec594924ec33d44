// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packs: footers always, content on request.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{CheckOptions, CheckReport, Findings, Held, Severity, object_of, problem_of};
use crate::backend::ObjectName;
use crate::compress::Decompressor;
use crate::error::{Error, Result};
use crate::format::pack::Encoding;
use crate::format::table::Table;
use crate::id::{ChunkId, PackId};
use crate::pack::{self, Footer};
use crate::progress::Progress;
use crate::read::Verified;
use crate::store::Store;

/// What is wrong with one pack.
struct BadPack {
    id: PackId,
    problem: String,
    /// Records that cannot be had; `None` when none of them can.
    lost: Option<Vec<ChunkId>>,
}

/// Checks all packs. Gives what the readable ones hold.
pub(super) fn check_packs(
    store: &Store,
    options: &CheckOptions,
    progress: &Progress,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<Held> {
    let mut troubles = Vec::new();
    let ids = match store.backend().listing() {
        Some(listing) => listing.list_packs_past(&mut troubles),
        None => indexed_packs(store)?,
    };
    for trouble in troubles {
        if !trouble.is_of_one_object() {
            return Err(trouble);
        }
        findings.add(object_of(&trouble).unwrap_or("packs").to_string(), problem_of(&trouble), Severity::Damaged);
    }
    progress.start("checking packs", ids.len() as u64, 0);
    let mut footers = Vec::with_capacity(ids.len());
    for id in ids {
        progress.check_cancelled()?;
        report.packs += 1;
        match pack::read_footer(store.backend(), &id) {
            Ok(footer) => footers.push(footer),
            Err(e) if !e.is_of_one_object() => return Err(e),
            Err(e) => {
                let (object, problem) = (ObjectName::Pack(id).to_string(), problem_of(&e));
                let problem = format!("{problem}; what is in it can be read only as far as a segment lists it");
                let finding = findings.add(object, problem, Severity::Damaged);
                findings.lost_packs.insert(id, finding);
            }
        }
        progress.advance(1, 0);
    }
    let mut held = Held::default();
    for footer in &footers {
        held.lens.insert(footer.pack.id, footer.pack.len);
        report.chunks += footer.entries.len() as u64;
    }
    let bad = if options.read_data { read_packs(store, options, progress, &footers, report)? } else { Vec::new() };
    let mut blamed: HashMap<PackId, (usize, Option<Vec<ChunkId>>)> = HashMap::new();
    for bad in bad {
        let finding = findings.add(ObjectName::Pack(bad.id).to_string(), bad.problem, Severity::Damaged);
        blamed.insert(bad.id, (finding, bad.lost));
    }
    for footer in &footers {
        let blame = blamed.get(&footer.pack.id);
        for (id, at) in footer.locations() {
            match blame {
                Some((finding, lost)) if lost.as_ref().is_none_or(|lost| lost.contains(&id)) => {
                    findings.lost.insert(id, *finding);
                }
                _ => drop(held.places.insert(id, at)),
            }
        }
    }
    // A chunk with a good copy elsewhere is not lost.
    findings.lost.retain(|id, _| !held.places.contains_key(id));
    Ok(held)
}

/// The packs that the index names: all that can be asked for where nothing can be listed.
fn indexed_packs(store: &Store) -> Result<Vec<PackId>> {
    let mut packs = BTreeSet::new();
    for (_, opened) in super::open_segments(store)?.unwrap_or_default() {
        // One that cannot be opened is a finding of its own.
        packs.extend(opened.iter().flat_map(Table::packs).map(|pack| pack.id));
    }
    Ok(packs.into_iter().collect())
}

/// Reads packs whole, several at a time.
fn read_packs(
    store: &Store,
    options: &CheckOptions,
    progress: &Progress,
    footers: &[Footer],
    report: &mut CheckReport,
) -> Result<Vec<BadPack>> {
    let chosen = sample(footers, |footer| footer.pack.id.as_bytes(), options.sample_percent)?;
    let bytes: u64 = chosen.iter().map(|footer| footer.pack.len).sum();
    progress.start("reading packs", chosen.len() as u64, bytes);
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let next = AtomicUsize::new(0);
    let bad = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut decompressor = Decompressor::new().map_err(|e| Error::io("set up decoder for", store.path(), e))?;
            while let Some(footer) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                progress.check_cancelled()?;
                if let Some(found) = read_pack(store, footer, &mut decompressor, progress)? {
                    bad.lock().unwrap_or_else(PoisonError::into_inner).push(found);
                }
                progress.advance(1, 0);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    report.packs_read = chosen.len() as u64;
    report.bytes_read = bytes;
    Ok(bad.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// `percent` of what is there, at least one, drawn at random; all for 0.
pub(super) fn sample<T>(all: &[T], id: impl Fn(&T) -> &[u8; 32], percent: u8) -> Result<Vec<&T>> {
    if percent == 0 || percent >= 100 {
        return Ok(all.iter().collect());
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| Error::io("draw random bytes", "/dev/urandom", std::io::Error::other(e)))?;
    let mut drawn: Vec<(ChunkId, &T)> = all.iter().map(|one| (ChunkId::of(&[seed, *id(one)].concat()), one)).collect();
    drawn.sort_unstable_by_key(|(order, _)| *order);
    let count = (all.len() * usize::from(percent)).div_ceil(100);
    Ok(drawn.into_iter().take(count).map(|(_, one)| one).collect())
}

fn read_pack(
    store: &Store,
    footer: &Footer,
    decompressor: &mut Decompressor,
    progress: &Progress,
) -> Result<Option<BadPack>> {
    let id = footer.pack.id;
    let name = ObjectName::Pack(id);
    let bad = |problem: String, lost| Ok(Some(BadPack { id, problem, lost }));
    let bytes = match store.backend().read(&name, crate::limits::PACK_BYTES_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return bad("missing".into(), None),
        // A pack with an unreadable sector must not hide what else is wrong.
        Err(e) if e.is_of_one_object() => return bad(problem_of(&e), None),
        Err(e) => return Err(e),
    };
    let mut plain = Vec::new();
    let mut lost = Vec::new();
    for entry in &footer.entries {
        let at = usize::try_from(entry.offset).expect("inside a pack that fits in memory");
        let stored = &bytes[at..at + usize::try_from(entry.stored_len).expect("inside the pack")];
        let decoded = match entry.encoding {
            Encoding::ZstdDict(dict) => {
                store.reader()?.read(&dict, &mut crate::read::ReadScratch::default()).and_then(|dict| {
                    let decode = decompressor.decompress(
                        entry.encoding,
                        stored,
                        entry.plain_len,
                        Some(dict.plain()),
                        &mut plain,
                    );
                    decode.map_err(|source| Error::Decode { object: name.to_string(), source })
                })
            }
            Encoding::Raw | Encoding::Zstd => decompressor
                .decompress(entry.encoding, stored, entry.plain_len, None, &mut plain)
                .map_err(|source| Error::Decode { object: name.to_string(), source }),
        };
        if decoded.is_err() || Verified::check(entry.id, &plain).is_none() {
            lost.push(entry.id);
        }
        progress.advance(0, u64::from(entry.stored_len));
    }
    if !lost.is_empty() {
        let examples: Vec<String> = lost.iter().take(3).map(|id| id.short(16)).collect();
        let problem =
            format!("{} of {} chunks are damaged ({}…)", lost.len(), footer.entries.len(), examples.join(", "));
        return bad(problem, Some(lost));
    }
    if PackId::of(&bytes) != id {
        // Every record is good, so the damage lies in header, footer padding or reserved bytes.
        return bad("its bytes do not hash to its name, though every chunk in it is good".into(), Some(Vec::new()));
    }
    Ok(None)
}
