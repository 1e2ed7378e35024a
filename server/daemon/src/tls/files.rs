//! A certificate and its key, as they lie in files, and what a server needs of them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, ServerConfig};
use serde::{Serialize, Serializer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::date;

/// Longest file of a certificate or key: a chain has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The one protocol that is spoken over TLS.
const PROTOCOL: &[u8] = b"http/1.1";

/// Where a certificate and its key lie.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The server's certificate, then those that it is signed by, in PEM.
    pub(crate) cert: PathBuf,
    /// Its key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub(crate) key: PathBuf,
}

/// What is in the files.
#[derive(PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// A certificate that belongs to its key.
pub(crate) struct Identity {
    /// For connections that begin from now on.
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) certificate: Certificate,
}

/// What a server's own certificate says.
#[derive(Debug, Serialize)]
pub(crate) struct Certificate {
    /// Names and addresses of the server.
    names: Vec<String>,
    #[serde(serialize_with = "as_text")]
    begins: SystemTime,
    #[serde(serialize_with = "as_text")]
    pub(crate) expires: SystemTime,
    /// Whether it is one of an authority, which signs others.
    #[serde(skip)]
    is_authority: bool,
}

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// When one is not a regular file, is too long, or cannot be read.
    pub(crate) fn read(&self) -> anyhow::Result<Contents> {
        let read = |setting: &str, path: &PathBuf| {
            let bytes = pba_files::read(path, FILE_BYTES_MAX);
            bytes.with_context(|| format!("{setting}: cannot read {}", path.display()))
        };
        Ok(Contents { cert: read("tls_cert", &self.cert)?, key: read("tls_key", &self.key)? })
    }

    /// The identity that they hold.
    ///
    /// # Errors
    /// When they are not in PEM, hold no certificate or no key that can be used, or the two do not belong together.
    pub(crate) fn identity(&self, contents: &Contents) -> anyhow::Result<Identity> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let chain = CertificateDer::pem_slice_iter(&contents.cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.with_context(|| format!("tls_cert: {cert} is damaged, or not in PEM"))?;
        let Some(own) = chain.first() else {
            bail!(
                "tls_cert: there is no certificate in {cert}; expected PEM: -----BEGIN CERTIFICATE-----, the server's own \
                 first, then those that it is signed by"
            );
        };
        let certificate = Certificate::read(own).with_context(|| format!("tls_cert: {cert}"))?;
        let key_der = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| match error {
            pem::Error::NoItemsFound if contents.key.windows(9).any(|part| part == b"ENCRYPTED") => {
                anyhow::anyhow!("tls_key: the key in {key} is encrypted; expected one without a passphrase")
            }
            pem::Error::NoItemsFound => {
                anyhow::anyhow!(
                    "tls_key: there is no private key in {key}; expected one in PEM: PKCS#8, PKCS#1 or SEC1"
                )
            }
            error => anyhow::anyhow!("tls_key: {key} is damaged, or not in PEM: {error}"),
        })?;
        let provider = Arc::new(ring::default_provider());
        let signing = provider.key_provider.load_private_key(key_der).with_context(|| {
            format!(
                "tls_key: the key in {key} cannot be used; allowed are RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, and \
                 Ed25519"
            )
        })?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            // Of some keys, rustls cannot tell.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => bail!(
                "tls_key: the key in {key} does not belong to the first certificate in {cert}, which has to be the server's \
                 own"
            ),
            Err(error) => return Err(error).with_context(|| format!("tls_cert: {cert}")),
        }
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Identity { config: Arc::new(config), certificate })
    }
}

impl Certificate {
    fn read(der: &CertificateDer<'_>) -> anyhow::Result<Certificate> {
        let (rest, found) =
            x509_parser::parse_x509_certificate(der).context("its first certificate is damaged")?;
        ensure!(rest.is_empty(), "its first certificate is damaged: {} bytes are left over", rest.len());
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
        Ok(Certificate {
            names: names(&found)?,
            begins: time(found.validity().not_before.timestamp()),
            expires: time(found.validity().not_after.timestamp()),
            is_authority: found.is_ca(),
        })
    }

    /// What clients will have against it, for people.
    pub(crate) fn faults(&self, now: SystemTime) -> Vec<String> {
        let mut faults = Vec::new();
        if now > self.expires {
            faults.push(format!("it expired on {}", text(&self.expires)));
        }
        if now < self.begins {
            faults.push(format!("it is not valid before {}", text(&self.begins)));
        }
        if self.names.is_empty() {
            faults.push("it names no host (subjectAltName)".to_owned());
        }
        if self.is_authority {
            faults.push("it is one of an authority, not of a server (basicConstraints=CA:TRUE)".to_owned());
        }
        faults
    }

    /// Tells the log what clients will have against it.
    pub(crate) fn warn(&self) {
        for fault in self.faults(SystemTime::now()) {
            tracing::warn!("tls_cert: clients will not trust the certificate: {fault}");
        }
    }
}

/// The hosts that a certificate is for.
fn names(certificate: &X509Certificate<'_>) -> anyhow::Result<Vec<String>> {
    let Some(names) = certificate.subject_alternative_name().context("its names are damaged")? else {
        return Ok(Vec::new());
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(name).collect())
}

/// A date as in HTTP.
fn text(time: &SystemTime) -> String {
    date::of(*time).unwrap_or_else(|| "a day after the year 9999".to_owned())
}

fn as_text<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&text(time))
}
