//! Rendering against three separate passes, and the promises about regrouping.

use pba_augment::rng::{Address, Purpose};
use pba_augment::{
    Base, ImageShape, Level, OpCounts, Plan, PlanSpec, Policies, Recipe, RecipeSpec, Rgba, Scratch, Shard,
    apply, render_batch, render_image,
};
use pba_schedules::{Digest, Op, Policy, library};
use proptest::prelude::*;
use rand::Rng;

const MEAN: [u8; 3] = [125, 123, 114];

/// Pixels of a sample: noise, so that nothing matches by chance.
fn noise(shape: ImageShape, sample: u64) -> Vec<u8> {
    let mut rng = Address { seed: 3, purpose: Purpose::Dataset, epoch: 0, item: sample }.stream();
    (0..shape.rgb_bytes()).map(|_| rng.next_u32() as u8).collect()
}

fn render(recipe: &Recipe, sample: u64, pixels: &[u8]) -> Vec<u8> {
    render_at(Level::detect(), recipe, sample, pixels)
}

fn render_at(level: Level, recipe: &Recipe, sample: u64, pixels: &[u8]) -> Vec<u8> {
    let mut out = vec![77; pixels.len()];
    let mut scratch = Scratch::with_level(level);
    render_image(recipe, sample, pixels, &mut out, &mut scratch, &mut OpCounts::default());
    out
}

/// The policy, then each step of the base augmentation, as passes over whole images.
fn render_plainly(recipe: &Recipe, sample: u64, pixels: &[u8]) -> Vec<u8> {
    let ImageShape { height, width } = recipe.shape();
    let (height, width) = (height as usize, width as usize);
    let mean = recipe.spec().mean;
    let draws = recipe.base_draws(sample);

    let mut image = Rgba::from_rgb(recipe.shape(), pixels).unwrap();
    for call in recipe.op_calls(sample).as_slice() {
        apply(call, &mut image, &mut Scratch::with_level(Level::PORTABLE));
    }
    let masked = |&[r, g, b, a]: &[u8; 4]| if a == 0 { mean } else { [r, g, b] };
    let mut image: Vec<[u8; 3]> = image.pixels().iter().map(masked).collect();

    if let Some(padding) = recipe.spec().base.pad_crop {
        let padding = padding as usize;
        let padded_width = width + 2 * padding;
        let mut padded = vec![mean; padded_width * (height + 2 * padding)];
        for y in 0..height {
            for x in 0..width {
                padded[(y + padding) * padded_width + x + padding] = image[y * width + x];
            }
        }
        for y in 0..height {
            for x in 0..width {
                let (column, row) = (x + draws.crop.0 as usize, y + draws.crop.1 as usize);
                image[y * width + x] = padded[row * padded_width + column];
            }
        }
    }
    if draws.flip {
        image.chunks_mut(width).for_each(<[_]>::reverse);
    }
    if let Some(size) = recipe.spec().base.cutout {
        for (i, pixel) in image.iter_mut().enumerate() {
            let inside = |at: usize, centre: u32| {
                let first = i64::from(centre) - i64::from(size / 2);
                (first..first + i64::from(size)).contains(&(at as i64))
            };
            if inside(i % width, draws.cutout.0) && inside(i / width, draws.cutout.1) {
                *pixel = mean;
            }
        }
    }
    image.concat()
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let slot = (0u8..=10, 0u8..=9).prop_map(|(probability, magnitude)| [probability, magnitude]);
    prop::collection::vec(slot, 30)
        .prop_map(|slots| Policy::from_hyperparameters(&Op::ALL, slots.as_flattened()).unwrap())
}

fn any_base() -> impl Strategy<Value = Base> {
    (prop::option::of(1u32..50), any::<bool>(), prop::option::of(1u32..50))
        .prop_map(|(pad_crop, flip, cutout)| Base { pad_crop, flip, cutout, ..Base::IDENTITY })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn fused_is_the_same_as_three_passes(
        policy in prop::option::of(any_policy()),
        base in any_base(),
        (height, width) in (1u32..70, 1u32..70),
        seed: u64,
        epoch: u32,
    ) {
        let shape = ImageShape { height, width };
        let policies = policy.map_or(Policies::None, Policies::One);
        let recipe = Recipe::new(RecipeSpec { policies, base, seed, epoch, mean: MEAN, shape }).unwrap();
        for sample in 0..8 {
            let pixels = noise(shape, sample);
            let expected = render_plainly(&recipe, sample, &pixels);
            for level in Level::available() {
                let actual = render_at(level, &recipe, sample, &pixels);
                prop_assert_eq!(&actual, &expected, "sample {} at {}", sample, level);
            }
        }
    }
}

fn cifar_recipe(seed: u64, epoch: u32) -> Recipe {
    let shape = ImageShape { height: 32, width: 32 };
    let policy = library::cifar10_pba().at(epoch, 200).unwrap().clone();
    let spec =
        RecipeSpec { policies: Policies::One(policy), base: Base::cifar(), seed, epoch, mean: MEAN, shape };
    Recipe::new(spec).unwrap()
}

/// An epoch of 300 samples cut in some way: (index, pixels) of each row, sorted by index.
fn epoch(recipe: &Recipe, spec: PlanSpec) -> Vec<(u64, Vec<u8>)> {
    epoch_at(Level::detect(), recipe, spec)
}

