// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A store on a web server: what of the configuration and the environment says how to get there.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use evenkeel_store::backend::HttpBackend;
use evenkeel_store::backend::http::{HttpOptions, Secret};
use evenkeel_store::{Store, fsio};

use crate::bucket;
use crate::config::{self, HttpConfig};
use crate::error::{CommandError, Kind, Result};
use crate::output::text;

/// Where systems keep the certificates of the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
/// Largest file of certificates, in bytes.
const AUTHORITIES_BYTES_MAX: u64 = 16 << 20;
/// Largest file of a token, certificate or key, in bytes.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// Whether a store is named by an address instead of a path.
pub fn is_address(store: &Path) -> bool {
    let begins = |scheme| store.to_str().is_some_and(|store| store.starts_with(scheme));
    begins("http://") || begins("https://") || bucket::is_address(store)
}

/// Whether what is sent to `address` can be read on its way: without TLS, and to another machine.
pub fn is_in_the_clear(address: &Path) -> bool {
    let Some(rest) = address.to_str().and_then(|address| address.strip_prefix("http://")) else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_own = |ip: IpAddr| ip.to_canonical().is_loopback();
    !host.eq_ignore_ascii_case("localhost") && !host.parse().is_ok_and(is_own)
}

/// Opens the store at `address`, through the mirrors of the configuration first.
///
/// # Errors
/// A usage error for what makes no sense; otherwise as [`Store::open_at`].
pub fn open(address: &Path, http: &HttpConfig, limit_rate: Option<u64>) -> Result<Store> {
    let address = address.to_str().unwrap_or_default().to_owned();
    let addresses: Vec<String> = http.mirrors.iter().cloned().chain([address]).collect();
    let rate = limit_rate.or(http.limit_rate);
    let options = HttpOptions { bytes_per_second: rate, ..http_options(http, &addresses)? };
    Ok(Store::open_at(Arc::new(HttpBackend::new(&addresses, options)?))?)
}

/// How servers at `addresses` are talked to.
///
/// # Errors
/// A usage error for certificates that cannot be read.
pub fn http_options(http: &HttpConfig, addresses: &[String]) -> Result<HttpOptions> {
    let is_secure = addresses.iter().any(|address| address.starts_with("https://"));
    let (proxy, no_proxy) = match &http.proxy {
        Some(proxy) => (Some(proxy.clone()), http.no_proxy.clone()),
        None => config::proxy_of_environment(is_secure),
    };
    Ok(HttpOptions {
        authorities: if is_secure { authorities(http.ca_file.as_deref())? } else { Vec::new() },
        proxy,
        no_proxy,
        bytes_per_second: http.limit_rate,
        token: http.token_file.as_deref().map(|path| secret(&[path])).transpose()?,
        identity: identity(http)?,
        redirects: http.redirects.clone(),
        ..HttpOptions::default()
    })
}

/// This machine's certificate and key.
fn identity(http: &HttpConfig) -> Result<Option<Secret>> {
    match (&http.client_cert, &http.client_key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => secret(&[cert, key]).map(Some),
        _ => Err(CommandError::usage("`client-cert` and `client-key` of the configuration belong together")),
    }
}

/// What is in files that no message shows.
fn secret(paths: &[&Path]) -> Result<Secret> {
    let mut bytes = Vec::new();
    for path in paths {
        let read = fsio::read_capped(path, SECRET_BYTES_MAX);
        bytes.extend(read.map_err(|e| {
            CommandError::caused_by(Kind::Usage, format!("cannot use the secret in {}", text::path(path)), e)
        })?);
        bytes.push(b'\n');
    }
    Ok(Secret(bytes))
}

/// The certificates to trust: those of the configuration and no others, or else the system's.
fn authorities(named: Option<&Path>) -> Result<Vec<u8>> {
    let path = match named {
        Some(path) => path,
        None => {
            SYSTEM_AUTHORITIES.map(Path::new).into_iter().find(|path| fsio::exists(path).unwrap_or(false)).ok_or_else(
                || {
                    CommandError::usage("no certificate authorities are known on this system")
                        .hint("install ca-certificates, or name a file with `ca-file` in the configuration")
                },
            )?
        }
    };
    fsio::read_capped(path, AUTHORITIES_BYTES_MAX).map_err(|e| {
        CommandError::caused_by(Kind::Usage, format!("cannot use the certificates in {}", text::path(path)), e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_on_its_way() {
        for clear in
            ["http://a.example/s", "http://192.0.2.1:8080", "http://[2001:db8::1]:80/", "http://127.0.0.1@a.example/"]
        {
            assert!(is_in_the_clear(Path::new(clear)), "{clear}");
        }
        for own in
            ["https://a.example/s", "http://127.0.0.2:1/", "http://localhost/s", "http://[::1]:80/s", "/srv/store"]
        {
            assert!(!is_in_the_clear(Path::new(own)), "{own}");
        }
    }
}
