// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a power cut leaves: everything before the last flush, and of what came later any part in any order.
//!
//! Invariant: pure; the same recording, seed and state give the same disk.

use crate::image::{BLOCK, Image};
use crate::random::Random;
use crate::recording::{Event, Recording, Request};

/// Which of the writes after the last flush survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A random half of them, some torn.
    Reordered,
    /// All of them, the last one torn.
    Prefix,
}

/// One power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Number of the state.
    pub state: u64,
    /// Requests that the disk had taken.
    pub requests: usize,
    /// Those up to the last flush among them.
    pub flushed: usize,
    random: Random,
}

impl Cut {
    /// The cut that is state `state` of a run with `seed`.
    pub fn of_state(recording: &Recording, seed: u64, state: u64) -> Cut {
        let mut random = Random::of_state(seed, state);
        let requests = place(recording, &mut random);
        let flush = recording.requests[..requests].iter().rposition(|request| *request == Request::Flush);
        Cut { state, requests, flushed: flush.map_or(0, |at| at + 1), random }
    }

    /// Makes the disk after the cut from the disk at the last flush.
    pub fn apply(&self, recording: &Recording, loss: Loss, disk: &mut Image) {
        let mut random = self.random.clone();
        let late = &recording.requests[self.flushed..self.requests];
        for (number, request) in late.iter().enumerate() {
            let Request::Write(offset, bytes) = request else { continue };
            let (kept, torn) = match loss {
                Loss::Reordered => (random.once_in(2), random.once_in(4)),
                Loss::Prefix => (true, number + 1 == late.len()),
            };
            if kept && torn {
                write_part(disk, *offset, bytes, loss, &mut random);
            } else if kept {
                disk.write(*offset, bytes);
            }
        }
    }
}

/// One cut in four is at an acknowledgement or just behind it, where a promise is easiest to break.
fn place(recording: &Recording, random: &mut Random) -> usize {
    let all = recording.requests.len();
    let promises: Vec<usize> =
        recording.marks.iter().filter(|mark| mark.event == Event::Acknowledged).map(|mark| mark.requests).collect();
    if !promises.is_empty() && random.once_in(4) {
        let promise = promises[random.below(promises.len())];
        return (promise + random.below(4)).min(all);
    }
    random.below(all + 1)
}

/// Writes some of the pieces of a write: a prefix of them, or any.
fn write_part(disk: &mut Image, offset: u64, bytes: &[u8], loss: Loss, random: &mut Random) {
    let pieces = bytes.len().div_ceil(BLOCK);
    let first = random.below(pieces + 1);
    let in_order = loss == Loss::Prefix || random.once_in(2);
    for (number, piece) in bytes.chunks(BLOCK).enumerate() {
        if if in_order { number < first } else { random.once_in(2) } {
            disk.write(offset + (number * BLOCK) as u64, piece);
        }
    }
}

/// Applies requests one after the other to a disk, as far as each cut wants it.
#[derive(Debug)]
pub struct Flushed<'r> {
    recording: &'r Recording,
    disk: Image,
    applied: usize,
}

impl<'r> Flushed<'r> {
    pub fn new(recording: &'r Recording) -> Flushed<'r> {
        Flushed { recording, disk: recording.base.clone(), applied: 0 }
    }

    /// The disk with the first `requests` requests; faster when they grow from call to call.
    pub fn up_to(&mut self, requests: usize) -> Image {
        if requests < self.applied {
            *self = Flushed::new(self.recording);
        }
        for request in &self.recording.requests[self.applied..requests] {
            if let Request::Write(offset, bytes) = request {
                self.disk.write(*offset, bytes);
            }
        }
        self.applied = requests;
        self.disk.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Mark;

    /// Write `n` fills block `n` with `n + 1`; a flush after each third.
    fn recording() -> Recording {
        let mut requests = Vec::new();
        for n in 0..30u8 {
            requests.push(Request::Write(u64::from(n) * BLOCK as u64, vec![n + 1; BLOCK]));
            if n % 3 == 2 {
                requests.push(Request::Flush);
            }
        }
        let marks = vec![Mark { requests: 8, event: Event::Acknowledged }];
        Recording { base: Image::empty(1 << 20), requests, marks }
    }

    #[test]
    fn what_was_flushed_is_always_there_and_what_came_after_the_cut_never() {
        let recording = recording();
        let mut flushed = Flushed::new(&recording);
        let (mut lost, mut kept) = (0, 0);
        for state in 0..500 {
            let cut = Cut::of_state(&recording, 7, state);
            let mut disk = flushed.up_to(cut.flushed);
            cut.apply(&recording, Loss::Reordered, &mut disk);
            for (at, request) in recording.requests.iter().enumerate() {
                let Request::Write(offset, bytes) = request else { continue };
                let mut found = vec![0; bytes.len()];
                disk.read(*offset, &mut found);
                let survived = found == *bytes;
                if at < cut.flushed {
                    assert!(survived, "state {state}");
                } else if at >= cut.requests {
                    assert!(!survived, "state {state}");
                } else if survived {
                    kept += 1;
                } else {
                    lost += 1;
                }
            }
        }
        assert!(lost > 100 && kept > 100, "{lost} lost, {kept} kept");
    }

    #[test]
    fn a_state_is_the_same_disk_every_time() {
        let recording = recording();
        let disk = |state| {
            let cut = Cut::of_state(&recording, 1, state);
            let mut disk = Flushed::new(&recording).up_to(cut.flushed);
            cut.apply(&recording, Loss::Reordered, &mut disk);
            disk
        };
        assert!((0..50).all(|state| disk(state) == disk(state)));
        assert!((1..50).any(|state| disk(state) != disk(0)));
    }

    #[test]
    fn without_reordering_only_the_last_write_is_torn() {
        let mut recording = recording();
        recording.requests = vec![Request::Write(0, vec![1; BLOCK]), Request::Write(8192, vec![2; 4 * BLOCK])];
        recording.marks.clear();
        for state in 0..50 {
            let cut = Cut::of_state(&recording, 3, state);
            let mut disk = recording.base.clone();
            cut.apply(&recording, Loss::Prefix, &mut disk);
            let numbers: Vec<u64> = disk.blocks().map(|(number, _)| number).collect();
            let whole: &[u64] = &[0, 2, 3, 4, 5];
            assert!(whole.starts_with(&numbers), "{numbers:?}");
        }
    }
}
