// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel delta`: makes and lists deltas, which let a remote fetch fewer bytes.

use evenkeel_store::delta::{self, Effort, MakeOptions, MakeReport};
use evenkeel_store::format::delta::{
    DeltaIndexEntry, ENCODING_DEFLATE, ENCODING_DIFF, ENCODING_ZSTD, ENCODING_ZSTD_BASE,
};
use evenkeel_store::id::SnapshotId;
use serde::Serialize;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::text::{bytes, counted, seconds};
use crate::session::Session;

const AFTER_HELP: &str = "\
A delta makes the new chunks of one snapshot out of those of another. A remote that has the one fetches a fraction of the \
bytes for the other. Deltas are hints: who has none, or a damaged one, takes the chunks from packs.

Examples:
  evenkeel delta make @latest~ @latest
  evenkeel delta make 3c5e80a1 @latest --effort fast
  evenkeel delta list @latest";

const MAKE_HELP: &str = "\
Tries several encodings for each run of new chunks and keeps the shortest; a run that does not become shorter than it is in \
packs is left out. A delta that there is already from BASE to TARGET is replaced.

Examples:
  evenkeel delta make @latest~ @latest
  evenkeel delta make @latest~2 @latest --effort best --json";

const LIST_HELP: &str = "\
Examples:
  evenkeel delta list
  evenkeel delta list 3c5e80a1 --json";

/// Digits of an id for people.
const ID_DIGITS: usize = 12;

/// Arguments of `delta`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the delta from one snapshot to another.
    Make(MakeArgs),
    /// List the deltas that lead to a snapshot.
    List(ListArgs),
}

/// Arguments of `delta make`.
#[derive(Debug, clap::Args)]
#[command(after_help = MAKE_HELP)]
struct MakeArgs {
    /// The snapshot that remotes have.
    base: String,
    /// The snapshot that they want.
    target: String,
    /// How much time to take: fast, default or best.
    #[arg(long, value_name = "EFFORT", value_enum, default_value = "default", hide_possible_values = true)]
    effort: EffortName,
}

/// Arguments of `delta list`.
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_HELP)]
struct ListArgs {
    /// The snapshot that they lead to.
    #[arg(default_value = "@latest")]
    target: String,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum EffortName {
    Fast,
    Default,
    Best,
}

impl From<EffortName> for Effort {
    fn from(name: EffortName) -> Effort {
        match name {
            EffortName::Fast => Effort::Fast,
            EffortName::Default => Effort::Default,
            EffortName::Best => Effort::Best,
        }
    }
}

#[derive(Serialize)]
struct ListReport {
    target: String,
    deltas: Vec<DeltaFields>,
}

#[derive(Serialize)]
struct DeltaFields {
    delta: String,
    base: Option<String>,
    head_bytes: u64,
    file_bytes: u64,
}

#[derive(Serialize)]
struct MadeReport {
    base: String,
    target: String,
    delta: Option<DeltaFields>,
    frames: u64,
    frames_left_out: u64,
    chunks: u64,
    chunks_left_out: u64,
    plain_bytes: u64,
    pack_bytes: u64,
    left_out_bytes: u64,
    encodings: Vec<EncodingFields>,
    seconds: f64,
}

#[derive(Serialize)]
struct EncodingFields {
    name: String,
    frames: u64,
    payload_bytes: u64,
}

impl DeltaFields {
    fn new(entry: &DeltaIndexEntry) -> Self {
        DeltaFields {
            delta: entry.delta.to_hex(),
            base: entry.base.map(|base| base.to_hex()),
            head_bytes: entry.head_len,
            file_bytes: entry.file_len,
        }
    }
}

/// Makes or lists deltas.
///
/// # Errors
/// When the store cannot be read or written, or a snapshot is not known.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    match &args.command {
        Command::Make(args) => make(session, args),
        Command::List(args) => list(session, args),
    }
}

