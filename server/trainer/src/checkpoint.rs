//! Checkpoints: one safetensors file holds all members after an epoch.
//!
//! Its head holds a checksum of the whole file. One that is damaged, or that the disk cannot read, is told of and
//! passed over: the run resumes at the one before, or begins anew, and ends with the same result.
//!
//! The members are copied at the end of an epoch, on their device. A thread of its own writes the latest
//! copy every so often, so that training waits for no disk. A run that ends in any way but by force writes the
//! last one.

use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pba_search::TrainingSpec;
use pba_search::protocol::{Report, files};
use safetensors::tensor::{Dtype, Metadata, SafeTensors};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use twox_hash::XxHash3_64;

use crate::network::rows::Rows;
use crate::report;
use crate::torch::{DeviceFault, Frozen};

const FORMAT: &str = "pba-checkpoint/2";
/// What older versions wrote, without a checksum.
const FORMAT_WITHOUT_CHECKSUM: &str = "pba-checkpoint/1";
/// The key of the checksum in the head: XXH3 with 64 bits of the whole file, as hexadecimal digits, where these
/// digits are zeros.
const CHECKSUM: &str = "xxh3";
const NO_CHECKSUM: &str = "0000000000000000";
/// The head ends at a multiple of so many bytes, so that the numbers after it are aligned.
const HEAD_ALIGNMENT: usize = 8;
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
    /// What tells its run from others of that training; nothing where there is no journal.
    pub(crate) run: String,
}

impl Owner {
    /// The owner of what a run trains in this way, wherever that is.
    pub(crate) fn of(training: &TrainingSpec, run: &str) -> Owner {
        let TrainingSpec { model, dataset, epochs, batch_size, seed, split_seed, .. } = training;
        let training = format!(
            "{epochs} epochs on {dataset} in batches of {batch_size}, seed {seed}, split seed {split_seed}"
        );
        Owner { model: model.to_string(), training, run: run.to_owned() }
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
    /// if there is one that is whole.
    ///
    /// # Errors
    /// When it cannot be read, or is of another run.
    pub(crate) fn restore(&mut self, generation: u32, members: u32) -> anyhow::Result<Option<(u32, Rows)>> {
        let found = found(&self.writer.folder)?.into_iter().rev();
        for found in found.filter(|found| found.generation == generation) {
            if let Some(bytes) = found.load()? {
                self.last = found.epoch;
                let rows = self.writer.owner.rows(&bytes, members);
                let cannot = || format!("cannot load the checkpoint {}", found.path.display());
                return Ok(Some((found.epoch, rows.with_context(cannot)?)));
            }
        }
        Ok(None)
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
        let kept = [name_of(last), name_of(epoch)];
        for path in paths(&self.folder)? {
            if !kept.iter().any(|name| path.ends_with(name)) {
                fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
            }
        }
        report::tell(&Report::Saved { epoch });
        Ok(())
    }

    fn write(&self, Snapshot { generation, epoch, rows }: &Snapshot) -> anyhow::Result<()> {
        let rows = rows.map(|tensor| tensor.to_device(Device::Cpu));
        let frozen = rows.named().map(|(name, tensor)| (name, Frozen::new(tensor)));
        let Owner { model, training, run } = &self.owner;
        let mut head = json!({ "__metadata__": {
            "format": FORMAT, "model": model, "training": training, "run": run, "epoch": epoch.to_string(),
            "generation": generation.to_string(), CHECKSUM: NO_CHECKSUM,
        }});
        let mut end = 0;
        for (name, tensor) in &frozen {
            let offsets = [end, end + tensor.bytes().len()];
            head[name] = json!({ "dtype": "F32", "shape": tensor.size(), "data_offsets": offsets });
            end = offsets[1];
        }
        let mut head = head.to_string();
        head.push_str(&" ".repeat(head.len().next_multiple_of(HEAD_ALIGNMENT) - head.len()));
        let length = (head.len() as u64).to_le_bytes();
        let digits = digits_in(&head, NO_CHECKSUM).context("the head holds no checksum")?;
        let mut hasher = XxHash3_64::new();
        [&length[..], head.as_bytes()].into_iter().for_each(|part| hasher.write(part));
        frozen.iter().for_each(|(_, tensor)| hasher.write(tensor.bytes()));
        head.replace_range(digits, &format!("{:016x}", hasher.finish()));
        // The members are of use with the events that led to them only.
        match File::open(self.folder.join(files::JOURNAL)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            journal => journal.and_then(|journal| journal.sync_data()).context("cannot sync the journal")?,
        }
        // The numbers go to the disk from where they are: a copy would take longer than the writing.
        let written = pba_files::replace_with(&self.folder.join(name_of(*epoch)), |mut file| {
            file.write_all(&length)?;
            file.write_all(head.as_bytes())?;
            frozen.iter().try_for_each(|(_, tensor)| file.write_all(tensor.bytes()))
        });
        Ok(written.map_err(plainly)?)
    }
}

impl Owner {
    /// The members in the bytes of a checkpoint that is whole.
    fn rows(&self, bytes: &[u8], members: u32) -> anyhow::Result<Rows> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let Owner { model: own, training, run } = self;
        let (format, model) = (says(&metadata, "format"), says(&metadata, "model"));
        ensure!(
            [FORMAT, FORMAT_WITHOUT_CHECKSUM].contains(&format) && model == own,
            "it holds {format:?} of {model:?}, not {FORMAT:?} of {own:?}"
        );
        // Those of older versions do not say.
        let there = Some(says(&metadata, "training")).filter(|there| !there.is_empty());
        ensure!(
            there.is_none_or(|there| there == training),
            "it is of another run: of {there:?}, not of {training:?}"
        );
        let there = says(&metadata, "run");
        ensure!(
            [there, run].contains(&"") || there == run,
            "it is of another run, whose journal begins otherwise; without that file this one begins anew"
        );
        let file = SafeTensors::deserialize(bytes)?;
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
    }
}

