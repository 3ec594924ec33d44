// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bytes → boundaries: FastCDC, 2020 variant (format-spec §60).
//!
//! Invariant: does no I/O and keeps no bytes. Any split of the input into windows gives the same boundaries, because a
//! cut depends on the bytes since the last cut only.

use fastcdc::v2020;

use crate::format::store::ChunkerParams;

/// Finds chunk boundaries with one set of parameters.
#[derive(Debug, Clone)]
pub struct Chunker {
    params: ChunkerParams,
    mask_small: u64,
    mask_large: u64,
}

impl Chunker {
    /// A chunker for parameters that [`crate::format::store::StoreFormat`] allows.
    pub fn new(params: ChunkerParams) -> Chunker {
        let level = match params.normalization {
            0 => v2020::Normalization::Level0,
            1 => v2020::Normalization::Level1,
            2 => v2020::Normalization::Level2,
            _ => v2020::Normalization::Level3,
        };
        let (mask_small, mask_large) = v2020::select_masks(to_usize(params.avg), level);
        Chunker { params, mask_small, mask_large }
    }

    /// Its parameters.
    pub fn params(&self) -> ChunkerParams {
        self.params
    }

    /// Longest chunk, in bytes.
    pub fn max(&self) -> usize {
        to_usize(self.params.max)
    }

    /// Longest data run that is one chunk without looking at it, in bytes.
    pub fn min(&self) -> usize {
        to_usize(self.params.min)
    }

    /// Length of the first chunk of `window`, which holds [`Chunker::max`] bytes or all that is left of the data run.
    /// 0 only for an empty window.
    pub fn next_cut(&self, window: &[u8]) -> usize {
        let (_, cut) = v2020::cut(
            window,
            self.min(),
            to_usize(self.params.avg),
            self.max(),
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
        );
        cut
    }

    /// All chunks of a data run that is in memory.
    pub fn chunks<'run>(&'run self, mut run: &'run [u8]) -> impl Iterator<Item = &'run [u8]> {
        std::iter::from_fn(move || {
            if run.is_empty() {
                return None;
            }
            let (chunk, rest) = run.split_at(self.next_cut(run));
            run = rest;
            Some(chunk)
        })
    }
}

fn to_usize(size: u32) -> usize {
    usize::try_from(size).expect("chunk sizes fit every supported machine")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn small_runs_are_one_chunk() {
        let chunker = Chunker::new(ChunkerParams::around(8 << 10));
        for len in [1, 2, 2047, 2048] {
            assert_eq!(chunker.chunks(&noise(1, len)).count(), 1, "{len}");
        }
        assert_eq!(chunker.chunks(&[]).count(), 0);
        assert_eq!(chunker.chunks(&vec![0; 3 * chunker.max()]).count(), 3, "zeros are cut at the maximum");
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_chunks(seed: u64, len in 0usize..200_000, extra in 0usize..50_000) {
            let chunker = Chunker::new(ChunkerParams::around(8 << 10));
            let run = noise(seed, len);
            let whole: Vec<usize> = chunker.chunks(&run).map(<[u8]>::len).collect();
            // Windows of the maximum and a bit, as a streaming reader would have them.
            let mut at = 0;
            let mut windows = Vec::new();
            while at < run.len() {
                let end = run.len().min(at + chunker.max() + extra);
                let cut = chunker.next_cut(&run[at..end]);
                windows.push(cut);
                at += cut;
            }
            prop_assert_eq!(whole.iter().sum::<usize>(), len);
            prop_assert!(whole.iter().all(|len| *len <= chunker.max()));
            prop_assert_eq!(whole, windows);
        }
    }
}
