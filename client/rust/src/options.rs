//! How a client connects: its token, and the authorities it trusts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::error::ClientError;

/// What this client calls itself (`User-Agent`).
pub(crate) const AGENT: &str = concat!("pba-client-rust/", env!("CARGO_PKG_VERSION"));

/// How a client connects: its token, and the authorities it trusts.
///
/// The environment is not read; `pba` itself takes both from its command line, `PBA_TOKEN` and
/// `PBA_CA`.
#[derive(Clone)]
pub struct ClientOptions {
    /// Sent with every request as `Authorization: Bearer TOKEN`: visible ASCII characters.
    pub token: Option<String>,
    /// PEM file of the certificate authorities to trust for `https://` servers, instead of the system's.
    pub ca: Option<PathBuf>,
    /// How long a server may send nothing before its answer counts as cut; by default two minutes.
    pub stall: Duration,
    /// Attempts to continue a cut stream after its last batch, and to be answered by a server that is full, at each
    /// of the replicas, with a pause of 0.1 seconds after the second that doubles, up to 10. By default 6, which
    /// outlasts an outage of 3 seconds; 8 outlast 13, and each one more another 10.
    pub retries: u32,
    /// Whether each message's checksum is checked. By default that of streams over `http://` and through a
    /// Unix socket, and not over `https://`, where TLS answers for the bytes. Batches in shared memory have
    /// none.
    pub checksums: Option<bool>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions { token: None, ca: None, stall: Duration::from_secs(120), retries: 6, checksums: None }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "...");
        let mut shown = f.debug_struct("ClientOptions");
        shown.field("token", &token).field("ca", &self.ca);
        shown.field("stall", &self.stall).field("retries", &self.retries);
        shown.field("checksums", &self.checksums).finish()
    }
}

impl ClientOptions {
    /// The header field with the token, which no error or log shows.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        let Some(token) = &self.token else { return Ok(None) };
        let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| visible);
        let mut value = value.ok_or(ClientError::Token)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// The authorities to trust: none for `http://`, which has no certificates, so the system need not have
    /// any.
    ///
    /// # Errors
    /// [`ClientError::Authorities`], when they cannot be read.
    pub fn trust(&self, is_https: bool) -> Result<ClientConfig, ClientError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need");
        let builder = match &self.ca {
            // Not used over http://, but a mistake in it is reported.
            Some(path) => builder.with_root_certificates(authorities(path)?),
            None if !is_https => builder.with_root_certificates(RootCertStore::empty()),
            None => builder.with_platform_verifier().map_err(|error| ClientError::Authorities {
                path: "the system's certificate authorities".into(),
                reason: format!("{error}; pass a PEM file of your own"),
            })?,
        };
        Ok(builder.with_no_client_auth())
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, ClientError> {
    let wrong = |reason: String| ClientError::Authorities { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it contains no certificate; expected PEM".to_owned()));
    }
    Ok(roots)
}
