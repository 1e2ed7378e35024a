//! Regions of ordinary JPEG images: only the blocks that show are transformed.
//!
//! Ordinary is what cameras and Pillow write: sequential, Huffman-coded, 8-bit samples, one scan, gray
//! or YCbCr with chroma at full or half resolution. Anything else, or anything irregular, is left to
//! libjpeg ([`Memory::decode`] gives `None`), whose pixels these are, byte for byte. So there is one
//! place that judges damaged images, and it is not here.
//!
//! ```text
//! header:   tables, sizes                                           (header.rs)
//! unstuff:  the scan without its stuffing, in pieces between restart markers
//! for each MCU down to the last that is needed:
//!     needed:  coefficients (huffman.rs) -> samples (idct.rs)
//!     not:     skip its bits, keep its DC
//! for each needed row: chroma upsampled, colours converted          (color.rs)
//! ```
//!
//! Each step is safe Rust on checked slices, but for loads and stores of whole vectors.

mod color;
mod header;
mod huffman;
mod idct;

use pba_types::{ImageShape, PixelBox};

use crate::decode::image::IMAGE_SIDE_MAX;
use header::{Component, Header};
use huffman::{Bits, END, PADDING, Table};
use idct::{Block, PLACE, SUM_MAX};

/// What decoding keeps between images: Huffman tables and buffers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    dc: [Table; 4],
    ac: [Table; 4],
    scan: Scan,
    planes: [Vec<u8>; 3],
    upsampled: [Vec<u8>; 2],
    sums: Vec<u16>,
    /// Without vector instructions, which never affect a result; for tests.
    plain: bool,
}

/// A scan's bytes without their stuffing.
#[derive(Clone, Debug, Default)]
struct Scan {
    /// The pieces between restart markers, [`PADDING`] zeros after each.
    bytes: Vec<u8>,
    /// Where each piece begins.
    starts: Vec<usize>,
}

impl Memory {
    /// One that decodes without vector instructions.
    pub fn without_vectors() -> Memory {
        Memory { plain: true, ..Memory::default() }
    }

    /// Writes the RGB pixels of a region into `out`, which is resized to them. Nothing when the image
    /// is not ordinary, not regular, or has no such region.
    #[allow(unsafe_code)]
    pub fn decode(&mut self, bytes: &[u8], needed: PixelBox, out: &mut Vec<u8>) -> Option<()> {
        let header = header::read(bytes)?;
        let sides = 8..=IMAGE_SIDE_MAX as usize;
        if !sides.contains(&header.height) || !sides.contains(&header.width) {
            return None;
        }
        let shape = ImageShape { height: header.height as u32, width: header.width as u32 };
        if !PixelBox::whole(shape).contains(needed) {
            return None;
        }
        for component in &header.components {
            self.dc[component.dc].set(header.dc_codes[component.dc]?, false)?;
            self.ac[component.ac].set(header.ac_codes[component.ac]?, true)?;
        }
        self.scan.fill(header.scan)?;
        let part = Part::new(&header, needed);
        #[cfg(target_arch = "x86_64")]
        if !self.plain && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: both were detected.
            return unsafe { self.decode_avx2(&header, &part, out) };
        }
        self.samples(&header, &part, idct::plain)?;
        self.pixels(&header, &part, out, color::plain);
        Some(())
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi2")]
    #[allow(unsafe_code)]
    fn decode_avx2(&mut self, header: &Header, part: &Part, out: &mut Vec<u8>) -> Option<()> {
        // SAFETY: the caller detected both.
        self.samples(header, part, |block, out, stride| idct::avx2(block, out, stride))?;
        // SAFETY: as above.
        self.pixels(header, part, out, |y, cb, cr, out| color::avx2(y, cb, cr, out));
        Some(())
    }

