// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store behind one or more static web servers (docs/design/http-store.md). It can only be read, and not listed.
//!
//! Every request asks for one object, or for one range of one. Servers are asked in the order in which they are named: the
//! next one when one fails, or gives bytes that are not what they should be. Nothing that a server says is believed; it can
//! only cost time, and of that a bounded amount. `ask` does the asking.

mod answer;
mod ask;
mod client;
mod mirrors;
mod options;
mod plain_proxy;
mod rate;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use mirrors::{Link, Traffic};
pub use options::{HttpOptions, Patience, Secret, Timing};

pub(super) use self::answer::Asked;
pub(super) use self::client::{Client, Cost};

use self::mirrors::Mirror;
use super::{Backend, Check, Loaded, Object, ObjectName, Seen, Teller, Whom};
use crate::error::{Error, Result, TransferError};

/// Objects on web servers.
#[derive(Debug, Clone)]
pub struct HttpBackend(Arc<Servers>);

#[derive(Debug)]
struct Servers {
    /// The store's own address, for messages.
    path: PathBuf,
    mirrors: Vec<Mirror>,
    client: Client,
    options: HttpOptions,
    addressing: Option<Box<dyn Addressing>>,
    /// What the store's own address should have told, and the mirror that told it first.
    stand_in: OnceLock<(ObjectName, String)>,
}

/// How the address of an object is made where it is more than the server's with a name behind it.
pub(super) trait Addressing: Send + Sync + fmt::Debug {
    /// The address for a request of one kind, at the server with a number.
    fn url(&self, server: usize, name: &str, method: Method) -> String;
}

/// What a request does with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
}

impl HttpBackend {
    /// Prepares to read from `addresses`, which are asked in that order. The last is the store's own, the others are mirrors
    /// of it. Makes no request.
    ///
    /// # Errors
    /// [`Error::Refused`] for an address that is none, or options that make no sense.
    pub fn new(addresses: &[String], options: HttpOptions) -> Result<HttpBackend> {
        let mirrors = addresses.iter().map(|address| parse(address).map(Mirror::new)).collect::<Result<Vec<_>>>()?;
        let Some(own) = mirrors.last() else { return Err(refused("nothing", "no address is given")) };
        let path = PathBuf::from(&own.address);
        let mut client = Client::new(&options)?.with_redirects(&options.redirects);
        if let Some(token) = &options.token {
            client = client.with_token(token, &own.address)?;
        }
        Ok(HttpBackend(Arc::new(Servers {
            path,
            mirrors,
            client,
            options,
            addressing: None,
            stand_in: OnceLock::new(),
        })))
    }

    /// As [`HttpBackend::new`], for servers of which `names` tell people and `addressing` tells where an object is.
    pub(super) fn addressed(
        path: PathBuf,
        names: Vec<String>,
        addressing: Box<dyn Addressing>,
        options: HttpOptions,
    ) -> Result<HttpBackend> {
        let (mirrors, client) = (names.into_iter().map(Mirror::new).collect(), Client::new(&options)?);
        let (addressing, stand_in) = (Some(addressing), OnceLock::new());
        Ok(HttpBackend(Arc::new(Servers { path, mirrors, client, options, addressing, stand_in })))
    }

    /// Does something that is no reading at the first server where it can be done. It may be done twice.
    ///
    /// # Errors
    /// [`Error::Send`] with the last failure.
    pub(super) fn attempt<T>(
        &self,
        action: &'static str,
        object: &str,
        mut attempt: impl FnMut(&Client, usize) -> Result<T, TransferError>,
    ) -> Result<T> {
        let (servers, mut last) = (&self.0, None);
        let (patience, timing) = (&servers.options.patience, &servers.options.timing);
        let deadline = timing.now() + patience.deadline;
        for round in 0..patience.rounds.max(1) {
            for at in mirrors::order(&servers.mirrors, timing.now()) {
                let mirror = &servers.mirrors[at];
                let done = attempt(&servers.client, at);
                mirror.count(&Cost::default());
                let failed = |source| {
                    let at = mirror.address.clone();
                    Error::Send { action, object: object.to_string(), at, source }
                };
                match done {
                    Ok(done) => return Ok(done),
                    Err(e) if e.is_transient() => {
                        mirror.failed(Duration::ZERO, patience, &**timing);
                        last = Some(failed(e));
                    }
                    // All of them are one store: the next one would say the same.
                    Err(e) => return Err(failed(e)),
                }
            }
            let pause = mirrors::pause(patience, round, timing.random());
            if round + 1 == patience.rounds || timing.now() + pause >= deadline {
                break;
            }
            timing.sleep(pause);
        }
        Err(last.expect("there is at least one server, and it failed"))
    }

    /// What all servers were asked and gave so far.
    pub fn traffic(&self) -> Traffic {
        self.0.mirrors.iter().map(Mirror::traffic).fold(Traffic::default(), |sum, one| Traffic {
            requests: sum.requests + one.requests,
            bytes: sum.bytes + one.bytes,
        })
    }
}

