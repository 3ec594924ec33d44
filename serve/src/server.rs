// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Listening, and how many may be served at once.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ServeError;
use crate::access::{Access, Secrets};
use crate::connection;
use crate::files::Root;
use crate::log::Log;
use crate::record::{Line, LogFormat, Metrics};

/// How often the server looks whether it is to stop, in nanoseconds.
const LOOK_NANOSECONDS: i64 = 200_000_000;
/// A connection needs little: its buffers are on the heap.
const STACK_BYTES: usize = 512 << 10;
/// Connections to the metrics at once.
const METRICS_CONNECTIONS: usize = 8;

/// What the server bears.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; each has a thread. Beyond them the one that has waited longest without a request gives way.
    pub connections: usize,
    /// Of these, from one address; an IPv6 network of 64 bits counts as one. Beyond them one of the same address gives way.
    pub per_address: usize,
    /// Header lines of a request; at most 128.
    pub headers: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// For a request's head to be there, from its first byte; and from the connection for the first one, TLS included.
    pub header: Duration,
    /// For the next request on a connection to begin.
    pub idle: Duration,
    /// For anything more of an answer to be taken.
    pub write: Duration,
    /// Bytes a second that a client must take on average, once `write` has passed.
    pub rate: u64,
    /// For the answers under way to end when the server stops.
    pub goodbye: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 512,
            per_address: 64,
            headers: 64,
            header_bytes: 16 << 10,
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(30),
            rate: 1024,
            goodbye: Duration::from_secs(30),
        }
    }
}

/// What is served, where and how.
pub struct Options {
    /// The directory of the store.
    pub root: PathBuf,
    /// Where clients come.
    pub listen: Vec<TcpListener>,
    /// Where Prometheus comes, without TLS or token.
    pub metrics: Option<TcpListener>,
    /// Certificates and tokens.
    pub secrets: Secrets,
    /// What the server bears.
    pub limits: Limits,
    /// The access log, and its form.
    pub log: Option<(Box<dyn Write + Send>, LogFormat)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Store,
    Metrics,
}

pub(crate) struct Shared {
    pub(crate) root: Root,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) is_private: bool,
    access: RwLock<Arc<Access>>,
    log: Option<Log>,
    open: Mutex<Open>,
}

/// Connections that are open.
#[derive(Debug, Default)]
struct Open {
    store: usize,
    metrics: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Those that wait for the head of a request, in the order in which they began to.
    waiting: BTreeMap<u64, Waiter>,
    /// Those that had to give way and are not gone yet, and where they are from.
    leaving: HashMap<u64, IpAddr>,
    /// Counts connections, and times that one began to wait.
    turns: u64,
}

/// A connection that waits for the head of a request.
#[derive(Debug)]
struct Waiter {
    connection: u64,
    network: IpAddr,
    socket: Arc<TcpStream>,
}

impl Open {
    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// Counts a new connection; gives whether there is a place for it, if need be one that another gives up.
    fn count(&mut self, shared: &Shared, network: IpAddr, role: Role) -> bool {
        if role == Role::Metrics {
            self.metrics += 1;
            return self.metrics <= METRICS_CONNECTIONS;
        }
        self.store += 1;
        let of_address = self.by_address.entry(network).or_default();
        *of_address += 1;
        let of_address = *of_address - self.leaving.values().filter(|of| **of == network).count();
        // Many clients may have one address: silence of one must not keep out another one either.
        (of_address <= shared.limits.per_address || self.give_way(&shared.metrics, |of| *of == network))
            && (self.store - self.leaving.len() <= shared.limits.connections
                || self.give_way(&shared.metrics, |_| true))
    }

    /// Ends the connection that has waited longest for a request, of those from some addresses: silence must not keep out
    /// who has something to ask. Gives whether there was one. Its thread takes notice at once, so there is one connection
    /// too many for a moment only.
    fn give_way(&mut self, metrics: &Metrics, is_from: impl Fn(&IpAddr) -> bool) -> bool {
        let longest = self.waiting.iter().find(|(_, waiter)| is_from(&waiter.network)).map(|(turn, _)| *turn);
        let Some(waiter) = longest.and_then(|turn| self.waiting.remove(&turn)) else { return false };
        self.leaving.insert(waiter.connection, waiter.network);
        metrics.evicted.fetch_add(1, Ordering::Relaxed);
        let _ = waiter.socket.shutdown(Shutdown::Both);
        true
    }

    /// Lets a connection wait from now on. Gives its turn.
    fn wait(&mut self, connection: u64, network: IpAddr, socket: &Arc<TcpStream>) -> u64 {
        let turn = self.turn();
        self.waiting.insert(turn, Waiter { connection, network, socket: Arc::clone(socket) });
        turn
    }
}

/// A server that was told what to do.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<(TcpListener, Role)>,
}

/// Stops a server or gives it other secrets, from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Ends [`Server::run`], once the answers under way are sent or [`Limits::goodbye`] has passed.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Takes other secrets for connections that come from now on; tokens for requests.
    ///
    /// # Errors
    /// When `read` fails or they make no sense; then the old ones stay.
    pub fn reload(&self, read: Result<&Secrets, &dyn std::fmt::Display>) -> Result<(), ServeError> {
        let access = match read {
            Ok(secrets) => Access::new(secrets),
            Err(e) => Err(ServeError::Secret { what: "file of secrets", reason: e.to_string() }),
        };
        let counter = if access.is_ok() { &self.0.metrics.reloads } else { &self.0.metrics.failed_reloads };
        counter.fetch_add(1, Ordering::Relaxed);
        *self.0.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access?);
        Ok(())
    }
}

