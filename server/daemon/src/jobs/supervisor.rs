//! Runs one job after another on each device, restarting trainers until the job is done.
//!
//! A trainer that crashes or is killed, or whose GPU fails after the first checkpoint, is restarted and
//! resumes from its last one; after several crashes without progress the job fails. A trainer that reports
//! an error, such as a full disk, ends the job, which can be resumed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use pba_search::protocol::{Line, Report, exit};
use pba_search::{DeviceChoice, Progress, Run, Spec, TrainingPlace};
use pba_wire::jobs::JobState;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::jobs::counts;
use crate::jobs::cpu_time::CpuTime;
use crate::jobs::places::{Place, Places};
use crate::jobs::record::Record;
use crate::jobs::table::Table;
use crate::jobs::workplace::{Got, Workplace};
use crate::shutdown::TRAINER_STOP;

/// The exit code of a trainer that was told to stop.
const INTERRUPTED: i32 = exit::INTERRUPTED as i32;
/// Most starts of a trainer that gets no further than the one before.
const STARTS_MAX: u32 = 4;
/// How often to look for a missing trainer, or for a dataset that is being imported.
const POLL: Duration = Duration::from_secs(1);
/// How often what follows a job is tried again that could not be queued, as on a full disk.
const OWED_POLL: Duration = Duration::from_secs(10);
/// How often the log tells how far a job is.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How often the processor time of a trainer is counted.
const CPU_TIME_INTERVAL: Duration = Duration::from_secs(1);
/// Longest line that a trainer sends: the last event of a search holds its schedule.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Characters of a line that is none of a trainer's that the log repeats.
const SHOWN_MAX: usize = 500;
/// Bytes of its standard error that go into the error message.
const STDERR_BYTES: usize = 4096;

/// How a trainer ended.
enum End {
    /// The job is done.
    Done,
    /// It crashed, was killed, or was stopped by something else.
    Crashed(String),
    /// It reported why it cannot continue.
    Failed(String),
    /// The job was cancelled.
    Cancelled,
    /// The server is shutting down.
    Stopped,
}

/// A job that waits for its turn.
pub(super) struct Queued {
    id: String,
    /// When it was requested, in milliseconds since 1970.
    created: u128,
    /// The device that it asks for.
    device: DeviceChoice,
}

/// The jobs of a kind that wait for their turn.
pub(super) trait Waiting: Send + Sync {
    /// Reads all of them from the disk, as the server that hosts them from now on.
    ///
    /// # Errors
    /// When their folder cannot be created or listed.
    fn take_over(&self) -> anyhow::Result<()>;

    /// The folders that cannot be read as such jobs, and why.
    fn ignored(&self) -> Vec<String>;

    /// Those that can be run.
    fn queued(&self, catalog: &Catalog) -> Vec<Queued>;

    /// Says what keeps a job from running.
    fn waits_for(&self, queued: &Queued, reason: String);

    /// Begins a job on a device: what runs it until it has ended or `stop` turns true. None when it no longer
    /// waits.
    fn begin<'a>(
        &'a self,
        queued: &Queued,
        place: Place,
        registry: &'a Registry,
        stop: watch::Receiver<bool>,
    ) -> Option<BoxFuture<'a, ()>>;
}

impl<K: Run> Waiting for Table<K> {
    fn take_over(&self) -> anyhow::Result<()> {
        self.read()
    }

    fn ignored(&self) -> Vec<String> {
        Table::ignored(self)
    }

    fn queued(&self, catalog: &Catalog) -> Vec<Queued> {
        let queued = |record: Arc<Record<K>>| Queued {
            id: record.id().to_owned(),
            created: record.created(),
            device: record.spec().training().device,
        };
        self.waiting(catalog).into_iter().map(queued).collect()
    }

    fn waits_for(&self, queued: &Queued, reason: String) {
        if let Ok(record) = self.get(&queued.id) {
            record.waits_for(Some(reason));
        }
    }

    fn begin<'a>(
        &'a self,
        queued: &Queued,
        place: Place,
        registry: &'a Registry,
        mut stop: watch::Receiver<bool>,
    ) -> Option<BoxFuture<'a, ()>> {
        let record = self.get(&queued.id).ok().filter(|record| record.begin())?;
        self.count_states();
        let device = place.device();
        tracing::info!(id = record.id(), %device, "{} runs", K::JOB.name);
        // On a CPU `auto` is left to the trainer, which may know better.
        let auto = Some(device).filter(|device| *device != DeviceChoice::Cpu);
        let run = async move {
            run(&self.workplace, registry, &record, auto, &mut stop).await;
            self.count_states();
        };
        Some(run.boxed())
    }
}

