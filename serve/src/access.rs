// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may ask: bearer tokens, certificates of clients; and the server's own certificate.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::ServeError;

/// What the server needs to know for TLS, all of it PEM.
#[derive(Clone, Default)]
pub struct TlsBytes {
    /// The server's certificate, then those between it and its authority.
    pub certificates: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// Authorities of the clients' certificates; with them, a client without one is turned away.
    pub client_authorities: Option<Vec<u8>>,
}

/// What may change while the server runs.
#[derive(Clone, Default)]
pub struct Secrets {
    /// TLS; without it the server speaks plain HTTP.
    pub tls: Option<TlsBytes>,
    /// A token a line; empty lines and those that begin with `#` count for nothing. Without it nobody needs one.
    pub tokens: Option<Vec<u8>>,
}

/// The secrets, ready for use.
pub(crate) struct Access {
    pub(crate) tls: Option<Arc<ServerConfig>>,
    tokens: Option<Vec<blake3::Hash>>,
}

impl Access {
    /// # Errors
    /// [`ServeError::Secret`] for what makes no sense.
    pub(crate) fn new(secrets: &Secrets) -> Result<Access, ServeError> {
        let tokens = secrets.tokens.as_deref().map(tokens).transpose()?;
        Ok(Access { tls: secrets.tls.as_ref().map(config).transpose()?.map(Arc::new), tokens })
    }

    /// Whether somebody is let in only by a secret.
    pub(crate) fn is_private(&self, has_client_authorities: bool) -> bool {
        self.tokens.is_some() || has_client_authorities
    }

    /// Whether this token will do. Every one is compared, and hashes are compared in constant time.
    pub(crate) fn allows(&self, token: Option<&str>) -> bool {
        let Some(tokens) = &self.tokens else { return true };
        let given = blake3::hash(token.unwrap_or_default().as_bytes());
        tokens.iter().fold(false, |found, token| (*token == given) | found)
    }
}

fn tokens(bytes: &[u8]) -> Result<Vec<blake3::Hash>, ServeError> {
    let refused = |reason: &str| ServeError::Secret { what: "file of tokens", reason: reason.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| refused("it is no text"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tokens: Vec<&str> = lines.collect();
    if tokens.is_empty() {
        return Err(refused("it has no token"));
    }
    if tokens.iter().any(|token| token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(refused("a token has at least 16 characters of ASCII, no spaces among them"));
    }
    Ok(tokens.into_iter().map(|token| blake3::hash(token.as_bytes())).collect())
}

fn config(tls: &TlsBytes) -> Result<ServerConfig, ServeError> {
    let refused = |what, reason: String| ServeError::Secret { what, reason };
    let certificates = certificates("certificate", &tls.certificates)?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key).map_err(|e| refused("private key", e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| refused("certificate", e.to_string()))?;
    let builder = match &tls.client_authorities {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let what = "file of client authorities";
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(what, pem)? {
                roots.add(authority).map_err(|e| refused(what, e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| refused(what, e.to_string()))?)
        }
    };
    let mut config =
        builder.with_single_cert(certificates, key).map_err(|e| refused("certificate and key", e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|e| ServeError::Secret { what, reason: e.to_string() })?;
    if all.is_empty() {
        return Err(ServeError::Secret { what, reason: "it holds no certificate in PEM form".into() });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(tokens: &str) -> Result<Access, ServeError> {
        Access::new(&Secrets { tls: None, tokens: Some(tokens.into()) })
    }

    #[test]
    fn one_of_several_tokens_will_do_and_nothing_else() {
        let access = access("# of the fleet\naaaaaaaaaaaaaaaa\n\n bbbbbbbbbbbbbbbb \n").unwrap();
        assert!(access.allows(Some("aaaaaaaaaaaaaaaa")) && access.allows(Some("bbbbbbbbbbbbbbbb")));
        for other in [None, Some(""), Some("aaaaaaaaaaaaaaa"), Some("# of the fleet"), Some("aaaaaaaaaaaaaaaab")] {
            assert!(!access.allows(other), "{other:?}");
        }
        assert!(Access::new(&Secrets::default()).unwrap().allows(None));
    }

    #[test]
    fn a_file_without_a_token_lets_nobody_in_by_mistake() {
        assert!(access("").is_err() && access("# none\n").is_err() && access("short\n").is_err());
    }
}
