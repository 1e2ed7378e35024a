//! Images per second of one thread from JPEG files to a 224x224 random resized crop, as JSON.
//!
//! `pba-jpeg-rate --images FOLDER` prints one line for each work. With `--peer` it is an engine that
//! a bench takes turns with: it says what it is, then answers each line `measure SECONDS` of its
//! standard input with images, seconds of wall time and of this thread's processor time.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use mozjpeg::{ColorSpace, Compress};
use pba_augment::{
    ImageShape, Level, OpCounts, PixelBox, Policies, Recipe, RecipeSpec, Scratch, Source, render_source,
    resize,
};
use pba_benches::{EPOCH, MEAN, SEED, pictures};
use pba_datasets::{RegionDecoder, decode};
use pba_schedules::library;

#[derive(Parser)]
struct Arguments {
    /// A folder of JPEG files; without it, generated pictures of 500x375 pixels, quality 96, 4:2:0.
    #[arg(long)]
    images: Option<PathBuf>,
    /// What is done to each image; everything in turn, when not given.
    #[arg(long, value_enum)]
    work: Option<Work>,
    /// Height and width of what comes out.
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// The processor's instructions after decoding: avx512, avx2 or portable; the best it has, when
    /// not given.
    #[arg(long)]
    level: Option<String>,
    /// How long each work goes on, in seconds of wall time.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Answer requests instead. The work is `cold` when not given.
    #[arg(long)]
    peer: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// From the file: what the crop needs is decoded, resized, and goes through the last policy of the
    /// paper's CIFAR-10 schedule and the flip.
    Cold,
    /// The same from decoded pixels.
    Cached,
    /// Only decoding what the crop needs.
    Regions,
    /// Only resizing, from decoded pixels.
    Resize,
    /// Decoding the whole image, as a region.
    Whole,
    /// Decoding the whole image by libjpeg, without vector instructions, as imports do.
    Libjpeg,
}

struct Image {
    bytes: Vec<u8>,
    shape: ImageShape,
    pixels: Vec<u8>,
}

struct Engine {
    images: Vec<Image>,
    recipe: Recipe,
    decoder: RegionDecoder,
    scratch: Scratch,
    counts: OpCounts,
    out: Vec<u8>,
    /// The next sample: each comes from the next image, with draws of its own.
    sample: u64,
}

impl Engine {
    fn new(arguments: &Arguments) -> anyhow::Result<Engine> {
        let files = match &arguments.images {
            Some(folder) => read(folder)?,
            None => generated(64)?,
        };
        let images = files.into_iter().map(|bytes| -> anyhow::Result<Image> {
            let pba_datasets::Image { shape, pixels } = decode(&bytes)?;
            Ok(Image { bytes, shape, pixels })
        });
        let images = images.collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(!images.is_empty(), "no image to measure");
        let shape = ImageShape { height: arguments.size, width: arguments.size };
        let level = match &arguments.level {
            None => Level::detect(),
            Some(name) => {
                Level::named(name).with_context(|| format!("this processor has no level {name:?}"))?
            }
        };
        let recipe = Recipe::new(RecipeSpec {
            policies: Policies::One(library::cifar10_pba().at_search_epoch(EPOCH).clone()),
            base: format!("random_resized_crop:{},flip", arguments.size).parse()?,
            seed: SEED,
            epoch: EPOCH,
            mean: MEAN,
            ..RecipeSpec::untouched(shape)
        })?;
        Ok(Engine {
            images,
            recipe,
            decoder: RegionDecoder::new(),
            scratch: Scratch::with_level(level),
            counts: OpCounts::default(),
            out: vec![0; shape.rgb_bytes()],
            sample: 0,
        })
    }

