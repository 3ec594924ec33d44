// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Areas of this machine, from `--area` and the configuration.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use evenkeel_store::area::AreaSpec;
use evenkeel_store::checkout::{AreaTarget, WAIT_PACKAGES_S};
use evenkeel_store::format::snapshot::AreaRules;
use evenkeel_store::fsio;

use crate::config::{AreaConfig, Config, ConflictConfig};
use crate::error::{CommandError, Result};
use crate::identity;
use crate::output::text;
use crate::session::Session;

/// `NAME=PATH` of `--area`.
#[derive(Debug, Clone)]
pub struct AreaArg {
    name: String,
    root: PathBuf,
}

impl AreaArg {
    /// As if it had been given so.
    pub fn new(name: &str, root: PathBuf) -> Self {
        AreaArg { name: name.to_owned(), root }
    }
}

/// Reads `NAME=PATH`.
///
/// # Errors
/// A text for clap.
pub fn parse_area_arg(text: &OsStr) -> Result<AreaArg, String> {
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|&b| b == b'=').ok_or("write it as NAME=PATH, such as etc=/etc")?;
    let name = std::str::from_utf8(&bytes[..at]).map_err(|_| "the name is not text")?;
    evenkeel_store::area::check_name(name).map_err(|e| e.to_string())?;
    let root = PathBuf::from(OsString::from_vec(bytes[at + 1..].to_vec()));
    if root.as_os_str().is_empty() {
        return Err("the path is empty".into());
    }
    Ok(AreaArg { name: name.to_owned(), root })
}

/// The clap parser of `--area`.
pub fn area_parser() -> impl clap::builder::TypedValueParser<Value = AreaArg> {
    clap::builder::TypedValueParser::try_map(clap::builder::OsStringValueParser::new(), |text| parse_area_arg(&text))
}

/// An area of this machine.
#[derive(Debug, Clone)]
pub struct LocalArea {
    /// Its name.
    pub name: String,
    /// Its root and rules.
    pub config: AreaConfig,
    /// Whether `--area` named it; one that is only configured may be missing from a snapshot.
    pub asked_for: bool,
}

/// The areas that `--area` names, with the configured rules of the same names; without any, those of the configuration.
///
/// # Errors
/// A usage error when there is none or a name comes twice.
pub fn select(config: &Config, args: &[AreaArg]) -> Result<Vec<LocalArea>> {
    let mut areas: Vec<LocalArea> = Vec::new();
    for arg in args {
        if areas.iter().any(|area| area.name == arg.name) {
            return Err(CommandError::usage(format!("area `{}` is named twice", arg.name)));
        }
        let mut area = config.areas.get(&arg.name).cloned().unwrap_or_else(|| AreaConfig::at(PathBuf::new()));
        area.root.clone_from(&arg.root);
        areas.push(LocalArea { name: arg.name.clone(), config: area, asked_for: true });
    }
    if args.is_empty() {
        for (name, area) in &config.areas {
            areas.push(LocalArea { name: name.clone(), config: area.clone(), asked_for: false });
        }
    }
    if areas.is_empty() {
        return Err(CommandError::usage("no area is named")
            .hint("name one with --area NAME=PATH, such as --area etc=/etc, or in the configuration"));
    }
    areas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(areas)
}

/// As [`select`]; when neither names an area, those that were checked out here.
///
/// # Errors
/// As [`select`].
pub fn select_or_known(session: &Session, args: &[AreaArg]) -> Result<Vec<LocalArea>> {
    if args.is_empty() && session.config.areas.is_empty() {
        let known = evenkeel_store::checkout::known_areas(&session.state_dir()?)?;
        if !known.is_empty() {
            let local = |known: AreaTarget| LocalArea {
                name: known.name,
                config: AreaConfig::at(known.root),
                asked_for: false,
            };
            return Ok(known.into_iter().map(local).collect());
        }
    }
    select(&session.config, args)
}

/// As [`select`]; when no area is named, all that were checked out here, and those of the configuration whose root says
/// that it is one. None is no error.
///
/// # Errors
/// As [`select`].
pub fn select_all_known(session: &Session, args: &[AreaArg]) -> Result<Vec<LocalArea>> {
    if !args.is_empty() {
        return select(&session.config, args);
    }
    let configured = |(name, config): (&String, &AreaConfig)| LocalArea {
        name: name.clone(),
        config: config.clone(),
        asked_for: false,
    };
    let is_one = |area: &LocalArea| evenkeel_store::checkout::is_area(&area.config.root);
    let mut areas: Vec<LocalArea> = session.config.areas.iter().map(configured).filter(is_one).collect();
    let real = |root: &Path| fsio::canonicalize(root).unwrap_or_else(|_| root.to_path_buf());
    let roots: Vec<PathBuf> = areas.iter().map(|area| real(&area.config.root)).collect();
    for known in evenkeel_store::checkout::known_areas(&session.state_dir()?)? {
        if !roots.contains(&known.root) {
            areas.push(LocalArea { name: known.name, config: AreaConfig::at(known.root), asked_for: false });
        }
    }
    Ok(areas)
}

