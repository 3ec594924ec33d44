// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The questions: what is run on our side, what on the other, and what must stand before each run.

use std::path::{Path, PathBuf};

use super::corpus::{self, Release};
use super::measure::{Sample, Timed, measure};
use crate::image::Image;
use crate::shell::{Cmd, quoted};
use crate::{Result, host};

/// Everything of one run of the benchmarks; dropping it unmounts and deletes the image.
pub struct Bench {
    pub binary: PathBuf,
    pub image: Image,
    pub releases: Vec<Release>,
}

/// A question with one or more opponents.
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    /// Fails with the reason when the question cannot be asked, for want of a second release.
    pub contests: fn(&Bench) -> Result<Vec<Contest<'_>>>,
}

/// Makes what a run needs inside an empty directory of its own, untimed, and returns the command to time.
type Prepare<'a> = Box<dyn Fn(&Path) -> Result<Timed> + 'a>;

/// One side of a contest.
pub struct Side<'a> {
    pub label: &'static str,
    prepare: Prepare<'a>,
}

/// Ours against theirs.
pub struct Contest<'a> {
    ours: Side<'a>,
    pub theirs: Side<'a>,
}

/// The samples of a contest, in pairs.
pub struct Pairs {
    pub theirs: &'static str,
    pub samples: Vec<(Sample, Sample)>,
}

pub const ALL: &[Case] = &[
    Case { name: "commit", about: "first commit of the first release", contests: commit },
    Case { name: "commit-unchanged", about: "second commit, nothing changed", contests: commit_unchanged },
    Case { name: "commit-update", about: "commit after the tree became the second release", contests: commit_update },
    Case { name: "checkout", about: "first release into an empty directory", contests: checkout },
    Case { name: "checkout-unchanged", about: "the same again, nothing to do", contests: checkout_unchanged },
    Case { name: "checkout-update", about: "first release to second in place, full", contests: checkout_update },
    Case { name: "checkout-back", about: "second release back to the first, full", contests: checkout_back },
    Case { name: "status", about: "compare a delivered tree with its snapshot", contests: status },
];

impl Contest<'_> {
    /// Runs `pairs` pairs, the first of each in turn, every run in a directory of its own.
    ///
    /// # Errors
    /// A command failed.
    pub fn run(&self, bench: &Bench, pairs: u64) -> Result<Pairs> {
        let mut samples = Vec::new();
        for pair in 0..pairs {
            let run = |side: &Side<'_>| side.run(bench);
            let sample = if pair % 2 == 0 {
                let ours = run(&self.ours)?;
                (ours, run(&self.theirs)?)
            } else {
                let theirs = run(&self.theirs)?;
                (run(&self.ours)?, theirs)
            };
            samples.push(sample);
        }
        Ok(Pairs { theirs: self.theirs.label, samples })
    }
}

impl Side<'_> {
    fn run(&self, bench: &Bench) -> Result<Sample> {
        let dir = bench.image.path().join("run");
        make_dir(&dir)?;
        let timed = (self.prepare)(&dir)?;
        let sample = measure(&timed, &dir)?;
        std::fs::remove_dir_all(&dir).map_err(|error| format!("cannot remove {}: {error}", dir.display()))?;
        bench.image.trim();
        Ok(sample)
    }
}

impl Bench {
    /// Reads every file of the corpora, so that no contest pays for a cold cache.
    pub fn warm(&self) {
        for release in &self.releases {
            corpus::visit(&release.root, &mut |path, meta| {
                if meta.is_file() {
                    let _ =
                        std::fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
                }
            });
        }
    }

    fn first(&self) -> &Path {
        &self.releases[0].root
    }

    fn second(&self) -> Result<&Path> {
        let second = self.releases.get(1).map(|release| release.root.as_path());
        second.ok_or_else(|| "needs a second --corpus, a later release of the first".to_owned())
    }

    /// Our binary on the store below `history`, as a server with the state directory `state`.
    fn evenkeel(&self, history: &Path, state: &Path) -> Cmd {
        let options = ["--progress", "none", "--quiet", "--store"];
        Cmd::new(&self.binary).args(options).arg(history.join("store")).arg("--state").arg(state)
    }

