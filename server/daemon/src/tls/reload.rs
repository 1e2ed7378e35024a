//! A certificate that is replaced while the server runs.
//!
//! A pair of certificate and key that cannot be used is refused, and the server keeps the one that it has.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::ServerConfig;
use tokio::sync::watch;

use crate::metrics::{self, Metrics};
use crate::tls::files::{Certificate, Contents, Files, Identity};
use crate::watched::Watched;

/// A certificate in use, and the files that may hold another one.
pub(crate) struct Reload {
    files: Files,
    current: watch::Sender<Arc<ServerConfig>>,
    metrics: Metrics,
}

impl Reload {
    /// Reads the files for the first time, returns what they hold as well, and says what clients will have against the
    /// certificate.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) fn begin(files: Files, metrics: Metrics) -> anyhow::Result<(Reload, Contents)> {
        let contents = files.read()?;
        let Identity { config, certificate } = files.identity(&contents)?;
        show(&certificate, &metrics);
        Ok((Reload { files, current: watch::Sender::new(config), metrics }, contents))
    }

    /// The settings of TLS, as they are now and will be.
    pub(crate) fn current(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }
}

impl Watched for Reload {
    type Contents = Contents;

    fn read(&self) -> anyhow::Result<Contents> {
        self.files.read()
    }

    fn apply(&mut self, found: Result<&Contents, &str>) {
        let identity = found
            .map_err(str::to_owned)
            .and_then(|contents| self.files.identity(contents).map_err(|error| format!("{error:#}")));
        match identity {
            Ok(Identity { config, certificate }) => {
                self.current.send_replace(config);
                show(&certificate, &self.metrics);
                self.metrics.count_certificate_reload(metrics::Reload::Succeeded);
                tracing::info!(path = %self.files.cert.display(), "the certificate was replaced");
            }
            Err(error) => {
                self.metrics.count_certificate_reload(metrics::Reload::Failed);
                tracing::error!(error, "the certificate cannot be replaced; the one before is kept");
            }
        }
    }
}

/// Shows in the log and in the metrics what a certificate in use says.
fn show(certificate: &Certificate, metrics: &Metrics) {
    certificate.warn();
    let expires = certificate.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics.certificate_expiry.with_label_values::<&str>(&[]).set(expires.as_secs() as i64);
}
