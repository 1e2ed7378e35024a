//! Files in, samples out: every format, whole and broken.

mod cifar;
mod encoded;
mod folder;
mod images;
mod noise;
mod packed;
mod parquet;
mod real_data;
mod regions;
mod shapes;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use noise::noise;
use pba_datasets::{Dataset, DatasetError, Images, Measured, PackSpec, Packer, Split, SplitName, open};
use pba_types::ImageShape;

/// Opens a packed split with each of its bytes flipped in three ways, and checks what can be opened:
/// nothing panics.
fn open_with_each_byte_flipped(file: &Path, check: impl Fn(&Split)) {
    let bytes = std::fs::read(file).unwrap();
    for (place, flip) in (0..bytes.len()).flat_map(|place| [0x01, 0x80, 0xff].map(|flip| (place, flip))) {
        let mut bytes = bytes.clone();
        bytes[place] ^= flip;
        std::fs::write(file, &bytes).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if let Ok(split) = pba_datasets::packed::open(file) {
                check(&split);
                split.verify();
            }
        }));
        assert!(outcome.is_ok(), "byte {place} ^ {flip}");
    }
}

fn shape(height: u32, width: u32) -> ImageShape {
    ImageShape { height, width }
}

fn pack(to: &Path, shape: ImageShape, labels: &[i64], classes: &[&str]) -> Vec<Vec<u8>> {
    let classes = classes.iter().map(|name| (*name).to_owned()).collect();
    let spec = PackSpec { classes, rows: labels.len() as u64, source: "a test".into() };
    let mut packer = Packer::create(to, Some(shape), spec).unwrap();
    let images: Vec<Vec<u8>> = (0..labels.len()).map(|row| noise(row as u64, shape.rgb_bytes())).collect();
    for (image, &label) in images.iter().zip(labels) {
        packer.push(image, &Measured::of(shape, image), label).unwrap();
    }
    packer.finish().unwrap();
    images
}

fn opened(source: &Path, cache: &Path) -> Result<Dataset, DatasetError> {
    open("test", source, cache, &|_| ControlFlow::Continue(()))
}

#[track_caller]
fn split(dataset: &Dataset, name: SplitName) -> Arc<Split> {
    dataset.split(name).expect("the split is there").as_ref().expect("the split is ready").clone()
}

#[track_caller]
fn failure(dataset: &Dataset, name: SplitName) -> String {
    dataset.split(name).expect("the split is there").as_ref().unwrap_err().to_string()
}

#[track_caller]
fn assert_holds(split: &Split, images: &[Vec<u8>], labels: &[i64]) {
    assert_eq!(split.len(), images.len() as u64);
    for (row, (image, label)) in images.iter().zip(labels).enumerate() {
        assert_eq!(pixels(split, row as u64), image[..], "image {row}");
        assert_eq!(label_of(split, row as u64), *label, "label {row}");
    }
}

#[track_caller]
fn pixels(split: &Split, row: u64) -> Vec<u8> {
    split.read([row], |samples| samples.decoded().unwrap().image(row).to_vec()).unwrap()
}

#[track_caller]
fn label_of(split: &Split, row: u64) -> i64 {
    split.read([row], |samples| samples.label(row)).unwrap()
}

/// An encoded image and its size.
#[track_caller]
fn encoded_image(split: &Split, row: u64) -> (Vec<u8>, ImageShape) {
    let read = split.read([row], |samples| match samples.images() {
        Images::Encoded(images) => images.bytes(row).map(|bytes| (bytes.to_vec(), images.size(row))),
        Images::Decoded(_) => panic!("the images are of different sizes"),
    });
    read.unwrap().unwrap()
}

#[test]
fn nothing_to_read_says_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = opened(&missing, folder.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: no such file or folder", missing.display()));
    std::fs::write(folder.path().join("notes.txt"), "hello").unwrap();
    for path in [folder.path().to_owned(), folder.path().join("notes.txt")] {
        let error = opened(&path, folder.path()).unwrap_err().to_string();
        assert!(error.contains("no dataset found; looked for packed splits (train.arrow"), "{error}");
    }
}
