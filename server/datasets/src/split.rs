//! One split of a dataset.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pba_schedules::Digest;

use crate::error::DatasetError;
use crate::map::Map;
use crate::pack::Hasher;

/// Which part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SplitName {
    /// What a model is fitted to.
    Train,
    /// What choices are made by.
    Val,
    /// What is reported.
    Test,
}

impl SplitName {
    /// Every split, in order.
    pub const ALL: [SplitName; 3] = [SplitName::Train, SplitName::Val, SplitName::Test];

    /// `train`, `val` or `test`.
    pub fn as_str(self) -> &'static str {
        match self {
            SplitName::Train => "train",
            SplitName::Val => "val",
            SplitName::Test => "test",
        }
    }
}

impl fmt::Display for SplitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A split name nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a split; allowed are train, val and test")]
pub struct UnknownSplit {
    text: String,
}

impl FromStr for SplitName {
    type Err = UnknownSplit;

    fn from_str(text: &str) -> Result<SplitName, UnknownSplit> {
        SplitName::ALL
            .into_iter()
            .find(|split| split.as_str() == text)
            .ok_or_else(|| UnknownSplit { text: text.to_owned() })
    }
}

/// A split that can be read, or the reason why not.
#[derive(Clone, Debug)]
pub enum SplitState {
    /// It can be read.
    Ready(Arc<Split>),
    /// It cannot, while other splits of the dataset may.
    Failed(DatasetError),
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

/// Where one record batch lies in the map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchPlace {
    /// Offset of the first image's first byte.
    pub(crate) images: usize,
    /// Offset of the first label's first byte.
    pub(crate) labels: usize,
}

/// Images and labels of one split, read from a memory-mapped packed file.
///
/// Reading a sample allocates nothing and copies no pixel. A split is made by [`packed::open`]
/// and by [`open`], and checked there once; afterwards every index below [`len`](Split::len) works.
///
/// [`packed::open`]: crate::packed::open
/// [`open`]: crate::open
#[derive(Debug)]
pub struct Split {
    pub(crate) map: Map,
    pub(crate) batches: Vec<BatchPlace>,
    /// Rows of every batch but the last, which may have fewer.
    pub(crate) batch_rows: u64,
    pub(crate) rows: u64,
    pub(crate) height: u32,
    pub(crate) width: u32,
    pub(crate) digest: Digest,
    pub(crate) mean: [f64; 3],
    pub(crate) std: [f64; 3],
    pub(crate) classes: Vec<String>,
    pub(crate) source: String,
}

impl Split {
    /// How many samples there are, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// Height and width of every image, in pixels.
    pub fn shape(&self) -> (u32, u32) {
        (self.height, self.width)
    }

    /// Bytes of one image: height * width * 3.
    pub fn image_bytes(&self) -> usize {
        self.height as usize * self.width as usize * 3
    }

    /// The pixels of sample `index`: RGB, row by row, height * width * 3 bytes.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Split::len).
    #[inline]
    pub fn image(&self, index: u64) -> &[u8] {
        let (batch, row) = self.place(index);
        let start = batch.images + row * self.image_bytes();
        &self.map[start..start + self.image_bytes()]
    }

    /// The class of sample `index`, below the number of classes.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Split::len).
    #[inline]
    pub fn label(&self, index: u64) -> i64 {
        let (batch, row) = self.place(index);
        let start = batch.labels + row * size_of::<i64>();
        let bytes = &self.map[start..start + size_of::<i64>()];
        i64::from_le_bytes(bytes.try_into().expect("the slice has eight bytes"))
    }

    #[inline]
    fn place(&self, index: u64) -> (BatchPlace, usize) {
        assert!(index < self.rows, "sample {index} of a split of {}", self.rows);
        (self.batches[(index / self.batch_rows) as usize], (index % self.batch_rows) as usize)
    }

    /// SHA-256 over shape, classes, number of rows, and every pixel and label.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Mean of red, green and blue over all pixels, as fractions of 255.
    pub fn mean(&self) -> [f64; 3] {
        self.mean
    }

    /// Standard deviation of red, green and blue over all pixels, as fractions of 255.
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
        (0..self.rows).for_each(|index| hasher.push(self.image(index), self.label(index)));
        hasher.finish() == self.digest
    }
}

#[cfg(test)]
mod tests {
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
