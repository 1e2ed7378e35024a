//! Parts of images against the same parts of whole images.

use pba_datasets::{Image, RegionDecoder, decode, image_size};
use pba_types::{ImageShape, PixelBox};

use crate::images::encoded;
use crate::shape;

/// What the box of a whole image holds.
fn cut(image: &Image, region: PixelBox) -> Vec<u8> {
    let row = |row: u32| {
        let start = 3 * (row * image.shape.width + region.left) as usize;
        &image.pixels[start..start + 3 * region.width as usize]
    };
    (region.top..region.top + region.height).flat_map(row).copied().collect()
}

/// The whole image at a reduction.
fn whole(bytes: &[u8], reduction: u32) -> Image {
    let ImageShape { height, width } = image_size(bytes).unwrap();
    let shape = shape(height.div_ceil(reduction), width.div_ceil(reduction));
    let mut decoder = RegionDecoder::new();
    let all = PixelBox::whole(shape);
    let decoded = decoder.decode(bytes, all, reduction).unwrap();
    assert_eq!(decoded.place, all);
    Image { shape, pixels: decoded.pixels.to_vec() }
}

/// Boxes of an image: its corners, single pixels, strips, and some at random.
fn boxes(image: &Image, seed: u64) -> Vec<PixelBox> {
    let ImageShape { height, width } = image.shape;
    let mut boxes = vec![
        PixelBox { left: 0, top: 0, width: 1, height: 1 },
        PixelBox { left: width - 1, top: height - 1, width: 1, height: 1 },
        PixelBox { left: 0, top: height / 2, width, height: 1 },
        PixelBox { left: width / 2, top: 0, width: 1, height },
    ];
    for word in crate::noise(seed, 120).as_chunks::<4>().0 {
        let span = |first: u8, count: u8, length: u32| {
            let first = u32::from(first) * length / 256;
            (first, 1 + u32::from(count) * (length - first - 1) / 256)
        };
        let ((left, width), (top, height)) = (span(word[0], word[1], width), span(word[2], word[3], height));
        boxes.push(PixelBox { left, top, width, height });
    }
    boxes
}

#[test]
fn a_region_has_the_pixels_of_the_whole_image() {
    let mut decoder = RegionDecoder::new();
    for (name, bytes) in encoded() {
        assert_eq!(whole(&bytes, 1), decode(&bytes).unwrap(), "{name}");
        for reduction in [1, 2, 4, 8] {
            let image = whole(&bytes, reduction);
            for needed in boxes(&image, reduction.into()) {
                let decoded = decoder.decode(&bytes, needed, reduction).unwrap();
                let PixelBox { left, top, .. } = decoded.place;
                assert!(left <= needed.left && top <= needed.top);
                let shape = shape(decoded.place.height, decoded.place.width);
                let part = Image { shape, pixels: decoded.pixels.to_vec() };
                let within = PixelBox { left: needed.left - left, top: needed.top - top, ..needed };
                let equal = cut(&part, within) == cut(&image, needed);
                assert!(equal, "{name} by {reduction}, {needed:?} in {:?}", decoded.place);
            }
        }
    }
}

#[test]
fn sizes_are_read_from_the_header() {
    for (name, bytes) in encoded() {
        assert_eq!(image_size(&bytes), Ok(decode(&bytes).unwrap().shape), "{name}");
        assert!(image_size(&bytes[..10]).is_err(), "{name}");
    }
    assert!(image_size(b"GIF89a").is_err());
}

#[test]
fn a_reduced_png_is_averaged() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 3, 2);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[10, 20, 7, 30, 41, 8]).unwrap();
    // 101 / 4 and 15 / 2, rounded.
    assert_eq!(whole(&bytes, 2), Image { shape: shape(1, 2), pixels: vec![25, 25, 25, 8, 8, 8] });
}

#[test]
fn a_region_outside_of_the_image_is_refused() {
    let (_, bytes) = encoded().find(|(name, _)| name == "rgb_420.jpg").unwrap();
    let mut decoder = RegionDecoder::new();
    let refused = decoder.decode(&bytes, PixelBox { left: 30, top: 0, width: 8, height: 23 }, 1).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "image is 23x37 (height x width) as it is decoded; no 23x8 pixels from row 0, column 30 on are in it"
    );
    assert!(decoder.decode(&bytes, PixelBox { left: 12, top: 0, width: 8, height: 12 }, 2).is_err());
    assert!(
        decoder.decode(&bytes, PixelBox { left: u32::MAX, top: 0, width: u32::MAX, height: 1 }, 1).is_err()
    );
}