    /// A new store and a master's state below `dir`.
    ///
    /// # Errors
    /// `init` failed.
    pub fn init(&self, dir: &Path, options: &[&str]) -> Result<()> {
        make_dir(dir)?;
        // The store is an argument of `init`, not an option.
        Cmd::new(&self.binary).arg("init").args(options).arg(dir.join("store")).read().map(drop)
    }

    pub fn commit(&self, dir: &Path, root: &Path) -> Cmd {
        self.evenkeel(dir, &dir.join("state")).arg("commit").arg("--area").arg(area(root))
    }

    /// Makes the delta from the first snapshot of a store to the second.
    pub fn delta(&self, dir: &Path, effort: &str) -> Cmd {
        let words = ["delta", "make", "@latest~", "@latest", "--effort", effort];
        self.evenkeel(dir, &dir.join("state")).args(words)
    }

    /// The store that checkouts read, with both releases in it: made once, outside the timed part.
    fn history(&self) -> Result<PathBuf> {
        let dir = self.image.path().join("history");
        if !dir.is_dir() {
            self.init(&dir, &[])?;
            for release in &self.releases {
                self.commit(&dir, &release.root).read()?;
            }
        }
        Ok(dir)
    }

    /// How the snapshot of release `index` is named in [`Bench::history`].
    fn name_of(&self, index: usize) -> String {
        format!("@latest~{}", self.releases.len() - 1 - index)
    }

    /// Our side of a checkout: release `to` over a tree that is at release `from`, or over an empty one.
    fn checkout_side(&self, from: Option<usize>, to: usize) -> Side<'_> {
        self.checkout_with("evenkeel", &[], from, to)
    }

    fn checkout_with<'a>(
        &'a self,
        label: &'static str,
        options: &'a [&'a str],
        from: Option<usize>,
        to: usize,
    ) -> Side<'a> {
        let own = options;
        side(label, move |dir| {
            let history = self.history()?;
            let [root, state] = [dir.join("tree"), dir.join("state")];
            make_dir(&root)?;
            // Every destination is a new server: it has a state directory of its own.
            let checkout = |index: usize, options: &[&str]| {
                let cmd = self.evenkeel(&history, &state).args(["checkout", &self.name_of(index)]);
                cmd.args(options).arg("--area").arg(area(&root))
            };
            let Some(from) = from else { return Ok(Timed::new(checkout(to, own))) };
            checkout(from, &[]).read()?;
            Ok(Timed::new(checkout(to, &[&["--full", "--max-delete", "100%"], own].concat())))
        })
    }
}

fn area(root: &Path) -> String {
    format!("root={}", root.display())
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))
}

fn side<'a>(label: &'static str, prepare: impl Fn(&Path) -> Result<Timed> + 'a) -> Side<'a> {
    Side { label, prepare: Box::new(prepare) }
}

/// A line for a shell; `{name}` stands for nothing here, paths are quoted by the caller.
fn sh(line: String) -> Cmd {
    Cmd::new("sh").args(["-c", &line])
}

fn word(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// `ours` made anew against each opponent that is installed. We always are.
fn against<'a>(ours: impl Fn() -> Side<'a>, theirs: Vec<Side<'a>>) -> Vec<Contest<'a>> {
    let installed =
        theirs.into_iter().filter(|side| is_installed(side.label.split([' ', ',']).next().unwrap_or_default()));
    installed.map(|theirs| Contest { ours: ours(), theirs }).collect()
}

fn is_installed(tool: &str) -> bool {
    tool == "evenkeel" || host::find(tool).is_some()
}

fn tar_zstd(root: &Path) -> Side<'_> {
    side("tar, zstd -3 -T2", move |dir| {
        let out = dir.join("out");
        make_dir(&out)?;
        let line = format!("tar -C {} -cf - . | zstd -q -3 -T2 -o {}", word(root), word(&out.join("tar.zst")));
        Ok(Timed::storing(sh(line), out))
    })
}

