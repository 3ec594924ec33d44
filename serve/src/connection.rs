// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One connection: requests in, answers out, until either side has enough.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::{ServerConnection, StreamOwned};

use crate::files::Object;
use crate::name::{self, Lasting};
use crate::pace::{Paced, Stream};
use crate::plan::{Plan, plan};
use crate::record::Line;
use crate::request::Request;
use crate::server::{Client, Role, Shared, Waiting};

/// Bytes of a body that are read and sent at once.
const PIECE_BYTES: usize = 64 << 10;

/// How reading a head ended without one.
enum NoRequest {
    /// The client went, or the server goes.
    Gone,
    /// To be answered with this status.
    Refused(u16),
}

/// Serves a connection to its end.
pub(crate) fn serve(shared: &Arc<Shared>, socket: Arc<TcpStream>, client: Client, waiting: Option<Waiting<'_>>) {
    let _ = socket.set_nodelay(true);
    let paced = Paced::new(socket, Instant::now() + shared.limits.header);
    let access = shared.access();
    let stream = match access.tls.clone().filter(|_| client.role == Role::Store).map(ServerConnection::new) {
        None => Stream::Plain(paced),
        Some(Ok(tls)) => Stream::Tls(Box::new(StreamOwned::new(tls, paced))),
        Some(Err(_)) => return,
    };
    let mut connection = Connection { shared, stream, client, buffer: Vec::new() };
    let mut goes_on = connection.one(true, waiting);
    while goes_on {
        let waiting = shared.wait(client, &connection.stream.pace().socket);
        goes_on = connection.one(false, waiting);
    }
    connection.stream.close();
}

struct Connection<'s> {
    shared: &'s Arc<Shared>,
    stream: Stream,
    client: Client,
    /// What was read and belongs to no request yet.
    buffer: Vec<u8>,
}

/// The head of an answer, and what its body is.
struct Reply {
    status: u16,
    lines: String,
    /// `Content-Length`.
    len: u64,
    body: Body,
}

enum Body {
    None,
    Text(String),
    Part { object: Object, start: u64 },
}

