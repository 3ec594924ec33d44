// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel man`: the manual pages, made from the same definition as `--help`.

use std::path::{Path, PathBuf};

use clap_mangen::Man;
use evenkeel_store::fsio;

use crate::args;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, text};
use crate::topics::{self, TOPICS};

const EXAMPLES: &str = "\
Examples:
  evenkeel man | man -l -
  evenkeel man /usr/local/share/man/man1";

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write a page for the program and one for each command into this directory.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the page of the program, or writes all pages.
///
/// # Errors
/// When a page or stdout cannot be written.
pub fn run(out: &Output, args: &Args) -> Result<Exit> {
    let mut command = args::command();
    command.build();
    let Some(dir) = &args.dir else {
        out.bytes(&program_page(&command)?)?;
        return Ok(Exit::Done);
    };
    fsio::create_dir_all(dir)?;
    publish(dir, "evenkeel", &program_page(&command)?)?;
    let mut pages = 1;
    for subcommand in command.get_subcommands() {
        let name = format!("evenkeel-{}", subcommand.get_name());
        let mut page = Vec::new();
        Man::new(subcommand.clone()).title(name.to_uppercase()).render(&mut page)?;
        publish(dir, &name, &page)?;
        pages += 1;
    }
    out.line(format_args!("{} written to {}", text::counted(pages, "page"), text::path(dir)))?;
    Ok(Exit::Done)
}

/// The page of the program with the help topics as sections.
fn program_page(command: &clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    for topic in TOPICS {
        let text = topics::text(topic).unwrap_or_default();
        page.extend_from_slice(format!(".SH {}\n.nf\n{}.fi\n", topic.to_uppercase(), roff(&text)).as_bytes());
    }
    Ok(page)
}

/// Plain text as roff lines: no backslash, leading dot or quote means anything.
fn roff(text: &str) -> String {
    text.lines()
        .map(|line| {
            let line = line.replace('\\', "\\e").replace('-', "\\-");
            if line.starts_with(['.', '\'']) { format!("\\&{line}\n") } else { format!("{line}\n") }
        })
        .collect()
}

fn publish(dir: &Path, name: &str, page: &[u8]) -> Result<()> {
    Ok(fsio::publish_file(&dir.join(format!("{name}.1")), page)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(roff(".a\n'b\\c-d"), "\\&.a\n\\&'b\\ec\\-d\n");
    }
}
