//! The searches that the server hosts.
//!
//! A search trains in a child process ([`trainer`]), one at a time ([`supervisor`]); the others
//! wait in line. What is known of each is a fold of its journal ([`record`]), so a restart of the
//! server finds every search where it stood, and goes on with those that were not done.

mod record;
mod supervisor;
mod trainer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Context;
use pba_augment::{Base, Frame};
use pba_datasets::BUILT_IN;
use pba_search::SearchSpec;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::app::App;
use crate::error::ApiError;
use crate::metrics::Metrics;

use record::BEGUN;
pub use record::{Line, Record, State};
pub use supervisor::supervise;
pub use trainer::Trainer;

/// Searches waiting or running at a time; more are refused.
const WAITING_MAX: usize = 64;

/// Every search, by id: its name, which is also the name of the schedule that it learns.
pub struct Searches {
    directory: PathBuf,
    cache: PathBuf,
    trainer: Trainer,
    /// Whether this server is the one that hosts them.
    is_writer: bool,
    records: Mutex<BTreeMap<String, Arc<Record>>>,
    /// Told when a search is added to the line.
    queued: Notify,
    metrics: Metrics,
}

impl Searches {
    /// Opens the searches kept in `directory`; those that were waiting or running stand in line
    /// again. Decoded datasets are shared with the server through `cache`. A server that is not the one
    /// that writes in the data directory shows them as they stand on the disk, and changes nothing.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub fn open(
        directory: &Path,
        cache: &Path,
        trainer: Trainer,
        is_writer: bool,
        metrics: Metrics,
    ) -> anyhow::Result<Searches> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let searches = Searches {
            directory: directory.to_owned(),
            cache: cache.to_owned(),
            trainer,
            is_writer,
            records: Mutex::new(read(directory, is_writer)?),
            queued: Notify::new(),
            metrics,
        };
        searches.count_states();
        Ok(searches)
    }

    /// Every search, by id.
    pub fn list(&self) -> Vec<Arc<Record>> {
        self.look_again();
        self.records().values().cloned().collect()
    }

    /// The search of an id.
    ///
    /// # Errors
    /// `404` when there is none, with the nearest id.
    pub fn get(&self, id: &str) -> Result<Arc<Record>, ApiError> {
        self.look_again();
        let records = self.records();
        records
            .get(id)
            .cloned()
            .ok_or_else(|| ApiError::not_found("search", id, records.keys().map(String::as_str)))
    }

    /// Where another server hosts the searches: reads how they stand on the disk.
    fn look_again(&self) {
        if self.is_writer {
            return;
        }
        match read(&self.directory, false) {
            Ok(found) => *self.records() = found,
            Err(error) => tracing::error!(error = format!("{error:#}"), "what is shown of searches is old"),
        }
    }

    /// Checks a spec, with the trainer too, and puts the search in line.
    ///
    /// # Errors
    /// `400` when a field is wrong, `404` for an unknown dataset, `409` when the name is taken,
    /// `429` when too many wait, `503` when there is no trainer that runs.
    pub async fn start(&self, app: &App, body: &[u8]) -> Result<Arc<Record>, ApiError> {
        let (mut spec, source, named) = self.checked_spec(app, body)?;
        self.trainer.check(&spec, &source, &self.cache).await?;
        let record = {
            let mut records = self.records();
            let waiting = records.values().filter(|record| !record.state().is_final()).count();
            if waiting >= WAITING_MAX {
                return Err(ApiError::busy(format!(
                    "{waiting} searches wait or run; that is as many as may"
                )));
            }
            // Looked at again under the lock: another request may have taken the name meanwhile.
            if !named {
                spec.name = self.free_name(app, &records, &spec);
            } else if self.holds(&records, &spec.name) {
                return Err(name_taken(&spec.name));
            }
            let record = Record::create(&self.directory, spec, source)
                .map_err(|error| ApiError::internal(format!("{error:#}")))?;
            let record = Arc::new(record);
            records.insert(record.id().to_owned(), Arc::clone(&record));
            record
        };
        tracing::info!(search = record.id(), "search in line");
        self.count_states();
        self.queued.notify_one();
        Ok(record)
    }

    /// Fills in what the server knows: a free name, and the dataset's own base augmentation.
    /// Answers also where the dataset is, and whether the name is of the client's choice.
    fn checked_spec(&self, app: &App, body: &[u8]) -> Result<(SearchSpec, String, bool), ApiError> {
        let text =
            std::str::from_utf8(body).map_err(|error| ApiError::body(format!("not UTF-8 text: {error}")))?;
        if text.trim().is_empty() {
            return Err(ApiError::body(
                "the body is empty; expected the spec as a JSON object, {} for the defaults",
            ));
        }
        let mut fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| ApiError::body(format!("the spec is not a JSON object: {error}")))?;
        let named = fields.get("name").is_some_and(|name| !name.is_null());
        // Read once without the name, so that a free one can be made of the checked fields.
        let parse = |fields: &Map<String, Value>| {
            SearchSpec::try_from(fields.clone()).map_err(|error| ApiError::spec(&error))
        };
        let spec = parse(&fields)?;
        let dataset = app.catalog.get(&spec.training.dataset)?;
        let train = dataset.split(pba_types::SplitName::Train)?;
        if train.shape().is_none() {
            return Err(ApiError::parameter(
                "dataset",
                &spec.training.dataset,
                "its training images differ in size, and a search trains on images as they are",
                "a dataset whose training images share one size",
            ));
        }
        if !named {
            let name = self.free_name(app, &self.records(), &spec);
            fields.insert("name".to_owned(), name.into());
        }
        match &spec.training.base {
            None => {
                let base = Base { frame: Frame::Full, ..*dataset.base() };
                fields.insert("base".to_owned(), base.to_string().into());
            }
            Some(base) => {
                let refuse = |reason: String| {
                    ApiError::parameter("base", base, reason, "identity, or pad_crop:N, flip, cutout:N")
                };
                let parsed = base.parse::<Base>().map_err(|error| refuse(error.to_string()))?;
                if parsed.frame != Frame::Full {
                    return Err(refuse("a search trains on images as they are".to_owned()));
                }
            }
        }
        let spec = parse(&fields)?;
        if self.holds(&self.records(), &spec.name) || app.registry.get(&spec.name).is_ok() {
            return Err(name_taken(&spec.name));
        }
        let source = match dataset.source() {
            None => BUILT_IN.to_owned(),
            Some(path) => std::path::absolute(path).map_err(ApiError::internal)?.display().to_string(),
        };
        Ok((spec, source, named))
    }

    /// Whether a name is a search's, or that of a folder that cannot be read as one.
    fn holds(&self, records: &BTreeMap<String, Arc<Record>>, name: &str) -> bool {
        records.contains_key(name) || self.directory.join(name).exists()
    }

    /// Whether a name is promised to the schedule of a search that may still learn it.
    pub fn promises(&self, name: &str) -> bool {
        self.records().get(name).is_some_and(|record| record.state() != State::Done)
    }

    /// A name made of dataset and model that nothing has.
    fn free_name(&self, app: &App, records: &BTreeMap<String, Arc<Record>>, spec: &SearchSpec) -> String {
        (1u32..)
            .map(|number| format!("{}-{}-{number}", spec.training.dataset, spec.training.model))
            .find(|name| !self.holds(records, name) && app.registry.get(name).is_err())
            .expect("some number is free")
    }

    /// Ends a waiting or running search.
    ///
    /// # Errors
    /// `404` when there is none, `409` when it has ended already.
    pub fn cancel(&self, id: &str) -> Result<Arc<Record>, ApiError> {
        let record = self.get(id)?;
        record.cancel()?;
        self.count_states();
        Ok(record)
    }

    /// Puts a failed or cancelled search in line again, to go on from its last checkpoint.
    ///
    /// # Errors
    /// `404` when there is none, `409` when it is done, running or in line.
    pub fn resume(&self, id: &str) -> Result<Arc<Record>, ApiError> {
        let record = self.get(id)?;
        record.resume()?;
        self.count_states();
        self.queued.notify_one();
        Ok(record)
    }

    /// The search that has waited longest.
    fn next(&self) -> Option<Arc<Record>> {
        let records = self.records();
        records
            .values()
            .filter(|record| record.state() == State::Queued)
            .min_by_key(|record| record.created())
            .cloned()
    }

    /// Keeps the gauges of states up to date: of the searches that this server hosts.
    fn count_states(&self) {
        let records = self.records();
        let hosted = || records.values().filter(|_| self.is_writer);
        for state in State::ALL {
            let count = hosted().filter(|record| record.state() == state).count();
            self.metrics.searches.with_label_values(&[state.name()]).set(count as i64);
        }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Record>>> {
        self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Reads every search in a directory.
fn read(directory: &Path, is_writer: bool) -> anyhow::Result<BTreeMap<String, Arc<Record>>> {
    let cannot = || format!("cannot list {}", directory.display());
    let mut records = BTreeMap::new();
    for folder in std::fs::read_dir(directory).with_context(cannot)? {
        let path = folder.with_context(cannot)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(BEGUN)) {
            // A server was killed while it made it, and nobody was told of it; or it makes it just now.
            if is_writer {
                let _ = std::fs::remove_dir_all(&path);
            }
            continue;
        }
        match Record::open(&path, is_writer) {
            Ok(record) => {
                records.insert(record.id().to_owned(), Arc::new(record));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %format!("{error:#}"), "not a search; left alone")
            }
        }
    }
    Ok(records)
}

fn name_taken(name: &str) -> ApiError {
    ApiError::conflict(format!(
        "the name {name:?} is taken by a search or a schedule; names are immutable, so choose another one or leave it out"
    ))
}
