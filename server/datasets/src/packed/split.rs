//! One split of a dataset.

use std::sync::Arc;

use memmap2::Mmap;
use pba_types::{Digest, ImageShape};

use crate::error::DatasetError;
use crate::packed::hash::Hasher;

/// A split that can be read, or why it cannot, while other splits of the dataset may.
pub type SplitState = Result<Arc<Split>, DatasetError>;

/// Images and labels of one split, read from a memory-mapped packed file.
///
/// Reading a sample allocates nothing and copies nothing. A split is made by [`packed::open`]
/// and by [`open`], and checked there once; afterwards every index below [`len`](Split::len) works.
///
/// [`packed::open`]: crate::packed::open
/// [`open`]: crate::open
#[derive(Debug)]
pub struct Split {
    pub(crate) map: Mmap,
    pub(crate) head: Head,
    /// Rows of every batch of pixels but the last, which may have fewer.
    pub(crate) batch_rows: u64,
    pub(crate) batches: Vec<Batch>,
    /// Smallest height and width of encoded images.
    pub(crate) smallest: ImageShape,
    /// Their largest height and width.
    pub(crate) largest: ImageShape,
}

/// What the schema of a packed file says.
#[derive(Debug)]
pub(crate) struct Head {
    /// The size of all images; none when they are encoded.
    pub(crate) shape: Option<ImageShape>,
    pub(crate) rows: u64,
    pub(crate) digest: Digest,
    pub(crate) mean: [f64; 3],
    pub(crate) std: [f64; 3],
    pub(crate) classes: Vec<String>,
}

/// One record batch: where its columns lie in the map.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Batch {
    /// Position in the split of the first row.
    pub(crate) first_row: u64,
    /// Pixels, or encoded images one after another.
    pub(crate) images: usize,
    pub(crate) labels: usize,
    /// Of encoded images: where each begins in `images`, and where the last ends, 4 bytes each.
    pub(crate) offsets: usize,
    pub(crate) heights: usize,
    pub(crate) widths: usize,
}

/// The images of a split, as they are stored.
#[derive(Clone, Copy, Debug)]
pub enum Images<'a> {
    /// Pixels, as all images share one size.
    Decoded(Decoded<'a>),
    /// JPEG and PNG files, as the images differ in size.
    Encoded(Encoded<'a>),
}

/// Images of one size, as pixels.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    split: &'a Split,
    shape: ImageShape,
}

/// Images of different sizes, encoded.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a>(&'a Split);

impl Split {
    /// How many samples there are, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.head.rows
    }

    /// The images, as they are stored.
    #[inline]
    pub fn images(&self) -> Images<'_> {
        match self.head.shape {
            Some(shape) => Images::Decoded(Decoded { split: self, shape }),
            None => Images::Encoded(Encoded(self)),
        }
    }

    /// The images as pixels, if that is how they are stored.
    pub fn decoded(&self) -> Option<Decoded<'_>> {
        match self.images() {
            Images::Decoded(images) => Some(images),
            Images::Encoded(_) => None,
        }
    }

    /// The size of the images, if all share one.
    pub fn shape(&self) -> Option<ImageShape> {
        self.head.shape
    }

    /// The class of sample `index`, below the number of classes.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Split::len).
    #[inline]
    pub fn label(&self, index: u64) -> i64 {
        let (batch, row) = self.place(index);
        i64::from_le_bytes(self.array(batch.labels, row))
    }

    /// SHA-256 over classes, number of rows, shape if there is one, and each row: its label, and
    /// its pixels, or its size and encoded image.
    pub fn digest(&self) -> Digest {
        self.head.digest
    }

    /// Mean of red, green and blue over all pixels of all images, as fractions of 255.
    pub fn mean(&self) -> [f64; 3] {
        self.head.mean
    }

    /// Standard deviation of red, green and blue over all pixels of all images, as fractions of 255.
    pub fn std(&self) -> [f64; 3] {
        self.head.std
    }

    /// Names of the classes; a label is a position in this list.
    pub fn classes(&self) -> &[String] {
        &self.head.classes
    }

    /// Bytes of the packed file.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Reads everything and compares it with the recorded digest.
    ///
    /// Opening does not do this, as it would read the whole file.
    pub fn verify(&self) -> bool {
        let mut hasher = Hasher::new(self.head.shape, &self.head.classes, self.head.rows);
        for index in 0..self.head.rows {
            let label = self.label(index);
            match self.images() {
                Images::Decoded(images) => hasher.push(images.image(index), label),
                Images::Encoded(images) => {
                    hasher.push_encoded(images.bytes(index), images.size(index), label);
                }
            }
        }
        hasher.finish() == self.head.digest
    }

    /// The record batch of a sample, and its row in it.
    #[inline]
    fn place(&self, index: u64) -> (Batch, usize) {
        assert!(index < self.head.rows, "sample {index} of a split of {}", self.head.rows);
        let position = match self.head.shape {
            Some(_) => (index / self.batch_rows) as usize,
            None => self.batches.partition_point(|batch| batch.first_row <= index) - 1,
        };
        let batch = self.batches[position];
        (batch, (index - batch.first_row) as usize)
    }

    /// The bytes of a value in a column that begins at `start`.
    #[inline]
    fn array<const N: usize>(&self, start: usize, row: usize) -> [u8; N] {
        self.map[start + row * N..][..N].try_into().expect("the slice has that many bytes")
    }
}

impl<'a> Decoded<'a> {
    /// The size of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The pixels of sample `index`: RGB, row by row, height * width * 3 bytes.
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    #[inline]
    pub fn image(&self, index: u64) -> &'a [u8] {
        let (batch, row) = self.split.place(index);
        let bytes = self.shape.rgb_bytes();
        &self.split.map[batch.images + row * bytes..][..bytes]
    }
}

impl<'a> Encoded<'a> {
    /// Sample `index` as a whole JPEG or PNG file.
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    #[inline]
    pub fn bytes(&self, index: u64) -> &'a [u8] {
        let (batch, row) = self.0.place(index);
        let [start, end] = [row, row + 1].map(|row| self.u32(batch.offsets, row) as usize);
        &self.0.map[batch.images + start..batch.images + end]
    }

    /// The size of sample `index`, known without looking at its bytes.
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    #[inline]
    pub fn size(&self, index: u64) -> ImageShape {
        let (batch, row) = self.0.place(index);
        ImageShape { height: self.u32(batch.heights, row), width: self.u32(batch.widths, row) }
    }

    /// The smallest height and the smallest width, in pixels; not always of one image.
    pub fn smallest(&self) -> ImageShape {
        self.0.smallest
    }

    /// The largest height and the largest width, in pixels; not always of one image.
    pub fn largest(&self) -> ImageShape {
        self.0.largest
    }

    #[inline]
    fn u32(&self, start: usize, row: usize) -> u32 {
        u32::from_le_bytes(self.0.array(start, row))
    }
}

#[cfg(test)]
mod tests {
    use pba_types::SplitName;

    use super::*;

    #[test]
    fn split_names_read_back() {
        for split in SplitName::ALL {
            assert_eq!(SplitName::named(&split.to_string()), Some(split));
        }
        assert_eq!(SplitName::named("validation"), None);
    }

    #[test]
    fn a_split_is_cheap_to_share() {
        fn check<T: Send + Sync>() {}
        check::<Split>();
        check::<SplitState>();
    }
}
