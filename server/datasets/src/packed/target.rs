//! Where imported images go: into a packed file, as pixels when all share one size, else encoded.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;

use pba_types::{ImageShape, SplitName};

use crate::decode::image::{self, Image, ImageError};
use crate::error::DatasetError;
use crate::packed::spec::PackSpec;
use crate::packed::write::{Measured, Packer};
use crate::parallel::in_parallel;

/// Decoded pixels held at a time, about.
const DECODED_BYTES: usize = 64 << 20;

/// How far an import is. The count of rows begins again when the images of a split turn out to differ in
/// size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The split being imported.
    pub split: SplitName,
    /// Its rows that are done.
    pub rows_done: u64,
    /// Its rows in all.
    pub rows_total: u64,
}

/// Packs a split, whose rows `feed` gives to the target, all and in order.
///
/// `feed` is called once when all images share one size. At the first image of another size it is
/// stopped, and called again for images of different sizes. Photographs differ early, so that
/// costs next to nothing; finding out all sizes beforehand would read every dataset twice.
///
/// `progress` is told before the first row and after every few; its [`ControlFlow::Break`] cancels.
///
/// # Errors
/// What `feed` fails with, a label that names no class, a file that cannot be written; when all images
/// have been tried, the first that does not decode; and [`DatasetError::Cancelled`].
pub(crate) fn pack(
    to: &Path,
    split: SplitName,
    spec: &PackSpec,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
    feed: &dyn Fn(&mut Target<'_>) -> Result<(), Stop>,
) -> Result<(), DatasetError> {
    spec.check()?;
    let attempt = |is_encoded| -> Result<(), Stop> {
        let (size, packer, bad, first_bad) = (None, None, 0, None);
        let mut target =
            Target { to, split, spec, progress, rows_done: 0, is_encoded, size, packer, bad, first_bad };
        target.done(0)?;
        feed(&mut target)?;
        Ok(target.finish()?)
    };
    let packed = match attempt(false) {
        Err(Stop::OtherSize) => attempt(true),
        packed => packed,
    };
    packed.map_err(|stop| match stop {
        Stop::Failed(error) => error,
        Stop::OtherSize => unreachable!("encoded images may be of any size"),
    })
}

/// Why a split is not read on.
pub(crate) enum Stop {
    /// An image of another size than those before.
    OtherSize,
    /// An error that ends the import.
    Failed(DatasetError),
}

impl From<DatasetError> for Stop {
    fn from(error: DatasetError) -> Stop {
        Stop::Failed(error)
    }
}

/// An encoded image, or the reason why there is none.
pub(crate) type Cell<'a> = Result<&'a [u8], String>;

/// A packed file being written, until the first bad image; then bad images are only counted.
pub(crate) struct Target<'a> {
    to: &'a Path,
    split: SplitName,
    spec: &'a PackSpec,
    progress: &'a dyn Fn(Progress) -> ControlFlow<()>,
    rows_done: u64,
    is_encoded: bool,
    /// The size of the first image.
    size: Option<ImageShape>,
    packer: Option<Packer>,
    bad: u64,
    /// Where the first bad image is, and what is wrong with it.
    first_bad: Option<(String, String)>,
}

impl Target<'_> {
    /// Takes the next encoded images with their labels; `place` says where each comes from.
    pub(crate) fn add(
        &mut self,
        cells: &[Cell<'_>],
        labels: &[i64],
        place: impl Fn(usize) -> String,
    ) -> Result<(), Stop> {
        assert_eq!(cells.len(), labels.len(), "a label for each image");
        self.expect(labels.len())?;
        let (is_encoded, mut start) = (self.is_encoded, 0);
        while start < cells.len() {
            let count = match self.size {
                // Every thread holds the pixels of one image at a time.
                _ if is_encoded => cells.len(),
                Some(size) => (DECODED_BYTES / size.rgb_bytes()).max(1),
                // The first image alone says how large they are, and so how many fit in memory.
                None => 1,
            };
            let now = &cells[start..cells.len().min(start + count)];
            let expected = self.size.filter(|_| !is_encoded);
            let images = in_parallel(now.len(), |i| {
                let bytes = now[i].clone().map_err(Some)?;
                let Image { shape, pixels } =
                    image::decode_reduced(bytes, expected, 1).map_err(|error| match error {
                        ImageError::OtherSize { .. } => None,
                        error => Some(error.to_string()),
                    })?;
                let measured = Measured::of(shape, &pixels);
                Ok((if is_encoded { Cow::Borrowed(bytes) } else { Cow::Owned(pixels) }, measured))
            });
            for (row, image) in (start..).zip(images) {
                match image {
                    Ok((image, measured)) => self.push(&image, &measured, labels[row])?,
                    Err(None) => return Err(Stop::OtherSize),
                    Err(Some(reason)) => {
                        self.bad += 1;
                        self.first_bad.get_or_insert_with(|| (place(row), reason));
                        // What was written is of no use any more.
                        self.packer = None;
                    }
                }
            }
            start += now.len();
        }
        self.done(labels.len())
    }

    /// Takes the next images of a size, as pixels one after another, with their labels. All images of
    /// the split must then be of that size.
    pub(crate) fn add_pixels(
        &mut self,
        shape: ImageShape,
        pixels: &[u8],
        labels: &[i64],
    ) -> Result<(), Stop> {
        assert_eq!(pixels.len(), labels.len() * shape.rgb_bytes(), "pixels of as many images as labels");
        self.expect(labels.len())?;
        for (pixels, &label) in pixels.chunks_exact(shape.rgb_bytes()).zip(labels) {
            self.push(pixels, &Measured::of(shape, pixels), label)?;
        }
        self.done(labels.len())
    }

    /// Checks that there may be so many more rows.
    fn expect(&self, rows: usize) -> Result<(), DatasetError> {
        if self.rows_done + rows as u64 <= self.spec.rows { Ok(()) } else { Err(self.changed()) }
    }

    /// The error of a source that is not what it was when its reading began.
    pub(crate) fn changed(&self) -> DatasetError {
        DatasetError::unreadable(&self.spec.source, "it changed while it was being read")
    }

    /// Counts rows that were taken, and asks whether to go on.
    fn done(&mut self, rows: usize) -> Result<(), Stop> {
        self.rows_done += rows as u64;
        let (rows_done, rows_total) = (self.rows_done, self.spec.rows);
        match (self.progress)(Progress { split: self.split, rows_done, rows_total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(DatasetError::Cancelled.into()),
        }
    }

    fn push(&mut self, image: &[u8], measured: &Measured, label: i64) -> Result<(), DatasetError> {
        let size = *self.size.get_or_insert(measured.size);
        if self.bad > 0 {
            return Ok(());
        }
        let packer = match &mut self.packer {
            Some(packer) => packer,
            empty => {
                let shape = Some(size).filter(|_| !self.is_encoded);
                empty.insert(Packer::create(self.to, shape, self.spec.clone())?)
            }
        };
        packer.push(image, measured, label)
    }

    fn finish(self) -> Result<(), DatasetError> {
        if self.rows_done < self.spec.rows {
            return Err(self.changed());
        }
        let Some((place, reason)) = self.first_bad else {
            return self.packer.map_or(Ok(()), Packer::finish);
        };
        let count = match self.bad {
            1 => String::new(),
            bad => format!(" (the first of {bad} bad images among {})", self.spec.rows),
        };
        Err(DatasetError::unreadable(place, reason + &count))
    }
}
