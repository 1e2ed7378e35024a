//! Folders: images by class, and CIFAR's binaries, in any combination.
//!
//! An input is a row of files: a number that names one, its length in two bytes, its content.

use pba_datasets::SplitName;

use crate::fuzz::rows::{Place, Rows, Stored, imported};
use crate::fuzz::{Target, image, jpeg};
use crate::parquet_files;

pub(super) const TARGET: Target = Target {
    name: "folders",
    check,
    mend: as_files,
    seeds,
    words: &[b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"PAR1", b"ARROW1", b"\0\x02\x0c"],
    bytes_max: 20 << 10,
    mutations: 240,
};

/// The files that there may be.
const NAMES: [&str; 20] = [
    "train/a/1.png",
    "train/a/2.jpg",
    "train/b/1.png",
    "train/b/deep/3.JPEG",
    "test/a/1.jpg",
    "val/c/1.png",
    "a/1.png",
    "b/1.jpg",
    "train/1.png",
    "train/b/broken.webp",
    "train.bin",
    "test.bin",
    "fine_label_names.txt",
    "test_batch.bin",
    "data_batch_1.bin",
    "batches.meta.txt",
    "train.parquet",
    "train.arrow",
    "cifar-100-binary/train.bin",
    "README.md",
];

fn files(mut bytes: &[u8]) -> Vec<(&'static str, &[u8])> {
    let mut files = Vec::new();
    while let Some((&[name, low, high], rest)) = bytes.split_first_chunk::<3>() {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([low, high]))));
        files.push((NAMES[usize::from(name) % NAMES.len()], content));
        bytes = rest;
    }
    files
}

fn joined<'a>(files: impl IntoIterator<Item = (&'static str, &'a [u8])>) -> Vec<u8> {
    let file = |(name, content): (&str, &[u8])| {
        let number = NAMES.iter().position(|known| *known == name).expect("a known name") as u8;
        [&[number][..], &(content.len() as u16).to_le_bytes(), content].concat()
    };
    files.into_iter().flat_map(file).collect()
}

/// Lengths that are right, and images with right sums.
fn as_files(bytes: &mut Vec<u8>) {
    let mut mended: Vec<_> =
        files(bytes).into_iter().map(|(name, content)| (name, content.to_vec())).collect();
    mended.iter_mut().for_each(|(_, content)| super::png::mend(content));
    *bytes = joined(mended.iter().map(|(name, content)| (*name, &content[..])));
}

fn check(bytes: &[u8]) {
    let place = Place::new();
    let mut files = files(bytes);
    // The last of a name is what the file holds.
    files.reverse();
    let mut names = std::collections::BTreeSet::new();
    files.retain(|(name, _)| names.insert(*name));
    if files.is_empty() {
        return;
    }
    files.iter().for_each(|(name, content)| place.write(name, content));
    let Ok(dataset) = place.open("") else { return };
    for split in SplitName::ALL {
        let Some(rows) = imported(&dataset, split) else { continue };
        match dataset.format {
            "cifar" => {
                let find = |wanted: &str| {
                    files.iter().find(|(name, _)| *name == wanted).map(|(_, content)| *content)
                };
                let names = match split {
                    SplitName::Train => ["train.bin", "cifar-100-binary/train.bin"],
                    _ => ["test_batch.bin", "test.bin"],
                };
                let content = names.iter().find_map(|name| find(name)).expect("it was read");
                let label_bytes = if rows.classes.len() == 10 { 1 } else { 2 };
                records(&rows, content, label_bytes);
            }
            "folder" => images(&rows, &files, split),
            _ => {}
        }
    }
}

/// Compares with the records of a CIFAR binary.
fn records(rows: &Rows, content: &[u8], label_bytes: usize) {
    let records: Vec<&[u8]> = content.chunks(label_bytes + 3072).collect();
    assert_eq!(rows.images.len(), records.len(), "records");
    for (row, record) in records.into_iter().enumerate() {
        let (label, planes) = record.split_at(label_bytes);
        assert_eq!(rows.labels[row], i64::from(label[label_bytes - 1]), "label of record {row}");
        let pixels = (0..3072).map(|i| planes[i % 3 * 1024 + i / 3]).collect();
        assert!(rows.images[row] == Stored::Pixels(pixels), "pixels of record {row}");
    }
}

/// Compares with the images in the folders, in the order of their paths.
fn images(rows: &Rows, files: &[(&str, &[u8])], split: SplitName) {
    let is_image = |name: &str| {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_lowercase();
        ["png", "jpg", "jpeg", "webp"].contains(&extension.as_str())
    };
    let by_split = files.iter().any(|(name, _)| {
        let parts: Vec<&str> = name.split('/').collect();
        parts.len() > 2 && ["train", "val", "test"].contains(&parts[0])
    });
    let mut found: Vec<(&str, &str, &str, &[u8])> = Vec::new();
    for (name, content) in files.iter().filter(|(name, _)| is_image(name)) {
        let path = match by_split {
            true => name.strip_prefix(&format!("{split}/")),
            false => Some(*name),
        };
        if let Some((class, rest)) = path.and_then(|path| path.split_once('/')) {
            let (folder, file) = name.rsplit_once('/').unwrap_or(("", rest));
            found.push((class, folder, file, content));
        }
    }
    found.sort();
    let images: Vec<Vec<u8>> = found.iter().map(|(.., content)| content.to_vec()).collect();
    let label = |class: &str| rows.classes.iter().position(|known| known == class).expect("a class") as i64;
    let labels: Vec<i64> = found.iter().map(|(class, ..)| label(class)).collect();
    rows.check(&images, &labels);
}

fn seeds() -> Vec<Vec<u8>> {
    let (one, two) = (parquet_files::png(3, 2, 1), parquet_files::png(3, 2, 2));
    let jpeg = jpeg::encoded(8, 8, (1, 1), 90.0, false, 1);
    let (small, other) = (image("one_pixel.jpg"), image("bilevel.png"));
    let record = |label: &[u8], seed: usize| {
        [label, &(0..3072).map(|i| (i * seed) as u8).collect::<Vec<u8>>()].concat()
    };
    let hundred = [record(&[1, 99], 3), record(&[0, 7], 5)].concat();
    let ten = record(&[9], 7);
    let names = "apple\n".repeat(100);
    vec![
        joined([("train/a/1.png", &one[..]), ("train/b/1.png", &two)]),
        joined([
            ("train/a/1.png", &one[..]),
            ("train/a/2.jpg", &jpeg),
            ("train/b/deep/3.JPEG", &small),
            ("test/a/1.jpg", &jpeg),
        ]),
        joined([("a/1.png", &one[..]), ("b/1.jpg", &jpeg), ("train/1.png", &other)]),
        joined([("val/c/1.png", &other[..]), ("train/a/1.png", &one), ("README.md", b"words")]),
        joined([
            ("train.bin", &hundred[..]),
            ("test.bin", &record(&[0, 1], 1)),
            ("fine_label_names.txt", names.as_bytes()),
        ]),
        joined([("test_batch.bin", &ten[..])]),
        joined([("cifar-100-binary/train.bin", &hundred[..])]),
    ]
}
