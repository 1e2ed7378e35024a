//! Policies by name against torchvision: pixels of every op at every bin, and how often each is drawn.
//!
//! Pixels are compared with Pillow, at magnitudes that the oracle computes itself; for that it needs the
//! Python of `pillow.rs`. With `PBA_TEST_TORCHVISION=1` everything is compared with torchvision's own code
//! too; `fetch-torchvision.sh` installs it.

// What was compared, for whoever runs with --nocapture.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use pba_augment::rng::{Address, Purpose, Stream, below};
use pba_augment::{Bins, ImageShape, Level, Policies, Recipe, RecipeSpec, Rgba, Scratch, Sign, apply};
use pba_schedules::{BIN_MAX, Chance, Op, Policy, SPACE, library};
use rand::Rng;

/// A running `torchvision_oracle.py`.
struct Oracle {
    child: Child,
    requests: Option<BufWriter<ChildStdin>>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    /// The one that everyone has, and torchvision's own where it is installed.
    fn all() -> Vec<Oracle> {
        [Some(Oracle::pillow()), Oracle::torchvision()].into_iter().flatten().collect()
    }

    fn pillow() -> Oracle {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let of_repository = here.join("../../.venv/bin/python");
        let python = match std::env::var_os("PBA_PYTHON") {
            Some(python) => PathBuf::from(python),
            None if of_repository.exists() => of_repository,
            None => PathBuf::from("python3"),
        };
        Oracle::start(&python, "pillow", "`make test` installs Pillow, or set PBA_PYTHON")
    }

    /// Nothing, which is said past the test harness, where nobody asked for it.
    fn torchvision() -> Option<Oracle> {
        if std::env::var_os("PBA_TEST_TORCHVISION").is_none_or(|value| value != "1") {
            writeln!(
                std::io::stderr(),
                "skipped: torchvision, which `make test PBA_TEST_TORCHVISION=1` installs and compares with"
            )
            .expect("stderr takes text");
            return None;
        }
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.torchvision/python");
        Some(Oracle::start(&python, "torchvision", "`make torchvision` installs it"))
    }

    fn start(python: &Path, kind: &str, advice: &str) -> Oracle {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torchvision_oracle.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start, {advice}: {error}", python.display()));
        let requests = BufWriter::new(child.stdin.take().expect("stdin is piped"));
        let mut answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut hello = String::new();
        if answers.read_line(&mut hello).is_err() || !hello.starts_with(kind) {
            let _ = child.wait();
            panic!("{} has no {kind} (its error is above): {advice}", python.display());
        }
        println!("comparing with {}", hello.trim());
        Oracle { child, requests: Some(requests), answers }
    }

    fn ask(&mut self, kind: u8, texts: &[&str], numbers: &[u32], bytes: &[u8]) {
        let mut request = vec![kind];
        for text in texts {
            request.extend((text.len() as u32).to_le_bytes());
            request.extend(text.as_bytes());
        }
        request.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        request.extend(bytes);
        let requests = self.requests.as_mut().expect("open until dropped");
        requests.write_all(&request).and_then(|()| requests.flush()).expect("the oracle listens");
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.answers.read_exact(&mut bytes).expect("the oracle answers (its error is above)");
        bytes
    }

    /// Compares an op at a bin, at each level.
    #[track_caller]
    fn check(
        &mut self,
        (bins, name): (Bins, &str),
        op: Op,
        bin: u8,
        sign: Sign,
        shape: ImageShape,
        rgb: &[u8],
    ) {
        let negative = u32::from(sign == Sign::Minus);
        self.ask(b'P', &[name, op.name()], &[bin.into(), negative, shape.width, shape.height], rgb);
        let expected = self.read(rgb.len());
        let action = bins.action(op, bin, sign, shape);
        for level in Level::available() {
            let mut image = Rgba::from_rgb(shape, rgb).unwrap();
            apply(action, &mut image, &mut Scratch::with_level(level));
            let actual = image.pixels().iter().flat_map(|&[r, g, b, _]| [r, g, b]);
            let differing = actual.zip(&expected).filter(|(actual, expected)| actual != *expected).count();
            assert_eq!(
                differing, 0,
                "bytes differ: {name}, {op} at bin {bin}, {sign:?}, {action:?}, {shape:?}, {level}"
            );
        }
    }