/// Runs the jobs of all kinds, in the order in which they were requested, one at a time on each device,
/// until `stop` turns true; the running ones resume after a restart. `follow_up` queues what those that
/// are done ask for, and tells whether something could not be queued yet.
pub(super) async fn supervise(
    kinds: &[Arc<dyn Waiting>],
    workplace: &Workplace,
    catalog: &Catalog,
    registry: &Registry,
    follow_up: impl Fn() -> bool,
    mut stop: watch::Receiver<bool>,
) {
    let (mut places, mut running, mut was_blocked) = (Places::default(), FuturesUnordered::new(), false);
    let mut is_unsure = false;
    let mut asking: Option<BoxFuture<'_, Option<u32>>> = None;
    while !*stop.borrow() {
        let is_owed = follow_up();
        let obstacle = obstacle(workplace);
        let is_blocked = obstacle.is_some();
        // Asked first: a dataset that becomes ready from here on is looked for again.
        let imports = catalog.imports();
        let mut waiting: Vec<(Queued, &Arc<dyn Waiting>)> = Vec::new();
        for kind in kinds {
            waiting.extend(kind.queued(catalog).into_iter().map(|queued| (queued, kind)));
        }
        waiting.sort_by_key(|(queued, _)| queued.created);
        let waits = !waiting.is_empty();
        let trainer = workplace.trainer.program().display();
        if let Some(reason) = obstacle {
            if waits && !was_blocked {
                tracing::warn!("queued jobs wait: {reason}");
            }
            for (queued, kind) in &waiting {
                kind.waits_for(queued, reason.clone());
            }
        } else {
            // GPUs do not come and go while a server runs.
            let is_auto = |(queued, _): &(Queued, _)| queued.device == DeviceChoice::Auto;
            if places.gpus.is_none() && waiting.iter().any(is_auto) {
                asking.get_or_insert_with(|| workplace.trainer.gpus().boxed());
            }
            for (queued, kind) in waiting {
                let Some(place) = places.free(queued.device) else {
                    let reason = match places.gpus {
                        None if queued.device == DeviceChoice::Auto => {
                            format!(
                                "{trainer} was asked which devices it can train on, and has not answered yet"
                            )
                        }
                        _ => "its turn: another job trains on its device".to_owned(),
                    };
                    kind.waits_for(&queued, reason);
                    continue;
                };
                if let Some(run) = kind.begin(&queued, place, registry, stop.clone()) {
                    places.take(place);
                    running.push(run.map(move |()| place));
                }
            }
        }
        was_blocked = is_blocked;
        let polls = (waits && is_blocked) || imports;
        tokio::select! {
            Some(place) = running.next() => {
                places.release(place);
                is_unsure.then(|| places.gpus = None);
            }
            // A trainer that does not say is taken to have none, and is asked again before the next job.
            gpus = answer(&mut asking) => {
                (places.gpus, is_unsure, asking) = (Some(gpus.unwrap_or(0)), gpus.is_none(), None);
            }
            () = workplace.queued.notified() => {}
            () = tokio::time::sleep(POLL), if polls => {}
            () = tokio::time::sleep(OWED_POLL), if is_owed => {}
            () = told(&mut stop) => {}
        }
    }
    // They were told to stop as well.
    while running.next().await.is_some() {}
}

/// What keeps every job from being run.
fn obstacle(workplace: &Workplace) -> Option<String> {
    // Another server may run them by now.
    if let Err(error) = tokio::task::block_in_place(|| workplace.lock.check_in_place()) {
        return Some(error.detail);
    }
    // The trainer may still be being built, as by `make run`, or not be mounted: the jobs of a restarted server wait
    // for it.
    let trainer = &workplace.trainer;
    let missing = || format!("there is no trainer: {} cannot be run", trainer.program().display());
    (!trainer.is_there()).then(missing)
}

