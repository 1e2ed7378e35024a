//! The engine as one of the peers of `benches/peers/run.py`: it speaks the peers' protocol, so that
//! it can take turns with them on the same pictures.
//!
//! Started as `pba-engine-peer FILE SIDE PADDING CUTOUT RED,GREEN,BLUE`, where FILE holds square RGB
//! pictures one after another, and nothing else. Answers each line of its standard input with a
//! line of JSON:
//!
//! - at first, unasked: what it is;
//! - `measure SECONDS`: renders shuffled batches of 128 for so long; images, seconds of wall time,
//!   and of this thread's processor time;
//! - `apply OP LEVEL SIGN COLUMN ROW PICTURE`: one op on one picture, as hexadecimal RGBA. SIGN is
//!   `1` or `-1`.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use pba_augment::{
    Base, Frame, ImageShape, OpCall, OpCounts, Plan, PlanSpec, Policies, Recipe, RecipeSpec, Rgba, Scratch,
    Sign, apply, render_batch,
};
use pba_schedules::{Op, library};

/// Seed of every draw.
const SEED: u64 = 5;
/// The last epoch of the paper's CIFAR-10 schedule.
const EPOCH: u32 = 199;
const BATCH: usize = 128;

type Failure = Box<dyn std::error::Error>;

struct Engine {
    recipe: Recipe,
    plan: Plan,
    pictures: Vec<u8>,
    out: Vec<u8>,
    scratch: Scratch,
}

impl Engine {
    fn new(arguments: &[String]) -> Result<Engine, Failure> {
        let [file, side, padding, cutout, mean] = arguments else {
            return Err("expected FILE SIDE PADDING CUTOUT RED,GREEN,BLUE".into());
        };
        let side = side.parse()?;
        let mean: Vec<u8> = mean.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let shape = ImageShape { height: side, width: side };
        let recipe = Recipe::new(RecipeSpec {
            policies: Policies::One(library::cifar10_pba().at_search_epoch(EPOCH).clone()),
            base: Base {
                frame: Frame::Full,
                pad_crop: Some(padding.parse()?),
                flip: true,
                cutout: Some(cutout.parse()?),
            },
            seed: SEED,
            epoch: EPOCH,
            mean: mean.try_into().map_err(|_| "the mean has three numbers")?,
            ..RecipeSpec::untouched(shape)
        })?;
        let pictures = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        let samples = (pictures.len() / shape.rgb_bytes()) as u64;
        let every = PlanSpec::shuffled(samples, SEED, EPOCH, BATCH as u32);
        let plan = Plan::new(PlanSpec { drop_last: true, ..every })?;
        if plan.batches() == 0 {
            return Err(format!("{file} holds less than one batch of {BATCH} pictures").into());
        }
        Ok(Engine {
            out: vec![0; BATCH * shape.rgb_bytes()],
            recipe,
            plan,
            pictures,
            scratch: Scratch::new(),
        })
    }

    /// Renders for so long; answers how many images that made.
    fn render(&mut self, seconds: f64) -> usize {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let bytes = self.recipe.shape().rgb_bytes();
        let mut counts = OpCounts::default();
        let mut images = 0;
        for batch in (0..self.plan.batches()).cycle() {
            render_batch(
                &self.recipe,
                self.plan.indices(batch),
                |index| &self.pictures[index as usize * bytes..][..bytes],
                &mut self.out,
                &mut self.scratch,
                &mut counts,
            );
            std::hint::black_box(&self.out);
            images += BATCH;
            if Instant::now() >= until {
                break;
            }
        }
        images
    }

    fn answer(&mut self, line: &str) -> Result<String, Failure> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["measure", seconds] => {
                let seconds = seconds.parse()?;
                let (wall, cpu) = (Instant::now(), cpu_seconds()?);
                let images = self.render(seconds);
                let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
                Ok(format!(r#"{{"images": {images}, "cpu_seconds": {cpu}, "wall_seconds": {wall}}}"#))
            }
            ["apply", op, level, sign, column, row, picture] => {
                let bytes = self.recipe.shape().rgb_bytes();
                let picture = &self.pictures[picture.parse::<usize>()? * bytes..][..bytes];
                let mut image = Rgba::from_rgb(self.recipe.shape(), picture)?;
                let call = OpCall {
                    op: Op::named(op).ok_or("no such op")?,
                    magnitude: level.parse()?,
                    sign: if sign == "-1" { Sign::Minus } else { Sign::Plus },
                    centre: (column.parse()?, row.parse()?),
                };
                apply(&call, &mut image, &mut self.scratch);
                let hex: String = image.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                Ok(format!(r#"{{"rgba": "{hex}"}}"#))
            }
            _ => Err(format!("unknown request {line:?}").into()),
        }
    }
}

/// Processor time of this thread so far, which other programs on the machine hardly change.
fn cpu_seconds() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut engine = Engine::new(&arguments)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, r#"{{"versions": "pba {}"}}"#, env!("CARGO_PKG_VERSION"))?;
    for line in std::io::stdin().lock().lines() {
        let answer = engine.answer(&line?)?;
        writeln!(stdout, "{answer}")?;
    }
    Ok(())
}
