//! One split of a dataset.

mod damage;

use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pba_files::FileState;
use pba_types::{Digest, ImageShape};

use crate::error::DatasetError;
use crate::packed::checks::{Checks, Part};
use crate::packed::hash::{Hasher, checksum};
use crate::packed::map::Mapping;
use crate::packed::spec::BLOCK_BYTES;

/// Rows that are hashed before the next question whether to go on.
const DIGEST_STEP_ROWS: u64 = 1024;

/// A split that can be read, or why it cannot, while other splits of the dataset may.
pub type SplitState = Result<Arc<Split>, DatasetError>;

/// Images and labels of one split, read from a memory-mapped packed file.
///
/// Reading a sample allocates nothing and copies nothing. A split is made by [`packed::open`]
/// and by [`open`], and its layout is checked there once; afterwards every index below [`len`](Split::len)
/// works. Samples are read with [`read`](Split::read), which compares them with their checksums, and in no other
/// way.
///
/// [`packed::open`]: crate::packed::open
/// [`open`]: crate::open
#[derive(Debug)]
pub struct Split {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) map: Mapping,
    pub(crate) checks: Checks,
    /// Of the blocks of pixels, by their position in the file.
    pub(crate) block_sums: Vec<u64>,
    pub(crate) head: Head,
    /// Rows of every batch of pixels but the last, which may have fewer.
    pub(crate) batch_rows: u64,
    pub(crate) batches: Vec<Batch>,
    /// Smallest height and width of encoded images.
    pub(crate) smallest: ImageShape,
    /// Their largest height and width.
    pub(crate) largest: ImageShape,
    /// Samples of each class.
    pub(crate) class_counts: Vec<u64>,
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
    /// Whether its content has checksums, as all has but what earlier versions packed.
    pub(crate) has_checksums: bool,
    /// Which file of a cache it is ([`place`](crate::packed::spec::place)); none of what earlier versions packed.
    pub(crate) place: Option<String>,
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
    /// Their checksums.
    pub(crate) sums: usize,
    pub(crate) rows: usize,
    /// Of all images.
    pub(crate) image_bytes: usize,
    /// Position in the file of the first block of pixels; of encoded images, each is one.
    pub(crate) first_block: usize,
    /// The checksum of the columns beside the images.
    pub(crate) columns_sum: u64,
}

impl Batch {
    /// The columns beside the images, as their checksum covers them; beside pixels there are only labels.
    pub(crate) fn columns<'a>(&self, file: &'a [u8], shape: Option<ImageShape>) -> [&'a [u8]; 5] {
        let n = self.rows;
        let column = |start: usize, bytes: usize| &file[start..][..bytes];
        let labels = column(self.labels, 8 * n);
        match shape {
            Some(_) => [labels, &[], &[], &[], &[]],
            None => [
                labels,
                column(self.offsets, 4 * (n + 1)),
                column(self.heights, 4 * n),
                column(self.widths, 4 * n),
                column(self.sums, 8 * n),
            ],
        }
    }

    /// How many blocks its images are.
    pub(crate) fn blocks(&self, shape: Option<ImageShape>) -> usize {
        if shape.is_some() { self.image_bytes.div_ceil(BLOCK_BYTES) } else { self.rows }
    }
}

/// How often samples are read while their file changes, before they are given up.
const ATTEMPTS: usize = 8;
/// Rows of a record batch of encoded images up to which the columns beside them are compared each time: 64 KiB
/// are hashed in some 6 us, and images are then so long that decoding one takes ten times that.
const SHORT_ROWS_MAX: usize = 2340;

/// Samples of a split while they are read ([`Split::read`]).
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    split: &'a Split,
    found: Found,
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
pub struct Encoded<'a>(Samples<'a>);

