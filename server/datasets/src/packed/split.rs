//! One split of a dataset.

use std::sync::Arc;

use pba_types::{Digest, ImageShape};

use crate::error::DatasetError;
use crate::packed::hash::Hasher;
use crate::packed::map::Map;

/// A split that can be read, or the reason why not.
#[derive(Clone, Debug)]
pub enum SplitState {
    /// It can be read.
    Ready(Arc<Split>),
    /// It cannot, while other splits of the dataset may.
    Failed(DatasetError),
}

impl From<Result<Split, DatasetError>> for SplitState {
    fn from(opened: Result<Split, DatasetError>) -> SplitState {
        match opened {
            Ok(split) => SplitState::Ready(Arc::new(split)),
            Err(error) => SplitState::Failed(error),
        }
    }
}

impl SplitState {
    /// The split.
    ///
    /// # Errors
    /// Why it failed to load.
    pub fn ready(&self) -> Result<&Arc<Split>, &DatasetError> {
        match self {
            SplitState::Ready(split) => Ok(split),
            SplitState::Failed(error) => Err(error),
        }
    }
}

/// Images and labels of one split, read from a memory-mapped packed file.
///
/// Reading a sample allocates nothing and copies nothing. A split is made by [`packed::open`]
/// and by [`open`], and checked there once; afterwards every index below [`len`](Split::len) works.
///
/// [`packed::open`]: crate::packed::open
/// [`open`]: crate::open
#[derive(Debug)]
pub struct Split {
    pub(crate) map: Map,
    pub(crate) rows: u64,
    pub(crate) layout: Layout,
    pub(crate) digest: Digest,
    pub(crate) mean: [f64; 3],
    pub(crate) std: [f64; 3],
    pub(crate) classes: Vec<String>,
    pub(crate) source: String,
}

/// Where the rows lie in the map.
#[derive(Debug)]
pub(crate) enum Layout {
    Decoded(DecodedLayout),
    Encoded(EncodedLayout),
}

/// Rows of one size.
#[derive(Debug)]
pub(crate) struct DecodedLayout {
    pub(crate) shape: ImageShape,
    /// Rows of every batch but the last, which may have fewer.
    pub(crate) batch_rows: u64,
    pub(crate) batches: Vec<DecodedBatch>,
}

/// Offsets in the map of one record batch of pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodedBatch {
    pub(crate) images: usize,
    pub(crate) labels: usize,
}

/// Rows of different sizes, of which a batch holds as many as fit.
#[derive(Debug)]
pub(crate) struct EncodedLayout {
    pub(crate) batches: Vec<EncodedBatch>,
    /// Smallest height and width.
    pub(crate) smallest: ImageShape,
    /// Largest height and width.
    pub(crate) largest: ImageShape,
}

/// Offsets in the map of one record batch of encoded images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncodedBatch {
    /// Position in the split of the first row.
    pub(crate) first_row: u64,
    /// One offset into `bytes` more than there are rows, of 4 bytes each.
    pub(crate) offsets: usize,
    pub(crate) bytes: usize,
    pub(crate) labels: usize,
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
    map: &'a [u8],
    rows: u64,
    layout: &'a DecodedLayout,
}

/// Images of different sizes, encoded.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    map: &'a [u8],
    rows: u64,
    layout: &'a EncodedLayout,
}

impl Split {
    /// How many samples there are, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// The images, as they are stored.
    #[inline]
    pub fn images(&self) -> Images<'_> {
        let (map, rows) = (&*self.map, self.rows);
        match &self.layout {
            Layout::Decoded(layout) => Images::Decoded(Decoded { map, rows, layout }),
            Layout::Encoded(layout) => Images::Encoded(Encoded { map, rows, layout }),
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
        self.decoded().map(|images| images.shape())
    }

    /// The class of sample `index`, below the number of classes.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Split::len).
    #[inline]
    pub fn label(&self, index: u64) -> i64 {
        let start = match self.images() {
            Images::Decoded(images) => {
                let (batch, row) = images.place(index);
                batch.labels + row * size_of::<i64>()
            }
            Images::Encoded(images) => {
                let (batch, row) = images.place(index);
                batch.labels + row * size_of::<i64>()
            }
        };
        i64::from_le_bytes(array(&self.map, start))
    }

