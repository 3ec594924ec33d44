// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The independent reader in Python, in a virtual environment made here: on the vectors, on what must be rejected, and
//! on a store fresh from the commands, where its restore and our checkout must give the same tree.

use std::ffi::OsStr;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Outcome;
use crate::shell::{Cmd, target_dir, workspace};
use crate::{Result, host};

/// The whole group, one row a subject.
pub fn run() -> Vec<(String, Outcome)> {
    let tools = host::need(&[("rsync", "rsync"), ("python3", "python3")]);
    let python = match tools.and_then(|()| environment()) {
        Ok(python) => python,
        Err(reason) => return vec![(String::new(), Outcome::LeftOut(reason))],
    };
    let spec = workspace().join("format-spec");
    let reader = |args: &[&OsStr]| Cmd::new(&python).arg(spec.join("reader/evenkeel_reader.py")).args(args);
    let check = |command: &str, dir: &str| reader(&[command.as_ref(), spec.join(dir).as_os_str()]).run();
    let own = |file: &str| Cmd::new(&python).arg("-B").arg(spec.join("reader").join(file)).run();
    let row = |name: &str, result: Result<()>| (name.to_owned(), result.map(|()| String::new()).into());
    vec![
        row("own tests", own("test_reader.py").and_then(|()| own("test_deltas.py"))),
        row("vectors", check("check-vectors", "vectors")),
        row("rejects", check("check-reject", "reject")),
        row("store", fresh_store(&reader)),
    ]
}

/// A virtual environment with what the reader needs, made once per `target` directory; returns its Python.
fn environment() -> Result<PathBuf> {
    let dir = target_dir().join("xtask/python");
    let python = dir.join("bin/python");
    let requirements = workspace().join("format-spec/reader/requirements.txt");
    let make = || Cmd::new("python3").args(["-m", "venv", "--clear"]).arg(&dir).run();
    // A half-made environment has Python but no pip.
    if !dir.join("bin/pip").exists() {
        // Debian keeps the module in a package of its own.
        make().or_else(|error| {
            if !host::is_root() || host::find("apt-get").is_none() {
                return Err(format!("{error} (package python3-venv)"));
            }
            host::install(&["python3-venv"]).and_then(|()| make())
        })?;
    }
    Cmd::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements)
        .run()?;
    Ok(python)
}

/// Commits a tree, checks it out with our program, restores it with the reader, and compares all three.
fn fresh_store(reader: &dyn Fn(&[&OsStr]) -> Cmd) -> Result<()> {
    Cmd::cargo().args(["build", "--package", "evenkeel"]).run()?;
    let evenkeel = || Cmd::new(target_dir().join("debug/evenkeel"));
    let dir = Scratch::new()?;
    let [tree, ours, theirs, store, state] = ["tree", "ours", "theirs", "store", "state"].map(|name| dir.0.join(name));
    make_tree(&tree).map_err(|error| format!("cannot make {}: {error}", tree.display()))?;
    let area = |root: &Path| format!("--area=tree={}", root.display());
    let at = |state: PathBuf| evenkeel().arg("--store").arg(&store).arg("--state").arg(state);

    evenkeel().arg("init").arg(&store).run()?;
    at(state.join("master")).arg("commit").arg(area(&tree)).run()?;
    at(state.join("server")).args(["checkout", "@latest"]).arg(area(&ours)).run()?;
    let listed = reader(&["list".as_ref(), store.as_os_str()]).read()?;
    let id = listed.split_whitespace().next().ok_or("the reader lists no snapshot")?;
    reader(&["restore".as_ref(), store.as_os_str(), id.as_ref(), "tree".as_ref(), theirs.as_os_str()]).run()?;
    same_tree(&tree, &ours)?;
    same_tree(&ours, &theirs)
}

/// Compares content, holes aside, and all metadata with a program that shares nothing with ours.
fn same_tree(expected: &Path, found: &Path) -> Result<()> {
    let rsync = Cmd::new("rsync").args(["-aHAXn", "--checksum", "--delete", "--modify-window=-1", "--itemize-changes"]);
    let differences = rsync.arg("--exclude=/.evenkeel").arg(expected.join("")).arg(found.join("")).read()?;
    if differences.is_empty() {
        return Ok(());
    }
    eprintln!("{differences}");
    let count = differences.lines().count();
    Err(format!("{} differs from {} in {count} paths", found.display(), expected.display()))
}

/// A small tree with one of every kind of thing that a user may have.
fn make_tree(root: &Path) -> std::io::Result<()> {
    use std::fs::{self, File};
    let dir = root.join("dir/empty/deep");
    fs::create_dir_all(&dir)?;
    fs::write(root.join("empty-file"), [])?;
    fs::write(root.join("small"), "a few bytes\n")?;
    fs::write(root.join("dir").join(OsStr::from_bytes(b"new\nline \xff\x1b[31m")), "an unusual name")?;
    fs::write(root.join("dir").join("x".repeat(255)), "the longest name")?;
    let mut sparse = File::create(root.join("sparse"))?;
    sparse.set_len(8 << 20)?;
    sparse.seek(SeekFrom::Start(3 << 20))?;
    sparse.write_all(&[7; 100_000])?;
    // Long enough for many chunks, without a period that would make them equal.
    let long: Vec<u8> = (0..1_500_000_u64).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    fs::write(root.join("long"), long)?;
    fs::hard_link(root.join("long"), root.join("dir/long-again"))?;
    std::os::unix::fs::symlink("../nowhere/at all", root.join("dir/link"))?;
    let mut readonly = fs::metadata(root.join("small"))?.permissions();
    readonly.set_readonly(true);
    fs::set_permissions(root.join("small"), readonly)
}

/// A directory that is removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let dir = target_dir().join(format!("xtask/reader-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
