//! Families of policies besides the paper's pairs: their draws, and what becomes of an image.

use std::sync::Arc;

use pba_augment::rng::{Address, Purpose, Stream, below, tenths};
use pba_augment::{
    Action, Base, Bins, ImageShape, Level, OpCounts, Policies, Recipe, RecipeSpec, Rgba, Scratch, Sign,
    apply, render_image,
};
use pba_schedules::{Chance, Policy, Provenance, RandAugment, SPACE, Schedule, Segment, library};
use proptest::prelude::*;
use rand::Rng;

const MEAN: [u8; 3] = [125, 123, 114];

fn policy(name: &str) -> Policy {
    library::named(name).unwrap().expect("a published policy").at_search_epoch(0).clone()
}

fn recipe(policies: Policies, base: Base, shape: ImageShape) -> Recipe {
    Recipe::new(RecipeSpec { policies, base, seed: 11, epoch: 199, mean: MEAN, shape }).unwrap()
}

fn stream(item: u64) -> Stream {
    Address { seed: 9, purpose: Purpose::Dataset, epoch: 0, item }.stream()
}

fn noise(shape: ImageShape, sample: u64) -> Vec<u8> {
    let mut rng = stream(sample);
    (0..shape.rgb_bytes()).map(|_| rng.next_u32() as u8).collect()
}

/// Checks the draws of a policy against the words at their addresses.
#[track_caller]
fn check_draws(name: &str, expected: impl Fn(&dyn Fn(u32, usize) -> u32, ImageShape) -> Vec<Action>) {
    let (base, shape) = (Base::cifar(), ImageShape { height: 32, width: 48 });
    let recipe = recipe(Policies::One(policy(name)), base, shape);
    for sample in (0..3000).chain([u64::MAX, 1 << 32]) {
        let of = |purpose| Address { seed: 11, purpose, epoch: 199, item: sample };
        let word = |block, lane: usize| of(Purpose::Policy).block(block)[lane];
        assert_eq!(recipe.op_calls(sample).actions(), expected(&word, shape), "{name}, sample {sample}");
        let word = |block, lane: usize| of(Purpose::Base).block(block)[lane];
        let draws = recipe.base_draws(sample);
        assert_eq!(draws.crop, (below(word(0, 0), 8), below(word(0, 1), 8)));
        assert_eq!(draws.flip, below(word(0, 2), 2) == 1);
        assert_eq!(draws.cutout, (below(word(1, 0), 48), below(word(1, 1), 32)));
        for level in Level::available() {
            assert_eq!(recipe.draws(level, sample), (recipe.op_calls(sample), draws), "{name} at {level}");
        }
    }
}

fn sign(word: u32) -> Sign {
    if below(word, 2) == 1 { Sign::Minus } else { Sign::Plus }
}

/// The tables in the documentation of `draws`, read word for word.
#[test]
fn draws_are_where_the_tables_say() {
    for name in ["autoaugment-cifar10", "autoaugment-svhn", "autoaugment-imagenet"] {
        let Policy::SubPolicies(sub_policies) = policy(name) else { panic!("{name}") };
        let sub_policies = sub_policies.sub_policies();
        check_draws(name, |word, shape| {
            let sub_policy = sub_policies[below(word(0, 0), sub_policies.len() as u32) as usize];
            let come = (0..2).filter(|&at| tenths(word(0, 1 + at), sub_policy[at].probability));
            let action = |at: usize| {
                let Chance { op, magnitude, .. } = sub_policy[at];
                Bins::AutoAugment.action(op, magnitude.unwrap_or(0), sign(word(1, at)), shape)
            };
            come.map(action).collect()
        });
    }
    for (ops, magnitude) in [(1, 30), (2, 9), (8, 17)] {
        check_draws(&RandAugment::new(ops, magnitude).unwrap().name(), |word, shape| {
            let action = |block| {
                let op = SPACE[below(word(block, 0), 14) as usize];
                op.map(|op| Bins::RandAugment.action(op, magnitude, sign(word(block, 1)), shape))
            };
            (1..=u32::from(ops)).filter_map(action).collect()
        });
    }
    check_draws("trivial-augment-wide", |word, shape| {
        let op = SPACE[below(word(0, 0), 14) as usize];
        let bin = below(word(0, 1), 31) as u8;
        let action = op.map(|op| Bins::TrivialAugmentWide.action(op, bin, sign(word(0, 2)), shape));
        action.into_iter().collect()
    });
}

