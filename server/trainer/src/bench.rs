//! `pba-trainer bench`: what strategies, streams, precisions and checkpoints cost on a device, as tables.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use pba_augment::{Base, Policies};
use pba_schedules::{Op, Policy};
use pba_search::{ModelName, Precision, SearchSpec, Spec, SpecError, Strategy, Trainer};
use serde_json::json;
use tch::Device;

use crate::cpu::threads;
use crate::data::{ScoreSet, Source};
use crate::device::{self, Placement};
use crate::gpu::{cuda, shim};
use crate::job::Job;
use crate::network::net::multiply_adds;
use crate::population::{Beginning, Population};
use crate::report::Meter;
use crate::run_dir::RunDir;
use crate::{checkpoints, models, report, torch};

/// Multiplications and additions of bf16 that an H200 was measured to do in a second.
const PEAK: f64 = 790e12;
/// What a step does for each multiply-add of the forward pass: a multiplication and an addition, forward, and
/// backward to the activations and to the weights.
const FLOP_PER_MULTIPLY_ADD: f64 = 6.0;
/// The paper's search: members, epochs, steps an epoch; and the epochs from one scoring to the next.
const PAPER: (f64, f64, f64, f64) = (16.0, 200.0, 31.0, 3.0);
/// The unit of `/proc/self/stat`, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Images that each member of it is scored with.
const PAPER_VAL_SIZE: f64 = 10_000.0;

/// Measure strategies, streams and precisions, or checkpoints, on the available device.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// `all`, or the name of one strategy.
    #[arg(long, default_value = "all")]
    strategy: String,
    /// Numbers of streams, separated by commas; only the strategy `graphs` has them.
    #[arg(long, value_delimiter = ',', default_value = "4")]
    streams: Vec<u32>,
    /// Precisions, separated by commas: auto, fp32, bf16.
    #[arg(long, value_delimiter = ',', default_value = "auto")]
    precision: Vec<String>,
    /// Have cuDNN choose its kernels by measuring them.
    #[arg(long)]
    cudnn_measures: bool,
    /// Count the operators of a step, too; it takes an epoch more.
    #[arg(long)]
    ops: bool,
    /// Measure what checkpoints cost, with the first strategy, instead.
    #[arg(long)]
    checkpoints: bool,
    /// Pairs of generations that are measured with a checkpoint, and as many without.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    rounds: u32,
    /// The network.
    #[arg(long, default_value_t)]
    model: ModelName,
    /// Members of the population.
    #[arg(long, default_value_t = 16)]
    population: u32,
    /// Steps that each member trains, twice: once to warm up, once to be measured.
    #[arg(long, default_value_t = 31)]
    steps: usize,
    /// Images that each member is scored with.
    #[arg(long, default_value_t = 1000)]
    val_size: usize,
    /// Images that are scored at once [default: the device's].
    #[arg(long)]
    score_batch: Option<usize>,
    /// Images per step.
    #[arg(long, default_value_t = 128)]
    batch_size: u32,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Does what the command line says. The images are those of the built-in dataset, over and over.
