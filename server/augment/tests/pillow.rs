//! Every op against Pillow itself: all four channels, every byte.
//!
//! Needs Python with Pillow: `PBA_PYTHON`, else `.venv/bin/python` of this repository, else
//! `python3`. With `PBA_TEST_DATA`, a folder that holds a `train.parquet` of images in the Hugging
//! Face layout, real pixels are compared too; that needs pyarrow.

// What was compared, for whoever runs with --nocapture.
#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use pba_augment::rng::{Address, Purpose, Stream, below};
use pba_augment::{
    Base, Frame, ImageShape, Level, OpCall, PixelBox, Policies, Recipe, RecipeSpec, Rgba, Scratch, Sign,
    Source, apply, resize,
};
use pba_schedules::Op;
use rand::Rng;

/// Height and width: a single pixel, less than a filter, a vector or two, odd, large.
const SIZES: [(u32, u32); 5] = [(1, 1), (3, 5), (32, 32), (33, 47), (224, 224)];

/// A running `pillow_oracle.py`.
struct Pillow {
    child: Child,
    requests: Option<BufWriter<ChildStdin>>,
    answers: BufReader<ChildStdout>,
}

impl Pillow {
    fn start() -> Pillow {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let of_repository = here.join("../../.venv/bin/python");
        let python = match std::env::var_os("PBA_PYTHON") {
            Some(python) => PathBuf::from(python),
            None if of_repository.exists() => of_repository,
            None => PathBuf::from("python3"),
        };
        let advice = format!(
            "this test compares with Pillow, and {} with Pillow did not start; `make test` installs both, or \
             set PBA_PYTHON",
            python.display()
        );
        let mut child = Command::new(&python)
            .arg(here.join("tests/pillow_oracle.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{advice}: {error}"));
        let mut requests = BufWriter::new(child.stdin.take().expect("stdin is piped"));
        let mut answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut hello = String::new();
        let greeted = writeln!(requests, "{}", Op::ALL.map(Op::name).join(","))
            .and_then(|()| requests.flush())
            .and_then(|()| answers.read_line(&mut hello));
        if greeted.is_err() || !hello.starts_with("pillow ") {
            let _ = child.wait();
            panic!("{advice} (its error is above)");
        }
        println!("comparing with {}", hello.trim());
        Pillow { child, requests: Some(requests), answers }
    }

    /// Compares our ops with Pillow's, case by case; Pillow works while we do.
    #[track_caller]
    fn check(&mut self, cases: &[Case]) {
        let Pillow { child, requests, answers } = self;
        let requests = requests.as_mut().expect("open until dropped");
        let failure = std::thread::scope(|scope| {
            scope.spawn(move || {
                for case in cases {
                    // The reader finds out when Pillow is gone.
                    if case.write(requests).is_err() {
                        return;
                    }
                }
                let _ = requests.flush();
            });
            let mut scratches: Vec<_> = Level::available().into_iter().map(Scratch::with_level).collect();
            let failure = cases.iter().find_map(|case| case.compare(answers, &mut scratches).err());
            if failure.is_some() {
                // So that the other thread does not wait for an oracle that waits for us.
                let _ = child.kill();
            }
            failure
        });
        if let Some(failure) = failure {
            panic!("{failure}");
        }
    }

    /// So many images of a Parquet file, resized.
    fn real_images(&mut self, file: &Path, count: usize, shape: ImageShape) -> Vec<Vec<u8>> {
        let path = file.to_str().expect("a path in UTF-8").as_bytes();
        let requests = self.requests.as_mut().expect("open until dropped");
        let numbers = [count as u32, shape.width, shape.height, path.len() as u32];
        let request = [&b"R"[..], numbers.map(u32::to_le_bytes).as_flattened(), path].concat();
        requests.write_all(&request).and_then(|()| requests.flush()).expect("the oracle listens");
        let mut image = || {
            let mut rgba = vec![0; 4 * shape.pixels()];
            self.answers.read_exact(&mut rgba).expect("the oracle answers (its error is above)");
            rgba
        };
        (0..count).map(|_| image()).collect()
    }
}