/// An address, with a slash at its end.
fn parse(address: &str) -> Result<String> {
    let uri: ureq::http::Uri = address.parse().map_err(|_| refused(address, "that is no address"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().ok_or_else(|| refused(address, "it names no host"))?;
    if scheme != "http" && scheme != "https" {
        return Err(refused(address, "only http and https can be read"));
    }
    if authority.as_str().contains('@') {
        // Addresses are shown and recorded.
        return Err(Error::Refused {
            reason: "an address of a store holds no user and no password".into(),
            hint: None,
        });
    }
    if uri.query().is_some() || address.contains('#') {
        return Err(refused(address, "it ends in more than a path"));
    }
    Ok(format!("{scheme}://{authority}{}/", uri.path().trim_end_matches('/')))
}

fn refused(address: &str, why: &str) -> Error {
    Error::Refused {
        reason: format!("{} cannot be a store: {why}", crate::path::escape(address.as_bytes())),
        hint: Some("a store on a web server is named as http://HOST[:PORT]/PATH or https://…".into()),
    }
}

/// Whether a server or a cache on the way may have an older one of that name.
fn is_mutable(name: &ObjectName) -> bool {
    use ObjectName::{DeltaIndex, Format, SegmentsCurrent, SnapshotIndex};
    matches!(name, Format | SegmentsCurrent | SnapshotIndex | DeltaIndex(_))
}

impl Backend for HttpBackend {
    fn path(&self) -> &Path {
        &self.0.path
    }

    fn dir(&self) -> Option<&Path> {
        None
    }

    fn read_checked(&self, name: &ObjectName, cap: u64, check: Check<'_>) -> Result<Option<Vec<u8>>> {
        Ok(self.read_told(name, cap, Whom::default(), check)?.map(|(bytes, _)| bytes))
    }

    fn read_told(
        &self,
        name: &ObjectName,
        cap: u64,
        whom: Whom<'_>,
        check: Check<'_>,
    ) -> Result<Option<(Vec<u8>, Teller)>> {
        match self.0.get(name, Asked::Whole { cap }, whom, &mut |_| {}, check) {
            Err(Error::Fetch { object, source: TransferError::TooLong { limit }, .. }) => {
                Err(Error::too_long(&object, limit.saturating_add(1), limit))
            }
            read => read,
        }
    }

    fn mistrust(&self, Teller(at): Teller, why: String) {
        // Who does not answer may have been right.
        if let Some(mirror) = self.0.mirrors.get(at).filter(|mirror| mirror.failures() == 0) {
            mirror.lied(why);
        }
    }

    fn name_of(&self, Teller(at): Teller) -> String {
        self.0.mirrors.get(at).map_or_else(|| self.path().display().to_string(), |mirror| mirror.address.clone())
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Arc<dyn Object>>> {
        Ok(Some(Arc::new(HttpObject { servers: Arc::clone(&self.0), name: *name })))
    }

    fn load(&self, name: &ObjectName, hash: &[u8; 32], cap: u64) -> Result<Option<Loaded>> {
        let mut check = |bytes: &[u8]| {
            let actual = blake3::hash(bytes);
            if actual == *hash {
                return Ok(());
            }
            Err(Error::HashMismatch { object: name.to_string(), actual: actual.to_string() })
        };
        Ok(self.read_checked(name, cap, &mut check)?.map(Loaded::Read))
    }

    fn len(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.0.len(name)
    }

    fn notes(&self) -> Vec<String> {
        let lies = self.0.mirrors.iter().filter_map(|mirror| Some((&mirror.address, mirror.lie()?)));
        let lies = lies.map(|(address, lie)| format!("{address} gave wrong bytes and was avoided from then on: {lie}"));
        let stand_in = self.0.stand_in.get().map(|(name, mirror)| {
            format!("{} does not answer: {name} comes from {mirror}, which may be behind", self.0.path.display())
        });
        lies.chain(stand_in).collect()
    }

    fn traffic(&self) -> Traffic {
        HttpBackend::traffic(self)
    }

    fn link(&self) -> Option<Link> {
        let order = mirrors::order(&self.0.mirrors, self.0.options.timing.now());
        let unknown = Link { latency: Duration::from_millis(50), bytes_per_second: 1e6 };
        let link = order.first().and_then(|at| self.0.mirrors[*at].link()).unwrap_or(unknown);
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let most = self.0.options.bytes_per_second.map_or(f64::MAX, |most| most as f64);
        Some(Link { bytes_per_second: link.bytes_per_second.min(most), ..link })
    }
}

/// An object on web servers, of which nothing is known yet.
#[derive(Debug)]
struct HttpObject {
    servers: Arc<Servers>,
    name: ObjectName,
}

impl Object for HttpObject {
    fn size(&self) -> Result<u64> {
        self.servers.len(&self.name)?.ok_or_else(|| Error::MissingObject { object: self.name.to_string() })
    }

    fn read_checked_at(&self, buffer: &mut [u8], offset: u64, check: Check<'_>) -> Result<()> {
        let bytes = self.read_part(offset, buffer.len(), check)?;
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn read_part(&self, offset: u64, len: usize, check: Check<'_>) -> Result<Vec<u8>> {
        self.read_part_seen(offset, len, &mut |_| {}, check)
    }

    fn read_part_seen(&self, offset: u64, len: usize, seen: Seen<'_>, check: Check<'_>) -> Result<Vec<u8>> {
        if len == 0 {
            return check(&[]).map(|()| Vec::new());
        }
        let asked = Asked::Part { start: offset, len: len as u64 };
        match self.servers.get(&self.name, asked, Whom::default(), seen, check) {
            Ok(Some((bytes, _))) => Ok(bytes),
            Ok(None) => Err(Error::MissingObject { object: self.name.to_string() }),
            Err(Error::Fetch { source: TransferError::EndsEarly, .. }) => {
                let path = self.servers.path.join(self.name.to_string());
                Err(Error::io("read", path, std::io::Error::from(std::io::ErrorKind::UnexpectedEof)))
            }
            Err(e) => Err(e),
        }
    }
}
