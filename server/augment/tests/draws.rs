//! The random draws against exact probabilities, and against the paper's own words.
//!
//! Every comparison is a chi-square test, or a test of one frequency against its normal limit, at
//! p = 0.001, divided among the comparisons where there are many. The draws are fixed by their
//! addresses, so a test that passes once passes always.

// What was compared, for whoever runs with --nocapture.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;

use pba_augment::rng::{Address, Purpose, Stream, below, tenths};
use pba_augment::{
    Base, ImageShape, Level, OpCall, OpCounts, Policies, Recipe, RecipeSpec, Scratch, Sign, render_image,
};
use pba_schedules::{Op, Policy, Slot, library};
use rand::Rng;

const IMAGES: u64 = 100_000;
const SHAPE: ImageShape = ImageShape { height: 32, width: 32 };

fn recipe(policies: Policies, base: Base, shape: ImageShape) -> Recipe {
    Recipe::new(RecipeSpec { policies, base, seed: 11, epoch: 199, mean: [125, 123, 114], shape }).unwrap()
}

fn last_policy() -> Policy {
    library::cifar10_pba().at(199, 200).unwrap().clone()
}

/// The value that a standard normal variable exceeds with probability 0.001.
const NORMAL_LIMIT: f64 = 3.0902;

/// Asserts that counts agree with expected counts: chi-square, p > 0.001 (Wilson and Hilferty's
/// approximation). Categories that expect fewer than 5 count as one.
#[track_caller]
fn check_chi_square(what: &str, counts_and_expected: impl IntoIterator<Item = (f64, f64)>) {
    let (mut sum, mut categories, mut rare) = (0.0, 0.0, (0.0, 0.0));
    let term = |count: f64, expected: f64| (count - expected).powi(2) / expected;
    for (count, expected) in counts_and_expected {
        if expected < 5.0 {
            rare = (rare.0 + count, rare.1 + expected);
        } else {
            sum += term(count, expected);
            categories += 1.0;
        }
    }
    if rare.1 > 0.0 {
        sum += term(rare.0, rare.1);
        categories += 1.0;
    }
    let degrees: f64 = categories - 1.0;
    let spread = 2.0 / (9.0 * degrees);
    let limit = degrees * (1.0 - spread + NORMAL_LIMIT * spread.sqrt()).powi(3);
    println!("{what}: chi-square {sum:.1} with {degrees} degrees of freedom, limit {limit:.1}");
    assert!(sum < limit, "{what}: chi-square {sum:.1} with {degrees} degrees of freedom, limit {limit:.1}");
}

#[track_caller]
fn check_uniform(what: &str, counts: &[u64]) {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    check_chi_square(what, counts.iter().map(|&count| (count as f64, expected)));
}

/// The slots that are applied, in order: none, one or two.
type Applied = (Option<usize>, Option<usize>);

/// Probability of every outcome of the walk, by its definition.
///
/// For a slot s and the number k of *other* slots that fire, s is first with probability
/// 1 / (k + 1); with a slot t beside it, s is first and t second with 1 / ((k + 1) (k + 2)).
fn exact(slots: &[Slot]) -> BTreeMap<Applied, f64> {
    let chance: Vec<f64> = slots.iter().map(|slot| f64::from(slot.probability) / 10.0).collect();
    // How many slots fire, leaving some out: probability of each number.
    let fired = |without: &[usize]| {
        let mut odds = vec![1.0];
        for (slot, chance) in chance.iter().enumerate() {
            if !without.contains(&slot) {
                odds.push(0.0);
                for k in (0..odds.len()).rev() {
                    odds[k] = odds[k] * (1.0 - chance) + if k > 0 { odds[k - 1] * chance } else { 0.0 };
                }
            }
        }
        odds
    };
    let mut outcomes = BTreeMap::from([((None, None), 0.2 + 0.8 * fired(&[])[0])]);
    for first in 0..slots.len() {
        let others = fired(&[first]);
        let alone: f64 = others.iter().zip(1..).map(|(odds, n)| odds / f64::from(n)).sum();
        outcomes.insert((Some(first), None), chance[first] * (0.3 * alone + 0.5 * others[0]));
        for second in (0..slots.len()).filter(|&second| second != first) {
            let others = fired(&[first, second]);
            let pair: f64 =
                others.iter().zip(1..).map(|(odds, n)| odds / f64::from(n) / f64::from(n + 1)).sum();
            outcomes.insert((Some(first), Some(second)), 0.5 * chance[first] * chance[second] * pair);
        }
    }
    outcomes.retain(|_, odds| *odds > 0.0);
    let sum: f64 = outcomes.values().sum();
    assert!((sum - 1.0).abs() < 1e-12, "probabilities add up to {sum}");
    outcomes
}

