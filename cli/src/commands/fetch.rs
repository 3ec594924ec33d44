// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel fetch`: brings what a checkout will need, and keeps it for that.

use evenkeel_store::checkout::{self, CheckoutOptions, Mode};
use evenkeel_store::fetch::FetchReport;
use serde::Serialize;

use super::checkout::{FarArgs, present, words};
use crate::areas::{self, AreaArg};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::text::{bytes, seconds};
use crate::session::Session;

const AFTER_HELP: &str = "\
What is fetched is kept in the state directory, and the next `checkout` of SNAP finds it there. An
interrupted fetch goes on where it was: nothing that had come and was found sound comes again.
What an earlier fetch has brought and SNAP does not need is dropped, and said. The next checkout
that succeeds leaves nothing of it.

Examples:
  evenkeel fetch @latest --dry-run              what it would cost
  evenkeel fetch @latest --limit-rate 500k      at night, over a thin line
  evenkeel fetch @latest --seed /srv/old-image  content that somebody brought";

/// Arguments of `fetch`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The snapshot.
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// An area and where it belongs here (repeatable) [default: the areas of the configuration].
    #[arg(long = "area", value_name = "NAME=PATH", value_parser = areas::area_parser())]
    areas: Vec<AreaArg>,
    /// For a full checkout, which undoes local changes [default: as `checkout` without a mode].
    #[arg(long)]
    full: bool,
    /// Print what would be fetched, and fetch nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    far: FarArgs,
}

#[derive(Serialize)]
struct Fields {
    id: String,
    dry_run: bool,
    /// Null where the store is at hand.
    fetch: Option<FetchReport>,
    forgotten_bytes: u64,
    seconds: f64,
    warnings: Vec<String>,
}

/// Fetches.
///
/// # Errors
/// When the snapshot or an area is not there, servers cannot be reached, or there is too little space.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    session.limit_rate(args.far.limit_rate);
    let areas = areas::select(&session.config, &args.areas)?;
    let store = session.open_store()?;
    let id = session.resolve(&store, &args.snapshot)?;
    let areas = present(session, areas, &id, &store.snapshot(&id)?)?;
    let options = CheckoutOptions {
        areas: areas.iter().map(|area| area.target(&session.config)).collect(),
        mode: args.full.then_some(Mode::Full),
        fetch_only: true,
        dry_run: args.dry_run,
        seeds: args.far.seeds.clone(),
        protected: session.protected()?,
        ..CheckoutOptions::new(id, session.state_dir()?)
    };
    let report = session.run_long(|progress| checkout::checkout(&store, &options, progress))?;
    let mut warnings: Vec<String> = report.areas.iter().flat_map(|area| area.warnings.clone()).collect();
    warnings.dedup();
    if session.out.json {
        let fields = Fields {
            id: id.to_hex(),
            dry_run: args.dry_run,
            fetch: report.fetch,
            forgotten_bytes: report.forgotten_bytes,
            seconds: report.seconds,
            warnings,
        };
        session.out.document("evenkeel/fetch/1", &fields)?;
        return Ok(Exit::Done);
    }
    let out = &session.out;
    match &report.fetch {
        Some(fetch) => words::print_fetch(session, fetch)?,
        None => out.line("the store is at hand: there is nothing to fetch")?,
    }
    if report.forgotten_bytes > 0 {
        out.note(format_args!("{} that an earlier fetch had brought were dropped", bytes(report.forgotten_bytes)));
    }
    for warning in &warnings {
        out.warning(warning);
    }
    let (id, took) = (out.paint.id(id.short(12)), out.paint.dim(format_args!("({})", seconds(report.seconds))));
    match (&report.fetch, args.dry_run) {
        (_, true) => out.line(format_args!("nothing was fetched; this is the plan for {id}"))?,
        (Some(_), false) => out.line(format_args!("ready to check out {id} {took}"))?,
        (None, false) => {}
    }
    Ok(Exit::Done)
}
