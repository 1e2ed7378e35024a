//! Writing the packed format.
//!
//! A packed split is an Arrow IPC file with the columns `image` (`arrow.fixed_shape_tensor` over
//! `FixedSizeList<uint8>`) and `label` (int64), in uncompressed record batches of equal size but
//! for the last. The schema's metadata says the rest; keys below. It is written under a temporary
//! name beside its destination, synced and renamed, so it is never half there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{FixedSizeListArray, Int64Array, RecordBatch, UInt8Array};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use pba_schedules::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::error::DatasetError;

/// Names the format and its version, in the metadata and in digests and cache keys.
pub(crate) const FORMAT: &str = "pba-packed/1";
pub(crate) const KEY_FORMAT: &str = "pba.packed";
pub(crate) const KEY_DIGEST: &str = "pba.digest";
pub(crate) const KEY_MEAN: &str = "pba.mean";
pub(crate) const KEY_STD: &str = "pba.std";
pub(crate) const KEY_CLASSES: &str = "pba.classes";
pub(crate) const KEY_ROWS: &str = "pba.rows";
pub(crate) const KEY_SOURCE: &str = "pba.source";

/// Largest side of an image, in pixels. The decoders' buffers stay below 200 MB with it.
pub const IMAGE_SIDE_MAX: u32 = 4096;
/// Labels are below this. It bounds the list of class names that every stream carries.
pub const CLASSES_MAX: usize = 1_000_000;
/// Pixels of one record batch, about: small enough to buffer, large enough that a dataset of five
/// million photographs has fewer than 50,000 batches to look at when it is opened.
const BATCH_BYTES: usize = 16 << 20;

/// What a packed split holds, known before its first row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSpec {
    /// Height of every image, in pixels.
    pub height: u32,
    /// Width of every image, in pixels.
    pub width: u32,
    /// Names of the classes; labels are positions in this list.
    pub classes: Vec<String>,
    /// How many rows will be pushed.
    pub rows: u64,
    /// What the split is made from, in words.
    pub source: String,
}

/// Writes one packed split, row by row, holding one record batch in memory.
pub struct Packer {
    destination: PathBuf,
    spec: PackSpec,
    writer: FileWriter<BufWriter<NamedTempFile>>,
    head_bytes: u64,
    schema: Arc<Schema>,
    image_bytes: usize,
    batch_rows: usize,
    pixels: Vec<u8>,
    labels: Vec<i64>,
    rows: u64,
    hasher: Hasher,
    moments: Moments,
}

