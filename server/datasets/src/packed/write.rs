//! Writing the packed format. A file appears at its destination when it is complete.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, DirEntry, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, BinaryBuilder, Int64Builder, UInt32Builder, UInt64Builder};
use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, UInt8Array};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Schema};
use pba_files::Replacement;
use pba_types::{Digest, ImageShape};
use rustix::fs::{FlockOperation, flock};

use crate::decode::image::{ENCODED_BYTES_MAX, IMAGE_SIDE_MAX, are_sides_allowed};
use crate::error::DatasetError;
use crate::packed::hash::{Hasher, checksum};
use crate::packed::moments::Moments;
use crate::packed::read;
use crate::packed::spec::{
    self, BATCH_BYTES, BLOCK_BYTES, FORMAT, FORMAT_ENCODED, HOLE_CHECKSUM, KEY_CHECKSUM, KEY_CHECKSUMS,
    KEY_PLACE, PackSpec,
};

/// How the names of unfinished files begin.
const PARTIAL_PREFIX: &str = ".packing-";

/// Begins a packed file that will appear at `destination`. It is locked until it is there or given up, which tells it
/// from one that a killed process left ([`remove_partials`]).
pub(crate) fn begin(destination: &Path) -> io::Result<Replacement> {
    loop {
        let replacement = Replacement::begin(destination, PARTIAL_PREFIX)?;
        // On a file system without locks nothing is removed, either.
        let _ = flock(replacement.file(), FlockOperation::LockExclusive);
        if replacement.file().metadata()?.nlink() > 0 {
            return Ok(replacement);
        }
        // It was taken for one that was left, before it was locked.
    }
}

/// Removes the unfinished files that killed processes left in the folders of `cache_dir`: those that no process holds
/// locked. Returns how many.
///
/// Files that cannot be listed or removed stay, and take disk space only.
pub fn remove_partials(cache_dir: &Path) -> usize {
    let is_partial = |file: &DirEntry| file.file_name().to_string_lossy().starts_with(PARTIAL_PREFIX);
    let is_removed = |file: &DirEntry| locked(&file.path()).is_some() && fs::remove_file(file.path()).is_ok();
    let folders = entries(cache_dir).map(|folder| folder.path());
    folders.flat_map(|folder| entries(&folder)).filter(|file| is_partial(file) && is_removed(file)).count()
}

/// Removes the folders of `cache_dir` that an earlier version packed, whose files this one does not open. Returns how
/// many.
///
/// A folder stays when it lies in one of `sources`, when a process has one of its files open and locked, as all do since
/// this version, or when it holds anything else. Servers of an earlier version lock nothing, and go on with what they
/// have mapped.
pub fn remove_earlier_versions(cache_dir: &Path, sources: &[PathBuf]) -> usize {
    let sources: Vec<PathBuf> = sources.iter().filter_map(|source| source.canonicalize().ok()).collect();
    let is_source = |folder: &Path| {
        let folder = folder.canonicalize();
        folder.map_or(true, |folder| sources.iter().any(|source| source.starts_with(&folder)))
    };
    let is_removed = |folder: &Path| {
        let files: Vec<PathBuf> = entries(folder).map(|file| file.path()).collect();
        let locks: Option<Vec<File>> = files.iter().map(|file| locked(file)).collect();
        let is_earlier = locks
            .as_ref()
            .is_some_and(|files| !files.is_empty() && files.iter().all(read::is_of_earlier_version));
        is_earlier && files.iter().all(|file| fs::remove_file(file).is_ok()) && fs::remove_dir(folder).is_ok()
    };
    // Folders of other names are their owner's.
    let is_key = |folder: &DirEntry| folder.file_name().to_string_lossy().parse::<Digest>().is_ok();
    let folders = entries(cache_dir).filter(is_key).map(|folder| folder.path());
    folders.filter(|folder| !is_source(folder) && is_removed(folder)).count()
}