impl Server {
    /// Opens the store and takes everything that is needed to serve it.
    ///
    /// # Errors
    /// [`ServeError`] when the directory is no store, or the secrets make no sense.
    pub fn new(options: Options) -> Result<Server, ServeError> {
        let root = Root::open(&options.root).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                ServeError::NoStore { path: options.root.clone() }
            }
            _ => ServeError::Io { path: options.root.clone(), source },
        })?;
        let access = Access::new(&options.secrets)?;
        let has_authorities = options.secrets.tls.as_ref().is_some_and(|tls| tls.client_authorities.is_some());
        let stores = options.listen.into_iter().map(|listener| (listener, Role::Store));
        let listeners: Vec<_> = stores.chain(options.metrics.map(|listener| (listener, Role::Metrics))).collect();
        for (listener, _) in &listeners {
            listener.set_nonblocking(true).map_err(|source| ServeError::Listen { source })?;
        }
        let metrics = Arc::<Metrics>::default();
        let shared = Shared {
            root,
            limits: options.limits,
            log: options.log.map(|(out, format)| Log::start(out, format, &metrics)),
            metrics,
            stop: Arc::default(),
            is_private: access.is_private(has_authorities),
            access: RwLock::new(Arc::new(access)),
            open: Mutex::default(),
        };
        Ok(Server { shared: Arc::new(shared), listeners })
    }

    /// Something that stops it.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// [`ServeError::Listen`] when the system does not let it wait for connections.
    pub fn run(self) -> Result<(), ServeError> {
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK_NANOSECONDS };
        while !self.shared.is_stopped() {
            let mut waiting: Vec<PollFd<'_>> =
                self.listeners.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)).collect();
            match poll(&mut waiting, Some(&look)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(ServeError::Listen { source: e.into() }),
            }
            for (listener, role) in &self.listeners {
                self.accept_all(listener, *role);
            }
        }
        drop(self.listeners);
        let end = Instant::now() + self.shared.limits.goodbye;
        while self.shared.open_connections() > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(log) = &self.shared.log {
            log.finish(end);
        }
        Ok(())
    }

    fn accept_all(&self, listener: &TcpListener, role: Role) {
        loop {
            match listener.accept() {
                Ok((socket, peer)) => admit(&self.shared, socket, network(peer.ip()), peer.ip(), role),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Out of descriptors or memory: others may end meanwhile.
                Err(_) => return std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// Serves a connection by a thread of its own, or turns it away.
fn admit(shared: &Arc<Shared>, socket: TcpStream, network: IpAddr, peer: IpAddr, role: Role) {
    let socket = Arc::new(socket);
    let (place, turn) = {
        let mut open = shared.open();
        let id = open.turn();
        let is_allowed = open.count(shared, network, role);
        // From here on, not from when its thread comes to it: who came first has waited longest.
        let turn = (is_allowed && role == Role::Store).then(|| open.wait(id, network, &socket));
        (Place { shared: Arc::clone(shared), network, role, id }, is_allowed.then_some(turn))
    };
    if let Some(turn) = turn {
        shared.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::Builder::new().name("serve".into()).stack_size(STACK_BYTES);
        let serving = thread.spawn(move || {
            let client = Client { id: place.id, peer, role };
            let waiting = turn.map(|turn| Waiting { shared: &place.shared, turn });
            connection::serve(&place.shared, socket, client, waiting);
        });
        match (serving, turn) {
            (Ok(_), _) => return,
            (Err(_), Some(turn)) => drop(shared.open().waiting.remove(&turn)),
            (Err(_), None) => {}
        }
    } else {
        // Fits into the empty buffer of a new socket; with TLS it would be noise.
        if shared.access().tls.is_none() && socket.set_nonblocking(true).is_ok() {
            let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = (&*socket).write(busy);
        }
    }
    shared.metrics.refused.fetch_add(1, Ordering::Relaxed);
}

/// The part of an address that one client cannot change at will.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Who is connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Of the connection, since the server runs.
    id: u64,
    pub(crate) peer: IpAddr,
    pub(crate) role: Role,
}

/// A connection's place among those that are open, free again when dropped.
struct Place {
    shared: Arc<Shared>,
    network: IpAddr,
    role: Role,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.open();
        match self.role {
            Role::Metrics => open.metrics -= 1,
            Role::Store => {
                open.store -= 1;
                open.leaving.remove(&self.id);
                if let Some(count) = open.by_address.get_mut(&self.network) {
                    *count -= 1;
                    if *count == 0 {
                        open.by_address.remove(&self.network);
                    }
                }
            }
        }
    }
}

/// A connection among those that wait, no longer so when dropped.
pub(crate) struct Waiting<'s> {
    shared: &'s Shared,
    turn: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.open().waiting.remove(&self.turn);
    }
}

impl Shared {
    /// From here on the connection waits for the head of a request. Those that ask for metrics have places of their own.
    pub(crate) fn wait(&self, client: Client, socket: &Arc<TcpStream>) -> Option<Waiting<'_>> {
        (client.role == Role::Store).then(|| {
            let turn = self.open().wait(client.id, network(client.peer), socket);
            Waiting { shared: self, turn }
        })
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.open().store
    }

    pub(crate) fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn log(&self, line: &Line<'_>) {
        if let Some(log) = &self.log {
            log.line(line);
        }
    }
}
