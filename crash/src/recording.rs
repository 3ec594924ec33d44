// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What reached the disk while a workload ran: a value that can be kept in a file.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::image::{BLOCK, Image};

/// One request to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Bytes at an offset; on the medium only once a flush follows.
    Write(u64, Vec<u8>),
    /// Everything before it is on the medium.
    Flush,
}

/// What the workload said, at a number of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Requests that the disk had seen.
    pub requests: usize,
    pub event: Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    Begun,
    /// The step that had begun was reported as done, so it has to be durable.
    Acknowledged,
}

/// A disk before a workload and everything that the workload did to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    pub base: Image,
    pub requests: Vec<Request>,
    pub marks: Vec<Mark>,
}

impl Recording {
    /// Steps acknowledged within the first `requests` requests.
    pub fn acknowledged(&self, requests: usize) -> usize {
        self.count(|mark| mark.event == Event::Acknowledged && mark.requests <= requests)
    }

    /// Steps of which something can be in the first `requests` requests.
    pub fn begun(&self, requests: usize) -> usize {
        self.count(|mark| mark.event == Event::Begun && mark.requests < requests)
    }

    fn count(&self, of: impl Fn(&Mark) -> bool) -> usize {
        self.marks.iter().filter(|mark| of(mark)).count()
    }

    /// Writes it to a file: little-endian counts and offsets, bytes as they are.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        let number = |out: &mut BufWriter<File>, number: u64| out.write_all(&number.to_le_bytes());
        number(&mut out, self.base.len())?;
        number(&mut out, self.base.blocks().len() as u64)?;
        for (at, block) in self.base.blocks() {
            number(&mut out, at)?;
            out.write_all(block)?;
        }
        number(&mut out, self.requests.len() as u64)?;
        for request in &self.requests {
            match request {
                Request::Flush => number(&mut out, u64::MAX)?,
                Request::Write(offset, bytes) => {
                    number(&mut out, *offset)?;
                    number(&mut out, bytes.len() as u64)?;
                    out.write_all(bytes)?;
                }
            }
        }
        number(&mut out, self.marks.len() as u64)?;
        for mark in &self.marks {
            number(&mut out, mark.requests as u64)?;
            number(&mut out, u64::from(mark.event == Event::Acknowledged))?;
        }
        out.flush()
    }

    /// Reads what [`Recording::save`] wrote.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(path: &Path) -> io::Result<Recording> {
        let mut input = BufReader::new(File::open(path)?);
        let mut recording = Recording { base: Image::empty(number(&mut input)?), ..Recording::default() };
        let mut block = [0; BLOCK];
        for _ in 0..number(&mut input)? {
            let at = number(&mut input)?;
            input.read_exact(&mut block)?;
            recording.base.write(at * BLOCK as u64, &block);
        }
        for _ in 0..number(&mut input)? {
            let offset = number(&mut input)?;
            if offset == u64::MAX {
                recording.requests.push(Request::Flush);
                continue;
            }
            let mut bytes = vec![0; length(&mut input)?];
            input.read_exact(&mut bytes)?;
            recording.requests.push(Request::Write(offset, bytes));
        }
        for _ in 0..number(&mut input)? {
            let requests = length(&mut input)?;
            let event = if number(&mut input)? == 1 { Event::Acknowledged } else { Event::Begun };
            recording.marks.push(Mark { requests, event });
        }
        Ok(recording)
    }
}

fn number(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn length(input: &mut impl Read) -> io::Result<usize> {
    usize::try_from(number(input)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_it_and_marks_count() {
        let mut base = Image::empty(1 << 20);
        base.write(5000, b"old");
        let recording = Recording {
            base,
            requests: vec![Request::Write(8192, b"new".to_vec()), Request::Flush, Request::Write(0, vec![0; 512])],
            marks: vec![
                Mark { requests: 0, event: Event::Begun },
                Mark { requests: 2, event: Event::Acknowledged },
                Mark { requests: 2, event: Event::Begun },
            ],
        };
        let dir = evenkeel_tests::temp_dir();
        let file = dir.path().join("recording");
        recording.save(&file).unwrap();
        assert_eq!(Recording::load(&file).unwrap(), recording);

        let seen = |requests| (recording.begun(requests), recording.acknowledged(requests));
        assert_eq!([seen(0), seen(1), seen(2), seen(3)], [(0, 0), (1, 0), (1, 1), (2, 1)]);
    }
}
