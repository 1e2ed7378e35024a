//! The built-in dataset: ten shapes, drawn by this file.
//!
//! Every picture is 32x32 RGB: one filled shape before a background, both with colours, gradients
//! and textures of their own, and some meaningless strokes and dots. The class is the shape
//! and nothing else: all shapes have the same distribution of area, and their centroids the same
//! distribution of place, so colours, contrast and position say nothing about it.
//!
//! Only IEEE addition, multiplication, division and square root are used, on `f64`, so the
//! pictures are the same on every machine; angles come from the rational points of the circle.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pba_types::rng::{self, Address, Purpose, Stream};
use pba_types::{ImageShape, SplitName};
use rand::Rng;

use crate::cache::Key;
use crate::error::DatasetError;
use crate::formats::format::Source;
use crate::packed::spec::PackSpec;
use crate::packed::target::{Stop, Target};
use crate::parallel::in_parallel;

/// Side of a picture in pixels.
const SIDE: usize = 32;
/// Names of the classes.
const CLASSES: [&str; 10] =
    ["disc", "ring", "triangle", "square", "star", "cross", "crescent", "arrow", "heart", "hourglass"];
/// Samples of the training split.
const TRAIN_ROWS: u64 = 10_000;
/// Samples of the test split.
const TEST_ROWS: u64 = 2_000;
/// Pictures drawn at a time.
const DRAWN_ROWS: u64 = 1_000;

/// Of the drawing; raised when the pictures change.
const VERSION: u32 = 1;
const SEED: u64 = 0x5BA9E5;

/// The built-in dataset.
pub(crate) struct Shapes;

impl Source for Shapes {
    fn splits(&self) -> BTreeMap<SplitName, PathBuf> {
        [SplitName::Train, SplitName::Test].map(|split| (split, PathBuf::from(split.name()))).into()
    }

    fn key(&self) -> Result<Key, DatasetError> {
        Ok(Key::built_in("shapes", VERSION))
    }

    fn spec(&self, split: SplitName) -> Result<PackSpec, DatasetError> {
        let classes = CLASSES.map(str::to_owned).to_vec();
        Ok(PackSpec { classes, rows: rows(split), source: format!("shapes {VERSION}, {split}") })
    }

    fn rows(&self, split: SplitName, target: &mut Target<'_>) -> Result<(), Stop> {
        let (shape, rows) = (ImageShape { height: SIDE as u32, width: SIDE as u32 }, rows(split));
        let shapes: Vec<Shape> = (0..CLASSES.len()).map(Shape::new).collect();
        for start in (0..rows).step_by(DRAWN_ROWS as usize) {
            let indices = start..rows.min(start + DRAWN_ROWS);
            let count = (indices.end - start) as usize;
            let pictures = in_parallel(count, |i| draw(&shapes, split, start + i as u64));
            let labels: Vec<i64> = indices.map(label).collect();
            target.add_pixels(shape, &pictures.concat(), &labels)?;
        }
        Ok(())
    }
}

fn rows(split: SplitName) -> u64 {
    if split == SplitName::Train { TRAIN_ROWS } else { TEST_ROWS }
}

/// The class of sample `index`: any ten neighbours are one of each.
fn label(index: u64) -> i64 {
    (index % CLASSES.len() as u64) as i64
}

type Point = [f64; 2];

/// An area of the plane, `y` downwards, roughly within 1 of the origin: whether a point is inside.
type Outline = Box<dyn Fn(f64, f64) -> bool + Sync>;

/// A polygon that may cross itself; inside by the even-odd rule.
fn polygon<const N: usize>(corners: [Point; N]) -> Outline {
    let sides: [_; N] = std::array::from_fn(|i| {
        let ([x0, y0], [x1, y1]) = (corners[i], corners[(i + 1) % N]);
        // How `x` changes with `y`; not used where the side is level.
        (x0, y0, y1, (x1 - x0) / (y1 - y0))
    });
    Box::new(move |x, y| {
        sides.iter().fold(false, |inside, &(x0, y0, y1, slope)| {
            inside ^ ((y0 > y) != (y1 > y) && x < x0 + (y - y0) * slope)
        })
    })
}

