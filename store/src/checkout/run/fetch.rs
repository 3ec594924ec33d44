// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What all areas need of a store to which every single chunk would be a request, brought near in a few.

use super::{AreaRun, Run};
use crate::checkout::plan::Wanted;
use crate::error::Result;
use crate::format::manifest::{ChunkList, ChunkRun, FileContent, InodeKind};
use crate::id::ChunkId;
use crate::manifest::content_runs;

impl<'a> Run<'a> {
    /// Fetches the content that all areas need, where every chunk by itself would be a request.
    pub(super) fn fetch(&self, areas: &[AreaRun<'a>]) -> Result<()> {
        if !self.reader.is_far() {
            return Ok(());
        }
        let wanted = areas.iter().flat_map(|area| &area.plan.actions).filter_map(|action| action.wanted());
        let contents: Vec<&FileContent> = wanted.filter_map(new_content).collect();
        let lists = contents.iter().flat_map(|content| match &content.chunks {
            ChunkList::Indirect { runs, .. } => runs.as_slice(),
            ChunkList::Whole | ChunkList::Inline(_) => &[],
        });
        self.reader.fetch_ahead(lists.filter_map(data_id), self.progress)?;
        let mut ids = Vec::new();
        for content in contents {
            ids.extend(content_runs(self.reader, content)?.iter().filter_map(data_id));
        }
        self.reader.fetch_ahead(ids, self.progress)
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

fn data_id(run: &ChunkRun) -> Option<ChunkId> {
    match run {
        ChunkRun::Data { id, .. } => Some(*id),
        ChunkRun::Hole { .. } => None,
    }
}
