//! Checkpoints: one safetensors file holds all members after an epoch.
//!
//! The members are copied at the end of an epoch, on their device. A thread of its own writes the latest
//! copy every so often, so that training waits for no disk. A run that ends in any way but by force writes the
//! last one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pba_search::TrainingSpec;
use pba_search::protocol::{Report, files};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorView};
use tch::{Device, Kind, Tensor};

use crate::network::rows::Rows;
use crate::report;
use crate::torch::{DeviceFault, Frozen};

const FORMAT: &str = "pba-checkpoint/1";
/// What older versions saved in the middle of a generation.
const MID_GENERATION: &str = "between.safetensors";
/// Longest time from one write to the next.
const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Writes come this many times their own duration after one another, up to that: short ones take a hundredth of
/// the time at most.
const INTERVAL_WRITES: u32 = 100;
/// Longest head of a file that is read; those of ours have a few hundred bytes.
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// The time from one write to the next, at least, when a write takes so long.
pub(crate) fn interval(took: Duration) -> Duration {
    INTERVAL_MAX.min(took * INTERVAL_WRITES)
}

/// What the members are after an epoch.
pub(crate) struct Snapshot {
    /// Epochs of the generation whose policies they train with: what the journal must tell of.
    pub(crate) generation: u32,
    /// Epochs that they have trained.
    pub(crate) epoch: u32,
    pub(crate) rows: Rows,
}

/// A checkpoint in a folder, by what its head says.
#[derive(Debug)]
pub(crate) struct Found {
    path: PathBuf,
    /// As in [`Snapshot`].
    pub(crate) generation: u32,
    epoch: u32,
}

/// The checkpoints of a run: the last two that were written.
pub(crate) struct Checkpoints {
    writer: Writer,
    /// From one write to the next, at least; by default as the constants above say.
    interval: Option<Duration>,
    /// The members after the last epoch, unless that copy is written or being written.
    latest: Option<Snapshot>,
    /// The one write in flight.
    writing: Option<JoinHandle<anyhow::Result<Duration>>>,
    /// How long the one before took; nothing before the first.
    took: Duration,
    /// When it began.
    began: Instant,
    /// Epochs of the last checkpoint that was written, or restored.
    last: u32,
}

/// What the thread that writes needs to know.
#[derive(Clone, Debug)]
struct Writer {
    folder: PathBuf,
    /// What the checkpoints belong to.
    owner: Owner,
}

/// The run that checkpoints belong to, in words that stay the same when specs get more fields.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// Name of the model.
    pub(crate) model: String,
    /// What tells its training from others of the model.
    pub(crate) training: String,
}

impl Owner {
    /// The owner of what is trained in this way, wherever that is.
    pub(crate) fn of(training: &TrainingSpec) -> Owner {
        let TrainingSpec { model, dataset, epochs, batch_size, seed, split_seed, .. } = training;
        let training = format!(
            "{epochs} epochs on {dataset} in batches of {batch_size}, seed {seed}, split seed {split_seed}"
        );
        Owner { model: model.to_string(), training }
    }
}

impl Checkpoints {
    /// Checkpoints that are written `interval` after one another at the earliest.
    pub(crate) fn new(folder: &Path, owner: Owner, interval: Option<Duration>) -> Checkpoints {
        let writer = Writer { folder: folder.to_owned(), owner };
        let (latest, writing, took) = (None, None, Duration::ZERO);
        Checkpoints { writer, interval, latest, writing, took, began: Instant::now(), last: 0 }
    }

