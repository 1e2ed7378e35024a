//! What a packed file says of itself, known before its first row.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_schema::{DataType, Field};
use pba_types::{Digest, ImageShape};

use crate::error::DatasetError;

/// Names the form for images of one size and its version, in the metadata and in cache keys.
pub(crate) const FORMAT: &str = "pba-packed/2";
/// Names the form for images of different sizes.
pub(crate) const FORMAT_ENCODED: &str = "pba-packed-encoded/2";
/// The same forms without checksums, as earlier versions wrote them.
pub(crate) const FORMAT_1: &str = "pba-packed/1";
pub(crate) const FORMAT_ENCODED_1: &str = "pba-packed-encoded/1";
pub(crate) const KEY_FORMAT: &str = "pba.packed";
pub(crate) const KEY_DIGEST: &str = "pba.digest";
pub(crate) const KEY_MEAN: &str = "pba.mean";
pub(crate) const KEY_STD: &str = "pba.std";
pub(crate) const KEY_CLASSES: &str = "pba.classes";
pub(crate) const KEY_ROWS: &str = "pba.rows";
pub(crate) const KEY_SOURCE: &str = "pba.source";
/// In the footer's own metadata: the checksums of the record batches, 16 hexadecimal digits each. For each
/// record batch, that of its other columns stands first, then those of the blocks of its pixels; encoded images
/// have theirs in a column.
pub(crate) const KEY_CHECKSUMS: &str = "pba.checksums";
/// Beside it: the checksum of all that is before the first record batch, and of the footer with
/// [`HOLE_CHECKSUM`] in this place.
pub(crate) const KEY_CHECKSUM: &str = "pba.checksum";
/// Beside it: which file of which folder of a cache it is ([`place`]), so that one in another's place is noticed.
pub(crate) const KEY_PLACE: &str = "pba.place";
/// What stands for a checksum that is not known yet.
pub(crate) const HOLE_CHECKSUM: &str = "\u{1}--checksum---\u{1}-";
/// Of the image column: its shape.
pub(crate) const KEY_TENSOR: &str = "ARROW:extension:metadata";

/// Labels are below this. It bounds the list of class names that every stream carries.
pub const CLASSES_MAX: usize = 1_000_000;
/// Bytes of the images of one record batch, about: small enough to buffer, large enough that a dataset of five
/// million photographs has fewer than 50,000 batches to look at when it is opened.
pub(crate) const BATCH_BYTES: usize = 16 << 20;
/// Bytes of the pixels of a record batch that have a checksum of their own, but for the last ones: few enough
/// that the first touch of an image hashes them in some 30 us, and that a disk which is read in a random
/// order reads little that is not needed yet; enough that the checksums of a terabyte take 32 MB.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// The place of a packed file in a cache: a digest of the names of its folder, which says of which source it is,
/// and of the file, which says of which split. Where the cache lies does not matter.
pub(crate) fn place(path: &Path) -> String {
    let name = |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_owned();
    let names = [name(path.parent()), name(Some(path))];
    Digest::of(names.map(|name| name.to_string_lossy().into_owned()).join("/")).to_string()
}

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

impl PackSpec {
    /// Checks what is known before the first row.
    pub(crate) fn check(&self) -> Result<(), DatasetError> {
        let refuse = |what, value, allowed| {
            Err(DatasetError::Pack { what: format!("a number of {what} of {value}"), allowed })
        };
        let classes = self.classes.len();
        if !(1..=CLASSES_MAX).contains(&classes) {
            return refuse("classes", classes, format!("1..={CLASSES_MAX}"));
        }
        if self.rows == 0 {
            return refuse("rows", 0, "1 and more".into());
        }
        Ok(())
    }

    /// Checks that there may be a row of this number, with this label.
    pub(crate) fn check_row(&self, row: u64, label: i64) -> Result<(), DatasetError> {
        assert!(row < self.rows, "more than {} rows", self.rows);
        match usize::try_from(label) {
            Ok(label) if label < self.classes.len() => Ok(()),
            _ => Err(DatasetError::label(&self.source, row, label, allowed_labels(self.classes.len()))),
        }
    }
}

/// "0..=9" and the like, for messages.
pub(crate) fn allowed_labels(classes: usize) -> String {
    format!("0..={} ({classes} classes)", classes.saturating_sub(1))
}

/// The columns of a packed file of encoded images; of an earlier version without their checksums.
pub(crate) fn encoded_fields(has_checksums: bool) -> Vec<Field> {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let mut fields = vec![field("image", DataType::Binary), field("label", DataType::Int64)];
    fields.extend(["height", "width"].map(|side| field(side, DataType::UInt32)));
    if has_checksums {
        fields.push(field("checksum", DataType::UInt64));
    }
    fields
}

/// The columns of a packed file of images of a size, or of encoded ones.
pub(crate) fn fields(shape: Option<ImageShape>) -> Vec<Field> {
    let label = Field::new("label", DataType::Int64, false);
    let Some(shape @ ImageShape { height, width }) = shape else { return encoded_fields(true) };
    let item = Arc::new(Field::new("item", DataType::UInt8, false));
    let bytes = shape.rgb_bytes() as i32; // at most 4096 * 4096 * 3
    let tensor = format!(r#"{{"shape":[{height},{width},3],"dim_names":["H","W","C"]}}"#);
    let metadata = HashMap::from([
        ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned()),
        (KEY_TENSOR.to_owned(), tensor),
    ]);
    let image = Field::new("image", DataType::FixedSizeList(item, bytes), false).with_metadata(metadata);
    vec![image, label]
}

/// Names and types of columns, for messages.
pub(crate) fn columns(fields: &[impl AsRef<Field>]) -> String {
    let texts =
        fields.iter().map(AsRef::as_ref).map(|field| format!("{} ({})", field.name(), field.data_type()));
    texts.collect::<Vec<_>>().join(", ")
}
