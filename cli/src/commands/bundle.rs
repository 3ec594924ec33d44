// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel bundle`: a snapshot in one file. It is used as a store, so nothing here applies it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use evenkeel_store::backend::BundleBackend;
use evenkeel_store::copy::CopyOptions;
use evenkeel_store::copy::bundle::assemble;
use evenkeel_store::format::bundle::BundleHead;
use evenkeel_store::{Error as StoreError, fsio};
use serde::Serialize;

use crate::error::{CommandError, NOTHING_CHANGED, Result};
use crate::exit::Exit;
use crate::output::json::PathField;
use crate::output::text::{self, bytes, counted};
use crate::session::Session;

const AFTER_HELP: &str = "\
A bundle is a store that is only read: every command that reads takes it as --store FILE, checkout and copy too. With \
--base it leaves out what those snapshots have, and is for servers that are at one of them, and for stores that have one.

Examples:
  evenkeel bundle create @latest -o web.bundle
  evenkeel bundle create @latest --base @latest~1 -o - | ssh site 'cat > web.bundle'
  evenkeel bundle verify web.bundle
  evenkeel --store web.bundle checkout @latest --area web=/srv/web      a server without a store
  evenkeel --store web.bundle copy --to /srv/store                      a site with a store";

/// Arguments of `bundle`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write a snapshot into a file.
    Create(Create),
    /// Tell what a bundle holds, from its first bytes.
    Info {
        /// The bundle.
        file: PathBuf,
    },
    /// Find out whether a bundle is whole and unchanged.
    Verify {
        /// The bundle.
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The snapshot.
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// Leave out what this snapshot has; may be repeated: then what all of them have.
    #[arg(long = "base", value_name = "SNAP")]
    bases: Vec<String>,
    /// The file; - for standard output. Of files that are there only a bundle gives way.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace a file that is something else than a bundle.
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    path: PathField,
    target: String,
    bases: Vec<String>,
    objects: usize,
    bytes: u64,
}

/// Makes, describes or verifies a bundle.
///
/// # Errors
/// When it cannot be read or written, or is damaged.
pub fn run(session: &Session, args: &Args) -> Result<Exit> {
    match &args.action {
        Action::Create(create) => make(session, create)?,
        Action::Info { file } => tell(session, file, BundleBackend::open(file)?.head(), "")?,
        Action::Verify { file } => {
            let bundle = BundleBackend::open(file)?;
            session.run_long(|progress| bundle.verify(progress))?;
            tell(session, file, bundle.head(), "whole: ")?;
        }
    }
    Ok(Exit::Done)
}

fn make(session: &Session, args: &Create) -> Result<()> {
    let is_pipe = args.output == Path::new("-");
    if is_pipe && session.out.json {
        return Err(CommandError::usage("with `-o -` standard output is the bundle: there is no place for --json"));
    }
    if !is_pipe {
        check_place(&args.output, args.force)?;
    }
    let store = session.open_store()?;
    let target = session.resolve(&store, &args.snapshot)?;
    let bases = args.bases.iter().map(|name| session.resolve(&store, name)).collect::<Result<Vec<_>>>()?;
    let options = CopyOptions::new(&session.state_dir()?);
    let bundle = session.run_long(|progress| {
        let bundle = assemble(&store, &target, &bases, &options, progress)?;
        match is_pipe {
            true => bundle.write_to(&mut std::io::stdout().lock(), progress)?,
            false => bundle.write_file(&args.output, progress)?,
        }
        Ok(bundle)
    })?;
    if is_pipe { Ok(()) } else { tell(session, &args.output, bundle.head(), "made ") }
}

/// Refuses to write a bundle in the place of anything but a bundle, or of any other file unless that is meant.
fn check_place(file: &Path, is_meant: bool) -> Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().as_bytes();
    let parent = fsio::Dir::open_following(parent)?;
    let found = parent.stat_opt(name).map_err(|e| StoreError::io("look at", file, e))?;
    let Some(found) = found.filter(|_| !name.is_empty()) else {
        return if name.is_empty() { Err(CommandError::usage("`--output` names no file")) } else { Ok(()) };
    };
    let is_file = found.file_type == fsio::FileType::File;
    if is_file && (is_meant || BundleBackend::is_one(file)) {
        return Ok(());
    }
    let error = CommandError::usage(format!("{} is there, and no bundle", text::path(file)));
    let hint = if is_file { "name a new file, or say --force to replace it" } else { "name a new file" };
    Err(error.hint(format!("{NOTHING_CHANGED}{hint}")))
}

fn tell(session: &Session, path: &Path, head: &BundleHead, what: &str) -> Result<()> {
    if session.out.json {
        let report = Report {
            path: PathField::new(path.as_os_str().as_bytes()),
            target: head.target.to_hex(),
            bases: head.bases.iter().map(|id| id.to_hex()).collect(),
            objects: head.entries.len(),
            bytes: head.file_len(),
        };
        return session.out.document("evenkeel/bundle/1", &report);
    }
    let (target, objects) = (session.out.paint.id(head.target.short(12)), counted(head.entries.len() as u64, "object"));
    session.out.line(format_args!("{what}{}: {target}, {objects}, {}", text::path(path), bytes(head.file_len())))?;
    for base in &head.bases {
        session.out.line(format_args!("  needs {}", session.out.paint.id(base.short(12))))?;
    }
    Ok(())
}
