// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A static web server that can be told to misbehave, and that counts what it was asked and what it sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of one request.
#[derive(Debug, Clone)]
pub enum Manner {
    /// As any static server answers it.
    Honest,
    /// As honest, a little later.
    Late(Duration),
    /// A status line and headers, no body.
    Status(u16, &'static str),
    /// The right header, then so many bytes of the body, then nothing more.
    Truncate(usize),
    /// The whole object, whatever range is asked for.
    Whole,
    /// The right bytes under another range.
    OtherRange,
    /// The right bytes, said to be compressed.
    Gzip,
    /// A page for people.
    Page,
    /// Header and one byte, then silence.
    Stall,
    /// A byte of the body at a time, with pauses.
    Drip(Duration),
    /// The connection ends before the header.
    Reset,
    /// Another address.
    Redirect(String),
    /// A body without end or length.
    Endless,
    /// The right header for a part, and a body that does not end where it says.
    EndlessPart,
    /// Of each body the first byte is another.
    Lie,
}

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    /// Without the slash at its beginning.
    pub path: String,
    pub range: Option<(u64, u64)>,
    /// All header lines, in lower case.
    pub headers: Vec<String>,
}

type Choice = dyn Fn(&Asked, usize) -> Manner + Send + Sync;

struct Shared {
    root: PathBuf,
    choice: Box<Choice>,
    asked: Mutex<Vec<Asked>>,
    sent: Mutex<u64>,
    stopped: AtomicBool,
}

/// A running server; it stops when dropped.
pub struct WebServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl WebServer {
    /// Serves the files below `root` as any server would.
    pub fn honest(root: &Path) -> WebServer {
        WebServer::start(root, |_, _| Manner::Honest)
    }

    /// Serves the files below `root` in the manner that `choice` gives for a request and the number of those before it.
    pub fn start(root: &Path, choice: impl Fn(&Asked, usize) -> Manner + Send + Sync + 'static) -> WebServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            choice: Box::new(choice),
            asked: Mutex::default(),
            sent: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stopped.load(Ordering::Relaxed) {
                    break;
                }
                let serving = Arc::clone(&serving);
                // A client that goes away in the middle is no concern of the server.
                std::thread::spawn(move || stream.map(|stream| serve(&serving, &stream)));
            }
        });
        WebServer { address, shared }
    }

    /// The address that a client reads from.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    /// Bytes sent so far, headers included.
    pub fn sent(&self) -> u64 {
        *self.shared.sent.lock().unwrap()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers the requests of one connection.
fn serve(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(asked) = read_request(&mut reader)? {
        let nth = {
            let mut all = shared.asked.lock().unwrap();
            all.push(asked.clone());
            all.len() - 1
        };
        let manner = (shared.choice)(&asked, nth);
        if !answer(shared, &asked, &manner, &mut Counted { stream, sent: &shared.sent })? {
            break;
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked = Asked {
        method: method.to_string(),
        path: path.trim_start_matches('/').to_string(),
        range: None,
        headers: Vec::new(),
    };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Ok(Some(asked));
        }
        if let Some((first, last)) = header.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
            asked.range = Some((first.parse().unwrap(), last.parse().unwrap()));
        }
        asked.headers.push(header);
    }
}

/// Gives whether the connection goes on.
fn answer(shared: &Shared, asked: &Asked, manner: &Manner, out: &mut Counted<'_>) -> std::io::Result<bool> {
    let plain = |status: &str, more: &str| format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n");
    match manner {
        Manner::Late(time) => std::thread::sleep(*time),
        Manner::Status(status, more) => {
            out.write_all(plain(&format!("{status} so"), more).as_bytes())?;
            return Ok(true);
        }
        Manner::Redirect(to) => {
            out.write_all(plain("302 Found", &format!("Location: {to}\r\n")).as_bytes())?;
            return Ok(true);
        }
        Manner::Reset => return Ok(false),
        Manner::Page => {
            let page = "<html><body>Please log in.</body></html>";
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", page.len());
            out.write_all((head + page).as_bytes())?;
            return Ok(true);
        }
        Manner::Endless => {
            out.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                out.write_all(&[0; 4096])?;
            }
        }
        _ => {}
    }
    let Ok(bytes) = std::fs::read(shared.root.join(&asked.path)) else {
        out.write_all(plain("404 Not Found", "").as_bytes())?;
        return Ok(true);
    };
    let total = bytes.len() as u64;
    let range = asked.range.filter(|_| !matches!(manner, Manner::Whole));
    let (status, mut body, place) = match range {
        Some((first, _)) if first >= total => {
            out.write_all(plain("416 Range Not Satisfiable", "").as_bytes())?;
            return Ok(true);
        }
        Some((first, last)) => {
            let last = last.min(total - 1);
            let body = bytes[usize::try_from(first).unwrap()..=usize::try_from(last).unwrap()].to_vec();
            let shift = u64::from(matches!(manner, Manner::OtherRange));
            ("206 Partial Content", body, format!("Content-Range: bytes {}-{last}/{total}\r\n", first + shift))
        }
        None => ("200 OK", bytes, String::new()),
    };
    if let (Manner::Lie, Some(first)) = (manner, body.first_mut()) {
        *first ^= 1;
    }
    let coding = if matches!(manner, Manner::Gzip) { "Content-Encoding: gzip\r\n" } else { "" };
    let end = match manner {
        Manner::EndlessPart => "Connection: close\r\n".to_string(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("HTTP/1.1 {status}\r\n{place}{coding}{end}\r\n");
    out.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(true);
    }
    match manner {
        Manner::Truncate(len) => {
            out.write_all(&body[..body.len().min(*len)])?;
            Ok(body.len() <= *len)
        }
        Manner::Stall => {
            out.write_all(&body[..1])?;
            // Until the client goes.
            out.stream.read_exact(&mut [0])?;
            Ok(false)
        }
        Manner::EndlessPart => loop {
            out.write_all(&[0; 4096])?;
        },
        Manner::Drip(pause) => {
            for byte in body {
                out.write_all(&[byte])?;
                std::thread::sleep(*pause);
            }
            Ok(true)
        }
        _ => out.write_all(&body).map(|()| true),
    }
}

/// A connection that counts what is sent over it.
struct Counted<'a> {
    stream: &'a TcpStream,
    sent: &'a Mutex<u64>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.stream.write(bytes)?;
        *self.sent.lock().unwrap() += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
