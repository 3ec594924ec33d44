// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One request to one server. This file and `plain_proxy` are the only ones that know the HTTP library.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::header::HeaderValue;
use ureq::http::{Uri, header};
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector, TcpConnector};
use ureq::{Agent, Proxy, ProxyProtocol, Timeout};

use super::answer::{Answer, Asked, Body};
use super::options::{HttpOptions, Patience, Secret, Timing};
use super::plain_proxy::PlainProxy;
use super::rate::Rate;
use crate::backend::Seen;
use crate::error::{Error, Result, TransferError};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Longest header of an answer, in bytes.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// Longest text that says why something was not done, in bytes; more is not read.
const SERVICE_TEXT_BYTES_MAX: u64 = 16 << 10;
/// Connections kept open for the next request to a server.
const IDLE_CONNECTIONS: usize = 16;

/// Most times that one request is sent on.
const REDIRECTS_MAX: u32 = 3;

/// A way to servers.
#[derive(Debug)]
pub(in crate::backend) struct Client {
    agent: Agent,
    patience: Patience,
    timing: Arc<dyn Timing>,
    rate: Option<Rate>,
    bearer: Option<Bearer>,
    /// Hosts to which requests may be sent on.
    redirects: Vec<String>,
}

/// A token, and the only server that may have it.
#[derive(Debug)]
struct Bearer {
    server: Uri,
    line: HeaderValue,
}

/// How a body ended that came as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Got {
    Missing,
    Bytes {
        /// The server says that it is meant for people.
        is_web_page: bool,
    },
}

/// What a request cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::backend) struct Cost {
    /// Until the header was there.
    pub(in crate::backend) first_byte: Duration,
    /// From then to the end.
    pub(in crate::backend) body: Duration,
    /// Bytes of the body that were read.
    pub(in crate::backend) bytes: u64,
}

impl Client {
    /// # Errors
    /// [`Error::Refused`] for authorities or a proxy that make no sense.
    pub(super) fn new(options: &HttpOptions) -> Result<Client> {
        let patience = options.patience;
        let identity = options.identity.as_ref().map(|pem| identity(&pem.0)).transpose()?;
        let tls = TlsConfig::builder().root_certs(authorities(&options.authorities)?).client_cert(identity).build();
        let agent = match proxy(options)? {
            None => config(&tls, None, patience).new_agent(),
            Some(proxy) => {
                let plain = PlainProxy::new(proxy.clone(), config(&tls, None, patience));
                let connector = ().chain(plain).chain(ConnectProxyConnector::default());
                let connector = connector.chain(TcpConnector::default()).chain(RustlsConnector::default());
                Agent::with_parts(config(&tls, Some(proxy), patience), connector, DefaultResolver::default())
            }
        };
        let (rate, timing) = (options.bytes_per_second.map(Rate::new), Arc::clone(&options.timing));
        Ok(Client { agent, patience, timing, rate, bearer: None, redirects: Vec::new() })
    }

    /// Gives a token to the server of `address`, and to no other.
    ///
    /// # Errors
    /// [`Error::Refused`] for what can be no token.
    pub(super) fn with_token(self, token: &Secret, address: &str) -> Result<Client> {
        let line = [b"Bearer ", token.0.trim_ascii()].concat();
        let is_token = line.len() > 7 && line[7..].iter().all(u8::is_ascii_graphic);
        let line = HeaderValue::from_bytes(&line).ok().filter(|_| is_token);
        let Some((mut line, server)) = line.zip(address.parse().ok()) else {
            return Err(Error::Refused {
                reason: "the token cannot be used: it has other characters than ASCII, or none".into(),
                hint: Some("its file holds one token and nothing else".into()),
            });
        };
        line.set_sensitive(true);
        Ok(Client { bearer: Some(Bearer { server, line }), ..self })
    }

