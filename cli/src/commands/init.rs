// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel init`: makes a store.

use std::path::PathBuf;

use evenkeel_store::Store;
use evenkeel_store::format::store::ChunkerParams;
use evenkeel_store::limits;
use evenkeel_store::store::InitOptions;
use serde::Serialize;

use super::values::parse_bytes;
use crate::bucket;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::json::PathField;
use crate::output::text::{self, bytes};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  evenkeel init /srv/evenkeel/store
  evenkeel init --chunk-avg 32KiB ./store
  evenkeel init s3://releases/web";

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory of the new store, or s3://BUCKET[/PREFIX]; it must be new or empty.
    #[arg(value_name = "STORE")]
    path: PathBuf,
    /// Average chunk size: a power of two from 8 KiB to 4 MiB. Smaller finds more duplicates, larger is faster.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64KiB")]
    chunk_avg: u64,
    /// Size at which a pack is closed: 1 MiB to 64 MiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "32MiB")]
    pack_size: u64,
}

#[derive(Serialize)]
struct Report {
    store: String,
    #[serde(flatten)]
    path: PathField,
    chunk_avg: u64,
    pack_size: u64,
}

/// Makes the store.
///
/// # Errors
/// When the directory is not empty, a size is outside the format, or the system fails.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let options = options(args)?;
    let store = if bucket::is_address(&args.path) {
        let backend = bucket::open(&args.path, &session.config, &session.state_dir()?)?;
        Store::create_in_bucket(backend, &options)?
    } else {
        Store::create(&args.path, &options)?
    };
    session.done(format!("the store {} was made in {}", store.id(), text::path(store.path())));
    if session.out.json {
        use std::os::unix::ffi::OsStrExt;
        let path = PathField::new(store.path().as_os_str().as_bytes());
        let report =
            Report { store: store.id().to_string(), path, chunk_avg: args.chunk_avg, pack_size: args.pack_size };
        session.out.document("evenkeel/init/1", &report)?;
    } else {
        session.out.line(format_args!("made store {} in {}", store.id(), text::path(store.path())))?;
    }
    Ok(Exit::Done)
}

/// The store's parameters, refused here in the words of the command line.
fn options(args: &Args) -> Result<InitOptions> {
    let (low, high) = limits::CHUNK_AVG_RANGE;
    let avg = u32::try_from(args.chunk_avg).ok().filter(|avg| avg.is_power_of_two() && (low..=high).contains(avg));
    let Some(avg) = avg else {
        return Err(CommandError::usage(format!("an average chunk of {} is not possible", bytes(args.chunk_avg)))
            .hint(format!("--chunk-avg takes a power of two from {} to {}", bytes(low.into()), bytes(high.into()))));
    };
    let (low, high) = limits::PACK_TARGET_RANGE;
    if !(low..=high).contains(&args.pack_size) {
        return Err(CommandError::usage(format!("a pack of {} is not possible", bytes(args.pack_size))).hint(format!(
            "--pack-size takes {} to {}",
            bytes(low),
            bytes(high)
        )));
    }
    Ok(InitOptions { chunker: ChunkerParams::around(avg), pack_size: args.pack_size })
}
