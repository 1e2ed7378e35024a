//! PNG: our reading by rows against the whole frames of the same crate, and against what is written from them.

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pba_datasets::{Image, RegionDecoder, decode, image_size};
use pba_types::{ImageShape, PixelBox};

use crate::fuzz::{Target, dice, image, mend_png};

pub(super) const TARGET: Target = Target {
    name: "png",
    check,
    mend: |bytes| mend(bytes),
    seeds,
    words: &[
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"PLTE",
        b"tRNS",
        b"acTL",
        b"fcTL",
        b"fdAT",
        b"gAMA",
        b"iCCP",
        b"zTXt",
        b"sBIT",
        b"\x89PNG\r\n\x1a\n",
        b"\0\0\0\x0d",
        b"\x08\x06\0\0\x01",
        b"\x10\x02\0\0\0",
        b"\x01\x03\0\0\x01",
    ],
    bytes_max: 8192,
    mutations: 1200,
};

/// Pixels of the largest image that is looked at.
const PIXELS_MAX: u64 = 1 << 18;

fn check(bytes: &[u8]) {
    let size = image_size(bytes);
    if !bytes.starts_with(b"\x89PNG") || size.as_ref().is_ok_and(|size| size.pixels() as u64 > PIXELS_MAX) {
        return;
    }
    let Ok(image) = decode(bytes) else { return };
    assert_eq!(size, Ok(image.shape), "the size before and after decoding");
    assert_eq!(image.pixels.len(), image.shape.rgb_bytes());
    if let Some(frame) = frame(bytes) {
        assert!(frame == image, "rows and frame differ");
    }
    assert_eq!(decode(&written(&image)).as_ref(), Ok(&image), "written anew");
    let reduction = dice(bytes).pick(&[1, 2, 4, 8]);
    let ImageShape { height, width } = image.shape;
    let all =
        PixelBox { left: 0, top: 0, width: width.div_ceil(reduction), height: height.div_ceil(reduction) };
    let mut decoder = RegionDecoder::new();
    let reduced = decoder.decode(bytes, all, reduction).expect("what decodes can be reduced");
    assert_eq!(reduced.place, all);
    assert!(reduced.pixels == averaged(&image, reduction), "reduced by {reduction}");
}

/// The image as the crate decodes it at once.
fn frame(bytes: &[u8]) -> Option<Image> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().ok()?;
    let mut samples = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut samples).ok()?;
    samples.truncate(info.buffer_size());
    let pixel = |samples: &[u8]| match *samples {
        [gray] | [gray, _] => [gray; 3],
        [red, green, blue, ..] => [red, green, blue],
        [] => unreachable!("a pixel has a sample"),
    };
    let pixels = samples.chunks_exact(info.color_type.samples()).flat_map(pixel).collect();
    Some(Image { shape: ImageShape { height: info.height, width: info.width }, pixels })
}

fn written(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.shape.width, image.shape.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fastest);
    let mut writer = encoder.write_header().expect("memory takes everything");
    writer.write_image_data(&image.pixels).expect("as many pixels as the size says");
    writer.finish().expect("memory takes everything");
    bytes
}

/// Means of squares, pixel by pixel.
fn averaged(image: &Image, reduction: u32) -> Vec<u8> {
    let ImageShape { height, width } = image.shape;
    let mut pixels = Vec::new();
    for top in (0..height).step_by(reduction as usize) {
        for left in (0..width).step_by(reduction as usize) {
            for channel in 0..3 {
                let (mut sum, mut count) = (0, 0);
                for y in top..height.min(top + reduction) {
                    for x in left..width.min(left + reduction) {
                        sum += u32::from(image.pixels[3 * (y * width + x) as usize + channel]);
                        count += 1;
                    }
                }
                pixels.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    pixels
}

/// Gives the chunks their sums.
pub(super) fn mend(bytes: &mut [u8]) {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        mend_png(bytes);
    }
}

/// Of each kind, small, and with image data that is stored as it is, so that a changed byte is a changed byte.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "bilevel.png",
        "gray.png",
        "gray_alpha.png",
        "one_pixel.png",
        "palette.png",
        "palette_transparent.png",
        "rgb.png",
        "rgba.png",
    ]
    .map(image)
    .into();
    for (color, depth, samples) in [
        (0u8, 1u8, 1),
        (0, 8, 1),
        (0, 16, 1),
        (2, 8, 3),
        (2, 16, 3),
        (3, 2, 1),
        (4, 8, 2),
        (6, 8, 4),
        (6, 16, 4),
    ] {
        for interlaced in [false, true] {
            seeds.push(stored(color, depth, samples, interlaced));
        }
    }
    seeds
}

/// A picture of 9x5 pixels.
fn stored(color: u8, depth: u8, samples: usize, interlaced: bool) -> Vec<u8> {
    const PASSES: [[usize; 4]; 7] =
        [[0, 8, 0, 8], [4, 8, 0, 8], [0, 4, 4, 8], [2, 4, 0, 4], [0, 2, 2, 4], [1, 2, 0, 2], [0, 1, 1, 2]];
    let (width, height) = (9usize, 5usize);
    let passes = if interlaced { &PASSES[..] } else { &[[0, 1, 0, 1]] };
    let mut data = Vec::new();
    for &[left, across, top, down] in passes {
        let columns = width.saturating_sub(left).div_ceil(across);
        let row_bytes = (columns * samples * usize::from(depth)).div_ceil(8);
        for row in (top..height).step_by(down).take_while(|_| columns > 0) {
            data.push((row % 5) as u8); // its filter
            data.extend((0..row_bytes).map(|i| (i * 29 + row * 7) as u8));
        }
    }
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], content: &[u8]| {
        bytes.extend((content.len() as u32).to_be_bytes());
        bytes.extend([kind, content, &[0; 4]].concat());
    };
    let head =
        [&[0, 0, 0, width as u8, 0, 0, 0, height as u8, depth, color, 0, 0, interlaced.into()][..]].concat();
    chunk(b"IHDR", &head);
    if color == 3 {
        chunk(b"PLTE", &[1, 2, 3, 40, 50, 60, 7, 80, 90, 250, 240, 230]);
        chunk(b"tRNS", &[0, 128]);
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::none());
    std::io::Write::write_all(&mut encoder, &data).expect("memory takes everything");
    chunk(b"IDAT", &encoder.finish().expect("memory takes everything"));
    chunk(b"IEND", &[]);
    mend_png(&mut bytes);
    bytes
}