fn epoch_at(level: Level, recipe: &Recipe, spec: PlanSpec) -> Vec<(u64, Vec<u8>)> {
    let shape = recipe.shape();
    let dataset: Vec<Vec<u8>> = (0..300).map(|sample| noise(shape, sample)).collect();
    let mut rows = Vec::new();
    let (mut scratch, mut counts) = (Scratch::with_level(level), OpCounts::default());
    for index in 0..spec.shard.count {
        let plan = Plan::new(PlanSpec { shard: Shard { index, ..spec.shard }, ..spec }).unwrap();
        for n in 0..plan.batches() {
            let mut out = vec![0; plan.len_of(n) * shape.rgb_bytes()];
            let image = |index: u64| dataset[index as usize].as_slice();
            render_batch(recipe, plan.indices(n), image, &mut out, &mut scratch, &mut counts);
            rows.extend(plan.indices(n).zip(out.chunks(shape.rgb_bytes()).map(<[u8]>::to_vec)));
        }
    }
    rows.sort();
    rows
}

const EPOCH: PlanSpec = PlanSpec {
    samples: 300,
    seed: 0,
    epoch: 199,
    shuffle: true,
    shard: Shard::WHOLE,
    batch_size: 128,
    drop_last: false,
    start: 0,
    step: 1,
};

#[test]
fn shards_and_batch_sizes_regroup_the_same_pixels() {
    let recipe = cifar_recipe(0, 199);
    let whole = epoch(&recipe, EPOCH);
    assert!(whole.iter().map(|(index, _)| *index).eq(0..300));
    for count in [1, 3, 7] {
        for batch_size in [1, 32, 300] {
            for shuffle in [false, true] {
                let shard = Shard { index: 0, count };
                assert_eq!(epoch(&recipe, PlanSpec { shard, batch_size, shuffle, ..EPOCH }), whole);
            }
        }
    }
}

#[test]
fn seed_and_epoch_change_the_pixels() {
    let shape = ImageShape { height: 32, width: 32 };
    let [one, seed, epoch] = [cifar_recipe(0, 199), cifar_recipe(1, 199), cifar_recipe(0, 198)];
    for other in [seed, epoch] {
        let same = |sample: &u64| {
            let pixels = noise(shape, *sample);
            render(&one, *sample, &pixels) == render(&other, *sample, &pixels)
        };
        assert_eq!((0..100).filter(same).count(), 0);
    }
}

/// What was rendered before leaves no trace in the buffers.
#[test]
fn scratch_does_not_matter() {
    let (mut scratch, mut counts) = (Scratch::new(), OpCounts::default());
    let policy = library::cifar10_pba().at(199, 200).unwrap().clone();
    for (height, width) in [(40, 40), (3, 5), (32, 32), (1, 1), (5, 3), (64, 2)] {
        let shape = ImageShape { height, width };
        let policies = Policies::One(policy.clone());
        let spec = RecipeSpec { policies, base: Base::cifar(), seed: 1, epoch: 0, mean: MEAN, shape };
        let recipe = Recipe::new(spec).unwrap();
        for sample in 0..50 {
            let pixels = noise(shape, sample);
            let mut out = vec![0; pixels.len()];
            render_image(&recipe, sample, &pixels, &mut out, &mut scratch, &mut counts);
            assert_eq!(out, render(&recipe, sample, &pixels));
        }
    }
}

#[test]
fn identity_leaves_pixels_alone() {
    let shape = ImageShape { height: 9, width: 7 };
    let spec =
        RecipeSpec { policies: Policies::None, base: Base::IDENTITY, seed: 1, epoch: 2, mean: MEAN, shape };
    let recipe = Recipe::new(spec).unwrap();
    for sample in 0..20 {
        let pixels = noise(shape, sample);
        assert_eq!(render(&recipe, sample, &pixels), pixels);
    }
}

#[test]
fn wrong_recipes_are_refused() {
    let spec = cifar_recipe(0, 199).spec().clone();
    let refuse = |spec: RecipeSpec, says: &str| {
        let error = Recipe::new(spec).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    };
    let shape = ImageShape { height: 0, width: 32 };
    refuse(RecipeSpec { shape, ..spec.clone() }, "0 rows and 32 columns; allowed are 1..=16384");
    let base = Base { cutout: Some(0), ..Base::cifar() };
    refuse(RecipeSpec { base, ..spec.clone() }, "cutout needs a number of pixels");
    let base = Base { pad_crop: Some(1025), ..Base::cifar() };
    refuse(RecipeSpec { base, ..spec }, "found \"1025\", allowed are 1..=1024");
}

/// Pixels that went out once go out for ever: a change here is a change of every epoch that
/// anyone trained on.
#[test]
fn an_epoch_s_pixels_are_pinned() {
    for level in Level::available() {
        let digest = |epoch_number| {
            let plan = PlanSpec { epoch: epoch_number, ..EPOCH };
            let rows = epoch_at(level, &cifar_recipe(5, epoch_number), plan);
            Digest::of(rows.into_iter().map(|(_, pixels)| pixels).collect::<Vec<_>>().concat()).to_string()
        };
        assert_eq!(digest(0), "876ae9a806da6a80107097dfde69f406ac6259a303e36c656df5ba3fe9236c85");
        assert_eq!(digest(60), "5362253c5930b08bd01755132e1e0dfc6cedc585c415c09cefb00adbd9e83322");
        assert_eq!(digest(199), "d82ccde86660d2bae6eb1d1de519740de79c1e707d57ccde4504b56a820b94e7");
    }
}
