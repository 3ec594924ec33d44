// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of modes on invented trees.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::plan::{Change, Reason, Wanted};
use super::*;
use crate::format::manifest::{ChunkList, FileContent, InodeFlags};

const NOW: i64 = 1_000_000;

/// A live tree in memory: every inode has the number that it was made with.
#[derive(Clone, Default)]
struct Tree {
    names: BTreeMap<TreePath, Live>,
    outside: BTreeSet<TreePath>,
    taken: BTreeSet<TreePath>,
}

#[derive(Clone)]
struct Live {
    path: TreePath,
    stat: Stat,
    inode: Inode,
    mount: bool,
    passage: bool,
}

struct Stream {
    items: std::vec::IntoIter<Live>,
    outside: BTreeSet<TreePath>,
    taken: BTreeSet<TreePath>,
}

impl LiveTree for Stream {
    type Item = Live;
    fn next(&mut self) -> Result<Option<Live>> {
        Ok(self.items.next())
    }
    fn path(item: &Live) -> &TreePath {
        &item.path
    }
    fn stat(item: &Live) -> &Stat {
        &item.stat
    }
    fn is_mount_point(item: &Live) -> bool {
        item.mount
    }
    fn is_passage(item: &Live) -> bool {
        item.passage
    }
    fn is_taken(&mut self, path: &TreePath) -> Result<bool> {
        Ok(self.taken.contains(path))
    }
    fn metadata(&mut self, item: &Live) -> Result<Inode> {
        Ok(item.inode.clone())
    }
    fn content_hash(&mut self, item: &Live) -> Result<ContentHash> {
        match &item.inode.kind {
            InodeKind::File(content) => Ok(content.hash),
            _ => panic!("asked for the content of {:?}", item.path),
        }
    }
    fn holds_outside(&self, dir: &TreePath) -> bool {
        self.outside.contains(dir)
    }