fn outline(class: usize) -> Outline {
    // Corners of a regular pentagon: cosines and sines of 90 + 72 k degrees.
    const PENTAGON: [Point; 5] = [
        [0.0, -1.0],
        [0.951_056_516_295_153_6, -0.309_016_994_374_947_45],
        [0.587_785_252_292_473_1, 0.809_016_994_374_947_5],
        [-0.587_785_252_292_473_1, 0.809_016_994_374_947_5],
        [-0.951_056_516_295_153_6, -0.309_016_994_374_947_45],
    ];
    match CLASSES[class] {
        "disc" => Box::new(|x, y| x * x + y * y < 0.81),
        "ring" => Box::new(|x, y| (0.25..0.9).contains(&(x * x + y * y))),
        "triangle" => polygon([[0.0, -1.0], [0.866, 0.5], [-0.866, 0.5]]),
        "square" => polygon([[-0.8, -0.8], [0.8, -0.8], [0.8, 0.8], [-0.8, 0.8]]),
        "star" => {
            let corner = |i: usize| {
                // Inner corners are opposite to outer ones.
                let [x, y] = PENTAGON[if i.is_multiple_of(2) { i / 2 } else { (i / 2 + 3) % 5 }];
                if i.is_multiple_of(2) { [x, y] } else { [-0.42 * x, -0.42 * y] }
            };
            polygon::<10>(std::array::from_fn(corner))
        }
        "cross" => Box::new(|x, y| {
            let (long, short) = if x * x > y * y { (x, y) } else { (y, x) };
            long * long < 0.9 && short * short < 0.09
        }),
        "crescent" => Box::new(|x, y| {
            let bite = (x - 0.45) * (x - 0.45) + y * y;
            x * x + y * y < 0.9 && bite > 0.5
        }),
        "arrow" => polygon([
            [0.0, -1.0],
            [0.75, -0.1],
            [0.26, -0.1],
            [0.26, 0.95],
            [-0.26, 0.95],
            [-0.26, -0.1],
            [-0.75, -0.1],
        ]),
        "heart" => Box::new(|x, y| {
            let (x, y) = (1.25 * x, -1.25 * y);
            let a = x * x + y * y - 1.0;
            a * a * a < x * x * y * y * y
        }),
        _ => polygon([[-0.8, -0.95], [0.8, -0.95], [-0.8, 0.95], [0.8, 0.95]]),
    }
}

/// A shape moved and scaled so that its centroid is the origin and its area is 1.
struct Shape {
    outline: Outline,
    centroid: Point,
    scale: f64,
    /// No point is further from the centroid, once the area is 1.
    reach: f64,
}

impl Shape {
    fn new(class: usize) -> Shape {
        const GRID: i32 = 240;
        let outline = outline(class);
        let at = |i: i32| (f64::from(i) + 0.5) / f64::from(GRID) * 3.0 - 1.5;
        let grid = (0..GRID).flat_map(|row| (0..GRID).map(move |column| (at(column), at(row))));
        let points: Vec<(f64, f64)> = grid.filter(|&(x, y)| outline(x, y)).collect();
        let n = points.len() as f64;
        let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        let centroid = [sum_x / n, sum_y / n];
        let area = n * 9.0 / f64::from(GRID * GRID);
        let scale = area.sqrt();
        let distance = |&(x, y): &(f64, f64)| {
            let (x, y) = (x - centroid[0], y - centroid[1]);
            (x * x + y * y).sqrt() / scale
        };
        // The points lie on a grid; the shape may reach a step further.
        let reach = points.iter().map(distance).fold(0.0, f64::max) + 0.05;
        Shape { outline, centroid, scale, reach }
    }

    fn contains(&self, x: f64, y: f64) -> bool {
        (self.outline)(x * self.scale + self.centroid[0], y * self.scale + self.centroid[1])
    }
}

/// The numbers of one picture, in order.
struct Draws(Stream);

impl Draws {
    /// Uniform in 0..1.
    fn unit(&mut self) -> f64 {
        f64::from(self.0.next_u32() >> 8) / f64::from(1 << 24)
    }

    fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    fn below(&mut self, bound: u32) -> u32 {
        rng::below(self.0.next_u32(), bound)
    }

    /// Cosine and sine of an angle anywhere on the circle.
    fn direction(&mut self) -> Point {
        let t = self.within(-1.0, 1.0);
        let [c, s] = [(1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)];
        if self.below(2) == 0 { [c, s] } else { [-c, -s] }
    }

    fn color(&mut self) -> [f64; 3] {
        [self.unit(), self.unit(), self.unit()]
    }
}

fn luminance([r, g, b]: [f64; 3]) -> f64 {
    0.3 * r + 0.59 * g + 0.11 * b
}

fn mix(a: [f64; 3], b: [f64; 3], t: f64) -> [f64; 3] {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * t)
}

/// A colour that varies over the picture: a gradient, with stripes, a chequerboard or blotches.
struct Paint {
    from: [f64; 3],
    to: [f64; 3],
    direction: Point,
    pattern: u32,
    strength: f64,
    period: f64,
    phase: f64,
    blotches: [[f64; 6]; 6],
}

impl Paint {
    fn draw(draws: &mut Draws, color: [f64; 3]) -> Paint {
        let other = draws.color();
        Paint {
            from: color,
            to: mix(color, other, 0.35),
            direction: draws.direction(),
            pattern: draws.below(5),
            strength: draws.within(0.05, 0.16),
            period: draws.within(3.0, 7.0),
            phase: draws.unit(),
            blotches: std::array::from_fn(|_| std::array::from_fn(|_| draws.within(-1.0, 1.0))),
        }
    }

    fn at(&self, x: f64, y: f64) -> [f64; 3] {
        let [c, s] = self.direction;
        let side = SIDE as f64;
        let along = c * (x - side / 2.0) + s * (y - side / 2.0);
        let across = c * (y - side / 2.0) - s * (x - side / 2.0);
        let t = (0.5 + along / side).clamp(0.0, 1.0);
        let wave = |u: f64| {
            // Raised above zero, where truncation is floor.
            let u = u / self.period + self.phase + 64.0;
            if u - f64::from(u as i32) < 0.5 { 1.0 } else { -1.0 }
        };
        let texture = match self.pattern {
            0 => 0.0,
            1 => wave(along),
            2 => wave(along) * wave(across),
            _ => {
                let (u, v) = (x / side * 5.0, y / side * 5.0);
                let (i, j) = ((u as usize).min(4), (v as usize).min(4));
                let (u, v) = (u - i as f64, v - j as f64);
                let row = |j: usize| self.blotches[j][i] * (1.0 - u) + self.blotches[j][i + 1] * u;
                1.6 * (row(j) * (1.0 - v) + row(j + 1) * v)
            }
        };
        mix(self.from, self.to, t).map(|value| value + texture * self.strength)
    }
}

/// A short line or a dot, without meaning.
struct Stroke {
    from: Point,
    to: Point,
    radius: f64,
    color: [f64; 3],
    in_front: bool,
}

impl Stroke {
    fn draw(draws: &mut Draws) -> Stroke {
        let side = SIDE as f64;
        let from = [draws.within(0.0, side), draws.within(0.0, side)];
        let length = draws.within(0.0, 14.0);
        let [c, s] = draws.direction();
        Stroke {
            from,
            to: [from[0] + length * c, from[1] + length * s],
            radius: draws.within(0.5, 1.1),
            color: draws.color(),
            in_front: draws.below(3) == 0,
        }
    }