    /// The latest checkpoint of the generation that begins after `generation` epochs, as (epochs, members),
    /// if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn restore(&mut self, generation: u32, members: u32) -> anyhow::Result<Option<(u32, Rows)>> {
        let found = found(&self.writer.folder)?.into_iter().rfind(|found| found.generation == generation);
        let Some(Found { path, epoch, .. }) = found else {
            return Ok(None);
        };
        self.last = epoch;
        let rows = self.writer.read(&path, members)?;
        report::tell(&Report::Saved { epoch });
        Ok(Some((epoch, rows)))
    }

    /// Takes what the members are, and begins to write it if it is time to.
    ///
    /// # Errors
    /// When the write before has failed.
    pub(crate) fn take(&mut self, snapshot: Snapshot) -> anyhow::Result<()> {
        self.latest = Some(snapshot);
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.join()?;
        }
        let interval = self.interval.unwrap_or(interval(self.took));
        if self.writing.is_none() && self.began.elapsed() >= interval {
            self.write();
        }
        Ok(())
    }

    /// Writes the latest members, unless they are on disk. Everything that was taken is, or is outdated, when
    /// this returns.
    ///
    /// # Errors
    /// When a write fails.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        let before = self.join();
        self.write();
        self.join().and(before)
    }

    /// Waits until what is being written is on disk.
    ///
    /// # Errors
    /// When the write fails.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        self.join()
    }

    fn write(&mut self) {
        let Some(snapshot) = self.latest.take() else { return };
        let (writer, last) = (self.writer.clone(), self.last);
        self.last = snapshot.epoch;
        self.began = Instant::now();
        self.writing = Some(thread::spawn(move || {
            // A thread of its own has libtorch's own number of them, which would wait for work by spinning.
            tch::set_num_threads(1);
            let start = Instant::now();
            writer.save(&snapshot, last).map(|()| start.elapsed())
        }));
    }

    /// Waits for the write in flight.
    fn join(&mut self) -> anyhow::Result<()> {
        match self.writing.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(written)) => written.map(|took| self.took = took),
            // It copies from the device, which may have failed.
            Some(Err(_)) => Err(DeviceFault::new("the thread that saves the members panicked").into()),
        }
    }
}

/// No write outlives what it is a copy of: a later one, of other members, could be undone by it.
impl Drop for Checkpoints {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            eprintln!("warning: {error:#}");
        }
    }
}

impl Writer {
    /// Writes a snapshot beside the checkpoint of epoch `last`, deletes the others, and reports it.
    fn save(&self, snapshot: &Snapshot, last: u32) -> anyhow::Result<()> {
        let epoch = snapshot.epoch;
        self.write(snapshot).with_context(|| {
            format!("cannot save the checkpoint of epoch {epoch}; the run can resume from the previous one")
        })?;
        for found in found(&self.folder)? {
            if found.path.ends_with(MID_GENERATION) || ![last, epoch].contains(&found.epoch) {
                let path = &found.path;
                fs::remove_file(path).with_context(|| format!("cannot delete {}", path.display()))?;
            }
        }
        report::tell(&Report::Saved { epoch });
        Ok(())
    }

    fn write(&self, Snapshot { generation, epoch, rows }: &Snapshot) -> anyhow::Result<()> {
        let rows = rows.map(|tensor| tensor.to_device(Device::Cpu));
        let frozen = rows.named().map(|(name, tensor)| (name, Frozen::new(tensor)));
        let views = frozen.iter().map(|(name, tensor)| {
            let size = tensor.size().into_iter().map(|side| side as usize).collect();
            TensorView::new(Dtype::F32, size, tensor.bytes()).map(|view| (name, view))
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("model".to_owned(), self.owner.model.clone()),
            ("training".to_owned(), self.owner.training.clone()),
            ("epoch".to_owned(), epoch.to_string()),
            ("generation".to_owned(), generation.to_string()),
        ]);
        // The members are of use with the events that led to them only.
        match File::open(self.folder.join(files::JOURNAL)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            journal => journal.and_then(|journal| journal.sync_data()).context("cannot sync the journal")?,
        }
        let path = self.folder.join(format!("checkpoint-{epoch:06}.safetensors"));
        // The numbers go to the disk from where they are: a copy would take longer than the writing.
        let written = pba_files::replace_with(&path, |file| {
            let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
            safetensors::serialize_to_file(views, Some(metadata), Path::new(&descriptor))
        });
        written.map_err(|error| match error {
            SafeTensorError::IoError(error) => plainly(error).into(),
            error => error.into(),
        })
    }

    /// The members in a checkpoint.
    fn read(&self, path: &Path, members: u32) -> anyhow::Result<Rows> {
        let read = || -> anyhow::Result<Rows> {
            let bytes = fs::read(path)?;
            let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
            let Owner { model: own, training } = &self.owner;
            let (format, model) = (says(&metadata, "format"), says(&metadata, "model"));
            ensure!((format, model) == (FORMAT, own), "it holds {format:?} of {model:?}, not of {own:?}");
            // Those of older versions do not say.
            let there = Some(says(&metadata, "training")).filter(|there| !there.is_empty());
            ensure!(
                there.is_none_or(|there| there == training),
                "it is of another run: of {there:?}, not of {training:?}"
            );
            let file = SafeTensors::deserialize(&bytes)?;
            let tensor = |name: &str| -> anyhow::Result<Tensor> {
                let view = file.tensor(name)?;
                let (dtype, shape) = (view.dtype(), view.shape());
                ensure!(
                    shape.len() == 2 && shape[0] == members as usize && dtype == Dtype::F32,
                    "{name} is {dtype:?} {shape:?}, not a row for each member"
                );
                Ok(Tensor::from_data_size(view.data(), &[shape[0] as i64, shape[1] as i64], Kind::Float))
            };
            Rows::by_name(tensor)
        };
        read().with_context(|| format!("cannot load the checkpoint {}", path.display()))
    }
}

