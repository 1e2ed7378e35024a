//! The frame: which part of a source image is shown, when images come in many sizes.
//!
//! A [`Frame`] is the first step of the base augmentation; from a source's size and a sample's
//! draws it makes a [`View`]. [`resize`](crate::resize()) fills the output from it.

use std::fmt;

use pba_types::rng::{Address, below};
use pba_types::{ImageShape, PixelBox};

/// Longest side, in pixels, of what a frame makes, and of the shorter side that it resizes to:
/// more than networks take, and so small that a batch of such images stays within memory.
pub const FRAME_SIDE_MAX: u32 = 1024;

/// How a source image of any size becomes a square of one size.
///
/// Written as `random_resized_crop:224`, or `resize:256,center_crop:224`. Both are torchvision's
/// transforms of these names, bilinear with antialiasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Frame {
    /// The image as it is: all images have one size.
    #[default]
    Full,
    /// A random box of the image, resized to a square with sides of so many pixels.
    ///
    /// The box has 0.08 to 1 of the image's area, uniformly, and a ratio of width to height between
    /// 3/4 and 4/3, log-uniformly; its place is uniform. Where ten such boxes do not fit, it is the
    /// largest one in the centre whose ratio is within these bounds.
    RandomResizedCrop(u32),
    /// The image is resized until its shorter side has `shorter` pixels; then a square with sides
    /// of `crop` pixels is cut from the centre.
    Resize {
        /// The shorter side after resizing, in pixels.
        shorter: u32,
        /// Side of the square, in pixels, at most `shorter`.
        crop: u32,
    },
}

impl Frame {
    /// The shape of what it makes: nothing for [`Frame::Full`], which keeps the image's.
    pub fn shape(self) -> Option<ImageShape> {
        match self {
            Frame::Full => None,
            Frame::RandomResizedCrop(side) | Frame::Resize { crop: side, .. } => {
                Some(ImageShape { height: side, width: side })
            }
        }
    }

    /// The view of a source image, from the draws at `address`, whose purpose is `Frame`.
    pub(crate) fn view(self, address: &Address, source: ImageShape) -> View {
        match self {
            Frame::Full => View::cut(PixelBox::whole(source), source),
            Frame::RandomResizedCrop(side) => {
                View::cut(random_box(address, source), ImageShape { height: side, width: side })
            }
            Frame::Resize { shorter, crop } => View::centre(shorter, crop, source),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frame::Full => f.write_str("whole"),
            Frame::RandomResizedCrop(side) => write!(f, "random_resized_crop:{side}"),
            Frame::Resize { shorter, crop } => write!(f, "resize:{shorter},center_crop:{crop}"),
        }
    }
}

/// The part of a source image that fills an output, in pixels of the source.
///
/// An output pixel is a weighted mean of the source pixels around its place in the box: Pillow's
/// bilinear filter with antialiasing. Pixels outside of `bounds` are as if they did not exist.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Left edge of the box.
    pub left: f64,
    /// Upper edge of the box.
    pub top: f64,
    /// Width of the box.
    pub width: f64,
    /// Height of the box.
    pub height: f64,
    /// The pixels that count. A random crop is cut first and then resized, so its box is all there
    /// is; a centre crop is cut from the resized image, so the neighbours of its box count.
    pub bounds: PixelBox,
    /// Size of the output.
    pub target: ImageShape,
}

impl View {
    /// A box that is cut out and then resized.
    fn cut(bounds: PixelBox, target: ImageShape) -> View {
        let PixelBox { left, top, width, height } = bounds;
        let (left, top, width, height) = (left.into(), top.into(), width.into(), height.into());
        View { left, top, width, height, bounds, target }
    }

    /// The centre of the image after it is resized, with the rounding of torchvision's `Resize` and
    /// `CenterCrop`.
    fn centre(shorter: u32, crop: u32, source: ImageShape) -> View {
        let longer = |side: u32, other: u32| (u64::from(shorter) * u64::from(side) / u64::from(other)) as u32;
        let (width, height) = match source {
            ImageShape { height, width } if width <= height => (shorter, longer(height, width)),
            ImageShape { height, width } => (longer(width, height), shorter),
        };
        // First edge and length of the cut in the source, which has `pixels` where the resized image
        // has `resized`.
        let cut = |pixels: u32, resized: u32| {
            let scale = f64::from(pixels) / f64::from(resized);
            let first = (f64::from(resized - crop) / 2.0).round_ties_even();
            (first * scale, f64::from(crop) * scale)
        };
        let ((left, width), (top, height)) = (cut(source.width, width), cut(source.height, height));
        let target = ImageShape { height: crop, width: crop };
        View { left, top, width, height, bounds: PixelBox::whole(source), target }
    }

