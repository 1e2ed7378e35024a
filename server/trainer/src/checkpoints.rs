//! When checkpoints are written, and which are kept.
//!
//! The members are copied at the end of an epoch, on their device. A thread of its own writes the latest
//! copy every so often, so that training waits for no disk. A run that ends in any way but by force writes the
//! last one. The last two are kept, so that the one before is there if the newest is damaged.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use pba_search::protocol::Report;

use crate::checkpoint::{Owner, Snapshot, delete_others, found};
use crate::network::rows::Rows;
use crate::report;
use crate::torch::DeviceFault;

/// Longest time from one write to the next.
const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Writes come this many times their own duration after one another, up to that: short ones take a hundredth of
/// the time at most.
const INTERVAL_WRITES: u32 = 100;

/// The time from one write to the next, at least, when a write takes so long.
pub(crate) fn interval(took: Duration) -> Duration {
    INTERVAL_MAX.min(took * INTERVAL_WRITES)
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
            if let Some(rows) = found.members(&self.writer.owner, members)? {
                self.last = found.epoch;
                return Ok(Some((found.epoch, rows)));
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
        self.owner.write(&self.folder, snapshot).with_context(|| {
            format!("cannot save the checkpoint of epoch {epoch}; the run can resume from the previous one")
        })?;
        delete_others(&self.folder, [last, epoch])?;
        report::tell(&Report::Saved { epoch });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pba_search::{SearchSpec, Spec};
    use safetensors::tensor::Dtype;
    use tch::{Kind, Tensor};

    use super::*;
    use crate::checkpoint::{FORMAT_WITHOUT_CHECKSUM, HEAD_ALIGNMENT, MID_GENERATION, name_of, paths};

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