impl Found {
    /// Its bytes; none, after a warning, when it is damaged or the disk cannot read it.
    ///
    /// # Errors
    /// When it cannot be read for another reason: it may be whole.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let whole = || -> anyhow::Result<Vec<u8>> {
            let bytes = fs::read(&self.path)?;
            check(&bytes)?;
            Ok(bytes)
        };
        match whole() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_of_the_system(&error) => Err(error).with_context(|| cannot_read(&self.path)),
            Err(error) => {
                let path = self.path.display();
                eprintln!("warning: {path} is damaged: {error:#}; the run goes on from the one before it");
                Ok(None)
            }
        }
    }
}

/// Checks that a checkpoint is as it was written, if it has a checksum.
fn check(bytes: &[u8]) -> anyhow::Result<()> {
    let (length, metadata) = SafeTensors::read_metadata(bytes)?;
    let told = says(&metadata, CHECKSUM);
    if says(&metadata, "format") == FORMAT_WITHOUT_CHECKSUM && told.is_empty() {
        return Ok(());
    }
    let start = size_of::<u64>();
    let head = std::str::from_utf8(&bytes[start..start + length])?;
    let Range { start: from, end: to } = digits_in(head, told).context("it has no checksum")?;
    let mut hasher = XxHash3_64::new();
    hasher.write(&bytes[..start + from]);
    hasher.write(NO_CHECKSUM.as_bytes());
    hasher.write(&bytes[start + to..]);
    let found = format!("{:016x}", hasher.finish());
    ensure!(told == found, "its checksum is {found}, not {told}");
    Ok(())
}

/// Where the digits of the checksum stand in a head, which says that they are `digits`.
fn digits_in(head: &str, digits: &str) -> Option<Range<usize>> {
    let key = format!("\"{CHECKSUM}\":\"{digits}\"");
    let end = head.find(&key)? + key.len() - 1;
    (digits.len() == NO_CHECKSUM.len()).then(|| end - digits.len()..end)
}

/// The name of the checkpoint of an epoch.
fn name_of(epoch: u32) -> String {
    format!("checkpoint-{epoch:06}.safetensors")
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read the checkpoint {}", path.display())
}