fn entries(folder: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

/// A file that no other process has locked, locked.
fn locked(path: &Path) -> Option<File> {
    let file = pba_files::open(path).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// What a packed file says of an image, which takes its pixels to know.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub(crate) size: ImageShape,
    moments: Moments,
}

impl Measured {
    /// Measures the pixels of an image.
    ///
    /// # Panics
    /// When they are not height * width * 3 bytes.
    pub fn of(size: ImageShape, pixels: &[u8]) -> Measured {
        assert_eq!(pixels.len(), size.rgb_bytes(), "bytes of an image");
        let mut moments = Moments::default();
        moments.push(pixels);
        Measured { size, moments }
    }
}

/// Writes one packed split, row by row, holding one record batch in memory. Dropping it leaves nothing
/// behind.
pub struct Packer {
    spec: PackSpec,
    /// The size of all images; none when they are encoded.
    shape: Option<ImageShape>,
    destination: PathBuf,
    replacement: Replacement,
    writer: FileWriter<BufWriter<File>>,
    head_bytes: u64,
    rows: u64,
    hasher: Hasher,
    moments: Moments,
    /// Checksums of the record batches so far, as the footer holds them.
    checksums: String,
    // The record batch that is being filled.
    images: BinaryBuilder,
    labels: Int64Builder,
    heights: UInt32Builder,
    widths: UInt32Builder,
    /// Of encoded images.
    sums: UInt64Builder,
}

impl Packer {
    /// Starts a packed file that will appear at `destination`: of images of one size, as pixels, or,
    /// without a `shape`, of JPEG and PNG images of different sizes.
    ///
    /// # Errors
    /// When `shape` or `spec` is out of bounds, or the file cannot be made.
    pub fn create(
        destination: &Path,
        shape: Option<ImageShape>,
        spec: PackSpec,
    ) -> Result<Packer, DatasetError> {
        if let Some(shape @ ImageShape { height, width }) = shape
            && !are_sides_allowed(shape)
        {
            let allowed = format!("sides of 1..={IMAGE_SIDE_MAX} pixels");
            return Err(DatasetError::Pack { what: format!("images of {height}x{width}"), allowed });
        }
        spec.check()?;
        let folder = destination.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(DatasetError::io(folder, "create the folder"))?;
        let create = DatasetError::io(destination, "create it");
        let replacement = begin(destination).map_err(&create)?;
        let file = BufWriter::with_capacity(1 << 20, replacement.file().try_clone().map_err(&create)?);
        let mut writer =
            FileWriter::try_new(file, &schema(shape, &spec)).map_err(write_error(destination))?;
        let head_bytes =
            writer.get_mut().stream_position().map_err(DatasetError::io(destination, "write"))?;
        Ok(Packer {
            hasher: Hasher::new(shape, &spec.classes, spec.rows),
            spec,
            shape,
            destination: destination.to_owned(),
            replacement,
            writer,
            head_bytes,
            rows: 0,
            moments: Moments::default(),
            checksums: String::new(),
            images: BinaryBuilder::new(),
            labels: Int64Builder::new(),
            heights: UInt32Builder::new(),
            widths: UInt32Builder::new(),
            sums: UInt64Builder::new(),
        })
    }

    /// Appends a row: the pixels (RGB, row by row) or the JPEG or PNG file, what was measured of the
    /// image, and the label.
    ///
    /// # Errors
    /// When the label names no class, or the file cannot be written.
    ///
    /// # Panics
    /// When pixels are not of the size of all images, an encoded image is longer than
    /// [`ENCODED_BYTES_MAX`], or there are more rows than `spec` said.
    pub fn push(&mut self, image: &[u8], measured: &Measured, label: i64) -> Result<(), DatasetError> {
        let size = measured.size;
        self.moments.add(&measured.moments);
        self.spec.check_row(self.rows, label)?;
        match self.shape {
            Some(shape) => {
                assert!(size == shape && image.len() == shape.rgb_bytes(), "the pixels of an image");
                self.hasher.push(image, label);
            }
            None => {
                assert!(image.len() <= ENCODED_BYTES_MAX, "{} bytes of an encoded image", image.len());
                self.hasher.push_encoded(image, size, label);
            }
        }
        // A batch is closed long before its offsets, of 32 bits, end at 2 GiB.
        self.images.append_value(image);
        self.labels.append_value(label);
        self.heights.append_value(size.height);
        self.widths.append_value(size.width);
        if self.shape.is_none() {
            self.sums.append_value(checksum(&[image]));
        }
        self.rows += 1;
        let bytes = self.images.values_slice().len();
        // A batch of pixels has no room for another image; one of encoded images is closed after the last.
        let is_full = match self.shape {
            Some(shape) => bytes + shape.rgb_bytes() > BATCH_BYTES,
            None => bytes >= BATCH_BYTES,
        };
        if is_full { self.write_batch() } else { Ok(()) }
    }

    fn write_batch(&mut self) -> Result<(), DatasetError> {
        let (images, labels) = (self.images.finish(), Arc::new(self.labels.finish()));
        let (heights, widths) = (self.heights.finish(), self.widths.finish());
        let sums = self.sums.finish();
        // From what lies in memory, so that they cover the way to the disk.
        let mut columns = vec![&labels.values().inner()[..]];
        if self.shape.is_none() {
            columns.push(images.offsets().inner().inner());
            columns.extend(
                [heights.values().inner(), widths.values().inner(), sums.values().inner()].map(|c| &c[..]),
            );
        }
        // A text can be written to.
        let _ = write!(self.checksums, "{:016x}", checksum(&columns));
        if self.shape.is_some() {
            for block in images.value_data().chunks(BLOCK_BYTES) {
                let _ = write!(self.checksums, "{:016x}", checksum(&[block]));
            }
        }
        let schema = self.writer.schema().clone();
        let columns: Vec<ArrayRef> = match schema.field(0).data_type() {
            DataType::FixedSizeList(item, length) => {
                let (_, pixels, _) = images.into_parts();
                let pixels = Arc::new(UInt8Array::new(pixels.into(), None));
                vec![Arc::new(FixedSizeListArray::new(item.clone(), *length, pixels, None)), labels]
            }
            _ => vec![Arc::new(images), labels, Arc::new(heights), Arc::new(widths), Arc::new(sums)],
        };
        RecordBatch::try_new(schema.clone(), columns)
            .and_then(|batch| self.writer.write(&batch))
            .map_err(write_error(&self.destination))
    }

    /// Writes what is left, and puts the file in its place.
    ///
    /// # Errors
    /// When the file cannot be written, synced or renamed.
    ///
    /// # Panics
    /// When there were fewer rows than `spec` said.
    pub fn finish(mut self) -> Result<(), DatasetError> {
        let (mean, std) = self.moments.mean_and_std();
        assert_eq!(self.rows, self.spec.rows, "rows pushed");
        if !self.labels.is_empty() {
            self.write_batch()?;
        }
        let io = DatasetError::io(&self.destination, "write");
        self.writer.write_metadata(KEY_CHECKSUMS, self.checksums);
        self.writer.write_metadata(KEY_CHECKSUM, HOLE_CHECKSUM);
        self.writer.write_metadata(KEY_PLACE, spec::place(&self.destination));
        let buffered = self.writer.into_inner().map_err(write_error(&self.destination))?;
        let mut file = buffered.into_inner().map_err(|error| io(error.into_error()))?;
        let values = [
            (HOLE_DIGEST, self.hasher.finish().to_string()),
            (HOLE_MEAN, channels(mean)),
            (HOLE_STD, channels(std)),
        ];
        fill_holes(&mut file, self.head_bytes, &values).map_err(&io)?;
        self.replacement.commit().map_err(&io)
    }
}

fn write_error(file: &Path) -> impl Fn(ArrowError) -> DatasetError + '_ {
    move |error| match error {
        ArrowError::IoError(_, error) => DatasetError::io(file, "write")(error),
        error => DatasetError::io(file, "write")(std::io::Error::other(error)),
    }
}

