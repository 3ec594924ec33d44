// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store in a bucket of an object store: what of the configuration and the environment says how to get there.

use std::path::Path;

use evenkeel_store::backend::S3Backend;
use evenkeel_store::backend::s3::{S3Key, S3Options};
use evenkeel_store::fsio;

use crate::config::{self, Config};
use crate::error::{CommandError, Kind, Result};
use crate::output::text;
use crate::remote;

/// Where nothing says how a service calls itself; most that are not AWS take any name.
const DEFAULT_REGION: &str = "us-east-1";
/// Longest file with an access key, in bytes.
const KEY_BYTES_MAX: u64 = 4 << 10;

/// Whether a store is named by a bucket.
pub fn is_address(store: &Path) -> bool {
    store.to_str().is_some_and(|store| store.starts_with("s3://"))
}

/// Prepares to use the bucket at `address`. What is to be sent is put together below `state_dir`.
///
/// # Errors
/// A usage error for what is missing or makes no sense.
pub fn open(address: &Path, config: &Config, state_dir: &Path) -> Result<S3Backend> {
    let environment = config::s3_of_environment();
    let mut endpoints = config.s3.endpoints.clone();
    if endpoints.is_empty() {
        endpoints.extend(environment.endpoint);
    }
    let key = match (&config.s3.key_file, environment.key) {
        (Some(path), _) => Some(read_key(path)?),
        (None, Some((id, secret))) => Some(S3Key { id, secret }),
        (None, None) => None,
    };
    let options = S3Options {
        region: config.s3.region.clone().or(environment.region).unwrap_or_else(|| DEFAULT_REGION.into()),
        key,
        is_virtual_host: config.s3.virtual_host,
        spool: state_dir.join("spool"),
        http: remote::http_options(&config.http, &endpoints)?,
        endpoints,
    };
    Ok(S3Backend::new(address.to_str().unwrap_or_default(), options)?)
}

/// An access key: its id in the first line, its secret in the second.
fn read_key(path: &Path) -> Result<S3Key> {
    let bytes = fsio::read_capped(path, KEY_BYTES_MAX).map_err(|e| {
        CommandError::caused_by(Kind::Usage, format!("cannot use the access key in {}", text::path(path)), e)
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next(), lines.next()) {
        (Some(id), Some(secret), None) => Ok(S3Key { id: id.into(), secret: secret.into() }),
        // Not what it holds: that may be a secret.
        _ => Err(CommandError::usage(format!("{} holds no access key", text::path(path)))
            .hint("its first line is the key's id, its second the secret; there is no other")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_two_lines_and_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fsio::publish_file(&path, b"GK12\n\n very-secret \n").unwrap();
        let key = read_key(&path).unwrap();
        assert_eq!((key.id.as_str(), key.secret.as_str()), ("GK12", "very-secret"));
        assert!(!format!("{key:?}").contains("very-secret"));
        for wrong in ["", "only-one", "a\nb\nc"] {
            fsio::publish_file(&path, wrong.as_bytes()).unwrap();
            let error = format!("{:?}", read_key(&path).unwrap_err());
            assert!(error.contains("holds no access key"), "{error}");
        }
    }
}