/// The files in a folder that have the names of checkpoints.
fn paths(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list the run folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = name.starts_with("checkpoint-") && name.ends_with(".safetensors");
        if is_ours || name == MID_GENERATION {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// The checkpoints in a folder, by epoch, ascending. A file that is none is told of and left out: the run
/// resumes from the one before.
///
/// # Errors
/// When the folder cannot be listed, or a file cannot be read.
pub(crate) fn found(folder: &Path) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for path in paths(folder)? {
        match head(&path) {
            Ok((generation, epoch)) => all.push(Found { path, generation, epoch }),
            // Nobody knows what is in it: going on without it could lose what is.
            Err(error) if is_of_the_system(&error) => return Err(error).with_context(|| cannot_read(&path)),
            Err(error) => eprintln!("warning: {} is no checkpoint: {error:#}", path.display()),
        }
    }
    all.sort_by_key(|found| found.epoch);
    Ok(all)
}

/// Whether a file could not be read for a reason that may pass, as opposed to holding something else, or lying
/// where the disk cannot read.
fn is_of_the_system(error: &anyhow::Error) -> bool {
    let lost = [libc::EIO, libc::EBADMSG, libc::EUCLEAN];
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| {
        error.kind() != ErrorKind::UnexpectedEof
            && !error.raw_os_error().is_some_and(|code| lost.contains(&code))
    })
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
        Owner { model: model.to_owned(), training: training.to_owned(), run: "run".to_owned() }
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
        let another = Owner { run: "another".to_owned(), ..owner("tiny", "one") };
        assert!(refused(&mut others(another), 3).contains("whose journal begins otherwise"));
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

    /// Flips a bit of a file.
    fn flip(path: &Path, at: usize, bit: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn one_that_is_damaged_anywhere_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = at_once(folder.path());
        save(&mut checkpoints, 3, 3, rows(2));
        save(&mut checkpoints, 3, 4, rows(2));
        let path = folder.path().join(name_of(4));
        let length = fs::read(&path).unwrap().len();
        assert_eq!(length % HEAD_ALIGNMENT, 0);
        for at in 0..length {
            flip(&path, at, at % 8);
            // Nothing of it is believed: neither its numbers, nor which epoch they are of.
            let restored = at_once(folder.path()).restore(3, 2).unwrap();
            assert_eq!(restored.map(|(epoch, _)| epoch), Some(3), "byte {at}");
            flip(&path, at, at % 8);
        }
        assert_eq!(at_once(folder.path()).restore(3, 2).unwrap().unwrap().0, 4);
        // The next one takes the place of the damaged, not of the one that was restored.
        flip(&path, length - 1, 0);
        let mut checkpoints = at_once(folder.path());
        assert_eq!(checkpoints.restore(3, 2).unwrap().unwrap().0, 3);
        fs::write(folder.path().join(name_of(9)), "no checkpoint").unwrap();
        save(&mut checkpoints, 3, 5, rows(2));
        assert_eq!(on_disk(folder.path()), [(3, 3), (3, 5)]);
        assert_eq!(paths(folder.path()).unwrap().len(), 2);
        // With none that is whole, there is none.
        [3, 5].into_iter().for_each(|epoch| flip(&folder.path().join(name_of(epoch)), length - 1, 0));
        assert!(at_once(folder.path()).restore(3, 2).unwrap().is_none());
    }

    #[test]
    fn those_of_older_versions_have_no_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = vec![0; 2 * 4 * size_of::<f32>()];
        let view = || safetensors::tensor::TensorView::new(Dtype::F32, vec![2, 4], &numbers).unwrap();
        let views = ["parameters", "momentum", "statistics"].map(|name| (name, view()));
        let says =
            [("format", FORMAT_WITHOUT_CHECKSUM), ("model", "tiny"), ("generation", "3"), ("epoch", "3")];
        let says = says.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        fs::write(folder.path().join(name_of(3)), safetensors::serialize(views, Some(says)).unwrap())
            .unwrap();
        assert_eq!(at_once(folder.path()).restore(3, 2).unwrap().unwrap().0, 3);
    }

    #[test]
    fn the_owner_is_how_models_are_trained_and_not_where() {
        let owner = |text: &str| {
            let spec = SearchSpec::from_json(text).unwrap();
            Owner::of(spec.training(), "").training
        };
        assert_eq!(owner("{}"), owner(r#"{"device": "cuda:1", "precision": "bf16"}"#));
        assert_ne!(owner("{}"), owner(r#"{"seed": 7}"#));
    }
}