    fn beyond(&self) -> &BTreeSet<TreePath> {
        static NONE: BTreeSet<TreePath> = BTreeSet::new();
        &NONE
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn inode(kind: InodeKind) -> Inode {
    Inode {
        mode: if kind == InodeKind::Directory { 0o755 } else { 0o644 },
        kind,
        uid: 0,
        gid: 0,
        mtime: Timestamp { secs: 100, nanos: 0 },
        links: 1,
        xattrs: BTreeMap::new(),
        acl: None,
        default_acl: None,
        flags: InodeFlags::default(),
    }
}

fn dir() -> Inode {
    inode(InodeKind::Directory)
}

fn file(text: &str) -> Inode {
    let hash = ContentHash::of(text.as_bytes());
    inode(InodeKind::File(FileContent { size: text.len() as u64, hash, chunks: ChunkList::Whole, unstable: false }))
}

fn mode(inode: Inode, mode: u16) -> Inode {
    Inode { mode, ..inode }
}

fn time(inode: Inode, secs: i64) -> Inode {
    Inode { mtime: Timestamp { secs, nanos: 0 }, ..inode }
}

fn link() -> Inode {
    inode(InodeKind::Symlink(b"target".to_vec()))
}

/// A manifest; a `Link` is written as its first member's path.
fn manifest(entries: &[(&str, Inode)]) -> Vec<Entry> {
    let mut list = vec![Entry { path: TreePath::root(), node: Node::Inode(dir()) }];
    list.extend(entries.iter().map(|(at, inode)| Entry { path: path(at), node: Node::Inode(inode.clone()) }));
    list.sort_by(|a, b| a.path.cmp(&b.path));
    list
}

fn with_links(mut entries: Vec<Entry>, first: &str, others: &[&str]) -> Vec<Entry> {
    for entry in &mut entries {
        if let (true, Node::Inode(inode)) = (entry.path == path(first), &mut entry.node) {
            inode.links = u32::try_from(others.len() + 1).unwrap();
        }
    }
    entries.extend(others.iter().map(|at| Entry { path: path(at), node: Node::Link { first: path(first) } }));
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

impl Tree {
    fn set(&mut self, at: &str, inode: Inode, ino: u64) -> &mut Self {
        let size = if let InodeKind::File(content) = &inode.kind { content.size } else { 0 };
        let stat = Stat {
            file_type: file_type(&inode.kind),
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size,
            allocated: 0,
            mtime: inode.mtime,
            ctime: Timestamp { secs: i64::try_from(ino).unwrap(), nanos: 0 },
            born: None,
            ino,
            nlink: 1,
            dev: (8, 1),
            rdev: (0, 0),
            is_mount_root: false,
        };
        self.names.insert(path(at), Live { path: path(at), stat, inode, mount: false, passage: false });
        self
    }

    fn remove(&mut self, at: &str) -> &mut Self {
        let at = path(at);
        self.names.retain(|name, _| !name.starts_with(&at));
        self
    }

    /// As a checkout of `entries` would leave it, and its record.
    fn of(entries: &[Entry]) -> (Tree, Vec<AppliedEntry>) {
        let mut tree = Tree::default();
        let mut inodes = BTreeMap::new();
        let mut record = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let (inode, ino) = match &entry.node {
                Node::Inode(inode) => (inode.clone(), number as u64 + 1),
                Node::Link { first } => inodes.get(first).cloned().unwrap(),
            };
            inodes.insert(entry.path.clone(), (inode.clone(), ino));
            tree.names.insert(entry.path.clone(), {
                let mut one = Tree::default();
                one.set("x", inode, ino);
                Live { path: entry.path.clone(), ..one.names.remove(&path("x")).unwrap() }
            });
        }
        tree.count_links();
        for entry in entries {
            let print = Some(Fingerprint::of(&tree.names[&entry.path].stat));
            record.push(AppliedEntry { entry: entry.clone(), dropped: false, print });
        }
        (tree, record)
    }

    fn count_links(&mut self) {
        let mut count: BTreeMap<u64, u32> = BTreeMap::new();
        for live in self.names.values() {
            *count.entry(live.stat.ino).or_default() += 1;
        }
        for live in self.names.values_mut() {
            live.stat.nlink = count[&live.stat.ino];
        }
    }
}

fn rules(mode: Mode) -> MergeRules<'static> {
    let now = Timestamp { secs: NOW, nanos: 0 };
    MergeRules {
        mode,
        conflict: &|_, _| ConflictPolicy::Replace,
        adoption: None,
        interrupted: false,
        new_root: false,
        missing_kind: &|_| None,
        now,
    }
}

fn plan(target: &[Entry], applied: &[AppliedEntry], live: &Tree, rules: &MergeRules<'_>) -> CheckoutPlan {
    let items: Vec<Live> = live.names.values().cloned().collect();
    let stream = Stream { items: items.into_iter(), outside: live.outside.clone(), taken: live.taken.clone() };
    let target = target.iter().cloned().map(Ok);
    let applied = applied.iter().cloned().map(Ok);
    plan_area(target, applied, stream, rules, |_, _| false).unwrap()
}

/// `verb path` for each action, then `keep path` for each kept difference.
fn text(plan: &CheckoutPlan) -> Vec<String> {
    let actions = plan.actions.iter().map(|action| {
        let verb = match &action.change {
            Change::Add { wanted: Wanted::Link { .. }, .. } => "link",
            Change::Replace { wanted: Wanted::Link { .. }, .. } => "relink",
            Change::Add { inside: true, .. } => "inside",
            Change::Add { .. } => "add",
            Change::Replace { keep_aside: true, .. } => "replace-aside",
            Change::Replace { .. } => "replace",
            Change::Metadata { .. } => "metadata",
            Change::Remove { inside: true, .. } => "goes-with",
            Change::Remove { .. } => "remove",
        };
        format!("{verb} {}", action.path)
    });
    actions.chain(plan.kept.iter().map(|kept| format!("keep {}", kept.path))).collect()
}

/// One row of the table: what the reference was and is, what happened here, and the plans of both modes.
struct Row {
    name: &'static str,
    before: Vec<(&'static str, Inode)>,
    after: Vec<(&'static str, Inode)>,
    local: fn(&mut Tree),
    incremental: &'static [&'static str],
    full: &'static [&'static str],
}

fn rows() -> Vec<Row> {
    let row = |name, before, after, local, incremental, full| Row { name, before, after, local, incremental, full };
    let one = |inode: Inode| vec![("f", inode)];
    let in_dir = |inode: Inode| vec![("d", dir()), ("d/f", inode)];
    let nothing: fn(&mut Tree) = |_| {};
    let edit: fn(&mut Tree) = |tree| {
        tree.set("f", file("local"), 90);
    };
    vec![
        row("nothing changed", one(file("a")), one(file("a")), nothing, &[], &[]),
        row("updated", one(file("a")), one(file("b")), nothing, &["replace f"], &["replace f"]),
        row("added", vec![], in_dir(file("a")), nothing, &["add d", "inside d/f"], &["add d", "inside d/f"]),
        row("dropped", one(file("a")), vec![], nothing, &[], &["remove f"]),
        row("edited here", one(file("a")), one(file("a")), edit, &["keep f"], &["replace f"]),
        row("edited on both sides", one(file("a")), one(file("b")), edit, &["replace f"], &["replace f"]),
        row("edited here to what is wanted", one(file("a")), one(file("local")), edit, &[], &[]),
        row("edited here and dropped", one(file("a")), vec![], edit, &[], &["remove f"]),
        row(
            "mode changed here",
            one(file("a")),
            one(file("a")),
            |tree| {
                tree.set("f", mode(file("a"), 0o600), 1);
            },
            &["keep f"],
            &["metadata f"],
        ),
        row(
            "mode changed in the reference",
            one(file("a")),
            one(mode(file("a"), 0o600)),
            nothing,
            &["metadata f"],
            &["metadata f"],
        ),
        row(
            "set-id is never changed in place",
            one(file("a")),
            one(mode(file("a"), 0o4755)),
            nothing,
            &["replace f"],
            &["replace f"],
        ),
        row(
            "missing",
            in_dir(file("a")),
            in_dir(file("a")),
            |tree| {
                tree.remove("d");
            },
            &["add d", "inside d/f"],
            &["add d", "inside d/f"],
        ),
        row("never applied", vec![], one(file("a")), edit, &["replace f"], &["replace f"]),
        row("stray", vec![], vec![], edit, &[], &["remove f"]),
        row(
            "directory mode changed here",
            in_dir(file("a")),
            in_dir(file("a")),
            |tree| {
                tree.set("d", mode(dir(), 0o700), 92);
            },
            &["keep d"],
            &["metadata d"],
        ),
        row(
            "file becomes directory",
            one(file("a")),
            vec![("f", dir()), ("f/x", file("x"))],
            nothing,
            &["replace f", "inside f/x"],
            &["replace f", "inside f/x"],
        ),
        row("symlink becomes file", one(link()), one(file("a")), nothing, &["replace f"], &["replace f"]),
        row("empty directory becomes file", one(dir()), one(file("a")), nothing, &["replace f"], &["replace f"]),
        row(
            "full directory becomes file",
            in_dir(file("a")),
            vec![("d", file("b"))],
            nothing,
            &["keep d"],
            &["replace d", "goes-with d/f"],
        ),
        row(
            "directory became a symlink here",
            in_dir(file("a")),
            in_dir(file("a")),
            |tree| {
                tree.remove("d").set("d", link(), 91);
            },
            &["keep d"],
            &["replace d", "inside d/f"],
        ),
        row(
            "stray directory",
            vec![],
            vec![],
            |tree| {
                tree.set("s", dir(), 90).set("s/t", dir(), 91).set("s/t/u", file("u"), 92);
            },
            &[],
            &["remove s", "goes-with s/t", "goes-with s/t/u"],
        ),
        row(
            "a directory that holds excluded paths stays",
            in_dir(file("a")),
            vec![],
            |tree| {
                tree.outside.insert(path("d"));
            },
            &[],
            &["remove d/f"],
        ),
        row(
            "a directory that holds excluded paths is not replaced",
            in_dir(file("a")),
            vec![("d", file("b"))],
            |tree| {
                tree.outside.insert(path("d"));
            },
            &["keep d"],
            &["remove d/f", "keep d"],
        ),
        row(
            "a mount point is not crossed",
            in_dir(file("a")),
            vec![("d", dir()), ("d/f", file("b"))],
            |tree| {
                tree.remove("d/f");
                tree.names.get_mut(&path("d")).unwrap().mount = true;
            },
            &["keep d"],
            &["keep d"],
        ),
    ]
}

#[test]
fn every_row_in_both_modes() {
    for row in rows() {
        let (mut tree, record) = Tree::of(&manifest(&row.before));
        (row.local)(&mut tree);
        let target = manifest(&row.after);
        for (mode, expected) in [(Mode::Incremental, row.incremental), (Mode::Full, row.full), (Mode::Force, row.full)]
        {
            let plan = plan(&target, &record, &tree, &rules(mode));
            assert_eq!(text(&plan), expected, "{}, {mode:?}", row.name);
            assert_eq!(plan.outcomes.len(), target.len(), "{}", row.name);
        }
    }
}

#[test]
fn policies_decide_when_both_sides_changed() {
    let (mut tree, record) = Tree::of(&manifest(&[("f", file("a"))]));
    let target = manifest(&[("f", time(file("b"), 500))]);
    let cases = [
        (ConflictPolicy::Replace, 900, "replace f"),
        (ConflictPolicy::Keep, 100, "keep f"),
        (ConflictPolicy::Both, 900, "replace-aside f"),
        (ConflictPolicy::Newer, 501, "keep f"),
        (ConflictPolicy::Newer, 500, "replace f"),
        (ConflictPolicy::Newer, 499, "replace f"),
        (ConflictPolicy::Newer, NOW, "keep f"),
        (ConflictPolicy::Newer, NOW + 1, "replace f"),
    ];
    for (conflict, live_mtime, expected) in cases {
        tree.set("f", time(file("local"), live_mtime), 90);
        let rules = MergeRules { conflict: &|_, _| conflict, ..rules(Mode::Incremental) };
        assert_eq!(text(&plan(&target, &record, &tree, &rules)), [expected], "{conflict:?} at {live_mtime}");
    }
}

#[test]
fn adoption_removes_nothing_and_takes_over_what_is_equal() {
    let (mut tree, _) =
        Tree::of(&manifest(&[("same", file("s")), ("other", file("o")), ("d", dir()), ("d/x", link())]));
    tree.set("stray", file("x"), 90);
    let target = manifest(&[("same", file("s")), ("other", file("wanted")), ("d", file("f")), ("new", file("n"))]);
    for mode in [Mode::Incremental, Mode::Full, Mode::Force] {
        let replace = MergeRules { adoption: Some(Adopt::Replace), ..rules(mode) };
        let replaced = plan(&target, &[], &tree, &replace);
        assert_eq!(text(&replaced), ["add new", "replace other", "keep d"]);
        assert_eq!((replaced.counts.adopted, replaced.counts.strays_left), (2, 2));
        let keep = MergeRules { adoption: Some(Adopt::Keep), ..rules(mode) };
        assert_eq!(text(&plan(&target, &[], &tree, &keep)), ["add new", "keep d", "keep other"]);
    }
}

#[test]
fn hard_links_are_joined_and_split() {
    let files = manifest(&[("a", file("x")), ("z", file("z"))]);
    let target = with_links(files, "a", &["b", "c"]);
    let (tree, record) = Tree::of(&target);
    for mode in [Mode::Incremental, Mode::Full, Mode::Force] {
        assert!(plan(&target, &record, &tree, &rules(mode)).is_empty());
        // One name was replaced by an equal file of its own.
        let mut split = tree.clone();
        split.set("b", file("x"), 90).count_links();
        assert_eq!(text(&plan(&target, &record, &split, &rules(mode))), ["relink b"]);
        // The first name is gone: the others keep their inode and it joins them … by a new name of the new leader.
        let mut gone = tree.clone();
        gone.remove("a").count_links();
        assert_eq!(text(&plan(&target, &record, &gone, &rules(mode))), ["add a", "relink b", "relink c"]);
        // New content comes once.
        let updated = with_links(manifest(&[("a", file("new")), ("z", file("z"))]), "a", &["b", "c"]);
        let plan = plan(&updated, &record, &tree, &rules(mode));
        assert_eq!(text(&plan), ["replace a", "relink b", "relink c"]);
        assert_eq!(plan.counts.inodes_to_create, 1);
    }
    // The reference takes the group apart.
    let apart = manifest(&[("a", file("x")), ("b", file("x")), ("c", file("x")), ("z", file("z"))]);
    for mode in [Mode::Incremental, Mode::Full] {
        assert_eq!(text(&plan(&apart, &record, &tree, &rules(mode))), ["replace b", "replace c"]);
    }
    // Somebody joined what the reference has apart.
    let (mut joined, record) = Tree::of(&apart);
    joined.set("b", file("x"), 2).count_links();
    assert_eq!(text(&plan(&apart, &record, &joined, &rules(Mode::Incremental))), ["keep b"]);
    assert_eq!(text(&plan(&apart, &record, &joined, &rules(Mode::Full))), ["replace b"]);
}

#[test]
fn a_hard_link_whose_first_name_is_kept_makes_its_own_inode() {
    let target = with_links(manifest(&[("a", file("x"))]), "a", &["b", "c"]);
    let (mut tree, record) = Tree::of(&target);
    tree.set("a", file("local"), 90).remove("b").remove("c").count_links();
    let found = plan(&target, &record, &tree, &rules(Mode::Incremental));
    assert_eq!(text(&found), ["add b", "link c", "keep a"]);
    // The same when it turns out only later that the first name cannot be delivered.
    tree.set("a", dir(), 91).set("a/x", file("x"), 92);
    let found = plan(&target, &record, &tree, &rules(Mode::Full));
    assert_eq!(text(&found), ["replace a", "goes-with a/x", "link b", "link c"]);
    tree.outside.insert(path("a"));
    let found = plan(&target, &record, &tree, &rules(Mode::Full));
    assert_eq!(text(&found), ["remove a/x", "add b", "link c", "keep a"]);
}

#[test]
fn directory_times_are_set_where_something_changes() {
    let before =
        manifest(&[("d", time(dir(), 7)), ("d/e", time(dir(), 8)), ("d/e/f", file("a")), ("g", time(dir(), 9))]);
    let (mut tree, record) = Tree::of(&before);
    tree.set("g", time(dir(), 99), 5).set("g/stray", file("s"), 90);
    let after =
        manifest(&[("d", time(dir(), 7)), ("d/e", time(dir(), 8)), ("d/e/f", file("b")), ("g", time(dir(), 9))]);
    let times = |mode| {
        let plan = plan(&after, &record, &tree, &rules(mode));
        plan.dir_times.iter().map(|(path, time)| format!("{path} {}", time.secs)).collect::<Vec<_>>()
    };
    assert_eq!(times(Mode::Incremental), ["d/e 8"]);
    assert_eq!(times(Mode::Full), ["d/e 8", "g 9"]);
}

#[test]
fn what_was_dropped_is_remembered_until_it_goes() {
    let (tree, record) = Tree::of(&manifest(&[("d", dir()), ("d/f", file("a"))]));
    let target = manifest(&[]);
    let first = plan(&target, &record, &tree, &rules(Mode::Incremental));
    assert_eq!(first.counts.dropped_left, 2);
    let mut record: Vec<AppliedEntry> = record;
    record.retain(|entry| entry.entry.path.is_root());
    record.extend(first.dropped.iter().map(|dropped| AppliedEntry {
        entry: Entry { path: dropped.path.clone(), node: Node::Inode(dropped.inode.clone()) },
        dropped: true,
        print: dropped.same.as_ref().map(Fingerprint::of),
    }));
    let again = plan(&target, &record, &tree, &rules(Mode::Incremental));
    assert_eq!((again.counts.dropped_left, again.counts.strays_left), (2, 0));
    let full = plan(&target, &record, &tree, &rules(Mode::Full));
    assert_eq!(text(&full), ["remove d", "goes-with d/f"]);
    assert_eq!((full.removals(false).count(), full.removals(true).count()), (2, 0));
    // It comes back changed: not a local change.
    let back = manifest(&[("d", dir()), ("d/f", file("b"))]);
    let back = plan(&back, &record, &tree, &rules(Mode::Incremental));
    assert_eq!(text(&back), ["replace d/f"]);
    assert!(matches!(back.actions[0].reason, Reason::Updated(_)));
}

#[test]
fn force_trusts_no_fingerprint() {
    let target = manifest(&[("f", file("a"))]);
    let (mut tree, record) = Tree::of(&target);
    // Changed without a trace: same inode, size and times.
    tree.names.get_mut(&path("f")).unwrap().inode = file("z");
    assert_eq!(text(&plan(&target, &record, &tree, &rules(Mode::Full))), [""; 0]);
    assert_eq!(text(&plan(&target, &record, &tree, &rules(Mode::Force))), ["replace f"]);
}

/// A small tree: each of a few names is absent, a file of one of two contents, a symlink, or a directory.
fn any_tree() -> impl Strategy<Value = Vec<Entry>> {
    let kinds = proptest::collection::vec(0..5usize, 12);
    kinds.prop_map(|kinds| {
        let names = ["a", "a/a", "a/a/a", "a/b", "b", "b/a", "c", "c/a", "c/a/b", "c/b", "d", "e"];
        let mut entries = Vec::new();
        for (name, kind) in names.iter().zip(kinds) {
            let parent = name.rsplit_once('/').map(|(parent, _)| parent);
            let fits = parent.is_none_or(|parent| {
                entries.iter().any(|(at, inode): &(&str, Inode)| *at == parent && inode.kind == InodeKind::Directory)
            });
            let made = match kind {
                1 => file("one"),
                2 => mode(file("two"), 0o755),
                3 => link(),
                4 => dir(),
                _ => continue,
            };
            if fits {
                entries.push((*name, made));
            }
        }
        manifest(&entries)
    })
}

/// Carries a plan out on a tree in memory.
fn carry_out(plan: &CheckoutPlan, tree: &Tree) -> BTreeMap<TreePath, Inode> {
    let mut after: BTreeMap<TreePath, Inode> =
        tree.names.iter().map(|(path, live)| (path.clone(), live.inode.clone())).collect();
    for action in &plan.actions {
        match &action.change {
            Change::Add { wanted: Wanted::Inode(inode), .. }
            | Change::Replace { wanted: Wanted::Inode(inode), .. }
            | Change::Metadata { inode, .. } => {
                after.insert(action.path.clone(), (**inode).clone());
            }
            Change::Remove { .. } => {
                after.remove(&action.path);
            }
            Change::Add { .. } | Change::Replace { .. } => panic!("no links in these trees"),
        }
    }
    after
}

proptest! {
    #[test]
    fn full_makes_any_tree_the_target(before in any_tree(), live in any_tree(), target in any_tree(), force: bool) {
        let (mut tree, _) = Tree::of(&live);
        for live in tree.names.values_mut() {
            live.stat.ino += 1000;
        }
        let (_, record) = Tree::of(&before);
        let mode = if force { Mode::Force } else { Mode::Full };
        let plan = plan(&target, &record, &tree, &rules(mode));
        let wanted: BTreeMap<TreePath, Inode> = target.iter().map(|entry| match &entry.node {
            Node::Inode(inode) => (entry.path.clone(), inode.clone()),
            Node::Link { .. } => unreachable!(),
        }).collect();
        prop_assert!(plan.kept.is_empty());
        prop_assert_eq!(carry_out(&plan, &tree), wanted);
    }

    #[test]
    fn incremental_removes_nothing_and_reports_every_difference(
        before in any_tree(), live in any_tree(), target in any_tree(),
    ) {
        let (mut tree, _) = Tree::of(&live);
        for live in tree.names.values_mut() {
            live.stat.ino += 1000;
        }
        let (_, record) = Tree::of(&before);
        let plan = plan(&target, &record, &tree, &rules(Mode::Incremental));
        let after = carry_out(&plan, &tree);
        for path in tree.names.keys() {
            prop_assert!(after.contains_key(path), "{path} went");
        }
        for entry in &target {
            let Node::Inode(inode) = &entry.node else { unreachable!() };
            let reported = plan.kept.iter().any(|kept| entry.path.starts_with(&kept.path));
            prop_assert!(after.get(&entry.path) == Some(inode) || reported, "{} differs silently", entry.path);
        }
    }

    #[test]
    fn an_applied_tree_needs_nothing(target in any_tree(), mode in prop_oneof![
        Just(Mode::Incremental), Just(Mode::Full), Just(Mode::Force)
    ]) {
        let (tree, record) = Tree::of(&target);
        let plan = plan(&target, &record, &tree, &rules(mode));
        prop_assert!(plan.is_empty() && plan.kept.is_empty());
        prop_assert_eq!(plan.counts.unchanged, target.len() as u64);
    }
}

#[test]
fn what_is_outside_the_area_is_seen_and_left() {
    let target = manifest(&[("cache", file("c")), ("opt", dir()), ("opt/app", file("a"))]);
    let (mut tree, record) = Tree::of(&manifest(&[]));
    // A way to what may be included, which holds nothing of it, and a name that something excluded has.
    tree.set("opt", dir(), 90).set("srv", dir(), 91).set("srv/stray", file("s"), 92);
    for at in ["opt", "srv"] {
        tree.names.get_mut(&path(at)).unwrap().passage = true;
    }
    tree.outside.insert(TreePath::root());
    tree.taken.insert(path("cache"));
    let found = plan(&target, &record, &tree, &rules(Mode::Full));
    assert_eq!(text(&found), ["add opt/app", "remove srv/stray", "keep cache"]);
    assert_eq!(found.kept[0].because, KeptBecause::ExcludedInTheWay);
}

#[test]
fn what_an_interrupted_switch_lifted_is_no_local_change() {
    let target = manifest(&[("d", mode(dir(), 0o555)), ("e", mode(dir(), 0o555))]);
    let (mut tree, record) = Tree::of(&target);
    tree.set("d", mode(dir(), 0o755), 90).set("e", mode(dir(), 0o777), 91);
    let interrupted = MergeRules { interrupted: true, ..rules(Mode::Incremental) };
    assert_eq!(text(&plan(&target, &record, &tree, &interrupted)), ["metadata d", "keep e"]);
    assert_eq!(text(&plan(&target, &record, &tree, &rules(Mode::Incremental))), ["keep d", "keep e"]);
}
