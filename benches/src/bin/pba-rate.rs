//! Images per second of one thread, as one line of JSON.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use pba_augment::{
    ImageShape, Level, OpCall, OpCounts, Plan, PlanSpec, Rgba, Scratch, Sign, apply, render_batch,
};
use pba_benches::{EPOCH, MAGNITUDE, SEED, Work, pictures};
use pba_schedules::Op;

/// Renders shuffled batches of 128 pictures, and prints how many images per second that made.
#[derive(Parser)]
struct Arguments {
    /// What is done to each image.
    #[arg(long, value_enum, default_value = "pba")]
    work: WorkName,
    /// Height and width of the images.
    #[arg(long, default_value_t = 32)]
    size: u32,
    /// The processor's instructions: avx512, avx2 or portable; the best it has, when not given.
    #[arg(long)]
    level: Option<String>,
    /// Samples of the dataset, which repeat the pictures; as many as there are pictures, when not given.
    #[arg(long)]
    samples: Option<u64>,
    /// Pictures in the dataset; as many as 150 MB hold, when not given.
    #[arg(long)]
    pictures: Option<usize>,
    /// How long to go on, in seconds of wall time.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum WorkName {
    /// The last policy of the paper's CIFAR-10 schedule, then crop, flip and cutout.
    Pba,
    /// Crop, flip and cutout.
    Base,
    /// Untouched pixels, through the same code.
    Identity,
    /// Bare copies of the pictures: the floor.
    Copy,
    /// Each op alone, on working images in the processor's cache; one line for each.
    Ops,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let shape = ImageShape { height: arguments.size, width: arguments.size }.check()?;
    let level = match &arguments.level {
        None => Level::detect(),
        Some(name) => Level::named(name).with_context(|| format!("this processor has no level {name:?}"))?,
    };
    if let WorkName::Ops = arguments.work {
        return ops(shape, level, arguments.seconds);
    }
    let count = arguments.pictures.unwrap_or(150_000_000 / shape.rgb_bytes()).max(1);
    let dataset = pictures(count, shape);
    let samples = arguments.samples.unwrap_or(count as u64);
    let image = |index: u64| &dataset[index as usize % count * shape.rgb_bytes()..][..shape.rgb_bytes()];
    let work = match arguments.work {
        WorkName::Pba => Work::Pba,
        WorkName::Base => Work::Base,
        WorkName::Identity | WorkName::Copy | WorkName::Ops => Work::Identity,
    };
    let recipe = work.recipe(shape)?;
    let plan = Plan::new(PlanSpec::shuffled(samples, SEED, EPOCH, 128))?;
    let (mut scratch, mut counts) = (Scratch::with_level(level), OpCounts::default());
    let mut out = vec![0; 128 * shape.rgb_bytes()];
    let mut epoch = |until: Instant| {
        let mut images = 0;
        for batch in 0..plan.batches() {
            let out = &mut out[..plan.len_of(batch) * shape.rgb_bytes()];
            if let WorkName::Copy = arguments.work {
                for (index, out) in plan.indices(batch).zip(out.chunks_exact_mut(shape.rgb_bytes())) {
                    out.copy_from_slice(image(index));
                }
            } else {
                render_batch(&recipe, plan.indices(batch), image, out, &mut scratch, &mut counts);
            }
            std::hint::black_box(out);
            images += plan.len_of(batch);
            if Instant::now() >= until {
                break;
            }
        }
        images
    };
    epoch(Instant::now() + Duration::from_millis(200));
    let (wall, cpu) = (Instant::now(), cpu_time()?);
    let until = wall + Duration::from_secs_f64(arguments.seconds);
    let mut images = 0;
    while Instant::now() < until {
        images += epoch(until);
    }
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), (cpu_time()? - cpu).as_secs_f64());
    let line = serde_json::json!({
        "work": arguments.work.to_possible_value().context("a work has a name")?.get_name(),
        "level": level.name(),
        "height": shape.height,
        "width": shape.width,
        "pictures": count,
        "samples": samples,
        "images": images,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "images_per_cpu_second": (images as f64 / cpu).round(),
        "ns_per_image": (cpu / images as f64 * 1e10).round() / 10.0,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Nanoseconds of each op at the magnitude of the criterion benches, less those of a fresh image.
fn ops(shape: ImageShape, level: Level, seconds: f64) -> anyhow::Result<()> {
    let image = Rgba::from_rgb(shape, &pictures(1, shape))?;
    let mut scratch = Scratch::with_level(level);
    let centre = (shape.width / 2, shape.height / 2);
    let mut measure = |op: Option<Op>| -> anyhow::Result<f64> {
        let mut work = image.clone();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let (mut runs, start) = (0, cpu_time()?);
        while Instant::now() < until {
            for _ in 0..1 + 1_000_000 / shape.pixels() {
                work.clone_from(&image);
                if let Some(op) = op {
                    apply(
                        &OpCall { op, magnitude: MAGNITUDE, sign: Sign::Plus, centre },
                        &mut work,
                        &mut scratch,
                    );
                }
                std::hint::black_box(&mut work);
                runs += 1;
            }
        }
        Ok((cpu_time()? - start).as_secs_f64() * 1e9 / f64::from(runs))
    };
    let fresh = measure(None)?;
    for op in Op::ALL {
        let line = serde_json::json!({
            "op": op.name(), "magnitude": MAGNITUDE, "level": level.name(), "height": shape.height, "width": shape.width,
            "ns_per_image": (measure(Some(op))? - fresh).round(),
        });
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}

/// Processor time of this thread so far, which other programs on the machine hardly change.
fn cpu_time() -> anyhow::Result<Duration> {
    let file = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(file).with_context(|| format!("no processor times in {file}"))?;
    let nanoseconds = text.split(' ').next().unwrap_or_default();
    Ok(Duration::from_nanos(nanoseconds.parse().with_context(|| format!("{text:?} in {file}"))?))
}
