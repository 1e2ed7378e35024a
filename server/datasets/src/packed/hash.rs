//! The digests of packed splits, and the checksums in packed files.

use std::hash::Hasher as _;

use pba_types::{Digest, ImageShape};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_64;

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

/// The checksum of some bytes, given in pieces: XXH3, 64 bits, without a seed. It finds damage by accident; a
/// digest is there against intent.
pub(crate) fn checksum(pieces: &[&[u8]]) -> u64 {
    match pieces {
        [whole] => XxHash3_64::oneshot(whole),
        pieces => {
            let mut hasher = XxHash3_64::new();
            pieces.iter().for_each(|piece| hasher.write(piece));
            hasher.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_xxh3() {
        // Of xxhsum 0.8, `xxhsum -H3`.
        assert_eq!(checksum(&[b""]), 0x2d06_8005_38d3_94c2);
        assert_eq!(checksum(&[b"abc"]), 0x78af_5f94_892f_3950);
        let long: Vec<u8> = (0..10_000_u32).map(|i| (i * i % 251) as u8).collect();
        for cut in [0, 1, 255, 256, 5000, 9999] {
            assert_eq!(checksum(&[&long[..cut], &long[cut..]]), checksum(&[&long]), "cut at {cut}");
        }
    }
}