/// The checkpoints in a folder, by epoch, ascending. A file that is none is told of and left out: the run
/// resumes from the one before.
///
/// # Errors
/// When the folder cannot be listed, or a file cannot be read.
pub(crate) fn found(folder: &Path) -> anyhow::Result<Vec<Found>> {
    let cannot = || format!("cannot list the run folder {}", folder.display());
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = name.starts_with("checkpoint-") && name.ends_with(".safetensors");
        if !is_ours && name != MID_GENERATION {
            continue;
        }
        match head(&path) {
            Ok((generation, epoch)) => all.push(Found { path, generation, epoch }),
            // Nobody knows what is in it: going on without it could lose what is.
            Err(error) if is_of_the_system(&error) => {
                return Err(error).with_context(|| format!("cannot read the checkpoint {}", path.display()));
            }
            Err(error) => eprintln!("warning: {} is no checkpoint: {error:#}", path.display()),
        }
    }
    all.sort_by_key(|found| found.epoch);
    Ok(all)
}

/// Whether a file could not be read, as opposed to holding something else.
fn is_of_the_system(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() != ErrorKind::UnexpectedEof)
}

/// Generation and epoch of a checkpoint.
fn head(path: &Path) -> anyhow::Result<(u32, u32)> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut head = [0; 8];
    file.read_exact(&mut head)?;
    let length = u64::from_le_bytes(head);
    ensure!(length <= HEAD_BYTES_MAX, "its head has {length} bytes");
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    let metadata: Metadata = serde_json::from_slice(&text)?;
    let whole = head.len() as u64 + length + metadata.data_len() as u64;
    ensure!(bytes == whole, "it has {bytes} bytes, not {whole}");
    Ok((says(&metadata, "generation").parse()?, says(&metadata, "epoch").parse()?))
}

fn says<'a>(metadata: &'a Metadata, key: &str) -> &'a str {
    metadata.metadata().as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

/// Replaces or creates a file, with a plain error message when the disk is full.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    pba_files::replace(path, bytes).map_err(plainly)
}

