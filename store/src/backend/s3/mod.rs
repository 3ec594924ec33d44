// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store in a bucket of an S3-compatible object store (docs/design/object-stores.md).
//!
//! It is read as a store on a web server is, with signed requests. A write is one `PUT` with a checksum that the service
//! compares, and its success the only thing that is believed: nothing rests on conditional writes, which some services
//! ignore without an error. One process at a time writes, and it holds the writer's lock of its state directory.

mod options;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rusty_s3::actions::{ListObjectsV2, ListObjectsV2Response};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use sha2::{Digest, Sha256};

pub use options::{S3Key, S3Options};

use self::upload::{Content, Uploads};
use super::http::{Addressing, Asked, Cost, Link, Method, Traffic};
use super::{Backend, Check, HttpBackend, Listing, Loaded, Object, ObjectName, Writing};
use crate::error::{Error, Result, TransferError};
use crate::fsio::{self, TempFile};
use crate::id::{PackId, SegmentId, SnapshotId};

/// How long a signed request may be made.
const SIGNED_FOR: Duration = Duration::from_secs(60 * 60);
/// Longest page of a listing: 1,000 names of at most 1,024 bytes each, and what is written around them.
const LISTING_BYTES_MAX: u64 = 8 << 20;
/// Header of a checksum that the service compares with what it received.
const CHECKSUM: &str = "x-amz-checksum-sha256";

/// Objects in a bucket, all with the same beginning of their keys.
#[derive(Debug, Clone)]
pub struct S3Backend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// What is asked, and how it is read.
    http: HttpBackend,
    keys: Keys,
    spool: PathBuf,
    uploads: Uploads,
}

/// Makes signed addresses.
#[derive(Debug, Clone)]
struct Keys {
    /// One for each endpoint.
    buckets: Vec<Bucket>,
    credentials: Option<Credentials>,
    /// Empty, or with a slash at its end.
    prefix: String,
}

impl Keys {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Addressing for Keys {
    fn url(&self, server: usize, name: &str, method: Method) -> String {
        let (bucket, credentials, key) = (&self.buckets[server], self.credentials.as_ref(), self.key(name));
        let url = match method {
            Method::Get => bucket.get_object(credentials, &key).sign(SIGNED_FOR),
            Method::Head => bucket.head_object(credentials, &key).sign(SIGNED_FOR),
        };
        url.into()
    }
}

impl S3Backend {
    /// Prepares to use the store at `s3://BUCKET[/PREFIX]`. Makes no request.
    ///
    /// # Errors
    /// [`Error::Refused`] for an address or an endpoint that is none.
    pub fn new(address: &str, options: S3Options) -> Result<S3Backend> {
        let rest = address.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || prefix.contains(['?', '#']) {
            return Err(refused(address, "a store in a bucket is named as s3://BUCKET or s3://BUCKET/PREFIX"));
        }
        if options.endpoints.is_empty() {
            return Err(refused(address, "name the service with `endpoints` under [s3] in the configuration"));
        }
        let style = if options.is_virtual_host { UrlStyle::VirtualHost } else { UrlStyle::Path };
        let buckets = options.endpoints.iter().map(|endpoint| {
            let url =
                endpoint.parse().map_err(|_| refused(endpoint, "an endpoint is http://HOST[:PORT] or https://…"))?;
            let made = Bucket::new(url, style, bucket.to_string(), options.region.clone());
            made.map_err(|_| refused(endpoint, "an endpoint is http://HOST[:PORT] or https://…"))
        });
        let buckets = buckets.collect::<Result<Vec<_>>>()?;
        let names = buckets.iter().map(|bucket| format!("{}{prefix}", bucket.base_url())).collect();
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let credentials = options.key.map(|key| Credentials::new(key.id, key.secret));
        let keys = Keys { buckets, credentials, prefix };
        let path = PathBuf::from(address.trim_end_matches('/'));
        let http = HttpBackend::addressed(path.clone(), names, Box::new(keys.clone()), options.http)?;
        Ok(S3Backend(Arc::new(Inner { path, http, keys, spool: options.spool, uploads: Uploads::default() })))
    }

    /// What was asked for so far.
    pub fn traffic(&self) -> Traffic {
        self.0.http.traffic()
    }

    /// Refuses to make a store where something else is. What a writer left that died while it made one is no obstacle.
    ///
    /// # Errors
    /// [`Error::NotEmpty`]; [`Error::Send`].
    pub(crate) fn require_empty(&self) -> Result<()> {
        let own = [ObjectName::SegmentsCurrent, ObjectName::SnapshotIndex].map(|name| name.to_string());
        let names = self.0.list("")?;
        if names.iter().all(|name| own.contains(name)) {
            return Ok(());
        }
        Err(Error::NotEmpty { path: self.0.path.clone() })
    }
}

fn refused(address: &str, why: &str) -> Error {
    Error::Refused {
        reason: format!("{} cannot be a store in a bucket", crate::path::escape(address.as_bytes())),
        hint: Some(why.into()),
    }
}

impl Inner {
    fn put(&self, name: &ObjectName, content: &Content) -> Result<()> {
        let object = name.to_string();
        let checksum = BASE64_STANDARD.encode(content.sha256()?);
        let key = self.keys.key(&object);
        self.http.attempt("write", &object, |client, at| {
            let mut action = self.keys.buckets[at].put_object(self.keys.credentials.as_ref(), &key);
            action.headers_mut().insert(CHECKSUM, checksum.as_str());
            let url = action.sign(SIGNED_FOR);
            let mut reader = content.reader();
            client.put(url.as_str(), &[(CHECKSUM, &checksum)], (&mut reader, content.len()), &mut Cost::default())
        })
    }

