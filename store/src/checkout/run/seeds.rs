// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What this machine already has of what a checkout needs: the areas as they were delivered, what gave way in them, other
//! areas, and directories that somebody names.

use std::collections::HashSet;
use std::sync::Arc;

use super::{AreaRun, Run};
use crate::checkout::record::read_applied;
use crate::checkout::state::{AreaRoot, applied_path, live_areas};
use crate::chunk::Chunker;
use crate::error::{Error, Result};
use crate::fetch::{Scan, Source, TreeIndex, Worth};
use crate::files_cache::CacheReader;
use crate::format::manifest::{ChunkList, ChunkRun, FileContent, InodeKind, Node};
use crate::fsio::Dir;
use crate::id::ChunkId;

/// Where an area keeps what gave way, below its root.
const UNDO: &str = ".evenkeel/undo";

impl<'a> Run<'a> {
    /// Adds what is known of the areas themselves, which costs no reading of files but of very long ones.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; what cannot be used is noted.
    pub(super) fn seed_from_areas(&self, areas: &[AreaRun<'a>], contents: &[&FileContent]) -> Result<()> {
        let sizes: HashSet<u64> = contents.iter().map(|content| content.size).collect();
        let mut own = HashSet::new();
        for area in areas {
            if let Some((marker, root)) = area.marker.as_ref().zip(area.root()) {
                own.insert(marker.area);
                self.seed_from_area(Source::Live, root, &applied_path(&self.options.state_dir, marker.area), &sizes)?;
            }
        }
        for other in live_areas(&self.options.state_dir)? {
            let Ok(AreaRoot { dir: Some(root), marker: Some(marker), .. }) =
                AreaRoot::open(&other.name, &other.root, &self.options.state_dir)
            else {
                continue;
            };
            if own.insert(marker.area) {
                self.seed_from_area(Source::Areas, &root, &applied_path(&self.options.state_dir, marker.area), &sizes)?;
            }
        }
        Ok(())
    }

    /// Adds what an area was delivered, by its record.
    fn seed_from_area(&self, source: Source, root: &Dir, record: &std::path::Path, sizes: &HashSet<u64>) -> Result<()> {
        let Ok(root) = root.try_clone() else { return Ok(()) };
        let chunker = Chunker::new(self.store.format().chunker);
        let scan = Scan { chunker: &chunker, sizes, worth: Worth::Any, progress: self.progress };
        let mut index = TreeIndex::default();
        let record = match CacheReader::open(record) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            Err(e) => {
                self.reader.seeds().note(format!("not used as a seed: {e}"));
                return Ok(());
            }
        };
        for applied in read_applied(record) {
            let applied = match applied {
                Ok(applied) => applied,
                Err(e) => {
                    self.reader.seeds().note(format!("not used as a seed: {e}"));
                    break;
                }
            };
            let Node::Inode(inode) = &applied.entry.node else { continue };
            let (InodeKind::File(content), Some(print)) = (&inode.kind, applied.print) else { continue };
            if let ChunkList::Indirect { .. } = content.chunks {
                // Its list is far away. To cut it again costs no request.
                scan.file(&root, &applied.entry.path, Some(print), &mut index)?;
            } else if !index.push(&applied.entry.path, content.size, Some(print), chunks_of(content)) {
                break;
            }
        }
        self.reader.seeds().add(Arc::new(index.into_seed(source, root)));
        Ok(())
    }

    /// Adds places of which only the files themselves tell what they hold, as long as something is missing.
    ///
    /// # Errors
    /// [`Error::Interrupted`], [`Error::Io`] for a directory that was named and is not there.
    pub(super) fn seed_from_places(
        &self,
        areas: &[AreaRun<'a>],
        contents: &[&FileContent],
        needed: &[(ChunkId, u32)],
    ) -> Result<()> {
        let sizes: HashSet<u64> = contents.iter().map(|content| content.size).collect();
        let undo = areas.iter().filter_map(|area| area.root()?.open_dir_below(UNDO.as_ref()).ok());
        for dir in undo {
            // Content that comes back is in files of the same size.
            self.seed_from_place(Source::Undo, &dir, &sizes, &[Worth::SameSize], needed)?;
        }
        for path in &self.options.seeds {
            let dir = Dir::open_following(path)?;
            self.seed_from_place(Source::Seed, &dir, &sizes, &[Worth::SameSize, Worth::Any], needed)?;
        }
        Ok(())
    }

    /// One pass after the other, as long as something is missing.
    fn seed_from_place(
        &self,
        source: Source,
        dir: &Dir,
        sizes: &HashSet<u64>,
        passes: &[Worth],
        needed: &[(ChunkId, u32)],
    ) -> Result<()> {
        let chunker = Chunker::new(self.store.format().chunker);
        let seeds = self.reader.seeds();
        // The last pass reads what those before it read, and more.
        let mut note = None;
        for &worth in passes {
            if needed.iter().all(|(id, _)| self.reader.near().has(id) || seeds.has(id)) {
                break;
            }
            self.progress.start("looking through seeds", 0, 0);
            let mut index = TreeIndex::default();
            note = Scan { chunker: &chunker, sizes, worth, progress: self.progress }.tree(dir, &mut index)?.note();
            let dir = dir.try_clone().map_err(|e| Error::io("open", dir.path(), e))?;
            seeds.add(Arc::new(index.into_seed(source, dir)));
        }
        note.into_iter().for_each(|note| seeds.note(note));
        Ok(())
    }
}

/// The chunks that a file is made of, with offset and length, as far as its entry has them.
fn chunks_of(content: &FileContent) -> Vec<(ChunkId, u64, u32)> {
    match &content.chunks {
        ChunkList::Whole => {
            let whole = u32::try_from(content.size).ok().filter(|len| *len > 0);
            whole.map(|len| (content.hash.into(), 0, len)).into_iter().collect()
        }
        ChunkList::Inline(runs) => {
            let mut at = 0;
            let mut chunks = Vec::with_capacity(runs.len());
            for run in runs {
                if let ChunkRun::Data { id, len } = run {
                    chunks.push((*id, at, *len));
                }
                at += run.len();
            }
            chunks
        }
        ChunkList::Indirect { .. } => Vec::new(),
    }
}
