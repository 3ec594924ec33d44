// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel copy`: snapshots from the store to another one.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_store::copy::{CopyOptions, CopyReport, copy, open_target};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::store::InitOptions;
use evenkeel_store::{Error as StoreError, Store};
use serde::Serialize;

use crate::bucket;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::json::PathField;
use crate::output::text::{self, bytes, counted, seconds};
use crate::remote;
use crate::session::Session;

const AFTER_HELP: &str = "\
Copies what the target lacks, verified on the way, and a snapshot last, when everything it needs is there; then the deltas \
that lead to it. Parents that are not named are not copied. Stopped at any time, the same command goes on where it was.

Examples:
  evenkeel copy --to /mnt/usb/store @latest       to carry to a site without a line
  evenkeel --store https://master.example/store copy --to /srv/mirror
  evenkeel copy --to /srv/archive @latest~2 @latest";

/// Arguments of `copy`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Snapshots to copy; without any, all.
    #[arg(value_name = "SNAP")]
    snapshots: Vec<String>,
    /// The store to copy to, a directory or s3://BUCKET[/PREFIX]; made with the same parameters where there is none.
    #[arg(long, value_name = "STORE")]
    to: PathBuf,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    path: PathField,
    made: bool,
    copied: Vec<String>,
    there: Vec<String>,
    absent_parents: Vec<String>,
    chunks: u64,
    deltas: u64,
    packs_adopted: u64,
    stored_bytes: u64,
    seconds: f64,
    warnings: Vec<String>,
}

/// Copies the snapshots.
///
/// # Errors
/// When one of them cannot be read whole, the target cuts files otherwise or is written by somebody else, or the system
/// fails.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    if remote::is_address(&args.to) && !bucket::is_address(&args.to) {
        return Err(CommandError::usage("a store on a web server can only be read")
            .hint("copy to a directory, on the machine that serves it, or to the bucket"));
    }
    let from = session.open_store()?;
    let ids = args.snapshots.iter().map(|name| session.resolve(&from, name)).collect::<Result<Vec<_>>>()?;
    let options = CopyOptions::new(&session.state_dir()?);
    let (to, made) = open_to(session, args, &from)?;
    if made {
        session.done(format!("the store {} was made in {}", to.id(), text::path(to.path())));
    }
    let report = session.run_long(|progress| copy(&from, &to, &ids, &options, progress))?;
    for warning in &report.warnings {
        session.out.warning(warning);
    }
    if session.out.json {
        session.out.document("evenkeel/copy/1", &Report::new(args, made, &report))?;
    } else {
        print(session, args, made, &report)?;
    }
    Ok(Exit::Done)
}

/// The target, and whether it was made.
fn open_to(session: &Session, args: &Args, from: &Store) -> Result<(Store, bool)> {
    if !bucket::is_address(&args.to) {
        return Ok(open_target(&args.to, from)?);
    }
    let backend = || bucket::open(&args.to, &session.config, &session.state_dir()?);
    match Store::open_at(Arc::new(backend()?)) {
        Ok(store) => Ok((store, false)),
        Err(StoreError::NotAStore { .. }) => Ok((Store::create_in_bucket(backend()?, &InitOptions::like(from))?, true)),
        Err(e) => Err(e.into()),
    }
}

impl Report {
    fn new(args: &Args, made: bool, report: &CopyReport) -> Self {
        let hex = |ids: &[SnapshotId]| ids.iter().map(|id| id.to_hex()).collect();
        Report {
            path: PathField::new(args.to.as_os_str().as_bytes()),
            made,
            copied: hex(&report.copied),
            there: hex(&report.there),
            absent_parents: hex(&report.absent_parents),
            chunks: report.chunks,
            deltas: report.deltas,
            packs_adopted: report.packs_adopted,
            stored_bytes: report.stored_bytes,
            seconds: report.seconds,
            warnings: report.warnings.clone(),
        }
    }
}

fn print(session: &Session, args: &Args, made: bool, report: &CopyReport) -> Result<()> {
    let out = &session.out;
    for id in &report.copied {
        out.line(format_args!("copied {}", out.paint.id(id.short(12))))?;
    }
    let target = if made { "the new store" } else { "the store" };
    let there = if report.there.is_empty() { String::new() } else { format!(", {} there before", report.there.len()) };
    let deltas = if report.deltas == 0 { String::new() } else { format!(", {}", counted(report.deltas, "delta")) };
    out.line(format_args!(
        "{} to {target} in {}{there}: {}{deltas}, {} written in {}",
        counted(report.copied.len() as u64, "snapshot"),
        text::path(&args.to),
        counted(report.chunks, "chunk"),
        bytes(report.stored_bytes),
        seconds(report.seconds),
    ))?;
    out.flush()?;
    for id in &report.absent_parents {
        out.note(format_args!("the parent {} was not copied: the history ends there", id.short(12)));
    }
    Ok(())
}
