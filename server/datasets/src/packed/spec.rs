//! What a packed file says of itself, known before its first row.

use crate::error::DatasetError;

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
