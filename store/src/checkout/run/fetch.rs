// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What all areas need of a store to which every single chunk would be a request: foreseen as a whole, then brought near
//! in a few.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{AreaRun, Run};
use crate::checkout::plan::Wanted;
use crate::checkout::refuse;
use crate::error::{Error, Result};
use crate::fetch::{Deltas, FetchBytes, FetchReport};
use crate::format::manifest::{ChunkList, ChunkRun, FileContent, InodeKind};
use crate::fsio::Dir;
use crate::id::ChunkId;
use crate::manifest::content_runs;

/// What content is needed, and what that will cost.
pub(super) struct Needed {
    /// Each chunk once, and its length; without those that an earlier look at the areas has dealt with.
    chunks: Vec<(ChunkId, u32)>,
    /// Those that neither the store nor this machine seems to have.
    pub(super) absent: Vec<ChunkId>,
    pub(super) report: FetchReport,
}

impl<'a> Run<'a> {
    /// From here on, chunks are made of deltas to what the areas hold now, where that is worth it.
    pub(super) fn use_deltas(&self, areas: &[AreaRun<'a>]) {
        if self.reader.is_far() {
            let have = areas.iter().filter_map(|area| area.base).filter(|base| *base != self.options.snapshot);
            self.reader.use_deltas(Deltas::new(self.options.snapshot, have.collect()));
        }
    }

    /// Finds out what content all areas need and where it will come from; `None` where the store is at hand and has all of
    /// it. Fetches nothing but the lists of very long files. Of what was needed `earlier` only that counts which is not here
    /// after all.
    ///
    /// # Errors
    /// As [`crate::read::ChunkReader::fetch_ahead`].
    pub(super) fn foresee(&self, areas: &[AreaRun<'a>], earlier: Option<Needed>) -> Result<Option<Needed>> {
        if !self.reader.wants_seeds() {
            return Ok(None);
        }
        let wanted = areas.iter().flat_map(|area| &area.plan.actions).filter_map(|action| action.wanted());
        let contents: Vec<&FileContent> = wanted.filter_map(new_content).collect();
        let lists = contents.iter().flat_map(|content| match &content.chunks {
            ChunkList::Indirect { runs, .. } => runs.as_slice(),
            ChunkList::Whole | ChunkList::Inline(_) => &[],
        });
        self.reader.fetch_ahead(lists.filter_map(|run| Some(data(run)?.0)), self.progress)?;
        let (mut chunks, mut seen) = (Vec::new(), HashSet::new());
        for content in &contents {
            let runs = content_runs(self.reader, content)?;
            chunks.extend(runs.iter().filter_map(data).filter(|(id, _)| seen.insert(*id)));
        }
        if !self.reader.is_far() {
            // What the bundle has is at hand.
            chunks.retain(|(id, _)| self.reader.locate(id).is_none());
        }
        if let Some(earlier) = &earlier {
            let known: HashSet<ChunkId> = earlier.chunks.iter().map(|(id, _)| *id).collect();
            let (near, seeds) = (self.reader.near(), self.reader.seeds());
            chunks.retain(|(id, _)| !known.contains(id) || !(near.has(id) || seeds.has(id)));
        }
        if !chunks.is_empty() {
            self.reader.seeds().clear();
            self.seed_from_areas(areas, &contents)?;
            self.seed_from_places(areas, &contents, &chunks)?;
        }
        if let Some(earlier) = earlier {
            return Ok(Some(Needed { chunks, absent: earlier.absent, report: earlier.report }));
        }
        let (planned, kept_bytes, absent) = self.sources(&chunks)?;
        let bytes_to_write = areas.iter().map(|area| area.plan.counts.bytes_to_write).sum();
        // What was fetched lies beside what is staged until the end.
        let disk_needed = kept_bytes + if self.options.fetch_only { 0 } else { bytes_to_write };
        let report = FetchReport { planned, done: None, bytes_to_write, disk_needed };
        Ok(Some(Needed { chunks, absent, report }))
    }

    /// A bundle leaves out what its bases have: that must be here.
    ///
    /// # Errors
    /// [`Error::Refused`], naming the bases.
    pub(super) fn require_bases(&self, areas: &[AreaRun<'a>], absent: &[ChunkId]) -> Result<()> {
        let Some(first) = absent.first() else { return Ok(()) };
        let needs = |content: &FileContent| {
            content_runs(self.reader, content)
                .is_ok_and(|runs| runs.iter().filter_map(data).any(|(id, _)| id == *first))
        };
        let actions = areas.iter().flat_map(|area| area.plan.actions.iter().map(move |action| (area, action)));
        let mut files = actions.filter(|(_, action)| action.wanted().and_then(new_content).is_some_and(needs));
        let example = files.next().map(|(area, action)| area.path.join(OsStr::from_bytes(action.path.as_bytes())));
        let backend = self.store.backend();
        Err(refuse::no_base(backend.path(), backend.bases(), absent.len(), example.as_deref()))
    }

    /// Where chunks would come from now, how many bytes would be kept of what is fetched, and what cannot be had.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    fn sources(&self, chunks: &[(ChunkId, u32)]) -> Result<(FetchBytes, u64, Vec<ChunkId>)> {
        let mut bytes = FetchBytes::default();
        let mut far = Vec::new();
        for (id, len) in chunks {
            match (self.reader.near().stored_len(id), self.reader.seeds().find(id)) {
                (Some(stored), _) => bytes.prefetched += stored,
                (None, Some(source)) => bytes.count(source, u64::from(*len)),
                (None, None) => far.push(*id),
            }
        }
        if !self.reader.is_far() {
            return Ok((bytes, 0, far));
        }
        let ahead = self.reader.foresee_ahead(far, self.progress)?;
        bytes.count_plan(&ahead);
        Ok((bytes, ahead.kept_bytes(), Vec::new()))
    }

    /// Fetches what is needed and this machine does not have. What it has is read and verified once, so that what turns out
    /// to be something else is fetched with the rest.
    ///
    /// # Errors
    /// As [`crate::read::ChunkReader::fetch_ahead`]; [`crate::Error::Io`] for too little space, before anything is fetched:
    /// `beside` bytes are to be staged next to it; [`Error::Refused`] for what a bundle leaves out and is not here.
    pub(super) fn fetch(&self, areas: &[AreaRun<'a>], beside: u64, needed: &mut Needed) -> Result<()> {
        if needed.chunks.is_empty() && needed.report.done.is_some() {
            return Ok(());
        }
        let before = (self.store.backend().traffic(), self.delta_bytes());
        let (near, seeds) = (self.reader.near(), self.reader.seeds());
        let (mut done, mut far) = (needed.report.done.unwrap_or_default(), Vec::new());
        self.progress.start("reading seeds", needed.chunks.len() as u64, 0);
        for (id, len) in &needed.chunks {
            self.progress.check_cancelled()?;
            if let Some(stored) = near.stored_len(id) {
                done.prefetched += stored;
            } else if let Some((source, plain)) = seeds.read(id, *len) {
                done.count(source, plain.len() as u64);
            } else {
                far.push(*id);
            }
            self.progress.advance(1, 0);
        }
        if !self.reader.is_far() {
            self.require_bases(areas, &far)?;
        }
        if let Some(dir) = near.dir().filter(|_| !far.is_empty()) {
            let ahead = self.reader.foresee_ahead(far.iter().copied(), self.progress)?;
            refuse::fetch_space(&dir, ahead.kept_bytes().saturating_add(beside))?;
        }
        self.reader.fetch_ahead(far, self.progress)?;
        let now = self.store.backend().traffic();
        let deltas = self.delta_bytes().saturating_sub(before.1);
        done.requests += now.requests.saturating_sub(before.0.requests);
        done.deltas += deltas;
        done.packs += now.bytes.saturating_sub(before.0.bytes).saturating_sub(deltas);
        needed.report.done = Some(done);
        Ok(())
    }

    /// Bytes that have come of deltas so far.
    fn delta_bytes(&self) -> u64 {
        self.reader.deltas().map_or(0, Deltas::bytes)
    }

    /// Bytes that are to be staged in the file system where it is kept what was fetched.
    pub(super) fn staged_beside(&self, areas: &[AreaRun<'a>]) -> Result<u64> {
        let Some(dir) = self.reader.near().dir() else { return Ok(0) };
        let device = |dir: &Dir| dir.stat(b"").map(|stat| stat.dev).map_err(|e| Error::io("look at", dir.path(), e));
        let own = device(&Dir::open(&dir)?)?;
        let mut bytes = 0;
        for area in areas.iter().filter(|_| !self.options.fetch_only) {
            if area.root().map(device).transpose()? == Some(own) {
                bytes += area.plan.counts.bytes_to_write;
            }
        }
        Ok(bytes)
    }

    /// What was wrong with the index, servers, seeds and deltas, a line each.
    pub(super) fn source_notes(&self) -> Vec<String> {
        let mut seeds = self.reader.seeds().notes();
        seeds.sort_unstable();
        seeds.dedup();
        let deltas = self.reader.deltas().map(Deltas::notes).unwrap_or_default();
        [self.reader.notes().to_vec(), self.store.backend().notes(), seeds, deltas].concat()
    }

    /// Keeps of what was fetched what is needed, and gives how many bytes that nobody needs any more are gone.
    pub(super) fn forget_unused(&self, needed: &Needed) -> Result<u64> {
        let wanted: HashSet<ChunkId> = needed.chunks.iter().map(|(id, _)| *id).collect();
        self.reader.near().forget_but(&wanted)
    }
}

/// The content of a new file.
fn new_content(wanted: &Wanted) -> Option<&FileContent> {
    match wanted {
        Wanted::Inode(inode) => match &inode.kind {
            InodeKind::File(content) if content.size > 0 => Some(content),
            _ => None,
        },
        Wanted::Copy(_) | Wanted::Link { .. } => None,
    }
}

fn data(run: &ChunkRun) -> Option<(ChunkId, u32)> {
    match run {
        ChunkRun::Data { id, len } => Some((*id, *len)),
        ChunkRun::Hole { .. } => None,
    }
}