fn make(session: &Session, args: &MakeArgs) -> Result<Exit> {
    let store = session.open_store()?;
    let base = session.resolve(&store, &args.base)?;
    let target = session.resolve(&store, &args.target)?;
    if base == target {
        return Err(CommandError::usage("a delta leads from one snapshot to another, not from a snapshot to itself"));
    }
    let lock = store.lock_writer(&session.state_dir()?)?;
    let started = std::time::Instant::now();
    let options = MakeOptions { effort: args.effort.into(), threads: 0 };
    let report = session.run_long(|progress| delta::make(&store, base, target, options, &lock, progress))?;
    let took = started.elapsed().as_secs_f64();
    if session.out.json {
        session.out.document("evenkeel/delta-make/1", &MadeReport::new(&base, &target, &report, took))?;
    } else {
        print_made(session, &report, took)?;
    }
    Ok(Exit::Done)
}

impl MadeReport {
    fn new(base: &SnapshotId, target: &SnapshotId, report: &MakeReport, seconds: f64) -> Self {
        let encoding = |(encoding, (frames, payload_bytes)): (&u8, &(u64, u64))| EncodingFields {
            name: encoding_name(*encoding),
            frames: *frames,
            payload_bytes: *payload_bytes,
        };
        MadeReport {
            base: base.to_hex(),
            target: target.to_hex(),
            delta: report.entry.as_ref().map(DeltaFields::new),
            frames: report.frames,
            frames_left_out: report.frames_left_out,
            chunks: report.chunks,
            chunks_left_out: report.chunks_left_out,
            plain_bytes: report.plain_bytes,
            pack_bytes: report.pack_bytes,
            left_out_bytes: report.left_out_bytes,
            encodings: report.by_encoding.iter().map(encoding).collect(),
            seconds,
        }
    }
}

fn encoding_name(encoding: u8) -> String {
    match encoding {
        ENCODING_ZSTD => "zstd".into(),
        ENCODING_ZSTD_BASE => "zstd-with-base".into(),
        ENCODING_DIFF => "differences".into(),
        ENCODING_DEFLATE => "deflated-again".into(),
        other => format!("{other}"),
    }
}

fn print_made(session: &Session, report: &MakeReport, took: f64) -> Result<()> {
    let out = &session.out;
    let Some(entry) = &report.entry else {
        out.note("no delta: nothing would become smaller than it is in packs");
        return Ok(());
    };
    out.line(entry.delta.to_hex())?;
    out.flush()?;
    out.note(format_args!(
        "made a delta of {} in {}: {} that take {} in packs",
        bytes(entry.file_len),
        seconds(took),
        counted(report.chunks, "new chunk"),
        bytes(report.pack_bytes),
    ));
    if report.chunks_left_out > 0 {
        let (chunks, left_out) = (counted(report.chunks_left_out, "new chunk"), bytes(report.left_out_bytes));
        out.note(format_args!("left out: {chunks}, {left_out} in packs and not smaller in a delta"));
    }
    Ok(())
}

fn list(session: &Session, args: &ListArgs) -> Result<Exit> {
    let store = session.open_store()?;
    let target = session.resolve(&store, &args.target)?;
    let entries = delta::read_index(&store, &target)?;
    if session.out.json {
        let deltas = entries.iter().map(DeltaFields::new).collect();
        session.out.document("evenkeel/delta-list/1", &ListReport { target: target.to_hex(), deltas })?;
        return Ok(Exit::Done);
    }
    for entry in &entries {
        let base = entry.base.map_or("nothing".into(), |base| base.short(ID_DIGITS));
        let paint = session.out.paint;
        let name = paint.id(entry.delta.to_hex()[..ID_DIGITS].to_string());
        session.out.line(format_args!("{name}  from {base}  {}", bytes(entry.file_len)))?;
    }
    if entries.is_empty() {
        session
            .out
            .note(format_args!("no delta leads to {}: `evenkeel delta make` makes one", target.short(ID_DIGITS)));
    }
    Ok(Exit::Done)
}
