// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The content of a disk, held as the blocks that are not zero. Copies share their blocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a block, and the smallest piece that a torn write is torn into.
pub const BLOCK: usize = 4096;

type Block = [u8; BLOCK];

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    len: u64,
    blocks: BTreeMap<u64, Arc<Block>>,
}

impl Image {
    /// Reads a whole image file, whose length is a multiple of [`BLOCK`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(path: &Path) -> io::Result<Image> {
        let file = File::open(path)?;
        let mut image = Image { len: file.metadata()?.len(), blocks: BTreeMap::new() };
        let mut buffer = vec![0; 256 * BLOCK];
        let mut at = 0;
        while at < image.len {
            let read = file.read_at(&mut buffer, at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            image.write(at, &buffer[..read]);
            at += read as u64;
        }
        Ok(image)
    }

    /// Writes a sparse image file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.len)?;
        // Neighbours go out in one call.
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (number, block) in &self.blocks {
            let offset = number * BLOCK as u64;
            if run.is_empty() || start + run.len() as u64 != offset || run.len() >= 256 * BLOCK {
                file.write_all_at(&run, start)?;
                run.clear();
                start = offset;
            }
            run.extend_from_slice(&block[..]);
        }
        file.write_all_at(&run, start)
    }

    /// Bytes of the disk, written or not.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` from `offset` on; there are zeros behind the end.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (number, within, part) in pieces(offset, buffer.len()) {
            match self.blocks.get(&number) {
                Some(block) => buffer[part.clone()].copy_from_slice(&block[within..within + part.len()]),
                None => buffer[part].fill(0),
            }
        }
    }

    /// Writes `bytes` at `offset`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, part) in pieces(offset, bytes.len()) {
            let piece = &bytes[part];
            if piece.iter().all(|byte| *byte == 0) && (piece.len() == BLOCK || !self.blocks.contains_key(&number)) {
                self.blocks.remove(&number);
                continue;
            }
            let block = self.blocks.entry(number).or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[within..within + piece.len()].copy_from_slice(piece);
        }
    }

    /// Every block that is not zero, by number.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = (u64, &Block)> {
        self.blocks.iter().map(|(number, block)| (*number, &**block))
    }

    /// A disk of `len` zero bytes.
    pub fn empty(len: u64) -> Image {
        Image { len, blocks: BTreeMap::new() }
    }
}

/// Cuts `len` bytes at `offset` at the borders of blocks: number, offset in the block, range in the bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK as u64).expect("below the size of a block");
        let start = done;
        done = len.min(start + BLOCK - within);
        Some((at / BLOCK as u64, within, start..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_copies_are_apart() {
        let mut image = Image::empty(1 << 20);
        let bytes: Vec<u8> = (0..10_000u32).map(|n| n.to_le_bytes()[0] | 1).collect();
        image.write(3000, &bytes);
        let copy = image.clone();
        image.write(4096, &[0; 4096]);
        let mut found = vec![9; 10_000];
        copy.read(3000, &mut found);
        assert_eq!(found, bytes);
        image.read(3000, &mut found);
        assert_eq!(found[1096..5192], [0; 4096]);
        assert_eq!((image.blocks().len(), copy.blocks().len()), (3, 4));
    }

    #[test]
    fn a_file_holds_it() {
        let dir = evenkeel_tests::temp_dir();
        let file = dir.path().join("image");
        let mut image = Image::empty(64 << 10);
        image.write(100, b"one");
        image.write(4096, b"two");
        image.write(60_000, b"three");
        image.save(&file).unwrap();
        assert_eq!(Image::load(&file).unwrap(), image);
    }
}
