// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A line to a server on this machine: counts every byte, and makes it late and slow.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Bytes that are taken up at once.
const PIECE: usize = 16 << 10;
/// Pieces of a connection that may be under way: more than any delay needs.
const UNDER_WAY: usize = 4096;

/// How far away, and how thin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Speed {
    /// Of a question and its answer.
    pub round_trip: Duration,
    /// From the server, of all connections together; 0 = as fast as it goes.
    pub bytes_per_second: u64,
}

/// The line. It stops when dropped.
pub struct Line {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl Line {
    /// To a server that listens at `port`.
    ///
    /// # Errors
    /// No port is free.
    pub fn to(port: u16, speed: Speed) -> std::io::Result<Line> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (bytes, stopped) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, ends) = (Arc::clone(&bytes), Arc::clone(&stopped));
        std::thread::spawn(move || {
            let free_at = Arc::new(Mutex::new(Instant::now()));
            for client in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (Ok(to_server), Ok(to_client)) = (server.try_clone(), client.try_clone()) else { continue };
                // A connection costs a round trip before its first byte.
                let half = speed.round_trip / 2;
                pass(client, to_server, half, speed.round_trip, &counted, None);
                let rate = (speed.bytes_per_second, Arc::clone(&free_at));
                pass(server, to_client, half, Duration::ZERO, &counted, Some(rate));
            }
        });
        Ok(Line { address, bytes, stopped })
    }

    /// The address that a client reads from.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes so far, in both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

type Rate = (u64, Arc<Mutex<Instant>>);

/// Passes bytes on, each `delay` after it came, the first of them `first` later still, and no faster than `rate`.
fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    delay: Duration,
    first: Duration,
    bytes: &Arc<AtomicU64>,
    rate: Option<Rate>,
) {
    let _ = to.set_nodelay(true);
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let bytes = Arc::clone(bytes);
    std::thread::spawn(move || {
        let (mut extra, mut piece) = (first, vec![0; PIECE]);
        while let Ok(len) = from.read(&mut piece) {
            let due = arrival(&rate, len) + delay + std::mem::take(&mut extra);
            if len == 0 || sender.send((due, piece[..len].to_vec())).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, piece) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
            bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// When a piece has left the server: after all before it.
fn arrival(rate: &Option<Rate>, len: usize) -> Instant {
    let now = Instant::now();
    let Some((per_second, free_at)) = rate.as_ref().filter(|(per_second, _)| *per_second > 0) else { return now };
    let mut free_at = free_at.lock().unwrap_or_else(PoisonError::into_inner);
    *free_at = (*free_at).max(now) + Duration::from_nanos(len as u64 * 1_000_000_000 / per_second);
    *free_at
}
