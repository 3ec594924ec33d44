// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel check`: looks for damage in a store, goes on past it, and names whom it hurts.

use evenkeel_store::check::{CheckOptions, CheckReport, Finding, Severity, check};
use serde::Serialize;

use super::values::parse_percent;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::text::{bytes, counted, seconds};
use crate::session::Session;

const AFTER_HELP: &str = "\
Checks that every object is there, has its structure and its place in the index, and that every chunk that a snapshot \
names is in a pack. --read-data also reads every pack and delta and compares every chunk and payload with its hash. Goes on \
past damage, names the snapshots that it hurts, and exits 12.

Examples:
  evenkeel check
  evenkeel check --read-data
  evenkeel check --read-data --sample 5%        some packs, for a nightly job";

/// Snapshots that are named for a finding without `-v`.
const HURT_SHOWN: usize = 4;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Read and hash all stored data.
    #[arg(long)]
    read_data: bool,
    /// With --read-data: only this part of the packs and deltas, chosen anew each time.
    #[arg(long, value_name = "P%", value_parser = parse_percent, requires = "read_data")]
    sample: Option<u8>,
}

#[derive(Serialize)]
struct Report {
    damaged: bool,
    findings: Vec<FindingFields>,
    snapshots: u64,
    packs: u64,
    packs_read: u64,
    chunks: u64,
    chunks_left_out: u64,
    deltas: u64,
    bytes_read: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct FindingFields {
    object: String,
    problem: String,
    severity: &'static str,
    hurts: Vec<String>,
}

/// Checks the store.
///
/// # Errors
/// When the store cannot be read at all. Damage is no error of the command, but its exit code.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    let store = session.open_store()?;
    let started = std::time::Instant::now();
    let options = CheckOptions { read_data: args.read_data, sample_percent: args.sample.unwrap_or(0), threads: 0 };
    let report = session.run_long(|progress| check(&store, &options, progress))?;
    let took = started.elapsed().as_secs_f64();
    if session.out.json {
        session.out.document("evenkeel/check/1", &Report::new(&report, took))?;
    } else {
        print(session, &report, took)?;
    }
    Ok(if report.is_damaged() { Exit::Damaged } else { Exit::Done })
}

impl Report {
    fn new(report: &CheckReport, seconds: f64) -> Self {
        let finding = |finding: &Finding| FindingFields {
            object: finding.object.clone(),
            problem: finding.problem.clone(),
            severity: severity(finding.severity),
            hurts: finding.hurts.iter().map(|id| id.to_hex()).collect(),
        };
        Report {
            damaged: report.is_damaged(),
            findings: report.findings.iter().map(finding).collect(),
            snapshots: report.snapshots,
            packs: report.packs,
            packs_read: report.packs_read,
            chunks: report.chunks,
            chunks_left_out: report.chunks_left_out,
            deltas: report.deltas,
            bytes_read: report.bytes_read,
            seconds,
        }
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Rebuildable => "rebuildable",
        Severity::Damaged => "damaged",
    }
}

fn print(session: &Session, report: &CheckReport, took: f64) -> Result<()> {
    let out = &session.out;
    for finding in &report.findings {
        let label = match finding.severity {
            Severity::Rebuildable => out.paint.changed("rebuildable"),
            Severity::Damaged => out.paint.bad("damaged"),
        };
        out.line(format_args!("{label}  {}", out.paint.bold(&finding.object)))?;
        out.line(format_args!("  {}", finding.problem))?;
        if !finding.hurts.is_empty() {
            let shown = if out.verbose > 0 { finding.hurts.len() } else { HURT_SHOWN };
            let mut hurt: Vec<String> = finding.hurts.iter().take(shown).map(|id| id.short(12)).collect();
            if finding.hurts.len() > shown {
                hurt.push(format!("and {} more (-v lists all)", finding.hurts.len() - shown));
            }
            out.line(format_args!("  hurts {}: {}", counted(finding.hurts.len() as u64, "snapshot"), hurt.join(", ")))?;
        }
    }
    let mut looked =
        vec![counted(report.snapshots, "snapshot"), counted(report.packs, "pack"), counted(report.chunks, "chunk")];
    if report.deltas > 0 {
        looked.push(counted(report.deltas, "delta"));
    }
    looked.push(format!("{} read in {}", bytes(report.bytes_read), seconds(took)));
    let damaged = report.findings.iter().filter(|finding| finding.severity == Severity::Damaged).count() as u64;
    let verdict =
        if damaged == 0 { out.paint.good("no damage") } else { out.paint.bad(counted(damaged, "damaged object")) };
    out.line(format_args!("{verdict}  {}", looked.join(", ")))?;
    out.flush()?;
    if report.chunks_left_out > 0 {
        out.note(format_args!(
            "left to the snapshots that the bundle needs: {}",
            counted(report.chunks_left_out, "chunk")
        ));
    }
    for hint in hints(report) {
        out.hint(hint);
    }
    Ok(())
}

/// What an operator can do about what was found, once for each kind of damage.
fn hints(report: &CheckReport) -> Vec<&'static str> {
    let damaged = |of: fn(&Finding) -> bool| {
        report.findings.iter().any(|finding| finding.severity == Severity::Damaged && of(finding))
    };
    let mut hints = Vec::new();
    if damaged(|finding| finding.object.starts_with("packs/") && finding.problem != "missing") {
        hints.push(
            "copy a damaged pack back from a backup. Without one: move it out of the store, commit from a tree that has \
             its content, and move it back, for what is whole in it is still used",
        );
    }
    if damaged(|finding| finding.object.starts_with("packs/") && finding.problem == "missing") {
        hints.push("copy a missing pack back from a backup, or commit from a tree that has its content");
    }
    if damaged(|finding| finding.object.starts_with("snapshots/")) {
        hints.push(
            "copy a damaged snapshot back from a backup. If it is the newest one, the next commit needs \
             `--parent OLDER` or `--parent none`",
        );
    }
    hints
}