impl Split {
    /// How many samples there are, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.head.rows
    }

    /// The size of the images, if all share one; then they are stored as pixels.
    pub fn shape(&self) -> Option<ImageShape> {
        self.head.shape
    }

    /// The smallest height and the smallest width, in pixels, which need not be of one image; then the largest.
    pub fn sizes(&self) -> [ImageShape; 2] {
        self.head.shape.map_or([self.smallest, self.largest], |shape| [shape; 2])
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

    /// Reads some samples: what `read` reads of them is what was packed, or else the answer is an error. While
    /// the file is being written to, `read` is called again.
    ///
    /// What is compared with its checksum each time is an encoded image ([`Encoded::bytes`]), and size and label
    /// of one in a record batch of few rows, as those of photographs are. Of more rows, they are compared as pixels are.
    /// Pixels, of which a block of 256 KiB has one checksum, and their labels are compared when
    /// they are first touched, and again when the file's length or times have changed. Damage
    /// that changes none of these, by a program that has mapped the file, or by a disk that gives a page back
    /// otherwise than it took it, is found when everything is compared from time to time:
    /// [`scrub`](Split::scrub) in a server, whose passes bound how long it may be served, and
    /// [`check_again`](Split::check_again) in a trainer, after each epoch.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`], with the record batch and its rows; [`DatasetError::Changing`].
    ///
    /// # Panics
    /// When an index is not below [`len`](Split::len).
    pub fn read<T>(
        &self,
        indices: impl IntoIterator<Item = u64> + Clone,
        mut read: impl FnMut(Samples<'_>) -> T,
    ) -> Result<T, DatasetError> {
        for _ in 0..ATTEMPTS {
            let found = self.settle()?;
            self.check(found, indices.clone())?;
            let value = read(Samples { split: self, found });
            if self.look()? == found.stamp {
                return Ok(value);
            }
        }
        Err(DatasetError::Changing { file: self.path.clone() })
    }

    /// Samples of each class, by label, as they were when the file was opened.
    pub fn class_counts(&self) -> &[u64] {
        &self.class_counts
    }

    /// The class of each sample, by its index.
    ///
    /// # Errors
    /// As those of [`read`](Split::read).
    pub fn labels(&self) -> Result<Vec<i64>, DatasetError> {
        let firsts = self.batches.iter().map(|batch| batch.first_row);
        self.read(firsts, |samples| (0..self.len()).map(|index| samples.label(index)).collect())
    }

    /// Compares what some samples are read from with its checksums, but for encoded images.
    fn check(&self, found: Found, indices: impl IntoIterator<Item = u64>) -> Result<(), DatasetError> {
        match self.head.shape {
            Some(_) if self.checks.is_complete() => {}
            Some(_) => {
                for index in indices {
                    let position = self.position(index);
                    self.compare(found, position, Part::Columns(position))?;
                    for block in self.blocks_of(position, index) {
                        self.compare(found, position, Part::Block(block))?;
                    }
                }
            }
            None => {
                for position in indices.into_iter().map(|index| self.position(index)) {
                    let columns = Part::Columns(position);
                    match self.batches[position].rows {
                        ..=SHORT_ROWS_MAX => self.compare_anew(found, position, columns)?,
                        _ => self.compare(found, position, columns)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// The packed file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state of the file, which has its length, and of which all could be read.
    fn look(&self) -> Result<FileState, DatasetError> {
        let stamp = FileState::of_open(&self.file).map_err(DatasetError::io(&self.path, "look at it"))?;
        let bytes = self.map.len() as u64;
        let reason = match self.map.is_faulted() {
            _ if stamp.bytes != bytes => format!("it has {} bytes; expected {bytes}", stamp.bytes),
            true => "a part of it could not be read; it must be opened again".to_owned(),
            false => return Ok(stamp),
        };
        self.checks.note_loss(&reason);
        Err(self.lost(reason))
    }

    /// The error of a file of which nothing can be served.
    fn lost(&self, reason: String) -> DatasetError {
        DatasetError::Damaged { file: self.path.clone(), batch: None, rows: 0..self.head.rows, reason }
    }

    /// The same, and forgets what was compared if the file has changed since.
    fn settle(&self) -> Result<Found, DatasetError> {
        let stamp = self.look()?;
        Ok(Found { stamp, cleared: self.checks.settle(stamp) })
    }

    /// Compares a part of a record batch with its checksum, unless that was done.
    #[inline]
    fn compare(&self, found: Found, position: usize, part: Part) -> Result<(), DatasetError> {
        if self.checks.has(part) { Ok(()) } else { self.compare_anew(found, position, part) }
    }

    #[inline(never)]
    fn compare_anew(&self, found: Found, position: usize, part: Part) -> Result<(), DatasetError> {
        let batch = &self.batches[position];
        let (sum, expected) = match part {
            Part::Columns(_) => (checksum(&batch.columns(&self.map, self.head.shape)), batch.columns_sum),
            Part::Block(block) => {
                (checksum(&[&self.map[self.block(batch, block)]]), self.block_sum(batch, block))
            }
        };
        match differs(sum, expected) {
            Ok(()) => {
                self.checks.note(found.cleared, part);
                Ok(())
            }
            Err(reason) => {
                // Zeros that took the place of a page are no finding about the record batch alone.
                self.look()?;
                Err(self.note_damage(found, position, part, reason))
            }
        }
    }

    fn note_damage(&self, found: Found, position: usize, part: Part, reason: String) -> DatasetError {
        let error = self.damaged(position, part, &reason);
        self.checks.note_damage(found.stamp, position, part, reason);
        error
    }

    fn damaged(&self, position: usize, part: Part, reason: &str) -> DatasetError {
        let batch = &self.batches[position];
        let rows = match (part, self.head.shape) {
            (Part::Columns(_), _) => 0..batch.rows as u64,
            (Part::Block(block), None) => {
                let row = (block - batch.first_block) as u64;
                row..row + 1
            }
            (Part::Block(block), Some(shape)) => {
                let bytes = self.block(batch, block);
                let [start, end] = [bytes.start, bytes.end].map(|place| (place - batch.images) as u64);
                let image = shape.rgb_bytes() as u64;
                start / image..end.div_ceil(image)
            }
        };
        DatasetError::Damaged {
            file: self.path.clone(),
            batch: Some(position),
            rows: batch.first_row + rows.start..batch.first_row + rows.end,
            reason: reason.to_owned(),
        }
    }

    /// The blocks of a record batch.
    fn blocks(&self, batch: &Batch) -> Range<usize> {
        batch.first_block..batch.first_block + batch.blocks(self.head.shape)
    }

    /// Where a block of a record batch lies in the file.
    fn block(&self, batch: &Batch, block: usize) -> Range<usize> {
        let number = block - batch.first_block;
        let (start, end) = match self.head.shape {
            Some(_) => (number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES),
            None => {
                let [start, end] = [number, number + 1];
                let offset = |row| u32::from_le_bytes(self.array(batch.offsets, row)) as usize;
                (offset(start), offset(end))
            }
        };
        // Damaged offsets are found before, by the checksum of their column; this is in the file all the same.
        let end = end.min(batch.image_bytes);
        batch.images + start.min(end)..batch.images + end
    }

    /// The checksum that a block of a record batch should have.
    fn block_sum(&self, batch: &Batch, block: usize) -> u64 {
        match self.head.shape {
            Some(_) => self.block_sums[block],
            None => u64::from_le_bytes(self.array(batch.sums, block - batch.first_block)),
        }
    }

    /// The blocks that the image of a sample lies in.
    #[inline]
    fn blocks_of(&self, position: usize, index: u64) -> Range<usize> {
        let batch = &self.batches[position];
        let row = (index - batch.first_row) as usize;
        let (start, end) = match self.head.shape {
            Some(shape) => {
                let bytes = shape.rgb_bytes();
                (row * bytes / BLOCK_BYTES, ((row + 1) * bytes).div_ceil(BLOCK_BYTES))
            }
            None => (row, row + 1),
        };
        batch.first_block + start..batch.first_block + end
    }

    /// Reads everything and compares it with the recorded digest.
    ///
    /// Opening does not do this, as it would read the whole file.
    pub fn verify(&self) -> bool {
        self.check_digest(&|_| ControlFlow::Continue(())).is_ok()
    }

    /// The same, as a refusal. `go_on` is asked after some rows, with their number so far.
    ///
    /// # Errors
    /// When the digest is another one, and [`DatasetError::Cancelled`].
    pub(crate) fn check_digest(&self, go_on: &dyn Fn(u64) -> ControlFlow<()>) -> Result<(), DatasetError> {
        let mut hasher = Hasher::new(self.head.shape, &self.head.classes, self.head.rows);
        for index in 0..self.head.rows {
            let label = self.label(index);
            match self.head.shape {
                Some(_) => hasher.push(self.stored(index), label),
                None => hasher.push_encoded(self.stored(index), self.size(index), label),
            }
            if (index + 1).is_multiple_of(DIGEST_STEP_ROWS) && go_on(index + 1).is_break() {
                return Err(DatasetError::Cancelled);
            }
        }
        let (found, says) = (hasher.finish(), self.head.digest);
        if found == says {
            return Ok(());
        }
        let reason = format!("damaged: its digest is {found}, and it says {says}");
        Err(DatasetError::unreadable(self.path.display(), reason))
    }

    /// The record batch of a sample, and its row in it.
    #[inline]
    fn place(&self, index: u64) -> (&Batch, usize) {
        let batch = &self.batches[self.position(index)];
        (batch, (index - batch.first_row) as usize)
    }

    /// The position of a sample's record batch.
    #[inline]
    fn position(&self, index: u64) -> usize {
        assert!(index < self.head.rows, "sample {index} of a split of {}", self.head.rows);
        match self.head.shape {
            Some(_) => (index / self.batch_rows) as usize,
            None => self.batches.partition_point(|batch| batch.first_row <= index) - 1,
        }
    }

    #[inline]
    pub(crate) fn label(&self, index: u64) -> i64 {
        let (batch, row) = self.place(index);
        i64::from_le_bytes(self.array(batch.labels, row))
    }

    #[inline]
    pub(crate) fn size(&self, index: u64) -> ImageShape {
        let (batch, row) = self.place(index);
        let side = |column| u32::from_le_bytes(self.array(column, row));
        self.head
            .shape
            .unwrap_or_else(|| ImageShape { height: side(batch.heights), width: side(batch.widths) })
    }

    /// The pixels of an image, or the encoded image.
    #[inline]
    pub(crate) fn stored(&self, index: u64) -> &[u8] {
        let (batch, row) = self.place(index);
        match self.head.shape {
            Some(shape) => &self.map[batch.images + row * shape.rgb_bytes()..][..shape.rgb_bytes()],
            None => &self.map[self.block(batch, batch.first_block + row)],
        }
    }

    /// The bytes of a value in a column that begins at `start`.
    #[inline]
    fn array<const N: usize>(&self, start: usize, row: usize) -> [u8; N] {
        self.map[start + row * N..][..N].try_into().expect("the slice has that many bytes")
    }
}

/// The state of a file, and how often what was compared had been forgotten then.
#[derive(Clone, Copy, Debug)]
struct Found {
    stamp: FileState,
    cleared: u64,
}

/// How a checksum differs from what it should be, if it does.
fn differs(found: u64, expected: u64) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("its checksum is {found:016x}; expected {expected:016x}")),
    }
}

impl<'a> Samples<'a> {
    /// The images, as they are stored.
    #[inline]
    pub fn images(&self) -> Images<'a> {
        match self.split.head.shape {
            Some(shape) => Images::Decoded(Decoded { split: self.split, shape }),
            None => Images::Encoded(Encoded(*self)),
        }
    }

    /// The images as pixels, if that is how they are stored.
    pub fn decoded(&self) -> Option<Decoded<'a>> {
        match self.images() {
            Images::Decoded(images) => Some(images),
            Images::Encoded(_) => None,
        }
    }

    /// The class of sample `index`, one of those that are read; below the number of classes.
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    #[inline]
    pub fn label(&self, index: u64) -> i64 {
        self.split.label(index)
    }
}

impl<'a> Decoded<'a> {
    /// The size of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The pixels of sample `index`, one of those that are read: RGB, row by row, height * width * 3 bytes.
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
    /// Sample `index` as a whole JPEG or PNG file, which is compared with its checksum: that costs a hundredth of
    /// decoding it.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`].
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    pub fn bytes(&self, index: u64) -> Result<&'a [u8], DatasetError> {
        let Samples { split, found } = self.0;
        let position = split.position(index);
        split
            .blocks_of(position, index)
            .try_for_each(|block| split.compare_anew(found, position, Part::Block(block)))?;
        Ok(split.stored(index))
    }

    /// The size of sample `index`, one of those that are read; known without looking at its bytes.
    ///
    /// # Panics
    /// When `index` is not below the split's [`len`](Split::len).
    #[inline]
    pub fn size(&self, index: u64) -> ImageShape {
        self.0.split.size(index)
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