/// The walk in the paper's words.
fn walk(slots: &[Slot], rng: &mut Stream) -> Applied {
    let mut count = match below(rng.next_u32(), 10) {
        0..2 => 0,
        2..5 => 1,
        _ => 2,
    };
    let mut order: Vec<usize> = (0..slots.len()).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, below(rng.next_u32(), last as u32 + 1) as usize);
    }
    let mut applied = Vec::new();
    for slot in order {
        if count == 0 {
            break;
        }
        if tenths(rng.next_u32(), slots[slot].probability) {
            applied.push(slot);
            count -= 1;
        }
    }
    (applied.first().copied(), applied.get(1).copied())
}

/// Ops and magnitudes, with a count for each outcome: two slots of the same op and magnitude look
/// the same from outside.
type Seen = (Option<(Op, u8)>, Option<(Op, u8)>);

fn seen(slots: &[Slot], (first, second): Applied) -> Seen {
    let of = |slot: Option<usize>| slot.map(|slot| (slots[slot].op, slots[slot].magnitude));
    (of(first), of(second))
}

#[track_caller]
fn check_outcomes(what: &str, policy: &Policy, outcomes: impl Iterator<Item = Seen>) {
    let mut expected = BTreeMap::<Seen, f64>::new();
    for (applied, odds) in exact(policy.slots()) {
        *expected.entry(seen(policy.slots(), applied)).or_default() += odds;
    }
    let mut counts = BTreeMap::<Seen, u64>::new();
    outcomes.for_each(|outcome| *counts.entry(outcome).or_default() += 1);
    let total = counts.values().sum::<u64>() as f64;
    assert!(counts.keys().all(|outcome| expected.contains_key(outcome)), "{what}: an impossible outcome");
    check_chi_square(
        what,
        expected
            .iter()
            .map(|(outcome, odds)| (counts.get(outcome).copied().unwrap_or_default() as f64, odds * total)),
    );
}

/// Policies with few and many slots that fire, certain ones, twins, and other lists of ops.
fn policies() -> Vec<(&'static str, Policy)> {
    let of = |ops: &[Op], levels: &[u8]| Policy::from_hyperparameters(ops, levels).unwrap();
    let ops = [Op::Rotate, Op::Invert, Op::Cutout];
    let certain: [u8; 60] = std::array::from_fn(|i| if i % 2 == 0 { 10 } else { (i / 6) as u8 });
    vec![
        ("last of cifar10-pba", last_policy()),
        ("epoch 20 of cifar10-pba", library::cifar10_pba().at(20, 200).unwrap().clone()),
        ("one op, certain once", of(&[Op::Rotate], &[10, 1, 0, 2])),
        ("three ops", of(&ops, &[1, 1, 5, 2, 9, 3, 10, 4, 3, 2, 0, 6])),
        ("all certain", Policy::from_hyperparameters(&Op::ALL, &certain).unwrap()),
        ("rare", of(&ops, &[1, 1, 1, 2, 1, 3, 0, 4, 0, 2, 0, 6])),
    ]
}

#[test]
fn draws_follow_the_exact_probabilities() {
    for (name, policy) in policies() {
        let recipe = recipe(Policies::One(policy.clone()), Base::IDENTITY, SHAPE);
        let outcomes = (0..IMAGES).map(|sample| {
            let calls = recipe.op_calls(sample);
            let mut calls = calls.as_slice().iter().map(|call| (call.op, call.magnitude));
            (calls.next(), calls.next())
        });
        check_outcomes(name, &policy, outcomes);
    }
}

#[test]
fn the_paper_s_walk_follows_the_same_probabilities() {
    for (item, (name, policy)) in policies().into_iter().enumerate() {
        let mut rng = Address { seed: 12, purpose: Purpose::Search, epoch: 0, item: item as u64 }.stream();
        let outcomes = (0..IMAGES).map(|_| seen(policy.slots(), walk(policy.slots(), &mut rng)));
        check_outcomes(name, &policy, outcomes);
    }
}