impl Connection<'_> {
    /// Answers one request; gives whether there may be another.
    fn one(&mut self, is_first: bool, waiting: Option<Waiting<'_>>) -> bool {
        let read = self.read_request(is_first);
        drop(waiting);
        let start = Instant::now();
        let (request, refused) = match read {
            Ok(request) => (request, None),
            Err(NoRequest::Refused(status)) => (Request::default(), Some(status)),
            Err(NoRequest::Gone) => {
                self.shared.metrics.fruitless.fetch_add(u64::from(is_first), Ordering::Relaxed);
                return false;
            }
        };
        let reply = match refused {
            Some(status) => plain(status, ""),
            None => self.reply(&request),
        };
        let goes_on = refused.is_none() && request.keep_alive && reply.status != 405 && !self.shared.is_stopped();
        let status = reply.status;
        let (sent, result) = self.send(&reply, request.method == "HEAD", goes_on);
        let is_cut = result.is_err();
        if self.client.role == Role::Store {
            self.shared.metrics.answered(status, sent, is_cut);
            self.shared.log(&Line {
                peer: self.client.peer,
                method: &request.method,
                target: &request.target,
                range: request.conditions().range,
                agent: request.agent.as_deref(),
                status,
                sent,
                is_cut,
                took: start.elapsed(),
            });
        }
        goes_on && !is_cut
    }

    fn read_request(&mut self, is_first: bool) -> Result<Request, NoRequest> {
        let limits = &self.shared.limits;
        let patience = if is_first { limits.header } else { limits.idle };
        self.stream.pace().deadline = Instant::now() + patience;
        if self.buffer.is_empty() {
            self.stream.pace().stop = Some(Arc::clone(&self.shared.stop));
        }
        let mut has_begun = !self.buffer.is_empty();
        let mut piece = [0; 4096];
        loop {
            match Request::parse(&self.buffer, limits.headers) {
                Ok(Some((request, used))) => {
                    self.buffer.drain(..used);
                    return Ok(request);
                }
                Ok(None) if self.buffer.len() > limits.header_bytes => return Err(NoRequest::Refused(431)),
                Ok(None) => {}
                Err(status) => return Err(NoRequest::Refused(status)),
            }
            let read = match self.stream.read(&mut piece) {
                Ok(0) => return Err(NoRequest::Gone),
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::TimedOut && has_begun => return Err(NoRequest::Refused(408)),
                Err(_) => return Err(NoRequest::Gone),
            };
            if !has_begun {
                has_begun = true;
                self.stream.pace().stop = None;
                self.stream.pace().deadline = Instant::now() + limits.header;
            }
            self.buffer.extend_from_slice(&piece[..read]);
        }
    }

    fn reply(&self, request: &Request) -> Reply {
        if !request.only_reads() {
            return plain(405, "Allow: GET, HEAD\r\n");
        }
        if self.client.role == Role::Metrics {
            return match request.target.as_str() {
                "/metrics" => {
                    let text = self.shared.metrics.render(self.shared.open_connections());
                    let lines = "Content-Type: text/plain; version=0.0.4\r\nCache-Control: no-store\r\n".into();
                    Reply { status: 200, lines, len: text.len() as u64, body: Body::Text(text) }
                }
                _ => plain(404, ""),
            };
        }
        // Before the name: who may not ask is told nothing.
        if !self.shared.access().allows(request.token.as_deref()) {
            return plain(401, "WWW-Authenticate: Bearer\r\n");
        }
        let Some((name, lasting)) = name::object(&request.target) else { return plain(404, "") };
        match self.shared.root.object(name, lasting) {
            Ok(Some(object)) => self.object(request, object, lasting),
            Ok(None) => plain(404, ""),
            Err(_) => plain(500, ""),
        }
    }

    fn object(&self, request: &Request, object: Object, lasting: Lasting) -> Reply {
        let size = object.size;
        let kept = match (lasting, self.shared.is_private) {
            (Lasting::AskAgain, _) => "no-cache",
            (Lasting::Forever, false) => "public, max-age=31536000, immutable",
            (Lasting::Forever, true) => "private, max-age=31536000, immutable",
        };
        let lines = format!(
            "ETag: {}\r\nCache-Control: {kept}\r\nAccept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\n\
             X-Content-Type-Options: nosniff\r\n",
            object.etag
        );
        match plan(request.method == "GET", &request.conditions(), size, &object.etag) {
            Plan::Whole => Reply { status: 200, lines, len: size, body: Body::Part { object, start: 0 } },
            Plan::Part { start, len } => {
                let last = start + len - 1;
                let lines = lines + &format!("Content-Range: bytes {start}-{last}/{size}\r\n");
                Reply { status: 206, lines, len, body: Body::Part { object, start } }
            }
            Plan::NotModified => Reply { status: 304, lines, len: size, body: Body::None },
            Plan::PreconditionFailed => plain(412, ""),
            Plan::NotSatisfiable => plain(416, &format!("Content-Range: bytes */{size}\r\n")),
        }
    }

    /// Gives how many bytes of the body were sent, and whether that was all.
    fn send(&mut self, reply: &Reply, is_head: bool, goes_on: bool) -> (u64, io::Result<()>) {
        let start = Instant::now();
        let time = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
        let connection = if goes_on { "" } else { "Connection: close\r\n" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nDate: {time}\r\n{}Content-Length: {}\r\n{connection}\r\n",
            reply.status,
            reason(reply.status),
            reply.lines,
            reply.len,
        );
        let mut bytes = head.into_bytes();
        let mut sent = 0;
        match &reply.body {
            Body::Text(text) if !is_head => {
                bytes.extend_from_slice(text.as_bytes());
                let result = self.write(&bytes, start, 0);
                (if result.is_ok() { reply.len } else { 0 }, result)
            }
            Body::Part { object, start: at } if !is_head => {
                while sent < reply.len || !bytes.is_empty() {
                    let len = usize::try_from(reply.len - sent).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
                    let head_len = bytes.len();
                    bytes.resize(head_len + len, 0);
                    // An object that was cut short meanwhile ends the connection: its length is promised already.
                    let result = object.file.read_exact_at(&mut bytes[head_len..], at + sent);
                    if let Err(e) = result.and_then(|()| self.write(&bytes, start, sent)) {
                        return (sent, Err(e));
                    }
                    sent += len as u64;
                    bytes.clear();
                }
                (sent, Ok(()))
            }
            _ => (0, self.write(&bytes, start, 0)),
        }
    }

    /// Writes one piece in time: something of it must be taken again and again, and all together no slower than at the
    /// lowest rate.
    fn write(&mut self, bytes: &[u8], start: Instant, sent: u64) -> io::Result<()> {
        let limits = &self.shared.limits;
        let takes = |bytes: u64| limits.write + Duration::from_secs(bytes / limits.rate.max(1));
        // Who was fast at first may not live on that for hours.
        let (len, now) = (bytes.len() as u64, Instant::now());
        let pace = self.stream.pace();
        pace.deadline = (start + takes(sent + len)).min(now + takes(len));
        pace.stall = Some(limits.write.max(Duration::from_secs(1)));
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }
}

fn plain(status: u16, lines: &str) -> Reply {
    let text = format!("{status} {}\n", reason(status));
    let lines = format!("{lines}Content-Type: text/plain\r\nCache-Control: no-store\r\n");
    Reply { status, lines, len: text.len() as u64, body: Body::Text(text) }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        505 => "HTTP Version Not Supported",
        _ => "Bad Request",
    }
}