fn schema(shape: Option<ImageShape>, of: &PackSpec) -> Schema {
    let metadata = [
        (spec::KEY_FORMAT, if shape.is_some() { FORMAT } else { FORMAT_ENCODED }.to_owned()),
        (spec::KEY_DIGEST, HOLE_DIGEST.to_owned()),
        (spec::KEY_MEAN, HOLE_MEAN.to_owned()),
        (spec::KEY_STD, HOLE_STD.to_owned()),
        (spec::KEY_CLASSES, serde_json::json!(of.classes).to_string()),
        (spec::KEY_ROWS, of.rows.to_string()),
        // A control character would be mistaken for a hole.
        (spec::KEY_SOURCE, of.source.chars().filter(|c| !c.is_control()).collect()),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    Schema::new_with_metadata(spec::fields(shape), HashMap::from(metadata))
}

// Digest, mean and standard deviation are known after the last row, but Arrow writes the schema
// first, and again in the footer. So both are written with holes of the right length, which are
// filled at the end. No other text in a schema holds a control character, so a hole is found once.
const HOLE_DIGEST: &str = "\u{1}----------------------------------------------------digest\u{1}----";
const HOLE_MEAN: &str = "\u{1}---------------------------------------------------mean\u{1}----";
const HOLE_STD: &str = "\u{1}----------------------------------------------------std\u{1}----";

/// Three fractions as a JSON list of always the same length.
fn channels([red, green, blue]: [f64; 3]) -> String {
    format!("[{red:.17},{green:.17},{blue:.17}]")
}

fn fill_holes(file: &mut File, head_bytes: u64, values: &[(&str, String)]) -> std::io::Result<()> {
    let mut tail = [0; 4];
    let end = file.seek(SeekFrom::End(-10))?;
    file.read_exact(&mut tail)?;
    let footer_bytes = u64::from(u32::from_le_bytes(tail));
    let mut read = |start: u64, length: u64| {
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        for (hole, value) in values {
            fill(&mut bytes, hole, value)?;
        }
        std::io::Result::Ok(bytes)
    };
    let (head, mut footer) = (read(0, head_bytes)?, read(end - footer_bytes, footer_bytes)?);
    let sum = format!("{:016x}", checksum(&[&head, &footer]));
    fill(&mut footer, HOLE_CHECKSUM, &sum)?;
    for (start, bytes) in [(0, head), (end - footer_bytes, footer)] {
        file.seek(SeekFrom::Start(start))?;
        file.write_all(&bytes)?;
    }
    Ok(())
}

fn fill(bytes: &mut [u8], hole: &str, value: &str) -> std::io::Result<()> {
    assert_eq!(hole.len(), value.len(), "a value fills its hole");
    let place = memchr::memmem::find(bytes, hole.as_bytes());
    let place = place.ok_or_else(|| std::io::Error::other("the schema came out without its metadata"))?;
    bytes[place..place + value.len()].copy_from_slice(value.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(side: u32, spec: PackSpec, message: &str) {
        let shape = ImageShape { height: side, width: 2 };
        let error = Packer::create(Path::new("unused.arrow"), Some(shape), spec).err().unwrap();
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn descriptions_out_of_bounds_are_refused() {
        let spec = PackSpec { classes: vec!["a".into()], rows: 1, source: String::new() };
        refused(0, spec.clone(), "cannot pack images of 0x2; allowed are sides of 1..=4096 pixels");
        refused(
            2,
            PackSpec { classes: vec![], ..spec.clone() },
            "cannot pack a number of classes of 0; allowed are 1..=1000000",
        );
        refused(2, PackSpec { rows: 0, ..spec }, "cannot pack a number of rows of 0; allowed are 1 and more");
    }

    #[test]
    fn holes_have_the_length_of_what_fills_them() {
        assert_eq!(HOLE_DIGEST.len(), 64);
        assert_eq!(HOLE_CHECKSUM.len(), 16);
        for hole in [HOLE_MEAN, HOLE_STD] {
            assert_eq!(hole.len(), channels([0.0, 0.5, 1.0]).len());
        }
    }
}
