//! One search: what it was asked, where it stands, what happened.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures_util::FutureExt;
use pba_search::protocol::Progress;
use pba_search::{Event, Run, Search, SearchSpec, journal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::error::Error;

/// Where a search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// In line.
    Queued,
    /// Training.
    Running,
    /// Its schedule is registered.
    Done,
    /// It ended with an error.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl State {
    /// Every state.
    pub(crate) const ALL: [State; 5] =
        [State::Queued, State::Running, State::Done, State::Failed, State::Cancelled];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Whether it ended.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, State::Done | State::Failed | State::Cancelled)
    }
}

/// What `search.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    spec: SearchSpec,
    /// Where the trainer reads the dataset.
    source: String,
    /// Milliseconds since 1970: orders the line.
    created: u128,
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Time spent training, over all runs that ended in good order.
    seconds: f64,
}

/// What changes while a search runs.
struct Live {
    kept: Kept,
    /// Whole lines of the journal, without line feeds.
    journal: Vec<String>,
    search: Option<Search>,
    progress: Option<Progress>,
    /// Images that were trained before whoever trains now, in epochs that need not be repeated.
    images_before: u64,
    running_since: Option<Instant>,
}

/// One event for whoever watches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// A line of the journal, with its number from 1.
    Journal(usize, String),
    /// How far it is.
    Progress(Progress),
    /// Where it stands.
    State(Value),
}

/// One search.
pub(crate) struct Record {
    id: String,
    directory: PathBuf,
    live: Mutex<Live>,
    /// Counts changes, for whoever watches.
    changes: watch::Sender<u64>,
    /// Told when somebody wants it to end.
    pub(crate) cancelled: Notify,
}

/// A folder with this prefix was being made; none has the name of a search.
pub(crate) const BEGUN: &str = ".begun-";
const FILE: &str = "search.json";
const JOURNAL: &str = "events.jsonl";

impl Record {
    /// Makes the folder of a new search.
    pub(crate) fn create(parent: &Path, spec: SearchSpec, source: String) -> anyhow::Result<Record> {
        let directory = parent.join(&spec.name);
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let kept = Kept { spec, source, created, state: State::Queued, error: None, seconds: 0.0 };
        let record = Record::new(directory, kept, Vec::new(), None);
        // Made beside its place, so that a server that is killed, or a full disk, leaves no folder
        // that holds the name and is no search.
        let made = tempfile::Builder::new()
            .prefix(BEGUN)
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        record.live().save(made.path())?;
        std::fs::rename(made.path(), &record.directory)
            .with_context(|| format!("cannot make {}", record.directory.display()))?;
        // It has moved away: there is nothing to remove.
        let _ = made.keep();
        Ok(record)
    }

    /// Reads the folder of a search. One that was running stands in line again, where this server is the
    /// one that hosts it; elsewhere it still runs.
    pub(crate) fn open(directory: &Path, is_writer: bool) -> anyhow::Result<Record> {
        let path = directory.join(FILE);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut kept: Kept = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        if kept.state == State::Running && is_writer {
            kept.state = State::Queued;
        }
        let (journal, search) = read_journal(directory, usize::MAX).unwrap_or_else(|error| {
            // What was learned is registered already; anything else cannot go on.
            if kept.state != State::Done {
                (kept.state, kept.error) = (State::Failed, Some(format!("{error:#}")));
            }
            (Vec::new(), None)
        });
        // The file is written when the state changes.
        let since = || path.metadata().ok()?.modified().ok()?.elapsed().ok();
        let is_running = kept.state == State::Running;
        let record = Record::new(directory.to_owned(), kept, journal, search);
        if is_running {
            record.live().running_since = since().and_then(|elapsed| Instant::now().checked_sub(elapsed));
        }
        Ok(record)
    }

    fn new(directory: PathBuf, kept: Kept, journal: Vec<String>, search: Option<Search>) -> Record {
        Record {
            id: kept.spec.name.clone(),
            directory,
            live: Mutex::new(Live {
                kept,
                journal,
                search,
                progress: None,
                images_before: 0,
                running_since: None,
            }),
            changes: watch::Sender::new(0),
            cancelled: Notify::new(),
        }
    }

