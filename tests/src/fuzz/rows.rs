//! What a dataset holds, in the memory of the test, and datasets made of bytes.

use std::ops::ControlFlow;
use std::path::Path;

use pba_datasets::{Dataset, DatasetError, Image, Images, Split, SplitName, decode};
use pba_types::{Digest, ImageShape};
use tempfile::TempDir;

/// A sample's image as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Pixels(Vec<u8>),
    Encoded(Vec<u8>, ImageShape),
}

/// All that is served of a split.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    digest: Digest,
    pub(super) classes: Vec<String>,
    pub(super) shape: Option<ImageShape>,
    mean_std: [[f64; 3]; 2],
    pub(super) images: Vec<Stored>,
    pub(super) labels: Vec<i64>,
}

impl Rows {
    /// Reads a split as a stream does.
    pub(super) fn of(split: &Split) -> Result<Rows, DatasetError> {
        let (images, labels) = split.read(0..split.len(), |samples| {
            let image = |index| match samples.images() {
                Images::Decoded(images) => Ok(Stored::Pixels(images.image(index).to_vec())),
                Images::Encoded(images) => {
                    Ok(Stored::Encoded(images.bytes(index)?.to_vec(), images.size(index)))
                }
            };
            let images = (0..split.len()).map(image).collect::<Result<Vec<_>, DatasetError>>();
            (images, (0..split.len()).map(|index| samples.label(index)).collect())
        })?;
        let rows = Rows {
            digest: split.digest(),
            classes: split.classes().to_vec(),
            shape: split.shape(),
            mean_std: [split.mean(), split.std()],
            images: images?,
            labels,
        };
        let classes = 0..rows.classes.len() as i64;
        assert!(rows.labels.iter().all(|label| classes.contains(label)), "a label without a class");
        if let Some(shape) = rows.shape {
            let is_whole =
                |image: &Stored| matches!(image, Stored::Pixels(p) if p.len() == shape.rgb_bytes());
            assert!(rows.images.iter().all(is_whole), "an image of another size than {shape:?}");
        }
        Ok(rows)
    }

    /// Compares images and labels with those that an importer must have found.
    #[track_caller]
    pub(super) fn check(&self, images: &[Vec<u8>], labels: &[i64]) {
        assert_eq!(self.labels, labels, "labels");
        assert_eq!(self.images.len(), images.len(), "images");
        for (row, (found, bytes)) in self.images.iter().zip(images).enumerate() {
            let Image { shape, pixels } = decode(bytes).unwrap_or_else(|error| panic!("row {row}: {error}"));
            match found {
                Stored::Pixels(found) => {
                    assert!(self.shape == Some(shape) && *found == pixels, "row {row}: other pixels");
                }
                Stored::Encoded(found, size) => {
                    assert!(found == bytes && *size == shape, "row {row}: another image");
                }
            }
        }
    }
}

/// A place for a dataset, which is imported as a server does it.
pub(super) struct Place {
    folder: TempDir,
}

impl Place {
    pub(super) fn new() -> Place {
        // In memory, where that can be: what is imported is synced to the disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Place { folder: folder.expect("a folder can be made") }
    }

    /// Where to put it.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the dataset.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path().join("data").join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder can be made");
        std::fs::write(path, bytes).expect("a file can be written");
    }

    /// Imports the dataset, or one file of it.
    pub(super) fn open(&self, name: &str) -> Result<Dataset, DatasetError> {
        let go_on = |_| ControlFlow::Continue(());
        pba_datasets::open("fuzzed", &self.path().join("data").join(name), &self.path().join("cache"), &go_on)
    }
}

/// The rows of a split that could be imported. What was packed is read back whole, and what it says of itself
/// is true.
pub(super) fn imported(dataset: &Dataset, name: SplitName) -> Option<Rows> {
    let split = dataset.split(name)?.as_ref().ok()?;
    assert!(split.verify(), "the digest of what was packed is another");
    Some(Rows::of(split).expect("what was packed a moment ago is whole"))
}
