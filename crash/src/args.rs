// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line.

use crate::Result;
use crate::cut::Loss;
use crate::medium::Medium;
use crate::run::Neighbours;
use crate::workload::{self, Workload};

pub const USAGE: &str = "\
usage: evenkeel-crash [OPTION]…

  --fs ext4|xfs|btrfs   the file system (ext4)
  --states N            crash states over all workloads (1000)
  --seed S              of the states (from the clock)
  --workload NAME       only this one; repeat for more
  --state K             only this state, of a kept recording when there is one
  --loss reordered|prefix
                        what of the unflushed writes is lost (reordered)
  --jobs N              states at once (one a processor)
  --self-test           protocols known to be right and wrong must be found so
  --list                name the workloads";

/// What to do.
#[derive(Debug)]
pub struct Args {
    pub medium: Medium,
    pub states: u64,
    pub seed: Option<u64>,
    pub workloads: Vec<String>,
    pub state: Option<u64>,
    pub loss: Loss,
    pub jobs: Option<u64>,
    pub self_test: bool,
    pub list: bool,
    pub help: bool,
}

impl Args {
    /// Parses the words after the program's name.
    ///
    /// # Errors
    /// A word that is not understood.
    pub fn parse(words: &[String]) -> Result<Args> {
        let mut args = Args {
            medium: Medium::Ext4,
            states: 1000,
            seed: None,
            workloads: Vec::new(),
            state: None,
            loss: Loss::Reordered,
            jobs: None,
            self_test: false,
            list: false,
            help: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--fs" => args.medium = medium(value()?)?,
                "--states" => args.states = number(value()?)?,
                "--seed" => args.seed = Some(number(value()?)?),
                "--workload" => args.workloads.push(value()?.clone()),
                "--state" => args.state = Some(number(value()?)?),
                "--loss" => args.loss = loss(value()?)?,
                "--jobs" => args.jobs = Some(number(value()?)?.max(1)),
                "--self-test" => args.self_test = true,
                "--list" => args.list = true,
                "--help" | "-h" => args.help = true,
                _ => return Err(format!("unknown option '{word}'\n{USAGE}")),
            }
        }
        args.workloads.iter().try_for_each(|name| workload(name).map(|_| ()))?;
        Ok(args)
    }

    /// The workloads that were asked for.
    pub fn chosen(&self) -> Vec<&'static dyn Workload> {
        let named = |workload: &dyn Workload| match self.workloads.as_slice() {
            [] if self.self_test => workload.name().starts_with("toy"),
            [] => !workload.is_broken(),
            names => names.iter().any(|name| name == workload.name()),
        };
        workload::ALL.iter().copied().filter(|workload| named(*workload)).collect()
    }
}

pub fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| format!("'{text}' is no whole number"))
}

pub fn medium(name: &str) -> Result<Medium> {
    let found = Medium::ALL.into_iter().find(|medium| medium.name() == name);
    found.ok_or_else(|| format!("no such file system: '{name}'"))
}

pub fn loss(name: &str) -> Result<Loss> {
    match name {
        "reordered" => Ok(Loss::Reordered),
        "prefix" => Ok(Loss::Prefix),
        _ => Err(format!("no such loss: '{name}'")),
    }
}

pub fn neighbours(name: &str) -> Result<Neighbours> {
    let found = Neighbours::ALL.into_iter().find(|neighbours| neighbours.name() == name);
    found.ok_or_else(|| format!("no such neighbours: '{name}'"))
}

pub fn workload(name: &str) -> Result<&'static dyn Workload> {
    let found = workload::ALL.iter().copied().find(|workload| workload.name() == name);
    found.ok_or_else(|| format!("no such workload: '{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args> {
        Args::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn broken_protocols_run_only_when_asked_for() {
        let names = |words: &[&str]| -> Vec<&str> {
            parse(words).unwrap().chosen().iter().map(|workload| workload.name()).collect()
        };
        assert!(names(&[]).contains(&"commit") && !names(&[]).contains(&"toy-without-dir-sync"));
        assert_eq!(names(&["--self-test"]), ["toy", "toy-without-file-sync", "toy-without-dir-sync"]);
        assert_eq!(names(&["--workload", "checkout-first"]), ["checkout-first"]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in [&["--fs", "vfat"][..], &["--states", "many"], &["--seed"], &["--workload", "none"], &["x"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
