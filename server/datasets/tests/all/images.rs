use std::path::PathBuf;

use pba_datasets::{Image, decode};

use crate::shape;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/all/images")
}

pub fn encoded() -> impl Iterator<Item = (String, Vec<u8>)> {
    let mut names: Vec<PathBuf> = folder().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "jpg" || e == "png"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
}

#[test]
fn every_image_decodes_as_pillow_decodes_it() {
    let mut count = 0;
    for (name, bytes) in encoded() {
        let pillow = std::fs::read(folder().join(format!("{name}.rgb"))).unwrap();
        let side = |i: usize| u32::from_le_bytes(pillow[i..i + 4].try_into().unwrap());
        let Image { shape: found, pixels } = decode(&bytes).unwrap();
        assert_eq!(found, shape(side(0), side(4)), "{name}");
        let differing = pixels.iter().zip(&pillow[8..]).filter(|(a, b)| a != b).count();
        assert_eq!((pixels.len(), differing), (pillow.len() - 8, 0), "{name}");
        count += 1;
    }
    assert_eq!(count, 19);
}

#[test]
fn sixteen_bit_images_keep_their_high_bytes() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Sixteen);
    encoder.write_header().unwrap().write_image_data(&[0x12, 0xff, 0xab, 0x01]).unwrap();
    assert_eq!(decode(&bytes).unwrap().pixels, [0x12, 0x12, 0x12, 0xab, 0xab, 0xab]);
}

#[test]
fn a_cut_off_image_is_an_error_at_every_length() {
    for (name, bytes) in encoded() {
        // The last bytes are an end marker and a checksum, which Pillow may do without, and so may we.
        for length in 0..bytes.len() - 12 {
            // A bilevel or one-coloured picture can be complete before its file is.
            if let Ok(image) = decode(&bytes[..length]) {
                assert_eq!(image, decode(&bytes).unwrap(), "{name} cut to {length}");
            }
        }
        assert!(decode(&bytes[..bytes.len() / 2]).is_err(), "{name}");
    }
}

#[test]
fn damaged_images_never_panic() {
    for (_, bytes) in encoded() {
        for (round, place) in (0..bytes.len()).step_by(7).enumerate() {
            let mut bytes = bytes.clone();
            bytes[place] ^= crate::noise(round as u64, 1)[0] | 1;
            let _ = decode(&bytes);
        }
    }
    for length in 0..400 {
        let bytes = crate::noise(length as u64, length);
        let _ = decode(&[&[0xff, 0xd8, 0xff], &bytes[..]].concat());
        let _ = decode(&[b"\x89PNG\r\n\x1a\n", &bytes[..]].concat());
        assert!(decode(&bytes).is_err());
    }
}

#[track_caller]
fn refused(bytes: &[u8], message: &str) {
    assert_eq!(decode(bytes).unwrap_err().to_string(), message);
}

#[test]
fn errors_say_what_is_wrong() {
    refused(b"", "image begins with nothing; formats that are read are JPEG and PNG");
    refused(b"GIF89a", "image begins with 47 49 46 38 39 61; formats that are read are JPEG and PNG");
    let mut bytes = Vec::new();
    let encoder = png::Encoder::new(&mut bytes, 5000, 1);
    encoder.write_header().unwrap().write_image_data(&[0; 5000]).unwrap();
    refused(&bytes, "image is 1x5000 (height x width); allowed are sides of 1..=4096 pixels");
    let error = decode(b"\xff\xd8\xff\xd9").unwrap_err().to_string();
    assert!(error.starts_with("image does not decode as JPEG: "), "{error}");
}

/// A progressive JPEG of a size with scans of the first DC coefficients of its one component, all of them empty.
fn with_scans(side: u16, scans: usize) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8];
    let mut segment = |marker: u8, content: &[u8]| {
        bytes.extend([0xff, marker]);
        bytes.extend((content.len() as u16 + 2).to_be_bytes());
        bytes.extend(content);
    };
    segment(0xdb, &[&[0][..], &[1; 64]].concat());
    let [high, low] = side.to_be_bytes();
    segment(0xc2, &[8, high, low, high, low, 1, 1, 0x11, 0]);
    // One code of one bit: a difference of 0.
    segment(0xc4, &[&[0, 1][..], &[0; 15], &[0]].concat());
    for _ in 0..scans {
        segment(0xda, &[1, 1, 0, 0, 0, 0]);
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

#[test]
fn a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded() {
    // What this costs is 10 ms of a processor for each scan: 10 bytes.
    let allowed = "allowed are 1..=";
    for (side, scans, most) in [(4096, 1_600_000, 32), (4096, 33, 32), (64, 101, 100)] {
        let refused = decode(&with_scans(side, scans)).unwrap_err().to_string();
        let expected = format!(
            "image has {scans} scans of {side}x{side} (height x width); {allowed}{most} at this size"
        );
        assert_eq!(refused, expected);
        let all = pba_types::PixelBox::whole(shape(side.into(), side.into()));
        let region = pba_datasets::RegionDecoder::new().decode(&with_scans(side, scans), all, 1).map(drop);
        assert_eq!(region.unwrap_err().to_string(), expected);
    }
    // Those that may be are counted, not believed: libjpeg has the last word about them.
    for scans in [1, 100] {
        let decoded = decode(&with_scans(64, scans));
        assert!(!decoded.is_err_and(|error| error.to_string().contains("scans of")), "{scans}");
    }
}

#[test]
fn a_png_that_inflates_to_more_than_its_image_is_refused_at_once() {
    // 134 MB of zeros in 130 kB.
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 4096, 4096);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Sixteen);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0; 4096 * 4096 * 8]).unwrap();
    writer.finish().unwrap();
    let chunk = |name: &[u8; 4], content: &[u8]| {
        let named = [&name[..], content].concat();
        [&(content.len() as u32).to_be_bytes()[..], &named, &crc(&named).to_be_bytes()].concat()
    };
    let find = |name: &[u8]| bomb.windows(4).position(|window| window == name).unwrap();
    let header = find(b"IHDR");
    // The encoder divides it into chunks.
    let (mut stream, mut rest) = (Vec::new(), &bomb[header + 21..]);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (name, content) = after.split_at(4);
        let (content, after) = content.split_at(u32::from_be_bytes(*length) as usize);
        if name == b"IDAT" {
            stream.extend_from_slice(content);
        }
        rest = &after[4..];
    }
    let small = |size: u32| {
        let mut content = bomb[header + 4..header + 17].to_vec();
        content[..8].copy_from_slice(&[size.to_be_bytes(), size.to_be_bytes()].concat());
        content
    };
    // The beginning of the same stream is a smaller picture, and its rest is what is too much.
    let file = |size: u32, data: &[u8]| {
        let parts = [chunk(b"IHDR", &small(size)), chunk(b"IDAT", data), chunk(b"IEND", &[])].concat();
        [b"\x89PNG\r\n\x1a\n", &parts[..]].concat()
    };
    assert!(stream.len() > 100_000, "{} bytes", stream.len());
    for size in [1, 100] {
        let message = "image does not decode as PNG: it has data after its last row";
        refused(&file(size, &stream), message);
    }
    // As much as that is a picture, and a little after its last row is harmless.
    for size in [4096, 4000] {
        assert_eq!(decode(&file(size, &stream)).map(|image| image.shape), Ok(shape(size, size)));
    }
}

/// The checksum of a PNG chunk (PNG specification, annex D).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (crc & 1).wrapping_neg() & 0xedb8_8320)
    })
}
