//! What the trainer of a job tells.

use std::time::Instant;

use pba_search::journal;
use pba_search::{Progress, Run, Spec, TrainingPlace};

use crate::jobs::counts;
use crate::jobs::entry::OnDisk;
use crate::jobs::record::Record;
use crate::jobs::record::lines::Tail;
use crate::metrics::Metrics;

impl<K: Run> Record<K> {
    /// Processes an event of the journal.
    ///
    /// # Errors
    /// When the event is not possible at this point.
    pub(crate) fn happened(&self, event: &K::Event, metrics: &Metrics) -> anyhow::Result<()> {
        let mut live = self.live();
        live.waiting = None;
        if let Some((job, _)) = K::begin(event) {
            live.job = Some(job);
            live.journal = Tail::default();
            (live.images_before, live.saved_epoch) = (0, 0);
        } else if let Some(job) = &mut live.job {
            job.apply(event).map_err(anyhow::Error::msg)?;
            counts::event(metrics, &self.id, event, job);
        } else {
            anyhow::bail!("the trainer sent an event before the {} started", K::JOB.name);
        }
        live.journal.push(journal::line(event).trim_end().to_owned());
        drop(live);
        self.changed();
        Ok(())
    }

    /// The models after `epoch` epochs are on disk.
    pub(crate) fn saved(&self, epoch: u32) {
        self.storing(|| {
            let mut live = self.live();
            live.saved_epoch = epoch;
            // The time until here is not lost when the server is killed.
            live.entry = live.timed();
            live.running_since = live.running_since.map(|_| Instant::now());
            let entry = live.stored();
            drop(live);
            self.save_or_warn(&entry);
        });
    }

    /// Sets the state to that of the first `lines` lines of the journal on disk, after `epoch` epochs, from
    /// which a trainer resumes. That may be fewer events than were reported, or more: a killed trainer may have written
    /// events that it did not report.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) fn reread(&self, epoch: u32, lines: usize) -> anyhow::Result<()> {
        let read = || OnDisk::<K>::read(&self.directory, lines);
        let OnDisk { lines, job, .. } = tokio::task::block_in_place(read)?;
        let mut live = self.live();
        let images = |job: &K| {
            let spec = job.spec();
            spec.images() / u64::from(spec.epochs()) * u64::from(job.epoch())
        };
        live.images_before = job.as_ref().map_or(0, images);
        (live.journal, live.job, live.saved_epoch) = (Tail::on_disk(lines), job, epoch);
        drop(live);
        self.changed();
        Ok(())
    }

    /// Its trainer tells where it trains.
    pub(crate) fn placed(&self, place: TrainingPlace) {
        self.storing(|| {
            let mut live = self.live();
            live.waiting = None;
            live.entry.place = Some(place);
            let entry = live.stored();
            drop(live);
            self.save_or_warn(&entry);
        });
        self.changed();
    }

    /// Its trainer goes on with models that it read from the disk, which have trained on `images` images: they
    /// were counted by the trainer that saved them.
    pub(crate) fn restored(&self, images: u64) {
        self.live().images_before = images;
    }

    /// A trainer of it is started.
    pub(crate) fn started(&self, metrics: &Metrics) {
        counts::start::<K>(metrics, &self.id);
    }

    /// Records the progress.
    pub(crate) fn progressed(&self, progress: Progress, metrics: &Metrics) {
        let mut live = self.live();
        let before = live.progress.as_ref();
        // What is reported before the models are read counts none of their images.
        let counted = before.map_or(0, |before| before.images).max(live.images_before);
        let images = progress.images.saturating_sub(counted);
        counts::progress::<K>(metrics, &self.id, before, &progress, images);
        live.progress = Some(progress);
        drop(live);
        self.changed();
    }

    /// Its trainer has ended, in whatever way.
    pub(crate) fn ended(&self, metrics: &Metrics) {
        counts::end(metrics, &self.id, self.live().progress.as_mut());
    }
}
