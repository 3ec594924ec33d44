// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel cat`: a file's content, every chunk verified before it is printed.

use std::ffi::OsString;

use evenkeel_store::Progress;
use evenkeel_store::format::manifest::{ChunkRun, Entry, FileContent, InodeKind, Node};
use evenkeel_store::manifest::content_runs;
use evenkeel_store::path::escape;
use evenkeel_store::read::{ChunkReader, ReadScratch};

use crate::error::{CommandError, Kind, Result};
use crate::exit::Exit;
use crate::output::{Output, text};
use crate::session::Session;
use crate::snapshot_path::SnapshotPath;

const EXAMPLES: &str = "\
Examples:
  evenkeel cat @latest etc:ssh/sshd_config
  evenkeel cat @latest~1 /etc/ssh/sshd_config | diff - /etc/ssh/sshd_config";

/// Bytes of content that are fetched together.
const AHEAD_BYTES: u64 = 16 << 20;
/// Zeros of a hole, written piece by piece.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Arguments of `cat`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The snapshot.
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// AREA:PATH, a path that one area has, or a path as it was on the master.
    #[arg(value_name = "PATH")]
    path: OsString,
}

/// Prints the file.
///
/// # Errors
/// When there is no such file, or a chunk of it is damaged: everything before it was printed.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let store = session.open_store()?;
    let id = session.resolve(&store, &args.snapshot)?;
    let snapshot = store.snapshot(&id)?;
    let reader = session.open_reader_of(&store, &[id])?;
    let found = SnapshotPath::parse(&args.path).find(&snapshot, &id.short(12), &reader)?;
    let entry = found.manifest.get_inode(&found.entry.path)?;
    let shown = format!("{}:{}", found.area, found.entry.path);
    match entry {
        Some(Entry { node: Node::Inode(inode), .. }) => match &inode.kind {
            InodeKind::File(content) => write_content(&session.out, &reader, content)?,
            InodeKind::Symlink(target) => {
                return Err(CommandError::usage(format!("`{shown}` is a symlink to {}", escape(target)))
                    .hint("name its target"));
            }
            other => {
                return Err(CommandError::usage(format!("`{shown}` is a {}", text::kind_name(other)))
                    .hint("only regular files have content"));
            }
        },
        _ => return Err(CommandError::new(Kind::Damaged, format!("`{shown}` is a link to nothing"))),
    }
    Ok(Exit::Done)
}

/// Fetches what some next runs need, where every chunk by itself would be a request. Gives where the runs after them begin.
fn fetch_ahead(reader: &ChunkReader, runs: &[ChunkRun], from: usize) -> Result<usize> {
    let (mut end, mut bytes, mut ids) = (from, 0, Vec::new());
    while let Some(run) = runs.get(end).filter(|_| bytes < AHEAD_BYTES) {
        if let ChunkRun::Data { id, len } = run {
            bytes += u64::from(*len);
            ids.push(*id);
        }
        end += 1;
    }
    reader.fetch_ahead(ids, &Progress::default())?;
    Ok(end)
}

fn write_content(out: &Output, reader: &ChunkReader, content: &FileContent) -> Result<()> {
    let mut scratch = ReadScratch::default();
    let (runs, mut ahead) = (content_runs(reader, content)?, 0);
    for (at, run) in runs.iter().enumerate() {
        if at >= ahead {
            ahead = fetch_ahead(reader, &runs, at)?;
        }
        match *run {
            ChunkRun::Data { id, .. } => out.bytes(reader.read(&id, &mut scratch)?.plain())?,
            ChunkRun::Hole { mut len } => {
                while len > 0 {
                    let step = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
                    out.bytes(&ZEROS[..step])?;
                    len -= step as u64;
                }
            }
        }
    }
    Ok(())
}