    fn step(&mut self, work: Work) -> anyhow::Result<()> {
        let sample = self.sample;
        self.sample += 1;
        let image = &self.images[(sample % self.images.len() as u64) as usize];
        let view = self.recipe.view(sample, image.shape);
        // Decoded pixels are of full size, so that images above twice the output's are measured cold
        // as the server does them, and cached with more to resize.
        let reduction = if matches!(work, Work::Cold | Work::Regions) { view.reduction() } else { 1 };
        let needed = view.pixels(reduction);
        let source = match work {
            Work::Libjpeg => {
                std::hint::black_box(decode(&image.bytes)?);
                return Ok(());
            }
            Work::Cached | Work::Resize => {
                Source { pixels: &image.pixels, place: PixelBox::whole(image.shape), reduction }
            }
            Work::Cold | Work::Regions | Work::Whole => {
                let needed = if work == Work::Whole { PixelBox::whole(image.shape) } else { needed };
                let decoded = self.decoder.decode(&image.bytes, needed, reduction)?;
                Source { pixels: decoded.pixels, place: decoded.place, reduction }
            }
        };
        let (out, scratch) = (&mut self.out, &mut self.scratch);
        match work {
            Work::Cold | Work::Cached => {
                render_source(&self.recipe, sample, &view, &source, out, scratch, &mut self.counts);
            }
            Work::Resize => resize(&view, &source, out, scratch),
            Work::Regions | Work::Whole | Work::Libjpeg => {
                std::hint::black_box(source.pixels);
            }
        }
        std::hint::black_box(out);
        Ok(())
    }

    /// Works for so long; images, seconds of wall time, and of this thread's processor time.
    fn measure(&mut self, work: Work, seconds: f64) -> anyhow::Result<(u64, f64, f64)> {
        let (wall, cpu) = (Instant::now(), cpu_time()?);
        let until = wall + Duration::from_secs_f64(seconds);
        let mut images = 0;
        while Instant::now() < until {
            for _ in 0..8 {
                self.step(work)?;
            }
            images += 8;
        }
        Ok((images, wall.elapsed().as_secs_f64(), (cpu_time()? - cpu).as_secs_f64()))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut engine = Engine::new(&arguments)?;
    let mut stdout = std::io::stdout();
    if arguments.peer {
        writeln!(
            stdout,
            "{}",
            serde_json::json!({ "versions": format!("pba {}", env!("CARGO_PKG_VERSION")) })
        )?;
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            let seconds =
                line.strip_prefix("measure ").with_context(|| format!("unknown request {line:?}"))?;
            let work = arguments.work.unwrap_or(Work::Cold);
            let (images, wall, cpu) = engine.measure(work, seconds.trim().parse()?)?;
            let answer = serde_json::json!({ "images": images, "cpu_seconds": cpu, "wall_seconds": wall });
            writeln!(stdout, "{answer}")?;
        }
        return Ok(());
    }
    let encoded: usize = engine.images.iter().map(|image| image.bytes.len()).sum();
    let works = arguments.work.map_or_else(|| Work::value_variants().to_vec(), |work| vec![work]);
    for work in works {
        engine.sample = 0;
        engine.measure(work, 0.2)?;
        let (images, wall, cpu) = engine.measure(work, arguments.seconds)?;
        let line = serde_json::json!({
            "work": work.to_possible_value().context("a work has a name")?.get_name(),
            "level": engine.scratch.level().name(),
            "files": engine.images.len(),
            "mean_bytes": encoded / engine.images.len(),
            "images": images,
            "wall_seconds": wall,
            "cpu_seconds": cpu,
            "images_per_cpu_second": (images as f64 / cpu).round(),
            "us_per_image": (cpu / images as f64 * 1e7).round() / 10.0,
        });
        writeln!(stdout, "{line}")?;
    }
    Ok(())
}

/// The JPEG files of a folder, by name.
fn read(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg" || extension == "jpeg"));
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).with_context(|| format!("cannot read {}", file.display())))
        .collect()
}

/// So many encoded pictures of 500x375 pixels.
fn generated(count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let shape = ImageShape { height: 375, width: 500 };
    let encode = |pixels: &[u8]| -> anyhow::Result<Vec<u8>> {
        let mut encoder = Compress::new(ColorSpace::JCS_RGB);
        encoder.set_fastest_defaults();
        encoder.set_size(shape.width as usize, shape.height as usize);
        encoder.set_quality(96.0);
        encoder.set_chroma_sampling_pixel_sizes((2, 2), (2, 2));
        let mut encoder = encoder.start_compress(Vec::new())?;
        encoder.write_scanlines(pixels)?;
        Ok(encoder.finish()?)
    };
    pictures(count, shape).chunks_exact(shape.rgb_bytes()).map(encode).collect()
}

/// Processor time of this thread so far, which other programs on the machine hardly change.
fn cpu_time() -> anyhow::Result<Duration> {
    let file = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(file).with_context(|| format!("no processor times in {file}"))?;
    let nanoseconds = text.split(' ').next().unwrap_or_default();
    Ok(Duration::from_nanos(nanoseconds.parse().with_context(|| format!("{text:?} in {file}"))?))
}
