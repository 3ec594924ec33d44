// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chunks made of deltas and of what is at hand, before packs are asked (format-spec §70.8, docs/design/deltas.md).
//!
//! Invariant: whatever is wrong with a delta costs time and is told in a note. It is never an error, and no chunk is kept
//! that does not hash to its name.

mod choose;
mod list;
mod run;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use self::choose::FrameAt;
use self::list::Lists;
use super::near::Near;
use super::plan::whole_request_bytes;
use super::seed::Seeds;
use crate::delta::read_head;
use crate::error::{Error, Result};
use crate::format::delta::{Delta, DeltaIndexEntry};
use crate::id::{ChunkId, DeltaId, SnapshotId};
use crate::progress::Progress;
use crate::store::Store;

/// Fewer bytes than these are fetched from packs without looking for a delta.
const WORTH_BYTES: u64 = 32 << 10;
/// Times that a chain is looked for, each without what was of no use before.
const SEARCHES_MAX: usize = 8;

/// The deltas to one snapshot for somebody who has others.
#[derive(Debug)]
pub struct Deltas {
    target: SnapshotId,
    have: Vec<SnapshotId>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// From what is here to the target; `None` before anybody has asked.
    chain: Option<Vec<Step>>,
    lists: Lists,
    searches: usize,
    /// Deltas are not worth any further look: servers do not answer.
    is_over: bool,
    /// Frames that turned out to be of no use.
    bad: HashSet<FrameAt>,
    notes: Vec<String>,
    /// Bytes of payloads that were fetched, and of tables.
    bytes: u64,
}

/// What deltas are going to give.
#[derive(Debug, Clone, Default)]
pub struct DeltaPlan {
    /// Requests for payloads.
    pub requests: u64,
    /// Bytes that are asked for, those between the payloads too.
    pub bytes: u64,
    /// Bytes that are kept of what is made of them.
    pub kept_bytes: u64,
    /// The chunks that are made.
    pub chunks: HashSet<ChunkId>,
}

/// The frames that were chosen, and what they are of.
struct Menu {
    steps: Vec<Step>,
    tables: Vec<run::Table>,
    frames: Vec<FrameAt>,
    /// The longest request for payloads.
    request_bytes: u64,
}

/// One delta of the chain.
#[derive(Debug, Clone)]
struct Step {
    entry: DeltaIndexEntry,
    target: SnapshotId,
    /// Its table, and where its payloads start, once they have been fetched.
    table: Option<run::Table>,
}

/// What is needed to make chunks and to keep them.
pub(crate) struct Kitchen<'a> {
    /// Where deltas come from.
    pub(crate) store: &'a Store,
    /// What is on this machine.
    pub(crate) seeds: &'a Seeds,
    /// Where chunks are kept.
    pub(crate) near: &'a Near,
    /// The plain bytes of a chunk that is kept there.
    pub(crate) take: &'a (dyn Fn(&ChunkId) -> Option<Vec<u8>> + Sync),
    /// Who hears of it.
    pub(crate) progress: &'a Progress,
}

impl Deltas {
    /// For a reader of `target` that has the snapshots `have`, more or less, and finds their chunks in its seeds.
    pub fn new(target: SnapshotId, have: Vec<SnapshotId>) -> Deltas {
        Deltas { target, have, state: Mutex::default() }
    }

    /// What was wrong with deltas so far, a line each.
    pub fn notes(&self) -> Vec<String> {
        self.state().notes.clone()
    }

    /// Bytes of deltas that were fetched so far.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Brings near what of `wanted` deltas give for less than it costs elsewhere, by the bytes that are given with it.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Io`] for what is kept.
    pub(crate) fn bring(&self, wanted: &HashMap<ChunkId, u64>, kitchen: &Kitchen<'_>) -> Result<()> {
        let mut state = self.state();
        let Some(menu) = self.choose(&mut state, wanted, kitchen)? else { return Ok(()) };
        let (stopped, worth) = (run::Stopped::of(menu.steps.len()), total(wanted));
        let mut work = run::Work::new((&menu.steps, &menu.tables), kitchen, &stopped, worth);
        let done = work.run(&menu.frames, menu.request_bytes);
        state.is_over |= stopped.all();
        state.bad.extend(work.bad.iter().copied());
        state.notes.append(&mut work.notes);
        state.bytes += work.bytes;
        done
    }