    /// How much smaller the source may be decoded: the largest of 8, 4, 2 and 1 that leaves the box
    /// at least as large as the output, in both directions. A contract: it decides pixels.
    ///
    /// A source reduced by r has ceil(width / r) columns and ceil(height / r) rows, each pixel
    /// standing for r x r pixels.
    pub fn reduction(&self) -> u32 {
        let fits = |r: &u32| {
            let r = f64::from(*r);
            self.width / r >= f64::from(self.target.width) && self.height / r >= f64::from(self.target.height)
        };
        [8, 4, 2].into_iter().find(fits).unwrap_or(1)
    }

    /// The pixels that are needed of the source reduced by `reduction`.
    pub fn pixels(&self, reduction: u32) -> PixelBox {
        let (columns, rows) = self.axes(reduction);
        let ((left, right), (top, bottom)) = (columns.span(), rows.span());
        PixelBox { left, top, width: right - left, height: bottom - top }
    }

    /// Columns and rows.
    pub(crate) fn axes(&self, reduction: u32) -> (Axis, Axis) {
        let axis = |first: f64, length: f64, bounds_first: u32, bounds_length: u32, pixels: u32| {
            let r = f64::from(reduction);
            let lowest = bounds_first / reduction;
            Axis {
                first: first / r - f64::from(lowest),
                scale: length / r / f64::from(pixels),
                lowest,
                length: (bounds_first + bounds_length).div_ceil(reduction) - lowest,
                pixels,
            }
        };
        let PixelBox { left, top, width, height } = self.bounds;
        (
            axis(self.left, self.width, left, width, self.target.width),
            axis(self.top, self.height, top, height, self.target.height),
        )
    }
}

/// One direction of a view: where each output pixel lies, and which source pixels it is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// Where the box begins, from `lowest` on.
    first: f64,
    /// Source pixels for each output pixel. The triangle reaches so far in both directions, and at
    /// least one pixel.
    scale: f64,
    /// The first source pixel that counts.
    lowest: u32,
    /// Source pixels that count.
    length: u32,
    /// Output pixels.
    pub(crate) pixels: u32,
}

impl Axis {
    /// Place of an output pixel's centre, from `lowest` on.
    fn centre(&self, pixel: u32) -> f64 {
        self.first + (f64::from(pixel) + 0.5) * self.scale
    }

    /// First source pixel of an output pixel and the one after its last, from `lowest` on.
    fn range(&self, pixel: u32) -> (u32, u32) {
        let (centre, support) = (self.centre(pixel), self.scale.max(1.0));
        let first = (centre - support + 0.5).max(0.0) as u32;
        let end = ((centre + support + 0.5) as u32).min(self.length);
        (first.min(end), end)
    }

    /// First source pixel of all and the one after the last.
    fn span(&self) -> (u32, u32) {
        (self.lowest + self.range(0).0, self.lowest + self.range(self.pixels - 1).1)
    }

    /// The first source pixel of an output pixel, and its weights in units of 2^-22, as Pillow rounds
    /// them (`precompute_coeffs` and `normalize_coeffs_8bpc` in its Resample.c). `weights` is
    /// overwritten.
    pub(crate) fn weights(&self, pixel: u32, weights: &mut Vec<i32>) -> u32 {
        let (first, end) = self.range(pixel);
        let (centre, inverse) = (self.centre(pixel), 1.0 / self.scale.max(1.0));
        let weight = |at: u32| (1.0 - ((f64::from(at) - centre + 0.5) * inverse).abs()).max(0.0);
        let sum: f64 = (first..end).fold(0.0, |sum, at| sum + weight(at));
        weights.clear();
        let fixed = |at| (0.5 + weight(at) / sum * f64::from(1 << WEIGHT_BITS)) as i32;
        weights.extend((first..end).map(fixed));
        self.lowest + first
    }
}

/// Fractional bits of a weight, as in Pillow.
pub(crate) const WEIGHT_BITS: u32 = 22;

/// The box of torchvision's `RandomResizedCrop`, with its default scale and ratio.
fn random_box(address: &Address, source: ImageShape) -> PixelBox {
    const TRIES: u32 = 10;
    const AREA_MIN: f64 = 0.08;
    const RATIO_MAX: f64 = 4.0 / 3.0;
    let ImageShape { height, width } = source;
    let area = f64::from(height) * f64::from(width);
    // A uniform number in 0..1 from a uniform word.
    let unit = |word: u32| f64::from(word) / (1u64 << 32) as f64;
    for attempt in 0..TRIES {
        let words = address.block(attempt);
        let share = AREA_MIN + (1.0 - AREA_MIN) * unit(words[0]);
        // From 3/4 to 4/3: (4/3)^u for a u from -1 to 1.
        let ratio = exp(LN_4_3 * (2.0 * unit(words[1]) - 1.0));
        let side = |square: f64| square.sqrt().round_ties_even() as u32;
        let (box_width, box_height) = (side(area * share * ratio), side(area * share / ratio));
        if (1..=width).contains(&box_width) && (1..=height).contains(&box_height) {
            let (left, top) =
                (below(words[2], width - box_width + 1), below(words[3], height - box_height + 1));
            return PixelBox { left, top, width: box_width, height: box_height };
        }
    }
    let longest = |side: u32| (f64::from(side) * RATIO_MAX).round_ties_even() as u32;
    let (box_width, box_height) = (width.min(longest(height)), height.min(longest(width)));
    let (left, top) = ((width - box_width) / 2, (height - box_height) / 2);
    PixelBox { left, top, width: box_width, height: box_height }
}

