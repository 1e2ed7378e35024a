//! The arguments that all kinds of job share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use pba_datasets::SplitName;
use pba_schedules::Digest;
use pba_search::protocol::flags;
use pba_search::{DeviceChoice, Spec};

use crate::data::Source;
use crate::{device, signals};

/// How long a trainer whose server died may take to exit.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of every kind of job.
#[derive(clap::Args)]
pub(crate) struct Work {
    /// The spec, a JSON object: a file, or `-` for standard input.
    #[arg(long = flags::SPEC)]
    spec: String,
    /// The dataset: `shapes`, a packed folder, or a path in any supported format.
    #[arg(long = flags::DATASET)]
    dataset: PathBuf,
    /// What a split must be, so that nothing else is trained on than was asked for; once for each split. `SPLIT=` names one
    /// that could not be read then, and is not used. Splits that are not named do not exist for this job [default: all that
    /// there are, whatever they are].
    #[arg(long = flags::DIGEST, value_name = "SPLIT=DIGEST", value_parser = digest_of_split)]
    digest: Vec<(SplitName, Option<Digest>)>,
    /// Folder that caches decoded datasets [default: cache in the job's folder, or pba-trainer in the
    /// system's folder for temporary files].
    #[arg(long = flags::CACHE)]
    cache: Option<PathBuf>,
    /// The device that `auto` in the spec means [default: the first GPU, or the CPU where there is none].
    #[arg(long = flags::AUTO)]
    auto: Option<DeviceChoice>,
    /// Only check whether it could start.
    #[arg(long = flags::CHECK)]
    pub(crate) check: bool,
    /// Continue when the parent process dies.
    #[arg(long)]
    detached: bool,
    /// Id of the parent process. If it has already exited, nothing starts. If another trainer uses the
    /// folder, such as one whose parent was killed, this one waits for it.
    #[arg(long = flags::PARENT, conflicts_with = "detached")]
    parent: Option<i32>,
    /// Seconds from one save of the members to the next, at least; 0 saves after each epoch. They are also saved
    /// at the end and on interruption [default: 100 times what a save takes, but at most 30].
    #[arg(long = flags::SAVE_SECONDS)]
    save_seconds: Option<u32>,
}

impl Work {
    /// Reads the spec, and watches for what may end the job.
    ///
    /// # Errors
    /// [`pba_search::SpecError`] for a wrong field; others when the spec cannot be read.
    pub(crate) fn begin<S: Spec>(&self) -> anyhow::Result<S> {
        let text = match self.spec.as_str() {
            flags::STDIN => {
                std::io::read_to_string(std::io::stdin()).context("cannot read the spec from stdin")?
            }
            path => std::fs::read_to_string(path).with_context(|| format!("cannot read the spec {path}"))?,
        };
        let spec = S::from_json(&text)?;
        if let Some(device) = self.auto {
            device::let_auto_be(device);
        }
        signals::install(self.parent, !self.detached);
        Ok(spec)
    }

    /// How long the job's folder may stay locked: a server that was killed and restarted starts a trainer
    /// while its previous trainer is still exiting.
    pub(crate) fn patience(&self) -> Duration {
        if self.parent.is_some() { PATIENCE } else { Duration::ZERO }
    }

    /// From one save of the members to the next, at least, if that was set.
    pub(crate) fn save_interval(&self) -> Option<Duration> {
        self.save_seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Where the images are.
    pub(crate) fn source(&self, run_dir: Option<&Path>) -> Source {
        let cache = match (&self.cache, run_dir) {
            (Some(cache), _) => cache.clone(),
            (None, Some(run_dir)) => run_dir.join("cache"),
            (None, None) => std::env::temp_dir().join("pba-trainer"),
        };
        Source { path: self.dataset.clone(), cache, splits: self.digest.iter().copied().collect() }
    }
}

fn digest_of_split(text: &str) -> Result<(SplitName, Option<Digest>), String> {
    let (split, digest) = text.split_once('=').ok_or("expected SPLIT=DIGEST")?;
    let split = SplitName::named(split).ok_or_else(|| format!("{split:?} is not a split"))?;
    match digest {
        "" => Ok((split, None)),
        _ => {
            Ok((split, Some(digest.parse().map_err(|error| format!("{digest:?} is not a digest: {error}"))?)))
        }
    }
}
