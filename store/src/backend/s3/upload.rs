// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is being sent: several objects at the same time, and no more than that.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::fsio::{OpenFile, TempFile};

/// Objects that are sent at the same time: more would only wait for each other, and each lies on disk meanwhile.
const AT_ONCE: usize = 4;
/// Bytes read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// The content of an object, which may have to be sent again.
#[derive(Debug)]
pub(super) enum Content<'c> {
    Bytes(&'c [u8]),
    File(OpenFile),
}

impl Content<'_> {
    pub(super) fn of_file(file: &TempFile) -> Result<Content<'static>> {
        Ok(Content::File(file.reopen()?))
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(file) => file.len(),
        }
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { content: self, at: 0 }
    }

    pub(super) fn sha256(&self) -> Result<[u8; 32]> {
        let pieces = (0..self.len()).step_by(usize::try_from(PIECE_BYTES).expect("a small number")).map(|start| {
            let mut piece = vec![0; usize::try_from(PIECE_BYTES.min(self.len() - start)).expect("a small number")];
            self.read_exact_at(&mut piece, start)?;
            Ok(piece)
        });
        super::sha256(pieces)
    }

    fn read_exact_at(&self, buffer: &mut [u8], start: u64) -> Result<()> {
        match self {
            Content::Bytes(bytes) => {
                let start = usize::try_from(start).expect("within a slice");
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            Content::File(file) => file.read_exact_at(buffer, start),
        }
    }
}

/// Reads content from its start.
#[derive(Debug)]
pub(super) struct Reader<'c> {
    content: &'c Content<'c>,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.content.len() - self.at).unwrap_or(usize::MAX);
        let len = buffer.len().min(rest);
        self.content.read_exact_at(&mut buffer[..len], self.at).map_err(io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// Objects on their way.
#[derive(Debug, Clone, Default)]
pub(super) struct Uploads(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    running: usize,
    failed: Option<Error>,
}

impl Uploads {
    /// Begins to send, once fewer than so many are on their way. After a failure nothing more is begun.
    ///
    /// # Errors
    /// The first failure of one that was begun before.
    pub(super) fn begin(&self, send: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let mut state = self.wait(|state| state.running >= AT_ONCE && state.failed.is_none());
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        state.running += 1;
        drop(state);
        let uploads = self.clone();
        std::thread::spawn(move || {
            let _ending = Ending(&uploads);
            if let Err(error) = send() {
                uploads.state().failed.get_or_insert(error);
            }
        });
        Ok(())
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// The first failure.
    pub(super) fn finish(&self) -> Result<()> {
        let mut state = self.wait(|state| state.running > 0);
        state.failed.take().map_or(Ok(()), Err)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, is_to_wait: impl FnMut(&mut State) -> bool) -> std::sync::MutexGuard<'_, State> {
        self.0.1.wait_while(self.state(), is_to_wait).unwrap_or_else(PoisonError::into_inner)
    }
}

/// However an upload ends, it is not on its way any more.
struct Ending<'u>(&'u Uploads);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        if std::thread::panicking() && state.failed.is_none() {
            state.failed = Some(Error::io("send", "", io::Error::other("an upload ended without saying why")));
        }
        self.0.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_the_first_failure_is_told() {
        let uploads = Uploads::default();
        let running = Arc::new(Mutex::new((0, 0)));
        for _ in 0..20 {
            let running = Arc::clone(&running);
            let sent = uploads.begin(move || {
                let mut now = running.lock().unwrap();
                now.0 += 1;
                now.1 = now.1.max(now.0);
                drop(now);
                std::thread::yield_now();
                running.lock().unwrap().0 -= 1;
                Ok(())
            });
            sent.unwrap();
        }
        uploads.finish().unwrap();
        assert_eq!(running.lock().unwrap().0, 0);
        assert!((1..=AT_ONCE).contains(&running.lock().unwrap().1));
        uploads.begin(|| Err(Error::Interrupted)).unwrap();
        assert!(matches!(uploads.finish(), Err(Error::Interrupted)));
        uploads.finish().unwrap();
        uploads.begin(|| panic!("on purpose")).unwrap();
        uploads.finish().unwrap_err();
    }

    #[test]
    fn content_reads_as_it_is_and_again() {
        let bytes = vec![7; 3_000_000];
        let content = Content::Bytes(&bytes);
        for _ in 0..2 {
            let mut read = Vec::new();
            content.reader().read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes);
        }
        let expected = sha2::Sha256::digest(&bytes);
        assert_eq!(content.sha256().unwrap()[..], expected[..]);
    }

    use sha2::Digest;
}
