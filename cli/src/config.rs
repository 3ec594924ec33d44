// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `evenkeel.toml` and the places where things are by default. The only module that reads the environment.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use evenkeel_store::checkout::{AskedBy, ConflictPolicy, ConflictRule, RecordLimits, UndoLimits};
use evenkeel_store::path::escape;
use evenkeel_store::{Error as StoreError, area, fsio};
use serde::Deserialize;
use toml::Spanned;

use crate::commands::values::parse_rate;
use crate::error::{CommandError, Kind, Result};
use crate::output::text;
use crate::remote;

/// Configuration for the whole machine.
const SYSTEM_CONFIG: &str = "/etc/evenkeel/evenkeel.toml";
/// State directory of the superuser.
const SYSTEM_STATE: &str = "/var/lib/evenkeel";

/// Largest configuration file, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What the configuration file says. Unknown keys are errors.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The store, where `--store` does not say.
    pub store: Option<PathBuf>,
    /// The state directory, where `--state` does not say.
    pub state: Option<PathBuf>,
    /// Author of commits, where `--author` does not say.
    pub author: Option<String>,
    /// How long a package manager that is at work is waited for, in seconds.
    pub wait_packages: Option<u32>,
    /// Areas by name.
    #[serde(default, rename = "area")]
    pub areas: BTreeMap<String, AreaConfig>,
    /// What to do with host identity and secrets.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// How long what checkouts replaced and removed is kept.
    #[serde(default)]
    pub undo: UndoConfig,
    /// How many records of what was done are kept.
    #[serde(default)]
    pub records: RecordsConfig,
    /// How a store on a web server is reached.
    #[serde(default)]
    pub http: HttpConfig,
    /// How a store in a bucket is reached.
    #[serde(default)]
    pub s3: S3Config,
    /// Where this was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// One area.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AreaConfig {
    /// Where it is on this machine.
    pub root: PathBuf,
    /// Patterns of what belongs to it; empty = everything.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of what does not.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Name patterns of the extended attributes that are recorded.
    #[serde(default = "default_xattrs")]
    pub xattrs: Vec<String>,
    /// Whether device nodes belong to it.
    #[serde(default)]
    pub devices: bool,
    /// Whether files in it may have set-id bits or capabilities.
    #[serde(default = "yes")]
    pub set_id: bool,
    /// What an incremental checkout does where both sides changed a file.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// What it does there for some paths; of several that fit, the last decides.
    #[serde(default)]
    pub conflict: Vec<ConflictConfig>,
    /// Whether owners are restored by number even where the master had a name.
    #[serde(default)]
    pub numeric_owners: bool,
}

/// What an incremental checkout does with some paths where both sides changed them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConflictConfig {
    /// Patterns.
    pub paths: Vec<String>,
    /// What it does with what they fit.
    pub policy: OnConflict,
}

/// What an incremental checkout does with a file that changed here and in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// The snapshot's file wins.
    #[default]
    Replace,
    /// The file with the newer time wins.
    Newer,
    /// The local file wins.
    Keep,
    /// The snapshot's file wins, the local one stays beside it.
    Both,
}

impl ConflictConfig {
    /// As the library wants it.
    pub fn rule(&self) -> ConflictRule {
        ConflictRule { patterns: self.paths.clone(), policy: self.policy.into() }
    }
}

impl From<OnConflict> for ConflictPolicy {
    fn from(policy: OnConflict) -> Self {
        match policy {
            OnConflict::Replace => ConflictPolicy::Replace,
            OnConflict::Newer => ConflictPolicy::Newer,
            OnConflict::Keep => ConflictPolicy::Keep,
            OnConflict::Both => ConflictPolicy::Both,
        }
    }
}

/// Host identity and secrets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IdentityConfig {
    /// Exact absolute paths that belong to their areas although the shipped list names them.
    #[serde(default)]
    pub include_paths: Vec<String>,
}

/// What can be taken back.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UndoConfig {
    /// At most so many checkouts; the last one is always kept.
    pub keep: Option<usize>,
    /// None older than so many days.
    pub days: Option<u32>,
    /// No more than this in each area, in MiB.
    pub mebibytes: Option<u32>,
}

