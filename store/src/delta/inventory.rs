// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a snapshot is made of: the nodes of its manifests, and its files with their chunks.

use crate::error::Result;
use crate::format::delta::DeltaChunk;
use crate::format::manifest::{Child, ChunkRun, Entry, InodeKind, ManifestNode, Node};
use crate::format::snapshot::Snapshot;
use crate::id::ChunkId;
use crate::manifest::{ContentPart, Manifest, content_parts, read_node};
use crate::progress::Progress;
use crate::read::{ChunkReader, ReadScratch};

/// A chunk of a manifest: its head, a node, or a piece of a chunk list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaChunk {
    /// Area, level and first path: what stands at the same place in another snapshot has nearly the same.
    pub place: Vec<u8>,
    /// The chunk.
    pub chunk: DeltaChunk,
}

/// A chunk and where it is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedChunk {
    /// Bytes of the file before it.
    pub offset: u64,
    /// The chunk.
    pub chunk: DeltaChunk,
}

impl PlacedChunk {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.chunk.len)
    }
}

/// A file that has content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChunks {
    /// The area's name, a slash, and the path in the area.
    pub path: Vec<u8>,
    /// Apparent size.
    pub size: u64,
    /// Its chunks in order; what is between them are holes.
    pub chunks: Vec<PlacedChunk>,
}

/// All of a snapshot. Memory: about 100 bytes a chunk and 100 a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Chunks of manifests, by place.
    pub metas: Vec<MetaChunk>,
    /// Files in the order of areas and paths.
    pub files: Vec<FileChunks>,
}

impl Inventory {
    /// Reads all manifests of a snapshot.
    ///
    /// # Errors
    /// As [`ChunkReader::read`].
    pub fn read(reader: &ChunkReader, snapshot: &Snapshot, progress: &Progress) -> Result<Inventory> {
        let mut inventory = Inventory::default();
        for area in &snapshot.areas {
            let head = DeltaChunk { id: area.manifest, len: area.manifest_len };
            let name = area.name.as_bytes();
            inventory.metas.push(MetaChunk { place: [name, b"\0"].concat(), chunk: head });
            let manifest = Manifest::open(reader, area)?;
            let mut walk = Walk { reader, scratch: ReadScratch::default(), area: name, progress, inventory };
            walk.node(&manifest.root(), manifest.head().level)?;
            inventory = walk.inventory;
        }
        inventory.metas.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(inventory)
    }

    /// Every chunk, as often as it is named.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkId> + '_ {
        let metas = self.metas.iter().map(|meta| meta.chunk.id);
        metas.chain(self.files.iter().flat_map(|file| &file.chunks).map(|placed| placed.chunk.id))
    }
}

struct Walk<'w> {
    reader: &'w ChunkReader,
    scratch: ReadScratch,
    area: &'w [u8],
    progress: &'w Progress,
    inventory: Inventory,
}

impl Walk<'_> {
    fn node(&mut self, child: &Child, level: u8) -> Result<()> {
        self.progress.check_cancelled()?;
        let place = [self.area, &[1, level], child.first.as_bytes()].concat();
        self.inventory.metas.push(MetaChunk { place, chunk: DeltaChunk { id: child.id, len: child.len } });
        match read_node(self.reader, &mut self.scratch, child, level)? {
            ManifestNode::Inner { level, children } => {
                children.iter().try_for_each(|child| self.node(child, level - 1))
            }
            ManifestNode::Leaf(entries) => entries.iter().try_for_each(|entry| self.entry(entry)),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.progress.advance(1, 0);
        let Node::Inode(inode) = &entry.node else { return Ok(()) };
        let InodeKind::File(content) = &inode.kind else { return Ok(()) };
        let path = [self.area, b"/", entry.path.as_bytes()].concat();
        let (mut chunks, mut offset, mut pieces) = (Vec::new(), 0, 0_u32);
        for part in content_parts(self.reader, content)? {
            match part? {
                ContentPart::Run(ChunkRun::Hole { len }) => offset += len,
                ContentPart::Run(ChunkRun::Data { id, len }) => {
                    chunks.push(PlacedChunk { offset, chunk: DeltaChunk { id, len } });
                    offset += u64::from(len);
                }
                ContentPart::List(id) => {
                    let Some(at) = self.reader.locate(&id) else { continue };
                    let place = [self.area, &[2], entry.path.as_bytes(), format!("\0{pieces:08}").as_bytes()].concat();
                    self.inventory.metas.push(MetaChunk { place, chunk: DeltaChunk { id, len: at.plain_len } });
                    pieces += 1;
                }
            }
        }
        if !chunks.is_empty() {
            self.inventory.files.push(FileChunks { path, size: content.size, chunks });
        }
        Ok(())
    }
}
