//! Filling an output from a view of a source image.
//!
//! This is Pillow's `Image.resize` with `Resampling.BILINEAR`, byte for byte, so also what
//! torchvision does to PIL images: columns first, then rows, each pixel a weighted sum in fixed
//! point, rounded to a byte after each of the two. (Since version 13 Pillow does rows first for some
//! sizes; the order here is that of all versions before, whatever the size.) Libraries that do the
//! same keep weights of 16 bits, and are off by one here and there.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use pba_types::PixelBox;
use portable::{Taps, across, down};

use crate::frame::View;
#[cfg(target_arch = "x86_64")]
use crate::simd::level::Instructions;
use crate::simd::level::Level;

/// Decoded pixels of a source image, or of a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Interleaved red, green and blue bytes, row by row: `place.width * place.height * 3` of them.
    pub pixels: &'a [u8],
    /// Where these pixels lie in the image, as it is after its reduction.
    pub place: PixelBox,
    /// How much smaller than the source the image was decoded: 1, 2, 4 or 8.
    pub reduction: u32,
}

/// What resizing keeps between images.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resizer {
    columns: Taps,
    rows: Taps,
    /// The needed rows, with as many columns as the output.
    lines: Vec<u8>,
    #[cfg(target_arch = "x86_64")]
    avx512: avx512::Vectors,
    #[cfg(target_arch = "x86_64")]
    avx2: avx2::Vectors,
}

impl Resizer {
    /// As [`resize`](crate::resize()).
    pub(crate) fn resize(&mut self, level: Level, view: &View, source: &Source, out: &mut [u8]) {
        assert_eq!(out.len(), view.target.rgb_bytes(), "bytes of the output");
        let place = source.place;
        let stride = 3 * place.width as usize;
        assert_eq!(source.pixels.len(), stride * place.height as usize, "bytes of the source");
        let needed = view.pixels(source.reduction);
        assert!(place.contains(needed), "the view needs {needed:?}, the source has {place:?}");

        let Resizer { columns, rows, lines, .. } = self;
        let (column_axis, row_axis) = view.axes(source.reduction);
        columns.fill(column_axis, place.left);
        rows.fill(row_axis, needed.top);
        let pixels =
            &source.pixels[stride * (needed.top - place.top) as usize..][..stride * needed.height as usize];
        #[cfg(target_arch = "x86_64")]
        match level.instructions() {
            Instructions::Avx512 if self.avx512.fill(columns, rows, stride) => {
                // SAFETY: a level that exists was detected.
                return unsafe { self.avx512.resize(rows, pixels, stride, lines, out) };
            }
            // AVX-512 leaves images to it that shrink more than 2.5 times, and tiny ones.
            Instructions::Avx512 | Instructions::Avx2 if self.avx2.fill(columns) => {
                // SAFETY: a level that exists was detected.
                return unsafe { self.avx2.resize(level, [columns, rows], pixels, stride, lines, out) };
            }
            _ => {}
        }
        let line = 3 * view.target.width as usize;
        lines.resize(line * needed.height as usize, 0);
        for (source, line) in pixels.chunks_exact(stride).zip(lines.chunks_exact_mut(line)) {
            across(level, columns, source, line);
        }
        for (row, out) in out.chunks_exact_mut(line).enumerate() {
            let (first, weights) = rows.of(row);
            down(level, weights, &lines[line * first..], out);
        }
    }
}

#[cfg(test)]
mod tests {
    use pba_types::ImageShape;
    use rand::Rng;

    use super::*;
    use crate::simd::level::tests::at_each_level;
    use pba_types::rng::{Address, Purpose, below};

    // A level against plain Rust: lines of every length, boxes at the source's edges, and from ones
    // that grow to those that need more taps than vectors have. White pixels reach the largest sums.
    at_each_level! {
        fn as_in_plain_rust(level: Level) {
            let mut rng = Address { seed: 3, purpose: Purpose::Dataset, epoch: 0, item: 0 }.stream();
            let mut resizers = [(); 2].map(|()| Resizer::default());
            for round in 0..600 {
                let mut side = |most: u32| 1 + below(rng.next_u32(), most);
                let source = ImageShape { height: side(120), width: side(400) };
                let target =
                    ImageShape { height: side(40), width: if round < 150 { round + 1 } else { side(300) } };
                let (width, height) = (side(source.width), side(source.height));
                let (left, top) = (side(source.width - width + 1) - 1, side(source.height - height + 1) - 1);
                let bounds =
                    if round % 3 == 0 { PixelBox::whole(source) } else { PixelBox { left, top, width, height } };
                let [left, top, width, height] = [left, top, width, height].map(f64::from);
                let view = View { left, top, width, height, bounds, target };
                let mut pixels = vec![255; source.rgb_bytes()];
                if round % 10 != 0 {
                    rng.fill_bytes(&mut pixels);
                }
                let of_source = Source { pixels: &pixels, place: PixelBox::whole(source), reduction: 1 };
                let [out, expected] = [level, Level::PORTABLE].map(|level| {
                    let mut out = vec![7; target.rgb_bytes()];
                    resizers[usize::from(level == Level::PORTABLE)].resize(level, &view, &of_source, &mut out);
                    out
                });
                assert!(round % 10 != 0 || expected.iter().all(|&byte| byte == 255), "white stays white");
                assert!(out == expected, "bytes differ: {view:?}");
            }
        }
    }
}
