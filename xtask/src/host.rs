// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What this machine has, and installing what it lacks where that is allowed.

use std::path::PathBuf;

use crate::Result;
use crate::shell::Cmd;

/// Whether a missing test group is a failure: everything must run in CI.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

pub fn is_root() -> bool {
    Cmd::new("id").arg("-u").read().is_ok_and(|uid| uid.trim() == "0")
}

/// The full path of `tool`, looked for in `PATH` and where Debian keeps administrators' tools.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|file| file.is_file())
}

/// Where programs keep what they can make again: `XDG_CACHE_HOME`, else `.cache` of the user.
pub fn cache_dir() -> Option<PathBuf> {
    let dir = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    dir("XDG_CACHE_HOME").or_else(|| dir("HOME").map(|home| home.join(".cache")))
}

/// Installs the Debian package of each missing tool when we are root; `wanted` is (tool, package).
///
/// # Errors
/// The tools that are still missing, with the packages that hold them.
pub fn need(wanted: &[(&str, &str)]) -> Result<()> {
    let missing = || -> Vec<(&str, &str)> { wanted.iter().filter(|(tool, _)| find(tool).is_none()).copied().collect() };
    let first = missing();
    if first.is_empty() {
        return Ok(());
    }
    if is_root() && find("apt-get").is_some() {
        install(&first.iter().map(|(_, package)| *package).collect::<Vec<_>>())?;
    }
    let still = missing();
    if still.is_empty() {
        return Ok(());
    }
    let names = |pick: fn(&(&str, &str)) -> String| still.iter().map(pick).collect::<Vec<_>>().join(" ");
    Err(format!(
        "needs {} (packages: {})",
        names(|(tool, _)| (*tool).to_owned()),
        names(|(_, pack)| (*pack).to_owned())
    ))
}

/// Installs Debian packages by name, refreshing the lists once when the first try fails.
///
/// # Errors
/// `apt-get` failed twice.
pub fn install(packages: &[&str]) -> Result<()> {
    let apt = |args: &[&str]| Cmd::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args);
    let install = apt(&["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    install.run().or_else(|_| apt(&["update", "-q"]).run().and_then(|()| install.run()))
}

/// Whether rustup has a nightly toolchain (fuzzing needs one).
pub fn has_nightly() -> bool {
    Cmd::new("rustup").args(["toolchain", "list"]).read().is_ok_and(|list| list.contains("nightly"))
}

/// The first line with a digit of what `tool --version` prints, with the tool's name where the line lacks it.
pub fn version(tool: &str) -> Option<String> {
    let flag = if tool == "restic" { "version" } else { "--version" };
    let text = Cmd::new(find(tool)?).arg(flag).read().ok()?;
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()))?.trim().trim_matches('*').trim();
    Some(if line.to_lowercase().contains(tool) { line.to_owned() } else { format!("{tool} {line}") })
}

/// Model, number of processors and memory, as one phrase.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_kib = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default();
    format!("{model}, {cpus} processors, {} GiB", memory_kib.div_ceil(1 << 20))
}

/// Kernel release.
pub fn kernel() -> String {
    Cmd::new("uname").args(["-sr"]).read().unwrap_or_default().trim().to_owned()
}

/// Short commit of the workspace, with a mark when it has local changes.
pub fn commit() -> String {
    let git = |args: &[&str]| Cmd::new("git").args(args).read().unwrap_or_default().trim().to_owned();
    let dirty = if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { "+changes" };
    format!("{}{dirty}", git(&["rev-parse", "--short=12", "HEAD"]))
}
