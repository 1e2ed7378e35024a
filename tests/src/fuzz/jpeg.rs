//! JPEG: the decoder of regions against libjpeg.
//!
//! What libjpeg makes of an image, each region has the same pixels of, at each reduction, with and without vector
//! instructions, and whatever was decoded before. What libjpeg refuses is refused, in the same words; but of a
//! part of an image, damage behind the part may go unnoticed, as the documentation of `RegionDecoder` says.

use std::cell::RefCell;

use mozjpeg::{ColorSpace, Compress};
use pba_datasets::{Image, ImageError, RegionDecoder, decode, image_size};
use pba_types::{ImageShape, PixelBox};

use crate::chaos::dice::Dice;
use crate::fuzz::{Target, dice, image};

pub(super) const TARGET: Target = Target {
    name: "jpeg",
    check,
    mend,
    seeds,
    words: &[
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xda",
        b"\xff\xdb",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xc4",
        b"\xff\xdd",
        b"\xff\xd0",
        b"\xff\xee\0\x0eAdobe",
        b"\xff\xe0\0\x10JFIF\0",
        b"\0\x3f\0",
        b"\xff\0",
    ],
    bytes_max: 8192,
    mutations: 1800,
};

/// Pixels of the largest image that is looked at: larger ones cost time and show nothing more.
const PIXELS_MAX: u64 = 1 << 18;

thread_local! {
    /// What it decoded before must not matter.
    static USED: RefCell<RegionDecoder> = RefCell::default();
}

fn check(bytes: &[u8]) {
    let size = image_size(bytes);
    if !bytes.starts_with(&[0xff, 0xd8, 0xff])
        || size.as_ref().is_ok_and(|size| size.pixels() as u64 > PIXELS_MAX)
    {
        return;
    }
    let whole = decode(bytes);
    if let Ok(image) = &whole {
        assert_eq!(size, Ok(image.shape), "the size before and after decoding");
    }
    let Ok(shape) = size else {
        assert!(whole.is_err(), "decoded without a size");
        return;
    };
    let mut dice = dice(bytes);
    USED.with_borrow_mut(|used| {
        let mut decoders = [used, &mut RegionDecoder::without_vectors()];
        match (both(&mut decoders, bytes, PixelBox::whole(shape), 1), &whole) {
            (Ok(found), Ok(image)) => assert!(found == *image, "other pixels than libjpeg's: {shape:?}"),
            (Ok(_), Err(error)) => panic!("decoded, but libjpeg says: {error}"),
            (Err(found), whole) => {
                assert_eq!(Err(&found), whole.as_ref(), "refused otherwise than by libjpeg")
            }
        }
        for _ in 0..3 {
            let needed = region(shape, &mut dice);
            match (both(&mut decoders, bytes, needed, 1), &whole) {
                (Ok(found), Ok(image)) => assert!(found == cut(image, needed), "other pixels of {needed:?}"),
                (Ok(_), Err(_)) => {} // the damage lies behind it
                (Err(found), whole) => assert_eq!(Err(&found), whole.as_ref(), "{needed:?} refused"),
            }
        }
        let reduction = dice.pick(&[2, 4, 8]);
        let reduced =
            ImageShape { height: shape.height.div_ceil(reduction), width: shape.width.div_ceil(reduction) };
        let all = both(&mut decoders, bytes, PixelBox::whole(reduced), reduction);
        let needed = region(reduced, &mut dice);
        let part = both(&mut decoders, bytes, needed, reduction);
        assert_eq!(part, all.map(|all| cut(&all, needed)), "{needed:?} at 1/{reduction}");
    });
}

/// A region by two decoders, which must agree.
fn both(
    decoders: &mut [&mut RegionDecoder; 2],
    bytes: &[u8],
    needed: PixelBox,
    reduction: u32,
) -> Result<Image, ImageError> {
    let [fast, plain] = decoders.each_mut().map(|decoder| {
        let region = decoder.decode(bytes, needed, reduction)?;
        let PixelBox { left, top, width, height } = region.place;
        assert!(region.place.contains(needed), "{:?} lacks a part of {needed:?}", region.place);
        let image = Image { shape: ImageShape { height, width }, pixels: region.pixels.to_vec() };
        Ok(cut(&image, PixelBox { left: needed.left - left, top: needed.top - top, ..needed }))
    });
    assert_eq!(fast, plain, "with and without vector instructions: {needed:?} at 1/{reduction}");
    fast
}

fn region(shape: ImageShape, dice: &mut Dice) -> PixelBox {
    let mut span = |length: u32| {
        let first = dice.below(length.into()) as u32;
        (first, 1 + dice.below(u64::from(length - first)) as u32)
    };
    let ((left, width), (top, height)) = (span(shape.width), span(shape.height));
    PixelBox { left, top, width, height }
}

fn cut(image: &Image, PixelBox { left, top, width, height }: PixelBox) -> Image {
    let rows = image.pixels.chunks_exact(3 * image.shape.width as usize);
    let rows = rows.skip(top as usize).take(height as usize);
    let pixels = rows.flat_map(|row| &row[3 * left as usize..3 * (left + width) as usize]).copied().collect();
    Image { shape: ImageShape { height, width }, pixels }
}

/// An image that does not end as one is left to libjpeg at once.
fn mend(bytes: &mut Vec<u8>) {
    if !bytes.ends_with(&[0xff, 0xd9]) {
        bytes.extend([0xff, 0xd9]);
    }
    if let Some(start) = bytes.get_mut(..3) {
        start.copy_from_slice(&[0xff, 0xd8, 0xff]);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        ["rgb_restarts.jpg", "gray.jpg", "gray_progressive.jpg", "cmyk.jpg", "one_pixel.jpg"]
            .map(image)
            .into();
    for (number, (height, width)) in [(8, 8), (17, 33), (24, 16)].into_iter().enumerate() {
        for sampling in [(1, 1), (2, 1), (2, 2)] {
            for (quality, progressive) in [(95.0, false), (40.0, false), (80.0, true)] {
                seeds.push(encoded(height, width, sampling, quality, progressive, number as u8));
            }
        }
    }
    seeds
}

/// A small picture with an edge and a ramp.
pub(super) fn encoded(
    height: usize,
    width: usize,
    sampling: (u8, u8),
    quality: f32,
    progressive: bool,
    seed: u8,
) -> Vec<u8> {
    let value = |i: usize| {
        let (x, y, channel) = (i / 3 % width, i / 3 / width, i % 3);
        let edge = if (x + 2 * y) % 11 < 4 { 90 } else { 0 };
        (edge + x * 5 + y * (3 + channel) + i * i % 7 + usize::from(seed) * 13) as u8
    };
    let pixels: Vec<u8> = (0..height * width * 3).map(value).collect();
    let mut encoder = Compress::new(ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_size(width, height);
    encoder.set_quality(quality);
    if progressive {
        encoder.set_progressive_mode();
    }
    encoder.set_chroma_sampling_pixel_sizes(sampling, sampling);
    let mut encoder = encoder.start_compress(Vec::new()).expect("a picture");
    encoder.write_scanlines(&pixels).expect("as many rows as it has");
    encoder.finish().expect("memory takes everything")
}