impl Pillow {
    /// Compares what a frame shows of an image of this size, at each level.
    #[track_caller]
    fn check_frame(&mut self, frame: Frame, source: ImageShape, sample: u64) {
        let rgb = rgb_of(&draw(KINDS[sample as usize % 3], source, &mut stream(5000 + sample)));
        let shape = frame.shape().expect("a frame that resizes");
        let base = Base { frame, ..Base::IDENTITY };
        let spec = RecipeSpec { policies: Policies::None, base, seed: 3, epoch: 1, mean: [0; 3], shape };
        let view = Recipe::new(spec).unwrap().view(sample, source);
        let PixelBox { left, top, width, height } = view.bounds;
        let parameters = match frame {
            Frame::Resize { shorter, .. } => [1, shorter, 0, 0, 0],
            _ => [0, left, top, width, height],
        };
        let numbers = [&[source.width, source.height][..], &parameters, &[shape.width]].concat();
        let numbers: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        let requests = self.requests.as_mut().expect("open until dropped");
        let written = requests.write_all(&[&b"V"[..], &numbers, &rgb].concat());
        written.and_then(|()| requests.flush()).expect("the oracle listens");
        let mut expected = vec![0; shape.rgb_bytes()];
        self.answers.read_exact(&mut expected).expect("the oracle answers (its error is above)");

        for level in Level::available() {
            let (mut actual, mut scratch) = (vec![0; expected.len()], Scratch::with_level(level));
            let pixels = Source { pixels: &rgb, place: PixelBox::whole(source), reduction: 1 };
            resize(&view, &pixels, &mut actual, &mut scratch);
            let differing =
                expected.iter().zip(&actual).filter(|(expected, actual)| expected != actual).count();
            assert_eq!(
                differing, 0,
                "bytes differ: {frame} of {source:?}, {view:?}, sample {sample}, {level}"
            );
        }
    }
}

fn rgb_of(rgba: &[u8]) -> Vec<u8> {
    rgba.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect()
}