/// As [`select`]; when neither names an area, the only one that was checked out here. For what changes a tree: others may
/// have been checked out by somebody else, for something else.
///
/// # Errors
/// As [`select`], and when there are several.
pub fn select_or_only(session: &Session, args: &[AreaArg]) -> Result<Vec<LocalArea>> {
    if args.is_empty() && session.config.areas.is_empty() {
        return select_one(session, None).map(|area| vec![area]);
    }
    select(&session.config, args)
}

/// The one area that is meant: the one named, else the only one that is configured or known.
///
/// # Errors
/// A usage error when there is none, or there are several.
pub fn select_one(session: &Session, arg: Option<AreaArg>) -> Result<LocalArea> {
    let args: Vec<AreaArg> = arg.into_iter().collect();
    let mut areas = select_or_known(session, &args)?;
    match (areas.pop(), areas.is_empty()) {
        (Some(area), true) => Ok(area),
        (last, _) => {
            let name = |area: &LocalArea| format!("{}={}", area.name, text::path(&area.config.root));
            let names: Vec<String> = areas.iter().chain(&last).map(name).collect();
            let message = format!("there are {} areas: {}", names.len(), names.join(", "));
            Err(CommandError::usage(message).hint("name the one that is meant: --area NAME=PATH"))
        }
    }
}

impl LocalArea {
    /// The area as it is committed. Its identity patterns follow from where it begins; `allow_identity` drops them all.
    pub fn spec(&self, config: &Config, allow_identity: bool) -> AreaSpec {
        let root = std::path::absolute(&self.config.root).unwrap_or_else(|_| self.config.root.clone());
        let identity =
            if allow_identity { Vec::new() } else { identity::patterns(&root, &config.identity.include_paths) };
        let rules = AreaRules {
            include: self.config.include.clone(),
            exclude: self.config.exclude.clone(),
            identity,
            xattrs: self.config.xattrs.clone(),
            devices: self.config.devices,
        };
        AreaSpec { set_id: self.config.set_id, ..AreaSpec::new(&self.name, root, rules) }
    }

    /// The area as it is checked out and looked at. This machine's own identity is left alone, whatever a snapshot holds.
    pub fn target(&self, config: &Config) -> AreaTarget {
        let root = std::path::absolute(&self.config.root).unwrap_or_else(|_| self.config.root.clone());
        let mut exclude = identity::of_this_machine(&root, &config.identity.include_paths);
        exclude.extend(self.config.exclude.iter().cloned());
        AreaTarget {
            name: self.name.clone(),
            root: self.config.root.clone(),
            exclude,
            conflict: self.config.on_conflict.into(),
            conflict_rules: self.config.conflict.iter().map(ConflictConfig::rule).collect(),
            numeric_owners: self.config.numeric_owners,
            set_id: self.config.set_id,
            wait_packages_s: config.wait_packages.map_or(WAIT_PACKAGES_S, u64::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_arguments() {
        let parse = |text: &str| parse_area_arg(OsStr::new(text)).map(|arg| (arg.name, arg.root));
        assert_eq!(parse("etc=/etc").unwrap(), ("etc".into(), "/etc".into()));
        assert_eq!(parse("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        for bad in ["etc", "=x", "a=", "A=/x"] {
            parse(bad).unwrap_err();
        }
    }

    #[test]
    fn the_command_line_overrides_roots_and_keeps_rules() {
        let mut config = Config::default();
        let configured = AreaConfig { exclude: vec!["x".into()], ..AreaConfig::at("/etc".into()) };
        config.areas.insert("etc".into(), configured);
        let args = [AreaArg { name: "etc".into(), root: "/other".into() }];
        let areas = select(&config, &args).unwrap();
        assert_eq!(areas[0].config.root, PathBuf::from("/other"));
        assert_eq!(areas[0].config.exclude, ["x"]);
        assert!(select(&Config::default(), &[]).is_err());
        assert!(select(&config, &[args[0].clone(), args[0].clone()]).is_err());
        assert!(!select(&config, &[]).unwrap()[0].asked_for);
    }
}