fn restic(repo: &Path) -> Cmd {
    Cmd::new("restic")
        .env("RESTIC_PASSWORD", "bench")
        .env("RESTIC_CACHE_DIR", repo.with_extension("cache"))
        .arg("-r")
        .arg(repo)
        .arg("-q")
}

fn ostree_commit(repo: &Path, root: &Path) -> Cmd {
    Cmd::new("ostree")
        .arg("commit")
        .arg(format!("--repo={}", repo.display()))
        .args(["--branch=bench", "-s", "bench"])
        .arg(format!("--tree=dir={}", root.display()))
}

fn ostree_init(repo: &Path) -> Cmd {
    Cmd::new("ostree").arg("init").arg("--mode=archive").arg(format!("--repo={}", repo.display()))
}

fn commit(bench: &Bench) -> Result<Vec<Contest<'_>>> {
    let root = bench.first();
    let ours = || {
        side("evenkeel", move |dir| {
            bench.init(dir, &[])?;
            Ok(Timed::storing(bench.commit(dir, root), dir.join("store")))
        })
    };
    let theirs = vec![
        tar_zstd(root),
        side("restic", move |dir| {
            let repo = dir.join("repo");
            restic(&repo).arg("init").read()?;
            Ok(Timed::storing(restic(&repo).arg("backup").arg(root), repo))
        }),
        side("casync", move |dir| {
            let [store, index] = [dir.join("out.castr"), dir.join("out.caidx")];
            let make = Cmd::new("casync").arg("make").arg(format!("--store={}", store.display())).arg(index).arg(root);
            Ok(Timed::storing(make, store))
        }),
        side("ostree", move |dir| {
            let repo = dir.join("repo");
            ostree_init(&repo).read()?;
            Ok(Timed::storing(ostree_commit(&repo, root), repo))
        }),
    ];
    Ok(against(ours, theirs))
}

/// `find` that prints every file's metadata: the walk that a commit without change cannot avoid.
fn find_all(root: &Path) -> Side<'_> {
    side("find -printf", move |dir| {
        let fields = r"%i %D %y %m %n %U %G %s %T@ %C@ %P %l\n";
        Ok(Timed::new(sh(format!("find {} -printf '{fields}' > {}", word(root), word(&dir.join("list"))))))
    })
}

fn commit_unchanged(bench: &Bench) -> Result<Vec<Contest<'_>>> {
    let root = bench.first();
    let ours = || {
        side("evenkeel", move |_| {
            let dir = bench.image.path().join("unchanged");
            if !dir.is_dir() {
                bench.init(&dir, &[])?;
                bench.commit(&dir, root).read()?;
            }
            Ok(Timed::new(bench.commit(&dir, root)))
        })
    };
    let theirs = vec![
        find_all(root),
        side("restic", move |_| {
            let repo = bench.image.path().join("unchanged-restic");
            if !repo.is_dir() {
                restic(&repo).arg("init").read()?;
                restic(&repo).arg("backup").arg(root).read()?;
            }
            Ok(Timed::new(restic(&repo).arg("backup").arg(root)))
        }),
    ];
    Ok(against(ours, theirs))
}

fn commit_update(bench: &Bench) -> Result<Vec<Contest<'_>>> {
    let [first, second] = [bench.first(), bench.second()?];
    // A master is updated in place, so the unchanged files keep their inodes.
    let updated = move |dir: &Path, before: &dyn Fn(&Path) -> Result<()>| -> Result<PathBuf> {
        let tree = dir.join("tree");
        Cmd::new("cp").arg("-a").arg(first).arg(&tree).read()?;
        before(&tree)?;
        Cmd::new("rsync").args(["-aHAX", "--delete"]).arg(second.join("")).arg(tree.join("")).read()?;
        Ok(tree)
    };
    let ours = || {
        side("evenkeel", move |dir| {
            bench.init(dir, &[])?;
            let tree = updated(dir, &|tree| bench.commit(dir, tree).read().map(drop))?;
            Ok(Timed::storing(bench.commit(dir, &tree), dir.join("store")))
        })
    };
    let theirs = vec![
        tar_zstd(second),
        side("restic", move |dir| {
            let repo = dir.join("repo");
            restic(&repo).arg("init").read()?;
            let tree = updated(dir, &|tree| restic(&repo).arg("backup").arg(tree).read().map(drop))?;
            Ok(Timed::storing(restic(&repo).arg("backup").arg(tree), repo))
        }),
    ];
    Ok(against(ours, theirs))
}

