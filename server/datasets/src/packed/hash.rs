//! The digests of packed splits.

use pba_types::{Digest, ImageShape};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The digest of a split, built row by row.
pub(crate) struct Hasher(Sha256);

impl Hasher {
    /// Of images of one size, or of encoded ones.
    pub(crate) fn new(shape: Option<ImageShape>, classes: &[String], rows: u64) -> Hasher {
        let header = match shape {
            Some(ImageShape { height, width }) => json!({
                "format": "pba-split/1", "shape": [height, width, 3], "rows": rows, "classes": classes,
            }),
            None => json!({ "format": "pba-split-encoded/1", "rows": rows, "classes": classes }),
        };
        Hasher(Sha256::new_with_prefix(format!("{header}\n")))
    }

    pub(crate) fn push(&mut self, pixels: &[u8], label: i64) {
        self.0.update(label.to_le_bytes());
        self.0.update(pixels);
    }

    /// The length stands before the bytes, so that no two splits run together the same.
    pub(crate) fn push_encoded(&mut self, bytes: &[u8], size: ImageShape, label: i64) {
        self.0.update(label.to_le_bytes());
        self.0.update(size.height.to_le_bytes());
        self.0.update(size.width.to_le_bytes());
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
