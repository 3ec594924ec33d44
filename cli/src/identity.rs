// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What makes a machine itself, and what it keeps secret: the shipped list, and how it applies to an area.
//!
//! The list is written for a root file system. An area need not begin there: for an area at `/etc` the patterns below
//! `/etc` apply by what follows it, and an area at `./rootfs` is taken for a root file system. So a pattern applies to
//! an area in every way in which the end of the area's root is a beginning of the pattern.

use std::path::Path;

/// Host identity and secrets, as patterns in a root file system. `*` stands for any part of one name.
///
/// They are left out of a commit and so left alone by every checkout of it.
pub const HOST_IDENTITY: &[&str] = &[
    // Who this machine is.
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/hostname",
    "/etc/hostid",
    "/etc/mailname",
    "/etc/hosts",
    "/etc/iscsi/initiatorname.iscsi",
    // Its disks.
    "/etc/fstab",
    "/etc/crypttab",
    // Its network.
    "/etc/resolv.conf",
    "/etc/network/interfaces",
    "/etc/network/interfaces.d/*",
    "/etc/netplan/*",
    "/etc/systemd/network/*",
    "/etc/NetworkManager/system-connections/*",
    "/etc/sysconfig/network",
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/sysconfig/network-scripts/route-*",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/etc/wpa_supplicant/*.conf",
    "/etc/wireguard/*",
    "/var/lib/NetworkManager/secret_key",
    // Its keys.
    "/etc/ssh/ssh_host_*",
    "/etc/dropbear/dropbear_*_host_key",
    "/etc/ssl/private/*",
    "/etc/pki/tls/private/*",
    "/etc/letsencrypt/accounts/*",
    "/etc/letsencrypt/archive/*",
    "/etc/letsencrypt/keys/*",
    "/etc/letsencrypt/live/*",
    "/etc/ipsec.d/private/*",
    "/etc/ipsec.secrets",
    "/etc/krb5.keytab",
    "/root/.ssh/id_*",
    "/home/*/.ssh/id_*",
    "/root/.gnupg/private-keys-v1.d/*",
    "/home/*/.gnupg/private-keys-v1.d/*",
    "/var/lib/systemd/credential.secret",
    // Its passwords.
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    // Its clock and its chance.
    "/etc/adjtime",
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
];

/// The identity patterns of an area at `root`, in gitignore syntax, anchored at the area's root.
///
/// `include` holds absolute paths that belong to the area although the list names them; they come last, negated.
pub fn patterns(root: &Path, include: &[String]) -> Vec<String> {
    let root = components(root);
    let mut patterns = Vec::new();
    for listed in HOST_IDENTITY {
        patterns.extend(tails(&root, listed));
    }
    for path in include {
        patterns.extend(tails(&root, &escape_pattern(path)).into_iter().map(|tail| format!("!{tail}")));
    }
    patterns
}

/// The identity patterns of *this* machine inside a directory of it: what a checkout leaves alone whatever the snapshot
/// holds. Unlike [`patterns`] it does not take a directory for a root file system: an image that is made at `./rootfs` is
/// another machine's.
pub fn of_this_machine(root: &Path, include: &[String]) -> Vec<String> {
    let root = components(root);
    let tail = |pattern: &str| tail_below(&root, pattern, root.len());
    let listed = HOST_IDENTITY.iter().filter_map(|listed| tail(listed));
    let named = include.iter().filter_map(|path| tail(&escape_pattern(path)).map(|tail| format!("!{tail}")));
    listed.chain(named).collect()
}

fn components(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

/// What remains of `pattern` below each of its beginnings that `root` ends with.
fn tails(root: &[String], pattern: &str) -> Vec<String> {
    (0..=root.len()).filter_map(|taken| tail_below(root, pattern, taken)).collect()
}

/// What remains of `pattern` below its first `taken` parts, if the last `taken` components of `root` fit them.
fn tail_below(root: &[String], pattern: &str, taken: usize) -> Option<String> {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let end = &root[root.len() - taken..];
    if taken > parts.len() || !end.iter().zip(&parts).all(|(name, part)| matches(part, name)) {
        return None;
    }
    match &parts[taken..] {
        [] => (parts.last() == Some(&"*")).then(|| "/*".to_owned()),
        rest => Some(format!("/{}", rest.join("/"))),
    }
}

/// Whether `name` fits `pattern`, where `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    if after.is_empty() {
        return true;
    }
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| matches(after, &rest[at..]))
}

/// A path as a pattern that matches only itself.
fn escape_pattern(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(root: &str, pattern: &str) -> bool {
        patterns(Path::new(root), &[]).iter().any(|p| p == pattern)
    }

    #[test]
    fn the_list_applies_by_where_the_area_begins() {
        for root in ["/", "/srv/rootfs", "/etc"] {
            assert!(has(root, "/etc/machine-id"), "{root}");
        }
        assert!(has("/etc", "/machine-id"));
        assert!(has("/srv/rootfs/etc/ssh", "/ssh_host_*"));
        assert!(has("/home/joe/.ssh", "/id_*"));
        assert!(has("/etc/wireguard", "/*"));
        assert!(!has("/usr", "/machine-id"));
        assert!(!has("/etc/ssh", "/machine-id"));
        assert!(!has("/etc/hosts", "/*"));
    }

    #[test]
    fn a_checkout_knows_whose_identity_it_meets() {
        let here = |root: &str| of_this_machine(Path::new(root), &["/etc/hosts".to_owned()]);
        assert!(here("/").contains(&"/etc/machine-id".to_owned()));
        assert!(here("/etc").contains(&"/machine-id".to_owned()));
        assert_eq!(here("/etc").last().unwrap(), "!/hosts");
        assert_eq!(here("/srv/rootfs"), [""; 0]);
        assert_eq!(here("/srv/rootfs/etc"), [""; 0]);
    }

    #[test]
    fn named_paths_come_back() {
        let include = ["/etc/hosts".to_owned(), "/etc/a*b".to_owned()];
        let root = patterns(Path::new("/"), &include);
        assert_eq!(root[root.len() - 2..], ["!/etc/hosts", "!/etc/a\\*b"]);
        let etc = patterns(Path::new("/etc"), &include[..1]);
        assert_eq!(etc[etc.len() - 2..], ["!/etc/hosts", "!/hosts"]);
    }

    #[test]
    fn stars() {
        for (pattern, name, expected) in
            [("*", "x", true), ("a*", "ab", true), ("a*c", "abbc", true), ("a*c", "ab", false), ("ab", "ab", true)]
        {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