    /// How much of the pixel at (x, y) it covers, about.
    fn coverage(&self, x: f64, y: f64) -> f64 {
        let margin = self.radius + 0.5;
        let outside = |at: f64, a: f64, b: f64| at < a.min(b) - margin || at > a.max(b) + margin;
        if outside(x, self.from[0], self.to[0]) || outside(y, self.from[1], self.to[1]) {
            return 0.0;
        }
        let [dx, dy] = [self.to[0] - self.from[0], self.to[1] - self.from[1]];
        let [px, py] = [x - self.from[0], y - self.from[1]];
        let along = ((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0.0, 1.0);
        let [ex, ey] = [px - along * dx, py - along * dy];
        (margin - (ex * ex + ey * ey).sqrt()).clamp(0.0, 1.0)
    }
}

/// How much of a pixel is inside, by nine samples; by four where those agree.
fn coverage(inside: impl Fn(f64, f64) -> bool) -> f64 {
    const AT: [f64; 3] = [1.0 / 6.0, 0.5, 5.0 / 6.0];
    let hits = |places: &[(usize, usize)]| places.iter().filter(|&&(i, j)| inside(AT[i], AT[j])).count();
    match hits(&[(0, 0), (2, 0), (0, 2), (2, 2)]) {
        0 => 0.0,
        4 => 1.0,
        corners => (corners + hits(&[(1, 0), (0, 1), (1, 1), (2, 1), (1, 2)])) as f64 / 9.0,
    }
}

/// Sample `index` of a split.
fn draw(shapes: &[Shape], split: SplitName, index: u64) -> Vec<u8> {
    let address = Address { seed: SEED, purpose: Purpose::Dataset, epoch: split as u32, item: index };
    let mut draws = Draws(address.stream());
    let shape = &shapes[label(index) as usize];
    let side = SIDE as f64;

    // Colours that a person can tell apart.
    let [background, foreground] = loop {
        let colors = [draws.color(), draws.color()];
        let difference = luminance(colors[0]) - luminance(colors[1]);
        if difference * difference > 0.3 * 0.3 {
            break colors;
        }
    };
    let contrast = draws.within(0.55, 1.0);
    let brightness = draws.within(0.0, 1.0 - contrast);
    let ground = Paint::draw(&mut draws, background);
    let figure = Paint::draw(&mut draws, foreground);

    // From picture to shape: move, turn, flip, shear, stretch, scale.
    let size = draws.within(9.5, 15.5); // square root of the area, in pixels
    let center = [side / 2.0 + draws.within(-6.0, 6.0), side / 2.0 + draws.within(-6.0, 6.0)];
    let [c, s] = draws.direction();
    let flip = if draws.below(2) == 0 { 1.0 } else { -1.0 };
    let shear = draws.within(-0.2, 0.2);
    let stretch = draws.within(0.85, 1.18);
    let inside = |x: f64, y: f64| {
        let (x, y) = ((x - center[0]) / size, (y - center[1]) / size);
        let (x, y) = (c * x + s * y, (c * y - s * x) * flip);
        shape.contains((x + shear * y) * stretch, y / stretch)
    };

    let strokes: Vec<Stroke> = (0..1 + draws.below(4)).map(|_| Stroke::draw(&mut draws)).collect();
    let noise = draws.within(0.02, 0.12);
    // Shear and stretch lengthen nothing by more than this.
    let reach = 1.35 * shape.reach * size;

    let mut picture = Vec::with_capacity(SIDE * SIDE * 3);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
            let stroked = |color, in_front| {
                let strokes = strokes.iter().filter(|stroke| stroke.in_front == in_front);
                strokes.fold(color, |color, stroke| mix(color, stroke.color, stroke.coverage(x, y)))
            };
            let mut color = stroked(ground.at(x, y), false);
            let [dx, dy] = [x - center[0], y - center[1]];
            if dx * dx + dy * dy < reach * reach {
                let coverage = coverage(|dx, dy| inside(column as f64 + dx, row as f64 + dy));
                if coverage > 0.0 {
                    color = mix(color, figure.at(x, y), coverage);
                }
            }
            // Ten bits per channel of each of two words: noise with a triangular distribution.
            let words = [draws.0.next_u32(), draws.0.next_u32()];
            for (channel, value) in stroked(color, true).into_iter().enumerate() {
                let bits = words.map(|word| f64::from(word >> (10 * channel) & 1023));
                let noise = noise * ((bits[0] + bits[1]) / 1023.0 - 1.0);
                let value = brightness + contrast * value + noise;
                picture.push((value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
            }
        }
    }
    picture
}
