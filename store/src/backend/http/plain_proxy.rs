// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plain HTTP through a proxy: the request line names the whole address (RFC 9112 §3.2.2). The HTTP library asks for a tunnel
//! instead, which proxies commonly grant to port 443 only.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::Proxy;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport};

use super::options::Secret;

/// Makes connections to a proxy for servers that are spoken to without TLS, and for no others.
#[derive(Debug)]
pub(super) struct PlainProxy {
    proxy: Proxy,
    /// How the proxy itself is spoken to.
    config: Config,
}

impl PlainProxy {
    /// A way through `proxy`, which `config` does not know of.
    pub(super) fn new(proxy: Proxy, config: Config) -> PlainProxy {
        PlainProxy { proxy, config }
    }

    /// The line that tells the proxy who asks.
    fn authorization(&self) -> Option<Secret> {
        let user = self.proxy.username()?;
        let both = format!("{user}:{}", self.proxy.password().unwrap_or_default());
        Some(Secret(format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(both)).into()))
    }
}

impl<In: Transport> Connector<In> for PlainProxy {
    type Out = Either<In, Forwarded>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        if let Some(transport) = chained {
            return Ok(Some(Either::A(transport)));
        }
        // The way to the proxy itself has none.
        let is_through = details.config.proxy().is_some_and(|proxy| !proxy.is_no_proxy(details.uri));
        if details.uri.scheme() != Some(&Scheme::HTTP) || !is_through {
            return Ok(None);
        }
        let to_proxy = ConnectionDetails {
            uri: self.proxy.uri(),
            addrs: details.resolver.resolve(self.proxy.uri(), &self.config, details.timeout)?,
            config: &self.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let inner = (details.run_connector)(&to_proxy)?;
        let forwarded =
            Forwarded { inner, origin: origin(details.uri), authorization: self.authorization(), at_head: true };
        Ok(Some(Either::B(forwarded)))
    }
}

/// What an address begins with, up to its path.
fn origin(uri: &Uri) -> String {
    // A name and password are no business of the proxy.
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("http://{host}")
}

/// A connection to a proxy that passes requests on to one server.
#[derive(Debug)]
pub(super) struct Forwarded {
    inner: Box<dyn Transport>,
    origin: String,
    authorization: Option<Secret>,
    /// Whether what is sent next begins a request.
    at_head: bool,
}

impl Forwarded {
    /// Says in the output, whose first `amount` bytes are the head of a request, where it is to go. Gives how many there are
    /// then.
    fn address(&mut self, amount: usize) -> Result<usize, ureq::Error> {
        let output = self.inner.buffers().output();
        let line = output[..amount].windows(2).position(|two| two == b"\r\n");
        let path = output[..amount].windows(2).position(|two| two == b" /");
        let (Some(path), Some(line)) = (path.map(|at| at + 1), line.map(|at| at + 2)) else {
            return Err(ureq::Error::Io(io::Error::other("a request without a path or an end of its first line")));
        };
        let authorization = self.authorization.as_ref().map_or(&[][..], |secret| &secret.0);
        let mut len = amount;
        // The last one first: what is before it does not move.
        for (at, more) in [(line, authorization), (path, self.origin.as_bytes())] {
            if output.len() - len < more.len() {
                return Err(ureq::Error::Io(io::Error::other("the head of a request is too long")));
            }
            output.copy_within(at..len, at + more.len());
            output[at..at + more.len()].copy_from_slice(more);
            len += more.len();
        }
        Ok(len)
    }
}

impl Transport for Forwarded {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let begins = std::mem::take(&mut self.at_head);
        let amount = if begins { self.address(amount)? } else { amount };
        self.inner.transmit_output(amount, timeout)
    }

    fn maybe_await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.at_head = true;
        self.inner.maybe_await_input(timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        // An answer is waited for when all of the request has been sent.
        self.at_head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_no_password() {
        let origin = |uri: &str| origin(&uri.parse().unwrap());
        assert_eq!(origin("http://a.example:8080/s/x"), "http://a.example:8080");
        assert_eq!(origin("http://user:pass@[::1]/x"), "http://[::1]");
    }
}
