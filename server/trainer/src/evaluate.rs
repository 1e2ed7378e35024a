//! `pba-trainer evaluate`: one model from scratch, with a schedule or none, and its test error.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use pba_augment::Policies;
use pba_datasets::SplitName;
use pba_schedules::{EpochPolicies, Schedule, formats};
use pba_search::{EvaluationSpec, Report, Strategy, Trainer};

use crate::data::{self, ScoreSet, TrainSet};
use crate::device::{self, Placement};
use crate::population::{Population, Setup};
use crate::report::{self, Meter, Ticker};
use crate::search::SCORE_BATCH;

/// Reads the schedule to train with. `none` is base augmentation only.
pub(crate) fn schedule(path: &str) -> anyhow::Result<Option<Arc<Schedule>>> {
    if path == "none" {
        return Ok(None);
    }
    if let Some(published) = pba_schedules::library::all().into_iter().find(|known| known.name() == path) {
        return Ok(Some(Arc::new(published)));
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the schedule {path}"))?;
    let schedule =
        formats::read(&text, None, None).with_context(|| format!("cannot read the schedule {path}"))?;
    Ok(Some(Arc::new(schedule)))
}

/// Checks the spec against dataset and machine; then, unless only that was asked, trains.
///
/// # Errors
/// [`pba_search::SpecError`] for a wrong field; [`crate::signals::Interrupted`] when told to stop.
pub(crate) fn evaluate(
    spec: EvaluationSpec,
    schedule: Option<Arc<Schedule>>,
    dataset: &Path,
    cache: &Path,
    check_only: bool,
) -> anyhow::Result<()> {
    let placement = Placement::new(device::resolve(spec.training.device)?, Strategy::Sequential)?;
    let dataset = data::open(dataset, cache)?;
    let pictures = data::pictures(&dataset, SplitName::Train)?;
    let spec = spec.sized(pictures.images.len() as usize)?;
    let training = &spec.training;
    let base = data::base(training.base.as_deref(), &dataset)?;
    let tested_on = if dataset.split(SplitName::Test).is_some() { SplitName::Test } else { SplitName::Val };
    let tested = data::pictures(&dataset, tested_on)
        .map_err(|error| anyhow!("nothing to test on, neither test nor val: {error:#}"))?;
    anyhow::ensure!(
        tested.shape == pictures.shape,
        "the images of the {tested_on} split are {}x{}, those of the train split {}x{}",
        tested.shape.height,
        tested.shape.width,
        pictures.shape.height,
        pictures.shape.width
    );
    if check_only {
        return Ok(());
    }
    report::tell(&Report::Evaluating {
        spec: Box::new(spec.clone()),
        schedule: schedule.as_ref().map_or("none", |schedule| schedule.name()).to_owned(),
        schedule_digest: schedule.as_ref().map(|schedule| schedule.digest().to_string()),
        dataset_digest: dataset.digest().to_string(),
    });
    report::tell(&placement.report());
    let all: Vec<u64> = (0..tested.images.len()).collect();
    let score = ScoreSet::new(&tested, &all, SCORE_BATCH, placement.device);
    let train_size = spec.train_size.unwrap_or(0);
    let (indices, _) = data::choose(&*pictures.images, training.seed, train_size, 0);
    let train = TrainSet { pictures, indices, base, batch_size: training.batch_size };
    let meter = Arc::new(Meter::new(training.epochs, Population::images_per_epoch(&train, 1)));
    let mut population = Population::new(Setup {
        training: training.clone(),
        members: 1,
        placement,
        train,
        score,
        checkpoints: None,
        meter: meter.clone(),
    })?;
    population.initialize();
    let ticker = Ticker::new(meter.clone());
    let mut train_loss = f32::NAN;
    for epoch in 0..training.epochs {
        let policies = match &schedule {
            None => Policies::None,
            Some(schedule) => match schedule.ablated(spec.ablation, epoch, training.epochs, training.seed)? {
                EpochPolicies::One(policy) => Policies::One(policy.clone()),
                EpochPolicies::AnyEpochOf(_) => Policies::AnyEpochOf(schedule.clone()),
            },
        };
        population.train_epoch(&[policies], epoch)?;
        train_loss = population.take_losses(1)[0];
    }
    drop(ticker);
    let accuracy = population.evaluate()?[0];
    let number = |value: f64| (!value.is_nan()).then_some((value * 1e6).round() / 1e6);
    report::tell(&meter.progress());
    report::tell(&Report::Evaluated {
        epoch: training.epochs,
        split: tested_on.to_string(),
        images: all.len(),
        test_error: number(1.0 - accuracy),
        train_loss: number(train_loss.into()),
    });
    Ok(())
}
