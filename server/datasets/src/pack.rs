//! Writing the packed format.
//!
//! A packed split is an Arrow IPC file with uncompressed record batches. There are two forms:
//!
//! | images | `image` | other columns | record batches |
//! | --- | --- | --- | --- |
//! | of one size ([`Packer`]) | `arrow.fixed_shape_tensor` over `FixedSizeList<uint8>`: pixels | `label` (int64) | of equal size but for the last |
//! | of different sizes ([`EncodedPacker`]) | binary: JPEG or PNG files | `label` (int64), `height` and `width` (uint32) | of about 16 MiB |
//!
//! The schema's metadata says the rest; keys below.
//!
//! [`EncodedPacker`]: crate::EncodedPacker

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{FixedSizeListArray, Int64Array, UInt8Array};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use pba_types::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::DatasetError;
use crate::moments::Moments;
use crate::output::Output;

/// Names the form for images of one size and its version, in the metadata and in cache keys.
pub(crate) const FORMAT: &str = "pba-packed/1";
/// Names the form for images of different sizes.
pub(crate) const FORMAT_ENCODED: &str = "pba-packed-encoded/1";
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
/// Bytes of the images of one record batch, about: small enough to buffer, large enough that a dataset of five
/// million photographs has fewer than 50,000 batches to look at when it is opened.
pub(crate) const BATCH_BYTES: usize = 16 << 20;

/// What a packed split holds, known before its first row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSpec {
    /// Names of the classes; labels are positions in this list.
    pub classes: Vec<String>,
    /// How many rows will be pushed.
    pub rows: u64,
    /// What the split is made from, in words.
    pub source: String,
}

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
    pub fn create(destination: &Path, shape: (u32, u32), spec: PackSpec) -> Result<Packer, DatasetError> {
        let (height, width) = shape;
        if ![height, width].iter().all(|side| (1..=IMAGE_SIDE_MAX).contains(side)) {
            return Err(DatasetError::Pack {
                what: "images of",
                value: format!("{height}x{width}"),
                allowed: format!("sides of 1..={IMAGE_SIDE_MAX} pixels"),
            });
        }
        spec.check()?;
        let image_bytes = height as usize * width as usize * 3;
        Ok(Packer {
            output: Output::create(destination, FORMAT, fields(height, width), &spec)?,
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

impl PackSpec {
    /// Checks what is known before the first row.
    pub(crate) fn check(&self) -> Result<(), DatasetError> {
        let refuse = |what, value: usize, allowed: String| {
            Err(DatasetError::Pack { what, value: value.to_string(), allowed })
        };
        if !(1..=CLASSES_MAX).contains(&self.classes.len()) {
            return refuse("a number of classes of", self.classes.len(), format!("1..={CLASSES_MAX}"));
        }
        if self.rows == 0 {
            return refuse("a number of rows of", 0, "1 and more".into());
        }
        Ok(())
    }

    /// Checks that there may be a row of this number, with this label.
    pub(crate) fn check_row(&self, row: u64, label: i64) -> Result<(), DatasetError> {
        assert!(row < self.rows, "more than {} rows", self.rows);
        match usize::try_from(label) {
            Ok(label) if label < self.classes.len() => Ok(()),
            _ => Err(DatasetError::Label {
                file: self.source.clone(),
                row,
                value: label.to_string(),
                allowed: allowed_labels(self.classes.len()),
            }),
        }
    }
}

/// "0..=9" and the like, for messages.
pub(crate) fn allowed_labels(classes: usize) -> String {
    format!("0..={} ({classes} classes)", classes.saturating_sub(1))
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

/// The digest of a split, built row by row.
pub(crate) struct Hasher(Sha256);

impl Hasher {
    /// Of images of one size.
    pub(crate) fn decoded(shape: (u32, u32), classes: &[String], rows: u64) -> Hasher {
        let header = serde_json::json!({
            "format": "pba-split/1", "shape": [shape.0, shape.1, 3], "rows": rows, "classes": classes,
        });
        Hasher(Sha256::new_with_prefix(format!("{header}\n")))
    }

    /// Of images of different sizes.
    pub(crate) fn encoded(classes: &[String], rows: u64) -> Hasher {
        let header = serde_json::json!({ "format": "pba-split-encoded/1", "rows": rows, "classes": classes });
        Hasher(Sha256::new_with_prefix(format!("{header}\n")))
    }

    pub(crate) fn push(&mut self, pixels: &[u8], label: i64) {
        self.0.update(label.to_le_bytes());
        self.0.update(pixels);
    }

    /// The length stands before the bytes, so that no two splits run together the same.
    pub(crate) fn push_encoded(&mut self, bytes: &[u8], size: (u32, u32), label: i64) {
        self.0.update(label.to_le_bytes());
        self.0.update(size.0.to_le_bytes());
        self.0.update(size.1.to_le_bytes());
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        digest(self.0)
    }
}

/// What was hashed, as our type of digest.
pub(crate) fn digest(hash: Sha256) -> Digest {
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().expect("these are 64 hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(shape: (u32, u32), spec: PackSpec, message: &str) {
        let error = Packer::create(Path::new("unused.arrow"), shape, spec).err().unwrap();
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn descriptions_out_of_bounds_are_refused() {
        let spec = PackSpec { classes: vec!["a".into()], rows: 1, source: String::new() };
        refused((0, 2), spec.clone(), "cannot pack images of 0x2; allowed are sides of 1..=4096 pixels");
        refused(
            (2, 2),
            PackSpec { classes: vec![], ..spec.clone() },
            "cannot pack a number of classes of 0; allowed are 1..=1000000",
        );
        refused(
            (2, 2),
            PackSpec { rows: 0, ..spec },
            "cannot pack a number of rows of 0; allowed are 1 and more",
        );
    }
}