    /// Decodes the samples of all MCUs of a part.
    #[inline(always)]
    fn samples(
        &mut self,
        header: &Header,
        part: &Part,
        transform: impl Fn(&Block, &mut [u8], usize) -> bool,
    ) -> Option<()> {
        let mut factors = [[0; 64]; 3];
        for (component, factors) in header.components.iter().zip(&mut factors) {
            let quantisation = header.quantisation[component.quantisation]?;
            for (k, factor) in factors.iter_mut().enumerate() {
                *factor = u32::from(quantisation[k]) | u32::from(PLACE[k]) << 8;
            }
        }
        for (component, plane) in header.components.iter().zip(&mut self.planes) {
            // What is left from other images is overwritten.
            plane.resize(part.stride(component) * part.rows.len() * 8 * component.down, 0);
        }
        let mut block = Block([0; 64]);
        let mut predictions = [0i32; 3];
        let mut pieces = self.scan.starts.windows(2);
        let mut next_piece = || pieces.next().map(|ends| Bits::new(&self.scan.bytes[ends[0]..ends[1]]));
        let mut bits = next_piece()?;
        for row in 0..part.rows.end {
            for column in 0..part.across {
                let mcu = row * part.across + column;
                if mcu > 0 && mcu.checked_rem(header.restart_interval) == Some(0) {
                    if bits.overran() {
                        return None;
                    }
                    bits = next_piece()?;
                    predictions = [0; 3];
                }
                let is_needed = row >= part.rows.start && part.columns.contains(&column);
                for (i, component) in header.components.iter().enumerate() {
                    let (dc, ac) = (&self.dc[component.dc], &self.ac[component.ac]);
                    for number in 0..component.down * component.across {
                        bits.refill();
                        predictions[i] += dc.next(&mut bits)?.1;
                        if !is_needed {
                            ac.skip_block(&mut bits)?;
                            continue;
                        }
                        let (x, y) = (number % component.across, number / component.across);
                        let stride = part.stride(component);
                        let top = ((row - part.rows.start) * component.down + y) * 8;
                        let left = ((column - part.columns.start) * component.across + x) * 8;
                        let out = &mut self.planes[i][top * stride + left..];
                        match coefficients(&mut bits, ac, &factors[i], predictions[i], &mut block)? {
                            Some(sample) => {
                                out.chunks_mut(stride).take(8).for_each(|row| row[..8].fill(sample))
                            }
                            None if transform(&block, out, stride) => {}
                            None => return None,
                        }
                    }
                }
            }
        }
        (!bits.overran()).then_some(())
    }

    /// Writes the pixels of a part from its samples.
    #[inline(always)]
    fn pixels(
        &mut self,
        header: &Header,
        part: &Part,
        out: &mut Vec<u8>,
        convert: impl Fn(&[u8], &[u8], &[u8], &mut [u8]),
    ) {
        let needed = part.needed;
        let (width, height) = (needed.width as usize, needed.height as usize);
        out.resize(3 * width * height, 0);
        let luma = header.components[0];
        let stride = part.stride(&luma);
        let origin = (part.columns.start * 8 * luma.across, part.rows.start * 8 * luma.down);
        let (left, top) = (needed.left as usize - origin.0, needed.top as usize);
        // Chroma samples of a row that are in the image, and chroma rows.
        let chroma_stride = part.columns.len() * 8;
        let in_image = (header.width.div_ceil(luma.across) - part.columns.start * 8).min(chroma_stride);
        let chroma_height = header.height.div_ceil(luma.down);
        let planes = &self.planes;
        let chroma_row =
            |plane: usize, y: usize| &planes[plane][(y - part.rows.start * 8) * chroma_stride..][..in_image];
        for (y, out) in (top..).zip(out.chunks_exact_mut(3 * width)) {
            let luma_row = &planes[0][(y - origin.1) * stride..][left..left + width];
            if header.components.len() == 1 {
                for (out, &gray) in out.as_chunks_mut::<3>().0.iter_mut().zip(luma_row) {
                    *out = [gray; 3];
                }
                continue;
            }
            if luma.across == 1 {
                let of = |plane| &chroma_row(plane, y)[left..left + width];
                convert(luma_row, of(1), of(2), out);
                continue;
            }
            for (plane, upsampled) in [1, 2].into_iter().zip(&mut self.upsampled) {
                upsampled.resize(2 * chroma_stride, 0);
                if luma.down == 1 {
                    color::double(chroma_row(plane, y), upsampled);
                } else {
                    let near = y / 2;
                    let far =
                        if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(chroma_height - 1) };
                    self.sums.resize(chroma_stride, 0);
                    let [near, far] = [near, far].map(|y| chroma_row(plane, y));
                    color::double_both(near, far, &mut self.sums, upsampled);
                }
            }
            let [cb, cr] = [0, 1].map(|i| &self.upsampled[i][left..left + width]);
            convert(luma_row, cb, cr, out);
        }
    }
}

