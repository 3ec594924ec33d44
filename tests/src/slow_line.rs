// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A long way to a server: every byte takes its time, but as many as may be under way together.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Bytes that are taken up at once.
const PIECE: usize = 64 << 10;

/// Passes connections on to a server, in both directions late by half a round trip. A new connection costs one more, as a
/// handshake does. It stops when dropped.
pub struct SlowLine {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl SlowLine {
    /// A line to `server`, an address as `http://HOST:PORT/`, on which a question and its answer take `round_trip`.
    pub fn to(server: &str, round_trip: Duration) -> SlowLine {
        let target: SocketAddr = server.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ends) = (Arc::clone(&connections), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                pass(client, to_server, round_trip / 2, round_trip);
                pass(server, to_client, round_trip / 2, Duration::ZERO);
            }
        });
        SlowLine { address, connections, stopped }
    }

    /// The address that a client reads from.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Connections made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for SlowLine {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes bytes on, each `delay` after it came; the first of them `first` later still.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration, first: Duration) {
    let _ = to.set_nodelay(true);
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut extra = first;
        let mut piece = vec![0; PIECE];
        while let Ok(len) = from.read(&mut piece) {
            let due = Instant::now() + delay + std::mem::take(&mut extra);
            if len == 0 || sender.send((due, piece[..len].to_vec())).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