/// What the images that are rendered report: how often each op fired.
#[test]
fn each_op_fires_as_often_as_the_policy_says() {
    let policy = last_policy();
    let shape = ImageShape { height: 1, width: 1 };
    let recipe = recipe(Policies::One(policy.clone()), Base::cifar(), shape);
    let (mut scratch, mut counts) = (Scratch::new(), OpCounts::default());
    for sample in 0..IMAGES {
        render_image(&recipe, sample, &[1, 2, 3], &mut [0; 3], &mut scratch, &mut counts);
    }
    // Mean and variance, over images, of how often an op fires: 0, 1 or 2 times.
    let mut moments = [(0.0, 0.0); Op::ALL.len()];
    for (applied, odds) in exact(policy.slots()) {
        let (first, second) = seen(policy.slots(), applied);
        for op in Op::ALL {
            let times =
                [first, second].into_iter().flatten().filter(|(fired, _)| *fired == op).count() as f64;
            let (mean, square) = &mut moments[op as usize];
            *mean += odds * times;
            *square += odds * times * times;
        }
    }
    for ((op, count), (mean, square)) in counts.iter().zip(moments) {
        let expected = mean * IMAGES as f64;
        let deviation = ((square - mean * mean) * IMAGES as f64).sqrt();
        println!("{op:<12} fired {count:>6} times, {expected:>8.1} expected, deviation {deviation:.1}");
        // Fifteen two-sided tests: p = 0.001 / 15 is at 3.99 deviations.
        assert!((count as f64 - expected).abs() <= 3.99 * deviation, "{op}: {count}, expected {expected:.1}");
    }
}

#[test]
fn signs_and_centres_are_uniform() {
    let shape = ImageShape { height: 5, width: 9 };
    let ops = [Op::Rotate, Op::Cutout];
    let policy = Policy::from_hyperparameters(&ops, &[10, 1, 10, 2, 10, 3, 10, 4]).unwrap();
    let recipe = recipe(Policies::One(policy), Base::IDENTITY, shape);
    let cells = shape.pixels();
    let mut signs = [[0; 2]; 2];
    let mut centres = vec![vec![0; cells]; 2];
    let mut pairs = vec![0; 4];
    for sample in 0..IMAGES {
        let calls = recipe.op_calls(sample);
        for (position, call) in calls.as_slice().iter().enumerate() {
            match *call {
                OpCall { op: Op::Cutout, centre: (column, row), .. } => {
                    centres[position][(row * shape.width + column) as usize] += 1;
                }
                OpCall { sign, .. } => signs[position][usize::from(sign == Sign::Minus)] += 1,
            }
        }
        if let [OpCall { op: Op::Rotate, sign: one, .. }, OpCall { op: Op::Rotate, sign: other, .. }] =
            calls.as_slice()
        {
            pairs[usize::from(*one == Sign::Minus) * 2 + usize::from(*other == Sign::Minus)] += 1;
        }
    }
    for position in 0..2 {
        check_uniform(&format!("signs of op {position}"), &signs[position]);
        check_uniform(&format!("centres of op {position}"), &centres[position]);
    }
    check_uniform("signs of two ops", &pairs);
}

#[test]
fn crops_flips_and_cutouts_are_uniform() {
    for (shape, base) in [
        (SHAPE, Base::cifar()),
        (
            ImageShape { height: 7, width: 13 },
            Base { pad_crop: Some(3), flip: true, cutout: Some(5), ..Base::IDENTITY },
        ),
    ] {
        let recipe = recipe(Policies::None, base, shape);
        let places = 2 * base.pad_crop.unwrap();
        let mut crops = vec![0; 2 * (places * places) as usize];
        let mut centres = vec![0; shape.pixels()];
        for sample in 0..IMAGES {
            let draws = recipe.base_draws(sample);
            let place = draws.crop.1 * places + draws.crop.0;
            crops[place as usize * 2 + usize::from(draws.flip)] += 1;
            centres[(draws.cutout.1 * shape.width + draws.cutout.0) as usize] += 1;
        }
        let by = |keep: &dyn Fn(usize) -> usize, len: usize| {
            let mut counts = vec![0; len];
            crops.iter().enumerate().for_each(|(i, count)| counts[keep(i)] += count);
            counts
        };
        let side = places as usize;
        check_uniform("crop columns", &by(&|i| i / 2 % side, side));
        check_uniform("crop rows", &by(&|i| i / 2 / side, side));
        check_uniform("flips", &by(&|i| i % 2, 2));
        check_uniform("crops and flips together", &crops);
        check_uniform("cutout centres", &centres);
    }
}