/// Records of what was done.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecordsConfig {
    /// At most so many in each area; those of what can be taken back are always kept.
    pub keep: Option<usize>,
    /// No more than this in each area, in MiB.
    pub mebibytes: Option<u32>,
}

impl RecordsConfig {
    /// As the library wants it.
    pub fn limits(self) -> RecordLimits {
        let default = RecordLimits::default();
        RecordLimits {
            records: self.keep.unwrap_or(default.records),
            bytes: self.mebibytes.map_or(default.bytes, |mebibytes| u64::from(mebibytes) << 20),
        }
    }
}

impl UndoConfig {
    /// As the library wants it.
    pub fn limits(self) -> UndoLimits {
        const DAY: i64 = 24 * 3600;
        let default = UndoLimits::default();
        UndoLimits {
            records: self.keep.unwrap_or(default.records),
            seconds: self.days.map_or(default.seconds, |days| i64::from(days) * DAY),
            bytes: self.mebibytes.map_or(default.bytes, |mebibytes| u64::from(mebibytes) << 20),
        }
    }
}

fn yes() -> bool {
    true
}

/// How a store on a web server is reached.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpConfig {
    /// Addresses that have the same store, nearest first. They are asked before the store's own.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Certificates of the authorities to trust, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A file with the token that the store's own server asks for.
    pub token_file: Option<PathBuf>,
    /// This machine's certificate, PEM, for servers that ask for one.
    pub client_cert: Option<PathBuf>,
    /// The private key of that certificate, PEM.
    pub client_key: Option<PathBuf>,
    /// The proxy, instead of the environment's; empty for none.
    pub proxy: Option<String>,
    /// Hosts that are asked without the proxy, separated by commas.
    pub no_proxy: Option<String>,
    /// Hosts to which servers may send requests on.
    #[serde(default)]
    pub redirects: Vec<String>,
    /// Most bytes of content a second, all connections together.
    #[serde(default, deserialize_with = "rate")]
    pub limit_rate: Option<u64>,
}

/// As on the command line, in quotes.
fn rate<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_rate(&text).map(Some).map_err(serde::de::Error::custom)
}

/// How a store in a bucket is reached.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct S3Config {
    /// Addresses of the service. The first that answers is used.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// The region that the service calls itself.
    pub region: Option<String>,
    /// A file with the access key: its id in the first line, its secret in the second.
    pub key_file: Option<PathBuf>,
    /// Whether the bucket's name stands before the host's.
    #[serde(default)]
    pub virtual_host: bool,
}

fn default_xattrs() -> Vec<String> {
    evenkeel_store::area::DEFAULT_XATTRS.map(str::to_owned).to_vec()
}

impl AreaConfig {
    /// An area that only the command line names.
    pub fn at(root: PathBuf) -> Self {
        AreaConfig {
            root,
            include: Vec::new(),
            exclude: Vec::new(),
            xattrs: default_xattrs(),
            devices: false,
            set_id: true,
            on_conflict: OnConflict::Replace,
            conflict: Vec::new(),
            numeric_owners: false,
        }
    }
}

impl Config {
    /// Reads `named`, or else the first file of the search order that exists and may be looked at, or else gives an
    /// empty configuration.
    ///
    /// # Errors
    /// [`Kind::Usage`], naming file and line.
    pub fn load(named: Option<&Path>) -> Result<Config> {
        if let Some(path) = named {
            return Self::read(path);
        }
        for path in search_order() {
            match fsio::exists(&path) {
                Ok(true) => return Self::read(&path),
                Ok(false) => {}
                // Somebody else's home: whatever is in it is not for us.
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Config::default())
    }

    fn read(path: &Path) -> Result<Config> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| {
            CommandError::caused_by(Kind::Usage, format!("cannot use the configuration {}", text::path(path)), source)
                .hint("`evenkeel help config` shows where a configuration is looked for, and every key")
        };
        let bytes = fsio::read_capped(path, CONFIG_BYTES_MAX).map_err(|e| unusable(e.into()))?;
        let source = String::from_utf8(bytes).map_err(|e| unusable(e.into()))?;
        Self::parse(&source, path)
    }