fn plainly(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        ErrorKind::StorageFull => std::io::Error::new(error.kind(), "no space left on the disk"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use pba_search::{SearchSpec, Spec};

    use super::*;

    fn rows(members: i64) -> Rows {
        let random = |len| Tensor::randn([members, len], (Kind::Float, tch::Device::Cpu));
        Rows { parameters: random(32), momentum: random(32), statistics: random(16) }
    }

    fn owner(model: &str, training: &str) -> Owner {
        Owner { model: model.to_owned(), training: training.to_owned() }
    }

    /// Checkpoints that are written at once.
    fn at_once(folder: &Path) -> Checkpoints {
        Checkpoints::new(folder, owner("tiny", "one"), Some(Duration::ZERO))
    }

    fn save(checkpoints: &mut Checkpoints, generation: u32, epoch: u32, rows: Rows) {
        checkpoints.take(Snapshot { generation, epoch, rows }).unwrap();
        checkpoints.finish().unwrap();
    }

    /// (generation, epoch) of the existing checkpoints, ascending.
    fn on_disk(folder: &Path) -> Vec<(u32, u32)> {
        found(folder).unwrap().iter().map(|found| (found.generation, found.epoch)).collect()
    }

    #[test]
    fn a_checkpoint_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = at_once(folder.path());
        let saved = rows(3);
        save(&mut checkpoints, 3, 3, rows(3));
        save(&mut checkpoints, 6, 6, saved.map(Tensor::copy));
        assert_eq!(on_disk(folder.path()), [(3, 3), (6, 6)]);
        let (epoch, loaded) = at_once(folder.path()).restore(6, 3).unwrap().unwrap();
        assert_eq!(epoch, 6);
        assert_eq!(loaded.parameters, saved.parameters);
        assert_eq!(loaded.momentum, saved.momentum);
        assert_eq!(loaded.statistics, saved.statistics);
        save(&mut checkpoints, 1_000_000, 1_000_000, saved);
        assert_eq!(on_disk(folder.path()), [(6, 6), (1_000_000, 1_000_000)], "the last two are kept");
    }

    #[test]
    fn the_latest_of_a_generation_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = at_once(folder.path());
        assert!(checkpoints.restore(0, 2).unwrap().is_none());
        save(&mut checkpoints, 0, 2, rows(2));
        assert_eq!(checkpoints.restore(0, 2).unwrap().unwrap().0, 2);
        save(&mut checkpoints, 3, 3, rows(2));
        save(&mut checkpoints, 3, 5, rows(2));
        assert_eq!(checkpoints.restore(3, 2).unwrap().unwrap().0, 5);
        assert_eq!(on_disk(folder.path()), [(3, 3), (3, 5)]);
        assert!(checkpoints.restore(6, 2).unwrap().is_none());
    }

    #[test]
    fn what_is_taken_within_the_interval_is_written_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints =
            Checkpoints::new(folder.path(), owner("tiny", "one"), Some(Duration::from_secs(3600)));
        for epoch in 1..=3 {
            checkpoints.take(Snapshot { generation: epoch, epoch, rows: rows(2) }).unwrap();
        }
        assert_eq!(on_disk(folder.path()), []);
        checkpoints.finish().unwrap();
        assert_eq!(on_disk(folder.path()), [(3, 3)]);
        checkpoints.finish().unwrap();
    }

    #[test]
    fn older_versions_names_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = at_once(folder.path());
        save(&mut checkpoints, 3, 3, rows(2));
        save(&mut checkpoints, 3, 4, rows(2));
        let path = |name: &str| folder.path().join(name);
        fs::rename(path("checkpoint-000004.safetensors"), path(MID_GENERATION)).unwrap();
        assert_eq!(at_once(folder.path()).restore(3, 2).unwrap().unwrap().0, 4);
        save(&mut checkpoints, 6, 6, rows(2));
        assert!(!path(MID_GENERATION).exists());
    }

    #[test]
    fn a_write_that_fails_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        // Where the next file is to be written there is a folder.
        fs::create_dir(folder.path().join("checkpoint-000002.safetensors.partial")).unwrap();
        let mut checkpoints = at_once(folder.path());
        let snapshot = |epoch| Snapshot { generation: epoch, epoch, rows: rows(2) };
        checkpoints.take(snapshot(2)).unwrap();
        while !checkpoints.writing.as_ref().unwrap().is_finished() {
            thread::yield_now();
        }
        let error = format!("{:#}", checkpoints.take(snapshot(4)).unwrap_err());
        assert!(error.contains("cannot save the checkpoint of epoch 2"), "{error}");
        // What came after it is not lost.
        checkpoints.finish().unwrap();
        assert_eq!(on_disk(folder.path()), [(4, 4)]);
    }

    #[test]
    fn another_runs_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = at_once(folder.path());
        save(&mut checkpoints, 3, 3, rows(3));
        let refused = |checkpoints: &mut Checkpoints, members| {
            format!("{:#}", checkpoints.restore(3, members).unwrap_err())
        };
        assert!(refused(&mut checkpoints, 4).contains("not a row for each member"));
        let others = |owner| Checkpoints::new(folder.path(), owner, Some(Duration::ZERO));
        assert!(refused(&mut others(owner("wrn-40-2", "one")), 3).contains("\"tiny\""));
        assert!(refused(&mut others(owner("tiny", "other")), 3).contains("another run"));
        // What is no checkpoint, or not a whole one, is not restored.
        let path = folder.path().join("checkpoint-000003.safetensors");
        let bytes = fs::read(&path).unwrap();
        for wrong in [&bytes[..bytes.len() - 1], &bytes[..100], b"torn", b""] {
            fs::write(&path, wrong).unwrap();
            assert_eq!(on_disk(folder.path()), []);
        }
        // What cannot be read is not passed over: it may be whole.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refused(&mut checkpoints, 3).contains("cannot read the checkpoint"));
    }

    #[test]
    fn the_owner_is_how_models_are_trained_and_not_where() {
        let owner = |text: &str| {
            let spec = SearchSpec::from_json(text).unwrap();
            Owner::of(spec.training()).training
        };
        assert_eq!(owner("{}"), owner(r#"{"device": "cuda:1", "precision": "bf16"}"#));
        assert_ne!(owner("{}"), owner(r#"{"seed": 7}"#));
    }
}
