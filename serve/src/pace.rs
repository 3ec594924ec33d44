// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A connection with a moment at which patience ends, whatever trickles in or out before.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::{ServerConnection, StreamOwned};

/// How often a connection that waits for a request looks whether the server goes.
const LOOK: Duration = Duration::from_millis(200);

/// A socket that fails with `TimedOut` after its deadline.
pub(crate) struct Paced {
    pub(crate) socket: Arc<TcpStream>,
    /// Until when the operations under way may last.
    pub(crate) deadline: Instant,
    /// How long a write may wait until anything of it is taken; without it, until the deadline.
    pub(crate) stall: Option<Duration>,
    /// Between requests: ends the waiting when it becomes true.
    pub(crate) stop: Option<Arc<AtomicBool>>,
}

impl Paced {
    pub(crate) fn new(socket: Arc<TcpStream>, deadline: Instant) -> Paced {
        Paced { socket, deadline, stall: None, stop: None }
    }

    fn left(&self, deadline: Instant) -> io::Result<Duration> {
        if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left.min(LOOK)) }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(Some(self.left(self.deadline)?))?;
            match (&*self.socket).read(buffer) {
                Err(e) if is_later(&e) => {}
                done => return done,
            }
        }
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stalled = self.stall.and_then(|stall| Instant::now().checked_add(stall));
        let deadline = stalled.map_or(self.deadline, |stalled| stalled.min(self.deadline));
        loop {
            self.socket.set_write_timeout(Some(self.left(deadline)?))?;
            match (&*self.socket).write(bytes) {
                Err(e) if is_later(&e) => {}
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection, with TLS or without.
pub(crate) enum Stream {
    Plain(Paced),
    Tls(Box<StreamOwned<ServerConnection, Paced>>),
}

impl Stream {
    pub(crate) fn pace(&mut self) -> &mut Paced {
        match self {
            Stream::Plain(paced) => paced,
            Stream::Tls(stream) => &mut stream.sock,
        }
    }

    /// Says that nothing more comes, and takes what is still under way, so that the last answer is not lost with it.
    pub(crate) fn close(mut self) {
        let paced = self.pace();
        paced.deadline = Instant::now() + Duration::from_secs(1);
        paced.stop = None;
        if let Stream::Tls(stream) = &mut self {
            stream.conn.send_close_notify();
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
        let paced = self.pace();
        if paced.socket.shutdown(Shutdown::Write).is_ok() {
            let mut rest = [0; 4096];
            for _ in 0..64 {
                if !paced.read(&mut rest).is_ok_and(|len| len > 0) {
                    break;
                }
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