impl Drop for Pillow {
    fn drop(&mut self) {
        // Without requests the oracle ends, unless a failed test left it writing to nobody.
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Some ops on one image.
struct Case {
    shape: ImageShape,
    pixels: &'static str,
    rgba: Vec<u8>,
    calls: Vec<OpCall>,
}

impl Case {
    fn write(&self, requests: &mut impl Write) -> std::io::Result<()> {
        requests.write_all(b"C")?;
        let mut numbers = vec![self.calls.len() as u32, self.shape.width, self.shape.height];
        for &OpCall { op, magnitude, sign, centre } in &self.calls {
            let negative = u32::from(sign == Sign::Minus);
            numbers.extend([op as u32, magnitude.into(), negative, centre.0, centre.1]);
        }
        for number in numbers {
            requests.write_all(&number.to_le_bytes())?;
        }
        requests.write_all(&self.rgba)
    }

    /// Does the case ourselves, at each level, and holds it against Pillow's answer.
    fn compare(&self, answers: &mut impl Read, scratches: &mut [Scratch]) -> Result<(), String> {
        let mut expected = vec![0; self.rgba.len()];
        answers
            .read_exact(&mut expected)
            .map_err(|error| format!("the oracle stopped, its error is above: {error}"))?;
        scratches.iter_mut().try_for_each(|scratch| self.compare_with(&expected, scratch))
    }

    fn compare_with(&self, expected: &[u8], scratch: &mut Scratch) -> Result<(), String> {
        let mut image = Rgba::from_rgba(self.shape, &self.rgba).expect("sizes are in range");
        for call in &self.calls {
            apply(call, &mut image, scratch);
        }
        let actual = image.as_bytes();
        if expected == actual {
            return Ok(());
        }
        let (expected, actual) = (expected.as_chunks::<4>().0, actual.as_chunks::<4>().0);
        let differing: Vec<usize> = (0..expected.len()).filter(|&i| expected[i] != actual[i]).collect();
        let ImageShape { height, width } = self.shape;
        let mut message = String::new();
        for OpCall { op, magnitude, sign, centre } in &self.calls {
            let _ = write!(message, "{op} magnitude {magnitude} sign {sign:?} centre {centre:?}; ");
        }
        let _ = writeln!(
            message,
            "{height}x{width} (height x width), {} pixels, {} instructions",
            self.pixels,
            scratch.level()
        );
        let _ = writeln!(
            message,
            "{} of {} pixels differ; input | expected | actual",
            differing.len(),
            expected.len()
        );
        for &i in differing.iter().take(8) {
            let (row, column) = (i / width as usize, i % width as usize);
            let input = &self.rgba[4 * i..4 * i + 4];
            let _ = writeln!(
                message,
                "row {row} column {column}: {input:?} | {:?} | {:?}",
                expected[i], actual[i]
            );
        }
        Err(message)
    }
}

/// Kinds of synthetic images.
const KINDS: [&str; 6] = ["random", "smooth", "dull", "flat", "holed", "translucent"];

/// A synthetic image.
fn draw(kind: &str, shape: ImageShape, rng: &mut Stream) -> Vec<u8> {
    let mut rgba = vec![255; 4 * shape.pixels()];
    let parameters: [u32; 12] = std::array::from_fn(|_| rng.next_u32());
    let flat = parameters[0].to_le_bytes();
    for (i, pixel) in rgba.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let (x, y) = (i as u32 % shape.width, i as u32 / shape.width);
        let word = rng.next_u32().to_le_bytes();
        for channel in 0..3 {
            let [a, b, c, d] = parameters[1 + channel].to_le_bytes().map(u32::from);
            pixel[channel] = match kind {
                // A tilted plane with a ripple.
                "smooth" => (d + (a * x) / shape.width + (b * y) / shape.height + (x * y * c / 4096) % 17)
                    .min(255) as u8,
                // Few values, so that stretching has something to do.
                "dull" => (a / 2 + u32::from(word[channel]) % (2 + b / 4)) as u8,
                "flat" => flat[channel],
                _ => word[channel],
            };
        }
        pixel[3] = match kind {
            "holed" if word[3] < 100 => 0,
            "translucent" => word[3],
            _ => 255,
        };
    }
    rgba
}

fn stream(item: u64) -> Stream {
    Address { seed: 2, purpose: Purpose::Dataset, epoch: 0, item }.stream()
}

fn centre(shape: ImageShape, rng: &mut Stream) -> (u32, u32) {
    (below(rng.next_u32(), shape.width), below(rng.next_u32(), shape.height))
}

/// Each op at each magnitude and sign, on each image.
fn every_op(shape: ImageShape, images: &[(&'static str, Vec<u8>)], rng: &mut Stream) -> Vec<Case> {
    let mut cases = Vec::new();
    for (pixels, rgba) in images {
        for op in Op::ALL {
            for magnitude in 0..=9 {
                for sign in [Sign::Plus, Sign::Minus] {
                    let calls = vec![OpCall { op, magnitude, sign, centre: centre(shape, rng) }];
                    cases.push(Case { shape, pixels, rgba: rgba.clone(), calls });
                }
            }
        }
    }
    cases
}

/// Random chains of `length` ops.
fn chains(
    length: usize,
    count: usize,
    shape: ImageShape,
    images: &[(&'static str, Vec<u8>)],
    rng: &mut Stream,
) -> Vec<Case> {
    let mut chain = |i: usize| {
        let (pixels, rgba) = &images[i % images.len()];
        let mut call = || OpCall {
            op: Op::ALL[below(rng.next_u32(), 15) as usize],
            magnitude: below(rng.next_u32(), 10) as u8,
            sign: if below(rng.next_u32(), 2) == 0 { Sign::Plus } else { Sign::Minus },
            centre: centre(shape, rng),
        };
        Case { shape, pixels, rgba: rgba.clone(), calls: (0..length).map(|_| call()).collect() }
    };
    (0..count).map(&mut chain).collect()
}

#[test]
fn every_op_magnitude_and_sign_at_every_size() {
    let mut pillow = Pillow::start();
    for (height, width) in SIZES {
        let shape = ImageShape { height, width };
        let mut rng = stream(u64::from(height));
        for kind in KINDS {
            let images = [(kind, draw(kind, shape, &mut rng))];
            pillow.check(&every_op(shape, &images, &mut rng));
        }
    }
}

#[test]
fn random_chains() {
    let mut pillow = Pillow::start();
    for (height, width) in SIZES.into_iter().chain([(2, 70), (65, 2), (17, 9)]) {
        let shape = ImageShape { height, width };
        let mut rng = stream(1000 + u64::from(height));
        let images: Vec<_> =
            KINDS.iter().cycle().take(24).map(|kind| (*kind, draw(kind, shape, &mut rng))).collect();
        let count = if shape.pixels() > 10_000 { 150 } else { 1500 };
        for length in [2, 3] {
            pillow.check(&chains(length, count, shape, &images, &mut rng));
        }
    }
}

/// Sides up to 70, with the affine ops at every magnitude: their rounding depends on the size.
#[test]
fn affine_ops_at_many_sizes() {
    let mut pillow = Pillow::start();
    let affine = [Op::Rotate, Op::TranslateX, Op::TranslateY, Op::ShearX, Op::ShearY];
    for item in 0..60 {
        let mut rng = stream(2000 + item);
        let shape =
            ImageShape { height: 1 + below(rng.next_u32(), 70), width: 1 + below(rng.next_u32(), 70) };
        let images = [("random", draw("random", shape, &mut rng))];
        let mut cases = every_op(shape, &images, &mut rng);
        cases.retain(|case| affine.contains(&case.calls[0].op));
        pillow.check(&cases);
    }
}

/// Long thin images, as long as we take them: the largest coordinates that can occur.
#[test]
fn affine_ops_at_the_largest_sizes() {
    let mut pillow = Pillow::start();
    for (height, width) in [(3, 16_384), (16_384, 2)] {
        let shape = ImageShape { height, width };
        let mut rng = stream(3000 + u64::from(height));
        let images = [("random", draw("random", shape, &mut rng))];
        let mut cases = every_op(shape, &images, &mut rng);
        cases.retain(|case| case.calls[0].magnitude >= 8);
        pillow.check(&cases);
    }
}

#[test]
fn frames_of_every_size() {
    let mut pillow = Pillow::start();
    for sample in 0..150 {
        let mut rng = stream(6000 + sample);
        let longest = if sample % 3 == 0 { 20 } else { 600 };
        let mut side = || 1 + below(rng.next_u32(), longest);
        let source = ImageShape { height: side(), width: side() };
        let (shorter, random) = (side(), side());
        let crop = 1 + below(rng.next_u32(), shorter);
        pillow.check_frame(Frame::RandomResizedCrop(random), source, sample);
        // Long and thin, resized until the thin side is long, would be longer than we take.
        if shorter * source.height.max(source.width) / source.height.min(source.width) < 4096 {
            pillow.check_frame(Frame::Resize { shorter, crop }, source, sample);
        }
    }
}

#[test]
fn the_usual_frames() {
    let mut pillow = Pillow::start();
    for (sample, (height, width)) in
        [(375, 500), (500, 375), (333, 500), (224, 224), (256, 256), (224, 300), (1200, 1600)]
            .into_iter()
            .cycle()
            .take(42)
            .enumerate()
    {
        let source = ImageShape { height, width };
        pillow.check_frame(Frame::RandomResizedCrop(224), source, sample as u64);
        pillow.check_frame(Frame::Resize { shorter: 256, crop: 224 }, source, sample as u64);
    }
}

#[test]
fn real_pixels() {
    let Some(folder) = std::env::var_os("PBA_TEST_DATA") else {
        println!("PBA_TEST_DATA names no folder with real images: only synthetic ones were compared");
        return;
    };
    let file = PathBuf::from(folder).join("train.parquet");
    let mut pillow = Pillow::start();
    for (height, width) in SIZES {
        let shape = ImageShape { height, width };
        let mut rng = stream(4000 + u64::from(height));
        let images: Vec<_> =
            pillow.real_images(&file, 24, shape).into_iter().map(|rgba| ("real", rgba)).collect();
        pillow.check(&every_op(shape, &images[..4], &mut rng));
        let count = if shape.pixels() > 10_000 { 150 } else { 1500 };
        for length in [2, 3] {
            pillow.check(&chains(length, count, shape, &images, &mut rng));
        }
    }
}