    /// Names of the objects that begin with `prefix`.
    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let (mut names, mut token) = (Vec::new(), None::<String>);
        loop {
            let key = self.keys.key(prefix);
            let page =
                self.http.attempt("list", if prefix.is_empty() { "objects" } else { prefix }, |client, at| {
                    let mut action = ListObjectsV2::new(&self.keys.buckets[at], self.keys.credentials.as_ref());
                    action.with_prefix(key.as_str());
                    if let Some(token) = &token {
                        action.with_continuation_token(token.as_str());
                    }
                    let url = action.sign(SIGNED_FOR);
                    let (mut text, mut cost) = (Vec::new(), Cost::default());
                    let asked = Asked::Whole { cap: LISTING_BYTES_MAX };
                    client.get(url.as_str(), (asked, true), &mut text, &mut |_| {}, &mut cost)?;
                    let other = || TransferError::Protocol("its listing is not as listings are".into());
                    let text = std::str::from_utf8(&text).map_err(|_| other())?;
                    ListObjectsV2::parse_response(text).map_err(|_| other())
                })?;
            let ListObjectsV2Response { contents, next_continuation_token, .. } = page;
            let below = contents
                .into_iter()
                .filter_map(|object| object.key.strip_prefix(self.keys.prefix.as_str()).map(str::to_string));
            names.extend(below);
            match next_continuation_token {
                Some(next) => token = Some(next),
                None => return Ok(names),
            }
        }
    }

    /// The ids of the objects between a prefix and a suffix, sorted.
    fn list_ids<T: std::str::FromStr + Ord>(&self, prefix: &str, suffix: &str) -> Result<Vec<T>> {
        let names = self.list(prefix)?;
        let id = |name: &String| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok();
        let mut ids: Vec<T> = names.iter().filter_map(id).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

impl Backend for S3Backend {
    fn path(&self) -> &Path {
        &self.0.path
    }

    fn dir(&self) -> Option<&Path> {
        None
    }

    fn read_checked(&self, name: &ObjectName, cap: u64, check: Check<'_>) -> Result<Option<Vec<u8>>> {
        self.0.http.read_checked(name, cap, check)
    }

    fn open(&self, name: &ObjectName) -> Result<Option<Arc<dyn Object>>> {
        self.0.http.open(name)
    }

    fn load(&self, name: &ObjectName, hash: &[u8; 32], cap: u64) -> Result<Option<Loaded>> {
        self.0.http.load(name, hash, cap)
    }

    fn len(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.0.http.len(name)
    }

    fn listing(&self) -> Option<&dyn Listing> {
        Some(self)
    }

    fn writing(&self) -> Option<&dyn Writing> {
        Some(self)
    }

    fn link(&self) -> Option<Link> {
        self.0.http.link()
    }

    fn notes(&self) -> Vec<String> {
        self.0.http.notes()
    }
}

impl Writing for S3Backend {
    fn publish(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        self.0.put(name, &Content::Bytes(bytes))
    }

    fn create_temp(&self) -> Result<TempFile> {
        fsio::create_dir_all(&self.0.spool)?;
        TempFile::create(&self.0.spool)
    }

    fn publish_temp(&self, file: TempFile, name: &ObjectName) -> Result<()> {
        let (inner, name) = (Arc::clone(&self.0), *name);
        self.0.uploads.begin(move || inner.put(&name, &Content::of_file(&file)?))
    }

    fn sync_names(&self) -> Result<()> {
        self.0.uploads.finish()
    }

    /// What a service has taken it has.
    fn sync_packs(&self) -> Result<()> {
        Ok(())
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        let object = name.to_string();
        let key = self.0.keys.key(&object);
        self.0.http.attempt("remove", &object, |client, at| {
            let action = self.0.keys.buckets[at].delete_object(self.0.keys.credentials.as_ref(), &key);
            client.delete(action.sign(SIGNED_FOR).as_str())
        })
    }

    fn sweep_temporaries(&self) -> Result<u64> {
        fsio::create_dir_all(&self.0.spool)?;
        fsio::sweep_temporaries(&self.0.spool)
    }
}

impl Listing for S3Backend {
    fn list_packs(&self) -> Result<Vec<PackId>> {
        let names = self.0.list("packs/")?;
        let id = |name: &String| {
            let (_, file) = name.strip_prefix("packs/")?.split_once('/')?;
            let id: PackId = file.strip_suffix(".pack")?.parse().ok()?;
            // Only under its own name will it be found.
            (ObjectName::Pack(id).to_string() == *name).then_some(id)
        };
        let mut ids: Vec<PackId> = names.iter().filter_map(id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn list_packs_past(&self, troubles: &mut Vec<Error>) -> Vec<PackId> {
        self.list_packs().unwrap_or_else(|trouble| {
            troubles.push(trouble);
            Vec::new()
        })
    }

    fn list_segments(&self) -> Result<Vec<SegmentId>> {
        self.0.list_ids("segments/", ".seg")
    }

    fn list_snapshots(&self) -> Result<Vec<SnapshotId>> {
        self.0.list_ids("snapshots/", "")
    }

    fn list_locators(&self) -> Result<Vec<SnapshotId>> {
        self.0.list_ids("locators/", "")
    }
}

/// SHA-256 of pieces of content, as the service computes it.
fn sha256(pieces: impl Iterator<Item = Result<Vec<u8>>>) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update(piece?);
    }
    Ok(hasher.finalize().into())
}