    /// Reads the text of a configuration; relative paths in it begin at its directory.
    fn parse(source: &str, path: &Path) -> Result<Config> {
        let at = |line: usize, message: &str| {
            CommandError::usage(format!("{}:{line}: {message}", text::path(path)))
                .hint("`evenkeel help config` shows every key")
        };
        let mut config: Config = toml::from_str(source).map_err(|e| {
            let line = e.span().map_or(1, |span| line_of(source, span.start));
            at(line, e.message().lines().next().unwrap_or("not valid TOML"))
        })?;
        let base = std::path::absolute(path).ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
        let http = &mut config.http;
        let secrets = [&mut http.token_file, &mut http.client_cert, &mut http.client_key, &mut config.s3.key_file];
        let paths = [&mut config.store, &mut config.state, &mut http.ca_file];
        for path in paths.into_iter().chain(secrets).flatten() {
            if !remote::is_address(path) {
                *path = base.join(&*path);
            }
        }
        for area in config.areas.values_mut() {
            area.root = base.join(&area.root);
        }
        if let Some(path) = config.identity.include_paths.iter().find(|path| !path.starts_with('/')) {
            let line = source.find(path.as_str()).map_or(1, |start| line_of(source, start));
            return Err(at(line, &format!("`{path}` in include-paths is not an absolute path")));
        }
        if let Some((line, message)) = config.first_bad_area(source) {
            return Err(at(line, &message));
        }
        config.file = Some(path.to_path_buf());
        Ok(config)
    }

    /// The first area, in order of lines, that cannot be one: its line, and why. Roots are absolute already.
    fn first_bad_area(&self, source: &str) -> Option<(usize, String)> {
        let places: Places = toml::from_str(source).ok()?;
        let mut places: Vec<(Spanned<String>, AreaPlace)> = places.area.into_iter().collect();
        places.sort_by_key(|(name, _)| name.span().start);
        let mut above: Vec<(&str, PathBuf)> = Vec::new();
        for (name, place) in &places {
            if let Err(e) = area::check_name(name.as_ref()) {
                let message = format!("{e}: 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit");
                return Some((line_of(source, name.span().start), message));
            }
            let (name, config) = self.areas.get_key_value(name.as_ref())?;
            // What does not exist yet is compared as it is written.
            let root = fsio::canonicalize(&config.root).unwrap_or_else(|_| config.root.clone());
            if let Some((other, _)) = above.iter().find(|(_, o)| o.starts_with(&root) || root.starts_with(o)) {
                let message = format!("areas `{other}` and `{name}` are nested: an area lies in no other");
                return Some((line_of(source, place.root.span().start), message));
            }
            above.push((name, root));
        }
        None
    }
}

/// Where the areas of a configuration stand in its text.
#[derive(Deserialize)]
struct Places {
    #[serde(default)]
    area: BTreeMap<Spanned<String>, AreaPlace>,
}

#[derive(Deserialize)]
struct AreaPlace {
    root: Spanned<PathBuf>,
}