    /// Lets servers send requests on to `hosts`.
    pub(super) fn with_redirects(self, hosts: &[String]) -> Client {
        Client { redirects: hosts.to_vec(), ..self }
    }

    /// Makes a request, and makes it again where a server sends it on to, within what may be.
    fn follow<T>(
        &self,
        url: &str,
        mut request: impl FnMut(&str) -> Result<T, TransferError>,
    ) -> Result<T, TransferError> {
        let mut url = url.to_string();
        let mut left = REDIRECTS_MAX;
        loop {
            let location = match request(&url) {
                Err(TransferError::Redirect(location)) => location,
                done => return done,
            };
            let next = redirected(&url, &location, &self.redirects).filter(|_| left > 0);
            url = next.ok_or(TransferError::Redirect(location))?;
            left -= 1;
        }
    }

    fn bearer(&self, url: &str) -> Option<HeaderValue> {
        let url: Uri = url.parse().ok()?;
        let bearer = self.bearer.as_ref()?;
        let is_its = bearer.server.scheme() == url.scheme() && bearer.server.authority() == url.authority();
        is_its.then(|| bearer.line.clone())
    }

    /// Appends what was asked for to `buffer`, as much of it as comes, and shows all of that to `seen`. A `fresh` answer is not
    /// one that a cache kept.
    pub(in crate::backend) fn get(
        &self,
        url: &str,
        (asked, fresh): (Asked, bool),
        buffer: &mut Vec<u8>,
        seen: Seen<'_>,
        cost: &mut Cost,
    ) -> Result<Got, TransferError> {
        self.follow(url, |url| self.get_here(url, (asked, fresh), buffer, seen, cost))
    }