    /// What torchvision draws for so many images: ops and magnitudes, in order.
    fn draws(&mut self, policy: &str, count: u32, shape: ImageShape) -> Vec<Vec<(Op, f64)>> {
        self.ask(b'D', &[policy], &[count, 7, shape.width, shape.height], &[]);
        let len = u32::from_le_bytes(self.read(4).try_into().unwrap()) as usize;
        let text = String::from_utf8(self.read(len)).unwrap();
        let op = |entry: &str| {
            let (op, magnitude) = entry.split_once(':').expect("op:magnitude");
            (Op::named(op).expect("an op"), magnitude.parse().expect("a number"))
        };
        text.lines().map(|line| line.split_whitespace().map(op).collect()).collect()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // Without requests the oracle ends, unless a failed test left it writing to nobody.
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const RANGES: [(Bins, &str); 3] = [
    (Bins::AutoAugment, "autoaugment"),
    (Bins::RandAugment, "randaugment"),
    (Bins::TrivialAugmentWide, "wide"),
];

/// The signs of an op: only some have two.
fn signs(op: Op) -> &'static [Sign] {
    let unsigned = [Op::Posterize, Op::Solarize, Op::AutoContrast, Op::Equalize, Op::Invert];
    if unsigned.contains(&op) { &[Sign::Plus] } else { &[Sign::Plus, Sign::Minus] }
}

/// The ops that have bins: Invert, which is the same at each, in AutoAugment only.
fn ops(bins: Bins) -> impl Iterator<Item = Op> {
    SPACE.into_iter().flatten().chain((bins == Bins::AutoAugment).then_some(Op::Invert))
}

fn stream(item: u64) -> Stream {
    Address { seed: 4, purpose: Purpose::Dataset, epoch: 0, item }.stream()
}

/// Noise, a ramp with a ripple, or few values.
fn picture(kind: u32, shape: ImageShape, rng: &mut Stream) -> Vec<u8> {
    let [a, b, c, d] = rng.next_u32().to_le_bytes().map(u32::from);
    let byte = |i: usize| {
        let (x, y) = (i as u32 / 3 % shape.width, i as u32 / 3 / shape.width);
        match kind {
            0 => rng.next_u32() as u8,
            1 => {
                (d + (a * x) / shape.width + (b * y) / shape.height + (x * y * c / 4096) % 17).min(255) as u8
            }
            _ => (a / 2 + rng.next_u32() % (2 + b / 4)) as u8,
        }
    };
    (0..shape.rgb_bytes()).map(byte).collect()
}

#[test]
fn every_op_at_every_bin() {
    for mut oracle in Oracle::all() {
        for (item, (height, width)) in
            [(32, 32), (33, 47), (3, 5), (1, 1), (96, 64), (224, 224)].into_iter().enumerate()
        {
            let shape = ImageShape { height, width };
            let mut rng = stream(item as u64);
            let pictures = [0, 1, 2].map(|kind| picture(kind, shape, &mut rng));
            for ranges in RANGES {
                for op in ops(ranges.0) {
                    for bin in 0..=ranges.0.last() {
                        for &sign in signs(op) {
                            let rgb = &pictures[below(rng.next_u32(), 3) as usize];
                            oracle.check(ranges, op, bin, sign, shape, rgb);
                        }
                    }
                }
            }
        }
    }
}

/// The affine ops at any size: their rounding depends on it.
#[test]
fn affine_ops_at_many_sizes() {
    let affine = [Op::Rotate, Op::TranslateX, Op::TranslateY, Op::ShearX, Op::ShearY];
    for mut oracle in Oracle::all() {
        for item in 0..30 {
            let mut rng = stream(1000 + item);
            let mut side = || 1 + below(rng.next_u32(), 70);
            let shape = ImageShape { height: side(), width: side() };
            let rgb = picture(0, shape, &mut rng);
            for ranges in RANGES {
                for op in affine {
                    for bin in 0..=ranges.0.last() {
                        for sign in [Sign::Plus, Sign::Minus] {
                            oracle.check(ranges, op, bin, sign, shape, &rgb);
                        }
                    }
                }
            }
        }
    }
}

/// Long thin images, as long as we take them: the largest coordinates that can occur.
#[test]
fn affine_ops_at_the_largest_sizes() {
    let affine = [Op::Rotate, Op::TranslateX, Op::TranslateY, Op::ShearX, Op::ShearY];
    for mut oracle in Oracle::all() {
        for (height, width) in [(3, 16_384), (16_384, 2)] {
            let shape = ImageShape { height, width };
            let rgb = picture(0, shape, &mut stream(2000 + u64::from(height)));
            for ranges in RANGES {
                let last = ranges.0.last();
                for (op, bin) in affine.into_iter().flat_map(|op| [(op, last - 1), (op, last)]) {
                    for sign in [Sign::Plus, Sign::Minus] {
                        oracle.check(ranges, op, bin, sign, shape, &rgb);
                    }
                }
            }
        }
    }
}

const IMAGES: u64 = 60_000;
/// Images of torchvision, which takes longer.
const TORCHVISION_IMAGES: u32 = 20_000;
const SHAPE: ImageShape = ImageShape { height: 40, width: 50 };
const NAMES: [&str; 7] = [
    "autoaugment-cifar10",
    "autoaugment-svhn",
    "autoaugment-imagenet",
    "randaugment:1:30",
    "randaugment:2:9",
    "randaugment:3:5",
    "trivial-augment-wide",
];

/// What is done to an image: ops with the bits of their parameters, in order.
type Outcome = Vec<(Op, u64)>;

fn policy(name: &str) -> Policy {
    library::named(name).unwrap().expect("a published policy").at_search_epoch(0).clone()
}

/// Probability of every outcome, by the definition of the policy's family.
fn exact(policy: &Policy) -> BTreeMap<Outcome, f64> {
    let mut outcomes = BTreeMap::new();
    let mut add = |outcome: Outcome, odds: f64| *outcomes.entry(outcome).or_insert(0.0) += odds;
    let signs = [Sign::Plus, Sign::Minus];
    match policy {
        Policy::Pairs(_) => panic!("not a policy by name"),
        Policy::SubPolicies(policy) => {
            for sub_policy in policy.sub_policies() {
                for (come, signs) in (0..4).flat_map(|come| (0..4).map(move |signs| (come, signs))) {
                    let (mut outcome, mut odds) = (Vec::new(), 0.25 / policy.sub_policies().len() as f64);
                    for (position, &Chance { op, probability, magnitude }) in sub_policy.iter().enumerate() {
                        let chance = f64::from(probability) / 10.0;
                        if come >> position & 1 == 0 {
                            odds *= 1.0 - chance;
                            continue;
                        }
                        odds *= chance;
                        let sign = if signs >> position & 1 == 0 { Sign::Plus } else { Sign::Minus };
                        let action = Bins::AutoAugment.action(op, magnitude.unwrap_or(0), sign, SHAPE);
                        outcome.push((op, action.parameter.to_bits()));
                    }
                    add(outcome, odds);
                }
            }
        }
        Policy::RandAugment(policy) => {
            let mut all = BTreeMap::from([(Outcome::new(), 1.0)]);
            for _ in 0..policy.count() {
                let mut longer = BTreeMap::new();
                for (outcome, odds) in &all {
                    for (op, sign) in SPACE.into_iter().flat_map(|op| signs.map(|sign| (op, sign))) {
                        let mut outcome = outcome.clone();
                        if let Some(op) = op {
                            let action = Bins::RandAugment.action(op, policy.magnitude(), sign, SHAPE);
                            outcome.push((op, action.parameter.to_bits()));
                        }
                        *longer.entry(outcome).or_insert(0.0) += odds / (2 * SPACE.len()) as f64;
                    }
                }
                all = longer;
            }
            all.into_iter().for_each(|(outcome, odds)| add(outcome, odds));
        }
        Policy::TrivialAugmentWide(_) => {
            let odds = 1.0 / (SPACE.len() * 2 * (usize::from(BIN_MAX) + 1)) as f64;
            for op in SPACE {
                for (bin, sign) in (0..=BIN_MAX).flat_map(|bin| signs.map(|sign| (bin, sign))) {
                    let action = op.map(|op| Bins::TrivialAugmentWide.action(op, bin, sign, SHAPE));
                    add(
                        action.into_iter().map(|action| (action.op, action.parameter.to_bits())).collect(),
                        odds,
                    );
                }
            }
        }
    }
    outcomes.retain(|_, odds| *odds > 0.0);
    let sum: f64 = outcomes.values().sum();
    assert!((sum - 1.0).abs() < 1e-9, "probabilities add up to {sum}");
    outcomes
}

/// The value that a standard normal variable exceeds with probability 0.001.
const NORMAL_LIMIT: f64 = 3.0902;

/// Asserts that outcomes are those of a policy, as often as expected: chi-square, p > 0.001 (Wilson and
/// Hilferty's approximation). Outcomes that are expected fewer than 5 times count as one.
#[track_caller]
fn check_outcomes(what: &str, expected: &BTreeMap<Outcome, f64>, outcomes: impl Iterator<Item = Outcome>) {
    let mut counts = BTreeMap::<Outcome, u32>::new();
    outcomes.for_each(|outcome| *counts.entry(outcome).or_default() += 1);
    let total: u32 = counts.values().sum();
    if let Some(outcome) = counts.keys().find(|outcome| !expected.contains_key(*outcome)) {
        let ops = outcome.iter().map(|(op, bits)| format!("{op} {}", f64::from_bits(*bits)));
        panic!("{what}: impossible: {}", ops.collect::<Vec<_>>().join(", "));
    }
    let (mut sum, mut categories, mut rare) = (0.0, 0.0, (0.0, 0.0));
    let term = |count: f64, expected: f64| (count - expected).powi(2) / expected;
    for (outcome, odds) in expected {
        let (count, expected) =
            (f64::from(counts.get(outcome).copied().unwrap_or(0)), odds * f64::from(total));
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

#[test]
fn our_draws_follow_the_definition() {
    for name in NAMES {
        let policies = Policies::One(policy(name));
        let spec = RecipeSpec { policies, seed: 21, epoch: 3, ..RecipeSpec::untouched(SHAPE) };
        let recipe = Recipe::new(spec).unwrap();
        let outcomes = (0..IMAGES).map(|sample| {
            let calls = recipe.op_calls(sample);
            calls.actions().iter().map(|action| (action.op, action.parameter.to_bits())).collect()
        });
        check_outcomes(name, &exact(&policy(name)), outcomes);
    }
}

/// A magnitude of torchvision's as our parameter.
fn parameter(op: Op, magnitude: f64) -> f64 {
    match op {
        Op::TranslateX | Op::TranslateY => -magnitude.trunc() + 0.0,
        Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => f64::from((1.0 + magnitude) as f32),
        Op::Solarize => magnitude.ceil(),
        _ => magnitude + 0.0,
    }
}

/// Torchvision's own draws are as likely, at the same parameters to the last bit.
#[test]
fn torchvision_s_draws_follow_the_definition() {
    let Some(mut oracle) = Oracle::torchvision() else { return };
    for name in NAMES {
        let draws = oracle.draws(name, TORCHVISION_IMAGES, SHAPE);
        let outcomes = draws.into_iter().map(|outcome| {
            outcome.into_iter().map(|(op, magnitude)| (op, parameter(op, magnitude).to_bits())).collect()
        });
        check_outcomes(&format!("torchvision's {name}"), &exact(&policy(name)), outcomes);
    }
}
