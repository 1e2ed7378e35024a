//! Once a scratch has met images of a size, rendering more of them allocates nothing.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pba_augment::{
    ImageShape, Level, OpCounts, PixelBox, Plan, PlanSpec, Policies, Recipe, RecipeSpec, Scratch, Shard,
    Source, render_batch, render_source,
};
use pba_schedules::{Op, Policy, library};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts what each thread asks for.
struct Counting;

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as for this function.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for this function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count() {
    // A thread that ends has nothing to count any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often something allocates.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn recipe(policies: Policies, base: &str, shape: ImageShape) -> Recipe {
    let base = base.parse().unwrap();
    Recipe::new(RecipeSpec { policies, base, seed: 3, epoch: 199, mean: [125, 123, 114], shape }).unwrap()
}

/// Some batches, then others; how often the others allocate.
fn of_batches(recipe: &Recipe, level: Level) -> usize {
    const SAMPLES: u64 = 200;
    let bytes = recipe.shape().rgb_bytes();
    // Each sample has pixels of its own, with gradients, and some are of one colour.
    let pixels: Vec<u8> = (0..SAMPLES as usize * bytes)
        .map(|at| if (at / bytes).is_multiple_of(9) { 77 } else { (at * (3 + at / bytes) / 5) as u8 })
        .collect();
    let plan = Plan::new(PlanSpec {
        samples: SAMPLES,
        seed: 3,
        epoch: 199,
        shuffle: true,
        shard: Shard::WHOLE,
        batch_size: 50,
        drop_last: false,
        start: 0,
        step: 1,
    })
    .unwrap();
    let (mut scratch, mut counts) = (Scratch::with_level(level), OpCounts::default());
    let mut out = vec![0; 50 * bytes];
    let mut render = |batch| {
        let image = |sample: u64| &pixels[sample as usize * bytes..][..bytes];
        render_batch(recipe, plan.indices(batch), image, &mut out, &mut scratch, &mut counts);
    };
    (0..2).for_each(&mut render);
    allocations(|| (2..4).for_each(&mut render))
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1; 100]))), 1);
}

#[test]
fn batches_of_whole_images() {
    let base = "pad_crop:4,flip,cutout:16";
    for level in Level::available() {
        for side in [32, 96] {
            let shape = ImageShape { height: side, width: side };
            let last = library::cifar10_pba().at(199, 200).unwrap().clone();
            for (policies, base) in
                [(Policies::One(last), base), (Policies::None, base), (Policies::None, "identity")]
            {
                let found = of_batches(&recipe(policies, base, shape), level);
                assert_eq!(found, 0, "{level}, {side}, {base}");
            }
        }
        for name in ["autoaugment-cifar10", "randaugment:8:17", "trivial-augment-wide"] {
            let shape = ImageShape { height: 31, width: 33 };
            let policy = library::named(name).unwrap().unwrap().at_search_epoch(0).clone();
            let found = of_batches(&recipe(Policies::One(policy), base, shape), level);
            assert_eq!(found, 0, "{level}, {name}");
        }
        // Each op alone, which the last policy need not have.
        for op in Op::ALL {
            let policy = Policy::from_hyperparameters(&[op], &[10, 7, 0, 0]).unwrap();
            let shape = ImageShape { height: 31, width: 33 };
            let found = of_batches(&recipe(Policies::One(policy), base, shape), level);
            assert_eq!(found, 0, "{level}, {op}");
        }
    }
}

#[test]
fn images_that_are_cropped_and_resized() {
    let source = ImageShape { height: 90, width: 120 };
    let pixels: Vec<u8> = (0..source.rgb_bytes()).map(|at| (at * at / 7) as u8).collect();
    let pixels = Source { pixels: &pixels, place: PixelBox::whole(source), reduction: 1 };
    let shape = ImageShape { height: 56, width: 56 };
    for level in Level::available() {
        for base in ["random_resized_crop:56,flip", "resize:64,center_crop:56"] {
            let last = library::cifar10_pba().at(199, 200).unwrap().clone();
            let recipe = recipe(Policies::One(last), base, shape);
            let (mut scratch, mut counts) = (Scratch::with_level(level), OpCounts::default());
            let mut out = vec![0; shape.rgb_bytes()];
            let mut render = |sample| {
                let view = recipe.view(sample, source);
                render_source(&recipe, sample, &view, &pixels, &mut out, &mut scratch, &mut counts);
            };
            // The largest crop and the most taps may come late.
            (0..400).for_each(&mut render);
            let found = allocations(|| (0..400).for_each(&mut render));
            assert_eq!(found, 0, "{level}, {base}");
        }
    }
}