fn line_of(source: &str, offset: usize) -> usize {
    1 + source.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

/// Who runs this program, and how it was called.
pub fn asked_by() -> AskedBy {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let uid = rustix::process::geteuid().as_raw();
    let args: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    AskedBy {
        uid,
        user: fsio::owner_name(uid).ok().flatten().map(|name| escape(&name)),
        sudo_user: std::env::var_os("SUDO_USER").map(|name| escape(name.as_bytes())),
        command: escape(&args.join(&b' ')),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Where a configuration is looked for.
fn search_order() -> Vec<PathBuf> {
    let user = base_dir("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("evenkeel/evenkeel.toml"));
    [Some(PathBuf::from(SYSTEM_CONFIG)), user].into_iter().flatten().collect()
}

/// The state directory where `--state` does not say.
///
/// # Errors
/// [`Kind::Usage`] when there is no home directory either.
pub fn default_state_dir() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(SYSTEM_STATE.into());
    }
    base_dir("XDG_STATE_HOME", ".local/state").map(|dir| dir.join("evenkeel")).ok_or_else(|| {
        CommandError::usage("there is no place for the state directory: HOME is not set")
            .hint("name one with --state DIR")
    })
}

/// The proxy that the environment names for `https` or `http`, and the hosts that need none. Names in capital letters count
/// too, except `HTTP_PROXY`, which a request could set where a program runs as a CGI script.
pub fn proxy_of_environment(is_secure: bool) -> (Option<String>, Option<String>) {
    let first =
        |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let proxy = if is_secure {
        first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
    } else {
        first(&["http_proxy", "all_proxy", "ALL_PROXY"])
    };
    (proxy, first(&["no_proxy", "NO_PROXY"]))
}

/// What the environment says of an object store, under the names that its other clients look for.
pub fn s3_of_environment() -> S3Environment {
    let first =
        |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    S3Environment {
        endpoint: first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
        key: first(&["AWS_ACCESS_KEY_ID"]).zip(first(&["AWS_SECRET_ACCESS_KEY"])),
    }
}

/// What the environment says of an object store.
pub struct S3Environment {
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// The access key's id and its secret.
    pub key: Option<(String, String)>,
}

/// A base directory of the XDG specification: absolute, or not at all.
fn base_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

/// `user@host`, the author of commits where nothing else says.
pub fn default_author() -> String {
    let uid = rustix::process::getuid().as_raw();
    let user = fsio::owner_name(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |name| String::from_utf8_lossy(&name).into_owned());
    format!("{user}@{}", fsio::hostname())
}

/// For tests only: a fixed time for new snapshots, from `EVENKEEL_TEST_CLOCK` (RFC 3339).
pub fn test_clock() -> Option<jiff::Timestamp> {
    std::env::var("EVENKEEL_TEST_CLOCK").ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Config, String> {
        Config::parse(source, Path::new("/c/evenkeel.toml")).map_err(|e| e.source.to_string())
    }

    #[test]
    fn every_key() {
        let config = parse(
            "store = \"s\"\nstate = \"/t\"\nauthor = \"me\"\n[area.etc]\nroot = \"/etc\"\ninclude = [\"a\"]\nexclude = [\"b\"]\n\
             xattrs = []\ndevices = true\nset-id = false\non-conflict = \"newer\"\nnumeric-owners = true\n\
             [[area.etc.conflict]]\npaths = [\"/ssl/\"]\npolicy = \"keep\"\n\
             [identity]\ninclude-paths = [\"/etc/hosts\"]\n",
        )
        .unwrap();
        assert_eq!(config.store.unwrap(), Path::new("/c/s"));
        let etc = &config.areas["etc"];
        assert_eq!((etc.root.as_path(), etc.on_conflict), (Path::new("/etc"), OnConflict::Newer));
        assert_eq!(
            (&etc.conflict[0].paths[..], etc.conflict[0].policy),
            (&["/ssl/".to_string()][..], OnConflict::Keep)
        );
        assert!(!etc.set_id && parse("[area.a]\nroot = \"/\"").unwrap().areas["a"].set_id);
        assert!(etc.devices && etc.numeric_owners && etc.xattrs.is_empty());
    }

    #[test]
    fn mistakes_name_their_line() {
        for (source, expected) in [
            ("stroe = 1", "/c/evenkeel.toml:1: unknown field `stroe`"),
            ("\n[area.a]\nroot = \"/\"\nmode = 1", "/c/evenkeel.toml:4: unknown field `mode`"),
            ("[area.a]\nexclude = []", "/c/evenkeel.toml:1: missing field `root`"),
            ("\nstore = ", "/c/evenkeel.toml:2:"),
            (
                "\n\n[identity]\ninclude-paths = [\"etc/hosts\"]",
                "/c/evenkeel.toml:4: `etc/hosts` in include-paths is not an absolute path",
            ),
            ("[area.ok]\nroot = \"/x\"\n[area.WEB]\nroot = \"/y\"", "/c/evenkeel.toml:3: "),
            (
                "[area.z]\nroot = \"/nowhere\"\n[area.a]\nroot = \"/nowhere/in/it\"",
                "/c/evenkeel.toml:4: areas `z` and `a` are nested: an area lies in no other",
            ),
            ("[area.z]\nroot = \"/c/x/y\"\n[area.a]\nroot = \"x\"", "/c/evenkeel.toml:4: areas `z` and `a` are nested"),
            ("[area.a]\nroot = \"/usr\"\n[area.b]\nroot = \"/tmp/../usr\"", "/c/evenkeel.toml:4: areas `a` and `b`"),
        ] {
            let message = parse(source).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
