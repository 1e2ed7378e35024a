//! `pba-trainer bench`: every strategy on the available device, as one table.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use pba_augment::{Base, Policies};
use pba_schedules::{Op, Policy};
use pba_search::{SearchSpec, Strategy, Trainer};
use tch::{Cuda, Device};

use crate::cpu::cores::threads;
use crate::data::{Noise, ScoreSet, TrainSet};
use crate::device::{self, Placement};
use crate::gpu::{cuda, shim};
use crate::population::{Population, Setup};
use crate::report::{self, Meter};
use crate::search::SCORE_BATCH;
use crate::torch;

/// Measures `steps` steps of each member and a scoring of `val_size` images, for each strategy.
pub(crate) fn bench(
    spec: &SearchSpec,
    strategies: &[Strategy],
    steps: usize,
    val_size: usize,
) -> anyhow::Result<()> {
    let target = device::resolve(spec.training.device)?;
    let described = match target {
        Device::Cuda(number) => shim::gpu(number).map_or_else(|error| format!("{error:#}"), |gpu| gpu.name),
        _ => format!("{} threads", threads()),
    };
    report::line(&format!(
        "{} on {} ({described}), libtorch {}, population {}, batch {}, {steps} steps per member, {} images scored, {}",
        spec.training.model,
        device::name(target),
        cuda::LIBTORCH,
        spec.population,
        spec.training.batch_size,
        val_size,
        if target.is_cuda() { "bf16, channels last" } else { "f32, channels last" },
    ));
    report::line("");
    report::line("| strategy | images/s trained | images/s scored | ops per step of all | memory, MB |");
    report::line("| --- | ---: | ---: | ---: | ---: |");
    for &strategy in strategies {
        let row = match Placement::new(target, strategy) {
            Ok(placement) => measure(spec, placement, steps, val_size)
                .unwrap_or_else(|error| format!("failed: {error:#} | | |")),
            Err(error) => format!("not here: {error} | | |"),
        };
        report::line(&format!("| {strategy} | {row} |"));
    }
    Ok(())
}

fn measure(spec: &SearchSpec, placement: Placement, steps: usize, val_size: usize) -> anyhow::Result<String> {
    let target = placement.device;
    let images = steps * spec.training.batch_size;
    let pictures = Noise::pictures((images + val_size) as u64);
    let indices: Vec<u64> = (0..(images + val_size) as u64).collect();
    let (train, val) = indices.split_at(images);
    let score_batch = SCORE_BATCH.min(val_size);
    let score = ScoreSet::new(&pictures, val, score_batch, target);
    let train = TrainSet {
        pictures,
        indices: train.to_vec(),
        base: Base::cifar(),
        batch_size: spec.training.batch_size,
    };
    let meter = Arc::new(Meter::new(spec.training.epochs, 0));
    let mut population = Population::new(Setup {
        training: spec.training.clone(),
        members: spec.population,
        placement,
        train,
        score,
        checkpoints: None,
        meter,
    })?;
    population.initialize();
    let policy = Policy::from_hyperparameters(&Op::PAPER, &[5; 60])?;
    let policies = vec![Policies::One(policy); spec.population as usize];
    let wait = || {
        if let Device::Cuda(number) = target {
            Cuda::synchronize(number as i64)
        }
    };

    // The first epoch warms up: kernels are chosen, graphs are captured.
    population.train_epoch(&policies, 0)?;
    population.evaluate()?;
    wait();
    let start = Instant::now();
    let (trained, ops) = torch::count_ops(|| population.train_epoch(&policies, 1))?;
    trained?;
    wait();
    let train_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    population.evaluate()?;
    wait();
    let score_seconds = start.elapsed().as_secs_f64();

    let all = f64::from(spec.population);
    Ok(format!(
        "{:.0} | {:.0} | {:.0} | {:.0}",
        images as f64 * all / train_seconds,
        val_size as f64 * all / score_seconds,
        ops as f64 / steps as f64,
        memory_bytes(target)? as f64 / 1e6,
    ))
}

/// Memory in use on the device: of this process on a CPU, of all processes on a GPU.
fn memory_bytes(target: Device) -> anyhow::Result<u64> {
    if let Device::Cuda(number) = target {
        return Ok(shim::gpu(number)?.memory_used_bytes());
    }
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