#[test]
#[should_panic(expected = "others have actions only")]
fn their_magnitudes_are_not_the_papers() {
    let shape = ImageShape { height: 8, width: 8 };
    let recipe = recipe(Policies::One(policy("trivial-augment-wide")), Base::IDENTITY, shape);
    let _ = recipe.op_calls(0).as_slice();
}

/// A schedule of every family, each for an epoch.
fn mixed() -> Arc<Schedule> {
    let pairs = library::cifar10_pba().at(199, 200).unwrap().clone();
    let names = ["autoaugment-imagenet", "randaugment:3:12", "trivial-augment-wide"];
    let policies = names.map(policy).into_iter().chain([pairs]);
    let segments = policies.map(|policy| Segment { epochs: 1, policy }).collect();
    Arc::new(Schedule::new("mixed", segments, Provenance::default()).unwrap())
}

/// Each image is then as with the policy of its epoch alone, base augmentation included.
#[test]
fn any_epoch_of_a_schedule_of_every_family() {
    let (schedule, shape) = (mixed(), ImageShape { height: 17, width: 23 });
    let flattened = recipe(Policies::AnyEpochOf(schedule.clone()), Base::cifar(), shape);
    let alone: Vec<Recipe> = (0..schedule.epochs())
        .map(|epoch| Policies::One(schedule.at_search_epoch(epoch).clone()))
        .map(|policies| recipe(policies, Base::cifar(), shape))
        .collect();
    let mut met = [0; 4];
    for sample in 0..400 {
        let address = Address { seed: 11, purpose: Purpose::Policy, epoch: 199, item: sample };
        let search_epoch = below(address.block(0)[3], schedule.epochs()) as usize;
        met[search_epoch] += 1;
        let pixels = noise(shape, sample);
        let [one, other] = [&flattened, &alone[search_epoch]].map(|recipe| {
            let mut out = vec![77; pixels.len()];
            let (mut scratch, mut counts) = (Scratch::new(), OpCounts::default());
            render_image(recipe, sample, &pixels, &mut out, &mut scratch, &mut counts);
            (out, counts)
        });
        assert_eq!(one, other, "sample {sample}");
    }
    assert!(met.iter().all(|&count| count > 50), "{met:?}");
    assert_eq!((flattened.calls_max(), alone[2].calls_max()), (8, 1));
}

