// SPDX-License-Identifier: Apache-2.0 OR MIT
//! dpkg's lists: one file a package, with a line for each path that it owns, and one file of diversions.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use super::Owner;
use crate::fsio::{self, Dir};
use crate::path::escape;

const DATABASE: &str = "var/lib/dpkg";
const DIVERSIONS: &[u8] = b"diversions";
/// Longest list that is read, in bytes.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Directories below `usr` that are also reached from the root of a system with merged directories, under which packages
/// may list them.
const MERGED: [&[u8]; 6] = [b"bin/", b"sbin/", b"lib/", b"lib32/", b"lib64/", b"libx32/"];

/// The owners of `paths`, which are absolute in the system at `root`; `None` where there is no dpkg.
pub(super) fn owners(root: &Path, paths: &[Vec<u8>]) -> Option<Vec<Owner>> {
    let database = fsio::canonicalize(&root.join(DATABASE)).ok().filter(|path| path.starts_with(root))?;
    let database = Dir::open(&database).ok()?;
    let info = database.open_dir(b"info").ok()?;
    let diversions = Diversions::parse(&read(&database, DIVERSIONS).unwrap_or_default());
    let mut wanted: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    for (index, path) in paths.iter().enumerate() {
        for name in names_of(path).iter().flat_map(|name| [name.clone(), diversions.listed(name)]) {
            wanted.entry(name).or_default().push(index);
        }
    }
    let mut found: Vec<Owner> = vec![None; paths.len()];
    for list in info.names().ok()?.iter().filter(|name| name.ends_with(b".list")) {
        let package = &list[..list.len() - b".list".len()];
        let Some(content) = read(&info, list) else { continue };
        for line in content.split(|byte| *byte == b'\n') {
            for index in wanted.get(line).into_iter().flatten() {
                if found[*index].is_none() && diversions.lies_at(line, package, &paths[*index]) {
                    let installed = info.stat_opt(list).ok().flatten().map(|stat| stat.mtime);
                    found[*index] = Some((escape(package), installed));
                }
            }
        }
    }
    Some(found)
}

fn read(dir: &Dir, name: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let file = std::fs::File::from(dir.open_file(name).ok()?);
    file.take(LIST_BYTES_MAX).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The names under which packages may list a path.
pub(in crate::checkout) fn names_of(path: &[u8]) -> Vec<Vec<u8>> {
    let is_merged =
        |rest: &&[u8]| MERGED.iter().any(|dir| rest.starts_with(dir) || dir.strip_suffix(b"/") == Some(rest));
    let alias = path.strip_prefix(b"/usr/").filter(is_merged);
    [path.to_vec()].into_iter().chain(alias.map(|rest| [b"/", rest].concat())).collect()
}

/// Paths of a package that lie elsewhere, because another package has put its own there.
struct Diversions(Vec<Diversion>);

struct Diversion {
    from: Vec<u8>,
    to: Vec<u8>,
    /// Whose files stay at `from`; `:` for what an administrator has said.
    by: Vec<u8>,
}

impl Diversions {
    /// Three lines each: from, to, by.
    fn parse(text: &[u8]) -> Diversions {
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let one = |lines: &[&[u8]]| Diversion { from: lines[0].to_vec(), to: lines[1].to_vec(), by: lines[2].to_vec() };
        Diversions(lines.chunks_exact(3).map(one).collect())
    }

    /// The name under which the owner of what lies at `path` lists it.
    fn listed(&self, path: &[u8]) -> Vec<u8> {
        self.0.iter().find(|one| one.to == path).map_or_else(|| path.to_vec(), |one| one.from.clone())
    }

    /// Whether what `package` lists as `line` lies at `path`.
    fn lies_at(&self, line: &[u8], package: &[u8], path: &[u8]) -> bool {
        let name = package.split(|byte| *byte == b':').next().unwrap_or(package);
        let is_at = |listed: &[u8]| names_of(path).iter().any(|own| own == listed);
        match self.0.iter().find(|one| one.from == line) {
            Some(one) if one.by != name => is_at(&one.to),
            _ => is_at(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(diversions: &str, lists: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let database = temp.path().join(DATABASE);
        fsio::create_dir_all(&database.join("info")).unwrap();
        fsio::publish_file(&database.join("diversions"), diversions.as_bytes()).unwrap();
        for (package, list) in lists {
            fsio::publish_file(&database.join("info").join(format!("{package}.list")), list.as_bytes()).unwrap();
        }
        temp
    }

    fn of(system: &tempfile::TempDir, path: &str) -> Option<String> {
        let root = system.path().canonicalize().unwrap();
        owners(&root, &[path.into()]).unwrap().pop().unwrap().map(|(name, _)| name)
    }

    #[test]
    fn a_package_may_list_a_merged_directory_either_way() {
        let system = system("", &[("libc6:amd64", "/.\n/lib/x/libc.so\n/usr/lib/y\n/etc/c\n"), ("b", "/etc/b\n")]);
        let package = Some("libc6:amd64".to_owned());
        for path in ["/usr/lib/x/libc.so", "/lib/x/libc.so", "/usr/lib/y", "/etc/c"] {
            assert_eq!(of(&system, path), package, "{path}");
        }
        assert_eq!(of(&system, "/etc/b").as_deref(), Some("b"));
        assert_eq!(of(&system, "/usr/etc/b"), None);
        assert_eq!(of(&system, "/x/libc.so"), None);
    }

    #[test]
    fn a_diversion_says_whose_file_is_where() {
        let diversions = "/bin/sh\n/bin/sh.distrib\ndash\n/etc/tool\n/etc/tool.orig\n:\n";
        let system = system(diversions, &[("dash", "/bin/sh\n"), ("bash", "/bin/sh\n"), ("tool", "/etc/tool\n")]);
        assert_eq!(of(&system, "/bin/sh").as_deref(), Some("dash"));
        assert_eq!(of(&system, "/bin/sh.distrib").as_deref(), Some("bash"));
        assert_eq!(of(&system, "/etc/tool"), None, "the administrator's own");
        assert_eq!(of(&system, "/etc/tool.orig").as_deref(), Some("tool"));
    }

    #[test]
    fn without_dpkg_nothing_is_said() {
        let temp = tempfile::tempdir().unwrap();
        assert!(owners(temp.path(), &[b"/etc".to_vec()]).is_none());
    }
}