/// The answer to a question; never, if nothing is asked.
async fn answer<T>(question: &mut Option<BoxFuture<'_, T>>) -> T {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

async fn run<K: Run>(
    workplace: &Workplace,
    registry: &Registry,
    record: &Record<K>,
    auto: Option<DeviceChoice>,
    stop: &mut watch::Receiver<bool>,
) {
    let mut starts = 0;
    let mut checkpoint = record.saved_epoch();
    loop {
        record.started(&workplace.metrics);
        let end = attempt(workplace, record, auto, stop).await;
        record.ended(&workplace.metrics);
        let end = end.unwrap_or_else(|error| {
            let reason = format!("{error:#}");
            workplace.trouble.set(reason.clone(), Got::Started);
            End::Failed(reason)
        });
        let reached = record.saved_epoch();
        starts = if reached > checkpoint { 1 } else { starts + 1 };
        if matches!(end, End::Done) {
            workplace.trouble.got(Got::Saved);
        }
        checkpoint = reached;
        match end {
            End::Done => {
                let finish = || finish(record, registry, workplace.trainer.program());
                return match tokio::task::block_in_place(finish) {
                    Ok(()) => enter(record, JobState::Done),
                    Err(error) => fail(record, format!("{error:#}")),
                };
            }
            End::Cancelled => return enter(record, JobState::Cancelled),
            End::Stopped => return record.enter(JobState::Queued, None),
            End::Failed(reason) => return fail(record, reason),
            End::Crashed(reason) if starts >= STARTS_MAX => {
                let reason = format!("the trainer ended {starts} times without progress: {reason}");
                workplace.trouble.set(reason.clone(), Got::Saved);
                return fail(record, reason);
            }
            End::Crashed(reason) => {
                tracing::warn!(id = record.id(), %reason, "the trainer ended; resuming from a checkpoint");
                counts::restart::<K>(&workplace.metrics);
            }
        }
    }
}

/// Completes a job whose trainer has ended successfully: registers the schedule that it learned, unless its user
/// has removed that, as before a server that was killed here is started again.
fn finish<K: Run>(record: &Record<K>, registry: &Registry, program: &Path) -> anyhow::Result<()> {
    let job = record.job().filter(K::is_complete).with_context(|| {
        format!("the trainer ended without {}; is {} a pba-trainer?", K::JOB.result, program.display())
    })?;
    if let Some(schedule) = job.schedule().filter(|_| !record.is_schedule_removed()) {
        let put = registry.put(schedule.clone());
        put.map_err(|error| anyhow::anyhow!("cannot register the schedule: {}", error.detail))?;
    }
    Ok(())
}

fn enter<K: Run>(record: &Record<K>, state: JobState) {
    tracing::info!(id = record.id(), "{} {state}", K::JOB.name);
    record.enter(state, None);
}

fn fail<K: Run>(record: &Record<K>, reason: String) {
    tracing::error!(id = record.id(), %reason, "{} failed", K::JOB.name);
    record.enter(JobState::Failed, Some(reason));
}

/// Completes when the server shuts down.
async fn told(stop: &mut watch::Receiver<bool>) {
    // The sender is dropped only with the server.
    let _ = stop.wait_for(|&stop| stop).await;
}

/// One run of a trainer.
async fn attempt<K: Run>(
    workplace: &Workplace,
    record: &Record<K>,
    auto: Option<DeviceChoice>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<End> {
    let Workplace { trainer, cache, .. } = workplace;
    let start = || {
        workplace.lock.check_in_place().map_err(|error| anyhow::anyhow!(error.detail))?;
        trainer.start::<K>(&record.spec(), record.directory(), &record.source(), cache, auto)
    };
    let mut child = tokio::task::block_in_place(start)?;
    let (mut stdout, mut part) = (BufReader::new(child.stdout.take().expect("stdout is piped")), Vec::new());
    let stderr = child.stderr.take().expect("stderr is piped");
    let complaints = tokio::spawn(last_words(record.id().to_owned(), stderr));

    let (mut failure, mut logged, mut has_started) = (None, None, false);
    let mut cpu_time = CpuTime::of(child.id());
    let mut count_cpu_time = || {
        let more = tokio::task::block_in_place(|| cpu_time.more());
        workplace.metrics.trainer_cpu_seconds.inc_by(more);
    };
    let mut ticks = tokio::time::interval(CPU_TIME_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => count_cpu_time(),
            line = next_line(&mut stdout, &mut part) => match line? {
                Some(line) => {
                    let saved = record.saved_epoch();
                    match take_in(workplace, record, &line)? {
                        Told::Nothing => {}
                        Told::Running => {
                            has_started = true;
                            let has_saved = record.saved_epoch() > saved;
                            workplace.trouble.got(if has_saved { Got::Saved } else { Got::Started });
                        }
                        Told::Failed(reason) => failure = Some(reason),
                    }
                    if logged.is_none_or(|at: Instant| at.elapsed() > LOG_INTERVAL) && log(record) {
                        logged = Some(Instant::now());
                    }
                }
                None => break,
            },
            () = record.cancelled.notified() => {
                end(&mut child).await;
                return Ok(End::Cancelled);
            }
            () = told(stop) => {
                end(&mut child).await;
                return Ok(End::Stopped);
            }
        }
    }
    // Once it is waited for, the system forgets it.
    count_cpu_time();
    let status = child.wait().await.context("cannot wait for the trainer")?;
    let complaints = complaints.await.unwrap_or_default();
    let ending = match complaints.trim() {
        "" => format!("{status}"),
        last_words => format!("{status}: {last_words}"),
    };
    Ok(match (status.code(), failure) {
        (Some(0), _) => End::Done,
        (Some(INTERRUPTED) | None, _) => End::Crashed(ending),
        (_, Some(reason)) => End::Failed(reason),
        // It said nothing of a failure: its device failed, or a thread panicked. What ran well up to a
        // checkpoint is worth another try.
        (Some(_), None) if record.saved_epoch() > 0 => End::Crashed(ending),
        // Else libtorch is missing, or the members do not fit the device.
        (Some(_), None) => {
            let reason = format!("the trainer ended with {ending}");
            workplace.trouble.set(reason.clone(), if has_started { Got::Saved } else { Got::Started });
            End::Failed(reason)
        }
    })
}

/// The next line of a trainer, of which `part` was read before; none after the last.
///
/// # Errors
/// When it cannot be read, is not text, or is longer than any that a trainer sends.
async fn next_line(
    stdout: &mut (impl AsyncBufRead + Unpin),
    part: &mut Vec<u8>,
) -> anyhow::Result<Option<String>> {
    let room = LINE_BYTES_MAX + 1 - part.len();
    stdout.take(room as u64).read_until(b'\n', part).await.context("cannot read from the trainer")?;
    if part.len() > LINE_BYTES_MAX {
        let mebibytes = LINE_BYTES_MAX >> 20;
        anyhow::bail!("the trainer sent a line of more than {mebibytes} MiB, which no pba-trainer does");
    }
    let mut line =
        String::from_utf8(std::mem::take(part)).context("the trainer sent a line that is not text")?;
    let is_over = line.is_empty();
    line.truncate(line.trim_end().len());
    Ok((!is_over).then_some(line))
}

/// Logs how far a job is and how long it will take, once that is known.
fn log<K: Run>(record: &Record<K>) -> bool {
    let Some(progress) = record.progress().filter(|progress| progress.seconds_left.is_some()) else {
        return false;
    };
    let Progress { epoch, epochs, images_per_second, seconds_left, .. } = progress;
    tracing::info!(
        id = record.id(),
        epoch,
        epochs,
        images_per_second,
        seconds_left,
        "{} goes on",
        K::JOB.name
    );
    true
}

/// What a line of a trainer says of it.
enum Told {
    /// It is none of a trainer's.
    Nothing,
    /// It runs the job.
    Running,
    /// It cannot go on, and why.
    Failed(String),
}

/// Processes one line of the trainer.
fn take_in<K: Run>(workplace: &Workplace, record: &Record<K>, line: &str) -> anyhow::Result<Told> {
    match serde_json::from_str::<Line<K::Event>>(line) {
        Ok(Line::Event(event)) => record.happened(&event, &workplace.metrics)?,
        Ok(Line::Report(report)) => match report {
            Report::Resumed { epoch, events } => record.reread(epoch, events)?,
            Report::Waits { reason } => record.waits_for(Some(reason)),
            Report::Restored { images, .. } => record.restored(images),
            Report::Saved { epoch } => record.saved(epoch),
            Report::Device(place) => {
                let TrainingPlace { device, strategy, precision, threads, note } = &place;
                tracing::info!(
                    id = record.id(),
                    device,
                    strategy,
                    precision,
                    threads,
                    "{} trains",
                    K::JOB.name
                );
                if let Some(note) = note {
                    tracing::warn!(id = record.id(), "{note}");
                }
                record.placed(place);
            }
            Report::Progress(progress) => record.progressed(progress, &workplace.metrics),
            Report::Failed { error } => return Ok(Told::Failed(error)),
            _ => tracing::debug!(id = record.id(), ?report, "trainer"),
        },
        // A spec that was valid when the job was requested, for example with a device that is gone.
        Ok(Line::Refused { error }) => return Ok(Told::Failed(error.message)),
        Err(_) => {
            let line: String = line.chars().take(SHOWN_MAX).collect();
            tracing::warn!(id = record.id(), line, "the trainer sent a line that is not an event");
            return Ok(Told::Nothing);
        }
    }
    Ok(Told::Running)
}

/// Tells a trainer to stop, and kills it if it does not.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
        // It may have exited on its own.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if timeout(TRAINER_STOP, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Logs what a trainer says on its standard error; gives the end of it.
async fn last_words(id: String, stderr: ChildStderr) -> String {
    let (mut stderr, mut kept) = (BufReader::new(stderr), Vec::new());
    loop {
        let mut line = Vec::new();
        // A line may be of any length.
        let read = (&mut stderr).take(STDERR_BYTES as u64).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return String::from_utf8_lossy(&kept).into_owned();
        }
        tracing::warn!(id, "trainer: {}", String::from_utf8_lossy(&line).trim_end());
        kept.extend_from_slice(&line);
        let excess = kept.len().saturating_sub(STDERR_BYTES);
        kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use pba_search::toy::ToyTrainer;
    use pba_search::{Search, SearchSpec};

    use super::*;
    use crate::catalog::schedules::Bounds;
    use crate::data_lock::DataLock;
    use crate::jobs::entry::{Entry, Source};
    use crate::metrics::Metrics;

    /// What its user removes while a search ends stays away, until the search is resumed.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_schedule_that_is_removed_while_its_search_ends_is_not_registered() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, metrics) = (DataLock::of_test(folder.path()), Metrics::new().unwrap());
        let bounds = Bounds { count: 1, bytes: 1 << 20, bytes_total: 1 << 20 };
        let registry = Registry::open(folder.path(), &lock, bounds).unwrap();
        let spec = SearchSpec::from_json(r#"{"name": "mine", "population": 2, "epochs": 6}"#).unwrap();
        let source = Source::new("shapes".to_owned(), Default::default());
        let record = Record::<Search>::begun(folder.path(), Entry::new(spec.clone(), source, 0, None), &lock);
        record.create(&[]).unwrap();
        assert!(record.begin());
        let started =
            pba_search::Event::Started { spec: Box::new(spec.clone()), dataset_digest: "d".to_owned() };
        record.happened(&started, &metrics).unwrap();
        let mut search = Search::new(spec.clone());
        pba_search::run(&mut search, &mut ToyTrainer::new(&spec), |event| {
            record.happened(event, &metrics).unwrap();
            Ok(())
        })
        .unwrap();
        record.schedule_removed(true).unwrap();
        finish(&record, &registry, Path::new("pba-trainer")).unwrap();
        assert!(registry.get("mine").is_err());
        record.enter(JobState::Failed, None);
        record.resume().unwrap();
        assert!(record.begin());
        finish(&record, &registry, Path::new("pba-trainer")).unwrap();
        assert!(registry.get("mine").is_ok());
    }

    #[tokio::test]
    async fn lines_are_read_up_to_a_length() {
        let text = b"one\n\nlast".as_slice();
        let (mut stdout, mut part) = (BufReader::new(text), Vec::new());
        for line in ["one", "", "last"] {
            assert_eq!(next_line(&mut stdout, &mut part).await.unwrap().as_deref(), Some(line));
        }
        assert_eq!(next_line(&mut stdout, &mut part).await.unwrap(), None);
        assert!(next_line(&mut b"\xff\n".as_slice(), &mut part).await.is_err());

        let mut longest = vec![b'x'; LINE_BYTES_MAX];
        *longest.last_mut().unwrap() = b'\n';
        let line = next_line(&mut longest.as_slice(), &mut part).await.unwrap();
        assert_eq!(line.map(|line| line.len()), Some(LINE_BYTES_MAX - 1));
        // It is not read to its end, which may never come.
        let mut endless = BufReader::new(tokio::io::repeat(b'x'));
        let error = next_line(&mut endless, &mut part).await.unwrap_err();
        assert!(error.to_string().contains("more than 16 MiB"), "{error}");
    }
}