impl Packer {
    /// Starts a packed file that will appear at `destination`.
    ///
    /// # Errors
    /// When `spec` is out of bounds, or the file cannot be made.
    pub fn create(destination: &Path, spec: PackSpec) -> Result<Packer, DatasetError> {
        check(&spec)?;
        let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(DatasetError::io(folder, "create the folder"))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".packing-");
        // Temporary files are private; this one is to be shared, as far as the umask allows.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(DatasetError::io(destination, "create it"))?;
        let image_bytes = spec.height as usize * spec.width as usize * 3;
        let batch_rows = (BATCH_BYTES / image_bytes).max(1);
        let schema = Arc::new(schema(&spec));
        let mut writer = FileWriter::try_new(BufWriter::with_capacity(1 << 20, file), &schema)
            .map_err(write_error(destination))?;
        writer.flush().map_err(write_error(destination))?;
        let mut file = writer.get_ref().get_ref().as_file();
        let head_bytes = file.stream_position().map_err(DatasetError::io(destination, "write"))?;
        Ok(Packer {
            destination: destination.to_owned(),
            hasher: Hasher::new((spec.height, spec.width), &spec.classes, spec.rows),
            spec,
            writer,
            head_bytes,
            schema,
            image_bytes,
            batch_rows,
            pixels: Vec::new(),
            labels: Vec::new(),
            rows: 0,
            moments: Moments::default(),
        })
    }

    /// Appends a row: the pixels (RGB, row by row) and the label.
    ///
    /// # Errors
    /// When the label names no class, or the file cannot be written.
    ///
    /// # Panics
    /// When `pixels` is not height * width * 3 bytes, or there are more rows than `spec` said.
    pub fn push(&mut self, pixels: &[u8], label: i64) -> Result<(), DatasetError> {
        assert_eq!(pixels.len(), self.image_bytes, "bytes of an image");
        assert!(self.rows < self.spec.rows, "more than {} rows", self.spec.rows);
        if usize::try_from(label).is_ok_and(|label| label < self.spec.classes.len()) {
            self.hasher.push(pixels, label);
            self.moments.push(pixels);
            if self.pixels.capacity() == 0 {
                let rows = (self.batch_rows as u64).min(self.spec.rows) as usize;
                self.pixels.reserve_exact(rows * self.image_bytes);
            }
            self.pixels.extend_from_slice(pixels);
            self.labels.push(label);
            self.rows += 1;
            if self.labels.len() == self.batch_rows { self.write_batch() } else { Ok(()) }
        } else {
            Err(DatasetError::Label {
                file: self.spec.source.clone(),
                row: self.rows,
                value: label.to_string(),
                allowed: allowed_labels(self.spec.classes.len()),
            })
        }
    }

    fn write_batch(&mut self) -> Result<(), DatasetError> {
        // The buffer is lent to Arrow, and taken back when the batch is written.
        let labels = std::mem::take(&mut self.labels);
        let values = Buffer::from_vec(std::mem::take(&mut self.pixels));
        let values = UInt8Array::new(ScalarBuffer::from(values), None);
        let DataType::FixedSizeList(item, length) = self.schema.field(0).data_type() else {
            unreachable!("schema() makes it a fixed-size list")
        };
        let images = FixedSizeListArray::new(item.clone(), *length, Arc::new(values), None);
        let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(images), Arc::new(Int64Array::from(labels))];
        let batch =
            RecordBatch::try_new(self.schema.clone(), columns).map_err(write_error(&self.destination))?;
        self.writer.write(&batch).map_err(write_error(&self.destination))
    }

    /// Writes what is left, and puts the file in its place.
    ///
    /// # Errors
    /// When the file cannot be written, synced or renamed.
    ///
    /// # Panics
    /// When there were fewer rows than `spec` said.
    pub fn finish(mut self) -> Result<(), DatasetError> {
        assert_eq!(self.rows, self.spec.rows, "rows pushed");
        if !self.labels.is_empty() {
            self.write_batch()?;
        }
        let destination = self.destination;
        let io = DatasetError::io(&destination, "write");
        self.writer.finish().map_err(write_error(&destination))?;
        let buffered = self.writer.into_inner().map_err(write_error(&destination))?;
        let mut file = buffered.into_inner().map_err(|error| io(error.into_error()))?;
        let (mean, std) = self.moments.mean_and_std();
        let values = [
            (HOLE_DIGEST, self.hasher.finish().to_string()),
            (HOLE_MEAN, channels(mean)),
            (HOLE_STD, channels(std)),
        ];
        fill_holes(file.as_file_mut(), self.head_bytes, &values).map_err(&io)?;
        file.as_file().sync_all().map_err(&io)?;
        file.persist(&destination)
            .map_err(|error| DatasetError::io(&destination, "rename the finished file")(error.error))?;
        // The rename itself is only durable once the folder is.
        if let Some(folder) = destination.parent()
            && let Ok(folder) = File::open(folder)
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

fn check(spec: &PackSpec) -> Result<(), DatasetError> {
    let refuse = |what, value: String, allowed: String| Err(DatasetError::Pack { what, value, allowed });
    if ![spec.height, spec.width].iter().all(|side| (1..=IMAGE_SIDE_MAX).contains(side)) {
        let value = format!("{}x{}", spec.height, spec.width);
        return refuse("images of", value, format!("sides of 1..={IMAGE_SIDE_MAX} pixels"));
    }
    if !(1..=CLASSES_MAX).contains(&spec.classes.len()) {
        return refuse(
            "a number of classes of",
            spec.classes.len().to_string(),
            format!("1..={CLASSES_MAX}"),
        );
    }
    if spec.rows == 0 {
        return refuse("a number of rows of", "0".into(), "1 and more".into());
    }
    Ok(())
}

/// "0..=9" and the like, for messages.
pub(crate) fn allowed_labels(classes: usize) -> String {
    format!("0..={} ({classes} classes)", classes.saturating_sub(1))
}

fn write_error(file: &Path) -> impl Fn(ArrowError) -> DatasetError + '_ {
    move |error| match error {
        ArrowError::IoError(_, error) => DatasetError::io(file, "write")(error),
        error => DatasetError::io(file, "write")(std::io::Error::other(error)),
    }
}

