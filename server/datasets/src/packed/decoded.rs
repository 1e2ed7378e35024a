//! Writing the packed format for images of one size.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{FixedSizeListArray, Int64Array, UInt8Array};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use pba_types::ImageShape;

use crate::decode::image::IMAGE_SIDE_MAX;
use crate::error::DatasetError;
use crate::packed::hash::Hasher;
use crate::packed::moments::Moments;
use crate::packed::output::Output;
use crate::packed::spec::{BATCH_BYTES, FORMAT, PackSpec};

/// Writes one packed split of images of one size, row by row, holding one record batch in memory.
pub struct Packer {
    spec: PackSpec,
    output: Output,
    image_bytes: usize,
    batch_rows: usize,
    pixels: Vec<u8>,
    labels: Vec<i64>,
    rows: u64,
    hasher: Hasher,
    moments: Moments,
}

impl Packer {
    /// Starts a packed file of images of a height and width in pixels, that will appear at
    /// `destination`.
    ///
    /// # Errors
    /// When shape or `spec` is out of bounds, or the file cannot be made.
    pub fn create(destination: &Path, shape: ImageShape, spec: PackSpec) -> Result<Packer, DatasetError> {
        let ImageShape { height, width } = shape;
        if ![height, width].iter().all(|side| (1..=IMAGE_SIDE_MAX).contains(side)) {
            return Err(DatasetError::Pack {
                what: "images of",
                value: format!("{height}x{width}"),
                allowed: format!("sides of 1..={IMAGE_SIDE_MAX} pixels"),
            });
        }
        spec.check()?;
        let image_bytes = shape.rgb_bytes();
        Ok(Packer {
            output: Output::create(destination, FORMAT, fields(shape), &spec)?,
            hasher: Hasher::decoded(shape, &spec.classes, spec.rows),
            spec,
            image_bytes,
            batch_rows: (BATCH_BYTES / image_bytes).max(1),
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
        self.spec.check_row(self.rows, label)?;
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
    }

    fn write_batch(&mut self) -> Result<(), DatasetError> {
        // The buffer is lent to Arrow, and taken back when the batch is written.
        let labels = std::mem::take(&mut self.labels);
        let values = Buffer::from_vec(std::mem::take(&mut self.pixels));
        let values = UInt8Array::new(ScalarBuffer::from(values), None);
        let DataType::FixedSizeList(item, length) = self.output.schema().field(0).data_type() else {
            unreachable!("fields() makes it a fixed-size list")
        };
        let images = FixedSizeListArray::new(item.clone(), *length, Arc::new(values), None);
        self.output.write(vec![Arc::new(images), Arc::new(Int64Array::from(labels))])
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

/// The two columns of a packed file of images of this size.
fn fields(shape: ImageShape) -> Vec<Field> {
    let ImageShape { height, width } = shape;
    let item = Arc::new(Field::new("item", DataType::UInt8, false));
    let bytes = shape.rgb_bytes() as i32; // at most 4096 * 4096 * 3
    let tensor = format!(r#"{{"shape":[{height},{width},3],"dim_names":["H","W","C"]}}"#);
    let image =
        Field::new("image", DataType::FixedSizeList(item, bytes), false).with_metadata(HashMap::from([
            ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned()),
            ("ARROW:extension:metadata".to_owned(), tensor),
        ]));
    vec![image, Field::new("label", DataType::Int64, false)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(side: u32, spec: PackSpec, message: &str) {
        let shape = ImageShape { height: side, width: 2 };
        let error = Packer::create(Path::new("unused.arrow"), shape, spec).err().unwrap();
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
}
