//! Requests to one of several replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pba_wire::Problem;

use crate::error::ClientError;
use crate::options::ClientOptions;
use crate::replica::Replica;

/// The first pause between attempts, doubled each time; and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a wait for an import is logged.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The replicas of one server: at least one.
#[derive(Clone, Debug)]
pub(crate) struct Replicas {
    replicas: Vec<Replica>,
    /// Attempts at each.
    pub(crate) retries: u32,
    /// Whether one of them has answered: then they exist, and one that is away may come back. Clones share it.
    reached: Arc<AtomicBool>,
}

impl Replicas {
    /// The replicas at `urls`.
    pub(crate) fn new(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        options: &ClientOptions,
    ) -> Result<Replicas, ClientError> {
        let replicas = urls.into_iter().map(|url| Replica::new(url.as_ref(), options));
        let replicas = replicas.collect::<Result<Vec<_>, _>>()?;
        if replicas.is_empty() {
            Err(ClientError::NoServer)
        } else {
            Ok(Replicas { replicas, retries: options.retries, reached: Arc::default() })
        }
    }

    /// Makes batches come through the socket from now on.
    pub(crate) fn forgo_shared_memory(&mut self) {
        self.replicas.iter_mut().for_each(|replica| replica.shares_memory = false);
    }

    /// How many replicas there are.
    pub(crate) fn count(&self) -> u32 {
        self.replicas.len() as u32
    }

    /// One of them; after the last comes the first again.
    pub(crate) fn at(&self, number: usize) -> &Replica {
        &self.replicas[number % self.replicas.len()]
    }

    /// Tries one replica after the other, and retries for some seconds while one is busy; if it persists, also while
    /// one is cut off, or away after one was reached. If all that is left is importing the dataset, waits as long as
    /// it does. If none succeeds, the error tells what each answered.
    pub(crate) async fn first<T>(
        &self,
        persists: bool,
        mut attempt: impl AsyncFnMut(usize) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut round = 0;
        let mut import = ImportWait::default();
        loop {
            let mut failures = Vec::new();
            for number in 0..self.replicas.len() {
                match attempt(number).await {
                    Err(error) if error.is_busy() || error.is_passing() || error.is_of_replica() => {
                        failures.push((self.at(number).address.to_string(), error));
                    }
                    done => {
                        if done.is_ok() {
                            self.reached.store(true, Ordering::Relaxed);
                        }
                        return done;
                    }
                }
            }
            let importing = failures.iter().find_map(|(_, error)| match error {
                ClientError::Importing { problem, retry_after } => Some((problem, *retry_after)),
                _ => None,
            });
            if let Some((problem, retry_after)) = importing {
                // An import ends, so that the round does not count.
                import.pause(problem, retry_after).await;
                continue;
            }
            let waits = failures.iter().any(|(_, error)| match error {
                // Do not wait for a server that may not exist.
                ClientError::Unreachable { .. } => persists && self.reached.load(Ordering::Relaxed),
                error => error.is_busy() || persists && error.is_passing(),
            });
            if round == self.retries || !waits {
                return Err(ClientError::of_all(failures));
            }
            round += 1;
            // As of a stream that was cut: each replica is tried once more without a pause.
            if round > 1 {
                tokio::time::sleep(pause(round - 2)).await;
            }
        }
    }
}

/// The pause after so many others.
pub(crate) fn pause(pauses: u32) -> Duration {
    PAUSE.saturating_mul(2u32.saturating_pow(pauses)).min(PAUSE_MAX)
}

/// A wait for a dataset that a server is importing.
#[derive(Default)]
pub(crate) struct ImportWait {
    logged: Option<Instant>,
}

impl ImportWait {
    /// Waits until the server may be asked again, and logs its progress now and then.
    pub(crate) async fn pause(&mut self, problem: &Problem, retry_after: Duration) {
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            tracing::info!("waiting: {}", problem.detail);
            self.logged = Some(Instant::now());
        }
        tokio::time::sleep(retry_after).await;
    }
}