    fn get_here(
        &self,
        url: &str,
        (asked, fresh): (Asked, bool),
        buffer: &mut Vec<u8>,
        seen: Seen<'_>,
        cost: &mut Cost,
    ) -> Result<Got, TransferError> {
        let mut request = self.agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = asked.range() {
            request = request.header(header::RANGE, range);
        }
        if fresh {
            request = request.header(header::CACHE_CONTROL, "no-cache");
        }
        if let Some(bearer) = self.bearer(url) {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let start = self.timing.now();
        let response = request.call().map_err(|e| self.why(e))?;
        cost.first_byte = self.timing.now().saturating_sub(start);
        let (head, body) = response.into_parts();
        let answer = answer(head.status.as_u16(), &head.headers);
        let (judged, is_web_page) = (answer.judge(&asked), answer.is_web_page());
        let judged = match judged {
            Err(TransferError::Status { status, retry_after }) => {
                let mut text = Vec::new();
                let mut reader = body.into_with_config().limit(u64::MAX).reader();
                let _ = self.copy(&mut reader, (0, SERVICE_TEXT_BYTES_MAX), &mut text, &mut |_| {}, cost);
                return Err(match service_code(&text) {
                    Some(code) if retry_after.is_none() => TransferError::Service { status, code },
                    _ => TransferError::Status { status, retry_after },
                });
            }
            judged => judged?,
        };
        let (skip, want, exact) = match judged {
            Body::Missing => return Ok(Got::Missing),
            Body::All { cap, expected } => (0, expected.unwrap_or(cap), expected.is_some()),
            Body::Slice { skip, len } => (skip, len, true),
        };
        let mut reader = body.into_with_config().limit(u64::MAX).reader();
        let copied = self.copy(&mut reader, (skip, want), buffer, seen, cost);
        cost.body = self.timing.now().saturating_sub(start).saturating_sub(cost.first_byte);
        let received = copied?;
        if exact && received < want {
            return Err(TransferError::Truncated { received, expected: want });
        }
        // Only the end of the body frees the connection for the next request; and there must be none of it left.
        let is_part = matches!(judged, Body::Slice { .. });
        if !is_part && self.read(&mut reader, &mut [0])? > 0 {
            return Err(TransferError::TooLong { limit: want });
        }
        Ok(Got::Bytes { is_web_page })
    }

    /// Length of an object; `None` when it is not there.
    pub(super) fn len(&self, url: &str, cost: &mut Cost) -> Result<Option<u64>, TransferError> {
        self.follow(url, |url| self.len_here(url, cost))
    }

    fn len_here(&self, url: &str, cost: &mut Cost) -> Result<Option<u64>, TransferError> {
        let start = self.timing.now();
        let mut request = self.agent.head(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(bearer) = self.bearer(url) {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let response = request.call().map_err(|e| self.why(e))?;
        cost.first_byte = self.timing.now().saturating_sub(start);
        let answer = answer(response.status().as_u16(), response.headers());
        match answer.judge(&Asked::Whole { cap: u64::MAX })? {
            Body::Missing => Ok(None),
            Body::All { expected: Some(len), .. } => Ok(Some(len)),
            Body::All { .. } | Body::Slice { .. } => {
                Err(TransferError::Protocol("it does not tell the length of an object".into()))
            }
        }
    }

    /// Sends an object. Its answer says no more than that the server has it.
    pub(in crate::backend) fn put(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        (body, len): (&mut dyn Read, u64),
        cost: &mut Cost,
    ) -> Result<(), TransferError> {
        let request = headers.iter().fold(self.agent.put(url), |request, (name, value)| request.header(*name, *value));
        let request = request.header(header::CONTENT_LENGTH, len);
        let start = self.timing.now();
        let response = request.send(ureq::SendBody::from_reader(body)).map_err(|e| self.why(e))?;
        cost.first_byte = self.timing.now().saturating_sub(start);
        self.require_done(response)
    }

    /// Removes an object; it need not be there.
    pub(in crate::backend) fn delete(&self, url: &str) -> Result<(), TransferError> {
        self.require_done(self.agent.delete(url).call().map_err(|e| self.why(e))?)
    }

    /// What changes something is done when the status says so.
    fn require_done(&self, response: ureq::http::Response<ureq::Body>) -> Result<(), TransferError> {
        let (head, body) = response.into_parts();
        let mut text = Vec::new();
        let mut reader = body.into_with_config().limit(u64::MAX).reader();
        let mut cost = Cost::default();
        let copied = self.copy(&mut reader, (0, SERVICE_TEXT_BYTES_MAX), &mut text, &mut |_| {}, &mut cost);
        let status = head.status.as_u16();
        if (200..300).contains(&status) || status == 404 {
            return copied.map(drop);
        }
        if (300..400).contains(&status) {
            let location = answer(status, &head.headers).location.unwrap_or("nowhere").to_string();
            return Err(TransferError::Redirect(location));
        }
        match service_code(&text) {
            Some(code) => Err(TransferError::Service { status, code }),
            None => Err(TransferError::Status { status, retry_after: None }),
        }
    }

    /// Reads at most `want` bytes after the first `skip`, and gives how many there were. What does not come fast enough is
    /// given up.
    fn copy(
        &self,
        reader: &mut impl Read,
        (mut skip, want): (u64, u64),
        buffer: &mut Vec<u8>,
        seen: Seen<'_>,
        cost: &mut Cost,
    ) -> Result<u64, TransferError> {
        let mut received = 0;
        let (mut span_start, mut span_bytes) = (self.timing.now(), 0);
        let at_once = self.rate.as_ref().map_or(READ_BYTES, |rate| rate.read_bytes(READ_BYTES));
        let mut chunk = vec![0; at_once];
        while received < want {
            let most = usize::try_from((skip + want - received).min(at_once as u64)).unwrap_or(at_once);
            let read = match self.read(reader, &mut chunk[..most]) {
                // A body that breaks off may be continued, however it broke off.
                Err(e @ (TransferError::Connect(_) | TransferError::Timeout { .. })) if received == 0 => return Err(e),
                Err(TransferError::Connect(_)) => return Err(TransferError::Truncated { received, expected: want }),
                read => read?,
            };
            if read == 0 {
                break;
            }
            (cost.bytes, span_bytes) = (cost.bytes + read as u64, span_bytes + read as u64);
            let skipped = usize::try_from(skip).unwrap_or(read).min(read);
            skip -= skipped as u64;
            buffer.extend_from_slice(&chunk[skipped..read]);
            received += (read - skipped) as u64;
            seen(buffer);
            if let Some(rate) = &self.rate {
                // What we wait for by ourselves is not the server's fault.
                span_start += rate.pay(read, &*self.timing);
            }
            let span = self.timing.now().saturating_sub(span_start);
            if span >= self.patience.rate_span {
                if span_bytes < self.patience.rate_bytes && received < want {
                    return Err(TransferError::TooSlow { bytes: span_bytes, span });
                }
                (span_start, span_bytes) = (self.timing.now(), 0);
            }
        }
        Ok(received)
    }

    fn read(&self, reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, TransferError> {
        reader.read(buffer).map_err(|e| match e.get_ref().is_some_and(|inner| inner.is::<ureq::Error>()) {
            true => match e.into_inner().map(|inner| inner.downcast::<ureq::Error>()) {
                Some(Ok(inner)) => self.why(*inner),
                _ => TransferError::Protocol("unknown".into()),
            },
            false => TransferError::Connect(e),
        })
    }

    fn why(&self, error: ureq::Error) -> TransferError {
        let Patience { connect, first_byte, stall, request, .. } = self.patience;
        match error {
            // So the TLS library wraps what it says of a certificate.
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => TransferError::Tls(e.to_string()),
            ureq::Error::Io(e) => TransferError::Connect(e),
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                TransferError::Timeout { what: "connection", limit: connect }
            }
            ureq::Error::Timeout(Timeout::RecvResponse) => TransferError::Timeout { what: "answer", limit: first_byte },
            ureq::Error::Timeout(Timeout::PerRead | Timeout::PerWrite | Timeout::SendRequest) => {
                TransferError::Timeout { what: "further byte", limit: stall }
            }
            ureq::Error::Timeout(_) => TransferError::Timeout { what: "end", limit: request },
            ureq::Error::HostNotFound => TransferError::Connect(io::Error::other("no such host")),
            ureq::Error::ConnectionFailed => TransferError::Connect(io::Error::other("no address answers")),
            ureq::Error::Tls(why) => TransferError::Tls(why.to_string()),
            ureq::Error::Rustls(why) => TransferError::Tls(why.to_string()),
            other => TransferError::Protocol(other.to_string()),
        }
    }
}

/// What the HTTP library is told.
fn config(tls: &TlsConfig, proxy: Option<Proxy>, patience: Patience) -> Config {
    Agent::config_builder()
        .tls_config(tls.clone())
        // Said outright: left alone, the library would look into the environment.
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
        .max_response_header_size(HEADER_BYTES_MAX)
        .max_idle_connections(IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_send_request(Some(patience.stall))
        .timeout_recv_response(Some(patience.first_byte))
        .timeout_per_read(Some(patience.stall))
        .timeout_per_write(Some(patience.stall))
        .timeout_global(Some(patience.request))
        .build()
}

/// Where `location` in an answer of `url` leads, if it may be followed: with the same scheme, and to the same server or to one
/// of `hosts`. Without hosts, nowhere.
fn redirected(url: &str, location: &str, hosts: &[String]) -> Option<String> {
    let from: Uri = url.parse().ok()?;
    let (scheme, server) = (from.scheme_str()?, from.authority()?);
    let target = match location {
        path if path.starts_with('/') && !path.starts_with("//") => format!("{scheme}://{server}{path}"),
        whole => whole.to_string(),
    };
    let to: Uri = target.parse().ok()?;
    let there = to.authority()?;
    // A name and password in it are no part of a host that is listed.
    let is_listed = hosts.iter().any(|host| host.eq_ignore_ascii_case(there.as_str()));
    let may = !hosts.is_empty() && to.scheme_str() == Some(scheme) && (there == server || is_listed);
    may.then_some(target)
}

/// What an object store calls the reason, as in `<Error><Code>AccessDenied</Code>…`.
fn service_code(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.to_string())
}

fn answer(status: u16, headers: &ureq::http::HeaderMap) -> Answer<'_> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A value that cannot be read must not pass for one that is not there.
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("what is no text"));
    Answer {
        status,
        content_range: text(header::CONTENT_RANGE),
        content_length: text(header::CONTENT_LENGTH).and_then(|value| value.parse().ok()),
        content_encoding: encoding,
        content_type: text(header::CONTENT_TYPE),
        location: text(header::LOCATION),
        retry_after: text(header::RETRY_AFTER),
    }
}

/// This machine's certificate and key.
fn identity(pem: &[u8]) -> Result<ClientCert> {
    let refused = |reason: String| Error::Refused {
        reason: format!("the client certificate cannot be used: {reason}"),
        hint: Some("give files with a certificate and its private key in PEM form".into()),
    };
    let (mut chain, mut key) = (Vec::new(), None);
    for item in ureq::tls::parse_pem(pem) {
        match item.map_err(|e| refused(e.to_string()))? {
            PemItem::Certificate(certificate) => chain.push(Certificate::to_owned(&certificate)),
            PemItem::PrivateKey(found) => key = Some(found.to_owned()),
            _ => {}
        }
    }
    match key {
        Some(key) if !chain.is_empty() => Ok(ClientCert::new_with_certs(&chain, key)),
        _ => Err(refused("a certificate or its key is missing".into())),
    }
}

fn authorities(pem: &[u8]) -> Result<RootCerts> {
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        let refused = |e: ureq::Error| Error::Refused {
            reason: format!("the certificate authorities cannot be read: {e}"),
            hint: Some("give a file of certificates in PEM form".into()),
        };
        if let PemItem::Certificate(certificate) = item.map_err(refused)? {
            certificates.push(Certificate::to_owned(&certificate));
        }
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

fn proxy(options: &HttpOptions) -> Result<Option<Proxy>> {
    let Some(address) = options.proxy.as_deref().filter(|address| !address.is_empty()) else { return Ok(None) };
    // Not the address itself: it may hold a password.
    let refused = || Error::Refused {
        reason: "the proxy's address makes no sense".into(),
        hint: Some("a proxy is named as http://[USER:PASSWORD@]HOST:PORT".into()),
    };
    let parsed = Proxy::new(address).map_err(|_| refused())?;
    if !matches!(parsed.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(refused());
    }
    let mut builder = Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
    if let Some(user) = parsed.username() {
        builder = builder.username(user);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for host in options.no_proxy.iter().flat_map(|hosts| hosts.split(',')).map(str::trim) {
        builder = builder.no_proxy(host);
    }
    builder.build().map(Some).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_only_to_hosts_that_are_named() {
        let hosts = ["cdn.example:8443".to_string()];
        let to = |location: &str| redirected("https://a.example/s/packs/x", location, &hosts);
        assert_eq!(to("https://CDN.example:8443/x").as_deref(), Some("https://CDN.example:8443/x"));
        assert_eq!(to("/other").as_deref(), Some("https://a.example/other"));
        for refused in [
            "https://cdn.example/x",
            "http://cdn.example:8443/x",
            "https://user@cdn.example:8443/x",
            "https://cdn.example:8443.evil.example/x",
            "//cdn.example:8443/x",
            "file:///etc/passwd",
            "x",
            "",
        ] {
            assert_eq!(to(refused), None, "{refused}");
        }
        assert_eq!(redirected("https://a.example/s", "/other", &[]), None, "off");
    }
}