    /// Its id: the name of the search.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The folder that its trainer works in.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it was asked to do.
    pub(crate) fn spec(&self) -> SearchSpec {
        self.live().kept.spec.clone()
    }

    /// Where the trainer reads the dataset.
    pub(crate) fn source(&self) -> String {
        self.live().kept.source.clone()
    }

    /// When it was asked for, in milliseconds since 1970.
    pub(crate) fn created(&self) -> u128 {
        self.live().kept.created
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> State {
        self.live().kept.state
    }

    /// The search as its journal tells it; none before it has begun.
    pub(crate) fn search(&self) -> Option<Search> {
        self.live().search.clone()
    }

    /// Everything that the API says about it.
    pub(crate) fn describe(&self) -> Value {
        let live = self.live();
        let spec = &live.kept.spec;
        let epoch = live.search.as_ref().map_or(0, Run::epoch);
        let best = live
            .search
            .as_ref()
            .filter(|_| epoch > 0)
            .and_then(|search| number(search.population().best().score));
        let members: Vec<Value> = live.search.as_ref().map_or_else(Vec::new, |search| {
            search
                .population()
                .members()
                .iter()
                .map(|member| {
                    json!({ "id": member.id, "score": number(member.score), "age": member.age, "parent": member.parent })
                })
                .collect()
        });
        json!({
            "id": self.id,
            "state": live.kept.state,
            "epoch": epoch,
            "epochs": spec.training.epochs,
            "best_accuracy": best,
            "seconds": (live.seconds() * 10.0).round() / 10.0,
            "error": live.kept.error,
            "schedule": (live.kept.state == State::Done).then_some(&self.id),
            "dataset": spec.training.dataset,
            "model": spec.training.model.to_string(),
            "population": spec.population,
            "members": members,
            "progress": live.progress,
            "spec": spec,
        })
    }

    /// Watches for changes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The lines of the journal after the first `seen`, and whether the search has ended.
    pub(crate) fn lines_after(&self, seen: usize) -> (Vec<Line>, State) {
        let live = self.live();
        let lines = live.journal.iter().enumerate().skip(seen);
        (lines.map(|(number, line)| Line::Journal(number + 1, line.clone())).collect(), live.kept.state)
    }

    /// How far it is, as the trainer last said.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.live().progress.clone()
    }

    /// Takes a waiting search out of the line to run it; false when it does not wait any more.
    pub(crate) fn begin(&self) -> bool {
        let mut live = self.live();
        let waits = live.kept.state == State::Queued;
        if waits {
            // A wish to cancel that came too late for the run before is not meant for this one.
            let _ = self.cancelled.notified().now_or_never();
            self.enter_locked(&mut live, State::Running, None);
        }
        waits
    }

    /// Asks a waiting or running search to end.
    pub(crate) fn cancel(&self) -> Result<(), Error> {
        let mut live = self.live();
        let state = live.kept.state;
        match state {
            State::Queued => self.enter_locked(&mut live, State::Cancelled, None),
            // The supervisor ends the trainer, and enters the state then.
            State::Running => self.cancelled.notify_one(),
            _ => {
                return Err(Error::conflict(format!(
                    "search {:?} is {} already; there is nothing to cancel",
                    self.id,
                    state.name()
                )));
            }
        }
        Ok(())
    }

