//! `pba-trainer bench`: every strategy on the available device, as one table.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use pba_augment::{Base, Policies};
use pba_datasets::BUILT_IN;
use pba_schedules::{Op, Policy};
use pba_search::{SearchSpec, Strategy, Trainer};
use tch::{Cuda, Device};

use crate::cpu::threads;
use crate::data::ScoreSet;
use crate::device::{self, Placement};
use crate::gpu::{cuda, shim};
use crate::job::Job;
use crate::population::{Beginning, Population};
use crate::report::Meter;
use crate::{report, torch};

/// Measures `steps` steps of each member and a scoring of `val_size` images, for each strategy. The
/// images are those of the built-in dataset, over and over.
pub(crate) fn bench(
    spec: &SearchSpec,
    strategies: &[Strategy],
    steps: usize,
    val_size: usize,
) -> anyhow::Result<()> {
    let cache = std::env::temp_dir().join("pba-trainer");
    let as_it_is = |spec, _| Ok(spec);
    let mut job = Job::check(spec.clone(), Strategy::Auto, as_it_is, Path::new(BUILT_IN), &cache)?;
    job.base = Base::cifar();
    let target = job.placement.device;
    let described = match target {
        Device::Cuda(number) => shim::gpu(number).map_or_else(|error| format!("{error:#}"), |gpu| gpu.name),
        _ => format!("{} threads", threads()),
    };
    report::line(&format!(
        "{} on {} ({described}), libtorch {}, population {}, batch {}, {steps} steps per member, {val_size} images scored, {}",
        spec.training.model,
        device::name(target),
        cuda::LIBTORCH,
        spec.population,
        spec.training.batch_size,
        if target.is_cuda() { "bf16, channels last" } else { "f32, channels last" },
    ));
    report::line("");
    report::line("| strategy | images/s trained | images/s scored | ops per step of all | memory, MB |");
    report::line("| --- | ---: | ---: | ---: | ---: |");
    for &strategy in strategies {
        let row = match Placement::new(target, strategy) {
            Ok(placement) => {
                job.placement = placement;
                measure(&job, steps, val_size).unwrap_or_else(|error| format!("failed: {error:#} | | |"))
            }
            Err(error) => format!("not here: {error} | | |"),
        };
        report::line(&format!("| {strategy} | {row} |"));
    }
    Ok(())
}

fn measure(job: &Job<SearchSpec>, steps: usize, val_size: usize) -> anyhow::Result<String> {
    let Job { spec, pictures, placement: Placement { device: target, .. }, .. } = job;
    let images = steps * spec.training.batch_size;
    let mut indices = (0..pictures.images.len()).cycle();
    let train = indices.by_ref().take(images).collect();
    let score = ScoreSet::new(pictures, &indices.take(val_size).collect::<Vec<_>>(), *target);
    let members = Beginning::of_all(job, spec.population, train);
    let mut population = Population::new(job, members, score, None, &Arc::new(Meter::of(spec)))?;
    population.restore(0)?;
    let policy = Policy::from_hyperparameters(&Op::PAPER, &[5; 60])?;
    let policies = vec![Policies::One(policy); spec.population as usize];
    let wait = || {
        if let Device::Cuda(number) = target {
            Cuda::synchronize(*number as i64)
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
        memory_bytes(*target)? as f64 / 1e6,
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
