// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Help, topics, completions and manual pages.

use std::fmt::Write as _;

use crate::harness::World;

const COMMANDS: &[&str] = &[
    "init",
    "commit",
    "log",
    "show",
    "ls",
    "cat",
    "diff",
    "find",
    "fetch",
    "checkout",
    "status",
    "verify",
    "explain",
    "rollback",
    "recover",
    "history",
    "show-record",
    "undo",
    "check",
    "copy",
    "bundle",
    "serve",
    "delta",
    "demo",
    "help",
    "completions",
    "man",
];

/// One snapshot of the whole `--help` tree: whatever is added, renamed or reworded shows up here.
#[test]
fn the_whole_tree() {
    let world = World::new();
    let mut tree = String::new();
    let _ = writeln!(tree, "{}\n", world.run(&["--help"]));
    for command in COMMANDS {
        let page = String::from_utf8(world.output(&[command, "--help"]).stdout).unwrap();
        // The global options are the same everywhere.
        let (own, rest) = page.split_once("Global options:\n").unwrap();
        let after = rest.split_once("\n\n").unwrap().1;
        let _ = writeln!(tree, "=== {command}\n{own}{}\n", after.trim_end());
    }
    insta::assert_snapshot!(tree, @r#"
    exit 0
    --- stdout
    Keep every server of a fleet identical to a tested master; prove it; undo it

    Usage: evenkeel [OPTIONS] <COMMAND>

    Commands:
      init         Make a store
      commit       Record the areas of this machine as a snapshot
      log          List snapshots, newest first
      show         Show what a snapshot holds
      ls           List a directory of a snapshot
      cat          Print a file of a snapshot
      diff         Compare two snapshots
      find         Find the snapshots that hold a path
      fetch        Fetch what a checkout will need, and change nothing
      checkout     Make directories of this machine match a snapshot
      status       Tell what is checked out here and what changed since, by times and sizes
      verify       Compare what is checked out here with its snapshot, byte for byte
      explain      Tell of one path why it is as it is, and who changed it
      rollback     Take the last checkout back
      recover      Finish a checkout or rollback that was interrupted
      history      List what was done to the areas of this machine
      show-record  Tell what a checkout or rollback did, why, and who asked for it
      undo         Take checkouts back, down to a number of `history`
      check        Look for damage in the store
      copy         Copy snapshots to another store
      bundle       Put a snapshot into one file, for where no line leads
      serve        Serve a store's directory over HTTP(S), for reading only
      delta        Make and list deltas, with which remotes fetch fewer bytes
      demo         Show the whole method on real files, in a temporary directory
      help         Explain a command or a topic
      completions  Print a completion script for a shell
      man          Print the manual page, or write all pages into a directory

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Global options:
          --store <STORE>    The store: a directory, http(s)://… or s3://… [env: EVENKEEL_STORE]
          --config <FILE>    Configuration [default: /etc/evenkeel/evenkeel.toml, then
                             $XDG_CONFIG_HOME/evenkeel/evenkeel.toml]
          --state <DIR>      State directory [default: /var/lib/evenkeel as root, else
                             $XDG_STATE_HOME/evenkeel]
          --json             Print the result as JSON (schemas in docs/reference/schemas)
          --progress <WHEN>  Progress on stderr: auto, plain, json or none [default: auto]
          --color <WHEN>     Colours: auto, always or never; NO_COLOR is honoured [default: auto]
      -q, --quiet            Say nothing but the result and what went wrong
      -v, --verbose...       Say more

    Getting started:
      evenkeel demo        the whole method on real files, in a temporary directory
      evenkeel init /srv/store
      evenkeel --store /srv/store commit --area etc=/etc -m 'first snapshot'
      evenkeel --store /srv/store checkout @latest --area etc=/srv/copy-of-etc

    Topics of `evenkeel help TOPIC`:
      exit-codes   what the program's exit code means
      snapshots    how to name a snapshot, and a path in one
      areas        what an area is, and what is left out of it
      config       every key of evenkeel.toml

    === init
    Make a store

    Usage: evenkeel init [OPTIONS] <STORE>

    Arguments:
      <STORE>  Directory of the new store, or s3://BUCKET[/PREFIX]; it must be new or empty

    Options:
          --chunk-avg <BYTES>  Average chunk size: a power of two from 8 KiB to 4 MiB. Smaller finds
                               more duplicates, larger is faster [default: 64KiB]
          --pack-size <BYTES>  Size at which a pack is closed: 1 MiB to 64 MiB [default: 32MiB]
      -h, --help               Print help

    Examples:
      evenkeel init /srv/evenkeel/store
      evenkeel init --chunk-avg 32KiB ./store
      evenkeel init s3://releases/web

    === commit
    Record the areas of this machine as a snapshot

    Usage: evenkeel commit [OPTIONS]

    Options:
          --area <NAME=PATH>   An area and where it is (repeatable) [default: the areas of the
                               configuration]
      -m, --message <TEXT>     What this snapshot is [default: ""]
          --parent <SNAP>      The snapshot that this one follows, or `none` [default: @latest]
          --level <N>          zstd level, 1 to 19 [default: 3]
          --label <KEY=VALUE>  A free label (repeatable)
          --author <TEXT>      Who made it [default: from the configuration, else user@host] [env:
                               EVENKEEL_AUTHOR]
          --allow-changing     Record files that change while they are read, marked as such, instead of
                               failing
          --allow-identity     Record host identity and secrets, too (`evenkeel help areas` lists them)
          --skip-unreadable    Leave out what cannot be read and exit 3, instead of failing
          --dry-run            Read and count, but store nothing
          --exit-nothing       Exit 4 when nothing changed
      -h, --help               Print help

    Prints the id of the snapshot. When nothing changed since the parent, no snapshot is made, and it is
    the parent's.

    Examples:
      evenkeel commit --area etc=/etc --area usr=/usr -m 'OpenSSL 3.0.15'
      evenkeel commit --dry-run -v                  what would be stored, and what is left out
      evenkeel commit --parent 5e1c09ab --label ticket=4711

    === log
    List snapshots, newest first

    Usage: evenkeel log [OPTIONS] [SNAP]

    Arguments:
      [SNAP]  Begin here and follow parents, instead of listing all snapshots of the store

    Options:
      -n, --limit <N>    List at most this many
          --oneline      One line a snapshot
          --label <K=V>  Only snapshots that carry this label; may be repeated
      -h, --help         Print help

    Examples:
      evenkeel log
      evenkeel log -n 1 --json
      evenkeel log @latest~3            the history of one snapshot
      evenkeel log --label ticket=4711

    === show
    Show what a snapshot holds

    Usage: evenkeel show [OPTIONS] [SNAP]

    Arguments:
      [SNAP]  The snapshot [default: @latest]

    Options:
      -h, --help  Print help

    Examples:
      evenkeel show @latest
      evenkeel show 5e1c09ab -v         also the rules of each area

    === ls
    List a directory of a snapshot

    Usage: evenkeel ls [OPTIONS] <SNAP> [PATH]

    Arguments:
      <SNAP>  The snapshot
      [PATH]  AREA:PATH, a path that one area has, or a path as it was on the master; without it every
              area's root

    Options:
      -l, --long       Show mode, links, owner, group, size and time, as `ls -l` does
      -R, --recursive  Go down into directories, one path a line
      -d, --directory  Show a directory itself, not what it holds
      -h, --help       Print help

    Examples:
      evenkeel ls @latest
      evenkeel ls -l @latest etc:ssh
      evenkeel ls -R @latest~1 /etc/apt

    === cat
    Print a file of a snapshot

    Usage: evenkeel cat [OPTIONS] <SNAP> <PATH>

    Arguments:
      <SNAP>  The snapshot
      <PATH>  AREA:PATH, a path that one area has, or a path as it was on the master

    Options:
      -h, --help  Print help

    Examples:
      evenkeel cat @latest etc:ssh/sshd_config
      evenkeel cat @latest~1 /etc/ssh/sshd_config | diff - /etc/ssh/sshd_config

    === diff
    Compare two snapshots

    Usage: evenkeel diff [OPTIONS] <A> <B> [PATH]

    Arguments:
      <A>     The snapshot before
      <B>     The snapshot after
      [PATH]  Only what is at or below this path: AREA:PATH or PATH

    Options:
          --stat  Print totals instead of paths
      -h, --help  Print help

    Lines begin with A (added), D (deleted), M (modified; what changed follows) or T (another type).

    Examples:
      evenkeel diff @latest~1 @latest
      evenkeel diff --stat 5e1c09ab @latest
      evenkeel diff @latest~1 @latest etc:ssh

    === find
    Find the snapshots that hold a path

    Usage: evenkeel find [OPTIONS] <PATH|GLOB>

    Arguments:
      <PATH|GLOB>  A name, a path, or a pattern in .gitignore syntax; AREA: before it looks in that area
                   only

    Options:
          --all   Also paths that the newest snapshot does not have
      -h, --help  Print help

    Examples:
      evenkeel find sshd_config          any path with this name
      evenkeel find 'etc:ssh/*.conf'
      evenkeel find --all /etc/motd      also if it is gone by now

    === fetch
    Fetch what a checkout will need, and change nothing

    Usage: evenkeel fetch [OPTIONS] <SNAP>

    Arguments:
      <SNAP>  The snapshot

    Options:
          --area <NAME=PATH>   An area and where it belongs here (repeatable) [default: the areas of the
                               configuration]
          --full               For a full checkout, which undoes local changes [default: as `checkout`
                               without a mode]
          --dry-run            Print what would be fetched, and fetch nothing
          --seed <DIR>         A directory whose files may have content that need not be fetched then
                               (repeatable)
          --limit-rate <RATE>  Most bytes a second from web servers, as 500k or 2M [default: the
                               configuration's limit-rate, else no bound]
      -h, --help               Print help

    What is fetched is kept in the state directory, and the next `checkout` of SNAP finds it there. An
    interrupted fetch goes on where it was: nothing that had come and was found sound comes again.
    What an earlier fetch has brought and SNAP does not need is dropped, and said. The next checkout
    that succeeds leaves nothing of it.

    Examples:
      evenkeel fetch @latest --dry-run              what it would cost
      evenkeel fetch @latest --limit-rate 500k      at night, over a thin line
      evenkeel fetch @latest --seed /srv/old-image  content that somebody brought

    === checkout
    Make directories of this machine match a snapshot

    Usage: evenkeel checkout [OPTIONS] [SNAP]

    Arguments:
      [SNAP]  The snapshot

    Options:
          --area <NAME=PATH>     An area and where it belongs here (repeatable) [default: the areas of
                                 the configuration]
          --incremental          Refresh and add; remove nothing, keep local changes
          --full                 Make it equal: undo local changes, remove what the snapshot lacks
          --force                As --full, reading and comparing every byte
          --dry-run              Print the plan and change nothing; -v lists every path
          --save-plan <FILE>     Change nothing; save the plan as a file, and print its hash
          --plan <FILE>          Carry out a saved plan, if it still fits: areas, mode and adoption are
                                 those that it was made with
          --plan-hash <HASH>     Refuse any plan but the one with this hash
          --adopt=<HOW>          First checkout onto a tree that is not empty: `replace` or `keep` files
                                 that differ; strays stay
          --max-delete <N|P%>    Most strays (never delivered) that may be removed from an area; P% of
                                 its entries in SNAP [default: 20 or 2%, the greater]
          --max-removals <N|P%>  Most delivered paths that may be removed from an area; P% of its
                                 entries in SNAP [default: 100 or 25%, the greater]
          --switch <HOW>         `files` one after the other, or the whole `tree` in one step (full and
                                 force only) [default: files]
          --allow-busy           Switch the whole tree although processes use it
          --exact                Refuse a place that cannot hold all of the snapshot: owners, ACLs,
                                 attributes, flags, times
          --allow-empty          Allow a snapshot whose area is empty
          --numeric-owners       Restore owners by number even where the master had a name
          --wait-packages <S>    Seconds to wait for dpkg or rpm when they are at work on files of the
                                 area [default: the configuration's wait-packages, else 60]
          --seed <DIR>           A directory whose files may have content that need not be fetched then
                                 (repeatable)
          --limit-rate <RATE>    Most bytes a second from web servers, as 500k or 2M [default: the
                                 configuration's limit-rate, else no bound]
          --exit-nothing         Exit 4 when there was nothing to do
      -h, --help                 Print help

    Without a mode: full into an empty or new directory, incremental onto an ancestor of SNAP. Otherwise
    it must be said.

      incremental   refreshes and adds; removes nothing, keeps local changes, names them
      full          undoes local changes and removes what SNAP lacks, up to the ceilings
      force         as full, but trusts no timestamp: reads and compares every byte

    Ends with `at SNAP`, or `at SNAP, N kept differences`; only the first is in sync.

    Examples:
      evenkeel checkout @latest --area etc=/srv/copy-of-etc
      evenkeel checkout @latest --full --dry-run -v       the whole plan
      evenkeel checkout @latest~1 --full                  back to the snapshot before
      evenkeel checkout @latest --adopt=keep              first time onto a tree that is not empty
      evenkeel checkout @latest --full --save-plan FILE   to be approved by its hash
      evenkeel checkout --plan FILE --plan-hash HASH      that plan, if it still fits

    === status
    Tell what is checked out here and what changed since, by times and sizes

    Usage: evenkeel status [OPTIONS]

    Options:
          --area <NAME=PATH>  An area and where it is (repeatable) [default: the areas of the
                              configuration, else those that were checked out here]
      -h, --help              Print help

    A file whose size, times and inode are as they were when it was delivered counts as unchanged;
    `verify` reads it. Exits 5 when something that was delivered differs, or an area of the
    configuration was never checked out. With -v and --json it tells who changed each path, as far as
    the file system and the package manager know. Strays (never delivered) are listed, but are no drift.
    An area that cannot be looked at is an error after the others were shown.

    Examples:
      evenkeel status
      evenkeel status --area etc=/etc --json

    === verify
    Compare what is checked out here with its snapshot, byte for byte

    Usage: evenkeel verify [OPTIONS]

    Options:
          --area <NAME=PATH>  An area and where it is (repeatable) [default: the areas of the
                              configuration, else those that were checked out here]
      -h, --help              Print help

    Reads every byte and trusts no timestamp; tells who changed each path, as far as the file system and
    the package manager know. Exits 5 when something that was delivered differs, or an area of the
    configuration was never checked out. An area that cannot be looked at is an error after the others
    were shown.

    Examples:
      evenkeel verify
      evenkeel verify --area etc=/etc --json

    === explain
    Tell of one path why it is as it is, and who changed it

    Usage: evenkeel explain [OPTIONS] <PATH>

    Arguments:
      <PATH>  A path of this machine, or AREA:PATH from an area's root

    Options:
          --area <NAME=PATH>  An area and where it is (repeatable) [default: the areas of the
                              configuration, else those that were checked out here]
      -h, --help              Print help

    Which snapshot brought it and when it first appeared, what it should be and what it is now, which
    checkout changed it here last, and who changed it as far as the file system and the package manager
    tell. The file is read. Exit code 0, whatever is found; `status` and `verify` are for scripts that
    want to know.

    Examples:
      evenkeel explain /etc/ssh/sshd_config
      evenkeel explain etc:ssh/sshd_config --json

    === rollback
    Take the last checkout back

    Usage: evenkeel rollback [OPTIONS]

    Options:
          --area <NAME=PATH>  An area and where it is (repeatable) [default: the areas of the
                              configuration, else the only one that was checked out here]
      -h, --help              Print help

    Needs neither store nor network: what a checkout replaces or removes stays in the area's
    .evenkeel/undo. Local changes that the checkout overwrote come back, too. What was changed since the
    checkout is named: edits of what it brought go to undo in their turn, and what somebody has put
    there stays. A checkout that was interrupted is taken back as far as it got, and a rollback that was
    interrupted is finished. Called again, it goes back one checkout more, as long as undo is kept
    (`evenkeel help config`).

    Examples:
      evenkeel rollback
      evenkeel rollback --area etc=/etc

    === recover
    Finish a checkout or rollback that was interrupted

    Usage: evenkeel recover [OPTIONS]

    Options:
          --area <NAME=PATH>  An area and where it is (repeatable) [default: all that were checked out
                              here]
      -h, --help              Print help

    Everything that a checkout brings is staged, and what it will do is written down, before it changes
    the first name. So it can be finished after a crash or a power cut, without store and network. Every
    `checkout` does that first; `rollback` takes it back instead. Where nothing was interrupted, nothing
    is done.

    Examples:
      evenkeel recover
      evenkeel recover --area etc=/etc --json

    === history
    List what was done to the areas of this machine

    Usage: evenkeel history [OPTIONS]

    Options:
          --area <NAME=PATH>  An area and where it is (repeatable) [default: the areas of the
                              configuration, else those that were checked out here]
      -h, --help              Print help

    Every checkout and rollback that changed a name has a number. `rollback` takes the last one back,
    `undo NUMBER` all down to that one, as long as what they displaced is kept.

    Examples:
      evenkeel history
      evenkeel history --area etc=/etc --json

    === show-record
    Tell what a checkout or rollback did, why, and who asked for it

    Usage: evenkeel show-record [OPTIONS] <NUMBER>

    Arguments:
      <NUMBER>  The number, as `history` lists it

    Options:
          --area <NAME=PATH>  The area and where it is [default: the one of the configuration, else the
                              one that was checked out here]
          --all               List every line
      -h, --help              Print help

    First what it was: when, who asked, from which snapshot to which, and what came of it. Then what
    deserves a look first: differences that were kept, set-id programs and capabilities, systemd units,
    other kinds of files, what changed meanwhile, what cannot be held here. Then the changes by
    directory.

    With --json the record as it was written, one document for each line
    (docs/reference/schemas/record.json). A record stays when the undo is dropped; how many are kept
    says `[records]` in the configuration. A damaged one gives exit code 12.

    Examples:
      evenkeel show-record 12
      evenkeel show-record 12 --area etc=/etc --all

    === undo
    Take checkouts back, down to a number of `history`

    Usage: evenkeel undo [OPTIONS] <NUMBER>

    Arguments:
      <NUMBER>  The number, as `history` lists it

    Options:
          --area <NAME=PATH>  The area and where it is [default: the one of the configuration, else the
                              one that was checked out here]
      -h, --help              Print help

    Takes the newest checkout back, then the one before it, until NUMBER is taken back, too: the area is
    as it was before NUMBER. Needs neither store nor network. Each step is one that `rollback` would
    take, and is as safe.

    Examples:
      evenkeel history
      evenkeel undo 12 --area etc=/etc

    === check
    Look for damage in the store

    Usage: evenkeel check [OPTIONS]

    Options:
          --read-data    Read and hash all stored data
          --sample <P%>  With --read-data: only this part of the packs and deltas, chosen anew each time
      -h, --help         Print help

    Checks that every object is there, has its structure and its place in the index, and that every
    chunk that a snapshot names is in a pack. --read-data also reads every pack and delta and compares
    every chunk and payload with its hash. Goes on past damage, names the snapshots that it hurts, and
    exits 12.

    Examples:
      evenkeel check
      evenkeel check --read-data
      evenkeel check --read-data --sample 5%        some packs, for a nightly job

    === copy
    Copy snapshots to another store

    Usage: evenkeel copy [OPTIONS] --to <STORE> [SNAP]...

    Arguments:
      [SNAP]...  Snapshots to copy; without any, all

    Options:
          --to <STORE>  The store to copy to, a directory or s3://BUCKET[/PREFIX]; made with the same
                        parameters where there is none
      -h, --help        Print help

    Copies what the target lacks, verified on the way, and a snapshot last, when everything it needs is
    there; then the deltas that lead to it. Parents that are not named are not copied. Stopped at any
    time, the same command goes on where it was.

    Examples:
      evenkeel copy --to /mnt/usb/store @latest       to carry to a site without a line
      evenkeel --store https://master.example/store copy --to /srv/mirror
      evenkeel copy --to /srv/archive @latest~2 @latest

    === bundle
    Put a snapshot into one file, for where no line leads

    Usage: evenkeel bundle [OPTIONS] <COMMAND>

    Commands:
      create  Write a snapshot into a file
      info    Tell what a bundle holds, from its first bytes
      verify  Find out whether a bundle is whole and unchanged

    Options:
      -h, --help  Print help

    A bundle is a store that is only read: every command that reads takes it as --store FILE, checkout
    and copy too. With --base it leaves out what those snapshots have, and is for servers that are at
    one of them, and for stores that have one.

    Examples:
      evenkeel bundle create @latest -o web.bundle
      evenkeel bundle create @latest --base @latest~1 -o - | ssh site 'cat > web.bundle'
      evenkeel bundle verify web.bundle
      evenkeel --store web.bundle checkout @latest --area web=/srv/web      a server without a store
      evenkeel --store web.bundle copy --to /srv/store                      a site with a store

    === serve
    Serve a store's directory over HTTP(S), for reading only

    Usage: evenkeel serve [OPTIONS] --listen <ADDR:PORT>

    Options:
          --listen <ADDR:PORT>   Address to listen on (repeatable)
          --tls-cert <FILE>      The server's certificate and those between it and its authority, PEM
          --tls-key <FILE>       The certificate's private key, PEM
          --client-ca <FILE>     Let in only clients with a certificate of these authorities, PEM
          --token-file <FILE>    Let in only clients with one of these bearer tokens, one a line
          --metrics <ADDR:PORT>  Address of /metrics for Prometheus, without TLS or token
          --access-log <FILE>    Where a line for each request goes; `-` for stdout
          --log-format <FORM>    Form of these lines: text or json [default: text]
          --max-connections <N>  Connections at once [default: 512]
          --max-per-address <N>  Connections at once from one address [default: 64]
          --header-timeout <S>   Seconds for the head of a request to be there [default: 10]
          --idle-timeout <S>     Seconds for the next request on a connection to begin [default: 60]
          --write-timeout <S>    Seconds for anything more of an answer to be taken [default: 30]
          --min-rate <BYTES>     Bytes a second that a client must take [default: 1024]
      -h, --help                 Print help

    Serves the objects of a store and nothing else: GET and HEAD, single ranges, no listings, no
    symbolic links. Opens nothing of the store for writing, and needs no root. SIGTERM ends it once the
    answers under way are sent; SIGHUP reads certificates, keys and tokens again.

    Examples:
      evenkeel --store /srv/store serve --listen 127.0.0.1:8080
      evenkeel --store /srv/store serve --listen [::]:8443 --tls-cert server.pem --tls-key server.key \
          --token-file tokens --metrics 127.0.0.1:9102 --access-log -

    === delta
    Make and list deltas, with which remotes fetch fewer bytes

    Usage: evenkeel delta [OPTIONS] <COMMAND>

    Commands:
      make  Make the delta from one snapshot to another
      list  List the deltas that lead to a snapshot

    Options:
      -h, --help  Print help

    A delta makes the new chunks of one snapshot out of those of another. A remote that has the one
    fetches a fraction of the bytes for the other. Deltas are hints: who has none, or a damaged one,
    takes the chunks from packs.

    Examples:
      evenkeel delta make @latest~ @latest
      evenkeel delta make 3c5e80a1 @latest --effort fast
      evenkeel delta list @latest

    === demo
    Show the whole method on real files, in a temporary directory

    Usage: evenkeel demo [OPTIONS]

    Options:
          --area <DIR>  Use a copy of this directory instead of parts of /usr
          --keep        Leave the temporary directory for a look around
      -h, --help        Print help

    Copies up to 200 MiB of this machine's /usr (or --area DIR) into a temporary directory as the
    master's tree, commits it, checks it out as a remote server would, changes it, follows incrementally
    and in full, finds and repairs drift, takes a checkout back, and carries out a saved plan. Needs no
    privileges and no network, and removes everything at the end.

    Examples:
      evenkeel demo
      evenkeel demo --keep
      evenkeel demo --area /srv/app

    === help
    Explain a command or a topic

    Usage: evenkeel help [OPTIONS] [COMMAND|TOPIC]

    Arguments:
      [COMMAND|TOPIC]  A command, or one of: exit-codes, snapshots, areas, config

    Options:
      -h, --help  Print help

    Examples:
      evenkeel help commit
      evenkeel help exit-codes

    === completions
    Print a completion script for a shell

    Usage: evenkeel completions [OPTIONS] <SHELL>

    Arguments:
      <SHELL>  Shell to complete in [possible values: bash, elvish, fish, powershell, zsh]

    Options:
      -h, --help  Print help

    Examples:
      evenkeel completions bash > /etc/bash_completion.d/evenkeel
      evenkeel completions zsh > ~/.zfunc/_evenkeel
      evenkeel completions fish > ~/.config/fish/completions/evenkeel.fish

    === man
    Print the manual page, or write all pages into a directory

    Usage: evenkeel man [OPTIONS] [DIR]

    Arguments:
      [DIR]  Write a page for the program and one for each command into this directory

    Options:
      -h, --help  Print help

    Examples:
      evenkeel man | man -l -
      evenkeel man /usr/local/share/man/man1
    "#);
}

#[test]
fn every_visible_command_is_in_the_tree() {
    let help = World::new().run(&["--help"]);
    let list = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, COMMANDS);
    for command in COMMANDS {
        let page = World::new().run(&[command, "-h"]);
        assert!(page.contains("Examples:\n"), "{command}");
    }
}

#[test]
fn exit_codes() {
    insta::assert_snapshot!(World::new().run(&["help", "exit-codes"]), @"
    exit 0
    --- stdout
    Exit codes (part of the interface; codes that are not listed mean failure)

        0  done; also when there was nothing to do
        1  failed; nothing was changed, or the error says what was
        2  usage: the command line or the configuration makes no sense
        3  finished, but some entries failed; each was named
        4  nothing to do (only with --exit-nothing)
        5  drift found, or a configured area was never checked out (status and verify only)
       10  store not found, or the directory is not a store
       11  locked by another process; try again later
       12  damaged data found; what and whom it hurts was named
       13  not trusted: signature, threshold or rollback
       14  stale: freshness expired
       15  outside the maintenance window
       16  the store's server cannot be reached, or does not answer as one; nothing was changed
       17  the server's certificate is not accepted; nothing was changed
      130  interrupted (Ctrl-C, SIGTERM)
    ");
}

#[test]
fn a_command_or_a_topic() {
    let world = World::new();
    for topic in ["snapshots", "areas", "config", "commit"] {
        assert!(world.output(&["help", topic]).status.success(), "{topic}");
    }
    assert!(world.run(&["help", "areas"]).contains("  /etc/machine-id\n"));
    insta::assert_snapshot!(world.run(&["help", "nothing"]), @"
    exit 2
    --- stderr
    error: there is no command or topic `nothing`
    hint: `evenkeel help` lists both
    ");
}

#[test]
fn wrong_usage() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["frobnicate"]), @"
    exit 2
    --- stderr
    error: unrecognized subcommand 'frobnicate'

    Usage: evenkeel [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(world.run(&["commit", "--area", "etc"]), @"
    exit 2
    --- stderr
    error: invalid value 'etc' for '--area <NAME=PATH>': write it as NAME=PATH, such as etc=/etc

    For more information, try '--help'.
    ");
}

#[test]
fn completions() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(world.run(&["completions", shell]).contains("checkout"), "{shell}");
    }
}

#[test]
fn manual_pages() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["man", "pages"]), @"
    exit 0
    --- stdout
    28 pages written to pages
    ");
    assert_eq!(world.files("pages").len(), COMMANDS.len() + 1);
    let page = world.read("pages/evenkeel.1");
    assert!(page.contains(".SH EXIT-CODES") && page.contains("/etc/machine\\-id"), "{page}");
    assert!(world.read("pages/evenkeel-commit.1").contains("Examples:"));
}