    /// Puts a failed or cancelled search in line again.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        let mut live = self.live();
        let state = live.kept.state;
        match state {
            State::Failed | State::Cancelled => {
                self.enter_locked(&mut live, State::Queued, None);
                Ok(())
            }
            _ => Err(Error::conflict(format!(
                "search {:?} is {}; only a failed or cancelled search can be resumed",
                self.id,
                state.name()
            ))),
        }
    }

    /// Enters a state, on disk too.
    pub(crate) fn enter(&self, state: State, error: Option<String>) {
        self.enter_locked(&mut self.live(), state, error);
    }

    fn enter_locked(&self, live: &mut Live, state: State, error: Option<String>) {
        live.kept.seconds = live.seconds();
        live.running_since = (state == State::Running).then(Instant::now);
        (live.kept.state, live.kept.error) = (state, error);
        if state != State::Running {
            live.progress = None;
        }
        live.save_or_warn(&self.directory);
        self.changed();
    }

    /// Takes in an event of the journal.
    ///
    /// # Errors
    /// When the trainer says what no trainer can say at this point.
    pub(crate) fn happened(&self, event: &Event) -> anyhow::Result<()> {
        let mut live = self.live();
        match (event, &mut live.search) {
            (Event::Started { spec, .. }, _) => {
                live.search = Some(Search::new((**spec).clone()));
                live.journal.clear();
                live.images_before = 0;
            }
            (event, Some(search)) => search.apply(event).map_err(anyhow::Error::msg)?,
            (_, None) => anyhow::bail!("the trainer sent an event before the search began"),
        }
        live.journal.push(journal::line(event).trim_end().to_owned());
        if let Event::Checkpoint { .. } = event {
            // The time until here is not lost when the server is killed.
            live.kept.seconds = live.seconds();
            live.running_since = live.running_since.map(|_| Instant::now());
            live.save_or_warn(&self.directory);
        }
        drop(live);
        self.changed();
        Ok(())
    }

    /// Stands where the first `lines` lines of the journal on disk do: a trainer goes on from there.
    /// That may be less than was told, and also more: a trainer that is killed may have written what
    /// it did not tell.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) fn reread(&self, lines: usize) -> anyhow::Result<()> {
        let (journal, search) = read_journal(&self.directory, lines)?;
        let mut live = self.live();
        live.images_before = search.as_ref().map_or(0, images_trained);
        (live.journal, live.search) = (journal, search);
        drop(live);
        self.changed();
        Ok(())
    }

    /// Notes how far it is; answers how many images were trained since it was last told.
    pub(crate) fn progressed(&self, progress: Progress) -> u64 {
        let mut live = self.live();
        let before = live.progress.as_ref().map_or(live.images_before, |before| before.images);
        let images = progress.images.saturating_sub(before);
        live.progress = Some(progress);
        drop(live);
        self.changed();
        images
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Live {
    fn seconds(&self) -> f64 {
        self.kept.seconds + self.running_since.map_or(Duration::ZERO, |since| since.elapsed()).as_secs_f64()
    }

    /// A full disk must not end a search whose state is in memory; the next save may work.
    fn save_or_warn(&self, directory: &Path) {
        if let Err(error) = self.save(directory) {
            tracing::error!(error = %format!("{error:#}"), "cannot keep the state of a search");
        }
    }

    fn save(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(FILE);
        let mut file = tempfile::NamedTempFile::new_in(directory)
            .with_context(|| format!("cannot write in {}", directory.display()))?;
        file.write_all(&serde_json::to_vec_pretty(&self.kept)?)
            .and_then(|()| file.as_file().sync_all())
            .with_context(|| format!("cannot write {}", path.display()))?;
        file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

/// Images that all members have trained together. A last batch that is not full is left out.
fn images_trained(search: &Search) -> u64 {
    let spec = search.spec();
    let batch_size = spec.training.batch_size as u64;
    let images = spec.train_size.unwrap_or(0) as u64 / batch_size * batch_size;
    images * u64::from(spec.population) * u64::from(search.epoch())
}

/// The lines of a journal up to the last checkpoint in the first `lines_max`, and where the search
/// stands there.
fn read_journal(directory: &Path, lines_max: usize) -> anyhow::Result<(Vec<String>, Option<Search>)> {
    let path = directory.join(JOURNAL);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    // The torn end of a journal may be any bytes.
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.split_inclusive('\n').take(lines_max).collect();
    let replayed = journal::replay::<Search>(&text)
        .with_context(|| format!("the journal {} is damaged", path.display()))?;
    let lines = replayed.as_ref().map_or(0, |replay| replay.events);
    let journal = text.lines().take(lines).map(str::to_owned).collect();
    Ok((journal, replayed.map(|replay| replay.run)))
}

/// A score as JSON has it: nothing for a member that diverged or was not scored.
fn number(score: Option<f64>) -> Option<f64> {
    score.filter(|score| score.is_finite())
}