    /// SHA-256 over classes, number of rows, shape if there is one, and each row: its label, and
    /// its pixels, or its size and encoded image.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Mean of red, green and blue over all pixels of all images, as fractions of 255.
    pub fn mean(&self) -> [f64; 3] {
        self.mean
    }

    /// Standard deviation of red, green and blue over all pixels of all images, as fractions of 255.
    pub fn std(&self) -> [f64; 3] {
        self.std
    }

    /// Names of the classes; a label is a position in this list.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What the split was made from, in words.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Bytes of the packed file.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Reads everything and compares it with the recorded digest.
    ///
    /// Opening does not do this, as it would read the whole file.
    pub fn verify(&self) -> bool {
        let mut hasher = Hasher::new(self.shape(), &self.classes, self.rows);
        for index in 0..self.rows {
            let label = self.label(index);
            match self.images() {
                Images::Decoded(images) => hasher.push(images.image(index), label),
                Images::Encoded(images) => {
                    hasher.push_encoded(images.bytes(index), images.size(index), label);
                }
            }
        }
        hasher.finish() == self.digest
    }
}

impl<'a> Decoded<'a> {
    /// The size of every image.
    pub fn shape(&self) -> ImageShape {
        self.layout.shape
    }

    /// Bytes of one image: height * width * 3.
    #[inline]
    pub fn image_bytes(&self) -> usize {
        self.layout.shape.rgb_bytes()
    }

    /// The pixels of sample `index`: RGB, row by row, height * width * 3 bytes.
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    #[inline]
    pub fn image(&self, index: u64) -> &'a [u8] {
        let (batch, row) = self.place(index);
        let start = batch.images + row * self.image_bytes();
        &self.map[start..start + self.image_bytes()]
    }

    #[inline]
    fn place(&self, index: u64) -> (DecodedBatch, usize) {
        assert!(index < self.rows, "sample {index} of a split of {}", self.rows);
        let batch_rows = self.layout.batch_rows;
        (self.layout.batches[(index / batch_rows) as usize], (index % batch_rows) as usize)
    }
}

impl<'a> Encoded<'a> {
    /// Sample `index` as a whole JPEG or PNG file.
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    #[inline]
    pub fn bytes(&self, index: u64) -> &'a [u8] {
        let (batch, row) = self.place(index);
        let offset = |row: usize| batch.bytes + self.u32(batch.offsets, row) as usize;
        &self.map[offset(row)..offset(row + 1)]
    }

    /// The size of sample `index`, known without looking at its bytes.
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    #[inline]
    pub fn size(&self, index: u64) -> ImageShape {
        let (batch, row) = self.place(index);
        ImageShape { height: self.u32(batch.heights, row), width: self.u32(batch.widths, row) }
    }

    /// The smallest height and the smallest width, in pixels; not always of one image.
    pub fn smallest(&self) -> ImageShape {
        self.layout.smallest
    }

    /// The largest height and the largest width, in pixels; not always of one image.
    pub fn largest(&self) -> ImageShape {
        self.layout.largest
    }

    #[inline]
    fn u32(&self, start: usize, row: usize) -> u32 {
        u32::from_le_bytes(array(self.map, start + row * size_of::<u32>()))
    }

    fn place(&self, index: u64) -> (EncodedBatch, usize) {
        assert!(index < self.rows, "sample {index} of a split of {}", self.rows);
        let after = self.layout.batches.partition_point(|batch| batch.first_row <= index);
        let batch = self.layout.batches[after - 1];
        (batch, (index - batch.first_row) as usize)
    }
}

#[inline]
fn array<const N: usize>(map: &[u8], start: usize) -> [u8; N] {
    map[start..start + N].try_into().expect("the slice has that many bytes")
}

#[cfg(test)]
mod tests {
    use pba_types::SplitName;

    use super::*;

    #[test]
    fn split_names_read_back() {
        for split in SplitName::ALL {
            assert_eq!(split.to_string().parse(), Ok(split));
        }
        let error = "validation".parse::<SplitName>().unwrap_err();
        assert_eq!(error.to_string(), "\"validation\" is not a split; allowed are train, val and test");
    }

    #[test]
    fn a_split_is_cheap_to_share() {
        fn check<T: Send + Sync>() {}
        check::<Split>();
        check::<SplitState>();
    }
}
