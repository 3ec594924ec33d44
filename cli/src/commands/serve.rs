// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel serve`: a store's directory over HTTP(S), for reading only.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_serve::{Handle, Limits, LogFormat, Options, Secrets, ServeError, Server, TlsBytes};
use evenkeel_store::fsio;
use serde::Serialize;

use crate::bucket;
use crate::error::{CommandError, Kind, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::text;
use crate::remote;
use crate::session::Session;

const AFTER_HELP: &str = "\
Serves the objects of a store and nothing else: GET and HEAD, single ranges, no listings, no symbolic links. Opens nothing \
of the store for writing, and needs no root. SIGTERM ends it once the answers under way are sent; SIGHUP reads certificates, \
keys and tokens again.

Examples:
  evenkeel --store /srv/store serve --listen 127.0.0.1:8080
  evenkeel --store /srv/store serve --listen [::]:8443 --tls-cert server.pem --tls-key server.key \\
      --token-file tokens --metrics 127.0.0.1:9102 --access-log -";

/// Largest file of certificates, keys or tokens, in bytes.
const SECRET_BYTES_MAX: u64 = 4 << 20;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Address to listen on (repeatable).
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// The server's certificate and those between it and its authority, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let in only clients with a certificate of these authorities, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Let in only clients with one of these bearer tokens, one a line.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Address of /metrics for Prometheus, without TLS or token.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Where a line for each request goes; `-` for stdout.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Form of these lines: text or json.
    #[arg(long, value_name = "FORM", default_value = "text", hide_possible_values = true)]
    log_format: Form,
    /// Connections at once.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=16384))]
    max_connections: u32,
    /// Connections at once from one address.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_per_address: u32,
    /// Seconds for the head of a request to be there.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    header_timeout: u32,
    /// Seconds for the next request on a connection to begin.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    idle_timeout: u32,
    /// Seconds for anything more of an answer to be taken.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    write_timeout: u32,
    /// Bytes a second that a client must take.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    min_rate: u32,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Form {
    Text,
    Json,
}

#[derive(Serialize)]
struct Report {
    listening: Vec<String>,
    metrics: Option<String>,
    tls: bool,
    token: bool,
    client_certificates: bool,
}

/// Serves until a signal says to stop.
///
/// # Errors
/// A usage error for files that make no sense; no store; or an address that cannot be listened on.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let path = session.store_path().filter(|path| !remote::is_address(path) && !bucket::is_address(path)).ok_or_else(
        || {
            CommandError::usage("no directory of a store is named")
                .hint("name one with --store PATH; only a directory is served")
        },
    )?;
    let secrets = secrets(args)?;
    let listening = args.listen.iter().map(|address| listen(*address)).collect::<Result<Vec<_>>>()?;
    let metrics = args.metrics.map(listen).transpose()?;
    let local = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let report = Report {
        listening: listening.iter().map(local).collect(),
        metrics: metrics.as_ref().map(local),
        tls: args.tls_cert.is_some(),
        token: args.token_file.is_some(),
        client_certificates: args.client_ca.is_some(),
    };
    let log =
        args.access_log.as_deref().map(|path| Ok::<_, CommandError>((log_file(path)?, args.form()))).transpose()?;
    let options = Options { root: path.to_owned(), listen: listening, metrics, secrets, limits: args.limits(), log };
    let server = Server::new(options).map_err(failed)?;
    if report.token && !report.tls && args.listen.iter().any(|address| !address.ip().is_loopback()) {
        session.out.warning("without TLS, tokens can be read on their way");
    }
    tell(session, &report)?;
    let (handle, files) = (server.handle(), args.files());
    interrupt::begin_service(Box::new(move |signal| attend(&handle, &files, signal)));
    let served = server.run();
    interrupt::end_work();
    served.map_err(failed)?;
    Ok(Exit::Done)
}

fn tell(session: &Session, report: &Report) -> Result<()> {
    let out = &session.out;
    if out.json {
        out.document("evenkeel/serve/1", report)?;
    } else {
        let scheme = if report.tls { "https" } else { "http" };
        for address in &report.listening {
            out.line(format_args!("serving {scheme}://{address}/"))?;
        }
        if let Some(address) = &report.metrics {
            out.line(format_args!("metrics http://{address}/metrics"))?;
        }
    }
    out.flush()
}

/// What a signal does: SIGHUP reads the secrets again, any other one stops the server.
fn attend(handle: &Handle, files: &Files, signal: interrupt::Signal) {
    match signal {
        interrupt::Signal::Stop => handle.stop(),
        interrupt::Signal::Reload => {
            let read = files.read();
            let result = handle.reload(read.as_ref().map_err(|e| e as &dyn std::fmt::Display));
            if let Err(e) = result {
                let _ = writeln!(io::stderr(), "warning: {e}; the old ones stay in use");
            }
        }
    }
}

/// Where the secrets are.
#[derive(Clone)]
struct Files {
    tls: Option<(PathBuf, PathBuf)>,
    client_ca: Option<PathBuf>,
    tokens: Option<PathBuf>,
}

impl Files {
    fn read(&self) -> evenkeel_store::Result<Secrets> {
        let read = |path: &PathBuf| fsio::read_capped(path, SECRET_BYTES_MAX);
        let client_authorities = self.client_ca.as_ref().map(read).transpose()?;
        let tls = match &self.tls {
            None => None,
            Some((cert, key)) => Some(TlsBytes { certificates: read(cert)?, key: read(key)?, client_authorities }),
        };
        Ok(Secrets { tls, tokens: self.tokens.as_ref().map(read).transpose()? })
    }
}

impl Args {
    fn files(&self) -> Files {
        Files {
            tls: self.tls_cert.clone().zip(self.tls_key.clone()),
            client_ca: self.client_ca.clone(),
            tokens: self.token_file.clone(),
        }
    }

    fn form(&self) -> LogFormat {
        match self.log_format {
            Form::Text => LogFormat::Text,
            Form::Json => LogFormat::Json,
        }
    }

    fn limits(&self) -> Limits {
        let seconds = |count: u32| Duration::from_secs(count.into());
        let many = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        Limits {
            connections: many(self.max_connections),
            per_address: many(self.max_per_address),
            header: seconds(self.header_timeout),
            idle: seconds(self.idle_timeout),
            write: seconds(self.write_timeout),
            rate: self.min_rate.into(),
            ..Limits::default()
        }
    }
}

fn secrets(args: &Args) -> Result<Secrets> {
    args.files().read().map_err(|e| CommandError::caused_by(Kind::Usage, "cannot read the certificates or tokens", e))
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .map_err(|e| CommandError::caused_by(Kind::Failed, format!("cannot listen on {address}"), e))
}

fn log_file(path: &Path) -> Result<Box<dyn Write + Send>> {
    use rustix::fs::{CWD, Mode, OFlags, openat};

    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::from_raw_mode(0o640));
    let file =
        file.map_err(|e| CommandError::caused_by(Kind::Failed, format!("cannot log to {}", text::path(path)), e))?;
    Ok(Box::new(std::fs::File::from(file)))
}

fn failed(error: ServeError) -> CommandError {
    let kind = match error {
        ServeError::NoStore { .. } => Kind::NoStore,
        ServeError::Secret { .. } => Kind::Usage,
        _ => Kind::Failed,
    };
    CommandError { source: Box::new(error), ..CommandError::new(kind, "") }
}
