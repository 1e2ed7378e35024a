//! Writing the packed format for images of different sizes.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{BinaryArray, Int64Array, UInt32Array};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use pba_types::ImageShape;

use crate::decode::image::ENCODED_BYTES_MAX;
use crate::error::DatasetError;
use crate::packed::hash::Hasher;
use crate::packed::moments::Moments;
use crate::packed::output::Output;
use crate::packed::spec::{BATCH_BYTES, FORMAT_ENCODED, PackSpec};

/// Writes one packed split of encoded images, row by row, holding one record batch in memory.
///
/// A batch is closed when it holds 16 MiB, so its offsets, of 32 bits, reach any image in it.
pub struct EncodedPacker {
    spec: PackSpec,
    output: Output,
    bytes: Vec<u8>,
    /// Where each image of the batch ends in `bytes`; a zero before the first.
    ends: Vec<i32>,
    labels: Vec<i64>,
    heights: Vec<u32>,
    widths: Vec<u32>,
    rows: u64,
    hasher: Hasher,
    moments: Moments,
}

/// What a packed file says of an encoded image, which takes decoding it.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    size: ImageShape,
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

impl EncodedPacker {
    /// Starts a packed file that will appear at `destination`.
    ///
    /// # Errors
    /// When `spec` is out of bounds, or the file cannot be made.
    pub fn create(destination: &Path, spec: PackSpec) -> Result<EncodedPacker, DatasetError> {
        spec.check()?;
        Ok(EncodedPacker {
            output: Output::create(destination, FORMAT_ENCODED, fields(), &spec)?,
            hasher: Hasher::encoded(&spec.classes, spec.rows),
            spec,
            bytes: Vec::new(),
            ends: vec![0],
            labels: Vec::new(),
            heights: Vec::new(),
            widths: Vec::new(),
            rows: 0,
            moments: Moments::default(),
        })
    }

    /// Appends a row: the JPEG or PNG file, what its pixels are, and the label.
    ///
    /// # Errors
    /// When the label names no class, or the file cannot be written.
    ///
    /// # Panics
    /// When `bytes` is longer than [`ENCODED_BYTES_MAX`], or there are more rows than `spec` said.
    pub fn push(&mut self, bytes: &[u8], measured: &Measured, label: i64) -> Result<(), DatasetError> {
        assert!(bytes.len() <= ENCODED_BYTES_MAX, "{} bytes of an encoded image", bytes.len());
        self.spec.check_row(self.rows, label)?;
        self.hasher.push_encoded(bytes, measured.size, label);
        self.moments.add(&measured.moments);
        self.bytes.extend_from_slice(bytes);
        self.ends.push(i32::try_from(self.bytes.len()).expect("a batch is closed long before 2 GiB"));
        self.labels.push(label);
        self.heights.push(measured.size.height);
        self.widths.push(measured.size.width);
        self.rows += 1;
        if self.bytes.len() >= BATCH_BYTES { self.write_batch() } else { Ok(()) }
    }

    fn write_batch(&mut self) -> Result<(), DatasetError> {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let images = BinaryArray::new(offsets, Buffer::from_vec(std::mem::take(&mut self.bytes)), None);
        self.output.write(vec![
            Arc::new(images),
            Arc::new(Int64Array::from(std::mem::take(&mut self.labels))),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.heights))),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.widths))),
        ])
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
        self.output.finish(self.hasher.finish(), &self.moments)
    }
}

/// The columns of a packed file of encoded images.
pub(crate) fn fields() -> Vec<Field> {
    vec![
        Field::new("image", DataType::Binary, false),
        Field::new("label", DataType::Int64, false),
        Field::new("height", DataType::UInt32, false),
        Field::new("width", DataType::UInt32, false),
    ]
}
