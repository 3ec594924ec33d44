// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the usual tools say of a tree: `stat`, `getfattr`, `getfacl`, `getcap`, `lsattr`, and maps of holes.
//!
//! Shares no code with the program, so that a misunderstanding of the system in one place cannot hide in the other. Names
//! in such trees have no spaces and no line ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::naive::{Kind, read_tree};

/// Flags that mean the same everywhere; others (extents, inline data) are the file system's own.
const PORTABLE_FLAGS: &str = "acdijACDPST";

/// Attributes that no tree has of its own: labels by the machine's policy, how XFS keeps ACLs, and what comes with a
/// flag on btrfs.
const OWN: [&str; 3] = ["security.selinux", "trusted.SGI_ACL_", "btrfs.compression"];

/// Everything that is said of each path, by tool. The root is `.`; `.evenkeel` at the root is left out.
pub type Portrait = BTreeMap<String, BTreeMap<&'static str, String>>;

/// Takes it.
///
/// # Panics
/// When a tool is missing, which it names, or fails.
pub fn portrait(root: &Path) -> Portrait {
    let mut all: Portrait = BTreeMap::new();
    let tree = read_tree(root);
    for (path, item) in &tree {
        let name = if path.is_empty() { ".".into() } else { String::from_utf8(path.clone()).unwrap() };
        let said = all.entry(name).or_default();
        if let Kind::File(size, hash, runs) = &item.kind {
            said.insert("content", format!("{size} bytes {:02x?}", &hash[..8]));
            said.insert("data", format!("{runs:?}"));
        }
        if let Kind::Symlink(target) = &item.kind {
            said.insert("target", String::from_utf8(target.clone()).unwrap());
        }
        if let Some(first) = &item.group {
            said.insert("group", String::from_utf8(first.clone()).unwrap());
        }
    }
    let with = |kinds: fn(&Kind) -> bool| -> Vec<String> {
        let names = tree.iter().filter(|(_, item)| kinds(&item.kind));
        names
            .map(|(path, _)| if path.is_empty() { ".".into() } else { String::from_utf8(path.clone()).unwrap() })
            .collect()
    };
    let every = with(|_| true);
    let no_links = with(|kind| !matches!(kind, Kind::Symlink(_)));
    let flagged = with(|kind| matches!(kind, Kind::File(..) | Kind::Dir));
    let regular = with(|kind| matches!(kind, Kind::File(..)));

    for line in run(root, "stat", &["-c", "%n %F %a %u:%g %t,%T", "--"], &every).lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        // An empty file is called one of another type.
        say(&mut all, name, "stat", &rest.replace("regular empty file", "regular file"));
    }
    for line in run(root, "stat", &["-c", "%n %.9Y", "--"], &every).lines() {
        let (name, time) = line.split_once(' ').unwrap();
        say(&mut all, name, "time", time);
    }
    let attributes = run(root, "getfattr", &["-d", "-m", "-", "--absolute-names", "-h", "-e", "hex", "--"], &every);
    blocks(&mut all, "attributes", &attributes);
    blocks(&mut all, "acl", &run(root, "getfacl", &["-p", "-n", "--"], &no_links));
    for line in run(root, "getcap", &["--"], &regular).lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        say(&mut all, name, "capabilities", rest);
    }
    for line in run(root, "lsattr", &["-d", "--"], &flagged).lines() {
        let (flags, name) = line.split_once(' ').unwrap();
        if flags.contains('e') {
            say(&mut all, name.trim(), "layout", "extents");
        }
        let flags: String = flags.chars().filter(|flag| PORTABLE_FLAGS.contains(*flag)).collect();
        say(&mut all, name.trim(), "flags", &flags);
    }
    all
}

fn say(all: &mut Portrait, name: &str, tool: &'static str, what: &str) {
    let said = all.get_mut(name).unwrap_or_else(|| panic!("{tool} speaks of {name}"));
    if !what.is_empty() {
        said.insert(tool, what.to_owned());
    }
}

/// The tools from one family print `# file: NAME`, then lines, then an empty one.
fn blocks(all: &mut Portrait, tool: &'static str, text: &str) {
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut lines = block.trim().lines();
        let name = lines.next().unwrap().strip_prefix("# file: ").unwrap();
        let lines: Vec<&str> = lines.filter(|line| !OWN.iter().any(|own| line.starts_with(own))).collect();
        say(all, name, tool, &lines.join("\n"));
    }
}

fn run(root: &Path, program: &str, options: &[&str], names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let done = Command::new(program).args(options).args(names).current_dir(root).env("LC_ALL", "C").output();
    let done = done.unwrap_or_else(|e| panic!("cannot run {program}, which this test needs: {e}"));
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