/// Crop and flip, then the policy on an image without alpha, then the cutout: each step as a pass over
/// the whole image.
fn render_plainly(recipe: &Recipe, sample: u64, pixels: &[u8]) -> Vec<u8> {
    let ImageShape { height, width } = recipe.shape();
    let (height, width) = (height as usize, width as usize);
    let (draws, base) = (recipe.base_draws(sample), recipe.spec().base);
    let mut image: Vec<[u8; 3]> = pixels.as_chunks().0.to_vec();
    if let Some(padding) = base.pad_crop {
        let padding = padding as usize;
        let source = |at: usize, first: u32, len: usize| {
            (at + first as usize).checked_sub(padding).filter(|&at| at < len)
        };
        let before = image.clone();
        for (i, pixel) in image.iter_mut().enumerate() {
            let (column, row) =
                (source(i % width, draws.crop.0, width), source(i / width, draws.crop.1, height));
            *pixel = column.zip(row).map_or(MEAN, |(column, row)| before[row * width + column]);
        }
    }
    if draws.flip {
        image.chunks_mut(width).for_each(<[_]>::reverse);
    }
    for action in recipe.op_calls(sample).actions() {
        let mut rgba = Rgba::from_rgb(recipe.shape(), image.as_flattened()).unwrap();
        apply(action, &mut rgba, &mut Scratch::with_level(Level::PORTABLE));
        image = rgba.pixels().iter().map(|&[r, g, b, _]| [r, g, b]).collect();
    }
    if let Some(size) = base.cutout {
        for (i, pixel) in image.iter_mut().enumerate() {
            let inside = |at: usize, centre: u32| {
                let first = i64::from(centre) - i64::from(size / 2);
                (first..first + i64::from(size)).contains(&(at as i64))
            };
            if inside(i % width, draws.cutout.0) && inside(i / width, draws.cutout.1) {
                *pixel = MEAN;
            }
        }
    }
    image.concat()
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(policy("autoaugment-cifar10")),
        Just(policy("autoaugment-svhn")),
        Just(policy("autoaugment-imagenet")),
        Just(policy("trivial-augment-wide")),
        (1u8..=8, 0u8..=30)
            .prop_map(|(ops, magnitude)| Policy::RandAugment(RandAugment::new(ops, magnitude).unwrap())),
    ]
}

fn any_base() -> impl Strategy<Value = Base> {
    (prop::option::of(1u32..50), any::<bool>(), prop::option::of(1u32..50))
        .prop_map(|(pad_crop, flip, cutout)| Base { pad_crop, flip, cutout, ..Base::IDENTITY })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rendering_is_the_same_as_passes(
        policy in any_policy(),
        base in any_base(),
        (height, width) in (1u32..70, 1u32..70),
        seed: u64,
        epoch: u32,
    ) {
        let shape = ImageShape { height, width };
        let policies = Policies::One(policy);
        let recipe = Recipe::new(RecipeSpec { policies, base, seed, epoch, mean: MEAN, shape }).unwrap();
        let mut scratches: Vec<_> = Level::available().into_iter().map(Scratch::with_level).collect();
        for sample in 0..8 {
            let pixels = noise(shape, sample);
            let expected = render_plainly(&recipe, sample, &pixels);
            for scratch in &mut scratches {
                let mut out = vec![77; pixels.len()];
                render_image(&recipe, sample, &pixels, &mut out, scratch, &mut OpCounts::default());
                prop_assert_eq!(&out, &expected, "sample {} at {}", sample, scratch.level());
            }
        }
    }
}

/// Every level against plain Rust: each op at each bin, at sizes that leave tails of every length.
#[test]
fn every_width_at_each_level() {
    for width in 1..=70 {
        let mut rng = stream(5000 + u64::from(width));
        let shape = ImageShape { height: 1 + below(rng.next_u32(), 40), width };
        for bins in [Bins::AutoAugment, Bins::RandAugment, Bins::TrivialAugmentWide] {
            let all = SPACE.into_iter().flatten().flat_map(|op| (0..=bins.last()).map(move |bin| (op, bin)));
            for (op, bin) in all {
                let sign = sign(rng.next_u32());
                // Holes of an earlier op.
                let rgba: Vec<u8> = (0..shape.pixels())
                    .flat_map(|_| {
                        let [r, g, b, a] = rng.next_u32().to_le_bytes();
                        [r, g, b, u8::from(a > 50) * 255]
                    })
                    .collect();
                let of = |level| {
                    let mut image = Rgba::from_rgba(shape, &rgba).unwrap();
                    apply(bins.action(op, bin, sign, shape), &mut image, &mut Scratch::with_level(level));
                    image
                };
                let expected = of(Level::PORTABLE);
                for level in Level::available() {
                    assert!(
                        of(level) == expected,
                        "{bins:?}, {op} at bin {bin}, {sign:?}, {shape:?} at {level}"
                    );
                }
            }
        }
    }
}