    /// What [`Deltas::bring`] would ask for and make. Asks for lists and tables only.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(crate) fn foresee(&self, wanted: &HashMap<ChunkId, u64>, kitchen: &Kitchen<'_>) -> Result<DeltaPlan> {
        let Some(menu) = self.choose(&mut self.state(), wanted, kitchen)? else { return Ok(DeltaPlan::default()) };
        let ranges = run::ranges(&menu.tables, &menu.frames, menu.request_bytes);
        let outputs = || menu.frames.iter().flat_map(|(step, index)| &menu.tables[*step].0.frames[*index].outputs);
        let is_new = |id: &ChunkId| !kitchen.near.has(id);
        let kept: HashMap<ChunkId, u32> =
            outputs().filter(|chunk| is_new(&chunk.id)).map(|chunk| (chunk.id, chunk.len)).collect();
        Ok(DeltaPlan {
            requests: ranges.len() as u64,
            bytes: ranges.iter().map(|range| range.len).sum(),
            kept_bytes: kept.values().map(|len| u64::from(*len)).sum(),
            chunks: kept.into_keys().collect(),
        })
    }

    /// The frames that are worth their bytes; `None` where there are none.
    fn choose(&self, state: &mut State, wanted: &HashMap<ChunkId, u64>, kitchen: &Kitchen<'_>) -> Result<Option<Menu>> {
        let total = total(wanted);
        if total < WORTH_BYTES || state.is_over {
            return Ok(None);
        }
        self.prepare(state, total, kitchen)?;
        let steps: Vec<Step> = state.chain.iter().flatten().cloned().collect();
        // Without the table of one, those after it have no base.
        let tables: Vec<_> = steps.iter().map_while(|step| step.table.clone()).collect();
        if tables.is_empty() || tables.len() < steps.len() {
            return Ok(None);
        }
        let chain: Vec<&Delta> = tables.iter().map(|table| &table.0).collect();
        let at_hand = |id: &ChunkId| kitchen.near.has(id) || kitchen.seeds.has(id);
        let frames = choose::frames(&chain, wanted, at_hand, &state.bad);
        let link = kitchen.store.backend().link();
        let request_bytes = link.map_or(u64::MAX, whole_request_bytes);
        Ok(Some(Menu { steps, tables, frames, request_bytes }))
    }

    /// Chooses a chain and fetches its tables, where they cost less than half of the `total` bytes that are wanted now. A
    /// delta whose table is of no use is left out, and another chain looked for.
    fn prepare(&self, state: &mut State, total: u64, kitchen: &Kitchen<'_>) -> Result<()> {
        let go_on = || kitchen.progress.check_cancelled();
        loop {
            let mut steps = match state.chain.take() {
                Some(steps) => steps,
                None if state.searches >= SEARCHES_MAX => Vec::new(),
                None => {
                    let State { lists, notes, .. } = state;
                    let chain = lists.chain(kitchen.store, &self.target, &self.have, notes, go_on)?;
                    state.searches += 1;
                    chain.into_iter().map(|(entry, target)| Step { entry, target, table: None }).collect()
                }
            };
            let heads = steps.iter().map(|step| step.entry.head_len).fold(0, u64::saturating_add);
            let fetched = if heads > total / 2 { Ok(()) } else { fetch_tables(&mut steps, &mut state.bytes, kitchen) };
            match fetched {
                Ok(()) => {
                    state.chain = Some(steps);
                    return Ok(());
                }
                Err((_, Error::Interrupted)) => return Err(Error::Interrupted),
                Err((at, e)) => {
                    state.is_over = e.is_retryable();
                    let (step, store) = (&steps[at], kitchen.store);
                    let teller = state.lists.refuse(&step.target, &step.entry);
                    let lister = teller.map_or_else(String::new, |teller| {
                        format!(", which {} lists", store.backend().name_of(teller))
                    });
                    let what =
                        if state.is_over { "deltas".into() } else { format!("delta {}", short(&step.entry.delta)) };
                    state.notes.push(format!("going on without {what}{lister}: {e}"));
                    if state.is_over {
                        state.chain = Some(Vec::new());
                        return Ok(());
                    }
                }
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches the tables that are not there yet; or says which one cannot be had.
fn fetch_tables(steps: &mut [Step], bytes: &mut u64, kitchen: &Kitchen<'_>) -> Result<(), (usize, Error)> {
    for (at, step) in steps.iter_mut().enumerate().filter(|(_, step)| step.table.is_none()) {
        let fetched =
            kitchen.progress.check_cancelled().and_then(|()| read_head(kitchen.store, &step.target, &step.entry));
        let delta = fetched.map_err(|e| (at, e))?;
        *bytes += step.entry.head_len;
        let offsets = delta.payload_offsets(step.entry.head_len);
        step.table = Some(Arc::new((delta, offsets)));
    }
    Ok(())
}

fn total(wanted: &HashMap<ChunkId, u64>) -> u64 {
    wanted.values().fold(0u64, |sum, cost| sum.saturating_add(*cost))
}

/// For a note.
fn short(delta: &DeltaId) -> String {
    delta.short(12)
}
