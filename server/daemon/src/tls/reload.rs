//! A certificate that is replaced while the server runs.
//!
//! What counts is what the files hold, which is read every second: Kubernetes replaces them by a link to another folder,
//! certbot one link after the other, and an editor in place. So a pair may not fit for a moment. It is refused if it is
//! the same at the next look; the server then keeps the one that it has.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::ServerConfig;
use tokio::sync::watch;

use crate::metrics::{self, Metrics};
use crate::tls::files::{Certificate, Contents, Files, Identity};

/// How often the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A certificate in use, and the files that may hold another one.
pub(crate) struct Reload {
    files: Files,
    looks: Looks,
    current: watch::Sender<Arc<ServerConfig>>,
    metrics: Metrics,
}

/// What was seen in the files, or why they could not be read.
type Seen = Result<Contents, String>;

struct Looks {
    /// What is in use, or was refused.
    judged: Seen,
    /// What did not fit at the last look, and may not have been written to its end.
    doubted: Option<Seen>,
}

impl Reload {
    /// Reads the files for the first time, and says what clients will have against the certificate.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) fn begin(files: Files, metrics: Metrics) -> anyhow::Result<Reload> {
        let contents = files.read()?;
        let Identity { config, certificate } = files.identity(&contents)?;
        use_it(&certificate, &metrics);
        let looks = Looks { judged: Ok(contents), doubted: None };
        Ok(Reload { files, looks, current: watch::Sender::new(config), metrics })
    }

    /// The settings of TLS, as they are now and will be.
    pub(crate) fn current(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Looks for another certificate until `is_over`; waits for the disk.
    pub(crate) fn run(&mut self, is_over: &dyn Fn() -> bool) {
        while !is_over() {
            std::thread::sleep(LOOK_EVERY);
            let seen = self.files.read().map_err(|error| format!("{error:#}"));
            let Some(judgement) = self.looks.judge(seen, |contents| self.files.identity(contents)) else {
                continue;
            };
            match judgement {
                Ok(Identity { config, certificate }) => {
                    self.current.send_replace(config);
                    use_it(&certificate, &self.metrics);
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
}

fn use_it(certificate: &Certificate, metrics: &Metrics) {
    certificate.warn();
    let expires = certificate.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics.certificate_expiry.with_label_values::<&str>(&[]).set(expires.as_secs() as i64);
}

impl Looks {
    /// What is to be said of what was seen, if anything: another identity, or why there is none.
    fn judge<T>(
        &mut self,
        seen: Seen,
        identity: impl FnOnce(&Contents) -> anyhow::Result<T>,
    ) -> Option<Result<T, String>> {
        if seen == self.judged {
            self.doubted = None;
            return None;
        }
        let found = match &seen {
            Ok(contents) => identity(contents).map_err(|error| format!("{error:#}")),
            Err(error) => Err(error.clone()),
        };
        if found.is_err() && self.doubted.as_ref() != Some(&seen) {
            self.doubted = Some(seen);
            return None;
        }
        (self.judged, self.doubted) = (seen, None);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_at_the_second_look() {
        let contents = |cert: &str, key: &str| Contents { cert: cert.into(), key: key.into() };
        let mut looks = Looks { judged: Ok(contents("a", "a")), doubted: None };
        let mut look = |cert: &str, key: &str| {
            let fits = |_: &Contents| if cert == key { Ok(cert.to_owned()) } else { anyhow::bail!("no") };
            looks.judge(Ok(contents(cert, key)), fits)
        };
        assert_eq!(look("a", "a"), None);
        // One file after the other.
        assert_eq!([look("b", "a"), look("b", "b"), look("b", "b")], [None, Some(Ok("b".to_owned())), None]);
        // One that stays so is refused once, and each further one too.
        assert_eq!([look("c", "b"), look("c", "b")], [None, Some(Err("no".to_owned()))]);
        assert_eq!(
            [look("c", "b"), look("d", "b"), look("c", "b"), look("c", "b")],
            [None; 4].map(|_: Option<()>| None)
        );
        assert_eq!(look("c", "c"), Some(Ok("c".to_owned())));
        // Files that are gone for a moment, and for good.
        let mut gone = || looks.judge(Err("gone".to_owned()), |_| anyhow::Ok(()));
        assert_eq!([gone(), gone(), gone()], [None, Some(Err("gone".to_owned())), None]);
        // The same as before is used again, though nothing has changed.
        assert_eq!(looks.judge(Ok(contents("c", "c")), |_| anyhow::Ok(())), Some(Ok(())));
    }
}
