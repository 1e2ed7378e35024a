//! Datasets to be damaged: small, each in a folder of its own, and packed in a data directory as a server
//! finds it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::chaos::dice::Dice;
use crate::chaos::harm::{Harm, harness};
use crate::chaos::oracle::{self, Order};
use crate::parquet_files;
use crate::server::data_folder;

/// JPEGs of every kind that are committed.
const JPEGS: [&str; 9] = [
    "rgb_420.jpg",
    "rgb_420_even.jpg",
    "rgb_422.jpg",
    "rgb_444.jpg",
    "rgb_progressive.jpg",
    "rgb_restarts.jpg",
    "gray.jpg",
    "gray_progressive.jpg",
    "tall.jpg",
];

/// A committed JPEG.
pub(crate) fn jpeg(dice: &mut Dice) -> Vec<u8> {
    read_image(dice.pick(&JPEGS))
}

fn read_image(name: &str) -> Vec<u8> {
    let path = crate::repository("server/datasets/tests/all/images").join(name);
    std::fs::read(path).expect("it is committed")
}

/// A dataset.
pub(crate) struct Pictures {
    pub(crate) folder: TempDir,
    /// Whether its images differ in size, and are decoded as they are sent.
    pub(crate) encoded: bool,
    /// Image files, of those in folders.
    files: Vec<PathBuf>,
}

impl Pictures {
    /// 400 images of one size in a Parquet file, or 45 JPEGs of different sizes in folders.
    pub(crate) fn new(encoded: bool, dice: &mut Dice) -> Result<Pictures, Harm> {
        Pictures::of(encoded, if encoded { 45 } else { 400 }, dice)
    }

    /// More than what a server prepares of a stream, and the kernel holds of it.
    pub(crate) fn many(encoded: bool, dice: &mut Dice) -> Result<Pictures, Harm> {
        Pictures::of(encoded, if encoded { 700 } else { 2500 }, dice)
    }

    /// A folder that holds a dataset already.
    pub(crate) fn at(folder: TempDir, encoded: bool) -> Pictures {
        Pictures { folder, encoded, files: Vec::new() }
    }

    fn of(encoded: bool, count: u32, dice: &mut Dice) -> Result<Pictures, Harm> {
        let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let mut pictures = Pictures::at(folder, encoded);
        let seed = dice.below(1 << 20) as u32;
        if encoded {
            for number in 0..count {
                let name = JPEGS[((number + number / 9 * seed) as usize + seed as usize) % JPEGS.len()];
                let folder = pictures.path().join("train").join(["a", "b", "c"][number as usize % 3]);
                std::fs::create_dir_all(&folder).map_err(|error| harness!("{error}"))?;
                let file = folder.join(format!("{number:03}-{name}"));
                std::fs::write(&file, read_image(name)).map_err(|error| harness!("{error}"))?;
                pictures.files.push(file);
            }
        } else {
            let images: Vec<Vec<u8>> =
                (0..count).map(|number| parquet_files::png(32, 32, seed + number)).collect();
            parquet_files::write(&pictures.path().join("train.parquet"), &images);
        }
        Ok(pictures)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A random image file.
    pub(crate) fn file(&self, dice: &mut Dice) -> PathBuf {
        dice.pick(&self.files)
    }

    /// All of it, augmented, in some batches, as the library makes it from what is there now.
    pub(crate) fn order(&self, dice: &mut Dice) -> Result<Order, Harm> {
        let base = if self.encoded { "random_resized_crop:48,flip" } else { "pad_crop:4,flip,cutout:16" };
        let size = if self.encoded { 5 } else { 25 };
        let query = format!(
            "split=train&schedule=cifar10-pba&seed={}&batch_size={size}&base={base}",
            dice.below(1 << 40)
        );
        let cache = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let dataset =
            oracle::dataset("mine", self.path(), cache.path()).map_err(|error| harness!("{error}"))?;
        Order::new(&dataset, 150, &query)
    }

    /// A data directory in which it is packed already, and its packed file.
    pub(crate) fn packed(&self) -> Result<(Arc<TempDir>, PathBuf), Harm> {
        let data = data_folder();
        let cache = data.path().join("datasets");
        let list = || -> BTreeSet<PathBuf> {
            let entries = std::fs::read_dir(&cache).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let before = list();
        oracle::dataset("mine", self.path(), &cache).map_err(|error| harness!("{error}"))?;
        let mut made = list().into_iter().filter(|path| !before.contains(path));
        let packed = made.find_map(|path| find(&path)).ok_or_else(|| harness!("nothing was packed"))?;
        Ok((data, packed))
    }

    /// The flag that serves it.
    pub(crate) fn flag(&self) -> String {
        format!("--dataset=mine={}", self.path().display())
    }
}

/// The packed training split in a folder, or below it.
fn find(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return std::fs::read_dir(path).ok()?.flatten().find_map(|entry| find(&entry.path()));
    }
    (path.file_name()? == "train.arrow").then(|| path.to_owned())
}