fn schema(spec: &PackSpec) -> Schema {
    let metadata = HashMap::from(
        [
            (KEY_FORMAT, FORMAT.to_owned()),
            (KEY_DIGEST, HOLE_DIGEST.to_owned()),
            (KEY_MEAN, HOLE_MEAN.to_owned()),
            (KEY_STD, HOLE_STD.to_owned()),
            (KEY_CLASSES, serde_json::json!(spec.classes).to_string()),
            (KEY_ROWS, spec.rows.to_string()),
            // A control character would be mistaken for a hole.
            (KEY_SOURCE, spec.source.chars().filter(|c| !c.is_control()).collect()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    Schema::new_with_metadata(fields(spec.height, spec.width), metadata)
}

/// The two columns of a packed file of images of this size.
pub(crate) fn fields(height: u32, width: u32) -> Vec<Field> {
    let item = Arc::new(Field::new("item", DataType::UInt8, false));
    let bytes = height * width * 3; // at most 4096 * 4096 * 3, which fits an i32 too
    let tensor = format!(r#"{{"shape":[{height},{width},3],"dim_names":["H","W","C"]}}"#);
    let image = Field::new("image", DataType::FixedSizeList(item, bytes as i32), false).with_metadata(
        HashMap::from([
            ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned()),
            ("ARROW:extension:metadata".to_owned(), tensor),
        ]),
    );
    vec![image, Field::new("label", DataType::Int64, false)]
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
    for (start, length) in [(0, head_bytes), (end - footer_bytes, footer_bytes)] {
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        for (hole, value) in values {
            assert_eq!(hole.len(), value.len(), "a value fills its hole");
            let place = bytes.windows(hole.len()).position(|window| window == hole.as_bytes());
            let place =
                place.ok_or_else(|| std::io::Error::other("the schema came out without its metadata"))?;
            bytes[place..place + value.len()].copy_from_slice(value.as_bytes());
        }
        file.seek(SeekFrom::Start(start))?;
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// The digest of a split, built row by row.
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn new(shape: (u32, u32), classes: &[String], rows: u64) -> Hasher {
        let header = serde_json::json!({
            "format": "pba-split/1", "shape": [shape.0, shape.1, 3], "rows": rows, "classes": classes,
        });
        Hasher(Sha256::new_with_prefix(format!("{header}\n")))
    }

    pub(crate) fn push(&mut self, pixels: &[u8], label: i64) {
        self.0.update(label.to_le_bytes());
        self.0.update(pixels);
    }

    pub(crate) fn finish(self) -> Digest {
        let hex: String = self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        hex.parse().expect("these are 64 hexadecimal digits")
    }
}

/// Sums per channel, in integers, so that the order of the rows does not matter.
#[derive(Default)]
struct Moments {
    pixels: u64,
    sum: [u64; 3],
    squares: [u64; 3],
}

impl Moments {
    fn push(&mut self, pixels: &[u8]) {
        // An image has at most 2^24 pixels, so its sum of values fits 32 bits.
        let (mut sum, mut squares) = ([0_u32; 3], [0_u64; 3]);
        for pixel in pixels.as_chunks::<3>().0 {
            for channel in 0..3 {
                let value = u32::from(pixel[channel]);
                sum[channel] += value;
                squares[channel] += u64::from(value * value);
            }
        }
        self.pixels += (pixels.len() / 3) as u64;
        for channel in 0..3 {
            self.sum[channel] += u64::from(sum[channel]);
            self.squares[channel] += squares[channel];
        }
    }

    fn mean_and_std(&self) -> ([f64; 3], [f64; 3]) {
        let n = self.pixels as f64;
        let mean = self.sum.map(|sum| sum as f64 / n / 255.0);
        let std = std::array::from_fn(|channel| {
            let (sum, squares) = (u128::from(self.sum[channel]), u128::from(self.squares[channel]));
            let numerator = u128::from(self.pixels) * squares - sum * sum;
            (numerator as f64).sqrt() / n / 255.0
        });
        (mean, std)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_definition() {
        let pixels: Vec<u8> = (0..300_u32).map(|i| (i * i % 251) as u8).collect();
        let mut moments = Moments::default();
        pixels.chunks(30).for_each(|image| moments.push(image));
        let (mean, std) = moments.mean_and_std();
        for channel in 0..3 {
            let values: Vec<f64> =
                pixels.iter().skip(channel).step_by(3).map(|&v| f64::from(v) / 255.0).collect();
            let m = values.iter().sum::<f64>() / 100.0;
            let s = (values.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / 100.0).sqrt();
            assert!((mean[channel] - m).abs() < 1e-12 && (std[channel] - s).abs() < 1e-12);
        }
    }

    #[test]
    fn holes_have_the_length_of_what_fills_them() {
        assert_eq!(HOLE_DIGEST.len(), 64);
        for hole in [HOLE_MEAN, HOLE_STD] {
            assert_eq!(hole.len(), channels([0.0, 0.5, 1.0]).len());
        }
    }

    #[track_caller]
    fn refused(spec: PackSpec, message: &str) {
        let error = Packer::create(Path::new("unused.arrow"), spec).err().unwrap();
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn descriptions_out_of_bounds_are_refused() {
        let spec =
            PackSpec { height: 2, width: 2, classes: vec!["a".into()], rows: 1, source: String::new() };
        refused(
            PackSpec { height: 0, ..spec.clone() },
            "cannot pack images of 0x2; allowed are sides of 1..=4096 pixels",
        );
        refused(
            PackSpec { classes: vec![], ..spec.clone() },
            "cannot pack a number of classes of 0; allowed are 1..=1000000",
        );
        refused(PackSpec { rows: 0, ..spec }, "cannot pack a number of rows of 0; allowed are 1 and more");
    }
}
