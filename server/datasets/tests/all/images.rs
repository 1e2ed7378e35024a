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