///
/// # Errors
/// [`SpecError`] for a wrong argument; others when the device fails.
pub(crate) fn run(mut args: Args) -> anyhow::Result<()> {
    (args.steps, args.val_size) = (args.steps.max(1), args.val_size.max(1));
    let strategies = match args.strategy.as_str() {
        "all" => Strategy::ALL[1..].to_vec(),
        name => vec![Strategy::named(name).ok_or_else(|| wrong("strategy", name, Strategy::names()))?],
    };
    let precision =
        |name: &String| Precision::named(name).ok_or_else(|| wrong("precision", name, Precision::names()));
    let precisions = args.precision.iter().map(precision).collect::<Result<Vec<_>, _>>()?;
    // Checked here; each row has its own.
    let streams = args.streams.iter().max().copied();
    let spec = SearchSpec::from_json(
        &json!({
            "model": args.model, "population": args.population, "device": args.device,
            "batch_size": args.batch_size, "streams": streams, "perturbation_interval": 1,
            // Whatever is measured here is short.
            "epochs": 200, "train_size": 1, "val_size": 1,
        })
        .to_string(),
    )?;
    let cache = std::env::temp_dir().join("pba-trainer");
    let as_it_is = |spec, _| Ok(spec);
    let spec = SearchSpec { streams: None, ..spec };
    let mut job = Job::check(spec, Strategy::Auto, as_it_is, &Source::of_built_in(cache))?;
    job.base = Base::cifar();
    tell_of(&job, &args);
    if args.checkpoints {
        job.placement = Placement::new(job.placement.device, strategies[0], precisions[0], None)?;
        return checkpoints(&job, &args);
    }
    report::line(
        "| strategy | streams | precision | images/s trained | images/s scored | ops per step of all | memory, MB \
         | of 790 TFLOP/s | the paper's search, s |",
    );
    report::line("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for &strategy in &strategies {
        for &precision in &precisions {
            for &streams in &args.streams {
                let streams = Some(streams).filter(|_| strategy == Strategy::Graphs);
                let row = match Placement::new(job.placement.device, strategy, precision, streams) {
                    Ok(placement) => {
                        job.placement = Placement { cudnn_measures: args.cudnn_measures, ..placement };
                        // What the rows before have left would be counted as this one's.
                        if placement.device.is_cuda() {
                            shim::empty_cache()?;
                        }
                        measure(&job, &args)
                            .unwrap_or_else(|error| format!("failed: {error:#} | | | | | | |"))
                    }
                    Err(error) => format!("not here: {error} | | | | | | |"),
                };
                report::line(&format!("| {strategy} | {row} |"));
                if strategy != Strategy::Graphs {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn wrong(field: &str, value: &str, allowed: String) -> SpecError {
    SpecError::new(field, format!("{value:?}"), allowed)
}

/// Prints what is measured, and on what.
fn tell_of(job: &Job<SearchSpec>, args: &Args) {
    let target = job.placement.device;
    let described = match target {
        Device::Cuda(number) => shim::gpu(number).map_or_else(|error| format!("{error:#}"), |gpu| gpu.name),
        _ => format!("{} threads", threads()),
    };
    report::line(&format!(
        "{} on {} ({described}), libtorch {}, population {}, batch {}, {} steps per member, {} images scored, \
         channels last{}",
        args.model,
        device::name(target),
        cuda::LIBTORCH,
        args.population,
        args.batch_size,
        args.steps,
        args.val_size,
        if args.cudnn_measures { ", cuDNN measures" } else { "" },
    ));
    report::line("");
}

/// A population that trains `steps` steps an epoch, and its policies.
fn population(
    job: &Job<SearchSpec>,
    args: &Args,
    run_dir: Option<&RunDir>,
) -> anyhow::Result<(Population, Vec<Policy>)> {
    let mut indices = (0..job.pictures.images.len()).cycle();
    let train = indices.by_ref().take(args.steps * job.spec.training.batch_size).collect();
    let scored: Vec<u64> = indices.take(args.val_size).collect();
    let (pictures, target) = (&job.pictures, job.placement.device);
    let score = match args.score_batch {
        Some(at_once) => ScoreSet::in_batches(pictures, &scored, target, at_once.max(1))?,
        None => ScoreSet::new(pictures, &scored, target)?,
    };
    let members = Beginning::of_all(job, job.spec.population, train);
    let meter = Arc::new(Meter::of(&job.spec));
    let mut population = Population::new(job, members, score, run_dir, &meter)?;
    population.restore(0)?;
    let policy = Policy::from_hyperparameters(&Op::PAPER, &[5; 60])?;
    Ok((population, vec![policy; job.spec.population as usize]))
}

fn measure(job: &Job<SearchSpec>, args: &Args) -> anyhow::Result<String> {
    let Job { spec, placement, .. } = job;
    let (mut population, policies) = population(job, args, None)?;
    let policies: Vec<Policies> = policies.into_iter().map(Policies::One).collect();
    let timed = |body: &mut dyn FnMut() -> anyhow::Result<()>| -> anyhow::Result<f64> {
        placement.wait();
        let start = Instant::now();
        body()?;
        placement.wait();
        Ok(start.elapsed().as_secs_f64())
    };

    // The first epoch warms up: kernels are chosen, graphs are captured.
    population.train_epoch(&policies, 0)?;
    population.evaluate()?;
    let train_seconds = timed(&mut || population.train_epoch(&policies, 1))?;
    let score_seconds = timed(&mut || population.evaluate().map(drop))?;
    let ops = match args.ops {
        true => {
            let (trained, ops) = torch::count_ops(|| population.train_epoch(&policies, 2))?;
            trained?;
            format!("{:.0}", ops as f64 / args.steps as f64)
        }
        false => "-".to_owned(),
    };

    let all = f64::from(spec.population);
    let trained = (args.steps * spec.training.batch_size) as f64 * all / train_seconds;
    let scored = args.val_size as f64 * all / score_seconds;
    let (members, epochs, steps, interval) = PAPER;
    let search = members * epochs * steps * spec.training.batch_size as f64 / trained
        + members * (epochs / interval).ceil() * PAPER_VAL_SIZE / scored;
    let share = if placement.device.is_cuda() {
        let model = Arc::new(models::build(spec.training.model, job.pictures.classes));
        let shape = job.pictures.shape;
        let flop = FLOP_PER_MULTIPLY_ADD * multiply_adds(&model, shape.height, shape.width) as f64;
        format!("{:.1} %", 100.0 * trained * flop / PEAK)
    } else {
        "-".to_owned()
    };
    let is_graphs = placement.way.strategy == Strategy::Graphs;
    Ok(format!(
        "{} | {} | {trained:.0} | {scored:.0} | {ops} | {:.0} | {share} | {search:.0}",
        if is_graphs { placement.streams.to_string() } else { "-".to_owned() },
        placement.precision(),
        memory_bytes(placement.device)? as f64 / 1e6,
    ))
}

/// Measures pairs of generations of one epoch, with a checkpoint written beside the second and without, by
/// turns.
fn checkpoints(job: &Job<SearchSpec>, args: &Args) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("pba-trainer-bench-{}", std::process::id()));
    let run_dir = RunDir::open(&folder, Duration::ZERO, Some(Duration::ZERO))?;
    let measured = measure_checkpoints(job, args, &run_dir);
    let removed = fs::remove_dir_all(&folder);
    measured?;
    removed.with_context(|| format!("cannot remove {}", folder.display()))
}

fn measure_checkpoints(job: &Job<SearchSpec>, args: &Args, run_dir: &RunDir) -> anyhow::Result<()> {
    let (without, policies) = population(job, args, None)?;
    let (with, _) = population(job, args, Some(run_dir))?;
    let policies: Vec<&Policy> = policies.iter().collect();
    let pair = |population: &mut Population, epoch| -> anyhow::Result<(f64, f64)> {
        let (start, cpu) = (Instant::now(), cpu_seconds()?);
        population.train(&policies, epoch..epoch + 1)?;
        population.evaluate()?;
        // Begins to write what the first has come to, beside the second.
        population.save(epoch + 1)?;
        population.train(&policies, epoch + 1..epoch + 2)?;
        population.evaluate()?;
        population.settle()?;
        Ok((start.elapsed().as_secs_f64(), cpu_seconds()? - cpu))
    };
    let (mut both, mut seconds) = ([without, with], [Vec::new(), Vec::new()]);
    let mut in_line = Vec::new();
    for round in 0..=args.rounds {
        // Who goes first takes turns, too.
        for turn in 0..2 {
            let which = (round as usize + turn) % 2;
            let took = pair(&mut both[which], 2 * round)?;
            // The first warms up.
            if round > 0 {
                seconds[which].push(took);
            }
        }
    }
    let with = &mut both[1];
    for _ in 0..3 {
        let start = Instant::now();
        with.save_in_line()?;
        in_line.push(start.elapsed().as_secs_f64());
    }
    let bytes =
        fs::read_dir(&run_dir.path)?.map(|entry| entry?.metadata()).map(|file| file.map(|file| file.len()));
    let bytes = bytes.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    report::line("| two generations of one epoch | s, median | s of CPU, median |");
    report::line("| --- | ---: | ---: |");
    for (name, both) in ["without a checkpoint", "with one, written beside the second"].iter().zip(&seconds) {
        let (wall, cpu): (Vec<f64>, Vec<f64>) = both.iter().copied().unzip();
        report::line(&format!("| {name} | {:.3} | {:.2} |", median(wall), median(cpu)));
    }
    let in_line = median(in_line);
    let interval = checkpoints::interval(Duration::from_secs_f64(in_line)).as_secs_f64();
    // Each with the one beside it, as the machine's speed drifts.
    let more = |of: fn(&(f64, f64)) -> f64| {
        let pairs = seconds[0].iter().zip(&seconds[1]);
        let more: Vec<f64> = pairs.map(|(without, with)| of(with) - of(without)).collect();
        let (mean, error) = mean_and_error(&more);
        let [share, of_share] = [mean, error].map(|seconds| 100.0 * seconds / interval);
        format!("{mean:.3} +- {error:.3} s ({share:.1} +- {of_share:.1} %)")
    };
    report::line("");
    report::line(&format!(
        "A checkpoint of {:.0} MB takes {in_line:.3} s in line, so one is written every {interval:.0} s at most. Written \
         beside the training it costs {}, and {} of CPU: mean and standard error of {} pairs, and their shares of that \
         time.",
        bytes as f64 / 1e6,
        more(|took| took.0),
        more(|took| took.1),
        args.rounds,
    ));
    Ok(())
}

/// CPU time of this process, all threads together.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields
        .get(11)
        .zip(fields.get(12))
        .map_or(Ok(0.0), |(user, system)| anyhow::Ok(user.parse::<f64>()? + system.parse::<f64>()?))?;
    Ok(ticks / TICKS_PER_SECOND)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    let half = seconds.len() / 2;
    if seconds.len() % 2 == 1 { seconds[half] } else { (seconds[half - 1] + seconds[half]) / 2.0 }
}

/// Mean, and its standard error: 0 of one value.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0) / count).sqrt())
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