/// Reads the coefficients of a block after its DC, which is given. With none of them the block has
/// one sample, which is the answer.
#[inline(always)]
fn coefficients(
    bits: &mut Bits,
    ac: &Table,
    factors: &[u32; 64],
    prediction: i32,
    block: &mut Block,
) -> Option<Option<u8>> {
    let place = |factor: u32| (factor >> 8 & 63) as usize;
    let dc =
        prediction.checked_mul((factors[0] & 0xff) as i32).filter(|dc| (-SUM_MAX..=SUM_MAX).contains(dc))?;
    // After a DC of up to 22 bits there are enough for one more.
    let (mut k, mut value) = ac.next(bits)?;
    if k >= END {
        let sample = (dc + 4) >> 3;
        return (-512..512).contains(&sample).then_some(Some((sample + 128).clamp(0, 255) as u8));
    }
    block.0 = [0; 64];
    block.0[place(factors[0])] = dc as i16;
    let mut sum = dc.abs();
    // Two coefficients of up to 26 bits each time.
    'block: loop {
        bits.refill();
        for _ in 0..2 {
            let Some(&factor) = factors.get(k) else { break 'block };
            let product = value * (factor & 0xff) as i32;
            sum += product.abs();
            block.0[place(factor)] = product as i16;
            if k == 63 {
                break 'block;
            }
            let (step, next) = ac.next(bits)?;
            (k, value) = (k + step, next);
        }
    }
    ((k == 63 || k >= END) && sum <= SUM_MAX).then_some(None)
}

/// The MCUs that a region needs.
struct Part {
    needed: PixelBox,
    /// Its columns and rows of MCUs.
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
    /// MCUs across the image.
    across: usize,
}

impl Part {
    fn new(header: &Header, needed: PixelBox) -> Part {
        let Component { across, down, .. } = header.components[0];
        // Upsampling looks at one chroma sample more on each side.
        let mcus = |first: u32, count: u32, length: usize, sampling: usize| {
            let (first, last) = (first as usize / sampling, (first + count - 1) as usize / sampling);
            let margin = sampling - 1;
            let end = (last + 1 + margin).min(length.div_ceil(sampling));
            first.saturating_sub(margin) / 8..end.div_ceil(8)
        };
        Part {
            needed,
            columns: mcus(needed.left, needed.width, header.width, across),
            rows: mcus(needed.top, needed.height, header.height, down),
            across: header.width.div_ceil(8 * across),
        }
    }

    /// Samples in a row of a component.
    fn stride(&self, component: &Component) -> usize {
        self.columns.len() * 8 * component.across
    }
}

impl Scan {
    /// Takes the bytes of a scan that ends with the image, as it should.
    fn fill(&mut self, mut rest: &[u8]) -> Option<()> {
        self.bytes.clear();
        self.starts.clear();
        self.starts.push(0);
        loop {
            let length = memchr::memchr(0xff, rest)?;
            self.bytes.extend_from_slice(&rest[..length]);
            let &marker = rest.get(length + 1)?;
            rest = &rest[length + 2..];
            if marker == 0 {
                self.bytes.push(0xff);
                continue;
            }
            self.bytes.extend_from_slice(&[0; PADDING]);
            // Restart markers are numbered 0 to 7, over and over.
            let restart = 0xd0 + (self.starts.len() - 1) as u8 % 8;
            self.starts.push(self.bytes.len());
            match marker {
                0xd9 => return Some(()),
                marker if marker == restart => {}
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