/// The natural logarithm of 4/3.
const LN_4_3: f64 = 0.287_682_072_451_780_93;

/// e to the power of `x`, for -0.3..=0.3.
///
/// Its own, because a mathematics library's last bit differs between platforms, and boxes must not.
/// This is Taylor's series to the 12th power, whose next term is below 2^-53 there.
fn exp(x: f64) -> f64 {
    (1..=12).rev().fold(1.0, |sum, n| 1.0 + x / f64::from(n) * sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pba_types::rng::Purpose;

    fn box_of(seed: u64, sample: u64, height: u32, width: u32) -> PixelBox {
        let address = Address { seed, purpose: Purpose::Frame, epoch: 0, item: sample };
        random_box(&address, ImageShape { height, width })
    }

    #[test]
    fn exp_is_the_exponential() {
        for i in -300..=300 {
            let x = f64::from(i) / 1000.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 4.0 * f64::EPSILON, "{x}");
        }
        assert!((exp(LN_4_3) - 4.0 / 3.0).abs() < 1e-15 && (exp(-LN_4_3) - 0.75).abs() < 1e-15);
    }

    /// Boxes that were drawn once are drawn for ever, on every machine.
    #[test]
    fn random_boxes_are_pinned() {
        let boxes: Vec<[u32; 4]> = (0..6)
            .map(|sample| box_of(5, sample, 375, 500))
            .map(|PixelBox { left, top, width, height }| [left, top, width, height])
            .collect();
        // From a program of its own, with the logarithm and exponential of its platform.
        let expected = [
            [109, 26, 355, 302],
            [149, 34, 253, 333],
            [95, 76, 319, 278],
            [106, 32, 226, 221],
            [57, 9, 297, 363],
            [60, 109, 225, 171],
        ];
        assert_eq!(boxes, expected);
    }

    #[test]
    fn random_boxes_have_the_promised_areas_and_ratios() {
        const SAMPLES: u64 = 40_000;
        // So large that rounding and boxes that do not fit hardly matter.
        let (height, width) = (4000u32, 4000u32);
        let (mut area, mut log_ratio, mut log_ratio_squared, mut place) = (0.0, 0.0, 0.0, 0.0);
        for sample in 0..SAMPLES {
            let found = box_of(1, sample, height, width);
            assert!(PixelBox::whole(ImageShape { height, width }).contains(found));
            let (w, h) = (f64::from(found.width), f64::from(found.height));
            let share = w * h / f64::from(height * width);
            assert!((0.0799..=1.0).contains(&share) && (0.7495..=1.334).contains(&(w / h)), "{found:?}");
            area += share;
            log_ratio += (w / h).ln();
            log_ratio_squared += (w / h).ln().powi(2);
            place += f64::from(found.left) / f64::from((width - found.width).max(1));
        }
        let mean = |sum: f64| sum / SAMPLES as f64;
        // Large boxes of extreme ratios do not fit, and are drawn again. A simulation of a million
        // boxes by torchvision's words found these means.
        let found = (mean(area), mean(log_ratio_squared));
        assert!((found.0 - 0.47766).abs() < 0.005 && (found.1 - 0.025414).abs() < 0.0004, "{found:?}");
        assert!(mean(log_ratio).abs() < 0.003);
        assert!((mean(place) - 0.5).abs() < 0.006);
    }

    #[test]
    fn where_no_box_fits_the_centre_is_taken() {
        for sample in 0..50 {
            let wide = box_of(0, sample, 10, 400);
            if wide.width == 13 && wide.height == 10 {
                assert_eq!(wide, PixelBox { left: 193, top: 0, width: 13, height: 10 });
            }
        }
        for (height, width) in [(1, 1), (1, 4096), (4096, 1), (2, 3)] {
            for sample in 0..50 {
                let found = box_of(0, sample, height, width);
                assert!(found.width > 0 && found.height > 0);
                assert!(PixelBox::whole(ImageShape { height, width }).contains(found), "{found:?}");
            }
        }
    }
}