fn checkout(bench: &Bench) -> Result<Vec<Contest<'_>>> {
    let root = bench.first();
    let theirs = vec![
        side("cp -a", move |dir| Ok(Timed::new(Cmd::new("cp").arg("-a").arg(root).arg(dir.join("tree"))))),
        side("rsync -aHAX", move |dir| {
            Ok(Timed::new(Cmd::new("rsync").arg("-aHAX").arg(root.join("")).arg(dir.join("tree/"))))
        }),
        side("restic", move |dir| {
            let repo = bench.image.path().join("history-restic");
            if !repo.is_dir() {
                restic(&repo).arg("init").read()?;
                restic(&repo).arg("backup").arg(root).read()?;
            }
            Ok(Timed::new(restic(&repo).args(["restore", "latest", "--target"]).arg(dir.join("tree"))))
        }),
        side("casync", move |dir| {
            let [store, index] = ["history.castr", "history.caidx"].map(|name| bench.image.path().join(name));
            let casync =
                |verb: &str| Cmd::new("casync").arg(verb).arg(format!("--store={}", store.display())).arg(&index);
            if !index.is_file() {
                casync("make").arg(root).read()?;
            }
            Ok(Timed::new(casync("extract").arg(dir.join("tree"))))
        }),
        side("ostree", move |dir| {
            let repo = bench.image.path().join("history-ostree");
            if !repo.is_dir() {
                ostree_init(&repo).read()?;
                ostree_commit(&repo, root).read()?;
            }
            let from = format!("--repo={}", repo.display());
            Ok(Timed::new(Cmd::new("ostree").args(["checkout", &from, "bench"]).arg(dir.join("tree"))))
        }),
    ];
    Ok(against(|| bench.checkout_side(None, 0), theirs))
}

/// rsync from `to` over a copy of `from`, deleting what is not there.
fn rsync_over<'a>(from: &'a Path, to: &'a Path) -> Side<'a> {
    side("rsync -aHAX --delete", move |dir| {
        let tree = dir.join("tree");
        Cmd::new("cp").arg("-a").arg(from).arg(&tree).read()?;
        Ok(Timed::new(Cmd::new("rsync").args(["-aHAX", "--delete"]).arg(to.join("")).arg(tree.join(""))))
    })
}

fn checkout_unchanged(bench: &Bench) -> Result<Vec<Contest<'_>>> {
    let theirs = vec![find_all(bench.first()), rsync_over(bench.first(), bench.first())];
    Ok(against(|| bench.checkout_side(Some(0), 0), theirs))
}

fn checkout_update(bench: &Bench) -> Result<Vec<Contest<'_>>> {
    // What journal and undo cost: the same switch with neither.
    let direct = bench.checkout_with("evenkeel --switch direct", &["--switch", "direct"], Some(0), 1);
    let theirs = vec![rsync_over(bench.first(), bench.second()?), direct];
    Ok(against(|| bench.checkout_side(Some(0), 1), theirs))
}

fn checkout_back(bench: &Bench) -> Result<Vec<Contest<'_>>> {
    let theirs = vec![rsync_over(bench.second()?, bench.first())];
    Ok(against(|| bench.checkout_side(Some(1), 0), theirs))
}

fn status(bench: &Bench) -> Result<Vec<Contest<'_>>> {
    let ours = || {
        let delivered = bench.checkout_side(None, 0);
        side("evenkeel", move |dir| {
            (delivered.prepare)(dir)?.cmd.read()?;
            let status = bench.evenkeel(&bench.history()?, &dir.join("state")).arg("status");
            Ok(Timed::new(status.arg("--area").arg(area(&dir.join("tree")))))
        })
    };
    Ok(against(ours, vec![find_all(bench.first())]))
}
