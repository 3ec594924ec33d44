// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a caller can say about how servers are talked to.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a store is read over HTTP.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// How long to wait for what.
    pub patience: Patience,
    /// Certificate authorities to trust, PEM, one after the other. Without any, no `https` address can be read.
    pub authorities: Vec<u8>,
    /// The proxy that requests go through, as `http://[USER:PASSWORD@]HOST:PORT`.
    pub proxy: Option<String>,
    /// Hosts that are asked without the proxy, separated by commas; `*.DOMAIN` and `*` are understood.
    pub no_proxy: Option<String>,
    /// Most bytes of content a second, all connections together.
    pub bytes_per_second: Option<u64>,
    /// What follows `Bearer` for the server of the store's own address; no other server is given it.
    pub token: Option<Secret>,
    /// This machine's certificate, then those between it and its authority, and the private key: PEM, one after the other.
    pub identity: Option<Secret>,
    /// Hosts to which a server may send a request on, as `HOST` or `HOST:PORT`. Without any, redirects are refused.
    pub redirects: Vec<String>,
    /// Time and chance.
    pub timing: Arc<dyn Timing>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            patience: Patience::default(),
            authorities: Vec::new(),
            proxy: None,
            no_proxy: None,
            bytes_per_second: None,
            token: None,
            identity: None,
            redirects: Vec::new(),
            timing: Arc::new(SystemTiming(Instant::now())),
        }
    }
}

/// What no message may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a secret")
    }
}

/// How long to wait for what. No zero means "for ever".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, all addresses of a host together, TLS included.
    pub connect: Duration,
    /// For the first byte of an answer; no longer than `stall`.
    pub first_byte: Duration,
    /// For the next bytes of an answer.
    pub stall: Duration,
    /// For one request, from its start to its last byte.
    pub request: Duration,
    /// For one object or part of one, all requests and the waiting between them together.
    pub deadline: Duration,
    /// Bytes that must come within `rate_span`, or the request is given up.
    pub rate_bytes: u64,
    /// The time over which the rate is measured.
    pub rate_span: Duration,
    /// Times that each server is asked the same thing.
    pub rounds: u32,
    /// The first pause between two rounds; each further one is twice as long.
    pub pause: Duration,
    /// The longest pause, whatever a server asks for.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            // The longest request is 32 MiB: half an hour of a line of 150 kbit/s.
            request: Duration::from_secs(30 * 60),
            deadline: Duration::from_secs(60 * 60),
            rate_bytes: 64 << 10,
            rate_span: Duration::from_secs(30),
            rounds: 6,
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// Time and chance, so that tests can have their own.
pub trait Timing: Send + Sync + std::fmt::Debug {
    /// Time since some moment; never goes back.
    fn now(&self) -> Duration;

    /// Waits.
    fn sleep(&self, time: Duration);

    /// A number that nobody can foresee; where chance fails, any.
    fn random(&self) -> u64;
}

/// The system's.
#[derive(Debug)]
struct SystemTiming(Instant);

impl Timing for SystemTiming {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn random(&self) -> u64 {
        getrandom::u64().unwrap_or(0)
    }
}
