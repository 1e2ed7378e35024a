//! The decoder against libjpeg, and without vector instructions against with them.

use mozjpeg::{ColorSpace, Compress};
use pba_types::PixelBox;

use self::noise::noise;
use super::Memory;
use crate::decode::image::{Image, decode};

#[path = "../../../tests/all/noise.rs"]
mod noise;

/// A picture with something of every frequency: waves, an edge, and `grain` of noise.
fn encoded(
    height: usize,
    width: usize,
    quality: f32,
    sampling: (u8, u8),
    grain: u32,
    optimized: bool,
) -> Vec<u8> {
    let grains = noise(height as u64 * 4096 + width as u64, height * width * 3);
    let pixels: Vec<u8> = (0..height * width * 3)
        .map(|i| {
            let (x, y, channel) = (i / 3 % width, i / 3 / width, i % 3);
            let wave =
                (x as f32 * 0.31).sin() * 50.0 + (y as f32 * (0.05 + channel as f32 / 9.0)).cos() * 60.0;
            let edge = if (x + 2 * y) % 41 < 9 { 70.0 } else { 0.0 };
            (wave + edge + 110.0) as u32 + u32::from(grains[i]) * grain / 256
        })
        .map(|value| value.min(255) as u8)
        .collect();
    let mut encoder = Compress::new(ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_size(width, height);
    encoder.set_quality(quality);
    encoder.set_optimize_coding(optimized);
    encoder.set_chroma_sampling_pixel_sizes(sampling, sampling);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(&pixels).unwrap();
    encoder.finish().unwrap()
}

/// Decodes a region with and without vector instructions, which must agree.
#[track_caller]
fn region(memories: &mut [Memory; 2], bytes: &[u8], needed: PixelBox) -> Option<Vec<u8>> {
    let [mut fast, mut plain] = [Vec::new(), Vec::new()];
    let found = memories[0].decode(bytes, needed, &mut fast);
    assert_eq!(found, memories[1].decode(bytes, needed, &mut plain));
    found?;
    assert!(fast == plain, "vector instructions give other pixels: {needed:?}");
    Some(fast)
}

fn cut(image: &Image, region: PixelBox) -> Vec<u8> {
    let row = |row: u32| {
        let start = 3 * (row * image.shape.width + region.left) as usize;
        &image.pixels[start..start + 3 * region.width as usize]
    };
    (region.top..region.top + region.height).flat_map(row).copied().collect()
}

fn memories() -> [Memory; 2] {
    [Memory::default(), Memory::without_vectors()]
}

/// Whatever the sampling, the size and the quality: the very pixels of libjpeg, in any region.
#[test]
fn every_region_has_libjpeg_s_pixels() {
    let mut memories = memories();
    let mut number = 0;
    for sampling in [(1, 1), (2, 1), (2, 2)] {
        for (height, width) in [(8, 8), (9, 31), (16, 16), (33, 17), (64, 48), (95, 111), (100, 129)] {
            for (quality, grain) in [(96.0, 90), (30.0, 20), (75.0, 0), (100.0, 255)] {
                number += 1;
                let bytes = encoded(height, width, quality, sampling, grain, number % 2 == 0);
                let image = decode(&bytes).unwrap();
                let what = format!("{height}x{width}, {sampling:?}, quality {quality}, grain {grain}");
                let pixels = region(&mut memories, &bytes, PixelBox::whole(image.shape));
                assert!(pixels.expect("an ordinary image") == image.pixels, "{what}");
                for word in noise(number, 80).as_chunks::<4>().0 {
                    let span = |first: u8, count: u8, length: u32| {
                        let first = u32::from(first) * length / 256;
                        (first, 1 + u32::from(count) * (length - first - 1) / 256)
                    };
                    let ((left, width), (top, height)) = (
                        span(word[0], word[1], image.shape.width),
                        span(word[2], word[3], image.shape.height),
                    );
                    let needed = PixelBox { left, top, width, height };
                    let pixels = region(&mut memories, &bytes, needed).expect("an ordinary image");
                    assert!(pixels == cut(&image, needed), "{what}, {needed:?}");
                }
            }
        }
    }
}

/// Damaged images are nothing for us, or libjpeg sees no damage either and gives the same pixels.
#[test]
fn damaged_images_are_left_to_libjpeg() {
    let mut memories = memories();
    let (mut left, mut decoded) = (0, 0);
    for (number, sampling) in [(1, 1), (2, 1), (2, 2)].into_iter().enumerate() {
        let bytes = encoded(24, 41, 90.0, sampling, 60, number == 1);
        for place in 0..bytes.len() {
            for flipped in [1 << (place % 8), noise(place as u64, 1)[0] | 1] {
                let mut bytes = bytes.clone();
                bytes[place] ^= flipped;
                let needed = PixelBox { left: 0, top: 0, width: 41, height: 24 };
                match region(&mut memories, &bytes, needed) {
                    None => left += 1,
                    Some(pixels) => {
                        decoded += 1;
                        let image = decode(&bytes).unwrap_or_else(|error| panic!("byte {place}: {error}"));
                        // The height may have grown, and what is missing is grey to libjpeg.
                        assert!(cut(&image, needed) == pixels, "byte {place} of {} ^ {flipped}", bytes.len());
                    }
                }
            }
        }
        for length in 0..bytes.len() {
            let needed = PixelBox { left: 3, top: 3, width: 2, height: 2 };
            assert_eq!(region(&mut memories, &bytes[..length], needed), None, "cut off to {length}");
        }
    }
    assert!(left > 200 && decoded > 200, "{left} left, {decoded} decoded");
}

#[test]
fn noise_is_no_image() {
    let mut memories = memories();
    let bytes = encoded(40, 57, 90.0, (2, 2), 60, false);
    let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 14;
    for seed in 0..3000 {
        let needed = PixelBox { left: 5, top: 9, width: 40, height: 30 };
        let mut bytes = [&bytes[..scan], &noise(seed, 900), &[0xff, 0xd9]].concat();
        if seed % 2 == 0 {
            bytes[..scan].copy_from_slice(&[&noise(seed, scan - 2), &[0xff, 0xda][..]].concat());
            bytes[..2].copy_from_slice(&[0xff, 0xd8]);
        }
        let _ = region(&mut memories, &bytes, needed);
    }
}

#[test]
fn regions_beyond_the_image_are_nothing() {
    let mut memories = memories();
    let bytes = encoded(40, 57, 90.0, (2, 2), 60, false);
    for needed in [
        PixelBox { left: 50, top: 0, width: 8, height: 1 },
        PixelBox { left: 0, top: 40, width: 1, height: 1 },
        PixelBox { left: u32::MAX, top: 0, width: u32::MAX, height: 1 },
    ] {
        assert_eq!(region(&mut memories, &bytes, needed), None);
    }
}
