//! Files in, samples out: every format, whole and broken.

mod cifar;
mod encoded;
mod folder;
mod images;
mod packed;
mod parquet;
mod real_data;
mod regions;
mod shapes;

use std::path::Path;
use std::sync::Arc;

use pba_datasets::{Dataset, DatasetError, PackSpec, Packer, Split, SplitName, open};

/// Bytes that look random, from a seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

fn pack(to: &Path, (height, width): (u32, u32), labels: &[i64], classes: &[&str]) -> Vec<Vec<u8>> {
    let classes = classes.iter().map(|name| (*name).to_owned()).collect();
    let spec = PackSpec { classes, rows: labels.len() as u64, source: "a test".into() };
    let mut packer = Packer::create(to, (height, width), spec).unwrap();
    let images: Vec<Vec<u8>> =
        (0..labels.len()).map(|row| noise(row as u64, (height * width * 3) as usize)).collect();
    images.iter().zip(labels).for_each(|(image, &label)| packer.push(image, label).unwrap());
    packer.finish().unwrap();
    images
}

fn opened(source: &Path, cache: &Path) -> Result<Dataset, DatasetError> {
    open("test", source, cache, &|_| ())
}

#[track_caller]
fn split(dataset: &Dataset, name: SplitName) -> Arc<Split> {
    dataset.split(name).expect("the split is there").ready().expect("the split is ready").clone()
}

#[track_caller]
fn failure(dataset: &Dataset, name: SplitName) -> String {
    dataset.split(name).expect("the split is there").ready().unwrap_err().to_string()
}

#[track_caller]
fn assert_holds(split: &Split, images: &[Vec<u8>], labels: &[i64]) {
    assert_eq!(split.len(), images.len() as u64);
    for (row, (image, label)) in images.iter().zip(labels).enumerate() {
        assert_eq!(split.decoded().unwrap().image(row as u64), &image[..], "image {row}");
        assert_eq!(split.label(row as u64), *label, "label {row}");
    }
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
        assert!(error.contains("no dataset here; looked for packed splits (train.arrow"), "{error}");
    }
}
