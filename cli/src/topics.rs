// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Help topics that are not commands: `evenkeel help TOPIC`.

use std::fmt::Write as _;

use crate::{exit, identity};

/// Names of the topics.
pub const TOPICS: &[&str] = &["exit-codes", "snapshots", "areas", "config"];

const SNAPSHOTS: &str = "\
How to name a snapshot (SNAP)

  5e1c09ab…      its full id of 64 hex digits
  5e1c09ab       a prefix of at least 8 digits that fits only one snapshot
  @latest        the newest snapshot of the store
  SNAP~N         N parents back; `@latest~1` (or `@latest~`) is the one before the newest

An id is the BLAKE3 hash of the snapshot's document, and the document names everything in the snapshot by hash: two
stores that show the same id hold the same tree.

How to name a path in a snapshot

  AREA:PATH      a path in that area, from the area's root: etc:ssh/sshd_config
  PATH           the same without the area, where only one area has it
  /PATH          a path as it was on the master: /etc/ssh/sshd_config
";

const AREAS: &str = "\
An area is a directory tree that the servers of a fleet share: a name, a root, and rules.

  --area NAME=PATH     (repeatable) the areas of this command; without it those of evenkeel.toml are used
  [area.NAME]          an area in evenkeel.toml, with include and exclude patterns in .gitignore syntax

The root is this machine's business: a snapshot records where an area was on the master, for information, but a checkout
goes only where --area or the configuration says. Areas never nest, and no area crosses into another file system.

What the rules exclude is outside the area: it is not committed, and no checkout replaces, removes or reports it. A
directory that holds something excluded is not removed. Always outside are whatever is named `.evenkeel`, at any depth
(this program's own directory in an area), `lost+found` in the area's root, the store, the state directory, the configuration and the program itself.

Host identity and secrets are left out of every commit, which names them. An area whose root is a root file system (`/`,
`./rootfs`) is matched from its root, an area at /etc or below by what follows. `[identity] include-paths` in the
configuration takes exact paths in, `commit --allow-identity` all of them. The list:

";

const CONFIG: &str = "\
The configuration is TOML. It is --config FILE, or the first of /etc/evenkeel/evenkeel.toml and
$XDG_CONFIG_HOME/evenkeel/evenkeel.toml that exists. Relative paths begin at its directory. Unknown keys, wrong names of
areas and nested roots are errors.

  store = \"/srv/evenkeel/store\"      # where --store and EVENKEEL_STORE do not say
  state = \"/var/lib/evenkeel\"        # this machine's own memory, where --state does not say
  author = \"release@example.org\"     # of commits, where --author does not say [default: user@host]

  wait-packages = 60                 # seconds that dpkg or rpm are waited for when they are at work in an area

  [area.etc]
  root = \"/etc\"                      # required
  include = []                       # patterns of what belongs to the area; empty = everything
  exclude = [\"*.dpkg-old\", \"/mtab\"]  # patterns of what does not, in .gitignore syntax; later ones win
  xattrs = [\"user.*\", \"security.capability\"]  # names of extended attributes to record (the default)
  devices = false                    # whether device nodes belong to it
  set-id = true                      # whether files may have set-id bits or capabilities, here and in what is checked out
  on-conflict = \"replace\"            # incremental checkout, changed on both sides: replace, newer, keep or both
  numeric-owners = false             # restore owners by number even where the master had a name

  [[area.etc.conflict]]              # another on-conflict for some paths; of several that fit, the last decides
  paths = [\"/ssl/\", \"*.local\"]
  policy = \"keep\"

  [identity]
  include-paths = [\"/etc/hosts\"]     # exact paths that belong to their areas although the shipped list names them

  [undo]
  keep = 3                             # so many checkouts can be taken back at most; the last one always can
  days = 30                            # none older
  mebibytes = 10240                    # and no more than this is kept for it in each area

  [records]
  keep = 1000                          # so many records of what was done are kept in each area
  mebibytes = 1024                     # and no more than this

  [http]                               # for a store on a web server: store = \"https://…\"
  mirrors = [\"http://near.example.org/store\"]  # the same store elsewhere, nearest first; asked before it
  ca-file = \"/etc/ssl/company.pem\"   # authorities to trust, instead of the system's
  proxy = \"http://proxy.example.org:3128\"      # instead of https_proxy and http_proxy; \"\" for none
  token-file = \"/etc/evenkeel/token\"             # for the store's own server and no other
  client-cert = \"/etc/evenkeel/client.pem\"      # for servers that ask for one
  client-key = \"/etc/evenkeel/client.key\"
  no-proxy = \"localhost, *.example.org\"        # hosts that are asked without it
  redirects = [\"cdn.example.org\"]              # hosts that servers may send requests on to
  limit-rate = \"2M\"                  # most bytes a second from servers

  [s3]                                 # for a store in a bucket: store = \"s3://BUCKET/PREFIX\"
  endpoints = [\"https://s3.example.org\"]        # the service; the first that answers is used
  region = \"garage\"                  # as the service calls itself
  key-file = \"/etc/evenkeel/s3.key\"  # two lines, the key's id and its secret; or AWS_ACCESS_KEY_ID and the like
  virtual-host = false                 # whether the bucket's name stands before the host's
";

/// The text of a topic.
pub fn text(topic: &str) -> Option<String> {
    Some(match topic {
        "exit-codes" => exit_codes(),
        "snapshots" => SNAPSHOTS.to_owned(),
        "areas" => {
            let mut text = AREAS.to_owned();
            for pattern in identity::HOST_IDENTITY {
                let _ = writeln!(text, "  {pattern}");
            }
            text
        }
        "config" => CONFIG.to_owned(),
        _ => return None,
    })
}

fn exit_codes() -> String {
    let mut text = String::from("Exit codes (part of the interface; codes that are not listed mean failure)\n\n");
    for (code, meaning) in exit::TABLE {
        let _ = writeln!(text, "  {code:>3}  {meaning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_text() {
        for topic in TOPICS {
            assert!(text(topic).is_some(), "{topic}");
        }
        assert!(text("nothing").is_none());
    }

    #[test]
    fn the_example_configuration_is_valid() {
        let example: String =
            CONFIG.lines().filter_map(|line| line.strip_prefix("  ")).map(|line| format!("{line}\n")).collect();
        toml::from_str::<crate::config::Config>(&example).unwrap();
    }
}
