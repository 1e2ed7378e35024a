//! The augmentation engine, level by level: draws, each op, and whole batches.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pba_augment::{
    ImageShape, Level, OpCall, OpCounts, Plan, PlanSpec, Rgba, Scratch, Sign, apply, render_batch,
};
use pba_benches::{EPOCH, MAGNITUDE, SEED, Work, pictures};
use pba_schedules::Op;

const SHAPES: [ImageShape; 2] =
    [ImageShape { height: 32, width: 32 }, ImageShape { height: 224, width: 224 }];

/// One op on a working image that is in the processor's cache.
fn ops(criterion: &mut Criterion) {
    for shape in SHAPES {
        let rgb = pictures(1, shape);
        let image = Rgba::from_rgb(shape, &rgb).expect("the shape is in range");
        // Fresh images, few enough to stay in the cache.
        let images = BatchSize::NumIterations(if shape.pixels() > 10_000 { 1 } else { 8 });
        for op in Op::ALL {
            let mut group = criterion.benchmark_group(format!("op/{}/{op}", shape.width));
            let centre = (shape.width / 2, shape.height / 2);
            let call = OpCall { op, magnitude: MAGNITUDE, sign: Sign::Plus, centre };
            for level in Level::available() {
                let mut scratch = Scratch::with_level(level);
                group.bench_function(BenchmarkId::from_parameter(level), |bencher| {
                    bencher.iter_batched_ref(
                        || image.clone(),
                        |image| apply(&call, image, &mut scratch),
                        images,
                    );
                });
            }
        }
    }
}

/// The policy walk and the draws of the base augmentation of one image; and its place in the order.
fn draws(criterion: &mut Criterion) {
    let recipe = Work::Pba.recipe(SHAPES[0]).expect("the shape is in range");
    let mut group = criterion.benchmark_group("draws");
    for level in Level::available() {
        let mut sample = 0;
        group.bench_function(BenchmarkId::from_parameter(level), |bencher| {
            bencher.iter(|| {
                sample += 1;
                recipe.draws(level, sample)
            });
        });
    }
    group.finish();
    let order = pba_augment::Permutation::new(50_000, SEED, EPOCH);
    let mut position = 0;
    criterion.bench_function("order", |bencher| {
        bencher.iter(|| {
            position = (position + 1) % order.len();
            order.at(position)
        });
    });
}

/// Whole batches of 128 from a dataset in the processor's cache, or nearly.
fn works(criterion: &mut Criterion) {
    for shape in SHAPES {
        let count = if shape.pixels() > 10_000 { 128 } else { 1024 };
        let dataset = pictures(count, shape);
        let image = |index: u64| &dataset[index as usize * shape.rgb_bytes()..][..shape.rgb_bytes()];
        let every = PlanSpec::shuffled(count as u64, SEED, EPOCH, 128);
        let plan = Plan::new(PlanSpec { drop_last: true, ..every }).expect("the plan is in range");
        let mut out = vec![0; 128 * shape.rgb_bytes()];
        for (name, work) in [("pba", Work::Pba), ("base", Work::Base), ("identity", Work::Identity)] {
            let recipe = work.recipe(shape).expect("the shape is in range");
            let mut group = criterion.benchmark_group(format!("{name}/{}", shape.width));
            group.throughput(Throughput::Elements(128));
            for level in Level::available() {
                let (mut scratch, mut counts) = (Scratch::with_level(level), OpCounts::default());
                let mut batch = 0;
                group.bench_function(BenchmarkId::from_parameter(level), |bencher| {
                    bencher.iter(|| {
                        batch = (batch + 1) % plan.batches();
                        let indices = plan.indices(batch);
                        render_batch(&recipe, indices, image, black_box(&mut out), &mut scratch, &mut counts);
                    });
                });
            }
        }
    }
}

fn settings() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group!(name = benches; config = settings(); targets = draws, ops, works);
criterion_main!(benches);