/// Flattened schedules draw a search epoch, and are then as with the policy of that epoch alone.
#[test]
fn any_epoch_of_a_schedule() {
    let schedule = Arc::new(library::cifar10_pba());
    let flattened = recipe(Policies::AnyEpochOf(schedule.clone()), Base::IDENTITY, SHAPE);
    let alone: Vec<Recipe> = (0..schedule.epochs())
        .map(|epoch| schedule.at_search_epoch(epoch).clone())
        .map(|policy| recipe(Policies::One(policy), Base::IDENTITY, SHAPE))
        .collect();
    let mut counts = vec![0; schedule.epochs() as usize];
    for sample in 0..IMAGES {
        let address = Address { seed: 11, purpose: Purpose::Policy, epoch: 199, item: sample };
        let search_epoch = below(address.block(0)[3], schedule.epochs()) as usize;
        counts[search_epoch] += 1;
        assert_eq!(flattened.op_calls(sample), alone[search_epoch].op_calls(sample), "sample {sample}");
    }
    check_uniform("search epochs", &counts);
}

/// The table in the documentation of `draws`, read word for word.
#[test]
fn draws_are_where_the_table_says() {
    let base = Base::cifar();
    let (policy, shape) = (last_policy(), ImageShape { height: 32, width: 48 });
    let recipe = recipe(Policies::One(policy.clone()), base, shape);
    for sample in (0..2000).chain([u64::MAX, 1 << 32]) {
        let of = |purpose| Address { seed: 11, purpose, epoch: 199, item: sample };
        let word = |block, lane: usize| of(Purpose::Policy).block(block)[lane];
        let mut fired: Vec<&Slot> = (policy.slots().iter().enumerate())
            .filter(|(s, slot)| tenths(word(4 + *s as u32 / 4, s % 4), slot.probability))
            .map(|(_, slot)| slot)
            .collect();
        let count = match word(0, 0) {
            w if tenths(w, 2) => 0,
            w if tenths(w, 5) => 1,
            _ => 2,
        };
        let mut expected = Vec::new();
        for position in 0..count.min(fired.len()) {
            let slot = fired.remove(below(word(0, 1 + position), fired.len() as u32) as usize);
            let minus = below(word(1, position), 2) == 1;
            let centre = (below(word(2, 2 * position), 48), below(word(2, 2 * position + 1), 32));
            expected.push(OpCall {
                op: slot.op,
                magnitude: slot.magnitude,
                sign: if minus { Sign::Minus } else { Sign::Plus },
                centre: if slot.op == Op::Cutout { centre } else { (0, 0) },
            });
        }
        assert_eq!(recipe.op_calls(sample).as_slice(), expected, "sample {sample}");
        let word = |block, lane: usize| of(Purpose::Base).block(block)[lane];
        let draws = recipe.base_draws(sample);
        assert_eq!(draws.crop, (below(word(0, 0), 8), below(word(0, 1), 8)));
        assert_eq!(draws.flip, below(word(0, 2), 2) == 1);
        assert_eq!(draws.cutout, (below(word(1, 0), 48), below(word(1, 1), 32)));
    }
}

/// All at once or one by one, at every level, with few and many slots.
#[test]
fn draws_at_once_are_the_same() {
    let shape = ImageShape { height: 32, width: 48 };
    let any_epoch = Policies::AnyEpochOf(Arc::new(library::cifar10_pba()));
    let policies = policies().into_iter().map(|(_, policy)| Policies::One(policy));
    for policies in policies.chain([any_epoch, Policies::None]) {
        let recipe = recipe(policies, Base::cifar(), shape);
        for sample in (0..3000).chain([u64::MAX, 1 << 32]) {
            let expected = (recipe.op_calls(sample), recipe.base_draws(sample));
            for level in Level::available() {
                assert_eq!(recipe.draws(level, sample), expected, "sample {sample} at {level}");
            }
        }
    }
}
